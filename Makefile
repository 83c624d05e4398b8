# SPDX-License-Identifier: GPL-2.0-only
# The one door: `make help` lists what is behind it.

# ---- the owner's settings ---------------------------------------------------
# Set them here alone: the packages and the module take them from these lines.
# "NAME <ADDRESS>", and the folder that has the releases of `make dist`.

MAINTAINER := nvgrace-gpu-vfio-pci maintainers <maintainers@nvgrace-gpu-vfio-pci.example>
RELEASES   := https://nvgrace-gpu-vfio-pci.example/releases

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

# ---- installing -------------------------------------------------------------
# make install, or its two halves, as the packages have them: install-dkms, what
# DKMS, udev and initramfs makers need (then `dkms install`), and install-cli,
# nvgrace-gpu(8).  Needs scdoc for the manual pages, and for the tool its
# libraries.  DESTDIR and prefix as everywhere; udev, dracut and initramfs-tools
# look below /usr alone.

prefix	?= /usr
VERSION	 = $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"$$/\1/p' dkms.conf)
DKMSDIR	 = $(DESTDIR)/usr/src/$(MODULE)-$(VERSION)
docdir	?= $(prefix)/share/doc
EXAMPLES = $(DESTDIR)$(docdir)/$(MODULE)-dkms/examples
INSTALL	?= install

.PHONY: install install-dkms install-cli
install: install-dkms install-cli

