// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who holds and who waits: status, list, waiters and the counters of the info,
 * as they are seen by this process, from other pid namespaces and from another
 * time namespace.
 */
#define _GNU_SOURCE

#include "klock_test.h"

#include <sys/syscall.h>

static pid_t thread_id(void)
{
	return syscall(SYS_gettid);
}

FIXTURE(list) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;		/* 0 */
};

FIXTURE_SETUP(list)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, 64, 0);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 0);
	ASSERT_NE(NULL, self->lock);
}

FIXTURE_TEARDOWN(list)
{
	dismiss_all();
	klock_put(self->lock);
	klock_space_close(self->space);
	klock_space_remove(self->name, KLOCK_FORCE);
}

/* Enlists an agent that is a client of the space: its descriptor there. */
static int enlist_client(struct agent *agent, const char *name, uint32_t flags)
{
	struct klock_ioc_attach attach = { .flags = flags };

	strcpy(attach.name, name);
	*agent = enlist(NULL, NULL);
	return attach_by(agent, &attach);
}

static struct klock_ioc_status status_by(const struct agent *agent, int fd, uint32_t id)
{
	struct klock_ioc_status status = { .id = id };

	if (ioctl_by(agent, fd, KLOCK_IOC_STATUS, &status))
		memset(&status, 0xff, sizeof(status));
	return status;
}

static int allocate_by(const struct agent *agent, int fd, uint32_t id)
{
	struct klock_ioc_allocate allocate = { .flags = KLOCK_ALLOCATE_ID, .id = id };

	return ioctl_by(agent, fd, KLOCK_IOC_ALLOCATE, &allocate);
}

/* One of that nobody thinks is all 0 but for its id. */
TEST_F(list, status_of_nothing)
{
	struct klock_status want = { .id = 63 }, got;
	struct klock *last = get_lock(self->space, 63), *beyond;

	ASSERT_NE(NULL, last);
	got = status_of(last);
	EXPECT_EQ(0, memcmp(&want, &got, sizeof(want)));
	EXPECT_EQ(-EINVAL, klock_retrieve(self->space, 64, 0, &beyond));
	klock_put(last);
}

/* ALLOCATED, HELD, MINE and DIED come and go each for itself. */
TEST_F(list, status_flags)
{
	struct klock *lock = self->lock, *taken;
	struct agent agent;
	int fd = enlist_client(&agent, self->name, 0);

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, klock_lock(lock));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(lock).flags);
	EXPECT_EQ(KLOCK_HELD, status_by(&agent, fd, 0).flags);
	EXPECT_EQ(0, klock_allocate(self->space, &taken));
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_HELD | KLOCK_MINE, status_of(lock).flags);
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(KLOCK_ALLOCATED, status_of(lock).flags);

	EXPECT_EQ(0, lock_by(&agent, fd, 0, 0));
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_HELD, status_of(lock).flags);
	EXPECT_EQ(0, klock_free(lock));
	EXPECT_EQ(KLOCK_HELD, status_of(lock).flags);
	EXPECT_EQ(0, close_by(&agent, fd));
	EXPECT_EQ(KLOCK_DIED, status_of(lock).flags);
	EXPECT_EQ(0, klock_allocate_id(self->space, 0, &taken));
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_DIED, status_of(lock).flags);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock(lock));
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_HELD | KLOCK_MINE, status_of(lock).flags);
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(KLOCK_ALLOCATED, status_of(lock).flags);
}

/* pid, tid and token are of the holder while there is one; the token is the client's. */
TEST_F(list, status_of_a_holder)
{
	struct klock_ioc_status status;
	struct klock_status mine;
	struct agent agent;
	int fd = enlist_client(&agent, self->name, 0);
	uint32_t token;

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, klock_lock(self->lock));
	mine = status_of(self->lock);
	EXPECT_EQ((uint32_t)getpid(), mine.pid);
	EXPECT_EQ((uint32_t)thread_id(), mine.tid);
	EXPECT_NE(0, mine.token);
	EXPECT_GT(KLOCK_WORD_NONE, mine.token);
	status = status_by(&agent, fd, 0);
	EXPECT_EQ(mine.pid, status.pid);
	EXPECT_EQ(mine.tid, status.tid);
	EXPECT_EQ(mine.token, status.token);
	token = mine.token;
	EXPECT_EQ(0, klock_unlock(self->lock));

	EXPECT_EQ(0, lock_by(&agent, fd, 0, 0));
	mine = status_of(self->lock);
	EXPECT_EQ((uint32_t)agent.pid, mine.pid);
	EXPECT_EQ((uint32_t)agent.pid, mine.tid);
	EXPECT_NE(token, mine.token);
	EXPECT_EQ(0, lock_by(&agent, fd, 1, 0));
	EXPECT_EQ(mine.token, status_by(&agent, fd, 1).token);

	EXPECT_EQ(-SIGKILL, slay(agent.pid));
	mine = status_of(self->lock);
	EXPECT_EQ(0, mine.pid);
	EXPECT_EQ(0, mine.tid);
	EXPECT_EQ(0, mine.token);
	EXPECT_EQ(0, mine.held_since);
}

