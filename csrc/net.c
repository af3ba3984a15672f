/* net.c: sockets and addresses. net.h says what; this file says what differs between systems.
 *
 *   - accept4(2) makes a connection non-blocking and close-on-exec in one call on Linux and the BSDs. macOS has accept(2)
 *     alone: two fcntl calls follow, and a fork between them in another thread lets a child inherit the descriptor.
 *   - Linux passes errors of the new connection on from accept(2); they are about that connection, not the listener.
 *   - macOS answers EINVAL to setsockopt(2) on a connection that the peer has reset already.
 *   - After EINTR from close(2) the descriptor is gone on Linux and the BSDs: closing again could hit somebody else's. */
#include "net_internal.h"

#include "platform.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#if HOOP_HAVE_EPOLL && !defined(TCP_NOTSENT_LOWAT)
#define TCP_NOTSENT_LOWAT 25 /* Linux 3.12; glibc's header has it since 2.24 */
#endif

/* The BSDs keep the length in the sockaddr; the macro is how <netinet/in.h> tells. */
#if defined(SIN6_LEN)
#define SET_LENGTH(member, value) ((member) = (uint8_t)(value))
#else
#define SET_LENGTH(member, value) ((void)0)
#endif

/* Best effort: what is no socket has no SIGPIPE option, and a connection that is reset already is about to be closed. */
static void silence_sigpipe(int fd)
{
#if defined(SO_NOSIGPIPE)
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#else
    (void)fd;
#endif
}

int hoop_net_accept(int listener_fd, struct sockaddr_storage *peer, socklen_t *length)
{
    struct sockaddr *address = (struct sockaddr *)peer;
    int fd;
    /* The length is set for each try: some kernels leave 0 there when they fail. */
#if HOOP_HAVE_ACCEPT4
    HOOP_RETRY(fd, (*length = sizeof(*peer), accept4(listener_fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC)));
#else
    HOOP_RETRY(fd, (*length = sizeof(*peer), accept(listener_fd, address, length)));
#endif
    if (fd < 0)
        return hoop_net_negative_errno();
#if !HOOP_HAVE_ACCEPT4
    int result = fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : hoop_net_set_nonblocking(fd);
    if (result < 0) {
        (void)hoop_net_close(fd);
        return result;
    }
#else
    silence_sigpipe(fd);
#endif
    if (*length > (socklen_t)sizeof(*peer)) /* the kernel tells how long it would have been */
        *length = (socklen_t)sizeof(*peer);
    return fd;
}

#if HOOP_HAVE_EPOLL

int hoop_net_hand_on(int listener_fd)
{
    int protocol, lowat;
    socklen_t size = sizeof(protocol);
    if (getsockopt(listener_fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 || protocol != IPPROTO_TCP)
        return -EOPNOTSUPP;
    size = sizeof(lowat);
    if (getsockopt(listener_fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, &size) < 0 ||
        setsockopt(listener_fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat)) < 0)
        return -EOPNOTSUPP;
    return 0;
}

#else

int hoop_net_hand_on(int listener_fd)
{
    (void)listener_fd;
    return -EOPNOTSUPP;
}

#endif

/* EOPNOTSUPP and EPERM are on accept(2)'s list too, but they can also be the listener's own fault (a datagram socket, a
 * sandbox), and then trying again at once would never end. */
bool hoop_net_is_transient_accept_error(int result)
{
    switch (-result) {
    case ECONNABORTED:
    case ECONNRESET:
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ETIMEDOUT:
#if defined(ENONET)
    case ENONET:
#endif
        return true;
    default:
        return false;
    }
}

bool hoop_net_is_resource_error(int result)
{
    return result == -EMFILE || result == -ENFILE || result == -ENOBUFS || result == -ENOMEM;
}

static size_t limit(size_t size)
{
    return size < HOOP_LARGEST_TRANSFER ? size : HOOP_LARGEST_TRANSFER;
}

ssize_t hoop_net_recv(int fd, void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, recv(fd, buffer, limit(size), 0));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

ssize_t hoop_net_send(int fd, const void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, send(fd, buffer, limit(size), HOOP_NET_SEND_FLAGS));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

ssize_t hoop_net_read(int fd, void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, read(fd, buffer, limit(size)));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

ssize_t hoop_net_write(int fd, const void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, write(fd, buffer, limit(size)));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

/* How many leading buffers one call may take: at most HOOP_NET_MAX_BUFFERS, and together at most HOOP_LARGEST_TRANSFER. 0 when
 * the first alone is too much. */
static int fitting_buffers(const struct iovec *buffers, int count)
{
    if (count > HOOP_NET_MAX_BUFFERS)
        count = HOOP_NET_MAX_BUFFERS;
    size_t room = HOOP_LARGEST_TRANSFER;
    for (int i = 0; i < count; i++) {
        if (HOOP_UNLIKELY(buffers[i].iov_len > room))
            return i;
        room -= buffers[i].iov_len;
    }
    return count;
}

