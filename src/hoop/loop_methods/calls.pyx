"""The calls that schedule: call_soon and its kin, the queues and timers in the spirit of Node.js, create_task.

Callers enter through the vectorcall protocol (METH_FASTCALL): Cython's own methods would build a tuple of the
arguments for each call. add_calls() makes them methods of a type derived from Reactor.
"""
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsDouble, PyLong_CheckExact
from cpython.object cimport PyCallable_Check, PyObject, PyTypeObject, Py_TYPE
from hoop.core.cpython_api cimport METH_FASTCALL, METH_KEYWORDS, PY_VECTORCALL_ARGUMENTS_OFFSET, PyCFunction, \
    PyDescr_NewMethod, PyMethodDef, PyObject_Call, PyObject_Vectorcall, PyType_Modified, raw_compare, \
    raw_tuple_items, raw_tuple_size, type_slots
from hoop.core.csrc cimport hoop_ring
from hoop.core.handle cimport Handle, new_tuple
from hoop.core.reactor cimport Reactor
from hoop.core.ownership cimport IS_FREE_THREADED, hoop_look_at
from hoop.core.scheduler cimport check_caller, deadline_after
from hoop.core.timer cimport set_interval, set_timeout
from libc.math cimport isnan
from libc.stdint cimport int64_t

import asyncio
import inspect
import sys
from asyncio import format_helpers

try:
    import _asyncio
except ImportError:  # a Python without asyncio's accelerator
    _asyncio = None

ctypedef object (*Entry)(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names)

# Since this release asyncio passes every keyword of create_task, the name among them, to the task factory.
cdef bint FACTORY_TAKES_NAME = sys.version_info >= (3, 13, 3)

# Keywords, interned as those of a call in Python code are: a comparison of pointers finds them.
cdef object CONTEXT = sys.intern("context")
cdef object NAME = sys.intern("name")
cdef object EAGER_START = sys.intern("eager_start")
cdef tuple LOOP_ALONE = ("loop",)

# The compiled Task asks this same function for its loop; one written in Python, or that a program has put in its
# place, may ask another.
cdef object COMPILED_TASK = getattr(_asyncio, "Task", NotImplemented)
cdef object get_running_loop_or_none = asyncio._get_running_loop


cdef struct Call:               # the arguments of a caller, sorted
    PyObject *leading           # the argument before the callback, borrowed; NULL when not given
    PyObject *callback          # borrowed
    PyObject *context           # borrowed; NULL when not given
    PyObject **arguments
    Py_ssize_t count


cdef inline int sort_arguments(Call *call, str method, PyObject **arguments, Py_ssize_t count, PyObject *names,
                               str leading) except -1:
    """Sort (leading, callback, *args), or without leading if that is None. Both and context may be keywords."""
    cdef Py_ssize_t before = 0 if leading is None else 1
    if count <= before or (names != NULL and not is_context_alone(names)):
        return sort_keywords(call, method, arguments, count, names, leading)
    call.leading = arguments[0]
    call.callback = arguments[before]
    call.context = NULL if names == NULL else arguments[count]
    call.arguments = arguments + before + 1
    call.count = count - before - 1
    return 0


cdef inline bint is_context_alone(PyObject *names) noexcept:
    """Whether context is the only keyword, as in calls by tasks and futures (before 3.14 a string of their own)."""
    cdef PyObject *name = raw_tuple_items(names, 0)[0]
    return raw_tuple_size(names) == 1 and (name == <PyObject *>CONTEXT or raw_compare(name, <PyObject *>CONTEXT) == 0)


cdef int sort_keywords(Call *call, str method, PyObject **arguments, Py_ssize_t count, PyObject *names,
                       str leading) except -1:
    cdef Py_ssize_t i
    cdef Py_ssize_t before = 0 if leading is None else 1
    call.context = NULL
    call.callback = NULL
    call.leading = arguments[0] if count >= before > 0 else NULL
    if count > before:
        call.callback = arguments[before]
        call.arguments = arguments + before + 1
        call.count = count - before - 1
    else:
        call.arguments = NULL
        call.count = 0
    if names != NULL:
        for i in range(len(<tuple>names)):
            name = (<tuple>names)[i]
            if name == "context":
                call.context = arguments[count + i]
            elif name == "callback" and call.callback == NULL:
                call.callback = arguments[count + i]
            elif name == leading and call.leading == NULL:
                call.leading = arguments[count + i]
            else:
                raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
    if call.callback == NULL or (before > 0 and call.leading == NULL):
        raise TypeError(f"{method}() missing a required positional argument")
    return 0


