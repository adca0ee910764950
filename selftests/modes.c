// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The two modes: normal, in which the client holds a lock and any of its
 * threads may unlock it, and errorcheck, in which a thread does, and in which a
 * wait that would close a cycle of waiting threads is refused.
 */
#include "klock_test.h"

#include <semaphore.h>
#include <sys/syscall.h>

#define SPACES		4
#define LOCKS		48		/* lock n is number n / SPACES of space n % SPACES */
#define RING_MAX	40
#define ACTORS		(RING_MAX + 2)

/* A wait that is to be given up soon, and one whose end no test sees. */
#define SOON_MS		100
#define FAR_MS		3600000

/*
 * A thread, or a process, that does what the test tells it, one act after the
 * other.  Actors and what they are told are in memory that processes share;
 * handles are got before a process is made and mean the same lock in it.
 */
struct actor {
	sem_t go, done;
	int (*act)(struct actor *me);
	struct klock *lock;		/* what the act is about */
	struct klock *other;
	unsigned int times;
	struct timespec deadline;
	atomic_uint *gate;		/* where two meet before they lock, or NULL */
	int ret;

	pthread_t thread;
	pid_t pid, tid;
	struct klock *const *locks;	/* its handles on all locks */
	struct klock *own[LOCKS];	/* if it has clients of its own */
};

struct stage {
	char name[SPACES][KLOCK_NAME_SIZE];
	struct klock_space *space[SPACES];
	struct klock *lock[LOCKS];
	struct actor *actor;
	unsigned int actors;
};

/* What an actor is, beside the thread of the test. */
enum kind {
	THREAD,		/* one more thread of the same clients */
	CLIENT,		/* a thread that has clients of its own */
	PROCESS,
};

static void get_locks(struct klock_space *const *space, struct klock **lock)
{
	unsigned int n;

	for (n = 0; n < LOCKS; n++)
		lock[n] = get_lock(space[n % SPACES], n / SPACES);
}

static void set_stage(struct __test_metadata *_metadata, struct stage *stage, unsigned int flags)
{
	unsigned int i;

	for (i = 0; i < SPACES; i++) {
		snprintf(stage->name[i], KLOCK_NAME_SIZE, "%.40s-%d-%u", _metadata->name,
			 getpid(), i);
		stage->space[i] = make_space(stage->name[i], LOCKS / SPACES, flags);
		ASSERT_NE(NULL, stage->space[i]);
	}
	get_locks(stage->space, stage->lock);
	for (i = 0; i < LOCKS; i++) {
		ASSERT_NE(NULL, stage->lock[i]);
	}
	stage->actor = shared(ACTORS * sizeof(*stage->actor));
}

/* Actors are still there, and go with the test; so do their clients. */
static void clear_stage(struct __test_metadata *_metadata, struct stage *stage)
{
	unsigned int i;

	for (i = 0; i < SPACES; i++) {
		EXPECT_EQ(0, klock_space_remove(stage->name[i], KLOCK_FORCE));
	}
}

static void *be_actor(void *arg)
{
	struct actor *me = arg;

	me->tid = syscall(SYS_gettid);
	for (;;) {
		sem_post(&me->done);
		while (sem_wait(&me->go))
			CHECK(errno == EINTR);
		me->ret = me->act(me);
	}
	return NULL;
}

static bool is_done(struct actor *actor)
{
	struct timespec end = in_ms(CLOCK_REALTIME, PATIENCE_MS);

	return sem_timedwait(&actor->done, &end) == 0;
}

/* One more actor, the number of which is returned; a process dies with the test. */
static unsigned int hire(struct __test_metadata *_metadata, struct stage *stage, enum kind kind)
{
	struct actor *actor = &stage->actor[stage->actors];
	struct klock_space *space[SPACES];
	pid_t pid = getpid();
	unsigned int i;

	ASSERT_GT(ACTORS, stage->actors);
	ASSERT_EQ(0, sem_init(&actor->go, 1, 0));
	ASSERT_EQ(0, sem_init(&actor->done, 1, 0));
	actor->locks = stage->lock;
	if (kind == CLIENT) {
		for (i = 0; i < SPACES; i++) {
			space[i] = join_space(stage->name[i], KLOCK_ERRORCHECK);
			ASSERT_NE(NULL, space[i]);
		}
		get_locks(space, actor->own);
		actor->locks = actor->own;
	}
	if (kind == PROCESS) {
		pid = spawn();
		if (pid == 0)
			be_actor(actor);
	} else {
		ASSERT_EQ(0, pthread_create(&actor->thread, NULL, be_actor, actor));
	}
	ASSERT_TRUE(is_done(actor));
	actor->pid = pid;	/* not before: a child shares it */
	return stage->actors++;
}

/* Starts an act on a lock, of which the actor's handle is given. */
static void start(struct actor *actor, int (*act)(struct actor *me), struct klock *lock)
{
	actor->act = act;
	actor->lock = lock;
	actor->ret = -1000;
	sem_post(&actor->go);
}

/* Starts an act on lock number @n. */
static void begin(struct actor *actor, int (*act)(struct actor *me), unsigned int n)
{
	start(actor, act, actor->locks[n]);
}

/* The result of the act that was begun: -1000, which no call returns, if it does not end. */
static int end(struct actor *actor)
{
	return is_done(actor) ? actor->ret : -1000;
}

static int call(struct actor *actor, int (*act)(struct actor *me), unsigned int n)
{
	begin(actor, act, n);
	return end(actor);
}

static int do_lock(struct actor *me)
{
	if (me->gate) {
		atomic_fetch_add(me->gate, 1);
		while (atomic_load(me->gate) < 2)
			sched_yield();
	}
	return klock_lock(me->lock);
}

static int do_trylock(struct actor *me)
{
	return klock_trylock(me->lock);
}

static int do_lock_until(struct actor *me)
{
	return klock_lock_until(me->lock, CLOCK_MONOTONIC, &me->deadline);
}

static int do_unlock(struct actor *me)
{
	return klock_unlock(me->lock);
}

/* The last act of a thread. */
static int do_exit(struct actor *me)
{
	(void)me;
	pthread_exit(NULL);
}

