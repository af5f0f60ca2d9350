/*
 * Arbitrary bytes as the agent's records of files, or as its events. Whatever is taken keeps its
 * promises, and what is written of it is JSON.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cloche/limits.h"
#include "daemon/link/file_event.h"
#include "daemon/link/file_record.h"
#include "json/json.h"
#include "json/json_write.h"

static void check(const struct file_record *r, enum file_names names,
                  const struct file_record *last)
{
    struct buffer out = BUFFER_INIT(1 * MIB);
    struct error e = ERROR_INIT;
    struct json_writer w;
    cJSON *tree = NULL;

    assert(r->size <= INT64_MAX && r->mtime_ns < 1000000000);
    assert(memchr(r->name, '\0', r->name_size) == NULL);
    assert(memchr(r->target, '\0', r->target_size) == NULL);
    if (names == FILE_NAMES_ENTRY) {
        assert(r->name_size > 0 && r->name_size < FILE_NAME_BYTES);
        if (last->name != NULL)
            assert(strncmp(last->name, r->name,
                           last->name_size < r->name_size ? last->name_size : r->name_size) <= 0);
    }
    json_writer_init(&w, &out);
    json_begin_object(&w, NULL);
    file_record_put(r, "name", names == FILE_NAMES_NONE ? "/x" : NULL, &w);
    json_end_object(&w);
    assert(!w.failed);
    int rc = json_parse(buffer_bytes(&out), out.size, &tree, &e);
    assert(rc == 0);
    cJSON_Delete(tree);
    buffer_fini(&out);
}

static void fuzz_events(const uint8_t *data, size_t size)
{
    struct buffer line = BUFFER_INIT(FILE_EVENT_LINE_MAX);
    struct error e = ERROR_INIT;
    cJSON *tree = NULL;
    size_t used = 0;
    int result;

    while ((result = file_event_take(data, size, &line, &used, &e)) == 1) {
        assert(used > 0 && used <= size && used <= FILE_EVENT_BYTES_MAX);
        if (line.size > 0) {
            int rc = json_parse(buffer_bytes(&line), line.size, &tree, &e);
            assert(rc == 0);
            cJSON_Delete(tree);
        }
        buffer_consume(&line, line.size);
        data += used;
        size -= used;
    }
    assert(result == 0 ? size < FILE_EVENT_BYTES_MAX : e.code == ERR_BAD_REQUEST);
    buffer_fini(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file_record record = {0}, last = {0};
    struct file_records records;
    struct error e = ERROR_INIT;
    int result;

    if (size < 1)
        return 0;
    if (data[0] % 4 == 3) {
        fuzz_events(data + 1, size - 1);
        return 0;
    }
    enum file_names names = (enum file_names)(data[0] % 4);
    file_records_init(&records, data + 1, size - 1, names, "");
    while ((result = file_records_next(&records, &record, &e)) == 1) {
        check(&record, names, &last);
        last = record;
    }
    assert(result == 0 || e.code == ERR_BAD_REQUEST);
    return 0;
}
