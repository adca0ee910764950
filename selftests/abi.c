// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The ABI: structs and numbers, and what is not well-formed.
 *
 * Bare ioctls, without the library, so that it can be built for 32 bit too.
 * It begins with the record of the ABI: the asserts here never change, other
 * than that fields and calls are added to them.
 */
#define _GNU_SOURCE

#include "klock_test.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#define SIZE(name, size) _Static_assert(sizeof(struct name) == (size), #name)
#define FIELD(name, field, offset, size)						\
	_Static_assert(offsetof(struct name, field) == (offset) &&			\
		       sizeof(((struct name *)0)->field) == (size), #name "." #field)
#define NUMBER(name, number) _Static_assert((name) == (number), #name)

SIZE(klock_ioc_api, 24);
FIELD(klock_ioc_api, version, 0, 4);
FIELD(klock_ioc_api, max_capacity, 4, 4);
FIELD(klock_ioc_api, max_passed, 8, 4);
FIELD(klock_ioc_api, reserved, 12, 4);
FIELD(klock_ioc_api, features, 16, 8);

SIZE(klock_ioc_attach, 96);
FIELD(klock_ioc_attach, flags, 0, 4);
FIELD(klock_ioc_attach, uid, 4, 4);
FIELD(klock_ioc_attach, space_fd, 8, 4);
FIELD(klock_ioc_attach, capacity, 12, 4);
FIELD(klock_ioc_attach, mode, 16, 4);
FIELD(klock_ioc_attach, space_flags, 20, 4);
FIELD(klock_ioc_attach, reserved, 24, 8);
FIELD(klock_ioc_attach, name, 32, 64);

SIZE(klock_ioc_space_fd, 8);
FIELD(klock_ioc_space_fd, flags, 0, 4);
FIELD(klock_ioc_space_fd, token, 4, 4);

SIZE(klock_ioc_info, 176);
FIELD(klock_ioc_info, capacity, 0, 4);
FIELD(klock_ioc_info, allocated, 4, 4);
FIELD(klock_ioc_info, held, 8, 4);
FIELD(klock_ioc_info, waiting, 12, 4);
FIELD(klock_ioc_info, clients, 16, 4);
FIELD(klock_ioc_info, uid, 20, 4);
FIELD(klock_ioc_info, gid, 24, 4);
FIELD(klock_ioc_info, mode, 28, 4);
FIELD(klock_ioc_info, flags, 32, 4);
FIELD(klock_ioc_info, reserved, 36, 4);
FIELD(klock_ioc_info, generation, 40, 8);
FIELD(klock_ioc_info, passed, 48, 8);
FIELD(klock_ioc_info, max_passed, 56, 8);
FIELD(klock_ioc_info, waits, 64, 8);
FIELD(klock_ioc_info, waited, 72, 8);
FIELD(klock_ioc_info, longest_wait, 80, 8);
FIELD(klock_ioc_info, deaths, 88, 8);
FIELD(klock_ioc_info, reserved2, 96, 16);
FIELD(klock_ioc_info, name, 112, 64);

SIZE(klock_ioc_resize, 8);
FIELD(klock_ioc_resize, capacity, 0, 4);
FIELD(klock_ioc_resize, flags, 4, 4);

SIZE(klock_ioc_remove, 72);
FIELD(klock_ioc_remove, flags, 0, 4);
FIELD(klock_ioc_remove, uid, 4, 4);
FIELD(klock_ioc_remove, name, 8, 64);

SIZE(klock_ioc_spaces, 88);
FIELD(klock_ioc_spaces, entries, 0, 8);
FIELD(klock_ioc_spaces, count, 8, 4);
FIELD(klock_ioc_spaces, entry_size, 12, 4);
FIELD(klock_ioc_spaces, flags, 16, 4);
FIELD(klock_ioc_spaces, after_uid, 20, 4);
FIELD(klock_ioc_spaces, after_name, 24, 64);

SIZE(klock_ioc_allocate, 8);
FIELD(klock_ioc_allocate, flags, 0, 4);
FIELD(klock_ioc_allocate, id, 4, 4);

SIZE(klock_ioc_id, 8);
FIELD(klock_ioc_id, id, 0, 4);
FIELD(klock_ioc_id, flags, 4, 4);

SIZE(klock_ioc_lock, 16);
FIELD(klock_ioc_lock, id, 0, 4);
FIELD(klock_ioc_lock, flags, 4, 4);
FIELD(klock_ioc_lock, deadline, 8, 8);

SIZE(klock_ioc_break, 16);
FIELD(klock_ioc_break, id, 0, 4);
FIELD(klock_ioc_break, token, 4, 4);
FIELD(klock_ioc_break, flags, 8, 4);
FIELD(klock_ioc_break, reserved, 12, 4);

SIZE(klock_ioc_status, 56);
FIELD(klock_ioc_status, id, 0, 4);
FIELD(klock_ioc_status, flags, 4, 4);
FIELD(klock_ioc_status, pid, 8, 4);
FIELD(klock_ioc_status, tid, 12, 4);
FIELD(klock_ioc_status, waiters, 16, 4);
FIELD(klock_ioc_status, token, 20, 4);
FIELD(klock_ioc_status, held_since, 24, 8);
FIELD(klock_ioc_status, waiting_since, 32, 8);
FIELD(klock_ioc_status, reserved, 40, 16);

SIZE(klock_ioc_waiter, 16);
FIELD(klock_ioc_waiter, pid, 0, 4);
FIELD(klock_ioc_waiter, tid, 4, 4);
FIELD(klock_ioc_waiter, since, 8, 8);

SIZE(klock_ioc_list, 24);
FIELD(klock_ioc_list, entries, 0, 8);
FIELD(klock_ioc_list, count, 8, 4);
FIELD(klock_ioc_list, entry_size, 12, 4);
FIELD(klock_ioc_list, id, 16, 4);
FIELD(klock_ioc_list, flags, 20, 4);

NUMBER(KLOCK_IOC_GET_API, 0x8018bc00);
NUMBER(KLOCK_IOC_ATTACH, 0x4060bc01);
NUMBER(KLOCK_IOC_SPACE_FD, 0xc008bc02);
NUMBER(KLOCK_IOC_INFO, 0x80b0bc03);
NUMBER(KLOCK_IOC_RESIZE, 0x4008bc04);
NUMBER(KLOCK_IOC_REMOVE, 0x4048bc05);
NUMBER(KLOCK_IOC_LIST_SPACES, 0x4058bc06);
NUMBER(KLOCK_IOC_ALLOCATE, 0x4008bc10);
NUMBER(KLOCK_IOC_RETRIEVE, 0x4008bc11);
NUMBER(KLOCK_IOC_FREE, 0x4008bc12);
NUMBER(KLOCK_IOC_FREE_ALL, 0x4008bc13);
NUMBER(KLOCK_IOC_LOCK, 0x4010bc20);
NUMBER(KLOCK_IOC_UNLOCK, 0x4008bc21);
NUMBER(KLOCK_IOC_BREAK, 0x4010bc22);
NUMBER(KLOCK_IOC_STATUS, 0xc038bc30);
NUMBER(KLOCK_IOC_LIST, 0x4018bc31);
NUMBER(KLOCK_IOC_WAITERS, 0x4018bc32);

/* Bits and values: those of each field, in its order. */
_Static_assert(KLOCK_WORD_TOKEN == 0x3fffffff && KLOCK_WORD_NONE == 0x3fffffff &&
	       KLOCK_WORD_DIED == 0x40000000 && KLOCK_WORD_WAITERS == 0x80000000 &&
	       KLOCK_WORD_TID_SHIFT == 32, "word");
_Static_assert(KLOCK_CAPACITY_MAX == 1048576 && KLOCK_CAPACITY_DEFAULT == 2048 &&
	       KLOCK_MODE_DEFAULT == 0600 && KLOCK_NAME_SIZE == 64 &&
	       KLOCK_API_VERSION == 1 && KLOCK_IOC_MAGIC == 0xbc, "values");
_Static_assert(KLOCK_ATTACH_CREATE == 1 && KLOCK_ATTACH_EXCL == 2 &&
	       KLOCK_ATTACH_ERRORCHECK == 4 && KLOCK_ATTACH_READONLY == 8 &&
	       KLOCK_ATTACH_UID == 16 && KLOCK_ATTACH_FD == 32, "attach");
_Static_assert(KLOCK_SPACE_MAPPABLE == 1 && KLOCK_SPACE_REMOVED == 2, "space");
_Static_assert(KLOCK_REMOVE_FORCE == 1 && KLOCK_REMOVE_UID == 2, "remove");
_Static_assert(KLOCK_ALLOCATE_ID == 1 && KLOCK_RETRIEVE_MUST_EXIST == 1, "ids");
_Static_assert(KLOCK_LOCK_TRY == 1 && KLOCK_LOCK_DEADLINE == 2 && KLOCK_LOCK_REALTIME == 4, "lock");
_Static_assert(KLOCK_STATUS_ALLOCATED == 1 && KLOCK_STATUS_HELD == 2 &&
	       KLOCK_STATUS_DIED == 4 && KLOCK_STATUS_MINE == 8, "status");

#define CAPACITY	16
#define LONGEST		_IOC_SIZEMASK	/* that a number can tell */
#define PAGE		4096UL
#define FEATURES	(sizeof(long) == 8 ? KLOCK_FEATURE_MAP : 0)

#define CALL(name) { #name, KLOCK_IOC_##name }
static const struct call {
	const char *name;
	unsigned int number;
} calls[] = {
	CALL(GET_API), CALL(ATTACH), CALL(SPACE_FD), CALL(INFO), CALL(RESIZE), CALL(REMOVE),
	CALL(LIST_SPACES), CALL(ALLOCATE), CALL(RETRIEVE), CALL(FREE), CALL(FREE_ALL),
	CALL(LOCK), CALL(UNLOCK), CALL(BREAK), CALL(STATUS), CALL(LIST), CALL(WAITERS),
};

static unsigned int resized(unsigned int number, size_t size)
{
	return _IOC(_IOC_DIR(number), _IOC_TYPE(number), _IOC_NR(number), size);
}

/* A space in which each call has something to do, see good_args(). */
FIXTURE(abi) {
	char name[KLOCK_NAME_SIZE];
	char victim[KLOCK_NAME_SIZE];	/* another space, to be removed */
	int other;	/* a client that holds lock 3 and looks how things are */
	int fd;		/* the client that is tested; holds lock 1 */
	int fresh;	/* for ATTACH */
};

#define SELF	FIXTURE_DATA(abi)

static bool build(SELF *self)
{
	struct klock_ioc_allocate allocate = {};
	int victim = raw_attach(self->victim, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 1);

	self->other = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, CAPACITY);
	self->fd = raw_attach(self->name, 0, 0);
	self->fresh = open("/dev/klock", O_RDWR | O_CLOEXEC);
	return victim >= 0 && close(victim) == 0 && self->fresh >= 0 &&
	       raw_ioctl(self->other, KLOCK_IOC_ALLOCATE, &allocate) == 0 &&
	       raw_ioctl(self->other, KLOCK_IOC_ALLOCATE, &allocate) == 1 &&
	       raw_lock(self->other, 3, 0, 0) == 0 && raw_lock(self->fd, 1, 0, 0) == 0;
}

