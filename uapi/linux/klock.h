/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * klock: multi-process locks, released by the kernel when their holder's
 * descriptor goes away.  Documentation/userspace-api/klock.rst explains the
 * terms; libklock wraps all of this, and most programs want that.
 *
 * An open file of /dev/klock is one *client*.  It is attached once, to one
 * *space* (a table of locks numbered from 0), by KLOCK_IOC_ATTACH; one that
 * was never attached is attached to the caller's own space "default" by its
 * first call on a lock or a space (not GET_API, LIST_SPACES and REMOVE), and
 * stays so if that call then fails.
 *
 * Common to all calls:
 *  - Structs are the same for 32 and 64-bit callers, without padding.  They may
 *    grow: a kernel takes a longer struct if what it does not know is zero
 *    (else E2BIG), and clears what it does not know in a longer result.  A
 *    struct shorter than the one described here is EINVAL.
 *  - Unknown flags and reserved fields that are not zero are EINVAL.
 *  - Times are in ns, of CLOCK_MONOTONIC in the time namespace of the caller,
 *    unless said otherwise.
 *  - uids, gids, pids and tids are those of the caller's own namespaces.
 *  - A result of a call that changes something is the value of the ioctl, and
 *    a call that fails has changed nothing (but a first call has attached, see
 *    above).
 *
 * Errors common to all calls: EFAULT (the struct cannot be read or written),
 * EINVAL and E2BIG (see above), ENOTTY (no such call).  Those on a lock or a
 * space also: EACCES (the client is attached to look only, and the call does
 * more than that), and, as the first call of a client that is not attached,
 * the errors of KLOCK_IOC_ATTACH.
 */
#ifndef _LINUX_KLOCK_H
#define _LINUX_KLOCK_H

#include <linux/types.h>
#include <linux/ioctl.h>

/*
 * The word of a lock: 64 bits, in native byte order.
 *
 * bits  0..29  token of the client that holds it, 0: nobody, or
 *              KLOCK_WORD_NONE: there is no such lock (yet, or any more)
 * bit   30     the last holder died; the next one must be told
 * bit   31     somebody waits: unlock must enter the kernel
 * bits 32..63  thread id of the holder, as its own pid namespace sees it; a
 *              hint for people
 */
#define KLOCK_WORD_TOKEN	0x3fffffffU
#define KLOCK_WORD_NONE		0x3fffffffU
#define KLOCK_WORD_DIED		0x40000000U
#define KLOCK_WORD_WAITERS	0x80000000U
#define KLOCK_WORD_TID_SHIFT	32

#define KLOCK_CAPACITY_MAX	(1U << 20)	/* locks of a space, at most */
#define KLOCK_CAPACITY_DEFAULT	2048U
#define KLOCK_MODE_DEFAULT	0600U
#define KLOCK_NAME_SIZE		64		/* with the NUL that ends it */

/**
 * struct klock_ioc_api - what the module offers
 * @version: KLOCK_API_VERSION of the module
 * @max_capacity: locks that a space may have at most (module parameter)
 * @max_passed: how many wake-ups of a waiter may find the lock taken by
 *	another; the unlock after that hands it the lock
 * @reserved: 0
 * @features: KLOCK_FEATURE_*
 */
struct klock_ioc_api {
	__u32 version;
	__u32 max_capacity;
	__u32 max_passed;
	__u32 reserved;
	__u64 features;
};

#define KLOCK_API_VERSION	1U
#define KLOCK_FEATURE_MAP	(1ULL << 0)	/* this caller may map space descriptors */

/* klock_ioc_attach.flags */
#define KLOCK_ATTACH_CREATE	(1U << 0)	/* make the space if it does not exist */
#define KLOCK_ATTACH_EXCL	(1U << 1)	/* with CREATE: EEXIST if it does */
#define KLOCK_ATTACH_ERRORCHECK	(1U << 2)	/* threads hold locks, not the client */
#define KLOCK_ATTACH_READONLY	(1U << 3)	/* to look only */
#define KLOCK_ATTACH_UID	(1U << 4)	/* the space of @uid, not of the caller */
#define KLOCK_ATTACH_FD		(1U << 5)	/* the space of @space_fd; no name */

