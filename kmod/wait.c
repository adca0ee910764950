// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queues of waiters.
 *
 * A lock has a queue only while somebody waits for it (or an errorcheck thread
 * holds it, or a call looks at it).  The queue is found by its id in a bucket
 * that belongs to at most 64 locks (with pages of 4 KiB), under the bit lock of
 * the bucket, which is held for the search, and for a release if there is none
 * (lock.c); what the queue does is under its own mutex, which belongs to one lock.
 *
 * Memory: each client owns a spare queue.  A thread that waits brings it along;
 * the first one's becomes the queue of the lock, and whoever leaves takes one
 * with it: its own, or that of another waiter, or at last the queue.  So only
 * the second thread of a client that waits at the same time allocates, before
 * anything has changed; or one whose queue was left to a call that looked at it,
 * or, of an errorcheck client, to a lock that it holds.
 *
 * Order: the first in the queue is woken when the lock becomes free, and must
 * take it.  A running thread may take it first; after KLOCK_PASSED_MAX such
 * times the next release hands the lock over (klock_release_locked()).  Nothing
 * but an interruption of the wait costs a place.
 *
 * Where the words may be mapped somebody may clear the waiters bit, by malice or
 * by accident.  So who waits there wakes up once a second, of CLOCK_MONOTONIC
 * whatever its deadline's clock, and, if it is the first, looks again.
 *
 * Waiting is in TASK_INTERRUPTIBLE: any signal ends it, the freezer's, too, so
 * a waiter neither blocks suspend nor looks hung.
 */
#include <linux/hrtimer.h>
#include <linux/kcsan-checks.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "compat.h"
#include "klock.h"
#include "trace.h"

/* With the slack that is given to the timer it is less than a second. */
#define KLOCK_LOOK_AGAIN	(900 * NSEC_PER_MSEC)
#define KLOCK_LOOK_SLACK	(50 * NSEC_PER_MSEC)

static struct kmem_cache *klock_queue_cache;

int __init klock_queue_cache_init(void)
{
	klock_queue_cache = KMEM_CACHE(klock_queue, SLAB_ACCOUNT);
	return klock_queue_cache ? 0 : -ENOMEM;
}

void klock_queue_cache_exit(void)
{
	kmem_cache_destroy(klock_queue_cache);
}

struct klock_queue *klock_queue_alloc(void)
{
	struct klock_queue *queue = kmem_cache_zalloc(klock_queue_cache, KLOCK_GFP);

	if (queue)
		mutex_init(&queue->mutex);
	return queue;
}

void klock_queue_free(struct klock_queue *queue)
{
	if (queue)
		kmem_cache_free(klock_queue_cache, queue);
}

static struct hlist_bl_head *klock_bucket(struct klock_page *page, u32 id)
{
	return &page->queues[id % KLOCK_BUCKETS];
}

/*
 * With no queue of the lock there, nobody begins to wait until it is unlocked.
 *
 * The lock is a bit of the word that points to the first queue.  Who waits for it sets the
 * bit again and again, while who has it reads and writes the pointer with plain
 * accesses: list_bl.h is made so.  KCSAN is told that these are atomic; it still sees who
 * comes there without the lock.
 */
void klock_bucket_lock(struct klock_page *page, u32 id)
	__acquires(bitlock)
{
	hlist_bl_lock(klock_bucket(page, id));
	kcsan_nestable_atomic_begin();
}

void klock_bucket_unlock(struct klock_page *page, u32 id)
	__releases(bitlock)
{
	hlist_bl_unlock(klock_bucket(page, id));
	kcsan_nestable_atomic_end();
}

/* The queue of the lock, if it has one, with a reference; its bucket is locked. */
struct klock_queue *klock_queue_look_up(struct klock_page *page, u32 id)
{
	struct hlist_bl_head *bucket = klock_bucket(page, id);
	struct hlist_bl_node *node;
	struct klock_queue *queue;

	hlist_bl_for_each_entry(queue, node, bucket, node) {
		if (queue->id == id) {
			atomic_inc(&queue->refs);
			return queue;
		}
	}
	return NULL;
}

struct klock_queue *klock_queue_find(struct klock_page *page, u32 id)
{
	struct klock_queue *queue;

	/*
	 * Who puts a queue here reads the word afterwards, and callers have
	 * swapped the word, or set what a waiter looks at, before.
	 */
	if (hlist_bl_empty(klock_bucket(page, id)))
		return NULL;
	klock_bucket_lock(page, id);
	queue = klock_queue_look_up(page, id);
	klock_bucket_unlock(page, id);
	return queue;
}

