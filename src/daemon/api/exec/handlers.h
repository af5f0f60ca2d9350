/* Handlers that run a command: in a sandbox that is there, or in one of its own. */
#pragma once

struct exchange;

/* api_exec.c */
void api_exec(struct exchange *x);

/* api_run.c */
void api_run(struct exchange *x);