static void *lock_and_tell(void *arg)
{
	FIXTURE_DATA(list) *self = arg;

	return klock_lock(self->lock) ? NULL : (void *)(uintptr_t)thread_id();
}

/* The thread that took it is named while it lives; its process has the lock either way. */
static void check_thread_exit(struct __test_metadata *_metadata, FIXTURE_DATA(list) *self)
{
	struct klock_status status;
	pthread_t thread;
	void *tid;

	ASSERT_EQ(0, pthread_create(&thread, NULL, lock_and_tell, self));
	ASSERT_EQ(0, pthread_join(thread, &tid));
	ASSERT_NE(NULL, tid);
	/* (a thread that was joined may still be on its way out) */
	EXPECT_TRUE(UNTIL(status_of(self->lock).tid == 0));
	status = status_of(self->lock);
	EXPECT_EQ((uint32_t)getpid(), status.pid);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status.flags);
	EXPECT_NE(0, status.token);
}

TEST_F(list, thread_exit)
{
	check_thread_exit(_metadata, self);
	EXPECT_EQ(0, klock_unlock(self->lock));
}

TEST_F(list, thread_exit_errorcheck)
{
	klock_put(self->lock);
	klock_space_close(self->space);
	self->space = join_space(self->name, KLOCK_ERRORCHECK);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 0);
	check_thread_exit(_metadata, self);
}

struct keeper {
	FIXTURE_DATA(list) *self;
	int pair[2];
	pid_t tid;
	int ret;
};

static void *lock_and_stay(void *arg)
{
	struct keeper *keeper = arg;
	char byte = 0;

	keeper->tid = thread_id();
	keeper->ret = klock_lock(keeper->self->lock);
	keeper->ret |= write(keeper->pair[1], &byte, 1) != 1;
	keeper->ret |= read(keeper->pair[1], &byte, 1) != 1;
	return NULL;
}

static void check_thread(struct __test_metadata *_metadata, FIXTURE_DATA(list) *self)
{
	struct keeper keeper = { .self = self };
	struct klock_status status;
	pthread_t thread;
	char byte;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, keeper.pair));
	ASSERT_EQ(0, pthread_create(&thread, NULL, lock_and_stay, &keeper));
	ASSERT_EQ(1, read(keeper.pair[0], &byte, 1));
	status = status_of(self->lock);
	EXPECT_EQ((uint32_t)getpid(), status.pid);
	EXPECT_EQ((uint32_t)keeper.tid, status.tid);
	EXPECT_NE(status.pid, status.tid);
	EXPECT_EQ(1, write(keeper.pair[0], &byte, 1));
	EXPECT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, keeper.ret);
}

/* tid is the thread that took it, not the one that attached. */
TEST_F(list, thread_that_took_it)
{
	check_thread(_metadata, self);
}

TEST_F(list, thread_that_took_it_errorcheck)
{
	klock_put(self->lock);
	klock_space_close(self->space);
	self->space = join_space(self->name, KLOCK_ERRORCHECK);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 0);
	check_thread(_metadata, self);
}

/* A client that its attacher left to an heir: it holds, and pid is 0 as of one that is dead. */
TEST_F(list, dead_attacher)
{
	struct klock_status status;
	int pair[2];
	pid_t parent;
	char byte = 0;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	parent = spawn();
	if (!parent) {
		int fd = raw_attach(self->name, 0, 0);

		CHECK(fd >= 0);
		CHECK(raw_lock(fd, 0, 0, 0) == 0);
		if (fork())		/* not spawn(): this one stays */
			_exit(0);
		close(pair[0]);		/* so that it ends with the test */
		CHECK(read(pair[1], &byte, 1) == 1);
		_exit(raw_unlock(fd, 0));
	}
	EXPECT_EQ(0, reap(parent));
	status = status_of(self->lock);
	EXPECT_EQ(KLOCK_HELD, status.flags);
	EXPECT_EQ(0, status.pid);
	EXPECT_EQ(0, status.tid);
	EXPECT_NE(0, status.token);
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_EQ(1, write(pair[0], &byte, 1));
	EXPECT_TRUE(UNTIL(status_of(self->lock).flags == 0));
}