ssize_t hoop_net_sendv(int fd, const struct iovec *buffers, int count)
{
    if (count <= 0)
        return count == 0 ? 0 : -EINVAL;
    int fitting = fitting_buffers(buffers, count);
    if (fitting <= 1)
        return hoop_net_send(fd, buffers[0].iov_base, buffers[0].iov_len);
    struct msghdr message;
    memset(&message, 0, sizeof(message));
    message.msg_iov = (struct iovec *)(uintptr_t)buffers; /* sendmsg does not write to it, its prototype only cannot say so */
    message.msg_iovlen = (__typeof__(message.msg_iovlen))fitting; /* size_t on glibc, int elsewhere */
    ssize_t moved;
    HOOP_RETRY(moved, sendmsg(fd, &message, HOOP_NET_SEND_FLAGS));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

ssize_t hoop_net_writev(int fd, const struct iovec *buffers, int count)
{
    if (count <= 0)
        return count == 0 ? 0 : -EINVAL;
    int fitting = fitting_buffers(buffers, count);
    if (fitting <= 1)
        return hoop_net_write(fd, buffers[0].iov_base, buffers[0].iov_len);
    ssize_t moved;
    HOOP_RETRY(moved, writev(fd, buffers, fitting));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

int hoop_net_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    if ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    silence_sigpipe(fd);
    return 0;
}

int hoop_net_set_nodelay(int fd, bool on)
{
    int value = on;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)) == 0)
        return 0;
    switch (errno) {
    case EOPNOTSUPP:  /* UNIX sockets on Linux */
    case ENOPROTOOPT: /* UDP */
    case ENOTSOCK:    /* pipes */
    case EINVAL:      /* macOS: UNIX sockets, and TCP that the peer has reset */
        return 0;
    default:
        return -errno;
    }
}

int hoop_net_shutdown_write(int fd)
{
    return shutdown(fd, SHUT_WR) < 0 ? -errno : 0;
}

int hoop_net_socket_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return -errno;
    return -error;
}

int hoop_net_close(int fd)
{
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

int hoop_net_format_address(const struct sockaddr *address, socklen_t length, hoop_address *text)
{
    /* Copied before use: the caller's bytes need not be aligned. */
    struct sockaddr_in6 ipv6;
    struct sockaddr_in ipv4;
    sa_family_t family;
    memset(text, 0, sizeof(*text));
    if ((size_t)length < offsetof(struct sockaddr, sa_family) + sizeof(family))
        return -EAFNOSUPPORT;
    memcpy(&family, (const char *)address + offsetof(struct sockaddr, sa_family), sizeof(family));
    if (family == AF_INET && (size_t)length >= sizeof(ipv4)) {
        memcpy(&ipv4, address, sizeof(ipv4));
        text->family = AF_INET;
        text->port = ntohs(ipv4.sin_port);
        return inet_ntop(AF_INET, &ipv4.sin_addr, text->host, sizeof(text->host)) == NULL ? -errno : 0;
    }
    if (family == AF_INET6 && (size_t)length >= sizeof(ipv6)) {
        memcpy(&ipv6, address, sizeof(ipv6));
        text->family = AF_INET6;
        text->port = ntohs(ipv6.sin6_port);
        text->flowinfo = ntohl(ipv6.sin6_flowinfo);
        text->scope_id = ipv6.sin6_scope_id;
        return inet_ntop(AF_INET6, &ipv6.sin6_addr, text->host, sizeof(text->host)) == NULL ? -errno : 0;
    }
    return -EAFNOSUPPORT;
}

int hoop_net_host(const struct sockaddr *address, socklen_t length, uint8_t host[16])
{
    struct sockaddr_in6 ipv6;
    struct sockaddr_in ipv4;
    sa_family_t family;
    if ((size_t)length < offsetof(struct sockaddr, sa_family) + sizeof(family))
        return 0;
    memcpy(&family, (const char *)address + offsetof(struct sockaddr, sa_family), sizeof(family));
    if (family == AF_INET && (size_t)length >= sizeof(ipv4)) {
        memcpy(&ipv4, address, sizeof(ipv4));
        memcpy(host, &ipv4.sin_addr, 4);
        return 4;
    }
    if (family != AF_INET6 || (size_t)length < sizeof(ipv6))
        return 0;
    memcpy(&ipv6, address, sizeof(ipv6));
    if (IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr)) {
        memcpy(host, (const uint8_t *)&ipv6.sin6_addr + 12, 4);
        return 4;
    }
    memcpy(host, &ipv6.sin6_addr, 16);
    return 16;
}

