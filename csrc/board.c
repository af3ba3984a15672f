#include "board.h"
#include "platform.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if HOOP_HAVE_MEMFD
#include <linux/memfd.h>
#include <sys/syscall.h>
#endif

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

#define MOST_TRIES 64 /* of a reader: a look takes some 50 ns to write, and microseconds pass before the next */

/* In front of the places. Another version of hoop may come upon it after execve(2). */
typedef struct board_header {
    char magic[8];
    uint64_t place_size;
    uint64_t count;
} board_header;

static const char MAGIC[8] = {'h', 'o', 'o', 'p', 'b', 'r', 'd', '1'};

_Static_assert(sizeof(board_header) <= HOOP_BOARD_ALIGNMENT, "the places begin behind the header");
_Static_assert(sizeof(hoop_board_place) % HOOP_BOARD_ALIGNMENT == 0, "no two places share a cache line");

/* ---- the memory -------------------------------------------------------------------------------------------------- */

static size_t size_of(uint64_t places)
{
    return HOOP_BOARD_ALIGNMENT + (size_t)places * sizeof(hoop_board_place);
}

static int take(hoop_board *board, void *memory, size_t size, int fd)
{
    *board = (hoop_board){.memory = memory, .size = size, .fd = fd};
    board->places = (hoop_board_place *)(void *)((char *)memory + HOOP_BOARD_ALIGNMENT);
    board->count = (int)((board_header *)memory)->count;
    return 0;
}

/* A descriptor of so many zeros, which nobody can cut short: that would kill those who look at it. */
static int make_file(size_t size)
{
#if HOOP_HAVE_MEMFD
    int fd = (int)syscall(SYS_memfd_create, "hoop-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int result = ftruncate(fd, (off_t)size);
#ifdef F_ADD_SEALS /* since glibc 2.27 */
    if (result == 0)
        result = fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
#endif
    if (result == 0)
        return fd;
    int error = errno;
    close(fd);
    return -error;
#else
    (void)size;
    return -ENOSYS;
#endif
}

int hoop_board_open(hoop_board *board, int places)
{
    *board = (hoop_board){.fd = -1};
    if (places < 1 || places > HOOP_BOARD_MOST_PLACES)
        return -EINVAL;
    size_t size = size_of((uint64_t)places);
    int fd = make_file(size);
    if (fd < 0 && fd != -ENOSYS && fd != -EPERM) /* else an old kernel, a sandbox */
        return fd;
    int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd < 0 ? -1 : fd, 0);
    if (memory == MAP_FAILED) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return -error;
    }
    board_header *header = memory;
    memcpy(header->magic, MAGIC, sizeof MAGIC);
    header->place_size = sizeof(hoop_board_place);
    header->count = (uint64_t)places;
    return take(board, memory, size, fd < 0 ? -1 : fd);
}

int hoop_board_adopt(hoop_board *board, int fd)
{
    *board = (hoop_board){.fd = -1};
    struct stat about;
    if (fstat(fd, &about) < 0)
        return -errno;
    size_t size = (size_t)about.st_size;
    if (about.st_size < HOOP_BOARD_ALIGNMENT || about.st_size > (off_t)size_of(HOOP_BOARD_MOST_PLACES))
        return -EINVAL;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    const board_header *header = memory;
    if (memcmp(header->magic, MAGIC, sizeof MAGIC) != 0 || header->place_size != sizeof(hoop_board_place) ||
        header->count < 1 || header->count > HOOP_BOARD_MOST_PLACES || size_of(header->count) != size) {
        munmap(memory, size);
        return -EINVAL;
    }
    return take(board, memory, size, fd);
}

void hoop_board_close(hoop_board *board)
{
    if (board->memory != NULL)
        munmap(board->memory, board->size);
    if (board->fd >= 0)
        close(board->fd);
    *board = (hoop_board){.fd = -1};
}

/* ---- the watcher's side ------------------------------------------------------------------------------------------ */

static void put(_Atomic uint64_t *word, uint64_t value) /* not before what was put earlier */
{
    atomic_store_explicit(word, value, memory_order_release);
}

static uint64_t get(_Atomic uint64_t *word) /* not after what is got later */
{
    return atomic_load_explicit(word, memory_order_acquire);
}

void hoop_board_clear(hoop_board_place *place)
{
    put(&place->sequence, 0);
    atomic_store_explicit(&place->busy_since_ns, 0, memory_order_release);
    put(&place->is_running, 0);
    put(&place->pid, 0);
    put(&place->requests, 0);
    for (int i = 0; i < HOOP_BOARD_FIGURES; i++)
        put(&place->figures[i], 0);
    for (size_t i = 0; i < HOOP_HISTOGRAM_BUCKETS; i++)
        put(&place->lag[i], 0);
}

static void copy(hoop_board_place *place, hoop_board_reading *reading)
{
    reading->is_running = get(&place->is_running) != 0;
    reading->pid = get(&place->pid);
    for (int i = 0; i < HOOP_BOARD_FIGURES; i++)
        reading->figures[i] = get(&place->figures[i]);
    reading->lag.count = 0;
    for (size_t i = 0; i < HOOP_HISTOGRAM_BUCKETS; i++)
        reading->lag.count += reading->lag.buckets[i] = get(&place->lag[i]);
    reading->lag.sum_ns = reading->figures[HOOP_BOARD_LAG_SUM_NS];
    reading->lag.max_ns = (int64_t)reading->figures[HOOP_BOARD_LAG_MAX_NS];
}

