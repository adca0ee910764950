/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libklock: multi-process locks that the kernel releases when their holder goes
 * away.  A *space* is a table of locks, which have numbers from 0; an open
 * struct klock_space is one *client* of it, and it is the client that holds a
 * lock; a struct klock is a handle on one lock.
 *
 *	struct klock_space *space;
 *	struct klock *lock;
 *	int ret = klock_space_open(NULL, 0, NULL, &space);
 *
 *	if (!ret)
 *		ret = klock_retrieve(space, 7, 0, &lock);
 *	if (!ret)
 *		ret = klock_lock(lock);
 *
 * What holds for all functions, unless one says otherwise:
 *
 * Results.  0 or a positive value is success, a negative errno is failure.  A
 * call that fails has changed nothing, also not what its pointers point to,
 * except for the entries of a list.  errno is left as it was, and nothing is
 * ever printed.
 *
 * Threads.  All may be called by any thread at any time, also on the same space
 * and the same handle, except that nobody may be in a call on a handle while it
 * is put, nor on a space while it is closed.
 *
 * Cancellation.  None is a cancellation point: a thread that is cancelled while it
 * waits for a lock gets the lock first.  Asynchronous cancellation must be off.
 *
 * Signals.  A signal makes no call fail, and none moves a deadline.  A wait that a
 * handler interrupts starts again at the end of the queue.  These may be called
 * in a signal handler: klock_id(), klock_version(), and, but for the first call
 * in a child, all that take a space or a handle and neither make nor drop one.
 * fork() may not be called in a handler that has interrupted
 * klock_space_open(), klock_space_close() or a child's first call.
 *
 * Children.  After fork() the child is no second holder of what the parent
 * holds.  The spaces and handles that it inherits are good: its first call that
 * needs a space, klock_space_fd() excepted, attaches it to the very same one as
 * a client of its own, with the same flags, even if the space was removed or
 * lost its name.  That call opens /dev/klock and needs the descriptors that it
 * inherited: it can fail with -ENODEV, -EACCES, -EMFILE, -ENFILE, -ENOMEM and,
 * if the child has closed them, with -EBADF, and is simply made again when it
 * does.  The parent's own descriptor is closed in the child by fork() itself, so
 * a parent that dies lets go of its locks though the child lives.  That is done by
 * a pthread_atfork() handler: a lock that other such handlers take may not be
 * held while klock_space_open(), klock_space_close() or a child's first call is made.
 * A child made without the handlers (_Fork(), clone()) keeps the parent's client
 * alive until its own first call on a space, exec or exit.  Between vfork() and
 * exec nothing may be called, and a child that shares its descriptors but not
 * its memory with its parent (CLONE_FILES without CLONE_VM) may call nothing at all.
 *
 * System calls.  A space that nobody but its owner may write, or that was made with
 * KLOCK_MAPPABLE, is mapped when it is opened (8 MiB of addresses, of which what is
 * used takes memory); then taking a free lock, and releasing one for which nobody
 * waits, is one compare-and-swap each, but for a thread's first call.  A thread that
 * finds a lock held spins for some tens of microseconds at most before it sleeps.  With
 * KLOCK_NO_FASTPATH, KLOCK_ERRORCHECK or KLOCK_READONLY, in other spaces, for 32-bit
 * programs, and where mapping is not possible, each is an ioctl.  Both ways may be
 * mixed on the same lock.  Who maps a space may not write into it by accident: a word
 * that names a live client is taken for its lock.
 *
 * Errors.  What may be called on a space or a handle also fails with -EACCES if the
 * space was opened with KLOCK_READONLY and the call does more than to look, and, as
 * the first call in a child, with the errors named under "Children".
 *
 * Pointers.  One to a space, a handle or a result may never be NULL unless it says so.
 *
 * (The manual pages are made from what is written here: man/generate.)
 */
#ifndef KLOCK_H
#define KLOCK_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct timespec;
struct klock_space;	/* an open space: one client */
struct klock;		/* a handle on one lock */

/* Flags of klock_space_open() */
#define KLOCK_CREATE      (1u << 0)	/* make the space if it does not exist */
#define KLOCK_EXCL        (1u << 1)	/* with CREATE: -EEXIST if it does */
#define KLOCK_ERRORCHECK  (1u << 2)	/* threads hold locks, not the client: see klock_lock() */
#define KLOCK_NO_FASTPATH (1u << 3)	/* every call is an ioctl */
#define KLOCK_READONLY    (1u << 4)	/* attach to look only */

