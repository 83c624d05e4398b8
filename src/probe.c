// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finds a GPU's memory in the firmware's device properties, checks it, carves
 * it out, claims it, and registers the device with vfio. Owns the module's
 * entry points and the list of bound GPUs, which it tells of the host's sleep.
 */
#include <linux/ioport.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/pm.h>
#include <linux/property.h>
#include <linux/slab.h>
#include <linux/vfio_pci_core.h>

#include "arith.h"
#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "nvgrace_gpu_ids.h"

/*
 * Device properties with which the firmware of Grace superchips names the
 * memory: physical address and size in bytes.
 */
#define PROP_BASE	"nvidia,gpu-mem-base-pa"
#define PROP_SIZE	"nvidia,gpu-mem-size"

/* NVIDIA's DVSEC, an offset in it, and the bit of a GPU without MIG defect. */
#define DVSEC_ID		3
#define DVSEC_FEATURES		0x0a
#define DVSEC_NO_MIG_DEFECT	BIT(0)

static_assert(NVGRACE_GPU_BAR_SIZE_MAX == 1ULL << VFIO_PCI_OFFSET_SHIFT);

/* Physical memory that firmware gives to a GPU, in bytes. */
struct gpu_memory {
	u64 base;
	u64 size;
};

/*
 * All GPUs that are bound or being bound. If firmware gives one range to two
 * GPUs, the second is refused, so that no two guests share it.
 */
static LIST_HEAD(bound_gpus);
static DEFINE_MUTEX(bound_gpus_lock);	/* protects bound_gpus */

/*
 * Reads one u64 property. Returns 0, -ENOENT (no such property) or -EINVAL (not
 * one integer, one line in the log). Sleeps.
 */
static int read_property(struct pci_dev *pdev, const char *name, u64 *val)
{
	const char *string;
	int count;

	if (!device_property_present(&pdev->dev, name))
		return -ENOENT;

	/* Of a longer array, the API would read the first element. */
	count = device_property_count_u64(&pdev->dev, name);
	if (count == 1 && !device_property_read_u64(&pdev->dev, name, val))
		return 0;

	if (!device_property_read_string(&pdev->dev, name, &string))
		pci_err(pdev, "firmware property %s is the text \"%.40s\", not one 64-bit integer; update the system firmware\n",
			name, string);
	else
		pci_err(pdev, "firmware property %s is not one 64-bit integer (value count or error: %d); update the system firmware\n",
			name, count);
	return -EINVAL;
}

/*
 * Finds the memory and checks what firmware may have wrong. Returns 0, -ENOENT
 * (no memory, no line in the log), or the error of the refusal, with one line.
 */
static int find_memory(struct pci_dev *pdev, struct gpu_memory *mem)
{
	int no_base, no_size;
	u64 last;

	no_base = read_property(pdev, PROP_BASE, &mem->base);
	if (no_base == -EINVAL)
		return no_base;
	no_size = read_property(pdev, PROP_SIZE, &mem->size);
	if (no_size == -EINVAL)
		return no_size;

	if (no_base && no_size)
		return -ENOENT;
	if (no_base) {
		pci_err(pdev, "firmware gives %s %#llx but no %s; update the system firmware\n",
			PROP_SIZE, mem->size, PROP_BASE);
		return -EINVAL;
	}
	if (no_size) {
		pci_err(pdev, "firmware gives %s %#llx but no %s; update the system firmware\n",
			PROP_BASE, mem->base, PROP_SIZE);
		return -EINVAL;
	}

	if (!mem->size) {
		pci_err(pdev, "firmware property %s is 0: the C2C link failed to train; power-cycle the host\n",
			PROP_SIZE);
		return -ENOMEM;
	}
	if (check_add_overflow(mem->base, mem->size - 1, &last) ||
	    last > compat_phys_last() || mem->size > SIZE_MAX) {
		pci_err(pdev, "%s %#llx with %s %#llx ends beyond this CPU's last physical address %#llx; update the system firmware\n",
			PROP_BASE, mem->base, PROP_SIZE, mem->size,
			(u64)compat_phys_last());
		return -EOVERFLOW;
	}
	if (!PAGE_ALIGNED(mem->base)) {
		pci_err(pdev, "%s %#llx is not aligned to this kernel's page size %#lx; update the system firmware or use a kernel with smaller pages\n",
			PROP_BASE, mem->base, PAGE_SIZE);
		return -EINVAL;
	}
	return 0;
}

