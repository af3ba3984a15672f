/* jobs_fs.c: one function for each kind of job, which makes the blocking calls and notes the outcome.
 *
 *   - The times of struct stat have other names on macOS and NetBSD; birth time and file flags are the BSDs' and
 *     macOS's.
 *   - fchmodat(2) has no AT_SYMLINK_NOFOLLOW on Linux before 6.6, so a link's own mode cannot be set here.
 *   - readlink(2) cuts what does not fit without saying so. */
#include "jobs_fs.h"

#include "fs_cached.h"
#include "platform.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FIRST_LINK_SIZE ((size_t)256)
#define LARGEST_LINK ((size_t)1 << 20)

#if HOOP_HAVE_ST_TIMESPEC
#define STATUS_TIME(status, which) ((status)->st_##which##timespec)
#else
#define STATUS_TIME(status, which) ((status)->st_##which##tim)
#endif

static hoop_fs_job *fs_job(hoop_job *job)
{
    return HOOP_CONTAINER_OF(job, hoop_fs_job, job);
}

static void finish(hoop_fs_job *job, int64_t result, unsigned blamed)
{
    job->result = result;
    job->blamed = result < 0 ? blamed : 0;
}

/* For a system call that answers -1. */
static void finish_call(hoop_fs_job *job, int64_t answer, unsigned blamed)
{
    finish(job, answer < 0 ? -errno : answer, blamed);
}

static int follow_flag(const hoop_fs_job *job)
{
    return job->no_follow ? AT_SYMLINK_NOFOLLOW : 0;
}

static void note_status(hoop_fs_status *to, const struct stat *from)
{
    memset(to, 0, sizeof(*to));
    to->device = (uint64_t)from->st_dev;
    to->inode = (uint64_t)from->st_ino;
    to->links = (uint64_t)from->st_nlink;
    to->special_device = (uint64_t)from->st_rdev;
    to->mode = (uint32_t)from->st_mode;
    to->user = (uint32_t)from->st_uid;
    to->group = (uint32_t)from->st_gid;
    to->size = (int64_t)from->st_size;
    to->blocks = (int64_t)from->st_blocks;
    to->block_size = (int64_t)from->st_blksize;
    to->accessed_s = (int64_t)STATUS_TIME(from, a).tv_sec;
    to->accessed_ns = (int64_t)STATUS_TIME(from, a).tv_nsec;
    to->modified_s = (int64_t)STATUS_TIME(from, m).tv_sec;
    to->modified_ns = (int64_t)STATUS_TIME(from, m).tv_nsec;
    to->changed_s = (int64_t)STATUS_TIME(from, c).tv_sec;
    to->changed_ns = (int64_t)STATUS_TIME(from, c).tv_nsec;
#if HOOP_HAVE_ST_BIRTH
    to->born_s = (int64_t)STATUS_TIME(from, birth).tv_sec;
    to->born_ns = (int64_t)STATUS_TIME(from, birth).tv_nsec;
#endif
#if HOOP_HAVE_ST_FLAGS
    to->flags = (uint32_t)from->st_flags;
    to->generation = (uint32_t)from->st_gen;
#endif
}

/* ---- contents ---------------------------------------------------------------------------------------------------- */

static void close_fd(hoop_fs_job *job)
{
    if (job->fd >= 0)
        (void)close(job->fd); /* it was only read */
    job->fd = -1;
}

static void run_read_file(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    struct stat status;
    job->fd = hoop_fs_open(job->path, O_RDONLY, 0);
    if (job->fd < 0) {
        finish(job, job->fd, HOOP_FS_FIRST);
        job->fd = -1;
        return;
    }
    int64_t result = fstat(job->fd, &status) < 0 ? -errno : 0;
    if (result == 0) {
        note_status(&job->status, &status);
        job->is_local = S_ISREG(status.st_mode) && hoop_fs_is_local(job->fd) == 1;
        int64_t expected = S_ISREG(status.st_mode) ? (int64_t)status.st_size : 0;
        result =
            expected > 0 && (uint64_t)expected > job->size ? 1 : hoop_fs_read_to_end(job->fd, expected, &job->contents);
    }
    if (result != 1)
        close_fd(job);
    finish(job, result, HOOP_FS_FIRST);
}

static void run_read_opened(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    int64_t result = hoop_fs_read(job->fd, job->buffer, job->size, -1);
    if (result == (int64_t)job->size) { /* it may have grown since */
        int rest = hoop_fs_read_to_end(job->fd, 0, &job->contents);
        result = rest < 0 ? rest : result;
    }
    close_fd(job);
    finish(job, result, HOOP_FS_FIRST);
}

static void run_write_file(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, hoop_fs_write_file(job->path, job->data, job->size, job->mode, job->options), HOOP_FS_FIRST);
}

static void run_pread(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, hoop_fs_read(job->fd, job->buffer, job->size, job->offset), 0);
}

static void run_pwrite(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, hoop_fs_write(job->fd, job->data, job->size, job->offset), 0);
}

static void run_copy_file(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    unsigned blamed = 0;
    int64_t result = hoop_fs_copy_file(job->path, job->other_path, job->options, &blamed);
    finish(job, result, blamed);
}

static void run_truncate(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    int answer;
    HOOP_RETRY(answer, job->fd >= 0 ? ftruncate(job->fd, (off_t)job->offset) : truncate(job->path, (off_t)job->offset));
    finish_call(job, answer, HOOP_FS_FIRST);
}

