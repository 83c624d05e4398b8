// SPDX-License-Identifier: GPL-2.0-only
/*
 * Config space: the registers of the fake BARs, and accesses that cover them
 * and real registers at once. All other accesses are compared with byte-wise
 * ones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "lib.h"

#define FAKE_START	PCI_BASE_ADDRESS_2
#define FAKE_END	(PCI_BASE_ADDRESS_5 + 4)
#define FAKE_LENGTH	(FAKE_END - FAKE_START)
#define BARS_LENGTH	(FAKE_END - PCI_BASE_ADDRESS_0)
#define CONFIG_SIZE	4096

/* The tests try all accesses up to this width, below this offset. */
#define WIDEST		64
#define HEADER		0x40

/* 64-bit, prefetchable */
#define FLAGS		0xcULL

static struct vfio other = { .device = -1 };

/* Bytes of BAR2 and BAR4. */
static uint64_t bar_sizes[2];

/* Values whose bits above and below any BAR's size differ. */
static const uint64_t values[2] = { 0x0123456789abcdef, 0xfedcba9876543210 };

static ssize_t cfg_read(unsigned int at, void *buf, size_t count)
{
	return vfio_read(&v, CONFIG + at, buf, count);
}

static ssize_t cfg_write(unsigned int at, const void *buf, size_t count)
{
	return vfio_write(&v, CONFIG + at, buf, count);
}

static void read_bytes(unsigned int at, void *buf, size_t count)
{
	uint8_t *p = buf;
	size_t i;

	for (i = 0; i < count; i++)
		assert_int_equal(cfg_read(at + i, &p[i], 1), 1);
}

static void write_bytes(unsigned int at, const void *buf, size_t count)
{
	const uint8_t *p = buf;
	size_t i;

	for (i = 0; i < count; i++)
		assert_int_equal(cfg_write(at + i, &p[i], 1), 1);
}

/* Reads a 64-bit register byte by byte. */
static uint64_t get64(unsigned int at)
{
	uint64_t val;

	read_bytes(at, &val, sizeof(val));
	return val;
}

static void put64(unsigned int at, uint64_t val)
{
	write_bytes(at, &val, sizeof(val));
}

/* What the fake BAR at @at holds after a write of @val. */
static uint64_t masked(uint64_t val, unsigned int at)
{
	return (val & ~(bar_sizes[at == PCI_BASE_ADDRESS_4] - 1)) | FLAGS;
}

static void clear_fake_bars(void)
{
	put64(PCI_BASE_ADDRESS_2, 0);
	put64(PCI_BASE_ADDRESS_4, 0);
}

static void assert_fake_bars_set(void)
{
	assert_int_equal(get64(PCI_BASE_ADDRESS_2),
			 masked(values[0], PCI_BASE_ADDRESS_2));
	assert_int_equal(get64(PCI_BASE_ADDRESS_4),
			 masked(values[1], PCI_BASE_ADDRESS_4));
}

/* Writes values that have bits above the BAR's size. */
static void set_fake_bars(void)
{
	put64(PCI_BASE_ADDRESS_2, values[0]);
	put64(PCI_BASE_ADDRESS_4, values[1]);
	assert_fake_bars_set();
}

static void assert_fake_bars_clear(void)
{
	assert_int_equal(get64(PCI_BASE_ADDRESS_2), FLAGS);
	assert_int_equal(get64(PCI_BASE_ADDRESS_4), FLAGS);
}

static int open_gh200(void **state)
{
	struct vfio_region r;

	vfio_start(&v, "gh200");
	vfio_region(&v, RESMEM, &r);
	bar_sizes[0] = r.size;
	vfio_region(&v, USEMEM, &r);
	bar_sizes[1] = r.size;
	return 0;
}

static int setup(void **state)
{
	clear_fake_bars();
	return 0;
}

static int teardown(void **state)
{
	if (other.device >= 0)
		vfio_stop(&other);
	return 0;
}

