/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All findings, in the order of docs/doctor.md: FINDING(NAME, id, explanation), and
 * below it its cases, CASE(NAME, CASE, VERDICT, text, reason, remedy). A check reports
 * the case NAME_CASE. explain.h and explain.c include this for the enums, the program
 * and the document.
 *
 * Texts are Markdown. A command stands in backticks, for which the program prints
 * quotation marks, and what is in braces is replaced by what the check passes to
 * report(). The document has a word of these in capitals, and several as they are. The
 * findings from DEVICE on are those of each GPU.
 */
#define NO_CONFIG \
	"there is no configuration of this kernel in /boot/config-{release}, /lib/modules/{release}/config or /proc/config.gz"
#define COPY_CONFIG \
	"copy the kernel's configuration to `/boot/config-{release}`, or bind a GPU, so that the module reports its features"
#define SCRUB_LINE "`echo 'options nvgrace_gpu_vfio_pci scrub=1' > /etc/modprobe.d/nvgrace-gpu.conf`"
#define SCRUB_NOW "`echo 1 > /sys/module/nvgrace_gpu_vfio_pci/parameters/scrub`"
#define RESET_AND_SCRUB \
	"run `echo 1 > /sys/bus/pci/devices/{address}/reset`, then `nvgrace-gpu scrub {address}`; if that does not help, power-cycle the host"
#define HEADERS(kernel) \
	"install the headers of Linux " kernel ", and the package that brings them with each kernel (administration.md, \"Headers\")"

FINDING(GPUS, "gpus",
	"GPUs with an id that a line `id` of the configuration (nvgrace-gpu.conf(5)) adds, or that "
	"the driver supports: GPU_IDS.")
CASE(GPUS, GOOD, GOOD, "supported GPUs: {count}", NULL, NULL)
CASE(GPUS, NEW_ID, WARNING, "{gpu}: 10de:{id} is not an id of the driver",
     "NVIDIA's firmware treats it as a GPU with coherent memory, and ACPI has the properties of such memory: tools that choose the driver by modules.alias bind vfio-pci, and the guest gets a GPU without memory",
     "run `echo 'id 10de:{id}' >> /etc/nvgrace-gpu.conf.d/ids.conf` and `nvgrace-gpu bind --persist {gpu}`, and report the id")
CASE(GPUS, NONE, BAD, "no supported GPU", "no PCI device has one of the ids {ids}",
     "run `lspci -nn -d 10de:`; if a GPU is missing, power-cycle the host")
CASE(GPUS, OTHERS, BAD, "no supported GPU", "this driver is not for {gpu}, 10de:{id}{what}",
     "remove this project's packages, unless a GPU is missing in `lspci -nn -d 10de:`")

FINDING(KERNEL, "kernel", "")
CASE(KERNEL, GOOD, GOOD, "Linux {release} on {machine}", NULL, NULL)
CASE(KERNEL, NOT_ARM, WARNING, "Linux {release} on {machine}",
     "Grace CPUs are aarch64; on other machines the module is only for tests, and DKMS does not build it",
     "run the doctor on the Grace host")
CASE(KERNEL, TOO_OLD, BAD, "Linux {release} is too old",
     "the module needs vfio-pci-core of Linux 6.1 or later, which Red Hat's 5.14 of release 9.5 or later has, too",
     "install Linux 6.1 or later; with 6.17 or later, a guest gets the memory at full speed")
CASE(KERNEL, UNKNOWN, UNKNOWN, "the kernel's version is not known", "uname -r is \"{release}\"",
     "record again with `--record`")

FINDING(VFIO, "vfio", "Whether the kernel has vfio-pci-core, which the module needs.")
CASE(VFIO, GOOD, GOOD, "the kernel has vfio-pci-core, {how}", NULL, NULL)
CASE(VFIO, NONE, BAD, "the kernel has no vfio-pci-core",
     "CONFIG_VFIO_PCI_CORE is not set: the module can't be built for this kernel",
     "boot a kernel with `CONFIG_VFIO_PCI_CORE`, such as a server kernel of Debian or RHEL")
CASE(VFIO, NO_FILE, BAD, "vfio-pci-core is not installed",
     "CONFIG_VFIO_PCI_CORE=m, and /lib/modules/{release} has no such module",
     "install the package that has all modules of Linux {release}, such as kernel-default, kernel-modules-core or linux-modules-extra")
CASE(VFIO, UNKNOWN, UNKNOWN, "not known whether the kernel has vfio-pci-core", "{why}",
     "run `modprobe vfio-pci-core`, then check again")

FINDING(DMA_BACKEND, "dma-backend",
	"Whether the kernel has type1 (`/dev/vfio/vfio`) or iommufd (`/dev/iommu`), with which a VMM "
	"maps the guest's memory for DMA. Some vendor kernels have only iommufd. Without vfio's "
	"dma-buf export (Linux 6.19 or later), iommufd can't map GPU memory (EFAULT).")
CASE(DMA_BACKEND, GOOD, GOOD, "DMA through {what}", NULL, NULL)
CASE(DMA_BACKEND, NO_PEERS, NOTE, "only iommufd, which may not map GPU memory for DMA on this kernel",
     "without type1 and without vfio's dma-buf export (Linux 6.19 or later), IOMMU_IOAS_MAP of GPU memory fails with EFAULT, unless the vendor has patched it, as in NVIDIA's kernels (\"iommufd/pages: Bypass PFNMAP\"); QEMU warns and works without DMA between devices",
     "use QEMU with `-object iommufd` and accept that, or boot a kernel with `CONFIG_VFIO_IOMMU_TYPE1` or `CONFIG_VFIO_PCI_DMABUF`")
CASE(DMA_BACKEND, NONE, BAD, "neither type1 nor iommufd",
     "neither CONFIG_VFIO_IOMMU_TYPE1 nor CONFIG_IOMMUFD with CONFIG_VFIO_DEVICE_CDEV is set, or their modules can't be loaded: no VMM can open a device",
     "boot a kernel with `CONFIG_VFIO_IOMMU_TYPE1`, or with `CONFIG_IOMMUFD` and `CONFIG_VFIO_DEVICE_CDEV`, and take vfio_iommu_type1 and iommufd out of `install` in `/etc/modprobe.d` and of `module_blacklist=`")
