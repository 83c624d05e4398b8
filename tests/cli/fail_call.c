// SPDX-License-Identifier: GPL-2.0-only
/*
 * A library for LD_PRELOAD that makes one call of a program fail, or that call
 * and all later ones. test_faults.py uses it. It reads these variables:
 *
 *	FAIL_CALL	the number of the first failing call, from 1
 *	FAIL_LASTS	if set, all later calls fail too
 *	FAIL_FILE	a new file for the result: the name and the number of the
 *			first failing call, or "-" and the number of calls
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long count;
static long wanted;
static const char *file;
static bool lasts;

static void __attribute__((constructor)) begin(void)
{
	const char *number = getenv("FAIL_CALL");

	wanted = number ? atol(number) : 0;
	file = getenv("FAIL_FILE");
	lasts = getenv("FAIL_LASTS");
	/* Programs that this one starts have no failing call. */
	unsetenv("LD_PRELOAD");
}

/*
 * Calls only functions that do not count. A child that has not yet become another
 * program has the same failing call: the first to report it does.
 */
static void say(const char *name, long number)
{
	int fd = file ? openat(AT_FDCWD, file, O_WRONLY | O_CREAT | O_EXCL, 0666) : -1;

	if (fd >= 0) {
		dprintf(fd, "%s %ld\n", name, number);
		close(fd);
	}
}

static void __attribute__((destructor)) end(void)
{
	if (wanted && count < wanted)
		say("-", count);
}

static bool fails(const char *name, int error)
{
	long number;

	if (!wanted)
		return false;
	number = atomic_fetch_add(&count, 1) + 1;
	if (number < wanted || (number > wanted && !lasts))
		return false;
	if (number == wanted)
		say(name, wanted);
	errno = error;
	return true;
}

#define NEXT(name)	((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

/*
 * Defines the function @name, which returns @value with the errno @error if
 * this call must fail, and else calls that of the next library.
 */
#define FAILING(result, name, parameters, arguments, value, error)		\
	result name parameters							\
	{									\
		if (fails(#name, error))					\
			return (value);						\
		return NEXT(name) arguments; /* NOLINT: with parentheses */	\
	}

FAILING(ssize_t, read, (int fd, void *data, size_t len), (fd, data, len), -1, EIO)
FAILING(ssize_t, pread, (int fd, void *data, size_t len, off_t at), (fd, data, len, at), -1, EIO)
FAILING(ssize_t, write, (int fd, const void *data, size_t len), (fd, data, len), -1, ENOSPC)
FAILING(ssize_t, pwrite, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at), -1,
	EIO)
FAILING(int, fstat, (int fd, struct stat *st), (fd, st), -1, EIO)
FAILING(int, stat, (const char *path, struct stat *st), (path, st), -1, EACCES)
FAILING(ssize_t, readlink, (const char *path, char *data, size_t len), (path, data, len), -1, EIO)
FAILING(ssize_t, readlinkat, (int dir, const char *path, char *data, size_t len),
	(dir, path, data, len), -1, EIO)
FAILING(DIR *, fdopendir, (int fd), (fd), NULL, ENOMEM)
FAILING(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, ENOSPC)
FAILING(int, mkostemp, (char *path, int flags), (path, flags), -1, ENOSPC)
FAILING(int, rename, (const char *from, const char *to), (from, to), -1, EIO)
FAILING(int, unlink, (const char *path), (path), -1, EROFS)
FAILING(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EIO)
FAILING(int, fsync, (int fd), (fd), -1, EIO)
FAILING(int, pipe2, (int fds[2], int flags), (fds, flags), -1, EMFILE)
FAILING(pid_t, fork, (void), (), -1, EAGAIN)
FAILING(int, flock, (int fd, int operation), (fd, operation), -1, ENOLCK)
FAILING(off_t, lseek, (int fd, off_t at, int whence), (fd, at, whence), -1, ESPIPE)
FAILING(int, memfd_create, (const char *name, unsigned int flags), (name, flags), -1, ENOMEM)
FAILING(int, access, (const char *path, int mode), (path, mode), -1, EACCES)
FAILING(void *, mmap, (void *at, size_t len, int prot, int flags, int fd, off_t offset),
	(at, len, prot, flags, fd, offset), MAP_FAILED, ENOMEM)
FAILING(int, pthread_create,
	(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *data),
	(thread, attr, run, data), EAGAIN, EAGAIN)

int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = va_arg(args, mode_t);
	va_end(args);
	if (fails("open", EMFILE))
		return -1;
	return NEXT(open)(path, flags, mode);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *data;

	va_start(args, request);
	data = va_arg(args, void *);
	va_end(args);
	if (fails("ioctl", EIO))
		return -1;
	return ((int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl"))(fd, request, data);
}

/* Passes on as many arguments as openat2() has: there is no other call. */
long syscall(long number, ...)
{
	long a, b, c, d;
	va_list args;

	va_start(args, number);
	a = va_arg(args, long);
	b = va_arg(args, long);
	c = va_arg(args, long);
	d = va_arg(args, long);
	va_end(args);
	if (fails("syscall", EMFILE))
		return -1;
	return NEXT(syscall)(number, a, b, c, d);
}
