#include "runner.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cloche/limits.h"
#include "ipc/ipc.h"

#define DISK_BYTES (64 * KIB)
#define POLL_MS    10
#define END_MS     2000

/* A file of the build folder, which is two above this program's own. */
static void build_path(const char *name, char *ret, size_t size)
{
    char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    assert(n > 0);
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    assert(slash != NULL);
    *slash = '\0';
    int used = snprintf(ret, size, "%s/%s", self, name);
    assert(used > 0 && (size_t)used < size);
}

bool runner_has_kvm(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        printf("needs kvm: /dev/kvm: %s\n", strerror(errno));
        return false;
    }
    fd_close(&fd);
    return true;
}

static int make_memory(const char *name, uint64_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert(fd >= 0);
    int result = ftruncate(fd, (off_t)bytes);
    assert(result == 0);
    return fd;
}

void runner_template_init(struct runner_template *t)
{
    t->memory_fd = make_memory("memory", RUNNER_MEM_MIB * MIB);
    t->state_fd = make_memory("state", 0);
}

void runner_template_seal(struct runner_template *t)
{
    int result = fcntl(t->memory_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);

    assert(result == 0);
}

void runner_template_fini(struct runner_template *t)
{
    fd_close(&t->memory_fd);
    fd_close(&t->state_fd);
}

static _Noreturn void run_monitor(const char *path, int control_fd, int kvm_fd)
{
    char *const argv[] = {(char[]){"cloche-vmm"}, NULL};
    char *const environment[] = {NULL};

    /* Both are above the numbers they go to (runner_start), so neither overwrites the other. */
    if (dup2(control_fd, VMM_CONTROL_FD) < 0 || dup2(kvm_fd, VMM_KVM_FD) < 0)
        _exit(126);
    (void)execve(path, argv, environment);
    _exit(127);
}

/* The same descriptor under a number above those of the monitor. */
static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 16);

    assert(moved >= 0);
    fd_close(&fd);
    return moved;
}

void runner_start(struct runner *r)
{
    struct error e = ERROR_INIT;
    char path[600];
    int pair[2];

    *r = (struct runner){.channel_fd = -1};
    build_path("../../vmm", path, sizeof(path));
    int result = ipc_pair(pair, &e);
    assert(result == 0);
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    assert(kvm_fd >= 0);
    kvm_fd = move_up(kvm_fd);
    pair[1] = move_up(pair[1]);
    r->pid = fork();
    assert(r->pid >= 0);
    if (r->pid == 0)
        run_monitor(path, pair[1], kvm_fd);
    fd_close(&kvm_fd);
    fd_close(&pair[1]);
    r->control_fd = pair[0];
}

int runner_disk(void)
{
    return make_memory("disk", DISK_BYTES);
}

int runner_open_guest(void)
{
    char path[600];

    build_path("guest.elf", path, sizeof(path));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        perror(path);
    assert(fd >= 0);
    return fd;
}

void runner_send_config(struct runner *r, const struct vmm_config *config, const int *fds,
                        size_t fd_count)
{
    struct error e = ERROR_INIT;

    /* A monitor that has ended already is what some tests are about. */
    (void)!ipc_send(r->control_fd, config, sizeof(*config), fds, fd_count, &e);
}

void runner_config(struct runner *r, enum vmm_mode mode, const struct runner_template *t,
                   uint32_t vcpus, const char *payload)
{
    struct vmm_config config = {
        .type = VMM_CONFIG, .mode = mode, .vcpus = vcpus, .mem_mib = RUNNER_MEM_MIB};
    int pair[2];
    int result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    int fds[VMM_FD_COUNT_BOOT];
    size_t count = mode == VMM_MODE_BOOT ? VMM_FD_COUNT_BOOT : (size_t)VMM_FD_COUNT_RESTORE;

    assert(result == 0);
    if (payload != NULL)
        (void)snprintf(config.cmdline_extra, sizeof(config.cmdline_extra), "payload=%s", payload);
    fds[VMM_FD_MEMORY] = t->memory_fd;
    fds[VMM_FD_STATE] = t->state_fd;
    fds[VMM_FD_ROOT] = runner_disk();
    fds[VMM_FD_SCRATCH] = runner_disk();
    fds[VMM_FD_CHANNEL] = pair[1];
    fds[VMM_FD_KERNEL] = runner_open_guest();
    fds[VMM_FD_INITRD] = make_memory("initrd", 0);
    runner_send_config(r, &config, fds, count);
    for (size_t i = VMM_FD_ROOT; i < VMM_FD_COUNT_BOOT; i++)
        fd_close(&fds[i]);
    r->channel_fd = pair[0];
}

void runner_send_start(struct runner *r)
{
    struct vmm_start start = {.type = VMM_START,
                              .identity = {.magic = IDENTITY_MAGIC, .version = IDENTITY_VERSION}};
    struct error e = ERROR_INIT;

    memset(start.identity.entropy, 0xe5, sizeof(start.identity.entropy));
    memset(start.identity.sandbox_id, 0xe5, sizeof(start.identity.sandbox_id));
    (void)!ipc_send(r->control_fd, &start, sizeof(start), NULL, 0, &e);
}

static void look_at_memory(struct runner *r)
{
    char path[64];
    char line[256];
    unsigned long long kib;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)r->pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "RssAnon: %llu", &kib) == 1 && kib > r->anon_kib_max)
            r->anon_kib_max = kib;
    }
    if (f != NULL)
        (void)fclose(f);
}

bool runner_wait(struct runner *r, unsigned timeout_ms, struct vmm_event *ret)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * NS_PER_MS;
    struct pollfd p = {.fd = r->control_fd, .events = POLLIN};
    struct error e = ERROR_INIT;

    *ret = (struct vmm_event){0};
    do {
        if (r->built) /* before that it may still be the test's own image */
            look_at_memory(r);
        if (poll(&p, 1, POLL_MS) > 0) {
            int size = ipc_recv(r->control_fd, ret, sizeof(*ret), NULL, 0, NULL, &e);
            assert(size <= 0 || (size_t)size == sizeof(*ret));
            r->built = r->built || ret->type == VMM_BUILT;
            return true;
        }
    } while (clock_mono_ns() < end_ns);
    return false;
}

void runner_channel_put(struct runner *r, char byte)
{
    ssize_t n = send(r->channel_fd, &byte, 1, MSG_NOSIGNAL);

    assert(n == 1);
}

int runner_channel_get(struct runner *r, unsigned timeout_ms)
{
    struct pollfd p = {.fd = r->channel_fd, .events = POLLIN};
    char byte;

    if (poll(&p, 1, (int)timeout_ms) <= 0 || recv(r->channel_fd, &byte, 1, 0) != 1)
        return -1;
    return byte;
}

uint8_t runner_memory(const struct runner_template *t, uint64_t gpa)
{
    uint8_t byte = 0;
    ssize_t n = pread(t->memory_fd, &byte, 1, (off_t)gpa);

    assert(n == 1);
    return byte;
}

int runner_stop(struct runner *r)
{
    uint64_t end_ns = clock_mono_ns() + END_MS * NS_PER_MS;
    int status = -1;

    fd_close(&r->control_fd);
    while (waitpid(r->pid, &status, WNOHANG) == 0) {
        if (clock_mono_ns() > end_ns) {
            (void)kill(r->pid, SIGKILL);
            (void)waitpid(r->pid, &status, 0);
            status = -1;
            break;
        }
        (void)usleep(1000);
    }
    fd_close(&r->channel_fd);
    r->pid = 0;
    return status;
}
