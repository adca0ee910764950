// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A hostile user without any right.  As uid 65534, without capabilities, he attacks the
 * spaces of root and of another user: each attack must fail as documented, and those
 * attacked must not feel it.  SECURITY.md says what is promised.
 *
 * In abi.c are those whose memory does not come when it is touched, in map.c all patterns
 * that a word can be made to say.
 */
#define _GNU_SOURCE

#include "klock_test.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define EVIL	65534
#define VICTIM	54321
#define LOCKS	8

static void __attribute__((constructor)) need_root(void)
{
	if (geteuid())
		ksft_exit_skip("only root can become the users of these tests\n");
}

/* A child of that user, without capabilities. */
static pid_t spawn_as(uid_t uid)
{
	const struct who who = { .uid = uid, .gid = uid };
	pid_t pid = spawn();

	if (pid == 0) {
		become(&who);
		prctl(PR_SET_PDEATHSIG, SIGKILL);	/* which become() forgets */
	}
	return pid;
}

/* A client of this process of the space of @uid: a descriptor, or -errno. */
static int attach_to(uid_t uid, const char *name, uint32_t flags)
{
	struct klock_ioc_attach attach = named(name, flags | KLOCK_ATTACH_UID);
	struct order order = { .fd = -1 };

	attach.uid = uid;
	memcpy(order.arg, &attach, sizeof(attach));
	return do_attach(&order);
}

/* A new space that all may write, and map: an agent's descriptor, or -errno. */
static int make_mappable_by(const struct agent *agent, const char *name)
{
	struct klock_ioc_attach attach = named(name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL);

	attach.capacity = LOCKS;
	attach.mode = 0666;
	attach.space_flags = KLOCK_SPACE_MAPPABLE;
	return attach_by(agent, &attach);
}

static int remove_of(uid_t uid, const char *name)
{
	struct klock_ioc_remove remove = {
		.flags = KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE, .uid = uid,
	};
	struct order order = { .fd = -1 };

	memcpy(remove.name, name, strlen(name));
	memcpy(order.arg, &remove, sizeof(remove));
	return do_remove_space(&order);
}

/*
 * Finds a space by its name in the list that the caller sees: 1, and it is in the
 * order then, 0, or -errno.
 */
static int do_find(struct order *order)
{
	struct klock_ioc_info info[16];
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)info,
		.count = ARRAY_SIZE(info),
		.entry_size = sizeof(info[0]),
	};
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), n, i;

	do {
		n = raw_ioctl(fd, KLOCK_IOC_LIST_SPACES, &spaces);
		for (i = 0; i < n; i++) {
			if (strcmp(info[i].name, order->arg))
				continue;
			memcpy(order->arg, &info[i], sizeof(info[i]));
			close(fd);
			return 1;
		}
		if (n > 0) {
			spaces.after_uid = info[n - 1].uid;
			memcpy(spaces.after_name, info[n - 1].name, KLOCK_NAME_SIZE);
		}
	} while (n == ARRAY_SIZE(info));
	close(fd);
	return n < 0 ? n : 0;
}

static int find_by(const struct agent *agent, const char *name, struct klock_ioc_info *info)
{
	tell(agent, do_find, -1, 0, name, strlen(name) + 1);
	return answer(agent, info, sizeof(*info));
}

/* Removes all spaces of the hostile user and of his victim. */
static void raze(void)
{
	struct klock_ioc_info info = {};
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)&info, .count = 1, .entry_size = sizeof(info),
	};
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);

	while (raw_ioctl(fd, KLOCK_IOC_LIST_SPACES, &spaces) == 1) {
		spaces.after_uid = info.uid;
		memcpy(spaces.after_name, info.name, KLOCK_NAME_SIZE);
		if (info.uid == EVIL || info.uid == VICTIM)
			CHECK(remove_of(info.uid, info.name) == 0);
	}
	close(fd);
}

/* What the kernel's log has from now on. */
static int open_log(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	lseek(fd, 0, SEEK_END);
	return fd;
}

/* Whether it says anything of us; other news may come at any time. */
static bool is_logged(int fd)
{
	char line[2048];
	bool found = false;
	ssize_t n;

	while ((n = read(fd, line, sizeof(line) - 1)) > 0) {
		line[n] = 0;
		if (strstr(line, "klock") || strstr(line, "hostile")) {
			fprintf(stderr, "# %s\n", line);
			found = true;
		}
	}
	return found;
}

/* Opens, with the flags that open() is given; the number of a descriptor of the agent. */
static int do_open(struct order *order)
{
	int fd = open(order->arg, order->number | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int file_by(const struct agent *agent, int flags, const char *format, ...)
{
	char path[128];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	tell(agent, do_open, -1, flags, path, sizeof(path));
	return answer(agent, NULL, 0);
}

static int do_map(struct order *order)
{
	void *mem = mmap(NULL, 4096, order->number, MAP_SHARED, order->fd, 0);

	if (mem == MAP_FAILED)
		return -errno;
	memcpy(order->arg, &mem, sizeof(mem));
	return 0;
}

static int map_by(const struct agent *agent, int fd, int prot)
{
	tell(agent, do_map, fd, prot, NULL, 0);
	return answer(agent, NULL, 0);
}

/* How a mapping is refused that he has no right to: a 32-bit program has no right to any. */
static int no_map(void)
{
	return words_can_be_mapped() ? -EACCES : -EOPNOTSUPP;
}

static int space_fd_by(const struct agent *agent, int fd)
{
	struct klock_ioc_space_fd arg = {};

	return ioctl_by(agent, fd, KLOCK_IOC_SPACE_FD, &arg);
}

static int attach_fd_by(const struct agent *agent, int space_fd, uint32_t flags)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_FD | flags,
		.space_fd = space_fd,
	};

	return attach_by(agent, &attach);
}

static int id_by(const struct agent *agent, int fd, unsigned long number, uint32_t id)
{
	struct klock_ioc_id arg = { .id = id };

	return ioctl_by(agent, fd, number, &arg);
}

static struct klock_ioc_status status_by(const struct agent *agent, int fd, uint32_t id)
{
	struct klock_ioc_status status = { .id = id };

	if (ioctl_by(agent, fd, KLOCK_IOC_STATUS, &status))
		memset(&status, 0xff, sizeof(status));
	return status;
}

static uint32_t waiters_at(int fd, uint32_t id)
{
	struct klock_ioc_status status;

	return raw_status(fd, id, &status) ? UINT32_MAX : status.waiters;
}

/* ---------------------------------------------------------------- rights */

struct snapshot {
	struct klock_ioc_info info;
	struct klock_ioc_status status[LOCKS];
};

/* The victim holds lock 1, for which another process of his waits, and lock 2 is allocated. */
FIXTURE(rights) {
	char name[KLOCK_NAME_SIZE];
	struct agent evil, victim, waiter;
	int fd;			/* of the victim */
	int watch;		/* ours */
	int pair[2];
	int log;
	struct snapshot before;
};

FIXTURE_VARIANT(rights) {
	uid_t uid;
};

FIXTURE_VARIANT_ADD(rights, of_root) { .uid = 0 };
FIXTURE_VARIANT_ADD(rights, of_a_user) { .uid = VICTIM };

FIXTURE_SETUP(rights)
{
	SPACE_NAME(self->name);
	self->log = open_log();
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, self->pair));
	self->evil = user(EVIL);
	self->victim = user(variant->uid);
	self->waiter = user(variant->uid);
}

FIXTURE_TEARDOWN(rights)
{
	dismiss_all();
	remove_of(variant->uid, self->name);
	raze();
	EXPECT_FALSE(is_logged(self->log));
}

static struct snapshot look(int fd)
{
	struct snapshot now;

	now.info = raw_info(fd);
	for (uint32_t id = 0; id < LOCKS; id++)
		CHECK(raw_status(fd, id, &now.status[id]) == 0);
	return now;
}

static void settle(struct __test_metadata *_metadata, FIXTURE_DATA(rights) *self,
		   const FIXTURE_VARIANT(rights) *variant, uint32_t mode)
{
	struct klock_ioc_allocate allocate = { .flags = KLOCK_ALLOCATE_ID, .id = 2 };
	int fd;

	self->fd = make_by(&self->victim, self->name, LOCKS, mode);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, lock_by(&self->victim, self->fd, 1, 0));
	ASSERT_EQ(2, ioctl_by(&self->victim, self->fd, KLOCK_IOC_ALLOCATE, &allocate));
	fd = open_by(&self->waiter, self->name, 0);
	ASSERT_LE(0, fd);
	tell_lock(&self->waiter, fd, 1);
	self->watch = attach_to(variant->uid, self->name, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, self->watch);
	ASSERT_TRUE(UNTIL(waiters_at(self->watch, 1) == 1));
	self->before = look(self->watch);
}

/* All is as it was, and goes on. */
static void expect_untouched(struct __test_metadata *_metadata, FIXTURE_DATA(rights) *self)
{
	struct snapshot now = look(self->watch);

	EXPECT_EQ(0, memcmp(&self->before, &now, sizeof(now)));
	EXPECT_EQ(0, unlock_by(&self->victim, self->fd, 1));
	EXPECT_EQ(0, answer(&self->waiter, NULL, 0));
}

