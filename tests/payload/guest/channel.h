/* The agent's end of the channel, for payloads that talk with the test. */
#pragma once

#include <stdint.h>

/* Sets the console up and opens its port. */
void channel_open(void);

/* Returns when the monitor has sent all of it. */
void channel_send(const char *text);

/* The next byte from the test; -1 while there is none. */
int channel_poll(void);
