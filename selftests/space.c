// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Spaces and rights: what a space is named by, who may do what with it, what
 * it costs, how it is made, listed and removed.
 *
 * Most is done through bare ioctls, by agents: processes that are told what to
 * do and have credentials of their own.
 */
#define _GNU_SOURCE

#include "klock_test.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Users that no test machine gives anything to. */
#define OWNER	54321
#define OTHER	54322
#define THIRD	54323
#define NOBODY	65534

#define ALL_CAPS	(~0ULL)
#define CAP(cap)	(1ULL << (cap))

#define SPACES_MAX	4096

static void __attribute__((constructor)) need_root(void)
{
	if (geteuid())
		ksft_exit_skip("only root can become all the users of these tests\n");
}

/* The agent takes on credentials that it may have. */
static int do_become(struct order *order)
{
	become(order->arg);
	return 0;
}

static int become_by(const struct agent *agent, struct who who)
{
	tell(agent, do_become, -1, 0, &who, sizeof(who));
	return answer(agent, &who, sizeof(who));
}

static void dismiss(const struct agent *agent)
{
	slay(agent->pid);
	close(agent->sock);
}

static int allocate_by(const struct agent *agent, int fd)
{
	struct klock_ioc_allocate allocate = {};

	return ioctl_by(agent, fd, KLOCK_IOC_ALLOCATE, &allocate);
}

static struct klock_ioc_status look(int fd, uint32_t id)
{
	struct klock_ioc_status status;

	if (raw_status(fd, id, &status))
		memset(&status, 0xff, sizeof(status));
	return status;
}

static int raw_id(int fd, unsigned long number, uint32_t id)
{
	struct klock_ioc_id arg = { .id = id };

	return raw_ioctl(fd, number, &arg);
}

static int raw_allocate(int fd)
{
	struct klock_ioc_allocate allocate = {};

	return raw_ioctl(fd, KLOCK_IOC_ALLOCATE, &allocate);
}

/* The space descriptor of a client, and its token. */
static int raw_space_fd(int fd, uint32_t *token)
{
	struct klock_ioc_space_fd arg = {};
	int ret = raw_ioctl(fd, KLOCK_IOC_SPACE_FD, &arg);

	if (token)
		*token = arg.token;
	return ret;
}

/* A new client through a space descriptor: a descriptor, or -errno. */
static int raw_attach_fd(int space_fd, uint32_t flags)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_FD | flags,
		.space_fd = space_fd,
	};
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	int ret = raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach);

	if (ret < 0)
		close(fd);
	return ret < 0 ? ret : fd;
}

/* What KLOCK_IOC_LIST_SPACES needs, in memory that agents share. */
struct listing {
	uint32_t n;
	struct klock_ioc_info after;
	struct klock_ioc_info info[SPACES_MAX];
};

static int list_spaces(struct listing *listing)
{
	struct klock_ioc_spaces spaces = {
		.entries = (uintptr_t)listing->info,
		.count = listing->n,
		.entry_size = sizeof(listing->info[0]),
		.after_uid = listing->after.uid,
	};
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), ret;

	memcpy(spaces.after_name, listing->after.name, sizeof(spaces.after_name));
	memset(listing->info, 0xa5, listing->n * sizeof(listing->info[0]));
	ret = raw_ioctl(fd, KLOCK_IOC_LIST_SPACES, &spaces);
	close(fd);
	return ret;
}

static int do_list_spaces(struct order *order)
{
	struct listing *listing;

	memcpy(&listing, order->arg, sizeof(listing));
	return list_spaces(listing);
}

/* All that the agent sees from the start. */
static int list_by(const struct agent *agent, struct listing *listing)
{
	memset(&listing->after, 0, sizeof(listing->after));
	listing->n = SPACES_MAX;
	tell(agent, do_list_spaces, -1, 0, &listing, sizeof(listing));
	return answer(agent, &listing, sizeof(listing));
}

static int list_all(struct listing *listing)
{
	memset(&listing->after, 0, sizeof(listing->after));
	listing->n = SPACES_MAX;
	return list_spaces(listing);
}

static bool is_listed(const struct listing *listing, int n, uint32_t uid, const char *name)
{
	for (int i = 0; i < n; i++)
		if (listing->info[i].uid == uid && !strcmp(listing->info[i].name, name))
			return true;
	return false;
}

/* Removes the spaces that this test made: their names end with its pid. */
static void sweep(struct listing *listing)
{
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	int n = list_all(listing);
	char suffix[16];

	snprintf(suffix, sizeof(suffix), "-%d", getpid());
	for (int i = 0; i < n; i++) {
		struct klock_ioc_remove remove = {
			.flags = KLOCK_REMOVE_FORCE | KLOCK_REMOVE_UID,
			.uid = listing->info[i].uid,
		};
		const char *name = listing->info[i].name;

		if (strlen(name) < strlen(suffix) ||
		    strcmp(name + strlen(name) - strlen(suffix), suffix))
			continue;
		memcpy(remove.name, name, sizeof(remove.name));
		if (raw_ioctl(fd, KLOCK_IOC_REMOVE, &remove))
			perror("# cannot remove a space");
	}
	close(fd);
}

/* Another name that the sweep finds. */
static const char *also(char *buf, char first, const char *name)
{
	snprintf(buf, KLOCK_NAME_SIZE, "%c%.62s", first, name);
	return buf;
}

FIXTURE(space) {
	char name[KLOCK_NAME_SIZE];
	struct listing *listing;
};

FIXTURE_SETUP(space)
{
	SPACE_NAME(self->name);
	self->listing = shared(sizeof(*self->listing));
}

FIXTURE_TEARDOWN(space)
{
	dismiss_all();
	sweep(self->listing);
}

/* The key of a space is (owner uid, name): the same name of two users is two spaces. */
TEST_F(space, key_is_uid_and_name)
{
	struct agent owner = user(OWNER), second = user(OWNER), other = user(OTHER);
	int a = make_by(&owner, self->name, 4, 0), b = make_by(&other, self->name, 4, 0), c;

	ASSERT_LE(0, a);
	ASSERT_LE(0, b);
	EXPECT_NE(info_by(&owner, a).generation, info_by(&other, b).generation);
	EXPECT_EQ(OWNER, info_by(&owner, a).uid);
	EXPECT_EQ(OTHER, info_by(&other, b).uid);

	EXPECT_EQ(0, lock_by(&owner, a, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, lock_by(&other, b, 0, KLOCK_LOCK_TRY));
	c = open_by(&second, self->name, 0);
	ASSERT_LE(0, c);
	EXPECT_EQ(-EBUSY, lock_by(&second, c, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, unlock_by(&owner, a, 0));
	EXPECT_EQ(0, lock_by(&second, c, 0, KLOCK_LOCK_TRY));
}

static bool is_name_char(int c, bool first)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-' || (c == '.' && !first);
}

/* Makes and removes a space of a name as it is in memory: what attach says. */
static int try_name(const char name[KLOCK_NAME_SIZE])
{
	struct klock_ioc_attach attach = { .flags = KLOCK_ATTACH_CREATE, .capacity = 1 };
	struct klock_ioc_remove remove = {};
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), ret;

	memcpy(attach.name, name, KLOCK_NAME_SIZE);
	memcpy(remove.name, name, KLOCK_NAME_SIZE);
	ret = raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach);
	if (ret == 1)		/* the capacity */
		ret = 0;
	close(fd);

	fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	if (raw_ioctl(fd, KLOCK_IOC_REMOVE, &remove) != ret)
		ret = -EPROTO;
	close(fd);
	return ret;
}

/* Every byte, first in a name and in the middle of it. */
TEST_F(space, names_byte_by_byte)
{
	int before = list_all(self->listing);

	for (int c = 1; c < 256; c++) {
		char first[KLOCK_NAME_SIZE] = "", inner[KLOCK_NAME_SIZE] = "";

		also(first, c, self->name);
		also(inner, 'x', first);
		EXPECT_EQ(is_name_char(c, true) ? 0 : -EINVAL, try_name(first))
			TH_LOG("for byte %d", c);
		EXPECT_EQ(is_name_char(c, false) ? 0 : -EINVAL, try_name(inner))
			TH_LOG("for byte %d", c);
	}
	EXPECT_EQ(before, list_all(self->listing));
}

/* 1 to 63 characters, and what is not a name is EINVAL in each call that takes one. */
TEST_F(space, names_that_are_not_names)
{
	static const char * const bad[] = { "", ".", "..", ".a", "a/b", "/a", "a b", "a\n", "a:b",
					    "\xc3\xa9", "a\177" };
	int before = list_all(self->listing), fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	char name[KLOCK_NAME_SIZE];

	memset(name, 'a', sizeof(name));
	EXPECT_EQ(-EINVAL, try_name(name));	/* 64 and no NUL */
	name[63] = 0;
	EXPECT_EQ(0, try_name(name));
	name[62] = '.';
	EXPECT_EQ(0, try_name(name));

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		struct klock_ioc_spaces spaces = {};

		EXPECT_EQ(-EINVAL, raw_attach(bad[i], 0, 0));
		EXPECT_EQ(-EINVAL, raw_attach(bad[i], KLOCK_ATTACH_CREATE, 1));
		EXPECT_EQ(-EINVAL, raw_remove(bad[i], 0));
		EXPECT_EQ(-EINVAL, raw_remove(bad[i], KLOCK_REMOVE_FORCE));
		if (!*bad[i])
			continue;
		spaces.entry_size = sizeof(struct klock_ioc_info);
		strcpy(spaces.after_name, bad[i]);
		EXPECT_EQ(-EINVAL, raw_ioctl(fd, KLOCK_IOC_LIST_SPACES, &spaces));
	}
	EXPECT_EQ(before, list_all(self->listing));
}

/* In the library, a space is named NAME, the caller's own, or UID/NAME. */
TEST_F(space, name_and_uid_name)
{
	static const char * const bad[] = { "/a", "x/a", "0/", "0/.a", "0/a/b", "-1/a", "+1/a",
					    " 1/a", "0x1/a", "1 /a", "4294967295/a",
					    "4294967296/a", "18446744073709551616/a", "//", "/" };
	int before = list_all(self->listing), fd;
	struct agent owner = user(OWNER);
	struct klock_space *own, *space;
	struct klock_space_info info;
	char full[KLOCK_NAME_SIZE + 16];
	uint64_t generation;

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, klock_space_open(bad[i], KLOCK_CREATE, NULL, &space))
			TH_LOG("for \"%s\"", bad[i]);
		EXPECT_EQ(-EINVAL, klock_space_remove(bad[i], 0))
			TH_LOG("for \"%s\"", bad[i]);
	}
	EXPECT_EQ(before, list_all(self->listing));

	own = make_space(self->name, 4, 0);
	ASSERT_NE(NULL, own);
	ASSERT_EQ(0, klock_space_info(own, &info));
	generation = info.generation;
	snprintf(full, sizeof(full), "0/%s", self->name);
	ASSERT_EQ(0, klock_space_open(full, 0, NULL, &space));
	ASSERT_EQ(0, klock_space_info(space, &info));
	EXPECT_EQ(generation, info.generation);
	klock_space_close(space);
	klock_space_close(own);

	fd = make_by(&owner, self->name, 4, 0);
	ASSERT_LE(0, fd);
	snprintf(full, sizeof(full), "%d/%s", OWNER, self->name);
	ASSERT_EQ(0, klock_space_open(full, 0, NULL, &space));
	ASSERT_EQ(0, klock_space_info(space, &info));
	EXPECT_EQ(info_by(&owner, fd).generation, info.generation);
	EXPECT_NE(generation, info.generation);
	EXPECT_EQ(OWNER, info.uid);
	klock_space_close(space);
	EXPECT_EQ(0, close_by(&owner, fd));
	EXPECT_EQ(0, klock_space_remove(full, 0));
	EXPECT_EQ(-ENOENT, open_by(&owner, self->name, 0));
	EXPECT_EQ(0, klock_space_remove(self->name, 0));
}

