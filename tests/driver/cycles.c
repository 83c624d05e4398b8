// SPDX-License-Identifier: GPL-2.0-only
/*
 * Uses a GPU repeatedly: bind, open, map, access, reset, close, unbind.
 * Afterwards the kernel must have as many mappings, claims and module references
 * as before. Kernels with kmemleak look for lost memory.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib.h"

static unsigned int count;

static void use_once(const char *name)
{
	static const unsigned int indexes[2] = { USEMEM, RESMEM };
	struct vfio v;
	char word[8];
	char *map;
	int i;

	vfio_start(&v, name);
	for (i = 0; i < 2; i++) {
		map = vfio_map(&v, indexes[i], 0, 4 * MiB, RW, MAP_SHARED,
			       NULL);
		strcpy(map + 64, "before");
		assert_int_equal(vfio_reset(&v), 0);
		assert_int_equal(vfio_read(&v, REGION(indexes[i]) + 64, word,
					   7), 7);
		assert_string_equal(word, "before");
		munmap(map, 4 * MiB);
	}
	vfio_stop(&v);
}

/* Counts the lines of a text that contain @what. */
static unsigned int lines_with(const char *text, const char *what)
{
	unsigned int lines = 0;

	while ((text = strstr(text, what))) {
		lines++;
		text += strcspn(text, "\n");
	}
	return lines;
}

static long references(const char *module)
{
	char path[64], *text;
	long refs;

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", module);
	text = proc_text(path);
	refs = atol(text);
	free(text);
	return refs;
}

static void uses_leave_addresses_and_references_as_they_were(void **state)
{
	static const char *const modules[] = { DRIVER, "vfio_pci_core", "vfio" };
	char *iomem, *mappings, *now;
	unsigned int i, ioremaps;
	long refs[ARRAY_SIZE(modules)];

	/* The first use sets up what the kernel then keeps. */
	use_once("gh200");
	iomem = proc_list("/proc/iomem");
	mappings = proc_list("/proc/vmallocinfo");
	ioremaps = lines_with(mappings, "phys=");
	for (i = 0; i < ARRAY_SIZE(modules); i++)
		refs[i] = references(modules[i]);
	free(mappings);

	for (i = 0; i < count; i++)
		use_once("gh200");

	now = proc_list("/proc/iomem");
	assert_string_equal(now, iomem);
	free(now);
	now = proc_list("/proc/vmallocinfo");
	assert_int_equal(lines_with(now, "phys="), ioremaps);
	assert_int_equal(lines_with(now, DRIVER), 0);
	free(now);
	for (i = 0; i < ARRAY_SIZE(modules); i++)
		assert_int_equal(references(modules[i]), refs[i]);
	free(iomem);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(uses_leave_addresses_and_references_as_they_were),
};

static int set_up(void **state)
{
	count = setting("USES", 12);
	return 0;
}

const struct case_group groups[] = {
	{ "pages lab", CASES(tests), set_up },
	{ }
};
