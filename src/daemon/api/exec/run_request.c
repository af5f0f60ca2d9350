#include "daemon/api/exec/run_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "cloche/limits.h"
#include "daemon/link/file_mode.h"
#include "daemon/link/guest_call.h"

static const struct json_field run_fields[] = {
    SANDBOX_FIELD_ROWS(offsetof(struct run_request, sandbox)),
    EXEC_FIELD_ROWS(offsetof(struct run_request, exec.fields)),
    {.name = "files",
     .type = JSON_ARRAY,
     .max = RUN_FILES_MAX,
     .offset = offsetof(struct run_request, file_items)},
    {.name = "collect",
     .type = JSON_STRINGS,
     .max = RUN_FILES_MAX,
     .item_max = CHANNEL_PATH_MAX - 1,
     .offset = offsetof(struct run_request, collect)},
};

struct file_fields {
    const char *path;
    const char *content;
    const char *content_base64;
    const char *mode;
};

static const struct json_field file_fields[] = {
    {.name = "path",
     .type = JSON_STRING,
     .required = true,
     .max = CHANNEL_PATH_MAX - 1,
     .offset = offsetof(struct file_fields, path)},
    {.name = "content",
     .type = JSON_STRING,
     .max = HTTP_JSON_BODY_MAX,
     .offset = offsetof(struct file_fields, content)},
    {.name = "content_base64",
     .type = JSON_STRING,
     .max = HTTP_JSON_BODY_MAX,
     .offset = offsetof(struct file_fields, content_base64)},
    {.name = "mode", .type = JSON_STRING, .max = 8, .offset = offsetof(struct file_fields, mode)},
};

static int decode(struct run_file *file, const char *text, struct error *e)
{
    size_t size = strlen(text);

    file->decoded = malloc(base64_decoded_max(size) + 1);
    if (file->decoded == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for content_base64");
    if (base64_decode(text, size, file->decoded, &file->size) != 0) {
        (void)error_set(e, ERR_INVALID_FIELD, "content_base64 is not base64");
        return error_remedy(e,
                            "Encode with the standard alphabet and padding, without line breaks.");
    }
    file->data = file->decoded;
    return 0;
}

static int take_file(struct run_file *file, const struct file_fields *f, struct error *e)
{
    if (guest_call_check_path(f->path, strlen(f->path), e) != 0 ||
        file_mode_parse(f->mode, &file->mode, e) != 0)
        return -1;
    file->path = f->path;
    if ((f->content != NULL) == (f->content_base64 != NULL)) {
        (void)error_set(e, ERR_INVALID_FIELD,
                        f->content != NULL ? "content and content_base64 are both given"
                                           : "neither content nor content_base64 is given");
        return error_remedy(e, "Give text as \"content\", or bytes as \"content_base64\".");
    }
    if (f->content_base64 != NULL)
        return decode(file, f->content_base64, e);
    file->data = (const uint8_t *)f->content;
    file->size = strlen(f->content);
    return 0;
}

static int take_files(struct run_request *r, struct error *e)
{
    size_t count = (size_t)cJSON_GetArraySize(r->file_items);
    const cJSON *item;
    char where[32];

    r->files = calloc(count + 1, sizeof(*r->files));
    if (r->files == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for files");
    cJSON_ArrayForEach (item, r->file_items) {
        struct file_fields f = {0};
        size_t i = r->file_count++;

        (void)snprintf(where, sizeof(where), "files[%zu].", i);
        if (!cJSON_IsObject(item))
            return error_set(e, ERR_INVALID_FIELD, "files[%zu] must be an object, not %s", i,
                             json_type_text(item));
        if (json_read(item, where, file_fields, sizeof(file_fields) / sizeof(file_fields[0]), &f,
                      e) != 0)
            return -1;
        if (take_file(&r->files[i], &f, e) != 0)
            return error_wrap(e, "files[%zu]", i);
    }
    return 0;
}

static int check_collect(const struct run_request *r, struct error *e)
{
    const cJSON *item;
    size_t i = 0;

    cJSON_ArrayForEach (item, r->collect) {
        if (guest_call_check_path(item->valuestring, strlen(item->valuestring), e) != 0)
            return error_wrap(e, "collect[%zu]", i);
        i++;
    }
    return 0;
}

int run_request_parse(struct run_request *r, const void *body, size_t size, struct error *e)
{
    if (json_parse_object(body, size, &r->tree, e) != 0 ||
        json_read(r->tree, "", run_fields, sizeof(run_fields) / sizeof(run_fields[0]), r, e) != 0 ||
        exec_request_check(&r->exec, e) != 0 || take_files(r, e) != 0)
        return -1;
    return check_collect(r, e);
}

void run_request_fini(struct run_request *r)
{
    for (size_t i = 0; i < r->file_count; i++)
        free(r->files[i].decoded);
    free(r->files);
    exec_request_fini(&r->exec);
    cJSON_Delete(r->tree);
    *r = (struct run_request){0};
}
