/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What more than one of the test programs needs.
 *
 * Tests wait for a state (UNTIL), never for a time; what they fork dies with
 * them (spawn); results are poisoned before a call that must fill them
 * (POISON).  ASSERT and EXPECT of the harness are for the process and thread of
 * the test alone: a child says CHECK, a thread leaves its result to be looked
 * at after pthread_join().
 */
#ifndef KLOCK_TEST_H
#define KLOCK_TEST_H

#include "kselftest_harness.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include <klock.h>
#include <linux/klock.h>

#define NSEC_PER_MSEC	1000000ULL
#define NSEC_PER_SEC	1000000000ULL

/*
 * How long a state may take to come, in ms: far above the need, below the harness's limit.
 * All limits grow by how much slower than others the kernel is; vm/run knows.
 */
#define PATIENCE_MS	(20000 * slowness())

#define POISON(x)	memset(&(x), 0xa5, sizeof(x))

/* Ends a child, with a word on where, if @cond does not hold. */
#define CHECK(cond) do {						\
	if (!(cond)) {							\
		fprintf(stderr, "# %s:%d: in a child: not %s\n",	\
			__FILE__, __LINE__, #cond);			\
		_exit(1);						\
	}								\
} while (0)

/* Polls until @cond holds: whether it did. */
#define UNTIL(cond) ({							\
	uint64_t __end = now_ns(CLOCK_MONOTONIC) + PATIENCE_MS * NSEC_PER_MSEC;	\
	bool __met;							\
									\
	while (!(__met = !!(cond)) && now_ns(CLOCK_MONOTONIC) < __end)	\
		nap();							\
	__met;								\
})

static inline int slowness(void)
{
	const char *factor = getenv("KLOCK_SLOW");

	return factor ? atoi(factor) : 1;
}

/* How often a race is run: less often where each takes longer. */
static inline int fewer(int rounds)
{
	return rounds / slowness();
}

/* The harness's own, with its limits. */
static inline int run_tests(int argc, char **argv)
{
	struct __fixture_metadata *fixture;
	struct __test_metadata *test;

	for (fixture = __fixture_list; fixture; fixture = fixture->next)
		for (test = fixture->tests; test; test = test->next)
			test->timeout *= slowness();
	return test_harness_run(argc, argv);
}

#define test_harness_run run_tests

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

/* Only between two looks at a state, and so that others can run. */
static inline void nap(void)
{
	struct timespec a_tenth_of_ms = { .tv_nsec = NSEC_PER_MSEC / 10 };

	nanosleep(&a_tenth_of_ms, NULL);
}

static inline struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec) {
		.tv_sec = ns / NSEC_PER_SEC,
		.tv_nsec = ns % NSEC_PER_SEC,
	};
}

/* The deadline that is @ms from now; negative: that long past. */
static inline struct timespec in_ms(clockid_t clock, int ms)
{
	return to_timespec(now_ns(clock) + ms * (int64_t)NSEC_PER_MSEC);
}

/* Memory, zeroed, that children share; it lasts as long as the test. */
static inline void *shared(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED) {
		perror("# mmap");
		abort();
	}
	return mem;
}

/* fork() of a child that dies with the thread that calls this. */
static inline pid_t spawn(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0) {
		perror("# fork");
		abort();
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_DFL);	/* a shell ignores it in the background */
		if (getppid() != parent)	/* it was gone before */
			_exit(1);
	}
	return pid;
}

/* Waits for the end of a child: its exit status, or minus the signal that ended it. */
static inline int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1000;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* SIGKILLs a child and waits for its end: -SIGKILL, unless it had ended by itself. */
static inline int slay(pid_t pid)
{
	kill(pid, SIGKILL);
	return reap(pid);
}

