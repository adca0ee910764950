// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Locking and unlocking: who excludes whom, who may unlock, what deadlines do,
 * and that a counter survives it all.
 */
#include "klock_test.h"

#define CAPACITY	64

/* How late a timer may be on a machine that is busy with other things */
#define LATE_MS		(2000 * patience())

FIXTURE(lock)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space, *other;	/* two clients */
	struct klock *mine, *theirs;		/* and their handles of one lock */
};

FIXTURE_VARIANT(lock)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(lock, normal) { .flags = 0 };
FIXTURE_VARIANT_ADD(lock, errorcheck) { .flags = KLOCK_ERRORCHECK };

FIXTURE_SETUP(lock)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, variant->flags);
	ASSERT_NE(NULL, self->space);
	self->other = join_space(self->name, variant->flags);
	ASSERT_NE(NULL, self->other);
	self->mine = get_lock(self->space, 5);
	self->theirs = get_lock(self->other, 5);
}

FIXTURE_TEARDOWN(lock)
{
	klock_space_close(self->other);
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
}

TEST_F(lock, two_clients_exclude_each_other)
{
	EXPECT_EQ(0, klock_lock(self->mine));
	EXPECT_EQ(-EBUSY, klock_trylock(self->theirs));
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(0, klock_trylock(self->theirs));
	EXPECT_EQ(-EBUSY, klock_trylock(self->mine));
	EXPECT_EQ(0, klock_unlock(self->theirs));
}

TEST_F(lock, lock_blocks_until_the_other_process_unlocks)
{
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->mine));
	pid = wait_in_child(self->space, self->name, variant->flags, 5);
	ASSERT_GT(pid, 0);
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, status_of(self->mine).flags);
}

TEST_F(lock, status_tells_who_holds)
{
	struct klock_status status;
	uint64_t before = now_ns(CLOCK_MONOTONIC);

	ASSERT_EQ(0, klock_lock(self->mine));
	status = status_of(self->mine);
	EXPECT_EQ(5, status.id);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status.flags);
	EXPECT_EQ(getpid(), (pid_t)status.pid);
	EXPECT_EQ(0, status.waiters);
	EXPECT_EQ(0, status.waiting_since);
	EXPECT_NE(0, status.token);
	if (status.held_since) {	/* 0: not known */
		EXPECT_LE(before, status.held_since);
		EXPECT_GE(now_ns(CLOCK_MONOTONIC), status.held_since);
	}
	EXPECT_EQ(KLOCK_HELD, status_of(self->theirs).flags);
}

/* 2.7 */

TEST_F(lock, unlock_of_a_free_lock_is_eperm_and_changes_nothing)
{
	struct klock_status before = status_of(self->mine), after;

	EXPECT_EQ(-EPERM, klock_unlock(self->mine));
	after = status_of(self->mine);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(0, klock_trylock(self->mine));
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(-EPERM, klock_unlock(self->mine));
}

TEST_F(lock, unlock_by_another_client_is_eperm_and_changes_nothing)
{
	struct klock_status before, after;
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->mine));
	before = status_of(self->mine);
	EXPECT_EQ(-EPERM, klock_unlock(self->theirs));
	after = status_of(self->mine);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));

	/* The same with one who waits */
	pid = wait_in_child(self->space, self->name, variant->flags, 5);
	ASSERT_GT(pid, 0);
	before = status_of(self->mine);
	EXPECT_EQ(-EPERM, klock_unlock(self->theirs));
	after = status_of(self->mine);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(0, reap(pid));
}

TEST_F(lock, unlock_does_not_hide_that_the_owner_died)
{
	pid_t pid = hold_in_child(self->space, self->name, variant->flags, 5);

	ASSERT_GT(pid, 0);
	ASSERT_EQ(-SIGKILL, slay(pid));
	EXPECT_EQ(-EPERM, klock_unlock(self->mine));
	EXPECT_EQ(KLOCK_DIED, status_of(self->mine).flags);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(self->mine));
}

/* 2.6 */

TEST_F(lock, a_fatal_signal_ends_the_wait)
{
	const int signals[] = { SIGKILL, SIGTERM, SIGINT };

	ASSERT_EQ(0, klock_lock(self->mine));
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		pid_t pid = wait_in_child(self->space, self->name, variant->flags, 5);

		ASSERT_GT(pid, 0);
		ASSERT_EQ(0, kill(pid, signals[i]));
		EXPECT_EQ(-signals[i], reap(pid));
		EXPECT_EQ(0, waiters_of(self->mine));
	}
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->mine).flags);
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(0, klock_trylock(self->theirs));
}

