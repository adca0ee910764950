// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Waiting and order: who waits for a lock sleeps until it has it, whatever
 * signals, stops and freezes come, dies when it must, leaves at its deadline,
 * and is served in the order of arrival but for bounded barging.
 */
#include "klock_test.h"

#include <semaphore.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LOCKS		64
#define QUEUE_MAX	32

/* An hour: a deadline that no test sees. */
#define FAR_MS		3600000

/* By how much a busy machine may be late. */
#define LATE_NS		(5 * NSEC_PER_SEC * patience())

/* Who had the lock, or gave up, in their order. */
struct served {
	unsigned int n;
	pid_t pid[QUEUE_MAX];
};

FIXTURE(wait) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;
	struct served *served;
	uint32_t attach_flags;		/* for a raw client of the same mode */
};

FIXTURE_VARIANT(wait) {
	unsigned int flags;
	unsigned int races;	/* rounds of each of the tests that last longest */
};

FIXTURE_VARIANT_ADD(wait, normal) {
	.flags = KLOCK_NO_FASTPATH,
	.races = 400,
};

FIXTURE_VARIANT_ADD(wait, errorcheck) {
	.flags = KLOCK_ERRORCHECK,
	.races = 200,
};

/* What helpers of the tests take. */
#define SELF	FIXTURE_DATA(wait)

/* Signals that children have handled; made by the setup, shared with them. */
static atomic_uint *handled;

FIXTURE_SETUP(wait)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, LOCKS, variant->flags);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 0);
	ASSERT_NE(NULL, self->lock);
	self->served = shared(sizeof(*self->served));
	handled = shared(sizeof(*handled));
	if (variant->flags & KLOCK_ERRORCHECK)
		self->attach_flags = KLOCK_ATTACH_ERRORCHECK;
}

FIXTURE_TEARDOWN(wait)
{
	klock_put(self->lock);
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, 0));
}

static void count_signal(int sig)
{
	(void)sig;
	atomic_fetch_add(handled, 1);
}

/* For a child: SIGUSR1 is handled and counted from now on. */
static void handle_signals(int flags)
{
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = flags };

	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
}

/* Whether a child has ended; it stays to be reaped. */
static bool ended(pid_t pid)
{
	siginfo_t info = { .si_pid = 0 };

	return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/* Sends SIGUSR1 to a child and waits until it has handled it, or ended. */
static bool interrupt(pid_t pid)
{
	unsigned int before = atomic_load(handled);

	return kill(pid, SIGUSR1) == 0 && UNTIL(atomic_load(handled) != before || ended(pid));
}

/* For a child: says that it has the lock, or that it gave up. */
static void say_served(struct served *served)
{
	CHECK(served->n < QUEUE_MAX);
	served->pid[__atomic_fetch_add(&served->n, 1, __ATOMIC_SEQ_CST)] = getpid();
}

/* For a child: takes the lock, says so and unlocks it. */
static void take_turn(struct klock *lock, struct served *served)
{
	CHECK(klock_lock(lock) == 0);
	say_served(served);
	CHECK(klock_unlock(lock) == 0);
}

/* The same, without the library. */
static void take_turn_raw(int fd, struct served *served)
{
	CHECK(raw_lock(fd, 0, 0, 0) == 0);
	say_served(served);
	CHECK(raw_unlock(fd, 0) == 0);
}

/* Starts a child that waits for a held lock, behind @before others, and returns when it does. */
static pid_t queue_up(struct klock *lock, struct served *served, uint32_t before)
{
	pid_t pid = spawn();

	if (pid == 0) {
		take_turn(lock, served);
		_exit(0);
	}
	return UNTIL(waiters_of(lock) == before + 1) ? pid : -1;
}

/* Whether these processes, in this order, are all who wait for the lock. */
static bool queue_is(struct klock *lock, const pid_t *pid, int n)
{
	struct klock_waiter waiter[QUEUE_MAX];
	int i;

	POISON(waiter);
	if (klock_waiters(lock, waiter, QUEUE_MAX) != n)
		return false;
	for (i = 0; i < n; i++)
		if (waiter[i].pid != (uint32_t)pid[i] || waiter[i].tid != (uint32_t)pid[i])
			return false;
	return true;
}

/* Whether the lock is as new: nobody has it, waits for it, or died with it. */
static bool is_idle(struct klock *lock)
{
	struct klock_status status = status_of(lock);

	return status.flags == 0 && status.waiters == 0 && status.token == 0;
}

static struct klock_ioc_info info_of(struct klock_space *space)
{
	return raw_info(klock_space_fd(space));
}

/* Reads the start of a file of /proc or /sys: whether it could. */
static bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return n >= 0;
}

/* Returns 0 or -errno. */
static int write_text(int dir, const char *path, const char *text)
{
	int fd = openat(dir, path, O_WRONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

/* Whether a process is off its CPU within an ioctl, for good or until it is woken. */
static bool sleeps_in_ioctl(pid_t pid)
{
	char path[64], text[128];

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	/* Of one on a CPU it says "running". */
	return read_text(path, text, sizeof(text)) && strtol(text, NULL, 10) == SYS_ioctl;
}

/* How often a process has gone to sleep. */
static long sleeps_of(pid_t pid)
{
	const char *key = "\nvoluntary_ctxt_switches:", *line;
	char path[64], text[8192];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	line = read_text(path, text, sizeof(text)) ? strstr(text, key) : NULL;
	return line ? strtol(line + strlen(key), NULL, 10) : -1;
}

TEST_F(wait, blocks_until_it_has_the_lock)
{
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->lock));
	pid = queue_up(self->lock, self->served, 0);
	ASSERT_LT(0, pid);
	ASSERT_TRUE(UNTIL(sleeps_in_ioctl(pid)));
	EXPECT_EQ(0, self->served->n);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->lock).flags);

	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(1, self->served->n);
	EXPECT_TRUE(is_idle(self->lock));
}

static void *lock_thread(void *lock)
{
	return (void *)(intptr_t)klock_lock(lock);
}

