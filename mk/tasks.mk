# What people call: set-up, run, tests, lint, install. How things are built is in build.mk.
#
# Every kind of test runs through tests/run.py, which prints a line per test, refuses skips of what
# this machine has, and leaves its counts in $(RESULTS) for the grand totals of `make test`.

JOBS         ?= $(shell nproc)
FUZZ_SECONDS ?= 6
# Those that fill all CPUs run one after the other; then those that wait for guests, side by side.
BUSY_KINDS   := lint build unit client fuzz
SLOW_KINDS   := e2e svm
CHECK_KINDS  := lint unit client corpus
RESULTS      := build/test-results
IMAGES       := build/images
RUN_TESTS    := tests/run.py --results $(RESULTS)
SUBMAKE       = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
LONE_MAKE    := $(MAKE) --no-print-directory -j$(JOBS) CONFIG=release
.PHONY: check test-lint test-build test-client test-corpus test-programs fuzz-programs \
        drop-stale deps-run deps-test deps-svm programs

# Set-up -------------------------------------------------------------------------------------------

deps: deps-run
deps-run:
	$(Q)scripts/setup.sh build images run
deps-test:
	$(Q)scripts/setup.sh build images run test svm
deps-svm:
	$(Q)scripts/setup.sh build images run svm

images:
	$(Q)scripts/images.sh $(IMAGES)

# The binary and the images, in one sub-make, so that packages are there before anything is built.
programs:
	+$(Q)$(SUBMAKE) all
	+$(Q)$(SUBMAKE) images

run: deps-run
	+$(Q)$(SUBMAKE) programs
	$(Q)examples/run.sh

# Tests --------------------------------------------------------------------------------------------

test: deps-test
	$(Q)rm -rf $(RESULTS) && mkdir -p $(RESULTS)
	+$(Q)$(SUBMAKE) programs || true
	+$(Q)for kind in $(BUSY_KINDS); do $(SUBMAKE) -k test-$$kind || true; done
	+$(Q)$(SUBMAKE) -k $(SLOW_KINDS:%=test-%) SVM_TESTS='--marked kvm_kind' || true
	$(Q)tests/run.py --results $(RESULTS) --totals $(BUSY_KINDS) $(SLOW_KINDS)

# What answers while one waits for it.
check: deps-test
	$(Q)rm -rf $(RESULTS) && mkdir -p $(RESULTS)
	+$(Q)for kind in $(CHECK_KINDS); do $(SUBMAKE) -k test-$$kind || true; done
	$(Q)tests/run.py --results $(RESULTS) --totals $(CHECK_KINDS)

# Unit and role tests: one program for each test_*.c below tests/{unit,role,payload}, whose folders
# mirror the rooms of src/ and guest/. All run under sanitizers.
TEST_SOURCES  = $(sort $(shell find tests/unit tests/role tests/payload -name 'test_*.c'))
TEST_PROGRAMS = $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SOURCES))
FUZZ_PROGRAMS = $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

# The monitor is a program of its own, and may use a name that the daemon uses too: its tests are
# linked to it alone, all others to everything else.
VMM_TESTS     = payload/test_% unit/vmm/% role/vmm/% fuzz/fuzz_v%
VMM_LIBS      = $(foreach c,vmm ipc base,$(call lib,$(c)))
OTHER_LIBS    = $(foreach c,$(COMPONENTS) guest,$(call lib,$(c)))