TEST_F(lock, ten_thousand_locks_of_one_client)
{
	const uint32_t count = 10000;
	int one = klock_space_fd(self->space), two = klock_space_fd(self->other);
	struct klock_space_info info;

	ASSERT_EQ(0, klock_space_resize(self->space, count));
	for (uint32_t id = 0; id < count; id++) {
		ASSERT_EQ(0, raw_lock(one, id, 0, 0));
	}
	POISON(info);
	ASSERT_EQ(0, klock_space_info(self->space, &info));
	EXPECT_EQ(count, info.held);
	for (uint32_t id = 0; id < count; id++) {
		ASSERT_EQ(-EBUSY, raw_lock(two, id, KLOCK_LOCK_TRY, 0));
	}

	/* Each is a lock for itself. */
	for (uint32_t id = 0; id < count; id += 3) {
		ASSERT_EQ(0, raw_unlock(one, id));
	}
	for (uint32_t id = 0; id < count; id++) {
		ASSERT_EQ(id % 3 ? -EBUSY : 0, raw_lock(two, id, KLOCK_LOCK_TRY, 0));
	}
	for (uint32_t id = 0; id < count; id++) {
		ASSERT_EQ(id % 3 ? -EPERM : 0, raw_unlock(two, id));
		ASSERT_EQ(id % 3 ? 0 : -EPERM, raw_unlock(one, id));
	}
}

/* Deadlines */

TEST_F(lock, a_past_deadline_takes_a_free_lock)
{
	const struct timespec zero = { 0 };
	struct timespec past = in_ms(CLOCK_MONOTONIC, -1);

	EXPECT_EQ(0, klock_lock_until(self->mine, CLOCK_MONOTONIC, &past));
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(0, klock_lock_until(self->mine, CLOCK_MONOTONIC, &zero));
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(0, klock_lock_until(self->mine, CLOCK_REALTIME, &zero));
	EXPECT_EQ(0, klock_unlock(self->mine));
}

TEST_F(lock, a_past_deadline_on_a_held_lock_is_etimedout)
{
	const struct timespec zero = { 0 };
	struct timespec past = in_ms(CLOCK_MONOTONIC, -1);
	pid_t holder = hold_in_child(self->space, self->name, variant->flags, 5);

	ASSERT_GT(holder, 0);
	EXPECT_EQ(-ETIMEDOUT, klock_lock_until(self->mine, CLOCK_MONOTONIC, &past));
	EXPECT_EQ(-ETIMEDOUT, klock_lock_until(self->mine, CLOCK_MONOTONIC, &zero));
	EXPECT_EQ(-ETIMEDOUT, klock_lock_until(self->mine, CLOCK_REALTIME, &zero));
	EXPECT_EQ(0, waiters_of(self->mine));
	EXPECT_EQ(KLOCK_HELD, status_of(self->mine).flags);
	EXPECT_EQ(-SIGKILL, slay(holder));
}

TEST_F(lock, a_deadline_is_met_on_either_clock)
{
	const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_REALTIME };
	pid_t holder = hold_in_child(self->space, self->name, variant->flags, 5);

	ASSERT_GT(holder, 0);
	for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
		uint64_t end = now_ns(clocks[i]) + 200 * NSEC_PER_MSEC, late;
		struct timespec deadline = to_timespec(end);

		EXPECT_EQ(-ETIMEDOUT, klock_lock_until(self->mine, clocks[i], &deadline));
		late = now_ns(clocks[i]) - end;
		EXPECT_GT(LATE_MS * NSEC_PER_MSEC, late);	/* early is a huge number */
		TH_LOG("%llu us late", (unsigned long long)late / 1000);
		EXPECT_EQ(0, waiters_of(self->mine));
	}
	EXPECT_EQ(KLOCK_HELD, status_of(self->mine).flags);
	EXPECT_EQ(-SIGKILL, slay(holder));
}

