/*
 * option.h: every row's default and bounds, what is refused and how it is
 * told, the environment and a program's own defaults.
 */
#include "unit.h"

#include "option.h"

enum kind { NUMBER, POWER, PATH };

struct row {
	const char *name;
	enum kind kind;
	size_t value, least, most;
};

static const struct row rows[] = {
#define HZ4_OPTION(name, kind, value, least, most, text) \
	{ #name, kind, value, least, most },
#include "option.def"
#undef HZ4_OPTION
};

/* What a program that links hz4 may define. */
const char *hz4_default_options;

static bool
assign(const char *text)
{
	return hz4_option_assign(text, strlen(text));
}

static bool
assign_to(const struct row *r, const char *value)
{
	char text[HZ4_OPTION_PATH_MAX + 100];

	snprintf(text, sizeof text, "%s=%s", r->name, value);
	return assign(text);
}

static bool
assign_number(const struct row *r, size_t value)
{
	char text[30];

	snprintf(text, sizeof text, "%zu", value);
	return assign_to(r, text);
}

START_TEST(defaults)
{
	char text[40], want[40];
	int i;

	ck_assert_int_eq(HZ4_OPT_COUNT, sizeof rows / sizeof *rows);
	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		if (rows[i].kind == PATH) {
			ck_assert_str_eq(
				hz4_option_path((enum hz4_option)i), "");
			continue;
		}
		ck_assert_uint_eq(hz4_option((enum hz4_option)i),
				  rows[i].value);
		ck_assert_uint_ge(rows[i].value, rows[i].least);
		ck_assert_uint_le(rows[i].value, rows[i].most);
		ck_assert(hz4_option_text(rows[i].name, text, sizeof text));
		snprintf(want, sizeof want, "%zu", rows[i].value);
		ck_assert_str_eq(text, want);
	}
}
END_TEST

START_TEST(bounds_of_every_number)
{
	static const char *const bad[] = {
		"", " ", "x", "-1", "+1", " 1", "1 ", "1x", "0x1", "1.0",
		"1=1", "18446744073709551616", "36893488147419103233",
		"99999999999999999999999999999999999999",
	};
	unsigned i, k;

	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		const struct row *r = &rows[i];

		if (r->kind == PATH)
			continue;
		ck_assert(assign_number(r, r->least));
		ck_assert_uint_eq(hz4_option((enum hz4_option)i), r->least);
		ck_assert(assign_number(r, r->most));
		if (r->most < SIZE_MAX) {
			ck_assert(!assign_number(r, r->most + 1));
			ck_assert(!assign_number(r, SIZE_MAX));
		}
		if (r->least > 0)
			ck_assert(!assign_number(r, r->least - 1));
		for (k = 0; k < sizeof bad / sizeof *bad; k++)
			ck_assert_msg(!assign_to(r, bad[k]), "%s=%s", r->name,
				      bad[k]);
		/* What was refused has changed nothing. */
		ck_assert_uint_eq(hz4_option((enum hz4_option)i), r->most);
	}
}
END_TEST

START_TEST(names)
{
	static const char *const unknown[] = {
		"", "=", "=1", "strict", "stric=1", "strictt=1", "STRICT=1",
		" strict=1", "strict =1", "no_such_option=1",
	};
	unsigned i;

	for (i = 0; i < sizeof unknown / sizeof *unknown; i++)
		ck_assert_msg(!assign(unknown[i]), "\"%s\"", unknown[i]);
	ck_assert_uint_eq(hz4_option(HZ4_OPT_strict), 0);
	/* Only `length` bytes are read. */
	ck_assert(hz4_option_assign("strict=1,verbose=1", 8));
	ck_assert_uint_eq(hz4_option(HZ4_OPT_strict), 1);
	ck_assert_uint_eq(hz4_option(HZ4_OPT_verbose), 0);
	ck_assert(!hz4_option_assign("strict=0", 7));
	ck_assert(!hz4_option_assign("strict=0", 6));
	ck_assert_uint_eq(hz4_option(HZ4_OPT_strict), 1);
}
END_TEST

