#include "cli/common/report.h"

#include <stdio.h>

void report_error(const struct error *e)
{
    char text[sizeof(*e) + 16];

    error_format(e, text, sizeof(text));
    fprintf(stderr, "cloche: %s\n", text);
}
