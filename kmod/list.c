// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who holds and who waits, for people.
 *
 * What is told of one lock is read at one moment where it has a queue, under
 * queue->mutex; a whole list is not of one moment.  Nothing is locked while the
 * result is copied to user memory.
 *
 * A holder is found by its token under RCU, which keeps its struct klock_client
 * and with it its struct pid.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/proc_fs.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/time_namespace.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/user_namespace.h>

#include "klock.h"

/* Statuses that are copied to the user at a time. */
#define KLOCK_LIST_CHUNK	(PAGE_SIZE / sizeof(struct klock_ioc_status))

/* Entries of a line in fdinfo, at most. */
#define KLOCK_FDINFO_MAX	256

/* What CLOCK_MONOTONIC of the caller is ahead of the system's, in ns. */
static s64 klock_timens_offset(void)
{
	if (!IS_ENABLED(CONFIG_TIME_NS))
		return 0;
	return timespec64_to_ns(&current->nsproxy->time_ns->offsets.monotonic);
}

static u64 klock_to_timens(u64 ns)
{
	return ns ? ns + klock_timens_offset() : 0;
}

ktime_t klock_from_timens(u64 ns)
{
	s64 offset = klock_timens_offset();

	if (offset > 0 && ns < offset)
		return 0;
	if (offset < 0 && ns > KTIME_MAX + offset)
		return KTIME_MAX;
	return ns - offset;
}

/* A number in the caller's pid namespace, of one that is alive; else 0. */
static u32 klock_pid_nr(struct pid *pid, enum pid_type type)
{
	return pid && pid_task(pid, type) ? pid_vnr(pid) : 0;
}

/*
 * The thread that the word names, as the client's pid namespace sees it.  It is
 * only a hint, so it counts only if it is a thread of the process that attached.
 */
static u32 klock_tid_nr(const struct klock_client *holder, u64 word)
{
	struct pid_namespace *ns = ns_of_pid(holder->pid);
	struct pid *pid = ns ? find_pid_ns(word >> KLOCK_WORD_TID_SHIFT, ns) : NULL;
	struct task_struct *task = pid ? pid_task(pid, PIDTYPE_PID) : NULL;

	return task && task_tgid(task) == holder->pid ? pid_vnr(pid) : 0;
}

static void klock_status_holder(struct klock_client *client, struct klock_queue *queue, u64 word,
				struct klock_ioc_status *status)
{
	struct klock_client *holder;
	u32 token = klock_token(word);

	rcu_read_lock();
	holder = xa_load(&client->space->clients, token);
	if (!holder) {
		status->flags |= KLOCK_STATUS_DIED;
		goto unlock;
	}
	status->flags |= KLOCK_STATUS_HELD | (holder == client ? KLOCK_STATUS_MINE : 0);
	status->token = token;
	status->pid = klock_pid_nr(holder->pid, PIDTYPE_TGID);
	if (queue && queue->owner && queue->owner_token == token)
		status->tid = klock_pid_nr(queue->owner, PIDTYPE_PID);
	else
		status->tid = klock_tid_nr(holder, word);
	if (queue)
		status->held_since = klock_to_timens(queue->held_since);
unlock:
	rcu_read_unlock();
}

static void klock_status_fill(struct klock_client *client, u32 id, struct klock_ioc_status *status)
{
	struct klock_space *space = client->space;
	struct klock_page *page = klock_page(space, id);
	struct klock_queue *queue = klock_queue_find(page, id);
	u64 word;

	memset(status, 0, sizeof(*status));
	status->id = id;
	if (queue)
		mutex_lock(&queue->mutex);
	if (test_bit(id % KLOCK_WORDS_PER_PAGE, page->allocated))
		status->flags |= KLOCK_STATUS_ALLOCATED;
	word = atomic64_read(klock_word(space, id));
	if (klock_token(word) && klock_token(word) != KLOCK_WORD_NONE)
		klock_status_holder(client, queue, word, status);
	else if (word & KLOCK_WORD_DIED && !READ_ONCE(space->removed))
		status->flags |= KLOCK_STATUS_DIED;
	if (queue) {
		status->waiters = queue->nr;
		if (queue->nr)
			status->waiting_since =
				klock_to_timens(queue->first->since);
		mutex_unlock(&queue->mutex);
		klock_queue_put(page, queue);
	}
}

