/* fs_cached.c: reading from the page cache without waiting. The kernel's facts, and what they mean here:
 *
 *   - openat2(2) with RESOLVE_CACHED (Linux 5.12) answers EAGAIN where the lookup would leave the cache of names. It
 *     says nothing about the open itself: opening a FIFO waits for the other side, a file of a FUSE daemon for that
 *     daemon. So the first open is O_PATH, which asks no file system.
 *   - statx(2) with AT_STATX_DONT_SYNC takes what the kernel has; fstat(2) would ask the server or daemon of a
 *     network or FUSE file, and wait.
 *   - A regular file on a local file system can be opened: O_NONBLOCK makes even a lease an EAGAIN. Opening
 *     /proc/self/fd/N leads to that very file, whatever has happened to its name.
 *   - preadv2(2) with RWF_NOWAIT (4.14) reads what is in the page cache: all, a first part, or EAGAIN. A file system
 *     that cannot do that says EOPNOTSUPP.
 *   - What an old kernel does not know is ENOSYS, or EINVAL for the flag; a sandbox says ENOSYS or EPERM.
 *   - poll(2) on /proc/self/mountinfo reports POLLPRI once after each change of the mounts.
 *
 * The calls are made by number and with structures of our own: the C libraries have them late or not at all. */
#include "fs_cached.h"

#include "platform.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#if HOOP_HAVE_NOWAIT_READS
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#endif

#if HOOP_HAVE_NOWAIT_READS && defined(SYS_statx) && defined(SYS_preadv2)
#define HAVE_CACHED_READS 1
#else
#define HAVE_CACHED_READS 0
#endif

static int64_t missed(hoop_fs_cached *cached, hoop_fs_miss why)
{
    cached->misses[-why - 1]++;
    return why;
}

static void close_both(hoop_fs_cached *cached)
{
    if (cached->descriptors_fd >= 0)
        (void)close(cached->descriptors_fd); /* read only: it has nothing to say */
    if (cached->mounts_fd >= 0)
        (void)close(cached->mounts_fd);
    cached->descriptors_fd = cached->mounts_fd = -1;
}

void hoop_fs_cached_init(hoop_fs_cached *cached, bool is_off)
{
    memset(cached, 0, sizeof(*cached));
    cached->is_off = is_off;
    cached->descriptors_fd = cached->mounts_fd = -1;
}

void hoop_fs_cached_close(hoop_fs_cached *cached)
{
    close_both(cached);
    cached->is_off = true;
}

static hoop_fs_device *find_device(hoop_fs_cached *cached, uint64_t number)
{
    for (int i = 0; i < HOOP_FS_CACHED_DEVICES; i++) {
        hoop_fs_device *device = &cached->devices[i];
        if (device->state != HOOP_FS_DEVICE_NONE && device->number == number)
            return device;
    }
    return NULL;
}

void hoop_fs_cached_learn(hoop_fs_cached *cached, uint64_t device, bool is_local, uint64_t mount_changes)
{
    if (mount_changes != cached->mount_changes)
        return; /* the number may be another file system's by now */
    hoop_fs_device *known = find_device(cached, device);
    if (known == NULL) {
        known = &cached->devices[cached->next_device];
        cached->next_device = (cached->next_device + 1) % HOOP_FS_CACHED_DEVICES;
    } else if (known->state == HOOP_FS_DEVICE_UNABLE && is_local) {
        return;
    }
    *known = (hoop_fs_device){device, is_local ? HOOP_FS_DEVICE_LOCAL : HOOP_FS_DEVICE_FOREIGN};
}

#if HAVE_CACHED_READS

/* <linux/openat2.h> and <linux/stat.h>, which older systems lack; the kernel's interface does not change. */
#if !defined(SYS_openat2)
#define SYS_openat2 437
#endif
#define OWN_RESOLVE_CACHED UINT64_C(0x20)
#define OWN_AT_EMPTY_PATH 0x1000
#define OWN_AT_STATX_DONT_SYNC 0x4000
#define OWN_STATX_TYPE_AND_SIZE 0x0201U
#define OWN_RWF_NOWAIT 0x8
#define OWN_S_IFMT 0170000
#define OWN_S_IFREG 0100000

struct kernel_open_how {
    uint64_t flags, mode, resolve;
};

struct kernel_statx {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, user, group;
    uint16_t mode, spare;
    uint64_t inode, size, blocks, attributes_mask, times[8];
    uint32_t special_major, special_minor, device_major, device_minor;
    uint64_t rest[14];
};
_Static_assert(sizeof(struct kernel_statx) == 256, "the size that statx(2) writes");

/* glibc's and musl's makedev(3): what st_dev of the same file is. */
static uint64_t device_number(uint64_t major, uint64_t minor)
{
    return (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~UINT64_C(0xff)) << 12) |
           ((major & ~UINT64_C(0xfff)) << 32);
}

