/*
 * What the header fields say about the message: where its body ends, whether the connection lives
 * on. RFC 9112 6.3 lists the cases; where it lets a recipient choose between repair and refusal,
 * we refuse, since another parser on the way may have chosen the other repair (request smuggling).
 */
#include "http/head_judge.h"

#include "http/chars.h"

/* What is gathered while going over the fields. */
struct judgement {
    struct http_head *head;
    bool has_length;
    bool has_coding;
    bool close;
    unsigned seen; /* bits of the table's rows */
};

static int bad(struct error *e, const char *what)
{
    return error_set(e, ERR_BAD_REQUEST, "malformed HTTP message: %s", what);
}

/* uri-host of a name: what real names are made of, not all that RFC 3986 has in reg-name. */
static bool is_host_char(char c)
{
    return http_is_unreserved(c);
}

bool http_host_valid(struct http_span s, bool port_required)
{
    size_t at = 0;

    if (s.size > 0 && s.data[0] == '[') {
        for (at = 1; at < s.size && s.data[at] != ']'; at++) {
            if (http_hex_digit(s.data[at]) < 0 && s.data[at] != ':' && s.data[at] != '.')
                return false;
        }
        if (at < 3 || at == s.size)
            return false;
        at++;
    } else {
        while (at < s.size && is_host_char(s.data[at]))
            at++;
        if (at == 0)
            return false;
    }
    if (at == s.size)
        return !port_required;
    if (s.data[at] != ':' || at + 1 == s.size || s.size - at - 1 > 5)
        return false;
    unsigned port = 0;
    for (at++; at < s.size; at++) {
        if (s.data[at] < '0' || s.data[at] > '9')
            return false;
        port = port * 10 + (unsigned)(s.data[at] - '0');
    }
    return port <= 65535;
}

static int on_host(struct judgement *j, struct http_span value, struct error *e)
{
    if (j->head->is_response)
        return 0;
    if (!http_host_valid(value, false))
        return bad(e, "the Host header is not a host");
    j->head->host = value;
    return 0;
}

static int on_length(struct judgement *j, struct http_span value, struct error *e)
{
    uint64_t length = 0;

    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return bad(e, "Content-Length is not a plain decimal number");
        if (__builtin_mul_overflow(length, UINT64_C(10), &length) ||
            __builtin_add_overflow(length, (uint64_t)(value.data[i] - '0'), &length) ||
            length > INT64_MAX)
            return bad(e, "Content-Length is too large for any body");
    }
    /* One number has many spellings with zeroes in front; no sender needs more than these. */
    if (value.size == 0 || value.size > 19)
        return bad(e, "Content-Length has no or too many digits");
    j->has_length = true;
    j->head->content_length = length;
    return 0;
}

static int on_coding(struct judgement *j, struct http_span value, struct error *e)
{
    if (j->head->minor_version == 0)
        return bad(e, "Transfer-Encoding in HTTP/1.0");
    if (value.size == 0)
        return bad(e, "Transfer-Encoding is empty");
    if (!http_span_is(value, "chunked")) {
        error_set(e, ERR_NOT_IMPLEMENTED, "the transfer coding \"%.*s\" is not known",
                  value.size < 40 ? (int)value.size : 40, value.data);
        return error_remedy(e, "send the body with Content-Length or as chunked");
    }
    j->has_coding = true;
    return 0;
}

/* A Connection header may name fields for the next hop to drop; one that frames or routes the
 * message must not be among them. */
static int on_connection(struct judgement *j, struct http_span value, struct error *e)
{
    static const char *const kept[] = {"host", "content-length", "transfer-encoding"};
    struct http_span option;

    while (http_list_next(&value, &option)) {
        if (!http_is_token(option))
            return bad(e, "the Connection header holds what is not a token");
        for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
            if (http_span_is(option, kept[i]))
                return bad(e, "the Connection header names a field that frames the message");
        }
        j->close |= http_span_is(option, "close");
        j->head->upgrade |= http_span_is(option, "upgrade");
    }
    return 0;
}

static int on_expect(struct judgement *j, struct http_span value, struct error *e)
{
    if (j->head->is_response)
        return 0;
    if (!http_span_is(value, "100-continue"))
        return bad(e, "the Expect header asks for something other than 100-continue");
    /* RFC 9110 10.1.1: to be ignored in HTTP/1.0. */
    j->head->expect_continue = j->head->minor_version == 1;
    return 0;
}

