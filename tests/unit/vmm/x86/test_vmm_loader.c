/* Kernel images that lie about themselves, and what a good one is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cloche/guest_abi.h"
#include "cloche/limits.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/loader.h"
#include "vmm/x86/mptable.h"

#define RAM_BYTES   (64 * MIB)
#define IMAGE_BYTES 8192u

static struct guest_mem mem;
static uint8_t image[IMAGE_BYTES];

static int set_up(void **state)
{
    void *ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    (void)state;
    if (ram == MAP_FAILED)
        return -1;
    guest_mem_init(&mem, ram, RAM_BYTES);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(mem.host, RAM_BYTES);
}

/* An ELF file with one segment, in place in `image`. */
struct elf {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
};

static struct elf *make_elf(void)
{
    struct elf *elf = (struct elf *)image;

    memset(image, 0x90, sizeof(image));
    *elf = (struct elf){
        .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB},
                   .e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_entry = 0x1000010,
                   .e_phoff = offsetof(struct elf, segment),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 1},
        .segment = {.p_type = PT_LOAD,
                    .p_offset = 4096,
                    .p_paddr = 0x1000000,
                    .p_filesz = 4096,
                    .p_memsz = 0x3000},
    };
    return elf;
}

static int load(size_t size, struct loaded_kernel *ret)
{
    struct error e = ERROR_INIT;
    /* An exact copy, so that a read past its end is found. */
    uint8_t *copy = malloc(size > 0 ? size : 1);

    assert_non_null(copy);
    memcpy(copy, image, size);
    int result = loader_load_kernel(&mem, copy, size, ret, &e);
    if (result != 0)
        assert_int_equal(e.code, ERR_BAD_REQUEST);
    free(copy);
    return result;
}

static void test_good_elf(void **state)
{
    struct loaded_kernel kernel;

    (void)state;
    (void)make_elf();
    assert_int_equal(load(sizeof(image), &kernel), 0);
    assert_int_equal(kernel.entry, 0x1000010);
    assert_int_equal(kernel.end, 0x1003000);
    assert_memory_equal(mem.host + 0x1000000, image + 4096, 4096);
}

#define REFUSED(change)                                                                            \
    do {                                                                                           \
        struct loaded_kernel ignored;                                                              \
        struct elf *elf = make_elf();                                                              \
        change;                                                                                    \
        assert_int_equal(load(sizeof(image), &ignored), -1);                                       \
    } while (0)

static void test_bad_elf(void **state)
{
    (void)state;
    REFUSED(elf->header.e_ident[EI_CLASS] = ELFCLASS32);
    REFUSED(elf->header.e_ident[EI_DATA] = ELFDATA2MSB);
    REFUSED(elf->header.e_machine = EM_AARCH64);
    REFUSED(elf->header.e_type = ET_REL);
    REFUSED(elf->header.e_phentsize = 32);
    REFUSED(elf->header.e_phnum = 0);
    REFUSED(elf->header.e_phnum = 65);
    REFUSED(elf->header.e_phnum = PN_XNUM);
    REFUSED(elf->header.e_phoff = UINT64_MAX - 8);
    REFUSED(elf->header.e_phoff = sizeof(image) - 8);
    REFUSED(elf->header.e_entry = 0x2000000);
    REFUSED(elf->header.e_entry = 0);
    REFUSED(elf->segment.p_type = PT_NOTE); /* nothing is loaded */
    REFUSED(elf->segment.p_offset = UINT64_MAX - 100);
    REFUSED(elf->segment.p_offset = sizeof(image) - 4095);
    REFUSED(elf->segment.p_filesz = UINT64_MAX);
    REFUSED(elf->segment.p_filesz = 0x4000); /* more than in memory */
    REFUSED(elf->segment.p_paddr = 0x9d000); /* the identity page */
    REFUSED(elf->segment.p_paddr = 0);
    REFUSED(elf->segment.p_paddr = RAM_BYTES - 0x2000);
    REFUSED(elf->segment.p_paddr = GUEST_GAP_GPA);
    REFUSED(elf->segment.p_paddr = UINT64_MAX - 0xfff);
    REFUSED(elf->segment.p_memsz = UINT64_MAX);
    REFUSED(elf->segment.p_memsz = 0);
}

static void test_short_images(void **state)
{
    struct loaded_kernel kernel;

    (void)state;
    (void)make_elf();
    for (size_t size = 0; size < 4096 + 4096; size += size < 700 ? 1 : 97)
        assert_int_equal(load(size, &kernel), -1);
    memset(image, 0, sizeof(image));
    assert_int_equal(load(sizeof(image), &kernel), -1);
}