int klock_status(struct klock_client *client, struct klock_ioc_status *status)
{
	if (status->id >= klock_capacity(client->space))
		return -EINVAL;
	klock_status_fill(client, status->id, status);
	return 0;
}

/* Copies one entry of an array whose entries may be longer than ours. */
static int klock_copy_entry(u64 entries, u32 index, u32 size, const void *from, size_t ksize)
{
	return klock_copy_result(u64_to_user_ptr(entries + (u64)index * size), size, from, ksize);
}

/* Fills a chunk from *@id on, and moves *@id on. */
static u32 klock_list_chunk(struct klock_client *client, struct klock_ioc_status *chunk,
			    u32 room, u32 *id)
{
	struct klock_space *space = client->space;
	u32 capacity = klock_capacity(space);
	struct klock_page *page;
	u32 n = 0;

	for (; *id < capacity && n < room; (*id)++) {
		u32 i = *id % KLOCK_WORDS_PER_PAGE;

		if (!i)
			cond_resched();
		page = klock_page(space, *id);
		if (!atomic64_read(&page->words[i]) && !test_bit(i, page->allocated) &&
		    hlist_bl_empty(&page->queues[*id % KLOCK_BUCKETS]))
			continue;
		klock_status_fill(client, *id, &chunk[n]);
		if (chunk[n].flags || chunk[n].waiters)
			n++;
	}
	return n;
}

long klock_list(struct klock_client *client, const struct klock_ioc_list *args)
{
	struct klock_ioc_status *chunk;
	u32 id = args->id, done = 0, n, i;
	long ret = 0;

	if (args->entry_size < sizeof(*chunk))
		return -EINVAL;
	if (args->entry_size > PAGE_SIZE)
		return -E2BIG;
	chunk = kmalloc_array(KLOCK_LIST_CHUNK, sizeof(*chunk), KLOCK_GFP);
	if (!chunk)
		return -ENOMEM;
	while (!ret && done < args->count) {
		n = klock_list_chunk(client, chunk,
				     min_t(u32, KLOCK_LIST_CHUNK, args->count - done), &id);
		if (!n)
			break;
		for (i = 0; i < n && !ret; i++)
			ret = klock_copy_entry(args->entries, done++, args->entry_size, &chunk[i],
					       sizeof(*chunk));
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
	}
	kfree(chunk);
	return ret ?: done;
}

static u32 klock_waiters_fill(struct klock_space *space, u32 id, struct klock_ioc_waiter *to,
			      u32 room)
{
	struct klock_page *page = klock_page(space, id);
	struct klock_queue *queue = klock_queue_find(page, id);
	struct klock_waiter *waiter;
	u32 n;

	if (!queue)
		return 0;
	mutex_lock(&queue->mutex);
	waiter = queue->first;
	for (n = 0; n < queue->nr && n < room; n++, waiter = list_next_entry(waiter, list)) {
		to[n].pid = task_tgid_nr_ns(waiter->task, NULL);
		to[n].tid = task_pid_nr_ns(waiter->task, NULL);
		to[n].since = klock_to_timens(waiter->since);
	}
	mutex_unlock(&queue->mutex);
	klock_queue_put(page, queue);
	return n;
}

