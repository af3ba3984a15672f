/* ring.h: a growable first-in first-out ring of pointers: the ready queue and the microtask queues.
 *
 * Push and pop are inline and allocate only when the ring doubles. The capacity is 0 or a power of two; it never
 * shrinks while in use, so that a steady load allocates nothing. Items are never NULL. The ring does not own them. */
#ifndef HOOP_RING_H
#define HOOP_RING_H

#include "base.h"

typedef struct hoop_ring {
    void **items;
    uint32_t capacity; /* 0 or a power of two: of 32 bits, since each connection has a ring */
    uint32_t head;     /* counts pops, and overflows; the index is head & (capacity - 1) */
    uint32_t tail;     /* counts pushes */
} hoop_ring;

void hoop_ring_init(hoop_ring *ring); /* empty, nothing allocated */
void hoop_ring_free(hoop_ring *ring); /* frees the storage, not the items; the ring is empty and usable again */
int hoop_ring_grow(
    hoop_ring *ring); /* doubles (the first time to 64); 0 or -ENOMEM, also beyond 2^31; then unchanged */
int hoop_ring_visit(const hoop_ring *ring, hoop_visit_fn visit, void *arg); /* oldest first */

static inline size_t hoop_ring_size(const hoop_ring *ring)
{
    return ring->tail - ring->head;
}

static inline int hoop_ring_push(hoop_ring *ring, void *item) /* 0 or -ENOMEM */
{
    if (HOOP_UNLIKELY(ring->tail - ring->head == ring->capacity)) {
        int result = hoop_ring_grow(ring);
        if (result < 0)
            return result;
    }
    ring->items[ring->tail++ & (ring->capacity - 1)] = item;
    return 0;
}

static inline void *hoop_ring_pop(hoop_ring *ring) /* NULL when empty */
{
    if (ring->head == ring->tail)
        return NULL;
    return ring->items[ring->head++ & (ring->capacity - 1)];
}

#endif
