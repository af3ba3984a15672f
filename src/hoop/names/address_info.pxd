from hoop.core.csrc cimport hoop_getaddrinfo_job


cdef object answer_of(hoop_getaddrinfo_job *job)
cdef object name_error(int status, int system_error)
cdef bytes encoded_host(object host)
cdef bytes encoded_service(object port)
