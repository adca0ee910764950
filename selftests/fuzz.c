// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A fuzzer of the ABI that knows its structs and is guided by coverage.
 *
 * usage: fuzz [--seed N] [--seconds N] [--corpus FILE] [--print]
 *        fuzz --replay FILE
 *
 * A program is up to CALLS_MAX calls: ioctls with good and bad arguments, at good
 * and bad addresses, opens, closes, mappings, words that are scribbled on, forks,
 * signals.  A call is eight bytes, each of which picks something from a table, so
 * that any bytes are a program, and one byte that changes is a small change.  A
 * program has its descriptors (slots), which an ordinary call opens and attaches if
 * need be, and its threads, which do calls beside the first one.
 *
 * Programs run in a child of a worker, which is made anew when one has ended with it,
 * on spaces in which the worker is a client, too.  KCOV says which points of the module
 * the calls came to.  A program that came from one point to another as no program had
 * before, or that had a new result, goes into the corpus.  New programs are those of the
 * corpus, changed a bit.
 *
 * What must hold:
 *  - each call ends, and the program with it, as soon as it is killed;
 *  - each result is one that the header tells of, and a call that fails has written
 *    nothing;
 *  - when the program has ended nobody waits, nobody but the worker is a client, and
 *    each lock can be taken;
 *  - the kernel has nothing to say.  (It goes on after a warning here, which is made
 *    up for: so what it was that made it warn can be printed.)
 */
#include "klock_test.h"

#include <elf.h>
#include <getopt.h>
#include <linux/kcov.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/time.h>

#define WORKERS		2
#define SLOTS		6
#define THREADS		4	/* of a program; 0: its first */
#define TRACES		(THREADS + 1)	/* and its child */
#define CALLS_MAX	32
#define CORPUS_MAX	8192
#define RECENT		4	/* programs of a worker that are shown when the kernel warns */

#define USER		60000	/* uid of the first worker's programs */
#define STRANGER	60099
#define CAPACITY	516	/* of the larger space: a page of words, and some */
#define TRACE_SIZE	(1 << 14)	/* longs */
#define FEATURES	(1 << 17)
#define TICK_MS		20	/* so long the first thread waits at most */
#define SETTLE_MS	20

enum operation {
	GET_API, ATTACH, SPACE_FD, INFO, RESIZE, REMOVE, LIST_SPACES, ALLOCATE, RETRIEVE, FREE,
	FREE_ALL, LOCK, UNLOCK, BREAK, STATUS, LIST, WAITERS,
	IOCTLS,
	OPEN = IOCTLS, CLOSE, DUP, CLOSE_SPACE_FD, MMAP, MUNMAP, WRITE, FORK, SIGNAL, BECOME,
	SEEK, BARGE,
	OPERATIONS
};

/* Where the struct of a call is, what size its number says, and what else is wrong. */
enum how {
	GOOD,
	NOWHERE = 18, UNMAPPED, READ_ONLY, AT_END, ACROSS_END, SHORT, LONG, LONG_NONZERO, HUGE,
	OTHER_DIR, OTHER_NR, POKED, FAULT, FAULT_TOO,
	HOWS
};

/* Each byte picks from a table, or is itself a number; all values mean something. */
struct call {
	uint8_t op;		/* enum operation */
	uint8_t slot;		/* descriptor */
	uint8_t thread;		/* bits 0, 1: which; bit 2: the first one goes on at once */
	uint8_t how;
	uint8_t id;
	uint8_t flags;
	uint8_t value;
	uint8_t more;
};

enum ending { CLOSES, EXITS, IS_KILLED, ENDINGS };

struct program {
	unsigned int nr;	/* calls */
	uint8_t ending;
	struct call call[CALLS_MAX];
};

/* What came of a call, a bit for each: from which point to which, and what results. */
struct features {
	_Atomic uint64_t bit[FEATURES / 64];
};

struct worker {
	struct program recent[RECENT];	/* a ring; the last one is what runs now */
	unsigned int nr_recent;
	struct features features;	/* of the program that runs */
};

struct arena {
	uint64_t seed;
	uint64_t end;			/* ns; 0: when the programs of the corpus have run */
	bool verbose;
	atomic_int failed;		/* 1: somebody writes the message; 2: it is there */
	char message[512];
	struct features features;	/* of all programs */
	atomic_uchar reached[1 << 16];	/* points */
	atomic_ulong programs, unknown;
	atomic_ulong calls[OPERATIONS][2];	/* that failed, that did not */
	atomic_uint next;		/* of the corpus, to be run again */
	atomic_uint nr_corpus;
	atomic_bool ready[CORPUS_MAX];
	struct program corpus[CORPUS_MAX];
	struct worker worker[WORKERS];
};

static struct arena *arena;
static struct worker *worker;		/* of this process */
static unsigned int worker_nr;
static int kmsg;

static const struct operation_info {
	const char *name;
	unsigned int weight;
	uint8_t flags;			/* that it knows */
	unsigned long number;
	int error[5];			/* beside EFAULT, EINVAL, E2BIG, and those of the space */
} operations[OPERATIONS] = {
#define IOCTL(op, weight, flags, ...) \
	[op] = { #op, weight, flags, KLOCK_IOC_##op, { __VA_ARGS__ } }
	IOCTL(GET_API, 1, 0),
	IOCTL(ATTACH, 6, 0x3f, EBUSY, ENOENT, EEXIST, EBADF),
	IOCTL(SPACE_FD, 3, 0, EBUSY),
	IOCTL(INFO, 2, 0),
	IOCTL(RESIZE, 6, 0, EBUSY, ESTALE),
	IOCTL(REMOVE, 4, 3, ENOENT, EACCES, EBUSY),
	IOCTL(LIST_SPACES, 2, 0),
	IOCTL(ALLOCATE, 5, 1, ENOSPC, EEXIST, ESTALE),
	IOCTL(RETRIEVE, 2, 1, ENOENT, ESTALE),
	IOCTL(FREE, 3, 0, ENOENT, ESTALE),
	IOCTL(FREE_ALL, 1, 0, ESTALE),
	IOCTL(LOCK, 24, 7, EBUSY, ETIMEDOUT, EINTR, EDEADLK, ESTALE),
	IOCTL(UNLOCK, 14, 0, EPERM),
	IOCTL(BREAK, 5, 0, ENOENT, EAGAIN),
	IOCTL(STATUS, 4, 0),
	IOCTL(LIST, 3, 0),
	IOCTL(WAITERS, 3, 0),
#undef IOCTL
	[OPEN] = { .name = "OPEN", .weight = 2 },
	[CLOSE] = { "CLOSE", 6, 3, 0, { EBADF } },
	[DUP] = { "DUP", 1, 3, 0, { EBADF } },
	[CLOSE_SPACE_FD] = { "CLOSE_SPACE_FD", 1, 3, 0, { EBADF } },
	[MMAP] = { "MMAP", 3, 3, 0, { EOPNOTSUPP, EPERM, EBADF, ENODEV } },
	[MUNMAP] = { "MUNMAP", 1, 3, 0, { ENXIO } },
	[WRITE] = { "WRITE", 14, 3, 0, { ENXIO } },
	[FORK] = { .name = "FORK", .weight = 1 },
	[SIGNAL] = { "SIGNAL", 4, 3, 0, { ESRCH } },
	[BECOME] = { "BECOME", 2, 3, 0, { 0 } },
	[BARGE] = { .name = "BARGE", .weight = 3, .error = { ENXIO } },
	[SEEK] = { "SEEK", 1, 3, 0, { ENODEV } },
};

/*
 * Chance
 */

static uint64_t rng;

static uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static unsigned int draw(unsigned int n)
{
	rng = mix64(rng);
	return (rng >> 32) % n;
}

/*
 * Programs as text, one a line
 */

static void print_program(const char *what, const struct program *program)
{
	char line[3 + 2 * sizeof(program->call)];
	const uint8_t *bytes = (const uint8_t *)program->call;
	unsigned int i, n = sprintf(line, "%02x", program->ending);

	for (i = 0; i < program->nr * sizeof(struct call); i++)
		n += sprintf(line + n, "%02x", bytes[i]);
	printf("# %s %s\n", what, line);
}

static uint8_t parse_byte(const char *text)
{
	char digits[] = { text[0], text[1], 0 };

	return strtoul(digits, NULL, 16);
}

static bool parse_program(const char *line, struct program *program)
{
	uint8_t *bytes = (uint8_t *)program->call;
	size_t length = strspn(line, "0123456789abcdef"), i;

	if (length < 2 || (length - 2) % (2 * sizeof(struct call)) ||
	    length - 2 > 2 * sizeof(program->call) || (line[length] && line[length] != '\n'))
		return false;
	program->ending = parse_byte(line);
	for (i = 0; 2 + 2 * i < length; i++)
		bytes[i] = parse_byte(line + 2 + 2 * i);
	program->nr = i / sizeof(struct call);
	for (i = 0; i < program->nr; i++)
		program->call[i].op %= OPERATIONS;
	return true;
}

/* What has been read of it: programs, a line each, and remarks. */
static void read_corpus(const char *name)
{
	char line[4 * sizeof(struct program)];
	FILE *file = fopen(name, "r");

	if (!file)
		ksft_exit_fail_msg("cannot read %s: %s\n", name, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == '#')
			continue;
		if (arena->nr_corpus == CORPUS_MAX ||
		    !parse_program(line, &arena->corpus[arena->nr_corpus]))
			ksft_exit_fail_msg("%s: no program: %s", name, line);
		arena->ready[arena->nr_corpus++] = true;
	}
	fclose(file);
}

