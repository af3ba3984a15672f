/* meter.h: counts what a loop does and how late it is: counters, busy and idle time, two histograms.
 *
 * A loop looks for work when it polls. Between two looks it is busy, and whatever becomes ready meanwhile waits: the
 * time between two looks is the longest that anything found can have waited. That is the lag, one sample for each look;
 * time spent asleep is not part of it. Timers also have lateness, one sample for each turn with due timers: that of the
 * timer which waited longest. A timer cannot have waited since before the previous look: it was added since then, with
 * a deadline that had already passed.
 *
 * The clock is read by the caller, once for a look that finds work and twice for one that falls asleep; time that
 * passes in turns without a poll belongs to the next look. A loop with timers needs those readings anyway.
 *
 *     start -> looked, looked, ... -> asleep -> woke -> looked ... -> stop
 */
#ifndef HOOP_METER_H
#define HOOP_METER_H

#include "base.h"
#include "histogram.h"

typedef struct hoop_meter {
    uint64_t turns;
    uint64_t callbacks; /* of every queue, microtasks among them */
    uint64_t events;    /* descriptors found ready and handed to their watchers */
    uint64_t polls;     /* turns that looked for events */
    uint64_t sleeps;    /* polls that blocked */
    int64_t busy_ns;    /* running, and not asleep; complete up to counted_ns */
    int64_t idle_ns;    /* asleep in the poller */
    int64_t counted_ns;
    int64_t looked_ns; /* when the latest look ended */
    int64_t looked_before_ns;
    hoop_histogram lag;
    hoop_histogram lateness;
} hoop_meter;

/* All zero, as if nothing had happened before now_ns; also while the loop runs. */
void hoop_meter_reset(hoop_meter *meter, int64_t now_ns);

static inline void hoop_meter_start(hoop_meter *meter, int64_t now_ns)
{
    meter->counted_ns = meter->looked_ns = meter->looked_before_ns = now_ns;
}

static inline void hoop_meter_stop(hoop_meter *meter, int64_t now_ns)
{
    meter->busy_ns += now_ns - meter->counted_ns;
    meter->counted_ns = now_ns;
}

static inline void hoop_meter_looked(hoop_meter *meter, int64_t now_ns)
{
    hoop_histogram_record(&meter->lag, now_ns - meter->looked_ns);
    meter->looked_before_ns = meter->looked_ns;
    meter->looked_ns = now_ns;
}

static inline void hoop_meter_asleep(hoop_meter *meter, int64_t now_ns)
{
    hoop_meter_looked(meter, now_ns);
    hoop_meter_stop(meter, now_ns);
}

static inline void hoop_meter_woke(hoop_meter *meter, int64_t now_ns)
{
    meter->idle_ns += now_ns - meter->counted_ns;
    meter->looked_before_ns = meter->looked_ns;
    meter->looked_ns = meter->counted_ns = now_ns;
}

/* now_ns is looked_ns, or later in a turn without a poll. */
static inline void hoop_meter_timers_due(hoop_meter *meter, int64_t deadline_ns, int64_t now_ns)
{
    int64_t previous_ns = now_ns > meter->looked_ns ? meter->looked_ns : meter->looked_before_ns;
    hoop_histogram_record(&meter->lateness, now_ns - (deadline_ns > previous_ns ? deadline_ns : previous_ns));
}

#endif
