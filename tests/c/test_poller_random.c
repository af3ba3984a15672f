/* Random operations on a poller, checked against a naive model: after each wait, what the poller says about every live
 * descriptor is what poll(2) says about it now, under the interest that the model remembers.
 *
 * The operations include what users do wrong: a watched number closed and reused, with and without a duplicate of the
 * open file that lives on. With such a duplicate alive, epoll may report an old generation; every other event must
 * carry the current one, and after hoop_poller_rebuild there are no old ones at all. */
#include "poller_fixture.h"

#include <poll.h>

#define PLACES 24
#define STEPS 4000

typedef struct place {
    int fd;   /* watched; -1: the place is empty */
    int peer; /* -1: closed */
    unsigned interest;
    uint32_t generation;
    bool has_news; /* since it was last reported: under HOOP_EDGE it must be reported once more */
} place;

typedef struct world {
    hoop_poller poller;
    place places[PLACES];
    int duplicates[PLACES]; /* of open files whose watched number was closed; -1: none */
    bool stale_allowed;
    uint64_t random;
} world;

static unsigned any_interest(world *w)
{
    static const unsigned interests[] = {0,
                                         HOOP_READABLE,
                                         HOOP_WRITABLE,
                                         HOOP_READABLE | HOOP_WRITABLE,
                                         HOOP_READABLE | HOOP_EXCLUSIVE,
                                         HOOP_READABLE | HOOP_EDGE};
    return interests[check_random_below(&w->random, 6)];
}

static void note(world *w, place *p)
{
    uint32_t generation = hoop_poller_generation(&w->poller, p->fd);
    CHECK(generation != 0);
    p->generation = generation;
    p->has_news = true;
}

static void do_add(world *w, place *p)
{
    int pair[2];
    if (p->fd >= 0) {
        CHECK_EQ(hoop_poller_add(&w->poller, p->fd, HOOP_READABLE), -EEXIST);
        return;
    }
    open_pair(pair);
    p->fd = pair[0];
    p->peer = pair[1];
    p->interest = any_interest(w);
    CHECK_EQ(hoop_poller_add(&w->poller, p->fd, p->interest), 0);
    note(w, p);
}

static void do_set(world *w, place *p)
{
    p->interest = any_interest(w);
    CHECK_EQ(hoop_poller_set(&w->poller, p->fd, p->interest), 0);
}

static void do_rearm(world *w, place *p)
{
    uint32_t before = p->generation;
    p->interest = any_interest(w);
    CHECK_EQ(hoop_poller_rearm(&w->poller, p->fd, p->interest), 0);
    note(w, p);
    CHECK(p->generation != before);
}

static void empty_place(place *p)
{
    if (p->peer >= 0)
        close(p->peer);
    p->fd = -1;
    p->peer = -1;
}

/* The proper way: remove, then close. */
static void do_remove(world *w, place *p)
{
    CHECK_EQ(hoop_poller_remove(&w->poller, p->fd), 0);
    close(p->fd);
    empty_place(p);
}

/* Perhaps keep the open file alive beyond the number's close. */
static void maybe_duplicate(world *w, int fd)
{
    int *slot = &w->duplicates[check_random_below(&w->random, PLACES)];
    if (*slot >= 0 || check_random_below(&w->random, 8) != 0)
        return;
    *slot = dup(fd);
    REQUIRE(*slot >= 0);
    w->stale_allowed = backend_is("epoll");
}

/* The other way: closed first, noticed later. */
static void do_close_then_forget(world *w, place *p)
{
    maybe_duplicate(w, p->fd);
    close(p->fd);
    if (check_random_below(&w->random, 2) == 0)
        hoop_poller_forget(&w->poller, p->fd);
    else
        CHECK_EQ(hoop_poller_remove(&w->poller, p->fd), 0);
    CHECK_EQ(hoop_poller_generation(&w->poller, p->fd), 0);
    empty_place(p);
}

/* A user closes a watched number and gets it again for something new. */
static void do_reuse(world *w, place *p)
{
    int pair[2];
    maybe_duplicate(w, p->fd);
    open_pair(pair);
    REQUIRE(dup2(pair[0], p->fd) == p->fd);
    close(pair[0]);
    if (p->peer >= 0)
        close(p->peer);
    p->peer = pair[1];
    do_rearm(w, p);
}

static void do_traffic(world *w, place *p)
{
    switch (check_random_below(&w->random, 5)) {
    case 0:
    case 1:
        if (p->peer >= 0)
            p->has_news |= hoop_net_send(p->peer, "x", 1) > 0; /* the peer's buffer may be full */
        break;
    case 2:
        drain(p->fd);
        break;
    case 3:
        fill(p->fd);
        break;
    default:
        if (p->peer >= 0)
            drain(p->peer);
    }
}

