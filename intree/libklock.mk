# SPDX-License-Identifier: GPL-2.0-or-later
# libklock: static, shared, and what pkg-config says of it.
#
#   all, clean
#   install          to DESTDIR/PREFIX
#   libklock_tsan.a  for programs with -fsanitize=thread
#
# What is built goes below OUTPUT, which ends with a slash, or else stays here.
# <linux/klock.h> is taken from where `make headers` puts it, KHDR_INCLUDES.

include ../../scripts/Makefile.include

VERSION = @VERSION@
SONAME = @SONAME@

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
KHDR_INCLUDES ?= -isystem ../../../usr/include

CFLAGS ?= -O2 -g
LIB_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -fPIC -fvisibility=hidden -pthread \
	     -Iinclude $(KHDR_INCLUDES) -D_GNU_SOURCE -DKLOCK_VERSION='"$(VERSION)"'

SRCS = $(wildcard src/*.c)
OBJS = $(SRCS:%.c=$(OUTPUT)%.o)
TSAN_OBJS = $(SRCS:%.c=$(OUTPUT)%.tsan.o)

all: $(OUTPUT)libklock.a $(OUTPUT)libklock.so

$(OUTPUT)libklock.a: $(OBJS)
$(OUTPUT)libklock_tsan.a: $(TSAN_OBJS)
$(OUTPUT)libklock.a $(OUTPUT)libklock_tsan.a:
	$(QUIET_AR)rm -f $@ && $(AR) rcs $@ $^

$(OUTPUT)$(SONAME): $(OBJS) libklock.map
	$(QUIET_LINK)$(CC) $(CFLAGS) $(LDFLAGS) -shared -pthread -Wl,-soname,$(SONAME) \
		-Wl,-z,nodelete,-z,defs -Wl,--version-script=libklock.map -o $@ $(OBJS)

$(OUTPUT)libklock.so: $(OUTPUT)$(SONAME)
	$(Q)ln -sf $(<F) $@

$(OUTPUT)src/%.o: src/%.c Makefile
	$(Q)mkdir -p $(@D)
	$(QUIET_CC)$(CC) $(CFLAGS) $(LIB_CFLAGS) -MMD -c -o $@ $<

$(OUTPUT)src/%.tsan.o: src/%.c Makefile
	$(Q)mkdir -p $(@D)
	$(QUIET_CC)$(CC) $(CFLAGS) $(LIB_CFLAGS) -fsanitize=thread -MMD -c -o $@ $<

-include $(OBJS:.o=.d) $(TSAN_OBJS:.o=.d)

install: all
	$(call QUIET_INSTALL, libklock) \
	install -d $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR)/pkgconfig && \
	install -m 644 include/klock.h $(DESTDIR)$(INCLUDEDIR) && \
	install -m 644 $(OUTPUT)libklock.a $(DESTDIR)$(LIBDIR) && \
	install -m 755 $(OUTPUT)$(SONAME) $(DESTDIR)$(LIBDIR) && \
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libklock.so && \
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' klock.pc.in \
		> $(DESTDIR)$(LIBDIR)/pkgconfig/klock.pc

clean:
	$(call QUIET_CLEAN, libklock) \
	rm -f $(OBJS) $(TSAN_OBJS) $(OBJS:.o=.d) $(TSAN_OBJS:.o=.d) $(OUTPUT)libklock.a \
		$(OUTPUT)libklock_tsan.a $(OUTPUT)libklock.so $(OUTPUT)$(SONAME)

.PHONY: all install clean
.DELETE_ON_ERROR:
