/* SPDX-License-Identifier: GPL-2.0-only */
/* Operations and functions of vfio that not every kernel has. See compat.h. */
#ifndef NVGRACE_GPU_COMPAT_VFIO_H
#define NVGRACE_GPU_COMPAT_VFIO_H

#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio_pci_core.h>

#ifdef HAVE_BIND_IOMMUFD
#define COMPAT_HAS_IOMMUFD	IS_ENABLED(CONFIG_IOMMUFD)
#define COMPAT_BIND_IOMMUFD_OPS						\
	.bind_iommufd = vfio_iommufd_physical_bind,			\
	.unbind_iommufd = vfio_iommufd_physical_unbind,			\
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
#else
#define COMPAT_HAS_IOMMUFD	false
#define COMPAT_BIND_IOMMUFD_OPS
#endif

#ifdef HAVE_DETACH_IOAS
#define COMPAT_DETACH_IOAS_OPS						\
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
#else
#define COMPAT_DETACH_IOAS_OPS
#endif

#ifdef HAVE_PASID_ATTACH_IOAS
#define COMPAT_PASID_OPS						\
	.pasid_attach_ioas = vfio_iommufd_physical_pasid_attach_ioas,	\
	.pasid_detach_ioas = vfio_iommufd_physical_pasid_detach_ioas,
#else
#define COMPAT_PASID_OPS
#endif

#ifdef HAVE_MATCH_TOKEN_UUID
#define COMPAT_MATCH_TOKEN_OPS						\
	.match_token_uuid = vfio_pci_core_match_token_uuid,
#else
#define COMPAT_MATCH_TOKEN_OPS
#endif

/* Members of vfio_device_ops that are vfio-pci-core's, if they exist. */
#define COMPAT_VFIO_DEVICE_OPS						\
	COMPAT_BIND_IOMMUFD_OPS						\
	COMPAT_DETACH_IOAS_OPS						\
	COMPAT_PASID_OPS						\
	COMPAT_MATCH_TOKEN_OPS

/* The get_region_info_caps operation of newer kernels. */
typedef int (*compat_region_info_t)(struct vfio_device *core_vdev,
				    struct vfio_region_info *info,
				    struct vfio_info_cap *caps);

#ifdef HAVE_GET_REGION_INFO_CAPS

#define COMPAT_REGION_INFO_OPS(fn)	.get_region_info_caps = (fn),

static inline int compat_core_region_info(struct vfio_device *core_vdev,
					  struct vfio_region_info *info,
					  struct vfio_info_cap *caps)
{
	return vfio_pci_ioctl_get_region_info(core_vdev, info, caps);
}

static inline long compat_core_ioctl(struct vfio_device *core_vdev,
				     unsigned int cmd, unsigned long arg,
				     compat_region_info_t info_of)
{
	return vfio_pci_core_ioctl(core_vdev, cmd, arg);
}

#else /* !HAVE_GET_REGION_INFO_CAPS */

#define COMPAT_REGION_INFO_OPS(fn)

/*
 * vfio-pci-core describes its regions only through its ioctl. -ENOIOCTLCMD
 * makes compat_core_ioctl() call that.
 */
static inline int compat_core_region_info(struct vfio_device *core_vdev,
					  struct vfio_region_info *info,
					  struct vfio_info_cap *caps)
{
	return -ENOIOCTLCMD;
}

/*
 * Does for VFIO_DEVICE_GET_REGION_INFO what newer kernels do around the
 * get_region_info_caps operation, which is @info_of. Passes every other @cmd to
 * vfio-pci-core.
 */
static inline long compat_core_ioctl(struct vfio_device *core_vdev,
				     unsigned int cmd, unsigned long arg,
				     compat_region_info_t info_of)
{
	const size_t minsz = offsetofend(struct vfio_region_info, offset);
	struct vfio_region_info __user *user = (void __user *)arg;
	struct vfio_region_info info = { };
	struct vfio_info_cap caps = { };
	int ret;

	if (cmd != VFIO_DEVICE_GET_REGION_INFO)
		return vfio_pci_core_ioctl(core_vdev, cmd, arg);

	if (copy_from_user(&info, user, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;

	ret = info_of(core_vdev, &info, &caps);
	if (ret == -ENOIOCTLCMD)
		return vfio_pci_core_ioctl(core_vdev, cmd, arg);
	if (ret)
		goto out;

	info.cap_offset = 0;
	if (caps.size) {
		size_t need = sizeof(info) + caps.size;

		info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
		if (info.argsz < need) {
			info.argsz = need;
		} else {
			vfio_info_cap_shift(&caps, sizeof(info));
			if (copy_to_user(user + 1, caps.buf, caps.size))
				ret = -EFAULT;
			info.cap_offset = sizeof(info);
		}
	}
	if (!ret && copy_to_user(user, &info, minsz))
		ret = -EFAULT;
out:
	kfree(caps.buf);
	return ret;
}

#endif /* HAVE_GET_REGION_INFO_CAPS */

#ifdef HAVE_GET_DMABUF_PHYS

#define COMPAT_HAS_DMABUF	IS_ENABLED(CONFIG_VFIO_PCI_DMABUF)

/*
 * Lets vfio-pci-core export memory of regions that src/dmabuf.c knows as
 * dma-bufs. Called before the device is registered with vfio.
 */
void compat_dmabuf_init(struct vfio_pci_core_device *core);

#else /* !HAVE_GET_DMABUF_PHYS */

#define COMPAT_HAS_DMABUF	false

static inline void compat_dmabuf_init(struct vfio_pci_core_device *core)
{
}

#endif /* HAVE_GET_DMABUF_PHYS */

/*
 * Tells vfio-pci-core whether a device that is not open stays in D0, before it is
 * registered. Otherwise, with COMPAT_KEEP_AWAKE, the driver has to hold a
 * reference of runtime power management while the device is not open.
 */
#ifdef HAVE_CORE_DISABLE_IDLE_D3

#define COMPAT_KEEP_AWAKE	false

static inline void compat_no_idle_d3(struct vfio_pci_core_device *core, bool no)
{
	/* What vfio-pci's parameter says applies to all on some kernels. */
	core->disable_idle_d3 |= no;
}

#else /* !HAVE_CORE_DISABLE_IDLE_D3 */

#define COMPAT_KEEP_AWAKE	true

static inline void compat_no_idle_d3(struct vfio_pci_core_device *core, bool no)
{
}

#endif /* HAVE_CORE_DISABLE_IDLE_D3 */

/*
 * If vfio-pci-core maps all BARs at enable, it exports only BARs that it has
 * mapped, and a fake BAR can't be. BAR0's pointer serves as a stand-in, because
 * nothing reads or writes a fake BAR through it. Shown after
 * vfio_pci_core_enable(), and hidden before vfio_pci_core_disable(), which
 * unmaps what it finds there; while the device has no user.
 */
static inline void compat_show_bar(struct vfio_pci_core_device *core,
				   unsigned int bar, bool show)
{
#ifdef HAVE_VFIO_PCI_CORE_GET_IOMAP
	if (!show && core->barmap[bar] == core->barmap[0])
		core->barmap[bar] = IOMEM_ERR_PTR(-ENODEV);
	else if (show && IS_ERR_OR_NULL(core->barmap[bar]) &&
		 !IS_ERR_OR_NULL(core->barmap[0]))
		core->barmap[bar] = core->barmap[0];
#endif
}

#endif /* NVGRACE_GPU_COMPAT_VFIO_H */
