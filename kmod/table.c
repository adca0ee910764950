// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of a space: the pages with the words, and which ids are allocated.
 *
 * Everything here that changes something is under space->mutex.  Words are
 * changed without it at any time (lock.c); bits in page->allocated and the
 * capacity are read without it.
 *
 * The lowest free id is found by two short searches, whatever the capacity: the
 * first page that is not full (at most 32 longs), then the first free id of it
 * (at most 8 longs with pages of 4 KiB).
 */
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "klock.h"

/* Nobody has seen pages from @first on, or nobody is left. */
static void klock_pages_free(struct klock_space *space, u32 first, u32 end)
{
	while (end-- > first) {
		klock_queues_free(klock_page_nr(space, end));
		free_page((unsigned long)klock_page_nr(space, end)->words);
		if (!end || is_power_of_2(end)) {	/* the first of its level */
			kvfree(space->level[fls(end)]);
			space->level[fls(end)] = NULL;
		}
		cond_resched();
	}
}

static int klock_page_alloc(struct klock_space *space, u32 nr)
{
	bool first = !nr || is_power_of_2(nr);
	unsigned int level = fls(nr);
	atomic64_t *words;
	u32 i;

	if (first) {
		space->level[level] = kvcalloc(level ? BIT(level - 1) : 1,
					       sizeof(struct klock_page), KLOCK_GFP);
		if (!space->level[level])
			return -ENOMEM;
	}
	words = (atomic64_t *)__get_free_page(KLOCK_GFP);
	if (!words) {
		if (first) {
			kvfree(space->level[level]);
			space->level[level] = NULL;
		}
		return -ENOMEM;
	}
	for (i = 0; i < KLOCK_WORDS_PER_PAGE; i++)
		atomic64_set(&words[i], KLOCK_WORD_NONE);
	klock_page_nr(space, nr)->words = words;
	return 0;
}

/* The caller has @space for itself, or holds its mutex. */
int klock_table_grow(struct klock_space *space, u32 capacity)
{
	u32 pages = DIV_ROUND_UP(capacity, KLOCK_WORDS_PER_PAGE);
	u32 nr, id;

	for (nr = space->nr_pages; nr < pages; nr++) {
		/* Who is being killed is not told. */
		if (fatal_signal_pending(current) || klock_page_alloc(space, nr)) {
			klock_pages_free(space, space->nr_pages, nr);
			return -ENOMEM;
		}
		cond_resched();
	}
	/* Who sees the number sees the pages: klock_map_fault(). */
	smp_store_release(&space->nr_pages, nr);

	id = space->capacity;
	/*
	 * Who sees the capacity sees the pages: klock_capacity().  It comes before
	 * the words: one that is mapped may be taken as soon as it is 0, and must
	 * be a lock to everybody then.  Who meets "no such lock" waits for us.
	 */
	smp_store_release(&space->capacity, capacity);
	for (; id < capacity; id++) {
		atomic64_set(klock_word(space, id), 0);
		if (id % KLOCK_WORDS_PER_PAGE == 0)
			cond_resched();
	}
	return 0;
}

static bool klock_allocated_above(struct klock_space *space, u32 capacity)
{
	u32 first = capacity % KLOCK_WORDS_PER_PAGE;
	u32 nr;

	for (nr = capacity / KLOCK_WORDS_PER_PAGE; nr < space->nr_pages; nr++) {
		if (find_next_bit(klock_page_nr(space, nr)->allocated, KLOCK_WORDS_PER_PAGE,
				  first) < KLOCK_WORDS_PER_PAGE)
			return true;
		first = 0;
	}
	return false;
}

/*
 * Swaps "no such lock" into the words from @capacity on, and looks for waiters
 * only then.  Whoever meets such a word meanwhile waits for the mutex, which we
 * hold, and looks again, so that it never answers for a shrinking that fails.
 * A waiter queues first and reads the word then, so that one of us sees the
 * other: it is found here, or finds "no such lock".  A pending owner-died is
 * kept in the word until the shrinking succeeds.
 */
int klock_table_shrink(struct klock_space *space, u32 capacity)
{
	u32 end = space->capacity;
	u32 id, token;

	lockdep_assert_held(&space->mutex);
	if (klock_allocated_above(space, capacity))
		return -EBUSY;

	for (id = capacity; id < end; id++) {
		token = klock_token(atomic64_read(klock_word(space, id)));
		if (token && token != KLOCK_WORD_NONE && !klock_alive(space, token))
			klock_release(space, id, token, KLOCK_END_DEATH, NULL);
		if (!klock_bury(klock_word(space, id)))
			break;
		cond_resched();		/* so much may a scribbler make of each */
	}
	smp_mb();	/* between the words and the queues: see above */
	if (id == end && !klock_waited_above(space, capacity)) {
		WRITE_ONCE(space->capacity, capacity);
		return 0;
	}
	while (id-- > capacity) {
		klock_unbury(klock_word(space, id));
		cond_resched();
	}
	return -EBUSY;
}

