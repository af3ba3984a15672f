/* fs_contents.c: reads and writes whole files. What the kernels do, and what it means here:
 *
 *   - read(2) and write(2) may move less than was asked for, at any time.
 *   - st_size is a guess: files of /proc and /sys claim 0 bytes, pipes and devices have no size, other processes write.
 *   - copy_file_range(2) (Linux; one call may share blocks instead of copying) refuses with EXDEV, EINVAL, EOPNOTSUPP
 *     or ENOSYS depending on the file systems and the kernel's age, some sandboxes with EPERM; for a file of /proc it
 *     "copies" 0 bytes. sendfile(2) between files is Linux's too. read(2) and write(2) always work.
 *   - close(2) can report that earlier writes failed (NFS, quotas). After EINTR the descriptor is gone all the same.
 *   - fsync(2) of macOS stops at the disk's own cache; F_FULLFSYNC does not, but some file systems lack it. */
#include "fs_contents.h"

#include "clock.h"
#include "platform.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#if HOOP_HAVE_COPY_IN_KERNEL
#include <sys/sendfile.h>
#include <sys/syscall.h>
#endif

#define FIRST_GUESS ((size_t)16384) /* for a file that claims to be empty */
#define COPY_BUFFER_SIZE ((size_t)(256 * 1024))
#define MOST_SYMBOLS 12 /* random characters in a temporary name */
#define MOST_TEMPORARY_NAMES 100

int hoop_fs_open(const char *path, int flags, mode_t mode)
{
    int fd;
    HOOP_RETRY(fd, open(path, flags | O_CLOEXEC, mode));
    return fd < 0 ? -errno : fd;
}

/* 0, or what the file system had to say about earlier writes. */
static int close_file(int fd)
{
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static ssize_t read_once(int fd, void *buffer, size_t size, int64_t offset)
{
    ssize_t moved;
    size = hoop_transfer_size(size);
    HOOP_RETRY(moved, offset < 0 ? read(fd, buffer, size) : pread(fd, buffer, size, (off_t)offset));
    return moved < 0 ? -errno : moved;
}

static ssize_t write_once(int fd, const void *buffer, size_t size, int64_t offset)
{
    ssize_t moved;
    size = hoop_transfer_size(size);
    HOOP_RETRY(moved, offset < 0 ? write(fd, buffer, size) : pwrite(fd, buffer, size, (off_t)offset));
    if (HOOP_UNLIKELY(moved == 0) && size > 0)
        return -EIO;
    return moved < 0 ? -errno : moved;
}

int64_t hoop_fs_read(int fd, void *buffer, size_t size, int64_t offset)
{
    size_t done = 0;
    do { /* also for no bytes at all: the call says whether fd can be read */
        ssize_t moved = read_once(fd, (char *)buffer + done, size - done, offset < 0 ? -1 : offset + (int64_t)done);
        if (moved < 0)
            return moved;
        if (moved == 0)
            break;
        done += (size_t)moved;
    } while (done < size);
    return (int64_t)done;
}

int64_t hoop_fs_write(int fd, const void *buffer, size_t size, int64_t offset)
{
    size_t done = 0;
    do { /* as above */
        ssize_t moved =
            write_once(fd, (const char *)buffer + done, size - done, offset < 0 ? -1 : offset + (int64_t)done);
        if (moved < 0)
            return moved;
        done += (size_t)moved;
    } while (done < size);
    return (int64_t)done;
}

static int grow(hoop_contents *contents, size_t *capacity, size_t wanted)
{
    char *grown = realloc(contents->bytes, wanted);
    if (grown == NULL)
        return -ENOMEM;
    contents->bytes = grown;
    *capacity = wanted;
    return 0;
}

int hoop_fs_read_to_end(int fd, int64_t expected, hoop_contents *contents)
{
    size_t capacity = 0;
    contents->bytes = NULL;
    contents->length = 0;
    if (expected > (int64_t)(SIZE_MAX / 4))
        return -ENOMEM;
    /* One byte more than expected: then the read that finds the end needs no larger buffer. */
    int result = grow(contents, &capacity, expected > 0 ? (size_t)expected + 1 : FIRST_GUESS);
    while (result == 0) {
        if (contents->length == capacity) {
            result = capacity > SIZE_MAX / 4 ? -ENOMEM : grow(contents, &capacity, capacity * 2);
            continue;
        }
        ssize_t moved = read_once(fd, contents->bytes + contents->length, capacity - contents->length, -1);
        if (moved == 0)
            return 0;
        if (moved < 0)
            result = (int)moved;
        else
            contents->length += (size_t)moved;
    }
    free(contents->bytes);
    contents->bytes = NULL;
    contents->length = 0;
    return result;
}

int hoop_fs_sync(int fd)
{
    int result;
#if defined(F_FULLFSYNC)
    if (fcntl(fd, F_FULLFSYNC) == 0)
        return 0;
#endif
    HOOP_RETRY(result, fsync(fd));
    return result < 0 ? -errno : 0;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* Write all bytes, sync if asked to, close: each of the three can fail. */
static int64_t fill_and_close(int fd, const void *bytes, size_t size, unsigned options)
{
    int64_t result = hoop_fs_write(fd, bytes, size, -1);
    if (result >= 0 && (options & HOOP_FS_SYNC) != 0) {
        int synced = hoop_fs_sync(fd);
        result = synced < 0 ? synced : result;
    }
    int closed = close_file(fd);
    return result >= 0 && closed < 0 ? closed : result;
}

/* Not for secrets: O_EXCL makes the name safe, chance only makes a collision rare. */
static void choose_name(char *symbols, int attempt)
{
    static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    int on_stack;
    uint64_t state = (uint64_t)hoop_clock_ns() ^ ((uint64_t)getpid() << 32) ^ (uint64_t)(uintptr_t)&on_stack;
    state += (uint64_t)attempt * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < MOST_SYMBOLS; i++) {
        state ^= state >> 30;
        state *= UINT64_C(0xbf58476d1ce4e5b9);
        state ^= state >> 27;
        symbols[i] = alphabet[state % (sizeof(alphabet) - 1)];
    }
}

/* A new file beside `path`, so that rename(2) can put it there: its descriptor. *name comes from malloc.
 *
 * Not mkstemp(3): that makes the file with 0600 whatever the umask is. Here open(2) gets `mode`, and the kernel takes
 * the umask off. To do so afterwards we would have to ask for the umask, which only setting it can tell, for all
 * threads. */
static int open_beside(const char *path, mode_t mode, char **name)
{
    static const char prefix[] = ".hoop-";
    const char *slash = strrchr(path, '/');
    size_t folder = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    size_t length = folder + sizeof(prefix) - 1 + MOST_SYMBOLS + 1;
    char *beside = malloc(length);
    if (beside == NULL)
        return -ENOMEM;
    memcpy(beside, path, folder);
    memcpy(beside + folder, prefix, sizeof(prefix) - 1);
    beside[length - 1] = '\0';
    int fd = -EEXIST;
    for (int attempt = 0; fd == -EEXIST && attempt < MOST_TEMPORARY_NAMES; attempt++) {
        choose_name(beside + length - 1 - MOST_SYMBOLS, attempt);
        fd = hoop_fs_open(beside, O_WRONLY | O_CREAT | O_EXCL, mode);
    }
    if (fd < 0)
        free(beside);
    else
        *name = beside;
    return fd;
}

/* The name of a file is on the disk when its folder is. A file system that cannot sync a folder says EINVAL. */
static int sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (folder == NULL)
        return -ENOMEM;
    int fd = hoop_fs_open(folder, O_RDONLY | O_DIRECTORY, 0);
    free(folder);
    if (fd < 0)
        return fd;
    int result = hoop_fs_sync(fd);
    int closed = close_file(fd);
    if (result == -EINVAL)
        result = 0;
    return result < 0 ? result : closed;
}

