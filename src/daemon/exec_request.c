#include "daemon/exec_request.h"

#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "cloche/limits.h"
#include "daemon/template.h"

static int bad_field(struct error *e, const char *message, const char *remedy)
{
    (void)error_set(e, ERR_INVALID_FIELD, "%s", message);
    return error_remedy(e, "%s", remedy);
}

static int decode_stdin(struct exec_request *r, struct error *e)
{
    const char *text = r->fields.stdin_base64;
    size_t size = strlen(text);

    r->decoded = malloc(base64_decoded_max(size) + 1);
    if (r->decoded == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for stdin_base64");
    if (base64_decode(text, size, r->decoded, &r->stdin_size) != 0)
        return bad_field(e, "stdin_base64 is not base64",
                         "Encode with the standard alphabet and padding, without line breaks.");
    r->stdin_data = r->decoded;
    return 0;
}

int exec_request_check(struct exec_request *r, struct error *e)
{
    const struct exec_fields *f = &r->fields;

    if ((f->argv != NULL) == (f->shell != NULL))
        return bad_field(e,
                         f->argv != NULL ? "argv and shell are both given"
                                         : "neither argv nor shell is given",
                         "Give a program with its arguments as \"argv\" (an array), or one command "
                         "line as \"shell\" (a string).");
    if (f->argv != NULL && cJSON_GetArrayItem(f->argv, 0)->valuestring[0] == '\0')
        return bad_field(e, "argv[0] is empty", "It names the program to run.");
    if (f->cwd != NULL && f->cwd[0] != '/')
        return bad_field(e, "cwd is not absolute", "Start it with a '/', as in \"/workspace\".");
    if (f->stdin_text != NULL && f->stdin_base64 != NULL)
        return bad_field(e, "stdin and stdin_base64 are both given", "Give one of them.");
    r->has_stdin = f->stdin_text != NULL || f->stdin_base64 != NULL;
    if (f->stdin_base64 != NULL)
        return decode_stdin(r, e);
    if (f->stdin_text != NULL) {
        r->stdin_data = (const uint8_t *)f->stdin_text;
        r->stdin_size = strlen(f->stdin_text);
    }
    return 0;
}

static int make_argv(struct exec_request *r, const struct template *t, struct error *e)
{
    size_t count = r->fields.shell != NULL ? 3 : (size_t)cJSON_GetArraySize(r->fields.argv);
    const cJSON *item;
    size_t i = 0;

    r->argv = calloc(count + 1, sizeof(*r->argv));
    if (r->argv == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for argv");
    if (r->fields.shell != NULL) {
        r->argv[0] = t->shell;
        r->argv[1] = "-c";
        r->argv[2] = r->fields.shell;
        return 0;
    }
    cJSON_ArrayForEach (item, r->fields.argv)
        r->argv[i++] = item->valuestring;
    return 0;
}

int exec_request_complete(struct exec_request *r, const struct template *t,
                          const cJSON *sandbox_env, struct error *e)
{
    r->cwd = r->fields.cwd != NULL ? r->fields.cwd : t->cwd;
    if (env_merge_json(&r->env, t->env, e) != 0 || env_merge_json(&r->env, sandbox_env, e) != 0 ||
        env_merge_json(&r->env, r->fields.env, e) != 0)
        return -1;
    return make_argv(r, t, e);
}

void exec_request_spec(const struct exec_request *r, uint64_t arrived_ns,
                       uint64_t output_bytes_default, struct exec_spec *ret_spec)
{
    int64_t limit = r->fields.max_output_bytes;

    *ret_spec = (struct exec_spec){
        .argv = r->argv,
        .cwd = r->cwd,
        .user = r->fields.user != NULL ? r->fields.user : "",
        .env = &r->env,
        .has_stdin = r->has_stdin,
        .timeout_ms = (uint64_t)r->fields.timeout_ms,
        .output_bytes_max = limit > 0 ? (uint64_t)limit : output_bytes_default,
        .arrived_ns = arrived_ns,
    };
}

void exec_request_fini(struct exec_request *r)
{
    free(r->argv);
    free(r->decoded);
    env_fini(&r->env);
    *r = (struct exec_request){0};
}
