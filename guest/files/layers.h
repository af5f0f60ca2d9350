/* The parts of the overlay that is the root: what a sandbox has changed is in two directories of
 * its own disk. They are opened before the root covers them, by guest/boot. All -1 where there is
 * no overlay. */
#pragma once

struct layers {
    int upper_fd; /* what differs from the template */
    int lower_fd; /* the template */
    int tmp_fd;   /* /tmp, which is beside the overlay */
};

#define LAYERS_NONE                                                                                \
    {                                                                                              \
        .upper_fd = -1, .lower_fd = -1, .tmp_fd = -1                                               \
    }
