// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * libklock itself: what it makes of names, flags and errors; signals, deadlines
 * and system calls; the fork rule; threads.  What locks, spaces and the kernel do
 * is for the other programs.
 *
 * Built with -fsanitize=thread and libklock_tsan.a, it is library_tsan: the cases of
 * threads alone.
 */
#include "klock_test.h"

#include <limits.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define CAPACITY 8

/* What no call may write to a pointer when it fails. */
#define NO_SPACE ((struct klock_space *)0x5a)
#define NO_LOCK ((struct klock *)0x5a)

#ifdef __has_feature	/* so says clang */
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__
#endif
#endif
#ifndef __SANITIZE_THREAD__

static int raw_clone(void)
{
	return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static bool say(int fd)
{
	return write(fd, "x", 1) == 1;
}

static bool hear(int fd)
{
	char c;

	return read(fd, &c, 1) == 1;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int count_spaces(void)
{
	static struct klock_space_info info[1000];

	return klock_space_list(NULL, info, 1000);
}

/* ---------------------------------------------------------------- names, flags, attributes */

static const char name_63[] = "123456789012345678901234567890123456789012345678901234567890123";
static const char name_64[] = "1234567890123456789012345678901234567890123456789012345678901234";

TEST(names_that_are_none)
{
	static const char *const bad[] = {
		"", ".", ".x", "a b", "a\n", "\303\244", "a*", name_64,
		"/", "/a", "0/", "0/.a", "0//a", "0/0/a", "a/b", "-1/a", "+1/a", " 1/a", "1 /a",
		"0x1/a", "1.0/a", "4294967295/a", "4294967296/a", "18446744073709551616/a",
	};
	char long_name[80];
	struct klock_space *space;
	int spaces = count_spaces();
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		space = NO_SPACE;
		EXPECT_EQ(-EINVAL, klock_space_open(bad[i], KLOCK_CREATE, NULL, &space))
			TH_LOG("name \"%s\"", bad[i]);
		EXPECT_EQ(-EINVAL, klock_space_open(bad[i], 0, NULL, &space));
		EXPECT_EQ(-EINVAL, klock_space_remove(bad[i], 0));
		EXPECT_EQ(NO_SPACE, space);
	}
	snprintf(long_name, sizeof(long_name), "%u/%s", getuid(), name_64);
	EXPECT_EQ(-EINVAL, klock_space_open(long_name, KLOCK_CREATE, NULL, &space));
	EXPECT_EQ(spaces, count_spaces());
}

TEST(names_that_are_good)
{
	static const char *const good[] = { "a", "-", "_.", "A.b_c-9", "0", name_63 };
	struct klock_space *mine, *by_uid;
	struct klock_space_info info;
	char name[80];
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++) {
		ASSERT_EQ(0, klock_space_open(good[i], KLOCK_CREATE | KLOCK_EXCL, NULL, &mine))
			TH_LOG("name \"%s\"", good[i]);
		snprintf(name, sizeof(name), "%u/%s", getuid(), good[i]);
		ASSERT_EQ(0, klock_space_open(name, 0, NULL, &by_uid));
		POISON(info);
		ASSERT_EQ(0, klock_space_info(by_uid, &info));
		EXPECT_STREQ(good[i], info.name);
		EXPECT_EQ(getuid(), info.uid);
		EXPECT_EQ(2, info.clients);
		klock_space_close(mine);
		klock_space_close(by_uid);
		EXPECT_EQ(0, klock_space_remove(i % 2 ? name : good[i], 0));
		EXPECT_EQ(-ENOENT, klock_space_open(name, 0, NULL, &mine));
	}
}

/* As a user who has no spaces yet. */
static void check_default(void)
{
	struct klock_space *space = NO_SPACE;
	struct klock_space_attr attr = { .capacity = 3, .mode = 0644 };
	struct klock_space_info info;

	CHECK(!setresgid(54321, 54321, 54321) && !setresuid(54321, 54321, 54321));
	CHECK(klock_space_open("default", 0, NULL, &space) == -ENOENT);
	CHECK(klock_space_open(NULL, KLOCK_EXCL, NULL, &space) == -EINVAL);
	CHECK(klock_space_open("default", 0, NULL, &space) == -ENOENT);
	CHECK(klock_space_remove(NULL, 0) == -ENOENT);

	CHECK(!klock_space_open(NULL, 0, NULL, &space));
	CHECK(!klock_space_info(space, &info));
	CHECK(info.capacity == 2048 && info.mode == 0600 && info.flags == 0);
	CHECK(info.uid == 54321 && info.gid == 54321 && !strcmp(info.name, "default"));
	CHECK(klock_space_remove(NULL, 0) == -EBUSY);
	CHECK(!klock_space_remove(NULL, KLOCK_FORCE));
	klock_space_close(space);

	CHECK(klock_space_open(NULL, KLOCK_CREATE | KLOCK_EXCL, &attr, &space) == 0);
	CHECK(klock_space_open(NULL, KLOCK_CREATE | KLOCK_EXCL, &attr, &space) == -EEXIST);
	CHECK(!klock_space_info(space, &info));
	CHECK(info.capacity == 3 && info.mode == 0644);
	klock_space_close(space);
	CHECK(!klock_space_open(NULL, KLOCK_READONLY, NULL, &space));
	CHECK(klock_free_all(space) == -EACCES);
	klock_space_close(space);
	CHECK(!klock_space_remove(NULL, 0));
	_exit(0);
}

TEST(no_name_is_default)
{
	pid_t pid = spawn();

	if (pid == 0)
		check_default();
	EXPECT_EQ(0, reap(pid));
}

TEST(flags_that_are_none)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space = NO_SPACE;
	struct klock *lock = NO_LOCK;
	int bit;

	SPACE_NAME(name);
	for (bit = 5; bit < 32; bit++) {
		EXPECT_EQ(-EINVAL, klock_space_open(name, KLOCK_CREATE | 1u << bit, NULL, &space));
	}
	EXPECT_EQ(-EINVAL, klock_space_open(name, KLOCK_EXCL, NULL, &space));
	EXPECT_EQ(-EINVAL, klock_space_open(NULL, KLOCK_EXCL, NULL, &space));
	EXPECT_EQ(NO_SPACE, space);
	EXPECT_EQ(-ENOENT, klock_space_remove(name, 0));

	space = make_space(name, CAPACITY, 0);
	ASSERT_NE(NULL, space);
	for (bit = 1; bit < 32; bit++) {
		EXPECT_EQ(-EINVAL, klock_space_remove(name, KLOCK_FORCE | 1u << bit));
		EXPECT_EQ(-EINVAL, klock_retrieve(space, 0, 1u << bit, &lock));
	}
	EXPECT_EQ(NO_LOCK, lock);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST(attributes)
{
	static const struct klock_space_attr bad[] = {
		{ .capacity = KLOCK_CAPACITY_MAX + 1 }, { .capacity = UINT32_MAX },
		{ .mode = 0700 }, { .mode = 0111 }, { .mode = 01600 }, { .mode = 0100600 },
		{ .flags = KLOCK_REMOVED }, { .flags = 1u << 2 }, { .flags = 1u << 31 },
		{ .reserved = { 1 } }, { .reserved = { [4] = 1 } },
	};
	struct klock_space_attr attr = { .capacity = 77, .mode = 0640, .flags = KLOCK_MAPPABLE };
	struct klock_space *space = NO_SPACE, *again;
	struct klock_space_info info;
	char name[KLOCK_NAME_SIZE];
	size_t i;

	SPACE_NAME(name);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		EXPECT_EQ(-EINVAL, klock_space_open(name, KLOCK_CREATE, &bad[i], &space))
			TH_LOG("attributes %zu", i);
		EXPECT_EQ(NO_SPACE, space);
		EXPECT_EQ(-ENOENT, klock_space_remove(name, 0));
	}

	ASSERT_EQ(0, klock_space_open(name, KLOCK_CREATE, &attr, &space));
	POISON(info);
	ASSERT_EQ(0, klock_space_info(space, &info));
	EXPECT_EQ(77, info.capacity);
	EXPECT_EQ(0640, info.mode);
	EXPECT_EQ(KLOCK_MAPPABLE, info.flags);

	/* They count only when a space is made, and may be anything if none can be. */
	attr.capacity = 5;
	ASSERT_EQ(0, klock_space_open(name, KLOCK_CREATE, &attr, &again));
	klock_space_close(again);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		ASSERT_EQ(0, klock_space_open(name, 0, &bad[i], &again));
		klock_space_close(again);
	}
	ASSERT_EQ(0, klock_space_info(space, &info));
	EXPECT_EQ(77, info.capacity);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

/* ------------------------------------------------------------------------------- opening */

/* Where there is no device, and where what is there has no driver. */
static void check_no_device(void)
{
	char dir[] = "/tmp/klock.XXXXXX";
	struct klock_space *space = NO_SPACE;
	struct klock_space_info info;

	CHECK(mkdtemp(dir) && !chroot(dir) && !chdir("/"));
	CHECK(klock_space_open(NULL, 0, NULL, &space) == -ENODEV);
	CHECK(!mkdir("/dev", 0755));
	CHECK(klock_space_open(NULL, 0, NULL, &space) == -ENODEV);
	CHECK(!mknod("/dev/klock", S_IFCHR | 0666, makedev(10, 1048575)));
	CHECK(klock_space_open(NULL, 0, NULL, &space) == -ENODEV);
	CHECK(klock_space_remove("x", 0) == -ENODEV);
	CHECK(klock_space_list(NULL, &info, 1) == -ENODEV);
	CHECK(space == NO_SPACE);
	CHECK(!unlink("/dev/klock") && !rmdir("/dev"));
	_exit(0);
}

