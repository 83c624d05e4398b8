# SPDX-License-Identifier: GPL-2.0-only
# The entry point for builds, packages and tests; `make help` lists the targets.

# ---- the owner's settings ---------------------------------------------------
# Set them only here: the packages and the module read them from these lines.
# MAINTAINER is "NAME <ADDRESS>". SITE is the URL of the package repository that
# `make publish` makes, without a slash at its end. Set it when you have one, then
# run scripts/packaging/site, which writes it to README.md and other files.

MAINTAINER := nvgrace-gpu-vfio-pci maintainers <maintainers@nvgrace-gpu-vfio-pci.example>
SITE	   :=

# ---- the module -------------------------------------------------------------
# make modules KDIR=<headers> [ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-]
# writes build/<kernel release>/nvgrace-gpu-vfio-pci.ko. It needs only make, a
# compiler and those headers. W=1 and C=2 are kbuild's.

KDIR	?= /lib/modules/$(shell uname -r)/build
TOP	:= $(CURDIR)
MODULE	:= nvgrace-gpu-vfio-pci

.DEFAULT_GOAL := modules

# The output of `uname -r` under that kernel. include/config/kernel.release is
# no substitute: it differs in the headers of Debian 12.
RELEASE = $(shell sed -n 's/^.define UTS_RELEASE "\(.*\)"$$/\1/p' \
	    '$(KDIR)/include/generated/utsrelease.h' 2>/dev/null)

# The compiler that built the kernel, unless the caller names one. kbuild ignores CC
# in the environment.
COMPILER = $(if $(filter command,$(word 1,$(origin CC)))$(LLVM),,$(shell sh scripts/kernel-compiler '$(KDIR)' '$(CROSS_COMPILE)'))

.PHONY: modules
modules:
	@test -e '$(KDIR)/Makefile' || { \
	   echo "no kernel headers in $(KDIR); name their folder: make modules KDIR=<folder>" >&2; exit 1; }
	@$(MAKE) --no-print-directory -f scripts/module.mk KDIR='$(realpath $(KDIR))' \
	   BUILD='$(TOP)/build/$(or $(RELEASE),$(error no kernel release in $(KDIR)/include/generated/utsrelease.h; name a folder with configured headers in KDIR))' MODULE=$(MODULE) $(COMPILER)

# ---- installing -------------------------------------------------------------
# `make install` consists of three targets, one for each package. install-dkms
# installs what DKMS needs; run `dkms install` afterwards. install-cli installs
# nvgrace-gpu(8), the udev rule and what initramfs generators need, and needs the
# tool's libraries. install-tests installs the commands test and bench, and the
# programs that test runs, and needs cmocka.
# install-cli needs scdoc for the manual pages. DESTDIR and prefix have their
# usual meaning, but the files of udev, dracut and initramfs-tools always go
# below /usr, the only place that those programs search.

prefix	?= /usr
# On its first use, which needs git for some time.
VERSION	 = $(eval VERSION := $(shell sh scripts/this-version))$(VERSION)
DKMSDIR	 = $(DESTDIR)/usr/src/$(MODULE)-$(VERSION)
docdir	?= $(prefix)/share/doc
GUIDES	 = $(DESTDIR)$(docdir)/nvgrace-gpu
INSTALL	?= install

.PHONY: install install-dkms install-cli install-tests
install: install-dkms install-cli install-tests

