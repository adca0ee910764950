// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What libklock wants of the system.  open() and close() of the C library are
 * cancellation points, so it is syscall() here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

int klock__open_device(void)
{
	int saved = errno;
	int fd = syscall(SYS_openat, AT_FDCWD, "/dev/klock", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fd = errno == ENOENT || errno == ENXIO ? -ENODEV : -errno;
	errno = saved;
	return fd;
}

void klock__close(int fd)
{
	int saved = errno;

	syscall(SYS_close, fd);
	errno = saved;
}

/* A signal ends no call: times are absolute, so a wait is simply made again. */
int klock__ioctl(int fd, unsigned long number, void *arg)
{
	int saved = errno;
	int ret;

	do {
		ret = ioctl(fd, number, arg);
	} while (ret < 0 && errno == EINTR);
	if (ret < 0)
		ret = -errno;
	errno = saved;
	return ret;
}

void *klock__alloc(size_t size)
{
	int saved = errno;
	void *mem = calloc(1, size);

	errno = saved;
	return mem;
}
