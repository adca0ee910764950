// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Messages, times, processes and spaces.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "klockctl.h"

void complain(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("klockctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

bool confirmed(const char *format, ...)
{
	char answer[16] = "";
	va_list args;

	if (opt.yes || !isatty(STDIN_FILENO))
		return true;
	fflush(stdout);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs(" [y/N] ", stderr);
	if (!fgets(answer, sizeof(answer), stdin))
		fputc('\n', stderr);
	answer[strcspn(answer, "\n")] = '\0';
	if (!strcasecmp(answer, "y") || !strcasecmp(answer, "yes"))
		return true;
	complain("nothing is changed");
	return false;
}

void *xrealloc(void *mem, size_t n, size_t size)
{
	mem = reallocarray(mem, n ? n : 1, size);
	if (!mem) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	return mem;
}

int failed(const char *what, int err)
{
	complain("%s: %s", what, err == -ESTALE ? "the space was removed" : strerror(-err));
	return EXIT_FAILURE;
}

/*
 * Times
 */

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

uint64_t ns_since(uint64_t since)
{
	uint64_t now = now_ns();

	if (!since)
		return 0;
	return now > since ? now - since : 1;
}

const char *duration(uint64_t ns)
{
	static char texts[2][32];
	static unsigned int turn;
	char *text = texts[turn++ % 2];
	uint64_t ms = ns / 1000000, s = ns / NSEC_PER_SEC, m = s / 60, h = m / 60;

	if (!ms)
		snprintf(text, 32, "%" PRIu64 "us", ns / 1000);
	else if (!s)
		snprintf(text, 32, "%" PRIu64 "ms", ms);
	else if (!m)
		snprintf(text, 32, "%" PRIu64 ".%" PRIu64 "s", s, ms / 100 % 10);
	else if (!h)
		snprintf(text, 32, "%" PRIu64 "m%" PRIu64 "s", m, s % 60);
	else if (h < 24)
		snprintf(text, 32, "%" PRIu64 "h%" PRIu64 "m", h, m % 60);
	else
		snprintf(text, 32, "%" PRIu64 "d%" PRIu64 "h", h / 24, h % 24);
	return text;
}

/* A decimal number and perhaps a unit; seconds if there is none. */
bool parse_duration(const char *text, uint64_t *ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {
		{ "", 1e9 }, { "s", 1e9 }, { "ms", 1e6 }, { "us", 1e3 }, { "ns", 1 },
		{ "m", 60e9 }, { "h", 3600e9 }, { "d", 86400e9 },
	};
	double value;
	char *end;
	size_t i;

	if (!isdigit((unsigned char)*text) && *text != '.')
		return false;
	value = strtod(text, &end);
	for (i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (end == text || strcmp(end, units[i].name))
			continue;
		value *= units[i].ns;
		if (!(value < 9e18))
			return false;
		*ns = value;
		return true;
	}
	return false;
}

bool parse_number(const char *text, uint32_t max, uint32_t *n)
{
	unsigned long long value;
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || value > max)
		return false;
	*n = value;
	return true;
}

bool parse_id(const char *text, uint32_t *id)
{
	if (parse_number(text, UINT32_MAX, id))
		return true;
	complain("%s: not the number of a lock", text);
	return false;
}

/*
 * Processes
 */

struct command_name {
	uint32_t pid;
	char name[64];		/* empty: there is none */
};

static void *command_names;	/* of tsearch() */

static int compare_pids(const void *a, const void *b)
{
	uint32_t x = ((const struct command_name *)a)->pid;
	uint32_t y = ((const struct command_name *)b)->pid;

	return x < y ? -1 : x > y;
}

/* Any process gives itself any name: nothing but printable ASCII comes out of this. */
static void read_command(struct command_name *entry)
{
	char path[32];
	FILE *file;
	size_t n = 0, i;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/comm", entry->pid);
	file = fopen(path, "re");
	if (file) {
		n = fread(entry->name, 1, sizeof(entry->name) - 1, file);
		fclose(file);
	}
	if (n && entry->name[n - 1] == '\n')
		n--;
	entry->name[n] = '\0';
	for (i = 0; i < n; i++)
		if (entry->name[i] < 0x20 || entry->name[i] > 0x7e)
			entry->name[i] = '?';
}

const char *command_of(uint32_t pid)
{
	static struct command_name *last;
	struct command_name *entry, **found, key = { .pid = pid };

	if (!pid)
		return NULL;
	if (!command_names)
		last = NULL;
	if (!last || last->pid != pid) {
		found = tsearch(&key, &command_names, compare_pids);
		if (!found)
			return NULL;
		if (*found == &key) {
			entry = xrealloc(NULL, 1, sizeof(*entry));
			entry->pid = pid;
			read_command(entry);
			*found = entry;
		}
		last = *found;
	}
	return *last->name ? last->name : NULL;
}

/* A pid may be another process's by the next look. */
void forget_commands(void)
{
	tdestroy(command_names, free);
	command_names = NULL;
}

const char *process_text(uint32_t pid)
{
	static char texts[2][96];
	static unsigned int turn;
	char *text = texts[turn++ % 2];
	const char *name = command_of(pid);

	if (!pid)
		snprintf(text, 96, "a process that is dead or not visible");
	else if (name)
		snprintf(text, 96, "%" PRIu32 " (%s)", pid, name);
	else
		snprintf(text, 96, "%" PRIu32, pid);
	return text;
}

const char *state_of_thread(uint32_t pid, uint32_t tid)
{
	static const struct {
		char letter;
		const char *text;
	} states[] = {
		{ 'R', "running" }, { 'S', "sleeping" }, { 'D', "in uninterruptible sleep" },
		{ 'T', "stopped" }, { 't', "stopped by a debugger" }, { 'Z', "dead" },
	};
	char path[64], line[512] = "", *end;
	FILE *file;
	size_t i;

	if (!pid)
		return NULL;
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/task/%" PRIu32 "/stat", pid,
		 tid ? tid : pid);
	file = fopen(path, "re");
	if (!file)
		return NULL;
	line[fread(line, 1, sizeof(line) - 1, file)] = '\0';
	fclose(file);
	end = strrchr(line, ')');	/* that of the name, which may have more of them */
	for (i = 0; end && i < sizeof(states) / sizeof(*states); i++)
		if (end[1] == ' ' && end[2] == states[i].letter)
			return states[i].text;
	return NULL;
}