/* UINT32_MAX is nobody's uid. */
TEST_F(space, uid_that_is_none)
{
	struct agent root = enlist(NULL, NULL);

	EXPECT_EQ(-EINVAL, open_uid_by(&root, UINT32_MAX, self->name, 0));
	EXPECT_EQ(-EINVAL, open_uid_by(&root, UINT32_MAX, self->name, KLOCK_ATTACH_CREATE));
	EXPECT_EQ(-EINVAL, remove_by(&root, self->name, KLOCK_REMOVE_UID, UINT32_MAX));
}

/*
 * Mode bits are those of a file: all modes against the four ways to stand to a
 * space.  As there, the first class that fits decides, so an owner may be shut
 * out of a space that others can enter.
 */
TEST_F(space, mode_bits)
{
	const struct {
		struct agent agent;
		int shift;
	} as[] = {
		{ user(OWNER), 6 },
		{ enlist_who((struct who) { .uid = OTHER, .gid = OWNER }), 3 },
		{ enlist_who((struct who) { .uid = OTHER, .gid = OTHER, .group = OWNER }), 3 },
		{ user(OTHER), 0 },
	};

	for (uint32_t bits = 1; bits < 64; bits++) {
		uint32_t mode = (bits >> 4) << 7 | ((bits >> 2) & 3) << 4 | (bits & 3) << 1;
		int fd = make_by(&as[0].agent, self->name, 1, mode);

		ASSERT_LE(0, fd) TH_LOG("to make it with mode %o", mode);
		EXPECT_EQ(mode, info_by(&as[0].agent, fd).mode);
		EXPECT_EQ(OWNER, info_by(&as[0].agent, fd).gid);
		EXPECT_EQ(0, close_by(&as[0].agent, fd));
		for (unsigned int i = 0; i < ARRAY_SIZE(as); i++) {
			uint32_t may = mode >> as[i].shift & 6;
			bool ok;

			fd = open_uid_by(&as[i].agent, OWNER, self->name, KLOCK_ATTACH_READONLY);
			ok = may & 4 ? fd >= 0 : fd == -EACCES;
			EXPECT_TRUE(ok) TH_LOG("mode %o, agent %u looks: %d", mode, i, fd);
			if (fd >= 0)
				close_by(&as[i].agent, fd);

			fd = open_uid_by(&as[i].agent, OWNER, self->name, 0);
			ok = may == 6 ? fd >= 0 : fd == -EACCES;
			EXPECT_TRUE(ok) TH_LOG("mode %o, agent %u writes: %d", mode, i, fd);
			if (fd >= 0)
				close_by(&as[i].agent, fd);
		}
		/* who owns it may always remove it */
		EXPECT_EQ(0, remove_by(&as[0].agent, self->name, 0, 0));
	}
}

/* Whose mode lets him only look must say that he looks: 0644 and another user. */
TEST_F(space, look_only_by_mode)
{
	struct agent owner = user(OWNER), other = user(OTHER);
	int fd = make_by(&owner, self->name, 4, 0644), look_fd;

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EACCES, open_uid_by(&other, OWNER, self->name, 0));
	look_fd = open_uid_by(&other, OWNER, self->name, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, look_fd);
	EXPECT_EQ(OWNER, info_by(&other, look_fd).uid);
	EXPECT_EQ(-EACCES, lock_by(&other, look_fd, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, lock_by(&owner, fd, 0, KLOCK_LOCK_TRY));
}

TEST_F(space, mode_beyond_0666)
{
	static const uint32_t bad[] = { 0700, 0100, 0010, 0001, 01600, 02600, 04600, 010600,
					0100600, 0x80000180 };

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		struct klock_ioc_attach attach = named(self->name, KLOCK_ATTACH_CREATE);
		int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);

		attach.mode = bad[i];
		EXPECT_EQ(-EINVAL, raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach))
			TH_LOG("for mode %o", bad[i]);
		close(fd);
	}
	EXPECT_EQ(-ENOENT, raw_attach(self->name, 0, 0));
}

/* 0600 and 2048 by default, and umask plays no part. */
TEST_F(space, defaults_and_umask)
{
	static const mode_t masks[] = { 0, 022, 0777 };
	struct agent root = enlist(NULL, NULL);
	struct klock_ioc_info info;
	int fd;

	for (unsigned int i = 0; i < ARRAY_SIZE(masks); i++) {
		umask(masks[i]);
		fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 0);
		ASSERT_LE(0, fd);
		info = raw_info(fd);
		EXPECT_EQ(0600, info.mode);
		EXPECT_EQ(2048, info.capacity);
		close(fd);
		EXPECT_EQ(0, raw_remove(self->name, 0));

		root = enlist(NULL, NULL);	/* with this umask */
		fd = make_by(&root, self->name, 1, 0666);
		ASSERT_LE(0, fd);
		EXPECT_EQ(0666, info_by(&root, fd).mode);
		dismiss(&root);
		EXPECT_EQ(0, raw_remove(self->name, 0));
	}
}

/* A client that looks only: what looks works, what changes is EACCES and changes nothing. */
TEST_F(space, readonly_client)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 8), ro;
	struct klock_ioc_id must = { .id = 1, .flags = KLOCK_RETRIEVE_MUST_EXIST };
	struct klock_ioc_status entry[4];
	struct klock_ioc_list list = {
		.entries = (uintptr_t)entry,
		.count = ARRAY_SIZE(entry),
		.entry_size = sizeof(entry[0]),
	};
	struct klock_ioc_info before, after;

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, raw_allocate(fd));
	EXPECT_EQ(0, raw_lock(fd, 3, 0, 0));
	ro = raw_attach(self->name, KLOCK_ATTACH_READONLY, 0);
	ASSERT_LE(0, ro);

	before = raw_info(ro);
	EXPECT_EQ(8, before.capacity);
	EXPECT_EQ(KLOCK_STATUS_HELD, look(ro, 3).flags);
	POISON(entry);
	EXPECT_EQ(2, raw_ioctl(ro, KLOCK_IOC_LIST, &list));
	EXPECT_EQ(0, entry[0].id);
	EXPECT_EQ(3, entry[1].id);
	list.id = 3;
	list.entry_size = sizeof(struct klock_ioc_waiter);
	EXPECT_EQ(0, raw_ioctl(ro, KLOCK_IOC_WAITERS, &list));
	EXPECT_EQ(0, raw_id(ro, KLOCK_IOC_RETRIEVE, 1));
	EXPECT_EQ(-ENOENT, raw_ioctl(ro, KLOCK_IOC_RETRIEVE, &must));

	EXPECT_EQ(-EACCES, raw_lock(ro, 1, 0, 0));
	EXPECT_EQ(-EACCES, raw_lock(ro, 1, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-EACCES, raw_lock(ro, 3, KLOCK_LOCK_DEADLINE, 1));
	EXPECT_EQ(-EACCES, raw_unlock(ro, 3));
	EXPECT_EQ(-EACCES, raw_unlock(ro, 1));
	EXPECT_EQ(-EACCES, raw_allocate(ro));
	EXPECT_EQ(-EACCES, raw_id(ro, KLOCK_IOC_FREE, 0));
	EXPECT_EQ(-EACCES, raw_id(ro, KLOCK_IOC_FREE_ALL, 0));
	EXPECT_EQ(-EACCES, raw_resize(ro, 16));
	EXPECT_EQ(-EACCES, raw_break(ro, 3, 0));
	after = raw_info(ro);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(0, raw_unlock(fd, 3));
}

/* The caller's euid counts: not the real one, not the one for files. */
TEST_F(space, euid_counts)
{
	int fd;

	ASSERT_EQ(0, setresuid(-1, OWNER, 0));
	fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 4);
	EXPECT_LE(0, fd);
	EXPECT_EQ(OWNER, raw_info(fd).uid);
	close(fd);
	ASSERT_EQ(0, setresuid(-1, 0, 0));
	EXPECT_EQ(-ENOENT, raw_attach(self->name, 0, 0));

	syscall(SYS_setfsuid, OWNER);
	fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 4);
	syscall(SYS_setfsuid, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, raw_info(fd).uid);
}

/*
 * Rights are checked at attach and stay with the descriptor; resize, break and
 * remove check the caller anew.
 */
