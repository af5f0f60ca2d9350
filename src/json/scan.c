/*
 * cJSON takes more than JSON (numbers like 01 and 1., control characters in strings, any bytes at
 * all, white space that is none) and works by recursion. So this scan goes over the whole text
 * first, with a small stack of its own, and cJSON only ever sees texts that are JSON to the letter
 * (RFC 8259) and within our limits.
 */
#include "json/scan.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cloche/limits.h"

/* Nearer to the largest double, cJSON's rounding to 15 digits prints what is no double any more. */
#define NUMBER_MAX 1e308

/* What may come next. */
enum state { VALUE, FIRST_KEY, KEY, FIRST_ELEMENT, AFTER_VALUE };

struct scan {
    const char *text;
    size_t size;
    size_t at;
    size_t nodes;
    size_t depth;
    char open[JSON_DEPTH_MAX]; /* '{' or '[' of each level */
    struct error *e;
};

static int bad(struct scan *s, const char *what)
{
    return error_set(s->e, ERR_INVALID_JSON, "the JSON text is not valid at byte %zu: %s", s->at,
                     what);
}

/* The next byte, or -1 at the end (a NUL byte is 0, which nothing accepts). */
static int peek(const struct scan *s)
{
    return s->at < s->size ? (unsigned char)s->text[s->at] : -1;
}

static void skip_space(struct scan *s)
{
    while (peek(s) == ' ' || peek(s) == '\t' || peek(s) == '\n' || peek(s) == '\r')
        s->at++;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

/* Four hexadecimal digits; -1 when they are not there. */
static int32_t take_hex4(struct scan *s)
{
    int32_t value = 0;

    for (int i = 0; i < 4; i++) {
        int c = peek(s);
        int digit = is_digit(c)              ? c - '0'
                    : (c >= 'a' && c <= 'f') ? c - 'a' + 10
                    : (c >= 'A' && c <= 'F') ? c - 'A' + 10
                                             : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
        s->at++;
    }
    return value;
}

/* Behind the backslash. */
static int take_escape(struct scan *s)
{
    int c = peek(s);

    if (c < 0)
        return bad(s, "a string without an end");
    if (c == 0 || strchr("\"\\/bfnrtu", c) == NULL)
        return bad(s, "an unknown escape in a string");
    s->at++;
    if (c != 'u')
        return 0;
    int32_t unit = take_hex4(s);
    if (unit < 0)
        return bad(s, "\\u without four hexadecimal digits");
    if (unit == 0)
        return bad(s, "a NUL character in a string");
    if (unit >= 0xdc00 && unit <= 0xdfff)
        return bad(s, "half of a surrogate pair");
    if (unit < 0xd800 || unit > 0xdbff)
        return 0;
    if (peek(s) != '\\' || s->at + 1 >= s->size || s->text[s->at + 1] != 'u')
        return bad(s, "half of a surrogate pair");
    s->at += 2;
    int32_t low = take_hex4(s);
    return low >= 0xdc00 && low <= 0xdfff ? 0 : bad(s, "half of a surrogate pair");
}

/* From the opening quote to behind the closing one. */
static int take_string(struct scan *s)
{
    s->at++;
    for (;;) {
        int c = peek(s);

        if (c < 0)
            return bad(s, "a string without an end");
        if (c < 0x20)
            return bad(s, "a control character in a string");
        if (c == '"') {
            s->at++;
            return 0;
        }
        if (c == '\\') {
            s->at++;
            if (take_escape(s) != 0)
                return -1;
            continue;
        }
        size_t step = utf8_sequence(s->text + s->at, s->size - s->at);
        if (step == 0)
            return bad(s, "bytes that are not UTF-8");
        s->at += step;
    }
}

static bool take_digits(struct scan *s)
{
    size_t start = s->at;

    while (is_digit(peek(s)))
        s->at++;
    return s->at > start;
}

static int take_number(struct scan *s)
{
    size_t start = s->at;
    char number[JSON_NUMBER_BYTES_MAX + 1];

    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0')
        s->at++;
    else if (!take_digits(s))
        return bad(s, "no value here");
    if (peek(s) == '.') {
        s->at++;
        if (!take_digits(s))
            return bad(s, "a number without digits behind its point");
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        if (!take_digits(s))
            return bad(s, "a number without digits in its exponent");
    }
    size_t length = s->at - start;
    if (length > JSON_NUMBER_BYTES_MAX)
        return bad(s, "a number that is too long");
    memcpy(number, s->text + start, length);
    number[length] = '\0';
    return fabs(strtod(number, NULL)) <= NUMBER_MAX ? 0 : bad(s, "a number that is too large");
}

static int take_literal(struct scan *s)
{
    static const char *const literals[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        size_t length = strlen(literals[i]);

        if (s->size - s->at >= length && memcmp(s->text + s->at, literals[i], length) == 0) {
            s->at += length;
            return 0;
        }
    }
    return bad(s, "no value here");
}

static int take_value(struct scan *s, enum state *next)
{
    int c = peek(s);

    if (++s->nodes > JSON_NODES_MAX)
        return bad(s, "too many values");
    *next = AFTER_VALUE;
    if (c == '"')
        return take_string(s);
    if (c == '-' || is_digit(c))
        return take_number(s);
    if (c != '{' && c != '[')
        return take_literal(s);
    if (s->depth == JSON_DEPTH_MAX)
        return bad(s, "too many levels of objects and arrays");
    s->open[s->depth++] = (char)c;
    s->at++;
    *next = c == '{' ? FIRST_KEY : FIRST_ELEMENT;
    return 0;
}

static int take_key(struct scan *s, enum state *next)
{
    if (peek(s) != '"')
        return bad(s, "no key in quotes here");
    if (take_string(s) != 0)
        return -1;
    skip_space(s);
    if (peek(s) != ':')
        return bad(s, "no colon behind a key");
    s->at++;
    *next = VALUE;
    return 0;
}

/* A comma or the end of the innermost object or array. */
static int take_separator(struct scan *s, enum state *next)
{
    char open = s->open[s->depth - 1];
    int c = peek(s);

    if (c == ',') {
        *next = open == '{' ? KEY : VALUE;
    } else if (c == (open == '{' ? '}' : ']')) {
        s->depth--;
        *next = AFTER_VALUE;
    } else {
        return bad(s, open == '{' ? "neither a comma nor the end of the object"
                                  : "neither a comma nor the end of the array");
    }
    s->at++;
    return 0;
}

int json_scan(const char *text, size_t size, struct error *e)
{
    struct scan s = {.text = text, .size = size, .e = e};
    enum state state = VALUE;

    for (;;) {
        int result;

        skip_space(&s);
        if (state == AFTER_VALUE && s.depth == 0)
            break;
        if (state == AFTER_VALUE || (state == FIRST_KEY && peek(&s) == '}') ||
            (state == FIRST_ELEMENT && peek(&s) == ']'))
            result = take_separator(&s, &state);
        else if (state == KEY || state == FIRST_KEY)
            result = take_key(&s, &state);
        else
            result = take_value(&s, &state);
        if (result != 0)
            return -1;
    }
    return s.at == size ? 0 : bad(&s, "more text behind the value");
}
