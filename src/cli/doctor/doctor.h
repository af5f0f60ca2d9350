/* cloche doctor: what this host has, line by line, and how to mend what is missing. */
#pragma once

#include "cli/common/command.h"

extern const struct command command_doctor;
