#include "priv/harden.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EMPTY_FLAGS (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)

/*
 * The mount point is only borrowed: any directory does, and /proc must exist. pivot_root(2) with
 * "." twice puts the old root on top of the new one, from where it is detached. A host whose root
 * is its initramfs cannot pivot; there the new root is moved over it, which hides it from everybody
 * without capabilities, that is, from monitors.
 */
int harden_mounts(struct error *e)
{
    if (unshare(CLONE_NEWNS) != 0)
        return error_errno(e, errno, "cannot make a mount namespace");
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return error_errno(e, errno, "cannot make mounts private");
    if (mount("none", "/proc", "tmpfs", EMPTY_FLAGS & ~(unsigned long)MS_RDONLY,
              "mode=0555,size=4096,nr_inodes=2") != 0)
        return error_errno(e, errno, "cannot mount an empty directory");
    if (chdir("/proc") != 0)
        return error_errno(e, errno, "cannot enter an empty directory");
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) != 0)
            return error_errno(e, errno, "cannot detach the host's files");
    } else if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) {
        return error_errno(e, errno, "cannot change the root directory");
    }
    if (chdir("/") != 0 || mount("none", "/", NULL, MS_REMOUNT | EMPTY_FLAGS, NULL) != 0)
        return error_errno(e, errno, "cannot make the empty directory read-only");
    return 0;
}

static const unsigned capabilities_kept[] = {
    CAP_SYS_ADMIN,    /* namespaces of a monitor */
    CAP_SETUID,       /* a monitor's own user */
    CAP_SETGID,       /* and group */
    CAP_KILL,         /* SIGKILL to other users' processes: the monitors */
    CAP_DAC_OVERRIDE, /* unlink the socket in a directory that belongs to another user */
};
#define KEPT_COUNT (sizeof(capabilities_kept) / sizeof(capabilities_kept[0]))

int harden_rights(struct error *e)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            return error_errno(e, errno, "cannot empty the bounding set of capabilities");
    for (unsigned i = 0; i < KEPT_COUNT; i++)
        data[CAP_TO_INDEX(capabilities_kept[i])].permitted |= CAP_TO_MASK(capabilities_kept[i]);
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
        syscall(SYS_capset, &header, data) != 0)
        return error_errno(e, errno, "cannot drop capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_errno(e, errno, "cannot set no_new_privs");
    return 0;
}

/* Neither priv nor any monitor has a use for these. */
static const int calls_forbidden[] = {
    /* other programs than the sealed one; execveat is filtered by its flags */
    SCMP_SYS(execve),
    /* the network, and sockets of anybody else */
    SCMP_SYS(socket),
    SCMP_SYS(bind),
    SCMP_SYS(connect),
    SCMP_SYS(listen),
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    /* other processes' memory and descriptors */
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(kcmp),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(process_madvise),
    SCMP_SYS(process_mrelease),
    /* mounts, and other namespaces than those of clone3 */
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fspick),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(unshare),
    SCMP_SYS(setns),
    /* files by handle: a way around the empty root directory */
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at),
    /* names and rights of files */
    SCMP_SYS(link),
    SCMP_SYS(linkat),
    SCMP_SYS(symlink),
    SCMP_SYS(symlinkat),
    SCMP_SYS(rename),
    SCMP_SYS(renameat),
    SCMP_SYS(renameat2),
    SCMP_SYS(mknod),
    SCMP_SYS(mknodat),
    SCMP_SYS(chmod),
    SCMP_SYS(fchmod),
    SCMP_SYS(fchmodat),
    SCMP_SYS(chown),
    SCMP_SYS(lchown),
    SCMP_SYS(fchown),
    SCMP_SYS(fchownat),
    SCMP_SYS(setxattr),
    SCMP_SYS(lsetxattr),
    SCMP_SYS(fsetxattr),
    SCMP_SYS(quotactl),
    /* the kernel itself */
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(keyctl),
    SCMP_SYS(syslog),
    /* the machine */
    SCMP_SYS(reboot),
    SCMP_SYS(iopl),
    SCMP_SYS(ioperm),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(acct),
    SCMP_SYS(sethostname),
    SCMP_SYS(setdomainname),
    SCMP_SYS(settimeofday),
    SCMP_SYS(clock_settime),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(adjtimex),
    SCMP_SYS(vhangup),
    SCMP_SYS(modify_ldt),
    SCMP_SYS(uselib),
    SCMP_SYS(personality),
};
#define FORBIDDEN_COUNT (sizeof(calls_forbidden) / sizeof(calls_forbidden[0]))

/* By argument: memory that can be written and executed, and exec by any kind of path. */
static const struct {
    int call;
    struct scmp_arg_cmp argument;
} arguments_forbidden[] = {
    {SCMP_SYS(mmap), {2, SCMP_CMP_MASKED_EQ, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC}},
    {SCMP_SYS(mprotect), {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC}},
    {SCMP_SYS(pkey_mprotect), {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC}},
    {SCMP_SYS(execveat), {4, SCMP_CMP_NE, AT_EMPTY_PATH, 0}},
    {SCMP_SYS(clone), {0, SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER}},
};
#define ARGUMENT_COUNT (sizeof(arguments_forbidden) / sizeof(arguments_forbidden[0]))

int harden_calls(struct error *e)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int r = filter != NULL ? 0 : -ENOMEM;

    /* i386 and x32 numbers would pass by: libseccomp's default for foreign ones is to kill. */
    for (size_t i = 0; r == 0 && i < FORBIDDEN_COUNT; i++)
        r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, calls_forbidden[i], 0);
    for (size_t i = 0; r == 0 && i < ARGUMENT_COUNT; i++)
        r = seccomp_rule_add_array(filter, SCMP_ACT_KILL_PROCESS, arguments_forbidden[i].call, 1,
                                   &arguments_forbidden[i].argument);
    if (r == 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    if (r != 0)
        return error_errno(e, -r, "cannot install priv's system call filter");
    return 0;
}
