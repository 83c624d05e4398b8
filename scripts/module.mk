# SPDX-License-Identifier: GPL-2.0-only
# Builds the module for one kernel. `make modules` calls this with KDIR
# (headers), BUILD (absolute output folder) and MODULE (name).
#
# kbuild writes beside its sources. Each kernel gets a copy of the sources in
# its own folder, so that one checkout can be built for several kernels at a
# time.

FEATURES := $(BUILD)/include/generated/nvgrace_gpu_features.h
SOURCES	 := Kbuild $(wildcard src/*.[ch] include/*.h include/compat/*.h)
COPIES	 := $(addprefix $(BUILD)/,$(SOURCES))
# What the results of the probes depend on, besides the probes: the kernel's
# configuration and symbols,
KERNEL	 := $(wildcard $(KDIR)/include/generated/autoconf.h $(KDIR)/Module.symvers)

# pahole makes type information for tracers. Without pahole, the build for a
# kernel that wants it prints errors, although the module works without it.
BTF	 := $(if $(shell command -v pahole),,CONFIG_DEBUG_INFO_BTF_MODULES=)

# ... and the compiler.
ASKER	 := $(KDIR) $(ARCH) $(CROSS_COMPILE) $(CC) $(LLVM)
STAMP	 := $(BUILD)/asker

# For modinfo, and to compare the loaded module with the installed one.
VERSION	 := $(shell sh scripts/this-version)
# In the environment, so that no shell parses it: a name may have an apostrophe.
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
	+@sh scripts/probe-kernel $(KDIR) $(BUILD)/probes $@