static void raze(SELF *self)
{
	close(self->other);
	close(self->fd);
	close(self->fresh);
	raw_remove(self->name, KLOCK_REMOVE_FORCE);
	raw_remove(self->victim, KLOCK_REMOVE_FORCE);
}

/* After a call that worked. */
static bool rebuild(SELF *self)
{
	raze(self);
	return build(self);
}

FIXTURE_SETUP(abi)
{
	SPACE_NAME(self->name);
	snprintf(self->victim, sizeof(self->victim), "v-%.61s", self->name);
	ASSERT_TRUE(build(self));
}

FIXTURE_TEARDOWN(abi)
{
	raze(self);
}

/* Arguments with which the call works in a space that was just built. */
static union args good_args(const SELF *self, unsigned int number)
{
	union args args;

	memset(&args, 0, sizeof(args));
	switch (number) {
	case KLOCK_IOC_ATTACH:
		strcpy(args.attach.name, self->name);
		break;
	case KLOCK_IOC_RESIZE:
		args.resize.capacity = 2 * CAPACITY;
		break;
	case KLOCK_IOC_REMOVE:
		strcpy(args.remove.name, self->victim);
		break;
	case KLOCK_IOC_LIST_SPACES:
		args.spaces.entry_size = sizeof(struct klock_ioc_info);
		break;
	case KLOCK_IOC_LOCK:
		args.lock.id = 2;
		break;
	case KLOCK_IOC_UNLOCK:
		args.id.id = 1;
		break;
	case KLOCK_IOC_BREAK:
		args.brk.id = 3;
		break;
	case KLOCK_IOC_STATUS:
		args.status.id = 3;
		break;
	case KLOCK_IOC_LIST:
		args.list.entry_size = sizeof(struct klock_ioc_status);
		break;
	case KLOCK_IOC_WAITERS:
		args.list.entry_size = sizeof(struct klock_ioc_waiter);
		break;
	}
	return args;
}

static int fd_of(const SELF *self, unsigned int number)
{
	return _IOC_NR(number) == _IOC_NR(KLOCK_IOC_ATTACH) ? self->fresh : self->fd;
}

static int do_call(const SELF *self, unsigned int number, const void *args)
{
	return raw_ioctl(fd_of(self, number), number, args);
}

/* Whether this is what the call returns when it works. */
static bool is_good(unsigned int number, int ret)
{
	switch (_IOC_NR(number)) {
	case _IOC_NR(KLOCK_IOC_SPACE_FD):
		return ret > 2 && close(ret) == 0;
	case _IOC_NR(KLOCK_IOC_ATTACH):
		return ret == CAPACITY;
	case _IOC_NR(KLOCK_IOC_ALLOCATE):
		return ret == 2;
	default:
		return ret == 0;
	}
}

/* Whether the result is there, and what is reserved in it is 0. */
static bool is_result(const SELF *self, unsigned int number, const union args *args)
{
	static const char zero[sizeof(args->info.reserved2)];

	switch (_IOC_NR(number)) {
	case _IOC_NR(KLOCK_IOC_GET_API):
		return args->api.version == KLOCK_API_VERSION && !args->api.reserved &&
		       args->api.features == FEATURES;
	case _IOC_NR(KLOCK_IOC_SPACE_FD):
		return args->space_fd.token && !args->space_fd.flags;
	case _IOC_NR(KLOCK_IOC_INFO):
		return !strcmp(args->info.name, self->name) && !args->info.reserved &&
		       args->info.capacity == CAPACITY && args->info.held == 2 &&
		       !memcmp(args->info.reserved2, zero, sizeof(args->info.reserved2));
	case _IOC_NR(KLOCK_IOC_STATUS):
		return args->status.id == 3 && args->status.flags == KLOCK_STATUS_HELD &&
		       !memcmp(args->status.reserved, zero, sizeof(args->status.reserved));
	default:
		return true;
	}
}

/* All that a call could change. */
struct state {
	struct klock_ioc_info info;
	struct klock_ioc_status locks[4 * CAPACITY];
	struct klock_ioc_info spaces[256];
	int nr_locks, nr_spaces, fd;
};