/* A lock that a child took through its parent's descriptor is shown as the attacher's. */
TEST_F(list, heir_of_a_descriptor)
{
	int fd = raw_attach(self->name, 0, 0);
	struct agent heir = enlist(NULL, NULL);
	struct klock_status status;

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, lock_by(&heir, fd, 0, 0));
	status = status_of(self->lock);
	EXPECT_EQ(KLOCK_HELD, status.flags);
	EXPECT_EQ((uint32_t)getpid(), status.pid);
	EXPECT_EQ(-SIGKILL, slay(heir.pid));
	EXPECT_EQ(KLOCK_HELD, status_of(self->lock).flags);
	EXPECT_EQ(0, raw_unlock(fd, 0));
}

/* held_since: at least since then, so not before it was taken and not after now; or 0. */
TEST_F(list, held_since)
{
	uint64_t before = now_ns(CLOCK_MONOTONIC), since;
	int own_fd = raw_attach(self->name, 0, 0), fds[2];
	struct agent agents[2];

	ASSERT_LE(0, own_fd);
	for (int i = 0; i < 2; i++) {
		fds[i] = enlist_client(&agents[i], self->name, 0);
		ASSERT_LE(0, fds[i]);
	}
	EXPECT_EQ(0, lock_by(&agents[0], fds[0], 0, 0));
	since = status_of(self->lock).held_since;
	EXPECT_TRUE(!since || (since >= before && since <= now_ns(CLOCK_MONOTONIC)));

	/* who waits makes it known, at the latest when it takes over */
	tell_lock(&agents[1], fds[1], 0);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	since = status_of(self->lock).held_since;
	EXPECT_TRUE(!since || (since >= before && since <= now_ns(CLOCK_MONOTONIC)));
	before = now_ns(CLOCK_MONOTONIC);
	EXPECT_EQ(0, unlock_by(&agents[0], fds[0], 0));
	EXPECT_EQ(0, answer(&agents[1], NULL, 0));
	since = status_of(self->lock).held_since;
	EXPECT_TRUE(!since || (since >= before && since <= now_ns(CLOCK_MONOTONIC)));

	/* and who waited in vain is no reason to think that the next one has it as long */
	EXPECT_EQ(-ETIMEDOUT, raw_lock(own_fd, 0, KLOCK_LOCK_DEADLINE,
				       now_ns(CLOCK_MONOTONIC) + 20 * NSEC_PER_MSEC));
	EXPECT_EQ(0, unlock_by(&agents[1], fds[1], 0));
	EXPECT_EQ(0, status_of(self->lock).held_since);
	before = now_ns(CLOCK_MONOTONIC);
	EXPECT_EQ(0, lock_by(&agents[0], fds[0], 0, 0));
	since = status_of(self->lock).held_since;
	EXPECT_TRUE(!since || (since >= before && since <= now_ns(CLOCK_MONOTONIC)));
}

/* Waits for the lock again and again, for a while at most. */
static void keep_trying(const char *name)
{
	int fd = raw_attach(name, 0, 0), ret;
	unsigned int seed = getpid();
	uint64_t until;

	for (;;) {
		until = now_ns(CLOCK_MONOTONIC) + rand_r(&seed) % (NSEC_PER_MSEC / 2);
		ret = raw_lock(fd, 0, KLOCK_LOCK_DEADLINE, until);
		/* The other one is killed at the end, perhaps while it holds the lock. */
		CHECK(ret == 0 || ret == KLOCK_OWNER_DIED || ret == -ETIMEDOUT);
		if (ret >= 0)
			CHECK(raw_unlock(fd, 0) == 0);
	}
}

/*
 * The last waiter goes, and with it what it knew of the holder, also when
 * another is on its way to the queue: the lock may change hands unseen between.
 */
TEST_F_TIMEOUT(list, held_since_of_another_holder, 60)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 10 * NSEC_PER_SEC, before, until;
	int fd = raw_attach(self->name, 0, 0);
	unsigned int known = 0, seed = 1;
	struct klock_ioc_status status;
	cpu_set_t any, one;
	pid_t pid[2];

	/* They share a processor, so that one comes between any two steps of the other. */
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(any), &any));
	ASSERT_EQ(0, pin_here(0));
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(one), &one));
	for (int i = 0; i < 2; i++) {
		pid[i] = spawn();
		if (!pid[i])
			keep_trying(self->name);
	}
	CPU_XOR(&one, &one, &any);
	sched_setaffinity(0, sizeof(one), CPU_COUNT(&one) ? &one : &any);

	while ((before = now_ns(CLOCK_MONOTONIC)) < end) {
		ASSERT_EQ(0, raw_lock(fd, 0, 0, 0));
		until = now_ns(CLOCK_MONOTONIC) + rand_r(&seed) % NSEC_PER_MSEC;
		do {
			ASSERT_EQ(0, raw_status(fd, 0, &status));
			known += status.held_since != 0;
			ASSERT_TRUE(status.held_since == 0 || status.held_since >= before);
		} while (now_ns(CLOCK_MONOTONIC) < until);
		ASSERT_EQ(0, raw_unlock(fd, 0));
	}
	EXPECT_LT(0, known);
	for (int i = 0; i < 2; i++) {
		EXPECT_EQ(-SIGKILL, slay(pid[i]));
	}
}

