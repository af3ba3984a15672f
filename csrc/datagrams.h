/* datagrams.h: several datagrams with one system call, where the system has one for it (recvmmsg(2) and sendmmsg(2) on
 * Linux), else one by one. What a caller sees is the same. */
#ifndef HOOP_DATAGRAMS_H
#define HOOP_DATAGRAMS_H

#include "base.h"
#include <sys/socket.h>
#include <sys/types.h>

/* The most datagrams that one call moves. It is small, since the loop serves no other descriptor while it hands a batch
 * out. */
#define HOOP_DATAGRAMS_MAX 16
/* The bytes in a reader, divided by the size that the caller asks for. Pages that are never filled cost nothing. */
#define HOOP_DATAGRAMS_ROOM ((size_t)1 << 20)

typedef struct hoop_datagram {
    const char *data;
    ssize_t size;                   /* 0 is a datagram too; received: -errno where an error came in place of one */
    const struct sockaddr *address; /* the sender or the receiver; NULL with length 0: unknown, or the connected peer */
    socklen_t address_length;
} hoop_datagram;

/* The memory that datagrams are received into. One serves any number of sockets, one after the other. */
typedef struct hoop_datagram_reader hoop_datagram_reader;

hoop_datagram_reader *hoop_datagram_reader_open(void);         /* NULL when there is no memory */
void hoop_datagram_reader_close(hoop_datagram_reader *reader); /* NULL is fine */
/* Receive what waits in the socket: at most HOOP_DATAGRAMS_MAX datagrams, and as many of `largest` bytes (1 to
 * HOOP_DATAGRAMS_ROOM) as the reader has room for; longer ones are cut. Fills `datagrams`, which has HOOP_DATAGRAMS_MAX
 * places, and returns their number (at least 1) or -errno; -EAGAIN when none waits. What they point to belongs to the
 * reader and stays until its next use. A pending error of the socket is reported once: as the result, or in the last
 * place (see hoop_datagram.size). */
int hoop_datagram_reader_receive(hoop_datagram_reader *reader, int fd, size_t largest, hoop_datagram *datagrams);
/* The same, but take no more than one datagram from the socket: 1 or -errno. */
int hoop_datagram_reader_receive_one(hoop_datagram_reader *reader, int fd, size_t largest, hoop_datagram *datagram);

/* 0 when the kernel has taken the datagram, or -errno: -EAGAIN for "not now"; anything else is about this datagram or
 * an earlier one (ICMP), and this one is not sent. The kernel takes a datagram whole or not at all. */
int hoop_datagram_send(int fd, const hoop_datagram *datagram);
/* The same for up to HOOP_DATAGRAMS_MAX in order: how many were taken (at least 1), or -errno, which is about the
 * first. After fewer than `count`, the next call with the rest returns the reason; Linux may forget an ICMP error that
 * arrived in between, and then sends the datagram that the error would have stopped. */
int hoop_datagrams_send(int fd, const hoop_datagram *datagrams, int count);

/* Datagrams for one receiver that the kernel takes as one, and makes datagrams again behind the dear part of its way
 * down. They are as long as the first of them; only the last may be shorter, and none is empty. */
#define HOOP_JOINED_MAX 64        /* that many in one call, as older kernels bound it; */
#define HOOP_JOINED_BYTES (64000) /* and that much: their sum, with headers, must fit into one packet */
/* Whether this kernel does so for this socket, and its user has neither asked for that himself nor corked it. */
bool hoop_datagrams_can_join(int fd);
/* Send 2 to HOOP_JOINED_MAX such datagrams to the receiver that the first one names. 0 when all are taken; -errno when
 * none is: what hoop_datagram_send() says of the first, or an error that hoop_datagrams_refuse_joining() knows. */
int hoop_datagrams_send_joined(int fd, const hoop_datagram *datagrams, int count);
/* Whether a result says that they cannot go as one on this way (its packets are too small, or its device cannot), though
 * they may one by one. */
bool hoop_datagrams_refuse_joining(int result);

#endif
