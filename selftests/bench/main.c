// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bench [--quick] [GROUP...]
 *
 * Measures klock and what it is compared with: one JSON object for each sample on
 * stdout, for `report`; how far it is on stderr.  To be run as root where the
 * module is loaded.  Kinds are measured in turn, round by round, so that what
 * disturbs one disturbs all; each round is a program of its own (--round GROUP),
 * for where things happen to be in memory matters, too.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "bench.h"

bool quick;

void sample(const char *axis, const char *what, const char *kind, const char *metric,
	    double value)
{
	printf("{\"axis\":\"%s\",\"case\":\"%s\",\"kind\":\"%s\",\"metric\":\"%s\",",
	       axis, what, kind, metric);
	printf("\"value\":%.17g}\n", value);
	fflush(stdout);
}

void check(int ret, const char *what)
{
	if (ret < 0)
		errx(2, "%s: %s", what, strerror(-ret));
}

/* Batches are short, so that most of them are not interrupted. */
double least_time(void (*run)(const void *arg, int n), const void *arg)
{
	uint64_t enough = 200000, least = 0, start, took;
	int n = 1, batches = quick ? 10 : 50;

	while (batches) {
		start = now();
		run(arg, n);
		took = now() - start;
		if (took < enough && !least) {
			n *= 2;
			continue;
		}
		if (!least || took < least)
			least = took;
		batches--;
	}
	return (double)least / n;
}

void *shared(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		err(2, "mmap");
	return mem;
}

pid_t spawn(void)
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		err(2, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

void reap(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status)
		errx(2, "a child failed, status %#x", status);
}

/* Until a thread, which has nothing else to sleep for, sleeps in its lock call. */
void until_asleep(pid_t pid, pid_t tid)
{
	char path[64], state;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	do {
		sched_yield();
		f = fopen(path, "re");
		if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			err(2, "%s", path);
		fclose(f);
	} while (state != 'S');
}

void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(2, "sched_setaffinity");
}

static const struct group {
	const char *name;
	void (*run)(void);
	int quick_rounds, rounds;	/* of a group that runs only when it is named, 0 */
} groups[] = {
	{ "pair", bench_pair, 9, 31 },
	{ "contended", bench_contended, 2, 5 },
	{ "handover", bench_handover, 3, 15 },
	{ "death", bench_death, 3, 15 },
	{ "ids", bench_ids, 1, 3 },
	{ "life", bench_life, 2, 15 },
	{ "close", bench_close, 1, 9 },
	{ "memory", bench_memory, 1, 3 },
	{ "instructions", bench_instructions, 0, 0 },
};

static const struct group *find(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(groups); i++)
		if (!strcmp(name, groups[i].name))
			return &groups[i];
	errx(2, "no group %s", name);
}

static void run_rounds(const struct group *group, int rounds)
{
	pid_t pid;
	int round;

	for (round = 1; round <= rounds; round++) {
		fprintf(stderr, "bench: %s, round %d of %d\n", group->name, round, rounds);
		pid = spawn();
		if (!pid) {
			execl("/proc/self/exe", "bench", "--round", group->name,
			      quick ? "--quick" : NULL, NULL);
			err(2, "/proc/self/exe");
		}
		reap(pid);
	}
}

static int rounds_of(const struct group *group)
{
	return quick ? group->quick_rounds : group->rounds;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "round", required_argument, NULL, 'r' },
		{ 0 },
	};
	const struct group *group = NULL;
	size_t i;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'q')
			quick = true;
		else if (c == 'r')
			group = find(optarg);
		else
			return 2;
	}
	if (group) {
		group->run();
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(groups) && optind == argc; i++)
		run_rounds(&groups[i], rounds_of(&groups[i]));
	for (; optind < argc; optind++) {
		group = find(argv[optind]);
		run_rounds(group, rounds_of(group) ? rounds_of(group) : 1);
	}
	return 0;
}