TEST(no_device)
{
	pid_t pid = spawn();

	if (pid == 0)
		check_no_device();
	EXPECT_EQ(0, reap(pid));
}

TEST(no_descriptor_left)
{
	struct klock_space *space = NO_SPACE;
	struct rlimit old, none;
	char name[KLOCK_NAME_SIZE];
	int lowest = dup(0), more;

	SPACE_NAME(name);
	close(lowest);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none = old;
	for (more = 0; more < 2; more++) {	/* two are needed */
		none.rlim_cur = lowest + more;
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
		EXPECT_EQ(-EMFILE, klock_space_open(name, KLOCK_CREATE, NULL, &space));
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
		EXPECT_EQ(NO_SPACE, space);
		EXPECT_EQ(-ENOENT, klock_space_remove(name, 0));
	}
	none.rlim_cur = lowest + 2;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_EQ(0, klock_space_open(name, KLOCK_CREATE, NULL, &space));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST(descriptors_are_close_on_exec)
{
	int before = count_descriptors(), fd, lowest = dup(0);
	struct klock_space *space;
	char name[KLOCK_NAME_SIZE];

	close(lowest);
	SPACE_NAME(name);
	space = make_space(name, CAPACITY, 0);
	ASSERT_NE(NULL, space);
	EXPECT_EQ(before + 2, count_descriptors());
	EXPECT_EQ(FD_CLOEXEC, fcntl(klock_space_fd(space), F_GETFD));
	for (fd = lowest; fd < lowest + 10; fd++) {
		EXPECT_TRUE(!is_open(fd) || fcntl(fd, F_GETFD) == FD_CLOEXEC);
	}
	klock_space_close(space);
	EXPECT_EQ(before, count_descriptors());
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST(no_fastpath_changes_nothing)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;

	SPACE_NAME(name);
	space = make_space(name, CAPACITY, KLOCK_NO_FASTPATH);
	ASSERT_NE(NULL, space);
	lock = get_lock(space, 0);
	ASSERT_NE(NULL, lock);
	EXPECT_EQ(0, klock_lock(lock));
	EXPECT_EQ(-EBUSY, klock_trylock(lock));
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(-EPERM, klock_unlock(lock));
	klock_put(lock);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST(descriptor_takes_ioctls)
{
	struct klock_ioc_id retrieve = { .id = CAPACITY - 1 };
	struct klock_space *space;
	char name[KLOCK_NAME_SIZE];

	SPACE_NAME(name);
	space = make_space(name, CAPACITY, 0);
	ASSERT_NE(NULL, space);
	EXPECT_EQ(0, raw_ioctl(klock_space_fd(space), KLOCK_IOC_RETRIEVE, &retrieve));
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

/* ------------------------------------------------------------------------------- handles */

FIXTURE(handles) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;	/* number 0 */
};

FIXTURE_SETUP(handles)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, 0);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 0);
	ASSERT_NE(NULL, self->lock);
}

FIXTURE_TEARDOWN(handles)
{
	klock_put(self->lock);
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, 0));
}

/* How a child of a space of its own ends that retrieves locks, and then one with @flags. */
static int retrieve_silently(const char *name, uint32_t id, unsigned int flags)
{
	struct klock_space *space;
	struct klock *lock[CAPACITY];
	pid_t pid = spawn();
	uint32_t i;

	if (pid)
		return reap(pid);
	space = join_space(name, 0);
	CHECK(space);
	free(malloc(4096));	/* so that the heap is there */
	forbid_system_calls();
	for (i = 0; i < CAPACITY; i++)
		if (klock_retrieve(space, i, 0, &lock[i]) || klock_id(lock[i]) != i)
			_exit(1);
	for (i = 0; i < CAPACITY; i++)
		klock_put(lock[i]);
	_exit(klock_retrieve(space, id, flags, &lock[0]) ? 1 : 0);
}

TEST_F(handles, retrieve_takes_no_system_call)
{
	struct klock *lock;

	ASSERT_EQ(0, klock_allocate_id(self->space, 1, &lock));
	klock_put(lock);
	EXPECT_EQ(0, retrieve_silently(self->name, 0, 0));
	EXPECT_EQ(0, retrieve_silently(self->name, CAPACITY - 1, 0));
	/* The two that need one; this also shows that one would be seen. */
	EXPECT_EQ(-SIGSYS, retrieve_silently(self->name, 1, KLOCK_MUST_EXIST));
	EXPECT_EQ(-SIGSYS, retrieve_silently(self->name, CAPACITY, 0));
}

TEST_F(handles, ids_and_the_capacity)
{
	struct klock_space *other = join_space(self->name, 0);
	struct klock *lock = NO_LOCK, *last;

	ASSERT_NE(NULL, other);
	last = get_lock(self->space, CAPACITY - 1);
	ASSERT_NE(NULL, last);
	EXPECT_EQ(CAPACITY - 1, klock_id(last));
	EXPECT_EQ(0, klock_lock(last));
	EXPECT_EQ(0, klock_unlock(last));
	EXPECT_EQ(-EINVAL, klock_retrieve(self->space, CAPACITY, 0, &lock));
	EXPECT_EQ(-EINVAL, klock_retrieve(self->space, CAPACITY, KLOCK_MUST_EXIST, &lock));
	EXPECT_EQ(-EINVAL, klock_retrieve(self->space, UINT32_MAX, 0, &lock));
	EXPECT_EQ(-EINVAL, klock_retrieve(self->space, UINT32_MAX, KLOCK_MUST_EXIST, &lock));
	EXPECT_EQ(-ENOENT, klock_retrieve(self->space, 2, KLOCK_MUST_EXIST, &lock));
	EXPECT_EQ(NO_LOCK, lock);

	/* Another client makes it grow, and shrink. */
	ASSERT_EQ(0, klock_space_resize(other, CAPACITY + 1));
	ASSERT_EQ(0, klock_retrieve(self->space, CAPACITY, 0, &lock));
	EXPECT_EQ(0, klock_lock(lock));
	EXPECT_EQ(0, klock_unlock(lock));
	ASSERT_EQ(0, klock_space_resize(other, CAPACITY));
	EXPECT_EQ(-EINVAL, klock_lock(lock));
	klock_put(lock);
	ASSERT_EQ(0, klock_retrieve(self->space, CAPACITY, 0, &lock));	/* judged by what it saw */
	EXPECT_EQ(-EINVAL, klock_trylock(lock));
	EXPECT_EQ(-EINVAL, klock_unlock(lock));
	klock_put(lock);

	/* It has seen what it does itself. */
	ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY - 1));
	EXPECT_EQ(-EINVAL, klock_retrieve(self->space, CAPACITY - 1, 0, &lock));
	EXPECT_EQ(-EINVAL, klock_lock(last));
	klock_put(last);
	klock_space_close(other);
}

TEST_F(handles, must_exist)
{
	struct klock *lock, *again;

	ASSERT_EQ(0, klock_allocate(self->space, &lock));
	EXPECT_EQ(0, klock_id(lock));
	ASSERT_EQ(0, klock_retrieve(self->space, 0, KLOCK_MUST_EXIST, &again));
	EXPECT_EQ(0, klock_id(again));
	EXPECT_EQ(0, klock_free(again));
	klock_put(again);
	EXPECT_EQ(-ENOENT, klock_retrieve(self->space, 0, KLOCK_MUST_EXIST, &again));
	EXPECT_EQ(-ENOENT, klock_free(lock));
	klock_put(lock);
}

TEST_F(handles, stale_beside_reallocated)
{
	struct klock_space *other = join_space(self->name, 0);
	struct klock *stale, *fresh;

	ASSERT_NE(NULL, other);
	ASSERT_EQ(0, klock_allocate_id(self->space, 5, &stale));
	ASSERT_EQ(0, klock_free(stale));
	ASSERT_EQ(0, klock_allocate_id(other, 5, &fresh));
	EXPECT_EQ(0, klock_lock(stale));
	EXPECT_EQ(-EBUSY, klock_trylock(fresh));
	EXPECT_EQ(-EPERM, klock_unlock(fresh));
	EXPECT_EQ(0, klock_unlock(stale));
	EXPECT_EQ(0, klock_trylock(fresh));
	EXPECT_EQ(-EBUSY, klock_trylock(stale));
	EXPECT_EQ(0, klock_unlock(fresh));
	klock_put(stale);
	klock_put(fresh);
	klock_space_close(other);
}

