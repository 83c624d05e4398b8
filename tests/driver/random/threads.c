// SPDX-License-Identifier: GPL-2.0-only
/*
 * Accesses from several threads, concurrently with what makes the memory
 * inaccessible. Each thread has its own bytes, so it knows what they must be. A
 * reset makes it wait. Only what the documentation permits may fail.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "random.h"

#define THREADS		3
#define ROUNDS		40

/* A thread's bytes. One operation copies one half to the other. */
#define SLOT		512
#define HALF		(SLOT / 2)

struct worker {
	struct beside *beside;
	int fd;
	struct part *part;
	uint64_t offset;	/* of its slot */
	char *map;		/* where it is mapped */
	uint64_t words[HALF / 8];
	bool copied;		/* both halves are the same */
	uint64_t numbers;
	bool may_fail;
	unsigned int rounds;
	unsigned int failed;
	char complaint[160];
};

static uint64_t next(struct worker *w, uint64_t n)
{
	w->numbers ^= w->numbers << 13;
	w->numbers ^= w->numbers >> 7;
	w->numbers ^= w->numbers << 17;
	return (w->numbers >> 16) % n;
}

static void complain(struct worker *w, const char *what, int64_t seen,
		     int64_t right)
{
	if (!w->complaint[0])
		snprintf(w->complaint, sizeof(w->complaint),
			 "%s at %s+%#llx: %#llx, expected %#llx", what,
			 w->part->name, (unsigned long long)w->offset,
			 (unsigned long long)seen, (unsigned long long)right);
}

struct word {
	volatile uint64_t *at;
	uint64_t val;
};

static void load(void *arg)
{
	struct word *w = arg;

	w->val = *w->at;
}

static void store(void *arg)
{
	struct word *w = arg;

	*w->at = w->val;
}

/* Returns whether an access succeeded; complains if it had to. */
static bool judge(struct worker *w, const char *what, int64_t ret,
		  int64_t right, int64_t failure)
{
	if (ret == right)
		return true;
	w->failed++;
	if (!w->may_fail || ret != failure)
		complain(w, what, ret, right);
	return false;
}

static void work(struct worker *w)
{
	unsigned int i = next(w, HALF / 8);
	struct word word = { .at = (uint64_t *)w->map + i };
	uint64_t pos = REGION(w->part->index) + w->offset;
	uint64_t val = w->numbers;
	ssize_t ret;

	switch (next(w, w->may_fail ? 4 : 6)) {
	case 0:
		if (judge(w, "load", guarded(load, &word), 0, SIGBUS) &&
		    word.val != w->words[i])
			complain(w, "load", word.val, w->words[i]);
		break;
	case 1:
		word.val = val;
		if (judge(w, "store", guarded(store, &word), 0, SIGBUS))
			w->words[i] = val;
		w->copied = false;
		break;
	case 2:
		ret = pread(w->fd, &val, 8, pos + 8 * i);
		if (judge(w, "pread", ret < 0 ? -errno : ret, 8, -EIO) &&
		    val != w->words[i])
			complain(w, "pread", val, w->words[i]);
		break;
	case 3:
		ret = pwrite(w->fd, &val, 8, pos + 8 * i);
		if (judge(w, "pwrite", ret < 0 ? -errno : ret, 8, -EIO))
			w->words[i] = val;
		w->copied = false;
		break;
	case 4:
		/* The buffer goes out of reach with the memory. */
		ret = pread(w->fd, w->map + HALF, HALF, pos);
		judge(w, "pread to own mapping", ret < 0 ? -errno : ret, HALF, 0);
		w->copied = true;
		break;
	default:
		ret = pwrite(w->fd, w->map, HALF, pos + HALF);
		judge(w, "pwrite from own mapping", ret < 0 ? -errno : ret, HALF,
		      0);
		w->copied = true;
		break;
	}
	w->rounds++;
}

static long run(void *arg)
{
	struct worker *w = arg;
	unsigned int i;

	for (i = 0; i < ROUNDS || still_wanted(); i++)
		work(w);
	return 0;
}

/* What happens concurrently. */
enum disturbance { NOTHING, RESET, SYSFS, BARS, THP, MAPPINGS, POWER, DECODING, KINDS };

static const char *const names[KINDS] = {
	"nothing", "resets", "resets by sysfs", "writes to the BARs",
	"huge pages on and off", "other mappings", "power states", "decoding",
};