/* Nothing of a space that is not his, and not whether it is there. */
TEST_F(rights, a_private_space_is_not_there)
{
	static const uint32_t flags[] = {
		0, KLOCK_ATTACH_READONLY, KLOCK_ATTACH_ERRORCHECK, KLOCK_ATTACH_CREATE,
		KLOCK_ATTACH_CREATE | KLOCK_ATTACH_READONLY,
		KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL,
	};
	const struct agent *agent = &self->evil;
	const uid_t owner = variant->uid;
	struct klock_ioc_info info;
	unsigned int i;

	settle(_metadata, self, variant, 0600);
	for (i = 0; i < 2 * ARRAY_SIZE(flags); i++) {
		const char *name = i % 2 ? "absent" : self->name;

		EXPECT_EQ(-EACCES, open_uid_by(agent, owner, name, flags[i / 2]));
		EXPECT_EQ(-EACCES, remove_by(agent, name, KLOCK_REMOVE_UID, owner));
		EXPECT_EQ(-EACCES, remove_by(agent, name, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE,
					     owner));
		EXPECT_EQ(0, find_by(agent, name, &info));
	}
	/* A space of his own of that name is another one. */
	EXPECT_EQ(-ENOENT, open_by(agent, self->name, 0));
	EXPECT_LE(0, make_by(agent, self->name, 1, 0));

	/* What /proc has of his victim is not for him. */
	EXPECT_EQ(-EACCES, file_by(agent, O_RDWR, "/proc/%d/fd/%d", self->victim.pid, self->fd));
	EXPECT_EQ(-EACCES, file_by(agent, O_RDONLY, "/proc/%d/fdinfo/%d", self->victim.pid,
				   self->fd));
	expect_untouched(_metadata, self);
}

