/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The interface between importer.c and the test programs. An open file of
 * /dev/dmabuf_importer is one attachment of one dma-buf to one PCI device.
 */
#ifndef DMABUF_IMPORTER_H
#define DMABUF_IMPORTER_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define IMPORTER_ENTRIES	8

struct importer_attach {
	__s32 fd;
	/* Whether to promise to give up revoked mappings. */
	__u32 revocable;
	/*
	 * The PCI device that would do the DMA: domain, bus, and device and
	 * function.
	 */
	__u32 domain;
	__u32 bus;
	__u32 devfn;
};

struct importer_map {
	/* Entries of the scatter list; as many as fit are in entries. */
	__u32 count;
	/* How often the exporter has revoked the mapping, or would have. */
	__u32 invalidated;
	/* Whether it is mapped. */
	__u32 mapped;
	__u32 unused;
	struct {
		__u64 address;
		__u64 length;
	} entries[IMPORTER_ENTRIES];
};

#define IMPORTER_ATTACH	_IOW('I', 0, struct importer_attach)
#define IMPORTER_MAP	_IOR('I', 1, struct importer_map)
#define IMPORTER_UNMAP	_IO('I', 2)
#define IMPORTER_STATE	_IOR('I', 3, struct importer_map)

#endif /* DMABUF_IMPORTER_H */
