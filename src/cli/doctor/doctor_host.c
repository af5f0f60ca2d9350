/* What the kernel of this host must offer, besides KVM. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/doctor/checks.h"

#define KERNEL_MAJOR_MIN 5u
#define KERNEL_MINOR_MIN 11u /* close_range(2) with CLOSE_RANGE_CLOEXEC */
#define FILES_WANTED     4096u

static const char *const controllers[] = {"memory", "cpu", "pids"};
static const char *const namespaces[] = {"mnt", "pid", "net", "ipc", "uts"};

void doctor_check_user(struct finding *f, const struct doctor_paths *paths)
{
    (void)paths;
    if (geteuid() == 0) {
        finding_set(f, FINDING_OK, "root");
        return;
    }
    finding_set(f, FINDING_FAIL, "uid %u: a daemon starts as root (and drops it)",
                (unsigned)geteuid());
    finding_remedy(f, "sudo cloche serve");
}

void doctor_check_kernel(struct finding *f, const struct doctor_paths *paths)
{
    struct utsname name;

    (void)paths;
    if (uname(&name) != 0) {
        finding_set(f, FINDING_FAIL, "uname: %s", strerror(errno));
        return;
    }
    char *end;
    unsigned long major = strtoul(name.release, &end, 10);
    unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    bool new_enough =
        major > KERNEL_MAJOR_MIN || (major == KERNEL_MAJOR_MIN && minor >= KERNEL_MINOR_MIN);
    bool right_machine = strcmp(name.machine, "x86_64") == 0;

    finding_set(f, new_enough && right_machine ? FINDING_OK : FINDING_FAIL, "Linux %s on %s",
                name.release, name.machine);
    if (!right_machine)
        finding_remedy(f, "cloche runs on x86_64");
    else if (!new_enough)
        finding_remedy(f, "Linux %u.%u or later is needed", KERNEL_MAJOR_MIN, KERNEL_MINOR_MIN);
}

/* Whether a line "... TYPE OPTIONS ..." of the mount table offers this version 1 controller. */
static bool mounted_v1(const char *mounts, const char *controller)
{
    for (const char *line = mounts; *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        char target[256], type[32], options[512];
        if (sscanf(line, "%*255s %255s %31s %511s", target, type, options) == 3 &&
            strcmp(type, "cgroup") == 0) {
            const char *at = strstr(options, controller);
            char after = at != NULL ? at[strlen(controller)] : 'x';
            if (at != NULL && (at == options || at[-1] == ',') && (after == ',' || after == '\0'))
                return true;
        }
        line = *end != '\0' ? end + 1 : end;
    }
    return false;
}

static bool word_in(const char *text, const char *word)
{
    size_t size = strlen(word);

    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
        if ((at == text || at[-1] == ' ') && strchr(" \n", at[size]) != NULL)
            return true;
    }
    return false;
}

void doctor_check_cgroup(struct finding *f, const struct doctor_paths *paths)
{
    char v2[256], mounts[16384], found[96] = "", missing[96] = "";
    bool any_v1 = false, any_v2 = false;

    (void)paths;
    finding_read("/sys/fs/cgroup/cgroup.controllers", v2, sizeof(v2));
    finding_read("/proc/self/mounts", mounts, sizeof(mounts));
    for (size_t i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++) {
        bool in_v2 = word_in(v2, controllers[i]);
        bool in_v1 = !in_v2 && mounted_v1(mounts, controllers[i]);
        char *list = in_v1 || in_v2 ? found : missing;
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof(found) - used, "%s%s", used > 0 ? ", " : "",
                       controllers[i]);
        any_v1 |= in_v1;
        any_v2 |= in_v2;
    }
    const char *version = any_v1 && any_v2 ? "versions 1 and 2"
                          : any_v1         ? "version 1"
                                           : "version 2";
    if (missing[0] == '\0') {
        finding_set(f, FINDING_OK, "%s: %s", version, found);
        return;
    }
    finding_set(f, FINDING_FAIL, "%s: without %s, so guests could not be capped", version, missing);
    finding_remedy(f, "mount cgroup2 at /sys/fs/cgroup with these controllers (systemd does), or "
                      "boot without cgroup_disable=");
}

void doctor_check_seccomp(struct finding *f, const struct doctor_paths *paths)
{
    char actions[256];

    (void)paths;
    finding_read("/proc/sys/kernel/seccomp/actions_avail", actions, sizeof(actions));
    if (word_in(actions, "kill_process")) {
        finding_set(f, FINDING_OK, "filters that kill the process");
        return;
    }
    finding_set(f, FINDING_FAIL, "the kernel has no seccomp filters, so no monitor can be jailed");
    finding_remedy(f, "use a kernel with CONFIG_SECCOMP_FILTER");
}

void doctor_check_namespaces(struct finding *f, const struct doctor_paths *paths)
{
    (void)paths;
    for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i]);
        if (access(path, F_OK) != 0) {
            finding_set(f, FINDING_FAIL, "no %s namespaces", namespaces[i]);
            finding_remedy(f, "use a kernel with CONFIG_NAMESPACES and all its kinds");
            return;
        }
    }
    finding_set(f, FINDING_OK, "mount, pid, network, ipc, uts");
}

void doctor_check_files(struct finding *f, const struct doctor_paths *paths)
{
    struct rlimit limit;

    (void)paths;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        finding_set(f, FINDING_WARN, "getrlimit: %s", strerror(errno));
        return;
    }
    bool enough = limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= FILES_WANTED;
    finding_set(f, enough ? FINDING_OK : FINDING_WARN, "up to %llu open files",
                (unsigned long long)limit.rlim_max);
    if (!enough)
        finding_remedy(f,
                       "many sandboxes need more: raise the limit to %u (ulimit -Hn, or "
                       "LimitNOFILE= of the service)",
                       FILES_WANTED);
}

void doctor_check_tun(struct finding *f, const struct doctor_paths *paths)
{
    (void)paths;
    FD_AUTO int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        finding_set(f, FINDING_OK, "/dev/net/tun");
        return;
    }
    finding_set(f, FINDING_WARN, "/dev/net/tun: %s (guests have no network yet)", strerror(errno));
    finding_remedy(f, "modprobe tun");
}

/* Makes the smallest map there is, to see whether bpf(2) is allowed at all. */
static int try_bpf(void)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof(attr));
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = sizeof(uint32_t);
    attr.value_size = sizeof(uint32_t);
    attr.max_entries = 1;
    FD_AUTO int fd = (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
    return fd < 0 ? -1 : 0;
}

void doctor_check_bpf(struct finding *f, const struct doctor_paths *paths)
{
    (void)paths;
    bool has_btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;

    if (try_bpf() != 0) {
        finding_set(f, FINDING_WARN, "bpf: %s (guests have no network yet)", strerror(errno));
        finding_remedy(f, geteuid() != 0 ? "run doctor as root to see more"
                                         : "use a kernel with CONFIG_BPF_SYSCALL");
        return;
    }
    finding_set(f, has_btf ? FINDING_OK : FINDING_WARN, "usable, %s",
                has_btf ? "with BTF" : "but without BTF (guests have no network yet)");
    if (!has_btf)
        finding_remedy(f, "use a kernel with CONFIG_DEBUG_INFO_BTF");
}
