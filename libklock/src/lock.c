// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Locks taken and released: without the kernel where the words are mapped and
 * nobody is in the way.  A thread that dies between any two instructions here
 * leaves a word that is free, or names a client that ends with the process.
 */
#include <errno.h>
#include <stdbool.h>

#include "internal.h"

#define NSEC_PER_SEC 1000000000

/*
 * How often to pause at least, so that it is found out again when spinning is worth
 * it: some µs, as a sleep and a wake-up take.  And at most: some tens of them.
 */
#define SPIN_MIN	100
#define SPIN_MAX	1000

/*
 * The word of a lock, if it is mapped.  A word that is 0 may be swapped to the
 * client's token and the thread's id, and one that says the token, and nothing
 * else in that half, to 0.  All other values are for the kernel.
 */
static inline _Atomic uint64_t *word_of(const struct klock *lock)
{
	return atomic_load_explicit(&lock->word, memory_order_acquire);
}

static inline uint32_t token_of(const struct klock *lock)
{
	return atomic_load_explicit(&lock->token, memory_order_relaxed);
}

static inline bool take_free(_Atomic uint64_t *word, uint64_t me)
{
	uint64_t none = 0;

	return atomic_compare_exchange_strong_explicit(word, &none, me, memory_order_acquire,
						       memory_order_relaxed);
}

static inline uint64_t me_of(const struct klock *lock)
{
	return (uint64_t)klock__tid << KLOCK_WORD_TID_SHIFT | token_of(lock);
}

/*
 * What the kernel orders, ThreadSanitizer is told: whoever took the lock there comes
 * after whoever gave it up, there or here.
 */
#ifdef __has_feature	/* so says clang */
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__
#endif
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>

static void *order_of(const struct klock *lock)
{
	_Atomic uint64_t *word = word_of(lock);

	return word ? (void *)word : klock__rest(lock)->space;
}

static void kernel_took(const struct klock *lock)
{
	__tsan_acquire(order_of(lock));
}

static void kernel_gives(const struct klock *lock)
{
	__tsan_release(order_of(lock));
}
#else
static inline void kernel_took(const struct klock *lock)
{
	(void)lock;
}

static inline void kernel_gives(const struct klock *lock)
{
	(void)lock;
}
#endif

/* The calling thread has asked for its number, and the lock is mapped and free. */
static inline bool take_fast(const struct klock *lock)
{
	_Atomic uint64_t *word = word_of(lock);

	return word && klock__tid && take_free(word, me_of(lock));
}

/*
 * Whether the calling thread may run on more than one processor, as it was at its
 * first call, which is when the thread asks who it is, too.
 */
static _Thread_local bool has_cpus __attribute__((tls_model("initial-exec")));

static void meet_thread(void)
{
	klock__tid = klock__gettid();
	has_cpus = klock__cpus() != 1;
}

static inline void pause_cpu(void)
{
#if __has_builtin(__builtin_ia32_pause)
	__builtin_ia32_pause();
#elif __has_builtin(__builtin_arm_isb)
	__builtin_arm_isb(15);
#else
	atomic_signal_fence(memory_order_seq_cst);
#endif
}

/*
 * A holder that runs on another processor may be done before this thread were
 * asleep.  How long to wait for that is learned from what it took before; a lock
 * that spinning did not bring is given less and less of it.  It ends at once where
 * only the kernel can help, and if the holder is the thread itself.
 */
static bool spin(struct klock *lock, _Atomic uint64_t *word)
{
	uint32_t usual = atomic_load_explicit(&lock->spin, memory_order_relaxed);
	uint32_t most = usual * 2 + SPIN_MIN < SPIN_MAX ? usual * 2 + SPIN_MIN : SPIN_MAX;
	uint64_t me = me_of(lock), old;
	uint32_t i, token;

	for (i = 0; i < most; i++) {
		old = atomic_load_explicit(word, memory_order_relaxed);
		token = old & KLOCK_WORD_TOKEN;
		if (!old && take_free(word, me)) {
			usual += ((int32_t)i - (int32_t)usual) / 4;
			atomic_store_explicit(&lock->spin, usual, memory_order_relaxed);
			return true;
		}
		if (old && (!token || token == KLOCK_WORD_NONE || old == me))
			return false;
		pause_cpu();
	}
	atomic_store_explicit(&lock->spin, usual / 2, memory_order_relaxed);
	return false;
}

/* The word is not mapped, not free, or this is the first call of the thread or the child. */
static __attribute__((noinline)) int take(struct klock *lock, uint32_t flags, uint64_t deadline)
{
	struct klock_ioc_lock take = { .id = klock_id(lock), .flags = flags, .deadline = deadline };
	int fd = klock__fd(klock__rest(lock)->space);
	_Atomic uint64_t *word;
	int ret;

	if (fd < 0)
		return fd;
	if (!klock__tid)
		meet_thread();
	if (!word_of(lock))
		klock__map_handle(lock);
	word = word_of(lock);
	if (word && !(flags & KLOCK_LOCK_TRY) && has_cpus && spin(lock, word))
		return 0;
	ret = klock__ioctl(fd, KLOCK_IOC_LOCK, &take);
	if (ret >= 0)
		kernel_took(lock);
	return ret;
}

/* In ns; what is before or after all that the kernel knows is the first or the last of it. */
static uint64_t to_ns(const struct timespec *time)
{
	int64_t seconds = time->tv_sec;		/* which may have 32 bits */

	if (seconds < 0)
		return 0;
	if (seconds >= INT64_MAX / NSEC_PER_SEC)
		return INT64_MAX;
	return (uint64_t)seconds * NSEC_PER_SEC + time->tv_nsec;
}

int klock_lock(struct klock *lock)
{
	return take_fast(lock) ? 0 : take(lock, 0, 0);
}

int klock_trylock(struct klock *lock)
{
	return take_fast(lock) ? 0 : take(lock, KLOCK_LOCK_TRY, 0);
}

int klock_lock_until(struct klock *lock, clockid_t clock, const struct timespec *deadline)
{
	uint32_t flags = KLOCK_LOCK_DEADLINE;

	if (clock == CLOCK_REALTIME)
		flags |= KLOCK_LOCK_REALTIME;
	else if (clock != CLOCK_MONOTONIC)
		return -EINVAL;
	if (!deadline || deadline->tv_nsec < 0 || deadline->tv_nsec >= NSEC_PER_SEC)
		return -EINVAL;
	return take_fast(lock) ? 0 : take(lock, flags, to_ns(deadline));
}

static __attribute__((noinline)) int give(struct klock *lock)
{
	struct klock_ioc_id unlock = { .id = klock_id(lock) };

	kernel_gives(lock);
	return klock__call(klock__rest(lock)->space, KLOCK_IOC_UNLOCK, &unlock);
}

/* Another thread of the client may have locked: then what is swapped is what was found. */
int klock_unlock(struct klock *lock)
{
	_Atomic uint64_t *word = word_of(lock);
	uint64_t old = me_of(lock);

	if (!word)
		return give(lock);
	do {
		if (atomic_compare_exchange_strong_explicit(word, &old, 0, memory_order_release,
							    memory_order_relaxed))
			return 0;
	} while ((uint32_t)old == token_of(lock));
	return give(lock);
}

int klock_break(struct klock_space *space, uint32_t id, uint32_t token)
{
	struct klock_ioc_break victim = { .id = id, .token = token };

	return klock__call(space, KLOCK_IOC_BREAK, &victim);
}