CASE(DMA_BACKEND, UNKNOWN, UNKNOWN, "not known whether the kernel has type1 or iommufd", NO_CONFIG, COPY_CONFIG)

FINDING(HUGE_MAPPINGS, "huge-mappings",
	"Which page-table entries map GPU memory. The loaded module's features say so, or else "
	"`CONFIG_ARCH_SUPPORTS_PMD_PFNMAP`.")
CASE(HUGE_MAPPINGS, GOOD, GOOD, "PMD entries, or larger ones, map GPU memory ({how})", NULL, NULL)
CASE(HUGE_MAPPINGS, NONE, NOTE, "GPU memory is mapped page by page",
     "the first touch of all memory takes long, and TLB misses cost more ({how})",
     "boot Linux 6.12 or later, or a kernel with 64K pages")
CASE(HUGE_MAPPINGS, UNKNOWN, UNKNOWN, "not known which page sizes map GPU memory", NO_CONFIG, COPY_CONFIG)

FINDING(MEMORY_ERRORS, "memory-errors",
	"Whether the kernel reports an uncorrected error in GPU memory to the guest (Linux 6.19 or "
	"later with `CONFIG_MEMORY_FAILURE`).")
CASE(MEMORY_ERRORS, GOOD, GOOD, "errors in GPU memory reach the guest ({how})", NULL, NULL)
CASE(MEMORY_ERRORS, ONLY_LOGGED, NOTE, "errors in GPU memory don't reach the guest",
     "only the host's log shows an uncorrected error: another needs Linux 6.19 or later with CONFIG_MEMORY_FAILURE ({how})",
     "boot such a kernel, or watch the host's log for `Memory failure`")
CASE(MEMORY_ERRORS, UNKNOWN, UNKNOWN, "not known whether errors in GPU memory reach the guest", NO_CONFIG,
     COPY_CONFIG)

FINDING(PEER_TO_PEER, "peer-to-peer",
	"Whether GPU memory can be exported as dma-buf, so that other devices can do DMA to it with "
	"iommufd (Linux 6.19 or later with `CONFIG_VFIO_PCI_DMABUF`, and QEMU 11.0 or later).")
CASE(PEER_TO_PEER, GOOD, GOOD, "GPU memory can be exported as dma-buf ({how})", NULL, NULL)
CASE(PEER_TO_PEER, NONE, NOTE, "GPU memory can't be exported as dma-buf",
     "other devices of a guest with iommufd can't do DMA to GPU memory ({how})",
     "boot Linux 6.19 or later with `CONFIG_VFIO_PCI_DMABUF`, or use type1 if a guest needs it")
CASE(PEER_TO_PEER, UNKNOWN, UNKNOWN, "not known whether GPU memory can be exported as dma-buf", NO_CONFIG,
     COPY_CONFIG)

FINDING(DMABUF_FIXES, "dma-buf-fixes",
	"Only for kernels with dma-buf export that lack fixes of it, by their version: a "
	"distribution may have added them. Most are of September 2026 "
	"(https://github.com/NVIDIA/NV-Kernels/pull/584) and in Linux 7.2, and one of November "
	"2026, in Linux 7.3.4.")
CASE(DMABUF_FIXES, UNSEEN, NOTE, "Linux {release} may lack fixes of vfio's and iommufd's dma-bufs", "{what}",
     "boot Linux 7.3.4 or later, or look for these titles in the changelog of the kernel's package")

FINDING(KERNEL_OPTIONS, "kernel-options",
	"Whether the kernel has options that NVIDIA's lists for Grace name "
	"(`grace-iov.txt` and `grace-baremetal-kernel-config.txt` of "
	"https://github.com/NVIDIA/nvidia-kernel-patches-verification, of August 2026): errors "
	"in GPU memory reach the guest (`MEMORY_FAILURE`), iommufd (`IOMMUFD`, "
	"`VFIO_DEVICE_CDEV`), an accelerated SMMUv3 (`ARM_SMMU_V3_IOMMUFD`), DMA to GPU memory "
	"through iommufd (`PCI_P2PDMA`, `VFIO_PCI_DMABUF`), vCMDQ (`TEGRA241_CMDQV`), NUMA nodes "
	"for the memory of several GPUs (`NODES_SHIFT` of 6 or more), errors of PCIe "
	"(`PCIE_DPC`, `PCIE_EDR`), and an erratum of the Neoverse V2 (`ARM64_ERRATUM_4118414`, "
	"CVE-2025-10263). Only if there is a configuration of the kernel.")
CASE(KERNEL_OPTIONS, GOOD, GOOD, "the kernel has the {count} options of NVIDIA's lists that are checked", NULL, NULL)
CASE(KERNEL_OPTIONS, MISSING, NOTE, "the kernel lacks options of NVIDIA's lists for Grace",
     "{missing}: not set, too low, or newer than this kernel",
     "if guests need what they are for, boot a kernel that has them")

FINDING(MODULE, "module",
	"Which copy of the module modprobe would load, according to libkmod, and whether the kernel "
	"has refused it since it booted. DKMS's copy is in `updates/dkms/`, or in `extra/` on RHEL; "
	"that of packages of the built module is in `updates/nvgrace-gpu/`.")
CASE(MODULE, GOOD, GOOD, "modprobe would load {path}{version}", NULL, NULL)
CASE(MODULE, BY_CHOICE, NOTE, "modprobe would load {path}",
     "it is the kernel's own, which does not clear memory between guests, and this project's module is not installed",
     "nothing, if that is your choice; or install nvgrace-gpu-vfio-pci-dkms")
