/*
 * A head is looked at in two steps. The scan goes once over the bytes as they come: it refuses
 * control characters and every CR or LF that is not a CR LF pair, and finds the empty line. When
 * the head is whole, its lines are taken apart; by then all line ends are known to be good.
 */
#include <stddef.h>
#include <string.h>

#include "http/chars.h"
#include "http/head.h"
#include "http/head_judge.h"

#define METHOD_BYTES_MAX 32u
#define VERSION_BYTES    8u /* "HTTP/1.1" */

static const char *const method_names[] = {
    [HTTP_GET] = "GET",         [HTTP_HEAD] = "HEAD",       [HTTP_POST] = "POST",
    [HTTP_PUT] = "PUT",         [HTTP_PATCH] = "PATCH",     [HTTP_DELETE] = "DELETE",
    [HTTP_OPTIONS] = "OPTIONS", [HTTP_CONNECT] = "CONNECT", [HTTP_TRACE] = "TRACE",
};

static int bad(struct error *e, const char *what)
{
    return error_set(e, ERR_BAD_REQUEST, "malformed HTTP message: %s", what);
}

static enum http_result scan(const char *data, size_t size, size_t *scanned, size_t *ret_end,
                             struct error *e)
{
    size_t limit = size < HTTP_HEAD_BYTES_MAX ? size : HTTP_HEAD_BYTES_MAX;
    size_t at = *scanned;

    for (; at < limit; at++) {
        if (data[at] == '\r') {
            if (at + 1 == limit)
                break;
            if (data[at + 1] != '\n')
                return bad(e, "a carriage return without a line feed"), HTTP_BAD;
            if (at == 0)
                return bad(e, "an empty line in place of the start line"), HTTP_BAD;
            if (data[at - 1] == '\n') {
                *ret_end = at + 2;
                return HTTP_DONE;
            }
            at++;
        } else if (data[at] == '\n') {
            return bad(e, "a line feed without a carriage return"), HTTP_BAD;
        } else if (http_is_control(data[at])) {
            return bad(e, "a control character in the head"), HTTP_BAD;
        }
    }
    *scanned = at;
    if (size < HTTP_HEAD_BYTES_MAX)
        return HTTP_MORE;
    error_set(e, ERR_HEADER_TOO_LARGE, "the head of the message is larger than %u bytes",
              (unsigned)HTTP_HEAD_BYTES_MAX);
    return HTTP_BAD;
}

/* Takes the next line, without its CR LF, off the front of what the scan has passed. */
static struct http_span take_line(struct http_span *rest)
{
    const char *end = memchr(rest->data, '\r', rest->size);
    struct http_span line = {rest->data, (size_t)(end - rest->data)};

    rest->data += line.size + 2;
    rest->size -= line.size + 2;
    return line;
}

/* Splits at the first space; false when there is none. */
static bool take_word(struct http_span *rest, struct http_span *ret_word)
{
    const char *space = memchr(rest->data, ' ', rest->size);

    if (space == NULL)
        return false;
    *ret_word = (struct http_span){rest->data, (size_t)(space - rest->data)};
    rest->size -= ret_word->size + 1;
    rest->data = space + 1;
    return true;
}

static int parse_version(struct http_span s, int *ret_minor, struct error *e)
{
    if (s.size != VERSION_BYTES || memcmp(s.data, "HTTP/", 5) != 0 || s.data[5] < '0' ||
        s.data[5] > '9' || s.data[6] != '.' || s.data[7] < '0' || s.data[7] > '9')
        return bad(e, "the HTTP version cannot be read");
    if (s.data[5] != '1' || s.data[7] > '1') {
        error_set(e, ERR_HTTP_VERSION, "HTTP/%c.%c is not spoken here", s.data[5], s.data[7]);
        return error_remedy(e, "use HTTP/1.1");
    }
    *ret_minor = s.data[7] - '0';
    return 0;
}

static bool is_absolute(struct http_span t)
{
    size_t i = 0;

    while (i < t.size && (http_is_unreserved(t.data[i]) || t.data[i] == '+'))
        i++;
    return i > 0 && t.size > i + 3 && memcmp(t.data + i, "://", 3) == 0;
}

