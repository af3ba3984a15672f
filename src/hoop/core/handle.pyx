"""Handle and its kinds: one scheduled callback with its arguments and its context.

Handle and TimerHandle stand in for those of asyncio: isinstance() holds through `__class__` (inheriting would bring
asyncio's own fields along), and the attributes that the ecosystem reads (`_callback`, `_args`, `_context`, `_when`,
`_cancelled`, `_scheduled`) are there. Immediate is hoop's own, as is Timer (timer.pyx).

From Python 3.14 on, what call_soon_threadsafe() returns is guarded, as asyncio's _ThreadSafeHandle: other threads that
cancel it, or ask whether it is cancelled, wait for a callback that is running. asyncio has a lock in each for that;
here nothing is allocated unless a thread has to wait. All of it happens under the GIL, or else in a critical section of
the handle, and nothing between a look at `is_running` and what follows from it gives either away.
"""
cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from hoop.core.cpython_api cimport PY_VECTORCALL_ARGUMENTS_OFFSET, PyObject_GC_Del, PyObject_GC_Track, \
    PyObject_Init, PyThread_get_thread_ident, PyType_GenericAlloc, raw_decref, raw_incref, raw_tuple_items, \
    raw_tuple_size, raw_vectorcall, type_slots
from hoop.core.csrc cimport hoop_inbox_node, hoop_timer_init, hoop_timer_is_pending, hoop_timers_remove, \
    hoop_timers_set_referenced
from hoop.core.ownership cimport IS_FREE_THREADED, Owned, hoop_load, hoop_load_flag, hoop_store_flag
from libc.string cimport memset

import asyncio
import functools
import inspect
from _thread import allocate_lock
from asyncio import events, format_helpers

cdef enum:
    MOST_FREE = 1024  # timers whose memory is kept for the next ones

GUARDS_POSTED = hasattr(events, "_ThreadSafeHandle")
cdef bint HAS_DEBUG_ARGUMENT = "debug" in inspect.signature(format_helpers._format_callback_source).parameters


@cython.freelist(1024)
cdef class Handle:
    """A callback scheduled with call_soon or another call of the loop. Only the loop makes these."""

    @property
    def __class__(self):
        return events._ThreadSafeHandle if self.is_guarded else asyncio.Handle

    @property
    def _loop(self):
        return self.loop

    @property
    def _callback(self):
        return self.callback

    @property
    def _args(self):
        return None if hoop_load_flag(&self.is_cancelled) else arguments_of(self)

    @property
    def _context(self):
        return self.context

    @property
    def _cancelled(self):
        return hoop_load_flag(&self.is_cancelled)

    @property
    def _source_traceback(self):
        return self.source_traceback

    def cancel(self):
        """Make sure that the callback does not run. Idempotent; safe from any thread; releases callback and arguments.
        A callback that another thread runs is waited for, if it was scheduled with call_soon_threadsafe and Python is
        3.14 or newer."""
        if self.is_guarded:
            cancel_guarded(self)
        else:
            discard(self)

    def cancelled(self):
        """Whether cancel() was called. Waits where cancel() does."""
        if self.is_guarded:
            await_end(self)
        return hoop_load_flag(&self.is_cancelled)

    def get_context(self):
        """The contextvars.Context that the callback runs in."""
        return self.context

    def __repr__(self):
        return f"<{' '.join(description(self))}>"


cdef class PostedHandle(Handle):
    """A callback scheduled with call_soon_threadsafe by another thread."""


cdef class ScheduledHandle(Handle):
    """A callback with a deadline. Cancelling takes it out of the heap at once."""

    def __cinit__(self):
        hoop_timer_init(&self.timer)

    cdef int repeat(self) except -1:
        """Arm a handle that repeats, once it has run."""
        raise NotImplementedError("a handle that repeats must say how")

    def cancel(self):
        """Make sure that the callback does not run. Idempotent."""
        withdraw(self)

    def ref(self):
        """Have loop.run() wait for this timer again, as it does by default. Returns self. (Node: timeout.ref)"""
        hoop_timers_set_referenced(self.timers, &self.timer, True)
        return self

    def unref(self):
        """Let loop.run() return although this timer is still pending. Returns self. (Node: timeout.unref)"""
        hoop_timers_set_referenced(self.timers, &self.timer, False)
        return self

    def has_ref(self):
        """Whether loop.run() waits for this timer while it is pending."""
        return not self.timer.is_unreferenced


