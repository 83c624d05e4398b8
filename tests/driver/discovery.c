// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the driver makes of firmware tables: which GPUs it binds, with which
 * memory, and which it refuses, with which message. tests/lab/machine.py defines
 * the GPUs. Without the model GPU, the tests of the DVSEC are left out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

#define PROP_BASE	"nvidia,gpu-mem-base-pa"
#define PROP_SIZE	"nvidia,gpu-mem-size"
#define UPDATE_FIRMWARE	"update the system firmware"

/* Levels of the kernel log. */
#define LEVEL_ERR	3
#define LEVEL_WARN	4
#define LEVEL_INFO	6

#define BARS_64BIT	0x18	/* config offset of BAR2 to BAR5 */
#define BARS_LENGTH	16

static struct vfio v = { .device = -1 };

static int teardown(void **state)
{
	if (v.device >= 0)
		vfio_close(&v);
	gpu_unbind_all();
	return 0;
}

/* Lines of the driver core and the PCI core that name the device's driver. */
static const char *const lines_of_others[] = {
	"probe with driver", "Adding to iommu group", "enabling device",
	"Enabling HDA controller", " usecs",
};

/* Returns the driver's next line about @gpu since klog_mark(). */
static bool next_line(const struct gpu *gpu, int *level, char *line,
		      size_t size)
{
	char prefix[64];
	int level_of_any;
	size_t i;

	snprintf(prefix, sizeof(prefix), DRIVER " %s: ", gpu->addr);
	while (klog_next(&level_of_any, line, size)) {
		if (strncmp(line, prefix, strlen(prefix)))
			continue;
		for (i = 0; i < ARRAY_SIZE(lines_of_others); i++)
			if (strstr(line, lines_of_others[i]))
				break;
		if (i < ARRAY_SIZE(lines_of_others))
			continue;
		*level = level_of_any;
		return true;
	}
	return false;
}

static void assert_says(const char *line, const char *text)
{
	if (!strstr(line, text))
		fail_msg("the line does not say \"%s\": %s", text, line);
}

/*
 * Counts the claims of @part of @gpu in /proc/iomem; returns the last one's
 * range.
 */
static int claims(const struct gpu *gpu, const char *part, uint64_t *start,
		  uint64_t *last)
{
	char line[256], name[128];
	unsigned long long from, to;
	FILE *f = fopen("/proc/iomem", "r");
	int count = 0, at;

	assert_non_null(f);
	snprintf(name, sizeof(name), DRIVER " %s %s\n", gpu->addr, part);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " %llx-%llx : %n", &from, &to, &at) != 2 ||
		    strcmp(line + at, name))
			continue;
		*start = from;
		*last = to;
		count++;
	}
	fclose(f);
	return count;
}

static void assert_claimed(const struct gpu *gpu, const char *part,
			   uint64_t base, uint64_t length)
{
	uint64_t start = 0, last = 0;

	assert_int_equal(claims(gpu, part, &start, &last), length ? 1 : 0);
	if (!length)
		return;
	assert_int_equal(start, base);
	assert_int_equal(last, base + length - 1);
}

static void assert_no_claims(const struct gpu *gpu)
{
	assert_claimed(gpu, "usemem", 0, 0);
	assert_claimed(gpu, "resmem", 0, 0);
}

/*
 * Binding @name must fail with @err and log one line that contains all of
 * @texts, a list that ends with NULL.
 */
static void assert_refused(const char *name, int err, const char *const *texts)
{
	const struct gpu *gpu = gpu_find(name);
	char line[512], other[512];
	int level;

	klog_mark();
	assert_int_equal(gpu_bind(gpu), -err);
	assert_false(gpu_bound(gpu));

	if (!next_line(gpu, &level, line, sizeof(line)))
		fail_msg("no line says why");
	if (next_line(gpu, &level, other, sizeof(other)))
		fail_msg("a second line: %s", other);
	assert_int_equal(level, LEVEL_ERR);
	print_message("# %s\n", line);
	for (; *texts; texts++)
		assert_says(line, *texts);

	assert_no_claims(gpu);
	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "\n"), 0);
}

/* The refused bind must leave nothing behind that disturbs a sound GPU. */
static void assert_gh200_binds(void)
{
	const struct gpu *gpu = gpu_find("gh200");

	assert_int_equal(gpu_bind(gpu), 0);
	assert_true(gpu_bound(gpu));
	assert_int_equal(gpu_unbind(gpu), 0);
	assert_no_claims(gpu);
}

