/* poller.c: the front of the poller: slots, generations and wishes. poller.h is the contract.
 *
 * Invariants between two calls:
 *   - slots[fd].applied is what the kernel was last told; wanted and applied are 0 when the slot is not live;
 *   - a live slot whose wanted differs from its applied is on the dirty list;
 *   - a number is on the dirty list exactly when its slot's dirty flag is set, so at most once, and the list's capacity
 *     is the number of slots: noting a wish never allocates;
 *   - generations outlive a registration: remove + add gives a number that no event in flight carries. They wrap after
 *     2^32 registrations of one number, which an event in flight cannot outlast. */
#include "poller_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define FIRST_COUNT 64 /* of a table by descriptor number */

static const hoop_poller_backend *const backends[] = {
#if HOOP_HAVE_EPOLL
    &hoop_poller_epoll_backend,
#endif
#if HOOP_HAVE_KQUEUE
    &hoop_poller_kqueue_backend,
#endif
    &hoop_poller_poll_backend,
};

#define BACKEND_COUNT ((int)(sizeof(backends) / sizeof(backends[0])))

const hoop_poller_backend *hoop_poller_backend_at(int index)
{
    return index >= 0 && index < BACKEND_COUNT ? backends[index] : NULL;
}

static const hoop_poller_backend *find_backend(const char *name)
{
    if (name == NULL)
        return backends[0];
    for (int i = 0; i < BACKEND_COUNT; i++) {
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    }
    return NULL;
}

int hoop_poller_open(hoop_poller *poller, const char *name)
{
    memset(poller, 0, sizeof(*poller));
    poller->backend_fd = -1;
    const hoop_poller_backend *backend = find_backend(name);
    if (backend == NULL)
        return -ENOTSUP;
    int result = backend->open(poller);
    if (result < 0)
        return result;
    poller->backend = backend;
    return 0;
}

void hoop_poller_close(hoop_poller *poller)
{
    if (poller->backend == NULL)
        return;
    poller->backend->close(poller);
    free(poller->slots);
    free(poller->dirty);
    memset(poller, 0, sizeof(*poller));
    poller->backend_fd = -1;
}

/* The slot of a live registration, or NULL. */
static hoop_slot *live_slot(const hoop_poller *poller, int fd)
{
    if (fd < 0 || fd >= poller->slot_count || !poller->slots[fd].live)
        return NULL;
    return &poller->slots[fd];
}

void *hoop_poller_reserve(void *table, int *count, size_t item_size, int fd)
{
    if (fd < *count)
        return table;
    int64_t larger = *count > 0 ? *count : FIRST_COUNT;
    while (larger <= fd)
        larger *= 2;
    if (larger > INT_MAX)
        larger = INT_MAX;
    if (fd >= larger || (uint64_t)larger > SIZE_MAX / item_size)
        return NULL;
    char *grown = realloc(table, (size_t)larger * item_size);
    if (grown == NULL)
        return NULL;
    memset(grown + (size_t)*count * item_size, 0, (size_t)(larger - *count) * item_size);
    *count = (int)larger;
    return grown;
}

/* The list of wishes grows first, so that it is never shorter than the slots. */
static int reserve_slot(hoop_poller *poller, int fd)
{
    if (fd < poller->slot_count)
        return 0;
    int *dirty = hoop_poller_reserve(poller->dirty, &poller->dirty_capacity, sizeof(*dirty), fd);
    if (dirty == NULL)
        return -ENOMEM;
    poller->dirty = dirty;
    hoop_slot *slots = hoop_poller_reserve(poller->slots, &poller->slot_count, sizeof(*slots), fd);
    if (slots == NULL)
        return -ENOMEM;
    poller->slots = slots;
    return 0;
}

static void next_generation(hoop_slot *slot)
{
    if (++slot->generation == 0)
        slot->generation = 1;
}

/* EXCLUSIVE and EDGE have a meaning with READABLE alone; they are dropped elsewhere, so that no back end has to look. */
static uint8_t normal_interest(unsigned interest)
{
    unsigned directions = interest & (HOOP_READABLE | HOOP_WRITABLE);
    unsigned known = HOOP_READABLE | HOOP_EXCLUSIVE | HOOP_EDGE;
    return (uint8_t)(directions == HOOP_READABLE ? interest & known : directions);
}

static void note_wish(hoop_poller *poller, int fd)
{
    hoop_slot *slot = &poller->slots[fd];
    if (slot->dirty || slot->wanted == slot->applied)
        return;
    HOOP_ASSERT(poller->dirty_count < poller->dirty_capacity);
    poller->dirty[poller->dirty_count++] = fd;
    slot->dirty = 1;
}

/* The slot may stay on the dirty list: there is no difference to apply until it is live again. */
static void end_registration(hoop_poller *poller, hoop_slot *slot)
{
    slot->live = 0;
    slot->wanted = 0;
    slot->applied = 0;
    poller->live_count--;
}

