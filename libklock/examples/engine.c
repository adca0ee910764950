// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a container engine has to do with locks: a container is a row of an SQLite database
 * and has a lock, whose id is in the row.  Each command is a process of its own; many run
 * at once, and each may be killed at any instruction.
 *
 * What is true.  The database says which containers there are, and which lock is whose.
 * The space says which ids are taken.  What joins the two is the generation of the space,
 * which the database keeps: ids are those of the space with this generation, and of no
 * other.  It is another one after a reboot, after the module was loaded anew, and after
 * somebody removed the space; then one process allocates an id for each container
 * again, see renumber().  There is no file in a run directory that tells whether this is
 * still the same boot: it may be lost while locks are held, or stay when they are
 * gone.  A space is for one database.
 *
 * Lock order.  The lock of a container first, the database's write lock (BEGIN IMMEDIATE)
 * last.  A lock is held for as long as a container takes to start, and nobody else's
 * command is to wait for that; and who has a lock needs the database to go on, so who
 * waited for a lock with the database in hand would wait for ever.  In a transaction
 * klock is only called for what does not wait: allocate, free, list, resize.
 *
 * The fence.  A transaction begins with a look at the generation, see begin().  So who holds
 * a lock of a space that was removed under him changes nothing any more, once the ids have
 * been allocated again; his command begins anew, in the new space.
 *
 * Dying.  What takes two transactions is "starting" or "stopping" between them.  Only who
 * has the lock makes such a state and ends it; so who then gets the lock and is told that
 * the last holder died (KLOCK_OWNER_DIED) knows that nobody is at it any more, and mends
 * it.  Who cannot finish what he began keeps the lock until his end, so that
 * this is told of him, too: see give().
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <klock.h>
#include <sqlite3.h>

/* What functions return: 0, REFUSED after a word why, or a negative errno. */
#define REFUSED		1

/* How long others may have the database in turn; each has it for some milliseconds. */
#define PATIENCE_MS	120000

struct engine {
	const char *path;		/* of the database */
	const char *space_name;
	sqlite3 *db;
	struct klock_space *space;
	uint64_t generation;		/* of @space */
};

struct container {
	const char *name;
	uint32_t id;		/* of its lock */
	char state[16];		/* stopped, starting, running, stopping */
};

static int refuse(const struct container *c, const char *why)
{
	fprintf(stderr, "engine: %s %s\n", c->name, why);
	return REFUSED;
}

/*
 * The database
 */

static int db_error(struct engine *e)
{
	fprintf(stderr, "engine: %s: %s\n", e->path, sqlite3_errmsg(e->db));
	return -EIO;
}

static int bind_number(sqlite3_stmt *stmt, const char *name, int64_t value)
{
	int i = sqlite3_bind_parameter_index(stmt, name);

	return i ? sqlite3_bind_int64(stmt, i, value) : SQLITE_OK;
}

static int bind_text(sqlite3_stmt *stmt, const char *name, const char *value)
{
	int i = sqlite3_bind_parameter_index(stmt, name);

	return i ? sqlite3_bind_text(stmt, i, value, -1, SQLITE_STATIC) : SQLITE_OK;
}

/* A statement and its parameters, those that it has; @c may be NULL if none is of it. */
static int prepare(struct engine *e, const char *sql, const struct container *c,
		   sqlite3_stmt **stmt)
{
	int ret = sqlite3_prepare_v2(e->db, sql, -1, stmt, NULL);

	if (!ret)
		ret = bind_number(*stmt, ":generation", e->generation);
	if (!ret && c)
		ret = bind_text(*stmt, ":name", c->name);
	if (!ret && c)
		ret = bind_number(*stmt, ":id", c->id);
	if (!ret && c)
		ret = bind_text(*stmt, ":state", c->state);
	if (!ret)
		return 0;
	ret = db_error(e);
	sqlite3_finalize(*stmt);
	return ret;
}

/* Runs a statement.  Of one that counts it returns the number, of others 0. */
static int run(struct engine *e, const char *sql, const struct container *c)
{
	sqlite3_stmt *stmt;
	int ret = prepare(e, sql, c, &stmt);

	if (ret)
		return ret;
	ret = sqlite3_step(stmt);
	if (ret == SQLITE_ROW)
		ret = sqlite3_column_int(stmt, 0);
	else
		ret = ret == SQLITE_DONE ? 0 : db_error(e);
	sqlite3_finalize(stmt);
	return ret;
}

