"""add_reader, add_writer and the sock_* coroutines: on descriptors that the application keeps.

A sock_* call tries at once and waits only if the kernel says so. Its registration is kept for the next call on the same
socket object (remembered by a weak reference; another object on the same number is registered anew), and so is the
interest in reading: recv, send, recv again costs no change in the kernel. The first event that no
operation waits for takes the descriptor out, so unread data cannot spin the loop.

If a task is cancelled after its call has received and before the task goes on, the next call on the same socket object
gets the result: wait_for() around sock_recv() would lose it otherwise.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from hoop.core.csrc cimport HOOP_READABLE, HOOP_WRITABLE, hoop_net_peek, hoop_net_recv, hoop_net_send, \
    hoop_net_socket_error
from hoop.core.errors cimport os_error, pass_exits_on
from hoop.core.handle cimport Handle
from hoop.core.ownership cimport IS_FREE_THREADED
from hoop.core.reactor cimport READ_BUFFER_SIZE, Reactor, Watcher, flush_if_deferred
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.step_coroutine cimport STEP_ENDS, STEP_WAITS, StepCoroutine, StepOutcome
from hoop.net.transport cimport descriptor_of, in_use
from libc.errno cimport EAGAIN, EBADF

import socket as socket_module
import weakref

try:
    from ssl import SSLSocket
except ImportError:  # an interpreter built without OpenSSL
    SSLSocket = None

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object owned) noexcept

cdef object Socket = socket_module.socket
cdef object would_block = object()

cdef enum:
    MINE = 1                    # reference: that of the caller's variable


cdef class FdWatcher(Watcher):
    def __cinit__(self):
        self.is_kept_idle = True
        self.is_users_fd = True

    cdef unsigned wanted(self) noexcept:
        cdef unsigned interest = 0
        if self.reader is not None or self.receiving:
            interest = HOOP_READABLE
        if self.writer is not None or self.sending:
            interest |= HOOP_WRITABLE
        return interest

    cdef int on_events(self, unsigned events) except -1:
        cdef unsigned wanted = self.wanted()
        if events & ~wanted:
            self.reactor.set_interest(self, wanted)  # no operation waits for that any more
        if events & HOOP_READABLE:
            if self.receiving:
                self.attempt_all(self.receiving)
            if self.reader is not None:
                self.run(self.reader)
        if events & HOOP_WRITABLE:
            if self.sending:
                self.attempt_all(self.sending)
            if self.writer is not None:
                self.run(self.writer)
        return 0

    cdef int run(self, Handle handle) except -1:
        if handle.is_cancelled:
            return 0
        self.reactor.run_handle(handle)
        if self.reactor.after_is_due:
            self.reactor.settle()
        return 0

    cdef int attempt_all(self, list operations) except -1:
        cdef SockOperation operation
        while operations:
            operation = operations[0]
            if not operation.future.done():
                try:
                    operation.check_descriptor()
                    result = operation.attempt()
                except BaseException as error:
                    pass_exits_on(error)
                    operation.future.set_exception(error)
                else:
                    if result is would_block:
                        return 0
                    operation.future.set_result(result)
            del operations[0]
            operation.let_go()
        return self.rest()

    cdef int rest(self) except -1:
        """Operations have ended. Callers usually receive again in the next turn: so when none waits, leave the
        descriptor registered until an event finds no operation. run() does not wait for that."""
        cdef unsigned wanted = self.wanted()
        if wanted == 0 and self.reactor.interest(self) == HOOP_READABLE:
            return self.reactor.count_watcher(self, False)
        return self.reactor.set_interest(self, wanted)

    cdef int set_referenced(self, bint is_referenced) except -1:
        self.is_unreferenced = not is_referenced
        if self.is_watched:
            self.reactor.count_watcher(self, self.wanted() != 0)
        return 0

    cdef int on_watch_failed(self, int error) except -1:
        cdef object failure = os_error(-error)
        if self.reader is not None or self.writer is not None:
            self.reactor.report({"message": "the poller refused a descriptor given to add_reader() or add_writer()",
                                 "exception": failure})
        return self.fail_all(failure)

    cdef int on_loop_closed(self) except -1:
        """As in asyncio, waiting callers learn nothing; but let go of the sockets, which are their owners' alone."""
        cdef SockOperation operation
        for operation in (self.receiving or []) + (self.sending or []):
            operation.let_go()
        return 0

    cdef int on_descriptor_lost(self) except -1:
        return self.fail_all(os_error(-EBADF))

    cdef int fail_all(self, object error) except -1:
        """Tell all waiting callers that nothing will come."""
        self.fail_operations(error)
        if self.reader is not None:
            self.reader.cancel()
            self.reader = None
        if self.writer is not None:
            self.writer.cancel()
            self.writer = None
        return 0

    cdef int fail_operations(self, object error) except -1:
        cdef SockOperation operation
        for operation in (self.receiving or []) + (self.sending or []):
            if not operation.future.done():
                operation.future.set_exception(error)
            operation.let_go()
        self.receiving = None
        self.sending = None
        return 0

    def __repr__(self):
        return f"<FdWatcher fd={self.fd} reader={self.reader!r} writer={self.writer!r}>"


