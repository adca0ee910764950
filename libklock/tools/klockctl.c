// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * klockctl: shows and changes the locks of klock.
 *
 * Options, commands, and the help that is made from the tables of both.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "klockctl.h"

struct options opt = { .delay = 2 * NSEC_PER_SEC, .conflict_status = EXIT_FAILURE };

/* An option is known by its key, of which a command's struct says those that it takes. */
struct option_info {
	char key;
	char letter;		/* 0: none */
	const char *name, *arg, *what;
};

static const struct option_info options[] = {
	{ 's', 's', "space", "NAME|UID/NAME",
	  "the space, another user's by its UID; without it your \"default\"; top and watch: all" },
	{ 'J', 'J', "json", NULL, "print JSON, with all columns; times are integers, in ns" },
	{ 'o', 'o', "output", "COLUMNS",
	  "these columns, with commas between; +COLUMNS: beside those of the default" },
	{ 'n', 'n', "noheadings", NULL, "no line of headings" },
	{ 'r', 'r', "raw", NULL, "columns with one blank between" },
	{ 'H', 0, "held", NULL, "only locks that are held" },
	{ 'W', 0, "waiting", NULL, "only locks that are waited for" },
	{ 'L', 0, "long", "TIME",
	  "only those held (--held), waited for (--waiting) or either so long, as far as known" },
	{ 'S', 0, "sort", "waiting|rate",
	  "spaces by their longest wait (the default), or by waits a second" },
	{ 'd', 'd', "delay", "TIME", "between two looks; 2 s" },
	{ 'i', 0, "iterations", "N", "end after so many; JSON: 1, otherwise without end" },
	{ 'a', 'a', "all", NULL, "all spaces that may be read" },
	{ 'D', 0, "dot", NULL,
	  "for dot of Graphviz; a cycle is red, one that is only possible orange" },
	{ 'c', 0, "count", "N", "end after so many events" },
	{ 't', 'w', "timeout", "TIME", "wait so long at most" },
	{ 'b', 'n', "nonblock", NULL, "do not wait" },
	{ 'E', 'E', "conflict-exit-code", "N",
	  "exit status when the lock was not got by then; 1" },
	{ 'O', 0, "owner-died", "run|fail",
	  "if the last holder died: say so and run (the default); leave all as it is" },
	{ 'x', 0, "close", NULL, "the command does not keep the lock if klockctl is killed" },
	{ 'I', 0, "id", "N", "this one, not the lowest that is free" },
	{ 'C', 0, "capacity", "N", "how many locks; 2048" },
	{ 'm', 'm', "mode", "MODE", "permission bits, octal, up to 0666; 0600" },
	{ 'M', 0, "mappable", NULL,
	  "who may write may lock without system calls, and forge others' locks" },
	{ 'f', 'f', "force", NULL, "though it has clients; their waits end with an error" },
	{ 'y', 'y', "yes", NULL, "do not ask; nobody is asked if stdin is no terminal" },
	{ 'h', 'h', "help", NULL, "this help, or that of the command" },
	{ 'V', 'V', "version", NULL, "the version" },
};

#define NR_OPTIONS	(sizeof(options) / sizeof(*options))
#define COMMON		"sJonrhV"	/* may stand before the command */
#define SHOWS		"sJonrh"

struct command {
	const char *name, *args, *what, *more;
	int (*fn)(int argc, char **argv);
	const char *takes;	/* options */
	int min, max;		/* arguments */
	const struct column *columns;
};

static int cmd_help(int argc, char **argv);

