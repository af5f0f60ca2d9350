/* What a command says on stderr when it fails. */
#pragma once

#include "base/error.h"

/* Prints a failure: message, cause, remedy. */
void report_error(const struct error *e);