TEST_F(handles, put_and_close)
{
	struct klock_space *other = join_space(self->name, 0);
	struct klock *lock, *again;

	ASSERT_NE(NULL, other);
	klock_put(NULL);
	klock_space_close(NULL);

	lock = get_lock(other, 3);
	ASSERT_NE(NULL, lock);
	EXPECT_EQ(0, klock_lock(lock));
	klock_put(lock);	/* changes no lock */
	lock = get_lock(self->space, 3);
	ASSERT_NE(NULL, lock);
	EXPECT_EQ(-EBUSY, klock_trylock(lock));
	again = get_lock(other, 3);
	ASSERT_NE(NULL, again);
	EXPECT_EQ(0, klock_unlock(again));
	EXPECT_EQ(0, klock_lock(again));
	klock_space_close(other);	/* as if it had died; its handle can still be put */
	EXPECT_EQ(3, klock_id(again));
	klock_put(again);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(lock));
	EXPECT_EQ(0, klock_unlock(lock));
	klock_put(lock);
}

TEST_F(handles, lists_fill_at_most_n)
{
	struct klock_status status[3];
	struct klock_waiter waiter;
	struct klock *lock;
	int i;

	for (i = 0; i < CAPACITY; i++) {
		ASSERT_EQ(0, klock_allocate(self->space, &lock));
		EXPECT_EQ(i, klock_id(lock));
		klock_put(lock);
	}
	EXPECT_EQ(0, klock_list(self->space, 0, NULL, 0));
	POISON(status);
	EXPECT_EQ(2, klock_list(self->space, 3, status, 2));
	EXPECT_EQ(3, status[0].id);
	EXPECT_EQ(4, status[1].id);
	EXPECT_EQ(KLOCK_ALLOCATED, status[1].flags);
	EXPECT_EQ(0xa5a5a5a5, status[2].id);
	EXPECT_EQ(1, klock_list(self->space, CAPACITY - 1, status, 3));
	EXPECT_EQ(0, klock_list(self->space, CAPACITY, status, 3));
	EXPECT_EQ(-EFAULT, klock_list(self->space, 0, NULL, 1));
	EXPECT_EQ(0, klock_waiters(self->lock, &waiter, 1));
	EXPECT_EQ(0, klock_waiters(self->lock, NULL, 0));
	EXPECT_EQ(0, klock_free_all(self->space));
	EXPECT_EQ(0, klock_list(self->space, 0, status, 3));
}

TEST_F(handles, list_of_spaces_goes_on)
{
	struct klock_space_info all[1000], info, none;
	int n, i;

	n = klock_space_list(NULL, all, 1000);
	ASSERT_GT(n, 0);
	ASSERT_LT(n, 1000);
	for (i = 0; i < n; i++) {
		POISON(info);
		ASSERT_EQ(1, klock_space_list(i ? &all[i - 1] : NULL, &info, 1));
		EXPECT_EQ(all[i].uid, info.uid);
		EXPECT_STREQ(all[i].name, info.name);
		EXPECT_EQ(all[i].generation, info.generation);
	}
	EXPECT_EQ(0, klock_space_list(&all[n - 1], &info, 1));
	EXPECT_EQ(0, klock_space_list(NULL, NULL, 0));
	memset(&none, 0, sizeof(none));
	EXPECT_EQ(-EINVAL, klock_space_list(&none, &info, 1));
	memset(none.name, 'a', sizeof(none.name));
	EXPECT_EQ(-EINVAL, klock_space_list(&none, &info, 1));
}

TEST_F(handles, read_only_looks)
{
	struct klock_space *looker = join_space(self->name, KLOCK_READONLY);
	struct klock_space_info info;
	struct klock_status status;
	struct klock_waiter waiter;
	struct klock *lock, *none = NO_LOCK;

	ASSERT_NE(NULL, looker);
	lock = get_lock(looker, 0);
	ASSERT_NE(NULL, lock);
	EXPECT_EQ(0, klock_space_info(looker, &info));
	EXPECT_EQ(0, klock_status(lock, &status));
	EXPECT_EQ(0, klock_list(looker, 0, &status, 1));
	EXPECT_EQ(0, klock_waiters(lock, &waiter, 1));
	EXPECT_EQ(-ENOENT, klock_retrieve(looker, 0, KLOCK_MUST_EXIST, &none));

	EXPECT_EQ(-EACCES, klock_lock(lock));
	EXPECT_EQ(-EACCES, klock_trylock(lock));
	EXPECT_EQ(-EACCES, klock_unlock(lock));
	EXPECT_EQ(-EACCES, klock_free(lock));
	EXPECT_EQ(-EACCES, klock_free_all(looker));
	EXPECT_EQ(-EACCES, klock_allocate(looker, &none));
	EXPECT_EQ(-EACCES, klock_allocate_id(looker, 0, &none));
	EXPECT_EQ(NO_LOCK, none);
	klock_put(lock);
	klock_space_close(looker);
}

/* errno before each call, which it must be after it, too. */
#define KEEPS_ERRNO(wanted, call) do {			\
	errno = 4321;					\
	EXPECT_EQ(wanted, call);			\
	EXPECT_EQ(4321, errno);				\
} while (0)

TEST_F(handles, errno_is_left_alone)
{
	struct timespec past = { 0 };
	struct klock_space_info info;
	struct klock_status status;
	struct klock_space *space;
	struct klock *lock;

	KEEPS_ERRNO(-EINVAL, klock_space_open("", 0, NULL, &space));
	KEEPS_ERRNO(-ENOENT, klock_space_open("no-such-space", 0, NULL, &space));
	KEEPS_ERRNO(-EEXIST, klock_space_open(self->name, KLOCK_CREATE | KLOCK_EXCL, NULL, &space));
	KEEPS_ERRNO(0, klock_space_open(self->name, 0, NULL, &space));
	KEEPS_ERRNO(-EBUSY, klock_space_remove(self->name, 0));
	KEEPS_ERRNO(-EFAULT, klock_space_info(space, NULL));
	KEEPS_ERRNO(-EINVAL, klock_space_resize(space, 0));
	KEEPS_ERRNO(1, klock_space_list(NULL, &info, 1));
	KEEPS_ERRNO(-EFAULT, klock_space_list(NULL, NULL, 1));
	KEEPS_ERRNO(-EINVAL, klock_allocate_id(space, CAPACITY, &lock));
	KEEPS_ERRNO(-ENOENT, klock_retrieve(space, 1, KLOCK_MUST_EXIST, &lock));
	KEEPS_ERRNO(-EINVAL, klock_retrieve(space, CAPACITY, 0, &lock));
	KEEPS_ERRNO(0, klock_retrieve(space, 0, 0, &lock));
	KEEPS_ERRNO(-ENOENT, klock_free(lock));
	KEEPS_ERRNO(0, klock_free_all(space));
	KEEPS_ERRNO(-ENOENT, klock_break(space, 0, 0));
	KEEPS_ERRNO(0, klock_lock(lock));
	KEEPS_ERRNO(-EBUSY, klock_trylock(self->lock));
	KEEPS_ERRNO(-ETIMEDOUT, klock_lock_until(self->lock, CLOCK_REALTIME, &past));
	KEEPS_ERRNO(-EPERM, klock_unlock(self->lock));
	KEEPS_ERRNO(0, klock_status(lock, &status));
	KEEPS_ERRNO(-EFAULT, klock_list(space, 0, NULL, 1));
	KEEPS_ERRNO(0, klock_waiters(lock, NULL, 1));
	errno = 4321;
	klock_put(lock);
	klock_space_close(space);
	EXPECT_EQ(4321, errno);
	KEEPS_ERRNO(KLOCK_OWNER_DIED, klock_lock(self->lock));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

TEST_F(handles, failure_writes_nothing)
{
	struct klock_status status;
	struct klock *lock;

	ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY + 1));
	lock = get_lock(self->space, CAPACITY);
	ASSERT_NE(NULL, lock);
	ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY));
	POISON(status);
	EXPECT_EQ(-EINVAL, klock_status(lock, &status));
	EXPECT_EQ(0xa5a5a5a5, status.id);
	EXPECT_EQ(0xa5a5a5a5, status.flags);
	klock_put(lock);
}

TEST(version)
{
	unsigned int major, minor, patch;
	char rest;
	int parts = sscanf(klock_version(), "%u.%u.%u%c", &major, &minor, &patch, &rest);

	EXPECT_EQ(3, parts);
	EXPECT_EQ(1, major);
}

/* ------------------------------------------------------------------- signals and deadlines */

static atomic_uint handled;

static void count_signal(int signal)
{
	(void)signal;
	handled++;
}

/* A handler that does not ask for calls to be restarted */
static void handle_signals(void)
{
	struct sigaction action = { .sa_handler = count_signal };

	sigaction(SIGUSR1, &action, NULL);
}

struct wait {
	pthread_t thread;
	struct klock *lock;
	clockid_t clock;
	struct timespec deadline;	/* 0: none */
	int ret;
	struct timespec end;
	atomic_bool over;
};

static void *wait_for_lock(void *arg)
{
	struct wait *wait = arg;

	if (wait->deadline.tv_sec)
		wait->ret = klock_lock_until(wait->lock, wait->clock, &wait->deadline);
	else
		wait->ret = klock_lock(wait->lock);
	clock_gettime(wait->clock, &wait->end);
	wait->over = true;
	return NULL;
}

/* Two clients: the lock as the one sees it that holds it, and as the one that waits does. */
FIXTURE(waits) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *holder, *waiter;
	struct klock *held, *wanted;
};

