// SPDX-License-Identifier: GPL-2.0-only
/*
 * Uses a GPU repeatedly: bind, open, map, access, reset, close, unbind.
 * Afterwards the kernel must have as many mappings, claims, module references
 * and objects of each slab cache as before.
 *
 * Only 1,000 USES and more, on a kernel with /proc/slabinfo, test the slab
 * caches.
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

struct cache {
	char name[64];
	long objects;
};

static size_t read_caches(struct cache *caches, size_t max)
{
	char *text = proc_text("/proc/slabinfo"), *line, *rest = text;
	size_t n = 0;

	while ((line = strsep(&rest, "\n")) && n < max)
		if (sscanf(line, "%63s %ld", caches[n].name,
			   &caches[n].objects) == 2)
			n++;
	free(text);
	assert_true(n > 10 && n < max);
	return n;
}

/*
 * Caches keep some objects for later, so a few more mean nothing. Three objects
 * for every four uses are a leak.
 */
static void uses_leave_no_object_behind(void **state)
{
	static struct cache before[1024], after[1024];
	size_t n, m, i, k, leaks = 0;

	for (i = 0; i < count / 10 + 1; i++)
		use_once("gh200");
	n = read_caches(before, ARRAY_SIZE(before));
	for (i = 0; i < count; i++)
		use_once("gh200");
	m = read_caches(after, ARRAY_SIZE(after));
	for (i = 0; i < m; i++) {
		for (k = 0; k < n && strcmp(before[k].name, after[i].name); k++)
			;
		if (k == n)
			continue;
		if (after[i].objects - before[k].objects < count * 3 / 4)
			continue;
		print_message("# %s: %ld objects before %u uses, %ld after\n",
			      after[i].name, before[k].objects, count,
			      after[i].objects);
		leaks++;
	}
	assert_int_equal(leaks, 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(uses_leave_addresses_and_references_as_they_were),
};

/*
 * With fewer than 1,000 uses, leaked objects can't be told from those that
 * caches keep.
 */
static const struct CMUnitTest slab_tests[] = {
	cmocka_unit_test(uses_leave_no_object_behind),
};

static int set_up(void **state)
{
	count = setting("USES", 12);
	return 0;
}

const struct case_group groups[] = {
	{ "pages lab", CASES(tests), set_up },
	{ "pages lab many CONFIG_SLUB_DEBUG", CASES(slab_tests), set_up },
	{ }
};