long klock_waiters(struct klock_space *space, const struct klock_ioc_list *args)
{
	u32 room = min_t(u32, args->count, atomic_read(&space->waiting));
	struct klock_ioc_waiter *waiters;
	u32 n, i;
	int ret = 0;

	if (args->id >= klock_capacity(space) || args->entry_size < sizeof(*waiters))
		return -EINVAL;
	if (args->entry_size > PAGE_SIZE)
		return -E2BIG;
	if (!room)
		return 0;
	waiters = kvmalloc_array(room, sizeof(*waiters), KLOCK_GFP);
	if (!waiters)
		return -ENOMEM;
	n = klock_waiters_fill(space, args->id, waiters, room);
	for (i = 0; i < n && !ret; i++)
		ret = fatal_signal_pending(current) ? -EINTR :
		      klock_copy_entry(args->entries, i, args->entry_size, &waiters[i],
				       sizeof(*waiters));
	kvfree(waiters);
	return ret ?: n;
}

static u32 klock_count_held(struct klock_space *space)
{
	u32 capacity = klock_capacity(space);
	u32 id, token, held = 0;

	for (id = 0; id < capacity; id++) {
		token = klock_token(atomic64_read(klock_word(space, id)));
		if (token && token != KLOCK_WORD_NONE && klock_alive(space, token))
			held++;
		if (id % KLOCK_WORDS_PER_PAGE == 0)
			cond_resched();
	}
	return held;
}

void klock_info(struct klock_space *space, struct klock_ioc_info *info)
{
	memset(info, 0, sizeof(*info));
	info->capacity = klock_capacity(space);
	info->allocated = READ_ONCE(space->allocated);
	info->held = klock_count_held(space);
	info->waiting = atomic_read(&space->waiting);
	info->clients = atomic_read(&space->nr_clients);
	info->uid = from_kuid_munged(current_user_ns(), space->uid);
	info->gid = from_kgid_munged(current_user_ns(), space->gid);
	info->mode = space->mode;
	info->flags = space->flags | (READ_ONCE(space->removed) ? KLOCK_SPACE_REMOVED : 0);
	info->generation = space->generation;
	info->passed = atomic64_read(&space->passed);
	info->max_passed = atomic64_read(&space->max_passed);
	info->waits = atomic64_read(&space->waits);
	info->waited = atomic64_read(&space->waited);
	info->longest_wait = atomic64_read(&space->longest_wait);
	info->deaths = atomic64_read(&space->deaths);
	strscpy(info->name, space->name, sizeof(info->name));
}

/* Whether the caller may see the space, and could name it.  One that is made has no locks yet. */
static bool klock_listed(struct klock_space *space)
{
	return klock_capacity(space) && !READ_ONCE(space->removed) && klock_may(space, 04) &&
	       kuid_has_mapping(current_user_ns(), space->uid);
}

long klock_list_spaces(const struct klock_ioc_spaces *args)
{
	struct klock_space *space, *next;
	struct klock_ioc_info info;
	kuid_t uid = KUIDT_INIT(0);
	u32 done = 0;
	long ret = 0;

	if (args->entry_size < sizeof(info))
		return -EINVAL;
	if (args->entry_size > PAGE_SIZE)
		return -E2BIG;
	if (args->after_name[0]) {
		uid = make_kuid(current_user_ns(), args->after_uid);
		if (!uid_valid(uid))
			return -EINVAL;
	}
	if (!args->count)
		return 0;
	space = klock_space_after(uid, args->after_name);
	while (space) {
		if (klock_listed(space)) {
			klock_info(space, &info);
			ret = klock_copy_entry(args->entries, done++, args->entry_size, &info,
					       sizeof(info));
		}
		if (ret || done == args->count || fatal_signal_pending(current))
			break;
		next = klock_space_after(space->uid, space->name);
		klock_space_put(space);
		space = next;
	}
	if (space)
		klock_space_put(space);
	return ret ?: done;
}

