/*
 * The agent channel: framed streams between the daemon and the agent in the guest, carried as a
 * byte stream by one virtio-console port and relayed unread by the monitor. Shared by both ends.
 * The daemon treats every byte that comes from the guest as hostile; the agent trusts the daemon,
 * but checks all the same.
 *
 * A frame is a 12-byte header and `length` bytes of payload, all integers little-endian. The daemon
 * opens streams with numbers of its choice (never 0, rising, never reused); the agent never opens
 * one. A stream's life:
 *
 *   host -> guest   OPEN (request; split over several OPEN frames, all but the last with lane 1),
 *                   then DATA and EOF on lane 0, CREDIT, SIGNAL, RESIZE; RESET at any time
 *   guest -> host   INFO once when the request has started, DATA/EOF/CREDIT, and END, always the
 *                   last frame of the stream, also after RESET
 *
 * After END the number is dead; frames for it that are still under way from the host are ignored by
 * the agent.
 *
 * Flow control is per stream and lane: each side may send CHANNEL_WINDOW_BYTES of DATA on a lane,
 * and more as CREDIT frames (payload: u32 bytes) grant it. To send past the credit is a protocol
 * error. A protocol error of the guest ends the sandbox; one of the host makes the agent ring
 * DOORBELL_FAILED.
 */
#pragma once

#include <stdint.h>

#include "cloche/limits.h"

#define CHANNEL_HEADER_BYTES 12u

/* On the wire: length u32, stream u32, type u8, lane u8, reserved u16 (0). */
struct channel_header {
    uint32_t length; /* payload bytes that follow, at most CHANNEL_PAYLOAD_MAX */
    uint32_t stream;
    uint8_t type; /* enum channel_type */
    uint8_t lane; /* enum channel_lane; in OPEN: 1 where more of the request follows, else 0 */
};

enum channel_type {
    CHANNEL_OPEN = 1,   /* host: starts a stream; payload: op u16, then the op's fields */
    CHANNEL_DATA = 2,   /* both: bytes of a lane, never empty */
    CHANNEL_EOF = 3,    /* both: nothing more on this lane (no payload) */
    CHANNEL_CREDIT = 4, /* both: u32, the sender of this frame has room for so many bytes more */
    CHANNEL_SIGNAL = 5, /* host: u32 signal number; lane: enum channel_signal_scope */
    CHANNEL_RESET = 6,  /* host: stop; kill every descendant, drop a file half written */
    CHANNEL_INFO = 7,   /* guest: the request has started; payload by op */
    CHANNEL_END = 8,    /* guest: the result; payload by op */
    CHANNEL_RESIZE = 9, /* host: u16 rows, u16 columns of an exec's terminal; only with EXEC_PTY */
};

enum channel_lane {
    CHANNEL_LANE_IN = 0,  /* all but what an EXEC writes, either way */
    CHANNEL_LANE_OUT = 1, /* its stdout, or terminal */
    CHANNEL_LANE_ERR = 2, /* its stderr */
    CHANNEL_LANE_COUNT
};

enum channel_signal_scope {
    CHANNEL_SIGNAL_GROUP = 0,  /* the exec's process group */
    CHANNEL_SIGNAL_OTHERS = 1, /* every process of the exec but the first one */
};

