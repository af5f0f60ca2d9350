# cloche: microVM sandboxes for agents' code.
#
#   make            build build/cloche            make run        set up everything and show it
#   make test       set up and run all tests      make check      those that take two minutes
#   make test-svm   what runs on emulated SVM     make lint       format, style and layering
#   make format     as `make lint` wants it       make bench      print benchmark JSON lines
#   make install    DESTDIR=, PREFIX=             make clean
#
# Variables: CC, STATIC_CC (monitor and agent; musl-gcc, or a compiler with a static glibc), CFLAGS,
# V=1 shows commands, WERROR=0 lets warnings pass, CONFIG=release|asan|fuzz picks the build folder,
# KERNEL=path takes a guest kernel of your own, CLOCHE_CACHE=dir where kernel and images are kept.

CONFIG    ?= release
BUILD     ?= build/$(CONFIG)
PREFIX    ?= /usr/local
STATIC_CC ?= musl-gcc
ifeq ($(origin CC),default)
CC := gcc
endif
V      ?= 0
WERROR ?= 1
Q      := $(if $(filter 1,$(V)),,@)
say     = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' '$(1)' '$(2)';)

WARNINGS := -Wall -Wextra -Wshadow -Wpointer-arith -Wcast-qual -Wsign-compare -Wwrite-strings \
            -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wundef -Wvla \
            -Wimplicit-fallthrough $(if $(filter 1,$(WERROR)),-Werror)
HARDEN   := -fstack-protector-strong -fno-strict-aliasing -D_FORTIFY_SOURCE=2
COMMON   := -std=gnu17 -D_GNU_SOURCE -g $(WARNINGS) -Iinclude -Isrc -I. -I$(BUILD)/gen -MMD -MP

ifeq ($(CONFIG),asan)
OPTIMIZE := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
HARDEN   := -fstack-protector-strong
else ifeq ($(CONFIG),fuzz)
OPTIMIZE := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
            -fno-sanitize-recover=all
HARDEN   :=
CC       := clang
else
OPTIMIZE := -O2
endif
CFLAGS  ?=
HOST_CFLAGS   := $(COMMON) $(OPTIMIZE) $(HARDEN) -fPIE $(CFLAGS)
HOST_LDFLAGS  := $(OPTIMIZE) -pie -Wl,-z,relro,-z,now $(LDFLAGS)
HOST_LIBS     := -luv -lcjson -larchive -lseccomp -lmd -lwslay -lm -lpthread

# The monitor and the agent: small static programs, without the sanitizers (the tests build the same
# sources as host code). The kernel's headers come after musl's own.
STATIC_CFLAGS := $(COMMON) -O2 $(filter-out -D_FORTIFY_SOURCE=2,$(HARDEN)) -fno-strict-aliasing \
                 -ffunction-sections -fdata-sections -idirafter $(BUILD)/gen/linux-headers
MUSL_DIR      := /usr/lib/x86_64-linux-musl
ifneq (,$(findstring musl,$(STATIC_CC)))
STATIC_PIE     = -static -nostartfiles -Wl,-pie,--no-dynamic-linker,-z,text \
                 $(MUSL_DIR)/rcrt1.o $(MUSL_DIR)/crti.o
STATIC_END    := $(MUSL_DIR)/crtn.o
else
STATIC_PIE     = -static-pie
STATIC_END    :=
endif
STATIC_LDFLAGS := -Wl,-z,relro,-z,now,--gc-sections,-z,noexecstack

COMPONENTS := base ipc http json priv serve daemon cli
lib         = $(BUILD)/lib$(1).a
sources     = $(sort $(shell find src/$(1) -name '*.c'))
objects     = $(patsubst %.c,$(BUILD)/host/%.o,$(1))

MAIN_SOURCES  := src/main.c src/vmm/main.c guest/main.c
VMM_SOURCES   := $(call sources,vmm) $(call sources,base) $(call sources,ipc)
VMM_SOURCES   := $(filter-out src/vmm/seccomp_gen.c,$(VMM_SOURCES))
GUEST_SOURCES := $(sort $(shell find guest -name '*.c'))
AGENT_SOURCES := $(GUEST_SOURCES) $(call sources,base)
ALL_C         := $(sort $(shell find include src guest tests bench -name '*.[ch]' 2>/dev/null))

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all run test test-unit test-e2e test-svm test-fuzz lint format bench install clean deps images
all: build/cloche

build/cloche: $(BUILD)/cloche
	$(Q)ln -sfn $(CONFIG)/cloche $@

include mk/build.mk
include mk/tasks.mk
