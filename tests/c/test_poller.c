/* The poller's edge cases, each on every back end of this build. Nothing here sleeps. test_poller_wait.c has those of
 * waiting itself. */
#include "poller_fixture.h"
#include "poller_internal.h"

#include <arpa/inet.h>
#include <sys/wait.h>

TEST(an_unknown_back_end_is_not_supported)
{
    hoop_poller poller;
    CHECK_EQ(hoop_poller_open(&poller, "no such thing"), -ENOTSUP);
    hoop_poller_close(&poller);
    CHECK(hoop_poller_backend_at(-1) == NULL);
    CHECK(hoop_poller_backend_at(100) == NULL);
}

TEST(the_first_back_end_is_the_default)
{
    hoop_poller poller;
    REQUIRE(hoop_poller_open(&poller, NULL) == 0);
    CHECK(poller.backend == hoop_poller_backend_at(0));
    hoop_poller_close(&poller);
    hoop_poller_close(&poller);
    CHECK(poller.backend == NULL);
}

POLLER_TEST(a_closed_poller_refuses)
{
    hoop_event event;
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    hoop_poller_close(poller);
    CHECK_EQ(hoop_poller_generation(poller, pair[0]), 0);
    CHECK_EQ(hoop_poller_add(poller, pair[0], HOOP_READABLE), -EBADF);
    CHECK_EQ(hoop_poller_set(poller, pair[0], HOOP_READABLE), -ENOENT);
    CHECK_EQ(hoop_poller_rearm(poller, pair[0], HOOP_READABLE), -ENOENT);
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), -ENOENT);
    CHECK_EQ(hoop_poller_rebuild(poller), -EBADF);
    CHECK_EQ(hoop_poller_wait(poller, &event, 1, -1), -EBADF);
}

TEST(the_poller_is_closed_on_exec)
{
    hoop_poller poller = open_poller();
    if (poller.backend_fd >= 0)
        CHECK(fcntl(poller.backend_fd, F_GETFD) & FD_CLOEXEC);
    hoop_poller_close(&poller);
}

POLLER_TEST(a_bad_descriptor_is_refused_by_add)
{
    close(pair[1]);
    CHECK_EQ(hoop_poller_add(poller, -1, HOOP_READABLE), -EBADF);
    CHECK_EQ(hoop_poller_add(poller, pair[1], HOOP_READABLE), -EBADF);
    CHECK_EQ(hoop_poller_add(poller, pair[1], 0), -EBADF);
    CHECK_EQ(hoop_poller_add(poller, INT32_MAX, HOOP_READABLE), -EBADF);
    CHECK_EQ(hoop_poller_add(poller, INT32_MAX, 0), -EBADF);
    CHECK(poller->slot_count <= 1024); /* a made-up number costs no table */
    CHECK_EQ(poller->live_count, 0);
    CHECK_EQ(hoop_poller_generation(poller, pair[1]), 0);
    CHECK_EQ(hoop_poller_set(poller, pair[1], HOOP_READABLE), -ENOENT);
    CHECK_EQ(hoop_poller_add(poller, pair[0], HOOP_READABLE), 0);
    CHECK_EQ(hoop_poller_add(poller, pair[0], HOOP_READABLE), -EEXIST);
    CHECK_EQ(poller->live_count, 1);
}

POLLER_TEST(a_refused_add_leaves_nothing_behind)
{
    if (!backend_is("epoll"))
        return;
    char path[] = "/tmp/hoop_test_poller_XXXXXX";
    int file = mkstemp(path);
    REQUIRE(file >= 0);
    unlink(path);
    CHECK_EQ(hoop_poller_add(poller, file, HOOP_READABLE), -EPERM);
    CHECK_EQ(hoop_poller_generation(poller, file), 0);
    CHECK_EQ(poller->live_count, 0);
    /* With interest 0 the kernel is not asked; it refuses when it is. */
    CHECK_EQ(hoop_poller_add(poller, file, 0), 0);
    CHECK_EQ(hoop_poller_set(poller, file, HOOP_WRITABLE), 0);
    CHECK_EQ(look(poller, file), HOOP_FAILED);
    CHECK_EQ(look(poller, file), 0);
    /* The number is a socket the next time. */
    REQUIRE(dup2(pair[0], file) == file);
    CHECK_EQ(hoop_poller_rearm(poller, file, HOOP_WRITABLE), 0);
    CHECK_EQ(look(poller, file), HOOP_WRITABLE);
    close(pair[0]);
    close(pair[1]);
    close(file);
}