static int put_in_place(const char *beside, const char *path, unsigned options)
{
    int result;
    if ((options & HOOP_FS_EXCLUSIVE) == 0)
        return rename(beside, path) < 0 ? -errno : 0;
    result = link(beside, path) < 0 ? -errno : 0; /* unlike rename(2), link(2) never replaces */
    if (result == 0 && unlink(beside) < 0)
        return -errno;
    return result;
}

static int64_t write_atomically(const char *path, const void *bytes, size_t size, mode_t mode, unsigned options)
{
    struct stat former;
    char *beside = NULL;
    int fd = open_beside(path, mode, &beside);
    if (fd < 0)
        return fd;
    int64_t result = 0;
    if (stat(path, &former) == 0 && S_ISREG(former.st_mode) && fchmod(fd, former.st_mode & 07777) < 0)
        result = -errno;
    if (result < 0)
        (void)close_file(fd); /* nothing was written, so nothing is lost */
    else
        result = fill_and_close(fd, bytes, size, options);
    if (result >= 0) {
        int placed = put_in_place(beside, path, options);
        result = placed < 0 ? placed : result;
    }
    if (result < 0)
        (void)unlink(beside); /* the first error is the one to tell */
    free(beside);
    if (result >= 0 && (options & HOOP_FS_SYNC) != 0) {
        int synced = sync_folder_of(path);
        result = synced < 0 ? synced : result;
    }
    return result;
}

int64_t hoop_fs_write_file(const char *path, const void *bytes, size_t size, mode_t mode, unsigned options)
{
    if ((options & HOOP_FS_ATOMIC) != 0)
        return (options & HOOP_FS_APPEND) != 0 ? -EINVAL : write_atomically(path, bytes, size, mode, options);
    int flags = O_WRONLY | O_CREAT | ((options & HOOP_FS_APPEND) != 0 ? O_APPEND : O_TRUNC);
    if ((options & HOOP_FS_EXCLUSIVE) != 0)
        flags |= O_EXCL;
    int fd = hoop_fs_open(path, flags, mode);
    return fd < 0 ? fd : fill_and_close(fd, bytes, size, options);
}

/* ---- copying ----------------------------------------------------------------------------------------------------- */

