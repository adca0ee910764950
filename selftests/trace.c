// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What can be seen of klock with the tools that people have: the counters of a
 * space, events, /proc/PID/fdinfo, and where a thread that waits sleeps.
 */
#define _GNU_SOURCE

#include "klock_test.h"

#include <limits.h>
#include <stdarg.h>
#include <sys/stat.h>

#define OWNER	1000U

FIXTURE(trace) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;		/* 0 */
	int fd;				/* of another client, without the library */
	char instance[128];		/* of tracefs; empty: none */
};

/* What helpers of the tests take. */
#define SELF	FIXTURE_DATA(trace)

static void stop_trace(SELF *self);

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
	stop_trace(self);
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

/*
 * Events
 */

#define EVENTS_MAX	64

struct event {
	pid_t pid;
	char name[16];
	char text[160];
	uint64_t waited;	/* of an acquire; in @text there is a * if it is not 0 */
};

#define TRACEFS		"/sys/kernel/tracing"

static bool write_trace(const SELF *self, const char *file, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", self->instance, file);
	return write_file(path, text);
}

/* From now on what happens in spaces of this name is recorded, in an instance of our own. */
static bool start_trace(SELF *self)
{
	char filter[128];

	snprintf(self->instance, sizeof(self->instance), TRACEFS "/instances/%s", self->name);
	if (mkdir(self->instance, 0700)) {
		perror("# no instance");
		self->instance[0] = 0;
		return false;
	}
	snprintf(filter, sizeof(filter), "space == \"%s\"", self->name);
	return write_trace(self, "trace_clock", "global") &&
	       write_trace(self, "events/klock/filter", filter) &&
	       write_trace(self, "events/klock/enable", "1");
}

static void stop_trace(SELF *self)
{
	if (!self->instance[0])
		return;
	write_trace(self, "events/klock/enable", "0");
	if (rmdir(self->instance))
		perror("# the instance stays");
}

#define START_TRACE() do {						\
	if (access(TRACEFS "/instances", F_OK))				\
		SKIP(return, "no tracefs: %s", strerror(errno));	\
	ASSERT_TRUE(start_trace(self));					\
} while (0)

/* Takes "     comm-PID     [000] d..1.    12.345678: NAME: TEXT" to pieces. */
static bool parse_event(char *line, struct event *event)
{
	char *cpu = strchr(line, '['), *pid = cpu, *name, *text, *waited;

	while (pid && pid > line && *pid != '-')
		pid--;
	name = cpu ? strstr(cpu, ": ") : NULL;
	text = name ? strstr(name + 2, ": ") : NULL;
	if (!text)
		return false;
	*text = 0;
	memset(event, 0, sizeof(*event));
	event->pid = atoi(pid + 1);
	snprintf(event->name, sizeof(event->name), "%s", name + 2);
	snprintf(event->text, sizeof(event->text), "%s", text + 2);
	event->text[strcspn(event->text, "\n")] = 0;
	waited = strstr(event->text, "waited=");
	event->waited = waited ? strtoull(waited + 7, &text, 10) : 0;
	if (event->waited) {
		waited[7] = '*';
		memmove(waited + 8, text, strlen(text) + 1);
	}
	return true;
}

/* What was recorded since the last call, or -1. */
static int read_events(const SELF *self, struct event events[EVENTS_MAX])
{
	char path[PATH_MAX], line[512];
	FILE *file;
	int n = 0, fd;

	snprintf(path, sizeof(path), "%s/trace", self->instance);
	file = fopen(path, "re");
	if (!file)
		return -1;
	while (n >= 0 && n < EVENTS_MAX && fgets(line, sizeof(line), file))
		if (line[0] != '#' && !parse_event(line, &events[n++]))
			n = -1;
	fclose(file);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);	/* forgets it all */
	return fd < 0 || close(fd) ? -1 : n;
}