/* Calls that change something, on a client that may only look. */
static void expect_eaccess(struct __test_metadata *_metadata, const struct agent *agent, int fd)
{
	struct klock_ioc_allocate allocate = {};

	EXPECT_EQ(-EACCES, lock_by(agent, fd, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EACCES, lock_by(agent, fd, 1, 0));
	EXPECT_EQ(-EACCES, unlock_by(agent, fd, 1));
	EXPECT_EQ(-EACCES, break_by(agent, fd, 1, 0));
	EXPECT_EQ(-EACCES, ioctl_by(agent, fd, KLOCK_IOC_ALLOCATE, &allocate));
	EXPECT_EQ(-EACCES, id_by(agent, fd, KLOCK_IOC_FREE, 2));
	EXPECT_EQ(-EACCES, id_by(agent, fd, KLOCK_IOC_FREE_ALL, 0));
	EXPECT_EQ(-EACCES, resize_by(agent, fd, LOCKS));
	EXPECT_EQ(-EACCES, resize_by(agent, fd, 2 * LOCKS));
}

static void expect_only_looks(struct __test_metadata *_metadata, const struct agent *agent, int fd)
{
	int space_fd, other;

	expect_eaccess(_metadata, agent, fd);
	EXPECT_EQ(1, status_by(agent, fd, 1).waiters);
	space_fd = space_fd_by(agent, fd);
	ASSERT_LE(0, space_fd);
	EXPECT_EQ(no_map(), map_by(agent, space_fd, PROT_READ));
	EXPECT_EQ(no_map(), map_by(agent, space_fd, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-EACCES, attach_fd_by(agent, space_fd, 0));
	EXPECT_EQ(-EACCES, attach_fd_by(agent, space_fd, KLOCK_ATTACH_ERRORCHECK));
	other = attach_fd_by(agent, space_fd, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, other);
	expect_eaccess(_metadata, agent, other);
	EXPECT_EQ(0, close_by(agent, other));
	EXPECT_EQ(0, close_by(agent, space_fd));
}

/* Who may look does no more, whatever he makes of it. */
TEST_F(rights, who_may_look_only_looks)
{
	struct klock_ioc_info info;
	int fd;

	settle(_metadata, self, variant, 0644);
	EXPECT_EQ(1, find_by(&self->evil, self->name, &info));
	EXPECT_EQ(-EACCES, open_uid_by(&self->evil, variant->uid, self->name, 0));
	EXPECT_EQ(-EACCES, open_uid_by(&self->evil, variant->uid, self->name, KLOCK_ATTACH_CREATE));
	EXPECT_EQ(-EACCES, remove_by(&self->evil, self->name, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE,
				     variant->uid));
	fd = open_uid_by(&self->evil, variant->uid, self->name, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, fd);
	expect_only_looks(_metadata, &self->evil, fd);
	EXPECT_EQ(0, close_by(&self->evil, fd));
	expect_untouched(_metadata, self);
}

/* A descriptor that he was sent is what it was made as: root's, to look, of a private space. */
TEST_F(rights, what_he_is_sent_is_no_more_than_it_was)
{
	struct klock_ioc_attach attach = named("default", KLOCK_ATTACH_CREATE);
	int fd;

	settle(_metadata, self, variant, 0600);
	fd = give_fd(&self->evil, self->pair, self->watch);
	ASSERT_LE(0, fd);
	expect_only_looks(_metadata, &self->evil, fd);
	EXPECT_EQ(-EBUSY, ioctl_by(&self->evil, fd, KLOCK_IOC_ATTACH, &attach));
	EXPECT_EQ(0, close_by(&self->evil, fd));
	expect_untouched(_metadata, self);
}

/* Who may lock takes, drops and forges no lock of another. */
TEST_F(rights, who_may_lock_has_no_lock_of_another)
{
	int fd, other, space_fd;

	settle(_metadata, self, variant, 0666);
	fd = open_uid_by(&self->evil, variant->uid, self->name, 0);
	ASSERT_LE(0, fd);
	space_fd = space_fd_by(&self->evil, fd);
	ASSERT_LE(0, space_fd);
	other = attach_fd_by(&self->evil, space_fd, KLOCK_ATTACH_ERRORCHECK);
	ASSERT_LE(0, other);
	EXPECT_EQ(no_map(), map_by(&self->evil, space_fd, PROT_READ));
	EXPECT_EQ(no_map(), map_by(&self->evil, space_fd, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-EBUSY, lock_by(&self->evil, fd, 1, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EBUSY, lock_by(&self->evil, other, 1, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EPERM, unlock_by(&self->evil, fd, 1));
	EXPECT_EQ(-EPERM, unlock_by(&self->evil, other, 1));
	EXPECT_EQ(-EACCES, break_by(&self->evil, fd, 1, 0));
	EXPECT_EQ(-EACCES, break_by(&self->evil, other, 1, 0));
	EXPECT_EQ(-EACCES, resize_by(&self->evil, fd, 4));
	EXPECT_EQ(-EACCES, resize_by(&self->evil, fd, LOCKS));
	EXPECT_EQ(-EACCES, resize_by(&self->evil, fd, 2 * LOCKS));
	EXPECT_EQ(-EACCES, remove_by(&self->evil, self->name, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE,
				     variant->uid));
	/* What he takes himself, the owner takes from him. */
	EXPECT_EQ(0, lock_by(&self->evil, fd, 3, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, break_by(&self->victim, self->fd, 3, 0));
	EXPECT_EQ(-EPERM, unlock_by(&self->evil, fd, 3));
	EXPECT_EQ(1, lock_by(&self->victim, self->fd, 3, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, unlock_by(&self->victim, self->fd, 3));
	EXPECT_EQ(0, close_by(&self->evil, other));
	EXPECT_EQ(0, close_by(&self->evil, space_fd));
	EXPECT_EQ(0, close_by(&self->evil, fd));
	expect_untouched(_metadata, self);
}

/* Who could open the device at all has a client, whatever he opened it for. */
TEST_F(rights, of_a_descriptor_are_not_those_of_open)
{
	static const int flags[] = { O_RDONLY, O_WRONLY, O_RDWR };
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		fd = file_by(&self->evil, flags[i], "/dev/klock");
		ASSERT_LE(0, fd);
		EXPECT_EQ(0, lock_by(&self->evil, fd, 0, KLOCK_LOCK_TRY));
		EXPECT_EQ(0, unlock_by(&self->evil, fd, 0));
		EXPECT_EQ(EVIL, info_by(&self->evil, fd).uid);
		EXPECT_EQ(0, close_by(&self->evil, fd));
	}
	fd = file_by(&self->evil, O_PATH, "/dev/klock");
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EBADF, lock_by(&self->evil, fd, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EBADF, attach_fd_by(&self->evil, fd, 0));
}

/* ---------------------------------------------------------------- delay */

FIXTURE(load) {
	char name[KLOCK_NAME_SIZE];
	struct agent evil, victim;
	int log;
};

FIXTURE_SETUP(load)
{
	struct rlimit files = { 8192, 8192 };

	SPACE_NAME(self->name);
	self->log = open_log();
	setrlimit(RLIMIT_NOFILE, &files);
	self->evil = user(EVIL);
	self->victim = user(VICTIM);
}

FIXTURE_TEARDOWN(load)
{
	dismiss_all();
	raze();
	EXPECT_FALSE(is_logged(self->log));
}

typedef void work_fn(const char *name);

/* Computes, and leaves the kernel alone. */
static void burn(const char *name)
{
	volatile unsigned int n = !name;

	for (;;)
		n++;
}

/* Looks at the space of the victim in every way, as fast as he can. */
static void look_on(const char *name)
{
	int fd = attach_to(VICTIM, name, KLOCK_ATTACH_READONLY);
	struct klock_ioc_info info[4];
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)info, .count = 4, .entry_size = sizeof(info[0]),
	};
	struct klock_ioc_status status;

	CHECK(fd >= 0);
	for (uint32_t n = 0;; n++) {
		CHECK(raw_status(fd, n % LOCKS, &status) == 0);
		call_at_random(fd, 6, 0, 0, 0);
		CHECK(raw_ioctl(fd, KLOCK_IOC_LIST_SPACES, &spaces) > 0);
	}
}

#define ATTACKERS	4

/* How often in a second two processes of the victim get the lock that both want. */
static uint64_t rounds(const char *name, work_fn *attack)
{
	atomic_ulong *done = shared(sizeof(*done));
	pid_t pid[ATTACKERS + 2];
	uint64_t begin, ns, n;
	int i;

	for (i = 0; i < ATTACKERS + 2; i++) {
		pid[i] = spawn_as(i < ATTACKERS ? EVIL : VICTIM);
		if (pid[i])
			continue;
		if (i < ATTACKERS) {
			attack(name);
		} else {
			int fd = raw_attach(name, 0, 0);

			for (;; ++*done)
				CHECK(raw_lock(fd, 0, 0, 0) >= 0 && raw_unlock(fd, 0) == 0);
		}
	}
	UNTIL(*done > 10);
	begin = now_ns(CLOCK_MONOTONIC);
	n = *done;
	while (now_ns(CLOCK_MONOTONIC) < begin + NSEC_PER_SEC * slowness())
		nap();
	n = *done - n;
	ns = now_ns(CLOCK_MONOTONIC) - begin;
	for (i = 0; i < ATTACKERS + 2; i++)
		slay(pid[i]);
	munmap((void *)done, sizeof(*done));
	return n * NSEC_PER_SEC / ns;
}

/* Those who look at a lock all the time cost its users processor time, and no more. */
TEST_F_TIMEOUT(load, who_looks_delays_nobody, 60)
{
	int fd = make_by(&self->victim, self->name, LOCKS, 0644), i = 0;
	uint64_t without, with;

	ASSERT_LE(0, fd);
	do {	/* Another VM may come or go between the two. */
		without = rounds(self->name, burn);
		with = rounds(self->name, look_on);
	} while ((!with || with < without / 10) && ++i < 5);
	TH_LOG("%ju rounds a second beside %d who compute, %ju beside %d who look",
	       (uintmax_t)without, ATTACKERS, (uintmax_t)with, ATTACKERS);
	EXPECT_LT(0, with);
	EXPECT_LE(without / 10, with);
}

static void stare(const char *name)
{
	int fd = attach_to(VICTIM, name, KLOCK_ATTACH_READONLY);
	struct klock_ioc_status status;

	CHECK(fd >= 0);
	for (;;)
		raw_status(fd, LOCKS - 1, &status);
}

/* Who looks at a lock keeps nobody from shrinking it away. */
TEST_F(load, who_looks_keeps_no_lock)
{
	struct agent waiter = user(VICTIM);
	int fd = make_by(&self->victim, self->name, LOCKS, 0644);
	int fd2 = open_by(&waiter, self->name, 0), round, i;
	int watch = attach_to(VICTIM, self->name, 0);
	pid_t pid[2 * ATTACKERS];

	ASSERT_LE(0, fd);
	ASSERT_LE(0, fd2);
	for (i = 0; i < 2 * ATTACKERS; i++) {
		pid[i] = spawn_as(EVIL);
		if (!pid[i])
			stare(self->name);
	}
	for (round = 0; round < fewer(60) + 10; round++) {
		ASSERT_EQ(0, lock_by(&self->victim, fd, LOCKS - 1, 0));
		tell_lock(&waiter, fd2, LOCKS - 1);
		ASSERT_TRUE(UNTIL(waiters_at(watch, LOCKS - 1) == 1));
		ASSERT_EQ(0, unlock_by(&self->victim, fd, LOCKS - 1));
		ASSERT_EQ(0, answer(&waiter, NULL, 0));
		ASSERT_EQ(0, unlock_by(&waiter, fd2, LOCKS - 1));
		ASSERT_EQ(0, resize_by(&self->victim, fd, LOCKS - 1)) TH_LOG("round %d", round);
		ASSERT_EQ(0, resize_by(&self->victim, fd, LOCKS));
	}
	for (i = 0; i < 2 * ATTACKERS; i++) {
		EXPECT_EQ(-SIGKILL, slay_soon(pid[i]));
	}
	close(watch);
}

/*
 * Errorcheck threads that wait for each other in a chain
 */

#define CHAIN	2000
#define SHORT	1100		/* little above the bound on a search */

struct chain {
	int fd;
	atomic_uint held;
	atomic_bool failed;
	pthread_barrier_t complete;
};

static struct chain *chain;

/*
 * Takes its lock, and waits for the next, which is held, but for the last of them.  The first
 * of them wait first, so that each looks at one, not at all of the chain.
 */
static void *be_link(void *arg)
{
	uint32_t id = (uintptr_t)arg;

	chain->failed |= raw_lock(chain->fd, id, 0, 0) != 0;
	chain->held++;
	pthread_barrier_wait(&chain->complete);
	for (;;) {
		if (id < CHAIN - 1)
			raw_lock(chain->fd, id + 1, 0, 0);
		pause();
	}
	return NULL;
}

/* The hostile user's: a process that is a chain of waiting threads. */
static pid_t make_chain(const char *name)
{
	struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	pthread_attr_t attr;
	pthread_t thread;
	uint32_t id;
	pid_t pid;

	chain = shared(sizeof(*chain));
	setrlimit(RLIMIT_NPROC, &none);
	pid = spawn_as(EVIL);
	if (pid)
		return pid;
	chain->fd = raw_attach(name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_ERRORCHECK, CHAIN);
	CHECK(chain->fd >= 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	pthread_barrier_init(&chain->complete, NULL, CHAIN);
	for (id = 0; id < CHAIN; id++)
		CHECK(!pthread_create(&thread, &attr, be_link, (void *)(uintptr_t)id));
	for (;;)
		pause();
}

/* What it takes at least to ask for lock @id, in ns: the search for a cycle, and little more. */
static void ask(int fd, uint32_t id, uint64_t *least)
{
	uint64_t ns = now_ns(CLOCK_MONOTONIC);

	CHECK(raw_lock(fd, id, KLOCK_LOCK_DEADLINE, 1) == -ETIMEDOUT);
	ns = now_ns(CLOCK_MONOTONIC) - ns;
	*least = ns < *least ? ns : *least;
}

/* The one mutex that all errorcheck clients share is held for so long, and no longer. */
TEST_F_TIMEOUT(load, a_long_chain_delays_nobody, 120)
{
	uint64_t shorter = UINT64_MAX, longer = UINT64_MAX, begin, end, worst = 0;
	pid_t pid = make_chain(self->name), asking[ATTACKERS];
	unsigned int held;
	int fd, own, i;

	while (chain->held < CHAIN) {
		held = chain->held;
		ASSERT_TRUE(UNTIL(chain->held > held));
	}
	fd = attach_to(EVIL, self->name, KLOCK_ATTACH_ERRORCHECK);
	ASSERT_LE(0, fd);
	/* A wait is counted when it can be found by a search, which is later than it is one. */
	ASSERT_TRUE(UNTIL(raw_info(fd).waits == CHAIN - 1));
	ASSERT_EQ(CHAIN - 1, raw_info(fd).waiting);
	ASSERT_FALSE(chain->failed);
	/* By turns: others use the processors now more and now less, which only ever adds. */
	for (i = 0; i < 200 || (i < 5000 && longer >= shorter * 3 / 2); i++) {
		ask(fd, CHAIN - SHORT, &shorter);
		ask(fd, 0, &longer);
	}
	EXPECT_LT(longer, shorter * 3 / 2);

	for (i = 0; i < ATTACKERS; i++) {
		asking[i] = spawn_as(EVIL);
		while (!asking[i])
			raw_lock(fd, 0, KLOCK_LOCK_DEADLINE, 1);
	}
	own = attach_to(VICTIM, self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_ERRORCHECK);
	ASSERT_LE(0, own);
	end = now_ns(CLOCK_MONOTONIC) + 5 * NSEC_PER_SEC;
	for (i = 0; i < 5 || (i < 100 && now_ns(CLOCK_MONOTONIC) < end); i++) {
		begin = now_ns(CLOCK_MONOTONIC);
		ASSERT_EQ(0, raw_lock(own, 1, 0, 0));
		ASSERT_EQ(0, raw_unlock(own, 1));
		begin = now_ns(CLOCK_MONOTONIC) - begin;
		worst = begin > worst ? begin : worst;
	}
	TH_LOG("a search of %d: %ju us, of %d: %ju us; of %d others' calls the worst: %ju us",
	       SHORT, (uintmax_t)shorter / 1000, CHAIN, (uintmax_t)longer / 1000, i,
	       (uintmax_t)worst / 1000);
	EXPECT_GT(NSEC_PER_SEC * patience(), worst);
	for (i = 0; i < ATTACKERS; i++) {
		EXPECT_EQ(-SIGKILL, slay_soon(asking[i]));
	}
	EXPECT_EQ(-SIGKILL, slay_soon(pid));
	close(own);
	close(fd);
}

/*
 * A memory cgroup that slows down who is in it
 */

#define CAGE		CGROUPS "klock-hostile/"

/* Whether there are memory cgroups here; then there is an empty one. */
static bool make_cage(void)
{
	if (access(CGROUPS "cgroup.controllers", F_OK) ||
	    !write_file(CGROUPS "cgroup.subtree_control", "+memory"))
		return false;
	rmdir(CAGE);
	return !mkdir(CAGE, 0755) && !access(CAGE "memory.high", F_OK);
}

static bool cage(pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return write_file(CAGE "cgroup.procs", text);
}

FIXTURE(caged) {
	bool able;		/* else it is to be skipped */
	char name[KLOCK_NAME_SIZE];
	struct agent evil, victim;
	int log;
};

FIXTURE_SETUP(caged)
{
	struct rlimit files = { 8192, 8192 };

	self->able = make_cage();
	if (!self->able)
		return;
	SPACE_NAME(self->name);
	self->log = open_log();
	setrlimit(RLIMIT_NOFILE, &files);
	self->evil = user(EVIL);
	self->victim = user(VICTIM);
	ASSERT_TRUE(cage(self->evil.pid));
}

FIXTURE_TEARDOWN(caged)
{
	dismiss_all();
	raze();
	EXPECT_TRUE(!self->able || UNTIL(!rmdir(CAGE)));
	EXPECT_FALSE(self->able && is_logged(self->log));
}

/* He begins to make a large table, and is slowed down by his cgroup in the middle of it. */
static void begin_slowly(struct __test_metadata *_metadata, FIXTURE_DATA(caged) *self,
			 unsigned long number, int fd, const void *arg, size_t size)
{
	ASSERT_TRUE(write_file(CAGE "memory.high", "1048576"));
	tell(&self->evil, number == KLOCK_IOC_ATTACH ? do_attach : do_ioctl, fd, number, arg, size);
	ASSERT_TRUE(UNTIL(get_number(CAGE "memory.current", "") > (3 << 20)));
}

/*
 * A space that takes long to be made keeps nobody from making one, and from the list of all,
 * in which it is not yet.
 */
TEST_F_TIMEOUT(caged, who_makes_a_space_slowly_delays_nobody, 60)
{
	struct klock_ioc_attach attach = named("slow", KLOCK_ATTACH_CREATE);
	struct order order = { .arg = "slow" };
	struct klock_ioc_info info;
	int fd;

	if (!self->able)
		SKIP(return, "no memory cgroups");
	attach.capacity = KLOCK_CAPACITY_MAX;
	begin_slowly(_metadata, self, KLOCK_IOC_ATTACH, -1, &attach, sizeof(attach));
	fd = make_by(&self->victim, self->name, LOCKS, 0600);
	EXPECT_LE(0, fd);
	EXPECT_EQ(0, lock_by(&self->victim, fd, 1, 0));
	EXPECT_EQ(0, resize_by(&self->victim, fd, 2 * LOCKS));
	EXPECT_EQ(1, find_by(&self->victim, self->name, &info));
	EXPECT_EQ(VICTIM, info.uid);
	EXPECT_EQ(0, close_by(&self->victim, fd));
	EXPECT_EQ(0, remove_by(&self->victim, self->name, 0, 0));
	EXPECT_EQ(0, do_find(&order));
	EXPECT_EQ(-SIGKILL, slay_soon(self->evil.pid));
	EXPECT_EQ(0, do_find(&order));
}

/* A space that takes long to grow keeps nobody who is in it from leaving. */
TEST_F_TIMEOUT(caged, who_grows_a_space_slowly_keeps_nobody, 60)
{
	struct klock_ioc_resize resize = { .capacity = KLOCK_CAPACITY_MAX };
	int fd, theirs, watch;

	if (!self->able)
		SKIP(return, "no memory cgroups");
	fd = make_by(&self->evil, self->name, LOCKS, 0666);
	ASSERT_LE(0, fd);
	watch = attach_to(EVIL, self->name, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, watch);
	theirs = open_uid_by(&self->victim, EVIL, self->name, 0);
	ASSERT_LE(0, theirs);
	EXPECT_EQ(0, lock_by(&self->victim, theirs, 1, 0));
	begin_slowly(_metadata, self, KLOCK_IOC_RESIZE, fd, &resize, sizeof(resize));
	EXPECT_EQ(0, unlock_by(&self->victim, theirs, 1));
	EXPECT_EQ(0, lock_by(&self->victim, theirs, 2, 0));
	EXPECT_EQ(0, close_by(&self->victim, theirs));
	EXPECT_EQ(LOCKS, raw_info(watch).capacity);
	EXPECT_EQ(-SIGKILL, slay_soon(self->evil.pid));
	EXPECT_EQ(LOCKS, raw_info(watch).capacity);
	close(watch);
}

struct opener {
	char name[KLOCK_NAME_SIZE + 12];
	atomic_int tid;
	atomic_bool back;
};

static void *open_his(void *arg)
{
	struct opener *opener = arg;
	struct klock_space *space;

	opener->tid = gettid();
	klock_space_open(opener->name, 0, NULL, &space);
	opener->back = true;
	return NULL;
}

/* One thread waits for the hostile user's space, as it asked for; the others do what they do. */
static void go_on_beside(const char *name)
{
	static struct opener opener;
	struct klock_space *own;
	struct klock *lock;
	pthread_t thread;
	int status;
	pid_t pid;

	snprintf(opener.name, sizeof(opener.name), "%d/%s", EVIL, name);
	CHECK(klock_space_open(name, KLOCK_CREATE, NULL, &own) == 0);
	CHECK(!pthread_create(&thread, NULL, open_his, &opener));
	CHECK(UNTIL(opener.tid && state_of(getpid(), opener.tid) == 'D'));
	pid = fork();
	if (pid == 0) {
		CHECK(find_descriptor("/dev/klock") < 0);
		CHECK(klock_retrieve(own, 1, 0, &lock) == 0 && klock_lock(lock) == 0);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	klock_space_close(own);
	CHECK(klock_space_open(name, 0, NULL, &own) == 0);
	CHECK(!opener.back);
	_exit(0);
}

/* Who attaches to a space that takes long to grow waits for that, by one thread. */
TEST_F_TIMEOUT(caged, who_grows_a_space_slowly_keeps_no_fork, 60)
{
	struct klock_ioc_resize resize = { .capacity = KLOCK_CAPACITY_MAX };
	pid_t pid;
	int fd;

	if (!self->able)
		SKIP(return, "no memory cgroups");
	fd = make_by(&self->evil, self->name, LOCKS, 0666);
	ASSERT_LE(0, fd);
	begin_slowly(_metadata, self, KLOCK_IOC_RESIZE, fd, &resize, sizeof(resize));
	pid = spawn_as(VICTIM);
	if (pid == 0)
		go_on_beside(self->name);
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(-SIGKILL, slay_soon(self->evil.pid));
}

static void on_signal(int sig __attribute__((unused))) {}

/* A call that waits for as long as it takes is ended by a signal. */
static void expect_interrupted(struct __test_metadata *_metadata, int fd, uint32_t id)
{
	struct sigaction action = { .sa_handler = on_signal };
	int status = -1;
	pid_t pid;

	sigaction(SIGUSR1, &action, NULL);
	pid = spawn();
	if (!pid)
		_exit(raw_lock(fd, id, 0, 0) != -EINTR);
	EXPECT_TRUE(UNTIL(!kill(pid, SIGUSR1) && waitpid(pid, &status, WNOHANG) == pid));
	EXPECT_EQ(0, status);
}

/*
 * Who makes a lock look as if it was not there, and keeps others from finding out by a
 * resize that is slow, is not waited for by who will not wait, nor after a deadline.
 */
TEST_F_TIMEOUT(caged, who_hides_a_lock_slowly_is_not_waited_for, 60)
{
	struct klock_ioc_resize resize = { .capacity = KLOCK_CAPACITY_MAX };
	int fd, theirs[2], i;
	struct mapper m;

	if (!self->able)
		SKIP(return, "no memory cgroups");
	if (!words_can_be_mapped())
		SKIP(return, "words cannot be mapped here");
	fd = make_mappable_by(&self->evil, self->name);
	ASSERT_LE(0, fd);
	ASSERT_TRUE(map_client(&m, attach_to(EVIL, self->name, 0)));
	for (i = 0; i < 2; i++) {
		theirs[i] = open_uid_by(&self->victim, EVIL, self->name,
					i ? KLOCK_ATTACH_ERRORCHECK : 0);
		ASSERT_LE(0, theirs[i]);
	}
	m.words[1] = KLOCK_WORD_NONE;
	begin_slowly(_metadata, self, KLOCK_IOC_RESIZE, fd, &resize, sizeof(resize));
	for (i = 0; i < 2; i++) {
		struct klock_ioc_lock until = {
			.id = 1, .flags = KLOCK_LOCK_DEADLINE,
			.deadline = now_ns(CLOCK_MONOTONIC) + 3 * NSEC_PER_MSEC,
		};
		struct klock_ioc_lock real = {
			.id = 1, .flags = KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME,
			.deadline = now_ns(CLOCK_REALTIME) + 3 * NSEC_PER_MSEC,
		};

		EXPECT_EQ(-EBUSY, lock_by(&self->victim, theirs[i], 1, KLOCK_LOCK_TRY));
		EXPECT_EQ(-ETIMEDOUT, ioctl_by(&self->victim, theirs[i], KLOCK_IOC_LOCK, &until));
		EXPECT_EQ(-ETIMEDOUT, ioctl_by(&self->victim, theirs[i], KLOCK_IOC_LOCK, &real));
	}
	expect_interrupted(_metadata, m.fd, 1);
	EXPECT_EQ(-SIGKILL, slay_soon(self->evil.pid));
	EXPECT_EQ(0, lock_by(&self->victim, theirs[0], 1, 0));
	unmap_space(&m);
}

/* ---------------------------------------------------------------- memory */

#define CLIENTS	3000
#define WAITERS	200

#define KMEMLEAK	"/sys/kernel/slab/kmemleak_object/"

static void *wait_there(void *arg)
{
	raw_lock((uintptr_t)arg, 0, 0, 0);
	return NULL;
}

/* In the agent: clients of a space of his, some of which wait. */
static int do_crowd(struct order *order)
{
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	for (i = 0; i < CLIENTS; i++) {
		int fd = raw_attach(order->arg, KLOCK_ATTACH_CREATE, LOCKS);

		if (fd < 0 || (i == 0 && raw_lock(fd, 0, 0, 0)))
			return fd;
		if (i && i <= WAITERS &&
		    pthread_create(&thread, &attr, wait_there, (void *)(uintptr_t)fd))
			return -EAGAIN;
	}
	return 0;
}

static long charged_bytes(void)
{
	return get_number(CAGE "memory.stat", "slab_unreclaimable ");
}

/* What all slabs take, but for what kmemleak notes of each object: that is charged to nobody. */
static long slab_bytes(void)
{
	long bytes = get_number("/proc/meminfo", "SUnreclaim:") * 1024;

	if (!access(KMEMLEAK "slabs", F_OK))
		bytes -= get_number(KMEMLEAK "slabs", "") *
			 (sysconf(_SC_PAGESIZE) << get_number(KMEMLEAK "order", ""));
	return bytes;
}

/* What clients and waiters take of the kernel's memory is in the cgroup of who made them. */
TEST_F_TIMEOUT(caged, clients_and_waiters_are_in_his_memory_cgroup, 60)
{
	long charged = charged_bytes();
	long used = slab_bytes();
	int watch;

	if (!self->able)
		SKIP(return, "no memory cgroups");
	tell(&self->evil, do_crowd, -1, 0, self->name, sizeof(self->name));
	ASSERT_EQ(0, answer(&self->evil, NULL, 0));
	watch = attach_to(EVIL, self->name, KLOCK_ATTACH_READONLY);
	ASSERT_TRUE(UNTIL(waiters_at(watch, 0) == WAITERS));
	EXPECT_EQ(CLIENTS + 1, raw_info(watch).clients);
	used = slab_bytes() - used;
	EXPECT_LT(CLIENTS * 512, used);
	EXPECT_TRUE(UNTIL(charged_bytes() - charged >= used / 10 * 8));
	TH_LOG("%d clients and %d waiters: %ld KiB of slabs, %ld KiB in the cgroup", CLIENTS,
	       WAITERS, used / 1024, (charged_bytes() - charged) / 1024);
	close(watch);
}

/*
 * Quotas, in each way to have more that he could think of
 */

FIXTURE(quota) {
	char name[4][KLOCK_NAME_SIZE];
	struct agent evil;
	unsigned long spaces, locks;
};

FIXTURE_SETUP(quota)
{
	self->spaces = get_quota(MAX_SPACES_PER_USER);
	self->locks = get_quota(MAX_LOCKS_PER_USER);
	for (int i = 0; i < 4; i++)
		snprintf(self->name[i], KLOCK_NAME_SIZE, "%d-%s", i, _metadata->name);
	self->evil = user(EVIL);
	ASSERT_TRUE(set_quota(MAX_SPACES_PER_USER, 2));
	ASSERT_TRUE(set_quota(MAX_LOCKS_PER_USER, 1000));
}

FIXTURE_TEARDOWN(quota)
{
	dismiss_all();
	raze();
	EXPECT_TRUE(set_quota(MAX_SPACES_PER_USER, self->spaces));
	EXPECT_TRUE(set_quota(MAX_LOCKS_PER_USER, self->locks));
}

/* Tries to keep the page that is mapped at the address in the order, in a pipe. */
static int do_pin(struct order *order)
{
	struct iovec iov = { .iov_len = 4096 };
	int pipes[2], ret;

	memcpy(&iov.iov_base, order->arg, sizeof(iov.iov_base));
	if (*(volatile uint64_t *)iov.iov_base || pipe(pipes))	/* it is there */
		return -EIO;
	ret = vmsplice(pipes[1], &iov, 1, 0);
	return ret < 0 ? -errno : ret;
}

/* The agent unmaps what is in the order. */
static int do_unmap(struct order *order)
{
	void *mem;

	memcpy(&mem, order->arg, sizeof(mem));
	return munmap(mem, 4096) ? -errno : 0;
}

/* What is removed and kept, by client, descriptor or mapping, counts; a pipe keeps nothing. */
TEST_F(quota, what_is_kept_counts)
{
	struct order order = { .fd = -1 };
	int fd, space_fd;

	if (!words_can_be_mapped())
		SKIP(return, "words cannot be mapped here");
	ASSERT_LE(0, make_by(&self->evil, self->name[0], 1, 0));
	fd = make_by(&self->evil, self->name[1], 1, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[2], 1, 0));
	space_fd = space_fd_by(&self->evil, fd);
	ASSERT_LE(0, space_fd);
	tell(&self->evil, do_map, space_fd, PROT_READ | PROT_WRITE, NULL, 0);
	ASSERT_EQ(0, answer(&self->evil, order.arg, sizeof(order.arg)));
	tell(&self->evil, do_pin, -1, 0, order.arg, sizeof(order.arg));
	EXPECT_EQ(-EFAULT, answer(&self->evil, NULL, 0));
	EXPECT_EQ(0, remove_by(&self->evil, self->name[1], KLOCK_REMOVE_FORCE, 0));
	EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[2], 1, 0));
	EXPECT_EQ(0, close_by(&self->evil, fd));
	EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[2], 1, 0));
	EXPECT_EQ(0, close_by(&self->evil, space_fd));
	EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[2], 1, 0));
	tell(&self->evil, do_unmap, -1, 0, order.arg, sizeof(order.arg));
	EXPECT_EQ(0, answer(&self->evil, NULL, 0));
	EXPECT_LE(0, make_by(&self->evil, self->name[2], 1, 0));
	EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[3], 1, 0));
}

