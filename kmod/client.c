// SPDX-License-Identifier: GPL-2.0-only
/*
 * Clients: one for each open file of the device, from the first call on that needs one.
 *
 * client->attach_mutex makes one thread of several attach; once client->space
 * is set it never changes, and what else is set before it neither.
 *
 * A client ends when the last reference to its file goes, be it by close, exit
 * or a signal; a call in progress is a reference, too.  In a process that exits
 * this is done before its parent can see it gone.  Its memory may stay, for its
 * space descriptor.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "klock.h"

/* So many tokens are swept at a time, when all were given out once. */
#define KLOCK_SWEEP	1024

struct klock_client *klock_client_alloc(void)
{
	struct klock_client *client = kzalloc(sizeof(*client), KLOCK_GFP);

	if (!client)
		return NULL;
	client->spare = klock_queue_alloc();
	if (!client->spare) {
		kfree(client);
		return NULL;
	}
	mutex_init(&client->attach_mutex);
	kref_init(&client->ref);
	return client;
}

static void klock_client_free_rcu(struct rcu_head *rcu)
{
	struct klock_client *client = container_of(rcu, struct klock_client, rcu);

	put_pid(client->pid);
	kfree(client);
}

/*
 * Withdraws the token first, then searches the words for it: who reads it in a
 * word from now on knows that the holder died, and who read it before has set
 * the waiters bit before, which is seen here.  Only pages in which it can be
 * are searched.  Allocates nothing and cannot fail.
 */
static void klock_detach(struct klock_client *client, struct klock_space *space)
{
	unsigned long touched;
	u32 i, bit;

	/* Nobody has that number any more, nor gets it before the words were searched for it. */
	xa_cmpxchg(&space->clients, client->token, client, XA_ZERO_ENTRY, 0);
	smp_mb();	/* pairs with klock_look_held(), wait.c */
	for (i = 0; i < ARRAY_SIZE(client->touched); i++) {
		touched = READ_ONCE(client->touched[i]);	/* more may come: see klock.h */
		for_each_set_bit(bit, &touched, BITS_PER_LONG) {
			klock_table_release(space, i * BITS_PER_LONG + bit, client->token,
					    client->token);
			cond_resched();
		}
	}
	xa_erase(&space->clients, client->token);
	smp_mb__before_atomic();	/* who sees it gone sees what it released */
	atomic_dec(&space->nr_clients);
}

static void klock_client_free(struct kref *ref)
{
	struct klock_client *client = container_of(ref, struct klock_client, ref);

	if (client->space)
		klock_space_put(client->space);
	call_rcu(&client->rcu, klock_client_free_rcu);
}

void klock_client_put(struct klock_client *client)
{
	kref_put(&client->ref, klock_client_free);
}

/* The file is gone. */
void klock_client_close(struct klock_client *client)
{
	if (client->space)
		klock_detach(client, client->space);
	klock_queue_free(client->spare);
	mutex_destroy(&client->attach_mutex);
	klock_client_put(client);
}

/* The permission bits that the caller has: 4 to read, 2 to write, as of a file. */
bool klock_may(const struct klock_space *space, unsigned int want)
{
	unsigned int mode = space->mode;

	if (uid_eq(current_euid(), space->uid))
		mode >>= 6;
	else if (in_egroup_p(space->gid))
		mode >>= 3;
	return (mode & want) == want || capable(CAP_SYS_ADMIN);
}

bool klock_is_owner(const struct klock_space *space)
{
	return uid_eq(current_euid(), space->uid) || capable(CAP_SYS_ADMIN);
}

/*
 * The owner that the caller means.  One that has no uid in its user namespace
 * is a stranger like any other: EACCES.
 */
int klock_resolve_uid(bool given, u32 uid, kuid_t *kuid)
{
	if (!given) {
		*kuid = current_euid();
		return 0;
	}
	if (uid == (u32)-1)
		return -EINVAL;
	*kuid = make_kuid(current_user_ns(), uid);
	return uid_valid(*kuid) ? 0 : -EACCES;
}

/*
 * After the first wrap a run of tokens that are not live is searched for in all
 * words, and only then given out: an old one may stand in a word that its client
 * took through a mapping which outlived it.
 */
static u32 klock_swept_token(struct klock_space *space)
{
	unsigned long live;
	u32 nr, last;

	while (space->next_token >= space->swept_end) {
		if (space->next_token > klock_last_token)
			space->next_token = 1;
		last = min_t(u32, space->next_token + KLOCK_SWEEP - 1, klock_last_token);
		live = space->next_token;
		if (xa_find(&space->clients, &live, last, XA_PRESENT))
			last = live - 1;
		if (last < space->next_token) {
			space->next_token++;
			space->swept_end = 0;
			continue;
		}
		for (nr = 0; nr < space->nr_pages; nr++) {
			klock_table_release(space, nr, space->next_token, last);
			cond_resched();
		}
		space->swept_end = last + 1;
	}
	return space->next_token;
}

/* Gives the client its number; what @xas says then is -ENOMEM if memory is needed first. */
static void klock_enter_token(struct klock_space *space, struct klock_client *client,
			      struct xa_state *xas)
{
	bool closing;

