#include "json/json_write.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/utf8.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

void json_writer_init(struct json_writer *w, struct buffer *out)
{
    *w = (struct json_writer){.out = out};
}

static void put(struct json_writer *w, const void *data, size_t size)
{
    if (!w->failed && buffer_append(w->out, data, size) != 0)
        w->failed = true;
}

/* The length of what can be copied as it is: neither an escape nor broken UTF-8. */
static size_t plain_run(const unsigned char *p, size_t size)
{
    size_t at = 0;

    while (at < size && p[at] >= 0x20 && p[at] != '"' && p[at] != '\\') {
        size_t step = p[at] < 0x80 ? 1 : utf8_sequence(p + at, size - at);

        if (step == 0)
            break;
        at += step;
    }
    return at;
}

static void put_escaped(struct json_writer *w, unsigned char c)
{
    static const char from[] = "\"\\\b\f\n\r\t";
    static const char to[] = "\"\\bfnrt";
    const char *known = c != '\0' ? strchr(from, c) : NULL;
    static const char hex[] = "0123456789abcdef";

    if (c >= 0x80) {
        put(w, REPLACEMENT, 3);
    } else if (known != NULL) {
        put(w, (const char[]){'\\', to[known - from]}, 2);
    } else {
        put(w, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
    }
}

static void put_string(struct json_writer *w, const void *data, size_t size)
{
    const unsigned char *p = data;

    put(w, "\"", 1);
    while (size > 0 && !w->failed) {
        size_t run = plain_run(p, size);

        put(w, p, run);
        p += run;
        size -= run;
        if (size > 0) {
            put_escaped(w, *p);
            p++;
            size--;
        }
    }
    put(w, "\"", 1);
}

/* Comma and key, and then a value follows. `suffix` is part of the key. */
static void put_key(struct json_writer *w, const char *key, const char *suffix)
{
    if (w->comma)
        put(w, ",", 1);
    w->comma = true;
    if (key == NULL)
        return;
    char name[128];
    int length = snprintf(name, sizeof(name), "%s%s", key, suffix);
    assert(length >= 0 && (size_t)length < sizeof(name));
    put_string(w, name, (size_t)length);
    put(w, ":", 1);
}

static void begin(struct json_writer *w, const char *key, const char *bracket)
{
    put_key(w, key, "");
    put(w, bracket, 1);
    w->comma = false;
}

static void end(struct json_writer *w, const char *bracket)
{
    put(w, bracket, 1);
    w->comma = true;
}

void json_begin_object(struct json_writer *w, const char *key)
{
    begin(w, key, "{");
}

void json_end_object(struct json_writer *w)
{
    end(w, "}");
}

void json_begin_array(struct json_writer *w, const char *key)
{
    begin(w, key, "[");
}

void json_end_array(struct json_writer *w)
{
    end(w, "]");
}

void json_put_text(struct json_writer *w, const char *key, const char *text)
{
    if (text == NULL) {
        json_put_null(w, key);
        return;
    }
    put_key(w, key, "");
    put_string(w, text, strlen(text));
}

static void put_word(struct json_writer *w, const char *key, const char *word)
{
    put_key(w, key, "");
    put(w, word, strlen(word));
}

void json_put_int(struct json_writer *w, const char *key, int64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRId64, value);
    put_word(w, key, text);
}

void json_put_bool(struct json_writer *w, const char *key, bool value)
{
    put_word(w, key, value ? "true" : "false");
}

void json_put_null(struct json_writer *w, const char *key)
{
    put_word(w, key, "null");
}

void json_put_ms(struct json_writer *w, const char *key, uint64_t ns)
{
    char text[32];
    uint64_t us = ns / 1000 + (ns % 1000 >= 500 ? 1 : 0);

    (void)snprintf(text, sizeof(text), "%" PRIu64 ".%03u", us / 1000, (unsigned)(us % 1000));
    put_word(w, key, text);
}

void json_put_time(struct json_writer *w, const char *key, uint64_t real_ns)
{
    time_t seconds = (time_t)(real_ns / NS_PER_S);
    char text[64];
    struct tm tm;

    (void)gmtime_r(&seconds, &tm);
    size_t used = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(text + used, sizeof(text) - used, ".%03uZ",
                   (unsigned)(real_ns / NS_PER_MS % 1000));
    json_put_text(w, key, text);
}

void json_put_made(struct json_writer *w, const void *data, size_t size)
{
    put_key(w, NULL, "");
    put(w, data, size);
}

void json_put_tree(struct json_writer *w, const char *key, const cJSON *tree)
{
    char *text = cJSON_PrintUnformatted(tree);

    if (text == NULL) {
        w->failed = true;
        return;
    }
    put_key(w, key, "");
    /* cJSON copies the bytes of strings as they are, so a guest's may be anything. */
    const unsigned char *p = (const unsigned char *)text;
    size_t size = strlen(text);
    while (size > 0 && !w->failed) {
        size_t run = 0;
        size_t step;

        while ((step = utf8_sequence(p + run, size - run)) > 0)
            run += step;
        put(w, p, run);
        p += run;
        size -= run;
        if (size > 0) {
            put(w, REPLACEMENT, 3);
            p++;
            size--;
        }
    }
    cJSON_free(text);
}

void json_put_bytes(struct json_writer *w, const char *key, const void *data, size_t size)
{
    assert(key != NULL);
    if (size > 0 && (memchr(data, '\0', size) != NULL || !utf8_valid(data, size))) {
        json_put_base64(w, key, data, size);
        return;
    }
    put_key(w, key, "");
    put_string(w, data, size);
}

void json_put_base64(struct json_writer *w, const char *key, const void *data, size_t size)
{
    put_key(w, key, "_base64");
    put(w, "\"", 1);
    if (!w->failed) {
        uint8_t *to = buffer_reserve(w->out, base64_encoded_size(size));

        if (to != NULL) {
            base64_encode(data, size, (char *)to);
            buffer_commit(w->out, base64_encoded_size(size));
        } else {
            w->failed = true;
        }
    }
    put(w, "\"", 1);
}
