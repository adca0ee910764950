// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * why, graph: who waits for whom.
 *
 * A wait is on a cycle if, from its thread on, by the holder of what is waited for and
 * what that thread waits for in turn, one comes back to it.  A client holds a lock as a
 * whole, unless it is an errorcheck one, so another thread of a process may release what
 * the first one took; and a runtime that moves its own threads takes a lock by one
 * and waits by another.  So a cycle that closes only if all threads of a process are
 * taken for one is told apart: it is possible.
 *
 * What is looked at is not of one moment: who held one lock at the first look may wait for
 * it, held by another, at the next.  So whatever seems to be on a cycle is looked at again:
 * a holder and a wait that are the same then, with the same times, were there at the moment
 * between the two, all of them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "klockctl.h"

struct node {			/* a lock that is held or waited for */
	char space[SPACE_SIZE];
	struct klock_status status;
	size_t first, nr_waits;	/* of graph->waits */
	bool seen;
};

enum cycle { NO_CYCLE, POSSIBLE, CYCLE };

enum side { WAITER, HOLDER };

struct party;

struct wait {
	size_t node;
	struct klock_waiter who;
	enum cycle cycle;
	enum cycle at_most;	/* as far as it is proven */
	bool active;		/* while cycles are looked for */
	struct party *party[2];	/* those at its sides, while it is active */
	struct wait *next[2];	/* one of the same party, at that side */
	bool told;
};

struct graph {
	struct node *nodes;
	size_t nr_nodes;
	struct wait *waits;
	size_t nr_waits;
	struct wait **by_waiter;	/* all of them, by process and thread */
};

/*
 * Reading
 */

/* Of a lock that has about @room of them: how many, and them, to be freed by the caller. */
static int read_waiters(struct klock *lock, uint32_t room, struct klock_waiter **waiters)
{
	*waiters = xrealloc(NULL, room, sizeof(**waiters));
	return klock_waiters(lock, *waiters, room);
}

static int add_waits(struct graph *graph, struct klock_space *space, struct node *node)
{
	struct klock_waiter *waiters;
	struct klock *lock;
	int ret = klock_retrieve(space, node->status.id, 0, &lock), i;

	if (ret)
		return ret;
	ret = read_waiters(lock, node->status.waiters, &waiters);
	klock_put(lock);
	node->first = graph->nr_waits;
	for (i = 0; i < ret; i++) {
		graph->waits = xrealloc(graph->waits, graph->nr_waits + 1, sizeof(*graph->waits));
		graph->waits[graph->nr_waits++] = (struct wait) {
			.node = node - graph->nodes,
			.who = waiters[i],
			.at_most = CYCLE,
		};
	}
	node->nr_waits = graph->nr_waits - node->first;
	free(waiters);
	return ret < 0 ? ret : 0;
}

static int add_space(struct graph *graph, const char *name, struct klock_space *space)
{
	struct locks locks;
	int ret = read_locks(space, &locks);
	size_t i;

	if (ret)
		return ret;
	for (i = 0; i < locks.n && !ret; i++) {
		const struct klock_status *status = &locks.status[i];
		struct node *node;

		if (!(status->flags & KLOCK_HELD) && !status->waiters)
			continue;
		graph->nodes = xrealloc(graph->nodes, graph->nr_nodes + 1, sizeof(*graph->nodes));
		node = &graph->nodes[graph->nr_nodes++];
		*node = (struct node) { .status = *status };
		strcpy(node->space, name);
		if (status->waiters)
			ret = add_waits(graph, space, node);
	}
	free(locks.status);
	return ret;
}

static void free_graph(struct graph *graph)
{
	free(graph->nodes);
	free(graph->waits);
	free(graph->by_waiter);
}

/* Of all spaces: one that goes away meanwhile, or has shrunk, is as far as it was read. */
static int read_graph(struct graph *graph, bool all)
{
	struct klock_space *space;
	struct spaces spaces;
	char name[SPACE_SIZE];
	int ret = read_spaces(&spaces, all);
	size_t i;

	*graph = (struct graph) { 0 };
	if (ret)
		return ret;
	for (i = 0; i < spaces.n; i++) {
		space_text(&spaces.info[i], name);
		ret = klock_space_open(name, KLOCK_READONLY, NULL, &space);
		if (!ret) {
			ret = add_space(graph, name, space);
			klock_space_close(space);
		}
		if (ret && !all)
			failed(name, ret);
	}
	free(spaces.info);
	return all ? 0 : ret;
}

