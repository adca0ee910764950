/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of klockctl share:
 *
 *	klockctl.c	options, commands and their help
 *	util.c		messages, times, processes, spaces
 *	table.c		columns, as a table or as JSON
 *	show.c		list, spaces, info, top
 *	graph.c		why, graph: who waits for whom
 *	change.c	what makes, changes and removes
 *	run.c		run
 *	watch.c		watch
 *
 * A function that returns an int and has said on stderr what is wrong returns a negative
 * errno; a command returns its exit status.
 */
#ifndef KLOCKCTL_H
#define KLOCKCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <klock.h>

#define NSEC_PER_SEC	1000000000ULL

/* The options of all commands; what is not given is 0. */
struct options {
	const char *space;		/* NULL: the caller's "default" */
	bool json, raw, noheadings;
	const char *columns;		/* as given to --output */
	bool held, waiting;
	uint64_t at_least;		/* --long, ns */
	bool by_rate;
	uint64_t delay;			/* ns */
	uint32_t iterations, count;	/* 0: no end */
	bool all, dot;
	uint64_t timeout;		/* ns */
	bool has_timeout, nonblock;
	bool fail_if_died;
	bool close;		/* run: the command has no descriptor of the lock */
	int conflict_status;
	uint32_t id;
	bool has_id;
	struct klock_space_attr attr;
	bool force, yes;
};

extern struct options opt;

/* A column of a table; the array of them ends with one that has no name. */
struct column {
	const char *name;	/* heads it, and is asked for by --output */
	const char *json;	/* its name in JSON */
	enum { STRING, NUMBER, BOOLEAN } type;
	bool by_default;	/* in a table; JSON has all */
	const char *what;
	bool cut;		/* on a terminal, where a row would not be a line otherwise */
};

#define CELL_SIZE	128	/* a cell's text, with its NUL */

/*
 * Fills the text of a cell of the row, in printable ASCII, or leaves it empty: there is no
 * such value ("-" in a table, null in JSON).
 */
typedef void (*cell_fn)(const void *row, int column, char *text);

struct table;

/* @name: of the array in JSON.  Returns NULL: --output names no column, which has been said. */
struct table *table_begin(const char *name, const struct column *columns, cell_fn cell);
void table_row(struct table *table, const void *row);
/* Prints it and forgets it; an exit status. */
int table_end(struct table *table);
/* One row, a line for each of its columns. */
void print_record(const struct column *columns, cell_fn cell, const void *row);
bool wants_table(void);
void print_json_string(const char *text);

/* Cells; ns as an integer in JSON; of what is 0 because it is not known: empty. */
void cell_number(char *text, uint64_t n);
void cell_number_if(char *text, uint64_t n);
void cell_boolean(char *text, bool b);
void cell_string(char *text, const char *string);
void cell_duration(char *text, uint64_t ns);
void cell_since(char *text, uint64_t since);

/* Ends the program. */
void *xrealloc(void *mem, size_t n, size_t size);

/* On stderr, after the name of the program. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether a terminal says yes; true, unasked, if there is none, or with --yes. */
bool confirmed(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_ns(void);
/* For how long by now; 0: since when is not known. */
uint64_t ns_since(uint64_t since);
/* As people say it; the result is overwritten by the second call after this one. */
const char *duration(uint64_t ns);
bool parse_duration(const char *text, uint64_t *ns);
bool parse_number(const char *text, uint32_t max, uint32_t *n);
bool parse_id(const char *text, uint32_t *id);

/*
 * The name of a process, without what a terminal could take for a command; NULL: it is dead
 * or not visible.  Looked up once; the string stays.
 */
const char *command_of(uint32_t pid);
void forget_commands(void);
/* "12 (name)", "a process that is not visible"; overwritten as that of duration(). */
const char *process_text(uint32_t pid);
/* "sleeping", "stopped"...; NULL: not known.  @tid: 0: that of the process. */
const char *state_of_thread(uint32_t pid, uint32_t tid);

#define SPACE_SIZE	80
/* "UID/NAME" */
void space_text(const struct klock_space_info *info, char text[SPACE_SIZE]);
/* What --space asks for, as it was given. */
const char *space_name(void);
bool can_open_device(void);
/* Says why that space could not be opened, or done with as was asked. */
void explain_no_space(int err);
/* Opens it, or says why not. */
int open_space(unsigned int flags, struct klock_space **space);
/* The same to look only, and its info. */
int look_at_space(struct klock_space **space, struct klock_space_info *info);
/* A handle; says so if the space has no such lock. */
int get_lock(struct klock_space *space, uint32_t id, struct klock **lock);
int get_info(struct klock_space *space, struct klock_space_info *info);
/* Says why something failed, if there is nothing better to say: returns EXIT_FAILURE. */
int failed(const char *what, int err);

struct locks {
	struct klock_status *status;
	size_t n;
};

/* All that klock_list() has to tell; freed by the caller. */
int read_locks(struct klock_space *space, struct locks *locks);

struct spaces {
	struct klock_space_info *info;
	size_t n;
};

/* The spaces that the caller may read, or only that of --space; freed by the caller. */
int read_spaces(struct spaces *spaces, bool all);

/* The commands; @argv: their arguments. */
int cmd_list(int argc, char **argv);
int cmd_why(int argc, char **argv);
int cmd_spaces(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_graph(int argc, char **argv);
int cmd_watch(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_allocate(int argc, char **argv);
int cmd_free(int argc, char **argv);
int cmd_free_all(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_remove(int argc, char **argv);
int cmd_resize(int argc, char **argv);
int cmd_break(int argc, char **argv);

extern const struct column list_columns[], space_columns[], top_columns[];
extern const struct column why_columns[], graph_columns[];

#endif /* KLOCKCTL_H */
