/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the test programs in the virtual machine share: finding, binding and
 * opening GPUs, the kernel log, and catching SIGBUS.  Functions that can't go
 * on fail the running cmocka test; those that return an int return 0 or a
 * negative errno, for a test to judge.
 */
#ifndef NVGRACE_TEST_LIB_H
#define NVGRACE_TEST_LIB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <linux/vfio.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define KiB		1024ULL
#define MiB		(1024 * KiB)
#define GiB		(1024 * MiB)

#define DRIVER		"nvgrace_gpu_vfio_pci"

/* Where vfio-pci puts a region in the device's file. */
#define REGION(index)	((uint64_t)(index) << 40)
#define CONFIG		REGION(VFIO_PCI_CONFIG_REGION_INDEX)
#define USEMEM		VFIO_PCI_BAR4_REGION_INDEX
#define RESMEM		VFIO_PCI_BAR2_REGION_INDEX

/* A GPU of this machine, as /vm/gpus.conf tells; see tests/vm/README.md. */
struct gpu {
	char name[32];
	char addr[16];		/* PCI address */
	uint64_t base;		/* physical address of its memory, 0 if none */
	uint64_t size;		/* bytes of it */
	bool is_model;		/* the model GPU, or RAM that stands in for it */
	char port[16];		/* PCI address of the root port above it */
};

/*
 * The GPU called @name.  Its absence is an error of the machine's making,
 * unless gpu_exists() was asked first: not every machine has room for each.
 */
const struct gpu *gpu_find(const char *name);
bool gpu_exists(const char *name);

/*
 * Binds as an administrator would: driver_override, then the driver's bind
 * file, whose error is probe's.  Unbind undoes both; it may block.  Where this
 * process has the GPU open itself, as after a failed test, it lets go of all
 * GPUs in the end and returns -EBUSY.
 */
int gpu_bind(const struct gpu *gpu);
int gpu_unbind(const struct gpu *gpu);

/* As gpu_unbind(), but by this task alone, however long it takes. */
int gpu_unbind_here(const struct gpu *gpu);

bool gpu_bound(const struct gpu *gpu);

/*
 * The number of its IOMMU group, or a negative errno.  Before Linux 7.2 it has one
 * only while a driver is bound to it.
 */
int gpu_group(const struct gpu *gpu);

/* Unbinds what a failed test has left bound; nothing may have it open. */
void gpu_unbind_all(void);

/*
 * Writes to a file that is there.  0 or a negative errno; the second fails the
 * test.
 */
int write_file(const char *path, const char *text);
void must_write_file(const char *path, const char *text);

/* Writes to a file below the device's sysfs folder. */
int gpu_sysfs_write(const struct gpu *gpu, const char *file, const char *text);

/* Reads one, without its last line end.  It must be there. */
void gpu_sysfs_read(const struct gpu *gpu, const char *file, char *text,
		    size_t size);

/* Maps the registers of an unbound GPU through sysfs. */
volatile uint32_t *gpu_map_bar0(const struct gpu *gpu);
void gpu_unmap_bar0(volatile uint32_t *bar0);

/* One register of an unbound GPU. */
uint32_t gpu_bar0_read(const struct gpu *gpu, uint32_t reg);
void gpu_bar0_write(const struct gpu *gpu, uint32_t reg, uint32_t val);

/* Makes a GPU unready from now on for @ms milliseconds; UINT32_MAX: for ever. */
void gpu_unready(const struct gpu *gpu, uint32_t ms);

/*
 * Unready from the first call on until the second one, also while it is being
 * bound: its registers stay mapped in between.
 */
volatile uint32_t *gpu_hold(const struct gpu *gpu);
void gpu_release(const struct gpu *gpu, volatile uint32_t *bar0);

/* The model's control block: see tests/model/README.md. */
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
#define MODEL_SCRATCH		(MODEL_CTL + 0x24)

/* An open vfio device with its group and container. */
struct vfio {
	const struct gpu *gpu;
	int container;
	int group;
	int device;
};

/*
 * Opens a bound GPU through a type1 container.  Closing undoes all of it.  The
 * second returns a negative errno, with nothing left open, if the driver refuses.
 */
void vfio_open(struct vfio *v, const struct gpu *gpu);
int vfio_try_open(struct vfio *v, const struct gpu *gpu);
void vfio_close(struct vfio *v);

/* Binds and opens; closes and unbinds. */
void vfio_start(struct vfio *v, const char *name);
void vfio_stop(struct vfio *v);

struct region {
	uint64_t size;
	uint64_t offset;
	uint32_t flags;
	uint32_t areas;		/* of the sparse mmap capability; 0 if none */
	uint64_t area_offset;
	uint64_t area_size;
};

void vfio_region(struct vfio *v, unsigned int index, struct region *r);

/* VFIO_DEVICE_RESET, and VFIO_DEVICE_PCI_HOT_RESET of its group; 0 or a negative errno. */
int vfio_reset(struct vfio *v);
int vfio_hot_reset(struct vfio *v);

