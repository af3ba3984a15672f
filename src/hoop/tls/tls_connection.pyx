"""What both halves of a TLS session know: the parties, the engine, and how far the connection is.

    HANDSHAKE --it succeeds--> OPEN --close(), the peer's end--> FLUSHING --all encrypted--> SHUTDOWN
    SHUTDOWN --the peer's close_notify, a timeout--> LOST --connection_lost()--> CLOSED
    HANDSHAKE, OPEN, FLUSHING --abort(), an error--> LOST
    HANDSHAKE, OPEN, FLUSHING, SHUTDOWN --the transport below is lost--> CLOSED
"""
from hoop.core.errors cimport pass_exits_on
from hoop.core.reactor cimport Reactor, flush_if_deferred
from hoop.net.stream cimport StreamFilter
from hoop.tls.engine cimport TlsEngine

import asyncio
from asyncio.log import logger


cdef class TlsConnection(StreamFilter):
    def __cinit__(self, Reactor loop not None, protocol, TlsEngine engine not None, *others):
        self.reactor = loop
        self.engine = engine
        self.is_filter = self.tells_answers = True

    cdef int enter(self, TlsState state) except -1:
        """Go on to state: the one assignment to it. RuntimeError for a way back."""
        if state < self.state:
            raise RuntimeError(f"a TLS connection in state {self.state} cannot go back to {state}")
        self.state = state
        return 0

    # ---- what the session defines --------------------------------------------------------------------------------

    cdef int start_close(self) except -1:
        """Deliver what was written, then shut down: close(), or the peer has ended."""
        raise NotImplementedError("a session must know how to close")

    cdef int begin_shutdown(self) except -1:
        """While closing: everything that was written is encrypted."""
        raise NotImplementedError("a session must know how to say goodbye")

    cdef int finish(self) except -1:
        """While closing: the peer has said goodbye, too."""
        raise NotImplementedError("a session must know how to end")

    # ---- what ends it ----------------------------------------------------------------------------------------------

    cdef object context(self):
        """In which the loop calls the application; None: in a copy of the current one."""
        return None if self.stream is None else self.stream.context

    cdef int close_lower(self, object error) except -1:
        """Close the transport below at once; error is for connection_lost."""
        if self.lower is None:
            return 0
        force_close = getattr(self.lower, "_force_close", None)
        if force_close is not None:
            force_close(error)
        else:
            self.lower.abort()
        return 0

    cdef int fatal(self, object error, str message) except -1:
        """Something failed: tell, and end the connection."""
        if self.state < TLS_LOST:
            self.enter(TLS_LOST)
            self.close_lower(error)
        if isinstance(error, OSError):
            if self.reactor.debug:
                logger.debug("%r: %s", self.transport, message, exc_info=error)
        elif not isinstance(error, asyncio.CancelledError):
            self.reactor.report_failure(message, error, self.transport, self.protocol)
        return 0

    cdef int callback_failed(self, object error, str message) except -1:
        """What user code has raised ends the connection. What was written before is sent, as in asyncio."""
        pass_exits_on(error)
        flush_if_deferred(self.reactor)
        return self.fatal(error, message)