/*
 * Spaces
 */

void space_text(const struct klock_space_info *info, char text[SPACE_SIZE])
{
	snprintf(text, SPACE_SIZE, "%" PRIu32 "/%.63s", info->uid, info->name);
}

const char *space_name(void)
{
	return opt.space ? opt.space : "default";
}

/* As far as it can be seen from here. */
static bool is_loaded(void)
{
	FILE *file = fopen("/proc/misc", "re");
	char name[32];
	bool found = false;

	while (file && !found && fscanf(file, "%*d %31s", name) == 1)
		found = !strcmp(name, "klock");
	if (file)
		fclose(file);
	return found;
}

static void explain_no_device(void)
{
	if (access("/dev/klock", F_OK) && !is_loaded())
		complain("klock is not loaded, there is no /dev/klock: modprobe klock");
	else if (access("/dev/klock", F_OK))
		complain("klock is loaded, but there is no /dev/klock here: %s",
			 "to be given to a container, or to a service with PrivateDevices=");
	else
		complain("no module answers at /dev/klock: modprobe klock, %s",
			 "and see whether the node is its own (grep klock /proc/misc)");
}

bool can_open_device(void)
{
	return !access("/dev/klock", R_OK | W_OK);
}

/* Of the device or of the space? */
static void explain_no_access(void)
{
	if (!can_open_device()) {
		complain("no right to open /dev/klock, whose mode is to be 0666");
		complain("see ls -l /dev/klock, and whether a rule of udev says otherwise");
	} else {
		complain("%s: no right to it%s", space_name(),
			 strchr(space_name(), '/') ? ", or there is none" : "");
		complain("klockctl spaces shows those that you may read, and their modes; %s",
			 "in a container, its cgroup may refuse /dev/klock");
	}
}

