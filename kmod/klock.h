/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the module share.
 *
 * device.c	the device, the dispatch of the ioctls, the module
 * client.c	clients: attach, rights, tokens, the last close
 * space.c	spaces: their names, making, resizing and removing them
 * map.c	space descriptors, and the words mapped through them
 * quota.c	how many spaces and locks a user may have
 * table.c	the words of a space and which ids are allocated
 * lock.c	the lock itself: the word, lock, unlock, break
 * wait.c	queues of waiters
 * errorcheck.c	threads that hold locks, and cycles of them
 * list.c	who holds and who waits, for people
 * trace.h	what happens, for tools
 *
 * Objects and lifetimes:
 *
 * struct klock_space has a reference count: one for its name, until it is
 * removed, and one for the memory of each attached client.  Its words and their
 * pages live as long, whatever its capacity.
 *
 * struct klock_client is one open file, from the first call on that needs it.  It is
 * attached to a space at most once, for good: client->space is set once and read
 * without a lock.  Others find it by its token in space->clients, under RCU.  It ends
 * with the file; its memory has a reference count: one for the file, one for its
 * space descriptor, which mappings keep.
 *
 * struct klock_queue exists for a lock while somebody waits for it, while an
 * errorcheck thread holds it, or while a call looks at it.  It is found by its
 * id in a bucket of the lock's page and counts its users under the lock of the
 * bucket.  struct klock_waiter lives on the stack of the thread that waits.
 *
 * Lock order, outermost first:
 *
 *	client->attach_mutex	attaching
 *	space->mutex		capacity, ids, clients, removal of one space
 *	klock_spaces_mutex	the tree of names (space.c)
 *	klock_quota_mutex	what users have (quota.c)
 *	queue->mutex		waiters of one lock; never two at a time
 *	klock_chain_mutex	which errorcheck thread waits for which (errorcheck.c)
 *	bucket of a page	a bit spin lock, a leaf
 *
 * The first four are never taken below a queue->mutex.  None of them is held
 * while user memory is touched, and none across the return to user space.  Memory that
 * may be waited for is allocated below the first two alone, and below the second only for
 * the owner of the space: the limits of a memory cgroup can make an allocation take very long.
 */
#ifndef _KLOCK_INTERNAL_H
#define _KLOCK_INTERNAL_H

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/list_bl.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/nospec.h>
#include <linux/pid.h>
#include <linux/rbtree.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/uidgid.h>
#include <linux/xarray.h>

#include <linux/klock.h>

/*
 * Charged to the memory cgroup of the caller, and refused rather than to make
 * the OOM killer look for a victim.
 */
#define KLOCK_GFP (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/*
 * So many times a waiter may be woken in vain, because a running thread took
 * the lock first.  The unlock after that hands it the lock.
 */
#define KLOCK_PASSED_MAX	4

/*
 * So many compare-and-swaps of one word may fail in a row while something is
 * locked, or some times as many in all.  It takes somebody who writes the word
 * without end to get there.
 */
#define KLOCK_TRIES		1000

#define KLOCK_WORDS_PER_PAGE	((u32)(PAGE_SIZE / sizeof(u64)))
#define KLOCK_PAGES_MAX		(KLOCK_CAPACITY_MAX / (PAGE_SIZE / sizeof(u64)))
#define KLOCK_LEVELS		(ilog2(KLOCK_PAGES_MAX) + 1)
#define KLOCK_BUCKETS		8

#define KLOCK_TOKEN_MAX		(KLOCK_WORD_NONE - 1)

/* What a word says of its holder: token and thread id */
#define KLOCK_WHO_MASK		(~(u64)(KLOCK_WORD_DIED | KLOCK_WORD_WAITERS))

/**
 * struct klock_page - a page of words and what belongs to its locks
 * @words: the page itself, one word per lock
 * @queues: queues of these locks, by id; each bucket under its own bit lock
 * @allocated: which ids are allocated; written under space->mutex, each bit or long at
 *	once, for it is read without
 */
struct klock_page {
	atomic64_t *words;
	struct hlist_bl_head queues[KLOCK_BUCKETS];
	DECLARE_BITMAP(allocated, PAGE_SIZE / sizeof(u64));
};