/* A waiting process, with three more threads that wait, is killed. */
TEST_F(wait, fatal_signal_ends_it_at_once)
{
	static const int fatal[] = { SIGKILL, SIGTERM, SIGINT };
	pthread_t thread;
	unsigned int i, j;
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < ARRAY_SIZE(fatal); i++) {
		pid = spawn();
		if (pid == 0) {
			struct timespec far = in_ms(CLOCK_REALTIME, FAR_MS);

			for (j = 0; j < 3; j++)
				CHECK(pthread_create(&thread, NULL, lock_thread, self->lock) == 0);
			klock_lock_until(self->lock, CLOCK_REALTIME, &far);
			_exit(1);
		}
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 4));
		ASSERT_EQ(0, kill(pid, fatal[i]));
		EXPECT_EQ(-fatal[i], reap(pid));
		EXPECT_EQ(0, waiters_of(self->lock));
		EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->lock).flags);
	}
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_TRUE(is_idle(self->lock));
}

TEST_F(wait, raw_signal_without_restart_is_eintr)
{
	struct timespec far = in_ms(CLOCK_MONOTONIC, FAR_MS);
	pid_t pid = spawn();

	if (pid == 0) {
		int fd = raw_attach(self->name, self->attach_flags, 0);
		uint64_t deadline = far.tv_sec * NSEC_PER_SEC;

		handle_signals(0);
		CHECK(UNTIL(is_held(self->lock)));
		CHECK(raw_lock(fd, 0, 0, 0) == -EINTR);
		CHECK(raw_lock(fd, 0, KLOCK_LOCK_DEADLINE, deadline) == -EINTR);
		CHECK(raw_unlock(fd, 0) == -EPERM);
		_exit(0);
	}
	ASSERT_EQ(0, klock_lock(self->lock));
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	ASSERT_TRUE(interrupt(pid));
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	ASSERT_TRUE(interrupt(pid));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, waiters_of(self->lock));
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_TRUE(is_idle(self->lock));
}

TEST_F(wait, raw_signal_with_restart_goes_on)
{
	pid_t pid;
	int i;

	ASSERT_EQ(0, klock_lock(self->lock));
	pid = spawn();
	if (pid == 0) {
		handle_signals(SA_RESTART);
		take_turn_raw(raw_attach(self->name, self->attach_flags, 0), self->served);
		_exit(0);
	}
	for (i = 0; i < 20; i++) {
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
		ASSERT_TRUE(interrupt(pid));
	}
	EXPECT_EQ(20, atomic_load(handled));
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	EXPECT_EQ(0, self->served->n);
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(1, self->served->n);
}

TEST_F(wait, library_never_returns_eintr)
{
	pid_t pid;
	int i;

	ASSERT_EQ(0, klock_lock(self->lock));
	pid = spawn();
	if (pid == 0) {
		struct timespec far = in_ms(CLOCK_MONOTONIC, FAR_MS);

		handle_signals(0);
		take_turn(self->lock, self->served);
		CHECK(UNTIL(status_of(self->lock).pid == (uint32_t)getppid()));
		CHECK(klock_lock_until(self->lock, CLOCK_MONOTONIC, &far) == 0);
		CHECK(klock_unlock(self->lock) == 0);
		_exit(0);
	}
	for (i = 0; i < 40; i++) {
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
		ASSERT_TRUE(interrupt(pid));
		if (i != 19)
			continue;
		/* On to its wait with a deadline. */
		ASSERT_EQ(0, klock_unlock(self->lock));
		ASSERT_TRUE(UNTIL(self->served->n == 1));
		ASSERT_EQ(0, klock_lock(self->lock));
	}
	EXPECT_EQ(40, atomic_load(handled));
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, reap(pid));
	EXPECT_TRUE(is_idle(self->lock));
}

/* What one does not handle costs nothing: no wait ends, no place is lost. */
TEST_F(wait, ignored_and_blocked_signals_cost_no_place)
{
	pid_t pid[2];

	ASSERT_EQ(0, klock_lock(self->lock));
	pid[0] = spawn();
	if (pid[0] == 0) {
		sigset_t usr1;

		handle_signals(0);
		sigemptyset(&usr1);
		sigaddset(&usr1, SIGUSR1);
		CHECK(sigprocmask(SIG_BLOCK, &usr1, NULL) == 0);
		signal(SIGUSR2, SIG_IGN);
		take_turn_raw(raw_attach(self->name, self->attach_flags, 0), self->served);
		CHECK(atomic_load(handled) == 0);
		CHECK(sigprocmask(SIG_UNBLOCK, &usr1, NULL) == 0);
		CHECK(atomic_load(handled) == 1);
		_exit(0);
	}
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	pid[1] = queue_up(self->lock, self->served, 1);
	ASSERT_LT(0, pid[1]);

	EXPECT_EQ(0, kill(pid[0], SIGUSR1));	/* blocked */
	EXPECT_EQ(0, kill(pid[0], SIGUSR2));	/* ignored */
	EXPECT_EQ(0, kill(pid[0], SIGCHLD));	/* ignored by default */
	ASSERT_TRUE(UNTIL(sleeps_in_ioctl(pid[0])));
	EXPECT_TRUE(queue_is(self->lock, pid, 2));

	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, reap(pid[0]));
	EXPECT_EQ(0, reap(pid[1]));
	EXPECT_EQ(pid[0], self->served->pid[0]);
	EXPECT_EQ(pid[1], self->served->pid[1]);
}

