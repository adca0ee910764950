// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device, the dispatch of its ioctls, and the module.
 *
 * No lock is held here, and none is held in any call while user memory is read
 * or written: arguments are read before a call begins and results are written
 * when it has ended.  What changes something returns its result as the value of
 * the ioctl, so that it cannot happen and then fail to say so.
 *
 * file->private_data is the client of an open file: NULL until the first call that
 * needs one, then set once, by a swap, and read without a lock.
 */
#include <linux/compat.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "klock.h"

unsigned int klock_max_capacity = KLOCK_CAPACITY_MAX;
module_param_named(max_capacity, klock_max_capacity, uint, 0444);
MODULE_PARM_DESC(max_capacity, "locks of one space, at most 1048576 (1048576)");

bool klock_pin;
module_param_named(pin, klock_pin, bool, 0444);
MODULE_PARM_DESC(pin, "keep the module while a space has allocated locks (no)");

unsigned int klock_first_token = 1;
module_param_named(first_token, klock_first_token, uint, 0444);
MODULE_PARM_DESC(first_token, "for tests: token of the first client of a space (1)");

unsigned int klock_last_token = KLOCK_TOKEN_MAX;
module_param_named(last_token, klock_last_token, uint, 0444);
MODULE_PARM_DESC(last_token, "for tests: token after which 1 follows (1073741822)");

/* Writes a result that the caller may know a shorter or a longer form of. */
int klock_copy_result(void __user *to, size_t usize, const void *from, size_t ksize)
{
	size_t size = min(usize, ksize);

	if (copy_to_user(to, from, size) || clear_user(to + size, usize - size))
		return -EFAULT;
	return 0;
}

static bool klock_attach_valid(const struct klock_ioc_attach *args)
{
	const u32 known = KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL | KLOCK_ATTACH_ERRORCHECK |
			  KLOCK_ATTACH_READONLY | KLOCK_ATTACH_UID | KLOCK_ATTACH_FD;
	const u32 by_name = KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL | KLOCK_ATTACH_UID;
	const u32 flags = args->flags;

	if (flags & ~known || args->reserved[0] || args->reserved[1])
		return false;
	if (flags & KLOCK_ATTACH_EXCL && !(flags & KLOCK_ATTACH_CREATE))
		return false;
	if (!(flags & KLOCK_ATTACH_UID) && args->uid)
		return false;
	if (!(flags & KLOCK_ATTACH_FD) && args->space_fd)
		return false;
	if (!(flags & KLOCK_ATTACH_CREATE) &&
	    (args->capacity || args->mode || args->space_flags))
		return false;
	if (args->capacity > klock_max_capacity || args->mode & ~0666 ||
	    args->space_flags & ~KLOCK_SPACE_MAPPABLE)
		return false;
	if (flags & KLOCK_ATTACH_FD)
		return !(flags & by_name) && !args->name[0];
	return klock_name_valid(args->name);
}

static bool klock_lock_valid(const struct klock_ioc_lock *args)
{
	switch (args->flags) {
	case 0:
	case KLOCK_LOCK_TRY:
		return !args->deadline;
	case KLOCK_LOCK_DEADLINE:
	case KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME:
		return args->deadline <= KTIME_MAX;
	default:
		return false;
	}
}

static bool klock_remove_valid(const struct klock_ioc_remove *args)
{
	if (args->flags & ~(KLOCK_REMOVE_FORCE | KLOCK_REMOVE_UID))
		return false;
	return (args->flags & KLOCK_REMOVE_UID || !args->uid) && klock_name_valid(args->name);
}

static bool klock_spaces_valid(const struct klock_ioc_spaces *args)
{
	if (args->flags)
		return false;
	return args->after_name[0] ? klock_name_valid(args->after_name) : !args->after_uid;
}

static bool klock_allocate_valid(const struct klock_ioc_allocate *args)
{
	if (args->flags & ~KLOCK_ALLOCATE_ID)
		return false;
	return args->flags & KLOCK_ALLOCATE_ID || !args->id;
}

/* Whether the struct makes sense, before anything is done for the call. */
static bool klock_args_valid(unsigned int cmd, const union klock_args *args)
{
	switch (cmd) {
	case KLOCK_IOC_ATTACH:
		return klock_attach_valid(&args->attach);
	case KLOCK_IOC_SPACE_FD:
		return !args->space_fd.flags && !args->space_fd.token;
	case KLOCK_IOC_RESIZE:
		return !args->resize.flags && args->resize.capacity &&
		       args->resize.capacity <= klock_max_capacity;
	case KLOCK_IOC_REMOVE:
		return klock_remove_valid(&args->remove);
	case KLOCK_IOC_LIST_SPACES:
		return klock_spaces_valid(&args->spaces);
	case KLOCK_IOC_ALLOCATE:
		return klock_allocate_valid(&args->allocate);
	case KLOCK_IOC_RETRIEVE:
		return !(args->id.flags & ~KLOCK_RETRIEVE_MUST_EXIST);
	case KLOCK_IOC_FREE:
	case KLOCK_IOC_UNLOCK:
		return !args->id.flags;
	case KLOCK_IOC_FREE_ALL:
		return !args->id.flags && !args->id.id;
	case KLOCK_IOC_LOCK:
		return klock_lock_valid(&args->lock);
	case KLOCK_IOC_BREAK:
		return !args->brk.flags && !args->brk.reserved;
	case KLOCK_IOC_STATUS:
		return !memchr_inv(&args->status.flags, 0, sizeof(args->status) -
				   offsetof(struct klock_ioc_status, flags));
	case KLOCK_IOC_LIST:
	case KLOCK_IOC_WAITERS:
		return !args->list.flags;
	default:	/* GET_API and INFO take nothing */
		return true;
	}
}