CASE(MODULE, EGM_LOADED, NOTE, "NVIDIA's driver with extended GPU memory is loaded",
     "it gives guests EGM, which this module lacks; `nvgrace-gpu guest` and what the doctor says of readiness and scrubs need this module",
     "nothing, if guests need EGM; or, if you want this module's features, write `BUILD_EXCLUSIVE_CONFIG=\"CONFIG_VFIO_PCI_CORE\"` into `/etc/dkms/nvgrace-gpu-vfio-pci.conf`, run `dkms autoinstall` and reboot")
CASE(MODULE, EGM, WARNING, "modprobe would load {path}",
     "it is NVIDIA's driver with extended GPU memory (CONFIG_NVGRACE_EGM): this module has no EGM, so DKMS does not build for this kernel",
     "use the kernel's own module; or, if you don't need EGM, write `BUILD_EXCLUSIVE_CONFIG=\"CONFIG_VFIO_PCI_CORE\"` into `/etc/dkms/nvgrace-gpu-vfio-pci.conf` and run `dkms autoinstall`")
CASE(MODULE, IN_TREE, WARNING, "modprobe would load {path}",
     "it is the kernel's own copy, not the one that DKMS builds", HEADERS("{release}") ", then run `dkms status`")
CASE(MODULE, BUILT_IN, BAD, "the kernel has a built-in driver of this name",
     "CONFIG_NVGRACE_GPU_VFIO_PCI=y: a module of the same name can't be loaded",
     "use the built-in driver and remove this project's module, or boot a kernel that has it as a module or lacks it")
CASE(MODULE, NONE, BAD, "no nvgrace-gpu-vfio-pci for this kernel", "{why}", "{have the module built for that kernel}")
CASE(MODULE, OF_OTHER_KERNEL, BAD, "modprobe would load a module of another kernel",
     "{path} was built for {magic}, this is {release}", "{have it built again by who built it}")
CASE(MODULE, MASKED, BAD, "modprobe does not load the module",
     "a file in /etc/modprobe.d has the line \"install {name} {command}\"",
     "find it with `grep -r 'install.*{name}' /etc/modprobe.d /run/modprobe.d /usr/lib/modprobe.d` and remove the line")
CASE(MODULE, BLACKLISTED, BAD, "the kernel refuses the module by its name",
     "the kernel's command line has module_blacklist= with {name}",
     "remove {name} from `module_blacklist=` in the boot loader's configuration, and reboot")
CASE(MODULE, NEEDS, BAD, "the module can't be loaded without {name}", "/lib/modules/{release} has no such module",
     "install the package that has all modules of Linux {release}, such as kernel-default, kernel-modules-core or linux-modules-extra")
CASE(MODULE, REFUSED, BAD, "the kernel has refused {path}", "{said}", "{have it built again by who built it}")
CASE(MODULE, UNKNOWN, UNKNOWN, "not known which module modprobe would load",
     "there is no module index for Linux {release}", "run `depmod -a`")

FINDING(HEADERS, "headers",
	"Whether DKMS can build the module for the running kernel. Only if DKMS has the module's "
	"source and builds for this kernel.")
CASE(HEADERS, GOOD, GOOD, "the headers of Linux {release} are installed", NULL, NULL)
CASE(HEADERS, MISSING_LATER, NOTE, "the headers of Linux {release} are missing",
     "there is no /lib/modules/{release}/build/Makefile: DKMS can't build a later version of the module for this kernel",
     HEADERS("{release}"))
CASE(HEADERS, MISSING, WARNING, "the headers of Linux {release} are missing",
     "there is no /lib/modules/{release}/build/Makefile: DKMS can't build the module for this kernel",
     HEADERS("{release}") ", then run `dkms autoinstall -k {release}`")

FINDING(MODULE_ALIAS, "module-alias",
	"Whether modules.alias has the module for these GPUs (`vfio_pci:v000010DEd00002342...`). "
	"libvirt 10.0 or later and KubeVirt's helpers find the variant driver there. Only if there "
	"is a module to load.")
CASE(MODULE_ALIAS, GOOD, GOOD, "modules.alias has the module for these GPUs", NULL, NULL)
CASE(MODULE_ALIAS, ADDED_ID, NOTE, "modules.alias has no line for 10de:{id}, an id of the configuration",
     "tools that choose the driver there, such as libvirt with managed='yes', bind vfio-pci, and the guest gets a GPU without memory",
     "use `managed='no'` and `nvgrace-gpu bind --persist`, or `<driver model='nvgrace_gpu_vfio_pci'/>` in libvirt's `<hostdev>`")
CASE(MODULE_ALIAS, NONE, WARNING, "modules.alias does not have the module for these GPUs",
     "libvirt with managed='yes', and other tools that read modules.alias, bind vfio-pci, and the guest gets a GPU without memory",
     "run `depmod -a`; if that does not help, install the module again")

FINDING(MODULE_LOADED, "module-loaded",
	"Only if a module of this name is loaded: whether it is the copy that modprobe would load "
	"now. The kernel's own driver has the same name, but no file `features`. The kernel's "
	"`taint` flags show whether such a driver was built outside the kernel's tree.")
CASE(MODULE_LOADED, GOOD, GOOD, "loaded, with the features: {features}", NULL, NULL)
CASE(MODULE_LOADED, EGM, GOOD, "the loaded driver is {other}", NULL, NULL)
CASE(MODULE_LOADED, BY_CHOICE, NOTE, "the loaded driver is {other}",
     "it has no file \"features\": what it can do on this kernel is not known",
     "nothing, if that is your choice (finding module)")
CASE(MODULE_LOADED, OTHER, WARNING, "the loaded driver is {other}",
     "it has no file \"features\", so it is not this project's driver, and modprobe would not load that",
     "see the finding module")
CASE(MODULE_LOADED, OUTDATED, WARNING, "the loaded driver is not the module that modprobe would load", "{why}",
     "when no guest has a GPU, run `nvgrace-gpu unbind --all`, `modprobe -r nvgrace_gpu_vfio_pci` and `nvgrace-gpu bind ADDRESS...`; or reboot, with an initramfs that has the module (finding initramfs)")
