// SPDX-License-Identifier: GPL-2.0-only
/*
 * The vfio operations, the life of an open device, and the host's sleep. Passes
 * each access to the file that owns the region, and everything else to
 * vfio-pci-core.
 */
#include <linux/vfio_pci_core.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

static int open_device(struct vfio_device *core_vdev)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);
	int ret;

	ret = nvgrace_gpu_scrub_before_open(gpu);
	if (ret)
		return ret;

	ret = vfio_pci_core_enable(&gpu->core);
	if (ret)
		goto cancel;

	ret = nvgrace_gpu_ready_map(gpu);
	if (ret)
		goto disable;

	nvgrace_gpu_scrub_opened(gpu);
	nvgrace_gpu_gate_device_opened(gpu);
	nvgrace_gpu_region_open(&gpu->usemem);
	nvgrace_gpu_region_open(&gpu->resmem);
	nvgrace_gpu_dmabuf_open(gpu);

	vfio_pci_core_finish_enable(&gpu->core);
	return 0;

disable:
	vfio_pci_core_disable(&gpu->core);
cancel:
	nvgrace_gpu_scrub_open_failed(gpu);
	return ret;
}

static void close_device(struct vfio_device *core_vdev)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);

	nvgrace_gpu_gate_device_closing(gpu);
	nvgrace_gpu_region_close(&gpu->usemem);
	nvgrace_gpu_region_close(&gpu->resmem);
	nvgrace_gpu_ready_unmap(gpu);
	nvgrace_gpu_dmabuf_close(gpu);
	nvgrace_gpu_scrub_before_close(gpu);
	vfio_pci_core_close_device(core_vdev);
	nvgrace_gpu_scrub_closed(gpu);
}

static ssize_t write_config(struct nvgrace_gpu *gpu, const char __user *buf,
			    size_t count, loff_t *ppos)
{
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	ssize_t ret;

	ret = nvgrace_gpu_gate_config_begin(gpu, offset, count);
	if (ret)
		return ret;
	ret = nvgrace_gpu_cfgemu_write(gpu, buf, count, ppos);
	nvgrace_gpu_gate_config_end(gpu, offset, count);
	return ret;
}

/* Passes an access to the owner of its region and traces it. */
static ssize_t access_device(struct vfio_device *core_vdev, char __user *buf,
			     size_t count, loff_t *ppos, bool write)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);
	unsigned int index = VFIO_PCI_OFFSET_TO_INDEX(*ppos);
	struct nvgrace_gpu_region *region = nvgrace_gpu_region(gpu, index);
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	ssize_t ret;

	if (region) {
		u64 start = nvgrace_gpu_trace_start(rw);

		ret = write ? nvgrace_gpu_rw_write(region, buf, count, ppos) :
			      nvgrace_gpu_rw_read(region, buf, count, ppos);
		trace_nvgrace_gpu_rw(gpu->core.pdev, index, write, offset,
				     count, ret, start);
	} else if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
		ret = write ? write_config(gpu, buf, count, ppos) :
			      nvgrace_gpu_cfgemu_read(gpu, buf, count, ppos);
		trace_nvgrace_gpu_config(gpu->core.pdev, write, offset, count,
					 ret);
	} else {
		ret = write ? vfio_pci_core_write(core_vdev, buf, count, ppos) :
			      vfio_pci_core_read(core_vdev, buf, count, ppos);
	}
	return ret;
}

static ssize_t read_device(struct vfio_device *core_vdev, char __user *buf,
			   size_t count, loff_t *ppos)
{
	return access_device(core_vdev, buf, count, ppos, false);
}

static ssize_t write_device(struct vfio_device *core_vdev,
			    const char __user *buf, size_t count, loff_t *ppos)
{
	/*
	 * access_device() passes the buffer only to writes, which don't change
	 * it.
	 */
	return access_device(core_vdev, (char __user *)buf, count, ppos, true);
}

static int device_feature(struct vfio_device *core_vdev, u32 flags,
			  void __user *arg, size_t argsz)
{
	u32 feature = flags & VFIO_DEVICE_FEATURE_MASK;
	bool set = flags & VFIO_DEVICE_FEATURE_SET &&
		   !(flags & VFIO_DEVICE_FEATURE_PROBE);
	int ret;

	ret = vfio_pci_core_ioctl_feature(core_vdev, flags, arg, argsz);
	/* vfio lets the device sleep only after this has returned. */
	if (!ret && set &&
	    (feature == VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY ||
	     feature == VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP))
		nvgrace_gpu_gate_asleep(to_nvgrace_gpu(core_vdev));
	return ret;
}

