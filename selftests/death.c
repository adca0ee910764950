// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Dying: whichever way the last reference to a client goes, its locks are
 * released, and the next holder is told, once; a waiter that goes takes nothing
 * with it.
 */
#include "klock_test.h"

#include <semaphore.h>
#include <sys/resource.h>

#define CAPACITY	64

FIXTURE(death)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;			/* 5 */
};

FIXTURE_VARIANT(death)
{
	unsigned int flags;
	int rounds;		/* of each test in which a waiter goes as it is granted the lock */
};

FIXTURE_VARIANT_ADD(death, normal) { .flags = 0, .rounds = 1000 };
FIXTURE_VARIANT_ADD(death, errorcheck) { .flags = KLOCK_ERRORCHECK, .rounds = 250 };

FIXTURE_SETUP(death)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, variant->flags);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 5);
}

FIXTURE_TEARDOWN(death)
{
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
}

/* A client without the library: a descriptor, or -errno. @flags: as of the library's */
static int attach_as(const char *name, unsigned int flags)
{
	return raw_attach(name, flags & KLOCK_ERRORCHECK ? KLOCK_ATTACH_ERRORCHECK : 0, 0);
}

static bool is_dead(struct klock *lock)
{
	return (status_of(lock).flags & (KLOCK_HELD | KLOCK_DIED)) == KLOCK_DIED;
}

/* Nobody holds the lock, the next one is told that the owner died, and the one after is not. */
static void expect_told_once(struct __test_metadata *_metadata, struct klock *lock)
{
	struct klock_status status = status_of(lock);

	EXPECT_EQ(KLOCK_DIED, status.flags & ~KLOCK_ALLOCATED);
	EXPECT_EQ(0, status.token);
	EXPECT_EQ(0, status.pid);
	EXPECT_EQ(0, status.tid);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(lock));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(lock).flags & ~KLOCK_ALLOCATED);
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, klock_trylock(lock));
	EXPECT_EQ(0, klock_unlock(lock));
}

/* Who got the lock, in their order, and what they were told */
struct turns {
	_Atomic int count;
	int who[64];
	int told[64];
};

/* A child that waits for lock 5, notes its turn and unlocks, or dies with it if @keep. */
static pid_t queue_up(struct klock *lock, const char *name, unsigned int flags, struct turns *turns,
		      int me, bool keep)
{
	uint32_t before = waiters_of(lock);
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags);
		struct klock *mine;
		int told, turn;

		CHECK(space);
		mine = get_lock(space, 5);
		told = klock_lock(mine);
		turn = turns->count++;
		turns->who[turn] = me;
		turns->told[turn] = told;
		if (!keep)
			CHECK(klock_unlock(mine) == 0);
		_exit(0);
	}
	if (!UNTIL(waiters_of(lock) == before + 1)) {
		slay(pid);
		pid = -1;
	}
	return pid;
}

static void kill_holder_of(struct __test_metadata *_metadata, FIXTURE_DATA(death) *self,
			   unsigned int flags, int waiters)
{
	struct turns *turns = shared(sizeof(*turns));
	pid_t holder, pid[64];

	holder = hold_in_child(self->space, self->name, flags, 5);
	ASSERT_GT(holder, 0);
	for (int i = 0; i < waiters; i++) {
		pid[i] = queue_up(self->lock, self->name, flags, turns, i, false);
		ASSERT_GT(pid[i], 0);
	}
	ASSERT_EQ(0, turns->count);
	ASSERT_EQ(-SIGKILL, slay(holder));
	for (int i = 0; i < waiters; i++) {
		ASSERT_EQ(0, reap(pid[i]));
	}
	ASSERT_EQ(waiters, turns->count);
	for (int i = 0; i < waiters; i++) {
		EXPECT_EQ(i, turns->who[i]);
		EXPECT_EQ(i == 0 ? KLOCK_OWNER_DIED : 0, turns->told[i]);
	}
	if (waiters == 0) {
		expect_told_once(_metadata, self->lock);
	} else {
		EXPECT_EQ(0, klock_trylock(self->lock));
	}
}

TEST_F(death, holder_killed_with_0_waiters)
{
	kill_holder_of(_metadata, self, variant->flags, 0);
}

TEST_F(death, holder_killed_with_1_waiter)
{
	kill_holder_of(_metadata, self, variant->flags, 1);
}