/* What is wrong; only the first word counts. */
static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...)
{
	va_list args;
	int n;

	if (!atomic_exchange(&arena->failed, 1)) {
		va_start(args, format);
		n = snprintf(arena->message, sizeof(arena->message), "worker %u: ", worker_nr);
		vsnprintf(arena->message + n, sizeof(arena->message) - n, format, args);
		va_end(args);
		arena->failed = 2;
	}
	_exit(1);
}

#define MUST(cond, ...) do {	\
	if (!(cond))		\
		fail(__VA_ARGS__);	\
} while (0)

/*
 * Coverage.  A point is a place of the module that tells KCOV when it is come to.
 */

static unsigned long text;		/* where the module's code begins */
static uint16_t *point_at;		/* by what comes after the call there; 0: none */
static size_t text_size;
static unsigned int nr_points;

struct trace {
	int fd;
	atomic_ulong *pc;		/* pc[0]: how many */
};

static struct trace traces[TRACES];	/* of this worker */

static bool has_feature(const struct features *features, unsigned int feature)
{
	return features->bit[feature / 64] >> feature % 64 & 1;
}

static void add_feature(struct features *features, unsigned int feature)
{
	if (!has_feature(features, feature))
		features->bit[feature / 64] |= 1ULL << feature % 64;
}

static unsigned int count_features(const struct features *features)
{
	unsigned int i, n = 0;

	for (i = 0; i < FEATURES / 64; i++)
		n += __builtin_popcountll(features->bit[i]);
	return n;
}

static unsigned int count_points(void)
{
	unsigned int i, n = 0;

	for (i = 1; i <= nr_points; i++)
		n += arena->reached[i];
	return n;
}

static void start_trace(const struct trace *trace)
{
	trace->pc[0] = 0;
	ioctl(trace->fd, KCOV_ENABLE, KCOV_TRACE_PC);
}

/* What one call came to; the next one starts from nowhere. */
static void take_trace(const struct trace *trace)
{
	uint64_t n = trace->pc[0], i;
	uint32_t last = 0;

	for (i = 1; i <= n; i++) {
		uint64_t at = trace->pc[i] - text;
		uint32_t point = at < text_size ? point_at[at] : 0;

		if (!point) {
			arena->unknown++;
			continue;
		}
		if (!arena->reached[point])
			arena->reached[point] = 1;
		add_feature(&worker->features, mix64((uint64_t)last << 16 | point) % FEATURES);
		last = point;
	}
	trace->pc[0] = 0;
}

static void add_result(const struct call *call, int ret)
{
	unsigned int result = ret < 0 ? -ret : 200 + !!ret;

	add_feature(&worker->features, mix64(1ULL << 40 | call->op << 16 | result) % FEATURES);
	arena->calls[call->op][ret >= 0]++;
}

/* The calls of __sanitizer_cov_trace_pc() in a section of the module's file. */
static void find_points_in(const char *elf, const Elf64_Shdr *relocs, const Elf64_Shdr *sections)
{
	const Elf64_Shdr *symtab = &sections[relocs->sh_link];
	const Elf64_Sym *symbols = (const void *)(elf + symtab->sh_offset);
	const char *names = elf + sections[symtab->sh_link].sh_offset;
	const Elf64_Rela *rela = (const void *)(elf + relocs->sh_offset), *end;

	text_size = sections[relocs->sh_info].sh_size;
	point_at = calloc(text_size, sizeof(*point_at));
	CHECK(point_at);
	end = rela + relocs->sh_size / sizeof(*rela);
	for (; rela < end; rela++) {
		const char *name = names + symbols[ELF64_R_SYM(rela->r_info)].st_name;

		if (!strcmp(name, "__sanitizer_cov_trace_pc"))
			point_at[rela->r_offset + sizeof(uint32_t)] = ++nr_points;
	}
}

static void find_points(void)
{
	const char *path = getenv("KLOCK_KO"), *elf, *names;
	const Elf64_Shdr *sections;
	const Elf64_Ehdr *header;
	struct stat stat;
	unsigned int i;
	FILE *file;
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0 || fstat(fd, &stat))
		ksft_exit_fail_msg("KLOCK_KO does not name the module's file\n");
	elf = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(elf != MAP_FAILED);
	header = (const void *)elf;
	sections = (const void *)(elf + header->e_shoff);
	names = elf + sections[header->e_shstrndx].sh_offset;
	for (i = 0; i < header->e_shnum; i++)
		if (!strcmp(names + sections[i].sh_name, ".rela.text"))
			find_points_in(elf, &sections[i], sections);
	munmap((void *)elf, stat.st_size);
	close(fd);
	if (!nr_points || nr_points >= ARRAY_SIZE(arena->reached))
		ksft_exit_fail_msg("the module was built without KCOV_INSTRUMENT=y\n");
	file = fopen("/sys/module/klock/sections/.text", "r");
	if (!file || fscanf(file, "%lx", &text) != 1)
		ksft_exit_fail_msg("no address of the module\n");
	fclose(file);
}

static void open_traces(void)
{
	unsigned int i;

	for (i = 0; i < TRACES; i++) {
		struct trace *trace = &traces[i];

		trace->fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
		CHECK(trace->fd >= 0 && !ioctl(trace->fd, KCOV_INIT_TRACE, TRACE_SIZE));
		trace->pc = mmap(NULL, TRACE_SIZE * sizeof(uint64_t), PROT_READ | PROT_WRITE,
				 MAP_SHARED, trace->fd, 0);
		CHECK(trace->pc != MAP_FAILED);
	}
}

/*
 * A program that runs
 */

struct slot {
	_Atomic(atomic_ulong *) words;	/* WORDS of them; NULL: not mapped */
	atomic_int fd, space_fd;	/* -1: none */
	atomic_uint token;
};

#define WORDS		1024
#define WORDS_SIZE	(WORDS * sizeof(uint64_t))

struct thread {
	unsigned int nr;
	pthread_t id;
	atomic_int tid;			/* 0: it was not made yet */
	bool begun;			/* it has done something in this program */
	uid_t euid;
	sem_t wake;
	const struct call *_Atomic todo;
	char *memory;			/* AREA bytes, and then nothing */
	sigjmp_buf fault;
	volatile bool may_fault;
};

#define AREA		65536UL

