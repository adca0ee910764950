// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the core of klock costs, as figures that do not depend on the machine
 * more than they must: ratios of things measured in turn, and bytes.
 *
 * A figure that has a bound is judged; the exit status is 1 if one is missed.
 * --quick measures for some seconds in all, and lets ratios be half as much
 * again, which makes a regression test of it: an algorithm that became linear
 * is off by orders of magnitude, noise is not.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/klock.h>
#include <klock.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define SMALL		KLOCK_CAPACITY_DEFAULT
#define LARGE		KLOCK_CAPACITY_MAX
#define EMPTY		_IO(KLOCK_IOC_MAGIC, 0xff)	/* no such call */
#define MAX_ROUNDS	101
#define UNBOUNDED	0.0

static bool quick;
static bool missed;
static FILE *json;

/* One figure: a line of the table, an object of the JSON, a verdict if it has a bound. */
static void figure(const char *name, double value, const char *unit, double bound)
{
	static const char *comma = "";
	bool noisy = !*unit;			/* a ratio of times */
	double limit = quick && noisy ? bound * 1.5 : bound;
	bool ok = bound == UNBOUNDED || value <= limit;

	printf("%-54s %12.2f %-5s", name, value, unit);
	if (bound != UNBOUNDED)
		printf(" %8.2f  %s", limit, ok ? "ok" : "MISSED");
	putchar('\n');
	fflush(stdout);
	if (json) {
		fprintf(json, "%s\n    {\"name\": \"%s\", \"value\": %.4f, \"unit\": \"%s\"",
			comma, name, value, unit);
		if (bound != UNBOUNDED)
			fprintf(json, ", \"at_most\": %.2f", limit);
		fprintf(json, ", \"ok\": %s}", ok ? "true" : "false");
	}
	comma = ",";
	missed |= !ok;
}

/* ---- calls ---- */

static void space_name(char *name, __u32 capacity, int nr)
{
	snprintf(name, KLOCK_NAME_SIZE, "bench.%u.%d", capacity, nr);
}

/* A new client of the @nr-th space of @capacity locks, which is made if need be. */
static int attach_nr(__u32 capacity, int nr)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_CREATE,
		.capacity = capacity,
	};
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		err(2, "/dev/klock");
	space_name(attach.name, capacity, nr);
	if (ioctl(fd, KLOCK_IOC_ATTACH, &attach) < 0)
		err(2, "attach to %s", attach.name);
	return fd;
}

static int attach(__u32 capacity)
{
	return attach_nr(capacity, 0);
}

static void remove_space(__u32 capacity, int nr)
{
	char name[KLOCK_NAME_SIZE];
	int r;

	space_name(name, capacity, nr);
	r = klock_space_remove(name, KLOCK_FORCE);
	if (r && r != -ENOENT) {
		errno = -r;
		err(2, "remove %s", name);
	}
}

static void lock(int fd, __u32 id)
{
	struct klock_ioc_lock lock = { .id = id };

	if (ioctl(fd, KLOCK_IOC_LOCK, &lock))
		err(2, "LOCK %u", id);
}

/* Takes a lock whose last holder died. */
static void take_over(int fd, __u32 id)
{
	struct klock_ioc_lock lock = { .id = id };

	if (ioctl(fd, KLOCK_IOC_LOCK, &lock) != KLOCK_OWNER_DIED)
		err(2, "LOCK %u after its holder's close", id);
}

static void unlock(int fd, __u32 id)
{
	struct klock_ioc_id unlock = { .id = id };

	if (ioctl(fd, KLOCK_IOC_UNLOCK, &unlock))
		err(2, "UNLOCK %u", id);
}

static __u32 allocate(int fd)
{
	struct klock_ioc_allocate allocate = { 0 };
	int id = ioctl(fd, KLOCK_IOC_ALLOCATE, &allocate);

	if (id < 0)
		err(2, "ALLOCATE");
	return id;
}