static const char *hex(uint64_t value)
{
	static char text[4][24];
	static int next;

	next = (next + 1) % 4;
	sprintf(text[next], "%#llx", (unsigned long long)value);
	return text[next];
}

/* A refusal because of the base or the size: the line must quote both. */
static void refused_with_values(const char *name, int err, const char *advice)
{
	const struct gpu *gpu = gpu_find(name);
	char base[64], size[64];
	const char *const texts[] = { base, size, advice, NULL };

	snprintf(base, sizeof(base), PROP_BASE " %s ", hex(gpu->base));
	snprintf(size, sizeof(size), PROP_SIZE " %s ", hex(gpu->size));
	assert_refused(name, err, texts);
	assert_gh200_binds();
}

static void refused_for_size(const char *name, int err, const char *advice)
{
	char size[64];
	const char *const texts[] = { size, advice, NULL };

	snprintf(size, sizeof(size), PROP_SIZE " %s ",
		 hex(gpu_find(name)->size));
	assert_refused(name, err, texts);
	assert_gh200_binds();
}

static void loading_the_module_binds_nothing(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	struct gpu all = { .name = "any" };
	char path[64];
	FILE *f = fopen("/vm/gpus.conf", "r");
	char line[256];
	int count = 0, fields;

	assert_int_equal(module_unload(), 0);
	assert_int_equal(access("/sys/bus/pci/drivers/" DRIVER, F_OK), -1);
	assert_int_equal(module_load(), 0);
	assert_false(gpu_bound(gpu));

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		fields = sscanf(line, "%*s %15s", all.addr);
		assert_int_equal(fields, 1);
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s",
			 all.addr);
		assert_int_equal(access(path, F_OK), 0);
		assert_false(gpu_bound(&all));
		count++;
	}
	fclose(f);
	assert_true(count > 20);
}

static void without_driver_override_a_gpu_does_not_bind(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");

	assert_int_equal(write_file("/sys/bus/pci/drivers/" DRIVER "/bind",
				    gpu->addr), -ENODEV);
	assert_false(gpu_bound(gpu));
	must_write_file("/sys/bus/pci/drivers_probe", gpu->addr);
	assert_false(gpu_bound(gpu));
}

static void a_driver_override_of_vfio_pci_does_not_bind(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");

	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "vfio-pci"),
			 0);
	assert_int_equal(write_file("/sys/bus/pci/drivers/" DRIVER "/bind",
				    gpu->addr), -ENODEV);
	must_write_file("/sys/bus/pci/drivers_probe", gpu->addr);
	assert_false(gpu_bound(gpu));
	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", "\n"), 0);
}

static void driver_override_and_drivers_probe_bind(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");

	assert_int_equal(gpu_sysfs_write(gpu, "driver_override", DRIVER), 0);
	must_write_file("/sys/bus/pci/drivers_probe", gpu->addr);
	assert_true(gpu_bound(gpu));
	assert_int_equal(gpu_unbind(gpu), 0);
}

static void read_sysfs(const struct gpu *gpu, const char *file, off_t pos,
		       void *buf, size_t count)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", gpu->addr,
		 file);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, count, pos), (ssize_t)count);
	close(fd);
}

/* The device's own BAR @index, as the PCI core knows it, in bytes. */
static uint64_t own_bar_size(const struct gpu *gpu, int index)
{
	/* A line of three numbers for each BAR. */
	char text[57 * 6 + 1] = "";
	unsigned long long start, last;
	int fields;

	read_sysfs(gpu, "resource", 0, text, sizeof(text) - 1);
	fields = sscanf(text + 57 * index, "%llx %llx", &start, &last);
	assert_int_equal(fields, 2);
	return last ? last - start + 1 : 0;
}

