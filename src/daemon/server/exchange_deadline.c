#include "daemon/server/exchange_deadline.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>

#include "cloche/limits.h"
#include "daemon/server/exchange_private.h"

/* "SECONDS" or "SECONDS.FRACTION" as milliseconds, rounded up; 0 for anything else. */
static uint64_t parse_seconds(const char *text)
{
    uint64_t ms = 0, unit = 1000;
    bool rounds = false;

    if (!isdigit((unsigned char)*text))
        return 0;
    for (; isdigit((unsigned char)*text) && ms <= HTTP_DEADLINE_S_MAX * UINT64_C(1000); text++)
        ms = ms * 10 + (uint64_t)(*text - '0') * 1000;
    if (*text == '.' && isdigit((unsigned char)text[1])) {
        for (text++; isdigit((unsigned char)*text); text++) {
            unit /= 10;
            ms += (uint64_t)(*text - '0') * unit;
            rounds |= unit == 0 && *text != '0';
        }
    }
    ms += rounds;
    return *text == '\0' && ms <= HTTP_DEADLINE_S_MAX * UINT64_C(1000) ? ms : 0;
}

int exchange_deadline_read(struct exchange *x, struct error *e)
{
    const char *text = exchange_header(x, "Request-Timeout");

    if (text == NULL)
        return 0;
    x->timeout_ms = parse_seconds(text);
    if (x->timeout_ms > 0)
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "the header Request-Timeout is \"%.40s\"", text);
    return error_remedy(e, "Give seconds as a decimal number above 0, as in 30 or 0.5; at most %u.",
                        HTTP_DEADLINE_S_MAX);
}

uint64_t exchange_deadline_ms(const struct exchange *x)
{
    if (x->timeout_ms == 0 || x->late || x->finished)
        return 0;
    return x->begun_ms + x->timeout_ms;
}

void exchange_expire(struct exchange *x)
{
    bool was_started = x->started;
    struct error e = ERROR_INIT;

    assert(!x->late && !x->finished);
    (void)error_set(&e, ERR_DEADLINE_EXCEEDED,
                    "the request was not done within its Request-Timeout of %" PRIu64 ".%03u s",
                    x->timeout_ms / 1000, (unsigned)(x->timeout_ms % 1000));
    (void)error_remedy(&e, "It was ended as if its client had gone; allow it more time.");
    x->late = true;
    exchange_tell_gone(x);
    exchange_reply_late(x, &e, was_started);
}
