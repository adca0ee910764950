// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The words of the locks, mapped: locks without system calls, death at any
 * instruction of them, what becomes of mappings when spaces, clients and
 * processes come and go, and words that say what nobody should have written.
 */
#include "klock_test.h"

#include <limits.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>

#define PAGE		4096UL
#define PAGE_WORDS	(PAGE / sizeof(uint64_t))
#define CAPACITY	((uint32_t)(2 * PAGE_WORDS))

/* A waiter looks again once a second; by then what a stray write did is mended. */
#define MENDED_NS	(4 * NSEC_PER_SEC * patience())

static uint64_t who(const struct mapper *m)
{
	return m->token | (uint64_t)syscall(SYS_gettid) << KLOCK_WORD_TID_SHIFT;
}

/* What a client may do without the kernel; not by the library, which may be wrong. */
static bool fast_lock(const struct mapper *m, uint32_t id)
{
	uint64_t none = 0;

	return atomic_compare_exchange_strong(&m->words[id], &none, who(m));
}

static bool fast_unlock(const struct mapper *m, uint32_t id)
{
	uint64_t old = m->words[id];

	return (uint32_t)old == m->token && atomic_compare_exchange_strong(&m->words[id], &old, 0);
}

static uint32_t token_at(const struct mapper *m, uint32_t id)
{
	return m->words[id] & KLOCK_WORD_TOKEN;
}

static uint32_t waiters_at(int fd, uint32_t id)
{
	struct klock_ioc_status status;

	return raw_status(fd, id, &status) ? UINT32_MAX : status.waiters;
}

/*
 * A space with two pages of words; one client of the library, and one without, which
 * have mapped it.
 */
FIXTURE(map) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock;		/* 5 */
	struct mapper me;
};

#define SELF FIXTURE_DATA(map)

FIXTURE_SETUP(map)
{
	SPACE_NAME(self->name);
	self->space = make_space(self->name, CAPACITY, 0);
	ASSERT_NE(NULL, self->space);
	self->lock = get_lock(self->space, 5);
	ASSERT_TRUE(map_space(&self->me, self->name, 0, 0));
}

FIXTURE_TEARDOWN(map)
{
	unmap_space(&self->me);
	klock_put(self->lock);
	klock_space_close(self->space);
	EXPECT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
}

/* Nobody holds the lock; who takes it is told @told, and who takes it then is not. */
#define EXPECT_FREE(fd, id, told) do {						\
	EXPECT_EQ(told, raw_lock(fd, id, KLOCK_LOCK_TRY, 0));			\
	EXPECT_EQ(0, raw_unlock(fd, id));					\
	EXPECT_EQ(0, raw_lock(fd, id, KLOCK_LOCK_TRY, 0));			\
	EXPECT_EQ(0, raw_unlock(fd, id));					\
} while (0)

/* ---------------------------------------------------------------- without system calls */

/* All calls that take a lock, of which nobody has it. */
static bool use(struct klock *lock)
{
	const struct timespec far = to_timespec(INT64_MAX);

	return klock_lock(lock) == 0 && klock_unlock(lock) == 0 &&
	       klock_trylock(lock) == 0 && klock_unlock(lock) == 0 &&
	       klock_lock_until(lock, CLOCK_MONOTONIC, &far) == 0 && klock_unlock(lock) == 0 &&
	       klock_lock_until(lock, CLOCK_REALTIME, &far) == 0 && klock_unlock(lock) == 0;
}

/* How a child ends that uses a lock, and then this and another one without system calls. */
static int use_silently(const char *name, unsigned int flags)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags);
		struct klock *first = get_lock(space, 1), *last = get_lock(space, CAPACITY - 1);

		CHECK(use(first));
		forbid_system_calls();
		_exit(use(first) && use(last) ? 0 : 1);
	}
	return reap(pid);
}

TEST_F(map, uncontended_calls_need_no_system_call)
{
	EXPECT_EQ(0, use_silently(self->name, 0));
	/* This shows that one would be seen. */
	EXPECT_EQ(-SIGSYS, use_silently(self->name, KLOCK_NO_FASTPATH));
	EXPECT_EQ(-SIGSYS, use_silently(self->name, KLOCK_ERRORCHECK));
}

static const struct {
	uint32_t mode, flags;
	int end;			/* of use_silently() */
} rights[] = {
	{ 0600, 0, 0 },
	{ 0644, 0, 0 },
	{ 0620, 0, -SIGSYS },
	{ 0602, 0, -SIGSYS },
	{ 0666, 0, -SIGSYS },
	{ 0620, KLOCK_MAPPABLE, 0 },
	{ 0666, KLOCK_MAPPABLE, 0 },
};

TEST_F(map, who_else_may_write_decides)
{
	char name[KLOCK_NAME_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(rights); i++) {
		struct klock_space_attr attr = {
			.capacity = CAPACITY,
			.mode = rights[i].mode,
			.flags = rights[i].flags,
		};
		struct klock_space *space;

		snprintf(name, sizeof(name), "%zu-%.60s", i, self->name);
		ASSERT_EQ(0, klock_space_open(name, KLOCK_CREATE | KLOCK_EXCL, &attr, &space));
		EXPECT_TRUE(use(get_lock(space, 5)));
		EXPECT_EQ(rights[i].end, use_silently(name, 0)) TH_LOG("for %o", rights[i].mode);
		klock_space_close(space);
		EXPECT_EQ(0, klock_space_remove(name, 0));
	}
}

TEST_F(map, who_may_only_look_does_not_lock)
{
	struct klock_space *space = join_space(self->name, KLOCK_READONLY);
	struct klock *lock = get_lock(space, 5);

	EXPECT_EQ(-EACCES, klock_lock(lock));
	EXPECT_EQ(-EACCES, klock_trylock(lock));
	EXPECT_EQ(-EACCES, klock_unlock(lock));
	EXPECT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(KLOCK_HELD, status_of(lock).flags);
	EXPECT_EQ(0, klock_unlock(self->lock));
	klock_space_close(space);
}

/* The filter is that of a thread, and its end may need system calls: so it ends all. */
static void *use_in_thread(void *lock)
{
	CHECK(use(lock));
	forbid_system_calls();
	_exit(use(lock) ? 0 : 1);
	return NULL;
}

TEST_F(map, each_thread_needs_one_call_of_its_own)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *one = join_space(self->name, 0);
		struct klock_space *two = join_space(self->name, 0);
		struct klock *lock = get_lock(two, 7);
		pthread_t thread;

		CHECK(use(get_lock(one, 5)));
		CHECK(pthread_create(&thread, NULL, use_in_thread, lock) == 0);
		pthread_join(thread, NULL);
		_exit(1);
	}
	EXPECT_EQ(0, reap(pid));
}

TEST_F(map, many_spaces_are_all_mapped)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock *lock[300];
		size_t n;

		klock_space_close(self->space);
		for (n = 0; n < ARRAY_SIZE(lock); n++) {
			lock[n] = get_lock(join_space(self->name, 0), 5);
			CHECK(use(lock[n]));
		}
		forbid_system_calls();
		for (n = 0; n < ARRAY_SIZE(lock); n++) {
			CHECK(klock_lock(lock[n]) == 0);
			CHECK(klock_unlock(lock[n]) == 0);
		}
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
}

#define MANY 10000

/* The library makes handles by the thousand, and gives those that were put again. */
static void use_many_handles(struct klock **lock)
{
	for (uint32_t i = 0; i < MANY; i++) {
		CHECK(klock_id(lock[i]) == i);
		CHECK(use(lock[i]));
	}
}

static void get_many_handles(struct klock_space *space, struct klock **lock)
{
	for (uint32_t i = 0; i < MANY; i++)
		lock[i] = get_lock(space, i);
	use_many_handles(lock);
}

TEST_F(map, many_handles_are_all_mapped)
{
	static struct klock *lock[MANY];
	pid_t pid;

	ASSERT_EQ(0, klock_space_resize(self->space, MANY));
	pid = spawn();
	if (pid == 0) {
		struct klock_space *space;

		/* In this child, those of its parent; and then of its own, twice. */
		get_many_handles(self->space, lock);
		for (uint32_t i = 0; i < MANY; i += 2)
			klock_put(lock[i]);
		space = join_space(self->name, 0);
		for (uint32_t i = 0; i < MANY; i += 2)
			lock[i] = get_lock(space, i);
		use_many_handles(lock);

		pid = spawn();
		if (pid == 0) {
			use_many_handles(lock);
			forbid_system_calls();
			use_many_handles(lock);
			_exit(0);
		}
		CHECK(reap(pid) == 0);
		forbid_system_calls();
		use_many_handles(lock);
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
}

/* Nothing is left in a handle of the space and the lock that it was for. */
TEST_F(map, handle_that_was_put_is_given_again)
{
	struct klock *lock = get_lock(self->space, 5), *again;
	struct klock_space *by_ioctl = join_space(self->name, KLOCK_NO_FASTPATH);

	EXPECT_TRUE(use(lock));
	klock_put(lock);
	again = get_lock(by_ioctl, 6);
	EXPECT_EQ(6, klock_id(again));
	ASSERT_EQ(0, klock_lock(again));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(again).flags);
	klock_put(again);
	klock_put(NULL);
	klock_space_close(by_ioctl);
}

/* ---------------------------------------------------------------- both ways at once */

/* What a lock guards, and what those have seen who had it. */
struct guarded {
	_Atomic uint64_t visits, told;
	/* The same, but for a visit that is under way */
	volatile uint64_t before, after;
};

/* @told: what the lock call returned */
static void visit(struct guarded *g, int told)
{
	CHECK(told == 0 || told == KLOCK_OWNER_DIED);
	CHECK(told || g->before == g->after);
	g->after = g->before;
	g->told += told;
	g->before++;
	g->visits++;
	g->after = g->before;
}

enum way { LIBRARY, LIBRARY_TOO, NO_FASTPATH, ERRORCHECK, RAW, WAYS };

/* Locks 5 and 6, and those who visit them, each in its way, until they are told to stop. */
struct visited {
	struct guarded lock[2];
	_Atomic uint64_t by[WAYS];
	atomic_bool stop;
};

static pid_t visit_in_child(const char *name, enum way way, struct visited *v)
{
	static const unsigned int flags[WAYS] = {
		[NO_FASTPATH] = KLOCK_NO_FASTPATH, [ERRORCHECK] = KLOCK_ERRORCHECK,
	};
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags[way]);
		struct klock *lock[2] = { get_lock(space, 5), get_lock(space, 6) };
		int raw = raw_attach(name, 0, 0);

		for (unsigned int n = 0; !v->stop; n = !n) {
			visit(&v->lock[n], way == RAW ? raw_lock(raw, 5 + n, 0, 0) :
							klock_lock(lock[n]));
			v->by[way]++;
			CHECK((way == RAW ? raw_unlock(raw, 5 + n) : klock_unlock(lock[n])) == 0);
		}
		_exit(0);
	}
	return pid;
}