POLLER_TEST(readiness_is_level_triggered)
{
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    CHECK_EQ(look(poller, pair[0]), 0);
    send_byte(pair[1]);
    CHECK_EQ(look(poller, pair[0]), HOOP_READABLE);
    CHECK_EQ(look(poller, pair[0]), HOOP_READABLE);
    drain(pair[0]);
    CHECK_EQ(look(poller, pair[0]), 0);
}

POLLER_TEST(both_directions_are_one_event)
{
    hoop_event events[ROOM];
    send_byte(pair[0]);
    send_byte(pair[1]);
    for (int i = 0; i < 2; i++)
        REQUIRE(hoop_poller_add(poller, pair[i], HOOP_READABLE | HOOP_WRITABLE) == 0);
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, -1), 2);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(events[i].events, HOOP_READABLE | HOOP_WRITABLE);
        CHECK_EQ(events[i].error, 0);
        CHECK_EQ(events[i].generation, hoop_poller_generation(poller, events[i].fd));
    }
    CHECK(events[0].fd != events[1].fd);
    fill(pair[0]);
    CHECK_EQ(look(poller, pair[0]), HOOP_READABLE);
}

static int applied; /* calls of the back end's apply */
static const hoop_poller_backend *counted;

static int counting_apply(hoop_poller *poller, int fd, uint32_t generation, unsigned from, unsigned to)
{
    applied++;
    return counted->apply(poller, fd, generation, from, to);
}

POLLER_TEST(what_is_taken_back_before_the_wait_costs_no_call)
{
    counted = poller->backend;
    hoop_poller_backend counting = *counted;
    counting.apply = counting_apply;
    poller->backend = &counting;
    applied = 0;
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    CHECK_EQ(applied, 1);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(hoop_poller_set(poller, pair[0], 0), 0);
        CHECK_EQ(hoop_poller_set(poller, pair[0], HOOP_READABLE), 0);
    }
    CHECK_EQ(look(poller, pair[0]), 0);
    CHECK_EQ(applied, 1);
    CHECK_EQ(hoop_poller_set(poller, pair[0], 0), 0);
    CHECK_EQ(hoop_poller_interest(poller, pair[0]), 0);
    CHECK_EQ(applied, 1);
    CHECK_EQ(look(poller, pair[0]), 0);
    CHECK_EQ(applied, 2);
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), 0); /* the kernel knows nothing of it already */
    CHECK_EQ(applied, 2);
}

POLLER_TEST(an_empty_interest_is_silent_when_the_peer_is_gone)
{
    hoop_event events[ROOM];
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    REQUIRE(hoop_poller_set(poller, pair[0], 0) == 0);
    close(pair[1]);
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, 0), 0);
    check_quiet_wait(poller);
    REQUIRE(hoop_poller_set(poller, pair[0], HOOP_READABLE) == 0);
    CHECK_EQ(look(poller, pair[0]), HOOP_READABLE);
    REQUIRE(hoop_poller_set(poller, pair[0], HOOP_WRITABLE) == 0);
    CHECK_EQ(look(poller, pair[0]), HOOP_WRITABLE); /* as every direction asked for */
}

/* A pipe says only EPOLLHUP to its reader and, when full, only EPOLLERR to its writer. */
TEST(a_pipe_whose_other_end_is_gone_is_ready)
{
    static const char zeros[4096];
    hoop_poller poller = open_poller();
    int first[2], second[2];
    REQUIRE(pipe(first) == 0 && pipe(second) == 0);
    REQUIRE(hoop_net_set_nonblocking(second[1]) == 0);
    while (write(second[1], zeros, sizeof(zeros)) > 0)
        continue;
    REQUIRE(hoop_poller_add(&poller, first[0], HOOP_READABLE) == 0);
    REQUIRE(hoop_poller_add(&poller, second[1], HOOP_WRITABLE) == 0);
    CHECK_EQ(look(&poller, first[0]), 0);
    CHECK_EQ(look(&poller, second[1]), 0);
    close(first[1]);
    close(second[0]);
    CHECK_EQ(look(&poller, first[0]), HOOP_READABLE);
    CHECK_EQ(look(&poller, second[1]), HOOP_WRITABLE);
    close(first[0]);
    close(second[1]);
    hoop_poller_close(&poller);
}

