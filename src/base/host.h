/* Facts about the machine that more than one role needs. */
#pragma once

/*
 * What stands behind /dev/kvm. HARDWARE: the CPU offers VT-x or SVM, guests run on it. SOFTWARE: it
 * offers neither to this host, so a KVM that works all the same interprets guest kernel mode (and
 * isolates by page tables and ring 3 of the host kernel instead of by the CPU's guest mode).
 */
enum host_kvm_kind { HOST_KVM_SOFTWARE, HOST_KVM_HARDWARE };

/* Asks the CPU itself: CPUID 1:ECX.VMX[5] (Intel SDM 3, 24.6) and 8000_0001h:ECX.SVM[2] (AMD APM 2,
 * 15.4). Needs no file, so the jailed monitor can ask as well. */
enum host_kvm_kind host_kvm_kind(void);
