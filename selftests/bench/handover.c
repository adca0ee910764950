// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long a lock takes from one process to another that sleeps: from before the
 * unlock, or before the SIGKILL of the holder, until the other has it.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "bench.h"

#define RING		3
#define MAX_TURNS	200

/* Where it happens; a VM has at least two processors here. */
static const struct place {
	const char *name;
	int cpu[2];
} places[] = {
	{ "two processors", { 0, 1 } },
	{ "one processor", { 0, 0 } },
};

static struct {
	_Atomic uint64_t released;
	_Atomic pid_t pid[2];
	atomic_int ready;
	uint64_t took[2][MAX_TURNS];
} *both;

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double median(uint64_t *value, int n)
{
	qsort(value, n, sizeof(*value), by_value);
	return value[n / 2];
}

static void release(const struct kind *kind, int i)
{
	atomic_store(&both->released, now());
	kind->unlock(i);
}

/*
 * Two processes on a ring of three locks: who runs has two of them, the one that
 * the other wants and the one after that; it releases the first and wants the
 * other's.  So who releases sleeps next, and nobody releases until the other sleeps.
 */
static void walk(const struct kind *kind, int me, int turns)
{
	pid_t other;
	int at = me, turn;

	kind->enter();
	kind->lock(at);
	atomic_store(&both->pid[me], getpid());
	while (!(other = atomic_load(&both->pid[!me])))
		sched_yield();
	kind->lock((at + 1) % RING);
	for (turn = 0; turn < turns; turn++) {
		until_asleep(other, other);
		release(kind, at);
		kind->lock((at + 2) % RING);
		both->took[me][turn] = now() - atomic_load(&both->released);
		at = (at + 1) % RING;
	}
	if (me == 1)
		until_asleep(other, other);
	release(kind, at);
	kind->unlock((at + 1) % RING);
	_exit(0);
}

static void handover(const struct kind *kind, const struct place *place, int turns)
{
	pid_t pid[2];
	int me;

	if (!kind->create(RING))
		return;
	both = shared(sizeof(*both));
	for (me = 0; me < 2; me++) {
		pid[me] = spawn();
		if (!pid[me]) {
			pin(place->cpu[me]);
			walk(kind, me, turns);
		}
	}
	for (me = 0; me < 2; me++)
		reap(pid[me]);
	sample("handover", place->name, kind->name, "ns", median(both->took[0], turns));
	munmap(both, sizeof(*both));
	kind->destroy();
}

void bench_handover(void)
{
	size_t p;

	for (p = 0; p < ARRAY_SIZE(places); p++)
		for_each_kind(kind)
			if (!(kind->is & A_FLOOR))
				handover(kind, &places[p], quick ? 30 : MAX_TURNS);
}

static pid_t start_holder(const struct kind *kind)
{
	pid_t pid = spawn();

	if (!pid) {
		kind->enter();
		kind->lock(0);
		atomic_store(&both->ready, 1);
		for (;;)
			pause();
	}
	while (atomic_load(&both->ready) != 1)
		sched_yield();
	return pid;
}

static pid_t start_heir(const struct kind *kind, int turn)
{
	pid_t pid = spawn();

	if (!pid) {
		kind->enter();
		atomic_store(&both->ready, 2);
		kind->lock(0);
		both->took[0][turn] = now() - atomic_load(&both->released);
		kind->unlock(0);
		_exit(0);
	}
	while (atomic_load(&both->ready) != 2)
		sched_yield();
	until_asleep(pid, pid);
	return pid;
}

static void death(const struct kind *kind, int turns)
{
	pid_t holder, heir;
	int turn, status;

	if (!kind->create(1))
		return;
	both = shared(sizeof(*both));
	for (turn = 0; turn < turns; turn++) {
		holder = start_holder(kind);
		heir = start_heir(kind, turn);
		atomic_store(&both->released, now());
		kill(holder, SIGKILL);
		waitpid(holder, &status, 0);
		reap(heir);
	}
	sample("death", "SIGKILL to next holder", kind->name, "ns", median(both->took[0], turns));
	munmap(both, sizeof(*both));
	kind->destroy();
}

void bench_death(void)
{
	for_each_kind(kind)
		if (kind->is & ROBUST)
			death(kind, quick ? 5 : 20);
}
