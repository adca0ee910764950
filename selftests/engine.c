// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The container engine of libklock/examples/engine.c: many of it at once, killed at any
 * instruction, over a reboot, a space that is removed, and a table that is full.
 * What must hold when all have ended: see expect_agreement().
 */
#include "klock_test.h"

#include <sys/ptrace.h>

#define SLOTS		8	/* processes of a storm */
#define ROWS_MAX	256

/* What `engine ps` prints. */
struct row {
	char name[32];
	uint32_t id;
	char state[16];
};

FIXTURE(engine)
{
	char dir[32];		/* of all files of the engine */
	char db[48];
	char space[KLOCK_NAME_SIZE];
	char hook[80];		/* lasts until the test says so */
	int fifo;		/* by which it does */
};

#define SELF	FIXTURE_DATA(engine)

FIXTURE_SETUP(engine)
{
	char fifo[64];

	strcpy(self->dir, "/tmp/engine.XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	SPACE_NAME(self->space);
	snprintf(self->db, sizeof(self->db), "%s/db", self->dir);
	snprintf(fifo, sizeof(fifo), "%s/fifo", self->dir);
	snprintf(self->hook, sizeof(self->hook), "read x < %s", fifo);
	ASSERT_EQ(0, mkfifo(fifo, 0600));
	self->fifo = open(fifo, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fifo);
	setenv("XDG_RUNTIME_DIR", self->dir, 1);
}

FIXTURE_TEARDOWN(engine)
{
	char command[64];

	close(self->fifo);	/* ends the hooks that are left */
	klock_space_remove(self->space, KLOCK_FORCE);
	snprintf(command, sizeof(command), "rm -rf %s", self->dir);
	EXPECT_EQ(0, system(command));
}

/* Becomes an engine; @arg may be NULL. */
static void exec_engine(const SELF *self, const char *command, const char *name,
			const char *arg)
{
	char path[PATH_MAX];
	ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - sizeof("_example"));

	CHECK(size > 0);
	strcpy(path + size, "_example");
	execl(path, "engine", "--db", self->db, "--space", self->space, command, name, arg, NULL);
	CHECK(!"an engine");
}

/* Starts an engine; @name and @hook may be NULL. */
static pid_t begin(const SELF *self, const char *command, const char *name, const char *hook)
{
	pid_t pid = spawn();

	if (pid == 0)
		exec_engine(self, command, name, hook);
	return pid;
}

/* The exit status of an engine. */
static int run(const SELF *self, const char *command, const char *name, const char *hook)
{
	return reap(begin(self, command, name, hook));
}

/* Fills in the rows that there are: how many, or minus the exit status of `ps`. */
static int ps(const SELF *self, struct row rows[ROWS_MAX])
{
	int ends[2], n = 0, ret;
	char line[256];
	FILE *file;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	pid = spawn();
	if (pid == 0) {
		CHECK(dup2(ends[1], STDOUT_FILENO) == STDOUT_FILENO);
		exec_engine(self, "ps", NULL, NULL);
	}
	close(ends[1]);
	file = fdopen(ends[0], "r");
	while (fgets(line, sizeof(line), file))
		if (n < ROWS_MAX && sscanf(line, "%31s %u %15s", rows[n].name, &rows[n].id,
					   rows[n].state) == 3)
			n++;
	fclose(file);
	ret = reap(pid);
	return ret ? -abs(ret) : n;
}

static bool has_state(const SELF *self, const char *name, const char *state)
{
	struct row rows[ROWS_MAX];
	int i, n = ps(self, rows);

	for (i = 0; i < n; i++)
		if (!strcmp(rows[i].name, name))
			return !strcmp(rows[i].state, state);
	return false;
}

static struct klock_space_info info_of(const SELF *self)
{
	struct klock_space *space = join_space(self->space, KLOCK_READONLY);
	struct klock_space_info info;

	memset(&info, 0xff, sizeof(info));
	if (space && klock_space_info(space, &info))
		memset(&info, 0xff, sizeof(info));
	klock_space_close(space);
	return info;
}

static void finish_hook(struct __test_metadata *_metadata, const SELF *self)
{
	ASSERT_EQ(1, write(self->fifo, "\n", 1));
}