cdef inline int sort_positional(Call *call, str method, PyObject **arguments, Py_ssize_t count,
                                PyObject *names) except -1:
    """Sort callback and *args; only context may be a keyword."""
    call.context = NULL
    if names != NULL:
        if is_context_alone(names):
            call.context = arguments[count]
        else:
            refuse_keywords(method, <tuple>names)
    if count == 0:
        raise TypeError(f"{method}() missing a required positional argument: 'callback'")
    call.callback = arguments[0]
    call.arguments = arguments + 1
    call.count = count - 1
    return 0


cdef int refuse_keywords(str method, tuple names) except -1:
    """TypeError for a keyword other than context."""
    for name in names:
        if name != "context":
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
    return 0


cdef inline int check_callback(Reactor loop, PyObject *callback, str method) except -1:
    if (hoop_look_at(&loop.closed) or hoop_look_at(&loop.debug)
            or (<type_slots *>Py_TYPE(<object>callback)).tp_call == NULL
            or (IS_FREE_THREADED and not loop.is_ours())):
        return check_schedulable(loop, <object>callback, method)
    return 0


cdef int check_schedulable(Reactor loop, object callback, str method) except -1:
    loop.check_open()
    if not PyCallable_Check(callback):
        if asyncio.iscoroutine(callback):
            raise TypeError(f"coroutines cannot be used with {method}()")
        raise TypeError(f"a callable object was expected by {method}(), got {callback!r}")
    if hoop_look_at(&loop.debug) and inspect.iscoroutinefunction(callback):
        raise TypeError(f"coroutines cannot be used with {method}()")
    return 0 if method == "call_soon_threadsafe" else check_caller(loop, method)


cdef inline object context_of(Call *call):
    return None if call.context == NULL else <object>call.context


cdef inline Handle finish(Reactor loop, Handle handle):
    if hoop_look_at(&loop.debug):
        note_source(handle)
    return handle


cdef int note_source(Handle handle) except -1:
    handle.source_traceback = format_helpers.extract_stack(sys._getframe(0))
    return 0


