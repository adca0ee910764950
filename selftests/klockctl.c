// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * klockctl: what it says of real holders, waiters and cycles, as text and as JSON, its exit
 * statuses and messages, and what it does to locks.
 *
 * The command that is tested is in bin, beside this program.
 */
#define _GNU_SOURCE

#include "klock_test.h"

#include <ctype.h>
#include <libgen.h>
#include <limits.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <termios.h>

/*
 * Running it
 */

/* What a command has said; the texts are the caller's, who calls forget(). */
struct said {
	int status;		/* as of reap() */
	char *out, *err;
};

struct running {
	pid_t pid;
	int out, err;
};

static const char *tool_path(void)
{
	static char path[PATH_MAX + 16];
	char self[PATH_MAX] = "";

	if (!*path && readlink("/proc/self/exe", self, sizeof(self) - 1) > 0)
		snprintf(path, sizeof(path), "%s/bin/klockctl", dirname(self));
	return path;
}

#define ARGS_MAX	32

/* A word with blanks in it is written with ~ for them. */
static char *with_blanks(char *word)
{
	for (char *p = word; (p = strchr(p, '~')); p++)
		*p = ' ';
	return word;
}

/* @words: its arguments, with blanks between; 0 is this process's uid. */
static struct running start_by(uid_t uid, int input, int output, const char *words)
{
	struct running running = { .out = output, .err = memfd_create("err", MFD_CLOEXEC) };
	char *copy = strdup(words), *argv[ARGS_MAX] = { "klockctl" }, *save = NULL;
	int argc = 1;

	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		if (argc == ARGS_MAX - 1)
			abort();
		argv[argc++] = with_blanks(word);
	}
	running.pid = spawn();
	if (!running.pid) {
		signal(SIGQUIT, SIG_DFL);	/* see spawn() */
		CHECK(dup2(input, 0) == 0);
		CHECK(dup2(running.out, 1) == 1);
		CHECK(dup2(running.err, 2) == 2);
		if (uid) {
			CHECK(!setgroups(0, NULL) && !setresgid(uid, uid, uid));
			CHECK(!setresuid(uid, uid, uid));
			prctl(PR_SET_PDEATHSIG, SIGKILL);
		}
		execv(tool_path(), argv);
		fprintf(stderr, "%s: %s\n", tool_path(), strerror(errno));
		_exit(120);
	}
	free(copy);
	return running;
}

static struct running start_as(uid_t uid, int input, const char *words)
{
	return start_by(uid, input, memfd_create("out", MFD_CLOEXEC), words);
}

static char *read_all(int fd)
{
	struct stat st;
	char *text;

	if (fstat(fd, &st))
		abort();
	text = calloc(1, st.st_size + 1);
	if (!text || pread(fd, text, st.st_size, 0) != st.st_size)
		abort();
	return text;
}

static bool has_said(int fd, const char *word)
{
	char *text = read_all(fd);
	bool found = strstr(text, word);

	free(text);
	return found;
}

static struct said finish(struct running running)
{
	struct said said = { .status = reap(running.pid) };

	said.out = read_all(running.out);
	said.err = read_all(running.err);
	close(running.out);
	close(running.err);
	return said;
}

static int nothing_to_read(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	return fd;
}

static char *words_of(const char *format, va_list args)
{
	char *words = NULL;

	if (vasprintf(&words, format, args) < 0)
		abort();
	return words;
}

/* @output: anything, so it is the caller's to read and to close. */
__attribute__((format(printf, 2, 3)))
static struct running start_to(int output, const char *format, ...)
{
	struct running running;
	va_list args;
	char *words;

	va_start(args, format);
	words = words_of(format, args);
	va_end(args);
	running = start_by(0, nothing_to_read(), output, words);
	free(words);
	return running;
}

#define start(...) start_to(memfd_create("out", MFD_CLOEXEC), __VA_ARGS__)

/* What reap() says if it ends by itself, whatever it may wait for; else -ETIMEDOUT. */
static int end_of(const struct running *running)
{
	int status = reap_soon(running->pid);

	if (status == -ETIMEDOUT)
		slay(running->pid);
	return status;
}

__attribute__((format(printf, 2, 3)))
static struct said klockctl_as(uid_t uid, const char *format, ...)
{
	struct said said;
	va_list args;
	char *words;

	va_start(args, format);
	words = words_of(format, args);
	va_end(args);
	said = finish(start_as(uid, nothing_to_read(), words));
	free(words);
	return said;
}

#define klockctl(...) klockctl_as(0, __VA_ARGS__)

static void forget(struct said *said)
{
	free(said->out);
	free(said->err);
}

/* Printable ASCII and line ends only. */
static bool is_harmless(const char *text)
{
	for (; *text; text++)
		if ((*text < 0x20 && *text != '\n') || *text > 0x7e)
			return false;
	return true;
}

static int count_lines(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

/* It fails with @_status, has nothing to say on stdout, and on stderr @_word and a whole line. */
#define EXPECT_FAILURE(_status, _word, _said) do {				\
	struct said __said = (_said);						\
										\
	EXPECT_EQ(_status, __said.status);					\
	EXPECT_STREQ("", __said.out);						\
	EXPECT_EQ(0, strncmp(__said.err, "klockctl: ", 10));			\
	EXPECT_TRUE(is_harmless(__said.err));					\
	EXPECT_TRUE(!!strstr(__said.err, _word)) {				\
		TH_LOG("not in: %s", __said.err);				\
	}									\
	forget(&__said);							\
} while (0)

#define EXPECT_SUCCESS(_out, _said) do {					\
	struct said __said = (_said);						\
										\
	EXPECT_EQ(0, __said.status);						\
	EXPECT_STREQ(_out, __said.out);						\
	EXPECT_STREQ("", __said.err);						\
	forget(&__said);							\
} while (0)

#define EXPECT_IN(_word, _text) do {						\
	const char *__text = (_text);						\
										\
	EXPECT_TRUE(!!strstr(__text, _word)) {					\
		TH_LOG("%s is not in: %s", _word, __text);			\
	}									\
} while (0)

/*
 * JSON, by the letter of RFC 8259, and a value in it: "locks[1].pid"
 */

struct json {
	const char *p;
	char path[256];
	const char *want;
	const char *value, *end;	/* of what is wanted */
};

static void skip_space(struct json *json)
{
	/* (strspn() prepares more than there is to skip.) */
	while (*json->p == ' ' || *json->p == '\t' || *json->p == '\n' || *json->p == '\r')
		json->p++;
}

static bool take(struct json *json, char c)
{
	skip_space(json);
	if (*json->p != c)
		return false;
	json->p++;
	return true;
}

static bool json_value(struct json *json);

static bool json_string(struct json *json)
{
	if (!take(json, '"'))
		return false;
	for (; *json->p != '"'; json->p++) {
		if ((unsigned char)*json->p < 0x20 || (unsigned char)*json->p > 0x7e)
			return false;	/* (klockctl writes ASCII) */
		if (*json->p != '\\')
			continue;
		json->p++;
		if (*json->p == 'u') {
			for (int i = 0; i < 4; i++)
				if (!isxdigit((unsigned char)*++json->p))
					return false;
		} else if (!*json->p || !strchr("\"\\/bfnrt", *json->p)) {
			return false;
		}
	}
	json->p++;
	return true;
}

static bool json_digits(struct json *json)
{
	const char *p = json->p;

	while (isdigit((unsigned char)*json->p))
		json->p++;
	return json->p > p;
}

static bool json_number(struct json *json)
{
	if (*json->p == '-')
		json->p++;
	if (*json->p == '0')
		json->p++;
	else if (!json_digits(json))
		return false;
	if (*json->p == '.' && (json->p++, !json_digits(json)))
		return false;
	if (*json->p == 'e' || *json->p == 'E') {
		json->p++;
		json->p += *json->p == '+' || *json->p == '-';
		return json_digits(json);
	}
	return true;
}

static bool json_members(struct json *json, char end, size_t length)
{
	int n = 0;

	if (take(json, end))
		return true;
	do {
		if (end == ']') {
			sprintf(json->path + length, "[%d]", n++);
		} else {
			const char *name;

			skip_space(json);
			name = json->p + 1;
			if (!json_string(json) || json->p - name > 64)
				return false;
			sprintf(json->path + length, "%s%.*s", length ? "." : "",
				(int)(json->p - name - 1), name);
			if (!take(json, ':'))
				return false;
		}
		if (!json_value(json))
			return false;
		json->path[length] = '\0';
	} while (take(json, ','));
	return take(json, end);
}

static bool json_literal(struct json *json)
{
	static const char * const literals[] = { "true", "false", "null" };

	for (int i = 0; i < 3; i++) {
		size_t n = strlen(literals[i]);

		if (strncmp(json->p, literals[i], n))
			continue;
		json->p += n;
		return true;
	}
	return json_number(json);
}

static bool json_value(struct json *json)
{
	size_t length = strlen(json->path);
	const char *value;
	bool good;

	skip_space(json);
	value = json->p;
	if (*value == '"')
		good = json_string(json);
	else if (take(json, '{'))
		good = json_members(json, '}', length);
	else if (take(json, '['))
		good = json_members(json, ']', length);
	else
		good = json_literal(json);
	if (good && json->want && !strcmp(json->path, json->want)) {
		json->value = value;
		json->end = json->p;
	}
	return good;
}

/* Whether the text is documents of JSON, @n of them. */
static bool is_json(const char *text, int n)
{
	struct json json = { .p = text };

	while (n--)
		if (!json_value(&json))
			return false;
	skip_space(&json);
	return !*json.p;
}

