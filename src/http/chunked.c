#include "http/chunked.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "http/chars.h"

/* Where in the coding the next byte is. */
enum state {
    SIZE,      /* a digit, ';' or CR */
    EXTENSION, /* skipped up to CR */
    SIZE_LF,
    DATA,
    DATA_CR, /* behind a chunk's data */
    DATA_LF,
    LAST_CR, /* behind the line of the last chunk: the empty line, and no trailer */
    LAST_LF,
    COMPLETE
};

#define SIZE_DIGITS_MAX 16u

void http_chunked_init(struct http_chunked *c)
{
    *c = (struct http_chunked){.state = SIZE};
}

static int bad(struct error *e, const char *what)
{
    return error_set(e, ERR_BAD_REQUEST, "malformed chunked body: %s", what);
}

/* The end of a size line has been reached. */
static int size_line_end(struct http_chunked *c, struct error *e)
{
    if (c->digits == 0)
        return bad(e, "a chunk without a size");
    c->state = SIZE_LF;
    return 0;
}

static int step_size(struct http_chunked *c, char byte, struct error *e)
{
    int digit = http_hex_digit(byte);

    if (byte == '\r')
        return size_line_end(c, e);
    if (byte == ';' && c->digits > 0) {
        c->state = EXTENSION;
        return 0;
    }
    if (digit < 0)
        return bad(e, "a chunk size that is not a hexadecimal number");
    if (c->digits == SIZE_DIGITS_MAX || c->left > (uint64_t)INT64_MAX >> 4)
        return bad(e, "a chunk size that is too large");
    c->left = c->left << 4 | (uint64_t)digit;
    c->digits++;
    return 0;
}

static int expect(struct http_chunked *c, char byte, char wanted, enum state next, struct error *e)
{
    if (byte != wanted)
        return bad(e, c->state == LAST_CR ? "trailers are not taken"
                                          : "a line that does not end in CR LF");
    c->state = (uint8_t)next;
    return 0;
}

/* One byte of the framing. */
static int step(struct http_chunked *c, char byte, struct error *e)
{
    switch ((enum state)c->state) {
    case SIZE:
    case EXTENSION:
        if (++c->line_bytes > HTTP_CHUNK_LINE_MAX)
            return bad(e, "a chunk's size line that is too long");
        if (c->state == SIZE)
            return step_size(c, byte, e);
        if (byte == '\r')
            return size_line_end(c, e);
        return http_is_control(byte) ? bad(e, "a control character in a chunk extension") : 0;
    case SIZE_LF:
        c->line_bytes = 0;
        c->digits = 0;
        return expect(c, byte, '\n', c->left > 0 ? DATA : LAST_CR, e);
    case DATA_CR:
        return expect(c, byte, '\r', DATA_LF, e);
    case DATA_LF:
        return expect(c, byte, '\n', SIZE, e);
    case LAST_CR:
        return expect(c, byte, '\r', LAST_LF, e);
    case LAST_LF:
        return expect(c, byte, '\n', COMPLETE, e);
    case DATA:
    case COMPLETE:
        break;
    }
    assert(!"no framing byte here");
    return -1;
}

enum http_result http_chunked_decode(struct http_chunked *c, const char *data, size_t size,
                                     size_t *ret_used, struct http_span *ret_body, struct error *e)
{
    struct http_span body = {data, 0};
    size_t at = 0;

    while (at < size && c->state != COMPLETE) {
        if (c->state != DATA) {
            if (step(c, data[at], e) != 0)
                return HTTP_BAD;
            at++;
            continue;
        }
        body = (struct http_span){data + at, size - at};
        if (body.size > c->left)
            body.size = (size_t)c->left;
        at += body.size;
        c->left -= body.size;
        if (c->left == 0)
            c->state = DATA_CR;
        break;
    }
    *ret_used = at;
    *ret_body = body;
    return c->state == COMPLETE ? HTTP_DONE : HTTP_MORE;
}

int http_chunk_append(struct buffer *b, const void *data, size_t size)
{
    char line[HTTP_CHUNK_OVERHEAD];
    int length = snprintf(line, sizeof(line), "%zx\r\n", size);

    assert(size > 0);
    /* Room for all of it first, so that a chunk is never appended in part. */
    if (size > SIZE_MAX - HTTP_CHUNK_OVERHEAD ||
        buffer_reserve(b, size + HTTP_CHUNK_OVERHEAD) == NULL)
        return -1;
    if (buffer_append(b, line, (size_t)length) != 0 || buffer_append(b, data, size) != 0 ||
        buffer_append(b, "\r\n", 2) != 0)
        return -1;
    return 0;
}
