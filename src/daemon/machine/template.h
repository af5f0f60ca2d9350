/*
 * Templates: the root file systems in the images directory, each a folder NAME with rootfs.erofs
 * and template.json, beside the guest kernel `vmlinux`.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"

struct cJSON;

struct template
{
    char name[TEMPLATE_NAME_MAX];
    char description[256];
    char cwd[CHANNEL_PATH_MAX]; /* of commands that name none */
    char shell[CHANNEL_PATH_MAX];
    struct cJSON *env; /* object of strings: the environment every command starts from */
    int root_fd;       /* the image, open read-only */
    uint64_t root_bytes;
    char root_stamp[64]; /* changes when the image does */
};

struct template_set {
    struct template *templates;
    unsigned count;
    int kernel_fd;
    char kernel_stamp[64];
};

/*
 * Reads every template in `images_fd`. A folder that is not a proper template is left out, and
 * `skipped` is called with the reason (the daemon goes on with the others). Fails when there is no
 * guest kernel or no template at all.
 */
int template_set_load(struct template_set *set, int images_fd,
                      void (*skipped)(const char *name, const struct error *e), struct error *e)
    __attribute__((warn_unused_result));
void template_set_fini(struct template_set *set);

/* The template of that name, or NULL with ERR_TEMPLATE_NOT_FOUND that lists those there are. */
const struct template *template_find(const struct template_set *set, const char *name,
                                     struct error *e) __attribute__((warn_unused_result));