# ---- add_reader, add_writer ---------------------------------------------------------------------------------------

cdef FdWatcher fd_watcher(Reactor reactor, object fileobj):
    """The user's watcher of this descriptor, or None. RuntimeError if a transport owns it."""
    return watcher_at(reactor, descriptor_of(fileobj))


cdef FdWatcher watcher_at(Reactor reactor, int fd):
    cdef Watcher watcher = reactor.watcher_of(fd)
    if watcher is None or isinstance(watcher, FdWatcher):
        return <FdWatcher>watcher
    raise in_use(watcher)


cdef FdWatcher watcher_of_closed(Reactor reactor, object fileobj):
    """The watcher that was added with this very object, whose fileno() no longer answers."""
    cdef int fd
    if fileobj is None:
        return None  # watchers of sock_* calls have none
    for fd in range(reactor.watcher_capacity):
        watcher = reactor.watcher_of(fd)
        if isinstance(watcher, FdWatcher) and (<FdWatcher>watcher).fileobj is fileobj:
            return <FdWatcher>watcher
    return None


cdef FdWatcher new_watcher(Reactor reactor, int fd):
    cdef FdWatcher watcher
    if not IS_FREE_THREADED and reactor.spare_watcher is not None:
        watcher = <FdWatcher>reactor.spare_watcher
        reactor.spare_watcher = None
    else:
        watcher = FdWatcher.__new__(FdWatcher)
    watcher.reactor = reactor
    watcher.fd = fd
    return watcher


cdef int keep_spare(Reactor reactor, FdWatcher watcher) except -1:
    """Who has removed a callback often adds the next one soon (a database driver does for each answer): keep a watcher
    that nobody else has, and that only had callbacks, for that."""
    if (IS_FREE_THREADED or Py_REFCNT(watcher) > MINE or watcher.is_unreferenced or watcher.sock_ref is not None
            or watcher.receiving is not None or watcher.sending is not None or watcher.returned is not None):
        return 0
    watcher.reactor = None
    watcher.fileobj = None
    watcher.fd = -1
    reactor.spare_watcher = watcher
    return 0


cdef int add_callback(Reactor reactor, object fileobj, Handle handle, bint is_writer) except -1:
    cdef Handle former
    cdef int fd = descriptor_of(fileobj)
    cdef FdWatcher watcher = watcher_at(reactor, fd)
    cdef bint is_new = watcher is None
    if is_new:
        watcher = new_watcher(reactor, fd)
    watcher.fileobj = fileobj
    former = watcher.writer if is_writer else watcher.reader
    if is_writer:
        watcher.writer = handle
    else:
        watcher.reader = handle
    if is_new:
        reactor.watch(watcher, watcher.wanted())
    else:
        try:
            reactor.rewatch(watcher, watcher.wanted())  # the number may have been closed and reused since
        except (OSError, MemoryError) as error:
            watcher.fail_all(error)
            raise
    if former is not None:
        former.cancel()
    return 0