/* A row has an id that is allocated, that no row before it has, and whose lock nobody holds. */
static void expect_good_row(struct __test_metadata *_metadata, struct klock_space *space,
			    const struct row *rows, int i)
{
	struct klock *lock = get_lock(space, rows[i].id);
	struct klock_status status;
	int j;

	ASSERT_NE(NULL, lock);
	status = status_of(lock);
	EXPECT_TRUE(status.flags & KLOCK_ALLOCATED) {
		TH_LOG("%s: id %u", rows[i].name, rows[i].id);
	}
	EXPECT_FALSE(status.flags & KLOCK_HELD);
	for (j = 0; j < i; j++) {
		EXPECT_NE(rows[j].id, rows[i].id);
	}
	/* Of what is half done, the next one is told. */
	if (strcmp(rows[i].state, "stopped") && strcmp(rows[i].state, "running")) {
		EXPECT_TRUE(status.flags & KLOCK_DIED) {
			TH_LOG("%s is %s", rows[i].name, rows[i].state);
		}
	}
	klock_put(lock);
}

/* Nobody runs: each container has an id of its own, which is allocated; how many there are. */
static int expect_good_rows(struct __test_metadata *_metadata, const SELF *self,
			    struct row rows[ROWS_MAX])
{
	int i, n = ps(self, rows);
	struct klock_space *space = join_space(self->space, KLOCK_READONLY);

	EXPECT_LE(0, n);
	EXPECT_NE(NULL, space);
	for (i = 0; space && i < n; i++)
		expect_good_row(_metadata, space, rows, i);
	klock_space_close(space);
	EXPECT_EQ(0, info_of(self).held);
	return n;
}

/*
 * Nobody runs: database and locks agree.  The rows are good; after `prune` no other id is
 * allocated; and the next command for each container works, whatever was left of the last.
 */
static void expect_agreement(struct __test_metadata *_metadata, const SELF *self)
{
	struct row rows[ROWS_MAX];
	int i, n = expect_good_rows(_metadata, self, rows);

	EXPECT_EQ(0, run(self, "prune", NULL, NULL));
	EXPECT_EQ(n, info_of(self).allocated);
	for (i = 0; i < n; i++) {
		EXPECT_EQ(0, run(self, "stop", rows[i].name, NULL));
	}
	EXPECT_EQ(n, ps(self, rows));
	for (i = 0; i < n; i++) {
		EXPECT_STREQ("stopped", rows[i].state);
	}
}

/*
 * A storm: engines at random, one in each slot at any time
 */
struct storm {
	const SELF *self;
	const char * const *commands;	/* the last one is NULL */
	bool kills;
	uint32_t random;
	unsigned int done, refused, killed, wrong;
	uint64_t life;			/* of one that is not killed, about */
	struct {
		pid_t pid;
		uint64_t since, end;	/* when it is killed */
	} slots[SLOTS];
};

static const char * const all_commands[] = {
	"create", "create", "start", "start", "stop", "stop", "rm", "ps", "prune", NULL
};

/* What an engine says goes to the file of its slot, to be shown if it went wrong. */
static void exec_logged(const SELF *self, int slot, const char *command, const char *name)
{
	bool named = strcmp(command, "ps") && strcmp(command, "prune");
	char log[64];

	snprintf(log, sizeof(log), "%s/log.%d", self->dir, slot);
	CHECK(freopen(log, "w", stderr));
	CHECK(dup2(STDERR_FILENO, STDOUT_FILENO) == STDOUT_FILENO);
	exec_engine(self, command, named ? name : NULL, NULL);
}

static void start_slot(struct storm *storm, int i)
{
	const char *command;
	char name[8];
	int n = 0;

	while (storm->commands[n])
		n++;
	command = storm->commands[rnd(&storm->random) % n];
	snprintf(name, sizeof(name), "c%u", rnd(&storm->random) % 6);
	storm->slots[i].since = now_ns(CLOCK_MONOTONIC);
	storm->slots[i].end = UINT64_MAX;
	if (storm->kills && rnd(&storm->random) % 4)
		storm->slots[i].end = storm->slots[i].since +
				      rnd(&storm->random) % (2 * storm->life);
	storm->slots[i].pid = spawn();
	if (storm->slots[i].pid == 0)
		exec_logged(storm->self, i, command, name);
}

