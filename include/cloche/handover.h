/*
 * What `cloche serve` hands to the two processes that it makes of itself: fixed descriptors and one
 * sealed block of settings that were checked while the process was still the operator's command.
 *
 *   serve (root) --spawn--> priv   (root, HANDOVER_PRIV_*)
 *        \-------exec-----> daemon (unprivileged, HANDOVER_DAEMON_*, same pid)
 *
 * Descriptors 0 to 2 are /dev/null, stdout and stderr. Nothing else is open in either process, the
 * environment is empty. Authority is in the descriptors: neither process is given a path that it
 * would have to open as root; the paths in the settings are for messages to people.
 */
#pragma once

#include <linux/limits.h>
#include <stdint.h>
#include <sys/un.h>

/* In the daemon. */
enum handover_daemon_fd {
    HANDOVER_DAEMON_PRIV = 3,      /* SOCK_SEQPACKET to priv (cloche/priv_proto.h) */
    HANDOVER_DAEMON_SETTINGS = 4,  /* sealed memfd: struct handover_settings */
    HANDOVER_DAEMON_LISTEN = 5,    /* AF_UNIX stream socket, bound and listening */
    HANDOVER_DAEMON_LOCK = 6,      /* the state directory's lock: held while this is open */
    HANDOVER_DAEMON_SNAPSHOTS = 7, /* directories of the state directory, the daemon's own */
    HANDOVER_DAEMON_SCRATCH = 8,
    HANDOVER_DAEMON_TMP = 9,
    HANDOVER_DAEMON_IMAGES = 10, /* directory: guest kernel and root file systems, read-only */
    HANDOVER_DAEMON_CONFIG = 11, /* the config file, read-only; closed where there is none */
    HANDOVER_DAEMON_END
};

/* In priv. */
enum handover_priv_fd {
    HANDOVER_PRIV_CONTROL = 3,    /* SOCK_SEQPACKET to the daemon (cloche/priv_proto.h) */
    HANDOVER_PRIV_SETTINGS = 4,   /* as the daemon's, without priv_pid */
    HANDOVER_PRIV_PROGRAM = 5,    /* sealed memfd: the monitor, a static program */
    HANDOVER_PRIV_LOCK = 6,       /* held until everything is cleaned up */
    HANDOVER_PRIV_JOURNAL = 7,    /* state/journal, read-write */
    HANDOVER_PRIV_SOCKET_DIR = 8, /* directory of the daemon's socket, which priv unlinks */
    HANDOVER_PRIV_READY = 9,      /* pipe: one byte when leftovers are gone and requests can come */
    HANDOVER_PRIV_END
};

#define HANDOVER_MAGIC   UINT32_C(0x4f484c43) /* "CLHO" */
#define HANDOVER_VERSION 1u

struct handover_settings {
    uint32_t magic;
    uint32_t version;
    uint32_t log_level; /* enum log_level */
    uint32_t uid_base;  /* uid and gid: daemon uid_base, monitor in slot n uid_base + 1 + n */
    int32_t priv_pid;   /* a child of the daemon's process, which has to reap it */
    uint32_t has_config;
    uint64_t instance;   /* names this instance's cgroups; from the state directory's path */
    uint64_t socket_dev; /* the bound socket's own inode: priv unlinks no other */
    uint64_t socket_ino;
    char socket_name[NAME_MAX + 1]; /* in HANDOVER_PRIV_SOCKET_DIR */
    char socket_path[PATH_MAX];     /* the paths are for messages only */
    char state_path[PATH_MAX];
    char images_path[PATH_MAX];
    char config_path[PATH_MAX];
};