/* As it stands there, strings with their quotes; "(none)": there is no such value. */
static const char *get(const char *text, const char *format, ...)
{
	static char values[4][128], path[256];
	static unsigned int turn;
	struct json json = { .p = text, .want = path };
	char *value = values[turn++ % 4];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	if (!json_value(&json) || !json.value)
		return "(none)";
	snprintf(value, sizeof(*values), "%.*s", (int)(json.end - json.value), json.value);
	return value;
}

static long long get_int(const char *text, const char *path)
{
	return atoll(get(text, "%s", path));
}

#define EXPECT_JSON(_value, _said, ...) \
	EXPECT_STREQ(_value, get((_said).out, __VA_ARGS__))

/*
 * The space, its holders and waiters
 */

FIXTURE(klockctl) {
	char name[KLOCK_NAME_SIZE];
	char other[KLOCK_NAME_SIZE];	/* of a second space, made by those that need one */
	struct klock_space *space;
};

#define SELF	FIXTURE_DATA(klockctl)

FIXTURE_SETUP(klockctl)
{
	SPACE_NAME(self->name);
	snprintf(self->other, sizeof(self->other), "other-%d", getpid());
	self->space = make_space(self->name, 64, KLOCK_NO_FASTPATH);
	ASSERT_NE(NULL, self->space);
	ASSERT_EQ(0, access(tool_path(), X_OK));
}

FIXTURE_TEARDOWN(klockctl)
{
	dismiss_all();
	klock_space_close(self->space);
	klock_space_remove(self->name, KLOCK_FORCE);
	klock_space_remove(self->other, KLOCK_FORCE);
}

static bool is_waited_for(struct klock_space *space, uint32_t id, uint32_t waiters)
{
	struct klock *lock = get_lock(space, id);
	bool met = UNTIL(waiters_of(lock) == waiters);

	klock_put(lock);
	return met;
}

static uint32_t flags_of(struct klock_space *space, uint32_t id)
{
	struct klock *lock = get_lock(space, id);
	uint32_t flags = status_of(lock).flags;

	klock_put(lock);
	return flags;
}

/* A client of its own in another process that has locked @id, or waits for it. */
static struct agent enlist_holder(const char *name, uint32_t id, int *fd)
{
	struct agent agent = enlist(NULL, NULL);

	*fd = open_by(&agent, name, 0);
	if (*fd < 0 || lock_by(&agent, *fd, id, 0) < 0)
		abort();
	return agent;
}

static struct agent enlist_waiter(const SELF *self, uint32_t id)
{
	struct agent agent = enlist(NULL, NULL);
	struct klock *lock = get_lock(self->space, id);
	uint32_t before = waiters_of(lock);
	int fd = open_by(&agent, self->name, 0);

	klock_put(lock);
	tell_lock(&agent, fd, id);
	/* One that does not sleep yet may take the lock before its release has been told of. */
	if (fd < 0 || !is_waited_for(self->space, id, before + 1) ||
	    !UNTIL(sleeps(agent.pid, agent.pid)))
		abort();
	return agent;
}

static void leave_dead(const SELF *self, uint32_t id)
{
	int fd;
	struct agent agent = enlist_holder(self->name, id, &fd);

	slay(agent.pid);
}

static const char *decimal(long long n)
{
	static char texts[4][24];
	static unsigned int turn;
	char *text = texts[turn++ % 4];

	sprintf(text, "%lld", n);
	return text;
}

/*
 * list
 */

/* 0: only allocated, 1: held and waited for, 2: its holder died, 3: held */
static void set_stage(const SELF *self, struct agent *holder, struct agent *waiter)
{
	struct klock *lock;
	int fd;

	if (klock_allocate(self->space, &lock))
		abort();
	klock_put(lock);
	*holder = enlist_holder(self->name, 1, &fd);
	if (lock_by(holder, fd, 3, 0))
		abort();
	*waiter = enlist_waiter(self, 1);
	leave_dead(self, 2);
}