/* Drops a reference; returns the queue if it was the last, as good as new. */
static struct klock_queue *klock_queue_unref(struct klock_page *page, struct klock_queue *queue)
{
	u32 id = queue->id;
	bool last;

	klock_bucket_lock(page, id);
	last = atomic_dec_and_test(&queue->refs);
	if (last)
		hlist_bl_del_init(&queue->node);
	klock_bucket_unlock(page, id);	/* if not the last, it may be gone from here on */
	if (!last)
		return NULL;
	queue->held_since = 0;
	return queue;
}

void klock_queue_put(struct klock_page *page, struct klock_queue *queue)
{
	klock_queue_free(klock_queue_unref(page, queue));
}

/*
 * The page goes.  A queue is left if an errorcheck thread held the lock and its
 * word, which was mapped, was written over: nobody released it then.
 */
void klock_queues_free(struct klock_page *page)
{
	struct hlist_bl_node *node, *next;
	struct klock_queue *queue;
	u32 i;

	for (i = 0; i < KLOCK_BUCKETS; i++) {
		hlist_bl_for_each_entry_safe(queue, node, next, &page->queues[i], node) {
			put_pid(queue->owner);
			klock_queue_free(queue);
		}
	}
}

/*
 * Whether anybody waits for a lock at or above @capacity.  A queue is not enough: it is
 * also there as long as calls of those who may only look follow upon each other.
 */
bool klock_waited_above(struct klock_space *space, u32 capacity)
{
	struct klock_queue *queue;
	struct klock_page *page;
	u32 id, nr = 0;

	for (id = capacity; id < space->capacity && !nr; id++) {
		page = klock_page(space, id);
		queue = klock_queue_find(page, id);
		if (queue) {
			mutex_lock(&queue->mutex);
			nr = queue->nr;
			mutex_unlock(&queue->mutex);
			klock_queue_put(page, queue);
		}
		if (id % KLOCK_WORDS_PER_PAGE == 0)
			cond_resched();
	}
	return nr;
}

/* Finds or makes the queue that @waiter will use. */
static int klock_queue_get(struct klock_client *client, struct klock_page *page, u32 id,
			   struct klock_waiter *waiter)
{
	struct klock_queue *mine = xchg(&client->spare, NULL);

	if (!mine)
		mine = klock_queue_alloc();
	if (!mine)
		return -ENOMEM;

	klock_bucket_lock(page, id);
	waiter->queue = klock_queue_look_up(page, id);
	if (waiter->queue) {
		waiter->spare = mine;
	} else {
		mine->id = id;
		atomic_set(&mine->refs, 1);
		hlist_bl_add_head(&mine->node, klock_bucket(page, id));
		waiter->queue = mine;
	}
	klock_bucket_unlock(page, id);
	/*
	 * A waiter can be found; then it reads the word and space->removed.
	 * Pairs with the barriers in klock_table_shrink() and _close().
	 */
	smp_mb();
	return 0;
}

/* A queue that is not used any more is as it was when it was allocated. */
static void klock_queue_keep(struct klock_client *client, struct klock_queue *queue)
{
	if (queue && cmpxchg(&client->spare, NULL, queue))
		klock_queue_free(queue);
}

static void klock_enqueue(struct klock_waiter *waiter)
{
	struct klock_queue *queue = waiter->queue;

	lockdep_assert_held(&queue->mutex);
	waiter->since = ktime_get_ns();
	waiter->queued = true;
	if (queue->first)
		list_add_tail(&waiter->list, &queue->first->list);
	else
		queue->first = waiter;
	queue->nr++;
	atomic_inc(&waiter->space->waiting);
}

static void klock_dequeue(struct klock_waiter *waiter)
{
	struct klock_queue *queue = waiter->queue;

	lockdep_assert_held(&queue->mutex);
	waiter->queued = false;
	queue->nr--;
	if (!queue->nr)
		queue->first = NULL;
	else if (queue->first == waiter)
		queue->first = list_next_entry(waiter, list);
	list_del_init(&waiter->list);
	atomic_dec(&waiter->space->waiting);
	if (queue->first && !waiter->spare)
		swap(waiter->spare, queue->first->spare);
	else if (!queue->first && !queue->owner)
		queue->held_since = 0;	/* from now on it may change hands unseen */
}

/* Wakes whoever klock_wake_first() or klock_grant() chose; with no lock held. */
void klock_wake(struct task_struct *task)
{
	if (!task)
		return;
	wake_up_process(task);
	put_task_struct(task);
}

