/* jobs_fs.h: what the pool's threads do with files. One job is one whole operation (open, fstat, read and close are one
 * job), so that it costs one hop. Any thread may run a job; the structure is that thread's until it has run, and the
 * memory that `path`, `other_path`, `data` and `buffer` point to must live and stay as it is until then.
 *
 *     hoop_fs_job job;
 *     hoop_fs_job_init(&job, HOOP_FS_READ_FILE);
 *     job.path = "/etc/hosts";
 *     ... the pool calls job.job.run(&job.job) ...
 *     job.result is >= 0, or -errno; job.contents has the bytes
 *     hoop_fs_job_free(&job); */
#ifndef HOOP_JOBS_FS_H
#define HOOP_JOBS_FS_H

#include "base.h"
#include "fs_contents.h"
#include "fs_directory.h"
#include "pool.h"

/* Kind                     inputs                          result, outputs */
typedef enum hoop_fs_kind {
    HOOP_FS_READ_FILE,   /* path, size                       0: contents; 1: more than size, left open; status */
    HOOP_FS_READ_OPENED, /* fd (is closed), buffer, size     bytes in buffer; contents: what came after those */
    HOOP_FS_WRITE_FILE,  /* path, data, size, mode, options  bytes written */
    HOOP_FS_PREAD,       /* fd, buffer, size, offset         bytes read; fewer than size only at the end */
    HOOP_FS_PWRITE,      /* fd, data, size, offset           bytes written: size */
    HOOP_FS_STAT,        /* path or fd, no_follow            status */
    HOOP_FS_ACCESS,      /* path, mode, options              1 or 0 */
    HOOP_FS_LIST,        /* path, options: 1 for types       listing */
    HOOP_FS_MKDIR,       /* path, mode */
    HOOP_FS_MAKEDIRS,    /* path, mode, options: may exist   an error is about the first `length` bytes of path */
    HOOP_FS_UNLINK,      /* path */
    HOOP_FS_RMDIR,       /* path */
    HOOP_FS_RENAME,      /* path, other_path */
    HOOP_FS_LINK,        /* path, other_path                 a link to a symbolic link is to the link itself */
    HOOP_FS_SYMLINK,     /* path: the link's text, other_path: the link */
    HOOP_FS_READLINK,    /* path                             contents */
    HOOP_FS_CHMOD,       /* path or fd, mode */
    HOOP_FS_CHOWN,       /* path or fd, user, group, no_follow */
    HOOP_FS_UTIME,       /* path or fd, times, no_follow */
    HOOP_FS_TRUNCATE,    /* path or fd, offset */
    HOOP_FS_SYNC_FILE,   /* fd */
    HOOP_FS_COPY_FILE,   /* path, other_path, options        bytes copied */
    HOOP_FS_KINDS,
} hoop_fs_kind;

/* stat(2), under one set of names on all systems. What a system lacks is 0. */
typedef struct hoop_fs_status {
    uint64_t device, inode, links, special_device;
    uint32_t mode, user, group, flags, generation;
    int64_t size, blocks, block_size;
    int64_t accessed_s, accessed_ns, modified_s, modified_ns, changed_s, changed_ns, born_s, born_ns;
} hoop_fs_status;

typedef struct hoop_fs_job {
    hoop_job job;
    /* in */
    const char *path;
    const char *other_path;
    const void *data;
    void *buffer;
    size_t size;
    int64_t offset;
    int fd; /* -1: there is a path */
    bool no_follow;
    mode_t mode;
    unsigned options;
    uint32_t user, group; /* UINT32_MAX: as it is */
    struct timespec times[2];
    /* out */
    int64_t result;
    unsigned blamed; /* HOOP_FS_FIRST for path, HOOP_FS_SECOND for other_path: what an error is about */
    size_t length;
    bool is_local; /* READ_FILE, with status: the file's data is on this machine (hoop_fs_is_local) */
    hoop_fs_status status;
    hoop_contents contents;
    hoop_listing listing;
} hoop_fs_job;

void hoop_fs_job_init(hoop_fs_job *job, hoop_fs_kind kind);
/* Release the memory, and the descriptor that READ_FILE left open or READ_OPENED was given. Not while the job runs. */
void hoop_fs_job_free(hoop_fs_job *job);

#endif
