/* spin_for_inbox.h: looks for what other threads post, and for events, before a loop sleeps. */
#ifndef HOOP_SPIN_FOR_INBOX_H
#define HOOP_SPIN_FOR_INBOX_H

#include "inbox.h"
#include "poller.h"
#include "spin.h"

/* After hoop_spin_may: look for a node in inbox, and for events, for at most *timeout_ns (below 0: for ever), which is
 * then set to what is left of it. As hoop_poller_wait: the number of events, 0, or -errno; also 0 when there is a node.
 * Calls hoop_spin_ended, unless it ends with an event, which says nothing about nodes. */
int hoop_spin_for_inbox(hoop_spin *spin, hoop_inbox *inbox, hoop_poller *poller, hoop_event *events, int capacity,
                        int64_t *timeout_ns);

#endif
