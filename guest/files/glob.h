/*
 * Patterns for paths, component by component: `*` stands for any characters, `?` for one, `[a-z]`
 * and `[!a-z]` for one of (not of) a set, `\` takes the next character as it is, and a component of
 * `**` stands for any number of components, none included. A leading dot is like any character.
 * Nothing is malformed: a bracket that is not closed stands for itself. A character is one of UTF-8
 * or, where the bytes are not one, a byte.
 */
#pragma once

#include <stdbool.h>

/* Whether all of `path` (relative, one slash between components) matches. */
bool glob_match(const char *pattern, const char *path);

/* Whether something below the directory `path` could match. */
bool glob_leads(const char *pattern, const char *path);
