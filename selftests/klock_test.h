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

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include <klock.h>
#include <linux/klock.h>

#define NSEC_PER_MSEC	1000000ULL
#define NSEC_PER_SEC	1000000000ULL

/*
 * How long a state may take to come, in ms: far above the need, below the harness's limit.
 * All limits grow with patience().
 */
#define PATIENCE_MS	(20000 * patience())

/* The harness's own casts to the type of what it compares; to an _Atomic one clang does not. */
#undef is_signed_type
#define is_signed_type(var)	((__typeof__(((void)0, (var))))-1 < (__typeof__(((void)0, (var))))1)

#define POISON(x)	memset(&(x), 0xa5, sizeof(x))

/* Ends a child, with a word on where, if @cond does not hold. */
#define CHECK(cond) do {						\
	if (!(cond)) {							\
		fprintf(stderr, "# %s:%d: in a child: not %s\n",	\
			__FILE__, __LINE__, #cond);			\
		_exit(1);						\
	}								\
} while (0)

/* Polls until @cond holds, less and less often: whether it did. */
#define UNTIL(cond) ({							\
	uint64_t __began = now_ns(CLOCK_MONOTONIC), __passed = 0;	\
	bool __met;							\
									\
	while (!(__met = !!(cond)) && __passed < PATIENCE_MS * NSEC_PER_MSEC) {	\
		nap_for(MAX(NSEC_PER_MSEC / 10, MIN(__passed / 8, 5 * NSEC_PER_MSEC)));	\
		__passed = now_ns(CLOCK_MONOTONIC) - __began;		\
	}								\
	__met;								\
})

static inline int slowness(void)
{
	const char *factor = getenv("KLOCK_SLOW");

	return factor ? atoi(factor) : 1;
}

/*
 * How much longer than alone, on a kernel that does not look for bugs, may be waited: what else
 * runs beside this, KLOCK_PATIENCE, makes all later, but is no reason to do less.
 */
static inline int patience(void)
{
	const char *factor = getenv("KLOCK_PATIENCE");

	return slowness() * (factor ? atoi(factor) : 1);
}

/* How often a race is run: less often where each takes longer. */
static inline int fewer(int rounds)
{
	return rounds / slowness();
}

/* From now on thread @tid, 0: the caller, runs on the processor alone on which the caller is. */
static inline int pin_here(pid_t tid)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	return sched_setaffinity(tid, sizeof(here), &here);
}

