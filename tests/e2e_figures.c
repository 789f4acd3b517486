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

static void
add(TCase *t)
{
	tcase_add_test(t, a_mapping_is_no_part_of_the_heap);
	tcase_add_test(t, ints_end_at_their_most);
	tcase_add_test(t, in_the_end_a_trim_finds_nothing);
	tcase_add_test(t, values_fit_with_their_end_or_not);
}

int
main(void)
{
	return e2e_main("figures", 60, add);
}
