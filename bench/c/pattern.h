#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes that clients send. Each connection's stream is one endless pattern that begins at a phase of its own, and
 * the pattern's period is a prime: an echo that is lost, doubled, swapped, shifted or that belongs to another
 * connection does not match what is expected at that offset. */

enum {
    PATTERN_PERIOD = 65521,
    PATTERN_MAX_PIECE = 256 * 1024, /* bytes that may be asked for at once */
};

void pattern_prepare(void);

/* `stream` is the connection's number, `offset` the position in its stream; PATTERN_MAX_PIECE bytes are readable. */
const char *pattern_at(uint32_t stream, uint64_t offset);

bool pattern_matches(uint32_t stream, uint64_t offset, const char *bytes, size_t size);

#endif
