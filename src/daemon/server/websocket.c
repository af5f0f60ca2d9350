#include "daemon/server/websocket.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include <wslay/wslay.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/server/exchange.h"
#include "http/websocket.h"

struct websocket {
    struct exchange *exchange;
    struct websocket_calls calls;
    void *arg;
    wslay_event_context_ptr wslay;
    uv_timer_t timer; /* ends a stretch of silence */
    uint32_t ping_ms;

    struct buffer text; /* a message that is coming */
    bool is_text;
    bool is_control; /* the frame that is being read */

    /* What wslay has not looked at yet, during a call of on_data. */
    const uint8_t *input;
    size_t input_size;

    bool paused;   /* by the owner */
    bool held;     /* the exchange is paused: by the owner, or until what is queued has gone out */
    bool heard;    /* something came since the timer was started */
    bool asked;    /* a ping went out since then */
    bool closing;  /* by us: the owner hears nothing any more but on_close */
    bool finished; /* the exchange is */
};

static ssize_t take_input(wslay_event_context_ptr ctx, uint8_t *to, size_t size, int flags,
                          void *arg)
{
    struct websocket *s = arg;

    (void)flags;
    if (s->input_size == 0) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    if (size > s->input_size)
        size = s->input_size;
    memcpy(to, s->input, size);
    s->input += size;
    s->input_size -= size;
    return (ssize_t)size;
}

static ssize_t put_output(wslay_event_context_ptr ctx, const uint8_t *data, size_t size, int flags,
                          void *arg)
{
    struct websocket *s = arg;

    (void)flags;
    if (exchange_write(s->exchange, data, size) == 0)
        return (ssize_t)size;
    /* With little queued it was memory that was short, and no drain would bring us back here. */
    bool is_full = exchange_queued(s->exchange) > HTTP_REPLY_QUEUE_LOW;
    wslay_event_set_error(ctx, is_full ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static void begin_frame(wslay_event_context_ptr ctx,
                        const struct wslay_event_on_frame_recv_start_arg *frame, void *arg)
{
    struct websocket *s = arg;

    (void)ctx;
    s->is_control = wslay_is_ctrl_frame(frame->opcode);
    if (!s->is_control && frame->opcode != WSLAY_CONTINUATION_FRAME)
        s->is_text = frame->opcode == WSLAY_TEXT_FRAME;
}

static void take_chunk(wslay_event_context_ptr ctx,
                       const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg)
{
    struct websocket *s = arg;

    if (s->is_control || s->closing || chunk->data_length == 0)
        return;
    if (!s->is_text) {
        s->calls.on_bytes(s->arg, chunk->data, chunk->data_length);
    } else if (buffer_append(&s->text, chunk->data, chunk->data_length) != 0) {
        (void)wslay_event_queue_close(ctx, WEBSOCKET_TOO_LARGE, NULL, 0);
        wslay_event_shutdown_read(ctx);
        s->closing = true; /* wslay still ends the message, of which a part is missing */
    }
}

static void end_message(wslay_event_context_ptr ctx,
                        const struct wslay_event_on_msg_recv_arg *message, void *arg)
{
    struct websocket *s = arg;

    (void)ctx;
    if (message->opcode != WSLAY_TEXT_FRAME)
        return;
    if (!s->closing)
        s->calls.on_text(s->arg, s->text.size > 0 ? (const char *)buffer_bytes(&s->text) : "",
                         s->text.size);
    buffer_consume(&s->text, s->text.size);
}

/* Ends the exchange, once. Its on_close follows from the loop. */
static void finish(struct websocket *s, bool in_order)
{
    if (s->finished)
        return;
    s->finished = s->closing = true;
    (void)uv_timer_stop(&s->timer);
    if (in_order)
        exchange_end(s->exchange);
    else
        exchange_abort(s->exchange);
}

/*
 * Sends what there is to send, and sees whether that was all. While wslay holds messages back
 * (pongs, say, to a client that sends pings and takes nothing) no more input is taken.
 */
static void advance(struct websocket *s)
{
    if (s->finished)
        return;
    if (wslay_event_send(s->wslay) != 0) {
        finish(s, false);
        return;
    }
    bool is_behind = wslay_event_want_write(s->wslay);
    if (!is_behind && (s->closing || !wslay_event_get_read_enabled(s->wslay) ||
                       wslay_event_get_close_sent(s->wslay))) {
        finish(s, true);
        return;
    }
    bool hold = s->paused || is_behind;
    if (hold && !s->held)
        exchange_pause(s->exchange);
    else if (!hold && s->held)
        exchange_resume(s->exchange);
    s->held = hold;
}

static void on_data(struct exchange *x, const void *data, size_t size)
{
    struct websocket *s = exchange_user(x);

    s->heard = true;
    s->input = data;
    s->input_size = size;
    /* A failure shows up as reading being switched off, with a close message in the queue. */
    (void)wslay_event_recv(s->wslay);
    s->input_size = 0;
    advance(s);
}

static void on_end(struct exchange *x, const struct error *failure)
{
    (void)failure;
    finish(exchange_user(x), false);
}

static void on_drain(struct exchange *x)
{
    struct websocket *s = exchange_user(x);

    advance(s);
    if (!s->closing)
        s->calls.on_room(s->arg);
}

/* A silent client is asked; one that stays silent is cut. One that we do not read from cannot be
 * heard. */
static void on_timer(uv_timer_t *timer)
{
    const struct wslay_event_msg ping = {.opcode = WSLAY_PING};
    struct websocket *s = timer->data;

    if (s->heard || s->held) {
        s->heard = s->asked = false;
    } else if (s->asked) {
        finish(s, false);
    } else {
        s->asked = true;
        (void)wslay_event_queue_msg(s->wslay, &ping);
        advance(s);
    }
}

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer->data);
}

