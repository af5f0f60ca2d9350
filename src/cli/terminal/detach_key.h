/* The one key sequence that does not go to the guest: `~.` at the beginning of a line, as in ssh.
 * `~~` there is one `~`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct detach_key {
    bool is_inside; /* of a line; so zeroed, it waits for the sequence */
    bool has_tilde; /* at the beginning of one: held back */
};

/*
 * Looks at what was typed and writes what goes to the guest to `ret_keys`, which has room for
 * `size` + 1 bytes; `*ret_size` says how many. Returns true where the sequence was typed: what
 * follows it is dropped.
 */
bool detach_key_filter(struct detach_key *k, const uint8_t *typed, size_t size, uint8_t *ret_keys,
                       size_t *ret_size) __attribute__((warn_unused_result));
