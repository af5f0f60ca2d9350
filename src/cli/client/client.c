#include "cli/client/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cli/common/interrupt.h"
#include "http/websocket.h"
#include "http/write.h"
#include "json/json_write.h"

#define PIECE_BYTES    (64 * KIB) /* of a body, at a time */
#define REPLY_JSON_MAX (4 * HTTP_JSON_BODY_MAX)
#define RETRY_MS       20

static int set_unreachable(struct error *e, const char *path, int err)
{
    (void)error_set(e, ERR_UNREACHABLE, "no daemon answers at %s", path);
    (void)error_cause(e, "%s", strerror(err));
    if (err == EACCES || err == EPERM)
        (void)error_remedy(e, "You may not use that socket: run this as root (sudo).");
    else
        (void)error_remedy(e, "Start one with `sudo cloche serve`, or name its socket with "
                              "--socket or CLOCHE_SOCKET.");
    errno = err;
    return -1;
}

int client_open(struct client *c, const char *socket_path, struct error *e)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(socket_path);

    *c = (struct client){.fd = -1, .in = BUFFER_INIT(HTTP_HEAD_BYTES_MAX + PIECE_BYTES)};
    if (size >= sizeof(address.sun_path)) {
        (void)error_set(e, ERR_USAGE, "socket path of %zu bytes: %s", size, socket_path);
        return error_remedy(e, "A Unix socket's path has at most %zu.",
                            sizeof(address.sun_path) - 1);
    }
    memcpy(address.sun_path, socket_path, size);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return error_errno(e, errno, "socket");
    /* EAGAIN: the daemon's queue of new connections is full just now. */
    while (connect(c->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int err = errno;
        if (err != EAGAIN) {
            client_close(c);
            return set_unreachable(e, socket_path, err);
        }
        if (interrupt_wait(NULL, 0, RETRY_MS, e) < 0) {
            client_close(c);
            return -1;
        }
    }
    return 0;
}

void client_close(struct client *c)
{
    fd_close(&c->fd);
    buffer_fini(&c->in);
}

static int set_broken(struct error *e, const char *what)
{
    (void)error_set(e, ERR_UNREACHABLE, "the daemon closed the connection %s", what);
    return error_remedy(e, "See the daemon's log; `cloche info` tells whether it runs.");
}

/*
 * Sends all of `data`. Returns 0; 1 when the daemon has begun to answer already (an error: it will
 * not read the rest), -1 on failure.
 */
static int send_all(struct client *c, const void *data, size_t size, struct error *e)
{
    const char *at = data;

    while (size > 0) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN | POLLOUT};
        if (interrupt_wait(&p, 1, -1, e) < 0)
            return -1;
        if ((p.revents & POLLIN) != 0)
            return 1;
        ssize_t n = send(c->fd, at, size, MSG_NOSIGNAL);
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return 1; /* what it said before it closed is still to be read */
        } else if (errno != EAGAIN && errno != EINTR) {
            return error_errno(e, errno, "send");
        }
    }
    return 0;
}

/* Sends a file's content: as it is where the size was announced, in chunks otherwise. */
static int send_file(struct client *c, int fd, uint64_t size, struct error *e)
{
    bool chunked = size == UINT64_MAX;
    struct buffer out = BUFFER_INIT(PIECE_BYTES + HTTP_CHUNK_OVERHEAD);
    static char piece[PIECE_BYTES];
    int result = 0;

    while (result == 0 && size > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (interrupt_wait(&p, 1, -1, e) < 0) {
            result = -1;
            break;
        }
        ssize_t n = read(fd, piece, size < sizeof(piece) ? (size_t)size : sizeof(piece));
        if (n < 0) {
            result = error_errno(e, errno, "cannot read what is to be sent");
        } else if (n == 0) {
            if (!chunked)
                result = error_set(e, ERR_CONFLICT, "the file became shorter while it was sent");
            break;
        } else if (chunked) {
            result = http_chunk_append(&out, piece, (size_t)n);
            if (result == 0)
                result = send_all(c, buffer_bytes(&out), out.size, e);
            buffer_consume(&out, out.size);
        } else {
            size -= (uint64_t)n;
            result = send_all(c, piece, (size_t)n, e);
        }
    }
    if (result == 0 && chunked)
        result = send_all(c, HTTP_CHUNK_LAST, sizeof(HTTP_CHUNK_LAST) - 1, e);
    buffer_fini(&out);
    return result;
}

