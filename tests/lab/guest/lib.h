/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the test programs share: finding, binding and opening GPUs, the kernel log,
 * and catching SIGBUS. A function that can't continue fails the running cmocka
 * test. A function that returns an int returns 0 or a negative errno, for the test
 * to judge.
 *
 * A program has an array "groups" of its cases. main.c lists them for pytest, and
 * runs them in the machine of tests/lab/machine.py. Groups that don't need the
 * lab (needs.py) are also part of the tests for hardware. There, main.c runs them
 * on a GPU that is bound already, answers to the name "gh200" and has any sizes.
 */
#ifndef NVGRACE_TEST_LIB_H
#define NVGRACE_TEST_LIB_H

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <cmocka.h>
#include <linux/vfio.h>

#include "system/vfio.h"

/*
 * A failed comparison prints both expressions with their values. cmocka prints only
 * the values.
 */
void assert_same(long long a, long long b, const char *name_a, const char *name_b, const char *file,
		 int line);
#undef assert_int_equal
#define assert_int_equal(a, b) \
	assert_same((long long)(a), (long long)(b), #a, #b, __FILE__, __LINE__)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define KiB		1024ULL
#define MiB		(1024 * KiB)
#define GiB		(1024 * MiB)

#define RW		(PROT_READ | PROT_WRITE)

/* Bytes of a page, and those that one page-table page maps: it has 8-byte entries. */
extern uint64_t page, table;

#define DRIVER		"nvgrace_gpu_vfio_pci"

/*
 * Cases with one fixture. @needs: words for what they need of the kernel or the
 * machine, with blanks between them, as tests/lab/needs.py explains them. The
 * runner names the words that hold in the environment variable HAS. @file: where
 * pytest shows the cases. @shared: what one case leaves open or bound is the next
 * one's. The last group of a program is empty.
 */
struct case_group {
	const char *needs;
	const struct CMUnitTest *cases;
	size_t count;
	const char *file;
	CMFixtureFunction setup;
	CMFixtureFunction teardown;
	bool shared;
};

#define CASES(array)	array, ARRAY_SIZE(array), __FILE__

/* A case of a function that several share. *state points to its row, what varies. */
#define VARIANT(name, function, setup, teardown, row) \
	{ #name, function, setup, teardown, row }

/* A case for which a GPU is bound and opened. The runner closes and unbinds it. */
#define OPEN(gpu, function) \
	{ #function, function, open_gpu, NULL, gpu }

extern const struct case_group groups[];

/*
 * Whether all of these words hold, which a group of the program names, or names
 * after a question mark. On hardware, this skips the case if it can't be known.
 */
bool machine_has(const char *needs);

/*
 * Skips the case on a GPU that is no subject for it. In the lab, "gh200" is one
 * for all cases.
 */
#define only_if(condition) \
	do { \
		if (!(condition)) { \
			print_message("# not so on this GPU: " #condition "\n"); \
			skip(); \
		} \
	} while (0)

/* A number that a campaign may set in the environment, or the usual one. */
unsigned long setting(const char *name, unsigned long usual);

/* The offset of a region in the device's file, as in vfio-pci. */
#define REGION(index)	((uint64_t)(index) << 40)
#define CONFIG		REGION(VFIO_PCI_CONFIG_REGION_INDEX)
#define USEMEM		VFIO_PCI_BAR4_REGION_INDEX
#define RESMEM		VFIO_PCI_BAR2_REGION_INDEX

/* A GPU of this machine, from /vm/gpus.conf; see tests/lab/README.md. */
struct gpu {
	char name[32];
	char addr[16];		/* PCI address, and its numbers */
	unsigned int domain, bus, dev, fn;
	uint64_t base;		/* physical address of its memory, 0 if none */
	uint64_t size;		/* bytes of memory */
	char port[16];		/* PCI address of the root port above it */
};

/* Returns the GPU called @name. Fails the test if the machine doesn't have it. */
const struct gpu *gpu_find(const char *name);

/*
 * From here on, this is hardware: the only GPU is the one with this address, called
 * "gh200".
 */
void gpu_given(const char *address);

/* The one with the least memory that works, all of it usemem. */
const struct gpu *gpu_smallest(void);

/*
 * Binds as an administrator would: driver_override, then the driver's bind
 * file. Returns the error of probe. Unbind undoes both; it may block. If this
 * process still has the GPU open, as after a failed test, unbind closes all
 * GPUs after five minutes and returns -EBUSY. On hardware, the GPU stays bound,
 * and both do nothing.
 */
int gpu_bind(const struct gpu *gpu);
int gpu_unbind(const struct gpu *gpu);

/* Like gpu_unbind(), but in the calling thread and without a time limit. */
int gpu_unbind_here(const struct gpu *gpu);

bool gpu_bound(const struct gpu *gpu);

/*
 * Returns the number of its IOMMU group, or a negative errno. Before Linux 7.2
 * a GPU has a group only while a driver is bound to it.
 */
int gpu_group(const struct gpu *gpu);

/*
 * main.c's teardown in the lab, also after cases that have failed half-way: of every
 * group, and of every case of a group that shares nothing. Closes and unmaps all GPUs
 * of this process, unbinds all, and sets the parameter scrub to off; no function
 * fails any more. On hardware, a case is a process.
 */
int leave_nothing(void **state);

/*
 * Writes to an existing file. The first returns 0 or a negative errno, the
 * second fails the test.
 */
int write_file(const char *path, const char *text);
void must_write_file(const char *path, const char *text);

/* Returns the content of a file in /proc, to be freed. */
char *proc_text(const char *path);

/*
 * The same for a list that others change at the same time. The kernel prints it
 * in pieces and finds the next piece by its number of entries, so an entry that
 * goes away hides another one. Reads until nothing changes.
 */
char *proc_list(const char *path);

/*
 * Counts the kernel's mappings of a GPU's memory. @bytes, which may be NULL:
 * their size, with a guard page each.
 */
unsigned int kernel_mappings(const struct gpu *gpu, uint64_t *bytes);

/*
 * The path of a file in the device's sysfs directory, in a buffer of the function
 * for each thread.
 */
const char *gpu_file(const struct gpu *gpu, const char *file);

/* Opens the device's config space in sysfs: past vfio, and without vfio. */
int gpu_config_open(const struct gpu *gpu, int flags);

/*
 * Writes the low half of BAR0 there, and returns what it was. With 0, the GPU has
 * lost its BARs, as after a reset that the kernel knows nothing of.
 */
uint32_t gpu_set_bar0(const struct gpu *gpu, uint32_t value);

/* Writes to a file in that directory. */
int gpu_sysfs_write(const struct gpu *gpu, const char *file, const char *text);

/* Finds it again below its port, if it was removed. */
void gpu_rescan(const struct gpu *gpu);

/* Reads such a file, without its last newline. It must exist. */
void gpu_sysfs_read(const struct gpu *gpu, const char *file, char *text,
		    size_t size);

/* Reads such a file's number, in decimal or after 0x. */
uint64_t gpu_sysfs_number(const struct gpu *gpu, const char *file);

/*
 * The bytes of the device's own BAR @index as the PCI core knows it, 0 if it has
 * none. *@start, which may be NULL: its bus address.
 */
uint64_t gpu_bar(const struct gpu *gpu, unsigned int index, uint64_t *start);

/* Whether such a file has this text. */
bool gpu_sysfs_is(const struct gpu *gpu, const char *file, const char *wanted);

/* Waits until the kernel has suspended the device. */
void wait_until_asleep(const struct gpu *gpu);

/* Maps the registers of an unbound GPU through sysfs. */
volatile uint32_t *gpu_map_bar0(const struct gpu *gpu);
void gpu_unmap_bar0(volatile uint32_t *bar0);

/* Accesses one register of an unbound GPU. */
uint32_t gpu_bar0_read(const struct gpu *gpu, uint32_t reg);
void gpu_bar0_write(const struct gpu *gpu, uint32_t reg, uint32_t val);

/*
 * Makes a GPU unready for @ms milliseconds from now on; UINT32_MAX: for good.
 */
void gpu_unready(const struct gpu *gpu, uint32_t ms);

/*
 * Makes a GPU unready from the first call to the second, even while it is being
 * bound: its registers stay mapped in between.
 */
volatile uint32_t *gpu_hold(const struct gpu *gpu);
void gpu_release(const struct gpu *gpu, volatile uint32_t *bar0);

/* Bits of AER's status registers: fatal, nonfatal and corrected by default. */
#define ERR_DATA_LINK		0x00000010
#define ERR_COMPLETION_TIMEOUT	0x00004000
#define ERR_COR_RECEIVER	0x00000001

/*
 * Makes the kernel handle PCIe errors of a GPU, as if the device and its root
 * port had these bits in their registers. Needs the module aer_inject. Calls
 * klog_mark() first.
 */
void gpu_inject_error(const struct gpu *gpu, uint32_t uncorrected,
		      uint32_t corrected);

/* The model's control block; see tests/lab/model/README.md. */
#define BAR0_SIZE		(16 * MiB)
#define BAR0_C2C		0x1498
#define BAR0_HBM		0x200bc
#define MODEL_CTL		0xf00000
#define MODEL_MAGIC		(MODEL_CTL + 0x00)
#define MODEL_RESETS		(MODEL_CTL + 0x04)
#define MODEL_C2C_READS		(MODEL_CTL + 0x08)
#define MODEL_HBM_READS		(MODEL_CTL + 0x0c)
#define MODEL_RESET_DELAY	(MODEL_CTL + 0x10)
#define MODEL_UNREADY		(MODEL_CTL + 0x14)

/*
 * The path of the GPU's own device file, in a buffer of the function. Without one,
 * nothing can be opened there.
 */
const char *vfio_cdev_path(const struct gpu *gpu);

/*
 * Opens a bound GPU with the client of nvgrace-gpu (system/vfio.h): through a type1
 * container, or through iommufd if the kernel has no type1. If the driver refuses,
 * the second returns a negative errno and leaves nothing open.
 */
void vfio_open(struct vfio *v, const struct gpu *gpu);
int vfio_try_open(struct vfio *v, const struct gpu *gpu);

/* Binds and opens; closes and unbinds. */
void vfio_start(struct vfio *v, const char *name);
void vfio_stop(struct vfio *v);

/* The GPU that a case uses, or the first of them. */
extern struct vfio v;

/* A fixture: starts it. *@state is its name, or NULL for "gh200". */
int open_gpu(void **state);

/* A part of its memory, in bytes. Only whole pages can be mapped. */
struct gpu_part {
	unsigned int index;	/* of its region */
	uint64_t at;		/* offset in the device's file */
	uint64_t length;
	uint64_t mappable;
	uint64_t bar;
	uint64_t phys;
};

/* usemem and resmem, which this fixture finds in "gh200". */
extern struct gpu_part gpu_parts[2];
int open_parts(void **state);

/* One case for each part. *state points to it. */
#define EACH_PART(name, setup) \
	VARIANT(name, name, setup, NULL, &gpu_parts[0]), \
	VARIANT(name##_in_resmem, name, setup, NULL, &gpu_parts[1])

/*
 * The steps by which vfio_open_cdev() opens, one at a time: binds a GPU and opens
 * its device file; opens /dev/iommu, with an I/O address space; binds one file to
 * the other, and returns the device's id there; lets the GPU use the address space.
 * The last two return a negative errno if they fail.
 */
void cdev_start(struct vfio *v, const char *name);
void cdev_open_iommu(struct vfio *v);
int cdev_bind(struct vfio *v);
int cdev_attach(struct vfio *v);

#define FAKE_BAR_FLAGS	(VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | \
			 VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS)

/* vfio_get_region(), of a region that must be there. */
void vfio_region(struct vfio *v, unsigned int index, struct vfio_region *r);

/*
 * Fails the test unless a region has the size @bar and can be read, written,
 * and mapped as far as whole pages of a part of @length bytes go.
 */
void assert_region(struct vfio *v, unsigned int index, uint64_t length,
		   uint64_t bar);

/*
 * Bytes of memory in a region, 0 if it is none of GPU memory. A driver without
 * the sysfs attributes shows only whole pages of it.
 */
uint64_t vfio_length(struct vfio *v, unsigned int index);

/* VFIO_DEVICE_PCI_HOT_RESET of its group. Returns 0 or a negative errno. */
int vfio_hot_reset(struct vfio *v);

/* Sets @feature to the @size bytes of @data by VFIO_DEVICE_FEATURE. */
int vfio_set_feature(struct vfio *v, uint32_t feature, const void *data,
		     size_t size);

/* Bytes of a region, for vfio_dma_buf(). */
struct dma_range {
	uint64_t offset;
	uint64_t length;
};

#define DMA_RANGES	8

/*
 * Exports up to DMA_RANGES ranges of a region as one dma-buf, by
 * VFIO_DEVICE_FEATURE_DMA_BUF, which these headers don't have yet. Returns its
 * file descriptor or a negative errno.
 */
int vfio_dma_buf(struct vfio *v, uint32_t region, uint32_t flags,
		 uint32_t count, const struct dma_range *ranges);

/*
 * Reads the first byte of usemem of a struct vfio. Returns 1 or a negative errno,
 * also to beside().
 */
long read_a_byte(void *v);

/* Config offset of a capability in the list of an open device; 0 if there is none. */
unsigned int vfio_capability(struct vfio *v, uint8_t id);

/* Accesses a register in BAR0 of an open device. */
uint32_t vfio_bar0_read(struct vfio *v, uint32_t reg);
void vfio_bar0_write(struct vfio *v, uint32_t reg, uint32_t val);

/*
 * The first makes the GPU unready after each reset from now on. The second
 * makes it ready, now and after later resets.
 */
void vfio_unready_after_resets(struct vfio *v);
void vfio_make_ready(struct vfio *v);

/*
 * Maps [offset, offset + length) of a region. On failure, *@err is a negative
 * errno; without @err, the test fails.
 */
void *vfio_map(struct vfio *v, unsigned int index, uint64_t offset,
	       uint64_t length, int prot, int flags, int *err);

/* Fills @buf with a pattern that depends on @seed and on the position. */
void fill(void *buf, size_t count, uint64_t seed);

/* Returns at least two adjacent pages, of which the second faults. */
char *page_before_hole(void);

/*
 * Returns a free range of @length bytes of addresses. It begins @shift bytes
 * after an address that is a multiple of what one page-table page maps.
 */
char *free_range(uint64_t length, uint64_t shift);

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t now_ms(void);

/* Fails the test unless @ms milliseconds have passed since @begin. */
void assert_waited(uint64_t begin, uint64_t ms);

/*
 * What goes on beside the case. beside() calls a function in another thread, and
 * returns once that runs. ended() waits for its end and returns its result. A
 * function without an end goes on while it is still_wanted(), until ended() is
 * called:
 *
 *	static long reset_for_ever(void *v)
 *	{
 *		while (still_wanted())
 *			vfio_reset(v);
 *		return 0;
 *	}
 *
 * It must not assert anything: cmocka's assertions can't leave a thread.
 */
struct beside {
	pthread_t thread;
	sem_t runs;
	pid_t tid;
	long (*function)(void *arg);
	void *arg;
	atomic_bool unwanted;
	atomic_bool over;	/* the function has returned */
	long result;
};

struct beside *beside(long (*function)(void *arg), const void *arg);
bool still_wanted(void);
long ended(struct beside *b);

/*
 * The status of a child, waitpid()'s, once it has ended. The second kills it before,
 * and fails the test unless that was its end.
 */
int status_of_child(pid_t pid);
void assert_killed(pid_t pid);

/*
 * Sleeps until the thread @tid waits in the system call @number (SYS_ioctl) for
 * its file @fd, however long that takes to come. A negative @fd stands for any.
 */
void wait_until_in(pid_t tid, long number, int fd);

/*
 * The first sets the module's parameter scrub. The second sleeps until
 * scrub_state is no longer "scrubbing", and returns the new state.
 */
void scrub_set_parameter(bool on);
const char *scrub_end(const struct gpu *gpu);

/* Bytes that the current or the last scrub has overwritten. */
uint64_t scrub_progress(const struct gpu *gpu);

/*
 * These access the GPU's memory from outside the machine, by
 * tests/lab/gpu_memory.py: soil() writes bytes other than zero to one page in each
 * MiB, and assert_clean() fails the test unless these pages are zero. The other
 * two do the same to all of the memory.
 */
void soil(const struct gpu *gpu);
void assert_clean(const struct gpu *gpu);
void soil_all(const struct gpu *gpu);
void assert_all_clean(const struct gpu *gpu);

/* Fails the test unless these bytes of GPU memory are zero. */
void assert_range_clean(uint64_t address, uint64_t count);

/*
 * The kernel's test mode of suspend: tasks are frozen, and devices stay on.
 * The second fails the test if the kernel can't do it.
 */
bool host_can_suspend(void);
void suspend_host(void);

/*
 * What the kernel tells this driver before and after the host sleeps. Between
 * the first two, tasks that wait for a GPU do so without end. The last one is all of
 * hibernation.
 */
void host_sleeps(void);
void host_wakes(void);
void host_hibernates(void);

/*
 * Counts the lines of the kernel log since the last klog_mark() that contain
 * @text.
 */
void klog_mark(void);
int klog_count(const char *text);

/*
 * Waits up to @ms milliseconds for a line that contains @text; false if none
 * came. Consumes the lines up to that one.
 */
bool klog_wait(const char *text, int ms);

/*
 * Returns the next line of the kernel log since klog_mark() that neither this
 * function nor klog_count() has consumed, and its level (3: error, 4: warning,
 * 6: info); false if there is none.
 */
bool klog_next(int *level, char *line, size_t size);

/* Goes back to the oldest line that the kernel has. */
void klog_rewind(void);

/*
 * Load the module under test as init did, and unload it. Both return 0 or a
 * negative errno. Loading waits for the GPUs that it binds: those whose
 * driver_override names it.
 */
int module_load(void);
int module_unload(void);

/*
 * Load another module from a file, without parameters, and unload one by name.
 */
int load_file(const char *path);
int unload(const char *name);

/*
 * For the module tests/lab/modules/failing. From the first call on, the functions
 * @names return @value, a number, to the driver; with hold_failing(), only once
 * that is over. failing_count() returns how often the driver has called them;
 * stop_failing() also ends it; end_failing() fails the test if it never has.
 */
void begin_failing(const char *value, const char *names);
void hold_failing(bool on);
int failing_count(void);
int stop_failing(void);
void end_failing(const char *names);

/*
 * Runs @fn(@arg), in any thread. Returns true if it raised SIGBUS, and the
 * address of the last one in sigbus_addr.
 */
bool raises_sigbus(void (*fn)(void *), void *arg);
extern void *volatile sigbus_addr;
extern volatile int sigbus_code;

/* Access one byte, for raises_sigbus(). */
void touch_read(void *addr);
void touch_write(void *addr);

/*
 * Read and write up to 1 KiB of GPU memory from outside of the virtual machine,
 * without any kernel mapping.
 */
void host_peek(uint64_t phys, void *buf, size_t count);
void host_poke(uint64_t phys, const void *buf, size_t count);

/*
 * Access the memory of an open device by another way than its mappings: from
 * outside of the virtual machine or, on hardware, by pread and pwrite.
 */
void other_peek(struct vfio *v, unsigned int index, uint64_t offset, void *buf,
		size_t count);
void other_poke(struct vfio *v, unsigned int index, uint64_t offset,
		const void *buf, size_t count);

/*
 * Calls a handler of the test runner, which must succeed. The answer goes to
 * @answer unless that is NULL.
 */
void host_ask(char *answer, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Calls a handler that may fail; returns whether it succeeded. */
bool host_try(char *answer, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* One of the model's counters; see tests/lab/model/gpu.py. */
uint64_t host_counter(const struct gpu *gpu, const char *name);

/* Waits until that counter is @at_least. Fails the test after ten minutes. */
void host_wait_counter(const struct gpu *gpu, const char *name,
		       uint64_t at_least);

#endif /* NVGRACE_TEST_LIB_H */