#define ONCE_IN_REQUEST  1u
#define ONCE_IN_RESPONSE 2u
#define ONCE             (ONCE_IN_REQUEST | ONCE_IN_RESPONSE)

/* Fields with a meaning here, and fields of which a second one would leave open which counts. */
static const struct {
    const char *name;
    unsigned once;
    int (*judge)(struct judgement *j, struct http_span value, struct error *e);
} fields[] = {
    {"host", ONCE_IN_REQUEST, on_host},
    {"content-length", ONCE, on_length},
    {"transfer-encoding", ONCE, on_coding},
    {"connection", 0, on_connection},
    {"expect", ONCE_IN_REQUEST, on_expect},
    {"content-type", ONCE_IN_REQUEST, NULL},
    {"authorization", ONCE_IN_REQUEST, NULL},
    {"idempotency-key", ONCE_IN_REQUEST, NULL},
    {"x-request-id", ONCE_IN_REQUEST, NULL},
    {"request-timeout", ONCE_IN_REQUEST, NULL},
    {"sec-websocket-key", ONCE_IN_REQUEST, NULL},
    {"sec-websocket-version", ONCE_IN_REQUEST, NULL},
    {"sec-websocket-accept", ONCE_IN_RESPONSE, NULL},
};

static int judge_field(struct judgement *j, const struct http_header *header, struct error *e)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (!http_span_is(header->name, fields[i].name))
            continue;
        unsigned once = j->head->is_response ? ONCE_IN_RESPONSE : ONCE_IN_REQUEST;
        if ((fields[i].once & once) != 0 && (j->seen & 1u << i) != 0)
            return error_set(e, ERR_BAD_REQUEST, "malformed HTTP message: more than one %s header",
                             fields[i].name);
        j->seen |= 1u << i;
        return fields[i].judge != NULL ? fields[i].judge(j, header->value, e) : 0;
    }
    return 0;
}

static int judge_request(struct judgement *j, struct error *e)
{
    struct http_head *h = j->head;

    if (h->minor_version == 1 && h->host.size == 0)
        return bad(e, "no Host header");
    if ((h->method == HTTP_CONNECT || h->method == HTTP_TRACE) && (j->has_coding || j->has_length))
        return bad(e, "a body with a method that has none");
    h->framing = j->has_coding   ? HTTP_BODY_CHUNKED
                 : j->has_length ? HTTP_BODY_LENGTH
                                 : HTTP_BODY_NONE;
    h->expect_continue &= j->has_coding || h->content_length > 0;
    return 0;
}

static int judge_response(struct judgement *j, enum http_method method, struct error *e)
{
    struct http_head *h = j->head;
    bool never = h->status < 200 || h->status == 204;

    if (never && (j->has_coding || h->content_length > 0))
        return bad(e, "a body with a status that has none");
    if (never || h->status == 304 || method == HTTP_HEAD ||
        (method == HTTP_CONNECT && h->status < 300)) {
        h->framing = HTTP_BODY_NONE;
    } else {
        h->framing = j->has_coding   ? HTTP_BODY_CHUNKED
                     : j->has_length ? HTTP_BODY_LENGTH
                                     : HTTP_BODY_UNTIL_CLOSE;
    }
    h->keep_alive &= h->framing != HTTP_BODY_UNTIL_CLOSE;
    return 0;
}

int http_head_judge(struct http_head *h, enum http_method method, struct error *e)
{
    struct judgement j = {.head = h};

    _Static_assert(sizeof(fields) / sizeof(fields[0]) <= 32, "`seen` has 32 bits");
    for (size_t i = 0; i < h->header_count; i++) {
        if (judge_field(&j, &h->headers[i], e) != 0)
            return -1;
    }
    if (j.has_coding && j.has_length)
        return bad(e, "both Content-Length and Transfer-Encoding");
    /* HTTP/1.0 had keep-alive by habit, not by rule: such a connection is closed. */
    h->keep_alive = h->minor_version == 1 && !j.close;
    return h->is_response ? judge_response(&j, method, e) : judge_request(&j, e);
}
