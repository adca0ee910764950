// SPDX-License-Identifier: LGPL-2.1-or-later
/* The numbers of locks: allocated, freed, and handles on them. */
#include <errno.h>

#include "internal.h"

/*
 * Handles that nobody has, under a lock of their own: a list, and what is left of a
 * chunk.  A child, of fork(), too, may start between any two stores to these: fork()
 * does not wait for the lock, so that it may be called in a signal handler at any
 * moment, and who is forking keeps nobody from getting a handle.
 */
static struct klock *_Atomic free_handles;
static struct klock *_Atomic fresh, *_Atomic fresh_end;

static struct klock *get_handle(void)
{
	struct klock *lock = free_handles;
	struct klock__process *chunk;

	if (lock) {
		free_handles = klock__rest(lock)->next;
		return lock;
	}
	if (!fresh || fresh == fresh_end) {
		chunk = fresh_end ? klock__alloc_chunk() : klock__process;
		if (!chunk)
			return NULL;
		fresh = NULL;
		fresh_end = chunk->handles + sizeof(chunk->handles) / sizeof(*chunk->handles);
		fresh = chunk->handles;
	}
	return fresh++;
}

/* In a space that the process has attached: lets it be locked without the kernel, if it may. */
void klock__map_handle(struct klock *lock)
{
	const struct klock__rest *rest = klock__rest(lock);

	if (!rest->space->words)
		return;
	atomic_store_explicit(&lock->token, rest->space->token, memory_order_relaxed);
	atomic_store_explicit(&lock->word, &rest->space->words[rest->id], memory_order_release);
}

static struct klock *new_handle(struct klock_space *space)
{
	struct klock *lock;

	klock__lock(&klock__process->handles_lock);
	lock = get_handle();
	klock__unlock(&klock__process->handles_lock);
	if (lock)
		klock__rest(lock)->space = space;
	return lock;
}

static struct klock *set_id(struct klock *lock, uint32_t id)
{
	klock__rest(lock)->id = id;
	klock__map_handle(lock);
	return lock;
}

/* The memory comes first: a lock that is allocated must be told of. */
static int allocate(struct klock_space *space, struct klock_ioc_allocate *allocate,
		    struct klock **lock)
{
	struct klock *new = new_handle(space);
	int ret;

	if (!new)
		return -ENOMEM;
	ret = klock__call(space, KLOCK_IOC_ALLOCATE, allocate);
	if (ret < 0) {
		klock_put(new);
		return ret;
	}
	*lock = set_id(new, ret);
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
	new = new_handle(space);
	if (!new)
		return -ENOMEM;
	*lock = set_id(new, id);
	return 0;
}

int klock_free(struct klock *lock)
{
	struct klock_ioc_id free = { .id = klock_id(lock) };

	return klock__call(klock__rest(lock)->space, KLOCK_IOC_FREE, &free);
}

int klock_free_all(struct klock_space *space)
{
	struct klock_ioc_id all = { .id = 0 };

	return klock__call(space, KLOCK_IOC_FREE_ALL, &all);
}

void klock_put(struct klock *lock)
{
	if (!lock)
		return;
	klock__lock(&klock__process->handles_lock);
	atomic_store_explicit(&lock->word, NULL, memory_order_relaxed);
	atomic_store_explicit(&lock->spin, 0, memory_order_relaxed);
	klock__rest(lock)->next = free_handles;
	free_handles = lock;
	klock__unlock(&klock__process->handles_lock);
}

uint32_t klock_id(const struct klock *lock)
{
	return klock__rest(lock)->id;
}
