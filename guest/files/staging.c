#include "guest/files/staging.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

int stagings_init(struct stagings *t, struct error *e)
{
    for (unsigned i = 0; i < STAGING_COUNT; i++) {
        t->bytes[i] = aligned_alloc(STAGING_ALIGN, STAGING_BYTES);
        if (t->bytes[i] == NULL)
            return error_errno(e, ENOMEM, "staging memory");
        memset(t->bytes[i], 0, STAGING_BYTES);
    }
    return 0;
}

void stagings_fini(struct stagings *t)
{
    for (unsigned i = 0; i < STAGING_COUNT; i++)
        free(t->bytes[i]);
    *t = (struct stagings){0};
}

uint8_t *staging_take(struct stagings *t)
{
    for (unsigned i = 0; i < STAGING_COUNT; i++) {
        if (!t->taken[i]) {
            t->taken[i] = true;
            return t->bytes[i];
        }
    }
    return NULL;
}

void staging_give(struct stagings *t, uint8_t *bytes)
{
    for (unsigned i = 0; bytes != NULL && i < STAGING_COUNT; i++) {
        if (t->bytes[i] == bytes)
            t->taken[i] = false;
    }
}

int staging_set_direct(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}
