/*
 * prof-rust.c - Rust's names, made readable: the form v0 ("_R", RFC 2603), and
 * what libstdc++ leaves of the older one.
 *
 * Lifetimes, hashes of crates and what the compiler adds behind a name are not
 * shown.  A name is anybody's: how deep it goes and how long it gets has a
 * bound.
 */
#include "config.h"

#include "prof.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 200, MOST_BYTES = 4096 };

/* --- v0 -------------------------------------------------------------- */

struct reader {
	const char *text; /* behind "_R", where places count from */
	size_t size, at;
	unsigned depth;
	bool failed; /* nothing is read any more */
	bool quiet;  /* nothing is written */
	char to[MOST_BYTES];
	size_t n;
};

static void read_type(struct reader *r);
static void read_path(struct reader *r, bool is_value);

static char
peek(const struct reader *r)
{
	return r->failed ? '\0' : r->text[r->at];
}

static char
next(struct reader *r)
{
	char c = peek(r);

	if (c == '\0')
		r->failed = true;
	else
		r->at++;
	return c;
}

static bool
take(struct reader *r, char c)
{
	if (peek(r) != c)
		return false;
	r->at++;
	return true;
}

static void
put_bytes(struct reader *r, const char *text, size_t n)
{
	if (r->failed || r->quiet)
		return;
	if (n >= sizeof r->to - r->n) {
		r->failed = true;
		return;
	}
	memcpy(r->to + r->n, text, n);
	r->n += n;
}

static void
put(struct reader *r, const char *text)
{
	put_bytes(r, text, strlen(text));
}

static void
put_number(struct reader *r, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, n);
	put(r, text);
}

/* "_" is 0, "0_" is 1. */
static uint64_t
read_base62(struct reader *r)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz"
				     "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	const char *digit;
	uint64_t n = 0;

	if (take(r, '_'))
		return 0;
	while (!take(r, '_')) {
		digit = peek(r) != '\0' ? strchr(digits, next(r)) : NULL;
		if (digit == NULL || n > UINT64_MAX / 62 - 1) {
			r->failed = true;
			return 0;
		}
		n = n * 62 + (uint64_t)(digit - digits);
	}
	return n + 1;
}

/* A number that may be missing: 0. */
static uint64_t
read_tagged(struct reader *r, char tag)
{
	return take(r, tag) ? read_base62(r) + 1 : 0;
}

/* A name without its number; its length. */
static size_t
read_name(struct reader *r, const char **name)
{
	bool is_unicode = take(r, 'u');
	size_t n = 0;

	*name = "";
	if (!isdigit((unsigned char)peek(r)))
		r->failed = true;
	if (!take(r, '0'))
		while (isdigit((unsigned char)peek(r)) && n < MOST_BYTES)
			n = n * 10 + (size_t)(next(r) - '0');
	take(r, '_');
	if (r->failed || n > r->size - r->at) {
		r->failed = true;
		return 0;
	}
	*name = r->text + r->at;
	r->at += n;
	/* Unicode's are in Punycode, and stay so. */
	if (is_unicode && n == 0)
		r->failed = true;
	return n;
}

static void
put_name(struct reader *r)
{
	const char *name;
	size_t n = read_name(r, &name);

	put_bytes(r, name, n);
}

/* What was there before, once more; `B` is read already. */
static void
read_again(struct reader *r, void (*read)(struct reader *r))
{
	size_t self = r->at - 1, back;
	uint64_t place = read_base62(r);

	if (place >= self)
		r->failed = true;
	if (r->failed || r->quiet)
		return;
	back = r->at;
	r->at = (size_t)place;
	read(r);
	r->at = back;
}

static bool
go_in(struct reader *r)
{
	if (++r->depth > MOST_DEPTH)
		r->failed = true;
	return !r->failed;
}

static void
read_const(struct reader *r)
{
	char type, *end;
	const char *start;
	bool negative;
	uint64_t n;

	if (take(r, 'p')) {
		put(r, "_");
		return;
	}
	type = next(r);
	if (type == 'B') {
		if (go_in(r))
			read_again(r, read_const);
		r->depth--;
		return;
	}
	negative = take(r, 'n');
	start = r->text + r->at;
	while (isxdigit((unsigned char)peek(r)))
		r->at++;
	n = strtoull(start, &end, 16);
	if (!take(r, '_') || end - start > 16 || *end != '_' ||
	    strchr("abchijlmnostxy", type) == NULL) {
		r->failed = true;
		return;
	}
	if (negative)
		put(r, "-");
	if (type == 'b')
		put(r, n != 0 ? "true" : "false");
	else
		put_number(r, n);
}

