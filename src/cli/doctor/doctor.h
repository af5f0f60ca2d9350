/* The checks of `cloche doctor`: each looks at one thing of this host and changes nothing. */
#pragma once

#include <stddef.h>

enum finding_level { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct finding {
    enum finding_level level;
    char text[320];
    char remedy[320]; /* empty where there is nothing to mend */
};

/* What the command line said, for the checks that look at a place. */
struct doctor_paths {
    const char *socket;
    const char *state_dir;
    const char *images_dir;
};

/* Fills a finding. */
void finding_set(struct finding *f, enum finding_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void finding_remedy(struct finding *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A small text file, cut at size - 1 bytes; empty where it cannot be read. Returns its length. */
size_t doctor_read(const char *path, char *ret_text, size_t size);

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
