/* Errors as the API carries them. */
#include <stdio.h>
#include <string.h>

#include "json/json_write.h"

void json_put_error_member(struct json_writer *w, const struct error *e, const char *request_id)
{
    json_begin_object(w, "error");
    json_put_text(w, "code", error_name(e->code));
    json_put_text(w, "message", e->message);
    if (e->cause[0] != '\0')
        json_put_text(w, "cause", e->cause);
    if (e->remedy[0] != '\0')
        json_put_text(w, "remedy", e->remedy);
    if (request_id != NULL)
        json_put_text(w, "request_id", request_id);
    json_end_object(w);
}

void json_put_error(struct json_writer *w, const struct error *e, const char *request_id)
{
    json_begin_object(w, NULL);
    json_put_error_member(w, e, request_id);
    json_end_object(w);
}

static const char *text_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsString(item) ? item->valuestring : "";
}

int json_error_read(const cJSON *reply, struct error *e)
{
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(reply, "error");

    if (!cJSON_IsObject(object))
        return error_set(e, ERR_INTERNAL, "the reply is not an error as the API has them");
    error_set(e, error_from_name(text_of(object, "code")), "%s", text_of(object, "message"));
    error_cause(e, "%s", text_of(object, "cause"));
    return error_remedy(e, "%s", text_of(object, "remedy"));
}
