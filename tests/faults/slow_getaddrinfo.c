/* For LD_PRELOAD: a getaddrinfo(3) that does not answer for "slow-..." until it is let. Each such call writes a byte to
 * the descriptor named by SLOW_BEGUN_FD, and waits for one from SLOW_GO_FD; then there is no answer. */
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*getaddrinfo_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static int descriptor(const char *name)
{
    const char *number = getenv(name);
    if (number == NULL)
        abort();
    return atoi(number);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    if (host != NULL && strncmp(host, "slow-", 5) == 0) {
        char byte = 'b';
        if (write(descriptor("SLOW_BEGUN_FD"), &byte, 1) != 1 || read(descriptor("SLOW_GO_FD"), &byte, 1) != 1)
            abort();
        return EAI_AGAIN;
    }
    getaddrinfo_fn next = (getaddrinfo_fn)dlsym(RTLD_NEXT, "getaddrinfo");
    return next == NULL ? EAI_FAIL : next(host, service, hints, found);
}