TEST(rearm_watches_the_new_owner_of_a_number)
{
    hoop_poller poller = open_poller();
    int first[2], second[2];
    open_pair(first);
    open_pair(second);
    REQUIRE(hoop_poller_add(&poller, first[0], HOOP_READABLE) == 0);
    CHECK_EQ(look(&poller, first[0]), 0);
    uint32_t generation = hoop_poller_generation(&poller, first[0]);
    REQUIRE(dup2(second[0], first[0]) == first[0]); /* closes, and reuses the number */
    CHECK_EQ(hoop_poller_rearm(&poller, first[0], HOOP_READABLE), 0);
    CHECK(hoop_poller_generation(&poller, first[0]) != generation);
    CHECK_EQ(look(&poller, first[0]), 0);
    send_byte(second[1]);
    CHECK_EQ(look(&poller, first[0]), HOOP_READABLE);
    /* And again without a change of owner. */
    CHECK_EQ(hoop_poller_rearm(&poller, first[0], HOOP_READABLE | HOOP_WRITABLE), 0);
    CHECK_EQ(look(&poller, first[0]), HOOP_READABLE | HOOP_WRITABLE);
    CHECK_EQ(hoop_poller_rearm(&poller, first[0], HOOP_WRITABLE), 0);
    CHECK_EQ(look(&poller, first[0]), HOOP_WRITABLE);
    CHECK_EQ(hoop_poller_rearm(&poller, first[0], 0), 0);
    CHECK_EQ(look(&poller, first[0]), 0);
    close(first[0]);
    CHECK_EQ(hoop_poller_rearm(&poller, first[0], HOOP_READABLE), -EBADF);
    CHECK_EQ(hoop_poller_generation(&poller, first[0]), 0);
    CHECK_EQ(hoop_poller_rearm(&poller, first[0], HOOP_READABLE), -ENOENT);
    CHECK_EQ(poller.live_count, 0);
    close(first[1]);
    close(second[0]);
    close(second[1]);
    hoop_poller_close(&poller);
}

TEST(set_reaches_the_new_owner_of_a_number)
{
    hoop_poller poller = open_poller();
    int first[2], second[2];
    open_pair(first);
    open_pair(second);
    REQUIRE(hoop_poller_add(&poller, first[0], HOOP_READABLE) == 0);
    REQUIRE(dup2(second[0], first[0]) == first[0]);
    send_byte(second[1]);
    CHECK_EQ(hoop_poller_set(&poller, first[0], HOOP_READABLE | HOOP_WRITABLE), 0);
    CHECK_EQ(look(&poller, first[0]), HOOP_READABLE | HOOP_WRITABLE);
    close(first[0]);
    close(first[1]);
    close(second[0]);
    close(second[1]);
    hoop_poller_close(&poller);
}

POLLER_TEST(a_forgotten_number_can_be_added_again)
{
    int spare = dup(pair[0]);
    REQUIRE(spare >= 0);
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    uint32_t generation = hoop_poller_generation(poller, pair[0]);
    /* The same file comes back under the number: epoll has kept the registration, and ADD says EEXIST. */
    close(pair[0]);
    hoop_poller_forget(poller, pair[0]);
    CHECK_EQ(hoop_poller_generation(poller, pair[0]), 0);
    hoop_poller_forget(poller, pair[0]);
    hoop_poller_forget(poller, -1);
    REQUIRE(dup2(spare, pair[0]) == pair[0]);
    CHECK_EQ(hoop_poller_add(poller, pair[0], HOOP_WRITABLE), 0);
    CHECK(hoop_poller_generation(poller, pair[0]) != generation);
    CHECK_EQ(look(poller, pair[0]), HOOP_WRITABLE);
    send_byte(pair[1]);
    CHECK_EQ(look(poller, pair[0]), HOOP_WRITABLE);
    close(spare);
}

