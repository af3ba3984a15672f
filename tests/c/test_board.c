#include "board.h"
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static hoop_meter meter;
static hoop_board_reading reading;

static void look(hoop_board_writer *writer, int64_t now_ns)
{
    hoop_meter_looked(&meter, now_ns);
    hoop_board_tell_look(writer, &meter, now_ns, 0);
}

TEST(a_new_board_is_empty)
{
    hoop_board board;
    REQUIRE(hoop_board_open(&board, 3) == 0);
    CHECK_EQ(board.count, 3);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ((uintptr_t)&board.places[i] % HOOP_BOARD_ALIGNMENT, 0);
        hoop_board_read(&board.places[i], &reading);
        CHECK(!reading.is_running && !reading.is_torn);
        CHECK_EQ(reading.pid + reading.requests + reading.lag.count, 0);
        CHECK_EQ(reading.busy_since_ns, 0);
        for (int figure = 0; figure < HOOP_BOARD_FIGURES; figure++)
            CHECK_EQ(reading.figures[figure], 0);
    }
    hoop_board_close(&board);
    hoop_board_close(&board);
    CHECK(board.memory == NULL);
}

TEST(sizes_that_no_board_has)
{
    hoop_board board;
    CHECK_EQ(hoop_board_open(&board, 0), -EINVAL);
    CHECK_EQ(hoop_board_open(&board, -1), -EINVAL);
    CHECK_EQ(hoop_board_open(&board, HOOP_BOARD_MOST_PLACES + 1), -EINVAL);
    hoop_board_close(&board);
}

TEST(a_turn_shows_while_it_lasts_and_afterwards)
{
    hoop_board board;
    hoop_board_writer writer = {.place = NULL};
    REQUIRE(hoop_board_open(&board, 2) == 0);
    hoop_meter_reset(&meter, 0);
    hoop_board_attach(&writer, &board.places[1], &meter, 900);
    hoop_board_read(&board.places[1], &reading);
    CHECK_EQ(reading.pid, getpid());
    CHECK(!reading.is_running);
    CHECK_EQ(reading.busy_since_ns, 900);
    hoop_meter_start(&meter, 1000);
    hoop_board_tell_run(&writer, &meter, true, 1000);
    meter.turns = 1;
    writer.accepts = 5;
    writer.connections = 2;
    look(&writer, 1500);
    hoop_board_read(&board.places[1], &reading);
    CHECK(reading.is_running);
    CHECK_EQ(reading.busy_since_ns, 1500);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 1);
    CHECK_EQ(reading.figures[HOOP_BOARD_ACCEPTS], 5);
    CHECK_EQ(reading.figures[HOOP_BOARD_CONNECTIONS], 2);
    CHECK_EQ(reading.figures[HOOP_BOARD_BUSY_NS], 500); /* though the meter counts it at the next sleep */
    CHECK_EQ(reading.lag.count, 1);
    CHECK_EQ(reading.lag.max_ns, 500);
    meter.turns = 2;
    hoop_meter_asleep(&meter, 1700);
    hoop_board_tell_look(&writer, &meter, 0, 7);
    hoop_board_read(&board.places[1], &reading);
    CHECK_EQ(reading.busy_since_ns, 0);
    CHECK_EQ(reading.figures[HOOP_BOARD_JOBS], 7);
    CHECK_EQ(reading.figures[HOOP_BOARD_BUSY_NS], 700);
    CHECK_EQ(reading.lag.count, 2);
    CHECK_EQ(reading.lag.sum_ns, 700);
    CHECK_EQ(hoop_histogram_percentile(&reading.lag, 100), 500);
    hoop_board_woke(&writer, 9000);
    hoop_meter_woke(&meter, 9000);
    hoop_meter_stop(&meter, 9500);
    hoop_board_tell_run(&writer, &meter, false, 9500);
    hoop_board_read(&board.places[1], &reading);
    CHECK(!reading.is_running);
    CHECK_EQ(reading.busy_since_ns, 9500);
    CHECK_EQ(reading.figures[HOOP_BOARD_IDLE_NS], 7300);
    CHECK_EQ(reading.figures[HOOP_BOARD_BUSY_NS], 1200);
    hoop_board_read(&board.places[0], &reading);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 0);
    hoop_board_close(&board);
}

