/* Whole files in and out, with system calls that the tests make fail, be interrupted and move less than they were asked
 * to: fs_contents.c is compiled here with its system calls replaced. */
#include "check.h"
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#if HOOP_HAVE_COPY_IN_KERNEL
#include <sys/sendfile.h>
#include <sys/syscall.h>
#endif

enum call { READ, WRITE, PREAD, PWRITE, CLOSE, FSYNC, RENAME, COPY_FILE_RANGE, SENDFILE, CALLS };

static struct fault {
    int after;  /* calls that succeed first; below 0: all do */
    int error;  /* then one fails with this; 0: it moves nothing */
    bool stays; /* every later one fails too */
} faults[CALLS];
static int made[CALLS];
static size_t largest = SIZE_MAX; /* what one call moves at the most */

static bool must_fail(enum call which)
{
    made[which]++;
    if (faults[which].after < 0)
        return false;
    if (faults[which].after > 0) {
        faults[which].after--;
        return false;
    }
    if (!faults[which].stays)
        faults[which].after = -1;
    errno = faults[which].error;
    return true;
}

static void reset(void)
{
    for (int i = 0; i < CALLS; i++)
        faults[i] = (struct fault){-1, 0, false};
    memset(made, 0, sizeof(made));
    largest = SIZE_MAX;
}

static size_t cut(size_t size)
{
    return size < largest ? size : largest;
}

static ssize_t test_read(int fd, void *buffer, size_t size)
{
    return must_fail(READ) ? (errno == 0 ? 0 : -1) : read(fd, buffer, cut(size));
}

static ssize_t test_write(int fd, const void *buffer, size_t size)
{
    return must_fail(WRITE) ? (errno == 0 ? 0 : -1) : write(fd, buffer, cut(size));
}

static ssize_t test_pread(int fd, void *buffer, size_t size, off_t offset)
{
    return must_fail(PREAD) ? -1 : pread(fd, buffer, cut(size), offset);
}

static ssize_t test_pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
    return must_fail(PWRITE) ? -1 : pwrite(fd, buffer, cut(size), offset);
}

static int test_close(int fd)
{
    int result = close(fd);
    return must_fail(CLOSE) ? -1 : result;
}

static int test_fsync(int fd)
{
    return must_fail(FSYNC) ? -1 : fsync(fd);
}

static int test_rename(const char *from, const char *to)
{
    return must_fail(RENAME) ? -1 : rename(from, to);
}

#if HOOP_HAVE_COPY_IN_KERNEL
static long test_syscall(long number, int from, void *in, int to, void *out, size_t size, unsigned flags)
{
    return must_fail(COPY_FILE_RANGE) ? (errno == 0 ? 0 : -1) : syscall(number, from, in, to, out, cut(size), flags);
}

static ssize_t test_sendfile(int to, int from, off_t *offset, size_t size)
{
    return must_fail(SENDFILE) ? -1 : sendfile(to, from, offset, cut(size));
}
#define syscall test_syscall
#define sendfile test_sendfile
#endif
#undef F_FULLFSYNC /* macOS: let it be fsync(2) here */
#define read test_read
#define write test_write
#define pread test_pread
#define pwrite test_pwrite
#define close test_close
#define fsync test_fsync
#define rename test_rename
#define malloc(size) alloc_fault_malloc(size)
#define realloc(block, size) alloc_fault_realloc(block, size)
#include "../../csrc/fs_contents.c"
#undef malloc
#undef realloc
#undef read
#undef write
#undef pread
#undef pwrite
#undef close
#undef fsync
#undef rename
#undef syscall
#undef sendfile

static char folder[] = "/tmp/hoop-contents-XXXXXX";
static char path[128], other[128];
static char pattern[300000];

static void put(const char *name, const void *bytes, size_t size)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, bytes, size) == (ssize_t)size);
    REQUIRE(close(fd) == 0);
}

static bool contains(const char *name, const void *bytes, size_t size)
{
    static char got[sizeof(pattern) + 1];
    int fd = open(name, O_RDONLY);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, got, sizeof(got));
    close(fd);
    return length == (ssize_t)size && memcmp(got, bytes, size) == 0;
}

static int open_folder_count(void) /* what is left lying about */
{
    char command[200];
    snprintf(command, sizeof(command), "exit $(ls -A %s | wc -l)", folder);
    return system(command) / 256;
}

