/* datagrams.c: batches of datagrams. What the kernels do, and what it means here:
 *
 *   - Linux: recvmmsg(2) stops at the first error; if it has datagrams by then, the error stays in the socket and the
 *     next call gets it. It is not asked for a timeout: the sockets do not block. A sandbox may refuse both calls
 *     with ENOSYS.
 *   - Linux: sendmmsg(2) that has sent something forgets the error which stopped it. Errors of the datagram itself
 *     (size, route) come again with the next call.
 *   - Elsewhere, recvfrom(2) in a loop: the error that ends a batch is gone from the socket, so the batch's last place
 *     carries it.
 *   - Linux 4.18 and newer: UDP_SEGMENT makes datagrams of one buffer. An older kernel, and a socket of another protocol,
 *     would ignore it in a control message and send all as one, so it is asked of the socket first. A datagram that is
 *     longer than the way's packets is EINVAL or EMSGSIZE, a device or a tunnel that cannot is EIO.
 *   - A UNIX sender without a name has the address length 0 on Linux, and a bare sockaddr elsewhere. */
#include "datagrams.h"

#include "net_internal.h"
#include "platform.h"

#include <netinet/in.h>
#include <string.h>
#if HOOP_HAVE_UDP_SEGMENT
#include <netinet/udp.h>
#ifndef UDP_SEGMENT /* in the C library since glibc 2.28 */
#define UDP_SEGMENT 103
#endif
#endif

struct hoop_datagram_reader {
    char *room;
    struct sockaddr_storage addresses[HOOP_DATAGRAMS_MAX];
#if HOOP_HAVE_MMSG
    struct iovec buffers[HOOP_DATAGRAMS_MAX];
    struct mmsghdr headers[HOOP_DATAGRAMS_MAX];
#endif
};

hoop_datagram_reader *hoop_datagram_reader_open(void)
{
    hoop_datagram_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return NULL;
    reader->room = malloc(HOOP_DATAGRAMS_ROOM);
    if (reader->room == NULL) {
        free(reader);
        return NULL;
    }
#if HOOP_HAVE_MMSG
    for (int i = 0; i < HOOP_DATAGRAMS_MAX; i++) {
        struct msghdr *header = &reader->headers[i].msg_hdr;
        header->msg_name = &reader->addresses[i];
        header->msg_iov = &reader->buffers[i];
        header->msg_iovlen = 1;
    }
#endif
    return reader;
}

void hoop_datagram_reader_close(hoop_datagram_reader *reader)
{
    if (reader == NULL)
        return;
    free(reader->room);
    free(reader);
}

static void set_datagram(hoop_datagram *datagram, const char *data, size_t size, const struct sockaddr_storage *address,
                         socklen_t length)
{
    datagram->data = data;
    datagram->size = (ssize_t)size;
    datagram->address = length == 0 ? NULL : (const struct sockaddr *)address;
    datagram->address_length = length < sizeof(*address) ? length : (socklen_t)sizeof(*address);
}

static int receive_one_by_one(hoop_datagram_reader *reader, int fd, size_t largest, int places,
                              hoop_datagram *datagrams)
{
    for (int count = 0; count < places; count++) {
        char *data = reader->room + (size_t)count * largest;
        struct sockaddr_storage *address = &reader->addresses[count];
        struct sockaddr *sender = (struct sockaddr *)address;
        socklen_t length;
        ssize_t size;
        HOOP_RETRY(size, (length = sizeof(*address), recvfrom(fd, data, largest, 0, sender, &length)));
        if (size >= 0) {
            set_datagram(&datagrams[count], data, (size_t)size, address, length);
            continue;
        }
        int error = hoop_net_negative_errno();
        if (count == 0)
            return error;
        if (error == -EAGAIN)
            return count;
        set_datagram(&datagrams[count], NULL, 0, NULL, 0);
        datagrams[count].size = error;
        return count + 1;
    }
    return places;
}

#if HOOP_HAVE_MMSG
static int receive_batch(hoop_datagram_reader *reader, int fd, size_t largest, int places, hoop_datagram *datagrams)
{
    for (int i = 0; i < places; i++) {
        reader->buffers[i].iov_base = reader->room + (size_t)i * largest;
        reader->buffers[i].iov_len = largest;
        reader->headers[i].msg_hdr.msg_namelen = sizeof(reader->addresses[i]);
    }
    int count;
    HOOP_RETRY(count, recvmmsg(fd, reader->headers, (unsigned)places, 0, NULL));
    if (count < 0)
        return hoop_net_negative_errno();
    for (int i = 0; i < count; i++)
        set_datagram(&datagrams[i], reader->buffers[i].iov_base, reader->headers[i].msg_len, &reader->addresses[i],
                     reader->headers[i].msg_hdr.msg_namelen);
    return count;
}
#endif

int hoop_datagram_reader_receive(hoop_datagram_reader *reader, int fd, size_t largest, hoop_datagram *datagrams)
{
    HOOP_ASSERT(largest > 0 && largest <= HOOP_DATAGRAMS_ROOM);
    int places = HOOP_DATAGRAMS_MAX;
    if (HOOP_DATAGRAMS_ROOM / largest < HOOP_DATAGRAMS_MAX)
        places = (int)(HOOP_DATAGRAMS_ROOM / largest);
#if HOOP_HAVE_MMSG
    int count = receive_batch(reader, fd, largest, places, datagrams);
    if (HOOP_LIKELY(count != -ENOSYS))
        return count;
#endif
    return receive_one_by_one(reader, fd, largest, places, datagrams);
}