TEST_F(lock, a_deadline_ahead_does_not_keep_from_the_lock)
{
	struct timespec ahead = in_ms(CLOCK_MONOTONIC, PATIENCE_MS);
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->mine));
	pid = spawn();
	if (pid == 0) {
		struct klock_space *space = join_space(self->name, variant->flags);

		CHECK(space);
		CHECK(klock_lock_until(get_lock(space, 5), CLOCK_MONOTONIC, &ahead) == 0);
		CHECK(klock_unlock(get_lock(space, 5)) == 0);
		_exit(0);
	}
	ASSERT_TRUE(UNTIL(waiters_of(self->mine) == 1));
	EXPECT_EQ(0, klock_unlock(self->mine));
	EXPECT_EQ(0, reap(pid));
}

TEST_F(lock, other_clocks_and_bad_times_are_einval)
{
	const clockid_t clocks[] = { CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
				     CLOCK_TAI, -1, 9999 };
	struct timespec ahead = in_ms(CLOCK_MONOTONIC, PATIENCE_MS);
	const long bad[] = { NSEC_PER_SEC, -1 };

	for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
		EXPECT_EQ(-EINVAL, klock_lock_until(self->mine, clocks[i], &ahead));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ahead.tv_nsec = bad[i];
		EXPECT_EQ(-EINVAL, klock_lock_until(self->mine, CLOCK_MONOTONIC, &ahead));
		EXPECT_EQ(-EINVAL, klock_lock_until(self->mine, CLOCK_REALTIME, &ahead));
	}
	EXPECT_EQ(0, status_of(self->mine).flags);
	EXPECT_EQ(-EINVAL, raw_lock(klock_space_fd(self->space), 5, KLOCK_LOCK_DEADLINE,
				    1ULL << 63));
	EXPECT_EQ(0, status_of(self->mine).flags);
}

/* A child whose wait for lock 5 must time out at @deadline of @clock, which it looks at. */
static pid_t time_out_in_child(const char *name, unsigned int flags, clockid_t clock,
			       struct timespec deadline)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags);

		CHECK(space);
		CHECK(klock_lock_until(get_lock(space, 5), clock, &deadline) == -ETIMEDOUT);
		CHECK(now_ns(clock) >= deadline.tv_sec * NSEC_PER_SEC + deadline.tv_nsec);
		_exit(0);
	}
	return pid;
}

/* Sets CLOCK_REALTIME @seconds ahead or back of what it is. */
static int step_clock(int seconds)
{
	struct timespec now = in_ms(CLOCK_REALTIME, 1000 * seconds);

	return clock_settime(CLOCK_REALTIME, &now) ? -errno : 0;
}

TEST_F(lock, a_realtime_deadline_follows_a_step_of_the_clock)
{
	int ahead, back, status = -1;
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->mine));
	pid = time_out_in_child(self->name, variant->flags, CLOCK_REALTIME,
				in_ms(CLOCK_REALTIME, 1800 * 1000));
	ASSERT_TRUE(UNTIL(waiters_of(self->mine) == 1));
	ahead = step_clock(3600);
	/* Whatever happens, the clock is set back. */
	if (!ahead)
		UNTIL(waitpid(pid, &status, WNOHANG) == pid);
	back = step_clock(-3600);
	if (ahead == -EPERM)
		SKIP(return, "may not set the clock");
	EXPECT_EQ(0, ahead);
	EXPECT_EQ(0, back);
	EXPECT_EQ(0, status);
}

/* A child waits until @ms from now: whether it did so in time. */
static bool waits_before(FIXTURE_DATA(lock) *self, pid_t *pid, unsigned int flags,
			 clockid_t clock, int ms)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + ms * NSEC_PER_MSEC;

	*pid = time_out_in_child(self->name, flags, clock, in_ms(clock, ms));
	return UNTIL(waiters_of(self->mine) == 1 || now_ns(CLOCK_MONOTONIC) >= end) &&
	       now_ns(CLOCK_MONOTONIC) < end;
}

