#include "vmm/common/guest_mem.h"

#include "cloche/guest_abi.h"

void guest_mem_init(struct guest_mem *m, void *host, uint64_t mem_bytes)
{
    uint64_t low = mem_bytes < GUEST_GAP_GPA ? mem_bytes : GUEST_GAP_GPA;

    *m = (struct guest_mem){.host = host, .low_bytes = low, .high_bytes = mem_bytes - low};
}

void *guest_mem_at(const struct guest_mem *m, uint64_t gpa, uint64_t size)
{
    uint64_t end;

    if (size == 0 || __builtin_add_overflow(gpa, size, &end))
        return NULL;
    if (end <= m->low_bytes)
        return m->host + gpa;
    if (gpa >= GUEST_HIGH_RAM_GPA && end <= GUEST_HIGH_RAM_GPA + m->high_bytes)
        return m->host + m->low_bytes + (gpa - GUEST_HIGH_RAM_GPA);
    return NULL;
}
