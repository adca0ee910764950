// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What makes, changes and removes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "klockctl.h"

/* The handle of the lock that a command is about, in a space that may be written. */
static int open_lock(const char *text, struct klock_space **space, struct klock **lock)
{
	uint32_t id;
	int ret;

	if (!parse_id(text, &id))
		return -EINVAL;
	ret = open_space(0, space);
	return ret ? ret : get_lock(*space, id, lock);
}

static int allocate(struct klock_space *space, struct klock **lock)
{
	int ret = opt.has_id ? klock_allocate_id(space, opt.id, lock) :
			       klock_allocate(space, lock);

	if (ret == -ENOSPC)
		complain("%s: all locks are allocated (klockctl free, or klockctl resize)",
			 space_name());
	else if (ret == -EEXIST)
		complain("lock %" PRIu32 " of %s is allocated already", opt.id, space_name());
	else if (ret == -EINVAL)
		complain("%s has no lock %" PRIu32, space_name(), opt.id);
	else if (ret)
		failed(space_name(), ret);
	return ret;
}

/* Without --space as the library: the caller's "default" is made if need be. */
int cmd_allocate(int argc, char **argv)
{
	struct klock_space *space;
	struct klock *lock;

	(void)argc;
	(void)argv;
	if (open_space(opt.space ? 0 : KLOCK_CREATE, &space) || allocate(space, &lock))
		return EXIT_FAILURE;
	printf("%" PRIu32 "\n", klock_id(lock));
	return EXIT_SUCCESS;
}

