// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Calls that fail for want of memory, or because user memory cannot be reached:
 * what fails has changed nothing, and succeeds when it is made again.
 *
 * A kernel that was built for it makes the Nth allocation or user copy of a thread
 * fail (fail-nth), or all of a kind.  So each of a call fails
 * in turn, until the call comes to its end without having met the Nth.  Some that fail
 * are not missed: they were tried first, in a cheaper way, or are the kernel's own,
 * which goes on without.  Then the call succeeds.
 */
#include "klock_test.h"

#include <sys/resource.h>

/*
 * Faults on request
 */

#define FAULT(file)	"/sys/kernel/debug/" file

static int fail_nth, make_it_fail;	/* of the thread of the test */

/* Whether calls can be made to fail; from now on all that could fail does. */
static bool can_fail(void)
{
	if (geteuid() || access("/proc/thread-self/fail-nth", F_OK) ||
	    access(FAULT("fail_usercopy"), F_OK))
		return false;
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	make_it_fail = open("/proc/thread-self/make-it-fail", O_WRONLY | O_CLOEXEC);
	CHECK(fail_nth >= 0 && make_it_fail >= 0);
	CHECK(write_file(FAULT("failslab/ignore-gfp-wait"), "N"));
	CHECK(write_file(FAULT("fail_page_alloc/ignore-gfp-wait"), "N"));
	CHECK(write_file(FAULT("fail_page_alloc/ignore-gfp-highmem"), "N"));
	CHECK(write_file(FAULT("fail_page_alloc/min-order"), "0"));
	CHECK(write_file(FAULT("failslab/verbose"), "0"));
	CHECK(write_file(FAULT("fail_page_alloc/verbose"), "0"));
	CHECK(write_file(FAULT("fail_usercopy/verbose"), "0"));
	return true;
}

/* The @n-th from now on fails, in this thread. */
static void arm(int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", n);

	CHECK(write(fail_nth, text, len) == len);
}

/* How many more it would have taken; 0: it has failed.  It does not any more. */
static int disarm(void)
{
	char text[16] = "";
	int left;

	/* These may be what fails; then it was not before. */
	if (pread(fail_nth, text, sizeof(text) - 1, 0) < 0)
		return 1;
	left = atoi(text);
	if (left && write(fail_nth, "0", 1) < 0)
		CHECK(errno == EFAULT);
	return left;
}

/* What there is too little of, for a thread that asks for that. */
static const struct kind {
	const char *name;
	const char *dir;
	const char *cache_filter;
	int unit;			/* bytes or pages: as large as one, or as some small ones */
} kinds[] = {
	{ "nodes of arrays", FAULT("failslab"), "Y", 576 },
	{ "objects", FAULT("failslab"), "N", 256 },
	{ "pages", FAULT("fail_page_alloc"), "N", 1 },
}, *const pages = &kinds[2];

static void put_fault(const struct kind *kind, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", kind->dir, file);
	CHECK(write_file(path, text));
}

/* From now on there are only so many units left. */
static void leave(const struct kind *kind, int units)
{
	char space[16];

	snprintf(space, sizeof(space), "%d", units * kind->unit + !!units);
	CHECK(write_file("/sys/kernel/slab/radix_tree_node/failslab", "1"));
	CHECK(write_file(FAULT("failslab/cache-filter"), kind->cache_filter));
	put_fault(kind, "space", space);
	put_fault(kind, "task-filter", "Y");
	put_fault(kind, "times", "-1");
	put_fault(kind, "probability", "100");
	CHECK(write(make_it_fail, "1", 1) == 1);
}

static void leave_enough(const struct kind *kind)
{
	CHECK(write(make_it_fail, "0", 1) == 1);
	put_fault(kind, "probability", "0");
	CHECK(write_file(FAULT("failslab/cache-filter"), "N"));
}

/*
 * The state
 */

struct view {
	struct klock_ioc_info space[8];
	struct klock_ioc_status lock[32];
	struct klock_ioc_waiter waiter[8];
	int spaces, locks, waiters;
	int descriptors;		/* of this process */
	long long references;		/* to the module */
	int fits, too_many, too_large;	/* what may be made up to the quota, and beyond */
};

#define CAPACITY	(3 * 512)	/* of the space in which all calls but a few are made */
#define DIED		11	/* locks: of which the holder died */
#define BUSY		12	/* held by another process */
#define BROKEN		13	/* held by the client that looks */
#define MINE		600	/* held by the client that calls, which ... */
#define FREE		1100	/* ... takes this one */
#define PROBE		8	/* capacity */

struct world {
	char name[KLOCK_NAME_SIZE];
	char name2[KLOCK_NAME_SIZE];	/* of a space that one call makes, or that is made for it */
	int watch;			/* client that looks */
	int fd;				/* client that calls */
	int fd2;			/* another, for one call */
	int space_fd;			/* of @watch */
	volatile uint64_t *words;	/* mapped for one call */
	struct agent other;		/* process with a client, @other_fd */
	int other_fd;
	struct agent poor;		/* process to which quotas apply */
	pthread_t thread;
	struct parameter {
		int file;
		long long was;
	} max_spaces, max_locks;
};

/* Makes a space and removes it. */
static int do_probe(struct order *order __attribute__((unused)))
{
	int fd = raw_attach("probe", KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, PROBE);

	if (fd < 0)
		return fd;
	close(fd);
	return raw_remove("probe", 0);
}

static struct parameter open_parameter(const char *path)
{
	struct parameter parameter = {
		.file = open(path, O_WRONLY | O_CLOEXEC),
		.was = get_number(path, ""),
	};

	CHECK(parameter.file >= 0);
	return parameter;
}

static void set_parameter(const struct parameter *parameter, long long value)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%lld", value);

	CHECK(pwrite(parameter->file, text, len, 0) == len);
}

static int probe(const struct world *world, long long max_spaces, long long max_locks)
{
	set_parameter(&world->max_spaces, max_spaces);
	set_parameter(&world->max_locks, max_locks);
	tell(&world->poor, do_probe, -1, 0, NULL, 0);
	return answer(&world->poor, NULL, 0);
}