static struct slot slots[SLOTS];
static struct thread threads[THREADS];
static __thread struct thread *me;
static const struct program *running;
static const void *read_only;		/* memory: zeros */
static int watch[2] = { -1, -1 };	/* the worker's clients of the program's spaces */
static int go, done;			/* eventfds, between a worker and its child */
static uid_t maker;
static bool alone;			/* the program has had one thread only */
static sigset_t asynchronous;		/* signals that may come at any time */

static void fill_name(char name[KLOCK_NAME_SIZE], unsigned int value)
{
	static const char *const names[] = { "0", "1", "new", "default", "", ".x", "a/b" };
	char buf[KLOCK_NAME_SIZE] = "";

	value = value < 0x80 ? value % 3 : value % 8;
	if (value < 3)
		snprintf(buf, sizeof(buf), "fuzz-%u-%s", worker_nr, names[value]);
	else if (value < 7)
		strcpy(buf, names[value]);
	else
		memset(buf, 'x', sizeof(buf));	/* nothing ends it */
	memcpy(name, buf, sizeof(buf));
}

static const uint32_t ids[] = {
	0, 1, 2, 511, 512, 3, 510, 513, CAPACITY - 1, CAPACITY, 1023, 1024,
	KLOCK_CAPACITY_MAX - 1, KLOCK_CAPACITY_MAX, INT32_MAX, UINT32_MAX,
};

static uint32_t id_of(const struct call *call)
{
	return ids[call->id < 0x80 ? call->id % 5 : call->id % ARRAY_SIZE(ids)];
}

static uint32_t capacity_of(unsigned int value)
{
	static const uint32_t all[] = {
		CAPACITY, 512, 513, 1, 1024, 1025, 511, 2, 4096, 2048, 2049, 0,
		KLOCK_CAPACITY_MAX + 1, UINT32_MAX,
	};

	return all[value % ARRAY_SIZE(all)];
}

static uint32_t uid_of(unsigned int value)
{
	const uint32_t uids[] = { maker, 0, STRANGER, UINT32_MAX };

	return uids[value % ARRAY_SIZE(uids)];
}

static uint32_t flags_of(const struct call *call)
{
	return (call->flags & 0x7f) | (call->flags & 0x80U) << 24;
}

/* Of a live client, as far as the program knows it, or one that was or will be. */
static uint32_t token_of(unsigned int value)
{
	uint32_t token = slots[value % SLOTS].token;

	switch (value / SLOTS % 5) {
	case 0:
		return token;
	case 1:
		return token - 1;
	case 2:
		return token + 1;
	case 3:
		return value % SLOTS;
	default:
		return KLOCK_WORD_NONE - value % 2;
	}
}

/* Something in it is to fail, and no signal comes: it may not wait for long. */
static bool is_faulty(const struct call *call)
{
	return call->how % HOWS >= FAULT;
}

static uint64_t deadline_of(const struct call *call, uint32_t flags)
{
	uint64_t now = now_ns(flags & KLOCK_LOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC);
	const uint64_t deadlines[] = {
		now + 3 * NSEC_PER_MSEC, now + NSEC_PER_MSEC, now + NSEC_PER_SEC, 0, 1,
		now - NSEC_PER_MSEC, INT64_MAX, INT64_MAX + 1ULL,
	};

	if (!(flags & KLOCK_LOCK_DEADLINE))
		return call->value == 0xff;
	return deadlines[call->value % (is_faulty(call) ? 2 : ARRAY_SIZE(deadlines))];
}

static void fill_attach(const struct call *call, struct klock_ioc_attach *args)
{
	static const uint32_t modes[] = { 0, 0600, 0620, 0666, 0644, 0400, 0777 };

	args->flags = flags_of(call);
	if (args->flags & KLOCK_ATTACH_UID)
		args->uid = uid_of(call->more);
	if (args->flags & KLOCK_ATTACH_FD)
		args->space_fd = slots[call->more % SLOTS].space_fd;
	else
		fill_name(args->name, call->value);
	if (args->flags & KLOCK_ATTACH_CREATE) {
		args->capacity = capacity_of(call->id);
		args->mode = modes[call->id / 16 % ARRAY_SIZE(modes)];
		args->space_flags = call->more >> 6;
	}
}

/* The address of the entries, of which one is @size. */
static uint64_t fill_entries(const struct call *call, uint32_t size, uint32_t *count,
			     uint32_t *entry_size)
{
	static const uint32_t counts[] = { 4, 64, 1, 0, UINT32_MAX };
	const uint32_t sizes[] = { size, size, size, size + 8, 4096, size - 8, 4097, 0 };

	*count = counts[call->value % ARRAY_SIZE(counts)];
	*entry_size = sizes[call->more % ARRAY_SIZE(sizes)];
	if (call->more == 0xff)
		return UINT64_MAX - 100;
	if (call->more >= 0xe0)
		return (uintptr_t)read_only;
	return (uintptr_t)(me->memory + AREA - (call->more >= 0xc0 ? 100 : AREA / 2));
}

static void fill(const struct call *call, union args *args)
{
	uint32_t flags = flags_of(call), id = id_of(call);

	switch (call->op) {
	case ATTACH:
		fill_attach(call, &args->attach);
		break;
	case SPACE_FD:
		args->space_fd.flags = flags;
		break;
	case RESIZE:
		args->resize.capacity = capacity_of(call->value);
		args->resize.flags = flags;
		break;
	case REMOVE:
		args->remove.flags = flags;
		if (flags & KLOCK_REMOVE_UID)
			args->remove.uid = uid_of(call->more);
		fill_name(args->remove.name, call->value);
		break;
	case LIST_SPACES:
		args->spaces.flags = flags;
		args->spaces.entries = fill_entries(call, sizeof(struct klock_ioc_info),
						    &args->spaces.count,
						    &args->spaces.entry_size);
		if (call->id >= 0x80) {
			args->spaces.after_uid = uid_of(call->id);
			fill_name(args->spaces.after_name, call->id / 4);
		}
		break;
	case ALLOCATE:
		args->allocate.flags = flags;
		args->allocate.id = flags & KLOCK_ALLOCATE_ID ? id : call->value == 0xff;
		break;
	case RETRIEVE:
	case FREE:
	case UNLOCK:
		args->id = (struct klock_ioc_id) { .id = id, .flags = flags };
		break;
	case FREE_ALL:
		args->id.flags = flags;
		break;
	case LOCK:
		if (is_faulty(call) && !(flags & KLOCK_LOCK_TRY))
			flags |= KLOCK_LOCK_DEADLINE;
		args->lock = (struct klock_ioc_lock) {
			.id = id, .flags = flags, .deadline = deadline_of(call, flags),
		};
		break;
	case BREAK:
		args->brk = (struct klock_ioc_break) {
			.id = id, .flags = flags,
			.token = call->more < 0x80 ? 0 : token_of(call->value),
		};
		break;
	case STATUS:
		args->status.id = id;
		args->status.flags = flags;
		break;
	case LIST:
	case WAITERS:
		args->list = (struct klock_ioc_list) { .id = id, .flags = flags };
		args->list.entries = fill_entries(call, call->op == LIST ?
						  sizeof(struct klock_ioc_status) :
						  sizeof(struct klock_ioc_waiter),
						  &args->list.count, &args->list.entry_size);
		break;
	}
}

