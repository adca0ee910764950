// SPDX-License-Identifier: GPL-2.0-or-later
/* What a process pays that meets nobody: lock and unlock; open, lock, unlock, close. */
#define _GNU_SOURCE
#include "bench.h"

static void run_pairs(const void *kind, int n)
{
	((const struct kind *)kind)->pairs(n);
}

void bench_pair(void)
{
	for_each_kind(kind) {
		if (!begin(kind, 1))
			continue;
		kind->pairs(1);
		sample("uncontended", "lock and unlock", kind->name, "ns",
		       least_time(run_pairs, kind));
		if (kind->is & IS_KLOCK)
			sample("uncontended", "lock and unlock", kind->name, "mapped",
			       klock_is_mapped());
		end(kind);
	}
}

static void run_lives(const void *arg, int n)
{
	const struct kind *kind = arg;

	while (n--) {
		kind->enter();
		kind->lock(0);
		kind->unlock(0);
		kind->leave();
	}
}

/* The same as a process of its own. */
static void run_processes(const void *arg, int n)
{
	const struct kind *kind = arg;
	pid_t pid;

	while (n--) {
		pid = spawn();
		if (!pid) {
			kind->enter();
			kind->lock(0);
			kind->unlock(0);
			_exit(0);
		}
		reap(pid);
	}
}

static void measure_life(const struct kind *kind, const char *process, const char *alone)
{
	run_lives(kind, 1);
	sample("short life", alone, kind->name, "ns", least_time(run_lives, kind));
	sample("short life", process, kind->name, "ns", least_time(run_processes, kind));
}

/* A space of the largest size; that of the kinds has 2,048 locks. */
static void large_space(const struct kind *kind)
{
	struct klock_space *space;

	kind->create(1);
	space = open_space(SPACE, 0, KLOCK_CAPACITY_MAX);
	measure_life(kind, "fork to exit, 1,048,576 locks", "open to close, 1,048,576 locks");
	klock_space_close(space);
	kind->destroy();
}

void bench_life(void)
{
	for_each_kind(kind) {
		if (!(kind->is & HAS_NAME) || !kind->create(1))
			continue;
		measure_life(kind, "fork to exit", "open to close");
		kind->destroy();
		if (kind->is & IS_KLOCK)
			large_space(kind);
	}
}
