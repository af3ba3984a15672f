/* Directories, read and made. */
#include "check.h"
#include "fs_directory.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/hoop-directory-XXXXXX";

static const char *in_folder(const char *name)
{
    static char paths[4][600];
    static int next;
    char *path = paths[next = (next + 1) % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void touch(const char *name)
{
    int fd = open(in_folder(name), O_WRONLY | O_CREAT, 0666);
    REQUIRE(fd >= 0 && close(fd) == 0);
}

TEST(a_listing_has_every_entry_once)
{
    hoop_listing listing;
    hoop_entry entry;
    CHECK_EQ(hoop_fs_list(folder, false, &listing), 0);
    CHECK_EQ(listing.count, 0);
    hoop_listing_free(&listing);
    enum { MANY = 1000 };
    bool seen[MANY] = {false};
    char name[300];
    for (int i = 0; i < MANY; i++) { /* names of all lengths */
        memset(name, 'x', sizeof(name));
        snprintf(name + i % 200, 20, "-%d", i);
        touch(name);
    }
    CHECK_EQ(hoop_fs_list(folder, true, &listing), 0);
    CHECK_EQ(listing.count, MANY);
    size_t position = 0;
    int count = 0;
    while (hoop_listing_next(&listing, &position, &entry)) {
        CHECK_EQ(strlen(entry.name), entry.length);
        CHECK_EQ(entry.type, S_IFREG);
        CHECK_EQ(entry.target_type, S_IFREG);
        CHECK(entry.inode != 0);
        int number = atoi(strrchr(entry.name, '-') + 1);
        REQUIRE(number >= 0 && number < MANY);
        CHECK(!seen[number]);
        seen[number] = true;
        count++;
        CHECK_EQ(unlink(in_folder(entry.name)), 0);
    }
    CHECK_EQ(count, MANY);
    hoop_listing_free(&listing);
    hoop_listing_free(&listing); /* again does no harm */
}

TEST(types_are_told_also_through_links)
{
    hoop_listing listing;
    hoop_entry entry;
    touch("file");
    REQUIRE(mkdir(in_folder("folder"), 0777) == 0);
    REQUIRE(mkfifo(in_folder("fifo"), 0666) == 0);
    REQUIRE(symlink("folder", in_folder("to-folder")) == 0);
    REQUIRE(symlink("nowhere", in_folder("to-nowhere")) == 0);
    CHECK_EQ(hoop_fs_list(folder, true, &listing), 0);
    CHECK_EQ(listing.count, 5);
    size_t position = 0;
    while (hoop_listing_next(&listing, &position, &entry)) {
        bool is_link = strncmp(entry.name, "to-", 3) == 0;
        uint32_t expected = S_IFDIR;
        if (strcmp(entry.name, "file") == 0)
            expected = S_IFREG;
        if (strcmp(entry.name, "fifo") == 0)
            expected = S_IFIFO;
        if (strcmp(entry.name, "to-nowhere") == 0)
            expected = 0;
        CHECK_EQ(entry.type, is_link ? S_IFLNK : expected);
        CHECK_EQ(entry.target_type, expected);
    }
    hoop_listing_free(&listing);
    CHECK_EQ(hoop_fs_list(in_folder("file"), true, &listing), -ENOTDIR);
    CHECK_EQ(hoop_fs_list(in_folder("nothing"), true, &listing), -ENOENT);
    alloc_fault_after(0);
    CHECK_EQ(hoop_fs_list(folder, true, &listing), -ENOMEM);
    alloc_fault_after(-1);
    CHECK(listing.records == NULL && listing.count == 0);
    static const char *names[] = {"file", "fifo", "to-folder", "to-nowhere"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        CHECK_EQ(unlink(in_folder(names[i])), 0);
    CHECK_EQ(rmdir(in_folder("folder")), 0);
}

static int make(const char *name, bool may_exist, size_t *length)
{
    const char *path = in_folder(name);
    int result = hoop_fs_make_directories(path, 0750, may_exist, length);
    if (result == 0)
        *length = 0;
    else
        *length -= strlen(folder) + 1;
    return result;
}

TEST(directories_are_made_with_their_parents)
{
    size_t length = 0;
    struct stat status;
    CHECK_EQ(make("a//b/c/", false, &length), 0);
    REQUIRE(stat(in_folder("a/b/c"), &status) == 0);
    CHECK_EQ(status.st_mode & 07777, 0750);
    CHECK_EQ(make("a/b/c", false, &length), -EEXIST);
    CHECK_EQ(length, strlen("a/b/c"));
    CHECK_EQ(make("a/b/c", true, &length), 0);
    CHECK_EQ(make("a/b/c/", true, &length), 0);
    CHECK_EQ(make("a/d/.", false, &length), 0);
    CHECK(stat(in_folder("a/d"), &status) == 0);
    touch("a/file");
    CHECK_EQ(make("a/file", true, &length), -EEXIST);
    CHECK_EQ(make("a/file/x", true, &length), -ENOTDIR);
    CHECK_EQ(length, strlen("a/file/x"));
    CHECK_EQ(make("a/file/x/y", true, &length), -ENOTDIR);
    CHECK_EQ(length, strlen("a/file/x"));
    CHECK_EQ(hoop_fs_make_directories("", 0777, true, &length), -ENOENT);
    CHECK_EQ(hoop_fs_make_directories("/", 0777, true, &length), 0);
    CHECK_EQ(hoop_fs_make_directories("/", 0777, false, &length), -EEXIST);
    CHECK_EQ(unlink(in_folder("a/file")), 0);
    CHECK_EQ(rmdir(in_folder("a/d")), 0);
    CHECK_EQ(rmdir(in_folder("a/b/c")), 0);
    CHECK_EQ(rmdir(in_folder("a/b")), 0);
    CHECK_EQ(rmdir(in_folder("a")), 0);
}

TEST(relative_directories_are_made_too)
{
    size_t length;
    int here = open(".", O_RDONLY);
    REQUIRE(here >= 0 && chdir(folder) == 0);
    CHECK_EQ(hoop_fs_make_directories("x/y", 0777, false, &length), 0);
    CHECK_EQ(hoop_fs_make_directories("z", 0777, false, &length), 0);
    CHECK_EQ(rmdir("x/y"), 0);
    CHECK_EQ(rmdir("x"), 0);
    CHECK_EQ(rmdir("z"), 0);
    REQUIRE(fchdir(here) == 0);
    close(here);
}

int main(void)
{
    REQUIRE(mkdtemp(folder) != NULL);
    RUN(a_listing_has_every_entry_once);
    RUN(types_are_told_also_through_links);
    RUN(directories_are_made_with_their_parents);
    RUN(relative_directories_are_made_too);
    CHECK_EQ(rmdir(folder), 0);
    return check_finish();
}