/* A space that is to be made; all 0: the defaults. */
struct klock_space_attr {
	uint32_t capacity;	/* locks, at most 1048576; 0: 2048 */
	uint32_t mode;		/* permission bits, at most 0666; 0: 0600 */
	uint32_t flags;		/* 0 or KLOCK_MAPPABLE */
	uint32_t reserved[5];	/* 0 */
};

#define KLOCK_MAPPABLE  (1u << 0)	/* who may write it may map its words */
#define KLOCK_REMOVED   (1u << 1)	/* in klock_space_info.flags only */

/* Flags of other calls, and a result */
#define KLOCK_MUST_EXIST (1u << 0)	/* klock_retrieve(): -ENOENT if it is not allocated */
#define KLOCK_FORCE      (1u << 0)	/* klock_space_remove(): though it has clients */
#define KLOCK_OWNER_DIED 1		/* of a lock call: you have it, but the last holder died */

/*
 * Opens a space as a new client.
 *
 * @name: NAME, a space of the caller, or UID/NAME, one of another user, UID in decimal
 *	digits and below 2^32-1; NAME is 1 to 63 of "A-Z a-z 0-9 . _ -", not
 *	starting with a dot.  NULL: the caller's space "default", made if need be.
 * @flags: KLOCK_CREATE, KLOCK_EXCL, KLOCK_ERRORCHECK, KLOCK_NO_FASTPATH,
 *	KLOCK_READONLY
 * @attr: of the space if it is made, NULL: the defaults; looked at only with
 *	KLOCK_CREATE or if @name is NULL.  Stays the caller's.
 * @space: filled with the space, which the caller closes with
 *	klock_space_close(), also in a child that has inherited it
 *
 * Errors: -ENODEV (the module is not loaded, or /dev/klock is not there), -ENOENT (no
 * such space), -EACCES (the caller may not open the device or attach to the
 * space; always, if it may not know whether there is one), -EEXIST, -EDQUOT (a
 * quota of spaces or locks), -ENOMEM, -EMFILE, -ENFILE (two descriptors are needed),
 * -EINVAL (a malformed @name, an unknown flag, EXCL without CREATE, a capacity
 * above the maximum, any other bad value in @attr).
 */
int klock_space_open(const char *name, unsigned int flags, const struct klock_space_attr *attr,
		     struct klock_space **space);

/*
 * Closes a space: the client goes, and every lock that it holds is released as
 * if it had died.  A call that a process is still in keeps its client (and to be
 * in one is the caller's error).  Of the space's handles, only klock_put() and
 * klock_id() may be called afterwards.  NULL: nothing is done.
 *
 * A child that closes a space which it has never used must attach to it to tell
 * the descriptor that it inherited from another file; one that cannot leaves
 * that descriptor, which is close-on-exec, open.
 */
void klock_space_close(struct klock_space *space);

/*
 * The descriptor of the client, for the ioctls of <linux/klock.h> and to pass to
 * others; it is close-on-exec, and stays the library's.
 *
 * Errors: -EBADF (in a child that has not called anything else on the space).
 */
int klock_space_fd(const struct klock_space *space);

/*
 * Removes a space.  Its name is free at once; who holds a lock of it may still
 * unlock; nobody takes or allocates one any more (-ESTALE).  For its owner and
 * CAP_SYS_ADMIN.
 *
 * @name: as of klock_space_open()
 * @flags: 0 or KLOCK_FORCE: though it has clients
 *
 * Errors: -ENOENT (no such space), -EACCES (not the caller's), -EBUSY (it has
 * clients), -ENODEV, -ENOMEM, -EMFILE, -ENFILE, -EINVAL (a malformed @name, an
 * unknown flag).
 */
int klock_space_remove(const char *name, unsigned int flags);

/* A space as it was at some moment. */
struct klock_space_info {
	uint32_t capacity;	/* locks */
	uint32_t allocated;	/* locks that are allocated */
	uint32_t held;		/* locks that a live client holds */
	uint32_t waiting;	/* threads that wait for a lock */
	uint32_t clients;	/* that are attached now */
	uint32_t uid;		/* of the owner, as the caller's user namespace sees it */
	uint32_t gid;		/* the same */
	uint32_t mode;		/* permission bits */
	uint32_t flags;		/* KLOCK_MAPPABLE, KLOCK_REMOVED */
	uint32_t reserved;	/* 0 */
	uint64_t generation;	/* random, not 0, new for each space that is made */
	/* since the space was made: */
	uint64_t passed;	/* wake-ups of a waiter that found the lock taken, in all */
	uint64_t max_passed;	/* the most of them that one wait has seen */
	uint64_t waits;		/* waits that were begun; an interrupted one counts anew */
	uint64_t waited;	/* locks that were got by waiting */
	uint64_t longest_wait;	/* ns: of those that have ended, however they did */
	uint64_t deaths;	/* locks whose holder went away without unlocking */
	uint64_t reserved2[2];	/* 0 */
	char     name[64];	/* without UID/, NUL-terminated */
};

