/*
 * test_pages.c - the page heap at its edges: pages whose purge was refused,
 * the last look when the system refuses, neighbours on a huge page, and what
 * the child of a fork must not find.  test_pageheap.c has the rest.
 */
#include "unit_huge.h"

#include "meta.h"
#include "option.h"
#include "pageheap.h"
#include "pageruns.h"
#include "walker.h"

enum { PAGE = HZ4_PAGE, REGION = HZ4_REGION_MIN / HZ4_PAGE };

static struct hz4_pageheap_figures
figures(void)
{
	struct hz4_pageheap_figures f;

	hz4_pageheap_figures(&f);
	return f;
}

static uintptr_t
take(size_t pages, size_t align)
{
	uintptr_t start = hz4_pageheap_alloc(pages, align, false);

	unit_need(start != 0, "%zu pages", pages);
	return start;
}

static void
soil(uintptr_t start, size_t pages)
{
	memset((void *)start, 0xa5, pages * PAGE);
}

static size_t
purge(void)
{
	return hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
}

static void
in_order(void)
{
	ck_assert_uint_eq(hz4_check(), 0);
}

/* All free pages but none of the system's: one by one, then in no bin. */
static unsigned
take_all_free(uintptr_t *page, unsigned most)
{
	unsigned n = 0;

	while (figures().free > 0) {
		unit_need(n < most, "%u pages", n);
		page[n++] = take(1, PAGE);
	}
	return n;
}

/* What was refused is tried again once the pages have been used. */
START_TEST(refused_pages_are_purged_after_their_next_use)
{
	uintptr_t a;

	if (!HZ4_DEBUG_BOX)
		return;
	unit_os_init();
	a = take(10, PAGE);
	soil(a, 10);
	hz4_pageheap_free(a, 10, 0);
	hz4_os_fail_from(1);
	ck_assert_uint_eq(purge(), 0);
	hz4_os_fail_from(0);
	/* Until then they are left alone. */
	ck_assert_uint_eq(purge(), 0);
	in_order();
	ck_assert_uint_eq(take(10, PAGE), a);
	soil(a, 10);
	hz4_pageheap_free(a, 10, 0);
	ck_assert_uint_eq(figures().dirty, 10 * PAGE);
	ck_assert_uint_eq(purge(), 10 * PAGE);
	ck_assert_uint_eq(figures().dirty, 0);
	in_order();
}
END_TEST

/* Nor are they tried along with pages that have been used. */
START_TEST(refused_pages_are_left_alone)
{
	uintptr_t a, b;

	if (!HZ4_DEBUG_BOX)
		return;
	unit_os_init();
	a = take(10, PAGE);
	b = take(5, PAGE);
	take(1, PAGE);
	hz4_pageheap_free(a, 10, 0);
	hz4_os_fail_from(1);
	ck_assert_uint_eq(purge(), 0);
	hz4_os_fail_from(0);
	hz4_pageheap_free(b, 5, 0);
	ck_assert_uint_eq(figures().dirty, 5 * PAGE);
	ck_assert_uint_eq(purge(), 5 * PAGE);
	in_order();
}
END_TEST

/* What is resident is used again before what is not. */
START_TEST(dirty_pages_come_first)
{
	uintptr_t a, b;

	unit_os_init();
	a = take(3, PAGE);
	take(1, PAGE);
	b = take(3, PAGE);
	take(1, PAGE);
	hz4_pageheap_free(a, 3, 100);
	hz4_pageheap_free(b, 3, 200);
	ck_assert_uint_eq(hz4_pageheap_purge(150, 0, 0, SIZE_MAX), 3 * PAGE);
	ck_assert_uint_eq(take(3, PAGE), b);
	ck_assert_uint_eq(take(3, PAGE), a);
	in_order();
}
END_TEST

