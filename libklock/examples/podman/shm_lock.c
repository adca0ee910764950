// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Podman's locks as klocks: what its libpod/lock/shm/shm_lock.h declares, over libklock.
 * Podman is built with this file in place of its own shm_lock.c, and linked to libklock;
 * nothing else of it is changed.  Documentation/podman.rst tells how, and what it gains.
 *
 * The space has the name of Podman's lock path, and a lock's number is that of Podman's
 * semaphore.  The file at that path, where shared memory was, notes the generation of the
 * space.  So locks that are not those of Podman's database are -ERANGE, as locks that do not
 * fit always were: another space (the module was reloaded, the space removed, but /dev/shm
 * is what it was), and also shared memory of a Podman that is built otherwise, which says
 * the same of this file.  Then all commands fail until the file is removed and all get new
 * numbers, which `podman system renumber` does by itself since Podman 4.9.  A file that was lost
 * while its space is still there is written again: nobody's locks are lost with it.
 *
 * The process holds a lock, not its thread: another thread that locks it waits, as does the
 * same one, and any may unlock it.  A holder that died is taken as Podman always did: it looks
 * at the container's state anyway after it has locked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <klock.h>

#include "shm_lock.h"

/*
 * Handles are made when they are needed first, and kept.  What Podman has a pointer to is
 * the last of it; it reads num_locks there, and no more.
 */
struct handle {
	struct klock *_Atomic lock;
};

struct segment {
	struct klock_space *space;
	struct handle *handles;
	shm_struct_t shm;
};

static struct segment *segment_of(shm_struct_t *shm)
{
	return (struct segment *)((char *)shm - offsetof(struct segment, shm));
}

/* What is noted at the lock path of a space.  It begins with Podman's magic number. */
static uint64_t note_of(const struct klock_space_info *info)
{
	uint64_t note = info->generation;
	uint16_t magic = MAGIC;

	memcpy(&note, &magic, sizeof(magic));
	return note;
}

/* 0: nothing is noted at @path, or it was never written to its end. */
static uint64_t read_note(const char *path)
{
	uint64_t note = 0;
	int fd = shm_open(path, O_RDONLY, 0);

	if (fd < 0)
		return 0;
	if (read(fd, &note, sizeof(note)) != sizeof(note))
		note = 0;
	close(fd);
	return note;
}

static int write_note(const char *path, uint64_t note)
{
	int fd = shm_open(path, O_WRONLY | O_CREAT, 0600);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, &note, sizeof(note)) != sizeof(note))
		ret = -EIO;
	close(fd);
	return ret;
}

/* What Podman counts on; 0 (which is -EINVAL) for none, and for more than there are numbers. */
static uint32_t rounded(uint32_t num_locks)
{
	return num_locks + (-num_locks & (BITMAP_SIZE - 1));
}

/*
 * num_locks may have been changed since the space was made, and containers may run.  It
 * cannot become less than what is in use; that is -ERANGE, as any change was.
 */
static int fit(struct segment *segment, uint32_t capacity)
{
	int ret = klock_space_resize(segment->space, capacity);

	return ret == -EBUSY ? -ERANGE : ret;
}

/* Opens the space of @path, with or without KLOCK_CREATE. */
static struct segment *open_segment(const char *path, uint32_t capacity, unsigned int flags,
				    struct klock_space_info *info, int *ret)
{
	struct klock_space_attr attr = { .capacity = capacity };
	struct segment *segment = calloc(1, sizeof(*segment));

	*ret = segment ? -EINVAL : -ENOMEM;
	if (!segment)
		return NULL;
	if (*path == '/' && capacity)
		*ret = klock_space_open(path + 1, flags, &attr, &segment->space);
	if (!*ret)
		*ret = klock_space_info(segment->space, info);
	if (*ret) {
		klock_space_close(segment->space);
		free(segment);
		return NULL;
	}
	return segment;
}

/* The locks are good: Podman gets them, or, if @ret says so, not. */
static shm_struct_t *give(struct segment *segment, uint32_t capacity, int ret, int *error_code)
{
	if (!ret) {
		segment->handles = calloc(capacity, sizeof(*segment->handles));
		ret = segment->handles ? 0 : -ENOMEM;
	}
	if (ret) {
		*error_code = ret;
		klock_space_close(segment->space);
		free(segment);
		return NULL;
	}
	segment->shm.magic = MAGIC;
	segment->shm.num_locks = capacity;
	segment->shm.num_bitmaps = capacity / BITMAP_SIZE;
	return &segment->shm;
}

/*
 * Podman calls this when there are no locks (-ENOENT below), or when it has removed the
 * file to renumber them all.  Then the space is still there, and may be larger than
 * @num_locks until that is done.
 */
