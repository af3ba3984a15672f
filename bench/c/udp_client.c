/* Load for a UDP echo server: one socket keeps `--in-flight` datagrams under way, checks each that comes back, and
 * sends as many new ones as have come, in batches (sendmmsg, recvmmsg). The receive buffer holds the whole window, so
 * on the loopback nothing may be lost: a datagram that does not come back is a failure. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"
#include "pattern.h"

enum { MOST_IN_FLIGHT = 64, LARGEST = 1400, DRAIN_LIMIT_SECONDS = 3 };

struct client {
    struct load_options options;
    struct endpoint endpoint;
    struct measurement measurement;
    int fd;
    int epoll_fd;
    unsigned alive;
    bool draining;
    uint64_t sent; /* datagrams; each begins with its number, and goes on with the pattern */
    uint64_t received;
    int64_t sent_ns[MOST_IN_FLIGHT];
    struct mmsghdr headers[MOST_IN_FLIGHT];
    struct iovec buffers[MOST_IN_FLIGHT];
    char bytes[MOST_IN_FLIGHT][LARGEST];
};

static void fail(struct client *client, const char *what, int error)
{
    failures_note(&client->measurement.failures, "%s%s%s (sent %llu, received %llu datagrams)", what, error ? ": " : "",
                  error ? strerror(error) : "", (unsigned long long)client->sent, (unsigned long long)client->received);
    client->alive = 0;
}

static void prepare(struct client *client, unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++) {
        client->buffers[i] = (struct iovec){client->bytes[i], size};
        client->headers[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &client->buffers[i], .msg_iovlen = 1}};
    }
}

static void fill_window(struct client *client)
{
    if (client->draining)
        return;
    unsigned size = client->options.size;
    unsigned count = client->options.in_flight - (unsigned)(client->sent - client->received);
    int64_t now_ns = monotonic_ns();
    prepare(client, count, size);
    for (unsigned i = 0; i < count; i++) {
        uint64_t number = client->sent + i;
        memcpy(client->bytes[i], &number, sizeof(number));
        memcpy(client->bytes[i] + sizeof(number), pattern_at(0, number), size - sizeof(number));
        client->sent_ns[number % MOST_IN_FLIGHT] = now_ns;
    }
    for (unsigned done = 0; done < count;) {
        int result = sendmmsg(client->fd, client->headers + done, count - done, 0);
        if (result < 0 && errno == EINTR)
            continue;
        if (result < 0) {
            fail(client, "sendmmsg", errno);
            return;
        }
        done += (unsigned)result;
        client->sent += (unsigned)result;
    }
}

/* UDP over the loopback keeps its order, and so must an echo server with one socket. */
static bool is_expected(const struct client *client, unsigned index)
{
    uint64_t number;
    memcpy(&number, client->bytes[index], sizeof(number));
    return client->headers[index].msg_len == client->options.size && number == client->received &&
           pattern_matches(0, number, client->bytes[index] + sizeof(number), client->options.size - sizeof(number));
}

static void ready(void *context, const struct epoll_event *event)
{
    struct client *client = context;
    (void)event;
    prepare(client, MOST_IN_FLIGHT, LARGEST);
    int count = recvmmsg(client->fd, client->headers, MOST_IN_FLIGHT, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR)
            fail(client, "recvmmsg", errno);
        return;
    }
    int64_t now_ns = monotonic_ns();
    for (unsigned i = 0; i < (unsigned)count; i++) {
        if (!is_expected(client, i)) {
            fail(client, "another datagram came back than was expected", 0);
            return;
        }
        measurement_count(&client->measurement, now_ns - client->sent_ns[client->received++ % MOST_IN_FLIGHT]);
    }
    fill_window(client);
}

static void drain(struct client *client)
{
    struct epoll_event event;
    int64_t deadline_ns = monotonic_ns() + DRAIN_LIMIT_SECONDS * NS_PER_SECOND;
    client->draining = true;
    while (client->alive > 0 && client->received < client->sent && monotonic_ns() < deadline_ns)
        if (epoll_wait(client->epoll_fd, &event, 1, 10) == 1)
            ready(client, &event);
    if (client->alive > 0 && client->received < client->sent)
        fail(client, "datagrams missing", 0);
}

static int open_socket(struct client *client)
{
    struct epoll_event event = {.events = EPOLLIN};
    client->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (client->fd < 0 || client->epoll_fd < 0 ||
        connect(client->fd, (struct sockaddr *)&client->endpoint.server, sizeof(client->endpoint.server)) != 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->fd, &event) != 0)
        return -errno;
    return 0;
}

int main(int argc, char **argv)
{
    static struct client client = {
        .options = {.host = "127.0.0.1", .size = 512, .in_flight = 32, .warmup = 0.2, .duration = 1.0},
        .alive = 1,
    };
    load_options_parse(&client.options, argc, argv);
    pattern_prepare();
    if (client.options.size < sizeof(uint64_t) || client.options.size > LARGEST ||
        client.options.in_flight > MOST_IN_FLIGHT) {
        fprintf(stderr, "--size goes from 8 to %d, --in-flight to %d\n", LARGEST, MOST_IN_FLIGHT);
        return 2;
    }
    int result = endpoint_set(&client.endpoint, client.options.host, client.options.port);
    if (result == 0)
        result = open_socket(&client);
    if (result < 0) {
        fprintf(stderr, "cannot start: %s\n", strerror(-result));
        return 2;
    }
    fill_window(&client);
    result = load_run(client.epoll_fd, &client.options, &client.measurement, &client.alive, ready, &client);
    if (result < 0)
        fail(&client, "epoll_wait", -result);
    struct measurement measured = client.measurement; /* what drains no longer counts, but failures do */
    drain(&client);
    measured.failures = client.measurement.failures;
    client.measurement = measured;
    return measurement_print(&client.measurement);
}
