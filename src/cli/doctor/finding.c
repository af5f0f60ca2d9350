#include "cli/doctor/finding.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/fd.h"

void finding_set(struct finding *f, enum finding_level level, const char *format, ...)
{
    va_list args;

    *f = (struct finding){.level = level};
    va_start(args, format);
    (void)vsnprintf(f->text, sizeof(f->text), format, args);
    va_end(args);
}

void finding_remedy(struct finding *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(f->remedy, sizeof(f->remedy), format, args);
    va_end(args);
}

void finding_read(const char *path, char *ret_text, size_t size)
{
    FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : fd_read_full(fd, ret_text, size - 1);

    ret_text[n > 0 ? n : 0] = '\0';
}