TEST_F(space, rights_stay_with_the_descriptor)
{
	struct who first = {
		.uid = OWNER, .gid = OWNER, .caps = CAP(CAP_SETUID) | CAP(CAP_SETGID),
	};
	struct who second = { .uid = OTHER, .gid = OTHER, .caps = first.caps };
	struct who third = { .uid = OWNER, .gid = OWNER };
	struct agent agent = enlist_who(first), holder = user(OWNER);
	int fd = make_by(&agent, self->name, 4, 0), held;

	ASSERT_LE(0, fd);
	held = open_by(&holder, self->name, 0);
	ASSERT_LE(0, held);
	EXPECT_EQ(0, lock_by(&holder, held, 1, 0));

	/* the owner becomes another */
	ASSERT_EQ(0, become_by(&agent, second));
	EXPECT_EQ(-EACCES, open_uid_by(&agent, OWNER, self->name, 0));
	EXPECT_EQ(0, lock_by(&agent, fd, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, unlock_by(&agent, fd, 0));
	EXPECT_EQ(0, allocate_by(&agent, fd));
	EXPECT_EQ(-EACCES, resize_by(&agent, fd, 8));
	EXPECT_EQ(-EACCES, resize_by(&agent, fd, 4));
	EXPECT_EQ(-EACCES, break_by(&agent, fd, 1, 0));
	EXPECT_EQ(-EACCES, remove_by(&agent, self->name, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE,
				     OWNER));
	EXPECT_EQ(4, info_by(&agent, fd).capacity);

	/* and the owner again */
	ASSERT_EQ(0, become_by(&agent, third));
	EXPECT_EQ(0, resize_by(&agent, fd, 8));
	EXPECT_EQ(0, break_by(&agent, fd, 1, 0));
	EXPECT_EQ(-EPERM, unlock_by(&holder, held, 1));
}

/* The same for a descriptor that was passed, or was there before a fork. */
TEST_F(space, rights_of_a_passed_descriptor)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int ro = raw_attach(self->name, KLOCK_ATTACH_READONLY, 0), pair[2], passed;
	struct agent heir, other;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, ro);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	heir = user(OTHER);
	other = user(THIRD);
	passed = give_fd(&other, pair, fd);
	ASSERT_LE(0, passed);

	EXPECT_EQ(0, lock_by(&heir, fd, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, unlock_by(&other, passed, 0));	/* one open file is one client */
	EXPECT_EQ(0, allocate_by(&other, passed));
	EXPECT_EQ(-EACCES, resize_by(&heir, fd, 8));
	EXPECT_EQ(-EACCES, resize_by(&other, passed, 8));
	EXPECT_EQ(0, lock_by(&heir, fd, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EACCES, break_by(&heir, fd, 0, 0));
	EXPECT_EQ(-EACCES, break_by(&other, passed, 0, 0));

	passed = give_fd(&other, pair, ro);
	ASSERT_LE(0, passed);
	EXPECT_EQ(4, info_by(&other, passed).capacity);
	EXPECT_EQ(-EACCES, lock_by(&other, passed, 1, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, raw_break(fd, 0, 0));
}

/* Another uid's space that the caller may not attach is EACCES, whether it exists or not. */
TEST_F(space, refusal_does_not_tell_what_exists)
{
	static const uint32_t flags[] = {
		0, KLOCK_ATTACH_READONLY, KLOCK_ATTACH_CREATE, KLOCK_ATTACH_ERRORCHECK,
		KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL,
	};
	struct agent owner = user(OWNER), other = user(OTHER);
	char absent[KLOCK_NAME_SIZE];
	int fd = make_by(&owner, self->name, 4, 0), before;

	ASSERT_LE(0, fd);
	also(absent, 'n', self->name);
	before = list_all(self->listing);
	for (unsigned int i = 0; i < ARRAY_SIZE(flags); i++) {
		EXPECT_EQ(-EACCES, open_uid_by(&other, OWNER, self->name, flags[i]));
		EXPECT_EQ(-EACCES, open_uid_by(&other, OWNER, absent, flags[i]));
	}
	EXPECT_EQ(-EACCES, remove_by(&other, self->name, KLOCK_REMOVE_UID, OWNER));
	EXPECT_EQ(-EACCES, remove_by(&other, absent, KLOCK_REMOVE_UID, OWNER));
	EXPECT_EQ(-EACCES, remove_by(&other, self->name, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE,
				     OWNER));
	EXPECT_EQ(-EACCES, remove_by(&other, absent, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE, OWNER));
	EXPECT_EQ(before, list_all(self->listing));

	/* of one's own, one may know */
	EXPECT_EQ(-ENOENT, open_by(&owner, absent, 0));
	EXPECT_EQ(-ENOENT, open_uid_by(&owner, OWNER, absent, 0));
	EXPECT_EQ(-ENOENT, remove_by(&owner, absent, 0, 0));
}

/* CAP_SYS_ADMIN overrides, also to make a space for another uid; no other capability does. */
TEST_F(space, cap_sys_admin_overrides)
{
	struct who admin = { .uid = OTHER, .gid = OTHER, .caps = CAP(CAP_SYS_ADMIN) };
	struct who rest = { .uid = OTHER, .gid = OTHER, .caps = ALL_CAPS & ~CAP(CAP_SYS_ADMIN) };
	struct who root = { .caps = ALL_CAPS & ~CAP(CAP_SYS_ADMIN) };
	struct agent agents[] = { enlist_who(admin), enlist_who(rest), enlist_who(root) };
	struct agent owner = user(OWNER);
	int own = make_by(&owner, self->name, 4, 0200), fd;
	char absent[KLOCK_NAME_SIZE];

	ASSERT_LE(0, own);
	EXPECT_EQ(0, lock_by(&owner, own, 0, 0));
	fd = open_uid_by(&agents[0], OWNER, self->name, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, resize_by(&agents[0], fd, 8));
	EXPECT_EQ(0, break_by(&agents[0], fd, 0, 0));
	EXPECT_EQ(-ENOENT, open_uid_by(&agents[0], OWNER, also(absent, 'n', self->name), 0));
	EXPECT_EQ(-ENOENT, remove_by(&agents[0], absent, KLOCK_REMOVE_UID, OWNER));

	for (int i = 1; i <= 2; i++) {
		EXPECT_EQ(-EACCES, open_uid_by(&agents[i], OWNER, self->name, 0));
		EXPECT_EQ(-EACCES, open_uid_by(&agents[i], OWNER, self->name,
					       KLOCK_ATTACH_READONLY));
		EXPECT_EQ(-EACCES, open_uid_by(&agents[i], OWNER, absent, KLOCK_ATTACH_CREATE));
		EXPECT_EQ(-EACCES, remove_by(&agents[i], self->name,
					     KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE, OWNER));
	}

	/* a space for another uid is that one's */
	fd = open_uid_by(&agents[0], OWNER, absent, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL);
	ASSERT_LE(0, fd);
	EXPECT_EQ(OWNER, info_by(&agents[0], fd).uid);
	fd = open_by(&owner, absent, 0);
	EXPECT_LE(0, fd);
	EXPECT_EQ(0, resize_by(&owner, fd, 100));
	EXPECT_EQ(-ENOENT, open_by(&agents[0], absent, 0));
	EXPECT_EQ(0, remove_by(&agents[0], absent, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE, OWNER));
	EXPECT_EQ(-ENOENT, open_by(&owner, absent, 0));
}

/* Resize, remove and break are for the owner, not for all who may write. */
TEST_F(space, only_the_owner_resizes_breaks_and_removes)
{
	struct agent owner = user(OWNER), other = user(OTHER);
	struct agent group = enlist_who((struct who) { .uid = THIRD, .gid = OWNER });
	const struct agent *refused[] = { &other, &group };
	int fd = make_by(&owner, self->name, 4, 0666), theirs;

	ASSERT_LE(0, fd);
	for (unsigned int i = 0; i < ARRAY_SIZE(refused); i++) {
		theirs = open_uid_by(refused[i], OWNER, self->name, 0);
		ASSERT_LE(0, theirs);
		EXPECT_EQ(0, lock_by(refused[i], theirs, 0, 0));
		EXPECT_EQ(-EACCES, resize_by(refused[i], theirs, 8));
		EXPECT_EQ(-EACCES, resize_by(refused[i], theirs, 2));
		EXPECT_EQ(-EACCES, break_by(refused[i], theirs, 0, 0));
		EXPECT_EQ(-EACCES, break_by(refused[i], theirs, 1, 0));
		EXPECT_EQ(-EACCES, remove_by(refused[i], self->name, KLOCK_REMOVE_UID, OWNER));
		EXPECT_EQ(-EACCES, remove_by(refused[i], self->name,
					     KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE, OWNER));
		EXPECT_EQ(0, unlock_by(refused[i], theirs, 0));
		EXPECT_EQ(0, close_by(refused[i], theirs));
	}
	EXPECT_EQ(4, info_by(&owner, fd).capacity);
	EXPECT_EQ(0, resize_by(&owner, fd, 8));
	EXPECT_EQ(0, lock_by(&owner, fd, 7, 0));
	EXPECT_EQ(0, break_by(&owner, fd, 7, 0));
	EXPECT_EQ(0, remove_by(&owner, self->name, KLOCK_REMOVE_FORCE, 0));
}

/*
 * uids are translated: a rootless engine sees the same space inside and
 * outside of its namespace.  Being root there is no right here.
 */
TEST_F(space, user_namespace)
{
	int roots = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	struct agent in = user(OWNER), out = user(OWNER), sub = user(INSIDE_1);
	char theirs[KLOCK_NAME_SIZE], absent[KLOCK_NAME_SIZE];
	struct klock_ioc_info info;
	int a, b, c;

	ASSERT_LE(0, roots);
	ASSERT_TRUE(enter_userns(&in, OWNER));
	a = make_by(&in, self->name, 4, 0);
	b = open_by(&out, self->name, 0);
	ASSERT_LE(0, a);
	ASSERT_LE(0, b);
	info = info_by(&in, a);
	EXPECT_EQ(0, info.uid);
	EXPECT_EQ(0, info.gid);
	EXPECT_EQ(OWNER, info_by(&out, b).uid);
	EXPECT_EQ(OWNER, info_by(&out, b).gid);
	EXPECT_EQ(info.generation, info_by(&out, b).generation);
	EXPECT_NE(info.generation, raw_info(roots).generation);
	EXPECT_EQ(0, lock_by(&in, a, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EBUSY, lock_by(&out, b, 0, KLOCK_LOCK_TRY));

	/* UID/NAME: 0 in there is OWNER, OWNER in there is nobody */
	c = open_uid_by(&in, 0, self->name, 0);
	ASSERT_LE(0, c);
	EXPECT_EQ(info.generation, info_by(&in, c).generation);
	EXPECT_EQ(-EACCES, open_uid_by(&in, OWNER, self->name, 0));

	/* of a uid of the namespace, by its mode alone */
	c = make_by(&sub, also(theirs, 's', self->name), 4, 0600);
	ASSERT_LE(0, c);
	EXPECT_EQ(-EACCES, open_uid_by(&in, 1, theirs, 0));
	EXPECT_EQ(-EACCES, open_uid_by(&in, 1, also(absent, 'n', self->name), KLOCK_ATTACH_CREATE));
	EXPECT_EQ(-EACCES, remove_by(&in, theirs, KLOCK_REMOVE_UID | KLOCK_REMOVE_FORCE, 1));
	EXPECT_EQ(0, close_by(&sub, c));
	EXPECT_EQ(0, remove_by(&sub, theirs, 0, 0));
	c = make_by(&sub, theirs, 4, 0666);
	ASSERT_LE(0, c);
	c = open_uid_by(&in, 1, theirs, 0);
	ASSERT_LE(0, c);
	EXPECT_EQ(1, info_by(&in, c).uid);
	EXPECT_EQ(-EACCES, resize_by(&in, c, 8));
	EXPECT_EQ(0, lock_by(&in, c, 0, 0));
	EXPECT_EQ(-EACCES, break_by(&in, c, 0, 0));

	/* of a uid that the namespace does not have: through what was passed in */
	EXPECT_EQ(NOBODY, info_by(&in, roots).uid);
	EXPECT_EQ(-EACCES, resize_by(&in, roots, 8));

	/* what is one's own is so inside, too */
	EXPECT_EQ(0, resize_by(&in, a, 8));
	EXPECT_EQ(8, info_by(&out, b).capacity);
	EXPECT_EQ(0, remove_by(&in, self->name, KLOCK_REMOVE_FORCE, 0));
	EXPECT_EQ(-ENOENT, open_by(&out, self->name, 0));
	EXPECT_EQ(0, raw_lock(roots, 0, KLOCK_LOCK_TRY, 0));
}

/* A list has the spaces whose owner has a uid in the caller's namespace. */
TEST_F(space, list_in_a_user_namespace)
{
	struct agent in = user(OWNER), sub = user(INSIDE_1), root = enlist(NULL, NULL);
	char theirs[KLOCK_NAME_SIZE];
	int n;

	ASSERT_TRUE(enter_userns(&in, OWNER));
	ASSERT_LE(0, make_by(&root, self->name, 1, 0666));
	ASSERT_LE(0, make_by(&sub, also(theirs, 's', self->name), 1, 0666));
	n = list_by(&in, self->listing);
	EXPECT_FALSE(is_listed(self->listing, n, 0, self->name));
	EXPECT_FALSE(is_listed(self->listing, n, NOBODY, self->name));
	EXPECT_TRUE(is_listed(self->listing, n, 1, theirs));

	ASSERT_LE(0, make_by(&in, self->name, 1, 0));
	n = list_by(&in, self->listing);
	EXPECT_TRUE(is_listed(self->listing, n, 0, self->name));
	n = list_all(self->listing);
	EXPECT_TRUE(is_listed(self->listing, n, 0, self->name));
	EXPECT_TRUE(is_listed(self->listing, n, OWNER, self->name));
	EXPECT_TRUE(is_listed(self->listing, n, INSIDE_1, theirs));
}

TEST_F(space, device_node_is_for_all)
{
	struct stat st;

	ASSERT_EQ(0, stat("/dev/klock", &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0666, st.st_mode & 0777);
}

static int do_open(struct order *order)
{
	int fd = open("/dev/klock", order->number | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* A client of the agent that is not attached. */
static int bare_by(const struct agent *agent)
{
	tell(agent, do_open, -1, O_RDWR, NULL, 0);
	return answer(agent, NULL, 0);
}

/* Forgets what the first calls below made. */
static void no_default(const struct agent *agent)
{
	remove_by(agent, "default", KLOCK_REMOVE_FORCE, 0);
}

/* GET_API, LIST_SPACES and REMOVE attach nobody, nor does what is malformed. */
TEST_F(space, calls_that_do_not_attach)
{
	struct agent owner = user(OWNER);
	struct klock_ioc_id unknown = { .flags = 1U << 31 };
	struct klock_ioc_remove remove = { .name = "absent" };
	struct klock_ioc_spaces spaces = { .entry_size = sizeof(struct klock_ioc_info) };
	struct klock_ioc_attach attach = named(self->name, KLOCK_ATTACH_CREATE);
	struct klock_ioc_api api;
	int fd = bare_by(&owner);

	ASSERT_LE(0, fd);
	no_default(&owner);
	POISON(api);
	EXPECT_EQ(0, ioctl_by(&owner, fd, KLOCK_IOC_GET_API, &api));
	EXPECT_EQ(0, ioctl_by(&owner, fd, KLOCK_IOC_LIST_SPACES, &spaces));
	EXPECT_EQ(-ENOENT, ioctl_by(&owner, fd, KLOCK_IOC_REMOVE, &remove));
	EXPECT_EQ(-EINVAL, ioctl_by(&owner, fd, KLOCK_IOC_FREE, &unknown));
	EXPECT_EQ(-ENOTTY, ioctl_by(&owner, fd, _IO(KLOCK_IOC_MAGIC, 0xff), &unknown));
	EXPECT_EQ(-ENOENT, open_by(&owner, "default", 0));
	EXPECT_LT(0, ioctl_by(&owner, fd, KLOCK_IOC_ATTACH, &attach));
	EXPECT_EQ(-ENOENT, open_by(&owner, "default", 0));
}

/* Any other call of a client that is not attached attaches it to its user's space `default`. */
TEST_F(space, first_call_attaches_to_default)
{
	static const struct {
		unsigned long number;
		int ret;	/* in a space that is new */
	} calls[] = {
		{ KLOCK_IOC_INFO, 0 },
		{ KLOCK_IOC_RESIZE, 0 },
		{ KLOCK_IOC_ALLOCATE, 0 },
		{ KLOCK_IOC_RETRIEVE, 0 },
		{ KLOCK_IOC_FREE, -ENOENT },
		{ KLOCK_IOC_FREE_ALL, 0 },
		{ KLOCK_IOC_LOCK, 0 },
		{ KLOCK_IOC_UNLOCK, -EPERM },
		{ KLOCK_IOC_BREAK, -ENOENT },
		{ KLOCK_IOC_STATUS, 0 },
		{ KLOCK_IOC_LIST, 0 },
		{ KLOCK_IOC_WAITERS, 0 },
	};
	struct agent owner = user(OWNER);
	struct klock_ioc_attach attach = named(self->name, KLOCK_ATTACH_CREATE);
	struct klock_ioc_info info;

	for (unsigned int i = 0; i < ARRAY_SIZE(calls); i++) {
		struct klock_ioc_list list = { .entry_size = sizeof(struct klock_ioc_status) };
		union {
			struct klock_ioc_resize resize;
			struct klock_ioc_list list;
			char zero[sizeof(info)];
		} arg = {};
		int fd = bare_by(&owner), again;

		ASSERT_LE(0, fd);
		if (calls[i].number == KLOCK_IOC_RESIZE)
			arg.resize.capacity = 2048;
		if (calls[i].number == KLOCK_IOC_LIST || calls[i].number == KLOCK_IOC_WAITERS)
			arg.list = list;
		no_default(&owner);
		EXPECT_EQ(calls[i].ret, ioctl_by(&owner, fd, calls[i].number, &arg))
			TH_LOG("for call %lx", calls[i].number);
		EXPECT_EQ(-EBUSY, ioctl_by(&owner, fd, KLOCK_IOC_ATTACH, &attach))
			TH_LOG("after call %lx", calls[i].number);
		info = info_by(&owner, fd);
		EXPECT_STREQ("default", info.name);
		EXPECT_EQ(OWNER, info.uid);
		EXPECT_EQ(OWNER, info.gid);
		EXPECT_EQ(0600, info.mode);
		EXPECT_EQ(2048, info.capacity);
		EXPECT_EQ(1, info.clients);

		/* it is the one that the name names, and is not made twice */
		again = bare_by(&owner);
		EXPECT_EQ(info.generation, info_by(&owner, again).generation);
		EXPECT_EQ(0, close_by(&owner, again));
		again = open_by(&owner, "default", 0);
		EXPECT_EQ(info.generation, info_by(&owner, again).generation);
		EXPECT_EQ(0, close_by(&owner, again));
		EXPECT_EQ(0, close_by(&owner, fd));
	}
	no_default(&owner);
}

/* The first call can be the one for a space descriptor, too. */
TEST_F(space, first_call_for_a_space_descriptor)
{
	struct agent owner = user(OWNER);
	struct klock_ioc_space_fd arg = {};
	int fd = bare_by(&owner);

	no_default(&owner);
	EXPECT_LE(0, ioctl_by(&owner, fd, KLOCK_IOC_SPACE_FD, &arg));
	EXPECT_NE(0, arg.token);
	EXPECT_STREQ("default", info_by(&owner, fd).name);
	no_default(&owner);
}

/* A `default` that is there is taken as it is; the errors are those of attach. */
TEST_F(space, default_that_exists)
{
	struct agent owner = user(OWNER);
	int own, fd;

	no_default(&owner);
	own = make_by(&owner, "default", 7, 0644);
	ASSERT_LE(0, own);
	fd = bare_by(&owner);
	EXPECT_EQ(0, lock_by(&owner, fd, 0, 0));
	EXPECT_EQ(7, info_by(&owner, fd).capacity);
	EXPECT_EQ(-EBUSY, lock_by(&owner, own, 0, KLOCK_LOCK_TRY));
	no_default(&owner);

	own = make_by(&owner, "default", 7, 0400);
	ASSERT_LE(0, own);
	fd = bare_by(&owner);
	EXPECT_EQ(-EACCES, lock_by(&owner, fd, 0, 0));
	no_default(&owner);
	EXPECT_EQ(0, lock_by(&owner, fd, 0, 0));	/* it was not attached */
	EXPECT_EQ(2048, info_by(&owner, fd).capacity);
	no_default(&owner);
}

/* name == NULL of the library is the same space. */
TEST_F(space, default_of_the_library)
{
	struct agent owner = user(OWNER);
	struct klock_space *space;
	struct klock_space_info info;
	int fd;

	no_default(&owner);
	ASSERT_EQ(0, setresuid(-1, OWNER, 0));
	EXPECT_EQ(0, klock_space_open(NULL, 0, NULL, &space));
	ASSERT_EQ(0, setresuid(-1, 0, 0));
	EXPECT_EQ(0, klock_space_info(space, &info));
	fd = bare_by(&owner);
	EXPECT_EQ(info.generation, info_by(&owner, fd).generation);
	EXPECT_EQ(2048, info.capacity);
	EXPECT_EQ(0600, info.mode);
	klock_space_close(space);
	no_default(&owner);
}

/* Threads that do one thing to one descriptor, at the same moment. */
#define CROWD	8

struct crowd {
	pthread_barrier_t start;
	int fd;
	const char *name;
	int ret[CROWD];
	atomic_uint next;
};

static void *allocate_at_once(void *arg)
{
	struct crowd *crowd = arg;
	unsigned int me = crowd->next++;

	pthread_barrier_wait(&crowd->start);
	crowd->ret[me] = raw_allocate(crowd->fd);
	return NULL;
}

static void *attach_at_once(void *arg)
{
	struct crowd *crowd = arg;
	struct klock_ioc_attach attach = named(crowd->name, 0);
	unsigned int me = crowd->next++;

	pthread_barrier_wait(&crowd->start);
	crowd->ret[me] = raw_ioctl(crowd->fd, KLOCK_IOC_ATTACH, &attach);
	return NULL;
}

static void run_crowd(struct crowd *crowd, void *(*body)(void *))
{
	pthread_t threads[CROWD];

	crowd->next = 0;
	crowd->fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	pthread_barrier_init(&crowd->start, NULL, CROWD);
	for (int i = 0; i < CROWD; i++)
		pthread_create(&threads[i], NULL, body, crowd);
	for (int i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd->start);
}

/* First calls of several threads at once: one client, one space, and each gets an id. */
TEST_F(space, concurrent_first_calls)
{
	for (int round = 0; round < 50; round++) {
		struct crowd crowd = {};
		pid_t pid = spawn();

		if (!pid) {
			struct who who = { .uid = OWNER, .gid = OWNER };
			unsigned int seen = 0;

			become(&who);
			raw_remove("default", KLOCK_REMOVE_FORCE);
			run_crowd(&crowd, allocate_at_once);
			for (int i = 0; i < CROWD; i++) {
				CHECK(crowd.ret[i] >= 0);
				seen |= 1U << crowd.ret[i];
			}
			CHECK(seen == (1U << CROWD) - 1);
			CHECK(raw_info(crowd.fd).clients == 1);
			CHECK(raw_info(crowd.fd).allocated == CROWD);
			CHECK(raw_remove("default", KLOCK_REMOVE_FORCE) == 0);
			_exit(0);
		}
		ASSERT_EQ(0, reap(pid));
	}
}

/* A client is attached once: a second time is EBUSY, whatever it names. */
TEST_F(space, attach_twice)
{
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	struct klock_ioc_attach absent = named(self->name, 0);
	struct klock_ioc_attach make = named(self->name, KLOCK_ATTACH_CREATE);
	char other[KLOCK_NAME_SIZE];
	struct klock_ioc_attach elsewhere = named(also(other, 'n', self->name),
						  KLOCK_ATTACH_CREATE);

	EXPECT_EQ(-ENOENT, raw_ioctl(fd, KLOCK_IOC_ATTACH, &absent));
	EXPECT_LT(0, raw_ioctl(fd, KLOCK_IOC_ATTACH, &make));	/* that failed: not attached */
	EXPECT_EQ(-EBUSY, raw_ioctl(fd, KLOCK_IOC_ATTACH, &absent));
	EXPECT_EQ(-EBUSY, raw_ioctl(fd, KLOCK_IOC_ATTACH, &make));
	EXPECT_EQ(-EBUSY, raw_ioctl(fd, KLOCK_IOC_ATTACH, &elsewhere));
	EXPECT_EQ(-ENOENT, raw_attach(other, 0, 0));
	EXPECT_EQ(1, raw_info(fd).clients);
}

TEST_F(space, attach_at_the_same_moment)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 1);

	ASSERT_LE(0, fd);
	for (int round = 0; round < 50; round++) {
		struct crowd crowd = { .name = self->name };
		int done = 0, busy = 0;

		run_crowd(&crowd, attach_at_once);
		for (int i = 0; i < CROWD; i++) {
			done += crowd.ret[i] == 1;	/* the capacity */
			busy += crowd.ret[i] == -EBUSY;
		}
		EXPECT_EQ(1, done);
		EXPECT_EQ(CROWD - 1, busy);
		EXPECT_EQ(2, raw_info(fd).clients);
		close(crowd.fd);
		EXPECT_EQ(1, raw_info(fd).clients);
	}
}

/* EXCL, and attr counts only when the space is made. */
TEST_F(space, create_and_excl)
{
	struct klock_ioc_attach attach = named(self->name, KLOCK_ATTACH_CREATE);
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 5), again;
	char mappable[KLOCK_NAME_SIZE];
	struct klock_ioc_info info;

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EEXIST, raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 5));
	EXPECT_EQ(-EINVAL, raw_attach(self->name, KLOCK_ATTACH_EXCL, 0));

	again = open("/dev/klock", O_RDWR | O_CLOEXEC);
	attach.capacity = 99;
	attach.mode = 0666;
	attach.space_flags = KLOCK_SPACE_MAPPABLE;
	EXPECT_EQ(5, raw_ioctl(again, KLOCK_IOC_ATTACH, &attach));
	info = raw_info(again);
	EXPECT_EQ(5, info.capacity);
	EXPECT_EQ(0600, info.mode);
	EXPECT_EQ(0, info.flags);
	EXPECT_EQ(raw_info(fd).generation, info.generation);

	attach = named(also(mappable, 'm', self->name), KLOCK_ATTACH_CREATE);
	attach.space_flags = KLOCK_SPACE_MAPPABLE;
	again = open("/dev/klock", O_RDWR | O_CLOEXEC);
	EXPECT_EQ(2048, raw_ioctl(again, KLOCK_IOC_ATTACH, &attach));
	EXPECT_EQ(KLOCK_SPACE_MAPPABLE, raw_info(again).flags);
}

/* Capacities from 1 to the maximum that the module states. */
TEST_F(space, capacities)
{
	struct klock_ioc_api api;
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);

	ASSERT_EQ(0, raw_ioctl(fd, KLOCK_IOC_GET_API, &api));
	close(fd);
	EXPECT_EQ(-EINVAL, raw_attach(self->name, KLOCK_ATTACH_CREATE, api.max_capacity + 1));
	EXPECT_EQ(-EINVAL, raw_attach(self->name, KLOCK_ATTACH_CREATE, UINT32_MAX));
	EXPECT_EQ(-ENOENT, raw_attach(self->name, 0, 0));

	fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, api.max_capacity);
	ASSERT_LE(0, fd);
	EXPECT_EQ(api.max_capacity, raw_info(fd).capacity);
	EXPECT_EQ(0, raw_lock(fd, api.max_capacity - 1, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-EINVAL, raw_lock(fd, api.max_capacity, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-EINVAL, raw_resize(fd, api.max_capacity + 1));
	EXPECT_EQ(-EINVAL, raw_resize(fd, UINT32_MAX));
	EXPECT_EQ(-EINVAL, raw_resize(fd, 0));
	EXPECT_EQ(api.max_capacity, raw_info(fd).capacity);
	close(fd);
	EXPECT_EQ(0, raw_remove(self->name, 0));

	fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 1);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, raw_allocate(fd));
	EXPECT_EQ(-ENOSPC, raw_allocate(fd));
	EXPECT_EQ(-EINVAL, raw_lock(fd, 1, 0, 0));
}

