// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * list, spaces, info, top: what there is, as columns.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "klockctl.h"

/*
 * list
 */

enum {
	LIST_ID, LIST_STATE, LIST_ALLOCATED, LIST_PID, LIST_TID, LIST_COMMAND, LIST_TOKEN,
	LIST_HELD, LIST_WAITERS, LIST_WAITING,
};

const struct column list_columns[] = {
	[LIST_ID] = { "ID", "id", NUMBER, true, "number of the lock" },
	[LIST_STATE] = { "STATE", "state", STRING, true,
		"held, died (nobody holds it, the last holder did not unlock it) or free" },
	[LIST_ALLOCATED] = { "ALLOCATED", "allocated", BOOLEAN, false,
		"whether the number is allocated" },
	[LIST_PID] = { "PID", "pid", NUMBER, true,
		"process that holds it; none: dead or not visible" },
	[LIST_TID] = { "TID", "tid", NUMBER, true,
		"thread that took it; none: dead, not visible or not known" },
	[LIST_COMMAND] = { "COMMAND", "command", STRING, true, "name of the process" },
	[LIST_TOKEN] = { "TOKEN", "token", NUMBER, false, "number of the client that holds it" },
	[LIST_HELD] = { "HELD", "held_ns", NUMBER, true,
		"held for at least so long; none: not known" },
	[LIST_WAITERS] = { "WAITERS", "waiters", NUMBER, true, "how many threads wait for it" },
	[LIST_WAITING] = { "WAITING", "waiting_ns", NUMBER, true,
		"for how long the first of them has waited" },
	{ 0 }
};

static const char *state_of(const struct klock_status *status)
{
	return status->flags & KLOCK_HELD ? "held" : status->flags & KLOCK_DIED ? "died" : "free";
}

static void list_cell(const void *row, int column, char *text)
{
	const struct klock_status *status = row;

	switch (column) {
	case LIST_ID:
		cell_number(text, status->id);
		break;
	case LIST_STATE:
		strcpy(text, state_of(status));
		break;
	case LIST_ALLOCATED:
		cell_boolean(text, status->flags & KLOCK_ALLOCATED);
		break;
	case LIST_PID:
		cell_number_if(text, status->pid);
		break;
	case LIST_TID:
		cell_number_if(text, status->tid);
		break;
	case LIST_COMMAND:
		cell_string(text, command_of(status->pid));
		break;
	case LIST_TOKEN:
		cell_number_if(text, status->token);
		break;
	case LIST_HELD:
		cell_since(text, status->held_since);
		break;
	case LIST_WAITERS:
		cell_number(text, status->waiters);
		break;
	case LIST_WAITING:
		cell_since(text, status->waiting_since);
		break;
	}
}

static bool is_wanted(const struct klock_status *status)
{
	if (opt.held && !(status->flags & KLOCK_HELD))
		return false;
	if (opt.waiting && !status->waiters)
		return false;
	/* --long is about what was asked for beside it, or about either. */
	return !opt.at_least ||
	       ((opt.held || !opt.waiting) && ns_since(status->held_since) >= opt.at_least) ||
	       ((opt.waiting || !opt.held) && ns_since(status->waiting_since) >= opt.at_least);
}

int cmd_list(int argc, char **argv)
{
	struct klock_space *space;
	struct locks locks;
	struct table *table;
	size_t i;
	int ret;

	(void)argc;
	(void)argv;
	if (open_space(KLOCK_READONLY, &space))
		return EXIT_FAILURE;
	table = table_begin("locks", list_columns, list_cell);
	if (!table)
		return EXIT_FAILURE;
	ret = read_locks(space, &locks);
	if (ret)
		return failed(space_name(), ret);
	for (i = 0; i < locks.n; i++)
		if (is_wanted(&locks.status[i]))
			table_row(table, &locks.status[i]);
	free(locks.status);
	klock_space_close(space);
	return table_end(table);
}

/*
 * spaces and info
 */