/* Ends a thread and waits until nothing is left of it. */
static bool dismiss(struct actor *actor)
{
	start(actor, do_exit, NULL);
	return pthread_join(actor->thread, NULL) == 0 &&
	       UNTIL(syscall(SYS_tgkill, actor->pid, actor->tid, 0) < 0);
}

/* Starts to wait for lock @n with a deadline. */
static void begin_until(struct actor *actor, unsigned int n, int ms)
{
	actor->deadline = in_ms(CLOCK_MONOTONIC, ms);
	begin(actor, do_lock_until, n);
}

static int lock_within(struct klock *lock, int ms)
{
	struct timespec deadline = in_ms(CLOCK_MONOTONIC, ms);

	return klock_lock_until(lock, CLOCK_MONOTONIC, &deadline);
}

static bool is_idle(struct klock *lock)
{
	struct klock_status status = status_of(lock);

	return status.flags == 0 && status.waiters == 0 && status.token == 0;
}

/* Whether the actor is the holder, as far as the status says. */
static bool holds(struct stage *stage, unsigned int actor, unsigned int n)
{
	struct klock_status status = status_of(stage->lock[n]);

	return status.flags & KLOCK_HELD && status.pid == (uint32_t)stage->actor[actor].pid &&
	       status.tid == (uint32_t)stage->actor[actor].tid;
}

/* Whether the actor, and nobody else, waits for the lock. */
static bool waits(struct stage *stage, unsigned int actor, unsigned int n)
{
	struct klock_waiter waiter[2];

	POISON(waiter);
	return klock_waiters(stage->lock[n], waiter, 2) == 1 &&
	       waiter[0].pid == (uint32_t)stage->actor[actor].pid &&
	       waiter[0].tid == (uint32_t)stage->actor[actor].tid;
}

FIXTURE(normal) {
	struct stage stage;
};

FIXTURE_SETUP(normal)
{
	set_stage(_metadata, &self->stage, 0);
}

FIXTURE_TEARDOWN(normal)
{
	clear_stage(_metadata, &self->stage);
}

TEST_F(normal, any_thread_unlocks)
{
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];

	ASSERT_EQ(0, call(actor, do_lock, 0));
	EXPECT_TRUE(holds(&self->stage, a, 0));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->stage.lock[0]).flags);
	EXPECT_EQ(0, klock_unlock(self->stage.lock[0]));
	EXPECT_TRUE(is_idle(self->stage.lock[0]));

	ASSERT_EQ(0, klock_lock(self->stage.lock[0]));
	EXPECT_EQ(0, call(actor, do_unlock, 0));
	EXPECT_EQ(-EPERM, klock_unlock(self->stage.lock[0]));
	EXPECT_TRUE(is_idle(self->stage.lock[0]));
}

TEST_F(normal, locking_again_blocks_until_any_thread_unlocks)
{
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];

	ASSERT_EQ(0, call(actor, do_lock, 0));
	EXPECT_EQ(-EBUSY, call(actor, do_trylock, 0));
	begin_until(actor, 0, SOON_MS);
	EXPECT_EQ(-ETIMEDOUT, end(actor));
	begin(actor, do_lock, 0);
	ASSERT_TRUE(UNTIL(waits(&self->stage, a, 0)));
	EXPECT_EQ(0, klock_unlock(self->stage.lock[0]));
	EXPECT_EQ(0, end(actor));

	/* The same for another thread than the one that has it. */
	EXPECT_EQ(-EBUSY, klock_trylock(self->stage.lock[0]));
	EXPECT_EQ(-ETIMEDOUT, lock_within(self->stage.lock[0], SOON_MS));
	EXPECT_EQ(0, call(actor, do_unlock, 0));
	EXPECT_TRUE(is_idle(self->stage.lock[0]));
}

TEST_F(normal, lock_outlives_the_thread_that_took_it)
{
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];

	ASSERT_EQ(0, call(actor, do_lock, 0));
	ASSERT_TRUE(dismiss(actor));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->stage.lock[0]).flags);
	EXPECT_EQ(-EBUSY, klock_trylock(self->stage.lock[0]));
	EXPECT_EQ(0, klock_unlock(self->stage.lock[0]));
	EXPECT_TRUE(is_idle(self->stage.lock[0]));
}

/* A descriptor that a child has inherited is the same client. */
TEST_F(normal, child_unlocks_through_the_same_description)
{
	int fd = raw_attach(self->stage.name[0], 0, 0);
	pid_t pid;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, raw_lock(fd, 0, 0, 0));
	pid = spawn();
	if (pid == 0) {
		CHECK(raw_lock(fd, 0, KLOCK_LOCK_TRY, 0) == -EBUSY);
		CHECK(raw_unlock(fd, 0) == 0);
		CHECK(raw_lock(fd, 1, 0, 0) == 0);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	EXPECT_EQ(-EPERM, raw_unlock(fd, 0));
	EXPECT_EQ(0, raw_unlock(fd, 1));
	EXPECT_EQ(0, close(fd));
}

/* What is a cycle of threads need not be one of clients, so nobody looks for any. */
TEST_F(normal, cycles_are_not_looked_for)
{
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];

	ASSERT_EQ(0, call(actor, do_lock, 0));
	ASSERT_EQ(0, klock_lock(self->stage.lock[1]));
	begin(actor, do_lock, 1);
	ASSERT_TRUE(UNTIL(waits(&self->stage, a, 1)));
	EXPECT_EQ(-ETIMEDOUT, lock_within(self->stage.lock[0], SOON_MS));
	EXPECT_EQ(0, klock_unlock(self->stage.lock[1]));
	EXPECT_EQ(0, end(actor));
}

FIXTURE(errorcheck) {
	struct stage stage;
};

FIXTURE_SETUP(errorcheck)
{
	set_stage(_metadata, &self->stage, KLOCK_ERRORCHECK);
}

FIXTURE_TEARDOWN(errorcheck)
{
	clear_stage(_metadata, &self->stage);
}

