/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Makes KCSAN watch more of a module's accesses. KCSAN counts down from
 * skip_watch with each plain access on a processor, and watches the one at the
 * end. The driver makes few of these accesses. In a file compiled with this
 * header, one access in KCSAN_EVERY ends the count.
 *
 * The compiler calls __tsan_read8() and others before each access. Here, these
 * names stand for the functions below. KCSAN_SKIP is the address of the
 * kernel's variable kcsan_skip, of which each processor has its own. kcsan.py
 * prints the compiler's flags.
 */
#ifndef KCSAN_DRAW_H
#define KCSAN_DRAW_H

/* Includes nothing: a source defines macros before its own headers. */
void __kcsan_check_access(const volatile void *ptr, __SIZE_TYPE__ size,
			  int type);

static unsigned int kcsan_draw_state;

/* Racy, and meant to be: any number will do. */
static __always_inline __no_kcsan void kcsan_draw(void)
{
	unsigned long offset;

	kcsan_draw_state = kcsan_draw_state * 1664525 + 1013904223;
	if ((kcsan_draw_state >> 8) % KCSAN_EVERY)
		return;
	/* this_cpu_write(kcsan_skip, 0) on arm64, at EL1. */
	asm volatile("mrs %0, tpidr_el1\n\tstr xzr, [%0, %1]"
		     : "=&r" (offset) : "r" (KCSAN_SKIP) : "memory");
}

/*
 * Jumps to KCSAN rather than calling it: KCSAN keeps its return address as the
 * place of the access. type: 1 for a write (KCSAN_ACCESS_WRITE).
 */
#define KCSAN_DRAW(name, size, type)					\
	asm("__tsan_" #name " = kcsan_draw_" #name);			\
	static __used noinline __no_kcsan				\
	__attribute__((optimize("optimize-sibling-calls")))		\
	void kcsan_draw_##name(void *ptr)				\
	{								\
		kcsan_draw();						\
		__kcsan_check_access(ptr, size, type);			\
	}

KCSAN_DRAW(read1, 1, 0)
KCSAN_DRAW(read2, 2, 0)
KCSAN_DRAW(read4, 4, 0)
KCSAN_DRAW(read8, 8, 0)
KCSAN_DRAW(read16, 16, 0)
KCSAN_DRAW(write1, 1, 1)
KCSAN_DRAW(write2, 2, 1)
KCSAN_DRAW(write4, 4, 1)
KCSAN_DRAW(write8, 8, 1)
KCSAN_DRAW(write16, 16, 1)

#endif
