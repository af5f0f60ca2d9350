/*
 * A WebSocket from its handshake on: frames of a client that keeps the rules, bytes of one that
 * does not, and an owner that sends, pauses and closes, in any order, over an exchange that is none
 * (fake_exchange.h).
 * Properties: the answer to a handshake that is taken proves the key; what goes out are frames that
 * a client must take, with the owner's messages whole and in order; the owner hears the binary
 * bytes and texts of well-formed frames, the same and in order, as long as that lasts; no call
 * comes from inside another, none after the end, and one end comes.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/utf8.h"
#include "base/wire.h"
#include "daemon/server/websocket.h"
#include "http/websocket.h"
#include "tests/fuzz/fake_exchange.h"

#define STEPS_MAX  64u
#define BUFFER_MAX (8 * MIB)

enum { CONTINUATION, TEXT, BINARY, CLOSE = 8, PING, PONG };

/* --- The owner ----------------------------------------------------------------------------------
 */

enum reaction { REACT_ECHO = 1, REACT_PAUSE = 2, REACT_CLOSE = 4 };

/* Messages are noted as opcode, u32 size, bytes; bytes of binary ones as they are. */
static struct {
    struct websocket *socket;
    unsigned reactions;
    bool is_inside; /* a call into the WebSocket that may not call back */
    bool has_closed;
    unsigned closes;
    struct buffer bytes, texts; /* heard */
    struct buffer sent;
} owner;

/* What a client that keeps the rules has said so far. */
static struct {
    enum { LAWFUL, ENDED, LAWLESS } state; /* ENDED: what it says from now on is heard by nobody */
    struct buffer bytes, texts;
    struct buffer pending; /* not given to the WebSocket yet */
} client;

static void note(struct buffer *to, uint8_t opcode, const void *data, size_t size)
{
    const uint32_t length = (uint32_t)size;
    int failed = buffer_append(to, &opcode, 1);

    failed |= buffer_append(to, &length, sizeof(length));
    failed |= buffer_append(to, data, size);
    assert(failed == 0);
}

static void check_heard(void)
{
    assert(!owner.is_inside && !owner.has_closed && owner.closes == 0);
}

static void owner_send(uint8_t opcode, const void *data, size_t size)
{
    if (!fake_exchange.is_over && !owner.has_closed)
        note(&owner.sent, opcode, data, size);
    owner.is_inside = true;
    if (opcode == TEXT)
        websocket_send_text(owner.socket, data, size);
    else
        websocket_send_bytes(owner.socket, data, size);
    owner.is_inside = false;
}

static void owner_close(void)
{
    owner.is_inside = true;
    websocket_close(owner.socket, WEBSOCKET_NORMAL, "over");
    owner.is_inside = false;
    owner.has_closed = true;
}

static void owner_pause(bool is_paused)
{
    owner.is_inside = true;
    if (is_paused)
        websocket_pause(owner.socket);
    else
        websocket_resume(owner.socket);
    owner.is_inside = false;
    assert(!is_paused || fake_exchange.is_paused || fake_exchange.is_over);
}

static void on_bytes(void *arg, const uint8_t *data, size_t size)
{
    assert(arg == &owner && size > 0);
    check_heard();
    int failed = buffer_append(&owner.bytes, data, size);
    assert(failed == 0);
    if (owner.reactions & REACT_ECHO)
        owner_send(BINARY, data, size);
    if (owner.reactions & REACT_PAUSE)
        owner_pause(true);
}

static void on_text(void *arg, const char *text, size_t size)
{
    assert(arg == &owner && size <= WEBSOCKET_TEXT_MAX && utf8_valid(text, size));
    check_heard();
    note(&owner.texts, TEXT, text, size);
    if (owner.reactions & REACT_CLOSE)
        owner_close();
}

static void on_room(void *arg)
{
    assert(arg == &owner);
    check_heard();
    assert(fake_exchange.queued <= HTTP_REPLY_QUEUE_LOW);
}