cdef class TimerHandle(ScheduledHandle):
    """A callback scheduled with call_later or call_at."""

    @property
    def __class__(self):
        return asyncio.TimerHandle

    @property
    def _when(self):
        return self.when_s

    @property
    def _scheduled(self):
        return self.is_scheduled

    def when(self):
        """The deadline in seconds of loop.time()."""
        return self.when_s

    def cancel(self):  # here too: a method of the very type is called faster than an inherited one
        """Make sure that the callback does not run. Idempotent."""
        withdraw(self)

    def __hash__(self):
        return hash(self.when_s)

    def __eq__(self, other):
        cdef TimerHandle that
        if type(other) is not TimerHandle:
            return NotImplemented
        that = other
        return (self.when_s == that.when_s and self.callback == that.callback
                and self._args == that._args and self.is_cancelled == that.is_cancelled)

    def __lt__(self, other):
        if type(other) is not TimerHandle:
            return NotImplemented
        return self.when_s < (<TimerHandle>other).when_s

    def __le__(self, other):
        if type(other) is not TimerHandle:
            return NotImplemented
        return self.when_s < (<TimerHandle>other).when_s or self == other

    def __gt__(self, other):
        if type(other) is not TimerHandle:
            return NotImplemented
        return self.when_s > (<TimerHandle>other).when_s

    def __ge__(self, other):
        if type(other) is not TimerHandle:
            return NotImplemented
        return self.when_s > (<TimerHandle>other).when_s or self == other


cdef class Immediate(Handle):
    """A callback scheduled with set_immediate: hoop's counterpart of Node's Immediate."""

    @property
    def active(self):
        """Whether the callback is still to come."""
        return self.is_pending and not hoop_load_flag(&self.is_cancelled)

    def close(self):
        """Make sure that the callback does not run. Idempotent. (Node: clearImmediate)"""
        discard(self)

    def ref(self):
        """Have loop.run() wait for this callback again, as it does by default. Returns self. (Node: immediate.ref)"""
        self.is_unreferenced = False
        return self

    def unref(self):
        """Let loop.run() return without having called it. Returns self. (Node: immediate.unref)"""
        self.is_unreferenced = True
        return self

    def has_ref(self):
        """Whether loop.run() waits for this callback while it is to come."""
        return not self.is_unreferenced

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


cdef tuple new_tuple(PyObject **items, Py_ssize_t count):
    cdef Py_ssize_t i
    cdef tuple made = PyTuple_New(count)
    for i in range(count):
        raw_incref(items[i])
        PyTuple_SET_ITEM(made, i, <object>items[i])
    return made


cdef int refuse_context(object context) except -1:
    raise TypeError(f"context must be a contextvars.Context, not {context!r}")


cdef Handle new_handle(object loop, object callback, PyObject **arguments, Py_ssize_t count, object context):
    """A handle for callback(*arguments); a context of None means a copy of the current one."""
    cdef Handle handle = Handle.__new__(Handle)
    fill(handle, loop, callback, arguments, count, context)
    return handle


cdef PostedHandle new_posted_handle(object loop, object callback, PyObject **arguments, Py_ssize_t count,
                                    object context):
    """As new_handle, for call_soon_threadsafe by another thread."""
    cdef PostedHandle handle = PostedHandle.__new__(PostedHandle)
    handle.is_guarded = GUARDS_POSTED
    fill(handle, loop, callback, arguments, count, context)
    return handle


cdef TimerHandle new_timer_handle(object loop, object callback, PyObject **arguments, Py_ssize_t count,
                                  object context):
    cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
    fill(handle, loop, callback, arguments, count, context)
    return handle


cdef Immediate new_immediate(object loop, object callback, PyObject **arguments, Py_ssize_t count, object context):
    cdef Immediate handle = Immediate.__new__(Immediate)
    fill(handle, loop, callback, arguments, count, context)
    handle.is_pending = True
    return handle


