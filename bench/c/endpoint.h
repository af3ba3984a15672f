#ifndef BENCH_ENDPOINT_H
#define BENCH_ENDPOINT_H

#include <netinet/in.h>
#include <stdint.h>

/* Where a client connects to, and from. Functions return >= 0, or -errno. */

struct endpoint {
    struct sockaddr_in server;
    unsigned source_count; /* connect from 127.0.0.2 to 127.0.0.(1 + source_count) in turn; 0: the kernel chooses */
    unsigned next_source;
};

/* `host` is an IPv4 address in dotted form. */
int endpoint_set(struct endpoint *endpoint, const char *host, unsigned port);

/* A connected non-blocking socket without Nagle's delay; this call waits until it is connected. */
int endpoint_connect(struct endpoint *endpoint);

/* The same without waiting: the socket becomes writable when it is connected. */
int endpoint_start_connect(struct endpoint *endpoint);

/* What became of such a connect: 0, or -errno. */
int endpoint_connect_result(int fd);

struct descriptor_limits {
    uint64_t soft;
    uint64_t hard;
};

/* Raise the soft limit of open descriptors to the hard one, and tell both. */
int descriptor_limits_raise(struct descriptor_limits *limits);

#endif