/* Takes the lock as one client after the other, each of which closes with it. */
static void die_again_and_again(const char *name, uint32_t id)
{
	for (;;) {
		int fd = raw_attach(name, 0, 0);

		CHECK(fd >= 0 && raw_lock(fd, id, 0, 0) >= 0);
		close(fd);
	}
}

static void look_again_and_again(const char *name, atomic_uint *seen)
{
	int fd = raw_attach(name, 0, 0);
	struct klock_ioc_status status;
	uint32_t i;

	for (i = 0; ; i++) {
		CHECK(raw_status(fd, i % 2, &status) == 0);
		*seen += !!(status.flags & KLOCK_STATUS_HELD);
	}
}

#define LOOKERS	6

/* More look than there are processors, so that one is stopped in the middle of its look. */
TEST_F_TIMEOUT(list, who_is_looked_at_may_be_gone, 60)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 3 * NSEC_PER_SEC;
	atomic_uint *seen = shared(sizeof(*seen));
	pid_t pid[2 + LOOKERS];
	int i;

	for (i = 0; i < 2 + LOOKERS; i++) {
		pid[i] = spawn();
		if (pid[i])
			continue;
		if (i < 2)
			die_again_and_again(self->name, i);
		else
			look_again_and_again(self->name, seen);
	}
	EXPECT_TRUE(UNTIL(now_ns(CLOCK_MONOTONIC) > end && *seen > 1000));
	for (i = 0; i < 2 + LOOKERS; i++) {
		EXPECT_EQ(-SIGKILL, slay(pid[i]));
	}
}

#define IDS	4U

static void allocate_again_and_again(const char *name)
{
	int fd = raw_attach(name, 0, 0);
	uint32_t i;

	for (i = 0; ; i++) {
		struct klock_ioc_allocate allocate = {};
		struct klock_ioc_id all = {}, one = {};
		int id = raw_ioctl(fd, KLOCK_IOC_ALLOCATE, &allocate);

		CHECK(id == 0 || id == 1);
		one.id = id;
		if (i % IDS)
			raw_ioctl(fd, KLOCK_IOC_FREE, &one);	/* unless the other was first */
		else
			CHECK(raw_ioctl(fd, KLOCK_IOC_FREE_ALL, &all) == 0);
	}
}

/* Two allocate one each, so that no other id than the first two is ever to be seen. */
static void count_again_and_again(const char *name, atomic_uint *seen)
{
	struct klock_ioc_status status[IDS];
	int fd = raw_attach(name, 0, 0), i, n;

	for (;;) {
		struct klock_ioc_list list = {
			.entries = (uintptr_t)status, .count = IDS, .entry_size = sizeof(status[0]),
		};

		n = raw_ioctl(fd, KLOCK_IOC_LIST, &list);
		CHECK(n >= 0 && n <= 2 && raw_info(fd).allocated <= 2);
		for (i = 0; i < n; i++)
			CHECK(status[i].id < 2 && !(status[i].flags & ~KLOCK_STATUS_ALLOCATED));
		*seen += n;
	}
}

/* Lists, counts and what is allocated, while that changes. */
TEST_F_TIMEOUT(list, who_allocates_is_looked_at, 60)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 2 * NSEC_PER_SEC;
	atomic_uint *seen = shared(sizeof(*seen));
	pid_t pid[4];
	int i;

	for (i = 0; i < 4; i++) {
		pid[i] = spawn();
		if (pid[i])
			continue;
		if (i < 2)
			allocate_again_and_again(self->name);
		else
			count_again_and_again(self->name, seen);
	}
	EXPECT_TRUE(UNTIL(now_ns(CLOCK_MONOTONIC) > end && *seen > 1000));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(-SIGKILL, slay(pid[i]));
	}
}

