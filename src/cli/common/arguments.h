/*
 * Options of a sub-command, from a table that also makes its --help. `--name VALUE` and
 * `--name=VALUE` are the same; `--` ends the options. -h stands for --help, nothing else has a
 * short form.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct command;

#define ARGUMENT_ITEMS_MAX 1024u

/* Values of an option that may be given more than once. */
struct argument_items {
    const char *items[ARGUMENT_ITEMS_MAX];
    size_t count;
};

/* One option: exactly one of the targets is set, which also says what kind of value it takes. */
struct argument_option {
    const char *name;
    const char *value; /* what the help calls the value; NULL for a flag */
    const char *help;
    bool *flag;
    const char **text;
    struct argument_items *items;
    uint64_t *number; /* from number_min to number_max */
    uint64_t number_min;
    uint64_t number_max;
};

struct argument_parser {
    const struct command *command;
    const struct argument_option *options; /* ended by one without a name */
    int argc;
    char **argv;
    int next;  /* index of the next argument */
    bool help; /* --help was given and has been printed; the command ends with success */
};

/* argv[0] is the command's name. */
void arguments_init(struct argument_parser *p, const struct command *command,
                    const struct argument_option *options, int argc, char **argv);

/* Takes options up to the first operand, or up to and including `--`. Returns 0, or -1 with
 * ERR_USAGE. */
int arguments_parse(struct argument_parser *p, struct error *e) __attribute__((warn_unused_result));

/* Takes all that is left, operands anywhere between the options; at most `operands_max` of them. */
int arguments_parse_all(struct argument_parser *p, const char **ret_operands, size_t operands_max,
                        size_t *ret_count, struct error *e) __attribute__((warn_unused_result));

/* A usage error of this command, with the remedy to look at its help; returns -1. */
int arguments_refuse(const struct command *command, struct error *e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