int hoop_poller_add(hoop_poller *poller, int fd, unsigned interest)
{
    if (fd < 0 || poller->backend == NULL)
        return -EBADF;
    if (live_slot(poller, fd) != NULL)
        return -EEXIST;
    uint8_t wanted = normal_interest(interest);
    if ((wanted == 0 || fd >= poller->slot_count) && fcntl(fd, F_GETFD) < 0)
        return -errno;
    int result = reserve_slot(poller, fd);
    if (result < 0)
        return result;
    hoop_slot *slot = &poller->slots[fd];
    next_generation(slot);
    if (wanted != 0) {
        result = poller->backend->apply(poller, fd, slot->generation, 0, wanted);
        if (result < 0)
            return result;
    }
    slot->live = 1;
    slot->wanted = wanted;
    slot->applied = wanted;
    poller->live_count++;
    return 0;
}

int hoop_poller_set(hoop_poller *poller, int fd, unsigned interest)
{
    hoop_slot *slot = live_slot(poller, fd);
    if (slot == NULL)
        return -ENOENT;
    slot->wanted = normal_interest(interest);
    note_wish(poller, fd);
    return 0;
}

int hoop_poller_rearm(hoop_poller *poller, int fd, unsigned interest)
{
    hoop_slot *slot = live_slot(poller, fd);
    if (slot == NULL)
        return -ENOENT;
    uint8_t wanted = normal_interest(interest);
    next_generation(slot);
    int result = poller->backend->apply(poller, fd, slot->generation, HOOP_READABLE | HOOP_WRITABLE, wanted);
    if (result < 0) {
        end_registration(poller, slot);
        return result;
    }
    slot->wanted = wanted;
    slot->applied = wanted;
    return 0;
}

int hoop_poller_remove(hoop_poller *poller, int fd)
{
    hoop_slot *slot = live_slot(poller, fd);
    if (slot == NULL)
        return -ENOENT;
    /* A refusal is dropped: the owner wants to be rid of fd, and the generation makes what is left stale. */
    if (slot->applied != 0)
        (void)poller->backend->apply(poller, fd, slot->generation, slot->applied, 0);
    end_registration(poller, slot);
    return 0;
}

void hoop_poller_forget(hoop_poller *poller, int fd)
{
    hoop_slot *slot = live_slot(poller, fd);
    if (slot == NULL)
        return;
    if (poller->backend->forget != NULL)
        poller->backend->forget(poller, fd);
    end_registration(poller, slot);
}

static bool lacks_room(int result)
{
    return result == -ENOMEM || result == -ENOSPC;
}

int hoop_poller_rebuild(hoop_poller *poller)
{
    const hoop_poller_backend *backend = poller->backend;
    bool refused = false;
    if (backend == NULL)
        return -EBADF;
    hoop_poller old = *poller;
    poller->backend_fd = -1;
    poller->backend_state = NULL;
    int result = backend->open(poller);
    if (result < 0) {
        *poller = old;
        return result;
    }
    for (int fd = 0; fd < poller->slot_count; fd++) {
        const hoop_slot *slot = &poller->slots[fd];
        if (!slot->live || slot->wanted == 0)
            continue;
        result = backend->apply(poller, fd, slot->generation, 0, slot->wanted);
        if (lacks_room(result)) {
            backend->close(poller);
            *poller = old;
            return result;
        }
        refused = refused || result < 0;
    }
    backend->close(&old);
    for (int fd = 0; fd < poller->slot_count; fd++) {
        hoop_slot *slot = &poller->slots[fd];
        slot->applied = refused ? 0 : slot->wanted;
        if (slot->live)
            note_wish(poller, fd);
    }
    return 0;
}

/* Tell the back end every wish that still differs. Refusals become events; when there is no room for another event, the
 * rest of the list waits for the next call. Returns the number of events. */
static int apply_wishes(hoop_poller *poller, hoop_event *events, int capacity)
{
    int failed = 0;
    while (poller->dirty_count > 0 && failed < capacity) {
        int fd = poller->dirty[--poller->dirty_count];
        hoop_slot *slot = &poller->slots[fd];
        slot->dirty = 0;
        if (slot->wanted == slot->applied)
            continue;
        int result = poller->backend->apply(poller, fd, slot->generation, slot->applied, slot->wanted);
        if (result >= 0) {
            slot->applied = slot->wanted;
            continue;
        }
        slot->wanted = 0;
        slot->applied = 0;
        events[failed++] =
            (hoop_event){.fd = fd, .generation = slot->generation, .events = HOOP_FAILED, .error = -result};
    }
    return failed;
}

int hoop_poller_wait(hoop_poller *poller, hoop_event *events, int capacity, int64_t timeout_ns)
{
    if (HOOP_UNLIKELY(poller->backend == NULL))
        return -EBADF;
    if (HOOP_UNLIKELY(capacity <= 0))
        return -EINVAL;
    int failed = 0;
    if (poller->dirty_count > 0) {
        failed = apply_wishes(poller, events, capacity);
        if (HOOP_UNLIKELY(failed > 0)) {
            if (failed == capacity)
                return failed;
            timeout_ns = 0;
        }
    }
    int ready = poller->backend->wait(poller, events + failed, capacity - failed, timeout_ns);
    if (HOOP_UNLIKELY(failed > 0))
        return ready > 0 ? failed + ready : failed; /* an error of the wait itself will come again */
    return ready;
}