/* From now on any system call but exit_group() ends this process with SIGSYS. */
static inline void forbid_system_calls(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { .len = 4, .filter = filter };

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/* The name of a space for this test alone: of the test and its process. */
#define SPACE_NAME(buf) snprintf(buf, KLOCK_NAME_SIZE, "%.50s-%d", _metadata->name, getpid())

/*
 * Makes a space and attaches to it: NULL if it cannot. @flags: beyond CREATE and
 * EXCL.  For a client that does not map the words nobody else may map them
 * either: where one may, waiters look again every second, which would heal a
 * wake-up that was lost before a test notices.
 */
static inline struct klock_space *make_space(const char *name, uint32_t capacity,
					     unsigned int flags)
{
	bool maps = !(flags & (KLOCK_ERRORCHECK | KLOCK_NO_FASTPATH));
	struct klock_space_attr attr = { .capacity = capacity, .mode = maps ? 0600 : 0620 };
	struct klock_space *space;
	int ret = klock_space_open(name, KLOCK_CREATE | KLOCK_EXCL | flags, &attr, &space);

	if (ret)
		fprintf(stderr, "# cannot make space %s: %s\n", name, strerror(-ret));
	return ret ? NULL : space;
}

/* Attaches one more client to a space that there is: NULL if it cannot. */
static inline struct klock_space *join_space(const char *name, unsigned int flags)
{
	struct klock_space *space;
	int ret = klock_space_open(name, flags, NULL, &space);

	if (ret)
		fprintf(stderr, "# cannot open space %s: %s\n", name, strerror(-ret));
	return ret ? NULL : space;
}

/* The handle of a lock, allocated or not: NULL if it cannot be had. */
static inline struct klock *get_lock(struct klock_space *space, uint32_t id)
{
	struct klock *lock;

	return klock_retrieve(space, id, 0, &lock) ? NULL : lock;
}

static inline struct klock_status status_of(struct klock *lock)
{
	struct klock_status status;
	int ret;

	POISON(status);
	ret = klock_status(lock, &status);
	if (ret) {
		fprintf(stderr, "# klock_status: %s\n", strerror(-ret));
		memset(&status, 0xff, sizeof(status));
	}
	return status;
}

/* How many wait for a lock now; it counts who sleeps or is about to in its queue. */
static inline uint32_t waiters_of(struct klock *lock)
{
	return status_of(lock).waiters;
}

static inline bool is_held(struct klock *lock)
{
	return status_of(lock).flags & KLOCK_HELD;
}

/*
 * A child that takes @id, which is free, as a client of its own and keeps it until
 * it is slain; -1: it did not. @watch: a client of this process; @flags: of the child's.
 */
static inline pid_t hold_in_child(struct klock_space *watch, const char *name,
				  unsigned int flags, uint32_t id)
{
	struct klock *lock = get_lock(watch, id);
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags);

		CHECK(space);
		CHECK(klock_lock(get_lock(space, id)) == 0);
		for (;;)
			pause();
	}
	if (!UNTIL(is_held(lock))) {
		slay(pid);
		pid = -1;
	}
	klock_put(lock);
	return pid;
}

/*
 * A child that waits for @id, which is held, as a client of its own, unlocks it
 * when it has it, and exits with what it was told; -1: it did not come to wait.
 */
static inline pid_t wait_in_child(struct klock_space *watch, const char *name,
				  unsigned int flags, uint32_t id)
{
	struct klock *lock = get_lock(watch, id);
	uint32_t before = waiters_of(lock);
	pid_t pid = spawn();

	if (pid == 0) {
		struct klock_space *space = join_space(name, flags);
		struct klock *mine;
		int ret;

		CHECK(space);
		mine = get_lock(space, id);
		ret = klock_lock(mine);
		CHECK(ret >= 0);
		CHECK(klock_unlock(mine) == 0);
		_exit(ret);
	}
	if (!UNTIL(waiters_of(lock) == before + 1)) {
		slay(pid);
		pid = -1;
	}
	klock_put(lock);
	return pid;
}

/* ioctl() that returns -errno; only that, for those below and for malformed ones. */
static inline int raw_ioctl(int fd, unsigned long number, const void *arg)
{
	int ret = ioctl(fd, number, arg);

	return ret < 0 ? -errno : ret;
}

/*
 * A client without the library: a descriptor, or -errno.  @flags: KLOCK_ATTACH_*;
 * @capacity is for KLOCK_ATTACH_CREATE.
 */
static inline int raw_attach(const char *name, uint32_t flags, uint32_t capacity)
{
	struct klock_ioc_attach attach = { .flags = flags, .capacity = capacity };
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	memcpy(attach.name, name, strnlen(name, KLOCK_NAME_SIZE));
	ret = raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach);
	if (ret < 0)
		close(fd);
	return ret < 0 ? ret : fd;
}

static inline int raw_remove(const char *name, uint32_t flags)
{
	struct klock_ioc_remove remove = { .flags = flags };
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	memcpy(remove.name, name, strnlen(name, KLOCK_NAME_SIZE));
	ret = raw_ioctl(fd, KLOCK_IOC_REMOVE, &remove);
	close(fd);
	return ret;
}

/* @flags: KLOCK_LOCK_*; @deadline: ns, with KLOCK_LOCK_DEADLINE */
static inline int raw_lock(int fd, uint32_t id, uint32_t flags, uint64_t deadline)
{
	struct klock_ioc_lock lock = { .id = id, .flags = flags, .deadline = deadline };

	return raw_ioctl(fd, KLOCK_IOC_LOCK, &lock);
}

static inline int raw_unlock(int fd, uint32_t id)
{
	struct klock_ioc_id unlock = { .id = id };

	return raw_ioctl(fd, KLOCK_IOC_UNLOCK, &unlock);
}

static inline int raw_status(int fd, uint32_t id, struct klock_ioc_status *status)
{
	memset(status, 0, sizeof(*status));	/* what is out must be 0 */
	status->id = id;
	return raw_ioctl(fd, KLOCK_IOC_STATUS, status);
}

