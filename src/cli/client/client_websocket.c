#include "cli/client/client_websocket.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <wslay/wslay.h>

#include "base/base64.h"
#include "http/websocket.h"

#define TEXT_MAX (64 * KIB)

static ssize_t take_input(wslay_event_context_ptr ctx, uint8_t *to, size_t size, int flags,
                          void *arg)
{
    struct client_websocket *s = arg;
    struct buffer *early = &s->client->in; /* what came right behind the handshake */

    (void)flags;
    if (!s->has_failed && early->size > 0) {
        size = early->size < size ? early->size : size;
        memcpy(to, buffer_bytes(early), size);
        buffer_consume(early, size);
        return (ssize_t)size;
    }
    ssize_t n = s->has_failed ? 0 : recv(s->client->fd, to, size, MSG_DONTWAIT);
    if (n > 0)
        return n;
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        s->is_over = true;
    wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
    return -1;
}

static ssize_t put_output(wslay_event_context_ptr ctx, const uint8_t *data, size_t size, int flags,
                          void *arg)
{
    struct client_websocket *s = arg;
    ssize_t n = send(s->client->fd, data, size,
                     MSG_NOSIGNAL | MSG_DONTWAIT | ((flags & WSLAY_MSG_MORE) ? MSG_MORE : 0));

    if (n > 0)
        return n;
    /* That the daemon has gone shows when its last words have been read. */
    wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
    return -1;
}

/* Against middle boxes that take the client's bytes for something else; here there are none, but a
 * server may insist on it. */
static int make_mask(wslay_event_context_ptr ctx, uint8_t *mask, size_t size, void *arg)
{
    (void)arg;
    if (getrandom(mask, size, 0) == (ssize_t)size)
        return 0;
    wslay_event_set_error(ctx, WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static void begin_frame(wslay_event_context_ptr ctx,
                        const struct wslay_event_on_frame_recv_start_arg *frame, void *arg)
{
    struct client_websocket *s = arg;

    (void)ctx;
    s->is_control = wslay_is_ctrl_frame(frame->opcode);
    if (!s->is_control && frame->opcode != WSLAY_CONTINUATION_FRAME)
        s->is_text = frame->opcode == WSLAY_TEXT_FRAME;
}

static void take_chunk(wslay_event_context_ptr ctx,
                       const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg)
{
    struct client_websocket *s = arg;

    (void)ctx;
    if (s->is_control || s->has_failed || chunk->data_length == 0)
        return;
    if (!s->is_text)
        s->has_failed = s->calls->on_bytes(s->arg, chunk->data, chunk->data_length, s->e) != 0;
    else if (buffer_append(&s->text, chunk->data, chunk->data_length) != 0)
        s->has_failed =
            error_set(s->e, ERR_TOO_LARGE, "the daemon sent a message that is too long") != 0;
}

static void end_message(wslay_event_context_ptr ctx,
                        const struct wslay_event_on_msg_recv_arg *message, void *arg)
{
    struct client_websocket *s = arg;

    (void)ctx;
    if (message->opcode != WSLAY_TEXT_FRAME || s->has_failed)
        return;
    s->has_failed =
        s->calls->on_text(s->arg, s->text.size > 0 ? (const char *)buffer_bytes(&s->text) : "",
                          s->text.size, s->e) != 0;
    buffer_consume(&s->text, s->text.size);
}

static int open_wslay(struct client_websocket *s, struct error *e)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = take_input,
        .send_callback = put_output,
        .genmask_callback = make_mask,
        .on_frame_recv_start_callback = begin_frame,
        .on_frame_recv_chunk_callback = take_chunk,
        .on_msg_recv_callback = end_message,
    };

    if (wslay_event_context_client_init(&s->wslay, &callbacks, s) != 0)
        return error_set(e, ERR_INTERNAL, "out of memory for a WebSocket");
    wslay_event_config_set_no_buffering(s->wslay, 1);
    return 0;
}

int client_websocket_open(struct client_websocket *s, struct client *c, const char *target,
                          const struct client_websocket_calls *calls, void *arg, struct error *e)
{
    char key[WEBSOCKET_KEY_BYTES] = "";
    uint8_t nonce[16];
    const struct client_request request = {.method = "GET", .target = target, .websocket_key = key};

    *s = (struct client_websocket){
        .client = c, .calls = calls, .arg = arg, .text = BUFFER_INIT(TEXT_MAX)};
    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        return error_errno(e, errno, "random bytes");
    base64_encode(nonce, sizeof(nonce), key);
    if (client_send(c, &request, e) != 0)
        return -1;
    return open_wslay(s, e);
}

void client_websocket_close(struct client_websocket *s)
{
    if (s->wslay != NULL)
        wslay_event_context_free(s->wslay);
    s->wslay = NULL;
    buffer_fini(&s->text);
}

static int flush_queue(struct client_websocket *s, struct error *e)
{
    if (wslay_event_send(s->wslay) != 0)
        return error_set(e, ERR_UNREACHABLE, "nothing more can be sent to the daemon");
    return 0;
}

int client_websocket_receive(struct client_websocket *s, struct error *e)
{
    s->e = e;
    int result = wslay_event_recv(s->wslay);
    s->e = NULL;
    if (s->has_failed)
        return -1;
    if (result != 0 || !wslay_event_get_read_enabled(s->wslay))
        s->is_over = true;
    return flush_queue(s, e); /* pongs */
}

static int send_message(struct client_websocket *s, uint8_t opcode, const void *data, size_t size,
                        struct error *e)
{
    const struct wslay_event_msg message = {.opcode = opcode, .msg = data, .msg_length = size};

    if (wslay_event_queue_msg(s->wslay, &message) == WSLAY_ERR_NOMEM)
        return error_set(e, ERR_INTERNAL, "out of memory for a message");
    return flush_queue(s, e);
}

int client_websocket_send_bytes(struct client_websocket *s, const void *data, size_t size,
                                struct error *e)
{
    return send_message(s, WSLAY_BINARY_FRAME, data, size, e);
}

int client_websocket_send_text(struct client_websocket *s, const char *text, size_t size,
                               struct error *e)
{
    return send_message(s, WSLAY_TEXT_FRAME, text, size, e);
}

int client_websocket_send_close(struct client_websocket *s, struct error *e)
{
    (void)wslay_event_queue_close(s->wslay, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0);
    return flush_queue(s, e);
}

bool client_websocket_is_behind(const struct client_websocket *s)
{
    return wslay_event_want_write(s->wslay);
}
