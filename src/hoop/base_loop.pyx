"""BaseLoop: the part of the asyncio surface that runs per callback or per packet. loop.py adds the rest.

call_soon and its kin are entered through the vectorcall protocol (METH_FASTCALL): Cython's own methods would build a tuple
of the arguments for each call.
"""
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyCallable_Check, PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from hoop.cpython_api cimport METH_FASTCALL, METH_KEYWORDS, PY_VECTORCALL_ARGUMENTS_OFFSET, PyCFunction, \
    PyCFunction_Check, PyCFunction_GetFunction, PyDescr_NewMethod, PyMethodDef, PyObject_GenericSetAttr, \
    PyObject_Vectorcall, PyType_Modified, method_descriptor, raw_compare, raw_is_callable, raw_tuple_items, \
    raw_tuple_size, tuple_items, type_slots
from hoop.csrc cimport hoop_clock_ns, hoop_histogram_count_from, hoop_meter, hoop_meter_reset, hoop_poller_close, \
    hoop_ring, hoop_ring_size, hoop_timers_referenced, hoop_waker_close
from hoop.datagram cimport DatagramTransport
from hoop.garbage cimport show_to_collector
from hoop.handle cimport Handle, new_handle
from hoop.native_timers cimport set_interval, set_timeout
from hoop.pool cimport durations
from hoop.reactor cimport Reactor, Watcher, flush_if_deferred
from hoop.scheduler cimport deadline_after
from hoop.sockops cimport add_callback, fd_watcher, receive, remove_callback, send_all
from hoop.stream cimport StreamTransport
from libc.math cimport isnan
from libc.stdint cimport int64_t, uint64_t

import asyncio
import inspect
import sys
from asyncio import format_helpers
from operator import methodcaller
from types import MethodDescriptorType

from hoop import sockops
from hoop.listener import Listener

cdef PyCFunction own_time = NULL  # the code of BaseLoop.time(), by which another one is told apart


