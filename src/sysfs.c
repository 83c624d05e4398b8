// SPDX-License-Identifier: GPL-2.0-only
/*
 * The group "nvgrace_gpu" of a bound device, with attributes to read and one
 * that starts a scrub, and the driver's attribute "features".
 * docs/ABI/sysfs-driver-nvgrace-gpu is the contract. The driver core makes the
 * group after a successful probe. It removes the group, with all readers gone,
 * before the device is unbound.
 */
#include <linux/device.h>
#include <linux/kstrtox.h>
#include <linux/pci.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/vfio_pci_core.h>

#include "compat/compat.h"
#include "nvgrace_gpu.h"

static ssize_t mode_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(dev);
	const char *mode = "carve-out";

	if (!gpu->usemem.length)
		mode = "core-only";
	else if (!gpu->resmem.length)
		mode = "no-carve-out";
	return sysfs_emit(buf, "%s\n", mode);
}
static DEVICE_ATTR_RO(mode);

static ssize_t readiness_show(struct device *dev,
			      struct device_attribute *attr, char *buf)
{
	static const char *const words[] = {
		[NVGRACE_GPU_UNKNOWN]	= "unknown",
		[NVGRACE_GPU_READY]	= "ready",
		[NVGRACE_GPU_FAILED]	= "failed",
	};

	return sysfs_emit(buf, "%s\n",
			  words[nvgrace_gpu_gate_readiness(dev_to_nvgrace_gpu(dev))]);
}
static DEVICE_ATTR_RO(readiness);

static ssize_t scrub_state_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	static const char *const words[] = {
		[NVGRACE_GPU_SCRUB_UNKNOWN]	= "unknown",
		[NVGRACE_GPU_SCRUB_RUNNING]	= "scrubbing",
		[NVGRACE_GPU_SCRUB_CLEAN]	= "clean",
		[NVGRACE_GPU_SCRUB_DIRTY]	= "dirty",
		[NVGRACE_GPU_SCRUB_FAILED]	= "failed",
	};
	enum nvgrace_gpu_scrub_state state =
		nvgrace_gpu_scrub_state(dev_to_nvgrace_gpu(dev));

	/* With scrub off, these states only say that nothing is known. */
	if (!nvgrace_gpu_scrub_wanted() &&
	    (state == NVGRACE_GPU_SCRUB_UNKNOWN ||
	     state == NVGRACE_GPU_SCRUB_DIRTY))
		return sysfs_emit(buf, "off\n");
	return sysfs_emit(buf, "%s\n", words[state]);
}
static DEVICE_ATTR_RO(scrub_state);

static ssize_t scrub_progress_show(struct device *dev,
				   struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n",
			  nvgrace_gpu_scrub_progress(dev_to_nvgrace_gpu(dev)));
}
static DEVICE_ATTR_RO(scrub_progress);

/* How the last scrub ended; 0 and "none" before the first. */
#define LAST_ATTR(_field)						\
static ssize_t scrub_##_field##_show(struct device *dev,		\
				     struct device_attribute *attr,	\
				     char *buf)				\
{									\
	return sysfs_emit(buf, "%lld\n",				\
			  (s64)nvgrace_gpu_scrub_last(dev_to_nvgrace_gpu(dev))._field);\
}									\
static DEVICE_ATTR_RO(scrub_##_field)

LAST_ATTR(count);
LAST_ATTR(time);
LAST_ATTR(ms);

static ssize_t scrub_result_show(struct device *dev,
				 struct device_attribute *attr, char *buf)
{
	struct nvgrace_gpu_scrub_record last =
		nvgrace_gpu_scrub_last(dev_to_nvgrace_gpu(dev));

	return sysfs_emit(buf, "%s\n", !last.count ? "none" :
			  last.clean ? "clean" : "failed");
}
static DEVICE_ATTR_RO(scrub_result);

static ssize_t scrub_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t count)
{
	bool start;
	int ret = kstrtobool(buf, &start);

	if (ret || !start)
		return -EINVAL;
	ret = nvgrace_gpu_scrub_on_demand(dev_to_nvgrace_gpu(dev));
	return ret ?: count;
}
static DEVICE_ATTR_WO(scrub);