static void every_width_agrees_with_bytewise_reads_below_0x40(void **state)
{
	uint8_t bytes[HEADER + WIDEST], seen[WIDEST];
	unsigned int at, width;

	set_fake_bars();
	read_bytes(0, bytes, sizeof(bytes));
	for (at = 0; at < HEADER; at++) {
		for (width = 1; width <= WIDEST; width++) {
			memset(seen, 0xa5, sizeof(seen));
			assert_int_equal(cfg_read(at, seen, width), width);
			if (memcmp(seen, bytes + at, width))
				fail_msg("%u bytes at %#x differ", width, at);
			if (width < WIDEST)
				assert_int_equal(seen[width], 0xa5);
		}
	}
}

static void the_whole_config_space_in_one_read_is_its_bytes(void **state)
{
	static uint8_t bytes[CONFIG_SIZE], seen[CONFIG_SIZE];

	set_fake_bars();
	read_bytes(0, bytes, CONFIG_SIZE);
	assert_int_equal(cfg_read(0, seen, CONFIG_SIZE), CONFIG_SIZE);
	assert_memory_equal(seen, bytes, CONFIG_SIZE);
}

/*
 * Everything that a write of @data may change: the six BARs and two bits of the
 * command register, memory enable and bus master. All other bytes of @data are
 * what the registers hold already: they belong to capabilities, some of which
 * would reset the device or put it into low power.
 */
#define COMMAND_BITS	(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

struct writable {
	uint8_t command;
	uint8_t bars[BARS_LENGTH];
};

/* At once, as byte by byte most of the test's time would go to these. */
static void get_writable(struct writable *w)
{
	assert_int_equal(cfg_read(PCI_COMMAND, &w->command, 1), 1);
	assert_int_equal(cfg_read(PCI_BASE_ADDRESS_0, w->bars, BARS_LENGTH), BARS_LENGTH);
}

static void put_writable(const struct writable *w)
{
	assert_int_equal(cfg_write(PCI_COMMAND, &w->command, 1), 1);
	assert_int_equal(cfg_write(PCI_BASE_ADDRESS_0, w->bars, BARS_LENGTH), BARS_LENGTH);
}

static void every_write_that_touches_a_fake_bar_is_its_bytes(void **state)
{
	uint8_t header[HEADER + WIDEST], data[HEADER + WIDEST];
	struct writable before, by_bytes, at_once;
	unsigned int at, width, first, i;
	unsigned int writes = 0;

	read_bytes(0, header, sizeof(header));
	set_fake_bars();
	get_writable(&before);

	for (at = 0; at < FAKE_END; at++) {
		first = at < FAKE_START ? FAKE_START - at + 1 : 1;
		for (width = first; width <= WIDEST; width++) {
			memcpy(data, header, sizeof(data));
			fill(data + PCI_BASE_ADDRESS_0, BARS_LENGTH,
			     at * WIDEST + width);
			data[PCI_COMMAND] ^= width & COMMAND_BITS;

			write_bytes(at, data + at, width);
			get_writable(&by_bytes);
			put_writable(&before);

			assert_int_equal(cfg_write(at, data + at, width), width);
			get_writable(&at_once);
			put_writable(&before);

			if (memcmp(&at_once, &by_bytes, sizeof(at_once)))
				fail_msg("%u bytes at %#x differ", width, at);
			/*
			 * Make sure that the comparison covers bytes other than
			 * zero.
			 */
			for (i = at < 0x1c ? 0x1c : at; i < at + width &&
			     i < FAKE_END; i++)
				if (bar_sizes[i >= PCI_BASE_ADDRESS_4] <=
				    1ULL << 8 * (i % 8))
					assert_int_equal(at_once.bars[i - 0x10],
							 data[i]);
			writes++;
		}
	}
	assert_true(writes > 1900);

	clear_fake_bars();
	read_bytes(0, data, sizeof(data));
	assert_memory_equal(data, header, sizeof(data));
}

/* Writes @val with accesses of @width bytes. */
static void put64_by(unsigned int at, uint64_t val, unsigned int width)
{
	unsigned int i;

	for (i = 0; i < 8; i += width)
		assert_int_equal(cfg_write(at + i, (uint8_t *)&val + i, width),
				 width);
}

static unsigned int fake_bars[] = { PCI_BASE_ADDRESS_2, PCI_BASE_ADDRESS_4 };