/* VFIO_DEVICE_FEATURE, to set @feature with the @size bytes of @data. */
int vfio_set_feature(struct vfio *v, uint32_t feature, const void *data,
		     size_t size);

/* Bytes of a region, for the function below. */
struct dma_range {
	uint64_t offset;
	uint64_t length;
};

#define DMA_RANGES	8

/*
 * VFIO_DEVICE_FEATURE_DMA_BUF, which the headers here don't have yet: exports up
 * to DMA_RANGES ranges of a region as one dma-buf.  Its file descriptor, or a
 * negative errno.
 */
int vfio_dma_buf(struct vfio *v, uint32_t region, uint32_t flags,
		 uint32_t count, const struct dma_range *ranges);

/* A register of BAR0 of an open device. */
uint32_t vfio_bar0_read(struct vfio *v, uint32_t reg);
void vfio_bar0_write(struct vfio *v, uint32_t reg, uint32_t val);

/*
 * Unready after each reset from now on, until the second of these makes it
 * ready, now and after later resets.
 */
void vfio_unready_after_resets(struct vfio *v);
void vfio_make_ready(struct vfio *v);

/* mmap of [offset, offset + length) of a region; negative errno in *@err. */
void *vfio_map(struct vfio *v, unsigned int index, uint64_t offset,
	       uint64_t length, int prot, int flags, int *err);

/* pread and pwrite that return a negative errno. */
ssize_t vfio_read(struct vfio *v, uint64_t pos, void *buf, size_t count);
ssize_t vfio_write(struct vfio *v, uint64_t pos, const void *buf, size_t count);

/* Fills @buf with a pattern that depends on @seed and on the position. */
void fill(void *buf, size_t count, uint64_t seed);

/* Two adjacent pages at least, of which the second has no memory. */
char *page_before_hole(void);

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t now_ms(void);

/*
 * The module's parameter scrub; and the end of a scrub: sleeps until scrub_state
 * is another one than "scrubbing", and returns that.
 */
void scrub_set_parameter(bool on);
const char *scrub_end(const struct gpu *gpu);

/* Bytes that the scrub that runs, or the last one, has overwritten. */
uint64_t scrub_progress(const struct gpu *gpu);

/*
 * By tests/vm/content.py, from outside of the machine: puts bytes that are not zero
 * into a GPU's memory, and fails the test unless it is zero.  Into a page each MiB;
 * the other two, everywhere.
 */
void soil(const struct gpu *gpu);
void assert_clean(const struct gpu *gpu);
void soil_all(const struct gpu *gpu);
void assert_all_clean(const struct gpu *gpu);

/*
 * The kernel's test mode of suspend: all of it, but for switching devices off.
 * The second fails the test if the kernel can't.
 */
bool host_can_suspend(void);
void suspend_host(void);

/* Counts lines of the kernel log since the last klog_mark() that hold @text. */
void klog_mark(void);
int klog_count(const char *text);

/*
 * Waits until a line holds @text, for @ms milliseconds at the most; false if
 * none came.  Lines up to that one count as seen.
 */
bool klog_wait(const char *text, int ms);

/*
 * The next line of the kernel log since klog_mark() that neither this nor
 * klog_count() has seen, and its level (3: error, 4: warning, 6: info); false
 * if there is none.
 */
bool klog_next(int *level, char *line, size_t size);

/* Goes back to the oldest line that the kernel has. */
void klog_rewind(void);

/*
 * Loads the module under test as init did, and unloads it; 0 or a negative
 * errno.  Loading waits for the GPUs that it binds, which are those whose
 * driver_override asks for it.
 */
int module_load(void);
int module_unload(void);

/* Another module, from a file, and without parameters; and by its name. */
int load_file(const char *path);
int unload(const char *name);

/*
 * Runs @fn(@arg); true if it raised SIGBUS, whose address is then in
 * sigbus_addr.
 */
bool raises_sigbus(void (*fn)(void *), void *arg);
extern void *volatile sigbus_addr;
extern volatile int sigbus_code;

/* Touches of single bytes, for the function above. */
void touch_read(void *addr);
void touch_write(void *addr);

/*
 * Looks at, or changes, up to 1 KiB of GPU memory from outside of the virtual
 * machine, without any mapping of the kernel's.
 */
void host_peek(uint64_t phys, void *buf, size_t count);
void host_poke(uint64_t phys, const void *buf, size_t count);

/*
 * Asks a handler of the test runner, which must not fail.  The answer goes to
 * @answer, or nowhere if that is NULL.
 */
void host_ask(char *answer, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same for a handler that may fail: whether it did not. */
bool host_try(char *answer, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* One of the model's counters: see tests/model/gpu.py. */
uint64_t host_counter(const struct gpu *gpu, const char *name);

/* Waits until one of them is @at_least; fails the test after ten minutes. */
void host_wait_counter(const struct gpu *gpu, const char *name,
		       uint64_t at_least);

#endif /* NVGRACE_TEST_LIB_H */