FIXTURE_VARIANT(waits) {
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(waits, normal) { .flags = 0 };
FIXTURE_VARIANT_ADD(waits, errorcheck) { .flags = KLOCK_ERRORCHECK };

FIXTURE_SETUP(waits)
{
	SPACE_NAME(self->name);
	self->holder = make_space(self->name, CAPACITY, variant->flags);
	self->waiter = join_space(self->name, variant->flags);
	ASSERT_NE(NULL, self->holder);
	ASSERT_NE(NULL, self->waiter);
	self->held = get_lock(self->holder, 0);
	self->wanted = get_lock(self->waiter, 0);
	ASSERT_NE(NULL, self->held);
	ASSERT_NE(NULL, self->wanted);
	ASSERT_EQ(0, klock_lock(self->held));
	handle_signals();
}

FIXTURE_TEARDOWN(waits)
{
	klock_put(self->held);
	klock_put(self->wanted);
	klock_space_close(self->holder);
	klock_space_close(self->waiter);
	EXPECT_EQ(0, klock_space_remove(self->name, 0));
}

/* Interrupts the wait, and sees to it that the handler has run. */
static bool interrupt(struct wait *wait)
{
	unsigned int before = handled;

	pthread_kill(wait->thread, SIGUSR1);
	return UNTIL(handled != before || wait->over);
}

TEST_F(waits, signals_make_no_call_fail)
{
	struct wait wait = { .lock = self->wanted, .clock = CLOCK_MONOTONIC };
	int i;

	ASSERT_EQ(0, pthread_create(&wait.thread, NULL, wait_for_lock, &wait));
	for (i = 0; i < 200; i++) {
		if (i % 2) {	/* also while it is not yet asleep again */
			ASSERT_TRUE(UNTIL(waiters_of(self->held) == 1));
		}
		ASSERT_TRUE(interrupt(&wait));
	}
	EXPECT_FALSE(wait.over);
	EXPECT_EQ(0, klock_unlock(self->held));
	pthread_join(wait.thread, NULL);
	EXPECT_EQ(0, wait.ret);
	/* It holds the lock, though an errorcheck thread cannot give it back any more. */
	EXPECT_EQ(-EBUSY, klock_trylock(self->held));
}

/*
 * Interrupted all the time until it ends: a deadline that a signal extends would
 * never come, one that a signal shortens would come too soon.  How often it was.
 */
static unsigned int interrupted_deadline(struct __test_metadata *_metadata, struct klock *lock,
					 clockid_t clock, int ms)
{
	struct wait wait = { .lock = lock, .clock = clock, .deadline = in_ms(clock, ms) };
	unsigned int before = handled;
	uint64_t late, deadline;

	ASSERT_EQ(0, pthread_create(&wait.thread, NULL, wait_for_lock, &wait));
	EXPECT_TRUE(UNTIL(interrupt(&wait) && wait.over));
	pthread_join(wait.thread, NULL);
	EXPECT_EQ(-ETIMEDOUT, wait.ret);
	deadline = wait.deadline.tv_sec * NSEC_PER_SEC + wait.deadline.tv_nsec;
	late = wait.end.tv_sec * NSEC_PER_SEC + wait.end.tv_nsec;
	EXPECT_GE(late, deadline);
	EXPECT_LT(late, deadline + 5 * NSEC_PER_SEC * patience());
	return handled - before;
}

TEST_F_TIMEOUT(waits, signals_do_not_move_a_deadline, 60)
{
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_REALTIME };
	int i, ms = 300;

	for (i = 0; i < 2; i++) {
		while (interrupted_deadline(_metadata, self->wanted, clocks[i], ms) <= 2) {
			ms *= 2;
			ASSERT_GT(30000, ms);
		}
	}
	EXPECT_EQ(0, waiters_of(self->held));
	EXPECT_EQ(0, klock_unlock(self->held));
	EXPECT_EQ(0, klock_trylock(self->wanted));
}

TEST_F(waits, deadlines_that_are_none)
{
	static const clockid_t other_clocks[] = {
		CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
		CLOCK_BOOTTIME, CLOCK_TAI, -1, 1000,
	};
	struct timespec time = in_ms(CLOCK_MONOTONIC, 0);
	size_t i;

	ASSERT_EQ(0, klock_unlock(self->held));		/* so that it could be taken */
	for (i = 0; i < sizeof(other_clocks) / sizeof(*other_clocks); i++) {
		EXPECT_EQ(-EINVAL, klock_lock_until(self->wanted, other_clocks[i], &time));
	}
	EXPECT_EQ(-EINVAL, klock_lock_until(self->wanted, CLOCK_MONOTONIC, NULL));
	EXPECT_EQ(-EINVAL, klock_lock_until(self->wanted, CLOCK_REALTIME, NULL));
	time.tv_nsec = -1;
	EXPECT_EQ(-EINVAL, klock_lock_until(self->wanted, CLOCK_MONOTONIC, &time));
	time.tv_nsec = 1000000000;
	EXPECT_EQ(-EINVAL, klock_lock_until(self->wanted, CLOCK_MONOTONIC, &time));
	time.tv_sec = -1;
	EXPECT_EQ(-EINVAL, klock_lock_until(self->wanted, CLOCK_REALTIME, &time));
	EXPECT_FALSE(is_held(self->held));
}

TEST_F(handles, past_deadlines_try_once)
{
	static const struct timespec past[] = {
		{ 0, 0 }, { 0, 999999999 }, { 1, 0 }, { -1, 0 }, { -1, 999999999 },
		{ LONG_MIN, 0 }, { LONG_MIN, 999999999 },
	};
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_REALTIME };
	struct klock_space *other = join_space(self->name, 0);
	struct klock *wanted;
	size_t i;

	ASSERT_NE(NULL, other);
	wanted = get_lock(other, 0);
	ASSERT_NE(NULL, wanted);
	for (i = 0; i < 2 * sizeof(past) / sizeof(*past); i++) {
		ASSERT_EQ(0, klock_lock(self->lock));
		EXPECT_EQ(-ETIMEDOUT, klock_lock_until(wanted, clocks[i % 2], &past[i / 2]));
		ASSERT_EQ(0, klock_unlock(self->lock));
		EXPECT_EQ(0, klock_lock_until(wanted, clocks[i % 2], &past[i / 2]));
		EXPECT_EQ(0, klock_unlock(wanted));
	}
	klock_put(wanted);
	klock_space_close(other);
}

/* A time_t may have 32 bits. */
#define SECONDS(s)	((s) > LONG_MAX ? LONG_MAX : (s))

TEST_F(waits, deadlines_beyond_all_times)
{
	static const struct timespec far[] = {
		{ LONG_MAX, 999999999 }, { SECONDS(INT64_MAX / 1000000000), 999999999 },
		{ SECONDS(INT64_MAX / 1000000000 - 1), 0 },
		{ SECONDS(UINT64_MAX / 1000000000 + 1), 0 },
	};
	struct wait wait = { .lock = self->wanted };
	size_t i;

	for (i = 0; i < 2 * sizeof(far) / sizeof(*far); i++) {
		wait.clock = i % 2 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
		wait.deadline = far[i / 2];
		wait.over = false;
		ASSERT_EQ(0, pthread_create(&wait.thread, NULL, wait_for_lock, &wait));
		EXPECT_TRUE(UNTIL(waiters_of(self->held) == 1));
		EXPECT_EQ(0, klock_unlock(self->held));
		pthread_join(wait.thread, NULL);
		EXPECT_EQ(0, wait.ret);
		EXPECT_EQ(0, klock_break(self->holder, 0, 0));
		EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock(self->held));
	}
}

TEST_F(waits, owner_died_from_each_call)
{
	struct timespec deadline = in_ms(CLOCK_MONOTONIC, PATIENCE_MS);

	ASSERT_EQ(0, klock_break(self->holder, 0, 0));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock(self->wanted));
	ASSERT_EQ(0, klock_break(self->holder, 0, 0));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(self->wanted));
	ASSERT_EQ(0, klock_break(self->holder, 0, 0));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock_until(self->wanted, CLOCK_MONOTONIC, &deadline));
	EXPECT_EQ(0, klock_unlock(self->wanted));
	EXPECT_EQ(0, klock_lock(self->wanted));		/* it is said once */
}

static void unlock(void *lock)
{
	klock_unlock(lock);
}

static void *lock_then_be_cancelled(void *arg)
{
	struct wait *wait = arg;

	wait->ret = klock_lock(wait->lock);
	wait->over = true;
	pthread_cleanup_push(unlock, wait->lock);
	pthread_testcancel();
	wait->ret = -ECANCELED;		/* never */
	pthread_cleanup_pop(1);
	return NULL;
}

/* No cancellation point: who is cancelled while it waits gets the lock first. */
TEST_F(waits, cancellation)
{
	struct wait wait = { .lock = self->wanted };
	void *result;

	ASSERT_EQ(0, pthread_create(&wait.thread, NULL, lock_then_be_cancelled, &wait));
	ASSERT_TRUE(UNTIL(waiters_of(self->held) == 1));
	ASSERT_EQ(0, pthread_cancel(wait.thread));
	ASSERT_TRUE(UNTIL(waiters_of(self->held) == 1));
	EXPECT_FALSE(wait.over);
	EXPECT_EQ(0, klock_unlock(self->held));
	ASSERT_EQ(0, pthread_join(wait.thread, &result));
	EXPECT_EQ(PTHREAD_CANCELED, result);
	EXPECT_EQ(0, wait.ret);
	EXPECT_EQ(0, klock_trylock(self->held));	/* its clean-up has released it */
}