TEST_F(death, holder_killed_with_2_waiters)
{
	kill_holder_of(_metadata, self, variant->flags, 2);
}

TEST_F(death, holder_killed_with_50_waiters)
{
	kill_holder_of(_metadata, self, variant->flags, 50);
}

TEST_F(death, each_death_is_told_to_the_next)
{
	struct turns *turns = shared(sizeof(*turns));
	pid_t pid[5];

	ASSERT_EQ(0, klock_lock(self->lock));
	for (int i = 0; i < 5; i++) {
		pid[i] = queue_up(self->lock, self->name, variant->flags, turns, i, i % 2 == 0);
		ASSERT_GT(pid[i], 0);
	}
	ASSERT_EQ(0, klock_unlock(self->lock));
	for (int i = 0; i < 5; i++) {
		ASSERT_EQ(0, reap(pid[i]));
	}
	for (int i = 0; i < 5; i++) {
		EXPECT_EQ(i, turns->who[i]);
		EXPECT_EQ(i % 2 ? KLOCK_OWNER_DIED : 0, turns->told[i]);
	}
	expect_told_once(_metadata, self->lock);
}

TEST_F(death, every_way_to_lock_tells)
{
	struct timespec ahead = in_ms(CLOCK_MONOTONIC, PATIENCE_MS), past = { 0 };

	for (int way = 0; way < 4; way++) {
		pid_t pid = hold_in_child(self->space, self->name, variant->flags, 5);
		int told = -1000;

		ASSERT_GT(pid, 0);
		ASSERT_EQ(-SIGKILL, slay(pid));
		switch (way) {
		case 0:
			told = klock_lock(self->lock);
			break;
		case 1:
			told = klock_trylock(self->lock);
			break;
		case 2:
			told = klock_lock_until(self->lock, CLOCK_MONOTONIC, &ahead);
			break;
		case 3:
			told = klock_lock_until(self->lock, CLOCK_MONOTONIC, &past);
			break;
		}
		EXPECT_EQ(KLOCK_OWNER_DIED, told);
		EXPECT_EQ(0, klock_unlock(self->lock));
	}
}