/* Whether that is what happened in our space of @uid. */
static bool __attribute__((format(printf, 6, 7)))
is_event(const SELF *self, const struct event *event, pid_t pid, uid_t uid, const char *name,
	 const char *format, ...)
{
	char want[160];
	va_list args;
	int n = snprintf(want, sizeof(want), "space=%u/%s ", uid, self->name);

	va_start(args, format);
	vsnprintf(want + n, sizeof(want) - n, format, args);
	va_end(args);
	if (event->pid == pid && !strcmp(event->name, name) && !strcmp(event->text, want))
		return true;
	fprintf(stderr, "# %s: %s, of %d, and not %s: %s, of %d\n", event->name, event->text,
		event->pid, name, want, pid);
	return false;
}

static uint32_t token_of(int fd)
{
	struct klock_ioc_space_fd arg = { 0 };
	int space_fd = raw_ioctl(fd, KLOCK_IOC_SPACE_FD, &arg);

	return space_fd < 0 || close(space_fd) ? 0 : arg.token;
}

static uint32_t token_by(const struct agent *agent, int fd)
{
	struct klock_ioc_space_fd arg = { 0 };
	int space_fd = ioctl_by(agent, fd, KLOCK_IOC_SPACE_FD, &arg);

	return space_fd < 0 || close_by(agent, space_fd) ? 0 : arg.token;
}

