#include "guest/exec/accounts.h"

#include <stdint.h>
#include <string.h>

struct span {
    const char *at;
    size_t length;
};

/* Cuts the part up to `separator` off the front; without one, everything. */
static struct span cut(struct span *rest, char separator)
{
    const char *end = rest->length == 0 ? NULL : memchr(rest->at, separator, rest->length);
    struct span part = {rest->at, end == NULL ? rest->length : (size_t)(end - rest->at)};
    size_t used = part.length + (end != NULL);

    rest->at += used;
    rest->length -= used;
    return part;
}

static bool equals(struct span part, const char *text)
{
    return strlen(text) == part.length && memcmp(part.at, text, part.length) == 0;
}

/* Decimal digits only, below the value that stands for "no id". */
static bool parse_id(struct span part, uint32_t *ret_id)
{
    uint64_t value = 0;

    if (part.length == 0 || part.length > 10)
        return false;
    for (size_t i = 0; i < part.length; i++) {
        if (part.at[i] < '0' || part.at[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(part.at[i] - '0');
    }
    if (value >= UINT32_MAX)
        return false;
    *ret_id = (uint32_t)value;
    return true;
}

/* name:password:uid:gid:... */
static bool parse_account(struct span line, struct span *ret_name, struct account *ret_account)
{
    struct span name = cut(&line, ':');

    (void)cut(&line, ':');
    if (name.length == 0 || name.length >= ACCOUNT_NAME_BYTES ||
        !parse_id(cut(&line, ':'), &ret_account->uid) ||
        !parse_id(cut(&line, ':'), &ret_account->gid))
        return false;
    memcpy(ret_account->name, name.at, name.length);
    ret_account->name[name.length] = '\0';
    *ret_name = name;
    return true;
}

bool accounts_find(const char *passwd, size_t size, const char *who, struct account *ret_account)
{
    struct span text = {passwd, size};
    uint32_t uid = 0;
    bool is_number = parse_id((struct span){who, strlen(who)}, &uid);
    bool found = false;

    while (text.length > 0) {
        struct account account;
        struct span name;

        if (!parse_account(cut(&text, '\n'), &name, &account))
            continue;
        if (equals(name, who)) {
            *ret_account = account;
            return true;
        }
        if (is_number && !found && account.uid == uid) {
            *ret_account = account;
            found = true;
        }
    }
    if (is_number && !found) {
        *ret_account = (struct account){.uid = uid, .gid = uid};
        found = true;
    }
    return found;
}

static bool list_names(struct span list, const char *name)
{
    while (list.length > 0) {
        if (equals(cut(&list, ','), name))
            return true;
    }
    return false;
}

size_t accounts_groups(const char *group, size_t size, const struct account *account,
                       gid_t *ret_groups, size_t count_max)
{
    struct span text = {group, size};
    size_t count = 0;

    if (count_max > 0)
        ret_groups[count++] = account->gid;
    while (text.length > 0 && count < count_max && account->name[0] != '\0') {
        struct span line = cut(&text, '\n');
        uint32_t gid;

        /* name:password:gid:members */
        (void)cut(&line, ':');
        (void)cut(&line, ':');
        if (!parse_id(cut(&line, ':'), &gid) || gid == account->gid)
            continue;
        if (list_names(line, account->name))
            ret_groups[count++] = gid;
    }
    return count;
}
