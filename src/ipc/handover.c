#include "ipc/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "cloche/limits.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

int handover_seal(const struct handover_settings *s, struct error *e)
{
    FD_AUTO int fd = memfd_create("cloche-settings", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || fd_write_full(fd, s, sizeof(*s)) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0)
        return error_errno(e, errno, "cannot make the block of settings");
    return fd_take(&fd);
}

static int ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

int handover_read(int fd, struct handover_settings *ret_settings, struct error *e)
{
    struct handover_settings s;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) != 0 ||
        st.st_size != (off_t)sizeof(s))
        return error_set(e, ERR_USAGE, "no sealed settings on descriptor %d", fd);
    if (fd_pread_full(fd, &s, sizeof(s), 0) != (ssize_t)sizeof(s))
        return error_errno(e, errno, "cannot read the settings");
    if (s.magic != HANDOVER_MAGIC || s.version != HANDOVER_VERSION || s.log_level > LOG_DEBUG ||
        s.uid_base == 0 || s.uid_base > UINT32_MAX - 2 - SANDBOX_COUNT_MAX ||
        !ends(s.socket_name, sizeof(s.socket_name)) ||
        !ends(s.socket_path, sizeof(s.socket_path)) || !ends(s.state_path, sizeof(s.state_path)) ||
        !ends(s.images_path, sizeof(s.images_path)) || !ends(s.config_path, sizeof(s.config_path)))
        return error_set(e, ERR_USAGE, "the settings on descriptor %d are not this build's", fd);
    *ret_settings = s;
    return 0;
}