START_TEST(powers_of_two)
{
	ck_assert(assign("os_page=16384"));
	ck_assert(!assign("os_page=12345"));
	ck_assert(!assign("os_page=65535"));
	ck_assert_uint_eq(hz4_option(HZ4_OPT_os_page), 16384);
	ck_assert(assign("os_page=0"));
	ck_assert_uint_eq(hz4_option(HZ4_OPT_os_page), 0);
}
END_TEST

START_TEST(paths)
{
	char path[HZ4_OPTION_PATH_MAX + 1], text[HZ4_OPTION_PATH_MAX];
	unsigned i;

	memset(path, 'p', sizeof path);
	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		const struct row *r = &rows[i];

		if (r->kind != PATH)
			continue;
		ck_assert(!assign_to(r, ""));
		ck_assert(assign_to(r, "/tmp/a=b %p"));
		ck_assert_str_eq(hz4_option_path((enum hz4_option)i),
				 "/tmp/a=b %p");
		path[HZ4_OPTION_PATH_MAX] = '\0';
		ck_assert(!assign_to(r, path));
		ck_assert_str_eq(hz4_option_path((enum hz4_option)i),
				 "/tmp/a=b %p");
		path[HZ4_OPTION_PATH_MAX - 1] = '\0';
		ck_assert(assign_to(r, path));
		ck_assert(hz4_option_text(r->name, text, sizeof text));
		ck_assert_str_eq(text, path);
		path[HZ4_OPTION_PATH_MAX - 1] = 'p';
		ck_assert(assign_to(r, "/short"));
		ck_assert_str_eq(hz4_option_path((enum hz4_option)i), "/short");
	}
}
END_TEST

START_TEST(text_of_a_value)
{
	char text[8];

	ck_assert(assign("purge_delay=12345"));
	memset(text, 'x', sizeof text);
	ck_assert(!hz4_option_text("no_such_option", text, sizeof text));
	ck_assert(!hz4_option_text("", text, sizeof text));
	ck_assert(!hz4_option_text("purge_delay=", text, sizeof text));
	ck_assert(!hz4_option_text("purge_delay", text, 5));
	ck_assert_int_eq(text[5], 'x');
	ck_assert(hz4_option_text("purge_delay", text, 6));
	ck_assert_str_eq(text, "12345");
	ck_assert_int_eq(text[6], 'x');
}
END_TEST

START_TEST(list_of_all)
{
	char whole[2000], text[2000], want[80];
	size_t length, size;
	int i;

	ck_assert(assign("purge_delay=12345"));
	hz4_option_list(whole, sizeof whole);
	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		snprintf(want, sizeof want, "%s=", rows[i].name);
		ck_assert_msg((strstr(whole, want) != NULL) ==
				      (rows[i].kind != PATH),
			      "%s in %s", want, whole);
	}
	ck_assert_ptr_nonnull(strstr(whole, "purge_delay=12345"));
	ck_assert(assign("stats_file=/tmp/f"));
	hz4_option_list(whole, sizeof whole);
	ck_assert_ptr_nonnull(strstr(whole, "stats_file=/tmp/f"));
	length = strlen(whole);
	for (size = 1; size <= length + 2; size++) {
		memset(text, 'x', sizeof text);
		hz4_option_list(text, size);
		ck_assert_uint_eq(strlen(text), hz4_min(size - 1, length));
		ck_assert_int_eq(strncmp(text, whole, strlen(text)), 0);
		ck_assert_int_eq(text[size], 'x');
	}
}
END_TEST

START_TEST(environment)
{
	setenv("HZ4_OPTIONS", ",,purge_delay=7,,thread_cache=99,"
			      "stats_file=/tmp/x,purge_delay=8,", 1);
	hz4_option_init();
	ck_assert_uint_eq(hz4_option(HZ4_OPT_purge_delay), 8);
	ck_assert_uint_eq(hz4_option(HZ4_OPT_thread_cache), 99);
	ck_assert_str_eq(hz4_option_path(HZ4_OPT_stats_file), "/tmp/x");
	/* Read once. */
	setenv("HZ4_OPTIONS", "purge_delay=9", 1);
	hz4_option_init();
	ck_assert_uint_eq(hz4_option(HZ4_OPT_purge_delay), 8);
}
END_TEST

