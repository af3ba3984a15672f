/* Batches of datagrams, on the loopback and between UNIX sockets. */
#include "check.h"
#include "datagrams.h"
#include "net.h"
#include "platform.h"

#include <arpa/inet.h>
#if HOOP_HAVE_UDP_SEGMENT
#include <netinet/udp.h>
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#endif
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define LARGEST 65536

static int open_udp(struct sockaddr_in *address)
{
    socklen_t length = sizeof(*address);
    memset(address, 0, sizeof(*address));
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    REQUIRE(fd >= 0);
    REQUIRE(hoop_net_set_nonblocking(fd) == 0);
    REQUIRE(bind(fd, (struct sockaddr *)address, length) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)address, &length) == 0);
    return fd;
}

static void open_unix_pair(int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    REQUIRE(hoop_net_set_nonblocking(pair[0]) == 0);
    REQUIRE(hoop_net_set_nonblocking(pair[1]) == 0);
}

static hoop_datagram datagram_to(const struct sockaddr_in *address, const char *data, size_t size)
{
    hoop_datagram datagram = {.data = data,
                              .size = (ssize_t)size,
                              .address = (const struct sockaddr *)address,
                              .address_length = address == NULL ? 0 : sizeof(*address)};
    return datagram;
}

static void wait_readable(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    REQUIRE(poll(&entry, 1, 5000) == 1);
}

TEST(a_batch_arrives_whole_and_in_order)
{
    struct sockaddr_in from, to;
    int sender = open_udp(&from), receiver = open_udp(&to);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    hoop_datagram sent[5], got[HOOP_DATAGRAMS_MAX];
    char text[5][8];
    for (int i = 0; i < 5; i++) {
        memset(text[i], 'a' + i, sizeof(text[i]));
        sent[i] = datagram_to(&to, text[i], (size_t)i); /* the first one is empty */
    }
    CHECK_EQ(hoop_datagram_reader_receive(reader, receiver, LARGEST, got), -EAGAIN);
    CHECK_EQ(hoop_datagrams_send(sender, sent, 5), 5);
    wait_readable(receiver);
    if (CHECK_EQ(hoop_datagram_reader_receive(reader, receiver, LARGEST, got), 5)) {
        for (int i = 0; i < 5; i++) {
            CHECK_EQ(got[i].size, i);
            CHECK(memcmp(got[i].data, text[i], (size_t)i) == 0);
            CHECK_EQ(got[i].address_length, sizeof(from));
            CHECK_EQ(((const struct sockaddr_in *)(const void *)got[i].address)->sin_port, from.sin_port);
        }
    }
    CHECK_EQ(hoop_datagram_reader_receive(reader, receiver, LARGEST, got), -EAGAIN);
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(sender), 0);
    CHECK_EQ(hoop_net_close(receiver), 0);
}

TEST(more_than_a_batch_takes_several)
{
    struct sockaddr_in from, to;
    int sender = open_udp(&from), receiver = open_udp(&to);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    hoop_datagram got[HOOP_DATAGRAMS_MAX];
    for (int i = 0; i < HOOP_DATAGRAMS_MAX + 3; i++) {
        char number = (char)i;
        hoop_datagram datagram = datagram_to(&to, &number, 1);
        CHECK_EQ(hoop_datagram_send(sender, &datagram), 0);
    }
    wait_readable(receiver);
    CHECK_EQ(hoop_datagram_reader_receive(reader, receiver, LARGEST, got), HOOP_DATAGRAMS_MAX);
    CHECK_EQ(got[HOOP_DATAGRAMS_MAX - 1].data[0], HOOP_DATAGRAMS_MAX - 1);
    CHECK_EQ(hoop_datagram_reader_receive(reader, receiver, LARGEST, got), 3);
    CHECK_EQ(got[2].data[0], HOOP_DATAGRAMS_MAX + 2);
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(sender), 0);
    CHECK_EQ(hoop_net_close(receiver), 0);
}

TEST(one_is_taken_and_the_others_stay)
{
    int pair[2];
    open_unix_pair(pair);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    hoop_datagram got[HOOP_DATAGRAMS_MAX];
    CHECK_EQ(hoop_datagram_reader_receive_one(reader, pair[1], LARGEST, got), -EAGAIN);
    for (int i = 0; i < 3; i++) {
        char number = (char)i;
        hoop_datagram datagram = datagram_to(NULL, &number, 1);
        CHECK_EQ(hoop_datagram_send(pair[0], &datagram), 0);
    }
    CHECK_EQ(hoop_datagram_reader_receive_one(reader, pair[1], LARGEST, got), 1);
    CHECK_EQ(got[0].size, 1);
    CHECK_EQ(got[0].data[0], 0);
    CHECK_EQ(hoop_datagram_reader_receive(reader, pair[1], LARGEST, got), 2);
    CHECK_EQ(got[1].data[0], 2);
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(pair[0]), 0);
    CHECK_EQ(hoop_net_close(pair[1]), 0);
}

