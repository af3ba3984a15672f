/* Reading from the page cache. What the kernel keeps there is its own business, so a hit is asked for repeatedly;
 * what must never be one is tested strictly. */
#include "check.h"
#include "fs_cached.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 1000

static char folder[] = "/tmp/hoop-cached-XXXXXX";
static char path[64];
static uint64_t turn;
static char room[HOOP_FS_CACHED_MOST_BYTES];

static void put(size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    REQUIRE(fd >= 0);
    static char bytes[HOOP_FS_CACHED_MOST_BYTES + 1];
    memset(bytes, 'x', sizeof(bytes));
    REQUIRE(write(fd, bytes, size) == (ssize_t)size);
    REQUIRE(close(fd) == 0);
}

/* As a thread of the pool does with what it has opened. */
static bool classify(hoop_fs_cached *cached, const char *name)
{
    struct stat status;
    int fd = open(name, O_RDONLY | O_NONBLOCK);
    REQUIRE(fd >= 0 && fstat(fd, &status) == 0);
    int local = hoop_fs_is_local(fd);
    REQUIRE(local >= 0);
    hoop_fs_cached_learn(cached, (uint64_t)status.st_dev, local == 1, cached->mount_changes);
    REQUIRE(close(fd) == 0);
    return local == 1;
}

static int64_t read_cached(hoop_fs_cached *cached, const char *name)
{
    hoop_fs_cached_file file;
    int64_t size = hoop_fs_cached_open(cached, name, ++turn, &file);
    if (size < 0) {
        CHECK_EQ(file.fd, -1);
        return size;
    }
    CHECK(file.fd >= 0 && (fcntl(file.fd, F_GETFD) & FD_CLOEXEC));
    int64_t got = hoop_fs_cached_take(cached, &file, room);
    CHECK_EQ(file.fd, -1);
    return got;
}

/* Whether this machine lets cached files be read: kernel, sandbox and file system have a say. */
static bool is_possible(hoop_fs_cached *cached)
{
    put(100);
    (void)read_cached(cached, path); /* opens what it needs: opening is what makes it see later mounts */
    if (!classify(cached, path))
        return false;
    for (int i = 0; i < TRIES; i++) {
        int64_t got = read_cached(cached, path);
        if (got == 100)
            return true;
        if (got == HOOP_FS_MISS_OFF || got == HOOP_FS_MISS_FOREIGN)
            return false;
        if (got == HOOP_FS_MISS_UNKNOWN) /* a mount somewhere on this machine */
            (void)classify(cached, path);
    }
    return false;
}

static int descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

TEST(a_cached_file_is_read)
{
    hoop_fs_cached cached;
    hoop_fs_cached_init(&cached, false);
    int before = descriptors();
    if (is_possible(&cached)) {
        uint64_t hits = cached.hits;
        CHECK(hits > 0);
        memset(room, 0, sizeof(room));
        CHECK(read_cached(&cached, path) != 0);
        put(0);
        for (int i = 0; i < TRIES && cached.hits == hits + 1; i++)
            CHECK(read_cached(&cached, path) <= 0);
        put((size_t)HOOP_FS_CACHED_MOST_BYTES + 1);
        int64_t got = read_cached(&cached, path);
        CHECK(got == HOOP_FS_MISS_LARGE || got == HOOP_FS_MISS_UNKNOWN);
    } else {
        const char *reason = cached.refused_call == NULL ? "the file system" : cached.refused_call;
        printf("cached reads are not possible here: %s\n", reason);
    }
    hoop_fs_cached_close(&cached);
    hoop_fs_cached_close(&cached);
    CHECK_EQ(descriptors(), before);
    CHECK_EQ(read_cached(&cached, path), HOOP_FS_MISS_OFF);
}

TEST(what_is_no_local_regular_file_is_never_opened)
{
    static const char *const names[] = {"/proc/self/status", "/dev/null", "/tmp", "/nonexistent", ""};
    hoop_fs_cached cached;
    hoop_fs_cached_init(&cached, false);
    put(100);
    (void)read_cached(&cached, path);
    CHECK(read_cached(&cached, path) < 0); /* its device is not known */
    (void)classify(&cached, path);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        CHECK(read_cached(&cached, names[i]) < 0);
    REQUIRE(unlink(path) == 0 && mkfifo(path, 0666) == 0);
    for (int i = 0; i < 10; i++)
        CHECK(read_cached(&cached, path) < 0); /* and does not wait for a writer */
    REQUIRE(unlink(path) == 0);
    CHECK_EQ(cached.hits, 0);
    hoop_fs_cached_close(&cached);
}

TEST(a_device_that_is_not_local_is_left_alone)
{
    struct stat status;
    hoop_fs_cached cached;
    hoop_fs_cached_init(&cached, false);
    put(100);
    (void)read_cached(&cached, path);
    REQUIRE(stat(path, &status) == 0);
    hoop_fs_cached_learn(&cached, (uint64_t)status.st_dev, true, cached.mount_changes);
    hoop_fs_cached_learn(&cached, (uint64_t)status.st_dev, false, cached.mount_changes); /* the latest word counts */
    CHECK(read_cached(&cached, path) < 0);
    for (uint64_t device = 1000; device < 1000 + HOOP_FS_CACHED_DEVICES; device++)
        hoop_fs_cached_learn(&cached, device, true, cached.mount_changes); /* more than it remembers */
    CHECK(read_cached(&cached, path) < 0);
    CHECK_EQ(cached.hits, 0);
    hoop_fs_cached_close(&cached);
    int fd = open("/proc/self/status", O_RDONLY);
    if (fd >= 0) {
        CHECK_EQ(hoop_fs_is_local(fd), 0);
        close(fd);
        CHECK_EQ(hoop_fs_is_local(fd) == 1, false);
    }
}