static void show_log(const struct storm *storm, int i)
{
	char log[64], line[256];
	FILE *file;

	snprintf(log, sizeof(log), "%s/log.%d", storm->self->dir, i);
	file = fopen(log, "re");
	while (file && fgets(line, sizeof(line), file))
		fprintf(stderr, "# %s", line);
	if (file)
		fclose(file);
}

/* Whether the engine of a slot has ended. */
static bool end_slot(struct storm *storm, int i, int flags)
{
	uint64_t life = now_ns(CLOCK_MONOTONIC) - storm->slots[i].since;
	int status;

	if (!storm->slots[i].pid)
		return true;
	if (waitpid(storm->slots[i].pid, &status, flags) != storm->slots[i].pid)
		return false;
	storm->slots[i].pid = 0;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		storm->killed++;
		return true;
	}
	storm->life = (7 * storm->life + life) / 8;
	storm->done += status == 0;
	storm->refused += WIFEXITED(status) && WEXITSTATUS(status) == 1;
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) {
		storm->wrong++;
		show_log(storm, i);
	}
	return true;
}

/* @now_and_then, if it is not NULL, is called five times a second. */
static void rage(struct storm *storm, int seconds, void (*now_and_then)(const SELF *self))
{
	uint64_t now = now_ns(CLOCK_MONOTONIC), end = now + seconds * NSEC_PER_SEC;
	uint64_t next = now;
	int i;

	for (; now < end; now = now_ns(CLOCK_MONOTONIC)) {
		for (i = 0; i < SLOTS; i++) {
			if (end_slot(storm, i, WNOHANG))
				start_slot(storm, i);
			if (now >= storm->slots[i].end)
				kill(storm->slots[i].pid, SIGKILL);
		}
		if (now_and_then && now >= next) {
			now_and_then(storm->self);
			next = now + NSEC_PER_SEC / 5 * slowness();
		}
		usleep(2000);	/* others are to have the processor */
	}
	for (i = 0; i < SLOTS; i++)
		end_slot(storm, i, 0);
}

static struct storm storm_of(const SELF *self, const char * const *commands, bool kills)
{
	return (struct storm) {
		.self = self,
		.commands = commands,
		.kills = kills,
		.random = now_ns(CLOCK_REALTIME) | 1,
		.life = 20 * NSEC_PER_MSEC,
	};
}

static void tell_of(struct __test_metadata *_metadata, const struct storm *storm)
{
	TH_LOG("%u done, %u refused, %u killed, %u wrong; each took %llu ms", storm->done,
	       storm->refused, storm->killed, storm->wrong,
	       (unsigned long long)(storm->life / NSEC_PER_MSEC));
}

TEST_F_TIMEOUT(engine, life_of_a_container, 60)
{
	struct row rows[ROWS_MAX];

	EXPECT_EQ(0, ps(self, rows));
	EXPECT_EQ(0, run(self, "create", "a", NULL));
	EXPECT_EQ(1, run(self, "create", "a", NULL));
	EXPECT_EQ(0, run(self, "create", "b", NULL));
	ASSERT_EQ(2, ps(self, rows));
	EXPECT_STREQ("a", rows[0].name);
	EXPECT_EQ(0, rows[0].id);
	EXPECT_STREQ("stopped", rows[0].state);
	EXPECT_EQ(1, rows[1].id);
	EXPECT_EQ(0, run(self, "start", "a", NULL));
	EXPECT_TRUE(has_state(self, "a", "running"));
	EXPECT_EQ(0, run(self, "start", "a", "false"));		/* nothing to do */
	EXPECT_EQ(1, run(self, "rm", "a", NULL));
	EXPECT_EQ(1, run(self, "stop", "a", "false"));
	EXPECT_TRUE(has_state(self, "a", "running"));
	EXPECT_EQ(0, run(self, "stop", "a", "true"));
	EXPECT_EQ(1, run(self, "start", "a", "false"));
	EXPECT_TRUE(has_state(self, "a", "stopped"));
	EXPECT_EQ(0, run(self, "rm", "a", NULL));
	EXPECT_EQ(1, run(self, "start", "a", NULL));
	EXPECT_EQ(1, run(self, "rm", "a", NULL));
	EXPECT_EQ(1, ps(self, rows));
	EXPECT_EQ(1, info_of(self).allocated);
	expect_agreement(_metadata, self);
}