/* Flags of a space: klock_ioc_attach.space_flags, klock_ioc_info.flags */
#define KLOCK_SPACE_MAPPABLE	(1U << 0)	/* whoever may write may map the words */
#define KLOCK_SPACE_REMOVED	(1U << 1)	/* in klock_ioc_info only */

/**
 * struct klock_ioc_attach - attach this client to a space
 * @flags: KLOCK_ATTACH_*
 * @uid: owner of the space, if KLOCK_ATTACH_UID; else 0
 * @space_fd: a space descriptor, if KLOCK_ATTACH_FD; else 0.  The client gets
 *	at most the rights that the descriptor was made with: with those of a
 *	client that may only look, it must be KLOCK_ATTACH_READONLY, else EACCES.
 * @capacity: locks of a space that is made; 0: KLOCK_CAPACITY_DEFAULT
 * @mode: its permission bits, up to 0666; 0: KLOCK_MODE_DEFAULT
 * @space_flags: KLOCK_SPACE_MAPPABLE or 0
 * @reserved: 0
 * @name: 1 to 63 of "A-Z a-z 0-9 . _ -", not starting with a dot, and NUL;
 *	with KLOCK_ATTACH_FD: empty
 *
 * @capacity, @mode and @space_flags must be 0 without KLOCK_ATTACH_CREATE and
 * count only when the space is made.
 *
 * The value of the ioctl is the capacity of the space.
 * Errors: EBUSY (attached already), ENOENT (no such space), EEXIST, EACCES,
 * EDQUOT (quota of spaces or locks), ENOMEM, ENFILE (all tokens are in use), EBADF
 * (@space_fd is not open), EINVAL (also: a malformed name, a capacity above the
 * maximum, EXCL without CREATE, @space_fd is no space descriptor).
 */
struct klock_ioc_attach {
	__u32 flags;
	__u32 uid;
	__s32 space_fd;
	__u32 capacity;
	__u32 mode;
	__u32 space_flags;
	__u32 reserved[2];
	char name[KLOCK_NAME_SIZE];
};

/**
 * struct klock_ioc_space_fd - make the space descriptor of this client
 * @flags: 0
 * @token: out: the number by which the space knows this client; 0 on input
 *
 * The value of the ioctl is a new descriptor, close-on-exec, which keeps the
 * space, but neither this client nor its locks.  A client can make one, once.
 *
 * Errors: EBUSY (made already), EMFILE, ENFILE, ENOMEM.
 *
 * mmap() of it maps the words of the locks, lock 0 at offset 0: MAP_SHARED, not
 * executable, up to 8 * KLOCK_CAPACITY_MAX bytes whatever the capacity is.  What
 * is touched must lie in a page with a lock whose number was once below the
 * capacity (else SIGBUS); such a page stays for good.  The client may swap a
 * word from 0 to its token (and thread id), with acquire semantics, and so has
 * the lock, and may swap one that names it, and has neither WAITERS nor DIED set,
 * to 0, with release semantics.  Every other value is for the ioctls.  Children
 * do not inherit the mapping.  It is harmless when it outlives the client.
 *
 * Errors of mmap(): EOPNOTSUPP (not on this machine, or not for a 32-bit
 * caller), EACCES (the client is READONLY; others than the owner may write the
 * space, and it is not MAPPABLE), EINVAL (private, executable or too long; some
 * kernels say EPERM to an executable one).
 */
struct klock_ioc_space_fd {
	__u32 flags;
	__u32 token;
};

