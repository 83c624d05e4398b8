/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the program "random" share: numbers that depend on seed and
 * operation alone, the trace, and the model of what a GPU must show.
 *
 * The model knows the documents (docs/safety.md), and nothing of the driver: it
 * computes the parts from the firmware's numbers, and keeps the bytes of some
 * areas of both parts, the registers, and what stands between user and memory.
 */
#ifndef NVGRACE_TEST_RANDOM_H
#define NVGRACE_TEST_RANDOM_H

#include "../lib.h"

#define RW		(PROT_READ | PROT_WRITE)

/* ---- engine.c ----------------------------------------------------------- */

/* A number below @n that depends on seed, operation and earlier draws of it. */
uint64_t draw(uint64_t n);
bool chance(unsigned int percent);

/* @count bytes that depend on the same. */
void draw_bytes(void *buf, size_t count);

/* Adds to the operation's line in the trace. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The driver has not done what the model says: prints the trace, and ends. */
void wrong(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));

/* wrong(), unless a result is what was expected. */
void expect(const char *what, int64_t seen, int64_t expected);

/* The operation needs what is not there; it counts as done. */
void not_now(const char *why);

/*
 * Runs @fn(@arg) in this thread: 0, or the signal that an access raised, SIGBUS
 * or SIGSEGV.
 */
int guarded(void (*fn)(void *), void *arg);

/* memcpy() by that. */
int try_copy(void *dst, const void *src, size_t count);

struct op {
	const char *name;
	unsigned int weight;
	void (*run)(void);
	bool (*possible)(void);	/* on this machine; NULL: on all */
};

#define OP(n, w, fn)		{ .name = (n), .weight = (w), .run = (fn) }
#define OP_IF(n, w, fn, can)	\
	{ .name = (n), .weight = (w), .run = (fn), .possible = (can) }

/* One table a file, of which the last entry has no name. */
extern const struct op memory_ops[], mapping_ops[], config_ops[], reset_ops[],
	life_ops[], thread_ops[], dma_ops[], error_ops[];

/* ---- model.c ------------------------------------------------------------ */

extern size_t page;
extern uint64_t table;		/* bytes that one table of pages maps */

/* Bytes of a part that the model knows. */
struct area {
	uint64_t start;
	uint64_t length;
	uint8_t *bytes;
};

#define AREAS	8

struct part {
	const char *name;
	unsigned int index;	/* vfio's region */
	unsigned int bar;	/* config offset of its register */
	uint64_t phys;
	uint64_t length;
	uint64_t bar_size;
	uint64_t written;	/* to the register */
	struct area areas[AREAS];
	unsigned int area_count;
};

extern struct part parts[2];

enum readiness {
	UNKNOWN,
	READY,
	EITHER,			/* the documents leave it open */
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
	uint8_t config[CONFIG_SIZE];	/* but for the registers of the parts */
	uint8_t bar0_mask[8];		/* bits of BAR0 that can be written */
	uint8_t bar0_flags[8];
	unsigned int pm_cap;
	unsigned int exp_cap;
};

extern struct state s;

void model_init(const struct gpu *gpu);

/* A mapping, as the kernel has it: with one protection. */
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

/* What part and page offset can't be mapped beyond. */
uint64_t mappable(const struct part *p);

/* The model's bytes of [@offset, @offset + @count); NULL: not all are known. */
uint8_t *known(const struct part *p, uint64_t offset, uint64_t count);

/* A known range: a part, an offset, and a count up to @most. */
struct place {
	struct part *part;
	uint64_t offset;
	uint64_t count;
	uint8_t *bytes;
};

struct place draw_place(uint64_t most);

/* A known range inside of a mapping; false if that has none. */
bool draw_place_in(const struct seg *seg, uint64_t most, struct place *place);

/* Mostly a register's width or some bytes, and at times as many as @most. */
uint64_t draw_count(uint64_t most);

/* Whether reads and writes find memory, and whether faults do. */
bool in_reach(void);
bool faults_in_reach(void);

/* An access has found memory, or may have. */
void has_entered(void);
void may_have_entered(void);

/* An access by way of the device has woken it. */
void has_woken(void);

/* The bytes of config space that a read shows. */
void config_expected(unsigned int at, uint8_t *buf, unsigned int count);

/* A reset; the end of the last use; the first one. */
void model_reset(void);
void model_opened(void);

/* Whether the last use of the device has ended; to be called after each. */
void settle(void);

/* Any of the files; the device is open and has some. */
int any_fd(void);

ssize_t dev_read(uint64_t pos, void *buf, size_t count);
ssize_t dev_write(uint64_t pos, const void *buf, size_t count);

/* A register of the model GPU, which is in reach. */
uint32_t gpu_register(uint32_t reg);

/* ---- by topic ----------------------------------------------------------- */

/* All known bytes, by reads, after which the device is as after an open. */
void compare_all(void);
void write_all_known(void);

void unmap_all(void);
void set_hot(bool hot);
void set_decoding(bool on);
void set_bus_master(void);
void dma_forget(void);
void back_to_normal(void);
void open_session(void);
void close_session(void);

/* The operation: mapping, aligned to what huge entries want plus @shift. */
char *map_part(struct part *p, uint64_t offset, uint64_t length, int prot,
	       uint64_t shift);

#endif /* NVGRACE_TEST_RANDOM_H */
