/* expiry.h: queues of things that expire when nothing has happened to them for a fixed time.
 *
 * All nodes of a queue wait equally long, so the order of expiry is the order of the latest activity, and noting
 * activity is moving a node to the end of a list: a few stores, whatever the number of nodes, and no heap. The queue's
 * owner needs one timer, for the first node.
 *
 * A node is embedded in its owner and stands in at most one queue; the queue owns no nodes. Neither may move in memory
 * while a node waits. */
#ifndef HOOP_EXPIRY_H
#define HOOP_EXPIRY_H

#include "base.h"

typedef struct hoop_expiry_node hoop_expiry_node;
struct hoop_expiry_node {
    hoop_expiry_node *next; /* NULL while it does not wait */
    hoop_expiry_node *previous;
    int64_t since_ns; /* the latest activity */
    void *owner;
};

typedef struct hoop_expiry_queue {
    hoop_expiry_node ends; /* before the first and behind the last node */
    int64_t timeout_ns;
} hoop_expiry_queue;

void hoop_expiry_queue_init(hoop_expiry_queue *queue, int64_t timeout_ns); /* empty; timeout_ns > 0 */
void hoop_expiry_node_init(hoop_expiry_node *node, void *owner);           /* does not wait */

/* The first node, if it has waited for the queue's time at now_ns; it is taken out. NULL when none is due. */
hoop_expiry_node *hoop_expiry_pop_due(hoop_expiry_queue *queue, int64_t now_ns);
/* When the first node expires; when_empty if there is none. A time beyond the range is INT64_MAX. */
int64_t hoop_expiry_deadline_ns(const hoop_expiry_queue *queue, int64_t when_empty);

static inline bool hoop_expiry_is_empty(const hoop_expiry_queue *queue)
{
    return queue->ends.next == &queue->ends;
}

/* Stop waiting. Idempotent. */
static inline void hoop_expiry_leave(hoop_expiry_node *node)
{
    if (node->next == NULL)
        return;
    node->next->previous = node->previous;
    node->previous->next = node->next;
    node->next = node->previous = NULL;
}

/* Activity at now_ns: move to the end of the queue, or join it there. A clock that went back counts as one that stood
 * still, so that the list stays in order. */
static inline void hoop_expiry_touch(hoop_expiry_queue *queue, hoop_expiry_node *node, int64_t now_ns)
{
    hoop_expiry_node *last;
    hoop_expiry_leave(node);
    last = queue->ends.previous;
    node->since_ns = last != &queue->ends && last->since_ns > now_ns ? last->since_ns : now_ns;
    node->next = &queue->ends;
    node->previous = last;
    last->next = node;
    queue->ends.previous = node;
}

#endif