CASE(MODULE_LOADED, KEEP, WARNING, "the loaded driver is not the module that modprobe would load", "{why}",
     "keep the loaded module, and do not reboot: the kernel would refuse the other one, or may do so; first see the finding module-signature")

FINDING(SCRUBBING, "scrubbing",
	"Whether the parameter `scrub` of the loaded module is on, so that it overwrites GPU memory "
	"with zeros after binding and after each guest, and whether the parameter will be on after "
	"the next boot, by what libkmod reads from `/etc/modprobe.d` and the kernel's command line. "
	"Only if a module of this name is loaded, or if `scrub=1` is configured.")
CASE(SCRUBBING, GOOD, GOOD, "GPU memory is cleared between guests{boot}", NULL, NULL)
CASE(SCRUBBING, OFF, NOTE, "GPU memory is not cleared between guests",
     "the parameter scrub is off: the next guest can read what the last one left",
     "run " SCRUB_LINE ", update the initramfs if there is one, then run " SCRUB_NOW "; or run `nvgrace-gpu scrub ADDRESS` before each guest")
CASE(SCRUBBING, NO_PARAMETER, NOTE, "GPU memory is not cleared between guests",
     "the loaded module has no parameter scrub",
     "clear the memory with another driver before another owner's guest gets it; or load this project's module (finding module-loaded)")
CASE(SCRUBBING, NO_DRIVER, WARNING, "GPU memory is not cleared between guests, although this is configured",
     "modprobe's options have scrub=1, and {driver} does not have that parameter",
     "load this project's module (finding module), or remove the option")
CASE(SCRUBBING, OFF_AT_BOOT, WARNING, "GPU memory is cleared between guests, but not after the next boot",
     "the parameter scrub is on, but no line in /etc/modprobe.d turns it on at boot",
     "run " SCRUB_LINE ", and update the initramfs if there is one")
CASE(SCRUBBING, OFF_NOW, WARNING, "GPU memory is not cleared between guests, although this is configured",
     "/etc/modprobe.d or the kernel's command line has scrub=1, but the loaded module's parameter is off",
     "run " SCRUB_NOW "; if it is off after the next boot, update the initramfs, which has another configuration")

FINDING(MODULE_SIGNATURE, "module-signature",
	"Whether the kernel would accept the signature of the module that modprobe would load. "
	"Lockdown, which Secure Boot turns on, and `module.sig_enforce` enforce signatures. A key "
	"is known by the number of its certificate (`sig_key` of modinfo), for which mokutil lists "
	"what is enrolled, and by its id in /proc/keys, never by its name, which DKMS gives to "
	"every key. The kernel says which keys its keyrings have; those in .platform count for "
	"modules on some distributions' kernels. Only if there is a module to load.")
CASE(MODULE_SIGNATURE, GOOD, GOOD, "the kernel {trusts}", NULL, NULL)
CASE(MODULE_SIGNATURE, NONE, BAD, "the module is not signed, and the kernel enforces signatures",
     "{by} enforces signatures: modprobe fails with \"Key was rejected by service\" or \"Operation not permitted\"",
     "have DKMS sign it: set `mok_signing_key` in `/etc/dkms/framework.conf`, run `dkms build --force nvgrace-gpu-vfio-pci/VERSION`, `dkms install --force nvgrace-gpu-vfio-pci/VERSION` and `mokutil --import {key}`, reboot, and choose \"Enroll MOK\" on the console")
CASE(MODULE_SIGNATURE, NONE_PACKAGES, BAD, "the module is not signed, and the kernel enforces signatures",
     "{by} enforces signatures: modprobe fails with \"Key was rejected by service\" or \"Operation not permitted\"",
     "build the packages again with `make module-packages SIGN_KEY=... SIGN_CERT=...`, and enroll that certificate")
CASE(MODULE_SIGNATURE, NO_KEY, BAD, "the kernel does not have the key of the module's signer, {signer}",
     "its certificate is not among the keys that count for modules, and {by} enforces signatures: modprobe fails with \"Key was rejected by service\"",
     "run `mokutil --import {key}`, reboot, and choose \"Enroll MOK\" on the console; if its serial is not the module's `sig_key`, first run `dkms build --force` and `dkms install --force`")
CASE(MODULE_SIGNATURE, NO_KEY_PACKAGES, BAD, "the kernel does not have the key of the module's signer, {signer}",
     "its certificate is not among the keys that count for modules, and {by} enforces signatures: modprobe fails with \"Key was rejected by service\"",
     "run `mokutil --import` with the certificate of the packages (SIGN_CERT of `make module-packages`), reboot, and choose \"Enroll MOK\" on the console")
CASE(MODULE_SIGNATURE, NOT_TRUSTED, BAD, "the module's signer, {signer}, is enrolled but not trusted for modules",
     "the certificate is one of the machine owner's, but in none of the kernel's keyrings, and {by} enforces signatures",
     "reboot; if that does not help, run `mokutil --trust-mok`, reboot, and confirm; the kernel also needs `CONFIG_INTEGRITY_MACHINE_KEYRING`")
CASE(MODULE_SIGNATURE, PLATFORM, UNKNOWN, "not known whether the kernel trusts the module's signer, {signer}",
     "its certificate is only in the keyring .platform, which kernels of Debian, Fedora and Red Hat trust for modules, and others don't; and {by} enforces signatures",
     "run `modprobe nvgrace-gpu-vfio-pci`; if that ends with \"Key was rejected by service\", run `mokutil --trust-mok`, reboot, and confirm")
CASE(MODULE_SIGNATURE, UNASKED, UNKNOWN, "not known whether the kernel enforces signatures",
     "lockdown may be on, and there is no /sys/kernel/security/lockdown",
     "run `mount -t securityfs securityfs /sys/kernel/security`, then check again")