/* The harness's own, with its limits. */
static inline int run_tests(int argc, char **argv)
{
	struct __fixture_metadata *fixture;
	struct __test_metadata *test;

	for (fixture = __fixture_list; fixture; fixture = fixture->next)
		for (test = fixture->tests; test; test = test->next)
			test->timeout *= patience();
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
static inline void nap_for(uint64_t ns)
{
	struct timespec time = { .tv_nsec = ns };

	nanosleep(&time, NULL);
}

static inline void nap(void)
{
	nap_for(NSEC_PER_MSEC / 10);
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

/* The end must come soon: what reap() says, or -ETIMEDOUT. */
static inline int reap_soon(pid_t pid)
{
	int status = 0;

	if (!UNTIL(waitpid(pid, &status, WNOHANG) == pid))
		return -ETIMEDOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline int slay_soon(pid_t pid)
{
	kill(pid, SIGKILL);
	return reap_soon(pid);
}

static inline uint32_t rnd(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* As many as a test is meant for, though it takes long: KLOCK_LONG=1. */
static inline bool is_long(void)
{
	const char *wanted = getenv("KLOCK_LONG");

	return wanted && atoi(wanted);
}

/* To a file of /proc or /sys: whether it was taken. */
static inline bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (!done)
		fprintf(stderr, "# %s: %s\n", path, strerror(errno));
	close(fd);
	return done;
}

/* The number in a file, or that after @word in it; -1: there is none. */
static inline long long get_number(const char *path, const char *word)
{
	FILE *file = fopen(path, "re");
	char line[256], *number = NULL;

	while (file && !number && fgets(line, sizeof(line), file))
		if (!strncmp(line, word, strlen(word)))
			number = line + strlen(word);
	if (file)
		fclose(file);
	return number ? atoll(number) : -1;
}

/* As of ps: R, S, D...; 0: it is gone. */
static inline char state_of(pid_t pid, pid_t tid)
{
	char name[64], line[128], *state;
	FILE *file;

	snprintf(name, sizeof(name), "/proc/%d/task/%d/stat", pid, tid);
	file = fopen(name, "re");
	state = file && fgets(line, sizeof(line), file) ? strchr(line, ')') : NULL;
	if (file)
		fclose(file);
	return state ? state[2] : 0;
}

/* Whether a thread does, and is not about to run. */
static inline bool sleeps(pid_t pid, pid_t tid)
{
	return state_of(pid, tid) == 'S';
}

#define CGROUPS "/sys/fs/cgroup/"
#define CGROUP_PATH_SIZE 64

/* Makes a memory cgroup, for nobody yet; "": there are none here, or this is not root. */
static inline void make_cgroup(char path[CGROUP_PATH_SIZE])
{
	path[0] = '\0';
	if (geteuid() || access(CGROUPS "cgroup.controllers", F_OK) ||
	    !write_file(CGROUPS "cgroup.subtree_control", "+memory"))
		return;
	snprintf(path, CGROUP_PATH_SIZE, CGROUPS "klock-%d", getpid());
	CHECK(!mkdir(path, 0700));
}

/* Moves this process there, if there is one. */
static inline void enter_cgroup(const char *path)
{
	char file[CGROUP_PATH_SIZE + 16];

	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	CHECK(!path[0] || write_file(file, "0"));
}

/* Moves it back; nobody else is there any more. */
static inline void leave_cgroup(const char *path)
{
	if (path[0])
		CHECK(write_file(CGROUPS "cgroup.procs", "0") && UNTIL(!rmdir(path)));
}

/*
 * What the kernel has allocated for a cgroup by the page, in KiB; 0: it does not say.  No
 * other count of the kernel's, nor kmemleak, knows of such a page.
 */
static inline long pages_kib(const char *path)
{
	char file[CGROUP_PATH_SIZE + 16];
	long long kernel;

	snprintf(file, sizeof(file), "%s/memory.stat", path);
	kernel = path[0] ? get_number(file, "kernel ") : -1;
	return kernel < 0 ? 0 : (kernel - get_number(file, "slab ")) / 1024;
}

static inline int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* The first descriptor whose link in /proc has @name in it, or -1. */
static inline int find_descriptor(const char *name)
{
	char path[32], target[64];
	ssize_t n;

	for (int fd = 0; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		if (strstr(target, name))
			return fd;
	}
	return -1;
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

/* The argument of any call. */
union args {
	struct klock_ioc_api api;
	struct klock_ioc_attach attach;
	struct klock_ioc_space_fd space_fd;
	struct klock_ioc_info info;
	struct klock_ioc_resize resize;
	struct klock_ioc_remove remove;
	struct klock_ioc_spaces spaces;
	struct klock_ioc_allocate allocate;
	struct klock_ioc_id id;
	struct klock_ioc_lock lock;
	struct klock_ioc_break brk;
	struct klock_ioc_status status;
	struct klock_ioc_list list;
};

/* ioctl() that returns -errno; only that, for those below and for malformed ones. */
static inline int raw_ioctl(int fd, unsigned long number, const void *arg)
{
	int ret = ioctl(fd, number, arg);

	return ret < 0 ? -errno : ret;
}

/* By this program: not by one of 32 bits. */
static inline bool words_can_be_mapped(void)
{
	struct klock_ioc_api api = { .version = 0 };
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	bool can = raw_ioctl(fd, KLOCK_IOC_GET_API, &api) == 0 && api.features & KLOCK_FEATURE_MAP;

	close(fd);
	return can;
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

static inline int raw_resize(int fd, uint32_t capacity)
{
	struct klock_ioc_resize resize = { .capacity = capacity };

	return raw_ioctl(fd, KLOCK_IOC_RESIZE, &resize);
}

static inline int raw_break(int fd, uint32_t id, uint32_t token)
{
	struct klock_ioc_break brk = { .id = id, .token = token };

	return raw_ioctl(fd, KLOCK_IOC_BREAK, &brk);
}

static inline struct klock_ioc_info raw_info(int fd)
{
	struct klock_ioc_info info;

	POISON(info);
	if (raw_ioctl(fd, KLOCK_IOC_INFO, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

/* What each of those who call at once is doing, and since when. */
struct caller {
	_Atomic uint64_t since;		/* 0: between two calls */
	_Atomic uint32_t what, calls;
};

/* Any call on a lock or the space; @capacity: what a resize asks for. */
static inline void call_at_random(int fd, uint32_t what, uint32_t id, uint32_t x,
				  uint32_t capacity)
{
	struct klock_ioc_status status[8];
	struct klock_ioc_list list = {
		.entries = (uintptr_t)status, .count = 8, .entry_size = sizeof(status[0]),
	};

	switch (what) {
	case 0:
		raw_lock(fd, id, KLOCK_LOCK_TRY, 0);
		break;
	case 1:
	case 2:
		raw_lock(fd, id, KLOCK_LOCK_DEADLINE,
			 now_ns(CLOCK_MONOTONIC) + x % 4 * NSEC_PER_MSEC);
		break;
	case 3:
	case 4:
		raw_unlock(fd, id);
		break;
	case 5:
		raw_status(fd, id, status);
		break;
	case 6:
		list.id = 0;
		raw_ioctl(fd, KLOCK_IOC_LIST, &list);
		list.entry_size = sizeof(struct klock_ioc_waiter);
		list.id = id;
		raw_ioctl(fd, KLOCK_IOC_WAITERS, &list);
		raw_info(fd);
		break;
	case 7:
		raw_break(fd, id, 0);
		break;
	case 8:
		raw_resize(fd, capacity);
		break;
	}
}

/* Whether a call has taken too long. */
static inline bool hangs(const struct caller *caller)
{
	uint64_t since = caller->since;

	return since && now_ns(CLOCK_MONOTONIC) > since + 10 * patience() * NSEC_PER_SEC;
}

/* The module's file is in KLOCK_KO. */
static inline int load(const char *parameters)
{
	int fd = open(getenv("KLOCK_KO"), O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = syscall(SYS_finit_module, fd, parameters, 0) ? -errno : 0;
	close(fd);
	return ret;
}

/* -EWOULDBLOCK is what the kernel says of a module that is in use. */
static inline int unload(void)
{
	return syscall(SYS_delete_module, "klock", O_NONBLOCK) ? -errno : 0;
}

static inline bool loaded(void)
{
	return access("/sys/module/klock", F_OK) == 0;
}

/* How many lines of a file begin with @word, perhaps after a number. */
static inline int lines(const char *path, const char *word)
{
	FILE *file = fopen(path, "re");
	char line[256];
	int n = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		n += !strncmp(line + strspn(line, " 0123456789"), word, strlen(word));
	fclose(file);
	return n;
}

/* Nothing is left; caches that the kernel merged with others cannot be seen. */
static inline bool gone(void)
{
	return !loaded() && access("/dev/klock", F_OK) && access("/sys/class/misc/klock", F_OK) &&
	       lines("/proc/misc", "klock") == 0 && lines("/proc/slabinfo", "klock") == 0;
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

static inline int resize_by(const struct agent *agent, int fd, uint32_t capacity)
{
	struct klock_ioc_resize resize = { .capacity = capacity };

	return ioctl_by(agent, fd, KLOCK_IOC_RESIZE, &resize);
}

static inline int break_by(const struct agent *agent, int fd, uint32_t id, uint32_t token)
{
	struct klock_ioc_break brk = { .id = id, .token = token };

	return ioctl_by(agent, fd, KLOCK_IOC_BREAK, &brk);
}

static inline struct klock_ioc_info info_by(const struct agent *agent, int fd)
{
	struct klock_ioc_info info;

	POISON(info);
	if (ioctl_by(agent, fd, KLOCK_IOC_INFO, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

/* The agent starts to wait for a lock; answer() returns what came of it. */
static inline void tell_lock(const struct agent *agent, int fd, uint32_t id)
{
	struct klock_ioc_lock lock = { .id = id };

	tell(agent, do_ioctl, fd, KLOCK_IOC_LOCK, &lock, sizeof(lock));
}

#define MAP_SIZE	(KLOCK_CAPACITY_MAX * sizeof(uint64_t))

typedef _Atomic uint64_t word_t;

/* A client without the library, and the words that it has mapped. */
struct mapper {
	int fd, space_fd;
	uint32_t token;
	word_t *words;
};

static inline word_t *map_words(int space_fd)
{
	void *words = mmap(NULL, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, space_fd, 0);

	return words == MAP_FAILED ? NULL : words;
}

/* False: it cannot be had. */
static inline bool map_client(struct mapper *m, int fd)
{
	struct klock_ioc_space_fd arg = { 0 };

	m->fd = fd;
	m->space_fd = raw_ioctl(m->fd, KLOCK_IOC_SPACE_FD, &arg);
	m->token = arg.token;
	m->words = map_words(m->space_fd);
	if (!m->words)
		perror("# no mapping");
	return m->words;
}

/* @flags and @capacity: as of raw_attach(). */
static inline bool map_space(struct mapper *m, const char *name, uint32_t flags, uint32_t capacity)
{
	return map_client(m, raw_attach(name, flags, capacity));
}

static inline void unmap_space(struct mapper *m)
{
	if (m->words)
		munmap((void *)m->words, MAP_SIZE);
	close(m->space_fd);
	close(m->fd);
}

/*
 * Users
 */

/* Credentials of an agent. */
struct who {
	uid_t uid;
	gid_t gid;
	gid_t group;	/* its supplementary group, if not 0 */
	uint64_t caps;
};

static inline void become(const void *arg)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct who *who = arg;
	struct __user_cap_data_struct data[2] = {
		{ .effective = who->caps, .permitted = who->caps },
		{ .effective = who->caps >> 32, .permitted = who->caps >> 32 },
	};

	CHECK(!setgroups(!!who->group, &who->group));
	CHECK(!setresgid(who->gid, who->gid, who->gid));
	CHECK(!prctl(PR_SET_KEEPCAPS, 1));
	CHECK(!setresuid(who->uid, who->uid, who->uid));
	CHECK(!syscall(SYS_capset, &header, data));
}

static inline struct agent enlist_who(struct who who)
{
	return enlist(become, &who);
}

static inline struct agent user(uid_t uid)
{
	return enlist_who((struct who) { .uid = uid, .gid = uid });
}

static inline struct klock_ioc_attach named(const char *name, uint32_t flags)
{
	struct klock_ioc_attach attach = { .flags = flags };

	memcpy(attach.name, name, strnlen(name, KLOCK_NAME_SIZE - 1));
	return attach;
}

static inline int open_by(const struct agent *agent, const char *name, uint32_t flags)
{
	struct klock_ioc_attach attach = named(name, flags);

	return attach_by(agent, &attach);
}

static inline int open_uid_by(const struct agent *agent, uint32_t uid, const char *name,
			      uint32_t flags)
{
	struct klock_ioc_attach attach = named(name, flags | KLOCK_ATTACH_UID);

	attach.uid = uid;
	return attach_by(agent, &attach);
}

static inline int make_by(const struct agent *agent, const char *name, uint32_t capacity,
			  uint32_t mode)
{
	struct klock_ioc_attach attach = named(name, KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL);

	attach.capacity = capacity;
	attach.mode = mode;
	return attach_by(agent, &attach);
}

static inline int do_remove_space(struct order *order)
{
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	int ret = raw_ioctl(fd, KLOCK_IOC_REMOVE, order->arg);

	close(fd);
	return ret;
}

static inline int remove_by(const struct agent *agent, const char *name, uint32_t flags,
			    uint32_t uid)
{
	struct klock_ioc_remove remove = { .flags = flags, .uid = uid };

	memcpy(remove.name, name, strnlen(name, KLOCK_NAME_SIZE - 1));
	tell(agent, do_remove_space, -1, 0, &remove, sizeof(remove));
	return answer(agent, &remove, sizeof(remove));
}

static inline int do_unshare(struct order *order)
{
	return unshare(order->number) ? -errno : 0;
}

/*
 * An agent of @uid in a user namespace as a rootless container engine has it:
 * 0 in it is @uid, 1 to 1000 are 100000 to 100999.
 */
#define INSIDE_1	100000

static inline bool enter_userns(const struct agent *agent, uid_t uid)
{
	char map[64], path[64];

	tell(agent, do_unshare, -1, CLONE_NEWUSER, NULL, 0);
	if (answer(agent, NULL, 0))
		return false;
	snprintf(map, sizeof(map), "0 %u 1\n1 %d 1000\n", uid, INSIDE_1);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", agent->pid);
	if (!write_file(path, map))
		return false;
	snprintf(path, sizeof(path), "/proc/%d/gid_map", agent->pid);
	return write_file(path, map);
}

/* By SCM_RIGHTS */
static inline bool send_fd(int sock, int fd)
{
	_Alignas(8) char control[CMSG_SPACE(sizeof(fd))] = {};
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1;
}

static inline int receive_fd(int sock)
{
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))];
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	int fd = -1;

	if (recvmsg(sock, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

static inline int do_receive(struct order *order)
{
	return receive_fd(order->fd);
}

/* The number in the agent of a descriptor of ours, by SCM_RIGHTS; @pair was there before it. */
static inline int give_fd(const struct agent *agent, const int pair[2], int fd)
{
	if (!send_fd(pair[0], fd))
		return -EIO;
	tell(agent, do_receive, pair[1], 0, NULL, 0);
	return answer(agent, NULL, 0);
}

/* Quotas are writable parameters of the module. */
static const char * const quotas[] = {
	"max_spaces", "max_locks", "max_spaces_per_user", "max_locks_per_user",
};

enum { MAX_SPACES, MAX_LOCKS, MAX_SPACES_PER_USER, MAX_LOCKS_PER_USER };

static inline unsigned long get_quota(int i)
{
	unsigned long value = 0;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/klock/parameters/%s", quotas[i]);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%lu", &value) != 1)
		fprintf(stderr, "# %s: %s\n", path, strerror(errno));
	if (file)
		fclose(file);
	return value;
}

static inline bool set_quota(int i, unsigned long value)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/module/klock/parameters/%s", quotas[i]);
	snprintf(text, sizeof(text), "%lu\n", value);
	return write_file(path, text);
}

#endif /* KLOCK_TEST_H */
