/* Name jobs when libc answers oddly or fails: a libc of the test's own takes its place. */
#define ALLOC_FAULT_INJECT 1
#include "alloc_fault.h"

#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static int fake_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                            struct addrinfo **found);
static void fake_freeaddrinfo(struct addrinfo *info);
static int fake_getnameinfo(const struct sockaddr *address, socklen_t length, char *host, size_t host_size,
                            char *service, size_t service_size, int flags);

#define getaddrinfo fake_getaddrinfo
#define freeaddrinfo fake_freeaddrinfo
#define getnameinfo fake_getnameinfo
#include "../../csrc/jobs_dns.c"
#undef ALLOC_FAULT_INJECT
#undef malloc
#undef calloc
#undef realloc
#include "check.h"

static struct addrinfo *answer; /* what the next question gets */
static int code;
static int code_errno;
static int freed;
static struct addrinfo asked;
static char asked_service[32];

static int fake_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                            struct addrinfo **found)
{
    (void)host;
    asked = *hints;
    (void)snprintf(asked_service, sizeof(asked_service), "%s", service == NULL ? "NULL" : service);
    *found = code == 0 ? answer : NULL;
    errno = code_errno;
    return code;
}

static void fake_freeaddrinfo(struct addrinfo *info)
{
    CHECK(info == answer);
    freed++;
}

static int fake_getnameinfo(const struct sockaddr *address, socklen_t length, char *host, size_t host_size,
                            char *service, size_t service_size, int flags)
{
    (void)flags;
    CHECK(address == answer->ai_addr && length == answer->ai_addrlen);
    CHECK(host_size >= NI_MAXHOST && service_size >= NI_MAXSERV);
    host[0] = service[0] = '\0';
    errno = EMFILE;
    return EAI_SYSTEM;
}

static void prepare(struct addrinfo *first, int result, int result_errno)
{
    answer = first;
    code = result;
    code_errno = result_errno;
    freed = 0;
}

TEST(every_field_is_copied)
{
    char long_name[300];
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = 80, .sin6_flowinfo = 5, .sin6_scope_id = 7};
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = 81};
    struct addrinfo last = {.ai_family = 99, .ai_canonname = (char *)"last"};
    struct addrinfo middle = {.ai_family = AF_INET,
                              .ai_socktype = SOCK_DGRAM,
                              .ai_protocol = 17,
                              .ai_next = &last,
                              .ai_addr = (struct sockaddr *)&ipv4,
                              .ai_addrlen = sizeof(ipv4)};
    struct addrinfo first = {.ai_family = AF_INET6,
                             .ai_socktype = SOCK_STREAM,
                             .ai_protocol = 6,
                             .ai_next = &middle,
                             .ai_addr = (struct sockaddr *)&ipv6,
                             .ai_addrlen = sizeof(ipv6),
                             .ai_canonname = long_name};
    prepare(&first, 0, 0);
    hoop_getaddrinfo_job job;
    hoop_getaddrinfo_job_init(&job, HOOP_LANE_DNS, "host", NULL, AF_INET6, SOCK_STREAM, 6, AI_PASSIVE);
    job.job.run(&job.job);
    CHECK_EQ(freed, 1);
    CHECK_EQ(asked.ai_family, AF_INET6);
    CHECK_EQ(asked.ai_socktype, SOCK_STREAM);
    CHECK_EQ(asked.ai_protocol, 6);
    CHECK_EQ(asked.ai_flags, AI_PASSIVE);
    CHECK(strcmp(asked_service, "NULL") == 0);
    memset(&ipv6, 0xff, sizeof(ipv6)); /* libc's memory is gone now */
    memset(long_name, 0xff, sizeof(long_name) - 1);
    REQUIRE(job.status == 0 && job.count == 3);
    const struct sockaddr_in6 *copy = (const struct sockaddr_in6 *)&job.infos[0].address;
    CHECK_EQ(copy->sin6_flowinfo, 5);
    CHECK_EQ(copy->sin6_scope_id, 7);
    CHECK_EQ(strlen(job.infos[0].canonical_name), 299);
    CHECK_EQ(job.infos[0].canonical_name[298], 'n');
    CHECK_EQ(job.infos[1].address_length, sizeof(ipv4));
    CHECK_EQ(job.infos[1].type, SOCK_DGRAM);
    CHECK(strcmp(job.infos[1].canonical_name, "") == 0);
    CHECK_EQ(job.infos[2].family, 99);
    CHECK_EQ(job.infos[2].address_length, 0);
    CHECK(strcmp(job.infos[2].canonical_name, "last") == 0);
    hoop_getaddrinfo_job_free(&job);
}

