#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EVENTS_AT_ONCE = 256, SAFETY_SECONDS = 60, ANSWER_LIMIT_SECONDS = 3, DRAIN_LIMIT_SECONDS = 3 };

/* clang-format off */
enum option_code {
    HOST = 1, PORT, CONNECTIONS, SIZE, DEPTH, IN_FLIGHT, RATE, WARMUP, DURATION, SERVER_PID, SOURCES, BLOCK, LINE, PATH, BODY,
    TURNS
};
/* clang-format on */

static const struct option long_options[] = {
    {"host", required_argument, NULL, HOST},
    {"port", required_argument, NULL, PORT},
    {"connections", required_argument, NULL, CONNECTIONS},
    {"size", required_argument, NULL, SIZE},
    {"depth", required_argument, NULL, DEPTH},
    {"in-flight", required_argument, NULL, IN_FLIGHT},
    {"rate", required_argument, NULL, RATE},
    {"warmup", required_argument, NULL, WARMUP},
    {"duration", required_argument, NULL, DURATION},
    {"server-pid", required_argument, NULL, SERVER_PID},
    {"sources", required_argument, NULL, SOURCES},
    {"block", no_argument, NULL, BLOCK},
    {"line", required_argument, NULL, LINE},
    {"path", required_argument, NULL, PATH},
    {"body", required_argument, NULL, BODY},
    {"turns", no_argument, NULL, TURNS},
    {NULL, 0, NULL, 0},
};

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || (*end != '\0' && *end != '\n') || !(value >= least && value <= most)) {
        fprintf(stderr, "%s: expected a number from %g to %g\n", text, least, most);
        exit(2);
    }
    return value;
}

static void option_apply(struct load_options *options, int code, const char *text)
{
    switch (code) {
        /* clang-format off */
    case HOST: options->host = text; break;
    case PORT: options->port = (unsigned)number(text, 1, 65535); break;
    case CONNECTIONS: options->connections = (unsigned)number(text, 1, 1e6); break;
    case SIZE: options->size = (unsigned)number(text, 1, 1 << 20); break;
    case DEPTH: options->depth = (unsigned)number(text, 1, 1024); break;
    case IN_FLIGHT: options->in_flight = (unsigned)number(text, 1, 1e6); break;
    case RATE: options->rate = number(text, 0, 1e6); break;
    case WARMUP: options->warmup = number(text, 0, 60); break;
    case DURATION: options->duration = number(text, 0.01, 600); break;
    case SERVER_PID: options->server_pid = (pid_t)number(text, 1, 1 << 30); break;
    case SOURCES: options->sources = (unsigned)number(text, 0, 250); break;
    case BLOCK: options->block = true; break;
    case LINE: options->line = (unsigned)number(text, 2, 1 << 20); break;
    case PATH: options->path = text; break;
    case BODY: options->body = text; break;
    case TURNS: options->turns = true; break;
    default: exit(2); /* getopt_long has said what is wrong */
        /* clang-format on */
    }
}

void load_options_parse(struct load_options *options, int argc, char **argv)
{
    int code;
    while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        option_apply(options, code, optarg);
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument\n", argv[optind]);
        exit(2);
    }
    if (options->port == 0) {
        fprintf(stderr, "--port is missing\n");
        exit(2);
    }
    /* Whatever happens, a generator ends. */
    alarm((unsigned)(options->warmup + options->duration) + SAFETY_SECONDS); /* by turns: set anew by each */
}

void failures_note(struct failures *failures, const char *format, ...)
{
    if (failures->count++ > 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failures->first, sizeof(failures->first), format, arguments);
    va_end(arguments);
}

void measurement_begin(struct measurement *measurement, pid_t server_pid)
{
    measurement->requests = 0;
    measurement->moved = 0;
    histogram_clear(&measurement->latency);
    measurement->server_cpu_ns = process_cpu_ns(server_pid);
    measurement->client_cpu_ns = own_cpu_ns();
    measurement->begin_ns = monotonic_ns();
}

