/* fs_directory.c: reading directories, making them with their parents.
 *
 *   - readdir(3) tells an end from an error only by errno. Its d_type is DT_UNKNOWN on some file systems; POSIX has no
 *     d_type at all, but every system that hoop runs on does.
 *   - An entry may be gone before its type is asked for. That is no error of the listing: the type is unknown.
 *   - mkdir(2) of what exists may say EROFS or EACCES instead of EEXIST. */
#include "fs_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>

#define FIRST_RECORDS ((size_t)4096)

/* A record is this head, the name and its NUL, then room up to the next head's alignment. */
typedef struct record {
    uint64_t inode;
    uint32_t type;
    uint32_t target_type;
    size_t length;
} record;

static size_t record_size(size_t length)
{
    size_t alignment = _Alignof(record);
    return (sizeof(record) + length + 1 + alignment - 1) / alignment * alignment;
}

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static uint32_t type_by_stat(int folder, const char *name, int flags)
{
    struct stat status;
    return fstatat(folder, name, &status, flags) < 0 ? 0 : (uint32_t)(status.st_mode & S_IFMT);
}

static int reserve(hoop_listing *listing, size_t *capacity, size_t wanted)
{
    if (*capacity - listing->size >= wanted)
        return 0;
    size_t larger = *capacity == 0 ? FIRST_RECORDS : *capacity * 2;
    if (larger - listing->size < wanted)
        larger = listing->size + wanted;
    char *grown = realloc(listing->records, larger);
    if (grown == NULL)
        return -ENOMEM;
    listing->records = grown;
    *capacity = larger;
    return 0;
}

static int append(hoop_listing *listing, size_t *capacity, const struct dirent *found, bool with_types, int folder)
{
    size_t length = strlen(found->d_name);
    int result = reserve(listing, capacity, record_size(length));
    if (result < 0)
        return result;
    record *head = (record *)(void *)(listing->records + listing->size);
    head->inode = (uint64_t)found->d_ino;
    head->type = head->target_type = 0;
    head->length = length;
    if (with_types) {
        head->type = found->d_type == DT_UNKNOWN ? type_by_stat(folder, found->d_name, AT_SYMLINK_NOFOLLOW)
                                                 : (uint32_t)DTTOIF(found->d_type);
        head->target_type = head->type == S_IFLNK ? type_by_stat(folder, found->d_name, 0) : head->type;
    }
    memcpy(head + 1, found->d_name, length + 1);
    listing->size += record_size(length);
    listing->count++;
    return 0;
}

int hoop_fs_list(const char *path, bool with_types, hoop_listing *listing)
{
    size_t capacity = 0;
    int result = 0;
    *listing = (hoop_listing){NULL, 0, 0};
    DIR *folder = opendir(path); /* close-on-exec: POSIX asks for it */
    if (folder == NULL)
        return -errno;
    while (result == 0) {
        errno = 0;
        const struct dirent *found = readdir(folder);
        if (found == NULL) {
            result = -errno;
            break;
        }
        if (!is_dot(found->d_name))
            result = append(listing, &capacity, found, with_types, dirfd(folder));
    }
    (void)closedir(folder); /* it was only read */
    if (result < 0)
        hoop_listing_free(listing);
    return result;
}

void hoop_listing_free(hoop_listing *listing)
{
    free(listing->records);
    *listing = (hoop_listing){NULL, 0, 0};
}

bool hoop_listing_next(const hoop_listing *listing, size_t *position, hoop_entry *entry)
{
    if (*position >= listing->size)
        return false;
    const record *head = (const record *)(const void *)(listing->records + *position);
    *entry = (hoop_entry){head->inode, head->type, head->target_type, (const char *)(head + 1), head->length};
    *position += record_size(head->length);
    return true;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static bool is_directory(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static size_t without_slashes(const char *path, size_t length)
{
    while (length > 0 && path[length - 1] == '/')
        length--;
    return length;
}

/* The length of the folder that holds the last name of path[:length]. */
static size_t parent_length(const char *path, size_t length)
{
    while (length > 0 && path[length - 1] != '/')
        length--;
    return without_slashes(path, length);
}

/* Make every folder from the first name on; the caller makes path[:whole] itself. `copy` is the path, to be written
 * to. */
static int make_parents(char *copy, size_t whole, size_t *length)
{
    size_t parents = parent_length(copy, whole);
    for (size_t end = 1; end <= parents; end++) {
        if (copy[end] != '/' || copy[end - 1] == '/')
            continue;
        copy[end] = '\0';
        int error = mkdir(copy, 0777) < 0 ? errno : 0;
        bool is_there = error == 0 || error == EEXIST || is_directory(copy);
        copy[end] = '/';
        if (!is_there) {
            *length = end;
            return -error;
        }
    }
    return 0;
}

int hoop_fs_make_directories(const char *path, mode_t mode, bool may_exist, size_t *length)
{
    size_t whole = strlen(path);
    *length = whole;
    int error = mkdir(path, mode) < 0 ? errno : 0;
    if (error == ENOENT || error == ENOTDIR) {
        size_t bare = without_slashes(path, whole);
        char *copy = strdup(path);
        if (copy == NULL)
            return -ENOMEM;
        int result = make_parents(copy, bare, length);
        free(copy);
        if (result < 0)
            return result;
        /* "new/." exists as soon as "new" does */
        if (bare >= 2 && path[bare - 1] == '.' && path[bare - 2] == '/' && is_directory(path))
            return 0;
        error = mkdir(path, mode) < 0 ? errno : 0;
    }
    return error == 0 || (may_exist && is_directory(path)) ? 0 : -error;
}
