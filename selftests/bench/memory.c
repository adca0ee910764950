// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bytes of a lock: what a memory cgroup, in which nobody else is, is charged for a
 * table of them, and for one that is waited for more than for one that is not.
 *
 * What threads wait for is held by another process, since most kinds do not
 * exclude the threads of one.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "bench.h"

#define CGROUPS		"/sys/fs/cgroup"
#define CGROUP		CGROUPS "/klock.bench"
#define LOCKS		2048	/* what a space has that nobody gave a capacity */
#define WAITERS		512
#define STACK		(64 * 1024)

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(2, "%s", path);
	close(fd);
}

/* The counters are added up when enough has changed since they were. */
static void change_much(void)
{
	size_t size = sysconf(_SC_NPROCESSORS_ONLN) * 256 * sysconf(_SC_PAGESIZE);
	char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (mem == MAP_FAILED)
		err(2, "mmap");
	munmap(mem, size);
}

/* Bytes charged to the cgroup: of the kernel, or only of its slabs; and of tmpfs. */
static double charged(const char *key)
{
	FILE *f = fopen(CGROUP "/memory.stat", "re");
	double value, sum = 0;
	char name[64];

	if (!f)
		err(2, CGROUP "/memory.stat");
	usleep(50000);		/* what is freed after a grace period of RCU is gone */
	change_much();
	while (fscanf(f, "%63s %lf", name, &value) == 2)
		if (!strcmp(name, key) || !strcmp(name, "shmem"))
			sum += value;
	fclose(f);
	return sum;
}

/* ---- idle ---- */

static void measure_idle(const struct kind *kind)
{
	double before;

	/* What is made once, and kept, is not a lock's. */
	if (!begin(kind, LOCKS))
		return;
	end(kind);
	before = charged("kernel");
	begin(kind, LOCKS);
	sample("memory", "idle, 2,048 locks", kind->name, "bytes",
	       (charged("kernel") - before) / LOCKS);
	end(kind);
}

static void measure_large(void)
{
	const uint32_t capacity = KLOCK_CAPACITY_MAX;
	struct klock_space *space;
	double before;

	klock_space_close(open_space(SPACE, 0, capacity));
	remove_space(SPACE);
	before = charged("kernel");
	space = open_space(SPACE, 0, capacity);
	sample("memory", "idle, 1,048,576 locks", "klock", "bytes",
	       (charged("kernel") - before) / capacity);
	klock_space_close(space);
	remove_space(SPACE);
}

/* ---- contended ---- */

struct waiter {
	const struct kind *kind;
	int lock;
	pid_t tid;
	atomic_bool ready;	/* it sleeps for the lock next, if at all */
	pthread_barrier_t *go;
	pthread_t thread;
};

static void *wait_for(void *arg)
{
	struct waiter *waiter = arg;

	waiter->tid = syscall(SYS_gettid);
	pthread_barrier_wait(waiter->go);	/* all are there */
	pthread_barrier_wait(waiter->go);	/* memory was measured */
	atomic_store(&waiter->ready, true);
	waiter->kind->lock(waiter->lock);
	waiter->kind->unlock(waiter->lock);
	return NULL;
}

static pid_t hold_all(const struct kind *kind)
{
	atomic_bool *ready = shared(sizeof(*ready));
	pid_t pid = spawn();
	int i;

	if (!pid) {
		kind->enter();
		for (i = 0; i < LOCKS; i++)
			kind->lock(i);
		atomic_store(ready, true);
		pause();
		/* (OFD locks beside each other are one: each unlock would wake all.) */
		for (i = 0; i < LOCKS && !(kind->is & ROBUST); i++)
			kind->unlock(i);
		_exit(0);
	}
	while (!atomic_load(ready))
		sched_yield();
	munmap(ready, sizeof(*ready));
	return pid;
}

static void resume(__attribute__((unused)) int signal)
{
}

static void start_waiters(const struct kind *kind, struct waiter *waiter, pthread_barrier_t *go)
{
	pthread_attr_t attr;
	int i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	for (i = 0; i < WAITERS; i++) {
		waiter[i].kind = kind;
		waiter[i].lock = i * (LOCKS / WAITERS);
		waiter[i].ready = false;
		waiter[i].go = go;
		errno = pthread_create(&waiter[i].thread, &attr, wait_for, &waiter[i]);
		if (errno)
			err(2, "thread %d", i);
	}
	pthread_attr_destroy(&attr);
}

static void measure_contended(const struct kind *kind)
{
	static struct waiter waiter[WAITERS];
	pthread_barrier_t go;
	pid_t holder;
	double before;
	int i;

	if (!kind->create(LOCKS))
		return;
	holder = hold_all(kind);
	kind->enter();
	pthread_barrier_init(&go, NULL, WAITERS + 1);
	start_waiters(kind, waiter, &go);
	pthread_barrier_wait(&go);
	for (i = 0; i < WAITERS; i++)	/* what /proc needs to show a thread is not a lock's */
		until_asleep(getpid(), waiter[i].tid);
	before = charged("slab");
	pthread_barrier_wait(&go);
	for (i = 0; i < WAITERS; i++) {
		while (!atomic_load(&waiter[i].ready))
			sched_yield();
		until_asleep(getpid(), waiter[i].tid);
	}
	sample("memory", "contended, more than idle", kind->name, "bytes",
	       (charged("slab") - before) / WAITERS);
	kill(holder, SIGUSR1);
	reap(holder);
	for (i = 0; i < WAITERS; i++)
		pthread_join(waiter[i].thread, NULL);
	pthread_barrier_destroy(&go);
	end(kind);
}

void bench_memory(void)
{
	const struct rlimit files = { 2 * LOCKS, 2 * LOCKS };

	pin(0);		/* one processor need not tell the other of each thread's stack */
	if (setrlimit(RLIMIT_NOFILE, &files))
		err(2, "setrlimit");
	signal(SIGUSR1, resume);
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		err(2, CGROUP);
	write_file(CGROUPS "/cgroup.subtree_control", "+memory");
	write_file(CGROUP "/cgroup.procs", "0");
	for_each_kind(kind) {
		if (kind->is & A_FLOOR)
			continue;
		measure_idle(kind);
		measure_contended(kind);
	}
	measure_large();
	write_file(CGROUPS "/cgroup.procs", "0");
	if (rmdir(CGROUP))
		err(2, "rmdir " CGROUP);
}
