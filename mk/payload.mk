# The guests of the payload tests: one freestanding program, with the monitor that is to survive it.
PAYLOAD_SOURCES := $(wildcard tests/payload/guest/*.c) tests/payload/guest/start.S
PAYLOAD_CFLAGS  := -std=gnu17 -O2 -Wall -Wextra -Wno-array-bounds -Iinclude -ffreestanding \
                   -fno-stack-protector -fno-pie -mno-red-zone -mgeneral-regs-only \
                   -fcf-protection=none -fno-asynchronous-unwind-tables
PAYLOAD_LDFLAGS := -nostdlib -static -no-pie -Wl,-Ttext-segment=0x200000,-z,max-page-size=4096 \
                   -Wl,-z,noexecstack,--build-id=none,-e,_start

$(BUILD)/tests/payload/guest.elf: $(PAYLOAD_SOURCES) $(wildcard tests/payload/guest/*.h) \
                                  include/cloche/guest_abi.h
	@mkdir -p $(@D)
	$(call say,GUEST,$@) $(CC) $(PAYLOAD_CFLAGS) $(PAYLOAD_SOURCES) $(PAYLOAD_LDFLAGS) -o $@

$(filter $(BUILD)/tests/payload/test_%,$(TEST_PROGRAMS)): \
	| $(BUILD)/tests/payload/guest.elf $(BUILD)/vmm
