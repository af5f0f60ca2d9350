/*
 * What a snapshot depends on, as a line of text: guest kernel, root image, agent, monitor, and the
 * host's CPU and kernel. A snapshot with another fingerprint is booted anew.
 */
#pragma once

#include <stddef.h>

struct template;
struct template_set;

void fingerprint_shape(const struct template_set *set, const struct template *t, char *ret_text,
                       size_t size);
