/* poller_fixture.h: what the poller's tests share: connected pairs, and one run of a test for each back end. */
#ifndef HOOP_TESTS_POLLER_FIXTURE_H
#define HOOP_TESTS_POLLER_FIXTURE_H

#include "check.h"
#include "clock.h"
#include "net.h"
#include "poller.h"

#include <fcntl.h>
#include <string.h>
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

#endif
