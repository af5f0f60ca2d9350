/*
 * From the initramfs to a root that an ordinary program recognises: the template's image (EROFS,
 * read-only, shared by all guests) under an overlay whose upper layer is the sandbox's own disk.
 */
#pragma once

#include "base/error.h"
#include "guest/files/layers.h"

/* Where an exec's cgroup is made. */
#define BOOT_CGROUP_PATH "/sys/fs/cgroup/exec"

/* Mounts /dev of the initramfs and gives the agent a stdio that leads nowhere. */
int boot_mount_dev(struct error *e) __attribute__((warn_unused_result));

/* Everything else that is mounted; on return / is the new root. The layers stay open for good. */
int boot_mount_root(struct layers *ret_layers, struct error *e) __attribute__((warn_unused_result));

/* Loopback interface, limits that children inherit, cgroups with controllers. */
int boot_configure(struct error *e) __attribute__((warn_unused_result));

/* Opens the channel's port once the host has connected to it. */
int boot_open_port(int *ret_fd, struct error *e) __attribute__((warn_unused_result));

/* One line on the kernel's log, which the serial console shows. */
void boot_report(const char *text);
