// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Torture: processes with threads lock, unlock, die and do all else that can be
 * done to locks, at random, and an oracle in shared memory knows what must come of it.
 *
 * usage: torture [--seed N] [--seconds N] [--case N]
 *
 * Actors.  A case has a supervisor, workers (threads, THREADS of each of PROCESSES)
 * and for each worker a child that it may fork.  What a worker does in its n-th step
 * depends on the seed, its number and n alone; a process that was killed is made
 * anew and goes on with the step after.  The supervisor kills, stops and signals
 * workers, replaces those that died, and watches that each step comes to its end.
 *
 * The oracle.  Whoever has got a lock notes its ticket (its number, and how often it
 * was made anew) as the lock's holder, and takes the note away before it unlocks.
 * So there is somebody to blame in each note, and whoever comes next judges what it
 * finds against what it was told: see judge().  Between a call and its note is a
 * window in which an actor may die.  It says what it is about to do (its intent)
 * before the call, and who dies is marked (doomed) before it is killed; so one who is
 * told of a death that no note explains finds an intent that does, and uses it up.
 *
 * Two integers beside each note are written with no ordering at all, right after the
 * lock was taken and right before it is given up: they differ while it is held.
 *
 * Quiet points.  Some times a second all stop where they are: between two steps, or
 * in a wait for a lock whose holder has stopped.  Then what klock tells of spaces,
 * locks and waiters must be what the oracle says.  Then all locks are given up, while
 * some are killed and interrupted, so that nobody comes who would wake up a waiter that
 * was forgotten; and the supervisor takes each of them.
 */
#include "klock_test.h"

#include <getopt.h>
#include <stdarg.h>
#include <sys/random.h>

#define PROCESSES	6
#define THREADS		2
#define WORKERS		(PROCESSES * THREADS)
#define SUPERVISOR	(2 * WORKERS)	/* its number; before it the workers and their children */
#define ACTORS		(SUPERVISOR + 1)

#define SPACES		2
#define WORLDS		64	/* spaces that had one name since the last quiet point */
#define LOCKS		32
#define FIRST_ID	496	/* half of them are in one page of words, half in the next */
#define SHAKY		24	/* from this lock on resizing may take them away */
#define CAPACITY	1024
#define HELD_MAX	3

/* So long nothing takes. */
#define HANG		(30 * NSEC_PER_SEC * patience())
#define QUIET_EVERY	(150 * NSEC_PER_MSEC)

#define ENOUGH		(4U * slowness())	/* seconds, for what a case is about to happen */

/*
 * So often nobody is seen to sleep beside a free lock: who has freed it is about to wake him.
 * Where words are mapped it must be less than a second, after which he looks by himself.
 */
#define ASLEEP		200

enum kind {		/* of client */
	MAPPED,
	BY_IOCTL,
	ERRORCHECK,
	KINDS
};

/* What a case consists of; frequencies are in so many of 1000 steps. */
struct mixture {
	const char *name;
	unsigned int kinds;	/* of private clients, bits */
	bool mappable;
	bool shared;		/* clients that all threads of a process use */
	bool cycles;		/* waits in any order: EDEADLK must end them */
	bool volatile_space;	/* the second space may be removed at any time */
	unsigned int breaks, resizes, removals;
};

static const struct mixture mixtures[] = {
	{
		.name = "normal clients by ioctl",
		.kinds = 1 << BY_IOCTL,
		.shared = true,
	}, {
		.name = "normal clients, mapped and by ioctl",
		.kinds = 1 << BY_IOCTL | 1 << MAPPED,
		.mappable = true,
		.shared = true,
	}, {
		.name = "errorcheck clients that wait in cycles",
		.kinds = 1 << ERRORCHECK,
		.cycles = true,
	}, {
		.name = "both modes, and breaks",
		.kinds = 1 << BY_IOCTL | 1 << MAPPED | 1 << ERRORCHECK,
		.mappable = true,
		.breaks = 40,
	}, {
		.name = "resizes",
		.kinds = 1 << BY_IOCTL | 1 << ERRORCHECK,
		.shared = true,
		.resizes = 30,
	}, {
		.name = "removals",
		.kinds = 1 << BY_IOCTL | 1 << MAPPED,
		.mappable = true,
		.volatile_space = true,
		.removals = 5,
	}, {
		.name = "everything",
		.kinds = 1 << BY_IOCTL | 1 << MAPPED | 1 << ERRORCHECK,
		.mappable = true,
		.shared = true,
		.volatile_space = true,
		.breaks = 20,
		.resizes = 15,
		.removals = 3,
	},
};

/* Something that is done from time to time: what overlaps it may see its effect. */
struct times {
	atomic_uint begun, done;
};

/* What the oracle knows of a lock. */
struct truth {
	atomic_uint holder;		/* ticket; 0: nobody, or in a window */
	atomic_uint maybe;		/* actors that died in a window, and are buried */
	atomic_uint broken;		/* breaks that nobody was told of yet */
	atomic_uint breaks;		/* begun, in all */
	atomic_uint gate;		/* ticket: who breaks or notes it; see enter_gate() */
	atomic_uint takes;
	atomic_uint resizes_done;	/* when it was taken */
	atomic_uint guarded[2];		/* the same, unless somebody holds the lock */
};

/* A space, from its making until it is removed. */
struct world {
	_Atomic uint64_t generation;	/* 0: this entry is free */
	atomic_uint birth;		/* removals done before it was made */
	atomic_bool removed;		/* for certain */
	atomic_uint leaks;		/* ids that died with an actor, perhaps allocated */
	atomic_uint told;		/* how often one was told that the last holder died */
	atomic_uint untold;		/* or may have been, and died before he told us */
	struct klock_space_info last;	/* at the last quiet point; the supervisor's */
	struct times resizes;
	struct truth lock[LOCKS];
	atomic_uchar allocated[CAPACITY];
};

/* All spaces of one name */
struct place {
	char name[KLOCK_NAME_SIZE];
	bool may_go;
	struct times removals;
	struct world world[WORLDS];
};

enum intent {
	NOTHING,
	WAIT,		/* to take a lock, for as long as it takes */
	TRY,		/* to take a lock, perhaps until a deadline */
	GIVE,
	RESIZE,
	REMOVE,
	ALLOCATE,	/* or free */
};

/* What an actor is about to do, and to what */
#define INTENT(kind, s, w, i)	((kind) << 24 | (s) << 16 | (w) << 8 | (i))
#define INTENT_KIND(intent)	((intent) >> 24)
#define INTENT_SPACE(intent)	((intent) >> 16 & 0xff)
#define INTENT_WORLD(intent)	((intent) >> 8 & 0xff)
#define INTENT_LOCK(intent)	((intent) & 0xff)

enum count { STEPS, TAKEN, TOLD, LATE, CYCLES, BROKEN, CLOSED, FORKED, RESIZED, REMOVED, COUNTS };
static const char *const count_name[COUNTS] = {
	"steps", "locks taken", "told of a death", "deadlines met", "cycles found", "evicted",
	"clients closed", "forks", "resizes", "removals",
};

struct actor {
	atomic_int pid, tid;
	atomic_bool doomed;		/* it will die, or is dead and not buried */
	atomic_bool busy;		/* a child: there is one, or is about to be */
	atomic_bool forking;		/* it waits for its child */
	atomic_uint parked;		/* the phase in which it has stopped */
	atomic_uint intent;
	struct truth *_Atomic at_gate;
	struct world *_Atomic client[SPACES];	/* private ones */
	atomic_uint life[SPACES];	/* of its client, counted from 1 */
	atomic_uint dead[SPACES];	/* lives up to here are over */
	_Atomic uint64_t step, since;
	unsigned int asleep;		/* so often seen beside a free lock */
	unsigned long count[COUNTS];
};

struct arena {
	uint64_t seed;
	uint64_t max_passed;		/* of all waits, as the spaces tell it */
	const struct mixture *mix;
	atomic_uint phase;		/* RUN, or who comes between two steps stops */
	atomic_uint failed;
	char message[512];
	atomic_int process[PROCESSES];	/* pid; 0: there is none now */
	struct world *_Atomic shared[PROCESSES][SPACES];
	struct actor actor[ACTORS];
	struct place place[SPACES];
};

enum phase { RUN, STOP, LET_GO };

static struct arena *arena;

struct client {
	struct klock_space *space;	/* NULL: not open */
	struct world *world;
	enum kind kind;
	bool shared;
	struct klock *lock[LOCKS];
};

