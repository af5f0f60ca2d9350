/* The sub-commands that talk to a daemon; `cloche doctor` is in cli/doctor. */
#pragma once

#include "cli/common/command.h"

extern const struct command command_run, command_create, command_exec, command_shell, command_logs,
    command_input, command_kill, command_ps, command_rm, command_cp, command_info;
