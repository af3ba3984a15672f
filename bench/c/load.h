#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "clocks.h"
#include "endpoint.h"
#include "histogram.h"

/* What every load generator has: options, a warm-up and a measured window, a count of failures, and a report. */

struct load_options {
    const char *host;
    unsigned port;
    unsigned connections;
    unsigned size;      /* bytes of a message */
    unsigned depth;     /* messages in flight on one connection */
    unsigned in_flight; /* messages in flight on all connections together */
    double rate;        /* messages a second on all connections together; 0: as many as come back */
    double warmup;      /* seconds */
    double duration;    /* seconds */
    bool turns;         /* a window for each line of stdin, which says how many seconds its warm-up takes */
    pid_t server_pid;   /* whose CPU time to report; 0: of no process */
    unsigned sources;   /* source addresses, see struct endpoint */
    bool block;         /* sleep in epoll_wait instead of spinning: for a machine with one core */
    unsigned line;      /* bytes of a line: every line-th byte of what is sent is its end; 0: no lines */
    const char *path;   /* of an HTTP request */
    const char *body;   /* that an HTTP response must have; NULL: any */
};

/* Options given on the command line replace what `options` holds. Exits with a message and status 2 if one is wrong. */
void load_options_parse(struct load_options *options, int argc, char **argv);

struct failures {
    uint64_t count;
    char first[200];
};

__attribute__((format(printf, 2, 3))) void failures_note(struct failures *failures, const char *format, ...);

struct measurement {
    int64_t begin_ns; /* 0 until the warm-up is over */
    int64_t end_ns;
    int64_t server_cpu_ns;
    int64_t client_cpu_ns;
    uint64_t requests;      /* answered in full */
    uint64_t moved;         /* bytes sent and received, by a generator that counts them */
    uint64_t moved_at_each; /* by a request and its answer; 0: not counted. A window of few large messages ends amidst
                              * many of them: then moved / moved_at_each says what was done */
    struct histogram latency;
    const struct histogram *lateness; /* of an open loop: how long after it was due each message was sent; NULL: none */
    struct failures failures;
    unsigned unclosed; /* connections that the server left open after the end of our stream: remarked, not a failure */
};

/* Called when the warm-up is over: forgets what was counted, keeps the failures, and starts the clocks. */
void measurement_begin(struct measurement *measurement, pid_t server_pid);
void measurement_end(struct measurement *measurement, pid_t server_pid);
static inline void measurement_count(struct measurement *measurement, int64_t latency_ns)
{
    measurement->requests++;
    histogram_add(&measurement->latency, latency_ns);
}

/* Print everything as one line of JSON; returns the exit status: 0, or 1 if anything failed. */
int measurement_print(const struct measurement *measurement);

/* Print a string as JSON, quotes included. */
void json_print_string(const char *text);

/* Handle events until warm-up and duration are over. `ready(context, event)` is called for each event; the measured
 * window lies between. Neither ends without an answer: a server that has no processor yet gets some seconds more. Stops
 * early when `*alive` is 0. By turns, each window is printed when it is over, the next line of stdin is waited for with
 * everything left as it is, and the end of stdin is the end. Returns 0 or -errno. */
typedef void load_ready(void *context, const struct epoll_event *event);
int load_run(int epoll_fd, const struct load_options *options, struct measurement *measurement, const unsigned *alive,
             load_ready *ready, void *context);

/* By turns: wait for the line that asks for the next window, and take its warm-up from it. false: there are no more. */
bool load_next_turn(double *warmup);

/* Handle events until `*alive` is 0, for three seconds at most. */
void load_drain(int epoll_fd, const unsigned *alive, load_ready *ready, void *context);

#endif