/* A table that shrank has still its pages, and counts for the most that it ever was. */
TEST_F(quota, what_shrank_counts)
{
	int fd = make_by(&self->evil, self->name[0], 600, 0), i;

	ASSERT_LE(0, fd);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-EDQUOT, resize_by(&self->evil, fd, 1001));
		EXPECT_EQ(0, resize_by(&self->evil, fd, 1000));
		EXPECT_EQ(0, resize_by(&self->evil, fd, 1));
		EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[1], 1, 0));
	}
	EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[1], 1, 0666));
	EXPECT_EQ(-EDQUOT, make_by(&self->evil, self->name[1], 0, 0));
}

/* ---------------------------------------------------------------- calls that do not end */

/* What the hostile user's own processes do when they are killed; *begun says that they do it. */
typedef void sink_fn(const char *name, atomic_uint *begun);

static void wait_for_himself(const char *name, atomic_uint *begun)
{
	CHECK(raw_lock(raw_attach(name, 0, 0), 0, 0, 0) >= 0);
	*begun = 1;
	raw_lock(raw_attach(name, 0, 0), 0, 0, 0);
}

/* Has all locks there can be; the last close is still to come. */
static void hold_all(const char *name, atomic_uint *begun)
{
	struct mapper m;

	CHECK(map_space(&m, name, 0, 0));
	for (uint32_t id = 0; id < KLOCK_CAPACITY_MAX; id++)
		m.words[id] = m.token;
	*begun = 1;
	for (;;)
		pause();
}

