from hoop.core.csrc cimport hoop_poller

cdef int open_poller(hoop_poller *poller, object name) except -1