cdef int invoke(Handle handle) noexcept:
    """Call the callback; -1 with the exception set if it raised. invoke() keeps callback and arguments alive, since the
    callback may cancel its own handle."""
    cdef PyObject *stack[3]
    cdef PyObject *result
    cdef PyObject *callback = <PyObject *>handle.callback
    cdef PyObject *first = <PyObject *>handle.first
    cdef PyObject *second = <PyObject *>handle.second
    cdef size_t count = <size_t>handle.argument_count
    raw_incref(callback)
    if count == 0:
        result = raw_vectorcall(callback, stack + 1, PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    else:
        raw_incref(first)
        raw_incref(second)
        stack[0] = NULL
        stack[1] = first
        stack[2] = second
        if count > 2:
            result = raw_vectorcall(callback, raw_tuple_items(first, 0), raw_tuple_size(first), NULL)
        else:
            result = raw_vectorcall(callback, stack + 1, count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        raw_decref(second)
        raw_decref(first)
    raw_decref(callback)
    if result == NULL:
        return -1
    raw_decref(result)
    return 0


cdef int withdraw(ScheduledHandle handle) except -1:
    if IS_FREE_THREADED and not is_ours(handle):
        refuse_foreigner(handle)
    discard(handle)
    if hoop_timer_is_pending(&handle.timer):
        handle.is_scheduled = False
        if hoop_timers_remove(handle.timers, &handle.timer) == 0:
            Py_DECREF(handle)  # the heap's reference; the caller still has its own
    return 0


cdef int discard(Handle handle) except -1:
    cdef object label = None
    if hoop_load_flag(&handle.is_cancelled):
        return 0
    if IS_FREE_THREADED and not handle.is_guarded and not is_ours(handle):
        # Its loop may be reading the rest, and lets go of it when its turn comes.
        hoop_store_flag(&handle.is_cancelled, True)
        return 0
    if handle.source_traceback is not None:
        label = repr(handle)  # debug mode: a cancelled handle still tells what it was
    hoop_store_flag(&handle.is_cancelled, True)
    handle.callback = None
    handle.first = None
    handle.second = label
    return 0


# ---- guarded handles ------------------------------------------------------------------------------------------------

cdef bint begin_guarded(Handle handle) except -1:
    """The loop is about to call the callback; False if another thread has cancelled it."""
    with cython.critical_section(handle):
        if hoop_load_flag(&handle.is_cancelled):
            return False
        hoop_store_flag(&handle.is_running, True)
    return True


cdef int end_guarded(Handle handle) except -1:
    """The callback has returned or raised."""
    cdef bint is_awaited
    with cython.critical_section(handle):
        is_awaited = handle.is_awaited
        handle.is_awaited = False
        hoop_store_flag(&handle.is_running, False)
    if is_awaited:
        (<Owned>handle.loop).let_threads_go()
    return 0


cdef int cancel_guarded(Handle handle) except -1:
    while not discard_unless_running(handle):
        await_end(handle)
    return 0


cdef bint discard_unless_running(Handle handle) except -1:
    """discard(), if no other thread runs the callback; whether that is so."""
    with cython.critical_section(handle):
        if handle.is_running and not is_run_here(handle):
            return False
        discard(handle)
    return True


cdef int await_end(Handle handle) except -1:
    """Wait, unless this thread runs the callback itself, until none does."""
    while hoop_load_flag(&handle.is_running) and not is_run_here(handle):
        lock = allocate_lock()
        lock.acquire()
        if have_released(handle, lock):
            lock.acquire()
    return 0


cdef bint have_released(Handle handle, object lock) except -1:
    """Have the end of the callback release lock, if that is still to come; whether it is."""
    cdef Owned loop = handle.loop
    with cython.critical_section(handle, loop):
        if not handle.is_running:  # it may have ended meanwhile: allocating can run other code
            return False
        handle.is_awaited = True
        if loop.waiting is None:
            loop.waiting = []
        loop.waiting.append(lock)
    return True


cdef bint is_run_here(Handle handle) noexcept:
    """Whether a callback that is running runs in this thread."""
    return hoop_load(&(<Owned>handle.loop).thread_id) == PyThread_get_thread_ident()


cdef bint is_ours(Handle handle) noexcept:
    """Whether this is the thread of the handle's loop, or it has none."""
    return handle.loop is None or (<Owned>handle.loop).is_ours()


cdef int refuse_foreigner(Handle handle) except -1:
    raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one: cancel() of a "
                       "timer is for the thread of its loop; others hand it the call by call_soon_threadsafe()")


cdef tuple arguments_of(Handle handle):
    if handle.argument_count == 0:
        return ()
    if handle.argument_count == 1:
        return (handle.first,)
    if handle.argument_count == 2:
        return (handle.first, handle.second)
    return handle.first


cdef object callback_source(Handle handle):
    """The callback and where it is defined, with its arguments in debug mode only: they may hold secrets."""
    if HAS_DEBUG_ARGUMENT:
        return format_helpers._format_callback_source(handle.callback, arguments_of(handle),
                                                      debug=handle.loop.get_debug())
    if handle.loop.get_debug():
        return format_helpers._format_callback_source(handle.callback, arguments_of(handle))
    return source_without_arguments(handle.callback)


cdef object source_without_arguments(object callback):
    """For versions whose asyncio cannot leave the arguments out (cpython#112997, mended in Python 3.12.2)."""
    cdef object source = format_helpers._get_function_source(callback)
    cdef str suffix = ""
    while isinstance(callback, functools.partial):
        callback = callback.func
        suffix += "()"
    text = format_helpers._format_callback(callback, (), None, suffix)
    return f"{text} at {source[0]}:{source[1]}" if source else text


cdef list description(Handle handle):
    """The words of a repr, as asyncio puts them."""
    kind = "Handle" if type(handle) is PostedHandle else type(handle).__name__
    words = ["ThreadSafeHandle" if handle.is_guarded else kind]
    if hoop_load_flag(&handle.is_cancelled):
        words.append("cancelled")
        if handle.second is not None:
            words.append(handle.second)
    if isinstance(handle, ScheduledHandle):
        words.append(f"when={(<ScheduledHandle>handle).when_s}")
    if handle.callback is not None:
        words.append(callback_source(handle))
    if handle.source_traceback:
        frame = handle.source_traceback[len(handle.source_traceback) - 1]
        words.append(f"created at {frame[0]}:{frame[1]}")
    return words


cdef str described(Handle handle):
    """The handle as asyncio's slow-callback warning shows it: the task, where the callback is a task's step."""
    owner = getattr(handle.callback, "__self__", None)
    if owner is not None and hasattr(owner, "get_coro"):
        return repr(owner)
    return str(handle)


cdef Py_ssize_t node_offset  # of PostedHandle.node
cdef Py_ssize_t timer_offset  # of ScheduledHandle.timer


cdef PyObject *handle_of_node(hoop_inbox_node *node) noexcept:
    """The handle that travels as node. Borrowed."""
    return <PyObject *>(<char *>node - node_offset)


cdef PyObject *handle_of_timer(hoop_timer *timer) noexcept:
    """The handle that waits as timer. Borrowed."""
    return <PyObject *>(<char *>timer - timer_offset)


cdef int measure_offsets() except -1:
    global node_offset, timer_offset
    cdef PostedHandle posted = PostedHandle.__new__(PostedHandle)
    cdef ScheduledHandle scheduled = ScheduledHandle.__new__(ScheduledHandle)
    node_offset = <char *>&posted.node - <char *><void *>posted
    timer_offset = <char *>&scheduled.timer - <char *><void *>scheduled
    return 0


measure_offsets()


# ---- memory of timers ------------------------------------------------------------------------------------------------

# As @cython.freelist, which is for classes without a base only.

cdef PyObject *free_timers[MOST_FREE]
cdef int free_count = 0


cdef PyObject *allocate_timer(PyTypeObject *kind, Py_ssize_t count) noexcept:
    global free_count
    cdef PyObject *memory
    if free_count == 0:
        return PyType_GenericAlloc(kind, count)
    free_count -= 1
    memory = free_timers[free_count]
    memset(memory, 0, <size_t>(<type_slots *>kind).tp_basicsize)
    PyObject_Init(memory, kind)
    PyObject_GC_Track(memory)
    return memory


cdef void free_timer(void *memory) noexcept:
    global free_count
    if free_count < MOST_FREE:
        free_timers[free_count] = <PyObject *>memory
        free_count += 1
    else:
        PyObject_GC_Del(memory)


cdef int keep_memory_of_timers() except -1:
    """Have a TimerHandle, a class that has no subclass, use the memory of those before it."""
    cdef type_slots *slots = <type_slots *><PyObject *>TimerHandle
    if not IS_FREE_THREADED:  # else several threads would take the same
        slots.tp_alloc = allocate_timer
        slots.tp_free = free_timer
    return 0


keep_memory_of_timers()