static struct setup_header *make_bzimage(void)
{
    struct setup_header *header = (struct setup_header *)(image + 0x1f1);

    memset(image, 0x90, sizeof(image));
    *header = (struct setup_header){.setup_sects = 1,
                                    .boot_flag = 0xaa55,
                                    .header = 0x53726448,
                                    .version = 0x20f,
                                    .xloadflags = XLF_KERNEL_64,
                                    .initrd_addr_max = 0x7fffffff,
                                    .cmdline_size = 2047,
                                    .pref_address = 0x1000000,
                                    .init_size = 0x800000};
    return header;
}

#define BZIMAGE(change, want)                                                                      \
    do {                                                                                           \
        struct loaded_kernel ignored;                                                              \
        struct setup_header *header = make_bzimage();                                              \
        change;                                                                                    \
        assert_int_equal(load(sizeof(image), &ignored), want);                                     \
    } while (0)

static void test_bzimage(void **state)
{
    struct loaded_kernel kernel;

    (void)state;
    (void)make_bzimage();
    assert_int_equal(load(sizeof(image), &kernel), 0);
    assert_int_equal(kernel.entry, 0x1000200);
    assert_int_equal(kernel.end, 0x1800000);
    assert_int_equal(kernel.header.version, 0x20f);
    assert_memory_equal(mem.host + 0x1000000, image + 1024, sizeof(image) - 1024);
    BZIMAGE(header->init_size = 0, 0);
    BZIMAGE(header->init_size = UINT32_MAX, -1);
    BZIMAGE(header->version = 0x20b, -1);
    BZIMAGE(header->xloadflags = 0, -1);
    BZIMAGE(header->boot_flag = 0, -1);
    BZIMAGE(header->header = 0, -1);
    BZIMAGE(header->setup_sects = 0, 0); /* means 4 */
    BZIMAGE(header->setup_sects = 15, -1);
    BZIMAGE(header->setup_sects = 255, -1);
    BZIMAGE(header->pref_address = 0x9d000, -1);
    BZIMAGE(header->pref_address = RAM_BYTES, -1);
    BZIMAGE(header->pref_address = UINT64_MAX, -1);
    BZIMAGE(header->pref_address = GUEST_HIGH_RAM_GPA, -1);
}

/* Any bytes: the loader may refuse, but must stay inside the image and the guest's memory. */
static void test_random_headers(void **state)
{
    (void)state;
    srandom(7);
    for (unsigned i = 0; i < 20000; i++) {
        struct loaded_kernel kernel;

        if ((i & 1) != 0)
            (void)make_elf();
        else
            (void)make_bzimage();
        for (unsigned flips = (unsigned)random() % 4 + 1; flips > 0; flips--) {
            size_t at = (i & 1) != 0 ? (size_t)random() % sizeof(struct elf)
                                     : 0x1f1 + (size_t)random() % sizeof(struct setup_header);
            image[at] = (uint8_t)random();
        }
        if (load(sizeof(image), &kernel) == 0) {
            assert_true(kernel.entry >= LOADER_KERNEL_GPA_MIN);
            assert_true(kernel.end <= RAM_BYTES);
        }
    }
}

static void test_initrd(void **state)
{
    struct loaded_kernel kernel = {.end = 0x1000000, .initrd_end_max = 0x80000000};
    struct error e = ERROR_INIT;
    uint64_t gpa = 0;

    (void)state;
    assert_int_equal(loader_place_initrd(&mem, &kernel, 5000, &gpa, &e), 0);
    assert_int_equal(gpa, RAM_BYTES - 2 * GUEST_PAGE_BYTES);
    assert_int_equal(loader_place_initrd(&mem, &kernel, RAM_BYTES - 0x1000000, &gpa, &e), 0);
    assert_int_equal(gpa, 0x1000000);
    assert_int_equal(loader_place_initrd(&mem, &kernel, RAM_BYTES - 0xffffff, &gpa, &e), -1);
    assert_int_equal(loader_place_initrd(&mem, &kernel, UINT64_MAX, &gpa, &e), -1);
    kernel.initrd_end_max = 0x2000000;
    assert_int_equal(loader_place_initrd(&mem, &kernel, 1, &gpa, &e), 0);
    assert_int_equal(gpa, 0x1fff000);
}

static uint8_t sum(const uint8_t *p, size_t size)
{
    uint8_t total = 0;

    while (size-- > 0)
        total = (uint8_t)(total + *p++);
    return total;
}

