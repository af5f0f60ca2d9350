#include "vmm/common/kvm_ioctl.h"

#include <sys/syscall.h>
#include <unistd.h>

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    return (int)syscall(SYS_ioctl, fd, request, arg);
}
