/* timers.h: pending timers, a heap on (deadline_ns, sequence).
 *
 * The order is total: of two timers with one deadline the one added first comes first. A timer is a hoop_timer embedded
 * in its owner; removal finds it by the index that it carries, in O(log n), so a cancelled timer leaves nothing behind.
 * The heap does not own the timers. Deadlines and sequences are kept in the heap's own array, so that sifting does not
 * chase pointers. */
#ifndef HOOP_TIMERS_H
#define HOOP_TIMERS_H

#include "base.h"

#define HOOP_TIMER_IDLE SIZE_MAX /* the index of a timer that is in no heap */

typedef struct hoop_timer {
    size_t index; /* where it stands in the heap, or HOOP_TIMER_IDLE */
    void *owner;  /* what hoop_timers_visit hands to the visitor */
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
} hoop_timers;

void hoop_timer_init(hoop_timer *timer, void *owner); /* idle */
void hoop_timers_init(hoop_timers *timers);           /* empty, nothing allocated */
void hoop_timers_free(hoop_timers *timers);           /* every timer still inside becomes idle */

/* 0, -ENOMEM, or -EALREADY when the timer is already in a heap; on failure nothing changed. */
int hoop_timers_add(hoop_timers *timers, hoop_timer *timer, int64_t deadline_ns);
/* 0, or -ENOENT when the timer is idle. A timer of another heap is a broken promise. */
int hoop_timers_remove(hoop_timers *timers, hoop_timer *timer);
/* The first timer whose deadline is <= now_ns, taken out and idle; NULL when none is due. */
hoop_timer *hoop_timers_pop_due(hoop_timers *timers, int64_t now_ns);
/* In heap order, which is not sorted. */
int hoop_timers_visit(const hoop_timers *timers, hoop_visit_fn visit, void *arg);

static inline bool hoop_timer_is_pending(const hoop_timer *timer)
{
    return timer->index != HOOP_TIMER_IDLE;
}

static inline int64_t hoop_timers_deadline_ns(const hoop_timers *timers, int64_t when_empty)
{
    return timers->size > 0 ? timers->entries[0].deadline_ns : when_empty;
}

#endif
