// SPDX-License-Identifier: GPL-2.0-only
/*
 * A library for LD_PRELOAD that imitates vfio, the kernel's log and the memory
 * of a GPU for a program. test_vfio.py uses it. The memory is a file in RAM,
 * whose layout is that of vfio-pci: the region number in bits 40 and higher.
 *
 * PLAY has words:
 *
 *	cdev		the GPU has a file of its own, and there is iommufd
 *	kvm		the host has KVM
 *	usemem=N	bytes in BAR4, which has bar4=N bytes; likewise
 *			resmem=N in BAR2 of bar2=N bytes; default: 0, no BAR
 *	no-reset	vfio can't reset the GPU
 *	not-viable	a device of the group has another driver
 *	caps=KIND	of the memory's regions: none, other (no list of what
 *			can be mapped), empty (a list of nothing), hole (a list
 *			that begins after offset 0)
 *	soiled=N	the byte at N in each BAR is 0x5a, and not 0
 *	dead=N		accesses from offset N of BAR4 on get SIGBUS
 *	fail=NAME:N:ERRNO[:TIMES]	the call of this name fails with ERRNO
 *			from the N-th time on, or only TIMES times: a file's
 *			name for open(2), after ">" if only to write, or after
 *			"?" for access(2) or "@" for readlink(2); a request's
 *			for ioctl(2); read, write or map of the memory; kmsg,
 *			which is read(2) of the log; insmod, which is libkmod's;
 *			or fsync, mkdir, rename and symlink, which are system
 *			calls; several are possible
 *	fast=N		clocks run N times as fast, also that of poll(2); with N
 *			below 1, slower
 *
 * AT has lines NAME:COMMAND, shell commands that run before the call of this
 * name, unless it fails. KMSG is a file with the records of /dev/kmsg, to which
 * these commands may add.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "system/iommufd.h"

#define NEXT(name)	((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define PAGE		((uint64_t)4096)
#define AT(index)	((uint64_t)(index) << 40)
#define CONFIG		VFIO_PCI_CONFIG_REGION_INDEX

static const char *play;
static int memory = -1, kmsg = -1, kmsg_end = -1;
static FILE *records;
static uint64_t size[2], bar[2];	/* of BAR4 and BAR2 */
static double fast;
/* How often each call of the words "fail" was made, also by child processes. */
enum { FAILS = 16 };
static int *count;

/* The value of the word name=VALUE, or of the word name; NULL: none. */
static const char *word(const char *name, const char *from)
{
	size_t length = strlen(name);
	const char *at;

	/* Without from, a sanitizer makes this call before begin(). */
	for (at = from; at && (at = strstr(at, name)); at++)
		if ((at == play || at[-1] == ' ') && (!at[length] || strchr("= ", at[length])))
			return at + length + (at[length] == '=');
	return NULL;
}

static bool is(const char *name, const char *kind)
{
	const char *value = word(name, play);
	size_t length = strlen(kind);

	return value && !strncmp(value, kind, length) && (!value[length] || value[length] == ' ');
}

static uint64_t number(const char *name)
{
	const char *value = word(name, play);

	return value ? strtoull(value, NULL, 0) : 0;
}

/* Not the program: with this library, it would be started by itself again. */
static void __attribute__((constructor)) begin(void)
{
	static const struct {
		const char *size, *bar;
	} names[] = { { "usemem", "bar4" }, { "resmem", "bar2" } };
	int i;

	unsetenv("LD_PRELOAD");
	play = getenv("PLAY") ?: "";
	fast = word("fast", play) ? strtod(word("fast", play), NULL) : 1;
	count = NEXT(mmap)(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memory = memfd_create("memory", MFD_CLOEXEC);
	if (count == MAP_FAILED || memory < 0 || ftruncate(memory, AT(CONFIG)))
		abort();
	for (i = 0; i < 2; i++) {
		size[i] = number(names[i].size);
		bar[i] = number(names[i].bar);
		if (word("soiled", play) && size[i] &&
		    NEXT(pwrite)(memory, "\x5a", 1, AT(i ? 2 : 4) + number("soiled")) != 1)
			abort();
	}
}

/* Runs the command for this call. */
static void obey(const char *name)
{
	const char *at = getenv("AT");
	size_t length = strlen(name);
	char command[1024];

	for (; at && *at; at += strcspn(at, "\n"), at += *at == '\n') {
		if (strncmp(at, name, length) || at[length] != ':')
			continue;
		snprintf(command, sizeof(command), "%.*s",
			 (int)strcspn(at + length + 1, "\n"), at + length + 1);
		/* NOLINTNEXTLINE(cert-env33-c): the commands are a test's */
		if (system(command))
			abort();
	}
}

/*
 * Whether this call must fail; sets errno. If not, its command has run.
 */
static bool fails(const char *name)
{
	size_t length = strlen(name);
	int i, nth, from, error, times;
	const char *at = play;

	for (i = 0; i < FAILS && (at = word("fail", at)); i++) {
		times = 1 << 30;
		if (strncmp(at, name, length) ||
		    sscanf(at + length, ":%d:%d:%d", &from, &error, &times) < 2)
			continue;
		nth = __atomic_add_fetch(&count[i], 1, __ATOMIC_SEQ_CST);
		if (nth < from || nth >= from + times)
			continue;
		errno = error;
		return true;
	}
	obey(name);
	return false;
}

/* ---- files -------------------------------------------------------------- */

static bool played(const char *path)
{
	if (!strcmp(path, "/dev/kvm"))
		return word("kvm", play);
	return !strncmp(path, "/dev/vfio/devices/", 18) || !strcmp(path, "/dev/iommu")
		? !!word("cdev", play) : !strncmp(path, "/dev/vfio/", 10);
}

/* Sends what was added to the file. */
static void send_records(void)
{
	char line[8192];

	while (fgets(line, sizeof(line), records))
		if (send(kmsg_end, line, strlen(line), 0) < 0)
			abort();
	clearerr(records);
}

/* Each read() of this socket returns one record. */
static int open_kmsg(void)
{
	char *file = getenv("KMSG");
	int ends[2];

	records = file ? fopen(file, "re") : NULL;
	if (!records || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends))
		abort();
	/* The other end stays open: after the last record comes EAGAIN. */
	kmsg = ends[0];
	kmsg_end = ends[1];
	send_records();
	return kmsg;
}