TEST_F(death, all_locks_are_released_and_no_others)
{
	struct klock_space *mine = join_space(self->name, variant->flags);
	pid_t pid;

	ASSERT_NE(NULL, mine);
	for (int id = 1; id < CAPACITY; id += 2) {
		ASSERT_EQ(0, klock_lock(get_lock(mine, id)));
	}
	pid = spawn();
	if (pid == 0) {
		struct klock_space *space = join_space(self->name, variant->flags);

		CHECK(space);
		for (int id = 0; id < CAPACITY; id += 2)
			CHECK(klock_lock(get_lock(space, id)) == 0);
		CHECK(klock_unlock(get_lock(space, 8)) == 0);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	for (int id = 0; id < CAPACITY; id++) {
		EXPECT_EQ(id % 2 ? -EBUSY : id == 8 ? 0 : KLOCK_OWNER_DIED,
			  klock_trylock(get_lock(self->space, id)));
	}
}

TEST_F_TIMEOUT(death, released_before_waitpid_reports, 120)
{
	int fd = klock_space_fd(self->space);

	for (int i = 0; i < fewer(500); i++) {
		pid_t pid = spawn();

		if (pid == 0) {
			int mine = attach_as(self->name, variant->flags);

			CHECK(mine >= 0);
			CHECK(raw_lock(mine, 5, 0, 0) == 0);
			for (;;)
				pause();
		}
		ASSERT_TRUE(UNTIL(is_held(self->lock)));
		ASSERT_EQ(-SIGKILL, slay(pid));
		ASSERT_EQ(KLOCK_OWNER_DIED, raw_lock(fd, 5, KLOCK_LOCK_TRY, 0));
		ASSERT_EQ(0, klock_unlock(self->lock));
	}
}

TEST_F(death, a_waiter_that_is_killed_keeps_no_place)
{
	struct turns *turns = shared(sizeof(*turns));
	pid_t pid[5];

	ASSERT_EQ(0, klock_lock(self->lock));
	for (int i = 0; i < 5; i++) {
		pid[i] = queue_up(self->lock, self->name, variant->flags, turns, i, false);
		ASSERT_GT(pid[i], 0);
	}
	/* the first, one in the middle and the last */
	for (int i = 0; i < 5; i += 2) {
		ASSERT_EQ(-SIGKILL, slay(pid[i]));
	}
	EXPECT_EQ(2, waiters_of(self->lock));
	EXPECT_EQ(0, klock_unlock(self->lock));
	for (int i = 1; i < 5; i += 2) {
		ASSERT_EQ(0, reap(pid[i]));
	}
	ASSERT_EQ(2, turns->count);
	for (int i = 0; i < 2; i++) {
		EXPECT_EQ(2 * i + 1, turns->who[i]);
		EXPECT_EQ(0, turns->told[i]);
	}
}

/*
 * The ways that the last reference goes.  A child holds the lock through a
 * descriptor without the library, @last is what it does then, and it stays, if it
 * can, until it is slain.
 */

static int hold_raw(const char *name, unsigned int flags)
{
	int fd = attach_as(name, flags);

	CHECK(fd >= 0);
	CHECK(raw_lock(fd, 5, 0, 0) == 0);
	return fd;
}

static pid_t hold_until(const char *name, unsigned int flags, void (*last)(int fd))
{
	pid_t pid = spawn();

	if (pid == 0) {
		last(hold_raw(name, flags));
		for (;;)
			pause();
	}
	return pid;
}

static void last_close(int fd)
{
	close(fd);
}

static void last_dup2(int fd)
{
	dup2(STDERR_FILENO, fd);	/* closes it on the way */
}

static void last_exec(int fd)
{
	(void)fd;		/* is close-on-exec */
	execlp("sleep", "sleep", "1000", NULL);
}

/* Here the holder lives on, so it is the reference that counts, not the process. */
TEST_F(death, last_reference_goes_while_its_process_lives)
{
	void (*const last[])(int fd) = { last_close, last_dup2, last_exec };

	for (size_t i = 0; i < ARRAY_SIZE(last); i++) {
		pid_t pid = hold_until(self->name, variant->flags, last[i]);

		EXPECT_TRUE(UNTIL(is_dead(self->lock)));
		EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
		expect_told_once(_metadata, self->lock);
		EXPECT_EQ(-SIGKILL, slay(pid));
	}
}

static void last_exit(int fd)
{
	(void)fd;
	exit(0);
}

static void last_underscore_exit(int fd)
{
	(void)fd;
	_exit(0);
}

static void last_kill(int fd)
{
	(void)fd;
	raise(SIGKILL);
}

static void last_crash(int fd)
{
	volatile int *nowhere = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)fd;
	*nowhere = 1;	/* cppcheck-suppress nullPointer */
}

static void last_abort(int fd)
{
	(void)fd;
	abort();
}

static void *exit_thread(void *arg)
{
	_exit(0);
	return arg;
}

/* exit_group() of one thread while another sleeps elsewhere */
static void last_exit_of_a_thread(int fd)
{
	pthread_t thread;

	(void)fd;
	pthread_create(&thread, NULL, exit_thread, NULL);
}

TEST_F(death, last_reference_goes_with_its_process)
{
	const struct {
		void (*last)(int fd);
		int end;
	} ways[] = {
		{ last_exit, 0 },
		{ last_underscore_exit, 0 },
		{ last_kill, -SIGKILL },
		{ last_crash, -SIGSEGV },
		{ last_abort, -SIGABRT },
		{ last_exit_of_a_thread, 0 },
	};
	const struct rlimit none = { 0 };

	setrlimit(RLIMIT_CORE, &none);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		EXPECT_EQ(ways[i].end, reap(hold_until(self->name, variant->flags, ways[i].last)));
		expect_told_once(_metadata, self->lock);
	}
}

static void last_exec_that_keeps(int fd)
{
	fcntl(fd, F_SETFD, 0);
	execlp("sleep", "sleep", "1000", NULL);
}

