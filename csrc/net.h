/* net.h: sockets: system calls as the loop wants them (EINTR retried, -errno, no SIGPIPE, non-blocking and
 * close-on-exec from birth), and socket addresses as text.
 *
 * SIGPIPE: sending to a socket never raises it (MSG_NOSIGNAL, or SO_NOSIGPIPE on macOS, set by hoop_net_accept and
 * hoop_net_set_nonblocking). write(2) to a pipe has no such flag; there the process is safe because CPython ignores the
 * signal from its start on. */
#ifndef HOOP_NET_H
#define HOOP_NET_H

#include "base.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The most buffers that one hoop_net_sendv takes (IOV_MAX is at least 1024 wherever hoop runs). */
#define HOOP_NET_MAX_BUFFERS 64

/* Bytes up to which hoop_net_sendv copies its buffers into one. Twice as many cost as much to copy as to describe to the
 * kernel. */
#define HOOP_NET_JOINED_MOST 2048

/* Take a connection from the listener's queue, non-blocking and close-on-exec: its descriptor, or -errno. peer and
 * length get its address, also of a connection that was reset in the queue, for which getpeername(2) fails. -EAGAIN
 * when the queue is empty. Errors of a connection that died in the queue (ECONNABORTED, EPROTO and, on Linux, the
 * network errors that accept(2) passes on) are returned as they are; hoop_net_is_transient_accept_error tells them
 * apart. */
int hoop_net_accept(int listener_fd, struct sockaddr_storage *peer, socklen_t *length);
bool hoop_net_is_transient_accept_error(int result); /* the connection is lost, the listener fine: try again at once */
bool hoop_net_is_resource_error(int result);         /* -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM: wait before trying again */

/* Wake one more of the processes that wait for connections on this listening socket with HOOP_EXCLUSIVE, as if a
 * connection had just come; if none is in the queue, nothing happens. For a process that was woken and does not accept
 * (poller_epoll.c, rules 10 and 11); it stops watching first, or may be woken itself. 0, or -EOPNOTSUPP where the
 * system cannot (anything but TCP on Linux): no process should watch exclusively there. */
int hoop_net_hand_on(int listener_fd);

/* recv(2), send(2), sendmsg(2): bytes moved, 0 at end of file, or -errno (-EAGAIN for "not now"; never -EWOULDBLOCK
 * under another number). One call moves at most about 2 GiB (XNU refuses more than an int, Linux cuts). hoop_net_sendv
 * looks at the first HOOP_NET_MAX_BUFFERS buffers; a count of 0 sends nothing and returns 0. */
ssize_t hoop_net_pending(int fd); /* FIONREAD: bytes that have arrived and recv(2) would find */
/* Whether close(2) may destroy what the peer has not read yet: bytes have come that nobody has read, so that the kernel
 * resets the connection, or some of ours are on their way (SIOCOUTQ, where the system tells), so that it may have to. */
bool hoop_net_close_may_reset(int fd);
ssize_t hoop_net_recv(int fd, void *buffer, size_t size);
ssize_t hoop_net_peek(int fd, void *buffer, size_t size); /* recv(2) with MSG_PEEK: the bytes stay */
ssize_t hoop_net_send(int fd, const void *buffer, size_t size);
ssize_t hoop_net_sendv(int fd, const struct iovec *buffers, int count);
/* The same for what is not a socket, with read(2) and writev(2): pipes, terminals. */
ssize_t hoop_net_read(int fd, void *buffer, size_t size);
ssize_t hoop_net_writev(int fd, const struct iovec *buffers, int count);

/* Options. 0 or -errno. */
int hoop_net_set_nonblocking(int fd);      /* any kind of file; every adopted descriptor passes through here */
int hoop_net_set_nodelay(int fd, bool on); /* TCP_NODELAY; 0 without effect for what is not TCP */
int hoop_net_shutdown_write(int fd);       /* -ENOTCONN when the peer has reset the connection */
int hoop_net_socket_error(int fd);         /* SO_ERROR as -errno, or 0; the pending error is cleared */
int hoop_net_close(int fd);                /* EINTR is success: on Linux and the BSDs the descriptor is gone */

/* An address as Python's socket module shows it: (host, port) or (host, port, flowinfo, scope_id). Since Python 3.7 the
 * host of such a tuple carries no zone, from getpeername() as from getaddrinfo(): the scope is the tuple's fourth
 * item. */
typedef struct hoop_address {
    int family;                  /* AF_INET or AF_INET6 */
    uint16_t port;               /* host order */
    uint32_t flowinfo;           /* host order, AF_INET6 */
    uint32_t scope_id;           /* AF_INET6 */
    char host[INET6_ADDRSTRLEN]; /* numeric, without a zone */
} hoop_address;

/* Text of a sockaddr: 0, or -EAFNOSUPPORT for another family than AF_INET and AF_INET6 or for a short length. */
int hoop_net_format_address(const struct sockaddr *address, socklen_t length, hoop_address *text);
/* The host in an address, to tell hosts apart: 4 bytes for IPv4, also for an IPv4-mapped IPv6 address, or 16. How many
 * were written; 0 for other families and for a short length. */
int hoop_net_host(const struct sockaddr *address, socklen_t length, uint8_t host[16]);
/* Whether such a host is one of a network's: the first bits of both are the same, and they are of one family. */
typedef struct hoop_network {
    uint8_t host[16];
    int size; /* bytes of host: 4 or 16 */
    int bits;
} hoop_network;
bool hoop_net_contains(const hoop_network *network, const uint8_t *host, int size);
/* The name of an AF_UNIX address, as it lies inside `address`: its size, or -EAFNOSUPPORT for another family. A path is
 * as long as its text (a final NUL does not count); an abstract name (Linux) begins with a NUL and keeps every byte; a
 * socket without a name has size 0. */
ssize_t hoop_net_unix_name(const struct sockaddr *address, socklen_t length, const char **name);
/* A numeric host as inet_pton(3) reads it: four decimal numbers, or an IPv6 address (RFC 4291, section 2.2) without a
 * zone. Fills a sockaddr with the port and returns its length; -EINVAL for anything else: "127.1", "010.0.0.1",
 * "fe80::1%eth0", names, spaces. The caller asks getaddrinfo about those. */
int hoop_net_parse_literal(const char *host, uint16_t port, struct sockaddr_storage *address);

#endif