# A test's support code stands beside it: any other .c of its folder, as a library.
support = $(BUILD)/tests/lib$(1).a
define support_rule
$(call support,$(1)): $(call objects,$(filter-out tests/$(1)/test_% tests/$(1)/fuzz_%, \
                                       $(wildcard tests/$(1)/*.c)))
	@mkdir -p $$(@D)
	$$(call say,AR,$$@) rm -f $$@ && ar rcs $$@ $$^
endef
TEST_FOLDERS  = $(sort $(patsubst tests/%/,%,$(dir $(TEST_SOURCES)))) fuzz
$(foreach d,$(TEST_FOLDERS),$(eval $(call support_rule,$(d))))

# A fuzz target's entry point is declared by nobody.
$(BUILD)/host/tests/fuzz/%.o: HOST_CFLAGS += -Wno-missing-prototypes

# Every test program can be begun in the middle (resume.c).
RESUME        = $(BUILD)/host/tests/resume.o
RESUME_FLAGS  = $(RESUME) -Wl,--wrap=_cmocka_run_group_tests

# $(1) folder and name of a program, $(2) flags, $(3) libraries of the kind of test.
define test_rule
$(BUILD)/tests/$(1): $(BUILD)/host/tests/$(1).o $(call support,$(patsubst %/,%,$(dir $(1)))) \
                     $(if $(filter $(VMM_TESTS),$(1)),$(VMM_LIBS),$(OTHER_LIBS))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@) $(CC) $(HOST_LDFLAGS) $(2) $$(filter %.o,$$^) -Wl,--start-group \
		$$(filter %.a,$$^) -Wl,--end-group $(HOST_LIBS) $(3) -o $$@
endef
$(foreach p,$(TEST_PROGRAMS:$(BUILD)/tests/%=%), \
	$(eval $(call test_rule,$(p),$(RESUME_FLAGS),-lcmocka)))
$(TEST_PROGRAMS): | $(RESUME)
$(foreach p,$(FUZZ_PROGRAMS:$(BUILD)/tests/%=%),$(eval $(call test_rule,$(p),-fsanitize=fuzzer,)))
.SECONDARY:

test-programs: $(TEST_PROGRAMS)
fuzz-programs: $(FUZZ_PROGRAMS)
# After a build that failed: a program that is not what its sources say must not run in their place.
drop-stale:
	+$(Q)for program in $(wildcard $(TEST_PROGRAMS) $(FUZZ_PROGRAMS)); do \
		$(MAKE) -q "$$program" >/dev/null 2>&1 || rm -f "$$program"; done

# -k: one test that does not compile must not hide the others; it counts as failed.
test-unit:
	+$(Q)$(SUBMAKE) -k CONFIG=asan BUILD=build/asan test-programs || \
		$(SUBMAKE) CONFIG=asan BUILD=build/asan drop-stale
	$(Q)$(RUN_TESTS) --jobs $(JOBS) --limit 120 --all 'tests/**/test_*.c' unit \
		$(foreach p,$(patsubst $(BUILD)/%,build/asan/%,$(TEST_PROGRAMS)),'$(p)')

test-fuzz:
	+$(Q)$(SUBMAKE) -k CONFIG=fuzz BUILD=build/fuzz fuzz-programs || \
		$(SUBMAKE) CONFIG=fuzz BUILD=build/fuzz drop-stale
	$(Q)$(RUN_TESTS) --jobs $(JOBS) --limit $$(($(FUZZ_SECONDS) + 120)) --all 'tests/**/fuzz_*.c' fuzz \
		$(foreach p,$(patsubst $(BUILD)/tests/fuzz/%,%,$(FUZZ_PROGRAMS)), \
		'tests/fuzz/run.sh build/fuzz/tests/fuzz/$(p) $(FUZZ_SECONDS)')

# The seeds once each, and what earlier runs found is left alone.
test-corpus:
	+$(Q)$(SUBMAKE) -k CONFIG=fuzz BUILD=build/fuzz fuzz-programs || \
		$(SUBMAKE) CONFIG=fuzz BUILD=build/fuzz drop-stale
	$(Q)$(RUN_TESTS) --jobs $(JOBS) --limit 60 --all 'tests/**/fuzz_*.c' corpus \
		$(foreach p,$(patsubst $(BUILD)/tests/fuzz/%,%,$(FUZZ_PROGRAMS)), \
		'tests/fuzz/run.sh --replay build/fuzz/tests/fuzz/$(p)')

test-client:
	$(Q)$(RUN_TESTS) client 'python3 tests/tap.py --limit 60 clients/python/tests'

# A command for each file, so that two run at a time; from the end, where those are that take long.
test-e2e:
	$(Q)$(RUN_TESTS) --jobs $(JOBS) --limit 1300 e2e $(foreach p, \
		$(shell ls -r tests/e2e/test_*.py), \
		'python3 tests/tap.py --limit 600 tests/e2e $(basename $(notdir $(p))).')

test-lint: lint
lint:
	$(Q)$(RUN_TESTS) --jobs $(JOBS) lint 'tests/lint/format.sh' 'tests/lint/style.py' \
		'tests/lint/layers.py' 'tests/lint/circles.py' 'tests/lint/shell.sh' 'tests/lint/docs.py' \
		'python3 tests/tap.py --limit 60 tests/harness'

# Both compilers, warnings as errors, the monitor and the agent with musl and with a static glibc.
test-build:
	$(Q)$(RUN_TESTS) --limit 1800 build \
		'$(LONE_MAKE) CC=gcc STATIC_CC=musl-gcc BUILD=build/release build/release/cloche' \
		'$(LONE_MAKE) CC=clang STATIC_CC=clang BUILD=build/clang build/clang/cloche'

# On emulated SVM: the end-to-end tests (SVM_TESTS picks some), and the guests that attack the monitor.
test-svm: deps-svm
	+$(Q)$(SUBMAKE) programs build/release/tests/payload/test_payload
	$(Q)$(RUN_TESTS) --limit 1200 svm 'tests/svm/run.sh e2e $(SVM_TESTS)' 'tests/svm/run.sh payload'

# The rest -----------------------------------------------------------------------------------------

bench: deps-run
	+$(Q)$(SUBMAKE) programs
	$(Q)bench/restore
	$(Q)bench/exec

format:
	$(Q)clang-format -i $(ALL_C)

install:
	$(Q)scripts/install.sh build/cloche $(IMAGES) '$(DESTDIR)$(PREFIX)'

clean:
	$(Q)rm -rf build

include mk/payload.mk
