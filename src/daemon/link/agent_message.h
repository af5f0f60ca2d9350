/*
 * What is inside the frames of the agent channel: requests packed, and the guest's INFO and END
 * payloads judged and unpacked (layouts: cloche/channel.h). Pure functions over bytes; a payload
 * that is too short, too long or holds a value outside its enum is an error, never a guess.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/channel.h"
#include "cloche/limits.h"

/* The largest INFO or END that is legal: status, text and the longest set of op fields. */
#define AGENT_MESSAGE_MAX (4u + 4u + CHANNEL_TEXT_MAX + 64u)

/* INFO: what the guest says when a request has started. */
struct agent_info {
    uint32_t pid;      /* EXEC: in the guest's numbering */
    uint32_t mode;     /* READ: st_mode's permission bits */
    uint64_t size;     /* READ: bytes */
    uint64_t mtime_ns; /* READ: since 1970 */
    uint64_t offset;   /* READ: where the content begins that follows; at most `size` */
};

/* END: the guest's claims about the result. */
struct agent_end {
    uint32_t status;                 /* 0, or a Linux errno: nothing below `text` is set then */
    char text[CHANNEL_TEXT_MAX + 1]; /* NUL-terminated; "" where the guest said nothing */
    enum channel_exec_end kind;      /* EXEC */
    int32_t code;                    /* EXEC: exit code or signal */
    uint64_t user_us, system_us, max_rss_bytes;           /* EXEC */
    uint64_t bytes;                                       /* of lane 0: all but EXEC */
    uint64_t files, directories, symlinks, content_bytes; /* TREE_IN: what was unpacked */
    uint32_t flags; /* STAT, LIST, SEARCH, CHANGE: enum channel_end_flag */
};

/* What an operation's lane 0 carries, and which of its messages are alike: */
enum agent_op_kind {
    AGENT_OP_COMMAND, /* EXEC: stdin to the guest, stdout and stderr from it */
    AGENT_OP_READ,    /* READ: content from the guest */
    AGENT_OP_WRITE,   /* WRITE: content to the guest */
    AGENT_OP_RECORDS, /* STAT, LIST, SEARCH, CHANGE, WATCH, DIFF, TREE_OUT: records from the guest
                       */
    AGENT_OP_TREE,    /* TREE_IN: entries to the guest, signs of life from it */
};

enum agent_op_kind agent_op_kind(enum channel_op op);

/* Unpack a payload for `op`; 0, or -1 with ERR_BAD_REQUEST (a protocol error of the guest). */
int agent_info_parse(enum channel_op op, const void *data, size_t size, struct agent_info *ret_info,
                     struct error *e) __attribute__((warn_unused_result));
int agent_end_parse(enum channel_op op, const void *data, size_t size, struct agent_end *ret_end,
                    struct error *e) __attribute__((warn_unused_result));

/* What EXEC asks for. */
struct agent_command {
    bool has_stdin;
    bool has_pty;
    uint16_t rows, columns; /* with has_pty */
    uint32_t umask;
    const char *user;
    const char *cwd;
    const struct channel_limit *limits;
    size_t limit_count;      /* at most CHANNEL_LIMIT_COUNT */
    const char *const *argv; /* NULL-terminated, like env, whose entries read "NAME=value" */
    const char *const *env;
};

/*
 * Pack a request (op and fields) at the end of `request`, whose size_max should be
 * CHANNEL_OPEN_MAX. Returns 0, or -1 with ERR_INTERNAL (memory). Only a command can be longer than
 * CHANNEL_OPEN_MAX or have more than CHANNEL_ARGS_MAX strings in argv or env: ERR_TOO_LARGE.
 */
int agent_request_exec(struct buffer *request, const struct agent_command *command, struct error *e)
    __attribute__((warn_unused_result));
int agent_request_read(struct buffer *request, uint64_t offset, uint64_t length, const char *path,
                       struct error *e) __attribute__((warn_unused_result));
int agent_request_stat(struct buffer *request, uint32_t flags, const char *path, struct error *e)
    __attribute__((warn_unused_result));
int agent_request_list(struct buffer *request, uint32_t limit, const char *after, const char *path,
                       struct error *e) __attribute__((warn_unused_result));
int agent_request_diff(struct buffer *request, struct error *e) __attribute__((warn_unused_result));
int agent_request_watch(struct buffer *request, uint32_t flags, const char *path, struct error *e)
    __attribute__((warn_unused_result));
int agent_request_search(struct buffer *request, uint32_t limit, const char *path,
                         const char *pattern, struct error *e) __attribute__((warn_unused_result));
/* `op`: CHANNEL_OP_TREE_IN or CHANNEL_OP_TREE_OUT. */
int agent_request_tree(struct buffer *request, enum channel_op op, const char *path,
                       struct error *e) __attribute__((warn_unused_result));

/* Which fields count: see enum channel_change; the others are 0, and `other` "". */
struct agent_change {
    enum channel_change change;
    uint32_t flags; /* enum channel_change_flag */
    uint32_t mode;
    const char *path;
    const char *other;
};
int agent_request_change(struct buffer *request, const struct agent_change *change, struct error *e)
    __attribute__((warn_unused_result));
int agent_request_write(struct buffer *request, uint32_t mode, const char *path, struct error *e)
    __attribute__((warn_unused_result));
