/* The first half of the EXEC operation: from the bytes of the request to a running process. */
#pragma once

#include "base/wire.h"

struct service;
struct stream;

/* Reads the request and starts the command. Returns -1 where the request is malformed. Where the
 * command cannot be started the stream has ended with the reason; else INFO has been sent. */
int command_start(struct service *v, struct stream *s, struct wire_reader *r);
