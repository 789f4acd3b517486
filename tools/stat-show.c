/*
 * stat-show.c - figures as lines, as JSON, and for Prometheus.
 */
#include "config.h"

#include "stat.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool
figures_make(struct figures *f)
{
	f->cells = f->values + f->columns * f->rows;
	f->now = calloc(f->cells + 1, sizeof *f->now);
	f->old = calloc(f->cells + 1, sizeof *f->old);
	return f->now != NULL && f->old != NULL;
}

void
figures_free(struct figures *f)
{
	int pid = f->pid;

	free(f->names);
	free(f->now);
	free(f->old);
	memset(f, 0, sizeof *f);
	f->pid = pid;
}

bool
stat_is_text(const char *text, size_t size)
{
	size_t n = strnlen(text, size), i;

	for (i = 0; i < n; i++)
		if (text[i] < ' ' || text[i] > '~' || text[i] == '"' ||
		    text[i] == '\\')
			return false;
	return n < size;
}

uint64_t
stat_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

const uint64_t *
stat_row(const struct figures *f, const uint64_t *cells, size_t row)
{
	return cells + f->values + row * f->columns;
}

bool
stat_is_unused(const struct figures *f, size_t row)
{
	const uint64_t *r = stat_row(f, f->now, row);
	size_t i;

	for (i = 1; i < f->columns; i++)
		if (r[i] != 0)
			return false;
	return true;
}

/* Milliseconds since the process published, or was read. */
static uint64_t
age(const struct figures *f)
{
	uint64_t now = stat_now();

	return now > f->published ? now - f->published : 0;
}

bool
stat_change(const struct figures *f, uint64_t now, uint64_t old,
	    double *change)
{
	uint64_t ms = f->published - f->published_old;

	if (f->published_old == 0 || ms == 0)
		return false;
	*change = ((double)now - (double)old) * 1000 / (double)ms;
	return true;
}

static void
print_line(const struct figures *f, const char *name, uint64_t now,
	   uint64_t old, bool change)
{
	double by;

	printf("%s %" PRIu64, name, now);
	if (change && stat_change(f, now, old, &by))
		printf(" %.0f\n", by);
	else
		puts(change ? " -" : "");
}

void
show_text(const struct figures *f, bool classes, bool change)
{
	const uint64_t *now, *old;
	char name[STAT_NAME_BYTES + 40];
	size_t i, row;

	printf("schema %" PRIu32 "\nversion %s\nflavour %s\npid %d\n"
	       "age_ms %" PRIu64 "\n",
	       f->schema, f->version, f->flavour, f->pid, age(f));
	for (i = 0; i < f->values; i++)
		print_line(f, f->names[i], f->now[i], f->old[i], change);
	for (row = 0; classes && row < f->rows; row++) {
		now = stat_row(f, f->now, row);
		old = stat_row(f, f->old, row);
		for (i = 1; i < f->columns && !stat_is_unused(f, row); i++) {
			snprintf(name, sizeof name, "class.%" PRIu64 ".%s",
				 now[0], f->names[f->values + i]);
			print_line(f, name, now[i], old[i], change);
		}
	}
}

static void
print_json_row(const struct figures *f, size_t row, const char *separator)
{
	const uint64_t *r = stat_row(f, f->now, row);
	size_t i;

	for (i = 0; i < f->columns; i++)
		printf("%s\"%s\": %" PRIu64, i == 0 ? separator : ", ",
		       f->names[f->values + i], r[i]);
	putchar('}');
}

/* One line, so that --watch gives a line a time. */
void
show_json(const struct figures *f, bool classes)
{
	bool first = true;
	size_t i;

	printf("{\"schema\": %" PRIu32 ", \"version\": \"%s\", "
	       "\"flavour\": \"%s\", \"pid\": %d, \"age_ms\": %" PRIu64,
	       f->schema, f->version, f->flavour, f->pid, age(f));
	for (i = 0; i < f->values; i++)
		printf(", \"%s\": %" PRIu64, f->names[i], f->now[i]);
	if (classes)
		fputs(", \"classes\": [", stdout);
	for (i = 0; classes && i < f->rows; i++) {
		if (stat_is_unused(f, i))
			continue;
		print_json_row(f, i, first ? "{" : ", {");
		first = false;
	}
	puts(classes ? "]}" : "}");
}

