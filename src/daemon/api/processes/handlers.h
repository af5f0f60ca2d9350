/* Handlers of a sandbox's processes and its terminals. */
#pragma once

struct exchange;

/* api_processes.c */
void api_process_list(struct exchange *x);
void api_process_get(struct exchange *x);
void api_process_delete(struct exchange *x);
void api_process_signal(struct exchange *x);

/* api_process_io.c */
void api_process_stdin(struct exchange *x);
void api_process_output(struct exchange *x);

/* api_pty.c */
void api_pty(struct exchange *x);
