/*
 * What runs in the guest before its snapshot, so that it need not be done again in every sandbox: a
 * program's first start reads it from the disk and fills the kernel's caches, which takes longer
 * than all that follows.
 *
 * A shell is started, and the image's own WARM_UP_SCRIPT where there is one. All its processes are
 * gone when this returns. It must neither use the network nor write down anything random: the guest
 * has not been reseeded, so that all sandboxes of the template would share it.
 */
#pragma once

#define WARM_UP_SCRIPT "/etc/cloche/warm-up"

/* A warm-up that fails, or takes too long, is reported on the console and does no harm. */
void warm_up(void);