/*
 * Requests. A string is u32 length and that many bytes, with no NUL inside.
 *
 *   EXEC   u32 flags, u16 rows, u16 columns (0 without EXEC_PTY), u32 umask (CHANNEL_UMASK_DEFAULT:
 *          the agent's), str user ("" = root), str cwd, u32 count of limits, count x (u32 kind,
 *          u64 value), u32 argc, argc x str, u32 envc, envc x str "NAME=value"
 *                                               INFO: u32 pid (not 0)
 *          END: u32 kind (enum channel_exec_end), i32 exit code or signal, u64 wall_us,
 *               u64 user_us, u64 system_us, u64 max_rss_bytes
 *   READ   u64 offset, u64 length, str path     INFO: u64 size, u32 mode, u64 mtime_ns, u64 offset
 *          content as DATA and EOF on lane 0    END: u64 bytes sent
 *          At most `length` bytes from `offset` on, or with offset CHANNEL_READ_TAIL the last
 *          `length`; INFO tells where it begins. A file of which the kernel does not know the size
 *          is sent whole from 0, whatever was asked for.
 *   WRITE  u32 mode (permission bits; 0: those of the old file, or 0644), str path
 *                                               INFO: nothing
 *          content as DATA and EOF on lane 0    END: u64 bytes written
 *          Missing parent directories are made; the file appears whole, by rename, when EOF came;
 *          until then, and after RESET or an error, the old file is as it was.
 *
 *   STAT   u32 flags (CHANNEL_STAT_FOLLOW), str path
 *          One record, with an empty name.
 *   LIST   u32 limit, str after ("": from the start), str path
 *          What a directory holds behind the name `after`, in the order of the names' bytes.
 *   SEARCH u32 limit, str path, str pattern
 *          What lies below a directory and matches (see guest/files/glob.h), in no order; names are
 *          whole paths. Symbolic links are not followed and mount points not entered.
 *   CHANGE u32 change (enum channel_change), u32 flags, u32 mode, str path, str other
 *          No records. To remove a tree takes as long as it takes.
 *   WATCH  u32 flags (CHANNEL_WATCH_TREE), str path
 *          Events in place of records, until the directory is gone; INFO when all later changes
 *          will be seen.
 *   DIFF   no fields
 *          INFO when the state of the sandbox's files is remembered. When the host says EOF on
 *          lane 0: events in place of records (CREATED, MODIFIED, DELETED), in no order, for what
 *          differs from that state. Only what is on the sandbox's own disk: the root and /tmp.
 *
 *   All from STAT on:                           INFO: nothing
 *          records as DATA and EOF on lane 0    END: u64 bytes sent, u32 flags
 *                                                    (enum channel_end_flag)
 *
 *   TREE_IN  str path                           INFO: nothing
 *          entries as DATA and EOF on lane 0    END: u64 bytes taken of lane 0, u64 files, u64
 *                                               directories, u64 symbolic links, u64 bytes of files
 *          Unpacks below the directory `path`, which is made where it is missing. What comes
 *          ends with the last entry that came whole; after RESET or an error, what was unpacked
 *          stays. Guest to host, lane 0 has a byte of 0 now and then: "still at work".
 *   TREE_OUT str path                           INFO: nothing
 *          entries as DATA and EOF on lane 0    END: u64 bytes sent, u32 0
 *          First an entry of type TREE_SKIPPED, then those of a directory, each directory before
 *          what is in it, or the one of a file. Symbolic links are not followed, mount points
 *          not entered; hard links are files of their own.
 *
 * Entries are those of base/tree.h.
 *
 * A record is u32 st_mode, u64 size, u32 uid, u32 gid, i64 seconds and u32 nanoseconds of the last
 * change of content, str name, str target (of a symbolic link, else empty). A mode of 0 stands for
 * "still at work", and nothing follows it: the agent says so now and then while it has nothing else
 * to say. All records of a reply together have at most FILE_RECORDS_BYTES_MAX bytes.
 *
 * An event is u32 kind (enum channel_event; 0 as above), u32 1 for a directory, else 0, str path,
 * str from (of MOVED, else empty). Those of DIFF are bounded as records are, those of WATCH not.
 *
 * Every END starts with u32 status (0, or the guest's Linux errno) and str text (empty, or what
 * failed, in words); the op's fields follow only where status is 0.
 */
