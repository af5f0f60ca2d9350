/*
 * What a command waits for, on stderr, once it has taken two seconds: on a terminal one line that
 * counts and disappears at the end, else a line at two seconds and then every ten.
 */
#pragma once

#include <stdbool.h>

struct progress {
    const char *what;
    bool on_screen; /* a line stands on the terminal */
};

void progress_tick(struct progress *p, unsigned seconds);

/* Removes the line. */
void progress_end(struct progress *p);
