#include "guest/boot/boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define DEVICE_WAIT_MS  10000u
#define DEVICE_PAUSE_MS 2u
#define FILES_SOFT      8192u /* the agent's own need: every stream with all its descriptors */
#define FILES_HARD      1048576u
#define AGENT_NICE      (-10)
/* Processes that a tenant cannot have, so that the agent can always start one more. */
#define PIDS_RESERVED 32

struct mount_entry {
    const char *source;
    const char *target; /* made where it is missing */
    const char *type;
    unsigned long flags;
    const char *data;
};

#define HARDENED (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* In the initramfs. Access times are not worth a write each; no thread of ext4 may initialise its
 * inode tables behind the snapshot's back; and what is on the scratch disk does not outlive the
 * guest, so the overlay need not carry out fsync(2) (volatile). */
static const struct mount_entry root_mounts[] = {
    {"/dev/vda", "/lower", "erofs", MS_RDONLY | MS_NOATIME, NULL},
    {"/dev/vdb", "/scratch", "ext4", MS_NOATIME, "noinit_itable"},
    {NULL, "/scratch/upper", NULL, 0, NULL},
    {NULL, "/scratch/work", NULL, 0, NULL},
    {NULL, "/scratch/tmp", NULL, 0, NULL},
    {"overlay", "/new", "overlay", MS_NOATIME,
     "lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work,volatile"},
    {"/scratch/tmp", "/new/tmp", NULL, MS_BIND, NULL},
    {"/dev", "/new/dev", NULL, MS_MOVE, NULL},
};

