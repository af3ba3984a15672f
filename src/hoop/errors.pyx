"""-errno becomes OSError here and nowhere else."""
from libc.errno cimport ENOMEM
from os import strerror as os_strerror


cdef object os_error(long result):
    """The exception for a csrc result below 0 (MemoryError for -ENOMEM); it is returned, not raised."""
    if result == -ENOMEM:
        return MemoryError()
    return OSError(<int>-result, os_strerror(<int>-result))


cdef object datagram_error(long result):
    """The same for error_received(), which is told of nothing but OSErrors: -ENOMEM is one too."""
    return OSError(<int>-result, os_strerror(<int>-result))


cdef object file_error(long result, object filename, object other_filename):
    """The same with the names that the error is about; None where there is none."""
    if filename is None or result == -ENOMEM:
        return os_error(result)
    if other_filename is None:
        return OSError(<int>-result, os_strerror(<int>-result), filename)
    return OSError(<int>-result, os_strerror(<int>-result), filename, None, other_filename)


cdef int check(long result) except -1:
    """Raise if result is below 0."""
    if result < 0:
        raise os_error(result)
    return 0
