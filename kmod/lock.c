// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lock: a word, changed by compare-and-swap.
 *
 * Why a klock does not simply hold a struct mutex while it is held: a kernel
 * mutex may not be held across the return to user space, nor be released by
 * another task than took it (Documentation/locking/mutex-design.rst; lockdep
 * reports both), and a klock is held by a process that computes, sleeps and
 * dies as it likes.  So a klock is built from kernel mutexes: what it is, is in
 * one 64-bit word (its layout is in the uapi header), and the waiters of one
 * lock are guarded by a kernel mutex that is held for a few instructions inside
 * one ioctl (wait.c).
 *
 * Which lock guards what: none guards the word.  Whoever takes a free lock, or
 * gives one up for which nobody waits, swaps the word and takes no lock at all.
 * Who gives up a lock whose word says that somebody waits takes queue->mutex,
 * to wake the first, or to hand it the lock; if there is no queue, it swaps the
 * word under the lock of the bucket, where none can come up meanwhile.
 *
 * That nobody sleeps for ever: while somebody waits, the waiters bit is set, or
 * the first waiter was woken and has not looked yet.  A waiter is in the queue,
 * sets the bit, and only then looks who holds the lock.  A release clears the
 * bit and wakes the first, which sets it again, if others wait or it must wait
 * on; and whoever was woken and leaves wakes the next.
 *
 * Ordering: taking is acquire and releasing is release by being full barriers,
 * which a successful compare-and-swap is.  They are full because of
 * space->removed: remove sets it, then visits the words; who swaps a word
 * looks at it afterwards.  One of the two sees the other, so that no lock of a
 * removed space is ever taken, nor left free.
 *
 * Somebody to whom the words are mapped may write them at any time, what he
 * likes.  So each word is read once for each decision, and each loop over it has
 * an end, where it gives up for now, or swaps unconditionally; honest writers
 * do not bring it there.
 */
#include <linux/sched/signal.h>

#include "klock.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/* Swaps "no such lock" into a free word.  False: somebody holds it, or plays with it. */
bool klock_bury(atomic64_t *word)
{
	u64 old = atomic64_read(word);
	u32 tries;

	for (tries = 0; tries < KLOCK_TRIES; tries++) {
		if (klock_token(old))
			return klock_token(old) == KLOCK_WORD_NONE;
		if (atomic64_try_cmpxchg(word, &old, KLOCK_WORD_NONE | (old & KLOCK_WORD_DIED)))
			return true;
	}
	return false;
}

void klock_unbury(atomic64_t *word)
{
	u64 old = atomic64_read(word);
	u32 tries;

	for (tries = 0; tries < KLOCK_TRIES && klock_token(old) == KLOCK_WORD_NONE; tries++) {
		if (atomic64_try_cmpxchg(word, &old, old & KLOCK_WORD_DIED))
			return;
	}
}

/*
 * Gives up a lock whose word says @who in the bits of @mask, else -EPERM.
 * @died is KLOCK_WORD_DIED if the next holder is to be told so.  @queue is that
 * of the lock, its mutex held, or NULL if it has none, and its bucket is locked.
 * A task to wake, when all locks are dropped, is left in @wake.
 *
 * It cannot fail for a word that is changed all the time, or an exit would not end:
 * what said @who each of the many times that it was read is overwritten, in a space
 * that others may write.
 */
int klock_release_locked(struct klock_space *space, struct klock_queue *queue,
			 atomic64_t *word, u64 who, u64 mask, u64 died,
			 struct task_struct **wake)
{
	struct klock_waiter *first = queue ? queue->first : NULL;
	bool chain = queue && (queue->owner || (first && first->thread));
	bool hand = false, removed = false, done;
	u64 old = atomic64_read(word);
	int ret = 0;
	u32 tries = 0;
	u64 new;

	if (queue)
		lockdep_assert_held(&queue->mutex);