TEST_F(map, both_ways_exclude_each_other)
{
	struct visited *v = shared(sizeof(*v));
	pid_t pid[WAYS];

	for (enum way way = 0; way < WAYS; way++)
		pid[way] = visit_in_child(self->name, way, v);
	for (enum way way = 0; way < WAYS; way++) {
		EXPECT_TRUE(UNTIL(v->by[way] >= 2000));
	}
	v->stop = true;
	for (enum way way = 0; way < WAYS; way++) {
		EXPECT_EQ(0, reap(pid[way])) TH_LOG("way %d", way);
		TH_LOG("%ju visits by way %d", (uintmax_t)v->by[way], way);
	}
	for (int n = 0; n < 2; n++) {
		EXPECT_EQ(v->lock[n].visits, v->lock[n].before);
		EXPECT_EQ(0, v->lock[n].told);
	}
}

/* The same, with one of them killed and begun anew all the time. */
TEST_F_TIMEOUT(map, both_ways_survive_their_killer, 60)
{
	struct visited *v = shared(sizeof(*v));
	const unsigned int kills = 100;
	uint64_t told;
	pid_t pid[WAYS];

	for (enum way way = 0; way < WAYS; way++)
		pid[way] = visit_in_child(self->name, way, v);
	for (unsigned int i = 0; i < kills; i++) {
		enum way way = i % WAYS;
		uint64_t before = v->by[way];

		ASSERT_TRUE(UNTIL(v->by[way] > before + i / 3));
		ASSERT_EQ(-SIGKILL, slay(pid[way]));
		pid[way] = visit_in_child(self->name, way, v);
	}
	v->stop = true;
	for (enum way way = 0; way < WAYS; way++) {
		EXPECT_EQ(0, reap(pid[way])) TH_LOG("way %d", way);
	}
	told = v->lock[0].told + v->lock[1].told;
	TH_LOG("%u killed, %ju told", kills, (uintmax_t)told);
	EXPECT_LT(0, told);
	EXPECT_GE(kills, told);
	/* One who was killed may have been between the two counts. */
	for (int n = 0; n < 2; n++) {
		EXPECT_LE(v->lock[n].visits, v->lock[n].before);
		EXPECT_GE(v->lock[n].visits + kills, v->lock[n].before);
	}
}

/* ---------------------------------------------------------------- death at any instruction */

#ifdef __x86_64__

/*
 * A call is single-stepped once, to know its instructions; then one child for each of
 * them runs into a breakpoint there, and is killed.
 */
typedef int call_t(struct klock *lock);

#define INSTRUCTIONS_MAX	1000

struct walk {
	const char *name;
	call_t *call;
	bool again;		/* it is not the first call of its thread */
	bool locked;		/* it has the lock */
	struct klock *held;	/* somebody else has, until it comes to wait */
	pid_t pid;
	unsigned int system_calls, n;
	unsigned long rip[INSTRUCTIONS_MAX];	/* in the order in which they are first reached */
};

/* A child that is about to make the call, and stops. */
static bool begin_walk(struct walk *w)
{
	int status;

	w->pid = spawn();
	if (w->pid == 0) {
		struct klock_space *space = join_space(w->name, 0);
		struct klock *lock = get_lock(space, 5);

		if (w->again)
			CHECK(use(get_lock(space, 6)));
		if (w->locked)
			CHECK(klock_lock(lock) == 0);
		CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
		__asm__ volatile("int3");
		w->call(lock);
		_exit(0);
	}
	return waitpid(w->pid, &status, 0) == w->pid && WIFSTOPPED(status);
}

/* To its next stop; if it waits for @w->held on the way, that is given up. */
static bool go_on(struct walk *w, int request)
{
	int status = 0;

	if (ptrace(request, w->pid, NULL, NULL))
		return false;
	while (waitpid(w->pid, &status, WNOHANG) == 0) {
		if (w->held && waiters_of(w->held) == 1) {
			klock_unlock(w->held);
			w->held = NULL;
		}
	}
	return WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
}

static struct user_regs_struct regs_of(pid_t pid)
{
	struct user_regs_struct regs = { 0 };

	ptrace(PTRACE_GETREGS, pid, NULL, &regs);
	return regs;
}

static void note(struct walk *w, unsigned long rip)
{
	for (unsigned int i = 0; i < w->n; i++)
		if (w->rip[i] == rip)
			return;
	if (w->n < INSTRUCTIONS_MAX)
		w->rip[w->n++] = rip;
}

/* Goes through the call, up to and with the instruction that it returns to. */
static bool trace(struct walk *w)
{
	struct user_regs_struct regs = regs_of(w->pid);
	unsigned long sp;

	for (; regs.rip != (uintptr_t)w->call; regs = regs_of(w->pid))
		if (!go_on(w, PTRACE_SINGLESTEP))
			return false;
	for (sp = regs.rsp; regs.rsp <= sp; regs = regs_of(w->pid)) {
		note(w, regs.rip);
		/* 0f 05 is syscall. */
		w->system_calls += (ptrace(PTRACE_PEEKTEXT, w->pid, regs.rip, NULL) & 0xffff) ==
				   0x050f;
		if (!go_on(w, PTRACE_SINGLESTEP))
			return false;
	}
	note(w, regs.rip);
	return true;
}

static bool run_to(struct walk *w, unsigned long rip)
{
	long text = ptrace(PTRACE_PEEKTEXT, w->pid, rip, NULL);

	return ptrace(PTRACE_POKETEXT, w->pid, rip, (text & ~0xffL) | 0xcc) == 0 &&
	       go_on(w, PTRACE_CONT) && regs_of(w->pid).rip == rip + 1;
}

/* The next one to be killed at; each takes long where the kernel is slow. */
static unsigned int after(unsigned int i)
{
	return i ? i + slowness() : 1;
}

/* Kills it before each instruction of the call, and after the last one. */
static void kill_at_each(struct __test_metadata *_metadata, SELF *self, struct walk *w,
			 unsigned int system_calls)
{
	struct klock *contended = w->held;
	unsigned int i, held = 0;

	w->name = self->name;
	for (i = 0; i <= w->n; i = after(i)) {
		bool is_held;

		w->held = contended;
		if (contended) {
			ASSERT_EQ(0, klock_lock(contended));
		}
		ASSERT_TRUE(begin_walk(w));
		ASSERT_TRUE(i ? run_to(w, w->rip[i - 1]) : trace(w));
		is_held = !w->held && self->me.words[5];
		ASSERT_EQ(-SIGKILL, slay(w->pid));
		if (w->held) {
			EXPECT_EQ(0, klock_unlock(w->held));
		}
		EXPECT_FREE(self->me.fd, 5, is_held);
		held += is_held;
	}
	TH_LOG("%u instructions, killed %u times with the lock", w->n, held);
	EXPECT_LT(0, held);
	EXPECT_GT(w->n, held);
	EXPECT_EQ(system_calls, w->system_calls);
}

TEST_F(map, died_in_lock)
{
	struct walk w = { .call = klock_lock, .again = true };

	kill_at_each(_metadata, self, &w, 0);
}

TEST_F(map, died_in_trylock)
{
	struct walk w = { .call = klock_trylock, .again = true };

	kill_at_each(_metadata, self, &w, 0);
}

/* It asks who it is, and on how many processors it may run; on one, the kernel takes the lock. */
TEST_F_TIMEOUT(map, died_in_the_first_lock, 60)
{
	struct walk w = { .call = klock_lock };

	kill_at_each(_metadata, self, &w, sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 3);
}

TEST_F_TIMEOUT(map, died_in_a_contended_lock, 60)
{
	struct walk w = { .call = klock_lock, .again = true, .held = self->lock };

	kill_at_each(_metadata, self, &w, 1);
}

TEST_F(map, died_in_unlock)
{
	struct walk w = { .call = klock_unlock, .again = true, .locked = true };

	kill_at_each(_metadata, self, &w, 0);
}

/* The first of those who wait is told, if the word named the dead one; the others are not. */
static void kill_with_waiters(struct __test_metadata *_metadata, SELF *self, int waiters)
{
	struct walk w = {
		.name = self->name, .call = klock_unlock, .again = true, .locked = true,
	};
	unsigned int i, named = 0;

	for (i = 0; i <= w.n; i = after(i)) {
		bool is_named;
		uint32_t token;
		pid_t pid[2];

		ASSERT_TRUE(begin_walk(&w));
		token = token_at(&self->me, 5);
		for (int k = 0; k < waiters; k++) {
			pid[k] = wait_in_child(self->space, self->name, 0, 5);
			ASSERT_LT(0, pid[k]);
		}
		ASSERT_TRUE(i ? run_to(&w, w.rip[i - 1]) : trace(&w));
		is_named = token_at(&self->me, 5) == token;
		ASSERT_EQ(-SIGKILL, slay(w.pid));
		for (int k = 0; k < waiters; k++) {
			EXPECT_EQ(k == 0 ? is_named : 0, reap(pid[k])) TH_LOG("at %u", i);
		}
		EXPECT_FREE(self->me.fd, 5, 0);
		named += is_named;
	}
	TH_LOG("%u instructions, killed %u times with the lock", w.n, named);
	EXPECT_LT(0, named);
	EXPECT_GT(w.n, named);
	EXPECT_EQ(1, w.system_calls);
}

TEST_F_TIMEOUT(map, died_in_unlock_with_a_waiter, 60)
{
	kill_with_waiters(_metadata, self, 1);
}

TEST_F_TIMEOUT(map, died_in_unlock_with_two_waiters, 60)
{
	kill_with_waiters(_metadata, self, 2);
}

/* ---------------------------------------------------------------- how long a thread spins */

static const struct timespec past = { .tv_nsec = 1 };

/* A child that asks for the lock, and does not wait for it, again and again: stopped before. */
static pid_t begin_to_ask(const char *name, bool one_cpu)
{
	pid_t pid = spawn();
	int status;

	if (pid == 0) {
		struct klock_space *space;
		struct klock *lock;

		if (one_cpu)
			CHECK(pin_here(0) == 0);
		space = join_space(name, 0);
		lock = get_lock(space, 5);
		CHECK(use(get_lock(space, 6)));
		CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
		for (;;) {
			__asm__ volatile("int3");
			if (klock_lock_until(lock, CLOCK_MONOTONIC, &past) >= 0)
				CHECK(klock_unlock(lock) == 0);
		}
	}
	return waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) ? pid : -1;
}

/* To its next stop, by PTRACE_SINGLESTEP or PTRACE_CONT. */
static bool resume(pid_t pid, int request)
{
	int status;

	return ptrace(request, pid, NULL, NULL) == 0 &&
	       waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) &&
	       WSTOPSIG(status) == SIGTRAP;
}

/*
 * How often it pauses when it asks once, step by step.  Each pause that it comes to is made
 * a breakpoint: f3 90 is pause, cc 90 are int3 and nop.
 */
static unsigned int find_pauses(pid_t pid)
{
	unsigned long rip = regs_of(pid).rip;
	const unsigned long start = rip;
	unsigned int pauses = 0;
	long text;

	do {
		text = ptrace(PTRACE_PEEKTEXT, pid, rip, NULL);
		if ((text & 0xffff) == 0x90f3) {
			text = (text & ~0xffL) | 0xcc;
			ptrace(PTRACE_POKETEXT, pid, rip, text);
		}
		pauses += (text & 0xffff) == 0x90cc;
		if (!resume(pid, PTRACE_SINGLESTEP))
			return UINT_MAX;
		rip = regs_of(pid).rip;
	} while (rip != start);
	return pauses;
}

