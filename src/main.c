/* One binary: the command line, and the roles that `cloche serve` makes of itself. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cloche/version.h"
#include "daemon/daemon.h"
#include "priv/priv.h"
#include "serve/serve.h"

#define EXIT_USAGE 2

static int show_version(int argc, char **argv);
static int show_help(int argc, char **argv);

/* What is not among the commands of cli/cli.h. Handlers get their own name as argv[0]. */
static const struct command {
    const char *name;
    const char *alias; /* NULL: none */
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"serve", NULL, serve_main, "run the daemon (as root)"},
    {"version", "--version", show_version, "print the version"},
    {"help", "--help", show_help, "print this, or help on one command"},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

/* Hidden: they need the descriptors that only `cloche serve` gives them. */
static const struct role {
    const char *option;
    int (*run)(void);
} roles[] = {
    {"--role=priv", priv_main},
    {"--role=daemon", daemon_main},
};
#define ROLE_COUNT (sizeof(roles) / sizeof(roles[0]))

static int (*find_command(const char *name))(int argc, char **argv)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(name, commands[i].name) == 0 ||
            (commands[i].alias != NULL && strcmp(name, commands[i].alias) == 0))
            return commands[i].run;
    return cli_has_command(name) ? cli_main : NULL;
}

static void print_commands(void)
{
    (void)printf("usage: cloche COMMAND [ARGUMENT]...\n\n");
    cli_print_commands();
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        (void)printf("  %-8s %s\n", commands[i].name, commands[i].summary);
    (void)printf("\n`cloche COMMAND --help` says more.\n");
}

static int refuse(const char *name)
{
    (void)fprintf(stderr, "cloche: there is no command '%s'\n  `cloche help` lists them\n", name);
    return EXIT_USAGE;
}

static int show_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return printf("cloche %s\n", CLOCHE_VERSION) < 0 ? 1 : 0;
}

static int show_help(int argc, char **argv)
{
    char option[] = "--help";

    if (argc < 2) {
        print_commands();
        return 0;
    }
    int (*run)(int, char **) = find_command(argv[1]);
    if (run == NULL)
        return refuse(argv[1]);
    if (run == show_help || run == show_version) {
        print_commands();
        return 0;
    }
    char *arguments[] = {argv[1], option, NULL};
    return run(2, arguments);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_commands();
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        if (strcmp(argv[1], roles[i].option) != 0)
            continue;
        /* Memory of a role is nobody's business, from its first line on. */
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        /* No exit handlers: a role has closed what it opened, and may be jailed. */
        _exit(roles[i].run());
    }
    int (*run)(int, char **) = find_command(argv[1]);
    if (run == NULL)
        return refuse(argv[1]);
    return run(argc - 1, argv + 1);
}