/* The lock is free: the first is to look again, if it is not about to. */
struct task_struct *klock_wake_first(struct klock_queue *queue)
{
	struct klock_waiter *first = queue->first;

	lockdep_assert_held(&queue->mutex);
	if (!first || first->state != KLOCK_WAITING)
		return NULL;
	WRITE_ONCE(first->state, KLOCK_WOKEN);
	return get_task_struct(first->task);
}

/* None of them can have what it waits for any more. */
void klock_wake_all(struct klock_queue *queue)
{
	struct klock_waiter *waiter = queue->first;
	u32 i;

	lockdep_assert_held(&queue->mutex);
	for (i = 0; i < queue->nr; i++, waiter = list_next_entry(waiter, list)) {
		WRITE_ONCE(waiter->state, KLOCK_WOKEN);
		wake_up_process(waiter->task);
	}
}

/* The word names @waiter now. */
struct task_struct *klock_grant(struct klock_waiter *waiter, bool died)
{
	waiter->queue->held_since = ktime_get_ns();
	if (waiter->thread)
		klock_own(waiter);
	klock_dequeue(waiter);
	waiter->died = died;
	trace_handoff(waiter->space, waiter->queue->id, klock_token(waiter->who));
	WRITE_ONCE(waiter->state, KLOCK_GRANTED);
	return get_task_struct(waiter->task);
}

/* Swaps @waiter into a free word, whose value was *@old. */
static bool klock_take_free(struct klock_waiter *waiter, u64 *old)
{
	struct klock_queue *queue = waiter->queue;
	u64 others = queue->nr > waiter->queued ? KLOCK_WORD_WAITERS : 0;
	bool taken;

	if (waiter->thread)
		klock_chain_lock();
	taken = atomic64_try_cmpxchg(waiter->word, old, waiter->who | others);
	if (taken && waiter->thread)
		klock_own(waiter);
	if (taken && (others || waiter->thread))
		queue->held_since = ktime_get_ns();
	if (waiter->thread)
		klock_chain_unlock();
	return taken;
}

/*
 * Who is in the queue sets the waiters bit, then looks whether the holder
 * lives; a holder that goes withdraws its token, then searches the words.  So
 * it finds the bit, or is found dead here.  0: the word has changed.  -ERESTART: he
 * was found dead, and a word that is scribbled over may have been tried very often.
 */
static int klock_look_held(struct klock_waiter *waiter, u64 old)
{
	struct klock_queue *queue = waiter->queue;
	struct task_struct *wake = NULL;
	u32 token = klock_token(old);

	if (waiter->queued && !(old & KLOCK_WORD_WAITERS) &&
	    !atomic64_try_cmpxchg(waiter->word, &old, old | KLOCK_WORD_WAITERS))
		return 0;
	smp_mb();	/* pairs with klock_detach() */
	if (!klock_alive(waiter->space, token)) {
		if (!klock_release_locked(waiter->space, queue, waiter->word, token,
					  KLOCK_WORD_TOKEN, KLOCK_WORD_DIED, &wake))
			klock_note_death(waiter->space, queue->id, token);
		klock_wake(wake);
		return -ERESTART;
	}
	/* Not before the waiters bit is set: without it the lock changes hands unseen. */
	if (!queue->held_since && waiter->queued)
		queue->held_since = ktime_get_ns();
	if (waiter->thread && queue->owner == waiter->thread && queue->owner_token == token)
		return -EDEADLK;
	return -EAGAIN;
}

/*
 * Takes the lock if it can be had: 0, or 1 if its last holder died.  -EAGAIN:
 * it must be waited for.  -ENXIO: the word says "no such lock".  -ERESTART: its
 * holder was found dead, or it changes too often to look at with a lock held.
 */
static int klock_look(struct klock_waiter *waiter)
{
	struct klock_space *space = waiter->space;
	struct task_struct *wake = NULL;
	u32 tries;
	int ret;
	u64 old;

	for (tries = 0; ; tries++) {
		if (waiter->state == KLOCK_GRANTED)
			return waiter->died;
		if (tries == KLOCK_TRIES)
			return -ERESTART;
		if (READ_ONCE(space->removed))
			return -ESTALE;
		old = atomic64_read(waiter->word);
		if (klock_token(old) == KLOCK_WORD_NONE)
			return -ENXIO;
		if (!klock_token(old)) {
			if (klock_take_free(waiter, &old))
				break;
			continue;
		}
		ret = klock_look_held(waiter, old);
		if (ret)
			return ret;
	}
	if (READ_ONCE(space->removed)) {
		klock_release_locked(space, waiter->queue, waiter->word, waiter->who,
				     KLOCK_WHO_MASK, 0, &wake);
		klock_wake(wake);
		return -ESTALE;
	}
	return !!(old & KLOCK_WORD_DIED);
}

