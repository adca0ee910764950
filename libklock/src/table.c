// SPDX-License-Identifier: LGPL-2.1-or-later
/* The numbers of locks: allocated, freed, and handles on them. */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

static struct klock *new_handle(struct klock_space *space, uint32_t id)
{
	struct klock *lock = klock__alloc(sizeof(*lock));

	if (lock) {
		lock->map = space->map;
		lock->space = space;
		lock->id = id;
	}
	return lock;
}

/* The memory comes first: a lock that is allocated must be told of. */
static int allocate(struct klock_space *space, struct klock_ioc_allocate *allocate,
		    struct klock **lock)
{
	struct klock *new = new_handle(space, 0);
	int ret;

	if (!new)
		return -ENOMEM;
	ret = klock__call(space, KLOCK_IOC_ALLOCATE, allocate);
	if (ret < 0) {
		free(new);
		return ret;
	}
	new->id = ret;
	*lock = new;
	return 0;
}

int klock_allocate(struct klock_space *space, struct klock **lock)
{
	struct klock_ioc_allocate lowest = { .flags = 0 };

	return allocate(space, &lowest, lock);
}

int klock_allocate_id(struct klock_space *space, uint32_t id, struct klock **lock)
{
	struct klock_ioc_allocate wanted = { .flags = KLOCK_ALLOCATE_ID, .id = id };

	return allocate(space, &wanted, lock);
}

/* The kernel is asked only for what this client has not seen: the space may have grown. */
static int check_capacity(struct klock_space *space, uint32_t id)
{
	struct klock_space_info info;
	int ret;

	if (id < atomic_load_explicit(&space->capacity, memory_order_relaxed))
		return 0;
	ret = klock_space_info(space, &info);
	if (ret)
		return ret;
	return id < info.capacity ? 0 : -EINVAL;
}

int klock_retrieve(struct klock_space *space, uint32_t id, unsigned int flags, struct klock **lock)
{
	struct klock_ioc_id retrieve = { .id = id, .flags = KLOCK_RETRIEVE_MUST_EXIST };
	struct klock *new;
	int ret;

	if (flags & ~KLOCK_MUST_EXIST)
		return -EINVAL;
	ret = klock__fd(space);		/* no system call, but for the first use in a child */
	if (ret < 0)
		return ret;
	if (flags & KLOCK_MUST_EXIST)
		ret = klock__ioctl(ret, KLOCK_IOC_RETRIEVE, &retrieve);
	else
		ret = check_capacity(space, id);
	if (ret)
		return ret;
	new = new_handle(space, id);
	if (!new)
		return -ENOMEM;
	*lock = new;
	return 0;
}

int klock_free(struct klock *lock)
{
	struct klock_ioc_id free = { .id = lock->id };

	return klock__call(lock->space, KLOCK_IOC_FREE, &free);
}

int klock_free_all(struct klock_space *space)
{
	struct klock_ioc_id all = { .id = 0 };

	return klock__call(space, KLOCK_IOC_FREE_ALL, &all);
}

void klock_put(struct klock *lock)
{
	free(lock);
}

uint32_t klock_id(const struct klock *lock)
{
	return lock->id;
}
