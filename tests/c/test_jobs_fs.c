/* The jobs, run as a thread of the pool runs them; what they call has tests of its own. */
#include "check.h"
#include "jobs_fs.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/hoop-jobs-XXXXXX";
static char path[64], other[64], missing[64];
static hoop_fs_job job;

static int64_t run(void)
{
    job.job.run(&job.job);
    return job.result;
}

static void begin(hoop_fs_kind kind, const char *first)
{
    hoop_fs_job_free(&job);
    hoop_fs_job_init(&job, kind);
    job.path = first;
}

static int64_t run_on(hoop_fs_kind kind, const char *first, const char *second)
{
    begin(kind, first);
    job.other_path = second;
    return run();
}

static int64_t write_text(const char *name, const char *text)
{
    begin(HOOP_FS_WRITE_FILE, name);
    job.data = text;
    job.size = strlen(text);
    job.mode = 0644;
    return run();
}

TEST(a_file_is_written_read_and_measured)
{
    CHECK_EQ(write_text(path, "some text"), 9);
    begin(HOOP_FS_READ_FILE, path);
    job.size = 100;
    CHECK_EQ(run(), 0);
    CHECK_EQ(job.contents.length, 9);
    CHECK(memcmp(job.contents.bytes, "some text", 9) == 0);
    CHECK_EQ(job.fd, -1);
    CHECK_EQ(run_on(HOOP_FS_STAT, path, NULL), 0);
    CHECK_EQ(job.status.size, 9);
    CHECK_EQ(job.status.mode, S_IFREG | 0644);
    struct stat status;
    REQUIRE(stat(path, &status) == 0);
    CHECK_EQ(job.status.inode, status.st_ino);
    CHECK_EQ(job.status.device, status.st_dev);
    CHECK_EQ(job.status.modified_s, status.st_mtime);
    CHECK_EQ(run_on(HOOP_FS_READ_FILE, missing, NULL), -ENOENT);
    CHECK_EQ(job.blamed, HOOP_FS_FIRST);
    CHECK_EQ(run_on(HOOP_FS_READ_FILE, folder, NULL), -EISDIR);
    CHECK_EQ(job.fd, -1);
}

TEST(a_large_file_is_left_open_for_a_second_job)
{
    char room[16];
    CHECK_EQ(write_text(path, "0123456789"), 10);
    begin(HOOP_FS_READ_FILE, path);
    job.size = 9;
    CHECK_EQ(run(), 1);
    CHECK_EQ(job.status.size, 10);
    int fd = job.fd;
    REQUIRE(fd >= 0);
    job.fd = -1; /* it is the next job's */
    int more = open(path, O_WRONLY | O_APPEND);
    REQUIRE(more >= 0 && write(more, "and more", 8) == 8 && close(more) == 0);
    begin(HOOP_FS_READ_OPENED, NULL);
    job.fd = fd;
    job.buffer = room;
    job.size = 10;
    CHECK_EQ(run(), 10);
    CHECK(memcmp(room, "0123456789", 10) == 0);
    CHECK_EQ(job.contents.length, 8);
    CHECK(memcmp(job.contents.bytes, "and more", 8) == 0);
    CHECK_EQ(job.fd, -1);
    CHECK(fcntl(fd, F_GETFD) < 0);
    begin(HOOP_FS_READ_FILE, path);
    job.size = 1;
    CHECK_EQ(run(), 1);
    fd = job.fd;
    hoop_fs_job_free(&job); /* no caller wants the rest */
    CHECK(fcntl(fd, F_GETFD) < 0);
}

TEST(descriptors_are_read_and_written)
{
    char room[16];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    REQUIRE(fd >= 0);
    begin(HOOP_FS_PWRITE, NULL);
    job.fd = fd;
    job.data = "abcdef";
    job.size = 6;
    job.offset = 2;
    CHECK_EQ(run(), 6);
    begin(HOOP_FS_PREAD, NULL);
    job.fd = fd;
    job.buffer = room;
    job.size = sizeof(room);
    job.offset = 1;
    CHECK_EQ(run(), 7);
    CHECK(memcmp(room, "\0abcdef", 7) == 0);
    begin(HOOP_FS_TRUNCATE, NULL);
    job.fd = fd;
    job.offset = 3;
    CHECK_EQ(run(), 0);
    begin(HOOP_FS_STAT, NULL);
    job.fd = fd;
    CHECK_EQ(run(), 0);
    CHECK_EQ(job.status.size, 3);
    begin(HOOP_FS_SYNC_FILE, NULL);
    job.fd = fd;
    CHECK_EQ(run(), 0);
    close(fd);
    CHECK_EQ(run(), -EBADF);
    CHECK_EQ(job.blamed, 0);
}

