// SPDX-License-Identifier: GPL-2.0-only
/*
 * Spaces: their names, making, resizing and removing them.
 *
 * The tree of names, by uid and name, is under klock_spaces_mutex; a space is
 * in it from its publication until it is removed, and it is a reference.  What
 * happens to one space is under its own mutex, below which a space leaves the
 * tree.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "klock.h"

static DEFINE_MUTEX(klock_spaces_mutex);
static struct rb_root klock_spaces = RB_ROOT;

bool klock_name_valid(const char *name)
{
	size_t len = strnlen(name, KLOCK_NAME_SIZE), i;

	if (!len || len == KLOCK_NAME_SIZE || name[0] == '.')
		return false;
	for (i = 0; i < len; i++) {
		if (!isascii(name[i]) || (!isalnum(name[i]) && !strchr("._-", name[i])))
			return false;
	}
	return true;
}

static int klock_name_cmp(kuid_t uid, const char *name, const struct klock_space *space)
{
	if (!uid_eq(uid, space->uid))
		return uid_lt(uid, space->uid) ? -1 : 1;
	return strcmp(name, space->name);
}

/* The space of that name, or else the next one after it, with a reference. */
static struct klock_space *klock_space_search(kuid_t uid, const char *name, bool after)
{
	struct klock_space *space, *best = NULL;
	struct rb_node *node;
	int cmp;

	mutex_lock(&klock_spaces_mutex);
	for (node = klock_spaces.rb_node; node; ) {
		space = rb_entry(node, struct klock_space, node);
		cmp = klock_name_cmp(uid, name, space);
		if (cmp < 0 ? after : !cmp && !after)
			best = space;
		node = cmp < 0 ? node->rb_left : node->rb_right;
	}
	if (best)
		kref_get(&best->ref);
	mutex_unlock(&klock_spaces_mutex);
	return best;
}

struct klock_space *klock_space_find(kuid_t uid, const char *name)
{
	return klock_space_search(uid, name, false);
}

struct klock_space *klock_space_after(kuid_t uid, const char *name)
{
	return klock_space_search(uid, name, true);
}

/* Not yet published, and without locks, which come with klock_space_publish(). */
struct klock_space *klock_space_alloc(kuid_t uid, const struct klock_ioc_attach *args)
{
	struct klock_space *space = kzalloc(sizeof(*space), KLOCK_GFP);

	if (!space)
		return NULL;
	space->flags = args->space_flags;
	space->uid = uid;
	space->gid = current_egid();
	space->mode = args->mode ?: KLOCK_MODE_DEFAULT;
	space->next_token = klock_first_token;
	space->charge.uid = klock_charged_uid(uid);
	strscpy(space->name, args->name, sizeof(space->name));
	xa_init_flags(&space->clients, XA_FLAGS_ACCOUNT);
	mutex_init(&space->mutex);
	kref_init(&space->ref);
	do {
		space->generation = get_random_u64();
	} while (!space->generation);
	return space;
}

static void klock_space_free(struct kref *ref)
{
	struct klock_space *space = container_of(ref, struct klock_space, ref);

	klock_table_free(space);
	xa_destroy(&space->clients);
	mutex_destroy(&space->mutex);
	if (space->charge.locks)
		klock_uncharge(space->charge.uid, 1, space->charge.locks);
	kfree(space);
}

void klock_space_put(struct klock_space *space)
{
	kref_put(&space->ref, klock_space_free);
}

/* The first locks of a space come with the charge for itself. */
static int klock_grow(struct klock_space *space, u32 capacity)
{
	u32 more = capacity > space->charge.locks ? capacity - space->charge.locks : 0;
	u32 first = !space->charge.locks;
	int ret = klock_charge(space->charge.uid, first, more);

	if (ret)
		return ret;
	ret = klock_table_grow(space, capacity);
	if (ret)
		klock_uncharge(space->charge.uid, first, more);
	else
		space->charge.locks += more;
	return ret;
}

