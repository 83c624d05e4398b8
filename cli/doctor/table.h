/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All findings, in the order of docs/doctor.md: FINDING(NAME, id, explanation),
 * and below it its cases, CASE(NAME, CASE, VERDICT, when, remedy). A check
 * enters the case NAME_CASE. explain.h and explain.c include this for the enums,
 * the program and the document.
 *
 * Texts are Markdown. A command stands in backticks, for which the program
 * prints quotation marks. It prints a GPU's address for ADDRESS, and the checks
 * fill in other words. The findings from DEVICE on are those of each GPU.
 */
#define COPY_CONFIG \
	"copy the kernel's configuration to `/boot/config-RELEASE`, or bind a GPU, so that the module reports its features"
#define SCRUB_LINE "`echo 'options nvgrace_gpu_vfio_pci scrub=1' > /etc/modprobe.d/nvgrace-gpu.conf`"
#define SCRUB_NOW "`echo 1 > /sys/module/nvgrace_gpu_vfio_pci/parameters/scrub`"
#define RESET_AND_SCRUB \
	"run `echo 1 > /sys/bus/pci/devices/ADDRESS/reset`, then `nvgrace-gpu scrub ADDRESS`; if that does not help, power-cycle the host"

FINDING(GPUS, "gpus",
	"GPUs with an id that a line `id` of the configuration (nvgrace-gpu.conf(5)) adds, or that "
	"the driver supports: GPU_IDS.")
CASE(GPUS, GOOD, GOOD, "there is at least one", NULL)
CASE(GPUS, RUBIN, NOTE, "a GPU is of Vera Rubin, which needs no variant driver",
     "assign it with vfio-pci")
CASE(GPUS, NEW_ID, WARNING,
     "a GPU has an id that NVIDIA's firmware treats as one with coherent memory, ACPI has the properties of such memory, and the driver lacks the id",
     "run `echo 'id 10de:XXXX' >> /etc/nvgrace-gpu.conf.d/ids.conf` and `nvgrace-gpu bind --persist ADDRESS`, and report the id")
CASE(GPUS, NONE, BAD, "there is none",
     "run `lspci -nn -d 10de:`; if a GPU is missing, power-cycle the host")
CASE(GPUS, ONLY_RUBIN, BAD, "there is only one of Vera Rubin",
     "remove this project's packages: this driver does not support the GPUs of this host")

FINDING(KERNEL, "kernel", "")
CASE(KERNEL, GOOD, GOOD,
     "Linux 6.1 or later on aarch64; or an older one for which the module is built", NULL)
CASE(KERNEL, OLDER, WARNING, "older, but with vfio-pci-core, like some vendor kernels",
     "if DKMS does not build for this kernel, run `make modules` in the module's source, which tests the kernel itself")
CASE(KERNEL, NOT_ARM, WARNING, "not aarch64, where the module is only for tests",
     "run the doctor on the Grace host")
CASE(KERNEL, TOO_OLD, BAD, "older, and without vfio-pci-core",
     "install Linux 6.1 or later; with 6.17 or later, a guest gets the memory at full speed")
CASE(KERNEL, UNKNOWN, UNKNOWN, "`uname -r` has no number, as in an edited record",
     "record again with `--record`")

FINDING(VFIO, "vfio", "Whether the kernel has `CONFIG_VFIO_PCI_CORE`, which the module needs.")
CASE(VFIO, GOOD, GOOD, "it is set, or the module vfio_pci_core is loaded", NULL)
CASE(VFIO, NONE, BAD, "it isn't set",
     "boot a kernel with `CONFIG_VFIO_PCI_CORE`, such as a server kernel of Debian or RHEL")
CASE(VFIO, UNKNOWN, UNKNOWN,
     "there is no configuration of the kernel in `/boot/config-RELEASE`, `/lib/modules/RELEASE/config` or `/proc/config.gz`",
     COPY_CONFIG)

FINDING(DMA_BACKEND, "dma-backend",
	"Whether the kernel has type1 (`/dev/vfio/vfio`) or iommufd (`/dev/iommu`), with which a VMM "
	"maps the guest's memory for DMA. Some vendor kernels have only iommufd. Without vfio's "
	"dma-buf export (Linux 6.19 or later), iommufd can't map GPU memory (EFAULT).")
CASE(DMA_BACKEND, GOOD, GOOD, "the kernel has type1; or it has iommufd and dma-buf export", NULL)
CASE(DMA_BACKEND, NO_PEERS, NOTE,
     "it has only iommufd, without dma-buf export: other devices of a guest can't do DMA to GPU memory",
     "use QEMU with `-object iommufd` and accept that, or boot a kernel with `CONFIG_VFIO_IOMMU_TYPE1` or `CONFIG_VFIO_PCI_DMABUF`")
CASE(DMA_BACKEND, PATCHED, NOTE,
     "it has no dma-buf export, and by its name it is NVIDIA's (`-nvidia`, 6.11 or later), whose iommufd maps GPU memory by a patch",
     "try DMA of GPU memory in a guest before you rely on it, for instance by a program of CUDA")
CASE(DMA_BACKEND, NONE, BAD, "it has neither",
     "boot a kernel with `CONFIG_VFIO_IOMMU_TYPE1`, or with `CONFIG_IOMMUFD` and `CONFIG_VFIO_DEVICE_CDEV`")
CASE(DMA_BACKEND, NO_ATS, BAD,
     "guests with the bound GPUs get an accelerated SMMUv3 with ATS (finding `guest-smmu`), and the kernel has no dma-buf export: the GPU can't access its own memory through a guest's addresses",
     "boot Linux 6.19 or later with `CONFIG_VFIO_PCI_DMABUF`, or make guests with `nvgrace-gpu guest --accel-smmu=off`")