TEST(the_room_is_shared_out_by_size)
{
    int pair[2];
    open_unix_pair(pair);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    hoop_datagram got[HOOP_DATAGRAMS_MAX];
    for (int i = 0; i < 3; i++) {
        hoop_datagram datagram = datagram_to(NULL, "abcdef", 6);
        CHECK_EQ(hoop_datagram_send(pair[0], &datagram), 0);
    }
    CHECK_EQ(hoop_datagram_reader_receive(reader, pair[1], HOOP_DATAGRAMS_ROOM, got), 1);
    CHECK_EQ(got[0].size, 6);
    CHECK_EQ(hoop_datagram_reader_receive(reader, pair[1], HOOP_DATAGRAMS_ROOM / 2, got), 2);
    hoop_datagram datagram = datagram_to(NULL, "abcdef", 6);
    CHECK_EQ(hoop_datagram_send(pair[0], &datagram), 0);
    CHECK_EQ(hoop_datagram_reader_receive(reader, pair[1], 2, got), 1);
    CHECK_EQ(got[0].size, 2); /* cut */
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(pair[0]), 0);
    CHECK_EQ(hoop_net_close(pair[1]), 0);
}

TEST(a_full_receiver_says_again_and_the_rest_stays_in_order)
{
    int pair[2];
    open_unix_pair(pair);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    static char block[16384];
    hoop_datagram batch[HOOP_DATAGRAMS_MAX], got[HOOP_DATAGRAMS_MAX];
    for (int i = 0; i < HOOP_DATAGRAMS_MAX; i++)
        batch[i] = datagram_to(NULL, block, sizeof(block) - (size_t)i);
    int result, taken = 0;
    for (int i = 0; i < 1000; i++) {
        result = hoop_datagrams_send(pair[0], batch, HOOP_DATAGRAMS_MAX);
        if (result < HOOP_DATAGRAMS_MAX)
            break;
        taken += result;
    }
    if (result > 0) {
        taken += result;
        result = hoop_datagrams_send(pair[0], batch + result, HOOP_DATAGRAMS_MAX - result);
    }
    CHECK(result == -EAGAIN || result == -ENOBUFS); /* the BSDs have no queue to wait for */
    int received = 0;
    while ((result = hoop_datagram_reader_receive(reader, pair[1], LARGEST, got)) > 0) {
        for (int i = 0; i < result; i++, received++)
            CHECK_EQ(got[i].size, (ssize_t)sizeof(block) - received % HOOP_DATAGRAMS_MAX);
    }
    CHECK_EQ(result, -EAGAIN);
    CHECK_EQ(received, taken);
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(pair[0]), 0);
    CHECK_EQ(hoop_net_close(pair[1]), 0);
}

TEST(a_refusal_is_told_once)
{
    struct sockaddr_in from, to;
    int sender = open_udp(&from), gone = open_udp(&to);
    CHECK_EQ(hoop_net_close(gone), 0);
    REQUIRE(connect(sender, (struct sockaddr *)&to, sizeof(to)) == 0);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    hoop_datagram got[HOOP_DATAGRAMS_MAX];
    hoop_datagram datagram = datagram_to(NULL, "x", 1);
    CHECK_EQ(hoop_datagram_send(sender, &datagram), 0);
    struct pollfd entry = {.fd = sender, .events = POLLIN};
    REQUIRE(poll(&entry, 1, 5000) == 1);
    CHECK_EQ(hoop_datagram_reader_receive(reader, sender, LARGEST, got), -ECONNREFUSED);
    CHECK_EQ(hoop_datagram_reader_receive(reader, sender, LARGEST, got), -EAGAIN);
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(sender), 0);
}

TEST(an_error_behind_datagrams_is_not_lost)
{
    struct sockaddr_in from, to;
    int sender = open_udp(&from), peer = open_udp(&to);
    REQUIRE(connect(sender, (struct sockaddr *)&to, sizeof(to)) == 0);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    hoop_datagram got[HOOP_DATAGRAMS_MAX];
    hoop_datagram from_peer = datagram_to(&from, "one", 3), to_peer = datagram_to(NULL, "x", 1);
    CHECK_EQ(hoop_datagram_send(peer, &from_peer), 0);
    wait_readable(sender);
    CHECK_EQ(hoop_net_close(peer), 0);
    CHECK_EQ(hoop_datagram_send(sender, &to_peer), 0);
    /* the kernel tells an error before datagrams or behind them: count both */
    int datagrams = 0, errors = 0;
    for (int round = 0; round < 4; round++) {
        int count = hoop_datagram_reader_receive(reader, sender, LARGEST, got);
        errors += count == -ECONNREFUSED;
        for (int i = 0; i < count; i++) {
            datagrams += got[i].size == 3;
            errors += got[i].size == -ECONNREFUSED;
        }
    }
    CHECK_EQ(datagrams, 1);
    CHECK_EQ(errors, 1);
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(sender), 0);
}

