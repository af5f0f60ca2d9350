/* The embedded monitor as a file that can be executed, and never again written. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "serve/spawn.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u /* Linux 6.3 */
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

int spawn_seal_program(const void *data, size_t size, struct error *e)
{
    FD_AUTO int fd = memfd_create("cloche-vmm", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 every memfd is executable */
        fd = memfd_create("cloche-vmm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_errno(e, errno, "cannot make a file in memory for the monitor");
    /*
     * Nobody but root may read it, and the kernel keeps a process undumpable whose program it
     * cannot read: monitors cannot be traced or looked into by anything with their uid.
     */
    if (fd_write_full(fd, data, size) != 0 || fchmod(fd, 0511) != 0)
        return error_errno(e, errno, "cannot write the monitor's program");
    if (fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_EXEC) != 0 && fcntl(fd, F_ADD_SEALS, SEALS) != 0)
        return error_errno(e, errno, "cannot seal the monitor's program");
    return fd_take(&fd);
}
