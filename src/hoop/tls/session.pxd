from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor
from hoop.net.stream cimport StreamTransport
from hoop.tls.engine cimport TlsEngine
from hoop.tls.plaintext cimport PlaintextQueue
from hoop.tls.tls_reading cimport Inbound
from libc.stdint cimport int64_t


cdef enum:
    DEFAULT_TLS_HIGH_WATER = 512 * 1024  # asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE


cdef enum TlsState:
    TLS_HANDSHAKE               # also before the connection below is made
    TLS_OPEN
    TLS_FLUSHING                # closing: what was written is still being encrypted and sent
    TLS_SHUTDOWN                # closing: our close_notify is on its way, the peer's is awaited
    TLS_LOST                    # the transport below is closing: nothing is read or written any more
    TLS_CLOSED                  # it has called connection_lost


cdef class TlsSession(PlaintextQueue):
    cdef Reactor reactor
    cdef TlsEngine engine
    cdef Inbound inbound
    cdef object transport       # what the application's protocol has; None once closed
    cdef object protocol        # the application's
    cdef object lower           # the transport that carries the ciphertext, or None before there is one
    cdef StreamTransport stream  # the same, if it is hoop's own
    cdef object options         # TlsOptions
    cdef object waiter          # a future for the handshake's end, or None
    cdef object timer           # a TimerHandle of the handshake, later of the shutdown, or None
    cdef Py_ssize_t high_water
    cdef Py_ssize_t low_water
    cdef TlsState state
    cdef flag is_connected      # the protocol's connection_made was called
    cdef flag is_handshaken
    cdef flag is_buffered       # the protocol is a BufferedProtocol
    cdef flag is_prompt         # what is written is encrypted and sent at once, not when the callback has ended
    cdef flag is_paused         # the protocol was told to pause writing
    cdef flag is_reading_paused
    cdef flag is_lower_paused   # the transport below wants no more for now
    cdef flag is_blocked        # the engine takes no plaintext before the peer has sent something
    cdef flag is_continue_due   # continue_reading is scheduled
    cdef flag is_eof            # nothing more comes from below
    cdef flag has_peer_ended    # the peer has sent close_notify
    cdef flag is_eof_told       # eof_received was called
    cdef int dropped_writes
    cdef double handshake_timeout_s
    cdef double shutdown_timeout_s
    cdef int64_t began_ns       # when the handshake, later the shutdown, began

    cdef int bind_protocol(self, object protocol) except -1
    cdef int set_timer(self, double delay_s, object callback) except -1
    cdef int stop_timer(self) except -1

    cdef int handshake(self) except -1
    cdef int handshake_done(self) except -1
    cdef int handshake_failed(self, object error) except -1
    cdef int wake_waiter(self, object error) except -1

    cdef int advance(self) except -1
    cdef int read_plaintext(self) except -1
    cdef Py_ssize_t fill(self, char *buffer, Py_ssize_t capacity, bint *is_dry) except -2
    cdef int deliver_bytes(self) except -1
    cdef int deliver_bulk(self) except -1
    cdef int deliver_buffered(self) except -1
    cdef int discard_input(self) except -1
    cdef int tell_eof(self) except -1
    cdef int schedule_reading(self) except -1

    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1
    cdef int after_write(self) except -1
    cdef int flush_queue(self) except -1
    cdef int send_output(self) except -1
    cdef int send_output_now(self) except -1
    cdef int set_prompt(self, bint is_prompt) except -1
    cdef Py_ssize_t unsent(self) except -1
    cdef int note_refused(self) except -1
    cdef int pause_protocol(self) except -1
    cdef int resume_protocol(self) except -1

    cdef int start_close(self) except -1
    cdef int begin_shutdown(self) except -1
    cdef int finish(self) except -1
    cdef int abort(self, object error) except -1
    cdef int close_lower(self, object error) except -1
    cdef int fatal(self, object error, str message) except -1


cdef int limit_lower(TlsSession session) except -1
