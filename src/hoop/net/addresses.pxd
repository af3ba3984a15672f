from hoop.core.csrc cimport sockaddr, sockaddr_in6, sockaddr_storage, socklen_t
from libc.stdint cimport uint16_t, uint64_t


cdef struct RawAddress:         # an AF_INET or AF_INET6 address as the kernel has it; length 0 when unknown
    sockaddr_in6 address
    socklen_t length

# The same in the fields of a connection, of which a program has thousands: 0 when unknown, an AF_INET address in the
# number itself, or else a pointer to a RawAddress.
ctypedef uint64_t KeptAddress

cdef enum:
    KNOWN_BITS = 4
    KNOWN_COUNT = 1 << KNOWN_BITS


cdef class KnownAddresses:
    """The latest senders of an endpoint. A reply to one of these tuples finds its sockaddr by the tuple's identity."""
    cdef list tuples            # by a hash of the sockaddr
    cdef RawAddress raws[KNOWN_COUNT]

    cdef object tuple_of(self, const sockaddr *address, socklen_t length)
    cdef bint find(self, object address, RawAddress *raw) except -1


# getpeername(2), getsockname(2)
ctypedef int (*address_fn)(int fd, sockaddr *address, socklen_t *length) noexcept nogil

cdef object address_of(const sockaddr *address, socklen_t length)
cdef object kept_address_of(KeptAddress kept)
cdef object read_address(address_fn ask, int fd, KeptAddress *kept)
cdef object keep_address(const sockaddr *address, socklen_t length, KeptAddress *kept)
cdef int family_of(KeptAddress kept) noexcept
cdef int forget_address(KeptAddress *kept) noexcept
cdef int parse_host(object host, uint16_t port, sockaddr_storage *address) except -2
cdef bint parse_address(int family, object address, RawAddress *raw) except -1
