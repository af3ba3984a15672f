#include "check.h"
#include "ring.h"

TEST(an_empty_ring_has_no_storage)
{
    hoop_ring ring;
    hoop_ring_init(&ring);
    CHECK(ring.items == NULL);
    CHECK_EQ(hoop_ring_size(&ring), 0);
    CHECK(hoop_ring_pop(&ring) == NULL);
    hoop_ring_free(&ring);
}

int main(void)
{
    RUN(an_empty_ring_has_no_storage);
    return check_finish();
}