/*
 * The same, of one whose pauses were found; if it ever pauses @free_at times, the lock is
 * free then.
 */
static unsigned int count_pauses(pid_t pid, word_t *word, unsigned int free_at)
{
	const unsigned long start = regs_of(pid).rip;
	unsigned int pauses = 0;

	while (resume(pid, PTRACE_CONT)) {
		if (regs_of(pid).rip == start)
			return pauses;
		if (++pauses == free_at)
			*word = 0;
	}
	return UINT_MAX;
}

/* Of who finds spinning worth it, the pauses of one who is disappointed then. */
static unsigned int spin_with_success(pid_t pid, word_t *word, unsigned int pauses, int times,
				      uint64_t holder)
{
	for (int i = 0; i < times; i++) {
		*word = holder;
		if (count_pauses(pid, word, pauses) != pauses || *word)
			return 0;
	}
	*word = holder;
	return count_pauses(pid, word, 0);
}

TEST_F_TIMEOUT(map, spinning_is_learned, 60)
{
	pid_t pid = begin_to_ask(self->name, false);
	uint64_t holder = who(&self->me);
	word_t *word = &self->me.words[5];
	unsigned int afresh, much, i;

	if (sysconf(_SC_NPROCESSORS_ONLN) == 1)
		SKIP(return, "one processor");
	ASSERT_LT(0, pid);
	*word = holder;
	afresh = find_pauses(pid);
	ASSERT_LT(1, afresh);
	EXPECT_EQ(afresh, count_pauses(pid, word, 0));
	much = spin_with_success(pid, word, afresh - 1, 10, holder);
	TH_LOG("%u pauses afresh, %u when they have been worth it", afresh, much);
	EXPECT_LT(afresh, much);
	for (i = 0; i < 10; i++)
		EXPECT_GE(much, count_pauses(pid, word, 0));
	EXPECT_EQ(afresh, count_pauses(pid, word, 0));
	EXPECT_EQ(-SIGKILL, slay(pid));
	*word = 0;
}

/* Each time a quarter longer, so that it would learn to spin for ever. */
TEST_F_TIMEOUT(map, spinning_has_a_bound, 60)
{
	pid_t pid = begin_to_ask(self->name, false);
	unsigned int pauses, free_at = 10;
	word_t *word = &self->me.words[5];

	if (sysconf(_SC_NPROCESSORS_ONLN) == 1)
		SKIP(return, "one processor");
	ASSERT_LT(0, pid);
	*word = who(&self->me);
	ASSERT_LT(1, find_pauses(pid));
	do {
		free_at += free_at / 4;
		*word = who(&self->me);
		pauses = count_pauses(pid, word, free_at);
	} while (pauses == free_at && free_at < 10000);
	TH_LOG("%u pauses at most", pauses);
	EXPECT_GE(1000, pauses);
	EXPECT_LT(200, pauses);
	EXPECT_EQ(-SIGKILL, slay(pid));
	*word = 0;
}

TEST_F(map, nobody_spins_on_one_processor)
{
	pid_t pid = begin_to_ask(self->name, true);
	word_t *word = &self->me.words[5];

	ASSERT_LT(0, pid);
	*word = who(&self->me);
	EXPECT_EQ(0, find_pauses(pid));
	EXPECT_EQ(-SIGKILL, slay(pid));
	*word = 0;
}

/* A dead one, and nobody: only the kernel can help. */
TEST_F(map, nobody_spins_for_who_cannot_run)
{
	const uint64_t nobodys[] = { KLOCK_WORD_DIED, KLOCK_WORD_WAITERS, KLOCK_WORD_NONE };
	pid_t pid = begin_to_ask(self->name, false);
	word_t *word = &self->me.words[5];

	ASSERT_LT(0, pid);
	for (unsigned int i = 0; i < ARRAY_SIZE(nobodys); i++) {
		*word = nobodys[i];
		EXPECT_EQ(0, find_pauses(pid)) TH_LOG("pattern %u", i);
	}
	EXPECT_EQ(-SIGKILL, slay(pid));
	*word = 0;
}

#endif

/* ---------------------------------------------------------------- what comes and goes */

TEST_F(map, a_table_that_shrinks_and_grows_stays_mapped)
{
	struct klock *last = get_lock(self->space, CAPACITY - 1);

	EXPECT_TRUE(use(last));
	ASSERT_EQ(0, klock_space_resize(self->space, 6));
	for (uint32_t id = 0; id < CAPACITY; id++) {
		EXPECT_EQ(id < 6 ? 0 : KLOCK_WORD_NONE, self->me.words[id]);
	}
	EXPECT_EQ(-EINVAL, klock_lock(last));
	EXPECT_EQ(-EINVAL, klock_trylock(last));
	EXPECT_TRUE(use(self->lock));
	ASSERT_TRUE(fast_lock(&self->me, 5));
	EXPECT_EQ(-EBUSY, klock_space_resize(self->space, 5));
	ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY + 1));
	for (uint32_t id = 0; id < CAPACITY + PAGE_WORDS; id++) {
		EXPECT_EQ(id == 5 ? who(&self->me) : id <= CAPACITY ? 0 : KLOCK_WORD_NONE,
			  self->me.words[id]);
	}
	EXPECT_TRUE(use(last));
	EXPECT_TRUE(fast_lock(&self->me, CAPACITY));
	EXPECT_EQ(-EBUSY, klock_space_resize(self->space, CAPACITY));
	EXPECT_EQ(-EBUSY, klock_trylock(get_lock(self->space, CAPACITY)));
	EXPECT_TRUE(fast_unlock(&self->me, CAPACITY));
}

/* How a child ends that reads a word and writes one. */
static int touch(const char *name, uint32_t read, uint32_t write)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct mapper m;

		CHECK(map_space(&m, name, 0, 0));
		CHECK(m.words[read] == 0 || m.words[read] == KLOCK_WORD_NONE);
		m.words[write] = KLOCK_WORD_NONE;
		_exit(0);
	}
	return reap(pid);
}

TEST_F(map, only_what_never_was_is_sigbus)
{
	const uint32_t end = KLOCK_CAPACITY_MAX - 1;

	ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY + 1));
	EXPECT_EQ(0, touch(self->name, CAPACITY, CAPACITY + PAGE_WORDS - 1));
	EXPECT_EQ(-SIGBUS, touch(self->name, 0, CAPACITY + PAGE_WORDS));
	EXPECT_EQ(-SIGBUS, touch(self->name, 0, end));
	ASSERT_EQ(0, klock_space_resize(self->space, 1));
	EXPECT_EQ(0, touch(self->name, CAPACITY, CAPACITY + PAGE_WORDS - 1));
	ASSERT_EQ(0, klock_space_resize(self->space, KLOCK_CAPACITY_MAX));
	EXPECT_EQ(0, touch(self->name, CAPACITY + PAGE_WORDS, end));
}

/* A child that visits lock @id whenever there is one, until it is told to stop. */
static pid_t visit_if_there(const char *name, unsigned int flags, uint32_t id, struct guarded *g,
			    atomic_bool *stop)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags);
		uint32_t seed = getpid();
		struct klock *lock;

		while (klock_retrieve(space, id, 0, &lock) == -EINVAL)
			;	/* the others are at work already */
		while (!*stop) {
			int ret = klock_lock(lock);

			if (ret != -EINVAL) {
				visit(g, ret);
				CHECK(klock_unlock(lock) == 0);
			}
			for (volatile uint32_t i = rnd(&seed) % 2000; i; i--)
				;
		}
		_exit(0);
	}
	return pid;
}

/* Race 1: there is never more than one word to a lock, nor two holders. */
TEST_F_TIMEOUT(map, a_word_that_goes_and_comes_back_excludes, 60)
{
	struct guarded *g = shared(sizeof(*g));
	atomic_bool *stop = shared(sizeof(*stop));
	unsigned int shrunk = 0, refused = 0;
	const uint32_t id = PAGE_WORDS;
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 2 * NSEC_PER_SEC;
	pid_t pid[3];

	for (int i = 0; i < 3; i++)
		pid[i] = visit_if_there(self->name, i == 2 ? KLOCK_NO_FASTPATH : 0, id, g, stop);
	ASSERT_TRUE(UNTIL(g->visits > 100));
	while (now_ns(CLOCK_MONOTONIC) < end || shrunk < 20) {
		uint64_t before = g->visits;
		int ret = klock_space_resize(self->space, id);

		if (ret == 0) {
			shrunk++;
			ASSERT_EQ(KLOCK_WORD_NONE, self->me.words[id]);
			before = g->visits;
			ASSERT_EQ(0, klock_space_resize(self->space, CAPACITY));
		} else {
			refused++;
			ASSERT_EQ(-EBUSY, ret);
		}
		if (shrunk % 4 == 0)
			UNTIL(g->visits > before);
	}
	*stop = true;
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	TH_LOG("%u times shrunk, %u times refused, %ju visits", shrunk, refused,
	       (uintmax_t)g->visits);
	EXPECT_LE(20, shrunk);
	EXPECT_EQ(g->visits, g->before);
	EXPECT_EQ(0, g->told);
}

/* A child that takes lock 1 as soon as its word is there; then it is there for ioctls, too. */
struct finder {
	_Atomic uint32_t missed, found;
};

static pid_t find_in_child(const char *name, struct finder *f)
{
	pid_t pid = spawn();

	if (pid == 0) {
		int fd = raw_attach(name, 0, 0);
		struct mapper m;

		CHECK(map_space(&m, name, 0, 0));
		for (;; f->found++) {
			while (m.words[1] != KLOCK_WORD_NONE)
				;
			f->missed++;
			while (!fast_lock(&m, 1))
				;
			CHECK(raw_lock(fd, 1, KLOCK_LOCK_TRY, 0) == -EBUSY);
			CHECK(raw_lock(fd, 1, KLOCK_LOCK_DEADLINE, 0) == -ETIMEDOUT);
			CHECK(raw_unlock(m.fd, 1) == 0);
		}
	}
	return pid;
}

TEST_F(map, a_word_that_is_back_is_back_for_ioctls)
{
	struct finder *f = shared(sizeof(*f));
	pid_t pid = find_in_child(self->name, f);

	for (uint32_t i = 0; i < 50; i++) {
		ASSERT_TRUE(UNTIL(klock_space_resize(self->space, 1) == 0));
		ASSERT_TRUE(UNTIL(f->missed == i + 1));
		ASSERT_EQ(0, klock_space_resize(self->space, 1 << 16));
		ASSERT_TRUE(UNTIL(f->found == i + 1 || waitpid(pid, NULL, WNOHANG)));
		ASSERT_EQ(i + 1, f->found);
	}
	EXPECT_EQ(-SIGKILL, slay(pid));
}

