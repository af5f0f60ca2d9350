#include "cli/client/playback.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/fd.h"
#include "cli/client/records.h"
#include "cli/common/interrupt.h"
#include "cli/common/report.h"
#include "json/json_write.h"

#define EXIT_TIMEOUT 124
#define EXIT_SIGNAL  128

struct playback {
    const struct playback_options *options;
    struct buffer bytes;  /* a record's content, decoded */
    int exit_code;        /* -1 until the end came */
    struct error missing; /* the first file that could not be brought back */
};

static const char *text_of(const cJSON *record, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(record, name);

    return cJSON_IsString(item) ? item->valuestring : NULL;
}

static int decode(struct buffer *to, const char *text)
{
    size_t size = strlen(text);
    uint8_t *at = buffer_reserve(to, base64_decoded_max(size));

    if (at == NULL || base64_decode(text, size, at, &size) != 0)
        return -1;
    buffer_commit(to, size);
    return 0;
}

/* The bytes of member `name`, or of `name`_base64, into p->bytes. */
static int take_bytes(struct playback *p, const cJSON *record, const char *name, struct error *e)
{
    char encoded_name[64];

    buffer_consume(&p->bytes, p->bytes.size);
    (void)snprintf(encoded_name, sizeof(encoded_name), "%s_base64", name);
    const char *encoded = text_of(record, encoded_name);
    const char *plain = text_of(record, name);
    if (encoded != NULL && decode(&p->bytes, encoded) == 0)
        return 0;
    if (encoded == NULL && plain != NULL && buffer_append_text(&p->bytes, plain) == 0)
        return 0;
    return error_set(e, ERR_INTERNAL, "a record of the daemon's reply has no valid \"%s\"", name);
}

/* Whoever reads our output may have gone (`| head`): then the command has no more use, and we end
 * as any program that writes into a closed pipe does. */
static int write_out(struct playback *p, int fd, struct error *e)
{
    int result = interrupt_write(fd, buffer_bytes(&p->bytes), p->bytes.size, e);

    if (result < 0)
        return error_wrap(e, fd == STDOUT_FILENO ? "standard output" : "standard error");
    if (result > 0)
        p->exit_code = EXIT_SIGNAL + SIGPIPE;
    return result;
}

static int take_file(struct playback *p, const cJSON *record, struct error *e)
{
    const char *path = text_of(record, "path");
    size_t i = 0;

    while (i < p->options->file_count &&
           (path == NULL || strcmp(p->options->files[i].guest, path) != 0))
        i++;
    if (i == p->options->file_count)
        return error_set(e, ERR_INTERNAL, "the daemon sent a file that was not asked for: %.200s",
                         path != NULL ? path : "without a path");
    if (cJSON_GetObjectItemCaseSensitive(record, "error") != NULL) {
        if (p->missing.code == ERR_NONE) {
            (void)json_error_read(record, &p->missing);
            (void)error_wrap(&p->missing, "--collect %.200s", path);
        }
        return 0;
    }
    if (take_bytes(p, record, "content", e) != 0)
        return -1;

    const char *local = p->options->files[i].local;
    if (strcmp(local, "-") == 0)
        return write_out(p, STDOUT_FILENO, e);
    FD_AUTO int fd = open(local, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || fd_write_full(fd, buffer_bytes(&p->bytes), p->bytes.size) != 0)
        return error_errno(e, errno, "%s", local);
    return 0;
}

static int number_of(const cJSON *record, const char *name, int *ret_number)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(record, name);

    if (!cJSON_IsNumber(item))
        return -1;
    *ret_number = item->valueint;
    return 0;
}

