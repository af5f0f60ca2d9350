/*
 * The guest's end of an agent channel for tests: a socket pair whose one end belongs to a link, and
 * which the test writes frames to and reads frames from, turning the loop itself.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/fd.h"
#include "base/frame.h"
#include "base/wire.h"
#include "cloche/channel.h"

struct fake_agent {
    uv_loop_t *loop;
    int fd;
    uint8_t bytes[2 * (CHANNEL_HEADER_BYTES + CHANNEL_PAYLOAD_MAX)];
    size_t used;
};

struct fake_frame {
    struct channel_header h;
    uint8_t payload[CHANNEL_PAYLOAD_MAX];
};

/* Returns the end for the link; the other one is the fake's. */
static inline int fake_agent_init(struct fake_agent *a, uv_loop_t *loop)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        abort();
    *a = (struct fake_agent){.loop = loop, .fd = fds[1]};
    return fds[0];
}

static inline void fake_agent_fini(struct fake_agent *a)
{
    fd_close(&a->fd);
}

static inline void fake_spin(struct fake_agent *a)
{
    for (unsigned i = 0; i < 4; i++)
        (void)uv_run(a->loop, UV_RUN_NOWAIT);
}

static inline void fake_send_raw(struct fake_agent *a, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t n = send(a->fd, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno != EAGAIN)
            return; /* the link hung up */
        if (n < 0) {
            fake_spin(a);
            continue;
        }
        at += n;
        size -= (size_t)n;
    }
    fake_spin(a);
}

static inline void fake_send(struct fake_agent *a, unsigned type, uint32_t stream, unsigned lane,
                             const void *payload, size_t size)
{
    static uint8_t bytes[CHANNEL_HEADER_BYTES + CHANNEL_PAYLOAD_MAX];
    struct channel_header h = {
        .length = (uint32_t)size, .stream = stream, .type = (uint8_t)type, .lane = (uint8_t)lane};

    frame_header_put(bytes, &h);
    if (size > 0)
        memcpy(bytes + CHANNEL_HEADER_BYTES, payload, size);
    fake_send_raw(a, bytes, CHANNEL_HEADER_BYTES + size);
}

static inline void fake_send_u32(struct fake_agent *a, unsigned type, uint32_t stream,
                                 unsigned lane, uint32_t value)
{
    uint8_t payload[4];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, value);
    fake_send(a, type, stream, lane, payload, w.used);
}

/* The next frame of the link; false where none comes. */
static inline bool fake_recv(struct fake_agent *a, struct fake_frame *ret_frame)
{
    struct error e = ERROR_INIT;

    for (unsigned i = 0; i < 8; i++) {
        if (a->used >= CHANNEL_HEADER_BYTES) {
            if (frame_header_get(a->bytes, &ret_frame->h, &e) != 0)
                abort(); /* the link itself broke the protocol */
            size_t total = CHANNEL_HEADER_BYTES + ret_frame->h.length;
            if (a->used >= total) {
                memcpy(ret_frame->payload, a->bytes + CHANNEL_HEADER_BYTES, ret_frame->h.length);
                memmove(a->bytes, a->bytes + total, a->used - total);
                a->used -= total;
                return true;
            }
        }
        (void)uv_run(a->loop, UV_RUN_NOWAIT);
        ssize_t n = recv(a->fd, a->bytes + a->used, sizeof(a->bytes) - a->used, MSG_DONTWAIT);
        if (n > 0)
            a->used += (size_t)n;
    }
    return false;
}

/* Reads over frames until one of that type comes. */
static inline bool fake_expect(struct fake_agent *a, unsigned type, struct fake_frame *ret_frame)
{
    while (fake_recv(a, ret_frame)) {
        if (ret_frame->h.type == type)
            return true;
    }
    return false;
}

static inline void fake_exec_info(struct fake_agent *a, uint32_t stream, uint32_t pid)
{
    fake_send_u32(a, CHANNEL_INFO, stream, 0, pid);
}

static inline void fake_range_info(struct fake_agent *a, uint32_t stream, uint64_t size,
                                   uint32_t mode, uint64_t offset)
{
    uint8_t payload[32];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u64(&w, size);
    wire_put_u32(&w, mode);
    wire_put_u64(&w, UINT64_C(1700000000000000000));
    wire_put_u64(&w, offset);
    fake_send(a, CHANNEL_INFO, stream, 0, payload, w.used);
}

static inline void fake_read_info(struct fake_agent *a, uint32_t stream, uint64_t size,
                                  uint32_t mode)
{
    fake_range_info(a, stream, size, mode, 0);
}

static inline void fake_failed(struct fake_agent *a, uint32_t stream, uint32_t status,
                               const char *text)
{
    uint8_t payload[600];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, status);
    wire_put_string(&w, text, strlen(text));
    fake_send(a, CHANNEL_END, stream, 0, payload, w.used);
}

static inline void fake_exec_end(struct fake_agent *a, uint32_t stream, unsigned kind, int code)
{
    uint8_t payload[64];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, 0);
    wire_put_string(&w, "", 0);
    wire_put_u32(&w, kind);
    wire_put_u32(&w, (uint32_t)code);
    wire_put_u64(&w, 5000);
    wire_put_u64(&w, 3000);
    wire_put_u64(&w, 1000);
    wire_put_u64(&w, 4096);
    fake_send(a, CHANNEL_END, stream, 0, payload, w.used);
}

static inline void fake_file_end(struct fake_agent *a, uint32_t stream, uint64_t bytes)
{
    uint8_t payload[64];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, 0);
    wire_put_string(&w, "", 0);
    wire_put_u64(&w, bytes);
    fake_send(a, CHANNEL_END, stream, 0, payload, w.used);
}
