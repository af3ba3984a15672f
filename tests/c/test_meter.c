#include "check.h"
#include "meter.h"

static hoop_meter meter;

TEST(a_new_meter_is_all_zero)
{
    hoop_meter_reset(&meter, 500);
    CHECK_EQ(meter.turns + meter.callbacks + meter.events + meter.polls + meter.sleeps, 0);
    CHECK_EQ(meter.busy_ns, 0);
    CHECK_EQ(meter.idle_ns, 0);
    CHECK_EQ(meter.looked_ns, 500);
    CHECK_EQ(meter.lag.count, 0);
    CHECK_EQ(meter.lateness.count, 0);
}

TEST(time_is_either_busy_or_idle)
{
    hoop_meter_reset(&meter, 0);
    hoop_meter_start(&meter, 1000);
    hoop_meter_looked(&meter, 1010);
    hoop_meter_looked(&meter, 1040);
    CHECK_EQ(meter.busy_ns, 0); /* not yet counted */
    hoop_meter_asleep(&meter, 1100);
    CHECK_EQ(meter.busy_ns, 100);
    CHECK_EQ(meter.idle_ns, 0);
    hoop_meter_woke(&meter, 1900);
    CHECK_EQ(meter.idle_ns, 800);
    hoop_meter_looked(&meter, 1905);
    hoop_meter_stop(&meter, 1950);
    CHECK_EQ(meter.busy_ns, 150);
    CHECK_EQ(meter.idle_ns, 800);
}

TEST(time_between_two_runs_is_neither)
{
    hoop_meter_reset(&meter, 0);
    hoop_meter_start(&meter, 100);
    hoop_meter_stop(&meter, 200);
    hoop_meter_start(&meter, 10000);
    hoop_meter_looked(&meter, 10030);
    hoop_meter_stop(&meter, 10100);
    CHECK_EQ(meter.busy_ns, 200);
    CHECK_EQ(meter.idle_ns, 0);
    CHECK_EQ(meter.lag.max_ns, 30);
}

TEST(lag_is_the_time_between_two_looks_without_the_sleep)
{
    hoop_meter_reset(&meter, 0);
    hoop_meter_start(&meter, 0);
    hoop_meter_looked(&meter, 7);
    hoop_meter_looked(&meter, 27);
    hoop_meter_asleep(&meter, 30);
    hoop_meter_woke(&meter, 1000000);
    hoop_meter_looked(&meter, 1000011);
    CHECK_EQ(meter.lag.count, 4); /* 7, 20, 3, 11 */
    CHECK_EQ(meter.lag.sum_ns, 41);
    CHECK_EQ(meter.lag.max_ns, 20);
}

TEST(a_clock_that_stands_still_or_goes_back_is_no_lag)
{
    hoop_meter_reset(&meter, 0);
    hoop_meter_start(&meter, 50);
    hoop_meter_looked(&meter, 50);
    hoop_meter_looked(&meter, 40);
    CHECK_EQ(meter.lag.count, 2);
    CHECK_EQ(meter.lag.max_ns, 0);
}

TEST(lateness_is_the_time_since_the_deadline)
{
    hoop_meter_reset(&meter, 0);
    hoop_meter_start(&meter, 100);
    hoop_meter_looked(&meter, 130);
    hoop_meter_timers_due(&meter, 118, 130);
    hoop_meter_asleep(&meter, 140);
    hoop_meter_woke(&meter, 205);
    hoop_meter_timers_due(&meter, 200, 205);
    CHECK_EQ(meter.lateness.count, 2); /* 12, 5 */
    CHECK_EQ(meter.lateness.sum_ns, 17);
    CHECK_EQ(meter.lateness.max_ns, 12);
}

TEST(a_deadline_long_past_is_late_since_the_previous_look_only)
{
    hoop_meter_reset(&meter, 0);
    hoop_meter_start(&meter, 1000);
    hoop_meter_timers_due(&meter, -5000, 1000); /* due before the loop ran */
    CHECK_EQ(meter.lateness.max_ns, 0);
    hoop_meter_looked(&meter, 1030);
    hoop_meter_timers_due(&meter, -5000, 1030);
    CHECK_EQ(meter.lateness.max_ns, 30);
    hoop_meter_timers_due(&meter, 3, 1072); /* a turn without a poll */
    CHECK_EQ(meter.lateness.max_ns, 42);
    CHECK_EQ(meter.lateness.count, 3);
    CHECK_EQ(meter.lag.count, 1);
}

TEST(a_reset_while_running_begins_anew)
{
    hoop_meter_reset(&meter, 0);
    hoop_meter_start(&meter, 100);
    meter.turns = 5;
    hoop_meter_looked(&meter, 150);
    hoop_meter_reset(&meter, 160);
    CHECK_EQ(meter.turns, 0);
    CHECK_EQ(meter.lag.count, 0);
    hoop_meter_stop(&meter, 170);
    CHECK_EQ(meter.busy_ns, 10);
}

int main(void)
{
    RUN(a_new_meter_is_all_zero);
    RUN(time_is_either_busy_or_idle);
    RUN(time_between_two_runs_is_neither);
    RUN(lag_is_the_time_between_two_looks_without_the_sleep);
    RUN(a_clock_that_stands_still_or_goes_back_is_no_lag);
    RUN(lateness_is_the_time_since_the_deadline);
    RUN(a_deadline_long_past_is_late_since_the_previous_look_only);
    RUN(a_reset_while_running_begins_anew);
    return check_finish();
}
