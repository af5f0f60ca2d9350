/* The commands' options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/common/arguments.h"
#include "cli/common/command.h"

static const struct command command = {
    .name = "test", .summary = "s", .usage = "u", .examples = "e"};

struct values {
    bool flag;
    const char *text;
    uint64_t number;
    struct argument_items items;
};

static struct values values;

static const struct argument_option options[] = {
    {.name = "flag", .flag = &values.flag, .help = "h"},
    {.name = "text", .value = "T", .text = &values.text, .help = "h"},
    {.name = "number",
     .value = "N",
     .number = &values.number,
     .number_min = 1,
     .number_max = 10,
     .help = "h"},
    {.name = "item", .value = "I", .items = &values.items, .help = "h"},
    {.name = NULL},
};

static int count_of(char **argv)
{
    int count = 0;

    while (argv[count] != NULL)
        count++;
    return count;
}

static void start(struct argument_parser *p, char **argv)
{
    values = (struct values){.flag = false};
    arguments_init(p, &command, options, count_of(argv), argv);
}

#define ARGV(...)                                                                                  \
    (char *[])                                                                                     \
    {                                                                                              \
        (char *)(uintptr_t) "test", __VA_ARGS__, NULL                                              \
    }
#define S(text) ((char *)(uintptr_t)(text))

static void takes_options_up_to_the_command(void **state)
{
    struct error e = ERROR_INIT;
    struct argument_parser p;

    (void)state;
    start(&p, ARGV(S("--flag"), S("--text=a=b"), S("--number"), S("7"), S("--item"), S("x"),
                   S("--item=y"), S("--"), S("--flag"), S("z")));
    assert_int_equal(arguments_parse(&p, &e), 0);
    assert_true(values.flag);
    assert_string_equal(values.text, "a=b");
    assert_int_equal(values.number, 7);
    assert_int_equal(values.items.count, 2);
    assert_string_equal(values.items.items[1], "y");
    assert_string_equal(p.argv[p.next], "--flag");
    assert_int_equal(p.argc - p.next, 2);
}

static void stops_at_the_first_operand(void **state)
{
    struct error e = ERROR_INIT;
    struct argument_parser p;

    (void)state;
    start(&p, ARGV(S("--flag"), S("ls"), S("-l"), S("--nonsense")));
    assert_int_equal(arguments_parse(&p, &e), 0);
    assert_string_equal(p.argv[p.next], "ls");
}

static void takes_operands_between_options(void **state)
{
    struct error e = ERROR_INIT;
    struct argument_parser p;
    const char *operands[3];
    size_t count;

    (void)state;
    start(&p, ARGV(S("a"), S("--flag"), S("-"), S("--"), S("--b")));
    assert_int_equal(arguments_parse_all(&p, operands, 3, &count, &e), 0);
    assert_int_equal(count, 3);
    assert_string_equal(operands[0], "a");
    assert_string_equal(operands[1], "-");
    assert_string_equal(operands[2], "--b");
    assert_true(values.flag);

    start(&p, ARGV(S("a"), S("b")));
    assert_int_equal(arguments_parse_all(&p, operands, 1, &count, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_non_null(strstr(e.message, "\"b\""));
}

static void refuses_what_it_does_not_know(void **state)
{
    static const struct {
        const char *arg;
        const char *in_message;
        const char *in_remedy;
    } cases[] = {
        {"--nonsense", "--nonsense", "--help"},
        {"--tex", "--tex", "Did you mean --text?"},
        {"--numbre=1", "--numbre", "Did you mean --number?"},
        {"-x", "-x", "--help"},
        {"--text", "wants a value", "--help"},
        {"--flag=1", "takes no value", "--help"},
        {"--number=0", "from 1 to 10", "--help"},
        {"--number=11", "from 1 to 10", "--help"},
        {"--number=+1", "from 1 to 10", "--help"},
        {"--number= 1", "from 1 to 10", "--help"},
        {"--number=1x", "from 1 to 10", "--help"},
        {"--number=", "from 1 to 10", "--help"},
        {"--number=99999999999999999999", "from 1 to 10", "--help"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error e = ERROR_INIT;
        struct argument_parser p;
        start(&p, ARGV(S(cases[i].arg)));
        assert_int_equal(arguments_parse(&p, &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
        assert_non_null(strstr(e.message, cases[i].in_message));
        assert_non_null(strstr(e.remedy, cases[i].in_remedy));
        assert_non_null(strstr(e.remedy, "cloche test --help"));
    }
}

static void bounds_the_items(void **state)
{
    static char *argv[ARGUMENT_ITEMS_MAX + 3];
    struct error e = ERROR_INIT;
    struct argument_parser p;

    (void)state;
    argv[0] = S("test");
    for (size_t i = 0; i <= ARGUMENT_ITEMS_MAX; i++)
        argv[1 + i] = S("--item=x");
    start(&p, argv);
    assert_int_equal(arguments_parse(&p, &e), -1);
    assert_int_equal(values.items.count, ARGUMENT_ITEMS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_options_up_to_the_command),
        cmocka_unit_test(stops_at_the_first_operand),
        cmocka_unit_test(takes_operands_between_options),
        cmocka_unit_test(refuses_what_it_does_not_know),
        cmocka_unit_test(bounds_the_items),
    };
    return cmocka_run_group_tests_name("cli arguments", tests, NULL, NULL);
}
