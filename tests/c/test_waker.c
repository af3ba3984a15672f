#include "check.h"
#include "waker.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static bool is_readable(const hoop_waker *waker, int timeout_ms)
{
    struct pollfd watched = {.fd = waker->read_fd, .events = POLLIN};
    int count = poll(&watched, 1, timeout_ms);
    CHECK(count >= 0);
    return count == 1 && (watched.revents & POLLIN) != 0;
}

TEST(a_wake_makes_it_readable_until_drained)
{
    hoop_waker waker;
    REQUIRE(hoop_waker_open(&waker) == 0);
    CHECK(!is_readable(&waker, 0));
    CHECK(hoop_waker_drain(&waker) >= 0); /* nothing to drain is no error, and does not block */
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i <= round * 700; i++) /* more than one read of a pipe */
            CHECK_EQ(hoop_waker_wake(&waker), 0);
        CHECK(is_readable(&waker, 0));
        CHECK(is_readable(&waker, 0)); /* level, not edge */
        CHECK(hoop_waker_drain(&waker) >= 0);
        CHECK(!is_readable(&waker, 0));
    }
    hoop_waker_close(&waker);
}

TEST(a_wake_that_finds_it_full_succeeds)
{
    hoop_waker waker;
    REQUIRE(hoop_waker_open(&waker) == 0);
    if (waker.read_fd == waker.write_fd) {
        uint64_t most = UINT64_MAX - 1; /* eventfd(2): the next write would block */
        CHECK_EQ(write(waker.write_fd, &most, sizeof most), sizeof most);
    } else {
        char block[4096] = {0};
        while (write(waker.write_fd, block, sizeof block) > 0)
            continue;
        while (write(waker.write_fd, block, 1) > 0)
            continue;
        CHECK(errno == EAGAIN);
    }
    CHECK_EQ(hoop_waker_wake(&waker), 0);
    CHECK(is_readable(&waker, 0));
    CHECK(hoop_waker_drain(&waker) >= 0);
    CHECK(!is_readable(&waker, 0));
    CHECK_EQ(hoop_waker_wake(&waker), 0);
    CHECK(is_readable(&waker, 0));
    hoop_waker_close(&waker);
}

TEST(descriptors_are_nonblocking_and_close_on_exec)
{
    hoop_waker waker;
    REQUIRE(hoop_waker_open(&waker) == 0);
    const int fds[2] = {waker.read_fd, waker.write_fd};
    for (int i = 0; i < 2; i++) {
        CHECK((fcntl(fds[i], F_GETFL) & O_NONBLOCK) != 0);
        CHECK((fcntl(fds[i], F_GETFD) & FD_CLOEXEC) != 0);
    }
    hoop_waker_close(&waker);
}

TEST(close_is_idempotent_and_closes_both_ends)
{
    hoop_waker waker;
    REQUIRE(hoop_waker_open(&waker) == 0);
    hoop_waker copy = waker;
    hoop_waker_close(&waker);
    CHECK(waker.read_fd == -1 && waker.write_fd == -1);
    CHECK(fcntl(copy.read_fd, F_GETFD) == -1 && errno == EBADF);
    CHECK(fcntl(copy.write_fd, F_GETFD) == -1 && errno == EBADF);
    hoop_waker_close(&waker);
    CHECK_EQ(hoop_waker_wake(&waker), -EBADF);
    CHECK_EQ(hoop_waker_drain(&waker), -EBADF);
}

TEST(open_reports_that_descriptors_ran_out)
{
    struct rlimit before;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    hoop_waker waker = {.read_fd = 12345, .write_fd = 12345};
    int result = hoop_waker_open(&waker);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_EQ(result, -EMFILE);
    CHECK(waker.read_fd == -1 && waker.write_fd == -1);
    hoop_waker_close(&waker);
}

TEST(wake_leaves_errno_alone)
{
    hoop_waker waker;
    REQUIRE(hoop_waker_open(&waker) == 0);
    errno = EDOM;
    CHECK_EQ(hoop_waker_wake(&waker), 0);
    CHECK_EQ(errno, EDOM);
    hoop_waker_close(&waker);
    errno = EDOM;
    CHECK_EQ(hoop_waker_wake(&waker), -EBADF);
    CHECK_EQ(errno, EDOM);
}

static hoop_waker *signalled_waker;

static void wake_on_signal(int number)
{
    (void)number;
    (void)hoop_waker_wake(signalled_waker);
}

TEST(a_signal_handler_can_wake)
{
    hoop_waker waker;
    REQUIRE(hoop_waker_open(&waker) == 0);
    signalled_waker = &waker;
    struct sigaction action = {.sa_handler = wake_on_signal}, before;
    sigemptyset(&action.sa_mask);
    REQUIRE(sigaction(SIGUSR1, &action, &before) == 0);
    CHECK_EQ(raise(SIGUSR1), 0);
    CHECK(is_readable(&waker, 0));
    REQUIRE(sigaction(SIGUSR1, &before, NULL) == 0);
    hoop_waker_close(&waker);
}

static void *wake_from_thread(void *arg)
{
    CHECK_EQ(hoop_waker_wake(arg), 0);
    return NULL;
}

TEST(another_thread_ends_a_blocking_wait)
{
    hoop_waker waker;
    REQUIRE(hoop_waker_open(&waker) == 0);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, wake_from_thread, &waker) == 0);
    CHECK(is_readable(&waker, 10000));
    CHECK_EQ(pthread_join(thread, NULL), 0);
    hoop_waker_close(&waker);
}

int main(void)
{
    RUN(a_wake_makes_it_readable_until_drained);
    RUN(a_wake_that_finds_it_full_succeeds);
    RUN(descriptors_are_nonblocking_and_close_on_exec);
    RUN(close_is_idempotent_and_closes_both_ends);
    RUN(open_reports_that_descriptors_ran_out);
    RUN(wake_leaves_errno_alone);
    RUN(a_signal_handler_can_wake);
    RUN(another_thread_ends_a_blocking_wait);
    return check_finish();
}