static void read_back(int64_t expected, size_t size)
{
    hoop_contents contents;
    int fd = hoop_fs_open(path, O_RDONLY, 0);
    REQUIRE(fd >= 0);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK_EQ(hoop_fs_read_to_end(fd, expected, &contents), 0);
    CHECK_EQ(contents.length, size);
    CHECK(contents.length == size && memcmp(contents.bytes, pattern, size) == 0);
    free(contents.bytes);
    close(fd);
}

TEST(a_file_is_read_whole_whatever_size_it_claims)
{
    static const size_t sizes[] = {0, 1, 16383, 16384, 16385, sizeof(pattern)};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        put(path, pattern, sizes[i]);
        read_back((int64_t)sizes[i], sizes[i]);
        read_back(0, sizes[i]);                     /* as files of /proc claim */
        read_back((int64_t)sizes[i] * 3, sizes[i]); /* it has shrunk */
        read_back((int64_t)sizes[i] / 2, sizes[i]); /* it has grown */
        largest = 1000;
        faults[READ] = (struct fault){1, EINTR, false};
        read_back((int64_t)sizes[i], sizes[i]);
        reset();
    }
}

TEST(a_read_that_fails_leaves_nothing)
{
    hoop_contents contents;
    put(path, pattern, 50000);
    int fd = hoop_fs_open(path, O_RDONLY, 0);
    REQUIRE(fd >= 0);
    largest = 1000;
    faults[READ] = (struct fault){3, EIO, false};
    CHECK_EQ(hoop_fs_read_to_end(fd, 50000, &contents), -EIO);
    CHECK(contents.bytes == NULL && contents.length == 0);
    CHECK_EQ(hoop_fs_read_to_end(fd, INT64_MAX, &contents), -ENOMEM);
    for (long allowed = 0; allowed < 3; allowed++) { /* the guess, then twice to grow */
        REQUIRE(lseek(fd, 0, SEEK_SET) == 0);
        alloc_fault_after(allowed);
        CHECK_EQ(hoop_fs_read_to_end(fd, 0, &contents), allowed < 3 ? -ENOMEM : 0);
        CHECK(contents.bytes == NULL);
        alloc_fault_after(-1);
        largest = SIZE_MAX;
    }
    close(fd);
    CHECK_EQ(hoop_fs_open("/nonexistent/x", O_RDONLY, 0), -ENOENT);
    reset();
}

TEST(reads_and_writes_at_an_offset_are_complete)
{
    char got[1000];
    int fd = hoop_fs_open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    REQUIRE(fd >= 0);
    largest = 7;
    faults[PWRITE] = (struct fault){2, EINTR, false};
    CHECK_EQ(hoop_fs_write(fd, pattern, 1000, 100), 1000);
    faults[PREAD] = (struct fault){2, EINTR, false};
    CHECK_EQ(hoop_fs_read(fd, got, 1000, 100), 1000);
    CHECK(memcmp(got, pattern, 1000) == 0);
    CHECK_EQ(hoop_fs_read(fd, got, 1000, 600), 500);
    CHECK_EQ(hoop_fs_read(fd, got, 1000, 5000), 0);
    CHECK_EQ(hoop_fs_read(fd, got, 0, 0), 0);
    CHECK_EQ(hoop_fs_write(fd, pattern, 0, 0), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0); /* neither moved it */
    faults[PREAD] = (struct fault){1, EIO, false};
    CHECK_EQ(hoop_fs_read(fd, got, 1000, 100), -EIO);
    faults[PWRITE] = (struct fault){1, ENOSPC, false};
    CHECK_EQ(hoop_fs_write(fd, pattern, 1000, 100), -ENOSPC);
    close(fd);
    reset();
}

