/*
 * A command's output as NDJSON records {"type":"stdout","offset":0,"data":"..."}: text where the
 * bytes are UTF-8, else "data_base64". The offset is that of the record's first byte in all output
 * of the command, so a reader that lost its connection knows where to go on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "daemon/process/process.h"

#define OUTPUT_PIECE_BYTES (32 * KIB)
/* A control character takes six bytes of JSON. */
#define OUTPUT_RECORD_MAX (6 * OUTPUT_PIECE_BYTES + 128)

/*
 * Appends to `lines` one record for what the follower has next, and takes it: {"type":"missed"}
 * where something is gone for ever, else a piece of output. The start of a character at the end of
 * what there is stays where it is until the rest has come or the process has ended, so that text
 * stays text. Returns 1, 0 where there is nothing to tell now, or -1 when it does not fit.
 */
int output_record_append(struct buffer *lines, struct process_follower *follower)
    __attribute__((warn_unused_result));
