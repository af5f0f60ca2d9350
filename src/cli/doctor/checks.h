/* The checks of `cloche doctor`: each looks at one thing of this host and changes nothing. */
#pragma once

#include "cli/doctor/finding.h"

/* What the command line said, for the checks that look at a place. */
struct doctor_paths {
    const char *socket;
    const char *state_dir;
    const char *images_dir;
};

/* doctor_host.c */
void doctor_check_user(struct finding *f, const struct doctor_paths *paths);
void doctor_check_kernel(struct finding *f, const struct doctor_paths *paths);
void doctor_check_cgroup(struct finding *f, const struct doctor_paths *paths);
void doctor_check_seccomp(struct finding *f, const struct doctor_paths *paths);
void doctor_check_namespaces(struct finding *f, const struct doctor_paths *paths);
void doctor_check_files(struct finding *f, const struct doctor_paths *paths);
void doctor_check_tun(struct finding *f, const struct doctor_paths *paths);
void doctor_check_bpf(struct finding *f, const struct doctor_paths *paths);

/* doctor_kvm.c */
void doctor_check_kvm(struct finding *f, const struct doctor_paths *paths);

/* doctor_space.c */
void doctor_check_memory(struct finding *f, const struct doctor_paths *paths);
void doctor_check_disk(struct finding *f, const struct doctor_paths *paths);
void doctor_check_libraries(struct finding *f, const struct doctor_paths *paths);
void doctor_check_images(struct finding *f, const struct doctor_paths *paths);
void doctor_check_daemon(struct finding *f, const struct doctor_paths *paths);
