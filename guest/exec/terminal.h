/* The pseudo-terminal of a command: what the kernel's driver does (line discipline, signals by key,
 * job control) is all there is to it; this file opens one and turns its few knobs. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/*
 * Opens a terminal of that size. The slave belongs to `uid`, mode 0620; the master is non-blocking,
 * both are close-on-exec. Returns 0, or -1 with errno and nothing opened.
 */
int terminal_open(uid_t uid, uint16_t rows, uint16_t columns, int *ret_master, int *ret_slave)
    __attribute__((warn_unused_result));

/* Tells the terminal, and by SIGWINCH its foreground processes, a new size. */
void terminal_resize(int master, uint16_t rows, uint16_t columns);

/* The key that its line discipline takes for an end of file (usually Ctrl-D); -1: it has none. */
int terminal_eof_key(int master);