cdef bint remove_callback(Reactor reactor, object fileobj, bint is_writer) except -1:
    """Whether there was one."""
    cdef Handle former
    if reactor.closed:
        return False
    cdef FdWatcher watcher
    try:
        watcher = fd_watcher(reactor, fileobj)
    except ValueError:
        watcher = watcher_of_closed(reactor, fileobj)
        if watcher is None:
            raise
    except OverflowError:
        return False  # no descriptor has such a number
    if watcher is None:
        return False
    former = watcher.writer if is_writer else watcher.reader
    if former is None:
        return False
    if is_writer:
        watcher.writer = None
    else:
        watcher.reader = None
    former.cancel()
    if watcher.wanted() == 0:
        reactor.unwatch(watcher)  # the user may close the descriptor next
        keep_spare(reactor, watcher)
    else:
        reactor.set_interest(watcher, watcher.wanted())
    return True


# ---- sock_* -------------------------------------------------------------------------------------------------------

cdef class SockOperation:
    def __del__(self):
        if self.is_keeping:  # do nothing else: the loop is gone, or this is the collector's thread
            self.is_keeping = False
            self.sock._decref_socketios()

    cdef object attempt(self):
        raise NotImplementedError("each operation says what it tries")

    cdef object take_returned(self, FdWatcher watcher):
        """Take a result that an earlier, cancelled call received and that serves this one; else would_block."""
        return would_block

    cdef int keep_open(self) except -1:
        """As makefile() does: the descriptor of a socket object that is closed from now on lives until let_go().

        Closed at once, it would leave the kernel's set without a word, and its callers would wait for ever.
        """
        if type(self.sock) is Socket or issubclass(type(self.sock), Socket):  # a stand-in (a mock) keeps nothing
            self.sock._io_refs += 1
            self.is_keeping = True
        return 0

    cdef int let_go(self) except -1:
        """End the operation: the socket may close its descriptor. Idempotent."""
        cdef FdWatcher watcher = self.watcher
        if not self.is_keeping:
            return 0
        self.is_keeping = False
        if not self.sock._closed:
            self.sock._io_refs -= 1
            return 0
        if watcher.wanted() == 0:
            watcher.reactor.unwatch(watcher)  # before the number is free
        self.sock._decref_socketios()
        return 0

    cdef int check_descriptor(self) except -1:
        """Raise if the socket object was detached: another owner has the descriptor."""
        if self.is_keeping and self.sock._closed and self.sock.fileno() != self.watcher.fd:
            raise os_error(-EBADF)
        return 0


cdef class RecvOperation(SockOperation):
    cdef Py_ssize_t size

    cdef object attempt(self):
        return try_recv(self.watcher.reactor, self.watcher.fd, self.size)

    cdef object take_returned(self, FdWatcher watcher):
        return cut_returned_bytes(watcher, self.sock, self.size)


cdef class SendOperation(SockOperation):
    """Owns a view of the caller's buffer until it is collected."""
    cdef Py_buffer view
    cdef Py_ssize_t sent
    cdef bint has_view

    def __dealloc__(self):
        if self.has_view:
            PyBuffer_Release(&self.view)

    cdef object attempt(self):
        return self.send_on(self.watcher.fd)

    cdef object send_on(self, int fd):
        cdef Py_ssize_t result
        while self.sent < self.view.len:
            result = hoop_net_send(fd, <char *>self.view.buf + self.sent, <size_t>(self.view.len - self.sent))
            if result == -EAGAIN:
                return would_block
            if result < 0:
                raise os_error(result)
            self.sent += result
            if self.watcher is not None:
                self.watcher.reactor.must_poll = True
        return None


