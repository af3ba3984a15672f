/* local_names.h: guesses which names this machine answers by itself, without a name server.
 *
 * The guess only chooses the lane in which a job asks libc: a wrong one makes a question wait, or lets it hold the one
 * place that local names have (pool.h). No answer comes from here.
 *
 * Local are: no host; every numeric form; "localhost" and what ends with ".localhost" (RFC 6761, section 6.3); the
 * machine's own name (gethostname(2)); and what hosts(5) lists. The file is read for each question, as libc does. */
#ifndef HOOP_LOCAL_NAMES_H
#define HOOP_LOCAL_NAMES_H

#include <stdbool.h>

#define HOOP_HOSTS_PATH "/etc/hosts"

/* host, family and flags as for getaddrinfo(3). Without memory or a descriptor for reading the file: not listed. */
bool hoop_name_is_local(const char *host, int family, int flags, const char *hosts_path);
/* The same for getnameinfo(3) about a numeric host. */
bool hoop_address_is_local(const char *host, int flags, const char *hosts_path);

#endif
