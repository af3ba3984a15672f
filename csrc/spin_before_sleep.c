#include "spin_before_sleep.h"

#include "clock.h"

int hoop_spin_before_sleep(hoop_spin *spin, hoop_inbox *inbox, hoop_poller *poller, hoop_event *events, int capacity,
                           int64_t *timeout_ns, hoop_spin_for what)
{
    bool is_short = *timeout_ns >= 0 && *timeout_ns < spin->limit_ns;
    int64_t limit_ns = is_short ? *timeout_ns : spin->limit_ns;
    int64_t began_ns = hoop_clock_ns();
    int64_t now_ns = began_ns;
    int count = 0;
    bool has_arrived = !hoop_inbox_is_empty(inbox);
    while (!has_arrived && count == 0 && now_ns - began_ns < limit_ns) {
        hoop_spin_pause();
        count = hoop_poller_wait(poller, events, capacity, 0);
        has_arrived = !hoop_inbox_is_empty(inbox);
        now_ns = hoop_clock_ns();
    }
    bool has_paid = (has_arrived && (what & HOOP_SPIN_FOR_NODES)) || (count != 0 && (what & HOOP_SPIN_FOR_EVENTS));
    if (has_arrived || count == 0 || what != HOOP_SPIN_FOR_NODES)
        hoop_spin_ended(spin, has_paid);
    if (*timeout_ns > 0)
        *timeout_ns = *timeout_ns > now_ns - began_ns ? *timeout_ns - (now_ns - began_ns) : 0;
    return count;
}
