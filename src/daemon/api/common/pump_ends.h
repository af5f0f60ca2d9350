/* The ends that several pumps have: a request's body, a reply, and a call of the guest. */
#pragma once

#include "cloche/limits.h"
#include "daemon/api/common/pump.h"

/* What a streamed reply takes at once where it is below HTTP_REPLY_QUEUE_HIGH: as much is never
 * cut in two. */
#define PUMP_REPLY_PIECE_MAX (256 * KIB)

/* The leftover_max of a pump of these; of a call's it is all that has credit. */
#define PUMP_BODY_LEFTOVER_MAX  HTTP_INPUT_BYTES_MAX
#define PUMP_GUEST_LEFTOVER_MAX CHANNEL_WINDOW_BYTES

/* From a struct exchange whose body is read by exchange_read_stream(). */
extern const struct pump_source pump_from_body;
/* To a struct exchange that has been started, whose on_drain is to call pump_run(). */
extern const struct pump_sink pump_to_reply;

/* From and to a struct guest_call, whose on_writable is to call pump_run(). */
extern const struct pump_source pump_from_guest;
extern const struct pump_sink pump_to_guest;