static const struct command commands[] = {
	{ "list", "", "locks: allocated, held, waited for, or left by one that died",
	  "Options narrow the list: a lock must be what each of them says.",
	  cmd_list, SHOWS "HWL", 0, 0, list_columns },
	{ "why", "ID", "who holds a lock, what that one waits for in turn, and who waits",
	  "Follows the holder through all spaces that may be read, and tells the last of a long\n"
	  "chain after the first ones.  A table, with these columns and all of the chain, is printed\n"
	  "with --json, --raw, --output or --noheadings.",
	  cmd_why, SHOWS, 1, 1, why_columns },
	{ "graph", "", "who waits for whom, and cycles",
	  NULL, cmd_graph, SHOWS "aD", 0, 0, graph_columns },
	{ "top", "", "spaces and the locks that are waited for, again and again",
	  "All spaces that may be read, or that of --space.  JSON is one document for each look.",
	  cmd_top, SHOWS "Sdi", 0, 0, top_columns },
	{ "watch", "[ID]", "what happens to locks, as it does; for root",
	  "The tracepoints of the module (acquire, contended, released, owner_died, broken,\n"
	  "handoff), of one space with --space and of one lock with ID.  Ends on SIGINT and\n"
	  "SIGTERM.  JSON is one object a line: time_ns (by the clock of the trace), event, tid and\n"
	  "command of the thread that it happened in, and the fields of the event.",
	  cmd_watch, "sJch", 0, 1, NULL },
	{ "spaces", "", "spaces that may be read",
	  NULL, cmd_spaces, "Jonrh", 0, 0, space_columns },
	{ "info", "", "a space, with its counters",
	  "All columns; a table with --json, --raw, --output or --noheadings.",
	  cmd_info, SHOWS, 0, 0, space_columns },
	{ "run", "ID [--] COMMAND [ARGUMENT...]", "run a command with a lock held",
	  "As flock(1).  Exits with the status of the command, with 128 + N if signal N ended it,\n"
	  "or as sysexits.h says: 64 usage, 65 see --owner-died, 66 no such space or lock,\n"
	  "69 klock is not loaded or the command cannot be run, 71 other errors, 77 no right.\n"
	  "Signals sent to klockctl are passed on, so one that a process sends to their whole group\n"
	  "reaches the command twice.  The lock is unlocked when the command ends.  If klockctl is\n"
	  "killed, the command is sent SIGTERM, and the lock is released, as that of a holder that\n"
	  "died, when it has ended, and with it all that it left running; with --close at once.\n"
	  "What the command leaves running keeps the space in use, too (remove fails), unless\n"
	  "--close is given.",
	  cmd_run, "stbEOxh", 2, INT32_MAX, NULL },
	{ "allocate", "", "allocate a lock, and print its number",
	  NULL, cmd_allocate, "sIh", 0, 0, NULL },
	{ "free", "ID", "free the number of a lock; who holds it, or waits, goes on",
	  NULL, cmd_free, "sh", 1, 1, NULL },
	{ "free-all", "", "free all numbers of a space",
	  "Asks first, if stdin is a terminal.",
	  cmd_free_all, "syh", 0, 0, NULL },
	{ "create", "", "make a space",
	  NULL, cmd_create, "sCmMh", 0, 0, NULL },
	{ "remove", "", "remove a space",
	  "Asks first, if stdin is a terminal, and locks are allocated or --force is given.",
	  cmd_remove, "sfyh", 0, 0, NULL },
	{ "resize", "CAPACITY", "change how many locks a space has",
	  NULL, cmd_resize, "sh", 1, 1, NULL },
	{ "break", "ID", "take a lock away from its holder, as if that had died",
	  "Shows the holder, and asks first, if stdin is a terminal; only the holder that was\n"
	  "shown loses the lock.",
	  cmd_break, "syh", 1, 1, NULL },
	{ "help", "[COMMAND]", "this help, or that of a command",
	  NULL, cmd_help, "h", 0, 1, NULL },
};

#define NR_COMMANDS	(sizeof(commands) / sizeof(*commands))

static const struct command *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

/*
 * Help
 */

static void help_option(const struct option_info *option)
{
	char text[64];

	snprintf(text, sizeof(text), "%c%c%s --%s%s%s", option->letter ? '-' : ' ',
		 option->letter ? option->letter : ' ', option->letter ? "," : " ", option->name,
		 option->arg ? " " : "", option->arg ? option->arg : "");
	printf(" %-28s %s\n", text, option->what);
}

static void help_options(const char *takes)
{
	size_t i;

	puts("\nOptions:");
	for (i = 0; i < NR_OPTIONS; i++)
		if (strchr(takes, options[i].key))
			help_option(&options[i]);
	if (strpbrk(takes, "Ldt"))
		puts("\nA TIME is a number with ms, s, m, h or d after it; without, of seconds.");
}

static void help_columns(const struct column *columns)
{
	size_t i;

	puts("\nColumns (* in a table by default), and their names in JSON:");
	for (i = 0; columns[i].name; i++)
		printf(" %c %-14s %-16s %s\n", columns[i].by_default ? '*' : ' ', columns[i].name,
		       columns[i].json, columns[i].what);
}