/* Whether a thread that does not run just now is in this function of the kernel. */
static bool is_in(pid_t pid, const char *function)
{
	char path[64], stack[4096];
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stack", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, stack, sizeof(stack) - 1);
	close(fd);
	stack[n > 0 ? n : 0] = 0;
	return strstr(stack, function);
}

/* Kills one that makes a new space larger, in the middle of it: whether that ended it. */
static bool killed_in_it(const char *name)
{
	int fd = raw_attach(name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 1);
	bool in_it = false, cut;
	int status;
	pid_t pid = spawn();

	if (!pid) {
		raw_resize(fd, KLOCK_CAPACITY_MAX);
		_exit(0);
	}
	while (!waitpid(pid, &status, WNOHANG)) {
		in_it = in_it || is_in(pid, "klock_table_grow");
		if (in_it)
			kill(pid, SIGKILL);
		nap();
	}
	cut = in_it && raw_info(fd).capacity == 1;
	close(fd);
	raw_remove(name, 0);
	return cut;
}

/* Who is killed while it makes a space larger does not do so to the end first. */
TEST_F(space, killed_while_it_grows)
{
	bool cut = false;

	if (access("/proc/self/stack", R_OK))
		SKIP(return, "the kernel does not say where a thread is (STACKTRACE)");
	/* What does not run is where it was preempted: in a place where it looks, too. */
	ASSERT_EQ(0, pin_here(0));
	for (int i = 0; i < 200 && !cut; i++)
		cut = killed_in_it(self->name);
	EXPECT_TRUE(cut);
}