/* A wait of @ms that is hit by signals, one after the other, until it ends: how many they were. */
static unsigned int pound(struct __test_metadata *_metadata, SELF *self, clockid_t clock, bool raw,
			  unsigned int ms)
{
	struct {
		uint64_t deadline, end;
	} *time = shared(sizeof(*time));
	unsigned int before = atomic_load(handled);
	pid_t pid;

	time->deadline = now_ns(clock) + ms * NSEC_PER_MSEC;
	pid = spawn();
	if (pid == 0) {
		struct timespec deadline = to_timespec(time->deadline);
		uint32_t flags = KLOCK_LOCK_DEADLINE;
		int fd = raw_attach(self->name, self->attach_flags, 0), ret;

		handle_signals(raw ? SA_RESTART : 0);
		if (clock == CLOCK_REALTIME)
			flags |= KLOCK_LOCK_REALTIME;
		ret = raw ? raw_lock(fd, 0, flags, time->deadline) :
			klock_lock_until(self->lock, clock, &deadline);
		time->end = now_ns(clock);
		CHECK(ret == -ETIMEDOUT);
		_exit(0);
	}
	EXPECT_TRUE(UNTIL(waiters_of(self->lock) == 1 || ended(pid)));
	while (!ended(pid)) {
		EXPECT_TRUE(interrupt(pid));
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_LE(time->deadline, time->end);
	EXPECT_GT(time->deadline + LATE_NS, time->end);
	EXPECT_EQ(0, waiters_of(self->lock));
	munmap(time, sizeof(*time));
	return atomic_load(handled) - before;
}

TEST_F_TIMEOUT(wait, signals_do_not_move_the_deadline, 60)
{
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_REALTIME };
	unsigned int i, ms = 300;

	ASSERT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < 4; i++) {
		/* More than ten, however slow it is to send and handle one here. */
		while (pound(_metadata, self, clocks[i / 2], i % 2, ms) <= 10) {
			ms *= 2;
			ASSERT_GT(30000, ms);
		}
	}
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* For a child: waits until @deadline, or, if it is @far, for its turn. */
static void wait_until(SELF *self, uint64_t deadline, bool far, struct served *left)
{
	struct timespec until = to_timespec(deadline);
	int ret = klock_lock_until(self->lock, CLOCK_MONOTONIC, &until);

	if (far) {
		CHECK(ret == 0);
		say_served(self->served);
		CHECK(klock_unlock(self->lock) == 0);
		_exit(0);
	}
	CHECK(ret == -ETIMEDOUT);
	CHECK(now_ns(CLOCK_MONOTONIC) >= deadline);
	CHECK(now_ns(CLOCK_MONOTONIC) < deadline + LATE_NS);
	say_served(left);
	_exit(0);
}

/*
 * Six wait, in an order that is not that of their deadlines; two of them never see theirs.
 * Whether all waited before the first deadline, @unit ns from now; if not, nothing is shown.
 */
static bool expire_in_order(struct __test_metadata *_metadata, SELF *self, uint64_t unit)
{
	static const int expiry[] = { 1, 3, 0, 5 }, far = 10000;
	const int units[] = { 3, 1, far, 2, far, 4 };
	struct served *left = shared(sizeof(*left));
	uint64_t now = now_ns(CLOCK_MONOTONIC);
	pid_t pid[ARRAY_SIZE(units)];
	unsigned int i;

	EXPECT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < ARRAY_SIZE(units); i++) {
		pid[i] = spawn();
		if (pid[i] == 0)
			wait_until(self, now + units[i] * unit, units[i] == far, left);
		EXPECT_TRUE(UNTIL(waiters_of(self->lock) == i + 1 ||
				  now_ns(CLOCK_MONOTONIC) >= now + unit));
		if (now_ns(CLOCK_MONOTONIC) < now + unit)
			continue;
		do {
			slay(pid[i]);
		} while (i--);
		EXPECT_EQ(0, klock_unlock(self->lock));
		return false;
	}
	EXPECT_TRUE(UNTIL(waiters_of(self->lock) == 2));
	EXPECT_TRUE(queue_is(self->lock, (pid_t []) { pid[2], pid[4] }, 2));
	EXPECT_EQ(0, klock_unlock(self->lock));
	for (i = 0; i < ARRAY_SIZE(units); i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	for (i = 0; i < ARRAY_SIZE(expiry); i++) {
		EXPECT_EQ(pid[expiry[i]], left->pid[i]);
	}
	EXPECT_EQ(pid[2], self->served->pid[0]);
	EXPECT_EQ(pid[4], self->served->pid[1]);
	return true;
}

TEST_F_TIMEOUT(wait, deadlines_expire_in_their_order, 60)
{
	uint64_t unit = NSEC_PER_SEC / 2;

	while (!expire_in_order(_metadata, self, unit)) {
		unit *= 2;
		ASSERT_GT(30 * NSEC_PER_SEC, unit);
	}
	EXPECT_TRUE(is_idle(self->lock));
}

/*
 * A raw waiter, @pid[0], with another behind it; neither handles a signal.
 * Whatever stops the first must not let it hold up the second.
 */
static void queue_two(struct __test_metadata *_metadata, SELF *self, pid_t *pid)
{
	ASSERT_EQ(0, klock_lock(self->lock));
	pid[0] = spawn();
	if (pid[0] == 0) {
		take_turn_raw(raw_attach(self->name, self->attach_flags, 0), self->served);
		_exit(0);
	}
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	pid[1] = queue_up(self->lock, self->served, 1);
	ASSERT_LT(0, pid[1]);
	ASSERT_TRUE(queue_is(self->lock, pid, 2));
}

/* @pid[0] is out of it: the other is served, the lock can be had, and is held again at the end. */
static void serve_second(struct __test_metadata *_metadata, SELF *self, pid_t *pid)
{
	EXPECT_TRUE(queue_is(self->lock, pid + 1, 1));
	ASSERT_EQ(0, klock_unlock(self->lock));
	ASSERT_EQ(0, reap(pid[1]));
	EXPECT_EQ(1, self->served->n);
	EXPECT_TRUE(is_idle(self->lock));
	ASSERT_EQ(0, klock_trylock(self->lock));
	EXPECT_EQ(0, waiters_of(self->lock));
}

/* @pid[0] is back: it waits again, and gets the lock. */
static void serve_first(struct __test_metadata *_metadata, SELF *self, pid_t *pid)
{
	ASSERT_TRUE(UNTIL(queue_is(self->lock, pid, 1)));
	ASSERT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, reap(pid[0]));
	EXPECT_EQ(2, self->served->n);
	EXPECT_TRUE(is_idle(self->lock));
}

