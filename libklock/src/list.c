// SPDX-License-Identifier: LGPL-2.1-or-later
/* What locks are like, and who waits for them. */
#include "internal.h"

/* Entries go straight from the kernel to the caller. */
#define SAME(struct_name, theirs, ours)							\
	static_assert(offsetof(struct klock_ioc_##struct_name, theirs) ==		\
		       offsetof(struct klock_##struct_name, ours) &&			\
		       sizeof(((struct klock_ioc_##struct_name *)0)->theirs) ==		\
		       sizeof(((struct klock_##struct_name *)0)->ours), #ours)
SAME(status, id, id);
SAME(status, flags, flags);
SAME(status, pid, pid);
SAME(status, tid, tid);
SAME(status, waiters, waiters);
SAME(status, token, token);
SAME(status, held_since, held_since);
SAME(status, waiting_since, waiting_since);
SAME(status, reserved, reserved2);
static_assert(sizeof(struct klock_ioc_status) == sizeof(struct klock_status), "status");
static_assert(KLOCK_ALLOCATED == KLOCK_STATUS_ALLOCATED, "ALLOCATED");
static_assert(KLOCK_HELD == KLOCK_STATUS_HELD, "HELD");
static_assert(KLOCK_DIED == KLOCK_STATUS_DIED, "DIED");
static_assert(KLOCK_MINE == KLOCK_STATUS_MINE, "MINE");

SAME(waiter, pid, pid);
SAME(waiter, tid, tid);
SAME(waiter, since, since);
static_assert(sizeof(struct klock_ioc_waiter) == sizeof(struct klock_waiter), "waiter");

int klock_status(struct klock *lock, struct klock_status *status)
{
	struct klock_status now = { .id = klock_id(lock) };
	int ret = klock__call(klock__rest(lock)->space, KLOCK_IOC_STATUS, &now);

	if (!ret)
		*status = now;
	return ret;
}

int klock_list(struct klock_space *space, uint32_t first, struct klock_status *status, uint32_t n)
{
	struct klock_ioc_list list = {
		.entries = (uintptr_t)status,
		.count = n,
		.entry_size = sizeof(*status),
		.id = first,
	};

	return klock__call(space, KLOCK_IOC_LIST, &list);
}

int klock_waiters(struct klock *lock, struct klock_waiter *waiter, uint32_t n)
{
	struct klock_ioc_list list = {
		.entries = (uintptr_t)waiter,
		.count = n,
		.entry_size = sizeof(*waiter),
		.id = klock_id(lock),
	};

	return klock__call(klock__rest(lock)->space, KLOCK_IOC_WAITERS, &list);
}