/*
 * An unbind waits for the users. vfio calls this again and again until they
 * have closed the device; @count is the number of earlier calls.
 */
static void request_device(struct vfio_device *core_vdev, unsigned int count)
{
	nvgrace_gpu_scrub_requested(to_nvgrace_gpu(core_vdev));
	vfio_pci_core_request(core_vdev, count);
}

const struct vfio_device_ops nvgrace_gpu_device_memory_ops = {
	.name		= "nvgrace-gpu-vfio-pci",
	.init		= vfio_pci_core_init_dev,
	.release	= vfio_pci_core_release_dev,
	.open_device	= open_device,
	.close_device	= close_device,
	.read		= read_device,
	.write		= write_device,
	.ioctl		= nvgrace_gpu_region_ioctl,
	.mmap		= nvgrace_gpu_region_mmap,
	.device_feature	= device_feature,
	.request	= request_device,
	.match		= vfio_pci_core_match,
	COMPAT_REGION_INFO_OPS(nvgrace_gpu_region_info)
	COMPAT_VFIO_DEVICE_OPS
};

static int open_core_only(struct vfio_device *core_vdev)
{
	struct vfio_pci_core_device *core = &to_nvgrace_gpu(core_vdev)->core;
	int ret = vfio_pci_core_enable(core);

	if (!ret)
		vfio_pci_core_finish_enable(core);
	return ret;
}

/*
 * For a GPU without memory in the firmware's tables, such as one inside a
 * guest.
 */
const struct vfio_device_ops nvgrace_gpu_device_core_ops = {
	.name		= "nvgrace-gpu-vfio-pci-core",
	.init		= vfio_pci_core_init_dev,
	.release	= vfio_pci_core_release_dev,
	.open_device	= open_core_only,
	.close_device	= vfio_pci_core_close_device,
	.read		= vfio_pci_core_read,
	.write		= vfio_pci_core_write,
	.ioctl		= vfio_pci_core_ioctl,
	.mmap		= vfio_pci_core_mmap,
	.device_feature	= vfio_pci_core_ioctl_feature,
	.request	= vfio_pci_core_request,
	.match		= vfio_pci_core_match,
	COMPAT_REGION_INFO_OPS(compat_core_region_info)
	COMPAT_VFIO_DEVICE_OPS
};

/* ---- the host's sleep --------------------------------------------------- */

/* Of vfio-pci-core: it has only runtime power management. */
static const struct dev_pm_ops *core_pm;

/*
 * Called before any device sleeps, and the gate stays closed until all are
 * awake. User space is frozen meanwhile, but not the workers of a scrub. A
 * freezable workqueue would not do: a scrub takes longer than tasks have to
 * freeze, and that of a shutdown after hibernation would wait for ever.
 */
static int prepare(struct device *dev)
{
	nvgrace_gpu_gate_suspend(dev_to_nvgrace_gpu(dev));
	return 0;
}

static void complete_sleep(struct device *dev)
{
	nvgrace_gpu_gate_resume(dev_to_nvgrace_gpu(dev));
}

/* Another kernel may use the GPU until this one is back. */
static int hibernate(struct device *dev)
{
	nvgrace_gpu_scrub_hibernating(dev_to_nvgrace_gpu(dev));
	return 0;
}

static int runtime_suspend(struct device *dev)
{
	return READ_ONCE(core_pm)->runtime_suspend(dev);
}

static int runtime_resume(struct device *dev)
{
	return READ_ONCE(core_pm)->runtime_resume(dev);
}

static const struct dev_pm_ops pm_ops = {
	.prepare		= prepare,
	.complete		= complete_sleep,
	.freeze			= hibernate,
	.runtime_suspend	= runtime_suspend,
	.runtime_resume		= runtime_resume,
};

void nvgrace_gpu_device_add_pm(struct device_driver *driver)
{
	const struct dev_pm_ops *pm = READ_ONCE(driver->pm);

	/* Of two GPUs that are bound at the same time, one may be first. */
	if (pm == &pm_ops)
		return;
	/* The host does not sleep during a bind. */
	WRITE_ONCE(core_pm, pm);
	/* Who finds the operations needs core_pm. */
	smp_store_release(&driver->pm, &pm_ops);
}
