#include "daemon/process/signal_name.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 64
#define RT_LIBC    34 /* SIGRTMIN: a C library keeps the first two for itself */

static const struct {
    const char *name;
    uint32_t number;
} names[] = {
    {"HUP", SIGHUP},   {"INT", SIGINT},       {"QUIT", SIGQUIT}, {"ILL", SIGILL},
    {"TRAP", SIGTRAP}, {"ABRT", SIGABRT},     {"BUS", SIGBUS},   {"FPE", SIGFPE},
    {"KILL", SIGKILL}, {"USR1", SIGUSR1},     {"SEGV", SIGSEGV}, {"USR2", SIGUSR2},
    {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},     {"TERM", SIGTERM}, {"STKFLT", SIGSTKFLT},
    {"CHLD", SIGCHLD}, {"CONT", SIGCONT},     {"STOP", SIGSTOP}, {"TSTP", SIGTSTP},
    {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU},     {"URG", SIGURG},   {"XCPU", SIGXCPU},
    {"XFSZ", SIGXFSZ}, {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"WINCH", SIGWINCH},
    {"IO", SIGIO},     {"POLL", SIGIO},       {"PWR", SIGPWR},   {"SYS", SIGSYS},
};

/* All of `text` as a number from `low` to `high`; 0 where it is not one. */
static uint32_t parse_number(const char *text, unsigned long low, unsigned long high)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && number >= low && number <= high
               ? (uint32_t)number
               : 0;
}

int signal_name_parse(const char *text, uint32_t *ret_number, struct error *e)
{
    const char *name = strncmp(text, "SIG", 3) == 0 ? text + 3 : text;
    uint32_t number = parse_number(text, 1, NUMBER_MAX);

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && number == 0; i++) {
        if (strcmp(names[i].name, name) == 0)
            number = names[i].number;
    }
    if (number == 0 && strcmp(name, "RTMIN") == 0)
        number = RT_LIBC;
    else if (number == 0 && strncmp(name, "RTMIN+", 6) == 0)
        number = parse_number(name + 6, 1, NUMBER_MAX - RT_LIBC) + RT_LIBC;
    if (number == 0 || (number == RT_LIBC && strchr(name, '+') != NULL)) {
        (void)error_set(e, ERR_INVALID_FIELD, "signal \"%.20s\" is unknown", text);
        return error_remedy(e, "Give a name (TERM, SIGTERM, RTMIN+1) or a number from 1 to %d.",
                            NUMBER_MAX);
    }
    *ret_number = number;
    return 0;
}