/* Both descriptors move on together, so that one way of copying continues where another gave up. */

static int64_t copy_with_a_buffer(int from, int to, unsigned *blamed)
{
    int64_t total = 0;
    char *buffer = malloc(COPY_BUFFER_SIZE);
    if (buffer == NULL)
        return -ENOMEM;
    for (;;) {
        int64_t moved = read_once(from, buffer, COPY_BUFFER_SIZE, -1);
        *blamed = HOOP_FS_FIRST;
        if (moved > 0) {
            *blamed = HOOP_FS_SECOND;
            moved = hoop_fs_write(to, buffer, (size_t)moved, -1);
        }
        if (moved <= 0) {
            free(buffer);
            return moved < 0 ? moved : total;
        }
        total += moved;
    }
}

#if HOOP_HAVE_COPY_IN_KERNEL
typedef ssize_t (*move_fn)(int from, int to);

static ssize_t move_by_copy_file_range(int from, int to)
{
#if defined(SYS_copy_file_range) /* called by number: glibc has had a wrapper since 2.27 only */
    return (ssize_t)syscall(SYS_copy_file_range, from, NULL, to, NULL, HOOP_LARGEST_TRANSFER, 0U);
#else
    (void)from;
    (void)to;
    errno = ENOSYS;
    return -1;
#endif
}

static ssize_t move_by_sendfile(int from, int to)
{
    return sendfile(to, from, NULL, HOOP_LARGEST_TRANSFER);
}

/* Whether it is `move` that cannot, and not the disk. */
static bool is_refusal(int error)
{
    return error == ENOSYS || error == EINVAL || error == EXDEV || error == EOPNOTSUPP || error == EPERM ||
           error == EBADF || error == ETXTBSY;
}

/* Copy until the end of `from` or a refusal: how much. Another way copies the rest, if only to find none. */
static int64_t copy_in_kernel(int from, int to, move_fn move)
{
    int64_t total = 0;
    for (;;) {
        ssize_t moved;
        HOOP_RETRY(moved, move(from, to));
        if (moved == 0 || (moved < 0 && is_refusal(errno)))
            return total;
        if (moved < 0)
            return -errno;
        total += moved;
    }
}
#endif

static int64_t copy_contents(int from, int to, unsigned *blamed)
{
    int64_t total = 0;
#if HOOP_HAVE_COPY_IN_KERNEL
    static const move_fn moves[] = {move_by_copy_file_range, move_by_sendfile};
    *blamed = HOOP_FS_FIRST | HOOP_FS_SECOND;
    for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
        int64_t moved = copy_in_kernel(from, to, moves[i]);
        if (moved < 0)
            return moved;
        total += moved;
    }
#endif
    int64_t rest = copy_with_a_buffer(from, to, blamed);
    return rest < 0 ? rest : total + rest;
}

/* Open without O_TRUNC: the target may turn out to be the source. *is_new: this call has made it. */
static int open_target(const char *path, mode_t mode, unsigned options, bool *is_new)
{
    int fd = hoop_fs_open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    *is_new = fd >= 0;
    if (fd == -EEXIST && (options & HOOP_FS_EXCLUSIVE) == 0) {
        fd = hoop_fs_open(path, O_WRONLY | O_CREAT, mode);
        *is_new = false;
    }
    return fd;
}

static int64_t copy_opened(int from, int to, const struct stat *source, bool is_new, unsigned *blamed)
{
    struct stat target;
    *blamed = HOOP_FS_SECOND;
    if (fstat(to, &target) < 0)
        return -errno;
    if (target.st_dev == source->st_dev && target.st_ino == source->st_ino) {
        *blamed = HOOP_FS_FIRST | HOOP_FS_SECOND;
        return -EINVAL;
    }
    bool is_regular = S_ISREG(target.st_mode);
    if (is_regular && !is_new && ftruncate(to, 0) < 0)
        return -errno;
    if (is_regular && fchmod(to, source->st_mode & 07777) < 0)
        return -errno;
    return copy_contents(from, to, blamed);
}

int64_t hoop_fs_copy_file(const char *source, const char *target, unsigned options, unsigned *blamed)
{
    struct stat status;
    bool is_new = false;
    *blamed = HOOP_FS_FIRST;
    int from = hoop_fs_open(source, O_RDONLY, 0);
    if (from < 0)
        return from;
    int64_t result = fstat(from, &status) < 0 ? -errno : S_ISDIR(status.st_mode) ? -EISDIR : 0;
    if (result < 0) {
        (void)close_file(from); /* read only: it has nothing to say */
        return result;
    }
    int to = open_target(target, status.st_mode & 0777, options, &is_new);
    if (to < 0) {
        *blamed = HOOP_FS_SECOND;
        (void)close_file(from);
        return to;
    }
    result = copy_opened(from, to, &status, is_new, blamed);
    int closed = close_file(to);
    if (result >= 0 && closed < 0) {
        *blamed = HOOP_FS_SECOND;
        result = closed;
    }
    (void)close_file(from);
    if (result < 0 && is_new)
        (void)unlink(target); /* the first error is the one to tell */
    return result;
}
