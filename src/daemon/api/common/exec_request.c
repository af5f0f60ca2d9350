#include "daemon/api/common/exec_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "cloche/limits.h"
#include "daemon/machine/template.h"
#include "daemon/process/process_table.h"
#include "daemon/sandbox/sandbox.h"

/* Members of "limits": the kind, and what one unit of it is. */
static const struct {
    const char *name;
    enum channel_limit_kind kind;
    int64_t max;
    uint64_t unit;
} limit_kinds[CHANNEL_LIMIT_COUNT] = {
    {"memory_mib", CHANNEL_LIMIT_MEMORY, SANDBOX_MEM_MIB_MAX, MIB},
    {"processes", CHANNEL_LIMIT_PROCESSES, 1000000, 1},
    {"cpu_s", CHANNEL_LIMIT_CPU, SANDBOX_TIMEOUT_S_MAX, 1},
    {"file_mib", CHANNEL_LIMIT_FILE, SANDBOX_DISK_MIB_MAX, MIB},
    {"open_files", CHANNEL_LIMIT_OPEN, 1000000, 1},
};

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

static int check_limits(struct exec_request *r, struct error *e)
{
    int64_t values[CHANNEL_LIMIT_COUNT] = {0};
    struct json_field fields[CHANNEL_LIMIT_COUNT];

    for (size_t i = 0; i < CHANNEL_LIMIT_COUNT; i++)
        fields[i] = (struct json_field){.name = limit_kinds[i].name,
                                        .type = JSON_INTEGER,
                                        .min = 1,
                                        .max = limit_kinds[i].max,
                                        .offset = i * sizeof(values[0])};
    if (json_read(r->fields.limits, "limits.", fields, CHANNEL_LIMIT_COUNT, values, e) != 0)
        return -1;
    for (size_t i = 0; i < CHANNEL_LIMIT_COUNT; i++) {
        if (values[i] > 0)
            r->limits[r->limit_count++] = (struct channel_limit){
                .kind = limit_kinds[i].kind, .value = (uint64_t)values[i] * limit_kinds[i].unit};
    }
    return 0;
}

static int check_umask(struct exec_request *r, struct error *e)
{
    const char *text = r->fields.umask;

    r->umask = CHANNEL_UMASK_DEFAULT;
    if (text == NULL)
        return 0;
    if (strspn(text, "01234567") != strlen(text) || strtoul(text, NULL, 8) > 0777)
        return bad_field(e, "umask is no file mode mask", "Give it in octal, as in \"022\".");
    r->umask = (uint32_t)strtoul(text, NULL, 8);
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
    if (check_umask(r, e) != 0 || (f->limits != NULL && check_limits(r, e) != 0))
        return -1;
    r->has_stdin = f->stdin_text != NULL || f->stdin_base64 != NULL;
    if (f->stdin_base64 != NULL)
        return decode_stdin(r, e);
    if (f->stdin_text != NULL) {
        r->stdin_data = (const uint8_t *)f->stdin_text;
        r->stdin_size = strlen(f->stdin_text);
    }
    return 0;
}

/* The arguments with spaces between them; what does not fit is cut off. */
static void set_command(struct exec_request *r)
{
    size_t used = 0;

    if (r->fields.shell != NULL) {
        (void)snprintf(r->command, sizeof(r->command), "%s", r->fields.shell);
        return;
    }
    for (const char **arg = r->argv; *arg != NULL && used < sizeof(r->command); arg++) {
        int n = snprintf(r->command + used, sizeof(r->command) - used, "%s%s",
                         arg == r->argv ? "" : " ", *arg);
        used += n > 0 ? (size_t)n : 0;
    }
}

static int make_argv(struct exec_request *r, const struct template *template, struct error *e)
{
    size_t count = r->fields.shell != NULL ? 3 : (size_t)cJSON_GetArraySize(r->fields.argv);
    const cJSON *item;
    size_t i = 0;

    r->argv = calloc(count + 1, sizeof(*r->argv));
    if (r->argv == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for argv");
    if (r->fields.shell != NULL) {
        r->argv[0] = template->shell;
        r->argv[1] = "-c";
        r->argv[2] = r->fields.shell;
        return 0;
    }
    cJSON_ArrayForEach (item, r->fields.argv)
        r->argv[i++] = item->valuestring;
    return 0;
}

int exec_request_complete(struct exec_request *r, const struct template *template,
                          const cJSON *sandbox_env, struct error *e)
{
    r->cwd = r->fields.cwd != NULL ? r->fields.cwd : template->cwd;
    if (env_merge_json(&r->env, template->env, e) != 0 ||
        env_merge_json(&r->env, sandbox_env, e) != 0 ||
        env_merge_json(&r->env, r->fields.env, e) != 0)
        return -1;
    if (make_argv(r, template, e) != 0)
        return -1;
    set_command(r);
    return 0;
}

int exec_request_start(const struct exec_request *r, const struct exec_request_life *life,
                       uv_loop_t *loop, struct sandbox *s, struct process **ret_process,
                       struct error *e)
{
    const char *const shell_only[] = {r->argv[0], NULL};
    int64_t limit = r->fields.max_output_bytes;
    const struct process_spec spec = {
        .exec = {.argv = life->is_session ? shell_only : r->argv,
                 .cwd = r->cwd,
                 .user = r->fields.user != NULL ? r->fields.user : "",
                 .env = &r->env,
                 .has_stdin = r->has_stdin || life->keeps_stdin,
                 .has_pty = r->has_pty,
                 .rows = r->rows,
                 .columns = r->columns,
                 .umask = r->umask,
                 .limits = r->limits,
                 .limit_count = r->limit_count,
                 .timeout_ms = life->is_session ? 0 : (uint64_t)r->fields.timeout_ms,
                 .output_bytes_max =
                     limit > 0 && !life->is_session ? (uint64_t)limit : life->output_bytes_default,
                 .arrived_ns = life->arrived_ns},
        .command = life->is_session ? r->argv[0] : r->command,
        .is_background = life->is_background,
        .keeps_stdin = life->keeps_stdin,
        .ring_bytes = life->ring_bytes,
        .stdin_data = r->stdin_data,
        .stdin_size = r->stdin_size};

    return process_table_start(sandbox_processes(s), loop, sandbox_agent(s), &spec, ret_process, e);
}

void exec_request_fini(struct exec_request *r)
{
    free(r->argv);
    free(r->decoded);
    env_fini(&r->env);
    *r = (struct exec_request){0};
}
