/*
 * pagemap.h: every address has an answer, entries over the border of two
 * leaves, and the one winner of a claim.
 *
 * No page of the map has to exist, so the tests register addresses that
 * they never touch.
 */
#include "unit.h"

#include "os.h"
#include "pagemap.h"

enum { PAGES = 40, ROUNDS = 2000, CLAIMERS = 4 };

/* Between two leaves, in an address space of more than one. */
static const uintptr_t border = (uintptr_t)(UINT64_C(5) << HZ4_LEAF_SHIFT);
static const uint64_t leaf = UINT64_C(1) << HZ4_LEAF_SHIFT;
static const uint64_t beyond = (uint64_t)HZ4_ROOT_ENTRIES << HZ4_LEAF_SHIFT;

static int owner_a, owner_b;
static uintptr_t start;

static void
reserve(void)
{
	unit_os_init();
	start = border - PAGES / 2 * HZ4_PAGE;
	ck_assert(hz4_pagemap_reserve(start - HZ4_PAGE,
				      (PAGES + 2) * HZ4_PAGE));
}

static unsigned
class_at(uintptr_t address)
{
	return hz4_pagemap_class((void *)address);
}

START_TEST(any_address_has_an_answer)
{
	static const uint64_t special[] = {
		0, 1, 16, 4096, UINT64_C(0x7fffffffffff), UINT64_MAX,
		UINT64_MAX - 15, UINT64_C(1) << 47, UINT64_C(1) << 48,
		UINT64_C(1) << 63, UINT64_C(0xffff800000000000),
	};
	uint64_t seed = 1;
	unsigned i;
	int local;

	for (i = 0; i < sizeof special / sizeof *special; i++)
		ck_assert_uint_eq(class_at((uintptr_t)special[i]),
				  HZ4_CLS_NONE);
	for (i = 0; i < 1000000; i++) {
		uintptr_t a = (uintptr_t)(unit_random(&seed) << 16 ^
					  unit_random(&seed));

		unit_need(class_at(a) == HZ4_CLS_NONE, "%p", (void *)a);
	}
	ck_assert_uint_eq(class_at((uintptr_t)&local), HZ4_CLS_NONE);
	ck_assert_uint_eq(class_at((uintptr_t)&owner_a), HZ4_CLS_NONE);
}
END_TEST

START_TEST(foreign_addresses)
{
	unsigned i;

	ck_assert(!hz4_pagemap_foreign((void *)(uintptr_t)HZ4_PAGE));
	ck_assert(!hz4_pagemap_foreign((void *)border));
	ck_assert(!hz4_pagemap_foreign((void *)(uintptr_t)(beyond - 16)));
	for (i = 1; i < HZ4_ALIGN; i++)
		ck_assert(hz4_pagemap_foreign((void *)(border + i)));
	if (beyond > UINTPTR_MAX)
		return;
	ck_assert(hz4_pagemap_foreign((void *)(uintptr_t)beyond));
	ck_assert(hz4_pagemap_foreign((void *)(UINTPTR_MAX - 15)));
}
END_TEST

START_TEST(leaves_are_made_for_a_range)
{
	if (sizeof(void *) < 8)
		return;
	unit_os_init();
	ck_assert(!hz4_pagemap_has_leaf(border - 1));
	ck_assert(!hz4_pagemap_has_leaf(border));
	ck_assert(hz4_pagemap_reserve(border - HZ4_PAGE, HZ4_PAGE));
	ck_assert(hz4_pagemap_has_leaf(border - 1));
	ck_assert(!hz4_pagemap_has_leaf(border));
	ck_assert(hz4_pagemap_reserve(border - HZ4_PAGE, 2 * HZ4_PAGE));
	ck_assert(hz4_pagemap_has_leaf(border));
	/* A reserved page is not ours yet. */
	ck_assert_uint_eq(class_at(border), HZ4_CLS_NONE);
	/* What is there stays when more is reserved. */
	hz4_pagemap_set(border, 1, 7, NULL);
	ck_assert(hz4_pagemap_reserve(border - HZ4_PAGE, 2 * HZ4_PAGE));
	ck_assert_uint_eq(class_at(border), 7);
	ck_assert(!hz4_pagemap_has_leaf(UINTPTR_MAX));
}
END_TEST

START_TEST(ranges_outside_the_map)
{
	if (beyond > UINTPTR_MAX)
		return;
	unit_os_init();
	ck_assert(!hz4_pagemap_reserve((uintptr_t)beyond, HZ4_PAGE));
	ck_assert(!hz4_pagemap_reserve((uintptr_t)beyond - HZ4_PAGE,
				       2 * HZ4_PAGE));
	ck_assert(!hz4_pagemap_reserve(UINTPTR_MAX - HZ4_PAGE + 1,
				       2 * HZ4_PAGE));
	ck_assert(hz4_pagemap_reserve((uintptr_t)beyond - HZ4_PAGE,
				      HZ4_PAGE));
}
END_TEST

