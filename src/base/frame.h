/* The header of a channel frame (cloche/channel.h): packing, and the checks both ends share. */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "cloche/channel.h"

/* Writes `h` as it goes over the wire. */
void frame_header_put(uint8_t bytes[CHANNEL_HEADER_BYTES], const struct channel_header *h);

/*
 * Reads a header and checks what can be checked without knowing the stream: length within
 * CHANNEL_PAYLOAD_MAX and right for the type (CREDIT, SIGNAL and RESIZE 4, EOF and RESET 0, DATA at
 * least 1), known type and lane, stream not 0, reserved bits 0. Returns 0, or -1 with
 * ERR_BAD_REQUEST.
 */
int frame_header_get(const uint8_t bytes[CHANNEL_HEADER_BYTES], struct channel_header *ret_header,
                     struct error *e) __attribute__((warn_unused_result));
