// SPDX-License-Identifier: GPL-2.0-only
/*
 * Executes the programs in a table by draw.py, each in its own process.
 *
 *	replay WHO TABLE GPU	WHO is root, or client, which drops root
 *
 * It fails if the kernel's log has trouble, if the GPU can't be opened or used
 * any more, or if a reference of the module stays, whatever the calls return.
 * Prints TAP, and how often each call was executed and succeeded. Exit status:
 * 0 if it passed, 1 if not, 2 for wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"

/* As in draw.py. */
#define ARENA		MiB
#define UNIT		(64 * KiB)
#define AREA		(64 * UNIT)
#define MOST_CALLS	64
#define MOST_ARGUMENTS	6

enum world { FRESH, GROUP, CDEV };
enum kind { VALUE, RESULT, MEMORY, GIVEN, POINTER, IN_AREA, ADDRESS };
enum syscall {
	OPENAT, SYZ_OPEN_DEV, EVENTFD2, CLOSE, DUP, IOCTL, PREAD64, PWRITE64,
	MMAP, MUNMAP, MREMAP, MPROTECT, MADVISE
};

/* Programs for which a GPU stays open: opening resets it, which is slow. */
#define OPEN_FOR	50

/* Ends programs that hang. The machine may be busy, so that is no failure. */
#define ALARM_S		60

/* Unmapped space after each area, so that wrong lengths reach nothing else. */
#define GUARD		GiB

/* The highest file descriptor that this process was started with. */
#define HOST_FD		3

#define DMESG_RESTRICT	"/proc/sys/kernel/dmesg_restrict"

static const struct gpu *gpu;
static struct vfio v = { .device = -1 };
static uint64_t given[5];
static enum world world = FRESH;
static unsigned int opened_for;
static char *arena, *area;

static const unsigned char *table, *at;
static uint64_t results[MOST_CALLS];

/* How often each call was executed and has succeeded; shared with children. */
static struct count {
	uint32_t executed;
	uint32_t succeeded;
} *counts;

static uint32_t word(void)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	at += sizeof(value);
	return value;
}

static uint64_t two_words(void)
{
	uint64_t low = word();

	return low | (uint64_t)word() << 32;
}

