#include "daemon/link/file_record.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cloche/limits.h"
#include "json/json_write.h"

#define YEAR_0_S     INT64_C(-62167219200)
#define YEAR_10000_S INT64_C(253402300800)

static const char *type_name(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "file";
    case S_IFDIR:
        return "directory";
    case S_IFLNK:
        return "symlink";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "socket";
    case S_IFCHR:
        return "char_device";
    case S_IFBLK:
        return "block_device";
    default:
        return NULL;
    }
}

void file_records_init(struct file_records *records, const void *data, size_t size,
                       enum file_names names, const char *after)
{
    *records = (struct file_records){.names = names, .last = after, .last_size = strlen(after)};
    wire_reader_init(&records->reader, data, size);
}

/* Names are in the order of their bytes, and a shorter one comes before what begins with it. */
static bool is_behind(const char *name, size_t size, const char *last, size_t last_size)
{
    size_t common = size < last_size ? size : last_size;
    int order = common > 0 ? memcmp(name, last, common) : 0;

    return order != 0 ? order > 0 : size > last_size;
}

static const char *judge_name(const struct file_records *records, const struct file_record *record)
{
    const char *name = record->name;
    size_t size = record->name_size;

    switch (records->names) {
    case FILE_NAMES_NONE:
        return size > 0 ? "a name that nobody asked for" : NULL;
    case FILE_NAMES_ENTRY:
        if (size == 0 || size >= FILE_NAME_BYTES || memchr(name, '/', size) != NULL)
            return "an impossible name";
        return is_behind(name, size, records->last, records->last_size) ? NULL
                                                                        : "names out of order";
    default:
        return size == 0 || name[0] != '/' ? "an impossible path" : NULL;
    }
}

int file_records_next(struct file_records *records, struct file_record *ret_record, struct error *e)
{
    struct wire_reader *in = &records->reader;
    struct file_record record = {0};

    /* 0: the agent was at work. */
    while (record.mode == 0 && in->left > 0 && !in->bad)
        record.mode = wire_get_u32(in);
    if (record.mode == 0 && !in->bad)
        return 0;
    record.size = wire_get_u64(in);
    record.uid = wire_get_u32(in);
    record.gid = wire_get_u32(in);
    record.mtime_s = (int64_t)wire_get_u64(in);
    record.mtime_ns = wire_get_u32(in);
    record.name = wire_get_string(in, CHANNEL_PATH_MAX - 1, &record.name_size);
    record.target = wire_get_string(in, CHANNEL_PATH_MAX - 1, &record.target_size);
    const char *fault = in->bad || record.size > INT64_MAX || record.mtime_ns > 999999999
                            ? "malformed fields"
                        : type_name(record.mode) == NULL ? "an unknown type"
                                                         : judge_name(records, &record);
    if (fault != NULL)
        return error_set(e, ERR_BAD_REQUEST, "agent: a file's record has %s", fault);
    records->last = record.name;
    records->last_size = record.name_size;
    *ret_record = record;
    return 1;
}

/* null for a time that has no four-digit year. */
static void put_time(struct json_writer *w, const char *key, int64_t seconds, uint32_t ns)
{
    time_t time = (time_t)seconds;
    char text[64];
    struct tm tm;

    if (seconds < YEAR_0_S || seconds >= YEAR_10000_S || gmtime_r(&time, &tm) == NULL) {
        json_put_null(w, key);
        return;
    }
    (void)snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%09uZ", tm.tm_year + 1900,
                   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ns);
    json_put_text(w, key, text);
}

void file_record_put(const struct file_record *record, const char *key, const char *name,
                     struct json_writer *w)
{
    char mode[8];

    (void)snprintf(mode, sizeof(mode), "%04o", record->mode & 07777);
    if (name != NULL)
        json_put_bytes(w, key, name, strlen(name));
    else
        json_put_bytes(w, key, record->name, record->name_size);
    json_put_text(w, "type", type_name(record->mode));
    json_put_int(w, "size", (int64_t)record->size);
    json_put_text(w, "mode", mode);
    json_put_int(w, "uid", record->uid);
    json_put_int(w, "gid", record->gid);
    put_time(w, "mtime", record->mtime_s, record->mtime_ns);
    if (S_ISLNK(record->mode))
        json_put_bytes(w, "target", record->target, record->target_size);
}