static void writing_all_ones_sizes_a_bar_at_every_width(void **state)
{
	const unsigned int at = *(const unsigned int *)*state;
	const uint32_t ones = UINT32_MAX;
	unsigned int width;

	for (width = 1; width <= 8; width *= 2) {
		put64_by(at, UINT64_MAX, width);
		assert_int_equal(get64(at), masked(UINT64_MAX, at));
		put64_by(at, 0, width);
		assert_int_equal(get64(at), FLAGS);
	}

	/* As firmware does: one half, then the other. */
	write_bytes(at, &ones, 4);
	assert_int_equal(get64(at), masked(UINT32_MAX, at));
	put64(at, 0);
	write_bytes(at + 4, &ones, 4);
	assert_int_equal(get64(at), masked((uint64_t)ones << 32, at));
}

static void low_bits_read_as_flags_whatever_is_written(void **state)
{
	const unsigned int *at = *state;
	const size_t k = at - fake_bars;
	const uint64_t size = bar_sizes[k], low[] = {
		0, 1, 0xf, 0x10, 0xfff, size - 1, size, size + 1,
		0x123456789abcdef0, 0x8000000000000000, UINT64_MAX - 0xc,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(low); i++) {
		put64(*at, low[i]);
		assert_int_equal(get64(*at), masked(low[i], *at));
		/* The other BAR is a register of its own. */
		assert_int_equal(get64(fake_bars[!k]), FLAGS);
	}
}

static void the_device_does_not_see_what_is_written(void **state)
{
	uint8_t before[FAKE_LENGTH], after[FAKE_LENGTH];
	int fd = gpu_config_open(v.gpu, O_RDONLY);

	assert_int_equal(pread(fd, before, sizeof(before), FAKE_START), sizeof(before));
	set_fake_bars();
	assert_int_equal(pread(fd, after, sizeof(after), FAKE_START), sizeof(after));
	close(fd);
	assert_memory_equal(before, after, sizeof(before));
	/* The model has a BAR2 of its own, which user space doesn't see. */
	if (machine_has("lab"))
		assert_true(before[1] | before[2] | before[3] | before[4] | before[5]);
}

static void opening_clears_the_bars(void **state)
{
	set_fake_bars();
	vfio_close(&v);
	vfio_open(&v, gpu_find("gh200"));
	assert_fake_bars_clear();
}

static void binding_again_clears_the_bars(void **state)
{
	set_fake_bars();
	vfio_stop(&v);
	vfio_start(&v, "gh200");
	assert_fake_bars_clear();
}

static void a_reset_by_ioctl_clears_the_bars(void **state)
{
	set_fake_bars();
	assert_int_equal(vfio_reset(&v), 0);
	assert_fake_bars_clear();
}

static void a_reset_through_sysfs_clears_the_bars(void **state)
{
	set_fake_bars();
	assert_int_equal(gpu_sysfs_write(v.gpu, "reset", "1"), 0);
	assert_fake_bars_clear();
}

static void an_flr_through_config_space_clears_the_bars(void **state)
{
	unsigned int cap = vfio_capability(&v, PCI_CAP_ID_EXP);
	uint32_t resets = 0;
	uint16_t control;

	assert_true(cap);
	if (machine_has("lab"))
		resets = vfio_bar0_read(&v, MODEL_RESETS);
	set_fake_bars();
	assert_int_equal(cfg_read(cap + PCI_EXP_DEVCTL, &control, 2), 2);
	control |= PCI_EXP_DEVCTL_BCR_FLR;
	assert_int_equal(cfg_write(cap + PCI_EXP_DEVCTL, &control, 2), 2);
	assert_fake_bars_clear();
	if (machine_has("lab"))
		assert_int_equal(vfio_bar0_read(&v, MODEL_RESETS), resets + 1);
}

/*
 * Written byte by byte, the BARs are set first and then cleared by the reset.
 */
static void one_write_that_sets_bars_and_starts_an_flr_leaves_them_clear(void **state)
{
	unsigned int cap = vfio_capability(&v, PCI_CAP_ID_EXP);
	unsigned int end = cap + PCI_EXP_DEVCTL + 2;
	unsigned char image[256];

	assert_true(cap);
	assert_int_equal(cfg_read(0, image, end), end);
	memset(image + 0x18, 0x5a, 16);
	image[end - 1] |= PCI_EXP_DEVCTL_BCR_FLR >> 8;
	assert_int_equal(cfg_write(0x18, image + 0x18, end - 0x18), end - 0x18);
	assert_fake_bars_clear();
}