TEST(no_memory_is_a_status_and_libcs_memory_is_freed)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};
    struct addrinfo info = {.ai_family = AF_INET, .ai_addr = (struct sockaddr *)&ipv4, .ai_addrlen = sizeof(ipv4)};
    prepare(&info, 0, 0);
    hoop_getaddrinfo_job job;
    hoop_getaddrinfo_job_init(&job, HOOP_LANE_DNS, "host", "80", 0, 0, 0, 0);
    alloc_fault_after(0);
    job.job.run(&job.job);
    alloc_fault_after(-1);
    CHECK_EQ(job.status, EAI_MEMORY);
    CHECK_EQ(job.count, 0);
    CHECK(job.infos == NULL);
    CHECK_EQ(freed, 1);
    hoop_getaddrinfo_job_free(&job);
}

TEST(a_system_error_brings_its_errno)
{
    hoop_getaddrinfo_job job;
    prepare(NULL, EAI_SYSTEM, EMFILE);
    hoop_getaddrinfo_job_init(&job, HOOP_LANE_DNS, "host", "80", 0, 0, 0, 0);
    job.job.run(&job.job);
    CHECK_EQ(job.status, EAI_SYSTEM);
    CHECK_EQ(job.system_error, EMFILE);
    prepare(NULL, EAI_AGAIN, EMFILE);
    job.job.run(&job.job);
    CHECK_EQ(job.status, EAI_AGAIN);
    CHECK_EQ(job.system_error, 0);
    CHECK_EQ(freed, 0);
}

TEST(getnameinfo_asks_for_a_numeric_host_and_passes_errors_on)
{
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
    struct addrinfo second = {.ai_family = AF_INET6};
    struct addrinfo info = {.ai_family = AF_INET6, .ai_addr = (struct sockaddr *)&ipv6, .ai_addrlen = sizeof(ipv6)};
    hoop_getnameinfo_job job;
    prepare(&info, 0, 0);
    hoop_getnameinfo_job_init(&job, HOOP_LANE_DNS, "::1", -2147483647 - 1, 0xfffff, 9, false, 0);
    job.job.run(&job.job);
    CHECK_EQ(asked.ai_flags, AI_NUMERICHOST);
    CHECK_EQ(asked.ai_socktype, SOCK_DGRAM);
    CHECK(strcmp(asked_service, "-2147483648") == 0);
    CHECK_EQ(ipv6.sin6_flowinfo, htonl(0xfffff));
    CHECK_EQ(ipv6.sin6_scope_id, 9);
    CHECK_EQ(job.status, EAI_SYSTEM);
    CHECK_EQ(job.system_error, EMFILE);
    CHECK_EQ(freed, 1);
    info.ai_next = &second;
    prepare(&info, 0, 0);
    hoop_getnameinfo_job_init(&job, HOOP_LANE_DNS, "::1", 0, 0, 0, true, 0);
    job.job.run(&job.job);
    CHECK_EQ(job.problem, HOOP_NAME_SEVERAL_ADDRESSES);
    CHECK_EQ(freed, 1);
    prepare(NULL, EAI_SYSTEM, ENFILE);
    hoop_getnameinfo_job_init(&job, HOOP_LANE_DNS, "::1", 0, 0, 0, true, 0);
    job.job.run(&job.job);
    CHECK_EQ(job.status, EAI_SYSTEM);
    CHECK_EQ(job.system_error, ENFILE);
    CHECK_EQ(freed, 0);
}

int main(void)
{
    RUN(every_field_is_copied);
    RUN(no_memory_is_a_status_and_libcs_memory_is_freed);
    RUN(a_system_error_brings_its_errno);
    RUN(getnameinfo_asks_for_a_numeric_host_and_passes_errors_on);
    return check_finish();
}
