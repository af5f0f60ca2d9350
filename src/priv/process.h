/* Telling processes apart for longer than their pid lives. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Field 22 (start time in clock ticks since boot) of the text of /proc/PID/stat; proc_pid_stat(5).
 * Returns 0, or -1 for a text that is not of that form. */
int process_stat_parse(const char *text, size_t size, uint64_t *ret_start_time);

/* The start time of a live process or zombie; -1 where there is none. `proc_fd` is /proc. */
int process_start_time(int proc_fd, pid_t pid, uint64_t *ret_start_time);

/* This boot's random id (16 bytes); -1 with errno. */
int process_boot_id(int proc_fd, uint8_t ret_id[16]);

/* pidfd_open(2) and pidfd_send_signal(2), which glibc 2.36 lacks. */
int process_open(pid_t pid);
int process_kill(int pidfd);

/* Waits until the process has ended, up to `timeout_ms`; -1 when it has not. */
int process_wait(int pidfd, int timeout_ms);
