"""What getaddrinfo(3) answers, as socket.getaddrinfo shows it; and the answers to numeric hosts, which need no look-up.

A numeric host is answered with the address read from its own text and the families, types and protocols that libc gave
once for another numeric host with the same options (a template). That is libc's own answer: for a numeric host and
port getaddrinfo(3) looks at nothing but its arguments (RFC 3493, section 6.1), and all it says about the host is its
address. Left to libc are the forms and options where that does not hold, or where systems differ: "127.1" and its kin,
zones, link-local and multicast hosts (the BSDs keep a scope inside them), mapped IPv4, AI_CANONNAME, AI_ADDRCONFIG,
AI_V4MAPPED.
"""
cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLong, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from hoop.core.cpython_api cimport PySys_Audit
from hoop.core.csrc cimport AF_INET6, AI_NUMERICHOST, AI_NUMERICSERV, AI_PASSIVE, EAI_SYSTEM, HOOP_LANE_DNS, \
    gai_strerror, hoop_address_info, hoop_getaddrinfo_job, hoop_getaddrinfo_job_free, hoop_getaddrinfo_job_init, \
    hoop_getaddrinfo_job_run, sockaddr, sockaddr_in6, sockaddr_storage
from hoop.core.errors cimport os_error
from hoop.net.addresses cimport address_of, parse_host
from libc.stdint cimport uint16_t
from libc.string cimport memcmp

import _socket
import socket
import sys

# What has replaced these (a test's mock, gevent) is called, as asyncio would.
cdef object ORIGINAL = socket.getaddrinfo if getattr(socket.getaddrinfo, "__module__", "") == "socket" else None
cdef object ORIGINAL_COMPILED = _socket.getaddrinfo

cdef dict FAMILIES = {int(member): member for member in socket.AddressFamily}
cdef dict TYPES = {int(member): member for member in socket.SocketKind}

cdef int LARGEST_PORT = 65535
cdef bint PORTS_ARE_LONG = sys.version_info < (3, 12)  # there the socket module takes C longs only
# On macOS AI_NUMERICSERV without a service needs care, so it is left to libc there.
cdef int TEMPLATE_FLAGS = AI_PASSIVE | AI_NUMERICHOST | (0 if sys.platform == "darwin" else AI_NUMERICSERV)
cdef Py_ssize_t MOST_TEMPLATES = 64  # a program uses a handful of combinations


# ---- questions ----------------------------------------------------------------------------------------------------

cdef bytes encoded_host(object host):
    """As the socket module hands it to libc; None is NULL. TypeError for another type, UnicodeError for a bad name."""
    if host is None:
        return None
    if isinstance(host, bytes):
        return bytes(host)
    if not isinstance(host, str):
        raise TypeError(f"getaddrinfo() argument 1 must be string or None, not {host!r}")
    # What the idna codec does to ASCII is to refuse labels that are empty or longer than 63.
    if PyUnicode_CheckExact(host) and (<str>host).isascii() and 0 < len(<str>host) < 64 and ".." not in <str>host \
            and not (<str>host).startswith("."):
        return (<str>host).encode("ascii")
    return host.encode("idna")


cdef bytes encoded_service(object port):
    """Likewise. OSError for another type, OverflowError for what is too large, as the socket module has it."""
    if port is None:
        return None
    if PyLong_CheckExact(port):
        if PORTS_ARE_LONG:
            PyLong_AsLong(port)
        return str(port).encode("ascii")
    if isinstance(port, str):
        return port.encode("utf-8")
    if isinstance(port, bytes):
        return bytes(port)
    raise OSError("Int or String expected")


# ---- answers ------------------------------------------------------------------------------------------------------

cdef object name_error(int status, int system_error):
    """The exception for an EAI_ code; it is returned, not raised."""
    if status == EAI_SYSTEM:
        return os_error(-system_error)
    return socket.gaierror(status, (<bytes>gai_strerror(status)).decode("utf-8", "replace"))


cdef object address_in(const hoop_address_info *info):
    cdef const sockaddr *address = <const sockaddr *>&info.address
    if info.address_length == 0:
        return None
    shown = address_of(address, info.address_length)
    if shown is not None:
        return shown
    return (address.sa_family, PyBytes_FromStringAndSize(address.sa_data, sizeof(address.sa_data)))


cdef object answer_of(hoop_getaddrinfo_job *job):
    """The list that socket.getaddrinfo returns, or its exception raised. For a job that has run."""
    cdef const hoop_address_info *info
    cdef int i
    if job.status != 0:
        raise name_error(job.status, job.system_error)
    answer = []
    for i in range(job.count):
        info = &job.infos[i]
        answer.append((FAMILIES.get(info.family, info.family), TYPES.get(info.type, info.type), info.protocol,
                       info.canonical_name.decode("utf-8"), address_in(info)))
    return answer


# ---- numeric hosts ------------------------------------------------------------------------------------------------