void measurement_end(struct measurement *measurement, pid_t server_pid)
{
    measurement->end_ns = monotonic_ns();
    int64_t server_cpu_ns = process_cpu_ns(server_pid);
    measurement->client_cpu_ns = own_cpu_ns() - measurement->client_cpu_ns;
    if (measurement->server_cpu_ns >= 0)
        measurement->server_cpu_ns = server_cpu_ns < 0 ? -1 : server_cpu_ns - measurement->server_cpu_ns;
}

void json_print_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (byte < 32 || byte > 126)
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

int measurement_print(const struct measurement *measurement)
{
    double seconds = (double)(measurement->end_ns - measurement->begin_ns) / 1e9;
    const struct histogram *latency = &measurement->latency;
    double requests = (double)measurement->requests;
    if (measurement->moved_at_each > 0)
        requests = (double)measurement->moved / (double)measurement->moved_at_each;
    printf("{\"requests\": %.3f, \"seconds\": %.6f, \"rate\": %.1f", requests, seconds,
           seconds > 0 ? requests / seconds : 0.0);
    printf(", \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f",
           (double)histogram_percentile_ns(latency, 0.50) / 1e3, (double)histogram_percentile_ns(latency, 0.99) / 1e3,
           (double)histogram_percentile_ns(latency, 0.999) / 1e3, (double)latency->max_ns / 1e3);
    if (measurement->lateness)
        printf(", \"late_p99_us\": %.2f", (double)histogram_percentile_ns(measurement->lateness, 0.99) / 1e3);
    printf(", \"client_cpu_seconds\": %.6f", (double)measurement->client_cpu_ns / 1e9);
    if (measurement->server_cpu_ns >= 0)
        printf(", \"server_cpu_seconds\": %.6f", (double)measurement->server_cpu_ns / 1e9);
    printf(", \"unclosed\": %u, \"errors\": %llu, \"first_error\": ", measurement->unclosed,
           (unsigned long long)measurement->failures.count);
    if (measurement->failures.count > 0)
        json_print_string(measurement->failures.first);
    else
        printf("null");
    printf("}\n");
    fflush(stdout);
    return measurement->failures.count > 0;
}

static int run_window(int epoll_fd, const struct load_options *options, double warmup, struct measurement *measurement,
                      const unsigned *alive, load_ready *ready, void *context)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    const int64_t answer_limit_ns = seconds_to_ns(ANSWER_LIMIT_SECONDS);
    int64_t deadline_ns = monotonic_ns() + seconds_to_ns(warmup);
    measurement->begin_ns = 0;
    measurement->requests = 0;
    while (*alive > 0) {
        int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, options->block ? 10 : 0);
        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count; i++)
            ready(context, &events[i]);
        int64_t now_ns = monotonic_ns();
        bool is_unanswered = measurement->requests == 0 && measurement->failures.count == 0;
        if (now_ns < deadline_ns || (is_unanswered && now_ns < deadline_ns + answer_limit_ns))
            continue;
        if (measurement->begin_ns != 0)
            break;
        measurement_begin(measurement, options->server_pid);
        deadline_ns = measurement->begin_ns + seconds_to_ns(options->duration);
    }
    if (measurement->begin_ns == 0)
        measurement_begin(measurement, options->server_pid);
    measurement_end(measurement, options->server_pid);
    return 0;
}

bool load_next_turn(double *warmup)
{
    char line[40];
    if (fgets(line, sizeof(line), stdin) == NULL)
        return false;
    alarm(SAFETY_SECONDS);
    *warmup = number(line, 0, 60);
    return true;
}

int load_run(int epoll_fd, const struct load_options *options, struct measurement *measurement, const unsigned *alive,
             load_ready *ready, void *context)
{
    if (!options->turns)
        return run_window(epoll_fd, options, options->warmup, measurement, alive, ready, context);
    double warmup;
    while (load_next_turn(&warmup)) {
        int result = run_window(epoll_fd, options, warmup, measurement, alive, ready, context);
        if (result < 0)
            return result;
        measurement_print(measurement);
    }
    return 0;
}

void load_drain(int epoll_fd, const unsigned *alive, load_ready *ready, void *context)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int64_t deadline_ns = monotonic_ns() + DRAIN_LIMIT_SECONDS * NS_PER_SECOND;
    while (*alive > 0 && monotonic_ns() < deadline_ns) {
        int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, 10);
        for (int i = 0; i < count; i++)
            ready(context, &events[i]);
    }
}