int hoop_datagram_reader_receive_one(hoop_datagram_reader *reader, int fd, size_t largest, hoop_datagram *datagram)
{
    HOOP_ASSERT(largest > 0 && largest <= HOOP_DATAGRAMS_ROOM);
    return receive_one_by_one(reader, fd, largest, 1, datagram);
}

int hoop_datagram_send(int fd, const hoop_datagram *datagram)
{
    ssize_t sent;
    HOOP_RETRY(sent, sendto(fd, datagram->data, (size_t)datagram->size, HOOP_NET_SEND_FLAGS, datagram->address,
                            datagram->address_length));
    return sent < 0 ? hoop_net_negative_errno() : 0;
}

static int send_one_by_one(int fd, const hoop_datagram *datagrams, int count)
{
    for (int i = 0; i < count; i++) {
        int result = hoop_datagram_send(fd, &datagrams[i]);
        if (result == 0)
            continue;
        return i > 0 ? i : result;
    }
    return count;
}

#if HOOP_HAVE_MMSG
static int send_batch(int fd, const hoop_datagram *datagrams, int count)
{
    struct mmsghdr headers[HOOP_DATAGRAMS_MAX];
    struct iovec buffers[HOOP_DATAGRAMS_MAX];
    memset(headers, 0, (size_t)count * sizeof(headers[0]));
    for (int i = 0; i < count; i++) {
        /* sendmmsg writes to neither, its prototype only cannot say so */
        buffers[i].iov_base = (void *)(uintptr_t)datagrams[i].data;
        buffers[i].iov_len = (size_t)datagrams[i].size;
        headers[i].msg_hdr.msg_iov = &buffers[i];
        headers[i].msg_hdr.msg_iovlen = 1;
        headers[i].msg_hdr.msg_name = (void *)(uintptr_t)datagrams[i].address;
        headers[i].msg_hdr.msg_namelen = datagrams[i].address_length;
    }
    int sent;
    HOOP_RETRY(sent, sendmmsg(fd, headers, (unsigned)count, HOOP_NET_SEND_FLAGS));
    return sent < 0 ? hoop_net_negative_errno() : sent;
}
#endif

int hoop_datagrams_send(int fd, const hoop_datagram *datagrams, int count)
{
    HOOP_ASSERT(count > 0 && count <= HOOP_DATAGRAMS_MAX);
#if HOOP_HAVE_MMSG
    int sent = send_batch(fd, datagrams, count);
    if (HOOP_LIKELY(sent != -ENOSYS))
        return sent;
#endif
    return send_one_by_one(fd, datagrams, count);
}

#if HOOP_HAVE_UDP_SEGMENT
static bool is_zero(int fd, int option)
{
    int value = 0;
    socklen_t size = sizeof(value);
    return getsockopt(fd, IPPROTO_UDP, option, &value, &size) == 0 && value == 0;
}

bool hoop_datagrams_can_join(int fd)
{
    return is_zero(fd, UDP_SEGMENT) && is_zero(fd, UDP_CORK);
}

int hoop_datagrams_send_joined(int fd, const hoop_datagram *datagrams, int count)
{
    HOOP_ASSERT(count > 1 && count <= HOOP_JOINED_MAX);
    const uint16_t length = (uint16_t)datagrams[0].size;
    struct iovec buffers[HOOP_JOINED_MAX];
    union {
        struct cmsghdr aligned;
        char room[CMSG_SPACE(sizeof(length))];
    } control;
    memset(&control, 0, sizeof(control));
    for (int i = 0; i < count; i++) {
        /* sendmsg does not write to it, its prototype only cannot say so */
        buffers[i].iov_base = (void *)(uintptr_t)datagrams[i].data;
        buffers[i].iov_len = (size_t)datagrams[i].size;
    }
    struct msghdr header = {.msg_name = (void *)(uintptr_t)datagrams[0].address,
                            .msg_namelen = datagrams[0].address_length,
                            .msg_iov = buffers,
                            .msg_iovlen = (size_t)count,
                            .msg_control = control.room,
                            .msg_controllen = sizeof(control.room)};
    struct cmsghdr *segment = CMSG_FIRSTHDR(&header);
    segment->cmsg_level = IPPROTO_UDP;
    segment->cmsg_type = UDP_SEGMENT;
    segment->cmsg_len = CMSG_LEN(sizeof(length));
    memcpy(CMSG_DATA(segment), &length, sizeof(length));
    ssize_t sent;
    HOOP_RETRY(sent, sendmsg(fd, &header, HOOP_NET_SEND_FLAGS));
    return sent < 0 ? hoop_net_negative_errno() : 0;
}
#else
bool hoop_datagrams_can_join(int fd)
{
    (void)fd;
    return false;
}

int hoop_datagrams_send_joined(int fd, const hoop_datagram *datagrams, int count)
{
    (void)fd, (void)datagrams, (void)count;
    return -EOPNOTSUPP;
}
#endif

bool hoop_datagrams_refuse_joining(int result)
{
    return result == -EINVAL || result == -EMSGSIZE || result == -EIO || result == -EOPNOTSUPP;
}