TEST_F_TIMEOUT(lock, a_realtime_deadline_follows_a_step_back, 120)
{
	int back, ahead, ms = 1000;
	bool in_time = false;
	uint32_t waiters = 0;
	struct timespec then;
	uint64_t end;
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->mine));
	/* Where it was over before the clock was set, nothing was shown. */
	for (; !in_time; ms *= 2) {
		ASSERT_GT(30000, ms);
		end = now_ns(CLOCK_MONOTONIC) + ms * NSEC_PER_MSEC;
		then = to_timespec(end + NSEC_PER_SEC / 2);
		in_time = waits_before(self, &pid, variant->flags, CLOCK_REALTIME, ms);
		back = step_clock(-3600);
		if (back == -EPERM)
			SKIP(return, "may not set the clock");
		in_time &= now_ns(CLOCK_MONOTONIC) < end;
		while (in_time && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL))
			;
		waiters = waiters_of(self->mine);
		ahead = step_clock(3600);
		EXPECT_EQ(0, back);
		EXPECT_EQ(0, ahead);
		EXPECT_EQ(0, reap(pid));
	}
	EXPECT_EQ(1, waiters);
}

TEST_F_TIMEOUT(lock, a_monotonic_deadline_ignores_steps_of_the_clock, 120)
{
	int ahead, back, ms = 500;
	bool in_time = false;
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->mine));
	for (; !in_time; ms *= 2) {
		ASSERT_GT(30000, ms);
		in_time = waits_before(self, &pid, variant->flags, CLOCK_MONOTONIC, ms);
		ahead = step_clock(3600);
		back = step_clock(-3600);
		if (ahead == -EPERM)
			SKIP(return, "may not set the clock");
		EXPECT_EQ(0, ahead);
		EXPECT_EQ(0, back);
		EXPECT_EQ(0, reap(pid));
	}
}

/* The part of a child whose CLOCK_MONOTONIC is a day ahead of its parent's. */
static void see_times_a_day_ahead(const char *name, unsigned int flags, uint64_t start)
{
	struct klock_space *space = join_space(name, flags);
	uint64_t now = now_ns(CLOCK_MONOTONIC), end;
	struct klock_status status;
	struct klock_waiter waiter;
	struct timespec deadline;
	struct klock *lock;
	pid_t pid;

	CHECK(space);
	CHECK(now > start && now < start + 3600 * NSEC_PER_SEC);	/* it is in the namespace */
	lock = get_lock(space, 5);
	pid = wait_in_child(space, name, flags, 5);
	CHECK(pid > 0);
	status = status_of(lock);
	end = now_ns(CLOCK_MONOTONIC);
	CHECK(status.waiting_since >= now && status.waiting_since <= end);
	CHECK(!status.held_since || (status.held_since >= start && status.held_since <= end));
	POISON(waiter);
	CHECK(klock_waiters(lock, &waiter, 1) == 1);
	CHECK(waiter.since == status.waiting_since);
	slay(pid);

	end = now_ns(CLOCK_MONOTONIC) + 200 * NSEC_PER_MSEC;
	deadline = to_timespec(end);
	CHECK(klock_lock_until(lock, CLOCK_MONOTONIC, &deadline) == -ETIMEDOUT);
	now = now_ns(CLOCK_MONOTONIC);
	CHECK(now >= end && now < end + LATE_MS * NSEC_PER_MSEC);
	_exit(0);
}

TEST_F(lock, times_are_those_of_the_time_namespace)
{
	const uint64_t day = 86400 * NSEC_PER_SEC;
	uint64_t start = now_ns(CLOCK_MONOTONIC) + day;
	int fd, ret;
	pid_t pid;

	if (unshare(CLONE_NEWTIME))
		SKIP(return, "no time namespaces: %s", strerror(errno));
	fd = open("/proc/self/timens_offsets", O_WRONLY);
	ASSERT_LE(0, fd);
	ret = dprintf(fd, "monotonic %llu 0\n", (unsigned long long)day / NSEC_PER_SEC);
	ASSERT_LT(0, ret);
	close(fd);

	ASSERT_EQ(0, klock_lock(self->mine));
	pid = spawn();	/* children are in it, this process is not */
	if (pid == 0)
		see_times_a_day_ahead(self->name, variant->flags, start);
	EXPECT_EQ(0, reap(pid));
}

/* 2.8: normal mode.  The client holds, whichever of its threads. */

FIXTURE(normal)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;
};

FIXTURE_SETUP(normal)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, 0);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 5);
}

FIXTURE_TEARDOWN(normal)
{
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
}

/* A call that a thread makes, and what came of it */
struct call {
	_Atomic bool done;
	int (*fn)(struct klock *lock);
	struct klock *lock;
	int ret;
	pthread_t thread;
};

