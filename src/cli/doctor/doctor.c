#include "cli/doctor/doctor.h"

#include <stdio.h>

#include "cli/common/arguments.h"
#include "cli/common/places.h"
#include "cli/doctor/checks.h"

static const struct {
    const char *name;
    void (*check)(struct finding *f, const struct doctor_paths *paths);
} checks[] = {
    {"user", doctor_check_user},       {"kernel", doctor_check_kernel},
    {"kvm", doctor_check_kvm},         {"cgroup", doctor_check_cgroup},
    {"seccomp", doctor_check_seccomp}, {"namespaces", doctor_check_namespaces},
    {"memory", doctor_check_memory},   {"disk", doctor_check_disk},
    {"files", doctor_check_files},     {"libraries", doctor_check_libraries},
    {"images", doctor_check_images},   {"tap", doctor_check_tun},
    {"bpf", doctor_check_bpf},         {"daemon", doctor_check_daemon},
};

static const char *const level_names[] = {
    [FINDING_OK] = "ok", [FINDING_WARN] = "warn", [FINDING_FAIL] = "fail"};

static int run_doctor(const struct command *command, int argc, char **argv, struct error *e)
{
    struct doctor_paths paths = {.socket = NULL};
    const struct argument_option options[] = {
        {.name = "state-dir",
         .value = "D",
         .text = &paths.state_dir,
         .help = "where the daemon keeps its state"},
        {.name = "images",
         .value = "D",
         .text = &paths.images_dir,
         .help = "guest kernel and images"},
        {.name = "socket", .value = "S", .text = &paths.socket, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct argument_parser p;
    unsigned fails = 0, warnings = 0;
    size_t count;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, NULL, 0, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    paths.socket = place_socket(paths.socket);
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        struct finding f = {.level = FINDING_FAIL};
        checks[i].check(&f, &paths);
        printf("%-5s %-11s %s\n", level_names[f.level], checks[i].name, f.text);
        if (f.remedy[0] != '\0')
            printf("%-17s %s\n", "", f.remedy);
        fails += f.level == FINDING_FAIL;
        warnings += f.level == FINDING_WARN;
    }
    printf("%u to mend, %u to know about\n", fails, warnings);
    return fails > 0 ? 1 : 0;
}

const struct command command_doctor = {
    .name = "doctor",
    .summary = "what this host has for cloche, and how to mend what is missing",
    .usage = "[OPTION]...",
    .examples = "Exits with 1 where something is missing that cloche needs.\n"
                "\n"
                "  sudo cloche doctor\n",
    .run = run_doctor,
};
