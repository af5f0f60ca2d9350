#include "cli/commands/cp_place.h"

#include <string.h>
#include <sys/stat.h>

#include "cli/common/arguments.h"
#include "http/target.h"

/* Ids begin with sb_, so that a local name with a colon stays local. */
int cp_place_parse(const struct command *command, const char *text, struct cp_place *ret_place,
                   struct error *e)
{
    const char *colon = strchr(text, ':');
    bool guest = strncmp(text, "sb_", 3) == 0 && colon != NULL;
    size_t id_size = guest ? (size_t)(colon - text) : 0;
    const char *path = guest ? colon + 1 : text;

    *ret_place = (struct cp_place){.id = ""};
    if (id_size >= sizeof(ret_place->id) || strlen(path) >= sizeof(ret_place->path))
        return arguments_refuse(command, e, "\"%.100s...\" is too long", text);
    if (guest && path[0] != '/')
        return arguments_refuse(command, e, "\"%s\": a path in a sandbox begins with a slash",
                                text);
    if (path[0] == '\0')
        return arguments_refuse(command, e, "an empty path");
    memcpy(ret_place->id, text, id_size);
    memcpy(ret_place->path, path, strlen(path));
    return 0;
}

bool cp_place_is_directory(const struct cp_place *place)
{
    struct stat st;

    return place->id[0] == '\0' && strcmp(place->path, "-") != 0 && stat(place->path, &st) == 0 &&
           S_ISDIR(st.st_mode);
}

int cp_place_target(const struct cp_place *place, const char *call, const char *query,
                    struct buffer *ret_target, struct error *e)
{
    if (buffer_append_text(ret_target, "/v1/sandboxes/") != 0 ||
        http_escape_append(ret_target, place->id) != 0 ||
        buffer_append_text(ret_target, call) != 0 ||
        buffer_append_text(ret_target, "?path=") != 0 ||
        http_escape_append(ret_target, place->path) != 0 ||
        buffer_append_text(ret_target, query) != 0 || buffer_append(ret_target, "", 1) != 0)
        return error_set(e, ERR_USAGE, "the path is too long");
    return 0;
}
