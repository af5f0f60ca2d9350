#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands/commands.h"
#include "cli/common/interrupt.h"
#include "cli/common/report.h"
#include "cli/doctor/doctor.h"

static const struct command *const commands[] = {
    &command_run,  &command_create, &command_exec, &command_shell, &command_logs, &command_input,
    &command_kill, &command_ps,     &command_rm,   &command_cp,    &command_info, &command_doctor,
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

bool cli_has_command(const char *name)
{
    return find_command(name) != NULL;
}

void cli_print_commands(void)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        printf("  %-8s %s\n", commands[i]->name, commands[i]->summary);
}

int cli_main(int argc, char **argv)
{
    struct error e = ERROR_INIT;
    const struct command *command = find_command(argv[0]);

    if (command == NULL) {
        (void)error_set(&e, ERR_USAGE, "unknown command \"%s\"", argv[0]);
        (void)error_remedy(&e, "See `cloche --help`.");
        report_error(&e);
        return error_exit_code(e.code);
    }
    interrupt_init();
    int code = command->run(command, argc, argv, &e);
    if (fflush(stdout) != 0 && code == 0)
        code = error_errno(&e, errno, "standard output");
    /* Whoever pressed Ctrl-C knows why the command ended. */
    if (interrupt_signal() != 0)
        return 128 + interrupt_signal();
    if (code < 0) {
        report_error(&e);
        return error_exit_code(e.code);
    }
    return code;
}