/**
 * struct klock_ioc_info - a space as it is now
 * @capacity: locks
 * @allocated: locks that are allocated
 * @held: locks that are held by a live client
 * @waiting: waiting threads
 * @clients: attached clients
 * @uid: owner
 * @gid: group
 * @mode: permission bits
 * @flags: KLOCK_SPACE_*
 * @reserved: 0
 * @generation: random, not 0, new for each space that is made
 * @passed: wake-ups of a waiter that found the lock taken, in all
 * @max_passed: the most of them that one wait has seen
 * @waits: waits that were begun; one that a signal has interrupted counts anew
 * @waited: locks that were got by waiting
 * @longest_wait: the longest wait that has ended, however it did, in ns
 * @deaths: locks whose holder went away without unlocking; not those that were broken
 * @reserved2: 0
 * @name: name, NUL-terminated
 */
struct klock_ioc_info {
	__u32 capacity;
	__u32 allocated;
	__u32 held;
	__u32 waiting;
	__u32 clients;
	__u32 uid;
	__u32 gid;
	__u32 mode;
	__u32 flags;
	__u32 reserved;
	__u64 generation;
	__u64 passed;
	__u64 max_passed;
	__u64 waits;
	__u64 waited;
	__u64 longest_wait;
	__u64 deaths;
	__u64 reserved2[2];
	char name[KLOCK_NAME_SIZE];
};

/**
 * struct klock_ioc_resize - change the capacity of the space
 * @capacity: locks from now on, 1 to the maximum
 * @flags: 0
 *
 * For the owner and CAP_SYS_ADMIN.  Errors: EACCES, EBUSY (a lock at or above
 * @capacity is allocated, held or waited for), EDQUOT, ENOMEM, EINVAL (also: 0
 * or above the maximum), ESTALE (the space was removed).
 */
struct klock_ioc_resize {
	__u32 capacity;
	__u32 flags;
};

#define KLOCK_REMOVE_FORCE	(1U << 0)	/* though it has clients */
#define KLOCK_REMOVE_UID	(1U << 1)	/* the space of @uid, not of the caller */

/**
 * struct klock_ioc_remove - remove a space by its name; needs no attachment
 * @flags: KLOCK_REMOVE_*
 * @uid: owner of the space, if KLOCK_REMOVE_UID; else 0
 * @name: as in struct klock_ioc_attach
 *
 * For the owner and CAP_SYS_ADMIN.  The name is free at once; whoever holds a
 * lock may still unlock it, nobody takes or allocates one (ESTALE).
 * Errors: ENOENT, EACCES, EBUSY (it has clients, and not FORCE), EINVAL (also: not a
 * name, or @uid is none).
 */
struct klock_ioc_remove {
	__u32 flags;
	__u32 uid;
	char name[KLOCK_NAME_SIZE];
};

/**
 * struct klock_ioc_spaces - list spaces; needs no attachment
 * @entries: address of an array of struct klock_ioc_info that is filled
 * @count: how many it has room for
 * @entry_size: size of one, in bytes; more than a page is E2BIG
 * @flags: 0
 * @after_uid: see @after_name
 * @after_name: list what comes after this name of @after_uid; empty: list
 *	from the start, and @after_uid is 0
 *
 * Lists the spaces, not removed, that the caller may read and whose owner has
 * a uid in the caller's user namespace, in order of uid (as the initial user
 * namespace sees it) and name.  The value of the ioctl is how many were filled.
 *
 * Errors: EINVAL (also: @after_uid has no uid in the caller's user namespace).
 */
struct klock_ioc_spaces {
	__u64 entries;
	__u32 count;
	__u32 entry_size;
	__u32 flags;
	__u32 after_uid;
	char after_name[KLOCK_NAME_SIZE];
};

#define KLOCK_ALLOCATE_ID	(1U << 0)	/* @id, not the lowest free one */

/**
 * struct klock_ioc_allocate - allocate a lock
 * @flags: 0 or KLOCK_ALLOCATE_ID
 * @id: the one that is wanted, if KLOCK_ALLOCATE_ID; else 0
 *
 * The value of the ioctl is the id.  Errors: ENOSPC (all are taken), EEXIST
 * (@id is), EINVAL (also: @id is not below the capacity), ESTALE (the space was
 * removed).
 */
