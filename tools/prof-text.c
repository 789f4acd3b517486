/*
 * prof-text.c - stacks by name, as text.
 */
#include "config.h"

#include "prof.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- lines ----------------------------------------------------------- */

static char *
append(char *text, size_t *length, const char *more)
{
	size_t n = strlen(more);

	text = need(realloc(text, *length + n + 2));
	memcpy(text + *length, more, n + 1);
	*length += n;
	return text;
}

/* "main;f;g".  No name has the separator in it. */
static char *
names_of(const struct profile *p, const struct stack *s)
{
	size_t length = 0, before, i, k;
	char *text = append(NULL, &length, ""), *at;

	for (i = s->depth; i-- > 0;) {
		const struct place_list *l = symbols_find(p->symbols,
							  s->address[i]);

		for (k = l->n; k-- > 0;) {
			if (length > 0)
				text = append(text, &length, ";");
			before = length;
			text = append(text, &length, l->place[k].function);
			for (at = text + before; *at != '\0'; at++)
				if (*at == ';' || *at == '\n')
					*at = ':';
		}
	}
	return text;
}

static void
add_stacks(struct lines *to, const struct profile *p, bool all, bool before)
{
	struct line *l;
	size_t i;

	to->line = need(realloc(to->line, (to->n + p->stacks + 1) *
						  sizeof *to->line));
	for (i = 0; i < p->stacks; i++) {
		const struct stack *s = &p->stack[i];
		double n = all ? s->all : s->live;
		double bytes = all ? s->all_bytes : s->live_bytes;

		progress("stacks", i + 1, p->stacks);
		if (n == 0)
			continue;
		l = &to->line[to->n++];
		memset(l, 0, sizeof *l);
		l->names = names_of(p, s);
		l->example = s;
		l->from = p;
		*(before ? &l->n_before : &l->n) = n;
		*(before ? &l->bytes_before : &l->bytes) = bytes;
	}
}

static int
by_names(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->names,
		      ((const struct line *)b)->names);
}

/* The largest first, or the largest change. */
static int
by_bytes(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	double d = fabs(y->bytes - y->bytes_before) -
		   fabs(x->bytes - x->bytes_before);

	return d > 0 ? 1 : d < 0 ? -1 : by_names(a, b);
}

void
lines_make(struct lines *to, const struct profile *p,
	   const struct profile *before, bool all)
{
	size_t i, n = 0;

	memset(to, 0, sizeof *to);
	add_stacks(to, p, all, false);
	if (before != NULL)
		add_stacks(to, before, all, true);
	qsort(to->line, to->n, sizeof *to->line, by_names);
	for (i = 0; i < to->n; i++) {
		struct line *l = &to->line[i];

		to->count += l->n;
		to->bytes += l->bytes;
		to->count_before += l->n_before;
		to->bytes_before += l->bytes_before;
		if (n == 0 || by_names(&to->line[n - 1], l) != 0) {
			to->line[n++] = *l;
			continue;
		}
		to->line[n - 1].n += l->n;
		to->line[n - 1].bytes += l->bytes;
		to->line[n - 1].n_before += l->n_before;
		to->line[n - 1].bytes_before += l->bytes_before;
		if (l->from == p) {
			to->line[n - 1].example = l->example;
			to->line[n - 1].from = p;
		}
		free(l->names);
	}
	to->n = n;
	qsort(to->line, to->n, sizeof *to->line, by_bytes);
}

/* --- text ------------------------------------------------------------ */

static void
put_bytes(FILE *to, double n, bool sign)
{
	static const char *const units[] = { "B  ", "KiB", "MiB", "GiB",
					     "TiB" };
	unsigned u = 0;

	while (fabs(n) >= 1024 && u < 4) {
		n /= 1024;
		u++;
	}
	fprintf(to, sign ? "%+8.*f %s" : "%8.*f %s", u == 0 ? 0 : 1, n,
		units[u]);
}

