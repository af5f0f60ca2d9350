/*
 * What the guest says, judged and handed to the streams' owners.
 *
 * Header, then payload. DATA goes to its stream's owner as it is; INFO, END and CREDIT are short
 * and put together here. Each header is judged before any of its payload is looked at.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/channel.h"
#include "daemon/link/agent_message.h"
#include "daemon/link/stream_table.h"

/* The frame that is being read. Zero-initialised but for `streams`. */
struct agent_receiver {
    struct stream_table *streams;
    bool is_closed; /* set by the link, also in a callback: nothing is looked at any more */
    uint8_t header_bytes[CHANNEL_HEADER_BYTES];
    size_t header_used;
    struct channel_header header;
    struct agent_stream *current; /* NULL: between two frames */
    size_t payload_used;
    uint8_t message[AGENT_MESSAGE_MAX]; /* INFO, END and CREDIT; DATA is not kept */
};

/*
 * Takes bytes as they come from the socket. Owners are called, and may do anything in that, closing
 * the receiver included. Returns 0, or -1 with ERR_BAD_REQUEST where the guest broke the protocol:
 * nothing may be given any more then.
 */
int agent_receiver_take(struct agent_receiver *receiver, const uint8_t *bytes, size_t size,
                        struct error *e) __attribute__((warn_unused_result));