/* What an actor knows of itself. */
struct me {
	struct actor *actor;
	unsigned int nr;
	bool child;
	int floor;			/* it waits for no lock up to this one */
	struct client *client[SPACES];
	struct client own[SPACES];
	unsigned int nr_held;
	struct held {
		unsigned int s, i;
		unsigned int breaks;	/* of the lock, when it was taken */
	} held[HELD_MAX];
	uint64_t rng;
};

static struct client shared_client[SPACES];	/* of this process */

static uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t rng_of(uint64_t nr, uint64_t step)
{
	return mix64(mix64(arena->seed ^ nr << 48) + step);
}

static unsigned int draw(uint64_t *rng, unsigned int n)
{
	*rng = mix64(*rng);
	return (*rng >> 32) % n;
}

static void give_up(void) __attribute__((noreturn));

/* What is wrong; only the first word counts.  The supervisor sees it, and ends the case. */
static void __attribute__((format(printf, 2, 3), noreturn))
fail(const struct me *me, const char *format, ...)
{
	va_list args;

	if (!atomic_exchange(&arena->failed, 1)) {
		int n = snprintf(arena->message, sizeof(arena->message), "actor %u, step %ju: ",
				 me->nr, (uintmax_t)me->actor->step);

		va_start(args, format);
		vsnprintf(arena->message + n, sizeof(arena->message) - n, format, args);
		va_end(args);
		arena->failed = 2;
	}
	if (me->nr == SUPERVISOR)
		give_up();
	for (;;)
		pause();
}

#define MUST(me, cond, ...) do {	\
	if (!(cond))			\
		fail(me, __VA_ARGS__);	\
} while (0)

/*
 * The oracle
 */

static unsigned int ticket(const struct me *me, unsigned int s)
{
	return (me->nr + 1) | me->actor->life[s] << 8;
}

static unsigned int actor_of(unsigned int ticket)
{
	return (ticket & 0xff) - 1;
}

/* In this order: who is buried has no lives left before it is not doomed any more. */
static bool is_dead(unsigned int s, unsigned int ticket)
{
	struct actor *actor = &arena->actor[actor_of(ticket)];

	return actor->doomed || actor->dead[s] >= ticket >> 8;
}

static bool use_up(atomic_uint *n)
{
	unsigned int old = *n;

	while (old)
		if (atomic_compare_exchange_weak(n, &old, old - 1))
			return true;
	return false;
}

static unsigned int intent_of(unsigned int kind, unsigned int s, const struct world *world,
			      unsigned int i)
{
	return INTENT(kind, s, (unsigned int)(world - arena->place[s].world), i);
}

static struct world *world_of(unsigned int intent)
{
	return &arena->place[INTENT_SPACE(intent)].world[INTENT_WORLD(intent)];
}

static bool in_window(unsigned int intent)
{
	return INTENT_KIND(intent) >= WAIT && INTENT_KIND(intent) <= GIVE;
}

/* Whether somebody may have died as the holder of a lock without a note of it. */
static bool explained(unsigned int s, struct world *world, unsigned int i)
{
	struct truth *truth = &world->lock[i];
	unsigned int nr, intent;

	if (use_up(&truth->broken))
		return true;
	for (nr = 0; nr < SUPERVISOR; nr++) {
		struct actor *actor = &arena->actor[nr];

		intent = actor->intent;
		if (actor->doomed && in_window(intent) &&
		    (intent & 0xffffff) == intent_of(0, s, world, i) &&
		    atomic_compare_exchange_strong(&actor->intent, &intent, NOTHING)) {
			world->untold++;
			return true;
		}
	}
	return use_up(&truth->maybe);
}

/* Locks that can be broken; a shared client would unlock what a sibling took meanwhile. */
static bool breakable(unsigned int i)
{
	return arena->mix->breaks && i % 8 == 7;
}

/* A shrinking that overlaps the time since the lock was taken may have forgotten a death. */
static bool forgotten(const struct world *world, unsigned int i)
{
	const struct truth *truth = &world->lock[i];

	return i >= SHAKY && world->resizes.begun != truth->resizes_done;
}

/* The lock was taken; the oracle said that @old holds it. */
static void judge(const struct me *me, unsigned int s, struct world *world, unsigned int i,
		  unsigned int old, bool told, bool half_done)
{
	struct truth *truth = &world->lock[i];

	if (!old)
		MUST(me, !told || explained(s, world, i),
		     "lock %u:%u: told of a death, and nobody died", s, i);
	else if (is_dead(s, old))
		MUST(me, told || forgotten(world, i),
		     "lock %u:%u: actor %u died with it, and its next holder was not told",
		     s, i, actor_of(old));
	else
		MUST(me, told && breakable(i) && use_up(&truth->broken),
		     "lock %u:%u: held twice, actor %u has it, too (told: %d)", s, i,
		     actor_of(old), told);
	MUST(me, !half_done || told || breakable(i) || forgotten(world, i),
	     "lock %u:%u: what it guards is half done, and its next holder was not told", s, i);
	if (!told && !breakable(i))
		truth->maybe = 0;
}

/*
 * Nobody breaks a lock while somebody else passes from having got it to having noted
 * that.  (The calls that take and release it are free to meet breaks.)
 */
static void enter_gate(struct me *me, struct truth *truth, unsigned int s)
{
	unsigned int nobody = 0;

	me->actor->at_gate = truth;
	while (!atomic_compare_exchange_strong(&truth->gate, &nobody, ticket(me, s))) {
		nobody = 0;
		nap();
	}
}

static void leave_gate(struct me *me, struct truth *truth)
{
	truth->gate = 0;
	me->actor->at_gate = NULL;
}

/* The actor is gone, and a new one may take its place. */
static void bury(unsigned int nr)
{
	struct actor *actor = &arena->actor[nr];
	unsigned int intent = actor->intent, s;
	struct truth *gate = actor->at_gate;

	if (in_window(intent)) {
		atomic_uint *maybe = &world_of(intent)->lock[INTENT_LOCK(intent)].maybe;

		(*maybe)++;
		if (atomic_compare_exchange_strong(&actor->intent, &intent, NOTHING))
			world_of(intent)->untold++;
		else
			use_up(maybe);		/* it has been used up */
	} else if (INTENT_KIND(intent) == RESIZE) {
		world_of(intent)->resizes.done++;
	} else if (INTENT_KIND(intent) == REMOVE) {
		arena->place[INTENT_SPACE(intent)].removals.done++;
	} else if (INTENT_KIND(intent) == ALLOCATE) {
		world_of(intent)->leaks++;
	}
	actor->intent = NOTHING;
	if (gate && gate->gate && actor_of(gate->gate) == nr)
		gate->gate = 0;
	actor->at_gate = NULL;
	for (s = 0; s < SPACES; s++) {
		actor->dead[s] = actor->life[s];
		actor->life[s]++;
		actor->client[s] = NULL;
	}
	actor->forking = false;
	actor->parked = RUN;
	actor->pid = 0;
	actor->tid = 0;
	actor->doomed = false;
	actor->busy = false;
}

static void doom_process(unsigned int p)
{
	unsigned int t;

	for (t = 0; t < THREADS; t++)
		arena->actor[p * THREADS + t].doomed = true;
}

/*
 * Clients
 */

/* The entry of a space that is open; the first who comes makes it. */
static struct world *find_world(const struct me *me, unsigned int s, uint64_t generation,
				unsigned int birth)
{
	struct place *place = &arena->place[s];
	unsigned int w;
	uint64_t none;

	for (w = 0; w < WORLDS; w++)
		if (place->world[w].generation == generation)
			return &place->world[w];
	for (w = 0; w < WORLDS; w++) {
		none = 0;
		if (atomic_compare_exchange_strong(&place->world[w].generation, &none,
						   generation)) {
			place->world[w].birth = birth;
			return &place->world[w];
		}
		if (none == generation)
			return &place->world[w];
	}
	fail(me, "more than %d spaces of one name", WORLDS);
}

static void open_client(const struct me *me, unsigned int s, struct client *client,
			enum kind kind)
{
	static const unsigned int flags[KINDS] = { 0, KLOCK_NO_FASTPATH, KLOCK_ERRORCHECK };
	struct klock_space_attr attr = {
		.capacity = CAPACITY,
		.mode = arena->mix->mappable ? 0600 : 0620,
	};
	struct place *place = &arena->place[s];
	unsigned int birth = place->removals.done;
	struct klock_space_info info;
	int ret;

	memset(client, 0, sizeof(*client));
	ret = klock_space_open(place->name, KLOCK_CREATE | flags[kind], &attr, &client->space);
	MUST(me, !ret, "klock_space_open: %s", strerror(-ret));
	ret = klock_space_info(client->space, &info);
	MUST(me, !ret, "klock_space_info: %s", strerror(-ret));
	client->world = find_world(me, s, info.generation, birth);
	client->kind = kind;
}

