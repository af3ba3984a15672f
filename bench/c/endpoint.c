#include "endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

int endpoint_set(struct endpoint *endpoint, const char *host, unsigned port)
{
    memset(endpoint, 0, sizeof(*endpoint));
    if (port == 0 || port > 65535)
        return -EINVAL;
    endpoint->server.sin_family = AF_INET;
    endpoint->server.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, host, &endpoint->server.sin_addr) == 1 ? 0 : -EINVAL;
}

/* One source address has some 28,000 ports, and each is blocked for a minute after a close: several addresses keep a
 * connect/close load from running out. The port is left to connect(), which may share it between destinations. */
static int bind_source(struct endpoint *endpoint, int fd)
{
    if (endpoint->source_count == 0)
        return 0;
    int one = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + endpoint->next_source);
    endpoint->next_source = (endpoint->next_source + 1) % endpoint->source_count;
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)); /* only saves ports */
    return bind(fd, (struct sockaddr *)&source, sizeof(source)) == 0 ? 0 : -errno;
}

static int open_socket(struct endpoint *endpoint, int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        return -errno;
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    int result = bind_source(endpoint, fd);
    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}

int endpoint_connect(struct endpoint *endpoint)
{
    int fd = open_socket(endpoint, 0);
    if (fd < 0)
        return fd;
    if (connect(fd, (struct sockaddr *)&endpoint->server, sizeof(endpoint->server)) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

int endpoint_start_connect(struct endpoint *endpoint)
{
    int fd = open_socket(endpoint, SOCK_NONBLOCK);
    if (fd < 0)
        return fd;
    if (connect(fd, (struct sockaddr *)&endpoint->server, sizeof(endpoint->server)) != 0 && errno != EINPROGRESS) {
        int result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

int endpoint_connect_result(int fd)
{
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return -errno;
    return -error;
}

int descriptor_limits_raise(struct descriptor_limits *limits)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    limit.rlim_cur = limit.rlim_max;
    int result = setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : -errno;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    limits->soft = limit.rlim_cur;
    limits->hard = limit.rlim_max;
    return result;
}