TEST(names_are_made_moved_and_removed)
{
    CHECK_EQ(write_text(path, "x"), 1);
    CHECK_EQ(run_on(HOOP_FS_LINK, path, other), 0);
    CHECK_EQ(run_on(HOOP_FS_LINK, path, other), -EEXIST);
    CHECK_EQ(job.blamed, HOOP_FS_FIRST | HOOP_FS_SECOND);
    CHECK_EQ(run_on(HOOP_FS_UNLINK, path, NULL), 0);
    CHECK_EQ(run_on(HOOP_FS_UNLINK, path, NULL), -ENOENT);
    CHECK_EQ(run_on(HOOP_FS_RENAME, other, path), 0);
    CHECK_EQ(run_on(HOOP_FS_RENAME, other, path), -ENOENT);
    CHECK_EQ(job.blamed, HOOP_FS_FIRST | HOOP_FS_SECOND);
    CHECK_EQ(run_on(HOOP_FS_COPY_FILE, path, other), 1);
    CHECK_EQ(run_on(HOOP_FS_COPY_FILE, missing, other), -ENOENT);
    CHECK_EQ(job.blamed, HOOP_FS_FIRST);
    CHECK_EQ(run_on(HOOP_FS_UNLINK, other, NULL), 0);
    CHECK_EQ(run_on(HOOP_FS_MKDIR, other, NULL), 0);
    CHECK_EQ(run_on(HOOP_FS_RMDIR, other, NULL), 0);
    CHECK_EQ(run_on(HOOP_FS_RMDIR, other, NULL), -ENOENT);
    begin(HOOP_FS_MAKEDIRS, other);
    job.mode = 0777;
    CHECK_EQ(run(), 0);
    CHECK_EQ(run(), -EEXIST);
    CHECK_EQ(job.length, strlen(other));
    job.options = 1;
    CHECK_EQ(run(), 0);
    CHECK_EQ(rmdir(other), 0);
    CHECK_EQ(run_on(HOOP_FS_LIST, folder, NULL), 0);
    CHECK_EQ(job.listing.count, 1);
}

TEST(links_of_any_length_are_read)
{
    static const size_t lengths[] = {1, 255, 256, 257, 3000};
    char text[3001];
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        memset(text, 'a', sizeof(text));
        text[lengths[i]] = '\0';
        CHECK_EQ(run_on(HOOP_FS_SYMLINK, text, other), 0);
        CHECK_EQ(run_on(HOOP_FS_READLINK, other, NULL), 0);
        CHECK_EQ(job.contents.length, lengths[i]);
        CHECK(memcmp(job.contents.bytes, text, lengths[i]) == 0);
        CHECK_EQ(unlink(other), 0);
    }
    CHECK_EQ(run_on(HOOP_FS_READLINK, path, NULL), -EINVAL);
    CHECK_EQ(run_on(HOOP_FS_READLINK, missing, NULL), -ENOENT);
    CHECK_EQ(run_on(HOOP_FS_SYMLINK, "to nowhere", other), 0);
    CHECK_EQ(run_on(HOOP_FS_STAT, other, NULL), -ENOENT);
    begin(HOOP_FS_STAT, other);
    job.no_follow = true;
    CHECK_EQ(run(), 0);
    CHECK_EQ(job.status.mode & S_IFMT, S_IFLNK);
    begin(HOOP_FS_READLINK, other);
    alloc_fault_after(0);
    CHECK_EQ(run(), -ENOMEM);
    alloc_fault_after(-1);
    CHECK_EQ(unlink(other), 0);
}

TEST(modes_owners_and_times_are_set)
{
    struct stat status;
    CHECK_EQ(write_text(path, "x"), 1);
    begin(HOOP_FS_CHMOD, path);
    job.mode = 0600;
    CHECK_EQ(run(), 0);
    begin(HOOP_FS_CHOWN, path); /* user and group -1: leave both as they are */
    CHECK_EQ(run(), 0);
    begin(HOOP_FS_UTIME, path);
    job.times[0] = (struct timespec){1000000000, 5};
    job.times[1] = (struct timespec){-1, 999999999};
    CHECK_EQ(run(), 0);
    CHECK_EQ(run_on(HOOP_FS_STAT, path, NULL), 0);
    CHECK_EQ(job.status.mode & 07777, 0600);
    CHECK_EQ(job.status.accessed_s, 1000000000);
    CHECK_EQ(job.status.modified_s, -1);
    CHECK_EQ(job.status.modified_ns, 999999999);
    REQUIRE(stat(path, &status) == 0);
    CHECK_EQ(job.status.user, status.st_uid);
    CHECK_EQ(job.status.group, status.st_gid);
    begin(HOOP_FS_ACCESS, path);
    job.mode = R_OK;
    CHECK_EQ(run(), 1);
    job.path = missing;
    CHECK_EQ(run(), 0);
    begin(HOOP_FS_TRUNCATE, path);
    job.offset = -1;
    CHECK_EQ(run(), -EINVAL);
    CHECK_EQ(run_on(HOOP_FS_CHMOD, missing, NULL), -ENOENT);
    CHECK_EQ(job.blamed, HOOP_FS_FIRST);
}

int main(void)
{
    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/file", folder);
    snprintf(other, sizeof(other), "%s/other", folder);
    snprintf(missing, sizeof(missing), "%s/missing", folder);
    hoop_fs_job_init(&job, HOOP_FS_STAT);
    RUN(a_file_is_written_read_and_measured);
    RUN(a_large_file_is_left_open_for_a_second_job);
    RUN(descriptors_are_read_and_written);
    RUN(names_are_made_moved_and_removed);
    RUN(links_of_any_length_are_read);
    RUN(modes_owners_and_times_are_set);
    hoop_fs_job_free(&job);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(rmdir(folder), 0);
    return check_finish();
}