static void close_client(struct client *client)
{
	unsigned int i;

	for (i = 0; i < LOCKS; i++)
		klock_put(client->lock[i]);
	klock_space_close(client->space);
	client->space = NULL;
}

/* A private client, or that of the process. */
static struct client *client_of(struct me *me, unsigned int s)
{
	unsigned int kind;

	if (me->client[s])
		return me->client[s];
	if (shared_client[s].space && draw(&me->rng, 2)) {
		me->client[s] = &shared_client[s];
		return me->client[s];
	}
	do {
		kind = draw(&me->rng, KINDS);
	} while (!(arena->mix->kinds & 1 << kind));
	open_client(me, s, &me->own[s], kind);
	me->actor->client[s] = me->own[s].world;
	me->client[s] = &me->own[s];
	return me->client[s];
}

/*
 * A sibling's child has the descriptor, too, until fork() has closed it there, and
 * the thread holds its locks until then: an errorcheck one may be told of a cycle.
 */
static void wait_for_forks(const struct me *me)
{
	unsigned int first = me->nr / THREADS * THREADS, nr;

	for (nr = first; nr < first + THREADS && !me->child; nr++)
		while (arena->actor[nr].forking && !arena->actor[nr + WORKERS].tid)
			nap();
}

/* The private client goes, with all that it holds. */
static void drop_client(struct me *me, unsigned int s)
{
	struct actor *actor = me->actor;
	unsigned int h, kept = 0;

	actor->dead[s] = actor->life[s];
	close_client(me->client[s]);
	wait_for_forks(me);
	me->client[s] = NULL;
	actor->client[s] = NULL;
	actor->life[s]++;
	for (h = 0; h < me->nr_held; h++)
		if (me->held[h].s != s)
			me->held[kept++] = me->held[h];
	me->nr_held = kept;
	actor->count[CLOSED]++;
}

/* NULL: it is above the capacity. */
static struct klock *lock_of(const struct me *me, struct client *client, unsigned int i)
{
	int ret = 0;

	/* Two threads may make the same handle; one is left over then. */
	if (!client->lock[i])
		ret = klock_retrieve(client->space, FIRST_ID + i, 0, &client->lock[i]);
	MUST(me, !ret || (ret == -EINVAL && i >= SHAKY && arena->mix->resizes),
	     "klock_retrieve(%u): %s", FIRST_ID + i, strerror(-ret));
	return ret ? NULL : client->lock[i];
}

/* A space can be told to be gone if a removal overlapped its life. */
static bool may_be_stale(unsigned int s, const struct world *world)
{
	return arena->place[s].removals.begun != world->birth;
}

/*
 * Taking and giving
 */

struct way {
	enum { FOREVER, AT_ONCE, MONOTONIC, REALTIME } until;
	bool raw;		/* by an ioctl of its own, which a signal may end */
	int us;			/* to the deadline */
};

static int call_lock(struct client *client, struct klock *lock, const struct way *way)
{
	static const unsigned int flags[] = {
		0, KLOCK_LOCK_TRY, KLOCK_LOCK_DEADLINE, KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME,
	};
	clockid_t clock = way->until == REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	uint64_t deadline = way->until < MONOTONIC ? 0 : now_ns(clock) + way->us * 1000LL;
	int fd = klock_space_fd(client->space), ret;
	struct timespec time = to_timespec(deadline);

	if (way->raw && fd >= 0)
		ret = raw_lock(fd, klock_id(lock), flags[way->until], deadline);
	else if (way->until == FOREVER)
		ret = klock_lock(lock);
	else if (way->until == AT_ONCE)
		ret = klock_trylock(lock);
	else
		ret = klock_lock_until(lock, clock, &time);
	if (ret == -ETIMEDOUT && now_ns(clock) < deadline)
		return -ETIME;	/* before it was: nobody expects this */
	return ret;
}

/* Whether a call that did not take a lock may say so. */
static bool may_say(const struct me *me, const struct client *client, unsigned int s,
		    unsigned int i, const struct way *way, int ret)
{
	switch (ret) {
	case -EBUSY:
		return way->until == AT_ONCE && me->nr != SUPERVISOR;
	case -ETIMEDOUT:
		return way->until >= MONOTONIC;
	case -EINTR:
		return way->raw;
	case -EDEADLK:
		return client->kind == ERRORCHECK && way->until != AT_ONCE && me->nr_held;
	case -EINVAL:
		return i >= SHAKY && arena->mix->resizes;
	case -ESTALE:
		return may_be_stale(s, client->world);
	}
	return false;
}

/* @client has been told that it has the lock. */
static bool note(struct me *me, struct client *client, unsigned int s, unsigned int i,
		 unsigned int resizes_done, bool told, bool half_done)
{
	struct world *world = client->world;
	struct truth *truth = &world->lock[i];
	bool mine = true;
	unsigned int old;

	if (breakable(i)) {
		enter_gate(me, truth, s);
		mine = status_of(client->lock[i]).flags & KLOCK_MINE;
	}
	if (mine) {
		me->held[me->nr_held++] = (struct held) { s, i, truth->breaks };
		old = atomic_exchange(&truth->holder, ticket(me, s));
		judge(me, s, world, i, old, told, half_done);
		truth->resizes_done = resizes_done;
		truth->takes++;
		me->actor->count[TAKEN]++;
		me->actor->count[TOLD] += told;
	} else {
		me->actor->count[BROKEN]++;
	}
	me->actor->intent = NOTHING;
	if (breakable(i))
		leave_gate(me, truth);
	return mine;
}

/* 0: it is held now, and was not broken yet. */
static int take(struct me *me, unsigned int s, unsigned int i, const struct way *way)
{
	struct client *client = client_of(me, s);
	struct klock *lock = lock_of(me, client, i);
	struct world *world = client->world;
	struct truth *truth = &world->lock[i];
	bool removed = world->removed;
	unsigned int resizes_done = world->resizes.done;
	unsigned int guarded[2];
	int ret;

	if (!lock)
		return -EINVAL;
	me->actor->intent = intent_of(way->until == FOREVER ? WAIT : TRY, s, world, i);
	ret = call_lock(client, lock, way);
	if (ret < 0) {
		me->actor->intent = NOTHING;
		MUST(me, may_say(me, client, s, i, way, ret), "lock %u:%u: %s (way %d)", s, i,
		     strerror(-ret), way->until);
		me->actor->count[LATE] += ret == -ETIMEDOUT;
		me->actor->count[CYCLES] += ret == -EDEADLK;
		return ret;
	}
	world->told += ret;
	/* Nothing that orders memory is between the lock and what it guards. */
	guarded[0] = atomic_load_explicit(&truth->guarded[0], memory_order_relaxed);
	guarded[1] = atomic_load_explicit(&truth->guarded[1], memory_order_relaxed);
	atomic_store_explicit(&truth->guarded[0], guarded[1] + 1, memory_order_relaxed);

	MUST(me, !removed, "lock %u:%u: taken in a space that was removed before", s, i);
	return note(me, client, s, i, resizes_done, ret, guarded[0] != guarded[1]) ? 0 : -EBUSY;
}

/* Gives the lock held[@h] up. */
static void give(struct me *me, unsigned int h, bool raw)
{
	struct held held = me->held[h];
	struct client *client = me->client[held.s];
	struct truth *truth = &client->world->lock[held.i];
	struct klock_ioc_id id = { .id = FIRST_ID + held.i };
	unsigned int mine = ticket(me, held.s);
	int fd = klock_space_fd(client->space), ret;

	me->held[h] = me->held[--me->nr_held];
	me->actor->intent = intent_of(GIVE, held.s, client->world, held.i);
	if (!breakable(held.i))
		truth->maybe = 0;
	if (!atomic_compare_exchange_strong(&truth->holder, &mine, 0)) {
		me->actor->intent = NOTHING;
		MUST(me, breakable(held.i) && truth->breaks != held.breaks,
		     "lock %u:%u: lost while it was held: the oracle says %#x", held.s, held.i,
		     mine);
		me->actor->count[BROKEN]++;
		return;
	}
	atomic_store_explicit(&truth->guarded[1],
			      atomic_load_explicit(&truth->guarded[0], memory_order_relaxed),
			      memory_order_relaxed);
	ret = raw && fd >= 0 ? raw_ioctl(fd, KLOCK_IOC_UNLOCK, &id) :
			       klock_unlock(client->lock[held.i]);
	me->actor->intent = NOTHING;
	MUST(me, !ret || (ret == -EPERM && breakable(held.i) && truth->breaks != held.breaks),
	     "lock %u:%u: unlock: %s", held.s, held.i, strerror(-ret));
	me->actor->count[BROKEN] += ret == -EPERM;
}