TEST_F(engine, asked_for_nonsense)
{
	struct row rows[ROWS_MAX];
	SELF other = *self;

	EXPECT_EQ(2, run(self, "", NULL, NULL));
	EXPECT_EQ(2, run(self, "destroy", "a", NULL));
	EXPECT_EQ(2, run(self, "create", NULL, NULL));
	EXPECT_EQ(2, run(self, "create", "", NULL));
	EXPECT_EQ(2, run(self, "create", "a b", NULL));
	EXPECT_EQ(2, run(self, "create", "abcdefghijklmnopqrstu", NULL));
	EXPECT_EQ(2, run(self, "create", "a", "b"));
	EXPECT_EQ(2, run(self, "ps", "a", NULL));
	EXPECT_EQ(2, run(self, "--nonsense", NULL, NULL));
	strcpy(other.space, ".none");
	EXPECT_EQ(2, run(&other, "create", "a", NULL));
	strcpy(other.db, "/none/db");
	EXPECT_EQ(2, run(&other, "create", "a", NULL));
	EXPECT_EQ(0, ps(self, rows));
	EXPECT_EQ(0, info_of(self).allocated);
}

/* A space is for one database: another one would free its ids. */
TEST_F(engine, space_of_another_database)
{
	struct row rows[ROWS_MAX];
	SELF other = *self;

	strcat(other.db, "2");
	ASSERT_EQ(0, run(self, "create", "a", NULL));
	EXPECT_EQ(1, run(&other, "create", "b", NULL));
	EXPECT_EQ(1, run(&other, "prune", NULL, NULL));
	EXPECT_EQ(1, ps(self, rows));
	EXPECT_EQ(1, info_of(self).allocated);
	expect_agreement(_metadata, self);
}

TEST_F_TIMEOUT(engine, many_at_once, 60)
{
	struct storm storm = storm_of(self, all_commands, false);

	do {
		rage(&storm, 3, NULL);
	} while (!storm.wrong && (!storm.done || !storm.refused));
	tell_of(_metadata, &storm);
	EXPECT_EQ(0, storm.wrong);
	EXPECT_LT(0, storm.done);
	EXPECT_LT(0, storm.refused);
	expect_agreement(_metadata, self);
}

TEST_F_TIMEOUT(engine, killed_at_random, 240)
{
	struct storm storm = storm_of(self, all_commands, true);
	int seconds = is_long() ? 60 : 15;

	for (; seconds > 0; seconds -= 20) {
		rage(&storm, seconds < 20 ? seconds : 20, NULL);
		expect_agreement(_metadata, self);
	}
	tell_of(_metadata, &storm);
	EXPECT_EQ(0, storm.wrong);
	EXPECT_LT(0, storm.done);
	EXPECT_LT(0, storm.killed);
}

/* The calls after which others find something else than before. */
static bool matters(const struct __ptrace_syscall_info *call)
{
	return call->op == PTRACE_SYSCALL_INFO_ENTRY &&
	       (call->entry.nr == SYS_ioctl || call->entry.nr == SYS_fdatasync ||
		call->entry.nr == SYS_unlink || call->entry.nr == SYS_exit_group);
}

/*
 * Kills an engine that is about to make its call number *@n, from 0 on, of those that matter;
 * false: it has ended before that, and *@n is how many it made.
 */
static bool killed_at(const SELF *self, int *n, const char *command, const char *name)
{
	struct __ptrace_syscall_info call;
	pid_t pid = spawn();
	int made = 0, status;

	if (pid == 0) {
		CHECK(!ptrace(PTRACE_TRACEME, 0, NULL, NULL));
		exec_engine(self, command, name, NULL);
	}
	waitpid(pid, &status, 0);	/* in exec */
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD);
	while (!ptrace(PTRACE_SYSCALL, pid, NULL, NULL) && waitpid(pid, &status, 0) == pid) {
		if (!WIFSTOPPED(status))
			break;
		if (WSTOPSIG(status) != (SIGTRAP | 0x80))
			continue;
		ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(call), &call);
		if (matters(&call) && made++ == *n)
			return slay(pid) == -SIGKILL;
	}
	*n = made;
	return false;
}