/* Binds and opens @gpu, which must look like an ordinary PCI device. */
static void open_plain_pci_device(const struct gpu *gpu)
{
	uint8_t own[BARS_LENGTH], seen[BARS_LENGTH];
	char line[512];
	struct vfio_region r;
	int level, i;

	klog_mark();
	assert_int_equal(gpu_bind(gpu), 0);
	assert_true(gpu_bound(gpu));
	assert_true(next_line(gpu, &level, line, sizeof(line)));
	print_message("# %s\n", line);
	assert_int_equal(level, LEVEL_INFO);
	assert_says(line, PROP_BASE);
	assert_false(next_line(gpu, &level, line, sizeof(line)));
	assert_no_claims(gpu);

	vfio_open(&v, gpu);
	for (i = VFIO_PCI_BAR0_REGION_INDEX; i <= VFIO_PCI_BAR5_REGION_INDEX;
	     i++) {
		vfio_region(&v, i, &r);
		assert_int_equal(r.size, own_bar_size(gpu, i));
	}
	vfio_region(&v, USEMEM, &r);
	assert_int_equal(r.size, 0);
	assert_int_equal(r.flags, 0);
	read_sysfs(gpu, "config", BARS_64BIT, own, sizeof(own));
	assert_int_equal(vfio_read(&v, CONFIG + BARS_64BIT, seen, sizeof(seen)),
			 sizeof(seen));
	assert_memory_equal(seen, own, sizeof(own));
}

static void neither_property_binds_a_plain_pci_device(void **state)
{
	struct vfio_region r;

	open_plain_pci_device(gpu_find("none"));
	vfio_region(&v, RESMEM, &r);
	assert_true(r.size > 0);
	vfio_stop(&v);
}

static void only_base_is_refused_with_EINVAL(void **state)
{
	char found[64];
	const char *const texts[] = { found, PROP_SIZE, UPDATE_FIRMWARE, NULL };

	snprintf(found, sizeof(found), PROP_BASE " %s ",
		 hex(gpu_find("onlybase")->base));
	assert_refused("onlybase", EINVAL, texts);
	assert_gh200_binds();
}

static void only_size_is_refused_with_EINVAL(void **state)
{
	/* The value in tests/lab/machine.py; gpus.conf has none. */
	static const char *const texts[] = {
		PROP_SIZE " 0xb0000000 ", PROP_BASE, UPDATE_FIRMWARE, NULL
	};

	assert_refused("onlysize", EINVAL, texts);
	assert_gh200_binds();
}

static void size_0_is_refused_with_ENOMEM_as_a_failed_link(void **state)
{
	static const char *const texts[] = {
		PROP_SIZE " is 0", "C2C link failed to train", "power-cycle",
		NULL
	};

	assert_refused("sizezero", ENOMEM, texts);
	assert_gh200_binds();
}

static void wrong_type(const char *name, const char *property)
{
	const char *const texts[] = {
		property, "not one 64-bit integer", UPDATE_FIRMWARE, NULL
	};

	assert_refused(name, EINVAL, texts);
	assert_gh200_binds();
}

static void a_string_as_base_is_refused_with_EINVAL(void **state)
{
	wrong_type("strbase", PROP_BASE);
}

/*
 * If one value is a buffer, the kernel's _DSD parser considers the whole
 * package of properties malformed and drops it, so the driver sees neither
 * property.
 */
static void a_buffer_as_size_is_as_if_neither_property_was_there(void **state)
{
	open_plain_pci_device(gpu_find("bufsize"));
	vfio_stop(&v);
}

static void two_integers_as_base_are_refused_with_EINVAL(void **state)
{
	wrong_type("pkgbase", PROP_BASE);
}

static void an_end_beyond_the_cpus_addresses_is_EOVERFLOW(void **state)
{
	refused_with_values("beyond", EOVERFLOW, UPDATE_FIRMWARE);
}

static void an_end_beyond_64_bits_is_EOVERFLOW(void **state)
{
	refused_with_values("wraps", EOVERFLOW, UPDATE_FIRMWARE);
}

static void a_base_inside_a_page_is_refused_with_EINVAL(void **state)
{
	char found[64];
	const char *const texts[] = { found, "not aligned", UPDATE_FIRMWARE, NULL };

	snprintf(found, sizeof(found), PROP_BASE " %s ",
		 hex(gpu_find("unaligned")->base));
	assert_refused("unaligned", EINVAL, texts);
	assert_gh200_binds();
}

static void memory_inside_system_ram_is_refused_with_EBUSY(void **state)
{
	refused_with_values("inram", EBUSY, "offline");
}

static void the_last_64k_of_system_ram_are_refused_with_EBUSY(void **state)
{
	refused_with_values("ramedge", EBUSY, "offline");
}

static void memory_around_system_ram_is_refused_with_EBUSY(void **state)
{
	refused_with_values("aroundram", EBUSY, "offline");
}

