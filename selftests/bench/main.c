// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bench [--quick] [GROUP...]
 *
 * Measures klock and what it is compared with: one JSON object for each sample on
 * stdout, for `report`; how far it is on stderr.  To be run as root where the
 * module is loaded.  Kinds are measured in turn, round by round, so that what
 * disturbs one disturbs all.
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
	printf("{\"axis\":\"%s\",\"case\":\"%s\",\"kind\":\"%s\",\"metric\":\"%s\",\"value\":%.17g}\n",
	       axis, what, kind, metric, value);
	fflush(stdout);
}

void progress(const char *axis, int round, int rounds)
{
	fprintf(stderr, "bench: %s, round %d of %d\n", axis, round + 1, rounds);
}

void check(int ret, const char *what)
{
	if (ret < 0)
		errx(2, "%s: %s", what, strerror(-ret));
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

static const struct {
	const char *name;
	void (*run)(void);
	bool asked;		/* only when it is named */
} groups[] = {
	{ "pair", bench_pair, false },
	{ "contended", bench_contended, false },
	{ "handover", bench_handover, false },
	{ "death", bench_death, false },
	{ "ids", bench_ids, false },
	{ "life", bench_life, false },
	{ "close", bench_close, false },
	{ "memory", bench_memory, false },
	{ "instructions", bench_instructions, true },
};

static bool wanted(size_t group, char **names)
{
	if (!*names)
		return !groups[group].asked;
	while (*names && strcmp(*names, groups[group].name))
		names++;
	return *names;
}

static void known(char **names)
{
	size_t i;

	for (; *names; names++) {
		for (i = 0; i < ARRAY_SIZE(groups); i++)
			if (!strcmp(*names, groups[i].name))
				break;
		if (i == ARRAY_SIZE(groups))
			errx(2, "no group %s", *names);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ 0 },
	};
	size_t i;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'q')
			return 2;
		quick = true;
	}
	known(argv + optind);
	for (i = 0; i < ARRAY_SIZE(groups); i++)
		if (wanted(i, argv + optind))
			groups[i].run();
	return 0;
}
