/*
 * Holds a thread of the monitor inside a system call, as a slow host would: whichever of its
 * threads but the first comes to make that call is stopped (ptrace) in front of it, and the others
 * go on.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#define HOLD_THREADS_MAX 16u

struct hold {
    pid_t pid;
    long call; /* SYS_... */
    pid_t tids[HOLD_THREADS_MAX];
    unsigned count;
    pthread_t tracer; /* all of ptrace is one thread's business */
    atomic_bool traces;
    atomic_bool held;
    atomic_bool released;
};

/* Takes hold of all of the monitor's threads that there are; to be called once it is BUILT. */
void hold_init(struct hold *h, pid_t pid, long call);
/* Returns when a thread has come to make the call. */
void hold_wait(struct hold *h);
/* Lets it make the call, and all further ones. */
void hold_release(struct hold *h);
/* Once the monitor has ended. */
void hold_fini(struct hold *h);
