/* The second half of parsing a head: what its fields mean together. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "http/head.h"
#include "http/span.h"

/*
 * Checks the header fields of a head whose start line is parsed and which has its headers, and
 * fills framing, content_length, keep_alive, expect_continue, upgrade and host. `method` is that of
 * the request, also for a response.
 */
int http_head_judge(struct http_head *h, enum http_method method, struct error *e)
    __attribute__((warn_unused_result));

/* host [":" port] of RFC 9110 7.2, where a host is a name of letters, digits and "-._~", an IPv4
 * address or an IPv6 address in brackets. */
bool http_host_valid(struct http_span s, bool port_required);
