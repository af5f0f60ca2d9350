/* The sealed block of settings that `cloche serve` hands to its processes: cloche/handover.h. */
#pragma once

#include "base/error.h"
#include "cloche/handover.h"

/* Puts the settings into a sealed memfd (close-on-exec, the caller's); -1 on failure. */
int handover_seal(const struct handover_settings *s, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* Reads the settings back: size, seals, magic, version, level and strings are checked. */
int handover_read(int fd, struct handover_settings *ret_settings, struct error *e)
    __attribute__((warn_unused_result, nonnull));
