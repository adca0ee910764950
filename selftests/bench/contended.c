// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Processes that all want one lock, or one of 64 at random: how often they get it,
 * whether each does, and how long they wait.
 *
 * In the lock each counts, and works for a short or a long time; outside for a
 * random time of the same mean.  What was counted is held against how often the
 * lock was taken, so a lock that does not exclude is not measured but found out.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "bench.h"

#define LOCKS		64
#define PROCESSES	16

/*
 * Waits are counted in classes: each power of two is cut in SPLIT, so the bounds
 * are 3 % apart.
 */
#define SPLIT_BITS	5
#define SPLIT		(1 << SPLIT_BITS)
#define CLASSES		(48 * SPLIT)

struct worker {
	uint64_t served, longest;
	uint32_t waits[CLASSES];
} __attribute__((aligned(4096)));

static struct {
	atomic_bool stop;
	struct {
		uint64_t value;
	} __attribute__((aligned(64))) counter[LOCKS];
	struct worker worker[PROCESSES];
} *all;

static const struct section {
	const char *name;
	unsigned int ns;
	unsigned int every;		/* one wait of so many is timed: that costs, too */
} sections[] = {
	{ "short", 200, 8 },
	{ "long", 10000, 1 },
};

/* ---- work ---- */

static double turns_per_ns;

static void work(unsigned int turns)
{
	while (turns--)
		__asm__ __volatile__("");
}

static void calibrate(void)
{
	unsigned int turns = 20000000;
	uint64_t start;

	work(turns);
	start = now();
	work(turns);
	turns_per_ns = (double)turns / (now() - start);
}

static uint32_t random_next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* ---- waits ---- */

static unsigned int class_of(uint64_t ns)
{
	unsigned int shift;

	if (ns < SPLIT)
		return ns;
	shift = 63 - SPLIT_BITS - __builtin_clzll(ns);
	return (shift << SPLIT_BITS) + (ns >> shift);
}

/* The middle of a class. */
static double class_ns(unsigned int class)
{
	unsigned int shift = class >> SPLIT_BITS;

	if (shift == 0)
		return class;
	shift--;
	return ((uint64_t)(SPLIT + class % SPLIT) << shift) + (1ULL << shift) / 2.0;
}

static void note(struct worker *worker, uint64_t ns)
{
	unsigned int class = class_of(ns);

	worker->waits[class < CLASSES ? class : CLASSES - 1]++;
	if (ns > worker->longest)
		worker->longest = ns;
}

/* The wait that @part of all waits do not exceed. */
static double quantile(const uint64_t *waits, uint64_t total, double part)
{
	uint64_t seen = 0;
	unsigned int class;

	for (class = 0; class < CLASSES - 1; class++) {
		seen += waits[class];
		if (seen >= total * part)
			break;
	}
	return class_ns(class);
}

/* ---- one run ---- */

static void compete(const struct kind *kind, struct worker *worker, int locks,
		    const struct section *section)
{
	unsigned int inside = section->ns * turns_per_ns;
	uint32_t state = getpid() * 2654435761U | 1;
	uint64_t start = 0;
	bool timed;
	int i;

	while (!atomic_load_explicit(&all->stop, memory_order_relaxed)) {
		i = random_next(&state) % locks;
		timed = worker->served % section->every == 0;
		if (timed)
			start = now();
		kind->lock(i);
		if (timed)
			note(worker, now() - start);
		all->counter[i].value++;
		work(inside);
		kind->unlock(i);
		worker->served++;
		work(random_next(&state) % (2 * inside + 1));
	}
}

/* Ready to compete: all go when the parent has closed its end of @go. */
static void wait_to_go(const int ready[2], const int go[2])
{
	char c = 0;

	close(go[1]);
	if (write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) != 0)
		err(2, "pipe");
}

/*
 * With one lock, so long that who is served least does not depend on whose time
 * slice the end cut: a process waits for tens of ms while others run.
 */
