// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The main job of klock in a few lines that are checked as they are printed:
 * a process that is killed while it holds a lock, and what others see of it.
 *
 * A line appears when what it says has been tried.  If it did not happen, FAILED
 * is the next line and the last one, and the exit status is 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <klock.h>

#define SPACE		"demo"
#define COLUMN		16		/* where what somebody does begins */
#define PATIENCE_MS	60000		/* for what should happen at once */

/* A process of the play: what it reports comes out of @report. */
struct actor {
	pid_t pid;
	int report;
};

static const char *result(long r, char *text, size_t size)
{
	const char *name = r < 0 ? strerrorname_np(-r) : NULL;

	if (name)
		snprintf(text, size, "-%s", name);
	else
		snprintf(text, size, "%ld", r);
	return text;
}

static void failed(const char *want, const char *got)
{
	printf("FAILED: expected %s, got %s\n", want, got);
	exit(1);
}

/* Prints a line of the play, then ends it if @got is not @want. */
static void check(const char *letter, pid_t pid, long got, long want, const char *what)
{
	char w[32], g[32];

	printf("%*s%s\n", COLUMN - printf("%s (pid %d)", letter, pid), "", what);
	if (got != want)
		failed(result(want, w, sizeof(w)), result(got, g, sizeof(g)));
}

static struct actor start(void (*play)(int report))
{
	struct actor actor;
	int ends[2];

	if (pipe(ends))
		check("C", getpid(), -errno, 0, "makes a pipe");
	fflush(stdout);
	actor.pid = fork();
	if (actor.pid < 0)
		check("C", getpid(), -errno, 0, "starts a process");
	if (!actor.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		play(ends[1]);
		_exit(0);
	}
	close(ends[1]);
	actor.report = ends[0];
	return actor;
}

/* Reports a result; an actor plays no further than its first error. */
static void tell(int report, int r)
{
	if (write(report, &r, sizeof(r)) != sizeof(r) || r < 0)
		_exit(1);
}

/* What the actor reports next; an actor that is gone or stuck is an error, too. */
static int hear(const struct actor *actor)
{
	struct pollfd pfd = { .fd = actor->report, .events = POLLIN };
	int r;

	if (poll(&pfd, 1, PATIENCE_MS) != 1)
		return -ETIMEDOUT;
	return read(actor->report, &r, sizeof(r)) == sizeof(r) ? r : -EPIPE;
}

static struct klock_space *enter(int report)
{
	struct klock_space *space = NULL;
	int r = klock_space_open(SPACE, 0, NULL, &space);

	if (r)
		tell(report, r);
	return space;
}

static struct klock *allocate(int report)
{
	struct klock *lock = NULL;
	int r = klock_allocate(enter(report), &lock);

	tell(report, r ? r : (int)klock_id(lock));
	return lock;
}

static void play_a(int report)
{
	struct klock *lock = allocate(report);

	tell(report, klock_lock(lock));
	pause();
}

static void play_b(int report)
{
	struct klock *lock = NULL;

	tell(report, klock_retrieve(enter(report), 0, KLOCK_MUST_EXIST, &lock));
	tell(report, klock_lock(lock));
	tell(report, klock_unlock(lock));
}

static void play_d(int report)
{
	struct klock *lock = allocate(report);

	tell(report, klock_trylock(lock));
}

/* Waits until somebody waits for @lock; returns how many do. */
static int wait_for_waiter(struct klock *lock)
{
	const struct timespec tick = { .tv_nsec = 1000000 };
	struct klock_status status;
	int tries, r;

	for (tries = 0; tries < PATIENCE_MS; tries++) {
		r = klock_status(lock, &status);
		if (r || status.waiters)
			return r ? r : (int)status.waiters;
		nanosleep(&tick, NULL);
	}
	return -ETIMEDOUT;
}

/* The listing is compared as the text that a person reads. */
static void show_listing(struct klock_space *space, struct klock *lock, pid_t a, pid_t b)
{
	struct klock_status status[2] = { 0 };
	struct klock_waiter waiter[2] = { 0 };
	char want[128], got[128];
	int locks, waiters;

	locks = klock_list(space, 0, status, 2);
	waiters = klock_waiters(lock, waiter, 2);
	snprintf(want, sizeof(want), "1 lock: lock 0 held by pid %d; 1 waiter: pid %d", a, b);
	snprintf(got, sizeof(got), "%d lock: lock %u held by pid %u; %d waiter: pid %u",
		 locks, status[0].id, status[0].pid, waiters, waiter[0].pid);
	printf("%-*s%s\n", COLUMN, "klock_list", got);
	if (strcmp(want, got))
		failed(want, got);
}

/* Kills and reaps an actor; the signal that ended it. */
static int kill_actor(const struct actor *actor)
{
	int status;

	kill(actor->pid, SIGKILL);
	if (waitpid(actor->pid, &status, 0) != actor->pid)
		return -errno;
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* How many locks could be allocated; the error that ended it goes to @error. */
static int fill(struct klock_space *space, int *error)
{
	struct klock *lock;
	int n;

	for (n = 0; !(*error = klock_allocate(space, &lock)); n++)
		klock_put(lock);
	return n;
}

int main(void)
{
	pid_t c = getpid();
	struct klock_space *space;
	struct klock *lock;
	struct actor a, b, d;
	int n, error;

	klock_space_remove(SPACE, KLOCK_FORCE);		/* of a demo that failed */
	check("C", c, klock_space_open(SPACE, KLOCK_CREATE | KLOCK_EXCL, NULL, &space), 0,
	      "makes the lockspace \"" SPACE "\"");

	a = start(play_a);
	check("A", a.pid, hear(&a), 0, "allocates lock 0");
	check("A", a.pid, hear(&a), 0, "takes it");

	b = start(play_b);
	check("B", b.pid, hear(&b), 0, "retrieves lock 0 by its number");
	check("C", c, klock_retrieve(space, 0, KLOCK_MUST_EXIST, &lock), 0, "does so, too");
	check("B", b.pid, wait_for_waiter(lock), 1, "asks for the lock and blocks");
	show_listing(space, lock, a.pid, b.pid);

	check("A", a.pid, kill_actor(&a), SIGKILL, "is SIGKILLed");
	check("B", b.pid, hear(&b), KLOCK_OWNER_DIED, "has the lock, and is told: the owner died");
	check("B", b.pid, hear(&b), 0, "unlocks it");

	n = fill(space, &error);
	check("C", c, n, 2047, "allocates the other 2047 of 2048 locks");
	check("C", c, error, -ENOSPC, "allocates one more: ENOSPC");

	check("C", c, klock_free(lock), 0, "frees lock 0, and keeps its handle, now stale");
	check("C", c, klock_lock(lock), 0, "locks by the stale handle");
	d = start(play_d);
	check("D", d.pid, hear(&d), 0, "allocates, and gets lock 0 anew");
	check("D", d.pid, hear(&d), -EBUSY, "tries to lock it: EBUSY, it is the same lock");
	check("C", c, klock_unlock(lock), 0, "unlocks by the stale handle");

	waitpid(b.pid, NULL, 0);
	waitpid(d.pid, NULL, 0);
	klock_put(lock);
	klock_space_close(space);
	check("C", c, klock_space_remove(SPACE, 0), 0, "removes the lockspace");
	puts("\nAll of it happened.  Next: make check");
	return 0;
}
