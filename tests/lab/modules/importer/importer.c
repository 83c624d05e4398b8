// SPDX-License-Identifier: GPL-2.0-only
/*
 * Imports dma-bufs like the driver of a device that does DMA to another
 * device's memory, and shows user space the addresses. It does no DMA. For
 * tests only: tests/driver/dmabuf.c and the program "random" use it.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "importer.h"

/**
 * struct import - an open file
 * @lock: one ioctl at a time; taken before the reservation lock
 * @pdev: the device that would do the DMA
 * @dmabuf: NULL until attached
 * @attach: what dma_buf_dynamic_attach() returned
 * @sgt: the mapping or NULL; protected by the reservation lock
 * @invalidated: how often it was revoked; protected by the reservation lock
 */
struct import {
	struct mutex lock;		/* one ioctl at a time */
	struct pci_dev *pdev;
	struct dma_buf *dmabuf;
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;
	u32 invalidated;
};

/* Must be called with the reservation lock held. */
static void give_up(struct import *im)
{
	if (im->sgt)
		dma_buf_unmap_attachment(im->attach, im->sgt,
					 DMA_BIDIRECTIONAL);
	im->sgt = NULL;
}

static void invalidate(struct dma_buf_attachment *attach)
{
	struct import *im = attach->importer_priv;

	im->invalidated++;
	give_up(im);
}

static const struct dma_buf_attach_ops revocable = {
	.allow_peer2peer = true,
	.invalidate_mappings = invalidate,
};

static const struct dma_buf_attach_ops lasting = {
	.allow_peer2peer = true,
};

static int do_attach(struct import *im, const struct importer_attach *arg)
{
	struct dma_buf_attachment *attach;
	struct dma_buf *dmabuf;
	struct pci_dev *pdev;

	if (im->dmabuf)
		return -EBUSY;
	pdev = pci_get_domain_bus_and_slot(arg->domain, arg->bus, arg->devfn);
	if (!pdev)
		return -ENODEV;
	dmabuf = dma_buf_get(arg->fd);
	if (IS_ERR(dmabuf)) {
		pci_dev_put(pdev);
		return PTR_ERR(dmabuf);
	}
	attach = dma_buf_dynamic_attach(dmabuf, &pdev->dev,
					arg->revocable ? &revocable : &lasting,
					im);
	if (IS_ERR(attach)) {
		dma_buf_put(dmabuf);
		pci_dev_put(pdev);
		return PTR_ERR(attach);
	}
	im->pdev = pdev;
	im->dmabuf = dmabuf;
	im->attach = attach;
	return 0;
}

static int do_map(struct import *im)
{
	struct sg_table *sgt;
	int ret = 0;

	dma_resv_lock(im->dmabuf->resv, NULL);
	if (!im->sgt) {
		sgt = dma_buf_map_attachment(im->attach, DMA_BIDIRECTIONAL);
		if (IS_ERR(sgt))
			ret = PTR_ERR(sgt);
		else
			im->sgt = sgt;
	}
	dma_resv_unlock(im->dmabuf->resv);
	return ret;
}

static void do_unmap(struct import *im)
{
	dma_resv_lock(im->dmabuf->resv, NULL);
	give_up(im);
	dma_resv_unlock(im->dmabuf->resv);
}

static void describe(struct import *im, struct importer_map *map)
{
	struct scatterlist *sg;
	int i;

	*map = (struct importer_map){ };
	dma_resv_lock(im->dmabuf->resv, NULL);
	map->invalidated = im->invalidated;
	map->mapped = !!im->sgt;
	if (im->sgt) {
		map->count = im->sgt->nents;
		for_each_sgtable_dma_sg(im->sgt, sg, i) {
			if (i >= IMPORTER_ENTRIES)
				break;
			map->entries[i].address = sg_dma_address(sg);
			map->entries[i].length = sg_dma_len(sg);
		}
	}
	dma_resv_unlock(im->dmabuf->resv);
}

static long importer_ioctl(struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	struct import *im = file->private_data;
	void __user *user = (void __user *)arg;
	struct importer_attach attach;
	struct importer_map map;
	long ret = 0;

	if (cmd == IMPORTER_ATTACH &&
	    copy_from_user(&attach, user, sizeof(attach)))
		return -EFAULT;

	mutex_lock(&im->lock);
	if (cmd == IMPORTER_ATTACH)
		ret = do_attach(im, &attach);
	else if (!im->dmabuf)
		ret = -ENXIO;
	else if (cmd == IMPORTER_MAP)
		ret = do_map(im);
	else if (cmd == IMPORTER_UNMAP)
		do_unmap(im);
	else if (cmd != IMPORTER_STATE)
		ret = -ENOTTY;
	if (!ret && (cmd == IMPORTER_MAP || cmd == IMPORTER_STATE))
		describe(im, &map);
	mutex_unlock(&im->lock);

	if (!ret && (cmd == IMPORTER_MAP || cmd == IMPORTER_STATE) &&
	    copy_to_user(user, &map, sizeof(map)))
		ret = -EFAULT;
	return ret;
}

static int importer_open(struct inode *inode, struct file *file)
{
	struct import *im = kzalloc(sizeof(*im), GFP_KERNEL);

	if (!im)
		return -ENOMEM;
	mutex_init(&im->lock);
	file->private_data = im;
	return 0;
}

static int importer_release(struct inode *inode, struct file *file)
{
	struct import *im = file->private_data;

	if (im->dmabuf) {
		do_unmap(im);
		dma_buf_detach(im->dmabuf, im->attach);
		dma_buf_put(im->dmabuf);
		pci_dev_put(im->pdev);
	}
	kfree(im);
	return 0;
}

static const struct file_operations importer_fops = {
	.owner		= THIS_MODULE,
	.open		= importer_open,
	.release	= importer_release,
	.unlocked_ioctl	= importer_ioctl,
};

static struct miscdevice importer = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dmabuf_importer",
	.fops	= &importer_fops,
};
module_misc_device(importer);

MODULE_IMPORT_NS("DMA_BUF");
MODULE_LICENSE("GPL");
MODULE_AUTHOR("The nvgrace-gpu-vfio-pci authors");
MODULE_DESCRIPTION("Imports dma-bufs, for tests");
