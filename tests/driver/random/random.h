/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the program "random" share: numbers that depend on seed and
 * operation only, the trace, and the model of what a GPU must show.
 *
 * The model is made from the documentation (docs/safety.md), not from the
 * driver. It computes the parts from the firmware's numbers. It keeps the bytes
 * of some areas of both parts, the registers, and what makes the memory
 * inaccessible to the user.
 */
#ifndef NVGRACE_TEST_RANDOM_H
#define NVGRACE_TEST_RANDOM_H

#include "lib.h"

/* ---- engine.c ----------------------------------------------------------- */

/*
 * A number below @n that depends on the seed, the operation and its earlier
 * draws.
 */
uint64_t draw(uint64_t n);
bool chance(unsigned int percent);

/* Fills @buf with @count such bytes. */
void draw_bytes(void *buf, size_t count);

/* Adds to the operation's line in the trace. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The driver has not done what the model says: prints the trace and exits. */
void wrong(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));

/* Calls wrong() unless a result is as expected. */
void expect(const char *what, int64_t seen, int64_t expected);

/* The operation is impossible in this state. It still counts as done. */
void not_now(const char *why);

/* memcpy(). Returns 0 or the signal that it raised, SIGBUS or SIGSEGV. */
int try_copy(void *dst, const void *src, size_t count);

/* ---- operations --------------------------------------------------------- */

struct op {
	const char *name;
	unsigned int weight;
	void (*run)(void);
};

#define OP(n, w, fn)		{ .name = (n), .weight = (w), .run = (fn) }

/* One table for each file; its last entry has no name. */
extern const struct op memory_ops[], mapping_ops[], config_ops[], reset_ops[],
	life_ops[];

/* ---- model.c ------------------------------------------------------------ */

/* A range of a part whose bytes the model knows. */
struct area {
	uint64_t start;
	uint64_t length;
	uint8_t *bytes;
};

#define AREAS	8

struct part {
	const char *name;
	unsigned int index;	/* of vfio */
	unsigned int bar;	/* config offset of its register */
	uint64_t phys;
	uint64_t length;
	uint64_t bar_size;
	uint64_t written;	/* value of the register */
	struct area areas[AREAS];
	unsigned int area_count;
};

extern struct part parts[2];

enum readiness {
	UNKNOWN,
	READY,
	EITHER,			/* the documentation permits both */
};

enum low_power {
	AWAKE,
	ASLEEP,			/* until the user ends it */
	ASLEEP_UNTIL_ACCESS,
};

#define FDS		4
#define CONFIG_SIZE	4096

/* The GPU and its user. */
struct state {
	const struct gpu *gpu;
	bool bound;
	bool session;		/* group and container are open */
	bool open;		/* a file or a mapping keeps the device open */
	struct vfio v;
	int fds[FDS];
	unsigned int fd_count;
	bool decoding;
	bool hot;		/* D3hot */
	enum low_power low;
	enum readiness ready;
	uint8_t config[CONFIG_SIZE];	/* except the fake BARs */
	uint8_t bar0_mask[8];		/* writable bits of BAR0 */
	uint8_t bar0_flags[8];
	unsigned int pm_cap;
	unsigned int exp_cap;
};

extern struct state s;

void model_init(const struct gpu *gpu);

/* A mapping as in the kernel, with one protection. */
struct seg {
	char *addr;
	uint64_t length;
	struct part *part;
	uint64_t offset;	/* in the part */
	int prot;
};

#define SEGS	32

extern struct seg segs[SEGS];
extern unsigned int seg_count;

/* The part offset where mappings must end. */
uint64_t mappable(const struct part *p);

/*
 * The model's bytes of [@offset, @offset + @count); NULL if some are unknown.
 */
uint8_t *known(const struct part *p, uint64_t offset, uint64_t count);

/* A known range: a part, an offset, and a count up to @most. */
struct place {
	struct part *part;
	uint64_t offset;
	uint64_t count;
	uint8_t *bytes;
};

struct place draw_place(uint64_t most);

/* Draws a known range inside a mapping; false if the mapping has none. */
bool draw_place_in(const struct seg *seg, uint64_t most, struct place *place);

/* Mostly the width of a register or a few bytes, sometimes as many as @most. */
uint64_t draw_count(uint64_t most);

/* Whether reads and writes reach the memory, and whether faults do. */
bool in_reach(void);
bool faults_in_reach(void);

/* Notes that an access has reached the memory, or may have. */
void has_entered(void);
void may_have_entered(void);

/* Notes that an access has woken the device. */
void has_woken(void);

/*
 * Whether a range of config space overlaps the register by which the lab's
 * firmware cuts the model GPU's power. A real GPU has none, and without power,
 * what the kernel saves and later restores are ones.
 */
bool in_power_register(unsigned int at, unsigned int count);

/*
 * Notes that a range of config space may have been written. Whether a write of the
 * command register makes the driver check readiness again is unspecified, also if it
 * has changed nothing.
 */
void config_written(unsigned int at, unsigned int count);

/* The bytes of config space that a read must return. */
void config_expected(unsigned int at, uint8_t *buf, unsigned int count);

/* Model a reset, and the first open. */
void model_reset(void);
void model_opened(void);

/*
 * Models the end of the last use, if it has ended; to be called after each
 * operation.
 */
void settle(void);

/* Any of the files of the device, of which there must be one. */
int any_fd(void);

ssize_t dev_read(uint64_t pos, void *buf, size_t count);
ssize_t dev_write(uint64_t pos, const void *buf, size_t count);

/* A register of the model GPU, which must be in reach. */
uint32_t gpu_register(uint32_t reg);

/* ---- by topic ----------------------------------------------------------- */

/*
 * Reads and compares all known bytes. Afterwards the device is as after an
 * open.
 */
void compare_all(void);
void write_all_known(void);

void unmap_all(void);
void back_to_normal(void);
void open_session(void);
void close_session(void);

#endif /* NVGRACE_TEST_RANDOM_H */