static bool is_running(pid_t pid, const char *program)
{
	char path[32], comm[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	if (read(fd, comm, sizeof(comm) - 1) > 0)
		comm[strcspn(comm, "\n")] = '\0';
	close(fd);
	return strcmp(comm, program) == 0;
}

TEST_F(death, exec_keeps_what_is_not_close_on_exec)
{
	pid_t pid = hold_until(self->name, variant->flags, last_exec_that_keeps);

	ASSERT_TRUE(UNTIL(is_running(pid, "sleep")));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_EQ(-SIGKILL, slay(pid));
	expect_told_once(_metadata, self->lock);
}

TEST_F(death, a_dup_keeps_the_client)
{
	int fd = hold_raw(self->name, variant->flags), copy = dup(fd);

	ASSERT_LE(0, copy);
	close(fd);
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_EQ(0, raw_unlock(copy, 5));
	EXPECT_EQ(0, raw_lock(copy, 5, 0, 0));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	close(copy);
	expect_told_once(_metadata, self->lock);
}

/* What fork() makes of a descriptor that the library does not know of */
TEST_F(death, a_fork_copy_keeps_the_client)
{
	_Atomic bool *copied = shared(sizeof(*copied));
	pid_t holder;
	int go[2];

	ASSERT_EQ(0, pipe(go));
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));	/* the copy becomes a child of ours */
	holder = spawn();
	if (holder == 0) {
		char end;

		close(go[1]);
		hold_raw(self->name, variant->flags);
		if (fork() == 0) {	/* not spawn(): it outlives its parent */
			*copied = true;
			CHECK(read(go[0], &end, 1) == 0);
			_exit(0);
		}
		for (;;)
			pause();
	}
	close(go[0]);
	ASSERT_TRUE(UNTIL(*copied));
	ASSERT_EQ(-SIGKILL, slay(holder));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_TRUE(is_held(self->lock));
	close(go[1]);
	EXPECT_EQ(0, reap(-1));
	expect_told_once(_metadata, self->lock);
}