/* The generation: not 0, the same for all clients, never again. */
TEST_F(space, generation)
{
	uint64_t seen[100];

	for (unsigned int i = 0; i < ARRAY_SIZE(seen); i++) {
		int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 1);
		int again = raw_attach(self->name, KLOCK_ATTACH_READONLY, 0);

		ASSERT_LE(0, fd);
		ASSERT_LE(0, again);
		seen[i] = raw_info(fd).generation;
		EXPECT_NE(0, seen[i]);
		EXPECT_EQ(seen[i], raw_info(again).generation);
		EXPECT_EQ(0, raw_resize(fd, 100));
		EXPECT_EQ(seen[i], raw_info(again).generation);
		for (unsigned int j = 0; j < i; j++) {
			EXPECT_NE(seen[j], seen[i]);
		}
		close(fd);
		close(again);
		EXPECT_EQ(0, raw_remove(self->name, 0));
	}
}

/* A space is there until it is removed, with its ids and its owner-died marks. */
TEST_F(space, outlives_its_clients)
{
	struct agent holder = enlist(NULL, NULL);
	int fd = make_by(&holder, self->name, 8, 0);
	struct klock_ioc_info before, after;

	ASSERT_LE(0, fd);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(i, allocate_by(&holder, fd));
	}
	EXPECT_EQ(0, lock_by(&holder, fd, 5, 0));
	before = info_by(&holder, fd);
	dismiss(&holder);

	fd = raw_attach(self->name, 0, 0);
	ASSERT_LE(0, fd);
	after = raw_info(fd);
	EXPECT_EQ(1, before.held);
	EXPECT_EQ(0, before.deaths);
	before.held = 0;
	before.deaths = 1;
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(3, raw_allocate(fd));
	EXPECT_EQ(1, raw_lock(fd, 5, KLOCK_LOCK_TRY, 0));
	close(fd);

	/* neither ids nor an owner that died are in the way of remove */
	EXPECT_EQ(0, raw_remove(self->name, 0));
	EXPECT_EQ(-ENOENT, raw_remove(self->name, 0));
}

/* The counters of the info, at moments at which nothing moves. */
TEST_F(space, info_counts)
{
	struct agent a = enlist(NULL, NULL), b = enlist(NULL, NULL), c = enlist(NULL, NULL);
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 8), fds[3];
	const struct agent *agents[] = { &a, &b, &c };
	struct klock_ioc_info want = {
		.capacity = 8, .mode = 0600, .generation = raw_info(fd).generation, .clients = 1,
	}, got;

#define EXPECT_INFO() do {						\
	got = raw_info(fd);						\
	want.passed = got.passed;					\
	want.max_passed = got.max_passed;				\
	want.longest_wait = got.longest_wait;				\
	EXPECT_EQ(want.allocated, got.allocated);			\
	EXPECT_EQ(want.held, got.held);					\
	EXPECT_EQ(want.waiting, got.waiting);				\
	EXPECT_EQ(want.clients, got.clients);				\
	EXPECT_EQ(0, memcmp(&want, &got, sizeof(want)));		\
} while (0)

	ASSERT_LE(0, fd);
	strcpy(want.name, self->name);
	EXPECT_INFO();
	for (int i = 0; i < 3; i++) {
		fds[i] = open_by(agents[i], self->name, 0);
		ASSERT_LE(0, fds[i]);
		want.clients++;
		EXPECT_INFO();
	}
	EXPECT_EQ(0, raw_allocate(fd));
	want.allocated = 1;
	EXPECT_INFO();
	EXPECT_EQ(0, lock_by(&a, fds[0], 0, 0));
	EXPECT_EQ(0, lock_by(&a, fds[0], 7, 0));
	want.held = 2;
	EXPECT_INFO();
	tell_lock(&b, fds[1], 0);
	ASSERT_TRUE(UNTIL(look(fd, 0).waiters == 1));
	want.waiting = 1;
	want.waits = 1;
	EXPECT_INFO();
	tell_lock(&c, fds[2], 7);
	ASSERT_TRUE(UNTIL(look(fd, 7).waiters == 1));
	want.waiting = 2;
	want.waits = 2;
	EXPECT_INFO();

	dismiss(&a);		/* b and c get what it had */
	EXPECT_EQ(1, answer(&b, NULL, 0));
	EXPECT_EQ(1, answer(&c, NULL, 0));
	want.waiting = 0;
	want.waited = 2;
	want.deaths = 2;
	want.clients--;
	EXPECT_INFO();
	EXPECT_EQ(0, unlock_by(&b, fds[1], 0));
	want.held--;
	EXPECT_INFO();
	EXPECT_EQ(0, raw_id(fd, KLOCK_IOC_FREE, 0));
	want.allocated--;
	EXPECT_INFO();
	dismiss(&c);		/* died: not held */
	want.deaths++;
	want.held--;
	want.clients--;
	EXPECT_INFO();
	EXPECT_EQ(0, raw_resize(fd, 100));
	want.capacity = 100;
	EXPECT_INFO();
#undef EXPECT_INFO
}

/* Break releases a lock as if its holder had died. */
TEST_F(space, break_a_lock)
{
	int holder = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int next = raw_attach(self->name, 0, 0);
	uint32_t token;

	ASSERT_LE(0, holder);
	ASSERT_LE(0, next);
	EXPECT_EQ(0, raw_lock(holder, 0, 0, 0));
	EXPECT_EQ(0, raw_lock(holder, 1, 0, 0));
	token = look(next, 0).token;
	EXPECT_NE(0, token);
	EXPECT_EQ(0, raw_break(next, 0, token));
	EXPECT_EQ(KLOCK_STATUS_DIED, look(next, 0).flags);
	EXPECT_EQ(-EPERM, raw_unlock(holder, 0));
	EXPECT_EQ(1, raw_lock(next, 0, KLOCK_LOCK_TRY, 0));	/* is told, */
	EXPECT_EQ(-EPERM, raw_unlock(holder, 0));
	EXPECT_EQ(-EBUSY, raw_lock(holder, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, raw_unlock(next, 0));
	EXPECT_EQ(0, raw_lock(holder, 0, KLOCK_LOCK_TRY, 0));	/* once */

	EXPECT_EQ(KLOCK_STATUS_HELD | KLOCK_STATUS_MINE, look(holder, 1).flags);
	EXPECT_EQ(0, raw_break(holder, 1, 0));	/* one's own, and whoever has it */
	EXPECT_EQ(1, raw_lock(holder, 1, KLOCK_LOCK_TRY, 0));
}

/* Break when nobody holds the lock, or another than the one that was meant. */
TEST_F(space, break_refused)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int other = raw_attach(self->name, 0, 0);
	struct klock_ioc_status before, after;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, other);
	EXPECT_EQ(-EINVAL, raw_break(fd, 4, 0));
	EXPECT_EQ(-EINVAL, raw_break(fd, UINT32_MAX, 0));
	EXPECT_EQ(-ENOENT, raw_break(fd, 0, 0));
	EXPECT_EQ(-ENOENT, raw_break(fd, 0, 1));
	EXPECT_EQ(0, raw_allocate(fd));
	EXPECT_EQ(-ENOENT, raw_break(fd, 0, 0));

	EXPECT_EQ(0, raw_lock(other, 0, 0, 0));
	before = look(fd, 0);
	EXPECT_EQ(-EAGAIN, raw_break(fd, 0, before.token + 1));
	EXPECT_EQ(-EAGAIN, raw_break(fd, 0, UINT32_MAX));
	after = look(fd, 0);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(0, raw_unlock(other, 0));

	/* whose holder died is held by nobody */
	EXPECT_EQ(0, raw_lock(other, 0, 0, 0));
	close(other);
	EXPECT_EQ(-ENOENT, raw_break(fd, 0, before.token));
	EXPECT_EQ(-ENOENT, raw_break(fd, 0, 0));
	EXPECT_EQ(1, raw_lock(fd, 0, KLOCK_LOCK_TRY, 0));
}

/* Who waits gets a lock that was broken, and only the first is told. */
TEST_F(space, break_with_waiters)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4), fds[2];
	struct agent agents[] = { enlist(NULL, NULL), enlist(NULL, NULL) };

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, raw_lock(fd, 0, 0, 0));
	for (unsigned int i = 0; i < 2; i++) {
		fds[i] = open_by(&agents[i], self->name, 0);
		ASSERT_LE(0, fds[i]);
		tell_lock(&agents[i], fds[i], 0);
		ASSERT_TRUE(UNTIL(look(fd, 0).waiters == i + 1));
	}
	EXPECT_EQ(0, raw_break(fd, 0, look(fd, 0).token));
	EXPECT_EQ(1, answer(&agents[0], NULL, 0));
	EXPECT_EQ(-EPERM, raw_unlock(fd, 0));
	EXPECT_EQ(1, look(fd, 0).waiters);
	EXPECT_EQ(0, unlock_by(&agents[0], fds[0], 0));
	EXPECT_EQ(0, answer(&agents[1], NULL, 0));
	EXPECT_EQ(0, unlock_by(&agents[1], fds[1], 0));
}

/* The same for a thread of an errorcheck client, which then may lock it again. */
TEST_F(space, break_errorcheck)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_ERRORCHECK, 4);
	int next = raw_attach(self->name, KLOCK_ATTACH_ERRORCHECK, 0);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, next);
	EXPECT_EQ(0, raw_lock(fd, 0, 0, 0));
	EXPECT_EQ(-EDEADLK, raw_lock(fd, 0, 0, 0));
	EXPECT_EQ(0, raw_break(next, 0, look(next, 0).token));
	EXPECT_EQ(-EPERM, raw_unlock(fd, 0));
	EXPECT_EQ(1, raw_lock(fd, 0, 0, 0));
	EXPECT_EQ(0, raw_unlock(fd, 0));
}