cdef class ConnectOperation(SockOperation):
    cdef object address

    cdef object attempt(self):
        cdef int result = hoop_net_socket_error(self.watcher.fd)
        self.watcher.reactor.must_poll = True
        if result < 0:
            raise OSError(-result, f"Connect call failed {self.address}")
        return None


cdef class CallOperation(SockOperation):
    """Anything else: a method of the socket object that raises BlockingIOError for "not yet"."""
    cdef object function
    cdef tuple arguments
    cdef object take_returned(self, FdWatcher watcher):
        return would_block if self.kind is None else take_returned(watcher, self.kind)

    cdef object attempt(self):
        self.watcher.reactor.must_poll = True
        try:
            return self.function(*self.arguments)
        except (BlockingIOError, InterruptedError):
            return would_block


cdef object try_recv(Reactor reactor, int fd, Py_ssize_t size):
    cdef Py_ssize_t result
    if size <= READ_BUFFER_SIZE:
        result = hoop_net_recv(fd, reactor.read_buffer, <size_t>size)
        if result >= 0:
            return PyBytes_FromStringAndSize(reactor.read_buffer, result)
    else:
        data = PyBytes_FromStringAndSize(NULL, size)
        result = hoop_net_recv(fd, PyBytes_AS_STRING(data), <size_t>size)
        if result >= 0:
            return data if result == size else PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), result)
    if result == -EAGAIN:
        return would_block
    raise os_error(result)


