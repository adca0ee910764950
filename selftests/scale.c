// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Many: opens and closes, clients of one lock, spaces, tokens; and that the kernel's
 * memory is then what it was before.  KLOCK_LONG=1: as many as klock is made for, else
 * fewer where that would take too long.
 */
#define _GNU_SOURCE

#include "klock_test.h"

#include <sched.h>
#include <sys/resource.h>

/* What the kernel has that it cannot give back, in KiB; freeing waits for RCU. */
static long kernel_kib(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[256];
	long kib, sum = 0;

	CHECK(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "SUnreclaim: %ld", &kib) == 1 ||
		    sscanf(line, "KernelStack: %ld", &kib) == 1 ||
		    sscanf(line, "VmallocUsed: %ld", &kib) == 1 ||
		    sscanf(line, "Percpu: %ld", &kib) == 1)
			sum += kib;
	fclose(file);
	return sum;
}

/*
 * The kernel keeps slabs that are not quite empty, and more of them the more was in
 * use: so all is done twice, and the second time must add nothing.  What klock allocates
 * by the page is in none of the above, but charged to the process's memory cgroup.
 */
#define SLACK_KIB	512

typedef void work_fn(struct __test_metadata *_metadata, const char *name);

static char cgroup[CGROUP_PATH_SIZE];

static void twice(struct __test_metadata *_metadata, work_fn *work)
{
	char name[KLOCK_NAME_SIZE];
	long before, pages;

	SPACE_NAME(name);
	work(_metadata, name);
	before = kernel_kib();
	pages = pages_kib(cgroup);
	work(_metadata, name);
	EXPECT_TRUE(UNTIL(pages_kib(cgroup) <= pages + SLACK_KIB)) {
		TH_LOG("%ld KiB of pages after the first time, %ld KiB after the second", pages,
		       pages_kib(cgroup));
	}
	if (slowness() > 1)	/* KASAN keeps what was freed; that kernel has kmemleak */
		return;
	EXPECT_TRUE(UNTIL(kernel_kib() <= before + SLACK_KIB)) {
		TH_LOG("%ld KiB after the first time, %ld KiB after the second", before,
		       kernel_kib());
	}
}

FIXTURE(scale) {};

FIXTURE_SETUP(scale)
{
	struct rlimit files = { 11000, 11000 };

	if (setrlimit(RLIMIT_NOFILE, &files))
		SKIP(return, "not root");
	make_cgroup(cgroup);
	enter_cgroup(cgroup);
}

FIXTURE_TEARDOWN(scale)
{
	leave_cgroup(cgroup);
}

/* Each with a lock that its close releases. */
static void open_and_close(struct __test_metadata *_metadata, const char *name)
{
	struct klock_space *space = make_space(name, 8, KLOCK_NO_FASTPATH);
	int rounds = is_long() ? 500000 : fewer(15000), fd, i;
	struct klock_space_info info;

	ASSERT_NE(NULL, space);
	for (i = 0; i < rounds; i++) {
		fd = raw_attach(name, 0, 0);
		ASSERT_LE(0, fd);
		ASSERT_EQ(!!i, raw_lock(fd, 3, KLOCK_LOCK_TRY, 0));
		close(fd);
	}
	ASSERT_EQ(0, klock_space_info(space, &info));
	EXPECT_EQ(1, info.clients);
	EXPECT_EQ(0, info.held);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST_F_TIMEOUT(scale, opens_and_closes, 3000)
{
	twice(_metadata, open_and_close);
}

#define CLIENTS	10000

struct crowd {
	int fd[CLIENTS];
	pthread_t thread[CLIENTS];
	int served;		/* under the lock */
	int order[CLIENTS];
	atomic_int failed;
};

static struct crowd *crowd;

static void *be_served(void *arg)
{
	int i = (uintptr_t)arg;

	if (raw_lock(crowd->fd[i], 0, 0, 0)) {
		crowd->failed++;
		return NULL;
	}
	crowd->order[crowd->served++] = i;
	if (raw_unlock(crowd->fd[i], 0))
		crowd->failed++;
	return NULL;
}

static uint32_t waiting(struct klock_space *space)
{
	struct klock_space_info info;

	return klock_space_info(space, &info) ? 0 : info.waiting;
}

/* They queue up one after the other, and are served in that order. */
static void queue_up(struct __test_metadata *_metadata, const char *name)
{
	struct klock_space *space = make_space(name, 8, KLOCK_NO_FASTPATH);
	struct klock *lock = space ? get_lock(space, 0) : NULL;
	struct klock_waiter waiter[16];
	int n = is_long() ? CLIENTS : fewer(CLIENTS), i;
	pthread_attr_t attr;

	ASSERT_NE(NULL, lock);
	ASSERT_EQ(0, klock_lock(lock));
	crowd = shared(sizeof(*crowd));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	for (i = 0; i < n; i++) {
		crowd->fd[i] = raw_attach(name, 0, 0);
		ASSERT_LE(0, crowd->fd[i]);
		ASSERT_EQ(0, pthread_create(&crowd->thread[i], &attr, be_served,
					    (void *)(uintptr_t)i));
		ASSERT_TRUE(UNTIL(waiting(space) == (uint32_t)i + 1));
	}
	EXPECT_EQ(n, waiters_of(lock));
	EXPECT_EQ(16, klock_waiters(lock, waiter, 16));
	EXPECT_EQ(0, klock_unlock(lock));
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, pthread_join(crowd->thread[i], NULL));
		close(crowd->fd[i]);
	}
	EXPECT_EQ(0, crowd->failed);
	EXPECT_EQ(n, crowd->served);
	for (i = 0; i < n; i++) {
		ASSERT_EQ(i, crowd->order[i]);
	}
	munmap(crowd, sizeof(*crowd));
	klock_put(lock);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST_F_TIMEOUT(scale, clients_of_one_lock, 600)
{
	twice(_metadata, queue_up);
}