START_TEST(the_smallest_of_a_bin_is_cut)
{
	static uintptr_t page[16 * REGION];
	uintptr_t a, b, c;

	unit_os_init();
	a = take(70, PAGE);
	take(1, PAGE);
	b = take(100, PAGE);
	take(1, PAGE);
	c = take(80, PAGE);
	take_all_free(page, 16 * REGION);
	hz4_pageheap_free(c, 80, 0);
	hz4_pageheap_free(a, 70, 0);
	hz4_pageheap_free(b, 100, 0);
	ck_assert_uint_eq(take(66, PAGE), a);
	ck_assert_uint_eq(take(66, PAGE), c);
	ck_assert_uint_eq(take(66, PAGE), b);
	in_order();
}
END_TEST

/* The kernel mostly maps a new region where one was unmapped. */
START_TEST(new_regions_are_clean)
{
	enum { N = 2 * REGION };
	uintptr_t a;
	unsigned i, k;

	unit_os_init();
	for (i = 0; i < 4; i++) {
		a = take(N, PAGE);
		for (k = 0; k < N; k++)
			unit_need(!(hz4_pagemap_flags(a + k * PAGE) &
				    HZ4_PAGE_DIRTY), "page %u", k);
		ck_assert_uint_eq(hz4_pageheap_used(), N * PAGE);
		hz4_pageheap_free(a, N, 0);
		ck_assert_uint_eq(hz4_pageheap_used(), 0);
		hz4_pageheap_unmap(PAGE);
		ck_assert_uint_eq(figures().mapped, 0);
	}
	in_order();
}
END_TEST

/* Where a whole region has no room, as much as is wanted may have. */
START_TEST(a_region_may_be_small)
{
	const size_t room = HZ4_REGION_MIN - 2 * (size_t)PAGE;
	struct rlimit r;
	size_t pages = 0;
	uintptr_t a;
	FILE *f;

	if (HZ4_SHADOW || UNIT_THREAD_SANITIZER || sizeof(void *) < 8)
		return;
	unit_os_init();
	f = fopen("/proc/self/statm", "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "%zu", &pages), 1);
	fclose(f);
	r.rlim_cur = r.rlim_max =
		pages * (size_t)sysconf(_SC_PAGESIZE) + room;
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &r), 0);
	a = hz4_pageheap_alloc(4, PAGE, false);
	ck_assert_uint_ne(a, 0);
	ck_assert_uint_eq(figures().mapped, 4 * PAGE);
}
END_TEST

/* Parts that are given back take none of the structures put by for others. */
START_TEST(cuts_have_structures_of_their_own)
{
	enum { N = 60 };
	uintptr_t a;
	unsigned i;

	unit_os_init();
	a = take(N, PAGE);
	for (i = 1; i < N; i += 2) {
		ck_assert(hz4_pageheap_cut(a + i * PAGE, 1));
		ck_assert_uint_ge(hz4_runs.spares, hz4_runs.handed_out);
	}
	in_order();
	for (i = 0; i < N; i += 2)
		ck_assert(hz4_pageheap_cut(a + i * PAGE, 1));
	in_order();
	ck_assert_uint_eq(figures().free, figures().mapped);
}
END_TEST

/* Only the last of many runs in a bin fits, and the system has no memory. */
START_TEST(every_run_is_looked_at_in_the_end)
{
	static uintptr_t page[4 * REGION];
	uintptr_t fits = 0;
	unsigned n, i;

	if (!HZ4_DEBUG_BOX)
		return;
	unit_os_init();
	page[0] = take(2 * REGION + 1, PAGE);
	hz4_pageheap_free(page[0], 2 * REGION + 1, 0);
	n = take_all_free(page, 4 * REGION);
	for (i = 0; i < n && fits == 0; i++)
		if (page[i] % (8 * PAGE) == 0)
			fits = page[i];
	ck_assert_uint_ne(fits, 0);
	/* Those that were freed last come first. */
	hz4_pageheap_free(fits, 1, 0);
	for (i = 0; i < n; i++)
		if (page[i] / PAGE % 8 == 1 || page[i] / PAGE % 8 == 3 ||
		    page[i] / PAGE % 8 == 5)
			if (page[i] != fits + PAGE && page[i] != fits - PAGE)
				hz4_pageheap_free(page[i], 1, 0);
	ck_assert_uint_gt(figures().free, 16 * PAGE);
	in_order();
	hz4_os_fail_from(1);
	ck_assert_uint_eq(hz4_pageheap_alloc(1, 8 * PAGE, false), fits);
	ck_assert_uint_eq(hz4_pageheap_alloc(1, 8 * PAGE, false), 0);
	hz4_os_fail_from(0);
	in_order();
}
END_TEST

