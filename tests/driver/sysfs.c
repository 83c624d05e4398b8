// SPDX-License-Identifier: GPL-2.0-only
/* The attributes of docs/ABI/sysfs-driver-nvgrace-gpu. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib.h"

static const char *path_of(const struct gpu *gpu, const char *name)
{
	char file[64];

	snprintf(file, sizeof(file), "nvgrace_gpu/%s", name);
	return gpu_file(gpu, file);
}

/* The file's only line, without its newline; to be freed. */
static char *line_of(const char *path)
{
	char *text = proc_text(path), *end = strchr(text, '\n');

	if (!end || end[1])
		fail_msg("%s: not one line", path);
	*end = '\0';
	return text;
}

static void check(const struct gpu *gpu, const char *name, const char *expected)
{
	char *line = line_of(path_of(gpu, name));

	assert_string_equal(line, expected);
	free(line);
}

static void check_mode(const struct gpu *gpu, const char *name, mode_t mode)
{
	struct stat st;

	assert_int_equal(stat(path_of(gpu, name), &st), 0);
	assert_int_equal(st.st_mode & 07777, mode);
}

/* Counts the files of the attribute group; -1 without the group. */
static int files_of(const struct gpu *gpu)
{
	glob_t found;
	int count;

	if (access(path_of(gpu, ""), F_OK))
		return -1;
	count = glob(path_of(gpu, "*"), 0, NULL, &found) ? 0 : (int)found.gl_pathc;
	globfree(&found);
	return count;
}

static void a_gpu_with_two_parts_tells_of_both(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	char base[32];

	assert_int_equal(files_of(gpu), -1);
	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(files_of(gpu), 15);
	check(gpu, "mode", "carve-out");
	check(gpu, "usemem_size", "1610612736");
	check(gpu, "usemem_bar_size", "2147483648");
	check(gpu, "resmem_size", "1342177280");
	check(gpu, "resmem_bar_size", "2147483648");
	snprintf(base, sizeof(base), "%#llx", (unsigned long long)gpu->base);
	check(gpu, "usemem_base", base);
	snprintf(base, sizeof(base), "%#llx",
		 (unsigned long long)gpu->base + 0x60000000);
	check(gpu, "resmem_base", base);

	assert_int_equal(gpu_unbind(gpu), 0);
	assert_int_equal(files_of(gpu), -1);
}

static void physical_addresses_are_for_root(void **state)
{
	const struct gpu *gpu = gpu_find("gh200");
	static const char *const all[] = {
		"mode", "readiness", "usemem_size", "usemem_bar_size",
		"resmem_size", "resmem_bar_size", "scrub_state", "scrub_progress",
		"scrub_count", "scrub_result", "scrub_time", "scrub_ms"
	};
	unsigned int i;

	assert_int_equal(gpu_bind(gpu), 0);
	check_mode(gpu, "usemem_base", 0400);
	check_mode(gpu, "resmem_base", 0400);
	check_mode(gpu, "scrub", 0200);
	for (i = 0; i < ARRAY_SIZE(all); i++)
		check_mode(gpu, all[i], 0444);

	assert_int_equal(seteuid(65534), 0);
	assert_int_equal(open(path_of(gpu, "usemem_base"), O_RDONLY), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(open(path_of(gpu, "resmem_base"), O_RDONLY), -1);
	assert_int_equal(errno, EACCES);
	free(line_of(path_of(gpu, "usemem_size")));
	assert_int_equal(seteuid(0), 0);
}

static void a_gpu_without_memory_tells_only_that(void **state)
{
	const struct gpu *gpu = gpu_find("none");

	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(files_of(gpu), 1);
	check(gpu, "mode", "core-only");
}

static void a_gpu_without_the_defect_has_one_part(void **state)
{
	const struct gpu *gpu = gpu_find("nodefect");

	assert_int_equal(gpu_bind(gpu), 0);
	assert_int_equal(files_of(gpu), 12);
	check(gpu, "mode", "no-carve-out");
	check(gpu, "usemem_size", "35701915648");
	check(gpu, "usemem_bar_size", "68719476736");
}

static void readiness_is_what_was_found_since_the_last_reset(void **state)
{
	char byte;

	/*
	 * The open has reset the GPU, and the driver has not checked readiness
	 * since.
	 */
	check(v.gpu, "readiness", "unknown");
	assert_int_equal(read_a_byte(&v), 1);
	check(v.gpu, "readiness", "ready");
	assert_int_equal(vfio_reset(&v), 0);
	check(v.gpu, "readiness", "unknown");
	assert_int_equal(vfio_read(&v, REGION(RESMEM), &byte, 1), 1);
	check(v.gpu, "readiness", "ready");
}

static void check_number(const char *name, uint64_t expected)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)expected);
	check(v.gpu, name, text);
}