static void give_all(struct me *me)
{
	while (me->nr_held)
		give(me, me->nr_held - 1, false);
}

/* Another client, a new one or that of the process, from now on. */
static void change_client(struct me *me, unsigned int s)
{
	unsigned int h;

	if (!me->client[s])
		return;
	if (!me->client[s]->shared) {
		drop_client(me, s);
		return;
	}
	for (h = me->nr_held; h--; )
		if (me->held[h].s == s)
			give(me, h, false);
	me->client[s] = NULL;
}

/*
 * What a worker does in a step
 */

static bool holds(const struct me *me, unsigned int s, unsigned int i)
{
	unsigned int h;

	for (h = 0; h < me->nr_held; h++)
		if (me->held[h].s == s && me->held[h].i == i)
			return true;
	return false;
}

/* Most want one of few locks. */
static unsigned int draw_lock(struct me *me, unsigned int s)
{
	static const unsigned int hot[] = { 6, 7, 16, SHAKY };
	unsigned int i = draw(&me->rng, 10) < 7 ? hot[draw(&me->rng, 4)] : draw(&me->rng, LOCKS);

	return breakable(i) && client_of(me, s)->shared ? i - 1 : i;
}

/* Whether a wait without an end may not be part of a circle. */
static bool in_order(const struct me *me, unsigned int s, unsigned int i)
{
	int place = s * LOCKS + i;
	unsigned int h;

	if (arena->mix->cycles)
		return !me->child;
	if (place <= me->floor)
		return false;
	for (h = 0; h < me->nr_held; h++)
		if (place <= (int)(me->held[h].s * LOCKS + me->held[h].i))
			return false;
	return true;
}

static void do_lock(struct me *me)
{
	unsigned int s = draw(&me->rng, SPACES), i = draw_lock(me, s);
	struct way way = {
		.until = draw(&me->rng, 4),
		.raw = !draw(&me->rng, 4),
		.us = (int)draw(&me->rng, 4000) - 500,
	};

	if (holds(me, s, i))
		return;
	if (draw(&me->rng, 2))
		way.until = FOREVER;
	if (way.until == FOREVER && !in_order(me, s, i))
		way.until = MONOTONIC;
	switch (take(me, s, i, &way)) {
	case -ESTALE:
		change_client(me, s);
		break;
	case -EDEADLK:
		give_all(me);
		break;
	}
}

/* It has the same lock nearly always: others must come to their turn. */
static void do_hog(struct me *me)
{
	struct way way = { .until = FOREVER, .raw = !draw(&me->rng, 2) };
	unsigned int s = draw(&me->rng, SPACES), i = draw_lock(me, s), n;
	volatile unsigned int spin;

	give_all(me);
	if (!in_order(me, s, i))
		return;
	for (n = draw(&me->rng, 100); n && !take(me, s, i, &way); n--) {
		for (spin = 0; spin < 3000; spin++)
			;
		give(me, 0, way.raw);
	}
}

/* What it holds it cannot take again. */
static void do_relock(struct me *me)
{
	struct held *held = &me->held[0];
	struct way way = { .until = draw(&me->rng, 2) ? AT_ONCE : MONOTONIC, .us = 200 };
	struct client *client;
	int expected, ret;

	if (!me->nr_held || breakable(held->i))
		return;
	client = me->client[held->s];
	expected = way.until == AT_ONCE ? -EBUSY :
		   client->kind == ERRORCHECK ? -EDEADLK : -ETIMEDOUT;
	ret = call_lock(client, client->lock[held->i], &way);
	MUST(me, ret == expected || (ret == -ESTALE && may_be_stale(held->s, client->world)),
	     "lock %u:%u: locking it again: %d (%s), not %d", held->s,
	     held->i, ret, strerror(-ret), expected);
}

/* What it does not hold it cannot unlock. */
static void do_unlock_not_held(struct me *me)
{
	unsigned int s = draw(&me->rng, SPACES), i = draw_lock(me, s);
	struct client *client = client_of(me, s);
	struct klock *lock = lock_of(me, client, i);
	int ret;

	if (!lock || client->shared || holds(me, s, i))
		return;
	ret = klock_unlock(lock);
	MUST(me, ret == -EPERM || (ret == -EINVAL && i >= SHAKY && arena->mix->resizes),
	     "lock %u:%u: unlocking what it does not hold: %d (%s)", s, i, ret, strerror(-ret));
}

static void do_look(struct me *me)
{
	struct klock_status list[LOCKS];
	struct klock_waiter waiter[ACTORS];
	unsigned int s = draw(&me->rng, SPACES);
	struct client *client = client_of(me, s);
	struct klock_status status;
	struct held *held;
	int ret, n;

	ret = klock_list(client->space, FIRST_ID, list, LOCKS);
	MUST(me, ret >= 0, "klock_list: %s", strerror(-ret));
	for (n = 1; n < ret; n++)
		MUST(me, list[n].id > list[n - 1].id, "klock_list: ids are out of order");
	if (!me->nr_held || breakable(me->held[0].i))
		return;
	held = &me->held[0];
	client = me->client[held->s];
	ret = klock_status(client->lock[held->i], &status);
	MUST(me, !ret && (status.flags & (KLOCK_HELD | KLOCK_MINE | KLOCK_DIED)) ==
		 (KLOCK_HELD | KLOCK_MINE) &&
	     (pid_t)status.pid == getpid() && (pid_t)status.tid == me->actor->tid,
	     "lock %u:%u: its holder is told: ret %d, flags %#x, pid %u, tid %u", held->s,
	     held->i, ret, status.flags, status.pid, status.tid);
	ret = klock_waiters(client->lock[held->i], waiter, ACTORS);
	MUST(me, ret >= 0 && ret <= SUPERVISOR, "klock_waiters: %d", ret);
}

static void do_allocate(struct me *me)
{
	unsigned int s = draw(&me->rng, SPACES), id = draw(&me->rng, FIRST_ID + SHAKY);
	struct client *client = client_of(me, s);
	bool given = draw(&me->rng, 2);
	struct klock *lock;
	int ret;

	me->actor->intent = intent_of(ALLOCATE, s, client->world, 0);
	ret = given ? klock_allocate_id(client->space, id, &lock) :
		      klock_allocate(client->space, &lock);
	if (!ret) {
		id = klock_id(lock);
		MUST(me, id < CAPACITY && !atomic_exchange(&client->world->allocated[id], 1),
		     "space %u: id %u is allocated twice", s, id);
		klock_put(lock);
	}
	me->actor->intent = NOTHING;
	MUST(me, !ret || (ret == -EEXIST && given) ||
	     (ret == -ESTALE && may_be_stale(s, client->world)),
	     "space %u: allocate: %s", s, strerror(-ret));
}

static void do_free(struct me *me)
{
	unsigned int s = draw(&me->rng, SPACES), id = draw(&me->rng, CAPACITY), n;
	struct client *client = client_of(me, s);
	unsigned char taken;
	struct klock *lock;
	int ret;

	for (n = 0; n < CAPACITY; n++, id = (id + 1) % CAPACITY)
		if (client->world->allocated[id])
			break;
	me->actor->intent = intent_of(ALLOCATE, s, client->world, 0);
	taken = 1;
	if (atomic_compare_exchange_strong(&client->world->allocated[id], &taken, 0)) {
		ret = klock_retrieve(client->space, id, 0, &lock);
		MUST(me, !ret, "space %u: retrieve of the allocated id %u: %s", s, id,
		     strerror(-ret));
		ret = klock_free(lock);
		klock_put(lock);
		MUST(me, !ret || (ret == -ESTALE && may_be_stale(s, client->world)),
		     "space %u: free of the allocated id %u: %s", s, id, strerror(-ret));
	}
	me->actor->intent = NOTHING;
}

static void do_break(struct me *me)
{
	unsigned int s = draw(&me->rng, SPACES), i = draw(&me->rng, 2) ? 7 : 15;
	struct client *client = client_of(me, s);
	struct truth *truth = &client->world->lock[i];
	unsigned int token = 0;
	int ret;

	if (draw(&me->rng, 2))
		token = status_of(lock_of(me, client, i)).token;
	enter_gate(me, truth, s);
	truth->breaks++;
	truth->broken++;
	ret = klock_break(client->space, FIRST_ID + i, token);
	if (ret)
		truth->broken--;
	leave_gate(me, truth);
	MUST(me, !ret || ret == -ENOENT || (ret == -EAGAIN && token), "lock %u:%u: break: %s",
	     s, i, strerror(-ret));
}