/*
 * A command for container a is killed at each of its steps, or at some, chosen at random, unless
 * KLOCK_LONG=1.  It can be given again then, and be undone.  @most: its exit status if there is
 * nothing left to do.
 */
static void kill_at_each_step(struct __test_metadata *_metadata, const SELF *self,
			      const char *command, int most, const char *undo)
{
	int stride = is_long() ? 1 : 2 + slowness(), n = 0, ret;
	uint32_t random = now_ns(CLOCK_REALTIME) | 1;
	struct row rows[ROWS_MAX];
	bool killed;

	do {
		killed = killed_at(self, &n, command, "a");
		expect_good_rows(_metadata, self, rows);
		ret = run(self, command, "a", NULL);
		EXPECT_TRUE(ret == 0 || ret == most) {
			TH_LOG("%s, killed at step %d: the next one is %d", command, n, ret);
		}
		EXPECT_EQ(0, run(self, undo, "a", NULL));
		n += killed ? 1 + rnd(&random) % (2 * stride - 1) : 0;
	} while (killed);
	TH_LOG("%s has %d steps", command, n);
	EXPECT_LE(5, n);
}

TEST_F_TIMEOUT(engine, killed_at_each_step, 240)
{
	kill_at_each_step(_metadata, self, "create", 1, "rm");
	expect_agreement(_metadata, self);
	ASSERT_EQ(0, run(self, "create", "a", NULL));
	kill_at_each_step(_metadata, self, "start", 0, "stop");
	ASSERT_EQ(0, run(self, "start", "a", NULL));
	kill_at_each_step(_metadata, self, "stop", 0, "start");
	ASSERT_EQ(0, run(self, "stop", "a", NULL));
	kill_at_each_step(_metadata, self, "rm", 1, "create");
	expect_agreement(_metadata, self);
}

/* What was half done when its process was killed is mended by the next one. */
TEST_F(engine, killed_half_way)
{
	pid_t pid, next;

	ASSERT_EQ(0, run(self, "create", "a", NULL));
	pid = begin(self, "start", "a", self->hook);
	EXPECT_TRUE(UNTIL(has_state(self, "a", "starting")));
	next = begin(self, "start", "a", NULL);
	EXPECT_TRUE(UNTIL(info_of(self).waiting == 1));
	EXPECT_EQ(-SIGKILL, slay(pid));
	EXPECT_EQ(0, reap(next));
	EXPECT_TRUE(has_state(self, "a", "running"));

	pid = begin(self, "stop", "a", self->hook);
	EXPECT_TRUE(UNTIL(has_state(self, "a", "stopping")));
	EXPECT_EQ(-SIGKILL, slay(pid));
	EXPECT_TRUE(has_state(self, "a", "stopping"));
	EXPECT_EQ(0, run(self, "rm", "a", NULL));
	expect_agreement(_metadata, self);
}

/*
 * One that waits for the lock of a container that is gone by then is the one who is told that
 * a process died which was at another container, the one that has the id now.
 */
TEST_F(engine, told_of_another_container)
{
	struct klock_space *space;
	struct row rows[ROWS_MAX];
	pid_t stranger, pid;
	struct klock *lock;

	ASSERT_EQ(0, run(self, "create", "a", NULL));
	space = join_space(self->space, 0);
	ASSERT_NE(NULL, space);
	lock = get_lock(space, 0);
	ASSERT_EQ(0, klock_lock(lock));
	stranger = begin(self, "stop", "a", NULL);
	EXPECT_TRUE(UNTIL(waiters_of(lock) == 1));
	kill(stranger, SIGSTOP);
	EXPECT_TRUE(UNTIL(waiters_of(lock) == 0));
	ASSERT_EQ(0, klock_unlock(lock));

	EXPECT_EQ(0, run(self, "rm", "a", NULL));
	EXPECT_EQ(0, run(self, "create", "b", NULL));
	ASSERT_EQ(1, ps(self, rows));
	EXPECT_EQ(0, rows[0].id);
	pid = begin(self, "start", "b", self->hook);
	EXPECT_TRUE(UNTIL(has_state(self, "b", "starting")));
	kill(stranger, SIGCONT);
	EXPECT_TRUE(UNTIL(waiters_of(lock) == 1));
	EXPECT_EQ(-SIGKILL, slay(pid));
	EXPECT_EQ(1, reap(stranger));
	EXPECT_TRUE(has_state(self, "b", "stopped"));
	EXPECT_EQ(0, run(self, "start", "b", NULL));
	klock_put(lock);
	klock_space_close(space);
	expect_agreement(_metadata, self);
}

