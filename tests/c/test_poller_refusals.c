/* What the kernel refuses, and what a woken process passes on: limits that were lowered later, waiters that do not
 * accept. */
#include "poller_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { MANY = 40, DEADLINE_MS = 20000 };

/* Runs what changes the process's limits in a child; it exits with 0 if that returns true. */
static void check_in_child(bool (*work)(void))
{
    fflush(NULL);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(work() ? 0 : 1);
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static bool lower_limit(rlim_t limit)
{
    struct rlimit limits;
    if (getrlimit(RLIMIT_NOFILE, &limits) < 0)
        return false;
    limits.rlim_cur = limit;
    return setrlimit(RLIMIT_NOFILE, &limits) == 0;
}

/* joyent/libuv#1189 */
static bool waits_beyond_the_limit(void)
{
    hoop_poller poller;
    hoop_event events[ROOM];
    int pairs[MANY][2];
    if (hoop_poller_open(&poller, backend_name) < 0)
        return false;
    for (int i = 0; i < MANY; i++) {
        open_pair(pairs[i]);
        if (hoop_poller_add(&poller, pairs[i][0], HOOP_READABLE) < 0)
            return false;
    }
    if (!lower_limit(8) || hoop_poller_wait(&poller, events, ROOM, HOOP_NS_PER_MS) != 0)
        return false;
    send_byte(pairs[MANY / 2][1]);
    if (hoop_poller_wait(&poller, events, ROOM, -1) != 1 || events[0].fd != pairs[MANY / 2][0] ||
        events[0].events != HOOP_READABLE)
        return false;
    drain(pairs[MANY / 2][0]);
    /* Another interest, a hang-up, and a number that is closed behind its back. */
    hoop_poller_set(&poller, pairs[0][0], HOOP_WRITABLE);
    close(pairs[1][1]);
    close(pairs[2][0]);
    int count = 0;
    for (int i = 0; i < 2; i++) /* the closed number may take a look of its own */
        count = hoop_poller_wait(&poller, events, ROOM, i == 0 ? 0 : -1);
    bool is_right = count == 2;
    for (int i = 0; i < count; i++) {
        is_right = is_right && ((events[i].fd == pairs[0][0] && events[i].events == HOOP_WRITABLE) ||
                                (events[i].fd == pairs[1][0] && (events[i].events & HOOP_READABLE)));
    }
    hoop_poller_close(&poller);
    return is_right;
}

TEST(more_descriptors_than_the_limit_allows_can_be_waited_for)
{
    check_in_child(waits_beyond_the_limit);
}

static bool blocks_beyond_the_limit(void)
{
    hoop_poller poller;
    int pairs[MANY][2];
    if (hoop_poller_open(&poller, backend_name) < 0)
        return false;
    for (int i = 0; i < MANY; i++) {
        open_pair(pairs[i]);
        if (hoop_poller_add(&poller, pairs[i][0], HOOP_READABLE) < 0)
            return false;
    }
    if (!lower_limit(8))
        return false;
    check_quiet_wait(&poller);
    hoop_poller_close(&poller);
    return check_finish() == 0;
}

TEST(a_wait_beyond_the_limit_leaves_the_processor_alone)
{
    check_in_child(blocks_beyond_the_limit);
}

/* One of two processes that sleep until the listener has a connection: it accepts or, if not `accepting`, leaves and
 * hands on. Tells which it was. */
static void wait_as_worker(int listener, bool accepting, int tell)
{
    hoop_poller poller;
    hoop_event events[ROOM];
    struct sockaddr_storage peer;
    socklen_t length;
    if (hoop_poller_open(&poller, backend_name) < 0 ||
        hoop_poller_add(&poller, listener, HOOP_READABLE | HOOP_EXCLUSIVE) < 0 || write(tell, "r", 1) != 1)
        _exit(1);
    if (hoop_poller_wait(&poller, events, ROOM, -1) != 1 || events[0].fd != listener ||
        (events[0].events & HOOP_READABLE) == 0)
        _exit(1);
    if (accepting && hoop_net_accept(listener, &peer, &length) < 0)
        _exit(1);
    hoop_poller_remove(&poller, listener);
    if (!accepting)
        (void)hoop_net_hand_on(listener);
    _exit(write(tell, accepting ? "a" : "h", 1) == 1 ? 0 : 1);
}

static char next_letter(int fd) /* 0 when none comes */
{
    struct pollfd entry = {.fd = fd, .events = POLLIN, .revents = 0};
    char letter = 0;
    return poll(&entry, 1, DEADLINE_MS) == 1 && read(fd, &letter, 1) == 1 ? letter : 0;
}

/* puma#3934, libuv#1111. */
TEST(what_one_waiter_hands_on_wakes_the_next)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    pid_t children[2];
    int tell[2];
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(listener >= 0 && hoop_net_set_nonblocking(listener) == 0);
    REQUIRE(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 8) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    REQUIRE(pipe(tell) == 0);
    for (int i = 0; i < 2; i++) { /* the first to come is the first to be woken */
        fflush(NULL);
        children[i] = fork();
        REQUIRE(children[i] >= 0);
        if (children[i] == 0)
            wait_as_worker(listener, i == 1, tell[1]);
        CHECK_EQ(next_letter(tell[0]), 'r');
    }
    int client = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(client >= 0 && connect(client, (struct sockaddr *)&address, length) == 0);
    char letter = next_letter(tell[0]);
    if (letter == 'h')
        letter = next_letter(tell[0]);
    CHECK_EQ(letter, 'a');
    for (int i = 0; i < 2; i++) {
        if (letter != 'a')
            kill(children[i], SIGKILL);
    }
    if (letter == 'a') { /* where all were woken, the first may have slept on */
        int second = socket(AF_INET, SOCK_STREAM, 0);
        REQUIRE(second >= 0 && connect(second, (struct sockaddr *)&address, length) == 0);
        close(second);
    }
    for (int i = 0; i < 2; i++)
        REQUIRE(waitpid(children[i], NULL, 0) == children[i]);
    close(client);
    close(listener);
    close(tell[0]);
    close(tell[1]);
}

TEST(handing_on_is_for_listening_tcp_sockets)
{
    int pair[2];
    open_pair(pair);
    CHECK_EQ(hoop_net_hand_on(pair[0]), -EOPNOTSUPP);
    CHECK_EQ(hoop_net_hand_on(-1), -EOPNOTSUPP);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    RUN_ON_EVERY_BACKEND(more_descriptors_than_the_limit_allows_can_be_waited_for);
    RUN_ON_EVERY_BACKEND(a_wait_beyond_the_limit_leaves_the_processor_alone);
    RUN_ON_EVERY_BACKEND(what_one_waiter_hands_on_wakes_the_next);
    RUN(handing_on_is_for_listening_tcp_sockets);
    return check_finish();
}
