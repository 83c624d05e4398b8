// SPDX-License-Identifier: GPL-2.0-only
/* See vfio_open.h. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "open_gpu/vfio_open.h"

/* The message and status for a file that can't be opened. */
static enum exit_status refused(const char *path, int error, char **reason)
{
	switch (error) {
	case EBUSY:
		*reason = g_strdup_printf("in use: another process has %s open; end that process", path);
		return EXIT_REFUSED;
	case EACCES:
	case EPERM:
		*reason = g_strdup_printf("can't open %s: %s; use sudo, or get access to that file",
					  path, strerror(error));
		return EXIT_NOT_ROOT;
	case ENOENT:
	case ENODEV:
	case ENXIO:
		*reason = g_strdup_printf("can't open %s: %s; load the modules vfio and vfio_iommu_type1",
					  path, strerror(error));
		return EXIT_FAILED;
	default:
		*reason = g_strdup_printf("can't open %s: %s", path, strerror(error));
		return EXIT_FAILED;
	}
}

/* The message and status for a failed request. */
static enum exit_status not_viable(const char *request, int error, int iommu_group, char **reason)
{
	switch (error) {
	case EBUSY:
	case EPERM:
		*reason = g_strdup_printf("in use, or a device in its IOMMU group %d is not bound to a vfio "
					  "driver (%s: %s); run \"ls /sys/kernel/iommu_groups/"
					  "%d/devices\"", iommu_group, request, strerror(error),
					  iommu_group);
		return EXIT_REFUSED;
	case EPROTONOSUPPORT:
		*reason = g_strdup("vfio has no type1 IOMMU driver; load the module "
				   "vfio_iommu_type1");
		return EXIT_FAILED;
	default:
		*reason = g_strdup_printf("%s failed: %s", request, strerror(error));
		return EXIT_FAILED;
	}
}

/* The path of the device's own file, or NULL. */
static char *cdev_path(struct host *h, const char *address)
{
	g_auto(GStrv) names = host_list(h, DEVICES "/%s/vfio-dev", address);
	char *path = NULL;
	size_t i;

	for (i = 0; names && names[i] && !path; i++)
		if (!strncmp(names[i], "vfio", 4))
			path = g_strdup_printf("/dev/vfio/devices/%s", names[i]);
	if (path && access(path, F_OK))
		g_clear_pointer(&path, g_free);
	return path;
}

enum exit_status vfio_open(struct host *h, struct vfio *v, const char *address, int iommu_group,
			   char **reason)
{
	g_autofree char *path = cdev_path(h, address);
	int error;

	*v = VFIO_CLOSED;
	*reason = NULL;
	/* A user may have access only to the group. */
	if (path && (!access("/dev/iommu", R_OK | W_OK) || iommu_group < 0) &&
	    !access(path, R_OK | W_OK)) {
		error = vfio_open_cdev(v, path);
	} else if (iommu_group < 0) {
		*reason = g_strdup("no IOMMU group; check that the host has an IOMMU and that it is on");
		return EXIT_REFUSED;
	} else {
		error = vfio_open_group(v, iommu_group, address);
	}
	if (!error)
		return EXIT_OK;
	return *v->failed == '/' ? refused(v->failed, -error, reason) :
				   not_viable(v->failed, -error, iommu_group, reason);
}