/*
 * Cycles
 */

static uint64_t key(uint32_t pid, uint32_t tid, bool threads)
{
	return threads ? (uint64_t)pid << 32 | tid : pid;
}

/* 0: it is not known who has what is waited for. */
static uint64_t key_of_holder(const struct graph *graph, const struct wait *wait, bool threads)
{
	const struct klock_status *status = &graph->nodes[wait->node].status;

	if (!status->pid || (threads && !status->tid))
		return 0;
	return key(status->pid, status->tid, threads);
}

static uint64_t key_of_waiter(const struct wait *wait, bool threads)
{
	return wait->who.pid ? key(wait->who.pid, wait->who.tid, threads) : 0;
}

static int compare_keys(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* A thread, or a process, that waits or is waited for; each wait is looked at a few times only. */
struct party {
	uint64_t key;
	struct wait *first[2];	/* of those that it is at that side of */
	size_t active[2];	/* how many of them */
	bool dry;		/* on the list of those that have none at a side any more */
	struct party *next_dry;
};

/* The keys of all parties, each once, in their order; nothing is active that cannot be. */
static size_t collect_parties(struct graph *graph, struct party *parties, bool threads)
{
	size_t i, n = 0, unique = 0;

	for (i = 0; i < graph->nr_waits; i++) {
		struct wait *wait = &graph->waits[i];
		uint64_t from = key_of_waiter(wait, threads);
		uint64_t to = key_of_holder(graph, wait, threads);

		/* Threads of a process that wait for each other are nothing special. */
		wait->active = from && to && (threads || from != to) &&
			       wait->at_most >= (threads ? CYCLE : POSSIBLE);
		if (!wait->active)
			continue;
		parties[n++] = (struct party) { .key = from };
		parties[n++] = (struct party) { .key = to };
	}
	qsort(parties, n, sizeof(*parties), compare_keys);
	for (i = 0; i < n; i++)
		if (!unique || parties[unique - 1].key != parties[i].key)
			parties[unique++] = parties[i];
	return unique;
}

static void join_party(struct wait *wait, enum side side, uint64_t key, struct party *parties,
		       size_t n)
{
	struct party *party = bsearch(&key, parties, n, sizeof(*parties), compare_keys);

	wait->party[side] = party;
	wait->next[side] = party->first[side];
	party->first[side] = wait;
	party->active[side]++;
}

static void note_dry(struct party *party, struct party **dry)
{
	if (party->dry || (party->active[WAITER] && party->active[HOLDER]))
		return;
	party->dry = true;
	party->next_dry = *dry;
	*dry = party;
}

static void drop_waits(struct party *party, enum side side, struct party **dry)
{
	struct wait *wait;

	for (wait = party->first[side]; wait && party->active[side]; wait = wait->next[side]) {
		if (!wait->active)
			continue;
		wait->active = false;
		wait->party[WAITER]->active[WAITER]--;
		wait->party[HOLDER]->active[HOLDER]--;
		note_dry(wait->party[!side], dry);
	}
}

/* Drops waits for somebody who does not wait, or by one for whom nobody waits, until none is. */
static void drop_what_ends(struct party *parties, size_t n)
{
	struct party *dry = NULL, *party;
	size_t i;

	for (i = 0; i < n; i++)
		note_dry(&parties[i], &dry);
	while (dry) {
		party = dry;
		dry = party->next_dry;
		party->dry = false;
		drop_waits(party, WAITER, &dry);
		drop_waits(party, HOLDER, &dry);
	}
}

static void mark_cycles_of(struct graph *graph, bool threads)
{
	struct party *parties = xrealloc(NULL, 2 * graph->nr_waits, sizeof(*parties));
	size_t n = collect_parties(graph, parties, threads), i;

	for (i = 0; i < graph->nr_waits; i++) {
		struct wait *wait = &graph->waits[i];

		if (!wait->active)
			continue;
		join_party(wait, WAITER, key_of_waiter(wait, threads), parties, n);
		join_party(wait, HOLDER, key_of_holder(graph, wait, threads), parties, n);
	}
	drop_what_ends(parties, n);
	for (i = 0; i < graph->nr_waits; i++)
		if (graph->waits[i].active && !graph->waits[i].cycle)
			graph->waits[i].cycle = threads ? CYCLE : POSSIBLE;
	free(parties);
}

static void mark_all(struct graph *graph)
{
	mark_cycles_of(graph, true);
	mark_cycles_of(graph, false);
}

/*
 * What a wait for a lock is part of, at most, by what the lock was before and is now.  While
 * somebody waits, a lock changes hands with its time: unseen, if that is not known.
 */
static enum cycle proven(const struct klock_status *before, const struct klock_status *now)
{
	if (now->token != before->token || now->held_since != before->held_since)
		return NO_CYCLE;
	return now->held_since ? CYCLE : POSSIBLE;
}

/* Of the waits for a lock those count that are still there: they are in the same order. */
static void check_waits(struct graph *graph, const struct node *node, struct klock *lock)
{
	struct klock_status now;
	struct klock_waiter *waiters = NULL;
	int n = klock_status(lock, &now), i = 0;
	struct wait *wait = &graph->waits[node->first], *end = wait + node->nr_waits;

	if (!n)
		n = read_waiters(lock, now.waiters, &waiters);
	for (; wait < end; wait++) {
		while (i < n && waiters[i].since < wait->who.since)
			i++;
		if (i < n && !memcmp(&waiters[i], &wait->who, sizeof(*waiters))) {
			wait->at_most = proven(&node->status, &now);
			i++;
		} else {
			wait->at_most = NO_CYCLE;
		}
	}
	free(waiters);
}

static bool is_on_cycle(const struct graph *graph, const struct node *node)
{
	size_t i;

	for (i = 0; i < node->nr_waits; i++)
		if (graph->waits[node->first + i].cycle)
			return true;
	return false;
}

/* A lock that is there no more is as one that nobody holds. */
static void look_again(struct graph *graph)
{
	size_t i, j;

	for (i = 0; i < graph->nr_nodes; i++) {
		const struct node *node = &graph->nodes[i];
		struct klock_space *space = NULL;
		struct klock *lock = NULL;

		if (!is_on_cycle(graph, node))
			continue;
		for (j = 0; j < node->nr_waits; j++)
			graph->waits[node->first + j].at_most = NO_CYCLE;
		if (!klock_space_open(node->space, KLOCK_READONLY, NULL, &space) &&
		    !klock_retrieve(space, node->status.id, 0, &lock))
			check_waits(graph, node, lock);
		klock_put(lock);
		klock_space_close(space);
	}
	for (i = 0; i < graph->nr_waits; i++)
		graph->waits[i].cycle = NO_CYCLE;
}

/*
 * Who waits
 */

static int compare_waiters(const void *a, const void *b)
{
	const struct wait *x = *(struct wait * const *)a, *y = *(struct wait * const *)b;

	if (x->who.pid != y->who.pid)
		return x->who.pid < y->who.pid ? -1 : 1;
	if (x->who.tid != y->who.tid)
		return x->who.tid < y->who.tid ? -1 : 1;
	return x < y ? -1 : x > y;
}

/* For next_wait(), when all have been read. */
static void sort_waits(struct graph *graph)
{
	size_t i;

	graph->by_waiter = xrealloc(NULL, graph->nr_waits, sizeof(*graph->by_waiter));
	for (i = 0; i < graph->nr_waits; i++)
		graph->by_waiter[i] = &graph->waits[i];
	qsort(graph->by_waiter, graph->nr_waits, sizeof(*graph->by_waiter), compare_waiters);
}

/* Where in by_waiter the waits of a thread are, or would be. */
static size_t find_waits(const struct graph *graph, uint32_t pid, uint32_t tid)
{
	size_t low = 0, high = graph->nr_waits, middle;

	while (low < high) {
		const struct klock_waiter *who;

		middle = (low + high) / 2;
		who = &graph->by_waiter[middle]->who;
		if (who->pid < pid || (who->pid == pid && who->tid < tid))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * What the holder of a lock waits for, if it does: its very thread, or else another one of
 * the process, but not for what the process itself holds, which it may release; @on_cycle:
 * only on a cycle.
 */
static struct wait *next_wait(struct graph *graph, const struct node *node, bool on_cycle)
{
	uint32_t pid = node->status.pid, tid = node->status.tid;
	struct wait *wait;
	size_t i;

	if (!pid)
		return NULL;
	for (i = find_waits(graph, pid, tid); i < graph->nr_waits; i++) {
		wait = graph->by_waiter[i];
		if (wait->who.pid != pid || wait->who.tid != tid)
			break;
		if (!on_cycle || wait->cycle)
			return wait;
	}
	for (i = find_waits(graph, pid, 0); i < graph->nr_waits; i++) {
		wait = graph->by_waiter[i];
		if (wait->who.pid != pid)
			break;
		if ((!on_cycle || wait->cycle) && graph->nodes[wait->node].status.pid != pid)
			return wait;
	}
	return NULL;
}

/* All that is to be known before something is told. */
static void find_cycles(struct graph *graph)
{
	mark_all(graph);
	look_again(graph);
	mark_all(graph);
	sort_waits(graph);
}

/*
 * graph
 */

enum {
	GRAPH_PID, GRAPH_TID, GRAPH_COMMAND, GRAPH_WAITING, GRAPH_SPACE, GRAPH_ID, GRAPH_HOLDER,
	GRAPH_HOLDER_TID, GRAPH_HOLDER_COMMAND, GRAPH_HELD, GRAPH_CYCLE,
};

const struct column graph_columns[] = {
	[GRAPH_PID] = { "PID", "pid", NUMBER, true, "process that waits" },
	[GRAPH_TID] = { "TID", "tid", NUMBER, true, "its thread" },
	[GRAPH_COMMAND] = { "COMMAND", "command", STRING, true, "its name" },
	[GRAPH_WAITING] = { "WAITING", "waiting_ns", NUMBER, true, "for how long" },
	[GRAPH_SPACE] = { "SPACE", "space", STRING, true, "space of the lock, UID/NAME" },
	[GRAPH_ID] = { "ID", "id", NUMBER, true, "number of the lock that it waits for" },
	[GRAPH_HOLDER] = { "HOLDER", "holder_pid", NUMBER, true, "process that holds that" },
	[GRAPH_HOLDER_TID] = { "HOLDER-TID", "holder_tid", NUMBER, true, "thread that took it" },
	[GRAPH_HOLDER_COMMAND] = { "HOLDER-COMMAND", "holder_command", STRING, true,
		"name of the process" },
	[GRAPH_HELD] = { "HELD", "held_ns", NUMBER, false, "held for at least so long" },
	[GRAPH_CYCLE] = { "CYCLE", "cycle", STRING, true,
		"cycle: of threads; possible: if those that wait are who would unlock" },
	{ 0 }
};

static struct graph *shown;	/* what the rows of the tables are part of */

static const char *cycle_text(const struct wait *wait)
{
	static const char * const texts[] = { [CYCLE] = "cycle", [POSSIBLE] = "possible" };

	return texts[wait->cycle];
}

static void graph_cell(const void *row, int column, char *text)
{
	const struct wait *wait = row;
	const struct node *node = &shown->nodes[wait->node];

	switch (column) {
	case GRAPH_PID:
		cell_number_if(text, wait->who.pid);
		break;
	case GRAPH_TID:
		cell_number_if(text, wait->who.tid);
		break;
	case GRAPH_COMMAND:
		cell_string(text, command_of(wait->who.pid));
		break;
	case GRAPH_WAITING:
		cell_since(text, wait->who.since);
		break;
	case GRAPH_SPACE:
		cell_string(text, node->space);
		break;
	case GRAPH_ID:
		cell_number(text, node->status.id);
		break;
	case GRAPH_HOLDER:
		cell_number_if(text, node->status.pid);
		break;
	case GRAPH_HOLDER_TID:
		cell_number_if(text, node->status.tid);
		break;
	case GRAPH_HOLDER_COMMAND:
		cell_string(text, command_of(node->status.pid));
		break;
	case GRAPH_HELD:
		cell_since(text, node->status.held_since);
		break;
	case GRAPH_CYCLE:
		cell_string(text, cycle_text(wait));
		break;
	}
}

/* In double quotes of dot; a name has printable ASCII only. */
static void print_dot_name(uint32_t pid)
{
	const char *name = command_of(pid);

	for (; name && *name; name++) {
		if (*name == '"' || *name == '\\')
			putchar('\\');
		putchar(*name);
	}
	printf("\\n%" PRIu32, pid);
}

/* The node of a process; one that is not visible is another one for each @mark. */
static const char *dot_process(uint32_t pid, char kind, size_t mark)
{
	static char text[32];

	if (pid)
		snprintf(text, sizeof(text), "p%" PRIu32, pid);
	else
		snprintf(text, sizeof(text), "%c%zu", kind, mark);
	return text;
}

static void declare_dot_process(uint32_t pid, char kind, size_t mark)
{
	printf("  %s [shape=box, label=\"", dot_process(pid, kind, mark));
	if (pid)
		print_dot_name(pid);
	else
		putchar('?');
	puts("\"];");
}

static const char *dot_color(enum cycle cycle)
{
	static const char * const colors[] = {
		[NO_CYCLE] = "",
		[CYCLE] = ", color=red, fontcolor=red, penwidth=2",
		[POSSIBLE] = ", color=orange, fontcolor=orange, style=dashed",
	};

	return colors[cycle];
}

static void print_dot_lock(const struct graph *graph, size_t n)
{
	const struct node *node = &graph->nodes[n];
	const struct klock_status *status = &node->status;
	enum cycle cycle = NO_CYCLE;
	size_t i;

	if (!status->waiters)
		return;
	for (i = node->first; i < node->first + node->nr_waits; i++)
		if (graph->waits[i].cycle > cycle)
			cycle = graph->waits[i].cycle;
	printf("  l%zu [label=\"%s\\nlock %" PRIu32 "\"%s];\n", n, node->space, status->id,
	       dot_color(cycle));
	if (!(status->flags & KLOCK_HELD))
		return;
	declare_dot_process(status->pid, 'h', n);
	printf("  l%zu -> %s [label=\"held%s%s\"%s];\n", n, dot_process(status->pid, 'h', n),
	       status->held_since ? " for " : "",
	       status->held_since ? duration(ns_since(status->held_since)) : "",
	       dot_color(cycle));
}

static void print_dot(const struct graph *graph)
{
	size_t i;

	puts("digraph klock {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];");
	puts("  edge [fontname=\"sans-serif\", fontsize=10];");
	for (i = 0; i < graph->nr_nodes; i++)
		print_dot_lock(graph, i);
	for (i = 0; i < graph->nr_waits; i++) {
		const struct wait *wait = &graph->waits[i];

		declare_dot_process(wait->who.pid, 'w', i);
		printf("  %s -> l%zu [label=\"waits for %s\"%s];\n",
		       dot_process(wait->who.pid, 'w', i), wait->node,
		       duration(ns_since(wait->who.since)), dot_color(wait->cycle));
	}
	puts("}");
}

/* "12 (name), thread 13": the thread if it is not the first one. */
static void print_thread(uint32_t pid, uint32_t tid)
{
	fputs(process_text(pid), stdout);
	if (tid && tid != pid)
		printf(", thread %" PRIu32 ",", tid);
}

/* From one wait to that of the holder, until it comes to one that was told. */
static void tell_cycle(struct graph *graph, struct wait *wait)
{
	printf("\n%s:\n", wait->cycle == CYCLE ? "cycle" : "possible cycle");
	while (wait && !wait->told) {
		struct node *node = &graph->nodes[wait->node];

		wait->told = true;
		fputs("  ", stdout);
		print_thread(wait->who.pid, wait->who.tid);
		printf(" waits for lock %" PRIu32 " of %s, held by ", node->status.id,
		       node->space);
		print_thread(node->status.pid, node->status.tid);
		putchar('\n');
		wait = next_wait(graph, node, true);
	}
}

static int print_graph(struct graph *graph)
{
	struct table *table = table_begin("graph", graph_columns, graph_cell);
	int status;
	size_t i;

	if (!table)
		return EXIT_FAILURE;
	shown = graph;
	for (i = 0; i < graph->nr_waits; i++)
		table_row(table, &graph->waits[i]);
	status = table_end(table);
	for (i = 0; i < graph->nr_waits && !wants_table(); i++)
		if (graph->waits[i].cycle && !graph->waits[i].told)
			tell_cycle(graph, &graph->waits[i]);
	return status;
}

int cmd_graph(int argc, char **argv)
{
	int status = EXIT_SUCCESS;
	struct graph graph;

	(void)argc;
	(void)argv;
	if (read_graph(&graph, opt.all))
		return EXIT_FAILURE;
	find_cycles(&graph);
	if (opt.dot)
		print_dot(&graph);
	else
		status = print_graph(&graph);
	free_graph(&graph);
	return status;
}

/*
 * why
 */

enum {
	WHY_ROLE, WHY_N, WHY_SPACE, WHY_ID, WHY_PID, WHY_TID, WHY_COMMAND, WHY_STATE, WHY_TIME,
	WHY_CYCLE,
};

const struct column why_columns[] = {
	[WHY_ROLE] = { "ROLE", "role", STRING, true, "holder or waiter" },
	[WHY_N] = { "N", "n", NUMBER, true,
		"holder: 0 has the lock, 1 what 0 waits for...; waiter: its place, from 1" },
	[WHY_SPACE] = { "SPACE", "space", STRING, true, "space of the lock, UID/NAME" },
	[WHY_ID] = { "ID", "id", NUMBER, true, "number of the lock held or waited for" },
	[WHY_PID] = { "PID", "pid", NUMBER, true, "process" },
	[WHY_TID] = { "TID", "tid", NUMBER, true, "thread" },
	[WHY_COMMAND] = { "COMMAND", "command", STRING, true, "name of the process" },
	[WHY_STATE] = { "STATE", "state", STRING, true,
		"what the thread does: running, sleeping, stopped..." },
	[WHY_TIME] = { "TIME", "time_ns", NUMBER, true,
		"held for at least so long, waits for so long" },
	[WHY_CYCLE] = { "CYCLE", "cycle", STRING, false,
		"of what this holder waits for, if that is above: as of graph" },
	{ 0 }
};

struct why_row {
	bool holder;
	size_t n;
	const struct node *node;
	uint32_t pid, tid;
	uint64_t since;
	const struct wait *next;	/* of a holder: what it waits for */
	bool closes;			/* that was seen before */
};

static void why_cell(const void *row, int column, char *text)
{
	const struct why_row *why = row;

	switch (column) {
	case WHY_ROLE:
		cell_string(text, why->holder ? "holder" : "waiter");
		break;
	case WHY_N:
		cell_number(text, why->n);
		break;
	case WHY_SPACE:
		cell_string(text, why->node->space);
		break;
	case WHY_ID:
		cell_number(text, why->node->status.id);
		break;
	case WHY_PID:
		cell_number_if(text, why->pid);
		break;
	case WHY_TID:
		cell_number_if(text, why->tid);
		break;
	case WHY_COMMAND:
		cell_string(text, command_of(why->pid));
		break;
	case WHY_STATE:
		cell_string(text, state_of_thread(why->pid, why->tid));
		break;
	case WHY_TIME:
		cell_since(text, why->since);
		break;
	case WHY_CYCLE:
		cell_string(text, why->closes ? cycle_text(why->next) : NULL);
		break;
	}
}

struct why {
	struct why_row *rows;
	size_t n;
};

static struct why_row *why_add(struct why *why, const struct node *node)
{
	struct why_row *row;

	why->rows = xrealloc(why->rows, why->n + 1, sizeof(*why->rows));
	row = &why->rows[why->n++];
	*row = (struct why_row) { .node = node };
	return row;
}

/* From holder to holder, until one waits for nothing, or for what was seen. */
static void follow_holders(struct why *why, struct graph *graph, struct node *node)
{
	struct why_row *row;

	for (; node->status.flags & KLOCK_HELD; node = &graph->nodes[row->next->node]) {
		node->seen = true;
		row = why_add(why, node);
		row->holder = true;
		row->n = why->n - 1;
		row->pid = node->status.pid;
		row->tid = node->status.tid;
		row->since = node->status.held_since;
		row->next = next_wait(graph, node, false);
		if (!row->next)
			break;
		row->closes = graph->nodes[row->next->node].seen;
		if (row->closes)
			break;
	}
}

static void add_waiters(struct why *why, const struct graph *graph, const struct node *node)
{
	size_t i;

	for (i = 0; i < node->nr_waits; i++) {
		const struct wait *wait = &graph->waits[node->first + i];
		struct why_row *row = why_add(why, node);

		row->n = i + 1;
		row->pid = wait->who.pid;
		row->tid = wait->who.tid;
		row->since = wait->who.since;
	}
}

#define LINKS_TOLD	16	/* of a chain, and its last one */

static void tell_holder(const struct graph *graph, const struct why_row *row)
{
	static const char * const closings[] = { "", ": a possible cycle", ": a cycle" };
	const char *state = state_of_thread(row->pid, row->tid);
	const struct wait *next = row->next;

	print_thread(row->pid, row->tid);
	if (row->since)
		printf(" for at least %s", duration(ns_since(row->since)));
	putchar('\n');
	printf("%*s", (int)(2 * (row->n < LINKS_TOLD ? row->n : LINKS_TOLD) + 2), "");
	if (!next) {
		printf("which waits for no lock%s%s\n", state ? " and is " : "",
		       state ? state : "");
		return;
	}
	if (next->who.tid != row->tid)
		printf("another thread of which, %" PRIu32 ", ", next->who.tid);
	else
		fputs("which ", stdout);
	printf("waits for lock %" PRIu32 " of %s, for %s, held by ",
	       graph->nodes[next->node].status.id, graph->nodes[next->node].space,
	       duration(ns_since(next->who.since)));
	if (row->closes)
		printf("%s%s\n", process_text(graph->nodes[next->node].status.pid),
		       closings[next->cycle]);
	else if (!(graph->nodes[next->node].status.flags & KLOCK_HELD))
		puts("nobody by now");
}

/* Returns how many they are.  Whoever made a chain could make it of any length. */
static size_t tell_holders(const struct graph *graph, const struct why *why)
{
	size_t n = 0, i;

	while (n < why->n && why->rows[n].holder)
		n++;
	for (i = 0; i < n; i++) {
		if (i == LINKS_TOLD && i < n - 1) {
			printf("the first of %zu more, of which the last is ", n - i);
			i = n - 1;
		}
		tell_holder(graph, &why->rows[i]);
	}
	return n;
}

static void tell_why(const struct graph *graph, const struct why *why, const struct node *node)
{
	const struct klock_status *status = &node->status;
	size_t i;

	printf("lock %" PRIu32 " of %s%s: ", status->id, node->space,
	       status->flags & KLOCK_ALLOCATED ? "" : ", which is not allocated");
	if (status->flags & KLOCK_HELD)
		fputs("held by ", stdout);
	else
		puts(status->flags & KLOCK_DIED ?
		     "nobody holds it; the last holder died, and the next one will be told" :
		     "nobody holds it");
	i = tell_holders(graph, why);
	if (i == why->n)
		puts("nobody waits for it");
	else
		printf("%zu wait%s for it, in this order:\n", why->n - i,
		       why->n - i > 1 ? "" : "s");
	for (; i < why->n; i++) {
		fputs("  ", stdout);
		print_thread(why->rows[i].pid, why->rows[i].tid);
		printf(" for %s\n", duration(ns_since(why->rows[i].since)));
	}
}

/* One that nobody holds or waits for is not in the graph. */
static struct node *find_node(struct graph *graph, const char *space, uint32_t id)
{
	size_t i;

	for (i = 0; i < graph->nr_nodes; i++)
		if (graph->nodes[i].status.id == id && !strcmp(graph->nodes[i].space, space))
			return &graph->nodes[i];
	return NULL;
}

static int show_why(struct graph *graph, struct node *node)
{
	struct why why = { 0 };
	int status = EXIT_SUCCESS;
	struct table *table;
	size_t i;

	follow_holders(&why, graph, node);
	add_waiters(&why, graph, node);
	if (!wants_table()) {
		tell_why(graph, &why, node);
	} else {
		table = table_begin("why", why_columns, why_cell);
		for (i = 0; table && i < why.n; i++)
			table_row(table, &why.rows[i]);
		status = table ? table_end(table) : EXIT_FAILURE;
	}
	free(why.rows);
	return status;
}

/* The lock as it is by itself. */
static int read_node(struct node *node, uint32_t id)
{
	struct klock_space_info info;
	struct klock_space *space = NULL;
	struct klock *lock = NULL;
	int ret = look_at_space(&space, &info);

	*node = (struct node) { 0 };
	if (!ret) {
		space_text(&info, node->space);
		ret = get_lock(space, id, &lock);
	}
	if (!ret) {
		ret = klock_status(lock, &node->status);
		if (ret)
			failed(space_name(), ret);
	}
	klock_put(lock);
	klock_space_close(space);
	return ret;
}

int cmd_why(int argc, char **argv)
{
	struct node alone, *node;
	struct graph graph;
	uint32_t id;
	int status;

	(void)argc;
	if (!parse_id(argv[0], &id) || read_node(&alone, id) || read_graph(&graph, true))
		return EXIT_FAILURE;
	find_cycles(&graph);
	node = find_node(&graph, alone.space, id);
	status = show_why(&graph, node ? node : &alone);
	free_graph(&graph);
	return status;
}
