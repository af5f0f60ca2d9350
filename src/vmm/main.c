/*
 * The monitor: one process, one guest. Started with the daemon's socket and /dev/kvm on fixed
 * descriptors, inside what priv has already taken away (uid, namespaces, capabilities, files,
 * limits). Boot order is the straight line of main(); each step has less right than the one before.
 */
#include "base/clock.h"
#include "vmm/build.h"
#include "vmm/common/control.h"
#include "vmm/jail.h"
#include "vmm/machine/vcpu.h"
#include "vmm/state/restore.h"
#include "vmm/vmm.h"

static struct vmm vmm;

int main(void)
{
    enum vmm_gone_reason reason = VMM_GONE_CONFIG;
    struct error e = ERROR_INIT;
    struct vmm_start start;

    control_init(&vmm.machine.control, VMM_CONTROL_FD);
    if (jail_enter_build(&e) != 0)
        control_gone_error(&vmm.machine.control, VMM_GONE_CONFIG, &e);

    control_wait_config(&vmm.machine.control, &vmm.config, vmm.fds);
    uint64_t begin_ns = clock_mono_ns();
    if (build_guest(&vmm, &reason, &e) != 0)
        control_gone_error(&vmm.machine.control, reason, &e);
    if (jail_enter_run((enum vmm_mode)vmm.config.mode, &e) != 0)
        control_gone_error(&vmm.machine.control, VMM_GONE_CONFIG, &e);
    control_report(&vmm.machine.control, VMM_BUILT, clock_mono_ns() - begin_ns);

    control_wait_start(&vmm.machine.control, &start);
    if (vmm.config.mode == VMM_MODE_RESTORE &&
        restore_start(&vmm.machine, &start.identity, &e) != 0)
        control_gone_error(&vmm.machine.control, VMM_GONE_KVM, &e);
    if (loop_start(&vmm.loop, &e) != 0)
        control_gone_error(&vmm.machine.control, VMM_GONE_CONFIG, &e);
    vcpu_run_all(&vmm.machine);
}
