"""Addresses of sockets: convert the kernel's record (sockaddr) to what the socket module shows, and back."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.tuple cimport PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from hoop.core.csrc cimport AF_INET, AF_INET6, AF_UNSPEC, hoop_address, hoop_net_format_address, \
    hoop_net_parse_literal, hoop_net_unix_name, htonl, sockaddr_in, sockaddr_storage
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset, strlen

import os

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef object address_of(const sockaddr *address, socklen_t length):
    """Return the address as the socket module does: (host, port), or (host, port, flowinfo, scope_id); of a UNIX socket
    the path as str, or a name in Linux's abstract namespace as bytes. None for other families and for no address."""
    cdef hoop_address text
    cdef const char *name
    cdef Py_ssize_t size
    if hoop_net_format_address(address, length, &text) == 0:
        if text.family == AF_INET:
            return (text.host.decode("ascii"), text.port)
        return (text.host.decode("ascii"), text.port, text.flowinfo, text.scope_id)
    size = hoop_net_unix_name(address, length, &name)
    if size < 0:
        return None
    encoded = PyBytes_FromStringAndSize(name, size)
    return encoded if encoded.startswith(b"\0") else os.fsdecode(encoded)


# ---- kept in a connection's fields ---------------------------------------------------------------------------------
# An AF_INET address is host and port in network order, as the kernel has them, and a bit that no pointer has.

cdef enum:
    IS_INET = 1


cdef object kept_address_of(KeptAddress kept):
    cdef sockaddr_in inet
    cdef RawAddress *raw
    if kept == 0:
        return None
    if kept & IS_INET:
        memset(&inet, 0, sizeof(inet))
        inet.sin_family = AF_INET
        inet.sin_addr.s_addr = <uint32_t>(kept >> 32)
        inet.sin_port = <uint16_t>(kept >> 16)
        return address_of(<const sockaddr *>&inet, sizeof(inet))
    raw = <RawAddress *><uintptr_t>kept
    return address_of(<const sockaddr *>&raw.address, raw.length)


cdef object read_address(address_fn ask, int fd, KeptAddress *kept):
    """Ask the kernel now, and keep the address as keep_address() does: after a reset it no longer knows the peer."""
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    forget_address(kept)
    if ask(fd, <sockaddr *>&address, &length) != 0:
        return None
    return keep_address(<sockaddr *>&address, min(length, <socklen_t>sizeof(address)), kept)


cdef object keep_address(const sockaddr *address, socklen_t length, KeptAddress *kept):
    """Keep an IP address in kept, until forget_address(), and return None. Return the name of a UNIX socket, which does
    not fit there. Keep nothing of other families."""
    cdef const sockaddr_in *inet = <const sockaddr_in *>address
    cdef RawAddress *raw
    forget_address(kept)
    if length >= sizeof(sockaddr_in) and address.sa_family == AF_INET:
        kept[0] = (<uint64_t>inet.sin_addr.s_addr << 32) | (<uint64_t>inet.sin_port << 16) | IS_INET
        return None
    if length >= sizeof(address.sa_family) and address.sa_family == AF_INET6:
        raw = <RawAddress *>PyMem_Malloc(sizeof(RawAddress))
        if raw == NULL:
            raise MemoryError()
        raw.length = min(length, <socklen_t>sizeof(raw.address))
        memcpy(&raw.address, address, raw.length)
        kept[0] = <uintptr_t>raw
        return None
    return address_of(address, length)


cdef int family_of(KeptAddress kept) noexcept:
    """AF_INET or AF_INET6; AF_UNSPEC when unknown."""
    if kept == 0:
        return AF_UNSPEC
    return AF_INET if kept & IS_INET else (<RawAddress *><uintptr_t>kept).address.sin6_family


cdef int forget_address(KeptAddress *kept) noexcept:
    if kept[0] != 0 and not kept[0] & IS_INET:
        PyMem_Free(<void *><uintptr_t>kept[0])
    kept[0] = 0
    return 0


