// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What libklock wants of the system.  open() and close() of the C library are
 * cancellation points, so it is syscall() here.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

uint32_t klock__gettid(void)
{
	return syscall(SYS_gettid);
}

/* On how many processors the caller may run; 0: more than there is a number for. */
int klock__cpus(void)
{
	int saved = errno;
	cpu_set_t set;
	int cpus = sched_getaffinity(0, sizeof(set), &set) ? 0 : CPU_COUNT(&set);

	errno = saved;
	return cpus;
}

#define MAP_SIZE (KLOCK_CAPACITY_MAX * sizeof(uint64_t))

/* The words of the largest table; what a space has not yet is not there to be touched. */
_Atomic uint64_t *klock__mmap(int space_fd)
{
	int saved = errno;
	void *words = mmap(NULL, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, space_fd, 0);

	errno = saved;
	return words == MAP_FAILED ? NULL : words;
}

void klock__munmap(_Atomic uint64_t *words)
{
	munmap((void *)words, MAP_SIZE);
}

int klock__open_device(void)
{
	int saved = errno;
	int fd = syscall(SYS_openat, AT_FDCWD, "/dev/klock", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fd = errno == ENOENT || errno == ENXIO ? -ENODEV :
		     errno == EPERM ? -EACCES :		/* a device cgroup says so */
		     -errno;
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

/* Memory for handles; the chunk that is returned is wiped in each child, the one before it not. */
void *klock__alloc_chunk(void)
{
	int saved = errno;
	char *rest = mmap(NULL, 2 * KLOCK__CHUNK, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *chunk = NULL;

	if (rest != MAP_FAILED) {
		chunk = rest + KLOCK__CHUNK;
		if (madvise(chunk, KLOCK__CHUNK, MADV_WIPEONFORK)) {
			klock__free_chunk(chunk);
			chunk = NULL;
		}
	}
	errno = saved;
	return chunk;
}

void klock__free_chunk(void *chunk)
{
	munmap((char *)chunk - KLOCK__CHUNK, 2 * KLOCK__CHUNK);
}
