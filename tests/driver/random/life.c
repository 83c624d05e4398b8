// SPDX-License-Identifier: GPL-2.0-only
/*
 * Opens and closes, additional files, children that inherit or receive a file,
 * and the driver bound and unbound.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"

/* Adds a file of the device. */
static void add_fd(int fd)
{
	if (fd < 0)
		wrong("no file of the device: %d", -errno);
	s.fds[s.fd_count++] = fd;
	if (!s.open)
		model_opened();
}

void open_session(void)
{
	if (!s.session) {
		vfio_open(&s.v, s.gpu);
		s.session = true;
		add_fd(s.v.device);
	} else if (!s.fd_count) {
		add_fd(ioctl(s.v.group, VFIO_GROUP_GET_DEVICE_FD, s.gpu->addr));
	}
}

static void close_fd(unsigned int i)
{
	close(s.fds[i]);
	s.fds[i] = s.fds[--s.fd_count];
}

void close_session(void)
{
	unmap_all();
	while (s.fd_count)
		close_fd(0);
	if (s.session) {
		close(s.v.group);
		close(s.v.iommu);
	}
	s.session = false;
	dma_forget();
	settle();
}

static void open_op(void)
{
	if (s.open)
		return not_now("open");
	if (!s.bound) {
		expect("bind", gpu_bind(s.gpu), 0);
		s.bound = true;
	}
	open_session();
}

static void close_op(void)
{
	bool again = chance(80);

	say(again ? " and open again" : "");
	close_session();
	if (again && s.bound)
		open_session();
}

static void bind_op(void)
{
	say(s.bound ? " unbind" : " bind");
	close_session();
	if (s.bound) {
		expect("unbind", gpu_unbind_here(s.gpu), 0);
		s.bound = false;
		if (!chance(80))
			return;
		say(", bind");
	}
	expect("bind", gpu_bind(s.gpu), 0);
	s.bound = true;
	s.ready = EITHER;
	open_session();
}

static void file_op(void)
{
	unsigned int kind = draw(4);

	if (!s.session || s.low != AWAKE)
		return not_now("no group, or asleep");
	if (kind == 0 && s.fd_count < FDS) {
		say(" another");
		add_fd(ioctl(s.v.group, VFIO_GROUP_GET_DEVICE_FD, s.gpu->addr));
	} else if (kind == 1 && s.fd_count && s.fd_count < FDS) {
		say(" copy");
		add_fd(dup(any_fd()));
	} else if (kind == 2 && s.fd_count > 1) {
		say(" close one");
		close_fd(draw(s.fd_count));
	} else if (chance(20)) {
		/* Mappings keep the device open. */
		say(" close all, with %u mappings", seg_count);
		while (s.fd_count)
			close_fd(0);
		settle();
	} else if (!s.fd_count) {
		say(" another");
		add_fd(ioctl(s.v.group, VFIO_GROUP_GET_DEVICE_FD, s.gpu->addr));
	} else {
		not_now("nothing to close");
	}
}

/* ---- children ----------------------------------------------------------- */

/* Sends a file descriptor through a socket. */
static void give(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	expect("sendmsg", sendmsg(socket, &msg, 0), 1);
}

static int take(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd = -1;

	if (recvmsg(socket, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* What a child is to do, decided before the fork. */
struct errand {
	const struct seg *seg;
	struct place place;
	uint8_t data[256];
	bool write;
	bool file;		/* by a file that it gets, not by a mapping */
};

enum { DONE, DIFFERENT, OTHER_RESULT };

/* Uses @fd, or a file that it receives from @socket. */
static int run_errand(const struct errand *e, int fd, int socket)
{
	uint64_t count = e->place.count;
	uint8_t seen[256];
	char *at;
	int sig;

	if (e->file) {
		uint64_t pos = REGION(e->place.part->index) + e->place.offset;
		ssize_t ret;

		if (socket >= 0)
			fd = take(socket);
		ret = e->write ? pwrite(fd, e->data, count, pos) :
				 pread(fd, seen, count, pos);
		if (ret != (ssize_t)count)
			return OTHER_RESULT;
	} else {
		at = e->seg->addr + (e->place.offset - e->seg->offset);
		sig = e->write ? try_copy(at, e->data, count) :
		      try_copy(seen, at, count);
		if (sig)
			return OTHER_RESULT;
	}
	return !e->write && memcmp(seen, e->place.bytes, count) ? DIFFERENT : DONE;
}

static void fork_op(void)
{
	struct errand e = { .write = chance(50), .file = chance(50) };
	int sockets[2] = { -1, -1 }, fd = -1, status;
	pid_t pid;

	if (!faults_in_reach() || (e.file ? !s.fd_count : !seg_count))
		return not_now("out of reach");
	if (e.file) {
		e.place = draw_place(sizeof(e.data));
	} else {
		e.seg = &segs[draw(seg_count)];
		if (e.seg->prot != RW ||
		    !draw_place_in(e.seg, sizeof(e.data), &e.place))
			return not_now("nothing known in it");
	}
	draw_bytes(e.data, e.place.count);
	say(" %s %s %s+%#llx count %llu", e.write ? "writes" : "reads",
	    e.file ? "by a file" : "by a mapping", e.place.part->name,
	    (unsigned long long)e.place.offset,
	    (unsigned long long)e.place.count);

	if (e.file)
		fd = any_fd();
	/*
	 * A kernel without such sockets can't pass files. Children inherit
	 * them.
	 */
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) && errno != ENOSYS)
		wrong("socketpair: %d", -errno);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(run_errand(&e, fd, sockets[1]));
	if (pid < 0)
		wrong("fork: %d", -errno);
	if (e.file && sockets[0] >= 0)
		give(sockets[0], fd);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		wrong("the child ended with %#x", status);
	if (sockets[0] >= 0) {
		close(sockets[0]);
		close(sockets[1]);
	}
	expect("the child's result", WEXITSTATUS(status), DONE);
	has_entered();
	if (e.write)
		memcpy(e.place.bytes, e.data, e.place.count);
}

const struct op life_ops[] = {
	OP("open", 1500, open_op),
	OP("close", 15, close_op),
	OP("bind", 3, bind_op),
	OP("file", 300, file_op),
	OP("fork", 60, fork_op),
	{ }
};
