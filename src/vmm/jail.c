#include "vmm/jail.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm_seccomp.h"

static int install(const struct sock_filter *filter, size_t count, unsigned flags, struct error *e)
{
    /* The kernel only reads it. */
    struct sock_fprog program = {.len = (unsigned short)count,
                                 .filter = (struct sock_filter *)(uintptr_t)filter};
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);

    /* With TSYNC a positive result is the thread that could not follow. */
    if (result == 0)
        return 0;
    return result < 0 ? error_errno(e, errno, "cannot install a seccomp filter")
                      : error_set(e, ERR_INTERNAL, "thread %ld did not enter the jail", result);
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

int jail_enter_build(struct error *e)
{
    if (syscall(SYS_close_range, VMM_KVM_FD + 1, UINT_MAX, 0) != 0)
        return error_errno(e, errno, "close_range");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return error_errno(e, errno, "prctl");
    return install(seccomp_build, COUNT(seccomp_build), 0, e);
}

int jail_enter_run(enum vmm_mode mode, struct error *e)
{
    if (mode == VMM_MODE_BOOT)
        return install(seccomp_boot, COUNT(seccomp_boot), SECCOMP_FILTER_FLAG_TSYNC, e);
    return install(seccomp_restore, COUNT(seccomp_restore), SECCOMP_FILTER_FLAG_TSYNC, e);
}