TEST_F(errorcheck, locking_again_is_edeadlk)
{
	struct klock *lock = self->stage.lock[0];
	struct klock_status before, after;
	int fd = klock_space_fd(self->stage.space[0]);

	ASSERT_EQ(0, klock_lock(lock));
	before = status_of(lock);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, before.flags);
	EXPECT_EQ((uint32_t)getpid(), before.pid);
	EXPECT_EQ((uint32_t)syscall(SYS_gettid), before.tid);

	EXPECT_EQ(-EDEADLK, klock_lock(lock));
	EXPECT_EQ(-EDEADLK, lock_within(lock, FAR_MS));
	EXPECT_EQ(-EDEADLK, lock_within(lock, -1));
	EXPECT_EQ(-EBUSY, klock_trylock(lock));
	EXPECT_EQ(-EDEADLK, raw_lock(fd, 0, 0, 0));
	EXPECT_EQ(-EBUSY, raw_lock(fd, 0, KLOCK_LOCK_TRY, 0));
	after = status_of(lock);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));

	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(-EPERM, klock_unlock(lock));
	EXPECT_TRUE(is_idle(lock));
}

/* A thread that has the lock through one client and asks through another waits for itself. */
TEST_F(errorcheck, locking_again_through_another_client_is_edeadlk)
{
	struct klock_space *second = join_space(self->stage.name[0], KLOCK_ERRORCHECK);
	struct klock *again;

	ASSERT_NE(NULL, second);
	again = get_lock(second, 0);
	ASSERT_NE(NULL, again);
	ASSERT_EQ(0, klock_lock(self->stage.lock[0]));
	EXPECT_EQ(-EDEADLK, klock_lock(again));
	EXPECT_EQ(-EDEADLK, lock_within(again, -1));
	EXPECT_EQ(-EBUSY, klock_trylock(again));
	EXPECT_EQ(-EPERM, klock_unlock(again));
	EXPECT_EQ(0, klock_unlock(self->stage.lock[0]));
	EXPECT_EQ(0, klock_lock(again));
	EXPECT_EQ(0, klock_unlock(again));
}

/*
 * The thread that holds counts only while the word says so; here another client
 * has mapped the words.  What is noted of it goes with the space: the kernel
 * complains when the module is unloaded otherwise.
 */
TEST_F(errorcheck, word_that_is_written_over)
{
	struct klock_ioc_space_fd own = { .flags = 0 };
	char name[KLOCK_NAME_SIZE];
	volatile uint64_t *words;
	struct klock *lock;
	int fd;

	if (!words_can_be_mapped())
		SKIP(return, "words cannot be mapped here");
	SPACE_NAME(name);
	fd = raw_attach(name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 0);
	ASSERT_LE(0, fd);
	lock = get_lock(join_space(name, KLOCK_ERRORCHECK), 0);
	ASSERT_NE(NULL, lock);
	words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
		     raw_ioctl(fd, KLOCK_IOC_SPACE_FD, &own), 0);
	ASSERT_NE(MAP_FAILED, words);
	ASSERT_EQ(0, klock_lock(lock));
	*words = own.token;
	EXPECT_EQ(-EPERM, klock_unlock(lock));
	EXPECT_EQ(-EBUSY, klock_trylock(lock));
	EXPECT_EQ(0, status_of(lock).tid);
	*words = 0;
	EXPECT_EQ(-EPERM, klock_unlock(lock));
	EXPECT_EQ(0, klock_lock(lock));
	*words = own.token | (uint64_t)getpid() << KLOCK_WORD_TID_SHIFT;
	EXPECT_EQ((uint32_t)getpid(), status_of(lock).tid);
	EXPECT_EQ(0, raw_unlock(fd, 0));
	EXPECT_EQ(0, raw_lock(fd, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, raw_unlock(fd, 0));
	ASSERT_EQ(0, klock_lock(lock));
	*words = 0;
	EXPECT_EQ(0, raw_remove(name, KLOCK_REMOVE_FORCE));
}

TEST_F(errorcheck, unlock_from_another_thread_is_eperm)
{
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];
	struct klock_status before, after;

	ASSERT_EQ(0, call(actor, do_lock, 0));
	before = status_of(self->stage.lock[0]);
	EXPECT_EQ(-EPERM, klock_unlock(self->stage.lock[0]));
	after = status_of(self->stage.lock[0]);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_TRUE(holds(&self->stage, a, 0));
	EXPECT_EQ(0, call(actor, do_unlock, 0));
	EXPECT_TRUE(is_idle(self->stage.lock[0]));
}

TEST_F(errorcheck, another_thread_blocks_until_the_holder_unlocks)
{
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];

	ASSERT_EQ(0, klock_lock(self->stage.lock[0]));
	EXPECT_EQ(-EBUSY, call(actor, do_trylock, 0));
	begin_until(actor, 0, SOON_MS);
	EXPECT_EQ(-ETIMEDOUT, end(actor));
	begin(actor, do_lock, 0);
	ASSERT_TRUE(UNTIL(waits(&self->stage, a, 0)));
	EXPECT_EQ(0, klock_unlock(self->stage.lock[0]));
	EXPECT_EQ(0, end(actor));
	EXPECT_TRUE(holds(&self->stage, a, 0));
	EXPECT_EQ(-EPERM, klock_unlock(self->stage.lock[0]));
	EXPECT_EQ(0, call(actor, do_unlock, 0));
}

/* The lock of a thread that is gone: nobody's to unlock, until its client goes. */
TEST_F(errorcheck, thread_that_exits_leaves_its_lock_with_the_client)
{
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct klock_space *other = join_space(self->stage.name[0], KLOCK_ERRORCHECK);
	struct actor *actor = &self->stage.actor[a];
	struct klock *seen;

	ASSERT_NE(NULL, other);
	seen = get_lock(other, 0);
	ASSERT_NE(NULL, seen);
	ASSERT_EQ(0, call(actor, do_lock, 0));
	ASSERT_TRUE(dismiss(actor));

	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->stage.lock[0]).flags);
	EXPECT_EQ((uint32_t)getpid(), status_of(self->stage.lock[0]).pid);
	EXPECT_EQ(0, status_of(self->stage.lock[0]).tid);
	EXPECT_EQ(-EPERM, klock_unlock(self->stage.lock[0]));
	EXPECT_EQ(-EBUSY, klock_trylock(self->stage.lock[0]));
	EXPECT_EQ(-ETIMEDOUT, lock_within(self->stage.lock[0], SOON_MS));
	EXPECT_EQ(-EBUSY, klock_trylock(seen));

	klock_space_close(self->stage.space[0]);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock(seen));
	EXPECT_EQ(0, klock_unlock(seen));
	EXPECT_EQ(0, klock_lock(seen));
	EXPECT_EQ(0, klock_unlock(seen));
}