CASE(MODULE_SIGNATURE, UNKNOWN, UNKNOWN, "not known whether the kernel trusts the module's signer, {signer}",
     "only root can see which keys the kernel trusts for modules, and mokutil knows the certificate: a name is no key, and {by} enforces signatures{log}",
     "run as root, with mokutil installed; or run `modprobe nvgrace-gpu-vfio-pci`, which ends with \"Key was rejected by service\" if the kernel does not trust it")

FINDING(IOMMU, "iommu", "")
CASE(IOMMU, GOOD, GOOD, "{what}", NULL, NULL)
CASE(IOMMU, NONE, BAD, "no IOMMU", "/sys/class/iommu and /sys/kernel/iommu_groups are empty: vfio can't use any device{why}",
     "turn on the SMMU, or on x86 the IOMMU (VT-d, AMD-Vi), in the firmware's setup; remove kernel parameters that turn it off")
CASE(IOMMU, UNSAFE, BAD, "no IOMMU", "the IOMMU groups are vfio-noiommu, vfio's unsafe mode, which isolates nothing and which no VMM accepts{why}",
     "turn on the SMMU, or on x86 the IOMMU (VT-d, AMD-Vi), in the firmware's setup, and remove `enable_unsafe_noiommu_mode` from `/etc/modprobe.d`")

FINDING(KVM, "kvm", "")
CASE(KVM, GOOD, GOOD, "KVM can create a VM", NULL, NULL)
CASE(KVM, NONE, BAD, "no KVM",
     "/dev/kvm: {state}; the kernel was not booted at EL2, has no CONFIG_KVM, or has the parameter kvm-arm.mode=none",
     "run `dmesg | grep -i kvm`; boot the kernel at EL2, outside a guest, and without that parameter")
CASE(KVM, UNKNOWN, UNKNOWN, "this user can't open KVM", "/dev/kvm can't be opened",
     "run as root, or as a member of the group kvm")

FINDING(KVM_USEMEM, "kvm-usemem",
	"How KVM maps usemem (BAR4) in a guest. "
	"[guests.md](guests.md#what-a-guest-gets-on-which-host) explains the kinds of memory and "
	"KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED, which a VM is asked for. A vendor's kernel older "
	"than 6.17 may have the backport, and then refuses the memory on a CPU that lacks FEAT_S2FWB "
	"or CACHE_DIC. Its version does not show that, so the finding is a note. Only on Arm.")
CASE(KVM_USEMEM, GOOD, GOOD, "KVM maps usemem write-back", NULL, NULL)
CASE(KVM_USEMEM, DEVICE, NOTE, "KVM maps usemem as Device memory: slow, and unaligned accesses fault",
     "Linux {release} maps only RAM cacheable: other memory needs 6.17, and KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED is 0",
     "boot Linux 6.17 or later on the host, or a vendor kernel with the backport")
CASE(KVM_USEMEM, REFUSED, BAD, "KVM refuses usemem",
     "KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED is 0, so the CPU lacks FEAT_S2FWB or CACHE_DIC: KVM_SET_USER_MEMORY_REGION of usemem fails with EINVAL, and the VMM ends",
     "run guests on a CPU that has both, such as Grace, and not inside another guest")
CASE(KVM_USEMEM, UNKNOWN, UNKNOWN, "not known how KVM maps usemem",
     "only a VM can be asked, and this user can't make one",
     "run as root, or as a member of the group kvm")

FINDING(KVM_RESMEM, "kvm-resmem",
	"How KVM maps resmem (BAR2) in a guest, if a GPU has it. The loaded module's features say "
	"so. Otherwise, Linux 6.9 or later does it right, and so does an older kernel that has the "
	"driver itself, as those of RHEL 9.5 "
	"([guests.md](guests.md#what-a-guest-gets-on-which-host)). Only on Arm.")
CASE(KVM_RESMEM, GOOD, GOOD, "KVM maps resmem as Normal-NC ({how})", NULL, NULL)
CASE(KVM_RESMEM, DEVICE, NOTE, "KVM maps resmem as Device memory",
     "MIG in the guest is slow, and unaligned accesses fault: this kernel has no VM_ALLOW_ANY_UNCACHED ({how})",
     "boot Linux 6.9 or later on the host")
CASE(KVM_RESMEM, UNKNOWN, UNKNOWN, "not known how KVM maps resmem",
     "VM_ALLOW_ANY_UNCACHED is of Linux 6.9, vendors have it in older kernels, and no module is loaded that has probed this one",
     "bind a GPU, then check again")

FINDING(MEMORY_ONLINE, "memory-online",
	"Whether GPU memory is online as System RAM of this host: \"System RAM (NVIDIA)\" in "
	"/proc/iomem. The driver refuses such a GPU, because host RAM must never reach a guest.")
CASE(MEMORY_ONLINE, GOOD, GOOD, "no GPU memory is online as System RAM", NULL, NULL)
CASE(MEMORY_ONLINE, USED, WARNING, "GPU memory is online as System RAM",
     "the nvidia driver has onlined it for this host; such a GPU, whose state `nvgrace-gpu list` shows, can't be bound",
     "for a GPU that you want to assign to a guest: stop what uses it (`nvgrace-gpu status ADDRESS` names the processes), run `modprobe -r nvidia_drm nvidia_modeset nvidia_uvm nvidia`, then `nvgrace-gpu bind --persist ADDRESS`")
CASE(MEMORY_ONLINE, LEFT, BAD, "GPU memory is left online as System RAM",
     "a driver that is no longer loaded has onlined it; such a GPU can't be bound, because host RAM must not reach a guest",
     "run `nvgrace-gpu bind --boot-only ADDRESS` and reboot: it is not known which memory blocks are the GPU's, and taking others offline takes RAM from the host")
CASE(MEMORY_ONLINE, UNKNOWN, UNKNOWN, "not known whether GPU memory is online", "/proc/iomem can't be read",
     "run as root, outside a container")

FINDING(QEMU, "qemu",
	"The version of each of `/usr/bin/qemu-system-aarch64`, `/usr/libexec/qemu-kvm` and "
	"`/usr/local/bin/qemu-system-aarch64`. For the reasons, see "
	"[guests.md](guests.md#what-the-host-needs).")
