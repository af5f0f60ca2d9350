/* A real priv, as root, with this test in the daemon's place. */
#pragma once

#include <linux/limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cloche/priv_proto.h"
#include "priv/cgroup_layout.h"
#include "priv/journal.h"
#include "probe/priv_probe.h"

struct priv_fixture {
    const void *program; /* what monitors run */
    size_t program_size;
    char dir[64]; /* lock, journal and socket */
    uint64_t instance;
    uint32_t uid_base; /* so that two runs of the tests do not share uids */
    int journal_fd;    /* the same file as priv's */
    int control;       /* to priv */
    int priv_end;      /* priv's end, kept only while priv is being started */
    pid_t priv_pid;
    bool no_total;        /* priv is not told the total */
    unsigned send_buffer; /* of priv's end in bytes; 0: the default */
};

/* Makes folder and instance; nothing runs yet. */
void fixture_init(struct priv_fixture *f, const void *program, size_t program_size);

/* What fixture_start says all monitors together may use. */
#define FIXTURE_TOTAL_MIB 512u

/* Starts priv and tells it the total. Returns 0 once it is ready, -1 when it ended before that. */
int fixture_start(struct priv_fixture *f);

/* Closes the control socket if it is open, waits for priv and returns its wait status. */
int fixture_stop(struct priv_fixture *f);

/* Waits for priv and returns its wait status; the control socket stays as it is. */
int fixture_wait(struct priv_fixture *f);

/* Checks that nothing of the instance is left, and removes the folder. */
void fixture_fini(struct priv_fixture *f);

/* A SPAWN request with middling caps. */
struct priv_request fixture_request(uint32_t type, uint32_t slot);

/* Sends SPAWN; *ret_socket is the test's end of the monitor's control socket. */
void fixture_spawn(struct priv_fixture *f, uint32_t slot, int *ret_socket);

/* Receives the next event within 10 s; false when priv closed its end. */
bool fixture_event(struct priv_fixture *f, struct priv_event *ret_event);

/* Receives an event that must be of this type and slot. */
struct priv_event fixture_expect(struct priv_fixture *f, uint32_t type, uint32_t slot);

/* Spawns a probe in the slot and receives its report and SPAWNED; returns the probe's pid. */
pid_t fixture_probe(struct priv_fixture *f, uint32_t slot, int *ret_socket,
                    struct probe_report *ret_report);

/* The text of a file in the instance's own cgroup (slot NULL) or a slot's, of the first hierarchy
 * that has it; false where none has. */
bool fixture_read_cgroup(const struct priv_fixture *f, const char *slot, const char *file,
                         char *ret_text, size_t size);

/* How many directories of that name (slot, or NULL for the whole subtree) the cgroup trees have. */
unsigned fixture_cgroups(const struct priv_fixture *f, const char *slot);

/* Puts a process into the slot's cgroups, which exist. */
void fixture_enter_cgroups(const struct priv_fixture *f, const char *slot, pid_t pid);

/* Whether the process is there (a zombie is not), and a wait of up to 5 s until it is not. */
bool process_lives(pid_t pid);
bool process_ends(pid_t pid);
