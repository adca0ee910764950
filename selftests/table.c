// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The table of ids: which id an allocation gives, what freeing one means to who
 * holds, waits or has an old handle, and spaces that grow and shrink in use.
 *
 * Handles are not put: they go with the process, and each test is one.
 */
#include "klock_test.h"

#define CAPACITY	64
#define IDS_ABOVE(cap)	{ (cap), (cap) + 1, 1U << 20, UINT32_MAX - 1, UINT32_MAX }

/* The id, or -errno */
static int allocate(struct klock_space *space)
{
	struct klock *lock;
	int ret = klock_allocate(space, &lock);

	if (ret < 0)
		return ret;
	ret = klock_id(lock);
	klock_put(lock);
	return ret;
}

/* The id, or -errno */
static int allocate_id(struct klock_space *space, uint32_t id)
{
	struct klock *lock;
	int ret = klock_allocate_id(space, id, &lock);

	if (ret < 0)
		return ret;
	ret = klock_id(lock);
	klock_put(lock);
	return ret;
}

static int free_id(struct klock_space *space, uint32_t id)
{
	struct klock *lock;
	int ret = klock_retrieve(space, id, 0, &lock);

	if (ret < 0)
		return ret;
	ret = klock_free(lock);
	klock_put(lock);
	return ret;
}

static bool is_allocated(struct klock_space *space, uint32_t id)
{
	struct klock *lock;
	int ret = klock_retrieve(space, id, KLOCK_MUST_EXIST, &lock);

	if (ret == 0)
		klock_put(lock);
	return ret == 0;
}

static struct klock_space_info info_of(struct klock_space *space)
{
	struct klock_space_info info;

	POISON(info);
	if (klock_space_info(space, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

static uint32_t capacity_of(struct klock_space *space)
{
	return info_of(space).capacity;
}

FIXTURE(table)
{
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
};

FIXTURE_VARIANT(table)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(table, normal) { .flags = 0 };
FIXTURE_VARIANT_ADD(table, errorcheck) { .flags = KLOCK_ERRORCHECK };

FIXTURE_SETUP(table)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, variant->flags);
	ASSERT_NE(NULL, self->space);
}

FIXTURE_TEARDOWN(table)
{
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
}

/* 2.1 */

TEST_F(table, allocates_the_lowest_free_id)
{
	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(i, allocate(self->space));
	}
	ASSERT_EQ(0, free_id(self->space, 7));
	ASSERT_EQ(0, free_id(self->space, 2));
	ASSERT_EQ(0, free_id(self->space, 4));
	EXPECT_EQ(2, allocate(self->space));
	EXPECT_EQ(4, allocate(self->space));
	EXPECT_EQ(7, allocate(self->space));
	EXPECT_EQ(10, allocate(self->space));
}

TEST_F(table, allocates_the_lowest_free_id_of_all_clients)
{
	struct klock_space *other = join_space(self->name, 0);

	ASSERT_NE(NULL, other);
	EXPECT_EQ(0, allocate(self->space));
	EXPECT_EQ(1, allocate(other));
	EXPECT_EQ(2, allocate(self->space));
	EXPECT_EQ(0, free_id(other, 0));
	EXPECT_EQ(0, allocate(other));
	EXPECT_EQ(3, info_of(self->space).allocated);
}

TEST_F(table, enospc_when_all_are_taken)
{
	for (int i = 0; i < CAPACITY; i++) {
		ASSERT_EQ(i, allocate(self->space));
	}
	EXPECT_EQ(-ENOSPC, allocate(self->space));
	EXPECT_EQ(CAPACITY, info_of(self->space).allocated);

	ASSERT_EQ(0, free_id(self->space, 41));
	EXPECT_EQ(41, allocate(self->space));
	EXPECT_EQ(-ENOSPC, allocate(self->space));
}

TEST_F(table, capacity_is_2048_by_default)
{
	char name[KLOCK_NAME_SIZE + 8];
	struct klock_space *space;

	snprintf(name, sizeof(name), "%s-d", self->name);
	space = make_space(name, 0, variant->flags);
	ASSERT_NE(NULL, space);
	EXPECT_EQ(2048, capacity_of(space));
	for (int i = 0; i < 2048; i++) {
		EXPECT_EQ(i, allocate(space)) break;
	}
	EXPECT_EQ(-ENOSPC, allocate(space));
	EXPECT_EQ(0, klock_space_remove(name, KLOCK_FORCE));
}

