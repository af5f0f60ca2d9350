/*
 * The part of the monitor's isolation that it must do itself; priv has already taken away users,
 * namespaces, capabilities, files and resources. Two seccomp filters, one on top of the other, made
 * at build time by seccomp_gen.c, where each rule has its reason:
 *
 *   build  before the first byte of CONFIG is read: may map memory, make a VM and threads, and read
 *          what came with CONFIG. Must not open, connect, execute or look at anything else.
 *   run    before BUILT, for all threads: may run vCPUs, move bytes between descriptors that are
 *          open, and (BOOT only) read the machine out to park it. Must not make anything new: no
 *          mapping, no thread, no descriptor.
 *
 * A violation kills the process. There is no way back from either stage.
 */
#pragma once

#include "base/error.h"
#include "cloche/vmm_proto.h"

/* Also gives up new privileges through exec, core dumps and ptrace, and closes every descriptor
 * after VMM_KVM_FD, so that nothing that was inherited by mistake stays. */
int jail_enter_build(struct error *e) __attribute__((warn_unused_result));

/* For all threads; not one may be made after that. */
int jail_enter_run(enum vmm_mode mode, struct error *e) __attribute__((warn_unused_result));
