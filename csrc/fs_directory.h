/* fs_directory.h: lists directories, and makes them with their parents. The calls block and are meant for the pool's
 * threads. Functions return >= 0 or -errno. */
#ifndef HOOP_FS_DIRECTORY_H
#define HOOP_FS_DIRECTORY_H

#include "base.h"
#include <sys/stat.h>
#include <sys/types.h>

/* What an entry is: st_mode's S_IFMT bits, or 0 if it is not known (the entry was removed meanwhile). */
typedef struct hoop_entry {
    uint64_t inode;
    uint32_t type;        /* of the entry itself */
    uint32_t target_type; /* the same, unless it is a symbolic link: then of what it leads to */
    const char *name;     /* ends with a NUL; inside the listing */
    size_t length;
} hoop_entry;

/* All entries but "." and "..", in the directory's own order. The memory comes from malloc. */
typedef struct hoop_listing {
    char *records;
    size_t size;
    size_t count;
} hoop_listing;

/* Read a directory. With types, each link is followed, and a file system that keeps no types is asked about each entry;
 * without, `type` and `target_type` are 0. 0, or -errno with an empty listing. */
int hoop_fs_list(const char *path, bool with_types, hoop_listing *listing);
void hoop_listing_free(hoop_listing *listing);
/* The entry at *position, which begins at 0 and is moved on; false at the end. */
bool hoop_listing_next(const hoop_listing *listing, size_t *position, hoop_entry *entry);

/* mkdir(2) with all missing parents, which get the mode 0777 less the umask. 0, or -errno with *length set to how much
 * of `path` the error is about: the folder that could not be made. An existing directory is -EEXIST unless
 * `may_exist`. */
int hoop_fs_make_directories(const char *path, mode_t mode, bool may_exist, size_t *length);

#endif
