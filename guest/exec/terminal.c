#include "guest/exec/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/fd.h"

/* Where musl's headers are older than the kernel's call. */
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

#define TTY_MODE 0620

int terminal_open(uid_t uid, uint16_t rows, uint16_t columns, int *ret_master, int *ret_slave)
{
    const struct winsize size = {.ws_row = rows, .ws_col = columns};
    const int unlocked = 0;
    FD_AUTO int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return -1;
    /* By the master, not by a name below /dev, which the tenant may have changed. */
    FD_AUTO int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || fchown(slave, uid, (gid_t)-1) < 0 || fchmod(slave, TTY_MODE) < 0 ||
        ioctl(master, TIOCSWINSZ, &size) < 0)
        return -1;
    *ret_master = fd_take(&master);
    *ret_slave = fd_take(&slave);
    return 0;
}

void terminal_resize(int master, uint16_t rows, uint16_t columns)
{
    const struct winsize size = {.ws_row = rows, .ws_col = columns};

    (void)ioctl(master, TIOCSWINSZ, &size);
}

int terminal_eof_key(int master)
{
    struct termios modes;

    /* Of a terminal in raw mode the key is but a byte; that is what typing it gives there, too. */
    if (tcgetattr(master, &modes) < 0 || modes.c_cc[VEOF] == _POSIX_VDISABLE)
        return -1;
    return modes.c_cc[VEOF];
}