/* What has been charged is what there is: no more, and no less. */
static void look_at_quota(const struct world *world, struct view *view)
{
	long long locks = 0;
	int i;

	for (i = 0; i < view->spaces; i++)
		locks += view->space[i].capacity;
	view->fits = probe(world, view->spaces + 1, locks + PROBE);
	view->too_many = probe(world, view->spaces, locks + PROBE);
	view->too_large = probe(world, view->spaces + 1, locks + PROBE - 1);
	set_parameter(&world->max_spaces, world->max_spaces.was);
	set_parameter(&world->max_locks, world->max_locks.was);
}

static void look(const struct world *world, struct view *view)
{
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)view->space,
		.entry_size = sizeof(view->space[0]),
		.count = ARRAY_SIZE(view->space),
	};
	struct klock_ioc_list locks = {
		.entries = (uintptr_t)view->lock,
		.entry_size = sizeof(view->lock[0]),
		.count = ARRAY_SIZE(view->lock),
	};
	struct klock_ioc_list waiters = {
		.entries = (uintptr_t)view->waiter,
		.entry_size = sizeof(view->waiter[0]),
		.count = ARRAY_SIZE(view->waiter),
		.id = BUSY,
	};
	int i;

	memset(view, 0, sizeof(*view));
	view->references = get_number("/sys/module/klock/refcnt", "");
	view->descriptors = count_descriptors();
	view->spaces = raw_ioctl(world->watch, KLOCK_IOC_LIST_SPACES, &spaces);
	view->locks = raw_ioctl(world->watch, KLOCK_IOC_LIST, &locks);
	view->waiters = raw_ioctl(world->watch, KLOCK_IOC_WAITERS, &waiters);
	CHECK(view->spaces > 0 && view->locks > 0 && view->waiters >= 0);
	/* These count what happened, each time that a call is prepared or made. */
	for (i = 0; i < view->spaces; i++) {
		view->space[i].waits = 0;
		view->space[i].waited = 0;
		view->space[i].longest_wait = 0;
		view->space[i].deaths = 0;
	}
	look_at_quota(world, view);
}

/* Whether two are the same, with a word on what is not. */
static bool same(const struct view *a, const struct view *b)
{
	static const struct {
		const char *name;
		size_t offset, size;
	} parts[] = {
#define PART(member)	{ #member, offsetof(struct view, member), sizeof(a->member) }
		PART(space), PART(lock), PART(waiter), PART(spaces), PART(locks), PART(waiters),
		PART(descriptors), PART(references), PART(fits), PART(too_many), PART(too_large),
#undef PART
	};
	bool all = true;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!memcmp((char *)a + parts[i].offset, (char *)b + parts[i].offset,
			    parts[i].size))
			continue;
		fprintf(stderr, "# %s: not as before\n", parts[i].name);
		all = false;
	}
	return all;
}

/*
 * The calls: each is made by @call, after @prepare, and taken back by @undo, which
 * also says whether it had done what it must.
 */

static bool open_fd2(struct world *world)
{
	world->fd2 = open("/dev/klock", O_RDWR | O_CLOEXEC);
	return world->fd2 >= 0;
}

static bool close_fd2(struct world *world, int ret __attribute__((unused)))
{
	return close(world->fd2) == 0;
}

static int call_open(struct world *world)
{
	return open_fd2(world) ? 0 : -errno;
}

/* A client with four locks, for one of which another process waits. */
static const uint32_t held[] = { 40, 41, 640, FREE };

static bool lock_held(struct world *world)
{
	bool done = true;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(held); i++)
		done &= raw_lock(world->fd2, held[i], 0, 0) == 0;
	return done;
}

static struct klock_ioc_status watch(const struct world *world, uint32_t id)
{
	struct klock_ioc_status status;

	CHECK(raw_status(world->watch, id, &status) == 0);
	return status;
}

/* Another process waits for one of them, when they are held. */
static bool let_wait(struct world *world)
{
	if (!UNTIL(watch(world, FREE).flags & KLOCK_STATUS_HELD))
		return false;
	tell_lock(&world->other, world->other_fd, FREE);
	return UNTIL(watch(world, FREE).waiters == 1);
}

static bool prepare_close(struct world *world)
{
	world->fd2 = raw_attach(world->name, 0, 0);
	return world->fd2 >= 0 && lock_held(world) && let_wait(world);
}

static int call_close(struct world *world)
{
	return close(world->fd2) ? -errno : 0;
}

/* Each death is told, to the one that waits and to those who come. */
static bool check_released(struct world *world)
{
	unsigned int i;

	if (answer(&world->other, NULL, 0) != 1 || unlock_by(&world->other, world->other_fd, FREE))
		return false;
	for (i = 0; i < ARRAY_SIZE(held); i++) {
		int died = held[i] != FREE;	/* that one has told it */

		if (raw_lock(world->fd, held[i], KLOCK_LOCK_TRY, 0) != died ||
		    raw_unlock(world->fd, held[i]))
			return false;
	}
	return true;
}

static bool undo_close(struct world *world, int ret)
{
	return ret == 0 && check_released(world);
}

static int call_get_api(struct world *world)
{
	struct klock_ioc_api api;

	return raw_ioctl(world->fd, KLOCK_IOC_GET_API, &api);
}

static int call_attach(struct world *world)
{
	struct klock_ioc_attach attach = { .flags = 0 };

	strcpy(attach.name, world->name);
	return raw_ioctl(world->fd2, KLOCK_IOC_ATTACH, &attach);
}

static bool undo_attach(struct world *world, int ret)
{
	return ret == CAPACITY && close(world->fd2) == 0;
}

static int call_attach_fd(struct world *world)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_FD | KLOCK_ATTACH_READONLY,
		.space_fd = world->space_fd,
	};

	return raw_ioctl(world->fd2, KLOCK_IOC_ATTACH, &attach);
}