cdef class BaseLoop(Reactor):
    # ---- scheduling (call_soon, call_later, ... are entered below) -------------------------------------------------

    cdef int check_schedulable(self, object callback, str method) except -1:
        self.check_open()
        if not PyCallable_Check(callback):
            if asyncio.iscoroutine(callback):
                raise TypeError(f"coroutines cannot be used with {method}()")
            raise TypeError(f"a callable object was expected by {method}(), got {callback!r}")
        if self.debug:
            if inspect.iscoroutinefunction(callback):
                raise TypeError(f"coroutines cannot be used with {method}()")
            if method != "call_soon_threadsafe":
                self.check_thread()
        return 0

    def time(self):
        """Seconds of the loop's monotonic clock, to the nanosecond.

        A class derived from the loop's may have its own, and a test may set another as the loop's attribute: timers ask
        whatever stands in its place.
        """
        if self.given_clock is None:
            return <double>hoop_clock_ns() / 1e9
        return <double><int64_t>self.given_clock() / 1e9

    cdef bint has_other_time(self) except -1:
        method = self.time
        return not (PyCFunction_Check(method) and method.__self__ is self
                    and PyCFunction_GetFunction(method) == own_time)

    def __setattr__(self, name, value):
        PyObject_GenericSetAttr(self, name, <PyObject *>value)
        if name == "time" or name == "__class__":
            self.look_at_time()

    def __delattr__(self, name):
        PyObject_GenericSetAttr(self, name, NULL)
        if name == "time":
            self.look_at_time()

    def create_future(self):
        """An asyncio.Future of this loop."""
        return self.new_future()

    def stop(self):
        """End run_forever() after the callbacks of the turn that is running."""
        self.stopping = True

    def is_running(self):
        """Whether run_forever() or run_until_complete() is active."""
        return self.thread_id != 0

    def is_closed(self):
        """Whether close() was called."""
        return self.closed

    # ---- descriptors ---------------------------------------------------------------------------------------------

    def add_reader(self, fd, callback, *args):
        """Call callback(*args) whenever fd is readable. Replaces the callback that was there.

        fd is a number or an object with fileno(). ValueError for neither; OSError if the kernel cannot watch it
        (PermissionError for a regular file, with epoll); RuntimeError if a transport owns it.
        """
        return self.add_watch(fd, callback, args, False, "add_reader")

    def remove_reader(self, fd):
        """Stop calling; whether there was a callback."""
        return remove_callback(self, fd, False)

    def add_writer(self, fd, callback, *args):
        """Call callback(*args) whenever fd is writable. As add_reader."""
        return self.add_watch(fd, callback, args, True, "add_writer")

    def remove_writer(self, fd):
        """Stop calling; whether there was a callback."""
        return remove_callback(self, fd, True)

    cdef object add_watch(self, object fd, object callback, tuple args, bint is_writer, str method):
        cdef Handle handle
        self.check_schedulable(callback, method)
        handle = new_handle(self, callback, tuple_items(args, 0), len(args), None)
        add_callback(self, fd, handle, is_writer)
        return None

    # ---- sockets -------------------------------------------------------------------------------------------------
    # Each attempt looks the method up anew, as asyncio does: meanwhile another one may have taken its place.

    def sock_recv(self, sock, n):
        """Receive up to n bytes; b"" at end of stream."""
        return receive(self, sock, n)

    def sock_recv_into(self, sock, buf):
        """Receive into a writable buffer; the number of bytes."""
        return sockops.sock_call(self, sock, False, methodcaller("recv_into", buf), sock)

    def sock_recvfrom(self, sock, bufsize):
        """Receive a datagram of up to bufsize bytes: (data, address)."""
        return sockops.sock_call(self, sock, False, methodcaller("recvfrom", bufsize), sock)

    def sock_recvfrom_into(self, sock, buf, nbytes=0):
        """Receive a datagram into a writable buffer: (number of bytes, address)."""
        return sockops.sock_call(self, sock, False, methodcaller("recvfrom_into", buf, nbytes or len(buf)), sock)

    def sock_sendall(self, sock, data):
        """Send all of data. After an error it is unknown how much was sent."""
        return send_all(self, sock, data)

    def sock_sendto(self, sock, data, address):
        """Send a datagram; the number of bytes."""
        return sockops.sock_call(self, sock, True, methodcaller("sendto", data, address), sock)

    def sock_accept(self, sock):
        """Accept a connection: (non-blocking socket, address). sock must be listening."""
        return sockops.sock_call(self, sock, False, accept_nonblocking, sock, kind="accept")

    def _sock_connect_resolved(self, sock, address):
        return sockops.sock_connected(self, sock, address)

    # ---- transports, for the cold paths --------------------------------------------------------------------------

    def _make_stream(self, sock, protocol, waiter=None, extra=None, server=None, peer=None):
        """A transport that owns sock (connected, non-blocking). connection_made comes in the next turn, then waiter.

        peer is the address that was connected to, for when the kernel no longer knows it. RuntimeError, and sock stays
        open, if another transport owns it already; whatever else fails closes it.
        """
        cdef StreamTransport transport = None
        fd_watcher(self, sock)
        try:
            self.check_ours()
            transport = StreamTransport.__new__(StreamTransport)
            transport.adopt(self, sock.fileno(), sock, protocol, None, server, extra)
            if peer is not None:
                transport.know_peer(peer)
            transport.begin_life(waiter)
        except BaseException:
            if transport is not None:
                transport.release()  # all of it or, if not adopted, nothing
            sock.close()
            raise
        return transport

    def _make_datagram(self, sock, protocol, address, waiter=None):
        """A transport that owns sock (non-blocking). With an address, sendto() accepts no other.

        If it raises, sock is still the caller's, and open.
        """
        cdef DatagramTransport transport = DatagramTransport.__new__(DatagramTransport)
        fd_watcher(self, sock)
        try:
            self.check_ours()
            transport.open(self, sock, protocol, address, waiter)
        except BaseException:
            transport.disown()
            raise
        return transport

    def _make_listener(self, sock, protocol_factory, server, backlog, admission):
        return Listener(self, sock, protocol_factory, server, backlog, admission)

    def _close_transports_of(self, server, abort):
        """close() or abort() every connection that server has accepted."""
        cdef int fd
        cdef StreamTransport transport
        for fd in range(self.watcher_capacity):
            watcher = self.watcher_of(fd)
            if isinstance(watcher, StreamTransport):
                transport = watcher
                if transport.server is server:
                    if abort:
                        transport.abort()
                    elif transport.filter is not None:
                        transport.filter.close_from_below()
                    else:
                        transport.close()

    # ---- running -------------------------------------------------------------------------------------------------

    cdef bint is_alive(self) except -1:
        """A task that waits for something (another thread, perhaps) counts too; looked for only if all else is done."""
        return Reactor.is_alive(self) or len(asyncio.all_tasks(self)) > 0

    def _run_turns(self, bint until_idle=False):
        self.run_turns(until_idle)

    def _ref(self):
        """One more thing that run() waits for and no queue, timer or descriptor shows; _unref() when it has ended."""
        self.ref()

    def _unref(self):
        self.unref()

    def _reference_reader(self, fd, is_referenced):
        """Whether run() waits for a descriptor of hoop's own that was added with add_reader."""
        fd_watcher(self, fd).set_referenced(is_referenced)

    def _close_reactor(self):
        """Release every callback and descriptor. Idempotent; RuntimeError if the loop was begun meanwhile, in another thread."""
        if self.closed:
            return
        if self.thread_id != 0:
            raise RuntimeError("Cannot close a running event loop")
        cdef int fd
        cdef Watcher watcher
        for fd in range(self.watcher_capacity):
            watcher = self.watcher_of(fd)
            if watcher is not None and not self.forked:
                watcher.on_loop_closed()
        self.closed = True
        self.release_everything()
        self.cached_files = None  # it has descriptors
        hoop_poller_close(&self.poller)
        hoop_waker_close(&self.waker)

    def _flush_deferred(self):
        """Send what the running callback has written: something is about to be done that others can see. Cheap when there is
        nothing, and no operation at all in another thread."""
        flush_if_deferred(self)

    def _is_entered(self, context):
        """Whether the callback that runs now was called inside this very Context."""
        return self.entered is context

    def _mark_forked(self):
        """In a child after fork(): the kernel's poller is the parent's, it must not be changed from here."""
        self.forked = True
        self.in_callback = False  # it may end by os._exit(), which no hook sees: writes are not deferred any more

    def _measured(self):
        """The fields of hoop.stats.Metrics but for the pool's."""
        cdef hoop_meter *meter = &self.meter
        cdef int64_t uncounted_ns = 0
        if self.thread_id != 0:
            uncounted_ns = self.now_ns() - meter.counted_ns
        return {
            "turns": meter.turns, "callbacks": meter.callbacks, "events": meter.events, "polls": meter.polls,
            "sleeps": meter.sleeps, "busy_ns": meter.busy_ns + uncounted_ns, "idle_ns": meter.idle_ns,
            "lag": durations(&meter.lag), "timer_lateness": durations(&meter.lateness),
            "ready": hoop_ring_size(&self.ready), "timers": self.timers.size,
            "unreferenced_timers": self.timers.size - hoop_timers_referenced(&self.timers),
            "jobs_in_flight": self.jobs_in_flight, "watchers": self.watchers_by_kind(),
        }

    cdef dict watchers_by_kind(self):
        cdef int fd
        cdef dict counts = {}
        for fd in range(self.watcher_capacity):
            watcher = self.watcher_of(fd)
            if watcher is not None:
                kind = type(watcher).__name__
                counts[kind] = counts.get(kind, 0) + 1
        return counts

    def _reset_meter(self):
        hoop_meter_reset(&self.meter, self.now_ns())

    def _pulse(self, threshold_ns):
        """For a watchdog in another thread: (a number that changes whenever the loop moves on, the thread that a callback
        holds or 0, nanoseconds since the loop last looked for work, how many lags were of threshold_ns or more)."""
        cdef hoop_meter *meter = &self.meter
        cdef uint64_t beats = meter.callbacks + meter.events + meter.polls + meter.turns
        cdef unsigned long holder = self.thread_id if self.in_callback else 0
        cdef int64_t looked_ago_ns = hoop_clock_ns() - meter.looked_ns if self.clock is None else 0
        return beats, holder, looked_ago_ns, hoop_histogram_count_from(&meter.lag, threshold_ns)

    def _turn_counts(self):
        """(turns, polls, polls that blocked) since the loop was made."""
        return (self.meter.turns, self.meter.polls, self.meter.sleeps)

    def _set_debug_flag(self, bint enabled):
        self.debug = enabled

    def get_debug(self):
        """Whether debug mode is on."""
        return self.debug

    @property
    def _debug(self):
        return self.debug

    @property
    def _closed(self):
        return self.closed

    @property
    def _stopping(self):
        return self.stopping

    def _check_closed(self):
        self.check_open()

    @property
    def _thread_id(self):
        return self.thread_id or None

    @property
    def poller_name(self):
        """The back end in use: "epoll", "kqueue" or "poll"; None once closed."""
        return None if self.poller.backend == NULL else self.poller.backend.name.decode("ascii")


