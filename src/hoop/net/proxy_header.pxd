from hoop.core.csrc cimport hoop_proxy_header, sockaddr, socklen_t
from hoop.net.transport cimport Transport
from libc.stdint cimport uint8_t


cdef class ProxyHeader:
    cdef bytes raw_bytes        # all of it; what it says is read when somebody asks
    cdef tuple all_tlvs         # (type, value) of each; None until the first question
    cdef object proxy           # the balancer's address, as the socket module shows it

    cdef int parse(self, hoop_proxy_header *header) except -1
    cdef int show_on(self, Transport transport) except -1
    cdef bytes value_of(self, int type)


cdef ProxyHeader new_header(const uint8_t *data, Py_ssize_t size, const sockaddr *proxy, socklen_t length)
cdef str refusal(int result)
