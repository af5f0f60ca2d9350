/*
 * A client at the terminal of a process, over a WebSocket. Binary messages are the terminal's
 * bytes, both ways; text messages are JSON:
 *
 *   to the client    {"type":"start","pid","command"}    first
 *                    {"type":"missed","bytes"}           so much output is not kept any more
 *                    {"type":"end", ...}                 last, as the end of an exec; then we close
 *                    {"type":"error","error":{...}}      what it said was not understood
 *   from the client  {"type":"resize","rows","cols"}
 *
 * A client gets what is kept of the output, then all that follows. It may go at any time; the
 * process stays. The guest waits for the slowest client, and one that takes nothing is cut.
 */
#pragma once

#include "base/error.h"

struct exchange;
struct process;

/* Answers a WebSocket's handshake and attaches the client; as websocket_accept(). */
int terminal_attach(struct exchange *x, struct process *p, struct error *e)
    __attribute__((warn_unused_result));