static void on_close(void *arg)
{
    assert(arg == &owner && !owner.is_inside && fake_exchange.is_over);
    owner.closes++;
}

/* --- The client ---------------------------------------------------------------------------------
 */

static void check_lawful(void)
{
    const struct {
        const struct buffer *heard, *said;
    } both[] = {{&owner.bytes, &client.bytes}, {&owner.texts, &client.texts}};

    for (size_t i = 0; client.state != LAWLESS && i < 2; i++) {
        size_t size = both[i].heard->size;

        assert(size <= both[i].said->size);
        assert(size == 0 ||
               memcmp(buffer_bytes(both[i].heard), buffer_bytes(both[i].said), size) == 0);
        /* All was heard, where nothing waits and nobody has ended it. */
        if (client.state == LAWFUL && client.pending.size == 0 && !fake_exchange.is_over &&
            !owner.has_closed)
            assert(size == both[i].said->size);
    }
}

/* Gives on what waits, as long as it is taken. */
static void feed(size_t piece)
{
    while (client.pending.size > 0 && !fake_exchange.is_paused && !fake_exchange.is_over) {
        uint8_t bytes[HTTP_UPGRADED_PIECE];
        size_t size = client.pending.size < piece     ? client.pending.size
                      : client.pending.size > 4 * KIB ? sizeof(bytes) - piece % 64
                                                      : piece;

        memcpy(bytes, buffer_bytes(&client.pending), size);
        buffer_consume(&client.pending, size);
        fake_exchange.on_data(&fake_exchange, bytes, size);
    }
    check_lawful();
}

static void put_frame(uint8_t first, const uint8_t *data, size_t size)
{
    uint8_t header[8] = {first, (uint8_t)(0x80 | (size < 126 ? size : 126))};
    size_t used = 2;

    if (size >= 126) {
        header[used++] = (uint8_t)(size >> 8);
        header[used++] = (uint8_t)size;
    }
    const uint8_t mask[4] = {0x12, 0x34, (uint8_t)size, first};
    int failed = buffer_append(&client.pending, header, used);
    failed |= buffer_append(&client.pending, mask, sizeof(mask));
    uint8_t *to = buffer_reserve(&client.pending, size);
    assert(failed == 0 && to != NULL);
    for (size_t i = 0; i < size; i++)
        to[i] = data[i] ^ mask[i % 4];
    buffer_commit(&client.pending, size);
}

/* A message that may be, in one frame or in two with a ping between. */
static void step_message(struct wire_reader *r)
{
    static const uint8_t opcodes[] = {TEXT, BINARY, BINARY, PING, PONG, CLOSE, TEXT, BINARY};
    static uint8_t bytes[64 * UINT8_MAX];
    uint8_t kind = wire_get_u8(r), opcode = opcodes[kind % 8];
    size_t size = wire_get_u8(r), part = wire_get_u8(r);

    part = part < r->left ? part : r->left;
    const uint8_t *given = wire_get_bytes(r, part);
    if (opcode < CLOSE && (kind & 0x40) != 0)
        size *= 64; /* beyond what 7 bits of length can say, and a text may have */
    else if (opcode >= CLOSE)
        size %= 126;
    memset(bytes, 'x', size);
    if (given != NULL)
        memcpy(bytes, given, part < size ? part : size);
    if (opcode == CLOSE ||
        (opcode == TEXT && (size > WEBSOCKET_TEXT_MAX || !utf8_valid((const char *)bytes, size))))
        client.state = client.state == LAWFUL ? ENDED : client.state;
    if (client.state == LAWFUL && opcode == TEXT)
        note(&client.texts, TEXT, bytes, size);
    if (client.state == LAWFUL && opcode == BINARY) {
        int failed = buffer_append(&client.bytes, bytes, size);
        assert(failed == 0);
    }
    if (opcode < CLOSE && (kind & 0x80) != 0) {
        put_frame(opcode, bytes, size / 2);
        put_frame(0x80 | PING, bytes, size < 20 ? size : 20);
        put_frame(0x80 | CONTINUATION, bytes + size / 2, size - size / 2);
    } else {
        put_frame(0x80 | opcode, bytes, size);
    }
}

