#include "guest/exec/execgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define NAME_BYTES      16u
#define FLAT_FILE_BYTES 512u
/* A tenant may nest cgroups in its own; beyond so many the rest is left where it is. */
#define REMOVE_STEPS_MAX 4096u
#define NAME_TRIES_MAX   64u
/* . and .. count; so does every cgroup below. */
#define LINKS_WITHOUT_CHILDREN 2u

static const struct execgroup NO_GROUP = {
    .dir_fd = -1, .kill_fd = -1, .events_fd = -1, .memory_fd = -1};

static void close_files(struct execgroup *group)
{
    fd_close(&group->dir_fd);
    fd_close(&group->kill_fd);
    fd_close(&group->events_fd);
    fd_close(&group->memory_fd);
}

/* The value of `key` in a "key value" file of the kernel's, or `missing`. */
static uint64_t flat_value(int fd, const char *key, uint64_t missing)
{
    char text[FLAT_FILE_BYTES];
    size_t key_length = strlen(key);
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n <= 0)
        return missing;
    text[n] = '\0';
    for (char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += line[0] == '\n';
        if (strncmp(line, key, key_length) == 0 && line[key_length] == ' ')
            return strtoull(line + key_length + 1, NULL, 10);
    }
    return missing;
}

static uint64_t oom_kills_total(const struct execgroup *group)
{
    return group->memory_fd < 0 ? 0 : flat_value(group->memory_fd, "oom_kill", 0);
}