/* Values up to an E, with commas between them; how many. */
static size_t
read_types(struct reader *r)
{
	size_t n;

	for (n = 0; !r->failed && !take(r, 'E'); n++) {
		if (n > 0)
			put(r, ", ");
		read_type(r);
	}
	return n;
}

static void
read_arguments(struct reader *r, bool is_value)
{
	bool any = false;

	while (!r->failed && !take(r, 'E')) {
		if (take(r, 'L')) {
			read_base62(r);
			continue;
		}
		put(r, any ? ", " : is_value ? "::<" : "<");
		any = true;
		if (take(r, 'K'))
			read_const(r);
		else
			read_type(r);
	}
	if (any)
		put(r, ">");
}

/* Where an implementation stands says nothing to its reader. */
static void
skip_path(struct reader *r)
{
	bool quiet = r->quiet;

	r->quiet = true;
	read_tagged(r, 's');
	read_path(r, false);
	r->quiet = quiet;
}

/* "NAMESPACE PATH NAME": a capital is what has no name of its own. */
static void
read_nested(struct reader *r, bool is_value)
{
	char space = next(r);
	const char *name;
	uint64_t number;
	size_t n;

	read_path(r, is_value);
	number = read_tagged(r, 's');
	n = read_name(r, &name);
	if (!isalpha((unsigned char)space)) {
		r->failed = true;
	} else if (islower((unsigned char)space)) {
		put(r, n > 0 ? "::" : "");
		put_bytes(r, name, n);
	} else {
		put(r, "::{");
		put(r, space == 'C' ? "closure" :
		       space == 'S' ? "shim" : "");
		if (space != 'C' && space != 'S')
			put_bytes(r, &space, 1);
		put(r, n > 0 ? ":" : "");
		put_bytes(r, name, n);
		put(r, "#");
		put_number(r, number);
		put(r, "}");
	}
}

static void
read_path_of_value(struct reader *r)
{
	read_path(r, true);
}

static void
read_path_of_type(struct reader *r)
{
	read_path(r, false);
}

static void
read_path(struct reader *r, bool is_value)
{
	char kind = next(r);

	if (!go_in(r))
		return;
	switch (kind) {
	case 'C':
		read_tagged(r, 's');
		put_name(r);
		break;
	case 'M':
	case 'X':
	case 'Y':
		if (kind != 'Y')
			skip_path(r);
		put(r, "<");
		read_type(r);
		put(r, kind != 'M' ? " as " : "");
		if (kind != 'M')
			read_path(r, false);
		put(r, ">");
		break;
	case 'N':
		read_nested(r, is_value);
		break;
	case 'I':
		read_path(r, is_value);
		read_arguments(r, is_value);
		break;
	case 'B':
		read_again(r, is_value ? read_path_of_value :
					 read_path_of_type);
		break;
	default:
		r->failed = true;
	}
	r->depth--;
}

static void
read_function_type(struct reader *r)
{
	read_tagged(r, 'G');
	if (take(r, 'U'))
		put(r, "unsafe ");
	if (take(r, 'K')) {
		put(r, "extern \"");
		if (take(r, 'C'))
			put(r, "C");
		else
			put_name(r);
		put(r, "\" ");
	}
	put(r, "fn(");
	read_types(r);
	put(r, ")");
	if (take(r, 'u'))
		return;
	put(r, " -> ");
	read_type(r);
}

/* Traits, each with the types that it is bound to. */
static void
read_dyn_type(struct reader *r)
{
	const char *between = "dyn ";

	read_tagged(r, 'G');
	for (; !r->failed && !take(r, 'E'); between = " + ") {
		bool open = false;

		put(r, between);
		read_path(r, false);
		while (take(r, 'p')) {
			if (!open && r->n > 0 && !r->quiet &&
			    r->to[r->n - 1] == '>') {
				r->n--;
				open = true;
			}
			put(r, open ? ", " : "<");
			open = true;
			put_name(r);
			put(r, " = ");
			read_type(r);
		}
		put(r, open ? ">" : "");
	}
	if (take(r, 'L'))
		read_base62(r);
}

