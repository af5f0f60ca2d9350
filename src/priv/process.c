#include "priv/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

#define STAT_FIELD_START_TIME 22

int process_stat_parse(const char *text, size_t size, uint64_t *ret_start_time)
{
    /* Field 2 is the command in parentheses and may hold anything, so count from its end. */
    const char *p = size > 0 ? memrchr(text, ')', size) : NULL;
    const char *end = text + size;
    uint64_t value = 0;
    bool digits = false;

    if (p == NULL)
        return -1;
    p++;
    for (unsigned field = 2; field < STAT_FIELD_START_TIME; field++) {
        if (p == end)
            return -1;
        const char *blank = memchr(p, ' ', (size_t)(end - p));
        if (blank == NULL)
            return -1;
        p = blank + 1;
    }
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return -1;
        digits = true;
    }
    if (!digits || p == end || *p != ' ')
        return -1;
    *ret_start_time = value;
    return 0;
}

int process_start_time(int proc_fd, pid_t pid, uint64_t *ret_start_time)
{
    char path[24];
    char text[1024];

    (void)snprintf(path, sizeof(path), "%d/stat", pid);
    FD_AUTO int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? fd_read_full(fd, text, sizeof(text)) : -1;
    if (n <= 0)
        return -1;
    return process_stat_parse(text, (size_t)n, ret_start_time);
}

static int hex_value(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *p = c != '\0' ? strchr(digits, c) : NULL;

    return p != NULL ? (int)(p - digits) : -1;
}

int process_boot_id(int proc_fd, uint8_t ret_id[16])
{
    char text[37] = {0};
    unsigned digits = 0;
    FD_AUTO int fd = openat(proc_fd, "sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fd_read_full(fd, text, sizeof(text) - 1) < 0)
        return -1;
    memset(ret_id, 0, 16);
    for (const char *p = text; *p != '\0' && digits < 32; p++) {
        int value = hex_value(*p);

        if (value < 0)
            continue;
        ret_id[digits / 2] = (uint8_t)(ret_id[digits / 2] << 4 | value);
        digits++;
    }
    if (digits == 32)
        return 0;
    errno = EINVAL;
    return -1;
}

int process_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int process_kill(int pidfd)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

int process_wait(int pidfd, int timeout_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : -1;
}