/* A new thread that has got the number of the one that held the lock is not that one. */
TEST_F(errorcheck, reused_tid_is_another_thread)
{
	struct actor *actor = self->stage.actor;
	char before[16];
	unsigned int a;
	int fd;

	fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		SKIP(return, "no ns_last_pid: %s", strerror(errno));
	a = hire(_metadata, &self->stage, THREAD);
	ASSERT_EQ(0, call(&actor[a], do_lock, 0));
	ASSERT_TRUE(dismiss(&actor[a]));

	/* Another process may be faster, but not always. */
	snprintf(before, sizeof(before), "%d", actor[a].tid - 1);
	do {
		ASSERT_LT(0, pwrite(fd, before, strlen(before), 0));
		a = hire(_metadata, &self->stage, THREAD);
	} while (actor[a].tid != actor[0].tid);
	close(fd);

	EXPECT_EQ(-EPERM, call(&actor[a], do_unlock, 0));
	begin_until(&actor[a], 0, SOON_MS);
	EXPECT_EQ(-ETIMEDOUT, end(&actor[a]));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->stage.lock[0]).flags);
	EXPECT_EQ(0, status_of(self->stage.lock[0]).tid);
}

TEST_F(errorcheck, and_normal_clients_exclude_each_other)
{
	struct klock_space *space = join_space(self->stage.name[0], 0);
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];
	struct klock *lock = self->stage.lock[0], *normal;

	ASSERT_NE(NULL, space);
	normal = get_lock(space, 0);
	ASSERT_NE(NULL, normal);

	ASSERT_EQ(0, klock_lock(lock));
	EXPECT_EQ(-EBUSY, klock_trylock(normal));
	EXPECT_EQ(-EPERM, klock_unlock(normal));
	start(actor, do_lock, normal);
	ASSERT_TRUE(UNTIL(waits(&self->stage, a, 0)));
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, end(actor));
	EXPECT_TRUE(holds(&self->stage, a, 0));

	EXPECT_EQ(-EBUSY, klock_trylock(lock));
	EXPECT_EQ(-EPERM, klock_unlock(lock));
	EXPECT_EQ(0, klock_unlock(normal));	/* by another thread than the one that took it */
	ASSERT_EQ(0, klock_lock(normal));
	begin(actor, do_lock, 0);
	ASSERT_TRUE(UNTIL(waits(&self->stage, a, 0)));
	EXPECT_EQ(0, klock_unlock(normal));
	EXPECT_EQ(0, end(actor));
	EXPECT_TRUE(holds(&self->stage, a, 0));
	EXPECT_EQ(-EPERM, klock_unlock(normal));
	EXPECT_EQ(0, call(actor, do_unlock, 0));
	EXPECT_TRUE(is_idle(lock));
}

/* A child's thread is another thread, also on the description that it has inherited. */
TEST_F(errorcheck, after_fork)
{
	int fd = raw_attach(self->stage.name[0], KLOCK_ATTACH_ERRORCHECK, 0);
	struct klock *lock = self->stage.lock[0];
	pid_t pid;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, klock_lock(lock));
	ASSERT_EQ(0, raw_lock(fd, 1, 0, 0));
	pid = spawn();
	if (pid == 0) {
		struct timespec soon = in_ms(CLOCK_MONOTONIC, SOON_MS);
		uint64_t deadline = now_ns(CLOCK_MONOTONIC) + SOON_MS * NSEC_PER_MSEC;

		CHECK(klock_trylock(lock) == -EBUSY);
		CHECK(klock_unlock(lock) == -EPERM);
		CHECK(klock_lock_until(lock, CLOCK_MONOTONIC, &soon) == -ETIMEDOUT);
		CHECK(raw_unlock(fd, 1) == -EPERM);
		CHECK(raw_lock(fd, 1, KLOCK_LOCK_TRY, 0) == -EBUSY);
		CHECK(raw_lock(fd, 1, KLOCK_LOCK_DEADLINE, deadline) == -ETIMEDOUT);

		/* It takes one of its own and waits for the parent's. */
		CHECK(raw_lock(fd, 2, 0, 0) == 0);
		CHECK(raw_lock(fd, 1, 0, 0) == 0);
		CHECK(raw_unlock(fd, 1) == 0);
		CHECK(raw_unlock(fd, 2) == 0);
		_exit(0);
	}
	ASSERT_TRUE(UNTIL(waiters_of(self->stage.lock[1 * SPACES]) == 1 &&
			  is_held(self->stage.lock[2 * SPACES])));
	EXPECT_EQ(-EDEADLK, raw_lock(fd, 2, 0, 0));
	EXPECT_EQ(0, raw_unlock(fd, 1));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, close(fd));
}

/* What a normal client holds is nobody's: a cycle through it is none. */
TEST_F(errorcheck, normal_holder_ends_the_search)
{
	struct klock_space *space = join_space(self->stage.name[0], 0);
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];
	struct klock *normal;

	ASSERT_NE(NULL, space);
	normal = get_lock(space, 0);
	ASSERT_NE(NULL, normal);
	ASSERT_EQ(0, klock_lock(normal));
	ASSERT_EQ(0, call(actor, do_lock, 1));
	begin(actor, do_lock, 0);
	ASSERT_TRUE(UNTIL(waits(&self->stage, a, 0)));
	EXPECT_EQ(-ETIMEDOUT, lock_within(self->stage.lock[1], SOON_MS));
	EXPECT_EQ(0, klock_unlock(normal));
	EXPECT_EQ(0, end(actor));
	EXPECT_EQ(0, call(actor, do_unlock, 0));
	EXPECT_EQ(0, call(actor, do_unlock, 1));
}