TEST_F(wait, stopped_waiter_holds_up_nobody)
{
	int status;
	pid_t pid[2];

	queue_two(_metadata, self, pid);
	ASSERT_EQ(0, kill(pid[0], SIGSTOP));
	ASSERT_EQ(pid[0], waitpid(pid[0], &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	serve_second(_metadata, self, pid);
	ASSERT_EQ(0, kill(pid[0], SIGCONT));
	serve_first(_metadata, self, pid);
}

/* The root of cgroup2, which needs no mount point for longer than this: a descriptor or -errno. */
static int open_cgroup2(void)
{
	char dir[] = "/tmp/klock-XXXXXX";
	int fd;

	if (!mkdtemp(dir))
		return -errno;
	if (mount("cgroup2", dir, "cgroup2", 0, NULL)) {
		fd = -errno;
	} else {
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		umount2(dir, MNT_DETACH);
	}
	rmdir(dir);
	return fd;
}

static bool is_frozen(int cgroup)
{
	int fd = openat(cgroup, "cgroup.events", O_RDONLY | O_CLOEXEC);
	char text[256] = "";

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return strstr(text, "frozen 1");
}

TEST_F(wait, frozen_waiter_holds_up_nobody)
{
	int root = open_cgroup2(), cgroup;
	char procs[16];
	pid_t pid[2];

	if (root == -ENODEV || root == -EPERM)
		SKIP(return, "no cgroup2: %s", strerror(-root));
	ASSERT_LE(0, root);
	ASSERT_EQ(0, mkdirat(root, self->name, 0700));
	cgroup = openat(root, self->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ASSERT_LE(0, cgroup);

	queue_two(_metadata, self, pid);
	snprintf(procs, sizeof(procs), "%d", pid[0]);
	ASSERT_EQ(0, write_text(cgroup, "cgroup.procs", procs));
	ASSERT_EQ(0, write_text(cgroup, "cgroup.freeze", "1"));
	ASSERT_TRUE(UNTIL(is_frozen(cgroup)));
	serve_second(_metadata, self, pid);
	ASSERT_TRUE(is_frozen(cgroup));
	ASSERT_EQ(0, write_text(cgroup, "cgroup.freeze", "0"));
	serve_first(_metadata, self, pid);

	ASSERT_EQ(0, close(cgroup));
	ASSERT_TRUE(UNTIL(unlinkat(root, self->name, AT_REMOVEDIR) == 0));
	close(root);
}

/* Ten queue one by one; those who come later have the higher priority, which must not matter. */
TEST_F(wait, first_come_first_served)
{
	struct klock_waiter waiter[QUEUE_MAX];
	pid_t pid[10];
	uint64_t since = 0;
	unsigned int i;

	ASSERT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			CHECK(setpriority(PRIO_PROCESS, 0, 19 - 2 * i) == 0);
			take_turn(self->lock, self->served);
			_exit(0);
		}
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == i + 1));
	}
	EXPECT_TRUE(queue_is(self->lock, pid, ARRAY_SIZE(pid)));
	POISON(waiter);
	ASSERT_EQ(10, klock_waiters(self->lock, waiter, QUEUE_MAX));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		EXPECT_LT(since, waiter[i].since);
		since = waiter[i].since;
	}

	EXPECT_EQ(0, klock_unlock(self->lock));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		EXPECT_EQ(pid[i], self->served->pid[i]);
	}
	EXPECT_TRUE(is_idle(self->lock));
}

/* In a queue of four, the first is interrupted, then the second stopped and continued. */
TEST_F(wait, interrupted_wait_starts_again_at_the_end)
{
	pid_t pid[4], moved[4];
	int i, status;

	ASSERT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < 4; i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			handle_signals(0);
			take_turn(self->lock, self->served);
			_exit(0);
		}
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == (uint32_t)i + 1));
	}
	ASSERT_TRUE(interrupt(pid[0]));
	memcpy(moved, (pid_t []) { pid[1], pid[2], pid[3], pid[0] }, sizeof(moved));
	EXPECT_TRUE(UNTIL(queue_is(self->lock, moved, 4)));

	ASSERT_EQ(0, kill(pid[2], SIGSTOP));
	ASSERT_EQ(pid[2], waitpid(pid[2], &status, WUNTRACED));
	ASSERT_EQ(0, kill(pid[2], SIGCONT));
	memcpy(moved, (pid_t []) { pid[1], pid[3], pid[0], pid[2] }, sizeof(moved));
	EXPECT_TRUE(UNTIL(queue_is(self->lock, moved, 4)));

	EXPECT_EQ(0, klock_unlock(self->lock));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(moved[i], self->served->pid[i]);
	}
}

/* Twenty sleep; each unlock wakes the first of them and not one of the others. */
TEST_F(wait, unlock_wakes_one)
{
	unsigned int i, j, woken = 0;
	pid_t pid[20];
	long sleeps[20];
	int turn[2];

	ASSERT_EQ(0, pipe(turn));
	ASSERT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			char byte;

			CHECK(klock_lock(self->lock) == 0);
			CHECK(read(turn[0], &byte, 1) == 1);
			CHECK(klock_unlock(self->lock) == 0);
			_exit(0);
		}
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == i + 1));
	}
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		ASSERT_TRUE(UNTIL(sleeps_in_ioctl(pid[i])));
		sleeps[i] = sleeps_of(pid[i]);
		ASSERT_LT(0, sleeps[i]);
	}

	ASSERT_EQ(0, klock_unlock(self->lock));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		ASSERT_TRUE(UNTIL(status_of(self->lock).pid == (uint32_t)pid[i]));
		EXPECT_EQ(19 - i, waiters_of(self->lock));
		for (j = i + 1; j < ARRAY_SIZE(pid); j++)
			woken += sleeps_of(pid[j]) != sleeps[j] || !sleeps_in_ioctl(pid[j]);
		ASSERT_EQ(1, write(turn[1], "", 1));
	}
	EXPECT_EQ(0, woken);
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	EXPECT_EQ(0, info_of(self->space).passed);
	EXPECT_EQ(0, info_of(self->space).max_passed);
	EXPECT_TRUE(is_idle(self->lock));
}