TEST_F(klockctl, list_json)
{
	struct agent holder, waiter;
	uint64_t before = now_ns(CLOCK_MONOTONIC);
	struct said said;
	long long waiting;

	set_stage(self, &holder, &waiter);
	said = klockctl("list --json --space %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_STREQ("", said.err);
	EXPECT_TRUE(is_json(said.out, 1));
	EXPECT_JSON("0", said, "locks[0].id");
	EXPECT_JSON("\"free\"", said, "locks[0].state");
	EXPECT_JSON("true", said, "locks[0].allocated");
	EXPECT_JSON("null", said, "locks[0].pid");
	EXPECT_JSON("null", said, "locks[0].command");
	EXPECT_JSON("null", said, "locks[0].held_ns");
	EXPECT_JSON("0", said, "locks[0].waiters");
	EXPECT_JSON("\"held\"", said, "locks[1].state");
	EXPECT_JSON("false", said, "locks[1].allocated");
	EXPECT_JSON(decimal(holder.pid), said, "locks[1].pid");
	EXPECT_JSON(decimal(holder.pid), said, "locks[1].tid");
	EXPECT_JSON("\"klockctl\"", said, "locks[1].command");
	EXPECT_JSON("1", said, "locks[1].waiters");
	EXPECT_LT(0, get_int(said.out, "locks[1].token"));
	EXPECT_LT(0, get_int(said.out, "locks[1].held_ns"));
	waiting = get_int(said.out, "locks[1].waiting_ns");
	EXPECT_LT(0, waiting);
	EXPECT_GT(now_ns(CLOCK_MONOTONIC) - before, (uint64_t)waiting);
	EXPECT_JSON("\"died\"", said, "locks[2].state");
	EXPECT_JSON("null", said, "locks[2].pid");
	EXPECT_JSON("3", said, "locks[3].id");
	EXPECT_JSON("(none)", said, "locks[4]");
	forget(&said);
}

/* Held since before the first waiter went, waited for by one who came later. */
TEST_F(klockctl, list_times)
{
	struct agent waiter;
	struct klock *lock = get_lock(self->space, 1);
	long long held, waiting;
	uint64_t between, asked;
	struct said said;
	int fd;

	enlist_holder(self->name, 1, &fd);
	waiter = enlist_waiter(self, 1);
	ASSERT_TRUE(UNTIL(status_of(lock).held_since));
	between = now_ns(CLOCK_MONOTONIC);
	enlist_waiter(self, 1);
	slay(waiter.pid);
	ASSERT_TRUE(is_waited_for(self->space, 1, 1));
	klock_put(lock);
	asked = now_ns(CLOCK_MONOTONIC);
	said = klockctl("list --json -s %s", self->name);
	held = get_int(said.out, "locks[0].held_ns");
	waiting = get_int(said.out, "locks[0].waiting_ns");
	EXPECT_LE((long long)(asked - between), held);
	EXPECT_GE((long long)(now_ns(CLOCK_MONOTONIC) - between), waiting);
	EXPECT_LT(waiting, held);
	forget(&said);
}

TEST_F(klockctl, list_text)
{
	struct agent holder, waiter;
	struct said said;
	char line[64];

	set_stage(self, &holder, &waiter);
	said = klockctl("-s %s list", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(5, count_lines(said.out));
	EXPECT_EQ(0, strncmp(said.out, "ID STATE ", 9));
	forget(&said);
	EXPECT_SUCCESS("free\nheld\ndied\nheld\n", klockctl("list -nr -o state -s %s", self->name));
	snprintf(line, sizeof(line), "1 %d klockctl 1\n", holder.pid);
	EXPECT_SUCCESS(line, klockctl("list -nr -s %s --waiting -o ID,PID,COMMAND,WAITERS",
				      self->name));
	said = klockctl("list -nr -o +TOKEN,ALLOCATED -s %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(0, strncmp(said.out, "0 free - - - - 0 - - yes\n", 25));
	forget(&said);
}

/* --long: by a holder of whom it is known, and in JSON an empty list is one. */
TEST_F(klockctl, list_narrowed)
{
	struct agent holder, waiter;
	struct said said;

	set_stage(self, &holder, &waiter);
	EXPECT_SUCCESS("1\n3\n", klockctl("list -nr -o ID --held -s %s", self->name));
	EXPECT_SUCCESS("1\n", klockctl("list -nr -o ID --long 1us -s %s", self->name));
	EXPECT_SUCCESS("", klockctl("list -nr --long 1h -s %s", self->name));
	said = klockctl("list -J --waiting --long 1.5h -s %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_json(said.out, 1));
	EXPECT_JSON("(none)", said, "locks[0]");
	EXPECT_STREQ("[]", get(said.out, "locks"));
	forget(&said);
}

/* An agent that calls itself what no terminal and no reader of JSON or dot wants to see. */
static void take_evil_name(const void *arg)
{
	(void)arg;
	CHECK(!prctl(PR_SET_NAME, "\033[2J\"\\\n\t\177\303\n"));
}

TEST_F(klockctl, evil_names)
{
	static const char * const commands[] = {
		"list", "list -r", "list -J", "graph", "graph -r", "graph -J", "graph --dot",
		"why 5", "why 5 -r", "why 5 -J", "top --iterations 1", "top -J", "break 5 --yes",
	};
	struct agent holder = enlist(take_evil_name, NULL), waiter = enlist(take_evil_name, NULL);
	int fd = open_by(&holder, self->name, 0);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, lock_by(&holder, fd, 5, 0));
	fd = open_by(&waiter, self->name, 0);
	tell_lock(&waiter, fd, 5);
	ASSERT_TRUE(is_waited_for(self->space, 5, 1));
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		struct said said = klockctl("-s %s %s", self->name, commands[i]);

		EXPECT_EQ(0, said.status);
		EXPECT_TRUE(is_harmless(said.out)) {
			TH_LOG("%s: %s", commands[i], said.out);
		}
		EXPECT_TRUE(strstr(said.out, "?[2J") || strstr(said.out, "?\\x5b2J"));
		if (strstr(commands[i], "-J"))
			EXPECT_TRUE(is_json(said.out, 1));
		forget(&said);
	}
}

/* Two wait; the first one gets the lock after @ms: the second one has waited for longer. */
TEST_F_TIMEOUT(klockctl, list_long, 60)
{
	uint64_t ms = 500, since;
	bool met;

	do {
		struct agent holder, first, second;
		struct said held, waiting, either;
		int fd;

		holder = enlist_holder(self->name, 1, &fd);
		first = enlist_waiter(self, 1);
		second = enlist(NULL, NULL);
		tell_lock(&second, open_by(&second, self->name, 0), 1);
		ASSERT_TRUE(is_waited_for(self->space, 1, 2));
		since = now_ns(CLOCK_MONOTONIC) + ms * NSEC_PER_MSEC;
		while (now_ns(CLOCK_MONOTONIC) < since)
			nap();
		EXPECT_EQ(0, unlock_by(&holder, fd, 1));
		EXPECT_EQ(0, answer(&first, NULL, 0));
		ASSERT_TRUE(is_waited_for(self->space, 1, 1));
		held = klockctl("list -nr -o ID --held --long %jums -s %s", (uintmax_t)ms,
				self->name);
		waiting = klockctl("list -nr -o ID --waiting --long %jums -s %s", (uintmax_t)ms,
				   self->name);
		either = klockctl("list -nr -o ID --long %jums -s %s", (uintmax_t)ms, self->name);
		met = now_ns(CLOCK_MONOTONIC) < since + ms * NSEC_PER_MSEC;
		if (met) {
			EXPECT_STREQ("", held.out);
			EXPECT_STREQ("1\n", waiting.out);
			EXPECT_STREQ("1\n", either.out);
		}
		forget(&held);
		forget(&waiting);
		forget(&either);
		EXPECT_EQ(-SIGKILL, slay(second.pid));
		EXPECT_EQ(-SIGKILL, slay(first.pid));
		EXPECT_EQ(-SIGKILL, slay(holder.pid));
		ms *= 2;
	} while (!met && ms < 20000);
	EXPECT_TRUE(met);
}

/*
 * why and graph
 */

/* P holds 0; Q holds 1 and waits for 0; R waits for 1. */
TEST_F(klockctl, why_chain)
{
	struct agent p, q, r;
	struct said said;
	int fd, fd_q;
	char word[64];

	p = enlist_holder(self->name, 0, &fd);
	q = enlist_holder(self->name, 1, &fd_q);
	tell_lock(&q, fd_q, 0);
	ASSERT_TRUE(is_waited_for(self->space, 0, 1));
	r = enlist_waiter(self, 1);

	said = klockctl("why 1 --json -s %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_json(said.out, 1));
	EXPECT_JSON("\"holder\"", said, "why[0].role");
	EXPECT_JSON("0", said, "why[0].n");
	EXPECT_JSON("1", said, "why[0].id");
	EXPECT_JSON(decimal(q.pid), said, "why[0].pid");
	EXPECT_JSON("\"klockctl\"", said, "why[0].command");
	EXPECT_JSON("\"holder\"", said, "why[1].role");
	EXPECT_JSON("0", said, "why[1].id");
	EXPECT_JSON(decimal(p.pid), said, "why[1].pid");
	EXPECT_JSON("\"sleeping\"", said, "why[1].state");
	EXPECT_JSON("\"waiter\"", said, "why[2].role");
	EXPECT_JSON("1", said, "why[2].n");
	EXPECT_JSON(decimal(r.pid), said, "why[2].pid");
	EXPECT_LT(0, get_int(said.out, "why[2].time_ns"));
	EXPECT_JSON("(none)", said, "why[3]");
	forget(&said);

	kill(p.pid, SIGSTOP);
	EXPECT_TRUE(UNTIL(strstr((said = klockctl("why 1 -s %s", self->name)).out, "stopped") ||
			  (forget(&said), false)));
	EXPECT_EQ(5, count_lines(said.out));
	snprintf(word, sizeof(word), ": held by %d (klockctl)", q.pid);
	EXPECT_IN(word, said.out);
	snprintf(word, sizeof(word), "waits for lock 0 of 0/%.40s", self->name);
	EXPECT_IN(word, said.out);
	snprintf(word, sizeof(word), "held by %d (klockctl)", p.pid);
	EXPECT_IN(word, said.out);
	EXPECT_IN("waits for no lock and is stopped\n1 waits for it, in this order:\n", said.out);
	snprintf(word, sizeof(word), "\n  %d (klockctl) for ", r.pid);
	EXPECT_IN(word, said.out);
	forget(&said);
}

TEST_F(klockctl, why_nobody)
{
	struct said said;

	leave_dead(self, 2);
	said = klockctl("why 2 -s %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_IN("the last holder died", said.out);
	forget(&said);
	said = klockctl("why 2 -J -s %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_json(said.out, 1));
	EXPECT_JSON("(none)", said, "why[0]");
	forget(&said);
	EXPECT_FAILURE(1, "no lock 64", klockctl("why 64 -s %s", self->name));
}

/* Two processes that wait for each other, by a lock of each of two spaces; one more waits. */
static void set_deadlock(const SELF *self, struct agent agents[3], struct klock_space **other)
{
	int fds[4];

	*other = make_space(self->other, 8, KLOCK_NO_FASTPATH);
	agents[0] = enlist_holder(self->name, 7, &fds[0]);
	agents[1] = enlist_holder(self->other, 3, &fds[1]);
	fds[2] = open_by(&agents[0], self->other, 0);
	fds[3] = open_by(&agents[1], self->name, 0);
	tell_lock(&agents[0], fds[2], 3);
	tell_lock(&agents[1], fds[3], 7);
	if (!*other || !is_waited_for(*other, 3, 1) || !is_waited_for(self->space, 7, 1))
		abort();
	agents[2] = enlist_waiter(self, 7);
}

TEST_F(klockctl, cycle)
{
	struct klock_space *other;
	struct agent agents[3];
	struct said said;
	char word[128];
	int rows[3], i;

	set_deadlock(self, agents, &other);
	said = klockctl("graph --all -J");
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_json(said.out, 1));
	for (i = 0; i < 3; i++) {
		for (rows[i] = 0; rows[i] < 3; rows[i]++)
			if (atoi(get(said.out, "graph[%d].pid", rows[i])) == agents[i].pid)
				break;
		ASSERT_GT(3, rows[i]);
	}
	EXPECT_JSON("\"cycle\"", said, "graph[%d].cycle", rows[0]);
	EXPECT_JSON("\"cycle\"", said, "graph[%d].cycle", rows[1]);
	EXPECT_JSON("null", said, "graph[%d].cycle", rows[2]);
	EXPECT_JSON(decimal(agents[1].pid), said, "graph[%d].holder_pid", rows[0]);
	EXPECT_JSON("3", said, "graph[%d].id", rows[0]);
	EXPECT_JSON(decimal(agents[0].pid), said, "graph[%d].holder_pid", rows[2]);
	EXPECT_JSON("(none)", said, "graph[3]");
	forget(&said);

	said = klockctl("graph --all");
	snprintf(word, sizeof(word), "  %d (klockctl) waits for lock 3 of 0/%.40s, held by %d",
		 agents[0].pid, self->other, agents[1].pid);
	EXPECT_IN("\ncycle:\n", said.out);
	EXPECT_IN(word, said.out);
	forget(&said);
	said = klockctl("why 7 -s %s", self->name);
	EXPECT_IN(": a cycle\n2 wait for it", said.out);
	EXPECT_EQ(6, count_lines(said.out));
	forget(&said);
	said = klockctl("why 7 -J -s %s", self->name);
	EXPECT_JSON("null", said, "why[0].cycle");
	EXPECT_JSON("\"cycle\"", said, "why[1].cycle");
	forget(&said);
	/* in one space there is none to be seen */
	said = klockctl("graph -s %s", self->name);
	EXPECT_EQ(3, count_lines(said.out));
	EXPECT_EQ(NULL, strstr(said.out, "cycle:"));
	forget(&said);
	klock_space_close(other);
}

static int count_words(const char *text, const char *word)
{
	int n = 0;

	for (; (text = strstr(text, word)); text++)
		n++;
	return n;
}

/* Two locks, and four of five edges, are red. */
TEST_F(klockctl, dot)
{
	struct klock_space *other;
	struct agent agents[3];
	struct said said;
	char word[64];

	set_deadlock(self, agents, &other);
	said = klockctl("graph --all --dot");
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(0, strncmp(said.out, "digraph klock {\n", 16));
	EXPECT_STREQ("}\n", said.out + strlen(said.out) - 2);
	EXPECT_EQ(5, count_words(said.out, " -> "));
	EXPECT_EQ(6, count_words(said.out, "color=red, fontcolor=red"));
	snprintf(word, sizeof(word), " p%d -> l", agents[2].pid);
	EXPECT_IN(word, said.out);
	forget(&said);
	klock_space_close(other);
}

/* What an errorcheck client is refused is no cycle, and neither is a chain. */
TEST_F(klockctl, no_cycle)
{
	struct agent p = enlist(NULL, NULL), q = enlist(NULL, NULL);
	int fd_p = open_by(&p, self->name, KLOCK_ATTACH_ERRORCHECK);
	int fd_q = open_by(&q, self->name, KLOCK_ATTACH_ERRORCHECK);
	struct said said;

	ASSERT_EQ(0, lock_by(&p, fd_p, 0, 0));
	ASSERT_EQ(0, lock_by(&q, fd_q, 1, 0));
	tell_lock(&p, fd_p, 1);
	ASSERT_TRUE(is_waited_for(self->space, 1, 1));
	EXPECT_EQ(-EDEADLK, lock_by(&q, fd_q, 0, 0));
	said = klockctl("graph -J -s %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_JSON(decimal(p.pid), said, "graph[0].pid");
	EXPECT_JSON("null", said, "graph[0].cycle");
	EXPECT_JSON("(none)", said, "graph[1]");
	forget(&said);
}

static void *wait_for_one(void *arg)
{
	klock_lock(arg);
	return NULL;
}

/* A thread of this process has 0, and another one waits for 1, whose holder waits for 0. */
TEST_F(klockctl, possible_cycle)
{
	struct klock *zero = get_lock(self->space, 0), *one = get_lock(self->space, 1);
	struct agent agent;
	pthread_t thread;
	struct said said;
	int fd;

	ASSERT_EQ(0, klock_lock(zero));
	agent = enlist_holder(self->name, 1, &fd);
	tell_lock(&agent, fd, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_one, one));
	ASSERT_TRUE(is_waited_for(self->space, 0, 1) && is_waited_for(self->space, 1, 1));
	said = klockctl("graph -J -s %s", self->name);
	EXPECT_TRUE(is_json(said.out, 1));
	EXPECT_JSON("\"possible\"", said, "graph[0].cycle");
	EXPECT_JSON("\"possible\"", said, "graph[1].cycle");
	forget(&said);
	said = klockctl("why 0 -s %s", self->name);
	EXPECT_IN("another thread of which", said.out);
	EXPECT_IN(": a possible cycle\n", said.out);
	forget(&said);
	said = klockctl("why 0 -J -s %s", self->name);
	EXPECT_JSON("null", said, "why[0].cycle");
	EXPECT_JSON("\"possible\"", said, "why[1].cycle");
	forget(&said);
	said = klockctl("graph --dot -s %s", self->name);
	EXPECT_EQ(6, count_words(said.out, "color=orange, fontcolor"));
	EXPECT_EQ(0, count_words(said.out, "color=red"));
	forget(&said);
	EXPECT_EQ(0, klock_unlock(zero));
	EXPECT_EQ(0, answer(&agent, NULL, 0));
	EXPECT_EQ(0, unlock_by(&agent, fd, 1));
	EXPECT_EQ(0, pthread_join(thread, NULL));
	klock_put(zero);
	klock_put(one);
}

/* A thread of this process has 0, another one waits for it: the first one will release it. */
TEST_F(klockctl, threads_of_a_process_are_no_cycle)
{
	struct klock *zero = get_lock(self->space, 0);
	pthread_t thread;
	struct said said;

	ASSERT_EQ(0, klock_lock(zero));
	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_one, zero));
	ASSERT_TRUE(is_waited_for(self->space, 0, 1));
	said = klockctl("why 0 -s %s", self->name);
	EXPECT_IN("which waits for no lock", said.out);
	EXPECT_EQ(NULL, strstr(said.out, ": a "));
	EXPECT_EQ(NULL, strstr(said.out, "another thread"));
	forget(&said);
	said = klockctl("graph -J -s %s", self->name);
	EXPECT_JSON("null", said, "graph[0].cycle");
	forget(&said);
	EXPECT_EQ(0, klock_unlock(zero));
	EXPECT_EQ(0, pthread_join(thread, NULL));
	klock_put(zero);
}

/* A child that locks and unlocks 0 again and again, each time by a call. */
static pid_t make_busy(const char *name)
{
	pid_t pid = spawn();
	struct klock *lock;

	if (pid)
		return pid;
	lock = get_lock(join_space(name, KLOCK_NO_FASTPATH), 0);
	for (;;)
		CHECK(klock_lock(lock) >= 0 && !klock_unlock(lock));
}

/* Who holds it at one look and waits for it at the next one does not wait for itself. */
TEST_F_TIMEOUT(klockctl, busy_lock_is_no_cycle, 120)
{
	pid_t pids[4];
	struct said said;

	for (int i = 0; i < 4; i++)
		pids[i] = make_busy(self->name);
	for (int i = 0; i < fewer(50); i++) {
		said = klockctl("graph -J -s %s", self->name);
		EXPECT_EQ(0, said.status);
		EXPECT_EQ(NULL, strstr(said.out, "\"cycle\":\"cycle\"")) {
			TH_LOG("%s", said.out);
			i = 50;
		}
		forget(&said);
	}
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(-SIGKILL, slay(pids[i]));
}

/* Each of @n agents holds a lock and waits for that of the next one. */
static void set_chain(const SELF *self, struct agent *agents, int n)
{
	int fd, next;

	agents[n - 1] = enlist_holder(self->name, n - 1, &fd);
	for (int i = n - 2; i >= 0; i--) {
		agents[i] = enlist_holder(self->name, i, &next);
		tell_lock(&agents[i], next, i + 1);
		if (!is_waited_for(self->space, i + 1, 1))
			abort();
	}
}

/* A long chain is told by its beginning and its end, in lines that do not get ever longer. */
TEST_F(klockctl, why_long_chain)
{
	struct agent agents[40];
	struct said said;
	char word[64];

	set_chain(self, agents, 40);
	said = klockctl("why 0 -s %s", self->name);
	EXPECT_EQ(0, said.status);
	for (char *line = said.out, *end; (end = strchr(line, '\n')); line = end + 1)
		EXPECT_GT(60, strspn(line, " "));
	EXPECT_GT(30, count_lines(said.out));
	snprintf(word, sizeof(word), ": held by %d (klockctl)", agents[0].pid);
	EXPECT_IN(word, said.out);
	EXPECT_IN(" more", said.out);
	snprintf(word, sizeof(word), " %d (klockctl) for", agents[39].pid);
	EXPECT_IN(word, said.out);
	EXPECT_IN("which waits for no lock and is sleeping\nnobody waits for it\n", said.out);
	forget(&said);
	said = klockctl("why 0 -J -s %s", self->name);
	EXPECT_JSON(decimal(agents[39].pid), said, "why[39].pid");
	forget(&said);
}

/* The place in a chain of @n threads, from 0, is a lock: the lower, the nearer to the middle. */
static uint32_t lock_at(int n, int place)
{
	return place < n / 2 ? 2 * (n / 2 - place) : 2 * (place - n / 2) + 1;
}

struct link {
	struct klock *mine, *next;
	sem_t held;
};

static void *hold_and_wait(void *arg)
{
	struct link *link = arg;

	CHECK(!klock_lock(link->mine));
	CHECK(!sem_post(&link->held));
	CHECK(!klock_lock(link->next));
	return NULL;
}

/* A child of @n threads; each holds a lock and waits for that of the next one. */
static pid_t make_thread_chain(const char *name, int n)
{
	struct klock_space *space;
	pthread_attr_t attr;
	pthread_t thread;
	struct link *links;
	pid_t pid = spawn();

	if (pid)
		return pid;
	space = join_space(name, KLOCK_NO_FASTPATH);
	links = calloc(n, sizeof(*links));
	CHECK(space && links);
	CHECK(!pthread_attr_init(&attr) && !pthread_attr_setstacksize(&attr, 64 << 10));
	for (int i = n - 1; i >= 0; i--) {
		links[i].mine = get_lock(space, lock_at(n, i));
		links[i].next = get_lock(space, i + 1 < n ? lock_at(n, i + 1) : 0);
		CHECK(!sem_init(&links[i].held, 0, 0));
		CHECK(!pthread_create(&thread, &attr, hold_and_wait, &links[i]));
		CHECK(!sem_wait(&links[i].held));
	}
	for (;;)
		pause();
}

/* The best of some. */
static uint64_t time_of(const char *command, const char *name)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 3; i++) {
		uint64_t began = now_ns(CLOCK_MONOTONIC);
		struct said said = klockctl("%s -s %s", command, name);

		best = MIN(best, now_ns(CLOCK_MONOTONIC) - began);
		if (said.status)
			abort();
		forget(&said);
	}
	return best;
}

