// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads that hold locks, and cycles of threads that wait for each other.
 *
 * A lock that an errorcheck client holds belongs to one of its threads:
 * queue->owner, which counts only while the word names the client.  Which
 * errorcheck thread waits for which lock is in a table here.  One mutex guards
 * both (the owner also needs queue->mutex to be written), so that a search sees
 * all of them as they were at one moment, and that nobody begins to wait
 * between a search and the entry of the one who searched.  It is global,
 * because a cycle may run through any number of spaces; clients that do not
 * ask for the check never take it, unless a lock passes between them and one
 * that does.
 *
 * A cycle can only be closed by a thread that begins to wait: whoever gets a
 * lock does not wait at that moment.
 */
#include <linux/hashtable.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

#include "klock.h"

/*
 * So many threads a search looks at, at most: it keeps all other errorcheck clients
 * waiting, whoever they are.
 */
#define KLOCK_CHAIN_MAX		1024

static DEFINE_MUTEX(klock_chain_mutex);
static DEFINE_HASHTABLE(klock_chain, 12);

void klock_chain_lock(void)
{
	mutex_lock(&klock_chain_mutex);
}

void klock_chain_unlock(void)
{
	mutex_unlock(&klock_chain_mutex);
}

/* @waiter has just got the lock. */
void klock_own(struct klock_waiter *waiter)
{
	struct klock_queue *queue = waiter->queue;

	lockdep_assert_held(&queue->mutex);
	lockdep_assert_held(&klock_chain_mutex);
	klock_disown(queue);
	queue->owner = get_pid(waiter->thread);
	queue->owner_token = klock_token(waiter->who);
	atomic_inc(&queue->refs);
	hash_del(&waiter->chain);
}

/* The caller has a reference on the queue, so this one is not the last. */
void klock_disown(struct klock_queue *queue)
{
	if (!queue->owner)
		return;
	lockdep_assert_held(&queue->mutex);
	lockdep_assert_held(&klock_chain_mutex);
	put_pid(queue->owner);
	queue->owner = NULL;
	atomic_dec(&queue->refs);
}

static struct pid *klock_owner(const struct klock_waiter *waiter)
{
	const struct klock_queue *queue = waiter->queue;

	if (queue->owner && klock_token(atomic64_read(waiter->word)) == queue->owner_token)
		return queue->owner;
	return NULL;
}

static struct klock_waiter *klock_wait_of(const struct pid *thread)
{
	struct klock_waiter *waiter;

	hash_for_each_possible(klock_chain, waiter, chain, (unsigned long)thread) {
		if (waiter->thread == thread)
			return waiter;
	}
	return NULL;
}

/*
 * Follows who waits for whom from @waiter on.  One whose wait ends by itself (at
 * a deadline, by a fatal signal) may let go of its locks then, so it ends the
 * search: there is no deadlock, or it will meet the cycle when it waits again.
 *
 * So every circle in the table has such a one in it, unless a word that is mapped
 * was changed while it closed, or it is longer than a search.  Who comes to such a
 * circle from outside goes round in it until the search is over.
 */
static bool klock_closes_cycle(const struct klock_waiter *waiter)
{
	const struct klock_waiter *next = waiter;
	struct pid *owner;
	u32 steps;

	for (steps = 0; steps < KLOCK_CHAIN_MAX; steps++) {
		owner = klock_owner(next);
		if (!owner)
			return false;
		if (owner == waiter->thread)
			return true;
		next = klock_wait_of(owner);
		if (!next || next->deadline || fatal_signal_pending(next->task))
			return false;
	}
	return false;
}

/* The search and the entry are one step: of two that close a cycle one sees it. */
int klock_chain_enter(struct klock_waiter *waiter)
{
	int ret = 0;

	klock_chain_lock();
	if (klock_closes_cycle(waiter))
		ret = -EDEADLK;
	else
		hash_add(klock_chain, &waiter->chain, (unsigned long)waiter->thread);
	klock_chain_unlock();
	return ret;
}

void klock_chain_leave(struct klock_waiter *waiter)
{
	klock_chain_lock();
	hash_del(&waiter->chain);
	klock_chain_unlock();
}