CASE(DMA_BACKEND, UNKNOWN, UNKNOWN, "there is no configuration of the kernel", COPY_CONFIG)

FINDING(HUGE_MAPPINGS, "huge-mappings",
	"Which page-table entries map GPU memory. The loaded module's features say so, or else "
	"`CONFIG_ARCH_SUPPORTS_PMD_PFNMAP` and `CONFIG_ARCH_SUPPORTS_PUD_PFNMAP`.")
CASE(HUGE_MAPPINGS, GOOD, GOOD, "PMD or PUD entries map it", NULL)
CASE(HUGE_MAPPINGS, NONE, NOTE,
     "it is mapped page by page: the first touch of all memory takes long, and TLB misses cost more",
     "boot Linux 6.12 or later, or a kernel with 64K pages")
CASE(HUGE_MAPPINGS, UNKNOWN, UNKNOWN,
     "the module is not loaded, and there is no configuration of the kernel", COPY_CONFIG)

FINDING(RESETS, "resets",
	"Whether a reset removes the mappings of GPU memory, so that the next access waits until "
	"the memory is ready. vfio-pci-core does so in Linux 6.10 or later. On older kernels the "
	"module does it, and its `features` have the word `zap`.")
CASE(RESETS, GOOD, GOOD, "it does", NULL)
CASE(RESETS, MAPPINGS_SURVIVE, WARNING,
     "the loaded module can't: a guest that does not wait reads all ones and loses writes",
     "update nvgrace-gpu-vfio-pci-dkms, or boot Linux 6.10 or later")
CASE(RESETS, UNKNOWN, UNKNOWN, "the kernel is older than 6.10, and no module is loaded",
     "bind a GPU, then check again")

FINDING(MEMORY_ERRORS, "memory-errors",
	"Whether the kernel reports an uncorrected error in GPU memory to the guest (Linux 6.19 or "
	"later with `CONFIG_MEMORY_FAILURE`).")
CASE(MEMORY_ERRORS, GOOD, GOOD, "it does", NULL)
CASE(MEMORY_ERRORS, ONLY_LOGGED, NOTE, "only the host's log shows it",
     "boot Linux 6.19 or later with `CONFIG_MEMORY_FAILURE`, or watch the host's log for `Memory failure`")
CASE(MEMORY_ERRORS, UNKNOWN, UNKNOWN,
     "the kernel is 6.19 or later, the module is not loaded, and there is no configuration of the kernel",
     COPY_CONFIG)

FINDING(PEER_TO_PEER, "peer-to-peer",
	"Whether GPU memory can be exported as dma-buf, so that other devices can do DMA to it with "
	"iommufd (Linux 6.19 or later with `CONFIG_VFIO_PCI_DMABUF`, and QEMU 11.0 or later).")
CASE(PEER_TO_PEER, GOOD, GOOD, "it can", NULL)
CASE(PEER_TO_PEER, NONE, NOTE, "it can't",
     "boot Linux 6.19 or later with `CONFIG_VFIO_PCI_DMABUF`, or use type1 if a guest needs it")
CASE(PEER_TO_PEER, UNKNOWN, UNKNOWN,
     "the module is not loaded, and there is no configuration of the kernel", COPY_CONFIG)

FINDING(DMABUF_FIXES, "dma-buf-fixes",
	"Only for Linux 6.19 to 7.1 with dma-buf export: fixes of September 2026, which "
	"distributions may have added. The list is https://github.com/NVIDIA/NV-Kernels/pull/584.")
CASE(DMABUF_FIXES, UNSEEN, NOTE, "by its version, the kernel may lack them",
     "boot Linux 7.2 or later, or look for the list's titles in the changelog of the kernel's package")

FINDING(KERNEL_OPTIONS, "kernel-options",
	"Whether the kernel has the options for the changes that NVIDIA lists for hosts of guests "
	"(`grace-iov.txt` of https://github.com/NVIDIA/nvidia-kernel-patches-verification): errors "
	"in GPU memory reach the guest (`MEMORY_FAILURE`), iommufd (`IOMMUFD`, "
	"`VFIO_DEVICE_CDEV`), an accelerated SMMUv3 (`ARM_SMMU_V3_IOMMUFD`), DMA to GPU memory "
	"through iommufd (`PCI_P2PDMA`, `VFIO_PCI_DMABUF`) and vCMDQ (`TEGRA241_CMDQV`). Other "
	"findings say what follows for the GPUs of this host. Only if there is a configuration of "
	"the kernel.")
CASE(KERNEL_OPTIONS, GOOD, GOOD, "it has all", NULL)
CASE(KERNEL_OPTIONS, MISSING, NOTE, "it lacks some",
     "if guests need what they are for, boot a kernel that has them")

FINDING(IN_TREE_DRIVER, "in-tree-driver",
	"Whether the kernel has a driver of the same name. Without a configuration of the kernel, "
	"there is no such finding.")
CASE(IN_TREE_DRIVER, GOOD, GOOD,
     "it has none; or its driver is a module, and modprobe prefers DKMS's", NULL)
CASE(IN_TREE_DRIVER, EGM_LOADED, NOTE,
     "that driver is loaded: guests get EGM, and this module's own features are not there",
     "nothing, if guests need EGM; or, if you want this module's features, write `BUILD_EXCLUSIVE_CONFIG=\"CONFIG_VFIO_PCI_CORE\"` into `/etc/dkms/nvgrace-gpu-vfio-pci.conf`, run `dkms autoinstall` and reboot")