static void free_id(int fd, __u32 id)
{
	struct klock_ioc_id free = { .id = id };

	if (ioctl(fd, KLOCK_IOC_FREE, &free))
		err(2, "FREE %u", id);
}

/* ---- time ---- */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *value, int n)
{
	qsort(value, n, sizeof(*value), by_value);
	return n % 2 ? value[n / 2] : (value[n / 2 - 1] + value[n / 2]) / 2;
}

/* Something to be measured: @run does it once. */
struct subject {
	const char *name;
	void (*run)(void *arg);
	void *arg;
};

static double time_calls(const struct subject *subject, int calls)
{
	double start = now();
	int i;

	for (i = 0; i < calls; i++)
		subject->run(subject->arg);
	return (now() - start) / calls;
}

/*
 * Measures two subjects in turn, so that what disturbs one disturbs both, and
 * judges the median of the ratios.
 */
static void compare(const struct subject *base, const struct subject *subject,
		    int calls, int rounds, double bound)
{
	double ns_base[MAX_ROUNDS], ns[MAX_ROUNDS], ratio[MAX_ROUNDS];
	char ratio_name[80];
	int i;

	snprintf(ratio_name, sizeof(ratio_name), "  against %s", base->name);

	time_calls(base, 1);
	time_calls(subject, 1);
	for (i = 0; i < rounds; i++) {
		ns_base[i] = time_calls(base, calls);
		ns[i] = time_calls(subject, calls);
		ratio[i] = ns[i] / ns_base[i];
	}
	figure(base->name, median(ns_base, rounds), "ns", UNBOUNDED);
	figure(subject->name, median(ns, rounds), "ns", UNBOUNDED);
	figure(ratio_name, median(ratio, rounds), "", bound);
}

/* ---- an uncontended pair ---- */

static void two_empty(void *arg)
{
	int i;

	for (i = 0; i < 2; i++)
		if (ioctl(*(int *)arg, EMPTY) != -1 || errno != ENOTTY)
			err(2, "an unknown ioctl");
}

static void raw_pair(void *arg)
{
	lock(*(int *)arg, 7);
	unlock(*(int *)arg, 7);
}

static void library_pair(void *arg)
{
	if (klock_lock(arg) || klock_unlock(arg))
		err(2, "lock and unlock through the library");
}

static void bench_pair(void)
{
	int fd = attach(SMALL), calls = quick ? 1000 : 5000, rounds = quick ? 11 : 31;
	struct subject empty = { "two empty ioctls", two_empty, &fd };
	struct subject raw = { "lock + unlock, raw ioctls", raw_pair, &fd };
	struct subject library = { "lock + unlock, libklock by ioctls", library_pair, NULL };
	struct klock_space *space;
	char name[KLOCK_NAME_SIZE];
	struct klock *handle;

	compare(&empty, &raw, calls, rounds, 2.0);

	space_name(name, SMALL, 0);
	if (klock_space_open(name, KLOCK_NO_FASTPATH, NULL, &space) ||
	    klock_retrieve(space, 8, 0, &handle))
		err(2, "open %s through the library", name);
	library.arg = handle;
	compare(&empty, &library, calls, rounds, UNBOUNDED);
	klock_put(handle);
	klock_space_close(space);
	close(fd);
}

/* ---- the table of ids ---- */

static void allocate_free(void *arg)
{
	free_id(*(int *)arg, allocate(*(int *)arg));
}

static void bench_ids(void)
{
	int small = attach(SMALL), large = attach(LARGE);
	int calls = quick ? 1000 : 5000, rounds = quick ? 11 : 31;
	struct subject few = { "allocate + free, 1,000 taken", allocate_free, &small };
	struct subject many = { "allocate + free, 1,000,000 taken", allocate_free,
				&large };

	while (allocate(small) < 999)
		;
	while (allocate(large) < 999999)
		;
	compare(&few, &many, calls, rounds, 1.5);
	close(small);
	close(large);
}

/* ---- a short process ---- */

