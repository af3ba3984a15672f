/* datagrams.h: several datagrams with one system call, where the system has one for it (recvmmsg(2) and sendmmsg(2) on
 * Linux), else one by one. What a caller sees is the same. */
#ifndef HOOP_DATAGRAMS_H
#define HOOP_DATAGRAMS_H

#include "base.h"
#include <sys/socket.h>
#include <sys/types.h>

/* The most datagrams that one call moves. A limit for the sake of others: while a batch is handed out, nobody else
 * is. */
#define HOOP_DATAGRAMS_MAX 16
/* The room in a reader. It is shared out by the size that a caller asks for; pages that are never filled cost
 * nothing. */
#define HOOP_DATAGRAMS_ROOM ((size_t)1 << 20)

typedef struct hoop_datagram {
    const char *data;
    ssize_t size; /* 0 is a datagram too; received: -errno where an error came in the place of one */
    const struct sockaddr *address; /* whence or where to; NULL with the length 0: unknown, or the connected peer */
    socklen_t address_length;
} hoop_datagram;

/* Where datagrams are received to. One serves any number of sockets, one after the other. */
typedef struct hoop_datagram_reader hoop_datagram_reader;

hoop_datagram_reader *hoop_datagram_reader_open(void); /* NULL when there is no memory */
void hoop_datagram_reader_close(hoop_datagram_reader *reader); /* NULL is fine */
/* What waits in the socket, at most HOOP_DATAGRAMS_MAX and as many of `largest` bytes (1 to HOOP_DATAGRAMS_ROOM) as
 * there is room for; longer ones are cut. Fills `datagrams`, which has HOOP_DATAGRAMS_MAX places, and returns their
 * number (at least 1) or -errno; -EAGAIN when none waits. What they point to is the reader's, until its next use. An
 * error that the socket had pending is told once: as the result, or in the last place (see hoop_datagram.size). */
int hoop_datagram_reader_receive(hoop_datagram_reader *reader, int fd, size_t largest, hoop_datagram *datagrams);
/* Likewise, but no more than one datagram is taken from the socket: 1 or -errno. */
int hoop_datagram_reader_receive_one(hoop_datagram_reader *reader, int fd, size_t largest, hoop_datagram *datagram);

/* 0 when the kernel has taken it, or -errno: -EAGAIN for "not now", anything else is about this datagram or about an
 * earlier one (ICMP), and the datagram is not sent. Datagrams are taken whole or not at all. */
int hoop_datagram_send(int fd, const hoop_datagram *datagram);
/* The same for up to HOOP_DATAGRAMS_MAX in order: how many were taken (at least 1), or -errno, which is about the
 * first. After fewer than `count`, the next call with the rest tells why; on Linux an ICMP error that arrived in
 * between may be forgotten, and then the datagram that it would have stood in for is sent after all. */
int hoop_datagrams_send(int fd, const hoop_datagram *datagrams, int count);

#endif
