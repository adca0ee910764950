/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KLOCK_INTERNAL_H
#define KLOCK_INTERNAL_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/klock.h>

#pragma GCC visibility push(default)	/* all else is compiled as hidden */
#include <klock.h>
#pragma GCC visibility pop

struct klock_space {
	/* What counts while @epoch is that of the process. */
	_Atomic uint64_t *words;	/* mapped; NULL: they are not */
	uint32_t token;			/* of the client */
	int fd;				/* the client; -1: closed by klock__enter() */
	int space_fd;			/* a child attaches by it */
	atomic_uint epoch;

	bool by_ioctl;			/* never mapped */
	atomic_uint capacity;	/* last seen */
	uint32_t attach_flags;		/* KLOCK_ATTACH_*, again in each child */
	dev_t dev;			/* what @fd is: a number may have been given to */
	ino_t ino;			/* another file in a child */
	struct klock_space *_Atomic next;	/* in the list of fork.c */
};

/*
 * A handle: what it takes to lock without the kernel, in memory that the kernel wipes
 * in each child, whatever made the child; so nothing is mapped there.
 */
struct klock {
	_Atomic uint64_t *_Atomic word;	/* NULL: by ioctl */
	atomic_uint token;		/* of the client; set before @word */
	atomic_uint spin;		/* how long spinning took to bring it, see lock.c */
};

/* The rest of it, that a child inherits. */
struct klock__rest {
	struct klock_space *space;
	union {
		uint32_t id;
		struct klock *_Atomic next;	/* of those that are free */
	};
};

/*
 * Handles are made by the chunk: so much memory that is not wiped, and as much that is.
 * In this order: the words of the first space are mapped just below, 8 MiB away, and
 * a handle in the first page would be sent to the same place of a TLB as the first word.
 */
#define KLOCK__CHUNK	65536	/* of whole pages, whatever their size */

static_assert(sizeof(struct klock) >= sizeof(struct klock__rest), "a rest for each handle");

static inline struct klock__rest *klock__rest(const struct klock *lock)
{
	return (struct klock__rest *)((char *)lock - KLOCK__CHUNK);
}

/* fork.c: what is to be wiped in a child, too.  It is the first chunk. */
struct klock__process {
	atomic_uint epoch;	/* 0: nobody has called klock__enter() in this process */
	atomic_uint lock;	/* of klock__enter() */
	atomic_uint handles_lock;	/* of table.c; not taken by fork() */
	uint32_t unused;
	struct klock handles[KLOCK__CHUNK / sizeof(struct klock) - 1];
};

static_assert(sizeof(struct klock__process) == KLOCK__CHUNK, "a chunk");

extern struct klock__process *_Atomic klock__process;

/* The calling thread, for the words that it writes; 0: it has not asked yet. */
extern __attribute__((tls_model("initial-exec"))) _Thread_local uint32_t klock__tid;

static inline uint32_t klock__epoch(void)
{
	struct klock__process *process = atomic_load_explicit(&klock__process,
							      memory_order_acquire);

	return atomic_load_explicit(&process->epoch, memory_order_relaxed);
}

/* Whether the descriptors of a space are of this process: not of its parent. */
static inline int klock__is_attached(const struct klock_space *space)
{
	return atomic_load_explicit(&space->epoch, memory_order_acquire) == klock__epoch();
}

int klock__init(void);
void klock__lock(atomic_uint *word);
void klock__unlock(atomic_uint *word);
void klock__enter(void);
void klock__leave(void);
void klock__add(struct klock_space *space);
void klock__del(struct klock_space *space);
void klock__forget_space_fd(int space_fd);

/* space.c */
int klock__reattach(struct klock_space *space);

/* table.c */
void klock__map_handle(struct klock *lock);

/* The descriptor of the client, made in a child that has none yet; or -errno. */
static inline int klock__fd(struct klock_space *space)
{
	int ret = klock__is_attached(space) ? 0 : klock__reattach(space);

	return ret ? ret : space->fd;
}

/*
 * system.c: calls of the system that return -errno, leave errno as it was and are
 * no cancellation points.
 */
uint32_t klock__gettid(void);
int klock__cpus(void);
_Atomic uint64_t *klock__mmap(int space_fd);
void klock__munmap(_Atomic uint64_t *words);
int klock__open_device(void);
void klock__close(int fd);
int klock__ioctl(int fd, unsigned long number, void *arg);
void *klock__alloc(size_t size);
void *klock__alloc_chunk(void);
void klock__free_chunk(void *chunk);

/* An ioctl on a space that somebody has open. */
static inline int klock__call(struct klock_space *space, unsigned long number, void *arg)
{
	int fd = klock__fd(space);

	return fd < 0 ? fd : klock__ioctl(fd, number, arg);
}

#endif /* KLOCK_INTERNAL_H */
