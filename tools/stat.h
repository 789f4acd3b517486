/*
 * stat.h - the parts of hz4-stat: where figures are read from, and the forms
 * in which they are shown.
 */
#ifndef HZ4_STAT_H
#define HZ4_STAT_H

#include "tool.h"

enum {
	STAT_NAME_BYTES = 64, /* of a figure, at most */
	STAT_VERSION_BYTES = 24,
};

/* What there is to be shown: single values, and a table of the classes. */
struct figures {
	int pid;
	uint32_t schema;
	char version[STAT_VERSION_BYTES], flavour[STAT_VERSION_BYTES];
	size_t values, columns, rows;
	size_t cells;	     /* values and table together */
	const char **names;  /* values', then columns' */
	uint64_t *now, *old; /* the cells, and those before */
	uint64_t published, published_old; /* CLOCK_MONOTONIC, ms */
};

/* Make room for the cells; false: there is none. */
bool figures_make(struct figures *f);
void figures_free(struct figures *f);
uint64_t stat_now(void);

/* Whether a text is plain and ends within its room. */
bool stat_is_text(const char *text, size_t size);

/* --- stat-page.c: what the process publishes ------------------------- */

bool page_find(int pid);
enum status page_open(struct figures *f);
/* BAD_DATA: the process stopped while it published. */
enum status page_read(struct figures *f);
bool page_is_closed(void);
/* A program that the process has executed makes a page of its own. */
bool page_is_replaced(int pid);
void page_close(void);

/* --- stat-memory.c: what lies in its memory -------------------------- */

/* Find the library in the process; FAILED: there is none. */
enum status memory_open(struct figures *f);
/* FAILED: it is there no more. */
enum status memory_read(struct figures *f);

/* --- stat-show.c ----------------------------------------------------- */

/* `change`: with what each changes by in a second. */
void show_text(const struct figures *f, bool classes, bool change);
void show_json(const struct figures *f, bool classes);
void show_prometheus(const struct figures *f, bool classes);

/* --- stat-chart.c ---------------------------------------------------- */

/* The same on a terminal, with what each was before. */
void show_chart(const struct figures *f);

/* The table's first column, the size, is not a count. */
bool stat_is_unused(const struct figures *f, size_t row);
const uint64_t *stat_row(const struct figures *f, const uint64_t *cells,
			 size_t row);
/* Change in a second; false: not known. */
bool stat_change(const struct figures *f, uint64_t now, uint64_t old,
		 double *change);

#endif