#define KLOCK_OP_CLIENT	1	/* needs a client, as all that is below does */
#define KLOCK_OP_SPACE	2	/* needs a space: attaches to the default one */
#define KLOCK_OP_WRITE	4	/* needs the right to write */

static const struct klock_op {
	unsigned int cmd;
	unsigned int needs;
} klock_ops[] = {
#define OP(name, what) \
	[_IOC_NR(KLOCK_IOC_##name)] = { .cmd = KLOCK_IOC_##name, .needs = what }
	OP(GET_API, 0),
	OP(ATTACH, KLOCK_OP_CLIENT),
	OP(SPACE_FD, KLOCK_OP_SPACE),
	OP(INFO, KLOCK_OP_SPACE),
	OP(RESIZE, KLOCK_OP_SPACE | KLOCK_OP_WRITE),
	OP(REMOVE, 0),
	OP(LIST_SPACES, 0),
	OP(ALLOCATE, KLOCK_OP_SPACE | KLOCK_OP_WRITE),
	OP(RETRIEVE, KLOCK_OP_SPACE),
	OP(FREE, KLOCK_OP_SPACE | KLOCK_OP_WRITE),
	OP(FREE_ALL, KLOCK_OP_SPACE | KLOCK_OP_WRITE),
	OP(LOCK, KLOCK_OP_SPACE | KLOCK_OP_WRITE),
	OP(UNLOCK, KLOCK_OP_SPACE | KLOCK_OP_WRITE),
	OP(BREAK, KLOCK_OP_SPACE | KLOCK_OP_WRITE),
	OP(STATUS, KLOCK_OP_SPACE),
	OP(LIST, KLOCK_OP_SPACE),
	OP(WAITERS, KLOCK_OP_SPACE),
#undef OP
};

static const struct klock_op *klock_op(unsigned int cmd)
{
	const struct klock_op *op;

	if (_IOC_TYPE(cmd) != KLOCK_IOC_MAGIC || _IOC_NR(cmd) >= ARRAY_SIZE(klock_ops))
		return NULL;
	op = &klock_ops[array_index_nospec(_IOC_NR(cmd), ARRAY_SIZE(klock_ops))];
	return op->cmd && _IOC_DIR(op->cmd) == _IOC_DIR(cmd) ? op : NULL;
}

static int klock_get_api(struct klock_ioc_api *api)
{
	api->version = KLOCK_API_VERSION;
	api->max_capacity = klock_max_capacity;
	api->max_passed = KLOCK_PASSED_MAX;
	api->features = klock_can_map() && !in_compat_syscall() ? KLOCK_FEATURE_MAP : 0;
	return 0;
}

static long klock_call(struct klock_client *client, unsigned int cmd, union klock_args *args,
		       void __user *uarg, size_t usize)
{
	struct klock_space *space = client ? client->space : NULL;

	switch (cmd) {
	case KLOCK_IOC_GET_API:
		return klock_get_api(&args->api);
	case KLOCK_IOC_ATTACH:
		return klock_attach(client, &args->attach);
	case KLOCK_IOC_SPACE_FD:
		return klock_space_fd(client, &args->space_fd, uarg, usize);
	case KLOCK_IOC_INFO:
		klock_info(space, &args->info);
		return 0;
	case KLOCK_IOC_RESIZE:
		return klock_resize(space, args->resize.capacity);
	case KLOCK_IOC_REMOVE:
		return klock_remove(&args->remove);
	case KLOCK_IOC_LIST_SPACES:
		return klock_list_spaces(&args->spaces);
	case KLOCK_IOC_ALLOCATE:
		return klock_allocate(space, &args->allocate);
	case KLOCK_IOC_RETRIEVE:
		return klock_retrieve(space, &args->id);
	case KLOCK_IOC_FREE:
		return klock_free(space, args->id.id);
	case KLOCK_IOC_FREE_ALL:
		return klock_free_all(space);
	case KLOCK_IOC_LOCK:
		return klock_lock(client, &args->lock);
	case KLOCK_IOC_UNLOCK:
		return klock_unlock(client, args->id.id);
	case KLOCK_IOC_BREAK:
		return klock_break(space, &args->brk);
	case KLOCK_IOC_STATUS:
		return klock_status(client, &args->status);
	case KLOCK_IOC_LIST:
		return klock_list(client, &args->list);
	case KLOCK_IOC_WAITERS:
		return klock_waiters(space, &args->list);
	default:
		return -ENOTTY;
	}
}

static struct klock_space *klock_client_space(struct klock_client *client)
{
	/* Pairs with the release in klock_attach(). */
	return smp_load_acquire(&client->space);
}

/*
 * Makes the client with the first call that needs one, not with open(): the memory cgroup
 * of the caller may make that take long, and all misc devices are opened under one mutex.
 * Two threads may try; whoever sees the client sees what it was made of.
 */
static struct klock_client *klock_client_get(struct file *file)
{
	struct klock_client *client = READ_ONCE(file->private_data), *old;

	if (client)
		return client;
	client = klock_client_alloc();
	if (!client)
		return NULL;
	old = cmpxchg(&file->private_data, NULL, client);
	if (!old)
		return client;
	klock_client_close(client);
	return old;
}

static noinline long klock_ioctl_any(struct file *file, unsigned int cmd, void __user *uarg)
{
	const struct klock_op *op = klock_op(cmd);
	size_t usize = _IOC_SIZE(cmd), ksize;
	struct klock_client *client = NULL;
	union klock_args args = {};
	long ret;

	if (!op)
		return -ENOTTY;
	ksize = _IOC_SIZE(op->cmd);
	if (usize < ksize)
		return -EINVAL;
	if (_IOC_DIR(cmd) & _IOC_WRITE) {
		ret = copy_struct_from_user(&args, ksize, uarg, usize);
		if (ret)
			return ret;
	}
	if (!klock_args_valid(op->cmd, &args))
		return -EINVAL;
	if (op->needs) {
		client = klock_client_get(file);
		if (!client)
			return -ENOMEM;
	}
	if (op->needs & KLOCK_OP_SPACE && !klock_client_space(client)) {
		ret = klock_attach_default(client);
		if (ret)
			return ret;
	}
	if (op->needs & KLOCK_OP_WRITE && !client->writable)
		return -EACCES;
	ret = klock_call(client, op->cmd, &args, uarg, usize);
	if (ret < 0 || !(_IOC_DIR(cmd) & _IOC_READ) || op->cmd == KLOCK_IOC_SPACE_FD)
		return ret;
	return klock_copy_result(uarg, usize, &args, ksize) ?: ret;
}

/* What is done most often first, the same in a shorter way. */
static long klock_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct klock_client *client = READ_ONCE(file->private_data);
	void __user *uarg = (void __user *)arg;
	union {
		struct klock_ioc_lock lock;
		struct klock_ioc_id id;
	} args;

	if (unlikely(!client || !klock_client_space(client) || !client->writable))
		return klock_ioctl_any(file, cmd, uarg);
	switch (cmd) {
	case KLOCK_IOC_LOCK:
		if (copy_from_user(&args.lock, uarg, sizeof(args.lock)))
			return -EFAULT;
		if (unlikely(!klock_lock_valid(&args.lock)))
			return -EINVAL;
		return klock_lock(client, &args.lock);
	case KLOCK_IOC_UNLOCK:
		if (copy_from_user(&args.id, uarg, sizeof(args.id)))
			return -EFAULT;
		if (unlikely(args.id.flags))
			return -EINVAL;
		return klock_unlock(client, args.id.id);
	default:
		return klock_ioctl_any(file, cmd, uarg);
	}
}

static int klock_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;	/* until klock_client_get(); the device was there */
	return 0;
}