TEST(what_was_found_before_a_change_of_the_mounts_is_not_learned)
{
    hoop_fs_cached cached;
    hoop_fs_cached_init(&cached, false);
    put(100);
    uint64_t before = cached.mount_changes;
    (void)read_cached(&cached, path); /* opens the table of mounts: what changed until now it does not tell */
    if (!cached.is_off)
        CHECK(cached.mount_changes != before);
    before = cached.mount_changes++; /* as when the table has changed while the thread was busy */
    hoop_fs_cached_learn(&cached, 1000, true, before);
    for (int i = 0; i < HOOP_FS_CACHED_DEVICES; i++)
        CHECK_EQ(cached.devices[i].state, HOOP_FS_DEVICE_NONE);
    hoop_fs_cached_learn(&cached, 1000, true, cached.mount_changes);
    CHECK_EQ(cached.devices[0].state, HOOP_FS_DEVICE_LOCAL);
    hoop_fs_cached_learn(&cached, 1000, false, before);
    CHECK_EQ(cached.devices[0].state, HOOP_FS_DEVICE_LOCAL);
    hoop_fs_cached_close(&cached);
}

TEST(a_turn_has_its_limits)
{
    hoop_fs_cached cached;
    hoop_fs_cached_file file;
    hoop_fs_cached_init(&cached, false);
    bool possible = is_possible(&cached);
    turn++;
    for (int i = 0; i < 2 * HOOP_FS_CACHED_TURN_READS && possible; i++) {
        int64_t size = hoop_fs_cached_open(&cached, path, turn, &file);
        if (i >= HOOP_FS_CACHED_TURN_READS)
            CHECK_EQ(size, HOOP_FS_MISS_TURN);
        if (size >= 0)
            CHECK(hoop_fs_cached_take(&cached, &file, NULL) < 0); /* no room for it */
    }
    put((size_t)HOOP_FS_CACHED_MOST_BYTES);
    turn++;
    int64_t total = 0;
    for (int i = 0; i < HOOP_FS_CACHED_TURN_READS && possible; i++) {
        if (hoop_fs_cached_open(&cached, path, turn, &file) >= 0)
            total += hoop_fs_cached_take(&cached, &file, room) > 0 ? HOOP_FS_CACHED_MOST_BYTES : 0;
    }
    CHECK(total <= HOOP_FS_CACHED_TURN_BYTES);
    hoop_fs_cached_close(&cached);
}

TEST(an_opened_file_can_be_kept)
{
    hoop_fs_cached cached;
    hoop_fs_cached_file file;
    hoop_fs_cached_init(&cached, false);
    bool possible = is_possible(&cached);
    uint64_t hits = cached.hits;
    put(100);
    if (possible && hoop_fs_cached_open(&cached, path, ++turn, &file) == 100) {
        int fd = (int)hoop_fs_cached_keep(&cached, &file);
        REQUIRE(fd >= 0);
        CHECK_EQ(file.fd, -1);
        CHECK_EQ(cached.hits, hits + 1);
        CHECK_EQ(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDONLY);
        CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        CHECK_EQ(read(fd, room, 200), 100);
        struct stat status;
        REQUIRE(fstat(fd, &status) == 0);
        file = (hoop_fs_cached_file){.fd = fd, .device = (uint64_t)status.st_dev, .size = 100};
        for (int i = 0; i < 2 * HOOP_FS_CACHED_TURN_READS; i++) {
            int64_t got = hoop_fs_cached_read(&cached, &file, turn + 1, room); /* from the start, wherever it stands */
            CHECK(got == 100 || got == HOOP_FS_MISS_CONTENTS ||
                  (got == HOOP_FS_MISS_TURN && i >= HOOP_FS_CACHED_TURN_READS));
        }
        file.size = HOOP_FS_CACHED_MOST_BYTES + 1;
        CHECK_EQ(hoop_fs_cached_read(&cached, &file, turn + 2, room), HOOP_FS_MISS_LARGE);
        turn += 2;
        REQUIRE(close(fd) == 0);
    }
    hoop_fs_cached_close(&cached);
}

TEST(off_is_off)
{
    hoop_fs_cached cached;
    hoop_fs_cached_init(&cached, true);
    put(100);
    (void)classify(&cached, path);
    CHECK_EQ(read_cached(&cached, path), HOOP_FS_MISS_OFF);
    CHECK_EQ(cached.misses[-HOOP_FS_MISS_OFF - 1], 1);
    CHECK_EQ(cached.descriptors_fd, -1);
    hoop_fs_cached_close(&cached);
}

int main(void)
{
    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/file", folder);
    RUN(a_cached_file_is_read);
    RUN(what_is_no_local_regular_file_is_never_opened);
    RUN(a_device_that_is_not_local_is_left_alone);
    RUN(what_was_found_before_a_change_of_the_mounts_is_not_learned);
    RUN(a_turn_has_its_limits);
    RUN(an_opened_file_can_be_kept);
    RUN(off_is_off);
    (void)unlink(path);
    CHECK_EQ(rmdir(folder), 0);
    return check_finish();
}