static void *be_cancelled(void *arg)
{
	struct wait *wait = arg;
	struct klock_space *space = NULL;

	pthread_cancel(pthread_self());
	wait->ret = klock_space_open(NULL, 0, NULL, &space);
	klock_space_close(space);
	wait->over = true;
	pthread_testcancel();
	return NULL;
}

/* Nor are those that open and close descriptors: all goes on afterwards. */
TEST(opening_is_no_cancellation_point)
{
	struct wait wait = { .ret = 1 };
	struct klock_space *space;
	int descriptors = count_descriptors();
	void *result;

	ASSERT_EQ(0, pthread_create(&wait.thread, NULL, be_cancelled, &wait));
	ASSERT_EQ(0, pthread_join(wait.thread, &result));
	EXPECT_EQ(PTHREAD_CANCELED, result);
	EXPECT_EQ(0, wait.ret);
	EXPECT_TRUE(wait.over);
	EXPECT_EQ(descriptors, count_descriptors());
	ASSERT_EQ(0, klock_space_open(NULL, 0, NULL, &space));
	klock_space_close(space);
}

/* ------------------------------------------------------------------------------- children */

/* The test itself is the parent, and holds the lock 0. */
FIXTURE(children) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock, *other;	/* numbers 0 and 1 */
};

FIXTURE_VARIANT(children) {
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(children, normal) { .flags = 0 };
FIXTURE_VARIANT_ADD(children, errorcheck) { .flags = KLOCK_ERRORCHECK };

FIXTURE_SETUP(children)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, variant->flags);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 0);
	self->other = get_lock(self->space, 1);
	ASSERT_NE(NULL, self->lock);
	ASSERT_NE(NULL, self->other);
	ASSERT_EQ(0, klock_lock(self->lock));
	prctl(PR_SET_CHILD_SUBREAPER, 1);	/* grandchildren are reaped here */
}

FIXTURE_TEARDOWN(children)
{
	klock_put(self->lock);
	klock_put(self->other);
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, 0));
}

/* In a child: it does not have @theirs, which an other process holds, and can have @mine. */
static void check_own_client(struct klock_space *space, struct klock *theirs, struct klock *mine,
			     bool errorcheck)
{
	struct klock_status status;

	CHECK(klock_trylock(theirs) == -EBUSY);
	CHECK(klock_space_fd(space) >= 0);
	CHECK(klock_unlock(theirs) == -EPERM);
	status = status_of(theirs);
	CHECK(status.flags == KLOCK_HELD && status.pid != (uint32_t)getpid());
	CHECK(klock_trylock(mine) == 0);
	CHECK(status_of(mine).flags == (KLOCK_HELD | KLOCK_MINE));
	CHECK(status_of(mine).pid == (uint32_t)getpid());
	CHECK(status_of(mine).token != status.token);
	if (errorcheck)
		CHECK(klock_lock(mine) == -EDEADLK);
}

/* And the parent sees it the same way; then the child ends, and has died. */
static void compare_notes(struct __test_metadata *_metadata, struct klock *lock,
			  struct klock *other, pid_t pid)
{
	EXPECT_TRUE(UNTIL(is_held(other)));
	EXPECT_EQ(KLOCK_HELD, status_of(other).flags);
	EXPECT_EQ(pid, status_of(other).pid);
	EXPECT_EQ(-EBUSY, klock_trylock(other));
	EXPECT_EQ(-EPERM, klock_unlock(other));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(lock).flags);
}

TEST_F(children, fork_makes_no_second_holder)
{
	int fd = klock_space_fd(self->space), told[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(told));
	pid = spawn();
	if (pid == 0) {
		CHECK(!is_open(fd));
		CHECK(klock_space_fd(self->space) == -EBADF);
		check_own_client(self->space, self->lock, self->other, variant->flags);
		CHECK(hear(told[0]));
		_exit(0);
	}
	compare_notes(_metadata, self->lock, self->other, pid);
	EXPECT_TRUE(say(told[1]));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(self->other));
	EXPECT_EQ(fd, klock_space_fd(self->space));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* In a new child, for which it is the first one, @call returns @wanted. */
#define FIRST_CALL(wanted, call) do {				\
	pid_t pid = spawn();					\
								\
	if (pid == 0) {						\
		CHECK((call) == (wanted));			\
		CHECK(klock_space_fd(self->space) >= 0);	\
		_exit(0);					\
	}							\
	EXPECT_EQ(0, reap(pid));				\
} while (0)

TEST_F(children, any_call_may_be_the_first)
{
	struct timespec past = { 0 };
	struct klock_space_info info;
	struct klock_status status;
	struct klock *lock;

	FIRST_CALL(0, klock_lock(self->other));
	FIRST_CALL(-EBUSY, klock_trylock(self->lock));
	FIRST_CALL(-ETIMEDOUT, klock_lock_until(self->lock, CLOCK_REALTIME, &past));
	FIRST_CALL(-EPERM, klock_unlock(self->lock));
	FIRST_CALL(-ENOENT, klock_break(self->space, 2, 0));
	FIRST_CALL(0, klock_status(self->lock, &status));
	FIRST_CALL(1, klock_list(self->space, 0, &status, 1));
	FIRST_CALL(0, klock_waiters(self->lock, NULL, 0));
	FIRST_CALL(0, klock_allocate_id(self->space, 3, &lock));
	FIRST_CALL(-EEXIST, klock_allocate_id(self->space, 3, &lock));
	FIRST_CALL(0, klock_retrieve(self->space, 2, 0, &lock));
	FIRST_CALL(-ENOENT, klock_retrieve(self->space, 2, KLOCK_MUST_EXIST, &lock));
	FIRST_CALL(-ENOENT, klock_free(self->lock));
	FIRST_CALL(0, klock_free_all(self->space));
	FIRST_CALL(0, klock_space_info(self->space, &info));
	FIRST_CALL(0, klock_space_resize(self->space, CAPACITY));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->lock).flags);
}

/*
 * The test holds the lock 0; its child takes the lock 1 or nothing at all, and its
 * grandchild the lock 2.  token[] is of whom they find to hold these.
 */
static void be_grandchild(struct klock_space *space, struct klock *theirs, uint32_t *token,
			  bool errorcheck)
{
	struct klock *mine = get_lock(space, 2);

	CHECK(mine);
	check_own_client(space, theirs, mine, errorcheck);
	token[2] = status_of(mine).token;
	_exit(0);
}

static void be_child(struct klock_space *space, struct klock *lock, struct klock *other,
		     uint32_t *token, bool errorcheck)
{
	bool use = token[1];
	pid_t pid;

	if (use) {
		check_own_client(space, lock, other, errorcheck);
		token[1] = status_of(other).token;
	}
	pid = spawn();
	if (pid == 0)
		be_grandchild(space, use ? other : lock, token, errorcheck);
	CHECK(reap(pid) == 0);
	CHECK(!use || klock_unlock(other) == 0);
	_exit(0);
}

TEST_F(children, grandchildren)
{
	struct klock *third = get_lock(self->space, 2);
	uint32_t *token = shared(3 * sizeof(*token));
	pid_t pid;
	int use;

	ASSERT_NE(NULL, third);
	token[0] = status_of(self->lock).token;
	for (use = 0; use < 2; use++) {
		token[1] = use;
		token[2] = 0;
		pid = spawn();
		if (pid == 0)
			be_child(self->space, self->lock, self->other, token, variant->flags);
		EXPECT_EQ(0, reap(pid));
		EXPECT_NE(0, token[2]);
		EXPECT_NE(token[0], token[2]);
		EXPECT_NE(token[1], token[2]);
		EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(third));
		EXPECT_EQ(0, klock_unlock(third));
	}
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* Ways to make a child that lives on when its parent, which holds a lock, dies. */
enum kin {
	FORK,			/* and never uses klock */
	FORK_AND_USE,
	FORK_AND_EXEC,
	VFORK_AND_EXEC,
	POSIX_SPAWN,
	BARE_FORK,		/* the handlers of pthread_atfork() are not called */
	RAW_CLONE,
};

static char *const linger_argv[] = { (char *)"library", (char *)"linger", NULL };

/*
 * Tells that it lives when it starts, and each time that it is asked, until nobody
 * asks any more.  Before it answers, it looks at @space, if any.
 */
static void linger(const struct klock_space *space)
{
	while (say(1) && hear(0))
		CHECK(!space || klock_space_fd(space) == -EBADF);
	_exit(0);
}