static void *make_call(void *arg)
{
	struct call *call = arg;

	call->ret = call->fn(call->lock);
	call->done = true;
	return NULL;
}

static void start_call(struct call *call, int (*fn)(struct klock *lock), struct klock *lock)
{
	*call = (struct call) { .fn = fn, .lock = lock, .ret = -1000 };
	if (pthread_create(&call->thread, NULL, make_call, call))
		abort();
}

static int end_call(struct call *call)
{
	pthread_join(call->thread, NULL);
	return call->ret;
}

static int call_in_thread(int (*fn)(struct klock *lock), struct klock *lock)
{
	struct call call;

	start_call(&call, fn, lock);
	return end_call(&call);
}

TEST_F(normal, another_thread_may_unlock)
{
	ASSERT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(0, call_in_thread(klock_unlock, self->lock));
	EXPECT_EQ(0, status_of(self->lock).flags);
	EXPECT_EQ(-EPERM, klock_unlock(self->lock));
}

TEST_F(normal, what_a_thread_that_has_ended_took_can_be_unlocked)
{
	EXPECT_EQ(0, call_in_thread(klock_lock, self->lock));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->lock).flags);
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

TEST_F(normal, another_thread_blocks_until_any_thread_unlocks)
{
	struct call call;

	ASSERT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(-EBUSY, call_in_thread(klock_trylock, self->lock));
	start_call(&call, klock_lock, self->lock);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	EXPECT_FALSE(call.done);
	EXPECT_EQ(0, call_in_thread(klock_unlock, self->lock));
	EXPECT_EQ(0, end_call(&call));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->lock).flags);
	EXPECT_EQ(0, klock_unlock(self->lock));
}

TEST_F(normal, a_thread_that_locks_again_blocks)
{
	struct timespec deadline = in_ms(CLOCK_MONOTONIC, 100);
	struct call call;

	ASSERT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_EQ(-ETIMEDOUT, klock_lock_until(self->lock, CLOCK_MONOTONIC, &deadline));
	EXPECT_LE(deadline.tv_sec * NSEC_PER_SEC + deadline.tv_nsec, now_ns(CLOCK_MONOTONIC));

	/* and goes on when another thread unlocks */
	start_call(&call, klock_unlock, self->lock);
	EXPECT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(0, end_call(&call));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

TEST_F(normal, threads_of_one_client_exclude_each_other)
{
	struct call call[8];

	ASSERT_EQ(0, klock_lock(self->lock));
	for (size_t i = 0; i < ARRAY_SIZE(call); i++)
		start_call(&call[i], klock_lock, self->lock);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == ARRAY_SIZE(call)));
	for (size_t i = 1; i <= ARRAY_SIZE(call); i++) {
		size_t done;

		EXPECT_EQ(0, klock_unlock(self->lock));
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == ARRAY_SIZE(call) - i));
		ASSERT_TRUE(UNTIL(is_held(self->lock)));
		done = 0;
		for (size_t j = 0; j < ARRAY_SIZE(call); j++)
			done += call[j].done;
		EXPECT_GE(i, done);	/* the i-th may still be on its way out */
	}
	for (size_t i = 0; i < ARRAY_SIZE(call); i++) {
		EXPECT_EQ(0, end_call(&call[i]));
	}
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, status_of(self->lock).flags);
}

/*
 * The counter.  Each worker increments it under the lock, not atomically, and
 * writes down what it is about to do, so that whoever takes the lock after one
 * that was killed half way can see it and mend it; and must have been told.
 */

#define WORKERS 8

struct counter {
	volatile uint64_t count;
	volatile uint64_t shadow;		/* follows count: between them lies one increment */
	volatile uint64_t done[WORKERS];	/* how many of them each one made */
	volatile int busy;			/* who is in the middle: 1 to WORKERS; 0: nobody */
	volatile int told;			/* how often one was told that the owner died, */
	volatile int mended;			/* and found something to mend */
	volatile uint64_t pause;		/* who counts beyond waits there for the killer: */
	volatile int paused;			/* this one; 0: nobody */
};

/* Rolls back an increment that has not come to its end. */
static void mend(struct counter *counter)
{
	uint64_t others = 0;

	counter->told++;
	if (!counter->busy)
		return;
	for (int i = 0; i < WORKERS; i++)
		if (i != counter->busy - 1)
			others += counter->done[i];
	counter->count = counter->shadow;
	counter->done[counter->busy - 1] = counter->shadow - others;
	counter->busy = 0;
	counter->mended++;
}

