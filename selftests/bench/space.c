// SPDX-License-Identifier: GPL-2.0-or-later
/* What only klock has: allocated ids, and a close that releases what is held. */
#define _GNU_SOURCE
#include "bench.h"

/* ---- ids ---- */

void fill(struct klock_space *space, uint32_t taken)
{
	struct klock *lock;
	uint32_t i;

	for (i = 0; i < taken; i++) {
		check(klock_allocate(space, &lock), "klock_allocate");
		klock_put(lock);
	}
}

void allocate_and_free(const void *space, int n)
{
	struct klock *lock;

	while (n--) {
		check(klock_allocate((struct klock_space *)space, &lock), "klock_allocate");
		check(klock_free(lock), "klock_free");
		klock_put(lock);
	}
}

void bench_ids(void)
{
	static const struct {
		const char *name, *space;
		uint32_t capacity, taken;
	} cases[] = {
		{ "1,000 taken", "few", KLOCK_CAPACITY_DEFAULT, 1000 },
		{ "1,000,000 taken", "many", KLOCK_CAPACITY_MAX, 1000000 },
	};
	struct klock_space *space[ARRAY_SIZE(cases)];
	size_t c;
	int turn;

	for (c = 0; c < ARRAY_SIZE(cases); c++) {
		space[c] = open_space(cases[c].space, 0, cases[c].capacity);
		fill(space[c], cases[c].taken);
	}
	for (turn = 0; turn < 9; turn++) {
		for (c = 0; c < ARRAY_SIZE(cases); c++)
			sample("ids", cases[c].name, "klock", "ns",
			       least_time(allocate_and_free, space[c]));
	}
	for (c = 0; c < ARRAY_SIZE(cases); c++) {
		klock_space_close(space[c]);
		remove_space(cases[c].space);
	}
}

/* ---- the last close ---- */

/* Takes or releases the first @n locks, which have no other user. */
static void each(struct klock_space *space, uint32_t n, int (*call)(struct klock *lock), int want)
{
	struct klock *lock;
	uint32_t i;

	for (i = 0; i < n; i++) {
		check(klock_retrieve(space, i, 0, &lock), "klock_retrieve");
		if (call(lock) != want)
			errx(2, "lock %u is not as it was left", i);
		klock_put(lock);
	}
}

/* The ns of a close with so many locks held; each must have been released by it. */
static double close_holding(const struct kind *kind, uint32_t held)
{
	struct klock_space *space;
	uint64_t start;

	kind->create(0);
	space = open_space(SPACE, klock_kind_flags(), KLOCK_CAPACITY_MAX);
	each(space, held, klock_lock, 0);
	start = now();
	klock_space_close(space);
	start = now() - start;

	space = open_space(SPACE, klock_kind_flags(), KLOCK_CAPACITY_MAX);
	each(space, held, klock_lock, KLOCK_OWNER_DIED);
	each(space, held, klock_unlock, 0);
	klock_space_close(space);
	kind->destroy();
	return start;
}

void bench_close(void)
{
	static const struct {
		const char *name;
		uint32_t held;
	} cases[] = {
		{ "1 held", 1 },
		{ "1,000 held", 1000 },
		{ "100,000 held", 100000 },
	};
	size_t c;

	for (c = 0; c < ARRAY_SIZE(cases); c++)
		for_each_kind(kind)
			if (kind->is & IS_KLOCK)
				sample("close", cases[c].name, kind->name, "ns",
				       close_holding(kind, cases[c].held));
}
