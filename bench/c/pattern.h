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

/* The same in lines: every `line`-th byte of a stream is a line feed, and no other byte is one. The period is then the
 * largest multiple of `line` below the prime, and streams begin where lines do. */
void pattern_prepare_lines(unsigned line);

/* `stream` is the connection's number, `offset` the position in its stream; PATTERN_MAX_PIECE bytes are readable. */
const char *pattern_at(uint32_t stream, uint64_t offset);

bool pattern_matches(uint32_t stream, uint64_t offset, const char *bytes, size_t size);

#endif
