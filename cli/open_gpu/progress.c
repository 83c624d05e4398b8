// SPDX-License-Identifier: GPL-2.0-only
/*
 * The line, and the thread that draws it and waits for signals: see progress.h.
 *
 * A thread waits for signals, because other threads may wait in the kernel for a
 * reset or for memory that isn't ready. The end of the process ends such a wait,
 * but a signal handler would not.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "open_gpu/progress.h"
#include "system/output.h"
#include "system/program.h"
#include "system/signals.h"

enum { DRAW_MS = 250, WIDTH_MIN = 20, WIDTH_MAX = 120, TEXT_MAX = 80 };

/*
 * Protects everything below except "watching", which only progress_begin()
 * uses.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool shown, drawn, watching;
static double done_part, left_seconds, step_at;
static char step_text[TEXT_MAX];

static const char *interrupted_address, *interrupted_text;
static void (*undo)(void *data);
static void *undo_data;
static sigset_t signals;

static int width(void)
{
	struct winsize size;
	int columns = 80;

	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		columns = size.ws_col;
	/* The last column stays free: some terminals wrap there. */
	columns--;
	return columns < WIDTH_MIN ? WIDTH_MIN : columns > WIDTH_MAX ? WIDTH_MAX : columns;
}

static void clear(void)
{
	if (drawn)
		fputs("\r\033[K", stderr);
	drawn = false;
}

static void draw(void)
{
	int columns = width(), left;
	char text[TEXT_MAX + 40], time[24] = "";

	if (!shown || !*step_text)
		return;
	left = left_seconds - (now() - step_at) + 0.999;
	if (left_seconds >= 0)
		snprintf(time, sizeof(time), " %d:%02d left,", left < 0 ? 0 : left / 60, left < 0 ? 0 : left % 60);
	snprintf(text, sizeof(text), "%3d %%%s %s", (int)(done_part * 100), time, step_text);
	fprintf(stderr, "\r%.*s\033[K", columns, text);
	drawn = true;
}

static void *watch(void *unused)
{
	const struct timespec pause = { .tv_nsec = DRAW_MS * 1000000L };

	for (;;) {
		int signal = sigtimedwait(&signals, NULL, &pause);

		pthread_mutex_lock(&lock);
		if (signal > 0) {
			clear();
			if (undo)
				undo(undo_data);
			complain(interrupted_address, "interrupted; %s", interrupted_text);
			/*
			 * Not exit(): other threads run, and it would print a
			 * part of the output.
			 */
			_exit(EXIT_INTERRUPTED);
		}
		draw();
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

void progress_begin(const char *address, const char *text)
{
	const char *term = getenv("TERM");
	pthread_t thread;

	pthread_mutex_lock(&lock);
	interrupted_address = address;
	interrupted_text = text;
	shown = isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
	*step_text = 0;
	pthread_mutex_unlock(&lock);
	if (watching)
		return;
	watching = true;
	interrupting_signals(&signals);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	if (pthread_create(&thread, NULL, watch, NULL)) {
		/* Without the thread, signals end the process by default. */
		pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
		shown = false;
		return;
	}
	pthread_detach(thread);
}

void progress_interrupted(const char *text)
{
	pthread_mutex_lock(&lock);
	interrupted_text = text;
	pthread_mutex_unlock(&lock);
}

void progress_undo(void (*fn)(void *data), void *data)
{
	pthread_mutex_lock(&lock);
	undo = fn;
	undo_data = data;
	pthread_mutex_unlock(&lock);
}

void progress_say(const char *address, const char *text)
{
	pthread_mutex_lock(&lock);
	clear();
	complain(address, "%s", text);
	pthread_mutex_unlock(&lock);
}

void progress_step(double done, double left, const char *fmt, ...)
{
	char text[TEXT_MAX];
	va_list args;
	bool other;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	pthread_mutex_lock(&lock);
	other = strcmp(text, step_text);
	strcpy(step_text, text);
	done_part = done < 0 ? 0 : done > 1 ? 1 : done;
	left_seconds = left;
	step_at = now();
	if (other)
		draw();
	pthread_mutex_unlock(&lock);
}

void progress_end(void)
{
	pthread_mutex_lock(&lock);
	clear();
	shown = false;
	/* The caller may free it now. */
	interrupted_address = NULL;
	pthread_mutex_unlock(&lock);
}
