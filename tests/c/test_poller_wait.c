/* How the poller waits: timeouts, signals, fairness, and the ways of epoll to wait for less than a millisecond. */
#include "poller_fixture.h"
#include "poller_internal.h"

#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#if HOOP_HAVE_EPOLL
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

static void check_timeout(hoop_poller *poller, int64_t timeout_ns)
{
    hoop_event events[ROOM];
    int64_t start_ns = hoop_clock_ns();
    CHECK_EQ(hoop_poller_wait(poller, events, ROOM, timeout_ns), 0);
    int64_t passed_ns = hoop_clock_ns() - start_ns;
    if (!CHECK(passed_ns >= timeout_ns))
        fprintf(stderr, "%lld ns of %lld\n", (long long)passed_ns, (long long)timeout_ns);
    CHECK(passed_ns < timeout_ns + HOOP_NS_PER_SECOND);
}

POLLER_TEST(a_wait_is_never_short)
{
    static const int64_t timeouts_ns[] = {0, 1, 999, 50000, 700001, 999999, 1000000, 1000001, 2500000, 5000000};
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_READABLE) == 0);
    for (size_t i = 0; i < sizeof(timeouts_ns) / sizeof(timeouts_ns[0]); i++)
        check_timeout(poller, timeouts_ns[i]);
}

POLLER_TEST(long_waits_end_with_an_event)
{
    const int64_t day_ns = INT64_C(86400) * 1000000000;
    const int64_t timeouts_ns[] = {-1, INT64_MIN, INT64_MAX, day_ns, day_ns + 86400, 30 * day_ns + 1};
    hoop_event events[ROOM];
    REQUIRE(hoop_poller_add(poller, pair[0], HOOP_WRITABLE) == 0);
    for (size_t i = 0; i < sizeof(timeouts_ns) / sizeof(timeouts_ns[0]); i++)
        CHECK_EQ(hoop_poller_wait(poller, events, ROOM, timeouts_ns[i]), 1);
}

static void ignore_alarm(int number)
{
    (void)number;
}

TEST(a_signal_ends_the_wait)
{
    hoop_poller poller = open_poller();
    hoop_event events[ROOM];
    struct sigaction action, before;
    memset(&action, 0, sizeof(action));
    action.sa_handler = ignore_alarm;
    REQUIRE(sigaction(SIGALRM, &action, &before) == 0);
    /* Again and again, so that one that comes before the wait has begun does no harm. */
    struct itimerval every_ms = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    REQUIRE(setitimer(ITIMER_REAL, &every_ms, NULL) == 0);
    CHECK_EQ(hoop_poller_wait(&poller, events, ROOM, -1), -EINTR);
    CHECK_EQ(hoop_poller_wait(&poller, events, ROOM, 10 * HOOP_NS_PER_SECOND + 1), -EINTR);
    REQUIRE(setitimer(ITIMER_REAL, &never, NULL) == 0);
    REQUIRE(sigaction(SIGALRM, &before, NULL) == 0);
    hoop_poller_close(&poller);
}