TEST(rebuild_ends_stale_events)
{
    hoop_poller poller = open_poller();
    hoop_event events[ROOM];
    int pair[2], other[2];
    open_pair(pair);
    open_pair(other);
    REQUIRE(hoop_poller_add(&poller, pair[0], HOOP_READABLE) == 0);
    REQUIRE(hoop_poller_add(&poller, other[0], HOOP_READABLE | HOOP_WRITABLE) == 0);
    int spare = dup(pair[0]);
    REQUIRE(spare >= 0);
    close(pair[0]);
    CHECK_EQ(hoop_poller_remove(&poller, pair[0]), 0); /* too late for epoll */
    send_byte(pair[1]);
    int stale = 0;
    for (int i = 0; i < 3; i++) {
        int count = hoop_poller_wait(&poller, events, ROOM, 0);
        for (int j = 0; j < count; j++)
            stale += events[j].generation != hoop_poller_generation(&poller, events[j].fd);
    }
    CHECK_EQ(stale, backend_is("epoll") ? 3 : 0);
    uint32_t generation = hoop_poller_generation(&poller, other[0]);
    CHECK_EQ(hoop_poller_rebuild(&poller), 0);
    CHECK_EQ(hoop_poller_generation(&poller, other[0]), generation);
    CHECK_EQ(hoop_poller_wait(&poller, events, ROOM, 0), 1);
    CHECK_EQ(events[0].fd, other[0]);
    CHECK_EQ(events[0].generation, generation);
    CHECK_EQ(events[0].events, HOOP_WRITABLE);
    /* One that is gone by now is reported, the others are watched. */
    close(other[0]);
    CHECK_EQ(hoop_poller_rebuild(&poller), 0);
    CHECK_EQ(look(&poller, other[0]), HOOP_FAILED);
    CHECK_EQ(look(&poller, other[0]), 0);
    close(spare);
    close(pair[1]);
    close(other[1]);
    hoop_poller_close(&poller);
}

POLLER_TEST(a_refused_wish_is_one_event_and_ends_the_interest)
{
    hoop_event events[ROOM];
    REQUIRE(hoop_poller_add(poller, pair[0], 0) == 0);
    REQUIRE(hoop_poller_add(poller, pair[1], HOOP_WRITABLE) == 0);
    close(pair[0]);
    REQUIRE(hoop_poller_set(poller, pair[0], HOOP_READABLE) == 0);
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, -1), 2); /* beside what is ready, and without blocking */
    CHECK_EQ(events[0].fd, pair[0]);
    CHECK_EQ(events[0].events, HOOP_FAILED);
    CHECK_EQ(events[0].error, EBADF);
    CHECK_EQ(events[0].generation, hoop_poller_generation(poller, pair[0]));
    CHECK_EQ(events[1].fd, pair[1]);
    CHECK_EQ(hoop_poller_interest(poller, pair[0]), 0);
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, -1), 1);
    CHECK_EQ(hoop_poller_set(poller, pair[0], HOOP_WRITABLE), 0); /* the slot is live, and may try again */
    CHECK_EQ(look(poller, pair[0]), HOOP_FAILED);
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), 0);
}

POLLER_TEST(a_refused_wish_does_not_wait)
{
    hoop_event events[ROOM];
    REQUIRE(hoop_poller_add(poller, pair[0], 0) == 0);
    close(pair[0]);
    REQUIRE(hoop_poller_set(poller, pair[0], HOOP_READABLE) == 0);
    int64_t start_ns = hoop_clock_ns();
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, 10 * HOOP_NS_PER_SECOND), 1);
    CHECK(hoop_clock_ns() - start_ns < 9 * HOOP_NS_PER_SECOND);
}

TEST(refused_wishes_wait_for_room)
{
    hoop_poller poller = open_poller();
    hoop_event event;
    int pairs[4][2];
    uint32_t seen = 0;
    for (int i = 0; i < 4; i++) {
        open_pair(pairs[i]);
        REQUIRE(hoop_poller_add(&poller, pairs[i][0], 0) == 0);
    }
    for (int i = 0; i < 4; i++) {
        close(pairs[i][0]);
        REQUIRE(hoop_poller_set(&poller, pairs[i][0], HOOP_READABLE) == 0);
    }
    for (int round = 0; round < 4; round++) {
        CHECK_EQ(hoop_poller_wait(&poller, &event, 1, -1), 1);
        CHECK_EQ(event.events, HOOP_FAILED);
        for (int i = 0; i < 4; i++) {
            if (event.fd == pairs[i][0])
                seen |= 1u << i;
        }
    }
    CHECK_EQ(seen, 15);
    CHECK_EQ(hoop_poller_wait(&poller, &event, 1, 0), 0);
    CHECK_EQ(hoop_poller_wait(&poller, &event, 0, 0), -EINVAL);
    for (int i = 0; i < 4; i++)
        close(pairs[i][1]);
    hoop_poller_close(&poller);
}