static void look(const SELF *self, struct state *state)
{
	struct klock_ioc_list list = {
		.entries = (uintptr_t)state->locks,
		.count = ARRAY_SIZE(state->locks),
		.entry_size = sizeof(state->locks[0]),
	};
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)state->spaces,
		.count = ARRAY_SIZE(state->spaces),
		.entry_size = sizeof(state->spaces[0]),
	};

	memset(state, 0, sizeof(*state));
	if (raw_ioctl(self->other, KLOCK_IOC_INFO, &state->info))
		state->info.capacity = UINT32_MAX;
	state->nr_locks = raw_ioctl(self->other, KLOCK_IOC_LIST, &list);
	state->nr_spaces = raw_ioctl(self->other, KLOCK_IOC_LIST_SPACES, &spaces);
	state->fd = dup(0);	/* the lowest free one */
	close(state->fd);
}

static bool is_unchanged(const SELF *self, const struct state *before)
{
	static struct state now;

	look(self, &now);
	return !memcmp(before, &now, sizeof(now));
}

/* Memory of three pages: what is there, and a page that nobody may touch on each side. */
static char *page_alone(void)
{
	char *mem = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED || mprotect(mem + PAGE, PAGE, PROT_READ | PROT_WRITE)) {
		perror("# mmap");
		abort();
	}
	return mem + PAGE;
}

TEST_F(abi, good_calls)
{
	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		union args args = good_args(self, call->number);

		EXPECT_TRUE(is_good(call->number, do_call(self, call->number, &args)))
			TH_LOG("for %s", call->name);
		EXPECT_TRUE(is_result(self, call->number, &args)) TH_LOG("for %s", call->name);
		ASSERT_TRUE(rebuild(self));
	}
}

/* What the module says of itself. */
TEST_F(abi, get_api)
{
	FILE *file = fopen("/sys/module/klock/parameters/max_capacity", "r");
	struct klock_ioc_api api;
	unsigned int max = 0;

	ASSERT_NE(NULL, file);
	EXPECT_EQ(1, fscanf(file, "%u", &max));
	fclose(file);
	POISON(api);
	EXPECT_EQ(0, raw_ioctl(self->fresh, KLOCK_IOC_GET_API, &api));
	EXPECT_EQ(KLOCK_API_VERSION, api.version);
	EXPECT_EQ(max, api.max_capacity);
	EXPECT_GE(KLOCK_CAPACITY_MAX, api.max_capacity);
	EXPECT_LT(0, api.max_passed);
	EXPECT_GT(1000, api.max_passed);
	EXPECT_EQ(0, api.reserved);
	EXPECT_EQ(FEATURES, api.features);
}

/* The words can be mapped, but not by a 32-bit program, whose writes of them might be two. */
TEST_F(abi, mapping)
{
	struct klock_ioc_space_fd arg = { 0 };
	int space_fd = raw_ioctl(self->fd, KLOCK_IOC_SPACE_FD, &arg);
	volatile uint32_t *words;

	ASSERT_LE(0, space_fd);
	errno = 0;
	words = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, space_fd, 0);
	if (!FEATURES) {
		EXPECT_EQ(MAP_FAILED, words);
		EXPECT_EQ(EOPNOTSUPP, errno);
	} else {
		ASSERT_NE(MAP_FAILED, words);
		EXPECT_EQ(0, words[0]);
		EXPECT_EQ(arg.token, words[2]);			/* it holds lock 1 */
		EXPECT_EQ(KLOCK_WORD_NONE, words[2 * CAPACITY]);
		munmap((void *)words, PAGE);
	}
	close(space_fd);
}

/*
 * Each word of a struct in which bits must be 0, with those that may be 1 in
 * it.  What is out, and what only counts with some flag, must be 0 as well.
 */