/* All of them are of a dead holder then. */
static void list_all(const char *name, atomic_uint *begun)
{
	struct klock_ioc_list list = {
		.count = UINT32_MAX, .entry_size = sizeof(struct klock_ioc_status),
	};
	size_t size = KLOCK_CAPACITY_MAX * sizeof(struct klock_ioc_status);
	int fd = raw_attach(name, KLOCK_ATTACH_READONLY, 0);

	list.entries = (uintptr_t)mmap(NULL, size, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (;; ++*begun)
		CHECK(raw_ioctl(fd, KLOCK_IOC_LIST, &list) == KLOCK_CAPACITY_MAX);
}

/* Long entries, until memory ends. */
static void list_entries_of_a_page(const char *name, atomic_uint *begun)
{
	struct klock_ioc_list list = { .count = UINT32_MAX, .entry_size = 4096 };
	size_t size = 64 << 20;
	int fd = raw_attach(name, KLOCK_ATTACH_READONLY, 0);
	void *mem = mmap(NULL, size + 4096, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(!mprotect(mem, size, PROT_READ | PROT_WRITE));
	list.entries = (uintptr_t)mem;
	for (;; ++*begun)
		CHECK(raw_ioctl(fd, KLOCK_IOC_LIST, &list) == -EFAULT);
}

static void count_all(const char *name, atomic_uint *begun)
{
	int fd = raw_attach(name, KLOCK_ATTACH_READONLY, 0);

	for (;; ++*begun)
		raw_info(fd);
}

static void list_spaces(const char *name, atomic_uint *begun)
{
	static struct klock_ioc_info info[256];
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)info, .count = 256, .entry_size = sizeof(info[0]),
	};
	int fd = raw_attach(name, KLOCK_ATTACH_READONLY, 0);

	for (;; ++*begun)
		CHECK(raw_ioctl(fd, KLOCK_IOC_LIST_SPACES, &spaces) > 0);
}

/* Of who has touched all locks; a holder of as many as the line has room for. */
static void read_fdinfo(const char *name, atomic_uint *begun)
{
	struct mapper m;
	char path[64], text[4096];
	int fd;

	CHECK(map_space(&m, name, 0, 0));
	for (uint32_t id = 0; id < KLOCK_CAPACITY_MAX; id++)
		m.words[id] = m.token;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", m.fd);
	for (;; ++*begun) {
		fd = open(path, O_RDONLY);
		CHECK(fd >= 0 && read(fd, text, sizeof(text)) > 0);
		close(fd);
	}
}