TEST_F(table, a_table_of_one)
{
	char name[KLOCK_NAME_SIZE + 8];
	struct klock_space *space;

	snprintf(name, sizeof(name), "%s-1", self->name);
	space = make_space(name, 1, variant->flags);
	ASSERT_NE(NULL, space);
	EXPECT_EQ(0, allocate(space));
	EXPECT_EQ(-ENOSPC, allocate(space));
	EXPECT_EQ(-EEXIST, allocate_id(space, 0));
	EXPECT_EQ(-EINVAL, allocate_id(space, 1));
	EXPECT_EQ(0, klock_lock(get_lock(space, 0)));
	EXPECT_EQ(0, klock_unlock(get_lock(space, 0)));
	EXPECT_EQ(0, free_id(space, 0));
	EXPECT_EQ(0, klock_space_remove(name, KLOCK_FORCE));
}

TEST_F(table, allocate_id_takes_the_given_id)
{
	EXPECT_EQ(2, allocate_id(self->space, 2));
	EXPECT_EQ(CAPACITY - 1, allocate_id(self->space, CAPACITY - 1));
	EXPECT_EQ(0, allocate(self->space));
	EXPECT_EQ(1, allocate(self->space));
	EXPECT_EQ(3, allocate(self->space));
}

TEST_F(table, allocate_id_of_a_taken_id_is_eexist)
{
	ASSERT_EQ(0, allocate(self->space));
	ASSERT_EQ(5, allocate_id(self->space, 5));
	EXPECT_EQ(-EEXIST, allocate_id(self->space, 0));
	EXPECT_EQ(-EEXIST, allocate_id(self->space, 5));
	EXPECT_EQ(2, info_of(self->space).allocated);

	ASSERT_EQ(0, free_id(self->space, 5));
	EXPECT_EQ(5, allocate_id(self->space, 5));
}

TEST_F(table, allocate_id_at_and_above_the_capacity_is_einval)
{
	const uint32_t ids[] = IDS_ABOVE(CAPACITY);

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		EXPECT_EQ(-EINVAL, allocate_id(self->space, ids[i]));
	}
	EXPECT_EQ(0, info_of(self->space).allocated);
}

TEST_F(table, four_processes_allocate_distinct_ids)
{
	_Atomic int *taken = shared(CAPACITY * 1000 * sizeof(*taken));
	_Atomic int *ready = shared(sizeof(*ready));
	pid_t pid[4];

	ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY * 1000));
	for (int i = 0; i < 4; i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			struct klock_space *space = join_space(self->name, 0);

			CHECK(space);
			(*ready)++;
			CHECK(UNTIL(*ready == 4));
			for (int n = 0; n < 2000; n++) {
				int id = allocate(space);

				CHECK(id >= 0);
				CHECK(taken[id]++ == 0);
			}
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	/* Nobody freed any: so they are the lowest, too. */
	for (int id = 0; id < 8000; id++) {
		ASSERT_EQ(1, taken[id]);
	}
	EXPECT_EQ(8000, info_of(self->space).allocated);
}

/* 2.2 */

TEST_F(table, a_stale_and_a_new_handle_are_the_same_lock)
{
	struct klock_space *other = join_space(self->name, 0);
	struct klock *stale, *new;

	ASSERT_NE(NULL, other);
	ASSERT_EQ(0, klock_allocate(self->space, &stale));
	ASSERT_EQ(0, klock_free(stale));
	ASSERT_EQ(0, klock_allocate(other, &new));
	ASSERT_EQ(klock_id(stale), klock_id(new));

	EXPECT_EQ(0, klock_trylock(new));
	EXPECT_EQ(-EBUSY, klock_trylock(stale));
	EXPECT_EQ(0, klock_unlock(new));
	EXPECT_EQ(0, klock_trylock(stale));
	EXPECT_EQ(-EBUSY, klock_trylock(new));
	EXPECT_EQ(0, klock_unlock(stale));
}

TEST_F(table, a_stale_and_a_new_handle_of_one_client_unlock_for_each_other)
{
	struct klock *stale, *new;

	ASSERT_EQ(0, klock_allocate(self->space, &stale));
	ASSERT_EQ(0, klock_lock(stale));
	ASSERT_EQ(0, klock_free(stale));
	ASSERT_EQ(0, klock_allocate(self->space, &new));
	ASSERT_EQ(klock_id(stale), klock_id(new));
	EXPECT_EQ(-EBUSY, klock_trylock(new));
	EXPECT_EQ(0, klock_unlock(new));
	EXPECT_EQ(-EPERM, klock_unlock(stale));
}

TEST_F(table, a_number_is_the_same_lock_in_all_processes)
{
	struct klock *lock;
	pid_t pid;

	ASSERT_EQ(0, klock_allocate(self->space, &lock));
	ASSERT_EQ(0, klock_lock(lock));
	pid = wait_in_child(self->space, self->name, variant->flags, klock_id(lock));
	ASSERT_GT(pid, 0);
	ASSERT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, reap(pid));
}

/* 2.3 */