/* Two wait while a third barges as fast as it can: that costs neither its place. */
TEST_F_TIMEOUT(wait, being_passed_costs_no_place, 60)
{
	int fd = klock_space_fd(self->space), round;
	uint64_t barged = 0;
	pid_t pid[2];

	for (round = 0; round < 30; round++) {
		self->served->n = 0;
		ASSERT_EQ(0, raw_lock(fd, 0, 0, 0));
		pid[0] = queue_up(self->lock, self->served, 0);
		pid[1] = queue_up(self->lock, self->served, 1);
		ASSERT_LT(0, pid[0]);
		ASSERT_LT(0, pid[1]);
		do {
			ASSERT_EQ(0, raw_unlock(fd, 0));
			ASSERT_EQ(0, raw_lock(fd, 0, 0, 0));
			barged++;
		} while (self->served->n < 2);
		ASSERT_EQ(pid[0], self->served->pid[0]);
		ASSERT_EQ(pid[1], self->served->pid[1]);
		ASSERT_EQ(0, raw_unlock(fd, 0));
		ASSERT_EQ(0, reap(pid[0]));
		ASSERT_EQ(0, reap(pid[1]));
	}
	TH_LOG("%ju times barged, %ju wake-ups in vain", (uintmax_t)barged,
	       (uintmax_t)info_of(self->space).passed);
	EXPECT_LT(0, info_of(self->space).passed);
}

#define ACQUISITIONS	100000

struct tally {
	atomic_uint total;
	unsigned int of[4];	/* each written by one */
	unsigned int most[4];	/* others had it, while this one waited once */
};

static void spin_until(uint64_t time)
{
	while (now_ns(CLOCK_MONOTONIC) < time)
		;
}

/* Locks and unlocks and locks again at once. */
static int compete(int fd, struct tally *tally, unsigned int me)
{
	unsigned int before, others;
	int ret = 0;

	while (ret == 0 && (before = atomic_load(&tally->total)) < ACQUISITIONS) {
		ret = raw_lock(fd, 0, 0, 0);
		if (ret)
			break;
		others = atomic_fetch_add(&tally->total, 1) - before;
		if (others > tally->most[me])
			tally->most[me] = others;
		tally->of[me]++;
		spin_until(now_ns(CLOCK_MONOTONIC) + 5000);	/* so that it is mostly held */
		ret = raw_unlock(fd, 0);
	}
	return ret;
}

/* 100,000 acquisitions by a hog and three lockers: none is passed more often than it says. */
TEST_F_TIMEOUT(wait, barging_is_bounded, 120)
{
	struct tally *tally = shared(sizeof(*tally));
	int fd = klock_space_fd(self->space);
	struct klock_ioc_info info;
	struct klock_ioc_api api;
	pid_t pid[4];
	int i;

	POISON(api);
	ASSERT_EQ(0, raw_ioctl(fd, KLOCK_IOC_GET_API, &api));
	EXPECT_LT(0, api.max_passed);
	ASSERT_EQ(0, raw_lock(fd, 0, 0, 0));
	for (i = 1; i < 4; i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			fd = raw_attach(self->name, self->attach_flags, 0);
			CHECK(compete(fd, tally, i) == 0);
			_exit(0);
		}
		ASSERT_TRUE(UNTIL(waiters_of(self->lock) == (uint32_t)i));
	}
	ASSERT_EQ(0, raw_unlock(fd, 0));
	ASSERT_EQ(0, compete(fd, tally, 0));
	for (i = 1; i < 4; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}

	info = info_of(self->space);
	for (i = 0; i < 4; i++) {
		TH_LOG("%u acquisitions; others had at most %u during one wait", tally->of[i],
		       tally->most[i]);
		EXPECT_LT(0, tally->of[i]);
	}
	TH_LOG("%ju wake-ups in vain, at most %ju in one wait, %u allowed", (uintmax_t)info.passed,
	       (uintmax_t)info.max_passed, api.max_passed);
	EXPECT_LT(0, info.passed);
	EXPECT_LT(0, info.max_passed);
	EXPECT_GE(api.max_passed, info.max_passed);
	EXPECT_TRUE(is_idle(self->lock));
}

/* How the first of three waiters leaves at the moment at which the lock is released. */
enum leave { DEADLINE, SIGNAL, STOP, KILL };

#define STEP_NS		(20000 * slowness())

struct racer {
	sem_t go, done;
	uint64_t deadline;	/* 0: none */
	pid_t pid;
	int ret;
	atomic_uint place;	/* in the order of who had the lock, from 1; 0: did not get it */
};

struct race {
	struct racer racer[3];
	unsigned int served;	/* written under the lock */
	enum leave how;
	bool pass;		/* the first was passed so often that the lock is handed to it */
	bool break_it;		/* the lock is broken, not unlocked: the next one is told */
	uint64_t lead;		/* until the deadline: less after each round in which it sufficed */
};

static void run_racer(int fd, struct race *race, struct racer *me)
{
	for (;;) {
		while (sem_wait(&me->go))
			CHECK(errno == EINTR);
		me->ret = raw_lock(fd, 0, me->deadline ? KLOCK_LOCK_DEADLINE : 0, me->deadline);
		if (me->ret >= 0)
			me->place = ++race->served;
		CHECK(raw_unlock(fd, 0) == (me->ret < 0 ? -EPERM : 0));
		sem_post(&me->done);
	}
}

static void start_racer(struct __test_metadata *_metadata, SELF *self, struct race *race,
			struct racer *racer)
{
	struct sched_param param = { .sched_priority = 0 };
	pid_t pid;