static void test_mptable(void **state)
{
    struct error e = ERROR_INIT;

    (void)state;
    for (uint32_t vcpus = 1; vcpus <= SANDBOX_VCPUS_MAX; vcpus++) {
        const uint8_t *pointer = mem.host + GUEST_MPTABLE_GPA;
        const uint8_t *table = pointer + 16;
        uint16_t size, count;
        unsigned processors = 0, pins = 0;

        assert_int_equal(mptable_write(&mem, vcpus, &e), 0);
        assert_memory_equal(pointer, "_MP_", 4);
        assert_int_equal(sum(pointer, 16), 0);
        assert_memory_equal(table, "PCMP", 4);
        memcpy(&size, table + 4, sizeof(size));
        memcpy(&count, table + 34, sizeof(count));
        assert_true(16 + size <= (int)MPTABLE_BYTES);
        assert_int_equal(sum(table, size), 0);
        const uint8_t *entry = table + 44;
        for (unsigned i = 0; i < count; i++) {
            processors += entry[0] == 0;
            pins += entry[0] == 3;
            if (entry[0] == 0)
                assert_int_equal(entry[3], entry[1] == 0 ? 3 : 1);
            entry += entry[0] == 0 ? 20 : 8;
        }
        assert_ptr_equal(entry, table + size);
        assert_int_equal(processors, vcpus);
        assert_int_equal(pins, 24);
    }
}

static void test_boot_parameters(void **state)
{
    char cmdline[BOOT_CMDLINE_BYTES_MAX];
    char extra[BOOT_CMDLINE_BYTES_MAX];
    struct loaded_kernel kernel = {.entry = 0x1000000, .end = 0x2000000};
    struct boot_config config = {
        .kernel = &kernel, .cmdline = cmdline, .initrd_gpa = 0x3000000, .initrd_bytes = 77};
    struct error e = ERROR_INIT;
    struct kvm_sregs2 sregs = {0};
    struct kvm_regs regs;

    (void)state;
    assert_int_equal(boot_make_cmdline(KVM_KIND_SOFTWARE, "a=b", cmdline, &e), 0);
    assert_non_null(strstr(cmdline, " noxsave clearcpuid="));
    assert_non_null(strstr(cmdline, " virtio_mmio.device=4K@0xd0001000:5"));
    assert_non_null(strstr(cmdline, " virtio_mmio.device=4K@0xd0004000:8"));
    assert_string_equal(cmdline + strlen(cmdline) - 4, " a=b");
    assert_int_equal(boot_make_cmdline(KVM_KIND_HARDWARE, "", cmdline, &e), 0);
    assert_null(strstr(cmdline, "noxsave"));
    memset(extra, 'x', sizeof(extra) - 1);
    extra[sizeof(extra) - 1] = '\0';
    assert_int_equal(boot_make_cmdline(KVM_KIND_HARDWARE, extra, cmdline, &e), -1);

    assert_int_equal(boot_make_cmdline(KVM_KIND_HARDWARE, "", cmdline, &e), 0);
    assert_int_equal(boot_write(&mem, &config, &e), 0);
    boot_set_registers(&kernel, &regs, &sregs);
    const struct boot_params *p = (const struct boot_params *)(mem.host + regs.rsi);
    assert_string_equal(mem.host + p->hdr.cmd_line_ptr, cmdline);
    assert_int_equal(p->hdr.ramdisk_size, 77);
    uint64_t ram = 0;
    for (unsigned i = 0; i < p->e820_entries; i++) {
        uint64_t end = p->e820_table[i].addr + p->e820_table[i].size;

        if (p->e820_table[i].type != 1)
            continue;
        ram += p->e820_table[i].size;
        assert_true(end <= GUEST_IDENTITY_GPA || p->e820_table[i].addr >= 0x100000);
        assert_true(end <= RAM_BYTES);
    }
    assert_int_equal(ram, RAM_BYTES - 0x100000 + GUEST_IDENTITY_GPA);
    assert_int_equal(regs.rip, kernel.entry);
    const uint64_t *pml4 = (const uint64_t *)(mem.host + sregs.cr3);
    const uint64_t *pdpt = (const uint64_t *)(mem.host + (pml4[0] & ~UINT64_C(0xfff)));
    const uint64_t *pd = (const uint64_t *)(mem.host + (pdpt[3] & ~UINT64_C(0xfff)));
    assert_int_equal(pd[511], 0xffe00083);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_elf),       cmocka_unit_test(test_bad_elf),
        cmocka_unit_test(test_short_images),   cmocka_unit_test(test_bzimage),
        cmocka_unit_test(test_random_headers), cmocka_unit_test(test_initrd),
        cmocka_unit_test(test_mptable),        cmocka_unit_test(test_boot_parameters),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