TEST(figures_begin_at_zero_and_never_go_back)
{
    hoop_board board;
    hoop_board_writer writer = {.place = NULL};
    REQUIRE(hoop_board_open(&board, 1) == 0);
    hoop_meter_reset(&meter, 0);
    meter.turns = 1000;
    meter.busy_ns = 77;
    hoop_board_attach(&writer, &board.places[0], &meter, 1);
    meter.turns = 1003;
    look(&writer, 5);
    hoop_board_read(&board.places[0], &reading);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 3);
    CHECK_EQ(reading.figures[HOOP_BOARD_BUSY_NS], 5);
    hoop_board_carry(&writer, &meter);
    hoop_meter_reset(&meter, 5);
    meter.turns = 2;
    look(&writer, 9);
    hoop_board_read(&board.places[0], &reading);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 5);
    CHECK_EQ(reading.lag.count, 2);
    hoop_board_detach(&writer);
    hoop_board_detach(&writer);
    hoop_board_writer second = {.accepts = 1};
    hoop_board_attach(&second, &board.places[0], &meter, 10);
    meter.turns = 12;
    second.accepts = 4;
    look(&second, 11);
    hoop_board_read(&board.places[0], &reading);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 15);
    CHECK_EQ(reading.figures[HOOP_BOARD_ACCEPTS], 3);
    hoop_board_clear(&board.places[0]);
    hoop_board_read(&board.places[0], &reading);
    CHECK_EQ(reading.pid + reading.figures[HOOP_BOARD_TURNS] + reading.lag.count, 0);
    hoop_board_close(&board);
}

TEST(requests_are_counted_beside_the_looks)
{
    hoop_board board;
    REQUIRE(hoop_board_open(&board, 1) == 0);
    hoop_board_count_requests(&board.places[0], 3);
    hoop_board_count_requests(&board.places[0], 1);
    hoop_board_read(&board.places[0], &reading);
    CHECK_EQ(reading.requests, 4);
    CHECK(!reading.is_torn);
    hoop_board_close(&board);
}

TEST(a_writer_that_died_in_the_middle_keeps_nobody_waiting)
{
    hoop_board board;
    hoop_board_writer writer = {.place = NULL};
    REQUIRE(hoop_board_open(&board, 1) == 0);
    hoop_meter_reset(&meter, 0);
    hoop_board_attach(&writer, &board.places[0], &meter, 1);
    meter.turns = 8;
    look(&writer, 5);
    atomic_fetch_add(&board.places[0].sequence, 1);
    hoop_board_read(&board.places[0], &reading);
    CHECK(reading.is_torn);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 8);
    meter.turns = 9;
    look(&writer, 6); /* it was only stopped */
    hoop_board_read(&board.places[0], &reading);
    CHECK(!reading.is_torn);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 9);
    hoop_board_close(&board);
}

/* ---- other processes --------------------------------------------------------------------------------------------- */

