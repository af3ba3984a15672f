# engine.pxd: the TLS protocol of one connection. The contract between a session and an engine.
#
# Bytes in, bytes out: ciphertext from the peer goes in by feed() and comes out as plaintext by decrypt(); plaintext
# goes in by encrypt(), and what is for the peer, handshake, alerts and records alike, comes out by take_output(). An
# engine knows no transport, no loop and no time, waits for nothing, and keeps no memory of its caller's: what it
# needs of its arguments it has copied when a function returns. A new engine is one file with a class that derives
# from TlsEngine, and a function that makes one for a context; the session knows this interface only.
#
# All calls come from the loop's thread. A context's own callbacks (SNI, verification, messages, key log) run inside
# handshake(), decrypt(), encrypt() and end(), and what they raise comes out of these. Whatever raises may have made
# output: the alert that tells the peer why.


cdef enum:
    TLS_ENDED = 0               # decrypt(): the peer has sent close_notify
    TLS_WANTS_INPUT = -1        # nothing can be done before more ciphertext has been fed
    TLS_RECORD_SIZE = 16384     # bytes of plaintext in the largest record


cdef class TlsEngine:
    # For whom the application asks: what has version(), cipher(), compression() and getpeercert(), as ssl.SSLObject.
    cdef readonly object ssl_object

    # Go on with the handshake. Not called again once it is complete.
    # True: it is complete, and all the other functions may be called. False: it wants input; feed, and call again.
    # Raises ssl.SSLError or what a callback raised: the connection has failed, and only take_output() is called any
    # more.
    cdef bint handshake(self) except -1

    # Take ciphertext from the peer, size > 0. At any time, also before and amid the handshake.
    # Returns how many bytes it has taken from the beginning of data: at least one, and no more than it likes to hold.
    # The caller keeps the others, and feeds them when has_record() is false or TLS_WANTS_INPUT or False asks for
    # them.
    # Raises MemoryError, and then has taken nothing.
    cdef Py_ssize_t feed(self, const char *data, Py_ssize_t size) except -1

    # Bytes that feed() has taken and neither the handshake nor decrypt() has used. Changes nothing.
    cdef Py_ssize_t pending(self) except -1

    # Whether decrypt() may have something to tell: plaintext, the end or an error. Changes nothing, and costs little.
    # False is a promise that decrypt() would answer TLS_WANTS_INPUT; True is none.
    cdef bint has_record(self) except -1

    # Decrypt into buffer, which has room for size > 0 bytes. After the handshake.
    # Returns the number of bytes of plaintext, more than 0, and there may be more; TLS_ENDED, and no more will come;
    # or TLS_WANTS_INPUT. Key updates and tickets are dealt with on the way, and may have made output.
    # Raises ssl.SSLError for what is no TLS or has been tampered with: buffer then has nothing in it, what was
    # returned before is valid, and when it is called again it raises again.
    cdef Py_ssize_t decrypt(self, char *buffer, Py_ssize_t size) except -2

    # Encrypt from the beginning of data, bytes or a contiguous memoryview of bytes, 1 to TLS_RECORD_SIZE of them.
    # After the handshake, and before end().
    # Returns how many bytes it has taken, at least one: their records are in the output. Or TLS_WANTS_INPUT, when the
    # peer has asked to negotiate anew: it has taken nothing, and the caller offers the same bytes, perhaps with more
    # behind them, once it has fed and decrypted.
    # Raises when nothing can be sent any more.
    cdef Py_ssize_t encrypt(self, object data) except -2

    # The bytes that are for the peer, as an object that is the caller's, or None. At any time, also after a failure.
    # Raises MemoryError, and then the next call has them.
    cdef object take_output(self)

    # Say goodbye: our close_notify goes to the output. After the handshake, once.
    # Raises ssl.SSLError when data of the peer's is in the way or its end is known already: the output is good all
    # the same.
    cdef int end(self) except -1