POLLER_TEST(a_wish_dies_with_its_registration)
{
    hoop_event events[ROOM];
    REQUIRE(hoop_poller_add(poller, pair[0], 0) == 0);
    REQUIRE(hoop_poller_set(poller, pair[0], HOOP_WRITABLE) == 0);
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), 0);
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, 0), 0);
    REQUIRE(hoop_poller_add(poller, pair[0], 0) == 0);
    REQUIRE(hoop_poller_set(poller, pair[0], HOOP_WRITABLE) == 0);
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), 0);
    REQUIRE(hoop_poller_add(poller, pair[0], 0) == 0); /* still on the dirty list from before */
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, 0), 0);
    REQUIRE(hoop_poller_set(poller, pair[0], HOOP_WRITABLE) == 0);
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, 0), 1);
}

POLLER_TEST(a_generation_outlives_its_registration)
{
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), -ENOENT);
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    uint32_t generation = hoop_poller_generation(poller, pair[0]);
    CHECK(generation != 0);
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), 0);
    CHECK_EQ(hoop_poller_generation(poller, pair[0]), 0);
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    CHECK(hoop_poller_generation(poller, pair[0]) != generation);
    close(pair[0]);
    CHECK_EQ(hoop_poller_remove(poller, pair[0]), 0); /* closed already: no error */
    poller->slots[pair[1]].generation = UINT32_MAX;
    REQUIRE(hoop_poller_add(poller, pair[1], HOOP_READABLE) == 0);
    CHECK_EQ(hoop_poller_generation(poller, pair[1]), 1); /* 0 stands for no registration */
}

POLLER_TEST(the_largest_generation_comes_back_whole)
{
    hoop_event events[ROOM];
    REQUIRE(hoop_poller_add(poller, pair[0], 0) == 0);
    poller->slots[pair[0]].generation = UINT32_MAX - 1;
    REQUIRE(hoop_poller_rearm(poller, pair[0], HOOP_WRITABLE) == 0);
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, 0), 1);
    CHECK_EQ(events[0].fd, pair[0]);
    CHECK_EQ(events[0].generation, UINT32_MAX);
}

POLLER_TEST(a_number_closed_behind_our_back_is_silent)
{
    for (int i = 0; i < 2; i++)
        REQUIRE(hoop_poller_add(poller, pair[i], HOOP_READABLE | HOOP_WRITABLE) == 0);
    close(pair[0]);
    close(pair[1]);
    check_quiet_wait(poller);
}

static int open_listener(void)
{
    struct sockaddr_in address;
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    REQUIRE(hoop_net_set_nonblocking(fd) == 0);
    REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    REQUIRE(listen(fd, 16) == 0);
    return fd;
}

static int connect_to(int listener)
{
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    REQUIRE(connect(fd, (struct sockaddr *)&address, length) == 0);
    return fd;
}