static void step_noise(struct wire_reader *r)
{
    size_t size = wire_get_u8(r);

    size = size < r->left ? size : r->left;
    const uint8_t *bytes = wire_get_bytes(r, size);
    if (bytes == NULL)
        return;
    client.state = LAWLESS;
    int failed = buffer_append(&client.pending, bytes, size);
    assert(failed == 0);
}

/* Takes `size` bytes of what was written. */
static void step_drain(size_t size)
{
    if (fake_exchange.queued == 0)
        return;
    fake_exchange.queued -= size < fake_exchange.queued ? size : fake_exchange.queued;
    if (fake_exchange.queued <= HTTP_REPLY_QUEUE_LOW)
        fake_exchange.on_drain(&fake_exchange);
}

/* Whether what the client has said is on its way now; else more will come with it. */
static bool step(struct wire_reader *r)
{
    static const uint8_t zeros[UINT16_MAX];
    uint8_t kind = wire_get_u8(r), value;

    switch (kind % 10) {
    case 0:
    case 1:
    case 2:
        step_message(r);
        break;
    case 3:
        step_noise(r);
        break;
    case 4:
        value = wire_get_u8(r);
        owner_send(kind & 0x10 ? TEXT : BINARY, zeros, kind & 0x20 ? value * 257u : value);
        break;
    case 5:
        owner_pause(true);
        break;
    case 6:
        owner_pause(false);
        break;
    case 7:
        value = wire_get_u8(r);
        step_drain(value == 0xff ? SIZE_MAX : value * 1024u);
        break;
    case 8:
        owner_close();
        break;
    default: /* much, of a client that takes nothing */
        for (unsigned i = 0; i < 4; i++)
            owner_send(BINARY, zeros, UINT16_MAX);
    }
    return kind < 0x80;
}

/* --- What has gone out --------------------------------------------------------------------------
 */

/* A frame off the front of `b`, whose content is left in place; false where it is not whole. */
static bool take_frame(struct buffer *b, uint8_t *ret_first, size_t *ret_size)
{
    const uint8_t *at = buffer_bytes(b);
    size_t header = 2, size;

    if (b->size < header)
        return false;
    assert(at[1] < 0x80); /* a server does not mask */
    size = at[1];
    if (size >= 126) {
        header = size == 126 ? 4 : 10;
        if (b->size < header)
            return false;
        size = 0;
        for (size_t i = 2; i < header; i++)
            size = size << 8 | at[i];
        assert(size >= (header == 4 ? 126 : 65536));
    }
    if (b->size - header < size)
        return false;
    *ret_first = at[0];
    *ret_size = size;
    buffer_consume(b, header);
    return true;
}

static void check_sent(uint8_t opcode, const uint8_t *data, size_t size)
{
    const uint8_t *at = buffer_bytes(&owner.sent);
    uint32_t length;

    assert(owner.sent.size >= 1 + sizeof(length) && at[0] == opcode);
    memcpy(&length, at + 1, sizeof(length));
    assert(length == size);
    assert(size == 0 || memcmp(at + 1 + sizeof(length), data, size) == 0);
    buffer_consume(&owner.sent, 1 + sizeof(length) + size);
}

static void check_wire(void)
{
    struct buffer *b = &fake_exchange.wire;
    uint8_t first;
    size_t size;
    bool is_closed = false;

    while (take_frame(b, &first, &size)) {
        const uint8_t *data = buffer_bytes(b);

        assert(!is_closed && (first & 0xf0) == 0x80);
        switch (first & 0x0f) {
        case TEXT:
        case BINARY:
            check_sent(first & 0x0f, data, size);
            break;
        case CLOSE:
            assert(size == 0 || (size >= 2 && size <= 125));
            is_closed = true;
            break;
        default:
            assert((first & 0x0f) == PONG && size <= 125);
        }
        buffer_consume(b, size);
    }
}

/* --- The course of it ---------------------------------------------------------------------------
 */