/* Whoever holds a lock all the while holds it below the capacity. */
static void do_resize(struct me *me)
{
	static const unsigned int sizes[] = { FIRST_ID + SHAKY, FIRST_ID + LOCKS - 1, CAPACITY };
	unsigned int s = draw(&me->rng, SPACES), size = sizes[draw(&me->rng, 3)], i;
	struct client *client = client_of(me, s);
	struct world *world = client->world;
	unsigned int holder[LOCKS], takes[LOCKS];
	int ret;

	for (i = SHAKY; i < LOCKS; i++) {
		takes[i] = world->lock[i].takes;
		holder[i] = world->lock[i].holder;
		if (holder[i] && is_dead(s, holder[i]))
			holder[i] = 0;
	}
	world->resizes.begun++;
	me->actor->intent = intent_of(RESIZE, s, world, 0);
	ret = klock_space_resize(client->space, size);
	for (i = size - FIRST_ID; !ret && i < LOCKS; i++)
		MUST(me, !holder[i] || world->lock[i].holder != holder[i] || breakable(i) ||
		     world->lock[i].takes != takes[i] || is_dead(s, holder[i]),
		     "lock %u:%u: shrunk away while actor %u held it", s, i, actor_of(holder[i]));
	world->resizes.done++;
	me->actor->intent = NOTHING;
	MUST(me, !ret || ret == -EBUSY || (ret == -ESTALE && may_be_stale(s, world)),
	     "space %u: resize to %u: %s", s, size, strerror(-ret));
	me->actor->count[RESIZED] += !ret;
}

/* All spaces of that name that there were before are gone afterwards. */
static void do_remove(struct me *me)
{
	unsigned int s = SPACES - 1, w, used = 0;
	struct place *place = &arena->place[s];
	bool there[WORLDS];
	int ret;

	for (w = 0; w < WORLDS; w++) {
		there[w] = place->world[w].generation;
		used += there[w];
	}
	if (used > WORLDS - ACTORS)
		return;
	place->removals.begun++;
	me->actor->intent = INTENT(REMOVE, s, 0, 0);
	ret = klock_space_remove(place->name, KLOCK_FORCE);
	MUST(me, !ret || ret == -ENOENT, "space %u: remove: %s", s, strerror(-ret));
	for (w = 0; w < WORLDS; w++)
		if (there[w])
			place->world[w].removed = true;
	place->removals.done++;
	me->actor->intent = NOTHING;
	me->actor->count[REMOVED] += !ret;
}

static void __attribute__((noreturn)) do_die(struct me *me)
{
	if (me->child)
		me->actor->doomed = true;
	else
		doom_process(me->nr / THREADS);
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void work(struct me *me, unsigned int steps);

/*
 * Whether a lock that the process @parent had when its actor @doer forked may have been
 * shrunk away: it was broken, or its holder is being killed, or is dead and not the parent.
 * (In this order: who is not doomed any more has been reaped before.)
 */
static bool may_be_gone(unsigned int i, const struct actor *doer, pid_t parent)
{
	return i >= SHAKY && (breakable(i) || doer->doomed || getppid() != parent);
}

/* A child holds nothing of what its parent holds, and is a client of its own. */
static void __attribute__((noreturn)) be_child(struct me *me, pid_t parent)
{
	const struct actor *doer = me->actor;
	struct klock_space_info info;
	unsigned int h, s;
	int ret;

	me->nr += WORKERS;
	me->actor = &arena->actor[me->nr];
	me->actor->pid = getpid();
	me->actor->tid = getpid();
	me->child = true;
	for (s = 0; s < SPACES; s++) {
		if (me->client[s] != &shared_client[s])
			shared_client[s].space = NULL;	/* unused, it is no client */
		if (!me->client[s])
			continue;
		ret = klock_space_info(me->client[s]->space, &info);
		MUST(me, !ret, "klock_space_info in a child: %s", strerror(-ret));
		me->actor->client[s] = me->client[s]->world;
		me->client[s]->shared = false;
	}
	for (h = 0; h < me->nr_held; h++) {
		int place = me->held[h].s * LOCKS + me->held[h].i;

		me->floor = place > me->floor ? place : me->floor;
		ret = klock_unlock(me->client[me->held[h].s]->lock[me->held[h].i]);
		MUST(me, ret == -EPERM ||
		     (ret == -EINVAL && may_be_gone(me->held[h].i, doer, parent)),
		     "lock %u:%u: unlocked by a child: %d", me->held[h].s, me->held[h].i, ret);
	}
	me->nr_held = 0;
	work(me, 1 + draw(&me->rng, 12));
	if (draw(&me->rng, 2))
		give_all(me);
	me->actor->doomed = true;
	_exit(0);
}

static void do_fork(struct me *me)
{
	struct actor *child = &arena->actor[me->nr + WORKERS];
	pid_t pid, parent = getpid();
	int ret;

	if (me->child || child->busy)
		return;
	child->busy = true;
	child->since = now_ns(CLOCK_MONOTONIC);
	me->actor->forking = true;
	pid = fork();
	MUST(me, pid >= 0, "fork: %s", strerror(errno));
	if (!pid)
		be_child(me, parent);
	child->pid = pid;
	ret = reap(pid);
	MUST(me, !ret || ret == -SIGKILL, "its child ended with status %d", ret);
	bury(me->nr + WORKERS);
	me->actor->since = now_ns(CLOCK_MONOTONIC);
	me->actor->forking = false;
	me->actor->count[FORKED]++;
}

static void do_nap(struct me *me)
{
	struct timespec span = { .tv_nsec = draw(&me->rng, 500) * 1000 };

	if (draw(&me->rng, 2))
		sched_yield();
	else
		nanosleep(&span, NULL);
}

static void step(struct me *me)
{
	const struct mixture *mix = arena->mix;
	const struct {
		unsigned int of_1000;
		void (*fn)(struct me *me);
	} rare[] = {
		{ mix->breaks, do_break },
		{ mix->resizes, do_resize },
		{ mix->removals, do_remove },
		{ 2, do_die },
		{ 5, do_fork },
		{ 15, do_allocate },
		{ 15, do_free },
		{ 15, do_relock },
		{ 15, do_unlock_not_held },
		{ 15, do_look },
		{ 30, do_hog },
		{ 15, do_nap },
	};
	unsigned int n = draw(&me->rng, 1000), i;

	for (i = 0; i < ARRAY_SIZE(rare); i++) {
		if (n < rare[i].of_1000) {
			rare[i].fn(me);
			return;
		}
		n -= rare[i].of_1000;
	}
	if (n < 15)
		change_client(me, draw(&me->rng, SPACES));
	else if (me->nr_held == HELD_MAX || (me->nr_held && draw(&me->rng, 2)))
		give(me, draw(&me->rng, me->nr_held), !draw(&me->rng, 4));
	else
		do_lock(me);
}

/* Nothing of a space that was removed is left for the time after this quiet point. */
static void let_go(struct me *me)
{
	struct klock_space_info info;
	unsigned int s;

	give_all(me);
	for (s = 0; s < SPACES; s++)
		if (me->client[s] && !klock_space_info(me->client[s]->space, &info) &&
		    info.flags & KLOCK_REMOVED)
			drop_client(me, s);
}

/* Between two steps.  False: a child is to end. */
static bool stop_if_asked(struct me *me)
{
	unsigned int phase;

	while ((phase = arena->phase)) {
		if (phase == LET_GO && me->child)
			return false;
		if (phase == LET_GO && me->actor->parked != LET_GO)
			let_go(me);
		me->actor->parked = phase;
		usleep(500);
	}
	me->actor->parked = RUN;
	return true;
}

static void work(struct me *me, unsigned int steps)
{
	while (steps-- && !arena->failed && stop_if_asked(me)) {
		me->actor->since = now_ns(CLOCK_MONOTONIC);
		me->rng = rng_of(me->nr, ++me->actor->step);
		step(me);
		me->actor->count[STEPS]++;
	}
}

static void *worker(void *arg)
{
	struct me me = { .nr = (uintptr_t)arg, .floor = -1 };

	me.actor = &arena->actor[me.nr];
	me.actor->pid = getpid();
	me.actor->tid = gettid();
	while (!arena->failed)
		work(&me, -1);
	for (;;)
		pause();
	return NULL;
}

static void on_signal(int nr)
{
	(void)nr;
}

static void __attribute__((noreturn)) be_process(unsigned int p)
{
	struct sigaction fails = { .sa_handler = on_signal };
	struct sigaction restarts = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct me me = { .nr = p * THREADS, .actor = &arena->actor[p * THREADS] };
	unsigned int s, t;
	pthread_t thread;

	sigaction(SIGUSR1, &fails, NULL);
	sigaction(SIGUSR2, &restarts, NULL);
	for (s = 0; s < SPACES; s++) {
		if (!arena->mix->shared || arena->place[s].may_go)
			continue;
		open_client(&me, s, &shared_client[s],
			    arena->mix->mappable && p % 2 ? MAPPED : BY_IOCTL);
		shared_client[s].shared = true;
		arena->shared[p][s] = shared_client[s].world;
	}
	for (t = 1; t < THREADS; t++)
		CHECK(!pthread_create(&thread, NULL, worker, (void *)(uintptr_t)(me.nr + t)));
	worker((void *)(uintptr_t)me.nr);
	_exit(1);
}

/*
 * The supervisor
 */

static struct me supervisor = { .nr = SUPERVISOR, .floor = -1 };
static uint64_t max_passed;		/* the module's bound */

static void start_process(unsigned int p)
{
	unsigned int t;
	pid_t pid;

	for (t = 0; t < THREADS; t++)
		arena->actor[p * THREADS + t].since = now_ns(CLOCK_MONOTONIC);
	pid = spawn();
	if (!pid)
		be_process(p);
	arena->process[p] = pid;
}

/* A process with workers ended, or a child whose parent has. */
static void bury_pid(pid_t pid, int status)
{
	unsigned int p, s, t, nr;

	for (p = 0; p < PROCESSES && arena->process[p] != pid; p++)
		;
	for (nr = WORKERS; nr < SUPERVISOR && arena->actor[nr].pid != pid; nr++)
		;
	MUST(&supervisor, WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL :
	     nr < SUPERVISOR && !WEXITSTATUS(status), "process %d ended with status %#x", pid,
	     status);
	if (nr < SUPERVISOR)
		bury(nr);
	if (p == PROCESSES)
		return;
	for (t = 0; t < THREADS; t++) {
		nr = p * THREADS + t;
		bury(nr);
		/* It may have died between its child's burial and the end of it. */
		if (arena->actor[nr + WORKERS].pid &&
		    waitpid(arena->actor[nr + WORKERS].pid, NULL, WNOHANG))
			bury(nr + WORKERS);
	}
	for (s = 0; s < SPACES; s++)
		arena->shared[p][s] = NULL;
	arena->process[p] = 0;
}

/* To be called all the time. */
static void look_after(bool replace)
{
	unsigned int p;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		bury_pid(pid, status);
	if (arena->failed == 2)
		give_up();
	for (p = 0; p < PROCESSES && replace; p++)
		if (!arena->process[p])
			start_process(p);
}

static void watch_for_hangs(void)
{
	uint64_t now = now_ns(CLOCK_MONOTONIC);
	unsigned int nr;

	for (nr = 0; nr < SUPERVISOR; nr++) {
		struct actor *actor = &arena->actor[nr];

		if (actor->pid && !actor->forking && now > actor->since + HANG)
			fail(&supervisor, "actor %u hangs in step %ju", nr,
			     (uintmax_t)actor->step);
	}
}

static void kill_process(unsigned int p)
{
	if (!arena->process[p])
		return;
	doom_process(p);
	kill(arena->process[p], SIGKILL);
}

/* A kill, a stop, a signal, or nothing. */
static void disturb(uint64_t *rng)
{
	unsigned int what = draw(rng, 100), nr = draw(rng, WORKERS);
	pid_t pid = arena->process[nr / THREADS];
	struct actor *actor = &arena->actor[nr];

	if (!pid)
		return;
	if (what < 2) {
		kill_process(nr / THREADS);
	} else if (what < 4) {
		kill(pid, SIGSTOP);
		usleep(1000 * draw(rng, 5));
		kill(pid, SIGCONT);
	} else if (what < 50 && actor->pid == pid && actor->step) {
		/* Its handlers are there before its threads are. */
		syscall(SYS_tgkill, pid, actor->tid, what % 2 ? SIGUSR1 : SIGUSR2);
	}
}

/* Whether an actor does nothing until somebody that has stopped goes on. */
static bool has_stopped(unsigned int nr, unsigned int depth)
{
	struct actor *actor = &arena->actor[nr];
	unsigned int intent = actor->intent, holder;

	if (actor->doomed || depth > ACTORS)
		return false;
	if (actor->parked == arena->phase)
		return true;
	if (actor->forking)
		return arena->actor[nr + WORKERS].pid && has_stopped(nr + WORKERS, depth + 1);
	if (INTENT_KIND(intent) != WAIT)
		return false;
	holder = world_of(intent)->lock[INTENT_LOCK(intent)].holder;
	return holder && !is_dead(INTENT_SPACE(intent), holder) &&
	       has_stopped(actor_of(holder), depth + 1);
}

static struct klock_status listed[CAPACITY];
static int nr_listed;
static char mismatch[256];

#define AGREE(cond, ...) do {						\
	if (!(cond)) {							\
		snprintf(mismatch, sizeof(mismatch), __VA_ARGS__);	\
		return false;						\
	}								\
} while (0)