#define SIZE_ATTR(_part, _name, _field)					\
static ssize_t _part##_##_name##_show(struct device *dev,		\
				      struct device_attribute *attr,	\
				      char *buf)			\
{									\
	return sysfs_emit(buf, "%llu\n", dev_to_nvgrace_gpu(dev)->_part._field);\
}									\
static DEVICE_ATTR_RO(_part##_##_name)

SIZE_ATTR(usemem, size, length);
SIZE_ATTR(usemem, bar_size, bar_size);
SIZE_ATTR(resmem, size, length);
SIZE_ATTR(resmem, bar_size, bar_size);

/* For root: physical addresses help an attacker more than a user. */
#define BASE_ATTR(_part)						\
static ssize_t _part##_base_show(struct device *dev,			\
				 struct device_attribute *attr,		\
				 char *buf)				\
{									\
	return sysfs_emit(buf, "%#llx\n",				\
			  (u64)dev_to_nvgrace_gpu(dev)->_part.base);		\
}									\
static DEVICE_ATTR_ADMIN_RO(_part##_base)

BASE_ATTR(usemem);
BASE_ATTR(resmem);

static struct attribute *gpu_attrs[] = {
	&dev_attr_mode.attr,
	&dev_attr_readiness.attr,
	&dev_attr_scrub.attr,
	&dev_attr_scrub_state.attr,
	&dev_attr_scrub_progress.attr,
	&dev_attr_scrub_count.attr,
	&dev_attr_scrub_result.attr,
	&dev_attr_scrub_time.attr,
	&dev_attr_scrub_ms.attr,
	&dev_attr_usemem_size.attr,
	&dev_attr_usemem_bar_size.attr,
	&dev_attr_usemem_base.attr,
	&dev_attr_resmem_size.attr,
	&dev_attr_resmem_bar_size.attr,
	&dev_attr_resmem_base.attr,
	NULL
};

/* An attribute that does not apply to the device has no file. */
static umode_t is_visible(struct kobject *kobj, struct attribute *attr,
			  int index)
{
	struct nvgrace_gpu *gpu = dev_to_nvgrace_gpu(kobj_to_dev(kobj));

	if (attr == &dev_attr_mode.attr)
		return attr->mode;
	if (strstarts(attr->name, "resmem_"))
		return gpu->resmem.length ? attr->mode : 0;
	return gpu->usemem.length ? attr->mode : 0;
}

static const struct attribute_group gpu_group = {
	.name		= "nvgrace_gpu",
	.attrs		= gpu_attrs,
	.is_visible	= is_visible,
};

const struct attribute_group *nvgrace_gpu_sysfs_dev_groups[] = {
	&gpu_group,
	NULL
};

/* What this build of the module can do on this kernel. */
static const struct {
	const char *name;
	bool has;
} features[] = {
	{ "iommufd",		COMPAT_HAS_IOMMUFD },
	{ "pmd_pfnmap",		COMPAT_HAS_PMD_PFNMAP },
	{ "pud_pfnmap",		COMPAT_HAS_PUD_PFNMAP },
	{ "uncached_guest",	COMPAT_HAS_UNCACHED_GUEST },
	{ "poison",		COMPAT_HAS_POISON },
	{ "dmabuf",		COMPAT_HAS_DMABUF },
	/*
	 * Always: earlier versions of the module lacked them, on some kernels
	 * or all.
	 */
	{ "zap",		true },
	{ "scrub",		true },
};

static ssize_t features_show(struct device_driver *drv, char *buf)
{
	unsigned int i;
	int len = 0;

	for (i = 0; i < ARRAY_SIZE(features); i++) {
		if (features[i].has)
			len += sysfs_emit_at(buf, len, "%s%s", len ? " " : "",
					     features[i].name);
	}
	return len + sysfs_emit_at(buf, len, "%s\n", len ? "" : "none");
}
static DRIVER_ATTR_RO(features);

static struct attribute *driver_attrs[] = {
	&driver_attr_features.attr,
	NULL
};

static const struct attribute_group driver_group = {
	.attrs = driver_attrs,
};

const struct attribute_group *nvgrace_gpu_sysfs_driver_groups[] = {
	&driver_group,
	NULL
};
