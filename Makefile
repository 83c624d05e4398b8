# SPDX-License-Identifier: GPL-2.0-only
# The one door: `make help` lists what is behind it.

# ---- the module -------------------------------------------------------------
# make modules KDIR=<headers> [ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-]
# leaves build/<kernel release>/nvgrace-gpu-vfio-pci.ko.  Needs nothing but make,
# a compiler and those headers; W=1 and C=2 mean what they mean to kbuild.

KDIR	?= /lib/modules/$(shell uname -r)/build
TOP	:= $(CURDIR)
MODULE	:= nvgrace-gpu-vfio-pci

.DEFAULT_GOAL := modules

# What `uname -r` says under that kernel.  include/config/kernel.release is no
# substitute: Debian's 6.1 headers have another number there.
RELEASE = $(shell sed -n 's/^.define UTS_RELEASE "\(.*\)"$$/\1/p' \
	    '$(KDIR)/include/generated/utsrelease.h' 2>/dev/null)

.PHONY: modules
modules:
	@test -e '$(KDIR)/Makefile' || { \
	   echo "$(KDIR) holds no kernel headers; say where they are: make modules KDIR=<folder>" >&2; exit 1; }
	@$(MAKE) --no-print-directory -f scripts/module.mk KDIR='$(realpath $(KDIR))' \
	   BUILD='$(TOP)/build/$(or $(RELEASE),$(error $(KDIR)/include/generated/utsrelease.h names no kernel release: are these configured headers?))' MODULE=$(MODULE)