/* -EEXIST: another has the name. */
static int klock_take_name(struct klock_space *space)
{
	struct rb_node **link = &klock_spaces.rb_node, *parent = NULL;
	int cmp = -1;

	mutex_lock(&klock_spaces_mutex);
	while (*link && cmp) {
		parent = *link;
		cmp = klock_name_cmp(space->uid, space->name,
				     rb_entry(parent, struct klock_space, node));
		link = cmp < 0 ? &parent->rb_left : &parent->rb_right;
	}
	if (cmp) {
		rb_link_node(&space->node, parent, link);
		rb_insert_color(&space->node, &klock_spaces);
		kref_get(&space->ref);
	}
	mutex_unlock(&klock_spaces_mutex);
	return cmp ? 0 : -EEXIST;
}

/* Its name was a reference, which is for the caller to drop. */
static void klock_give_up_name(struct klock_space *space)
{
	lockdep_assert_held(&space->mutex);
	mutex_lock(&klock_spaces_mutex);
	rb_erase(&space->node, &klock_spaces);
	mutex_unlock(&klock_spaces_mutex);
}

/*
 * Gives a space its name, then its locks: of two who make the same one the second
 * finds the first one's, waits for its mutex, and is not told of a quota that only the
 * first has used up.  Others wait for nobody, though to allocate may take as long as
 * the limits of a memory cgroup say.
 */
int klock_space_publish(struct klock_space *space, u32 capacity)
{
	int ret;

	mutex_lock(&space->mutex);
	ret = klock_take_name(space);
	if (!ret) {
		ret = klock_grow(space, capacity ?: min(KLOCK_CAPACITY_DEFAULT,
							klock_max_capacity));
		if (ret) {
			WRITE_ONCE(space->removed, true);
			klock_give_up_name(space);
			klock_space_put(space);
		}
	}
	mutex_unlock(&space->mutex);
	return ret;
}

int klock_resize(struct klock_space *space, u32 capacity)
{
	int ret = 0;

	if (!klock_is_owner(space))
		return -EACCES;
	if (mutex_lock_killable(&space->mutex))
		return -EINTR;
	if (space->removed)
		ret = -ESTALE;
	else if (capacity > space->capacity)
		ret = klock_grow(space, capacity);
	else if (capacity < space->capacity)
		ret = klock_table_shrink(space, capacity);
	mutex_unlock(&space->mutex);
	return ret;
}

/*
 * The name is freed last: who attaches by it meanwhile waits for the mutex, so
 * that nobody works in a new space of the name while a word of this one can
 * still be taken.
 */
static int klock_remove_space(struct klock_space *space, bool force)
{
	int ret = 0;

	if (mutex_lock_killable(&space->mutex))
		return -EINTR;
	if (space->removed) {
		ret = -ESTALE;
	} else if (atomic_read(&space->nr_clients) && !force) {
		ret = -EBUSY;
	} else {
		WRITE_ONCE(space->removed, true);
		klock_table_close(space);
		klock_free_all_locked(space);
		klock_give_up_name(space);
	}
	mutex_unlock(&space->mutex);
	if (!ret)
		klock_space_put(space);
	return ret;
}

int klock_remove(const struct klock_ioc_remove *args)
{
	struct klock_space *space;
	kuid_t uid;
	int ret;

	ret = klock_resolve_uid(args->flags & KLOCK_REMOVE_UID, args->uid, &uid);
	if (ret)
		return ret;
	if (!uid_eq(uid, current_euid()) && !capable(CAP_SYS_ADMIN))
		return -EACCES;
	do {
		space = klock_space_find(uid, args->name);
		if (!space)
			return -ENOENT;
		ret = klock_remove_space(space, args->flags & KLOCK_REMOVE_FORCE);
		klock_space_put(space);
		/* Another remove was faster: look again. */
	} while (ret == -ESTALE && !fatal_signal_pending(current));
	return ret;
}

/* The module goes: there are no clients, descriptors or calls any more. */
void klock_spaces_exit(void)
{
	struct klock_space *space, *next;

	rbtree_postorder_for_each_entry_safe(space, next, &klock_spaces, node)
		klock_space_put(space);
}
