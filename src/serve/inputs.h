/* What the host must have for a daemon to run: KVM, images, a config file. */
#pragma once

#include <linux/limits.h>
#include <stdbool.h>

#include "base/error.h"

/* Opens /dev/kvm once for a test: ERR_KVM_UNAVAILABLE with a remedy that fits the failure. */
int inputs_check_kvm(struct error *e) __attribute__((warn_unused_result, nonnull));

/*
 * Opens the directory of guest kernel and root file systems: `given`, or where that is NULL the
 * first that exists of images/ beside the binary, beside its directory, ../lib/cloche/images and
 * /usr/local/lib/cloche/images. Others than root must be able to read it.
 */
int inputs_open_images(const char *given, int *ret_fd, char ret_path[PATH_MAX], struct error *e)
    __attribute__((warn_unused_result, nonnull(2, 3, 4)));

/* Opens the config file for reading; *ret_fd is -1 where it is absent and not `required`. */
int inputs_open_config(const char *path, bool required, int *ret_fd, struct error *e)
    __attribute__((warn_unused_result, nonnull));