static void the_last_page_of_another_gpu_is_refused_with_EBUSY(void **state)
{
	const struct gpu *owner = gpu_find("gh200");
	const struct gpu *gpu = gpu_find("overlap");
	char base[64], size[64];
	const char *const texts[] = {
		base, size, owner->addr, UPDATE_FIRMWARE, NULL
	};

	snprintf(base, sizeof(base), PROP_BASE " %s ", hex(gpu->base));
	snprintf(size, sizeof(size), PROP_SIZE " %s ", hex(gpu->size));
	assert_int_equal(gpu_bind(owner), 0);
	assert_refused("overlap", EBUSY, texts);
	assert_true(gpu_bound(owner));
	assert_int_equal(gpu_unbind(owner), 0);
	assert_gh200_binds();
}

static void the_first_page_of_another_gpu_is_refused_with_EBUSY(void **state)
{
	const struct gpu *owner = gpu_find("overlap");
	const char *const texts[] = {
		PROP_BASE, PROP_SIZE, owner->addr, UPDATE_FIRMWARE, NULL
	};

	assert_int_equal(gpu_bind(owner), 0);
	assert_refused("gh200", EBUSY, texts);
	assert_int_equal(gpu_unbind(owner), 0);
	assert_gh200_binds();
}

static void a_size_one_byte_too_small_is_refused_with_EINVAL(void **state)
{
	refused_for_size("small", EINVAL, UPDATE_FIRMWARE);
}

static void a_size_that_resmem_takes_is_refused_with_EINVAL(void **state)
{
	refused_for_size("tiny", EINVAL, UPDATE_FIRMWARE);
}

static void a_bar_beyond_a_tebibyte_is_refused_with_EOVERFLOW(void **state)
{
	refused_for_size("hugebar", EOVERFLOW, UPDATE_FIRMWARE);
}

/* The carve-out that a size must give, in bytes. */
struct layout {
	uint64_t usemem;
	uint64_t resmem;
	uint64_t bar4;
	uint64_t bar2;
};

/*
 * The first and the last bytes of a part must be those at this physical
 * address.
 */
static void assert_backed_by(unsigned int index, uint64_t base, uint64_t length)
{
	const uint64_t at[] = { 0, length - 8 };
	uint64_t in, out;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		fill(&in, sizeof(in), base + at[i]);
		assert_int_equal(vfio_write(&v, REGION(index) + at[i], &in,
					    sizeof(in)), sizeof(in));
		host_peek(base + at[i], &out, sizeof(out));
		assert_int_equal(out, in);
	}
}

/*
 * Binds and opens, and leaves it open. @backed: the machine has memory there,
 * which is not so in the tests of addresses.
 */
static void open_with_layout(const char *name, const struct layout *l,
			     bool backed)
{
	const struct gpu *gpu = gpu_find(name);
	char line[512];
	int level;

	klog_mark();
	assert_int_equal(gpu_bind(gpu), 0);
	assert_true(next_line(gpu, &level, line, sizeof(line)));
	assert_int_equal(level, LEVEL_INFO);
	if (next_line(gpu, &level, line, sizeof(line)))
		fail_msg("a second line: %s", line);
	assert_claimed(gpu, "usemem", gpu->base, l->usemem);
	assert_claimed(gpu, "resmem", gpu->base + l->usemem, l->resmem);

	vfio_open(&v, gpu);
	assert_region(&v, USEMEM, l->usemem, l->bar4);
	if (l->resmem)
		assert_region(&v, RESMEM, l->resmem, l->bar2);
	if (!backed)
		return;
	assert_backed_by(USEMEM, gpu->base, l->usemem);
	if (l->resmem)
		assert_backed_by(RESMEM, gpu->base + l->usemem, l->resmem);
}

static void binds_with_layout(const char *name, const struct layout *l,
			      bool backed)
{
	open_with_layout(name, l, backed);
	vfio_stop(&v);
	assert_no_claims(v.gpu);
}

static void size_95_75_gib_gives_94_5_and_1_25(void **state)
{
	static const struct layout l = {
		0x17a0000000, 0x50000000, 128 * GiB, 2 * GiB
	};

	binds_with_layout("s95", &l, true);
}

static void size_33_25_gib_gives_32_and_1_25(void **state)
{
	static const struct layout l = {
		32 * GiB, 1280 * MiB, 32 * GiB, 2 * GiB
	};

	binds_with_layout("s33q", &l, true);
}