TEST_F(table, ids_never_allocated_can_be_retrieved_locked_and_unlocked)
{
	const uint32_t ids[] = { 0, 1, CAPACITY / 2, CAPACITY - 1 };
	struct klock_space *other = join_space(self->name, 0);
	struct klock *lock;

	ASSERT_NE(NULL, other);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		ASSERT_EQ(0, klock_retrieve(self->space, ids[i], 0, &lock));
		EXPECT_EQ(ids[i], klock_id(lock));
		EXPECT_EQ(0, klock_lock(lock));
		EXPECT_EQ(-EBUSY, klock_trylock(get_lock(other, ids[i])));
		EXPECT_EQ(0, klock_unlock(lock));
		EXPECT_EQ(-EPERM, klock_unlock(lock));
		EXPECT_EQ(-ENOENT, klock_free(lock));
	}
	EXPECT_EQ(0, info_of(self->space).allocated);
}

TEST_F(table, retrieve_at_and_above_the_capacity_is_einval)
{
	const uint32_t ids[] = IDS_ABOVE(CAPACITY);
	struct klock *lock;

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		EXPECT_EQ(-EINVAL, klock_retrieve(self->space, ids[i], 0, &lock));
		EXPECT_EQ(-EINVAL, klock_retrieve(self->space, ids[i], KLOCK_MUST_EXIST, &lock));
	}
}

static void refuses(struct __test_metadata *_metadata, int fd, uint32_t capacity)
{
	const uint32_t ids[] = IDS_ABOVE(capacity);

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		struct klock_ioc_id id = { .id = ids[i] };
		struct klock_ioc_allocate want = { .flags = KLOCK_ALLOCATE_ID, .id = ids[i] };
		struct klock_ioc_status status;

		EXPECT_EQ(-EINVAL, raw_lock(fd, ids[i], 0, 0));
		EXPECT_EQ(-EINVAL, raw_lock(fd, ids[i], KLOCK_LOCK_TRY, 0));
		EXPECT_EQ(-EINVAL, raw_lock(fd, ids[i], KLOCK_LOCK_DEADLINE, 1));
		EXPECT_EQ(-EINVAL, raw_unlock(fd, ids[i]));
		EXPECT_EQ(-EINVAL, raw_status(fd, ids[i], &status));
		EXPECT_EQ(-EINVAL, raw_ioctl(fd, KLOCK_IOC_RETRIEVE, &id));
		EXPECT_EQ(-EINVAL, raw_ioctl(fd, KLOCK_IOC_FREE, &id));
		EXPECT_EQ(-EINVAL, raw_ioctl(fd, KLOCK_IOC_ALLOCATE, &want));
	}
}

/* Also where the table ends with its last page, so that there is no word there. */
TEST_F(table, the_kernel_refuses_ids_at_and_above_the_capacity)
{
	uint32_t page = sysconf(_SC_PAGESIZE) / sizeof(uint64_t);
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;

	refuses(_metadata, klock_space_fd(self->space), CAPACITY);
	snprintf(name, sizeof(name), "pages-%d", getpid());
	space = make_space(name, 2 * page, variant->flags);
	ASSERT_NE(NULL, space);
	refuses(_metadata, klock_space_fd(space), 2 * page);
	klock_space_close(space);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

TEST_F(table, must_exist_asks_whether_the_id_is_allocated)
{
	struct klock *lock, *again;

	EXPECT_EQ(-ENOENT, klock_retrieve(self->space, 0, KLOCK_MUST_EXIST, &lock));
	ASSERT_EQ(0, klock_allocate(self->space, &lock));
	EXPECT_EQ(0, klock_retrieve(self->space, 0, KLOCK_MUST_EXIST, &again));
	EXPECT_EQ(0, klock_id(again));
	ASSERT_EQ(0, klock_free(lock));
	EXPECT_EQ(-ENOENT, klock_retrieve(self->space, 0, KLOCK_MUST_EXIST, &again));

	/* Held is not allocated. */
	ASSERT_EQ(0, klock_lock(lock));
	EXPECT_EQ(-ENOENT, klock_retrieve(self->space, 0, KLOCK_MUST_EXIST, &again));
	EXPECT_EQ(0, klock_unlock(lock));
}

/* 2.4 */

TEST_F(table, free_changes_nothing_for_holder_and_waiter)
{
	struct klock_space *other = join_space(self->name, 0);
	struct klock_status before, after;
	struct klock *lock;
	pid_t pid;

	ASSERT_NE(NULL, other);
	ASSERT_EQ(0, klock_allocate(self->space, &lock));
	ASSERT_EQ(0, klock_lock(lock));
	pid = wait_in_child(self->space, self->name, variant->flags, klock_id(lock));
	ASSERT_GT(pid, 0);

	before = status_of(lock);
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_HELD | KLOCK_MINE, before.flags);
	EXPECT_EQ(0, free_id(other, klock_id(lock)));
	after = status_of(lock);
	before.flags &= ~KLOCK_ALLOCATED;
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));

	/* It is given out again, and still is the lock that they mean. */
	EXPECT_EQ(klock_id(lock), allocate(other));
	EXPECT_EQ(-EBUSY, klock_trylock(get_lock(other, klock_id(lock))));
	EXPECT_EQ(1, waiters_of(lock));
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, reap(pid));
}