/* Race 3, of those who look: what a refused shrink has to put aside is still there. */
TEST_F(map, a_refused_shrink_hides_no_death)
{
	atomic_uint *looks = shared(sizeof(*looks));
	pid_t pid = hold_in_child(self->space, self->name, 0, 6);

	ASSERT_LT(0, pid);
	EXPECT_EQ(-SIGKILL, slay(pid));
	ASSERT_TRUE(fast_lock(&self->me, CAPACITY - 1));
	pid = spawn();
	if (pid == 0) {
		struct klock *lock = get_lock(join_space(self->name, KLOCK_READONLY), 6);

		for (; *looks < 20000; ++*looks)
			CHECK(status_of(lock).flags == KLOCK_DIED);
		_exit(0);
	}
	while (waitpid(pid, NULL, WNOHANG) == 0) {
		ASSERT_EQ(-EBUSY, klock_space_resize(self->space, 6));
	}
	EXPECT_EQ(20000, *looks);
	EXPECT_FREE(self->me.fd, 6, KLOCK_OWNER_DIED);
}

TEST_F(map, nobody_takes_a_lock_of_a_removed_space)
{
	struct klock_space *old = join_space(self->name, 0), *space;
	struct klock *held = get_lock(old, 7);
	pid_t waiter;
	int raw;

	/* Held in both ways, waited for, dead, and free */
	ASSERT_EQ(0, klock_lock(self->lock));
	ASSERT_EQ(0, klock_lock(held));
	ASSERT_TRUE(fast_lock(&self->me, 8));
	waiter = spawn();
	if (waiter == 0) {
		struct klock *mine = get_lock(join_space(self->name, 0), 7);

		_exit(klock_lock(mine) == -ESTALE ? 0 : 1);
	}
	ASSERT_TRUE(UNTIL(waiters_of(held) == 1));
	raw = raw_attach(self->name, 0, 0);
	ASSERT_EQ(0, raw_lock(raw, 9, 0, 0));
	close(raw);

	ASSERT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
	EXPECT_EQ(0, reap(waiter));
	for (uint32_t id = 0; id < CAPACITY; id++) {
		bool is_held = id == 5 || id == 7 || id == 8;

		if (is_held) {
			EXPECT_TRUE(self->me.words[id] & KLOCK_WORD_WAITERS);
		} else {
			EXPECT_EQ(KLOCK_WORD_NONE, token_at(&self->me, id));
		}
		EXPECT_FALSE(fast_lock(&self->me, id));
	}
	space = make_space(self->name, CAPACITY, 0);
	ASSERT_NE(NULL, space);
	EXPECT_TRUE(use(get_lock(space, 5)));
	EXPECT_EQ(-ESTALE, klock_lock(get_lock(self->space, 6)));
	EXPECT_EQ(-ESTALE, klock_trylock(get_lock(self->space, 6)));

	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_EQ(0, klock_unlock(held));
	EXPECT_FALSE(fast_unlock(&self->me, 8));
	EXPECT_EQ(0, raw_unlock(self->me.fd, 8));
	for (uint32_t id = 5; id < 9; id++) {
		EXPECT_EQ(KLOCK_WORD_NONE, token_at(&self->me, id));
	}
	EXPECT_EQ(-ESTALE, klock_lock(self->lock));
	EXPECT_TRUE(use(get_lock(space, 5)));
	klock_space_close(space);
}

/* A child that visits all locks until there are none any more. */
static pid_t visit_until_removed(const char *name, unsigned int flags, struct guarded *g,
				 uint32_t n)
{
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags);
		struct klock *lock[8];

		for (uint32_t id = 0; id < n; id++)
			lock[id] = get_lock(space, id);
		for (uint32_t i = 0;; i = (i + 1) % n) {
			int ret = klock_lock(lock[i]);

			if (ret == -ESTALE)
				_exit(0);
			visit(&g[i], ret);
			CHECK(klock_unlock(lock[i]) == 0);
		}
	}
	return pid;
}

static uint64_t visits_of(const struct guarded *g, uint32_t n)
{
	uint64_t visits = 0;

	while (n)
		visits += g[--n].visits;
	return visits;
}

TEST_F_TIMEOUT(map, remove_by_force_ends_it_at_full_speed, 60)
{
	const uint32_t n = 4;

	for (int round = 0; round < 15; round++) {
		struct guarded *g = shared(n * sizeof(*g));
		char name[KLOCK_NAME_SIZE];
		struct mapper m;
		uint64_t before;
		pid_t pid[3];

		snprintf(name, sizeof(name), "%d-%.60s", round, self->name);
		ASSERT_TRUE(map_space(&m, name, KLOCK_ATTACH_CREATE, n));
		for (int i = 0; i < 3; i++)
			pid[i] = visit_until_removed(name, i ? 0 : KLOCK_NO_FASTPATH, g, n);
		ASSERT_TRUE(UNTIL(raw_info(m.fd).clients == 4 && visits_of(g, n) > 300));
		ASSERT_EQ(0, klock_space_remove(name, KLOCK_FORCE));
		before = visits_of(g, n);
		for (int i = 0; i < 3; i++) {
			EXPECT_EQ(0, reap(pid[i]));
		}
		/* Each of them was in the middle of one at most. */
		EXPECT_GE(before + 3, visits_of(g, n));
		for (uint32_t id = 0; id < n; id++) {
			EXPECT_EQ(KLOCK_WORD_NONE, token_at(&m, id));
			EXPECT_EQ(g[id].visits, g[id].before);
		}
		unmap_space(&m);
	}
}

TEST_F(map, whose_lock_was_broken_unlocks_nobody_elses)
{
	struct klock *other = get_lock(join_space(self->name, 0), 5);
	struct klock_status before;

	ASSERT_EQ(0, klock_lock(self->lock));
	ASSERT_EQ(0, klock_break(self->space, 5, status_of(self->lock).token));
	EXPECT_EQ(KLOCK_WORD_DIED, self->me.words[5]);
	EXPECT_EQ(-EPERM, klock_unlock(self->lock));
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock(other));
	before = status_of(other);
	EXPECT_EQ(-EPERM, klock_unlock(self->lock));
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(other).flags);
	EXPECT_EQ(before.token, status_of(other).token);
	EXPECT_EQ(-EAGAIN, klock_break(self->space, 5, before.token - 1));
	EXPECT_EQ(0, klock_unlock(other));
	EXPECT_EQ(-ENOENT, klock_break(self->space, 5, 0));
	EXPECT_FREE(self->me.fd, 5, 0);
}

/* Beside those who lock and unlock: only what was broken cannot be unlocked. */
TEST_F(map, broken_at_full_speed)
{
	struct { _Atomic uint64_t locked, told, refused; } *count = shared(sizeof(*count));
	atomic_bool *stop = shared(sizeof(*stop));
	uint64_t broken = 0;
	pid_t pid[2];

	for (int i = 0; i < 2; i++) {
		pid[i] = spawn();
		if (pid[i] == 0) {
			struct klock *lock = get_lock(join_space(self->name, 0), 5);

			while (!*stop) {
				int ret = klock_lock(lock);

				CHECK(ret >= 0);
				count->told += ret;
				ret = klock_unlock(lock);
				CHECK(ret == 0 || ret == -EPERM);
				count->refused += ret != 0;
				count->locked++;
			}
			_exit(0);
		}
	}
	while (count->locked < 20000 || broken < 20) {
		int ret = klock_break(self->space, 5, 0);

		ASSERT_TRUE(ret == 0 || ret == -ENOENT);
		broken += ret == 0;
		ASSERT_EQ(-ENOENT, klock_break(self->space, 6, 0));
	}
	*stop = true;
	for (int i = 0; i < 2; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	TH_LOG("%ju broken, %ju refused, %ju told", (uintmax_t)broken,
	       (uintmax_t)count->refused, (uintmax_t)count->told);
	EXPECT_EQ(broken, count->refused);
	EXPECT_GE(broken, count->told);
	EXPECT_GE(count->told + 1, broken);	/* the last one may be still to be told */
}

TEST_F(map, close_releases_what_was_taken_in_words)
{
	struct klock_space *space = join_space(self->name, 0);
	pid_t pid;

	ASSERT_EQ(0, klock_lock(get_lock(space, 5)));
	ASSERT_EQ(0, klock_lock(get_lock(space, CAPACITY - 1)));
	pid = wait_in_child(self->space, self->name, 0, 5);
	ASSERT_LT(0, pid);
	klock_space_close(space);
	EXPECT_EQ(KLOCK_OWNER_DIED, reap(pid));
	EXPECT_FREE(self->me.fd, 5, 0);
	EXPECT_FREE(self->me.fd, CAPACITY - 1, KLOCK_OWNER_DIED);
}

TEST_F(map, exec_releases_what_was_taken_in_words)
{
	pid_t pid = spawn();

	if (pid == 0) {
		CHECK(klock_lock(get_lock(join_space(self->name, 0), 5)) == 0);
		execlp("sleep", "sleep", "1000", NULL);
		_exit(1);
	}
	EXPECT_TRUE(UNTIL(status_of(self->lock).flags == KLOCK_DIED));
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	EXPECT_FREE(self->me.fd, 5, KLOCK_OWNER_DIED);
	EXPECT_EQ(-SIGKILL, slay(pid));
}

/* How many mappings of words there are in this process. */
static unsigned int count_mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned int n = 0;
	char line[512];

	while (file && fgets(line, sizeof(line), file))
		n += !!strstr(line, "[klock_space]");
	if (file)
		fclose(file);
	return n;
}

TEST_F(map, fork_leaves_no_mapping)
{
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->lock));
	ASSERT_EQ(2, count_mappings());
	ASSERT_EQ(-1, madvise((void *)self->me.words, MAP_SIZE, MADV_DOFORK));
	EXPECT_EQ(EINVAL, errno);
	ASSERT_EQ(2, raw_info(self->me.fd).clients);
	pid = spawn();
	if (pid == 0) {
		struct klock *other;

		CHECK(count_mappings() == 0);
		CHECK(klock_trylock(self->lock) == -EBUSY);
		CHECK(klock_unlock(self->lock) == -EPERM);
		CHECK(count_mappings() == 1);
		other = get_lock(self->space, 6);
		CHECK(raw_info(self->me.fd).clients == 3);
		CHECK(use(other) && klock_lock(other) == 0);
		forbid_system_calls();
		_exit(klock_unlock(other) || klock_lock(other) ? 1 : 0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(2, raw_info(self->me.fd).clients);
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, status_of(self->lock).flags);
	EXPECT_EQ(0, klock_unlock(self->lock));
	EXPECT_FREE(self->me.fd, 6, KLOCK_OWNER_DIED);
}

/* A child of clone(), in which no handler runs, that is the parent's own client no more. */
TEST_F(map, clone_leaves_no_mapping)
{
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->lock));
	pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) {
		if (klock_trylock(self->lock) != -EBUSY || klock_unlock(self->lock) != -EPERM ||
		    !use(get_lock(self->space, 6)))
			_exit(1);
		_exit(token_at(&self->me, 5) ? 2 : 3);
	}
	EXPECT_EQ(-SIGSEGV, reap(pid));
	EXPECT_EQ(0, klock_unlock(self->lock));
}