CASE(IN_TREE_DRIVER, EGM, WARNING,
     "it has NVIDIA's extended GPU memory (`CONFIG_NVGRACE_EGM`), which this module lacks: DKMS does not build for that kernel",
     "use the kernel's own module; or, if you don't need EGM, write `BUILD_EXCLUSIVE_CONFIG=\"CONFIG_VFIO_PCI_CORE\"` into `/etc/dkms/nvgrace-gpu-vfio-pci.conf` and run `dkms autoinstall`")
CASE(IN_TREE_DRIVER, BUILT_IN, BAD, "it is built in: no module can replace it",
     "use the built-in driver, or boot a kernel that has it as a module or lacks it")

FINDING(MODULE, "module",
	"Which copy of the module modprobe would load, according to libkmod. DKMS's copy is in "
	"`updates/dkms/`, or in `extra/` on RHEL.")
CASE(MODULE, GOOD, GOOD,
     "DKMS's, or another one outside `kernel/`; or the driver is built in (see in-tree-driver)",
     NULL)
CASE(MODULE, IN_TREE, WARNING, "the kernel's own",
     "if you need DKMS's: install nvgrace-gpu-vfio-pci-dkms, install the headers of Linux RELEASE, then run `dkms status`")
CASE(MODULE, NOT_INSTALLED, BAD, "none, and DKMS does not have its source",
     "run `apt install nvgrace-gpu-vfio-pci-dkms` or `dnf install nvgrace-gpu-vfio-pci-dkms`")
CASE(MODULE, NO_PACKAGE, BAD, "none, on a host with packages of the built module",
     "install nvgrace-gpu-vfio-pci-modules-RELEASE, which `make module-packages` builds; or boot a kernel that has it")
CASE(MODULE, NOT_BUILT, BAD, "none, although DKMS has its source",
     "install the headers of Linux RELEASE, then run `dkms autoinstall -k RELEASE`; errors are in `/var/lib/dkms/nvgrace-gpu-vfio-pci/*/build/make.log`")
CASE(MODULE, OF_OTHER_KERNEL, BAD, "one that was built for another kernel",
     "run `dkms uninstall nvgrace-gpu-vfio-pci/VERSION -k RELEASE`, then `dkms autoinstall -k RELEASE`")
CASE(MODULE, MASKED, BAD,
     "none, because `/etc/modprobe.d` has an `install` line for the module",
     "find it with `grep -r 'install.*nvgrace' /etc/modprobe.d` and remove the line")
CASE(MODULE, BLACKLISTED, BAD,
     "none, because the kernel's command line has `module_blacklist=` with its name",
     "remove the module from `module_blacklist=` in the boot loader's configuration, and reboot")
CASE(MODULE, UNKNOWN, UNKNOWN, "`/lib/modules/RELEASE` has no index", "run `depmod -a`")

FINDING(HEADERS, "headers",
	"Whether DKMS can build the module for the running kernel. Only if DKMS has the module's "
	"source and builds for this kernel. The remedy names the package for this distribution and "
	"kernel flavour, such as `kernel-64k-devel-5.14.0-570.el9.aarch64`.")
CASE(HEADERS, GOOD, GOOD, "`/lib/modules/RELEASE/build/Makefile` exists", NULL)
CASE(HEADERS, MISSING_LATER, NOTE,
     "it doesn't, but the module is built: DKMS can't build a later version",
     "install the headers of Linux RELEASE, then run `dkms autoinstall -k RELEASE`")
CASE(HEADERS, MISSING, WARNING, "it doesn't, and the module is not built",
     "install the headers of Linux RELEASE, then run `dkms autoinstall -k RELEASE`")

FINDING(MODULE_ALIAS, "module-alias",
	"Whether modules.alias has the module for these GPUs (`vfio_pci:v000010DEd00002342...`). "
	"libvirt 10.0 or later and KubeVirt's helpers find the variant driver there. Only if there "
	"is a module to load.")
CASE(MODULE_ALIAS, GOOD, GOOD, "it has the module", NULL)
CASE(MODULE_ALIAS, ADDED_ID, NOTE, "a GPU has an id that only the configuration has",
     "use `managed='no'` and `nvgrace-gpu bind --persist`, or `<driver model='nvgrace_gpu_vfio_pci'/>` in libvirt's `<hostdev>`")
CASE(MODULE_ALIAS, NONE, WARNING,
     "it lacks the module: they bind vfio-pci, and the guest gets a GPU without memory",
     "run `depmod -a`; if that does not help, reinstall nvgrace-gpu-vfio-pci-dkms")

FINDING(MODULE_LOADED, "module-loaded",
	"Only if a module of this name is loaded: whether it is the copy that modprobe would load "
	"now. The kernel's own driver has the same name, but no file `features`. The kernel's "
	"`taint` flags show whether such a driver was built outside the kernel's tree.")
CASE(MODULE_LOADED, GOOD, GOOD,
     "it is that copy, and the finding lists its features on this kernel; or it is NVIDIA's own driver with extended GPU memory, on a kernel that DKMS leaves alone",
     NULL)
CASE(MODULE_LOADED, OTHER, WARNING,
     "it is the kernel's own driver or another driver of this name, and modprobe would not load this project's module",
     "see the finding `module`")
CASE(MODULE_LOADED, OUTDATED, WARNING,
     "it is such a driver or another build (srcversion), and modprobe would load this project's module now",
     "when no guest has a GPU, run `nvgrace-gpu unbind --all`, `modprobe -r nvgrace_gpu_vfio_pci` and `nvgrace-gpu bind ADDRESS...`; or reboot, with an initramfs that has the module (see the finding `initramfs`)")

FINDING(SCRUBBING, "scrubbing",
	"Only if a module of this name is loaded: whether its parameter `scrub` is on, so that it "
	"overwrites GPU memory with zeros after binding and after each guest, and whether the "
	"parameter will be on after the next boot. libkmod reads the latter from `/etc/modprobe.d` "
	"and the kernel's command line.")