/* What a client gets at once, and what it unlocks; not what it does not get. */
static void check_acquire(struct __test_metadata *_metadata, SELF *self, uint32_t flags)
{
	int fd = raw_attach(self->name, flags, 0), pid = getpid();
	struct event events[EVENTS_MAX];
	uint32_t token = token_of(fd);

	ASSERT_NE(0, token);
	START_TRACE();
	EXPECT_EQ(0, raw_lock(fd, 7, 0, 0));
	EXPECT_EQ(-EBUSY, raw_lock(self->fd, 7, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-EPERM, raw_unlock(self->fd, 7));
	EXPECT_EQ(-EPERM, raw_unlock(fd, 8));
	EXPECT_EQ(-EINVAL, raw_lock(fd, 1024, 0, 0));
	EXPECT_EQ(0, raw_unlock(fd, 7));
	EXPECT_EQ(0, raw_lock(fd, 1000, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(3, read_events(self, events));
	EXPECT_TRUE(is_event(self, &events[0], pid, 0, "acquire",
			     "id=7 token=%u waited=0 died=0", token));
	EXPECT_TRUE(is_event(self, &events[1], pid, 0, "released", "id=7 token=%u", token));
	EXPECT_TRUE(is_event(self, &events[2], pid, 0, "acquire",
			     "id=1000 token=%u waited=0 died=0", token));
	close(fd);
}

TEST_F(trace, event_acquire)
{
	check_acquire(_metadata, self, 0);
}

TEST_F(trace, event_acquire_errorcheck)
{
	check_acquire(_metadata, self, KLOCK_ATTACH_ERRORCHECK);
}

/* Who waits, for whom, and how long; by the thread, also when it was in vain. */
static void check_contended(struct __test_metadata *_metadata, SELF *self, uint32_t flags)
{
	struct event events[EVENTS_MAX];
	uint64_t before, seen, unlocked;
	struct agent waiter;
	int fd = enlist_client(&waiter, self, flags), pid = getpid();
	uint32_t mine = token_of(self->fd), its = token_by(&waiter, fd);

	ASSERT_NE(0, mine);
	ASSERT_NE(0, its);
	START_TRACE();
	EXPECT_EQ(0, raw_lock(self->fd, 0, 0, 0));
	before = now_ns(CLOCK_MONOTONIC);
	tell_lock(&waiter, fd, 0);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	seen = now_ns(CLOCK_MONOTONIC);
	EXPECT_TRUE(UNTIL(now_ns(CLOCK_MONOTONIC) > seen + NSEC_PER_MSEC));
	unlocked = now_ns(CLOCK_MONOTONIC);
	EXPECT_EQ(0, raw_unlock(self->fd, 0));
	EXPECT_EQ(0, answer(&waiter, NULL, 0));
	EXPECT_EQ(-ETIMEDOUT, raw_lock(self->fd, 0, KLOCK_LOCK_DEADLINE,
				       now_ns(CLOCK_MONOTONIC) + NSEC_PER_MSEC));
	EXPECT_EQ(0, unlock_by(&waiter, fd, 0));

	ASSERT_EQ(6, read_events(self, events));
	EXPECT_TRUE(is_event(self, &events[1], waiter.pid, 0, "contended",
			     "id=0 token=%u holder=%u", its, mine));
	EXPECT_TRUE(is_event(self, &events[2], pid, 0, "released", "id=0 token=%u", mine));
	EXPECT_TRUE(is_event(self, &events[3], waiter.pid, 0, "acquire",
			     "id=0 token=%u waited=* died=0", its));
	EXPECT_LE(unlocked - seen, events[3].waited);
	EXPECT_GE(now_ns(CLOCK_MONOTONIC) - before, events[3].waited);
	EXPECT_TRUE(is_event(self, &events[4], pid, 0, "contended",
			     "id=0 token=%u holder=%u", mine, its));
	EXPECT_TRUE(is_event(self, &events[5], waiter.pid, 0, "released", "id=0 token=%u", its));
}

TEST_F(trace, event_contended)
{
	check_contended(_metadata, self, 0);
}

TEST_F(trace, event_contended_errorcheck)
{
	check_contended(_metadata, self, KLOCK_ATTACH_ERRORCHECK);
}

/* A client that closes with locks; the next holder of each is told, which is seen, too. */
TEST_F(trace, event_owner_died)
{
	struct event events[EVENTS_MAX];
	struct agent holder, waiter;
	int fd = enlist_client(&holder, self, 0), fd2 = enlist_client(&waiter, self, 0);
	uint32_t mine = token_of(self->fd), token = token_by(&holder, fd);
	uint32_t token2 = token_by(&waiter, fd2);

	ASSERT_NE(0, mine);
	ASSERT_NE(0, token);
	ASSERT_NE(0, token2);
	EXPECT_EQ(0, lock_by(&holder, fd, 5, 0));
	EXPECT_EQ(0, lock_by(&holder, fd, 1000, 0));
	tell_lock(&waiter, fd2, 1000);
	ASSERT_TRUE(UNTIL(raw_info(self->fd).waiting == 1));
	START_TRACE();
	EXPECT_EQ(-SIGKILL, slay(holder.pid));
	EXPECT_EQ(1, answer(&waiter, NULL, 0));
	EXPECT_EQ(1, raw_lock(self->fd, 5, 0, 0));

	ASSERT_EQ(4, read_events(self, events));
	EXPECT_TRUE(is_event(self, &events[0], holder.pid, 0, "owner_died", "id=5 token=%u",
			     token));
	EXPECT_TRUE(is_event(self, &events[1], holder.pid, 0, "owner_died", "id=1000 token=%u",
			     token));
	EXPECT_TRUE(is_event(self, &events[2], waiter.pid, 0, "acquire",
			     "id=1000 token=%u waited=* died=1", token2));
	EXPECT_TRUE(is_event(self, &events[3], getpid(), 0, "acquire",
			     "id=5 token=%u waited=0 died=1", mine));
}

/* What is taken and released in the mapped words makes no call; a death in one is met later. */
TEST_F(trace, events_beside_a_mapping)
{
	const uint32_t nobody = 12345;
	struct event events[EVENTS_MAX];
	struct mapper m;
	uint64_t who;
	int fd;

	if (!words_can_be_mapped())
		SKIP(return, "words are not mapped here");
	EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
	ASSERT_TRUE(map_space(&m, self->name, KLOCK_ATTACH_CREATE, 64));
	fd = raw_attach(self->name, 0, 0);
	ASSERT_LE(0, fd);
	START_TRACE();
	who = m.token | (uint64_t)getpid() << KLOCK_WORD_TID_SHIFT;
	m.words[3] = who;
	EXPECT_EQ(-ETIMEDOUT, raw_lock(fd, 3, KLOCK_LOCK_DEADLINE, 1));
	EXPECT_EQ(who, m.words[3]);
	m.words[3] = 0;
	m.words[4] = nobody;
	EXPECT_EQ(1, raw_lock(m.fd, 4, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(3, read_events(self, events));
	EXPECT_TRUE(is_event(self, &events[0], getpid(), 0, "contended", "id=3 token=%u holder=%u",
			     token_of(fd), m.token));
	EXPECT_TRUE(is_event(self, &events[1], getpid(), 0, "owner_died", "id=4 token=%u",
			     nobody));
	EXPECT_TRUE(is_event(self, &events[2], getpid(), 0, "acquire",
			     "id=4 token=%u waited=0 died=1", m.token));
	close(fd);
	unmap_space(&m);
}

/* Of him who lost it, by him who broke it. */
TEST_F(trace, event_broken)
{
	struct event events[EVENTS_MAX];
	struct agent holder;
	int fd = enlist_client(&holder, self, 0);
	uint32_t token = token_by(&holder, fd), mine = token_of(self->fd);

	ASSERT_NE(0, token);
	EXPECT_EQ(0, lock_by(&holder, fd, 9, 0));
	START_TRACE();
	EXPECT_EQ(-EAGAIN, raw_break(self->fd, 9, mine));
	EXPECT_EQ(-ENOENT, raw_break(self->fd, 8, 0));
	EXPECT_EQ(0, raw_break(self->fd, 9, 0));
	EXPECT_EQ(-EPERM, unlock_by(&holder, fd, 9));
	EXPECT_EQ(0, close_by(&holder, fd));
	EXPECT_EQ(1, read_events(self, events));
	EXPECT_TRUE(is_event(self, &events[0], getpid(), 0, "broken", "id=9 token=%u", token));
}

/*
 * Unlocks lock 0 and is first to have it again, as often as that may be done to @waiter.
 * On one processor, where a thread that has priority is not kept from that.
 */
static bool barge(int fd, pid_t waiter)
{
	struct sched_param first = { .sched_priority = 1 }, usual = { .sched_priority = 0 };
	struct klock_ioc_api api = { 0 };
	bool good = raw_ioctl(fd, KLOCK_IOC_GET_API, &api) == 0;
	cpu_set_t any;

	sched_getaffinity(0, sizeof(any), &any);
	pin_here(0);
	pin_here(waiter);
	sched_setscheduler(0, SCHED_FIFO, &first);
	for (uint32_t i = 0; i < api.max_passed && good; i++) {
		uint64_t before = raw_info(fd).passed;

		good = raw_unlock(fd, 0) == 0 && raw_lock(fd, 0, KLOCK_LOCK_TRY, 0) == 0 &&
		       UNTIL(raw_info(fd).passed == before + 1);
	}
	sched_setscheduler(0, SCHED_OTHER, &usual);
	sched_setaffinity(waiter, sizeof(any), &any);
	sched_setaffinity(0, sizeof(any), &any);
	return good;
}

/* The unlock after that hands it over; the waiter has it then, however late it runs. */
TEST_F(trace, event_handoff)
{
	struct event events[EVENTS_MAX];
	struct agent waiter;
	int fd = enlist_client(&waiter, self, 0);
	uint32_t mine = token_of(self->fd), its = token_by(&waiter, fd);

	ASSERT_NE(0, mine);
	ASSERT_NE(0, its);
	EXPECT_EQ(0, raw_lock(self->fd, 0, 0, 0));
	tell_lock(&waiter, fd, 0);
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	START_TRACE();
	ASSERT_TRUE(barge(self->fd, waiter.pid));
	EXPECT_LT(0, read_events(self, events));
	EXPECT_EQ(0, raw_unlock(self->fd, 0));
	EXPECT_EQ(-EBUSY, raw_lock(self->fd, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, answer(&waiter, NULL, 0));
	ASSERT_EQ(3, read_events(self, events));
	EXPECT_TRUE(is_event(self, &events[0], getpid(), 0, "handoff", "id=0 token=%u", its));
	EXPECT_TRUE(is_event(self, &events[1], getpid(), 0, "released", "id=0 token=%u", mine));
	EXPECT_TRUE(is_event(self, &events[2], waiter.pid, 0, "acquire",
			     "id=0 token=%u waited=* died=0", its));
}

/* The owner is told as the initial user namespace sees it, wherever that happens. */
TEST_F(trace, events_in_a_user_namespace)
{
	struct event events[EVENTS_MAX];
	struct agent in = user(OWNER);
	int fd;

	ASSERT_TRUE(enter_userns(&in, OWNER));
	START_TRACE();
	fd = make_by(&in, self->name, 8, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, lock_by(&in, fd, 2, 0));
	EXPECT_EQ(1, read_events(self, events));
	EXPECT_TRUE(is_event(self, &events[0], in.pid, OWNER, "acquire",
			     "id=2 token=%u waited=0 died=0", token_by(&in, fd)));
	EXPECT_EQ(0, remove_by(&in, self->name, KLOCK_REMOVE_FORCE, 0));
}

/*
 * /proc/PID/fdinfo
 */

static char fdinfo_text[32768];

static void read_fdinfo(pid_t pid, int fd)
{
	char path[64];
	ssize_t n, size = 0;
	int file;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	file = open(path, O_RDONLY | O_CLOEXEC);
	while ((n = read(file, fdinfo_text + size, sizeof(fdinfo_text) - 1 - size)) > 0)
		size += n;
	close(file);
	fdinfo_text[size] = 0;
}

/* The value of @key, a line of its own, in what was read; NULL: there is none. */
static const char *value_of(const char *key)
{
	static char value[4096];
	const char *line, *next;
	size_t length = strlen(key);

	for (line = fdinfo_text; (next = strchr(line, '\n')); line = next + 1) {
		if (strncmp(line, key, length) || strncmp(line + length, ":\t", 2))
			continue;
		line += length + 2;
		snprintf(value, sizeof(value), "%.*s", (int)(next - line), line);
		return value;
	}
	return NULL;
}

static const char *fdinfo(pid_t pid, int fd, const char *key)
{
	read_fdinfo(pid, fd);
	return value_of(key);
}

#define EXPECT_FDINFO(_pid, _fd, _key, ...) do {			\
	char __want[4096];						\
									\
	snprintf(__want, sizeof(__want), __VA_ARGS__);			\
	EXPECT_STREQ(__want, fdinfo(_pid, _fd, _key) ?: "no " _key);	\
} while (0)

/* What a client is; one that is not attached is nothing yet. */
TEST_F(trace, fdinfo_of_a_client)
{
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), pid = getpid();
	struct klock_ioc_attach attach = { .flags = KLOCK_ATTACH_ERRORCHECK };
	struct klock_ioc_info info = raw_info(self->fd);
	int looker = raw_attach(self->name, KLOCK_ATTACH_READONLY, 0);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, looker);
	EXPECT_FDINFO(pid, fd, "klock-space", "-");
	EXPECT_EQ(NULL, fdinfo(pid, fd, "klock-token"));
	strcpy(attach.name, self->name);
	EXPECT_EQ(1024, raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach));
	EXPECT_FDINFO(pid, fd, "klock-space", "0/%s", self->name);
	EXPECT_FDINFO(pid, fd, "klock-generation", "%016llx", (unsigned long long)info.generation);
	EXPECT_FDINFO(pid, fd, "klock-token", "%u", token_of(fd));
	EXPECT_FDINFO(pid, fd, "klock-mode", "errorcheck");
	EXPECT_FDINFO(pid, fd, "klock-held", "0");
	EXPECT_FDINFO(pid, fd, "klock-locks", "%s", "");
	EXPECT_FDINFO(pid, fd, "klock-waits", "%s", "");
	EXPECT_FDINFO(pid, self->fd, "klock-token", "%u", token_of(self->fd));
	EXPECT_FDINFO(pid, self->fd, "klock-mode", "normal");
	EXPECT_FDINFO(pid, looker, "klock-mode", "normal readonly");
	close(looker);
	close(fd);
}

/* Locks of this client, of all its pages; and how many, where not all are listed. */
TEST_F(trace, fdinfo_of_a_holder)
{
	int other = raw_attach(self->name, 0, 0), pid = getpid();
	const char *locks;

	ASSERT_LE(0, other);
	EXPECT_EQ(0, raw_lock(other, 4, 0, 0));
	EXPECT_EQ(0, raw_lock(self->fd, 1023, 0, 0));
	EXPECT_EQ(0, raw_lock(self->fd, 3, 0, 0));
	EXPECT_FDINFO(pid, self->fd, "klock-held", "2");
	EXPECT_FDINFO(pid, self->fd, "klock-locks", "3 1023");
	EXPECT_FDINFO(pid, other, "klock-locks", "4");
	EXPECT_EQ(0, raw_unlock(self->fd, 3));
	EXPECT_FDINFO(pid, self->fd, "klock-held", "1");
	EXPECT_FDINFO(pid, self->fd, "klock-locks", "1023");

	for (uint32_t i = 500; i < 755; i++) {
		ASSERT_EQ(0, raw_lock(self->fd, i, 0, 0));
	}
	locks = fdinfo(pid, self->fd, "klock-locks");
	EXPECT_EQ(0, strcmp(locks + strlen(locks) - 9, " 754 1023"));
	EXPECT_EQ(0, raw_lock(self->fd, 800, 0, 0));
	locks = fdinfo(pid, self->fd, "klock-locks");
	EXPECT_EQ(0, strncmp(locks, "500 501 502 ", 12));
	EXPECT_EQ(0, strcmp(locks + strlen(locks) - 12, " 754 800 ..."));
	EXPECT_FDINFO(pid, self->fd, "klock-held", "257");
	EXPECT_FDINFO(pid, other, "klock-held", "1");
	close(other);
}

/* A lock that was taken in the mapped words is held like any other. */
TEST_F(trace, fdinfo_of_a_mapper)
{
	char name[KLOCK_NAME_SIZE];
	struct mapper m;

	if (!words_can_be_mapped())
		SKIP(return, "words are not mapped here");
	snprintf(name, sizeof(name), "%.60s-2", self->name);
	ASSERT_TRUE(map_space(&m, name, KLOCK_ATTACH_CREATE, 64));
	m.words[60] = m.token;
	EXPECT_FDINFO(getpid(), m.fd, "klock-locks", "60");
	unmap_space(&m);
	EXPECT_EQ(0, raw_remove(name, KLOCK_REMOVE_FORCE));
}

struct waiting {
	int fd, ret;
	uint32_t id;
	pid_t tid;
};

static void *wait_in_thread(void *arg)
{
	struct waiting *waiting = arg;

	waiting->tid = gettid();
	waiting->ret = raw_lock(waiting->fd, waiting->id, 0, 0);
	return NULL;
}

/* Threads of this client, each with the lock that it waits for. */
TEST_F(trace, fdinfo_of_waiters)
{
	struct waiting waiting[] = { { .id = 2 }, { .id = 1000 } };
	int fd = raw_attach(self->name, 0, 0), pid = getpid(), other_fd;
	pthread_t threads[2];
	struct agent other;

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, raw_lock(self->fd, 2, 0, 0));
	EXPECT_EQ(0, raw_lock(self->fd, 1000, 0, 0));
	other_fd = enlist_client(&other, self, 0);
	ASSERT_LE(0, other_fd);
	tell_lock(&other, other_fd, 2);
	ASSERT_TRUE(UNTIL(raw_info(self->fd).waiting == 1));
	for (int i = 0; i < 2; i++) {
		waiting[i].fd = fd;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, wait_in_thread, &waiting[i]));
	}
	ASSERT_TRUE(UNTIL(raw_info(self->fd).waiting == 3));
	EXPECT_FDINFO(pid, fd, "klock-waits", "2:%d 1000:%d", waiting[0].tid, waiting[1].tid);
	EXPECT_FDINFO(pid, fd, "klock-locks", "%s", "");
	EXPECT_FDINFO(other.pid, other_fd, "klock-waits", "2:%d", other.pid);
	EXPECT_FDINFO(pid, self->fd, "klock-waits", "%s", "");

	EXPECT_EQ(0, raw_unlock(self->fd, 1000));
	EXPECT_EQ(0, pthread_join(threads[1], NULL));
	EXPECT_EQ(0, waiting[1].ret);
	EXPECT_FDINFO(pid, fd, "klock-waits", "2:%d", waiting[0].tid);
	EXPECT_FDINFO(pid, fd, "klock-locks", "1000");
	EXPECT_EQ(0, raw_unlock(self->fd, 2));
	EXPECT_EQ(0, answer(&other, NULL, 0));
	EXPECT_EQ(0, unlock_by(&other, other_fd, 2));
	EXPECT_EQ(0, pthread_join(threads[0], NULL));
	EXPECT_EQ(0, waiting[0].ret);
	EXPECT_FDINFO(pid, fd, "klock-waits", "%s", "");
	EXPECT_FDINFO(pid, fd, "klock-locks", "2 1000");
	close(fd);
}

