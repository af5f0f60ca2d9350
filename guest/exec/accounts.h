/*
 * Users and groups of the guest, read from the text of /etc/passwd and /etc/group (passwd(5),
 * group(5)). The C library's functions are not used: they may load modules or ask a daemon.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define ACCOUNT_NAME_BYTES 256u

struct account {
    char name[ACCOUNT_NAME_BYTES]; /* empty for a number that no line of passwd has */
    uid_t uid;
    gid_t gid;
};

/*
 * Finds `who`, a name or a decimal uid (a name wins where both fit). A uid that has no line is
 * taken as it is, with the group of the same number. Returns false where there is no such name.
 */
bool accounts_find(const char *passwd, size_t size, const char *who, struct account *ret_account);

/* The account's own group and those whose lines name it; at most `count_max`. Returns the count. */
size_t accounts_groups(const char *group, size_t size, const struct account *account,
                       gid_t *ret_groups, size_t count_max);