static void size_33_gib_gives_32_and_1(void **state)
{
	static const struct layout l = { 32 * GiB, GiB, 32 * GiB, GiB };

	binds_with_layout("s33", &l, true);
}

/* The carve-out of 0xb0000000 bytes. */
static const struct layout functional = {
	1536 * MiB, 1280 * MiB, 2 * GiB, 2 * GiB
};

static void size_2_75_gib_gives_1_5_and_1_25(void **state)
{
	binds_with_layout("gh200", &functional, true);
}

static void size_3_gib_gives_2_and_1_which_fill_their_bars(void **state)
{
	static const struct layout l = { 2 * GiB, GiB, 2 * GiB, GiB };

	binds_with_layout("second", &l, true);
}

static void size_1_5_gib_gives_half_and_1(void **state)
{
	static const struct layout l = { 512 * MiB, GiB, 512 * MiB, GiB };

	binds_with_layout("s1h", &l, true);
}

static void a_part_of_a_page_at_the_end_is_not_mappable(void **state)
{
	static const struct layout l = {
		1536 * MiB, 0x50001235, 2 * GiB, 2 * GiB
	};

	binds_with_layout("odd", &l, true);
}

static void one_integer_in_a_package_is_an_integer(void **state)
{
	binds_with_layout("pkg1", &functional, true);
}

static void memory_right_behind_system_ram_binds(void **state)
{
	binds_with_layout("afterram", &functional, false);
}

static void memory_up_to_the_last_address_binds(void **state)
{
	binds_with_layout("topmost", &functional, false);
}

static void memory_of_an_unbound_gpu_binds(void **state)
{
	binds_with_layout("overlap", &functional, true);
}

static void memory_right_behind_another_gpus_binds(void **state)
{
	const struct gpu *owner = gpu_find("gh200");

	assert_int_equal(gpu_bind(owner), 0);
	binds_with_layout("adjacent", &functional, true);
	assert_true(gpu_bound(owner));
	assert_int_equal(gpu_unbind(owner), 0);
}

static void a_gpu_that_is_unbound_and_bound_again_is_the_same(void **state)
{
	int i;

	for (i = 0; i < 5; i++)
		binds_with_layout("gh200", &functional, true);
}

static void memory_that_cannot_be_claimed_binds_with_a_warning(void **state)
{
	const struct gpu *gpu = gpu_find("claimbusy");
	uint64_t resmem = gpu->base + functional.usemem;
	char line[512];
	int level;

	klog_mark();
	assert_int_equal(gpu_bind(gpu), 0);
	assert_true(gpu_bound(gpu));
	assert_true(next_line(gpu, &level, line, sizeof(line)));
	print_message("# %s\n", line);
	assert_int_equal(level, LEVEL_WARN);
	assert_says(line, "usemem");
	assert_says(line, hex(gpu->base));
	assert_says(line, "/proc/iomem");
	assert_true(next_line(gpu, &level, line, sizeof(line)));
	assert_int_equal(level, LEVEL_INFO);
	assert_false(next_line(gpu, &level, line, sizeof(line)));
	assert_claimed(gpu, "usemem", 0, 0);
	assert_claimed(gpu, "resmem", resmem, functional.resmem);

	vfio_open(&v, gpu);
	assert_region(&v, USEMEM, functional.usemem, functional.bar4);
	assert_region(&v, RESMEM, functional.resmem, functional.bar2);
	assert_backed_by(RESMEM, resmem, functional.resmem);
	vfio_stop(&v);
	assert_no_claims(gpu);
}

static void memory_of_another_driver_is_EBUSY(void **state)
{
	const struct gpu *gpu = gpu_find("held");
	char part[64];

	snprintf(part, sizeof(part), "usemem [%#llx-%#llx]",
		 (unsigned long long)gpu->base,
		 (unsigned long long)(gpu->base + gpu->size - 1));
	assert_refused("held", EBUSY, (const char *const[]){
		part, "belongs to another driver already", "/proc/iomem", NULL });
	assert_gh200_binds();
}

static void dvsec_bit_set_gives_no_resmem_and_leaves_bar2(void **state)
{
	static const struct layout l = { 34048 * MiB, 0, 64 * GiB, 0 };
	const struct gpu *gpu = gpu_find("nodefect");
	struct vfio_region r;
	char *map;

	open_with_layout("nodefect", &l, true);
	vfio_region(&v, RESMEM, &r);
	assert_int_equal(r.size, own_bar_size(gpu, 2));
	assert_int_equal(r.size, 64 * KiB);
	assert_true(r.flags & VFIO_REGION_INFO_FLAG_MMAP);

	/* This BAR2 is the device's own: vfio-pci-core maps it. */
	map = vfio_map(&v, RESMEM, 0, r.size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, NULL);
	memcpy(map, "its own", 8);
	assert_string_equal(map, "its own");
	munmap(map, r.size);
	vfio_stop(&v);
}