CASE(QEMU, GOOD, GOOD, "{path} is {version}", NULL, NULL)
CASE(QEMU, OLD, WARNING, "{path} is {version}", "{lack}", "install QEMU 10.0 or later")
CASE(QEMU, TOO_OLD, BAD, "{path} is {version}", "{lack}", "install QEMU 10.0 or later")
CASE(QEMU, UNKNOWN, UNKNOWN, "the version of {path} is not known", "it prints no number with --version",
     "use 10.0 or later")
CASE(QEMU, NONE, UNKNOWN, "no QEMU in the usual places",
     "/usr/bin, /usr/libexec and /usr/local/bin have none; it may be in a container",
     "run it with `--version`; use 10.0 or later")

FINDING(LIBVIRT, "libvirt",
	"The version of `/usr/sbin/virtqemud` and `/usr/sbin/libvirtd`. No finding if neither "
	"exists.")
CASE(LIBVIRT, GOOD, GOOD, "{path} is {version}", NULL, NULL)
CASE(LIBVIRT, OLD, WARNING, "{path} is {version}",
     "before 10.0 it does not find variant drivers: with managed='yes' it binds vfio-pci, and the guest gets a GPU without memory",
     "install libvirt 10.0 or later, or use `managed='no'` and `nvgrace-gpu bind --persist`")
CASE(LIBVIRT, UNKNOWN, UNKNOWN, "the version of {path} is not known", "it prints no number with --version",
     "use 10.0 or later")

FINDING(CONFIGURATION, "configuration",
	"The lines of `/etc/nvgrace-gpu.conf` and of `*.conf` in `/etc/nvgrace-gpu.conf.d`: see "
	"nvgrace-gpu.conf(5). There is a finding for each line that isn't good.")
CASE(CONFIGURATION, GOOD, GOOD, "lines for boot: {count}", NULL, NULL)
CASE(CONFIGURATION, IGNORED, WARNING, "{where} is ignored", "{why}", "correct or remove it; see nvgrace-gpu.conf(5)")
CASE(CONFIGURATION, NO_MATCH, WARNING, "{where} matches no GPU: {value}", "no supported GPU has this {kind} now",
     "remove the line if the GPU does not come back; `nvgrace-gpu list` shows the present GPUs")
CASE(CONFIGURATION, BAD_NAME, WARNING, "{where} is not read",
     "a file's name must end in .conf and not begin with a dot; this one may be left over from an editor or a killed bind",
     "rename or remove it")

FINDING(BOOT_RULE, "boot-rule",
	"Only if the configuration binds a GPU: whether the udev rule and its program are "
	"installed.")
CASE(BOOT_RULE, GOOD, GOOD, "{rule} and its program, which bind the configured GPUs, are installed", NULL, NULL)
CASE(BOOT_RULE, MISSING, BAD, "no GPU is bound at boot", "the configuration binds GPUs, but {obstacle}",
     "run `apt install --reinstall {package}`, `dnf reinstall {package}` or `zypper install --force {package}`")
CASE(BOOT_RULE, MASKED, BAD, "no GPU is bound at boot", "the configuration binds GPUs, but {obstacle}",
     "remove that file")

FINDING(INITRAMFS, "initramfs",
	"What the next boot of each installed kernel would do: which module it would load, and whose, "
	"and whether its initramfs has that module, the rule, its program, the files of the "
	"configuration and `/etc/modprobe.d/nvgrace-gpu.conf`, by the names that `lsinitramfs` or "
	"`lsinitrd` lists, and all but the module and the program by their sizes. An older module in the same place, or a line that was "
	"replaced by one of the same length, is not seen. The boot loader's own "
	"entries (GRUB's menu, the Boot Loader Specification, systemd-boot's variables, unified "
	"kernel images) say which kernel boots next, with which image and command line. If they don't, the running "
	"kernel and later ones count, or only the newest if the running one isn't installed. An "
	"image counts only if initramfs-tools or dracut would put this project's files into it, or "
	"if it has some. There is a finding for each kernel that isn't good.")
CASE(INITRAMFS, GOOD, GOOD, "{kernels}: {what}", NULL, NULL)
CASE(INITRAMFS, NO_MODULE, WARNING, "Linux {kernel}{, which boots next,} has no nvgrace-gpu-vfio-pci, and would bind no GPU",
     "{why}", "{have the module built for that kernel}")
CASE(INITRAMFS, NO_MODULE_OLD, NOTE, "Linux {kernel}, which {place}, has no nvgrace-gpu-vfio-pci",
     "{why}", "{have the module built for that kernel}")
CASE(INITRAMFS, NEEDS, WARNING, "Linux {kernel}{, which boots next,} can't load the module",
     "/lib/modules/{kernel} has no {name}, which it needs",
     "install the package that has all modules of Linux {kernel}, such as kernel-default, kernel-modules-core or linux-modules-extra")
CASE(INITRAMFS, OTHER_MODULE, WARNING, "Linux {kernel}{, which boots next,} would load the kernel's own driver",
     "{place} is what it has: that driver does not clear memory between guests{scrub}",
     "{have the module built for that kernel}")
CASE(INITRAMFS, REJECTED, WARNING, "Linux {kernel}{, which boots next,} would reject the module",
     "{place} {is signed by a key that is not trusted}, and {by} enforces signatures",
     "run `mokutil --import {key}`, reboot, and choose \"Enroll MOK\" on the console; an unsigned module must be signed and built again first (finding module-signature)")
CASE(INITRAMFS, KEY_UNKNOWN, UNKNOWN, "not known whether Linux {kernel}{, which boots next,} would reject the module",
     "{place} is signed by the certificate {number}, not by the running module's, and {by} enforces signatures",
     "run as root, with mokutil installed; or look for that number in what `mokutil --list-enrolled` prints")
CASE(INITRAMFS, LINE, WARNING, "the next boot binds no GPU", "the boot loader's entry for it {boots a rescue system}",
     "choose another entry, or correct its kernel command line in the boot loader's configuration")
