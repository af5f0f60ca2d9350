#include "daemon/link/stream_table.h"

#include <stdlib.h>

#include "cloche/limits.h"

struct agent_stream *stream_table_add(struct stream_table *table)
{
    struct agent_stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL)
        return NULL;
    stream->number = ++table->last_number;
    LIST_INSERT_HEAD(&table->buckets[stream->number % STREAM_BUCKETS], stream, bucket);
    table->count++;
    return stream;
}

struct agent_stream *stream_table_find(struct stream_table *table, uint32_t number)
{
    struct agent_stream *stream;

    LIST_FOREACH (stream, &table->buckets[number % STREAM_BUCKETS], bucket) {
        if (stream->number == number)
            return stream;
    }
    return NULL;
}

struct agent_stream *stream_table_first(struct stream_table *table)
{
    for (unsigned i = 0; i < STREAM_BUCKETS; i++) {
        if (!LIST_EMPTY(&table->buckets[i]))
            return LIST_FIRST(&table->buckets[i]);
    }
    return NULL;
}

void stream_table_remove(struct stream_table *table, struct agent_stream *stream)
{
    LIST_REMOVE(stream, bucket);
    table->count--;
}

void agent_stream_finish(struct agent_stream *stream, enum agent_outcome outcome,
                         const struct agent_end *end)
{
    stream->ended = true;
    if (stream->calls.on_end != NULL)
        stream->calls.on_end(stream->arg, outcome, end);
    buffer_fini(&stream->request);
    buffer_fini(&stream->queue);
    free(stream);
}