static void dvsec_bit_clear_gives_both_parts(void **state)
{
	static const struct layout l = {
		32 * GiB, 1280 * MiB, 32 * GiB, 2 * GiB
	};

	binds_with_layout("hasdefect", &l, true);
}

static void a_bar_of_a_tebibyte_binds(void **state)
{
	static const struct layout l = { 1024 * GiB, GiB, 1024 * GiB, GiB };

	binds_with_layout("widest", &l, false);
}

#define TEST(fn)	cmocka_unit_test_teardown(fn, teardown)

static const struct CMUnitTest tests[] = {
	TEST(loading_the_module_binds_nothing),
	TEST(without_driver_override_a_gpu_does_not_bind),
	TEST(a_driver_override_of_vfio_pci_does_not_bind),
	TEST(driver_override_and_drivers_probe_bind),
	TEST(neither_property_binds_a_plain_pci_device),
	TEST(only_base_is_refused_with_EINVAL),
	TEST(only_size_is_refused_with_EINVAL),
	TEST(size_0_is_refused_with_ENOMEM_as_a_failed_link),
	TEST(a_string_as_base_is_refused_with_EINVAL),
	TEST(a_buffer_as_size_is_as_if_neither_property_was_there),
	TEST(two_integers_as_base_are_refused_with_EINVAL),
	TEST(an_end_beyond_the_cpus_addresses_is_EOVERFLOW),
	TEST(an_end_beyond_64_bits_is_EOVERFLOW),
	TEST(a_base_inside_a_page_is_refused_with_EINVAL),
	TEST(memory_inside_system_ram_is_refused_with_EBUSY),
	TEST(the_last_64k_of_system_ram_are_refused_with_EBUSY),
	TEST(memory_around_system_ram_is_refused_with_EBUSY),
	TEST(the_last_page_of_another_gpu_is_refused_with_EBUSY),
	TEST(the_first_page_of_another_gpu_is_refused_with_EBUSY),
	TEST(a_size_one_byte_too_small_is_refused_with_EINVAL),
	TEST(a_size_that_resmem_takes_is_refused_with_EINVAL),
	TEST(size_95_75_gib_gives_94_5_and_1_25),
	TEST(size_33_25_gib_gives_32_and_1_25),
	TEST(size_33_gib_gives_32_and_1),
	TEST(size_2_75_gib_gives_1_5_and_1_25),
	TEST(size_3_gib_gives_2_and_1_which_fill_their_bars),
	TEST(size_1_5_gib_gives_half_and_1),
	TEST(a_part_of_a_page_at_the_end_is_not_mappable),
	TEST(one_integer_in_a_package_is_an_integer),
	TEST(memory_right_behind_system_ram_binds),
	TEST(memory_up_to_the_last_address_binds),
	TEST(memory_of_an_unbound_gpu_binds),
	TEST(memory_right_behind_another_gpus_binds),
	TEST(a_gpu_that_is_unbound_and_bound_again_is_the_same),
	TEST(memory_that_cannot_be_claimed_binds_with_a_warning),
};

/* Tests of GPUs that a machine of stand-ins doesn't have. */
static const struct CMUnitTest model_tests[] = {
	TEST(memory_of_another_driver_is_EBUSY),
	TEST(dvsec_bit_set_gives_no_resmem_and_leaves_bar2),
	TEST(dvsec_bit_clear_gives_both_parts),
};

/* Tests of sizes that not every CPU can address. */
static const struct CMUnitTest hugebar_tests[] = {
	TEST(a_bar_beyond_a_tebibyte_is_refused_with_EOVERFLOW),
};

static const struct CMUnitTest widest_tests[] = {
	TEST(a_bar_of_a_tebibyte_binds),
};

const struct case_group groups[] = {
	{ "lab", CASES(tests) },
	{ "lab model", CASES(model_tests) },
	{ "lab CONFIG_ARM64", CASES(hugebar_tests) },
	{ "lab model CONFIG_ARM64", CASES(widest_tests) },
	{ }
};
