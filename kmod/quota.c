// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many spaces and locks a user, and all users, may have.
 *
 * A user exists here while it has a space.  All is under klock_quota_mutex.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>

#include "klock.h"

struct klock_user {
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
static DEFINE_XARRAY(klock_users);
static struct klock_user klock_all_users;

static bool klock_over_quota(const struct klock_user *user, u32 spaces, u32 locks)
{
	return (spaces && (user->spaces + spaces > READ_ONCE(max_spaces_per_user) ||
			   klock_all_users.spaces + spaces > READ_ONCE(max_spaces))) ||
	       (locks && (user->locks + locks > READ_ONCE(max_locks_per_user) ||
			  klock_all_users.locks + locks > READ_ONCE(max_locks)));
}

static struct klock_user *klock_user(kuid_t uid)
{
	struct klock_user *user = xa_load(&klock_users, __kuid_val(uid));

	if (user)
		return user;
	user = kzalloc(sizeof(*user), KLOCK_GFP);
	if (user && xa_err(xa_store(&klock_users, __kuid_val(uid), user, KLOCK_GFP))) {
		kfree(user);
		return NULL;
	}
	return user;
}

static void klock_user_put(kuid_t uid, struct klock_user *user)
{
	if (user->spaces || user->locks)
		return;
	xa_erase(&klock_users, __kuid_val(uid));
	kfree(user);
}

int klock_charge(kuid_t uid, u32 spaces, u32 locks)
{
	struct klock_user *user;
	int ret = 0;

	mutex_lock(&klock_quota_mutex);
	user = klock_user(uid);
	if (!user) {
		ret = -ENOMEM;
	} else if (klock_over_quota(user, spaces, locks) && !capable(CAP_SYS_RESOURCE)) {
		klock_user_put(uid, user);
		ret = -EDQUOT;
	} else {
		user->spaces += spaces;
		user->locks += locks;
		klock_all_users.spaces += spaces;
		klock_all_users.locks += locks;
	}
	mutex_unlock(&klock_quota_mutex);
	return ret;
}

void klock_uncharge(kuid_t uid, u32 spaces, u32 locks)
{
	struct klock_user *user;

	mutex_lock(&klock_quota_mutex);
	user = xa_load(&klock_users, __kuid_val(uid));
	user->spaces -= spaces;
	user->locks -= locks;
	klock_all_users.spaces -= spaces;
	klock_all_users.locks -= locks;
	klock_user_put(uid, user);
	mutex_unlock(&klock_quota_mutex);
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
