/* For LD_PRELOAD: a write(2) that keeps the wake-ups which other threads than the first send to a loop. Each writes a
 * byte to the descriptor named by SLOW_BEGUN_FD, and goes on with one from SLOW_GO_FD. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { WAKE_UP_SIZE = 8 }; /* what an eventfd takes */

static int descriptor(const char *name)
{
    const char *number = getenv(name);
    if (number == NULL)
        abort();
    return atoi(number);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    if (size == WAKE_UP_SIZE && syscall(SYS_gettid) != getpid()) {
        char byte = 'b';
        if (syscall(SYS_write, descriptor("SLOW_BEGUN_FD"), &byte, 1UL) != 1 ||
            read(descriptor("SLOW_GO_FD"), &byte, 1) != 1)
            abort();
    }
    return syscall(SYS_write, fd, bytes, size);
}