#define SPACES	1000

static void name_of(char name[KLOCK_NAME_SIZE], const char *prefix, int i)
{
	snprintf(name, KLOCK_NAME_SIZE, "%.50s-%04d", prefix, i);
}

/* How many of them the list of spaces has, in their order. */
static int listed(const char *prefix)
{
	struct klock_space_info info[64], *last = NULL, after;
	char name[KLOCK_NAME_SIZE];
	int found = 0, n, i;

	while ((n = klock_space_list(last, info, 64)) > 0) {
		for (i = 0; i < n; i++) {
			name_of(name, prefix, found);
			found += !strcmp(info[i].name, name);
		}
		after = info[n - 1];
		last = &after;
	}
	return n < 0 ? n : found;
}

static void make_many(struct __test_metadata *_metadata, const char *prefix)
{
	static struct klock_space *space[SPACES];
	int n = is_long() ? SPACES : fewer(SPACES), i;
	char name[KLOCK_NAME_SIZE];
	struct klock *lock;

	for (i = 0; i < n; i++) {
		name_of(name, prefix, i);
		space[i] = make_space(name, 2048, 0);
		ASSERT_NE(NULL, space[i]);
		ASSERT_EQ(0, klock_allocate(space[i], &lock));
		ASSERT_EQ(0, klock_lock(lock));
	}
	EXPECT_EQ(n, listed(prefix));
	for (i = 0; i < n; i++) {
		name_of(name, prefix, i);
		lock = get_lock(space[i], 0);
		EXPECT_EQ(0, klock_unlock(lock));
		klock_put(lock);
		klock_space_close(space[i]);
		EXPECT_EQ(0, klock_space_remove(name, 0));
	}
	EXPECT_EQ(0, listed(prefix));
}

TEST_F_TIMEOUT(scale, spaces, 300)
{
	twice(_metadata, make_many);
}

/*
 * Tokens
 */

#define LAST_TOKEN	(KLOCK_WORD_NONE - 1)

static uint32_t token_of(int fd)
{
	struct klock_ioc_status status;

	CHECK(raw_lock(fd, 1, 0, 0) >= 0);
	CHECK(raw_status(fd, 1, &status) == 0);
	CHECK(raw_unlock(fd, 1) == 0);
	return status.token;
}

FIXTURE(tokens) {};

FIXTURE_SETUP(tokens)
{
	char parameters[64];

	if (!getenv("KLOCK_KO") || geteuid())
		SKIP(return, "not root, or KLOCK_KO is not set");
	snprintf(parameters, sizeof(parameters), "first_token=%u", LAST_TOKEN - 2);
	ASSERT_EQ(0, unload());
	ASSERT_EQ(0, load(parameters));
}

FIXTURE_TEARDOWN(tokens)
{
	EXPECT_EQ(0, unload());
	EXPECT_EQ(0, load(""));
}

/* The last is followed by the first; who has one keeps it. */
TEST_F(tokens, wrap)
{
	uint32_t expected[] = { LAST_TOKEN - 2, LAST_TOKEN - 1, LAST_TOKEN, 1, 2, 3 };
	int fd[ARRAY_SIZE(expected)];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = raw_attach("wrap", KLOCK_ATTACH_CREATE, 8);
		ASSERT_LE(0, fd[i]);
	}
	for (i = 0; i < ARRAY_SIZE(fd); i++) {
		EXPECT_EQ(expected[i], token_of(fd[i]));
	}
	ASSERT_EQ(0, raw_lock(fd[0], 0, 0, 0));
	EXPECT_EQ(-EBUSY, raw_lock(fd[3], 0, KLOCK_LOCK_TRY, 0));
	for (i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	EXPECT_EQ(0, raw_remove("wrap", 0));
}

/*
 * A mapping outlived its client, and wrote the token into a word that nobody looked
 * at since.  Whoever gets that number after the wrap does not hold the lock.
 */
