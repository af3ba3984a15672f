/* send_batch.c: io_uring(7), with its system calls alone: what is needed of it is little.
 *
 *   - A send with MSG_DONTWAIT is made inside io_uring_enter(2), and ends there, with -EAGAIN where the socket is full.
 *     Kernels before 5.18 may go on with it behind the caller's back; IORING_SETUP_NO_SQARRAY, which is of 6.6, keeps
 *     older ones out.
 *   - Sandboxes, containers and operators forbid io_uring often (EPERM, ENOSYS): then there is no batch.
 *   - The kernel's own header may be older than the kernel, so the few structures of its ABI are written down here. */
#include "send_batch.h"

#include "net_internal.h"
#include "platform.h"

#if HOOP_HAVE_IO_URING

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_io_uring_setup /* the same on all architectures that it was not written for */
#define SYS_io_uring_setup 425
#define SYS_io_uring_enter 426
#endif

enum {
    OPERATION_SEND = 26,
    SUBMIT_ALL = 1 << 7,  /* a request that is refused does not stop those behind it */
    NO_SQARRAY = 1 << 16, /* requests are taken in the order of their places */
    GETEVENTS = 1,
    HAS_SINGLE_MMAP = 1,
    MAPS_RINGS = 0,
    MAPS_REQUESTS = 0x10000000,
};

struct ring_offsets {
    uint32_t head, tail, mask, entries;
    uint32_t more[4]; /* of completions: overflow, cqes, flags, - */
    uint64_t user_address;
};

struct parameters {
    uint32_t requests, completions, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, reserved[3];
    struct ring_offsets request_ring, completion_ring;
};

struct request {
    uint8_t operation, flags;
    uint16_t priority;
    int32_t fd;
    uint64_t offset, address;
    uint32_t size, message_flags;
    uint64_t number;
    uint64_t more[3];
};

struct completion {
    uint64_t number;
    int32_t result;
    uint32_t flags;
};

_Static_assert(sizeof(struct parameters) == 120, "struct io_uring_params");
_Static_assert(sizeof(struct request) == 64, "struct io_uring_sqe");
_Static_assert(sizeof(struct completion) == 16, "struct io_uring_cqe");

struct send_request {
    int fd;
    const void *start;
    size_t size;
};

struct hoop_send_batch {
    int ring;
    int count;
    char *rings; /* mapped: heads, tails and completions */
    size_t rings_size;
    struct request *requests; /* mapped */
    size_t requests_size;
    _Atomic uint32_t *request_tail, *completion_head, *completion_tail;
    const struct completion *completions;
    uint32_t request_mask, completion_mask;
    size_t joined_size;
    struct send_request sends[HOOP_SEND_BATCH_MAX];
    char joined[HOOP_SEND_BATCH_ROOM];
};

static bool map_rings(hoop_send_batch *batch, const struct parameters *parameters)
{
    const struct ring_offsets *requests = &parameters->request_ring;
    const struct ring_offsets *completions = &parameters->completion_ring;
    size_t first_completion = completions->more[1];
    batch->rings_size = first_completion + parameters->completions * sizeof(struct completion);
    batch->requests_size = parameters->requests * sizeof(struct request);
    void *rings = mmap(NULL, batch->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED, batch->ring, MAPS_RINGS);
    if (rings == MAP_FAILED)
        return false;
    batch->rings = rings;
    void *mapped = mmap(NULL, batch->requests_size, PROT_READ | PROT_WRITE, MAP_SHARED, batch->ring, MAPS_REQUESTS);
    if (mapped == MAP_FAILED)
        return false;
    batch->requests = mapped;
    batch->request_tail = (_Atomic uint32_t *)(void *)(batch->rings + requests->tail);
    batch->request_mask = *(uint32_t *)(void *)(batch->rings + requests->mask);
    batch->completion_head = (_Atomic uint32_t *)(void *)(batch->rings + completions->head);
    batch->completion_tail = (_Atomic uint32_t *)(void *)(batch->rings + completions->tail);
    batch->completion_mask = *(uint32_t *)(void *)(batch->rings + completions->mask);
    batch->completions = (const struct completion *)(void *)(batch->rings + first_completion);
    return true;
}

hoop_send_batch *hoop_send_batch_open(void)
{
    hoop_send_batch *batch = malloc(sizeof(*batch)); /* its room costs nothing until it is filled */
    if (batch == NULL)
        return NULL;
    memset(batch, 0, offsetof(hoop_send_batch, sends));
    struct parameters parameters = {.flags = SUBMIT_ALL | NO_SQARRAY};
    batch->ring = (int)syscall(SYS_io_uring_setup, (long)HOOP_SEND_BATCH_MAX, &parameters);
    if (batch->ring < 0 || (parameters.features & HAS_SINGLE_MMAP) == 0 || !map_rings(batch, &parameters)) {
        hoop_send_batch_close(batch);
        return NULL;
    }
    return batch;
}

void hoop_send_batch_close(hoop_send_batch *batch)
{
    if (batch == NULL)
        return;
    if (batch->rings != NULL)
        HOOP_ASSERT(munmap(batch->rings, batch->rings_size) == 0);
    if (batch->requests != NULL)
        HOOP_ASSERT(munmap(batch->requests, batch->requests_size) == 0);
    if (batch->ring >= 0)
        close(batch->ring);
    free(batch);
}