static void make_kin(enum kin kin, struct klock_space *space, struct klock *use)
{
	pid_t pid = 0;

	switch (kin) {
	case VFORK_AND_EXEC:
		pid = vfork();
		if (pid == 0) {
			execv("/proc/self/exe", linger_argv);
			_exit(1);
		}
		return;
	case POSIX_SPAWN:
		CHECK(!posix_spawn(&pid, "/proc/self/exe", NULL, NULL, linger_argv, environ));
		return;
	case BARE_FORK:
		pid = _Fork();
		break;
	case RAW_CLONE:
		pid = raw_clone();
		break;
	default:
		pid = fork();
	}
	CHECK(pid >= 0);
	if (pid)
		return;
	if (kin == FORK_AND_EXEC)
		execv("/proc/self/exe", linger_argv);
	CHECK(kin != FORK_AND_USE || klock_trylock(use) == 0);
	linger(kin == BARE_FORK || kin == RAW_CLONE ? space : NULL);
}

/* A parent that holds a lock when it makes its child, and is then only to be killed. */
static void be_parent(enum kin kin, const int *ask, const int *answer, struct klock_space *space,
		      struct klock *use)
{
	struct klock *lock = get_lock(space, 2);

	CHECK(dup2(ask[0], 0) == 0 && dup2(answer[1], 1) == 1);
	CHECK(!close(ask[1]) && !close(answer[0]) && !close(ask[0]) && !close(answer[1]));
	CHECK(lock && klock_trylock(lock) == 0);
	make_kin(kin, space, use);
	CHECK(klock_space_fd(space) >= 0);	/* that has not disturbed the parent */
	CHECK(status_of(lock).flags == (KLOCK_HELD | KLOCK_MINE));
	for (;;)
		pause();
}

FIXTURE(orphans) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;	/* the parent's */
	struct klock *use;	/* for a child that uses klock */
};

FIXTURE_VARIANT(orphans) {
	enum kin kin;
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(orphans, fork) { FORK, 0 };
FIXTURE_VARIANT_ADD(orphans, fork_errorcheck) { FORK, KLOCK_ERRORCHECK };
FIXTURE_VARIANT_ADD(orphans, fork_and_use) { FORK_AND_USE, 0 };
FIXTURE_VARIANT_ADD(orphans, fork_and_use_errorcheck) { FORK_AND_USE, KLOCK_ERRORCHECK };
FIXTURE_VARIANT_ADD(orphans, fork_and_exec) { FORK_AND_EXEC, 0 };
FIXTURE_VARIANT_ADD(orphans, fork_and_exec_errorcheck) { FORK_AND_EXEC, KLOCK_ERRORCHECK };
FIXTURE_VARIANT_ADD(orphans, vfork_and_exec) { VFORK_AND_EXEC, 0 };
FIXTURE_VARIANT_ADD(orphans, vfork_and_exec_errorcheck) { VFORK_AND_EXEC, KLOCK_ERRORCHECK };
FIXTURE_VARIANT_ADD(orphans, posix_spawn) { POSIX_SPAWN, 0 };
FIXTURE_VARIANT_ADD(orphans, posix_spawn_errorcheck) { POSIX_SPAWN, KLOCK_ERRORCHECK };
FIXTURE_VARIANT_ADD(orphans, bare_fork) { BARE_FORK, 0 };
FIXTURE_VARIANT_ADD(orphans, bare_fork_errorcheck) { BARE_FORK, KLOCK_ERRORCHECK };
FIXTURE_VARIANT_ADD(orphans, raw_clone) { RAW_CLONE, 0 };
FIXTURE_VARIANT_ADD(orphans, raw_clone_errorcheck) { RAW_CLONE, KLOCK_ERRORCHECK };

FIXTURE_SETUP(orphans)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, variant->flags);
	ASSERT_NE(NULL, self->space);
	self->use = get_lock(self->space, 1);
	self->lock = get_lock(self->space, 2);
	ASSERT_NE(NULL, self->use);
	ASSERT_NE(NULL, self->lock);
	prctl(PR_SET_CHILD_SUBREAPER, 1);	/* the orphan is reaped here */
}

FIXTURE_TEARDOWN(orphans)
{
	klock_put(self->lock);
	klock_put(self->use);
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, 0));
}

/* The parent is killed: its lock is released at once, though the child lives. */
TEST_F(orphans, parent_dies_child_lives)
{
	int ask[2], answer[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(ask));
	ASSERT_EQ(0, pipe(answer));
	pid = spawn();
	if (pid == 0)
		be_parent(variant->kin, ask, answer, self->space, self->use);
	close(ask[0]);
	close(answer[1]);
	ASSERT_TRUE(hear(answer[0]));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_EQ(-SIGKILL, slay(pid));
	if (variant->kin == BARE_FORK || variant->kin == RAW_CLONE) {	/* at its first call */
		EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
		EXPECT_TRUE(say(ask[1]) && hear(answer[0]));
	}
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(self->lock));
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_TRUE(say(ask[1]) && hear(answer[0]));
	EXPECT_EQ(variant->kin == FORK_AND_USE, is_held(self->use));
	close(ask[1]);
	EXPECT_EQ(0, reap(-1));
	EXPECT_EQ(variant->kin == FORK_AND_USE ? KLOCK_OWNER_DIED : 0, klock_trylock(self->use));
}

/* A child that was made without the C library's fork() is a client of its own, too. */
TEST_F(children, raw_clone_makes_no_second_holder)
{
	int fd = klock_space_fd(self->space), told[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(told));
	pid = raw_clone();
	if (pid == 0) {
		CHECK(is_open(fd));
		CHECK(klock_space_fd(self->space) == -EBADF);
		CHECK(!is_open(fd));
		check_own_client(self->space, self->lock, self->other, variant->flags);
		CHECK(hear(told[0]));
		_exit(0);
	}
	compare_notes(_metadata, self->lock, self->other, pid);
	EXPECT_TRUE(say(told[1]));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(self->other));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* The child means the space that it inherited, not the one that has its name now. */
TEST_F(children, name_given_to_another_space)
{
	struct klock_space_info old, new;
	struct klock_space *space;
	struct klock *lock;
	pid_t pid;

	ASSERT_EQ(0, klock_space_info(self->space, &old));
	ASSERT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
	space = make_space(self->name, CAPACITY, variant->flags);
	ASSERT_NE(NULL, space);
	ASSERT_EQ(0, klock_space_info(space, &new));
	ASSERT_NE(old.generation, new.generation);
	pid = spawn();
	if (pid == 0) {
		CHECK(!klock_space_info(self->space, &new));
		CHECK(new.generation == old.generation && new.flags == KLOCK_REMOVED);
		CHECK(status_of(self->lock).flags == KLOCK_HELD);
		CHECK(klock_trylock(self->lock) == -ESTALE);
		CHECK(klock_lock(self->other) == -ESTALE);
		CHECK(klock_unlock(self->lock) == -EPERM);
		lock = get_lock(space, 0);
		CHECK(lock && klock_trylock(lock) == 0);
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, klock_unlock(self->lock));
	klock_space_close(space);
}

static void fill_descriptors(int below)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDONLY);
		CHECK(fd >= 0);
	} while (fd < below);
}

/* What the numbers of the descriptors are now that the child has closed. */
enum numbers { UNUSED, OTHER_FILES, ANOTHER_SPACE, NUMBERS };

static void check_closed(struct klock_space *space, struct klock *lock, enum numbers numbers,
			 const char *another)
{
	struct klock_space *other = NULL;
	int spare = dup(0), i, files;

	CHECK(spare >= 0);
	CHECK(!close_range(3, ~0U, 0));
	if (numbers == ANOTHER_SPACE) {
		other = join_space(another, 0);
		CHECK(other);
	}
	if (numbers != UNUSED)
		fill_descriptors(spare);
	files = count_descriptors();
	for (i = 0; i < 2; i++) {
		CHECK(klock_lock(lock) == -EBADF);
		CHECK(klock_space_fd(space) == -EBADF);
		CHECK(files == count_descriptors());
	}
	klock_space_close(space);
	CHECK(files == count_descriptors());
	klock_space_close(other);
	CHECK(files == count_descriptors() + (other ? 2 : 0));
	_exit(0);
}

TEST_F(children, descriptors_closed_by_the_child)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *other;
	enum numbers numbers;
	pid_t pid;
	int raw;

	snprintf(name, sizeof(name), "other-%d", getpid());
	other = make_space(name, CAPACITY, 0);
	ASSERT_NE(NULL, other);
	klock_space_close(other);
	for (numbers = 0; numbers < NUMBERS; numbers++)
		for (raw = 0; raw < 2; raw++) {
			pid = raw ? raw_clone() : spawn();
			if (pid == 0)
				check_closed(self->space, self->lock, numbers, name);
			EXPECT_EQ(0, reap(pid))
				TH_LOG("raw %d, numbers %d", raw, numbers);
		}
	EXPECT_EQ(0, klock_space_remove(name, 0));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* A first use that fails has changed nothing, and is made again. */
