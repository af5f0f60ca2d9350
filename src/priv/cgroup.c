#include "priv/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "cloche/limits.h"

#define MOUNTINFO_BYTES_MAX (256 * KIB)

/*
 * CPU time is granted per period. A guest that used up its share stands still until the next one,
 * so the period is kept well below the kernel's default of 100 ms: what a client would notice.
 */
#define CPU_PERIOD_US    20000u
#define CPU_QUOTA_MIN_US 1000u /* the kernel takes no less */

enum value {
    VALUE_BYTES,
    VALUE_PERIOD,
    VALUE_QUOTA,
    VALUE_QUOTA_AND_PERIOD,
    VALUE_PIDS,
    VALUE_0_1
};

/*
 * Every file that holds a cap, in the order of writing. v1's limit of memory and swap together may
 * never be below that of memory: raised, it goes first, lowered, last; so memory is written on
 * either side of it and only the second time has to work.
 */
static const struct knob {
    bool v2;
    bool optional;
    enum cgroup_controller controller;
    enum value value;
    unsigned number; /* of VALUE_0_1 */
    const char *file;
} knobs[] = {
    {false, true, CGROUP_MEMORY, VALUE_BYTES, 0, "memory.limit_in_bytes"},
    {false, true, CGROUP_MEMORY, VALUE_BYTES, 0, "memory.memsw.limit_in_bytes"},
    {false, false, CGROUP_MEMORY, VALUE_BYTES, 0, "memory.limit_in_bytes"},
    {false, false, CGROUP_CPU, VALUE_PERIOD, 0, "cpu.cfs_period_us"},
    {false, false, CGROUP_CPU, VALUE_QUOTA, 0, "cpu.cfs_quota_us"},
    {false, false, CGROUP_PIDS, VALUE_PIDS, 0, "pids.max"},
    {true, false, CGROUP_MEMORY, VALUE_BYTES, 0, "memory.max"},
    {true, true, CGROUP_MEMORY, VALUE_0_1, 0, "memory.swap.max"},
    {true, true, CGROUP_MEMORY, VALUE_0_1, 1, "memory.oom.group"},
    {true, false, CGROUP_CPU, VALUE_QUOTA_AND_PERIOD, 0, "cpu.max"},
    {true, false, CGROUP_PIDS, VALUE_PIDS, 0, "pids.max"},
};
#define KNOB_COUNT (sizeof(knobs) / sizeof(knobs[0]))

