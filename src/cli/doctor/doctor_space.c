/* Room on this host, and what belongs to cloche itself: libraries, images, a daemon that answers.
 */
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "cli/client/client.h"
#include "cli/common/places.h"
#include "cli/doctor/checks.h"
#include "cloche/limits.h"

#define MEMORY_NEEDED_MIB 512u
#define MEMORY_GOOD_MIB   2048u
#define DISK_NEEDED_MIB   512u
#define DISK_GOOD_MIB     4096u

static unsigned long long memory_available_mib(void)
{
    char text[4096];
    struct sysinfo info;

    finding_read("/proc/meminfo", text, sizeof(text));
    const char *line = strstr(text, "MemAvailable:");
    if (line != NULL)
        return strtoull(line + sizeof("MemAvailable:") - 1, NULL, 10) / 1024;
    return sysinfo(&info) == 0 ? (unsigned long long)info.freeram * info.mem_unit / MIB : 0;
}

void doctor_check_memory(struct finding *f, const struct doctor_paths *paths)
{
    unsigned long long mib = memory_available_mib();

    (void)paths;
    finding_set(f,
                mib < MEMORY_NEEDED_MIB ? FINDING_FAIL
                : mib < MEMORY_GOOD_MIB ? FINDING_WARN
                                        : FINDING_OK,
                "%llu MiB available", mib);
    if (mib < MEMORY_GOOD_MIB)
        finding_remedy(f, "a template takes 256 MiB once, each sandbox what it writes to; give the "
                          "host more, or ask for smaller ones (mem_mib)");
}

/* The path itself, or the nearest folder above that exists. */
static void existing_parent(const char *path, char *ret_path, size_t size)
{
    (void)snprintf(ret_path, size, "%s", path);
    while (access(ret_path, F_OK) != 0) {
        char *slash = strrchr(ret_path, '/');
        if (slash == NULL || slash == ret_path) {
            (void)snprintf(ret_path, size, "%s", slash == NULL ? "." : "/");
            return;
        }
        *slash = '\0';
    }
}

void doctor_check_disk(struct finding *f, const struct doctor_paths *paths)
{
    const char *dir = paths->state_dir != NULL ? paths->state_dir : PLACE_STATE_DIR;
    char parent[PATH_MAX];
    struct statvfs v;

    existing_parent(dir, parent, sizeof(parent));
    if (statvfs(parent, &v) != 0) {
        finding_set(f, FINDING_FAIL, "%s: %s", parent, strerror(errno));
        return;
    }
    unsigned long long mib = (unsigned long long)v.f_bavail * v.f_frsize / MIB;
    finding_set(f,
                mib < DISK_NEEDED_MIB ? FINDING_FAIL
                : mib < DISK_GOOD_MIB ? FINDING_WARN
                                      : FINDING_OK,
                "%llu MiB free for %s", mib, dir);
    if (mib < DISK_GOOD_MIB)
        finding_remedy(f, "snapshots and scratch disks go there: make room, or name another place "
                          "with `cloche serve --state-dir`");
}

struct library_list {
    char text[256];
    size_t used;
};

static int add_library(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct library_list *list = arg;
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash != NULL ? slash + 1 : info->dlpi_name;
    static const char *const ours[] = {"libuv.", "libcjson.", "libseccomp.", "libmd.", "libwslay."};

    (void)size;
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (strncmp(name, ours[i], strlen(ours[i])) == 0) {
            int n = snprintf(list->text + list->used, sizeof(list->text) - list->used, "%s%s",
                             list->used > 0 ? ", " : "", name);
            if (n > 0 && (size_t)n < sizeof(list->text) - list->used)
                list->used += (size_t)n;
        }
    }
    return 0;
}

/* A program that runs has its libraries; which ones they are helps when something is odd. */
void doctor_check_libraries(struct finding *f, const struct doctor_paths *paths)
{
    struct library_list list = {.used = 0};

    (void)paths;
    (void)dl_iterate_phdr(add_library, &list);
    finding_set(f, FINDING_OK, "%s", list.used > 0 ? list.text : "all linked in");
}

/* Counts the templates (folders with both files) that stand beside the guest kernel. */
static unsigned count_templates(const char *dir, char *ret_names, size_t size)
{
    char *pattern;
    unsigned count = 0;
    size_t used = 0;
    glob_t found;

    ret_names[0] = '\0';
    if (asprintf(&pattern, "%s/*/template.json", dir) < 0)
        return 0;
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            char *slash = strrchr(found.gl_pathv[i], '/');
            *slash = '\0';
            const char *name = strrchr(found.gl_pathv[i], '/') + 1;
            int n = snprintf(ret_names + used, size - used, "%s%s", count > 0 ? ", " : "", name);
            if (n > 0 && (size_t)n < size - used)
                used += (size_t)n;
            count++;
        }
        globfree(&found);
    }
    free(pattern);
    return count;
}

void doctor_check_images(struct finding *f, const struct doctor_paths *paths)
{
    char dir[PATH_MAX], kernel[PATH_MAX + 16], names[160];

    if (paths->images_dir != NULL)
        (void)snprintf(dir, sizeof(dir), "%s", paths->images_dir);
    else
        place_images_dir(dir, sizeof(dir));
    (void)snprintf(kernel, sizeof(kernel), "%s/vmlinux", dir);
    unsigned count = count_templates(dir, names, sizeof(names));
    bool has_kernel = access(kernel, R_OK) == 0;
    if (has_kernel && count > 0) {
        finding_set(f, FINDING_OK, "%.140s: guest kernel, %s", dir, names);
        return;
    }
    finding_set(f, FINDING_FAIL, "%.200s: %s", dir, has_kernel ? "no template" : "no guest kernel");
    finding_remedy(f, "make images (and make install), or name the place with --images");
}

void doctor_check_daemon(struct finding *f, const struct doctor_paths *paths)
{
    JSON_AUTO cJSON *reply = NULL;
    struct error e = ERROR_INIT;

    if (client_call(paths->socket, "GET", "/v1/health", &reply, &e) == 0) {
        const cJSON *status = cJSON_GetObjectItemCaseSensitive(reply, "status");
        finding_set(f, FINDING_OK, "%.100s: %.40s", paths->socket,
                    cJSON_IsString(status) ? status->valuestring : "answers");
        return;
    }
    finding_set(f, FINDING_WARN, "%.200s%s%.80s%s", e.message, e.cause[0] != '\0' ? " (" : "",
                e.cause, e.cause[0] != '\0' ? ")" : "");
    finding_remedy(f, "sudo cloche serve");
}