CASE(INITRAMFS, LINE_UNKNOWN, UNKNOWN, "not known which kernel command line the next boot has",
     "{image} is a unified kernel image, which has one in itself, and its section .cmdline can't be read",
     "run as root; if that does not help, look for module_blacklist= and rescue in what `objdump -s -j .cmdline IMAGE` prints")
CASE(INITRAMFS, FOREIGN, UNKNOWN, "not known whether the next boot has the module",
     "the boot loader's entry for it, {entry}, has a kernel that is not in /lib/modules: one of another deployment, snapshot or system",
     "run the doctor again after the reboot, before guests start")
CASE(INITRAMFS, OUTDATED, WARNING, "the initramfs of Linux {kernel}{, which boots next,} {what}",
     "{image} was made from other files than are installed: another driver may bind a GPU first, or a GPU is bound that should not be, or its memory is not cleared",
     "{have the image made again by its owner}")
CASE(INITRAMFS, NONE, UNKNOWN, "no initramfs of Linux {kernel}{, which boots next,} is known",
     "there is none in the places of initramfs-tools, dracut and kernel-install, and no boot loader's entry names one",
     "if the kernel boots with an initramfs, update it with the program that made it, and list it: `lsinitrd IMAGE | grep nvgrace`")
CASE(INITRAMFS, UNKNOWN, UNKNOWN, "not known what the initramfs of Linux {kernel}{, which boots next,} contains", "{image}: {error}",
     "run as root; if that does not help, look for nvgrace in what `lsinitramfs IMAGE`, `lsinitrd IMAGE` or the program that made it lists")

FINDING(EGMEMORY, "egm",
	"Extended GPU memory (EGM): the part of the CPU's memory that firmware gives to GPUs, by the "
	"properties `nvidia,egm-size`, `nvidia,egm-base-pa` and `nvidia,egm-pxm` in the DSDT or an "
	"SSDT. Only if a table has them. In firmware's mode for bare metal, that range is RAM of the "
	"host; in its mode for hypervisors, it is set aside for guests. "
	"[administration.md](administration.md#kernels-with-nvidias-extended-gpu-memory) says why this "
	"driver gives guests none.")
CASE(EGMEMORY, GOOD, GOOD, "firmware sets aside no extended GPU memory", NULL, NULL)
CASE(EGMEMORY, GIVEN, GOOD, "{size} of extended GPU memory: {what}", NULL, NULL)
CASE(EGMEMORY, GUESTS, NOTE, "{size} of extended GPU memory: {what}",
     "by NVIDIA's driver source, a guest's GPU of that socket may reach the range although the guest does not have it, and nobody clears the range between guests",
     "give all GPUs of a socket to one guest, or turn EGM off in the firmware's setup")
CASE(EGMEMORY, HOST, WARNING, "{size} of extended GPU memory: {what}",
     "the range is in firmware's mode for bare metal: no guest can have it, and by NVIDIA's driver source a guest's GPU may reach the host's memory through it, because such accesses don't pass the SMMU (not seen on hardware)",
     "turn EGM off in the firmware's setup, or reserve memory for the hypervisor there; no driver that gives guests EGM may be loaded, because it would clear this range")
CASE(EGMEMORY, UNKNOWN, UNKNOWN, "{size} of extended GPU memory: {what}",
     "the tables have no nvidia,egm-base-pa and nvidia,egm-pxm, or only root can see where the host's RAM is",
     "run as root; if that does not help, look for EGM in the firmware's setup")

FINDING(GUEST, "guest",
	"Only in a guest: a GPU has its memory in BAR4, or the machine says that it is virtual "
	"(SMBIOS, the maker of its ACPI tables, or its device tree), and no table says where GPU "
	"memory is. There is then no other finding. [The guest's system](guests.md#the-guests-system) has what "
	"the guest's kernel and driver need.")
CASE(GUEST, GOOD, GOOD, "this is a guest with the memory of {count}; see guests.md, \"The guest's system\"", NULL, NULL)
CASE(GUEST, NO_MEMORY, BAD, "this guest has the GPU without its memory",
     "BAR4 has {size}: the host has assigned the GPU by vfio-pci, or the guest's window for 64-bit BARs is too small",
     "on the host, run `nvgrace-gpu bind --persist` for this GPU, and start the guest with what `nvgrace-gpu guest` prints")

FINDING(DEVICE, "device", "")
CASE(DEVICE, GOOD, GOOD, "{product}, {id}", NULL, NULL)
CASE(DEVICE, GONE, BAD, "{product} does not answer",
     "its configuration space reads as all ones: it is no longer on the bus",
     "power-cycle the host; if that does not help, the hardware is broken")

FINDING(FIRMWARE, "firmware",
	"Whether firmware reports where the GPU's memory is. For a bound GPU, the driver's `mode` "
	"says so. For other GPUs, the doctor checks that there is ACPI, that the device has an ACPI "
	"object, and that the DSDT or an SSDT has the properties `nvidia,gpu-mem-base-pa` and "
	"`nvidia,gpu-mem-size`. Only the driver checks that they belong to this device.")
CASE(FIRMWARE, GOOD, GOOD, "firmware reports where its memory is (mode {mode})", NULL, NULL)
CASE(FIRMWARE, STATED, GOOD, "ACPI has {path} and the properties of such memory", NULL, NULL)
CASE(FIRMWARE, CORE_ONLY, WARNING, "bound without memory (mode core-only)",
     "firmware does not report where its memory is, as in a guest, where the memory is in BARs 2 and 4",
     "on a host, update the system firmware; in a guest, this is correct")
CASE(FIRMWARE, NO_ACPI, BAD, "the kernel runs without ACPI",
     "there is no /sys/firmware/acpi/tables: only ACPI reports where GPU memory is",
     "boot with UEFI and without `acpi=off`")
CASE(FIRMWARE, NO_OBJECT, BAD, "the device has no ACPI object",
     "it has no firmware_node in sysfs, so the driver can't find its memory", "update the system firmware")