enum channel_op {
    CHANNEL_OP_EXEC = 1,
    CHANNEL_OP_READ = 2,
    CHANNEL_OP_WRITE = 3,
    CHANNEL_OP_STAT = 10,
    CHANNEL_OP_LIST = 11,
    CHANNEL_OP_SEARCH = 12,
    CHANNEL_OP_CHANGE = 13,
    CHANNEL_OP_WATCH = 14,
    CHANNEL_OP_DIFF = 15,
    CHANNEL_OP_TREE_IN = 20,
    CHANNEL_OP_TREE_OUT = 21,
};

#define CHANNEL_READ_TAIL UINT64_MAX

enum channel_stat_flag {
    CHANNEL_STAT_FOLLOW = 1u << 0, /* the last component, where it is a symbolic link */
};

enum channel_watch_flag {
    CHANNEL_WATCH_TREE = 1u << 0, /* the directories below as well */
};

enum channel_event {
    CHANNEL_EVENT_CREATED = 1,
    CHANNEL_EVENT_MODIFIED = 2, /* content, mode, owner or times */
    CHANNEL_EVENT_DELETED = 3,
    CHANNEL_EVENT_MOVED = 4,    /* within what is watched */
    CHANNEL_EVENT_OVERFLOW = 5, /* some events are lost; both paths are empty */
};

enum channel_change {
    CHANNEL_CHANGE_MKDIR = 1,  /* mode */
    CHANNEL_CHANGE_RENAME = 2, /* other: the new path */
    CHANNEL_CHANGE_REMOVE = 3,
    CHANNEL_CHANGE_CHMOD = 4,   /* mode */
    CHANNEL_CHANGE_SYMLINK = 5, /* other: what the link says */
};

enum channel_change_flag {
    CHANNEL_CHANGE_PARENTS = 1u << 0, /* MKDIR: missing ones are made, one that is there is fine */
    CHANNEL_CHANGE_OVERWRITE = 1u << 1, /* RENAME: what is there goes */
    CHANNEL_CHANGE_TREE = 1u << 2,      /* REMOVE: a directory with all that is in it */
};

enum channel_end_flag {
    CHANNEL_END_MORE = 1u << 0,    /* LIST, SEARCH, DIFF: there is more than what was sent */
    CHANNEL_END_EXISTED = 1u << 1, /* MKDIR: it was there */
};

enum channel_exec_flag {
    CHANNEL_EXEC_STDIN = 1u << 0, /* lane 0 feeds stdin until EOF; else stdin is /dev/null */
    /* stdin, stdout and stderr are one terminal, the controlling one of the command's session. All
     * output is on lane 1, lane 2 is at EOF from the start, and lane 0 (with EXEC_STDIN) is what is
     * typed. An EOF of lane 0 closes nothing: it types the terminal's end-of-file character. */
    CHANNEL_EXEC_PTY = 1u << 1,
};

#define CHANNEL_UMASK_DEFAULT UINT32_MAX

/* Limits of one exec, none of them twice; a value is never 0. */
enum channel_limit_kind {
    CHANNEL_LIMIT_MEMORY = 1,    /* bytes of all its processes together; past it: EXEC_OOM */
    CHANNEL_LIMIT_PROCESSES = 2, /* processes and threads at once */
    CHANNEL_LIMIT_CPU = 3,       /* seconds of CPU time of each process; past it: SIGXCPU */
    CHANNEL_LIMIT_FILE = 4,      /* bytes of a file that is written; past it: SIGXFSZ */
    CHANNEL_LIMIT_OPEN = 5,      /* open descriptors of each process */
};
#define CHANNEL_LIMIT_COUNT 5u
#define CHANNEL_LIMIT_BYTES 12u /* on the wire */

struct channel_limit {
    uint32_t kind; /* enum channel_limit_kind */
    uint64_t value;
};

enum channel_exec_end {
    CHANNEL_EXEC_EXITED = 1,
    CHANNEL_EXEC_SIGNALED = 2,
    CHANNEL_EXEC_OOM = 3, /* the guest's OOM killer took a process of this exec's cgroup */
};