/* --- Prometheus ------------------------------------------------------ */

enum unit { BYTES, COUNT, EVENTS };

struct metric {
	const char *name;
	enum unit unit;
	const char *text;
};

static const struct metric metrics[] = {
#define HZ4_FIGURE(name, unit, text) { #name, unit, text },
#define HZ4_CLASS_FIGURE(name, text)
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
	{ "malloc_calls", EVENTS, "mallocs, wherever they were served" },
	{ "free_calls", EVENTS, "frees, wherever they were taken" },
#define HZ4_COUNTER(name, serves, text) { #name, EVENTS, text },
#include "stats.def"
#undef HZ4_COUNTER
};

static const struct metric class_metrics[] = {
#define HZ4_FIGURE(name, unit, text)
#define HZ4_CLASS_FIGURE(name, text) { #name, COUNT, text },
#include "info.def"
#undef HZ4_FIGURE
#undef HZ4_CLASS_FIGURE
#define HZ4_COUNTER(name, serves, text) { #name, EVENTS, text },
#include "stats.def"
#undef HZ4_COUNTER
};

/* NULL for a name that only another version has. */
static const struct metric *
find_metric(const struct metric *from, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strcmp(from[i].name, name) == 0)
			return &from[i];
	return NULL;
}

static bool
ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), e = strlen(end);

	return n >= e && strcmp(name + n - e, end) == 0;
}

/* "hz4_live_bytes", "hz4_class_free_l0_hit_total", with HELP and TYPE. */
static void
print_head(char *name, size_t room, const char *prefix,
	   const struct metric *m)
{
	const char *end = m->unit == EVENTS			    ? "_total" :
			  m->unit == COUNT || ends_in(m->name, "_bytes") ? "" :
									   "_bytes";

	snprintf(name, room, "hz4_%s%s%s", prefix, m->name, end);
	printf("# HELP %s %c%s.\n# TYPE %s %s\n", name,
	       toupper((unsigned char)m->text[0]), m->text + 1, name,
	       m->unit == EVENTS ? "counter" : "gauge");
}

static void
print_class_metric(const struct figures *f, size_t column)
{
	const struct metric *m = find_metric(
		class_metrics, sizeof class_metrics / sizeof *class_metrics,
		f->names[f->values + column]);
	char name[2 * STAT_NAME_BYTES];
	const uint64_t *r;
	size_t row;

	if (m == NULL)
		return;
	print_head(name, sizeof name, "class_", m);
	for (row = 0; row < f->rows; row++) {
		r = stat_row(f, f->now, row);
		if (!stat_is_unused(f, row))
			printf("%s{pid=\"%d\",size=\"%" PRIu64 "\"} %" PRIu64
			       "\n", name, f->pid, r[0], r[column]);
	}
}

void
show_prometheus(const struct figures *f, bool classes)
{
	const struct metric *m;
	char name[2 * STAT_NAME_BYTES];
	size_t i;

	printf("# HELP hz4_build_info The build of hz4.\n"
	       "# TYPE hz4_build_info gauge\n"
	       "hz4_build_info{pid=\"%d\",version=\"%s\",flavour=\"%s\"} 1\n",
	       f->pid, f->version, f->flavour);
	for (i = 0; i < f->values; i++) {
		m = find_metric(metrics, sizeof metrics / sizeof *metrics,
				f->names[i]);
		if (m == NULL)
			continue;
		print_head(name, sizeof name, "", m);
		printf("%s{pid=\"%d\"} %" PRIu64 "\n", name, f->pid,
		       f->now[i]);
	}
	for (i = 1; classes && i < f->columns; i++)
		print_class_metric(f, i);
}
