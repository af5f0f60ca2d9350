#include "cli/common/places.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const beside_program[] = {"images", "../images", "../lib/cloche/images"};

const char *place_socket(const char *option)
{
    const char *named = option != NULL ? option : getenv("CLOCHE_SOCKET");

    return named != NULL && named[0] != '\0' ? named : PLACE_SOCKET;
}

void place_images_dir(char *ret_path, size_t size)
{
    char program[PATH_MAX], candidate[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    char *slash = n > 0 ? memrchr(program, '/', (size_t)n) : NULL;

    (void)snprintf(ret_path, size, "/usr/local/lib/cloche/images");
    if (slash == NULL)
        return;
    *slash = '\0';
    for (size_t i = 0; i < sizeof(beside_program) / sizeof(beside_program[0]); i++) {
        (void)snprintf(candidate, sizeof(candidate), "%s/%s", program, beside_program[i]);
        if (access(candidate, F_OK) == 0) {
            (void)snprintf(ret_path, size, "%s", candidate);
            return;
        }
    }
}
