/*
 * prof-read.c - the text that src/profdump.c writes.
 */
#include "config.h"

#include "prof.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DEPTH = 1024 };

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void
progress(const char *what, size_t done, size_t all)
{
	static double started, told;
	double now = seconds();

	if (started == 0)
		started = now;
	if (done == all && told > 0)
		fputs("\r\033[K", stderr);
	if (done == all)
		told = 0;
	else if (now - started > 1 && now - told > 0.1 &&
		 isatty(STDERR_FILENO)) {
		fprintf(stderr, "\rhz4-prof: %s: %zu of %zu", what, done, all);
		told = now;
	}
}

/* The bytes of a file, and a NUL behind them; NULL: errno tells why not. */
static char *
slurp(const char *path, int fd, size_t *size)
{
	FILE *f = fd == -1 ? fopen(path, "re") : fdopen(fd, "r");
	size_t room = 1 << 16, n;
	char *text;
	int error;

	if (f == NULL)
		return NULL;
	text = need(malloc(room));
	*size = 0;
	errno = 0;
	while ((n = fread(text + *size, 1, room - *size - 1, f)) > 0) {
		*size += n;
		if (room - *size < 2)
			text = need(realloc(text, room *= 2));
	}
	text[*size] = '\0';
	error = ferror(f) ? errno : 0;
	fclose(f);
	if (error == 0)
		return text;
	free(text);
	errno = error;
	return NULL;
}

/* What a sum of samples stands for. */
static double
scale(uint64_t n, uint64_t bytes, uint64_t rate)
{
	if (n == 0 || rate <= 1)
		return 1;
	return 1 / -expm1(-(double)bytes / (double)n / (double)rate);
}

/* A number and what has to follow it: what comes behind them, or NULL. */
static const char *
read_number(const char *text, const char *mark, uint64_t *n)
{
	char *end;

	text += strspn(text, " ");
	if (!isdigit((unsigned char)*text))
		return NULL;
	errno = 0;
	*n = strtoull(text, &end, 10);
	if (errno != 0 || strncmp(end, mark, strlen(mark)) != 0)
		return NULL;
	return end + strlen(mark);
}

/* "LIVE: BYTES [ALL: BYTES] @": what comes behind it, or NULL. */
static const char *
read_sums(const char *line, uint64_t sums[4])
{
	static const char *const mark[] = { ":", " [", ":", "] @" };
	int i;

	for (i = 0; i < 4 && line != NULL; i++)
		line = read_number(line, mark[i], &sums[i]);
	return line;
}

static bool
read_addresses(struct stack *s, const char *text)
{
	uint64_t address[MAX_DEPTH];
	char *end;

	s->depth = 0;
	for (;;) {
		text += strspn(text, " ");
		if (*text == '\0')
			break;
		if (s->depth == MAX_DEPTH)
			return false;
		address[s->depth] = strtoull(text, &end, 16);
		if (end == text)
			return false;
		s->depth++;
		text = end;
	}
	s->address = need(malloc((s->depth + 1) * sizeof *address));
	memcpy(s->address, address, s->depth * sizeof *address);
	return true;
}

static bool
read_stack(struct profile *p, const char *line, uint64_t left[2])
{
	uint64_t v[4];
	const char *rest = read_sums(line, v);
	struct stack s;
	double factor;

	if (rest == NULL)
		return false;
	left[0] -= v[2] < left[0] ? v[2] : left[0];
	left[1] -= v[3] < left[1] ? v[3] : left[1];
	factor = scale(v[0], v[1], p->rate);
	s.live = (double)v[0] * factor;
	s.live_bytes = (double)v[1] * factor;
	factor = scale(v[2], v[3], p->rate);
	s.all = (double)v[2] * factor;
	s.all_bytes = (double)v[3] * factor;
	if (!read_addresses(&s, rest))
		return false;
	if ((p->stacks & (p->stacks + 1)) == 0)
		p->stack = need(realloc(p->stack, (p->stacks + 1) * 2 *
							  sizeof *p->stack));
	p->stack[p->stacks++] = s;
	return true;
}

static void
add_note(struct profile *p, const char *line)
{
	size_t had = p->notes != NULL ? strlen(p->notes) : 0;

	p->notes = need(realloc(p->notes, had + strlen(line) + 2));
	sprintf(p->notes + had, "%s\n", line);
}