/* -EAGAIN: another thread holds the device's lock. */
static void reset(void)
{
	int ret;

	do {
		ret = ioctl(any_fd(), VFIO_DEVICE_RESET) ? -errno : 0;
	} while (ret == -EAGAIN);
	expect("VFIO_DEVICE_RESET", ret, 0);
}

static void disturb(enum disturbance kind)
{
	struct part *p = &parts[draw(2)];
	uint64_t bar = draw(UINT64_MAX), length;
	char *map;

	switch (kind) {
	case RESET:
		reset();
		model_reset();
		break;
	case SYSFS:
		expect("reset", gpu_sysfs_write(s.gpu, "reset", "1"), 0);
		model_reset();
		break;
	case BARS:
		expect("config write", dev_write(CONFIG + p->bar, &bar, 8), 8);
		p->written = bar;
		break;
	case THP:
		prctl(PR_SET_THP_DISABLE, draw(2), 0, 0, 0);
		break;
	case MAPPINGS:
		length = (1 + draw(3)) * table;
		if (length > mappable(p))
			length = mappable(p);
		map = map_part(p, 0, length, RW, draw(2) * page);
		expect("touch", try_copy(&bar, map + draw(length / 8) * 8, 8), 0);
		munmap(map, length);
		break;
	case POWER:
		set_hot(true);
		set_hot(false);
		break;
	case DECODING:
		set_decoding(false);
		set_decoding(true);
		break;
	default:
		usleep(1000);
		break;
	}
}

/* Each worker gets a slot of its own. */
static void prepare(struct worker *w, unsigned int number, char *maps[2])
{
	struct place place;
	uint64_t first;

	do {
		place = draw_place(1);
		first = place.offset / (THREADS * SLOT) * (THREADS * SLOT) +
			number * SLOT;
	} while (!known(place.part, first, SLOT) ||
		 first + SLOT > mappable(place.part));
	w->fd = any_fd();
	w->part = place.part;
	w->offset = first;
	w->map = maps[w->part - parts] + first;
	w->numbers = draw(UINT64_MAX) | 1;
	memcpy(w->words, known(w->part, first, HALF), HALF);
}

static void finish(struct worker *w)
{
	uint8_t *bytes = known(w->part, w->offset, SLOT), seen[SLOT];

	say(" %u/%u", w->failed, w->rounds);
	if (w->complaint[0])
		wrong("%s", w->complaint);
	memcpy(bytes, w->words, HALF);
	expect("pread", dev_read(REGION(w->part->index) + w->offset, seen, SLOT),
	       SLOT);
	if (memcmp(seen, bytes, HALF))
		wrong("a thread's bytes at %s+%#llx are not what it wrote",
		      w->part->name, (unsigned long long)w->offset);
	if (w->copied && memcmp(seen + HALF, bytes, HALF))
		wrong("a thread's bytes at %s+%#llx are not what it copied",
		      w->part->name, (unsigned long long)(w->offset + HALF));
	memcpy(bytes + HALF, seen + HALF, HALF);
}

static void threads_op(void)
{
	static struct worker workers[THREADS];
	enum disturbance kind = draw(KINDS);
	unsigned int i, times = kind <= SYSFS ? 1 + draw(2) : 8 + draw(16);
	char *maps[2];

	say(" beside %s, %u times", names[kind], times);
	if (!s.fd_count || !faults_in_reach())
		return not_now("out of reach");
	for (i = 0; i < 2; i++)
		maps[i] = map_part(&parts[i], 0, mappable(&parts[i]), RW,
				   chance(50) ? 0 : page);
	for (i = 0; i < THREADS; i++) {
		memset(&workers[i], 0, sizeof(workers[i]));
		prepare(&workers[i], i, maps);
		workers[i].may_fail = kind == POWER || kind == DECODING;
		workers[i].beside = beside(run, &workers[i]);
	}
	for (i = 0; i < times; i++)
		disturb(kind);
	for (i = 0; i < THREADS; i++)
		ended(workers[i].beside);
	for (i = 0; i < THREADS; i++)
		finish(&workers[i]);
	for (i = 0; i < 2; i++)
		munmap(maps[i], mappable(&parts[i]));
	s.ready = EITHER;
}

const struct op thread_ops[] = {
	OP("threads", 60, threads_op),
	{ }
};
