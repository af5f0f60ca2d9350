#include "cli/terminal/raw_terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ROWS_DEFAULT    24u
#define COLUMNS_DEFAULT 80u

/* What ends a process by a mistake of ours; the rest is cli/interrupt.h's. */
static const int fatal_signals[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV};

static struct termios saved;
static volatile sig_atomic_t is_raw;
static int news[2] = {-1, -1};

static void restore(void)
{
    if (is_raw)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &saved);
    is_raw = 0;
}

static void on_fatal(int number)
{
    restore();
    (void)raise(number); /* the handler is gone (SA_RESETHAND) */
}

static int set_raw(void)
{
    struct termios raw = saved;

    cfmakeraw(&raw);
    return tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

/* SIGWINCH, and SIGCONT: while we were stopped the shell has put its own modes back. */
static void on_news(int number)
{
    int error = errno;

    if (number == SIGCONT && is_raw)
        (void)set_raw();
    (void)!write(news[1], "", 1);
    errno = error;
}

static int refuse(const char *which, struct error *e)
{
    (void)error_set(e, ERR_USAGE, "standard %s is not a terminal", which);
    return error_remedy(e, "Run it in a terminal; `cloche exec` runs commands without one.");
}

int raw_terminal_check(struct error *e)
{
    if (!isatty(STDIN_FILENO))
        return refuse("input", e);
    return isatty(STDOUT_FILENO) ? 0 : refuse("output", e);
}

int raw_terminal_enter(struct error *e)
{
    struct sigaction fatal = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction notice = {.sa_handler = on_news, .sa_flags = SA_RESTART};

    if (tcgetattr(STDIN_FILENO, &saved) != 0 || pipe2(news, O_CLOEXEC | O_NONBLOCK) != 0 ||
        atexit(restore) != 0)
        return error_errno(e, errno, "the terminal");
    for (size_t i = 0; i < sizeof(fatal_signals) / sizeof(fatal_signals[0]); i++)
        (void)sigaction(fatal_signals[i], &fatal, NULL);
    (void)sigaction(SIGWINCH, &notice, NULL);
    (void)sigaction(SIGCONT, &notice, NULL);
    is_raw = 1;
    if (set_raw() != 0)
        return error_errno(e, errno, "the terminal");
    return 0;
}

void raw_terminal_leave(void)
{
    restore();
}

void raw_terminal_size(uint16_t *ret_rows, uint16_t *ret_columns)
{
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0;

    *ret_rows = known ? size.ws_row : ROWS_DEFAULT;
    *ret_columns = known ? size.ws_col : COLUMNS_DEFAULT;
}

int raw_terminal_news_fd(void)
{
    return news[0];
}

void raw_terminal_take_news(void)
{
    char taken[64];

    while (read(news[0], taken, sizeof(taken)) > 0)
        continue;
}
