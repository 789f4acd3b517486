/*
 * test_holes.c - OS pages of spans in use that hold nothing: which are found,
 * when they go, and that what lies beside them stays.
 */
#include "unit.h"

#include "clock.h"
#include "heap.h"
#include "holes.h"
#include "option.h"
#include "pageheap.h"
#include "tune.h"
#include "walker.h"

#include <sys/mman.h>

enum {
	SIZE = 256,
	MANY = 2 * 3 * HZ4_HOLES_LEAST / SIZE,
	EACH = 200, /* of so many one stays */
};

/* The clock stands: only the test's steps begin a round. */
int
hz4_clock(clockid_t clock, struct timespec *t)
{
	(void)clock;
	t->tv_sec = 1000;
	t->tv_nsec = 0;
	return 0;
}

static unsigned char *object[MANY];

static bool
stays(unsigned i)
{
	return i % EACH == 0;
}

static void
fill(void)
{
	unsigned i;

	for (i = 0; i < MANY; i++) {
		if (object[i] != NULL)
			continue;
		object[i] = hz4_heap_malloc(SIZE);
		unit_need(object[i] != NULL, "no memory");
		memset(object[i], (int)(i % 255) + 1, SIZE);
	}
}

static void
thin_out(void)
{
	unsigned i;

	for (i = 0; i < MANY; i++) {
		if (stays(i))
			continue;
		hz4_heap_free(object[i]);
		object[i] = NULL;
	}
}

/* What was not freed is as it was. */
static void
look(void)
{
	unsigned i, k;

	for (i = 0; i < MANY; i++)
		for (k = 0; object[i] != NULL && k < SIZE; k++)
			unit_need(object[i][k] == i % 255 + 1, "object %u", i);
	ck_assert_uint_eq(hz4_check(), 0);
}

static size_t
resident(void)
{
	unsigned char in;
	uintptr_t page, last = 0;
	size_t bytes = 0;
	unsigned i;

	for (i = 0; i < MANY; i++) {
		page = (uintptr_t)object[i] / hz4_os_page * hz4_os_page;
		/* The next page to that of one that stays. */
		if (object[i] == NULL || page == last)
			continue;
		last = page;
		if (mincore((void *)(page + hz4_os_page), 1, &in) == 0)
			bytes += (in & 1) * hz4_os_page;
	}
	return bytes;
}

START_TEST(trim_takes_them)
{
	size_t all = MANY * (size_t)SIZE, before, least;

	ck_assert(hz4_option_assign("huge_pages=0", 12));
	fill();
	thin_out();
	before = resident();
	ck_assert_uint_eq(hz4_holes(), 0);
	hz4_heap_trim();
	/* A page for each that stays is in use. */
	least = all - (MANY / EACH + 1) * (2 * hz4_os_page);
	ck_assert_uint_ge(hz4_holes(), least - all / 8);
	ck_assert_uint_lt(hz4_holes(), all);
	ck_assert_uint_lt(resident(), before / 4);
	look();
	/* They have gone once and for all. */
	ck_assert_uint_eq(hz4_heap_trim(), 0);
	fill();
	look();
	ck_assert_uint_le(hz4_holes(), all / 8);
	thin_out();
	hz4_heap_trim();
	ck_assert_uint_ge(hz4_holes(), least - all / 8);
	look();
}
END_TEST

/* Rounds until one has been through all; the time of the next one. */
static uint64_t
go_round(uint64_t now)
{
	unsigned i;

	for (i = 0; i < 100000; i++)
		hz4_holes_step(now + i);
	for (; hz4_holes_midway(); i++)
		hz4_holes_step(now + i);
	return now + i;
}

START_TEST(rounds_take_what_stays)
{
	uint64_t now = hz4_os_now();
	unsigned i;

	ck_assert(hz4_option_assign("huge_pages=0", 12));
	fill();
	for (i = 0; i < 3; i++)
		now = go_round(now);
	ck_assert_uint_eq(hz4_holes(), 0);
	ck_assert(!hz4_holes_waiting(now));
	thin_out();
	hz4_heap_free(hz4_heap_malloc(SIZE));
	for (i = 0; i < 3; i++)
		now = go_round(now);
	ck_assert_uint_ge(hz4_holes(), HZ4_HOLES_LEAST);
	ck_assert(!hz4_holes_waiting(now));
	look();
	fill();
	look();
}
END_TEST

/* Objects of another size, in fresh memory, with no time in between. */
START_TEST(growth_takes_what_stays)
{
	enum { OTHER = 4000, PIECE = HZ4_HOLES_GROWTH / OTHER };
	uint64_t now = hz4_os_now();
	size_t bytes, holes;
	void *p = NULL;
	unsigned i;

	ck_assert(hz4_option_assign("huge_pages=0", 12));
	fill();
	thin_out();
	for (i = 0; i < 100; i++)
		hz4_holes_step(now);
	holes = hz4_holes();
	/* Whoever takes no fresh memory pays for no step. */
	for (i = 0; i < 100; i++)
		hz4_holes_step(now);
	ck_assert_uint_eq(hz4_holes(), holes);
	for (bytes = 0; bytes < MANY * (size_t)SIZE; bytes += OTHER) {
		p = hz4_heap_malloc(OTHER);
		unit_need(p != NULL, "no memory");
		if (bytes / OTHER % PIECE == 0)
			hz4_holes_step(now);
	}
	ck_assert_uint_ge(hz4_holes(), MANY * (size_t)SIZE / 2);
	look();
}
END_TEST