#define MUST_BE_0(call, type, field, may) \
	{ #call "." #field, KLOCK_IOC_##call, offsetof(struct type, field), may }

static const struct {
	const char *name;
	unsigned int number;
	size_t offset;
	uint32_t may;
} must_be_0[] = {
	MUST_BE_0(ATTACH, klock_ioc_attach, flags, 0x3f),
	MUST_BE_0(ATTACH, klock_ioc_attach, uid, 0),
	MUST_BE_0(ATTACH, klock_ioc_attach, space_fd, 0),
	MUST_BE_0(ATTACH, klock_ioc_attach, capacity, 0),
	MUST_BE_0(ATTACH, klock_ioc_attach, mode, 0),
	MUST_BE_0(ATTACH, klock_ioc_attach, space_flags, 0),
	MUST_BE_0(ATTACH, klock_ioc_attach, reserved[0], 0),
	MUST_BE_0(ATTACH, klock_ioc_attach, reserved[1], 0),
	MUST_BE_0(SPACE_FD, klock_ioc_space_fd, flags, 0),
	MUST_BE_0(RESIZE, klock_ioc_resize, flags, 0),
	MUST_BE_0(REMOVE, klock_ioc_remove, flags, 3),
	MUST_BE_0(REMOVE, klock_ioc_remove, uid, 0),
	MUST_BE_0(LIST_SPACES, klock_ioc_spaces, flags, 0),
	MUST_BE_0(LIST_SPACES, klock_ioc_spaces, after_uid, 0),
	MUST_BE_0(ALLOCATE, klock_ioc_allocate, flags, 1),
	MUST_BE_0(ALLOCATE, klock_ioc_allocate, id, 0),
	MUST_BE_0(RETRIEVE, klock_ioc_id, flags, 1),
	MUST_BE_0(FREE, klock_ioc_id, flags, 0),
	MUST_BE_0(FREE_ALL, klock_ioc_id, id, 0),
	MUST_BE_0(FREE_ALL, klock_ioc_id, flags, 0),
	MUST_BE_0(LOCK, klock_ioc_lock, flags, 7),
	MUST_BE_0(LOCK, klock_ioc_lock, deadline, 0),
	MUST_BE_0(UNLOCK, klock_ioc_id, flags, 0),
	MUST_BE_0(BREAK, klock_ioc_break, flags, 0),
	MUST_BE_0(BREAK, klock_ioc_break, reserved, 0),
	MUST_BE_0(STATUS, klock_ioc_status, flags, 0),
	MUST_BE_0(STATUS, klock_ioc_status, pid, 0),
	MUST_BE_0(STATUS, klock_ioc_status, tid, 0),
	MUST_BE_0(STATUS, klock_ioc_status, waiters, 0),
	MUST_BE_0(STATUS, klock_ioc_status, token, 0),
	MUST_BE_0(STATUS, klock_ioc_status, held_since, 0),
	MUST_BE_0(STATUS, klock_ioc_status, waiting_since, 0),
	MUST_BE_0(STATUS, klock_ioc_status, reserved[0], 0),
	MUST_BE_0(STATUS, klock_ioc_status, reserved[1], 0),
	MUST_BE_0(LIST, klock_ioc_list, flags, 0),
	MUST_BE_0(WAITERS, klock_ioc_list, flags, 0),
};

TEST_F(abi, unknown_flags_and_reserved_fields)
{
	struct state before;

	look(self, &before);
	for (unsigned int i = 0; i < ARRAY_SIZE(must_be_0); i++) {
		for (int bit = 0; bit < 32; bit++) {
			union args args = good_args(self, must_be_0[i].number), copy;
			uint32_t *word = (uint32_t *)((char *)&args + must_be_0[i].offset);

			if (must_be_0[i].may & 1U << bit)
				continue;
			*word |= 1U << bit;
			copy = args;
			EXPECT_EQ(-EINVAL, do_call(self, must_be_0[i].number, &args))
				TH_LOG("for bit %d of %s", bit, must_be_0[i].name);
			EXPECT_EQ(0, memcmp(&args, &copy, sizeof(args)));
		}
		EXPECT_TRUE(is_unchanged(self, &before)) TH_LOG("for %s", must_be_0[i].name);
	}
}

/* Flags that do not go together, and fields of flags that are not there. */
TEST_F(abi, flags_that_exclude_each_other)
{
	static const uint32_t with_fd[] = { KLOCK_ATTACH_CREATE, KLOCK_ATTACH_UID,
					    KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL };
	struct klock_ioc_space_fd space_fd = {};
	int space = raw_ioctl(self->other, KLOCK_IOC_SPACE_FD, &space_fd);
	struct klock_ioc_attach attach = { .flags = KLOCK_ATTACH_EXCL };
	struct state before;

	ASSERT_LE(0, space);
	look(self, &before);
	strcpy(attach.name, "x");
	EXPECT_EQ(-EINVAL, raw_ioctl(self->fresh, KLOCK_IOC_ATTACH, &attach));
	for (int bit = 1; bit < 32; bit++) {
		attach.flags = KLOCK_ATTACH_CREATE;
		attach.space_flags = 1U << bit;
		EXPECT_EQ(-EINVAL, raw_ioctl(self->fresh, KLOCK_IOC_ATTACH, &attach));
	}
	attach.space_flags = 0;
	attach.flags = KLOCK_ATTACH_FD;
	attach.space_fd = space;
	EXPECT_EQ(-EINVAL, raw_ioctl(self->fresh, KLOCK_IOC_ATTACH, &attach));
	attach.name[0] = 0;	/* which was there, too */
	for (unsigned int i = 0; i < ARRAY_SIZE(with_fd); i++) {
		attach.flags = KLOCK_ATTACH_FD | with_fd[i];
		EXPECT_EQ(-EINVAL, raw_ioctl(self->fresh, KLOCK_IOC_ATTACH, &attach));
	}
	EXPECT_TRUE(is_unchanged(self, &before));
	attach.flags = KLOCK_ATTACH_FD;
	EXPECT_EQ(CAPACITY, raw_ioctl(self->fresh, KLOCK_IOC_ATTACH, &attach));
	close(space);
}

/* TRY and DEADLINE, and which deadlines there are. */
TEST_F(abi, lock_flags_and_deadlines)
{
	const uint64_t max = INT64_MAX;
	static const uint32_t bad[] = {
		KLOCK_LOCK_TRY | KLOCK_LOCK_DEADLINE,
		KLOCK_LOCK_REALTIME,
		KLOCK_LOCK_TRY | KLOCK_LOCK_REALTIME,
		KLOCK_LOCK_TRY | KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME,
	};
	static const uint32_t with[] = {
		KLOCK_LOCK_DEADLINE,
		KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME,
	};
	struct state before;

	look(self, &before);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, raw_lock(self->fd, 2, bad[i], 0));
		EXPECT_EQ(-EINVAL, raw_lock(self->fd, 2, bad[i], max));
	}
	EXPECT_EQ(-EINVAL, raw_lock(self->fd, 2, 0, 1));
	EXPECT_EQ(-EINVAL, raw_lock(self->fd, 2, 0, max));
	EXPECT_EQ(-EINVAL, raw_lock(self->fd, 2, KLOCK_LOCK_TRY, 1));
	for (unsigned int i = 0; i < ARRAY_SIZE(with); i++) {
		EXPECT_EQ(-EINVAL, raw_lock(self->fd, 2, with[i], max + 1));
		EXPECT_EQ(-EINVAL, raw_lock(self->fd, 2, with[i], UINT64_MAX));
	}
	EXPECT_TRUE(is_unchanged(self, &before));

	for (unsigned int i = 0; i < ARRAY_SIZE(with); i++) {
		EXPECT_EQ(-ETIMEDOUT, raw_lock(self->fd, 3, with[i], 0));	/* past */
		EXPECT_EQ(-ETIMEDOUT, raw_lock(self->fd, 3, with[i], 1));
		EXPECT_EQ(0, raw_lock(self->fd, 2, with[i], 0));		/* is free */
		EXPECT_EQ(0, raw_unlock(self->fd, 2));
		EXPECT_EQ(0, raw_lock(self->fd, 2, with[i], max));
		EXPECT_EQ(0, raw_unlock(self->fd, 2));
	}
}

/* Results are the value of the ioctl: a capacity; an id; 0, or 1 for an owner that died. */
TEST_F(abi, values)
{
	struct klock_ioc_allocate allocate = { .flags = KLOCK_ALLOCATE_ID };
	struct klock_ioc_resize resize = { .capacity = KLOCK_CAPACITY_MAX };
	union args attach = good_args(self, KLOCK_IOC_ATTACH);
	struct klock_ioc_api api;

	EXPECT_EQ(0, raw_ioctl(self->fresh, KLOCK_IOC_GET_API, &api));
	if (api.max_capacity < resize.capacity)
		resize.capacity = api.max_capacity;
	EXPECT_EQ(0, raw_ioctl(self->fd, KLOCK_IOC_RESIZE, &resize));
	EXPECT_EQ((int)resize.capacity, do_call(self, KLOCK_IOC_ATTACH, &attach));
	for (uint32_t id = 2; id < resize.capacity; id = 2 * id) {
		allocate.id = id;
		EXPECT_EQ((int)id, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &allocate));
		EXPECT_EQ(-EEXIST, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &allocate));
	}
	allocate.id = resize.capacity - 1;
	EXPECT_EQ((int)allocate.id, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &allocate));
	allocate.id = resize.capacity;
	EXPECT_EQ(-EINVAL, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &allocate));
	allocate.id = 0;
	EXPECT_EQ(-EEXIST, raw_ioctl(self->fd, KLOCK_IOC_ALLOCATE, &allocate));

	EXPECT_EQ(0, raw_lock(self->fd, resize.capacity - 1, 0, 0));
	close(self->other);
	EXPECT_EQ(1, raw_lock(self->fd, 3, 0, 0));
	EXPECT_EQ(0, raw_unlock(self->fd, 3));
	EXPECT_EQ(0, raw_lock(self->fd, 3, 0, 0));
}

/* A struct that is shorter than the first one was is EINVAL, and stays as it is. */
TEST_F(abi, short_structs)
{
	struct state before;

	look(self, &before);
	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		union args args = good_args(self, call->number), copy;

		if (!(_IOC_DIR(call->number) & _IOC_WRITE))
			POISON(args);
		copy = args;
		for (size_t size = 0; size < _IOC_SIZE(call->number); size++) {
			EXPECT_EQ(-EINVAL, do_call(self, resized(call->number, size), &args))
				TH_LOG("for %s of size %zu", call->name, size);
		}
		EXPECT_EQ(0, memcmp(&args, &copy, sizeof(args)));
		EXPECT_TRUE(is_unchanged(self, &before)) TH_LOG("for %s", call->name);
	}
}

static bool is_zero(const char *mem, size_t size)
{
	while (size && !*mem)
		mem++, size--;
	return !size;
}

/* A longer one works if what the kernel does not know is 0; the rest of a result is cleared. */
TEST_F(abi, long_structs)
{
	static const size_t more[] = { 1, 4, 8, 100, 4096, 0 };
	static char mem[LONGEST + 1];

	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		size_t known = _IOC_SIZE(call->number);

		for (unsigned int i = 0; i < ARRAY_SIZE(more); i++) {
			size_t size = more[i] ? known + more[i] : LONGEST;
			union args args = good_args(self, call->number);
			unsigned int number = resized(call->number, size);

			memset(mem, _IOC_DIR(number) & _IOC_WRITE ? 0 : 0xa5, size);
			memcpy(mem, &args, known);
			mem[size] = 0x5a;
			EXPECT_TRUE(is_good(number, do_call(self, number, mem)))
				TH_LOG("for %s of size %zu", call->name, size);
			EXPECT_TRUE(is_zero(mem + known, size - known));
			EXPECT_EQ(0x5a, mem[size]);
			memcpy(&args, mem, known);
			EXPECT_TRUE(is_result(self, number, &args));
			ASSERT_TRUE(rebuild(self));
		}
	}
}