static uint64_t time_of_chain(const SELF *self, int n)
{
	struct klock_space *space = make_space(self->other, n + 2, KLOCK_NO_FASTPATH);
	struct klock_space_info info;
	uint64_t time;
	pid_t pid;

	if (!space)
		abort();
	pid = make_thread_chain(self->other, n);
	for (uint32_t part = 1; part <= 8; part++)	/* each in its time */
		if (!UNTIL(!klock_space_info(space, &info) && info.waiting >= (n - 1) * part / 8))
			abort();
	time = time_of("graph -J", self->other);
	slay(pid);
	klock_space_close(space);
	if (klock_space_remove(self->other, KLOCK_FORCE))
		abort();
	return time;
}

/* Of a chain whose ends are looked at last: eight times as many are not 64 times the work. */
TEST_F_TIMEOUT(klockctl, long_chain_takes_not_long, 120)
{
	int many = fewer(8000);
	uint64_t of_few = time_of_chain(self, many / 8), of_many = time_of_chain(self, many);

	TH_LOG("%d threads: %llu ms, an eighth of them: %llu ms", many,
	       (unsigned long long)(of_many / NSEC_PER_MSEC),
	       (unsigned long long)(of_few / NSEC_PER_MSEC));
	EXPECT_GT(10 * of_few, of_many);
}

/*
 * spaces, info, top
 */