/* A page that was used between two rounds has not stayed empty. */
START_TEST(what_is_used_in_between_stays)
{
	uint64_t now = hz4_os_now();
	unsigned round;
	size_t holes;

	ck_assert(hz4_option_assign("huge_pages=0", 12));
	fill();
	thin_out();
	/* All is seen, and much waits: one round may have begun before. */
	for (round = 0; round < 2; round++) {
		do
			hz4_holes_step(now += HZ4_HOLES_ROUND);
		while (hz4_holes_midway());
	}
	ck_assert(hz4_holes_waiting(now));
	holes = hz4_holes();
	fill();
	thin_out();
	/* Not a whole round: what goes was seen twice since. */
	hz4_holes_step(now + HZ4_HOLES_ROUND);
	ck_assert_uint_eq(hz4_holes(), holes);
	look();
}
END_TEST

/* As free pages they stay for purge_delay. */
START_TEST(a_long_delay_holds_for_them)
{
	enum { DELAY = 60000 };
	uint64_t start = hz4_os_now(), now = start;

	ck_assert(hz4_option_assign("huge_pages=0", 12));
	ck_assert(hz4_option_assign("purge_delay=60000", 17));
	fill();
	thin_out();
	for (; now < start + DELAY / 3; now += 10) {
		hz4_holes_step(now);
		ck_assert(hz4_holes_midway() || !hz4_holes_waiting(now));
	}
	ck_assert_uint_eq(hz4_holes(), 0);
	now = go_round(now);
	ck_assert_uint_ge(hz4_holes(), HZ4_HOLES_LEAST);
	ck_assert_uint_ge(now, start + DELAY);
	look();
}
END_TEST

START_TEST(few_are_left)
{
	uint64_t now = hz4_os_now();
	unsigned i;

	for (i = 0; i < HZ4_HOLES_LEAST / SIZE / 2; i++)
		object[i] = hz4_heap_malloc(SIZE);
	for (i = 0; i < HZ4_HOLES_LEAST / SIZE / 2; i++)
		if (!stays(i)) {
			hz4_heap_free(object[i]);
			object[i] = NULL;
		}
	for (i = 0; i < 3; i++)
		now = go_round(now);
	ck_assert_uint_eq(hz4_holes(), 0);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Spans that go altogether have no holes any more. */
START_TEST(spans_that_go_take_theirs_along)
{
	unsigned i;

	fill();
	thin_out();
	hz4_heap_trim();
	ck_assert_uint_gt(hz4_holes(), 0);
	for (i = 0; i < MANY; i++) {
		hz4_heap_free(object[i]);
		object[i] = NULL;
	}
	hz4_heap_trim();
	ck_assert_uint_eq(hz4_holes(), 0);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* The system refuses: nothing is lost, nothing is counted. */
START_TEST(refused)
{
	uint64_t now = hz4_os_now();
	unsigned i;

	if (!HZ4_DEBUG_BOX)
		return;
	ck_assert(hz4_option_assign("huge_pages=0", 12));
	fill();
	thin_out();
	hz4_os_fail_from(1);
	hz4_heap_trim();
	for (i = 0; i < 4; i++)
		now = go_round(now);
	hz4_os_fail_from(0);
	ck_assert_uint_eq(hz4_holes(), 0);
	/* Nobody need try that again. */
	ck_assert(!hz4_holes_waiting(now));
	look();
	hz4_heap_trim();
	ck_assert_uint_gt(hz4_holes(), 0);
	fill();
	look();
}
END_TEST

static void *
churn(void *arg)
{
	unsigned i, k, n = (unsigned)(uintptr_t)arg;
	void *p[64];

	for (i = 0; i < 2000; i++) {
		for (k = 0; k < 64; k++) {
			p[k] = hz4_heap_malloc(SIZE);
			memset(p[k], (int)n, SIZE);
		}
		for (k = 0; k < 64; k++) {
			unit_need(*(unsigned char *)p[k] == n, "not mine");
			hz4_heap_free(p[k]);
		}
	}
	return NULL;
}

/* Others take and give objects of the same spans meanwhile. */
START_TEST(beside_others)
{
	pthread_t id[2];
	unsigned i;

	fill();
	thin_out();
	for (i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&id[i], NULL, churn,
						(void *)(uintptr_t)(i + 1)),
				 0);
	for (i = 0; i < 20; i++)
		hz4_heap_trim();
	for (i = 0; i < 2; i++)
		pthread_join(id[i], NULL);
	look();
	fill();
	look();
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, trim_takes_them);
	tcase_add_test(t, rounds_take_what_stays);
	tcase_add_test(t, growth_takes_what_stays);
	tcase_add_test(t, what_is_used_in_between_stays);
	tcase_add_test(t, a_long_delay_holds_for_them);
	tcase_add_test(t, few_are_left);
	tcase_add_test(t, spans_that_go_take_theirs_along);
	tcase_add_test(t, refused);
	tcase_add_test(t, beside_others);
}

int
main(void)
{
	return unit_main("holes", add);
}
