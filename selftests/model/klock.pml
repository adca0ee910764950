/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A model of one lock, for the model checker spin.
 *
 * It is what kmod/lock.c, kmod/wait.c and libklock do with one word, its queue
 * and its space, in the names of the C code.  Three clients lock and unlock for
 * ever, each time in whatever way: by the mapped word or by ioctl.  Each may
 * stop for good at any moment, whether it holds the lock or not, may die, may be
 * interrupted as it waits, and may be killed as it is granted the lock.  Beside
 * them one more process does what its name says, as often as it likes: break the
 * lock, shrink and grow the space, remove it by force (once), close a client
 * whose process goes on using the mapping, or write the waiters bit as a stranger
 * might.  ./check says which of them run when, and has spin search all that can
 * happen.
 *
 * What is proved of every state that can be reached:
 *
 * exclusion	of two clients that got the lock, and have not given it up, one is
 *		dead or was broken (takes())
 * owner died	each death or break that leaves the lock held is told, once: to
 *		the next one that gets the lock, unless a resize forgets it or
 *		the space is removed.  A waiter that is killed as it is granted
 *		the lock passes on what it was to be told (takes())
 * wake-ups	when nothing can happen any more, who still sleeps waits for a
 *		live client that holds the lock, and the word brings that one to
 *		the kernel when it unlocks (monitor()); nobody waits for a mutex
 * barging	no wait is woken in vain more than PASSED_MAX times: the release
 *		after that hands the lock over
 * resize	"no such lock" is answered only when there is none, and never to
 *		one that is in the queue
 * remove	nobody takes the lock after remove has returned, and nobody sleeps
 * failure	a call that failed has left no lock behind; the unlock of one that
 *		has the lock does not fail
 *
 * "Nothing can happen any more" is spin's timeout.  That clients stop for good
 * makes it meet all of it: a state in which somebody sleeps leads to one in which
 * all others have stopped.
 *
 * Steps.  An atomic{} is one step; between two steps anybody else may run.  A
 * step has one access to what others may write at that time: the word, live[],
 * removed, small, whether there is a queue.  More than one are one step where
 * that makes no difference:
 *
 * - a read, the compare-and-swap, and both again if that fails: what counts is
 *   the value that the successful swap replaced.
 * - what is under queue->mutex or the lock of the bucket, which goes with the
 *   access before it, as taking the mutex goes with the one after it.
 * - removed is read together with the word, before a swap of the word: the swap
 *   fails if the word has changed, and removed never goes back.
 * - only one configuration removes.  In the others, what would be two steps for
 *   the sake of removed is one: STEP, ONE_STEP.  FINE is all of them without.
 *
 * Memory is sequentially consistent here, as it is in the code: a successful
 * compare-and-swap is a full barrier, and where a plain store is followed by a
 * load that must not come first, there is an smp_mb().  These places are
 * IN_ORDER; to drop the barrier is to have them REORDERED, in either order.
 *
 * What is left out: thread ids, and errorcheck clients, which never use the word
 * without the mutex; the bounds on hostile writers; that a close searches only
 * pages that its client touched; the reuse of tokens; how a task sleeps until a
 * state changes, which is the kernel's.  The look once a second is there beside
 * stray() only, so that nothing else can rely on it.
 *
 * Mutations.  Each of these makes the model wrong in one place, by -D, and must
 * be rejected; ./check says by which configuration, and what spin has to find.
 *
 * NO_WAITERS_BIT	a waiter does not set the waiters bit
 * LOOK_UP_FIRST	it looks the holder's token up, then sets the bit
 * NO_SECOND_LOOK	it looks at the word, queues, and sleeps
 * TAKER_FORGETS	who takes the lock out of the queue drops the bit of others
 * LEAVER_DROPS_BIT	who leaves the queue drops it, too
 * LEAVER_TELLS_NOBODY	one that was woken and leaves wakes nobody
 * KILLED_KEEPS_LOCK	one that is killed as it is granted the lock has it
 * KILLED_HIDES_DEATH	it passes the lock on, but not that the owner died
 * NO_HAND_OVER		a release always just wakes the first
 * GRANT_FORGETS	a hand-over drops the bit of others
 * UNLOCK_IGNORES_BIT	unlock by ioctl never takes the mutex
 * MAPPED_IGNORES_BIT	unlock by the mapped word looks at the token alone
 * MAPPED_TAKES_DIED	so does lock: it takes a word that says owner died
 * DIED_STAYS		the died bit is cleared neither by lock nor by unlock
 * NO_BUCKET_LOCK	a release without a queue is outside of the bucket's lock
 * SEARCH_FIRST		the last close searches, then withdraws the token
 * NO_BARRIER_CLOSE	it may read the word before it withdraws the token
 * NO_BARRIER_SHRINK	shrink may look for waiters before it swaps the word
 * NO_BARRIER_REMOVE	remove may visit the word before it marks the space
 * NO_BARRIER_WAIT	a waiter may look at the mark before it can be found
 * SHRINK_IGNORES_QUEUE	shrink does not look for waiters
 * SHRINK_FORGETS	a shrink that fails loses that the owner died
 * GROW_WORDS_FIRST	grow opens the words, then moves the capacity
 * NONE_IS_FINAL	"no such lock" is answered without the space's mutex
 * REMOVE_KEEPS_HELD	remove does not set the waiters bit of held words
 * REMOVE_WAKES_NOBODY	nor wakes who waits
 * RELEASE_REOPENS	a release in a removed space leaves the word free
 * BREAK_ANYBODY	break releases whoever holds the lock by then
 * NO_TICK		nobody looks again after a stray write
 */