TEST_F(children, first_use_may_fail)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct rlimit old, none;
		int files = count_descriptors();

		CHECK(!getrlimit(RLIMIT_NOFILE, &old));
		none = old;
		none.rlim_cur = 0;
		CHECK(!setrlimit(RLIMIT_NOFILE, &none));
		CHECK(klock_trylock(self->lock) == -EMFILE);
		CHECK(klock_space_fd(self->space) == -EBADF);
		CHECK(!setrlimit(RLIMIT_NOFILE, &old));
		CHECK(files == count_descriptors());
		check_own_client(self->space, self->lock, self->other, variant->flags);
		CHECK(files + 1 == count_descriptors());
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* Closing in a child, used or not, leaves nothing there and takes nothing from the parent. */
TEST_F(children, child_closes)
{
	int use;
	pid_t pid;

	for (use = 0; use < 2; use++) {
		pid = spawn();
		if (pid == 0) {
			int files = count_descriptors();

			if (use)
				CHECK(klock_trylock(self->other) == 0);
			klock_space_close(self->space);
			CHECK(files - 1 == count_descriptors());
			klock_put(self->lock);
			_exit(0);
		}
		EXPECT_EQ(0, reap(pid));
	}
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(self->other));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->lock).flags);
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* In a child, a space that the parent looked at can only be looked at. */
TEST_F(children, read_only)
{
	struct klock_space *looker = join_space(self->name, variant->flags | KLOCK_READONLY);
	struct klock *lock;
	pid_t pid;

	ASSERT_NE(NULL, looker);
	lock = get_lock(looker, 0);
	ASSERT_NE(NULL, lock);
	pid = spawn();
	if (pid == 0) {
		CHECK(klock_trylock(lock) == -EACCES);
		CHECK(status_of(lock).flags == KLOCK_HELD);
		CHECK(klock_trylock(self->other) == 0);
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	klock_put(lock);
	klock_space_close(looker);
}

/* A child that has no rights any more has those that its parent opened the space with. */
TEST_F(children, child_of_another_user)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space;

		CHECK(!setresgid(54321, 54321, 54321) && !setresuid(54321, 54321, 54321));
		CHECK(klock_space_open("0/default", 0, NULL, &space) == -EACCES);
		check_own_client(self->space, self->lock, self->other, variant->flags);
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
}

/* Fork while a thread waits: the wait goes on in the parent, and is none in the child. */
TEST_F(children, fork_while_a_thread_waits)
{
	struct klock_space *waiter = join_space(self->name, variant->flags);
	struct wait wait = { .clock = CLOCK_MONOTONIC };
	pid_t pid;

	ASSERT_NE(NULL, waiter);
	wait.lock = get_lock(waiter, 0);
	ASSERT_NE(NULL, wait.lock);
	ASSERT_EQ(0, pthread_create(&wait.thread, NULL, wait_for_lock, &wait));
	ASSERT_TRUE(UNTIL(waiters_of(self->lock) == 1));
	pid = spawn();
	if (pid == 0) {
		CHECK(klock_trylock(wait.lock) == -EBUSY);
		check_own_client(waiter, wait.lock, self->other, variant->flags);
		CHECK(waiters_of(self->lock) == 1);
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, klock_unlock(self->lock));
	pthread_join(wait.thread, NULL);
	EXPECT_EQ(0, wait.ret);
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	klock_space_close(waiter);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(self->lock));
	klock_put(wait.lock);
}

/* What is locked by @lock, in memory that processes share. */
struct guarded {
	atomic_int inside, violations;
	atomic_bool stop;
};

static int visit(struct klock *lock, struct guarded *guarded)
{
	int ret = klock_lock(lock);

	if (ret < 0)
		return ret;
	if (atomic_fetch_add(&guarded->inside, 1))
		guarded->violations++;
	sched_yield();
	atomic_fetch_sub(&guarded->inside, 1);
	ret = klock_unlock(lock);
	return ret;
}

struct visitor {
	pthread_t thread;
	const char *name;
	struct klock *lock;
	struct guarded *guarded;
	int ret;
};

/* Visits, and opens and closes spaces, so that fork() meets all of these half done. */
static void *keep_visiting(void *arg)
{
	struct visitor *visitor = arg;
	struct klock_space *space;

	while (!visitor->guarded->stop && !visitor->ret) {
		visitor->ret = visit(visitor->lock, visitor->guarded);
		if (!visitor->ret)
			visitor->ret = klock_space_open(visitor->name, 0, NULL, &space);
		if (!visitor->ret)
			klock_space_close(space);
	}
	return NULL;
}

/* Whether this process has any client, also one that the library knows nothing of. */
static bool has_clients(void)
{
	struct stat device, st;
	int fd;

	CHECK(!stat("/dev/klock", &device));
	for (fd = 3; fd < 100; fd++)
		if (!fstat(fd, &st) && st.st_rdev == device.st_rdev)
			return true;
	return false;
}

static void visit_as_child(const char *name, struct klock *lock, struct guarded *guarded)
{
	struct klock_space *space;
	struct klock_space_info info;
	pid_t pid;

	CHECK(!has_clients());
	CHECK(visit(lock, guarded) == 0);
	CHECK(!klock_space_open(name, 0, NULL, &space));
	CHECK(has_clients());
	pid = fork();
	CHECK(pid >= 0);
	if (pid)
		CHECK(reap(pid) == 0);
	CHECK(!klock_space_info(space, &info));
	CHECK(visit(lock, guarded) == 0);
	klock_space_close(space);
	_exit(0);
}

TEST_F_TIMEOUT(children, fork_among_busy_threads, 120)
{
	struct guarded *guarded = shared(sizeof(*guarded));
	struct visitor visitor[4];
	struct klock_space_info info;
	pid_t pid;
	int i;

	ASSERT_EQ(0, klock_unlock(self->lock));
	for (i = 0; i < 4; i++) {
		visitor[i] = (struct visitor) {
			.name = self->name, .lock = self->lock, .guarded = guarded,
		};
		/* A thread that finds the lock held by its own client waits in both modes. */
		ASSERT_EQ(0, pthread_create(&visitor[i].thread, NULL, keep_visiting, &visitor[i]));
	}
	for (i = 0; i < fewer(100); i++) {
		pid = fork();
		ASSERT_GE(pid, 0);
		if (pid == 0)
			visit_as_child(self->name, self->lock, guarded);
		EXPECT_EQ(0, reap(pid));
	}
	guarded->stop = true;
	for (i = 0; i < 4; i++) {
		pthread_join(visitor[i].thread, NULL);
		EXPECT_EQ(0, visitor[i].ret);
	}
	EXPECT_EQ(0, guarded->violations);
	ASSERT_EQ(0, klock_space_info(self->space, &info));
	EXPECT_EQ(1, info.clients);	/* none is left behind */
}

static atomic_int forking, handle_made;

/* Runs after the library's own handler, which was registered later. */
static void wait_for_a_handle(void)
{
	forking = 1;
	UNTIL(handle_made);
}

static void *make_a_handle(void *space)
{
	while (!forking)
		sched_yield();
	klock_put(get_lock(space, 7));
	handle_made = 1;
	return NULL;
}

/* Who is in fork() may wait, in another handler, for who makes or drops a handle. */
TEST(handles_do_not_wait_for_fork)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	pthread_t thread;
	pid_t pid;

	snprintf(name, sizeof(name), "handles-%d", getpid());
	ASSERT_EQ(0, pthread_atfork(wait_for_a_handle, NULL, NULL));
	space = make_space(name, CAPACITY, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, make_a_handle, space));
	pid = fork();
	if (pid == 0)
		_exit(handle_made ? 0 : 1);
	EXPECT_EQ(0, reap(pid));
	pthread_join(thread, NULL);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

/*
 * A child closed what it had inherited and opened another space, which got the same
 * numbers.  To a child of that child they are not those of the first space.
 */
TEST_F(children, grandchild_takes_no_other_space_for_its_own)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *other;
	pid_t pid = spawn();

	snprintf(name, sizeof(name), "other-%d", getpid());
	if (pid == 0) {
		CHECK(!syscall(SYS_close_range, 3, ~0U, 0));
		other = make_space(name, CAPACITY, 0);
		pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			CHECK(klock_trylock(self->lock) == -EBADF);
			klock_space_close(other);
			_exit(0);
		}
		CHECK(reap(pid) == 0);
		klock_space_close(other);
		CHECK(!klock_space_remove(name, 0));
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

struct stopped_use {
	struct klock *lock;
	atomic_int listener;
	int ret;
};

/* The thread's attach is to wait until whoever has the listener lets it go on. */
static void *use_and_be_stopped(void *arg)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)KLOCK_IOC_ATTACH, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = 6, .filter = filter };
	struct stopped_use *use = arg;

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	use->listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	CHECK(use->listener > 0);
	use->ret = klock_trylock(use->lock);
	return NULL;
}