/* waiters and waiting_since: of the first in the queue. */
TEST_F(list, waiting_since)
{
	uint64_t before[3], after[3];
	struct klock_status status;
	struct agent agents[3];
	int fds[3];

	EXPECT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(0, waiters_of(self->lock));
	for (uint32_t i = 0; i < 3; i++) {
		fds[i] = enlist_client(&agents[i], self->name, 0);
		ASSERT_LE(0, fds[i]);
		before[i] = now_ns(CLOCK_MONOTONIC);
		tell_lock(&agents[i], fds[i], 0);
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == i + 1));
		after[i] = now_ns(CLOCK_MONOTONIC);
		status = status_of(self->lock);
		EXPECT_LE(before[0], status.waiting_since);
		EXPECT_GE(after[0], status.waiting_since);
		EXPECT_EQ((uint32_t)getpid(), status.pid);
		EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status.flags);
	}
	EXPECT_EQ(-SIGKILL, slay(agents[0].pid));
	status = status_of(self->lock);
	EXPECT_EQ(2, status.waiters);
	EXPECT_LE(before[1], status.waiting_since);
	EXPECT_GE(after[1], status.waiting_since);

	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, answer(&agents[1], NULL, 0));
	status = status_of(self->lock);
	EXPECT_EQ((uint32_t)agents[1].pid, status.pid);
	EXPECT_EQ(1, status.waiters);
	EXPECT_LE(before[2], status.waiting_since);
	EXPECT_GE(after[2], status.waiting_since);
	EXPECT_EQ(0, unlock_by(&agents[1], fds[1], 0));
	EXPECT_EQ(0, answer(&agents[2], NULL, 0));
	status = status_of(self->lock);
	EXPECT_EQ((uint32_t)agents[2].pid, status.pid);
	EXPECT_EQ(0, status.waiters);
	EXPECT_EQ(0, status.waiting_since);
}

/* Waiters in their order, at most as many as there is room for. */
TEST_F(list, waiters)
{
	struct klock_waiter waiters[12], none;
	struct agent agents[10];

	EXPECT_EQ(0, klock_waiters(self->lock, waiters, 12));
	EXPECT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(0, klock_waiters(self->lock, waiters, 12));
	for (uint32_t i = 0; i < 10; i++) {
		uint64_t before = now_ns(CLOCK_MONOTONIC);
		int fd = enlist_client(&agents[i], self->name, i % 2 ? KLOCK_ATTACH_ERRORCHECK : 0);

		ASSERT_LE(0, fd);
		tell_lock(&agents[i], fd, 0);
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == i + 1));
		POISON(waiters);
		EXPECT_EQ((int)i + 1, klock_waiters(self->lock, waiters, 12));
		EXPECT_LE(before, waiters[i].since);
		EXPECT_GE(now_ns(CLOCK_MONOTONIC), waiters[i].since);
		for (uint32_t k = 0; k <= i; k++) {
			EXPECT_EQ((uint32_t)agents[k].pid, waiters[k].pid);
			EXPECT_EQ((uint32_t)agents[k].pid, waiters[k].tid);
			EXPECT_TRUE(!k || waiters[k - 1].since <= waiters[k].since);
		}
	}
	EXPECT_EQ(waiters[0].since, status_of(self->lock).waiting_since);
	POISON(waiters);
	POISON(none);
	EXPECT_EQ(3, klock_waiters(self->lock, waiters, 3));
	EXPECT_EQ((uint32_t)agents[2].pid, waiters[2].pid);
	EXPECT_EQ(0, memcmp(&waiters[3], &none, sizeof(none)));
	EXPECT_EQ(0, klock_waiters(self->lock, NULL, 0));

	/* whoever leaves is not there any more */
	EXPECT_EQ(-SIGKILL, slay(agents[5].pid));
	EXPECT_EQ(9, klock_waiters(self->lock, waiters, 12));
	EXPECT_EQ((uint32_t)agents[4].pid, waiters[4].pid);
	EXPECT_EQ((uint32_t)agents[6].pid, waiters[5].pid);
}

static void *wait_in_thread(void *arg)
{
	struct keeper *keeper = arg;

	keeper->tid = thread_id();
	keeper->ret = klock_lock(keeper->self->lock);
	return NULL;
}

/* A thread that waits is shown with its own number, beside its process's. */
TEST_F(list, waiting_thread)
{
	struct keeper keeper = { .self = self };
	struct klock_waiter waiter;
	pthread_t thread;

	EXPECT_EQ(0, klock_lock(self->lock));
	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_in_thread, &keeper));
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	POISON(waiter);
	EXPECT_EQ(1, klock_waiters(self->lock, &waiter, 1));
	EXPECT_EQ((uint32_t)getpid(), waiter.pid);
	EXPECT_EQ((uint32_t)keeper.tid, waiter.tid);
	EXPECT_NE(waiter.pid, waiter.tid);
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, keeper.ret);
}

