/* The file operations: content of regular files out of the guest and whole files into it (READ,
 * WRITE); what there is (STAT, LIST, SEARCH) and changes of that (CHANGE); trees (TREE_IN,
 * TREE_OUT). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cloche/limits.h"
#include "guest/channel/records.h"
#include "guest/files/direct_read.h"

struct file_diff;
struct file_list;
struct file_remove;
struct file_search;
struct file_watch;
struct stream_op;
struct tree_in;
struct tree_out;

struct file_read {
    int fd;
    bool has_size;   /* send `due` bytes; otherwise as much as comes */
    uint64_t size;   /* of the file */
    uint64_t offset; /* where what is asked for begins */
    uint64_t due;
    uint64_t sent;
    struct direct_read direct;
};

/* The content goes into a temporary file beside the target; the rename at EOF shows it whole. */
struct file_write {
    int dir_fd;
    int fd;
    uint64_t written; /* what came */
    uint8_t *staging; /* NULL: none was free */
    size_t staged;    /* of it that is not in the file yet */
    bool is_direct;   /* O_DIRECT is on */
    mode_t mode;
    bool keep_owner; /* of the file that is replaced */
    uid_t uid;
    gid_t gid;
    char name[FILE_NAME_BYTES];
    char temp_name[FILE_NAME_BYTES]; /* empty: there is none */
};

/* STAT, LIST, SEARCH, CHANGE, WATCH, DIFF, TREE_OUT. What works in steps keeps its state apart. */
struct file_query {
    struct records records;
    union {
        struct file_diff *diff;
        struct file_list *list;
        struct file_search *search;
        struct file_remove *remove;
        struct file_watch *watch;
        struct tree_out *tree;
    };
};

extern const struct stream_op file_read_op;
extern const struct stream_op file_write_op;
extern const struct stream_op file_stat_op;
extern const struct stream_op file_list_op;
extern const struct stream_op file_search_op;
extern const struct stream_op file_change_op;
extern const struct stream_op file_watch_op;
extern const struct stream_op file_diff_op;
extern const struct stream_op tree_in_op;
extern const struct stream_op tree_out_op;

/* Something has happened in what is watched. */
void file_watch_event(struct stream *s);