TEST_F(map, two_spaces_of_a_process_exclude_each_other)
{
	struct guarded *g = shared(2 * sizeof(*g));
	struct klock *other = get_lock(join_space(self->name, 0), 5);
	pid_t pid;

	ASSERT_EQ(0, klock_lock(self->lock));
	EXPECT_EQ(-EBUSY, klock_trylock(other));
	EXPECT_EQ(-EPERM, klock_unlock(other));
	EXPECT_EQ(0, klock_unlock(self->lock));
	ASSERT_EQ(0, klock_lock(other));
	EXPECT_EQ(-EBUSY, klock_trylock(self->lock));
	EXPECT_EQ(-EPERM, klock_unlock(self->lock));
	pid = wait_in_child(self->space, self->name, 0, 5);
	ASSERT_LT(0, pid);
	EXPECT_EQ(0, klock_unlock(other));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, self->me.words[5]);
}

TEST_F(map, a_mapping_that_outlives_its_client)
{
	struct klock_ioc_status status;
	struct mapper late;
	pid_t pid;

	ASSERT_TRUE(map_space(&late, self->name, 0, 0));
	ASSERT_TRUE(fast_lock(&late, 5));
	close(late.fd);
	EXPECT_EQ(KLOCK_WORD_DIED, self->me.words[5]);
	EXPECT_FREE(self->me.fd, 5, KLOCK_OWNER_DIED);

	/* What it takes now nobody will search for. */
	ASSERT_TRUE(fast_lock(&late, 5));
	ASSERT_TRUE(fast_lock(&late, CAPACITY - 1));
	for (int i = 0; i < 2; i++) {
		uint32_t id = i ? CAPACITY - 1 : 5;

		ASSERT_EQ(0, raw_status(self->me.fd, id, &status));
		EXPECT_EQ(KLOCK_STATUS_DIED, status.flags);
		EXPECT_EQ(0, status.token);
		EXPECT_EQ(-ENOENT, raw_break(self->me.fd, id, 0));
	}
	EXPECT_EQ(0, raw_info(self->me.fd).held);
	EXPECT_FREE(self->me.fd, 5, KLOCK_OWNER_DIED);
	EXPECT_EQ(KLOCK_OWNER_DIED, klock_lock(get_lock(self->space, CAPACITY - 1)));
	EXPECT_EQ(0, klock_unlock(get_lock(self->space, CAPACITY - 1)));

	/* Nor can it keep a waiter. */
	ASSERT_EQ(0, klock_lock(self->lock));
	pid = wait_in_child(self->space, self->name, 0, 5);
	ASSERT_LT(0, pid);
	late.words[5] = who(&late);
	EXPECT_EQ(KLOCK_OWNER_DIED, reap(pid));
	EXPECT_EQ(-EPERM, klock_unlock(self->lock));
	EXPECT_EQ(1, raw_info(self->me.fd).clients - 1);
	munmap((void *)late.words, MAP_SIZE);
	close(late.space_fd);
}

TEST_F(map, a_mapping_that_outlives_its_space)
{
	char name[KLOCK_NAME_SIZE];
	struct mapper late, new;

	snprintf(name, sizeof(name), "o-%.60s", self->name);
	ASSERT_TRUE(map_space(&late, name, KLOCK_ATTACH_CREATE, CAPACITY));
	close(late.fd);
	close(late.space_fd);		/* the mapping keeps it */
	ASSERT_EQ(0, klock_space_remove(name, 0));
	ASSERT_TRUE(map_space(&new, name, KLOCK_ATTACH_CREATE, CAPACITY));
	for (uint32_t id = 0; id < CAPACITY; id++) {
		EXPECT_EQ(KLOCK_WORD_NONE, token_at(&late, id));
		EXPECT_FALSE(fast_lock(&late, id));
		late.words[id] = new.token;
		EXPECT_EQ(0, new.words[id]);
	}
	EXPECT_EQ(0, raw_lock(new.fd, 5, KLOCK_LOCK_TRY, 0));
	munmap((void *)late.words, MAP_SIZE);
	unmap_space(&new);
	EXPECT_EQ(0, klock_space_remove(name, 0));
}

/* ---------------------------------------------------------------- mmap() */

/* What mmap() of a space descriptor says: 0 or -errno. */
static int try_mmap(int space_fd, size_t size, int prot, int flags, off_t offset)
{
	void *mem = mmap(NULL, size, prot, flags, space_fd, offset);

	if (mem == MAP_FAILED)
		return -errno;
	munmap(mem, size);
	return 0;
}

TEST_F(map, what_cannot_be_mapped)
{
	const int rw = PROT_READ | PROT_WRITE;
	const int fd = self->me.space_fd;
	int exec;

	EXPECT_EQ(0, try_mmap(fd, PAGE, rw, MAP_SHARED, 0));
	EXPECT_EQ(0, try_mmap(fd, PAGE, PROT_READ, MAP_SHARED, 0));
	EXPECT_EQ(0, try_mmap(fd, MAP_SIZE, rw, MAP_SHARED, 0));
	EXPECT_EQ(0, try_mmap(fd, PAGE, rw, MAP_SHARED, MAP_SIZE - PAGE));
	EXPECT_EQ(0, try_mmap(fd, 1, rw, MAP_SHARED, 0));
	EXPECT_EQ(-EINVAL, try_mmap(fd, PAGE, rw, MAP_PRIVATE, 0));
	EXPECT_EQ(-EINVAL, try_mmap(fd, PAGE, PROT_READ, MAP_PRIVATE, 0));
	EXPECT_EQ(-EINVAL, try_mmap(fd, MAP_SIZE + 1, rw, MAP_SHARED, 0));
	EXPECT_EQ(-EINVAL, try_mmap(fd, MAP_SIZE, rw, MAP_SHARED, PAGE));
	EXPECT_EQ(-EINVAL, try_mmap(fd, PAGE, rw, MAP_SHARED, MAP_SIZE));
	EXPECT_EQ(-EINVAL, try_mmap(fd, PAGE, rw, MAP_SHARED,
				    (off_t)1 << (8 * sizeof(off_t) - 12)));
	/* Newer kernels themselves map no such descriptor to be executed. */
	exec = try_mmap(fd, PAGE, rw | PROT_EXEC, MAP_SHARED, 0);
	EXPECT_TRUE(exec == -EINVAL || exec == -EPERM);
	EXPECT_EQ(-ENODEV, try_mmap(self->me.fd, PAGE, rw, MAP_SHARED, 0));
}

TEST_F(map, what_cannot_be_done_to_a_mapping)
{
	char *mem = (char *)self->me.words;
	void *moved;

	EXPECT_EQ(-1, mprotect(mem, PAGE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(MAP_FAILED, mremap(mem, MAP_SIZE, MAP_SIZE + PAGE, MREMAP_MAYMOVE));
	EXPECT_EQ(-1, madvise(mem, MAP_SIZE, MADV_DOFORK));
	EXPECT_EQ(-1, madvise(mem, MAP_SIZE, MADV_DODUMP));
	EXPECT_EQ(-1, madvise(mem, MAP_SIZE, MADV_DONTNEED));
	/* This may be done, and changes nothing. */
	self->me.words[5] = 7;
	moved = mremap(mem, MAP_SIZE, MAP_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       mem - (1UL << 4 * sizeof(long)));
	ASSERT_NE(MAP_FAILED, moved);
	self->me.words = moved;
	EXPECT_EQ(7, self->me.words[5]);
	EXPECT_EQ(0, mprotect(moved, PAGE, PROT_READ));
	EXPECT_EQ(-1, mprotect(moved, PAGE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(0, mprotect(moved, PAGE, PROT_READ | PROT_WRITE));
	EXPECT_FREE(self->me.fd, 5, KLOCK_OWNER_DIED);	/* nobody is 7 */
}

/* What the kernel says of the mapping: not dumped, not copied, not expanded, not pinned. */
TEST_F(map, flags_of_a_mapping)
{
	static const char * const flags[] = { " sh", " dd", " dc", " de", " io", " pf" };
	FILE *file = fopen("/proc/self/smaps", "re");
	bool found = false;
	char line[512];

	ASSERT_NE(NULL, file);
	while (fgets(line, sizeof(line), file)) {
		found |= !!strstr(line, "[klock_space]");
		if (found && !strncmp(line, "VmFlags:", 8))
			break;
	}
	fclose(file);
	ASSERT_TRUE(found);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		EXPECT_NE(NULL, strstr(line, flags[i])) TH_LOG("%s in %s", flags[i], line);
	}
	EXPECT_EQ(NULL, strstr(line, " me"));		/* may be executed */
}

/* Who may map is who may write, and where nobody else may, or by the wish of who made it. */
TEST_F(map, who_may_map)
{
	struct klock_ioc_space_fd arg = { 0 };
	struct klock_ioc_attach attach = { .flags = KLOCK_ATTACH_CREATE };
	int fd = raw_attach(self->name, KLOCK_ATTACH_READONLY, 0), space_fd;

	space_fd = raw_ioctl(fd, KLOCK_IOC_SPACE_FD, &arg);
	EXPECT_EQ(-EACCES, try_mmap(space_fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0));
	EXPECT_EQ(-EACCES, try_mmap(space_fd, PAGE, PROT_READ, MAP_SHARED, 0));
	close(space_fd);
	close(fd);

	for (size_t i = 0; i < ARRAY_SIZE(rights); i++) {
		arg.token = 0;
		attach.mode = rights[i].mode;
		attach.space_flags = rights[i].flags;
		snprintf(attach.name, sizeof(attach.name), "%zu-%.60s", i, self->name);
		fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
		ASSERT_LT(0, raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach));
		space_fd = raw_ioctl(fd, KLOCK_IOC_SPACE_FD, &arg);
		EXPECT_EQ(rights[i].end ? -EACCES : 0,
			  try_mmap(space_fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0))
			TH_LOG("for %o", rights[i].mode);
		close(space_fd);
		close(fd);
		EXPECT_EQ(0, klock_space_remove(attach.name, 0));
	}
}

/* ---------------------------------------------------------------- what a close costs */

/* The least time, in ns, that the last close of a client with one word takes. */
static uint64_t close_ns(const char *name)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 30; i++) {
		struct mapper m;
		uint64_t begin, ns;

		CHECK(map_space(&m, name, 0, 0));
		CHECK(fast_lock(&m, 5));
		begin = now_ns(CLOCK_MONOTONIC);
		close(m.fd);
		ns = now_ns(CLOCK_MONOTONIC) - begin;
		if (ns < least)
			least = ns;
		m.fd = -1;
		CHECK(m.words[5] == KLOCK_WORD_DIED);
		m.words[5] = 0;
		unmap_space(&m);
	}
	return least;
}

TEST_F(map, who_touched_one_page_pays_for_one)
{
	uint64_t small, large;

	ASSERT_EQ(0, klock_space_resize(self->space, PAGE_WORDS));
	small = close_ns(self->name);
	ASSERT_EQ(0, klock_space_resize(self->space, KLOCK_CAPACITY_MAX));
	large = close_ns(self->name);
	TH_LOG("%ju ns of %ju locks, %ju ns of %u", (uintmax_t)small, (uintmax_t)PAGE_WORDS,
	       (uintmax_t)large, KLOCK_CAPACITY_MAX);
	EXPECT_GT(5 * small, large);
}

