// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A process in a memory cgroup: what it makes is charged to it; at the limit calls are
 * ENOMEM, the OOM killer is not asked, and nobody else feels it.
 */
#include "klock_test.h"

#include <sys/mman.h>
#include <sys/resource.h>

#define MIB	(1 << 20)

FIXTURE(memcg) {
	char dir[CGROUP_PATH_SIZE];
	char name[KLOCK_NAME_SIZE];
	struct outcome *outcome;
};

/* What a process in the cgroup tells, and is told */
struct outcome {
	long long null, opened, clients, space, grown;	/* bytes */
	atomic_int at_the_limit, go_on;
};

static long long of_cgroup(const FIXTURE_DATA(memcg) *self, const char *file, const char *word)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", self->dir, file);
	return get_number(path, word);
}

static long long charged(const FIXTURE_DATA(memcg) *self)
{
	return of_cgroup(self, "memory.current", "");
}

/*
 * Moves this process to the cgroup and to one processor: each keeps some pages that
 * were charged, in case, so that what is charged is known as well as that.
 */
#define SLACK	MIB

static void enter(const FIXTURE_DATA(memcg) *self)
{
	struct rlimit files = { 8192, 8192 };
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
	CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
	enter_cgroup(self->dir);
}

FIXTURE_SETUP(memcg)
{
	make_cgroup(self->dir);
	if (!self->dir[0])
		SKIP(return, "not root, or no memory controller in " CGROUPS);
	SPACE_NAME(self->name);
	self->outcome = shared(sizeof(*self->outcome));
}

FIXTURE_TEARDOWN(memcg)
{
	if (!self->outcome)	/* skipped */
		return;
	EXPECT_TRUE(UNTIL(rmdir(self->dir) == 0));
}

/* The first call that needs a client makes it; then it finds no such space. */
static int make_client(int fd)
{
	struct klock_ioc_attach attach = { .name = "no-such-space" };

	return raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach);
}

/* What so many open files of @path are charged, or so many clients. */
#define FILES	4096

static long long charge_of_files(const FIXTURE_DATA(memcg) *self, const char *path, bool clients)
{
	static int fd[FILES];
	long long before, after;
	int i;

	before = charged(self);
	for (i = 0; i < FILES; i++) {
		fd[i] = open(path, O_RDWR | O_CLOEXEC);
		CHECK(fd[i] >= 0);
		CHECK(!clients || make_client(fd[i]) == -ENOENT);
	}
	after = charged(self);
	for (i = 0; i < FILES; i++)
		close(fd[i]);
	CHECK(UNTIL(charged(self) < before + SLACK));
	return after - before;
}

static void charge(const FIXTURE_DATA(memcg) *self)
{
	struct klock_ioc_resize resize = { .capacity = KLOCK_CAPACITY_MAX };
	struct outcome *outcome = self->outcome;
	long long before, made;
	int fd;

	enter(self);
	/* The table of descriptors is as large then. */
	charge_of_files(self, "/dev/null", false);
	outcome->null = charge_of_files(self, "/dev/null", false);
	outcome->opened = charge_of_files(self, "/dev/klock", false);
	outcome->clients = charge_of_files(self, "/dev/klock", true);
	before = charged(self);
	fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, KLOCK_CAPACITY_MAX / 2);
	CHECK(fd >= 0);
	made = charged(self);
	outcome->space = made - before;
	CHECK(raw_ioctl(fd, KLOCK_IOC_RESIZE, &resize) == 0);
	outcome->grown = charged(self) - made;
	close(fd);
	CHECK(raw_remove(self->name, 0) == 0);
	CHECK(UNTIL(charged(self) < before + SLACK));
	_exit(0);
}

/*
 * Clients and spaces, to who uses, makes and grows them, until they are gone.  But nothing
 * to who opens the device: that is done under a mutex of all misc devices.
 */