#ifndef PASSED_MAX
#define PASSED_MAX	2
#endif

/* Which of the clients do that, as bits. */
#ifndef DIES
#define DIES	7
#endif
#ifndef LEAVES			/* interrupted, or killed, as it waits */
#define LEAVES	7
#endif
#define in(set)	(((set) >> (me - 1)) & 1)

/* The word: a token, 1 to 3, and two bits */
#define NONE	7		/* the token of: there is no such lock */
#define TOKEN	7
#define DIED	8
#define WAITERS	16
#define token(w)	((w) & TOKEN)

#define WAITING	0
#define WOKEN	1
#define GRANTED	2

#if defined(REMOVE) || defined(FINE)
#define STEP		}; atomic {
#define ONE_STEP
#else
#define STEP
#define ONE_STEP	atomic
#endif

#define IN_ORDER(store, load)	store; load
#define REORDERED(store, load)	if :: store; load :: load; store fi

byte word;
bool live[4];			/* clients by token; 0 is none */
bool small;			/* the capacity is so that there is no such lock */
bool removed;
bool space_mutex;		/* space->mutex: somebody holds it */

bool bucket;			/* the bit lock: somebody holds it */
byte refs;			/* of the queue; 0: there is none */
byte mutex;			/* queue->mutex: who holds it */
chan queue = [3] of { byte };	/* who waits, by token */
#define IS_FIRST	queue?[eval(me)]

byte state[4];			/* waiter->state */
byte passed[4];			/* waiter->passed */
bool died[4];			/* waiter->died */

/* What is true, whatever the word says. */
byte holder;			/* who has the lock, live, and was not broken */
bool owed;			/* somebody went away with it, and nobody was told */
bool over;			/* remove has returned */
byte vain[4];			/* how often a wait was woken, and found the lock taken */

#ifdef CLOSE
bool closed;			/* client 1 has no descriptor any more */
bool in_call;			/* a call of it is in progress */
#define enter_ioctl	if :: me == 1 && closed -> goto end :: else -> in_call = (in_call || me == 1) fi
#define leave_ioctl	in_call = (in_call && me != 1)
#else
#define enter_ioctl	skip
#define leave_ioctl	skip
#endif

#ifdef STRAY
bool tick;			/* the first waiter is due to look again */
#else
#define tick	false
#endif

/* The word names @who now, who is or will be told that it has the lock. */
inline takes(who, told)
{
	assert(!holder);
	assert((told) == owed);
	assert(!over);
	holder = who;
	owed = false
}

/* @who has no lock any more. */
inline loses(who, owes)
{
	if
	:: holder == who -> holder = 0; owed = owes
	:: else
	fi
}

/* A free word says "no such lock". */
inline klock_bury()
{
	if
	:: token(word) == 0 -> word = NONE | (word & DIED)
	:: else
	fi
}

inline klock_wake_first()
{
	if
	:: len(queue) > 0 ->
		queue?<first>;
		if
		:: state[first] == WAITING -> state[first] = WOKEN
		:: else
		fi;
		first = 0
	:: else
	fi
}

