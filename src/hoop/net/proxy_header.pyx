"""ProxyHeader: what a balancer has said about a connection, as get_extra_info("proxy_protocol") shows it.

csrc/proxy_header.c has checked the bytes before one is made of them. Nothing is taken out of them until a program asks.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from hoop.core.csrc cimport HOOP_PROXY_SSL_FIXED, HOOP_PROXY_TLV_SSL, HOOP_PROXY_V1, \
    HOOP_PROXY_V2, hoop_proxy_crc32c, hoop_proxy_header, hoop_proxy_header_parse, hoop_proxy_header_size, \
    hoop_proxy_tlv, hoop_proxy_tlv_next
from hoop.core.refuse_instances cimport refuse_instances
from hoop.net.addresses cimport address_of
from libc.errno cimport EILSEQ, EMSGSIZE, EPROTO, EPROTONOSUPPORT

from hoop.net.proxy_ssl import ProxySsl

cdef enum:
    TLV_ALPN = 0x01
    TLV_AUTHORITY = 0x02
    TLV_UNIQUE_ID = 0x05
    TLV_NETNS = 0x30
    SSL_VERSION = 0x21
    SSL_COMMON_NAME = 0x22
    SSL_CIPHER = 0x23
    SSL_SIGNATURE_ALGORITHM = 0x24
    SSL_KEY_ALGORITHM = 0x25
    CLIENT_SSL = 0x01
    CLIENT_CERT_CONN = 0x02
    CLIENT_CERT_SESS = 0x04


@cython.final
cdef class ProxyHeader:
    """A header of the PROXY protocol: whose connection it is that a balancer passes on.

    Text that is not in its encoding is shown as os.fsdecode() shows it, so no byte is lost.
    """

    cdef int parse(self, hoop_proxy_header *header) except -1:
        return check_parsed(hoop_proxy_header_parse(
            <const uint8_t *>PyBytes_AS_STRING(self.raw_bytes), PyBytes_GET_SIZE(self.raw_bytes), header))

    cdef int show_on(self, Transport transport) except -1:
        """Have transport show the addresses of the header, if there are any, and the header itself."""
        cdef hoop_proxy_header header
        self.parse(&header)
        return transport.show_proxied(
            <const sockaddr *>&header.source, header.source_length,
            <const sockaddr *>&header.destination, header.destination_length,
            {"proxy_protocol": self, "proxy_peername": self.proxy})

    cdef bytes value_of(self, int type):
        """The first value of that type, or None."""
        for kind, value in self.tlvs:
            if kind == type:
                return value
        return None

    @property
    def raw(self):
        """The header as it came."""
        return self.raw_bytes

    @property
    def version(self):
        """1 or 2."""
        return 1 if self.raw_bytes[0] == c"P" else 2

    @property
    def command(self):
        """"PROXY", or "LOCAL" for a connection of the balancer's own, such as a health check."""
        cdef hoop_proxy_header header
        self.parse(&header)
        return "LOCAL" if header.is_local else "PROXY"

    @property
    def source(self):
        """The client's address, as the socket module shows it. None: the header has no addresses, or none of a stream;
        then the connection's own are in force."""
        cdef hoop_proxy_header header
        self.parse(&header)
        return None if header.source_length == 0 else address_of(
            <const sockaddr *>&header.source, header.source_length)

    @property
    def destination(self):
        """The address that the client connected to, or None as for source."""
        cdef hoop_proxy_header header
        self.parse(&header)
        return None if header.destination_length == 0 else address_of(
            <const sockaddr *>&header.destination, header.destination_length)

    @property
    def tlvs(self):
        """((type, value), ...): everything that version 2 adds, in its order. Not read where source is None."""
        cdef hoop_proxy_header header
        if self.all_tlvs is None:
            self.parse(&header)
            self.all_tlvs = tlvs_in(header.tlvs, header.tlvs_size)
        return self.all_tlvs

    def tlv(self, int type):
        """The first value of that type (0 to 255), or None. AWS: tlv(0xEA) is b"\\x01" and the VPC endpoint's ID."""
        return self.value_of(type)

    @property
    def authority(self):
        """The host name that the client asked for, mostly by SNI; or None."""
        return text_of(self.value_of(TLV_AUTHORITY))

    @property
    def alpn(self):
        """The protocol that client and balancer agreed upon, "h2" for example; or None."""
        return text_of(self.value_of(TLV_ALPN))

    @property
    def unique_id(self):
        """Bytes by which the balancer names the connection, or None."""
        return self.value_of(TLV_UNIQUE_ID)

    @property
    def netns(self):
        """The name of the network namespace, or None."""
        return text_of(self.value_of(TLV_NETNS))

    @property
    def ssl(self):
        """A ProxySsl: the TLS that the balancer took off; None if it does not tell."""
        cdef bytes value = self.value_of(HOOP_PROXY_TLV_SSL)
        return None if value is None else ssl_of(value)

    def __eq__(self, other):
        return self.raw_bytes == (<ProxyHeader>other).raw_bytes if type(other) is ProxyHeader else NotImplemented

    def __hash__(self):
        return hash(self.raw_bytes)

    def __reduce__(self):
        return parse, (self.raw_bytes,)

    def __repr__(self):
        words = [f"{self.command} v{self.version}"]
        if self.source is not None:
            words.append(f"{self.source!r} -> {self.destination!r}")
        for name in ("authority", "alpn", "unique_id", "netns", "ssl"):
            value = getattr(self, name)
            if value is not None:
                words.append(f"{name}={value!r}")
        return f"<ProxyHeader {' '.join(words)}>"