static void remove_space(const SELF *self)
{
	klock_space_remove(self->space, KLOCK_FORCE);
}

TEST_F_TIMEOUT(engine, space_removed_under_them, 120)
{
	struct storm storm = storm_of(self, all_commands, false);

	rage(&storm, 5, remove_space);
	tell_of(_metadata, &storm);
	EXPECT_EQ(0, storm.wrong);
	EXPECT_LT(0, storm.done);
	expect_agreement(_metadata, self);
}

/* A process that allocates the ids again is killed at each step. */
TEST_F_TIMEOUT(engine, killed_while_ids_are_allocated_again, 120)
{
	struct row rows[ROWS_MAX];
	bool killed;
	int n;

	ASSERT_EQ(0, run(self, "create", "a", NULL));
	ASSERT_EQ(0, run(self, "create", "b", NULL));
	ASSERT_EQ(0, run(self, "create", "c", NULL));
	ASSERT_EQ(0, run(self, "rm", "a", NULL));
	for (n = 0, killed = true; killed; n++) {
		ASSERT_EQ(0, klock_space_remove(self->space, 0));
		killed = killed_at(self, &n, "prune", NULL);
		EXPECT_EQ(2, expect_good_rows(_metadata, self, rows));
		EXPECT_EQ(2, info_of(self).allocated);
	}
	TH_LOG("%d steps", n - 1);
	EXPECT_LT(10, n);
	expect_agreement(_metadata, self);
}

/* Who holds a lock of a space that was removed does not write over what others do since. */
TEST_F(engine, holder_of_a_removed_space)
{
	uint64_t before;
	pid_t pid;

	ASSERT_EQ(0, run(self, "create", "a", NULL));
	before = info_of(self).generation;
	pid = begin(self, "start", "a", self->hook);
	EXPECT_TRUE(UNTIL(has_state(self, "a", "starting")));
	ASSERT_EQ(0, klock_space_remove(self->space, KLOCK_FORCE));
	EXPECT_EQ(0, run(self, "start", "a", NULL));
	EXPECT_NE(before, info_of(self).generation);
	EXPECT_EQ(0, run(self, "stop", "a", NULL));

	/* He begins anew, in the new space. */
	finish_hook(_metadata, self);
	EXPECT_TRUE(UNTIL(info_of(self).held == 1));
	EXPECT_TRUE(UNTIL(has_state(self, "a", "starting")));
	finish_hook(_metadata, self);
	EXPECT_EQ(0, reap(pid));
	EXPECT_TRUE(has_state(self, "a", "running"));
	expect_agreement(_metadata, self);
}

/* All that a logout takes away is gone, the locks are not. */
TEST_F(engine, logout)
{
	struct klock_space_info before, after;
	char command[128];
	pid_t pid, next;

	ASSERT_EQ(0, run(self, "create", "a", NULL));
	ASSERT_EQ(0, run(self, "create", "b", NULL));
	ASSERT_EQ(0, run(self, "rm", "a", NULL));
	before = info_of(self);
	pid = begin(self, "start", "b", self->hook);
	EXPECT_TRUE(UNTIL(has_state(self, "b", "starting")));
	snprintf(command, sizeof(command), "find %s -type f ! -name 'db*' -exec rm {} \\;",
		 self->dir);
	ASSERT_EQ(0, system(command));
	next = begin(self, "stop", "b", NULL);
	EXPECT_TRUE(UNTIL(info_of(self).waiting == 1));
	EXPECT_TRUE(has_state(self, "b", "starting"));
	finish_hook(_metadata, self);
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, reap(next));
	EXPECT_TRUE(has_state(self, "b", "stopped"));
	after = info_of(self);
	EXPECT_EQ(before.generation, after.generation);
	EXPECT_EQ(before.allocated, after.allocated);
	expect_agreement(_metadata, self);
}