	ASSERT_EQ(0, sem_init(&racer->go, 1, 0));
	ASSERT_EQ(0, sem_init(&racer->done, 1, 0));
	pid = spawn();
	if (pid == 0) {
		/* When it is woken, that does not put who barges off the CPU. */
		CHECK(sched_setscheduler(0, SCHED_BATCH, &param) == 0);
		handle_signals(0);
		run_racer(raw_attach(self->name, self->attach_flags, 0), race, racer);
	}
	racer->pid = pid;	/* by the parent: the child shares it */
}

static bool is_done(struct racer *racer)
{
	struct timespec end = in_ms(CLOCK_REALTIME, PATIENCE_MS);

	return sem_timedwait(&racer->done, &end) == 0;
}

/* As waiters_of(lock) == n, but without naps, and given up at a time of CLOCK_MONOTONIC. */
static bool queued(struct klock *lock, uint32_t n, uint64_t end)
{
	while (waiters_of(lock) != n) {
		if (now_ns(CLOCK_MONOTONIC) >= end)
			return false;
		sched_yield();
	}
	return true;
}

/* Lets the test and a racer share one CPU, or run on any again. */
static void share_cpu(struct racer *racer, bool share)
{
	static cpu_set_t any;

	if (CPU_COUNT(&any) == 0)
		sched_getaffinity(0, sizeof(any), &any);
	if (share) {
		pin_here(0);
		pin_here(racer->pid);
	} else {
		sched_setaffinity(0, sizeof(any), &any);
		sched_setaffinity(racer->pid, sizeof(any), &any);
	}
}

/* Barges until the next release hands the lock to @first; false if that had it meanwhile. */
static bool pass_first(SELF *self, struct racer *first, uint64_t end)
{
	int fd = klock_space_fd(self->space);
	struct klock_ioc_api api = { .max_passed = 0 };
	uint64_t before = info_of(self->space).passed, i;

	raw_ioctl(fd, KLOCK_IOC_GET_API, &api);
	for (i = 0; i < api.max_passed; i++) {
		if (raw_unlock(fd, 0) || raw_lock(fd, 0, KLOCK_LOCK_TRY, 0))
			return false;
		while (info_of(self->space).passed == before + i) {
			if (atomic_load(&first->place) || now_ns(CLOCK_MONOTONIC) >= end)
				return false;
			sched_yield();
		}
	}
	return true;
}

/* Queues three: false if the round is void, because the first left or had the lock too early. */
static bool line_up(SELF *self, struct race *race)
{
	struct racer *racer = race->racer;
	uint64_t end = now_ns(CLOCK_MONOTONIC) + PATIENCE_MS * NSEC_PER_MSEC;
	bool all;

	share_cpu(racer, race->pass);
	if (race->how == DEADLINE) {
		end = now_ns(CLOCK_MONOTONIC) + race->lead;
		racer[0].deadline = end;
	}
	sem_post(&racer[0].go);
	all = queued(self->lock, 1, end) && (!race->pass || pass_first(self, racer, end));
	share_cpu(racer, false);
	sem_post(&racer[1].go);
	sem_post(&racer[2].go);
	all = all && queued(self->lock, 3, end);
	if (all)
		race->lead -= race->lead / 32;
	else if (now_ns(CLOCK_MONOTONIC) >= end)	/* nobody had it */
		race->lead += race->lead / 2;
	return all;
}

static int release(SELF *self, struct race *race)
{
	return race->break_it ? klock_break(self->space, 0, 0) : klock_unlock(self->lock);
}

/* Releases @offset ns after the first waiter is made to leave; before that, if it is negative. */
static int release_beside(SELF *self, struct race *race, int64_t offset)
{
	static const int signals[] = { [SIGNAL] = SIGUSR1, [STOP] = SIGSTOP, [KILL] = SIGKILL };
	struct racer *first = race->racer;
	int ret;

	if (race->how == DEADLINE) {
		spin_until(first->deadline + offset);
		return release(self, race);
	}
	if (offset >= 0) {
		kill(first->pid, signals[race->how]);
		spin_until(now_ns(CLOCK_MONOTONIC) + offset);
		return release(self, race);
	}
	ret = release(self, race);
	spin_until(now_ns(CLOCK_MONOTONIC) - offset);
	kill(first->pid, signals[race->how]);
	return ret;
}

/* Waits for the end of a round: nobody may sleep for ever, nor the lock be lost. */
static void finish(struct __test_metadata *_metadata, SELF *self, struct race *race)
{
	struct racer *first = race->racer;

	if (race->how == STOP) {
		/* Only if it got the lock before it stopped, the others wait for it. */
		ASSERT_TRUE(UNTIL(is_idle(self->lock) ||
				  status_of(self->lock).pid == (uint32_t)first->pid));
		ASSERT_EQ(0, kill(first->pid, SIGCONT));
	}
	if (race->how == KILL) {
		ASSERT_EQ(-SIGKILL, slay(first->pid));
		start_racer(_metadata, self, race, first);
	} else {
		ASSERT_TRUE(is_done(first));
	}
	ASSERT_TRUE(is_done(&race->racer[1]));
	ASSERT_TRUE(is_done(&race->racer[2]));
	ASSERT_TRUE(is_idle(self->lock));
}

/* Whether the first left without the lock; it is told so, and one is told that the holder died. */
static bool judge(struct __test_metadata *_metadata, struct race *race)
{
	static const int left_with[] = { [DEADLINE] = -ETIMEDOUT, [SIGNAL] = -EINTR };
	struct racer *racer = race->racer;
	bool left = racer[0].place != 1;
	int told = racer[1].ret + racer[2].ret;

	ASSERT_LE(0, racer[1].ret);
	ASSERT_LE(0, racer[2].ret);
	if (race->how == KILL) {
		/* It may also have died with the lock, before it could say that it had it. */
		ASSERT_GE(1, told);
		ASSERT_TRUE(told == race->break_it || told == 1 || !left);
	} else if (left && race->how != STOP) {
		ASSERT_EQ(left_with[race->how], racer[0].ret);
		ASSERT_EQ(race->break_it, told);
		ASSERT_EQ(2, race->served);
	} else {
		ASSERT_EQ(race->break_it && !left, racer[0].ret);
		ASSERT_EQ(race->break_it && left, told);
		ASSERT_EQ(left ? 3 : 1, racer[0].place);
		ASSERT_EQ(3, race->served);
	}
	return left;
}

