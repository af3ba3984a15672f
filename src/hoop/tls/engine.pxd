# engine.pxd: the TLS protocol of one connection. The contract between a session and an engine.
#
# Bytes in, bytes out: ciphertext from the peer is an argument of handshake() and decrypt(), which take of it what they
# need; plaintext goes in by encrypt(), and what is for the peer, handshake, alerts and records alike, comes out by
# take_output(). An engine knows no transport, no loop and no time, waits for nothing, and keeps no memory of its
# caller's: what it needs of its arguments it has copied when a function returns. A new engine is one file with a class
# that derives from TlsEngine, a function that makes one for an SSLObject, and a line in engine_choice.pyx; the session
# knows this interface only.
#
# All calls come from the loop's thread. A context's own callbacks (SNI, verification, messages, key log) run inside
# handshake(), decrypt(), encrypt() and end(), and what they raise comes out of these. A callback may use the transport,
# but the session calls no engine that is at work. Whatever raises may have made output: the alert that tells the peer
# why.
from hoop.core.flag cimport flag

cdef enum:
    TLS_ENDED = 0               # decrypt(): the peer has sent close_notify
    TLS_WANTS_INPUT = -1        # nothing can be done before there is more ciphertext
    TLS_RECORD_SIZE = 16384     # bytes of plaintext in the largest record
    # The most plaintext for one encrypt(): what one read has brought, and more, goes out with one send; malloc(3) maps
    # no memory for its records.
    TLS_ENCRYPT_SIZE = 7 * TLS_RECORD_SIZE


cdef struct Ciphertext:         # from the peer; who takes of it moves its beginning
    const char *data
    Py_ssize_t size


cdef class TlsEngine:
    # For whom the application asks: what has version(), cipher(), compression() and getpeercert(), as ssl.SSLObject.
    cdef readonly object ssl_object
    cdef readonly str name      # "direct" or "safe": hoop.tls_engine() says more
    cdef flag runs_python       # decrypt() and encrypt() call what the application gave the context

    # For engines: see whether the context of ssl_object has callbacks. It may change until the handshake is complete.
    cdef int note_callbacks(self) except -1

    # Go on with the handshake. Not called again once it is complete. input may be empty.
    # True: it is complete, and all the other functions may be called; input may have a rest. False: it has taken all of
    # input and wants more.
    # Raises ssl.SSLError or what a callback raised: the connection has failed, and only take_output() is called any
    # more.
    cdef bint handshake(self, Ciphertext *input) except -1

    # Bytes that were taken and neither the handshake nor decrypt() has used, or that are decrypted and not given out.
    # Changes nothing.
    cdef Py_ssize_t pending(self) except -1

    # Whether decrypt() may have something to tell although it is given no more: plaintext, the end or an error. Changes
    # nothing, and costs little. False is a promise that it would answer TLS_WANTS_INPUT; True is none.
    cdef bint has_record(self) except -1

    # Decrypt into buffer, which has room for size > 0 bytes. After the handshake. input may be empty.
    # Returns the number of bytes of plaintext, more than 0, and there may be more; TLS_ENDED, and no more will come;
    # or TLS_WANTS_INPUT, and all of input is taken. Key updates and tickets are dealt with on the way, and may have
    # made output.
    # Raises ssl.SSLError for what is no TLS or has been tampered with: buffer then has nothing in it, what was
    # returned before is valid, and when it is called again it raises again.
    cdef Py_ssize_t decrypt(self, Ciphertext *input, char *buffer, Py_ssize_t size) except -2

    # Encrypt from the beginning of data, 1 to TLS_ENCRYPT_SIZE bytes, which stay where they are meanwhile whatever a
    # callback does. After the handshake, and before end().
    # Returns how many bytes it has taken, at least one: their records are in the output. Or TLS_WANTS_INPUT, when the
    # peer has asked to negotiate anew: it has taken nothing, and the caller offers the same bytes, perhaps with more
    # behind them, once it has decrypted.
    # Raises when nothing can be sent any more.
    cdef Py_ssize_t encrypt(self, const char *data, Py_ssize_t size) except -2

    # The bytes that are for the peer, as a bytes object that is the caller's, or None. At any time, also after a
    # failure.
    # Raises MemoryError, and then the next call has them.
    cdef object take_output(self)

    # Say goodbye: our close_notify goes to the output. After the handshake, once.
    # Raises ssl.SSLError when data of the peer's is in the way or its end is known already: the output is good all
    # the same.
    cdef int end(self) except -1
