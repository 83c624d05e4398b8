# SPDX-License-Identifier: GPL-2.0-only
# Builds the module for one kernel.  Called by the top Makefile's `modules`,
# which gives KDIR (headers), BUILD (absolute output folder) and MODULE (name).
#
# kbuild writes beside its sources, and one checkout serves many kernels at the
# same time, so that each gets a copy of the sources in its own folder.

FEATURES := $(BUILD)/include/generated/nvgrace_gpu_features.h
SOURCES	 := Kbuild $(wildcard src/*.[ch] include/*.h include/compat/*.h)
COPIES	 := $(addprefix $(BUILD)/,$(SOURCES))
# What the answers depend on: the questions, and the kernel's configuration.
KERNEL	 := $(wildcard $(KDIR)/include/generated/autoconf.h $(KDIR)/Module.symvers)

# Type information for tracers is made by pahole; kernels that want it print
# errors where pahole isn't installed, though the module is fine without.
BTF	 := $(if $(shell command -v pahole),,CONFIG_DEBUG_INFO_BTF_MODULES=)

# ... and who asks: another compiler may give other answers.
ASKER	 := $(KDIR) $(ARCH) $(CROSS_COMPILE) $(CC) $(LLVM)
STAMP	 := $(BUILD)/asker

# For modinfo, and for who asks whether the loaded module is the installed one.
VERSION	 := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"$$/\1/p' dkms.conf)
# In the environment, where no shell can trip over an apostrophe.
export NVGRACE_GPU_MAINTAINER := $(shell sed -n 's/^MAINTAINER[[:space:]]*:=[[:space:]]*//p' Makefile)

.DEFAULT_GOAL := module
.PHONY: module FORCE
$(STAMP): FORCE
	@mkdir -p $(@D)
	@echo '$(ASKER)' | cmp -s - $@ || echo '$(ASKER)' > $@

module: $(COPIES) $(FEATURES)
	+$(MAKE) -C $(KDIR) M=$(BUILD) $(BTF) NVGRACE_GPU_VERSION=$(VERSION) modules
	@test -s $(BUILD)/$(MODULE).ko

$(COPIES): $(BUILD)/%: %
	@mkdir -p $(@D)
	@cp $< $@

$(FEATURES): $(wildcard scripts/probes/*.c) scripts/probe-kernel $(KERNEL) $(STAMP)
	@mkdir -p $(@D)
	@echo "  PROBES  $(notdir $(BUILD))"
	+@scripts/probe-kernel $(KDIR) $(BUILD)/probes $@