/* The same of a thread that is attaching, when another opens a space that gets the number. */
TEST_F(children, attaching_takes_no_space_that_opens_meanwhile)
{
	struct stopped_use use = { .lock = self->lock };
	struct klock_space *other;
	char name[KLOCK_NAME_SIZE];
	pid_t pid = spawn();

	snprintf(name, sizeof(name), "other-%d", getpid());
	if (pid == 0) {
		/* The inherited space descriptor; the other one has been dropped. */
		int theirs = find_descriptor("klock"), spare = open("/dev/null", O_RDONLY);
		struct seccomp_notif notice = { 0 };
		struct seccomp_notif_resp response = {
			.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE,
		};
		struct klock *lock;
		pthread_t thread;

		CHECK(spare >= 0 && spare < theirs);
		fill_descriptors(theirs);
		CHECK(!pthread_create(&thread, NULL, use_and_be_stopped, &use));
		UNTIL(use.listener);
		CHECK(!ioctl(use.listener, SECCOMP_IOCTL_NOTIF_RECV, &notice));
		CHECK(!close(spare) && !close(theirs));
		other = make_space(name, CAPACITY, variant->flags);
		CHECK(other && klock_space_fd(other) == spare && find_descriptor("klock") == spare);
		CHECK(fcntl(theirs, F_GETFD) >= 0);

		response.id = notice.id;
		CHECK(!ioctl(use.listener, SECCOMP_IOCTL_NOTIF_SEND, &response));
		CHECK(!pthread_join(thread, NULL));
		CHECK(use.ret == -EBADF);
		lock = get_lock(other, klock_id(self->lock));
		CHECK(lock && !status_of(lock).flags);
		klock_put(lock);
		klock_space_close(other);
		CHECK(!klock_space_remove(name, 0));
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

#endif /* __SANITIZE_THREAD__ */

/* -------------------------------------------------------------------------------- threads */

#define THREADS 8
#define ROUNDS fewer(300)

FIXTURE(threads) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;	/* one handle for all */
};

FIXTURE_VARIANT(threads) {
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(threads, normal) { .flags = 0 };
FIXTURE_VARIANT_ADD(threads, errorcheck) { .flags = KLOCK_ERRORCHECK };

FIXTURE_SETUP(threads)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, 2 * THREADS, variant->flags);
	ASSERT_NE(NULL, self->space);
	ASSERT_EQ(0, klock_allocate(self->space, &self->lock));
}

FIXTURE_TEARDOWN(threads)
{
	klock_put(self->lock);
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, 0));
}

struct worker {
	pthread_t thread;
	struct klock_space *space;
	struct klock *lock;
	const char *name;
	int *guarded;		/* by a lock of one client, and by nothing else */
	atomic_int *counter;	/* by several clients' lock; not counted up atomically */
	int failed;		/* line */
};

static void fail(struct worker *worker, int line)
{
	worker->failed = line;
	pthread_exit(NULL);
}

#define MUST(cond) do {				\
	if (!(cond))				\
		fail(worker, __LINE__);		\
} while (0)

/* Runs all threads: the line where one failed, or 0. */
static int run_workers(void *(*work)(void *), const struct worker *common)
{
	struct worker worker[THREADS];
	int i, failed = 0;

	for (i = 0; i < THREADS; i++) {
		worker[i] = *common;
		if (pthread_create(&worker[i].thread, NULL, work, &worker[i]))
			abort();
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(worker[i].thread, NULL);
		if (worker[i].failed)
			failed = worker[i].failed;
	}
	return failed;
}

static void count_up(atomic_int *counter)
{
	int value = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, value + 1, memory_order_relaxed);
}

static void *share_handle(void *arg)
{
	struct timespec deadline = in_ms(CLOCK_MONOTONIC, 10 * PATIENCE_MS);
	struct worker *worker = arg;
	int i, ret;

	for (i = 0; i < ROUNDS; i++) {
		ret = i % 3 ? klock_lock(worker->lock) :
			      klock_lock_until(worker->lock, CLOCK_MONOTONIC, &deadline);
		MUST(ret == 0);
		++*worker->guarded;
		MUST(klock_unlock(worker->lock) == 0);
	}
	return NULL;
}

TEST_F_TIMEOUT(threads, share_a_handle, 120)
{
	int guarded = 0;
	struct worker common = { .lock = self->lock, .guarded = &guarded };

	EXPECT_EQ(0, run_workers(share_handle, &common));
	EXPECT_EQ(THREADS * ROUNDS, guarded);
}

static void *use_all(void *arg)
{
	struct worker *worker = arg;
	struct klock_status status[2 * THREADS];
	struct klock_space_info info;
	struct klock *own, *same, *common;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		MUST(klock_allocate(worker->space, &own) == 0);
		MUST(klock_retrieve(worker->space, klock_id(own), KLOCK_MUST_EXIST, &same) == 0);
		MUST(klock_retrieve(worker->space, klock_id(worker->lock), 0, &common) == 0);
		MUST(klock_lock(own) == 0);
		MUST(klock_status(same, status) == 0);
		MUST(status[0].flags == (KLOCK_ALLOCATED | KLOCK_HELD | KLOCK_MINE));
		MUST(klock_lock(common) == 0);
		++*worker->guarded;
		MUST(klock_unlock(common) == 0);
		MUST(klock_unlock(same) == 0);
		MUST(klock_list(worker->space, 0, status, 2 * THREADS) >= 1);
		MUST(klock_space_info(worker->space, &info) == 0);
		MUST(info.clients == 1 && klock_space_fd(worker->space) >= 0);
		MUST(klock_free(own) == 0);
		klock_put(own);
		klock_put(same);
		klock_put(common);
	}
	return NULL;
}

TEST_F_TIMEOUT(threads, share_a_space, 120)
{
	int guarded = 0;
	struct worker common = { .space = self->space, .lock = self->lock, .guarded = &guarded };
	struct klock_space_info info;

	EXPECT_EQ(0, run_workers(use_all, &common));
	EXPECT_EQ(THREADS * ROUNDS, guarded);
	ASSERT_EQ(0, klock_space_info(self->space, &info));
	EXPECT_EQ(1, info.allocated);
	EXPECT_EQ(0, info.held);
}

static void *open_own(void *arg)
{
	struct worker *worker = arg;
	struct klock_space *space;
	struct klock *lock;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		MUST(klock_space_open(worker->name, 0, NULL, &space) == 0);
		MUST(klock_retrieve(space, klock_id(worker->lock), 0, &lock) == 0);
		MUST(klock_lock(lock) == 0);
		count_up(worker->counter);
		MUST(klock_unlock(lock) == 0);
		klock_put(lock);
		klock_space_close(space);
	}
	return NULL;
}

TEST_F_TIMEOUT(threads, open_and_close_spaces, 120)
{
	atomic_int counter = 0;
	struct worker common = { .name = self->name, .lock = self->lock, .counter = &counter };
	struct klock_space_info info;

	EXPECT_EQ(0, run_workers(open_own, &common));
	EXPECT_EQ(THREADS * ROUNDS, counter);
	ASSERT_EQ(0, klock_space_info(self->space, &info));
	EXPECT_EQ(1, info.clients);
}

static void *grow_and_shrink(void *arg)
{
	struct worker *worker = arg;
	struct klock *lock;
	int i, ret;

	for (i = 0; i < ROUNDS; i++) {
		ret = klock_space_resize(worker->space, i % 2 ? 2 * THREADS : 4 * THREADS);
		MUST(ret == 0);
		ret = klock_retrieve(worker->space, 4 * THREADS - 1, 0, &lock);
		MUST(ret == 0 || ret == -EINVAL);
		if (ret == 0)
			klock_put(lock);
		MUST(klock_retrieve(worker->space, 2 * THREADS - 1, 0, &lock) == 0);
		klock_put(lock);
	}
	return NULL;
}

TEST_F_TIMEOUT(threads, resize, 120)
{
	struct worker common = { .space = self->space };

	EXPECT_EQ(0, run_workers(grow_and_shrink, &common));
}

struct first_use {
	pthread_barrier_t *barrier;
	struct klock *lock;
	int ret;
};

static void *use_first(void *arg)
{
	struct first_use *use = arg;

	pthread_barrier_wait(use->barrier);
	use->ret = klock_trylock(use->lock);
	return NULL;
}

static void check_first_use_by_threads(struct klock_space *space, struct klock *lock)
{
	struct klock_space_info info;
	struct first_use use[8];
	pthread_barrier_t barrier;
	pthread_t thread[8];
	int i;

	CHECK(!pthread_barrier_init(&barrier, NULL, 8));
	for (i = 0; i < 8; i++) {
		use[i] = (struct first_use) { .barrier = &barrier, .lock = lock, .ret = 1 };
		CHECK(!pthread_create(&thread[i], NULL, use_first, &use[i]));
	}
	for (i = 0; i < 8; i++) {
		CHECK(!pthread_join(thread[i], NULL));
		CHECK(use[i].ret == -EBUSY);
	}
	CHECK(!klock_space_info(space, &info));
	CHECK(info.clients == 2);
	_exit(0);
}

TEST_F_TIMEOUT(threads, first_use_in_a_child_makes_one_client, 120)
{
	int rounds = 1 + fewer(9), i;
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->lock));
	for (i = 0; i < rounds; i++) {
		pid = spawn();
		if (pid == 0)
			check_first_use_by_threads(self->space, self->lock);
		EXPECT_EQ(0, reap(pid));
	}
#ifndef __SANITIZE_THREAD__	/* whose own locks may be taken in such a child */
	for (i = 0; i < rounds; i++) {
		pid = raw_clone();
		if (pid == 0)
			check_first_use_by_threads(self->space, self->lock);
		EXPECT_EQ(0, reap(pid));
	}
#endif
	EXPECT_EQ(0, klock_unlock(self->lock));
}

/* This program is also what children of its own exec. */
#define main	test_main
TEST_HARNESS_MAIN
#undef main

int main(int argc, char **argv)
{
#ifndef __SANITIZE_THREAD__
	if (argc == 2 && !strcmp(argv[1], "linger"))
		linger(NULL);
#endif
	return test_main(argc, argv);
}