static int write_file(int dir_fd, const char *file, const char *text)
{
    FD_AUTO int fd = openat(dir_fd, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return -1;
    /* One write: cgroupfs takes each as a whole value. */
    return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static void slot_name(uint32_t slot, char ret_name[16])
{
    (void)snprintf(ret_name, 16, "%" PRIu32, slot);
}

static void format_value(const struct knob *k, const struct cgroup_caps *caps, char ret_text[64])
{
    uint64_t quota_us = (uint64_t)caps->cpu_quota_percent * CPU_PERIOD_US / 100;

    if (quota_us < CPU_QUOTA_MIN_US)
        quota_us = CPU_QUOTA_MIN_US;
    switch (k->value) {
    case VALUE_BYTES:
        (void)snprintf(ret_text, 64, "%" PRIu64, caps->mem_max_mib * MIB);
        break;
    case VALUE_PERIOD:
        (void)snprintf(ret_text, 64, "%u", CPU_PERIOD_US);
        break;
    case VALUE_QUOTA:
        (void)snprintf(ret_text, 64, "%" PRIu64, quota_us);
        break;
    case VALUE_QUOTA_AND_PERIOD:
        (void)snprintf(ret_text, 64, "%" PRIu64 " %u", quota_us, CPU_PERIOD_US);
        break;
    case VALUE_PIDS:
        (void)snprintf(ret_text, 64, "%" PRIu32, caps->pids_max);
        break;
    case VALUE_0_1:
        (void)snprintf(ret_text, 64, "%u", k->number);
        break;
    }
}

/* Writes all caps that this branch's controllers hold to one cgroup of it. */
static int write_caps(const struct cgroup_branch *b, int dir_fd, const struct cgroup_caps *caps,
                      struct error *e)
{
    for (size_t i = 0; i < KNOB_COUNT; i++) {
        const struct knob *k = &knobs[i];
        char text[64];

        if (k->v2 != b->v2 || (b->controllers & 1u << k->controller) == 0)
            continue;
        format_value(k, caps, text);
        if (write_file(dir_fd, k->file, text) != 0 && !k->optional)
            return error_errno(e, errno, "cannot set the cgroup's %s to %s", k->file, text);
    }
    return 0;
}

/* Which of the branch's controllers have their files in its subtree: a kernel may lack some. */
static unsigned usable_controllers(const struct cgroup_branch *b)
{
    unsigned usable = b->controllers;

    for (size_t i = 0; i < KNOB_COUNT; i++)
        if (knobs[i].v2 == b->v2 && !knobs[i].optional &&
            faccessat(b->dir_fd, knobs[i].file, W_OK, 0) != 0)
            usable &= ~(1u << knobs[i].controller);
    return usable;
}

/* v2: makes the controllers available below `dir_fd`, one by one so that each stands for itself. */
static void enable_controllers(int dir_fd, unsigned controllers)
{
    for (unsigned c = 0; c < CGROUP_CONTROLLERS; c++) {
        char text[16];

        (void)snprintf(text, sizeof(text), "+%s", cgroup_controller_names[c]);
        if ((controllers & 1u << c) != 0)
            (void)write_file(dir_fd, "cgroup.subtree_control", text);
    }
}

static unsigned read_controllers(int dir_fd, const char *file)
{
    char text[512];
    FD_AUTO int fd = openat(dir_fd, file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? fd_read_full(fd, text, sizeof(text)) : -1;

    return n > 0 ? cgroup_controllers_parse(text, (size_t)n) : 0;
}

static int make_dir(int parent_fd, const char *name)
{
    if (mkdirat(parent_fd, name, 0755) != 0 && errno != EEXIST)
        return -1;
    return openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void note_lack(struct cgroup_tree *t, const char *controller, const char *why)
{
    size_t used = strlen(t->lack);

    (void)snprintf(t->lack + used, sizeof(t->lack) - used, "%s%s: %s", used > 0 ? "; " : "",
                   controller, why);
}

/* Adds the instance's subtree in one hierarchy, where at least one controller works in it. */
static void add_branch(struct cgroup_tree *t, const struct cgroup_hierarchy *h)
{
    struct cgroup_branch *b = &t->branches[t->count];
    FD_AUTO int top_fd = open(h->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (top_fd < 0)
        return;
    unsigned wanted = h->controllers;
    if (h->v2) {
        wanted = read_controllers(top_fd, "cgroup.controllers") & ~t->controllers;
        if (wanted == 0)
            return;
        enable_controllers(top_fd, wanted);
    }
    FD_AUTO int dir_fd = make_dir(top_fd, t->name);
    if (dir_fd < 0)
        return;
    if (h->v2)
        enable_controllers(dir_fd, wanted);
    *b = (struct cgroup_branch){.v2 = h->v2, .controllers = wanted, .dir_fd = dir_fd};
    b->controllers = usable_controllers(b);
    if (h->v2)
        b->controllers &= read_controllers(dir_fd, "cgroup.subtree_control");
    if (b->controllers == 0) {
        (void)unlinkat(top_fd, t->name, AT_REMOVEDIR);
        return;
    }
    b->top_fd = fd_take(&top_fd);
    b->dir_fd = fd_take(&dir_fd);
    t->controllers |= b->controllers;
    t->count++;
}

int cgroup_tree_init(struct cgroup_tree *t, uint64_t instance, struct error *e)
{
    static char text[MOUNTINFO_BYTES_MAX];
    static struct cgroup_layout layout;
    unsigned mounted = 0;
    FD_AUTO int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? fd_read_full(fd, text, sizeof(text)) : -1;

    if (n < 0)
        return error_errno(e, errno, "cannot read /proc/self/mountinfo");
    *t = (struct cgroup_tree){0};
    (void)snprintf(t->name, sizeof(t->name), "cloche-%016" PRIx64, instance);
    cgroup_layout_parse(text, (size_t)n, &layout);
    /* v1 first: a controller that is in use there is not to be had from v2. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < layout.count; i++) {
            mounted |= layout.hierarchies[i].controllers;
            if (layout.hierarchies[i].v2 == (pass == 1))
                add_branch(t, &layout.hierarchies[i]);
        }
    }
    for (unsigned c = 0; c < CGROUP_CONTROLLERS; c++) {
        if ((t->controllers & 1u << c) != 0)
            continue;
        note_lack(t, cgroup_controller_names[c],
                  (mounted & 1u << c) != 0 ? "its v1 hierarchy cannot be used (mounted read-only?)"
                                           : "not mounted, or not available to this cgroup");
    }
    return 0;
}

int cgroup_tree_limit(struct cgroup_tree *t, uint64_t mem_max_mib, struct error *e)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%" PRIu64, mem_max_mib * MIB);
    for (unsigned i = 0; i < t->count; i++) {
        const struct cgroup_branch *b = &t->branches[i];
        const char *file = b->v2 ? "memory.max" : "memory.limit_in_bytes";

        if ((b->controllers & 1u << CGROUP_MEMORY) == 0)
            continue;
        /* Before Linux 5.11 a v1 cgroup does not count its children unless it is told to. */
        if (!b->v2)
            (void)write_file(b->dir_fd, "memory.use_hierarchy", "1");
        if (write_file(b->dir_fd, file, text) != 0)
            return error_errno(e, errno, "cannot set %s of all monitors' cgroup to %s", file, text);
    }
    return 0;
}

void cgroup_tree_fini(struct cgroup_tree *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        (void)unlinkat(t->branches[i].top_fd, t->name, AT_REMOVEDIR);
        fd_close(&t->branches[i].top_fd);
        fd_close(&t->branches[i].dir_fd);
    }
    t->count = 0;
}

void cgroup_entry_fini(struct cgroup_entry *entry)
{
    fd_close(&entry->v2_fd);
    while (entry->count > 0)
        fd_close(&entry->tasks_fds[--entry->count]);
}

static int make_in(const struct cgroup_branch *b, const char *name, const struct cgroup_caps *caps,
                   struct cgroup_entry *entry, struct error *e)
{
    /* A cgroup of that name can only be a leftover that could not be removed then. */
    (void)unlinkat(b->dir_fd, name, AT_REMOVEDIR);
    if (mkdirat(b->dir_fd, name, 0755) != 0)
        return error_errno(e, errno, "cannot make cgroup %s", name);
    FD_AUTO int fd = openat(b->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, errno, "cannot open cgroup %s", name);
    if (write_caps(b, fd, caps, e) != 0)
        return -1;
    if (b->v2) {
        entry->v2_fd = fd_take(&fd);
        return 0;
    }
    int tasks_fd = openat(fd, "tasks", O_WRONLY | O_CLOEXEC);
    if (tasks_fd < 0)
        return error_errno(e, errno, "cannot open the tasks of cgroup %s", name);
    entry->tasks_fds[entry->count++] = tasks_fd;
    return 0;
}

int cgroup_make(struct cgroup_tree *t, uint32_t slot, const struct cgroup_caps *caps,
                struct cgroup_entry *ret_entry, struct error *e)
{
    struct cgroup_entry entry = CGROUP_ENTRY_INIT;
    char name[16];

    slot_name(slot, name);
    for (unsigned i = 0; i < t->count; i++) {
        if (make_in(&t->branches[i], name, caps, &entry, e) != 0) {
            cgroup_entry_fini(&entry);
            (void)!cgroup_remove(t, slot);
            return -1;
        }
    }
    *ret_entry = entry;
    return 0;
}

int cgroup_limit(struct cgroup_tree *t, uint32_t slot, const struct cgroup_caps *caps,
                 struct error *e)
{
    char name[16];

    slot_name(slot, name);
    for (unsigned i = 0; i < t->count; i++) {
        FD_AUTO int fd =
            openat(t->branches[i].dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0)
            return error_errno(e, errno, "cannot open cgroup %s", name);
        if (write_caps(&t->branches[i], fd, caps, e) != 0)
            return -1;
    }
    return 0;
}

int cgroup_remove(struct cgroup_tree *t, uint32_t slot)
{
    int failed = 0;
    char name[16];

    slot_name(slot, name);
    for (unsigned i = 0; i < t->count; i++)
        if (unlinkat(t->branches[i].dir_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
            failed = errno;
    errno = failed;
    return failed == 0 ? 0 : -1;
}

bool cgroup_had_oom(struct cgroup_tree *t, uint32_t slot)
{
    for (unsigned i = 0; i < t->count; i++) {
        const struct cgroup_branch *b = &t->branches[i];
        char path[48];
        char text[1024];

        if ((b->controllers & 1u << CGROUP_MEMORY) == 0)
            continue;
        (void)snprintf(path, sizeof(path), "%" PRIu32 "/%s", slot,
                       b->v2 ? "memory.events" : "memory.oom_control");
        FD_AUTO int fd = openat(b->dir_fd, path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? fd_read_full(fd, text, sizeof(text) - 1) : -1;
        if (n <= 0)
            continue;
        text[n] = '\0';
        /* A line of its own: "oom_kill 1", and not that of oom_kill_disable. */
        const char *line = strstr(text, "\noom_kill ");
        if (line != NULL && line[10] != '0')
            return true;
    }
    return false;
}
