/*
 * e2e_figures.c - what libc's calls and hz4's own tell of the heap, at their
 * borders: more than an int holds, a mapping of its own, nothing to trim, a
 * buffer that is just too small.
 */
#include "e2e_check.h"

#include "hz4/hz4.h"

#include <limits.h>

enum { BIG = 64 * E2E_MIB };

/* A mapping counts once, as one. */
START_TEST(a_mapping_is_no_part_of_the_heap)
{
	struct mallinfo2 before = mallinfo2(), m;
	void *p = e2e_malloc(BIG);

	ck_assert_ptr_nonnull(p);
	m = mallinfo2();
	ck_assert_uint_eq(m.hblks, before.hblks + 1);
	ck_assert_uint_ge(m.hblkhd, before.hblkhd + BIG);
	ck_assert_uint_lt(m.uordblks, before.uordblks + BIG / 2);
	e2e_free(p);
	m = mallinfo2();
	ck_assert_uint_eq(m.hblkhd, before.hblkhd);
}
END_TEST

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
START_TEST(ints_end_at_their_most)
{
	size_t n = (size_t)INT_MAX + 5 * (size_t)E2E_MIB;
	void *p = sizeof(void *) < 8 ? NULL : e2e_malloc(n);

	/* A machine may have less. */
	if (p == NULL)
		return;
	ck_assert_uint_ge(mallinfo2().hblkhd, n);
	ck_assert_int_eq(mallinfo().hblkhd, INT_MAX);
	e2e_free(p);
}
END_TEST
#pragma GCC diagnostic pop

START_TEST(in_the_end_a_trim_finds_nothing)
{
	void *p = e2e_malloc(BIG / 4);
	int first, next = 1;

	ck_assert_ptr_nonnull(p);
	memset(p, 1, BIG / 4);
	e2e_free(p);
	first = malloc_trim(0);
	/* A trim lets go of what a cache had by then. */
	for (unsigned i = 0; i < 4 && next == 1; i++)
		next = malloc_trim(0);
	ck_assert_int_eq(first, 1);
	ck_assert_int_eq(next, 0);
}
END_TEST

START_TEST(values_fit_with_their_end_or_not)
{
	char text[64];
	size_t n;

	ck_assert_int_eq(hz4_option_get("purge_delay", text, sizeof(text)), 0);
	n = strlen(text);
	ck_assert_int_eq(hz4_option_get("purge_delay", text, n + 1), 0);
	memset(text, 'x', sizeof(text));
	ck_assert_int_eq(hz4_option_get("purge_delay", text, n), ERANGE);
	ck_assert_int_eq(text[n], 'x');
}
END_TEST

/* A figure of the whole heap. */
static size_t
figure(const char *name)
{
	static char text[1 << 16];
	char line[64];
	const char *at;

	ck_assert_uint_lt(hz4_stats_text(text, sizeof(text)), sizeof(text));
	snprintf(line, sizeof(line), "\n%s ", name);
	at = strstr(text, line);
	ck_assert_msg(at != NULL, "%s is not told", name);
	return strtoul(at + strlen(line), NULL, 10);
}

static size_t
told(void)
{
	return figure("live") + figure("cached") + figure("in_spans") +
	    figure("dirty_pages") - figure("purged_in_spans");
}

/* What the figures tell has changed as RSS has, within 5 % and 4 MiB. */
static void
compare(const char *when, size_t told_before, size_t before)
{
	size_t rss = e2e_minus(e2e_rss(), before);
	size_t figures = e2e_minus(told(), told_before);
	size_t off = rss > figures ? rss - figures : figures - rss;

	ck_assert_msg(off <= rss / 20 + 4 * (size_t)E2E_MIB,
	    "%s: %zu KiB resident, %zu told", when, rss >> 10, figures >> 10);
}

START_TEST(they_know_what_is_resident)
{
	enum { MANY = 600000, SIZE = 176, EACH = 500 };
	static char *p[MANY];
	size_t first, before;

	memset(p, 1, sizeof(p));
	first = told();
	before = e2e_rss();
	for (unsigned i = 0; i < MANY; i++) {
		p[i] = e2e_malloc(SIZE);
		memset(p[i], 1, SIZE);
	}
	compare("all in use", first, before);
	for (unsigned i = 0; i < MANY; i++)
		if (i % EACH != 0)
			e2e_free(p[i]);
	compare("most freed", first, before);
	malloc_trim(0);
	compare("trimmed", first, before);
	for (unsigned i = 0; i < MANY / 2; i++)
		if (i % EACH != 0) {
			p[i] = e2e_malloc(SIZE);
			memset(p[i], 1, SIZE);
		}
	compare("half of it used anew", first, before);
	for (unsigned i = 0; i < MANY; i++)
		if (i % EACH == 0 || i < MANY / 2)
			e2e_free(p[i]);
	malloc_trim(0);
	compare("all freed", first, before);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, a_mapping_is_no_part_of_the_heap);
	tcase_add_test(t, ints_end_at_their_most);
	tcase_add_test(t, in_the_end_a_trim_finds_nothing);
	tcase_add_test(t, values_fit_with_their_end_or_not);
	/* What others have resident beside it is not the program's. */
	if (!e2e_emulated())
		tcase_add_test(t, they_know_what_is_resident);
}

int
main(void)
{
	return e2e_main("figures", 60, add);
}