ssize_t hoop_net_unix_name(const struct sockaddr *address, socklen_t length, const char **name)
{
    const size_t name_at = offsetof(struct sockaddr_un, sun_path);
    sa_family_t family;
    *name = (const char *)address;
    if ((size_t)length < offsetof(struct sockaddr, sa_family) + sizeof(family))
        return -EAFNOSUPPORT;
    memcpy(&family, (const char *)address + offsetof(struct sockaddr, sa_family), sizeof(family));
    if (family != AF_UNIX)
        return -EAFNOSUPPORT;
    if ((size_t)length <= name_at)
        return 0;
    *name = (const char *)address + name_at;
    size_t size = (size_t)length - name_at;
#if HOOP_HAVE_ABSTRACT_NAMES
    if (**name == '\0')
        return (ssize_t)size;
#endif
    return (ssize_t)strnlen(*name, size);
}

void hoop_net_append_zone(hoop_address *text)
{
    struct in6_addr address;
    char name[IF_NAMESIZE];
    if (text->family != AF_INET6 || text->scope_id == 0 || inet_pton(AF_INET6, text->host, &address) != 1)
        return;
    size_t used = strlen(text->host);
    size_t room = sizeof(text->host) - used;
    bool named = (IN6_IS_ADDR_LINKLOCAL(&address) || IN6_IS_ADDR_MC_LINKLOCAL(&address)) &&
                 if_indextoname(text->scope_id, name) != NULL;
    int written = named ? snprintf(text->host + used, room, "%%%s", name)
                        : snprintf(text->host + used, room, "%%%u", (unsigned)text->scope_id);
    HOOP_ASSERT(written > 0 && (size_t)written < room); /* the room is for "%" and an interface name, IF_NAMESIZE - 1 */
}

/* A decimal byte of a dotted quad: no sign, no leading zero. The character after it, or NULL. */
static const char *parse_byte(const char *at, uint8_t *byte)
{
    unsigned value = 0;
    int digits = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (digits == 3 || (digits == 1 && value == 0))
            return NULL;
        value = value * 10 + (unsigned)(*at - '0');
        digits++;
    }
    if (digits == 0 || value > 255)
        return NULL;
    *byte = (uint8_t)value;
    return at;
}

/* Four bytes to the end of the text. */
static bool parse_quad(const char *at, uint8_t bytes[4])
{
    for (int i = 0; i < 4; i++) {
        at = parse_byte(at, &bytes[i]);
        if (at == NULL || *at != (i < 3 ? '.' : '\0'))
            return false;
        at++;
    }
    return true;
}

static int hex_digit(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    if (character >= 'a' && character <= 'f')
        return character - 'a' + 10;
    if (character >= 'A' && character <= 'F')
        return character - 'A' + 10;
    return -1;
}

/* One to four hexadecimal digits. The character after them, or NULL. */
static const char *parse_group(const char *at, uint8_t bytes[2])
{
    unsigned value = 0;
    int digits = 0;
    for (; hex_digit(*at) >= 0; at++) {
        if (++digits > 4)
            return NULL;
        value = value << 4 | (unsigned)hex_digit(*at);
    }
    if (digits == 0)
        return NULL;
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
    return at;
}

/* RFC 4291, section 2.2: eight groups, the last two perhaps as a dotted quad; one "::" stands for at least one group. */
static bool parse_ipv6(const char *at, uint8_t bytes[16])
{
    int filled = 0; /* bytes written so far */
    int gap = -1;   /* where "::" was */
    if (at[0] == ':') {
        if (at[1] != ':')
            return false;
        gap = 0;
        at += 2;
    }
    while (*at != '\0') {
        if (filled <= 12 && parse_quad(at, bytes + filled)) {
            filled += 4;
            break;
        }
        if (filled == 16 || (at = parse_group(at, bytes + filled)) == NULL)
            return false;
        filled += 2;
        if (*at == '\0')
            break;
        if (*at++ != ':' || *at == '\0')
            return false;
        if (*at == ':') {
            if (gap >= 0)
                return false;
            gap = filled;
            at++;
        }
    }
    if (gap < 0)
        return filled == 16;
    if (filled > 14)
        return false;
    int tail = filled - gap;
    memmove(bytes + 16 - tail, bytes + gap, (size_t)tail);
    memset(bytes + gap, 0, (size_t)(16 - filled));
    return true;
}

int hoop_net_parse_literal(const char *host, uint16_t port, struct sockaddr_storage *address)
{
    uint8_t bytes[16];
    memset(address, 0, sizeof(*address));
    if (parse_quad(host, bytes)) {
        struct sockaddr_in *ipv4 = (struct sockaddr_in *)(void *)address;
        ipv4->sin_family = AF_INET;
        ipv4->sin_port = htons(port);
        memcpy(&ipv4->sin_addr, bytes, 4);
        SET_LENGTH(ipv4->sin_len, sizeof(*ipv4));
        return (int)sizeof(*ipv4);
    }
    if (parse_ipv6(host, bytes)) {
        struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)(void *)address;
        ipv6->sin6_family = AF_INET6;
        ipv6->sin6_port = htons(port);
        memcpy(&ipv6->sin6_addr, bytes, 16);
        SET_LENGTH(ipv6->sin6_len, sizeof(*ipv6));
        return (int)sizeof(*ipv6);
    }
    return -EINVAL;
}