/* The struct of a call, where the call says, and the number that it says. */
static void *place(const struct call *call, unsigned long *number)
{
	size_t size = _IOC_SIZE(*number), said = size;
	char *at = me->memory;
	union args args;

	memset(&args, *number & (unsigned long)_IOC_WRITE << _IOC_DIRSHIFT ? 0 : 0xa5,
	       sizeof(args));
	fill(call, &args);
	if (call->how % HOWS == POKED)
		((uint8_t *)&args)[call->more % size] ^= 1 << call->value % 8;
	switch (call->how % HOWS) {
	case NOWHERE:
		return NULL;
	case UNMAPPED:
		return me->memory + AREA;
	case READ_ONLY:
		return (void *)read_only;
	case AT_END:
		at = me->memory + AREA - size;
		break;
	case ACROSS_END:
		at = me->memory + AREA - size / 2;
		size /= 2;
		break;
	case SHORT:
		said = call->more % size;
		break;
	case LONG:
	case LONG_NONZERO:
		said = size + 4 + call->more % 64;
		break;
	case HUGE:
		said = _IOC_SIZEMASK;
		break;
	}
	memset(me->memory, 0, call->how % HOWS == HUGE ? _IOC_SIZEMASK : 512);
	memcpy(at, &args, size);
	if (call->how % HOWS == LONG_NONZERO)
		at[said - 1] = 1;
	*number = _IOC(_IOC_DIR(*number), KLOCK_IOC_MAGIC, _IOC_NR(*number), said);
	if (call->how % HOWS == OTHER_DIR)
		*number ^= (call->more % 3 + 1UL) << _IOC_DIRSHIFT;
	if (call->how % HOWS == OTHER_NR)
		*number ^= call->more;
	return at;
}

/* What the descriptor of a slot is when an ordinary call finds it closed. */
static int open_slot(unsigned int nr, bool attached)
{
	static const struct { char name[4]; uint32_t flags; } kinds[SLOTS] = {
		{ "0", 0 }, { "0", 0 }, { "0", KLOCK_ATTACH_ERRORCHECK },
		{ "1", 0 }, { "1", KLOCK_ATTACH_ERRORCHECK }, { "", 0 },
	};
	struct klock_ioc_attach attach = {
		.flags = kinds[nr].flags | KLOCK_ATTACH_UID, .uid = maker,
	};
	int fd = slots[nr].fd, none = -1;

	if (fd >= 0)
		return fd;
	fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fd;
	if (attached && kinds[nr].name[0]) {
		snprintf(attach.name, sizeof(attach.name), "fuzz-%u-%s", worker_nr,
			 kinds[nr].name);
		raw_ioctl(fd, KLOCK_IOC_ATTACH, &attach);
	}
	if (atomic_compare_exchange_strong(&slots[nr].fd, &none, fd))
		return fd;
	close(fd);
	return none;
}

static int call_ioctl(const struct call *call)
{
	unsigned long number = operations[call->op].number, right = number;
	struct slot *slot = &slots[call->slot % SLOTS];
	void *at = place(call, &number);
	int fd = open_slot(call->slot % SLOTS, call->op != ATTACH), ret;
	union args before;

	if (fd < 0)
		return -EBADF;
	if (call->how % HOWS == GOOD)
		memcpy(&before, at, _IOC_SIZE(number));
	ret = raw_ioctl(fd, number, at);
	if (call->how % HOWS == GOOD && ret < 0)
		MUST(!memcmp(&before, at, _IOC_SIZE(number)), "%s: %s, and wrote something",
		     operations[call->op].name, strerror(-ret));
	if (number == right && call->op == SPACE_FD && ret >= 0) {
		slot->token = ((struct klock_ioc_space_fd *)at)->token;
		fd = atomic_exchange(&slot->space_fd, ret);
		if (fd >= 0)
			close(fd);
	}
	return ret;
}

static int close_it(atomic_int *fd)
{
	int old = atomic_exchange(fd, -1);

	return old < 0 || close(old) ? -EBADF : 0;
}

static int space_fd_of(struct slot *slot)
{
	struct klock_ioc_space_fd args = { .flags = 0 };
	int fd = slot->space_fd, none = -1;

	if (fd >= 0)
		return fd;
	fd = raw_ioctl(open_slot(slot - slots, true), KLOCK_IOC_SPACE_FD, &args);
	if (fd < 0)
		return -1;
	slot->token = args.token;
	if (atomic_compare_exchange_strong(&slot->space_fd, &none, fd))
		return fd;
	close(fd);
	return none;
}

/* Nothing else is ever mapped there, for others may be about to write. */
static int unmap_words(struct slot *slot)
{
	atomic_ulong *words = atomic_exchange(&slot->words, NULL);

	if (!words)
		return -ENXIO;
	return mmap((void *)words, WORDS_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		    -1, 0) == MAP_FAILED ? -errno : 0;
}

static atomic_ulong *words_of(struct slot *slot)
{
	atomic_ulong *none = NULL;
	void *words;

	if (slot->words)
		return slot->words;
	words = mmap(NULL, WORDS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, space_fd_of(slot), 0);
	if (words == MAP_FAILED)
		return NULL;
	if (atomic_compare_exchange_strong(&slot->words, &none, words))
		return words;
	munmap(words, WORDS_SIZE);
	return none;
}

/* A mapping that may be a strange one, and is gone again. */
static int call_mmap(const struct call *call)
{
	static const int prots[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_EXEC | PROT_READ };
	static const unsigned int pages[] = { 2, 1, 2048, 2049 }, offsets[] = { 0, 1, 2047, 3000 };
	unsigned int page = getpagesize(), size = pages[call->value % 4] * page;
	struct slot *slot = &slots[call->slot % SLOTS];
	int fd = call->more < 0xe0 ? space_fd_of(slot) : open_slot(call->slot % SLOTS, true);
	char *mem = mmap(NULL, size, prots[call->flags % ARRAY_SIZE(prots)],
			 call->more & 1 ? MAP_PRIVATE : MAP_SHARED, fd,
			 (off_t)offsets[call->id % 4] * page);

	if (mem == MAP_FAILED)
		return -errno;
	me->may_fault = true;
	if (!sigsetjmp(me->fault, 1))
		*(volatile char *)mem;
	me->may_fault = false;
	munmap(mem, size);
	return 0;
}

/* Locks and unlocks as a library would, or writes whatever comes to its mind. */
static int call_write(const struct call *call)
{
	atomic_ulong *words = words_of(&slots[call->slot % SLOTS]), *word;
	uint32_t token = token_of(call->value & 31), n = call->more < 0x80 ? 1 : call->more * 30;
	uint64_t other, new = token | (call->value & 0x60ULL) << 25;

	if (!words)
		return -ENXIO;
	word = &words[id_of(call) % WORDS];
	if (call->value & 0x80)
		new |= (uint64_t)gettid() << KLOCK_WORD_TID_SHIFT;
	me->may_fault = true;
	if (sigsetjmp(me->fault, 1)) {
		me->may_fault = false;
		return -EFAULT;
	}
	for (other = *word; n; n--) {
		uint64_t from = n % 2 ? 0 : new;

		if (call->flags & 1)
			atomic_compare_exchange_strong(word, &from, new ^ from);
		else
			*word = n % 2 ? new : other;
	}
	me->may_fault = false;
	return 0;
}

/* Unlocks, and locks again before a waiter has come to it, as far as that goes. */
static int call_barge(const struct call *call)
{
	int fd = open_slot(call->slot % SLOTS, true);
	unsigned int n;

	for (n = call->more % 16; n; n--) {
		raw_unlock(fd, id_of(call));
		raw_lock(fd, id_of(call), KLOCK_LOCK_TRY, 0);
	}
	return 0;
}

static int call_dup(const struct call *call)
{
	struct slot *to = &slots[call->more % SLOTS];
	int fd = fcntl(slots[call->slot % SLOTS].fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	fd = atomic_exchange(&to->fd, fd);
	if (fd >= 0)
		close(fd);
	return 0;
}

/* This thread alone; by way of root, who may become anybody. */
static void act_as(uid_t uid)
{
	if (me->euid == uid)
		return;
	CHECK(!syscall(SYS_setresuid, -1, 0, -1) && !syscall(SYS_setresuid, -1, uid, -1));
	prctl(PR_SET_DUMPABLE, 1);	/* or else it may not arm() */
	me->euid = uid;
}

/* What /proc tells of a client; that it tells nothing of one that is closed is /proc's. */
static void read_fdinfo(int fd)
{
	char path[64], text[4096];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && read(fd, text, sizeof(text)) > 0)
		;
	close(fd);
}

