cdef int show_to_collector(object reactor_type) except -1