/* A child holds the lock, sends its descriptor into the socket, and is gone. */
static void send_from_child(struct __test_metadata *_metadata, const char *name,
			    unsigned int flags, int sock)
{
	pid_t pid = spawn();

	if (pid == 0) {
		CHECK(send_fd(sock, hold_raw(name, flags)));
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
}

TEST_F(death, a_descriptor_in_flight_keeps_the_client)
{
	int pair[2], fd;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	send_from_child(_metadata, self->name, variant->flags, pair[0]);
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_TRUE(is_held(self->lock));

	/* Who receives it is that client. */
	fd = receive_fd(pair[1]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	if (!variant->flags) {	/* errorcheck: it is another thread than the one that took it */
		EXPECT_EQ(0, raw_unlock(fd, 5));
		EXPECT_EQ(0, raw_lock(fd, 5, 0, 0));
	}
	close(fd);
	expect_told_once(_metadata, self->lock);
}

TEST_F(death, a_descriptor_dropped_in_flight_is_the_end_of_the_client)
{
	int pair[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	send_from_child(_metadata, self->name, variant->flags, pair[0]);
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	close(pair[1]);
	close(pair[0]);
	EXPECT_TRUE(UNTIL(is_dead(self->lock)));
	expect_told_once(_metadata, self->lock);
}

/* What a thread does: it takes a lock, and unless @keep lets go of it again */
struct raw_call {
	int fd;
	uint32_t id;
	uint32_t flags;
	uint64_t deadline;
	bool keep;
	int ret;			/* of the lock */
	int unlock;			/* of the unlock, had it the lock or not */
	_Atomic bool done;
	sem_t go, gone;			/* of a thread that does it many times, */
	_Atomic pid_t tid;		/* and its number */
	pthread_t thread;
};

static void *run_once(void *arg)
{
	struct raw_call *call = arg;

	call->ret = raw_lock(call->fd, call->id, call->flags, call->deadline);
	if (!call->keep)
		call->unlock = raw_unlock(call->fd, call->id);
	call->done = true;
	return NULL;
}

TEST_F(death, a_call_in_progress_keeps_the_client)
{
	struct klock *waited = get_lock(self->space, 6);
	struct raw_call call = {
		.fd = hold_raw(self->name, variant->flags),
		.id = 6,
		.keep = true,
	};

	ASSERT_EQ(0, klock_lock(waited));
	ASSERT_EQ(0, pthread_create(&call.thread, NULL, run_once, &call));
	ASSERT_TRUE(UNTIL(waiters_of(waited) == 1));
	close(call.fd);
	EXPECT_EQ(1, waiters_of(waited));
	EXPECT_TRUE(is_held(self->lock));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));

	/* It gets the lock that it waits for, and with its return both are released. */
	EXPECT_EQ(0, klock_unlock(waited));
	pthread_join(call.thread, NULL);
	EXPECT_EQ(0, call.ret);
	EXPECT_TRUE(is_dead(self->lock));
	expect_told_once(_metadata, self->lock);
	expect_told_once(_metadata, waited);
}

TEST_F(death, a_thread_that_exits_leaves_its_locks_with_the_client)
{
	struct raw_call call = {
		.fd = attach_as(self->name, variant->flags),
		.id = 5,
		.keep = true,
	};

	ASSERT_LE(0, call.fd);
	ASSERT_EQ(0, pthread_create(&call.thread, NULL, run_once, &call));
	pthread_join(call.thread, NULL);
	ASSERT_EQ(0, call.ret);
	EXPECT_TRUE(is_held(self->lock));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	close(call.fd);
	expect_told_once(_metadata, self->lock);
}

/* Large clients */

FIXTURE(many)
{
	char name[KLOCK_NAME_SIZE];
	int fd;
};

FIXTURE_SETUP(many)
{
	SPACE_NAME(self->name);
	self->fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL,
			      KLOCK_CAPACITY_MAX);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(many)
{
	close(self->fd);
	EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
}

#define MANY		100000
/* How long another client may have to wait; a few ms are meant, the rest is for busy machines. */
#define STALL_MS	100

/* Allocates, locks, unlocks and frees: how long it took, in ns; 0: it failed. */
static uint64_t time_of_one_use(int fd)
{
	uint64_t start = now_ns(CLOCK_MONOTONIC);
	struct klock_ioc_allocate any = { 0 };
	struct klock_ioc_id id = { 0 };
	int ret = raw_ioctl(fd, KLOCK_IOC_ALLOCATE, &any);

	if (ret < 0)
		return 0;
	id.id = ret;
	if (raw_lock(fd, MANY + id.id, 0, 0) || raw_unlock(fd, MANY + id.id) ||
	    raw_ioctl(fd, KLOCK_IOC_FREE, &id))
		return 0;
	return now_ns(CLOCK_MONOTONIC) - start;
}

/* A child that holds MANY locks; -1: it does not. */
static pid_t hold_many(const char *name)
{
	_Atomic bool *ready = shared(sizeof(*ready));
	pid_t pid = spawn();

	if (pid == 0) {
		int fd = raw_attach(name, 0, 0);

		CHECK(fd >= 0);
		for (uint32_t id = 0; id < MANY; id++)
			CHECK(raw_lock(fd, id, 0, 0) >= 0);
		*ready = true;
		for (;;)
			pause();
	}
	if (UNTIL(*ready))
		return pid;
	slay(pid);
	return -1;
}

/*
 * A stall that comes of the exit comes each time and is about as long as it; one
 * that comes of a busy machine does not, so one good time of twenty will do.
 */
TEST_F_TIMEOUT(many, a_client_with_100000_locks_exits_and_nobody_is_kept_waiting, 400)
{
	bool good = false;

	for (int i = 0; i < 20 && !good; i++) {
		uint64_t start, all, longest = 0;
		int uses = 0;
		pid_t pid = hold_many(self->name);

		ASSERT_GT(pid, 0);
		start = now_ns(CLOCK_MONOTONIC);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		while (waitpid(pid, NULL, WNOHANG) == 0) {
			uint64_t time = time_of_one_use(self->fd);

			ASSERT_NE(0, time);
			uses++;
			longest = time > longest ? time : longest;
		}
		all = now_ns(CLOCK_MONOTONIC) - start;
		TH_LOG("%d locks released in %llu us; meanwhile %d uses, the longest %llu us",
		       MANY, (unsigned long long)all / 1000, uses,
		       (unsigned long long)longest / 1000);
		good = longest < STALL_MS * NSEC_PER_MSEC && longest < all / 3;
		for (uint32_t id = 0; id < MANY; id++) {
			ASSERT_EQ(KLOCK_OWNER_DIED, raw_lock(self->fd, id, KLOCK_LOCK_TRY, 0));
			ASSERT_EQ(0, raw_unlock(self->fd, id));
		}
		EXPECT_EQ(0, raw_lock(self->fd, MANY, KLOCK_LOCK_TRY, 0));
		EXPECT_EQ(0, raw_unlock(self->fd, MANY));
	}
	EXPECT_TRUE(good);
}

static int compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The median time, in ns, that a client that holds one lock takes to close; 0: it failed. */
static uint64_t time_of_close(const char *name, uint32_t id)
{
	uint64_t time[301];

	for (size_t i = 0; i < ARRAY_SIZE(time); i++) {
		int fd = raw_attach(name, 0, 0);

		if (fd < 0 || raw_lock(fd, id, 0, 0) < 0)
			return 0;
		time[i] = now_ns(CLOCK_MONOTONIC);
		close(fd);
		time[i] = now_ns(CLOCK_MONOTONIC) - time[i];
	}
	qsort(time, ARRAY_SIZE(time), sizeof(time[0]), compare_times);
	return time[ARRAY_SIZE(time) / 2];
}

TEST_F(many, who_held_one_lock_pays_for_one)
{
	char name[KLOCK_NAME_SIZE + 8];
	uint64_t small, large;
	int fd;

	snprintf(name, sizeof(name), "%.50s-s", self->name);
	fd = raw_attach(name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 2048);
	ASSERT_LE(0, fd);
	small = time_of_close(name, 1000);
	large = time_of_close(self->name, KLOCK_CAPACITY_MAX - 1000);
	close(fd);
	EXPECT_EQ(0, raw_remove(name, KLOCK_REMOVE_FORCE));
	ASSERT_NE(0, small);
	ASSERT_NE(0, large);
	TH_LOG("close with one lock: %llu ns of 2048, %llu ns of %u; ratio %llu.%02llu",
	       (unsigned long long)small, (unsigned long long)large, KLOCK_CAPACITY_MAX,
	       (unsigned long long)(large / small),
	       (unsigned long long)(large * 100 / small % 100));
	EXPECT_LT(large, 4 * small);	/* 512 times as many words would show */
}

/*
 * A waiter goes just as it is granted the lock: W waits first and is the one
 * that goes, V waits behind it.
 */

struct round {
	bool w_first;		/* W goes, then the lock is released */
	bool died;		/* the holder does not unlock, it closes its descriptor */
	bool handed;		/* W was passed by as often as may be: it is handed the lock */
	int delay;		/* how long it is from the one to the other */
};

static struct round round_of(int i)
{
	i *= 7;		/* so that a fifth of the 200 kinds has something of each */
	return (struct round) {
		.w_first = i & 1,
		.died = i & 2,
		.handed = i & 4,
		.delay = i / 8 % 25 * 40,
	};
}

static void *run_for_ever(void *arg)
{
	struct raw_call *call = arg;

	call->tid = gettid();
	for (;;) {
		while (sem_wait(&call->go))	/* EINTR */
			;
		run_once(call);
		sem_post(&call->gone);
	}
	return NULL;
}

/* A thread, with a client, that takes the lock for each start_call(). */
static void make_thread(struct raw_call *call, const char *name, unsigned int flags)
{
	*call = (struct raw_call) { .fd = attach_as(name, flags), .id = 5 };
	if (call->fd < 0 || sem_init(&call->go, 0, 0) || sem_init(&call->gone, 0, 0) ||
	    pthread_create(&call->thread, NULL, run_for_ever, call)) {
		perror("# no thread");
		abort();
	}
}

static void start_call(struct raw_call *call)
{
	call->ret = -1000;
	call->unlock = -1000;
	call->done = false;
	sem_post(&call->go);
}

/* False: it does not end. */
static bool end_call(struct raw_call *call)
{
	return UNTIL(sem_trywait(&call->gone) == 0);
}

static uint64_t passed_in_all(int fd)
{
	struct klock_ioc_info info;

	POISON(info);
	return raw_ioctl(fd, KLOCK_IOC_INFO, &info) ? 0 : info.passed;
}

/* Task @tid runs on @cpu only; -1: on any. */
static void pin(pid_t tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (cpu < 0 || i == cpu)
			CPU_SET(i, &set);
	sched_setaffinity(tid, sizeof(set), &set);
}

/* This thread runs before all others on its processor, or like all others. */
static void hurry(bool on)
{
	struct sched_param param = { .sched_priority = on };

	sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &param);
}

