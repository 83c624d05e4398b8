// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps of "nvgrace-gpu test" that reset the GPU, by each method that the
 * kernel has for it, and that put it into D3hot and back. See test.h.
 *
 * The kernel has a list of methods in reset_method and tries them in that order.
 * So the list is set to one method at a time. The old list is restored when the
 * step ends or a signal arrives.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "open_gpu/progress.h"
#include "test/test.h"

/* ---- the list of methods ------------------------------------------------ */

/*
 * A signal restores the list in another thread. It keeps the lock, so that this
 * one can't write any more.
 */
static struct {
	pthread_mutex_t lock;
	char *path, *original;
	bool changed;
} list = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* 0 or an errno. */
static int write_list(const char *text)
{
	int fd = open(list.path, O_WRONLY | O_TRUNC | O_CLOEXEC), error = 0;

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		error = errno;
	if (fd >= 0)
		close(fd);
	return error;
}

static int choose_method(const char *method)
{
	int error;

	pthread_mutex_lock(&list.lock);
	list.changed = true;
	error = write_list(method);
	pthread_mutex_unlock(&list.lock);
	return error;
}

static int restore_list(void)
{
	int error = 0;

	pthread_mutex_lock(&list.lock);
	if (list.changed)
		error = write_list(list.original);
	list.changed = error;
	pthread_mutex_unlock(&list.lock);
	return error;
}

void reset_methods_undo(void)
{
	pthread_mutex_lock(&list.lock);
	if (list.changed)
		write_list(list.original);
}

/* ---- after a reset ------------------------------------------------------ */

/* The driver makes the first access wait for the memory. */
static void check_access(struct test *t)
{
	(void)*(volatile uint64_t *)t->pattern.maps[0];
}

static const char *doing_text(const char *after)
{
	return !strcmp(after, "the reset") ? "reading the content after the reset"
					   : "reading the content after D3hot";
}

/* What is left of the pattern: 1, 0; -1: not known. After a change, it is new. */
static int check_survival(struct test *t, const char *id, const char *after)
{
	struct pattern *p = &t->pattern;
	uint64_t sampled, changed;
	char *place = NULL;
	enum sweep rc;

	p->doing = doing_text(after);
	rc = pattern_sample(p, &sampled, &changed, &place);
	if (!result_swept(t, id, rc, place))
		return -1;
	if (!changed) {
		result(t, id, NOTED, "the content survived %s (%llu words of 8 bytes, one in each "
		       "4 KiB)", after, (unsigned long long)sampled);
		return 1;
	}
	result(t, id, NOTED, "the content did not survive %s: %llu of %llu words of 8 bytes, one in "
	       "each 4 KiB, differ", after, (unsigned long long)changed,
	       (unsigned long long)sampled);
	p->doing = "writing";
	rc = pattern_write(p, &place);
	return result_swept(t, id, rc, place) ? 0 : -1;
}

/* ---- resets ------------------------------------------------------------- */

static struct reset *add_reset(struct test *t, const char *method)
{
	t->resets = g_renew(struct reset, t->resets, t->reset_count + 1);
	t->resets[t->reset_count] = (struct reset){
		.method = g_strdup(method), .ready = -1, .survived = -1,
	};
	return &t->resets[t->reset_count++];
}

/* method: for people. */
static void reset_once(struct test *t, struct reset *reset, const char *method)
{
	double begin = now();
	int error;

	progress_step(1, -1, "reset by %s", method);
	error = vfio_reset(&t->e.vfio);
	if (error) {
		result_error(t, "reset", "VFIO_DEVICE_RESET", -error);
		return;
	}
	result_guarded(t, "reset", check_access);
	if (t->failed) {
		result(t, "reset", FAILED, "the memory can't be accessed %.1f s after a reset by %s; "
		       "if that persists, power-cycle the host", now() - begin, method);
		return;
	}
	reset->ready = now() - begin;
	if (reset->ready > t->ready_limit)
		result(t, "reset", FAILED, "the memory is ready %.1f s after a reset by %s; the limit "
		       "is %.0f s", reset->ready, method, t->ready_limit);
	else
		result(t, "reset", PASSED, "the memory is ready %.3f s after a reset by %s; the limit "
		       "is %.0f s", reset->ready, method, t->ready_limit);
	reset->survived = check_survival(t, "content-after-reset", "the reset");
	complaints_read(t);
}

/* The list can't be changed, or there is none. */
static void reset_by_default(struct test *t, const char *why)
{
	result(t, "reset-methods", NOTED, "only the kernel's own choice is tried: %s", why);
	log_line(t, "resets the GPU by the kernel's choice");
	if (!t->failed)
		reset_once(t, add_reset(t, NULL), "the kernel's choice");
}

