#include "cli/client/target.h"

#include "http/target.h"

int target_make(struct buffer *ret_target, const char *id, const char *pid, const char *rest,
                struct error *e)
{
    if (buffer_append_text(ret_target, "/v1/sandboxes/") != 0 ||
        http_escape_append(ret_target, id) != 0 ||
        (pid != NULL && (buffer_append_text(ret_target, "/processes/") != 0 ||
                         http_escape_append(ret_target, pid) != 0)) ||
        buffer_append_text(ret_target, rest) != 0 || buffer_append(ret_target, "", 1) != 0)
        return error_set(e, ERR_USAGE, "the sandbox's id or the process's number is too long");
    return 0;
}