cdef tuple tlvs_in(const uint8_t *rest, size_t size):
    cdef hoop_proxy_tlv tlv
    cdef list found = []
    while hoop_proxy_tlv_next(&rest, &size, &tlv) > 0:
        found.append((tlv.type, PyBytes_FromStringAndSize(<const char *>tlv.value, <Py_ssize_t>tlv.size)))
    return tuple(found)


cdef object text_of(bytes value):
    return None if value is None else value.decode("utf-8", "surrogateescape")


cdef object ssl_of(bytes value):
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(value)
    cdef int flags = data[0]
    cdef bint is_verified = data[1] | data[2] | data[3] | data[4] == 0 and flags & (CLIENT_CERT_CONN | CLIENT_CERT_SESS)
    cdef tuple nested = tlvs_in(data + HOOP_PROXY_SSL_FIXED, <size_t>PyBytes_GET_SIZE(value) - HOOP_PROXY_SSL_FIXED)
    cdef dict first = dict(reversed(nested))
    return ProxySsl(
        bool(flags & CLIENT_SSL),
        bool(flags & CLIENT_CERT_CONN),
        bool(flags & CLIENT_CERT_SESS),
        bool(is_verified),
        text_of(first.get(SSL_VERSION)),
        text_of(first.get(SSL_COMMON_NAME)),
        text_of(first.get(SSL_CIPHER)),
        text_of(first.get(SSL_SIGNATURE_ALGORITHM)),
        text_of(first.get(SSL_KEY_ALGORITHM)),
        nested,
    )


cdef ProxyHeader new_header(const uint8_t *data, Py_ssize_t size, const sockaddr *proxy, socklen_t length):
    """A header that hoop_proxy_header_parse has accepted; proxy is the address that it came from."""
    cdef ProxyHeader header = ProxyHeader.__new__(ProxyHeader)
    header.raw_bytes = PyBytes_FromStringAndSize(<const char *>data, size)
    header.proxy = None if proxy == NULL else address_of(proxy, length)
    return header


cdef str refusal(int result):
    """What csrc/proxy_header.h means by a result below 0."""
    if result == -EPROTO:
        return "no PROXY header"
    if result == -EPROTONOSUPPORT:
        return "a version or a command that is not allowed"
    if result == -EMSGSIZE:
        return "a line without an end"
    if result == -EILSEQ:
        return "a wrong checksum"
    return "a malformed PROXY header"


cdef int check_parsed(Py_ssize_t result) except -1:
    if result < 0:
        raise ValueError(refusal(<int>result))
    return 0


def parse(bytes data not None):
    """The header that data begins with, which is len(header.raw) bytes long; None if its end is still to come.

    ValueError if no header begins like this.
    """
    cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef hoop_proxy_header header
    cdef Py_ssize_t size = hoop_proxy_header_size(start, <size_t>PyBytes_GET_SIZE(data), HOOP_PROXY_V1 | HOOP_PROXY_V2)
    check_parsed(size)
    if size == 0 or size > PyBytes_GET_SIZE(data):
        return None
    check_parsed(hoop_proxy_header_parse(start, <size_t>size, &header))
    return new_header(start, size, NULL, 0)


def crc32c(bytes data not None):
    """The checksum of RFC 4960, appendix B, as a number."""
    return hoop_proxy_crc32c(0, <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


refuse_instances(ProxyHeader)