install-dkms:
	$(INSTALL) -d $(DKMSDIR)/src $(DKMSDIR)/include/compat $(DKMSDIR)/scripts/probes
	$(INSTALL) -m 644 Kbuild Makefile $(DKMSDIR)
	sed 's/^PACKAGE_VERSION=.*/PACKAGE_VERSION="$(VERSION)"/' dkms.conf > $(DKMSDIR)/dkms.conf
	sed 's/^commit=.*/commit=/' scripts/this-version > $(DKMSDIR)/scripts/this-version
	chmod 644 $(DKMSDIR)/dkms.conf
	chmod 755 $(DKMSDIR)/scripts/this-version
	$(INSTALL) -m 644 src/*.[ch] $(DKMSDIR)/src
	$(INSTALL) -m 644 include/*.h $(DKMSDIR)/include
	$(INSTALL) -m 644 include/compat/*.h $(DKMSDIR)/include/compat
	$(INSTALL) -m 644 scripts/module.mk $(DKMSDIR)/scripts
	$(INSTALL) -m 644 scripts/dkms-left-out $(DKMSDIR)/scripts
	$(INSTALL) -m 755 scripts/kernel-compiler scripts/probe-kernel scripts/renew-initramfs $(DKMSDIR)/scripts
	$(INSTALL) -m 644 scripts/probes/*.c $(DKMSDIR)/scripts/probes

install-cli:
	$(MAKE) -C cli install DESTDIR='$(DESTDIR)' prefix='$(prefix)'
	$(INSTALL) -D -m 644 scripts/udev/60-nvgrace-gpu.rules $(DESTDIR)/usr/lib/udev/rules.d/60-nvgrace-gpu.rules
	$(INSTALL) -D -m 755 scripts/udev/initramfs-tools-hook $(DESTDIR)/usr/share/initramfs-tools/hooks/nvgrace-gpu
	$(INSTALL) -D -m 755 scripts/udev/dracut-module-setup.sh \
		$(DESTDIR)/usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh
	$(INSTALL) -d $(DESTDIR)/etc/nvgrace-gpu.conf.d
	$(INSTALL) -d $(DESTDIR)$(prefix)/share/man/man5
	scdoc < scripts/udev/nvgrace-gpu.conf.5.scd > $(DESTDIR)$(prefix)/share/man/man5/nvgrace-gpu.conf.5
	$(INSTALL) -d $(DESTDIR)$(prefix)/share/man/man4
# The first line makes man call tbl, for the tables.
	{ printf '%s\n' "'\\\" t"; scdoc < docs/$(MODULE).4.scd; } > $(DESTDIR)$(prefix)/share/man/man4/$(MODULE).4
	$(INSTALL) -d $(GUIDES)/examples
	$(INSTALL) -m 644 docs/administration.md docs/fleet.md docs/guests.md docs/doctor.md docs/tracing.md docs/ABI/sysfs-driver-nvgrace-gpu \
		$(GUIDES)
	$(INSTALL) -m 644 docs/libvirt-domain.xml docs/libvirt-hook-qemu docs/prometheus-alerts.yml \
		docs/examples/* $(GUIDES)/examples
# The public keys of a project that publishes packages, for the next release.
	[ ! -e scripts/packaging/nvgrace-gpu.asc ] || \
		$(INSTALL) -D -m 644 scripts/packaging/nvgrace-gpu.asc $(DESTDIR)/usr/share/keyrings/nvgrace-gpu.asc

install-tests:
	$(MAKE) -C tests/hardware install DESTDIR='$(DESTDIR)' prefix='$(prefix)'
	$(MAKE) -C cli install-testers DESTDIR='$(DESTDIR)' prefix='$(prefix)'

# ---- packages ---------------------------------------------------------------
# They go to build/packages/ and build/repo/, and contain the checkout as it is.

.PHONY: deb rpm repo
deb rpm:
	@scripts/packaging/package $@

# Packages of the built module, for hosts without a compiler: KDIR=<headers>, as for
# `make modules`, and SIGN_KEY=<file> SIGN_CERT=<file> to sign it. They need no
# toolbox, and go to build/module-packages/.
.PHONY: module-packages
module-packages: modules
	@CROSS_COMPILE='$(CROSS_COMPILE)' SIGN_KEY='$(SIGN_KEY)' SIGN_CERT='$(SIGN_CERT)' scripts/packaging/module-packages '$(KDIR)' '$(RELEASE)'

# For a release: `make version` sets its number everywhere, and `make dist` puts
# its tarball and checksum in build/dist/. docs/versions.md has all steps.
.PHONY: version dist
version:
	@scripts/packaging/version '$(V)'

dist:
	@scripts/packaging/package dist

# GPG_KEY=<id> signs with a key of the gpg keyring in GNUPGHOME.
# MODULES=build/module-packages adds the packages of built modules.
repo: deb rpm
	@MODULES='$(MODULES)' scripts/packaging/repo

# Adds the release of `make dist deb rpm` to a site, such as the forge's pages:
# DESTDIR=<folder> GPG_KEY=<id> [TAG=vX.Y.Z] [MODULES=build/module-packages].
# .github/workflows/release.yml calls it for each tag.
.PHONY: publish
publish:
	@MODULES='$(MODULES)' scripts/packaging/repo --publish '$(DESTDIR)'

# ---- trying and testing -----------------------------------------------------
# Everything runs in virtual machines and in a Debian 13 tree in the cache,
# which scripts/dev/toolbox makes, as root, on first use.

TOOLBOX	:= scripts/dev/toolbox

# All tests are pytest's. T has arguments for it: T="tests/driver/mmap.c -k hole".
# What the chosen tests need is made first, by one process, but not for a list.
PYTEST	= $(TOOLBOX) run -- python3 -m pytest
BUSY	= $(if $(LOAD),--busy $(LOAD))
define pytest
$(if $(filter --collect-only --co,$(1)),
@$(PYTEST) $(1),
@scripts/dev/prepare $(1)
@$(PYTEST) $(1) --made=build/needs --junitxml=build/junit.xml --durations=20 $(BUSY))
endef

# Machines wait for their clocks half of the time, so there are more workers than
# processors.
WORKERS	?= $(shell expr 2 + $$(nproc))
WORK	= -v -n $(WORKERS) --dist loadgroup

.PHONY: demo test check check-all check-long bench bench-waits page generated
# The tool is compiled while the kernel is downloaded.
demo:
	@$(TOOLBOX) ensure newest
	@$(TOOLBOX) run -- python3 -c 'from cli.common import build; build("aarch64-linux-gnu-")' & \
	   $(TOOLBOX) kernel newest; rc=$$?; wait $$! && exit $$rc
	@$(TOOLBOX) run -- python3 scripts/dev/demo.py

# Some tests, with the newest kernel unless --kernel names another.
test:
	$(call pytest,-v $(T))

check:
	$(call pytest,-m check $(WORK) $(T))

check-all:
ifneq ($(T),)
	$(call pytest,-m "check or all" $(WORK) $(T))
else
	@$(MAKE) --no-print-directory check
	$(call pytest,-m all $(WORK))
endif

# The tool's tests once more, with sanitizers.
check-long:
	$(call pytest,-m "long or packages" $(WORK) $(T))
ifeq ($(T),)
	@SANITIZE=1 TOOLBOX_ENV=SANITIZE $(PYTEST) -m check $(WORK) tests/cli tests/boot
endif

# Can compare the module with another build of it in the same machine:
# BASELINE_KO=<file or folder below this one>, ROUNDS=3,
# KERNELS="oldstable stable newest", GPUS=parts. QUICK=1 shortens the rounds.
bench:
	@$(TOOLBOX) more
	@$(TOOLBOX) kernel $(or $(KERNELS),oldstable stable newest)
	@$(TOOLBOX) run -- env BASELINE_KO='$(BASELINE_KO)' GPUS='$(GPUS)' \
		python3 -m stress.bench.bench $(if $(QUICK),--quick) --rounds $(or $(ROUNDS),3) $(KERNELS)

# Measures what users of guests wait for, with BASELINE_KO and ROUNDS as above.
bench-waits:
	@$(TOOLBOX) kernel newest stable
	@$(TOOLBOX) root qemu >/dev/null
	@$(TOOLBOX) run -- env BASELINE_KO='$(BASELINE_KO)' python3 -m stress.bench.waits --rounds $(or $(ROUNDS),3)

# The findings in docs/doctor.md, without a machine.
page:
	@mkdir -p build
	@$(TOOLBOX) run -- make -s -C cli OUT='$(TOP)/build/page' CFLAGS=-O0 page >build/doctor.md
	@cp build/doctor.md docs/doctor.md

# Also what `make demo` prints in README.md, and the files that name SITE.
generated: page
	@$(TOOLBOX) kernel newest
	@$(TOOLBOX) run -- python3 scripts/dev/demo.py --record
	@scripts/packaging/site

.PHONY: clean distclean
clean:
	rm -rf build

distclean: clean
	$(TOOLBOX) clean

.PHONY: help
help:
	@echo 'For administrators and packagers'
	@echo '  modules       build the module: KDIR=<headers> [ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-]'
	@echo '  deb, rpm      build packages for Debian and for RPM systems in build/packages/'
	@echo '  module-packages build packages of the built module in build/module-packages/: KDIR=<headers> [SIGN_KEY=<file> SIGN_CERT=<file>]'
	@echo '  repo          build them, and apt and dnf repositories in build/repo/ (GPG_KEY=<id> signs)'
	@echo '  dist          make the tarball of a release and its checksum in build/dist/'
	@echo '  publish       add that release to a repository for a web server: DESTDIR=<folder> GPG_KEY=<id>'
	@echo '  version       set a new version everywhere: V=x.y.z'
	@echo '  install       install the files of the packages: DESTDIR=<root>; then run dkms install'
	@echo 'To try it, as root on Debian or Ubuntu'
	@echo '  demo          boot a virtual GH200, bind its GPU, show the VMM'"'"'s view, move data'
	@echo '  bench         measure the module in one, or compare it with another build: BASELINE_KO=<file.ko>, KERNELS=newest, ROUNDS=3, GPUS=parts, QUICK=1'
	@echo '  bench-waits   measure what users of guests wait for, or compare it: BASELINE_KO=<file.ko>, ROUNDS=3'
	@echo 'To test it'
	@echo '  test          run some tests: T="tests/driver/mmap.c -k hole", arguments for pytest'
	@echo '  check         run what shows in minutes whether a change is right: units, the tool, style, and the driver on one kernel'
	@echo '  check-all     run that and all other tests: every kernel, guests, packages, whole systems'
	@echo '  check-long    run the campaigns of a release: debug kernels, the kernel'"'"'s vfio selftests, races, life of the packages'
	@echo '                each takes T=, too, and LOAD=4 runs it beside 4 busy processes'
	@echo '  page          write the findings in docs/doctor.md from their source'
	@echo '  generated     write the findings in docs/doctor.md, README.md'"'"'s recording and SITE from their sources'
	@echo 'To clean up'
	@echo '  clean         remove build/'
	@echo '  distclean     also remove the cache with its tools and kernels'