/* A client of ours takes the answer, and none to another key. */
static void check_answer(const char *key)
{
    char text[FAKE_HEADERS_MAX + 128], other[] = "AAAAAAAAAAAAAAAAAAAAAA==";
    struct error e = ERROR_INIT;
    struct http_head head;
    size_t scanned = 0;
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                     "Upgrade: websocket\r\n%s\r\n",
                     fake_exchange.headers);
    enum http_result result = http_response_parse(text, (size_t)n, &scanned, HTTP_GET, &head, &e);
    assert(result == HTTP_DONE);
    /* RFC 6455 1.3 */
    if (strcmp(key, "dGhlIHNhbXBsZSBub25jZQ==") == 0)
        assert(strstr(text, ": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") != NULL);
    int ours = websocket_response_check(&head, key, &e);
    assert(ours == 0);
    int theirs = websocket_response_check(&head, other, &e);
    assert(theirs == -1 || strcmp(key, other) == 0);
}

static void run(struct wire_reader *r, size_t piece)
{
    for (unsigned i = 0; i < STEPS_MAX && r->left > 0 && !r->bad && !fake_exchange.is_over; i++) {
        if (step(r))
            feed(piece);
    }
    feed(piece);
    if (!fake_exchange.is_over)
        fake_exchange.on_end(&fake_exchange, NULL);
    assert(fake_exchange.is_over);
    fake_exchange.on_close(&fake_exchange);
    assert(owner.closes == 1);
    check_wire();
}

static void reset(void)
{
    struct buffer *buffers[] = {&owner.bytes,  &owner.texts,    &owner.sent,        &client.bytes,
                                &client.texts, &client.pending, &fake_exchange.wire};

    memset(&fake_exchange, 0, sizeof(fake_exchange));
    memset(&owner, 0, sizeof(owner));
    memset(&client, 0, sizeof(client));
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        *buffers[i] = (struct buffer)BUFFER_INIT(BUFFER_MAX);
}

static void release(void)
{
    buffer_fini(&owner.bytes);
    buffer_fini(&owner.texts);
    buffer_fini(&owner.sent);
    buffer_fini(&client.bytes);
    buffer_fini(&client.texts);
    buffer_fini(&client.pending);
    buffer_fini(&fake_exchange.wire);
}

static void fuzz(const char *text, size_t size, struct wire_reader *steps)
{
    static const struct websocket_calls calls = {
        .on_bytes = on_bytes, .on_text = on_text, .on_room = on_room, .on_close = on_close};
    struct error e = ERROR_INIT;
    char key[WEBSOCKET_KEY_BYTES];
    size_t scanned = 0;
    int rc = uv_loop_init(&fake_exchange.loop);

    assert(rc == 0);
    owner.reactions = wire_get_u8(steps);
    size_t piece = 1 + wire_get_u8(steps) * 16u;
    if (http_request_parse(text, size, &scanned, &fake_exchange.head, &e) == HTTP_DONE) {
        int is_fine = websocket_request_check(&fake_exchange.head, key, &e);
        rc = websocket_accept(&fake_exchange, 0, &calls, &owner, &owner.socket, &e);
        assert(rc == is_fine && fake_exchange.is_upgraded == (rc == 0));
        if (rc == 0) {
            check_answer(key);
            run(steps, piece);
        } else {
            assert(e.code == ERR_UPGRADE_REQUIRED || e.code == ERR_BAD_REQUEST);
        }
    }
    (void)uv_run(&fake_exchange.loop, UV_RUN_DEFAULT);
    rc = uv_loop_close(&fake_exchange.loop);
    assert(rc == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char good[] = "GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
                               "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    struct wire_reader r;

    reset();
    wire_reader_init(&r, data, size);
    size_t head_size = wire_get_u16(&r);
    const char *head = (const char *)wire_get_bytes(&r, head_size);
    if (!r.bad && head_size > 0)
        fuzz(head, head_size, &r);
    else if (!r.bad)
        fuzz(good, sizeof(good) - 1, &r);
    release();
    return 0;
}