CASE(SCRUBBING, GOOD, GOOD, "the parameter is on, and will be on, as far as that is known", NULL)
CASE(SCRUBBING, OFF, NOTE, "it is off: the next guest can read what the last one left",
     "run " SCRUB_LINE " and update the initramfs, then " SCRUB_NOW "; or run `nvgrace-gpu scrub ADDRESS` before each guest")
CASE(SCRUBBING, NO_PARAMETER, NOTE, "the loaded module does not have it",
     "clear the memory with another driver before another owner's guest gets it; or load a later module (see the finding `module-loaded`)")
CASE(SCRUBBING, OFF_AT_BOOT, WARNING, "it is on, but will be off after the next boot",
     "run " SCRUB_LINE " and update the initramfs")
CASE(SCRUBBING, OFF_NOW, WARNING,
     "it is off, although a line in `/etc/modprobe.d` or the command line turns it on",
     "run " SCRUB_NOW "; if it is off after the next boot, the initramfs has another configuration: update it")

FINDING(MODULE_SIGNATURE, "module-signature",
	"Whether the kernel accepts the module's signature. Lockdown, which Secure Boot turns on, "
	"and `module.sig_enforce` enforce signatures. Only if there is a module to load.")
CASE(MODULE_SIGNATURE, GOOD, GOOD,
     "the module is loaded; or signatures are not enforced; or the kernel has the signer's key",
     NULL)
CASE(MODULE_SIGNATURE, NONE, BAD, "the module is not signed",
     "have DKMS sign it: set `mok_signing_key` in `/etc/dkms/framework.conf`, run `dkms build --force nvgrace-gpu-vfio-pci/VERSION` and `mokutil --import /var/lib/dkms/mok.pub`, reboot, and enroll the key")
CASE(MODULE_SIGNATURE, NO_KEY, BAD,
     "the kernel does not have its signer's key (\"Key was rejected by service\")",
     "run `mokutil --import /var/lib/dkms/mok.pub` (on Ubuntu `/var/lib/shim-signed/mok/MOK.der`), reboot, and choose \"Enroll MOK\" on the console")
CASE(MODULE_SIGNATURE, NOT_TRUSTED, BAD,
     "the key is enrolled (MokListRT) but not trusted for modules",
     "reboot; if that does not help, run `mokutil --trust-mok`, reboot, and confirm; the kernel also needs `CONFIG_INTEGRITY_MACHINE_KEYRING`")
CASE(MODULE_SIGNATURE, PLATFORM, UNKNOWN,
     "the kernel has its signer's key, but perhaps only in the keyring `.platform`, which modules are not checked against",
     "run `modprobe nvgrace-gpu-vfio-pci`; if that ends with \"Key was rejected by service\", run `mokutil --trust-mok`, reboot, and confirm; the kernel also needs `CONFIG_INTEGRITY_MACHINE_KEYRING`")
CASE(MODULE_SIGNATURE, UNKNOWN, UNKNOWN, "only root can see the kernel's keys", "run as root")

FINDING(IOMMU, "iommu", "")
CASE(IOMMU, GOOD, GOOD, "there is an IOMMU, or there are IOMMU groups", NULL)
CASE(IOMMU, NONE, BAD, "there is none: vfio can't use any device",
     "turn on the SMMU, or on x86 the IOMMU (VT-d, AMD-Vi), in the firmware's setup; remove kernel parameters that turn it off")

FINDING(GUEST_SMMU, "guest-smmu",
	"Whether guests can have an accelerated SMMUv3, which uses the host's in hardware, for the "
	"GPUs that are bound with memory. It needs QEMU 11.0, iommufd, "
	"`CONFIG_ARM_SMMU_V3_IOMMUFD` (Linux 6.13 or later), and GPUs that are behind an SMMUv3 and "
	"alone in their IOMMU groups. Only on Arm.")
CASE(GUEST_SMMU, GOOD, GOOD,
     "they can, with vCMDQ (`CONFIG_TEGRA241_CMDQV`) and dma-buf export", NULL)
CASE(GUEST_SMMU, SLOW, NOTE,
     "they can, but the kernel has no driver of vCMDQ: each invalidation of a guest's SMMU leaves the guest; or it has no dma-buf export",
     "boot Linux 6.19 or later with `CONFIG_TEGRA241_CMDQV` and `CONFIG_VFIO_PCI_DMABUF`")
CASE(GUEST_SMMU, NONE, NOTE,
     "they can't: the GPU has no ATS and no shared virtual addressing there. KubeVirt needs such an SMMU for these GPUs",
     "none is needed without ATS, shared virtual addressing and KubeVirt; for these, use QEMU 11.0 and Linux 6.19 or later with `CONFIG_ARM_SMMU_V3_IOMMUFD`, `CONFIG_TEGRA241_CMDQV` and `CONFIG_VFIO_PCI_DMABUF`")

FINDING(KVM, "kvm", "")
CASE(KVM, GOOD, GOOD, "KVM can create a VM", NULL)
CASE(KVM, NONE, BAD,
     "there is no /dev/kvm, or it can't create a VM: the kernel was not booted at EL2, has no `CONFIG_KVM`, or has the parameter `kvm-arm.mode=none`",
     "run `dmesg | grep -i kvm`; boot the kernel at EL2, outside a guest, and without that parameter")
CASE(KVM, UNKNOWN, UNKNOWN, "this user may not open /dev/kvm",
     "run as root, or as a member of the group kvm")

