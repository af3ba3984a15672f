cdef object os_error(long result)
cdef object error_saying(long result, str words)
cdef object datagram_error(long result)
cdef int check(long result) except -1
cdef int pass_exits_on(object error) except -1
cdef object file_error(long result, object filename, object other_filename)


cdef inline int raise_what_is_set() except -1:
    """For a try block around it: the exception that a call of the C API has set goes on from here."""
    return -1
