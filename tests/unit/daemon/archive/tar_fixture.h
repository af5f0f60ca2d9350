/* Archives made by hand, and the work of a tar_thread run over a socket pair. */
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/fd.h"
#include "base/tree.h"
#include "daemon/archive/tar_work.h"

#define BLOCK     512u
#define OUT_MAX   (64 * MIB)
#define NAMES_MAX 8192u

/* --- Making archives --------------------------------------------------------------------------
 */

struct tar {
    struct buffer bytes;
};

struct header {
    const char *name;
    char type;
    const char *link;
    const char *content;
    size_t size;
    const char *size_text; /* in place of `size` in the header; 12 bytes */
    const char *uid_text;  /* 8 bytes */
    bool is_gnu;           /* GNU's old format, which can have */
    bool has_map;          /* a map of holes that goes on in the blocks behind it, */
    bool has_hole;         /* or a hole of 90 bytes before the content */
};

static inline void pad(struct buffer *b)
{
    static const uint8_t zeros[BLOCK];

    assert_int_equal(buffer_append(b, zeros, (BLOCK - b->size % BLOCK) % BLOCK), 0);
}

static inline void sum_up(uint8_t block[BLOCK])
{
    unsigned sum = 0;

    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += block[i];
    (void)snprintf((char *)block + 148, 8, "%06o", sum);
}

static inline void put(struct tar *t, const struct header *h)
{
    uint8_t block[BLOCK] = {0};

    memcpy(block, h->name, strlen(h->name) < 100 ? strlen(h->name) : 100);
    memcpy(block + 100, "0000644", 7);
    memcpy(block + 108, h->uid_text != NULL ? h->uid_text : "0000012\0", 8);
    memcpy(block + 116, "0000013", 7);
    (void)snprintf((char *)block + 124, 12, "%011zo", h->size);
    if (h->size_text != NULL)
        memcpy(block + 124, h->size_text, 12);
    memcpy(block + 136, "14512345670", 11);
    block[156] = (uint8_t)h->type;
    if (h->link != NULL)
        memcpy(block + 157, h->link, strlen(h->link) < 100 ? strlen(h->link) : 100);
    memcpy(block + 257, h->is_gnu ? "ustar  " : "ustar\00000", 8);
    if (h->has_map) {
        memcpy(block + 386, "00000000000\00000000000000", 24);
        block[482] = 1;
    }
    if (h->has_hole) {
        memcpy(block + 386, "00000000132\00000000000012", 24);
        memcpy(block + 483, "00000000144", 12);
    }
    sum_up(block);
    assert_int_equal(buffer_append(&t->bytes, block, BLOCK), 0);
    if (h->content != NULL)
        assert_int_equal(buffer_append(&t->bytes, h->content, h->size), 0);
    pad(&t->bytes);
}

static inline void put_plain(struct tar *t, const char *name, char type, const char *link)
{
    put(t, &(struct header){.name = name,
                            .type = type,
                            .link = link,
                            .content = type == '0' ? "x" : NULL,
                            .size = type == '0'});
}

/* A pax header with one record, whose length may lie. */
static inline void put_pax(struct tar *t, const char *key, const char *value, size_t value_size)
{
    char record[8192];
    size_t length = strlen(key) + value_size + 3;

    for (size_t digits = 1; digits <= 4; digits++) {
        char text[16];
        int n = snprintf(text, sizeof(text), "%zu", length + digits);
        if ((size_t)n != digits)
            continue;
        length += digits;
        break;
    }
    int n = snprintf(record, sizeof(record), "%zu %s=", length, key);
    memcpy(record + n, value, value_size);
    record[length - 1] = '\n';
    put(t, &(struct header){.name = "pax", .type = 'x', .content = record, .size = length});
}

static inline struct tar begin_tar(void)
{
    return (struct tar){.bytes = BUFFER_INIT(OUT_MAX)};
}

static inline void end_tar(struct tar *t)
{
    uint8_t zeros[2 * BLOCK] = {0};

    assert_int_equal(buffer_append(&t->bytes, zeros, sizeof(zeros)), 0);
}