/*
 * A guest would own System RAM of the host, and it would be mapped with two
 * memory types. Returns 0, or -EBUSY with one line in the log.
 */
static int check_no_ram(struct pci_dev *pdev, const struct gpu_memory *mem)
{
	if (region_intersects(mem->base, mem->size, IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) == REGION_DISJOINT)
		return 0;

	pci_err(pdev, "%s %#llx with %s %#llx overlaps System RAM of the host; unload the driver that onlined it, or offline and remove its NUMA node\n",
		PROP_BASE, mem->base, PROP_SIZE, mem->size);
	return -EBUSY;
}

/* 1 if the GPU has the MIG defect, 0 if not, negative if the read fails. */
static int has_mig_defect(struct pci_dev *pdev)
{
	int dvsec = pci_find_dvsec_capability(pdev, PCI_VENDOR_ID_NVIDIA,
					      DVSEC_ID);
	u16 features;
	int ret;

	if (!dvsec)
		return 1;

	ret = pci_read_config_word(pdev, dvsec + DVSEC_FEATURES, &features);
	if (ret) {
		/* LCOV_EXCL_START: it would have to go while it is probed */
		ret = pcibios_err_to_errno(ret);
		pci_err(pdev, "can't read the NVIDIA DVSEC at %#x (error %d): the device may be gone; power-cycle the host\n",
			dvsec, ret);
		return ret;
		/* LCOV_EXCL_STOP */
	}
	return !(features & DVSEC_NO_MIG_DEFECT);
}

/*
 * Fills both regions of @gpu. Returns 0, or the error of the refusal with one
 * line in the log, or -ENOMEM.
 */
static int make_regions(struct pci_dev *pdev, struct nvgrace_gpu *gpu,
			const struct gpu_memory *mem)
{
	struct nvgrace_gpu_carve carve;
	int defect = has_mig_defect(pdev);
	int ret;

	if (defect < 0)
		return defect;

	ret = nvgrace_gpu_carve(mem->size, defect, &carve);
	if (!ret && carve.usemem < PAGE_SIZE)
		ret = -EINVAL;
	if (ret == -EINVAL) {
		pci_err(pdev, "%s %#llx is too little memory%s; update the system firmware\n",
			PROP_SIZE, mem->size,
			defect ? ": this GPU needs 1 GiB for resmem and 512 MiB for usemem" : "");
		return ret;
	}
	if (ret) {
		pci_err(pdev, "%s %#llx needs a BAR larger than the %#llx bytes that vfio has room for; update the system firmware\n",
			PROP_SIZE, mem->size, NVGRACE_GPU_BAR_SIZE_MAX);
		return ret;
	}

	gpu->usemem.gpu = gpu;
	gpu->usemem.base = mem->base;
	gpu->usemem.length = carve.usemem;
	gpu->usemem.bar_size = carve.usemem_bar;

	gpu->resmem.gpu = gpu;
	gpu->resmem.base = mem->base + carve.usemem;
	gpu->resmem.length = carve.resmem;
	gpu->resmem.bar_size = carve.resmem_bar;
	gpu->resmem.uncached = true;

	spin_lock_init(&gpu->usemem.poison.lock);
	spin_lock_init(&gpu->resmem.poison.lock);
	ret = nvgrace_gpu_window_init(&pdev->dev, &gpu->usemem);
	if (!ret && carve.resmem)
		ret = nvgrace_gpu_window_init(&pdev->dev, &gpu->resmem);
	return ret;
}

/* Adds @gpu to the list. -EBUSY if another GPU in it has some of its memory. */
static int list_gpu(struct nvgrace_gpu *gpu, const struct gpu_memory *mem)
{
	struct pci_dev *pdev = gpu->core.pdev;
	struct nvgrace_gpu *other;
	int ret = 0;

	gpu->range_start = mem->base;
	gpu->range_last = mem->base + mem->size - 1;

	mutex_lock(&bound_gpus_lock);
	list_for_each_entry(other, &bound_gpus, listed) {
		if (gpu->range_start > other->range_last ||
		    gpu->range_last < other->range_start)
			continue;
		pci_err(pdev, "%s %#llx with %s %#llx overlaps the memory of %s; update the system firmware\n",
			PROP_BASE, mem->base, PROP_SIZE, mem->size,
			pci_name(other->core.pdev));
		ret = -EBUSY;
		break;
	}
	if (!ret)
		list_add_tail(&gpu->listed, &bound_gpus);
	mutex_unlock(&bound_gpus_lock);

	return ret;
}

