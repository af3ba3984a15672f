/* For LD_PRELOAD: a getaddrinfo(3) that does not answer for "slow-..." until it is let, and neither for "fades-..."
 * once it has been asked about such a name. Each such call writes a byte to the descriptor named by SLOW_BEGUN_FD, and
 * waits for one from SLOW_GO_FD; then there is no answer. All other names but "localhost" have one: an address for
 * documentation (RFC 5737). And an open(2) that opens the file named by HOSTS_FILE, if there is one, in place of
 * /etc/hosts. */
#include <ctype.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef int (*getaddrinfo_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static atomic_int asked_fading;

static int descriptor(const char *name)
{
    const char *number = getenv(name);
    if (number == NULL)
        abort();
    return atoi(number);
}

static int wait_in_vain(void)
{
    char byte = 'b';
    if (write(descriptor("SLOW_BEGUN_FD"), &byte, 1) != 1 || read(descriptor("SLOW_GO_FD"), &byte, 1) != 1)
        abort();
    return EAI_AGAIN;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    if (host != NULL && strncmp(host, "slow-", 5) == 0)
        return wait_in_vain();
    if (host != NULL && strncmp(host, "fades-", 6) == 0 && atomic_fetch_add(&asked_fading, 1) > 0)
        return wait_in_vain();
    if (host != NULL && isalpha((unsigned char)host[0]) && strcmp(host, "localhost") != 0)
        host = "192.0.2.1";
    getaddrinfo_fn next = (getaddrinfo_fn)dlsym(RTLD_NEXT, "getaddrinfo");
    return next == NULL ? EAI_FAIL : next(host, service, hints, found);
}

static int open_other(const char *path, int flags)
{
    const char *hosts = getenv("HOSTS_FILE");
    if (hosts != NULL && strcmp(path, "/etc/hosts") == 0)
        path = hosts;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600); /* the one mode that the programs need */
}

int open(const char *path, int flags, ...)
{
    return open_other(path, flags);
}

int open64(const char *path, int flags, ...)
{
    return open_other(path, flags);
}