TEST_F(table, free_keeps_a_pending_owner_died)
{
	struct klock *lock;
	pid_t pid;

	ASSERT_EQ(0, klock_allocate(self->space, &lock));
	pid = hold_in_child(self->space, self->name, variant->flags, klock_id(lock));
	ASSERT_GT(pid, 0);
	ASSERT_EQ(-SIGKILL, slay(pid));
	EXPECT_EQ(0, klock_free(lock));
	EXPECT_EQ(KLOCK_DIED, status_of(lock).flags);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock(lock));
}

TEST_F(table, free_of_an_id_that_is_not_allocated_is_enoent)
{
	EXPECT_EQ(-ENOENT, free_id(self->space, 0));
	ASSERT_EQ(0, allocate(self->space));
	EXPECT_EQ(-ENOENT, free_id(self->space, 1));
	EXPECT_EQ(0, free_id(self->space, 0));
	EXPECT_EQ(-ENOENT, free_id(self->space, 0));
}

TEST_F(table, free_all_frees_every_id)
{
	struct klock *lock;

	EXPECT_EQ(0, klock_free_all(self->space));
	for (int i = 0; i < CAPACITY; i++) {
		ASSERT_EQ(i, allocate(self->space));
	}
	lock = get_lock(self->space, 3);
	ASSERT_EQ(0, klock_lock(lock));

	EXPECT_EQ(0, klock_free_all(self->space));
	EXPECT_EQ(0, info_of(self->space).allocated);
	for (int i = 0; i < CAPACITY; i++) {
		EXPECT_EQ(-ENOENT, free_id(self->space, i));
	}
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(lock).flags);
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, allocate(self->space));
}

/* 2.5 */

TEST_F(table, allocation_outlives_the_process_and_holding_does_not)
{
	struct klock *lock = get_lock(self->space, 9);
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(self->name, 0);

		CHECK(space);
		CHECK(allocate_id(space, 9) == 9);
		CHECK(klock_lock(get_lock(space, 9)) == 0);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_DIED, status_of(lock).flags);
	EXPECT_EQ(-EEXIST, allocate_id(self->space, 9));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(lock));
}

TEST_F(table, allocation_outlives_the_last_client)
{
	ASSERT_EQ(0, allocate(self->space));
	ASSERT_EQ(7, allocate_id(self->space, 7));
	klock_space_close(self->space);
	self->space = join_space(self->name, variant->flags);
	ASSERT_NE(NULL, self->space);
	EXPECT_TRUE(is_allocated(self->space, 0));
	EXPECT_TRUE(is_allocated(self->space, 7));
	EXPECT_EQ(2, info_of(self->space).allocated);
	EXPECT_EQ(CAPACITY, capacity_of(self->space));
}

TEST_F(table, allocation_ends_with_the_space)
{
	ASSERT_EQ(0, allocate(self->space));
	klock_space_close(self->space);
	ASSERT_EQ(0, klock_space_remove(self->name, 0));
	self->space = make_space(self->name, CAPACITY, variant->flags);
	ASSERT_NE(NULL, self->space);
	EXPECT_EQ(0, info_of(self->space).allocated);
	EXPECT_EQ(0, allocate(self->space));
}

/* 2.11 */

TEST_F(table, growing_changes_no_id)
{
	struct klock *mine = get_lock(self->space, 5);
	struct klock *died = get_lock(self->space, 6);
	struct klock *top;
	pid_t dead, waiter;

	for (int i = 0; i < CAPACITY; i += 2) {
		ASSERT_EQ(i, allocate_id(self->space, i));
	}
	ASSERT_EQ(0, klock_lock(mine));
	waiter = wait_in_child(self->space, self->name, variant->flags, 5);
	ASSERT_GT(waiter, 0);
	dead = hold_in_child(self->space, self->name, variant->flags, 6);
	ASSERT_GT(dead, 0);
	ASSERT_EQ(-SIGKILL, slay(dead));

	/* Over the end of a page of words (512) and of a word of the map of ids */
	for (uint32_t capacity = CAPACITY + 1; capacity < 5000; capacity = capacity * 3 / 2) {
		ASSERT_EQ(0, klock_space_resize(self->space, capacity));
		ASSERT_EQ(capacity, capacity_of(self->space));
		ASSERT_EQ(0, klock_retrieve(self->space, capacity - 1, 0, &top));
		ASSERT_EQ(0, klock_lock(top));
		ASSERT_EQ(0, klock_unlock(top));
		ASSERT_EQ(-EINVAL, allocate_id(self->space, capacity));
	}

	for (int i = 0; i < CAPACITY; i++) {
		EXPECT_EQ(i % 2 == 0, is_allocated(self->space, i));
	}
	EXPECT_EQ(CAPACITY / 2, info_of(self->space).allocated);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(mine).flags);
	EXPECT_EQ(1, waiters_of(mine));
	EXPECT_EQ(0, klock_unlock(mine));
	EXPECT_EQ(0, reap(waiter));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(died));
}

