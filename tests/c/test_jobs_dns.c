/* Name jobs against libc itself. Numeric hosts and the loopback's name only: no name server is asked. */
#include "check.h"
#include "jobs_dns.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static void run(hoop_job *job)
{
    job->run(job);
}

static void ask(hoop_getaddrinfo_job *job, const char *host, const char *service, int family, int type, int flags)
{
    hoop_getaddrinfo_job_init(job, HOOP_LANE_DNS, host, service, family, type, 0, flags);
    CHECK_EQ(job->job.lane, HOOP_LANE_DNS);
    run(&job->job);
}

/* The same question to libc; every field of every answer in the same order. */
static void compare(const char *host, const char *service, int family, int type, int flags)
{
    struct addrinfo hints, *found = NULL;
    memset(&hints, 0, sizeof(hints));
    hints.ai_family = family;
    hints.ai_socktype = type;
    hints.ai_flags = flags;
    int code = getaddrinfo(host, service, &hints, &found);
    hoop_getaddrinfo_job job;
    ask(&job, host, service, family, type, flags);
    CHECK_EQ(job.status, code);
    int count = 0;
    for (const struct addrinfo *info = found; code == 0 && info != NULL; info = info->ai_next, count++) {
        if (!CHECK(count < job.count))
            break;
        const hoop_address_info *copy = &job.infos[count];
        CHECK_EQ(copy->family, info->ai_family);
        CHECK_EQ(copy->type, info->ai_socktype);
        CHECK_EQ(copy->protocol, info->ai_protocol);
        CHECK_EQ(copy->address_length, info->ai_addrlen);
        CHECK(memcmp(&copy->address, info->ai_addr, info->ai_addrlen) == 0);
        CHECK(strcmp(copy->canonical_name, info->ai_canonname == NULL ? "" : info->ai_canonname) == 0);
    }
    CHECK_EQ(job.count, count);
    if (code == 0)
        freeaddrinfo(found);
    hoop_getaddrinfo_job_free(&job);
    hoop_getaddrinfo_job_free(&job);
    CHECK(job.infos == NULL);
}

TEST(answers_are_those_of_libc)
{
    static const char *const hosts[] = {"127.0.0.1", "127.1",     "0x7f.1", "::1", "fe80::1",
                                        "localhost", "256.1.1.1", "",       NULL};
    static const char *const services[] = {"80", "0", "http", "nosuchservice", NULL};
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6, 99};
    static const int types[] = {0, SOCK_STREAM, SOCK_DGRAM};
    for (size_t host = 0; host < sizeof(hosts) / sizeof(*hosts); host++)
        for (size_t service = 0; service < sizeof(services) / sizeof(*services); service++)
            for (size_t family = 0; family < sizeof(families) / sizeof(*families); family++)
                for (size_t type = 0; type < sizeof(types) / sizeof(*types); type++) {
                    bool is_name = hosts[host] != NULL && strcmp(hosts[host], "localhost") == 0;
                    int flags = is_name ? 0 : AI_NUMERICHOST;
                    compare(hosts[host], services[service], families[family], types[type], flags);
                    compare(hosts[host], services[service], families[family], types[type], flags | AI_PASSIVE);
                }
    compare("127.0.0.1", "80", AF_UNSPEC, SOCK_STREAM, AI_CANONNAME);
    compare("::1", NULL, AF_UNSPEC, SOCK_STREAM, AI_CANONNAME | AI_NUMERICHOST);
}

static void ask_name(hoop_getnameinfo_job *job, const char *host, int port, uint32_t flowinfo, uint32_t scope_id,
                     bool is_pair)
{
    hoop_getnameinfo_job_init(job, HOOP_LANE_DNS, host, port, flowinfo, scope_id, is_pair,
                              NI_NUMERICHOST | NI_NUMERICSERV);
    CHECK_EQ(job->job.lane, HOOP_LANE_DNS);
    run(&job->job);
}

