#include "priv/state.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

void priv_fail(struct priv *p, const char *format, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (!p->failed)
        log_error("%s; ending all sandboxes", text);
    p->failed = true;
}