/*
 * A process with credentials and namespaces of its own, which does what the
 * test tells it: an order is a function of this program that the agent calls,
 * and an argument that is copied there and back.
 */
struct agent {
	pid_t pid;
	int sock;
};

#define AGENTS_MAX	64
static pid_t enlisted[AGENTS_MAX];	/* that there ever were in this test */
static unsigned int nr_enlisted;

struct order {
	int (*fn)(struct order *order);
	int fd;
	unsigned long number;
	int ret;
	char arg[sizeof(struct klock_ioc_info)] __attribute__((aligned(8)));
};

/* Starts an agent, which first calls @become (if it is not NULL) with @arg. */
static inline struct agent enlist(void (*become)(const void *arg), const void *arg)
{
	struct order order;
	struct agent agent;
	int pair[2];

	agent.pid = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ? -1 : fork();
	if (agent.pid < 0) {
		perror("# no agent");
		abort();
	}
	agent.sock = pair[agent.pid == 0];
	close(pair[agent.pid != 0]);
	if (agent.pid) {
		if (nr_enlisted == AGENTS_MAX)
			abort();
		enlisted[nr_enlisted++] = agent.pid;
		return agent;
	}

	if (become)
		become(arg);
	prctl(PR_SET_PDEATHSIG, SIGKILL);	/* which a change of credentials forgets */
	while (recv(agent.sock, &order, sizeof(order), 0) == sizeof(order)) {
		order.ret = order.fn(&order);
		CHECK(send(agent.sock, &order, sizeof(order), 0) == sizeof(order));
	}
	_exit(0);
}

/* Ends those that are left, and with them what they hold, before the next test begins. */
static inline void dismiss_all(void)
{
	while (nr_enlisted)
		if (waitpid(enlisted[--nr_enlisted], NULL, WNOHANG) == 0)
			slay(enlisted[nr_enlisted]);
}

/* Gives an order and does not wait for its end. */
static inline void tell(const struct agent *agent, int (*fn)(struct order *order), int fd,
			unsigned long number, const void *arg, size_t size)
{
	struct order order = { .fn = fn, .fd = fd, .number = number };

	if (arg)
		memcpy(order.arg, arg, size);
	if (send(agent->sock, &order, sizeof(order), MSG_NOSIGNAL) != sizeof(order))
		perror("# tell");
}

/* What the order returned, and its argument as it is now; -ECHILD: the agent is dead. */
static inline int answer(const struct agent *agent, void *arg, size_t size)
{
	struct order order;

	if (recv(agent->sock, &order, sizeof(order), 0) != sizeof(order))
		return -ECHILD;
	if (arg)
		memcpy(arg, order.arg, size);
	return order.ret;
}

static inline int do_ioctl(struct order *order)
{
	return raw_ioctl(order->fd, order->number, order->arg);
}

/* An ioctl of the agent on its descriptor @fd. */
static inline int ioctl_by(const struct agent *agent, int fd, unsigned long number, void *arg)
{
	tell(agent, do_ioctl, fd, number, arg, _IOC_SIZE(number));
	return answer(agent, arg, _IOC_SIZE(number));
}

static inline int do_attach(struct order *order)
{
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = raw_ioctl(fd, KLOCK_IOC_ATTACH, order->arg);
	if (ret < 0)
		close(fd);
	return ret < 0 ? ret : fd;
}

/* A client of the agent: its number of the descriptor, or -errno. */
static inline int attach_by(const struct agent *agent, const struct klock_ioc_attach *attach)
{
	struct klock_ioc_attach copy;

	tell(agent, do_attach, -1, 0, attach, sizeof(*attach));
	return answer(agent, &copy, sizeof(copy));
}

static inline int do_close(struct order *order)
{
	return close(order->fd) ? -errno : 0;
}

static inline int close_by(const struct agent *agent, int fd)
{
	char none = 0;

	tell(agent, do_close, fd, 0, &none, 0);
	return answer(agent, &none, 0);
}

static inline int lock_by(const struct agent *agent, int fd, uint32_t id, uint32_t flags)
{
	struct klock_ioc_lock lock = { .id = id, .flags = flags };

	return ioctl_by(agent, fd, KLOCK_IOC_LOCK, &lock);
}

static inline int unlock_by(const struct agent *agent, int fd, uint32_t id)
{
	struct klock_ioc_id unlock = { .id = id };

	return ioctl_by(agent, fd, KLOCK_IOC_UNLOCK, &unlock);
}

/* The agent starts to wait for a lock; answer() returns what came of it. */
static inline void tell_lock(const struct agent *agent, int fd, uint32_t id)
{
	struct klock_ioc_lock lock = { .id = id };

	tell(agent, do_ioctl, fd, KLOCK_IOC_LOCK, &lock, sizeof(lock));
}

#endif /* KLOCK_TEST_H */