/* Tells how a space is.  Errors: none of its own. */
int klock_space_info(struct klock_space *space, struct klock_space_info *info);

/*
 * Changes the number of locks of a space while it is in use.  No lock changes its
 * number.  For its owner and CAP_SYS_ADMIN, whoever opened it.
 *
 * @capacity: locks from now on, 1 to 1048576
 *
 * Errors: -EACCES (not the caller's), -EBUSY (a lock at or above @capacity is
 * allocated, held or waited for), -EDQUOT (a quota of locks), -ENOMEM, -ESTALE (the
 * space was removed), -EINVAL (@capacity is 0 or above the maximum).
 */
int klock_space_resize(struct klock_space *space, uint32_t capacity);

/*
 * Lists spaces: those, not removed, that the caller may read, in order of uid and
 * name.  Needs no open space.
 *
 * @after: start with the first that comes after this one, which need not exist any
 *	more; NULL: from the start.  Usually the last entry of the call before.
 *	May lie in @info.
 * @info: filled; may be NULL if @n is 0
 * @n: entries that it has room for
 *
 * Returns how many it has filled.  Errors: -ENODEV, -EACCES (on the device),
 * -ENOMEM, -EMFILE, -ENFILE, -EINVAL (@after is no entry of a list), -EFAULT
 * (@info cannot be written).
 */
int klock_space_list(const struct klock_space_info *after, struct klock_space_info *info,
		     uint32_t n);

/*
 * Allocates a lock: marks the lowest free number as taken.  It stays so until it
 * is freed, whatever becomes of this process.
 *
 * @lock: filled with a handle, which the caller drops with klock_put()
 *
 * Errors: -ENOSPC (all are taken), -ENOMEM, -ESTALE (the space was removed).
 */
int klock_allocate(struct klock_space *space, struct klock **lock);

/*
 * Allocates the lock @id, as klock_allocate() does the lowest.
 *
 * @lock: filled with a handle, which the caller drops with klock_put()
 *
 * Errors: -EEXIST (it is taken), -EINVAL (@id is not below the capacity), -ENOMEM,
 * -ESTALE (the space was removed).
 */
int klock_allocate_id(struct klock_space *space, uint32_t id, struct klock **lock);

/*
 * Makes a handle on the lock @id, allocated or not: all handles on one number, in
 * all processes, are the same lock.  Without @flags, and for an @id below the
 * capacity last seen by this client, it takes no system call.  So it may succeed
 * on a space that has shrunk meanwhile; then locking is -EINVAL.
 *
 * @flags: 0 or KLOCK_MUST_EXIST
 * @lock: filled with a handle, which the caller drops with klock_put()
 *
 * Errors: -EINVAL (@id is not below the capacity, an unknown flag), -ENOENT (it
 * is not allocated, with KLOCK_MUST_EXIST), -ESTALE (the space was removed, with
 * KLOCK_MUST_EXIST), -ENOMEM.
 */
int klock_retrieve(struct klock_space *space, uint32_t id, unsigned int flags,
		   struct klock **lock);

/*
 * Frees the number of a lock, and changes nothing else: who holds the lock or waits
 * for it goes on, and the handle stays usable.
 *
 * Errors: -ENOENT (it is not allocated), -EINVAL (it is not below the
 * capacity), -ESTALE (the space was removed).
 */
int klock_free(struct klock *lock);

/*
 * Frees all numbers of a space, as klock_free() does one.
 *
 * Errors: -ESTALE (the space was removed).
 */
int klock_free_all(struct klock_space *space);

/* Drops a handle; changes no lock, so a lock that is held stays so.  NULL: nothing is done. */
void klock_put(struct klock *lock);

/* The number of a lock. */
uint32_t klock_id(const struct klock *lock);

/*
 * Takes a lock, waiting for it if need be.
 *
 * The client has it then: any thread of this process may unlock it, and another
 * one that locks it waits for that.  With KLOCK_ERRORCHECK the calling thread has
 * it, and no other may unlock it.
 *
 * Returns 0, or KLOCK_OWNER_DIED: it is taken, but the last holder went away
 * without unlocking, and what the lock protects may be half done.  That is said once.
 *
 * Errors: -EINVAL (the lock is not below the capacity), -ESTALE (the space was
 * removed), -ENOMEM (nothing to wait with, or, KLOCK_ERRORCHECK only, to note the
 * thread in), -EDEADLK (KLOCK_ERRORCHECK only: this thread has it, or a cycle of up
 * to 1024 waiting threads would close).
 */