/**
 * struct klock_space - a table of locks
 * @capacity: locks; written under @mutex, released to those who read without
 * @removed: nobody may take or allocate a lock any more; set once, under @mutex.  Who
 *	reads it without, once, may be late: who has taken a lock looks again, and what
 *	only tells of it was true a moment ago
 * @flags: KLOCK_SPACE_MAPPABLE
 * @uid: owner
 * @gid: group
 * @mode: permission bits
 * @generation: random, not 0
 * @level: pages, by the highest bit of their number: what was published is
 *	never moved, so that words are found without a lock while it grows
 * @clients: by token; written under @mutex, read under RCU
 * @name: with @uid, the key in the tree of names
 * @mutex: guards what is marked so, and holds off whoever met a word that says
 *	"no such lock" until the resize or removal that wrote it is done
 * @nr_pages: pages that exist; written under @mutex, released to page faults
 * @allocated: ids that are allocated; written under @mutex, told of without it
 * @nr_clients: attached clients, until they have released all; more only under @mutex
 * @next_token: where the search for the next token starts; @mutex
 * @swept_end: after the first wrap: tokens from @next_token up to here are
 *	neither live nor in any word; @mutex
 * @wrapped: all tokens were given out once; @mutex
 * @full: pages of which all ids are allocated; @mutex
 * @node: in the tree of names; klock_spaces_mutex
 * @charge: what was charged to whom, until the memory is freed; @mutex.  A space counts
 *	with its first locks
 * @ref: see above
 * @waiting: waiting threads
 * @passed: wake-ups that found the lock taken
 * @max_passed: the most that one wait has seen
 * @waits: waits that were begun
 * @waited: locks that were got by waiting
 * @longest_wait: that has ended, in ns
 * @deaths: locks whose holder died
 */
struct klock_space {
	u32 capacity;
	bool removed;
	u32 flags;
	kuid_t uid;
	kgid_t gid;
	umode_t mode;
	u64 generation;
	struct klock_page *level[KLOCK_LEVELS];
	struct xarray clients;
	char name[KLOCK_NAME_SIZE];

	struct mutex mutex ____cacheline_aligned_in_smp;
	u32 nr_pages;
	u32 allocated;
	atomic_t nr_clients;
	u32 next_token;
	u32 swept_end;
	bool wrapped;
	DECLARE_BITMAP(full, KLOCK_PAGES_MAX);
	struct rb_node node;
	struct {
		kuid_t uid;
		u32 locks;
	} charge;
	struct kref ref;
	atomic_t waiting;
	atomic64_t passed;
	atomic64_t max_passed;
	atomic64_t waits;
	atomic64_t waited;
	atomic64_t longest_wait;
	atomic64_t deaths;
};

/**
 * struct klock_client - an open file of the device
 * @space: NULL until it is attached
 * @token: its number in @space
 * @writable: it may do more than look
 * @errorcheck: its threads hold locks, not the client
 * @has_fd: its space descriptor was made
 * @pid: the process that attached, or is about to; not changed once the client has a token
 * @spare: a queue for the next wait, see wait.c
 * @attach_mutex: one thread attaches
 * @ref: see above
 * @rcu: for who found it by its token
 * @touched: pages in which a word can bear its token; never cleared.  A mapping that
 *	outlives the client still sets bits: who takes a lock through it then is dead
 *	already, and whoever wants the lock finds that
 */
struct klock_client {
	struct klock_space *space;
	u32 token;
	bool writable;
	bool errorcheck;
	atomic_t has_fd;
	struct pid *pid;
	struct klock_queue *spare;
	struct mutex attach_mutex;	/* @space is set once */
	struct kref ref;
	struct rcu_head rcu;
	DECLARE_BITMAP(touched, KLOCK_PAGES_MAX);
};

/**
 * struct klock_queue - the waiters of one lock
 * @node: in a bucket of its page; bucket
 * @mutex: guards what follows, and the hand-over of the lock
 * @first: of a ring of waiters, first come, first served; NULL: nobody waits
 * @id: the lock
 * @refs: users; one more is counted by who has none, and the last dropped, under the bucket
 * @nr: how many wait
 * @owner_token: client of @owner
 * @owner: errorcheck thread that holds the lock, which counts only while the
 *	word names @owner_token; written under @mutex and klock_chain_mutex; a
 *	reference on the queue goes with it
 * @held_since: the lock is held at least since then, 0: not known
 */
struct klock_queue {
	struct hlist_bl_node node;
	struct mutex mutex;	/* waiters and hand-over */
	struct klock_waiter *first;
	u32 id;
	atomic_t refs;
	u32 nr;
	u32 owner_token;
	struct pid *owner;
	u64 held_since;
};

enum klock_waiter_state {
	KLOCK_WAITING,
	KLOCK_WOKEN,		/* was woken to look again, and has not yet */
	KLOCK_GRANTED,		/* has the lock, and left the queue */
};