START_TEST(defaults_of_the_program)
{
	hz4_default_options = "purge_delay=7,thread_cache=99";
	setenv("HZ4_OPTIONS", "purge_delay=8", 1);
	hz4_option_init();
	ck_assert_uint_eq(hz4_option(HZ4_OPT_purge_delay), 8);
	ck_assert_uint_eq(hz4_option(HZ4_OPT_thread_cache), 99);
}
END_TEST

START_TEST(defaults_without_environment)
{
	hz4_default_options = "purge_delay=7";
	unsetenv("HZ4_OPTIONS");
	hz4_option_init();
	ck_assert_uint_eq(hz4_option(HZ4_OPT_purge_delay), 7);
}
END_TEST

static void
read_environment(void *text)
{
	setenv("HZ4_OPTIONS", text, 1);
	hz4_option_init();
}

static void
init_with(struct unit_end *end, const char *text)
{
	char copy[HZ4_OPTION_PATH_MAX * 8];

	snprintf(copy, sizeof copy, "%s", text);
	unit_child(end, read_environment, copy);
}

START_TEST(good_ones_are_silent)
{
	struct unit_end end;

	init_with(&end, "purge_delay=7,strict=1");
	ck_assert_int_eq(end.status, 0);
	ck_assert_str_eq(end.text, "");
	init_with(&end, "");
	ck_assert_int_eq(end.status, 0);
	ck_assert_str_eq(end.text, "");
}
END_TEST

/* The line names what was written, the option and its bounds. */
START_TEST(a_bad_number_is_named)
{
	struct unit_end end;
	char text[100], least[30], most[30];
	unsigned i;

	for (i = 0; i < HZ4_OPT_COUNT; i++) {
		const struct row *r = &rows[i];

		if (r->kind == PATH)
			continue;
		snprintf(text, sizeof text, "%s=%zuk", r->name, r->most);
		init_with(&end, text);
		ck_assert_int_eq(end.status, 0);
		ck_assert_uint_eq(end.writes, 1);
		ck_assert_int_eq(strncmp(end.text, "hz4: HZ4_OPTIONS: ", 18),
				 0);
		ck_assert_ptr_nonnull(strstr(end.text, text));
		snprintf(least, sizeof least, " %zu ", r->least);
		snprintf(most, sizeof most, " %zu\n", r->most);
		ck_assert_ptr_nonnull(strstr(end.text, least));
		ck_assert_ptr_nonnull(strstr(end.text, most));
	}
}
END_TEST

START_TEST(an_unknown_name_gets_the_known_ones)
{
	struct unit_end end;
	unsigned i;

	init_with(&end, "no_such_option=1");
	ck_assert_int_eq(end.status, 0);
	ck_assert_uint_eq(end.writes, 1);
	ck_assert_ptr_nonnull(strstr(end.text, "no_such_option"));
	for (i = 0; i < HZ4_OPT_COUNT; i++)
		ck_assert_msg(strstr(end.text, rows[i].name) != NULL,
			      "%s in %s", rows[i].name, end.text);
}
END_TEST

static void
three_mistakes(void *arg)
{
	(void)arg;
	setenv("HZ4_OPTIONS",
	       "purge_delay=x,thread_cache=77,,nothing,strict=2,purge_lazy=1",
	       1);
	hz4_option_init();
	unit_child_need(hz4_option(HZ4_OPT_purge_delay) ==
			rows[HZ4_OPT_purge_delay].value);
	unit_child_need(hz4_option(HZ4_OPT_strict) == 0);
	unit_child_need(hz4_option(HZ4_OPT_thread_cache) == 77);
	unit_child_need(hz4_option(HZ4_OPT_purge_lazy) == 1);
}

