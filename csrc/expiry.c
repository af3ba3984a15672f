#include "expiry.h"

void hoop_expiry_queue_init(hoop_expiry_queue *queue, int64_t timeout_ns)
{
    HOOP_ASSERT(timeout_ns > 0);
    queue->ends.next = queue->ends.previous = &queue->ends;
    queue->ends.since_ns = 0;
    queue->ends.owner = NULL;
    queue->timeout_ns = timeout_ns;
}

void hoop_expiry_node_init(hoop_expiry_node *node, void *owner)
{
    node->next = node->previous = NULL;
    node->since_ns = 0;
    node->owner = owner;
}

int64_t hoop_expiry_deadline_ns(const hoop_expiry_queue *queue, int64_t when_empty)
{
    if (hoop_expiry_is_empty(queue))
        return when_empty;
    int64_t since_ns = queue->ends.next->since_ns;
    return since_ns > INT64_MAX - queue->timeout_ns ? INT64_MAX : since_ns + queue->timeout_ns;
}

hoop_expiry_node *hoop_expiry_pop_due(hoop_expiry_queue *queue, int64_t now_ns)
{
    if (hoop_expiry_is_empty(queue) || hoop_expiry_deadline_ns(queue, INT64_MAX) > now_ns)
        return NULL;
    hoop_expiry_node *first = queue->ends.next;
    hoop_expiry_leave(first);
    return first;
}