/* Remove is EBUSY while there are clients, and that changes nothing. */
TEST_F(space, remove_with_clients)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int ro = raw_attach(self->name, KLOCK_ATTACH_READONLY, 0);
	struct klock_ioc_info before, after;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, ro);
	EXPECT_EQ(0, raw_lock(fd, 0, 0, 0));
	before = raw_info(fd);
	EXPECT_EQ(-EBUSY, raw_remove(self->name, 0));
	after = raw_info(fd);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(1, raw_allocate(fd) == 0);
	EXPECT_EQ(0, raw_lock(fd, 1, KLOCK_LOCK_TRY, 0));
	close(fd);
	EXPECT_EQ(-EBUSY, raw_remove(self->name, 0));	/* one that looks is a client, too */
	close(ro);
	EXPECT_EQ(0, raw_remove(self->name, 0));
	EXPECT_EQ(-ENOENT, raw_attach(self->name, 0, 0));
	EXPECT_EQ(-ENOENT, raw_remove(self->name, 0));
	EXPECT_EQ(-ENOENT, raw_remove(self->name, KLOCK_REMOVE_FORCE));
}

/* After a forced remove nobody takes or allocates; who holds may unlock; looking works. */
TEST_F(space, remove_by_force)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 8);
	int other = raw_attach(self->name, 0, 0), late;
	int space_fd = raw_space_fd(other, NULL), n;
	struct klock_ioc_info before, after;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, space_fd);
	EXPECT_EQ(0, raw_allocate(fd));
	EXPECT_EQ(0, raw_lock(fd, 0, 0, 0));
	EXPECT_EQ(0, raw_lock(other, 1, 0, 0));
	before = raw_info(fd);
	EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
	EXPECT_EQ(-ENOENT, raw_attach(self->name, 0, 0));
	EXPECT_EQ(-ENOENT, raw_remove(self->name, KLOCK_REMOVE_FORCE));
	n = list_all(self->listing);
	EXPECT_FALSE(is_listed(self->listing, n, 0, self->name));

	/* info works and says so; who held holds */
	after = raw_info(other);
	EXPECT_EQ(before.generation, after.generation);
	EXPECT_EQ(KLOCK_SPACE_REMOVED, after.flags);
	EXPECT_EQ(2, after.held);
	EXPECT_EQ(2, after.clients);
	EXPECT_STREQ(self->name, after.name);
	EXPECT_TRUE(look(other, 0).flags & KLOCK_STATUS_HELD);
	EXPECT_EQ(KLOCK_STATUS_HELD | KLOCK_STATUS_MINE, look(other, 1).flags);

	EXPECT_EQ(-ESTALE, raw_lock(other, 2, KLOCK_LOCK_TRY, 0));	/* was free */
	EXPECT_EQ(-ESTALE, raw_lock(other, 2, 0, 0));
	EXPECT_EQ(-ESTALE, raw_lock(other, 0, 0, 0));			/* held by another */
	EXPECT_EQ(-ESTALE, raw_lock(other, 0, KLOCK_LOCK_DEADLINE,
				    now_ns(CLOCK_MONOTONIC) + 1000 * NSEC_PER_SEC));
	EXPECT_EQ(-ESTALE, raw_lock(other, 1, 0, 0));			/* held by this one */
	EXPECT_EQ(-ESTALE, raw_allocate(other));
	EXPECT_EQ(-ESTALE, raw_id(other, KLOCK_IOC_FREE, 0));
	EXPECT_EQ(-ESTALE, raw_id(other, KLOCK_IOC_FREE, 3));
	EXPECT_EQ(-ESTALE, raw_id(other, KLOCK_IOC_FREE_ALL, 0));
	EXPECT_EQ(-ESTALE, raw_id(other, KLOCK_IOC_RETRIEVE, 0));
	EXPECT_EQ(-ESTALE, raw_resize(other, 16));
	EXPECT_EQ(-EPERM, raw_unlock(other, 0));
	EXPECT_EQ(-EPERM, raw_unlock(other, 2));

	/* what is unlocked now is gone */
	EXPECT_EQ(0, raw_unlock(fd, 0));
	EXPECT_EQ(-EPERM, raw_unlock(fd, 0));
	EXPECT_EQ(-ESTALE, raw_lock(fd, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-ESTALE, raw_lock(other, 0, 0, 0));
	EXPECT_EQ(1, raw_info(fd).held);

	/* attach by descriptor works; break as ever */
	late = raw_attach_fd(space_fd, 0);
	ASSERT_LE(0, late);
	EXPECT_EQ(before.generation, raw_info(late).generation);
	EXPECT_EQ(-ESTALE, raw_lock(late, 3, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-ENOENT, raw_break(late, 0, 0));
	EXPECT_EQ(0, raw_break(late, 1, look(late, 1).token));
	EXPECT_EQ(-EPERM, raw_unlock(other, 1));
	EXPECT_EQ(-ESTALE, raw_lock(late, 1, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, raw_info(fd).held);
}

/*
 * Waiters of a space that is removed are ESTALE, and the holder is not disturbed.
 * They are woken: in a space that nobody may map they do not look by themselves.
 */
TEST_F(space, remove_with_waiters)
{
	struct klock_space *space = make_space(self->name, 8, KLOCK_NO_FASTPATH);
	struct agent agents[4];
	int fds[4], fd;

	ASSERT_NE(NULL, space);
	fd = klock_space_fd(space);
	EXPECT_EQ(0, raw_lock(fd, 0, 0, 0));
	EXPECT_EQ(0, raw_lock(fd, 7, 0, 0));
	for (unsigned int i = 0; i < 4; i++) {
		agents[i] = enlist(NULL, NULL);
		fds[i] = open_by(&agents[i], self->name, i == 3 ? KLOCK_ATTACH_ERRORCHECK : 0);
		ASSERT_LE(0, fds[i]);
		tell_lock(&agents[i], fds[i], i < 2 ? 0 : 7);
		ASSERT_TRUE(UNTIL(raw_info(fd).waiting == i + 1));
	}
	EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(-ESTALE, answer(&agents[i], NULL, 0));
	}
	EXPECT_EQ(0, raw_info(fd).waiting);
	EXPECT_EQ(2, raw_info(fd).held);
	EXPECT_EQ(0, raw_unlock(fd, 0));
	EXPECT_EQ(0, raw_unlock(fd, 7));
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(-ESTALE, lock_by(&agents[i], fds[i], i < 2 ? 0 : 7, KLOCK_LOCK_TRY));
	}
	klock_space_close(space);
}

/* The name is free at once: the new space has nothing of the old one. */
TEST_F(space, new_space_of_a_removed_name)
{
	int old = raw_attach(self->name, KLOCK_ATTACH_CREATE, 8), fd;
	uint64_t generation = raw_info(old).generation;

	ASSERT_LE(0, old);
	EXPECT_EQ(0, raw_allocate(old));
	EXPECT_EQ(0, raw_lock(old, 0, 0, 0));
	EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
	fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 4);
	ASSERT_LE(0, fd);
	EXPECT_NE(generation, raw_info(fd).generation);
	EXPECT_EQ(0, raw_info(fd).allocated);
	EXPECT_EQ(0, raw_info(fd).flags);
	EXPECT_EQ(4, raw_info(fd).capacity);
	EXPECT_EQ(1, raw_info(fd).clients);
	EXPECT_EQ(0, raw_lock(fd, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(0, raw_unlock(old, 0));
	EXPECT_EQ(KLOCK_STATUS_HELD | KLOCK_STATUS_MINE, look(fd, 0).flags);
	EXPECT_EQ(-ESTALE, raw_lock(old, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-EBUSY, raw_remove(self->name, 0));
	close(old);
	EXPECT_EQ(KLOCK_STATUS_HELD | KLOCK_STATUS_MINE, look(fd, 0).flags);
}

/*
 * Whether an agent that was told to wait for a lock sleeps in there.  It sleeps, too, when
 * it has answered and waits for the next order.
 */
static bool sleeps_there(const struct agent *agent)
{
	char answer;

	return sleeps(agent->pid, agent->pid) &&
	       recv(agent->sock, &answer, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

/*
 * The name is free when all else is done, which takes its time in a large
 * space.  So whoever has got a new space of the name finds that the old one is
 * over: no lock of it, the last ones neither, can be taken, no id is allocated,
 * and who waited was woken.
 */
TEST_F(space, name_is_free_when_the_old_space_is_over)
{
	const uint32_t held = KLOCK_CAPACITY_MAX - 2, unheld = KLOCK_CAPACITY_MAX - 1;
	struct agent waiter = enlist(NULL, NULL);

	for (int round = 0; round < 5; round++) {
		struct klock_ioc_allocate allocate = { .flags = KLOCK_ALLOCATE_ID, .id = unheld };
		int old = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL,
				     KLOCK_CAPACITY_MAX);
		int theirs = open_by(&waiter, self->name, 0), fd, taken;
		bool asleep;
		pid_t pid;

		ASSERT_LE(0, old);
		ASSERT_LE(0, theirs);
		ASSERT_EQ((int)unheld, raw_ioctl(old, KLOCK_IOC_ALLOCATE, &allocate));
		ASSERT_EQ(0, raw_lock(old, held, 0, 0));
		tell_lock(&waiter, theirs, held);
		ASSERT_TRUE(UNTIL(look(old, held).waiters == 1 && sleeps_there(&waiter)));
		pid = spawn();
		if (!pid)
			_exit(-raw_remove(self->name, KLOCK_REMOVE_FORCE));

		do
			fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 1);
		while (fd == -EEXIST);
		taken = raw_lock(old, unheld, KLOCK_LOCK_TRY, 0);
		asleep = sleeps_there(&waiter);
		EXPECT_EQ(0, look(old, unheld).flags);
		EXPECT_EQ(-ESTALE, taken);
		EXPECT_FALSE(asleep);
		ASSERT_LE(0, fd);
		EXPECT_EQ(-ESTALE, answer(&waiter, NULL, 0));
		EXPECT_EQ(0, raw_unlock(old, held));
		EXPECT_EQ(0, reap(pid));
		EXPECT_EQ(0, close_by(&waiter, theirs));
		close(old);
		close(fd);
		EXPECT_EQ(0, raw_remove(self->name, 0));
	}
}

/* A holder of a removed space that dies leaves nothing to be taken. */
TEST_F(space, holder_of_a_removed_space_dies)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 8);
	int other = raw_attach(self->name, 0, 0);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, other);
	EXPECT_EQ(0, raw_lock(other, 0, 0, 0));
	EXPECT_EQ(0, raw_lock(other, 1, 0, 0));
	close(other);		/* 0 and 1 are free, their owner died */
	other = raw_attach(self->name, 0, 0);
	EXPECT_EQ(1, raw_lock(other, 1, 0, 0));
	EXPECT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
	EXPECT_EQ(-ESTALE, raw_lock(fd, 0, KLOCK_LOCK_TRY, 0));
	close(other);
	EXPECT_EQ(-ESTALE, raw_lock(fd, 1, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-ESTALE, raw_lock(fd, 1, 0, 0));
	EXPECT_EQ(0, raw_info(fd).held);
	EXPECT_EQ(1, raw_info(fd).clients);
}

/*
 * The space is removed by force and made anew 200 times under four processes
 * that lock and unlock: a lock that all want, and one that each has for itself.
 * The generation tells the worlds apart.  One is dead when its removal has
 * returned, or when its name has led somebody to the next one.  From then on no
 * lock of it may be taken; and in each world one at a time has the common one.
 */
#define ROUNDS	fewer(200)
#define SLOTS	1024

struct worlds {
	_Atomic uint64_t generation[SLOTS];	/* of the world that has the slot; 0: none */
	atomic_uchar inside[SLOTS];
	atomic_uchar dead[SLOTS + 1];
	atomic_uint seen;		/* slot of a world that the name has led to; SLOTS: none */
	atomic_uint capacity;		/* of the next world */
	atomic_uint taken[4];		/* by each process, in all */
	atomic_bool done;
};

/* A client in one of them. */
struct visitor {
	int fd;
	unsigned int slot;
	uint32_t common;	/* the lock that all want, the last one */
};