static bool all_have_stopped(unsigned int s)
{
	unsigned int nr;

	(void)s;
	for (nr = 0; nr < WORKERS; nr++)
		AGREE(!arena->process[nr / THREADS] || has_stopped(nr, 0),
		      "actor %u has not stopped", nr);
	for (; nr < SUPERVISOR; nr++)
		AGREE(!arena->actor[nr].pid || has_stopped(nr, 0),
		      "actor %u has not stopped", nr);
	return true;
}

/* Who waits for a lock, by what klock says, does so by what the oracle says. */
static bool waiters_agree(unsigned int s, unsigned int i, const struct client *watch,
			  unsigned int told)
{
	unsigned int intent = intent_of(WAIT, s, watch->world, i), nr, expected = 0;
	struct klock_waiter waiter[ACTORS];
	int n;

	for (nr = 0; nr < SUPERVISOR; nr++)
		expected += arena->actor[nr].intent == intent;
	AGREE(told == expected, "lock %u:%u: %u wait, not %u", s, i, expected, told);
	if (!expected)
		return true;
	n = klock_waiters(lock_of(&supervisor, &supervisor.own[s], i), waiter, ACTORS);
	AGREE(n == (int)expected, "lock %u:%u: klock_waiters tells %d of %u", s, i, n, expected);
	while (n--) {
		for (nr = 0; nr < SUPERVISOR; nr++)
			if (arena->actor[nr].intent == intent &&
			    arena->actor[nr].tid == (pid_t)waiter[n].tid)
				break;
		AGREE(nr < SUPERVISOR, "lock %u:%u: thread %u is said to wait", s, i,
		      waiter[n].tid);
	}
	return true;
}

/* @status: NULL if it is not in the list */
static bool lock_agrees(unsigned int s, unsigned int i, const struct client *watch,
			const struct klock_status *status)
{
	unsigned int holder = watch->world->lock[i].holder;
	unsigned int flags = status ? status->flags : 0;
	struct actor *actor;

	if (!waiters_agree(s, i, watch, status ? status->waiters : 0))
		return false;
	if (breakable(i))
		return true;
	if (!holder || is_dead(s, holder)) {
		AGREE(!(flags & KLOCK_HELD), "lock %u:%u: said to be held by thread %u", s, i,
		      status->tid);
		AGREE(flags & KLOCK_DIED || !holder || forgotten(watch->world, i),
		      "lock %u:%u: actor %u died with it, and it is not said so", s, i,
		      actor_of(holder));
		return true;
	}
	actor = &arena->actor[actor_of(holder)];
	AGREE(flags & KLOCK_HELD && !(flags & KLOCK_DIED) && (pid_t)status->pid == actor->pid &&
	      (pid_t)status->tid == actor->tid,
	      "lock %u:%u: actor %u holds it, not as is said thread %u (flags %#x)", s, i,
	      actor_of(holder), status ? status->tid : 0, flags);
	return true;
}

static unsigned int clients_of(unsigned int s, const struct world *world)
{
	unsigned int nr, p, n = 0;

	for (nr = 0; nr < SUPERVISOR; nr++)
		n += arena->actor[nr].client[s] == world;
	for (p = 0; p < PROCESSES; p++)
		n += arena->shared[p][s] == world;
	return n + 1;	/* the supervisor's */
}

/*
 * What is counted of a space since it was made.  Each death and each break is told once:
 * to the next holder, or to nobody yet (@pending), or the lock was shrunk away meanwhile.
 */