START_TEST(entries_over_the_border)
{
	uintptr_t a;

	if (sizeof(void *) < 8)
		return;
	reserve();
	hz4_pagemap_set(start, PAGES, 7, &owner_a);
	for (a = start; a < start + PAGES * HZ4_PAGE; a += 4096) {
		ck_assert_uint_eq(class_at(a), 7);
		ck_assert_uint_eq(class_at(a + 4080), 7);
		ck_assert_ptr_eq(hz4_pagemap_owner(a + 1), &owner_a);
	}
	ck_assert_uint_eq(class_at(start - 16), HZ4_CLS_NONE);
	ck_assert_uint_eq(class_at(a), HZ4_CLS_NONE);
	/* Each leaf has entries of its own: the next one is not reserved. */
	ck_assert_uint_eq(class_at(border + (uintptr_t)leaf), HZ4_CLS_NONE);
	/* One page in the midst. */
	hz4_pagemap_set(border, 1, HZ4_CLS_RUN, &owner_b);
	ck_assert_uint_eq(class_at(border - 16), 7);
	ck_assert_uint_eq(class_at(border), HZ4_CLS_RUN);
	ck_assert_ptr_eq(hz4_pagemap_owner(border), &owner_b);
	ck_assert_uint_eq(class_at(border + HZ4_PAGE), 7);
	hz4_pagemap_set(start, PAGES, HZ4_CLS_NONE, NULL);
	for (a = start; a < start + PAGES * HZ4_PAGE; a += HZ4_PAGE)
		ck_assert_uint_eq(class_at(a), HZ4_CLS_NONE);
}
END_TEST

START_TEST(flags_over_the_border)
{
	const uint8_t both = HZ4_PAGE_DIRTY | HZ4_PAGE_FREE;
	uintptr_t a;

	if (sizeof(void *) < 8)
		return;
	reserve();
	hz4_pagemap_mark(start, PAGES, both, 0);
	hz4_pagemap_mark(border, 1, 0, HZ4_PAGE_DIRTY);
	hz4_pagemap_mark(border - HZ4_PAGE, 1, HZ4_PAGE_DIRTY, HZ4_PAGE_FREE);
	for (a = start; a < start + PAGES * HZ4_PAGE; a += HZ4_PAGE)
		ck_assert_uint_eq(hz4_pagemap_flags(a + 99),
				  a == border ? HZ4_PAGE_FREE :
				  a == border - HZ4_PAGE ? HZ4_PAGE_DIRTY :
							   both);
	ck_assert_uint_eq(hz4_pagemap_flags(start - 1), 0);
	ck_assert_uint_eq(hz4_pagemap_flags(a), 0);
	/* Flags and entries do not touch each other. */
	ck_assert_uint_eq(class_at(border), HZ4_CLS_NONE);
	hz4_pagemap_set(start, PAGES, 7, &owner_a);
	ck_assert_uint_eq(hz4_pagemap_flags(start), both);
}
END_TEST

START_TEST(claim_once)
{
	if (sizeof(void *) < 8)
		return;
	reserve();
	hz4_pagemap_set(start, 1, HZ4_CLS_RUN, &owner_a);
	ck_assert(!hz4_pagemap_claim(start, 7));
	ck_assert_uint_eq(class_at(start), HZ4_CLS_RUN);
	ck_assert(hz4_pagemap_claim(start, HZ4_CLS_RUN));
	ck_assert_uint_eq(class_at(start), HZ4_CLS_NONE);
	ck_assert(!hz4_pagemap_claim(start, HZ4_CLS_RUN));
}
END_TEST

static pthread_barrier_t round_begins;
static _Atomic unsigned winners;

static void *
claim_all(void *number)
{
	unsigned i;

	for (i = 0; i < ROUNDS; i++) {
		if (number == NULL) {
			winners = 0;
			hz4_pagemap_set(start, 1, HZ4_CLS_RUN, &owner_a);
		}
		pthread_barrier_wait(&round_begins);
		winners += hz4_pagemap_claim(start, HZ4_CLS_RUN);
		pthread_barrier_wait(&round_begins);
		unit_need(winners == 1, "%u winners", winners);
		pthread_barrier_wait(&round_begins);
	}
	return NULL;
}

START_TEST(one_of_many_wins_a_claim)
{
	if (sizeof(void *) < 8)
		return;
	reserve();
	pthread_barrier_init(&round_begins, NULL, CLAIMERS);
	unit_threads(CLAIMERS, claim_all);
}
END_TEST

START_TEST(no_memory_for_a_leaf)
{
	if (!HZ4_DEBUG_BOX || sizeof(void *) < 8)
		return;
	unit_os_init();
	hz4_os_fail_from(2);
	ck_assert(!hz4_pagemap_reserve(border - HZ4_PAGE, 2 * HZ4_PAGE));
	hz4_os_fail_from(0);
	ck_assert_uint_eq(class_at(border), HZ4_CLS_NONE);
	ck_assert(hz4_pagemap_reserve(border - HZ4_PAGE, 2 * HZ4_PAGE));
	hz4_pagemap_set(border - HZ4_PAGE, 2, 7, &owner_a);
	ck_assert_uint_eq(class_at(border), 7);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, any_address_has_an_answer);
	tcase_add_test(t, foreign_addresses);
	tcase_add_test(t, leaves_are_made_for_a_range);
	tcase_add_test(t, ranges_outside_the_map);
	tcase_add_test(t, entries_over_the_border);
	tcase_add_test(t, flags_over_the_border);
	tcase_add_test(t, claim_once);
	tcase_add_test(t, one_of_many_wins_a_claim);
	tcase_add_test(t, no_memory_for_a_leaf);
}

int
main(void)
{
	return unit_main("pagemap", add);
}