static int do_fdinfo(struct order *order)
{
	const char *value = fdinfo(getpid(), order->fd, "klock-space");

	snprintf(order->arg, sizeof(order->arg), "%s", value ?: "none");
	return 0;
}

/* The owner as the reader's user namespace sees it. */
TEST_F(trace, fdinfo_in_a_user_namespace)
{
	struct agent in = user(OWNER);
	char want[KLOCK_NAME_SIZE + 16], got[sizeof(want)];
	int fd;

	ASSERT_TRUE(enter_userns(&in, OWNER));
	fd = make_by(&in, self->name, 8, 0);
	ASSERT_LE(0, fd);
	EXPECT_FDINFO(in.pid, fd, "klock-space", "%u/%s", OWNER, self->name);
	tell(&in, do_fdinfo, fd, 0, NULL, 0);
	EXPECT_EQ(0, answer(&in, got, sizeof(got)));
	snprintf(want, sizeof(want), "0/%s", self->name);
	EXPECT_STREQ(want, got);

	/* of one that it has no uid for */
	tell(&in, do_fdinfo, self->fd, 0, NULL, 0);
	EXPECT_EQ(0, answer(&in, got, sizeof(got)));
	snprintf(want, sizeof(want), "65534/%s", self->name);
	EXPECT_STREQ(want, got);
	EXPECT_EQ(0, remove_by(&in, self->name, KLOCK_REMOVE_FORCE, 0));
}