static void unlist_gpu(struct nvgrace_gpu *gpu)
{
	mutex_lock(&bound_gpus_lock);
	list_del_init(&gpu->listed);
	mutex_unlock(&bound_gpus_lock);
}

/*
 * For walk_iomem_res_desc(): returns 1, unless the entry is a window of a
 * bridge, in which the memory may be.
 */
static int found_owner(struct resource *res, void *arg)
{
	return !(res->flags & IORESOURCE_WINDOW);
}

/*
 * Claims @region in /proc/iomem as @part of the device. The range may be
 * registered already. If a driver has claimed some of it, the memory would have
 * two owners: returns -EBUSY, with one line in the log. Otherwise the other
 * entry does no harm, such as a window of the host bridge: returns 0 with a
 * warning, and *@claimed false.
 */
static int claim_region(struct pci_dev *pdev,
			const struct nvgrace_gpu_region *region,
			const char *part, bool *claimed)
{
	u64 last = region->base + region->length - 1;
	const char *name;

	if (!region->length)
		return 0;

	name = devm_kasprintf(&pdev->dev, GFP_KERNEL, "%s %s %s", KBUILD_MODNAME,
			      pci_name(pdev), part);
	if (name && devm_request_mem_region(&pdev->dev, region->base,
					    region->length, name))
		return 0;

	if (walk_iomem_res_desc(IORES_DESC_NONE, IORESOURCE_MEM | IORESOURCE_BUSY,
				region->base, last, NULL, found_owner) > 0) {
		pci_err(pdev, "%s [%#llx-%#llx] belongs to another driver already, which /proc/iomem names; unbind that driver, or update the system firmware\n",
			part, (u64)region->base, last);
		return -EBUSY;
	}
	pci_warn(pdev, "can't claim %s [%#llx-%#llx]; binding continues without the claim; /proc/iomem shows what is there\n",
		 part, (u64)region->base, last);
	*claimed = false;
	return 0;
}

/*
 * Does all that must come before registration, with the memory ready at the
 * end. Returns 0 or the error of the refusal.
 */
static int setup_memory(struct pci_dev *pdev, struct nvgrace_gpu *gpu,
			const struct gpu_memory *mem)
{
	bool claimed = true;
	int ret;

	ret = check_no_ram(pdev, mem);
	if (ret)
		return ret;

	ret = list_gpu(gpu, mem);
	if (ret)
		return ret;

	ret = make_regions(pdev, gpu, mem);
	if (ret)
		goto unlist;

	ret = claim_region(pdev, &gpu->usemem, "usemem", &claimed);
	if (!ret)
		ret = claim_region(pdev, &gpu->resmem, "resmem", &claimed);
	/* Without a claim, RAM may have been added since the check. */
	if (!ret && !claimed)
		ret = check_no_ram(pdev, mem);
	if (ret)
		goto unlist;

	ret = nvgrace_gpu_ready_init(gpu);
	if (ret)
		goto unlist;
	ret = pci_enable_device(pdev);
	if (ret) {
		pci_err(pdev, "the device can't be enabled (error %d); power-cycle the host\n",
			ret);
		goto exit;
	}
	ret = nvgrace_gpu_gate_wait_probe(gpu);
	pci_disable_device(pdev);
	if (!ret)
		return 0;
	if (ret == -EIO)
		pci_err(pdev, "the device does not leave D3, or does not decode memory; power-cycle the host\n");

exit:
	nvgrace_gpu_ready_exit(gpu);
unlist:
	unlist_gpu(gpu);
	return ret;
}

/* Logs why vfio refuses the device, with what helps. */
static void report_vfio(struct pci_dev *pdev, int err)
{
	const char *remedy = "the lines above say why";

	if (err == -EINVAL)
		remedy = "it has no coherent IOMMU; switch that on in firmware and kernel";
	else if (err == -ENOMEM)
		remedy = "there is too little memory; free some and bind it again";
	pci_err(pdev, "vfio refuses the device (error %d): %s\n", err, remedy);
}

