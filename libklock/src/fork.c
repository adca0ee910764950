// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A child is no second holder of what its parent holds: it drops the parent's
 * descriptors, and becomes a client of its own on its first use of a space.
 *
 * How a child is known.  Each process has an epoch: the one that made a space
 * notes it there, and a space of another epoch must be attached anew.  The epoch
 * lies in memory that the kernel wipes when it copies the rest (not for vfork()
 * and posix_spawn(), whose child runs in its parent's memory until exec; nothing
 * may change then).  So klock__enter(), which finds 0 there, is in a new child.
 *
 * When the descriptors are dropped.  At once, by a pthread_atfork() handler, or
 * else by the child's first klock__enter().  By then the child may have closed them
 * itself, and their numbers may be those of other files.
 *
 * What may be seen half done in a child.  Nothing, after fork(), which takes the lock,
 * but a space that another thread was attaching: it has no epoch yet.
 * A child of clone() may start at any moment; so the lock lies in the wiped page,
 * where it is always free at the start, and the list can be walked between any two
 * stores to it.  (A pthread_mutex_t would do for the C library, but not for
 * ThreadSanitizer, which remembers who took it and knows nothing of the wiping.)
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

struct klock__process *_Atomic klock__process;
_Thread_local uint32_t klock__tid;

/* Under the lock. */
static struct klock_space *_Atomic spaces;	/* all that are open */
static uint32_t last_epoch;			/* so a child's is none of its forebears' */
static bool registered;

/* 0: free, 1: taken, 2: taken, and somebody may sleep. */
void klock__lock(atomic_uint *word)
{
	uint32_t is_free = 0;
	int saved = errno;

	if (atomic_compare_exchange_strong(word, &is_free, 1))
		return;
	while (atomic_exchange(word, 2))
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, NULL);
	errno = saved;
}

void klock__unlock(atomic_uint *word)
{
	if (atomic_exchange(word, 0) == 2)
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1);
}

void klock__leave(void)
{
	klock__unlock(&klock__process->lock);
}

static void drop_fd(const struct klock_space *space, int fd)
{
	int saved = errno;
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st) && st.st_dev == space->dev && st.st_ino == space->ino)
		klock__close(fd);
	errno = saved;
}

/* One that the parent had not attached yet is of a thread that is not here. */
static void drop(struct klock_space *space)
{
	drop_fd(space, space->fd);
	space->fd = -1;
	if (!space->epoch) {
		drop_fd(space, space->space_fd);
		klock__del(space);
	}
}

/* To be called before a space is made or changed; klock__init() has been called. */
void klock__enter(void)
{
	struct klock__process *process = klock__process;
	struct klock_space *space, *next;

	klock__lock(&process->lock);
	if (process->epoch)
		return;
	for (space = spaces; space; space = next) {
		next = space->next;
		drop(space);
	}
	klock__tid = 0;		/* it was that of the thread that forked */
	process->epoch = ++last_epoch;
}

/*
 * fork() waits until no space is half made or half closed, but for those that are being
 * attached: they are in the list, for the child to drop.  The lock in the child has been
 * wiped: it is not the one that its parent took.
 */
static void before_fork(void)
{
	klock__lock(&klock__process->lock);
}

static void after_fork_child(void)
{
	klock__enter();
	klock__leave();
}

static int map_process(void)
{
	struct klock__process *chunk = klock__alloc_chunk(), *none = NULL;

	if (!chunk)
		return -ENOMEM;
	if (!atomic_compare_exchange_strong(&klock__process, &none, chunk))
		klock__free_chunk(chunk);	/* another thread was faster */
	return 0;
}

/*
 * The page and the handlers are for good: the library is never unloaded (-z
 * nodelete).  As fork() waits for the lock, no child finds them registered and
 * not noted as such.
 */
int klock__init(void)
{
	int saved = errno;
	int ret = klock__process ? 0 : map_process();

	if (!ret) {
		klock__enter();
		if (!registered)
			ret = -pthread_atfork(before_fork, klock__leave, after_fork_child);
		registered = !ret;
		klock__leave();
	}
	errno = saved;
	return ret;
}

void klock__add(struct klock_space *space)
{
	space->next = spaces;
	spaces = space;
}

void klock__del(struct klock_space *space)
{
	struct klock_space *prev = spaces;

	if (prev == space) {
		spaces = space->next;
		return;
	}
	while (prev->next != space)
		prev = prev->next;
	prev->next = space->next;
}

/*
 * A new space descriptor: another space that has inherited the number has lost its
 * own, in this process and, which must not forget that, in its children.
 */
void klock__forget_space_fd(int space_fd)
{
	struct klock_space *space;

	for (space = spaces; space; space = space->next)
		if (space->space_fd == space_fd)
			space->space_fd = -1;
}