	if (chain)
		klock_chain_lock();
	do {
		if ((old & mask) != who) {
			ret = -EPERM;
			goto unlock;
		}
		removed = READ_ONCE(space->removed);
		hand = first && first->passed >= KLOCK_PASSED_MAX && !removed;
		if (removed)
			new = KLOCK_WORD_NONE;
		else if (hand)
			new = first->who | (queue->nr > 1 ? KLOCK_WORD_WAITERS : 0);
		else
			new = died;
		done = atomic64_try_cmpxchg(word, &old, new);
	} while (!done && (++tries < KLOCK_TRIES || !klock_mappable(space)));
	if (!done && (old & mask) != who) {
		ret = -EPERM;
		goto unlock;
	}
	if (!done)
		atomic64_xchg(word, new);

	if (queue) {
		klock_disown(queue);
		queue->held_since = 0;
	}
	if (hand)
		*wake = klock_grant(first, died);
	else if (first)
		*wake = klock_wake_first(queue);
unlock:
	if (chain)
		klock_chain_unlock();
	if (ret || removed || hand)
		return ret;

	if (READ_ONCE(space->removed))
		klock_bury(word);
	return 0;
}

/* A holder that died was met, and its lock released. */
void klock_note_death(struct klock_space *space, u32 id, u32 token)
{
	atomic64_inc(&space->deaths);
	trace_owner_died(space, id, token);
}

static void klock_note_end(struct klock_space *space, u32 id, u32 token, enum klock_end end)
{
	if (end == KLOCK_END_UNLOCK)
		trace_released(space, id, token);
	else if (end == KLOCK_END_BREAK)
		trace_broken(space, id, token);
	else if (end == KLOCK_END_DEATH)
		klock_note_death(space, id, token);
}

/*
 * As klock_release_locked(), with no lock held.  @who is a token, for UNDO a thread id,
 * too.  If @thread, then only if that is the errorcheck thread that holds it.
 */
int klock_release(struct klock_space *space, u32 id, u64 who, enum klock_end end,
		  struct pid *thread)
{
	u64 mask = end == KLOCK_END_UNDO ? KLOCK_WHO_MASK : KLOCK_WORD_TOKEN;
	u64 died = end >= KLOCK_END_BREAK ? KLOCK_WORD_DIED : 0;
	struct klock_page *page = klock_page(space, id);
	atomic64_t *word = klock_word(space, id);
	struct task_struct *wake = NULL;
	struct klock_queue *queue;
	int ret = -EPERM;

	klock_bucket_lock(page, id);
	queue = klock_queue_look_up(page, id);
	if (!queue && !thread)
		ret = klock_release_locked(space, NULL, word, who, mask, died, &wake);
	klock_bucket_unlock(page, id);
	if (queue) {
		mutex_lock(&queue->mutex);
		if (!thread || (queue->owner == thread && queue->owner_token == klock_token(who)))
			ret = klock_release_locked(space, queue, word, who, mask, died, &wake);
		mutex_unlock(&queue->mutex);
		klock_queue_put(page, queue);
	}
	if (!ret)
		klock_note_end(space, id, klock_token(who), end);	/* before it shows */
	klock_wake(wake);
	return ret;
}

static bool klock_is_late(const struct klock_ioc_lock *args)
{
	if (!(args->flags & KLOCK_LOCK_DEADLINE))
		return false;
	if (args->flags & KLOCK_LOCK_REALTIME)
		return !ktime_before(ktime_get_real(), ns_to_ktime(args->deadline));
	return !ktime_before(ktime_get(), klock_from_timens(args->deadline));
}

/*
 * Whether a call that cannot say yet what became of the lock may go on: 0, or what it
 * returns.  It may not if it was not to wait, or not any longer: whoever keeps it from
 * its end, a hostile word or a resize that is slow, is not to choose how long.
 */
int klock_may_go_on(const struct klock_ioc_lock *args)
{
	if (args->flags & KLOCK_LOCK_TRY)
		return -EBUSY;
	if (signal_pending(current))
		return -ERESTARTSYS;
	return klock_is_late(args) ? -ETIMEDOUT : 0;
}

