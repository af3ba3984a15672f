#include "meter.h"

void hoop_meter_reset(hoop_meter *meter, int64_t now_ns)
{
    *meter = (hoop_meter){.counted_ns = now_ns, .looked_ns = now_ns, .looked_before_ns = now_ns};
    hoop_histogram_init(&meter->lag);
    hoop_histogram_init(&meter->lateness);
}
