// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * watch: the tracepoints of the module as they come, by an instance in tracefs that is
 * this process's own, so that other tracing goes on undisturbed.
 *
 * A line of the trace is
 *
 *	NAME-PID [CPU] FLAGS TIME: EVENT: space=UID/NAME id=N token=N...
 *
 * and NAME is whatever a process calls itself, so it is read from its end: what the event
 * says is of the module, and has no blanks but between its fields.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "klockctl.h"

struct event {
	const char *command;
	char *pid, *time, *name, *fields;
};

/*
 * The instance
 */

static char instance[64];
static char switch_of_events[96];	/* a file of it */
static int trace = -1;			/* another, which it cannot be removed without closing */

static const char *find_tracefs(void)
{
	static const char * const places[] = {
		"/sys/kernel/tracing", "/sys/kernel/debug/tracing",
	};
	char path[64];
	size_t i;

	for (i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(path, sizeof(path), "%s/instances", places[i]);
		if (!access(path, F_OK))
			return places[i];
	}
	return NULL;
}

static int open_in_instance(const char *name, int flags)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", instance, name);
	return open(path, flags | O_CLOEXEC);
}

/*
 * It holds the module while the events are on, so they are off before it goes.  Also called
 * by a handler of signals, so it calls nothing that is not safe there.
 */
static bool remove_instance(void)
{
	int fd = open(switch_of_events, O_WRONLY | O_CLOEXEC);
	bool off = fd < 0 || write(fd, "0", 1) == 1;

	if (fd >= 0)
		close(fd);
	if (trace >= 0)
		close(trace);
	return !rmdir(instance) && off;
}

static void complain_of_instance(void)
{
	complain("%s: cannot remove it: %s", instance, strerror(errno));
}

/*
 * The end, at once: events may come faster than they are printed, and who reads them may not
 * read on, for ever.  What was not printed, as a line that was being made up, is not missed.
 */
static void end(int sig)
{
	(void)sig;
	_exit(remove_instance() ? EXIT_SUCCESS : EXIT_FAILURE);
}

/*
 * The lines of an instance are as those of the top one, which others set as they like.  What
 * a kernel does not know is not set there.
 */
static void set_options(void)
{
	static const char * const options[] = {
		"context-info", "irq-info", "norecord-tgid", "nohex", "noraw", "nobin",
		"noverbose", "nolatency-format", "nofields",
	};
	int fd = open_in_instance("trace_options", O_WRONLY);
	size_t i;

	for (i = 0; i < sizeof(options) / sizeof(*options) && fd >= 0; i++)
		if (write(fd, options[i], strlen(options[i])) < 0 && errno != EINVAL)
			failed(options[i], -errno);
	if (fd >= 0)
		close(fd);
}

static int enable_events(void)
{
	int fd = open(switch_of_events, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0) {
		complain("the kernel has no events of klock: modprobe klock");
		return -ENODEV;
	}
	if (write(fd, "1", 1) != 1) {
		ret = -errno;
		failed("events/klock/enable", ret);
	}
	close(fd);
	return ret;
}

/* The number may be that of one who left its own, when it was killed. */
static int make_directory(const char *tracefs)
{
	int n = snprintf(instance, sizeof(instance), "%s/instances/klockctl-%d", tracefs, getpid());
	int ret = mkdir(instance, 0700), i;

	for (i = 1; ret && errno == EEXIST && i < 1000; i++) {
		snprintf(instance + n, sizeof(instance) - n, "-%d", i);
		ret = mkdir(instance, 0700);
	}
	return ret ? -errno : 0;
}

static int make_instance(void)
{
	const char *tracefs = find_tracefs();
	int ret;

	if (geteuid()) {
		complain("only root may read the tracepoints of the kernel");
		return -EACCES;
	}
	if (!tracefs) {
		complain("tracefs is not mounted: mount -t tracefs trace /sys/kernel/tracing");
		return -ENOENT;
	}
	ret = make_directory(tracefs);
	if (ret) {
		failed(instance, ret);
		return ret;
	}
	snprintf(switch_of_events, sizeof(switch_of_events), "%s/events/klock/enable", instance);
	set_options();
	ret = enable_events();
	if (ret && !remove_instance())
		complain_of_instance();
	return ret;
}