FINDING(KVM_USEMEM, "kvm-usemem",
	"How KVM maps usemem (BAR4) in a guest. "
	"[guests.md](guests.md#what-a-guest-gets-on-which-host) explains the kinds of memory and "
	"the capability that the doctor checks. Without access to KVM, the doctor finds out from "
	"the kernel's log and CTR_EL0 whether the CPU has FEAT_S2FWB and CACHE_DIC, as Grace has. A "
	"vendor's kernel older than 6.17 may have the backport, and then refuses the memory on a CPU "
	"that lacks one of the two. Its version does not show that, so the finding is a note. Only "
	"on Arm.")
CASE(KVM_USEMEM, GOOD, GOOD, "write-back", NULL)
CASE(KVM_USEMEM, DEVICE, NOTE, "as Device memory: the kernel is older than 6.17",
     "boot Linux 6.17 or later on the host, or a vendor kernel with the backport")
CASE(KVM_USEMEM, REFUSED, BAD, "not at all: the CPU lacks FEAT_S2FWB or CACHE_DIC",
     "run guests on a CPU that has FEAT_S2FWB and CACHE_DIC, such as Grace, and not inside another guest")
CASE(KVM_USEMEM, UNKNOWN, UNKNOWN, "KVM can't be opened",
     "run as root, or as a member of the group kvm")

FINDING(KVM_RESMEM, "kvm-resmem",
	"How KVM maps resmem (BAR2) in a guest, if a GPU has it. The loaded module's features say "
	"so, or else the kernel's version "
	"([guests.md](guests.md#what-a-guest-gets-on-which-host)). Only on Arm.")
CASE(KVM_RESMEM, GOOD, GOOD, "Normal, non-cacheable (Normal-NC)", NULL)
CASE(KVM_RESMEM, DEVICE, NOTE, "as Device memory", "boot Linux 6.9 or later on the host")

FINDING(KVM_ADDRESSES, "kvm-addresses",
	"Whether guest-physical addresses have enough bits (KVM_CAP_ARM_VM_IPA_SIZE) for the BARs of "
	"all bound GPUs in one guest. QEMU needs 40 bits for up to 512 GiB, and one more for each "
	"doubling. Only on Arm, if KVM can be opened.")
CASE(KVM_ADDRESSES, GOOD, GOOD, "they have enough", NULL)
CASE(KVM_ADDRESSES, TOO_FEW, WARNING,
     "they have too few: one guest can't have all of these GPUs", "assign fewer GPUs to each guest")

FINDING(MEMORY_ONLINE, "memory-online",
	"Whether GPU memory is online as System RAM of this host: \"System RAM (NVIDIA)\" in "
	"/proc/iomem. The driver refuses such a GPU, because host RAM must never reach a guest. The "
	"finding names a NUMA node only if the nvidia driver or the addresses of the node's memory "
	"blocks show that the node holds only this GPU's memory.")
CASE(MEMORY_ONLINE, GOOD, GOOD, "no GPU memory is online", NULL)
CASE(MEMORY_ONLINE, USED, WARNING,
     "some is online, and a GPU is bound to the nvidia driver: the host may use it",
     "for a GPU that you want to assign to a guest: stop what uses it, also the services that the finding `services` names, run `modprobe -r MODULES`, then `nvgrace-gpu bind --persist ADDRESS`")
CASE(MEMORY_ONLINE, LEFT_IN_NODE, BAD,
     "some is online, and no GPU is bound to the nvidia driver: it is left over in a NUMA node that holds only this GPU's memory",
     "run `nvgrace-gpu bind --dry-run ADDRESS`, which prints how to take it offline; or reboot")
CASE(MEMORY_ONLINE, LEFT, BAD, "some is online, and no GPU is bound to the nvidia driver: it is left over, and it is not known in which node",
     "reboot: it is not known which memory blocks are the GPU's, and taking others offline takes RAM from the host")
CASE(MEMORY_ONLINE, UNKNOWN, UNKNOWN, "/proc/iomem can't be read",
     "run as root, outside a container")

FINDING(SERVICES, "services",
	"Whether one of NVIDIA's services nvidia-persistenced, nv-fabricmanager, nv-hostengine "
	"(DCGM), nvsm_core and nvidia-imex, which keep GPUs of the nvidia driver open, is running.")
CASE(SERVICES, GOOD, GOOD, "none runs, or no GPU is bound to the nvidia driver", NULL)
CASE(SERVICES, RUN, WARNING, "one runs, and a GPU is bound to the nvidia driver",
     "before you bind, stop them: `systemctl stop UNITS`")

FINDING(QEMU, "qemu",
	"The version of each of `/usr/bin/qemu-system-aarch64`, `/usr/libexec/qemu-kvm` and "
	"`/usr/local/bin/qemu-system-aarch64`. For the reasons, see "
	"[guests.md](guests.md#what-the-host-needs).")
CASE(QEMU, GOOD, GOOD, "it has all that these GPUs need", NULL)
CASE(QEMU, OLD, WARNING,
     "older than 9.2 (RHEL has a backport); or without highmem-mmio-size, which 10.0 added, and the BARs of all bound GPUs need a window of more than 512 GiB",
     "install QEMU 10.0 or later")
CASE(QEMU, TOO_OLD, BAD, "without acpi-generic-initiator, which 9.0 added",
     "install QEMU 10.0 or later")
CASE(QEMU, UNKNOWN, UNKNOWN, "its version is not known", "use 10.0 or later")
CASE(QEMU, NONE, UNKNOWN, "there is no QEMU in these places, as with VMMs in containers",
     "run it with `--version`; use 10.0 or later")

FINDING(LIBVIRT, "libvirt",
	"The version of `/usr/sbin/virtqemud` and `/usr/sbin/libvirtd`. No finding if neither "
	"exists.")
