"""The sock_* coroutines: on sockets that the application keeps.

A sock_* call tries at once, unless it would be in vain, and waits only if the kernel says so. Its registration is kept
for the next call on the same socket object (remembered by a weak reference; another object on the same number is
registered anew).

If a task is cancelled after its call has received and before the task goes on, the next call on the same socket object
gets the result: wait_for() around sock_recv() would lose it otherwise.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from hoop.core.csrc cimport hoop_net_peek, hoop_net_recv, hoop_net_send, hoop_net_socket_error
from hoop.core.errors cimport os_error
from hoop.core.reactor cimport READ_BUFFER_SIZE, Reactor, flush_if_deferred
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.step_coroutine cimport STEP_ENDS, STEP_WAITS, StepCoroutine, StepOutcome
from hoop.net.fd_watcher cimport FdWatcher, SockOperation, known_watcher, new_watcher, watcher_at, would_block
from libc.errno cimport EAGAIN, EBADF

import socket as socket_module
import weakref

try:
    from ssl import SSLSocket
except ImportError:  # an interpreter built without OpenSSL
    SSLSocket = None

cdef object Socket = socket_module.socket

cdef enum:
    MOST_UNTRIED = 15           # calls of sock_recv() in a row that leave it to the event


cdef class RecvOperation(SockOperation):
    cdef Py_ssize_t size

    cdef object attempt(self):
        cdef object result = try_recv(self.watcher.reactor, self.watcher.fd, self.size)
        note_received(self.watcher, result, self.size)
        return result

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


cdef int note_received(FdWatcher watcher, object result, Py_ssize_t size) except -1:
    watcher.is_drained = result is would_block or PyBytes_GET_SIZE(result) < size
    return 0


cdef int checked_descriptor(Reactor reactor, object sock) except? -1:
    """The socket's descriptor (-1 once it is closed: the system call will say EBADF)."""
    if type(sock) is not Socket and SSLSocket is not None and isinstance(sock, SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if reactor.debug and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")
    reactor.must_poll = True  # the other end may be watched by this very loop
    return sock.fileno()


cdef int check_socket(Reactor reactor, object sock) except? -1:
    """The same, before a system call that others can see."""
    cdef int fd = checked_descriptor(reactor, sock)
    flush_if_deferred(reactor)
    return fd


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


cdef bint has_returned(FdWatcher watcher, object sock) except -1:
    """Whether watcher keeps results for calls on sock. Those for another socket object are dropped."""
    if watcher is None or watcher.returned is None:
        return False
    if watcher.sock_ref() is not sock:
        watcher.returned = None
        return False
    return True


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
        cdef int fd = checked_descriptor(self.reactor, self.subject)
        cdef FdWatcher watcher = known_watcher(self.reactor, fd)
        cdef RecvOperation operation
        if self.size < 0:
            raise ValueError("negative buffersize in recv")
        self.result = self.receive_now(watcher, fd)
        if self.result is not would_block:
            return STEP_ENDS
        self.result = None
        operation = RecvOperation.__new__(RecvOperation)
        operation.kind = "recv"
        operation.size = self.size
        return self.queue(operation, fd, False)

    cdef object receive_now(self, FdWatcher watcher, int fd):
        """What a cancelled call has left, or what the kernel has; else would_block.

        A peer that is answered needs a while for its next request, and a try meanwhile is in vain. So where that was
        seen, and the latest call has taken all there was, leave it to the event. Now and then try: a stream may have
        come since, whose pieces would each wait for a turn.
        """
        cdef object result
        if has_returned(watcher, self.subject):
            result = cut_returned_bytes(watcher, self.subject, self.size)
            if result is not would_block:
                return result
        if watcher is not None and watcher.is_drained and watcher.untried > 0:
            watcher.untried -= 1
            return would_block
        flush_if_deferred(self.reactor)
        result = try_recv(self.reactor, fd, self.size)
        if watcher is not None:
            watcher.untried = MOST_UNTRIED if result is would_block else 0
            note_received(watcher, result, self.size)
        return result


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
        watcher = known_watcher(reactor, fd)
        if has_returned(watcher, sock):
            result = take_returned(watcher, kind)
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