static int create(struct world *world, uint32_t capacity)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, .capacity = capacity,
	};

	strcpy(attach.name, world->name2);
	return raw_ioctl(world->fd2, KLOCK_IOC_ATTACH, &attach);
}

static int call_create(struct world *world)
{
	return create(world, 1);
}

/* Nine pages, on five levels */
#define LARGE	(8 * 512 + 1)

static int call_create_large(struct world *world)
{
	return create(world, LARGE);
}

static bool undo_create(struct world *world, int ret)
{
	return (ret == 1 || ret == LARGE) && close(world->fd2) == 0 &&
	       raw_remove(world->name2, 0) == 0;
}

/* The first space of a user; its number takes several nodes of the array of users. */
#define STRANGER	100000

static int call_create_for(struct world *world)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_CREATE | KLOCK_ATTACH_UID, .capacity = 1, .uid = STRANGER,
	};

	strcpy(attach.name, world->name2);
	return raw_ioctl(world->fd2, KLOCK_IOC_ATTACH, &attach);
}

static bool undo_create_for(struct world *world, int ret)
{
	struct klock_ioc_remove remove = { .flags = KLOCK_REMOVE_UID, .uid = STRANGER };

	strcpy(remove.name, world->name2);
	return ret == 1 && close(world->fd2) == 0 &&
	       raw_ioctl(world->watch, KLOCK_IOC_REMOVE, &remove) == 0;
}

/* Makes the default space. */
static int call_first_lock(struct world *world)
{
	return raw_lock(world->fd2, 7, 0, 0);
}

static bool undo_first_lock(struct world *world, int ret)
{
	return ret == 0 && raw_unlock(world->fd2, 7) == 0 && close(world->fd2) == 0 &&
	       raw_remove("default", 0) == 0;
}

static bool prepare_client(struct world *world)
{
	world->fd2 = raw_attach(world->name, 0, 0);
	return world->fd2 >= 0;
}

static int call_space_fd(struct world *world)
{
	struct klock_ioc_space_fd arg = { .flags = 0 };

	return raw_ioctl(world->fd2, KLOCK_IOC_SPACE_FD, &arg);
}

static bool undo_space_fd(struct world *world, int ret)
{
	return close(ret) == 0 && close(world->fd2) == 0;
}

static size_t map_size(void)
{
	return KLOCK_CAPACITY_MAX * sizeof(uint64_t);
}

static int call_map(struct world *world)
{
	world->words = mmap(NULL, map_size(), PROT_READ, MAP_SHARED, world->space_fd, 0);
	return world->words == MAP_FAILED ? -errno : 0;
}

static bool undo_map(struct world *world, int ret)
{
	return ret == 0 && munmap((void *)world->words, map_size()) == 0;
}

static int call_info(struct world *world)
{
	struct klock_ioc_info info;

	return raw_ioctl(world->fd, KLOCK_IOC_INFO, &info);
}

/* A space of two pages, with a client */
static bool prepare_space(struct world *world)
{
	world->fd2 = raw_attach(world->name2, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 1024);
	return world->fd2 >= 0;
}

static int resize(struct world *world, uint32_t capacity)
{
	struct klock_ioc_resize resize = { .capacity = capacity };

	return raw_ioctl(world->fd2, KLOCK_IOC_RESIZE, &resize);
}

static int call_grow(struct world *world)
{
	return resize(world, LARGE);
}

/* To where the first thing to allocate is the array of a level, too long for one page. */
static bool prepare_middle(struct world *world)
{
	world->fd2 = raw_attach(world->name2, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 64 * 512);
	return world->fd2 >= 0;
}

static int call_grow_middle(struct world *world)
{
	return resize(world, 67 * 512);
}

static int call_shrink(struct world *world)
{
	return resize(world, 1);
}

static bool undo_space(struct world *world, int ret)
{
	return ret == 0 && close(world->fd2) == 0 && raw_remove(world->name2, 0) == 0;
}

static int remove_space(struct world *world, uint32_t flags)
{
	struct klock_ioc_remove remove = { .flags = flags };

	strcpy(remove.name, world->name2);
	return raw_ioctl(world->watch, KLOCK_IOC_REMOVE, &remove);
}

static bool prepare_remove(struct world *world)
{
	return prepare_space(world) && close(world->fd2) == 0;
}

static int call_remove(struct world *world)
{
	return remove_space(world, 0);
}

static bool prepare_remove_force(struct world *world)
{
	return prepare_space(world) && raw_lock(world->fd2, 5, 0, 0) == 0;
}

static int call_remove_force(struct world *world)
{
	return remove_space(world, KLOCK_REMOVE_FORCE);
}

static bool undo_remove_force(struct world *world, int ret)
{
	return ret == 0 && raw_unlock(world->fd2, 5) == 0 &&
	       raw_lock(world->fd2, 5, 0, 0) == -ESTALE && close(world->fd2) == 0;
}

static int call_list_spaces(struct world *world)
{
	struct klock_ioc_info info[4];
	struct klock_ioc_spaces list = {
		.entries = (uintptr_t)info, .entry_size = sizeof(info[0]), .count = 4,
	};

	return raw_ioctl(world->fd, KLOCK_IOC_LIST_SPACES, &list);
}

static int call_allocate(struct world *world)
{
	struct klock_ioc_allocate allocate = { .flags = 0 };

	return raw_ioctl(world->fd, KLOCK_IOC_ALLOCATE, &allocate);
}

static int call_allocate_id(struct world *world)
{
	struct klock_ioc_allocate allocate = { .flags = KLOCK_ALLOCATE_ID, .id = 3 };

	return raw_ioctl(world->fd, KLOCK_IOC_ALLOCATE, &allocate);
}

static int call_id(struct world *world, unsigned int number, uint32_t id)
{
	struct klock_ioc_id arg = { .id = id };

	return raw_ioctl(world->fd, number, &arg);
}

/* Ids 0 to 2 are allocated. */
static bool undo_allocate(struct world *world, int ret)
{
	return ret == 3 && call_id(world, KLOCK_IOC_FREE, 3) == 0;
}