static void reset_by_each(struct test *t)
{
	g_autofree char *methods = g_strdup(list.original);
	char *method, *save;
	int error;

	method = strtok_r(methods, " ", &save);
	for (; method && !t->failed; method = strtok_r(NULL, " ", &save)) {
		/* After a kill, an administrator can restore it. */
		log_line(t, "resets the GPU by %s; until then, reset_method has \"%s\"", method,
			 list.original);
		if (t->failed)
			break;
		error = choose_method(method);
		if (error)
			result_error(t, "reset", "choosing a method in reset_method", error);
		else
			reset_once(t, add_reset(t, method), method);
	}
	error = restore_list();
	if (error)
		result(t, "reset-methods", FAILED, "can't restore reset_method: %s; run \"echo %s > %s\"",
		       strerror(error), list.original, list.path);
	else
		log_line(t, "reset_method has \"%s\" again", list.original);
}

void step_reset(struct test *t)
{
	if (!t->e.vfio.can_reset) {
		result(t, "reset", SKIPPED, "vfio can't reset this GPU alone");
		return;
	}
	list.path = g_strdup_printf(DEVICES "/%s/reset_method", t->e.gpu.address);
	list.original = host_line(t->e.host, "%s", list.path);
	if (!list.original || !*list.original)
		reset_by_default(t, "this kernel does not report the methods");
	else if (access(list.path, W_OK))
		reset_by_default(t, "only root can choose a method");
	else
		reset_by_each(t);
	/* A signal that comes later has nothing to restore. */
	pthread_mutex_lock(&list.lock);
	list.changed = false;
	g_free(list.original);
	g_free(list.path);
	pthread_mutex_unlock(&list.lock);
}

/* ---- D3hot -------------------------------------------------------------- */

/* Of config space. Its registers are read as the 32 bits that they are. */
enum { CAPABILITIES = 0x34, FIRST_CAPABILITY = 0x40, PM = 1, PM_CONTROL = 4, STATE = 3 };

/*
 * The offset of the power management capability in the file, in *pm; 0: none.
 * Returns 0 or a negative errno.
 */
static int find_pm(struct test *t, uint64_t *pm)
{
	uint64_t config, length;
	unsigned int at, left;
	uint32_t word;
	int error;

	*pm = 0;
	error = vfio_config(&t->e.vfio, &config, &length);
	if (!error)
		error = vfio_read_all(&t->e.vfio, config + CAPABILITIES, &word, 4);
	at = error ? 0 : word & 0xfc;
	/* A broken list may have no end. */
	for (left = 48; at >= FIRST_CAPABILITY && left && !error && !*pm; left--) {
		error = vfio_read_all(&t->e.vfio, config + at, &word, 4);
		if (!error && (word & 0xff) == PM)
			*pm = config + at;
		at = word >> 8 & 0xfc;
	}
	return error;
}

/* Sets the power state, and reads it. 0 or a negative errno. */
static int turn(struct test *t, uint64_t pm, uint32_t *state)
{
	uint32_t word;
	int error = vfio_read_all(&t->e.vfio, pm + PM_CONTROL, &word, 4);

	word = (word & ~(uint32_t)STATE) | *state;
	if (!error)
		error = vfio_write_all(&t->e.vfio, pm + PM_CONTROL, &word, 2);
	if (!error)
		error = vfio_read_all(&t->e.vfio, pm + PM_CONTROL, &word, 4);
	*state = word & STATE;
	return error;
}

void step_d3hot(struct test *t)
{
	uint32_t low = STATE, full = 0;
	uint64_t pm;
	int error = find_pm(t, &pm);

	if (error) {
		result_error(t, "d3hot", "config space", -error);
		return;
	}
	if (!pm) {
		result(t, "d3hot", SKIPPED, "vfio shows no power management of this GPU");
		return;
	}
	progress_step(1, -1, "D3hot");
	error = turn(t, pm, &low);
	/* Back in any case. */
	error = turn(t, pm, &full) ?: error;
	if (error) {
		result_error(t, "d3hot", "the power state in config space", -error);
		return;
	}
	if (low != STATE || full) {
		result(t, "d3hot", FAILED, "the power state reads as D%u where D3hot was set, and as "
		       "D%u where D0 was set", low, full);
		return;
	}
	result_guarded(t, "d3hot", check_access);
	if (t->failed)
		return;
	result(t, "d3hot", PASSED, "the memory is ready after D3hot");
	check_survival(t, "content-after-d3hot", "D3hot");
}
