/* The priv role: the only root process. It starts monitors and takes them down again. */
#pragma once

/* Runs the role with the descriptors of cloche/handover.h until the daemon's socket closes. Returns
 * the process's exit code when everything that it made is gone. */
int priv_main(void);