shm_struct_t *setup_lock_shm(char *path, uint32_t num_locks, int *error_code)
{
	uint32_t capacity = rounded(num_locks);
	struct klock_space_info info;
	struct segment *segment;
	int ret;

	if (read_note(path)) {
		*error_code = -EEXIST;
		return NULL;
	}
	segment = open_segment(path, capacity, KLOCK_CREATE, &info, error_code);
	if (!segment)
		return NULL;
	if (info.capacity > capacity)
		capacity = info.capacity;
	ret = info.capacity < capacity ? fit(segment, capacity) : 0;
	if (!ret)
		ret = write_note(path, note_of(&info));
	return give(segment, capacity, ret, error_code);
}

shm_struct_t *open_lock_shm(char *path, uint32_t num_locks, int *error_code)
{
	uint32_t capacity = rounded(num_locks);
	uint64_t note = read_note(path);
	struct klock_space_info info;
	struct segment *segment;
	int ret = 0;

	segment = open_segment(path, capacity, 0, &info, error_code);
	if (!segment) {
		if (*error_code == -ENOENT && note)
			*error_code = -ERANGE;
		return NULL;
	}
	if (note && note != note_of(&info))
		ret = -ERANGE;
	if (!ret && info.capacity != capacity)
		ret = fit(segment, capacity);
	if (!ret && !note)
		ret = write_note(path, note_of(&info));
	return give(segment, capacity, ret, error_code);
}

int32_t close_lock_shm(shm_struct_t *shm)
{
	struct segment *segment = segment_of(shm);
	uint32_t id;

	for (id = 0; id < shm->num_locks; id++)
		klock_put(segment->handles[id].lock);
	klock_space_close(segment->space);
	free(segment->handles);
	free(segment);
	return 0;
}

/* Keeps a handle, unless another thread was faster; the one that is kept. */
static struct klock *keep(struct segment *segment, struct klock *new)
{
	struct klock *kept = NULL;

	if (atomic_compare_exchange_strong(&segment->handles[klock_id(new)].lock, &kept, new))
		return new;
	klock_put(new);
	return kept;
}

/* Another process may have more locks by now than this one can tell Podman of. */
int64_t allocate_semaphore(shm_struct_t *shm)
{
	struct segment *segment = segment_of(shm);
	struct klock *lock;
	int ret = klock_allocate(segment->space, &lock);

	if (ret)
		return ret;
	if (klock_id(lock) < shm->num_locks)
		return klock_id(keep(segment, lock));
	klock_free(lock);
	klock_put(lock);
	return -ENOSPC;
}

int32_t allocate_given_semaphore(shm_struct_t *shm, uint32_t sem_index)
{
	struct segment *segment = segment_of(shm);
	struct klock *lock;
	int ret;

	if (sem_index >= shm->num_locks)
		return -EINVAL;
	ret = klock_allocate_id(segment->space, sem_index, &lock);
	if (!ret)
		keep(segment, lock);
	return ret;
}

/* Does something to a lock, whether it is allocated or not. */
static int32_t with_lock(shm_struct_t *shm, uint32_t sem_index, int (*call)(struct klock *lock))
{
	struct segment *segment = segment_of(shm);
	struct klock *lock;
	int ret;

	if (sem_index >= shm->num_locks)
		return -EINVAL;
	lock = segment->handles[sem_index].lock;
	if (!lock) {
		ret = klock_retrieve(segment->space, sem_index, 0, &lock);
		if (ret)
			return ret;
		lock = keep(segment, lock);
	}
	return call(lock);
}

static int take(struct klock *lock)
{
	int ret = klock_lock(lock);

	return ret == KLOCK_OWNER_DIED ? 0 : ret;
}

static int is_free(struct klock *lock)
{
	struct klock_status status;
	int ret = klock_status(lock, &status);

	return ret ? ret : !(status.flags & KLOCK_HELD);
}

int32_t deallocate_semaphore(shm_struct_t *shm, uint32_t sem_index)
{
	return with_lock(shm, sem_index, klock_free);
}

int32_t deallocate_all_semaphores(shm_struct_t *shm)
{
	return klock_free_all(segment_of(shm)->space);
}

int32_t lock_semaphore(shm_struct_t *shm, uint32_t sem_index)
{
	return with_lock(shm, sem_index, take);
}

int32_t unlock_semaphore(shm_struct_t *shm, uint32_t sem_index)
{
	return with_lock(shm, sem_index, klock_unlock);
}

/* Since Podman 4.6, which declares these two. */
int64_t available_locks(shm_struct_t *shm)
{
	struct klock_space_info info;
	int ret = klock_space_info(segment_of(shm)->space, &info);

	return ret ? ret : (int64_t)info.capacity - info.allocated;
}

/*
 * 1: nobody has it, 0: somebody does.  Podman's own takes it and lets go of it at once; who
 * only looks is in nobody's way, and learns no death that the next holder is to be told of.
 */
int32_t try_lock(shm_struct_t *shm, uint32_t sem_index)
{
	return with_lock(shm, sem_index, is_free);
}