CASE(FIRMWARE, NO_PROPERTIES, BAD, "firmware does not report where its memory is",
     "no DSDT or SSDT has the property {property}",
     "on a host, update the system firmware; in a guest, this is correct")
CASE(FIRMWARE, UNKNOWN, UNKNOWN, "not known whether firmware reports where its memory is",
     "only root can read ACPI tables", "run as root")

FINDING(IOMMU_GROUP, "iommu-group",
	"Whether vfio accepts the GPU's IOMMU group. Devices of the group that a driver of vfio has "
	"(they have `vfio-dev/` in sysfs) and bridges are harmless.")
CASE(IOMMU_GROUP, GOOD, GOOD, "alone in IOMMU group {group}", NULL, NULL)
CASE(IOMMU_GROUP, SHARED, WARNING, "shares IOMMU group {group}",
     "{others} in the same group can be assigned only to the same guest",
     "turn on ACS in the firmware's setup if other guests need these devices")
CASE(IOMMU_GROUP, USED, BAD, "shares IOMMU group {group} with a device that the host uses",
     "{others} could access a guest's memory, so vfio refuses the group",
     "unbind that device from its driver, or move it to another slot")
CASE(IOMMU_GROUP, NONE, BAD, "in no IOMMU group",
     "vfio needs a group, and {why}: the SMMU of PCI segment {segment} is off, while others may be on",
     "turn on the SMMU for this GPU in the firmware's setup (finding iommu)")
CASE(IOMMU_GROUP, UNSAFE, BAD, "in a group of vfio-noiommu",
     "that is vfio's unsafe mode, which no VMM accepts: the SMMU of PCI segment {segment} is off, while others may be on",
     "turn on the SMMU for this GPU in the firmware's setup (finding iommu)")
CASE(IOMMU_GROUP, NONE_YET, UNKNOWN, "in no IOMMU group",
     "vfio needs a group; some kernels create it when a driver is bound, and otherwise the SMMU of PCI segment {segment} is off",
     "run `nvgrace-gpu bind {address}`, then check again; if it is refused, turn on that SMMU in the firmware's setup")

FINDING(BINDING, "binding", "")
CASE(BINDING, GOOD, GOOD, "{state}; {boot}", NULL, NULL)
CASE(BINDING, VFIO_PCI, WARNING, "bound to vfio-pci",
     "vfio-pci does not find memory outside BARs, so a guest gets a GPU without memory",
     "run `nvgrace-gpu bind {address}`")
CASE(BINDING, DRIVERCTL, WARNING, "driverctl binds it to {driver} at every boot",
     "/etc/driverctl.d/pci-{address} has that, which undoes a bind to another driver",
     "run `driverctl unset-override {address}`, and then `nvgrace-gpu bind {address}`")
CASE(BINDING, VFIO_PCI_IDS, WARNING, "bound to vfio-pci by its parameter ids",
     "each boot undoes a bind to another driver that is not configured for boot",
     "remove the id from `vfio-pci.ids=` on the kernel's command line, or from `options vfio-pci ids=` in `/etc/modprobe.d`; then run `nvgrace-gpu bind {address}`")
CASE(BINDING, RESCUE, WARNING, "{state}, although the configuration binds it at boot",
     "{where} binds it, but this was the boot of {rescue}, in which no GPU is bound",
     "run `nvgrace-gpu bind {address}`, or reboot")
CASE(BINDING, OTHER, WARNING, "{state}, although the configuration binds it at boot", "{where} binds it",
     "run `nvgrace-gpu bind {address}`; if it was not bound at boot, see the findings boot-rule and module, and `journalctl -b | grep nvgrace`")
CASE(BINDING, REFUSED, BAD, "the driver refused it", "{said}", "fix this, then run `nvgrace-gpu bind {address}`")

FINDING(OVERRIDE, "override", "")
CASE(OVERRIDE, GOOD, GOOD, "{what}", NULL, NULL)
CASE(OVERRIDE, OTHER, WARNING, "driver_override is {override}, but it is {state}",
     "it is left over, or its driver refused the device: while it is set, no other driver can bind the device",
     "run `nvgrace-gpu bind {address}` to bind it, or `echo > /sys/bus/pci/devices/{address}/driver_override` to clear the override")
CASE(OVERRIDE, HYPHENS, BAD, "driver_override is nvgrace-gpu-vfio-pci, with hyphens",
     "that is the module's name; no driver has this name, so none can bind the device",
     "run `nvgrace-gpu bind {address}`, or `echo nvgrace_gpu_vfio_pci > /sys/bus/pci/devices/{address}/driver_override`")

FINDING(READINESS, "readiness",
	"Only for a GPU that is bound with memory: whether the memory is ready, which only the "
	"driver reads from the device.")
CASE(READINESS, GOOD, GOOD, "{what}", NULL, NULL)
CASE(READINESS, FAILED, BAD, "the memory did not become ready after a reset", "{said}",
     "run `echo 1 > /sys/bus/pci/devices/{address}/reset`; if that does not help, power-cycle the host")
CASE(READINESS, UNKNOWN, UNKNOWN, "not known whether the memory is ready",
     "the loaded module does not report it", "see the finding module-loaded")

FINDING(SCRUB_STATE, "scrub-state",
	"Whether the memory holds data of its last user. Only if the driver reports a state other "
	"than `off`.")
CASE(SCRUB_STATE, GOOD, GOOD, "{what}", NULL, NULL)
CASE(SCRUB_STATE, FAILED, WARNING, "its memory was not cleared", "{said}", RESET_AND_SCRUB)
CASE(SCRUB_STATE, CLOSED, BAD, "its memory was not cleared", "{said}; opening the GPU fails until a scrub succeeds",
     RESET_AND_SCRUB)

#undef NO_CONFIG
#undef COPY_CONFIG
#undef SCRUB_LINE
#undef SCRUB_NOW
#undef RESET_AND_SCRUB
#undef HEADERS
#undef FINDING
#undef CASE
