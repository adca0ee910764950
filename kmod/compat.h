/* SPDX-License-Identifier: GPL-2.0-only */
/* What kernels before the newest call otherwise, or have not. */
#ifndef _KLOCK_COMPAT_H
#define _KLOCK_COMPAT_H

#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_mod(struct vm_area_struct *vma, unsigned long set, unsigned long clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define hrtimer_setup_sleeper_on_stack hrtimer_init_sleeper_on_stack
#endif

#endif /* _KLOCK_COMPAT_H */