static int operate(const struct call *call)
{
	struct slot *slot = &slots[call->slot % SLOTS];
	int tid, fd, ret = 0;

	switch (call->op) {
	case OPEN:
		fd = open("/dev/klock", O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		fd = atomic_exchange(&slot->fd, fd);
		if (fd >= 0)
			close(fd);
		break;
	case CLOSE:
		return close_it(&slot->fd);
	case DUP:
		return call_dup(call);
	case CLOSE_SPACE_FD:
		return close_it(&slot->space_fd);
	case MMAP:
		return call_mmap(call);
	case MUNMAP:
		return unmap_words(slot);
	case WRITE:
		return call_write(call);
	case FORK:	/* by the first thread: see run_in_child() */
		return 0;
	case SIGNAL:
		tid = threads[call->more % THREADS].tid;
		ret = tid ? syscall(SYS_tgkill, getpid(), tid,
				    call->value & 1 ? SIGUSR1 : SIGUSR2) : 0;
		break;
	case BARGE:
		return call_barge(call);
	case BECOME:
		act_as(uid_of(call->value % 3));
		break;
	case SEEK:
		fd = open_slot(call->slot % SLOTS, true);
		if (call->more % 4 == 3)
			read_fdinfo(fd);
		else
			ret = lseek(fd, call->value, call->more % 4);
		break;
	default:
		return call_ioctl(call);
	}
	return ret < 0 ? -errno : ret;
}

/*
 * The @n-th allocation, or copy from or to user memory, of this thread fails, until
 * disarm(): a descriptor, or -1.  No signal comes meanwhile: what it copies could fail.
 */
static int arm(unsigned int n)
{
	int fd = open("/proc/thread-self/fail-nth", O_WRONLY | O_CLOEXEC);

	pthread_sigmask(SIG_BLOCK, &asynchronous, NULL);
	if (fd >= 0 && dprintf(fd, "%u", n) > 0)
		return fd;
	close(fd);
	return -1;
}

/* This may be what fails, but not twice. */
static void disarm(int fd)
{
	if (fd >= 0 && write(fd, "0", 1) != 1)
		CHECK(write(fd, "0", 1) == 1);
	close(fd);
	pthread_sigmask(SIG_UNBLOCK, &asynchronous, NULL);
}

static void judge_result(const struct call *call, int ret, bool faulted)
{
	const struct operation_info *info = &operations[call->op];
	unsigned int how = call->how % HOWS, i;
	bool ok = how == OTHER_DIR || how == OTHER_NR || how == POKED;

	if (ret >= 0) {
		ok |= ret == 0 || call->op == ATTACH || call->op == SPACE_FD ||
		      call->op == SEEK || call->op == LIST_SPACES || call->op == LIST ||
		      call->op == WAITERS || (call->op == LOCK && ret == 1) ||
		      (call->op == ALLOCATE && ret < (int)KLOCK_CAPACITY_MAX);
		MUST(ok, "%s: %d", info->name, ret);
		return;
	}
	ok |= (call->op < IOCTLS || call->op == MMAP || call->op == WRITE) &&
	      (ret == -EFAULT || ret == -EINVAL || ret == -E2BIG || ret == -EACCES);
	ok |= faulted && (ret == -ENOMEM || ret == -EFAULT || ret == -EBADF);
	ok |= !alone && (ret == -EBADF || ret == -ENOTTY || ret == -ENODEV || ret == -ENXIO);
	for (i = 0; i < ARRAY_SIZE(info->error); i++)
		ok |= info->error[i] == -ret;
	MUST(ok, "%s: %s", info->name, strerror(-ret));
}

static void show_call(const struct call *call, int ret)
{
	dprintf(1, "# %u: %-14s slot %u how %2u id %3u flags %#04x value %3u more %3u %s\n",
		me->nr, operations[call->op].name, call->slot % SLOTS, call->how % HOWS, call->id,
		call->flags, call->value, call->more, ret < 0 ? strerrorname_np(-ret) : "ok");
}

static void perform(const struct call *call)
{
	int fault = is_faulty(call) ? arm(1 + call->more % 12) : -1;
	int ret = operate(call);

	if (is_faulty(call))
		disarm(fault);
	take_trace(&traces[me->nr]);
	add_result(call, ret);
	if (arena->verbose)
		show_call(call, ret);
	judge_result(call, ret, fault >= 0);
}

static void *run_thread(void *arg)
{
	const struct call *call;

	me = arg;
	me->tid = gettid();
	me->euid = -1;
	start_trace(&traces[me->nr]);
	for (;;) {
		while (sem_wait(&me->wake))
			;
		if (!me->begun)
			act_as(maker);
		me->begun = true;
		call = me->todo;
		perform(call);
		me->todo = NULL;
	}
	return NULL;
}

/* How many wait for the lock of a call in the spaces that the worker looks at. */
static uint32_t waiters_for(const struct call *call)
{
	struct klock_ioc_status status;
	uint32_t n = 0;
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (!raw_status(watch[i], id_of(call), &status))
			n += status.waiters;
	traces[me->nr].pc[0] = 0;
	return n;
}

static bool come_to_rest(struct thread *thread, const struct call *call, uint32_t waited)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + SETTLE_MS * NSEC_PER_MSEC;

	while (thread->todo && waiters_for(call) <= waited) {
		if (now_ns(CLOCK_MONOTONIC) > end)
			return false;
		sched_yield();
	}
	return true;
}

/* The call is done by another thread; usually until it is done, or waits. */
static void give_to(struct thread *thread, const struct call *call)
{
	uint32_t waited;

	if (thread->todo && !come_to_rest(thread, call, UINT32_MAX))
		return;
	if (!thread->id) {
		CHECK(!sem_init(&thread->wake, 0, 0));
		CHECK(!pthread_create(&thread->id, NULL, run_thread, thread));
	}
	waited = call->thread & 4 ? 0 : waiters_for(call);
	thread->todo = call;
	sem_post(&thread->wake);
	if (!(call->thread & 4))
		come_to_rest(thread, call, waited);
}

/* Waits of the first thread end with the next tick. */
static void start_ticking(void)
{
	struct itimerval tick = {
		.it_interval.tv_usec = TICK_MS * 1000, .it_value.tv_usec = TICK_MS * 1000,
	};

	setitimer(ITIMER_REAL, &tick, NULL);
}

