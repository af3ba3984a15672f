"""Transports over one direction of a pipe, a socket or a character device (a terminal).

Reading ends with the writer's departure: eof_received, then connection_lost. The writing side notices that the reader
has left by becoming "readable"; data that comes back over a socket counts as that too, as in asyncio.

The transport closes the caller's pipe object through that object. Where another watcher has its descriptor already (a
terminal opened both ways), the transport watches a duplicate, and closes both.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from hoop.core.csrc cimport *
from hoop.core.errors cimport check, os_error
from hoop.core.handle cimport new_handle
from hoop.core.reactor cimport READ_BUFFER_SIZE, Reactor
from hoop.net.transport cimport DUPLICATE, OWNED, TRANSPORT_CLOSING, TRANSPORT_LOST, TRANSPORT_OPEN, Transport, \
    count_dropped_write
from hoop.net.writing cimport WritingTransport
from libc.errno cimport EAGAIN

import asyncio
import errno
import os
import stat
from asyncio.log import logger

from hoop.net.transport import shown

cdef enum:
    WITHOUT_GIL_FROM = 64 * 1024  # bytes: below, giving the GIL away costs more than the copy


cdef class ReadPipeTransport(Transport):
    @property
    def __class__(self):
        return asyncio.ReadTransport

    @shown
    def _pipe(self):
        return self.sock

    @property
    def _fileno(self):
        return self.fd

    cdef bint wants_data(self) noexcept:
        return self.state == TRANSPORT_OPEN and self.is_reading_started and not self.is_reading_paused

    cdef int update_interest(self) except -1:
        """Ask the poller for what this state waits for."""
        cdef bint is_wanted = self.wants_data()
        if self.state >= TRANSPORT_LOST:
            return 0
        if self.is_always_ready:
            return self.read_soon() if is_wanted else 0
        if self.is_watched:
            return self.reactor.set_interest(self, HOOP_READABLE if is_wanted else 0)
        if not is_wanted:
            return 0
        try:
            self.reactor.watch(self, HOOP_READABLE)
        except PermissionError:
            self.is_always_ready = True  # epoll refuses /dev/null and similar devices
            self.read_soon()
        except (OSError, MemoryError) as error:
            self.fatal(error, "Fatal error on transport: the poller refused its descriptor")
        return 0

    cdef int read_soon(self) except -1:
        if not self.is_read_scheduled:
            self.reactor.schedule(self._read_ready, NULL, 0, self.context)
            self.is_read_scheduled = True
        return 0

    def _read_ready(self):
        """One read of a device that is always ready."""
        self.is_read_scheduled = False
        if self.wants_data():
            self.on_readable()
            if self.wants_data():
                self.read_soon()

    cdef int on_events(self, unsigned events) except -1:
        return self.on_readable()

    cdef int on_readable(self) except -1:
        cdef char *buffer = self.reactor.read_buffer
        cdef Py_ssize_t size = hoop_net_read(self.fd, buffer, READ_BUFFER_SIZE)
        if size == -EAGAIN:
            return 0
        if size < 0:
            return self.fatal(os_error(size), "Fatal read error on pipe transport")
        self.reactor.enter_context(self.context)
        if size == 0:
            if self.reactor.debug:
                logger.info("%r was closed by peer", self)
            self.reactor.schedule(self.protocol.eof_received, NULL, 0, self.context)
            return self.lose(None)
        data = PyBytes_FromStringAndSize(buffer, size)
        try:
            self.protocol.data_received(data)
        except BaseException as error:
            # as in asyncio, the pipe survives: the callback has failed, not the pipe
            self.reactor.handle_failed(new_handle(self.reactor, self._read_ready, NULL, 0, self.context), error)
        return 0

    cdef int fatal(self, object error, str message) except -1:
        if isinstance(error, OSError) and error.errno == errno.EIO:  # how a terminal says that its other end is gone
            if self.reactor.debug:
                logger.debug("%r: %s", self, message, exc_info=error)
        else:
            self.reactor.report_failure(message, error, self, self.protocol)
        return self.lose(error)

    cdef int on_descriptor_lost(self) except -1:
        return lose_descriptor(self)

    cdef object transport_socket(self):
        return None


cdef class WritePipeTransport(WritingTransport):
    @property
    def __class__(self):
        return asyncio.Transport  # asyncio's own is one, too, though it cannot read

    @shown
    def _pipe(self):
        return self.sock

    @property
    def _fileno(self):
        return self.fd

    def is_reading(self):
        """Raises NotImplementedError: nothing is read here."""
        raise NotImplementedError

    def pause_reading(self):
        """Raises NotImplementedError: nothing is read here."""
        self.check_ours("transport.pause_reading")
        raise NotImplementedError

    def resume_reading(self):
        """Raises NotImplementedError: nothing is read here."""
        self.check_ours("transport.resume_reading")
        raise NotImplementedError

    def write_eof(self):
        """The same as close(): a pipe has only this direction."""
        self.check_ours("transport.write_eof")
        self.close()

    def can_write_eof(self):
        """True: write_eof() closes the pipe."""
        return True

    cdef Py_ssize_t transmit(self, const iovec *buffers, int count, Py_ssize_t total) except? -2:
        cdef Py_ssize_t result
        cdef int fd = self.fd
        if self.is_socket:
            return hoop_net_sendv(fd, buffers, count)
        if total >= WITHOUT_GIL_FROM:
            with nogil:
                result = hoop_net_writev(fd, buffers, count)
            return result
        return hoop_net_writev(fd, buffers, count)

    cdef str write_failure(self):
        return "Fatal write error on pipe transport"

    cdef int note_dropped_write(self) except -1:
        return count_dropped_write(&self.dropped_writes,
                                   "pipe closed by peer or os.write(pipe, data) raised exception.")

    cdef int start_reading(self) except -1:
        self.is_begun = True
        return self.update_interest()

    cdef int update_interest(self) except -1:
        cdef unsigned interest = 0
        if self.state >= TRANSPORT_LOST:
            return 0
        if self.is_reader_visible and self.is_begun:
            interest = HOOP_READABLE
        if self.is_refused:
            interest |= HOOP_WRITABLE
        return self.want(interest) if self.is_watched or interest != 0 else 0

    cdef int on_events(self, unsigned events) except -1:
        if events & HOOP_READABLE and self.is_reader_visible:
            if self.reactor.debug:
                logger.info("%r was closed by peer", self)
            return self.lose(BrokenPipeError() if self.unsent.size > 0 else None)
        if events & HOOP_WRITABLE and self.is_refused:
            self.on_writable()
        return 0

    cdef int on_drained(self) except -1:
        return self.lose(None) if self.state == TRANSPORT_CLOSING else 0

    cdef int on_descriptor_lost(self) except -1:
        return lose_descriptor(self)

    cdef object transport_socket(self):
        return None


cdef int lose_descriptor(Transport transport) except -1:
    """Fail without closing: other code closed our descriptor and the number is in use again, perhaps by the pipe."""
    transport.sock = None
    transport.closer = OWNED
    return transport.fatal(OSError(errno.EBADF, "the transport's descriptor was closed behind its back"),
                           "Fatal error on transport")


cdef int adopt_pipe(Transport transport, Reactor reactor, object pipe, object protocol, object waiter) except -1:
    """Make transport own pipe and begin. On failure, pipe stays the caller's."""
    cdef int number = pipe.fileno()
    cdef int fd = number
    reactor.check_ours("connect_pipe")
    check(hoop_net_set_nonblocking(number))
    if reactor.watcher_of(number) is not None:
        fd = os.dup(number)
    try:
        transport.adopt(reactor, fd, pipe, protocol, None, None, {"pipe": pipe})
        if fd != number:
            transport.closer = DUPLICATE
        transport.begin_life(waiter)
    except BaseException:
        transport.disown()
        if fd != number:
            hoop_net_close(fd)
        raise
    return 0


def make_read_pipe(Reactor reactor not None, pipe, protocol, waiter=None):
    """A transport that reads from pipe, a file object, and owns it. connection_made comes next turn, then waiter.

    ValueError unless it is a pipe, a socket or a character device; then pipe stays the caller's.
    """
    mode = os.fstat(pipe.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
        raise ValueError("Pipe transport is for pipes/sockets only.")
    cdef ReadPipeTransport transport = ReadPipeTransport.__new__(ReadPipeTransport)
    adopt_pipe(transport, reactor, pipe, protocol, waiter)
    return transport


def make_write_pipe(Reactor reactor not None, pipe, protocol, waiter=None):
    """A transport that writes to pipe, at once; as make_read_pipe."""
    mode = os.fstat(pipe.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
        raise ValueError("Pipe transport is only for pipes, sockets and character devices")
    cdef WritePipeTransport transport = WritePipeTransport.__new__(WritePipeTransport)
    transport.is_socket = stat.S_ISSOCK(mode)
    transport.is_reader_visible = not stat.S_ISCHR(mode)
    adopt_pipe(transport, reactor, pipe, protocol, waiter)
    # Usually a child reads it: a caller that signals the child, or waits for it, must not wait for ever.
    transport.is_prompt = True
    return transport
