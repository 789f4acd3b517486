/*
 * prof.h - the parts of hz4-prof: reading a profile, names for addresses,
 * and the forms in which it is shown.
 */
#ifndef HZ4_PROF_H
#define HZ4_PROF_H

#include "tool.h"

#include <stdio.h>

/*
 * So much of `all` is done: told on stderr if that is a terminal and it takes
 * longer than a second.  The last call, with all of it done, takes it back.
 */
void progress(const char *what, size_t done, size_t all);

/* A function, and where in it. */
struct place {
	const char *function; /* never NULL */
	const char *file;     /* NULL: not known */
	int line;
};

/* What an address stands for: one place, or more where calls are inlined. */
struct place_list {
	struct place *place; /* the innermost first */
	size_t n;
};

/* The sums are those of all allocations: samples, scaled by the rate. */
struct stack {
	double live, live_bytes, all, all_bytes;
	uint64_t *address; /* of the calls, the innermost first */
	size_t depth;
};

struct profile {
	const char *path;
	uint64_t rate;
	struct stack *stack;
	size_t stacks;
	char *notes; /* lines that begin with #, or "" */
	char *maps;  /* the text of /proc/PID/maps */
	struct symbols *symbols;
};

/* --- prof-read.c ----------------------------------------------------- */

/*
 * Of the file `fd`, or of `path` where that is -1.  `root`: of the process,
 * below which its objects are; "" for our own.
 */
enum status prof_read(struct profile *p, const char *path, int fd,
		      const char *root);

/* --- prof-symbols.c -------------------------------------------------- */

struct symbols *symbols_open(const char *maps, const char *root);
const struct place_list *symbols_find(struct symbols *s, uint64_t address);

/* The mapping of an address; false when there is none. */
struct mapping {
	uint64_t start, end, offset;
	const char *path;
	char build_id[65]; /* hexadecimal, "" not known */
	bool nameless;	   /* a function was found that has no name */
};
const struct mapping *symbols_mapping(struct symbols *s, uint64_t address,
				      size_t *number);
const struct mapping *symbols_mappings(struct symbols *s, size_t *n);

/* --- what is shown --------------------------------------------------- */

/* A stack by names, the outermost first: main;f;g. */
struct line {
	char *names;
	double n, bytes; /* of what is asked for: live, or all */
	double n_before, bytes_before; /* of another profile */
	const struct stack *example;
	const struct profile *from; /* what that is in: the first, if it can */
};

struct lines {
	struct line *line;
	size_t n;
	double count, bytes, count_before, bytes_before; /* sums */
};

/* All stacks by their names, `before` (or NULL) beside them. */
void lines_make(struct lines *to, const struct profile *p,
		const struct profile *before, bool all);

/* prof-text.c */
void show_top(FILE *to, const struct profile *p, const struct profile *before,
	      const struct lines *l, size_t top, bool all);
void show_folded(FILE *to, const struct lines *l, bool diff);
/* prof-svg.c */
void show_svg(FILE *to, const struct lines *l, const char *title);
/* prof-pprof.c; false when it cannot be compressed or written. */
bool show_pprof(FILE *to, const struct profile *p);

#endif