def accept_nonblocking(sock):
    connection, address = sock.accept()
    connection.setblocking(False)
    return connection, address


# ---- the vectorcall entries ---------------------------------------------------------------------------------------

# Keywords. Those of a call in Python code are interned, and so are these.
cdef object CONTEXT = sys.intern("context")
cdef object NAME = sys.intern("name")
cdef object EAGER_START = sys.intern("eager_start")
cdef tuple LOOP_ALONE = ("loop",)


cdef struct Call:               # what a caller passed, sorted
    PyObject *leading           # what stands before the callback, borrowed; NULL when not given
    PyObject *callback          # borrowed
    PyObject *context           # borrowed; NULL when not given
    PyObject **arguments
    Py_ssize_t count


cdef inline int sort_arguments(Call *call, str method, PyObject **arguments, Py_ssize_t count, PyObject *names,
                               str leading) except -1:
    """What is called `leading` if anything is, callback and *args; the first two and context may be keywords."""
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
    """Whether the one keyword is context: that is how tasks and futures call, before Python 3.14 with a name of their own."""
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


cdef inline int check_callback(BaseLoop loop, PyObject *callback, str method) except -1:
    if loop.closed or loop.debug or not raw_is_callable(callback):
        return loop.check_schedulable(<object>callback, method)
    return 0