/* Nor does a thread count as waiting while it does so through a normal client. */
TEST_F(errorcheck, normal_waiter_ends_the_search)
{
	struct klock_space *space = join_space(self->stage.name[1], 0);
	unsigned int a = hire(_metadata, &self->stage, THREAD);
	struct actor *actor = &self->stage.actor[a];
	struct klock *normal;

	ASSERT_NE(NULL, space);
	normal = get_lock(space, 0);
	ASSERT_NE(NULL, normal);
	ASSERT_EQ(0, klock_lock(self->stage.lock[1]));
	ASSERT_EQ(0, call(actor, do_lock, 0));
	start(actor, do_lock, normal);
	ASSERT_TRUE(UNTIL(waits(&self->stage, a, 1)));
	EXPECT_EQ(-ETIMEDOUT, lock_within(self->stage.lock[0], SOON_MS));
	EXPECT_EQ(0, klock_unlock(self->stage.lock[1]));
	EXPECT_EQ(0, end(actor));
	EXPECT_EQ(0, klock_unlock(normal));
	EXPECT_EQ(0, call(actor, do_unlock, 0));
}

/* From the moment of kill() on, a member of the chain is as good as gone. */
TEST_F_TIMEOUT(errorcheck, killed_member_is_no_false_alarm, 60)
{
	struct actor *actor = self->stage.actor;
	struct klock *const *lock = self->stage.lock;
	unsigned int round;

	for (round = 0; round < 100; round++) {
		self->stage.actors = 0;
		hire(_metadata, &self->stage, PROCESS);
		ASSERT_EQ(0, call(actor, do_lock, 0));
		ASSERT_EQ(0, klock_lock(lock[1]));
		begin(actor, do_lock, 1);
		ASSERT_TRUE(UNTIL(waits(&self->stage, 0, 1)));

		ASSERT_EQ(0, kill(actor->pid, SIGKILL));
		ASSERT_EQ(KLOCK_OWNER_DIED, klock_lock(lock[0]));
		ASSERT_EQ(-SIGKILL, reap(actor->pid));
		ASSERT_EQ(0, klock_unlock(lock[0]));
		ASSERT_EQ(0, klock_unlock(lock[1]));
		ASSERT_TRUE(is_idle(lock[0]));
		ASSERT_TRUE(is_idle(lock[1]));
	}
}

TEST_F(errorcheck, death_in_a_chain)
{
	struct actor *actor = self->stage.actor;
	unsigned int i;

	for (i = 0; i < 3; i++)
		hire(_metadata, &self->stage, PROCESS);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, call(&actor[i], do_lock, i));
	}
	begin(&actor[1], do_lock, 0);
	ASSERT_TRUE(UNTIL(waits(&self->stage, 1, 0)));
	begin(&actor[2], do_lock, 1);
	ASSERT_TRUE(UNTIL(waits(&self->stage, 2, 1)));
	EXPECT_EQ(-EDEADLK, call(&actor[0], do_lock, 2));

	EXPECT_EQ(-SIGKILL, slay(actor[1].pid));
	EXPECT_EQ(KLOCK_OWNER_DIED, end(&actor[2]));
	EXPECT_EQ(0, waiters_of(self->stage.lock[0]));
	begin(&actor[0], do_lock, 2);
	ASSERT_TRUE(UNTIL(waits(&self->stage, 0, 2)));
	EXPECT_EQ(0, call(&actor[2], do_unlock, 2));
	EXPECT_EQ(0, end(&actor[0]));
}

/* A stopped waiter does not wait: nobody is refused for it, but it is, when it goes on. */
TEST_F(errorcheck, stopped_member_is_refused_when_it_goes_on)
{
	struct actor *actor = self->stage.actor;
	unsigned int i;
	int status;

	for (i = 0; i < 2; i++)
		hire(_metadata, &self->stage, PROCESS);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, call(&actor[i], do_lock, i));
	}
	begin(&actor[0], do_lock, 1);
	ASSERT_TRUE(UNTIL(waits(&self->stage, 0, 1)));
	ASSERT_EQ(0, kill(actor[0].pid, SIGSTOP));
	ASSERT_EQ(actor[0].pid, waitpid(actor[0].pid, &status, WUNTRACED));
	begin(&actor[1], do_lock, 0);
	ASSERT_TRUE(UNTIL(waits(&self->stage, 1, 0)));
	ASSERT_EQ(0, kill(actor[0].pid, SIGCONT));
	EXPECT_EQ(-EDEADLK, end(&actor[0]));
	EXPECT_TRUE(waits(&self->stage, 1, 0));
	EXPECT_EQ(0, call(&actor[0], do_unlock, 0));
	EXPECT_EQ(0, end(&actor[1]));
}

/* Cycles, of each kind of actor. */
FIXTURE(cycle) {
	struct stage stage;
};

FIXTURE_VARIANT(cycle) {
	enum kind kind;
};

FIXTURE_VARIANT_ADD(cycle, threads) {
	.kind = THREAD,
};

FIXTURE_VARIANT_ADD(cycle, clients) {
	.kind = CLIENT,
};

FIXTURE_VARIANT_ADD(cycle, processes) {
	.kind = PROCESS,
};

FIXTURE_SETUP(cycle)
{
	set_stage(_metadata, &self->stage, KLOCK_ERRORCHECK);
}

FIXTURE_TEARDOWN(cycle)
{
	clear_stage(_metadata, &self->stage);
}

/* Actors 0 to @n - 1 each take the lock of their number. */
static void lock_each(struct __test_metadata *_metadata, struct stage *stage, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, call(&stage->actor[i], do_lock, i));
	}
}

/* Actors 0 to @n - 1 each wait for the lock of the next one. */
static void chain(struct __test_metadata *_metadata, struct stage *stage, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		begin(&stage->actor[i], do_lock, i + 1);
		ASSERT_TRUE(UNTIL(waits(stage, i, i + 1)));
	}
}

/*
 * A ring of @n, each of which holds the lock of its number and waits for that
 * of the next, but for @first, which does not wait: it unlocks, and so does,
 * one after the other, who waited for that.
 */
static void unwind(struct __test_metadata *_metadata, struct stage *stage, unsigned int n,
		   unsigned int first)
{
	unsigned int i = first, behind;

	ASSERT_EQ(0, call(&stage->actor[i], do_unlock, i));
	while ((behind = (i + n - 1) % n) != first) {
		ASSERT_EQ(0, end(&stage->actor[behind]));
		ASSERT_EQ(0, call(&stage->actor[behind], do_unlock, i));
		ASSERT_EQ(0, call(&stage->actor[behind], do_unlock, behind));
		i = behind;
	}
	for (i = 0; i < n; i++) {
		ASSERT_TRUE(is_idle(stage->lock[i]));
	}
}

