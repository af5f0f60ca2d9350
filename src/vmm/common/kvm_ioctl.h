/* ioctl(2) on KVM's descriptors. */
#pragma once

/* With the request as the kernel defines it (musl's own takes an int); -1 with errno on failure. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