TEST_F(table, ids_that_another_client_has_added_can_be_retrieved)
{
	struct klock_space *other = join_space(self->name, 0);
	struct klock *lock;

	ASSERT_NE(NULL, other);
	ASSERT_EQ(-EINVAL, klock_retrieve(self->space, CAPACITY, 0, &lock));
	ASSERT_EQ(0, klock_space_resize(other, 2 * CAPACITY));
	EXPECT_EQ(0, klock_retrieve(self->space, CAPACITY, 0, &lock));
	EXPECT_EQ(0, klock_lock(lock));
	EXPECT_EQ(-EBUSY, klock_trylock(get_lock(other, CAPACITY)));
}

struct growth {
	_Atomic int owner[8192];	/* who was given the id */
	_Atomic int inside[8192];	/* who has the lock of that id */
	_Atomic uint32_t capacity;	/* before it grows: at least so much is there */
	_Atomic int rounds;
	_Atomic int full;		/* ENOSPC seen */
	_Atomic bool stop;
};

/* Takes the lock, on which nobody else may be inside then. */
static void visit(struct klock *lock, struct growth *growth, int me)
{
	uint32_t id = klock_id(lock);

	CHECK(klock_lock(lock) == 0);
	CHECK(atomic_exchange(&growth->inside[id], me) == 0);
	CHECK(atomic_exchange(&growth->inside[id], 0) == me);
	CHECK(klock_unlock(lock) == 0);
}

/* Allocates, locks and frees, with up to 16 ids at a time; never the lock 3. */
static void churn(const char *name, struct growth *growth, int me)
{
	struct klock_space *space = join_space(name, 0);
	struct klock *mine[16] = { NULL };
	unsigned int seed = me;

	CHECK(space);
	for (; !growth->stop; growth->rounds++) {
		struct klock **slot = &mine[rand_r(&seed) % 16];
		uint32_t id = rand_r(&seed) % growth->capacity;
		struct klock *any = get_lock(space, id);
		int ret;

		CHECK(any);
		if (id != 3)
			visit(any, growth, me);
		klock_put(any);
		if (*slot) {
			id = klock_id(*slot);
			visit(*slot, growth, me);
			CHECK(atomic_exchange(&growth->owner[id], 0) == me);
			CHECK(klock_free(*slot) == 0);
			klock_put(*slot);
			*slot = NULL;
			continue;
		}
		ret = klock_allocate(space, slot);
		if (ret == -ENOSPC) {
			growth->full++;
			*slot = NULL;
			continue;
		}
		CHECK(ret == 0);
		CHECK(klock_id(*slot) < ARRAY_SIZE(growth->owner));
		CHECK(atomic_exchange(&growth->owner[klock_id(*slot)], me) == 0);
	}
	_exit(0);
}

TEST_F(table, grow_while_4_processes_allocate_lock_and_free)
{
	struct growth *growth = shared(sizeof(*growth));
	struct klock *mine = get_lock(self->space, 3);
	uint32_t capacity = 32;
	pid_t pid[4];

	/* Fewer than the 4 want, at first */
	ASSERT_EQ(0, klock_space_resize(self->space, capacity));
	ASSERT_EQ(3, allocate_id(self->space, 3));
	ASSERT_EQ(0, klock_lock(mine));
	growth->owner[3] = -1;
	growth->capacity = capacity;
	for (int i = 0; i < 4; i++) {
		pid[i] = spawn();
		if (pid[i] == 0)
			churn(self->name, growth, i + 1);
	}
	EXPECT_TRUE(UNTIL(growth->full > 0));
	for (; capacity <= ARRAY_SIZE(growth->owner); capacity += capacity / 8) {
		int rounds = growth->rounds;

		EXPECT_EQ(0, klock_space_resize(self->space, capacity)) break;
		growth->capacity = capacity;
		EXPECT_TRUE(UNTIL(growth->rounds >= rounds + 200)) break;
	}
	growth->stop = true;
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	TH_LOG("%d rounds, %d times no id was free", growth->rounds, growth->full);

	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_HELD | KLOCK_MINE, status_of(mine).flags);
	for (uint32_t id = 0; id < growth->capacity; id++) {
		EXPECT_EQ(growth->owner[id] != 0, is_allocated(self->space, id)) break;
	}
}

