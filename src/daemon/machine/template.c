#include "daemon/machine/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/wire.h"
#include "json/json.h"

#define TEMPLATE_JSON_MAX 65536u
/* Linux: fs/erofs/erofs_fs.h, the super block and its block count. */
#define EROFS_SUPER_OFFSET 1024
#define EROFS_SUPER_BYTES  128u
#define EROFS_MAGIC        UINT32_C(0xe0f5e1e2)
#define EROFS_BLKSZBITS_AT 12u
#define EROFS_BLOCKS_AT    36u

/* Cheap and good enough to see that a file was replaced: contents are checked where they are used.
 */
static void make_stamp(const struct stat *st, char *ret_stamp, size_t size)
{
    (void)snprintf(ret_stamp, size, "%llu/%lld.%09ld", (unsigned long long)st->st_size,
                   (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

static int corrupt(struct error *e, const char *name, const char *what)
{
    (void)error_set(e, ERR_TEMPLATE_CORRUPT, "template %s is corrupt: %s", name, what);
    return error_remedy(e, "build it again (make images), then restart the daemon");
}

/* Is the image an EROFS that has all of its blocks? A guest would only say that it cannot boot. */
static int check_image(const struct template *t, struct error *e)
{
    uint8_t super[EROFS_SUPER_BYTES];
    struct wire_reader r;

    if (fd_pread_full(t->root_fd, super, sizeof(super), EROFS_SUPER_OFFSET) !=
        (ssize_t)sizeof(super))
        return corrupt(e, t->name, "rootfs.erofs is cut short");
    wire_reader_init(&r, super, sizeof(super));
    if (wire_get_u32(&r) != EROFS_MAGIC)
        return corrupt(e, t->name, "rootfs.erofs is not an EROFS image");
    unsigned block_bits = super[EROFS_BLKSZBITS_AT];
    wire_reader_init(&r, super + EROFS_BLOCKS_AT, 4);
    uint64_t blocks = wire_get_u32(&r);
    if (block_bits < 9 || block_bits > 16 || blocks << block_bits > t->root_bytes)
        return corrupt(e, t->name, "rootfs.erofs is cut short");
    return 0;
}

static int open_image(struct template *t, int dir, struct error *e)
{
    struct stat st;

    t->root_fd = openat(dir, "rootfs.erofs", O_RDONLY | O_CLOEXEC);
    if (t->root_fd < 0 || fstat(t->root_fd, &st) != 0)
        return error_errno(e, errno, "template %s: cannot open rootfs.erofs", t->name);
    if (!S_ISREG(st.st_mode))
        return corrupt(e, t->name, "rootfs.erofs is not a regular file");
    t->root_bytes = (uint64_t)st.st_size;
    make_stamp(&st, t->root_stamp, sizeof(t->root_stamp));
    return check_image(t, e);
}

/* What template.json may say; all but the name have defaults. */
struct description {
    const char *name;
    const char *description;
    const char *cwd;
    const char *shell;
    const cJSON *env;
};

static int read_description(struct template *t, int dir, struct error *e)
{
    static const struct json_field fields[] = {
        {.name = "name",
         .type = JSON_STRING,
         .required = true,
         .min = 1,
         .max = TEMPLATE_NAME_MAX - 1,
         .offset = offsetof(struct description, name)},
        {.name = "description",
         .type = JSON_STRING,
         .max = 255,
         .offset = offsetof(struct description, description)},
        {.name = "cwd",
         .type = JSON_STRING,
         .min = 1,
         .max = CHANNEL_PATH_MAX - 1,
         .offset = offsetof(struct description, cwd)},
        {.name = "shell",
         .type = JSON_STRING,
         .min = 1,
         .max = CHANNEL_PATH_MAX - 1,
         .offset = offsetof(struct description, shell)},
        {.name = "env",
         .type = JSON_MAP,
         .max = 1024,
         .item_max = SANDBOX_ENV_BYTES_MAX,
         .offset = offsetof(struct description, env)},
    };
    struct description d = {.description = "", .cwd = "/", .shell = "/bin/sh"};
    char text[TEMPLATE_JSON_MAX];
    FD_AUTO int fd = openat(dir, "template.json", O_RDONLY | O_CLOEXEC);
    JSON_AUTO cJSON *tree = NULL;

    if (fd < 0)
        return error_errno(e, errno, "template %s: cannot open template.json", t->name);
    ssize_t n = fd_read_full(fd, text, sizeof(text));
    if (n < 0)
        return error_errno(e, errno, "template %s: cannot read template.json", t->name);
    if (json_parse_object(text, (size_t)n, &tree, e) != 0 ||
        json_read(tree, "", fields, sizeof(fields) / sizeof(fields[0]), &d, e) != 0)
        return error_wrap(e, "template %s: template.json", t->name);
    if (strcmp(d.name, t->name) != 0)
        return error_set(e, ERR_INVALID_FIELD, "template %s: template.json is of template %s",
                         t->name, d.name);
    (void)snprintf(t->description, sizeof(t->description), "%s", d.description);
    (void)snprintf(t->cwd, sizeof(t->cwd), "%s", d.cwd);
    (void)snprintf(t->shell, sizeof(t->shell), "%s", d.shell);
    t->env = d.env != NULL ? cJSON_Duplicate(d.env, 1) : cJSON_CreateObject();
    return t->env != NULL ? 0 : error_set(e, ERR_INTERNAL, "out of memory");
}

static void template_fini(struct template *t)
{
    cJSON_Delete(t->env);
    fd_close(&t->root_fd);
}

static int template_open(struct template *t, int images_fd, const char *name, struct error *e)
{
    FD_AUTO int dir = openat(images_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    *t = (struct template){.root_fd = -1};
    (void)snprintf(t->name, sizeof(t->name), "%.63s", name); /* name_is_sane: it is no longer */
    if (dir < 0)
        return error_errno(e, errno, "template %s: cannot open its folder", name);
    if (read_description(t, dir, e) == 0 && open_image(t, dir, e) == 0)
        return 0;
    template_fini(t);
    return -1;
}

static int open_kernel(struct template_set *set, int images_fd, struct error *e)
{
    struct stat st;

    set->kernel_fd = openat(images_fd, "vmlinux", O_RDONLY | O_CLOEXEC);
    if (set->kernel_fd < 0 || fstat(set->kernel_fd, &st) != 0) {
        (void)error_errno(e, errno, "cannot open the guest kernel vmlinux in the images directory");
        return error_remedy(e, "build it with make images, or name the right directory with "
                               "--images");
    }
    make_stamp(&st, set->kernel_stamp, sizeof(set->kernel_stamp));
    return 0;
}

/* A template's name becomes part of file names: letters, digits, '.', '_' and '-', no dot first. */
static bool name_is_sane(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t length = strlen(name);

    return length < TEMPLATE_NAME_MAX && name[0] != '.' && strspn(name, allowed) == length;
}

static int load_all(struct template_set *set, DIR *dir, int images_fd,
                    void (*skipped)(const char *name, const struct error *e))
{
    struct dirent *entry;
    struct stat st;

    while ((entry = readdir(dir)) != NULL && set->count < TEMPLATE_COUNT_MAX) {
        struct error e = ERROR_INIT;

        if (!name_is_sane(entry->d_name) || fstatat(images_fd, entry->d_name, &st, 0) != 0 ||
            !S_ISDIR(st.st_mode))
            continue;
        if (template_open(&set->templates[set->count], images_fd, entry->d_name, &e) == 0)
            set->count++;
        else
            skipped(entry->d_name, &e);
    }
    return set->count > 0 ? 0 : -1;
}

int template_set_load(struct template_set *set, int images_fd,
                      void (*skipped)(const char *name, const struct error *e), struct error *e)
{
    FD_AUTO int fd = openat(images_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    *set = (struct template_set){.kernel_fd = -1};
    if (dir == NULL)
        return error_errno(e, errno, "cannot read the images directory");
    (void)fd_take(&fd); /* the DIR's now */
    set->templates = calloc(TEMPLATE_COUNT_MAX, sizeof(*set->templates));
    int result = set->templates != NULL ? open_kernel(set, images_fd, e)
                                        : error_set(e, ERR_INTERNAL, "out of memory");
    if (result == 0 && load_all(set, dir, images_fd, skipped) != 0) {
        result = error_set(e, ERR_TEMPLATE_NOT_FOUND, "the images directory holds no template");
        (void)error_remedy(e, "build them with make images");
    }
    (void)closedir(dir);
    if (result != 0)
        template_set_fini(set);
    return result;
}

void template_set_fini(struct template_set *set)
{
    for (unsigned i = 0; i < set->count; i++)
        template_fini(&set->templates[i]);
    free(set->templates);
    fd_close(&set->kernel_fd);
    *set = (struct template_set){.kernel_fd = -1};
}

const struct template *template_find(const struct template_set *set, const char *name,
                                     struct error *e)
{
    char names[200] = "";

    for (unsigned i = 0; i < set->count; i++) {
        const struct template *t = &set->templates[i];
        size_t used = strlen(names);

        if (strcmp(t->name, name) == 0)
            return t;
        (void)snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", t->name);
    }
    (void)error_set(e, ERR_TEMPLATE_NOT_FOUND, "there is no template \"%.64s\"", name);
    (void)error_remedy(e, "use one of: %s", names);
    return NULL;
}