TEST_F_TIMEOUT(memcg, what_is_made_is_charged, 60)
{
	struct outcome *outcome = self->outcome;
	pid_t pid = spawn();

	if (pid == 0)
		charge(self);
	ASSERT_EQ(0, reap(pid));
	TH_LOG("%d files: %lld, of the device: %lld, clients: %lld", FILES, outcome->null,
	       outcome->opened, outcome->clients);
	TH_LOG("a space: %lld, as much again: %lld", outcome->space, outcome->grown);
	EXPECT_GE(outcome->null + MIB / 2, outcome->opened);
	EXPECT_LE(outcome->opened + MIB, outcome->clients);
	/* Meanwhile as much as SLACK is given back of what was there before. */
	EXPECT_LE(4 * MIB - 2 * SLACK, outcome->space);
	EXPECT_LE(4 * MIB - 2 * SLACK, outcome->grown);
}

/*
 * What lives in the cgroup; all that is its own is there before the limit, so that
 * only what klock allocates comes to it.
 */
#define SPARE	64
#define OWN	SPARE		/* number of its own space */
#define THREADS	256
#define OPENED	2048

struct tenant {
	int fd;				/* client of a space that others use, too */
	int own;			/* client of a space of its own */
	int limit;			/* file */
	int spare[SPARE];		/* open, not attached */
	int opened[OPENED];
	pthread_t thread[THREADS];
	pthread_barrier_t barrier;
	atomic_int served, refused, wrong;
};

static struct tenant tenant;

static void *be_served(void *arg __attribute__((unused)))
{
	int ret;

	pthread_barrier_wait(&tenant.barrier);
	ret = raw_lock(tenant.fd, 2, 0, 0);
	if (ret == 0) {
		tenant.wrong += raw_unlock(tenant.fd, 2) != 0;
		tenant.served++;
	} else {
		tenant.refused += ret == -ENOMEM;
		tenant.wrong += ret != -ENOMEM;
	}
	pthread_barrier_wait(&tenant.barrier);	/* what the thread itself takes is not given back */
	return NULL;
}

static int make_space_by(int fd, int number, uint32_t capacity)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, .capacity = capacity,
	};

	snprintf(attach.name, sizeof(attach.name), "tenant-%d-%d", getpid(), number);
	return raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach);
}

static void remove_space_by(int number)
{
	struct klock_ioc_remove remove = { .flags = 0 };

	snprintf(remove.name, sizeof(remove.name), "tenant-%d-%d", getpid(), number);
	CHECK(raw_ioctl(tenant.fd, KLOCK_IOC_REMOVE, &remove) == 0);
}

static void move_in(const FIXTURE_DATA(memcg) *self)
{
	struct klock_ioc_allocate allocate = { .flags = KLOCK_ALLOCATE_ID, .id = 1 };
	pthread_attr_t attr;
	char path[128];
	int i;

	enter(self);
	snprintf(path, sizeof(path), "%s/memory.max", self->dir);
	tenant.limit = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(tenant.limit >= 0);
	tenant.fd = raw_attach(self->name, 0, 0);
	CHECK(tenant.fd >= 0);
	CHECK(raw_lock(tenant.fd, 1, 0, 0) == 0 && raw_lock(tenant.fd, 2, 0, 0) == 0);
	CHECK(raw_ioctl(tenant.fd, KLOCK_IOC_ALLOCATE, &allocate) == 1);
	tenant.own = open("/dev/klock", O_RDWR | O_CLOEXEC);
	CHECK(make_space_by(tenant.own, OWN, 1) == 1);
	for (i = 0; i < SPARE; i++) {
		tenant.spare[i] = open("/dev/klock", O_RDWR | O_CLOEXEC);
		CHECK(tenant.spare[i] >= 0);
	}
	pthread_barrier_init(&tenant.barrier, NULL, THREADS + 1);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	for (i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&tenant.thread[i], &attr, be_served, NULL));
	CHECK(mlockall(MCL_CURRENT) == 0);
}

