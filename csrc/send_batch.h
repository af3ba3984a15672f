/* send_batch.h: what is to be sent on many sockets, sent by one system call, where the system has one for it (io_uring
 * of Linux 6.6 and newer). The socket calls themselves are as dear as ever; what is saved is the way into the kernel and
 * out of it, which makes up a tenth of a small answer.
 *
 * The kernel makes each send before the call returns: nothing is in flight between two calls. */
#ifndef HOOP_SEND_BATCH_H
#define HOOP_SEND_BATCH_H

#include "base.h"
#include <sys/types.h>
#include <sys/uio.h>

#define HOOP_SEND_BATCH_MAX 64                   /* sends of one call */
#define HOOP_SEND_BATCH_LEAST 4                  /* fewer gain nothing */
#define HOOP_SEND_BATCH_ROOM ((size_t)32 * 1024) /* bytes that are joined from several buffers, of all sends */

typedef struct hoop_send_batch hoop_send_batch;

/* NULL where the system has no such call, or forbids it, or is short of something. */
hoop_send_batch *hoop_send_batch_open(void);
void hoop_send_batch_close(hoop_send_batch *batch); /* NULL is fine */

/* One more: a non-blocking stream socket, and count buffers for it. The caller keeps them as they are until
 * hoop_send_batch_send(). False when it is full, or when the buffers are many and not small. */
bool hoop_send_batch_add(hoop_send_batch *batch, int fd, const struct iovec *buffers, int count);
int hoop_send_batch_count(const hoop_send_batch *batch);
void hoop_send_batch_clear(hoop_send_batch *batch); /* forget what was added */

/* Send what was added, in that order, and forget it. results[i] is what send(2) of the i-th gives: the bytes taken, or
 * -errno; -EAGAIN also where it was not tried, or this way of sending is refused: the caller's own send(2) tells.
 * Returns 0, or -errno when the kernel no longer takes batches. */
int hoop_send_batch_send(hoop_send_batch *batch, ssize_t *results);

#endif
