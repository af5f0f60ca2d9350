/*
 * Arbitrary bytes as the entries of a tree, in pieces. Whatever is taken keeps the reader's
 * promises, and packed again it is the same.
 */
#include <assert.h>
#include <string.h>

#include "base/tree.h"

static void check(const struct tree_entry *t)
{
    static struct tree_reader again;
    static uint8_t bytes[TREE_RECORD_BYTES_MAX];
    struct error e = ERROR_INIT;
    struct tree_entry taken;
    enum tree_event event;
    size_t used;

    if (t->type != TREE_SKIPPED) {
        assert(t->path[0] != '\0' && t->path[0] != '/' && strlen(t->path) < CHANNEL_PATH_MAX);
        assert(strcmp(t->path, "..") != 0 && strstr(t->path, "/../") == NULL);
        assert(strncmp(t->path, "../", 3) != 0 && strstr(t->path, "//") == NULL);
    }
    assert(t->mode <= 07777 && t->size <= INT64_MAX);
    size_t size = tree_entry_put(t, bytes, sizeof(bytes));
    assert(size > 0);
    tree_reader_init(&again);
    int rc = tree_reader_next(&again, bytes, size, &used, &event, &taken, &e);
    assert(rc == 0 && event == TREE_ENTRY && used == size);
    assert(strcmp(taken.path, t->path) == 0 && strcmp(taken.target, t->target) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tree_reader r;
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;

    if (size < 1)
        return 0;
    size_t piece = data[0] % 64 + 1;
    tree_reader_init(&r);
    for (size_t at = 1; at < size;) {
        size_t used = 0, n = piece < size - at ? piece : size - at;
        if (tree_reader_next(&r, data + at, n, &used, &event, &entry, &e) != 0) {
            assert(e.code == ERR_BAD_REQUEST);
            return 0;
        }
        assert(used > 0 && used <= n && (event != TREE_MORE || used == n));
        if (event == TREE_ENTRY)
            check(&entry);
        at += used;
    }
    return 0;
}