/* Too large for the limit: refused, and all of it given back. */
static void ask_for_too_much(const FIXTURE_DATA(memcg) *self)
{
	struct klock_ioc_resize resize = { .capacity = KLOCK_CAPACITY_MAX };
	long long before = charged(self);
	struct klock_ioc_info info = { 0 };
	int i;

	for (i = 0; i < 5; i++) {
		CHECK(make_space_by(tenant.spare[0], 0, KLOCK_CAPACITY_MAX) == -ENOMEM);
		CHECK(raw_ioctl(tenant.own, KLOCK_IOC_RESIZE, &resize) == -ENOMEM);
		CHECK(raw_ioctl(tenant.own, KLOCK_IOC_INFO, &info) == 0);
		CHECK(info.capacity == 1);
		CHECK(UNTIL(charged(self) < before + SLACK));
	}
}

/* Smaller and smaller spaces, until the smallest finds no room any more: how many there are. */
static int fill_up(void)
{
	uint32_t capacity = KLOCK_CAPACITY_MAX;
	int n = 0, refused = 0, ret;

	while (refused < 3) {
		CHECK(n < SPARE);
		ret = make_space_by(tenant.spare[n], n, capacity);
		CHECK(ret == (int)capacity || ret == -ENOMEM);
		if (ret > 0)
			n++;
		else if (capacity > 1)
			capacity /= 2;
		else
			refused++;
	}
	return n;
}

/* What needs no memory goes on. */
static void use_what_there_is(void)
{
	struct klock_ioc_allocate allocate = { .flags = 0 };
	struct klock_ioc_id id = { .id = 0 };
	struct klock_ioc_status status;

	CHECK(raw_lock(tenant.fd, 3, 0, 0) == 0 && raw_unlock(tenant.fd, 3) == 0);
	CHECK(raw_lock(tenant.fd, 1, KLOCK_LOCK_TRY, 0) == -EBUSY);
	CHECK(raw_lock(tenant.fd, 1, KLOCK_LOCK_DEADLINE, 1) == -ETIMEDOUT);
	CHECK(raw_ioctl(tenant.fd, KLOCK_IOC_ALLOCATE, &allocate) == 0);
	CHECK(raw_ioctl(tenant.fd, KLOCK_IOC_FREE, &id) == 0);
	CHECK(raw_status(tenant.fd, 1, &status) == 0);
	CHECK(status.flags == (KLOCK_STATUS_ALLOCATED | KLOCK_STATUS_HELD | KLOCK_STATUS_MINE));
}

/* One of a client's threads waits with what the client has, others must be given something. */
static void wait_with_nothing(void)
{
	struct klock_ioc_status status;
	int waiting;

	pthread_barrier_wait(&tenant.barrier);
	CHECK(UNTIL(raw_status(tenant.fd, 2, &status) == 0 &&
		    (int)status.waiters + tenant.refused + tenant.wrong == THREADS));
	waiting = status.waiters;
	CHECK(waiting > 0 && tenant.refused > 0 && tenant.wrong == 0);
	CHECK(raw_unlock(tenant.fd, 2) == 0);
	CHECK(UNTIL(tenant.served == waiting) && tenant.wrong == 0);
}

/* What an open file is of is the kernel's, too; where it may kill for it, it kills us. */
static int open_to_the_end(void)
{
	struct klock_ioc_api api;
	int n, i, fd, ret = 0;

	for (n = 0; n < OPENED - 1 && ret != -ENOMEM; n += fd >= 0) {
		fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
		ret = fd < 0 ? -errno : make_client(fd);
		CHECK(ret == -ENOMEM || ret == -ENOENT);
		tenant.opened[n] = fd;
	}
	CHECK(ret == -ENOMEM);
	for (i = 0; i < n; i++)
		CHECK(raw_ioctl(tenant.opened[i], KLOCK_IOC_GET_API, &api) == 0);
	return n;
}

