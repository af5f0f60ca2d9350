/* Directories read in pieces of a bounded size: one system call each, so that a loop with other
 * things to do can read one of any size. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Some 120 entries; the kernel takes a tenth of a second for so many where it is interpreted. */
#define DIR_BYTES 4096u

struct dir {
    int fd; /* -1: none is open */
    size_t at;
    size_t used;
    uint8_t bytes[DIR_BYTES] __attribute__((aligned(8)));
};

struct dir_entry {
    const char *name; /* good until the next dir_fill() */
    uint8_t type;     /* DT_*; DT_UNKNOWN where the file system does not say */
};

/* Takes `fd`; one that was open before is closed. dir_init: to start with. */
void dir_init(struct dir *d);
void dir_set(struct dir *d, int fd);
void dir_close(struct dir *d);

/* Reads the next piece: 1, 0 at the end, -1 with errno. From the start again after dir_rewind(). */
int dir_fill(struct dir *d) __attribute__((warn_unused_result));
void dir_rewind(struct dir *d);

/* The piece's next entry (never "." or ".."); 1, or 0 where dir_fill() is due. */
int dir_next(struct dir *d, struct dir_entry *ret_entry) __attribute__((warn_unused_result));

/*
 * Opens the directory `path`, which leads down from `base_fd`: no symbolic link is followed and no
 * mount point entered. Returns the descriptor, or -1 with errno: ELOOP, EXDEV, those of open(2).
 */
int dir_open_below(int base_fd, const char *path) __attribute__((warn_unused_result));
