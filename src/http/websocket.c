#include "http/websocket.h"

#include <sha1.h>
#include <stdint.h>
#include <string.h>

#include "base/base64.h"

#define NONCE_BYTES 16u
#define PROOF_GUID  "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_Static_assert(WEBSOCKET_KEY_BYTES == (NONCE_BYTES + 2) / 3 * 4 + 1, "base64 of the nonce");
_Static_assert(WEBSOCKET_ACCEPT_BYTES == (SHA1_DIGEST_LENGTH + 2) / 3 * 4 + 1, "base64 of a SHA-1");

/* Whether one of the Upgrade headers names websocket. */
static bool names_websocket(const struct http_head *h)
{
    for (size_t i = 0; i < h->header_count; i++) {
        struct http_span list = h->headers[i].value, element;

        if (!http_span_is(h->headers[i].name, "upgrade"))
            continue;
        while (http_list_next(&list, &element)) {
            if (http_span_is(element, "websocket"))
                return true;
        }
    }
    return false;
}

static bool is_key(struct http_span s)
{
    uint8_t nonce[NONCE_BYTES + 2]; /* what so many characters could hold */
    size_t size = 0;

    return s.size == WEBSOCKET_KEY_BYTES - 1 && base64_decode(s.data, s.size, nonce, &size) == 0 &&
           size == NONCE_BYTES;
}

int websocket_request_check(const struct http_head *h, char ret_key[WEBSOCKET_KEY_BYTES],
                            struct error *e)
{
    const struct http_header *version = http_head_find(h, "sec-websocket-version");
    const struct http_header *key = http_head_find(h, "sec-websocket-key");

    if (h->method != HTTP_GET || h->minor_version != 1 || !h->upgrade || !names_websocket(h)) {
        (void)error_set(e, ERR_UPGRADE_REQUIRED, "this path is a WebSocket");
        return error_remedy(e, "Connect with a WebSocket client (RFC 6455: GET with \"Connection: "
                               "Upgrade\" and \"Upgrade: websocket\"), or use `cloche shell`.");
    }
    if (version == NULL || !http_span_is(version->value, WEBSOCKET_VERSION)) {
        (void)error_set(e, ERR_UPGRADE_REQUIRED, "Sec-WebSocket-Version is not 13");
        return error_remedy(e, "Version 13 (RFC 6455) is the one that is spoken here.");
    }
    if (key == NULL || !is_key(key->value)) {
        (void)error_set(e, ERR_BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64");
        return error_remedy(e, "Send 16 random bytes, newly drawn for each connection.");
    }
    if (h->framing != HTTP_BODY_NONE)
        return error_set(e, ERR_BAD_REQUEST, "a WebSocket's opening request has a body");
    memcpy(ret_key, key->value.data, WEBSOCKET_KEY_BYTES - 1);
    ret_key[WEBSOCKET_KEY_BYTES - 1] = '\0';
    return 0;
}

void websocket_accept_of(const char *key, char ret_accept[WEBSOCKET_ACCEPT_BYTES])
{
    uint8_t digest[SHA1_DIGEST_LENGTH];
    SHA1_CTX context;

    SHA1Init(&context);
    SHA1Update(&context, (const uint8_t *)key, strlen(key));
    SHA1Update(&context, (const uint8_t *)PROOF_GUID, sizeof(PROOF_GUID) - 1);
    SHA1Final(digest, &context);
    base64_encode(digest, sizeof(digest), ret_accept);
    ret_accept[WEBSOCKET_ACCEPT_BYTES - 1] = '\0';
}

int websocket_response_check(const struct http_head *h, const char *key, struct error *e)
{
    const struct http_header *proof = http_head_find(h, "sec-websocket-accept");
    char expected[WEBSOCKET_ACCEPT_BYTES];

    websocket_accept_of(key, expected);
    if (h->status != 101 || !h->upgrade || !names_websocket(h))
        return error_set(e, ERR_BAD_REQUEST, "the answer does not open a WebSocket");
    /* Unlike other values this one is compared as it stands: base64 has both cases. */
    if (proof == NULL || proof->value.size != strlen(expected) ||
        memcmp(proof->value.data, expected, proof->value.size) != 0)
        return error_set(e, ERR_BAD_REQUEST, "the answer's Sec-WebSocket-Accept is wrong");
    if (http_head_find(h, "sec-websocket-extensions") != NULL ||
        http_head_find(h, "sec-websocket-protocol") != NULL)
        return error_set(e, ERR_BAD_REQUEST, "the answer has what nobody asked for");
    return 0;
}