cdef inline object context_of(Call *call):
    return None if call.context == NULL else <object>call.context


cdef PyObject *finish(BaseLoop loop, Handle handle) except NULL:
    if loop.debug:
        handle.source_traceback = format_helpers.extract_stack(sys._getframe(0))
    Py_INCREF(handle)
    return <PyObject *>handle


cdef PyObject *enter_call_soon(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names) except NULL:
    cdef Call call
    cdef BaseLoop loop = <BaseLoop>self
    sort_arguments(&call, "call_soon", arguments, count, names, None)
    check_callback(loop, call.callback, "call_soon")
    return finish(loop, loop.schedule(<object>call.callback, call.arguments, call.count, context_of(&call)))


cdef PyObject *enter_call_soon_threadsafe(PyObject *self, PyObject **arguments, Py_ssize_t count,
                                          PyObject *names) except NULL:
    cdef Call call
    cdef BaseLoop loop = <BaseLoop>self
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


cdef PyObject *enter_create_task(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names) except NULL:
    """asyncio.Task(coro, **keywords, loop=self). Whatever is out of the common is left to loop.py."""
    cdef PyObject *stack[MOST_TASK_KEYWORDS + 3]
    cdef BaseLoop loop = <BaseLoop>self
    cdef Py_ssize_t i, keywords = 0
    cdef tuple task_names = LOOP_ALONE
    if (count != 1 or loop.closed or loop.debug or loop._task_factory is not None
            or (names != NULL and not are_task_keywords(names))):
        task = PyObject_Vectorcall(loop._create_task, arguments, <size_t>count, names)
        Py_INCREF(task)
        return <PyObject *>task
    if names != NULL:
        keywords = raw_tuple_size(names)
        task_names = <tuple>names + LOOP_ALONE
    stack[0] = NULL
    for i in range(1 + keywords):
        stack[1 + i] = arguments[i]
    stack[2 + keywords] = self
    task = PyObject_Vectorcall(asyncio.Task, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, <PyObject *>task_names)
    Py_INCREF(task)
    return <PyObject *>task