START_TEST(a_line_for_every_mistake)
{
	struct unit_end end;

	unit_child(&end, three_mistakes, NULL);
	ck_assert_msg(end.status == 0, "%s", end.text);
	ck_assert_uint_eq(end.writes, 3);
	ck_assert_int_eq(end.text[end.length - 1], '\n');
}
END_TEST

START_TEST(strict_aborts)
{
	static const char *const texts[] = {
		"strict=1,purge_delay=x", "purge_delay=x,strict=1",
		"strict=1,no_such_option=1", "strict=1,stats_file=",
	};
	struct unit_end end;
	unsigned i;

	for (i = 0; i < sizeof texts / sizeof *texts; i++) {
		init_with(&end, texts[i]);
		ck_assert_msg(WIFSIGNALED(end.status), "%s", texts[i]);
		ck_assert_int_eq(WTERMSIG(end.status), SIGABRT);
		ck_assert_uint_eq(end.writes, 2);
		ck_assert_ptr_nonnull(strstr(end.text, "strict=1\n"));
	}
}
END_TEST

static void
read_defaults(void *text)
{
	hz4_default_options = text;
	unsetenv("HZ4_OPTIONS");
	hz4_option_init();
}

static void
read_defaults_first(void *text)
{
	hz4_default_options = text;
	setenv("HZ4_OPTIONS", "purge_delay=8", 1);
	hz4_option_init();
}

START_TEST(strict_counts_for_defaults_too)
{
	char text[] = "strict=1,purge_delay=x";
	struct unit_end end;

	unit_child(&end, read_defaults, text);
	ck_assert(WIFSIGNALED(end.status));
	ck_assert_int_eq(WTERMSIG(end.status), SIGABRT);
	/* Also where the environment's are good. */
	unit_child(&end, read_defaults_first, text);
	ck_assert(WIFSIGNALED(end.status));
}
END_TEST

/* Over-long names, numbers and paths: still one line each, none too long. */
START_TEST(over_long)
{
	char text[HZ4_OPTION_PATH_MAX * 4 + 1];
	struct unit_end end;
	unsigned i;

	for (i = 0; i < 3; i++) {
		memset(text, '1', sizeof text - 1);
		text[sizeof text - 1] = '\0';
		if (i < 2)
			memcpy(text, i ? "purge_delay=" : "stats_file=",
			       i ? 12 : 11);
		init_with(&end, text);
		ck_assert_int_eq(end.status, 0);
		ck_assert_uint_eq(end.writes, 1);
		ck_assert_uint_le(end.length, 512);
		ck_assert_ptr_eq(strchr(end.text, '\n'),
				 end.text + end.length - 1);
		if (i < 2)
			ck_assert_ptr_nonnull(strstr(end.text, i ?
				"a number from 0 to 3600000" : "a path of 1 to"));
	}
	/* What would break the line is shown as something else. */
	init_with(&end, "no\nsuch\033o\xc3\xbftion=1");
	ck_assert_uint_eq(end.writes, 1);
	ck_assert_ptr_nonnull(strstr(end.text, " no?such?o\xc3\xbftion=1, "));
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, defaults);
	tcase_add_test(t, bounds_of_every_number);
	tcase_add_test(t, names);
	tcase_add_test(t, powers_of_two);
	tcase_add_test(t, paths);
	tcase_add_test(t, text_of_a_value);
	tcase_add_test(t, list_of_all);
	tcase_add_test(t, environment);
	tcase_add_test(t, defaults_of_the_program);
	tcase_add_test(t, defaults_without_environment);
	tcase_add_test(t, good_ones_are_silent);
	tcase_add_test(t, a_bad_number_is_named);
	tcase_add_test(t, an_unknown_name_gets_the_known_ones);
	tcase_add_test(t, a_line_for_every_mistake);
	tcase_add_test(t, strict_aborts);
	tcase_add_test(t, strict_counts_for_defaults_too);
	tcase_add_test(t, over_long);
}

int
main(void)
{
	return unit_main("option", add);
}
