// SPDX-License-Identifier: GPL-2.0-only
/* Access: the client must get no executable mapping, and no other GPU. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>

#include "privilege.h"

/* ---- execution ------------------------------------------------------------ */

/* Whether this process has an executable mapping of vfio. */
static bool maps_executable(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512], mode[8] = "";
	bool found = false;

	if (!f)
		client_says("can't read /proc/self/maps");
	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "vfio") && sscanf(line, "%*s %7s", mode) == 1)
			found |= !!strchr(mode, 'x');
	}
	if (f)
		fclose(f);
	/* At least one line was parsed. */
	client_expects(*mode);
	return found;
}

static void try_to_execute(void)
{
	static const int prots[] = {
		PROT_EXEC, PROT_READ | PROT_EXEC, RW | PROT_EXEC
	};
	unsigned int i, k;
	struct vfio v;
	char *map;

	if (!client_open(&v))
		return;
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		for (k = 0; k < ARRAY_SIZE(prots); k++) {
			map = mmap(NULL, page, prots[k], MAP_SHARED, v.device,
				   REGION(parts[i].index));
			client_expects(map == MAP_FAILED && errno == EPERM);
		}
		map = map_part(&v, &parts[i], page);
		client_expects(map != MAP_FAILED);
		for (k = 0; k < ARRAY_SIZE(prots); k++)
			client_expects(mprotect(map, page, prots[k]) == -1 &&
				       errno == EACCES);
		client_expects(!maps_executable());

		/* From now on, PROT_READ implies PROT_EXEC for this process. */
		client_expects(personality(READ_IMPLIES_EXEC) != -1);
		if (!mprotect(map, page, PROT_READ))
			client_expects(!maps_executable());
		mmap(NULL, page, PROT_READ, MAP_SHARED, v.device,
		     REGION(parts[i].index));
		client_expects(!maps_executable());
		client_expects(personality(0) != -1);
		munmap(map, page);
	}
}

void nothing_can_be_executed(void **state)
{
	as_client(try_to_execute);
}

/* ---- other GPUs ----------------------------------------------------------- */

static char other_group[32];

static void try_others(void)
{
	static union {
		struct vfio_pci_hot_reset reset;
		char bytes[sizeof(struct vfio_pci_hot_reset) + 8];
	} u;
	struct vfio v, w;

	client_expects(vfio_try_open(&w, other) == -EACCES);
	client_expects(open(other_group, O_RDWR) == -1 && errno == EACCES);
	client_expects(open("/dev/mem", O_RDONLY) == -1);
	if (!client_open(&v))
		return;
	if (!by_cdev) {
		client_expects(ioctl(v.group, VFIO_GROUP_GET_DEVICE_FD,
				     other->addr) == -1 && errno == ENODEV);
		client_expects(ioctl(v.group, VFIO_GROUP_GET_DEVICE_FD,
				     other->port) == -1 && errno == ENODEV);
	}
	/*
	 * A hot reset requires proof that the caller owns everything on the
	 * bus.
	 */
	u.reset.argsz = sizeof(u.reset) + 4;
	u.reset.count = 1;
	u.reset.group_fds[0] = v.device;
	client_expects(ioctl(v.device, VFIO_DEVICE_PCI_HOT_RESET, &u) == -1);
	u.reset.group_fds[0] = v.iommu;
	client_expects(ioctl(v.device, VFIO_DEVICE_PCI_HOT_RESET, &u) == -1);
	u.reset.argsz += 4;
	u.reset.count = 2;
	u.reset.group_fds[0] = v.group;
	u.reset.group_fds[1] = -1;
	client_expects(ioctl(v.device, VFIO_DEVICE_PCI_HOT_RESET, &u) == -1);
}

void other_gpus_are_refused(void **state)
{
	assert_int_equal(gpu_bind(other), 0);
	snprintf(other_group, sizeof(other_group), "/dev/vfio/%d",
		 gpu_group(other));
	as_client(try_others);
	assert_int_equal(gpu_unbind(other), 0);
}