int open(const char *path, int flags, ...)
{
	bool writes = (flags & O_ACCMODE) == O_WRONLY;
	char name[PATH_MAX + 1];
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = va_arg(args, mode_t);
	va_end(args);
	snprintf(name, sizeof(name), "%s%s", writes ? ">" : "", path);
	if (fails(name))
		return -1;
	if (!strcmp(path, "/dev/kmsg") && getenv("KMSG"))
		return open_kmsg();
	if (!played(path))
		return NEXT(open)(path, flags, mode);
	if (!strncmp(path, "/dev/vfio/devices/", 18))
		return dup(memory);
	return NEXT(open)("/dev/null", O_RDWR | O_CLOEXEC);
}

int access(const char *path, int mode)
{
	char name[PATH_MAX + 1];

	snprintf(name, sizeof(name), "?%s", path);
	return fails(name) ? -1 : played(path) ? 0 : NEXT(access)(path, mode);
}

ssize_t readlink(const char *path, char *data, size_t length)
{
	char name[PATH_MAX + 1];

	snprintf(name, sizeof(name), "@%s", path);
	return fails(name) ? -1 : NEXT(readlink)(path, data, length);
}

ssize_t read(int fd, void *data, size_t length)
{
	if (fd == kmsg && fd >= 0) {
		if (fails("kmsg"))
			return -1;
		send_records();
	}
	return NEXT(read)(fd, data, length);
}

/* ---- vfio's requests ---------------------------------------------------- */

static const struct {
	unsigned long request;
	const char *name;
} requests[] = {
	{ VFIO_CHECK_EXTENSION, "CHECK_EXTENSION" },
	{ VFIO_GROUP_GET_STATUS, "GET_STATUS" },
	{ VFIO_GROUP_SET_CONTAINER, "SET_CONTAINER" },
	{ VFIO_SET_IOMMU, "SET_IOMMU" },
	{ VFIO_GROUP_GET_DEVICE_FD, "GET_DEVICE_FD" },
	{ VFIO_DEVICE_GET_INFO, "GET_INFO" },
	{ VFIO_DEVICE_GET_REGION_INFO, "GET_REGION_INFO" },
	{ VFIO_DEVICE_RESET, "RESET" },
	{ VFIO_IOMMU_MAP_DMA, "MAP_DMA" },
	{ VFIO_IOMMU_UNMAP_DMA, "UNMAP_DMA" },
	{ BIND_IOMMUFD, "BIND_IOMMUFD" },
	{ ATTACH_IOMMUFD, "ATTACH_IOMMUFD" },
	{ IOAS_ALLOC, "IOAS_ALLOC" },
	{ IOAS_MAP, "IOAS_MAP" },
	{ IOAS_UNMAP, "IOAS_UNMAP" },
	{ KVM_CREATE_VM, "CREATE_VM" },
	{ KVM_CHECK_EXTENSION, "CHECK_KVM" },
};