TEST(an_exclusive_listener_can_change_its_mind)
{
    static const unsigned wishes[] = {HOOP_READABLE, HOOP_READABLE | HOOP_EXCLUSIVE, 0, HOOP_READABLE | HOOP_EXCLUSIVE};
    hoop_poller poller = open_poller();
    int listener = open_listener();
    REQUIRE(hoop_poller_add(&poller, listener, HOOP_READABLE | HOOP_EXCLUSIVE) == 0);
    CHECK_EQ(hoop_poller_interest(&poller, listener), HOOP_READABLE | HOOP_EXCLUSIVE);
    CHECK_EQ(look(&poller, listener), 0);
    int client = connect_to(listener);
    CHECK_EQ(look(&poller, listener), HOOP_READABLE);
    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
        CHECK_EQ(hoop_poller_set(&poller, listener, wishes[i]), 0);
        CHECK_EQ(look(&poller, listener), wishes[i] & HOOP_READABLE);
    }
    CHECK_EQ(hoop_poller_rearm(&poller, listener, HOOP_READABLE), 0);
    CHECK_EQ(look(&poller, listener), HOOP_READABLE);
    CHECK_EQ(hoop_poller_rearm(&poller, listener, HOOP_READABLE | HOOP_EXCLUSIVE), 0);
    CHECK_EQ(look(&poller, listener), HOOP_READABLE);
    /* Known as exclusive to the kernel but not to us: ADD says EEXIST and MOD then EINVAL. */
    int spare = dup(listener);
    REQUIRE(spare >= 0 && close(listener) == 0);
    hoop_poller_forget(&poller, listener);
    REQUIRE(dup2(spare, listener) == listener);
    CHECK_EQ(hoop_poller_add(&poller, listener, HOOP_READABLE), 0);
    CHECK_EQ(look(&poller, listener), HOOP_READABLE);
    CHECK_EQ(hoop_poller_set(&poller, listener, HOOP_WRITABLE | HOOP_READABLE | HOOP_EXCLUSIVE), 0);
    CHECK_EQ(hoop_poller_interest(&poller, listener), HOOP_WRITABLE | HOOP_READABLE); /* it means nothing here */
    CHECK_EQ(look(&poller, listener), HOOP_READABLE);
    close(spare);
    close(client);
    close(listener);
    hoop_poller_close(&poller);
}

TEST(an_edge_is_told_once_though_nothing_is_read)
{
    hoop_poller poller = open_poller();
    int fds[2];
    open_pair(fds);
    REQUIRE(hoop_poller_add(&poller, fds[0], HOOP_READABLE | HOOP_EDGE) == 0);
    CHECK_EQ(look(&poller, fds[0]), 0);
    for (int i = 0; i < 3; i++) {
        REQUIRE(write(fds[1], "x", 1) == 1);
        CHECK_EQ(look(&poller, fds[0]), HOOP_READABLE);
        CHECK_EQ(look(&poller, fds[0]), hoop_poller_tells_edges(&poller) ? 0 : HOOP_READABLE);
    }
    CHECK_EQ(hoop_poller_rebuild(&poller), 0); /* what is there is told once more */
    CHECK_EQ(look(&poller, fds[0]), HOOP_READABLE);
    CHECK_EQ(look(&poller, fds[0]), hoop_poller_tells_edges(&poller) ? 0 : HOOP_READABLE);
    CHECK_EQ(hoop_poller_set(&poller, fds[0], HOOP_READABLE), 0);
    CHECK_EQ(look(&poller, fds[0]), HOOP_READABLE);
    CHECK_EQ(look(&poller, fds[0]), HOOP_READABLE);
    CHECK_EQ(hoop_poller_set(&poller, fds[0], HOOP_READABLE | HOOP_WRITABLE | HOOP_EDGE), 0);
    CHECK_EQ(hoop_poller_interest(&poller, fds[0]), HOOP_READABLE | HOOP_WRITABLE); /* it means nothing here */
    close(fds[0]);
    close(fds[1]);
    hoop_poller_close(&poller);
}

TEST(a_poller_can_watch_a_poller)
{
    hoop_poller inner = open_poller();
    if (inner.backend_fd < 0) {
        hoop_poller_close(&inner);
        return;
    }
    hoop_poller outer = open_poller();
    int pair[2];
    open_pair(pair);
    /* A hint, given up for an epoll. */
    CHECK_EQ(hoop_poller_add(&outer, inner.backend_fd, HOOP_READABLE | HOOP_EXCLUSIVE), 0);
    CHECK_EQ(look(&outer, inner.backend_fd), 0);
    REQUIRE(hoop_poller_add(&inner, pair[0], HOOP_WRITABLE) == 0);
    CHECK_EQ(look(&outer, inner.backend_fd), HOOP_READABLE);
    close(pair[0]);
    close(pair[1]);
    hoop_poller_close(&outer);
    hoop_poller_close(&inner);
}