/* In the new root. */
static const struct mount_entry system_mounts[] = {
    {"proc", "/proc", "proc", HARDENED, NULL},
    {"sysfs", "/sys", "sysfs", HARDENED, NULL},
    {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
    {"tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"},
    {"cgroup2", "/sys/fs/cgroup", "cgroup2", HARDENED, NULL},
};

static const struct {
    const char *target;
    const char *path;
} links[] = {
    {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void pause_ms(unsigned ms)
{
    struct timespec t = {.tv_nsec = (long)(ms * NS_PER_MS)};

    (void)nanosleep(&t, NULL);
}

void boot_report(const char *text)
{
    char line[640];
    FD_AUTO int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    /* <3>: an error, shown on the console also where the kernel is told to be quiet. */
    int length = snprintf(line, sizeof(line), "<3>agent: %s\n", text);

    if (fd < 0 || length < 0 || write(fd, line, strnlen(line, sizeof(line))) < 0)
        (void)!write(STDERR_FILENO, line, strnlen(line, sizeof(line)));
}

/* A target without a type and flags is only made. */
static int mount_all(const struct mount_entry *table, size_t count, struct error *e)
{
    for (size_t i = 0; i < count; i++) {
        const struct mount_entry *m = &table[i];

        if (mkdir(m->target, 0755) < 0 && errno != EEXIST)
            return error_errno(e, errno, "mkdir %s", m->target);
        if (m->source != NULL && mount(m->source, m->target, m->type, m->flags, m->data) < 0)
            return error_errno(e, errno, "mount %s on %s", m->source, m->target);
    }
    return 0;
}

int boot_mount_dev(struct error *e)
{
    static const struct mount_entry dev = {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL};

    if (mount_all(&dev, 1, e) < 0)
        return -1;
    int fd = open("/dev/null", O_RDWR);
    if (fd < 0)
        return error_errno(e, errno, "/dev/null");
    for (int i = 0; i < 3; i++) {
        if (fd != i && dup2(fd, i) < 0)
            return error_errno(e, errno, "stdio");
    }
    if (fd > STDERR_FILENO)
        fd_close(&fd);
    return 0;
}

static int wait_for(const char *path, struct error *e)
{
    for (unsigned waited_ms = 0; access(path, F_OK) < 0; waited_ms += DEVICE_PAUSE_MS) {
        if (waited_ms >= DEVICE_WAIT_MS)
            return error_errno(e, errno, "waiting for %s", path);
        pause_ms(DEVICE_PAUSE_MS);
    }
    return 0;
}

/* The root of an initramfs cannot be left by pivot_root(2): it is emptied and covered instead. */
static int switch_root(struct error *e)
{
    static const char *const leftovers[] = {"/scratch", "/lower", "/dev", "/root"};

    if (umount2("/lower", MNT_DETACH) < 0 || umount2("/scratch", MNT_DETACH) < 0)
        return error_errno(e, errno, "umount of the layers");
    (void)unlink("/init");
    (void)unlink("/dev/console");
    for (size_t i = 0; i < COUNT(leftovers); i++)
        (void)rmdir(leftovers[i]);
    if (chdir("/new") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        return error_errno(e, errno, "the new root");
    return 0;
}

/* They cannot be reached by a path once the new root covers them. */
static int open_layers(struct layers *l, struct error *e)
{
    const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;

    l->upper_fd = open("/scratch/upper", flags);
    l->lower_fd = open("/lower", flags);
    l->tmp_fd = open("/scratch/tmp", flags);
    if (l->upper_fd < 0 || l->lower_fd < 0 || l->tmp_fd < 0)
        return error_errno(e, errno, "the layers of the root");
    return 0;
}

int boot_mount_root(struct layers *ret_layers, struct error *e)
{
    if (wait_for("/dev/vda", e) < 0 || wait_for("/dev/vdb", e) < 0 ||
        mount_all(root_mounts, COUNT(root_mounts), e) < 0 || open_layers(ret_layers, e) < 0 ||
        switch_root(e) < 0 || mount_all(system_mounts, COUNT(system_mounts), e) < 0)
        return -1;
    if (chmod("/tmp", 01777) < 0)
        return error_errno(e, errno, "/tmp");
    for (size_t i = 0; i < COUNT(links); i++) {
        if (symlink(links[i].target, links[i].path) < 0 && errno != EEXIST)
            return error_errno(e, errno, "%s", links[i].path);
    }
    (void)mkdir("/run/lock", 01777);
    (void)chmod("/run/lock", 01777);
    return 0;
}

/* A local socket is enough to ask for it. One of the internet family could make the kernel draw its
 * secrets for ports and sequence numbers, which must not be in the snapshot. */
static int raise_loopback(struct error *e)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    FD_AUTO int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return error_errno(e, errno, "the loopback interface");
    return 0;
}

static int write_file(const char *path, const char *text)
{
    FD_AUTO int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

/*
 * The agent stays in the root cgroup, which no controller accounts for; commands get theirs below
 * exec. The cpu controller stays off: it makes every tick and switch dearer, by a tenth of all CPU
 * where the kernel is interpreted, and shares between commands of one tenant are worth less. A
 * kernel of the user's own may lack a controller: then it is not enabled.
 */
static int make_cgroups(struct error *e)
{
    static const char *const controllers[] = {"+memory", "+pids"};
    char text[32] = "";

    if (mkdir(BOOT_CGROUP_PATH, 0755) < 0 && errno != EEXIST)
        return error_errno(e, errno, "%s", BOOT_CGROUP_PATH);
    for (size_t i = 0; i < COUNT(controllers); i++) {
        if (write_file("/sys/fs/cgroup/cgroup.subtree_control", controllers[i]) == 0)
            (void)write_file(BOOT_CGROUP_PATH "/cgroup.subtree_control", controllers[i]);
    }
    FD_AUTO int fd = open("/proc/sys/kernel/threads-max", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0) {
        long threads_max = strtol(text, NULL, 10);
        if (threads_max > 2 * PIDS_RESERVED) {
            (void)snprintf(text, sizeof(text), "%ld", threads_max - PIDS_RESERVED);
            (void)write_file(BOOT_CGROUP_PATH "/pids.max", text);
        }
    }
    return 0;
}

/* A tenant's hundred busy threads must not keep a RESET waiting; what the agent starts is back at
 * nice 0. */
static int raise_priority(void)
{
    struct sched_attr attr = {.size = sizeof(attr),
                              .sched_policy = SCHED_NORMAL,
                              .sched_flags = SCHED_FLAG_RESET_ON_FORK,
                              .sched_nice = AGENT_NICE};

    return (int)syscall(SYS_sched_setattr, 0, &attr, 0);
}

/*
 * An idle guest is to sleep. What would wake it every second or five is the folding of statistics
 * and the look for old dirty pages of a disk that dies with the guest; with hundreds of guests on a
 * host that is a processor, where the kernel is interpreted. Missing knobs are no fault.
 */
static void calm_kernel(void)
{
    static const struct {
        const char *path;
        const char *value;
    } KNOBS[] = {
        {"/proc/sys/vm/stat_interval", "600"},
        {"/proc/sys/vm/dirty_writeback_centisecs", "6000"},
        {"/proc/sys/vm/dirtytime_expire_seconds", "0"},
    };

    for (size_t i = 0; i < sizeof(KNOBS) / sizeof(KNOBS[0]); i++)
        (void)write_file(KNOBS[i].path, KNOBS[i].value);
}

int boot_configure(struct error *e)
{
    struct rlimit files = {.rlim_cur = FILES_SOFT, .rlim_max = FILES_HARD};

    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        return error_errno(e, errno, "RLIMIT_NOFILE");
    if (raise_priority() < 0)
        return error_errno(e, errno, "the agent's priority");
    /* PID 1 is out of the OOM killer's reach in any case, and what it starts is within. */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    calm_kernel();
    if (raise_loopback(e) < 0)
        return -1;
    return make_cgroups(e);
}

/* The node is named after the port's device and number, e.g. vport2p1; there is one. */
static int find_port(char *ret_path, size_t size)
{
    DIR *dir = opendir("/dev");
    int result = -1;

    if (dir == NULL)
        return -1;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (strncmp(entry->d_name, "vport", 5) == 0) {
            (void)snprintf(ret_path, size, "/dev/%s", entry->d_name);
            result = 0;
            break;
        }
    }
    (void)closedir(dir);
    return result;
}

int boot_open_port(int *ret_fd, struct error *e)
{
    char path[300];
    unsigned waited_ms = 0;

    for (; find_port(path, sizeof(path)) < 0; waited_ms += DEVICE_PAUSE_MS) {
        if (waited_ms >= DEVICE_WAIT_MS)
            return error_set(e, ERR_INTERNAL, "there is no /dev/vport*");
        pause_ms(DEVICE_PAUSE_MS);
    }
    FD_AUTO int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, errno, "%s", path);
    /* Until the host has opened its side the driver says "hung up". */
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    for (; poll(&wait, 1, 0) != 1 || wait.revents != POLLOUT; waited_ms += DEVICE_PAUSE_MS) {
        if (waited_ms >= DEVICE_WAIT_MS)
            return error_set(e, ERR_INTERNAL, "%s: the host does not connect", path);
        pause_ms(DEVICE_PAUSE_MS);
    }
    *ret_fd = fd_take(&fd);
    return 0;
}