static int call_retrieve(struct world *world)
{
	return call_id(world, KLOCK_IOC_RETRIEVE, 1);
}

static int call_free(struct world *world)
{
	return call_id(world, KLOCK_IOC_FREE, 1);
}

static bool undo_free(struct world *world, int ret)
{
	return ret == 0 && call_allocate(world) == 1;
}

static int call_free_all(struct world *world)
{
	return call_id(world, KLOCK_IOC_FREE_ALL, 0);
}

static bool undo_free_all(struct world *world, int ret)
{
	return ret == 0 && call_allocate(world) == 0 && call_allocate(world) == 1 &&
	       call_allocate(world) == 2;
}

static int call_lock(struct world *world)
{
	return raw_lock(world->fd, FREE, 0, 0);
}

static bool undo_lock(struct world *world, int ret)
{
	return ret == 0 && raw_unlock(world->fd, FREE) == 0;
}

static int call_trylock(struct world *world)
{
	return raw_lock(world->fd, FREE, KLOCK_LOCK_TRY, 0);
}

/* Who is not told that the last holder died has not got the lock. */
static int call_lock_died(struct world *world)
{
	return raw_lock(world->fd, DIED, 0, 0);
}

/* A client that closes with the lock. */
static bool leave_died(struct world *world)
{
	int fd = raw_attach(world->name, 0, 0);

	return fd >= 0 && raw_lock(fd, DIED, 0, 0) >= 0 && close(fd) == 0;
}

static bool undo_lock_died(struct world *world, int ret)
{
	return ret == 1 && raw_unlock(world->fd, DIED) == 0 && leave_died(world);
}

static int call_unlock(struct world *world)
{
	return raw_unlock(world->fd, MINE);
}

static bool undo_unlock(struct world *world, int ret)
{
	return ret == 0 && raw_lock(world->fd, MINE, 0, 0) == 0;
}

/* An errorcheck client, which keeps a queue and a thread for each lock that it has */
static bool prepare_errorcheck(struct world *world)
{
	world->fd2 = raw_attach(world->name, KLOCK_ATTACH_ERRORCHECK, 0);
	return world->fd2 >= 0;
}

static int call_lock_errorcheck(struct world *world)
{
	return raw_lock(world->fd2, FREE, 0, 0);
}

/* Its spare queue is with the lock that it has. */
static bool prepare_errorcheck_second(struct world *world)
{
	return prepare_errorcheck(world) && raw_lock(world->fd2, FREE + 1, 0, 0) == 0;
}

static bool undo_lock_errorcheck(struct world *world, int ret)
{
	return ret == 0 && raw_unlock(world->fd2, FREE) == 0 && close(world->fd2) == 0;
}

static bool undo_lock_errorcheck_second(struct world *world, int ret)
{
	return ret == 0 && raw_unlock(world->fd2, FREE) == 0 &&
	       raw_unlock(world->fd2, FREE + 1) == 0 && close(world->fd2) == 0;
}

static bool prepare_unlock_errorcheck(struct world *world)
{
	return prepare_errorcheck(world) && call_lock_errorcheck(world) == 0;
}

static int call_unlock_errorcheck(struct world *world)
{
	return raw_unlock(world->fd2, FREE);
}

/* Unlocks when so many wait. */
static int do_yield(struct order *order)
{
	struct klock_ioc_status status;

	if (!UNTIL(raw_status(order->fd, BUSY, &status) == 0 && status.waiters == order->number))
		return -ETIME;
	return raw_unlock(order->fd, BUSY);
}

static void yield_to(struct world *world, unsigned long waiters)
{
	tell(&world->other, do_yield, world->other_fd, waiters, NULL, 0);
}

/* Another holds the lock, and gives it up when we wait. */
static bool prepare_wait(struct world *world)
{
	yield_to(world, 1);
	return true;
}

static int call_wait(struct world *world)
{
	return raw_lock(world->fd, BUSY, 0, 0);
}

static bool undo_wait(struct world *world, int ret)
{
	return ret == 0 && answer(&world->other, NULL, 0) == 0 &&
	       raw_unlock(world->fd, BUSY) == 0 &&
	       lock_by(&world->other, world->other_fd, BUSY, 0) == 0;
}

static int call_wait_monotonic(struct world *world)
{
	return raw_lock(world->fd, BUSY, KLOCK_LOCK_DEADLINE,
			now_ns(CLOCK_MONOTONIC) + PATIENCE_MS * NSEC_PER_MSEC);
}

static int call_wait_realtime(struct world *world)
{
	return raw_lock(world->fd, BUSY, KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME,
			now_ns(CLOCK_REALTIME) + PATIENCE_MS * NSEC_PER_MSEC);
}

static void *lock_and_unlock(void *arg)
{
	int fd = (uintptr_t)arg, ret = raw_lock(fd, BUSY, 0, 0);

	return (void *)(uintptr_t)(ret || raw_unlock(fd, BUSY));
}

/* A thread of our client waits, and has its spare queue. */
static bool prepare_waiters(struct world *world)
{
	return !pthread_create(&world->thread, NULL, lock_and_unlock,
			       (void *)(uintptr_t)world->fd) &&
	       UNTIL(watch(world, BUSY).waiters == 1);
}

static bool prepare_wait_second(struct world *world)
{
	if (!prepare_waiters(world))
		return false;
	yield_to(world, 2);
	return true;
}

static bool join_thread(struct world *world)
{
	void *failed = NULL;

	return !pthread_join(world->thread, &failed) && !failed;
}

static bool undo_wait_second(struct world *world, int ret)
{
	return join_thread(world) && undo_wait(world, ret);
}

static int call_break(struct world *world)
{
	struct klock_ioc_break brk = { .id = BROKEN };

	return raw_ioctl(world->fd, KLOCK_IOC_BREAK, &brk);
}

static bool undo_break(struct world *world, int ret)
{
	return ret == 0 && raw_lock(world->watch, BROKEN, 0, 0) == 1;
}