/* Returns a buffer of @count bytes, of which the first @good are accessible. */
static char *faulting(size_t good)
{
	static char *buf;

	if (!buf)
		buf = page_before_hole();
	return buf + page - good;
}

/* Accesses that begin before, at, in and between the fake BARs. */
static const struct {
	unsigned int at;
	unsigned int width;
} accesses[] = {
	{ 0x10, 24 }, { 0x14, 12 }, { 0x16, 20 }, { 0x18, 8 }, { 0x18, 16 },
	{ 0x1b, 10 }, { 0x20, 8 }, { 0x20, 16 }, { 0x24, 8 }, { 0x00, 64 },
};

static void a_read_that_faults_anywhere_is_EFAULT(void **state)
{
	unsigned int i, good;

	for (i = 0; i < ARRAY_SIZE(accesses); i++)
		for (good = 0; good < accesses[i].width; good++)
			assert_int_equal(cfg_read(accesses[i].at,
						  faulting(good),
						  accesses[i].width), -EFAULT);
	assert_fake_bars_clear();
}

/* vfio-pci-core writes the real registers before the byte that faults. */
static void a_write_that_faults_anywhere_leaves_the_fake_bars(void **state)
{
	struct writable before, after;
	unsigned int i, good;

	set_fake_bars();
	get_writable(&before);
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		for (good = 0; good < accesses[i].width; good++) {
			char *data = faulting(good);

			memset(data, 0x5a, good);
			if (accesses[i].at <= PCI_COMMAND &&
			    good > PCI_COMMAND - accesses[i].at)
				data[PCI_COMMAND - accesses[i].at] =
					before.command;
			assert_int_equal(cfg_write(accesses[i].at, data,
						   accesses[i].width), -EFAULT);
			get_writable(&after);
			if (memcmp(before.bars + 8, after.bars + 8, FAKE_LENGTH))
				fail_msg("%u of %u bytes at %#x have changed a fake BAR",
					 good, accesses[i].width,
					 accesses[i].at);
			put_writable(&before);
		}
	}
}

/*
 * A vfio device has no lseek, and read() can't get past BAR0, so no program can
 * have config space at its file position. Vectored calls show the position: the
 * kernel makes one access for each element, at the position where the previous
 * one ended. If only one of position and count were right, the next element
 * would land elsewhere.
 */
static void each_element_of_a_vector_begins_where_the_last_ended(void **state)
{
	static const size_t widths[] = { 3, 6, 8, 1, 12, 2 };
	uint8_t bytes[32], seen[32] = { 0 }, data[32];
	struct iovec iov[ARRAY_SIZE(widths)];
	size_t i, at = 0;

	set_fake_bars();
	for (i = 0; i < ARRAY_SIZE(widths); i++) {
		iov[i].iov_base = seen + at;
		iov[i].iov_len = widths[i];
		at += widths[i];
	}
	assert_int_equal(at, 32);
	assert_int_equal(lseek(v.device, CONFIG, SEEK_SET), -1);
	assert_int_equal(errno, ESPIPE);
	read_bytes(0x10, bytes, sizeof(bytes));
	assert_int_equal(preadv(v.device, iov, ARRAY_SIZE(widths),
				CONFIG + 0x10), 32);
	assert_memory_equal(seen, bytes, sizeof(bytes));

	memcpy(data, bytes, sizeof(data));
	fill(data + 8, FAKE_LENGTH, 4711);
	memcpy(seen, data, sizeof(seen));
	assert_int_equal(pwritev(v.device, iov, ARRAY_SIZE(widths),
				 CONFIG + 0x10), 32);
	assert_int_equal(get64(PCI_BASE_ADDRESS_2),
			 masked(*(uint64_t *)(data + 8), PCI_BASE_ADDRESS_2));
	assert_int_equal(get64(PCI_BASE_ADDRESS_4),
			 masked(*(uint64_t *)(data + 16), PCI_BASE_ADDRESS_4));
}