/* What a list has: locks that are allocated, held, waited for or whose owner died. */
TEST_F(list, which_locks)
{
	struct klock_status list[64], status, none;
	struct klock *locks[8], *taken;
	struct agent holder, waiter;
	int fd = enlist_client(&holder, self->name, 0), fd2 = enlist_client(&waiter, self->name, 0);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, fd2);
	EXPECT_EQ(0, klock_list(self->space, 0, list, 64));
	for (int i = 0; i < 8; i++) {
		locks[i] = get_lock(self->space, 5 + 7 * i);
		ASSERT_NE(NULL, locks[i]);
	}
	EXPECT_EQ(0, klock_allocate_id(self->space, klock_id(locks[0]), &taken));
	EXPECT_EQ(0, klock_lock(locks[1]));
	EXPECT_EQ(0, lock_by(&holder, fd, klock_id(locks[2]), 0));
	EXPECT_EQ(0, close_by(&holder, fd));				/* 2: died */
	EXPECT_EQ(0, klock_lock(locks[3]));
	tell_lock(&waiter, fd2, klock_id(locks[3]));
	ASSERT_TRUE(UNTIL(waiters_of(locks[3]) == 1));
	EXPECT_EQ(0, klock_lock(locks[4]));				/* was held */
	EXPECT_EQ(0, klock_unlock(locks[4]));
	EXPECT_EQ(0, klock_allocate_id(self->space, klock_id(locks[5]), &taken));
	EXPECT_EQ(0, klock_free(locks[5]));				/* was allocated */
	EXPECT_EQ(0, klock_allocate_id(self->space, klock_id(locks[6]), &taken));
	EXPECT_EQ(0, klock_lock(locks[6]));

	POISON(list);
	POISON(none);
	EXPECT_EQ(5, klock_list(self->space, 0, list, 64));
	EXPECT_EQ(KLOCK_ALLOCATED, list[0].flags);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, list[1].flags);
	EXPECT_EQ(KLOCK_DIED, list[2].flags);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, list[3].flags);
	EXPECT_EQ(1, list[3].waiters);
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_HELD | KLOCK_MINE, list[4].flags);
	for (int i = 0; i < 5; i++) {	/* each as its status says */
		struct klock *lock = locks[i < 4 ? i : 6];

		status = status_of(lock);
		EXPECT_EQ(klock_id(lock), list[i].id);
		EXPECT_EQ(0, memcmp(&status, &list[i], sizeof(status)));
	}
	EXPECT_EQ(0, memcmp(&none, &list[5], sizeof(none)));
}

/* From `first` on, and no more than there is room for. */
TEST_F(list, pages)
{
	struct klock_status list[16], none;
	struct klock *taken;
	uint32_t first = 0;
	int n;

	POISON(none);
	for (uint32_t id = 3; id < 64; id += 6) {
		ASSERT_EQ(0, klock_allocate_id(self->space, id, &taken));
		klock_put(taken);
	}
	for (int count = 0; count < 11; count++) {
		POISON(list);
		EXPECT_EQ(count, klock_list(self->space, 0, list, count));
		EXPECT_EQ(0, memcmp(&list[count], &none, sizeof(none)));
	}
	EXPECT_EQ(11, klock_list(self->space, 0, list, 16));
	EXPECT_EQ(11, klock_list(self->space, 3, list, 16));
	EXPECT_EQ(10, klock_list(self->space, 4, list, 16));
	EXPECT_EQ(9, list[0].id);
	EXPECT_EQ(1, klock_list(self->space, 63, list, 16));
	EXPECT_EQ(0, klock_list(self->space, 64, list, 16));
	EXPECT_EQ(0, klock_list(self->space, UINT32_MAX, list, 16));
	EXPECT_EQ(0, klock_list(self->space, 0, NULL, 0));

	for (uint32_t id = 3; id < 64; first = list[n - 1].id + 1) {
		n = klock_list(self->space, first, list, 4);
		ASSERT_LT(0, n);
		for (int i = 0; i < n; i++, id += 6) {
			ASSERT_EQ(id, list[i].id);
		}
	}
	EXPECT_EQ(0, klock_list(self->space, first, list, 4));
}

/* A few in a large space, at the edges of whatever it is made of. */
TEST_F(list, sparse)
{
	static const uint32_t ids[] = { 0, 1, 510, 511, 512, 513, 65535, 65536, 524287, 524288,
					(1U << 20) - 2, (1U << 20) - 1 };
	struct klock_status list[ARRAY_SIZE(ids) + 1];
	struct klock *lock;
	uint64_t start;
	int n;

	ASSERT_EQ(0, klock_space_resize(self->space, 1U << 20));
	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++) {
		lock = get_lock(self->space, ids[i]);
		ASSERT_NE(NULL, lock);
		EXPECT_EQ(0, klock_lock(lock));
		klock_put(lock);
	}
	start = now_ns(CLOCK_MONOTONIC);
	n = klock_list(self->space, 0, list, ARRAY_SIZE(list));
	TH_LOG("%d of 1048576 locks listed in %llu us", n,
	       (unsigned long long)(now_ns(CLOCK_MONOTONIC) - start) / 1000);
	EXPECT_EQ((int)ARRAY_SIZE(ids), n);
	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++) {
		EXPECT_EQ(ids[i], list[i].id);
		EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, list[i].flags);
	}
	EXPECT_EQ(1, klock_list(self->space, (1U << 20) - 1, list, 1));
}