/*
 * The same; waits for a resize or removal that is under way, unless the call is not to
 * wait.  Others are let in where one look was not to go on; each call may look twice.
 */
static int klock_look_settled(struct klock_waiter *waiter, const struct klock_ioc_lock *args)
{
	struct klock_queue *queue = waiter->queue;
	bool settle, again = false;
	int ret;

	for (;; again = true) {
		ret = klock_look(waiter);
		if (ret != -ENXIO && ret != -ERESTART)
			return ret;
		settle = ret == -ENXIO;
		mutex_unlock(&queue->mutex);
		cond_resched();
		ret = again ? klock_may_go_on(args) : 0;
		if (!ret && settle)
			ret = klock_settle(waiter->space, args);
		mutex_lock(&queue->mutex);
		if (ret && waiter->state != KLOCK_GRANTED)
			return ret;
	}
}

/* Until the deadline, of CLOCK_REALTIME; also wakes up after KLOCK_LOOK_AGAIN. */
static bool klock_schedule_realtime(ktime_t deadline)
{
	struct hrtimer_sleeper again;
	bool late;

	hrtimer_setup_sleeper_on_stack(&again, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	hrtimer_set_expires_range_ns(&again.timer, KLOCK_LOOK_AGAIN, KLOCK_LOOK_SLACK);
	hrtimer_sleeper_start_expires(&again, HRTIMER_MODE_REL);
	late = !schedule_hrtimeout_range_clock(&deadline, current->timer_slack_ns,
					       HRTIMER_MODE_ABS, CLOCK_REALTIME);
	hrtimer_cancel(&again.timer);
	destroy_hrtimer_on_stack(&again.timer);
	return late;
}

/* The same, of CLOCK_MONOTONIC. */
static bool klock_schedule_until(ktime_t deadline)
{
	ktime_t again = ktime_add_ns(ktime_get(), KLOCK_LOOK_AGAIN);

	if (ktime_before(deadline, again))
		return !schedule_hrtimeout_range(&deadline, current->timer_slack_ns,
						 HRTIMER_MODE_ABS);
	schedule_hrtimeout_range(&again, KLOCK_LOOK_SLACK, HRTIMER_MODE_ABS);
	return false;
}

static bool klock_schedule(struct klock_waiter *waiter, const struct klock_ioc_lock *args)
{
	if (!waiter->deadline) {
		if (klock_mappable(waiter->space))
			schedule_timeout(nsecs_to_jiffies(KLOCK_LOOK_AGAIN));
		else
			schedule();
		return false;
	}
	if (args->flags & KLOCK_LOCK_REALTIME)
		return klock_schedule_realtime(ns_to_ktime(args->deadline));
	return klock_schedule_until(klock_from_timens(args->deadline));
}

/*
 * Sleeps until it is woken, a signal comes, or (then true) the deadline, or it is
 * to look again.
 */
static bool klock_sleep(struct klock_waiter *waiter, const struct klock_ioc_lock *args)
{
	bool late = false;

	set_current_state(TASK_INTERRUPTIBLE);
	if (READ_ONCE(waiter->state) == KLOCK_WAITING && !signal_pending(current))
		late = klock_schedule(waiter, args);
	__set_current_state(TASK_RUNNING);
	return late;
}

static void klock_raise(atomic64_t *max, s64 value)
{
	s64 old = atomic64_read(max);

	while (old < value && !atomic64_try_cmpxchg(max, &old, value))
		;
}

/* It was woken, and a running thread was faster. */
static void klock_count_passed(struct klock_waiter *waiter)
{
	struct klock_space *space = waiter->space;

	waiter->state = KLOCK_WAITING;
	waiter->passed++;
	atomic64_inc(&space->passed);
	klock_raise(&space->max_passed, waiter->passed);
}

static int klock_wait_queued(struct klock_waiter *waiter, const struct klock_ioc_lock *args)
{
	struct klock_queue *queue = waiter->queue;
	bool late = false;
	int ret;

	for (;;) {
		if (fatal_signal_pending(current) && waiter->state != KLOCK_GRANTED)
			return -EINTR;
		if (queue->first == waiter || waiter->state != KLOCK_WAITING) {
			ret = klock_look_settled(waiter, args);
			if (ret != -EAGAIN)
				return ret;
		}
		if (waiter->state == KLOCK_WOKEN)
			klock_count_passed(waiter);
		if (signal_pending(current))
			return -ERESTARTSYS;
		if (late)
			return -ETIMEDOUT;
		mutex_unlock(&queue->mutex);
		late = klock_sleep(waiter, args);
		mutex_lock(&queue->mutex);
	}
}

/*
 * Leaves the queue without the lock.  If it is the one that was woken, or the
 * lock can be had, the next one is woken.  What is taken for that here is a word
 * that does not bring its holder here, "no such lock" included: a shrinking
 * that fails swaps that back into free.  The last one drops the waiters bit.
 */
static void klock_leave(struct klock_waiter *waiter)
{
	struct klock_space *space = waiter->space;
	struct klock_queue *queue = waiter->queue;
	u64 old = atomic64_read(waiter->word);
	u32 tries;

	if (waiter->thread)
		klock_chain_leave(waiter);
	klock_dequeue(waiter);
	if (queue->nr) {
		if (waiter->state == KLOCK_WOKEN || !(old & KLOCK_WORD_WAITERS) ||
		    !klock_alive(space, klock_token(old)))
			klock_wake(klock_wake_first(queue));
		return;
	}
	for (tries = 0; tries < KLOCK_TRIES; tries++) {
		if (!(old & KLOCK_WORD_WAITERS) || READ_ONCE(space->removed) ||
		    atomic64_try_cmpxchg(waiter->word, &old, old & ~(u64)KLOCK_WORD_WAITERS))
			break;
	}
}

/*
 * Ends the wait.  Who was granted the lock has it, whatever else happened; but
 * who is being killed passes it on, as it got it, for nobody is left to be told.
 */
static int klock_wait_end(struct klock_waiter *waiter, int ret)
{
	struct task_struct *wake = NULL;

	if (waiter->state == KLOCK_GRANTED) {
		if (!fatal_signal_pending(current))
			return ret;
		klock_release_locked(waiter->space, waiter->queue, waiter->word, waiter->who,
				     KLOCK_WHO_MASK, ret ? KLOCK_WORD_DIED : 0, &wake);
		klock_wake(wake);
		return -EINTR;
	}
	if (!waiter->queued)
		return ret;
	if (ret < 0)
		klock_leave(waiter);
	else
		klock_dequeue(waiter);
	return ret;
}

/* From the first moment in the queue to the last. */
static int klock_queue_up(struct klock_waiter *waiter, const struct klock_ioc_lock *args)
{
	struct klock_space *space = waiter->space;
	int ret = 0;

	klock_enqueue(waiter);
	if (waiter->thread)
		ret = klock_chain_enter(waiter);
	if (ret)
		return klock_wait_end(waiter, ret);
	atomic64_inc(&space->waits);
	trace_contended(waiter);
	ret = klock_wait_end(waiter, klock_wait_queued(waiter, args));
	if (ret >= 0)
		atomic64_inc(&space->waited);
	waiter->waited = ktime_get_ns() - waiter->since;
	klock_raise(&space->longest_wait, waiter->waited);
	return ret;
}

int klock_wait(struct klock_client *client, const struct klock_ioc_lock *args, u64 who)
{
	struct klock_space *space = client->space;
	struct klock_page *page = klock_page(space, args->id);
	struct klock_waiter waiter = {
		.list = LIST_HEAD_INIT(waiter.list),
		.space = space,
		.word = klock_word(space, args->id),
		.task = current,
		.thread = client->errorcheck ? task_pid(current) : NULL,
		.who = who,
		.state = KLOCK_WAITING,
		.deadline = args->flags & KLOCK_LOCK_DEADLINE,
	};
	int ret = klock_queue_get(client, page, args->id, &waiter);

	if (ret)
		return ret;

	mutex_lock(&waiter.queue->mutex);
	ret = klock_look_settled(&waiter, args);
	if (args->flags & KLOCK_LOCK_TRY && (ret == -EAGAIN || ret == -EDEADLK))
		ret = -EBUSY;
	if (ret == -EAGAIN)
		ret = klock_queue_up(&waiter, args);
	if (ret >= 0)
		trace_acquire(space, args->id, client->token, waiter.waited, ret);
	mutex_unlock(&waiter.queue->mutex);

	klock_queue_keep(client, waiter.spare);
	klock_queue_keep(client, klock_queue_unref(page, waiter.queue));
	return ret;
}