TEST_F(map, all_that_was_touched_is_released)
{
	pid_t pid;

	ASSERT_EQ(0, klock_space_resize(self->space, KLOCK_CAPACITY_MAX));
	pid = spawn();
	if (pid == 0) {
		struct mapper m;

		CHECK(map_space(&m, self->name, 0, 0));
		for (uint32_t id = 0; id < KLOCK_CAPACITY_MAX; id += PAGE_WORDS + 1)
			CHECK(fast_lock(&m, id));
		raise(SIGKILL);
	}
	EXPECT_EQ(-SIGKILL, reap(pid));
	for (uint32_t id = 0; id < KLOCK_CAPACITY_MAX; id++) {
		EXPECT_EQ(id % (PAGE_WORDS + 1) ? 0 : KLOCK_WORD_DIED, self->me.words[id]);
	}
}

/* ---------------------------------------------------------------- words of any kind */

/* Whom a word names. */
enum named { NOBODY, ME, OTHER, DEAD, NEVER, NO_LOCK, NAMES };

/* Each of them, with and without DIED, WAITERS, and something in the upper half. */
#define PATTERNS	(NAMES * 8)
#define LOCKS		64U		/* more than patterns */

static const char *describe(unsigned int i)
{
	static const char * const named[] = {
		"nobody", "me", "another", "one that is dead", "one that never was", "no lock",
	};
	static char text[100];

	snprintf(text, sizeof(text), "%s%s%s%s", named[i % NAMES], i / NAMES & 1 ? ", died" : "",
		 i / NAMES & 2 ? ", waiters" : "", i / NAMES & 4 ? ", upper half" : "");
	return text;
}

static uint64_t pattern(const uint32_t token[NAMES], unsigned int i)
{
	return token[i % NAMES] | (i / NAMES & 1 ? KLOCK_WORD_DIED : 0) |
	       (i / NAMES & 2 ? KLOCK_WORD_WAITERS : 0) |
	       (i / NAMES & 4 ? 0x9e3779b97f4a7c15ULL << KLOCK_WORD_TID_SHIFT : 0);
}

static bool is_live(unsigned int i)
{
	return i % NAMES == ME || i % NAMES == OTHER;
}

/* What the next one to take the lock is told. */
static int told_of(unsigned int i)
{
	return i % NAMES == DEAD || i % NAMES == NEVER || i / NAMES & 1;
}

/*
 * A client, the words that it has mapped, and another client. In the variant
 * "library" the client is one of the library, and the words are mapped by another one.
 */
FIXTURE(words) {
	char name[KLOCK_NAME_SIZE];
	struct klock_space *space;
	struct klock *lock[LOCKS];
	struct mapper other;
	int fd;
	uint32_t token[NAMES];
};

FIXTURE_VARIANT(words) {
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(words, mapped) { .flags = 0 };
FIXTURE_VARIANT_ADD(words, ioctl) { .flags = KLOCK_NO_FASTPATH };

FIXTURE_SETUP(words)
{
	struct mapper dead;

	SPACE_NAME(self->name);
	klock_space_close(make_space(self->name, LOCKS, 0));	/* one that can be mapped */
	self->space = join_space(self->name, variant->flags);
	ASSERT_NE(NULL, self->space);
	self->fd = klock_space_fd(self->space);
	for (uint32_t id = 0; id < LOCKS; id++)
		self->lock[id] = get_lock(self->space, id);
	ASSERT_TRUE(map_space(&self->other, self->name, 0, 0));
	ASSERT_TRUE(map_space(&dead, self->name, 0, 0));
	unmap_space(&dead);

	ASSERT_EQ(0, klock_lock(self->lock[0]));
	self->token[ME] = token_at(&self->other, 0);
	ASSERT_EQ(0, klock_unlock(self->lock[0]));
	self->token[OTHER] = self->other.token;
	self->token[DEAD] = dead.token;
	self->token[NEVER] = KLOCK_WORD_NONE - 1;
	self->token[NO_LOCK] = KLOCK_WORD_NONE;
}

FIXTURE_TEARDOWN(words)
{
	unmap_space(&self->other);
	klock_space_close(self->space);
	klock_space_remove(self->name, KLOCK_FORCE);
}

/* Each pattern is in the word of its number. */
static void fill(FIXTURE_DATA(words) *self)
{
	for (unsigned int i = 0; i < PATTERNS; i++)
		self->other.words[i] = pattern(self->token, i);
}

#define EXPECT_OF(i, expected, seen) do {						\
	const unsigned int __nr = (i);							\
											\
	EXPECT_EQ(expected, seen) TH_LOG("of pattern %u: %s", __nr, describe(__nr));	\
} while (0)

/* Taken if nobody alive has it; and what is unlocked is as if it had never been written. */
static void expect_taken(struct __test_metadata *_metadata, FIXTURE_DATA(words) *self,
			 unsigned int i, int ret, int busy)
{
	uint64_t word = self->other.words[i];

	if (is_live(i)) {
		/* A wait sets a bit, and leaves none. */
		EXPECT_OF(i, busy, ret);
		EXPECT_OF(i, (pattern(self->token, i) ^ word) & ~(uint64_t)KLOCK_WORD_WAITERS, 0);
		return;
	}
	EXPECT_OF(i, told_of(i), ret);
	EXPECT_OF(i, self->token[ME], word & (KLOCK_WORD_TOKEN | KLOCK_WORD_DIED));
	EXPECT_OF(i, syscall(SYS_gettid), word >> KLOCK_WORD_TID_SHIFT);
	EXPECT_OF(i, 0, klock_unlock(self->lock[i]));
	EXPECT_OF(i, 0, self->other.words[i]);
}

TEST_F(words, trylock)
{
	fill(self);
	for (unsigned int i = 0; i < PATTERNS; i++) {
		expect_taken(_metadata, self, i, klock_trylock(self->lock[i]), -EBUSY);
		if (is_live(i)) {
			EXPECT_OF(i, pattern(self->token, i), self->other.words[i]);
		}
	}
}

TEST_F(words, lock)
{
	const struct timespec past = { 0 };

	fill(self);
	for (unsigned int i = 0; i < PATTERNS; i++)
		expect_taken(_metadata, self, i, is_live(i) ?
			     klock_lock_until(self->lock[i], CLOCK_MONOTONIC, &past) :
			     klock_lock(self->lock[i]), -ETIMEDOUT);
}

TEST_F(words, lock_until)
{
	const struct timespec soon = in_ms(CLOCK_MONOTONIC, 300);

	fill(self);
	for (unsigned int i = 0; i < PATTERNS; i++) {
		expect_taken(_metadata, self, i,
			     klock_lock_until(self->lock[i], CLOCK_MONOTONIC, &soon), -ETIMEDOUT);
		EXPECT_OF(i, 0, self->other.words[i] & KLOCK_WORD_WAITERS);
	}
}

TEST_F(words, unlock)
{
	fill(self);
	for (unsigned int i = 0; i < PATTERNS; i++) {
		EXPECT_OF(i, i % NAMES == ME ? 0 : -EPERM, klock_unlock(self->lock[i]));
		EXPECT_OF(i, i % NAMES == ME ? 0 : pattern(self->token, i), self->other.words[i]);
	}
}

static uint32_t flags_of(unsigned int i)
{
	if (is_live(i))
		return KLOCK_HELD | (i % NAMES == ME ? KLOCK_MINE : 0);
	return told_of(i) ? KLOCK_DIED : 0;
}

TEST_F(words, status_list_and_info)
{
	struct klock_status list[LOCKS], *next = list;
	struct klock_space_info info;
	struct klock_waiter waiter;
	int listed;

	fill(self);
	for (unsigned int i = 0; i < PATTERNS; i++) {
		struct klock_status status = status_of(self->lock[i]);

		EXPECT_OF(i, flags_of(i), status.flags);
		EXPECT_OF(i, is_live(i) ? self->token[i % NAMES] : 0, status.token);
		EXPECT_OF(i, is_live(i) ? getpid() : 0, (pid_t)status.pid);
		EXPECT_OF(i, 0, status.tid);
		EXPECT_OF(i, 0, status.waiters);
		EXPECT_OF(i, 0, klock_waiters(self->lock[i], &waiter, 1));
	}
	listed = klock_list(self->space, 0, list, LOCKS);
	for (unsigned int i = 0; i < PATTERNS; i++) {
		if (!flags_of(i))
			continue;
		ASSERT_LT(next - list, listed);
		EXPECT_OF(i, i, next->id);
		EXPECT_OF(i, flags_of(i), next->flags);
		next++;
	}
	EXPECT_EQ(listed, next - list);
	EXPECT_EQ(0, klock_space_info(self->space, &info));
	EXPECT_EQ(PATTERNS / NAMES * 2, info.held);
	for (unsigned int i = 0; i < PATTERNS; i++) {
		EXPECT_OF(i, pattern(self->token, i), self->other.words[i]);
	}
}

TEST_F(words, break)
{
	fill(self);
	for (unsigned int i = 0; i < PATTERNS; i++) {
		const bool live = is_live(i);
		const uint64_t word = pattern(self->token, i);

		EXPECT_OF(i, live ? -EAGAIN : -ENOENT, klock_break(self->space, i, 12345));
		EXPECT_OF(i, word, self->other.words[i]);
		EXPECT_OF(i, live ? 0 : -ENOENT, klock_break(self->space, i, 0));
		EXPECT_OF(i, live ? KLOCK_WORD_DIED : word, self->other.words[i]);
	}
}

/* Only what names the client, in a page that it has touched, is released. */
TEST_F(words, close)
{
	ASSERT_EQ(0, klock_lock(self->lock[LOCKS - 1]));
	fill(self);
	klock_space_close(self->space);
	self->space = NULL;
	for (unsigned int i = 0; i < PATTERNS; i++) {
		EXPECT_OF(i, i % NAMES == ME ? KLOCK_WORD_DIED : pattern(self->token, i),
			  self->other.words[i]);
	}
	EXPECT_EQ(KLOCK_WORD_DIED, self->other.words[LOCKS - 1]);
}

TEST_F(words, resize)
{
	const uint32_t last = LOCKS - 1;

	for (unsigned int i = 0; i < PATTERNS; i++) {
		const uint64_t word = pattern(self->token, i);

		self->other.words[last] = word;
		EXPECT_OF(i, is_live(i) ? -EBUSY : 0, klock_space_resize(self->space, last));
		EXPECT_OF(i, is_live(i) ? word : KLOCK_WORD_NONE,
			  self->other.words[last] & (is_live(i) ? ~0ULL : KLOCK_WORD_TOKEN));
		self->other.words[last] = is_live(i) ? 0 : word;	/* where no lock is, too */
		EXPECT_OF(i, 0, klock_space_resize(self->space, LOCKS + i));
		EXPECT_OF(i, 0, self->other.words[last]);
		EXPECT_OF(i, 0, klock_trylock(self->lock[last]));
		EXPECT_OF(i, 0, klock_unlock(self->lock[last]));
		EXPECT_OF(i, 0, klock_space_resize(self->space, LOCKS));
	}
	/* One that is refused tells who comes next what it would have been told. */
	for (unsigned int i = 0; i < PATTERNS; i++) {
		self->other.words[last - 1] = pattern(self->token, i);
		self->other.words[last] = self->token[OTHER];
		EXPECT_OF(i, -EBUSY, klock_space_resize(self->space, last - 1));
		if (!is_live(i)) {
			EXPECT_OF(i, told_of(i), klock_trylock(self->lock[last - 1]));
		}
	}
}

