/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Makes the images again that have this project's files, or should have them:
 * after bind and unbind --persist, and for the packages.
 */
#ifndef NVGRACE_GPU_BIND_RENEW_H
#define NVGRACE_GPU_BIND_RENEW_H

#include <glib.h>

#include "facts/initramfs.h"

struct renewal {
	char *image, *release;	/* release: NULL for one of the kernel of crash dumps */
	struct image_owner owner;
	bool wants;		/* it should have the files */
};

enum renew_reason {
	RENEW_CHANGED,	/* the configuration or the files have changed */
	RENEW_CHECK,	/* only images that differ from what is installed, or are older */
	RENEW_REMOVE,	/* all that have a file, because the package goes */
};

/*
 * The images to make again, all or of one kernel; g_ptr_array_unref() frees them.
 * binds: whether the configuration binds a GPU, so that each image should have the
 * files. An image that can't be listed is made again if it should have them and
 * something has changed, or if doubt is true.
 */
GPtrArray *renew_plan(struct host *h, const char *release, enum renew_reason reason, bool binds,
		      bool doubt);

/*
 * Makes one of them again, and asks it what it has then. NULL, or the failure with its
 * remedy, to be freed. *status: the program's exit status, or -1.
 */
char *renew_image(struct host *h, const struct renewal *renewal, int *status);

#endif
