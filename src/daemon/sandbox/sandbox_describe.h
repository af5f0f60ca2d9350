/* A sandbox as the API shows it. */
#pragma once

#include <stdbool.h>

#include "daemon/sandbox/sandbox.h"

struct json_writer;

/* Writes the fields of the API's sandbox object into the object that is open in `w`. */
void sandbox_describe(const struct sandbox *s, struct json_writer *w);
/* Writes the member "times": {"restore_ms","first_instruction_ms","ready_ms"}. */
void sandbox_describe_times(const struct sandbox *s, struct json_writer *w);

const char *sandbox_pool_name(const struct sandbox *s);
const char *sandbox_end_name(enum sandbox_end why);
bool sandbox_has_label(const struct sandbox *s, const char *name, const char *value);