/* A huge page is resident as a whole, before what is used and behind it. */
START_TEST(neighbours_on_a_huge_page_are_dirty)
{
	uintptr_t a, b;

	if (!unit_have_huge(2))
		return;
	unit_os_init();
	ck_assert(hz4_option_assign("huge_threshold=0", 16));
	a = take(1, PAGE);
	ck_assert(hz4_pagemap_flags(a) & HZ4_PAGE_HUGE);
	ck_assert_uint_eq(figures().dirty, (REGION - 1) * PAGE);
	in_order();
	/* And where a run begins in the midst of one. */
	b = take(REGION, PAGE);
	ck_assert_uint_eq(figures().dirty, figures().free);
	in_order();
	hz4_pageheap_free(b, REGION, 0);
	b = take(1, (size_t)REGION * PAGE / 2);
	ck_assert_uint_eq(figures().dirty, figures().free);
	hz4_pageheap_free(a, 1, 0);
	hz4_pageheap_free(b, 1, 0);
	in_order();
	ck_assert_uint_eq(purge(), figures().free);
	ck_assert_uint_eq(figures().dirty, 0);
}
END_TEST

/* Two free neighbours of a run, and what both of them were. */
/* Whether khugepaged may fill a page: what the kernel says of its mapping. */
static bool
may_be_filled(uintptr_t page)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long from, to;
	bool here = false, huge = false;
	char line[256];

	unit_need(f != NULL, "no smaps");
	while (fgets(line, sizeof line, f) != NULL) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = page >= from && page < to;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			huge = strstr(line, " hg") != NULL;
	}
	fclose(f);
	return huge;
}

/* Of a huge page in use what is purged stays so; a free one is huge again. */
START_TEST(what_is_purged_is_not_filled_again)
{
	enum { HUGE = HZ4_REGION_ALIGN / HZ4_PAGE };
	uintptr_t a, b, c;

	if (!unit_have_huge(2))
		return;
	unit_os_init();
	ck_assert(hz4_option_assign("huge_threshold=0", 16));
	a = hz4_pageheap_alloc(HUGE, HZ4_REGION_ALIGN, true);
	memset((void *)a, 1, HZ4_REGION_ALIGN);
	ck_assert(may_be_filled(a));
	/* All of it: nothing is left that could be filled up. */
	hz4_pageheap_free(a, HUGE, 0);
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	ck_assert(may_be_filled(a));
	ck_assert_uint_eq(hz4_pageheap_alloc(1, HZ4_REGION_ALIGN, true), a);
	b = hz4_pageheap_alloc(1, HZ4_PAGE, false);
	ck_assert_uint_eq(b, a + HZ4_PAGE);
	hz4_pageheap_free(b, 1, 0);
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	ck_assert(!may_be_filled(a));
	ck_assert(!may_be_filled(a + HZ4_REGION_ALIGN - HZ4_PAGE));
	/* Its neighbours are not resident for its sake any more. */
	c = hz4_pageheap_alloc(1, HZ4_PAGE, false);
	ck_assert_uint_eq(c, b);
	ck_assert(!(hz4_pagemap_flags(c + HZ4_PAGE) & HZ4_PAGE_DIRTY));
	ck_assert(!may_be_filled(a));
	hz4_pageheap_free(c, 1, 0);
	hz4_pageheap_free(a, 1, 0);
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	ck_assert_uint_eq(hz4_pageheap_alloc(1, HZ4_REGION_ALIGN, true), a);
	ck_assert(may_be_filled(a));
}
END_TEST