static bool counters_agree(unsigned int s, struct world *world, const struct klock_space_info *info,
			   unsigned int pending)
{
	unsigned int forgotten = world->resizes.begun * (LOCKS - SHAKY);
	const struct klock_space_info *last = &world->last;
	unsigned int breaks = 0, i;

	for (i = 0; i < LOCKS; i++)
		breaks += world->lock[i].breaks;
	AGREE(info->deaths <= world->told + world->untold + pending + forgotten,
	      "space %u: %ju deaths, but %u told, %u perhaps, %u pending, %u forgotten", s,
	      (uintmax_t)info->deaths, world->told, world->untold, pending, forgotten);
	/* Some that wait give up; and who dies with what it is told tells nobody. */
	AGREE(info->waited + info->waiting <= info->waits,
	      "space %u: %ju waits, %ju had the lock, %u wait", s, (uintmax_t)info->waits,
	      (uintmax_t)info->waited, info->waiting);
	AGREE(world->told <= info->deaths + breaks, "space %u: %ju deaths, %u breaks, %u told", s,
	      (uintmax_t)info->deaths, breaks, world->told);
	AGREE(!info->passed == !info->max_passed && info->max_passed <= info->passed,
	      "space %u: passed %ju times, one %ju", s, (uintmax_t)info->passed,
	      (uintmax_t)info->max_passed);
	MUST(&supervisor, info->waits >= last->waits && info->waited >= last->waited &&
	     info->passed >= last->passed && info->max_passed >= last->max_passed &&
	     info->longest_wait >= last->longest_wait && info->deaths >= last->deaths,
	     "space %u: a counter went down", s);
	world->last = *info;
	return true;
}

/* Whether all that klock tells of a space is what the oracle says. */
static bool space_agrees(unsigned int s)
{
	struct client *watch = &supervisor.own[s];
	struct klock_status *at[CAPACITY] = { NULL };
	unsigned int held = 0, allocated = 0, waiting = 0, leaked = 0, died = 0, i;
	struct klock_space_info info;
	int n, ret;

	ret = klock_space_info(watch->space, &info);
	nr_listed = klock_list(watch->space, 0, listed, CAPACITY);
	AGREE(!ret && nr_listed >= 0, "space %u: info %d, list %d", s, ret, nr_listed);
	for (n = 0; n < nr_listed; n++) {
		at[listed[n].id] = &listed[n];
		held += !!(listed[n].flags & KLOCK_HELD);
		died += !!(listed[n].flags & KLOCK_DIED);
		waiting += listed[n].waiters;
	}
	for (i = 0; i < LOCKS; i++)
		if (!lock_agrees(s, i, watch, at[FIRST_ID + i]))
			return false;
	for (i = 0; i < CAPACITY; i++) {
		bool taken = at[i] && at[i]->flags & KLOCK_ALLOCATED;

		AGREE(taken || !watch->world->allocated[i], "space %u: id %u is not allocated", s,
		      i);
		AGREE(!at[i] || !(at[i]->flags & KLOCK_HELD) ||
		      (i >= FIRST_ID && i < FIRST_ID + LOCKS), "space %u: id %u is held", s, i);
		allocated += taken;
		leaked += taken && !watch->world->allocated[i];
	}
	AGREE(leaked <= watch->world->leaks, "space %u: %u ids are allocated by nobody", s, leaked);
	AGREE(info.held == held && info.waiting == waiting && info.allocated == allocated,
	      "space %u: counts held %u, waiting %u, allocated %u; lists %u, %u, %u", s, info.held,
	      info.waiting, info.allocated, held, waiting, allocated);
	AGREE(info.clients == clients_of(s, watch->world), "space %u: %u clients, not %u", s,
	      clients_of(s, watch->world), info.clients);
	if (!counters_agree(s, watch->world, &info, died))
		return false;
	if (info.max_passed > arena->max_passed)
		arena->max_passed = info.max_passed;
	MUST(&supervisor, info.max_passed <= max_passed,
	     "space %u: a waiter was passed %ju times, not %ju", s, (uintmax_t)info.max_passed,
	     (uintmax_t)max_passed);
	return true;
}

/* The lock is free, and the thread is the first of those that wait for it. */
static bool is_next(struct klock *lock, pid_t tid)
{
	struct klock_status status;
	struct klock_waiter first;

	return !klock_status(lock, &status) && !(status.flags & KLOCK_HELD) &&
	       klock_waiters(lock, &first, 1) == 1 && (pid_t)first.tid == tid;
}

/*
 * The first of those that wait for a free lock does not sleep; others may, until he
 * has run.  (Where words may be mapped he would wake up by himself after a second,
 * which must not hide that he was not woken.)
 */
static void watch_for_sleepers(void)
{
	unsigned int most = ASLEEP * (arena->mix->mappable ? 1 : patience()), nr, s, i;

	for (nr = 0; nr < SUPERVISOR; nr++) {
		struct actor *actor = &arena->actor[nr];
		unsigned int intent = actor->intent;
		struct klock *lock = NULL;

		s = INTENT_SPACE(intent);
		i = INTENT_LOCK(intent);
		if (INTENT_KIND(intent) == WAIT && !actor->doomed && supervisor.own[s].space &&
		    supervisor.own[s].world == world_of(intent))
			lock = lock_of(&supervisor, &supervisor.own[s], i);
		if (lock && is_next(lock, actor->tid) && sleeps(actor->pid, actor->tid))
			actor->asleep++;
		else
			actor->asleep = 0;
		MUST(&supervisor, actor->asleep < most,
		     "lock %u:%u: free, and actor %u sleeps beside it", s, i, nr);
	}
}

/* Waits until @condition holds; nobody who died is replaced meanwhile. */
static void wait_until(bool (*condition)(unsigned int s), unsigned int s)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + HANG;
	unsigned int nr;

	for (nr = 0; nr < SUPERVISOR; nr++)
		arena->actor[nr].asleep = 0;
	while (!condition(s)) {
		look_after(false);
		watch_for_sleepers();
		MUST(&supervisor, now_ns(CLOCK_MONOTONIC) < end, "no quiet point: %s", mismatch);
		usleep(500);
	}
}

static bool is_quiet(unsigned int s)
{
	return all_have_stopped(s) && space_agrees(s);
}

static void open_watch(unsigned int s)
{
	struct client *watch = &supervisor.own[s];
	struct klock_space_info info;

	if (watch->space && !klock_space_info(watch->space, &info) &&
	    info.flags & KLOCK_REMOVED)
		close_client(watch);
	if (!watch->space)
		open_client(&supervisor, s, watch, BY_IOCTL);
	supervisor.client[s] = watch;
}

/* Nobody else does anything: all must be as in a new space, but for who died. */
static void settle(unsigned int s)
{
	static const struct way at_once = { .until = AT_ONCE };
	struct client *watch = &supervisor.own[s];
	struct place *place = &arena->place[s];
	unsigned int i, w, lowest = 0;
	struct klock *lock;
	int n, ret;

	ret = klock_space_resize(watch->space, CAPACITY);
	MUST(&supervisor, !ret, "space %u: resize: %s", s, strerror(-ret));
	watch->world->resizes.done = watch->world->resizes.begun;
	for (i = 0; i < LOCKS; i++) {
		ret = take(&supervisor, s, i, &at_once);
		MUST(&supervisor, !ret, "lock %u:%u: %s", s, i, strerror(-ret));
		watch->world->lock[i].maybe = 0;
		watch->world->lock[i].broken = 0;
		give_all(&supervisor);
	}
	wait_until(is_quiet, s);
	for (n = 0; n < nr_listed; n++)		/* in order of id */
		if (listed[n].flags & KLOCK_ALLOCATED && listed[n].id == lowest)
			lowest++;
	ret = klock_allocate(watch->space, &lock);
	MUST(&supervisor, !ret && klock_id(lock) == lowest && !klock_free(lock),
	     "space %u: %u is free: %s", s, lowest, strerror(-ret));
	klock_put(lock);
	if (watch->world->leaks) {
		MUST(&supervisor, !klock_free_all(watch->space), "space %u: free_all", s);
		memset(watch->world->allocated, 0, sizeof(watch->world->allocated));
		watch->world->leaks = 0;
	}
	place->removals.done = place->removals.begun;
	watch->world->birth = place->removals.done;
	for (w = 0; w < WORLDS; w++)
		if (&place->world[w] != watch->world)
			memset(&place->world[w], 0, sizeof(place->world[w]));
}

static void quiet_point(uint64_t *rng)
{
	unsigned int s;

	arena->phase = STOP;
	for (s = 0; s < SPACES; s++) {
		wait_until(all_have_stopped, s);
		open_watch(s);
		wait_until(is_quiet, s);
	}
	if (draw(rng, 2))
		kill_process(draw(rng, PROCESSES));
	arena->phase = LET_GO;
	for (s = draw(rng, 2 * WORKERS); s; s--)
		disturb(rng);
	for (s = 0; s < SPACES; s++) {
		wait_until(is_quiet, s);
		settle(s);
	}
}