static bool pass_by_once(int holder, _Atomic bool *w_done)
{
	uint64_t before = passed_in_all(holder);

	if (raw_unlock(holder, 5) || raw_lock(holder, 5, KLOCK_LOCK_TRY, 0))
		return false;
	return UNTIL(*w_done || passed_in_all(holder) > before) && !*w_done;
}

/*
 * The holder lets go and is faster than W, who was woken but comes second on
 * their processor, until W may not be passed by any more.  False: that failed.
 */
static bool pass_by(int holder, pid_t w, _Atomic bool *w_done)
{
	struct klock_ioc_api api = { 0 };
	int cpu = sched_getcpu();
	bool passed;

	passed = raw_ioctl(holder, KLOCK_IOC_GET_API, &api) == 0;
	pin(0, cpu);
	pin(w, cpu);
	hurry(true);
	for (uint32_t i = 0; i < api.max_passed && passed; i++)
		passed = pass_by_once(holder, w_done);
	hurry(false);
	pin(w, -1);
	pin(0, -1);
	return passed;
}

/*
 * W is about to wait for @lock, or has timed out already, which it says in @w_done:
 * lets V wait behind it.  False: the round is none.
 */
static bool begin(struct klock *lock, struct round round, int holder, pid_t w,
		  _Atomic bool *w_done, struct raw_call *v)
{
	bool queued = UNTIL(*w_done || waiters_of(lock) == 1);

	start_call(v);
	queued &= UNTIL(waiters_of(lock) == (*w_done ? 1 : 2));
	return queued && (!round.handed || pass_by(holder, w, w_done));
}