static void on_close(struct exchange *x)
{
    struct websocket *s = exchange_user(x);

    wslay_event_context_free(s->wslay);
    buffer_fini(&s->text);
    s->calls.on_close(s->arg);
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

static int open_wslay(struct websocket *s)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = take_input,
        .send_callback = put_output,
        .on_frame_recv_start_callback = begin_frame,
        .on_frame_recv_chunk_callback = take_chunk,
        .on_msg_recv_callback = end_message,
    };

    if (wslay_event_context_server_init(&s->wslay, &callbacks, s) != 0)
        return -1;
    wslay_event_config_set_no_buffering(s->wslay, 1);
    wslay_event_config_set_max_recv_msg_length(s->wslay, WEBSOCKET_FRAME_MAX);
    return 0;
}

static int check_request(struct exchange *x, char key[WEBSOCKET_KEY_BYTES], struct error *e)
{
    if (websocket_request_check(exchange_head(x), key, e) == 0)
        return 0;
    if (e->code == ERR_UPGRADE_REQUIRED) {
        exchange_set_header(x, "Connection", "Upgrade");
        exchange_set_header(x, "Upgrade", "websocket");
        exchange_set_header(x, "Sec-WebSocket-Version", WEBSOCKET_VERSION);
    }
    return -1;
}

int websocket_check(struct exchange *x, struct error *e)
{
    char key[WEBSOCKET_KEY_BYTES];

    return check_request(x, key, e);
}

int websocket_accept(struct exchange *x, uint32_t ping_ms, const struct websocket_calls *calls,
                     void *arg, struct websocket **ret_socket, struct error *e)
{
    char key[WEBSOCKET_KEY_BYTES], proof[WEBSOCKET_ACCEPT_BYTES];

    if (check_request(x, key, e) != 0)
        return -1;
    struct websocket *s = calloc(1, sizeof(*s));
    if (s == NULL || open_wslay(s) != 0) {
        free(s);
        return error_set(e, ERR_INTERNAL, "out of memory for a WebSocket");
    }
    s->exchange = x;
    s->calls = *calls;
    s->arg = arg;
    s->ping_ms = ping_ms != 0 ? ping_ms : WEBSOCKET_PING_MS;
    s->text = (struct buffer)BUFFER_INIT(WEBSOCKET_TEXT_MAX);
    (void)uv_timer_init(exchange_loop(x), &s->timer);
    s->timer.data = s;
    uv_update_time(exchange_loop(x));
    (void)uv_timer_start(&s->timer, on_timer, s->ping_ms, s->ping_ms);
    exchange_set_user(x, s);
    exchange_on_gone(x, NULL); /* on_end tells it */
    exchange_on_close(x, on_close);
    websocket_accept_of(key, proof);
    exchange_set_header(x, "Sec-WebSocket-Accept", "%s", proof);
    exchange_upgrade(x, "websocket", on_data, on_end, on_drain);
    *ret_socket = s;
    return 0;
}

static void send_message(struct websocket *s, uint8_t opcode, const void *data, size_t size)
{
    const struct wslay_event_msg message = {.opcode = opcode, .msg = data, .msg_length = size};

    if (s->closing)
        return;
    if (websocket_queued(s) > WEBSOCKET_QUEUE_MAX ||
        wslay_event_queue_msg(s->wslay, &message) == WSLAY_ERR_NOMEM)
        finish(s, false);
    else
        advance(s);
}

void websocket_send_bytes(struct websocket *s, const void *data, size_t size)
{
    send_message(s, WSLAY_BINARY_FRAME, data, size);
}

void websocket_send_text(struct websocket *s, const char *text, size_t size)
{
    send_message(s, WSLAY_TEXT_FRAME, text, size);
}

size_t websocket_queued(const struct websocket *s)
{
    return exchange_queued(s->exchange) + wslay_event_get_queued_msg_length(s->wslay);
}

void websocket_pause(struct websocket *s)
{
    s->paused = true;
    advance(s);
}

void websocket_resume(struct websocket *s)
{
    s->paused = false;
    advance(s);
}

void websocket_close(struct websocket *s, enum websocket_code code, const char *reason)
{
    if (s->closing)
        return;
    s->closing = true;
    (void)wslay_event_queue_close(s->wslay, (uint16_t)code, (const uint8_t *)reason,
                                  strlen(reason));
    advance(s);
}