struct klock_ioc_allocate {
	__u32 flags;
	__u32 id;
};

#define KLOCK_RETRIEVE_MUST_EXIST (1U << 0)	/* ENOENT if @id is not allocated */

/**
 * struct klock_ioc_id - argument of RETRIEVE, FREE, FREE_ALL and UNLOCK
 * @id: the lock; for FREE_ALL: 0
 * @flags: RETRIEVE: 0 or KLOCK_RETRIEVE_MUST_EXIST; else 0
 *
 * All: EINVAL (also: @id is not below the capacity), ESTALE (the space was
 * removed; not UNLOCK).
 * RETRIEVE: ENOENT, see above.
 * FREE: ENOENT (@id is not allocated).
 * UNLOCK: EPERM (not held, or held by another client, or, for an errorcheck
 * client, by another thread), and nothing is changed.
 */
struct klock_ioc_id {
	__u32 id;
	__u32 flags;
};

#define KLOCK_LOCK_TRY		(1U << 0)	/* do not wait: EBUSY */
#define KLOCK_LOCK_DEADLINE	(1U << 1)	/* wait until @deadline: ETIMEDOUT */
#define KLOCK_LOCK_REALTIME	(1U << 2)	/* @deadline is of CLOCK_REALTIME */

/**
 * struct klock_ioc_lock - take a lock
 * @id: the lock
 * @flags: KLOCK_LOCK_*; not TRY with DEADLINE; REALTIME only with DEADLINE
 * @deadline: absolute, ns, at most 2^63-1, if KLOCK_LOCK_DEADLINE; else 0.  One that is
 *	past: the lock is tried once.
 *
 * The value of the ioctl is 0, or 1: it is taken, but the last holder died.
 * Waits until it has the lock.  A signal ends the wait with ERESTARTSYS: the
 * call is restarted, or fails with EINTR, as sigaction() says.
 *
 * Errors: EBUSY (TRY: somebody has it, or a resize or removal that is under way keeps from
 * finding out whether it is there), ETIMEDOUT, EINTR, ENOMEM (nothing to wait with, or,
 * errorcheck only, to note the thread in), EDEADLK (errorcheck only: the thread has it
 * already, or a cycle of up to 1024 waiting threads would close; also if @deadline is
 * past), EINVAL (also: @id is not below the capacity), ESTALE (the space was removed).
 */
struct klock_ioc_lock {
	__u32 id;
	__u32 flags;
	__u64 deadline;
};

/**
 * struct klock_ioc_break - release a lock by force, as if its holder had died
 * @id: the lock
 * @token: of the holder that is meant; 0: any
 * @flags: 0
 * @reserved: 0
 *
 * For the owner of the space and CAP_SYS_ADMIN.  Errors: EACCES, ENOENT (nobody
 * holds it), EAGAIN (another than @token holds it), EINVAL (also: @id is not
 * below the capacity).
 */
struct klock_ioc_break {
	__u32 id;
	__u32 token;
	__u32 flags;
	__u32 reserved;
};

/* klock_ioc_status.flags */
#define KLOCK_STATUS_ALLOCATED	(1U << 0)
#define KLOCK_STATUS_HELD	(1U << 1)	/* by a live client */
#define KLOCK_STATUS_DIED	(1U << 2)	/* the next holder will be told */
#define KLOCK_STATUS_MINE	(1U << 3)	/* held by this client */

/**
 * struct klock_ioc_status - a lock as it is now
 * @id: in (STATUS) and out: the lock
 * @flags: out: KLOCK_STATUS_*
 * @pid: out: process that attached the client that holds it; 0: none, dead or
 *	not visible
 * @tid: out: thread that took it; 0: none, dead, not visible or not known
 * @waiters: out: how many wait
 * @token: out: of the holder; 0: none
 * @held_since: out: held at least since then; 0: not known
 * @waiting_since: out: since when the first waiter waits; 0: nobody waits
 * @reserved: 0
 *
 * What is out must be 0 on input.
 */