static const char *
basic_type(char c)
{
	static const char *const names[] = {
		"i8", "bool", "char", "f64", "str", "f32", NULL, "u8",
		"isize", "usize", NULL, "i32", "u32", "i128", "u128", "_",
		NULL, NULL, "i16", "u16", "()", "...", NULL, "i64", "u64",
		"!",
	};

	return c >= 'a' && c <= 'z' ? names[c - 'a'] : NULL;
}

/* What begins with a letter that no path begins with; false: none. */
static bool
read_compound(struct reader *r, char kind)
{
	switch (kind) {
	case 'A':
	case 'S':
		put(r, "[");
		read_type(r);
		put(r, kind == 'A' ? "; " : "");
		if (kind == 'A')
			read_const(r);
		put(r, "]");
		return true;
	case 'T':
		put(r, "(");
		put(r, read_types(r) == 1 ? ",)" : ")");
		return true;
	case 'R':
	case 'Q':
		if (take(r, 'L'))
			read_base62(r);
		put(r, kind == 'Q' ? "&mut " : "&");
		read_type(r);
		return true;
	case 'P':
	case 'O':
		put(r, kind == 'P' ? "*const " : "*mut ");
		read_type(r);
		return true;
	case 'F':
		read_function_type(r);
		return true;
	case 'D':
		read_dyn_type(r);
		return true;
	case 'B':
		read_again(r, read_type);
		return true;
	default:
		return false;
	}
}

static void
read_type(struct reader *r)
{
	char kind = next(r);
	const char *basic = basic_type(kind);

	if (!go_in(r))
		return;
	if (basic != NULL) {
		put(r, basic);
	} else if (!read_compound(r, kind)) {
		r->at--;
		read_path(r, false);
	}
	r->depth--;
}

char *
rust_name(const char *name)
{
	struct reader r = { .text = name + 2 };

	if (strncmp(name, "_R", 2) != 0)
		return NULL;
	r.size = strlen(r.text);
	read_path(&r, true);
	/* The crate that made it, and what was added since. */
	r.quiet = true;
	if (isupper((unsigned char)peek(&r)))
		read_path(&r, false);
	if (r.failed || (r.at < r.size && peek(&r) != '.'))
		return NULL;
	r.to[r.n] = '\0';
	return need(strdup(r.to));
}

/* --- the older form -------------------------------------------------- */

/* What "$u20$" and the like stand for, and how long that is; 0: nothing. */
static size_t
read_escape(const char *text, char *to)
{
	static const struct {
		char name[5], is;
	} escapes[] = {
		{ "$LT$", '<' }, { "$GT$", '>' }, { "$LP$", '(' },
		{ "$RP$", ')' }, { "$RF$", '&' }, { "$BP$", '*' },
		{ "$SP$", '@' }, { "$C$", ',' },
	};
	unsigned long code;
	char *end;
	size_t i;

	for (i = 0; i < sizeof escapes / sizeof *escapes; i++) {
		*to = escapes[i].is;
		if (strncmp(text, escapes[i].name, strlen(escapes[i].name)) ==
		    0)
			return strlen(escapes[i].name);
	}
	if (text[0] != '$' || text[1] != 'u' || !isxdigit((unsigned char)text[2]))
		return 0;
	code = strtoul(text + 2, &end, 16);
	*to = (char)code;
	return *end == '$' && code >= ' ' && code <= '~' ?
		       (size_t)(end + 1 - text) : 0;
}

char *
rust_plain(char *name)
{
	size_t n = strlen(name), length;
	char *from = name, *to = name, c;

	if (n <= 19 || strncmp(name + n - 19, "::h", 3) != 0 ||
	    strspn(name + n - 16, "0123456789abcdef") != 16)
		return name;
	name[n - 19] = '\0';
	while (*from != '\0') {
		if (*from == '_' && from[1] == '$' &&
		    (from == name || from[-1] == ':'))
			from++;
		length = read_escape(from, &c);
		if (length > 0) {
			*to++ = c;
			from += length;
		} else if (from[0] == '.' && from[1] == '.') {
			*to++ = ':';
			*to++ = ':';
			from += 2;
		} else {
			*to++ = *from++;
		}
	}
	*to = '\0';
	return name;
}
