cdef object os_error(long result)
cdef object datagram_error(long result)
cdef int check(long result) except -1
cdef object file_error(long result, object filename, object other_filename)
