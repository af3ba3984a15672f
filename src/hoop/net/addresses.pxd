from hoop.core.csrc cimport sockaddr, sockaddr_in6, sockaddr_storage, socklen_t
from libc.stdint cimport uint16_t


cdef struct RawAddress:         # an AF_INET or AF_INET6 address as the kernel has it; length 0 when unknown
    sockaddr_in6 address
    socklen_t length

# getpeername(2), getsockname(2)
ctypedef int (*address_fn)(int fd, sockaddr *address, socklen_t *length) noexcept nogil

cdef object address_of(const sockaddr *address, socklen_t length)
cdef object raw_address_of(const RawAddress *raw)
cdef object read_address(address_fn ask, int fd, RawAddress *raw)
cdef object keep_address(const sockaddr *address, socklen_t length, RawAddress *raw)
cdef int parse_host(object host, uint16_t port, sockaddr_storage *address) except -2
cdef bint parse_address(int family, object address, RawAddress *raw) except -1
