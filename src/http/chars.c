#include "http/chars.h"

#include <string.h>
#include <strings.h>

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

bool http_is_tchar(char c)
{
    return is_alnum(c) || is_one_of(c, "!#$%&'*+-.^_`|~");
}

bool http_is_target_char(char c)
{
    return is_alnum(c) || is_one_of(c, "-._~%!$&'()*+,;=:@/?[]");
}

bool http_is_unreserved(char c)
{
    return is_alnum(c) || is_one_of(c, "-._~");
}

bool http_is_control(char c)
{
    return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

int http_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

struct http_span http_span_trim(struct http_span s)
{
    while (s.size > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.size--;
    }
    while (s.size > 0 && (s.data[s.size - 1] == ' ' || s.data[s.size - 1] == '\t'))
        s.size--;
    return s;
}

bool http_span_is(struct http_span s, const char *text)
{
    return s.size == strlen(text) && strncasecmp(s.data, text, s.size) == 0;
}

bool http_is_token(struct http_span s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (!http_is_tchar(s.data[i]))
            return false;
    }
    return s.size > 0;
}

bool http_list_next(struct http_span *list, struct http_span *ret_element)
{
    while (list->size > 0) {
        const char *comma = memchr(list->data, ',', list->size);
        size_t size = comma != NULL ? (size_t)(comma - list->data) : list->size;
        size_t taken = comma != NULL ? size + 1 : size;
        struct http_span element = http_span_trim((struct http_span){list->data, size});

        list->data += taken;
        list->size -= taken;
        if (element.size > 0) {
            *ret_element = element;
            return true;
        }
    }
    return false;
}