int cmd_free(int argc, char **argv)
{
	struct klock_space *space;
	struct klock *lock;
	int ret;

	(void)argc;
	if (open_lock(argv[0], &space, &lock))
		return EXIT_FAILURE;
	ret = klock_free(lock);
	if (ret == -ENOENT)
		complain("lock %s of %s is not allocated", argv[0], space_name());
	else if (ret)
		failed(space_name(), ret);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

int cmd_free_all(int argc, char **argv)
{
	struct klock_space_info info;
	struct klock_space *space;
	int ret;

	(void)argc;
	(void)argv;
	if (open_space(0, &space) || get_info(space, &info))
		return EXIT_FAILURE;
	if (!confirmed("free all %" PRIu32 " locks that are allocated in %s?", info.allocated,
		       space_name()))
		return EXIT_FAILURE;
	ret = klock_free_all(space);
	return ret ? failed(space_name(), ret) : EXIT_SUCCESS;
}

int cmd_create(int argc, char **argv)
{
	struct klock_space *space;

	(void)argc;
	(void)argv;
	return open_space(KLOCK_CREATE | KLOCK_EXCL, &space) ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* What the caller may know of the space; zeroes if nothing. */
static struct klock_space_info known_info(void)
{
	struct klock_space_info info = { .clients = 0 };
	struct klock_space *space;

	if (!klock_space_open(space_name(), KLOCK_READONLY, NULL, &space)) {
		klock_space_info(space, &info);
		klock_space_close(space);
	}
	return info;
}

/* How many use it is told if the caller may know. */
static void explain_busy(void)
{
	struct klock_space_info info = known_info();

	if (info.clients < 2) {
		complain("%s: it was in use; try again", space_name());
		return;
	}
	complain("%s: in use by %" PRIu32 " client%s", space_name(), info.clients - 1,
		 info.clients > 2 ? "s" : "");
	complain("list --held shows who holds locks; end them, or remove it with --force");
}

/* What goes with it is told if the caller may know; what cannot be removed is not asked about. */
static bool remove_confirmed(void)
{
	struct klock_space_info info = known_info();

	if (!info.allocated && !opt.force)
		return true;
	return confirmed("remove %s%s, and free %" PRIu32 " lock%s?", space_name(),
			 opt.force ? " though it may be in use" : "", info.allocated,
			 info.allocated == 1 ? "" : "s");
}

int cmd_remove(int argc, char **argv)
{
	unsigned int flags = opt.force ? KLOCK_FORCE : 0;
	int ret;

	(void)argc;
	(void)argv;
	if (!remove_confirmed())
		return EXIT_FAILURE;
	ret = klock_space_remove(space_name(), flags);
	if (ret == -EBUSY)
		explain_busy();
	else if (ret == -EACCES && can_open_device())
		complain("%s: only its owner removes a space", space_name());
	else if (ret)
		explain_no_space(ret);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The last lock is what keeps a space from shrinking. */
static void explain_no_shrinking(struct klock_space *space, uint32_t capacity)
{
	const struct klock_status *last;
	struct locks locks;

	if (read_locks(space, &locks))
		return;
	while (locks.n && !(locks.status[locks.n - 1].flags & (KLOCK_ALLOCATED | KLOCK_HELD)) &&
	       !locks.status[locks.n - 1].waiters)
		locks.n--;
	last = &locks.status[locks.n - 1];
	if (locks.n && last->id >= capacity) {
		complain("%s: lock %" PRIu32 " is %s", space_name(), last->id,
			 last->flags & KLOCK_HELD ? "held" :
			 last->waiters ? "waited for" : "allocated");
		complain("free it, or see who has it: klockctl why %" PRIu32, last->id);
	} else {
		complain("%s: it was in use; try again", space_name());
	}
	free(locks.status);
}

int cmd_resize(int argc, char **argv)
{
	struct klock_space *space;
	uint32_t capacity;
	int ret;

	(void)argc;
	if (!parse_number(argv[0], UINT32_MAX, &capacity)) {
		complain("%s: not a number of locks", argv[0]);
		return EXIT_FAILURE;
	}
	if (open_space(0, &space))
		return EXIT_FAILURE;
	ret = klock_space_resize(space, capacity);
	if (ret == -EBUSY)
		explain_no_shrinking(space, capacity);
	else if (ret == -EACCES)
		complain("%s: only its owner changes the size of a space", space_name());
	else if (ret == -EINVAL)
		complain("%s: a space has 1 lock at least, and at most 1048576 or %s", argv[0],
			 "what /sys/module/klock/parameters/max_capacity says");
	else if (ret)
		explain_no_space(ret);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* What the caller is about to take from whom. */
static void tell_holder(const struct klock_status *status)
{
	printf("lock %" PRIu32 " of %s is held by %s", status->id, space_name(),
	       process_text(status->pid));
	if (status->tid && status->tid != status->pid)
		printf(", thread %" PRIu32, status->tid);
	if (status->held_since)
		printf(", for at least %s", duration(ns_since(status->held_since)));
	printf("; %" PRIu32 " wait%s for it\n", status->waiters, status->waiters == 1 ? "s" : "");
}

/* The token makes sure that only the one who was shown loses it. */
static int break_lock(struct klock_space *space, const struct klock_status *status)
{
	int ret;

	tell_holder(status);
	if (!confirmed("break it?"))
		return EXIT_FAILURE;
	ret = klock_break(space, status->id, status->token);
	if (ret == -EAGAIN)
		complain("another holds it by now: nothing is broken");
	else if (ret == -ENOENT)
		complain("nobody holds it any more: nothing is broken");
	else if (ret == -EACCES)
		complain("%s: only its owner breaks locks of a space", space_name());
	else if (ret)
		failed(space_name(), ret);
	else
		puts("it is broken: the next holder is told that the last one died\n"
		     "(which may still run, and believe that it has the lock)");
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

int cmd_break(int argc, char **argv)
{
	struct klock_status status;
	struct klock_space *space;
	struct klock *lock;
	int ret;

	(void)argc;
	if (open_lock(argv[0], &space, &lock))
		return EXIT_FAILURE;
	ret = klock_status(lock, &status);
	if (ret)
		return failed(space_name(), ret);
	if (status.flags & KLOCK_HELD)
		return break_lock(space, &status);
	complain("nobody holds lock %" PRIu32 " of %s%s: nothing is broken", status.id,
		 space_name(), status.flags & KLOCK_DIED ? ", its last holder died" : "");
	return EXIT_FAILURE;
}