cdef int check_socket(Reactor reactor, object sock) except? -1:
    """The socket's descriptor (-1 once it is closed: the system call will say EBADF)."""
    if type(sock) is not Socket and SSLSocket is not None and isinstance(sock, SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if reactor.debug and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")
    flush_if_deferred(reactor)
    reactor.must_poll = True  # the other end may be watched by this very loop
    return sock.fileno()


cdef object wait_for(Reactor reactor, SockOperation operation, object sock, int fd, bint is_send):
    """Queue operation behind the others on this socket; return the future of its result."""
    cdef FdWatcher watcher = watcher_at(reactor, fd)
    cdef bint is_known
    reactor.check_open()
    if watcher is None:
        watcher = new_watcher(reactor, fd)
    is_known = watcher.sock_ref is not None and watcher.sock_ref() is sock
    operation.watcher = watcher
    operation.sock = sock
    operation.future = reactor.new_future()
    if watcher.sock_ref is not None and not is_known:
        watcher.fail_operations(os_error(-EBADF))  # they waited on another socket that had this number
    queue = watcher.sending if is_send else watcher.receiving
    if queue is None:
        queue = []
    queue.append(operation)
    if is_send:
        watcher.sending = queue
    else:
        watcher.receiving = queue
    try:
        if not watcher.is_watched:
            reactor.watch(watcher, watcher.wanted())
        elif is_known:
            reactor.set_interest(watcher, watcher.wanted())
        else:
            reactor.rewatch(watcher, watcher.wanted())
    except BaseException as error:
        operation.future.cancel()  # no caller has it: they get the exception instead
        watcher.fail_all(error)
        raise
    operation.keep_open()
    if not is_known:
        watcher.sock_ref = weakref.ref(sock)
    return operation.future


cdef int forsake(SockOperation operation) except -1:
    """Remove an operation without a result from the queue: its caller was cancelled, or the coroutine was closed."""
    cdef FdWatcher watcher = operation.watcher
    if operation.future.done() and not operation.future.cancelled():
        return 0
    for queue in (watcher.receiving, watcher.sending):
        if queue is not None and operation in queue:
            queue.remove(operation)
    watcher.reactor.set_interest(watcher, watcher.wanted())
    return operation.let_go()


# ---- results of cancelled calls ------------------------------------------------------------------------------------

cdef int bequeath(SockOperation operation) except -1:
    """Keep what a cancelled caller was to get, if anything came, for the next call of its kind on the same socket
    object."""
    cdef FdWatcher watcher = operation.watcher
    cdef object future = operation.future
    if not future.done() or future.cancelled():
        return forsake(operation)
    if operation.kind is None or future.exception() is not None:
        return 0
    if not watcher.is_watched or watcher.sock_ref is None or watcher.sock_ref() is not operation.sock:
        return 0  # another file has the number by now
    if watcher.returned is None:
        watcher.returned = []
    watcher.returned.append((operation.kind, future.result()))
    return serve_returned(watcher)


cdef int serve_returned(FdWatcher watcher) except -1:
    """Give kept results to the calls that wait on the same socket."""
    cdef SockOperation operation
    for operation in list(watcher.receiving or ()):
        if watcher.returned is None:
            break
        if operation.future.done():
            continue
        result = operation.take_returned(watcher)
        if result is not would_block:
            operation.future.set_result(result)
            watcher.receiving.remove(operation)
            operation.let_go()
    return watcher.reactor.set_interest(watcher, watcher.wanted())


cdef FdWatcher returned_to(Reactor reactor, object sock, int fd):
    """The watcher that keeps results for calls on sock, or None."""
    cdef Watcher watcher = reactor.watcher_of(fd)
    if type(watcher) is not FdWatcher or (<FdWatcher>watcher).returned is None:
        return None
    if (<FdWatcher>watcher).sock_ref() is not sock:
        (<FdWatcher>watcher).returned = None
        return None
    return <FdWatcher>watcher


cdef object take_returned(FdWatcher watcher, str kind):
    """Remove and return the first result of that kind; would_block if there is none."""
    cdef Py_ssize_t i
    for i in range(len(watcher.returned)):
        if watcher.returned[i][0] == kind:
            _, result = watcher.returned.pop(i)
            if not watcher.returned:
                watcher.returned = None
            return result
    return would_block


cdef object take_returned_bytes(Reactor reactor, object sock, int fd, Py_ssize_t size):
    cdef FdWatcher watcher = returned_to(reactor, sock, fd)
    return would_block if watcher is None else cut_returned_bytes(watcher, sock, size)


cdef object cut_returned_bytes(FdWatcher watcher, object sock, Py_ssize_t size):
    """Up to size bytes. Keep the rest, except of a datagram: the kernel would have dropped it, too."""
    result = take_returned(watcher, "recv")
    if result is would_block or len(result) <= size:
        return result
    if sock.type == socket_module.SOCK_STREAM:
        if watcher.returned is None:
            watcher.returned = []
        watcher.returned.insert(0, ("recv", result[size:]))
    return result[:size]


cdef class SockCoroutine(StepCoroutine):
    """sock_recv() or sock_sendall(): `subject` is the socket object."""
    cdef Reactor reactor
    cdef SockOperation operation  # while it waits

    cdef StepOutcome queue(self, SockOperation operation, int fd, bint is_send) except *:
        self.operation = operation
        self.target = wait_for(self.reactor, operation, self.subject, fd, is_send)
        return STEP_WAITS

    cdef StepOutcome wake(self, object future) except *:
        try:
            self.result = future.result()
        except BaseException:
            self.forget(future)
            raise
        return STEP_ENDS

    cdef int forget(self, object future) except -1:
        return bequeath(self.operation)


cdef class RecvCoroutine(SockCoroutine):
    cdef str name(self):
        return "sock_recv"

    cdef StepOutcome begin(self) except *:
        cdef int fd = check_socket(self.reactor, self.subject)
        cdef RecvOperation operation
        cdef object result
        if self.size < 0:
            raise ValueError("negative buffersize in recv")
        result = take_returned_bytes(self.reactor, self.subject, fd, self.size)
        if result is would_block:
            result = try_recv(self.reactor, fd, self.size)
        if result is not would_block:
            self.result = result
            return STEP_ENDS
        operation = RecvOperation.__new__(RecvOperation)
        operation.kind = "recv"
        operation.size = self.size
        return self.queue(operation, fd, False)


cdef class SendCoroutine(SockCoroutine):
    cdef object data

    cdef str name(self):
        return "sock_sendall"

    cdef StepOutcome begin(self) except *:
        cdef int fd = check_socket(self.reactor, self.subject)
        cdef SendOperation operation
        cdef Py_ssize_t sent = 0
        if PyBytes_CheckExact(self.data) and PyBytes_GET_SIZE(self.data) > 0:
            # The kernel usually takes all: then keep nothing.
            sent = hoop_net_send(fd, PyBytes_AS_STRING(self.data), <size_t>PyBytes_GET_SIZE(self.data))
            if sent == PyBytes_GET_SIZE(self.data):
                return STEP_ENDS
            if sent < 0 and sent != -EAGAIN:
                raise os_error(sent)
        operation = SendOperation.__new__(SendOperation)
        operation.sent = max(sent, 0)
        PyObject_GetBuffer(self.data, &operation.view, PyBUF_SIMPLE)
        operation.has_view = True
        if operation.send_on(fd) is not would_block:
            return STEP_ENDS
        return self.queue(operation, fd, True)


cdef object receive(Reactor reactor, object sock, Py_ssize_t size):
    """sock_recv()."""
    cdef RecvCoroutine coroutine = RecvCoroutine.__new__(RecvCoroutine)
    coroutine.reactor = reactor
    coroutine.subject = sock
    coroutine.size = size
    return coroutine


cdef object send_all(Reactor reactor, object sock, object data):
    """sock_sendall()."""
    cdef SendCoroutine coroutine = SendCoroutine.__new__(SendCoroutine)
    coroutine.reactor = reactor
    coroutine.subject = sock
    coroutine.data = data
    return coroutine


async def sock_connected(Reactor reactor not None, sock, address):
    """Connect to a resolved address.

    EINPROGRESS and EALREADY are connections under way. EAGAIN is a refusal: the queue of a UNIX listener is full
    (connect(2)), and no event tells when it has room.
    """
    cdef ConnectOperation operation
    cdef int fd = check_socket(reactor, sock)
    try:
        sock.connect(address)
        return None
    except InterruptedError:
        pass
    except BlockingIOError as error:
        if error.errno == EAGAIN:
            raise
    operation = ConnectOperation.__new__(ConnectOperation)
    operation.address = address
    future = wait_for(reactor, operation, sock, fd, True)
    try:
        return await future
    finally:
        forsake(operation)


async def sock_call(Reactor reactor not None, sock, bint is_send, function, *arguments, str kind=None):
    """Call function(*arguments), a method of sock, now or when the socket is ready. kind names the results that another
    call may take if the caller is cancelled; None: no other may."""
    cdef CallOperation operation
    cdef FdWatcher watcher
    cdef int fd = check_socket(reactor, sock)
    if kind is not None:
        watcher = returned_to(reactor, sock, fd)
        result = would_block if watcher is None else take_returned(watcher, kind)
        if result is not would_block:
            return result
    try:
        return function(*arguments)
    except (BlockingIOError, InterruptedError):
        pass
    operation = CallOperation.__new__(CallOperation)
    operation.kind = kind
    operation.function = function
    operation.arguments = arguments
    future = wait_for(reactor, operation, sock, fd, is_send)
    try:
        return await future
    except BaseException:
        bequeath(operation)
        raise


refuse_instances(RecvCoroutine)
refuse_instances(SendCoroutine)


def peek(int fd):
    """What waits at a socket: 1, bytes; 0, nothing; -1, the end of the stream or an error. All of it stays there."""
    cdef char byte
    cdef Py_ssize_t seen = hoop_net_peek(fd, &byte, 1)
    if seen > 0:
        return 1
    return 0 if seen == -EAGAIN else -1
