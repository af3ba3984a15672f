"""What the garbage collector sees of a reactor.

Cython's own traverse and clear know a class's object attributes. To them the references in rings, heap, inbox and
table are plain pointers, so a cycle through these (an abandoned loop always is one) would never be collected.
show_to_collector chains functions that visit them into the slots of a type derived from Reactor, before Python
subclasses inherit the slots.
"""
from cpython.object cimport PyObject
from hoop.core.cpython_api cimport gc_clear_fn, gc_traverse_fn, gc_visit_fn, type_slots
from hoop.core.csrc cimport hoop_inbox_node, hoop_inbox_visit, hoop_ring, hoop_ring_visit, hoop_timer, \
    hoop_timers_visit
from hoop.core.handle cimport handle_of_node, handle_of_timer
from hoop.core.reactor cimport Reactor, Watcher

from asyncio.log import logger

cdef gc_traverse_fn attributes_traverse  # Cython's own
cdef gc_clear_fn attributes_clear

cdef struct Visit:
    gc_visit_fn visit
    void *arg


cdef int visit_entry(void *entry, void *arg) noexcept:
    cdef Visit *visit = <Visit *>arg
    return visit.visit(<PyObject *>entry, visit.arg)


cdef int visit_node(void *node, void *arg) noexcept:
    return visit_entry(handle_of_node(<hoop_inbox_node *>node), arg)


cdef int visit_timer(void *timer, void *arg) noexcept:
    return visit_entry(handle_of_timer(<hoop_timer *>timer), arg)


cdef int reactor_traverse(PyObject *self, gc_visit_fn visit, void *arg) noexcept:
    cdef Visit entry_visit
    cdef int result = attributes_traverse(self, visit, arg)
    if result != 0:
        return result
    entry_visit.visit = visit
    entry_visit.arg = arg
    result = visit_queues(self, &entry_visit)
    if result != 0:
        return result
    result = visit_watchers(self, &entry_visit)
    if result != 0:
        return result
    return visit_inbox(self, &entry_visit)


cdef int visit_queues(PyObject *self, Visit *visit) noexcept:
    cdef hoop_ring *queues[6]
    cdef int i, result
    queues[0] = &(<Reactor>self).ready
    queues[1] = &(<Reactor>self).due
    queues[2] = &(<Reactor>self).next_ticks
    queues[3] = &(<Reactor>self).microtasks
    queues[4] = &(<Reactor>self).immediates
    queues[5] = &(<Reactor>self).flushes
    for i in range(6):
        result = hoop_ring_visit(queues[i], visit_entry, visit)
        if result != 0:
            return result
    return hoop_timers_visit(&(<Reactor>self).timers, visit_timer, visit)


cdef int visit_watchers(PyObject *self, Visit *visit) noexcept:
    cdef int i, result
    cdef PyObject *entry
    for i in range((<Reactor>self).watcher_capacity):
        entry = (<Reactor>self).watchers[i]
        if entry != NULL and (<Watcher>entry).is_held:
            result = visit.visit(entry, visit.arg)
            if result != 0:
                return result
    return 0


cdef int visit_inbox(PyObject *self, Visit *visit) noexcept:
    cdef int result
    cdef hoop_inbox_node *node = (<Reactor>self).arrived
    while node != NULL:
        result = visit_node(node, visit)
        if result != 0:
            return result
        node = node.next
    return hoop_inbox_visit(&(<Reactor>self).inbox, visit_node, visit)


cdef int reactor_clear(PyObject *self) noexcept:
    (<Reactor>self).closed = True
    try:
        (<Reactor>self).release_everything()
    except BaseException as error:
        logger.error("an abandoned event loop could not be released whole", exc_info=error)
    return attributes_clear(self)


cdef int show_to_collector(object reactor_type) except -1:
    """Call this once, for the compiled type that users' loops derive from."""
    global attributes_traverse, attributes_clear
    cdef type_slots *slots = <type_slots *><PyObject *>reactor_type
    attributes_traverse = slots.tp_traverse
    attributes_clear = slots.tp_clear
    slots.tp_traverse = reactor_traverse
    slots.tp_clear = reactor_clear
    return 0