static void break_all(const char *name, atomic_uint *begun)
{
	int other = raw_attach(name, 0, 0), fd = raw_attach(name, 0, 0);

	for (;; ++*begun) {
		for (uint32_t id = 0; id < LOCKS; id++)
			CHECK(raw_lock(other, id, KLOCK_LOCK_TRY, 0) >= 0);
		for (uint32_t id = 0; id < LOCKS; id++)
			CHECK(raw_break(fd, id, 0) == 0);
	}
}

/* The highest id, so that there are all pages to look through. */
static void free_all(const char *name, atomic_uint *begun)
{
	int fd = raw_attach(name, 0, 0);

	for (;; ++*begun) {
		struct klock_ioc_allocate allocate = {
			.flags = KLOCK_ALLOCATE_ID, .id = KLOCK_CAPACITY_MAX - 1,
		};
		struct klock_ioc_id all = {};

		CHECK(raw_ioctl(fd, KLOCK_IOC_ALLOCATE, &allocate) == KLOCK_CAPACITY_MAX - 1);
		CHECK(raw_ioctl(fd, KLOCK_IOC_FREE_ALL, &all) == 0);
	}
}

static void grow_and_shrink(const char *name, atomic_uint *begun)
{
	int fd = raw_attach(name, 0, 0);

	for (;; ++*begun) {
		raw_resize(fd, 1);
		CHECK(raw_resize(fd, KLOCK_CAPACITY_MAX) == 0);
	}
}

static void make_and_remove(const char *name, atomic_uint *begun)
{
	char other[KLOCK_NAME_SIZE];

	snprintf(other, sizeof(other), "o-%.60s", name);
	for (;; ++*begun) {
		close(raw_attach(other, KLOCK_ATTACH_CREATE, KLOCK_CAPACITY_MAX / 2));
		CHECK(raw_remove(other, 0) == 0);
	}
}

static const struct {
	const char *what;
	sink_fn *fn;
} sinks[] = {
	{ "wait_for_himself", wait_for_himself },
	{ "hold_all", hold_all },
	{ "list_all", list_all },
	{ "list_entries_of_a_page", list_entries_of_a_page },
	{ "count_all", count_all },
	{ "list_spaces", list_spaces },
	{ "read_fdinfo", read_fdinfo },
	{ "break_all", break_all },
	{ "free_all", free_all },
	{ "grow_and_shrink", grow_and_shrink },
	{ "make_and_remove", make_and_remove },
};

/* The largest there can be, and as many small ones as he may have. */
static void make_most(const char *name)
{
	struct klock_ioc_attach attach = named(name, KLOCK_ATTACH_CREATE);
	char other[KLOCK_NAME_SIZE];
	int i;

	CHECK(raw_attach(name, KLOCK_ATTACH_CREATE, KLOCK_CAPACITY_MAX) >= 0);
	for (i = 0; i < 100; i++) {
		snprintf(other, sizeof(other), "%d-%.50s", i, attach.name);
		CHECK(raw_attach(other, KLOCK_ATTACH_CREATE, 1024) >= 0);
	}
}

/* SIGKILL ends them, wherever they are, and soon. */
TEST_F_TIMEOUT(load, who_is_killed_is_gone, 200)
{
	atomic_uint *begun = shared(sizeof(*begun));
	uint64_t begin;
	unsigned int i;
	pid_t pid;

	if (!words_can_be_mapped())
		SKIP(return, "words cannot be mapped here");
	pid = spawn_as(EVIL);
	if (pid == 0) {
		make_most(self->name);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	for (i = 0; i < ARRAY_SIZE(sinks); i++) {
		*begun = 0;
		pid = spawn_as(EVIL);
		if (pid == 0) {
			sinks[i].fn(self->name, begun);
			_exit(0);
		}
		EXPECT_TRUE(UNTIL(*begun)) {
			TH_LOG("%s", sinks[i].what);
		}
		nap();
		begin = now_ns(CLOCK_MONOTONIC);
		EXPECT_EQ(-SIGKILL, slay_soon(pid)) TH_LOG("%s", sinks[i].what);
		TH_LOG("%s: killed in %ju us", sinks[i].what,
		       (uintmax_t)(now_ns(CLOCK_MONOTONIC) - begin) / 1000);
	}
	munmap((void *)begun, sizeof(*begun));
}

/*
 * Words that are scribbled on at full speed, in a space that the victim shares on purpose
 */

#define SCRIBBLERS	4
#define CALLERS		2

struct storm {
	atomic_bool go;
	atomic_ulong scribbled;
	struct caller evil[SCRIBBLERS];
	struct caller victim[CALLERS];
	struct caller aside;		/* in a private space */
};

struct scribbler {
	struct storm *storm;
	struct mapper m;
	uint32_t token;		/* of the victim */
	uint32_t me;
};

static void *scribble(void *arg)
{
	const struct scribbler *s = arg;
	uint64_t word[] = {
		0, s->m.token, s->token, KLOCK_WORD_NONE, 12345, KLOCK_WORD_DIED,
		KLOCK_WORD_WAITERS, s->token | KLOCK_WORD_WAITERS, ~0ULL,
		s->token | KLOCK_WORD_DIED | 1ULL << KLOCK_WORD_TID_SHIFT,
	};
	uint32_t seed = s->me + 1, n;

	for (n = 0;; n++) {
		s->m.words[n % LOCKS] = word[rnd(&seed) % ARRAY_SIZE(word)];
		if (n % 4096 == 0)
			s->storm->scribbled++;
	}
	return NULL;
}

/* One more client each time, which is closed as it is, but for a few calls. */
static void call_for_ever(struct caller *me, uid_t owner, const char *name, bool is_owner)
{
	uint32_t seed = now_ns(CLOCK_MONOTONIC) | 1, x;
	int fd = -1;

	for (;; me->calls++) {
		me->since = now_ns(CLOCK_MONOTONIC);
		if (me->calls % 8 == 0) {
			me->what = 9;
			close(fd);
			fd = attach_to(owner, name, 0);
			if (fd < 0)
				return;		/* it is removed */
		}
		x = rnd(&seed);
		me->what = x % (is_owner ? 9 : 7);
		call_at_random(fd, me->what, x / 16 % LOCKS, x / 256, LOCKS - x / 4096 % 3);
		me->since = 0;
	}
}

static void *lock_and_close(void *arg)
{
	struct scribbler *s = arg;
	char name[KLOCK_NAME_SIZE];

	memcpy(name, raw_info(s->m.fd).name, sizeof(name));
	call_for_ever(&s->storm->evil[s->me], VICTIM, name, false);
	s->storm->evil[s->me].since = 0;
	return NULL;
}

/* Eight threads of one process: four write, four lock and close. */
static void rage(struct storm *storm, const char *name, uint32_t token)
{
	static struct scribbler s[SCRIBBLERS];
	pthread_t thread;

	for (uint32_t i = 0; i < SCRIBBLERS; i++) {
		s[i] = (struct scribbler) { .storm = storm, .token = token, .me = i };
		CHECK(map_client(&s[i].m, attach_to(VICTIM, name, 0)));
		CHECK(!pthread_create(&thread, NULL, lock_and_close, &s[i]));
		CHECK(!pthread_create(&thread, NULL, scribble, &s[i]));
	}
	storm->go = true;
	for (;;)
		pause();
}

/* Those who have nothing to do with it lock as ever. */
static void stand_aside(struct caller *me, const char *name)
{
	int fd = raw_attach(name, KLOCK_ATTACH_CREATE, LOCKS);

	CHECK(fd >= 0);
	for (;; me->calls++) {
		me->since = now_ns(CLOCK_MONOTONIC);
		CHECK(raw_lock(fd, me->calls % LOCKS, 0, 0) == 0);
		CHECK(raw_lock(fd, me->calls % LOCKS, KLOCK_LOCK_TRY, 0) == -EBUSY);
		CHECK(raw_unlock(fd, me->calls % LOCKS) == 0);
		me->since = 0;
	}
}

static uint32_t token_by(const struct agent *agent, int fd)
{
	struct klock_ioc_space_fd arg = {};

	return ioctl_by(agent, fd, KLOCK_IOC_SPACE_FD, &arg) < 0 ? 0 : arg.token;
}

static void expect_no_hang(struct __test_metadata *_metadata, struct storm *storm)
{
	struct caller *all = storm->evil;	/* and those behind it */

	for (unsigned int i = 0; i < SCRIBBLERS + CALLERS + 1; i++) {
		ASSERT_FALSE(hangs(&all[i])) TH_LOG("caller %u in call %u", i, all[i].what);
	}
}

/* Every call ends, the victim's too; kills work, closes end, and so does the space. */
TEST_F_TIMEOUT(load, who_scribbles_stops_nobody, 120)
{
	struct storm *storm = shared(sizeof(*storm));
	char private[KLOCK_NAME_SIZE];
	pid_t raging, victim[CALLERS], aside;
	uint64_t end;
	uint32_t token;
	int fd, i;

	if (!words_can_be_mapped())
		SKIP(return, "words cannot be mapped here");
	fd = make_mappable_by(&self->victim, self->name);
	ASSERT_LE(0, fd);
	token = token_by(&self->victim, fd);
	ASSERT_NE(0, token);
	raging = spawn_as(EVIL);
	if (!raging)
		rage(storm, self->name, token);
	snprintf(private, sizeof(private), "p-%.60s", self->name);
	aside = spawn_as(VICTIM);
	if (!aside)
		stand_aside(&storm->aside, private);
	for (i = 0; i < CALLERS; i++) {
		victim[i] = spawn_as(VICTIM);
		if (!victim[i]) {
			call_for_ever(&storm->victim[i], VICTIM, self->name, true);
			_exit(0);
		}
	}
	ASSERT_TRUE(UNTIL(storm->go && storm->scribbled > 10));
	end = now_ns(CLOCK_MONOTONIC) + 3 * NSEC_PER_SEC;
	do {
		pid_t waiter = spawn_as(VICTIM);

		if (!waiter) {
			raw_lock(raw_attach(self->name, 0, 0), 0, 0, 0);
			pause();
		}
		for (i = 0; i < 20; i++)
			nap();
		ASSERT_EQ(-SIGKILL, slay_soon(waiter));
		expect_no_hang(_metadata, storm);
	} while (now_ns(CLOCK_MONOTONIC) < end || storm->victim[0].calls <= 10 ||
		 storm->victim[1].calls <= 10 || storm->aside.calls <= 10);
	TH_LOG("%ju words written; calls: %u and %u of the victim, %u of the other, %u aside",
	       (uintmax_t)storm->scribbled * 4096, storm->victim[0].calls, storm->victim[1].calls,
	       storm->evil[0].calls, storm->aside.calls);
	EXPECT_LT(10, storm->victim[0].calls);
	EXPECT_LT(10, storm->victim[1].calls);
	EXPECT_LT(10, storm->aside.calls);
	/* The victim's own client can be closed, and the space be removed, in the midst of it. */
	EXPECT_EQ(0, close_by(&self->victim, fd));
	EXPECT_EQ(0, remove_by(&self->victim, self->name, KLOCK_REMOVE_FORCE, 0));
	for (i = 0; i < CALLERS; i++) {
		EXPECT_TRUE(UNTIL(waitpid(victim[i], NULL, WNOHANG) == victim[i]));
	}
	expect_no_hang(_metadata, storm);
	EXPECT_EQ(-SIGKILL, slay_soon(raging));
	EXPECT_EQ(-SIGKILL, slay_soon(aside));
	munmap(storm, sizeof(*storm));
}

/* ---------------------------------------------------------------- the kernel's memory */

static const struct {
	const char *name;
	unsigned int number;
} calls[] = {
#define CALL(number) { #number, KLOCK_IOC_##number }
	CALL(GET_API), CALL(SPACE_FD), CALL(INFO), CALL(RESIZE), CALL(REMOVE), CALL(LIST_SPACES),
	CALL(ALLOCATE), CALL(RETRIEVE), CALL(FREE), CALL(FREE_ALL), CALL(LOCK), CALL(UNLOCK),
	CALL(BREAK), CALL(STATUS), CALL(LIST), CALL(WAITERS), CALL(ATTACH),
#undef CALL
};

/* An address of the kernel begins with 16 set bits; nothing that is told does. */
static bool has_address(const char *mem, size_t size)
{
	uint64_t value;

	for (size_t i = 0; i + sizeof(value) <= size; i++) {
		memcpy(&value, mem + i, sizeof(value));
		if (value >> 48 == 0xffff)
			return true;
	}
	return false;
}

static bool is_all(const char *mem, size_t size, char byte)
{
	for (size_t i = 0; i < size; i++)
		if (mem[i] != byte)
			return false;
	return true;
}

/* Random, and so not known. */
static void blot_generation(unsigned int number, char *mem)
{
	if (number == KLOCK_IOC_INFO)
		memset(mem + offsetof(struct klock_ioc_info, generation), 0, 8);
}

/* Each call with a struct that is @more longer than the kernel's, in memory that is poisoned. */
static void call_all(int fd, size_t more)
{
	char mem[1024], before[1024];
	unsigned int i;
	size_t size;
	int ret;

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		unsigned int number = calls[i].number;
		bool reads = _IOC_DIR(number) & _IOC_WRITE, writes = _IOC_DIR(number) & _IOC_READ;

		size = _IOC_SIZE(number) + more;
		POISON(mem);
		if (reads)
			memset(mem, 0, size);
		memcpy(before, mem, sizeof(mem));
		ret = raw_ioctl(fd, _IOC(_IOC_DIR(number), KLOCK_IOC_MAGIC, _IOC_NR(number), size),
				mem);
		/* Those that tell something, and of nothing that was asked for wrongly. */
		CHECK(ret >= 0 || !writes || number == KLOCK_IOC_SPACE_FD);
		CHECK(is_all(mem + size, sizeof(mem) - size, (char)0xa5));
		if (!writes)
			CHECK(!memcmp(mem, before, sizeof(mem)));
		else if (memcmp(mem, before, sizeof(mem)))
			CHECK(is_all(mem + _IOC_SIZE(number), more, 0));
		blot_generation(number, mem);
		CHECK(!has_address(mem, size));
	}
}