/**
 * struct klock_waiter - a thread that waits
 * @list: in the ring of its queue, if @queued
 * @chain: in the table of errorcheck.c, if @thread; klock_chain_mutex
 * @queue: its queue
 * @space: its space
 * @word: of the lock
 * @task: the thread
 * @thread: the thread, if its client is an errorcheck one
 * @spare: a queue that it brought and that was not needed
 * @who: what the word says when it has the lock: token and thread id
 * @since: of CLOCK_MONOTONIC
 * @waited: so long, in ns, when its wait has ended
 * @passed: how often it was woken and found the lock taken
 * @state: written under queue->mutex; whom it is of reads it without it, too, when it is
 *	about to sleep: what is written is followed by a wake-up
 * @queued: it is in the queue; written under queue->mutex
 * @deadline: its wait ends by itself
 * @died: granted: it is to be told that the last holder died
 */
struct klock_waiter {
	struct list_head list;
	struct hlist_node chain;
	struct klock_queue *queue;
	struct klock_space *space;
	atomic64_t *word;
	struct task_struct *task;
	struct pid *thread;
	struct klock_queue *spare;
	u64 who;
	u64 since;
	u64 waited;
	u32 passed;
	enum klock_waiter_state state;
	bool queued;
	bool deadline;
	bool died;
};

/* How a lock is given up.  The next holder is told of the last two. */
enum klock_end {
	KLOCK_END_UNLOCK,
	KLOCK_END_UNDO,		/* it should not have been taken */
	KLOCK_END_BREAK,
	KLOCK_END_DEATH,	/* no client has the token any more */
};

/* Any struct that an ioctl takes or gives. */
union klock_args {
	struct klock_ioc_api api;
	struct klock_ioc_attach attach;
	struct klock_ioc_space_fd space_fd;
	struct klock_ioc_info info;
	struct klock_ioc_resize resize;
	struct klock_ioc_remove remove;
	struct klock_ioc_spaces spaces;
	struct klock_ioc_allocate allocate;
	struct klock_ioc_id id;
	struct klock_ioc_lock lock;
	struct klock_ioc_break brk;
	struct klock_ioc_status status;
	struct klock_ioc_list list;
};

/* device.c */
extern unsigned int klock_max_capacity;
extern bool klock_pin;
extern unsigned int klock_first_token, klock_last_token;
int klock_copy_result(void __user *to, size_t usize, const void *from, size_t ksize);

/* client.c */
struct klock_client *klock_client_alloc(void);
void klock_client_close(struct klock_client *client);
void klock_client_put(struct klock_client *client);
int klock_attach(struct klock_client *client, const struct klock_ioc_attach *args);
int klock_attach_default(struct klock_client *client);
bool klock_may(const struct klock_space *space, unsigned int want);
bool klock_is_owner(const struct klock_space *space);
int klock_resolve_uid(bool given, u32 uid, kuid_t *kuid);

/* space.c */
bool klock_name_valid(const char *name);
struct klock_space *klock_space_find(kuid_t uid, const char *name);
struct klock_space *klock_space_after(kuid_t uid, const char *name);
struct klock_space *klock_space_alloc(kuid_t uid, const struct klock_ioc_attach *args);
int klock_space_publish(struct klock_space *space, u32 capacity);
void klock_space_put(struct klock_space *space);
int klock_resize(struct klock_space *space, u32 capacity);
int klock_remove(const struct klock_ioc_remove *args);
void klock_spaces_exit(void);

/* map.c */
bool klock_can_map(void);
struct klock_space *klock_space_from_fd(int fd, bool *writable);
long klock_space_fd(struct klock_client *client, struct klock_ioc_space_fd *args,
		    void __user *uarg, size_t usize);

/* quota.c */
int klock_charge(kuid_t uid, u32 spaces, u32 locks);
void klock_uncharge(kuid_t uid, u32 spaces, u32 locks);
kuid_t klock_charged_uid(kuid_t owner);

/* table.c */
int klock_table_grow(struct klock_space *space, u32 capacity);
int klock_table_shrink(struct klock_space *space, u32 capacity);
void klock_table_close(struct klock_space *space);
void klock_table_free(struct klock_space *space);
void klock_table_release(struct klock_space *space, u32 page, u32 first, u32 last);
int klock_allocate(struct klock_space *space, const struct klock_ioc_allocate *args);
int klock_retrieve(struct klock_space *space, const struct klock_ioc_id *args);
int klock_free(struct klock_space *space, u32 id);
int klock_free_all(struct klock_space *space);
void klock_free_all_locked(struct klock_space *space);