/* A child does the calls from @first to @end, as this process has it, and goes. */
static void run_in_child(const struct call *fork_call, unsigned int first, unsigned int end)
{
	pid_t pid = fork();
	unsigned int i;

	MUST(pid >= 0, "fork: %s", strerror(errno));
	if (pid) {
		while (!(fork_call->more & 2) && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		take_trace(&traces[me->nr]);
		return;
	}
	for (i = 1; i < THREADS; i++)
		threads[i].tid = 0;
	me->nr = THREADS;
	start_ticking();
	start_trace(&traces[me->nr]);
	for (i = first; i < end; i++)
		perform(&running->call[i]);
	if (fork_call->more & 1)
		kill(getpid(), SIGKILL);
	_exit(0);
}

static void run_calls(void)
{
	unsigned int i, end;

	for (i = 0; i < running->nr; i++) {
		const struct call *call = &running->call[i];

		if (call->op == FORK) {
			end = i + 1 + call->value % 4;
			end = end < running->nr ? end : running->nr;
			run_in_child(call, i + 1, end);
			i = end - 1;
		} else if (call->thread % THREADS) {
			give_to(&threads[call->thread % THREADS], call);
		} else {
			perform(call);
		}
	}
}

/* Less and less often: who does nothing but take signals does not come to its end. */
static void end_threads(void)
{
	uint64_t pause = NSEC_PER_MSEC / 10;
	unsigned int i;

	for (i = 1; i < THREADS; i++)
		for (; threads[i].todo; pause = MIN(2 * pause, 5 * NSEC_PER_MSEC)) {
			if (threads[i].tid)
				syscall(SYS_tgkill, getpid(), threads[i].tid, SIGUSR1);
			nap_for(pause);
		}
}

static void on_signal(int sig)
{
	(void)sig;
}

static void on_fault(int sig)
{
	if (!me || !me->may_fault) {
		signal(sig, SIG_DFL);
		return;
	}
	siglongjmp(me->fault, 1);
}

static void set_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t none;

	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = SA_RESTART;
	sigaction(SIGUSR2, &action, NULL);
	action = (struct sigaction) { .sa_handler = on_fault };
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	sigaddset(&asynchronous, SIGALRM);
	sigaddset(&asynchronous, SIGUSR1);
	sigaddset(&asynchronous, SIGUSR2);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* As after the last program, but for who has which number. */
static void clean_up(void)
{
	unsigned int i;

	end_threads();
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	for (i = 0; i < SLOTS; i++) {
		struct slot *slot = &slots[i];
		struct call call = { .op = CLOSE, .slot = i };

		if (slot->fd >= 0)
			perform(&call);
		close_it(&slot->space_fd);
		if (slot->words)
			munmap((void *)slot->words, WORDS_SIZE);
		slot->words = NULL;
		slot->token = 0;
	}
	for (i = 0; i < THREADS; i++)
		threads[i].begun = false;
	act_as(maker);
}

static void run_program(const struct program *program)
{
	unsigned int i;

	running = program;
	alone = true;
	for (i = 0; i < program->nr; i++)
		alone &= program->call[i].thread % THREADS == 0;
	run_calls();
	if (program->ending % ENDINGS == EXITS)
		_exit(0);
	if (program->ending % ENDINGS == IS_KILLED)
		kill(getpid(), SIGKILL);
	clean_up();
}

/* Runs one program after the other, each when it is told to. */
static void __attribute__((noreturn)) execute(void)
{
	pid_t parent = getppid();
	uint64_t one = 1;

	setpgid(0, 0);
	set_signals();
	me = &threads[0];
	me->tid = gettid();
	me->euid = -1;
	act_as(maker);
	start_ticking();
	start_trace(&traces[0]);
	for (;;) {
		while (read(go, &one, sizeof(one)) < 0)
			if (getppid() != parent)
				_exit(1);
		run_program(&worker->recent[worker->nr_recent % RECENT]);
		CHECK(write(done, &one, sizeof(one)) == sizeof(one));
	}
}

/*
 * A worker
 */

static void prepare_memory(void)
{
	unsigned int i;

	read_only = mmap(NULL, AREA, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(read_only != MAP_FAILED);
	for (i = 0; i < THREADS; i++) {
		threads[i].nr = i;
		threads[i].memory = mmap(NULL, 2 * AREA, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(threads[i].memory != MAP_FAILED &&
		      !mprotect(threads[i].memory + AREA, AREA, PROT_NONE));
	}
	for (i = 0; i < SLOTS; i++)
		slots[i] = (struct slot) { .fd = -1, .space_fd = -1 };
}

static const uint32_t capacities[] = { CAPACITY, 4 };

static void open_watch(unsigned int i)
{
	struct klock_ioc_attach attach = {
		.flags = KLOCK_ATTACH_CREATE | KLOCK_ATTACH_EXCL | KLOCK_ATTACH_UID,
		.uid = maker,
		.capacity = capacities[i],
		.mode = i ? 0620 : 0600,
	};
	int ret;

	snprintf(attach.name, sizeof(attach.name), "fuzz-%u-%u", worker_nr, i);
	watch[i] = open("/dev/klock", O_RDWR | O_CLOEXEC);
	CHECK(watch[i] >= 0);
	ret = raw_ioctl(watch[i], KLOCK_IOC_ATTACH, &attach);
	MUST(ret == (int)capacities[i], "a new space: %d", ret);
}

/* Nobody is left but the worker; if it is said to hold it, somebody wrote that. */
static void judge_lock(unsigned int i, uint32_t id)
{
	int ret = raw_lock(watch[i], id, KLOCK_LOCK_TRY, 0);

	if (ret == -EBUSY && !raw_unlock(watch[i], id))
		ret = raw_lock(watch[i], id, KLOCK_LOCK_TRY, 0);
	MUST(ret == 0 || ret == 1, "space %u: lock %u is left: %s", i, id, strerror(-ret));
	ret = raw_unlock(watch[i], id);
	MUST(!ret, "space %u: lock %u: unlock: %s", i, id, strerror(-ret));
}

/* Whatever the program may have made of that name. */
static void remove_space(unsigned int name)
{
	struct klock_ioc_remove remove = {
		.flags = KLOCK_REMOVE_FORCE | KLOCK_REMOVE_UID, .uid = maker,
	};
	int fd = open("/dev/klock", O_RDWR | O_CLOEXEC), ret;

	fill_name(remove.name, name);
	ret = raw_ioctl(fd, KLOCK_IOC_REMOVE, &remove);
	MUST(!ret || ret == -ENOENT, "remove %s: %d", remove.name, ret);
	close(fd);
}

/* Afterwards it is as it was before, or else a new one. */
static void judge_space(unsigned int i)
{
	struct klock_ioc_resize resize = { .capacity = capacities[i] };
	struct klock_ioc_id none = { .id = 0 };
	struct klock_ioc_info info = { .capacity = 0 };
	unsigned int n;

	MUST(!raw_ioctl(watch[i], KLOCK_IOC_INFO, &info), "no info");
	for (n = 0; n < ARRAY_SIZE(ids); n++) {
		if (info.flags & KLOCK_SPACE_REMOVED)
			raw_unlock(watch[i], ids[n]);
		else if (ids[n] < info.capacity)
			judge_lock(i, ids[n]);
	}
	MUST(!raw_ioctl(watch[i], KLOCK_IOC_INFO, &info), "no info");
	MUST(info.clients == 1 && !info.held && !info.waiting && info.allocated <= info.capacity,
	     "space %u: %u clients, %u held, %u waiting, %u of %u allocated are left", i,
	     info.clients, info.held, info.waiting, info.allocated, info.capacity);
	if (info.flags & KLOCK_SPACE_REMOVED) {
		close(watch[i]);
		remove_space(i);
		open_watch(i);
		return;
	}
	if (info.allocated)
		MUST(!raw_ioctl(watch[i], KLOCK_IOC_FREE_ALL, &none), "free all");
	if (info.capacity != capacities[i])
		MUST(!raw_ioctl(watch[i], KLOCK_IOC_RESIZE, &resize), "resize");
}

static void judge_kernel(void)
{
	static const char *const bad[] = {
		"WARNING:", " BUG ", "BUG:", "UBSAN:", "INFO: trying", "INFO: lockdep", "Oops",
		"lockup", "stall", "blocked for more than",
	};
	char line[1024];
	unsigned int i;
	ssize_t n;

	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0) {
		line[n] = '\0';
		line[strcspn(line, "\n")] = '\0';
		for (i = 0; i < ARRAY_SIZE(bad); i++)
			MUST(!strstr(line, bad[i]), "the kernel says %s", line);
	}
}

static pid_t child;			/* that runs the programs; 0: there is none */
static int child_fd;

static void make_child(void)
{
	fflush(stdout);
	child = spawn();
	if (!child)
		execute();
	child_fd = syscall(SYS_pidfd_open, child, 0);
	CHECK(child_fd >= 0);
}

/* Of the child and what it left to us: whether all are gone. */
static bool all_gone(int *status)
{
	pid_t pid;
	int state;

	while ((pid = waitpid(-1, &state, WNOHANG)) > 0)
		if (pid == child)
			*status = state;
	return pid < 0;
}

/* All that the program has started has ended: how the child did; -1: not in time. */
static int reap_child(void)
{
	int status = -1;

	if (!UNTIL(all_gone(&status)))
		return -1;
	close(child_fd);
	child = 0;
	return status;
}

static void show_file(const char *tid, const char *name)
{
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/%s", child, tid, name);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (strcmp(name, "status") || strstr(line, "State") || strstr(line, "Sig") ||
		    strstr(line, "Shd"))
			printf("# %s: %s: %s", tid, name, line);
	if (file)
		fclose(file);
}

/* What each thread of the child does: one that does not end is killed, and gone then. */
static void show_child(void)
{
	static const char *const names[] = { "status", "syscall", "stack" };
	struct dirent *entry;
	char path[64];
	unsigned int i;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", child);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks)))
		for (i = 0; i < ARRAY_SIZE(names) && entry->d_name[0] != '.'; i++)
			show_file(entry->d_name, names[i]);
	if (tasks)
		closedir(tasks);
}

/* Whether each processor still has a timer: an emulator may lose it. */
static void show_processors(void)
{
	int cpu, status;
	cpu_set_t one;
	uint64_t end;
	pid_t pid;

	for (cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		pid = spawn();
		if (!pid) {
			CHECK(!sched_setaffinity(0, sizeof(one), &one));
			nap();
			_exit(0);
		}
		end = now_ns(CLOCK_MONOTONIC) + 5 * NSEC_PER_SEC;
		for (status = -1; status && now_ns(CLOCK_MONOTONIC) < end; sched_yield())
			waitpid(pid, &status, WNOHANG);
		printf("# a sleep on processor %d %s\n", cpu, status ? "does not end" : "ended");
		kill(pid, SIGKILL);
	}
}

/* Waits until the child has run the program, or is dead. */
static void await(const struct program *program)
{
	struct pollfd fds[] = { { .fd = done, .events = POLLIN }, { .events = POLLIN } };
	int status, ret;
	uint64_t count;

	fds[1].fd = child_fd;
	while ((ret = poll(fds, 2, PATIENCE_MS)) < 0)
		MUST(errno == EINTR, "poll: %s", strerror(errno));
	if (!ret) {
		show_child();
		show_processors();
		kill(-child, SIGKILL);
	}
	if (!ret || !(fds[0].revents & POLLIN)) {
		status = reap_child();
		if (arena->failed)
			_exit(1);
		MUST(status != -1, "a program that cannot be killed");
		MUST(ret, "a program that does not end");
		MUST(!status || (program->ending % ENDINGS == IS_KILLED && status == SIGKILL),
		     "a program ended with status %#x", status);
	} else {
		CHECK(read(done, &count, sizeof(count)) == sizeof(count));
	}
}

static void run(const struct program *program)
{
	struct program *copy = &worker->recent[++worker->nr_recent % RECENT];
	uint64_t one = 1;
	unsigned int i;

	if (arena->failed)
		_exit(1);
	*copy = *program;
	memset(&worker->features, 0, sizeof(worker->features));
	if (!child)
		make_child();
	CHECK(write(go, &one, sizeof(one)) == sizeof(one));
	await(copy);
	for (i = 0; i < TRACES && !child; i++)
		take_trace(&traces[i]);
	for (i = 0; i < 2; i++)
		judge_space(i);
	remove_space(2);
	judge_kernel();
	arena->programs++;
}

/* Adds what the last program came to: whether anything was new, which is left in @news. */
static bool add_news(struct features *news)
{
	bool any = false;
	unsigned int i;

	for (i = 0; i < FEATURES / 64; i++) {
		news->bit[i] = worker->features.bit[i] & ~arena->features.bit[i];
		if (!news->bit[i])
			continue;
		news->bit[i] &= ~atomic_fetch_or(&arena->features.bit[i], news->bit[i]);
		any |= news->bit[i] != 0;
	}
	return any;
}

/* Runs a program again: whether it comes to all of @news. */
static bool repeats(const struct program *program, const struct features *news)
{
	unsigned int i;

	run(program);
	for (i = 0; i < FEATURES / 64; i++)
		if (news->bit[i] & ~worker->features.bit[i])
			return false;
	return true;
}

static void drop_call(struct program *program, unsigned int i)
{
	memmove(&program->call[i], &program->call[i + 1],
		(program->nr - i - 1) * sizeof(struct call));
	program->nr--;
}

static void keep(const struct program *program)
{
	unsigned int nr = arena->nr_corpus++;

	if (nr >= CORPUS_MAX) {
		arena->nr_corpus = CORPUS_MAX;
		return;
	}
	arena->corpus[nr] = *program;
	arena->ready[nr] = true;
}

/*
 * New programs
 */

static unsigned int draw_operation(void)
{
	static unsigned int sum;
	unsigned int i, n;

	if (!sum)
		for (i = 0; i < OPERATIONS; i++)
			sum += operations[i].weight;
	n = draw(sum);
	for (i = 0; n >= operations[i].weight; i++)
		n -= operations[i].weight;
	return i;
}

static uint8_t draw_thread(void)
{
	unsigned int n = draw(10);

	return n < 6 ? 0 : (n < 9 ? 0 : 4) + 1 + draw(THREADS - 1);
}

static uint8_t draw_flags(const struct operation_info *info)
{
	return draw(12) ? draw(256) & info->flags & (draw(3) ? draw(256) : 0xff) : draw(256);
}

static struct call draw_call(void)
{
	unsigned int op = draw_operation();

	return (struct call) {
		.op = op,
		.slot = draw(4) ? draw(3) : draw(SLOTS),
		.thread = draw_thread(),
		.how = draw(8) ? GOOD : draw(HOWS),
		.id = draw(3) ? 0 : draw(2) ? draw(5) : draw(256),
		.flags = draw_flags(&operations[op]),
		.value = draw(256),
		.more = draw(256),
	};
}

static void insert_call(struct program *program, unsigned int i, struct call call)
{
	if (program->nr == CALLS_MAX)
		drop_call(program, draw(CALLS_MAX));
	if (i > program->nr)
		i = program->nr;
	memmove(&program->call[i + 1], &program->call[i],
		(program->nr - i) * sizeof(struct call));
	program->call[i] = call;
	program->nr++;
}

static void change_call(struct call *call)
{
	struct call other = draw_call();
	unsigned int byte = 1 + draw(sizeof(*call) - 1);

	if (draw(4))
		((uint8_t *)call)[byte] = ((uint8_t *)&other)[byte];
	else
		((uint8_t *)call)[byte] ^= 1 << draw(8);
}

static const struct program *draw_program(void)
{
	unsigned int nr = arena->nr_corpus, i;

	if (!nr)
		return NULL;
	i = draw(2) ? draw(nr) : nr - 1 - draw(nr < 50 ? nr : 50);
	return arena->ready[i] ? &arena->corpus[i] : NULL;
}

/* The end of another one, after a part of this one. */
static void splice_in(struct program *program)
{
	const struct program *other = draw_program();
	unsigned int i;

	if (!other || !other->nr)
		return;
	if (program->nr)
		program->nr = draw(program->nr) + 1;
	for (i = draw(other->nr); i < other->nr && program->nr < CALLS_MAX; i++)
		program->call[program->nr++] = other->call[i];
}

static void change(struct program *program)
{
	unsigned int at = program->nr ? draw(program->nr) : 0;

	switch (program->nr ? draw(16) : 0) {
	case 0:
	case 1:
	case 2:
		insert_call(program, at + draw(2), draw_call());
		break;
	case 3:
	case 4:
		drop_call(program, at);
		break;
	case 5:
		insert_call(program, draw(program->nr + 1), program->call[at]);
		break;
	case 6:
		splice_in(program);
		break;
	case 7:
		program->ending = draw(3) ? CLOSES : draw(ENDINGS);
		break;
	default:
		change_call(&program->call[at]);
	}
}

static struct program new_program(void)
{
	const struct program *old = draw(10) ? draw_program() : NULL;
	struct program program = { .nr = 0 };
	unsigned int n;

	if (old) {
		program = *old;
		while (program.nr > 12 && draw(4))
			drop_call(&program, draw(program.nr));
		for (n = 1 + draw(1 << draw(4)); n; n--)
			change(&program);
	} else {
		for (n = 2 + draw(12); n; n--)
			program.call[program.nr++] = draw_call();
	}
	return program;
}

/*
 * What workers do
 */

static void run_corpus(void)
{
	struct features news;
	unsigned int i;

	while ((i = arena->next++) < arena->nr_corpus) {
		run(&arena->corpus[i]);
		add_news(&news);
		if (arena->verbose)
			print_program("program", &arena->corpus[i]);
	}
}

static void fuzz(void)
{
	struct features news;
	struct program program;

	while (now_ns(CLOCK_MONOTONIC) < arena->end) {
		program = new_program();
		run(&program);
		if (add_news(&news))
			keep(&program);
	}
}

static int shorter(const void *a, const void *b)
{
	const struct program *x = a, *y = b;

	return (int)x->nr - (int)y->nr;
}

/* Without the calls that are not needed to come to @news. */
static void shorten(struct program *program, const struct features *news)
{
	unsigned int i;

	for (i = program->nr; i-- > 0; ) {
		struct program less = *program;

		drop_call(&less, i);
		if (repeats(&less, news))
			*program = less;
	}
}

/* The short ones first, and only those that come to what those before do not. */
static void print_corpus(void)
{
	struct features news;
	unsigned int i;

	qsort(arena->corpus, arena->nr_corpus, sizeof(arena->corpus[0]), shorter);
	memset(&arena->features, 0, sizeof(arena->features));
	for (i = 0; i < arena->nr_corpus; i++) {
		run(&arena->corpus[i]);
		if (!add_news(&news))
			continue;
		shorten(&arena->corpus[i], &news);
		print_program("corpus", &arena->corpus[i]);
	}
}

static void work(unsigned int nr, void (*what)(void))
{
	unsigned int i;

	worker_nr = nr;
	worker = &arena->worker[nr];
	maker = USER + nr;
	rng = mix64(arena->seed ^ (uint64_t)nr << 48);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	CHECK(kmsg >= 0 && lseek(kmsg, 0, SEEK_END) >= 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prepare_memory();
	open_traces();
	go = eventfd(0, EFD_CLOEXEC);
	done = eventfd(0, EFD_CLOEXEC);
	CHECK(go >= 0 && done >= 0);
	for (i = 0; i < 3; i++)
		remove_space(i);
	for (i = 0; i < 2; i++)
		open_watch(i);
	what();
	if (child)
		slay(child);
	for (i = 0; i < 2; i++)
		remove_space(i);
	fflush(stdout);
	_exit(0);
}

static void show_counts(void)
{
	unsigned int i;
	unsigned long calls = 0;

	for (i = 0; i < OPERATIONS; i++)
		calls += arena->calls[i][0] + arena->calls[i][1];
	printf("# %lu programs, %lu calls, %u of %u points, %u edges and results, %u kept\n",
	       arena->programs, calls, count_points(), nr_points,
	       count_features(&arena->features), arena->nr_corpus);
}

static void show_failure(void)
{
	unsigned int w, i;

	printf("# %s\n# the last programs:\n", arena->message);
	for (w = 0; w < WORKERS; w++) {
		const struct worker *of = &arena->worker[w];

		for (i = of->nr_recent < RECENT ? 0 : of->nr_recent - RECENT; i++ < of->nr_recent; )
			print_program(w ? "of worker 1:" : "of worker 0:",
				      &of->recent[i % RECENT]);
	}
}

/* Processes that do something each: whether nothing was found. */
static bool in_workers(unsigned int n, void (*what)(void))
{
	uint64_t next = now_ns(CLOCK_MONOTONIC) + 60 * NSEC_PER_SEC;
	bool ok = true;
	int status = 0;
	unsigned int w;
	pid_t pid;

	fflush(stdout);
	arena->next = 0;
	for (w = 0; w < n; w++)
		if (spawn() == 0)
			work(w, what);
	while ((pid = waitpid(-1, &status, WNOHANG)) >= 0) {
		ok &= !pid || !status;
		if (now_ns(CLOCK_MONOTONIC) > next) {
			show_counts();
			next += 60 * NSEC_PER_SEC;
		}
		if (pid == 0)
			usleep(10000);
	}
	show_counts();
	if (!ok)
		show_failure();
	return ok;
}

/*
 * The whole
 */

static void set_to(const char *name, const char *value)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, value, strlen(value)) < 0)
		perror(name);
	close(fd);
}