CASE(LIBVIRT, GOOD, GOOD,
     "10.0 or later: with `managed='yes'` it finds the variant driver in modules.alias", NULL)
CASE(LIBVIRT, OLD, WARNING,
     "older than 10.0: with `managed='yes'` it binds vfio-pci, and the guest gets a GPU without memory",
     "install libvirt 10.0 or later, or use `managed='no'` and `nvgrace-gpu bind --persist`")
CASE(LIBVIRT, UNKNOWN, UNKNOWN, "its version is not known", "use 10.0 or later")

FINDING(MEMLOCK, "memlock",
	"Only for users other than root: how much memory their programs may lock. A VMM locks all "
	"of the guest's RAM.")
CASE(MEMLOCK, GOOD, GOOD, "any amount", NULL)
CASE(MEMLOCK, LIMITED, WARNING, "a limited amount",
     "raise `memlock` for this user in `/etc/security/limits.d`, and log in again")

FINDING(CONFIGURATION, "configuration",
	"The lines of `/etc/nvgrace-gpu.conf` and of `*.conf` in `/etc/nvgrace-gpu.conf.d`: see "
	"nvgrace-gpu.conf(5). There is a finding for each line that isn't good.")
CASE(CONFIGURATION, GOOD, GOOD, "all lines are well-formed, and each matches a present GPU", NULL)
CASE(CONFIGURATION, IGNORED, WARNING,
     "a line is malformed, and ignored; or a file can't be read",
     "correct or remove it; see nvgrace-gpu.conf(5)")
CASE(CONFIGURATION, NO_MATCH, WARNING, "a line matches no present GPU",
     "remove the line if the GPU does not come back; `nvgrace-gpu list` shows the present GPUs")
CASE(CONFIGURATION, BAD_NAME, WARNING, "a file is ignored because of its name",
     "rename or remove it")

FINDING(BOOT_RULE, "boot-rule",
	"Only if the configuration binds a GPU: whether the udev rule and its program are "
	"installed.")
CASE(BOOT_RULE, GOOD, GOOD, "both are installed", NULL)
CASE(BOOT_RULE, MISSING, BAD, "one is missing: no GPU is bound at boot",
     "run `apt install --reinstall nvgrace-gpu-vfio-pci-dkms` or `dnf reinstall nvgrace-gpu-vfio-pci-dkms`")
CASE(BOOT_RULE, MASKED, BAD,
     "a file, such as one in `/etc/udev/rules.d`, masks the rule: no GPU is bound at boot",
     "remove that file")

FINDING(INITRAMFS, "initramfs",
	"Whether the initramfs of each kernel has the rule, its program, the module and the "
	"directives that are installed: the next boot begins with what the initramfs has. The "
	"doctor looks where dracut, kernel-install and initramfs-tools put images, and unpacks them "
	"with `unmkinitramfs` or `lsinitrd`. It checks an image only if "
	"initramfs-tools or dracut would put this project's parts into it, or if it has directives. "
	"Comments and the order of lines don't matter. There is a finding for each image that isn't "
	"good.")
CASE(INITRAMFS, GOOD, GOOD,
     "the image has them; or the configuration binds no GPU, and neither does the image", NULL)
CASE(INITRAMFS, OUTDATED, WARNING,
     "it lacks the rule or the module; or it has other directives, another build of the module (srcversion), or the kernel's own copy; or it binds a GPU that the configuration no longer binds",
     "run `update-initramfs -u -k RELEASE`, `dracut --force --kver RELEASE` or `kernel-install add RELEASE /lib/modules/RELEASE/vmlinuz`")
CASE(INITRAMFS, UNREADABLE, UNKNOWN, "it can't be read, and root does not run the doctor",
     "run as root")
CASE(INITRAMFS, NONE, UNKNOWN,
     "no image of an installed kernel is known",
     "if the kernel boots with an initramfs, update it with the program that made it, and list it: `lsinitrd IMAGE | grep nvgrace`")
CASE(INITRAMFS, UNKNOWN, UNKNOWN,
     "`unmkinitramfs` and `lsinitrd` are missing, can't unpack it, or show only a part of it",
     "look for nvgrace in what `lsinitramfs IMAGE`, `lsinitrd IMAGE` or the program that made it lists")

FINDING(EGM, "egm",
	"Whether firmware sets a part of the CPU's memory aside for guests, extended GPU memory "
	"(EGM), by the property `nvidia,egm-size` in the DSDT or an SSDT. Only if a table has that "
	"property.")
CASE(EGM, GOOD, GOOD, "it sets none aside", NULL)
CASE(EGM, GIVEN, GOOD, "it does, and the driver of this kernel gives it to guests", NULL)
CASE(EGM, UNUSED, NOTE,
     "it does: this driver gives guests no EGM, and the host does not use it",
     "turn EGM off in the firmware's setup, or use a kernel with `CONFIG_NVGRACE_EGM` and its own driver")

FINDING(GUEST, "guest",
	"Only in a guest with GPUs, which have their memory in BAR4. There are then only these "
	"findings, [The guest's system](guests.md#the-guests-system) explains them.")
CASE(GUEST, GOOD, GOOD, "the machine is such a guest", NULL)
CASE(GUEST, NO_MEMORY, BAD,
     "it is a virtual machine, and a GPU has no memory in BAR4 or in ACPI: the host has assigned it by vfio-pci, or the window for BARs is too small",
     "on the host, run `nvgrace-gpu bind --persist` for this GPU, and start the guest with what `nvgrace-gpu guest` prints")

