#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Puts the udev rule, its program, the configuration and the module into an
# initramfs, so that no other driver binds a GPU there first. dracut(8) reads it
# as /usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh. The variables are
# dracut's.

# If the configuration binds no GPU, dracut leaves this module out, unless --add
# names it.
check() {
	NVGRACE_GPU_ROOT=${dracutsysrootdir-} "${dracutsysrootdir-}/usr/lib/udev/nvgrace-gpu" configured || return 255
	! is_elsewhere || return 255
}

# Whether this is the image of the kernel of a crash dump, or a rescue system's,
# which must leave GPUs alone. kdumpctl, mkdumprd and others add their module,
# "kdump" or "kdumpbase". What they leave out, beside strict host-only mode, tells
# as much. "earlykdump" belongs to ordinary images.
is_elsewhere() {
	local added=" ${dracutmodules-} ${add_dracutmodules-} ${force_add_dracutmodules-} "
	[[ ${IN_KDUMP-} || $added == *" kdump "* || $added == *" kdumpbase "* || $added == *" rescue "* ]] ||
		[[ ${hostonly_mode-} == strict && " ${omit_dracutmodules-} " == *" earlykdump "* ]]
}

depends() {
	echo udev-rules
}

installkernel() {
	# Status 0 if the kernel has no such module: DKMS leaves kernels out.
	hostonly='' instmods nvgrace-gpu-vfio-pci
}

install() {
	local file copy
	# With its libraries.
	inst_binary /usr/lib/udev/nvgrace-gpu
	inst_rules 60-nvgrace-gpu.rules
	# What can't be read may be an "ignore", so that it can't be read in the image,
	# either.
	mkdir -p "${initdir:?}/etc/nvgrace-gpu.conf.d"
	for file in "${dracutsysrootdir-}"/etc/nvgrace-gpu.conf{,.d/*.conf}; do
		[[ -e $file || -h $file ]] || continue
		copy=$initdir/${file#"${dracutsysrootdir-}"}
		if [[ -p $file ]] || ! cat "$file" > "$copy"; then
			rm -f "$copy"
			mkdir "$copy"
		fi
	done
	# Parameters of the module. dracut copies none into an initramfs for any
	# machine.
	for file in "${dracutsysrootdir-}"/etc/modprobe.d/*.conf; do
		if grep -qsE 'nvgrace[-_]gpu[-_]vfio[-_]pci' "$file"; then
			inst_simple "${file#"${dracutsysrootdir-}"}"
		fi
	done
}
