/*
 * The EXEC operation: one command from its start to its END.
 *
 * END is sent when the main process has ended, stdout and stderr are at their end and no other
 * process of the command's cgroup lives. A descendant that outlives the main process gets a short
 * grace to finish its output; then, or as soon as nobody holds the pipes any more, it is killed: a
 * command does not leave processes behind.
 *
 * A command's terminal has two descriptors of its master, one as stdin and one as stdout, so that
 * both are watched and closed like a pipe's end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "guest/exec/execgroup.h"

struct service;
struct stream;
struct stream_op;
enum service_tag;

#define COMMAND_OUTPUTS 2u /* stdout, stderr */

struct command {
    pid_t pid; /* of the main process, also after its end; 0: it was never started */
    int stdin_fd;
    int output_fds[COMMAND_OUTPUTS];    /* -1 once EOF was sent */
    bool readable[COMMAND_OUTPUTS];     /* a read is worth trying */
    bool writers_gone[COMMAND_OUTPUTS]; /* what is in the pipe now is all that will come */
    bool takes_stdin;
    bool is_terminal; /* stdin_fd and output_fds[0] are both the terminal's master */
    bool stdin_watched;
    struct buffer stdin_waiting; /* what the pipe had no room for */

    bool has_group;
    bool group_watched;
    struct execgroup group;

    bool exited; /* the main process was reaped: the fields below are set */
    bool killed; /* everything left was killed, or found to be gone */
    bool empty;  /* no process is left */
    bool reset;
    int error; /* errno of a failure of ours on the way */
    int status;
    uint64_t user_us;
    uint64_t system_us;
    uint64_t max_rss_bytes;
    uint64_t started_ns;
    uint64_t ended_ns;
    uint64_t kill_at_ns; /* the end of the grace; 0: none is running */
};

extern const struct stream_op command_op;

/* Touches the memory that every command needs (see port_init). */
void command_warm_up(void);

/* The main process was reaped. */
void command_exited(struct service *v, struct stream *s, int status, const struct rusage *usage);

/* epoll's `events` for one of the command's descriptors. */
void command_event(struct service *v, struct stream *s, enum service_tag tag, uint32_t events);

/* kill_at_ns has passed. */
void command_grace_over(struct service *v, struct stream *s);
