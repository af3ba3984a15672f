/* fs_cached.h: reads small files that the page cache holds, on the loop's own thread: without a hop, and without a call
 * that can wait for a disk, a network or another process.
 *
 * A read is two steps, between which the caller allocates exactly the right size:
 *
 *     int64_t size = hoop_fs_cached_open(&cached, path, turn, &file);       a size, or a hoop_fs_miss
 *     int64_t got = hoop_fs_cached_take(&cached, &file, buffer);            `size`, or a hoop_fs_miss
 *
 * Anything but a plain hit is a miss, also what looks like an error: the caller then asks a thread of the pool, whose
 * answer counts. The name is looked up once: the type is that of the open file, and so are the bytes.
 *
 * Only devices that a thread has found to be local (hoop_fs_is_local, then hoop_fs_cached_learn) are ever opened here.
 * The kernel reuses the device numbers of file systems without a disk after an unmount, so every change of the table of
 * mounts empties the list of devices. A thread's finding may be older than the change: it counts only if the number of
 * changes is still the one that the caller noted when it asked.
 *
 * The structure belongs to the loop's thread. Linux only: elsewhere, and where the kernel (before 5.12) or a sandbox
 * refuses one of the calls, every read is a HOOP_FS_MISS_OFF. */
#ifndef HOOP_FS_CACHED_H
#define HOOP_FS_CACHED_H

#include "base.h"

#define HOOP_FS_CACHED_DEVICES 16
#define HOOP_FS_CACHED_MOST_BYTES INT64_C(65536)  /* a file: copying more holds the loop as long as a hop would */
#define HOOP_FS_CACHED_TURN_BYTES INT64_C(524288) /* all files in one turn of the loop */
#define HOOP_FS_CACHED_TURN_READS 64              /* how many in one turn: each costs some microseconds */

/* Why a read went to the pool. Negative, so that it cannot be a size. */
typedef enum hoop_fs_miss {
    HOOP_FS_MISS_OFF = -1,      /* switched off, refused by the system, or not there */
    HOOP_FS_MISS_TURN = -2,     /* this turn has had its share */
    HOOP_FS_MISS_LOOKUP = -3,   /* the name is not in the kernel's cache, or leads nowhere */
    HOOP_FS_MISS_TYPE = -4,     /* not a regular file: opening a FIFO or a device waits or does something */
    HOOP_FS_MISS_UNKNOWN = -5,  /* a device that no thread has classified yet */
    HOOP_FS_MISS_FOREIGN = -6,  /* a device that is not local, or cannot read without waiting */
    HOOP_FS_MISS_LARGE = -7,    /* more than HOOP_FS_CACHED_MOST_BYTES */
    HOOP_FS_MISS_OPEN = -8,     /* no permission, a lease, out of descriptors: the pool will say */
    HOOP_FS_MISS_CONTENTS = -9, /* not all of it is in the page cache, or it is being changed */
} hoop_fs_miss;
#define HOOP_FS_MISS_KINDS 9

typedef enum hoop_fs_device_state {
    HOOP_FS_DEVICE_NONE, /* this place in the table is free */
    HOOP_FS_DEVICE_LOCAL,
    HOOP_FS_DEVICE_FOREIGN,
    HOOP_FS_DEVICE_UNABLE, /* local, but it cannot read without waiting, so it is no use here: tmpfs */
} hoop_fs_device_state;

typedef struct hoop_fs_device {
    uint64_t number;
    hoop_fs_device_state state;
} hoop_fs_device;

typedef struct hoop_fs_cached_file {
    int fd;
    uint64_t device;
    int64_t size;
} hoop_fs_cached_file;

typedef struct hoop_fs_cached {
    bool is_off;
    const char *refused_call; /* what the system refused, or NULL */
    int refusal;              /* and its errno */
    int descriptors_fd;       /* /proc/self/fd: an O_PATH descriptor is opened for reading by its name there */
    int mounts_fd;            /* /proc/self/mountinfo: poll(2) tells when it has changed */
    uint64_t mount_changes;   /* how often the list of devices was emptied */
    uint64_t turn;
    int turn_reads;
    int64_t turn_bytes;
    int next_device;
    hoop_fs_device devices[HOOP_FS_CACHED_DEVICES];
    uint64_t hits;
    uint64_t misses[HOOP_FS_MISS_KINDS]; /* by -hoop_fs_miss - 1 */
} hoop_fs_cached;

/* Opens nothing yet. */
void hoop_fs_cached_init(hoop_fs_cached *cached, bool is_off);
void hoop_fs_cached_close(hoop_fs_cached *cached); /* idempotent; it stays usable, and is off */

/* `turn` is any number that changes with each turn of the loop. */
int64_t hoop_fs_cached_open(hoop_fs_cached *cached, const char *path, uint64_t turn, hoop_fs_cached_file *file);
/* Read into `buffer`, of file->size bytes, and close; a NULL buffer only closes. */
int64_t hoop_fs_cached_take(hoop_fs_cached *cached, hoop_fs_cached_file *file, void *buffer);

/* Instead of reading: the descriptor, now the caller's and no longer non-blocking, or a hoop_fs_miss. */
int64_t hoop_fs_cached_keep(hoop_fs_cached *cached, hoop_fs_cached_file *file);

/* Read a file that was kept, from its start: file->size bytes, as fstat(2) tells at this moment; it stays open. The
 * size, or a hoop_fs_miss. */
int64_t hoop_fs_cached_read(hoop_fs_cached *cached, const hoop_fs_cached_file *file, uint64_t turn, void *buffer);

/* Whether the file system of an open file keeps its data on this machine, by a list of those known to: 1, 0 or -errno.
 * May block, so it is for threads. */
int hoop_fs_is_local(int fd);
/* Note what a thread has found out about a device (st_dev); mount_changes as it was before the thread was asked. A
 * device that a read has found unable stays so. */
void hoop_fs_cached_learn(hoop_fs_cached *cached, uint64_t device, bool is_local, uint64_t mount_changes);

#endif