cdef object enter_call_soon(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef Call call
    cdef Reactor loop = <Reactor>self
    sort_arguments(&call, "call_soon", arguments, count, names, None)
    check_callback(loop, call.callback, "call_soon")
    return finish(loop, loop.schedule(<object>call.callback, call.arguments, call.count, context_of(&call)))


cdef object enter_call_soon_threadsafe(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef Call call
    cdef Reactor loop = <Reactor>self
    sort_arguments(&call, "call_soon_threadsafe", arguments, count, names, None)
    check_callback(loop, call.callback, "call_soon_threadsafe")
    return finish(loop, loop.post(<object>call.callback, call.arguments, call.count, context_of(&call)))


cdef enum:
    MOST_TASK_KEYWORDS = 3      # context, name, eager_start


cdef bint are_task_keywords(PyObject *names) noexcept:
    cdef Py_ssize_t i
    cdef PyObject *name
    if raw_tuple_size(names) > MOST_TASK_KEYWORDS:
        return False
    for i in range(raw_tuple_size(names)):
        name = raw_tuple_items(names, 0)[i]
        if name != <PyObject *>CONTEXT and name != <PyObject *>NAME and name != <PyObject *>EAGER_START:
            return False
    return True


cdef object enter_create_task(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """Return asyncio.Task(coro, **keywords, loop=self), in the common case."""
    cdef PyObject *stack[MOST_TASK_KEYWORDS + 3]
    cdef Reactor loop = <Reactor>self
    cdef Py_ssize_t i, keywords = 0
    cdef tuple task_names = LOOP_ALONE
    if (count != 1 or loop.closed or loop.debug or loop._task_factory is not None
            or (names != NULL and not are_task_keywords(names)) or (IS_FREE_THREADED and not loop.is_ours())):
        return create_uncommon_task(loop, arguments, count, names)
    if asyncio.Task is COMPILED_TASK and get_running_loop_or_none() is loop:
        # It finds this loop by itself. Passing the loop would cost a dictionary, where no other keyword is given.
        return PyObject_Vectorcall(COMPILED_TASK, arguments, 1, names)
    if names != NULL:
        keywords = raw_tuple_size(names)
        task_names = <tuple>names + LOOP_ALONE
    stack[0] = NULL
    for i in range(1 + keywords):
        stack[1 + i] = arguments[i]
    stack[2 + keywords] = self
    return PyObject_Vectorcall(asyncio.Task, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, <PyObject *>task_names)


cdef object create_uncommon_task(Reactor loop, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """Make a task by the slow way: wrong arguments, a closed loop, debug mode, a task factory."""
    cdef Py_ssize_t i
    cdef dict keywords = {}
    if names != NULL:
        for i in range(raw_tuple_size(names)):
            keywords[(<tuple>names)[i]] = <object>arguments[count + i]
    return PyObject_Call(create_task, (loop, *new_tuple(arguments, count)), keywords)


def create_task(Reactor loop not None, /, coro, **kwargs):
    """Make a task as the method does, called with Python's protocol, which checks the arguments."""
    loop.check_ours("create_task")
    factory = loop._task_factory
    if factory is None:
        return asyncio.Task(coro, loop=loop, **kwargs)
    if FACTORY_TAKES_NAME:
        return factory(loop, coro, **kwargs)
    name = kwargs.pop("name", None)
    if kwargs.get("context", True) is None:
        del kwargs["context"]
    task = factory(loop, coro, **kwargs)
    if name is not None:
        task.set_name(name)
    return task


cdef object enter_queue(PyObject *self, hoop_ring *queue, str method, PyObject **arguments, Py_ssize_t count,
                        PyObject *names):
    """Add a callback to one of the queues that asyncio does not have."""
    cdef Call call
    cdef Reactor loop = <Reactor>self
    sort_positional(&call, method, arguments, count, names)
    check_callback(loop, call.callback, method)
    if queue == &loop.immediates:
        return finish(loop, loop.immediate(<object>call.callback, call.arguments, call.count, context_of(&call)))
    return finish(loop, loop.defer(queue, <object>call.callback, call.arguments, call.count, context_of(&call)))


cdef object enter_next_tick(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    return enter_queue(self, &(<Reactor>self).next_ticks, "next_tick", arguments, count, names)


cdef object enter_queue_microtask(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    return enter_queue(self, &(<Reactor>self).microtasks, "queue_microtask", arguments, count, names)


cdef object enter_set_immediate(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    return enter_queue(self, &(<Reactor>self).immediates, "set_immediate", arguments, count, names)


cdef object enter_call_later(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef Call call
    cdef Reactor loop = <Reactor>self
    cdef double delay_s, when_s
    cdef int64_t now_ns
    sort_arguments(&call, "call_later", arguments, count, names, "delay")
    check_callback(loop, call.callback, "call_later")
    delay_s = seconds(<object>call.leading, "delay")
    if loop.is_time_replaced:
        when_s = loop.asked_time_s() + delay_s
        return finish(loop, loop.schedule_timer_at(deadline_after(0, when_s), when_s, <object>call.callback,
                                                   call.arguments, call.count, context_of(&call)))
    now_ns = loop.now_ns()
    if delay_s == 0.0:
        return finish(loop, loop.schedule_timer(now_ns, <object>call.callback, call.arguments, call.count,
                                                context_of(&call)))
    return finish(loop, loop.schedule_timer_at(deadline_after(now_ns, delay_s), <double>now_ns / 1e9 + delay_s,
                                               <object>call.callback, call.arguments, call.count, context_of(&call)))


cdef object enter_call_at(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef Call call
    cdef Reactor loop = <Reactor>self
    cdef double when_s
    sort_arguments(&call, "call_at", arguments, count, names, "when")
    check_callback(loop, call.callback, "call_at")
    when_s = seconds(<object>call.leading, "when")
    return finish(loop, loop.schedule_timer_at(deadline_after(0, when_s), when_s, <object>call.callback, call.arguments,
                                               call.count, context_of(&call)))


cdef object enter_timer(PyObject *self, bint repeats, str method, PyObject **arguments, Py_ssize_t count,
                        PyObject *names):
    """Sort (callback, delay, *args): as in Node, the callback comes first."""
    cdef Call call
    cdef Reactor loop = <Reactor>self
    cdef str name = "period" if repeats else "delay"
    cdef double delay_s = 0.0
    sort_positional(&call, method, arguments, count, names)
    check_callback(loop, call.callback, method)
    if call.count > 0:
        delay_s = seconds(<object>call.arguments[0], name)
        call.arguments += 1
        call.count -= 1
    elif repeats:
        raise TypeError(f"{method}() missing a required positional argument: {name!r}")
    if repeats:
        return finish(loop, set_interval(loop, delay_s, <object>call.callback, call.arguments, call.count,
                                         context_of(&call)))
    return finish(loop, set_timeout(loop, delay_s, <object>call.callback, call.arguments, call.count,
                                    context_of(&call)))


cdef object enter_set_timeout(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    return enter_timer(self, False, "set_timeout", arguments, count, names)


cdef object enter_set_interval(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    return enter_timer(self, True, "set_interval", arguments, count, names)


cdef double seconds(object value, str name) except? -1.0:
    cdef double result
    if PyFloat_CheckExact(value):
        result = PyFloat_AS_DOUBLE(value)
    elif PyLong_CheckExact(value):
        result = PyLong_AsDouble(value)  # unlike PyFloat_AsDouble() it makes no float
    elif value is None:
        raise TypeError(f"{name} cannot be None")
    else:
        result = number_of_seconds(value, name)
    if isnan(result):
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    return result


cdef double number_of_seconds(object value, str name) except? -1.0:
    try:
        return value
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None


cdef inline PyMethodDef entered(const char *name, Entry function, const char *doc) noexcept:
    return PyMethodDef(name, <PyCFunction><void *>function, METH_FASTCALL | METH_KEYWORDS, doc)


# Lives as long as the process: method descriptors point into it. The last entry has no name.
cdef PyMethodDef *CALLS = [
    entered(b"call_soon", enter_call_soon,
            b"call_soon($self, callback, *args, context=None)\n--\n\n"
            b"Call callback(*args) in the next turn, in context (default: a copy of the current one). Returns a "
            b"Handle."),
    entered(b"call_soon_threadsafe", enter_call_soon_threadsafe,
            b"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
            b"As call_soon, from any thread; wakes the loop."),
    entered(b"call_later", enter_call_later,
            b"call_later($self, delay, callback, *args, context=None)\n--\n\n"
            b"Call callback(*args) after delay seconds, never early; inf never fires. Returns a TimerHandle."),
    entered(b"call_at", enter_call_at,
            b"call_at($self, when, callback, *args, context=None)\n--\n\n"
            b"Call callback(*args) when loop.time() has reached when. Returns a TimerHandle."),
    entered(b"next_tick", enter_next_tick,
            b"next_tick($self, callback, /, *args, context=None)\n--\n\n"
            b"Call callback(*args) when the running callback has ended, before any microtask (Node: "
            b"process.nextTick)."),
    entered(b"queue_microtask", enter_queue_microtask,
            b"queue_microtask($self, callback, /, *args, context=None)\n--\n\n"
            b"Call callback(*args) when the running callback and its next ticks have ended (Node: queueMicrotask)."),
    entered(b"set_immediate", enter_set_immediate,
            b"set_immediate($self, callback, /, *args, context=None)\n--\n\n"
            b"Call callback(*args) at the end of this turn, after I/O and timers (Node: setImmediate). Returns an "
            b"Immediate."),
    entered(b"set_timeout", enter_set_timeout,
            b"set_timeout($self, callback, delay=0, /, *args, context=None)\n--\n\n"
            b"Call callback(*args) once, after delay seconds, never early; inf never fires, a negative delay means "
            b"now. TypeError unless delay is a number, ValueError for NaN. Returns a Timer (Node: setTimeout, in "
            b"milliseconds)."),
    entered(b"set_interval", enter_set_interval,
            b"set_interval($self, callback, period, /, *args, context=None)\n--\n\n"
            b"Call callback(*args) every period seconds, from one period on; without drift, and ticks that were missed "
            b"are skipped. A callback that raises is reported, and the interval goes on. TypeError unless period is a "
            b"number, ValueError unless it is more than 0. Returns a Timer (Node: setInterval, in milliseconds)."),
    entered(b"create_task", enter_create_task,
            b"create_task($self, coro, **kwargs)\n--\n\n"
            b"Schedule a coroutine; keywords (name, context, eager_start) go to the task or to the task factory.\n\n"
            b"Only what the caller gave is passed on, so a factory need not take keywords that no caller uses."),
    PyMethodDef(NULL, NULL, 0, NULL),
]


cdef int add_calls(object kind) except -1:
    """Make the calls methods of kind, a compiled type derived from Reactor."""
    cdef PyMethodDef *call = CALLS
    while call.ml_name != NULL:
        method = PyDescr_NewMethod(<PyTypeObject *>kind, call)
        (<dict>(<type_slots *><PyObject *>kind).tp_dict)[call.ml_name.decode("ascii")] = method
        call += 1
    PyType_Modified(<PyTypeObject *>kind)
    return 0
