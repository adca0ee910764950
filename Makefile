# SPDX-License-Identifier: GPL-2.0-or-later
#
# The one entry for everything.  Each target installs what it needs on a Debian 12,
# as root or through sudo; what is built for a kernel goes to build/RELEASE, so
# that builds for several kernels do not mix.
#
#   make           kmod/klock.ko for the kernel of KDIR, libklock.a, libklock.so, klockctl
#   make demo      shows the main job in a VM
#   make check     builds, lints and tests everything in VMs
#   make check-all tests on many kernels, for other users, on 1, 2 and 8 processors; takes
#                  hours; ONLY='rt arm64': these rows of selftests/vm/check-all
#   make vm CMD='...'   runs a command in a VM (selftests/vm/run exits with its very
#                  status, make with 2 when that is not 0); without CMD: a shell
#   make torture   selftests/torture.c in a VM for TIME= seconds, with SEED= the same again
#   make fuzz      selftests/fuzz.c in a VM for TIME= seconds, with SEED= the same again;
#                  FUZZ= more of its options
#   make coverage  what of the module all tests run, as a table
#   make podman    Debian's Podman on klock, in a VM: its day, and what it costs; STORM=
#                  seconds of each of two storms of kills; needs some 370 packages to build it
#   make mutate    bugs, one after the other, and whether the tests see each
#   make bench     the benchmarks, in a VM; QUICK=1: in 90 s
#   make bench-doc, bench-baseline   renew what depends on them
#   make install   all of it and the manual pages, honouring DESTDIR and PREFIX
#   make deb       packages of Debian, in build/deb, of what git tracks
#   make deb-check tests them in a VM of a plain Debian 12: installs, boots, upgrades, purges
#   make intree    klock as a patch series for the kernel source TREE=, applied there;
#                  AUTHOR='Name <mail>': who signs it
#   make lint      silent when there is nothing to say
#   make clean
#
# Variables: KDIR; for those in VMs KERNEL and what selftests/vm/run says; FOR=m32|arm64|clang:
# libklock and programs for 32-bit users, for arm64 (both without klockctl), by clang; they
# go to build/$(FOR).

MAKEFLAGS += --no-print-directory
PREFIX ?= /usr/local
VM := selftests/vm
BENCH := selftests/bench