TEST_F(klockctl, info)
{
	struct klock_space_info info;
	struct said said;
	char word[96];

	leave_dead(self, 0);
	ASSERT_EQ(0, klock_space_info(self->space, &info));
	said = klockctl("info -J -s 0/%s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_json(said.out, 1));
	snprintf(word, sizeof(word), "\"0/%s\"", self->name);
	EXPECT_JSON(word, said, "info[0].name");
	EXPECT_JSON("64", said, "info[0].capacity");
	EXPECT_JSON("2", said, "info[0].clients");
	EXPECT_JSON("\"0620\"", said, "info[0].mode");
	EXPECT_JSON("false", said, "info[0].mappable");
	EXPECT_JSON("1", said, "info[0].deaths");
	EXPECT_JSON("0", said, "info[0].waits");
	snprintf(word, sizeof(word), "\"%016llx\"", (unsigned long long)info.generation);
	EXPECT_JSON(word, said, "info[0].generation");
	EXPECT_JSON("(none)", said, "info[1]");
	forget(&said);
	said = klockctl("info -s %s", self->name);
	EXPECT_EQ(17, count_lines(said.out));
	EXPECT_IN("\nDEATHS         1\n", said.out);
	forget(&said);
}

/* A space that may not be read is not listed. */
TEST_F(klockctl, spaces)
{
	struct said said = klockctl("spaces -nr -o NAME,CAPACITY");
	char word[96];

	snprintf(word, sizeof(word), "0/%s 64\n", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_IN(word, said.out);
	forget(&said);
	EXPECT_SUCCESS("", klockctl_as(1000, "spaces -nr"));
	said = klockctl_as(1000, "spaces -J");
	EXPECT_TRUE(is_json(said.out, 1));
	EXPECT_JSON("(none)", said, "spaces[0]");
	forget(&said);
}

TEST_F(klockctl, top)
{
	struct agent holder, waiter;
	struct said said;
	char word[96];

	set_stage(self, &holder, &waiter);
	said = klockctl("top -J --iterations 2 --delay 10ms");
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_json(said.out, 2));
	snprintf(word, sizeof(word), "\"0/%s\"", self->name);
	EXPECT_JSON(word, said, "top[0].space");
	EXPECT_JSON("null", said, "top[0].id");
	EXPECT_JSON("1", said, "top[0].waiters");
	EXPECT_JSON("null", said, "top[0].waits_per_second");
	EXPECT_JSON("1", said, "top[1].id");
	EXPECT_JSON(decimal(holder.pid), said, "top[1].pid");
	EXPECT_LT(0, get_int(said.out, "top[1].waiting_ns"));
	EXPECT_STREQ("0.0", get(strstr(said.out, "\n]}\n{") + 3, "top[0].waits_per_second"));
	forget(&said);
	said = klockctl("top --iterations 2 -d 1ms --sort rate -s %s", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(7, count_lines(said.out));
	forget(&said);
}

/*
 * What changes something
 */

TEST_F(klockctl, life_of_a_space)
{
	struct klock_space *space;
	struct klock_space_info info;

	EXPECT_SUCCESS("", klockctl("create -s %s --capacity 3 --mode 0660 --mappable",
				    self->other));
	EXPECT_FAILURE(1, "there is one already", klockctl("create -s %s", self->other));
	space = join_space(self->other, 0);
	ASSERT_NE(NULL, space);
	ASSERT_EQ(0, klock_space_info(space, &info));
	EXPECT_EQ(3, info.capacity);
	EXPECT_EQ(0660, info.mode);
	EXPECT_EQ(KLOCK_MAPPABLE, info.flags);

	EXPECT_SUCCESS("0\n", klockctl("allocate -s %s", self->other));
	EXPECT_SUCCESS("2\n", klockctl("allocate -s %s --id 2", self->other));
	EXPECT_FAILURE(1, "allocated already", klockctl("allocate -s %s --id 2", self->other));
	EXPECT_FAILURE(1, "no lock 3", klockctl("allocate -s %s --id 3", self->other));
	EXPECT_SUCCESS("1\n", klockctl("allocate -s %s", self->other));
	EXPECT_FAILURE(1, "all locks are allocated", klockctl("allocate -s %s", self->other));
	EXPECT_SUCCESS("", klockctl("free 0 -s %s", self->other));
	EXPECT_FAILURE(1, "not allocated", klockctl("free 0 -s %s", self->other));
	EXPECT_FAILURE(1, "no lock 3", klockctl("free 3 -s %s", self->other));

	EXPECT_FAILURE(1, "lock 2 is allocated", klockctl("resize 2 -s %s", self->other));
	EXPECT_SUCCESS("", klockctl("resize 5 -s %s", self->other));
	EXPECT_SUCCESS("", klockctl("free-all -s %s", self->other));
	EXPECT_SUCCESS("", klockctl("resize 1 -s %s", self->other));
	EXPECT_FAILURE(1, "1 lock at least", klockctl("resize 0 -s %s", self->other));
	ASSERT_EQ(0, klock_space_info(space, &info));
	EXPECT_EQ(1, info.capacity);
	EXPECT_EQ(0, info.allocated);

	EXPECT_FAILURE(1, "in use by 1 client", klockctl("remove -s %s", self->other));
	EXPECT_SUCCESS("", klockctl("remove --force -s %s", self->other));
	klock_space_close(space);
	EXPECT_FAILURE(1, "no such space", klockctl("remove -s %s", self->other));
}

/* Without --space it is "default", which a look does not make. */
TEST_F(klockctl, default_space)
{
	int ret = klock_space_remove("default", KLOCK_FORCE);

	ASSERT_TRUE(ret == 0 || ret == -ENOENT);
	EXPECT_FAILURE(1, "default: no such space", klockctl("list"));
	EXPECT_FAILURE(1, "default: no such space", klockctl("info"));
	EXPECT_FAILURE(1, "default: no such space", klockctl("why 0"));
	EXPECT_FAILURE(1, "default: no such space", klockctl("graph"));
	EXPECT_FAILURE(1, "default: no such space", klockctl("break 0"));
	EXPECT_SUCCESS("0\n", klockctl("allocate"));
	EXPECT_SUCCESS("0\n", klockctl("list -nr -o ID"));
	EXPECT_SUCCESS("", klockctl("remove"));
}

TEST_F(klockctl, no_right)
{
	EXPECT_FAILURE(1, "no right", klockctl_as(1000, "list -s 0/%s", self->name));
	EXPECT_FAILURE(1, "no right", klockctl_as(1000, "create -s 0/%s", self->other));
	EXPECT_FAILURE(1, "only its owner", klockctl_as(1000, "remove -s 0/%s", self->name));
	EXPECT_FAILURE(77, "no right", klockctl_as(1000, "run 0 -s 0/%s -- true", self->name));
	EXPECT_FAILURE(1, "only root", klockctl_as(1000, "watch"));
	ASSERT_EQ(0, chmod("/dev/klock", 0600));
	EXPECT_FAILURE(1, "whose mode is to be 0666", klockctl_as(1000, "list"));
	EXPECT_FAILURE(1, "whose mode is to be 0666", klockctl_as(1000, "spaces"));
	EXPECT_EQ(0, chmod("/dev/klock", 0666));
}

/* For the group there are locks, but not what is the owner's. */
TEST_F(klockctl, no_right_of_the_owner)
{
	struct klock_space_attr attr = { .capacity = 8, .mode = 0666 };
	struct klock_space *space;

	ASSERT_EQ(0, klock_space_open(self->other, KLOCK_CREATE, &attr, &space));
	ASSERT_EQ(0, klock_lock(get_lock(space, 0)));
	EXPECT_SUCCESS("0\n", klockctl_as(1000, "list -nr -o ID -s 0/%s", self->other));
	EXPECT_FAILURE(1, "only its owner", klockctl_as(1000, "resize 4 -s 0/%s", self->other));
	{
		struct said said = klockctl_as(1000, "break 0 -s 0/%s", self->other);

		EXPECT_EQ(1, said.status);
		EXPECT_IN("only its owner", said.err);
		forget(&said);
	}
	EXPECT_EQ(KLOCK_HELD | KLOCK_MINE, flags_of(space, 0));
	klock_space_close(space);
}

TEST(usage)
{
	EXPECT_FAILURE(1, "Try 'klockctl --help'", klockctl("%s", ""));
	EXPECT_FAILURE(1, "no such command", klockctl("frobnicate"));
	EXPECT_FAILURE(1, "no such command", klockctl("help frobnicate"));
	EXPECT_FAILURE(1, "unrecognized option", klockctl("list --frobnicate"));
	EXPECT_FAILURE(1, "not for break", klockctl("--json break 1"));
	EXPECT_FAILURE(1, "FROB: no such column", klockctl("spaces -o NAME,FROB"));
	EXPECT_FAILURE(1, "no arguments", klockctl("list 1"));
	EXPECT_FAILURE(1, "takes ID", klockctl("why"));
	EXPECT_FAILURE(1, "not the number of a lock", klockctl("why -- -1"));
	EXPECT_FAILURE(1, "not the number of a lock", klockctl("free 4294967296"));
	EXPECT_FAILURE(1, "not a value of --long", klockctl("list --long 5x"));
	EXPECT_FAILURE(1, "not a value of --mode", klockctl("create --mode 0777"));
	EXPECT_FAILURE(1, "not a value of --sort", klockctl("top --sort name"));
	EXPECT_FAILURE(1, "not a name of a space", klockctl("list -s .x"));
	EXPECT_FAILURE(1, "--space and --all", klockctl("graph --all -s x"));
	EXPECT_FAILURE(1, "--json and --dot", klockctl("-J graph --dot"));
	EXPECT_FAILURE(1, "--output and --dot", klockctl("graph --dot -o PID"));
	EXPECT_FAILURE(64, "not a value of --timeout", klockctl("run -w x 1 true"));
	EXPECT_FAILURE(64, "run takes", klockctl("run 1"));
}

/* Each command that the help lists has one of its own. */
TEST(help)
{
	struct said said = klockctl("--help"), of_command;
	char *line, *save = NULL;
	char word[32];
	int n = 0;

	EXPECT_EQ(0, said.status);
	EXPECT_STREQ("", said.err);
	line = strtok_r(strstr(said.out, "Commands:\n") + 10, "\n", &save);
	for (; line && sscanf(line, " %31[a-z-]", word) == 1; line = strtok_r(NULL, "\n", &save)) {
		if (line[1] == '-')
			break;
		of_command = klockctl("%s --help", word);
		EXPECT_EQ(0, of_command.status);
		EXPECT_IN(word, of_command.out);
		EXPECT_IN("--help", of_command.out);
		forget(&of_command);
		n++;
	}
	EXPECT_EQ(16, n);
	forget(&said);
	said = klockctl("watch --help");
	EXPECT_IN("top and watch: all", said.out);
	forget(&said);
	said = klockctl("--version");
	EXPECT_EQ(0, said.status);
	EXPECT_IN(klock_version(), said.out);
	forget(&said);
}

/* What was not written is an error, whatever it was. */
TEST(full)
{
	static const char * const commands[] = {
		"--help", "--version", "help list", "list --help", "spaces -J",
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		struct running running = start_to(open("/dev/full", O_WRONLY | O_CLOEXEC), "%s",
						  commands[i]);

		EXPECT_EQ(1, end_of(&running)) {
			TH_LOG("%s", commands[i]);
		}
		EXPECT_TRUE(has_said(running.err, "klockctl: cannot write"));
		close(running.out);
		close(running.err);
	}
}

TEST(not_loaded)
{
	if (!getenv("KLOCK_KO"))
		SKIP(return, "KLOCK_KO does not say where the module is");
	ASSERT_EQ(0, unload());
	EXPECT_FAILURE(1, "modprobe klock", klockctl("list"));
	EXPECT_FAILURE(1, "modprobe klock", klockctl("spaces -J"));
	EXPECT_FAILURE(1, "modprobe klock", klockctl("remove"));
	EXPECT_FAILURE(69, "modprobe klock", klockctl("run 0 true"));
	/* a node that is left over, of a number that is nobody's */
	ASSERT_EQ(0, mknod("/dev/klock", S_IFCHR | 0666, 10 << 8 | 254));
	EXPECT_FAILURE(1, "no module answers", klockctl("list"));
	EXPECT_EQ(0, unlink("/dev/klock"));
	ASSERT_EQ(0, load(""));
	/* as in a container that was not given it */
	ASSERT_EQ(0, rename("/dev/klock", "/dev/not-here"));
	EXPECT_FAILURE(1, "klock is loaded, but there is no /dev/klock here", klockctl("list"));
	EXPECT_EQ(0, rename("/dev/not-here", "/dev/klock"));
}

/*
 * break
 */

/* It is asked on a terminal, which the caller answers through the master. */
static struct running start_on_terminal(int *master, const char *format, ...)
{
	struct running running;
	va_list args;
	char *words;
	int slave;

	*master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*master < 0 || grantpt(*master) || unlockpt(*master))
		abort();
	slave = open(ptsname(*master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	va_start(args, format);
	words = words_of(format, args);
	va_end(args);
	running = start_as(0, slave, words);
	free(words);
	close(slave);
	return running;
}

static struct said answer_terminal(struct running running, const int *master, const char *text)
{
	struct said said;

	if (!UNTIL(has_said(running.err, "? [y/N] ")) ||
	    write(*master, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
	said = finish(running);
	close(*master);
	return said;
}

/* A terminal with that many lines and columns, which is read here. */
static int open_terminal(int *slave, int lines, int columns)
{
	const struct winsize size = { .ws_row = lines, .ws_col = columns };
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

	if (master < 0 || grantpt(master) || unlockpt(master))
		abort();
	*slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0 || ioctl(*slave, TIOCSWINSZ, &size))
		abort();
	return master;
}

/* However long a name is, a row of top takes a line, and all of them are on the terminal. */
TEST_F(klockctl, top_on_a_terminal)
{
	char text[4096] = "", *line, *save = NULL;
	struct agent holder, waiter;
	struct running running;
	int slave, master = open_terminal(&slave, 4, 60), n = 0;

	snprintf(self->other, sizeof(self->other), "%050d", getpid());
	ASSERT_EQ(0, klock_space_remove(self->name, KLOCK_FORCE));
	klock_space_close(self->space);
	self->space = make_space(self->other, 64, KLOCK_NO_FASTPATH);
	strcpy(self->name, self->other);
	set_stage(self, &holder, &waiter);
	running = start_to(slave, "top --iterations 1 -s %s", self->name);
	EXPECT_EQ(0, end_of(&running));
	ASSERT_LT(0, read(master, text, sizeof(text) - 1));
	line = strtok_r(text, "\r\n", &save);
	ASSERT_EQ(0, strncmp(line, "\033[H\033[J", 6));
	for (line += 6; line; line = strtok_r(NULL, "\r\n", &save), n++)
		EXPECT_GE(60, strlen(line));
	EXPECT_EQ(3, n);
	close(running.err);
	close(master);
	close(slave);
}

TEST_F(klockctl, break)
{
	struct agent holder, waiter;
	struct said said;
	char word[64];
	int fd;

	holder = enlist_holder(self->name, 4, &fd);
	waiter = enlist_waiter(self, 4);
	said = klockctl("break 4 -s %s", self->name);
	EXPECT_EQ(0, said.status);
	snprintf(word, sizeof(word), "is held by %d (klockctl)", holder.pid);
	EXPECT_IN(word, said.out);
	EXPECT_IN("1 waits for it", said.out);
	EXPECT_IN("it is broken", said.out);
	forget(&said);
	EXPECT_EQ(KLOCK_OWNER_DIED, answer(&waiter, NULL, 0));
	EXPECT_EQ(-EPERM, unlock_by(&holder, fd, 4));

	EXPECT_FAILURE(1, "nobody holds lock 5", klockctl("break 5 -s %s", self->name));
	leave_dead(self, 6);
	EXPECT_FAILURE(1, "its last holder died", klockctl("break 6 -s %s", self->name));
	EXPECT_EQ(KLOCK_DIED, flags_of(self->space, 6));
}

TEST_F(klockctl, break_is_asked)
{
	struct agent holder, other;
	struct said said;
	int fd, master;

	holder = enlist_holder(self->name, 4, &fd);
	said = answer_terminal(start_on_terminal(&master, "break 4 -s %s", self->name), &master,
			       "n\n");
	EXPECT_EQ(1, said.status);
	EXPECT_IN("nothing is changed", said.err);
	EXPECT_EQ(KLOCK_HELD, flags_of(self->space, 4));
	forget(&said);
	said = answer_terminal(start_on_terminal(&master, "break 4 -s %s", self->name), &master,
			       "\4");		/* the end of its input */
	EXPECT_EQ(1, said.status);
	EXPECT_EQ(KLOCK_HELD, flags_of(self->space, 4));
	forget(&said);
	said = answer_terminal(start_on_terminal(&master, "break 4 -s %s", self->name), &master,
			       "yes\n");
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(KLOCK_DIED, flags_of(self->space, 4));
	forget(&said);

	/* --yes is not asked */
	other = enlist_holder(self->name, 4, &fd);
	said = finish(start_on_terminal(&master, "break 4 --yes -s %s", self->name));
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(KLOCK_DIED, flags_of(self->space, 4));
	forget(&said);
	close(master);
	slay(holder.pid);
	slay(other.pid);
}

/* Only who was shown loses it: not another who has taken it before the answer. */
TEST_F(klockctl, break_names_its_victim)
{
	struct agent holder;
	struct running running;
	struct said said;
	int fd, master;

	holder = enlist_holder(self->name, 4, &fd);
	running = start_on_terminal(&master, "break 4 -s %s", self->name);
	ASSERT_TRUE(UNTIL(has_said(running.err, "[y/N]")));
	ASSERT_EQ(0, unlock_by(&holder, fd, 4));
	holder = enlist_holder(self->name, 4, &fd);
	said = answer_terminal(running, &master, "y\n");
	EXPECT_EQ(1, said.status);
	EXPECT_IN("another holds it by now", said.err);
	EXPECT_EQ(KLOCK_HELD, flags_of(self->space, 4));
	forget(&said);
}

TEST_F(klockctl, others_are_asked)
{
	struct klock_space_info info;
	struct klock *lock, *again;
	struct said said;
	int master;

	ASSERT_EQ(0, klock_allocate(self->space, &lock));
	said = answer_terminal(start_on_terminal(&master, "free-all -s %s", self->name), &master,
			       "n\n");
	EXPECT_EQ(1, said.status);
	EXPECT_IN("free all 1 locks", said.err);
	EXPECT_EQ(KLOCK_ALLOCATED, flags_of(self->space, 0));
	forget(&said);
	said = answer_terminal(start_on_terminal(&master, "free-all -s %s", self->name), &master,
			       "y\n");
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(0, flags_of(self->space, 0));
	forget(&said);
	ASSERT_EQ(0, klock_allocate(self->space, &again));
	said = answer_terminal(start_on_terminal(&master, "remove -s %s", self->name), &master,
			       "n\n");
	EXPECT_EQ(1, said.status);
	EXPECT_IN("and free 1 lock", said.err);
	forget(&said);
	said = finish(start_on_terminal(&master, "remove --yes -s %s", self->name));
	EXPECT_IN("in use by 1 client", said.err);
	close(master);
	forget(&said);
	EXPECT_EQ(0, klock_free(again));
	klock_put(again);
	said = finish(start_on_terminal(&master, "remove -s %s", self->name));
	EXPECT_IN("in use by 1 client", said.err);	/* and nothing was asked */
	close(master);
	forget(&said);
	said = answer_terminal(start_on_terminal(&master, "remove -f -s %s", self->name), &master,
			       "no\n");
	EXPECT_EQ(1, said.status);
	forget(&said);
	EXPECT_EQ(0, klock_space_info(self->space, &info));
	EXPECT_EQ(0, info.flags & KLOCK_REMOVED);
	klock_put(lock);
}

/*
 * run
 */

TEST_F(klockctl, run_status)
{
	EXPECT_SUCCESS("", klockctl("run 0 -s %s -- true", self->name));
	EXPECT_EQ(0, flags_of(self->space, 0));
	EXPECT_SUCCESS("-w -s\n", klockctl("-s %s run 0 echo -w -s", self->name));
	EXPECT_FAILURE(66, "no lock 64", klockctl("run 64 -s %s true", self->name));
	EXPECT_FAILURE(66, "no such space", klockctl("run 0 -s %s true", self->other));
	EXPECT_FAILURE(69, "/none: ", klockctl("run 0 -s %s /none", self->name));
	EXPECT_EQ(0, flags_of(self->space, 0));
}

static int status_of_run(const SELF *self, const char *options, const char *command)
{
	struct said said = klockctl("run -s %s %s 0 -- %s", self->name, options, command);
	int status = said.status;

	if (*said.out || *said.err)
		status = -1;
	forget(&said);
	return status;
}

TEST_F(klockctl, run_is_transparent)
{
	struct klock *lock = get_lock(self->space, 0);

	EXPECT_EQ(7, status_of_run(self, "", "sh -c exit~7"));
	EXPECT_EQ(128 + SIGKILL, status_of_run(self, "", "sh -c kill~-KILL~$$"));
	EXPECT_EQ(128 + SIGINT, status_of_run(self, "", "sh -c kill~-INT~$$"));
	EXPECT_EQ(0, status_of_run(self, "-n", "true"));
	EXPECT_EQ(0, status_of_run(self, "-w 0", "true"));
	ASSERT_EQ(0, klock_lock(lock));
	EXPECT_EQ(1, status_of_run(self, "-n", "true"));
	EXPECT_EQ(9, status_of_run(self, "--nonblock -E 9", "true"));
	EXPECT_EQ(1, status_of_run(self, "--timeout 10ms", "true"));
	EXPECT_EQ(0, status_of_run(self, "-w 0.01 --conflict-exit-code 0", "false"));
	EXPECT_EQ(0, klock_unlock(lock));
	klock_put(lock);
}

/* Until the command has said its pid. */
static pid_t pid_of_command(const struct running *running)
{
	char *text;
	pid_t pid;

	if (!UNTIL(has_said(running->out, "\n")))
		abort();
	text = read_all(running->out);
	pid = atoi(text);
	free(text);
	return pid;
}

/* Whether a process has come to what its shell was to exec. */
static bool is_no_shell(pid_t pid)
{
	char path[32], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = 0;
	fclose(file);
	return name[0] && strcmp(name, "sh\n");
}

/* A command that is waiting for its end: a shell that execs loses a SIGINT which it has caught. */
static struct running start_sleep(const SELF *self, pid_t *pid)
{
	struct running running = start("run 0 -s %s sh -c echo~$$;exec~sleep~1000", self->name);

	*pid = pid_of_command(&running);
	if (!UNTIL(is_no_shell(*pid)))
		abort();
	return running;
}

/* The lock is held as long as the command runs, by klockctl alone. */
TEST_F(klockctl, run_holds)
{
	struct klock *lock = get_lock(self->space, 0);
	struct running running;
	struct said said;
	char word[128];
	int input[2];

	ASSERT_EQ(0, pipe2(input, O_CLOEXEC));
	snprintf(word, sizeof(word), "run 0 -s %.40s sh -c echo~$$;read~x", self->name);
	running = start_as(0, input[0], word);
	EXPECT_NE(running.pid, pid_of_command(&running));
	EXPECT_EQ(-EBUSY, klock_trylock(lock));
	EXPECT_EQ((uint32_t)running.pid, status_of(lock).pid);
	EXPECT_EQ(1, write(input[1], "\n", 1));
	said = finish(running);
	EXPECT_EQ(0, said.status);
	EXPECT_STREQ("", said.err);
	forget(&said);
	EXPECT_EQ(0, klock_trylock(lock));
	EXPECT_EQ(0, klock_unlock(lock));
	said = klockctl("run 0 -s %s ls -l /proc/self/fd", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_IN(" 2 -> ", said.out);
	EXPECT_IN("/dev/klock", said.out);
	forget(&said);
	said = klockctl("run 0 --close -s %s ls -l /proc/self/fd", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_IN(" 2 -> ", said.out);
	EXPECT_EQ(NULL, strstr(said.out, "klock"));
	forget(&said);
	klock_put(lock);
}

TEST_F(klockctl, run_killed)
{
	struct running running;
	struct said said;
	pid_t pid;

	running = start_sleep(self, &pid);
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	EXPECT_EQ(KLOCK_HELD, flags_of(self->space, 0));
	kill(running.pid, SIGKILL);
	said = finish(running);
	EXPECT_EQ(-SIGKILL, said.status);
	forget(&said);
	EXPECT_EQ(-SIGTERM, reap(pid));
	EXPECT_EQ(KLOCK_DIED, flags_of(self->space, 0));
}

/* Nor does it go on without the lock if it is not told, as what changes its user is not. */
TEST_F(klockctl, run_killed_and_the_command_goes_on)
{
	struct running running;
	pid_t pid;

	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	for (int close = 0; close < 2; close++) {
		struct said said;

		running = start("run %d%s -s %s sh -c echo~$$;trap~''~TERM;exec~sleep~1000", close,
				close ? " --close" : "", self->name);
		pid = pid_of_command(&running);
		ASSERT_TRUE(UNTIL(is_no_shell(pid)));
		kill(running.pid, SIGKILL);
		said = finish(running);
		EXPECT_EQ(-SIGKILL, said.status);
		forget(&said);
		EXPECT_EQ((uint32_t)(close ? KLOCK_DIED : KLOCK_HELD),
			  flags_of(self->space, close));
		EXPECT_EQ(-SIGKILL, slay(pid));
		EXPECT_EQ(KLOCK_DIED, flags_of(self->space, close));
	}
}

/* A signal that somebody sends to klockctl is for the command. */
TEST_F(klockctl, run_passes_signals_on)
{
	const int signals[] = {
		SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGRTMIN,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(signals); i++) {
		struct running running;
		struct said said;
		pid_t pid;

		running = start_sleep(self, &pid);
		kill(running.pid, signals[i]);
		said = finish(running);
		EXPECT_EQ(128 + signals[i], said.status);
		EXPECT_STREQ("", said.err);
		forget(&said);
		EXPECT_EQ(0, flags_of(self->space, 0));
	}
}

TEST_F(klockctl, run_after_a_death)
{
	struct said said;

	leave_dead(self, 2);
	EXPECT_FAILURE(65, "nothing is run",
		       klockctl("run 2 -s %s --owner-died fail -- echo ran", self->name));
	EXPECT_EQ(KLOCK_DIED, flags_of(self->space, 2));
	said = klockctl("run 2 -s %s -- echo ran", self->name);
	EXPECT_EQ(0, said.status);
	EXPECT_STREQ("ran\n", said.out);
	EXPECT_IN("the last holder of lock 2 died", said.err);
	forget(&said);
	EXPECT_SUCCESS("ran\n", klockctl("run 2 -s %s --owner-died fail -- echo ran", self->name));
}

TEST_F(klockctl, run_broken)
{
	struct running running;
	struct said said;
	int input[2];
	char word[128];

	ASSERT_EQ(0, pipe2(input, O_CLOEXEC));
	snprintf(word, sizeof(word), "run 0 -s %.40s sh -c echo~$$;read~x", self->name);
	running = start_as(0, input[0], word);
	pid_of_command(&running);
	EXPECT_EQ(0, klock_break(self->space, 0, 0));
	EXPECT_EQ(1, write(input[1], "\n", 1));
	said = finish(running);
	EXPECT_EQ(0, said.status);
	EXPECT_IN("was broken while the command ran", said.err);
	forget(&said);
}

/*
 * watch
 */

#define INSTANCES	"/sys/kernel/tracing/instances"

/* In the instance of one that runs. */
static const char *instance_file(pid_t pid, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), INSTANCES "/klockctl-%d%s", pid, name);
	return path;
}

static bool watches(const struct running *running)
{
	return UNTIL(get_number(instance_file(running->pid, "/events/klock/enable"), "") == 1);
}

/* The value of a line, of those that JSON has one event in each. */
static const char *get_event(const char *text, int line, const char *name)
{
	while (line-- && text)
		text = strchr(text, '\n') + 1;
	return get(text, "%s", name);
}

TEST_F(klockctl, watch)
{
	struct running running = start("watch 2 -J --count 4 -s %s", self->name);
	struct agent holder, waiter, other;
	struct said said;
	char word[96];
	int fd;

	ASSERT_TRUE(watches(&running));
	other = enlist_holder(self->name, 1, &fd);
	holder = enlist_holder(self->name, 2, &fd);
	waiter = enlist_waiter(self, 2);
	EXPECT_EQ(0, unlock_by(&holder, fd, 2));
	EXPECT_EQ(0, answer(&waiter, NULL, 0));
	said = finish(running);
	EXPECT_EQ(0, said.status);
	EXPECT_STREQ("", said.err);
	EXPECT_TRUE(is_json(said.out, 4));
	EXPECT_STREQ("\"acquire\"", get_event(said.out, 0, "event"));
	EXPECT_STREQ(decimal(holder.pid), get_event(said.out, 0, "tid"));
	EXPECT_STREQ("\"klockctl\"", get_event(said.out, 0, "command"));
	EXPECT_STREQ("2", get_event(said.out, 0, "id"));
	snprintf(word, sizeof(word), "\"0/%.60s\"", self->name);
	EXPECT_STREQ(word, get_event(said.out, 0, "space"));
	EXPECT_STREQ("\"contended\"", get_event(said.out, 1, "event"));
	EXPECT_STREQ(decimal(waiter.pid), get_event(said.out, 1, "tid"));
	EXPECT_STREQ(get_event(said.out, 0, "token"), get_event(said.out, 1, "holder"));
	EXPECT_STREQ("\"released\"", get_event(said.out, 2, "event"));
	EXPECT_STREQ("\"acquire\"", get_event(said.out, 3, "event"));
	EXPECT_LT(0, atoll(get_event(said.out, 3, "waited")));
	EXPECT_LT(NSEC_PER_SEC, atoll(get_event(said.out, 0, "time_ns")));
	EXPECT_EQ(0, atoll(get_event(said.out, 0, "time_ns")) % 1000);
	EXPECT_LE(atoll(get_event(said.out, 1, "time_ns")),
		  atoll(get_event(said.out, 2, "time_ns")));
	EXPECT_NE(0, access(instance_file(running.pid, ""), F_OK));
	forget(&said);
	slay(other.pid);
}

/* What others have set for the trace of the whole system changes nothing. */
TEST_F(klockctl, watch_beside_others)
{
	static const char * const options[] = { "record-tgid", "noirq-info", "nocontext-info" };
	struct running running;
	struct said said;
	const char *path = "/sys/kernel/tracing/trace_options";
	struct agent agent;
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(options); i++)
		ASSERT_TRUE(write_file(path, options[i]));
	running = start("watch --count 1 -s %s", self->name);
	EXPECT_TRUE(watches(&running));
	agent = enlist_holder(self->name, 9, &fd);
	said = finish(running);
	EXPECT_EQ(0, said.status);
	EXPECT_IN(decimal(agent.pid), said.out);
	EXPECT_IN(" id=9 ", said.out);
	forget(&said);
	EXPECT_TRUE(write_file(path, "norecord-tgid"));
	EXPECT_TRUE(write_file(path, "irq-info"));
	EXPECT_TRUE(write_file(path, "context-info"));
}

/* A name is what its process says; what comes out of it is one line still. */
TEST_F(klockctl, watch_evil_names)
{
	struct running running = start("watch --count 1 -s %s", self->name);
	struct agent agent = enlist(take_evil_name, NULL);
	int fd = open_by(&agent, self->name, 0);
	struct said said;

	ASSERT_TRUE(watches(&running));
	ASSERT_EQ(0, lock_by(&agent, fd, 9, 0));
	said = finish(running);
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_harmless(said.out));
	EXPECT_EQ(1, count_lines(said.out));
	EXPECT_IN(" id=9 ", said.out);
	forget(&said);
}

/* A signal ends it, and nothing of it is left, whatever has come until then. */
TEST_F(klockctl, watch_ends)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

	for (int i = 0; i < 3; i++) {
		struct running running = start("watch");
		struct said said;

		ASSERT_TRUE(watches(&running));
		leave_dead(self, i);
		ASSERT_TRUE(UNTIL(has_said(running.out, " owner_died ")));
		kill(running.pid, signals[i]);
		said = finish(running);
		EXPECT_EQ(0, said.status);
		EXPECT_STREQ("", said.err);
		EXPECT_NE(0, access(instance_file(running.pid, ""), F_OK));
		forget(&said);
	}
}

static bool is_gone(const struct running *running)
{
	return access(instance_file(running->pid, ""), F_OK);
}

/* Also while events come faster than it tells them, and while nobody reads what it tells. */
TEST_F_TIMEOUT(klockctl, watch_ends_while_events_come, 120)
{
	pid_t pid = make_busy(self->name);

	for (int i = 0; i < 2; i++) {
		struct running running;
		int out[2], unread = 0;

		ASSERT_EQ(0, pipe2(out, O_CLOEXEC));
		if (i) {
			close(out[1]);
			out[1] = memfd_create("out", MFD_CLOEXEC);
		}
		running = start_to(out[1], "watch");
		ASSERT_TRUE(watches(&running));
		if (i) {
			EXPECT_TRUE(UNTIL(lseek(out[1], 0, SEEK_END) > 10000));
		} else {
			EXPECT_TRUE(UNTIL(!ioctl(out[0], FIONREAD, &unread) && unread > 60000 &&
					  sleeps(running.pid, running.pid)));
		}
		kill(running.pid, SIGTERM);
		EXPECT_EQ(0, end_of(&running));
		EXPECT_TRUE(is_gone(&running));
		close(out[0]);
		close(out[1]);
		close(running.err);
	}
	EXPECT_EQ(-SIGKILL, slay(pid));
}

/* nohup means it. */
TEST_F(klockctl, watch_ignores_what_was_ignored)
{
	struct running running;
	struct said said;

	signal(SIGHUP, SIG_IGN);
	running = start("watch");
	signal(SIGHUP, SIG_DFL);
	ASSERT_TRUE(watches(&running));
	kill(running.pid, SIGHUP);
	leave_dead(self, 0);
	EXPECT_TRUE(UNTIL(has_said(running.out, " owner_died ") || is_gone(&running)));
	EXPECT_FALSE(is_gone(&running));
	kill(running.pid, SIGTERM);
	said = finish(running);
	EXPECT_EQ(0, said.status);
	EXPECT_IN(" owner_died ", said.out);
	EXPECT_TRUE(is_gone(&running));
	forget(&said);
}

/* It does not wait for an event to find that nobody reads it any more. */
TEST_F(klockctl, watch_ends_with_its_reader)
{
	struct running running;
	int out[2];

	ASSERT_EQ(0, pipe2(out, O_CLOEXEC));
	running = start_to(out[1], "watch");
	close(out[1]);
	ASSERT_TRUE(watches(&running));
	close(out[0]);
	EXPECT_EQ(0, end_of(&running));
	EXPECT_TRUE(is_gone(&running));
	EXPECT_FALSE(has_said(running.err, "klockctl"));
	close(running.err);
}

/* What one left that was killed, and had the same number, is in nobody's way. */
TEST_F(klockctl, watch_beside_what_is_left)
{
	struct running running;
	struct said said;
	char script[PATH_MAX + 128], other[160];
	pid_t pid;

	snprintf(script, sizeof(script), "mkdir~%s/klockctl-$$&&echo~$$&&exec~%s~watch~--count~1",
		 INSTANCES, tool_path());
	running = start("run 0 -s %s sh -c %s", self->name, script);
	pid = pid_of_command(&running);
	snprintf(other, sizeof(other), "%s", instance_file(pid, "-1/events/klock/enable"));
	EXPECT_TRUE(UNTIL(get_number(other, "") == 1 || has_said(running.err, "klockctl")));
	leave_dead(self, 9);
	said = finish(running);
	EXPECT_EQ(0, said.status);
	EXPECT_STREQ("", said.err);
	EXPECT_IN(" id=9 ", said.out);
	EXPECT_NE(0, access(instance_file(pid, "-1"), F_OK));
	EXPECT_EQ(0, rmdir(instance_file(pid, "")));
	forget(&said);
}

/*
 * Many locks
 */

#define MANY	100000		/* fewer where the tool would take long */

static void allocate_many(struct klock_space *space, int n)
{
	struct klock *lock;

	for (int i = 0; i < n; i++) {
		if (klock_allocate(space, &lock) || (i % 10 == 0 && klock_lock(lock)))
			abort();
		klock_put(lock);
	}
}

TEST_F_TIMEOUT(klockctl, many, 120)
{
	int many = is_long() ? MANY : fewer(MANY);
	struct klock_space *space = make_space(self->other, many, KLOCK_NO_FASTPATH);
	uint64_t began, ended, of_many, of_tenth;
	struct said said;
	const char *p;
	char last[16];
	int n;

	ASSERT_NE(NULL, space);
	allocate_many(space, many / 10);
	of_tenth = time_of("list --json", self->other);
	allocate_many(space, many - many / 10);
	of_many = time_of("list --json", self->other);
	for (n = 0; n < 3 && of_many > 20 * of_tenth; n++)
		of_many = MIN(of_many, time_of("list --json", self->other));
	TH_LOG("%d locks as JSON: %llu ms, a tenth of them: %llu ms", many,
	       (unsigned long long)(of_many / NSEC_PER_MSEC),
	       (unsigned long long)(of_tenth / NSEC_PER_MSEC));
	EXPECT_GT(20 * of_tenth, of_many);
	said = klockctl("list --json -s %s", self->other);
	EXPECT_EQ(0, said.status);
	EXPECT_TRUE(is_json(said.out, 1));
	for (n = 0, p = said.out; (p = strstr(p, "\"id\":")); p += 5) {
		if (atoi(p + 5) != n)
			break;
		n++;
	}
	EXPECT_EQ(many, n);
	snprintf(last, sizeof(last), "%d", many - 1);
	EXPECT_JSON(last, said, "locks[%d].id", many - 1);
	EXPECT_JSON("true", said, "locks[%d].allocated", many - 1);
	EXPECT_JSON("(none)", said, "locks[%d]", many);
	forget(&said);
	began = now_ns(CLOCK_MONOTONIC);
	said = klockctl("list -s %s", self->other);
	ended = now_ns(CLOCK_MONOTONIC);
	TH_LOG("%d locks as a table: %llu ms", many,
	       (unsigned long long)((ended - began) / NSEC_PER_MSEC));
	EXPECT_EQ(0, said.status);
	EXPECT_EQ(many + 1, count_lines(said.out));
	forget(&said);
	klock_space_close(space);
}

TEST_HARNESS_MAIN