struct klock_ioc_status {
	__u32 id;
	__u32 flags;
	__u32 pid;
	__u32 tid;
	__u32 waiters;
	__u32 token;
	__u64 held_since;
	__u64 waiting_since;
	__u64 reserved[2];
};

/**
 * struct klock_ioc_waiter - one that waits for a lock
 * @pid: process; 0: not visible
 * @tid: thread; 0: not visible
 * @since: since when it waits
 */
struct klock_ioc_waiter {
	__u32 pid;
	__u32 tid;
	__u64 since;
};

/**
 * struct klock_ioc_list - argument of LIST and WAITERS
 * @entries: address of an array that is filled: LIST: of struct
 *	klock_ioc_status, WAITERS: of struct klock_ioc_waiter
 * @count: how many it has room for
 * @entry_size: size of one, in bytes; more than a page is E2BIG
 * @id: LIST: where to start; WAITERS: the lock
 * @flags: 0
 *
 * LIST fills in, in order of id, the locks that are allocated, held, waited
 * for, or whose owner died; WAITERS the waiters in their order.  The value of
 * the ioctl is how many were filled.
 *
 * Errors: EINVAL (also: WAITERS: @id is not below the capacity), ENOMEM.
 */
struct klock_ioc_list {
	__u64 entries;
	__u32 count;
	__u32 entry_size;
	__u32 id;
	__u32 flags;
};

#define KLOCK_IOC_MAGIC		0xBC

#define KLOCK_IOC_GET_API	_IOR(KLOCK_IOC_MAGIC, 0x00, struct klock_ioc_api)
#define KLOCK_IOC_ATTACH	_IOW(KLOCK_IOC_MAGIC, 0x01, struct klock_ioc_attach)
#define KLOCK_IOC_SPACE_FD	_IOWR(KLOCK_IOC_MAGIC, 0x02, struct klock_ioc_space_fd)
#define KLOCK_IOC_INFO		_IOR(KLOCK_IOC_MAGIC, 0x03, struct klock_ioc_info)
#define KLOCK_IOC_RESIZE	_IOW(KLOCK_IOC_MAGIC, 0x04, struct klock_ioc_resize)
#define KLOCK_IOC_REMOVE	_IOW(KLOCK_IOC_MAGIC, 0x05, struct klock_ioc_remove)
#define KLOCK_IOC_LIST_SPACES	_IOW(KLOCK_IOC_MAGIC, 0x06, struct klock_ioc_spaces)

#define KLOCK_IOC_ALLOCATE	_IOW(KLOCK_IOC_MAGIC, 0x10, struct klock_ioc_allocate)
#define KLOCK_IOC_RETRIEVE	_IOW(KLOCK_IOC_MAGIC, 0x11, struct klock_ioc_id)
#define KLOCK_IOC_FREE		_IOW(KLOCK_IOC_MAGIC, 0x12, struct klock_ioc_id)
#define KLOCK_IOC_FREE_ALL	_IOW(KLOCK_IOC_MAGIC, 0x13, struct klock_ioc_id)

#define KLOCK_IOC_LOCK		_IOW(KLOCK_IOC_MAGIC, 0x20, struct klock_ioc_lock)
#define KLOCK_IOC_UNLOCK	_IOW(KLOCK_IOC_MAGIC, 0x21, struct klock_ioc_id)
#define KLOCK_IOC_BREAK		_IOW(KLOCK_IOC_MAGIC, 0x22, struct klock_ioc_break)

#define KLOCK_IOC_STATUS	_IOWR(KLOCK_IOC_MAGIC, 0x30, struct klock_ioc_status)
#define KLOCK_IOC_LIST		_IOW(KLOCK_IOC_MAGIC, 0x31, struct klock_ioc_list)
#define KLOCK_IOC_WAITERS	_IOW(KLOCK_IOC_MAGIC, 0x32, struct klock_ioc_list)

#endif /* _LINUX_KLOCK_H */