/* Locks that the client has, of page @nr of its space; @n were shown before. */
static u32 klock_show_held(struct seq_file *m, const struct klock_client *client, u32 nr, u32 n)
{
	atomic64_t *words = klock_page_nr(client->space, nr)->words;
	u32 i;

	for (i = 0; i < KLOCK_WORDS_PER_PAGE; i++) {
		if (klock_token(atomic64_read(&words[i])) != client->token)
			continue;
		if (n++ < KLOCK_FDINFO_MAX)
			seq_printf(m, "%s%u", n > 1 ? " " : "", nr * KLOCK_WORDS_PER_PAGE + i);
	}
	return n;
}

/* The same: threads of the client in the queue of a lock.  Writing to @m locks nothing. */
static u32 klock_show_queue(struct seq_file *m, const struct klock_client *client,
			    const struct klock_queue *queue, u32 n)
{
	struct pid_namespace *ns = proc_pid_ns(file_inode(m->file)->i_sb);
	struct klock_waiter *waiter = queue->first;
	u32 i;

	lockdep_assert_held(&queue->mutex);
	for (i = 0; i < queue->nr; i++, waiter = list_next_entry(waiter, list)) {
		if (klock_token(waiter->who) != client->token)
			continue;
		if (n++ < KLOCK_FDINFO_MAX)
			seq_printf(m, "%s%u:%d", n > 1 ? " " : "", queue->id,
				   task_pid_nr_ns(waiter->task, ns));
	}
	return n;
}

static u32 klock_show_waits(struct seq_file *m, const struct klock_client *client, u32 nr, u32 n)
{
	struct klock_page *page = klock_page_nr(client->space, nr);
	struct klock_queue *queue;
	u32 i;

	for (i = 0; i < KLOCK_WORDS_PER_PAGE; i++) {
		queue = klock_queue_find(page, nr * KLOCK_WORDS_PER_PAGE + i);
		if (!queue)
			continue;
		mutex_lock(&queue->mutex);
		n = klock_show_queue(m, client, queue, n);
		mutex_unlock(&queue->mutex);
		klock_queue_put(page, queue);
	}
	return n;
}

/* A line of what @show finds in the pages that the client has touched; how much that was. */
static u32 klock_show_line(struct seq_file *m, const struct klock_client *client, const char *name,
			   u32 (*show)(struct seq_file *m, const struct klock_client *client,
				       u32 nr, u32 n))
{
	u32 pages = smp_load_acquire(&client->space->nr_pages);	/* as klock_map_fault() */
	u32 nr, n = 0;

	seq_printf(m, "%s:\t", name);
	for (nr = 0; nr < pages; nr++) {
		if (!test_bit(nr, client->touched))
			continue;
		n = show(m, client, nr, n);
		cond_resched();
	}
	seq_puts(m, n > KLOCK_FDINFO_MAX ? " ...\n" : "\n");
	return n;
}

/* /proc/PID/fdinfo of a client, which lives as long as this runs, if it has been made yet. */
void klock_show_fdinfo(struct seq_file *m, struct file *file)
{
	const struct klock_client *client = READ_ONCE(file->private_data);
	/* Pairs with the release in klock_attach(). */
	struct klock_space *space = client ? smp_load_acquire(&client->space) : NULL;
	u32 held;

	if (!space) {
		seq_puts(m, "klock-space:\t-\n");
		return;
	}
	seq_printf(m, "klock-space:\t%u/%s\n", from_kuid_munged(seq_user_ns(m), space->uid),
		   space->name);
	seq_printf(m, "klock-generation:\t%016llx\n", space->generation);
	seq_printf(m, "klock-token:\t%u\n", client->token);
	seq_printf(m, "klock-mode:\t%s%s\n", client->errorcheck ? "errorcheck" : "normal",
		   client->writable ? "" : " readonly");
	held = klock_show_line(m, client, "klock-locks", klock_show_held);
	seq_printf(m, "klock-held:\t%u\n", held);
	klock_show_line(m, client, "klock-waits", klock_show_waits);
}
