/*
 * The kernel loader (vmm/x86/loader.h), both of its formats. The first byte of an input says how
 * large the initramfs is, the rest is the image.
 *
 * Held: nothing below the kernel's lowest address is written and nothing beside guest RAM (pages
 * with a pattern lie on both sides, and no access beyond those); what a refusal says names it; what
 * is accepted starts in what it loaded; and an initramfs lies in low RAM, behind the kernel and in
 * its reach.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cloche/guest_abi.h"
#include "vmm/x86/loader.h"

#define LOW_BYTES   (LOADER_KERNEL_GPA_MIN + (UINT64_C(256) << 10))
#define HIGH_BYTES  (UINT64_C(64) << 10)
#define RAM_BYTES   (LOW_BYTES + HIGH_BYTES)
#define EDGE_BYTES  4096u
#define GUARD_BYTES (4u << 20)
#define PATTERN     0xc3

static struct guest_mem mem;
static uint8_t *edges[2];

static void set_up_once(void)
{
    const size_t map_bytes = 2 * (GUARD_BYTES + EDGE_BYTES) + RAM_BYTES;
    uint8_t *map = mmap(NULL, map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert(map != MAP_FAILED);
    edges[0] = map + GUARD_BYTES;
    mem = (struct guest_mem){
        .host = edges[0] + EDGE_BYTES, .low_bytes = LOW_BYTES, .high_bytes = HIGH_BYTES};
    edges[1] = mem.host + RAM_BYTES;
    int result = mprotect(edges[0], RAM_BYTES + 2 * EDGE_BYTES, PROT_READ | PROT_WRITE);
    assert(result == 0);
    memset(edges[0], PATTERN, EDGE_BYTES);
    memset(edges[1], PATTERN, EDGE_BYTES);
}

static void check_all(const uint8_t *at, size_t size, uint8_t value)
{
    assert(at[0] == value && memcmp(at, at + 1, size - 1) == 0);
}

static void check_initrd(const struct loaded_kernel *kernel, uint64_t size)
{
    struct error e = ERROR_INIT;
    uint64_t gpa = UINT64_MAX;

    if (loader_place_initrd(&mem, kernel, size, &gpa, &e) != 0) {
        assert(e.code == ERR_BAD_REQUEST && gpa == UINT64_MAX);
        return;
    }
    assert(gpa % GUEST_PAGE_BYTES == 0 && gpa >= kernel->end);
    assert(gpa + size <= mem.low_bytes && gpa + size <= kernel->initrd_end_max);
}

static void check(const uint8_t *image, size_t size, uint64_t initrd_bytes)
{
    struct loaded_kernel kernel;
    struct error e = ERROR_INIT;

    memset(&kernel, PATTERN, sizeof(kernel));
    if (loader_load_kernel(&mem, image, size, &kernel, &e) == 0) {
        assert(kernel.entry >= LOADER_KERNEL_GPA_MIN && kernel.entry < kernel.end);
        assert(guest_mem_at(&mem, kernel.end - 1, 1) != NULL);
        check_initrd(&kernel, initrd_bytes);
    } else {
        assert(e.code == ERR_BAD_REQUEST && e.message[0] != '\0');
        check_all((const uint8_t *)&kernel, sizeof(kernel), PATTERN);
    }
    check_all(mem.host, LOADER_KERNEL_GPA_MIN, 0);
    check_all(edges[0], EDGE_BYTES, PATTERN);
    check_all(edges[1], EDGE_BYTES, PATTERN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (mem.host == NULL)
        set_up_once();
    if (size == 0)
        return 0;
    memset(mem.host + LOADER_KERNEL_GPA_MIN, 0, RAM_BYTES - LOADER_KERNEL_GPA_MIN);
    /* An exact copy, so that a read past its end is found. */
    uint8_t *image = malloc(size > 1 ? size - 1 : 1);
    if (image == NULL)
        return 0;
    memcpy(image, data + 1, size - 1);
    check(image, size - 1, (uint64_t)data[0] * 2048);
    free(image);
    return 0;
}
