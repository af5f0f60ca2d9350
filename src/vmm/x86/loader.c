#include "vmm/x86/loader.h"

#include <elf.h>
#include <string.h>

#include "cloche/guest_abi.h"

#define ELF_SEGMENTS_MAX   64u
#define INITRD_END_DEFAULT UINT64_C(0x80000000) /* what kernels without a header can reach */

/* bzImage: offsets in the file, and of the 64-bit entry in the loaded part. */
#define SETUP_HEADER       0x1f1u
#define SETUP_SECTOR       512u
#define SETUP_ENTRY_64     0x200u
#define SETUP_MAGIC        0x53726448u /* "HdrS" */
#define SETUP_BOOT_FLAG    0xaa55u
#define SETUP_VERSION_MIN  0x020cu
#define SETUP_SECTS_LEGACY 4u

static int bad_image(struct error *e, const char *what)
{
    return error_set(e, ERR_BAD_REQUEST, "the kernel image is unusable: %s", what);
}

/* Copies one segment; `*end` rises to its end. */
static int load_segment(const struct guest_mem *mem, const uint8_t *image, size_t size,
                        const Elf64_Phdr *segment, uint64_t *end, struct error *e)
{
    uint64_t file_end;
    uint8_t *host;

    if (segment->p_memsz == 0)
        return 0;
    if (segment->p_filesz > segment->p_memsz)
        return bad_image(e, "a segment is larger in the file than in memory");
    if (__builtin_add_overflow(segment->p_offset, segment->p_filesz, &file_end) || file_end > size)
        return bad_image(e, "a segment lies outside the file");
    if (segment->p_paddr < LOADER_KERNEL_GPA_MIN)
        return bad_image(e, "a segment loads below 1 MiB");
    host = guest_mem_at(mem, segment->p_paddr, segment->p_memsz);
    if (host == NULL)
        return bad_image(e, "a segment does not fit into the guest's memory");
    memcpy(host, image + segment->p_offset, segment->p_filesz);
    if (segment->p_paddr + segment->p_memsz > *end)
        *end = segment->p_paddr + segment->p_memsz;
    return 0;
}

static int load_elf(const struct guest_mem *mem, const uint8_t *image, size_t size,
                    struct loaded_kernel *ret, struct error *e)
{
    Elf64_Ehdr header;
    uint64_t table_end;
    uint64_t end = 0;

    if (size < sizeof(header))
        return bad_image(e, "the ELF header is cut off");
    memcpy(&header, image, sizeof(header));
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_machine != EM_X86_64 || (header.e_type != ET_EXEC && header.e_type != ET_DYN))
        return bad_image(e, "not a 64-bit x86 ELF program");
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
        header.e_phnum > ELF_SEGMENTS_MAX)
        return bad_image(e, "the ELF program header table has an unknown form");
    if (__builtin_add_overflow(header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr), &table_end) ||
        table_end > size)
        return bad_image(e, "the ELF program header table lies outside the file");
    for (size_t i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;

        memcpy(&segment, image + header.e_phoff + i * sizeof(segment), sizeof(segment));
        if (segment.p_type == PT_LOAD && load_segment(mem, image, size, &segment, &end, e) != 0)
            return -1;
    }
    if (header.e_entry < LOADER_KERNEL_GPA_MIN || header.e_entry >= end)
        return bad_image(e, "the entry point lies outside what was loaded");
    *ret = (struct loaded_kernel){
        .entry = header.e_entry, .end = end, .initrd_end_max = INITRD_END_DEFAULT};
    return 0;
}

static int load_bzimage(const struct guest_mem *mem, const uint8_t *image, size_t size,
                        struct loaded_kernel *ret, struct error *e)
{
    struct setup_header header = {0};
    uint64_t needs;
    uint8_t *host;

    if (size < SETUP_HEADER + sizeof(header))
        return bad_image(e, "neither an ELF file nor a bzImage");
    memcpy(&header, image + SETUP_HEADER, sizeof(header));
    if (header.boot_flag != SETUP_BOOT_FLAG || header.header != SETUP_MAGIC)
        return bad_image(e, "neither an ELF file nor a bzImage");
    if (header.version < SETUP_VERSION_MIN || (header.xloadflags & XLF_KERNEL_64) == 0)
        return bad_image(e, "the bzImage has no 64-bit entry point");
    size_t setup_bytes =
        (header.setup_sects == 0 ? SETUP_SECTS_LEGACY : header.setup_sects) * SETUP_SECTOR +
        SETUP_SECTOR;
    if (size <= setup_bytes + SETUP_ENTRY_64)
        return bad_image(e, "the bzImage is cut off");
    needs = size - setup_bytes;
    if (needs < header.init_size)
        needs = header.init_size;
    if (header.pref_address < LOADER_KERNEL_GPA_MIN ||
        header.pref_address >= GUEST_GAP_GPA) /* the entry page tables map no further */
        return bad_image(e, "the bzImage's load address is out of range");
    host = guest_mem_at(mem, header.pref_address, needs);
    if (host == NULL)
        return bad_image(e, "the bzImage does not fit into the guest's memory");
    memcpy(host, image + setup_bytes, size - setup_bytes);
    *ret = (struct loaded_kernel){.entry = header.pref_address + SETUP_ENTRY_64,
                                  .end = header.pref_address + needs,
                                  .initrd_end_max = (uint64_t)header.initrd_addr_max + 1,
                                  .header = header};
    return 0;
}

int loader_load_kernel(const struct guest_mem *mem, const uint8_t *image, size_t size,
                       struct loaded_kernel *ret, struct error *e)
{
    if (size >= SELFMAG && memcmp(image, ELFMAG, SELFMAG) == 0)
        return load_elf(mem, image, size, ret, e);
    return load_bzimage(mem, image, size, ret, e);
}

int loader_place_initrd(const struct guest_mem *mem, const struct loaded_kernel *kernel,
                        uint64_t size, uint64_t *ret_gpa, struct error *e)
{
    uint64_t end = mem->low_bytes;

    if (end > kernel->initrd_end_max)
        end = kernel->initrd_end_max;
    if (size > end || ((end - size) & ~(GUEST_PAGE_BYTES - 1)) < kernel->end)
        return error_set(e, ERR_BAD_REQUEST,
                         "the guest's memory has no room for an initramfs of %llu bytes",
                         (unsigned long long)size);
    *ret_gpa = (end - size) & ~(GUEST_PAGE_BYTES - 1);
    return 0;
}