/* Logs what was bound, without addresses, which are for root: /proc/iomem has them. */
static void report_bound(struct pci_dev *pdev, const struct nvgrace_gpu *gpu)
{
	if (!gpu->usemem.length)
		pci_info(pdev, "firmware gives no %s: bound as a plain PCI device, without GPU memory\n",
			 PROP_BASE);
	else
		pci_info(pdev, "usemem %#llx bytes as BAR4 of %#llx, resmem %#llx bytes as BAR2 of %#llx\n",
			 gpu->usemem.length, gpu->usemem.bar_size,
			 gpu->resmem.length, gpu->resmem.bar_size);
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	const struct vfio_device_ops *ops = &nvgrace_gpu_device_memory_ops;
	struct gpu_memory mem = { };
	struct nvgrace_gpu *gpu;
	int ret;

	if (pci_num_vf(pdev)) {
		pci_err(pdev, "%d virtual functions are on, and somebody may use them; turn them off: echo 0 > /sys/bus/pci/devices/%s/sriov_numvfs\n",
			pci_num_vf(pdev), pci_name(pdev));
		return -EBUSY;
	}

	ret = find_memory(pdev, &mem);
	if (ret == -ENOENT)
		ops = &nvgrace_gpu_device_core_ops;
	else if (ret)
		return ret;

	gpu = vfio_alloc_device(nvgrace_gpu, core.vdev, &pdev->dev, ops);
	if (IS_ERR(gpu))
		return PTR_ERR(gpu);

	INIT_LIST_HEAD(&gpu->listed);
	spin_lock_init(&gpu->bar_lock);
	mutex_init(&gpu->window_lock);
	nvgrace_gpu_gate_init(gpu);
	nvgrace_gpu_region_init(gpu);
	nvgrace_gpu_scrub_init(gpu);
	dev_set_drvdata(&pdev->dev, &gpu->core);
	compat_dmabuf_init(&gpu->core);

	ret = compat_mapping_init(&gpu->mapping);
	if (ret)
		goto put;

	if (ops == &nvgrace_gpu_device_memory_ops) {
		ret = setup_memory(pdev, gpu, &mem);
		if (ret)
			goto unmap;
	}

	nvgrace_gpu_device_init(gpu);
	nvgrace_gpu_device_keep_awake(gpu);
	nvgrace_gpu_saved_init(gpu);
	/*
	 * Not for a GPU that goes to sleep until it is opened: waking up, the
	 * kernel restores what it has saved itself. Most binds would take twice
	 * as long.
	 */
	if (gpu->usemem.length &&
	    (gpu->no_idle_d3 || nvgrace_gpu_scrub_wanted()))
		nvgrace_gpu_saved_make(gpu, true);
	ret = vfio_pci_core_register_device(&gpu->core);
	if (ret) {
		report_vfio(pdev, ret);
		goto stop;
	}

	mutex_lock(&bound_gpus_lock);
	gpu->registered = true;
	mutex_unlock(&bound_gpus_lock);

	report_bound(pdev, gpu);
	nvgrace_gpu_scrub_registered(gpu);
	return 0;

stop:
	nvgrace_gpu_device_may_sleep(gpu);
	nvgrace_gpu_saved_exit(gpu);
	nvgrace_gpu_ready_exit(gpu);
	unlist_gpu(gpu);
unmap:
	compat_mapping_exit(&gpu->mapping);
put:
	vfio_put_device(&gpu->core.vdev);
	return ret;
}

static void remove(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev);

	/* Returns when the last user has closed the device. */
	vfio_pci_core_unregister_device(&gpu->core);
	nvgrace_gpu_scrub_removing(gpu);
	nvgrace_gpu_device_may_sleep(gpu);
	nvgrace_gpu_saved_exit(gpu);
	nvgrace_gpu_ready_exit(gpu);
	unlist_gpu(gpu);
	compat_mapping_exit(&gpu->mapping);
	vfio_put_device(&gpu->core.vdev);
}

/* LCOV_EXCL_START: gcov's counters are read before the machine shuts down. */

/*
 * Before power-off, reboot and kexec: the parameter demands clean memory. The
 * kernel shuts devices down one after the other, so the first begins for all.
 */