static int call_status(struct world *world)
{
	struct klock_ioc_status status;

	return raw_status(world->fd, MINE, &status);
}

static int call_list(struct world *world)
{
	struct klock_ioc_status status[16];
	struct klock_ioc_list list = {
		.entries = (uintptr_t)status, .entry_size = sizeof(status[0]), .count = 16,
	};

	return raw_ioctl(world->fd, KLOCK_IOC_LIST, &list);
}

static int call_waiters(struct world *world)
{
	struct klock_ioc_waiter waiter[4];
	struct klock_ioc_list list = {
		.entries = (uintptr_t)waiter, .entry_size = sizeof(waiter[0]), .count = 4,
		.id = BUSY,
	};

	return raw_ioctl(world->fd, KLOCK_IOC_WAITERS, &list);
}

static bool undo_waiters(struct world *world, int ret)
{
	yield_to(world, 1);
	return ret == 1 && answer(&world->other, NULL, 0) == 0 && join_thread(world) &&
	       lock_by(&world->other, world->other_fd, BUSY, 0) == 0;
}

static bool same_count(struct world *world __attribute__((unused)), int ret)
{
	return ret > 0;
}

FIXTURE(calls) {
	struct world world;
};

/*
 * So many of the module's own allocations and copies there are at least, each of which
 * must have failed the call; without any, none may have been seen to fail.
 */
FIXTURE_VARIANT(calls) {
	bool (*prepare)(struct world *world);
	int (*call)(struct world *world);
	bool (*undo)(struct world *world, int ret);
	int allocations, copies;
};

FIXTURE_VARIANT_ADD(calls, open) {
	.call = call_open, .undo = close_fd2,
	.allocations = 1, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, close) {
	.prepare = prepare_close, .call = call_close, .undo = undo_close,
};

FIXTURE_VARIANT_ADD(calls, get_api) { .call = call_get_api, .copies = 1 };

FIXTURE_VARIANT_ADD(calls, attach) {
	.prepare = open_fd2, .call = call_attach, .undo = undo_attach,
	.allocations = 2, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, attach_by_descriptor) {
	.prepare = open_fd2, .call = call_attach_fd, .undo = undo_attach,
	.allocations = 2, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, create) {
	.prepare = open_fd2, .call = call_create, .undo = undo_create,
	.allocations = 5, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, create_large) {
	.prepare = open_fd2, .call = call_create_large, .undo = undo_create,
	.allocations = 17, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, create_for_another) {
	.prepare = open_fd2, .call = call_create_for, .undo = undo_create_for,
	.allocations = 6, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, first_call) {
	.prepare = open_fd2, .call = call_first_lock, .undo = undo_first_lock,
	.allocations = 10, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, space_fd) {
	.prepare = prepare_client, .call = call_space_fd, .undo = undo_space_fd,
	.allocations = 1, .copies = 2,
};

FIXTURE_VARIANT_ADD(calls, map) { .call = call_map, .undo = undo_map, .allocations = 1 };
FIXTURE_VARIANT_ADD(calls, info) { .call = call_info, .copies = 1 };

FIXTURE_VARIANT_ADD(calls, grow) {
	.prepare = prepare_space, .call = call_grow, .undo = undo_space,
	.allocations = 10, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, grow_in_the_middle) {
	.prepare = prepare_middle, .call = call_grow_middle, .undo = undo_space,
	.allocations = 3, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, shrink) {
	.prepare = prepare_space, .call = call_shrink, .undo = undo_space,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, remove) { .prepare = prepare_remove, .call = call_remove, .copies = 1 };

FIXTURE_VARIANT_ADD(calls, remove_by_force) {
	.prepare = prepare_remove_force, .call = call_remove_force, .undo = undo_remove_force,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, list_spaces) {
	.call = call_list_spaces, .undo = same_count,
	.copies = 2,
};

FIXTURE_VARIANT_ADD(calls, allocate) { .call = call_allocate, .undo = undo_allocate, .copies = 1 };

FIXTURE_VARIANT_ADD(calls, allocate_id) {
	.call = call_allocate_id, .undo = undo_allocate,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, retrieve) { .call = call_retrieve, .copies = 1 };
FIXTURE_VARIANT_ADD(calls, free) { .call = call_free, .undo = undo_free, .copies = 1 };
FIXTURE_VARIANT_ADD(calls, free_all) { .call = call_free_all, .undo = undo_free_all, .copies = 1 };
FIXTURE_VARIANT_ADD(calls, lock) { .call = call_lock, .undo = undo_lock, .copies = 1 };
FIXTURE_VARIANT_ADD(calls, trylock) { .call = call_trylock, .undo = undo_lock, .copies = 1 };

FIXTURE_VARIANT_ADD(calls, lock_died) {
	.call = call_lock_died, .undo = undo_lock_died,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, lock_errorcheck) {
	.prepare = prepare_errorcheck, .call = call_lock_errorcheck, .undo = undo_lock_errorcheck,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, lock_errorcheck_second) {
	.prepare = prepare_errorcheck_second, .call = call_lock_errorcheck,
	.undo = undo_lock_errorcheck_second,
	.allocations = 1, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, wait) {
	.prepare = prepare_wait, .call = call_wait, .undo = undo_wait,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, wait_monotonic) {
	.prepare = prepare_wait, .call = call_wait_monotonic, .undo = undo_wait,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, wait_realtime) {
	.prepare = prepare_wait, .call = call_wait_realtime, .undo = undo_wait,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, wait_second) {
	.prepare = prepare_wait_second, .call = call_wait, .undo = undo_wait_second,
	.allocations = 1, .copies = 1,
};

FIXTURE_VARIANT_ADD(calls, unlock) { .call = call_unlock, .undo = undo_unlock, .copies = 1 };

