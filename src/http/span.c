#include "http/span.h"

#include <string.h>
#include <strings.h>

#include "http/chars.h"

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
