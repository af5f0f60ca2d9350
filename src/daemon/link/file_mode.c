#include "daemon/link/file_mode.h"

#include <stddef.h>
#include <stdlib.h>

int file_mode_parse(const char *text, uint32_t *ret_mode, struct error *e)
{
    char *end;

    if (text == NULL) {
        *ret_mode = FILE_MODE_DEFAULT;
        return 0;
    }
    unsigned long mode = strtoul(text, &end, 8);
    if (text[0] < '0' || text[0] > '7' || *end != '\0' || mode > 07777) {
        (void)error_set(e, ERR_INVALID_FIELD, "mode \"%.20s\" is no file mode", text);
        return error_remedy(e, "Give permission bits in octal, as in 0755.");
    }
    *ret_mode = (uint32_t)mode;
    return 0;
}