POLLER_TEST(a_child_that_closes_the_poller_disturbs_nothing)
{
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_WRITABLE) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        hoop_poller own;
        hoop_event events[ROOM];
        hoop_poller_close(poller);
        bool works = hoop_poller_open(&own, backend_name) == 0 && hoop_poller_add(&own, pair[0], HOOP_WRITABLE) == 0 &&
                     hoop_poller_wait(&own, events, ROOM, -1) == 1;
        hoop_poller_close(&own);
        _exit(works ? 0 : 1);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(look(poller, pair[0]), HOOP_WRITABLE);
}

TEST(without_memory_nothing_is_remembered)
{
    int pair[2];
    open_pair(pair);
    int high = fcntl(pair[0], F_DUPFD, 300);
    REQUIRE(high >= 300);
    int refused = 0;
    bool done = false;
    for (long room = 0; room < 20 && !done; room++) {
        hoop_poller poller;
        alloc_fault_after(room);
        int result = hoop_poller_open(&poller, backend_name);
        for (int i = 0; i < 2 && result == 0; i++) {
            result = hoop_poller_add(&poller, i == 0 ? pair[1] : high, HOOP_WRITABLE);
            if (result < 0)
                CHECK_EQ(hoop_poller_generation(&poller, i == 0 ? pair[1] : high), 0);
        }
        int rebuilt = result == 0 ? hoop_poller_rebuild(&poller) : result;
        alloc_fault_after(-1);
        if (result == 0)
            CHECK_EQ(look(&poller, high), HOOP_WRITABLE); /* also when rebuild had to give up */
        done = rebuilt == 0;
        if (!done) {
            CHECK_EQ(rebuilt, -ENOMEM);
            refused++;
        }
        hoop_poller_close(&poller);
    }
    CHECK(done);
    CHECK(refused >= 4);
    close(high);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    RUN(an_unknown_back_end_is_not_supported);
    RUN(the_first_back_end_is_the_default);
    RUN_ON_EVERY_BACKEND(a_closed_poller_refuses);
    RUN_ON_EVERY_BACKEND(the_poller_is_closed_on_exec);
    RUN_ON_EVERY_BACKEND(a_bad_descriptor_is_refused_by_add);
    RUN_ON_EVERY_BACKEND(a_refused_add_leaves_nothing_behind);
    RUN_ON_EVERY_BACKEND(readiness_is_level_triggered);
    RUN_ON_EVERY_BACKEND(both_directions_are_one_event);
    RUN_ON_EVERY_BACKEND(what_is_taken_back_before_the_wait_costs_no_call);
    RUN_ON_EVERY_BACKEND(an_empty_interest_is_silent_when_the_peer_is_gone);
    RUN_ON_EVERY_BACKEND(a_pipe_whose_other_end_is_gone_is_ready);
    RUN_ON_EVERY_BACKEND(rearm_watches_the_new_owner_of_a_number);
    RUN_ON_EVERY_BACKEND(set_reaches_the_new_owner_of_a_number);
    RUN_ON_EVERY_BACKEND(a_forgotten_number_can_be_added_again);
    RUN_ON_EVERY_BACKEND(rebuild_ends_stale_events);
    RUN_ON_EVERY_BACKEND(a_refused_wish_is_one_event_and_ends_the_interest);
    RUN_ON_EVERY_BACKEND(a_refused_wish_does_not_wait);
    RUN_ON_EVERY_BACKEND(refused_wishes_wait_for_room);
    RUN_ON_EVERY_BACKEND(a_wish_dies_with_its_registration);
    RUN_ON_EVERY_BACKEND(a_generation_outlives_its_registration);
    RUN_ON_EVERY_BACKEND(the_largest_generation_comes_back_whole);
    RUN_ON_EVERY_BACKEND(a_number_closed_behind_our_back_is_silent);
    RUN_ON_EVERY_BACKEND(an_exclusive_listener_can_change_its_mind);
    RUN_ON_EVERY_BACKEND(an_edge_is_told_once_though_nothing_is_read);
    RUN_ON_EVERY_BACKEND(a_poller_can_watch_a_poller);
    RUN_ON_EVERY_BACKEND(a_child_that_closes_the_poller_disturbs_nothing);
    RUN_ON_EVERY_BACKEND(without_memory_nothing_is_remembered);
    return check_finish();
}