/*
 * Lines
 */

/* Cuts off the last word of a text; NULL: there is none. */
static char *cut_word(char *text)
{
	char *end = text + strlen(text);

	while (end > text && end[-1] == ' ')
		*--end = '\0';
	while (end > text && end[-1] != ' ')
		end--;
	if (end > text)
		end[-1] = '\0';
	return *end && end > text ? end : NULL;
}

/* Without the colon that ends it. */
static char *cut_word_with_colon(char *text)
{
	char *word = cut_word(text);
	size_t n = word ? strlen(word) : 0;

	if (!n || word[n - 1] != ':')
		return NULL;
	word[n - 1] = '\0';
	return word;
}

/* "NAME-PID" */
static bool parse_task(char *task, struct event *event)
{
	char *p;

	while (*task && task[strlen(task) - 1] == ' ')
		task[strlen(task) - 1] = '\0';
	event->pid = strrchr(task, '-');
	if (!event->pid)
		return false;
	*event->pid++ = '\0';
	for (p = task; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			*p = '?';
	event->command = task + strspn(task, " ");
	return *event->pid && !event->pid[strspn(event->pid, "0123456789")];
}

/* Takes a line to pieces; false: it is not one of an event. */
static bool parse_line(char *line, struct event *event)
{
	char *fields = NULL, *p;

	for (p = line; (p = strstr(p, ": space=")); p++)
		fields = p;
	if (!fields)
		return false;
	fields[1] = '\0';
	event->fields = fields + 2;
	event->name = cut_word_with_colon(line);
	if (!event->name)
		return false;
	event->time = cut_word_with_colon(line);
	if (!event->time || !cut_word(line) || !cut_word(line))		/* FLAGS, [CPU] */
		return false;
	return parse_task(line, event);
}

/* The value of a field, of any type; NULL: there is none. */
static const char *field(const struct event *event, const char *name)
{
	static char value[SPACE_SIZE];
	const char *p = event->fields;
	size_t n = strlen(name);

	for (; p; p = strchr(p, ' ')) {
		p += *p == ' ';
		if (strncmp(p, name, n) || p[n] != '=')
			continue;
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(p + n + 1, "\n "), p + n + 1);
		return value;
	}
	return NULL;
}

struct filter {
	char space[SPACE_SIZE];		/* empty: any */
	char id[16];
};

static bool is_wanted(const struct event *event, const struct filter *filter)
{
	const char *value;

	if (*filter->space) {
		value = field(event, "space");
		if (!value || strcmp(value, filter->space))
			return false;
	}
	if (*filter->id) {
		value = field(event, "id");
		if (!value || strcmp(value, filter->id))
			return false;
	}
	return true;
}

/* Each field "NAME=VALUE"; in JSON all but the space are numbers. */
static void print_fields(const struct event *event)
{
	char *save = NULL, *word = strtok_r(event->fields, "\n ", &save), *value;

	for (; word; word = strtok_r(NULL, "\n ", &save)) {
		value = strchr(word, '=');
		if (!value)
			continue;
		if (!opt.json) {
			printf(" %s", word);
			continue;
		}
		*value++ = '\0';
		fputs(",", stdout);
		print_json_string(word);
		putchar(':');
		if (*value && !value[strspn(value, "0123456789")])
			fputs(value, stdout);
		else
			print_json_string(value);
	}
}

/*
 * The kernel learns a name when its process next leaves the processor, which may be later
 * than the event is read here.
 */
static void find_command(struct event *event)
{
	const char *name;

	if (strcmp(event->command, "<...>"))
		return;
	forget_commands();		/* of processes whose numbers others may have now */
	name = command_of(strtoul(event->pid, NULL, 10));
	if (name)
		event->command = name;
}