static int print_help(const struct command *command)
{
	size_t i;

	if (command) {
		printf("\nUsage:\n klockctl %s [options]%s%s\n\n%s.\n", command->name,
		       *command->args ? " " : "", command->args, command->what);
		if (command->more)
			printf("\n%s\n", command->more);
		help_options(command->takes);
		if (command->columns)
			help_columns(command->columns);
		return EXIT_SUCCESS;
	}
	puts("\nUsage:\n klockctl [options] COMMAND [options] [arguments]\n\n"
	     "Shows and changes the locks of klock.\n\nCommands:");
	for (i = 0; i < NR_COMMANDS; i++)
		printf(" %-10s %-30s %s\n", commands[i].name, commands[i].args, commands[i].what);
	help_options(COMMON);
	puts("\nklockctl COMMAND --help tells the options and columns of a command.\n"
	     "Exits with 0, or 1 if something failed; run: see there.");
	return EXIT_SUCCESS;
}

/* What getopt_long() or the caller has said is wrong. */
static void usage_failed(const struct command *command)
{
	fprintf(stderr, "Try 'klockctl %s%s--help' for more information.\n",
		command ? command->name : "", command ? " " : "");
	exit(command && command->fn == cmd_run ? EX_USAGE : EXIT_FAILURE);
}

static int cmd_help(int argc, char **argv)
{
	const struct command *command = argc ? find_command(argv[0]) : NULL;

	if (argc && !command) {
		complain("%s: no such command", argv[0]);
		usage_failed(NULL);
	}
	return print_help(command);
}

/*
 * Options
 */

static bool parse_word(const char *text, const char *no, const char *yes, bool *value)
{
	*value = !strcmp(text, yes);
	return *value || !strcmp(text, no);
}

static bool parse_mode(const char *text)
{
	char *end;
	unsigned long mode = strtoul(text, &end, 8);

	opt.attr.mode = mode;
	return *text >= '0' && *text <= '7' && !*end && mode && !(mode & ~0666UL);
}

static bool parse_conflict_status(const char *text)
{
	uint32_t n;
	bool good = parse_number(text, 255, &n);

	if (good)
		opt.conflict_status = n;
	return good;
}

/* Those that take a value: whether it is a good one. */
static bool set_value(char key, const char *value)
{
	switch (key) {
	case 's':
		opt.space = value;
		return true;
	case 'o':
		opt.columns = value;
		return true;
	case 'L':
		return parse_duration(value, &opt.at_least);
	case 'S':
		return parse_word(value, "waiting", "rate", &opt.by_rate);
	case 'd':
		return parse_duration(value, &opt.delay) && opt.delay;
	case 'i':
		return parse_number(value, UINT32_MAX, &opt.iterations) && opt.iterations;
	case 'c':
		return parse_number(value, UINT32_MAX, &opt.count) && opt.count;
	case 't':
		opt.has_timeout = true;
		return parse_duration(value, &opt.timeout);
	case 'E':
		return parse_conflict_status(value);
	case 'O':
		return parse_word(value, "run", "fail", &opt.fail_if_died);
	case 'I':
		opt.has_id = true;
		return parse_number(value, UINT32_MAX, &opt.id);
	case 'C':
		return parse_number(value, UINT32_MAX, &opt.attr.capacity) && opt.attr.capacity;
	case 'm':
		return parse_mode(value);
	}
	return false;
}

static void set_flag(char key)
{
	opt.json |= key == 'J';
	opt.noheadings |= key == 'n';
	opt.raw |= key == 'r';
	opt.held |= key == 'H';
	opt.waiting |= key == 'W';
	opt.all |= key == 'a';
	opt.dot |= key == 'D';
	opt.nonblock |= key == 'b';
	opt.close |= key == 'x';
	opt.force |= key == 'f';
	opt.yes |= key == 'y';
	if (key == 'M')
		opt.attr.flags |= KLOCK_MAPPABLE;
}

static char given[NR_OPTIONS + 1];	/* keys */

static void set_option(const struct option_info *option, const struct command *command,
		       const char *value)
{
	if (option->key == 'h')
		exit(print_help(command));
	if (option->key == 'V') {
		printf("klockctl of klock %s\n", klock_version());
		exit(EXIT_SUCCESS);
	}
	if (!strchr(given, option->key))
		given[strlen(given)] = option->key;
	if (!option->arg) {
		set_flag(option->key);
	} else if (!set_value(option->key, value)) {
		complain("%s: not a value of --%s %s", value, option->name, option->arg);
		usage_failed(command);
	}
}

