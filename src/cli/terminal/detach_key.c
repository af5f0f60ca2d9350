#include "cli/terminal/detach_key.h"

bool detach_key_filter(struct detach_key *k, const uint8_t *typed, size_t size, uint8_t *ret_keys,
                       size_t *ret_size)
{
    size_t used = 0;

    for (size_t i = 0; i < size; i++) {
        uint8_t key = typed[i];

        if (k->has_tilde && key == '.') {
            *ret_size = used;
            return true;
        }
        if (!k->has_tilde && !k->is_inside && key == '~') {
            k->has_tilde = true;
            continue;
        }
        if (k->has_tilde && key != '~')
            ret_keys[used++] = '~';
        k->has_tilde = false;
        k->is_inside = key != '\r' && key != '\n';
        ret_keys[used++] = key;
    }
    *ret_size = used;
    return false;
}