TEST(an_address_has_its_name)
{
    hoop_getnameinfo_job job;
    ask_name(&job, "127.1", 80, 0, 0, true);
    CHECK_EQ(job.status, 0);
    CHECK_EQ(job.problem, HOOP_NAME_OK);
    CHECK(strcmp(job.host_name, "127.0.0.1") == 0);
    CHECK(strcmp(job.service_name, "80") == 0);
    ask_name(&job, "2001:DB8::1", 65535, 7, 0, false);
    CHECK_EQ(job.status, 0);
    CHECK(strcmp(job.host_name, "2001:db8::1") == 0);
    CHECK(strcmp(job.service_name, "65535") == 0);
}

TEST(a_scope_becomes_a_zone)
{
    struct sockaddr_in6 address;
    memset(&address, 0, sizeof(address));
    address.sin6_family = AF_INET6;
    address.sin6_scope_id = 1;
    REQUIRE(inet_pton(AF_INET6, "fe80::1", &address.sin6_addr) == 1);
    char expected[NI_MAXHOST];
    REQUIRE(getnameinfo((struct sockaddr *)&address, sizeof(address), expected, sizeof(expected), NULL, 0,
                        NI_NUMERICHOST) == 0);
    hoop_getnameinfo_job job;
    ask_name(&job, "fe80::1", 80, 0, 1, false);
    CHECK_EQ(job.status, 0);
    CHECK(strcmp(job.host_name, expected) == 0);
    CHECK(strchr(job.host_name, '%') != NULL);
}

TEST(what_has_no_name_is_told_apart)
{
    hoop_getnameinfo_job job;
    ask_name(&job, "127.0.0.1", 80, 0, 0, false);
    CHECK_EQ(job.problem, HOOP_NAME_NOT_A_PAIR);
    CHECK_EQ(job.status, 0);
    ask_name(&job, "no address", 80, 0, 0, true);
    CHECK_EQ(job.status, EAI_NONAME);
    CHECK_EQ(job.problem, HOOP_NAME_OK);
    hoop_getnameinfo_job_init(&job, HOOP_LANE_DNS, "127.0.0.1", 80, 0, 0, true, -1);
    run(&job.job);
    CHECK(job.status != 0);
}

TEST(in_the_local_lane_no_name_server_is_asked)
{
    hoop_getaddrinfo_job job;
    hoop_getaddrinfo_job_init(&job, HOOP_LANE_LOCAL_NAMES, "no.such.name.invalid", "80", AF_UNSPEC, SOCK_STREAM, 0, 0);
    run(&job.job);
    CHECK(job.is_elsewhere);
    CHECK_EQ(job.status, 0);
    CHECK_EQ(job.count, 0);
    hoop_getaddrinfo_job_init(&job, HOOP_LANE_LOCAL_NAMES, "127.1", "80", AF_UNSPEC, SOCK_STREAM, 0, 0);
    run(&job.job);
    CHECK(!job.is_elsewhere);
    CHECK_EQ(job.count, 1);
    hoop_getaddrinfo_job_free(&job);

    hoop_getnameinfo_job name;
    hoop_getnameinfo_job_init(&name, HOOP_LANE_LOCAL_NAMES, "192.0.2.77", 80, 0, 0, true, 0);
    run(&name.job);
    CHECK(name.is_elsewhere);
    hoop_getnameinfo_job_init(&name, HOOP_LANE_LOCAL_NAMES, "192.0.2.77", 80, 0, 0, true, NI_NUMERICHOST);
    run(&name.job);
    CHECK(!name.is_elsewhere);
    CHECK(strcmp(name.host_name, "192.0.2.77") == 0);
}

int main(void)
{
    RUN(answers_are_those_of_libc);
    RUN(an_address_has_its_name);
    RUN(a_scope_becomes_a_zone);
    RUN(what_has_no_name_is_told_apart);
    RUN(in_the_local_lane_no_name_server_is_asked);
    return check_finish();
}
