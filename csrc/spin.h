/* spin.h: decides whether a thread looks for work for a moment before it sleeps: only while that pays.
 *
 * A sleeping thread costs 5 to 40 microseconds to wake, by how deeply its CPU sleeps; one that still looks is there at
 * once. But looking in vain burns CPU time: after each such time the next 1, 2, 4, ... 256 occasions pass without a
 * look. So a thread whose work comes rarely hardly ever spins, and one that never has work never does: it asks this
 * structure only on the way to sleep. The structure belongs to one thread. */
#ifndef HOOP_SPIN_H
#define HOOP_SPIN_H

#include "base.h"

#define HOOP_SPIN_MOST_FUTILE 8 /* 2 to this power occasions pass at most */

typedef struct hoop_spin {
    int64_t limit_ns; /* how long to look; 0: never */
    unsigned futile;  /* times in a row that it was in vain, up to the above */
    unsigned to_skip;
} hoop_spin;

static inline bool hoop_spin_may(hoop_spin *spin) /* true: look, then tell hoop_spin_ended */
{
    if (spin->limit_ns <= 0)
        return false;
    if (spin->to_skip > 0) {
        spin->to_skip--;
        return false;
    }
    return true;
}

static inline void hoop_spin_ended(hoop_spin *spin, bool has_paid)
{
    if (has_paid) {
        spin->futile = 0;
        return;
    }
    spin->to_skip = 1U << spin->futile;
    if (spin->futile < HOOP_SPIN_MOST_FUTILE)
        spin->futile++;
}

static inline void hoop_spin_put_off(hoop_spin *spin) /* the latest occasion says nothing: as many pass as before it */
{
    if (spin->to_skip < 1U << HOOP_SPIN_MOST_FUTILE)
        spin->to_skip++;
}

static inline void hoop_spin_pause(void) /* tell the CPU that this loop waits */
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
