/*
 * What priv takes from itself before it listens to anybody. Stages, each irrevocable:
 *
 *   harden_mounts   moves to a mount namespace of its own with nothing but an empty read-only
 *                   directory. What priv still needs of the host's files it holds as descriptors of
 *                   directories. Monitors inherit this namespace, and none of the descriptors.
 *                   After it: mustn't open by absolute path.
 *   harden_rights   keeps the few capabilities that starting and stopping monitors takes, empties
 *                   the bounding set (so children can never have any), sets no_new_privs.
 *   harden_calls    a seccomp filter against the system calls by which root reaches further.
 *
 * The filter is a list of what is forbidden, not of what is allowed: monitors inherit it, and what
 * they may do is judged by their own, much narrower filter. Any forbidden call kills the process.
 */
#pragma once

#include "base/error.h"

int harden_mounts(struct error *e) __attribute__((warn_unused_result));
int harden_rights(struct error *e) __attribute__((warn_unused_result));
int harden_calls(struct error *e) __attribute__((warn_unused_result));