/* One round: 1 if the first left without the lock, 0 if it got it, -1 if the round is void. */
static int race_once(struct __test_metadata *_metadata, SELF *self, struct race *race,
		     int64_t offset)
{
	unsigned int before = atomic_load(handled), i;
	int ret;

	race->served = 0;
	for (i = 0; i < 3; i++) {
		race->racer[i].ret = -1000;
		race->racer[i].place = 0;
	}
	ASSERT_EQ(0, klock_lock(self->lock));
	if (!line_up(self, race)) {
		ret = klock_unlock(self->lock);
		ASSERT_TRUE(ret == 0 || ret == -EPERM);
		finish(_metadata, self, race);
		return -1;
	}
	ASSERT_EQ(0, release_beside(self, race, offset));
	finish(_metadata, self, race);
	if (race->how == SIGNAL) {	/* it must not hit the next round */
		ASSERT_TRUE(UNTIL(atomic_load(handled) == before + 1));
	}
	return judge(_metadata, race);
}

/* Whether both ends of the race were seen, of one that is woken and of one that is not. */
static bool happened(const unsigned int *left, const unsigned int *got)
{
	return left[0] && left[1] && got[0] && got[1];
}

/* Three of four rounds hand the lock over; in every other four the holder has died. */
static void race_to_leave(struct __test_metadata *_metadata, SELF *self, enum leave how,
			  unsigned int rounds)
{
	struct race *race = shared(sizeof(*race));
	unsigned int i, left[2] = { 0, 0 }, got[2] = { 0, 0 };
	int64_t offset[2] = { 0, 0 }, step;
	int ret;

	race->how = how;
	race->lead = 2 * NSEC_PER_MSEC;
	rounds = fewer(rounds);
	for (i = 0; i < 3; i++)
		start_racer(_metadata, self, race, &race->racer[i]);
	/*
	 * Step by step to where it is a near thing: earlier if it left, later if not; in long
	 * steps until both have happened.
	 */
	for (i = 0; i < rounds || (i < 10 * rounds && !happened(left, got)); i += ret >= 0) {
		race->pass = i % 4;
		race->break_it = i / 4 % 2;
		ret = race_once(_metadata, self, race, offset[race->pass]);
		if (ret < 0)
			continue;
		left[race->pass] += ret;
		got[race->pass] += !ret;
		step = left[race->pass] && got[race->pass] ? STEP_NS : 4 * STEP_NS;
		offset[race->pass] += ret ? -step : step;
	}
	for (i = 0; i < 2; i++) {
		TH_LOG("%s: %u left, %u had the lock; at last %d us between",
		       i ? "handed over" : "woken", left[i], got[i], (int)(offset[i] / 1000));
		EXPECT_LT(0, left[i]);
		EXPECT_LT(0, got[i]);
	}
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-SIGKILL, slay(race->racer[i].pid));
	}
}

TEST_F_TIMEOUT(wait, deadline_at_the_release_loses_nothing, 300)
{
	race_to_leave(_metadata, self, DEADLINE, variant->races);
}

TEST_F_TIMEOUT(wait, signal_at_the_release_loses_nothing, 300)
{
	race_to_leave(_metadata, self, SIGNAL, variant->races);
}

TEST_F_TIMEOUT(wait, kill_at_the_release_loses_nothing, 300)
{
	race_to_leave(_metadata, self, KILL, variant->races);
}

TEST_F_TIMEOUT(wait, stop_at_the_release_loses_nothing, 300)
{
	race_to_leave(_metadata, self, STOP, 200);
}

struct crowd {
	struct klock *lock;
	unsigned int served;	/* written under the lock */
};

static void *be_served(void *arg)
{
	struct crowd *crowd = arg;

	CHECK(klock_lock(crowd->lock) == 0);
	crowd->served++;
	CHECK(klock_unlock(crowd->lock) == 0);
	return NULL;
}

/* 200 threads, in 10 processes, wait for one lock. */
TEST_F_TIMEOUT(wait, all_of_a_crowd_are_served, 60)
{
	struct crowd *crowd = shared(sizeof(*crowd));
	pthread_t thread[20];
	unsigned int i, j;
	pid_t pid[10];

	crowd->lock = self->lock;
	ASSERT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		pid[i] = spawn();
		if (pid[i])
			continue;
		for (j = 0; j < ARRAY_SIZE(thread); j++)
			CHECK(pthread_create(&thread[j], NULL, be_served, crowd) == 0);
		for (j = 0; j < ARRAY_SIZE(thread); j++)
			CHECK(pthread_join(thread[j], NULL) == 0);
		_exit(0);
	}
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 200));
	EXPECT_EQ(0, crowd->served);
	EXPECT_EQ(200, info_of(self->space).waiting);
	EXPECT_EQ(0, klock_unlock(self->lock));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	EXPECT_EQ(200, crowd->served);
	EXPECT_EQ(0, info_of(self->space).waiting);
	EXPECT_TRUE(is_idle(self->lock));
}

struct guarded {
	pid_t inside;
	unsigned int count;
};

/* Takes locks of the space at random, 5000 times: how often one of them was taken by another. */
static unsigned int wander(struct klock_space *space, struct guarded *guarded)
{
	unsigned int i, id, seed = getpid(), contended = 0;
	struct klock *lock[LOCKS];
	int ret;

	for (id = 0; id < LOCKS; id++)
		CHECK((lock[id] = get_lock(space, id)));
	for (i = 0; i < (unsigned int)fewer(5000); i++) {
		id = rand_r(&seed) % LOCKS;
		ret = klock_trylock(lock[id]);
		if (ret == -EBUSY) {
			contended++;
			ret = klock_lock(lock[id]);
		}
		CHECK(ret == 0);
		CHECK(guarded[id].inside == 0);
		guarded[id].inside = getpid();
		sched_yield();
		CHECK(guarded[id].inside == getpid());
		guarded[id].inside = 0;
		guarded[id].count++;
		CHECK(klock_unlock(lock[id]) == 0);
	}
	return contended;
}