enum {
	SPACE_NAME, SPACE_UID, SPACE_GID, SPACE_MODE, SPACE_CAPACITY, SPACE_ALLOCATED, SPACE_HELD,
	SPACE_WAITING, SPACE_CLIENTS, SPACE_MAPPABLE, SPACE_WAITS, SPACE_WAITED,
	SPACE_LONGEST_WAIT, SPACE_DEATHS, SPACE_PASSED, SPACE_MAX_PASSED, SPACE_GENERATION,
};

const struct column space_columns[] = {
	[SPACE_NAME] = { "NAME", "name", STRING, true, "UID/NAME, as --space takes it" },
	[SPACE_UID] = { "UID", "uid", NUMBER, false, "owner" },
	[SPACE_GID] = { "GID", "gid", NUMBER, false, "group" },
	[SPACE_MODE] = { "MODE", "mode", STRING, true, "permission bits, octal" },
	[SPACE_CAPACITY] = { "CAPACITY", "capacity", NUMBER, true, "locks" },
	[SPACE_ALLOCATED] = { "ALLOCATED", "allocated", NUMBER, true,
		"locks whose number is allocated" },
	[SPACE_HELD] = { "HELD", "held", NUMBER, true, "locks that are held" },
	[SPACE_WAITING] = { "WAITING", "waiting", NUMBER, true, "threads that wait" },
	[SPACE_CLIENTS] = { "CLIENTS", "clients", NUMBER, true,
		"clients that are attached; info and list --space are one themselves" },
	[SPACE_MAPPABLE] = { "MAPPABLE", "mappable", BOOLEAN, false,
		"whether all who may write may map its words" },
	[SPACE_WAITS] = { "WAITS", "waits", NUMBER, false, "waits that were begun" },
	[SPACE_WAITED] = { "WAITED", "waited", NUMBER, false, "locks that were got by waiting" },
	[SPACE_LONGEST_WAIT] = { "LONGEST-WAIT", "longest_wait_ns", NUMBER, false,
		"the longest wait that has ended" },
	[SPACE_DEATHS] = { "DEATHS", "deaths", NUMBER, false,
		"locks whose holder went away without unlocking" },
	[SPACE_PASSED] = { "PASSED", "passed", NUMBER, false,
		"wake-ups that found the lock taken by another" },
	[SPACE_MAX_PASSED] = { "MAX-PASSED", "max_passed", NUMBER, false,
		"the most of them in one wait" },
	[SPACE_GENERATION] = { "GENERATION", "generation", STRING, false,
		"random, new for each space that is made; hexadecimal" },
	{ 0 }
};

static void space_counter(const struct klock_space_info *info, int column, char *text)
{
	switch (column) {
	case SPACE_WAITS:
		cell_number(text, info->waits);
		break;
	case SPACE_WAITED:
		cell_number(text, info->waited);
		break;
	case SPACE_LONGEST_WAIT:
		cell_duration(text, info->longest_wait);
		break;
	case SPACE_DEATHS:
		cell_number(text, info->deaths);
		break;
	case SPACE_PASSED:
		cell_number(text, info->passed);
		break;
	case SPACE_MAX_PASSED:
		cell_number(text, info->max_passed);
		break;
	}
}

static void space_cell(const void *row, int column, char *text)
{
	const struct klock_space_info *info = row;
	const uint32_t numbers[] = {
		[SPACE_UID] = info->uid,
		[SPACE_GID] = info->gid,
		[SPACE_CAPACITY] = info->capacity,
		[SPACE_ALLOCATED] = info->allocated,
		[SPACE_HELD] = info->held,
		[SPACE_WAITING] = info->waiting,
		[SPACE_CLIENTS] = info->clients,
	};

	switch (column) {
	case SPACE_NAME:
		space_text(info, text);
		break;
	case SPACE_MODE:
		snprintf(text, CELL_SIZE, "%04" PRIo32, info->mode);
		break;
	case SPACE_MAPPABLE:
		cell_boolean(text, info->flags & KLOCK_MAPPABLE);
		break;
	case SPACE_GENERATION:
		snprintf(text, CELL_SIZE, "%016" PRIx64, info->generation);
		break;
	case SPACE_UID:
	case SPACE_GID:
	case SPACE_CAPACITY ... SPACE_CLIENTS:
		cell_number(text, numbers[column]);
		break;
	default:
		space_counter(info, column, text);
	}
}

