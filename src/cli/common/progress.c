#include "cli/common/progress.h"

#include <stdio.h>
#include <unistd.h>

#define FIRST_AFTER_S 2u
#define LINE_EVERY_S  10u

void progress_tick(struct progress *p, unsigned seconds)
{
    if (seconds < FIRST_AFTER_S)
        return;
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\rcloche: %s ... %u s\033[K", p->what, seconds);
        p->on_screen = true;
    } else if (seconds == FIRST_AFTER_S || seconds % LINE_EVERY_S == 0) {
        fprintf(stderr, "cloche: %s ... %u s\n", p->what, seconds);
    }
}

void progress_end(struct progress *p)
{
    if (p->on_screen)
        fprintf(stderr, "\r\033[K");
    p->on_screen = false;
}
