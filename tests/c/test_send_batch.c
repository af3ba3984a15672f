/* Sends on many sockets by one call. Where this kernel has none, or forbids it, only that is tested. */
#define ALLOC_FAULT_INJECT 1
#include "check.h"
#include "net.h"
#include "platform.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../csrc/send_batch.c" /* a test closes its ring */

enum { MANY = HOOP_SEND_BATCH_MAX, ROOM = 4096 };

struct pair {
    int ours, theirs;
};

static struct pair open_pair(void)
{
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    REQUIRE(hoop_net_set_nonblocking(fds[0]) == 0 && hoop_net_set_nonblocking(fds[1]) == 0);
    return (struct pair){fds[0], fds[1]};
}

static void close_pair(struct pair pair)
{
    close(pair.ours);
    close(pair.theirs);
}

static struct iovec buffer_of(const char *text)
{
    return (struct iovec){(void *)(uintptr_t)text, strlen(text)};
}

static bool add_text(hoop_send_batch *batch, int fd, const char *text)
{
    struct iovec buffer = buffer_of(text);
    return hoop_send_batch_add(batch, fd, &buffer, 1);
}

static void check_received(int fd, const char *text)
{
    char found[ROOM] = {0};
    ssize_t size = recv(fd, found, sizeof(found) - 1, 0);
    CHECK_EQ(size, strlen(text));
    CHECK(strcmp(found, text) == 0);
}

static hoop_send_batch *batch_of_this_kernel;

TEST(each_socket_gets_its_own)
{
    hoop_send_batch *batch = batch_of_this_kernel;
    struct pair pairs[MANY];
    char texts[MANY][32];
    ssize_t results[MANY];
    for (int round = 0; round < 5; round++) { /* the rings wrap around */
        for (int i = 0; i < MANY; i++) {
            pairs[i] = open_pair();
            snprintf(texts[i], sizeof(texts[i]), "%d of %d", i, round);
            CHECK(add_text(batch, pairs[i].ours, texts[i]));
            CHECK_EQ(hoop_send_batch_count(batch), i + 1);
        }
        CHECK(!add_text(batch, pairs[0].ours, "more than it has places for"));
        CHECK_EQ(hoop_send_batch_send(batch, results), 0);
        CHECK_EQ(hoop_send_batch_count(batch), 0);
        for (int i = 0; i < MANY; i++) {
            CHECK_EQ(results[i], strlen(texts[i]));
            check_received(pairs[i].theirs, texts[i]);
            close_pair(pairs[i]);
        }
    }
}

TEST(what_is_sent_to_one_socket_keeps_its_order)
{
    struct pair pair = open_pair();
    ssize_t results[3];
    CHECK(add_text(batch_of_this_kernel, pair.ours, "one "));
    CHECK(add_text(batch_of_this_kernel, pair.ours, "after "));
    CHECK(add_text(batch_of_this_kernel, pair.ours, "another"));
    CHECK_EQ(hoop_send_batch_send(batch_of_this_kernel, results), 0);
    check_received(pair.theirs, "one after another");
    close_pair(pair);
}

TEST(small_buffers_are_joined)
{
    hoop_send_batch *batch = batch_of_this_kernel;
    struct pair one = open_pair(), other = open_pair();
    ssize_t results[2];
    struct iovec first[] = {buffer_of("head, "), buffer_of(""), buffer_of("body")};
    struct iovec second[] = {buffer_of("an"), buffer_of("swer")};
    CHECK(hoop_send_batch_add(batch, one.ours, first, 3));
    CHECK(hoop_send_batch_add(batch, other.ours, second, 2));
    CHECK_EQ(hoop_send_batch_send(batch, results), 0);
    CHECK_EQ(results[0], 10);
    CHECK_EQ(results[1], 6);
    check_received(one.theirs, "head, body");
    check_received(other.theirs, "answer");
    close_pair(one);
    close_pair(other);
}

