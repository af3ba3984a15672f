/* spin.h: whether to look for something for a moment before sleeping: only while that pays.
 *
 * A sleeping thread costs 5 to 40 microseconds to wake, by how deeply its CPU sleeps; who looks a little longer is there at
 * once. But who looks in vain has burnt CPU time: after each such time the next 1, 2, 4, ... 256 occasions are let pass.
 * So a thread whose work comes rarely hardly ever spins, and one that never has work never does: the structure is asked
 * only on the way to sleep. It belongs to one thread. */
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

static inline void hoop_spin_pause(void) /* tells the CPU that this is a loop of waiting */
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