static void sizes_are_those_of_the_regions(void **state)
{
	struct vfio_region r;

	vfio_region(&v, USEMEM, &r);
	check_number("usemem_bar_size", r.size);
	assert_int_equal(vfio_length(&v, USEMEM) / page * page, r.area_size);
	vfio_region(&v, RESMEM, &r);
	check_number("resmem_bar_size", r.size);
	assert_int_equal(vfio_length(&v, RESMEM) / page * page, r.area_size);
}

/* Within 4 s of a reset the memory must be active, and it isn't. */
static void readiness_tells_of_a_wait_in_vain(void **state)
{
	const struct gpu *gpu = gpu_find("cxl");
	uint32_t dead = UINT32_MAX;

	assert_int_equal(vfio_write(&v, REGION(0) + MODEL_UNREADY, &dead, 4), 4);
	assert_int_equal(read_a_byte(&v), -EIO);
	check(gpu, "readiness", "failed");
	assert_int_equal(vfio_reset(&v), 0);
	check(gpu, "readiness", "unknown");
}

/* Files of the kernel show which features it can have. */
static void the_features_are_words_of_the_list(void **state)
{
	static const char *const words[] = {
		"iommufd", "pmd_pfnmap", "pud_pfnmap", "uncached_guest",
		"poison", "dmabuf", "zap", "scrub"
	};
	const char *path = "/sys/bus/pci/drivers/" DRIVER "/features";
	char *line, *rest, *word;
	bool pmd = false;
	unsigned int next = 0;
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0444);
	line = line_of(path);
	rest = line;
	if (strcmp(line, "none")) {
		while ((word = strsep(&rest, " "))) {
			while (next < ARRAY_SIZE(words) && strcmp(words[next], word))
				next++;
			if (next == ARRAY_SIZE(words))
				fail_msg("\"%s\" is no feature, or out of order", word);
			pmd |= !strcmp(word, "pmd_pfnmap");
			next++;
		}
	}
	free(line);
	assert_int_equal(pmd, machine_has("CONFIG_ARCH_SUPPORTS_PMD_PFNMAP"));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(physical_addresses_are_for_root),
	OPEN("gh200", readiness_is_what_was_found_since_the_last_reset),
	OPEN("gh200", sizes_are_those_of_the_regions),
	cmocka_unit_test(the_features_are_words_of_the_list),
};

static const struct CMUnitTest lab_tests[] = {
	cmocka_unit_test(a_gpu_with_two_parts_tells_of_both),
	cmocka_unit_test(a_gpu_without_memory_tells_only_that),
	cmocka_unit_test(a_gpu_without_the_defect_has_one_part),
	OPEN("cxl", readiness_tells_of_a_wait_in_vain),
};

const struct case_group groups[] = {
	{ "this-driver carve-out ?CONFIG_ARCH_SUPPORTS_PMD_PFNMAP", CASES(tests) },
	{ "lab", CASES(lab_tests) },
	{ }
};
