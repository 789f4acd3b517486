/*
 * log.h: one line, one write, errno kept.
 */
#include "unit.h"

#include "log.h"

enum { MOST = 1012, LONGER = 3000 };

static char long_text[LONGER + 1];
static char word[] = "text";

static void
log_two(void *arg)
{
	errno = 4711;
	hz4_log("%s %d %zu", (const char *)arg, -42, SIZE_MAX);
	unit_child_need(errno == 4711);
	hz4_log("%p", (void *)(uintptr_t)0x1000);
	hz4_log("%s", "");
}

START_TEST(one_line_one_write)
{
	struct unit_end end;
	char want[200];

	unit_child(&end, log_two, word);
	ck_assert_int_eq(end.status, 0);
	snprintf(want, sizeof want, "hz4: text -42 %zu\nhz4: 0x1000\nhz4: \n",
		 SIZE_MAX);
	ck_assert_str_eq(end.text, want);
	ck_assert_uint_eq(end.writes, 3);
}
END_TEST

static void
log_long(void *arg)
{
	hz4_log("%.*s", *(int *)arg, long_text);
}

/* Every length around the border, and one far above. */
START_TEST(long_lines_are_cut)
{
	static const char prefix[] = "hz4: ";
	struct unit_end end;
	int n;

	memset(long_text, 'x', LONGER);
	for (n = MOST - 30; n <= MOST + 30; n++) {
		unit_child(&end, log_long, &n);
		ck_assert_uint_eq(end.writes, 1);
		ck_assert_int_eq(strncmp(end.text, prefix, 5), 0);
		ck_assert_int_eq(end.text[end.length - 1], '\n');
		ck_assert(unit_all(end.text + 5, end.length - 6, 'x'));
		if (n + 6 <= MOST)
			ck_assert_uint_eq(end.length, (unsigned)n + 6);
		ck_assert_uint_le(end.length, (unsigned)n + 6);
	}
	n = LONGER;
	unit_child(&end, log_long, &n);
	ck_assert_uint_eq(end.writes, 1);
	ck_assert_int_eq(end.text[end.length - 1], '\n');
	ck_assert_uint_ge(end.length, MOST);
	ck_assert_uint_le(end.length, MOST + 12);
}
END_TEST

static void
log_to_nobody(void *arg)
{
	(void)arg;
	close(STDERR_FILENO);
	errno = 4711;
	hz4_log("lost");
	_exit(errno == 4711 ? 0 : 1);
}

START_TEST(nowhere_to_write)
{
	unit_survives(log_to_nobody, NULL);
}
END_TEST

static void
die(void *arg)
{
	hz4_fatal("free(): %s: ptr %p", (const char *)arg,
		  (void *)(uintptr_t)0xabc0);
}

START_TEST(fatal_says_why_and_aborts)
{
	unit_fatal(die, word, "hz4: free(): text: ptr 0xabc0\n");
}
END_TEST

static void
die_mute(void *arg)
{
	close(STDERR_FILENO);
	die(arg);
}

START_TEST(fatal_without_stderr)
{
	struct unit_end end;

	unit_child(&end, die_mute, word);
	ck_assert(WIFSIGNALED(end.status));
	ck_assert_int_eq(WTERMSIG(end.status), SIGABRT);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, one_line_one_write);
	tcase_add_test(t, long_lines_are_cut);
	tcase_add_test(t, nowhere_to_write);
	tcase_add_test(t, fatal_says_why_and_aborts);
	tcase_add_test(t, fatal_without_stderr);
}

int
main(void)
{
	return unit_main("log", add);
}
