/* Trees of `cloche cp`, as archives on the way. */
#pragma once

#include "base/error.h"
#include "cli/commands/cp_place.h"

/*
 * Copy what a directory holds to another, which is made where it is missing. What comes out of a
 * sandbox is not trusted: it stays in its directory, and special permission bits are not kept.
 * What cannot be copied is told on stderr.
 */
int cp_put_tree(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
                struct error *e) __attribute__((warn_unused_result));
int cp_get_tree(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
                struct error *e) __attribute__((warn_unused_result));