/* Shrinking to 10 is refused and changes nothing: no capacity, no lock in use, no died bit. */
static void expect_refusal(struct __test_metadata *_metadata, struct klock_space *space)
{
	struct klock_status before[CAPACITY], after[CAPACITY];
	int count, again;

	POISON(before);
	POISON(after);
	count = klock_list(space, 0, before, CAPACITY);
	EXPECT_LT(0, count);
	EXPECT_EQ(-EBUSY, klock_space_resize(space, 10));
	EXPECT_EQ(CAPACITY, capacity_of(space));
	again = klock_list(space, 0, after, CAPACITY);
	EXPECT_EQ(count, again);
	EXPECT_EQ(0, memcmp(before, after, count * sizeof(before[0])));

	/* Free locks are as good as before, on both sides of what stood in the way. */
	for (int id = 10; id < CAPACITY; id += CAPACITY - 11) {
		EXPECT_EQ(0, klock_trylock(get_lock(space, id)));
		EXPECT_EQ(0, klock_unlock(get_lock(space, id)));
	}
}

TEST_F(table, shrink_is_refused_while_an_id_above_is_allocated)
{
	ASSERT_EQ(40, allocate_id(self->space, 40));
	expect_refusal(_metadata, self->space);
	EXPECT_TRUE(is_allocated(self->space, 40));
}

TEST_F(table, shrink_is_refused_while_a_lock_above_is_held)
{
	struct klock *died = get_lock(self->space, 30);
	struct klock *held = get_lock(self->space, 40);
	struct klock *died_above = get_lock(self->space, 50);
	pid_t pid;

	for (int id = 30; id <= 50; id += 20) {
		pid = hold_in_child(self->space, self->name, variant->flags, id);
		ASSERT_GT(pid, 0);
		ASSERT_EQ(-SIGKILL, slay(pid));
	}
	pid = hold_in_child(self->space, self->name, variant->flags, 40);
	ASSERT_GT(pid, 0);
	expect_refusal(_metadata, self->space);
	EXPECT_EQ(-EBUSY, klock_trylock(held));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(died));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_trylock(died_above));
	EXPECT_EQ(-SIGKILL, slay(pid));
}

TEST_F(table, shrink_is_refused_while_a_lock_above_is_waited_for)
{
	struct klock *lock = get_lock(self->space, 40);
	pid_t pid;

	ASSERT_EQ(0, klock_lock(lock));
	pid = wait_in_child(self->space, self->name, variant->flags, 40);
	ASSERT_GT(pid, 0);
	expect_refusal(_metadata, self->space);
	EXPECT_EQ(0, klock_unlock(lock));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, klock_space_resize(self->space, 10));
}

/*
 * The last moment at which a lock is waited for: its holder unlocks, and the
 * waiter, who has not woken up yet, has it or keeps the shrinking away.
 */
TEST_F(table, who_waited_before_a_shrink_gets_the_lock)
{
	struct klock *lock = get_lock(self->space, 40);
	_Atomic bool *stop = shared(sizeof(*stop));
	_Atomic int *shrunk = shared(sizeof(*shrunk));
	pid_t shrinker = spawn();

	if (shrinker == 0) {
		struct klock_space *space = join_space(self->name, 0);

		CHECK(space);
		while (!*stop) {
			int ret = klock_space_resize(space, 10);

			CHECK(ret == 0 || ret == -EBUSY);
			if (ret == 0)
				++*shrunk;
			CHECK(klock_space_resize(space, CAPACITY) == 0);
		}
		_exit(0);
	}
	for (int i = 0; i < fewer(100); i++) {
		int ret;
		pid_t pid;

		/* It is gone for moments while nobody holds it, rightly. */
		while ((ret = klock_lock(lock)) == -EINVAL)
			;
		ASSERT_EQ(0, ret);
		pid = wait_in_child(self->space, self->name, variant->flags, 40);
		ASSERT_GT(pid, 0);
		ASSERT_EQ(0, klock_unlock(lock));
		ASSERT_EQ(0, reap(pid));
	}
	EXPECT_TRUE(UNTIL(*shrunk > 0));
	*stop = true;
	EXPECT_EQ(0, reap(shrinker));
	TH_LOG("shrunk %d times meanwhile", *shrunk);
}

