/*
 * The user's terminal while a program in a sandbox has it: in raw mode every key goes to the guest,
 * whose own terminal gives Ctrl-C and the like their meaning. Whatever way the process ends (a
 * signal that can be caught included), the modes are put back as they were.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Whether standard input and standard output are a terminal; ERR_USAGE. */
int raw_terminal_check(struct error *e) __attribute__((warn_unused_result));

/* Standard input becomes raw. */
int raw_terminal_enter(struct error *e) __attribute__((warn_unused_result));
/* Accepts one that was not entered. */
void raw_terminal_leave(void);

/* The size of the terminal; 24 by 80 where it does not know. */
void raw_terminal_size(uint16_t *ret_rows, uint16_t *ret_columns);

/* Readable when the size may have changed. */
int raw_terminal_news_fd(void);
/* Takes what made it readable. */
void raw_terminal_take_news(void);