struct reader {
	const char *name;
	atomic_int fd;		/* -1: the end */
	atomic_uint none, all, bad;
};

/* Reads the fdinfo of what is being attached: it is all there, or nothing. */
static void *read_in_thread(void *arg)
{
	struct reader *reader = arg;
	char want[KLOCK_NAME_SIZE + 16];
	const char *space, *waits;
	int fd;

	snprintf(want, sizeof(want), "0/%s", reader->name);
	while ((fd = reader->fd) >= 0) {
		space = fdinfo(getpid(), fd, "klock-space");
		if (!space || !strcmp(space, "-")) {
			reader->bad += !!value_of("klock-token");
			reader->none++;
			continue;
		}
		reader->bad += !!strcmp(space, want);
		waits = value_of("klock-waits");
		reader->bad += !waits || strcmp(waits, "");
		reader->all++;
	}
	return NULL;
}

TEST_F(trace, fdinfo_beside_attach)
{
	struct reader reader = { .name = self->name };
	pthread_t thread;
	unsigned int none, all;
	int fd, last = -1;

	reader.fd = self->fd;
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_in_thread, &reader));
	for (int i = 0; i < fewer(2000); i++) {
		struct klock_ioc_attach attach = named(self->name, 0);

		fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		none = reader.none;
		reader.fd = fd;
		if (i % 4 == 0) {
			ASSERT_TRUE(UNTIL(reader.none > none));
		}
		EXPECT_EQ(1024, raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach));
		all = reader.all;
		if (i % 4 == 1) {
			ASSERT_TRUE(UNTIL(reader.all > all));
		}
		EXPECT_EQ(0, raw_lock(fd, 10, 0, 0));
		EXPECT_EQ(0, raw_unlock(fd, 10));
		if (last >= 0)
			close(last);
		last = fd;
	}
	reader.fd = -1;
	EXPECT_EQ(0, pthread_join(thread, NULL));
	TH_LOG("read %u times before, %u times after", reader.none, reader.all);
	EXPECT_EQ(0, reader.bad);
	close(last);
}

