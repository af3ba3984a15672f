/* poller_poll.c: the portable reference back end, on poll(2).
 *
 * What the kernel does:
 *
 *   1. poll remembers nothing. Each call lists every descriptor, and costs time in proportion to their number.
 *   2. POLLERR, POLLHUP and POLLNVAL are reported whether asked for or not, also with an empty mask.
 *   3. A closed number is POLLNVAL, at once and for ever. A reused one is simply the new file.
 *   4. A negative number is skipped.
 *   5. Timeouts are milliseconds. ppoll(2) takes a timespec; macOS has none.
 *   6. On macOS, poll on terminals and other devices was POLLNVAL until 10.5 and is still worse served than kqueue;
 *      elsewhere regular files are always ready.
 *   7. With POLLHUP some systems leave POLLIN out although the rest of the data can be read.
 *   8. More entries than RLIMIT_NOFILE are EINVAL (Linux, the BSDs): the limit may have been lowered since the
 *      descriptors were opened. ENOMEM (elsewhere EAGAIN) when there is no room for a copy of the entries.
 *   9. select(2) takes no notice of that limit, only of the table of open descriptors, and needs two bits for each
 *      number, however large: the sets are as long as the caller makes them (macOS: with _DARWIN_UNLIMITED_SELECT). A
 *      closed number is EBADF, without saying which.
 *
 * What that means here:
 *
 *   - The set lives in user space: an array for poll, the generations beside it, and an index by number. Removing moves
 *     the last entry into the gap.
 *   - It serves tests, comparisons, and systems that have nothing better; hence clarity before speed.
 *   - POLLERR and POLLHUP count as both directions (2, 7), as with epoll.
 *   - A POLLNVAL entry is dropped without an event, which is what epoll and kqueue do when a number is closed (3).
 *   - Unlike them, this back end reports a reused number under the old registration until rearm or forget: it cannot
 *     see the difference.
 *   - Where poll refuses so many entries (8), select makes the same wait (9; joyent/libuv#1189).
 *   - apply asks fcntl(2) whether the number is open, so that a bad descriptor is an error where it was passed in.
 *   - Events are taken from a moving start, so that a small array starves none. */
#define _DARWIN_UNLIMITED_SELECT 1
#include "poller_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/select.h>
#include <sys/types.h>

#define FIRST_CAPACITY 64

typedef struct poll_state {
    struct pollfd *entries;
    uint32_t *generations; /* parallel to entries */
    int count;
    int capacity;
    int start;   /* where the next wait begins to collect; any value, taken modulo count */
    int *places; /* by descriptor number: 1 + its index in entries, or 0 */
    int place_count;
    fd_mask *bits; /* two sets for select, one after the other; NULL until they are needed */
    size_t bit_words;
} poll_state;

static int poll_open(hoop_poller *poller)
{
    poll_state *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return -ENOMEM;
    poller->backend_state = state;
    poller->backend_fd = -1;
    return 0;
}

static void poll_close(hoop_poller *poller)
{
    poll_state *state = poller->backend_state;
    free(state->entries);
    free(state->generations);
    free(state->places);
    free(state->bits);
    free(state);
    poller->backend_state = NULL;
}

static int reserve_place(poll_state *state, int fd)
{
    int *places = hoop_poller_reserve(state->places, &state->place_count, sizeof(*places), fd);
    if (places == NULL)
        return -ENOMEM;
    state->places = places;
    return 0;
}

static int reserve_entry(poll_state *state)
{
    if (state->count < state->capacity)
        return 0;
    if (state->capacity > INT_MAX / 2)
        return -ENOMEM;
    size_t capacity = state->capacity > 0 ? (size_t)state->capacity * 2 : FIRST_CAPACITY;
    struct pollfd *entries = realloc(state->entries, capacity * sizeof(*entries));
    if (entries == NULL)
        return -ENOMEM;
    state->entries = entries;
    uint32_t *generations = realloc(state->generations, capacity * sizeof(*generations));
    if (generations == NULL)
        return -ENOMEM;
    state->generations = generations;
    state->capacity = (int)capacity;
    return 0;
}