static int put_head(struct buffer *out, const struct client_request *r)
{
    const char *accept = r->accept != NULL ? r->accept : "application/json";

    if (http_request_start(out, r->method, r->target) != 0 ||
        http_header_put(out, "Host", "cloche") != 0 ||
        http_header_put(out, "User-Agent", "cloche-cli") != 0 ||
        http_header_put(out, "Accept", "%s", accept) != 0 ||
        http_header_put(out, "Connection", r->websocket_key != NULL ? "Upgrade" : "close") != 0)
        return -1;
    if (r->websocket_key != NULL &&
        (http_header_put(out, "Upgrade", "websocket") != 0 ||
         http_header_put(out, "Sec-WebSocket-Version", WEBSOCKET_VERSION) != 0 ||
         http_header_put(out, "Sec-WebSocket-Key", "%s", r->websocket_key) != 0))
        return -1;
    if (r->content_type != NULL) {
        if (http_header_put(out, "Content-Type", "%s", r->content_type) != 0)
            return -1;
        if (r->has_file && r->size == UINT64_MAX) {
            if (http_header_put(out, "Transfer-Encoding", "chunked") != 0)
                return -1;
        } else if (http_header_put(out, "Content-Length", "%llu", (unsigned long long)r->size) !=
                   0) {
            return -1;
        }
    }
    return http_head_end(out);
}

static int send_request(struct client *c, const struct client_request *r, struct error *e)
{
    struct buffer out = BUFFER_INIT(HTTP_HEAD_BYTES_MAX);
    int result;

    if (put_head(&out, r) != 0)
        result = error_set(e, ERR_TOO_LARGE, "the request's head is larger than %u bytes",
                           (unsigned)HTTP_HEAD_BYTES_MAX);
    else
        result = send_all(c, buffer_bytes(&out), out.size, e);
    buffer_fini(&out);
    if (result == 0 && r->has_file)
        result = send_file(c, r->file_fd, r->size, e);
    else if (result == 0 && r->body != NULL)
        result = send_all(c, r->body, r->size, e);
    return result;
}

/* Receives some bytes into c->in, which has room. Returns their count, 0 when the daemon closed. */
static ssize_t receive(struct client *c, struct error *e)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (interrupt_wait(&p, 1, -1, e) < 0)
            return -1;
        size_t room = buffer_room(&c->in);
        uint8_t *to = buffer_reserve(&c->in, room < PIECE_BYTES ? room : PIECE_BYTES);
        if (to == NULL)
            return error_set(e, ERR_INTERNAL, "out of memory for a reply");
        ssize_t n = recv(c->fd, to, room < PIECE_BYTES ? room : PIECE_BYTES, 0);
        if (n > 0)
            buffer_commit(&c->in, (size_t)n);
        if (n >= 0)
            return n;
        if (errno == ECONNRESET)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return error_errno(e, errno, "recv");
    }
}

/* Waits for the reply to begin, telling the seconds that go by. */
static int wait_for_reply(struct client *c, struct error *e)
{
    uint64_t start_ns = clock_mono_ns();

    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int n = interrupt_wait(&p, 1, c->on_wait != NULL ? 1000 : -1, e);
        if (n != 0)
            return n < 0 ? -1 : 0;
        c->on_wait(c->on_wait_context, (unsigned)((clock_mono_ns() - start_ns) / NS_PER_S));
    }
}

static void keep_header(struct client *c)
{
    const struct http_header *h =
        c->keep_header != NULL ? http_head_find(&c->head, c->keep_header) : NULL;

    if (h != NULL && h->value.size < sizeof(c->kept))
        (void)snprintf(c->kept, sizeof(c->kept), "%.*s", (int)h->value.size, h->value.data);
}

/* Reads the head; interim replies (1xx) are skipped, but for the one that a WebSocket waits for. */
static int read_head(struct client *c, const struct client_request *r, struct error *e)
{
    enum http_method known = strcmp(r->method, "HEAD") == 0 ? HTTP_HEAD : HTTP_GET;
    size_t scanned = 0;

    for (;;) {
        enum http_result result = HTTP_MORE;
        if (c->in.size > 0)
            result = http_response_parse((const char *)buffer_bytes(&c->in), c->in.size, &scanned,
                                         known, &c->head, e);
        if (result == HTTP_BAD)
            return error_wrap(e, "the daemon's reply is not HTTP as it should be");
        if (result == HTTP_DONE && c->head.status == 101 && r->websocket_key != NULL &&
            websocket_response_check(&c->head, r->websocket_key, e) != 0)
            return -1;
        if (result == HTTP_DONE) {
            keep_header(c);
            buffer_consume(&c->in, c->head.size);
            scanned = 0;
            if (c->head.status >= 200 || (c->head.status == 101 && r->websocket_key != NULL))
                break;
            continue;
        }
        ssize_t n = receive(c, e);
        if (n < 0)
            return -1;
        if (n == 0)
            return set_broken(e, "without a reply");
    }
    http_chunked_init(&c->chunked);
    c->body_left = c->head.content_length;
    c->body_done = c->head.framing == HTTP_BODY_NONE ||
                   (c->head.framing == HTTP_BODY_LENGTH && c->body_left == 0);
    return 0;
}

