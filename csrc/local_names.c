/* local_names.c: facts about hosts(5): an address, then names, between blanks; '#' begins a comment; names are compared
 * without regard to case (RFC 1123); a dot at the end of a question only says that it is complete. */
#include "local_names.h"

#include "base.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLANKS " \t\r\n\v\f"

enum { LONGEST_NAME = 255 }; /* RFC 1035; longer ones have no answer */

typedef struct ip_address {
    int family;
    unsigned char bytes[16];
} ip_address;

/* Whether `text` is the numeric form of an address, zone included. */
static bool parse(const char *text, ip_address *address)
{
    char without_zone[INET6_ADDRSTRLEN];
    size_t length = strcspn(text, "%");
    struct in_addr version_4;
    memset(address, 0, sizeof(*address));
    if (inet_aton(text, &version_4) != 0) { /* "127.1" and its kin, too */
        address->family = AF_INET;
        memcpy(address->bytes, &version_4, sizeof(version_4));
        return true;
    }
    if (length >= sizeof(without_zone))
        return false;
    memcpy(without_zone, text, length);
    without_zone[length] = '\0';
    address->family = AF_INET6;
    return inet_pton(AF_INET6, without_zone, address->bytes) == 1;
}

/* What a line is compared with: a name, or an address. */
typedef struct wanted {
    const char *name; /* NULL: an address is wanted */
    size_t length;
    int family; /* of a name's address; AF_UNSPEC: any */
    ip_address address;
} wanted;

static bool has_family(const char *address, int family)
{
    bool is_version_6 = strchr(address, ':') != NULL;
    return family == AF_UNSPEC || family == (is_version_6 ? AF_INET6 : AF_INET);
}

static bool line_lists(char *line, const wanted *wanted)
{
    char *rest = NULL;
    ip_address address;
    line[strcspn(line, "#")] = '\0';
    const char *first = strtok_r(line, BLANKS, &rest);
    if (first == NULL)
        return false;
    if (wanted->name == NULL)
        return parse(first, &address) && memcmp(&address, &wanted->address, sizeof(address)) == 0;
    if (!has_family(first, wanted->family))
        return false;
    for (const char *name = strtok_r(NULL, BLANKS, &rest); name != NULL; name = strtok_r(NULL, BLANKS, &rest)) {
        if (strlen(name) == wanted->length && strncasecmp(name, wanted->name, wanted->length) == 0)
            return true;
    }
    return false;
}

static bool file_lists(const char *path, const wanted *wanted)
{
    bool is_listed = false;
    char *line = NULL;
    size_t capacity = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    FILE *file = fdopen(fd, "r");
    if (file == NULL) {
        (void)close(fd); /* it was only read */
        return false;
    }
    while (!is_listed && getline(&line, &capacity, file) >= 0) /* an error ends it, as the end does */
        is_listed = line_lists(line, wanted);
    free(line);
    (void)fclose(file);
    return is_listed;
}

static bool equals(const char *name, size_t length, const char *other)
{
    return strlen(other) == length && strncasecmp(name, other, length) == 0;
}

static bool ends_with(const char *name, size_t length, const char *suffix)
{
    size_t size = strlen(suffix);
    return length > size && strncasecmp(name + length - size, suffix, size) == 0;
}

static bool is_own_name(const char *name, size_t length)
{
    char own[LONGEST_NAME + 1];
    if (gethostname(own, sizeof(own)) != 0)
        return false;
    own[LONGEST_NAME] = '\0'; /* POSIX: one that was cut off may come without */
    return equals(name, length, own);
}

bool hoop_name_is_local(const char *host, int family, int flags, const char *hosts_path)
{
    ip_address address;
    if (host == NULL || host[0] == '\0' || (flags & AI_NUMERICHOST) != 0 || parse(host, &address))
        return true;
    size_t length = strlen(host);
    if (host[length - 1] == '.')
        length--;
    if (length > LONGEST_NAME)
        return true; /* libc refuses it without asking a server */
    if (equals(host, length, "localhost") || ends_with(host, length, ".localhost") || is_own_name(host, length))
        return true;
    wanted wanted = {.name = host, .length = length, .family = family};
    return file_lists(hosts_path, &wanted);
}

bool hoop_address_is_local(const char *host, int flags, const char *hosts_path)
{
    wanted wanted = {.name = NULL};
    if ((flags & NI_NUMERICHOST) != 0 || !parse(host, &wanted.address))
        return true;
    return file_lists(hosts_path, &wanted);
}