FINDING(GUEST_KERNEL, "guest-kernel",
	"In a guest: whether its kernel has `CONFIG_MEMORY_HOTPLUG`, and behind an SMMU also "
	"`CONFIG_ARM_SMMU_V3_SVA`, `CONFIG_DEVICE_PRIVATE` and `CONFIG_DEVICE_MIGRATION`, as "
	"NVIDIA's list for Grace says (grace-baremetal-kernel-config.txt of "
	"https://github.com/NVIDIA/nvidia-kernel-patches-verification).")
CASE(GUEST_KERNEL, GOOD, GOOD, "it has them", NULL)
CASE(GUEST_KERNEL, LACKS, WARNING, "it lacks some",
     "boot a kernel with these options, or on the host make the guest with `nvgrace-gpu guest --accel-smmu=off`")
CASE(GUEST_KERNEL, UNKNOWN, UNKNOWN, "there is no configuration of the kernel",
     "copy the kernel's configuration to `/boot/config-RELEASE`")

FINDING(GUEST_NODES, "guest-nodes",
	"In a guest: whether there are eight NUMA nodes without processors for each GPU.")
CASE(GUEST_NODES, GOOD, GOOD, "there are", NULL)
CASE(GUEST_NODES, FEW, WARNING, "there are fewer",
     "on the host, make the guest with `nvgrace-gpu guest`, which prints them")

FINDING(GUEST_ONLINING, "guest-onlining",
	"In a guest: as what its kernel onlines memory that NVIDIA's driver adds.")
CASE(GUEST_ONLINING, GOOD, GOOD, "as movable memory, or not by itself", NULL)
CASE(GUEST_ONLINING, WRONG, WARNING, "as memory for itself, too",
     "boot the guest with `memhp_default_state=online_movable`")

FINDING(GUEST_MEMORY, "guest-memory", "In a guest: whether GPU memory is online.")
CASE(GUEST_MEMORY, GOOD, GOOD, "it is", NULL)
CASE(GUEST_MEMORY, NONE, NOTE, "it isn't",
     "load NVIDIA's driver, for instance by `nvidia-smi`; if it manages the memory itself (`NVreg_CoherentGPUMemoryMode=driver`), this is right")

FINDING(GUEST_DRIVER, "guest-driver", "In a guest: the driver of a GPU.")
CASE(GUEST_DRIVER, GOOD, GOOD, "it is NVIDIA's", NULL)
CASE(GUEST_DRIVER, CLOSED, BAD,
     "its closed kernel modules, which do not support these GPUs (`/proc/driver/nvidia/version`)",
     "install NVIDIA's open kernel modules instead")
CASE(GUEST_DRIVER, OTHER, NOTE, "it has none, or another one",
     "install NVIDIA's driver with the open kernel modules")

FINDING(ACCEPTED, "accepted",
	"Only if `/etc/nvgrace-gpu.accept` exists: see [Monitoring](#monitoring).")
CASE(ACCEPTED, GOOD, GOOD, "each line accepts a finding", NULL)
CASE(ACCEPTED, NOTHING, NOTE,
     "a line accepts nothing, because the finding is gone or is worse now",
     "remove the line if it is no longer needed")
CASE(ACCEPTED, IGNORED, WARNING, "a line is malformed", "correct or remove the line")
CASE(ACCEPTED, UNREADABLE, WARNING, "the file can't be read",
     "replace it with a file that has lines of the form FINDING VERDICT [ADDRESS|host], such as `qemu warning`")

FINDING(DEVICE, "device", "")
CASE(DEVICE, GOOD, GOOD, "it answers", NULL)
CASE(DEVICE, GONE, BAD,
     "its configuration space reads as all ones: it is no longer on the bus",
     "power-cycle the host; if that does not help, the hardware is broken")

FINDING(PCI_ERRORS, "pci-errors",
	"The kernel's counts of uncorrected PCIe errors (AER) since boot. Linux 7.3 or later also "
	"counts advisory errors, which a device reports as corrected.")
CASE(PCI_ERRORS, GOOD, GOOD, "none", NULL)
CASE(PCI_ERRORS, COUNTED, WARNING, "at least one",
     "run `dmesg | grep AER`; if more errors follow, have the hardware checked")

FINDING(FIRMWARE, "firmware",
	"Whether firmware reports where the GPU's memory is. For a bound GPU, the driver's `mode` "
	"says so. For other GPUs, the doctor checks that there is ACPI, that the device has an ACPI "
	"object, and that the DSDT or an SSDT has the properties `nvidia,gpu-mem-base-pa` and "
	"`nvidia,gpu-mem-size`. Only the driver checks that they belong to this device.")
CASE(FIRMWARE, GOOD, GOOD, "it does", NULL)
CASE(FIRMWARE, CORE_ONLY, WARNING,
     "the GPU is bound as a plain PCI device (`core-only`), which is correct in a guest only",
     "on a host, update the system firmware; in a guest, this is correct")
CASE(FIRMWARE, NO_ACPI, BAD, "the kernel runs without ACPI", "boot with UEFI and without `acpi=off`")
CASE(FIRMWARE, NO_OBJECT, BAD, "the device has no ACPI object", "update the system firmware")
CASE(FIRMWARE, NO_PROPERTIES, BAD, "no table has both properties",
     "on a host, update the system firmware; in a guest, this is correct")
CASE(FIRMWARE, UNKNOWN, UNKNOWN, "only root can read ACPI tables", "run as root")

FINDING(IOMMU_GROUP, "iommu-group", "")
CASE(IOMMU_GROUP, GOOD, GOOD, "the GPU is alone in its group, or only with bridges", NULL)
CASE(IOMMU_GROUP, SHARED, WARNING,
     "other devices share the group: only the same guest can have them",
     "turn on ACS in the firmware's setup if other guests need these devices")