/* Some that failed, again, and away with all. */
static void move_out(int spaces, int opened)
{
	struct klock_ioc_resize resize = { .capacity = KLOCK_CAPACITY_MAX };
	int i;

	CHECK(pwrite(tenant.limit, "max", 3, 0) == 3);
	pthread_barrier_wait(&tenant.barrier);
	for (i = 0; i < THREADS; i++)
		CHECK(!pthread_join(tenant.thread[i], NULL));
	CHECK(make_space_by(tenant.spare[spaces], spaces, KLOCK_CAPACITY_MAX) > 0);
	CHECK(raw_ioctl(tenant.own, KLOCK_IOC_RESIZE, &resize) == 0);
	tenant.opened[opened] = open("/dev/klock", O_RDWR | O_CLOEXEC);
	CHECK(tenant.opened[opened] >= 0);
	for (i = 0; i <= opened; i++)
		close(tenant.opened[i]);
	for (i = 0; i < SPARE; i++)
		close(tenant.spare[i]);
	for (i = 0; i <= spaces; i++)
		remove_space_by(i);
	close(tenant.own);
	remove_space_by(OWN);
}

static void live_at_the_limit(const FIXTURE_DATA(memcg) *self)
{
	struct outcome *outcome = self->outcome;
	int spaces, opened, len;
	char limit[32];

	move_in(self);
	len = snprintf(limit, sizeof(limit), "%lld", charged(self) + 4 * MIB);
	CHECK(pwrite(tenant.limit, limit, len, 0) == len);
	ask_for_too_much(self);
	spaces = fill_up();
	use_what_there_is();
	wait_with_nothing();
	use_what_there_is();
	outcome->at_the_limit = 1;
	CHECK(UNTIL(outcome->go_on));
	opened = open_to_the_end();
	move_out(spaces, opened);
	_exit(0);
}

/* Nobody else feels it. */
static void live_beside(struct __test_metadata *_metadata, int fd)
{
	char name[KLOCK_NAME_SIZE];
	int other;

	snprintf(name, sizeof(name), "beside-%d", getpid());
	other = raw_attach(name, KLOCK_ATTACH_CREATE, KLOCK_CAPACITY_MAX);
	ASSERT_LE(0, other);
	EXPECT_EQ(0, raw_lock(other, KLOCK_CAPACITY_MAX - 1, 0, 0));
	close(other);
	EXPECT_EQ(0, raw_remove(name, 0));
	EXPECT_EQ(-EBUSY, raw_lock(fd, 1, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, raw_lock(fd, 2, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, raw_unlock(fd, 2));
}

TEST_F_TIMEOUT(memcg, limit, 60)
{
	long long kills = get_number("/proc/vmstat", "oom_kill ");
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 8);
	char path[64];
	pid_t pid;

	ASSERT_LE(0, fd);
	pid = spawn();
	if (pid == 0)
		live_at_the_limit(self);
	ASSERT_TRUE(UNTIL(self->outcome->at_the_limit || waitpid(pid, NULL, WNOHANG)));
	ASSERT_EQ(1, self->outcome->at_the_limit);
	EXPECT_LT(0, of_cgroup(self, "memory.events", "max "));
	EXPECT_EQ(0, of_cgroup(self, "memory.events", "oom "));
	live_beside(_metadata, fd);
	/* From here on the kernel may want to kill, but has nobody that it may. */
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
	EXPECT_TRUE(write_file(path, "-1000"));
	self->outcome->go_on = 1;
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, of_cgroup(self, "memory.events", "oom_kill "));
	EXPECT_EQ(kills, get_number("/proc/vmstat", "oom_kill "));
	EXPECT_EQ(1, raw_lock(fd, 1, KLOCK_LOCK_TRY, 0));
	EXPECT_TRUE(UNTIL(charged(self) < 4 * MIB));
	close(fd);
	EXPECT_EQ(0, raw_remove(self->name, 0));
}

TEST_HARNESS_MAIN