/* What the kernel does not know is not 0: E2BIG. */
TEST_F(abi, long_structs_with_unknown_fields)
{
	static char mem[LONGEST], copy[LONGEST];
	struct state before;

	look(self, &before);
	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		union args args = good_args(self, call->number);
		size_t known = _IOC_SIZE(call->number);
		const size_t at[][2] = {	/* size, where it is not 0 */
			{ known + 1, known }, { known + 8, known }, { known + 8, known + 7 },
			{ known + 4096, known + 2048 }, { LONGEST, known },
			{ LONGEST, LONGEST - 1 },
		};

		if (!(_IOC_DIR(call->number) & _IOC_WRITE))
			continue;
		for (unsigned int i = 0; i < ARRAY_SIZE(at); i++) {
			memset(mem, 0, sizeof(mem));
			memcpy(mem, &args, known);
			mem[at[i][1]] = 1;
			memcpy(copy, mem, sizeof(mem));
			EXPECT_EQ(-E2BIG, do_call(self, resized(call->number, at[i][0]), mem))
				TH_LOG("for %s, %zu at %zu", call->name, at[i][0], at[i][1]);
			EXPECT_EQ(0, memcmp(copy, mem, sizeof(mem)));
		}
		EXPECT_TRUE(is_unchanged(self, &before)) TH_LOG("for %s", call->name);
	}
}

TEST_F(abi, misaligned_structs)
{
	char mem[sizeof(union args) + 8];

	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		for (int i = 1; i < 8; i++) {
			union args args = good_args(self, call->number);

			memcpy(mem + i, &args, sizeof(args));
			EXPECT_TRUE(is_good(call->number,
					    do_call(self, call->number, mem + i)))
				TH_LOG("for %s at %d", call->name, i);
			memcpy(&args, mem + i, sizeof(args));
			EXPECT_TRUE(is_result(self, call->number, &args));
			ASSERT_TRUE(rebuild(self));
		}
	}
}

/* At the very end of what is mapped, and just beyond. */
TEST_F(abi, structs_at_the_end_of_memory)
{
	char *page = page_alone();

	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		union args args = good_args(self, call->number);
		size_t size = _IOC_SIZE(call->number);
		char *end = page + PAGE;
		struct state before;

		look(self, &before);
		memcpy(end - size / 2, &args, size / 2);
		EXPECT_EQ(-EFAULT, do_call(self, call->number, end - size / 2))
			TH_LOG("for %s", call->name);
		EXPECT_EQ(-EFAULT, do_call(self, call->number, page - 1));
		memcpy(end - size, &args, size);
		EXPECT_EQ(-EFAULT, do_call(self, resized(call->number, size + 1), end - size))
			TH_LOG("for a longer %s", call->name);
		EXPECT_TRUE(is_unchanged(self, &before)) TH_LOG("for %s", call->name);

		memcpy(end - size, &args, size);
		EXPECT_TRUE(is_good(call->number, do_call(self, call->number, end - size)))
			TH_LOG("for %s", call->name);
		ASSERT_TRUE(rebuild(self));
	}
}

/* Addresses where nothing is: EFAULT for each call, and nothing happens. */
TEST_F(abi, unmapped_memory)
{
	char *page = page_alone();
	const uintptr_t bad[] = {
		0, 1, PAGE, (uintptr_t)page - PAGE, (uintptr_t)page + PAGE,
		UINTPTR_MAX / 2 + 1, UINTPTR_MAX - PAGE, UINTPTR_MAX - 7, UINTPTR_MAX,
	};
	struct state before;

	look(self, &before);
	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
			EXPECT_EQ(-EFAULT, do_call(self, call->number, (void *)bad[i]))
				TH_LOG("for %s at %lx", call->name, (unsigned long)bad[i]);
			EXPECT_EQ(-EFAULT, do_call(self, resized(call->number, LONGEST),
						   (void *)bad[i]))
				TH_LOG("for a long %s at %lx", call->name, (unsigned long)bad[i]);
		}
		EXPECT_TRUE(is_unchanged(self, &before)) TH_LOG("for %s", call->name);
	}
}

/* Read-only memory will do for what is only read; else it is EFAULT, and nothing happened. */
TEST_F(abi, read_only_memory)
{
	char *page = page_alone();

	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		union args args = good_args(self, call->number);
		struct state before;
		int ret;

		look(self, &before);
		ASSERT_EQ(0, mprotect(page, PAGE, PROT_READ | PROT_WRITE));
		memcpy(page, &args, sizeof(args));
		ASSERT_EQ(0, mprotect(page, PAGE, PROT_READ));
		ret = do_call(self, call->number, page);
		if (_IOC_DIR(call->number) & _IOC_READ) {
			EXPECT_EQ(-EFAULT, ret) TH_LOG("for %s", call->name);
			EXPECT_TRUE(is_unchanged(self, &before)) TH_LOG("for %s", call->name);
			ret = do_call(self, call->number, &args);	/* is still possible */
		}
		EXPECT_TRUE(is_good(call->number, ret)) TH_LOG("for %s", call->name);
		ASSERT_TRUE(rebuild(self));
	}
}

/* A call that fails for another reason writes nothing either. */
TEST_F(abi, failing_calls_write_nothing)
{
	struct klock_ioc_status status = { .id = CAPACITY }, status_copy = status;
	struct klock_ioc_status entry, entry_copy;
	struct klock_ioc_space_fd space_fd = {};
	struct klock_ioc_list list = {
		.entries = (uintptr_t)&entry,
		.count = 1,
		.entry_size = sizeof(entry),
		.flags = 1,
	};

	POISON(entry);
	POISON(entry_copy);
	EXPECT_EQ(-EINVAL, do_call(self, KLOCK_IOC_STATUS, &status));
	EXPECT_EQ(0, memcmp(&status, &status_copy, sizeof(status)));
	status.id = UINT32_MAX;
	EXPECT_EQ(-EINVAL, do_call(self, KLOCK_IOC_STATUS, &status));
	EXPECT_EQ(0, status.flags);

	EXPECT_EQ(-EINVAL, do_call(self, KLOCK_IOC_LIST, &list));
	EXPECT_EQ(-EINVAL, do_call(self, KLOCK_IOC_WAITERS, &list));
	list.flags = 0;
	list.id = CAPACITY;
	EXPECT_EQ(-EINVAL, do_call(self, KLOCK_IOC_WAITERS, &list));
	list.id = UINT32_MAX;
	EXPECT_EQ(-EINVAL, do_call(self, KLOCK_IOC_WAITERS, &list));
	EXPECT_EQ(0, do_call(self, KLOCK_IOC_LIST, &list));	/* starts above all */
	EXPECT_EQ(0, memcmp(&entry, &entry_copy, sizeof(entry)));

	EXPECT_LE(0, do_call(self, KLOCK_IOC_SPACE_FD, &space_fd));
	memset(&space_fd, 0, sizeof(space_fd));
	EXPECT_EQ(-EBUSY, do_call(self, KLOCK_IOC_SPACE_FD, &space_fd));
	EXPECT_EQ(0, space_fd.token);
}

static const struct call *find_call(unsigned int nr)
{
	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++)
		if (_IOC_NR(call->number) == nr)
			return call;
	return NULL;
}

