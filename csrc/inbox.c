#include "inbox.h"

/* Why no wake-up is lost. Push does A: put the node on the list, then B: read `sleeping`. The consumer does C: set
 * `sleeping`, then D: read the list. All four are sequentially consistent, so they have one order. Either A is before
 * D, and the consumer sees the node; or D is before A, hence C before B, and the producer sees the sleeper (or finds
 * that another producer has claimed the wake-up since).
 *
 * Only the exchange from 1 to 0 claims a wake-up, so one sleep costs one write(2). The producer may write after the
 * consumer has awoken for another reason, and even after it has gone to sleep again: that is one wake-up too many,
 * never one too few.
 *
 * The list is a stack that is only pushed to and taken as a whole, so there is no ABA problem: a compare-and-swap that
 * finds the same pointer has the right `next` even if that node was taken and pushed again in between. */

void hoop_inbox_init(hoop_inbox *inbox)
{
    atomic_init(&inbox->newest, NULL);
    atomic_init(&inbox->sleeping, 0);
}

int hoop_inbox_push(hoop_inbox *inbox, hoop_inbox_node *node)
{
    hoop_inbox_node *newest = atomic_load_explicit(&inbox->newest, memory_order_relaxed);
    do {
        node->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&inbox->newest, &newest, node, memory_order_seq_cst,
                                                    memory_order_relaxed));
    /* From here on the node is the consumer's, which may have freed it. */
    if (HOOP_LIKELY(atomic_load_explicit(&inbox->sleeping, memory_order_seq_cst) == 0))
        return 0;
    return atomic_exchange_explicit(&inbox->sleeping, 0, memory_order_seq_cst);
}

hoop_inbox_node *hoop_inbox_take(hoop_inbox *inbox)
{
    if (hoop_inbox_is_empty(inbox)) /* a load is cheaper than an exchange, and most turns find nothing */
        return NULL;
    hoop_inbox_node *node = atomic_exchange_explicit(&inbox->newest, NULL, memory_order_acquire);
    hoop_inbox_node *oldest = NULL;
    while (node != NULL) {
        hoop_inbox_node *next = node->next;
        node->next = oldest;
        oldest = node;
        node = next;
    }
    return oldest;
}

bool hoop_inbox_prepare_sleep(hoop_inbox *inbox)
{
    atomic_store_explicit(&inbox->sleeping, 1, memory_order_seq_cst);
    if (HOOP_LIKELY(atomic_load_explicit(&inbox->newest, memory_order_seq_cst) == NULL))
        return true;
    hoop_inbox_awake(inbox);
    return false;
}

/* Relaxed: a producer that still reads 1 makes a needless wake-up, which is harmless. */
void hoop_inbox_awake(hoop_inbox *inbox)
{
    atomic_store_explicit(&inbox->sleeping, 0, memory_order_relaxed);
}

int hoop_inbox_visit(hoop_inbox *inbox, hoop_visit_fn visit, void *arg)
{
    hoop_inbox_node *node = atomic_load_explicit(&inbox->newest, memory_order_acquire);
    while (node != NULL) {
        hoop_inbox_node *next = node->next;
        int result = visit(node, arg);
        if (result != 0)
            return result;
        node = next;
    }
    return 0;
}
