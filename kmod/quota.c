// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many spaces and locks a user, and all users, may have.
 *
 * A user exists here while it has a space.  All is under klock_quota_mutex, which is
 * everybody's: nothing is allocated under it.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/hashtable.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "klock.h"

struct klock_user {
	struct hlist_node node;
	kuid_t uid;
	u64 spaces;
	u64 locks;
};

static unsigned int max_spaces = 8192;
module_param(max_spaces, uint, 0644);
MODULE_PARM_DESC(max_spaces, "spaces of all users (8192)");

static unsigned int max_locks = 1U << 24;
module_param(max_locks, uint, 0644);
MODULE_PARM_DESC(max_locks, "locks of all users (16777216)");

static unsigned int max_spaces_per_user = 128;
module_param(max_spaces_per_user, uint, 0644);
MODULE_PARM_DESC(max_spaces_per_user, "spaces of one user (128)");

static unsigned int max_locks_per_user = 1U << 21;
module_param(max_locks_per_user, uint, 0644);
MODULE_PARM_DESC(max_locks_per_user, "locks of one user (2097152)");

static DEFINE_MUTEX(klock_quota_mutex);
static DEFINE_HASHTABLE(klock_users, 8);
static struct klock_user klock_all_users;

/* The limits may be written meanwhile: each is read once, the old or the new one. */
static bool klock_over_quota(const struct klock_user *user, u32 spaces, u32 locks)
{
	return (spaces && (user->spaces + spaces > READ_ONCE(max_spaces_per_user) ||
			   klock_all_users.spaces + spaces > READ_ONCE(max_spaces))) ||
	       (locks && (user->locks + locks > READ_ONCE(max_locks_per_user) ||
			  klock_all_users.locks + locks > READ_ONCE(max_locks)));
}

static struct klock_user *klock_find_user(kuid_t uid)
{
	struct klock_user *user;

	hash_for_each_possible(klock_users, user, node, __kuid_val(uid)) {
		if (uid_eq(user->uid, uid))
			return user;
	}
	return NULL;
}

/* What is left to be freed, with nothing locked. */
static struct klock_user *klock_forget_user(struct klock_user *user)
{
	if (user->spaces || user->locks)
		return NULL;
	hash_del(&user->node);
	return user;
}

int klock_charge(kuid_t uid, u32 spaces, u32 locks)
{
	struct klock_user *spare = kzalloc(sizeof(*spare), KLOCK_GFP), *user;
	int ret = 0;

	if (!spare)
		return -ENOMEM;
	mutex_lock(&klock_quota_mutex);
	user = klock_find_user(uid);
	if (!user) {
		user = spare;
		user->uid = uid;
		hash_add(klock_users, &user->node, __kuid_val(uid));
		spare = NULL;
	}
	if (klock_over_quota(user, spaces, locks) && !capable(CAP_SYS_RESOURCE)) {
		spare = klock_forget_user(user) ?: spare;
		ret = -EDQUOT;
	} else {
		user->spaces += spaces;
		user->locks += locks;
		klock_all_users.spaces += spaces;
		klock_all_users.locks += locks;
	}
	mutex_unlock(&klock_quota_mutex);
	kfree(spare);
	return ret;
}

void klock_uncharge(kuid_t uid, u32 spaces, u32 locks)
{
	struct klock_user *user;

	mutex_lock(&klock_quota_mutex);
	user = klock_find_user(uid);
	user->spaces -= spaces;
	user->locks -= locks;
	klock_all_users.spaces -= spaces;
	klock_all_users.locks -= locks;
	user = klock_forget_user(user);
	mutex_unlock(&klock_quota_mutex);
	kfree(user);
}

/*
 * Who pays for a space of @owner that is made now.  Inside of a user namespace,
 * where anyone may have 65536 uids, it is who made the outermost one.
 */
kuid_t klock_charged_uid(kuid_t owner)
{
	struct user_namespace *ns = current_user_ns();

	if (ns == &init_user_ns)
		return owner;
	while (ns->parent != &init_user_ns)
		ns = ns->parent;
	return ns->owner;
}