TEST(a_file_is_written_whole_or_an_error)
{
    CHECK_EQ(hoop_fs_write_file(path, pattern, 5000, 0640, 0), 5000);
    CHECK(contains(path, pattern, 5000));
    largest = 100;
    faults[WRITE] = (struct fault){3, EINTR, false};
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0640, HOOP_FS_SYNC), 1000);
    CHECK(contains(path, pattern, 1000));
    CHECK_EQ(made[FSYNC], 1);
    faults[WRITE] = (struct fault){3, ENOSPC, true};
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0640, 0), -ENOSPC);
    faults[WRITE] = (struct fault){3, 0, true};
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0640, 0), -EIO);
    reset();
    faults[FSYNC] = (struct fault){0, EIO, false};
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0640, HOOP_FS_SYNC), -EIO);
    faults[CLOSE] = (struct fault){0, EDQUOT, false};
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0640, 0), -EDQUOT);
    faults[CLOSE] = (struct fault){0, EINTR, false};
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0640, 0), 1000);
    CHECK_EQ(hoop_fs_write_file(path, pattern, 10, 0640, HOOP_FS_EXCLUSIVE), -EEXIST);
    CHECK_EQ(hoop_fs_write_file(path, pattern + 1000, 10, 0640, HOOP_FS_APPEND), 10);
    CHECK(contains(path, pattern, 1010));
    CHECK_EQ(hoop_fs_write_file(path, pattern, 10, 0640, HOOP_FS_APPEND | HOOP_FS_ATOMIC), -EINVAL);
    CHECK(contains(path, pattern, 1010));
    reset();
}

TEST(an_atomic_write_that_fails_changes_nothing)
{
    static const struct {
        enum call which;
        int after, error;
    } cases[] = {{WRITE, 0, EIO}, {WRITE, 3, ENOSPC}, {FSYNC, 0, EIO}, {CLOSE, 0, EDQUOT}, {RENAME, 0, EACCES}};
    put(path, "old", 3);
    int count = open_folder_count();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        largest = 100;
        faults[cases[i].which] = (struct fault){cases[i].after, cases[i].error, true};
        CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0666, HOOP_FS_ATOMIC | HOOP_FS_SYNC), -cases[i].error);
        CHECK(contains(path, "old", 3));
        CHECK_EQ(open_folder_count(), count);
        reset();
    }
    alloc_fault_after(0);
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0666, HOOP_FS_ATOMIC), -ENOMEM);
    alloc_fault_after(-1);
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0666, HOOP_FS_ATOMIC | HOOP_FS_EXCLUSIVE), -EEXIST);
    CHECK(contains(path, "old", 3));
    CHECK_EQ(open_folder_count(), count);
    CHECK_EQ(hoop_fs_write_file("/nonexistent/x", pattern, 1000, 0666, HOOP_FS_ATOMIC), -ENOENT);
    CHECK_EQ(hoop_fs_write_file(folder, pattern, 1000, 0666, HOOP_FS_ATOMIC), -EISDIR);
}

TEST(an_atomic_write_keeps_the_mode_and_syncs_the_name)
{
    struct stat before, after;
    put(path, "old", 3);
    REQUIRE(chmod(path, 0604) == 0 && stat(path, &before) == 0);
    CHECK_EQ(hoop_fs_write_file(path, pattern, 1000, 0666, HOOP_FS_ATOMIC | HOOP_FS_SYNC), 1000);
    CHECK(contains(path, pattern, 1000));
    CHECK_EQ(made[FSYNC], 2);
    REQUIRE(stat(path, &after) == 0);
    CHECK_EQ(after.st_mode & 07777, 0604);
    CHECK(after.st_ino != before.st_ino);
    REQUIRE(unlink(path) == 0);
    CHECK_EQ(hoop_fs_write_file(path, pattern, 10, 0600, HOOP_FS_ATOMIC | HOOP_FS_EXCLUSIVE), 10);
    REQUIRE(stat(path, &after) == 0);
    CHECK_EQ(after.st_mode & 07777, 0600);
    CHECK_EQ(after.st_nlink, 1);
    reset();
    faults[FSYNC] = (struct fault){1, EINVAL, false}; /* a folder that cannot be synced */
    CHECK_EQ(hoop_fs_write_file(path, pattern, 10, 0600, HOOP_FS_ATOMIC | HOOP_FS_SYNC), 10);
    faults[FSYNC] = (struct fault){1, EIO, false};
    CHECK_EQ(hoop_fs_write_file(path, pattern, 10, 0600, HOOP_FS_ATOMIC | HOOP_FS_SYNC), -EIO);
    reset();
}

static void copy_must_work(void)
{
    unsigned blamed = 77;
    (void)unlink(other);
    CHECK_EQ(hoop_fs_copy_file(path, other, 0, &blamed), sizeof(pattern));
    CHECK(contains(other, pattern, sizeof(pattern)));
}

