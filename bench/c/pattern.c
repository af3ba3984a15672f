#include "pattern.h"

#include <string.h>

static char pattern[PATTERN_PERIOD + PATTERN_MAX_PIECE];

void pattern_prepare(void)
{
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < PATTERN_PERIOD; i++) {
        state ^= state << 13; /* xorshift64 (Marsaglia, 2003) */
        state ^= state >> 7;
        state ^= state << 17;
        pattern[i] = (char)(state >> 32);
    }
    for (size_t i = PATTERN_PERIOD; i < sizeof(pattern); i++)
        pattern[i] = pattern[i - PATTERN_PERIOD];
}

const char *pattern_at(uint32_t stream, uint64_t offset)
{
    return pattern + (offset + (uint64_t)stream * 7919) % PATTERN_PERIOD;
}

bool pattern_matches(uint32_t stream, uint64_t offset, const char *bytes, size_t size)
{
    return memcmp(pattern_at(stream, offset), bytes, size) == 0;
}