cdef PyObject *enter_queue(PyObject *self, hoop_ring *queue, str method, PyObject **arguments, Py_ssize_t count,
                           PyObject *names) except NULL:
    """For one of the queues that asyncio does not have."""
    cdef Call call
    cdef BaseLoop loop = <BaseLoop>self
    sort_arguments(&call, method, arguments, count, names, None)
    check_callback(loop, call.callback, method)
    if queue == &loop.immediates:
        return finish(loop, loop.immediate(<object>call.callback, call.arguments, call.count, context_of(&call)))
    return finish(loop, loop.defer(queue, <object>call.callback, call.arguments, call.count, context_of(&call)))


cdef PyObject *enter_next_tick(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names) except NULL:
    return enter_queue(self, &(<BaseLoop>self).next_ticks, "next_tick", arguments, count, names)


cdef PyObject *enter_queue_microtask(PyObject *self, PyObject **arguments, Py_ssize_t count,
                                     PyObject *names) except NULL:
    return enter_queue(self, &(<BaseLoop>self).microtasks, "queue_microtask", arguments, count, names)


cdef PyObject *enter_set_immediate(PyObject *self, PyObject **arguments, Py_ssize_t count,
                                   PyObject *names) except NULL:
    return enter_queue(self, &(<BaseLoop>self).immediates, "set_immediate", arguments, count, names)


cdef PyObject *enter_call_later(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names) except NULL:
    cdef Call call
    cdef BaseLoop loop = <BaseLoop>self
    cdef double delay_s, when_s
    cdef int64_t now_ns
    sort_arguments(&call, "call_later", arguments, count, names, "delay")
    check_callback(loop, call.callback, "call_later")
    delay_s = seconds(<object>call.leading, "delay")
    if loop.is_time_replaced:
        when_s = <double>loop.time() + delay_s
        return finish(loop, loop.schedule_timer(deadline_after(0, when_s), when_s, <object>call.callback, call.arguments,
                                                call.count, context_of(&call)))
    now_ns = loop.now_ns()
    return finish(loop, loop.schedule_timer(deadline_after(now_ns, delay_s), <double>now_ns / 1e9 + delay_s,
                                            <object>call.callback, call.arguments, call.count, context_of(&call)))


cdef PyObject *enter_call_at(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names) except NULL:
    cdef Call call
    cdef BaseLoop loop = <BaseLoop>self
    cdef double when_s
    sort_arguments(&call, "call_at", arguments, count, names, "when")
    check_callback(loop, call.callback, "call_at")
    when_s = seconds(<object>call.leading, "when")
    return finish(loop, loop.schedule_timer(deadline_after(0, when_s), when_s, <object>call.callback, call.arguments,
                                            call.count, context_of(&call)))


cdef PyObject *enter_timer(PyObject *self, bint repeats, str method, PyObject **arguments, Py_ssize_t count,
                           PyObject *names) except NULL:
    """The callback comes first here, as in Node, and then the delay."""
    cdef Call call
    cdef BaseLoop loop = <BaseLoop>self
    cdef str name = "period" if repeats else "delay"
    cdef double delay_s = 0.0
    sort_arguments(&call, method, arguments, count, names, None)
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


cdef PyObject *enter_set_timeout(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names) except NULL:
    return enter_timer(self, False, "set_timeout", arguments, count, names)


cdef PyObject *enter_set_interval(PyObject *self, PyObject **arguments, Py_ssize_t count, PyObject *names) except NULL:
    return enter_timer(self, True, "set_interval", arguments, count, names)


cdef double seconds(object value, str name) except? -1.0:
    cdef double result
    if PyFloat_CheckExact(value):
        result = PyFloat_AS_DOUBLE(value)
    elif PyLong_CheckExact(value):
        result = value
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


# The table lives as long as the process: method descriptors point into it.
cdef PyMethodDef entries[10]


