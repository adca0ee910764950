// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Columns: as a table, by libsmartcols, or as JSON.
 *
 * JSON is written here, row by row: libsmartcols keeps all cells until the end and prints
 * them byte by byte, which takes several times as long where there are 100,000 locks.
 */
#include <errno.h>
#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>
#include <string.h>

#include "klockctl.h"

#define COLUMNS_MAX	24

struct table {
	const char *name;
	struct libscols_table *scols;	/* NULL: JSON */
	const struct column *columns;
	cell_fn cell;
	int shown[COLUMNS_MAX];		/* numbers of columns */
	char keys[COLUMNS_MAX][40];	/* of JSON, with what stands before and after */
	size_t n;
	size_t rows;
};

/*
 * Cells
 */

/* (100,000 rows have so many numbers that printf() takes a good part of the time.) */
void cell_number(char *text, uint64_t n)
{
	char digits[24], *p = digits + sizeof(digits) - 1;

	*p = '\0';
	do {
		*--p = '0' + n % 10;
		n /= 10;
	} while (n);
	memcpy(text, p, digits + sizeof(digits) - p);
}

void cell_number_if(char *text, uint64_t n)
{
	if (n)
		cell_number(text, n);
}

void cell_boolean(char *text, bool b)
{
	strcpy(text, opt.json ? (b ? "true" : "false") : (b ? "yes" : "no"));
}

void cell_string(char *text, const char *string)
{
	snprintf(text, CELL_SIZE, "%s", string ? string : "");
}

void cell_duration(char *text, uint64_t ns)
{
	if (opt.json)
		cell_number(text, ns);
	else
		cell_string(text, duration(ns));
}

void cell_since(char *text, uint64_t since)
{
	if (since)
		cell_duration(text, ns_since(since));
}

/*
 * Columns
 */

static int find_column(const struct column *columns, const char *name, size_t length)
{
	int i;

	for (i = 0; columns[i].name; i++)
		if (strlen(columns[i].name) == length &&
		    !strncasecmp(columns[i].name, name, length))
			return i;
	complain("%.*s: no such column", (int)length, name);
	return -1;
}

/* Once, however often it is asked for: a key of JSON may not come twice. */
static void show_column(struct table *table, int column)
{
	size_t i;

	for (i = 0; i < table->n; i++)
		if (table->shown[i] == column)
			return;
	table->shown[table->n++] = column;
}

/* What is shown unless --output says otherwise. */
static void choose_default(struct table *table)
{
	int i;

	for (i = 0; table->columns[i].name; i++)
		if (opt.json || table->columns[i].by_default)
			show_column(table, i);
}

/* NAME,NAME...; +NAME... adds to what is shown by default. */
static bool choose_columns(struct table *table)
{
	const char *name = opt.columns;
	size_t length;
	int column;

	if (!name || *name == '+')
		choose_default(table);
	if (!name)
		return true;
	for (name += *name == '+';; name += length + 1) {
		length = strcspn(name, ",");
		column = find_column(table->columns, name, length);
		if (column < 0)
			return false;
		show_column(table, column);
		if (!name[length])
			return true;
	}
}

static void give_up(void)
{
	complain("out of memory");
	exit(EXIT_FAILURE);
}

static void begin_columns(struct table *table)
{
	size_t i;

	table->scols = scols_new_table();
	if (!table->scols)
		give_up();
	scols_table_enable_raw(table->scols, opt.raw);
	scols_table_enable_noheadings(table->scols, opt.noheadings);
	scols_table_enable_noencoding(table->scols, 1);		/* all is printable ASCII */
	for (i = 0; i < table->n; i++) {
		const struct column *column = &table->columns[table->shown[i]];
		int flags = (column->type == NUMBER ? SCOLS_FL_RIGHT : 0) |
			    (column->cut ? SCOLS_FL_TRUNC : 0);

		if (!scols_table_new_column(table->scols, column->name, 0, flags))
			give_up();
	}
}

static void begin_json(struct table *table)
{
	size_t i;

	for (i = 0; i < table->n; i++)
		snprintf(table->keys[i], sizeof(table->keys[i]), "%c\"%s\":", i ? ',' : '{',
			 table->columns[table->shown[i]].json);
}

struct table *table_begin(const char *name, const struct column *columns, cell_fn cell)
{
	struct table *table = xrealloc(NULL, 1, sizeof(*table));

	*table = (struct table) { .name = name, .columns = columns, .cell = cell };
	if (!choose_columns(table)) {
		free(table);
		return NULL;
	}
	if (opt.json)
		begin_json(table);
	else
		begin_columns(table);
	return table;
}

/*
 * Rows
 */

void print_json_string(const char *text)
{
	putchar_unlocked('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar_unlocked('\\');
		putchar_unlocked(*text);
	}
	putchar_unlocked('"');
}

static void json_row(const struct table *table, const void *row)
{
	char text[CELL_SIZE];
	size_t i;

	if (table->rows)
		fputs_unlocked(",\n", stdout);
	else
		printf("{\"%s\":[\n", table->name);
	for (i = 0; i < table->n; i++) {
		text[0] = '\0';
		table->cell(row, table->shown[i], text);
		fputs_unlocked(table->keys[i], stdout);
		if (!text[0])
			fputs_unlocked("null", stdout);
		else if (table->columns[table->shown[i]].type == STRING)
			print_json_string(text);
		else
			fputs_unlocked(text, stdout);
	}
	putchar_unlocked('}');
}

static void columns_row(const struct table *table, const void *row)
{
	struct libscols_line *line = scols_table_new_line(table->scols, NULL);
	char text[CELL_SIZE];
	size_t i;

	for (i = 0; line && i < table->n; i++) {
		text[0] = '\0';
		table->cell(row, table->shown[i], text);
		if (scols_line_set_data(line, i, text[0] ? text : "-"))
			give_up();
	}
	if (!line)
		give_up();
}

void table_row(struct table *table, const void *row)
{
	if (opt.json)
		json_row(table, row);
	else
		columns_row(table, row);
	table->rows++;
}

int table_end(struct table *table)
{
	int ret = 0;

	if (opt.json && table->rows) {
		puts("\n]}");
	} else if (opt.json) {
		printf("{\"%s\":[]}\n", table->name);
	} else {
		ret = scols_print_table(table->scols);
		scols_unref_table(table->scols);
	}
	if (ret)
		failed("cannot print", ret);
	free(table);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}

bool wants_table(void)
{
	return opt.json || opt.raw || opt.columns || opt.noheadings;
}

void print_record(const struct column *columns, cell_fn cell, const void *row)
{
	char text[CELL_SIZE];
	int i;

	for (i = 0; columns[i].name; i++) {
		text[0] = '\0';
		cell(row, i, text);
		printf("%-14s %s\n", columns[i].name, text[0] ? text : "-");
	}
}