/* `all`: objects and bytes that were allocated. */
static bool
read_head(struct profile *p, const char *line, uint64_t all[2])
{
	uint64_t v[4];
	const char *rest;

	if (strncmp(line, "heap profile: ", 14) != 0)
		return false;
	rest = read_sums(line + 14, v);
	memcpy(all, v + 2, 2 * sizeof *all);
	return rest != NULL && strncmp(rest, " heap_v2/", 9) == 0 &&
	       read_number(rest + 9, "", &p->rate) != NULL;
}

/*
 * The lines up to the mappings; cuts the text.  Threads went on while the
 * stacks were written: these may have more than the head, but no less.
 */
static bool
read_lines(struct profile *p, char *text)
{
	char *end = strchr(text, '\n');
	uint64_t left[2] = { 0, 0 };

	if (end == NULL)
		return false;
	*end = '\0';
	if (!read_head(p, text, left))
		return false;
	for (text = end + 1; *text != '\0'; text = end + 1) {
		end = strchr(text, '\n');
		if (end == NULL)
			return false;
		*end = '\0';
		if (strcmp(text, "MAPPED_LIBRARIES:") == 0) {
			p->maps = need(strdup(end + 1));
			return left[0] == 0 && left[1] == 0;
		}
		if (*text == '#')
			add_note(p, text + 2);
		else if (*text != '\0' && !read_stack(p, text, left))
			return false;
	}
	return false;
}

/* Digits of that base and what has to follow: what comes behind, or NULL. */
static const char *
pass_digits(const char *text, const char *digits, char mark)
{
	size_t n = text != NULL ? strspn(text, digits) : 0;

	return n > 0 && text[n] == mark ? text + n + 1 : NULL;
}

/*
 * "START-END ACCESS OFFSET DEVICE INODE [PATH]" and a newline: what comes
 * behind it, or NULL.
 */
static const char *
read_mapping(const char *line, uint64_t *end)
{
	const char *const digits = "0123456789abcdef";
	const char *at = pass_digits(line, digits, '-'), *last;

	if (at == NULL)
		return NULL;
	*end = strtoull(at, NULL, 16);
	at = pass_digits(at, digits, ' ');
	if (at == NULL || *end <= strtoull(line, NULL, 16) ||
	    strspn(at, "rwxsp-") != 4 || at[4] != ' ')
		return NULL;
	at = pass_digits(at + 5, digits, ' ');
	at = pass_digits(at, digits, ':');
	at = pass_digits(at, digits, ' ');
	if (at == NULL || !isdigit((unsigned char)*at))
		return NULL;
	at += strspn(at, digits);
	last = strchr(at, '\n');
	return last != NULL && (*at == ' ' || *at == '\n') ? last + 1 : NULL;
}

/*
 * Whether all mappings are there.  The last ones, as that of the stack, have
 * no code, so none of the calls lies behind the last one.  A chain of frame
 * pointers may have led astray, but not in most of the stacks.
 */
static bool
has_mappings(const struct profile *p)
{
	uint64_t end = 0, most = 0;
	const char *at = p->maps;
	size_t i, k, beyond = 0;

	while (*at != '\0') {
		at = read_mapping(at, &end);
		if (at == NULL)
			return false;
		most = end > most ? end : most;
	}
	for (i = 0; i < p->stacks && most > 0; i++) {
		for (k = 0; k < p->stack[i].depth; k++)
			if (p->stack[i].address[k] >= most)
				break;
		beyond += k < p->stack[i].depth;
	}
	return beyond <= p->stacks / 2;
}

enum status
prof_read(struct profile *p, const char *path, int fd, const char *root)
{
	size_t size;
	char *text = slurp(path, fd, &size);
	bool ok;

	memset(p, 0, sizeof *p);
	p->path = path;
	if (text == NULL)
		return complain(errno == EACCES ? DENIED : FAILED, "%s: %s",
				path, strerror(errno));
	ok = strlen(text) == size && read_lines(p, text) && has_mappings(p);
	free(text);
	if (!ok)
		return complain(BAD_DATA, "%s: not a whole heap profile "
				"(heap_v2)", path);
	if (*p->maps == '\0')
		complain(OK, "%s: no mappings and so no names: of a process "
			 "without /proc, or cut off", path);
	p->symbols = symbols_open(p->maps, root);
	return OK;
}
