/*
 * fuzz_option.c - any text as HZ4_OPTIONS and as a program's defaults,
 * against a second reading of the syntax: which assignments hold, how many
 * are complained of, when strict=1 stops.  Then all that prints options, in
 * buffers of every small size.
 *
 * The input's first 0 byte, if there is one, ends the program's defaults;
 * what follows is the environment's.
 */
#include "fuzz.h"

#include "option.c" /* its state is static, and has to start afresh */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

const char *hz4_default_options;

/* What an option should be by now. */
struct wanted {
	size_t number;
	char path[HZ4_OPTION_PATH_MAX];
};

static const size_t defaults[] = {
#define HZ4_OPTION(name, kind, value, least, most, text) value,
#include "option.def"
#undef HZ4_OPTION
};

static struct wanted wanted[HZ4_OPT_COUNT];
static unsigned complaints, mistakes;
static jmp_buf stopped;

/* log.c's own: that the text can be put together is what counts here. */
static void
take_line(const char *format, va_list args)
{
	char line[2000];
	int n = vsnprintf(line, sizeof line, format, args);

	need(n > 0 && strncmp(line, "HZ4_OPTIONS: ", 13) == 0, "\"%s\"", line);
}

void
hz4_log(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	take_line(format, args);
	va_end(args);
	complaints++;
}

void
hz4_fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	take_line(format, args);
	va_end(args);
	longjmp(stopped, 1);
}

/* The digits' value; false for anything else and above `most`. */
static bool
read_number(const char *s, size_t n, size_t most, size_t *value)
{
	size_t v = 0, digit, i;

	for (i = 0; i < n; i++) {
		if (strchr("0123456789", s[i]) == NULL)
			return false;
		digit = (size_t)(s[i] - '0');
		if (digit > most || v > (most - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*value = v;
	return n > 0;
}

/* One assignment, as hz4(7) describes it. */
static bool
expect(const char *s, size_t n)
{
	size_t key = 0, value, i;

	while (key < n && s[key] != '=')
		key++;
	for (i = 0; i < HZ4_OPT_COUNT; i++)
		if (strlen(rows[i].name) == key &&
		    strncmp(rows[i].name, s, key) == 0)
			break;
	if (i == HZ4_OPT_COUNT || key == n)
		return false;
	s += key + 1;
	n -= key + 1;
	if (rows[i].kind == PATH) {
		if (n == 0 || n >= HZ4_OPTION_PATH_MAX)
			return false;
		snprintf(wanted[i].path, sizeof wanted[i].path, "%.*s",
			 (int)n, s);
		return true;
	}
	if (!read_number(s, n, rows[i].most, &value) || value < rows[i].least)
		return false;
	if (rows[i].kind == POWER && (value & (value - 1)) != 0)
		return false;
	wanted[i].number = value;
	return true;
}

static void
expect_all(const char *s)
{
	const char *end;

	for (;; s = end + 1) {
		end = s;
		while (*end != ',' && *end != '\0')
			end++;
		if (end != s && !expect(s, (size_t)(end - s)))
			mistakes++;
		if (*end == '\0')
			return;
	}
}

static void
compare(void)
{
	size_t i;

	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		need(hz4_option((enum hz4_option)i) == wanted[i].number,
		     "%s is %zu, not %zu", rows[i].name,
		     hz4_option((enum hz4_option)i), wanted[i].number);
		if (rows[i].kind == PATH)
			need(strcmp(hz4_option_path((enum hz4_option)i),
				    wanted[i].path) == 0,
			     "%s is \"%s\"", rows[i].name,
			     hz4_option_path((enum hz4_option)i));
	}
}

/* What the list says is what a second process would have. */
static void
print(size_t size)
{
	char *all = calloc(1, 1 << 14), *cut = malloc(size);
	char text[HZ4_OPTION_PATH_MAX];
	size_t i;

	hz4_option_list(all, 1 << 14);
	memset(cut, '#', size);
	hz4_option_list(cut, size);
	need(size == 0 || (memchr(cut, 0, size) != NULL &&
			   strncmp(all, cut, strlen(cut)) == 0),
	     "cut to %zu", size);
	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		need(hz4_option_text(rows[i].name, text, sizeof text),
		     "%s", rows[i].name);
		need(hz4_option_text(rows[i].name, cut, size) ==
			     (strlen(text) < size),
		     "%s in %zu bytes", rows[i].name, size);
	}
	mistakes = complaints = 0;
	need(parse(all), "its own list: %s", all);
	compare();
	free(all);
	free(cut);
}

static void
start_afresh(void)
{
	size_t i;

	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		hz4_poke(&values[i], defaults[i]);
		wanted[i].number = defaults[i];
		wanted[i].path[0] = '\0';
	}
	memset(paths, 0, sizeof paths);
	environment_seen = false;
	complaints = mistakes = 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Exactly as long as needed, so that a byte too far is noticed. */
	char *text = malloc(size + 1), *rest;
	bool strict;

	memcpy(text, data, size);
	text[size] = '\0';
	start_afresh();
	rest = text + strlen(text) + 1;
	if (rest < text + size) {
		hz4_default_options = text;
		expect_all(text);
	} else {
		hz4_default_options = NULL;
		rest = text;
	}
	setenv("HZ4_OPTIONS", rest, 1);
	expect_all(rest);
	strict = wanted[HZ4_OPT_strict].number != 0 && mistakes != 0;
	if (setjmp(stopped) == 0) {
		hz4_option_init();
		need(!strict, "strict=1 does not stop");
	} else {
		need(strict, "stopped without a reason");
	}
	need(complaints == mistakes, "%u complaints of %u mistakes",
	     complaints, mistakes);
	compare();
	print(size % 97 * 3);
	free(text);
	return 0;
}
