#include "serve/inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define KVM_PATH "/dev/kvm"

static const struct {
    int err;
    const char *remedy;
} kvm_remedies[] = {
    {ENOENT, "load KVM with `modprobe kvm_intel` or `modprobe kvm_amd`; if that fails, switch on "
             "virtualisation (VT-x, AMD-V/SVM) in the BIOS, or nested virtualisation for this VM"},
    {ENODEV,
     "the KVM module is not usable: switch on virtualisation (VT-x, AMD-V/SVM) in the BIOS, "
     "then `modprobe kvm_intel` or `modprobe kvm_amd`"},
    {EACCES, "run as root, and in a container pass the device on (--device /dev/kvm)"},
    {EPERM, "run as root, and in a container pass the device on (--device /dev/kvm)"},
    {EBUSY, "another hypervisor holds the CPU's virtualisation; stop it"},
};

int inputs_check_kvm(struct error *e)
{
    FD_AUTO int fd = open(KVM_PATH, O_RDWR | O_CLOEXEC);
    int err = errno;

    if (fd >= 0)
        return 0;
    (void)error_set(e, ERR_KVM_UNAVAILABLE, "cannot open " KVM_PATH);
    (void)error_cause(e, "%s", strerror(err));
    for (size_t i = 0; i < sizeof(kvm_remedies) / sizeof(kvm_remedies[0]); i++)
        if (kvm_remedies[i].err == err)
            (void)error_remedy(e, "%s", kvm_remedies[i].remedy);
    return -1;
}

/* The directory of this program's file, without the final slash. */
static int own_dir(char ret_dir[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", ret_dir, PATH_MAX - 1);
    char *slash = n > 0 ? memrchr(ret_dir, '/', (size_t)n) : NULL;

    if (slash == NULL)
        return -1;
    *slash = '\0';
    return 0;
}

static int find_images(char ret_path[PATH_MAX])
{
    static const char *const places[] = {"%s/images", "%s/../images", "%s/../lib/cloche/images"};
    char dir[PATH_MAX];
    char path[PATH_MAX + 32];
    struct stat st;

    if (own_dir(dir) == 0) {
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
            (void)snprintf(path, sizeof(path), "%s%s", dir, places[i] + 2);
            if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
                return realpath(path, ret_path) != NULL ? 0 : -1;
        }
    }
    (void)snprintf(ret_path, PATH_MAX, "/usr/local/lib/cloche/images");
    return stat(ret_path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : -1;
}

int inputs_open_images(const char *given, int *ret_fd, char ret_path[PATH_MAX], struct error *e)
{
    struct stat st;
    char path[PATH_MAX];

    if (given != NULL)
        (void)snprintf(path, sizeof(path), "%s", given);
    else if (find_images(path) != 0) {
        (void)error_set(e, ERR_NOT_FOUND, "no directory with guest images is found");
        return error_remedy(e, "build them with `make images`, or name their directory with "
                               "--images");
    }
    FD_AUTO int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        int err = errno;

        (void)error_set(e, ERR_NOT_FOUND, "cannot open images directory %s", path);
        (void)error_cause(e, "%s", strerror(err));
        return error_remedy(e, "build the images with `make images`, or name their directory with "
                               "--images");
    }
    if ((st.st_mode & 0005) != 0005) {
        (void)error_set(e, ERR_USAGE,
                        "images directory %s cannot be read by the daemon, which is "
                        "not root",
                        path);
        return error_remedy(e, "chmod o+rx %.200s", path);
    }
    if (realpath(path, ret_path) == NULL)
        (void)snprintf(ret_path, PATH_MAX, "%s", path);
    *ret_fd = fd_take(&fd);
    return 0;
}

int inputs_open_config(const char *path, bool required, int *ret_fd, struct error *e)
{
    struct stat st;
    /* Not blocking: a FIFO of that name must not stop the start. */
    FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT && !required) {
        *ret_fd = -1;
        return 0;
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        int err = errno;

        (void)error_set(e, ERR_USAGE, "cannot open config file %s", path);
        return error_cause(e, "%s", strerror(err));
    }
    if (!S_ISREG(st.st_mode))
        return error_set(e, ERR_USAGE, "config file %s is not a regular file", path);
    *ret_fd = fd_take(&fd);
    return 0;
}