static int show_spaces(const char *name, bool all)
{
	struct table *table = table_begin(name, space_columns, space_cell);
	struct spaces spaces;
	size_t i;

	if (!table || read_spaces(&spaces, all))
		return EXIT_FAILURE;
	for (i = 0; i < spaces.n; i++)
		table_row(table, &spaces.info[i]);
	free(spaces.info);
	return table_end(table);
}

int cmd_spaces(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return show_spaces("spaces", true);
}

int cmd_info(int argc, char **argv)
{
	struct spaces spaces;

	(void)argc;
	(void)argv;
	if (wants_table())
		return show_spaces("info", false);
	if (read_spaces(&spaces, false))
		return EXIT_FAILURE;
	print_record(space_columns, space_cell, spaces.info);
	free(spaces.info);
	return EXIT_SUCCESS;
}

/*
 * top: a row for each space that is read, and below it one for each of its locks that
 * somebody waits for.  How often there was a wait is counted for whole spaces.
 */

struct top_row {
	char space[SPACE_SIZE];
	struct klock_space_info info;
	uint64_t since;			/* when the first of all waiters of the space began */
	double rate;			/* of waits of the space, a second; negative: not known */
	bool is_lock;
	struct klock_status status;	/* if it is */
};

struct top {
	struct top_row *rows;
	size_t n;
	struct spaces before;		/* as they were at the look before */
	uint64_t time, time_before;
};

enum {
	TOP_SPACE, TOP_ID, TOP_PID, TOP_TID, TOP_COMMAND, TOP_HELD, TOP_WAITERS, TOP_WAITING,
	TOP_RATE,
};

const struct column top_columns[] = {
	[TOP_SPACE] = { "SPACE", "space", STRING, true, "UID/NAME", .cut = true },
	[TOP_ID] = { "ID", "id", NUMBER, true,
		"number of a lock that is waited for; none: the row is of the whole space" },
	[TOP_PID] = { "PID", "pid", NUMBER, true, "process that holds the lock" },
	[TOP_TID] = { "TID", "tid", NUMBER, false, "thread that took it" },
	[TOP_COMMAND] = { "COMMAND", "command", STRING, true, "name of the process", .cut = true },
	[TOP_HELD] = { "HELD", "held_ns", NUMBER, true, "held for at least so long" },
	[TOP_WAITERS] = { "WAITERS", "waiters", NUMBER, true, "threads that wait" },
	[TOP_WAITING] = { "WAITING", "waiting_ns", NUMBER, true,
		"for how long the first of them has waited" },
	[TOP_RATE] = { "WAITS/S", "waits_per_second", NUMBER, true,
		"waits that were begun since the look before, a second; of a space" },
	{ 0 }
};

static void top_cell(const void *row, int column, char *text)
{
	const struct top_row *top = row;

	switch (column) {
	case TOP_SPACE:
		strcpy(text, top->space);
		break;
	case TOP_ID:
		if (top->is_lock)
			cell_number(text, top->status.id);
		break;
	case TOP_PID:
		cell_number_if(text, top->status.pid);
		break;
	case TOP_TID:
		cell_number_if(text, top->status.tid);
		break;
	case TOP_COMMAND:
		cell_string(text, command_of(top->status.pid));
		break;
	case TOP_HELD:
		cell_since(text, top->status.held_since);
		break;
	case TOP_WAITERS:
		cell_number(text, top->is_lock ? top->status.waiters : top->info.waiting);
		break;
	case TOP_WAITING:
		cell_since(text, top->is_lock ? top->status.waiting_since : top->since);
		break;
	case TOP_RATE:
		if (!top->is_lock && top->rate >= 0)
			snprintf(text, CELL_SIZE, "%.1f", top->rate);
		break;
	}
}

static struct top_row *top_add(struct top *top, const struct klock_space_info *info)
{
	struct top_row *row;

	top->rows = xrealloc(top->rows, top->n + 1, sizeof(*top->rows));
	row = &top->rows[top->n++];
	*row = (struct top_row) { .info = *info, .rate = -1 };
	space_text(info, row->space);
	return row;
}

