// SPDX-License-Identifier: GPL-2.0-only
/*
 * The vfio operations and the life of an open device. Passes each access to the
 * file that owns the region, and everything else to vfio-pci-core.
 */
#include <linux/module.h>
#include <linux/pm_runtime.h>
#include <linux/vfio_pci_core.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"
#include "trace.h"

/*
 * As vfio-pci's own parameter, which has no effect on other drivers since Linux
 * 7.2: some hosts can't bring a GPU back from D3.
 */
static bool disable_idle_d3;
module_param(disable_idle_d3, bool, 0644);
MODULE_PARM_DESC(disable_idle_d3, "Keep a GPU that is not open in D0; takes effect when it is bound (default: N)");

void nvgrace_gpu_device_init(struct nvgrace_gpu *gpu)
{
	gpu->no_idle_d3 = READ_ONCE(disable_idle_d3);
	compat_no_idle_d3(&gpu->core, gpu->no_idle_d3);
}

void nvgrace_gpu_device_keep_awake(struct nvgrace_gpu *gpu)
{
	if (COMPAT_KEEP_AWAKE && gpu->no_idle_d3)
		pm_runtime_get_noresume(&gpu->core.pdev->dev);
}

void nvgrace_gpu_device_may_sleep(struct nvgrace_gpu *gpu)
{
	if (COMPAT_KEEP_AWAKE && gpu->no_idle_d3)
		pm_runtime_put(&gpu->core.pdev->dev);
}

static int open_device(struct vfio_device *core_vdev)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);
	int ret;

	ret = nvgrace_gpu_scrub_before_open(gpu);
	if (ret)
		return ret;

	nvgrace_gpu_reset_open_begins(gpu);
	ret = vfio_pci_core_enable(&gpu->core);
	if (!ret)
		nvgrace_gpu_saved_make(gpu, false);
	nvgrace_gpu_reset_open_ends(gpu);
	if (!ret) {
		ret = nvgrace_gpu_scrub_opened(gpu);
		if (ret)
			vfio_pci_core_disable(&gpu->core);
	}
	if (ret) {
		nvgrace_gpu_scrub_open_failed(gpu);
		return ret;
	}
	nvgrace_gpu_device_may_sleep(gpu);

	nvgrace_gpu_gate_device_opened(gpu);
	nvgrace_gpu_region_open(&gpu->usemem);
	nvgrace_gpu_region_open(&gpu->resmem);

	vfio_pci_core_finish_enable(&gpu->core);
	return 0;
}

static void close_device(struct vfio_device *core_vdev)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);

	nvgrace_gpu_gate_device_closing(gpu);
	nvgrace_gpu_region_close(&gpu->usemem);
	nvgrace_gpu_region_close(&gpu->resmem);
	nvgrace_gpu_device_keep_awake(gpu);
	nvgrace_gpu_scrub_before_close(gpu);
	vfio_pci_core_close_device(core_vdev);
	nvgrace_gpu_scrub_closed(gpu);
}

static ssize_t write_config(struct nvgrace_gpu *gpu, const char __user *buf,
			    size_t count, loff_t *ppos)
{
	bool hides = nvgrace_gpu_gate_config_hides(gpu, *ppos & VFIO_PCI_OFFSET_MASK,
						   count);
	ssize_t ret;

	/*
	 * Before, so that nothing is mapped when the memory goes, and after:
	 * faults may have mapped it again, and leaving D3hot may be a reset,
	 * which nothing reports.
	 */
	if (hides)
		nvgrace_gpu_gate_asleep(gpu);
	ret = nvgrace_gpu_cfgemu_write(gpu, buf, count, ppos);
	if (hides)
		nvgrace_gpu_gate_asleep(gpu);
	return ret;
}

/* Passes an access to the owner of its region. */
static ssize_t access_device(struct vfio_device *core_vdev, char __user *buf,
			     size_t count, loff_t *ppos, bool write)
{
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);
	unsigned int index = VFIO_PCI_OFFSET_TO_INDEX(*ppos);
	struct nvgrace_gpu_region *region = nvgrace_gpu_region(gpu, index);

	if (region)
		return nvgrace_gpu_rw(region, buf, count, ppos, write);
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return write ? write_config(gpu, buf, count, ppos) :
			       nvgrace_gpu_cfgemu_read(gpu, buf, count, ppos);
	return write ? vfio_pci_core_write(core_vdev, buf, count, ppos) :
		       vfio_pci_core_read(core_vdev, buf, count, ppos);
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
	struct nvgrace_gpu *gpu = to_nvgrace_gpu(core_vdev);
	int ret;

	nvgrace_gpu_reset_open_begins(gpu);
	ret = vfio_pci_core_enable(&gpu->core);
	nvgrace_gpu_reset_open_ends(gpu);
	if (ret)
		return ret;
	nvgrace_gpu_device_may_sleep(gpu);
	vfio_pci_core_finish_enable(&gpu->core);
	return 0;
}

static void close_core_only(struct vfio_device *core_vdev)
{
	nvgrace_gpu_device_keep_awake(to_nvgrace_gpu(core_vdev));
	vfio_pci_core_close_device(core_vdev);
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
	.close_device	= close_core_only,
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
