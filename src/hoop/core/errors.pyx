"""-errno becomes OSError here and nowhere else."""
from libc.errno cimport ENOMEM
from os import strerror as os_strerror


class OutOfMemory(OSError, MemoryError):
    """ENOMEM, of an allocation or of the kernel. Both callers that expect an error of a system call, as in asyncio, and
    callers that expect a MemoryError catch it."""

    __module__ = "hoop"


cdef object os_error(long result):
    """Return, not raise, the exception for a csrc result below 0."""
    return file_error(result, None, None)


cdef object error_saying(long result, str words):
    """The same in words of ours, where the system's do not say what has happened."""
    return OSError(<int>-result, words)


cdef object datagram_error(long result):
    """The same for error_received()."""
    return os_error(result)


cdef object file_error(long result, object filename, object other_filename):
    """The same with the names that the error is about, or None."""
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
    """Raise error again if it is one that leaves the loop: no callback's failure, but the program's end. (asyncio)"""
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        raise error
    return 0