/* Who would close the cycle is refused, nobody else notices, and when it unlocks, all go on. */
static void close_ring(struct __test_metadata *_metadata, struct stage *stage, enum kind kind,
		       unsigned int n)
{
	struct klock_waiter before[RING_MAX], after;
	unsigned int i;

	for (i = 0; i < n; i++)
		hire(_metadata, stage, kind);
	lock_each(_metadata, stage, n);
	chain(_metadata, stage, n - 1);
	for (i = 1; i < n; i++) {
		ASSERT_EQ(1, klock_waiters(stage->lock[i], &before[i], 1));
	}

	EXPECT_EQ(-EBUSY, call(&stage->actor[n - 1], do_trylock, 0));
	EXPECT_EQ(-EDEADLK, call(&stage->actor[n - 1], do_lock, 0));
	begin_until(&stage->actor[n - 1], 0, FAR_MS);
	EXPECT_EQ(-EDEADLK, end(&stage->actor[n - 1]));

	EXPECT_EQ(0, waiters_of(stage->lock[0]));
	for (i = 0; i < n; i++) {
		EXPECT_TRUE(holds(stage, i, i));
	}
	for (i = 1; i < n; i++) {
		POISON(after);
		ASSERT_EQ(1, klock_waiters(stage->lock[i], &after, 1));
		EXPECT_EQ(0, memcmp(&before[i], &after, sizeof(after)));
	}
	unwind(_metadata, stage, n, n - 1);
}

TEST_F(cycle, of_2)
{
	close_ring(_metadata, &self->stage, variant->kind, 2);
}

TEST_F(cycle, of_3)
{
	close_ring(_metadata, &self->stage, variant->kind, 3);
}

TEST_F(cycle, of_40)
{
	close_ring(_metadata, &self->stage, variant->kind, 40);
}

/* Which of two has ended its act, or -1. */
static int ended(struct stage *stage, int a, int b)
{
	if (sem_trywait(&stage->actor[a].done) == 0)
		return a;
	return sem_trywait(&stage->actor[b].done) == 0 ? b : -1;
}

/* Of two that wait, the first that does not any more: its number if it was refused, else -1. */
static int refused(struct stage *stage, int a, int b)
{
	int first = -1;
	bool met = UNTIL((first = ended(stage, a, b)) >= 0);

	return met && stage->actor[first].ret == -EDEADLK ? first : -1;
}

/* The last two close the ring at the same moment: one is refused, the other waits. */
static void close_at_once(struct __test_metadata *_metadata, struct stage *stage, enum kind kind,
			  unsigned int n, unsigned int rounds)
{
	struct actor *last = &stage->actor[n - 1], *other = &stage->actor[n - 2];
	unsigned int i, last_refused = 0;
	atomic_uint *gate = shared(sizeof(*gate));
	int first;

	for (i = 0; i < n; i++)
		hire(_metadata, stage, kind);
	for (i = 0; i < rounds; i++) {
		lock_each(_metadata, stage, n);
		chain(_metadata, stage, n - 2);
		atomic_store(gate, 0);
		last->gate = gate;
		other->gate = gate;
		begin(last, do_lock, 0);
		begin(other, do_lock, n - 1);
		first = refused(stage, n - 1, n - 2);
		ASSERT_LE(0, first);
		last->gate = NULL;
		other->gate = NULL;
		last_refused += first == (int)n - 1;
		ASSERT_TRUE(first == (int)n - 1 ? waits(stage, n - 2, n - 1) :
			    waits(stage, n - 1, 0));
		unwind(_metadata, stage, n, first);
	}
	TH_LOG("%u of %u rounds refused the last", last_refused, rounds);
}

TEST_F_TIMEOUT(cycle, of_2_closed_at_once, 60)
{
	unsigned int rounds = fewer(variant->kind == PROCESS ? 100 : 300);

	close_at_once(_metadata, &self->stage, variant->kind, 2, rounds);
}

TEST_F_TIMEOUT(cycle, of_3_closed_at_once, 60)
{
	close_at_once(_metadata, &self->stage, variant->kind, 3, 50);
}

TEST_F_TIMEOUT(cycle, of_40_closed_at_once, 60)
{
	close_at_once(_metadata, &self->stage, variant->kind, 40, 5);
}

#define ROUNDS	fewer(2000)
#define SKEW	100	/* turns by which one of two is at most late */

/* Meets the other actor, as the last of @n that ever came to the gate. */
static void meet(struct actor *me, unsigned int n)
{
	atomic_fetch_add(me->gate, 1);
	while (atomic_load(me->gate) < n)
		sched_yield();
}

/*
 * Takes a lock, and asks for the other one when the other actor has that, again
 * and again, more or less at the same moment as it: returns how often it was
 * refused.
 */
static int do_close_again(struct actor *me)
{
	unsigned int round, turns, seed = me->tid;
	int ret, refusals = 0;

	for (round = 0; round < me->times; round++) {
		CHECK(klock_lock(me->lock) == 0);
		meet(me, 4 * round + 2);
		for (turns = rand_r(&seed) % SKEW; turns; turns--)
			atomic_load(me->gate);
		ret = klock_lock(me->other);
		CHECK(ret == 0 || ret == -EDEADLK);
		if (ret == 0)
			CHECK(klock_unlock(me->other) == 0);
		refusals += ret == -EDEADLK;
		CHECK(klock_unlock(me->lock) == 0);
		meet(me, 4 * round + 4);
	}
	return refusals;
}

/* Actor @n runs on the processor of its number, if there are so many. */
static void pin(struct actor *actor, unsigned int n)
{
	cpu_set_t any, one;
	int cpu;

	sched_getaffinity(0, sizeof(any), &any);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &any) && n-- == 0) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			sched_setaffinity(actor->tid, sizeof(one), &one);
			return;
		}
	}
}

/*
 * So close together that the one searches between the other's search, which
 * found nothing, and its entry, if that can be.
 */
