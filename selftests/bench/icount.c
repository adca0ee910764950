// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Instructions of a call, user's and kernel's.  Where QEMU counts them (`ICOUNT=1`
 * of vm/run), the time stamp counter is the number of all that were executed.  Those
 * of the user are counted by steps: a child is traced, one instruction at a time.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <x86intrin.h>

#include "bench.h"

#define BATCHES	100

/* Something to be counted: @run does it @n times. */
struct subject {
	const char *what, *kind;
	void (*run)(const struct subject *subject, int n);
	const void *arg;
	int batch;		/* few enough that most batches meet no timer interrupt */
};

/* All instructions of a batch of @n: of the least, for interrupts do not count. */
static uint64_t executed(const struct subject *subject, int n)
{
	uint64_t least = UINT64_MAX, start, count;
	int i;

	for (i = 0; i < BATCHES; i++) {
		start = __rdtsc();
		subject->run(subject, n);
		count = __rdtsc() - start;
		least = count < least ? count : least;
	}
	return least;
}

/* Instructions of the user in a batch of @n, and in what is around it. */
static uint64_t stepped(const struct subject *subject, int n)
{
	uint64_t steps = 0;
	pid_t pid = spawn();
	int status;

	if (!pid) {
		subject->run(subject, n);	/* in a child, a first call does more */
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			err(2, "ptrace");
		raise(SIGSTOP);
		subject->run(subject, n);
		raise(SIGSTOP);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		errx(2, "a child failed, status %#x", status);
	do {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL))
			err(2, "ptrace");
		if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
			errx(2, "a child failed, status %#x", status);
		steps++;
	} while (WSTOPSIG(status) != SIGSTOP);
	if (ptrace(PTRACE_CONT, pid, NULL, NULL))
		err(2, "ptrace");
	reap(pid);
	return steps;
}

static void count(const struct subject *subject)
{
	double all, user;

	subject->run(subject, 2 * subject->batch);
	all = executed(subject, 2 * subject->batch) - executed(subject, subject->batch);
	all /= subject->batch;
	user = stepped(subject, 2) - stepped(subject, 1);
	sample("instructions", subject->what, subject->kind, "user", user);
	sample("instructions", subject->what, subject->kind, "kernel", all - user);
}

static void run_pairs(const struct subject *subject, int n)
{
	((const struct kind *)subject->arg)->pairs(n);
}

static void run_lives(const struct subject *subject, int n)
{
	const struct kind *kind = subject->arg;

	while (n--) {
		kind->enter();
		kind->lock(0);
		kind->unlock(0);
		kind->leave();
	}
}

static void run_ids(const struct subject *subject, int n)
{
	allocate_and_free(subject->arg, n);
}

static void count_ids(const char *what, uint32_t capacity, uint32_t taken)
{
	struct klock_space *space = open_space(SPACE, 0, capacity);
	struct subject ids = { what, "klock", run_ids, space, 20 };

	fill(space, taken);
	count(&ids);
	klock_space_close(space);
	remove_space(SPACE);
}

void bench_instructions(void)
{
	struct subject pairs = { "lock and unlock", NULL, run_pairs, NULL, 50 };
	struct subject lives = { "open to close", NULL, run_lives, NULL, 5 };

	for_each_kind(kind) {
		pairs.kind = kind->name;
		pairs.arg = kind;
		if (!begin(kind, 1))
			continue;
		count(&pairs);
		if (kind->is & IS_KLOCK)
			sample("instructions", pairs.what, kind->name, "mapped",
			       klock_is_mapped());
		end(kind);
	}
	for_each_kind(kind) {
		lives.kind = kind->name;
		lives.arg = kind;
		if (!(kind->is & HAS_NAME) || !kind->create(1))
			continue;
		count(&lives);
		kind->destroy();
	}
	count_ids("allocate and free, 1,000 taken", KLOCK_CAPACITY_DEFAULT, 1000);
	if (!quick)
		count_ids("allocate and free, 1,000,000 taken", KLOCK_CAPACITY_MAX, 1000000);
}