/* For getopt_long(); @letters has room for all. */
static void describe_options(const char *takes, struct option *longs, char *letters)
{
	size_t i;

	*letters++ = '+';
	for (i = 0; i < NR_OPTIONS; i++) {
		if (!strchr(takes, options[i].key))
			continue;
		*longs++ = (struct option) {
			.name = options[i].name,
			.has_arg = options[i].arg ? required_argument : no_argument,
			.val = 256 + i,
		};
		if (options[i].letter)
			*letters++ = options[i].letter;
		if (options[i].letter && options[i].arg)
			*letters++ = ':';
	}
	*letters = '\0';
	*longs = (struct option) { 0 };
}

static const struct option_info *find_letter(const char *takes, int letter)
{
	size_t i;

	for (i = 0; i < NR_OPTIONS; i++)
		if (options[i].letter == letter && strchr(takes, options[i].key))
			return &options[i];
	return NULL;
}

/*
 * @command: NULL: those before it.  @stop: at the first argument that is no option; else
 * they are all moved to the end.  Returns where the arguments begin.
 */
static int parse_options(int argc, char **argv, const struct command *command, bool stop)
{
	const char *takes = command ? command->takes : COMMON;
	struct option longs[NR_OPTIONS + 1];
	char letters[2 * NR_OPTIONS + 2];
	int found;

	describe_options(takes, longs, letters);
	optind = 0;	/* start anew */
	while ((found = getopt_long(argc, argv, letters + !stop, longs, NULL)) != -1) {
		if (found == '?')
			usage_failed(command);
		set_option(found >= 256 ? &options[found - 256] : find_letter(takes, found),
			   command, optarg);
	}
	return optind;
}

/*
 * Options of a command may stand anywhere; those of run before its own command, beside the
 * lock.  Returns where the arguments begin.
 */
static int parse_arguments(int argc, char **argv, const struct command *command)
{
	bool runs = command->fn == cmd_run;
	int at = parse_options(argc, argv, command, runs);
	char *lock = argv[at];

	if (!runs || at == argc)
		return at;
	argv[at] = argv[0];
	at += parse_options(argc - at, argv + at, command, runs) - 1;
	argv[at] = lock;
	return at;
}

static const struct option_info *find_option(char key)
{
	size_t i = 0;

	while (options[i].key != key)
		i++;
	return &options[i];
}

/* Those that stood before the command, too. */
static void check_options(const struct command *command)
{
	static const char exclusive[][3] = { "sa", "JD", "oD", "nD", "rD" };
	size_t i;

	for (i = 0; i < sizeof(exclusive) / sizeof(*exclusive); i++) {
		const char *keys = exclusive[i];

		if (!strchr(given, keys[0]) || !strchr(given, keys[1]))
			continue;
		complain("--%s and --%s exclude each other", find_option(keys[0])->name,
			 find_option(keys[1])->name);
		usage_failed(command);
	}
	for (i = 0; i < NR_OPTIONS; i++) {
		if (!strchr(given, options[i].key) || strchr(command->takes, options[i].key))
			continue;
		complain("--%s is not for %s", options[i].name, command->name);
		usage_failed(command);
	}
}

static int run_command(const struct command *command, int argc, char **argv)
{
	int at, n;

	argv[0] = "klockctl";		/* for what getopt_long() has to say */
	at = parse_arguments(argc, argv, command);
	n = argc - at;
	check_options(command);
	if (n < command->min || n > command->max) {
		complain("%s takes %s", command->name,
			 *command->args ? command->args : "no arguments");
		usage_failed(command);
	}
	return command->fn(n, argv + at);
}

/* What was to be read and is not there is an error, of the help, too. */
static void close_stdout(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return;
	complain("cannot write: %s", strerror(errno));
	_exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
	const struct command *command;
	int at;

	atexit(close_stdout);
	at = parse_options(argc, argv, NULL, true);
	if (at == argc) {
		complain("which command?");
		usage_failed(NULL);
	}
	command = find_command(argv[at]);
	if (!command) {
		complain("%s: no such command", argv[at]);
		usage_failed(NULL);
	}
	return run_command(command, argc - at, argv + at);
}
