// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What can be seen of klock with the tools that people have: the counters of a
 * space.
 */
#define _GNU_SOURCE

#include "klock_test.h"

FIXTURE(trace) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;		/* 0 */
	int fd;				/* of another client, without the library */
};

/* What helpers of the tests take. */
#define SELF	FIXTURE_DATA(trace)

FIXTURE_SETUP(trace)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, 1024, KLOCK_NO_FASTPATH);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 0);
	ASSERT_NE(NULL, self->lock);
	self->fd = raw_attach(self->name, 0, 0);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(trace)
{
	dismiss_all();
	close(self->fd);
	klock_put(self->lock);
	klock_space_close(self->space);
	klock_space_remove(self->name, KLOCK_FORCE);
}

/* An agent that is a client of the space: its descriptor there. */
static int enlist_client(struct agent *agent, const SELF *self, uint32_t flags)
{
	*agent = enlist(NULL, NULL);
	return open_by(agent, self->name, flags);
}

/*
 * Counters of the info
 */

#define EXPECT_COUNTS(_waits, _waited, _deaths) do {			\
	struct klock_space_info __info;					\
									\
	POISON(__info);							\
	EXPECT_EQ(0, klock_space_info(self->space, &__info));		\
	EXPECT_EQ(_waits, __info.waits);				\
	EXPECT_EQ(_waited, __info.waited);				\
	EXPECT_EQ(_deaths, __info.deaths);				\
} while (0)

/* A wait counts when it begins, and again when it ends with the lock. */
TEST_F(trace, waits_are_counted)
{
	struct agent waiter;
	int fd = enlist_client(&waiter, self, 0);

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(-EBUSY, raw_lock(self->fd, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_COUNTS(0, 0, 0);

	EXPECT_EQ(0, klock_lock(self->lock));
	tell_lock(&waiter, fd, 0);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	EXPECT_COUNTS(1, 0, 0);
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, answer(&waiter, NULL, 0));
	EXPECT_COUNTS(1, 1, 0);

	/* in vain */
	EXPECT_EQ(-ETIMEDOUT, raw_lock(self->fd, 0, KLOCK_LOCK_DEADLINE,
				       now_ns(CLOCK_MONOTONIC) + NSEC_PER_MSEC));
	EXPECT_COUNTS(2, 1, 0);
	tell_lock(&waiter, fd, 0);	/* it has the lock itself */
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	EXPECT_COUNTS(3, 1, 0);
	EXPECT_EQ(-SIGKILL, slay(waiter.pid));
	EXPECT_COUNTS(3, 1, 1);
}

/* One that would close a cycle does not wait. */
TEST_F(trace, deadlock_is_no_wait)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_ERRORCHECK, 0);
	struct agent other;
	int other_fd = enlist_client(&other, self, KLOCK_ATTACH_ERRORCHECK);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, other_fd);
	EXPECT_EQ(0, raw_lock(fd, 0, 0, 0));
	EXPECT_EQ(-EDEADLK, raw_lock(fd, 0, 0, 0));
	EXPECT_COUNTS(0, 0, 0);
	EXPECT_EQ(0, lock_by(&other, other_fd, 1, 0));
	tell_lock(&other, other_fd, 0);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	EXPECT_EQ(-EDEADLK, raw_lock(fd, 1, 0, 0));
	EXPECT_COUNTS(1, 0, 0);
	EXPECT_EQ(0, raw_unlock(fd, 0));
	EXPECT_EQ(0, answer(&other, NULL, 0));
	EXPECT_COUNTS(1, 1, 0);
	close(fd);
}

