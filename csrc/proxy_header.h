/* proxy_header.h: what a balancer says first on a connection (PROXY protocol, versions 1 and 2): whose it is.
 *
 * The parser is pure: it reads bytes of the caller's, keeps and allocates nothing, and believes no length. It has no
 * state either: a caller that has too few bytes calls again with more, from the first byte on. Errors:
 *   -EPROTO            no header begins like this
 *   -EPROTONOSUPPORT   a version that the caller does not take, or a command that no specification has
 *   -EMSGSIZE          version 1: no end of the line within HOOP_PROXY_LONGEST_LINE bytes
 *   -EBADMSG           it begins as a header, and then breaks the rules
 *   -EILSEQ            its checksum is wrong
 * The specification is HAProxy's doc/proxy-protocol.txt. */
#ifndef HOOP_PROXY_HEADER_H
#define HOOP_PROXY_HEADER_H

#include "base.h"
#include <sys/socket.h>
#include <sys/types.h>

#define HOOP_PROXY_V1 1u /* versions are bits, so that a set of them is a number */
#define HOOP_PROXY_V2 2u

#define HOOP_PROXY_LONGEST_LINE 107          /* bytes of version 1, with CR LF */
#define HOOP_PROXY_LONGEST (16 + UINT16_MAX) /* bytes of version 2 */

#define HOOP_PROXY_TLV_CRC32C 0x03
#define HOOP_PROXY_TLV_SSL 0x20
#define HOOP_PROXY_SSL_FIXED 5 /* bytes of a TLV of TLS before those nested in it: flags, verification */

typedef struct hoop_proxy_header {
    unsigned version;               /* HOOP_PROXY_V1 or HOOP_PROXY_V2 */
    bool is_local;                  /* the balancer's own connection (LOCAL): a health check */
    socklen_t source_length;        /* 0: no addresses, use the connection's own */
    socklen_t destination_length;   /* 0 if and only if source_length is */
    struct sockaddr_storage source; /* AF_INET, AF_INET6 or AF_UNIX, of that length */
    struct sockaddr_storage destination;
    const uint8_t *tlvs; /* inside the caller's bytes: checked, so that hoop_proxy_tlv_next finds no error */
    size_t tlvs_size;
} hoop_proxy_header;

typedef struct hoop_proxy_tlv {
    int type;
    const uint8_t *value;
    size_t size;
} hoop_proxy_tlv;

/* How long the header is that begins with these bytes: its size, which may be more than there are; 0 when these are too
 * few to tell; or -errno as soon as they cannot become a header of one of `versions`. */
ssize_t hoop_proxy_header_size(const uint8_t *data, size_t size, unsigned versions);
/* Parse a whole header, of exactly the size that hoop_proxy_header_size told. 0 or -errno. */
int hoop_proxy_header_parse(const uint8_t *data, size_t size, hoop_proxy_header *header);

/* Take the first TLV off rest: 1, 0 at the end, or -EBADMSG if it reaches beyond the end. */
int hoop_proxy_tlv_next(const uint8_t **rest, size_t *size, hoop_proxy_tlv *tlv);

/* CRC32c (RFC 4960, appendix B) of data, after `before`: the checksum of what stands in front of it, 0 if nothing. */
uint32_t hoop_proxy_crc32c(uint32_t before, const uint8_t *data, size_t size);

#endif