/* The round is none: everybody has gone, and nothing is left to be told. */
static bool clean_up(struct klock *lock, int holder, struct raw_call *w, struct raw_call *v)
{
	close(holder);
	return (!w || end_call(w)) && end_call(v) &&
	       klock_trylock(lock) >= 0 && klock_unlock(lock) == 0;
}

static void delay(int turns)
{
	for (volatile int i = 0; i < turns; i++)
		;
}

static int give_up(int fd, bool die)
{
	return die ? close(fd) : raw_unlock(fd, 5) | close(fd);
}

/* Lets the holder and the waiter go: 0 if both did. */
static int play(struct round round, int holder, int (*go)(void *w), void *w)
{
	int ret;

	ret = round.w_first ? go(w) : give_up(holder, round.died);
	delay(round.delay);
	ret |= round.w_first ? give_up(holder, round.died) : go(w);
	return ret;
}

static int go_by_kill(void *w)
{
	return kill(*(pid_t *)w, SIGKILL);
}

struct victim {
	_Atomic bool returned;	/* from its call, */
	int told;		/* which returned this */
};

/* W, who keeps the lock, if it gets it, until it is killed */
static pid_t wait_to_be_killed(const char *name, unsigned int flags, int holder,
			       struct victim *victim)
{
	pid_t pid;

	victim->returned = false;
	pid = spawn();
	if (pid == 0) {
		int fd = attach_as(name, flags);

		CHECK(fd >= 0);
		close(holder);
		victim->told = raw_lock(fd, 5, 0, 0);
		victim->returned = true;
		for (;;)
			pause();
	}
	return pid;
}

TEST_F_TIMEOUT(death, waiter_is_killed_as_it_is_granted, 120)
{
	struct victim *victim = shared(sizeof(*victim));
	int rounds = fewer(variant->rounds), had = 0, late = 0, again = 0;
	struct raw_call v;

	make_thread(&v, self->name, variant->flags);
	for (int i = 0; i < rounds; i++) {
		struct round round = round_of(i);
		int holder = attach_as(self->name, variant->flags);
		pid_t w;

		ASSERT_LE(0, holder);
		ASSERT_EQ(0, raw_lock(holder, 5, 0, 0));
		w = wait_to_be_killed(self->name, variant->flags, holder, victim);
		if (!begin(self->lock, round, holder, w, &victim->returned, &v)) {
			slay(w);
			ASSERT_TRUE(clean_up(self->lock, holder, NULL, &v));
			i--;
			ASSERT_GT(10 * rounds, again++);
			continue;
		}
		ASSERT_EQ(0, play(round, holder, go_by_kill, &w));
		ASSERT_EQ(-SIGKILL, reap(w));
		ASSERT_TRUE(end_call(&v));

		/*
		 * Who was killed before it could be granted passed on what it got.  Who
		 * had returned with the lock died with it; and between the two, on the
		 * way out of the kernel, W cannot tell.
		 */
		ASSERT_LE(round.died || victim->returned ? KLOCK_OWNER_DIED : 0, v.ret);
		ASSERT_GE(round.died || !round.w_first ? KLOCK_OWNER_DIED : 0, v.ret);
		if (victim->returned) {
			ASSERT_EQ(round.died, victim->told);
		}
		had += victim->returned;
		late += !victim->returned && !round.w_first;
		ASSERT_EQ(0, v.unlock);
		ASSERT_EQ(0, klock_trylock(self->lock));
		ASSERT_EQ(0, klock_unlock(self->lock));
	}
	TH_LOG("%d returned with the lock, %d were killed between release and return; %d again",
	       had, late, again);
}