/* While it finds out that it must be refused, nobody may be told that there is no such lock. */
TEST_F(table, a_refused_shrink_is_seen_by_nobody)
{
	const uint32_t ids[] = { 12, 12, 39, 41 };
	_Atomic bool *stop = shared(sizeof(*stop));
	_Atomic int *rounds = shared(sizeof(*rounds));
	pid_t pid[ARRAY_SIZE(ids)];

	ASSERT_EQ(0, klock_lock(get_lock(self->space, 40)));
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			struct klock_space *space = join_space(self->name, 0);
			struct klock *lock;

			CHECK(space);
			lock = get_lock(space, ids[i]);
			for (; !*stop; ++*rounds) {
				CHECK(klock_lock(lock) == 0);
				CHECK(klock_unlock(lock) == 0);
			}
			_exit(0);
		}
	}
	EXPECT_TRUE(UNTIL(*rounds > 0));
	for (int i = 0; i < 3000; i++) {
		EXPECT_EQ(-EBUSY, klock_space_resize(self->space, 10)) break;
	}
	*stop = true;
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	TH_LOG("locked %d times meanwhile", *rounds);
}

TEST_F(table, shrink_and_grow_again)
{
	struct klock *above = get_lock(self->space, 40), *top = get_lock(self->space, 10);
	struct klock *none;

	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(i, allocate(self->space));
	}
	ASSERT_EQ(0, klock_lock(get_lock(self->space, 9)));
	for (int i = 0; i < 20; i++) {
		ASSERT_EQ(0, klock_space_resize(self->space, 10));
		ASSERT_EQ(10, capacity_of(self->space));
		ASSERT_EQ(-ENOSPC, allocate(self->space));
		ASSERT_EQ(-EINVAL, allocate_id(self->space, 10));
		ASSERT_EQ(-EINVAL, klock_retrieve(self->space, 10, 0, &none));

		/* Handles that were there before */
		ASSERT_EQ(-EINVAL, klock_lock(top));
		ASSERT_EQ(-EINVAL, klock_lock(above));
		ASSERT_EQ(-EINVAL, klock_trylock(above));
		ASSERT_EQ(-EINVAL, klock_unlock(above));
		ASSERT_EQ(-EINVAL, klock_free(above));

		ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY));
		ASSERT_EQ(CAPACITY, capacity_of(self->space));
		ASSERT_EQ(0, klock_lock(above));
		ASSERT_EQ(0, klock_unlock(above));
		ASSERT_EQ(10, allocate(self->space));
		ASSERT_EQ(0, free_id(self->space, 10));
	}
	EXPECT_EQ(KLOCK_ALLOCATED | KLOCK_HELD | KLOCK_MINE,
		  status_of(get_lock(self->space, 9)).flags);
}

TEST_F(table, shrink_is_allowed_down_to_the_highest_id_in_use)
{
	struct klock *held = get_lock(self->space, 30);

	ASSERT_EQ(20, allocate_id(self->space, 20));
	ASSERT_EQ(0, klock_lock(held));
	EXPECT_EQ(-EBUSY, klock_space_resize(self->space, 30));
	EXPECT_EQ(0, klock_space_resize(self->space, 31));
	ASSERT_EQ(0, klock_unlock(held));
	EXPECT_EQ(-EBUSY, klock_space_resize(self->space, 20));
	EXPECT_EQ(0, klock_space_resize(self->space, 21));
	ASSERT_EQ(0, free_id(self->space, 20));
	EXPECT_EQ(0, klock_space_resize(self->space, 1));
	EXPECT_EQ(0, allocate(self->space));
	EXPECT_EQ(-ENOSPC, allocate(self->space));
}

TEST_F(table, shrink_forgets_a_pending_owner_died)
{
	struct klock *lock = get_lock(self->space, 40);
	pid_t pid = hold_in_child(self->space, self->name, variant->flags, 40);

	ASSERT_GT(pid, 0);
	ASSERT_EQ(-SIGKILL, slay(pid));
	ASSERT_EQ(KLOCK_DIED, status_of(lock).flags);
	EXPECT_EQ(0, klock_space_resize(self->space, 40));
	EXPECT_EQ(0, klock_space_resize(self->space, 41));
	EXPECT_EQ(0, status_of(lock).flags);
	EXPECT_EQ(0, klock_trylock(lock));
}

TEST_F(table, resize_to_none_or_too_many_is_einval)
{
	struct klock_ioc_api api;
	struct klock_space_attr attr = { 0 };
	struct klock_space *space;

	POISON(api);
	ASSERT_EQ(0, raw_ioctl(klock_space_fd(self->space), KLOCK_IOC_GET_API, &api));
	EXPECT_EQ(-EINVAL, klock_space_resize(self->space, 0));
	EXPECT_EQ(-EINVAL, klock_space_resize(self->space, api.max_capacity + 1));
	EXPECT_EQ(-EINVAL, klock_space_resize(self->space, UINT32_MAX));
	EXPECT_EQ(CAPACITY, capacity_of(self->space));

	attr.capacity = api.max_capacity + 1;
	EXPECT_EQ(-EINVAL, klock_space_open("table-too-large", KLOCK_CREATE, &attr, &space));
	EXPECT_EQ(-ENOENT, klock_space_open("table-too-large", 0, NULL, &space));
}

