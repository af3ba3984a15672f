/* poller_fixture.h: what the poller's tests share: connected pairs, and one run of a test for each back end. */
#ifndef HOOP_TESTS_POLLER_FIXTURE_H
#define HOOP_TESTS_POLLER_FIXTURE_H

#include "check.h"
#include "clock.h"
#include "net.h"
#include "poller.h"
#include "poller_internal.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROOM 64 /* events that a test's wait can hold */

static const char *backend_name; /* the one under test */

static inline bool backend_is(const char *name)
{
    return strcmp(backend_name, name) == 0;
}

static inline void run_on_every_backend(const char *name, void (*test)(void))
{
    for (int i = 0; hoop_poller_backend_at(i) != NULL; i++) {
        char label[128];
        backend_name = hoop_poller_backend_at(i)->name;
        snprintf(label, sizeof(label), "%s[%s]", name, backend_name);
        check_run(label, test);
    }
}
#define RUN_ON_EVERY_BACKEND(name) run_on_every_backend(#name, name)

static inline hoop_poller open_poller(void)
{
    hoop_poller poller;
    REQUIRE(hoop_poller_open(&poller, backend_name) == 0);
    return poller;
}

/* Two connected, non-blocking stream sockets. */
static inline void open_pair(int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    REQUIRE(hoop_net_set_nonblocking(pair[0]) == 0);
    REQUIRE(hoop_net_set_nonblocking(pair[1]) == 0);
}

/* A test on a poller and a connected pair, `poller` and `pair`. It may close them; what it leaves open is closed
 * here. */
#define POLLER_TEST(name)                                          \
    static void name##_on(hoop_poller *poller, const int pair[2]); \
    TEST(name)                                                     \
    {                                                              \
        with_poller_and_pair(name##_on);                           \
    }                                                              \
    static void name##_on(hoop_poller *poller, const int pair[2])

static inline void with_poller_and_pair(void (*test)(hoop_poller *poller, const int pair[2]))
{
    hoop_poller poller = open_poller();
    int pair[2];
    open_pair(pair);
    test(&poller, pair);
    close(pair[0]);
    close(pair[1]);
    hoop_poller_close(&poller);
}

static inline void send_byte(int fd)
{
    REQUIRE(hoop_net_send(fd, "x", 1) == 1);
}

static inline void drain(int fd)
{
    char buffer[4096];
    while (hoop_net_recv(fd, buffer, sizeof(buffer)) > 0)
        continue;
}

static inline void fill(int fd) /* until the kernel takes no more */
{
    static const char zeros[4096];
    while (hoop_net_send(fd, zeros, sizeof(zeros)) > 0)
        continue;
}

/* What one wait without blocking says about fd: its events masked by interest; 0 for none or stale. */
static inline uint32_t look(hoop_poller *poller, int fd)
{
    hoop_event events[ROOM];
    int count = hoop_poller_wait(poller, events, ROOM, 0);
    uint32_t seen = 0;
    if (!CHECK(count >= 0))
        return 0;
    for (int i = 0; i < count; i++) {
        if (events[i].fd == fd && events[i].generation == hoop_poller_generation(poller, fd))
            seen |= events[i].events & (hoop_poller_interest(poller, fd) | HOOP_FAILED);
    }
    return seen;
}

/* A wait of 40 ms that finds nothing and leaves the processor alone meanwhile. */
static inline void check_quiet_wait(hoop_poller *poller)
{
    const int64_t wait_ns = 40 * HOOP_NS_PER_MS;
    hoop_event events[ROOM];
    clock_t before = clock();
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, wait_ns), 0);
    double used_s = (double)(clock() - before) / CLOCKS_PER_SEC;
    CHECK(used_s < (double)wait_ns / (double)HOOP_NS_PER_SECOND / 2);
}

#endif
