# How objects, libraries, the embedded programs and `cloche` itself are built.

$(BUILD)/host/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(HOST_CFLAGS) -c $< -o $@

$(BUILD)/static/%.o: %.c | $(BUILD)/gen/linux-headers
	@mkdir -p $(@D)
	$(call say,CC static,$<) $(STATIC_CC) $(STATIC_CFLAGS) -fPIE -c $< -o $@

# Linux's own headers for musl, which has none; nothing of glibc's may be found with them.
$(BUILD)/gen/linux-headers:
	@mkdir -p $@
	$(Q)ln -sfn /usr/include/linux $@/linux
	$(Q)ln -sfn /usr/include/x86_64-linux-gnu/asm $@/asm
	$(Q)ln -sfn /usr/include/asm-generic $@/asm-generic
	$(Q)ln -sfn /usr/include/video $@/video

define component_rule
$(call lib,$(1)): $(call objects,$(filter-out $(MAIN_SOURCES),$(call sources,$(1))))
	$$(call say,AR,$$@) rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach c,$(COMPONENTS),$(eval $(call component_rule,$(c))))

# The monitor and the agent as host code, for tests and fuzz targets.
$(call lib,vmm): $(call objects,$(filter-out src/vmm/main.c src/vmm/seccomp_gen.c,$(call sources,vmm)))
	$(call say,AR,$@) rm -f $@ && ar rcs $@ $^
$(call lib,guest): $(call objects,$(filter-out guest/main.c,$(GUEST_SOURCES)))
	$(call say,AR,$@) rm -f $@ && ar rcs $@ $^

# The monitor's seccomp programs are made at build time with libseccomp, so that the monitor carries
# no library and pays nothing for compiling them at start.
$(BUILD)/seccomp_gen: $(BUILD)/host/src/vmm/seccomp_gen.o
	$(call say,LD,$@) $(CC) $(HOST_LDFLAGS) $^ -lseccomp -o $@
$(BUILD)/gen/vmm_seccomp.h: $(BUILD)/seccomp_gen
	@mkdir -p $(@D)
	$(call say,GEN,$@) $< > $@
$(BUILD)/static/src/vmm/jail.o $(BUILD)/host/src/vmm/jail.o: $(BUILD)/gen/vmm_seccomp.h

$(BUILD)/vmm: $(patsubst %.c,$(BUILD)/static/%.o,$(VMM_SOURCES))
	$(call say,LD,$@) $(STATIC_CC) $(STATIC_LDFLAGS) $(STATIC_PIE) $^ $(STATIC_END) -o $@
$(BUILD)/agent: $(patsubst %.c,$(BUILD)/static/%.o,$(AGENT_SOURCES))
	$(call say,LD,$@) $(STATIC_CC) $(STATIC_LDFLAGS) $(STATIC_PIE) $^ $(STATIC_END) -o $@

# Stands in for the monitor in the role test of priv, and looks at its jail from inside.
$(BUILD)/priv_probe: $(BUILD)/static/tests/role/priv/probe/priv_probe.o
	$(call say,LD,$@) $(STATIC_CC) $(STATIC_LDFLAGS) $(STATIC_PIE) $^ $(STATIC_END) -o $@

$(BUILD)/vmm.stripped: $(BUILD)/vmm
	$(call say,STRIP,$@) strip -o $@ $<

# The initramfs holds the agent as /init and nothing else (unpacking costs the guest 0.9 s a MB).
$(BUILD)/initramfs.cpio: $(BUILD)/agent
	$(call say,CPIO,$@) images/initramfs.sh $< $@

# The file to embed is the prerequisite that each line below adds.
$(BUILD)/gen/embed_%.o: src/embed.S
	@mkdir -p $(@D)
	$(call say,EMBED,$*) $(CC) -c -DEMBED_NAME=embed_$* \
		-DEMBED_FILE='"$(abspath $(filter-out src/embed.S,$^))"' src/embed.S -o $@
$(BUILD)/gen/embed_vmm.o: $(BUILD)/vmm.stripped
$(BUILD)/gen/embed_initramfs.o: $(BUILD)/initramfs.cpio
$(BUILD)/gen/embed_priv_probe.o: $(BUILD)/priv_probe
$(BUILD)/tests/role/priv/test_priv $(BUILD)/tests/role/priv/test_priv_crash \
$(BUILD)/tests/role/priv/test_priv_memory: \
	$(BUILD)/gen/embed_priv_probe.o

$(BUILD)/cloche: $(BUILD)/host/src/main.o $(foreach c,$(COMPONENTS),$(call lib,$(c))) \
                 $(BUILD)/gen/embed_vmm.o $(BUILD)/gen/embed_initramfs.o
	$(call say,LD,$@) $(CC) $(HOST_LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) \
		-Wl,--end-group $(HOST_LIBS) -o $@

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