static int parse_target(struct http_head *h, struct error *e)
{
    struct http_span t = h->target;

    if (t.size > HTTP_TARGET_BYTES_MAX)
        return error_set(e, ERR_HEADER_TOO_LARGE, "the request target is longer than %u bytes",
                         (unsigned)HTTP_TARGET_BYTES_MAX);
    for (size_t i = 0; i < t.size; i++) {
        if (!http_is_target_char(t.data[i]))
            return bad(e, "a character in the request target that must be percent-encoded");
    }
    if (h->method == HTTP_CONNECT) {
        h->form = HTTP_FORM_AUTHORITY;
        return http_host_valid(t, true) ? 0 : bad(e, "CONNECT needs a target host:port");
    }
    if (t.size > 0 && t.data[0] == '/')
        h->form = HTTP_FORM_ORIGIN;
    else if (t.size == 1 && t.data[0] == '*' && h->method == HTTP_OPTIONS)
        h->form = HTTP_FORM_ASTERISK;
    else if (is_absolute(t))
        h->form = HTTP_FORM_ABSOLUTE;
    else
        return bad(e, "the request target is neither a path nor a URI");
    return 0;
}

static int parse_request_line(struct http_head *h, struct http_span line, struct error *e)
{
    if (!take_word(&line, &h->method_name) || !take_word(&line, &h->target))
        return bad(e, "the request line is not \"method target version\"");
    if (!http_is_token(h->method_name) || h->method_name.size > METHOD_BYTES_MAX)
        return bad(e, "the method is not a token");
    if (parse_version(line, &h->minor_version, e) != 0)
        return -1;
    h->method = HTTP_GET;
    while (h->method < HTTP_OTHER &&
           (strlen(method_names[h->method]) != h->method_name.size ||
            memcmp(method_names[h->method], h->method_name.data, h->method_name.size) != 0))
        h->method++;
    return parse_target(h, e);
}

static int parse_status_line(struct http_head *h, struct http_span line, struct error *e)
{
    struct http_span version, status;

    if (!take_word(&line, &version) || !take_word(&line, &status))
        return bad(e, "the status line is not \"version status reason\"");
    if (parse_version(version, &h->minor_version, e) != 0)
        return -1;
    if (status.size != 3)
        return bad(e, "the status has not three digits");
    for (size_t i = 0; i < 3; i++) {
        if (status.data[i] < '0' || status.data[i] > '9')
            return bad(e, "the status has not three digits");
        h->status = h->status * 10 + (status.data[i] - '0');
    }
    if (h->status < 100 || h->status > 599)
        return bad(e, "the status is not within 100 and 599");
    return 0; /* the reason is for people; nobody here reads it */
}

static int parse_headers(struct http_head *h, struct http_span rest, struct error *e)
{
    for (;;) {
        struct http_span line = take_line(&rest);

        if (line.size == 0)
            return 0;
        if (h->header_count == HTTP_HEADERS_MAX)
            return error_set(e, ERR_HEADER_TOO_LARGE, "more than %u headers", HTTP_HEADERS_MAX);
        if (line.data[0] == ' ' || line.data[0] == '\t')
            return bad(e, "a header line that is folded or begins with white space");
        const char *colon = memchr(line.data, ':', line.size);
        if (colon == NULL)
            return bad(e, "a header line without a colon");
        struct http_header *header = &h->headers[h->header_count];
        header->name = (struct http_span){line.data, (size_t)(colon - line.data)};
        if (!http_is_token(header->name))
            return bad(e, "a header name that is not a token (or a space before the colon)");
        header->value =
            http_span_trim((struct http_span){colon + 1, line.size - header->name.size - 1});
        h->header_count++;
    }
}

static enum http_result parse(const char *data, size_t size, size_t *scanned, bool is_response,
                              enum http_method method, struct http_head *ret_head, struct error *e)
{
    size_t end = 0;
    enum http_result result = scan(data, size, scanned, &end, e);

    if (result != HTTP_DONE)
        return result;
    /* Filled apart: a failure leaves the output untouched. */
    struct http_head h;
    memset(&h, 0, offsetof(struct http_head, headers));
    h.size = end;
    h.is_response = is_response;
    struct http_span rest = {data, end};
    struct http_span line = take_line(&rest);
    if ((is_response ? parse_status_line(&h, line, e) : parse_request_line(&h, line, e)) != 0 ||
        parse_headers(&h, rest, e) != 0 ||
        http_head_judge(&h, is_response ? method : h.method, e) != 0)
        return HTTP_BAD;
    memcpy(ret_head, &h,
           offsetof(struct http_head, headers) + h.header_count * sizeof(h.headers[0]));
    return HTTP_DONE;
}

enum http_result http_request_parse(const char *data, size_t size, size_t *scanned,
                                    struct http_head *ret_head, struct error *e)
{
    return parse(data, size, scanned, false, HTTP_OTHER, ret_head, e);
}

enum http_result http_response_parse(const char *data, size_t size, size_t *scanned,
                                     enum http_method method, struct http_head *ret_head,
                                     struct error *e)
{
    return parse(data, size, scanned, true, method, ret_head, e);
}