FIXTURE_VARIANT_ADD(calls, unlock_errorcheck) {
	.prepare = prepare_unlock_errorcheck, .call = call_unlock_errorcheck, .undo = close_fd2,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(calls, break) { .call = call_break, .undo = undo_break, .copies = 1 };
FIXTURE_VARIANT_ADD(calls, status) { .call = call_status, .copies = 2 };

FIXTURE_VARIANT_ADD(calls, list) {
	.call = call_list, .undo = same_count,
	.allocations = 1, .copies = 8,
};

FIXTURE_VARIANT_ADD(calls, waiters) {
	.prepare = prepare_waiters, .call = call_waiters, .undo = undo_waiters,
	.allocations = 1, .copies = 2,
};

static void become_poor(const void *arg __attribute__((unused)))
{
	CHECK(setresgid(65533, 65533, 65533) == 0);
	CHECK(setresuid(65533, 65533, 65533) == 0);
}

/* From the start: nothing may be there that these do not know. */
static void remove_all(int fd)
{
	struct klock_ioc_info info = { 0 };
	struct klock_ioc_spaces list = {
		.entries = (uintptr_t)&info, .entry_size = sizeof(info), .count = 1,
	};
	struct klock_ioc_remove remove = { .flags = KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE };

	while (raw_ioctl(fd, KLOCK_IOC_LIST_SPACES, &list) == 1) {
		remove.uid = info.uid;
		strcpy(remove.name, info.name);
		CHECK(raw_ioctl(fd, KLOCK_IOC_REMOVE, &remove) == 0);
	}
}

/*
 * More tokens than one node of the table of clients is for: each client that comes
 * takes a new one.
 */
static void use_up_tokens(const char *name)
{
	int i, fd;

	for (i = 0; i < 64; i++) {
		fd = raw_attach(name, 0, 0);
		CHECK(fd >= 0);
		close(fd);
	}
}

static void set_up(struct __test_metadata *_metadata, struct world *world)
{
	struct klock_ioc_attach attach = { .flags = 0 };
	struct klock_ioc_space_fd arg = { .flags = 0 };

	world->max_spaces = open_parameter("/sys/module/klock/parameters/max_spaces");
	world->max_locks = open_parameter("/sys/module/klock/parameters/max_locks");
	SPACE_NAME(world->name);
	SPACE_NAME(world->name2);
	world->name2[0] = '2';

	ASSERT_TRUE(open_fd2(world));
	remove_all(world->fd2);
	close(world->fd2);
	world->watch = raw_attach(world->name, KLOCK_ATTACH_CREATE, CAPACITY);
	ASSERT_LE(0, world->watch);
	world->space_fd = raw_ioctl(world->watch, KLOCK_IOC_SPACE_FD, &arg);
	ASSERT_LE(0, world->space_fd);
	use_up_tokens(world->name);
	world->fd = raw_attach(world->name, 0, 0);
	ASSERT_LE(0, world->fd);
	world->other = enlist(NULL, NULL);
	strcpy(attach.name, world->name);
	world->other_fd = attach_by(&world->other, &attach);
	ASSERT_LE(0, world->other_fd);
	world->poor = enlist(become_poor, NULL);

	ASSERT_EQ(0, call_allocate(world));
	ASSERT_EQ(1, call_allocate(world));
	ASSERT_EQ(2, call_allocate(world));
	ASSERT_TRUE(leave_died(world));
	ASSERT_EQ(0, lock_by(&world->other, world->other_fd, BUSY, 0));
	ASSERT_EQ(0, raw_lock(world->watch, BROKEN, 0, 0));
	ASSERT_EQ(0, raw_lock(world->fd, MINE, 0, 0));
	/* A page that is not there could be made by no retry while all pages fail. */
	ASSERT_EQ(0, mlockall(MCL_CURRENT | MCL_FUTURE));
}

static void tear_down(struct __test_metadata *_metadata, struct world *world)
{
	if (!world->watch)	/* skipped */
		return;
	set_parameter(&world->max_spaces, world->max_spaces.was);
	set_parameter(&world->max_locks, world->max_locks.was);
	dismiss_all();
	close(world->fd);
	close(world->space_fd);
	close(world->watch);
	EXPECT_EQ(0, raw_remove(world->name, 0));
}

FIXTURE_SETUP(calls)
{
	if (!can_fail())
		SKIP(return, "not root, or calls cannot be made to fail on this kernel");
	set_up(_metadata, &self->world);
}

FIXTURE_TEARDOWN(calls)
{
	tear_down(_metadata, &self->world);
}

/* What a call that failed may have said, and must have left alone. */
#define ASSERT_AS_BEFORE(world, before) do {					\
	struct view now;							\
										\
	look(world, &now);							\
	ASSERT_TRUE(same(before, &now));					\
} while (0)

/*
 * One call of which the @n-th fails: -ENOMEM or -EFAULT, and then all was as before and
 * it was made again; 0: it could do without; 1: there was no @n-th.
 */
static int call_with_fault(struct __test_metadata *_metadata, struct world *world,
			   const FIXTURE_VARIANT(calls) *variant, int n)
{
	struct view before;
	int left, ret, error = 0;

	ASSERT_TRUE(!variant->prepare || variant->prepare(world));
	look(world, &before);
	arm(n);
	ret = variant->call(world);
	left = disarm();
	if (ret < 0) {
		error = ret;
		ASSERT_TRUE(error == -ENOMEM || error == -EFAULT) {
			TH_LOG("the %dth: %s", n, strerror(-error));
		}
		ASSERT_EQ(0, left) TH_LOG("%s, and nothing made it", strerror(-error));
		ASSERT_AS_BEFORE(world, &before);
		ret = variant->call(world);
		ASSERT_LE(0, ret);
	}
	ASSERT_TRUE(!variant->undo || variant->undo(world, ret));
	return left ? 1 : error;
}

/*
 * Now and then the kernel allocates for itworld, when a store of its own has run out,
 * and what is the Nth else is not.  So each is tried some times.
 */
#define TRIES	3