/* lock.c */
int klock_lock(struct klock_client *client, const struct klock_ioc_lock *args);
int klock_unlock(struct klock_client *client, u32 id);
int klock_break(struct klock_space *space, const struct klock_ioc_break *args);
int klock_release(struct klock_space *space, u32 id, u64 who, enum klock_end end,
		  struct pid *thread);
int klock_release_locked(struct klock_space *space, struct klock_queue *queue,
			 atomic64_t *word, u64 who, u64 mask, u64 died,
			 struct task_struct **wake);
void klock_note_death(struct klock_space *space, u32 id, u32 token);
int klock_may_go_on(const struct klock_ioc_lock *args);
int klock_settle(struct klock_space *space, const struct klock_ioc_lock *args);
bool klock_bury(atomic64_t *word);
void klock_unbury(atomic64_t *word);
void klock_close_word(struct klock_space *space, u32 id);

/* wait.c */
int klock_queue_cache_init(void);
void klock_queue_cache_exit(void);
struct klock_queue *klock_queue_alloc(void);
void klock_queue_free(struct klock_queue *queue);
void klock_bucket_lock(struct klock_page *page, u32 id);
void klock_bucket_unlock(struct klock_page *page, u32 id);
struct klock_queue *klock_queue_look_up(struct klock_page *page, u32 id);
struct klock_queue *klock_queue_find(struct klock_page *page, u32 id);
void klock_queue_put(struct klock_page *page, struct klock_queue *queue);
void klock_queues_free(struct klock_page *page);
bool klock_waited_above(struct klock_space *space, u32 capacity);
struct task_struct *klock_wake_first(struct klock_queue *queue);
struct task_struct *klock_grant(struct klock_waiter *waiter, bool died);
void klock_wake_all(struct klock_queue *queue);
void klock_wake(struct task_struct *task);
int klock_wait(struct klock_client *client, const struct klock_ioc_lock *args, u64 who);

/* errorcheck.c */
void klock_chain_lock(void);
void klock_chain_unlock(void);
void klock_own(struct klock_waiter *waiter);
void klock_disown(struct klock_queue *queue);
int klock_chain_enter(struct klock_waiter *waiter);
void klock_chain_leave(struct klock_waiter *waiter);

/* list.c */
ktime_t klock_from_timens(u64 ns);
int klock_status(struct klock_client *client, struct klock_ioc_status *status);
long klock_list(struct klock_client *client, const struct klock_ioc_list *args);
long klock_waiters(struct klock_space *space, const struct klock_ioc_list *args);
void klock_info(struct klock_space *space, struct klock_ioc_info *info);
long klock_list_spaces(const struct klock_ioc_spaces *args);
void klock_show_fdinfo(struct seq_file *m, struct file *file);

static inline struct klock_page *klock_page_nr(const struct klock_space *space, u32 nr)
{
	unsigned int level = array_index_nospec(fls(nr), KLOCK_LEVELS);	/* @nr may be the user's */

	return &space->level[level][nr & ~(BIT(level) >> 1)];
}

/* @id must be below a capacity that the caller has seen. */
static inline struct klock_page *klock_page(const struct klock_space *space, u32 id)
{
	return klock_page_nr(space, id / KLOCK_WORDS_PER_PAGE);
}

static inline atomic64_t *klock_word(const struct klock_space *space, u32 id)
{
	return &klock_page(space, id)->words[id % KLOCK_WORDS_PER_PAGE];
}

static inline u32 klock_capacity(const struct klock_space *space)
{
	/* Pairs with the release in klock_table_grow(): what is below has its page. */
	return smp_load_acquire(&space->capacity);
}

/*
 * Whether others than the kernel may write the words: only those who could do
 * the same harm anyway, unless the creator of the space asked for it.
 */
static inline bool klock_mappable(const struct klock_space *space)
{
	return !(space->mode & 022) || space->flags & KLOCK_SPACE_MAPPABLE;
}

/* Before the client can take a lock in page @nr. */
static inline void klock_note_page(struct klock_client *client, u32 nr)
{
	if (!test_bit(nr, client->touched))
		set_bit(nr, client->touched);
}

static inline u32 klock_token(u64 word)
{
	return word & KLOCK_WORD_TOKEN;
}

/*
 * Whether a token that was read from a word is of a live client.  What is not
 * is a holder that died, whose close may be still on its way to this word.
 */
static inline bool klock_alive(struct klock_space *space, u32 token)
{
	return xa_load(&space->clients, token);
}

#endif /* _KLOCK_INTERNAL_H */
