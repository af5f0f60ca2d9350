/*
 * Request-Timeout: SECONDS, a client's own limit for the whole of a request, on any route. The name
 * says it in the unit that HTTP's other headers have; grpc-timeout has letters for units, and
 * Prefer: wait (RFC 7240) lets the work go on.
 *
 * When the time is over the handler sees its client go, and so stops what it does, as for any
 * client. This client is there, though, and gets an answer that is not the handler's.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"

struct exchange;

/* Reads the header, before the handler is called; -1 with ERR_INVALID_FIELD. */
int exchange_deadline_read(struct exchange *x, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* Loop time at which the request's time is over, or 0 for never. */
uint64_t exchange_deadline_ms(const struct exchange *x);

/* It is over: stops the handler's work, and tells the client. */
void exchange_expire(struct exchange *x);