static void do_rebuild(world *w)
{
    for (int i = 0; i < PLACES; i++) {
        if (w->duplicates[i] >= 0 && check_random_below(&w->random, 2) == 0) {
            close(w->duplicates[i]);
            w->duplicates[i] = -1;
        }
    }
    CHECK_EQ(hoop_poller_rebuild(&w->poller), 0);
    for (int i = 0; i < PLACES; i++)
        w->places[i].has_news = true;
    w->stale_allowed = false;
}

static uint32_t expected_events(const place *p)
{
    struct pollfd entry = {.fd = p->fd, .events = 0, .revents = 0};
    if (p->interest & HOOP_READABLE)
        entry.events |= POLLIN;
    if (p->interest & HOOP_WRITABLE)
        entry.events |= POLLOUT;
    REQUIRE(poll(&entry, 1, 0) >= 0);
    uint32_t expected = 0;
    if (entry.revents & (POLLIN | POLLERR | POLLHUP))
        expected |= HOOP_READABLE;
    if (entry.revents & (POLLOUT | POLLERR | POLLHUP))
        expected |= HOOP_WRITABLE;
    return expected & p->interest;
}

static place *find_place(world *w, int fd)
{
    for (int i = 0; i < PLACES; i++) {
        if (w->places[i].fd == fd)
            return &w->places[i];
    }
    return NULL;
}

static bool must_report(const world *w, const place *p)
{
    return p->has_news || (p->interest & HOOP_EDGE) == 0 || !hoop_poller_tells_edges(&w->poller);
}

static void compare(world *w)
{
    hoop_event events[4 * PLACES];
    uint32_t reported[PLACES] = {0};
    int count = hoop_poller_wait(&w->poller, events, 4 * PLACES, 0);
    CHECK(count >= 0);
    for (int i = 0; i < count; i++) {
        place *p = find_place(w, events[i].fd);
        if (p == NULL || p->generation != events[i].generation) {
            CHECK(w->stale_allowed);
            continue;
        }
        CHECK_EQ(reported[p - w->places], 0); /* once per call */
        CHECK_EQ(events[i].error, 0);
        reported[p - w->places] = events[i].events;
    }
    int live = 0;
    for (int i = 0; i < PLACES; i++) {
        place *p = &w->places[i];
        if (p->fd < 0)
            continue;
        live++;
        CHECK_EQ(hoop_poller_interest(&w->poller, p->fd), p->interest);
        if (reported[i] != 0 || must_report(w, p)) /* an edge is told once, and perhaps again */
            CHECK_EQ(reported[i] & p->interest, expected_events(p));
        if (reported[i] != 0)
            p->has_news = false;
        if (p->interest == 0)
            CHECK_EQ(reported[i], 0);
    }
    CHECK_EQ(w->poller.live_count, live);
    CHECK_EQ(w->poller.dirty_count, 0);
}

static void do_something(world *w)
{
    place *p = &w->places[check_random_below(&w->random, PLACES)];
    uint64_t what = check_random_below(&w->random, 100);
    if (what == 0)
        do_rebuild(w);
    else if (p->fd < 0 || what < 5)
        do_add(w, p);
    else if (what < 30)
        do_set(w, p);
    else if (what < 40)
        do_rearm(w, p);
    else if (what < 45)
        do_remove(w, p);
    else if (what < 50)
        do_close_then_forget(w, p);
    else if (what < 55)
        do_reuse(w, p);
    else if (what < 60 && p->peer >= 0) {
        close(p->peer);
        p->peer = -1;
        p->has_news = true;
    } else
        do_traffic(w, p);
}

static void finish(world *w)
{
    for (int i = 0; i < PLACES; i++) {
        if (w->places[i].fd >= 0)
            do_remove(w, &w->places[i]);
        if (w->duplicates[i] >= 0)
            close(w->duplicates[i]);
    }
    CHECK_EQ(w->poller.live_count, 0);
    hoop_poller_close(&w->poller);
}

TEST(the_poller_agrees_with_poll)
{
    static const uint64_t seeds[] = {1, 20260101, 777};
    for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
        world w;
        w.poller = open_poller();
        w.random = check_use_seed(seeds[i]);
        w.stale_allowed = false;
        for (int j = 0; j < PLACES; j++) {
            w.places[j] = (place){.fd = -1, .peer = -1, .interest = 0, .generation = 0};
            w.duplicates[j] = -1;
        }
        for (int step = 0; step < STEPS; step++) {
            do_something(&w);
            if (check_random_below(&w.random, 3) == 0)
                compare(&w);
        }
        finish(&w);
    }
}

int main(void)
{
    RUN_ON_EVERY_BACKEND(the_poller_agrees_with_poll);
    return check_finish();
}
