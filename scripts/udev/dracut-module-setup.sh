#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Puts the udev rule, its helper, the configuration and the module into an initramfs, so that no
# driver in there takes a GPU first.  Read by dracut(8), as
# /usr/lib/dracut/modules.d/90nvgrace-gpu/module-setup.sh.  The variables are dracut's.

# Not in an initramfs that is made for one machine without such a configuration; where --add names
# the module, dracut includes it whatever this says.
check() {
	"${dracutsysrootdir-}/usr/lib/udev/nvgrace-gpu" configured || return 255
}

depends() {
	echo udev-rules
}

installkernel() {
	# Ends with status 0 where the kernel has none: DKMS leaves kernels out.
	hostonly='' instmods nvgrace-gpu-vfio-pci
}

install() {
	local file
	inst_multiple modprobe /usr/lib/udev/nvgrace-gpu
	inst_rules 60-nvgrace-gpu.rules
	for file in /etc/nvgrace-gpu.conf /etc/nvgrace-gpu.conf.d/*.conf; do
		if [[ -f ${dracutsysrootdir-}$file ]]; then
			inst_simple "$file"
		fi
	done
	# The module's parameters; in an initramfs that is made for any machine, dracut has none.
	for file in "${dracutsysrootdir-}"/etc/modprobe.d/*.conf; do
		if grep -qsE 'nvgrace[-_]gpu[-_]vfio[-_]pci' "$file"; then
			inst_simple "${file#"${dracutsysrootdir-}"}"
		fi
	done
}
