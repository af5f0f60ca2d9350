#include "http/write.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "http/chars.h"
#include "http/span.h"

static const struct {
    int status;
    const char *text;
} statuses[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

const char *http_status_text(int status)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (statuses[i].status == status)
            return statuses[i].text;
    }
    return "Status";
}

int http_response_start(struct buffer *b, int status)
{
    assert(status >= 100 && status <= 599);
    return buffer_printf(b, "HTTP/1.1 %d %s\r\n", status, http_status_text(status));
}

int http_request_start(struct buffer *b, const char *method, const char *target)
{
    assert(http_is_token((struct http_span){method, strlen(method)}) && target[0] != '\0');
    for (const char *p = target; *p != '\0'; p++)
        assert(http_is_target_char(*p));
    return buffer_printf(b, "%s %s HTTP/1.1\r\n", method, target);
}

int http_header_put(struct buffer *b, const char *name, const char *value_format, ...)
{
    char value[HTTP_REPLY_HEADERS_MAX];
    va_list ap;

    va_start(ap, value_format);
    int length = vsnprintf(value, sizeof(value), value_format, ap);
    va_end(ap);
    if (length < 0 || (size_t)length >= sizeof(value))
        return -1;
    assert(http_is_token((struct http_span){name, strlen(name)}));
    for (const char *p = value; *p != '\0'; p++)
        assert(!http_is_control(*p));
    return buffer_printf(b, "%s: %s\r\n", name, value);
}

int http_head_end(struct buffer *b)
{
    return buffer_append(b, "\r\n", 2);
}
