/*
 * CLOCK_MONOTONIC, which stands still here until a test moves it: no load of the machine can make a
 * timeout pass that a test did not mean, or have a client come late. libuv's timers go by it too.
 */
#pragma once

#include <stdint.h>

void fake_clock_move_ms(uint64_t ms);
