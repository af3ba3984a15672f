/* spin_before_sleep.h: looks for what other threads post, and for events, before a loop sleeps. */
#ifndef HOOP_SPIN_BEFORE_SLEEP_H
#define HOOP_SPIN_BEFORE_SLEEP_H

#include "inbox.h"
#include "poller.h"
#include "spin.h"

typedef enum hoop_spin_for {
    HOOP_SPIN_FOR_NODES = 1,
    /* Who posts with the GIL keeps it for a moment yet: a loop that was asleep is no later, and leaves it a core. */
    HOOP_SPIN_FOR_EVENTS = 2,
    HOOP_SPIN_FOR_BOTH = HOOP_SPIN_FOR_NODES | HOOP_SPIN_FOR_EVENTS
} hoop_spin_for;

/* After hoop_spin_may: look for a node in inbox, and for events, for at most *timeout_ns (below 0: for ever), which is
 * then set to what is left of it. As hoop_poller_wait: the number of events, 0, or -errno; also 0 when there is a node.
 * Calls hoop_spin_ended: a look pays if it ends with what it is for, and is in vain if it ends with something else. But
 * one for nodes alone that ends with an event says nothing about them, and is not counted. */
int hoop_spin_before_sleep(hoop_spin *spin, hoop_inbox *inbox, hoop_poller *poller, hoop_event *events, int capacity,
                           int64_t *timeout_ns, hoop_spin_for what);

#endif