static int make_group(struct execgroups *g, struct execgroup *ret_group)
{
    struct execgroup group = NO_GROUP;
    char name[NAME_BYTES];

    for (unsigned i = 0;; i++) {
        group.number = g->next_number++;
        (void)snprintf(name, sizeof(name), "%u", group.number);
        if (mkdirat(g->root_fd, name, 0755) == 0)
            break;
        if (errno != EEXIST || i >= NAME_TRIES_MAX)
            return -1;
    }
    group.dir_fd = openat(g->root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (group.dir_fd >= 0) {
        group.kill_fd = openat(group.dir_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
        group.events_fd = openat(group.dir_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
        group.memory_fd = openat(group.dir_fd, "memory.events", O_RDONLY | O_CLOEXEC);
    }
    if (group.kill_fd < 0 || group.events_fd < 0) {
        int saved = errno;
        close_files(&group);
        (void)unlinkat(g->root_fd, name, AT_REMOVEDIR);
        errno = saved;
        return -1;
    }
    *ret_group = group;
    return 0;
}

void execgroups_init(struct execgroups *g, const char *path, unsigned ready_count)
{
    *g = (struct execgroups){.root_fd = -1, .next_number = 1};
    if (path == NULL)
        return;
    g->root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; g->root_fd >= 0 && i < ready_count && i < EXECGROUPS_IDLE_MAX; i++) {
        if (make_group(g, &g->idle[i]) < 0) {
            fd_close(&g->root_fd);
            return;
        }
        g->idle_count++;
    }
}

void execgroups_fini(struct execgroups *g)
{
    while (g->used_count > 0)
        execgroups_drop(g, &g->used[--g->used_count]);
    while (g->idle_count > 0)
        execgroups_drop(g, &g->idle[--g->idle_count]);
    fd_close(&g->root_fd);
}

int execgroups_take(struct execgroups *g, bool fresh, struct execgroup *ret_group)
{
    if (fresh || (g->idle_count == 0 && g->used_count == 0))
        return make_group(g, ret_group);
    if (g->idle_count == 0)
        execgroups_tidy(g);
    if (g->idle_count == 0)
        return make_group(g, ret_group);
    *ret_group = g->idle[--g->idle_count];
    return 0;
}

void execgroups_put(struct execgroups *g, struct execgroup *group)
{
    if (g->used_count == EXECGROUPS_IDLE_MAX)
        execgroups_drop(g, group);
    else
        g->used[g->used_count++] = *group;
    *group = NO_GROUP;
}

void execgroups_tidy(struct execgroups *g)
{
    while (g->used_count > 0) {
        struct execgroup *group = &g->used[--g->used_count];
        struct stat st;

        uint64_t oom_kills = oom_kills_total(group);
        if (group->was_killed || group->is_limited || oom_kills != group->oom_kills ||
            g->idle_count == EXECGROUPS_IDLE_MAX || fstat(group->dir_fd, &st) < 0 ||
            st.st_nlink > LINKS_WITHOUT_CHILDREN) {
            execgroups_drop(g, group);
            continue;
        }
        g->idle[g->idle_count++] = *group;
    }
}

/* Opens a directory inside `dir_fd` and gives its name; -1 where there is none. */
static int first_child(int dir_fd, char name[NAME_MAX + 1])
{
    int copy_fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy_fd < 0 ? NULL : fdopendir(copy_fd);
    int child_fd = -1;

    if (dir == NULL) {
        fd_close(&copy_fd);
        return -1;
    }
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 ||
            strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(name, NAME_MAX + 1, "%s", entry->d_name);
        child_fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        break;
    }
    (void)closedir(dir);
    return child_fd;
}

/* Removes what a tenant has made below, one leaf at a time: each step starts at the top again. */
static void remove_children(int top_fd)
{
    for (unsigned step = 0; step < REMOVE_STEPS_MAX; step++) {
        char name[NAME_MAX + 1], inner[NAME_MAX + 1];
        FD_AUTO int parent_fd = openat(top_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int child_fd = first_child(parent_fd, name);

        if (child_fd < 0)
            return;
        for (int next_fd; (next_fd = first_child(child_fd, inner)) >= 0;) {
            fd_close(&parent_fd);
            parent_fd = child_fd;
            child_fd = next_fd;
            memcpy(name, inner, sizeof(name));
        }
        fd_close(&child_fd);
        if (unlinkat(parent_fd, name, AT_REMOVEDIR) < 0)
            return;
    }
}

void execgroups_drop(struct execgroups *g, struct execgroup *group)
{
    char name[NAME_BYTES];

    (void)snprintf(name, sizeof(name), "%u", group->number);
    if (group->dir_fd >= 0 && unlinkat(g->root_fd, name, AT_REMOVEDIR) < 0) {
        remove_children(group->dir_fd);
        (void)unlinkat(g->root_fd, name, AT_REMOVEDIR);
    }
    close_files(group);
}

static int write_limit(struct execgroup *group, const char *name, uint64_t value)
{
    char text[24];
    FD_AUTO int fd = openat(group->dir_fd, name, O_WRONLY | O_CLOEXEC);
    int length = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);

    group->is_limited = true;
    if (fd < 0 && errno == ENOENT)
        errno = ENOTSUP;
    return fd < 0 || write(fd, text, (size_t)length) < 0 ? -1 : 0;
}

int execgroup_limit(struct execgroup *group, uint64_t memory_bytes, uint64_t processes)
{
    if (memory_bytes > 0 && write_limit(group, "memory.max", memory_bytes) < 0)
        return -1;
    return processes > 0 ? write_limit(group, "pids.max", processes) : 0;
}

void execgroup_kill(struct execgroup *group)
{
    group->was_killed = true;
    /* Fails only where the tenant has removed the cgroup, and then it is empty. */
    (void)!write(group->kill_fd, "1", 1);
}

void execgroup_signal_others(const struct execgroup *group, pid_t keep, int number)
{
    int fd = openat(group->dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    int pid;

    if (file == NULL) {
        fd_close(&fd);
        return;
    }
    while (fscanf(file, "%d", &pid) == 1) {
        if (pid > 1 && pid != keep)
            (void)kill(pid, number);
    }
    (void)fclose(file);
}

bool execgroup_is_empty(const struct execgroup *group)
{
    return flat_value(group->events_fd, "populated", 0) == 0;
}

uint64_t execgroup_oom_kills(const struct execgroup *group)
{
    uint64_t total = oom_kills_total(group);

    return total > group->oom_kills ? total - group->oom_kills : 0;
}