TEST_F_TIMEOUT(calls, each_in_turn, 120)
{
	int n = 0, allocations = 0, copies = 0, came[TRIES], i;
	bool met, memory, address;
	char all[256] = "";	/* Memory, Address, or - nothing that was missed */
	struct view first;

	look(&self->world, &first);
	ASSERT_EQ(0, first.fits);
	ASSERT_EQ(-EDQUOT, first.too_many);
	ASSERT_EQ(-EDQUOT, first.too_large);
	do {
		met = false;
		memory = false;
		address = false;
		for (i = 0, n++; i < TRIES; i++) {
			came[i] = call_with_fault(_metadata, &self->world, variant, n);
			met |= came[i] != 1;
			memory |= came[i] == -ENOMEM;
			address |= came[i] == -EFAULT;
		}
		allocations += memory;
		copies += address;
		ASSERT_GT((int)sizeof(all), n);
		if (met)
			all[n - 1] = memory ? 'M' : address ? 'A' : '-';
	} while (met);
	ASSERT_AS_BEFORE(&self->world, &first);
	TH_LOG("%d in all: %s", n - 1, all);
	ASSERT_LE(variant->allocations, allocations);
	ASSERT_LE(variant->copies, copies);
	if (!variant->allocations) {
		ASSERT_EQ(0, allocations);
	}
	if (!variant->copies) {
		ASSERT_EQ(0, copies);
	}
}

/* As on a machine that has not enough left: all fail from the first, the second, ... on. */
TEST_F_TIMEOUT(calls, all_from_one_on, 120)
{
	struct view first, before;
	unsigned int i;
	int left, ret;
	bool failed;

	look(&self->world, &first);
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		left = 0;
		do {
			ASSERT_TRUE(!variant->prepare || variant->prepare(&self->world));
			look(&self->world, &before);
			leave(&kinds[i], left++);
			ret = variant->call(&self->world);
			leave_enough(&kinds[i]);
			failed = ret < 0;
			if (failed) {
				ASSERT_EQ(-ENOMEM, ret);
				ASSERT_AS_BEFORE(&self->world, &before);
				ret = variant->call(&self->world);
				ASSERT_LE(0, ret);
			}
			ASSERT_TRUE(!variant->undo || variant->undo(&self->world, ret));
		} while (failed);
		if (left > 1)
			TH_LOG("%s: enough are %d", kinds[i].name, (left - 1) * kinds[i].unit);
	}
	ASSERT_AS_BEFORE(&self->world, &first);
}

FIXTURE(faults) {
	struct world world;
};

FIXTURE_SETUP(faults)
{
	if (!can_fail())
		SKIP(return, "not root, or calls cannot be made to fail on this kernel");
	set_up(_metadata, &self->world);
}

FIXTURE_TEARDOWN(faults)
{
	tear_down(_metadata, &self->world);
}

/*
 * INFO as the first call attaches, and does not take that back when it cannot say what
 * it found: others may have used the client since.  It can be made again.
 */
TEST_F(faults, first_call_that_cannot_tell)
{
	int space = raw_attach("default", KLOCK_ATTACH_CREATE, 8), fd, n, ret;
	struct klock_ioc_info info;
	bool failed = false;

	ASSERT_LE(0, space);
	for (n = 1; n <= 100 && !failed; n++) {
		fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		arm(n);
		ret = raw_ioctl(fd, KLOCK_IOC_INFO, &info);
		disarm();
		failed = ret == -EFAULT;
		POISON(info);
		EXPECT_EQ(0, raw_ioctl(space, KLOCK_IOC_INFO, &info));
		EXPECT_EQ(ret == -ENOMEM ? 1 : 2, info.clients);	/* it had no client yet */
		POISON(info);
		EXPECT_EQ(0, raw_ioctl(fd, KLOCK_IOC_INFO, &info));
		EXPECT_STREQ("default", info.name);
		close(fd);
	}
	EXPECT_TRUE(failed);
	close(space);
	EXPECT_EQ(0, raw_remove("default", 0));
}

/*
 * What a page fault of a mapping allocates is the kernel's page tables: it is made
 * again until there are some.  Then the page is noted, for a close to look at.
 */
