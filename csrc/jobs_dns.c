/* jobs_dns.c: names and addresses. What libc does, and what it means here:
 *
 *   - getaddrinfo(3) and getnameinfo(3) are thread-safe, block as long as a name server likes, and cannot be
 *     interrupted: a running job is never cancelled, its answer is dropped.
 *   - EAI_SYSTEM means "see errno"; errno is read at once, on the thread that asked.
 *   - The BSDs show NI_MAXHOST and EAI_SYSTEM unless a standard is asked for; glibc shows them with _GNU_SOURCE. */
#include "jobs_dns.h"

#include "local_names.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

/* Where a failed call leaves its code. */
static void set_status(int *status, int *system_error, int code)
{
    *status = code;
    *system_error = code == EAI_SYSTEM ? errno : 0;
}

/* One block: the records, and behind them the canonical names that they point to. */
static int copy_infos(hoop_getaddrinfo_job *job, const struct addrinfo *first)
{
    size_t count = 0, names_size = 0;
    for (const struct addrinfo *info = first; info != NULL; info = info->ai_next) {
        count++;
        names_size += info->ai_canonname == NULL ? 1 : strlen(info->ai_canonname) + 1;
    }
    if (count == 0)
        return 0;
    hoop_address_info *infos = malloc(count * sizeof(*infos) + names_size);
    if (infos == NULL)
        return -ENOMEM;
    char *name = (char *)(infos + count);
    hoop_address_info *copy = infos;
    for (const struct addrinfo *info = first; info != NULL; info = info->ai_next, copy++) {
        const char *given = info->ai_canonname == NULL ? "" : info->ai_canonname;
        size_t size = strlen(given) + 1;
        size_t length = info->ai_addr == NULL ? 0 : (size_t)info->ai_addrlen;
        memset(copy, 0, sizeof(*copy));
        copy->family = info->ai_family;
        copy->type = info->ai_socktype;
        copy->protocol = info->ai_protocol;
        copy->canonical_name = memcpy(name, given, size);
        copy->address_length = (socklen_t)(length < sizeof(copy->address) ? length : sizeof(copy->address));
        if (copy->address_length > 0)
            memcpy(&copy->address, info->ai_addr, copy->address_length);
        name += size;
    }
    job->infos = infos;
    job->count = (int)count;
    return 0;
}

void hoop_getaddrinfo_job_run(hoop_getaddrinfo_job *job)
{
    struct addrinfo hints, *found = NULL;
    job->is_elsewhere = job->job.lane == HOOP_LANE_LOCAL_NAMES &&
                        !hoop_name_is_local(job->host, job->family, job->flags, HOOP_HOSTS_PATH);
    if (job->is_elsewhere)
        return;
    memset(&hints, 0, sizeof(hints));
    hints.ai_family = job->family;
    hints.ai_socktype = job->type;
    hints.ai_protocol = job->protocol;
    hints.ai_flags = job->flags;
    int code = getaddrinfo(job->host, job->service, &hints, &found);
    set_status(&job->status, &job->system_error, code);
    if (code != 0)
        return;
    if (copy_infos(job, found) < 0)
        job->status = EAI_MEMORY;
    if (found != NULL)
        freeaddrinfo(found);
}

static void run_getaddrinfo(hoop_job *base)
{
    hoop_getaddrinfo_job_run(HOOP_CONTAINER_OF(base, hoop_getaddrinfo_job, job));
}

void hoop_getaddrinfo_job_init(hoop_getaddrinfo_job *job, hoop_lane lane, const char *host, const char *service,
                               int family, int type, int protocol, int flags)
{
    memset(job, 0, sizeof(*job));
    hoop_job_init(&job->job, run_getaddrinfo, lane);
    job->host = host;
    job->service = service;
    job->family = family;
    job->type = type;
    job->protocol = protocol;
    job->flags = flags;
}

void hoop_getaddrinfo_job_free(hoop_getaddrinfo_job *job)
{
    free(job->infos);
    job->infos = NULL;
    job->count = 0;
}

/* The sockaddr behind a numeric host, made as Python's socket.getnameinfo does: by libc, which knows every form. */
static struct addrinfo *parse_numeric(hoop_getnameinfo_job *job)
{
    char service[sizeof("-2147483648")];
    struct addrinfo hints, *found = NULL;
    memset(&hints, 0, sizeof(hints));
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_DGRAM; /* one answer for each address */
    hints.ai_flags = AI_NUMERICHOST;
    (void)snprintf(service, sizeof(service), "%d", job->port);
    int code = getaddrinfo(job->host, service, &hints, &found);
    set_status(&job->status, &job->system_error, code);
    return code == 0 ? found : NULL;
}

static enum hoop_name_problem complete_address(const hoop_getnameinfo_job *job, const struct addrinfo *info)
{
    if (info->ai_next != NULL)
        return HOOP_NAME_SEVERAL_ADDRESSES;
    if (info->ai_family == AF_INET && !job->is_pair)
        return HOOP_NAME_NOT_A_PAIR;
    if (info->ai_family == AF_INET6) {
        struct sockaddr_in6 *address = (struct sockaddr_in6 *)(void *)info->ai_addr;
        address->sin6_flowinfo = htonl(job->flowinfo);
        address->sin6_scope_id = job->scope_id;
    }
    return HOOP_NAME_OK;
}

static void run_getnameinfo(hoop_job *base)
{
    hoop_getnameinfo_job *job = HOOP_CONTAINER_OF(base, hoop_getnameinfo_job, job);
    job->is_elsewhere =
        base->lane == HOOP_LANE_LOCAL_NAMES && !hoop_address_is_local(job->host, job->flags, HOOP_HOSTS_PATH);
    if (job->is_elsewhere)
        return;
    struct addrinfo *info = parse_numeric(job);
    if (info == NULL)
        return;
    job->problem = complete_address(job, info);
    if (job->problem == HOOP_NAME_OK) {
        int code = getnameinfo(info->ai_addr, (socklen_t)info->ai_addrlen, job->host_name, sizeof(job->host_name),
                               job->service_name, sizeof(job->service_name), job->flags);
        set_status(&job->status, &job->system_error, code);
    }
    freeaddrinfo(info);
}

void hoop_getnameinfo_job_init(hoop_getnameinfo_job *job, hoop_lane lane, const char *host, int port, uint32_t flowinfo,
                               uint32_t scope_id, bool is_pair, int flags)
{
    memset(job, 0, sizeof(*job));
    hoop_job_init(&job->job, run_getnameinfo, lane);
    job->host = host;
    job->port = port;
    job->flowinfo = flowinfo;
    job->scope_id = scope_id;
    job->is_pair = is_pair;
    job->flags = flags;
}
