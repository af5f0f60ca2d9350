#include "daemon/machine/fingerprint.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/crc32c.h"
#include "base/fd.h"
#include "daemon/machine/template.h"
#include "embed.h"

#define CPUINFO_BYTES_MAX 16384

/* Model and feature flags of the first processor, and the running kernel: a snapshot holds register
 * state that another CPU, or another KVM, may refuse. Clock speeds change and are left out. */
static uint32_t host_crc(void)
{
    char text[CPUINFO_BYTES_MAX];
    struct utsname name;
    uint32_t crc = 0;
    FD_AUTO int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? fd_read_full(fd, text, sizeof(text) - 1) : 0;

    text[n > 0 ? n : 0] = '\0';
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        bool flags = strncmp(line, "flags", 5) == 0;
        if (flags || strncmp(line, "model name", 10) == 0 || strncmp(line, "stepping", 8) == 0)
            crc = crc32c(crc, line, (size_t)(end - line));
        if (flags)
            break;
    }
    if (uname(&name) == 0)
        crc = crc32c(crc, name.release, strlen(name.release));
    return crc;
}

void fingerprint_shape(const struct template_set *set, const struct template *t, char *ret_text,
                       size_t size)
{
    (void)snprintf(ret_text, size, "kernel %s, root %s, agent %08x, monitor %08x, host %08x",
                   set->kernel_stamp, t->root_stamp,
                   crc32c(0, embed_initramfs, (size_t)(embed_initramfs_end - embed_initramfs)),
                   crc32c(0, embed_vmm, (size_t)(embed_vmm_end - embed_vmm)), host_crc());
}
