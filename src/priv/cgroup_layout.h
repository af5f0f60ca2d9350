/*
 * Where this host has the controllers that hold a monitor to its caps. Linux has two generations
 * of cgroups that can be mounted at once, each controller in one of them:
 *
 *   v2 only   /sys/fs/cgroup                  cgroup2: memory, cpu, pids (if enabled)
 *   v1        /sys/fs/cgroup/{memory,cpu,pids} cgroup: one hierarchy each, or several in one
 *   hybrid    both; v2 is then commonly mounted without any controller
 *
 * Documentation/admin-guide/cgroup-v1/cgroups.rst, cgroup-v2.rst; proc_pid_mountinfo(5).
 */
#pragma once

#include <linux/limits.h>
#include <stdbool.h>
#include <stddef.h>

enum cgroup_controller { CGROUP_MEMORY, CGROUP_CPU, CGROUP_PIDS, CGROUP_CONTROLLERS };

/* As the kernel writes them. */
extern const char *const cgroup_controller_names[CGROUP_CONTROLLERS];

/* One mounted hierarchy that has controllers we want, or might have (v2). */
struct cgroup_hierarchy {
    bool v2;
    unsigned controllers; /* bits 1 << enum cgroup_controller; v2: filled in by the caller */
    char path[PATH_MAX];  /* mount point */
};

#define CGROUP_HIERARCHIES_MAX (CGROUP_CONTROLLERS + 1)

struct cgroup_layout {
    unsigned count;
    struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES_MAX];
};

/*
 * Finds the hierarchies in the text of /proc/self/mountinfo. Each controller is taken from the
 * first v1 mount that has it; the first v2 mount is listed with no controllers yet. A hierarchy
 * that is mounted read-only is listed too: what fails there is reported when it is used. Lines that
 * are not well-formed are passed over.
 */
void cgroup_layout_parse(const char *text, size_t size, struct cgroup_layout *ret_layout)
    __attribute__((nonnull(3)));

/* The bits of the wanted controllers in a list of names between blanks (cgroup.controllers). */
unsigned cgroup_controllers_parse(const char *text, size_t size);