static struct timespec window(int locks)
{
	if (quick)
		return (struct timespec){ .tv_nsec = 40000000 };
	if (locks == 1)
		return (struct timespec){ .tv_sec = 1, .tv_nsec = 500000000 };
	return (struct timespec){ .tv_nsec = 300000000 };
}

/* Returns for how long they ran, in ns. */
static uint64_t run_workers(const struct kind *kind, int processes, int locks,
			    const struct section *section)
{
	struct timespec time = window(locks);
	int ready[2], go[2], i;
	pid_t pid[PROCESSES];
	uint64_t start;
	char c;

	if (pipe2(ready, O_CLOEXEC) || pipe2(go, O_CLOEXEC))
		err(2, "pipe");
	for (i = 0; i < processes; i++) {
		pid[i] = spawn();
		if (pid[i])
			continue;
		kind->enter();
		kind->lock(i % locks);		/* what happens once, now */
		kind->unlock(i % locks);
		wait_to_go(ready, go);
		compete(kind, &all->worker[i], locks, section);
		_exit(0);
	}
	close(ready[1]);
	close(go[0]);
	for (i = 0; i < processes; i++)
		if (read(ready[0], &c, 1) != 1)
			errx(2, "a child failed");
	close(ready[0]);
	start = now();
	close(go[1]);
	nanosleep(&time, NULL);
	atomic_store(&all->stop, true);
	start = now() - start;
	for (i = 0; i < processes; i++)
		reap(pid[i]);
	return start;
}

static void evaluate(const struct kind *kind, const char *what, int processes, double seconds)
{
	static uint64_t waits[CLASSES];
	uint64_t served = 0, counted = 0, timed = 0, least = UINT64_MAX, most = 0, longest = 0;
	int i, class;

	memset(waits, 0, sizeof(waits));
	for (i = 0; i < LOCKS; i++)
		counted += all->counter[i].value;
	for (i = 0; i < processes; i++) {
		struct worker *worker = &all->worker[i];

		served += worker->served;
		least = worker->served < least ? worker->served : least;
		most = worker->served > most ? worker->served : most;
		longest = worker->longest > longest ? worker->longest : longest;
		for (class = 0; class < CLASSES; class++) {
			waits[class] += worker->waits[class];
			timed += worker->waits[class];
		}
	}
	if (counted != served)
		errx(2, "%s does not exclude: %ju of %ju", kind->name, counted, served);
	sample("contended", what, kind->name, "locks/s", served / seconds);
	sample("contended", what, kind->name, "fairness", (double)least / most);
	sample("contended", what, kind->name, "p50 ns", quantile(waits, timed, 0.5));
	sample("contended", what, kind->name, "p99 ns", quantile(waits, timed, 0.99));
	sample("contended", what, kind->name, "p99.9 ns", quantile(waits, timed, 0.999));
	sample("contended", what, kind->name, "max ns", longest);
}

static void measure(const struct kind *kind, int processes, int locks,
		    const struct section *section)
{
	char what[80];
	uint64_t ns;

	if (!kind->create(locks))
		return;
	all = shared(sizeof(*all));
	ns = run_workers(kind, processes, locks, section);
	snprintf(what, sizeof(what), "%d processes, %d %s, %s section", processes, locks,
		 locks == 1 ? "lock" : "locks", section->name);
	evaluate(kind, what, processes, ns / 1e9);
	munmap(all, sizeof(*all));
	kind->destroy();
}

void bench_contended(void)
{
	int processes, locks;
	size_t s;

	calibrate();
	for (processes = 2; processes <= PROCESSES; processes *= quick ? 4 : 2)
		for (locks = 1; locks <= LOCKS; locks *= LOCKS)
			for (s = 0; s < ARRAY_SIZE(sections); s++)
				for_each_kind(kind)
					if (!(kind->is & A_FLOOR))
						measure(kind, processes, locks, &sections[s]);
}