static void shutdown(struct pci_dev *pdev)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(&pdev->dev), *other;

	mutex_lock(&bound_gpus_lock);
	list_for_each_entry(other, &bound_gpus, listed)
		/* A bind that fails would free what a scrub needs. */
		if (other != gpu && other->registered)
			nvgrace_gpu_scrub_ahead(other);
	mutex_unlock(&bound_gpus_lock);
	nvgrace_gpu_scrub_removing(gpu);
}

/* LCOV_EXCL_STOP */

/* For driver_override only: without that, no GPU is bound. */
#define GPU(device, ...) \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, device) },

static const struct pci_device_id nvgrace_gpu_ids[] = {
	NVGRACE_GPU_IDS(GPU)
	{ }
};
MODULE_DEVICE_TABLE(pci, nvgrace_gpu_ids);

static struct pci_driver nvgrace_gpu_driver = {
	.name			= KBUILD_MODNAME,
	.id_table		= nvgrace_gpu_ids,
	.probe			= probe,
	.remove			= remove,
	.shutdown		= shutdown,
	.err_handler		= &nvgrace_gpu_reset_handlers,
	.groups			= nvgrace_gpu_sysfs_driver_groups,
	.dev_groups		= nvgrace_gpu_sysfs_dev_groups,
	.driver_managed_dma	= true,
	/* A probe may wait for seconds, so let GPUs wait at the same time. */
	.driver.probe_type	= PROBE_PREFER_ASYNCHRONOUS,
};

/* Calls @fn for each bound GPU. One that is still being bound is none. */
static void call_each_gpu(void (*fn)(struct nvgrace_gpu *gpu))
{
	struct nvgrace_gpu *gpu;

	mutex_lock(&bound_gpus_lock);
	list_for_each_entry(gpu, &bound_gpus, listed)
		if (gpu->registered)
			fn(gpu);
	mutex_unlock(&bound_gpus_lock);
}

/*
 * The host's sleep reaches the driver through a device of its own: vfio-pci-core
 * replaces the power operations of its driver whenever a GPU is bound, even if
 * that fails. prepare() comes when user space is frozen and no bind runs. The
 * workers of a scrub are not frozen, so the gate is closed until complete(). A
 * freezable workqueue would not do: a scrub takes longer than tasks have to
 * freeze.
 */
static int sleep_prepare(struct device *dev)
{
	call_each_gpu(nvgrace_gpu_gate_suspend);
	return 0;
}

static void sleep_complete(struct device *dev)
{
	call_each_gpu(nvgrace_gpu_gate_resume);
}

/* Hibernation: another kernel may use the GPU until this one is back. */
static int sleep_freeze(struct device *dev)
{
	call_each_gpu(nvgrace_gpu_scrub_doubt);
	return 0;
}

static const struct dev_pm_ops sleep_ops = {
	.prepare	= sleep_prepare,
	.complete	= sleep_complete,
	.freeze		= sleep_freeze,
};

static struct platform_driver sleep_driver = {
	.driver = {
		.name	= KBUILD_MODNAME,
		.pm	= &sleep_ops,
	},
};

static int __init sleep_probe(struct platform_device *pdev)
{
	return 0;
}

static struct platform_device *sleep_device;

static void unload_sleep(void)
{
	platform_device_unregister(sleep_device);
	platform_driver_unregister(&sleep_driver);
}

static int __init load(void)
{
	int ret = nvgrace_gpu_scrub_load();

	if (ret)
		return ret;
	sleep_device = platform_create_bundle(&sleep_driver, sleep_probe, NULL,
					      0, NULL, 0);
	if (IS_ERR(sleep_device)) {
		ret = PTR_ERR(sleep_device);
		goto unload_scrub;
	}
	ret = pci_register_driver(&nvgrace_gpu_driver);
	if (ret)
		goto unload_sleep;
	return 0;

unload_sleep:
	unload_sleep();
unload_scrub:
	nvgrace_gpu_scrub_unload();
	return ret;
}
module_init(load);

static void __exit unload(void)
{
	pci_unregister_driver(&nvgrace_gpu_driver);
	unload_sleep();
	nvgrace_gpu_scrub_unload();
}
module_exit(unload);

MODULE_LICENSE("GPL");
MODULE_VERSION(NVGRACE_GPU_VERSION);
MODULE_AUTHOR(NVGRACE_GPU_MAINTAINER);
MODULE_DESCRIPTION("VFIO PCI variant driver for NVIDIA Grace GPUs and their coherent memory");