/* What the table must do, in the simplest form */
struct model {
	bool taken[3 * CAPACITY];
	int capacity;
};

static int model_lowest(const struct model *model)
{
	for (int id = 0; id < model->capacity; id++)
		if (!model->taken[id])
			return id;
	return -ENOSPC;
}

static int model_resize(struct model *model, int capacity)
{
	for (int id = capacity; id < model->capacity; id++)
		if (model->taken[id])
			return -EBUSY;
	model->capacity = capacity;
	return 0;
}

/* One call of a random kind and id, on the model, whose answer is returned, and on the space. */
static int random_call(struct model *model, struct klock_space *space, unsigned int *seed,
		       int *seen)
{
	int kind = rand_r(seed) % 64, id = rand_r(seed) % (model->capacity + 2), ret;
	bool there = id < model->capacity;

	if (kind < 20) {
		*seen = allocate(space);
		ret = model_lowest(model);
		if (ret >= 0)
			model->taken[ret] = true;
	} else if (kind < 30) {
		*seen = allocate_id(space, id);
		ret = !there ? -EINVAL : model->taken[id] ? -EEXIST : id;
		if (ret >= 0)
			model->taken[id] = true;
	} else if (kind < 61) {
		*seen = free_id(space, id);
		ret = !there ? -EINVAL : !model->taken[id] ? -ENOENT : 0;
		if (ret == 0)
			model->taken[id] = false;
	} else if (kind < 63 || id) {
		id = 1 + rand_r(seed) % ARRAY_SIZE(model->taken);
		*seen = klock_space_resize(space, id);
		ret = model_resize(model, id);
	} else {
		*seen = klock_free_all(space);
		ret = 0;
		memset(model->taken, 0, sizeof(model->taken));
	}
	return ret;
}

TEST_F(table, random_calls_do_what_a_model_does)
{
	struct model model = { .capacity = CAPACITY };
	unsigned int seed = 1;

	for (int i = 0; i < 20000; i++) {
		int seen, expected = random_call(&model, self->space, &seed, &seen);

		ASSERT_EQ(expected, seen) TH_LOG("in call %d", i);
		if (i % 1000)
			continue;
		ASSERT_EQ(model.capacity, capacity_of(self->space));
		for (int id = 0; id < model.capacity; id++) {
			ASSERT_EQ(model.taken[id], is_allocated(self->space, id));
		}
	}
}

/* The largest table, once */
FIXTURE(largest)
{
	char name[KLOCK_NAME_SIZE];
	int fd;
	uint32_t capacity;
};

FIXTURE_SETUP(largest)
{
	struct klock_ioc_api api;
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, fd);
	POISON(api);
	ASSERT_EQ(0, raw_ioctl(fd, KLOCK_IOC_GET_API, &api));
	close(fd);
	self->capacity = api.max_capacity;
	SPACE_NAME(self->name);
	self->fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, self->capacity);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(largest)
{
	close(self->fd);
	EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
}

TEST_F_TIMEOUT(largest, can_be_filled_whole, 120)
{
	struct klock_ioc_allocate any = { 0 };
	struct klock_ioc_id id = { 0 };
	uint64_t start = now_ns(CLOCK_MONOTONIC), end;

	for (uint32_t i = 0; i < self->capacity; i++) {
		ASSERT_EQ((int)i, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &any));
	}
	end = now_ns(CLOCK_MONOTONIC);
	TH_LOG("%u locks allocated in %llu ms", self->capacity, (end - start) / NSEC_PER_MSEC);
	EXPECT_EQ(-ENOSPC, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &any));

	for (id.id = self->capacity - 1; id.id > 0; id.id /= 3) {
		ASSERT_EQ(0, raw_ioctl(self->fd, KLOCK_IOC_FREE, &id));
		EXPECT_EQ((int)id.id, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &any));
	}
	EXPECT_EQ(-ENOSPC, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &any));

	id.id = 0;
	EXPECT_EQ(0, raw_ioctl(self->fd, KLOCK_IOC_FREE_ALL, &id));
	EXPECT_EQ(0, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &any));
}

TEST_F(largest, first_and_last_lock_work)
{
	const uint32_t ids[] = { 0, self->capacity / 2, self->capacity - 1 };
	int other = raw_attach(self->name, 0, 0);

	ASSERT_LE(0, other);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		EXPECT_EQ(0, raw_lock(self->fd, ids[i], 0, 0));
		EXPECT_EQ(-EBUSY, raw_lock(other, ids[i], KLOCK_LOCK_TRY, 0));
		EXPECT_EQ(0, raw_unlock(self->fd, ids[i]));
	}
	EXPECT_EQ(-EINVAL, raw_lock(self->fd, self->capacity, 0, 0));
}

TEST_HARNESS_MAIN