/* 100,000 allocated locks, in one call and a hundred at a time. */
#define MANY	100000U

TEST_F_TIMEOUT(list, many, 60)
{
	struct klock_status *list = calloc(MANY + 1, sizeof(*list));
	struct klock *taken;
	uint64_t start;
	uint32_t wrong = 0;
	int n, done = 0;

	ASSERT_EQ(0, klock_space_resize(self->space, MANY + 1000));
	for (uint32_t i = 0; i < MANY; i++) {
		ASSERT_EQ(0, klock_allocate(self->space, &taken));
		klock_put(taken);
	}
	start = now_ns(CLOCK_MONOTONIC);
	n = klock_list(self->space, 0, list, MANY + 1);
	TH_LOG("%u locks listed in %llu us", MANY,
	       (unsigned long long)(now_ns(CLOCK_MONOTONIC) - start) / 1000);
	EXPECT_GT(10 * NSEC_PER_SEC * patience(), now_ns(CLOCK_MONOTONIC) - start);
	EXPECT_EQ((int)MANY, n);
	for (uint32_t i = 0; i < MANY; i++)
		wrong += list[i].id != i || list[i].flags != KLOCK_ALLOCATED;
	EXPECT_EQ(0, wrong);

	memset(list, 0xa5, MANY * sizeof(*list));
	start = now_ns(CLOCK_MONOTONIC);
	while ((n = klock_list(self->space, done, list + done, 100)) > 0)
		done += n;
	TH_LOG("%u locks listed by 100 in %llu us", MANY,
	       (unsigned long long)(now_ns(CLOCK_MONOTONIC) - start) / 1000);
	EXPECT_EQ((int)MANY, done);
	for (uint32_t i = 0; i < MANY; i++)
		wrong += list[i].id != i || list[i].flags != KLOCK_ALLOCATED;
	EXPECT_EQ(0, wrong);
	free(list);
}

/* The counters of the info are those of the list. */
TEST_F(list, info_agrees)
{
	struct klock_status list[64];
	struct klock_space_info info;
	uint32_t allocated = 0, held = 0, waiting = 0;
	struct agent agents[3];
	int fds[3], n;

	for (int i = 0; i < 3; i++) {
		fds[i] = enlist_client(&agents[i], self->name, 0);
		ASSERT_LE(0, fds[i]);
		for (int k = 0; k < 4; k++) {
			EXPECT_EQ(10 * i + k, allocate_by(&agents[i], fds[i], 10 * i + k));
			EXPECT_EQ(0, lock_by(&agents[i], fds[i], 10 * i + 2 * k, 0));
		}
	}
	EXPECT_EQ(0, close_by(&agents[0], fds[0]));
	tell_lock(&agents[1], fds[1], 20);
	ASSERT_TRUE(UNTIL(klock_space_info(self->space, &info) == 0 && info.waiting == 1));
	tell_lock(&agents[2], fds[2], 10);
	ASSERT_TRUE(UNTIL(klock_space_info(self->space, &info) == 0 && info.waiting == 2));

	n = klock_list(self->space, 0, list, 64);
	EXPECT_LT(0, n);
	for (int i = 0; i < n; i++) {
		allocated += !!(list[i].flags & KLOCK_ALLOCATED);
		held += !!(list[i].flags & KLOCK_HELD);
		waiting += list[i].waiters;
	}
	EXPECT_EQ(12, allocated);
	EXPECT_EQ(8, held);
	EXPECT_EQ(2, waiting);
	EXPECT_EQ(allocated, info.allocated);
	EXPECT_EQ(held, info.held);
	EXPECT_EQ(waiting, info.waiting);
	EXPECT_EQ(3, info.clients);
}

static void need_namespaces(struct __test_metadata *_metadata, int flags, bool *have)
{
	*have = !unshare(flags);
	if (!*have)
		SKIP(return, "no right to make namespaces: %s", strerror(errno));
}

/*
 * pids are those of the reader's namespace: a child namespace is seen from here
 * with our numbers, and in it those outside are not seen at all.
 */
