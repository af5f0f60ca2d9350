#include "daemon/api/common/pump_ends.h"

#include "daemon/link/guest_call.h"
#include "daemon/server/exchange.h"

_Static_assert(HTTP_REPLY_QUEUE_HIGH + PUMP_REPLY_PIECE_MAX <= HTTP_REPLY_QUEUE_MAX,
               "a piece always fits the exchange's queue");

static void pause_body(void *from)
{
    exchange_pause(from);
}

static void resume_body(void *from)
{
    exchange_resume(from);
}

static size_t write_reply(void *to, const uint8_t *data, size_t size)
{
    size_t taken = 0;

    while (taken < size && exchange_queued(to) < HTTP_REPLY_QUEUE_HIGH) {
        size_t rest = size - taken;
        size_t piece = rest < PUMP_REPLY_PIECE_MAX ? rest : PUMP_REPLY_PIECE_MAX;

        if (exchange_write(to, data + taken, piece) != 0)
            return PUMP_WRITE_FAILED;
        taken += piece;
    }
    return taken;
}

static void end_reply(void *to)
{
    exchange_end(to);
}

static void consume_of_guest(void *from, size_t size)
{
    guest_call_consume(from, size);
}

static size_t write_guest(void *to, const uint8_t *data, size_t size)
{
    return guest_call_send(to, data, size);
}

static void finish_guest(void *to)
{
    guest_call_finish(to);
}

const struct pump_source pump_from_body = {.pause = pause_body, .resume = resume_body};
const struct pump_sink pump_to_reply = {.write = write_reply, .end = end_reply};
const struct pump_source pump_from_guest = {.consume = consume_of_guest};
const struct pump_sink pump_to_guest = {.write = write_guest, .end = finish_guest};