/* The longest of all, those in vain too; a shorter one changes nothing. */
TEST_F(trace, longest_wait)
{
	uint64_t before, seen, unlocked, longest;
	struct agent waiter;
	int fd = enlist_client(&waiter, self, 0);

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(0, raw_info(self->fd).longest_wait);
	before = now_ns(CLOCK_MONOTONIC);
	EXPECT_EQ(-ETIMEDOUT, raw_lock(self->fd, 0, KLOCK_LOCK_DEADLINE,
				       before + 50 * NSEC_PER_MSEC));
	longest = raw_info(self->fd).longest_wait;
	EXPECT_LT(0, longest);
	EXPECT_GE(now_ns(CLOCK_MONOTONIC) - before, longest);

	before = now_ns(CLOCK_MONOTONIC);
	tell_lock(&waiter, fd, 0);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	seen = now_ns(CLOCK_MONOTONIC);
	EXPECT_EQ(longest, raw_info(self->fd).longest_wait);	/* not before it ends */
	EXPECT_TRUE(UNTIL(now_ns(CLOCK_MONOTONIC) > seen + 2 * longest));
	unlocked = now_ns(CLOCK_MONOTONIC);
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, answer(&waiter, NULL, 0));
	longest = raw_info(self->fd).longest_wait;
	EXPECT_LE(unlocked - seen, longest);
	EXPECT_GE(now_ns(CLOCK_MONOTONIC) - before, longest);

	EXPECT_EQ(-ETIMEDOUT, raw_lock(self->fd, 0, KLOCK_LOCK_DEADLINE, 1));
	EXPECT_EQ(longest, raw_info(self->fd).longest_wait);
	EXPECT_COUNTS(3, 1, 0);
}

/* A signal ends a wait, and the call that is restarted begins another. */
static void on_signal(int sig)
{
	(void)sig;
}

TEST_F(trace, interrupted_wait_counts_anew)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	pid_t waiter;

	EXPECT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	EXPECT_EQ(0, klock_lock(self->lock));
	waiter = wait_in_child(self->space, self->name, KLOCK_NO_FASTPATH, 0);
	ASSERT_LT(0, waiter);
	for (int i = 1; i < 4; i++) {
		EXPECT_COUNTS(i, 0, 0);
		EXPECT_EQ(0, kill(waiter, SIGUSR1));
		EXPECT_TRUE(UNTIL(raw_info(self->fd).waits == (uint64_t)i + 1));
	}
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, reap(waiter));
	EXPECT_COUNTS(4, 1, 0);
}

/* Each lock of a client that goes; not what it had unlocked, nor what was broken. */
TEST_F(trace, deaths_are_counted)
{
	int fd = raw_attach(self->name, 0, 0);

	ASSERT_LE(0, fd);
	for (uint32_t i = 0; i < 5; i++) {
		EXPECT_EQ(0, raw_lock(fd, 100 * i, 0, 0));
	}
	EXPECT_EQ(0, raw_unlock(fd, 400));
	EXPECT_EQ(0, raw_break(self->fd, 300, 0));
	EXPECT_COUNTS(0, 0, 0);
	close(fd);
	EXPECT_COUNTS(0, 0, 3);
	EXPECT_EQ(1, raw_lock(self->fd, 300, 0, 0));
	EXPECT_EQ(1, raw_lock(self->fd, 200, 0, 0));
	EXPECT_EQ(0, raw_lock(self->fd, 400, 0, 0));
	EXPECT_COUNTS(0, 0, 3);
}

/* A word that names nobody is a holder that died, for whoever meets it. */
TEST_F(trace, deaths_that_are_met_are_counted)
{
	const uint32_t nobody = 12345;
	char name[KLOCK_NAME_SIZE];
	struct mapper m;
	int fd;

	if (!words_can_be_mapped())
		SKIP(return, "words are not mapped here");
	snprintf(name, sizeof(name), "%.60s-2", self->name);
	ASSERT_TRUE(map_space(&m, name, KLOCK_ATTACH_CREATE, 64));
	m.words[0] = nobody;
	EXPECT_EQ(1, raw_lock(m.fd, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(1, raw_info(m.fd).deaths);
	fd = raw_attach(name, KLOCK_ATTACH_ERRORCHECK, 0);
	m.words[1] = nobody;
	EXPECT_EQ(1, raw_lock(fd, 1, 0, 0));
	EXPECT_EQ(2, raw_info(m.fd).deaths);
	m.words[60] = nobody;
	EXPECT_EQ(0, raw_resize(m.fd, 32));
	EXPECT_EQ(3, raw_info(m.fd).deaths);
	m.words[2] = nobody;
	EXPECT_EQ(0, raw_remove(name, KLOCK_REMOVE_FORCE));
	EXPECT_EQ(4, raw_info(m.fd).deaths);
	close(fd);		/* 1, which it held */
	EXPECT_EQ(5, raw_info(m.fd).deaths);
	unmap_space(&m);
}

TEST_HARNESS_MAIN