static int region_info(struct vfio_region_info *info)
{
	struct {
		struct vfio_region_info info;
		struct vfio_info_cap_header other;
		struct vfio_region_info_cap_sparse_mmap list;
		struct vfio_region_sparse_mmap_area area;
	} full = { };
	int i = info->index == VFIO_PCI_BAR4_REGION_INDEX ? 0 : 1;

	info->offset = AT(info->index);
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	if (info->index == CONFIG) {
		info->size = 4;
		return 0;
	}
	info->size = bar[i];
	if (!size[i])
		return 0;
	info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
	if (is("caps", "none"))
		return 0;
	info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
	info->cap_offset = offsetof(__typeof__(full), other);
	full.info = *info;
	full.other.id = 0x7fff;
	full.other.next = is("caps", "other") ? 0 : offsetof(__typeof__(full), list);
	full.list.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	full.list.nr_areas = !is("caps", "empty");
	full.area.offset = is("caps", "hole") ? PAGE : 0;
	full.area.size = size[i] / PAGE * PAGE;
	full.info.argsz = sizeof(full);
	if (info->argsz < sizeof(full)) {
		info->argsz = sizeof(full);
		info->cap_offset = 0;
	} else {
		memcpy(info, &full, sizeof(full));
	}
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	size_t i;
	void *data;

	va_start(args, request);
	data = va_arg(args, void *);
	va_end(args);
	for (i = 0; i < sizeof(requests) / sizeof(*requests); i++)
		if (requests[i].request == request)
			break;
	if (i == sizeof(requests) / sizeof(*requests))
		return ((int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl"))(fd, request,
											data);
	if (fails(requests[i].name))
		return -1;
	switch (request) {
	case VFIO_CHECK_EXTENSION:
	case KVM_CHECK_EXTENSION:
		return 1;
	case KVM_CREATE_VM:
		return dup(fd);
	case VFIO_GROUP_GET_STATUS:
		((struct vfio_group_status *)data)->flags =
			word("not-viable", play) ? 0 : VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		return dup(memory);
	case VFIO_DEVICE_GET_INFO:
		((struct vfio_device_info *)data)->flags =
			word("no-reset", play) ? 0 : VFIO_DEVICE_FLAGS_RESET;
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(data);
	}
	return 0;
}

/* ---- the memory --------------------------------------------------------- */

/* Whether this is after a part's memory. */
static bool after(uint64_t at, size_t length)
{
	int i = at >> 40 == 4 ? 0 : 1;

	return (at >> 40 == 4 || at >> 40 == 2) &&
	       (at & (AT(1) - 1)) + length > size[i];
}

ssize_t pread(int fd, void *data, size_t length, off_t at)
{
	if ((uint64_t)at < AT(1))
		return NEXT(pread)(fd, data, length, at);
	if (fails("read"))
		return -1;
	if (at >> 40 == CONFIG || after(at, length)) {
		memset(data, 0xff, length);
		return length;
	}
	return NEXT(pread)(memory, data, length, at);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at)
{
	if ((uint64_t)at < AT(1))
		return NEXT(pwrite)(fd, data, length, at);
	if (fails("write"))
		return -1;
	if (after(at, length))
		return length;
	return NEXT(pwrite)(memory, data, length, at);
}

void *mmap(void *place, size_t length, int prot, int flags, int fd, off_t at)
{
	char *map;

	if (fd < 0 || (uint64_t)at < AT(1))
		return NEXT(mmap)(place, length, prot, flags, fd, at);
	if (fails("map"))
		return MAP_FAILED;
	if (after(at, length)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	map = NEXT(mmap)(place, length, prot, flags, fd, at);
	if (map != MAP_FAILED && word("dead", play) && at == (off_t)AT(4) &&
	    number("dead") < length)
		/* Beyond the file's end. */
		NEXT(mmap)(map + number("dead"), length - number("dead"), prot,
			   flags | MAP_FIXED, fd, AT(CONFIG + 1));
	return map;
}

/* ---- the host ----------------------------------------------------------- */

/* Defines the function @name, which fails where PLAY says so of @call. */
#define MAY_FAIL(result, name, call, parameters, arguments)			\
	result name parameters							\
	{									\
		return fails(call) ? -1 : NEXT(name) arguments; /* NOLINT: with parentheses */ \
	}

MAY_FAIL(int, fsync, "fsync", (int fd), (fd))
MAY_FAIL(int, mkdir, "mkdir", (const char *path, mode_t mode), (path, mode))
MAY_FAIL(int, rename, "rename", (const char *from, const char *to), (from, to))
MAY_FAIL(int, symlink, "symlink", (const char *target, const char *path), (target, path))

/* libkmod's, but it never loads a module and reads none of its arguments. */
int kmod_module_probe_insert_module(void)
{
	return fails("insmod") ? -errno : 0;
}

/* ---- time --------------------------------------------------------------- */

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	return NEXT(poll)(fds, n, timeout > 0 ? (int)(timeout / fast) + 1 : timeout);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int rc = NEXT(clock_gettime)(clock, time);
	uint64_t ns;

	if (rc || clock != CLOCK_MONOTONIC || fast == 1)
		return rc;
	ns = (time->tv_sec * 1e9 + time->tv_nsec) * fast;
	time->tv_sec = ns / 1000000000ULL;
	time->tv_nsec = ns % 1000000000ULL;
	return 0;
}
