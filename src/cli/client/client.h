/*
 * One HTTP/1.1 request over the daemon's Unix socket, and its reply. A connection carries one
 * request: the daemon takes its closing as the client's going away, so closing it early (Ctrl-C)
 * ends a command that runs. All waits can be interrupted (cli/common/interrupt.h). The reply is
 * parsed as strictly as the daemon parses requests.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/error.h"
#include "http/chunked.h"
#include "http/head.h"
#include "json/json.h"

struct client {
    int fd;
    struct buffer in;      /* received, not yet taken: a head, then body bytes */
    struct http_head head; /* of the reply; its spans are not valid any more */
    struct http_chunked chunked;
    uint64_t body_left; /* HTTP_BODY_LENGTH */
    bool body_done;
    /* While the reply has not begun: called about once a second with the seconds so far. */
    void (*on_wait)(void *context, unsigned seconds);
    void *on_wait_context;
    const char
        *keep_header; /* to be set before client_send(), or NULL: a header (in lower case) ... */
    char kept[32];    /* ... whose value of the reply is here then; "": none */
};

struct client_request {
    const char *method;
    const char *target; /* path and query, escaped */
    const char *accept; /* NULL: application/json */
    /* The body: memory, or (has_file) a descriptor of `size` bytes, UINT64_MAX where unknown. */
    const void *body;
    uint64_t size;
    bool has_file;
    int file_fd;
    const char *content_type; /* NULL where there is no body */
    /* Not NULL: a WebSocket's opening handshake (http/websocket.h). Success is status 101, and what
     * came behind that is in `in`; what follows belongs to the caller. */
    const char *websocket_key;
};

/* Connects. ERR_UNREACHABLE where nobody listens; `errno` is then that of connect(2). */
int client_open(struct client *c, const char *socket_path, struct error *e)
    __attribute__((warn_unused_result));
/* Accepts a zeroed one. */
void client_close(struct client *c);

/* Sends the request and reads the reply's head into c->head. Returns 0 for a status below 400; -1
 * with the error that the daemon's reply says, or with ERR_UNREACHABLE when the connection broke.
 */
int client_send(struct client *c, const struct client_request *request, struct error *e)
    __attribute__((warn_unused_result));

/* Takes up to `size` decoded body bytes: their count, 0 at the body's end, -1 on failure (also when
 * the connection ends in the middle of the body). */
ssize_t client_read(struct client *c, void *data, size_t size, struct error *e)
    __attribute__((warn_unused_result));

/* All of the body, parsed as JSON (cJSON_Delete frees it). */
int client_read_json(struct client *c, cJSON **ret_tree, struct error *e)
    __attribute__((warn_unused_result));

/* Takes what is left of the body and drops it: the reply counts only when it came whole. */
int client_finish(struct client *c, struct error *e) __attribute__((warn_unused_result));

/* One call from end to end with a JSON reply; `ret_tree` may be NULL. */
int client_call(const char *socket_path, const char *method, const char *target, cJSON **ret_tree,
                struct error *e) __attribute__((warn_unused_result));