TEST_F(tokens, nobody_inherits_a_lock_with_its_number)
{
	int first = raw_attach("heir", KLOCK_ATTACH_CREATE, 8), fd[4];
	struct klock_ioc_space_fd space_fd = { .flags = 0 };
	struct klock_ioc_status status;
	unsigned int i;
	volatile uint64_t *words;

	ASSERT_LE(0, first);
	i = raw_ioctl(first, KLOCK_IOC_SPACE_FD, &space_fd);
	words = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, i, 0);
	close(i);
	if (words == MAP_FAILED)
		SKIP(return, "words cannot be mapped here");
	words[5] = 2;		/* nobody's yet: it stands for one of long ago */
	for (i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = raw_attach("heir", 0, 0);
		ASSERT_LE(0, fd[i]);
	}
	ASSERT_EQ(2, token_of(fd[3]));	/* LAST - 1, LAST, 1, 2 */
	ASSERT_EQ(0, raw_status(fd[3], 5, &status));
	EXPECT_EQ(KLOCK_STATUS_DIED, status.flags);
	EXPECT_EQ(-EPERM, raw_unlock(fd[3], 5));
	EXPECT_EQ(1, raw_lock(fd[2], 5, KLOCK_LOCK_TRY, 0));
	munmap((void *)words, sysconf(_SC_PAGESIZE));
	for (i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	close(first);
	EXPECT_EQ(0, raw_remove("heir", 0));
}

/* The last one is given out, too, and then one that was given back. */
TEST_F(tokens, all_of_them_are_in_use)
{
	int fd[4], i;

	ASSERT_EQ(0, unload());
	ASSERT_EQ(0, load("last_token=4"));
	for (i = 0; i < 4; i++) {
		fd[i] = raw_attach("full", KLOCK_ATTACH_CREATE, 8);
		ASSERT_LE(0, fd[i]);
		EXPECT_EQ(i + 1, token_of(fd[i]));
		ASSERT_EQ(0, raw_lock(fd[i], 2 + i, KLOCK_LOCK_TRY, 0));
	}
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(-ENFILE, raw_attach("full", 0, 0));
		close(fd[i % 4]);
		fd[i % 4] = raw_attach("full", 0, 0);
		ASSERT_LE(0, fd[i % 4]);
		EXPECT_EQ(i % 4 + 1, token_of(fd[i % 4]));
		EXPECT_EQ(1, raw_lock(fd[i % 4], 2 + i % 4, KLOCK_LOCK_TRY, 0));
	}
	for (i = 0; i < 4; i++)
		close(fd[i]);
	EXPECT_EQ(0, raw_remove("full", 0));
}

#define FEW_TOKENS	16

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK(!sched_setaffinity(0, sizeof(set), &set));
}

/* Has been in each page of the table, holds lock 0, and takes its time to close. */
static pid_t close_slowly(atomic_uint *token)
{
	pid_t pid = spawn();

	if (pid == 0) {
		int fd = raw_attach("closing", 0, 0);
		uint32_t mine;

		for (uint32_t id = 511; id < KLOCK_CAPACITY_MAX; id += 512)
			CHECK(raw_lock(fd, id, 0, 0) == 0 && raw_unlock(fd, id) == 0);
		mine = token_of(fd);
		CHECK(raw_lock(fd, 0, 0, 0) == 0);
		*token = mine;
		stay_on(0);
		CHECK(nice(19) == 19);
		close(fd);
		_exit(0);
	}
	return pid;
}

/*
 * A close searches all words that may bear its number.  Who got the number meanwhile
 * would have his lock released by that.
 */
TEST_F_TIMEOUT(tokens, nobody_gets_the_number_of_one_who_closes, 60)
{
	const uint32_t last = KLOCK_CAPACITY_MAX - 1;
	atomic_uint *token = shared(sizeof(*token));
	int watch, fd, i, round;
	bool got = false;
	pid_t pid, burner;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one processor");
	ASSERT_EQ(0, unload());
	ASSERT_EQ(0, load("last_token=16"));
	watch = raw_attach("closing", KLOCK_ATTACH_CREATE, KLOCK_CAPACITY_MAX);
	ASSERT_LE(0, watch);
	for (round = 0; round < 5; round++) {
		*token = 0;
		burner = spawn();
		if (burner == 0) {
			stay_on(0);
			for (;;)
				;
		}
		pid = close_slowly(token);
		stay_on(1);
		/* It has begun: lock 0 is in the first page. */
		ASSERT_TRUE(UNTIL(*token && raw_lock(watch, 0, KLOCK_LOCK_TRY, 0) == 1));
		ASSERT_EQ(0, raw_unlock(watch, 0));
		for (i = 0, got = false; i < FEW_TOKENS && !got; i++) {
			fd = raw_attach("closing", 0, 0);
			ASSERT_LE(0, fd);
			got = token_of(fd) == *token;
			if (!got)
				close(fd);
		}
		if (got) {
			ASSERT_LE(0, raw_lock(fd, last, KLOCK_LOCK_TRY, 0));
		}
		slay(burner);
		ASSERT_EQ(0, reap(pid));
		if (got) {
			ASSERT_EQ(0, raw_unlock(fd, last)) TH_LOG("token %u", *token);
			close(fd);
		}
	}
	close(watch);
	EXPECT_EQ(0, raw_remove("closing", 0));
}

TEST_HARNESS_MAIN
