/*
 * Every bound in one place. A buffer or table anywhere in cloche takes its maximum from here, so
 * that a reader can see at a glance what a hostile guest, client or peer can make us hold.
 */
#pragma once

#include <stdint.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* Sandboxes */
#define SANDBOX_COUNT_MAX     1024u /* live and pooled guests of one daemon; also the slots of priv */
#define SANDBOX_VCPUS_MAX     32u   /* also what the guest kernel is configured for (NR_CPUS) */
#define SANDBOX_MEM_MIB_MIN   64u
#define SANDBOX_MEM_MIB_MAX   65536u
#define SANDBOX_DISK_MIB_MIN  16u
#define SANDBOX_DISK_MIB_MAX  65536u
#define SANDBOX_TIMEOUT_S_MAX 604800u /* a week */
#define SANDBOX_ID_BYTES_MAX  40u     /* "sb_" and 26 characters, NUL included, rounded up */
#define SANDBOX_LABELS_MAX    32u
#define SANDBOX_ENV_BYTES_MAX (64 * KIB) /* names and values of a sandbox's env together */
#define TEMPLATE_NAME_MAX     64u        /* NUL included */
#define TEMPLATE_COUNT_MAX    64u
#define SHAPE_COUNT_MAX       16u /* snapshots (template x vCPUs x memory x disk) of one daemon */
#define HOSTNAME_BYTES_MAX    64u /* NUL included, as in utsname */

/* What the monitor itself may use on top of guest memory before its cgroup stops it. */
#define VMM_OVERHEAD_MIB 64u
#define VMM_PIDS_EXTRA   4u /* threads besides the vCPUs */

/* Guest channel (see cloche/channel.h) */
#define CHANNEL_PAYLOAD_MAX  (64 * KIB)  /* one frame's payload */
#define CHANNEL_WINDOW_BYTES (256 * KIB) /* initial credit of each lane in each direction */
#define CHANNEL_STREAMS_MAX  256u        /* open at once in one sandbox */
#define CHANNEL_PATH_MAX     4096u       /* NUL included, PATH_MAX of Linux */
#define CHANNEL_ARGS_MAX     16384u      /* argv and env entries of one exec, each */
#define CHANNEL_OPEN_MAX     (1 * MIB)   /* an OPEN's request, over all its frames */
#define CHANNEL_TEXT_MAX     512u        /* an error text from the guest */

/* Files of a sandbox (see cloche/channel.h for records) */
#define FILE_LIST_LIMIT_MAX     1000u  /* entries of one page, also the default */
#define FILE_SEARCH_LIMIT       1000u  /* matches of one search, unless it says otherwise */
#define FILE_SEARCH_LIMIT_MAX   10000u /* what it may say */
#define FILE_PATTERN_MAX        1024u  /* NUL included */
#define FILE_NAME_BYTES         256u   /* one component: NAME_MAX of Linux and the NUL */
#define FILE_RECORDS_BYTES_MAX  (2 * MIB)
#define FILE_DIFF_FILES_MAX     65536u    /* that DIFF remembers ... */
#define FILE_DIFF_PATHS_MAX     (8 * MIB) /* ... and the bytes of their paths */
#define FILE_SEARCH_PENDING_MAX (1 * MIB) /* paths of directories that a search has yet to read */
#define FILE_WATCHES_MAX        4096u     /* directories of one watch */
#define FILE_REMOVE_DEPTH_MAX   64u       /* a tree's depth, in paths of CHANNEL_PATH_MAX bytes */

/* Trees in and out as archives */
#define TREE_ENTRIES_MAX     1000000u                     /* of one tree */
#define TREE_FILE_BYTES_MAX  (SANDBOX_DISK_MIB_MAX * MIB) /* one file on its way into a sandbox */
#define TREE_DEPTH_MAX       256u /* directories in each other whose times are set behind all else */
#define TAR_THREADS_MAX      16u  /* transfers of trees of one daemon at once; each has a thread */
#define TAR_STACK_BYTES      (256 * KIB) /* of such a thread */
#define TAR_HEADER_BYTES_MAX (64 * KIB)  /* of an archive, that tell of one entry */