static void past_the_end_an_access_fails_whole(void **state)
{
	static uint8_t bytes[CONFIG_SIZE];

	set_fake_bars();
	assert_true(cfg_read(PCI_BASE_ADDRESS_2, bytes, CONFIG_SIZE) < 0);
	memset(bytes, 0x5a, sizeof(bytes));
	assert_true(cfg_write(PCI_BASE_ADDRESS_2, bytes, CONFIG_SIZE) < 0);
	assert_fake_bars_set();
}

/*
 * Size of the other GPU's BAR at @at in bytes, found by sizing; 0: no such BAR.
 */
static uint64_t size_other(unsigned int at)
{
	const uint64_t ones = UINT64_MAX;
	uint64_t seen;

	assert_int_equal(vfio_write(&other, CONFIG + at, &ones, 8), 8);
	assert_int_equal(vfio_read(&other, CONFIG + at, &seen, 8), 8);
	if (!seen)
		return 0;
	assert_true(seen & PCI_BASE_ADDRESS_MEM_TYPE_64);
	return ~(seen & ~0xfULL) + 1;
}

static void the_size_found_by_sizing_is_that_of_the_region(void **state)
{
	struct vfio_region r;

	vfio_start(&other, "second");
	vfio_region(&other, RESMEM, &r);
	assert_int_equal(size_other(PCI_BASE_ADDRESS_2), r.size);
	vfio_region(&other, USEMEM, &r);
	assert_int_equal(size_other(PCI_BASE_ADDRESS_4), r.size);
}

static void without_resmem_bar2_is_the_devices_own(void **state)
{
	uint64_t before, bars[2];

	vfio_start(&other, "nodefect");
	assert_int_equal(vfio_read(&other, CONFIG + PCI_BASE_ADDRESS_2, &before,
				   8), 8);
	/* It has an address; a fake BAR begins at 0. */
	assert_true(before & ~0xfULL);
	assert_int_equal(size_other(PCI_BASE_ADDRESS_2), 64 * KiB);
	assert_int_equal(size_other(PCI_BASE_ADDRESS_4), 64 * GiB);

	bars[0] = 0x0123456789abcdef;
	bars[1] = 0xfedcba9876543210;
	assert_int_equal(vfio_write(&other, CONFIG + PCI_BASE_ADDRESS_2, bars,
				    16), 16);
	assert_int_equal(vfio_read(&other, CONFIG + PCI_BASE_ADDRESS_2, bars,
				   16), 16);
	assert_int_equal(bars[0], 0x0123456789ab000c);
	assert_int_equal(bars[1], 0xfedcba900000000c);

	assert_int_equal(vfio_reset(&other), 0);
	assert_int_equal(vfio_read(&other, CONFIG + PCI_BASE_ADDRESS_4, bars, 8),
			 8);
	assert_int_equal(bars[0], FLAGS);
}

static void two_gpus_have_bars_of_their_own(void **state)
{
	uint64_t seen;

	set_fake_bars();
	vfio_start(&other, "second");
	assert_int_equal(vfio_read(&other, CONFIG + PCI_BASE_ADDRESS_4, &seen,
				   8), 8);
	assert_int_equal(seen, FLAGS);
	seen = 0x5a5a5a5a5a5a5a5a;
	assert_int_equal(vfio_write(&other, CONFIG + PCI_BASE_ADDRESS_4, &seen,
				    8), 8);
	assert_int_equal(vfio_reset(&other), 0);
	assert_fake_bars_set();
}

#define ROUNDS		20000

/* The result is how many writes failed. */
static long write_until_ended(void *value)
{
	long failures = 0;

	while (still_wanted())
		if (cfg_write(PCI_BASE_ADDRESS_4, value, 8) != 8)
			failures++;
	return failures;
}