static int64_t refused(hoop_fs_cached *cached, const char *call, int error)
{
    cached->refused_call = call;
    cached->refusal = error;
    hoop_fs_cached_close(cached);
    return missed(cached, HOOP_FS_MISS_OFF);
}

static bool is_refusal(int error)
{
    return error == ENOSYS || error == EPERM || error == EINVAL;
}

static void forget_devices(hoop_fs_cached *cached)
{
    memset(cached->devices, 0, sizeof(cached->devices));
    cached->mount_changes++;
}

static int64_t open_proc(hoop_fs_cached *cached)
{
    cached->descriptors_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (cached->descriptors_fd >= 0)
        cached->mounts_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (cached->mounts_fd >= 0) {
        forget_devices(cached); /* the descriptor reports later changes only */
        return 0;
    }
    int error = errno;
    close_both(cached);
    if (error == EMFILE || error == ENFILE || error == ENOMEM || error == EINTR)
        return missed(cached, HOOP_FS_MISS_OPEN); /* for the moment */
    return refused(cached, "/proc/self", error);
}

static void begin_turn(hoop_fs_cached *cached, uint64_t turn)
{
    struct pollfd mounts = {.fd = cached->mounts_fd, .events = POLLPRI};
    cached->turn = turn;
    cached->turn_reads = 0;
    cached->turn_bytes = 0;
    if (poll(&mounts, 1, 0) != 0) /* changed, or unknown */
        forget_devices(cached);
}

static int64_t open_for_reading(hoop_fs_cached *cached, int path_fd)
{
    char digits[12];
    char *name = digits + sizeof(digits) - 1;
    *name = '\0';
    do {
        *--name = (char)('0' + path_fd % 10);
        path_fd /= 10;
    } while (path_fd > 0);
    int fd = openat(cached->descriptors_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    return errno == ENOENT ? refused(cached, "/proc/self/fd", ENOENT) : missed(cached, HOOP_FS_MISS_OPEN);
}

/* What kind of file path_fd leads to; if it is one to read here, file->fd. */
static int64_t look_and_open(hoop_fs_cached *cached, int path_fd, hoop_fs_cached_file *file)
{
    struct kernel_statx status;
    int flags = OWN_AT_EMPTY_PATH | OWN_AT_STATX_DONT_SYNC;
    if (syscall(SYS_statx, path_fd, "", flags, OWN_STATX_TYPE_AND_SIZE, &status) < 0)
        return is_refusal(errno) ? refused(cached, "statx", errno) : missed(cached, HOOP_FS_MISS_LOOKUP);
    if ((status.mask & OWN_STATX_TYPE_AND_SIZE) != OWN_STATX_TYPE_AND_SIZE || (status.mode & OWN_S_IFMT) != OWN_S_IFREG)
        return missed(cached, HOOP_FS_MISS_TYPE);
    file->device = device_number(status.device_major, status.device_minor);
    const hoop_fs_device *device = find_device(cached, file->device);
    if (device == NULL)
        return missed(cached, HOOP_FS_MISS_UNKNOWN);
    if (device->state != HOOP_FS_DEVICE_LOCAL)
        return missed(cached, HOOP_FS_MISS_FOREIGN);
    if (status.size > (uint64_t)HOOP_FS_CACHED_MOST_BYTES)
        return missed(cached, HOOP_FS_MISS_LARGE);
    file->size = (int64_t)status.size;
    if (cached->turn_bytes + file->size > HOOP_FS_CACHED_TURN_BYTES)
        return missed(cached, HOOP_FS_MISS_TURN);
    int64_t fd = open_for_reading(cached, path_fd);
    if (fd < 0)
        return fd;
    file->fd = (int)fd;
    return file->size;
}

int64_t hoop_fs_cached_open(hoop_fs_cached *cached, const char *path, uint64_t turn, hoop_fs_cached_file *file)
{
    static const struct kernel_open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = OWN_RESOLVE_CACHED};
    file->fd = -1;
    if (cached->is_off)
        return missed(cached, HOOP_FS_MISS_OFF);
    if (HOOP_UNLIKELY(cached->mounts_fd < 0)) {
        int64_t opened = open_proc(cached);
        if (opened < 0)
            return opened;
        begin_turn(cached, turn);
    }
    if (cached->turn != turn)
        begin_turn(cached, turn);
    if (cached->turn_reads >= HOOP_FS_CACHED_TURN_READS)
        return missed(cached, HOOP_FS_MISS_TURN);
    cached->turn_reads++; /* a miss takes its time too */
    int path_fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    if (path_fd < 0)
        return is_refusal(errno) ? refused(cached, "openat2", errno) : missed(cached, HOOP_FS_MISS_LOOKUP);
    int64_t result = look_and_open(cached, path_fd, file);
    (void)close(path_fd); /* O_PATH: no file system hears of it */
    return result;
}

