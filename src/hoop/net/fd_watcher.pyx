"""A descriptor that the application owns: its watcher, add_reader and add_writer, and the queues of sock_* calls that
wait for it (sockops).

A watcher is kept while it waits for nothing, and so is the interest in reading: recv, send, recv again costs no change
A watcher is kept while it waits for nothing, and so is the interest in reading: recv, send, recv again costs no change
"""
from hoop.core.csrc cimport HOOP_READABLE, HOOP_WRITABLE
from hoop.core.errors cimport os_error, pass_exits_on
from hoop.core.handle cimport Handle
from hoop.core.ownership cimport IS_FREE_THREADED
from hoop.core.reactor cimport Reactor, Watcher
from hoop.net.transport cimport descriptor_of, in_use
from libc.errno cimport EBADF

import socket as socket_module

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object owned) noexcept

cdef object Socket = socket_module.socket
would_block = object()

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
            self.is_drained = False  # unless an attempt takes it all
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


cdef FdWatcher known_watcher(Reactor reactor, int fd):
    """The user's watcher of this descriptor; None where there is none, or a transport's."""
    cdef Watcher watcher = reactor.watcher_of(fd)
    return <FdWatcher>watcher if type(watcher) is FdWatcher else None


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


# ---- sock_* calls that wait ------------------------------------------------------------------------------------------

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