static int open_database(struct engine *e)
{
	int ret;

	if (sqlite3_open(e->path, &e->db) || sqlite3_busy_timeout(e->db, PATIENCE_MS))
		return db_error(e);
	ret = run(e, "CREATE TABLE IF NOT EXISTS space (generation INTEGER NOT NULL)", NULL);
	if (ret)
		return ret;
	return run(e,
		   "CREATE TABLE IF NOT EXISTS container (name TEXT PRIMARY KEY, lock INTEGER UNIQUE, state TEXT NOT NULL)",
		   NULL);
}

/* Whether the ids in the database are those of our space: 1 or 0. */
static int is_current(struct engine *e)
{
	return run(e, "SELECT count(*) FROM space WHERE generation = :generation", NULL);
}

/* Ends a transaction: all of it has happened if @ret is 0, or else nothing. */
static int end(struct engine *e, int ret)
{
	if (!ret)
		ret = run(e, "COMMIT", NULL);
	if (ret && !sqlite3_get_autocommit(e->db))
		run(e, "ROLLBACK", NULL);
	return ret;
}

/* Begins a transaction that writes; there is one at a time.  -ESTALE: see "The fence". */
static int begin(struct engine *e)
{
	int ret = run(e, "BEGIN IMMEDIATE", NULL);

	if (ret)
		return ret;
	ret = is_current(e);
	if (ret == 1)
		return 0;
	return end(e, ret ? ret : -ESTALE);
}

/* Fills in the id and the state; a statement sees the generation and the row of one moment. */
static int find(struct engine *e, struct container *c)
{
	sqlite3_stmt *stmt;
	int ret = prepare(e,
			  "SELECT generation = :generation, lock, state FROM space, container WHERE name = :name",
			  c, &stmt);

	if (ret)
		return ret;
	ret = sqlite3_step(stmt);
	if (ret == SQLITE_DONE) {
		ret = refuse(c, "is no container");
	} else if (ret != SQLITE_ROW) {
		ret = db_error(e);
	} else if (!sqlite3_column_int(stmt, 0)) {
		ret = -ESTALE;
	} else {
		c->id = sqlite3_column_int64(stmt, 1);
		snprintf(c->state, sizeof(c->state), "%s",
			 (const char *)sqlite3_column_text(stmt, 2));
		ret = 0;
	}
	sqlite3_finalize(stmt);
	return ret;
}

/*
 * Ids
 *
 * They are allocated and freed by who has the database's write lock, and by nobody else.
 * So between the two steps, an id and its row, there is never more than one process.  If
 * that is killed there, the row is rolled back and the id stays allocated.  That is why the
 * steps are in this order: an id that is nobody's harms nobody, and `prune` frees it.  The
 * other way round there would be a container with an id that another can get.
 */

/*
 * Allocates an id.  A table that is full is made twice as large; -EBUSY: somebody has made
 * it larger than that meanwhile.
 */
static int allocate(struct engine *e, struct container *c)
{
	struct klock_space_info info;
	struct klock *lock;
	int ret;

	while ((ret = klock_allocate(e->space, &lock)) == -ENOSPC) {
		ret = klock_space_info(e->space, &info);
		if (!ret)
			ret = klock_space_resize(e->space, 2 * info.capacity);
		if (ret && ret != -EBUSY)
			return ret == -EINVAL ? -ENOSPC : ret;	/* it cannot be larger */
	}
	if (ret)
		return ret;
	c->id = klock_id(lock);
	klock_put(lock);
	return 0;
}

/*
 * Frees an id, unless a container has it: whoever was about to free it may have been
 * overtaken by a `prune`, and then by a `create` that got it.
 */
static int free_unused(struct engine *e, uint32_t id)
{
	struct container c = { .id = id };
	struct klock *lock;
	int ret = run(e, "SELECT count(*) FROM container WHERE lock = :id", &c);

	if (ret)
		return ret < 0 ? ret : 0;
	ret = klock_retrieve(e->space, id, 0, &lock);
	if (ret)
		return ret;
	ret = klock_free(lock);
	klock_put(lock);
	return ret == -ENOENT ? 0 : ret;	/* it has been freed already */
}

