/* System calls: futex. */
#include "vmm/common/gate.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void gate_arrive(struct gate *g)
{
    atomic_fetch_add(&g->arrived, 1); /* pairs with the load in gate_wait */
    (void)syscall(SYS_futex, &g->arrived, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void gate_wait(struct gate *g, uint32_t count)
{
    uint32_t arrived;

    while ((arrived = atomic_load(&g->arrived)) < count)
        (void)syscall(SYS_futex, &g->arrived, FUTEX_WAIT_PRIVATE, arrived, NULL, NULL, 0);
}