void hoop_board_read(hoop_board_place *place, hoop_board_reading *reading)
{
    reading->is_torn = true;
    for (int tries = 0; reading->is_torn && tries < MOST_TRIES; tries++) {
        uint64_t sequence = get(&place->sequence);
        copy(place, reading);
        reading->is_torn = sequence % 2 != 0 || get(&place->sequence) != sequence;
    }
    reading->busy_since_ns = atomic_load_explicit(&place->busy_since_ns, memory_order_relaxed);
    reading->requests = get(&place->requests);
}

/* ---- the loop's side --------------------------------------------------------------------------------------------- */

enum { COUNTERS = HOOP_BOARD_ACCEPTS + 1 };

/* Up to the latest look: the meter itself adds up at a sleep, for which a loop with much to do may never find time. */
static inline uint64_t busy_ns_of(const hoop_meter *meter)
{
    int64_t since_ns = meter->looked_ns - meter->counted_ns;
    return (uint64_t)(meter->busy_ns + (since_ns > 0 ? since_ns : 0));
}

static void count(const hoop_board_writer *writer, const hoop_meter *meter, uint64_t counters[COUNTERS])
{
    counters[HOOP_BOARD_TURNS] = meter->turns;
    counters[HOOP_BOARD_CALLBACKS] = meter->callbacks;
    counters[HOOP_BOARD_EVENTS] = meter->events;
    counters[HOOP_BOARD_POLLS] = meter->polls;
    counters[HOOP_BOARD_SLEEPS] = meter->sleeps;
    counters[HOOP_BOARD_BUSY_NS] = busy_ns_of(meter);
    counters[HOOP_BOARD_IDLE_NS] = (uint64_t)meter->idle_ns;
    counters[HOOP_BOARD_ACCEPTS] = writer->accepts;
}

void hoop_board_attach(hoop_board_writer *writer, hoop_board_place *place, const hoop_meter *meter, int64_t now_ns)
{
    uint64_t counters[COUNTERS];
    count(writer, meter, counters);
    for (int i = 0; i < COUNTERS; i++)
        writer->base[i] = get(&place->figures[i]) - counters[i];
    writer->place = place;
    put(&place->pid, (uint64_t)getpid());
    hoop_board_woke(writer, now_ns);
}

void hoop_board_detach(hoop_board_writer *writer)
{
    writer->place = NULL;
}

void hoop_board_carry(hoop_board_writer *writer, const hoop_meter *meter)
{
    uint64_t counters[COUNTERS];
    count(writer, meter, counters);
    for (int i = 0; i < HOOP_BOARD_ACCEPTS; i++)
        writer->base[i] += counters[i];
}

static inline void advance(hoop_board_place *place, const hoop_board_writer *writer, int counter, uint64_t counted)
{
    put(&place->figures[counter], writer->base[counter] + counted);
}

/* In the time of every look: nothing is copied or tested that need not be. */
static inline void tell(const hoop_board_writer *writer, const hoop_meter *meter)
{
    hoop_board_place *place = writer->place;
    advance(place, writer, HOOP_BOARD_TURNS, meter->turns);
    advance(place, writer, HOOP_BOARD_CALLBACKS, meter->callbacks);
    advance(place, writer, HOOP_BOARD_EVENTS, meter->events);
    advance(place, writer, HOOP_BOARD_POLLS, meter->polls);
    advance(place, writer, HOOP_BOARD_SLEEPS, meter->sleeps);
    advance(place, writer, HOOP_BOARD_BUSY_NS, busy_ns_of(meter));
    advance(place, writer, HOOP_BOARD_IDLE_NS, (uint64_t)meter->idle_ns);
    advance(place, writer, HOOP_BOARD_ACCEPTS, writer->accepts);
    put(&place->figures[HOOP_BOARD_CONNECTIONS], writer->connections);
}

void hoop_board_tell_run(hoop_board_writer *writer, const hoop_meter *meter, bool is_running, int64_t now_ns)
{
    hoop_board_place *place = writer->place;
    uint64_t sequence = get(&place->sequence);
    put(&place->sequence, sequence | 1);
    put(&place->is_running, is_running);
    tell(writer, meter);
    put(&place->sequence, (sequence | 1) + 1);
    hoop_board_woke(writer, now_ns);
}

void hoop_board_tell_look(hoop_board_writer *writer, const hoop_meter *meter, int64_t busy_since_ns, size_t jobs)
{
    hoop_board_place *place = writer->place;
    int64_t lag_ns = meter->looked_ns - meter->looked_before_ns;
    uint64_t lag = lag_ns > 0 ? (uint64_t)lag_ns : 0;
    size_t bucket = hoop_histogram_bucket_of(lag);
    uint64_t sequence = get(&place->sequence);
    put(&place->sequence, sequence | 1);
    tell(writer, meter);
    put(&place->figures[HOOP_BOARD_JOBS], jobs);
    put(&place->figures[HOOP_BOARD_LAG_SUM_NS], get(&place->figures[HOOP_BOARD_LAG_SUM_NS]) + lag);
    if (lag > get(&place->figures[HOOP_BOARD_LAG_MAX_NS]))
        put(&place->figures[HOOP_BOARD_LAG_MAX_NS], lag);
    put(&place->lag[bucket], get(&place->lag[bucket]) + 1);
    put(&place->sequence, (sequence | 1) + 1);
    hoop_board_woke(writer, busy_since_ns);
}