static void eight_byte_writes_are_never_seen_in_part(void **state)
{
	static uint64_t values[2] = { 0xaaaaaaaa80000000, 0x5555555500000000 };
	unsigned int seen[2] = { 0 }, torn = 0;
	struct beside *writes[2];
	uint64_t val;
	int i;

	assert_int_equal(cfg_write(PCI_BASE_ADDRESS_4, &values[0], 8), 8);
	for (i = 0; i < 2; i++)
		writes[i] = beside(write_until_ended, &values[i]);
	/* On a busy host, a writer may not run for a while. */
	for (i = 0; !torn && (i < ROUNDS || !seen[0] || !seen[1]); i++) {
		if (cfg_read(PCI_BASE_ADDRESS_4, &val, 8) != 8)
			torn++;
		else if (val == masked(values[0], PCI_BASE_ADDRESS_4))
			seen[0]++;
		else if (val == masked(values[1], PCI_BASE_ADDRESS_4))
			seen[1]++;
		else
			torn++;
	}
	for (i = 0; i < 2; i++)
		assert_int_equal(ended(writes[i]), 0);
	assert_int_equal(torn, 0);
}

static void ioeventfds_are_ENOTTY_for_every_region(void **state)
{
	static const unsigned int indexes[] = {
		VFIO_PCI_BAR0_REGION_INDEX, USEMEM, RESMEM,
		VFIO_PCI_CONFIG_REGION_INDEX
	};
	static const unsigned int widths[] = {
		VFIO_DEVICE_IOEVENTFD_8, VFIO_DEVICE_IOEVENTFD_16,
		VFIO_DEVICE_IOEVENTFD_32, VFIO_DEVICE_IOEVENTFD_64
	};
	int fd = eventfd(0, 0);
	unsigned int i, k;

	assert_true(fd >= 0);
	for (i = 0; i < ARRAY_SIZE(indexes); i++) {
		for (k = 0; k < ARRAY_SIZE(widths); k++) {
			struct vfio_device_ioeventfd e = {
				.argsz = sizeof(e),
				.flags = widths[k],
				.offset = REGION(indexes[i]) + 0x1000,
				.data = 1,
				.fd = fd,
			};

			errno = 0;
			assert_int_equal(ioctl(v.device, VFIO_DEVICE_IOEVENTFD,
					       &e), -1);
			assert_int_equal(errno, ENOTTY);
		}
	}
	close(fd);
}

#define TEST(fn)	cmocka_unit_test_setup_teardown(fn, setup, teardown)
/* One case for each fake BAR. */
#define BOTH(name) \
	VARIANT(name, name, setup, teardown, &fake_bars[0]), \
	VARIANT(name##_in_bar4, name, setup, teardown, &fake_bars[1])

static const struct CMUnitTest tests[] = {
	TEST(every_width_agrees_with_bytewise_reads_below_0x40),
	TEST(the_whole_config_space_in_one_read_is_its_bytes),
	BOTH(writing_all_ones_sizes_a_bar_at_every_width),
	BOTH(low_bits_read_as_flags_whatever_is_written),
	TEST(the_device_does_not_see_what_is_written),
	TEST(opening_clears_the_bars),
	TEST(a_reset_by_ioctl_clears_the_bars),
	TEST(a_reset_through_sysfs_clears_the_bars),
	TEST(a_read_that_faults_anywhere_is_EFAULT),
	TEST(a_write_that_faults_anywhere_leaves_the_fake_bars),
	TEST(each_element_of_a_vector_begins_where_the_last_ended),
	TEST(eight_byte_writes_are_never_seen_in_part),
	TEST(ioeventfds_are_ENOTTY_for_every_region),
	TEST(an_flr_through_config_space_clears_the_bars),
	TEST(one_write_that_sets_bars_and_starts_an_flr_leaves_them_clear),
};

static const struct CMUnitTest slow_tests[] = {
	TEST(every_write_that_touches_a_fake_bar_is_its_bytes),
};

static const struct CMUnitTest lab_tests[] = {
	TEST(the_size_found_by_sizing_is_that_of_the_region),
	TEST(binding_again_clears_the_bars),
	TEST(past_the_end_an_access_fails_whole),
	TEST(two_gpus_have_bars_of_their_own),
	TEST(without_resmem_bar2_is_the_devices_own),
};

const struct case_group groups[] = {
	{ "carve-out", CASES(tests), open_gh200, .shared = true },
	{ "carve-out slow", CASES(slow_tests), open_gh200, .shared = true },
	{ "lab", CASES(lab_tests), open_gh200, .shared = true },
	{ }
};