/* Returns where count buffers stand together, and their size; NULL where they are too much for that, or nothing. */
static const void *join_buffers(hoop_send_batch *batch, const struct iovec *buffers, int count, size_t *size)
{
    char *start = batch->joined + batch->joined_size;
    size_t room = HOOP_SEND_BATCH_ROOM - batch->joined_size;
    *size = hoop_net_join_buffers(buffers, count, start, room < HOOP_NET_JOINED_MOST ? room : HOOP_NET_JOINED_MOST);
    batch->joined_size += *size;
    return *size > 0 ? start : NULL;
}

bool hoop_send_batch_add(hoop_send_batch *batch, int fd, const struct iovec *buffers, int count)
{
    if (batch->count == HOOP_SEND_BATCH_MAX || count < 1)
        return false;
    struct send_request *send = &batch->sends[batch->count];
    send->fd = fd;
    send->start = buffers[0].iov_base;
    send->size = buffers[0].iov_len;
    if (count > 1)
        send->start = join_buffers(batch, buffers, count, &send->size);
    if (send->start == NULL || send->size > HOOP_LARGEST_TRANSFER)
        return false;
    batch->count++;
    return true;
}

int hoop_send_batch_count(const hoop_send_batch *batch)
{
    return batch->count;
}

void hoop_send_batch_clear(hoop_send_batch *batch)
{
    batch->count = 0;
    batch->joined_size = 0;
}

static uint32_t fill_requests(hoop_send_batch *batch)
{
    uint32_t tail = atomic_load_explicit(batch->request_tail, memory_order_relaxed);
    for (int i = 0; i < batch->count; i++) {
        const struct send_request *send = &batch->sends[i];
        batch->requests[tail++ & batch->request_mask] = (struct request){
            .operation = OPERATION_SEND,
            .fd = send->fd,
            .address = (uintptr_t)send->start,
            .size = (uint32_t)send->size,
            .message_flags = HOOP_NET_SEND_FLAGS | MSG_DONTWAIT,
            .number = (uint64_t)i,
        };
    }
    return tail;
}

/* What the kernel says of the request, and not of the send, is no result. */
static ssize_t result_of(int32_t result)
{
    switch (result) {
    case -EINTR:
    case -EINVAL:
    case -ECANCELED:
    case -EOPNOTSUPP:
    case -ENOMEM:
        return -EAGAIN;
    default:
        return result;
    }
}

static int take_completions(hoop_send_batch *batch, ssize_t *results)
{
    uint32_t head = atomic_load_explicit(batch->completion_head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(batch->completion_tail, memory_order_acquire);
    int taken = 0;
    for (; head != tail; head++, taken++) {
        const struct completion *completion = &batch->completions[head & batch->completion_mask];
        results[completion->number] = result_of(completion->result);
    }
    atomic_store_explicit(batch->completion_head, head, memory_order_release);
    return taken;
}

int hoop_send_batch_send(hoop_send_batch *batch, ssize_t *results)
{
    int left = batch->count; /* to hand over */
    int due = 0;             /* handed over, and without a result */
    int error = 0;
    uint32_t tail = fill_requests(batch);
    for (int i = 0; i < batch->count; i++)
        results[i] = -EAGAIN;
    atomic_store_explicit(batch->request_tail, tail, memory_order_release);
    while (left > 0 || due > 0) {
        /* All end at once, so the call is not asked to wait. If ever one has not, it still uses its bytes: wait. */
        unsigned long flags = due > 0 ? GETEVENTS : 0;
        long taken = syscall(SYS_io_uring_enter, (long)batch->ring, (long)left, (long)due, flags, NULL, (size_t)0);
        if (HOOP_UNLIKELY(taken <= 0 && due == 0 && !(taken < 0 && errno == EINTR))) {
            error = taken < 0 ? -errno : -EAGAIN;
            break;
        }
        if (taken > 0) {
            left -= (int)taken;
            due += (int)taken;
        }
        due -= take_completions(batch, results);
    }
    if (HOOP_UNLIKELY(left > 0)) /* the kernel has not looked at them */
        atomic_store_explicit(batch->request_tail, tail - (uint32_t)left, memory_order_release);
    hoop_send_batch_clear(batch);
    return error;
}

#else

hoop_send_batch *hoop_send_batch_open(void)
{
    return NULL;
}

void hoop_send_batch_close(hoop_send_batch *batch)
{
    HOOP_ASSERT(batch == NULL);
}

bool hoop_send_batch_add(hoop_send_batch *batch, int fd, const struct iovec *buffers, int count)
{
    (void)batch, (void)fd, (void)buffers, (void)count;
    return false;
}

int hoop_send_batch_count(const hoop_send_batch *batch)
{
    (void)batch;
    return 0;
}

void hoop_send_batch_clear(hoop_send_batch *batch)
{
    (void)batch;
}

int hoop_send_batch_send(hoop_send_batch *batch, ssize_t *results)
{
    (void)batch, (void)results;
    return -ENOSYS;
}

#endif