int playback_exit_code(const cJSON *record, struct error *e)
{
    const char *end = text_of(record, "end");
    int number;

    if (end == NULL)
        return error_set(e, ERR_INTERNAL, "the daemon did not say how the command ended");
    if (strcmp(end, "exited") == 0 && number_of(record, "exit_code", &number) == 0) {
        return number & 0xff;
    }
    if (strcmp(end, "signaled") == 0 && number_of(record, "signal", &number) == 0) {
        return EXIT_SIGNAL + (number & 0x7f);
    }
    if (strcmp(end, "timeout") == 0) {
        fprintf(stderr, "cloche: the command was killed: its time was up\n");
        return EXIT_TIMEOUT;
    }
    if (strcmp(end, "oom") == 0) {
        fprintf(stderr, "cloche: the command was killed: the sandbox is out of memory (--mem)\n");
        return EXIT_SIGNAL + SIGKILL;
    }
    if (strcmp(end, "output_limit") == 0) {
        (void)error_set(e, ERR_TOO_LARGE, "the command was killed: it wrote too much output");
        return error_remedy(e, "Let it write to a file, and fetch that with `cloche cp`.");
    }
    if (strcmp(end, "sandbox_gone") == 0) {
        (void)error_set(e, ERR_SANDBOX_GONE, "the sandbox ended before the command did");
        return error_remedy(e,
                            "A sandbox ends when its time is up, when it is removed, or when its "
                            "guest crashes; the daemon's log says which.");
    }
    return error_set(e, ERR_INTERNAL, "the command ended in an unknown way: %.60s", end);
}

static int take_start(struct playback *p, const cJSON *record, struct error *e)
{
    int pid = 0;

    if (p->options->on_start == NULL || number_of(record, "pid", &pid) != 0 || pid <= 0)
        return 0;
    return p->options->on_start(p->options->context, (uint32_t)pid, e);
}

/* 0: go on; 1: that was all that matters; -1: failure. */
static int take_record(struct playback *p, const cJSON *record, struct error *e)
{
    const char *type = text_of(record, "type");

    if (type == NULL)
        return error_set(e, ERR_INTERNAL, "a record of the daemon's reply has no type");
    if (strcmp(type, "stdout") == 0 || strcmp(type, "stderr") == 0) {
        if (take_bytes(p, record, "data", e) != 0)
            return -1;
        return write_out(p, type[3] == 'o' ? STDOUT_FILENO : STDERR_FILENO, e);
    }
    if (strcmp(type, "file") == 0)
        return take_file(p, record, e);
    if (strcmp(type, "end") == 0) {
        p->exit_code = playback_exit_code(record, e);
        return p->exit_code < 0 ? -1 : 0;
    }
    if (strcmp(type, "error") == 0)
        return json_error_read(record, e);
    if (strcmp(type, "start") == 0)
        return take_start(p, record, e);
    if (strcmp(type, "missed") == 0)
        fprintf(stderr, "cloche: %.0f bytes of output are no longer kept\n",
                cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(record, "bytes")));
    if (strcmp(type, "running") == 0)
        p->exit_code = 0;
    return 0; /* and what later versions may add */
}

int playback_run(struct client *c, const struct playback_options *options, struct error *e)
{
    struct playback p = {
        .options = options, .bytes = BUFFER_INIT(RUN_COLLECT_BYTES_MAX + MIB), .exit_code = -1};
    struct records records;
    int result;

    records_init(&records, c);
    for (;;) {
        cJSON *record = NULL;
        result = records_next(&records, &record, e);
        if (result <= 0)
            break;
        result = take_record(&p, record, e);
        cJSON_Delete(record);
        if (result != 0)
            break;
    }
    records_fini(&records);
    buffer_fini(&p.bytes);
    if (result < 0)
        return -1;
    if (p.exit_code < 0) {
        (void)error_set(e, ERR_UNREACHABLE, "the connection was lost before the command ended");
        return error_remedy(e, "See the daemon's log.");
    }
    if (p.missing.code == ERR_NONE || p.exit_code == EXIT_SIGNAL + SIGPIPE)
        return p.exit_code;
    if (p.exit_code == 0) {
        *e = p.missing;
        return -1;
    }
    report_error(&p.missing); /* the command's own failure says more */
    return p.exit_code;
}
