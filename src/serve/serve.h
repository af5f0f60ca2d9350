/* `cloche serve`: checks, opens and locks everything as root, starts priv, becomes the daemon. */
#pragma once

/* Runs the command; returns its exit code where it fails (the error is on stderr). */
int serve_main(int argc, char **argv);