/* Every number of the magic: what is not known is ENOTTY, in whatever direction and size. */
TEST_F(abi, every_number)
{
	static const size_t sizes[] = {
		0, 1, 4, 8, 16, 24, 56, 72, 88, 96, 176, 177, 4096, LONGEST,
	};
	static char mem[LONGEST], copy[LONGEST];
	struct state before;

	POISON(mem);
	POISON(copy);
	look(self, &before);
	for (unsigned int nr = 0; nr < 256; nr++) {
		const struct call *call = find_call(nr);

		for (unsigned int dir = 0; dir < 4; dir++) {
			if (call && _IOC_DIR(call->number) == dir)
				continue;
			for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
				unsigned int number = _IOC(dir, KLOCK_IOC_MAGIC, nr, sizes[i]);

				EXPECT_EQ(-ENOTTY, raw_ioctl(self->fd, number, mem))
					TH_LOG("for number %08x", number);
				EXPECT_EQ(-ENOTTY, raw_ioctl(self->fresh, number, NULL));
			}
		}
	}
	EXPECT_EQ(0, memcmp(mem, copy, sizeof(mem)));
	EXPECT_TRUE(is_unchanged(self, &before));
}

/* Numbers of others, among them those that differ from ours in the magic alone. */
TEST_F(abi, numbers_of_others)
{
	static const unsigned int others[] = { 0, 0x5401, 0x541b, 0x80081272, UINT32_MAX };
	static char mem[LONGEST], copy[LONGEST];
	struct state before;

	POISON(mem);
	POISON(copy);
	look(self, &before);
	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		EXPECT_EQ(-ENOTTY, raw_ioctl(self->fd, call->number ^ 1 << _IOC_TYPESHIFT, mem));
		EXPECT_EQ(-ENOTTY, raw_ioctl(self->fd, call->number ^ 0x80 << _IOC_TYPESHIFT, mem));
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(others); i++) {
		EXPECT_EQ(-ENOTTY, raw_ioctl(self->fd, others[i], mem))
			TH_LOG("for %x", others[i]);
	}
	EXPECT_EQ(0, memcmp(mem, copy, sizeof(mem)));
	EXPECT_TRUE(is_unchanged(self, &before));
}

/*
 * Arrays that are filled: LIST, WAITERS and LIST_SPACES, whose structs begin
 * alike (see the record above).
 */
FIXTURE(array) {
	SELF abi;
	struct agent agents[2];	/* wait for lock 3 */
	unsigned int number;
	size_t size;		/* of an entry */
	int n;			/* how many there are */
	union args args;
	char *page;		/* with nothing after it */
	char *plain;		/* n entries as they should be */
};

FIXTURE_VARIANT(array) {
	unsigned int number;
	size_t size;
};

FIXTURE_VARIANT_ADD(array, list) {
	.number = KLOCK_IOC_LIST, .size = sizeof(struct klock_ioc_status),
};

FIXTURE_VARIANT_ADD(array, waiters) {
	.number = KLOCK_IOC_WAITERS, .size = sizeof(struct klock_ioc_waiter),
};

FIXTURE_VARIANT_ADD(array, spaces) {
	.number = KLOCK_IOC_LIST_SPACES, .size = sizeof(struct klock_ioc_info),
};

/* Fills @count entries of @size at @entries. */
static int fill(const FIXTURE_DATA(array) *self, const void *entries, uint32_t count, uint32_t size)
{
	union args args = self->args;

	args.list.entries = (uintptr_t)entries;
	args.list.count = count;
	args.list.entry_size = size;
	return do_call(&self->abi, self->number, &args);
}

FIXTURE_SETUP(array)
{
	SPACE_NAME(self->abi.name);
	snprintf(self->abi.victim, sizeof(self->abi.victim), "v-%.61s", self->abi.name);
	ASSERT_TRUE(build(&self->abi));
	for (unsigned int i = 0; i < ARRAY_SIZE(self->agents); i++) {
		struct klock_ioc_attach attach = {};
		struct klock_ioc_status status;
		int fd;

		strcpy(attach.name, self->abi.name);
		self->agents[i] = enlist(NULL, NULL);
		fd = attach_by(&self->agents[i], &attach);
		ASSERT_LE(0, fd);
		tell_lock(&self->agents[i], fd, 3);
		ASSERT_TRUE(UNTIL(raw_status(self->abi.fd, 3, &status) == 0 &&
				  status.waiters == i + 1));
	}
	self->number = variant->number;
	self->size = variant->size;
	self->args = good_args(&self->abi, variant->number);
	if (variant->number == KLOCK_IOC_WAITERS)
		self->args.list.id = 3;
	self->page = page_alone();
	self->plain = malloc(256 * variant->size);
	self->n = fill(self, self->plain, 256, variant->size);
	ASSERT_LE(2, self->n);
	ASSERT_GT(256, self->n);
}

FIXTURE_TEARDOWN(array)
{
	dismiss_all();
	raze(&self->abi);
}

/* As many as there are, or as there is room for; nothing beyond is touched. */
TEST_F(array, count)
{
	char *mem = malloc(256 * self->size);

	EXPECT_EQ(0, fill(self, NULL, 0, self->size));
	for (int count = 0; count < self->n + 2; count++) {
		int want = count < self->n ? count : self->n;

		memset(mem, 0xa5, 256 * self->size);
		EXPECT_EQ(want, fill(self, mem, count, self->size));
		EXPECT_EQ(0, memcmp(mem, self->plain, want * self->size));
		EXPECT_EQ((char)0xa5, mem[want * self->size]);
	}
	memset(mem, 0xa5, 256 * self->size);
	EXPECT_EQ(self->n, fill(self, mem, UINT32_MAX, self->size));
	EXPECT_EQ(0, memcmp(mem, self->plain, self->n * self->size));
	EXPECT_EQ((char)0xa5, mem[self->n * self->size]);
	free(mem);
}

/* Shorter entries than the first were are EINVAL, the rest of longer ones is cleared. */
TEST_F(array, entry_size)
{
	const size_t longer[] = { self->size + 1, self->size + 8, self->size + 1001, PAGE };
	char *mem = malloc(256 * PAGE);

	memset(mem, 0xa5, 256 * PAGE);
	for (size_t size = 0; size < self->size; size++) {
		EXPECT_EQ(-EINVAL, fill(self, mem, 256, size));
		EXPECT_EQ(-EINVAL, fill(self, mem, 0, size));
	}
	EXPECT_EQ(-E2BIG, fill(self, mem, 256, PAGE + 1));
	EXPECT_EQ(-E2BIG, fill(self, mem, 1, UINT32_MAX));
	EXPECT_EQ((char)0xa5, mem[0]);
	for (unsigned int i = 0; i < ARRAY_SIZE(longer); i++) {
		memset(mem, 0xa5, 256 * PAGE);
		EXPECT_EQ(self->n, fill(self, mem, 255, longer[i]));
		for (int k = 0; k < self->n; k++) {
			char *entry = mem + k * longer[i];

			EXPECT_EQ(0, memcmp(entry, self->plain + k * self->size, self->size));
			EXPECT_TRUE(is_zero(entry + self->size, longer[i] - self->size));
		}
		EXPECT_EQ((char)0xa5, mem[self->n * longer[i]]);
	}
	for (int i = 1; i < 8; i++) {
		EXPECT_EQ(self->n, fill(self, mem + i, 255, self->size));
		EXPECT_EQ(0, memcmp(mem + i, self->plain, self->n * self->size));
	}
	free(mem);
}