/* One for each container that has none. */
static int allocate_all(struct engine *e)
{
	struct container c = { .name = NULL };
	int ret = 0, n = run(e, "SELECT count(*) FROM container WHERE lock IS NULL", NULL);

	for (; !ret && n > 0; n--) {
		ret = allocate(e, &c);
		if (!ret)
			ret = run(e,
				  "UPDATE container SET lock = :id WHERE rowid = (SELECT rowid FROM container WHERE lock IS NULL LIMIT 1)",
				  &c);
	}
	return n < 0 ? n : ret;
}

/* A database that is new has no lock, so whose are those that there are? */
static int check_owner(struct engine *e)
{
	struct klock_space_info info;
	int ret = run(e, "SELECT count(*) FROM space", NULL);

	if (ret)
		return ret < 0 ? ret : 0;
	ret = klock_space_info(e->space, &info);
	if (ret || !info.allocated)
		return ret;
	fprintf(stderr, "engine: space %s has locks that are not of %s\n", e->space_name, e->path);
	return REFUSED;
}

/*
 * The ids in the database are those of a space that is no more: allocates them again.
 * Others wait for that, as they do for any transaction.  Who is killed here has
 * changed nothing but the ids that are taken, and none of them is anybody's before the
 * commit; so the next one frees them all and begins anew.
 *
 * With the space it was forgotten whose holders died.  So all that is half done is mended:
 * who was at it is dead, or comes to the fence.  What is "running" may well be: that is not
 * for locks to say.
 */
static int renumber(struct engine *e)
{
	int ret = run(e, "BEGIN IMMEDIATE", NULL);

	if (ret)
		return ret;
	ret = is_current(e);
	if (ret)	/* another was faster */
		return end(e, ret < 0 ? ret : 0);
	ret = check_owner(e);
	if (!ret)
		ret = klock_free_all(e->space);		/* -ESTALE: it is ours that is no more */
	if (!ret)
		ret = run(e,
			  "UPDATE container SET lock = NULL, state = CASE state WHEN 'running' THEN state ELSE 'stopped' END",
			  NULL);
	if (!ret)
		ret = allocate_all(e);
	if (!ret)
		ret = run(e,
			  "REPLACE INTO space (rowid, generation) VALUES (1, :generation)", NULL);
	return end(e, ret);
}

static int attach(struct engine *e)
{
	struct klock_space_info info;
	int ret = klock_space_open(e->space_name, KLOCK_CREATE, NULL, &e->space);

	if (ret)
		return ret;
	ret = klock_space_info(e->space, &info);
	if (ret)
		return ret;
	e->generation = info.generation;
	ret = is_current(e);
	if (ret)
		return ret < 0 ? ret : 0;
	return renumber(e);
}

/*
 * The lock of a container
 */

/*
 * The last holder of a lock died.  What he left is mended in the row that has this id,
 * whichever that is: the container that we asked for may be gone, and another may have its
 * id; and that its holder died is said only once.
 */
static int mend(struct engine *e, const struct container *c)
{
	int ret = begin(e);

	if (ret)
		return ret;
	return end(e, run(e,
			  "UPDATE container SET state = 'stopped' WHERE lock = :id AND state IN ('starting', 'stopping')",
			  c));
}

/*
 * Drops a lock.  It is released if what was done under it has come to an end.  If it has not,
 * the lock stays held until the space is closed, and the next one is told that we died.
 */
static int give(struct klock *lock, int ret)
{
	int failed = ret < 0 ? 0 : klock_unlock(lock);

	klock_put(lock);
	return failed ? failed : ret;
}

static int take_id(struct engine *e, const struct container *c, struct klock **lock)
{
	int ret = klock_retrieve(e->space, c->id, 0, lock);

	if (ret)
		return ret;
	ret = klock_lock(*lock);
	if (ret == KLOCK_OWNER_DIED)
		ret = mend(e, c);
	if (ret)
		klock_put(*lock);
	return ret;
}

/*
 * Takes the lock of a container, and finds out its state.  While we waited the container
 * may have been removed, and another of its name been made, with another lock.
 */
static int take(struct engine *e, struct container *c, struct klock **lock)
{
	uint32_t id;
	int ret;

	for (;;) {
		ret = find(e, c);
		if (ret)
			return ret;
		id = c->id;
		ret = take_id(e, c, lock);
		if (ret)
			return ret;
		ret = find(e, c);
		if (!ret && c->id == id)
			return 0;
		ret = give(*lock, ret);
		if (ret)
			return ret;
	}
}