/* 4 processes, 64 locks, 20,000 acquisitions. */
TEST_F_TIMEOUT(wait, many_locks_at_once, 60)
{
	struct guarded *guarded = shared(LOCKS * sizeof(*guarded));
	atomic_uint *contended = shared(sizeof(*contended));
	unsigned int i, sum = 0;
	pid_t pid[4];

	for (i = 0; i < 4; i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			atomic_fetch_add(contended, wander(self->space, guarded));
			_exit(0);
		}
	}
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	for (i = 0; i < LOCKS; i++)
		sum += guarded[i].count;
	EXPECT_EQ(4 * fewer(5000), sum);
	EXPECT_LT(0, atomic_load(contended));
	EXPECT_EQ(0, info_of(self->space).held);
	EXPECT_EQ(0, info_of(self->space).waiting);
}

/* Whether the kernel's log has a line, since @kmsg was opened or last read, that says this. */
static bool log_says(int kmsg, const char *what)
{
	char record[8192];
	bool found = false;
	ssize_t n;

	while ((n = read(kmsg, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		record[n > 0 ? n : 0] = '\0';
		if (strstr(record, what))
			found = true;
	}
	return found;
}

#define HUNG(name) "/proc/sys/kernel/hung_task_" name

/* A process waits for more than twice as long as the kernel lets one hang. */
TEST(no_hung_task_warning)
{
	struct served *served = shared(sizeof(*served));
	char name[KLOCK_NAME_SIZE], secs[32], warnings[32], warning[64];
	struct klock_space *space;
	struct klock *lock;
	pid_t pid;
	int kmsg;

	if (!read_text(HUNG("timeout_secs"), secs, sizeof(secs)) ||
	    !read_text(HUNG("warnings"), warnings, sizeof(warnings)) ||
	    access(HUNG("timeout_secs"), W_OK))
		SKIP(return, "no hung task check that could be set: %s", strerror(errno));
	SPACE_NAME(name);
	ASSERT_NE(NULL, (space = make_space(name, 1, KLOCK_NO_FASTPATH)));
	ASSERT_NE(NULL, (lock = get_lock(space, 0)));
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, kmsg);
	ASSERT_LE(0, lseek(kmsg, 0, SEEK_END));

	ASSERT_EQ(0, klock_lock(lock));
	pid = queue_up(lock, served, 0);
	ASSERT_LT(0, pid);
	EXPECT_EQ(0, write_text(AT_FDCWD, HUNG("warnings"), "10"));
	EXPECT_EQ(0, write_text(AT_FDCWD, HUNG("timeout_secs"), "2"));
	EXPECT_TRUE(UNTIL(now_ns(CLOCK_MONOTONIC) - status_of(lock).waiting_since >
			  5 * NSEC_PER_SEC));
	EXPECT_EQ(0, write_text(AT_FDCWD, HUNG("timeout_secs"), secs));
	EXPECT_EQ(0, write_text(AT_FDCWD, HUNG("warnings"), warnings));
	EXPECT_TRUE(sleeps(pid, pid));
	snprintf(warning, sizeof(warning), ":%d blocked for more than", pid);
	EXPECT_FALSE(log_says(kmsg, warning));

	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(1, served->n);
	klock_put(lock);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
	close(kmsg);
}

#define PM(name)	"/sys/power/" name
#define PM_DELAY	"/sys/module/suspend/parameters/pm_test_delay"

/* All processes are frozen as for suspend, which the kernel can be told to do as a test. */
TEST(does_not_block_suspend)
{
	struct served *served = shared(sizeof(*served));
	char name[KLOCK_NAME_SIZE], delay[32];
	struct klock_space *space;
	struct klock *lock;
	pid_t pid[2];

	if (access(PM("pm_test"), W_OK) || access(PM("state"), W_OK) ||
	    !read_text(PM_DELAY, delay, sizeof(delay)))
		SKIP(return, "no test of suspend: %s", strerror(errno));
	SPACE_NAME(name);
	ASSERT_NE(NULL, (space = make_space(name, 1, 0)));
	ASSERT_NE(NULL, (lock = get_lock(space, 0)));

	ASSERT_EQ(0, klock_lock(lock));
	pid[0] = spawn();
	if (pid[0] == 0) {
		take_turn_raw(raw_attach(name, 0, 0), served);
		_exit(0);
	}
	ASSERT_TRUE(UNTIL(waiters_of(lock) == 1));
	pid[1] = spawn();
	if (pid[1] == 0) {
		struct timespec far = in_ms(CLOCK_MONOTONIC, FAR_MS);

		CHECK(klock_lock_until(lock, CLOCK_MONOTONIC, &far) == 0);
		say_served(served);
		CHECK(klock_unlock(lock) == 0);
		_exit(0);
	}
	ASSERT_TRUE(UNTIL(waiters_of(lock) == 2));

	EXPECT_EQ(0, write_text(AT_FDCWD, PM_DELAY, "1"));	/* seconds frozen */
	EXPECT_EQ(0, write_text(AT_FDCWD, PM("pm_test"), "freezer"));
	EXPECT_EQ(0, write_text(AT_FDCWD, PM("state"), "freeze"));
	EXPECT_EQ(0, write_text(AT_FDCWD, PM("pm_test"), "none"));
	EXPECT_EQ(0, write_text(AT_FDCWD, PM_DELAY, delay));

	EXPECT_EQ(0, served->n);
	ASSERT_TRUE(UNTIL(waiters_of(lock) == 2));
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, reap(pid[0]));
	EXPECT_EQ(0, reap(pid[1]));
	EXPECT_EQ(2, served->n);
	klock_put(lock);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST_HARNESS_MAIN
