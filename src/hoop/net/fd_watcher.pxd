from hoop.core.flag cimport flag
from hoop.core.handle cimport Handle
from hoop.core.reactor cimport Reactor, Watcher


cdef class FdWatcher(Watcher):
    """Watches a descriptor that the application owns: for add_reader, add_writer and waiting sock_* operations."""
    cdef Handle reader
    cdef Handle writer
    cdef list receiving         # SockOperation, first come first served; None until the first
    cdef list sending
    cdef object fileobj         # what add_reader or add_writer was given
    cdef list returned          # (kind, result) of calls that were cancelled after they had received; None: none were
    cdef object sock_ref        # weak reference to the socket object last used by a sock_* call, or None
    cdef flag is_drained        # sock_recv() has taken all there was, and no event has come since
    cdef unsigned char untried  # how many calls of sock_recv() leave it to the event, while is_drained

    cdef unsigned wanted(self) noexcept
    cdef int run(self, Handle handle) except -1
    cdef int attempt_all(self, list operations) except -1
    cdef int rest(self) except -1
    cdef int fail_all(self, object error) except -1
    cdef int fail_operations(self, object error) except -1


cdef class SockOperation:
    cdef FdWatcher watcher
    cdef object sock
    cdef object future
    cdef str kind               # of results that another call may take over; None: no other may
    cdef bint is_keeping        # sock, if it is closed meanwhile, keeps its descriptor until let_go()

    cdef object attempt(self)   # the result, or would_block
    cdef object take_returned(self, FdWatcher watcher)
    cdef int keep_open(self) except -1
    cdef int let_go(self) except -1
    cdef int check_descriptor(self) except -1


cdef object would_block         # what an attempt gives when the kernel has nothing, or takes nothing

cdef FdWatcher fd_watcher(Reactor reactor, object fileobj)
cdef FdWatcher watcher_at(Reactor reactor, int fd)
cdef FdWatcher known_watcher(Reactor reactor, int fd)
cdef FdWatcher new_watcher(Reactor reactor, int fd)
cdef int add_callback(Reactor reactor, object fileobj, Handle handle, bint is_writer) except -1
cdef bint remove_callback(Reactor reactor, object fileobj, bint is_writer) except -1