void explain_no_space(int err)
{
	switch (err) {
	case -ENODEV:
		explain_no_device();
		break;
	case -EACCES:
		explain_no_access();
		break;
	case -ENOENT:
		complain("%s: no such space", space_name());
		complain("klockctl spaces shows those that there are, klockctl create makes one");
		break;
	case -EEXIST:
		complain("%s: there is one already", space_name());
		break;
	case -EDQUOT:
		complain("%s: a quota is exhausted: see /sys/module/klock/parameters/max_*",
			 space_name());
		break;
	case -EINVAL:
		complain("%s: not a name of a space%s", space_name(), opt.attr.capacity ?
			 ", or above /sys/module/klock/parameters/max_capacity" : "");
		complain("it is NAME or UID/NAME, NAME 1 to 63 of A-Z a-z 0-9 . _ - and not .NAME");
		break;
	default:
		failed(space_name(), err);
	}
}

int open_space(unsigned int flags, struct klock_space **space)
{
	const struct klock_space_attr *attr = flags & KLOCK_CREATE ? &opt.attr : NULL;
	int ret = klock_space_open(space_name(), flags | KLOCK_NO_FASTPATH, attr, space);

	if (ret)
		explain_no_space(ret);
	return ret;
}

int get_info(struct klock_space *space, struct klock_space_info *info)
{
	int ret = klock_space_info(space, info);

	if (ret)
		failed(space_name(), ret);
	return ret;
}

int look_at_space(struct klock_space **space, struct klock_space_info *info)
{
	int ret = open_space(KLOCK_READONLY, space);

	if (!ret)
		ret = get_info(*space, info);
	return ret;
}

int get_lock(struct klock_space *space, uint32_t id, struct klock **lock)
{
	struct klock_space_info info;
	int ret = klock_retrieve(space, id, 0, lock);

	if (ret == -EINVAL && !klock_space_info(space, &info))
		complain("there is no lock %" PRIu32 " in %s, which has %" PRIu32
			 ", numbered from 0", id, space_name(), info.capacity);
	else if (ret)
		failed(space_name(), ret);
	return ret;
}

#define CHUNK	16384

int read_locks(struct klock_space *space, struct locks *locks)
{
	uint32_t first = 0;
	int ret;

	*locks = (struct locks) { 0 };
	do {
		locks->status = xrealloc(locks->status, locks->n + CHUNK, sizeof(*locks->status));
		ret = klock_list(space, first, locks->status + locks->n, CHUNK);
		if (ret < 0) {
			free(locks->status);
			locks->status = NULL;
			return ret;
		}
		locks->n += ret;
		if (ret)
			first = locks->status[locks->n - 1].id + 1;
	} while (ret == CHUNK);
	return 0;
}

static int read_all_spaces(struct spaces *spaces)
{
	const uint32_t chunk = 256;
	int ret;

	*spaces = (struct spaces) { 0 };
	do {
		const struct klock_space_info *after;

		spaces->info = xrealloc(spaces->info, spaces->n + chunk, sizeof(*spaces->info));
		after = spaces->n ? &spaces->info[spaces->n - 1] : NULL;
		ret = klock_space_list(after, &spaces->info[spaces->n], chunk);
		if (ret > 0)
			spaces->n += ret;
	} while (ret == (int)chunk);
	if (ret < 0) {
		free(spaces->info);
		explain_no_space(ret);
	}
	return ret < 0 ? ret : 0;
}

int read_spaces(struct spaces *spaces, bool all)
{
	struct klock_space *space = NULL;
	int ret;

	if (all)
		return read_all_spaces(spaces);
	spaces->n = 1;
	spaces->info = xrealloc(NULL, 1, sizeof(*spaces->info));
	ret = look_at_space(&space, spaces->info);
	klock_space_close(space);
	if (ret)
		free(spaces->info);
	return ret;
}