static void client(void *arg)
{
	__u32 capacity = *(__u32 *)arg;
	int fd = attach(capacity);

	lock(fd, capacity - 1);
	unlock(fd, capacity - 1);
	close(fd);
}

static void process(void *arg)
{
	__u32 capacity = *(__u32 *)arg;
	pid_t pid = fork();
	int status, fd;

	if (pid < 0)
		err(2, "fork");
	if (!pid) {
		fd = attach(capacity);
		lock(fd, capacity - 1);
		unlock(fd, capacity - 1);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		errx(2, "a child failed");
}

static void bench_process(void)
{
	static __u32 small = SMALL, large = LARGE;
	struct subject process_small = { "open .. unlock, exit; space of 2,048", process,
					 &small };
	struct subject process_large = { "open .. unlock, exit; space of 1,048,576", process,
					 &large };
	struct subject client_small = { "open .. unlock, close; space of 2,048",
					client, &small };
	struct subject client_large = { "open .. unlock, close; space of 1,048,576",
					client, &large };

	compare(&process_small, &process_large, quick ? 5 : 20, quick ? 11 : 31, 1.5);
	compare(&client_small, &client_large, quick ? 100 : 1000, quick ? 11 : 31, 1.5);
}

/* ---- release at close ---- */

#define MANY		100000

static int hold(__u32 n)
{
	int fd = attach(LARGE);
	__u32 id;

	for (id = 0; id < n; id++)
		lock(fd, id);
	return fd;
}

static double time_close(int fd)
{
	double start = now();

	close(fd);
	return now() - start;
}

/* Checks that a close released the locks, and leaves them as they were before. */
static void clean_up(__u32 n)
{
	int fd = attach(LARGE);
	__u32 id;

	for (id = 0; id < n; id++) {
		take_over(fd, id);
		unlock(fd, id);
	}
	close(fd);
}

enum phase { STARTING, QUIET, CLOSING, DONE };

/* What another client sees of a close, in shared memory. */
struct watch {
	enum phase phase;
	double longest[DONE + 1];
};

static double longest(struct watch *watch, enum phase phase)
{
	double ns;

	__atomic_load(&watch->longest[phase], &ns, __ATOMIC_ACQUIRE);
	return ns;
}

/* Locks and unlocks, and notes how long the longest pair took in each phase. */
static void other_client(struct watch *watch)
{
	int fd = attach(LARGE);
	enum phase phase;
	double took;

	do {
		took = now();
		lock(fd, LARGE - 1);
		unlock(fd, LARGE - 1);
		took = now() - took;
		phase = __atomic_load_n(&watch->phase, __ATOMIC_ACQUIRE);
		if (took > longest(watch, phase))
			__atomic_store(&watch->longest[phase], &took, __ATOMIC_RELEASE);
	} while (phase != DONE);
	_exit(0);
}

static void watch_close(void)
{
	struct watch *watch = mmap(NULL, sizeof(*watch), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct timespec pause = { .tv_nsec = 100000000 };
	int fd = hold(MANY);
	pid_t pid;

	if (watch == MAP_FAILED)
		err(2, "mmap");
	pid = fork();
	if (pid < 0)
		err(2, "fork");
	if (!pid) {
		close(fd);
		other_client(watch);
	}
	while (!longest(watch, STARTING))
		sched_yield();
	__atomic_store_n(&watch->phase, QUIET, __ATOMIC_RELEASE);
	nanosleep(&pause, NULL);
	__atomic_store_n(&watch->phase, CLOSING, __ATOMIC_RELEASE);
	close(fd);
	__atomic_store_n(&watch->phase, DONE, __ATOMIC_RELEASE);
	waitpid(pid, NULL, 0);
	clean_up(MANY);
	figure("longest lock + unlock of another client, before",
	       longest(watch, QUIET) / 1000, "us", UNBOUNDED);
	figure("longest lock + unlock of another client, meanwhile",
	       longest(watch, CLOSING) / 1000, "us", UNBOUNDED);
	munmap(watch, sizeof(*watch));
}

static void bench_close(void)
{
	static const struct {
		__u32 held;
		const char *name;
	} closes[] = {
		{ 1, "close, 1 lock held" },
		{ 1000, "close, 1,000 locks held" },
		{ MANY, "close, 100,000 locks held" },
	};
	int rounds = quick ? 3 : 7, i;
	double ns[MAX_ROUNDS] = { 0 };
	size_t n;

	for (n = 0; n < ARRAY_SIZE(closes); n++) {
		for (i = 0; i < rounds; i++) {
			ns[i] = time_close(hold(closes[n].held));
			clean_up(closes[n].held);
		}
		figure(closes[n].name, median(ns, rounds) / 1000, "us", UNBOUNDED);
	}
	watch_close();
}

/* ---- memory ---- */

#define CGROUPS		"/sys/fs/cgroup"
#define CGROUP		CGROUPS "/klock.bench"
#define SPACES		64	/* small ones that are made, so that a page more or less is lost */
#define WAITERS		1024
#define STACK		(64 * 1024)
#define SLAB		"/sys/kernel/slab/klock_queue/"

/*
 * What the kernel adds to each object that is charged: a pointer to the cgroup.
 * It is in the memory cgroup's counters, and not in those of the slab.
 */
#define CGROUP_NOTE	8

/* False, with errno set, if the file is not there or does not take it. */
static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

/* A counter of the memory cgroup in which nobody is but this process, in bytes. */
static double charged(const char *key)
{
	FILE *f = fopen(CGROUP "/memory.stat", "re");
	char name[64];
	double value;

	if (!f)
		err(2, CGROUP "/memory.stat");
	while (fscanf(f, "%63s %lf", name, &value) == 2) {
		if (!strcmp(name, key)) {
			fclose(f);
			return value;
		}
	}
	err(2, "no %s in " CGROUP "/memory.stat", key);
}

static void make_spaces(__u32 capacity, int n)
{
	int i;

	for (i = 1; i <= n; i++)
		close(attach_nr(capacity, i));
}

static void remove_spaces(__u32 capacity, int n)
{
	int i;

	for (i = 1; i <= n; i++)
		remove_space(capacity, i);
}

static void measure_idle(const char *name, __u32 capacity, int spaces)
{
	double bytes;

	make_spaces(capacity, 1);
	remove_spaces(capacity, 1);
	bytes = charged("kernel");
	make_spaces(capacity, spaces);
	bytes = charged("kernel") - bytes;
	remove_spaces(capacity, spaces);
	figure(name, bytes / spaces / capacity, "bytes", 16.0);
}

/* WAITERS threads that wait for one lock each, spread over the whole space. */
struct crowd {
	int fd;
	__u32 capacity;
	pthread_barrier_t barrier;
};

struct member {
	struct crowd *crowd;
	__u32 id;
};

static void *wait_in_crowd(void *arg)
{
	struct member *member = arg;

	pthread_barrier_wait(&member->crowd->barrier);	/* all are there */
	pthread_barrier_wait(&member->crowd->barrier);	/* memory was measured */
	take_over(member->crowd->fd, member->id);
	unlock(member->crowd->fd, member->id);
	return NULL;
}

static void start_crowd(struct crowd *crowd, struct member *member, pthread_t *thread)
{
	pthread_attr_t attr;
	int i;

	pthread_barrier_init(&crowd->barrier, NULL, WAITERS + 1);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	for (i = 0; i < WAITERS; i++) {
		member[i].crowd = crowd;
		member[i].id = i * (crowd->capacity / WAITERS);
		errno = pthread_create(&thread[i], &attr, wait_in_crowd, &member[i]);
		if (errno)
			err(2, "thread %d", i);
	}
	pthread_attr_destroy(&attr);
	pthread_barrier_wait(&crowd->barrier);
}

static void measure_contended(const char *name, __u32 capacity)
{
	static struct member member[WAITERS];
	static pthread_t thread[WAITERS];
	struct crowd crowd = { .fd = attach(capacity), .capacity = capacity };
	struct klock_ioc_info info = { 0 };
	int holder = attach(capacity), i;
	double bytes;

	start_crowd(&crowd, member, thread);
	for (i = 0; i < WAITERS; i++)
		lock(holder, member[i].id);
	bytes = charged("slab");
	pthread_barrier_wait(&crowd.barrier);
	do {
		sched_yield();
		if (ioctl(holder, KLOCK_IOC_INFO, &info))
			err(2, "INFO");
	} while (info.waiting != WAITERS);
	bytes = charged("slab") - bytes;
	close(holder);
	for (i = 0; i < WAITERS; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&crowd.barrier);
	close(crowd.fd);
	figure(name, bytes / WAITERS, "bytes", 96.0 + CGROUP_NOTE);
}

static double slab_counter(const char *path)
{
	FILE *f = fopen(path, "re");
	double value;

	if (!f || fscanf(f, "%lf", &value) != 1)
		err(2, "%s", path);
	fclose(f);
	return value;
}

static void show_slab(void)
{
	double slab = sysconf(_SC_PAGESIZE) * (1 << (int)slab_counter(SLAB "order"));

	figure("a contended lock more, its object in the slab", slab_counter(SLAB "object_size"),
	       "bytes", 96.0);
	figure("a contended lock more, its share of the slab's pages",
	       slab / slab_counter(SLAB "objs_per_slab"), "bytes", UNBOUNDED);
}

static void bench_memory(void)
{
	if ((mkdir(CGROUP, 0755) && errno != EEXIST) ||
	    !write_file(CGROUPS "/cgroup.subtree_control", "+memory") ||
	    !write_file(CGROUP "/cgroup.procs", "0"))
		err(2, CGROUP);
	measure_idle("an idle lock, space of 2,048", SMALL, SPACES);
	measure_idle("an idle lock, space of 1,048,576", LARGE, 1);
	show_slab();
	measure_contended("a contended lock more, charged, space of 2,048", SMALL);
	measure_contended("a contended lock more, charged, space of 1,048,576", LARGE);
	if (!write_file(CGROUPS "/cgroup.procs", "0") || rmdir(CGROUP))
		err(2, "leave " CGROUP);
}

/* ---- all ---- */

static const struct {
	const char *name;
	void (*run)(void);
} benches[] = {
	{ "pair", bench_pair },
	{ "ids", bench_ids },
	{ "process", bench_process },
	{ "close", bench_close },
	{ "memory", bench_memory },
};

static bool wanted(const char *name, char **names)
{
	if (!*names)
		return true;
	while (*names && strcmp(*names, name))
		names++;
	return *names;
}

static void run(char **names)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(benches); i++) {
		if (!wanted(benches[i].name, names))
			continue;
		remove_space(SMALL, 0);
		remove_space(LARGE, 0);
		benches[i].run();
	}
	remove_space(SMALL, 0);
	remove_space(LARGE, 0);
}

static void json_open(const char *path, const struct utsname *uts)
{
	json = fopen(path, "we");
	if (!json)
		err(2, "%s", path);
	fprintf(json, "{\n  \"kernel\": \"%s\",\n  \"machine\": \"%s\",\n  \"cpus\": %ld,\n",
		uts->release, uts->machine, sysconf(_SC_NPROCESSORS_ONLN));
	fprintf(json, "  \"figures\": [");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "json", required_argument, NULL, 'j' },
		{ 0 },
	};
	struct utsname uts;
	int c;

	uname(&uts);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'q')
			quick = true;
		else if (c == 'j')
			json_open(optarg, &uts);
		else
			return 2;
	}
	printf("%-54s %12s %-5s %8s\n", uts.release, "", "", "at most");
	run(argv + optind);
	if (json) {
		fprintf(json, "\n  ]\n}\n");
		if (fclose(json))
			err(2, "the JSON file");
	}
	return missed;
}
