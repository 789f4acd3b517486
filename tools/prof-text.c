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
		l->example = before ? NULL : s;
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
		if (n == 0 || by_names(&to->line[n - 1], l) != 0) {
			to->line[n++] = *l;
			continue;
		}
		to->line[n - 1].n += l->n;
		to->line[n - 1].bytes += l->bytes;
		to->line[n - 1].n_before += l->n_before;
		to->line[n - 1].bytes_before += l->bytes_before;
		if (to->line[n - 1].example == NULL)
			to->line[n - 1].example = l->example;
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
put_frames(FILE *to, const struct profile *p, const struct line *x)
{
	const struct stack *s = x->example;
	size_t i, k;

	for (i = 0; s != NULL && i < s->depth; i++) {
		const struct place_list *l = symbols_find(p->symbols,
							  s->address[i]);

		for (k = 0; k < l->n; k++) {
			fprintf(to, "      %s", l->place[k].function);
			if (l->place[k].file != NULL)
				fprintf(to, "  %s:%d", l->place[k].file,
					l->place[k].line);
			fputs(k + 1 < l->n ? "  (inlined)\n" : "\n", to);
		}
	}
	/* Of the profile before only, whose addresses are other ones. */
	if (s == NULL)
		fprintf(to, "      %s\n", x->names);
}

/* By its build-id whoever has them finds the names of an object. */
static void
put_nameless(FILE *to, const struct profile *p)
{
	const struct mapping *m;
	bool first = true;
	size_t i, n;

	m = symbols_mappings(p->symbols, &n);
	for (i = 0; i < n; i++) {
		if (!m[i].nameless || m[i].build_id[0] == '\0')
			continue;
		fprintf(to, "%swithout names: %s, build-id %s\n",
			first ? "\n" : "", m[i].path, m[i].build_id);
		first = false;
	}
}

void
show_top(FILE *to, const struct profile *p, const struct lines *l, size_t top,
	 bool diff, bool all)
{
	size_t i;

	fprintf(to, "%s: ", all ? "allocated" : "live");
	put_bytes(to, l->bytes, false);
	fprintf(to, " in %.0f objects, by samples of one in %llu bytes\n",
		l->count, (unsigned long long)p->rate);
	if (p->notes != NULL)
		fprintf(to, "%s", p->notes);
	for (i = 0; i < l->n && i < top; i++) {
		const struct line *x = &l->line[i];
		double bytes = x->bytes - x->bytes_before;

		fputc('\n', to);
		put_bytes(to, bytes, diff);
		if (!diff)
			fprintf(to, " %5.1f%%", l->bytes > 0 ?
				100 * bytes / l->bytes : 0);
		fprintf(to, diff ? "  %+.0f objects\n" : "  %.0f objects\n",
			x->n - x->n_before);
		put_frames(to, p, x);
	}
	if (i < l->n)
		fprintf(to, "\n%zu more stacks\n", l->n - i);
	put_nameless(to, p);
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