def literal_family(host):
    """The family of a numeric host, socket.AF_INET or AF_INET6; None for any other, which only libc can read."""
    cdef sockaddr_storage storage
    return None if parse_host(host, 0, &storage) < 0 else FAMILIES[storage.ss_family]


cdef long plain_port(object port) except? -3:
    """The number; -1 for None; -2 where libc has to be asked."""
    cdef long number
    if port is None:
        return -1
    if PyLong_CheckExact(port):
        return <long>port if 0 <= port <= LARGEST_PORT else -2
    if PyBytes_CheckExact(port):
        port = (<bytes>port).decode("latin-1")
    if PyUnicode_CheckExact(port) and 0 < len(<str>port) <= 5 and (<str>port).isascii() and (<str>port).isdigit():
        number = int(port)
        if number <= LARGEST_PORT and str(number) == port:
            return number
    return -2


cdef bint is_plain_ipv6(sockaddr_in6 *address) noexcept:
    """Neither link-local nor multicast nor a mapped IPv4 address."""
    cdef unsigned char *octets = address.sin6_addr.s6_addr
    if octets[0] == 0xff or (octets[0] == 0xfe and octets[1] & 0xc0 == 0x80):
        return False
    return memcmp(octets, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) != 0


cpdef bint is_patched() except -1:
    """Whether a program (a test, gevent) has replaced the socket module's getaddrinfo."""
    return socket.getaddrinfo is not ORIGINAL or _socket.getaddrinfo is not ORIGINAL_COMPILED


@cython.final
cdef class Literals:
    """The answers to numeric hosts, for one loop. It remembers what libc says to each combination of options."""
    cdef dict templates         # options -> tuple of (family, type, protocol), or None: libc has to be asked

    def __cinit__(self):
        self.templates = {}

    def answer(self, host, port, family, type, proto, flags):
        """What socket.getaddrinfo returns, if host and port are plain numbers; None if libc has to be asked, or what
        has replaced that function.

        Wrong arguments are not noticed here: they too give None.
        """
        cdef sockaddr_storage storage
        cdef int length
        cdef int options[4]
        cdef long number
        if not PyUnicode_CheckExact(host) and not PyBytes_CheckExact(host):
            return None
        if is_patched():
            return None
        if not is_int(family) or not is_int(type) or not is_int(proto) or not is_int(flags):
            return None
        try:
            options[0], options[1], options[2], options[3] = family, type, proto, flags
        except OverflowError:
            return None
        if options[3] & ~TEMPLATE_FLAGS:
            return None
        number = plain_port(port)
        if number == -2:
            return None
        length = parse_host(host, <uint16_t>max(number, 0), &storage)
        if length < 0 or (storage.ss_family == AF_INET6 and not is_plain_ipv6(<sockaddr_in6 *>&storage)):
            return None
        template = self.template(storage.ss_family == AF_INET6, options, number == -1)
        if template is None:
            return None
        PySys_Audit("socket.getaddrinfo", "OOiii", <void *>host, <void *>port, options[0], options[1], options[2])
        address = address_of(<sockaddr *>&storage, length)
        answer = []
        for kind in <tuple>template:
            answer.append((kind[0], kind[1], kind[2], "", address))
        return answer

    cdef object template(self, bint is_ipv6, int *options, bint no_port):
        # Of plain numbers: a member of an enumeration has a hash of its own, in Python.
        key = (is_ipv6, options[0], options[1], options[2], options[3], no_port)
        try:
            return self.templates[key]
        except KeyError:
            pass
        template = ask_template(b"2001:db8::1" if is_ipv6 else b"192.0.2.1", options, no_port)
        if len(self.templates) < MOST_TEMPLATES:
            self.templates[key] = template
        return template


cdef bytes SAMPLE_PORT = b"4660"


cdef bint is_int(object value) noexcept:
    return isinstance(value, int)


cdef tuple ask_template(bytes sample, int *options, bint no_port):
    """What libc answers to a numeric host with these options; None unless each answer is that very address.

    With AI_NUMERICHOST it neither blocks nor asks a server, so it may be called on the loop's thread.
    """
    cdef hoop_getaddrinfo_job job
    cdef const char *host = sample
    cdef const char *service = NULL
    if not no_port:
        service = SAMPLE_PORT
    hoop_getaddrinfo_job_init(&job, HOOP_LANE_DNS, host, service, options[0], options[1], options[2],
                              options[3] | AI_NUMERICHOST)
    hoop_getaddrinfo_job_run(&job)
    try:
        if job.status != 0:
            return None
        answer = answer_of(&job)
    finally:
        hoop_getaddrinfo_job_free(&job)
    expected = (sample.decode("ascii"), 0 if no_port else int(SAMPLE_PORT))
    if b":" in sample:
        expected += (0, 0)
    kinds = []
    for info in answer:
        if info[3] != "" or info[4] != expected:
            return None
        kinds.append(info[:3])
    return tuple(kinds)