# ---- what an application says --------------------------------------------------------------------------------------

cdef int parse_host(object host, uint16_t port, sockaddr_storage *address) except -2:
    """Return the length of the sockaddr of a numeric host (str, bytes or bytearray) and port; -1 for other hosts.

    "127.1", "010.0.0.1" and zones ("fe80::1%eth0") are no numeric hosts: libc alone knows what they mean.
    """
    cdef const char *text
    cdef Py_ssize_t size
    if isinstance(host, str):
        if not (<str>host).isascii():
            return -1
        text = PyUnicode_AsUTF8AndSize(host, &size)
    elif isinstance(host, bytes):
        text = PyBytes_AS_STRING(host)
        size = PyBytes_GET_SIZE(host)
    elif isinstance(host, bytearray):
        return parse_host(bytes(host), port, address)
    else:
        return -1
    if <Py_ssize_t>strlen(text) != size:
        return -1
    return max(hoop_net_parse_literal(text, port, address), -1)


cdef bint parse_address(int family, object address, RawAddress *raw) except -1:
    """Whether address is (host, port[, flowinfo[, scope_id]]) of family, in plain numbers that fit; then fill raw."""
    cdef sockaddr_storage storage
    cdef Py_ssize_t count
    cdef int length
    if not PyTuple_CheckExact(address):
        return False
    count = len(<tuple>address)
    if count != 2 and (family != AF_INET6 or count < 2 or count > 4):
        return False
    if not PyUnicode_CheckExact(address[0]):
        return False
    for number in (<tuple>address)[1:]:
        if not PyLong_CheckExact(number) or not 0 <= number <= 0xffffffff:
            return False
    if address[1] > 0xffff or (count > 2 and address[2] > 0xfffff):
        return False
    length = parse_host(address[0], <uint16_t>address[1], &storage)
    if length < 0 or storage.ss_family != family or length > <int>sizeof(sockaddr_in6):
        return False
    memcpy(&raw.address, &storage, <size_t>length)
    raw.length = <socklen_t>length
    if count > 2:
        raw.address.sin6_flowinfo = htonl(<uint32_t>address[2])
    if count > 3:
        raw.address.sin6_scope_id = <uint32_t>address[3]
    return True


# ---- the latest senders --------------------------------------------------------------------------------------------

cdef class KnownAddresses:
    def __cinit__(self):
        self.tuples = [None] * KNOWN_COUNT

    cdef object tuple_of(self, const sockaddr *address, socklen_t length):
        """The tuple for an IP address, made when that was not seen lately; None for what is longer than such."""
        cdef RawAddress *raw
        cdef int slot
        if length > sizeof(sockaddr_in6):
            return None
        slot = slot_of(<const char *>address, length)
        raw = &self.raws[slot]
        if raw.length != length or memcmp(&raw.address, address, length) != 0:
            found = address_of(address, length)
            memcpy(&raw.address, address, length)
            raw.length = length
            self.tuples[slot] = found
        return self.tuples[slot]

    cdef bint find(self, object address, RawAddress *raw) except -1:
        """Whether this very tuple is known; then fill raw."""
        cdef int slot
        for slot in range(KNOWN_COUNT):
            if self.tuples[slot] is address:
                raw[0] = self.raws[slot]
                return True
        return False


cdef int slot_of(const char *address, socklen_t length) noexcept:
    """A hash over port and host; both families have the port, and IPv4 the host, in the first eight bytes."""
    cdef uint32_t words[7]
    cdef uint32_t mixed
    if length < 8:
        return 0
    words[5] = words[4] = words[3] = 0
    memcpy(words, address, min(length, <socklen_t>sizeof(words)))
    mixed = words[0] ^ words[1] * <uint32_t>0x85ebca6b
    if length > 16:  # IPv6
        mixed ^= words[5] * <uint32_t>0xc2b2ae35 ^ words[3]
    return <int>((mixed * <uint32_t>0x9e3779b1) >> (32 - KNOWN_BITS))
