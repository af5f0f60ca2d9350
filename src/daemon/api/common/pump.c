#include "daemon/api/common/pump.h"

#include <assert.h>

void pump_init(struct pump *p, const struct pump_spec *spec)
{
    assert(p->state == PUMP_OVER);
    *p = (struct pump){.spec = *spec, .state = PUMP_RUNS};
    p->leftover = (struct buffer)BUFFER_INIT(spec->leftover_max);
}

void pump_stop(struct pump *p)
{
    p->state = PUMP_OVER;
    buffer_fini(&p->leftover);
}

static void break_off(struct pump *p, const struct error *why)
{
    pump_stop(p);
    p->spec.on_broken(p->spec.arg, why);
}

static void break_memory(struct pump *p)
{
    struct error e = ERROR_INIT;

    (void)error_set(&e, ERR_INTERNAL, "out of memory for what is on its way");
    break_off(p, &e);
}

/* How many bytes the sink took; false where that broke the pump. */
static bool offer(struct pump *p, const uint8_t *data, size_t size, size_t *ret_taken)
{
    size_t taken = p->spec.sink->write(p->spec.to, data, size);

    if (taken == PUMP_WRITE_FAILED) {
        break_memory(p);
        return false;
    }
    assert(taken <= size);
    *ret_taken = taken;
    return true;
}

static void credit(struct pump *p, size_t size)
{
    if (p->spec.source->consume != NULL && !p->has_ended && size > 0)
        p->spec.source->consume(p->spec.from, size);
}

static void resume(struct pump *p)
{
    if (p->is_paused && !p->has_ended)
        p->spec.source->resume(p->spec.from);
    p->is_paused = false;
}

void pump_data(struct pump *p, const void *data, size_t size)
{
    size_t taken = 0;

    if (p->state == PUMP_OVER)
        return;
    assert(!p->has_ended);
    if (p->state == PUMP_DISCARDS) {
        credit(p, size);
        return;
    }
    /* In their order: nothing overtakes what waits. */
    if (p->leftover.size == 0 && !offer(p, data, size, &taken))
        return;
    if (taken < size &&
        buffer_append(&p->leftover, (const uint8_t *)data + taken, size - taken) != 0) {
        break_memory(p);
        return;
    }
    credit(p, taken);
    if (p->leftover.size > 0 && !p->is_paused && p->spec.source->pause != NULL) {
        p->is_paused = true;
        p->spec.source->pause(p->spec.from);
    }
}

/* Hands on what is left over; true when all of it has gone. */
static bool flush(struct pump *p)
{
    size_t taken = 0;

    if (p->leftover.size == 0)
        return true;
    if (!offer(p, buffer_bytes(&p->leftover), p->leftover.size, &taken))
        return false;
    buffer_consume(&p->leftover, taken);
    credit(p, taken);
    return p->leftover.size == 0;
}

void pump_run(struct pump *p)
{
    struct error e = ERROR_INIT;
    int result = 1;

    if (p->state != PUMP_RUNS)
        return;
    while (result == 1) {
        if (!flush(p))
            return;
        result =
            p->spec.source->pull != NULL ? p->spec.source->pull(p->spec.from, &p->leftover, &e) : 0;
    }
    if (result < 0) {
        break_off(p, &e);
    } else if (p->has_ended) {
        pump_stop(p);
        p->spec.sink->end(p->spec.to);
    } else {
        resume(p);
    }
}

void pump_end(struct pump *p)
{
    p->has_ended = true;
    pump_run(p);
}

void pump_discard(struct pump *p)
{
    size_t dropped = p->leftover.size;

    if (p->state != PUMP_RUNS)
        return;
    buffer_fini(&p->leftover);
    p->state = PUMP_DISCARDS;
    credit(p, dropped);
    resume(p);
}
