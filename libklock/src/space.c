// SPDX-License-Identifier: LGPL-2.1-or-later
/* Spaces: opened, attached anew in a child, closed, described, changed, listed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"

/* Information goes straight from the kernel to the caller. */
#define SAME(theirs, ours)								\
	static_assert(offsetof(struct klock_ioc_info, theirs) ==			\
		       offsetof(struct klock_space_info, ours) &&			\
		       sizeof(((struct klock_ioc_info *)0)->theirs) ==			\
		       sizeof(((struct klock_space_info *)0)->ours), #ours)
SAME(capacity, capacity);
SAME(allocated, allocated);
SAME(held, held);
SAME(waiting, waiting);
SAME(clients, clients);
SAME(uid, uid);
SAME(gid, gid);
SAME(mode, mode);
SAME(flags, flags);
SAME(reserved, reserved);
SAME(generation, generation);
SAME(passed, passed);
SAME(max_passed, max_passed);
SAME(waits, waits);
SAME(waited, waited);
SAME(longest_wait, longest_wait);
SAME(deaths, deaths);
SAME(reserved2, reserved2);
SAME(name, name);
static_assert(sizeof(struct klock_ioc_info) == sizeof(struct klock_space_info), "info");
static_assert(KLOCK_MAPPABLE == KLOCK_SPACE_MAPPABLE, "MAPPABLE");
static_assert(KLOCK_REMOVED == KLOCK_SPACE_REMOVED, "REMOVED");

/*
 * Takes NAME, UID/NAME or NULL to pieces: 1 if there is a UID, else 0.  What NAME is
 * made of is judged by the kernel.
 */
static int parse_name(const char *name, uint32_t *uid, char buf[KLOCK_NAME_SIZE])
{
	const char *slash;
	uint64_t value = 0;
	size_t size;

	if (!name)
		name = "default";
	slash = strchr(name, '/');
	if (slash == name)
		return -EINVAL;
	for (; slash && name < slash; name++) {
		if (*name < '0' || *name > '9')
			return -EINVAL;
		value = value * 10 + (*name - '0');
		if (value >= UINT32_MAX)
			return -EINVAL;
	}
	if (slash)
		name++;
	size = strlen(name) + 1;
	if (size > KLOCK_NAME_SIZE)
		return -EINVAL;
	memcpy(buf, name, size);
	*uid = value;
	return !!slash;
}

static uint32_t attach_flags(unsigned int flags)
{
	return (flags & KLOCK_CREATE ? KLOCK_ATTACH_CREATE : 0) |
	       (flags & KLOCK_EXCL ? KLOCK_ATTACH_EXCL : 0) |
	       (flags & KLOCK_ERRORCHECK ? KLOCK_ATTACH_ERRORCHECK : 0) |
	       (flags & KLOCK_READONLY ? KLOCK_ATTACH_READONLY : 0);
}

static int fill_attach(struct klock_ioc_attach *attach, const char *name, unsigned int flags,
		       const struct klock_space_attr *attr)
{
	static const struct klock_space_attr defaults;
	int ret;

	if (flags & ~(KLOCK_CREATE | KLOCK_EXCL | KLOCK_ERRORCHECK | KLOCK_NO_FASTPATH |
		      KLOCK_READONLY))
		return -EINVAL;
	if (flags & KLOCK_EXCL && !(flags & KLOCK_CREATE))
		return -EINVAL;
	if (!name)
		flags |= KLOCK_CREATE;
	if (!attr || !(flags & KLOCK_CREATE))
		attr = &defaults;
	if (attr->flags & ~KLOCK_MAPPABLE ||
	    memcmp(attr->reserved, defaults.reserved, sizeof(attr->reserved)))
		return -EINVAL;

	memset(attach, 0, sizeof(*attach));
	ret = parse_name(name, &attach->uid, attach->name);
	if (ret < 0)
		return ret;
	attach->flags = attach_flags(flags) | (ret ? KLOCK_ATTACH_UID : 0);
	attach->capacity = attr->capacity;
	attach->mode = attr->mode;
	attach->space_flags = attr->flags;
	return 0;
}

/*
 * A space of this process that is not attached yet, in the list: a child that is forked
 * now drops its descriptors.  One more is kept free for the space descriptor, as attaching
 * may make a space, and cannot be undone.  Between klock__enter() and klock__leave().
 */
static int begin_space(struct klock_space *space)
{
	int saved = errno, ret = 0;
	struct stat st;

	space->fd = klock__open_device();
	if (space->fd < 0)
		return space->fd;
	space->space_fd = fcntl(space->fd, F_DUPFD_CLOEXEC, 0);
	if (space->space_fd < 0) {
		ret = -errno;
		errno = saved;
		klock__close(space->fd);
		return ret;
	}
	fstat(space->fd, &st);		/* cannot fail: the descriptor is good */
	space->dev = st.st_dev;
	space->ino = st.st_ino;
	klock__add(space);
	return 0;
}

/* It is attached, with @ret as the result.  Between klock__enter() and klock__leave(). */
static int end_space(struct klock_space *space, int ret)
{
	struct klock_ioc_space_fd own = { 0 };

	klock__close(space->space_fd);
	if (ret >= 0) {
		atomic_store_explicit(&space->capacity, ret, memory_order_relaxed);
		ret = klock__ioctl(space->fd, KLOCK_IOC_SPACE_FD, &own);
	}
	if (ret < 0) {
		klock__del(space);
		klock__close(space->fd);
		return ret;
	}
	klock__forget_space_fd(ret);
	space->space_fd = ret;
	space->token = own.token;
	/* A space that cannot be mapped, for whatever reason, is used by ioctls. */
	space->words = space->by_ioctl ? NULL : klock__mmap(ret);
	atomic_store_explicit(&space->epoch, klock__epoch(), memory_order_release);
	return 0;
}

/*
 * Makes the client of a space in this process.  Attaching may take as long as another user
 * of the space likes, so fork() and other spaces do not wait for it: it is done between two
 * klock__enter() and klock__leave(), of which the last is left to the caller.
 */
static int connect_space(struct klock_space *space, struct klock_ioc_attach *attach)
{
	int ret;

	klock__enter();
	ret = begin_space(space);
	if (ret)
		return ret;
	klock__leave();
	ret = klock__ioctl(space->fd, KLOCK_IOC_ATTACH, attach);
	klock__enter();
	return end_space(space, ret);
}

static void disconnect_space(struct klock_space *space)
{
	if (space->words)
		klock__munmap(space->words);
	klock__close(space->fd);
	klock__close(space->space_fd);
}

/* What counts of @from is @to's from now on.  Between klock__enter() and klock__leave(). */
static void move_space(struct klock_space *to, struct klock_space *from)
{
	klock__del(from);
	klock__close(to->space_fd);
	to->words = from->words;
	to->token = from->token;
	to->fd = from->fd;
	to->space_fd = from->space_fd;
	to->dev = from->dev;
	to->ino = from->ino;
	atomic_store_explicit(&to->capacity, from->capacity, memory_order_relaxed);
	atomic_store_explicit(&to->epoch, from->epoch, memory_order_release);
}

/*
 * The first use of a space in a child.  The number of the descriptor that was
 * inherited may by now be that of another file, even of another space: one that got
 * it while this thread attached has told so by klock__forget_space_fd().  If another
 * thread has been faster, what this one has come to does not matter.
 */
int klock__reattach(struct klock_space *space)
{
	struct klock_ioc_attach attach = { .flags = KLOCK_ATTACH_FD | space->attach_flags };
	struct klock_space *made;
	bool attached;
	int ret;

	klock__enter();
	attached = klock__is_attached(space);
	attach.space_fd = space->space_fd;
	klock__leave();
	if (attached)
		return 0;
	made = klock__alloc(sizeof(*made));	/* a child may meet it, in the list */
	if (!made)
		return -ENOMEM;
	made->by_ioctl = space->by_ioctl;
	ret = connect_space(made, &attach);
	attached = klock__is_attached(space);
	if (!ret && !attached && space->space_fd == attach.space_fd) {
		move_space(space, made);
	} else if (!ret) {
		klock__del(made);
		disconnect_space(made);
		ret = -EBADF;
	}
	klock__leave();
	free(made);
	if (attached)
		return 0;
	return ret == -EINVAL ? -EBADF : ret;
}

int klock_space_open(const char *name, unsigned int flags, const struct klock_space_attr *attr,
		     struct klock_space **space)
{
	struct klock_ioc_attach attach;
	struct klock_space *new;
	int ret;

	ret = fill_attach(&attach, name, flags, attr);
	if (!ret)
		ret = klock__init();
	if (ret)
		return ret;
	new = klock__alloc(sizeof(*new));
	if (!new)
		return -ENOMEM;
	new->attach_flags = attach.flags & (KLOCK_ATTACH_ERRORCHECK | KLOCK_ATTACH_READONLY);
	new->by_ioctl = flags & (KLOCK_ERRORCHECK | KLOCK_NO_FASTPATH | KLOCK_READONLY);

	ret = connect_space(new, &attach);
	klock__leave();
	if (ret) {
		free(new);
		return ret;
	}
	*space = new;
	return 0;
}

void klock_space_close(struct klock_space *space)
{
	if (!space)
		return;
	klock__fd(space);	/* in a child: of what numbers can it be sure? */
	klock__enter();
	klock__del(space);
	if (klock__is_attached(space))
		disconnect_space(space);
	klock__leave();
	free(space);
}

int klock_space_fd(const struct klock_space *space)
{
	if (klock__is_attached(space))
		return space->fd;
	klock__enter();		/* drops the parent's, if fork() has not done so */
	klock__leave();
	return -EBADF;
}

int klock_space_info(struct klock_space *space, struct klock_space_info *info)
{
	int ret = klock__call(space, KLOCK_IOC_INFO, info);

	if (!ret)
		atomic_store_explicit(&space->capacity, info->capacity, memory_order_relaxed);
	return ret;
}

int klock_space_resize(struct klock_space *space, uint32_t capacity)
{
	struct klock_ioc_resize resize = { .capacity = capacity };
	int ret = klock__call(space, KLOCK_IOC_RESIZE, &resize);

	if (!ret)
		atomic_store_explicit(&space->capacity, capacity, memory_order_relaxed);
	return ret;
}

/* A call that needs no space. */
static int call_device(unsigned long number, void *arg)
{
	int fd = klock__open_device();
	int ret;

	if (fd < 0)
		return fd;
	ret = klock__ioctl(fd, number, arg);
	klock__close(fd);
	return ret;
}

int klock_space_remove(const char *name, unsigned int flags)
{
	struct klock_ioc_remove remove = {
		.flags = flags & KLOCK_FORCE ? KLOCK_REMOVE_FORCE : 0,
	};
	int ret;

	if (flags & ~KLOCK_FORCE)
		return -EINVAL;
	ret = parse_name(name, &remove.uid, remove.name);
	if (ret < 0)
		return ret;
	if (ret)
		remove.flags |= KLOCK_REMOVE_UID;
	return call_device(KLOCK_IOC_REMOVE, &remove);
}

int klock_space_list(const struct klock_space_info *after, struct klock_space_info *info,
		     uint32_t n)
{
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)info,
		.count = n,
		.entry_size = sizeof(*info),
	};
	size_t size;

	if (after) {
		size = strnlen(after->name, sizeof(after->name));
		if (size == 0 || size == sizeof(after->name))
			return -EINVAL;
		spaces.after_uid = after->uid;
		memcpy(spaces.after_name, after->name, size);
	}
	return call_device(KLOCK_IOC_LIST_SPACES, &spaces);
}