# The running kernel's, or else one to look at; found when it is first needed.
KDIR ?= $(eval KDIR := $(or $(wildcard /lib/modules/$(shell uname -r)/build),$(other_kdir)))$(KDIR)
other_kdir = $(info no headers of the running kernel: building for the distribution's)$(shell \
	     $(VM)/kernel distro)/build

# As the module itself will say it; Debian's build directories differ otherwise.
release = $(or $(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' \
	  $(KDIR)/include/generated/utsrelease.h),$(error no kernel to build for in KDIR))

all: module library tools
	@cp build/$(release)/klock.ko kmod/klock.ko

# One that counts what of it runs has a place of its own.
module: place = build/$(release)$(GCOV_PROFILE:y=-gcov)$(KCOV_INSTRUMENT:y=-kcov)
module:
	@$(VM)/install gcc libc6-dev
	@mkdir -p $(place)/kmod
	@ln -sfn ../../uapi $(place)/uapi
	@ln -sf $(CURDIR)/kmod/Kbuild $(filter-out %.mod.c,$(wildcard $(CURDIR)/kmod/*.[ch])) \
		$(place)/kmod
	@flock build/lock $(MAKE) -C $(KDIR) M=$(CURDIR)/$(place)/kmod modules
	@ln -sf kmod/klock.ko $(place)/klock.ko

# Whom libklock and the programs are for: this machine, or
FOR ?= $(filter arm64 clang,$(KERNEL))
for_m32 := CC='gcc -m32' TOOLS=
for_arm64 = CC=$(arm64)gcc AR=$(arm64)ar TOOLS=
arm64 = $(eval arm64 := $(shell $(VM)/kernel arm64)/cross/usr/bin/aarch64-linux-gnu-)$(arm64)
for_clang := CC=clang
packages_clang := clang libclang-rt-dev
variant := build/$(FOR)
for = $(for_$(FOR)) LIBKLOCK=$(CURDIR)/$(variant)/libklock

ifeq ($(FOR),)
variant := build
for :=
library:
	@$(VM)/install gcc libc6-dev
	@$(MAKE) -C libklock
else
library:
	$(if $(for_$(FOR)),,$(error FOR=$(FOR)))
	@$(VM)/install gcc libc6-dev gcc-multilib $(packages_$(FOR))
	@mkdir -p $(variant)/libklock/src $(variant)/libklock/tools
	@ln -sfn $(CURDIR)/uapi $(variant)/uapi
	@ln -sfn $(addprefix $(CURDIR)/libklock/,Makefile libklock.map include examples) $(variant)/libklock
	@ln -sf $(wildcard $(CURDIR)/libklock/src/*.[ch]) $(variant)/libklock/src
	@ln -sf $(wildcard $(CURDIR)/libklock/tools/*.[ch]) $(variant)/libklock/tools
	@$(MAKE) -C $(variant)/libklock $(for)
endif

# libsmartcols is there for this machine alone.
ifeq ($(filter m32 arm64,$(FOR)),)
tools: library
	@$(VM)/install libsmartcols-dev
	@$(MAKE) -C $(if $(FOR),$(variant)/)libklock klockctl $(for)
else
tools:
endif

programs: library tools
	@$(VM)/install gcc libc6-dev gcc-multilib libsqlite3-dev
	@mkdir -p $(variant)/selftests
	@$(MAKE) -C selftests OUTPUT=$(CURDIR)/$(variant)/selftests $(for)
	@cp selftests/*.sh selftests/settings selftests/fuzz.corpus $(variant)/selftests

# What there is to run
list-programs:
	@$(MAKE) -s -C selftests OUTPUT=$(CURDIR)/$(variant)/selftests $(for) COLLECTION=klock emit_tests | \
		cut -d: -f2

# Only what it needs, and only its own words.
demo:
	@$(MAKE) -s library build/demo
	@PROGRAMS=build/demo $(VM)/run ./demo

build/demo: selftests/demo.c libklock/libklock.a
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -Werror -pthread -Ilibklock/include $^ -o $@

check:
	@$(VM)/check

check-all:
	@$(VM)/check-all $(ONLY)

vm: export KLOCK_VM_CMD = $(value CMD)
vm:
	@$(VM)/run "$$KLOCK_VM_CMD"

# Beside TIME, a debug kernel that is emulated needs some to boot.
torture: TIME ?= 600
torture: library
	@$(VM)/install gcc libc6-dev
	@mkdir -p $(variant)/selftests
	@$(MAKE) -C selftests OUTPUT=$(CURDIR)/$(variant)/selftests $(for) \
		$(CURDIR)/$(variant)/selftests/torture
	@PROGRAMS=$(variant)/selftests/torture TIMEOUT=$$(($(TIME) + 900)) $(VM)/run \
		'./torture --seconds $(TIME) $(SEED:%=--seed %)'

# The first token is one of the last, so that they wrap.
fuzz: TIME ?= 600
fuzz: library
	@$(VM)/install gcc libc6-dev
	@mkdir -p build/selftests
	@$(MAKE) -C selftests OUTPUT=$(CURDIR)/build/selftests $(CURDIR)/build/selftests/fuzz
	@KERNEL=debug KCOV_INSTRUMENT=y PROGRAMS='build/selftests/fuzz selftests/fuzz.corpus' \
		INSMOD_ARGS=first_token=1073741800 TIMEOUT=$$(($(TIME) + 900)) $(VM)/run \
		'./fuzz --seconds $(TIME) $(SEED:%=--seed %) $(FUZZ)'

coverage:
	@$(VM)/coverage

mutate:
	@selftests/mutate/run

podman:
	@$(VM)/podman

bench:
	@$(BENCH)/run
	@$(BENCH)/report build/bench/results.json build/bench

# What Documentation/performance.rst shows, of the last bench.
bench-doc:
	@$(BENCH)/report build/bench/results.json Documentation/performance

# What `make check` holds instruction counts against.
bench-baseline:
	@$(BENCH)/guard --renew

install: all
	install -D -m 644 uapi/linux/klock.h $(DESTDIR)$(PREFIX)/include/linux/klock.h
	install -D -m 644 build/$(release)/klock.ko $(DESTDIR)/lib/modules/$(release)/extra/klock.ko
	$(MAKE) -C libklock install install-tools DESTDIR=$(DESTDIR) PREFIX=$(PREFIX)
	$(if $(DESTDIR),,depmod $(release))

deb:
	@$(VM)/install lintian
	@debian/build build/deb
	@lintian --allow-root --fail-on warning build/deb/*.changes

deb-check:
	@$(VM)/deb

intree:
	@intree/series "$(TREE)"

# Lint: a stamp in build/lint for each file that passed, and for what it was held
# against; another clone finds it in the cache.  kernel_c is held to the kernel's rules in full.
kernel_c := $(filter-out %.mod.c,$(wildcard kmod/*.[ch]))
user_c := $(wildcard uapi/linux/*.h libklock/*/*.[ch] libklock/examples/*/*.c selftests/*.[ch] selftests/bench/*.c \
	  $(VM)/*.[ch])
scripts := $(filter-out %.config %.reasons %.go %.c %.h,$(wildcard $(VM)/*)) $(wildcard selftests/*.sh .ci/*) \
	   $(addprefix $(BENCH)/,run report guard) selftests/model/check selftests/mutate/run libklock/man/check \
	   debian/build libklock/tools/klockctl.bash intree/series intree/check

# What is for the kernel alone: its types and macros, and that C11 has names like
# _Atomic; volatile has its use in signal handlers; macros of types reuse arguments.
USER_RULES := PREFER_KERNEL_TYPES,BIT_MACRO,ARRAY_SIZE,PREFER_DEFINED_ATTRIBUTE_MACRO,CAMELCASE,$\
	      VOLATILE,MACRO_ARG_REUSE
# The one file that may ask for the kernel's version
COMPAT_RULES := LINUX_VERSION_CODE,CONSTANT_COMPARISON
# Events are declared as tables, of macros that are lists
TRACE_RULES := COMPLEX_MACRO,OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT
# FIXTURE_DATA(x) *self is no product, EXPECT_EQ() takes a block, and a check in a
# macro may return.
TEST_RULES := $(USER_RULES),SPACING,BRACES,MACRO_WITH_FLOW_CONTROL
rules = $(or $(if $(filter selftests/%,$<),$(TEST_RULES)),$(if $(filter $(user_c),$<),$(USER_RULES)),$\
	$(if $(filter %/compat.h,$<),$(COMPAT_RULES)),$(if $(filter %/trace.h,$<),$(TRACE_RULES)))

stamps := $(kernel_c:%=build/lint/%.checkpatch) $(user_c:%=build/lint/%.checkpatch) \
	  $(patsubst %,build/lint/%.cppcheck,$(filter-out uapi/%,$(filter %.c,$(user_c)))) \
	  $(scripts:%=build/lint/%.shellcheck) build/lint/sparse build/lint/mutations
mutations := $(wildcard selftests/mutate/*.patch selftests/mutate/podman/*.patch)
source = $(eval source := $(shell $(VM)/kernel source))$(source)
versions = $(eval versions := $(source) $(shell dpkg-query -W sparse cppcheck shellcheck))$(versions)
passed := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/klock/lint
pass = @passed=$(passed)/$$({ echo $@ $(versions); cat Makefile $^; } | sha256sum | cut -d ' ' -f 1); \
	[ -e $$passed ] || { { $1; } && mkdir -p $(passed) && touch $$passed; } && \
	mkdir -p $(@D) && touch $@

# Of what checkpatch is not asked, by kind of file
list-rules:
	@echo 'USER_RULES=$(USER_RULES) TEST_RULES=$(TEST_RULES) TRACE_RULES=$(TRACE_RULES)'

lint: lint-packages
	@$(MAKE) -s -k lint-files

lint-packages:
	@$(VM)/install gcc libc6-dev perl patch sparse cppcheck shellcheck

lint-files: $(stamps)

build/lint/%.checkpatch: %
	$(call pass,perl $(source)/scripts/checkpatch.pl --no-tree --strict --terse --quiet --no-summary \
		--show-types --max-line-length=100 $(addprefix --ignore ,$(rules)) -f $<)

cppcheck_enabled := warning,performance,portability

# (ctuuninitvar takes what a call is to fill for what it reads.)
build/lint/%.cppcheck: % $(filter %.h,$(user_c))
	$(call pass,cppcheck --quiet --error-exitcode=1 --inline-suppr \
		--enable=$(cppcheck_enabled) --max-configs=2 -D__linux__ \
		-Ilibklock/include -Iuapi -I$(source)/tools/testing/selftests \
		--suppress='*:*/kselftest*.h' --suppress=ctuuninitvar --suppress=ctunullpointer $<)

build/lint/%.shellcheck: %
	$(call pass,shellcheck $<)

# Sparse does not fail by itself; what it has to say of the kernel's headers is not ours.
build/lint/sparse: $(kernel_c) uapi/linux/klock.h
	$(call pass,$(MAKE) -s module KDIR=$(shell $(VM)/kernel distro)/build C=2 CHECK=sparse W=1 \
		KCFLAGS=-Werror 2>&1 | { ! grep -E '/(kmod|uapi)/.*(warning|error):'; })

# Each patch of a bug still fits what it is a bug in.
build/lint/mutations: $(mutations) $(kernel_c) $(user_c)
	$(call pass,for bug in $(mutations); do \
			said=$$(patch --dry-run --force --fuzz=0 -p1 < $$bug) || { echo "$$said"; exit 1; }; \
		done)

clean:
	rm -rf build kmod/klock.ko .checkpatch-camelcase* $(patsubst %.c,%,$(wildcard selftests/*.c)) selftests/abi_32 \
		selftests/library_tsan selftests/first selftests/engine_example selftests/bin
	$(MAKE) -C libklock clean

.PHONY: all module library tools programs list-programs demo check check-all vm torture fuzz coverage mutate podman bench bench-doc bench-baseline install deb deb-check intree list-rules lint lint-packages lint-files clean