/* The word frees @who: what comes instead, and who is woken; part of a step. */
inline klock_swap(who, mark, has_queue, owes)
{
	loses(who, owes);
	if
	:: has_queue && len(queue) > 0 -> queue?<first>
	:: else
	fi;
	if
#ifndef RELEASE_REOPENS
	:: gone -> word = NONE
#endif
#ifndef NO_HAND_OVER
	:: !gone && first && passed[first] >= PASSED_MAX ->
		queue?_;	/* klock_grant() */
		died[first] = ((mark) != 0);
		state[first] = GRANTED;
#ifdef GRANT_FORGETS
		word = first;
#else
		word = first | (len(queue) > 0 -> WAITERS : 0);
#endif
		takes(first, died[first])
#endif
	:: else -> word = mark
	fi;
	if
	:: first && state[first] == WAITING -> state[first] = WOKEN
	:: else
	fi;
	first = 0
}

/*
 * Gives up the lock if the word says @who.  @mark is DIED if the next one is to
 * be told so, and @owes is whether that is true.
 */
inline klock_release_locked(who, mark, has_queue, owes)
{
	do
	:: atomic { token(word) != who -> break }
	:: atomic {
		token(word) == who ->
		old = word;
		gone = removed;
		STEP
		if
		:: word == old -> klock_swap(who, mark, has_queue, owes)
		:: else -> old = 0
		fi;
		gone = false;
		STEP
		if
		:: !old
#ifndef RELEASE_REOPENS
		:: old && removed -> old = 0; klock_bury(); break
#endif
		:: else -> old = 0; break
		fi
	   }
	od
}

inline klock_release(who, mark, owes)
{
	if
#ifdef NO_BUCKET_LOCK
	:: atomic { refs == 0 && !bucket };
	   klock_release_locked(who, mark, false, owes)
#else
	:: ONE_STEP {
		atomic { refs == 0 && !bucket -> bucket = true };
		klock_release_locked(who, mark, false, owes);
		bucket = false
	   }
#endif
	:: atomic { refs > 0 && !bucket -> refs++ };
	   ONE_STEP {
		atomic { mutex == 0 -> mutex = me };
		klock_release_locked(who, mark, true, owes);
		mutex = 0
	   };
	   klock_queue_put()
	fi
}

inline klock_queue_put()
{
	atomic { !bucket -> refs-- }
}

inline withdraw(who)
{
	atomic {
		live[who] = false;
		loses(who, true)
	}
}

/* The last close: the token is withdrawn, then the word is searched for it. */
inline klock_detach(who)
{
#if defined(NO_BARRIER_CLOSE)
	REORDERED(withdraw(who), tok = token(word));
#elif defined(SEARCH_FIRST)
	tok = token(word);
#else
	IN_ORDER(withdraw(who), tok = token(word));
#endif
	if
	:: tok == who -> klock_release(who, DIED, true)
	:: else
	fi;
#ifdef SEARCH_FIRST
	withdraw(who);
#endif
	tok = 0
}

/*
 * The word said "no such lock": who wrote that has the mutex, and has made up
 * its mind when we get it.  Leaves in @gone whether there is no lock.
 */
inline klock_settle()
{
#ifdef NONE_IS_FINAL
	gone = true;
#else
	!space_mutex ->
	gone = (removed || small);
#endif
	assert(!gone || removed || (small && !queued))
}