TEST_F(words, remove)
{
	fill(self);
	ASSERT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
	for (unsigned int i = 0; i < PATTERNS; i++) {
		const uint64_t word = self->other.words[i];

		if (is_live(i)) {
			EXPECT_OF(i, pattern(self->token, i) | KLOCK_WORD_WAITERS, word);
		} else {
			EXPECT_OF(i, KLOCK_WORD_NONE, word & KLOCK_WORD_TOKEN);
		}
		EXPECT_OF(i, -ESTALE, klock_trylock(self->lock[i]));
		EXPECT_OF(i, i % NAMES == ME ? 0 : -EPERM, klock_unlock(self->lock[i]));
		EXPECT_OF(i, i % NAMES == OTHER ? 0 : -EPERM, raw_unlock(self->other.fd, i));
		EXPECT_OF(i, KLOCK_WORD_NONE, self->other.words[i] & KLOCK_WORD_TOKEN);
	}
}

/* A thread that waits for a lock, and what came of it. */
struct waiting {
	pthread_t thread;
	struct klock *lock;
	_Atomic int ret;
};

#define WAITS 1000		/* no result of a call */

static void *wait_for(void *arg)
{
	struct waiting *w = arg;

	w->ret = klock_lock(w->lock);
	return NULL;
}

/* How many do not wait any more. */
static unsigned int count_served(const struct waiting *w)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < PATTERNS; i++)
		n += w[i].ret != WAITS;
	return n;
}

/* Who waits for pattern @i comes back with @ret. */
static void expect_end(struct __test_metadata *_metadata, struct waiting *w, unsigned int i,
		       int ret)
{
	EXPECT_TRUE(UNTIL(w[i].ret != WAITS));
	EXPECT_OF(i, ret, w[i].ret);
}

/* Each pattern comes upon somebody who waits: as if it had been there when he came. */
TEST_F(words, with_waiters)
{
	const unsigned int live = PATTERNS / NAMES * 2;
	struct waiting w[PATTERNS];
	uint64_t begin;

	for (unsigned int i = 0; i < PATTERNS; i++) {
		w[i].lock = self->lock[i];
		w[i].ret = WAITS;
		ASSERT_EQ(0, raw_lock(self->other.fd, i, 0, 0));
		ASSERT_EQ(0, pthread_create(&w[i].thread, NULL, wait_for, &w[i]));
	}
	for (unsigned int i = 0; i < PATTERNS; i++) {
		ASSERT_TRUE(UNTIL(waiters_of(self->lock[i]) == 1));
	}
	fill(self);
	begin = now_ns(CLOCK_MONOTONIC);
	EXPECT_TRUE(UNTIL(count_served(w) == PATTERNS - live));
	EXPECT_GT(begin + MENDED_NS, now_ns(CLOCK_MONOTONIC));
	for (unsigned int i = 0; i < PATTERNS; i++) {
		if (is_live(i)) {
			EXPECT_TRUE(UNTIL(self->other.words[i] & KLOCK_WORD_WAITERS));
			EXPECT_OF(i, WAITS, w[i].ret);
			EXPECT_OF(i, flags_of(i), status_of(self->lock[i]).flags);
			EXPECT_OF(i, 1, waiters_of(self->lock[i]));
		} else {
			EXPECT_OF(i, told_of(i), w[i].ret);
			EXPECT_OF(i, self->token[ME], token_at(&self->other, i));
		}
	}
	EXPECT_GT(begin + 2 * MENDED_NS, now_ns(CLOCK_MONOTONIC));

	/* Those are ended by an unlock, by a break, by a close, and by a removal. */
	EXPECT_EQ(-EBUSY, klock_space_resize(self->space, OTHER + 6 * NAMES));
	for (unsigned int i = OTHER; i < PATTERNS; i += 2 * NAMES) {
		EXPECT_OF(i, 0, raw_unlock(self->other.fd, i));
		expect_end(_metadata, w, i, 0);
	}
	for (unsigned int i = ME; i < PATTERNS; i += 2 * NAMES) {
		EXPECT_OF(i, 0, klock_break(self->space, i, self->token[ME]));
		expect_end(_metadata, w, i, KLOCK_OWNER_DIED);
	}
	close(self->other.fd);
	for (unsigned int i = OTHER + NAMES; i < PATTERNS; i += 2 * NAMES)
		expect_end(_metadata, w, i, KLOCK_OWNER_DIED);
	EXPECT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
	for (unsigned int i = ME + NAMES; i < PATTERNS; i += 2 * NAMES)
		expect_end(_metadata, w, i, -ESTALE);
	for (unsigned int i = 0; i < PATTERNS; i++)
		pthread_join(w[i].thread, NULL);
	self->other.fd = -1;
}

/* A child that writes @n words in turn to @count locks from @id on in turn, as fast as it can. */
static pid_t flip_in_child(const char *name, const uint64_t *word, uint32_t n, uint32_t id,
			   uint32_t count)
{
	atomic_bool *begun = shared(sizeof(*begun));
	pid_t pid = spawn();

	if (pid == 0) {
		struct mapper m;

		close_range(STDERR_FILENO + 1, ~0U, 0);	/* it is not to keep a client */
		CHECK(map_space(&m, name, 0, 0));
		for (uint32_t k = 0, i = 0;; k = (k + 1) % n, i = (i + 1) % count) {
			m.words[id + i] = word[k];
			if (k == n - 1)
				*begun = true;
		}
	}
	UNTIL(*begun);
	munmap((void *)begun, sizeof(*begun));
	return pid;
}

/* Those who wait already when a word begins to be written all the time can be killed, too. */
TEST_F_TIMEOUT(words, that_are_never_left_alone_keep_no_waiter, 60)
{
	uint64_t word[NAMES], end;
	pid_t flipper, pid[NAMES];

	for (uint32_t id = 0; id < NAMES; id++) {
		word[id] = self->token[id];
		ASSERT_EQ(0, raw_lock(self->other.fd, id, 0, 0));
		pid[id] = spawn();
		if (pid[id] == 0) {
			raw_lock(raw_attach(self->name, 0, 0), id, 0, 0);
			for (;;)
				pause();
		}
		ASSERT_TRUE(UNTIL(waiters_of(self->lock[id]) == 1));
	}
	flipper = flip_in_child(self->name, word, NAMES, 0, NAMES);
	/* Within a second each of them has looked. */
	for (end = now_ns(CLOCK_MONOTONIC) + 1100 * NSEC_PER_MSEC; now_ns(CLOCK_MONOTONIC) < end; )
		nap();
	for (uint32_t id = 0; id < NAMES; id++) {
		EXPECT_OF(id, -SIGKILL, slay_soon(pid[id]));
	}
	EXPECT_EQ(-SIGKILL, slay_soon(flipper));
}

/* The same name twice is two words of one client, which differ in the thread. */
#define OTHER_THREAD	(1ULL << KLOCK_WORD_TID_SHIFT)

/* What waits for a word that is never left alone is ended by SIGKILL, and so is a close. */
TEST_F_TIMEOUT(words, that_flip_keep_nobody_from_dying, 60)
{
	for (unsigned int a = 0; a < NAMES; a++) {
		for (unsigned int b = a; b < NAMES; b++) {
			const uint64_t word[2] = {
				self->token[a], self->token[b] ^ (a == b ? OTHER_THREAD : 0),
			};
			atomic_uint *calls = shared(sizeof(*calls));
			pid_t flipper, pid[2];

			flipper = flip_in_child(self->name, word, 2, 1, 1);
			for (int i = 0; i < 2; i++) {
				pid[i] = spawn();
				/* A client of its own, and one that the words name. */
				if (pid[i] == 0) {
					int fd = i ? raw_attach(self->name, 0, 0) : self->other.fd;

					for (;;) {
						++*calls;
						raw_lock(fd, 1, 0, 0);
						raw_unlock(fd, 1);
					}
				}
			}
			EXPECT_TRUE(UNTIL(*calls >= 2));
			for (int i = 0; i < 10; i++)
				nap();
			for (int i = 0; i < 2; i++) {
				EXPECT_EQ(-SIGKILL, slay_soon(pid[i]))
					TH_LOG("%s and %s", describe(a), describe(b));
			}
			EXPECT_EQ(-SIGKILL, slay_soon(flipper));
			munmap((void *)calls, sizeof(*calls));
		}
	}
}

/* The last close ends, and stops when another has it; what is written afterwards is of the dead. */
TEST_F(words, that_flip_do_not_keep_a_close)
{
	for (unsigned int b = 0; b < NAMES; b++) {
		struct mapper m;
		pid_t flipper;
		uint64_t begin;

		for (int round = 0; round < 10; round++) {
			uint64_t word[2];

			ASSERT_TRUE(map_space(&m, self->name, 0, 0));
			m.words[1] = 0;		/* it is touched */
			word[0] = m.token;
			word[1] = b == ME ? m.token ^ OTHER_THREAD : self->token[b];
			flipper = flip_in_child(self->name, word, 2, 1, 1);
			begin = now_ns(CLOCK_MONOTONIC);
			close(m.fd);
			EXPECT_GT(begin + MENDED_NS, now_ns(CLOCK_MONOTONIC));
			EXPECT_EQ(-SIGKILL, slay_soon(flipper));
			m.words[1] = m.token;
			EXPECT_FREE(self->other.fd, 1, KLOCK_OWNER_DIED);
			m.fd = -1;
			unmap_space(&m);
		}
	}
}

/* So many words flip, the last ones: each of them comes to say each of the patterns. */
#define FLIPPED		7

static pid_t call_in_child(const char *name, struct caller *me)
{
	pid_t pid = spawn();

	if (pid == 0) {
		uint32_t seed = getpid();
		int fd = -1;

		for (;; me->calls++) {
			if (me->calls % 16 == 0) {
				me->what = 9;
				me->since = now_ns(CLOCK_MONOTONIC);
				close(fd);
				me->since = 0;
				fd = raw_attach(name, 0, 0);
				if (fd < 0)
					_exit(0);	/* it is removed */
			}
			me->what = rnd(&seed) % 9;
			me->since = now_ns(CLOCK_MONOTONIC);
			call_at_random(fd, me->what, LOCKS - 1 - rnd(&seed) % FLIPPED,
				       rnd(&seed), LOCKS - rnd(&seed) % (FLIPPED + 1));
			me->since = 0;
		}
	}
	return pid;
}

/*
 * All at once on words that are never left alone.  No call hangs, and no lock suffers whose
 * word is let alone, in this space or in another.
 */