CASE(IOMMU_GROUP, USED, BAD,
     "a device in the group is bound to a host driver, so vfio refuses the group",
     "unbind that device from its driver, or move it to another slot")
CASE(IOMMU_GROUP, NONE, BAD, "the GPU is bound and in no group", "see the finding `iommu`")
CASE(IOMMU_GROUP, NONE_YET, UNKNOWN,
     "the GPU is in no group yet: some kernels create the group when a driver is bound",
     "run `nvgrace-gpu bind ADDRESS`, then check again")

FINDING(BINDING, "binding", "")
CASE(BINDING, GOOD, GOOD,
     "it is bound to nvgrace_gpu_vfio_pci; or the configuration does not bind it", NULL)
CASE(BINDING, VFIO_PCI, WARNING, "it is bound to vfio-pci: a guest gets it without memory",
     "run `nvgrace-gpu bind ADDRESS`")
CASE(BINDING, DRIVERCTL, WARNING, "driverctl binds it to another driver at every boot",
     "run `driverctl unset-override ADDRESS`, and then `nvgrace-gpu bind ADDRESS`")
CASE(BINDING, VFIO_PCI_IDS, WARNING,
     "it is bound to vfio-pci, whose parameter `ids` has its id: a guest gets it without memory",
     "remove the id from `vfio-pci.ids=` on the kernel's command line, or from `options vfio-pci ids=` in `/etc/modprobe.d`; then run `nvgrace-gpu bind ADDRESS`")
CASE(BINDING, OTHER, WARNING,
     "it is bound to another driver or none, although the configuration binds it at boot",
     "run `nvgrace-gpu bind ADDRESS`; if it was not bound at boot, see the findings `boot-rule` and `module`, and `journalctl -b | grep nvgrace`")
CASE(BINDING, REFUSED, BAD,
     "the driver refused it; the reason is the driver's line in the kernel's log",
     "fix this, then run `nvgrace-gpu bind ADDRESS`")

FINDING(OVERRIDE, "override", "")
CASE(OVERRIDE, GOOD, GOOD,
     "driver_override is empty, or names the driver to which the GPU is bound", NULL)
CASE(OVERRIDE, OTHER, WARNING, "it names another driver: only that driver can bind the GPU",
     "run `nvgrace-gpu bind ADDRESS` to bind it, or `nvgrace-gpu unbind ADDRESS` to clear the override")
CASE(OVERRIDE, HYPHENS, BAD,
     "it is `nvgrace-gpu-vfio-pci`, with hyphens: that is the name of the module; the driver's name has underscores",
     "run `nvgrace-gpu bind ADDRESS`, or `echo nvgrace_gpu_vfio_pci > /sys/bus/pci/devices/ADDRESS/driver_override`")

FINDING(READINESS, "readiness",
	"Whether the memory is ready. Only the driver reads that from the device. For a GPU that is "
	"not bound, the doctor reads the driver's last line in the kernel's log. Not for a GPU that "
	"is bound as a plain PCI device.")
CASE(READINESS, GOOD, GOOD,
     "the memory is ready; or the GPU was reset, and the next access waits until it is", NULL)
CASE(READINESS, FAILED, BAD, "a wait for the memory, or recovery from a PCIe error, failed",
     "run `echo 1 > /sys/bus/pci/devices/ADDRESS/reset`; if that does not help, power-cycle the host")
CASE(READINESS, REFUSED, BAD,
     "the driver refused the GPU, because the memory was not ready or the C2C link failed to train",
     "power-cycle the host: a C2C link that was not trained at boot is never trained later")
CASE(READINESS, UNBOUND, UNKNOWN, "the GPU is not bound",
     "run `nvgrace-gpu bind ADDRESS`, which waits until the memory is ready")
CASE(READINESS, UNKNOWN, UNKNOWN, "the loaded module does not report it",
     "see the finding `module-loaded`")

FINDING(SCRUB_STATE, "scrub-state",
	"Whether the memory holds data of its last user. Only if the driver reports a state other "
	"than `off`.")
CASE(SCRUB_STATE, GOOD, GOOD,
     "the memory is all zeros, and was not opened since; or it is being scrubbed; or the next open waits until it is scrubbed",
     NULL)
CASE(SCRUB_STATE, FAILED, WARNING, "the last scrub failed", RESET_AND_SCRUB)
CASE(SCRUB_STATE, CLOSED, BAD,
     "the last scrub failed and the parameter is on: opening the GPU fails until a scrub succeeds",
     RESET_AND_SCRUB)

FINDING(MEMORY_CLAIM, "memory-claim",
	"Only for a GPU that is bound with memory: whether the driver has claimed the memory in "
	"/proc/iomem.")
CASE(MEMORY_CLAIM, GOOD, GOOD, "both parts are claimed", NULL)
CASE(MEMORY_CLAIM, NONE, WARNING,
     "a part is not claimed, because something else has claimed the range",
     "read /proc/iomem as root, and report it with the output of `nvgrace-gpu doctor --record DIR`")

FINDING(ALIGNMENT, "alignment",
	"Only for a GPU that is bound with memory: whether the memory's address is aligned to the "
	"size of a PMD entry (2 MiB with 4K pages, 32 MiB with 16K, 512 MiB with 64K).")
CASE(ALIGNMENT, GOOD, GOOD, "it is", NULL)
CASE(ALIGNMENT, NONE, WARNING, "it is not: the memory is mapped page by page",
     "boot a kernel with another page size (4K pages need 2 MiB), or update the system firmware")
CASE(ALIGNMENT, UNKNOWN, UNKNOWN, "only root can see the address", "run as root")

#undef COPY_CONFIG
#undef SCRUB_LINE
#undef SCRUB_NOW
#undef RESET_AND_SCRUB
#undef FINDING
#undef CASE
