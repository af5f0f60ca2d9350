/* Where things are unless an option or a variable says otherwise; as `cloche serve` has it. */
#pragma once

#include <stddef.h>

#define PLACE_SOCKET    "/run/cloche/cloche.sock"
#define PLACE_STATE_DIR "/var/lib/cloche"

/* The socket that a command talks to: `option` where it is given (not NULL), else $CLOCHE_SOCKET,
 * else PLACE_SOCKET. */
const char *place_socket(const char *option);

/*
 * The guest kernel and images that belong to this program: PREFIX/lib/cloche/images of one that is
 * installed in PREFIX/bin, build/images of one in a checkout's build folder. Where neither is
 * there, the name of the installed place.
 */
void place_images_dir(char *ret_path, size_t size);
