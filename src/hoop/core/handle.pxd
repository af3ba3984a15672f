from cpython.object cimport PyObject
from hoop.core.cpython_api cimport PyContext_CheckExact, PyContext_CopyCurrent
from hoop.core.csrc cimport hoop_inbox_node, hoop_timer, hoop_timers
from hoop.core.flag cimport flag
from libc.stdint cimport int64_t

cdef bint GUARDS_POSTED  # asyncio has a class for the handles of call_soon_threadsafe: since Python 3.14


cdef class Handle:
    cdef object loop            # strong: a pending callback keeps its loop alive, as in asyncio
    cdef object callback        # None once cancelled
    cdef object context         # contextvars.Context
    cdef object first           # the arguments: up to two inline, else a tuple of all of them in `first`
    cdef object second
    cdef object source_traceback
    cdef unsigned char argument_count  # 3 stands for more than two
    cdef flag is_cancelled
    cdef flag is_guarded        # to be run between begin_guarded() and end_guarded()
    cdef flag is_running        # of one that is guarded: between these two
    cdef flag is_awaited        # other threads wait until it is not running
    # Of a ScheduledHandle; here, where they take no room.
    cdef flag is_scheduled      # as asyncio's _scheduled: in the heap, or taken out of it and about to run
    cdef flag is_repeating      # is_scheduled also while it runs; repeat() is called when it has
    cdef object __weakref__
    # With 80 bytes a compiler clears a new one in a few stores, with more by a loop that takes four times as long.


cdef class PostedHandle(Handle):
    """A handle that can travel through the inbox."""
    cdef hoop_inbox_node node


cdef class ScheduledHandle(Handle):
    """What stands in the heap of timers."""
    cdef hoop_timer timer
    cdef hoop_timers *timers    # the heap that the timer is in; it lives as long as `loop`
    cdef double when_s

    cdef int repeat(self) except -1


cdef class TimerHandle(ScheduledHandle):
    pass


cdef class Immediate(Handle):
    cdef flag is_pending
    cdef flag is_unreferenced


cdef Handle new_handle(object loop, object callback, PyObject **arguments, Py_ssize_t count, object context)
cdef PostedHandle new_posted_handle(object loop, object callback, PyObject **arguments, Py_ssize_t count,
                                    object context)
cdef TimerHandle new_timer_handle(object loop, object callback, PyObject **arguments, Py_ssize_t count, object context)
cdef bint begin_guarded(Handle handle) except -1
cdef int end_guarded(Handle handle) except -1
cdef int withdraw(ScheduledHandle handle) except -1  # what cancel() does
cdef Immediate new_immediate(object loop, object callback, PyObject **arguments, Py_ssize_t count, object context)
cdef tuple new_tuple(PyObject **items, Py_ssize_t count)
cdef int refuse_context(object context) except -1
cdef object callback_source(Handle handle)
cdef str described(Handle handle)
cdef int invoke(Handle handle) noexcept
cdef PyObject *handle_of_node(hoop_inbox_node *node) noexcept
cdef PyObject *handle_of_timer(hoop_timer *timer) noexcept


cdef inline int fill(Handle handle, object loop, object callback, PyObject **arguments, Py_ssize_t count,
                     object context) except -1:
    if context is None:
        handle.context = PyContext_CopyCurrent()
    elif PyContext_CheckExact(context):
        handle.context = context
    else:
        refuse_context(context)
    handle.loop = loop
    handle.callback = callback
    handle.argument_count = <unsigned char>min(count, 3)
    if count > 2:
        handle.first = new_tuple(arguments, count)
    elif count > 0:
        handle.first = <object>arguments[0]
        if count > 1:
            handle.second = <object>arguments[1]
    return 0
