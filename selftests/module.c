// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loading and unloading: parameters, what keeps the module in, and that it leaves
 * nothing behind.  It needs the module's file, by the name in KLOCK_KO, and no
 * other user of klock; it leaves the module loaded as it found it, without
 * parameters.
 */
#include "klock_test.h"

#include <sys/stat.h>

static long available_kb(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[256];
	long kb = -1;

	if (!file)
		return -1;
	while (kb < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "MemAvailable: %ld", &kb);
	fclose(file);
	return kb;
}

static uint32_t max_capacity(void)
{
	struct klock_ioc_api api = { 0 };
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (raw_ioctl(fd, KLOCK_IOC_GET_API, &api) < 0)
		api.max_capacity = 0;
	close(fd);
	return api.max_capacity;
}

/* A space in which lock 0 is allocated, with no client. */
static int leave_allocated(const char *name)
{
	struct klock_space *space = make_space(name, 8, 0);
	struct klock *lock;
	int ret;

	if (!space)
		return -1;
	ret = klock_allocate(space, &lock);
	if (ret == 0)
		klock_put(lock);
	klock_space_close(space);
	return ret;
}

static int free_all(const char *name)
{
	struct klock_space *space = join_space(name, 0);
	int ret;

	if (!space)
		return -1;
	ret = klock_free_all(space);
	klock_space_close(space);
	return ret;
}

FIXTURE(module) {};

FIXTURE_SETUP(module)
{
	if (!getenv("KLOCK_KO") || geteuid())
		SKIP(return, "not root, or KLOCK_KO is not set");
	ASSERT_EQ(0, unload());
	ASSERT_TRUE(gone());
}

FIXTURE_TEARDOWN(module)
{
	if (loaded()) {
		EXPECT_EQ(0, unload());
	}
	EXPECT_TRUE(gone());
	EXPECT_EQ(0, load(""));
}

/* A failed insmod undoes itself. */
TEST_F(module, bad_parameters)
{
	static const struct {
		const char *text;
		int error;
	} bad[] = {
		{ "max_capacity=0", -EINVAL },
		{ "max_capacity=1048577", -EINVAL },
		{ "max_capacity=4294967295", -EINVAL },
		{ "max_capacity=4294967296", -ERANGE },	/* no uint */
		{ "max_capacity=-1", -EINVAL },
		{ "max_capacity=many", -EINVAL },
		{ "pin=maybe", -EINVAL },
		{ "first_token=0", -EINVAL },
		{ "first_token=1073741823", -EINVAL },	/* KLOCK_WORD_NONE */
		{ "last_token=0", -EINVAL },
		{ "last_token=1073741823", -EINVAL },
		{ "first_token=3 last_token=2", -EINVAL },
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		EXPECT_EQ(bad[i].error, load(bad[i].text)) TH_LOG("%s", bad[i].text);
		EXPECT_TRUE(gone());
	}
}

TEST_F(module, max_capacity)
{
	struct klock_space_attr attr = { .capacity = 101 };
	struct klock_space *space;
	char name[KLOCK_NAME_SIZE];

	SPACE_NAME(name);
	ASSERT_EQ(0, load("max_capacity=100"));
	EXPECT_EQ(100, max_capacity());
	EXPECT_EQ(-EINVAL, klock_space_open(name, KLOCK_CREATE, &attr, &space));
	attr.capacity = 100;
	ASSERT_EQ(0, klock_space_open(name, KLOCK_CREATE, &attr, &space));
	EXPECT_EQ(-EINVAL, klock_space_resize(space, 101));
	klock_space_close(space);
}

TEST_F(module, max_capacity_at_its_ends)
{
	ASSERT_EQ(0, load("max_capacity=1"));
	EXPECT_EQ(1, max_capacity());
	ASSERT_EQ(0, unload());
	ASSERT_EQ(0, load("max_capacity=1048576"));
	EXPECT_EQ(KLOCK_CAPACITY_MAX, max_capacity());
	ASSERT_EQ(0, unload());
	ASSERT_EQ(0, load(""));
	EXPECT_EQ(KLOCK_CAPACITY_MAX, max_capacity());
}