TEST_F(list, pid_namespace)
{
	struct klock_waiter waiters[2];
	struct klock_ioc_waiter *seen = shared(2 * sizeof(*seen));
	struct klock_ioc_list list = {
		.entries = (uintptr_t)seen,
		.count = 2,
		.entry_size = sizeof(*seen),
	};
	struct agent outer, inner, reader;
	struct klock_ioc_status status;
	int outer_fd, inner_fd, fd;
	bool have;

	outer_fd = enlist_client(&outer, self->name, 0);
	ASSERT_LE(0, outer_fd);
	need_namespaces(_metadata, CLONE_NEWPID, &have);
	if (!have)
		return;
	fd = enlist_client(&reader, self->name, 0);	/* 1 in there */
	inner_fd = enlist_client(&inner, self->name, 0);	/* 2 */
	ASSERT_LE(0, fd);
	ASSERT_LE(0, inner_fd);

	/* held inside */
	EXPECT_EQ(0, lock_by(&inner, inner_fd, 0, 0));
	status = status_by(&reader, fd, 0);
	EXPECT_EQ(2, status.pid);
	EXPECT_EQ(2, status.tid);
	EXPECT_EQ((uint32_t)inner.pid, status_of(self->lock).pid);
	EXPECT_EQ((uint32_t)inner.pid, status_of(self->lock).tid);

	/* held outside */
	EXPECT_EQ(0, lock_by(&outer, outer_fd, 1, 0));
	status = status_by(&reader, fd, 1);
	EXPECT_EQ(KLOCK_STATUS_HELD, status.flags);
	EXPECT_EQ(0, status.pid);
	EXPECT_EQ(0, status.tid);
	EXPECT_NE(0, status.token);

	/* waited for by both */
	EXPECT_EQ(0, klock_lock(get_lock(self->space, 2)));
	tell_lock(&inner, inner_fd, 2);
	ASSERT_TRUE(UNTIL(waiters_of(get_lock(self->space, 2)) == 1));
	tell_lock(&outer, outer_fd, 2);
	ASSERT_TRUE(UNTIL(waiters_of(get_lock(self->space, 2)) == 2));
	EXPECT_EQ(2, klock_waiters(get_lock(self->space, 2), waiters, 2));
	EXPECT_EQ((uint32_t)inner.pid, waiters[0].pid);
	EXPECT_EQ((uint32_t)inner.pid, waiters[0].tid);
	EXPECT_EQ((uint32_t)outer.pid, waiters[1].pid);
	list.id = 2;
	memset(seen, 0xa5, 2 * sizeof(*seen));
	EXPECT_EQ(2, ioctl_by(&reader, fd, KLOCK_IOC_WAITERS, &list));
	EXPECT_EQ(2, seen[0].pid);
	EXPECT_EQ(2, seen[0].tid);
	EXPECT_EQ(0, seen[1].pid);
	EXPECT_EQ(0, seen[1].tid);
	EXPECT_EQ(waiters[1].since, seen[1].since);
}

/* Times are of the reader's time namespace. */
TEST_F(list, time_namespace)
{
	const uint64_t ahead = 1000000 * NSEC_PER_SEC;
	struct klock_ioc_waiter *seen = shared(sizeof(*seen));
	struct klock_ioc_list list = {
		.entries = (uintptr_t)seen,
		.count = 1,
		.entry_size = sizeof(*seen),
	};
	struct agent waiter, reader;
	struct klock_status mine;
	struct klock_ioc_status status;
	int waiter_fd = enlist_client(&waiter, self->name, 0), fd, offsets;
	bool have;

	ASSERT_LE(0, waiter_fd);
	need_namespaces(_metadata, CLONE_NEWTIME, &have);
	if (!have)
		return;
	offsets = open("/proc/self/timens_offsets", O_WRONLY);
	ASSERT_EQ(19, write(offsets, "monotonic 1000000 0", 19));
	close(offsets);
	fd = enlist_client(&reader, self->name, 0);
	ASSERT_LE(0, fd);

	EXPECT_EQ(0, klock_lock(self->lock));
	tell_lock(&waiter, waiter_fd, 0);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	mine = status_of(self->lock);
	status = status_by(&reader, fd, 0);
	EXPECT_NE(0, mine.waiting_since);
	EXPECT_EQ(mine.waiting_since + ahead, status.waiting_since);
	EXPECT_EQ(mine.held_since ? mine.held_since + ahead : 0, status.held_since);
	EXPECT_EQ(1, ioctl_by(&reader, fd, KLOCK_IOC_WAITERS, &list));
	EXPECT_EQ(mine.waiting_since + ahead, seen->since);

	/* nothing is nothing there, too */
	status = status_by(&reader, fd, 1);
	EXPECT_EQ(0, status.held_since);
	EXPECT_EQ(0, status.waiting_since);
}

TEST_HARNESS_MAIN