TEST_F_TIMEOUT(cycle, of_2_closed_at_once_again_and_again, 120)
{
	struct actor *actor = self->stage.actor;
	atomic_uint *gate = shared(sizeof(*gate));
	unsigned int i, tries;
	int refusals[2];

	for (i = 0; i < 2; i++) {
		hire(_metadata, &self->stage, variant->kind);
		pin(&actor[i], i);
		actor[i].gate = gate;
		actor[i].other = actor[i].locks[1 - i];
		actor[i].times = ROUNDS;
	}
	for (i = 0; i < 2; i++)
		begin(&actor[i], do_close_again, i);
	for (i = 0; i < 2; i++) {
		/* A round needs both processors at once, which others may use, too. */
		for (tries = 1; tries < 5 && !is_done(&actor[i]); tries++)
			;
		ASSERT_GT(5, tries);
		refusals[i] = actor[i].ret;
		ASSERT_LE(0, refusals[i]);
	}
	TH_LOG("%d and %d refusals", refusals[0], refusals[1]);
	EXPECT_EQ(ROUNDS, refusals[0] + refusals[1]);
}

static void ignore_signal(int sig)
{
	(void)sig;
}

/* A signal throws a member out of its wait while another closes the cycle: still one is refused. */
TEST_F_TIMEOUT(cycle, closed_while_a_member_is_interrupted, 60)
{
	struct sigaction action = { .sa_handler = ignore_signal };
	struct actor *actor = self->stage.actor;
	unsigned int round, i;
	int first;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	for (i = 0; i < 2; i++)
		hire(_metadata, &self->stage, variant->kind);
	for (round = 0; round < 100; round++) {
		lock_each(_metadata, &self->stage, 2);
		chain(_metadata, &self->stage, 1);
		begin(&actor[1], do_lock, 0);
		ASSERT_EQ(0, syscall(SYS_tgkill, actor[0].pid, actor[0].tid, SIGUSR1));
		first = refused(&self->stage, 0, 1);
		ASSERT_LE(0, first);
		ASSERT_TRUE(UNTIL(first ? waits(&self->stage, 0, 1) : waits(&self->stage, 1, 0)));
		unwind(_metadata, &self->stage, 2, first);
	}
}

/* Forty wait, each for the next, and the last for one that runs. */
TEST_F(cycle, long_chain_is_none)
{
	struct stage *stage = &self->stage;
	struct actor *runner = &stage->actor[40];
	unsigned int i;

	for (i = 0; i < 41; i++)
		hire(_metadata, stage, variant->kind);
	lock_each(_metadata, stage, 41);
	chain(_metadata, stage, 39);
	EXPECT_EQ(0, call(&stage->actor[39], do_lock, 41));	/* free */
	EXPECT_EQ(0, call(&stage->actor[39], do_unlock, 41));
	EXPECT_EQ(0, call(runner, do_lock, 41));
	EXPECT_EQ(0, call(runner, do_unlock, 41));
	begin(&stage->actor[39], do_lock, 40);
	ASSERT_TRUE(UNTIL(waits(stage, 39, 40)));
	EXPECT_EQ(-EDEADLK, call(runner, do_lock, 0));
	unwind(_metadata, stage, 41, 40);
}

/* All who wait for one lock wait for its holder, not for each other. */
TEST_F(cycle, crowd_at_one_lock_is_none)
{
	struct stage *stage = &self->stage;
	unsigned int i;

	for (i = 0; i < 10; i++)
		hire(_metadata, stage, variant->kind);
	lock_each(_metadata, stage, 10);
	for (i = 1; i < 9; i++) {
		begin(&stage->actor[i], do_lock, 0);
		ASSERT_TRUE(UNTIL(waiters_of(stage->lock[0]) == i));
	}
	/* The holder may wait for one that does not wait for it. */
	for (i = 1; i < 9; i++) {
		EXPECT_EQ(-EDEADLK, call(&stage->actor[0], do_lock, i));
	}
	begin(&stage->actor[0], do_lock, 9);
	ASSERT_TRUE(UNTIL(waits(stage, 0, 9)));
	EXPECT_EQ(-EDEADLK, call(&stage->actor[9], do_lock, 0));
	EXPECT_EQ(-EDEADLK, call(&stage->actor[9], do_lock, 4));
	EXPECT_EQ(8, waiters_of(stage->lock[0]));

	EXPECT_EQ(0, call(&stage->actor[9], do_unlock, 9));
	EXPECT_EQ(0, end(&stage->actor[0]));
	EXPECT_EQ(0, call(&stage->actor[0], do_unlock, 0));
	for (i = 1; i < 9; i++) {
		EXPECT_EQ(0, end(&stage->actor[i]));
		EXPECT_EQ(0, call(&stage->actor[i], do_unlock, 0));
	}
}

/* A member that has a deadline will go by itself, so nobody is refused for its sake. */
TEST_F(cycle, member_with_a_deadline_is_no_false_alarm)
{
	struct stage *stage = &self->stage;
	struct actor *actor = stage->actor;
	unsigned int i;
	int ms = 1000;

	for (i = 0; i < 3; i++)
		hire(_metadata, stage, variant->kind);
	lock_each(_metadata, stage, 3);
	begin_until(&actor[0], 1, ms);
	while (!UNTIL(waits(stage, 0, 1) || actor[0].ret != -1000) || actor[0].ret != -1000) {
		EXPECT_EQ(-ETIMEDOUT, end(&actor[0]));
		ms *= 2;	/* it may have been over before it was seen */
		ASSERT_GT(30000, ms);
		begin_until(&actor[0], 1, ms);
	}
	begin(&actor[1], do_lock, 2);
	ASSERT_TRUE(UNTIL(waits(stage, 1, 2)));
	begin_until(&actor[2], 0, SOON_MS);
	EXPECT_EQ(-ETIMEDOUT, end(&actor[2]));
	begin(&actor[2], do_lock, 0);
	ASSERT_TRUE(UNTIL(waits(stage, 2, 0)));

	/* It goes, and would now be the one to close the cycle. */
	EXPECT_EQ(-ETIMEDOUT, end(&actor[0]));
	EXPECT_EQ(-EDEADLK, call(&actor[0], do_lock, 1));
	unwind(_metadata, stage, 3, 0);
}