TEST_F(module, kept_by_open_file)
{
	int fd;

	ASSERT_EQ(0, load(""));
	fd = open("/dev/klock", O_RDWR | O_CLOEXEC);	/* attached to nothing */
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_TRUE(loaded());
	close(fd);
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

TEST_F(module, kept_by_client)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;

	SPACE_NAME(name);
	ASSERT_EQ(0, load(""));
	space = make_space(name, 8, 0);
	ASSERT_NE(NULL, space);
	ASSERT_EQ(0, klock_allocate(space, &lock));
	ASSERT_EQ(0, klock_lock(lock));
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(0, klock_unlock(lock));
	klock_put(lock);
	klock_space_close(space);
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

TEST_F(module, kept_by_space_descriptor)
{
	struct klock_ioc_space_fd arg = { 0 };
	char name[KLOCK_NAME_SIZE];
	int client, fd;

	SPACE_NAME(name);
	ASSERT_EQ(0, load(""));
	client = raw_attach(name, KLOCK_ATTACH_CREATE, 8);
	ASSERT_LE(0, client);
	fd = raw_ioctl(client, KLOCK_IOC_SPACE_FD, &arg);
	ASSERT_LE(0, fd);
	close(client);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	close(fd);
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

TEST_F(module, kept_by_mapping)
{
	struct klock_ioc_space_fd arg = { 0 };
	char name[KLOCK_NAME_SIZE];
	volatile uint64_t *words;
	int client, fd;

	SPACE_NAME(name);
	ASSERT_EQ(0, load(""));
	if (!words_can_be_mapped())
		SKIP(return, "words cannot be mapped here");
	client = raw_attach(name, KLOCK_ATTACH_CREATE, 8);
	ASSERT_LE(0, client);
	fd = raw_ioctl(client, KLOCK_IOC_SPACE_FD, &arg);
	ASSERT_LE(0, fd);
	words = mmap(NULL, 8 * sizeof(*words), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, words);
	close(fd);
	close(client);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	words[5] = arg.token;
	EXPECT_EQ(0, raw_remove(name, 0));
	EXPECT_EQ(KLOCK_WORD_NONE, words[5]);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	munmap((void *)words, 8 * sizeof(*words));
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

/* The parameter that is not set: allocated locks keep nothing. */
TEST_F(module, not_kept_by_spaces)
{
	ASSERT_EQ(0, load(""));
	ASSERT_EQ(0, leave_allocated("one"));
	ASSERT_EQ(0, leave_allocated("two"));
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
	ASSERT_EQ(0, load(""));
	EXPECT_EQ(-ENOENT, klock_space_remove("one", 0));
}

/* Nor do words that were written over: of waiters that are not there, of nobody's client. */
TEST_F(module, not_kept_by_words)
{
	char name[KLOCK_NAME_SIZE];
	struct mapper m;
	unsigned int i;

	SPACE_NAME(name);
	ASSERT_EQ(0, load(""));
	if (!words_can_be_mapped())
		SKIP(return, "words cannot be mapped here");
	ASSERT_TRUE(map_space(&m, name, KLOCK_ATTACH_CREATE, 8));
	const uint64_t word[] = {
		KLOCK_WORD_WAITERS, m.token | KLOCK_WORD_WAITERS, m.token + 1, KLOCK_WORD_NONE,
		KLOCK_WORD_DIED, ~0ULL, (m.token + 1) | KLOCK_WORD_WAITERS | KLOCK_WORD_DIED,
		1ULL << KLOCK_WORD_TID_SHIFT,
	};
	for (i = 0; i < ARRAY_SIZE(word); i++) {
		m.words[i] = word[i];
		raw_lock(m.fd, i, KLOCK_LOCK_DEADLINE, now_ns(CLOCK_MONOTONIC) + NSEC_PER_MSEC);
		m.words[i] = word[i];
	}
	unmap_space(&m);
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

TEST_F(module, pinned_until_free)
{
	ASSERT_EQ(0, load("pin=1"));
	ASSERT_EQ(0, leave_allocated("one"));
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(0, free_all("one"));
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

TEST_F(module, pinned_until_remove)
{
	ASSERT_EQ(0, load("pin=1"));
	ASSERT_EQ(0, leave_allocated("one"));
	ASSERT_EQ(0, leave_allocated("two"));
	EXPECT_EQ(0, klock_space_remove("one", 0));
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(0, klock_space_remove("two", 0));
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

/* Each allocation counts, and a client that frees by id, or dies, takes away no more. */
TEST_F(module, pinned_by_the_last_of_many)
{
	char name[KLOCK_NAME_SIZE];
	struct klock *locks[3];
	struct klock_space *space;
	int i;

	SPACE_NAME(name);
	ASSERT_EQ(0, load("pin=1"));
	space = make_space(name, 8, 0);
	ASSERT_NE(NULL, space);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, klock_allocate(space, &locks[i]));
	}
	ASSERT_EQ(0, klock_free(locks[0]));
	ASSERT_EQ(0, klock_free(locks[2]));
	EXPECT_EQ(-ENOENT, klock_free(locks[2]));
	for (i = 0; i < 3; i++)
		klock_put(locks[i]);
	klock_space_close(space);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(0, free_all(name));
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

/* With `pin`, a space where nothing is allocated, and locks that are held, keep nothing. */
TEST_F(module, pinned_by_allocation_only)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;

	SPACE_NAME(name);
	ASSERT_EQ(0, load("pin=1"));
	space = make_space(name, 8, 0);
	ASSERT_NE(NULL, space);
	lock = get_lock(space, 3);
	ASSERT_NE(NULL, lock);
	ASSERT_EQ(0, klock_lock(lock));
	klock_put(lock);
	klock_space_close(space);
	EXPECT_EQ(0, unload());
	EXPECT_TRUE(gone());
}

/*
 * 50 times in and out, or 20, each time with spaces, the largest one and one whose client
 * died, left behind: a leak of any of them would be seen in the free memory.
 */
TEST_F_TIMEOUT(module, in_and_out, 240)
{
	struct klock_space *space;
	int rounds = slowness() > 1 ? 20 : 50, i;
	long before = 0;

	for (i = 0; i < rounds; i++) {
		if (i == 5)	/* after what is made only once */
			before = available_kb();
		ASSERT_EQ(0, load(""));
		space = make_space("large", KLOCK_CAPACITY_MAX, 0);
		ASSERT_NE(NULL, space);
		klock_space_close(space);
		space = make_space("small", 8, 0);
		ASSERT_NE(NULL, space);
		EXPECT_EQ(-SIGKILL, slay(hold_in_child(space, "small", 0, 1)));
		klock_space_close(space);
		ASSERT_EQ(0, unload());
		ASSERT_TRUE(gone());
	}
	/* One of the large is 8 MiB. */
	EXPECT_LT(before - available_kb(), 64 * 1024);
}

TEST_HARNESS_MAIN
