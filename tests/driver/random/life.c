// SPDX-License-Identifier: GPL-2.0-only
/*
 * Opens and closes, additional files, and the driver bound and unbound.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/ioctl.h>
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

const struct op life_ops[] = {
	OP("open", 1500, open_op),
	OP("close", 15, close_op),
	OP("bind", 3, bind_op),
	OP("file", 300, file_op),
	{ }
};