TEST_F_TIMEOUT(words, that_flip_harm_no_others, 60)
{
	struct guarded *g = shared(2 * sizeof(*g));
	struct caller *caller = shared(3 * sizeof(*caller));
	char clean[KLOCK_NAME_SIZE];
	uint64_t word[PATTERNS], end;
	pid_t visitor[4], pid[3], flipper, waiter;
	unsigned int least;
	struct klock_space *space;

	snprintf(clean, sizeof(clean), "c-%.60s", self->name);
	space = make_space(clean, LOCKS, 0);
	ASSERT_NE(NULL, space);
	for (unsigned int i = 0; i < PATTERNS; i++)
		word[i] = pattern(self->token, i);
	flipper = flip_in_child(self->name, word, PATTERNS, LOCKS - FLIPPED, FLIPPED);
	for (int i = 0; i < 4; i++)
		visitor[i] = visit_until_removed(i < 2 ? self->name : clean, variant->flags,
						 &g[i / 2], 1);
	for (int i = 0; i < 3; i++)
		pid[i] = call_in_child(self->name, &caller[i]);
	end = now_ns(CLOCK_MONOTONIC) + 5 * NSEC_PER_SEC / 2;
	do {
		waiter = spawn();
		if (waiter == 0) {
			raw_lock(raw_attach(self->name, 0, 0), LOCKS - FLIPPED, 0, 0);
			pause();
		}
		for (int i = 0; i < 50; i++)
			nap();
		ASSERT_EQ(-SIGKILL, slay_soon(waiter));
		for (int i = 0; i < 3; i++) {
			ASSERT_FALSE(hangs(&caller[i])) TH_LOG("call %u", caller[i].what);
		}
		least = MIN(MIN(caller[0].calls, caller[1].calls), caller[2].calls);
	} while (now_ns(CLOCK_MONOTONIC) < end || MIN(least, MIN(g[0].visits, g[1].visits)) <= 100);
	TH_LOG("%u calls, %ju and %ju visits", caller[0].calls + caller[1].calls + caller[2].calls,
	       (uintmax_t)g[0].visits, (uintmax_t)g[1].visits);
	EXPECT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
	EXPECT_EQ(0, klock_space_remove(clean, KLOCK_FORCE));
	for (int i = 0; i < 3; i++) {
		EXPECT_TRUE(UNTIL(waitpid(pid[i], NULL, WNOHANG) == pid[i]));
		EXPECT_LT(100, caller[i].calls);
	}
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, reap(visitor[i]));
	}
	EXPECT_EQ(-SIGKILL, slay_soon(flipper));
	for (int i = 0; i < 2; i++) {
		EXPECT_LT(100, g[i].visits);
		EXPECT_EQ(g[i].visits, g[i].before);
		EXPECT_EQ(0, g[i].told);
	}
	klock_space_close(space);
}

/* ---------------------------------------------------------------- a circle of waiters */

#define ASKS	300

/*
 * Two errorcheck threads that wait for each other without having been refused: when
 * the second one asked, the word named somebody else.  Those who ask then are not
 * part of it, and must not be sent round in it.
 */
TEST_F(map, circle_made_by_a_stray_write_stalls_nobody)
{
	int fd = raw_attach(self->name, KLOCK_ATTACH_ERRORCHECK, 0);
	struct agent one = enlist(NULL, NULL), two = enlist(NULL, NULL);
	int status = -1;
	uint64_t word;
	pid_t pid;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, lock_by(&one, fd, 1, 0));
	ASSERT_EQ(0, lock_by(&two, fd, 2, 0));
	tell_lock(&one, fd, 2);
	ASSERT_TRUE(UNTIL(waiters_at(fd, 2) == 1));
	word = self->me.words[1];
	self->me.words[1] = who(&self->me);
	tell_lock(&two, fd, 1);
	ASSERT_TRUE(UNTIL(waiters_at(fd, 1) == 1));
	self->me.words[1] = word | KLOCK_WORD_WAITERS;

	pid = spawn();
	if (pid == 0) {
		for (int i = 0; i < ASKS; i++)
			CHECK(raw_lock(fd, 1, KLOCK_LOCK_DEADLINE, 1) == -ETIMEDOUT);
		_exit(0);
	}
	EXPECT_TRUE(UNTIL(waitpid(pid, &status, WNOHANG) == pid));
	EXPECT_EQ(0, status);
	EXPECT_EQ(1, waiters_at(fd, 1));
	EXPECT_EQ(1, waiters_at(fd, 2));
	dismiss_all();
	close(fd);
}

/* ---------------------------------------------------------------- a waiters bit that is lost */

/* A child that waits for lock 5 with a deadline, or none, and gives it up when it has it. */
static pid_t wait_until(SELF *self, uint32_t flags, uint64_t deadline)
{
	uint32_t before = waiters_at(self->me.fd, 5);
	pid_t pid = spawn();

	if (pid == 0) {
		int fd = raw_attach(self->name, 0, 0);
		int ret = raw_lock(fd, 5, flags, deadline);

		CHECK(ret >= 0);
		CHECK(raw_unlock(fd, 5) == 0);
		_exit(ret);
	}
	return UNTIL(waiters_at(self->me.fd, 5) == before + 1) ? pid : -1;
}

/* Clears the waiters bit, and gives the lock up before it can be set again. */
static void unlock_and_lose_the_bit(SELF *self)
{
	do {
		self->me.words[5] = who(&self->me);
	} while (!fast_unlock(&self->me, 5));
}

/* It has the lock within the second in which it looks again. */
static void expect_mended(struct __test_metadata *_metadata, pid_t pid)
{
	uint64_t begin = now_ns(CLOCK_MONOTONIC);

	EXPECT_EQ(0, reap(pid));
	EXPECT_GT(begin + MENDED_NS, now_ns(CLOCK_MONOTONIC));
}

TEST_F(map, a_lost_waiters_bit_delays_a_waiter)
{
	const uint64_t hour = 3600 * NSEC_PER_SEC;
	const struct { uint32_t flags; clockid_t clock; } way[] = {
		{ 0, -1 },
		{ KLOCK_LOCK_DEADLINE, CLOCK_MONOTONIC },
		{ KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME, CLOCK_REALTIME },
	};

	for (size_t i = 0; i < ARRAY_SIZE(way); i++) {
		pid_t pid;

		ASSERT_TRUE(fast_lock(&self->me, 5));
		pid = wait_until(self, way[i].flags,
				 way[i].flags ? now_ns(way[i].clock) + hour : 0);
		ASSERT_LT(0, pid);
		unlock_and_lose_the_bit(self);
		expect_mended(_metadata, pid);
		EXPECT_EQ(0, self->me.words[5]);
	}
}

/* The bit comes back while the lock is held, and then no wake-up is lost. */
TEST_F(map, a_lost_waiters_bit_comes_back)
{
	uint64_t begin;
	pid_t pid;

	ASSERT_TRUE(fast_lock(&self->me, 5));
	pid = wait_until(self, 0, 0);
	ASSERT_LT(0, pid);
	self->me.words[5] = who(&self->me);
	begin = now_ns(CLOCK_MONOTONIC);
	EXPECT_TRUE(UNTIL(self->me.words[5] & KLOCK_WORD_WAITERS));
	EXPECT_GT(begin + MENDED_NS, now_ns(CLOCK_MONOTONIC));
	EXPECT_FALSE(fast_unlock(&self->me, 5));
	EXPECT_EQ(0, raw_unlock(self->me.fd, 5));
	EXPECT_EQ(0, reap(pid));
}

/* Race 23: it is a second of CLOCK_MONOTONIC. */
TEST_F(map, a_lost_waiters_bit_and_a_clock_that_is_set_back)
{
	const uint64_t hour = 3600 * NSEC_PER_SEC;
	struct timespec set;
	pid_t pid;

	ASSERT_TRUE(fast_lock(&self->me, 5));
	pid = wait_until(self, KLOCK_LOCK_DEADLINE | KLOCK_LOCK_REALTIME,
			 now_ns(CLOCK_REALTIME) + hour);
	ASSERT_LT(0, pid);
	set = in_ms(CLOCK_REALTIME, -3600 * 1000);
	if (clock_settime(CLOCK_REALTIME, &set))
		SKIP(return, "may not set the clock");
	unlock_and_lose_the_bit(self);
	expect_mended(_metadata, pid);
	set = in_ms(CLOCK_REALTIME, 3600 * 1000);
	EXPECT_EQ(0, clock_settime(CLOCK_REALTIME, &set));
}

/* Those behind the first are served when it is, or when it has gone. */
TEST_F(map, a_lost_waiters_bit_delays_a_second_waiter)
{
	pid_t pid[3];

	for (int gone = 0; gone < 2; gone++) {
		ASSERT_TRUE(fast_lock(&self->me, 5));
		for (int i = 0; i < 3; i++) {
			pid[i] = wait_until(self, 0, 0);
			ASSERT_LT(0, pid[i]);
		}
		self->me.words[5] = who(&self->me);
		if (gone) {
			EXPECT_EQ(-SIGKILL, slay_soon(pid[0]));
		}
		unlock_and_lose_the_bit(self);
		for (int i = gone; i < 3; i++)
			expect_mended(_metadata, pid[i]);
		EXPECT_EQ(0, self->me.words[5]);
	}
}

/* ---------------------------------------------------------------- order */

#define ACQUISITIONS	30000

struct count {
	_Atomic uint32_t all, of[3];
};

/* Locks and unlocks by the library, or by ioctl. The hog, 0, locks again at once. */
static void compete(const char *name, struct count *count, int me)
{
	struct klock *lock = get_lock(join_space(name, 0), 5);
	int fd = raw_attach(name, 0, 0);

	while (count->all < ACQUISITIONS || count->of[1] < 300 || count->of[2] < 300) {
		CHECK((me == 2 ? raw_lock(fd, 5, 0, 0) : klock_lock(lock)) == 0);
		count->all++;
		count->of[me]++;
		if (me == 0)
			for (volatile int n = 2000; n; n--)
				;	/* so that it has it nearly always */
		CHECK((me == 2 ? raw_unlock(fd, 5) : klock_unlock(lock)) == 0);
		if (me)
			nap();		/* they come to wait, and do not barge themselves */
	}
	_exit(0);
}

/* A hog in the words, and two that wait for it, in either way. */
TEST_F_TIMEOUT(map, barging_is_bounded_across_both_ways, 60)
{
	struct count *count = shared(sizeof(*count));
	struct klock_ioc_api api;
	struct klock_ioc_info info;
	pid_t pid[3];

	ASSERT_EQ(0, raw_ioctl(self->me.fd, KLOCK_IOC_GET_API, &api));
	for (int i = 0; i < 3; i++) {
		pid[i] = spawn();
		if (pid[i] == 0)
			compete(self->name, count, i);
	}
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(0, reap(pid[i]));
	}
	info = raw_info(self->me.fd);
	TH_LOG("%u by the hog, %u mapped, %u by ioctl; %ju wake-ups in vain, at most %ju in a wait",
	       count->of[0], count->of[1], count->of[2], (uintmax_t)info.passed,
	       (uintmax_t)info.max_passed);
	EXPECT_LE(ACQUISITIONS, count->all);
	/* On one processor who is woken may find the hog outside each time. */
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
		EXPECT_LT(0, info.max_passed);
	}
	EXPECT_GE(api.max_passed, info.max_passed);
	for (int i = 0; i < 3; i++) {
		EXPECT_LT(100, count->of[i]);
	}
}

/* A 32-bit program has nothing to test here. */
static int run_or_skip(int argc, char **argv)
{
	if (words_can_be_mapped())
		return run_tests(argc, argv);
	ksft_print_header();
	ksft_set_plan(1);
	ksft_test_result_skip("words cannot be mapped here\n");
	return KSFT_SKIP;
}

#undef test_harness_run
#define test_harness_run run_or_skip

TEST_HARNESS_MAIN