/* The slot of a world: the first one from where its generation says that no other has. */
static unsigned int slot_of(struct worlds *worlds, uint64_t generation)
{
	unsigned int slot = generation % SLOTS;
	uint64_t had = 0;

	while (!atomic_compare_exchange_strong(&worlds->generation[slot], &had, generation) &&
	       had != generation) {
		slot = (slot + 1) % SLOTS;
		had = 0;
	}
	return slot;
}

/*
 * Attaches to the world of now, or makes it, if @flags say so; another that was
 * seen before is dead.
 */
static bool enter_world(struct worlds *worlds, const char *name, uint32_t flags,
			struct visitor *visitor)
{
	unsigned int before = worlds->seen;
	struct klock_ioc_info info;

	visitor->fd = raw_attach(name, flags, flags ? worlds->capacity : 0);
	if (visitor->fd < 0)
		return false;
	info = raw_info(visitor->fd);
	visitor->slot = slot_of(worlds, info.generation);
	visitor->common = info.capacity - 1;
	if (before != visitor->slot)
		worlds->dead[before] = 1;
	worlds->seen = visitor->slot;
	return true;
}

/* Takes a lock and releases it, if its world is not dead: 0 or -ESTALE. */
static int visit(struct worlds *worlds, const struct visitor *visitor, uint32_t id)
{
	bool common = id == visitor->common, dead = worlds->dead[visitor->slot];
	int ret = raw_lock(visitor->fd, id, 0, 0);

	CHECK(ret == 0 || ret == -ESTALE);
	if (ret)
		return ret;
	CHECK(!dead);
	if (common)
		CHECK(worlds->inside[visitor->slot]++ == 0);
	sched_yield();		/* let others come and wait */
	if (common)
		CHECK(worlds->inside[visitor->slot]-- == 1);
	CHECK(raw_unlock(visitor->fd, id) == 0);
	return 0;
}

static void lock_in_all_worlds(struct worlds *worlds, const char *name, int me)
{
	struct visitor visitor;

	while (!worlds->done) {
		if (!enter_world(worlds, name, 0, &visitor)) {
			CHECK(visitor.fd == -ENOENT);
			nap();
			continue;
		}
		while (!worlds->done && visit(worlds, &visitor, visitor.common) == 0) {
			worlds->taken[me]++;
			for (int i = 0; i < 10; i++)
				if (visit(worlds, &visitor, visitor.common - 1 - me))
					break;
		}
		close(visitor.fd);
	}
	_exit(0);
}

/* Looks for the next world every now and then, and makes it. */
static void seek_new_worlds(struct worlds *worlds, const char *name)
{
	struct visitor visitor;

	while (!worlds->done) {
		CHECK(enter_world(worlds, name, KLOCK_ATTACH_CREATE, &visitor));
		close(visitor.fd);
		nap();
	}
	_exit(0);
}

TEST_F_TIMEOUT(space, remove_under_load, 90)
{
	struct worlds *worlds = shared(sizeof(*worlds));
	struct visitor visitor;
	pid_t pids[4], seeker;

	worlds->capacity = 5;
	worlds->seen = SLOTS;
	seeker = spawn();
	if (!seeker)
		seek_new_worlds(worlds, self->name);

	for (int i = 0; i < 4; i++) {
		pids[i] = spawn();
		if (!pids[i])
			lock_in_all_worlds(worlds, self->name, i);
	}
	for (int round = 0; round < ROUNDS; round++) {
		unsigned int before[4];

		ASSERT_TRUE(enter_world(worlds, self->name, KLOCK_ATTACH_CREATE, &visitor));
		for (int i = 0; i < 4; i++)
			before[i] = worlds->taken[i];
		/* all are here when the world ends */
		for (int i = 0; i < 4; i++) {
			ASSERT_TRUE(UNTIL(worlds->taken[i] != before[i]));
		}
		/* a large one takes longer to remove than the small one after it to make */
		worlds->capacity = round % 20 ? 5 : 65536;
		ASSERT_EQ(0, raw_remove(self->name, KLOCK_REMOVE_FORCE));
		worlds->dead[visitor.slot] = 1;
		EXPECT_EQ(-ESTALE, raw_lock(visitor.fd, visitor.common, 0, 0));
		close(visitor.fd);
	}
	worlds->done = true;
	EXPECT_EQ(0, reap(seeker));
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, reap(pids[i]));
	}
}

static int compare_spaces(const struct klock_ioc_info *a, const struct klock_ioc_info *b)
{
	return a->uid != b->uid ? (a->uid > b->uid) - (a->uid < b->uid) : strcmp(a->name, b->name);
}

/* The list: by uid and name, all at once or in steps, each as its own info says. */
TEST_F(space, list_of_spaces)
{
	static const char first[] = "Cab-_0Z";
	struct agent owner = user(OWNER), other = user(OTHER);
	struct klock_ioc_info *all;
	char name[KLOCK_NAME_SIZE];
	int n;

	for (unsigned int i = 0; i < strlen(first); i++) {
		also(name, first[i], self->name);
		ASSERT_LE(0, make_by(&owner, name, i + 1, 0604));
		ASSERT_LE(0, make_by(&other, name, i + 1, 0));
		close(raw_attach(name, KLOCK_ATTACH_CREATE, i + 1));
	}
	n = list_all(self->listing);
	ASSERT_LE(21, n);
	all = calloc(n, sizeof(*all));
	memcpy(all, self->listing->info, n * sizeof(*all));
	for (int i = 1; i < n; i++) {
		EXPECT_GT(0, compare_spaces(&all[i - 1], &all[i]));
	}
	for (unsigned int i = 0; i < strlen(first); i++) {
		also(name, first[i], self->name);
		EXPECT_TRUE(is_listed(self->listing, n, 0, name));
		EXPECT_TRUE(is_listed(self->listing, n, OWNER, name));
		EXPECT_TRUE(is_listed(self->listing, n, OTHER, name));
	}

	/* one by one, and from a place where no space is */
	self->listing->n = 1;
	for (int i = 0; i < n; i++) {
		EXPECT_EQ(1, list_spaces(self->listing));
		EXPECT_EQ(0, memcmp(&all[i], &self->listing->info[0], sizeof(all[i])));
		self->listing->after = self->listing->info[0];
	}
	EXPECT_EQ(0, list_spaces(self->listing));
	self->listing->n = 3;
	self->listing->after.uid = OWNER;
	also(self->listing->after.name, 'D', self->name);
	EXPECT_EQ(3, list_spaces(self->listing));
	EXPECT_STREQ(also(name, 'Z', self->name), self->listing->info[0].name);
	EXPECT_EQ(OWNER, self->listing->info[0].uid);
	EXPECT_EQ(7, self->listing->info[0].capacity);
	EXPECT_EQ(0604, self->listing->info[0].mode);
	EXPECT_EQ(1, self->listing->info[0].clients);
	EXPECT_NE(0, self->listing->info[0].generation);
	self->listing->n = 0;
	EXPECT_EQ(0, list_spaces(self->listing));

	/* only those that the caller may read */
	n = list_by(&other, self->listing);
	EXPECT_TRUE(is_listed(self->listing, n, OWNER, name));
	EXPECT_TRUE(is_listed(self->listing, n, OTHER, name));
	EXPECT_FALSE(is_listed(self->listing, n, 0, name));
	n = list_by(&owner, self->listing);
	EXPECT_FALSE(is_listed(self->listing, n, OTHER, name));
	free(all);
}

/* The library's list is the same. */
TEST_F(space, list_of_the_library)
{
	struct klock_space *space = make_space(self->name, 3, 0);
	struct klock_space_info info = {}, got, own;
	bool found = false;
	int n = 0;

	ASSERT_NE(NULL, space);
	ASSERT_EQ(0, klock_space_info(space, &own));
	for (POISON(got); klock_space_list(n ? &info : NULL, &got, 1) == 1; n++) {
		info = got;
		found |= !memcmp(&got, &own, sizeof(own));
		POISON(got);
	}
	EXPECT_TRUE(found);
	EXPECT_EQ(n, list_all(self->listing));
	EXPECT_EQ(0, klock_space_list(NULL, NULL, 0));
	klock_space_close(space);
}

/* The space descriptor: one of each client, which tells its token. */
TEST_F(space, descriptor_once)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int second = raw_attach(self->name, 0, 0);
	uint32_t token = 0, token2 = 0;
	int space_fd = raw_space_fd(fd, &token);

	ASSERT_LE(0, space_fd);
	EXPECT_EQ(FD_CLOEXEC, fcntl(space_fd, F_GETFD));
	EXPECT_EQ(0, raw_lock(fd, 2, 0, 0));
	EXPECT_EQ(look(fd, 2).token, token);
	EXPECT_EQ(-EBUSY, raw_space_fd(fd, NULL));
	close(space_fd);
	EXPECT_EQ(-EBUSY, raw_space_fd(fd, NULL));

	EXPECT_LE(0, raw_space_fd(second, &token2));
	EXPECT_NE(0, token2);
	EXPECT_NE(token, token2);
}

/* Want of descriptors is EMFILE, and leaves the one that the client can make. */
TEST_F(space, descriptor_that_there_was_no_room_for)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4), last = dup(0);
	struct rlimit old, none;

	ASSERT_LE(0, fd);
	close(last);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none = old;
	none.rlim_cur = last;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_EQ(-EMFILE, raw_space_fd(fd, NULL));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	EXPECT_EQ(last, raw_space_fd(fd, NULL));
}

