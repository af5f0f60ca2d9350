/*
 * CLOCK_MONOTONIC, which stands still here until a test moves it: no load of the machine can make a
 * timeout pass that a test did not mean, or have a client come late. libuv's timers go by it too.
 * To be included in one file of a program.
 */
#pragma once

#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* Any time will do; one long after a boot looks like most. */
static uint64_t fake_clock_ns = 100000 * NS_PER_S;

static inline void fake_clock_move_ms(uint64_t ms)
{
    fake_clock_ns += ms * NS_PER_MS;
}

/* In the program itself, so that its libraries find it before libc's. */
int clock_gettime(clockid_t id, struct timespec *ret_time)
{
    if (id != CLOCK_MONOTONIC && id != CLOCK_MONOTONIC_COARSE)
        return (int)syscall(SYS_clock_gettime, id, ret_time);
    ret_time->tv_sec = (time_t)(fake_clock_ns / NS_PER_S);
    ret_time->tv_nsec = (long)(fake_clock_ns % NS_PER_S);
    return 0;
}
