/* timers.h: pending timers, a heap on (deadline_ns, sequence).
 *
 * The order is total: of two timers with one deadline the one added first comes first. A timer is a hoop_timer embedded
 * in its owner; removal finds it by the index that it carries, in O(log n), so a cancelled timer leaves nothing behind.
 * The heap does not own the timers. Deadlines and sequences are kept in the heap's own array, so that sifting does not
 * chase pointers.
 *
 * A timer is referenced unless hoop_timers_set_referenced says otherwise: the heap counts the pending ones that are
 * not, so that "is there a timer to wait for?" is a subtraction. */
#ifndef HOOP_TIMERS_H
#define HOOP_TIMERS_H

#include "base.h"

#define HOOP_TIMER_IDLE UINT32_MAX /* the index of a timer that is in no heap */

typedef struct hoop_timer {
    uint32_t index; /* where it stands in the heap, or HOOP_TIMER_IDLE */
    bool is_unreferenced;
} hoop_timer;

typedef struct hoop_timer_entry {
    int64_t deadline_ns;
    uint64_t sequence;
    hoop_timer *timer;
} hoop_timer_entry;

typedef struct hoop_timers {
    hoop_timer_entry *entries;
    size_t size;
    size_t capacity;
    uint64_t next_sequence;
    size_t unreferenced; /* of the pending timers */
    bool is_sorted;      /* the entries stand in their order, as they do while each one added is the latest */
} hoop_timers;

void hoop_timer_init(hoop_timer *timer);    /* idle, referenced */
void hoop_timers_init(hoop_timers *timers); /* empty, nothing allocated */
void hoop_timers_free(hoop_timers *timers); /* every timer still inside becomes idle */

/* 0, -ENOMEM, or -EALREADY when the timer is already in a heap; on failure nothing changed. */
int hoop_timers_add(hoop_timers *timers, hoop_timer *timer, int64_t deadline_ns);
/* 0, or -ENOENT when the timer is idle. A timer of another heap is a broken promise. */
int hoop_timers_remove(hoop_timers *timers, hoop_timer *timer);
/* The first timer whose deadline is <= now_ns, taken out and idle; NULL when none is due. */
hoop_timer *hoop_timers_pop_due(hoop_timers *timers, int64_t now_ns);
/* Take out all timers, for whoever has taken them from the entries. */
void hoop_timers_let_go(hoop_timers *timers);
/* Whether the timer counts in hoop_timers_referenced while it is pending here. For pending and idle ones;
 * idempotent. */
void hoop_timers_set_referenced(hoop_timers *timers, hoop_timer *timer, bool is_referenced);
/* Hand each hoop_timer to visit. In heap order, which is not sorted. */
int hoop_timers_visit(const hoop_timers *timers, hoop_visit_fn visit, void *arg);

static inline bool hoop_timer_is_pending(const hoop_timer *timer)
{
    return timer->index != HOOP_TIMER_IDLE;
}

static inline size_t hoop_timers_referenced(const hoop_timers *timers) /* how many pending timers are referenced */
{
    return timers->size - timers->unreferenced;
}

/* How many timers there are, if all are due and the entries stand in their order: to take one after the other would cost
 * more. Else 0. */
static inline size_t hoop_timers_all_due(const hoop_timers *timers, int64_t now_ns)
{
    if (timers->size == 0 || !timers->is_sorted || timers->entries[timers->size - 1].deadline_ns > now_ns)
        return 0;
    return timers->size;
}

static inline int64_t hoop_timers_deadline_ns(const hoop_timers *timers, int64_t when_empty)
{
    return timers->size > 0 ? timers->entries[0].deadline_ns : when_empty;
}

#endif