/* By what was counted since the look before, if it was the same space then. */
static void top_rate(const struct top *top, struct top_row *row)
{
	double seconds = (double)(top->time - top->time_before) / NSEC_PER_SEC;
	size_t i;

	for (i = 0; i < top->before.n; i++) {
		const struct klock_space_info *before = &top->before.info[i];

		if (before->generation == row->info.generation)
			row->rate = (double)(row->info.waits - before->waits) / seconds;
	}
}

/* A space that went away meanwhile has no locks. */
static void top_locks(struct top *top, size_t space_row)
{
	struct top_row of_space = top->rows[space_row], *row;
	struct klock_space *space;
	struct locks locks;
	size_t i;

	if (klock_space_open(of_space.space, KLOCK_READONLY, NULL, &space))
		return;
	if (!read_locks(space, &locks)) {
		for (i = 0; i < locks.n; i++) {
			if (!locks.status[i].waiters)
				continue;
			row = top_add(top, &of_space.info);
			row->is_lock = true;
			row->status = locks.status[i];
			row->rate = of_space.rate;
			if (!of_space.since || row->status.waiting_since < of_space.since)
				of_space.since = row->status.waiting_since;
		}
		free(locks.status);
	}
	klock_space_close(space);
	for (i = space_row; i < top->n; i++)
		top->rows[i].since = of_space.since;
}

/* Spaces by what --sort says, each before its locks, and these by how long is waited. */
static int compare_rows(const void *a, const void *b)
{
	const struct top_row *x = a, *y = b;
	int order;

	if (opt.by_rate && x->rate != y->rate)
		return x->rate < y->rate ? 1 : -1;
	if (x->since != y->since)
		return x->since - 1 > y->since - 1 ? 1 : -1;	/* 0 is last */
	order = strcmp(x->space, y->space);
	if (order || x->is_lock != y->is_lock)
		return order ? order : x->is_lock - y->is_lock;
	if (x->status.waiting_since != y->status.waiting_since)
		return x->status.waiting_since > y->status.waiting_since ? 1 : -1;
	return x->status.id > y->status.id ? 1 : -1;
}

static int top_look(struct top *top)
{
	struct spaces spaces;
	size_t i;
	int ret;

	ret = read_spaces(&spaces, !opt.space);
	if (ret)
		return ret;
	top->time = now_ns();
	top->n = 0;
	for (i = 0; i < spaces.n; i++) {
		size_t at = top->n;

		top_rate(top, top_add(top, &spaces.info[i]));
		if (spaces.info[i].waiting)
			top_locks(top, at);
	}
	free(top->before.info);
	top->before = spaces;
	top->time_before = top->time;
	qsort(top->rows, top->n, sizeof(*top->rows), compare_rows);
	return 0;
}

/* As much of it as the terminal has lines for. */
static int top_print(const struct top *top, bool again)
{
	struct winsize size = { 0 };
	struct table *table = table_begin("top", top_columns, top_cell);
	bool on_terminal = isatty(STDOUT_FILENO) && !opt.json && !opt.raw;
	size_t i, room = SIZE_MAX;

	if (!table)
		return EXIT_FAILURE;
	if (on_terminal && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row > 2)
		room = size.ws_row - 2;
	if (on_terminal)
		fputs("\033[H\033[J", stdout);	/* home, and clear what is below */
	else if (again && !opt.json)
		putchar('\n');
	for (i = 0; i < top->n && i < room; i++)
		table_row(table, &top->rows[i]);
	return table_end(table);
}

int cmd_top(int argc, char **argv)
{
	struct timespec delay = {
		.tv_sec = opt.delay / NSEC_PER_SEC,
		.tv_nsec = opt.delay % NSEC_PER_SEC,
	};
	uint32_t last = opt.iterations ? opt.iterations : opt.json;
	struct top top = { 0 };
	int status = EXIT_SUCCESS;
	uint32_t i;

	(void)argc;
	(void)argv;
	for (i = 1; !status; i++) {
		status = top_look(&top) ? EXIT_FAILURE : top_print(&top, i > 1);
		if (fflush(stdout) || i == last)
			break;
		nanosleep(&delay, NULL);
		forget_commands();
	}
	free(top.rows);
	free(top.before.info);
	return status;
}