TEST_F_TIMEOUT(faults, page_of_a_mapping, 60)
{
	struct world *world = &self->world;
	void *far = (void *)(uintptr_t)(1ULL << 45);	/* from all that has page tables */
	volatile uint64_t *words;
	uint64_t old;
	int n = 0, left;

	do {
		struct klock_ioc_space_fd arg = { .flags = 0 };
		int fd;

		ASSERT_TRUE(prepare_client(world));
		fd = raw_ioctl(world->fd2, KLOCK_IOC_SPACE_FD, &arg);
		words = mmap(far, map_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (words == MAP_FAILED && errno == EOPNOTSUPP)
			SKIP(return, "words cannot be mapped here");
		ASSERT_NE(MAP_FAILED, words);
		close(fd);
		old = 0;
		arm(++n);
		__atomic_compare_exchange_n(&words[FREE], &old, arg.token, false,
					    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
		left = disarm();
		ASSERT_EQ(0, old);
		ASSERT_EQ(arg.token, words[FREE]);
		ASSERT_EQ(-EBUSY, raw_lock(world->fd, FREE, KLOCK_LOCK_TRY, 0));
		close(world->fd2);
		ASSERT_EQ(1, raw_lock(world->fd, FREE, KLOCK_LOCK_TRY, 0));
		ASSERT_EQ(0, raw_unlock(world->fd, FREE));
		munmap((void *)words, map_size());
	} while (!left);
	TH_LOG("%d in all", n - 1);
	EXPECT_LT(1, n);
}

/* Fails for want of each page in turn, and then succeeds: how many pages it had by then. */
static int fail_by_page(struct __test_metadata *_metadata, struct world *world,
			int (*call)(struct world *world))
{
	int enough = 0, had = 0, ret;

	do {
		leave(pages, enough);
		ret = call(world);
		leave_enough(pages);
		had += enough++;
	} while (ret == -ENOMEM);
	EXPECT_LE(0, ret);
	return had;
}

/* What a table that cannot grow has got so far is given back. */
TEST_F_TIMEOUT(faults, no_page_is_lost, 120)
{
	struct world *world = &self->world;
	char cgroup[CGROUP_PATH_SIZE];
	int round, had = 0;
	long before = 0;

	make_cgroup(cgroup);
	if (!cgroup[0])
		SKIP(return, "no memory cgroups");
	enter_cgroup(cgroup);
	for (round = 0; round < 60; round++) {
		if (round == 10)
			before = pages_kib(cgroup);
		ASSERT_TRUE(open_fd2(world));
		had += fail_by_page(_metadata, world, call_create_large);
		ASSERT_TRUE(undo_create(world, LARGE));
		ASSERT_TRUE(prepare_space(world));
		had += fail_by_page(_metadata, world, call_grow);
		ASSERT_TRUE(undo_space(world, 0));
	}
	TH_LOG("%d pages were given back", had);
	EXPECT_LT(1000, had);
	EXPECT_LT(0, before);
	EXPECT_TRUE(UNTIL(pages_kib(cgroup) < before + 512)) {
		TH_LOG("%ld KiB of pages before, %ld KiB now", before, pages_kib(cgroup));
	}
	leave_cgroup(cgroup);
}

/* A process with the client of prepare_close(), mapped, whose exit meets the @n-th. */
static pid_t exit_with_fault(struct world *world, const atomic_int *n)
{
	pid_t pid = spawn();

	if (pid)
		return pid;
	CHECK(prepare_client(world));
	CHECK(raw_ioctl(world->fd2, KLOCK_IOC_SPACE_FD, &(struct klock_ioc_space_fd){ 0 }) >= 0);
	CHECK(call_map(world) == 0 || errno == EOPNOTSUPP);
	CHECK(lock_held(world));
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	CHECK(fail_nth >= 0 && UNTIL(*n));
	arm(*n);
	_exit(0);
}

/* An exit cannot fail.  What its process held is released, and told, whatever fails in it. */
TEST_F_TIMEOUT(faults, exit, 120)
{
	struct world *world = &self->world;
	atomic_int *n = shared(sizeof(*n));
	int round = 0, left, fd;
	char path[64], text[16];
	siginfo_t info;
	pid_t pid;

	do {
		*n = 0;
		pid = exit_with_fault(world, n);
		snprintf(path, sizeof(path), "/proc/%d/fail-nth", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		ASSERT_LE(0, fd);
		ASSERT_TRUE(let_wait(world));
		*n = ++round;
		ASSERT_EQ(0, waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
		POISON(text);
		ASSERT_LT(0, pread(fd, text, sizeof(text), 0));
		left = atoi(text);
		close(fd);
		ASSERT_EQ(0, reap(pid));
		ASSERT_TRUE(check_released(world));
	} while (!left);
	TH_LOG("%d in all", round - 1);
	EXPECT_LT(1, round);
}

/*
 * The module
 */

#define PANIC_ON_WARN	"/proc/sys/kernel/panic_on_warn"

FIXTURE(insmod)
{
	char panic_on_warn[8];
};

FIXTURE_SETUP(insmod)
{
	if (!can_fail() || !getenv("KLOCK_KO"))
		SKIP(return, "not root, KLOCK_KO is not set, or calls cannot be made to fail");
	ASSERT_EQ(0, unload());
	ASSERT_TRUE(gone());
	/*
	 * The kernel itself warns when it gets no memory for what the tracepoints of a module
	 * need, the fields of an event and a key of its own.  vm/run overlooks these
	 * warnings, and none other.
	 */
	snprintf(self->panic_on_warn, sizeof(self->panic_on_warn), "%lld",
		 get_number(PANIC_ON_WARN, ""));
	ASSERT_TRUE(write_file(PANIC_ON_WARN, "0"));
}

FIXTURE_TEARDOWN(insmod)
{
	if (!loaded())
		EXPECT_EQ(0, load(""));
	if (self->panic_on_warn[0])
		EXPECT_TRUE(write_file(PANIC_ON_WARN, self->panic_on_warn));
}

/* How many faults a load can meet, most of them in the loader of modules. */
static int count_faults(const char *parameters, int expected)
{
	const int many = 1000000;
	int left;

	arm(many);
	CHECK(load(parameters) == expected);
	left = disarm();
	CHECK(expected || unload() == 0);
	return many - left;
}

/* 0: it met the @n-th, and all is as before; or else what went wrong. */
static const char *load_with_fault(int n, int *failed)
{
	int ret, left;

	arm(n);
	ret = load("");
	left = disarm();
	if (ret) {
		++*failed;
		if (left)
			return "it failed by itself";
		if (ret != -ENOMEM && ret != -EFAULT)
			return strerror(-ret);
		return gone() ? NULL : "it left something behind";
	}
	ret = raw_attach("loaded", KLOCK_ATTACH_CREATE, 8);
	if (ret < 0)
		return "it cannot be used";
	close(ret);
	if (unload())
		return "it cannot be unloaded";
	return gone() ? NULL : "it left something behind when it was unloaded";
}

/*
 * All that the module meets itself; of the loader's all if KLOCK_LONG=1, and else some,
 * chosen at random.  What is refused by the first line of the module has met the loader's.
 */
TEST_F_TIMEOUT(insmod, each_in_turn, 600)
{
	int loaders = count_faults("max_capacity=0", -EINVAL), faults = count_faults("", 0);
	int failed = 0, tried = 0, n;
	unsigned int seed = getenv("SEED") ? atoi(getenv("SEED")) : time(NULL);
	const char *wrong;

	TH_LOG("%d in all, %d before the module begins, SEED=%u", faults, loaders, seed);
	ASSERT_LT(loaders, faults);
	srandom(seed);
	for (n = 1; n <= faults; n++) {
		if (!is_long() && n < loaders && random() % loaders >= 50)
			continue;
		wrong = load_with_fault(n, &failed);
		ASSERT_EQ(NULL, wrong) TH_LOG("the %dth: %s", n, wrong);
		tried++;
	}
	TH_LOG("%d tried, %d failed", tried, failed);
	EXPECT_LT(0, failed);
	EXPECT_EQ(0, load(""));
}

TEST_HARNESS_MAIN
