/* jobs_dns.h: getaddrinfo(3) and getnameinfo(3) as jobs of the pool, in one of its lanes for names: a slow name server
 * may hold only half of the threads. In HOOP_LANE_LOCAL_NAMES a job asks libc only if the name is local
 * (local_names.h); if not, it ends as `is_elsewhere` without having asked.
 *
 * A job's inputs belong to the caller and stay until the job has run. The job copies libc's answers into memory of its
 * own, so that the loop's thread, which reads them, needs nothing of libc's. */
#ifndef HOOP_JOBS_DNS_H
#define HOOP_JOBS_DNS_H

#include "pool.h"
#include <netdb.h>
#include <sys/socket.h>

/* One answer of getaddrinfo(3). */
typedef struct hoop_address_info {
    int family;
    int type;
    int protocol;
    socklen_t address_length;   /* 0: libc gave no address */
    const char *canonical_name; /* "" where libc gave none */
    struct sockaddr_storage address;
} hoop_address_info;

typedef struct hoop_getaddrinfo_job {
    hoop_job job;        /* first: the pool knows no more */
    const char *host;    /* NULL: the loopback or wildcard addresses, by `flags` */
    const char *service; /* NULL: port 0 */
    int family;
    int type;
    int protocol;
    int flags;
    bool is_elsewhere;
    int status;       /* 0, or an EAI_ code, whose sign differs between systems */
    int system_error; /* with EAI_SYSTEM: errno, positive */
    int count;
    hoop_address_info *infos; /* `count` of them, in libc's order; NULL where there are none */
} hoop_getaddrinfo_job;

/* Inputs as getaddrinfo(3) takes them. */
void hoop_getaddrinfo_job_init(hoop_getaddrinfo_job *job, hoop_lane lane, const char *host, const char *service,
                               int family, int type, int protocol, int flags);
/* What the pool runs, for a caller that knows it will not block. */
void hoop_getaddrinfo_job_run(hoop_getaddrinfo_job *job);
/* Gives the answers back. Idempotent; not while the job runs. */
void hoop_getaddrinfo_job_free(hoop_getaddrinfo_job *job);

/* Why a numeric address is not one that getnameinfo(3) can be asked about. */
enum hoop_name_problem {
    HOOP_NAME_OK,
    HOOP_NAME_SEVERAL_ADDRESSES, /* the host stands for more than one */
    HOOP_NAME_NOT_A_PAIR,        /* an IPv4 host with a flow label or scope */
};

typedef struct hoop_getnameinfo_job {
    hoop_job job;
    const char *host; /* numeric */
    int port;
    uint32_t flowinfo; /* host order; for IPv6 */
    uint32_t scope_id; /* for IPv6 */
    bool is_pair;      /* host and port only */
    int flags;
    bool is_elsewhere; /* this and the next two as above */
    int status;
    int system_error;
    enum hoop_name_problem problem;
    char host_name[NI_MAXHOST];
    char service_name[NI_MAXSERV];
} hoop_getnameinfo_job;

void hoop_getnameinfo_job_init(hoop_getnameinfo_job *job, hoop_lane lane, const char *host, int port, uint32_t flowinfo,
                               uint32_t scope_id, bool is_pair, int flags);

#endif