TEST(a_small_array_starves_no_descriptor)
{
    enum { MANY = 40 };
    hoop_poller poller = open_poller();
    hoop_event events[3];
    int pairs[MANY][2];
    int seen[MANY] = {0};
    for (int i = 0; i < MANY; i++) {
        open_pair(pairs[i]);
        send_byte(pairs[i][1]);
        REQUIRE(hoop_poller_add(&poller, pairs[i][0], HOOP_READABLE | HOOP_WRITABLE) == 0);
    }
    /* Twice around: on kqueue a descriptor's two filters may take two places. */
    for (int round = 0; round < 2 * (MANY + 2) / 3; round++) {
        int count = hoop_poller_wait(&poller, events, 3, 0);
        CHECK(count > 0 && count <= 3);
        for (int i = 0; i < count; i++) {
            for (int j = 0; j < MANY; j++)
                seen[j] += events[i].fd == pairs[j][0];
        }
    }
    for (int i = 0; i < MANY; i++) {
        CHECK(seen[i] > 0);
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
    hoop_poller_close(&poller);
}

POLLER_TEST(large_numbers_have_slots)
{
    int high = fcntl(pair[0], F_DUPFD, 700);
    REQUIRE(high >= 700);
    REQUIRE(hoop_poller_add(poller, pair[1], HOOP_WRITABLE) == 0);
    REQUIRE(hoop_poller_add(poller, high, HOOP_WRITABLE) == 0);
    CHECK_EQ(look(poller, high), HOOP_WRITABLE);
    CHECK_EQ(look(poller, pair[1]), HOOP_WRITABLE);
    close(high);
}

#if HOOP_HAVE_EPOLL
TEST(every_way_of_epoll_to_wait)
{
    hoop_poller poller;
    hoop_event events[ROOM];
    int pair[2];
    backend_name = "epoll";
    for (int mode = HOOP_EPOLL_NANOSECONDS; mode <= HOOP_EPOLL_MILLISECONDS; mode++) {
        open_pair(pair);
        REQUIRE(hoop_poller_open(&poller, "epoll") == 0);
        REQUIRE(hoop_poller_epoll_force_wait(&poller, (hoop_epoll_wait_mode)mode) == 0);
        REQUIRE(hoop_poller_add(&poller, pair[0], HOOP_READABLE) == 0);
        check_timeout(&poller, 300001);
        check_timeout(&poller, 1);
        check_timeout(&poller, 1000000);
        check_timeout(&poller, 1700000);
        /* A timer that was left armed, then one that was left expired, does not end a later wait. */
        send_byte(pair[1]);
        CHECK_EQ(hoop_poller_wait(&poller, events, ROOM, 200001), 1);
        drain(pair[0]);
        check_timeout(&poller, 3000000);
        send_byte(pair[1]);
        CHECK_EQ(hoop_poller_wait(&poller, events, ROOM, 1), 1);
        CHECK_EQ(events[0].fd, pair[0]);
        drain(pair[0]);
        check_timeout(&poller, 0);
        check_timeout(&poller, 2000000);
        CHECK_EQ(hoop_poller_epoll_wait_mode(&poller), mode);
        hoop_poller_close(&poller);
        close(pair[0]);
        close(pair[1]);
    }
    REQUIRE(hoop_poller_open(&poller, "poll") == 0);
    CHECK_EQ(hoop_poller_epoll_force_wait(&poller, HOOP_EPOLL_TIMERFD), -ENOTSUP);
    hoop_poller_close(&poller);
}

/* Have the kernel answer `number` with `error` in this process from now on. False where that cannot be had. */
static bool refuse_system_call(long number, int error)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof(program) / sizeof(program[0]), .filter = program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static int wait_in_a_sandbox(int error, bool refuse_timer)
{
    hoop_poller poller;
    if (!refuse_system_call(441, error) || (refuse_timer && !refuse_system_call(SYS_timerfd_create, error)))
        return 0; /* no such sandbox here, nothing to see */
    REQUIRE(hoop_poller_open(&poller, "epoll") == 0);
    check_timeout(&poller, 300001);
    CHECK_EQ(hoop_poller_epoll_wait_mode(&poller), refuse_timer ? HOOP_EPOLL_MILLISECONDS : HOOP_EPOLL_TIMERFD);
    check_timeout(&poller, 700001);
    hoop_poller_close(&poller);
    return atomic_load(&check_failures_in_test) == 0 ? 0 : 1;
}

TEST(a_refusal_of_epoll_pwait2_is_remembered)
{
    static const int errors[] = {ENOSYS, EPERM};
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0)
            _exit(wait_in_a_sandbox(errors[i % 2], i >= 2));
        int status = -1;
        REQUIRE(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}
#endif

int main(void)
{
    RUN_ON_EVERY_BACKEND(a_wait_is_never_short);
    RUN_ON_EVERY_BACKEND(long_waits_end_with_an_event);
    RUN_ON_EVERY_BACKEND(a_signal_ends_the_wait);
    RUN_ON_EVERY_BACKEND(a_small_array_starves_no_descriptor);
    RUN_ON_EVERY_BACKEND(large_numbers_have_slots);
#if HOOP_HAVE_EPOLL
    RUN(every_way_of_epoll_to_wait);
    RUN(a_refusal_of_epoll_pwait2_is_remembered);
#endif
    return check_finish();
}
