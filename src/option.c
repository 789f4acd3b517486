/*
 * option.c - parsing and printing of the rows in option.def.
 */
#include "option.h"

#include "log.h"
#include "view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

enum kind { NUMBER, POWER, PATH };

struct row {
	const char *name;
	enum kind kind;
	size_t least, most;
};

static const struct row rows[] = {
#define HZ4_OPTION(name, kind, value, least, most, text) \
	{ #name, kind, least, most },
#include "option.def"
#undef HZ4_OPTION
};

/* [atomic] relaxed: each value stands for itself. */
static _Atomic size_t values[] = {
#define HZ4_OPTION(name, kind, value, least, most, text) value,
#include "option.def"
#undef HZ4_OPTION
};

/* How many paths there are, counted on by the rows that are one. */
enum {
#define HZ4_OPTION(name, kind, value, least, most, text) \
	PATHS_BEFORE_##name, \
	PATHS_TO_##name = PATHS_BEFORE_##name - ((kind) != PATH),
#include "option.def"
#undef HZ4_OPTION
	PATHS
};

/* Written before other threads exist, by hz4_option_init. [const] */
static char paths[PATHS][HZ4_OPTION_PATH_MAX];

static bool environment_seen;

/* A program that links hz4 may define its own defaults. */
extern const char *hz4_default_options __attribute__((weak));

size_t
hz4_option(enum hz4_option which)
{
	return hz4_peek(&values[which]);
}

/* Where the path of row `i` is kept. */
static char *
path_of(int i)
{
	int n = 0;

	while (i-- > 0)
		n += rows[i].kind == PATH;
	return paths[n];
}

const char *
hz4_option_path(enum hz4_option which)
{
	return path_of((int)which);
}

static int
find_row(const char *name, size_t length)
{
	int i;

	for (i = 0; i < HZ4_OPT_COUNT; i++)
		if (strlen(rows[i].name) == length &&
		    memcmp(rows[i].name, name, length) == 0)
			return i;
	return -1;
}

static bool
assign_number(int i, const char *text, size_t length)
{
	size_t value = 0, k;

	if (length == 0)
		return false;
	for (k = 0; k < length; k++) {
		if (text[k] < '0' || text[k] > '9')
			return false;
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (size_t)(text[k] - '0'),
					   &value))
			return false;
	}
	if (value < rows[i].least || value > rows[i].most)
		return false;
	if (rows[i].kind == POWER && value != 0 && !hz4_is_pow2(value))
		return false;
	hz4_poke(&values[i], value);
	return true;
}

static bool
assign_path(int i, const char *text, size_t length)
{
	if (length == 0 || length >= HZ4_OPTION_PATH_MAX)
		return false;
	memcpy(path_of(i), text, length);
	path_of(i)[length] = '\0';
	return true;
}

/* Of what was wrong so many bytes are said. */
enum { SAID = 60 };

static void
complain(const char *text, size_t length, int i)
{
	int most = (int)hz4_min(length, SAID), k;
	char names[600];
	size_t used = 0;

	if (i >= 0) {
		if (rows[i].kind == PATH)
			hz4_log("HZ4_OPTIONS: %.*s: %s takes a path of 1 to "
				"%d bytes", most, text, rows[i].name,
				HZ4_OPTION_PATH_MAX - 1);
		else
			hz4_log("HZ4_OPTIONS: %.*s: %s takes a %s from %zu to "
				"%zu", most, text, rows[i].name,
				rows[i].kind == POWER ? "power of two" :
							"number",
				rows[i].least, rows[i].most);
		return;
	}
	names[0] = '\0';
	for (k = 0; k < HZ4_OPT_COUNT && used < sizeof names; k++)
		used += (size_t)snprintf(names + used, sizeof names - used,
					 " %s", rows[k].name);
	hz4_log("HZ4_OPTIONS: unknown option %.*s, known are:%s", most, text,
		names);
}

static bool
assign(const char *text, size_t length, bool loud)
{
	const char *equals = memchr(text, '=', length);
	size_t key = equals ? (size_t)(equals - text) : length;
	size_t rest = equals ? length - key - 1 : 0;
	int i = find_row(text, key);
	bool ok = false;

	if (i >= 0 && equals)
		ok = rows[i].kind == PATH ?
			     assign_path(i, equals + 1, rest) :
			     assign_number(i, equals + 1, rest);
	if (!ok && loud)
		complain(text, length, i);
	return ok;
}

bool
hz4_option_assign(const char *text, size_t length)
{
	return assign(text, length, false);
}

static bool
parse(const char *text)
{
	bool ok = true;

	while (*text != '\0') {
		size_t length = strcspn(text, ",");

		if (length > 0 && !assign(text, length, true))
			ok = false;
		text += length;
		text += *text == ',';
	}
	return ok;
}

/*
 * The environment's options; NULL where there are none, or the program has
 * more rights than its user.  Not by libc: in most programs it is the first
 * to ask for a variable, and its pages cost more than all else here.
 */
static const char *
from_environment(void)
{
	static const char name[] = "HZ4_OPTIONS=";
	char **variable;
	size_t n;

	if (getauxval(AT_SECURE))
		return NULL;
	for (variable = environ; *variable != NULL; variable++) {
		n = 0;
		while (name[n] != '\0' && (*variable)[n] == name[n])
			n++;
		if (name[n] == '\0')
			return *variable + n;
	}
	return NULL;
}

void
hz4_option_init(void)
{
	const char *text;
	bool ok = true;

	if (environment_seen || environ == NULL)
		return;
	environment_seen = true;
	if (&hz4_default_options != NULL && hz4_default_options != NULL)
		ok = parse(hz4_default_options);
	text = from_environment();
	if (text != NULL)
		ok = parse(text) && ok;
	if (!ok && hz4_option(HZ4_OPT_strict))
		hz4_fatal("HZ4_OPTIONS: stopped by strict=1");
}

static int
print_value(enum hz4_option i, char *buffer, size_t size)
{
	if (rows[i].kind == PATH)
		return snprintf(buffer, size, "%s", path_of(i));
	return snprintf(buffer, size, "%zu", hz4_option(i));
}

bool
hz4_option_text(const char *name, char *buffer, size_t size)
{
	int i = find_row(name, strlen(name));
	int n;

	if (i < 0)
		return false;
	n = print_value((enum hz4_option)i, buffer, size);
	return n >= 0 && (size_t)n < size;
}

void
hz4_option_list(char *buffer, size_t size)
{
	size_t used = 0;
	int i;

	if (size > 0)
		buffer[0] = '\0';
	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		if (rows[i].kind == PATH && path_of(i)[0] == '\0')
			continue;
		used += (size_t)snprintf(buffer + used, size - used, "%s%s=",
					 used ? "," : "", rows[i].name);
		if (used >= size)
			return;
		used += (size_t)print_value((enum hz4_option)i, buffer + used,
					    size - used);
		if (used >= size)
			return;
	}
}

const struct hz4_view_options hz4_view_options = {
	.profile_signal = HZ4_VIEW_OF(values[HZ4_OPT_profile_signal]),
	.profile_file = HZ4_VIEW_OF(paths[PATHS_BEFORE_profile_file]),
};