/* Unlocks, barges some times against whoever is woken for it, and goes on to another lock. */
static int do_hand_over(struct actor *me)
{
	unsigned int i;
	int ret = klock_unlock(me->lock);

	for (i = 0; i < me->times && ret == 0 && klock_trylock(me->lock) == 0; i++)
		ret = klock_unlock(me->lock);
	return ret ? ret : klock_lock(me->other);
}

/* A holds 0 and waits for 1, which B gives away, to wait for 0: A is on its way, however far. */
TEST_F_TIMEOUT(cycle, hand_over_is_no_false_alarm, 60)
{
	struct stage *stage = &self->stage;
	struct actor *a = &stage->actor[0], *b = &stage->actor[1];
	unsigned int round;

	hire(_metadata, stage, variant->kind);
	hire(_metadata, stage, variant->kind);
	for (round = 0; round < 200; round++) {
		lock_each(_metadata, stage, 2);
		chain(_metadata, stage, 1);
		b->other = b->locks[0];
		b->times = round % 10;
		begin(b, do_hand_over, 1);
		ASSERT_EQ(0, end(a));
		ASSERT_EQ(0, call(a, do_unlock, 1));
		ASSERT_EQ(0, call(a, do_unlock, 0));
		ASSERT_EQ(0, end(b));
		ASSERT_EQ(0, call(b, do_unlock, 0));
	}
}

TEST_F(cycle, broken_lock_is_no_false_alarm)
{
	struct stage *stage = &self->stage;
	struct actor *actor = stage->actor;
	unsigned int i;

	for (i = 0; i < 2; i++)
		hire(_metadata, stage, variant->kind);
	lock_each(_metadata, stage, 2);
	chain(_metadata, stage, 1);
	/* Actor 0 has lost lock 0, for which 1 need not wait then. */
	ASSERT_EQ(0, klock_break(stage->space[0], 0, status_of(stage->lock[0]).token));
	EXPECT_EQ(KLOCK_OWNER_DIED, call(&actor[1], do_lock, 0));
	/* Actor 1 has lost lock 1, which 0 gets; so 1 may wait for 0. */
	ASSERT_EQ(0, call(&actor[1], do_unlock, 0));
	ASSERT_EQ(0, klock_break(stage->space[1], 0, status_of(stage->lock[1]).token));
	EXPECT_EQ(KLOCK_OWNER_DIED, end(&actor[0]));
	EXPECT_EQ(-EPERM, call(&actor[1], do_unlock, 1));
	EXPECT_EQ(-EPERM, call(&actor[0], do_unlock, 0));
	begin(&actor[1], do_lock, 1);
	ASSERT_TRUE(UNTIL(waits(stage, 1, 1)));
	EXPECT_EQ(0, call(&actor[0], do_unlock, 1));
	EXPECT_EQ(0, end(&actor[1]));
	EXPECT_EQ(0, call(&actor[1], do_unlock, 1));
	EXPECT_TRUE(is_idle(stage->lock[0]));
	EXPECT_TRUE(is_idle(stage->lock[1]));
}

#define CROWD	4	/* actors, and locks that they fight for, one in each space */

/* Takes three of the locks in turn: 0 or what the call returned that failed; unlocks them again. */
static int take_three(struct actor *me, const unsigned int *n)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < 3; i++) {
		ret = klock_lock(me->locks[n[i]]);
		if (ret)
			break;
		sched_yield();
	}
	while (i--)
		CHECK(klock_unlock(me->locks[n[i]]) == 0);
	return ret;
}

/* Always in ascending order: nobody can wait in a cycle, so any refusal is a false alarm. */
static int do_take_in_order(struct actor *me)
{
	unsigned int i, left_out, round;
	unsigned int seed = me->tid, n[3];
	int ret = 0;

	for (round = 0; round < me->times && ret == 0; round++) {
		left_out = rand_r(&seed) % CROWD;
		for (i = 0; i < 3; i++)
			n[i] = i < left_out ? i : i + 1;
		ret = take_three(me, n);
	}
	return ret;
}

/* In any order, until it has them: returns how often it was refused, or another error. */
static int do_take_at_random(struct actor *me)
{
	unsigned int round, i, step, seed = me->tid, n[3];
	int ret, refusals = 0;

	for (round = 0; round < me->times; round++) {
		n[0] = rand_r(&seed) % CROWD;
		step = rand_r(&seed) % 2 ? 1 : CROWD - 1;
		for (i = 1; i < 3; i++)
			n[i] = (n[i - 1] + step) % CROWD;
		while ((ret = take_three(me, n)) == -EDEADLK)
			refusals++;
		if (ret)
			return ret;
	}
	return refusals;
}

TEST_F_TIMEOUT(cycle, locks_in_order_give_no_false_alarm, 60)
{
	struct actor *actor = self->stage.actor;
	unsigned int i;

	for (i = 0; i < CROWD; i++) {
		hire(_metadata, &self->stage, variant->kind);
		actor[i].times = 500;
		begin(&actor[i], do_take_in_order, 0);
	}
	for (i = 0; i < CROWD; i++) {
		EXPECT_EQ(0, end(&actor[i]));
	}
	for (i = 0; i < CROWD; i++) {
		EXPECT_TRUE(is_idle(self->stage.lock[i]));
	}
}

TEST_F_TIMEOUT(cycle, locks_at_random_never_hang, 60)
{
	struct actor *actor = self->stage.actor;
	unsigned int i, again;
	int ret, refusals = 0;

	for (i = 0; i < CROWD; i++) {
		hire(_metadata, &self->stage, variant->kind);
		actor[i].times = 250;
	}
	/* With few processors below those of the VM, they may hardly run at the same time. */
	for (again = 0; again < 20 && !refusals; again++) {
		for (i = 0; i < CROWD; i++)
			begin(&actor[i], do_take_at_random, 0);
		for (i = 0; i < CROWD; i++) {
			ret = end(&actor[i]);
			ASSERT_LE(0, ret);
			refusals += ret;
		}
	}
	TH_LOG("%d waits refused", refusals);
	EXPECT_LT(0, refusals);
	for (i = 0; i < CROWD; i++) {
		EXPECT_TRUE(is_idle(self->stage.lock[i]));
	}
}

TEST_HARNESS_MAIN