install-dkms:
	$(INSTALL) -d $(DKMSDIR)/src $(DKMSDIR)/include/compat $(DKMSDIR)/scripts/probes
	$(INSTALL) -m 644 Kbuild Makefile dkms.conf $(DKMSDIR)
	$(INSTALL) -m 644 src/*.[ch] $(DKMSDIR)/src
	$(INSTALL) -m 644 include/*.h $(DKMSDIR)/include
	$(INSTALL) -m 644 include/compat/*.h $(DKMSDIR)/include/compat
	$(INSTALL) -m 644 scripts/module.mk $(DKMSDIR)/scripts
	$(INSTALL) -m 644 scripts/dkms-left-out $(DKMSDIR)/scripts
	$(INSTALL) -m 755 scripts/probe-kernel scripts/renew-initramfs $(DKMSDIR)/scripts
	$(INSTALL) -m 644 scripts/probes/*.c $(DKMSDIR)/scripts/probes
	$(INSTALL) -D -m 644 scripts/udev/60-nvgrace-gpu.rules $(DESTDIR)/usr/lib/udev/rules.d/60-nvgrace-gpu.rules
	$(INSTALL) -D -m 755 scripts/udev/nvgrace-gpu $(DESTDIR)/usr/lib/udev/nvgrace-gpu
	$(INSTALL) -D -m 755 scripts/udev/initramfs-tools-hook $(DESTDIR)/usr/share/initramfs-tools/hooks/nvgrace-gpu
	$(INSTALL) -D -m 755 scripts/udev/dracut-module-setup.sh \
		$(DESTDIR)/usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh
	$(INSTALL) -D -m 644 scripts/udev/nvgrace-gpu.conf $(EXAMPLES)/nvgrace-gpu.conf
	$(INSTALL) -d $(DESTDIR)/etc/nvgrace-gpu.conf.d
	$(INSTALL) -d $(DESTDIR)$(prefix)/share/man/man5
	scdoc < scripts/udev/nvgrace-gpu.conf.5.scd > $(DESTDIR)$(prefix)/share/man/man5/nvgrace-gpu.conf.5

install-cli:
	$(MAKE) -C cli install DESTDIR='$(DESTDIR)' prefix='$(prefix)'

# ---- packages ---------------------------------------------------------------
# In build/packages/ and build/repo/, made of the checkout as it is.

.PHONY: deb rpm repo
deb rpm:
	@scripts/package $@

# A release: its number goes into all places by the first, its tarball and the
# checksum into build/dist/ by the second. docs/releasing.md has the rest.
.PHONY: version dist
version:
	@scripts/version '$(V)'

dist:
	@scripts/package dist

# GPG_KEY=<id> signs, with a key of the gpg keyring below GNUPGHOME.
repo: deb rpm
	@scripts/repo

# ---- trying and testing -----------------------------------------------------
# All of it happens in one Debian 13 tree in the cache, which scripts/toolbox
# makes (as root) on first use, and in virtual machines.

TOOLBOX	:= scripts/toolbox

# What runs a campaign, which records in docs/reliability.md what the driver was: the last commit
# that changed it, with a + where it has been changed since.
DRIVER	:= src include Kbuild
CAMPAIGN = TOOLBOX_ENV=DRIVER_COMMIT DRIVER_COMMIT=$$(git log -1 --format=%h -- $(DRIVER) 2>/dev/null)$$( \
	git diff --quiet HEAD -- $(DRIVER) 2>/dev/null || echo +) $(TOOLBOX) run --

.PHONY: demo check check-quick check-long check-package check-guest bench matrix cli unit fuzz style
demo:
	@$(TOOLBOX) kernel 7.2
	@$(TOOLBOX) run -- python3 tests/demo/demo.py

check:
	@$(TOOLBOX) kernel --all
	@$(TOOLBOX) kernel 64k
	@$(TOOLBOX) checkpatch >/dev/null
	@$(TOOLBOX) root analysis >/dev/null
	@$(TOOLBOX) root tracers >/dev/null
	@$(TOOLBOX) root qemu >/dev/null
	@tests/package/dkms-debs
	@tests/package/image >/dev/null
	@$(TOOLBOX) run -- python3 tests/check.py $(JOBS)

check-quick:
	@$(TOOLBOX) kernel 7.2
	@$(TOOLBOX) checkpatch >/dev/null
	@$(TOOLBOX) run -- python3 tests/check.py --quick $(JOBS)

check-long:
	@$(TOOLBOX) kernel --all
	@kernels=$$($(TOOLBOX) run -- python3 tests/check.py --kernels --long $(JOBS)) || exit 1; \
	for kernel in $$kernels; do $(TOOLBOX) kernel $$kernel || exit 1; done
	@$(TOOLBOX) checkpatch >/dev/null
	@$(TOOLBOX) root analysis >/dev/null
	@$(TOOLBOX) root coverage >/dev/null
	@tests/package/dkms-debs
	@$(CAMPAIGN) python3 tests/check.py --long $(JOBS)

# Side by side with another build of the module, in one machine: BASELINE_KO=<file or folder below this one>,
# ROUNDS=3, KERNELS="6.1-amd64 6.12 7.2", GPUS=parts; QUICK=1 for short rounds.
bench:
	@$(TOOLBOX) kernel $(or $(KERNELS),6.1-amd64 6.12 7.2)
	@scripts/matrix $(or $(KERNELS),6.1-amd64 6.12 7.2)
	@$(TOOLBOX) run -- env BASELINE_KO='$(BASELINE_KO)' GPUS='$(GPUS)' \
		python3 tests/bench/bench.py $(if $(QUICK),--quick) --rounds $(or $(ROUNDS),3) $(KERNELS)

# All lives of the packages in whole systems (PARTS="deb rpm" for some). Two
# parts have systems of their own, of the same name.
PACKAGE_IMAGES = $(sort $(foreach part,$(or $(PARTS),deb libvirt bookworm),$(or $(filter libvirt bookworm,$(part)),base)))
check-package: repo
	@set -e; for image in $(PACKAGE_IMAGES); do tests/package/image $$image >/dev/null; done
	@$(CAMPAIGN) python3 tests/package/life.py $(addprefix --part ,$(PARTS))

# Guests that use a GPU's memory, on hosts with KVM: part of check.
check-guest:
	@$(TOOLBOX) kernel 6.12 7.2 7.2-16k
	@$(TOOLBOX) kernel 64k
	@$(TOOLBOX) root qemu >/dev/null
	@$(TOOLBOX) run -- python3 tests/check.py guest stage2

matrix:
	@$(TOOLBOX) kernel --all
	@$(TOOLBOX) kernel 64k
	@$(TOOLBOX) run -- scripts/matrix

cli:
	@$(TOOLBOX) run -- tests/cli/run

unit:
	@$(TOOLBOX) run -- tests/unit/run

# SECONDS=n for each target; without it, until interrupted.
fuzz:
	@$(TOOLBOX) run -- tests/fuzz/run $(or $(SECONDS),0)

style:
	@$(TOOLBOX) run -- scripts/style "$$($(TOOLBOX) checkpatch)"

.PHONY: clean distclean
clean:
	rm -rf build

distclean: clean
	$(TOOLBOX) clean

.PHONY: help
help:
	@echo 'For administrators and packagers'
	@echo '  modules       build the module: KDIR=<headers> [ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-]'
	@echo '  deb, rpm      build packages for Debian and for RPM systems, in build/packages/'
	@echo '  repo          build them and an apt and a dnf repository, in build/repo/ (GPG_KEY=<id> signs)'
	@echo '  dist          make the tarball of a release and its checksum, in build/dist/'
	@echo '  version       put a new version into all places: V=x.y.z'
	@echo '  install       install what the packages have: DESTDIR=<root>; then dkms install'
	@echo 'To see it work, on any Debian 12 machine, as root'
	@echo '  demo          boot a virtual GH200, bind its GPU, show what a VMM sees, move data'
	@echo '  bench         measure it in one, beside another build: BASELINE_KO=<file.ko>, KERNELS=7.2, ROUNDS=3, GPUS=parts, QUICK=1'
	@echo 'To test it'
	@echo '  check         everything, on every supported kernel (JOBS="vm-7.2 unit" for some of it)'
	@echo '  check-quick   the units and one kernel, in five minutes'
	@echo '  check-long    campaigns: a debug kernel, the kernel'"'"'s vfio selftests, planted mistakes, fuzzing'
	@echo '  check-package the packages'"'"' lives in whole Debian systems: install, bind, boot, upgrade, remove'
	@echo '  check-guest   guests with KVM and QEMU that use the memory of a GPU, on several hosts (part of check)'
	@echo '  matrix        build for every kernel with all warnings on, and print a table'
	@echo '  cli           tests of nvgrace-gpu(8) that need no virtual machine'
	@echo '  unit          unit tests on this machine'
	@echo '  fuzz          fuzz until interrupted, or for SECONDS=n a target'
	@echo '  style         checkpatch and rules of the project'
	@echo 'To clean up'
	@echo '  clean         remove build/'
	@echo '  distclean     and the cache with its tools and kernels'
