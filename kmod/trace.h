/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What happens to locks, for tracefs, perf and BPF; what the events mean is in
 * Documentation/userspace-api/klock.rst.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM klock

#if !defined(_KLOCK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _KLOCK_TRACE_H

#include <linux/tracepoint.h>

#include "klock.h"

/* The lock, and the client that is concerned. */
#define LOCK_ENTRY	__field(u32, uid)			\
			__array(char, space, KLOCK_NAME_SIZE)	\
			__field(u32, id)			\
			__field(u32, token)
#define LOCK_ASSIGN(_space, _id, _token)				\
	do {								\
		const struct klock_space *__space = _space;		\
									\
		__entry->uid = from_kuid(&init_user_ns, __space->uid);	\
		memcpy(__entry->space, __space->name, KLOCK_NAME_SIZE);	\
		__entry->id = _id;					\
		__entry->token = _token;				\
	} while (0)
#define LOCK_PR_FMT	"space=%u/%s id=%u token=%u"
#define LOCK_PR_ARG	__entry->uid, __entry->space, __entry->id, __entry->token

DECLARE_EVENT_CLASS(klock,
	TP_PROTO(const struct klock_space *space, u32 id, u32 token),
	TP_ARGS(space, id, token),
	TP_STRUCT__entry(
		LOCK_ENTRY
	),
	TP_fast_assign(
		LOCK_ASSIGN(space, id, token);
	),
	TP_printk(LOCK_PR_FMT, LOCK_PR_ARG)
);

/* @token unlocked it by a call. */
DEFINE_EVENT(klock, released,
	TP_PROTO(const struct klock_space *space, u32 id, u32 token),
	TP_ARGS(space, id, token)
);

/* @token is not that of a client any more, and had it. */
DEFINE_EVENT(klock, owner_died,
	TP_PROTO(const struct klock_space *space, u32 id, u32 token),
	TP_ARGS(space, id, token)
);

/* The current process took it away from @token. */
DEFINE_EVENT(klock, broken,
	TP_PROTO(const struct klock_space *space, u32 id, u32 token),
	TP_ARGS(space, id, token)
);

/* It was given to @token, who waits for it. */
DEFINE_EVENT(klock, handoff,
	TP_PROTO(const struct klock_space *space, u32 id, u32 token),
	TP_ARGS(space, id, token)
);

/* @token has it by a call, after @waited ns; @died: its last holder died. */
TRACE_EVENT(acquire,
	TP_PROTO(const struct klock_space *space, u32 id, u32 token, u64 waited, bool died),
	TP_ARGS(space, id, token, waited, died),
	TP_STRUCT__entry(
		LOCK_ENTRY
		__field(u64, waited)
		__field(bool, died)
	),
	TP_fast_assign(
		LOCK_ASSIGN(space, id, token);
		__entry->waited = waited;
		__entry->died = died;
	),
	TP_printk(LOCK_PR_FMT " waited=%llu died=%d", LOCK_PR_ARG, __entry->waited, __entry->died)
);

/* @waiter has come into the queue. */
TRACE_EVENT(contended,
	TP_PROTO(const struct klock_waiter *waiter),
	TP_ARGS(waiter),
	TP_STRUCT__entry(
		LOCK_ENTRY
		__field(u32, holder)
	),
	TP_fast_assign(
		LOCK_ASSIGN(waiter->space, waiter->queue->id, klock_token(waiter->who));
		__entry->holder = klock_token(atomic64_read(waiter->word));
	),
	TP_printk(LOCK_PR_FMT " holder=%u", LOCK_PR_ARG, __entry->holder)
);

#endif /* _KLOCK_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