TEST(a_child_writes_and_its_parent_reads_when_it_is_gone)
{
    hoop_board board;
    REQUIRE(hoop_board_open(&board, 1) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        hoop_board_writer writer = {.place = NULL};
        hoop_meter_reset(&meter, 0);
        hoop_board_attach(&writer, &board.places[0], &meter, 1);
        meter.turns = 42;
        look(&writer, 5);
        _exit(0);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    hoop_board_read(&board.places[0], &reading);
    CHECK_EQ(reading.pid, child);
    CHECK_EQ(reading.figures[HOOP_BOARD_TURNS], 42);
    hoop_board_close(&board);
}

TEST(a_board_is_found_again_by_its_descriptor)
{
    hoop_board board, again;
    REQUIRE(hoop_board_open(&board, 5) == 0);
    if (board.fd < 0) { /* this system has no memory with a descriptor */
        hoop_board_close(&board);
        return;
    }
    hoop_board_count_requests(&board.places[4], 6);
    REQUIRE(hoop_board_adopt(&again, dup(board.fd)) == 0);
    CHECK_EQ(again.count, 5);
    hoop_board_read(&again.places[4], &reading);
    CHECK_EQ(reading.requests, 6);
    CHECK(ftruncate(again.fd, 0) < 0); /* it would kill the others, by SIGBUS */
    ((char *)board.memory)[0] = 'x';
    int fd = dup(board.fd);
    hoop_board_close(&again);
    CHECK_EQ(hoop_board_adopt(&again, fd), -EINVAL);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    hoop_board_close(&board);
}

TEST(what_is_no_board_is_refused)
{
    hoop_board board;
    int pipes[2];
    REQUIRE(pipe(pipes) == 0);
    CHECK_EQ(hoop_board_adopt(&board, pipes[0]), -EINVAL);
    CHECK_EQ(hoop_board_adopt(&board, -1), -EBADF);
    close(pipes[0]);
    close(pipes[1]);
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd >= 0) {
        int result = hoop_board_adopt(&board, fd);
        CHECK(result == -EACCES || result == -EINVAL);
        close(fd);
    }
}

/* ---- a reader beside a writer ------------------------------------------------------------------------------------ */

enum { LOOKS = 200000 };

static atomic_bool has_ended;

static void *write_looks(void *argument)
{
    hoop_board_writer *writer = argument;
    for (int i = 1; i <= LOOKS; i++) {
        meter.turns = meter.callbacks = meter.events = (uint64_t)i;
        writer->accepts = (uint64_t)i;
        meter.looked_ns = meter.looked_before_ns + i % 1000;
        hoop_board_tell_look(writer, &meter, i, (size_t)i);
    }
    atomic_store(&has_ended, true);
    return NULL;
}

TEST(no_reading_mixes_two_looks) /* trap O6 */
{
    hoop_board board;
    hoop_board_writer writer = {.place = NULL};
    pthread_t thread;
    uint64_t before = 0;
    REQUIRE(hoop_board_open(&board, 1) == 0);
    hoop_meter_reset(&meter, 0);
    hoop_board_attach(&writer, &board.places[0], &meter, 1);
    atomic_store(&has_ended, false);
    REQUIRE(pthread_create(&thread, NULL, write_looks, &writer) == 0);
    bool is_last;
    do {
        is_last = atomic_load(&has_ended);
        hoop_board_read(&board.places[0], &reading);
        if (reading.is_torn)
            continue; /* this one writes without a pause, as no loop does */
        uint64_t turns = reading.figures[HOOP_BOARD_TURNS];
        CHECK(turns >= before);
        CHECK_EQ(reading.figures[HOOP_BOARD_CALLBACKS], turns);
        CHECK_EQ(reading.figures[HOOP_BOARD_EVENTS], turns);
        CHECK_EQ(reading.figures[HOOP_BOARD_ACCEPTS], turns);
        CHECK_EQ(reading.figures[HOOP_BOARD_JOBS], turns);
        CHECK_EQ(reading.lag.count, turns);
        before = turns;
    } while (!is_last);
    pthread_join(thread, NULL);
    CHECK_EQ(before, LOOKS);
    hoop_board_close(&board);
}

int main(void)
{
    RUN(a_new_board_is_empty);
    RUN(sizes_that_no_board_has);
    RUN(a_turn_shows_while_it_lasts_and_afterwards);
    RUN(figures_begin_at_zero_and_never_go_back);
    RUN(requests_are_counted_beside_the_looks);
    RUN(a_writer_that_died_in_the_middle_keeps_nobody_waiting);
    RUN(a_child_writes_and_its_parent_reads_when_it_is_gone);
    RUN(a_board_is_found_again_by_its_descriptor);
    RUN(what_is_no_board_is_refused);
    RUN(no_reading_mixes_two_looks);
    return check_finish();
}