static void
put_frames(FILE *to, const struct line *x)
{
	const struct stack *s = x->example;
	size_t i, k;

	for (i = 0; i < s->depth; i++) {
		const struct place_list *l = symbols_find(x->from->symbols,
							  s->address[i]);

		for (k = 0; k < l->n; k++) {
			fprintf(to, "      %s", l->place[k].function);
			if (l->place[k].file != NULL)
				fprintf(to, "  %s:%d", l->place[k].file,
					l->place[k].line);
			fputs(k + 1 < l->n ? "  (inlined)\n" : "\n", to);
		}
	}
}

static bool
is_told(const struct mapping *m, size_t n, const struct mapping *x)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (m[i].nameless && strcmp(m[i].path, x->path) == 0 &&
		    strcmp(m[i].build_id, x->build_id) == 0)
			return true;
	return false;
}

/*
 * By its build-id whoever has them finds the names of an object.  That is in
 * the file, which may be gone.  `told`: whose are told already.
 */
static void
put_nameless(FILE *to, const struct profile *p, const struct profile *told,
	     bool *any)
{
	const struct mapping *m, *old;
	size_t n, olds, i;

	m = symbols_mappings(p->symbols, &n);
	old = symbols_mappings(told->symbols, &olds);
	for (i = 0; i < n; i++) {
		if (!m[i].nameless || m[i].path[0] != '/' ||
		    is_told(m, i, &m[i]) ||
		    (told != p && is_told(old, olds, &m[i])))
			continue;
		fprintf(to, "%swithout names: %s, build-id %s\n",
			*any ? "" : "\n", m[i].path,
			*m[i].build_id != '\0' ? m[i].build_id : "not known");
		*any = true;
	}
}

static void
put_head(FILE *to, const struct profile *p, const char *what, double bytes,
	 double count)
{
	fprintf(to, "%s: ", what);
	put_bytes(to, bytes, false);
	fprintf(to, " in %.0f objects, by samples of one in %llu bytes\n",
		count, (unsigned long long)p->rate);
	if (p->notes != NULL)
		fprintf(to, "%s", p->notes);
}

/* Less than can be shown; sums of the same numbers may differ by as much. */
static bool
is_unchanged(const struct line *x)
{
	return fabs(x->bytes - x->bytes_before) < 0.5 &&
	       fabs(x->n - x->n_before) < 0.5;
}

void
show_top(FILE *to, const struct profile *p, const struct profile *before,
	 const struct lines *l, size_t top, bool all)
{
	bool diff = before != NULL, any = false;
	size_t i, shown = 0, more = 0;

	if (diff)
		put_head(to, before, all ? "allocated before" : "live before",
			 l->bytes_before, l->count_before);
	put_head(to, p, diff ? all ? "allocated after" : "live after" :
			all ? "allocated" : "live", l->bytes, l->count);
	for (i = 0; i < l->n; i++) {
		const struct line *x = &l->line[i];
		double bytes = x->bytes - x->bytes_before;

		if (diff && is_unchanged(x))
			continue;
		if (shown == top) {
			more++;
			continue;
		}
		shown++;
		fputc('\n', to);
		put_bytes(to, bytes, diff);
		if (!diff)
			fprintf(to, " %5.1f%%", l->bytes > 0 ?
				100 * bytes / l->bytes : 0);
		fprintf(to, diff ? "  %+.0f objects\n" : "  %.0f objects\n",
			x->n - x->n_before);
		put_frames(to, x);
	}
	if (more > 0)
		fprintf(to, "\n%zu more stacks\n", more);
	put_nameless(to, p, p, &any);
	if (diff)
		put_nameless(to, before, p, &any);
}

void
show_folded(FILE *to, const struct lines *l, bool diff)
{
	size_t i;

	for (i = 0; i < l->n; i++) {
		const struct line *x = &l->line[i];

		if (diff)
			fprintf(to, "%s %.0f %.0f\n", x->names,
				x->bytes_before, x->bytes);
		else
			fprintf(to, "%s %.0f\n", x->names, x->bytes);
	}
}