/*
 * The same for a waiter that lives on: it had the lock, and was told what there was
 * to tell, or its call failed with @error, and it had not; V had it, and was told
 * what W was not.
 */
static void expect_one_told(struct __test_metadata *_metadata, struct raw_call *w,
			    struct raw_call *v, bool died, int error)
{
	ASSERT_TRUE(end_call(w));
	ASSERT_TRUE(end_call(v));
	ASSERT_TRUE(w->ret == died || w->ret == error) TH_LOG("W: %d", w->ret);
	ASSERT_EQ(w->ret == error ? -EPERM : 0, w->unlock);
	ASSERT_EQ(w->ret == error && died, v->ret);
	ASSERT_EQ(0, v->unlock);
}

static _Atomic int signals;

static void on_signal(int signal)
{
	(void)signal;
	signals++;
}

static int go_by_signal(void *w)
{
	return pthread_kill(((struct raw_call *)w)->thread, SIGUSR1);
}

TEST_F_TIMEOUT(death, waiter_gets_a_signal_as_it_is_granted, 120)
{
	struct sigaction action = { .sa_handler = on_signal };	/* without SA_RESTART */
	int rounds = fewer(variant->rounds), had = 0, sent = 0, again = 0;
	struct raw_call w, v;

	make_thread(&w, self->name, variant->flags);
	make_thread(&v, self->name, variant->flags);
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	for (int i = 0; i < rounds; i++) {
		struct round round = round_of(i);
		int holder = attach_as(self->name, variant->flags);

		ASSERT_LE(0, holder);
		ASSERT_EQ(0, raw_lock(holder, 5, 0, 0));
		start_call(&w);
		if (!begin(self->lock, round, holder, w.tid, &w.done, &v)) {
			ASSERT_TRUE(clean_up(self->lock, holder, &w, &v));
			i--;
			ASSERT_GT(10 * rounds, again++);
			continue;
		}
		ASSERT_EQ(0, play(round, holder, go_by_signal, &w));
		expect_one_told(_metadata, &w, &v, round.died, -EINTR);
		ASSERT_TRUE(UNTIL(signals == sent + 1));	/* none is left for the next */
		sent++;
		had += w.ret >= 0;
		ASSERT_EQ(0, klock_trylock(self->lock));
		ASSERT_EQ(0, klock_unlock(self->lock));
	}
	TH_LOG("%d of %d had the lock; %d again", had, rounds, again);
}

TEST_F_TIMEOUT(death, waiter_times_out_as_it_is_granted, 120)
{
	uint64_t patience = 4 * NSEC_PER_MSEC;
	struct raw_call w, v;
	int rounds = fewer(variant->rounds), had = 0, again = 0;

	make_thread(&w, self->name, variant->flags);
	make_thread(&v, self->name, variant->flags);
	w.flags = KLOCK_LOCK_DEADLINE;
	for (int i = 0; i < rounds; i++) {
		struct round round = round_of(i);
		int holder = attach_as(self->name, variant->flags);
		uint64_t release;

		ASSERT_LE(0, holder);
		ASSERT_EQ(0, raw_lock(holder, 5, 0, 0));
		w.deadline = now_ns(CLOCK_MONOTONIC) + patience;
		start_call(&w);
		if (!begin(self->lock, round, holder, w.tid, &w.done, &v)) {
			ASSERT_TRUE(clean_up(self->lock, holder, &w, &v));
			i--;
			ASSERT_GT(10 * rounds, again++);
			patience += patience / 4;	/* it may have been too little */
			continue;
		}
		patience -= patience / 64;
		/* From 100 us before to 150 us after the deadline, plus the slack of timers */
		release = w.deadline + round.delay * 250 - 100000;
		while (now_ns(CLOCK_MONOTONIC) < release - NSEC_PER_MSEC)
			nap();
		while (now_ns(CLOCK_MONOTONIC) < release)
			;
		ASSERT_EQ(0, give_up(holder, round.died));
		expect_one_told(_metadata, &w, &v, round.died, -ETIMEDOUT);
		had += w.ret >= 0;
		ASSERT_EQ(0, klock_trylock(self->lock));
		ASSERT_EQ(0, klock_unlock(self->lock));
	}
	TH_LOG("%d of %d had the lock; %d again", had, rounds, again);
}

TEST_HARNESS_MAIN
