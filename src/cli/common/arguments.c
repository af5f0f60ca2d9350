#include "cli/common/arguments.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/common/command.h"

void arguments_init(struct argument_parser *p, const struct command *command,
                    const struct argument_option *options, int argc, char **argv)
{
    *p = (struct argument_parser){
        .command = command, .options = options, .argc = argc, .argv = argv, .next = 1};
}

int arguments_refuse(const struct command *command, struct error *e, const char *format, ...)
{
    char text[sizeof(e->message)];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    (void)error_set(e, ERR_USAGE, "%s", text);
    return error_remedy(e, "See `cloche %s --help`.", command->name);
}

/* A decimal number with nothing around it, from `min` to `max`: 0, or -1. */
static int read_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
    char *end;

    /* strtoull takes blanks and signs in front; a plain number has none. */
    if (text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || number < min || number > max)
        return -1;
    *ret_number = number;
    return 0;
}

static void print_help(const struct command *command, const struct argument_option *options)
{
    printf("%s\n\nusage: cloche %s %s\n\n", command->summary, command->name, command->usage);
    for (const struct argument_option *o = options; o->name != NULL; o++) {
        char left[64];
        (void)snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value != NULL ? " " : "",
                       o->value != NULL ? o->value : "");
        printf("  %-24s %s\n", left, o->help);
    }
    printf("  %-24s %s\n", "--help", "this text");
    printf("\n%s", command->examples);
}

static size_t common_prefix(const char *a, const char *b, size_t size)
{
    size_t n = 0;

    while (n < size && a[n] != '\0' && a[n] == b[n])
        n++;
    return n;
}

/* An option that nobody knows: names the one that begins most like it. */
static int refuse_unknown(const struct argument_parser *p, const char *name, size_t size,
                          struct error *e)
{
    const char *like = NULL;
    size_t best = 1;

    for (const struct argument_option *o = p->options; o->name != NULL; o++) {
        size_t n = common_prefix(name, o->name, size);
        if (n > best) {
            best = n;
            like = o->name;
        }
    }
    (void)arguments_refuse(p->command, e, "unknown option --%.*s", (int)size, name);
    if (like != NULL)
        (void)error_remedy(e, "Did you mean --%s? See `cloche %s --help`.", like, p->command->name);
    return -1;
}

static int store(const struct argument_parser *p, const struct argument_option *o,
                 const char *value, struct error *e)
{
    if (o->text != NULL)
        *o->text = value;
    if (o->items != NULL) {
        if (o->items->count >= ARGUMENT_ITEMS_MAX)
            return arguments_refuse(p->command, e, "--%s more than %u times", o->name,
                                    ARGUMENT_ITEMS_MAX);
        o->items->items[o->items->count++] = value;
    }
    if (o->number != NULL && read_number(value, o->number_min, o->number_max, o->number) != 0)
        return arguments_refuse(p->command, e, "--%s %s: not a number from %llu to %llu", o->name,
                                value, (unsigned long long)o->number_min,
                                (unsigned long long)o->number_max);
    return 0;
}

/* Takes the option at argv[next], and its value. */
static int take_option(struct argument_parser *p, struct error *e)
{
    const char *arg = p->argv[p->next++];

    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
        print_help(p->command, p->options);
        p->help = true;
        p->next = p->argc;
        return 0;
    }
    if (arg[1] != '-')
        return arguments_refuse(p->command, e, "unknown option %s", arg);

    const char *name = arg + 2;
    const char *equals = strchr(name, '=');
    size_t size = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct argument_option *o = p->options;
    while (o->name != NULL && (strlen(o->name) != size || memcmp(o->name, name, size) != 0))
        o++;
    if (o->name == NULL)
        return refuse_unknown(p, name, size, e);
    if (o->flag != NULL) {
        if (equals != NULL)
            return arguments_refuse(p->command, e, "--%s takes no value", o->name);
        *o->flag = true;
        return 0;
    }
    if (equals == NULL && p->next >= p->argc)
        return arguments_refuse(p->command, e, "--%s wants a value (%s)", o->name, o->value);
    return store(p, o, equals != NULL ? equals + 1 : p->argv[p->next++], e);
}

/* A lone "-" is an operand: standard input or output. */
static bool is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0';
}

int arguments_parse(struct argument_parser *p, struct error *e)
{
    while (p->next < p->argc && is_option(p->argv[p->next])) {
        if (strcmp(p->argv[p->next], "--") == 0) {
            p->next++;
            return 0;
        }
        if (take_option(p, e) != 0)
            return -1;
    }
    return 0;
}

int arguments_parse_all(struct argument_parser *p, const char **ret_operands, size_t operands_max,
                        size_t *ret_count, struct error *e)
{
    size_t count = 0;
    bool only_operands = false;

    while (p->next < p->argc) {
        const char *arg = p->argv[p->next];
        if (!only_operands && strcmp(arg, "--") == 0) {
            only_operands = true;
            p->next++;
        } else if (!only_operands && is_option(arg)) {
            if (take_option(p, e) != 0)
                return -1;
        } else if (count == operands_max) {
            return arguments_refuse(p->command, e, "unexpected argument \"%s\"", arg);
        } else {
            ret_operands[count++] = arg;
            p->next++;
        }
    }
    *ret_count = count;
    return 0;
}
