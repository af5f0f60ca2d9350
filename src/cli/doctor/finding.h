/* What a check of `cloche doctor` has found. */
#pragma once

#include <stddef.h>

enum finding_level { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct finding {
    enum finding_level level;
    char text[320];
    char remedy[320]; /* empty where there is nothing to mend */
};

/* Fills a finding; without a remedy at first. */
void finding_set(struct finding *f, enum finding_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void finding_remedy(struct finding *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A small text file, cut at size - 1 bytes; empty where it cannot be read. */
void finding_read(const char *path, char *ret_text, size_t size);