static int64_t read_without_waiting(hoop_fs_cached *cached, const hoop_fs_cached_file *file, void *buffer)
{
    struct iovec room = {.iov_base = buffer, .iov_len = (size_t)file->size};
    ssize_t got = file->size == 0 ? 0 : syscall(SYS_preadv2, file->fd, &room, 1UL, 0UL, 0UL, OWN_RWF_NOWAIT);
    if (got == file->size) {
        cached->hits++;
        cached->turn_bytes += got;
        return got;
    }
    if (got < 0 && (errno == ENOSYS || errno == EPERM))
        return refused(cached, "preadv2", errno);
    if (got < 0 && errno == EOPNOTSUPP) { /* a matter of this file system, not of the kernel */
        hoop_fs_device *device = find_device(cached, file->device);
        if (device != NULL)
            device->state = HOOP_FS_DEVICE_UNABLE;
    }
    return missed(cached, HOOP_FS_MISS_CONTENTS);
}

int64_t hoop_fs_cached_take(hoop_fs_cached *cached, hoop_fs_cached_file *file, void *buffer)
{
    int64_t result =
        buffer == NULL ? missed(cached, HOOP_FS_MISS_CONTENTS) : read_without_waiting(cached, file, buffer);
    (void)close(file->fd); /* read only: it has nothing to say */
    file->fd = -1;
    return result;
}

int64_t hoop_fs_cached_keep(hoop_fs_cached *cached, hoop_fs_cached_file *file)
{
    int fd = file->fd;
    file->fd = -1;
    if (fcntl(fd, F_SETFL, 0) < 0) { /* of the flags that F_SETFL changes, open had O_NONBLOCK alone */
        (void)close(fd);
        return missed(cached, HOOP_FS_MISS_OPEN);
    }
    cached->hits++;
    return fd;
}

int64_t hoop_fs_cached_read(hoop_fs_cached *cached, const hoop_fs_cached_file *file, uint64_t turn, void *buffer)
{
    if (cached->is_off)
        return missed(cached, HOOP_FS_MISS_OFF);
    if (file->size > HOOP_FS_CACHED_MOST_BYTES)
        return missed(cached, HOOP_FS_MISS_LARGE);
    if (cached->turn != turn)
        begin_turn(cached, turn);
    if (cached->turn_reads >= HOOP_FS_CACHED_TURN_READS || cached->turn_bytes + file->size > HOOP_FS_CACHED_TURN_BYTES)
        return missed(cached, HOOP_FS_MISS_TURN);
    cached->turn_reads++;
    return read_without_waiting(cached, file, buffer);
}

/* By the magic numbers of statfs(2). A file system that is not listed keeps its data elsewhere, makes it up as it is
 * read, or is rare. */
int hoop_fs_is_local(int fd)
{
    static const uint32_t local[] = {
        0x0000ef53, /* ext2, ext3, ext4 */
        0x58465342, /* XFS */
        0x9123683e, /* btrfs */
        0xf2f52010, /* F2FS */
        0xca451a4e, /* bcachefs */
        0x01021994, /* tmpfs */
        0x858458f6, /* ramfs */
        0x794c7630, /* overlayfs: containers */
        0x73717368, /* squashfs */
        0xe0f5e1e2, /* EROFS */
    };
    struct statfs status;
    int result;
    HOOP_RETRY(result, fstatfs(fd, &status));
    if (result < 0)
        return -errno;
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
        if ((uint32_t)status.f_type == local[i])
            return 1;
    }
    return 0;
}

#else

int64_t hoop_fs_cached_open(hoop_fs_cached *cached, const char *path, uint64_t turn, hoop_fs_cached_file *file)
{
    (void)path;
    (void)turn;
    file->fd = -1;
    cached->is_off = true;
    return missed(cached, HOOP_FS_MISS_OFF);
}

int64_t hoop_fs_cached_take(hoop_fs_cached *cached, hoop_fs_cached_file *file, void *buffer)
{
    (void)buffer;
    (void)file;
    return missed(cached, HOOP_FS_MISS_OFF); /* there was nothing to take */
}

int64_t hoop_fs_cached_keep(hoop_fs_cached *cached, hoop_fs_cached_file *file)
{
    (void)file;
    return missed(cached, HOOP_FS_MISS_OFF);
}

int64_t hoop_fs_cached_read(hoop_fs_cached *cached, const hoop_fs_cached_file *file, uint64_t turn, void *buffer)
{
    (void)file;
    (void)turn;
    (void)buffer;
    return missed(cached, HOOP_FS_MISS_OFF);
}

int hoop_fs_is_local(int fd)
{
    (void)fd;
    return 0;
}

#endif