int client_send(struct client *c, const struct client_request *request, struct error *e)
{
    if (send_request(c, request, e) < 0 || wait_for_reply(c, e) != 0 ||
        read_head(c, request, e) != 0)
        return -1;
    if (request->websocket_key != NULL && c->head.status < 400 && c->head.status != 101)
        return error_set(e, ERR_UNREACHABLE, "the daemon did not open a WebSocket (status %d)",
                         c->head.status);
    if (c->head.status < 400)
        return 0;

    cJSON *reply = NULL;
    if (client_read_json(c, &reply, e) != 0)
        return error_wrap(e, "the daemon answered with status %d", c->head.status);
    int result = json_error_read(reply, e);
    cJSON_Delete(reply);
    return result;
}

/* Takes body bytes out of what has been received: their count, which is 0 where more must come or
 * (body_done) nothing will. */
static ssize_t take_body(struct client *c, void *data, size_t size, struct error *e)
{
    size_t used = c->in.size < size ? c->in.size : size;
    struct http_span body = {.data = (const char *)buffer_bytes(&c->in), .size = used};

    if (used == 0)
        return 0;
    if (c->head.framing == HTTP_BODY_CHUNKED) {
        enum http_result result =
            http_chunked_decode(&c->chunked, body.data, used, &used, &body, e);
        if (result == HTTP_BAD)
            return error_wrap(e, "the daemon's reply");
        c->body_done = result == HTTP_DONE;
    } else if (c->head.framing == HTTP_BODY_LENGTH) {
        if (used > c->body_left)
            body.size = used = (size_t)c->body_left;
        c->body_left -= used;
        c->body_done = c->body_left == 0;
    }
    if (body.size > 0)
        memcpy(data, body.data, body.size);
    buffer_consume(&c->in, used);
    return (ssize_t)body.size;
}

ssize_t client_read(struct client *c, void *data, size_t size, struct error *e)
{
    for (;;) {
        size_t before = c->in.size;
        ssize_t n = c->body_done ? 0 : take_body(c, data, size, e);
        if (n != 0 || c->body_done)
            return n;
        if (c->in.size > 0 && c->in.size < before)
            continue; /* framing was taken, there may be body bytes behind it */
        n = receive(c, e);
        if (n < 0)
            return -1;
        if (n == 0 && c->head.framing == HTTP_BODY_UNTIL_CLOSE)
            return 0;
        if (n == 0)
            return set_broken(e, "in the middle of a reply");
    }
}

int client_read_json(struct client *c, cJSON **ret_tree, struct error *e)
{
    struct buffer body = BUFFER_INIT(REPLY_JSON_MAX);
    int result = -1;

    for (;;) {
        uint8_t *to = buffer_reserve(&body, PIECE_BYTES);
        if (to == NULL) {
            (void)error_set(e, ERR_TOO_LARGE, "a reply larger than %llu bytes",
                            (unsigned long long)REPLY_JSON_MAX);
            break;
        }
        ssize_t n = client_read(c, to, PIECE_BYTES, e);
        if (n > 0) {
            buffer_commit(&body, (size_t)n);
            continue;
        }
        if (n == 0)
            result = json_parse(buffer_bytes(&body), body.size, ret_tree, e);
        break;
    }
    buffer_fini(&body);
    return result;
}

int client_finish(struct client *c, struct error *e)
{
    char dropped[4096];
    ssize_t n;

    do
        n = client_read(c, dropped, sizeof(dropped), e);
    while (n > 0);
    return (int)n;
}

int client_call(const char *socket_path, const char *method, const char *target, cJSON **ret_tree,
                struct error *e)
{
    const struct client_request request = {.method = method, .target = target};
    struct client c;

    if (client_open(&c, socket_path, e) != 0)
        return -1;
    int result = client_send(&c, &request, e);
    if (result == 0)
        result = ret_tree != NULL ? client_read_json(&c, ret_tree, e) : client_finish(&c, e);
    client_close(&c);
    return result;
}