START_TEST(a_run_grows_into_both_neighbours)
{
	uintptr_t a, b, c, d;

	unit_os_init();
	a = take(3, PAGE);
	b = take(1, PAGE);
	c = take(5, PAGE);
	d = take(1, PAGE);
	ck_assert_uint_eq(a + 3 * PAGE, b);
	ck_assert_uint_eq(c + 5 * PAGE, d);
	hz4_pageheap_free(a, 3, 100);
	hz4_pageheap_free(c, 5, 200);
	in_order();
	ck_assert_uint_eq(hz4_pageheap_oldest(), 100);
	hz4_pageheap_free(b, 1, 300);
	in_order();
	/* Most of the pages decide. */
	ck_assert_uint_eq(hz4_pageheap_oldest(), 200);
	ck_assert_uint_eq(figures().dirty, 9 * PAGE);
	ck_assert_uint_eq(take(9, PAGE), a);
	hz4_pageheap_free(a, 9, 0);
	hz4_pageheap_free(d, 1, 0);
	in_order();
	ck_assert_uint_eq(figures().free, figures().mapped);
}
END_TEST

/* Structures put by follow what is out: freeing much makes none needed. */
START_TEST(structures_are_put_by_once)
{
	static uintptr_t page[REGION];
	size_t mapped;
	unsigned i, k;

	unit_os_init();
	for (k = 0; k < 300; k++) {
		for (i = 0; i < REGION; i++)
			page[i] = take(1, PAGE);
		for (i = 0; i < REGION; i += 2)
			hz4_pageheap_free(page[i], 1, 0);
		for (i = 1; i < REGION; i += 2)
			hz4_pageheap_free(page[i], 1, 0);
		if (k == 0)
			mapped = hz4_meta_mapped();
	}
	in_order();
	ck_assert_uint_eq(hz4_runs.handed_out, 0);
	ck_assert_uint_eq(hz4_meta_mapped(), mapped);
	ck_assert_uint_le(hz4_runs.spares, 2 * REGION);
}
END_TEST

/* As if a thread that is gone had held the lock when this one forked. */
static void
lose_the_lock(void)
{
	hz4_poke(&hz4_runs.lock.word, UINT32_MAX - 1);
	hz4_pageheap_fork_child();
}

/* The free runs of before are nobody's neighbours. */
START_TEST(a_child_has_nothing_of_lost_runs)
{
	uintptr_t a, b;

	unit_os_init();
	a = take(1, PAGE);
	b = take(1, PAGE);
	take(1, PAGE);
	hz4_pageheap_free(a, 1, 0);
	lose_the_lock();
	ck_assert_uint_eq(figures().free, 0);
	ck_assert_uint_eq(figures().dirty, 0);
	ck_assert_uint_eq(hz4_pageheap_oldest(), UINT64_MAX);
	hz4_pageheap_free(b, 1, 0);
	ck_assert_uint_eq(figures().free, PAGE);
	ck_assert_uint_eq(hz4_pageheap_oldest(), 0);
	ck_assert(!hz4_pageheap_extend(a, 1));
	in_order();
	ck_assert_uint_eq(take(1, PAGE), b);
	hz4_pageheap_free(b, 1, 0);
	ck_assert_uint_eq(purge(), PAGE);
	in_order();
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, refused_pages_are_purged_after_their_next_use);
	tcase_add_test(t, refused_pages_are_left_alone);
	tcase_add_test(t, dirty_pages_come_first);
	tcase_add_test(t, the_smallest_of_a_bin_is_cut);
	tcase_add_test(t, new_regions_are_clean);
	tcase_add_test(t, a_region_may_be_small);
	tcase_add_test(t, cuts_have_structures_of_their_own);
	tcase_add_test(t, every_run_is_looked_at_in_the_end);
	tcase_add_test(t, neighbours_on_a_huge_page_are_dirty);
	tcase_add_test(t, what_is_purged_is_not_filled_again);
	tcase_add_test(t, a_run_grows_into_both_neighbours);
	tcase_add_test(t, structures_are_put_by_once);
	tcase_add_test(t, a_child_has_nothing_of_lost_runs);
}

int
main(void)
{
	return unit_main("pages", add);
}