static int set_state(struct engine *e, struct container *c, const char *state)
{
	int ret = begin(e);

	if (ret)
		return ret;
	snprintf(c->state, sizeof(c->state), "%s", state);
	return end(e, run(e, "UPDATE container SET state = :state WHERE name = :name", c));
}

/*
 * Brings a container from one state to another.  Between the two it is @by, for as long as it
 * takes; what it takes is @hook, a command for the shell, if there is one.  (The lock's
 * descriptor is close-on-exec: a hook that outlives us keeps no lock.)
 */
static int change(struct engine *e, struct container *c, const char *hook, const char *from,
		  const char *by, const char *to)
{
	struct klock *lock;
	bool failed;
	int ret = take(e, c, &lock);

	if (ret)
		return ret;
	if (!strcmp(c->state, to))	/* so that a command can be given again */
		return give(lock, 0);
	if (strcmp(c->state, from))	/* cannot be; and the next one mends it */
		return give(lock, -EUCLEAN);
	ret = set_state(e, c, by);
	if (ret)
		return give(lock, ret);
	failed = hook && system(hook);
	ret = set_state(e, c, failed ? from : to);
	if (!ret && failed)
		ret = refuse(c, "has a hook that failed");
	return give(lock, ret);
}

/*
 * The commands
 */

static int create(struct engine *e, struct container *c, const char *unused)
{
	int ret = begin(e);

	(void)unused;
	if (ret)
		return ret;
	ret = run(e, "SELECT count(*) FROM container WHERE name = :name", c);
	if (ret)
		return end(e, ret < 0 ? ret : refuse(c, "is there already"));
	ret = allocate(e, c);
	if (!ret)
		ret = run(e, "INSERT INTO container VALUES (:name, :id, 'stopped')", c);
	return end(e, ret);	/* an id that comes to no row is left to `prune` */
}

static int start(struct engine *e, struct container *c, const char *hook)
{
	return change(e, c, hook, "stopped", "starting", "running");
}

static int stop(struct engine *e, struct container *c, const char *hook)
{
	return change(e, c, hook, "running", "stopping", "stopped");
}

/*
 * The row first, then the id: see "Ids".  These are two transactions, for an id that is freed
 * would not be taken again by a rollback.
 */
static int rm(struct engine *e, struct container *c, const char *unused)
{
	struct klock *lock;
	int ret = take(e, c, &lock);

	(void)unused;
	if (ret)
		return ret;
	if (strcmp(c->state, "stopped"))
		return give(lock, refuse(c, "is not stopped"));
	ret = begin(e);
	if (!ret)
		ret = end(e, run(e, "DELETE FROM container WHERE name = :name", c));
	ret = give(lock, ret);
	if (ret)
		return ret;
	ret = begin(e);
	if (!ret)
		ret = end(e, free_unused(e, c->id));
	return ret == -ESTALE ? 0 : ret;	/* the id is gone with its space */
}

static void print(FILE *out, const struct container *c, const struct klock_status *status)
{
	fprintf(out, "%-20s %7u %-9s", c->name, c->id, c->state);
	if (status->flags & KLOCK_HELD)
		fprintf(out, " pid %u is at it", status->pid);
	fputs(status->flags & KLOCK_DIED ? " who was at it died\n" : "\n", out);
}

static int print_row(struct engine *e, sqlite3_stmt *stmt, FILE *out)
{
	struct container c = {
		.name = (const char *)sqlite3_column_text(stmt, 1),
		.id = sqlite3_column_int64(stmt, 2),
	};
	struct klock_status status;
	struct klock *lock;
	int ret;

	if (!sqlite3_column_int(stmt, 0))
		return -ESTALE;
	snprintf(c.state, sizeof(c.state), "%s", (const char *)sqlite3_column_text(stmt, 3));
	ret = klock_retrieve(e->space, c.id, 0, &lock);
	if (ret)
		return ret;
	ret = klock_status(lock, &status);
	klock_put(lock);
	if (!ret)
		print(out, &c, &status);
	return ret;
}

