/* WebSocket's opening handshake, from both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "http/websocket.h"

#define KEY     "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT  "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define GET     "GET / HTTP/1.1\r\nHost: h\r\n"
#define UPGRADE "Connection: Upgrade\r\nUpgrade: websocket\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEYED   "Sec-WebSocket-Key: " KEY "\r\n"
#define ANSWER  "HTTP/1.1 101 Switching Protocols\r\n"

static enum error_code check_request(const char *lines)
{
    char text[1024], key[WEBSOCKET_KEY_BYTES] = "";
    struct error e = ERROR_INIT;
    struct http_head head;
    size_t scanned = 0;
    int size = snprintf(text, sizeof(text), "%s\r\n", lines);

    switch (http_request_parse(text, (size_t)size, &scanned, &head, &e)) {
    case HTTP_DONE:
        break;
    case HTTP_MORE:
        fail_msg("not a head: %s", text);
        break;
    case HTTP_BAD:
        return e.code;
    }
    if (websocket_request_check(&head, key, &e) == 0)
        assert_string_equal(key, KEY);
    else
        assert_true(e.code != ERR_NONE && key[0] == '\0');
    return e.code;
}

static void test_requests(void **state)
{
    static const struct {
        const char *lines;
        enum error_code code;
    } cases[] = {
        {GET UPGRADE VERSION KEYED, ERR_NONE},
        {GET "connection: keep-alive , UPGRADE\r\nupgrade: h2c, WebSocket\r\n" VERSION KEYED,
         ERR_NONE},
        {GET "Connection: x\r\nConnection: Upgrade\r\nUpgrade: a\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Extensions: permessage-deflate\r\n" VERSION KEYED,
         ERR_NONE},
        {GET, ERR_UPGRADE_REQUIRED},
        {GET VERSION KEYED, ERR_UPGRADE_REQUIRED},
        {GET "Connection: Upgrade\r\n" VERSION KEYED, ERR_UPGRADE_REQUIRED},
        {GET "Upgrade: websocket\r\n" VERSION KEYED, ERR_UPGRADE_REQUIRED},
        {GET "Connection: Upgrade\r\nUpgrade: websockets\r\n" VERSION KEYED, ERR_UPGRADE_REQUIRED},
        {"POST / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEYED, ERR_UPGRADE_REQUIRED},
        {"GET / HTTP/1.0\r\nHost: h\r\n" UPGRADE VERSION KEYED, ERR_UPGRADE_REQUIRED},
        {GET UPGRADE KEYED, ERR_UPGRADE_REQUIRED},
        {GET UPGRADE "Sec-WebSocket-Version: 8\r\n" KEYED, ERR_UPGRADE_REQUIRED},
        {GET UPGRADE "Sec-WebSocket-Version: 13, 8\r\n" KEYED, ERR_UPGRADE_REQUIRED},
        {GET UPGRADE VERSION VERSION KEYED, ERR_BAD_REQUEST},
        {GET UPGRADE VERSION, ERR_BAD_REQUEST},
        {GET UPGRADE VERSION KEYED KEYED, ERR_BAD_REQUEST},
        {GET UPGRADE VERSION "Sec-WebSocket-Key:\r\n", ERR_BAD_REQUEST},
        {GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n", ERR_BAD_REQUEST},
        {GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZS4u\r\n", ERR_BAD_REQUEST},
        {GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", ERR_BAD_REQUEST},
        {GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n", ERR_BAD_REQUEST},
        {GET UPGRADE VERSION KEYED "Content-Length: 1\r\n", ERR_BAD_REQUEST},
        {GET UPGRADE VERSION KEYED "Transfer-Encoding: chunked\r\n", ERR_BAD_REQUEST},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum error_code code = check_request(cases[i].lines);
        if (code != cases[i].code)
            fail_msg("%s, not %s, for: %s", error_name(code), error_name(cases[i].code),
                     cases[i].lines);
    }
}

static void test_responses(void **state)
{
    static const struct {
        const char *lines;
        int result;
    } cases[] = {
        {ANSWER UPGRADE "Sec-WebSocket-Accept: " ACCEPT "\r\n", 0},
        {ANSWER UPGRADE "Sec-WebSocket-Accept: s3pplmbiTxaQ9kYGzzhZRbK+xOo=\r\n", -1},
        {ANSWER UPGRADE, -1},
        {ANSWER "Sec-WebSocket-Accept: " ACCEPT "\r\n", -1},
        {"HTTP/1.1 200 OK\r\n" UPGRADE "Sec-WebSocket-Accept: " ACCEPT "\r\n", -1},
        {ANSWER UPGRADE "Sec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Extensions: x\r\n", -1},
        {ANSWER UPGRADE "Sec-WebSocket-Accept: " ACCEPT "\r\nSec-WebSocket-Protocol: x\r\n", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[512];
        struct error e = ERROR_INIT;
        struct http_head head;
        size_t scanned = 0;
        int size = snprintf(text, sizeof(text), "%s\r\n", cases[i].lines);

        assert_int_equal(http_response_parse(text, (size_t)size, &scanned, HTTP_GET, &head, &e),
                         HTTP_DONE);
        if (websocket_response_check(&head, KEY, &e) != cases[i].result)
            fail_msg("not %d for: %s", cases[i].result, cases[i].lines);
        assert_int_equal(e.code, cases[i].result == 0 ? ERR_NONE : ERR_BAD_REQUEST);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_responses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