TEST(a_copy_is_complete_whichever_way_it_is_made)
{
    struct stat status;
    put(path, pattern, sizeof(pattern));
    REQUIRE(chmod(path, 0751) == 0);
    copy_must_work();
    REQUIRE(stat(other, &status) == 0);
    CHECK_EQ(status.st_mode & 07777, 0751);
    largest = 10000;
    faults[COPY_FILE_RANGE] = (struct fault){3, EINTR, false};
    copy_must_work();
    faults[COPY_FILE_RANGE] = (struct fault){3, EXDEV, true}; /* gives up in the middle */
    copy_must_work();
    faults[SENDFILE] = (struct fault){2, EINVAL, true}; /* this one too */
    faults[READ] = (struct fault){2, EINTR, false};
    faults[WRITE] = (struct fault){2, EINTR, false};
    copy_must_work();
    faults[COPY_FILE_RANGE] = (struct fault){0, 0, true}; /* as for a file of /proc */
    copy_must_work();
    reset();
}

TEST(a_copy_that_fails_says_which_path_and_leaves_no_new_file)
{
    unsigned blamed = 0;
    put(path, pattern, 1000);
    (void)unlink(other);
    faults[COPY_FILE_RANGE] = (struct fault){0, ENOSYS, true};
    faults[SENDFILE] = (struct fault){0, ENOSYS, true};
    faults[WRITE] = (struct fault){0, ENOSPC, true};
    CHECK_EQ(hoop_fs_copy_file(path, other, 0, &blamed), -ENOSPC);
    CHECK_EQ(blamed, HOOP_FS_SECOND);
    CHECK(access(other, F_OK) < 0);
    faults[READ] = (struct fault){0, EIO, true};
    CHECK_EQ(hoop_fs_copy_file(path, other, 0, &blamed), -EIO);
    CHECK_EQ(blamed, HOOP_FS_FIRST);
    alloc_fault_after(0);
    CHECK_EQ(hoop_fs_copy_file(path, other, 0, &blamed), -ENOMEM);
    alloc_fault_after(-1);
    reset();
#if HOOP_HAVE_COPY_IN_KERNEL
    faults[COPY_FILE_RANGE] = (struct fault){0, EIO, true};
    CHECK_EQ(hoop_fs_copy_file(path, other, 0, &blamed), -EIO);
    CHECK_EQ(blamed, HOOP_FS_FIRST | HOOP_FS_SECOND);
    reset();
#endif
    put(other, "kept", 4);
    CHECK_EQ(hoop_fs_copy_file(path, other, HOOP_FS_EXCLUSIVE, &blamed), -EEXIST);
    CHECK_EQ(blamed, HOOP_FS_SECOND);
    CHECK(contains(other, "kept", 4));
    CHECK_EQ(hoop_fs_copy_file("/nonexistent", other, 0, &blamed), -ENOENT);
    CHECK_EQ(blamed, HOOP_FS_FIRST);
    CHECK_EQ(hoop_fs_copy_file(path, "/nonexistent/x", 0, &blamed), -ENOENT);
    CHECK_EQ(blamed, HOOP_FS_SECOND);
    CHECK_EQ(hoop_fs_copy_file(folder, other, 0, &blamed), -EISDIR);
    CHECK_EQ(hoop_fs_copy_file(path, path, 0, &blamed), -EINVAL);
    CHECK_EQ(blamed, HOOP_FS_FIRST | HOOP_FS_SECOND);
    CHECK(contains(path, pattern, 1000));
    faults[CLOSE] = (struct fault){0, EDQUOT, false}; /* of the target: it is closed first */
    CHECK_EQ(hoop_fs_copy_file(path, other, 0, &blamed), -EDQUOT);
    CHECK_EQ(blamed, HOOP_FS_SECOND);
    reset();
}

int main(void)
{
    uint64_t state = 88172645463325252U;
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (char)check_random(&state);
    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/file", folder);
    snprintf(other, sizeof(other), "%s/other", folder);
    reset();
    RUN(a_file_is_read_whole_whatever_size_it_claims);
    RUN(a_read_that_fails_leaves_nothing);
    RUN(reads_and_writes_at_an_offset_are_complete);
    RUN(a_file_is_written_whole_or_an_error);
    RUN(an_atomic_write_that_fails_changes_nothing);
    RUN(an_atomic_write_keeps_the_mode_and_syncs_the_name);
    RUN(a_copy_is_complete_whichever_way_it_is_made);
    RUN(a_copy_that_fails_says_which_path_and_leaves_no_new_file);
    (void)unlink(path);
    (void)unlink(other);
    CHECK_EQ(rmdir(folder), 0);
    return check_finish();
}
