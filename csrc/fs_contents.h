/* fs_contents.h: moves the bytes of files: every function goes on until it has moved all, reached the end of the file,
 * or met an error. The calls block and are meant for the pool's threads; they retry EINTR, and ask the kernel for no
 * more than every kernel moves. Descriptors are close-on-exec from birth.
 *
 * Functions return >= 0 or -errno. */
#ifndef HOOP_FS_CONTENTS_H
#define HOOP_FS_CONTENTS_H

#include "base.h"
#include <sys/stat.h>
#include <sys/types.h>

/* What was read: `bytes` comes from malloc and belongs to the caller. */
typedef struct hoop_contents {
    char *bytes;
    size_t length;
} hoop_contents;

/* open(2) with O_CLOEXEC: a descriptor or -errno. */
int hoop_fs_open(const char *path, int flags, mode_t mode);

/* Up to `size` bytes from `offset` on (pread(2); an offset below 0 means from where the descriptor stands, read(2)):
 * how many; fewer than `size` only at the end of the file. */
int64_t hoop_fs_read(int fd, void *buffer, size_t size, int64_t offset);
/* All of `size` bytes, at `offset` or (below 0) where the descriptor stands: `size`, or -errno with some of the bytes
 * possibly written. A write(2) that takes nothing is -EIO: the loop would never end. */
int64_t hoop_fs_write(int fd, const void *buffer, size_t size, int64_t offset);

/* From where the descriptor stands to the end of the file, however long it turns out to be: `expected` (fstat's
 * st_size) is only the first guess. Files that grow or shrink meanwhile, and those of /proc, which claim to be empty,
 * are read to their end. Returns 0, or -errno with nothing in `contents`. */
int hoop_fs_read_to_end(int fd, int64_t expected, hoop_contents *contents);

/* How hoop_fs_write_file opens, and how far it goes to be safe. */
enum {
    HOOP_FS_APPEND = 1,    /* add to the end */
    HOOP_FS_EXCLUSIVE = 2, /* -EEXIST if the file exists */
    HOOP_FS_ATOMIC = 4,    /* readers find the old contents or all of the new: a new file, then rename(2) */
    HOOP_FS_SYNC = 8,      /* on the disk before it returns, with HOOP_FS_ATOMIC the name too */
};

/* Make `path` contain these bytes: their number. A new file gets `mode` less the umask; an atomic replacement gets the
 * permission bits of the file that it replaces. A failure with HOOP_FS_ATOMIC leaves everything as it was. */
int64_t hoop_fs_write_file(const char *path, const void *bytes, size_t size, mode_t mode, unsigned options);

/* Which path an error of two is about. */
enum { HOOP_FS_FIRST = 1, HOOP_FS_SECOND = 2 };

/* Copy contents and permission bits of a file: the number of bytes. -EISDIR for a directory; -EINVAL with both paths
 * blamed if they are one file. `options` is 0 or HOOP_FS_EXCLUSIVE. A target that this call has made is removed when it
 * fails. *blamed: HOOP_FS_FIRST, HOOP_FS_SECOND or both; written only with an error. */
int64_t hoop_fs_copy_file(const char *source, const char *target, unsigned options, unsigned *blamed);

/* Write all of a file to the disk: fsync(2), with F_FULLFSYNC where that is needed (macOS). 0 or -errno. */
int hoop_fs_sync(int fd);

#endif