static void increment(struct counter *counter, int me)
{
	counter->busy = me + 1;
	counter->count++;
	while (counter->count > counter->pause) {
		counter->paused = me + 1;
		nap();
	}
	if (counter->count % 4 == 0)
		sched_yield();	/* so that others come to wait */
	counter->done[me]++;
	counter->shadow++;
	counter->busy = 0;
}

static void work(const char *name, unsigned int flags, struct counter *counter, int me,
		 uint64_t increments)
{
	struct klock_space *space = join_space(name, flags);
	struct klock *lock;
	bool more = true;

	CHECK(space);
	lock = get_lock(space, 5);
	while (more) {
		int ret = klock_lock(lock);

		CHECK(ret == 0 || ret == KLOCK_OWNER_DIED);
		if (ret == KLOCK_OWNER_DIED)
			mend(counter);
		CHECK(!counter->busy);
		CHECK(counter->count == counter->shadow);
		more = counter->done[me] < increments;
		if (more)
			increment(counter, me);
		CHECK(klock_unlock(lock) == 0);
	}
	_exit(0);
}

static pid_t start_worker(const char *name, unsigned int flags, struct counter *counter, int me,
			  uint64_t increments)
{
	pid_t pid = spawn();

	if (pid == 0)
		work(name, flags, counter, me, increments);
	return pid;
}

static void go_on(struct counter *counter, uint64_t until)
{
	counter->paused = 0;
	counter->pause = until;
}

/*
 * This process is the ninth: after so many increments of all it kills who has paused in the
 * middle of the next one, or, every other time, lets it go on and kills any.
 * KLOCK_INCREMENTS in the environment is for other numbers of them.
 */
TEST_F_TIMEOUT(lock, a_counter_survives_8_processes_and_their_killer, 120)
{
	const char *wanted = getenv("KLOCK_INCREMENTS");
	uint64_t increments = wanted ? strtoull(wanted, NULL, 0) : (uint64_t)fewer(20000);
	uint64_t total = WORKERS * increments, step = total / 150 + 1;
	struct counter *counter = shared(sizeof(*counter));
	uint64_t start = now_ns(CLOCK_MONOTONIC), sum = 0;
	pid_t pid[WORKERS];
	unsigned int seed = 1;
	int kills = 0;

	counter->pause = step;
	for (int i = 0; i < WORKERS; i++)
		pid[i] = start_worker(self->name, variant->flags, counter, i, increments);
	for (uint64_t next = step; next < total; next += step) {
		int i, ret;

		ASSERT_TRUE(UNTIL(counter->count > next && counter->paused));
		if (kills % 2) {
			i = counter->paused - 1;
			ret = slay(pid[i]);
			go_on(counter, next + step);
		} else {
			i = rand_r(&seed) % WORKERS;
			go_on(counter, next + step);
			ret = slay(pid[i]);
		}
		ASSERT_TRUE(ret == -SIGKILL || ret == 0);	/* 0: it has done its part */
		kills += ret != 0;
		pid[i] = start_worker(self->name, variant->flags, counter, i, increments);
	}
	for (int i = 0; i < WORKERS; i++) {
		ASSERT_EQ(0, reap(pid[i]));
	}

	TH_LOG("%d killed, %d died with the lock, %d in the middle of an increment; %llu ms", kills,
	       counter->told, counter->mended,
	       (now_ns(CLOCK_MONOTONIC) - start) / NSEC_PER_MSEC);
	EXPECT_EQ(0, counter->busy);
	EXPECT_EQ(total, counter->count);
	EXPECT_EQ(total, counter->shadow);
	for (int i = 0; i < WORKERS; i++) {
		EXPECT_EQ(increments, counter->done[i]);
		sum += counter->done[i];
	}
	EXPECT_EQ(counter->count, sum);
	EXPECT_LE(counter->told, kills);	/* each death is told at most once */
	EXPECT_LE(counter->mended, counter->told);
	EXPECT_LT(0, counter->mended);		/* else this test has shown nothing */
	EXPECT_EQ(0, klock_trylock(self->mine));
}

TEST_HARNESS_MAIN