/* Arrays whose entries are @more longer than the kernel's. */
static void list_all_kinds(int fd, size_t more)
{
	static const struct {
		unsigned int number;
		size_t size;
	} kinds[] = {
		{ KLOCK_IOC_LIST, sizeof(struct klock_ioc_status) },
		{ KLOCK_IOC_WAITERS, sizeof(struct klock_ioc_waiter) },
		{ KLOCK_IOC_LIST_SPACES, sizeof(struct klock_ioc_info) },
	};
	char mem[8192];
	unsigned int i;
	int n, k;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t size = kinds[i].size + more;
		union {		/* they begin alike */
			struct klock_ioc_list list;
			struct klock_ioc_spaces spaces;
		} args = {
			.spaces.entries = (uintptr_t)mem,
			.spaces.count = sizeof(mem) / size,
			.spaces.entry_size = size,
		};

		if (kinds[i].number == KLOCK_IOC_WAITERS)
			args.list.id = 1;
		POISON(mem);
		n = raw_ioctl(fd, kinds[i].number, &args);
		CHECK(n > 0);
		CHECK(is_all(mem + n * size, sizeof(mem) - n * size, (char)0xa5));
		for (k = 0; k < n; k++) {
			CHECK(is_all(mem + k * size + kinds[i].size, more, 0));
			if (kinds[i].number == KLOCK_IOC_LIST_SPACES)
				blot_generation(KLOCK_IOC_INFO, mem + k * size);
		}
		CHECK(!has_address(mem, n * size));
	}
}

/* Whether all words of the pages that there are say what they should. */
static void read_words(const char *name)
{
	const uint32_t capacity = 512 + LOCKS;
	struct mapper m;
	uint32_t id;

	CHECK(map_space(&m, name, KLOCK_ATTACH_CREATE, capacity));
	for (id = 0; id < 1024; id++)
		CHECK(m.words[id] == (id < capacity ? 0 : KLOCK_WORD_NONE));
	unmap_space(&m);
	CHECK(raw_remove(name, 0) == 0);
}

static void *wait_once(void *arg)
{
	raw_lock((uintptr_t)arg, 1, 0, 0);
	return NULL;
}

/* Whether a line of @path that has @word shows an address: those that are not to be known are 0. */
static bool shows_address(const char *path, const char *word)
{
	FILE *file = fopen(path, "re");
	char line[512];
	bool shown = false;

	while (file && fgets(line, sizeof(line), file))
		shown |= strstr(line, word) && strstr(line, "ffff");
	if (file)
		fclose(file);
	return shown;
}

/* Results are what they are documented to be, and there is nothing else in them. */
TEST_F(load, no_result_tells_of_the_kernels_memory)
{
	pid_t pid = spawn_as(EVIL);

	if (pid == 0) {
		int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, LOCKS);
		int other = raw_attach(self->name, 0, 0);
		char words[KLOCK_NAME_SIZE];
		pthread_t thread;

		CHECK(raw_lock(fd, 1, 0, 0) == 0);
		CHECK(!pthread_create(&thread, NULL, wait_once, (void *)(uintptr_t)other));
		CHECK(UNTIL(waiters_at(fd, 1) == 1));
		for (size_t more = 0; more <= 256; more += 8) {
			list_all_kinds(fd, more);
			other = raw_attach(self->name, 0, 0);
			CHECK(other >= 0);
			call_all(other, more);
			close(other);
			other = open("/dev/klock", O_RDWR | O_CLOEXEC);
			call_all(other, more);
			close(other);
		}
		list_all_kinds(fd, 4096 - sizeof(struct klock_ioc_info));
		snprintf(words, sizeof(words), "w-%.60s", self->name);
		if (words_can_be_mapped())
			read_words(words);
		CHECK(open("/sys/module/klock/sections/.text", O_RDONLY) < 0);
		CHECK(!shows_address("/proc/modules", "klock"));
		CHECK(!shows_address("/proc/kallsyms", "[klock]"));
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
}

/* ---------------------------------------------------------------- namespaces */

/*
 * What he sees from inside of namespaces; there he is root, if they are user namespaces.  The
 * table of it is in SECURITY.md.
 */
FIXTURE(inside) {
	bool able;		/* else it is to be skipped */
	int flags;
	char name[KLOCK_NAME_SIZE];
	struct agent in, out, victim;
	int watch;		/* ours, of the victim's space */
	int pair[2];
	int log;
	unsigned long spaces;
};

