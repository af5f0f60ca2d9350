/*
 * A pump: bytes move from a source to a sink at the pace of the slower one, in their order, and
 * nothing more is held than the one piece that the sink did not take whole.
 *
 *   source                                           sink
 *     pump_data(), or `pull`  -->  [ leftover ]  -->   `write`, which may take less
 *     `pause` and `resume`, or `consume`               pump_run() when it takes more
 *     pump_end()                                       `end`, behind the last byte
 *
 * A source is one of three kinds, by the calls that it has: one that is told to pause (a body, a
 * thread), one that has credit and is told what was consumed (a guest), or one that is asked for
 * its next piece (a process's output, a reply that is there already).
 *
 * Three ways to stop: the sink may have gone while the source must go on to its end
 * (pump_discard), the owner may end both (pump_stop), or the pump cannot go on (`on_broken`).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

/* Calls that a source does not have are NULL. None of them may call into the pump. */
struct pump_source {
    /* No pump_data() between the two but what was on its way, and no pump_end(). */
    void (*pause)(void *from);
    void (*resume)(void *from);
    /* So many bytes more may come. */
    void (*consume)(void *from, size_t size);
    /* Puts the next piece into `to`, which is empty: appended, or moved there. Returns 1, 0 where
     * there is none now, or -1 with the error that breaks the pump. */
    int (*pull)(void *from, struct buffer *to, struct error *e);
};

#define PUMP_WRITE_FAILED SIZE_MAX

struct pump_sink {
    /* Returns how many bytes were taken; where that is less than `size`, pump_run() follows. Or
     * PUMP_WRITE_FAILED. Must not call into the pump. */
    size_t (*write)(void *to, const uint8_t *data, size_t size);
    /* That was all. The pump's last call, which may free it. NULL where pump_end() is not called.
     */
    void (*end)(void *to);
};

struct pump_spec {
    const struct pump_source *source;
    void *from;
    const struct pump_sink *sink;
    void *to;
    size_t leftover_max; /* the largest piece, and what may come behind a pause or has credit */
    /* The leftover had no room, or the sink or the source failed: neither is called any more, and
     * the owner gives up both. The pump's last call, which may free it. */
    void (*on_broken)(void *arg, const struct error *why);
    void *arg;
};

enum pump_state { PUMP_OVER, PUMP_RUNS, PUMP_DISCARDS };

/* One that is zeroed is over: no call but pump_init() does anything. */
struct pump {
    struct pump_spec spec;
    struct buffer leftover;
    enum pump_state state;
    bool is_paused;
    bool has_ended; /* the source */
};

/* `p` is over. Nothing is called from inside. */
void pump_init(struct pump *p, const struct pump_spec *spec);

/* The source has a piece. */
void pump_data(struct pump *p, const void *data, size_t size);

/* The source has come to its end, and is not called any more but for `pull`, until that has
 * nothing: the sink is told behind the last byte. */
void pump_end(struct pump *p);

/* The sink takes more, or a source with `pull` has something. */
void pump_run(struct pump *p);

/* The sink takes nothing any more: what is left over is dropped and what still comes, so that the
 * source goes on. The sink is not called any more. */
void pump_discard(struct pump *p);

/* Neither side is called any more, and nothing is held. */
void pump_stop(struct pump *p);
