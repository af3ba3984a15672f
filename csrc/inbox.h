/* inbox.h: how other threads hand work to the loop: many producers, one consumer, first in first out per producer.
 *
 * Producers push an intrusive node from any thread, with or without the GIL, without a lock and without allocating.
 * The consumer takes everything at once. A wake-up is asked for only when the loop is asleep or about to sleep, and
 * only by one producer: many pushes cost one write(2).
 *
 * The sleeping protocol (it must not lose a wake-up: libuv#2226):
 *     consumer: if (hoop_inbox_prepare_sleep(inbox)) wait for events;   hoop_inbox_awake(inbox);
 *     producer: if (hoop_inbox_push(inbox, node)) hoop_waker_wake(waker);
 * The store of "sleeping" and the load of the list are sequentially consistent on both sides, so either the consumer
 * sees the node or the producer sees the sleeper.
 *
 * A consumer that was woken drains the waker before it next prepares to sleep. A push touches the inbox once more after
 * the node has become the consumer's: the inbox must outlive every push that has begun, the node need not.
 *
 * hoop_inbox_visit may run beside producers but not beside the consumer. */
#ifndef HOOP_INBOX_H
#define HOOP_INBOX_H

#include "base.h"
#include <stdatomic.h>

typedef struct hoop_inbox_node {
    struct hoop_inbox_node *next;
} hoop_inbox_node;

typedef struct hoop_inbox {
    _Atomic(hoop_inbox_node *) newest; /* a stack; the consumer reverses it */
    atomic_int sleeping;
} hoop_inbox;

void hoop_inbox_init(hoop_inbox *inbox);
/* 1 when the caller must wake the consumer, else 0. The node must not be in an inbox already. */
int hoop_inbox_push(hoop_inbox *inbox, hoop_inbox_node *node);
/* Everything pushed so far as a list linked by next, oldest first; NULL when empty. */
hoop_inbox_node *hoop_inbox_take(hoop_inbox *inbox);
/* true: the consumer may block, every later push will ask for a wake-up. false: there is work, do not block. */
bool hoop_inbox_prepare_sleep(hoop_inbox *inbox);
void hoop_inbox_awake(hoop_inbox *inbox);
int hoop_inbox_visit(hoop_inbox *inbox, hoop_visit_fn visit, void *arg); /* newest first; hoop_inbox_node* */

static inline bool hoop_inbox_is_empty(hoop_inbox *inbox)
{
    return atomic_load_explicit(&inbox->newest, memory_order_acquire) == NULL;
}

#endif