/* There is no such thing as a mutex that is waited for until a deadline: then it is polled. */
static int klock_space_lock(struct klock_space *space, const struct klock_ioc_lock *args)
{
	int ret;

	while (!mutex_trylock(&space->mutex)) {
		ret = klock_may_go_on(args);
		if (ret)
			return ret;
		if (!(args->flags & KLOCK_LOCK_DEADLINE))
			return mutex_lock_interruptible(&space->mutex) ? -ERESTARTSYS : 0;
		schedule_timeout_interruptible(1);
	}
	return 0;
}

/*
 * A word said "no such lock".  Whoever wrote that holds, or held, space->mutex
 * and has made up its mind when we get it.  0: look again.
 */
int klock_settle(struct klock_space *space, const struct klock_ioc_lock *args)
{
	int ret = klock_space_lock(space, args);

	if (ret)
		return ret;
	if (space->removed)
		ret = -ESTALE;
	else if (args->id >= space->capacity)
		ret = -EINVAL;
	else
		klock_unbury(klock_word(space, args->id));
	mutex_unlock(&space->mutex);
	return ret;
}

/* Takes back a lock that was taken while its space was removed. */
static noinline int klock_undo(struct klock_space *space, u32 id, u64 who)
{
	klock_release(space, id, who, KLOCK_END_UNDO, NULL);
	return -ESTALE;
}

/*
 * Out of line, and called at the very end, as klock_undo() and klock_unlocked(): so the fast
 * paths have no registers to save for the sake of what is rare.
 */
static noinline int klock_trace_acquire(struct klock_space *space, u32 id, u64 who, bool died)
{
	trace_acquire(space, id, klock_token(who), 0, died);
	return died;
}

/*
 * The word named somebody, or has changed.  0: try again; but what it says so many times
 * is as if somebody held the lock.
 */
static noinline int klock_try_again(struct klock_space *space, const struct klock_ioc_lock *args,
				    u32 token, u32 tries)
{
	if (tries == KLOCK_TRIES)
		return -EBUSY;
	if (fatal_signal_pending(current))
		return -EINTR;
	cond_resched();
	if (!token)
		return 0;
	if (token == KLOCK_WORD_NONE)
		return klock_settle(space, args);
	if (klock_alive(space, token))
		return -EBUSY;
	klock_release(space, args->id, token, KLOCK_END_DEATH, NULL);
	return 0;
}

/*
 * Takes the lock if it is free, also ahead of a waiter that is just waking up.
 * The first guess is that nobody ever touched it since it was released.
 */
static int klock_try(struct klock_space *space, const struct klock_ioc_lock *args, u64 who)
{
	atomic64_t *word = klock_word(space, args->id);
	u32 tries = 0;
	u64 old = 0;
	int ret;

	if (unlikely(READ_ONCE(space->removed)))
		return -ESTALE;
	while (klock_token(old) ||
	       !atomic64_try_cmpxchg(word, &old, who | (old & KLOCK_WORD_WAITERS))) {
		ret = klock_try_again(space, args, klock_token(old), ++tries);
		if (ret)
			return ret;
		old = atomic64_read(word);
	}
	if (unlikely(READ_ONCE(space->removed)))
		return klock_undo(space, args->id, who);
	if (trace_acquire_enabled())
		return klock_trace_acquire(space, args->id, who, old & KLOCK_WORD_DIED);
	return !!(old & KLOCK_WORD_DIED);
}

int klock_lock(struct klock_client *client, const struct klock_ioc_lock *args)
{
	struct klock_space *space = client->space;
	u64 who;
	int ret;

	if (args->id >= klock_capacity(space))
		return -EINVAL;
	klock_note_page(client, args->id / KLOCK_WORDS_PER_PAGE);
	who = client->token | (u64)task_pid_vnr(current) << KLOCK_WORD_TID_SHIFT;
	if (!client->errorcheck) {
		ret = klock_try(space, args, who);
		if (ret != -EBUSY || args->flags & KLOCK_LOCK_TRY)
			return ret;
	}
	return klock_wait(client, args, who);
}

/* The word was swapped; its space is removed, or somebody traces. */
static noinline int klock_unlocked(struct klock_space *space, u32 id, u32 token)
{
	if (READ_ONCE(space->removed))
		klock_bury(klock_word(space, id));
	trace_released(space, id, token);
	return 0;
}