/* HTTP */
#define HTTP_HEAD_BYTES_MAX    (32 * KIB)
#define HTTP_HEADERS_MAX       64u
#define HTTP_TARGET_BYTES_MAX  (8 * KIB)
#define HTTP_JSON_BODY_MAX     (32 * MIB) /* file contents of POST /v1/run included */
#define HTTP_CHUNK_LINE_MAX    256u
#define HTTP_CONNECTIONS_MAX   1024u
#define HTTP_IDLE_TIMEOUT_MS   60000u /* a connection between requests */
#define HTTP_HEAD_TIMEOUT_MS   10000u /* from the first byte of a head to its last */
#define HTTP_BODY_STALL_MS     60000u /* a body, or a reply's reader, that makes no progress */
#define HTTP_LINGER_MS         2000u  /* what a client still sends after a refusal is thrown away */
#define HTTP_SEGMENTS_MAX      16u    /* of a path */
#define HTTP_QUERY_MAX         64u    /* query parameters */
#define HTTP_REQUEST_ID_MAX    65u    /* NUL included */
#define HTTP_REPLY_HEADERS_MAX (4 * KIB)   /* headers that a handler adds to its reply */
#define HTTP_INPUT_BYTES_MAX   (64 * KIB)  /* received and not yet handled, of one connection */
#define HTTP_DRAIN_BYTES_MAX   (64 * KIB)  /* unread rest of a body skipped to keep a connection */
#define HTTP_REPLY_QUEUE_MAX   (1 * MIB)   /* bytes of a streamed reply not yet taken */
#define HTTP_REPLY_QUEUE_HIGH  (128 * KIB) /* above it handlers wait */
#define HTTP_REPLY_QUEUE_LOW   (64 * KIB)  /* below it the handler is asked for more */
#define HTTP_BODIES_BYTES_MAX  (256 * MIB) /* bodies read whole, of all connections together */
#define HTTP_REPLIES_BYTES_MAX (768 * MIB) /* what is gathered for replies, of all together */
#define HTTP_UPGRADED_PIECE    4096u /* of an upgraded connection's input, handed on at a time */
#define WEBSOCKET_FRAME_MAX    (1 * MIB)   /* one frame's payload; it is not kept */
#define WEBSOCKET_TEXT_MAX     4096u       /* a text message, over all its frames */
#define WEBSOCKET_QUEUE_MAX    (256 * KIB) /* bytes not yet taken by the client */
#define WEBSOCKET_PING_MS      30000u  /* a silent client is asked, and cut after as long again */
#define TERMINAL_SIDE_MAX      4096u   /* rows or columns */
#define HTTP_DEADLINE_S_MAX    604800u /* Request-Timeout: a week */
#define JSON_DEPTH_MAX         16u
#define JSON_NODES_MAX         65536u
#define JSON_NUMBER_BYTES_MAX  40u

/* Idempotency keys: what is remembered of requests that came with one */
#define IDEMPOTENCY_KEY_MAX     64u        /* characters */
#define IDEMPOTENCY_ENTRIES_MAX 16384u     /* the oldest go */
#define IDEMPOTENCY_REPLY_MAX   (1 * MIB)  /* of one reply that is kept */
#define IDEMPOTENCY_BYTES_MAX   (32 * MIB) /* of all of them; the oldest go */
#define IDEMPOTENCY_KEEP_MS     600000u    /* from the reply on */

/* Exec */
#define EXEC_TIMEOUT_MS_MAX       (SANDBOX_TIMEOUT_S_MAX * UINT64_C(1000))
#define EXEC_OUTPUT_BYTES_DEFAULT (8 * MIB)  /* stdout and stderr together, buffered reply */
#define EXEC_OUTPUT_BYTES_MAX     (64 * MIB) /* what max_output_bytes may ask for */
#define PROCESS_RING_BYTES_MIN    (1 * MIB)  /* output that is kept of a background process; */
#define PROCESS_RING_BYTES_MAX    (64 * MIB) /* the default is the minimum */
#define PROCESSES_BYTES_MAX       (2 * GIB)  /* output and input kept of all background processes */
#define PROCESS_ENDED_MAX         64u  /* background processes of a sandbox kept after their end */
#define PROCESS_COMMAND_BYTES     256u /* of a command line that is shown, NUL included */
#define PROCESS_WAIT_MS_MAX       600000u
#define SESSION_NAME_BYTES        65u        /* NUL included */
#define EXEC_CHANGES_BYTES_MAX    (16 * MIB) /* of JSON, of what FILE_RECORDS_BYTES_MAX can say */
#define RUN_COLLECT_BYTES_MAX     (64 * MIB) /* files returned by POST /v1/run together */
#define RUN_FILES_MAX             1024u

_Static_assert(PROCESS_RING_BYTES_MIN >= 4 * CHANNEL_WINDOW_BYTES,
               "a follower never misses what the guest may still send");
_Static_assert(PROCESSES_BYTES_MAX >=
                   SANDBOX_COUNT_MAX * (PROCESS_RING_BYTES_MIN + PROCESS_RING_BYTES_MIN / 8),
               "every sandbox can have a session, or a terminal");
_Static_assert(HTTP_REPLY_QUEUE_HIGH > HTTP_REPLY_QUEUE_LOW,
               "a handler that waits is asked for more");
_Static_assert(CHANNEL_WINDOW_BYTES >= 2 * CHANNEL_PAYLOAD_MAX,
               "a full frame must always fit twice");
_Static_assert(IDEMPOTENCY_ENTRIES_MAX >= 2 * HTTP_CONNECTIONS_MAX,
               "a request that runs never has to be forgotten");
_Static_assert(SANDBOX_VCPUS_MAX <= 32, "the MP table and the guest's NR_CPUS end there");