/* What cannot be written is EFAULT, at the first entry or later. */
TEST_F(array, bad_memory)
{
	char *end = self->page + PAGE, *read_only = page_alone();
	const uintptr_t bad[] = {
		0, 1, (uintptr_t)end, (uintptr_t)self->page - 1, (uintptr_t)end - self->size / 2,
		(uintptr_t)end - self->size - 1, (uintptr_t)read_only,
		UINTPTR_MAX / 2 + 1, UINTPTR_MAX, UINTPTR_MAX - self->size,
	};
	union args args = self->args;
	struct state before;

	ASSERT_EQ(0, mprotect(read_only, PAGE, PROT_READ));
	look(&self->abi, &before);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EFAULT, fill(self, (void *)bad[i], 2, self->size))
			TH_LOG("at %lx", (unsigned long)bad[i]);
		EXPECT_EQ(-EFAULT, fill(self, (void *)bad[i], UINT32_MAX, self->size))
			TH_LOG("many at %lx", (unsigned long)bad[i]);
	}
	EXPECT_EQ(1, fill(self, end - self->size, 1, self->size));
	EXPECT_EQ(-EFAULT, fill(self, end - self->size, 2, self->size));
	EXPECT_EQ(-EFAULT, fill(self, end - self->size, 1, self->size + 1));
	EXPECT_EQ(-EFAULT, fill(self, end - self->size, UINT32_MAX, PAGE));

	/* all 64 bits of the address count, in a 32-bit program too */
	args.list.count = 1;
	args.list.entries = (uintptr_t)self->page | 1ULL << 63;
	EXPECT_EQ(-EFAULT, do_call(&self->abi, self->number, &args));
	args.list.entries = (uintptr_t)self->page | 1ULL << 52;
	EXPECT_EQ(-EFAULT, do_call(&self->abi, self->number, &args));
	args.list.entries = UINT64_MAX - self->size + 1;
	EXPECT_EQ(-EFAULT, do_call(&self->abi, self->number, &args));
	EXPECT_TRUE(is_unchanged(&self->abi, &before));
}

/* What kinds of descriptors there are of an open file. */
TEST_F(abi, descriptors)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_NONBLOCK };
	struct klock_ioc_attach attach = good_args(self, KLOCK_IOC_ATTACH).attach;
	int copy = dup(self->fd), path = open("/dev/klock", O_PATH | O_CLOEXEC);
	struct klock_ioc_info info;
	struct klock_ioc_api api;
	char link[64];

	/* a copy is the same client */
	EXPECT_EQ(0, raw_unlock(copy, 1));
	EXPECT_EQ(0, raw_lock(copy, 1, 0, 0));
	EXPECT_EQ(0, raw_unlock(self->fd, 1));
	close(copy);
	EXPECT_EQ(0, raw_ioctl(self->fd, KLOCK_IOC_INFO, &info));
	EXPECT_EQ(2, info.clients);

	/* opened anew, it is another */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", self->fd);
	copy = open(link, O_RDWR | O_CLOEXEC);
	EXPECT_EQ(CAPACITY, raw_ioctl(copy, KLOCK_IOC_ATTACH, &attach));
	EXPECT_EQ(0, raw_ioctl(self->fd, KLOCK_IOC_INFO, &info));
	EXPECT_EQ(3, info.clients);
	close(copy);

	EXPECT_EQ(-EBADF, raw_ioctl(path, KLOCK_IOC_GET_API, &api));
	EXPECT_EQ(-EBADF, raw_ioctl(path, KLOCK_IOC_ATTACH, &attach));
	close(path);
	EXPECT_EQ(-EBADF, raw_ioctl(path, KLOCK_IOC_GET_API, &api));

	/* the mode of the open is not that of the space */
	for (unsigned int i = 0; i < ARRAY_SIZE(modes); i++) {
		int fd = open("/dev/klock", modes[i] | O_CLOEXEC);

		ASSERT_LE(0, fd);
		EXPECT_EQ(CAPACITY, raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach));
		EXPECT_EQ(0, raw_lock(fd, 5, 0, 0));
		EXPECT_EQ(0, raw_unlock(fd, 5));
		EXPECT_EQ(-EBUSY, raw_lock(fd, 3, KLOCK_LOCK_TRY, 0));
		close(fd);
	}
}