proctype client(byte me)
{
	byte tok;		/* whom the word names */
	byte old, first;
	bool queued;
	bool signal;		/* one ends the wait whatever happens */
	bool gone;
#ifdef NO_BARRIER_WAIT
	bool early;		/* removed, as it was read too early */
#define REMOVED_SEEN	early
#else
#define REMOVED_SEEN	removed
#endif

idle:
	atomic {
		leave_ioctl;
		if
		:: goto lock
		:: in(DIES) -> goto dies
		:: goto end
		fi
	};

	/*
	 * In user space: klock_lock().  The ioctl is for whoever finds the word
	 * taken, but nobody needs to look first.
	 */
lock:
	if
	:: atomic {
#ifdef MAPPED_TAKES_DIED
		token(word) == 0 ->
#else
		word == 0 ->
#endif
		word = me;
		if
		:: live[me] -> takes(me, false)
		:: else -> owed = true	/* it is dead, and takes what it cannot keep */
		fi;
		goto holds
	   }
	:: atomic {
		enter_ioctl;
		if
		:: removed || small -> goto idle
		:: else
		fi
	   }
	fi;

klock_try:
	atomic {
		if
		:: token(word) == 0 ->
			takes(me, (word & DIED) != 0);
#ifdef DIED_STAYS
			word = me | (word & (WAITERS | DIED))
#else
			word = me | (word & WAITERS)
#endif
		:: else -> tok = token(word)
		fi;
		STEP
		if
		:: !tok && !removed -> goto holds
		:: !tok && removed -> goto klock_undo
		:: tok
		fi
	};

klock_try_again:
	if
	:: atomic {
		tok == NONE ->
		tok = 0;
		klock_settle();
		if
		:: gone -> gone = false; goto idle
		:: else -> goto klock_try
		fi
	   }
	:: atomic { tok != NONE && live[tok] -> tok = 0; goto klock_wait }
	:: tok != NONE && !live[tok] ->
		klock_release(tok, DIED, false);
		atomic { tok = 0; goto klock_try }
	fi;

klock_undo:
	klock_release(me, 0, false);
	goto idle;

klock_wait:
#ifdef NO_BARRIER_WAIT
	REORDERED(atomic { !bucket -> refs++ }, early = removed);
#else
	atomic { !bucket -> refs++ };
#endif

	/*
	 * Takes the lock if it can be had.  Each time but the first the waiter is
	 * in the queue, is the first there, and sets the waiters bit.
	 */
klock_look:
	atomic {
		mutex == 0 || mutex == me ->
		mutex = me;
		if
		:: state[me] == GRANTED -> goto granted
		:: state[me] != GRANTED && REMOVED_SEEN -> goto klock_leave
		:: else
		fi;
		STEP
		if
		:: token(word) == NONE -> mutex = 0; tok = NONE
		:: token(word) == 0 ->
			takes(me, (word & DIED) != 0);
#ifdef TAKER_FORGETS
			word = me
#else
			word = me | (len(queue) > queued -> WAITERS : 0)
#endif
		:: else ->
			tok = token(word);
#if !defined(NO_WAITERS_BIT) && !defined(LOOK_UP_FIRST)
			if
			:: queued -> word = word | WAITERS
			:: else
			fi;
#endif
#ifdef STRAY
			tick = (tick && !IS_FIRST)
#endif
		fi;
		STEP
		if
		:: !tok && !removed -> goto taken
		:: !tok && removed -> goto undo_locked
		:: tok
		fi
	};

	if
	:: tok == NONE ->
		atomic {
			tok = 0;
			klock_settle();
			if
			:: gone -> gone = false
			:: else -> goto klock_look
			fi
		}
	:: tok == NONE && in(LEAVES) -> tok = 0	/* killed as it waits for that mutex */
	:: tok != NONE && !live[tok] ->
		ONE_STEP {
			klock_release_locked(tok, DIED, true, false);
			tok = 0
		};
		goto klock_look
	:: atomic {
		tok != NONE && live[tok] ->
#ifdef LOOK_UP_FIRST
	   };
	   atomic {
		if
		:: queued && token(word) == tok -> word = word | WAITERS
		:: queued && token(word) != tok -> tok = 0; goto klock_look
		:: else
		fi;
#endif
		tok = 0;
		if
		:: !queued ->
			queue!me;
			queued = true;
			if
			:: in(LEAVES) -> goto klock_leave
#ifdef NO_SECOND_LOOK
			:: true
#else
			:: IS_FIRST -> goto klock_look
			:: !IS_FIRST
#endif
			fi
		:: queued && state[me] == WOKEN ->
			state[me] = WAITING;
#ifdef STRAY
			passed[me] = (passed[me] < PASSED_MAX -> passed[me] + 1 : PASSED_MAX)
#else
			passed[me]++;
			vain[me]++;
			assert(vain[me] <= PASSED_MAX)
#endif
		:: else
		fi;
		if
		:: signal -> goto klock_leave
		:: else
		fi;
		if
		:: in(LEAVES) -> signal = true
		:: skip
		fi;
		mutex = 0;
		goto end_sleep
	   }
	fi;

	/* klock_settle() has failed. */
	atomic {
		mutex == 0 ->
		mutex = me;
		if
		:: state[me] == GRANTED -> goto granted
		:: else -> goto klock_leave
		fi
	};

end_sleep:
	signal || state[me] != WAITING || (tick && IS_FIRST);
	atomic {
		mutex == 0 ->
		mutex = me;
#ifdef NO_BARRIER_WAIT
		early = removed;
#endif
		if
		:: signal && state[me] != GRANTED -> goto klock_leave	/* a fatal one */
		:: state[me] != WAITING || IS_FIRST -> goto klock_look
		:: else -> goto klock_leave
		fi
	};

	/* It took the lock while the space was removed. */
undo_locked:
	klock_release_locked(me, 0, true, false);

klock_leave:
	atomic {
		if
		:: queued -> queue??eval(me)
		:: else -> goto put
		fi;
#ifdef LEAVER_DROPS_BIT
		goto last;
#endif
		if
		:: len(queue) == 0 -> goto last
		:: else -> old = word
		fi;
		if
#ifdef LEAVER_TELLS_NOBODY
		:: true -> goto put
#else
		:: state[me] == WOKEN || !(old & WAITERS) || token(old) == NONE ->
			klock_wake_first();
			goto put
#endif
		:: else -> tok = token(old)
		fi
	};
	atomic {
		if
		:: live[tok]
		:: else -> klock_wake_first()
		fi;
		goto put
	};
last:
	atomic {
		old = word;
		gone = removed;
		STEP
		if
		:: gone || !(old & WAITERS)
		:: !gone && (old & WAITERS) && word == old -> word = word & ~WAITERS
		:: !gone && (old & WAITERS) && word != old -> goto last
		fi;
		goto put
	};

	/* klock_wait_end(): it has the lock, unless it is being killed. */
granted:
	if
	:: goto taken
	:: in(LEAVES) ->
#if defined(KILLED_HIDES_DEATH)
		klock_release_locked(me, 0, true, died[me]);
#elif !defined(KILLED_KEEPS_LOCK)
		klock_release_locked(me, (died[me] -> DIED : 0), true, died[me]);
#endif
		goto put
	fi;

taken:
	atomic {
		if
		:: queued && state[me] != GRANTED -> queue??eval(me)
		:: else
		fi;
		queued = false; signal = false;
		state[me] = WAITING; passed[me] = 0; vain[me] = 0; died[me] = false;
		mutex = 0
	};
	klock_queue_put();
	goto holds;

put:
	atomic {
		assert(holder != me);
		queued = false; signal = false; gone = false; tok = 0; old = 0;
		state[me] = WAITING; passed[me] = 0; vain[me] = 0; died[me] = false;
		mutex = 0
	};
	klock_queue_put();
	goto idle;

	/* It has the lock, unless that was broken. */
holds:
	atomic {
		leave_ioctl;
		if
		:: goto unlock
		:: in(DIES) -> goto dies
		:: goto end
		fi
	};

	/* In user space: klock_unlock() */
unlock:
	if
	:: atomic {
#ifdef MAPPED_IGNORES_BIT
		token(word) == me ->
#else
		word == me ->
#endif
		word = 0;
		owed = (owed && live[me]);
		loses(me, false);
		goto idle
	   }
	:: atomic {
		enter_ioctl;
		assert(!small || holder != me)
	   }
	fi;

klock_unlock:
	atomic {
		if
		:: token(word) != me -> assert(holder != me); goto idle
#ifndef UNLOCK_IGNORES_BIT
		:: token(word) == me && (word & WAITERS) -> goto unlock_waiters
#endif
		:: else ->
#ifdef DIED_STAYS
			word = word & DIED;
#else
			word = 0;
#endif
			loses(me, false)
		fi;
		STEP
		if
		:: removed -> klock_bury()
		:: else
		fi;
		goto idle
	};
unlock_waiters:
	klock_release(me, 0, false);
	assert(holder != me);
	goto idle;

dies:
	klock_detach(me);
end:	skip
}