	do {
		if (!space->wrapped && space->next_token > klock_last_token)
			space->wrapped = true;
		client->token = space->wrapped ? klock_swept_token(space) : space->next_token;
		xas_set(xas, client->token);
		xas_lock(xas);
		closing = xas_load(xas);	/* its last owner is in klock_detach() */
		if (!closing)
			xas_store(xas, client);
		xas_unlock(xas);
		if (xas_error(xas))
			return;
		space->next_token++;
	} while (closing);
	atomic_inc(&space->nr_clients);
}

/*
 * A reference of the caller goes over to the client, if it succeeds.  Memory is allocated
 * with nothing locked: limits of the caller's memory cgroup may make that take long, and
 * nobody else is to wait for it.
 */
static int klock_join(struct klock_client *client, struct klock_space *space, u32 flags)
{
	XA_STATE(xas, &space->clients, 0);

	do {
		if (mutex_lock_killable(&space->mutex)) {
			xas_set_err(&xas, -EINTR);
			continue;
		}
		if (space->removed && !(flags & KLOCK_ATTACH_FD))
			xas_set_err(&xas, -ESTALE);
		else if (flags & KLOCK_ATTACH_EXCL)
			xas_set_err(&xas, -EEXIST);
		else if (atomic_read(&space->nr_clients) >= klock_last_token)
			xas_set_err(&xas, -ENFILE);	/* no number is left */
		else
			klock_enter_token(space, client, &xas);
		mutex_unlock(&space->mutex);
	} while (xas_nomem(&xas, KLOCK_GFP));	/* also frees what was not needed */
	return xas_error(&xas);
}

static struct klock_space *klock_attach_fd(struct klock_client *client,
					   const struct klock_ioc_attach *args)
{
	struct klock_space *space;
	bool writable;
	int ret;

	space = klock_space_from_fd(args->space_fd, &writable);
	if (IS_ERR(space))
		return space;
	ret = client->writable && !writable ? -EACCES : klock_join(client, space, args->flags);
	if (!ret)
		return space;
	klock_space_put(space);
	return ERR_PTR(ret);
}

/* A space is made with its first client, or not at all.  -EEXIST: another was faster. */
static struct klock_space *klock_attach_new(struct klock_client *client, kuid_t uid,
					    const struct klock_ioc_attach *args)
{
	struct klock_space *space;
	int ret;

	if (!uid_eq(uid, current_euid()) && !capable(CAP_SYS_ADMIN))
		return ERR_PTR(-EACCES);
	if (!(args->flags & KLOCK_ATTACH_CREATE))
		return ERR_PTR(-ENOENT);
	space = klock_space_alloc(uid, args);
	if (!space)
		return ERR_PTR(-ENOMEM);
	ret = klock_join(client, space, 0);
	if (!ret)
		ret = klock_space_publish(space, args->capacity);
	if (!ret)
		return space;
	klock_space_put(space);
	return ERR_PTR(ret);
}

static struct klock_space *klock_attach_old(struct klock_client *client,
					    struct klock_space *space,
					    const struct klock_ioc_attach *args)
{
	bool may = args->flags & KLOCK_ATTACH_EXCL ? klock_is_owner(space) :
						     klock_may(space, client->writable ? 06 : 04);
	int ret = may ? klock_join(client, space, args->flags) : -EACCES;

	if (!ret)
		return space;
	klock_space_put(space);
	return ERR_PTR(ret);
}

static struct klock_space *klock_attach_name(struct klock_client *client,
					     const struct klock_ioc_attach *args)
{
	struct klock_space *old, *space;
	kuid_t uid;
	int ret;

	ret = klock_resolve_uid(args->flags & KLOCK_ATTACH_UID, args->uid, &uid);
	if (ret)
		return ERR_PTR(ret);
	do {
		old = klock_space_find(uid, args->name);
		space = old ? klock_attach_old(client, old, args) :
			      klock_attach_new(client, uid, args);
		/* Removed, or made, since we looked: look again. */
	} while (space == ERR_PTR(old ? -ESTALE : -EEXIST) && !fatal_signal_pending(current));
	return space;
}

/* Returns the capacity of the space. */
int klock_attach(struct klock_client *client, const struct klock_ioc_attach *args)
{
	struct klock_space *space = ERR_PTR(-EBUSY);

	if (mutex_lock_killable(&client->attach_mutex))
		return -EINTR;
	if (!client->space) {
		put_pid(client->pid);	/* of an attempt that failed */
		client->pid = get_pid(task_tgid(current));
		client->writable = !(args->flags & KLOCK_ATTACH_READONLY);
		client->errorcheck = args->flags & KLOCK_ATTACH_ERRORCHECK;
		space = args->flags & KLOCK_ATTACH_FD ? klock_attach_fd(client, args) :
							klock_attach_name(client, args);
	}
	if (!IS_ERR(space)) {
		/* Last: who sees it uses the rest without a lock. */
		smp_store_release(&client->space, space);
	}
	mutex_unlock(&client->attach_mutex);
	return IS_ERR(space) ? PTR_ERR(space) : klock_capacity(space);
}

/* The first call of a client that is not attached; a sibling may be faster. */
int klock_attach_default(struct klock_client *client)
{
	static const struct klock_ioc_attach args = {
		.flags = KLOCK_ATTACH_CREATE,
		.name = "default",
	};
	int ret = klock_attach(client, &args);

	return ret == -EBUSY || ret > 0 ? 0 : ret;
}