static void end_case(void)
{
	unsigned int s, p;
	int ret;

	for (p = 0; p < PROCESSES; p++) {
		doom_process(p);
		if (arena->process[p])
			slay(arena->process[p]);
	}
	for (s = 0; s < SPACES; s++) {
		struct klock_space_info info;

		ret = klock_space_info(supervisor.own[s].space, &info);
		MUST(&supervisor, !ret && info.clients == 1 && !info.held && !info.waiting,
		     "space %u: %u clients, %u held, %u waiting when all are dead", s,
		     info.clients, info.held, info.waiting);
		close_client(&supervisor.own[s]);
		ret = klock_space_remove(arena->place[s].name, 0);
		MUST(&supervisor, !ret, "space %u: remove: %s", s, strerror(-ret));
	}
}

/* Whether a case must come to that, if it has some seconds. */
static bool must_come(enum count what)
{
	switch (what) {
	case CYCLES:
		return arena->mix->cycles;
	case BROKEN:
		return arena->mix->breaks;
	case RESIZED:
		return arena->mix->resizes;
	case REMOVED:
		return arena->mix->removals;
	default:
		return true;
	}
}

static unsigned long total(enum count what)
{
	unsigned long sum = 0;
	unsigned int nr;

	for (nr = 0; nr < ACTORS; nr++)
		sum += arena->actor[nr].count[what];
	return sum;
}

/* Whether all that the case is about has happened. */
static bool all_came(void)
{
	unsigned int c;

	for (c = 0; c < COUNTS; c++)
		if (must_come(c) && !total(c))
			return false;
	return true;
}

static void __attribute__((noreturn)) supervise(unsigned int seconds)
{
	uint64_t now = now_ns(CLOCK_MONOTONIC), end = now + seconds * NSEC_PER_SEC;
	uint64_t quiet = now + QUIET_EVERY, rng = rng_of(SUPERVISOR, 0), late;
	struct klock_ioc_api api = { .version = 0 };
	unsigned int s;
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0 && !raw_ioctl(fd, KLOCK_IOC_GET_API, &api));
	close(fd);
	max_passed = api.max_passed;
	supervisor.actor = &arena->actor[SUPERVISOR];
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (s = 0; s < SPACES; s++)
		open_watch(s);
	/* One that comes to little, beside others, has more time. */
	late = end + (seconds >= ENOUGH ? 9 * seconds * NSEC_PER_SEC : 0);
	for (; now < end || (now < late && !all_came()); now = now_ns(CLOCK_MONOTONIC)) {
		look_after(true);
		disturb(&rng);
		watch_for_hangs();
		if (now > quiet) {
			quiet_point(&rng);
			arena->phase = RUN;
			quiet = now_ns(CLOCK_MONOTONIC) + QUIET_EVERY;
		}
		usleep(2000);
	}
	quiet_point(&rng);
	end_case();
	_exit(0);
}

/*
 * The cases
 */

static void show_actor(unsigned int nr)
{
	static const char *const kind[] = {
		"", "waits for", "tries to take", "gives up", "resizes", "removes", "allocates in",
	};
	struct actor *actor = &arena->actor[nr];
	unsigned int intent = actor->intent;

	if (!actor->pid)
		return;
	printf("# actor %2u: pid %d, thread %d, step %ju since %ju ms%s%s%s", nr, actor->pid,
	       actor->tid, (uintmax_t)actor->step,
	       (uintmax_t)((now_ns(CLOCK_MONOTONIC) - actor->since) / NSEC_PER_MSEC),
	       actor->parked ? ", has stopped" : "", actor->forking ? ", waits for its child" : "",
	       actor->doomed ? ", is dead" : "");
	if (intent)
		printf(", %s %u:%u of space %016jx", kind[INTENT_KIND(intent)],
		       INTENT_SPACE(intent), INTENT_LOCK(intent),
		       (uintmax_t)world_of(intent)->generation);
	printf("\n");
}

/* The locks of the spaces as they are now, for the actors are still there. */
static void show_space(unsigned int s)
{
	struct klock_space *space;
	struct klock_waiter waiter[ACTORS];
	struct klock_space_info info;
	int n, i, w, n_waiters;

	if (klock_space_open(arena->place[s].name, KLOCK_READONLY, NULL, &space))
		return;
	klock_space_info(space, &info);
	printf("# space %u: %016jx, capacity %u, held %u, waiting %u, clients %u\n", s,
	       (uintmax_t)info.generation, info.capacity, info.held, info.waiting, info.clients);
	n = klock_list(space, FIRST_ID, listed, LOCKS);
	for (i = 0; i < n; i++) {
		struct klock *lock = get_lock(space, listed[i].id);

		printf("# lock %u:%u: flags %#x, token %u, pid %u, thread %u, waiters", s,
		       listed[i].id - FIRST_ID, listed[i].flags, listed[i].token, listed[i].pid,
		       listed[i].tid);
		n_waiters = klock_waiters(lock, waiter, ACTORS);
		for (w = 0; w < n_waiters; w++)
			printf(" %u", waiter[w].tid);
		printf("\n");
		klock_put(lock);
	}
	klock_space_close(space);
}

static void show_counts(double seconds)
{
	unsigned int c;

	printf("# in %.1f s:", seconds);
	for (c = 0; c < COUNTS; c++)
		printf("%s %lu %s", c ? "," : "", total(c), count_name[c]);
	printf(", a waiter passed %ju times\n", (uintmax_t)arena->max_passed);
}

/* The supervisor ends a case that failed. */
static void give_up(void)
{
	unsigned int p, nr, s;

	printf("# %s\n", arena->message);
	for (nr = 0; nr < SUPERVISOR; nr++)
		show_actor(nr);
	for (s = 0; s < SPACES; s++)
		show_space(s);
	for (p = 0; p < PROCESSES; p++)
		if (arena->process[p])
			kill(arena->process[p], SIGKILL);
	for (nr = 0; nr < SUPERVISOR; nr++)
		if (arena->actor[nr].pid)
			kill(arena->actor[nr].pid, SIGKILL);
	for (s = 0; s < SPACES; s++)
		klock_space_remove(arena->place[s].name, KLOCK_FORCE);
	_exit(1);
}

static bool run_case(const struct mixture *mix, uint64_t seed, unsigned int seconds)
{
	uint64_t begun = now_ns(CLOCK_MONOTONIC);
	unsigned int nr, s;
	int status;
	pid_t pid;

	arena = shared(sizeof(*arena));
	arena->seed = seed;
	arena->mix = mix;
	for (s = 0; s < SPACES; s++) {
		snprintf(arena->place[s].name, KLOCK_NAME_SIZE, "torture-%d-%u", getpid(), s);
		arena->place[s].may_go = mix->volatile_space && s == SPACES - 1;
		for (nr = 0; nr < ACTORS; nr++)
			arena->actor[nr].life[s] = 1;
	}
	pid = spawn();
	if (!pid)
		supervise(seconds);
	status = reap(pid);
	show_counts((double)(now_ns(CLOCK_MONOTONIC) - begun) / NSEC_PER_SEC);
	if (seconds >= ENOUGH && !all_came() && !status) {
		ksft_print_msg("something did not happen at all\n");
		status = 1;
	}
	if (status)
		ksft_print_msg("replay: torture --seed %ju --case %td\n", (uintmax_t)seed,
			       mix - mixtures);
	munmap(arena, sizeof(*arena));
	return !status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 'r' },
		{ "seconds", required_argument, NULL, 't' },
		{ "case", required_argument, NULL, 'c' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned int first = 0, end = ARRAY_SIZE(mixtures), seconds = 30, i;
	uint64_t seed;
	int option;

	setvbuf(stdout, NULL, _IOLBF, 0);
	CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'r') {
			seed = strtoull(optarg, NULL, 0);
		} else if (option == 't') {
			seconds = atoi(optarg);
		} else if (option == 'c') {
			first = atoi(optarg);
			end = first + 1;
		} else {
			return KSFT_FAIL;
		}
	}
	CHECK(end <= ARRAY_SIZE(mixtures));

	ksft_print_header();
	ksft_set_plan(end - first);
	ksft_print_msg("seed %ju\n", (uintmax_t)seed);
	for (i = first; i < end; i++)
		ksft_test_result(run_case(&mixtures[i], seed, seconds / (end - first)),
				 "%s\n", mixtures[i].name);
	ksft_finished();
}