int klock_unlock(struct klock_client *client, u32 id)
{
	struct klock_space *space = client->space;
	atomic64_t *word;
	u32 tries = 0;
	u64 old;

	if (id >= klock_capacity(space))
		return -EINVAL;
	if (client->errorcheck)
		return klock_release(space, id, client->token, KLOCK_END_UNLOCK,
				     task_pid(current));

	/* Reading first: another thread of the client may have locked. */
	word = klock_word(space, id);
	old = atomic64_read(word);
	do {
		if (klock_token(old) != client->token)
			return -EPERM;
		if (old & KLOCK_WORD_WAITERS || tries++ == KLOCK_TRIES)
			return klock_release(space, id, client->token, KLOCK_END_UNLOCK, NULL);
	} while (!atomic64_try_cmpxchg(word, &old, 0));
	if (unlikely(READ_ONCE(space->removed)) || trace_released_enabled())
		return klock_unlocked(space, id, client->token);
	return 0;
}

int klock_break(struct klock_space *space, const struct klock_ioc_break *args)
{
	u32 token;

	if (!klock_is_owner(space))
		return -EACCES;
	if (args->id >= klock_capacity(space))
		return -EINVAL;
	for (;;) {
		token = klock_token(atomic64_read(klock_word(space, args->id)));
		if (!token || !klock_alive(space, token))
			return -ENOENT;
		if (args->token && args->token != token)
			return -EAGAIN;
		if (!klock_release(space, args->id, token, KLOCK_END_BREAK, NULL))
			return 0;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
}

/*
 * With queue->mutex held, or the bucket locked; @wake as of klock_release_locked().
 * The token of a holder that died, if one was met, else 0.  A dead holder's word is
 * changed beside us once at most by who is honest: its process, which goes on.
 */
static u32 klock_close_locked(struct klock_space *space, struct klock_queue *queue,
			      atomic64_t *word, struct task_struct **wake)
{
	u32 tries, token;
	u64 old;

	for (tries = 0; tries < KLOCK_TRIES; tries++) {
		old = atomic64_read(word);
		token = klock_token(old);
		if (!token) {
			if (atomic64_try_cmpxchg(word, &old, KLOCK_WORD_NONE |
						 (old & KLOCK_WORD_DIED)))
				return 0;
		} else if (token == KLOCK_WORD_NONE) {
			return 0;
		} else if (!klock_alive(space, token)) {
			if (!klock_release_locked(space, queue, word, token, KLOCK_WORD_TOKEN,
						  KLOCK_WORD_DIED, wake))
				return token;
			tries += KLOCK_TRIES / 4;	/* it has tried so often, or more */
		} else if (old & KLOCK_WORD_WAITERS ||
			   atomic64_try_cmpxchg(word, &old, old | KLOCK_WORD_WAITERS)) {
			return 0;
		}
	}
	atomic64_set(word, KLOCK_WORD_NONE);	/* nobody who holds it does this */
	return 0;
}

/*
 * The space is removed: nobody may take this lock any more.  A holder may still
 * give it up, which it does by way of the kernel: its word gets the waiters bit.
 * Under queue->mutex, so that a waiter that leaves, and drops the bit, either
 * did so before, or sees that the space is removed; and, as a release, under the
 * lock of the bucket if there is no queue, so that one that began before the space
 * was marked has come to its end.
 */
void klock_close_word(struct klock_space *space, u32 id)
{
	struct klock_page *page = klock_page(space, id);
	atomic64_t *word = klock_word(space, id);
	struct task_struct *wake = NULL;
	struct klock_queue *queue;
	u32 died = 0;

	klock_bucket_lock(page, id);
	queue = klock_queue_look_up(page, id);
	if (!queue)
		died = klock_close_locked(space, NULL, word, &wake);
	klock_bucket_unlock(page, id);
	if (queue) {
		mutex_lock(&queue->mutex);
		died = klock_close_locked(space, queue, word, &wake);
		klock_wake_all(queue);
		mutex_unlock(&queue->mutex);
		klock_queue_put(page, queue);
	}
	if (died)
		klock_note_death(space, id, died);
	klock_wake(wake);
}