/* --- Running ------------------------------------------------------------------------------------
 */

struct run {
    int (*work)(int fd, struct tar_work *work);
    int fd;
    int result;
    struct tar_work results;
};

static inline void *work_main(void *arg)
{
    struct run *r = arg;

    r->result = r->work(r->fd, &r->results);
    (void)close(r->fd);
    return NULL;
}

struct feed {
    int fd;
    const uint8_t *data;
    size_t size;
    size_t taken;
};

static inline void *feed_main(void *arg)
{
    struct feed *f = arg;

    while (f->taken < f->size) {
        ssize_t n = send(f->fd, f->data + f->taken, f->size - f->taken, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        f->taken += (size_t)n;
    }
    (void)shutdown(f->fd, SHUT_WR);
    return NULL;
}

/* Runs one of the two over a socket pair; what comes out is appended to `out`. *ret_taken: bytes of
 * `data` that went in. */
static inline int run(int (*work)(int, struct tar_work *), const void *data, size_t size,
                      struct buffer *out, struct tar_work *ret_results, size_t *ret_taken)
{
    struct run r = {.work = work};
    pthread_t worker, feeder;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    r.fd = fds[1];
    struct feed f = {.fd = fds[0], .data = data, .size = size};
    assert_int_equal(pthread_create(&worker, NULL, work_main, &r), 0);
    assert_int_equal(pthread_create(&feeder, NULL, feed_main, &f), 0);
    for (;;) {
        uint8_t *to = buffer_reserve(out, 65536);
        assert_non_null(to);
        ssize_t n = recv(fds[0], to, 65536, 0);
        if (n <= 0)
            break;
        buffer_commit(out, (size_t)n);
    }
    (void)shutdown(fds[0], SHUT_RDWR);
    assert_int_equal(pthread_join(feeder, NULL), 0);
    assert_int_equal(pthread_join(worker, NULL), 0);
    (void)close(fds[0]);
    assert_int_equal(r.result != 0, r.results.error.code != ERR_NONE);
    *ret_results = r.results;
    *ret_taken = f.taken;
    return r.result;
}

struct unpacked {
    int result;
    struct tar_work work;
    bool is_between; /* the entries end where they may */
    unsigned entries;
    uint64_t bytes;
    size_t taken;          /* of the archive */
    char names[NAMES_MAX]; /* "TYPE:PATH>TARGET;" of each */
};

static inline struct unpacked unpack(const void *data, size_t size)
{
    static struct tree_reader r;
    struct buffer out = BUFFER_INIT(OUT_MAX);
    struct unpacked u = {0};
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;

    u.result = run(tar_unpack, data, size, &out, &u.work, &u.taken);
    tree_reader_init(&r);
    for (size_t at = 0, used = 0; at < out.size; at += used) {
        assert_int_equal(
            tree_reader_next(&r, buffer_bytes(&out) + at, out.size - at, &used, &event, &entry, &e),
            0);
        u.bytes += event == TREE_CONTENT ? used : 0;
        if (event != TREE_ENTRY)
            continue;
        u.entries++;
        size_t length = strlen(u.names);
        (void)snprintf(u.names + length, sizeof(u.names) - length, "%d:%s>%s;", entry.type,
                       entry.path, entry.target);
    }
    u.is_between = tree_reader_is_between(&r);
    buffer_fini(&out);
    return u;
}

static inline struct unpacked unpack_tar(struct tar *t)
{
    struct unpacked u = unpack(buffer_bytes(&t->bytes), t->bytes.size);

    buffer_fini(&t->bytes);
    return u;
}

static inline void expect_refused(const struct unpacked *u, const char *words)
{
    if (u->result == 0 || u->work.error.code != ERR_ARCHIVE_REFUSED ||
        (strstr(u->work.error.message, words) == NULL &&
         strstr(u->work.error.cause, words) == NULL))
        fail_msg("\"%s\" is not in: %d %s (%s); taken: %s", words, u->result, u->work.error.message,
                 u->work.error.cause, u->names);
    assert_true(u->work.error.remedy[0] != '\0');
}