static void take_out(poll_state *state, int fd)
{
    if (fd >= state->place_count || state->places[fd] == 0)
        return;
    int gap = state->places[fd] - 1;
    int last = --state->count;
    state->entries[gap] = state->entries[last];
    state->generations[gap] = state->generations[last];
    state->places[state->entries[gap].fd] = gap + 1;
    state->places[fd] = 0; /* after the line above, which is about fd itself when it was the last */
}

static void poll_forget(hoop_poller *poller, int fd)
{
    take_out(poller->backend_state, fd);
}

static int put_in(poll_state *state, int fd, uint32_t generation, unsigned to)
{
    if (fcntl(fd, F_GETFD) < 0)
        return -errno;
    int result = reserve_place(state, fd);
    if (result < 0)
        return result;
    if (state->places[fd] == 0) {
        result = reserve_entry(state);
        if (result < 0)
            return result;
        state->places[fd] = ++state->count;
    }
    int index = state->places[fd] - 1;
    short mask = 0;
    if (to & HOOP_READABLE)
        mask |= POLLIN;
    if (to & HOOP_WRITABLE)
        mask |= POLLOUT;
    state->entries[index] = (struct pollfd){.fd = fd, .events = mask, .revents = 0};
    state->generations[index] = generation;
    return 0;
}

static int poll_apply(hoop_poller *poller, int fd, uint32_t generation, unsigned from, unsigned to)
{
    poll_state *state = poller->backend_state;
    (void)from; /* the array knows */
    int result = to == 0 ? 0 : put_in(state, fd, generation, to);
    if (to == 0 || result < 0)
        take_out(state, fd);
    return result;
}

static int call_poll(poll_state *state, int64_t timeout_ns)
{
    int count;
#if HOOP_HAVE_PPOLL
    if (timeout_ns >= 0) {
        struct timespec timeout = hoop_timespec_of(timeout_ns);
        count = ppoll(state->entries, (nfds_t)state->count, &timeout, NULL);
    } else {
        count = ppoll(state->entries, (nfds_t)state->count, NULL, NULL);
    }
#else
    count = poll(state->entries, (nfds_t)state->count, timeout_ns < 0 ? -1 : hoop_poller_round_up_ms(timeout_ns));
#endif
    return count < 0 ? -errno : count;
}

/* Zeroed words for two sets that reach up to the largest number: how many for each, or -ENOMEM. */
static ssize_t clear_sets(poll_state *state)
{
    int largest = 0;
    for (int i = 0; i < state->count; i++) {
        if (state->entries[i].fd > largest)
            largest = state->entries[i].fd;
    }
    size_t words = (size_t)largest / NFDBITS + 1;
    if (words > state->bit_words) {
        fd_mask *bits = realloc(state->bits, 2 * words * sizeof(*bits));
        if (bits == NULL)
            return -ENOMEM;
        state->bits = bits;
        state->bit_words = words;
    }
    memset(state->bits, 0, 2 * words * sizeof(*state->bits));
    return (ssize_t)words;
}

static fd_mask bit_of(int fd)
{
    return (fd_mask)(1ULL << (fd % (int)NFDBITS)); /* the type is signed on most systems */
}

/* Set POLLNVAL for all entries that are closed: how many there are. */
static int find_closed(poll_state *state)
{
    int closed = 0;
    for (int i = 0; i < state->count; i++) {
        bool is_open = fcntl(state->entries[i].fd, F_GETFD) >= 0;
        state->entries[i].revents = is_open ? 0 : POLLNVAL;
        closed += !is_open;
    }
    return closed;
}