/* Takes no lock.  Nothing is printed while the database is read: that keeps writers waiting. */
static int ps(struct engine *e, struct container *c, const char *unused)
{
	sqlite3_stmt *stmt;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int step = SQLITE_DONE, ret = out ? 0 : -errno;

	(void)c;
	(void)unused;
	if (ret)
		return ret;
	ret = prepare(e,
		      "SELECT generation = :generation, name, lock, state FROM space, container ORDER BY name",
		      NULL, &stmt);
	if (!ret) {
		while (!ret && (step = sqlite3_step(stmt)) == SQLITE_ROW)
			ret = print_row(e, stmt, out);
		if (!ret && step != SQLITE_DONE)
			ret = db_error(e);
		sqlite3_finalize(stmt);
	}
	if (fclose(out) && !ret)
		ret = -ENOMEM;
	if (!ret && (fputs(text, stdout) == EOF || fflush(stdout)))
		ret = -errno;
	free(text);
	return ret;
}

/*
 * Frees the ids that no container has: who allocated them was killed before the commit, or
 * before he could free them.  Others may run: nobody who lives is between the two steps
 * while we have the write lock, see "Ids", and in each transaction ids and rows are looked at
 * together.  It is a new one after so many ids, so that others come to their turn.
 */
static int prune(struct engine *e, struct container *c, const char *unused)
{
	struct klock_status status[64];
	const int max = sizeof(status) / sizeof(status[0]);
	uint32_t next = 0;
	int i, n, ret;

	(void)c;
	(void)unused;
	do {
		ret = begin(e);
		if (ret)
			return ret;
		n = klock_list(e->space, next, status, max);
		ret = n < 0 ? n : 0;
		for (i = 0; !ret && i < n; i++) {
			next = status[i].id + 1;
			if (status[i].flags & KLOCK_ALLOCATED)
				ret = free_unused(e, status[i].id);
		}
		ret = end(e, ret);
	} while (!ret && n == max);
	return ret;
}

static const struct command {
	const char *name;
	bool named, hooked;	/* takes a container, a hook */
	int (*fn)(struct engine *e, struct container *c, const char *hook);
} commands[] = {
	{ "create", true, false, create },
	{ "start", true, true, start },
	{ "stop", true, true, stop },
	{ "rm", true, false, rm },
	{ "ps", false, false, ps },
	{ "prune", false, false, prune },
};

static int misused(void)
{
	fprintf(stderr,
		"usage: engine [--db FILE] [--space NAME] COMMAND\n"
		"  create NAME | start NAME [HOOK] | stop NAME [HOOK] | rm NAME | ps | prune\n"
		"  NAME is at most 20 of A-Z a-z 0-9 . _ -; HOOK is a command for the shell\n"
		"  FILE is engine.db, and the space \"engine\", if they are not given\n");
	return 2;
}

/* The command that @argv asks for; NULL: none, or not as it must be. */
static const struct command *parse(int argc, char **argv, struct container *c)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (argc && !strcmp(argv[0], commands[i].name))
			break;
	if (i == sizeof(commands) / sizeof(commands[0]))
		return NULL;
	if (argc < 1 + commands[i].named || argc > 1 + commands[i].named + commands[i].hooked)
		return NULL;
	c->name = argv[1];
	if (commands[i].named && (!c->name[0] || strlen(c->name) > 20 ||
				  c->name[strspn(c->name, letters)]))
		return NULL;
	return &commands[i];
}

/* When the space was removed under a command, it begins anew. */
static int obey(struct engine *e, const struct command *command, struct container *c,
		const char *hook)
{
	int ret;

	do {
		ret = attach(e);
		if (!ret)
			ret = command->fn(e, c, hook);
		klock_space_close(e->space);	/* of what give() kept, the next one is told */
		e->space = NULL;
	} while (ret == -ESTALE);
	return ret;
}

/* Exits with 0, 1 if it was refused, 2 if it went wrong. */
int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "db", required_argument, NULL, 'd' },
		{ "space", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 }
	};
	struct engine e = { .path = "engine.db", .space_name = "engine" };
	struct container c = { .name = NULL };
	const struct command *command;
	int option, ret;

	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (option == 'd')
			e.path = optarg;
		else if (option == 's')
			e.space_name = optarg;
		else
			return misused();
	}
	argc -= optind;
	argv += optind;
	command = parse(argc, argv, &c);
	if (!command)
		return misused();

	ret = open_database(&e);
	if (!ret)
		ret = obey(&e, command, &c, argc > 2 ? argv[2] : NULL);
	sqlite3_close(e.db);
	if (ret < 0)
		fprintf(stderr, "engine: %s: %s\n", command->name, strerror(-ret));
	return ret < 0 ? 2 : ret;
}