static void run_sync_file(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, hoop_fs_sync(job->fd), 0);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static void run_stat(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    struct stat status;
    int answer = job->fd >= 0 ? fstat(job->fd, &status) : fstatat(AT_FDCWD, job->path, &status, follow_flag(job));
    finish_call(job, answer, HOOP_FS_FIRST);
    if (answer == 0)
        note_status(&job->status, &status);
}

static void run_access(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, faccessat(AT_FDCWD, job->path, (int)job->mode, (int)job->options) == 0, 0);
}

static void run_chmod(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish_call(job, job->fd >= 0 ? fchmod(job->fd, job->mode) : chmod(job->path, job->mode), HOOP_FS_FIRST);
}

static void run_chown(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    int answer = job->fd >= 0 ? fchown(job->fd, (uid_t)job->user, (gid_t)job->group)
                              : fchownat(AT_FDCWD, job->path, (uid_t)job->user, (gid_t)job->group, follow_flag(job));
    finish_call(job, answer, HOOP_FS_FIRST);
}

static void run_utime(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    int answer =
        job->fd >= 0 ? futimens(job->fd, job->times) : utimensat(AT_FDCWD, job->path, job->times, follow_flag(job));
    finish_call(job, answer, HOOP_FS_FIRST);
}

static int read_link(const char *path, hoop_contents *contents)
{
    for (size_t size = FIRST_LINK_SIZE; size <= LARGEST_LINK; size *= 2) {
        char *text = malloc(size);
        if (text == NULL)
            return -ENOMEM;
        ssize_t length = readlink(path, text, size);
        if (length >= 0 && (size_t)length < size) {
            *contents = (hoop_contents){text, (size_t)length};
            return 0;
        }
        int error = errno;
        free(text);
        if (length < 0)
            return -error;
    }
    return -ENAMETOOLONG;
}

static void run_readlink(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, read_link(job->path, &job->contents), HOOP_FS_FIRST);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static void run_list(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, hoop_fs_list(job->path, job->options != 0, &job->listing), HOOP_FS_FIRST);
}

static void run_mkdir(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish_call(job, mkdir(job->path, job->mode), HOOP_FS_FIRST);
}

static void run_makedirs(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish(job, hoop_fs_make_directories(job->path, job->mode, job->options != 0, &job->length), HOOP_FS_FIRST);
}

static void run_unlink(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish_call(job, unlink(job->path), HOOP_FS_FIRST);
}

static void run_rmdir(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish_call(job, rmdir(job->path), HOOP_FS_FIRST);
}

static void run_rename(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish_call(job, rename(job->path, job->other_path), HOOP_FS_FIRST | HOOP_FS_SECOND);
}

static void run_link(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    int answer = linkat(AT_FDCWD, job->path, AT_FDCWD, job->other_path, 0); /* link(2) follows a link on some systems */
    finish_call(job, answer, HOOP_FS_FIRST | HOOP_FS_SECOND);
}

static void run_symlink(hoop_job *base)
{
    hoop_fs_job *job = fs_job(base);
    finish_call(job, symlink(job->path, job->other_path), HOOP_FS_FIRST | HOOP_FS_SECOND);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

/* clang-format off */
static const hoop_job_fn runs[HOOP_FS_KINDS] = {
    [HOOP_FS_READ_FILE] = run_read_file,
    [HOOP_FS_READ_OPENED] = run_read_opened,
    [HOOP_FS_WRITE_FILE] = run_write_file,
    [HOOP_FS_PREAD] = run_pread,
    [HOOP_FS_PWRITE] = run_pwrite,
    [HOOP_FS_STAT] = run_stat,
    [HOOP_FS_ACCESS] = run_access,
    [HOOP_FS_LIST] = run_list,
    [HOOP_FS_MKDIR] = run_mkdir,
    [HOOP_FS_MAKEDIRS] = run_makedirs,
    [HOOP_FS_UNLINK] = run_unlink,
    [HOOP_FS_RMDIR] = run_rmdir,
    [HOOP_FS_RENAME] = run_rename,
    [HOOP_FS_LINK] = run_link,
    [HOOP_FS_SYMLINK] = run_symlink,
    [HOOP_FS_READLINK] = run_readlink,
    [HOOP_FS_CHMOD] = run_chmod,
    [HOOP_FS_CHOWN] = run_chown,
    [HOOP_FS_UTIME] = run_utime,
    [HOOP_FS_TRUNCATE] = run_truncate,
    [HOOP_FS_SYNC_FILE] = run_sync_file,
    [HOOP_FS_COPY_FILE] = run_copy_file,
};
/* clang-format on */

void hoop_fs_job_init(hoop_fs_job *job, hoop_fs_kind kind)
{
    HOOP_ASSERT(kind >= 0 && kind < HOOP_FS_KINDS);
    memset(job, 0, sizeof(*job));
    hoop_job_init(&job->job, runs[kind], HOOP_LANE_FILES);
    job->fd = -1;
    job->user = job->group = UINT32_MAX;
}

void hoop_fs_job_free(hoop_fs_job *job)
{
    if (job->job.run == run_read_file || job->job.run == run_read_opened)
        close_fd(job);
    free(job->contents.bytes);
    job->contents = (hoop_contents){NULL, 0};
    hoop_listing_free(&job->listing);
}