#ifdef CLOSE
/*
 * Client 1 is closed by another thread of its process, which goes on with the
 * mapping.  (DIES is to be without it.)
 */
proctype closer()
{
	byte me = 4, old, first, tok;
	bool gone;

	if
	:: closed = true
	:: goto end
	fi;
end_call:
	!in_call;
	klock_detach(1);
end:	skip
}
#endif

#ifdef BREAK
proctype breaker()
{
	byte me = 4, old, first, tok;
	bool gone;

	do
	:: break
	:: tok = token(word);
		if
		:: tok && tok != NONE && live[tok] ->
#ifdef BREAK_ANYBODY
			atomic { tok = token(word); loses(tok, false); word = DIED; owed = true }
#else
			klock_release(tok, DIED, true)
#endif
		:: else
		fi;
		tok = 0
	od
}
#endif

#ifdef RESIZE
inline klock_table_grow()
{
#ifdef GROW_WORDS_FIRST
	word = 0;
	small = false
#else
	small = false;
	word = 0
#endif
}

/* Also fails because of another lock, which is not shown. */
inline klock_table_shrink()
{
	tok = token(word);
	if
	:: tok && tok != NONE && !live[tok] -> klock_release(tok, DIED, false)
	:: else
	fi;
	tok = 0;
#ifdef NO_BARRIER_SHRINK
	REORDERED(atomic { klock_bury() }, found = (refs > 0));
#else
	IN_ORDER(atomic { klock_bury() }, found = (refs > 0));
#endif
	if	/* klock_waited_above() */
	:: atomic { found && mutex == 0 -> found = (len(queue) > 0) }
	:: !found
	fi;
	if
#ifdef SHRINK_IGNORES_QUEUE
	:: atomic { token(word) == NONE ->
#else
	:: atomic { token(word) == NONE && !found ->
#endif
		small = true;
		owed = false
	   }
	:: atomic { token(word) == NONE -> 	/* klock_unbury() */
#ifdef SHRINK_FORGETS
		word = 0
#else
		word = word & DIED
#endif
	   }
	:: token(word) != NONE
	fi;
	found = false
}

proctype resizer()
{
	byte me = 4, old, first, tok;
	bool gone, found;

	do
	:: break
	:: atomic { !space_mutex -> space_mutex = true };
		if
		:: removed
		:: !removed && small -> klock_table_grow()
		:: !removed && !small -> klock_table_shrink()
		fi;
		space_mutex = false
	od
}
#endif

#ifdef REMOVE
/* Who makes a queue after it was looked for here sees that the space is removed. */
inline klock_close_word()
{
	if
	:: atomic { refs > 0 && !bucket -> refs++; found = true };
	   atomic { mutex == 0 -> mutex = me }
	:: refs == 0
	fi;
	do
	:: atomic { token(word) == 0 || token(word) == NONE -> klock_bury(); break }
	:: atomic { token(word) != 0 && token(word) != NONE -> old = word };
		tok = token(old);
		if
		:: !live[tok] ->
			old = 0;
			klock_release_locked(tok, DIED, found, false)
		:: atomic {
			live[tok] ->
			if
			:: (old & WAITERS) -> break
#ifdef REMOVE_KEEPS_HELD
			:: else -> break
#else
			:: !(old & WAITERS) && word == old -> word = word | WAITERS; break
			:: else
#endif
			fi
		   }
		fi
	od;
	tok = 0;
	old = 0;
	if
	:: found ->
		atomic {
#ifndef REMOVE_WAKES_NOBODY
			for (first : 1 .. 3) {	/* klock_wake_all() */
				if
				:: queue??[eval(first)] -> state[first] = WOKEN
				:: else
				fi
			}
#endif
			first = 0;
			mutex = 0
		};
		klock_queue_put()
	:: else
	fi
}

proctype remover()
{
	byte me = 4, old, first, tok;
	bool gone, found;

	atomic { !space_mutex -> space_mutex = true };
#ifdef NO_BARRIER_REMOVE
	REORDERED(removed = true, klock_close_word());
#else
	IN_ORDER(removed = true, klock_close_word());
#endif
	atomic { space_mutex = false; over = true }
}
#endif

#ifdef STRAY
proctype stray()
{
	do
	:: break
	:: atomic {
		word = word ^ WAITERS;
#ifndef NO_TICK
		tick = true
#endif
	   }
	od
}
#endif

/* When nothing can happen any more */
proctype monitor()
{
	byte tok;

	atomic {
		timeout ->
		tok = token(word);
		assert(refs == len(queue));
		assert(len(queue) == 0 || (tok && tok != NONE && live[tok] && (word & WAITERS)));
		assert(len(queue) == 0 || !removed);
		assert(!removed || tok == NONE || (word & WAITERS));
		assert(tok == 0 || tok == NONE || !live[tok] || holder == tok)
	}
}

init {
	atomic {
		live[1] = true; live[2] = true; live[3] = true;
		run client(1);
		run client(2);
		run client(3);
#ifdef CLOSE
		run closer();
#endif
#ifdef BREAK
		run breaker();
#endif
#ifdef RESIZE
		run resizer();
#endif
#ifdef REMOVE
		run remover();
#endif
#ifdef STRAY
		run stray();
#endif
		run monitor()
	}
}