TEST_F_TIMEOUT(engine, full_table_grows, 60)
{
	struct klock_space *space = make_space(self->space, 2, 0);
	pid_t pid[10];
	char name[8];
	int i;

	ASSERT_NE(NULL, space);
	klock_space_close(space);
	for (i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		pid[i] = begin(self, "create", name, NULL);
	}
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	EXPECT_EQ(10, info_of(self).allocated);
	EXPECT_EQ(16, info_of(self).capacity);
	expect_agreement(_metadata, self);
}

/* An id that is allocated and never comes to a row, as of one that was killed between. */
static bool leak(const SELF *self)
{
	struct klock_space *space = join_space(self->space, 0);
	struct klock *lock;
	int ret = space ? klock_allocate(space, &lock) : -ENOENT;

	if (ret == 0)
		klock_put(lock);
	klock_space_close(space);
	return ret == 0;
}

static void leak_one(const SELF *self)
{
	leak(self);
}

TEST_F_TIMEOUT(engine, prune_frees_what_leaked, 60)
{
	static const char * const commands[] = { "create", "create", "rm", "prune", "prune", NULL };
	struct storm storm = storm_of(self, commands, false);
	struct row rows[ROWS_MAX];
	int i;

	ASSERT_EQ(0, run(self, "create", "a", NULL));
	for (i = 0; i < 100; i++) {
		ASSERT_TRUE(leak(self));
	}
	ASSERT_EQ(0, run(self, "create", "b", NULL));
	EXPECT_EQ(102, info_of(self).allocated);
	EXPECT_EQ(0, run(self, "prune", NULL, NULL));
	EXPECT_EQ(2, info_of(self).allocated);
	ASSERT_EQ(2, ps(self, rows));
	EXPECT_EQ(101, rows[1].id);

	rage(&storm, 3, leak_one);
	tell_of(_metadata, &storm);
	EXPECT_EQ(0, storm.wrong);
	EXPECT_LT(0, storm.done);
	expect_agreement(_metadata, self);
}

/* How many containers a reboot finds */
#define LEFT	8

/* c4 to c11: they have other ids than the lowest, which are those to come. */
static void create_some(struct __test_metadata *_metadata, const SELF *self)
{
	char name[8];
	int i;

	for (i = 0; i < LEFT + 4; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		ASSERT_EQ(0, run(self, "create", name, NULL));
	}
	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		ASSERT_EQ(0, run(self, "rm", name, NULL));
	}
}

TEST_F_TIMEOUT(engine, reboot, 120)
{
	struct row rows[ROWS_MAX];
	pid_t pid[LEFT];
	char name[8];
	int i;

	if (!getenv("KLOCK_KO") || geteuid())
		SKIP(return, "not root, or KLOCK_KO is not set");
	create_some(_metadata, self);
	EXPECT_EQ(0, run(self, "start", "c5", NULL));
	pid[0] = begin(self, "start", "c6", self->hook);
	EXPECT_TRUE(UNTIL(has_state(self, "c6", "starting")));
	EXPECT_EQ(-SIGKILL, slay(pid[0]));

	ASSERT_TRUE(UNTIL(unload() == 0));
	EXPECT_EQ(2, run(self, "create", "c12", NULL));
	ASSERT_EQ(0, load(""));
	/* All at once: one allocates, the others wait for it. */
	for (i = 0; i < LEFT; i++) {
		snprintf(name, sizeof(name), "c%d", 4 + i);
		pid[i] = begin(self, "start", name, NULL);
	}
	for (i = 0; i < LEFT; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	ASSERT_EQ(LEFT, ps(self, rows));
	for (i = 0; i < LEFT; i++) {
		EXPECT_STREQ("running", rows[i].state);
	}
	EXPECT_EQ(LEFT, info_of(self).allocated);
	expect_agreement(_metadata, self);
}

TEST_HARNESS_MAIN
