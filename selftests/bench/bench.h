/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the bench share.
 *
 * main.c	options; the results, one JSON object a line
 * kinds.c	klock, and the other kinds of locks that it is compared with
 * pair.c	lock and unlock with nobody else about; opening and closing
 * contended.c	many processes, one lock or 64
 * handover.c	from one process to another that sleeps, and from one that is killed
 * space.c	what only klock has: ids, and many locks held at a close
 * memory.c	bytes of a lock
 * icount.c	instructions, where QEMU counts them
 */
#ifndef BENCH_H
#define BENCH_H

#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <klock.h>
#include <linux/klock.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/*
 * A kind of lock.  create() makes a table of locks, or finds that this kernel has
 * no such thing; then each process that uses them calls enter() first, and
 * leave() unless it dies.  One table at a time.
 */
struct kind {
	const char *name;
	bool (*create)(int locks);
	void (*destroy)(void);
	void (*enter)(void);
	void (*leave)(void);
	void (*lock)(int i);		/* also if its last holder died */
	void (*unlock)(int i);
	void (*pairs)(int n);		/* lock and unlock of the first lock */
	unsigned int is;
};

#define A_FLOOR		(1u << 0)	/* no lock, but the least that one could cost */
#define HAS_NAME	(1u << 1)	/* a process that is no child can find it */
#define ROBUST		(1u << 2)	/* the next one gets it when the holder was killed */
#define IS_KLOCK	(1u << 3)

extern const struct kind kinds[];
extern const size_t nr_kinds;

#define for_each_kind(kind) \
	for (const struct kind *kind = kinds; kind < kinds + nr_kinds; kind++)

/* Makes a table and enters it, or says that there is none of that kind. */
bool begin(const struct kind *kind, int locks);
void end(const struct kind *kind);

#define SPACE	"bench"

/* Opens a space of klock, made if need be. */
struct klock_space *open_space(const char *name, unsigned int flags, uint32_t capacity);
void remove_space(const char *name);

/* Of the kind of klock that was created last. */
unsigned int klock_kind_flags(void);

/* Whether the space that klock's kind has entered is locked without system calls. */
bool klock_is_mapped(void);

/* space.c */
void fill(struct klock_space *space, uint32_t taken);
void allocate_and_free(const void *space, int n);

/* main.c */
extern bool quick;

/* One sample of @metric for @kind, in the case @what of @axis; rounds follow in their order. */
void sample(const char *axis, const char *what, const char *kind, const char *metric,
	    double value);

/* ns of one of those that run() does @n of: of the fastest batch of several. */
double least_time(void (*run)(const void *arg, int n), const void *arg);

static inline uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

void *shared(size_t size);		/* zeroed memory that children share */
pid_t spawn(void);			/* a fork() that dies with its parent */
void reap(pid_t pid);			/* of a child that must have done well */
void until_asleep(pid_t pid, pid_t tid);
void pin(int cpu);

void check(int ret, const char *what);	/* of a call of libklock: fatal if it failed */

void bench_pair(void);
void bench_life(void);
void bench_contended(void);
void bench_handover(void);
void bench_death(void);
void bench_ids(void);
void bench_close(void);
void bench_memory(void);
void bench_instructions(void);

#endif /* BENCH_H */