static int klock_close(struct inode *inode, struct file *file)
{
	if (file->private_data)
		klock_client_close(file->private_data);
	return 0;
}

static const struct file_operations klock_fops = {
	.owner = THIS_MODULE,
	.open = klock_open,
	.release = klock_close,
	.unlocked_ioctl = klock_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = klock_show_fdinfo,
	.llseek = noop_llseek,
};

static struct miscdevice klock_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "klock",
	.fops = &klock_fops,
	.mode = 0666,
};

static int __init klock_init(void)
{
	int ret;

	if (!klock_max_capacity || klock_max_capacity > KLOCK_CAPACITY_MAX ||
	    !klock_first_token || klock_first_token > klock_last_token ||
	    klock_last_token > KLOCK_TOKEN_MAX)
		return -EINVAL;
	ret = klock_queue_cache_init();
	if (ret)
		return ret;
	ret = misc_register(&klock_device);
	if (ret)
		klock_queue_cache_exit();
	return ret;
}

static void __exit klock_exit(void)
{
	misc_deregister(&klock_device);
	klock_spaces_exit();
	rcu_barrier();	/* clients that were freed */
	klock_queue_cache_exit();
}

module_init(klock_init);
module_exit(klock_exit);

MODULE_DESCRIPTION("Multi-process locks that end with their holder");
MODULE_AUTHOR("klock developers");
MODULE_LICENSE("GPL");
