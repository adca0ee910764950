// SPDX-License-Identifier: LGPL-2.1-or-later
/* Locks taken and released. */
#include <errno.h>

#include "internal.h"

#define NSEC_PER_SEC 1000000000

static int take(struct klock *lock, uint32_t flags, uint64_t deadline)
{
	struct klock_ioc_lock take = { .id = lock->id, .flags = flags, .deadline = deadline };

	return klock__call(lock->space, KLOCK_IOC_LOCK, &take);
}

/* In ns; what is before or after all that the kernel knows is the first or the last of it. */
static uint64_t to_ns(const struct timespec *time)
{
	if (time->tv_sec < 0)
		return 0;
	if (time->tv_sec >= INT64_MAX / NSEC_PER_SEC)
		return INT64_MAX;
	return (uint64_t)time->tv_sec * NSEC_PER_SEC + time->tv_nsec;
}

int klock_lock(struct klock *lock)
{
	return take(lock, 0, 0);
}

int klock_trylock(struct klock *lock)
{
	return take(lock, KLOCK_LOCK_TRY, 0);
}

int klock_lock_until(struct klock *lock, clockid_t clock, const struct timespec *deadline)
{
	uint32_t flags = KLOCK_LOCK_DEADLINE;

	if (clock == CLOCK_REALTIME)
		flags |= KLOCK_LOCK_REALTIME;
	else if (clock != CLOCK_MONOTONIC)
		return -EINVAL;
	if (!deadline || deadline->tv_nsec < 0 || deadline->tv_nsec >= NSEC_PER_SEC)
		return -EINVAL;
	return take(lock, flags, to_ns(deadline));
}

int klock_unlock(struct klock *lock)
{
	struct klock_ioc_id unlock = { .id = lock->id };

	return klock__call(lock->space, KLOCK_IOC_UNLOCK, &unlock);
}

int klock_break(struct klock_space *space, uint32_t id, uint32_t token)
{
	struct klock_ioc_break victim = { .id = id, .token = token };

	return klock__call(space, KLOCK_IOC_BREAK, &victim);
}
