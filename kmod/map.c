// SPDX-License-Identifier: GPL-2.0-only
/*
 * Space descriptors, and the words mapped through them.
 *
 * A client makes one space descriptor.  It keeps the space (and, by its file
 * operations, the module) and the memory of the client, but not the client: a
 * mapping that outlives its client is harmless, for a token of no live client in
 * a word is a dead holder to whoever meets it.
 *
 * A mapping is as long as the largest table.  Pages are found when they are
 * touched, those of a space that has grown since, too; none is ever taken away,
 * so nothing is unmapped, and there is no need to find who has mapped it.
 *
 * No lock is taken here: pages of a space are only added, before nr_pages says
 * so, and a client's notes of its pages are only set.
 */
#include <linux/anon_inodes.h>
#include <linux/compat.h>
#include <linux/file.h>
#include <linux/module.h>

#include <asm/shmparam.h>

#include "compat.h"
#include "klock.h"

/*
 * Compare-and-swaps of the kernel and of user space must exclude each other, and
 * see the same memory: 64 bits on both sides, and no data cache with aliases.
 */
bool klock_can_map(void)
{
	return IS_ENABLED(CONFIG_64BIT) && SHMLBA == PAGE_SIZE;
}

/*
 * The close of the client searches the page from now on.  One that is already
 * closed searches no more: what is written then heals as any dead token does.
 */
static vm_fault_t klock_map_fault(struct vm_fault *vmf)
{
	struct klock_client *client = vmf->vma->vm_file->private_data;
	struct klock_space *space = client->space;
	atomic64_t *words;

	/* Pairs with the release in klock_table_grow(). */
	if (vmf->pgoff >= smp_load_acquire(&space->nr_pages))
		return VM_FAULT_SIGBUS;
	klock_note_page(client, vmf->pgoff);
	words = klock_page_nr(space, vmf->pgoff)->words;
	return vmf_insert_pfn(vmf->vma, vmf->address, page_to_pfn(virt_to_page(words)));
}

static const struct vm_operations_struct klock_map_ops = {
	.fault = klock_map_fault,
};

/*
 * VM_IO, for madvise() could undo VM_DONTCOPY otherwise: a child that inherited
 * the mapping would write its parent's token.  VM_PFNMAP, for what is mapped so
 * cannot be pinned: a pipe, say, would keep it when the space, and what it counts in
 * its user's quota, is gone.
 */
static int klock_map(struct file *file, struct vm_area_struct *vma)
{
	const struct klock_client *client = file->private_data;

	if (!klock_can_map() || in_compat_syscall())
		return -EOPNOTSUPP;
	if (!client->writable || !klock_mappable(client->space))
		return -EACCES;
	if (!(vma->vm_flags & VM_SHARED) || vma->vm_flags & VM_EXEC ||
	    vma->vm_pgoff + vma_pages(vma) > KLOCK_PAGES_MAX)
		return -EINVAL;
	vm_flags_mod(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY,
		     VM_MAYEXEC);
	vma->vm_ops = &klock_map_ops;
	return 0;
}

static int klock_space_file_release(struct inode *inode, struct file *file)
{
	klock_client_put(file->private_data);
	return 0;
}

static const struct file_operations klock_space_fops = {
	.owner = THIS_MODULE,
	.release = klock_space_file_release,
	.mmap = klock_map,
	.llseek = noop_llseek,
};

/* The space of a space descriptor, with a reference, and the rights it gives. */
struct klock_space *klock_space_from_fd(int fd, bool *writable)
{
	struct klock_space *space = ERR_PTR(-EINVAL);
	struct klock_client *client;
	struct file *file = fget(fd);

	if (!file)
		return ERR_PTR(-EBADF);
	if (file->f_op == &klock_space_fops) {
		client = file->private_data;
		space = client->space;
		kref_get(&space->ref);
		*writable = client->writable;
	}
	fput(file);
	return space;
}

/* The token is told before the descriptor is there for all to see. */
long klock_space_fd(struct klock_client *client, struct klock_ioc_space_fd *args,
		    void __user *uarg, size_t usize)
{
	struct file *file;
	int fd, ret;

	if (atomic_xchg(&client->has_fd, 1))
		return -EBUSY;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		ret = fd;
		goto out;
	}
	file = anon_inode_getfile("[klock_space]", &klock_space_fops, client, O_RDWR | O_CLOEXEC);
	if (IS_ERR(file)) {
		ret = PTR_ERR(file);
		goto out_fd;
	}
	kref_get(&client->ref);
	args->token = client->token;
	ret = klock_copy_result(uarg, usize, args, sizeof(*args));
	if (ret)
		goto out_file;
	fd_install(fd, file);
	return fd;

out_file:
	fput(file);
out_fd:
	put_unused_fd(fd);
out:
	atomic_set(&client->has_fd, 0);
	return ret;
}