/* It keeps the space, but neither the client nor its locks. */
TEST_F(space, descriptor_does_not_keep_the_client)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int space_fd = raw_space_fd(fd, NULL), late;
	uint64_t generation = raw_info(fd).generation;

	ASSERT_LE(0, space_fd);
	EXPECT_EQ(0, raw_lock(fd, 0, 0, 0));
	close(fd);
	late = raw_attach_fd(space_fd, 0);
	ASSERT_LE(0, late);
	EXPECT_EQ(1, raw_info(late).clients);
	EXPECT_EQ(1, raw_lock(late, 0, KLOCK_LOCK_TRY, 0));
	close(late);

	/* it is no client, so remove needs no force; and it leads to what it was made for */
	EXPECT_EQ(0, raw_remove(self->name, 0));
	fd = raw_attach(self->name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL, 4);
	ASSERT_LE(0, fd);
	late = raw_attach_fd(space_fd, 0);
	ASSERT_LE(0, late);
	EXPECT_EQ(generation, raw_info(late).generation);
	EXPECT_EQ(KLOCK_SPACE_REMOVED, raw_info(late).flags);
	EXPECT_EQ(-ESTALE, raw_lock(late, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_NE(generation, raw_info(fd).generation);
}

/* It has the rights that it was made with, in the hands of whoever. */
TEST_F(space, descriptor_keeps_its_rights)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int ro = raw_attach(self->name, KLOCK_ATTACH_READONLY, 0);
	int rw_space = raw_space_fd(fd, NULL), ro_space = raw_space_fd(ro, NULL), late;
	struct klock_ioc_attach attach = { .flags = KLOCK_ATTACH_FD, .space_fd = rw_space };
	struct agent other = user(OTHER);

	ASSERT_LE(0, rw_space);
	ASSERT_LE(0, ro_space);
	late = raw_attach_fd(rw_space, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, late);
	EXPECT_EQ(4, raw_info(late).capacity);
	EXPECT_EQ(-EACCES, raw_lock(late, 0, KLOCK_LOCK_TRY, 0));
	late = raw_attach_fd(ro_space, KLOCK_ATTACH_READONLY);
	ASSERT_LE(0, late);
	EXPECT_EQ(-EACCES, raw_lock(late, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(-EACCES, raw_attach_fd(ro_space, 0));

	late = attach_by(&other, &attach);
	ASSERT_LE(0, late);
	EXPECT_EQ(0, lock_by(&other, late, 0, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EACCES, resize_by(&other, late, 8));
}

/* What is no space descriptor, and what one is not. */
TEST_F(space, descriptor_of_something_else)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_CREATE, 4);
	int space_fd = raw_space_fd(fd, NULL), null = open("/dev/null", O_RDWR);

	ASSERT_LE(0, space_fd);
	EXPECT_EQ(-EBADF, raw_attach_fd(-1, 0));
	EXPECT_EQ(-EBADF, raw_attach_fd(1000000, 0));
	EXPECT_EQ(-EINVAL, raw_attach_fd(null, 0));
	EXPECT_EQ(-EINVAL, raw_attach_fd(fd, 0));
	EXPECT_EQ(-ENOTTY, raw_lock(space_fd, 0, KLOCK_LOCK_TRY, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	EXPECT_EQ(1, raw_info(fd).clients);
}

FIXTURE(quota) {
	char name[KLOCK_NAME_SIZE];	/* a */
	char name2[KLOCK_NAME_SIZE];
	char name3[KLOCK_NAME_SIZE];
	struct listing *listing;
	struct agent owner;
	unsigned long saved[ARRAY_SIZE(quotas)];
};

FIXTURE_SETUP(quota)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(quotas); i++)
		self->saved[i] = get_quota(i);
	SPACE_NAME(self->name);
	also(self->name2, '2', self->name);
	also(self->name3, '3', self->name);
	self->listing = shared(sizeof(*self->listing));
	self->owner = user(OWNER);
}

FIXTURE_TEARDOWN(quota)
{
	dismiss_all();
	sweep(self->listing);
	for (unsigned int i = 0; i < ARRAY_SIZE(quotas); i++) {
		EXPECT_TRUE(set_quota(i, self->saved[i]));
	}
}

/* A quota of spaces for each user: EDQUOT, and nothing is made. */
TEST_F(quota, spaces_per_user)
{
	struct agent other = user(OTHER);
	int fd, n;

	ASSERT_TRUE(set_quota(MAX_SPACES_PER_USER, 2));
	ASSERT_LE(0, make_by(&self->owner, self->name, 1, 0));
	fd = make_by(&self->owner, self->name2, 1, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name3, 1, 0));
	EXPECT_EQ(-ENOENT, open_by(&self->owner, self->name3, 0));
	n = list_all(self->listing);
	EXPECT_FALSE(is_listed(self->listing, n, OWNER, self->name3));
	EXPECT_LE(0, open_by(&self->owner, self->name2, KLOCK_ATTACH_CREATE));
	EXPECT_LE(0, make_by(&other, self->name, 1, 0));

	ASSERT_TRUE(set_quota(MAX_SPACES_PER_USER, 3));
	EXPECT_LE(0, make_by(&self->owner, self->name3, 1, 0));
	ASSERT_TRUE(set_quota(MAX_SPACES_PER_USER, 0));
	EXPECT_EQ(0, lock_by(&self->owner, fd, 0, 0));	/* what there is goes on */
}

/* A first call that would have to make the default space meets the quota, too. */
TEST_F(quota, default_space)
{
	int fd = bare_by(&self->owner);

	no_default(&self->owner);
	ASSERT_TRUE(set_quota(MAX_LOCKS_PER_USER, 2047));
	EXPECT_EQ(-EDQUOT, lock_by(&self->owner, fd, 0, 0));
	ASSERT_TRUE(set_quota(MAX_LOCKS_PER_USER, 2048));
	EXPECT_EQ(0, lock_by(&self->owner, fd, 0, 0));
	no_default(&self->owner);
}

/* A quota of locks for each user; a grow that is refused leaves all as it was. */
TEST_F(quota, locks_per_user)
{
	struct klock_ioc_info before, after;
	int fd, fd2;

	ASSERT_TRUE(set_quota(MAX_LOCKS_PER_USER, 100));
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name, 101, 0));
	fd = make_by(&self->owner, self->name, 60, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name2, 41, 0));
	EXPECT_EQ(-ENOENT, open_by(&self->owner, self->name2, 0));
	fd2 = make_by(&self->owner, self->name2, 30, 0);
	ASSERT_LE(0, fd2);

	EXPECT_EQ(0, lock_by(&self->owner, fd, 59, 0));
	before = info_by(&self->owner, fd);
	EXPECT_EQ(-EDQUOT, resize_by(&self->owner, fd, 71));
	EXPECT_EQ(-EDQUOT, resize_by(&self->owner, fd, KLOCK_CAPACITY_MAX));
	after = info_by(&self->owner, fd);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	EXPECT_EQ(-EINVAL, lock_by(&self->owner, fd, 60, KLOCK_LOCK_TRY));
	EXPECT_EQ(0, unlock_by(&self->owner, fd, 59));
	EXPECT_EQ(0, resize_by(&self->owner, fd, 70));
	EXPECT_EQ(0, lock_by(&self->owner, fd, 69, KLOCK_LOCK_TRY));
	EXPECT_EQ(-EDQUOT, resize_by(&self->owner, fd2, 31));
	EXPECT_EQ(0, lock_by(&self->owner, fd2, 29, KLOCK_LOCK_TRY));
}

/* Quotas of the whole system, whoever makes the spaces. */
TEST_F(quota, whole_system)
{
	struct agent other = user(OTHER);
	int n = list_all(self->listing), fd;
	unsigned long locks = 0;

	for (int i = 0; i < n; i++)
		locks += self->listing->info[i].capacity;

	ASSERT_TRUE(set_quota(MAX_SPACES, n + 1));
	ASSERT_LE(0, make_by(&self->owner, self->name, 1, 0));
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name2, 1, 0));
	EXPECT_EQ(-EDQUOT, make_by(&other, self->name, 1, 0));
	ASSERT_TRUE(set_quota(MAX_SPACES, self->saved[MAX_SPACES]));

	ASSERT_TRUE(set_quota(MAX_LOCKS, locks + 1 + 10));
	EXPECT_EQ(-EDQUOT, make_by(&other, self->name, 11, 0));
	fd = make_by(&other, self->name, 8, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name2, 3, 0));
	EXPECT_EQ(-EDQUOT, resize_by(&other, fd, 11));
	EXPECT_EQ(8, info_by(&other, fd).capacity);
	EXPECT_EQ(0, resize_by(&other, fd, 10));
}

/*
 * Two processes make one space at the same moment, and the user may have one
 * more: both get it, and nobody is told of a quota.  Large spaces take long to
 * make, so that the second comes in the middle.
 */
TEST_F_TIMEOUT(quota, one_space_made_by_two, 120)
{
	struct klock_ioc_attach attach = named(self->name, KLOCK_ATTACH_CREATE);
	struct agent second = user(OWNER);

	attach.capacity = KLOCK_CAPACITY_MAX;
	for (int round = 0; round < 2 + fewer(18); round++) {
		int quota = round % 2 ? MAX_LOCKS_PER_USER : MAX_SPACES_PER_USER;
		int fd, fd2;

		ASSERT_TRUE(set_quota(quota, round % 2 ? KLOCK_CAPACITY_MAX : 1));
		tell(&self->owner, do_attach, -1, 0, &attach, sizeof(attach));
		tell(&second, do_attach, -1, 0, &attach, sizeof(attach));
		fd = answer(&self->owner, NULL, 0);
		fd2 = answer(&second, NULL, 0);
		ASSERT_LE(0, fd);
		ASSERT_LE(0, fd2);
		EXPECT_EQ(2, info_by(&second, fd2).clients);
		EXPECT_EQ(-EDQUOT, make_by(&second, self->name2, 1, 0));
		EXPECT_EQ(0, close_by(&self->owner, fd));
		EXPECT_EQ(0, close_by(&second, fd2));
		EXPECT_EQ(0, remove_by(&second, self->name, 0, 0));
		ASSERT_TRUE(set_quota(quota, self->saved[quota]));
	}
}

/* CAP_SYS_RESOURCE is exempt, and that alone. */
TEST_F(quota, cap_sys_resource_is_exempt)
{
	struct who who = { .uid = OWNER, .gid = OWNER, .caps = CAP(CAP_SYS_RESOURCE) };
	struct agent exempt = enlist_who(who), rest, root;
	int fd;

	who.caps = ALL_CAPS & ~CAP(CAP_SYS_RESOURCE);
	rest = enlist_who(who);
	root = enlist_who((struct who) { .caps = who.caps });
	for (unsigned int i = 0; i < ARRAY_SIZE(quotas); i++) {
		ASSERT_TRUE(set_quota(i, 0));
		EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name, 1, 0)) TH_LOG("%s", quotas[i]);
		EXPECT_EQ(-EDQUOT, make_by(&rest, self->name, 1, 0)) TH_LOG("%s", quotas[i]);
		EXPECT_EQ(-EDQUOT, make_by(&root, self->name, 1, 0)) TH_LOG("%s", quotas[i]);
		fd = make_by(&exempt, self->name, 1, 0);
		EXPECT_LE(0, fd) TH_LOG("%s", quotas[i]);
		EXPECT_EQ(0, resize_by(&exempt, fd, 1000)) TH_LOG("%s", quotas[i]);
		EXPECT_EQ(0, remove_by(&exempt, self->name, KLOCK_REMOVE_FORCE, 0));
		ASSERT_TRUE(set_quota(i, self->saved[i]));
	}
}

/* A charge is given back when the memory is freed, not when the name is. */
TEST_F(quota, charged_until_the_memory_is_freed)
{
	struct klock_ioc_space_fd arg = {};
	int fd, space_fd;

	ASSERT_TRUE(set_quota(MAX_SPACES_PER_USER, 1));
	fd = make_by(&self->owner, self->name, 1, 0);
	ASSERT_LE(0, fd);
	space_fd = ioctl_by(&self->owner, fd, KLOCK_IOC_SPACE_FD, &arg);
	ASSERT_LE(0, space_fd);
	EXPECT_EQ(0, remove_by(&self->owner, self->name, KLOCK_REMOVE_FORCE, 0));
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name, 1, 0));
	EXPECT_EQ(0, close_by(&self->owner, fd));
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name, 1, 0));
	EXPECT_EQ(0, close_by(&self->owner, space_fd));
	EXPECT_TRUE(UNTIL((fd = make_by(&self->owner, self->name, 1, 0)) >= 0));
	EXPECT_EQ(0, close_by(&self->owner, fd));
	EXPECT_EQ(0, remove_by(&self->owner, self->name, 0, 0));
	EXPECT_LE(0, make_by(&self->owner, self->name2, 1, 0));
}

/*
 * A space made inside a user namespace counts against the owner of the
 * outermost one below the initial, whatever uid made it and however deep.
 */
TEST_F(quota, user_namespace)
{
	struct agent in = user(OWNER), second = user(OWNER), sub = user(INSIDE_1);
	int first;

	ASSERT_TRUE(set_quota(MAX_SPACES_PER_USER, 2));
	ASSERT_TRUE(enter_userns(&in, OWNER));
	ASSERT_TRUE(enter_userns(&second, OWNER));

	ASSERT_EQ(0, become_by(&in, (struct who) { .uid = 1, .gid = 1 }));
	first = make_by(&in, self->name, 1, 0);
	EXPECT_LE(0, first);
	ASSERT_EQ(0, become_by(&second, (struct who) { .uid = 2, .gid = 2 }));
	tell(&second, do_unshare, -1, CLONE_NEWUSER, NULL, 0);	/* one deeper */
	ASSERT_EQ(0, answer(&second, NULL, 0));
	EXPECT_LE(0, make_by(&second, self->name, 1, 0));

	EXPECT_EQ(-EDQUOT, make_by(&in, self->name2, 1, 0));
	EXPECT_EQ(-EDQUOT, make_by(&second, self->name2, 1, 0));
	EXPECT_EQ(-EDQUOT, make_by(&self->owner, self->name2, 1, 0));
	EXPECT_LE(0, make_by(&sub, self->name2, 1, 0));	/* the same uid, from outside */
	EXPECT_LE(0, make_by(&sub, self->name3, 1, 0));

	EXPECT_EQ(0, close_by(&in, first));
	EXPECT_EQ(0, remove_by(&in, self->name, 0, 0));
	EXPECT_TRUE(UNTIL(make_by(&self->owner, self->name2, 1, 0) >= 0));
}

TEST_HARNESS_MAIN