/* As call_poll. */
static int call_select(poll_state *state, int64_t timeout_ns)
{
    ssize_t words = clear_sets(state);
    if (words < 0)
        return (int)words;
    fd_mask *readable = state->bits;
    fd_mask *writable = state->bits + words;
    int largest = -1;
    for (int i = 0; i < state->count; i++) {
        const struct pollfd *entry = &state->entries[i];
        size_t word = (size_t)entry->fd / NFDBITS;
        if (entry->events & POLLIN)
            readable[word] |= bit_of(entry->fd);
        if (entry->events & POLLOUT)
            writable[word] |= bit_of(entry->fd);
        if (entry->fd > largest)
            largest = entry->fd;
    }
    struct timespec timeout = hoop_timespec_of(timeout_ns < 0 ? 0 : timeout_ns);
    int count = pselect(largest + 1, (fd_set *)(void *)readable, (fd_set *)(void *)writable, NULL,
                        timeout_ns < 0 ? NULL : &timeout, NULL);
    if (count < 0)
        return errno == EBADF ? find_closed(state) : -errno;
    for (int i = 0; i < state->count; i++) {
        struct pollfd *entry = &state->entries[i];
        size_t word = (size_t)entry->fd / NFDBITS;
        entry->revents = 0;
        if (readable[word] & bit_of(entry->fd))
            entry->revents |= POLLIN;
        if (writable[word] & bit_of(entry->fd))
            entry->revents |= POLLOUT;
    }
    return count;
}

static uint32_t translate(short revents)
{
    uint32_t happened = 0;
    if (revents & (POLLIN | POLLERR | POLLHUP))
        happened |= HOOP_READABLE;
    if (revents & (POLLOUT | POLLERR | POLLHUP))
        happened |= HOOP_WRITABLE;
    return happened;
}

/* Take closed numbers out, from the end on, so that the entry which take_out moves has been looked at. */
static void drop_closed(poll_state *state)
{
    for (int i = state->count - 1; i >= 0; i--) {
        if (state->entries[i].revents & POLLNVAL)
            take_out(state, state->entries[i].fd);
    }
}

static int collect(poll_state *state, hoop_event *events, int capacity)
{
    drop_closed(state);
    int filled = 0;
    int scanned = 0;
    int index = state->count > 0 ? state->start % state->count : 0;
    for (; scanned < state->count && filled < capacity; scanned++) {
        uint32_t happened = translate(state->entries[index].revents);
        if (happened != 0) {
            events[filled++] = (hoop_event){.fd = state->entries[index].fd,
                                            .generation = state->generations[index],
                                            .events = happened,
                                            .error = 0};
        }
        if (++index == state->count)
            index = 0;
    }
    state->start = index;
    return filled;
}

static int poll_wait(hoop_poller *poller, hoop_event *events, int capacity, int64_t timeout_ns)
{
    poll_state *state = poller->backend_state;
    int64_t deadline_ns = timeout_ns > 0 ? hoop_poller_deadline_ns(timeout_ns) : 0;
    int64_t left_ns = timeout_ns;
    for (;;) {
        int64_t wait_ns = hoop_poller_one_wait_ns(left_ns);
        int count = call_poll(state, wait_ns);
        if (HOOP_UNLIKELY(count == -EINVAL || count == -ENOMEM || count == -EAGAIN))
            count = call_select(state, wait_ns);
        if (count < 0)
            return count;
        int filled = count > 0 ? collect(state, events, capacity) : 0;
        if (filled > 0 || timeout_ns == 0)
            return filled;
        if (timeout_ns < 0)
            continue; /* only closed numbers, which are gone now */
        left_ns = deadline_ns - hoop_clock_ns();
        if (left_ns <= 0)
            return 0;
    }
}

const hoop_poller_backend hoop_poller_poll_backend = {
    .name = "poll",
    .open = poll_open,
    .close = poll_close,
    .apply = poll_apply,
    .forget = poll_forget,
    .wait = poll_wait,
};