int klock_lock(struct klock *lock);

/*
 * Takes a lock if that can be done at once; as klock_lock() else.
 *
 * Returns what klock_lock() does.
 *
 * Errors: those of klock_lock() but -EDEADLK, and -EBUSY (it is held, by whomever, or a
 * resize or removal that is under way keeps from finding out whether it is there).
 */
int klock_trylock(struct klock *lock);

/*
 * Takes a lock, waiting until @deadline at most; as klock_lock() else.
 *
 * @clock: CLOCK_MONOTONIC, or CLOCK_REALTIME, whose steps are followed
 * @deadline: a moment of that clock, not a span; one that is past: the lock is tried once
 *
 * Returns what klock_lock() does.  Errors: those of klock_lock(), and -ETIMEDOUT
 * (@deadline has passed), -EINVAL (another clock, tv_nsec not from 0 to 999999999,
 * @deadline is NULL).
 */
int klock_lock_until(struct klock *lock, clockid_t clock, const struct timespec *deadline);

/*
 * Releases a lock.
 *
 * Errors: -EPERM (it is not held, or another client holds it, or, with
 * KLOCK_ERRORCHECK, another thread), -EINVAL (it is not below the capacity).
 */
int klock_unlock(struct klock *lock);

/*
 * Releases a lock by force, as if its holder had died.  For the owner of the space and
 * CAP_SYS_ADMIN, whoever opened it.
 *
 * @token: of the holder that is meant, from klock_status; 0: any
 *
 * Errors: -EACCES (not the caller's), -ENOENT (nobody holds it), -EAGAIN (another
 * than @token holds it), -EINVAL (@id is not below the capacity).
 */
int klock_break(struct klock_space *space, uint32_t id, uint32_t token);

/*
 * A lock as it was at some moment.  Processes and threads are as the reader's pid
 * namespace sees them; 0: none, dead, not visible or not known.
 */
struct klock_status {
	uint32_t id;		/* its number */
	uint32_t flags;		/* KLOCK_ALLOCATED, KLOCK_HELD, KLOCK_DIED, KLOCK_MINE */
	uint32_t pid;		/* the process whose client holds it */
	uint32_t tid;		/* the thread that took it */
	uint32_t waiters;	/* threads that wait */
	uint32_t token;		/* of the client that holds it; 0: none */
	uint64_t held_since;	/* ns of CLOCK_MONOTONIC: held at least since; 0: not known */
	uint64_t waiting_since;	/* the same, of the first waiter; 0: none */
	uint64_t reserved2[2];	/* 0 */
};

#define KLOCK_ALLOCATED (1u << 0)	/* its number is taken */
#define KLOCK_HELD      (1u << 1)	/* by a live client */
#define KLOCK_DIED      (1u << 2)	/* the next holder will be told */
#define KLOCK_MINE      (1u << 3)	/* held by this client */

/*
 * Tells how a lock is.
 *
 * Errors: -EINVAL (it is not below the capacity).
 */
int klock_status(struct klock *lock, struct klock_status *status);

/*
 * Lists the locks of a space that are allocated, held, waited for or whose owner
 * died, in order of id.
 *
 * @first: the id to start with
 * @status: filled; may be NULL if @n is 0
 * @n: entries that it has room for
 *
 * Returns how many it has filled.  Errors: -ENOMEM, -EFAULT (@status cannot be
 * written).
 */
int klock_list(struct klock_space *space, uint32_t first, struct klock_status *status, uint32_t n);

/* A thread that waits; as the reader's pid namespace sees it, 0: not visible. */
struct klock_waiter {
	uint32_t pid, tid;	/* its process, and itself */
	uint64_t since;		/* ns of CLOCK_MONOTONIC */
};

/*
 * Lists the threads that wait for a lock, in their order.
 *
 * @waiter: filled; may be NULL if @n is 0
 * @n: entries that it has room for
 *
 * Returns how many it has filled.  Errors: -ENOMEM, -EINVAL (the lock is not below
 * the capacity), -EFAULT (@waiter cannot be written).
 */
int klock_waiters(struct klock *lock, struct klock_waiter *waiter, uint32_t n);

/* The version of the library, as in "1.2.3"; the string is the library's. */
const char *klock_version(void);

#ifdef __cplusplus
}
#endif

#endif /* KLOCK_H */