/*
 * What the kernel says of a thread that waits
 */

/* The first line of a file of /proc that has @word in it; NULL: none. */
static const char *find_line(pid_t pid, const char *file, const char *word)
{
	static char line[256];
	char path[64];
	bool found = false;
	FILE *stream;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	stream = fopen(path, "re");
	while (stream && !found && fgets(line, sizeof(line), stream))
		found = strstr(line, word);
	if (stream)
		fclose(stream);
	return found ? line : NULL;
}

static const struct {
	uint32_t mode;		/* of the space: who waits where words can be mapped looks again */
	uint32_t attach, lock;	/* flags */
} kinds[] = {
	{ 0620, 0, 0 },
	{ 0600, 0, 0 },
	{ 0620, KLOCK_ATTACH_ERRORCHECK, 0 },
	{ 0600, 0, KLOCK_LOCK_DEADLINE },
	{ 0600, 0, KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME },
};

/* In every way to wait the function that it sleeps in is called after us. */
static void check_sleeper(struct __test_metadata *_metadata, SELF *self, const char *file)
{
	if (!find_line(getpid(), file, ""))
		SKIP(return, "no /proc/PID/%s", file);
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct klock_ioc_lock lock = { .flags = kinds[i].lock };
		struct agent holder = enlist(NULL, NULL), waiter = enlist(NULL, NULL);
		int fd, fd2;

		EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
		fd = make_by(&holder, self->name, 8, kinds[i].mode);
		fd2 = open_by(&waiter, self->name, kinds[i].attach);
		ASSERT_LE(0, fd);
		ASSERT_LE(0, fd2);
		EXPECT_EQ(0, lock_by(&holder, fd, 0, 0));
		if (lock.flags)
			lock.deadline = INT64_MAX;
		tell(&waiter, do_ioctl, fd2, KLOCK_IOC_LOCK, &lock, sizeof(lock));
		EXPECT_TRUE(UNTIL(find_line(waiter.pid, file, "klock_")))
			TH_LOG("kind %u: %s", i, find_line(waiter.pid, file, "") ?: "nothing");
		EXPECT_EQ(0, unlock_by(&holder, fd, 0));
		EXPECT_EQ(0, answer(&waiter, NULL, 0));
	}
}

TEST_F(trace, wchan)
{
	check_sleeper(_metadata, self, "wchan");
}

TEST_F(trace, stack)
{
	check_sleeper(_metadata, self, "stack");
}

TEST_HARNESS_MAIN