/* After a warning it must be possible to say what it was that made the kernel warn. */
static void set_kernel(const char *panics)
{
	set_to("/sys/module/kernel/parameters/panic_on_warn", panics);
	set_to("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	set_to("/sys/kernel/debug/failslab/verbose", "0");
	set_to("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	set_to("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	set_to("/sys/kernel/debug/fail_page_alloc/verbose", "0");
	set_to("/sys/kernel/debug/fail_usercopy/verbose", "0");
}

/* The least that can be done, to compare with */
static void run_least(void)
{
	static const struct program least = { .nr = 1, .call = { { .op = INFO } } };
	struct features news;

	run(&least);
	add_news(&news);
}

static void begin(const char *corpus)
{
	ksft_print_header();
	if (access("/sys/kernel/debug/kcov", F_OK))
		ksft_exit_skip("the kernel has no KCOV\n");
	arena = shared(sizeof(*arena));
	find_points();
	set_kernel("0");
	read_corpus(corpus);
}

static int replay(void)
{
	bool ok;

	ksft_set_plan(1);
	arena->verbose = true;
	ok = in_workers(1, run_corpus);
	set_kernel("1");
	ksft_test_result(ok, "the same again\n");
	return !ok;
}

static void show_calls(void)
{
	unsigned int i;

	for (i = 0; i < OPERATIONS; i++)
		printf("# %-14s %8lu succeeded, %8lu failed\n", operations[i].name,
		       arena->calls[i][1], arena->calls[i][0]);
}

/* To look at what no program comes to, with addr2line(1) */
static void show_missed(void)
{
	size_t at;

	for (at = 0; at < text_size; at++)
		if (point_at[at] && !arena->reached[point_at[at]])
			printf("# missed %#zx\n", at - 1);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 't' },
		{ "corpus", required_argument, NULL, 'c' },
		{ "replay", required_argument, NULL, 'r' },
		{ "print", no_argument, NULL, 'p' },
		{ NULL, 0, NULL, 0 },
	};
	const char *corpus = "fuzz.corpus";
	unsigned int seconds = 60, least;
	bool again = false, print = false, ok;
	int option;
	uint64_t seed;

	setvbuf(stdout, NULL, _IOLBF, 0);
	CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (option == 't')
			seconds = atoi(optarg);
		else if (option == 'c' || option == 'r')
			corpus = optarg;
		else if (option == 'p')
			print = true;
		else
			return KSFT_FAIL;
		again |= option == 'r';
	}

	begin(corpus);
	if (again)
		return replay();
	ksft_set_plan(3);
	ksft_print_msg("seed %ju\n", (uintmax_t)seed);
	arena->seed = seed;
	ok = in_workers(1, run_least);
	least = count_points();

	ok &= in_workers(WORKERS, run_corpus);
	ksft_test_result(ok && arena->nr_corpus, "the programs of the corpus\n");
	arena->end = now_ns(CLOCK_MONOTONIC) + seconds * NSEC_PER_SEC;
	ok = ok && in_workers(WORKERS, fuzz);
	ksft_test_result(ok, "new programs\n");
	show_calls();
	ok = count_points() > 2 * least && count_points() * 100 > nr_points * 60 && !arena->unknown;
	ksft_print_msg("the least program comes to %u points, %lu are unknown\n", least,
		       arena->unknown);
	ksft_test_result(ok, "six of ten points of the module are come to\n");
	if (print && !arena->failed) {
		show_missed();
		in_workers(1, print_corpus);
	}
	set_kernel("1");
	ksft_finished();
}