FIXTURE_VARIANT(inside) {
	int flags;
	bool users;		/* those of the host have no uid in there, but himself: he is 0 */
	bool pids;		/* processes of the host have no number in there */
};

FIXTURE_VARIANT_ADD(inside, no_namespace) {};
FIXTURE_VARIANT_ADD(inside, user_namespace) { .flags = CLONE_NEWUSER, .users = true };
FIXTURE_VARIANT_ADD(inside, pid_namespace) { .flags = CLONE_NEWPID, .pids = true };
FIXTURE_VARIANT_ADD(inside, ipc_namespace) { .flags = CLONE_NEWIPC };
FIXTURE_VARIANT_ADD(inside, container) {
	.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS |
		 CLONE_NEWNET | CLONE_NEWCGROUP,
	.users = true,
	.pids = true,
};

/* User namespaces he makes himself; other ones need root, without those. */
static void go_inside(const void *arg)
{
	const struct who who = { .uid = EVIL, .gid = EVIL };
	int flags = *(const int *)arg;
	pid_t pid;

	if (!(flags & CLONE_NEWUSER)) {
		CHECK(!unshare(flags));
		become(&who);
	} else {
		become(&who);
		prctl(PR_SET_DUMPABLE, 1);	/* or /proc/self is root's */
		CHECK(!unshare(flags));
		CHECK(write_file("/proc/self/setgroups", "deny"));
		CHECK(write_file("/proc/self/uid_map", "0 65534 1"));
		CHECK(write_file("/proc/self/gid_map", "0 65534 1"));
	}
	if (!(flags & CLONE_NEWPID))
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid)
		_exit(reap(pid));
}

/* Without those that this kernel has not, and that klock has nothing to do with. */
static int possible(int flags)
{
	if (access("/proc/self/ns/uts", F_OK))
		flags &= ~CLONE_NEWUTS;
	if (access("/proc/self/ns/net", F_OK))
		flags &= ~CLONE_NEWNET;
	if (access("/proc/self/ns/cgroup", F_OK))
		flags &= ~CLONE_NEWCGROUP;
	return flags;
}

static bool can_go_inside(const int *flags)
{
	pid_t pid = spawn();

	if (pid == 0) {
		go_inside(flags);
		_exit(0);
	}
	return reap(pid) == 0;
}

FIXTURE_SETUP(inside)
{
	SPACE_NAME(self->name);
	self->log = open_log();
	self->spaces = get_quota(MAX_SPACES_PER_USER);
	self->flags = possible(variant->flags);
	self->able = can_go_inside(&self->flags);
	if (!self->able)
		return;
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, self->pair));
	self->victim = user(VICTIM);
	self->out = user(EVIL);
	self->in = enlist(go_inside, &self->flags);
	ASSERT_LE(0, make_by(&self->victim, self->name, LOCKS, 0644));
	self->watch = attach_to(VICTIM, self->name, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, self->watch);
}

FIXTURE_TEARDOWN(inside)
{
	dismiss_all();
	raze();
	EXPECT_TRUE(set_quota(MAX_SPACES_PER_USER, self->spaces));
	EXPECT_FALSE(is_logged(self->log));
}

static int bare_by(const struct agent *agent)
{
	return file_by(agent, O_RDWR, "/dev/klock");
}

/* His own spaces are the same inside and outside, and his locks exclude each other. */
TEST_F(inside, his_own_spaces_are_the_same)
{
	struct klock_ioc_info info, outside;
	struct klock_ioc_status status;
	uint32_t me = variant->users ? 0 : EVIL;
	int in, out;

	if (!self->able)
		SKIP(return, "no such namespaces");
	in = bare_by(&self->in);
	out = bare_by(&self->out);
	ASSERT_LE(0, in);
	ASSERT_LE(0, out);
	EXPECT_EQ(0, lock_by(&self->out, out, 1, 0));
	info = info_by(&self->in, in);
	outside = info_by(&self->out, out);
	EXPECT_STREQ("default", info.name);
	EXPECT_EQ(outside.generation, info.generation);
	EXPECT_EQ(me, info.uid);
	EXPECT_EQ(me, info.gid);
	EXPECT_EQ(EVIL, outside.uid);
	EXPECT_EQ(1, find_by(&self->in, "default", &info));
	EXPECT_EQ(me, info.uid);

	EXPECT_EQ(-EBUSY, lock_by(&self->in, in, 1, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EPERM, unlock_by(&self->in, in, 1));
	status = status_by(&self->in, in, 1);
	EXPECT_EQ(KLOCK_STATUS_HELD, status.flags);
	EXPECT_NE(0, status.token);
	EXPECT_EQ(variant->pids ? 0 : (uint32_t)self->out.pid, status.pid);
	EXPECT_EQ(variant->pids ? 0 : (uint32_t)self->out.pid, status.tid);

	EXPECT_EQ(0, lock_by(&self->in, in, 2, 0));
	status = status_by(&self->out, out, 2);
	EXPECT_EQ(KLOCK_STATUS_HELD, status.flags);
	EXPECT_NE(0, status.pid);
	EXPECT_EQ(status.pid, status.tid);
	if (!variant->pids) {
		EXPECT_EQ(self->in.pid, status.pid);
	}
}

/* Nothing of others that he would not see outside, and less where they have no uid. */
TEST_F(inside, he_sees_no_more_of_others)
{
	struct klock_ioc_status status;
	struct klock_ioc_info info;
	int fd, hidden;

	if (!self->able)
		SKIP(return, "no such namespaces");
	hidden = make_by(&self->victim, "hidden", LOCKS, 0600);
	ASSERT_LE(0, hidden);
	EXPECT_EQ(-EACCES, open_uid_by(&self->in, VICTIM, "hidden", KLOCK_ATTACH_READONLY));
	EXPECT_EQ(-EACCES, open_uid_by(&self->in, VICTIM, "absent", KLOCK_ATTACH_READONLY));
	EXPECT_EQ(0, find_by(&self->in, "hidden", &info));

	fd = open_uid_by(&self->in, VICTIM, self->name, KLOCK_ATTACH_READONLY);
	if (variant->users) {
		EXPECT_EQ(-EACCES, fd);
		EXPECT_EQ(0, find_by(&self->in, self->name, &info));
	} else {
		EXPECT_LE(0, fd);
		EXPECT_EQ(1, find_by(&self->in, self->name, &info));
		EXPECT_EQ(VICTIM, info.uid);
	}

	/* What he was sent shows who they are as far as he has numbers for them. */
	fd = open_by(&self->victim, self->name, 0);
	ASSERT_EQ(0, lock_by(&self->victim, fd, 1, 0));
	fd = give_fd(&self->in, self->pair, self->watch);
	ASSERT_LE(0, fd);
	info = info_by(&self->in, fd);
	EXPECT_EQ(variant->users ? 65534 : VICTIM, info.uid);
	EXPECT_EQ(variant->users ? 65534 : VICTIM, info.gid);
	status = status_by(&self->in, fd, 1);
	EXPECT_EQ(KLOCK_STATUS_HELD, status.flags);
	EXPECT_EQ(variant->pids ? 0 : (uint32_t)self->victim.pid, status.pid);
	EXPECT_EQ(variant->pids ? 0 : (uint32_t)self->victim.pid, status.tid);
	EXPECT_EQ(-EACCES, unlock_by(&self->in, fd, 1));
}

static int do_capable(struct order *order)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	if (syscall(SYS_capget, &header, data))
		return -errno;
	return data[0].effective >> order->number & 1;
}

static bool is_capable(const struct agent *agent, int cap)
{
	tell(agent, do_capable, -1, cap, NULL, 0);
	return answer(agent, NULL, 0) == 1;
}

/* To be root in there, with all capabilities, is no right. */
TEST_F(inside, to_be_root_there_is_no_right)
{
	int fd, watch, own;

	if (!self->able)
		SKIP(return, "no such namespaces");
	own = make_by(&self->out, self->name, LOCKS, 0600);
	ASSERT_LE(0, own);
	EXPECT_EQ(variant->users, is_capable(&self->in, CAP_SYS_ADMIN));
	EXPECT_EQ(variant->users, is_capable(&self->in, CAP_SYS_RESOURCE));
	EXPECT_EQ(-EACCES, open_uid_by(&self->in, VICTIM, self->name, 0));
	EXPECT_EQ(-EACCES, open_uid_by(&self->in, VICTIM, "absent", KLOCK_ATTACH_CREATE));
	EXPECT_EQ(-EACCES, remove_by(&self->in, self->name, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE,
				     VICTIM));
	/* 0 is himself in there, and root is nobody. */
	EXPECT_EQ(variant->users ? 0 : -EACCES,
		  remove_by(&self->in, self->name, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE, 0));
	watch = give_fd(&self->in, self->pair, self->watch);
	ASSERT_LE(0, watch);
	expect_eaccess(_metadata, &self->in, watch);

	/* His quota is the same one. */
	ASSERT_TRUE(set_quota(MAX_SPACES_PER_USER, 2));
	EXPECT_EQ(0, close_by(&self->out, own));
	remove_by(&self->out, self->name, 0, 0);
	fd = make_by(&self->in, "one", 1, 0);
	ASSERT_LE(0, fd);
	ASSERT_LE(0, make_by(&self->out, "two", 1, 0));
	EXPECT_EQ(-EDQUOT, make_by(&self->in, "three", 1, 0));
	EXPECT_EQ(-EDQUOT, make_by(&self->out, "three", 1, 0));
	EXPECT_EQ(-EEXIST, make_by(&self->out, "one", 1, 0));
}

TEST_HARNESS_MAIN