/* "SECONDS.MICROSECONDS" */
static uint64_t ns_of(const char *time)
{
	char *end;
	uint64_t seconds = strtoull(time, &end, 10);

	return seconds * NSEC_PER_SEC + (*end ? strtoull(end + 1, NULL, 10) * 1000 : 0);
}

static void print_event(const struct event *event)
{
	if (opt.json) {
		printf("{\"time_ns\":%" PRIu64 ",\"event\":", ns_of(event->time));
		print_json_string(event->name);
		printf(",\"tid\":%s,\"command\":", event->pid);
		print_json_string(event->command);
		print_fields(event);
		puts("}");
	} else {
		printf("%s %-10s %7s %-15s", event->time, event->name, event->pid, event->command);
		print_fields(event);
		putchar('\n');
	}
	fflush(stdout);
}

/* "CPU:0 [LOST 12 EVENTS]" */
static void tell_lost(const char *line)
{
	const char *lost = strstr(line, "[LOST ");

	if (lost && !strncmp(line, "CPU:", 4))
		complain("%lu events came too fast and are lost", strtoul(lost + 6, NULL, 10));
}

/* Whether that was the last one. */
static bool take_line(char *line, const struct filter *filter)
{
	static uint32_t count;
	struct event event;

	if (!parse_line(line, &event)) {
		tell_lost(line);
		return false;
	}
	if (!is_wanted(&event, filter))
		return false;
	find_command(&event);
	print_event(&event);
	return ferror(stdout) || ++count == opt.count;
}

static int read_events(const struct filter *filter)
{
	struct pollfd pfds[] = {
		{ .fd = trace, .events = POLLIN },
		{ .fd = STDOUT_FILENO },	/* whether somebody reads it still */
	};
	char line[4096];
	FILE *file = trace < 0 ? NULL : fdopen(trace, "r");
	bool last = false;

	if (!file) {
		complain("%s/trace_pipe: %s", instance, strerror(errno));
		return EXIT_FAILURE;
	}
	while (!last) {
		poll(pfds, 2, -1);
		last = pfds[1].revents;
		while (!last && fgets(line, sizeof(line), file))
			last = take_line(line, filter);
		clearerr(file);
	}
	return EXIT_SUCCESS;
}

static bool make_filter(struct filter *filter, const char *id)
{
	struct klock_space_info info;
	struct klock_space *space = NULL;
	uint32_t n;
	int ret = 0;

	*filter = (struct filter) { .id = "" };
	if (id && !parse_id(id, &n))
		return false;
	if (id)
		snprintf(filter->id, sizeof(filter->id), "%" PRIu32, n);
	if (opt.space) {
		ret = look_at_space(&space, &info);
		if (!ret)
			space_text(&info, filter->space);
		klock_space_close(space);
	}
	return !ret;
}

/*
 * They end it while it reads; not while there is half an instance.  What is ignored stays so,
 * as by nohup(1).
 */
static void catch_signals(sigset_t *signals)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };
	struct sigaction action = { .sa_handler = end }, before;
	size_t i;

	sigemptyset(signals);
	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		sigaddset(signals, numbers[i]);
	sigprocmask(SIG_BLOCK, signals, NULL);
	action.sa_mask = *signals;
	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		if (!sigaction(numbers[i], NULL, &before) && before.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
}

int cmd_watch(int argc, char **argv)
{
	struct filter filter;
	sigset_t signals;
	int status;

	if (!make_filter(&filter, argc ? argv[0] : NULL))
		return EXIT_FAILURE;
	catch_signals(&signals);
	if (make_instance())
		return EXIT_FAILURE;
	trace = open_in_instance("trace_pipe", O_RDONLY | O_NONBLOCK);
	sigprocmask(SIG_UNBLOCK, &signals, NULL);
	status = read_events(&filter);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (!remove_instance())
		complain_of_instance();
	return status;
}
