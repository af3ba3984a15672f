"""-errno becomes OSError here and nowhere else."""
from libc.errno cimport ENOMEM
from os import strerror as os_strerror


class OutOfMemory(OSError, MemoryError):
    """ENOMEM, of an allocation or of the kernel. Callers that expect an error of a system call, as in asyncio, catch
    it, and so do callers that expect a MemoryError."""

    __module__ = "hoop"


cdef object os_error(long result):
    """Return, not raise, the exception for a csrc result below 0."""
    return file_error(result, None, None)


cdef object error_saying(long result, str words):
    """As os_error, in our own words where the system's do not say what has happened."""
    return OSError(<int>-result, words)


cdef object datagram_error(long result):
    """As os_error, for error_received()."""
    return os_error(result)


cdef object file_error(long result, object filename, object other_filename):
    """As os_error, with the file names that the error is about, or None."""
    cdef int number = <int>-result
    cdef object kind = OutOfMemory if number == ENOMEM else OSError
    if filename is None:
        return kind(number, os_strerror(number))
    if other_filename is None:
        return kind(number, os_strerror(number), filename)
    return kind(number, os_strerror(number), filename, None, other_filename)


cdef int check(long result) except -1:
    """Raise if result is below 0."""
    if result < 0:
        raise os_error(result)
    return 0


cdef int pass_exits_on(object error) except -1:
    """Raise error again if it must leave the loop: it ends the program, and is no failed callback. (asyncio)"""
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        raise error
    return 0
