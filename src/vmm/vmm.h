/*
 * The monitor: its one guest's machine, what it came with, and who serves it.
 *
 * Threads. The first thread builds everything, waits for START and then runs vCPU 0: the message
 * that starts a guest wakes the very thread that enters it. Every other vCPU has its own thread,
 * held at a gate until START. Devices have a thread a lane (loop.c); one of them also watches the
 * daemon. All threads are made before the jail closes.
 */
#pragma once

#include "cloche/vmm_proto.h"
#include "vmm/loop.h"
#include "vmm/machine/machine.h"
#include "vmm/state/park.h"

struct vmm {
    struct vmm_config config;
    int fds[VMM_FD_COUNT_BOOT]; /* -1 once closed */
    struct machine machine;
    struct loop loop;
    struct park park; /* BOOT */
};
