#include "ring.h"

#include <string.h>

enum { FIRST_CAPACITY = 64 };

void hoop_ring_init(hoop_ring *ring)
{
    *ring = (hoop_ring){0};
}

void hoop_ring_free(hoop_ring *ring)
{
    free(ring->items);
    hoop_ring_init(ring);
}

/* head and tail go on counting: only the mask gets one bit more. So an item moves by the old capacity if its number has
 * that bit set, and else stays. Numbers in the ring are consecutive, hence all those from the head to the old array's
 * end move or all of them stay, and those that had wrapped around do the opposite: one block is copied. */
int hoop_ring_grow(hoop_ring *ring)
{
    size_t old = ring->capacity;
    if (old > UINT32_MAX / 2 || old > SIZE_MAX / 2 / sizeof(void *))
        return -ENOMEM;
    size_t capacity = old == 0 ? FIRST_CAPACITY : old * 2;
    void **items = realloc(ring->items, capacity * sizeof(void *));
    if (items == NULL)
        return -ENOMEM;
    if (old > 0) {
        size_t start = ring->head & (old - 1);
        if (ring->head & old)
            memcpy(items + old + start, items + start, (old - start) * sizeof(void *));
        else
            memcpy(items + old, items, start * sizeof(void *));
    }
    ring->items = items;
    ring->capacity = (uint32_t)capacity;
    return 0;
}

int hoop_ring_visit(const hoop_ring *ring, hoop_visit_fn visit, void *arg)
{
    for (uint32_t i = ring->head; i != ring->tail; i++) {
        int result = visit(ring->items[i & (ring->capacity - 1)], arg);
        if (result != 0)
            return result;
    }
    return 0;
}