/* What else one can do to an open file does nothing to the device, and returns. */
TEST_F(abi, other_system_calls)
{
	struct pollfd pollfd = { .fd = self->fd, .events = POLLIN | POLLOUT };
	struct epoll_event event = { .events = EPOLLIN };
	struct state before;
	char buf[64];
	int epoll;

	look(self, &before);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	memset(buf, 0, sizeof(buf));
	EXPECT_EQ(-1, read(self->fd, buf, sizeof(buf)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->fd, buf, sizeof(buf)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pread(self->fd, buf, sizeof(buf), 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(-1, ftruncate(self->fd, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, fallocate(self->fd, 0, 0, 1));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(-1, fsync(self->fd));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, epoll_ctl(epoll, EPOLL_CTL_ADD, self->fd, &event));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(1, poll(&pollfd, 1, -1));	/* never blocks */
	EXPECT_EQ(0, fcntl(self->fd, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(-EBUSY, raw_lock(self->fd, 3, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	close(epoll);
	EXPECT_TRUE(is_unchanged(self, &before));
}

/*
 * Memory that does not come when it is touched: a page that userfaultfd(2) lets
 * another thread fill, which takes its time, or forever.  A child calls with such
 * memory as the argument, as the array that is filled, or, write-protected, as
 * an argument that can be read but whose result waits.
 */
enum where { ARGUMENT, RESULT, ENTRIES };

struct stall {
	unsigned int number;
	enum where where;
	char *page;
	int fd;			/* userfaultfd */
	int ret;
	atomic_bool returned;
	union args args;
};

static bool stall_open(struct stall *stall, const SELF *self, unsigned int number, enum where where)
{
	struct uffdio_register reg = { .range.len = PAGE };
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_writeprotect protect = {
		.range.len = PAGE,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	stall->number = number;
	stall->where = where;
	stall->args = good_args(self, number);
	stall->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stall->fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	reg.range.start = (uintptr_t)stall->page;
	protect.range.start = (uintptr_t)stall->page;
	reg.mode = where == RESULT ? UFFDIO_REGISTER_MODE_WP : UFFDIO_REGISTER_MODE_MISSING;
	if (where == RESULT)
		memcpy(stall->page, &stall->args, sizeof(stall->args));
	if (stall->fd < 0 || ioctl(stall->fd, UFFDIO_API, &api) ||
	    ioctl(stall->fd, UFFDIO_REGISTER, &reg))
		return false;
	return where != RESULT || !ioctl(stall->fd, UFFDIO_WRITEPROTECT, &protect);
}

/* Lets the page come. */
static void stall_end(struct stall *stall)
{
	_Alignas(PAGE) char from[PAGE] = {};
	struct uffdio_copy copy = {
		.dst = (uintptr_t)stall->page,
		.src = (uintptr_t)from,
		.len = PAGE,
	};
	struct uffdio_writeprotect unprotect = {
		.range = { .start = (uintptr_t)stall->page, .len = PAGE },
	};

	if (stall->where == RESULT) {
		CHECK(!ioctl(stall->fd, UFFDIO_WRITEPROTECT, &unprotect));
		return;
	}
	if (stall->where == ARGUMENT)
		memcpy(from, &stall->args, sizeof(stall->args));
	CHECK(!ioctl(stall->fd, UFFDIO_COPY, &copy));
}

struct stalled_call {
	const SELF *self;
	struct stall *stall;
};

static void *stalled_thread(void *arg)
{
	struct stalled_call *call = arg;
	struct stall *stall = call->stall;

	if (stall->where == ENTRIES) {
		stall->args.list.entries = (uintptr_t)stall->page;
		stall->args.list.count = 1;
	}
	stall->ret = do_call(call->self, stall->number,
			     stall->where == ENTRIES ? (char *)&stall->args : stall->page);
	stall->returned = true;
	return NULL;
}

/* The child: tells when its call has met the page, and lets it come when it is told to. */
static void stalled_child(const SELF *self, struct stall *stall, int sock)
{
	struct stalled_call call = { self, stall };
	struct uffd_msg msg;
	pthread_t thread;
	bool good;
	char byte = 0;

	CHECK(!pthread_create(&thread, NULL, stalled_thread, &call));
	CHECK(read(stall->fd, &msg, sizeof(msg)) == sizeof(msg));
	CHECK(msg.event == UFFD_EVENT_PAGEFAULT);
	CHECK(write(sock, &byte, 1) == 1);
	CHECK(read(sock, &byte, 1) == 1);
	CHECK(!stall->returned);
	stall_end(stall);
	CHECK(!pthread_join(thread, NULL));
	good = stall->where == ENTRIES ? stall->ret == 1 : is_good(stall->number, stall->ret);
	if (!good)
		fprintf(stderr, "# number %08x returned %d\n", stall->number, stall->ret);
	CHECK(good);
	if (stall->where != ENTRIES)
		CHECK(is_result(self, stall->number, (union args *)stall->page));
	_exit(0);
}

/* A process that comes, locks, and goes while it holds the lock: whether all that works. */
static bool others_come_and_go(const SELF *self)
{
	pid_t pid = spawn();

	if (!pid) {
		int fd = raw_attach(self->name, 0, 0);

		CHECK(fd >= 0);
		CHECK(raw_lock(fd, 8, 0, 0) == 0);
		_exit(0);
	}
	return reap(pid) == 0 && raw_lock(self->other, 8, KLOCK_LOCK_TRY, 0) == 1 &&
	       raw_unlock(self->other, 8) == 0;
}

/* Whether what other clients do goes on; in the end all is as it was. */
static bool others_go_on(const SELF *self)
{
	struct klock_ioc_allocate allocate = { .flags = KLOCK_ALLOCATE_ID, .id = 9 };
	struct klock_ioc_resize grow = { .capacity = 600 }, shrink = { .capacity = CAPACITY };
	struct klock_ioc_id id = { .id = 9 };
	static struct state state;
	int fd = raw_attach(self->name, 0, 0);
	bool good;

	good = fd >= 0 && raw_lock(fd, 7, 0, 0) == 0 &&
	       raw_lock(self->other, 7, KLOCK_LOCK_TRY, 0) == -EBUSY &&
	       raw_unlock(fd, 7) == 0 && raw_lock(fd, 7, 0, 0) == 0;
	good = good && raw_ioctl(fd, KLOCK_IOC_ALLOCATE, &allocate) == 9 &&
	       raw_ioctl(fd, KLOCK_IOC_RETRIEVE, &id) == 0 &&
	       raw_ioctl(fd, KLOCK_IOC_FREE, &id) == 0;
	good = good && raw_ioctl(fd, KLOCK_IOC_RESIZE, &grow) == 0 &&
	       raw_lock(fd, 599, 0, 0) == 0 && raw_unlock(fd, 599) == 0 &&
	       raw_ioctl(fd, KLOCK_IOC_RESIZE, &shrink) == 0;
	good = good && close(fd) == 0 && raw_lock(self->other, 7, 0, 0) == 1 &&
	       raw_unlock(self->other, 7) == 0;
	good = good && others_come_and_go(self);
	good = good && raw_remove(self->name, 0) == -EBUSY;
	look(self, &state);
	return good && state.nr_locks == 3 && state.info.waiting == 0;
}

/*
 * One call that stalls, while all others go on; then its page comes, or it is
 * killed.  Returns what went wrong, or NULL.
 */
static const char *stall_call(SELF *self, unsigned int number, enum where where, bool kill)
{
	struct stall stall = {};
	const char *error = NULL;
	int pair[2];
	char byte;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return "socketpair";
	pid = spawn();
	if (!pid) {
		close(pair[0]);
		CHECK(stall_open(&stall, self, number, where));
		stalled_child(self, &stall, pair[1]);
	}
	close(pair[1]);
	if (read(pair[0], &byte, 1) != 1)
		error = "it did not stall";
	else if (!others_go_on(self))
		error = "others do not go on";
	if (!error && !kill && write(pair[0], &byte, 1) != 1)
		error = "write";
	if (error || kill) {
		if (slay(pid) != -SIGKILL && !error)
			error = "it was not killed";
	} else if (reap(pid)) {
		error = "it did not work when the page came";
	}
	close(pair[0]);
	return error;
}

static bool have_userfaultfd(const SELF *self)
{
	struct stall stall;
	bool have = stall_open(&stall, self, KLOCK_IOC_STATUS, RESULT);

	close(stall.fd);
	munmap(stall.page, PAGE);
	return have;
}

/* Each call, and each way in which it can meet such memory. */
static void stall_all(struct __test_metadata *_metadata, SELF *self, bool kill)
{
	static const unsigned int result[] = { KLOCK_IOC_SPACE_FD, KLOCK_IOC_STATUS };
	static const unsigned int array[] = { KLOCK_IOC_LIST, KLOCK_IOC_LIST_SPACES };
	const char *error;

	if (!have_userfaultfd(self))
		SKIP(return, "no userfaultfd for faults in the kernel");
	for (const struct call *call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		error = stall_call(self, call->number, ARGUMENT, kill);
		EXPECT_EQ(NULL, error) TH_LOG("%s: %s", call->name, error);
		ASSERT_TRUE(rebuild(self));
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(result); i++) {
		error = stall_call(self, result[i], RESULT, kill);
		EXPECT_EQ(NULL, error) TH_LOG("result of %08x: %s", result[i], error);
		ASSERT_TRUE(rebuild(self));
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(array); i++) {
		error = stall_call(self, array[i], ENTRIES, kill);
		EXPECT_EQ(NULL, error) TH_LOG("entries of %08x: %s", array[i], error);
		ASSERT_TRUE(rebuild(self));
	}
}

TEST_F(abi, memory_that_comes_late)
{
	stall_all(_metadata, self, false);
}

TEST_F(abi, memory_that_never_comes)
{
	stall_all(_metadata, self, true);
}

/* The same for a list of waiters, who are served meanwhile. */
TEST_F(array, memory_that_never_comes)
{
	struct stall stall = {};
	struct klock_ioc_info info;
	int pair[2];
	pid_t pid;
	char byte;

	if (!have_userfaultfd(&self->abi))
		SKIP(return, "no userfaultfd for faults in the kernel");
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = spawn();
	if (!pid) {
		CHECK(stall_open(&stall, &self->abi, self->number, ENTRIES));
		stall.args = self->args;
		stalled_child(&self->abi, &stall, pair[1]);
	}
	close(pair[1]);
	ASSERT_EQ(1, read(pair[0], &byte, 1));
	EXPECT_EQ(0, raw_unlock(self->abi.other, 3));
	EXPECT_EQ(0, answer(&self->agents[0], NULL, 0));
	EXPECT_EQ(-SIGKILL, slay(self->agents[0].pid));
	EXPECT_EQ(1, answer(&self->agents[1], NULL, 0));
	EXPECT_EQ(-SIGKILL, slay(self->agents[1].pid));
	EXPECT_EQ(1, raw_lock(self->abi.other, 3, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, raw_ioctl(self->abi.fd, KLOCK_IOC_INFO, &info));
	EXPECT_EQ(0, info.waiting);
	EXPECT_EQ(2, info.clients);
	EXPECT_EQ(-SIGKILL, slay(pid));
}

TEST_HARNESS_MAIN