/* The space was just marked as removed. */
void klock_table_close(struct klock_space *space)
{
	u32 id;

	lockdep_assert_held(&space->mutex);
	smp_mb();	/* mark, then visit; others swap a word, then look for the mark */
	for (id = 0; id < space->capacity; id++) {
		klock_close_word(space, id);
		cond_resched();		/* as above */
	}
}

void klock_table_free(struct klock_space *space)
{
	klock_pages_free(space, 0, space->nr_pages);
}

/* Releases what tokens @first to @last, none of a live client, hold in page @nr. */
void klock_table_release(struct klock_space *space, u32 nr, u32 first, u32 last)
{
	atomic64_t *words = klock_page_nr(space, nr)->words;
	u32 i, token;

	for (i = 0; i < KLOCK_WORDS_PER_PAGE; i++) {
		token = klock_token(atomic64_read(&words[i]));
		if (token < first || token > last)
			continue;
		klock_release(space, nr * KLOCK_WORDS_PER_PAGE + i, token, KLOCK_END_DEATH, NULL);
		cond_resched();
	}
}

static int klock_lowest_free(struct klock_space *space, u32 *id)
{
	u32 pages = DIV_ROUND_UP(space->capacity, KLOCK_WORDS_PER_PAGE);
	u32 nr = find_first_zero_bit(space->full, pages);

	if (nr >= pages)
		return -ENOSPC;
	*id = nr * KLOCK_WORDS_PER_PAGE +
	      find_first_zero_bit(klock_page_nr(space, nr)->allocated, KLOCK_WORDS_PER_PAGE);
	return *id < space->capacity ? 0 : -ENOSPC;
}

static int klock_allocate_locked(struct klock_space *space, const struct klock_ioc_allocate *args)
{
	struct klock_page *page;
	u32 id = args->id;
	int ret;

	if (space->removed)
		return -ESTALE;
	if (args->flags & KLOCK_ALLOCATE_ID) {
		if (id >= space->capacity)
			return -EINVAL;
	} else {
		ret = klock_lowest_free(space, &id);
		if (ret)
			return ret;
	}
	page = klock_page(space, id);
	if (test_and_set_bit(id % KLOCK_WORDS_PER_PAGE, page->allocated))
		return -EEXIST;
	if (bitmap_full(page->allocated, KLOCK_WORDS_PER_PAGE))
		__set_bit(id / KLOCK_WORDS_PER_PAGE, space->full);
	if (!space->allocated && klock_pin)
		__module_get(THIS_MODULE);
	WRITE_ONCE(space->allocated, space->allocated + 1);
	return id;
}

int klock_allocate(struct klock_space *space, const struct klock_ioc_allocate *args)
{
	int ret;

	if (mutex_lock_killable(&space->mutex))
		return -EINTR;
	ret = klock_allocate_locked(space, args);
	mutex_unlock(&space->mutex);
	return ret;
}

int klock_retrieve(struct klock_space *space, const struct klock_ioc_id *args)
{
	if (args->id >= klock_capacity(space))
		return -EINVAL;
	if (READ_ONCE(space->removed))
		return -ESTALE;
	if (args->flags & KLOCK_RETRIEVE_MUST_EXIST &&
	    !test_bit(args->id % KLOCK_WORDS_PER_PAGE, klock_page(space, args->id)->allocated))
		return -ENOENT;
	return 0;
}

/* A module that is pinned is let go with the last allocated id of a space. */
static void klock_unpin(struct klock_space *space, u32 allocated)
{
	if (space->allocated && !allocated && klock_pin)
		module_put(THIS_MODULE);
	WRITE_ONCE(space->allocated, allocated);
}

static int klock_free_locked(struct klock_space *space, u32 id)
{
	if (space->removed)
		return -ESTALE;
	if (id >= space->capacity)
		return -EINVAL;
	if (!test_and_clear_bit(id % KLOCK_WORDS_PER_PAGE, klock_page(space, id)->allocated))
		return -ENOENT;
	__clear_bit(id / KLOCK_WORDS_PER_PAGE, space->full);
	klock_unpin(space, space->allocated - 1);
	return 0;
}

int klock_free(struct klock_space *space, u32 id)
{
	int ret;

	if (mutex_lock_killable(&space->mutex))
		return -EINTR;
	ret = klock_free_locked(space, id);
	mutex_unlock(&space->mutex);
	return ret;
}

void klock_free_all_locked(struct klock_space *space)
{
	struct klock_page *page;
	u32 nr, i;

	lockdep_assert_held(&space->mutex);
	for (nr = 0; nr < space->nr_pages; nr++) {
		page = klock_page_nr(space, nr);
		for (i = 0; i < ARRAY_SIZE(page->allocated); i++)
			WRITE_ONCE(page->allocated[i], 0);	/* not in one go: see klock.h */
	}
	bitmap_zero(space->full, KLOCK_PAGES_MAX);
	klock_unpin(space, 0);
}

int klock_free_all(struct klock_space *space)
{
	int ret = -ESTALE;

	if (mutex_lock_killable(&space->mutex))
		return -EINTR;
	if (!space->removed) {
		klock_free_all_locked(space);
		ret = 0;
	}
	mutex_unlock(&space->mutex);
	return ret;
}
