#include "pattern.h"

#include <string.h>

static char pattern[PATTERN_PERIOD + PATTERN_MAX_PIECE];
static uint64_t period = PATTERN_PERIOD;
static unsigned step = 1; /* streams begin at multiples of it */

static void repeat(void)
{
    for (size_t i = period; i < sizeof(pattern); i++)
        pattern[i] = pattern[i - period];
}

void pattern_prepare(void)
{
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < PATTERN_PERIOD; i++) {
        state ^= state << 13; /* xorshift64 (Marsaglia, 2003) */
        state ^= state >> 7;
        state ^= state << 17;
        pattern[i] = (char)(state >> 32);
    }
    repeat();
}

void pattern_prepare_lines(unsigned line)
{
    pattern_prepare();
    step = line;
    period = PATTERN_PERIOD - PATTERN_PERIOD % line;
    for (size_t i = 0; i < period; i++) {
        if (i % line == line - 1)
            pattern[i] = '\n';
        else if (pattern[i] == '\n')
            pattern[i] = ' ';
    }
    repeat();
}

const char *pattern_at(uint32_t stream, uint64_t offset)
{
    return pattern + (offset + (uint64_t)stream * 7919 * step) % period;
}

bool pattern_matches(uint32_t stream, uint64_t offset, const char *bytes, size_t size)
{
    return memcmp(pattern_at(stream, offset), bytes, size) == 0;
}