static char *reserve(size_t size)
{
	char *map = mmap(NULL, size + GUARD, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(map != MAP_FAILED);
	assert_int_equal(mprotect(map, size, PROT_READ | PROT_WRITE), 0);
	return map;
}

/* An argument's value, which may depend on earlier calls. */
static uint64_t meant(enum kind kind, uint64_t value)
{
	uint64_t found = 0;

	switch (kind) {
	case RESULT:
		return results[value];
	case MEMORY:
		memcpy(&found, arena + (uint32_t)value, value >> 32);
		return found;
	case GIVEN:
		return given[value];
	case POINTER:
		return (uintptr_t)arena + value;
	case IN_AREA:
		return (uintptr_t)area + value;
	default:
		return value;
	}
}

/* Opens this GPU's file, whatever the number, and never another device. */
static long open_dev(const char *pattern)
{
	char path[64];

	if (!pattern) {
		errno = EFAULT;
		return -1;
	}
	if (!strncmp(pattern, "/dev/vfio/devices/", 18)) {
		if (!client_cdev(gpu, path, sizeof(path))) {
			errno = ENOENT;
			return -1;
		}
	} else {
		snprintf(path, sizeof(path), "/dev/vfio/%d", gpu_group(gpu));
	}
	return open(path, O_RDWR | O_CLOEXEC);
}

static long execute(enum syscall call, const uint64_t *a)
{
	switch (call) {
	case OPENAT:
		return syscall(SYS_openat, a[0], a[1], a[2], a[3]);
	case SYZ_OPEN_DEV:
		return open_dev((const char *)a[0]);
	case EVENTFD2:
		return syscall(SYS_eventfd2, a[0], a[1]);
	case CLOSE:
		return syscall(SYS_close, a[0]);
	case DUP:
		return syscall(SYS_dup, a[0]);
	case IOCTL:
		return syscall(SYS_ioctl, a[0], a[1], a[2]);
	case PREAD64:
		return syscall(SYS_pread64, a[0], a[1], a[2], a[3]);
	case PWRITE64:
		return syscall(SYS_pwrite64, a[0], a[1], a[2], a[3]);
	case MMAP:
		return syscall(SYS_mmap, a[0], a[1], a[2], a[3], a[4], a[5]);
	case MUNMAP:
		return syscall(SYS_munmap, a[0], a[1]);
	case MREMAP:
		return syscall(SYS_mremap, a[0], a[1], a[2], a[3], a[4]);
	case MPROTECT:
		return syscall(SYS_mprotect, a[0], a[1], a[2]);
	case MADVISE:
		return syscall(SYS_madvise, a[0], a[1], a[2]);
	}
	abort();
}

/* Reads the table's next call, and executes it if @really. */
static void one_call(unsigned int number, bool really)
{
	uint64_t arguments[MOST_ARGUMENTS] = { 0 };
	uint32_t index = word(), call = word(), count = word();
	uint32_t blocks = word(), moves = word(), i;
	long result;

	for (i = 0; i < count; i++) {
		uint32_t kind = word();

		word();
		arguments[i] = meant(kind, two_words());
	}
	for (i = 0; i < blocks; i++) {
		uint32_t offset = word(), length = word();

		if (really)
			memcpy(arena + offset, at, length);
		at += (length + 3) / 4 * 4;
	}
	for (i = 0; i < moves; i++) {
		uint32_t offset = word(), kind = word(), size = word();
		uint64_t value;

		word();
		value = two_words();
		if (!really)
			continue;
		if (kind == ADDRESS) {
			snprintf(arena + offset, size, "%s", gpu->addr);
		} else {
			value = meant(kind, value);
			memcpy(arena + offset, &value, size);
		}
	}
	if (!really)
		return;
	/* Counted first, because the call may not return. */
	counts[index].executed++;
	result = execute(call, arguments);
	results[number] = result;
	if (result != -1)
		counts[index].succeeded++;
}

static void close_world(void)
{
	if (world != FRESH) {
		close(v.device);
		close(v.group);
		close(v.container);
	}
	world = FRESH;
}

static int open_cdev(void)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };
	char path[64];

	if (!client_cdev(gpu, path, sizeof(path)))
		return -ENOENT;
	v = (struct vfio){ gpu, open("/dev/iommu", O_RDWR), -1,
			   open(path, O_RDWR) };
	bind.iommufd = v.container;
	if (ioctl(v.device, VFIO_DEVICE_BIND_IOMMUFD, &bind) ||
	    ioctl(v.container, IOMMU_IOAS_ALLOC, &ioas))
		return -errno;
	attach.pt_id = ioas.out_ioas_id;
	if (ioctl(v.device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
		return -errno;
	given[3] = ioas.out_ioas_id;
	given[4] = bind.out_devid;
	return 0;
}

/* Opens the files for the next programs; 0, or a negative errno. */
static int open_world(enum world next)
{
	int ret;

	if (world == next && opened_for < OPEN_FOR)
		return 0;
	close_world();
	opened_for = 0;
	if (next == FRESH)
		return 0;
	ret = next == CDEV ? open_cdev() : vfio_try_open(&v, gpu);
	if (ret)
		return ret;
	world = next;
	given[0] = v.container;
	given[1] = v.group;
	given[2] = v.device;
	return 0;
}

/* Runs a program in a child, whose name identifies it in the kernel's log. */
static void run_program(unsigned int number, uint32_t calls, unsigned int *killed)
{
	char name[16];
	int status;
	pid_t pid;
	uint32_t i;

	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		/* Programs may use a wrong number as a file. */
		for (i = 0; i <= HOST_FD; i++)
			close(i);
		snprintf(name, sizeof(name), "syz-%u", number);
		prctl(PR_SET_NAME, name);
		alarm(ALARM_S);
		for (i = 0; i < calls; i++)
			one_call(i, true);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	*killed += status != 0;
}

/* Whether the log has trouble, which fails the run; prints the program. */
static bool has_splat(unsigned int number)
{
	static const char *const words[] = {
		"WARNING:", "BUG:", "Oops", "Internal error", "Call trace",
		"Call Trace", "refcount_t"
	};
	unsigned int i;
	char line[512];
	int level;

	while (klog_next(&level, line, sizeof(line))) {
		for (i = 0; i < ARRAY_SIZE(words); i++) {
			if (strstr(line, words[i])) {
				printf("@@replay program %u: %s\n", number, line);
				return true;
			}
		}
	}
	return false;
}

static int run_all(const char *who)
{
	uint32_t calls, programs, next, count, i, k;
	unsigned int killed = 0;
	int ret;

	if (!strcmp(who, "client")) {
		client_drop_root();
		if (!geteuid())
			return 1;
	}
	klog_mark();
	at = table + 4;
	calls = word();
	programs = word();
	for (i = 0; i < programs; i++) {
		next = word();
		count = word();
		ret = open_world(next);
		if (ret) {
			printf("@@replay program %u: before it the GPU can't be opened: %s\n",
			       i, strerror(-ret));
			return 1;
		}
		opened_for++;
		run_program(i, count, &killed);
		if (has_splat(i))
			return 1;
		/* Advances the parent's position in the table. */
		for (k = 0; k < count; k++)
			one_call(k, false);
	}
	close_world();
	printf("# %s: %u programs, %u of them killed\n", who, programs, killed);
	for (i = 0; i < calls; i++)
		printf("@@count %u %u %u\n", i, counts[i].executed,
		       counts[i].succeeded);
	return 0;
}

static long users_of_module(void)
{
	FILE *f = fopen("/sys/module/" DRIVER "/refcnt", "r");
	long count = -1;

	if (!f || fscanf(f, "%ld", &count) != 1)
		fail_msg("can't read the module's references");
	fclose(f);
	return count;
}

/*
 * Both parts must keep what is written, by system calls and by mappings, and
 * the GPU must be able to reset.
 */
static void use(void)
{
	static const unsigned int parts[] = { USEMEM, RESMEM };
	char written[4096], seen[4096];
	unsigned int i;
	char *map;

	vfio_open(&v, gpu);
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		fill(written, sizeof(written), 5 + i);
		assert_int_equal(vfio_write(&v, REGION(parts[i]) + MiB, written,
					    sizeof(written)), sizeof(written));
		assert_int_equal(vfio_reset(&v), 0);
		map = vfio_map(&v, parts[i], MiB, 64 * KiB,
			       PROT_READ | PROT_WRITE, MAP_SHARED, NULL);
		assert_memory_equal(map, written, sizeof(written));
		map[0]++;
		written[0]++;
		munmap(map, 64 * KiB);
		assert_int_equal(vfio_read(&v, REGION(parts[i]) + MiB, seen,
					   sizeof(seen)), sizeof(seen));
		assert_memory_equal(seen, written, sizeof(seen));
	}
	vfio_close(&v);
}

static void load_table(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	assert_int_equal(fstat(fd, &st), 0);
	table = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_true(table != MAP_FAILED && !memcmp(table, "SYZ1", 4));
	close(fd);
	at = table + 4;
	counts = mmap(NULL, word() * sizeof(*counts), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(counts != MAP_FAILED);
}

static const char *who;

static void the_programs_do_no_harm(void **state)
{
	long before;
	int status;
	pid_t pid;

	assert_int_equal(gpu_bind(gpu), 0);
	client_owns(gpu);
	/* Lets a client read the log after each program. */
	must_write_file(DMESG_RESTRICT, "0");
	before = users_of_module();
	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		status = run_all(who);
		fflush(stdout);
		_exit(status);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	use();
	assert_int_equal(users_of_module(), before);
	assert_int_equal(gpu_unbind(gpu), 0);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_programs_do_no_harm),
	};

	if (argc != 4)
		return 2;
	who = argv[1];
	load_table(argv[2]);
	gpu = gpu_find(argv[3]);
	arena = reserve(ARENA);
	area = reserve(AREA);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}