cdef int add_entry(int index, const char *name, void *function, const char *doc) except -1:
    entries[index].ml_name = name
    entries[index].ml_meth = <PyCFunction>function
    entries[index].ml_flags = METH_FASTCALL | METH_KEYWORDS
    entries[index].ml_doc = doc
    descriptor = PyDescr_NewMethod(<PyTypeObject *>BaseLoop, &entries[index])
    (<dict>(<type_slots *><PyObject *>BaseLoop).tp_dict)[name.decode("ascii")] = descriptor
    return 0


add_entry(0, "call_soon", <void *>enter_call_soon,
          b"call_soon($self, callback, *args, context=None)\n--\n\n"
          b"Call callback(*args) in the next turn, in context (default: a copy of the current one). Returns a Handle.")
add_entry(1, "call_soon_threadsafe", <void *>enter_call_soon_threadsafe,
          b"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
          b"As call_soon, from any thread; wakes the loop.")
add_entry(2, "call_later", <void *>enter_call_later,
          b"call_later($self, delay, callback, *args, context=None)\n--\n\n"
          b"Call callback(*args) after delay seconds, never early; inf never fires. Returns a TimerHandle.")
add_entry(3, "call_at", <void *>enter_call_at,
          b"call_at($self, when, callback, *args, context=None)\n--\n\n"
          b"Call callback(*args) when loop.time() has reached when. Returns a TimerHandle.")
add_entry(4, "next_tick", <void *>enter_next_tick,
          b"next_tick($self, callback, /, *args, context=None)\n--\n\n"
          b"Call callback(*args) when the running callback has ended, before any microtask (Node: process.nextTick).")
add_entry(5, "queue_microtask", <void *>enter_queue_microtask,
          b"queue_microtask($self, callback, /, *args, context=None)\n--\n\n"
          b"Call callback(*args) when the running callback and its next ticks have ended (Node: queueMicrotask).")
add_entry(6, "set_immediate", <void *>enter_set_immediate,
          b"set_immediate($self, callback, /, *args, context=None)\n--\n\n"
          b"Call callback(*args) at the end of this turn, after I/O and timers (Node: setImmediate). Returns an Immediate.")
add_entry(7, "set_timeout", <void *>enter_set_timeout,
          b"set_timeout($self, callback, delay=0, /, *args, context=None)\n--\n\n"
          b"Call callback(*args) once, after delay seconds, never early; inf never fires, a negative delay means now. "
          b"TypeError unless delay is a number, ValueError for NaN. Returns a Timer (Node: setTimeout, in milliseconds).")
add_entry(8, "set_interval", <void *>enter_set_interval,
          b"set_interval($self, callback, period, /, *args, context=None)\n--\n\n"
          b"Call callback(*args) every period seconds, from one period on; without drift, and ticks that were missed are "
          b"skipped. A callback that raises is reported, and the interval goes on. TypeError unless period is a number, "
          b"ValueError unless it is more than 0. Returns a Timer (Node: setInterval, in milliseconds).")
add_entry(9, "create_task", <void *>enter_create_task,
          b"create_task($self, coro, **kwargs)\n--\n\n"
          b"Schedule a coroutine; keywords (name, context, eager_start) go to the task or to the task factory.\n\n"
          b"Only what the caller gave is passed on, so a factory need not take keywords that nobody uses.")
PyType_Modified(<PyTypeObject *>BaseLoop)
own_time = (<method_descriptor *><PyObject *>BaseLoop.__dict__["time"]).d_method.ml_meth
show_to_collector(BaseLoop)


def own_methods(kind):
    """Give a class derived from BaseLoop the compiled methods that it inherits as methods of its own.

    A call through a method of the very type needs no search for BaseLoop among the many bases, and the interpreter has
    faster instructions for it.
    """
    if not issubclass(kind, BaseLoop):
        raise TypeError(f"a class derived from BaseLoop was expected, not {kind!r}")
    for name, method in list(BaseLoop.__dict__.items()):
        if type(method) is MethodDescriptorType and getattr(kind, name) is method:
            setattr(kind, name, PyDescr_NewMethod(<PyTypeObject *>kind, (<method_descriptor *><PyObject *>method).d_method))
