/* proxy_header.c: both versions of the PROXY protocol. Where the specification leaves a choice:
 *
 *   - Version 1 ends with CR LF alone. An address is what inet_pton(3) reads, a port has no leading zeros, and one space
 *     stands between words. What follows UNKNOWN is skipped.
 *   - LOCAL says nothing about addresses, whatever its block holds: AWS sends one. It is skipped, TLVs too.
 *   - AF_UNSPEC, and what did not come over a byte stream, have no addresses for a connection. How long their block of
 *     addresses is cannot be told, hence not where TLVs begin: all of it is skipped.
 *   - Unassigned families and transports are refused, as the specification demands. */
#include "proxy_header.h"

#include "net.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

enum {
    V2_FIXED = 16, /* signature, version and command, family and transport, length of the rest */
    COMMAND_LOCAL = 0x20,
    COMMAND_PROXY = 0x21,
    LAST_FAMILY = 3,    /* AF_UNIX */
    LAST_TRANSPORT = 2, /* datagrams */
    TCP4 = 0x11,
    TCP6 = 0x21,
    UNIX_STREAM = 0x31,
    UNIX_PATH = 108,
    TLV_FIXED = 3, /* type, length of the value */
};

static const char v1_signature[] = "PROXY ";
static const uint8_t v2_signature[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static size_t number16(const uint8_t *data)
{
    return (size_t)data[0] << 8 | data[1];
}

/* ---- how long it is ---- */

static bool begins_as(const uint8_t *data, size_t size, const void *signature, size_t signature_size)
{
    return memcmp(data, signature, size < signature_size ? size : signature_size) == 0;
}

static ssize_t line_size(const uint8_t *data, size_t size)
{
    size_t longest = size < HOOP_PROXY_LONGEST_LINE ? size : HOOP_PROXY_LONGEST_LINE;
    const uint8_t *end = memchr(data, '\n', longest);
    if (end == NULL)
        return size >= HOOP_PROXY_LONGEST_LINE ? -EMSGSIZE : 0;
    return end - data + 1;
}

ssize_t hoop_proxy_header_size(const uint8_t *data, size_t size, unsigned versions)
{
    if (size == 0)
        return 0;
    if (begins_as(data, size, v1_signature, sizeof(v1_signature) - 1))
        return versions & HOOP_PROXY_V1 ? line_size(data, size) : -EPROTONOSUPPORT;
    if (!begins_as(data, size, v2_signature, sizeof(v2_signature)))
        return -EPROTO;
    if (!(versions & HOOP_PROXY_V2))
        return -EPROTONOSUPPORT;
    if (size > sizeof(v2_signature) && data[12] != COMMAND_LOCAL && data[12] != COMMAND_PROXY)
        return -EPROTONOSUPPORT;
    return size < V2_FIXED ? 0 : (ssize_t)(V2_FIXED + number16(data + 14));
}

/* ---- version 1: a line of words ---- */

/* The next word of line, as a string of its own: false if there is none, or none that short. The space behind it goes
 * too, unless it is the last word. */
static bool take_word(const char **line, const char *end, bool is_last, char *word, size_t room)
{
    const char *stop = is_last ? end : memchr(*line, ' ', (size_t)(end - *line));
    size_t size;
    if (stop == NULL || stop == *line || (size_t)(stop - *line) >= room)
        return false;
    size = (size_t)(stop - *line);
    memcpy(word, *line, size);
    word[size] = '\0';
    *line = is_last ? end : stop + 1;
    return strlen(word) == size;
}

static int port_of(const char *word)
{
    int port = 0;
    if (word[0] == '0' && word[1] != '\0')
        return -EBADMSG;
    for (; *word != '\0'; word++) {
        if (*word < '0' || *word > '9')
            return -EBADMSG;
        port = port * 10 + (*word - '0');
    }
    return port <= UINT16_MAX ? port : -EBADMSG;
}

static int address_of(const char *host, int port, int family, struct sockaddr_storage *address, socklen_t *length)
{
    int result = port < 0 ? port : hoop_net_parse_literal(host, (uint16_t)port, address);
    if (result < 0 || address->ss_family != family)
        return -EBADMSG;
    *length = (socklen_t)result;
    return 0;
}

static int parse_tcp_words(const char *line, const char *end, int family, hoop_proxy_header *header)
{
    char hosts[2][INET6_ADDRSTRLEN], ports[2][sizeof("65535")];
    int result;
    if (!take_word(&line, end, false, hosts[0], sizeof(hosts[0])) ||
        !take_word(&line, end, false, hosts[1], sizeof(hosts[1])) ||
        !take_word(&line, end, false, ports[0], sizeof(ports[0])) ||
        !take_word(&line, end, true, ports[1], sizeof(ports[1])))
        return -EBADMSG;
    result = address_of(hosts[0], port_of(ports[0]), family, &header->source, &header->source_length);
    if (result == 0)
        result = address_of(hosts[1], port_of(ports[1]), family, &header->destination, &header->destination_length);
    if (result < 0)
        header->source_length = 0;
    return result;
}

static int parse_line(const uint8_t *data, size_t size, hoop_proxy_header *header)
{
    const char *line = (const char *)data + sizeof(v1_signature) - 1;
    const char *end = (const char *)data + size - 2; /* CR LF */
    size_t left;
    if (size < sizeof(v1_signature) + 1 || memchr(data, '\r', size) != end || end[1] != '\n')
        return -EBADMSG;
    left = (size_t)(end - line);
    if (left > 5 && memcmp(line, "TCP4 ", 5) == 0)
        return parse_tcp_words(line + 5, end, AF_INET, header);
    if (left > 5 && memcmp(line, "TCP6 ", 5) == 0)
        return parse_tcp_words(line + 5, end, AF_INET6, header);
    if (left >= 7 && memcmp(line, "UNKNOWN", 7) == 0 && (left == 7 || line[7] == ' '))
        return 0;
    return -EBADMSG;
}

/* ---- version 2: binary ---- */

/* What hoop_net_parse_literal makes of text, of bytes. The addresses come first, then the ports. */
static socklen_t fill_ip4(const uint8_t *host, const uint8_t *port, struct sockaddr_storage *address)
{
    struct sockaddr_in in;
    memset(&in, 0, sizeof(in));
#if defined(SIN6_LEN) /* the BSDs keep the length in the sockaddr */
    in.sin_len = sizeof(in);
#endif
    in.sin_family = AF_INET;
    memcpy(&in.sin_addr, host, sizeof(in.sin_addr));
    memcpy(&in.sin_port, port, sizeof(in.sin_port));
    memcpy(address, &in, sizeof(in));
    return sizeof(in);
}

static socklen_t fill_ip6(const uint8_t *host, const uint8_t *port, struct sockaddr_storage *address)
{
    struct sockaddr_in6 in;
    memset(&in, 0, sizeof(in));
#if defined(SIN6_LEN)
    in.sin6_len = sizeof(in);
#endif
    in.sin6_family = AF_INET6;
    memcpy(&in.sin6_addr, host, sizeof(in.sin6_addr));
    memcpy(&in.sin6_port, port, sizeof(in.sin6_port));
    memcpy(address, &in, sizeof(in));
    return sizeof(in);
}

/* A path ends before its first NUL. An abstract name (Linux) begins with one, and ends before the NULs at its end; no
 * byte at all is a socket without a name. The block is longer than the sun_path of some systems: sockaddr_storage has
 * room. */
static socklen_t fill_unix(const uint8_t *name, struct sockaddr_storage *address)
{
    struct sockaddr_un un;
    size_t begin = offsetof(struct sockaddr_un, sun_path), size = 0;
    if (name[0] != '\0') {
        while (size < UNIX_PATH && name[size] != '\0')
            size++;
    } else {
        for (size = UNIX_PATH; size > 0 && name[size - 1] == '\0';)
            size--;
    }
    memset(&un, 0, sizeof(un));
    un.sun_family = AF_UNIX;
    memcpy(address, &un, begin);
    memcpy((char *)address + begin, name, size);
    return (socklen_t)(begin + size);
}

/* The addresses in the block: how many bytes of it they take, or -EBADMSG if it is too short for them. */
static ssize_t parse_addresses(int protocol, const uint8_t *block, size_t size, hoop_proxy_header *header)
{
    size_t taken = protocol == TCP4 ? 12 : protocol == TCP6 ? 36 : 2 * UNIX_PATH;
    if (size < taken)
        return -EBADMSG;
    if (protocol == TCP4) {
        header->source_length = fill_ip4(block, block + 8, &header->source);
        header->destination_length = fill_ip4(block + 4, block + 10, &header->destination);
    } else if (protocol == TCP6) {
        header->source_length = fill_ip6(block, block + 32, &header->source);
        header->destination_length = fill_ip6(block + 16, block + 34, &header->destination);
    } else {
        header->source_length = fill_unix(block, &header->source);
        header->destination_length = fill_unix(block + UNIX_PATH, &header->destination);
    }
    return (ssize_t)taken;
}

int hoop_proxy_tlv_next(const uint8_t **rest, size_t *size, hoop_proxy_tlv *tlv)
{
    size_t length;
    if (*size == 0)
        return 0;
    if (*size < TLV_FIXED)
        return -EBADMSG;
    length = number16(*rest + 1);
    if (*size - TLV_FIXED < length)
        return -EBADMSG;
    tlv->type = (*rest)[0];
    tlv->value = *rest + TLV_FIXED;
    tlv->size = length;
    *rest += TLV_FIXED + length;
    *size -= TLV_FIXED + length;
    return 1;
}

static int check_nested(const hoop_proxy_tlv *tlv)
{
    const uint8_t *rest;
    size_t size;
    hoop_proxy_tlv nested;
    int result;
    if (tlv->size < HOOP_PROXY_SSL_FIXED)
        return -EBADMSG;
    rest = tlv->value + HOOP_PROXY_SSL_FIXED;
    size = tlv->size - HOOP_PROXY_SSL_FIXED;
    do
        result = hoop_proxy_tlv_next(&rest, &size, &nested);
    while (result > 0);
    return result;
}

/* checksum: the four bytes inside the header that hold it, and count as zeros. */
static bool is_checksum_right(const uint8_t *data, size_t size, const uint8_t *checksum)
{
    static const uint8_t zeros[4];
    size_t before = (size_t)(checksum - data);
    uint32_t said = (uint32_t)(number16(checksum) << 16 | number16(checksum + 2));
    uint32_t sum = hoop_proxy_crc32c(0, data, before);
    sum = hoop_proxy_crc32c(sum, zeros, sizeof(zeros));
    return hoop_proxy_crc32c(sum, checksum + 4, size - before - 4) == said;
}

static int check_tlvs(const uint8_t *data, size_t data_size, const hoop_proxy_header *header)
{
    const uint8_t *rest = header->tlvs, *checksum = NULL;
    size_t size = header->tlvs_size;
    hoop_proxy_tlv tlv;
    int result;
    while ((result = hoop_proxy_tlv_next(&rest, &size, &tlv)) > 0) {
        if (tlv.type == HOOP_PROXY_TLV_SSL)
            result = check_nested(&tlv);
        else if (tlv.type == HOOP_PROXY_TLV_CRC32C) {
            if (tlv.size != 4 || checksum != NULL) /* of two checksums neither could be right */
                return -EBADMSG;
            checksum = tlv.value;
        }
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    return checksum == NULL || is_checksum_right(data, data_size, checksum) ? 0 : -EILSEQ;
}

static int parse_binary(const uint8_t *data, size_t size, hoop_proxy_header *header)
{
    const uint8_t *block = data + V2_FIXED;
    size_t left = size - V2_FIXED;
    int protocol = data[13];
    ssize_t taken;
    header->is_local = data[12] == COMMAND_LOCAL;
    if (header->is_local)
        return 0;
    if (protocol >> 4 > LAST_FAMILY || (protocol & 0x0f) > LAST_TRANSPORT)
        return -EBADMSG;
    if (protocol != TCP4 && protocol != TCP6 && protocol != UNIX_STREAM)
        return 0;
    taken = parse_addresses(protocol, block, left, header);
    if (taken < 0)
        return (int)taken;
    header->tlvs = block + taken;
    header->tlvs_size = left - (size_t)taken;
    return check_tlvs(data, size, header);
}

int hoop_proxy_header_parse(const uint8_t *data, size_t size, hoop_proxy_header *header)
{
    ssize_t told = hoop_proxy_header_size(data, size, HOOP_PROXY_V1 | HOOP_PROXY_V2);
    header->is_local = false;
    header->source_length = header->destination_length = 0;
    header->tlvs = NULL;
    header->tlvs_size = 0;
    if (told <= 0 || (size_t)told != size)
        return told < 0 ? (int)told : -EBADMSG;
    header->version = data[0] == 'P' ? HOOP_PROXY_V1 : HOOP_PROXY_V2;
    return header->version == HOOP_PROXY_V1 ? parse_line(data, size, header) : parse_binary(data, size, header);
}

/* ---- the checksum ---- */

/* Four bits at a time: a table of sixteen, and headers are short. The polynomial is 0x1edc6f41, bits reversed. */
uint32_t hoop_proxy_crc32c(uint32_t before, const uint8_t *data, size_t size)
{
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    uint32_t sum = ~before;
    for (size_t at = 0; at < size; at++) {
        sum ^= data[at];
        sum = sum >> 4 ^ table[sum & 15];
        sum = sum >> 4 ^ table[sum & 15];
    }
    return ~sum;
}