TEST(what_cannot_be_sent_fails_alone)
{
    struct sockaddr_in from, to;
    int sender = open_udp(&from), receiver = open_udp(&to);
    static char huge[70000];
    hoop_datagram batch[3] = {datagram_to(&to, "a", 1), datagram_to(&to, huge, sizeof(huge)), datagram_to(&to, "b", 1)};
    CHECK_EQ(hoop_datagrams_send(sender, batch, 3), 1);
    CHECK_EQ(hoop_datagrams_send(sender, batch + 1, 2), -EMSGSIZE);
    CHECK_EQ(hoop_datagrams_send(sender, batch + 2, 1), 1);
    CHECK_EQ(hoop_net_close(sender), 0);
    CHECK_EQ(hoop_net_close(receiver), 0);
}

#if HOOP_HAVE_UDP_SEGMENT
TEST(joined_datagrams_arrive_apart)
{
    struct sockaddr_in from, to;
    int sender = open_udp(&from), receiver = open_udp(&to);
    hoop_datagram_reader *reader = hoop_datagram_reader_open();
    REQUIRE(reader != NULL);
    REQUIRE(hoop_datagrams_can_join(sender));
    hoop_datagram sent[4], got[HOOP_DATAGRAMS_MAX];
    char text[4][500];
    for (int i = 0; i < 4; i++) {
        memset(text[i], 'a' + i, sizeof(text[i]));
        sent[i] = datagram_to(&to, text[i], i < 3 ? sizeof(text[i]) : 7); /* the last one is shorter */
    }
    CHECK_EQ(hoop_datagrams_send_joined(sender, sent, 4), 0);
    wait_readable(receiver);
    int count = 0;
    while (count < 4) {
        int result = hoop_datagram_reader_receive(reader, receiver, LARGEST, got);
        if (!CHECK(result > 0))
            break;
        for (int i = 0; i < result; i++, count++) {
            CHECK_EQ(got[i].size, sent[count].size);
            CHECK(memcmp(got[i].data, sent[count].data, (size_t)sent[count].size) == 0);
        }
    }
    CHECK_EQ(count, 4);
    hoop_datagram_reader_close(reader);
    CHECK_EQ(hoop_net_close(sender), 0);
    CHECK_EQ(hoop_net_close(receiver), 0);
}

TEST(who_joins_himself_is_not_joined)
{
    struct sockaddr_in address;
    const int options[2] = {UDP_SEGMENT, UDP_CORK};
    for (int i = 0; i < 2; i++) {
        int fd = open_udp(&address), value = 100;
        CHECK(hoop_datagrams_can_join(fd));
        CHECK_EQ(setsockopt(fd, IPPROTO_UDP, options[i], &value, sizeof(value)), 0);
        CHECK(!hoop_datagrams_can_join(fd));
        CHECK_EQ(hoop_net_close(fd), 0);
    }
}

TEST(what_the_way_does_not_join_is_known)
{
    struct sockaddr_in from, to;
    int sender = open_udp(&from), receiver = open_udp(&to), yes = 1;
    /* without checksums the kernel cannot */
    CHECK_EQ(setsockopt(sender, SOL_SOCKET, SO_NO_CHECK, &yes, sizeof(yes)), 0);
    hoop_datagram sent[2] = {datagram_to(&to, "a", 1), datagram_to(&to, "b", 1)};
    int result = hoop_datagrams_send_joined(sender, sent, 2);
    CHECK(result < 0);
    CHECK(hoop_datagrams_refuse_joining(result));
    CHECK(!hoop_datagrams_refuse_joining(-EAGAIN));
    CHECK(!hoop_datagrams_refuse_joining(-ECONNREFUSED));
    CHECK_EQ(hoop_datagram_send(sender, sent), 0);
    CHECK_EQ(hoop_net_close(sender), 0);
    CHECK_EQ(hoop_net_close(receiver), 0);
}
#endif

TEST(other_sockets_are_not_joined)
{
    int pair[2];
    open_unix_pair(pair);
    CHECK(!hoop_datagrams_can_join(pair[0]));
    CHECK(!hoop_datagrams_can_join(-1));
    CHECK_EQ(hoop_net_close(pair[0]), 0);
    CHECK_EQ(hoop_net_close(pair[1]), 0);
}

TEST(no_memory_is_no_reader)
{
    for (int allowed = 0; allowed < 2; allowed++) {
        alloc_fault_after(allowed);
        CHECK(hoop_datagram_reader_open() == NULL);
        alloc_fault_after(-1);
    }
    hoop_datagram_reader_close(NULL);
}

int main(void)
{
    RUN(a_batch_arrives_whole_and_in_order);
    RUN(more_than_a_batch_takes_several);
    RUN(one_is_taken_and_the_others_stay);
    RUN(the_room_is_shared_out_by_size);
    RUN(a_full_receiver_says_again_and_the_rest_stays_in_order);
    RUN(a_refusal_is_told_once);
    RUN(an_error_behind_datagrams_is_not_lost);
    RUN(what_cannot_be_sent_fails_alone);
#if HOOP_HAVE_UDP_SEGMENT
    RUN(joined_datagrams_arrive_apart);
    RUN(who_joins_himself_is_not_joined);
    RUN(what_the_way_does_not_join_is_known);
#endif
    RUN(other_sockets_are_not_joined);
    RUN(no_memory_is_no_reader);
    return check_finish();
}