TEST(what_cannot_be_joined_is_not_taken)
{
    hoop_send_batch *batch = batch_of_this_kernel;
    static char large[HOOP_NET_JOINED_MOST];
    struct pair pair = open_pair();
    struct iovec fits[] = {{large, sizeof(large) - 1}, {large, 1}};
    struct iovec too_much[] = {{large, sizeof(large)}, {large, 1}};
    CHECK(!hoop_send_batch_add(batch, pair.ours, too_much, 2));
    CHECK(!hoop_send_batch_add(batch, pair.ours, fits, 0));
    CHECK_EQ(hoop_send_batch_count(batch), 0);
    int taken = 0; /* until the room is full */
    while (hoop_send_batch_add(batch, pair.ours, fits, 2))
        taken++;
    CHECK_EQ(taken, HOOP_SEND_BATCH_ROOM / HOOP_NET_JOINED_MOST);
    CHECK(add_text(batch, pair.ours, "needs none"));
    hoop_send_batch_clear(batch);
    CHECK_EQ(hoop_send_batch_count(batch), 0);
    ssize_t results[1];
    CHECK_EQ(hoop_send_batch_send(batch, results), 0); /* of nothing */
    CHECK_EQ(recv(pair.theirs, large, 1, 0), -1);
    close_pair(pair);
}

/* Each hears of its own, and what fails stops none behind it. */
TEST(results_are_those_of_send)
{
    hoop_send_batch *batch = batch_of_this_kernel;
    struct pair good = open_pair(), full = open_pair(), ended = open_pair(), closed = open_pair(), last = open_pair();
    static char much[1 << 20];
    ssize_t filled = 0;
    for (ssize_t sent = 0; sent >= 0; sent = send(full.ours, much, sizeof(much), 0))
        filled += sent;
    CHECK(filled > 0);
    close(ended.theirs);
    close_pair(closed);
    struct iovec large = {much, sizeof(much)};
    ssize_t results[5];
    CHECK(add_text(batch, good.ours, "good"));
    CHECK(add_text(batch, full.ours, "full"));
    CHECK(add_text(batch, ended.ours, "ended"));
    CHECK(add_text(batch, closed.ours, "closed"));
    CHECK(hoop_send_batch_add(batch, last.ours, &large, 1));
    CHECK_EQ(hoop_send_batch_send(batch, results), 0);
    CHECK_EQ(results[0], 4);
    CHECK_EQ(results[1], -EAGAIN);
    CHECK_EQ(results[2], -EPIPE); /* and no SIGPIPE */
    CHECK_EQ(results[3], -EBADF);
    CHECK(results[4] > 0 && results[4] < (ssize_t)sizeof(much)); /* as much as there is room for */
    check_received(good.theirs, "good");
    close_pair(good);
    close_pair(full);
    close(ended.ours);
    close_pair(last);
}

#if HOOP_HAVE_IO_URING
/* As when a sandbox has been closed meanwhile. */
TEST(a_kernel_that_takes_no_more_leaves_all_to_the_caller)
{
    hoop_send_batch *batch = hoop_send_batch_open();
    REQUIRE(batch != NULL);
    struct pair pair = open_pair();
    ssize_t results[2] = {0, 0};
    char byte;
    close(batch->ring);
    CHECK(add_text(batch, pair.ours, "one"));
    CHECK(add_text(batch, pair.ours, "two"));
    CHECK_EQ(hoop_send_batch_send(batch, results), -EBADF);
    CHECK_EQ(results[0], -EAGAIN);
    CHECK_EQ(results[1], -EAGAIN);
    CHECK_EQ(hoop_send_batch_count(batch), 0);
    CHECK_EQ(atomic_load(batch->request_tail), 0); /* taken back */
    CHECK_EQ(recv(pair.theirs, &byte, 1, 0), -1);
    close_pair(pair);
    batch->ring = -1;
    hoop_send_batch_close(batch);
}

#endif

TEST(opening_without_memory_fails)
{
    alloc_fault_after(0);
    hoop_send_batch *batch = hoop_send_batch_open();
    alloc_fault_after(-1);
    CHECK(batch == NULL);
    hoop_send_batch_close(NULL);
}

int main(void)
{
    batch_of_this_kernel = hoop_send_batch_open();
    RUN(opening_without_memory_fails);
    if (batch_of_this_kernel != NULL) {
        RUN(each_socket_gets_its_own);
        RUN(what_is_sent_to_one_socket_keeps_its_order);
        RUN(small_buffers_are_joined);
        RUN(what_cannot_be_joined_is_not_taken);
        RUN(results_are_those_of_send);
#if HOOP_HAVE_IO_URING
        RUN(a_kernel_that_takes_no_more_leaves_all_to_the_caller);
#endif
    }
    if (batch_of_this_kernel == NULL)
        fputs("no batches of sends here\n", stderr);
    hoop_send_batch_close(batch_of_this_kernel);
    return check_finish();
}
