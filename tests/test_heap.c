/*
 * heap.h: malloc and its kin by their contracts, and what a program's
 * mistakes end in.
 */
#include "unit_huge.h"

#include "heap.h"
#include "option.h"
#include "os.h"
#include "span.h"

#include <sys/mman.h>

enum {
	KIB = 1024,
	MIB = 1024 * 1024,
	ERRNO = 4711,
	SLOTS = 512,
	THREADS = 4,
	ROUNDS = 20000,
	FAILURES = 60,
};

/* Around every border, from nothing to a mapping of its own. */
static const size_t sizes[] = {
	0, 1, 8, 15, 16, 17, 100, 255, 256, 257, 1000, HZ4_SMALL_MAX - 1,
	HZ4_SMALL_MAX, HZ4_SMALL_MAX + 1, 5000, 10000, 33333, HZ4_MID_MAX - 1,
	HZ4_MID_MAX, HZ4_MID_MAX + 1, 100000, HZ4_CLASS_MAX - 1, HZ4_CLASS_MAX,
	HZ4_CLASS_MAX + 1, MIB, 3 * MIB + 5, HZ4_HUGE_MIN - 1, HZ4_HUGE_MIN,
	HZ4_HUGE_MIN + 1, 2 * HZ4_HUGE_MIN,
};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* The compiler must not see what a size is too large for. */
static volatile size_t beyond = PTRDIFF_MAX;

/* Fill what is small, and both ends of what is not. */
static void
fill(void *p, size_t n, unsigned char byte)
{
	size_t part = hz4_min(n, 64 * KIB);

	memset(p, byte, part);
	memset((char *)p + n - part, byte, part);
}

static bool
filled(const void *p, size_t n, unsigned char byte)
{
	size_t part = hz4_min(n, 64 * KIB);

	return unit_all(p, part, byte) &&
	       unit_all((const char *)p + n - part, part, byte);
}

static void *
take(size_t size)
{
	void *p = hz4_heap_malloc(size);

	unit_need(p != NULL, "%zu bytes", size);
	unit_need((uintptr_t)p % HZ4_ALIGN == 0, "%p", p);
	unit_need(hz4_heap_usable(p) >= size, "%zu for %zu",
		  hz4_heap_usable(p), size);
	return p;
}

START_TEST(every_size_with_a_class)
{
	size_t size, usable;
	void *p;

	for (size = 1; size <= HZ4_CLASS_MAX;
	     size += size < 4 * HZ4_SMALL_MAX ? 1 : 61) {
		p = take(size);
		usable = hz4_heap_usable(p);
		unit_need(usable == hz4_heap_good_size(size), "%zu for %zu",
			  usable, size);
		/* All of it may be written. */
		((volatile char *)p)[0] = 1;
		((volatile char *)p)[usable - 1] = 1;
		hz4_heap_free(p);
	}
}
END_TEST

START_TEST(every_kind_of_size)
{
	void *p[SIZES];
	unsigned i;

	for (i = 0; i < SIZES; i++) {
		p[i] = take(sizes[i]);
		ck_assert_uint_eq(hz4_heap_usable(p[i]),
				  hz4_heap_good_size(sizes[i]));
		fill(p[i], hz4_heap_usable(p[i]), (uint8_t)i);
	}
	for (i = 0; i < SIZES; i++) {
		ck_assert(filled(p[i], hz4_heap_usable(p[i]), (uint8_t)i));
		errno = ERRNO;
		hz4_heap_free(p[i]);
		ck_assert_int_eq(errno, ERRNO);
	}
}
END_TEST

START_TEST(nothing_is_unique)
{
	void *p[100];
	unsigned i, k;

	for (i = 0; i < 100; i++) {
		p[i] = take(0);
		for (k = 0; k < i; k++)
			ck_assert_ptr_ne(p[i], p[k]);
	}
	for (i = 0; i < 100; i++)
		hz4_heap_free(p[i]);
	errno = ERRNO;
	hz4_heap_free(NULL);
	ck_assert_int_eq(errno, ERRNO);
	ck_assert_uint_eq(hz4_heap_usable(NULL), 0);
}
END_TEST

START_TEST(too_much)
{
	const size_t huge[] = { beyond, beyond + 1, SIZE_MAX - 4096, SIZE_MAX,
				beyond - 2 * MIB, beyond / 2 };
	void *p = take(100);
	unsigned half = sizeof(size_t) * 4 + 1;
	unsigned i;

	unit_narrow();
	fill(p, 100, 1);
#define REFUSED(call) \
	do { \
		errno = 0; \
		ck_assert_ptr_null(call); \
		ck_assert_int_eq(errno, ENOMEM); \
	} while (0)
	for (i = 0; i < sizeof huge / sizeof *huge; i++) {
		REFUSED(hz4_heap_malloc(huge[i]));
		REFUSED(hz4_heap_calloc(1, huge[i]));
		REFUSED(hz4_heap_calloc(huge[i], 1));
		REFUSED(hz4_heap_realloc(p, huge[i]));
		REFUSED(hz4_heap_realloc(NULL, huge[i]));
		REFUSED(hz4_heap_aligned(64, huge[i]));
		REFUSED(hz4_heap_aligned(MIB, huge[i]));
		/* Where there are few addresses it cannot be known before. */
		ck_assert(sizeof(size_t) < 8 ||
			  hz4_heap_good_size(huge[i]) == 0);
	}
	REFUSED(hz4_heap_calloc(beyond, 2));
	REFUSED(hz4_heap_calloc(SIZE_MAX, SIZE_MAX));
	REFUSED(hz4_heap_calloc((size_t)1 << half, (size_t)1 << half));
	REFUSED(hz4_heap_aligned(beyond + 1, 1));
#undef REFUSED
	ck_assert(filled(p, 100, 1));
	ck_assert_uint_eq(hz4_heap_good_size(SIZE_MAX), 0);
	ck_assert_uint_eq(hz4_heap_good_size(beyond + 1), 0);
	hz4_heap_free(p);
}
END_TEST

START_TEST(calloc_clears_what_was_used)
{
	unsigned i, round;

	for (round = 0; round < 3; round++)
		for (i = 0; i < SIZES; i++) {
			unsigned char *p = hz4_heap_calloc(1, sizes[i]);

			ck_assert_ptr_nonnull(p);
			ck_assert(unit_all(p, hz4_min(sizes[i], 4 * MIB), 0));
			memset(p, 0xa5, hz4_min(sizes[i], 4 * MIB));
			hz4_heap_free(p);
		}
	/* In a class that is no longer looked at. */
	for (i = 0; i < 4 * HZ4_CAREFUL_CALLS; i++) {
		unsigned char *p = hz4_heap_calloc(3, 37);

		ck_assert(unit_all(p, 111, 0));
		memset(p, 0xa5, 111);
		hz4_heap_free(p);
	}
	ck_assert_ptr_nonnull(hz4_heap_calloc(0, 100));
	ck_assert_ptr_nonnull(hz4_heap_calloc(100, 0));
}
END_TEST

/* From every size to every other. */
START_TEST(realloc_keeps_contents)
{
	unsigned i, k;
	size_t kept;
	char *p, *q;

	for (i = 0; i < SIZES; i++)
		for (k = 0; k < SIZES; k++) {
			if (sizes[k] == 0)
				continue;
			p = hz4_heap_realloc(NULL, sizes[i]);
			ck_assert_ptr_nonnull(p);
			memset(p, 0xa5, hz4_min(sizes[i], 256 * KIB));
			q = hz4_heap_realloc(p, sizes[k]);
			ck_assert_ptr_nonnull(q);
			kept = hz4_min(sizes[i], sizes[k]);
			unit_need(unit_all(q, hz4_min(kept, 256 * KIB), 0xa5),
				  "%zu to %zu", sizes[i], sizes[k]);
			unit_need(hz4_heap_usable(q) >= sizes[k], "%zu",
				  sizes[k]);
			q[sizes[k] - 1] = 1;
			hz4_heap_free(q);
		}
}
END_TEST

START_TEST(realloc_in_place)
{
	unsigned i;
	void *p;

	for (i = 0; i < SIZES; i++) {
		p = take(sizes[i]);
		if (sizes[i] > 0)
			ck_assert_ptr_eq(hz4_heap_realloc(
						 p, hz4_heap_usable(p)), p);
		/* To nothing frees. */
		ck_assert_ptr_null(hz4_heap_realloc(p, 0));
	}
	p = hz4_heap_realloc(NULL, 0);
	ck_assert_ptr_nonnull(p);
	hz4_heap_free(p);
}
END_TEST

/* Grow an object by one byte more than it has. */
static void *
grow(void *p)
{
	p = hz4_heap_realloc(p, hz4_heap_usable(p) + 1);
	ck_assert_ptr_nonnull(p);
	return p;
}

static bool
is_roomy(void *p, size_t size)
{
	return hz4_heap_usable(p) >= size + size / HZ4_GROWN_ROOM;
}

/* What grows once has what it asks for, what grows on by small steps more. */
START_TEST(growing_objects_get_room)
{
	static const size_t from[] = { 600, 5000, 40000 };
	size_t size, least = HZ4_GROWN_LEAST;
	void *p, *others[HZ4_GROWN_LATEST];
	unsigned i, k;

	for (i = 0; i < sizeof from / sizeof *from; i++) {
		p = take(from[i]);
		/* It may be where one was that is gone. */
		memset(hz4_tls_cache->grown, 0, sizeof hz4_tls_cache->grown);
		size = hz4_heap_usable(p) + 1;
		p = grow(p);
		ck_assert_uint_eq(hz4_heap_usable(p), hz4_heap_good_size(size));
		size = hz4_heap_usable(p) + 1;
		p = grow(p);
		unit_need(is_roomy(p, size), "%zu", size);
		/* By a large step. */
		size = hz4_heap_usable(p) * 2;
		p = hz4_heap_realloc(p, size);
		ck_assert_uint_eq(hz4_heap_usable(p), hz4_heap_good_size(size));
		/* Several at a time, and one too many. */
		for (k = 0; k < HZ4_GROWN_LATEST; k++)
			others[k] = grow(take(from[i] + k * from[i] / 2));
		size = hz4_heap_usable(p) + 1;
		p = grow(p);
		ck_assert_uint_eq(hz4_heap_usable(p), hz4_heap_good_size(size));
		for (k = 1; k < HZ4_GROWN_LATEST; k++) {
			size = hz4_heap_usable(others[k]) + 1;
			others[k] = grow(others[k]);
			unit_need(is_roomy(others[k], size), "%zu", size);
		}
		for (k = 0; k < HZ4_GROWN_LATEST; k++)
			hz4_heap_free(others[k]);
		hz4_heap_free(p);
	}
	/* Small ones have what they ask for. */
	for (p = take(100); hz4_heap_usable(p) < least;) {
		size = hz4_heap_usable(p) + 1;
		p = grow(p);
		ck_assert_uint_eq(hz4_heap_usable(p), hz4_heap_good_size(size));
	}
}
END_TEST

/* A hundred steps of 1 to 100 KB: moved where it has grown by half. */
START_TEST(small_steps_move_seldom)
{
	size_t size = 1000, i;
	unsigned moves = 0;
	char *p = take(size), *q;

	memset(p, 0xa5, size);
	for (i = 2; i <= 100; i++) {
		q = hz4_heap_realloc(p, i * 1000);
		ck_assert_ptr_nonnull(q);
		moves += q != p;
		unit_need(unit_all(q, size, 0xa5), "%zu", i);
		memset(q, 0xa5, i * 1000);
		size = i * 1000;
		p = q;
	}
	ck_assert_uint_le(moves, 14);
	hz4_heap_free(p);
}
END_TEST

/* Nor does a large one whose neighbours are taken by others. */
START_TEST(small_steps_of_large_objects_move_seldom)
{
	const size_t step = 20000, most = 4000000;
	void *p = take(300000), *q, *others[200];
	unsigned moves = 0, n = 0;
	size_t size;

	for (size = 320000; size <= most; size += step) {
		q = hz4_heap_realloc(p, size);
		ck_assert_ptr_nonnull(q);
		moves += q != p;
		p = q;
		unit_need(n < sizeof others / sizeof *others, "%u", n);
		others[n++] = take(300000);
	}
	ck_assert_uint_ge(moves, 1);
	ck_assert_uint_le(moves, 9);
	/* What is not used of it stays where it is until it shrinks. */
	q = hz4_heap_realloc(p, 1000000);
	ck_assert_ptr_eq(p, q);
	ck_assert_uint_lt(hz4_heap_usable(p), 1000000 + 2 * HZ4_PAGE);
	hz4_heap_free(p);
	while (n > 0)
		hz4_heap_free(others[--n]);
}
END_TEST

/* Whether a heap of 12 MB in objects of 20 KB goes on with huge pages. */
static bool
huge_after(void *(*make)(void))
{
	void *p = NULL;
	unsigned i;

	for (i = 0; i < 600; i++)
		p = make();
	return hz4_pagemap_flags((uintptr_t)p) & HZ4_PAGE_HUGE;
}

static void *
touched_at_its_start(void)
{
	return memset(take(20000), 1, 1);
}

static void *
zeroed(void)
{
	return hz4_heap_calloc(1, 20000);
}

static void *
grown(void)
{
	return hz4_heap_realloc(take(16000), 20000);
}

static void
huge_only_where_used(void *make)
{
	void *(*const *how)(void) = make;

	unit_child_need(huge_after(*how) == (*how != touched_at_its_start));
}

START_TEST(what_is_written_whole_has_huge_pages)
{
	static void *(*const makes[])(void) = {
		touched_at_its_start, zeroed, grown,
	};
	unsigned i;

	if (!unit_have_huge(32))
		return;
	for (i = 0; i < sizeof makes / sizeof *makes; i++)
		unit_survives(huge_only_where_used, (void *)&makes[i]);
}
END_TEST

/* OS pages of an object that are resident. */
static size_t
resident(void *p, size_t bytes)
{
	static unsigned char in[256 * KIB / 4096 + 1];
	uintptr_t from = (uintptr_t)p / hz4_os_page * hz4_os_page;
	size_t n = ((uintptr_t)p + bytes - from + hz4_os_page - 1) /
		   hz4_os_page, sum = 0, i;

	ck_assert_int_eq(mincore((void *)from, n * hz4_os_page, in), 0);
	for (i = 0; i < n; i++)
		sum += in[i] & 1;
	return sum;
}

/* New pages and purged ones are zero, and calloc leaves them so. */
START_TEST(calloc_touches_nothing_that_is_clean)
{
	enum { N = 40 };
	static const size_t clean[] = {
		33 * KIB, 40000, 66000, 140000, 256 * KIB - 100, 256 * KIB,
	};
	size_t bytes = clean[_i], sum;
	unsigned char *p[N];
	unsigned i, round;

	hz4_heap_free(take(1));
	for (round = 0; round < 3; round++) {
		sum = 0;
		for (i = 0; i < N; i++) {
			p[i] = hz4_heap_calloc(1, bytes);
			sum += resident(p[i], bytes);
			unit_need(filled(p[i], bytes, 0), "%u", i);
			memset(p[i], 0xa5, bytes);
		}
		/* Their first page may be their neighbour's last. */
		ck_assert(round == 1 || sum <= N);
		for (i = 0; i < N; i++)
			hz4_heap_free(p[i]);
		if (round == 1)
			hz4_heap_trim();
	}
}
END_TEST

/* The thread is ahead by them, and gives the same bytes back. */
START_TEST(what_calloc_takes_is_counted)
{
	enum { N = 200, BYTES = 64 * KIB };
	struct hz4_cache *c;
	ptrdiff_t returned;
	size_t most = 0;
	void *p[N];
	unsigned i, fewer = 0;

	hz4_heap_free(take(1));
	c = hz4_tls_cache;
	for (i = 0; i < N; i++) {
		returned = c->returned;
		p[i] = hz4_heap_calloc(1, BYTES);
		unit_need(p[i] != NULL, "%u", i);
		/* Now and then the sum is told, and begins anew. */
		fewer += returned - c->returned >= BYTES;
		most = hz4_max(most, c->pace.ahead);
	}
	ck_assert_uint_ge(fewer, N - N / 4);
	/* Others are let run. */
	ck_assert_uint_ge(most, HZ4_PACE_AHEAD);
	ck_assert_uint_lt(most, HZ4_PACE_AHEAD + (1 << 20));
	for (i = 0; i < N; i++)
		hz4_heap_free(p[i]);
}
END_TEST

/* Of one that lies in both, what was used is cleared and no more. */
START_TEST(calloc_clears_what_was_used_of_an_object)
{
	enum { BYTES = 80 * KIB };
	struct hz4_span *s;
	char *p;
	unsigned i;

	/* It writes to what is nobody's. */
	if (HZ4_SHADOW)
		return;
	p = take(BYTES);
	s = hz4_pagemap_owner((uintptr_t)p);
	ck_assert_uint_eq((uintptr_t)p, s->start);
	/* A page of the next one, as if the pages had come dirty. */
	hz4_pagemap_mark(s->start + HZ4_PAGE, 1, HZ4_PAGE_DIRTY, 0);
	memset(p + BYTES, 1, HZ4_PAGE - (BYTES - HZ4_PAGE));
	p = hz4_heap_calloc(1, BYTES);
	ck_assert_uint_eq((uintptr_t)p, s->start + BYTES);
	ck_assert_uint_eq(resident(p, BYTES), 48 * KIB / hz4_os_page);
	for (i = 0; i < BYTES; i++)
		ck_assert_int_eq(p[i], 0);
}
END_TEST

START_TEST(alignments)
{
	size_t align;
	void *p[SIZES];
	unsigned i;

	for (align = 1; align <= (size_t)64 * MIB; align *= 2) {
		for (i = 0; i < SIZES; i++) {
			p[i] = hz4_heap_aligned(align, sizes[i]);
			unit_need(p[i] != NULL &&
					  (uintptr_t)p[i] % align == 0 &&
					  (uintptr_t)p[i] % HZ4_ALIGN == 0,
				  "%p: %zu to %zu", p[i], sizes[i], align);
			unit_need(hz4_heap_usable(p[i]) >= sizes[i], "%zu",
				  sizes[i]);
			fill(p[i], hz4_min(sizes[i], 4 * KIB), (uint8_t)i);
		}
		for (i = 0; i < SIZES; i++) {
			unit_need(filled(p[i], hz4_min(sizes[i], 4 * KIB),
					 (uint8_t)i), "%zu", sizes[i]);
			if (i % 2)
				p[i] = hz4_heap_realloc(p[i], sizes[i] + 1);
			hz4_heap_free(p[i]);
		}
	}
}
END_TEST

START_TEST(trim_gives_back)
{
	enum { N = 4000 };
	static void *p[N];
	size_t bytes;
	unsigned i;

	for (i = 0; i < N; i++) {
		p[i] = take(4000);
		memset(p[i], 1, 4000);
	}
	for (i = 0; i < N; i++)
		hz4_heap_free(p[i]);
	bytes = hz4_heap_trim();
	ck_assert_uint_ge(bytes, (size_t)N * 4000 / 2);
	ck_assert_uint_eq(hz4_heap_trim(), 0);
	hz4_heap_free(take(4000));
}
END_TEST

/* --- mistakes ------------------------------------------------------------ */

static char in_data[64] __attribute__((aligned(64)));
static void *at;

static void
free_it(void *arg)
{
	(void)arg;
	hz4_heap_free(at);
}

/* A small object may be found out when the caches are emptied. */
static void
free_and_flush(void *arg)
{
	(void)arg;
	hz4_heap_free(at);
	hz4_heap_trim();
}

static void
free_twice(void *arg)
{
	hz4_heap_free(at);
	free_and_flush(arg);
}

static void
free_twice_apart(void *arg)
{
	void *other[8];
	unsigned i;

	for (i = 0; i < 8; i++)
		other[i] = hz4_heap_malloc(hz4_heap_usable(at));
	hz4_heap_free(at);
	for (i = 0; i < 8; i++)
		hz4_heap_free(other[i]);
	free_and_flush(arg);
}

static void
resize_it(void *arg)
{
	(void)arg;
	at = hz4_heap_realloc(at, 100);
}

static void
measure_it(void *arg)
{
	(void)arg;
	at = (void *)hz4_heap_usable(at);
}

static void
expect_foreign(void *p)
{
	char line[100];

	at = p;
	snprintf(line, sizeof line,
		 "hz4: free(): invalid pointer or double free: ptr %p\n", p);
	unit_fatal(free_it, NULL, line);
	snprintf(line, sizeof line, "hz4: realloc(): invalid pointer: ptr %p\n",
		 p);
	unit_fatal(resize_it, NULL, line);
	snprintf(line, sizeof line,
		 "hz4: malloc_usable_size(): invalid pointer: ptr %p\n", p);
	unit_fatal(measure_it, NULL, line);
}

START_TEST(foreign_pointers)
{
	char local[64];

	take(100);
	expect_foreign(in_data);
	expect_foreign(in_data + 1);
	expect_foreign((void *)((uintptr_t)local & ~(uintptr_t)15));
	expect_foreign((void *)(uintptr_t)16);
	expect_foreign((void *)(uintptr_t)1);
	expect_foreign((void *)UINTPTR_MAX);
	expect_foreign((void *)(UINTPTR_MAX - 15));
	expect_foreign((void *)(UINTPTR_MAX / 2 + 1));
}
END_TEST

/* Also as the very first call of a process. */
START_TEST(foreign_pointer_first)
{
	expect_foreign(in_data);
}
END_TEST

START_TEST(interior_pointers)
{
	unsigned i;
	char *p;
	bool large;

	for (i = 5; i < SIZES; i++) {
		p = take(sizes[i]);
		at = p + 16;
		unit_fatal_start(free_and_flush, NULL,
				 "hz4: free(): pointer into an object: ");
		/* Of an object of a class they only know that it is none. */
		large = sizes[i] > HZ4_CLASS_MAX;
		unit_fatal_start(resize_it, NULL,
				 large ? "hz4: realloc(): pointer into " :
					 "hz4: realloc(): invalid pointer: ");
		if (large)
			unit_fatal_start(measure_it, NULL,
					 "hz4: malloc_usable_size(): pointer "
					 "into an object: ");
		at = p + 1;
		unit_fatal_start(free_it, NULL, "hz4: free(): invalid ");
		at = p + (sizes[i] & ~(size_t)15) - 16;
		if (at != p)
			unit_fatal_start(free_and_flush, NULL,
					 large ? "hz4: free(): invalid " :
						 "hz4: free(): pointer into ");
		hz4_heap_free(p);
	}
}
END_TEST

START_TEST(double_frees)
{
	unsigned i;

	for (i = 0; i < SIZES; i++) {
		at = take(sizes[i]);
		unit_fatal_start(free_twice, NULL, "hz4: free(): ");
		unit_fatal_start(free_twice_apart, NULL, "hz4: free(): ");
		hz4_heap_free(at);
	}
}
END_TEST

/* A second free that the cache learns of only after a batch has gone back. */
static void
free_twice_late(void *arg)
{
	static void *other[SLOTS];
	size_t size = hz4_heap_usable(at);
	unsigned i;

	(void)arg;
	for (i = 0; i < SLOTS; i++)
		other[i] = hz4_heap_malloc(size);
	for (i = 0; i < SLOTS / 2; i++)
		hz4_heap_free(other[i]);
	hz4_heap_free(at);
	for (; i < SLOTS; i++)
		hz4_heap_free(other[i]);
	hz4_heap_trim();
	hz4_heap_free(at);
	hz4_heap_trim();
}

START_TEST(double_frees_after_the_span_has_gone)
{
	unsigned i;

	for (i = 0; i < SIZES && sizes[i] <= HZ4_CLASS_MAX; i++) {
		at = take(sizes[i]);
		unit_fatal_start(free_twice_late, NULL, "hz4: free(): ");
		hz4_heap_free(at);
		hz4_heap_trim();
	}
}
END_TEST

/*
 * Freed by two threads: one cache still has the object when the other one
 * and the span have given it back.
 */
static void *filler[3 * SLOTS];

static void *
free_all(void *arg)
{
	unsigned i;

	hz4_heap_free(at);
	for (i = 0; i < 3 * SLOTS; i++)
		if (filler[i] != at)
			hz4_heap_free(filler[i]);
	hz4_heap_trim();
	return arg;
}

static void
free_in_two_threads(void *arg)
{
	size_t size = *(size_t *)arg;
	pthread_t id;
	unsigned i;

	for (i = 0; i < 64; i++)
		hz4_heap_free(hz4_heap_malloc(size));
	for (i = 0; i < 3 * SLOTS; i++)
		filler[i] = hz4_heap_malloc(size);
	at = filler[3 * SLOTS / 2];
	hz4_heap_free(at);
	unit_child_need(pthread_create(&id, NULL, free_all, NULL) == 0);
	unit_child_need(pthread_join(id, NULL) == 0);
	hz4_heap_trim();
}

/* What `free_so` does to objects of a class is fatal, from sizes[i] on. */
static void
need_fatal(void (*free_so)(void *size), unsigned i)
{
	for (; i < SIZES && sizes[i] <= HZ4_CLASS_MAX; i++)
		unit_fatal_start(free_so, (void *)(uintptr_t)&sizes[i],
				 "hz4: free(): ");
}

START_TEST(freed_by_two_threads)
{
	need_fatal(free_in_two_threads, 10);
}
END_TEST

/* The same with the first of both frees in a batch of its own. */
static void
free_between_batches(void *arg)
{
	size_t size = *(size_t *)arg;
	unsigned i;

	for (i = 0; i < SLOTS; i++)
		filler[i] = hz4_heap_malloc(size);
	at = filler[SLOTS / 2];
	for (i = 0; i < SLOTS; i++) {
		hz4_heap_free(filler[i]);
		if (i % 3 == 0 && filler[i] != at)
			hz4_heap_free(at);
	}
	hz4_heap_trim();
}

START_TEST(many_frees_of_one)
{
	need_fatal(free_between_batches, 0);
}
END_TEST

/* --- shadow -------------------------------------------------------------- */

/* An object says how long it is; its contents follow from that. */
struct header {
	size_t size;
	uint64_t key;
};

static _Atomic(struct header *) shared[SLOTS];

static size_t
any_size(uint64_t *seed)
{
	unsigned bit = (unsigned)unit_below(seed, unit_below(seed, 64) ?
					    13 : 22);

	return sizeof(struct header) + ((size_t)1 << bit) +
	       unit_below(seed, (size_t)1 << bit);
}

static void
write_all(struct header *h, size_t size, uint64_t key)
{
	h->size = size;
	h->key = key;
	memset(h + 1, (uint8_t)key, hz4_min(size - sizeof *h, 2000));
	((uint8_t *)h)[size - 1] = (uint8_t)key;
}

static void
read_all(const struct header *h)
{
	unit_need(unit_all(h + 1, hz4_min(h->size - sizeof *h, 2000),
			   (uint8_t)h->key) &&
			  ((const uint8_t *)h)[h->size - 1] == (uint8_t)h->key,
		  "%zu bytes at %p", h->size, (const void *)h);
}

static struct header *
any_object(uint64_t *seed)
{
	size_t size = any_size(seed);
	struct header *h;

	switch (unit_below(seed, 8)) {
	case 0:
		h = hz4_heap_calloc(1, size);
		unit_need(h != NULL && unit_all(h, hz4_min(size, 4096), 0),
			  "%zu", size);
		break;
	case 1:
		h = hz4_heap_aligned((size_t)32 << unit_below(seed, 9), size);
		break;
	default:
		h = hz4_heap_malloc(size);
	}
	unit_need(h != NULL && (uintptr_t)h % HZ4_ALIGN == 0, "%zu", size);
	write_all(h, size, unit_random(seed) | 1);
	return h;
}

static struct header *
resized(uint64_t *seed, struct header *h)
{
	size_t size = any_size(seed), kept = hz4_min(size, h->size);
	uint64_t key = h->key;

	h = hz4_heap_realloc(h, size);
	unit_need(h != NULL && h->key == key, "%zu", size);
	unit_need(unit_all(h + 1, hz4_min(kept - sizeof *h, 2000),
			   (uint8_t)key), "%zu", size);
	write_all(h, size, key);
	return h;
}

static void
exchange(uint64_t seed, unsigned rounds)
{
	struct header *h;
	unsigned i;

	for (i = 0; i < rounds; i++) {
		h = any_object(&seed);
		h = atomic_exchange(&shared[unit_below(&seed, SLOTS)], h);
		if (h == NULL)
			continue;
		read_all(h);
		if (unit_below(&seed, 4) == 0)
			h = resized(&seed, h);
		h->key = 0;
		hz4_heap_free(h);
		if (unit_below(&seed, 4096) == 0)
			hz4_heap_trim();
	}
}

static void *
exchange_in_thread(void *number)
{
	exchange(1 + (uintptr_t)number, ROUNDS);
	return NULL;
}

START_TEST(objects_go_from_thread_to_thread)
{
	unsigned i;

	/* With memory going back all the time, and without. */
	ck_assert(hz4_option_assign(_i ? "purge_delay=0" : "purge_delay=500",
				    _i ? 13 : 15));
	unit_threads(THREADS, exchange_in_thread);
	for (i = 0; i < SLOTS; i++)
		if (shared[i] != NULL) {
			read_all(shared[i]);
			hz4_heap_free(shared[i]);
		}
	hz4_heap_trim();
}
END_TEST

/* --- the system refuses -------------------------------------------------- */

/* Work that must come through with NULL here and there. */
static void
work_in_need(uint64_t seed)
{
	struct header *held[32] = { NULL }, *h;
	size_t size;
	unsigned i, k;

	for (i = 0; i < 600; i++) {
		k = (unsigned)unit_below(&seed, 32);
		if (held[k] != NULL) {
			read_all(held[k]);
			size = any_size(&seed);
			h = unit_below(&seed, 2) ?
				    hz4_heap_realloc(held[k], size) : NULL;
			if (h != NULL) {
				write_all(h, size, 7);
				held[k] = h;
				continue;
			}
			/* What was refused has changed nothing. */
			read_all(held[k]);
			errno = ERRNO;
			hz4_heap_free(held[k]);
			unit_need(errno == ERRNO, "%d", errno);
			held[k] = NULL;
			continue;
		}
		size = any_size(&seed) * (i % 50 == 0 ? 100 : 1);
		errno = ERRNO;
		switch (i % 3) {
		case 0:
			h = hz4_heap_calloc(size, 1);
			unit_need(h == NULL ||
					  unit_all(h, hz4_min(size, MIB), 0),
				  "%zu", size);
			break;
		case 1:
			h = hz4_heap_aligned((size_t)32 << i % 17, size);
			break;
		default:
			h = hz4_heap_malloc(size);
		}
		unit_need(h != NULL || errno == ENOMEM, "%d", errno);
		if (h != NULL)
			write_all(h, size, i);
		held[k] = h;
	}
	for (k = 0; k < 32; k++)
		if (held[k] != NULL) {
			read_all(held[k]);
			hz4_heap_free(held[k]);
		}
	hz4_heap_trim();
}

static void *
fail_and_recover(void *n)
{
	hz4_os_fail_from((uintptr_t)n);
	work_in_need(1 + (uintptr_t)n);
	hz4_os_fail_from(0);
	work_in_need(1);
	free_it(NULL);
	at = take(8 * MIB);
	return NULL;
}

static void
fail_from_here(void *n)
{
	fail_and_recover(n);
}

static void
fail_from_the_start(void *n)
{
	at = NULL;
	unit_child_need(hz4_tls_cache == &hz4_empty_cache);
	fail_and_recover(n);
}

START_TEST(no_memory_from_any_call_on)
{
	uintptr_t n;

	if (!HZ4_DEBUG_BOX)
		return;
	for (n = 1; n <= FAILURES; n++)
		unit_survives(fail_from_the_start, (void *)n);
	at = take(4 * MIB);
	work_in_need(3);
	for (n = 1; n <= FAILURES; n++)
		unit_survives(fail_from_here, (void *)n);
}
END_TEST

START_TEST(exhausted_and_back)
{
	static void *p[64];
	unsigned i, n;

	if (!HZ4_DEBUG_BOX)
		return;
	for (i = 0; i < 20; i++)
		hz4_heap_free(take(i * 999));
	hz4_os_fail_from(1);
	for (n = 0; n < 64 && (p[n] = hz4_heap_malloc(300000)) != NULL; n++)
		memset(p[n], (int)n, 300000);
	ck_assert_uint_lt(n, 64);
	ck_assert_int_eq(errno, ENOMEM);
	for (i = 0; i < n; i++) {
		ck_assert(unit_all(p[i], 300000, (uint8_t)i));
		hz4_heap_free(p[i]);
	}
	/* What was freed can be had without the system. */
	for (i = 0; i < n; i++) {
		p[i] = hz4_heap_malloc(300000);
		ck_assert_ptr_nonnull(p[i]);
	}
	hz4_os_fail_from(0);
	ck_assert_ptr_nonnull(hz4_heap_malloc(10 * MIB));
}
END_TEST

/* There is no memory for the room, but for what is asked for. */
START_TEST(room_to_grow_is_no_need)
{
	static void *p[64];
	const size_t pages = 5 * HZ4_PAGE;
	const unsigned small = hz4_sizeclass(100);
	void *growing = grow(take(HZ4_CLASS_MAX / 8 * 7)), *small_one;
	size_t cached;
	unsigned n;

	if (!HZ4_DEBUG_BOX)
		return;
	ck_assert_uint_eq(hz4_heap_usable(growing), HZ4_CLASS_MAX);
	small_one = take(100);
	/* Pages for more than two of those below. */
	hz4_heap_free(take(2 * MIB));
	hz4_os_fail_from(1);
	for (n = 0; n < 64 && (p[n] = hz4_heap_malloc(pages)) != NULL;)
		n++;
	ck_assert_uint_lt(n, 64);
	ck_assert_uint_gt(n, 2);
	hz4_heap_free(p[1]);
	hz4_heap_free(small_one);
	cached = hz4_cache_count(hz4_tls_cache, small);
	ck_assert_uint_gt(cached, 0);
	growing = grow(growing);
	ck_assert_ptr_eq(growing, p[1]);
	ck_assert_uint_eq(hz4_heap_usable(growing), pages);
	/* The cache was not asked to give anything back. */
	ck_assert_uint_eq(hz4_cache_count(hz4_tls_cache, small), cached);
	hz4_os_fail_from(0);
}
END_TEST

/* --- objects of no bytes ------------------------------------------------- */

enum { ZEROS = 10000 };

static void
read_it(void *p)
{
	*(volatile char *)p;
}

static void
write_it(void *p)
{
	*(volatile char *)p = 1;
}

START_TEST(no_bytes_are_out_of_reach)
{
	static char *p[ZEROS], *q;
	unsigned i;

	for (i = 0; i < ZEROS; i++) {
		p[i] = take(0);
		ck_assert_uint_eq(hz4_heap_usable(p[i]), 0);
		ck_assert(i == 0 || p[i] != p[i - 1]);
	}
	ck_assert_uint_eq(hz4_heap_good_size(0), 0);
	unit_no_access(read_it, p[0]);
	unit_no_access(write_it, p[ZEROS / 2]);
	unit_no_access(write_it, hz4_heap_calloc(0, 10));
	q = hz4_heap_realloc(p[0], 100);
	ck_assert_ptr_nonnull(q);
	fill(q, 100, 1);
	for (i = 1; i < ZEROS; i++)
		hz4_heap_free(p[i]);
	ck_assert(filled(q, 100, 1));
	hz4_heap_free(q);
	/* Their pages are as good as others. */
	hz4_heap_trim();
	for (i = 0; i < 100; i++) {
		p[i] = take(20000);
		fill(p[i], 20000, (uint8_t)i);
	}
	for (i = 0; i < 100; i++)
		hz4_heap_free(p[i]);
}
END_TEST

START_TEST(no_bytes_without_a_trap)
{
	void *p;

	ck_assert(hz4_option_assign("zero_trap=0", 11));
	p = take(0);
	write_it(p);
	ck_assert_uint_eq(hz4_heap_usable(p), 0);
	hz4_heap_free(p);
}
END_TEST

/* The system may refuse to close the pages, or to open them again. */
START_TEST(no_bytes_and_no_system)
{
	static void *p[ZEROS];
	unsigned long fail;
	unsigned i, n;

	if (!HZ4_DEBUG_BOX)
		return;
	for (fail = 1; fail < 8; fail++) {
		hz4_os_fail_from(fail);
		for (n = 0; n < ZEROS; n++)
			if ((p[n] = hz4_heap_malloc(0)) == NULL)
				break;
		for (i = 0; i < n; i++)
			hz4_heap_free(p[i]);
		hz4_heap_trim();
		hz4_os_fail_from(0);
		p[0] = take(1000);
		fill(p[0], 1000, 1);
		hz4_heap_free(p[0]);
	}
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, no_bytes_are_out_of_reach);
	tcase_add_test(t, no_bytes_without_a_trap);
	tcase_add_test(t, no_bytes_and_no_system);
	tcase_add_test(t, every_size_with_a_class);
	tcase_add_test(t, every_kind_of_size);
	tcase_add_test(t, nothing_is_unique);
	tcase_add_test(t, too_much);
	tcase_add_test(t, calloc_clears_what_was_used);
	tcase_add_loop_test(t, calloc_touches_nothing_that_is_clean, 0, 6);
	tcase_add_test(t, what_calloc_takes_is_counted);
	tcase_add_test(t, calloc_clears_what_was_used_of_an_object);
	tcase_add_test(t, realloc_keeps_contents);
	tcase_add_test(t, realloc_in_place);
	tcase_add_test(t, what_is_written_whole_has_huge_pages);
	tcase_add_test(t, growing_objects_get_room);
	tcase_add_test(t, small_steps_move_seldom);
	tcase_add_test(t, small_steps_of_large_objects_move_seldom);
	tcase_add_test(t, alignments);
	tcase_add_test(t, trim_gives_back);
	tcase_add_test(t, foreign_pointers);
	tcase_add_test(t, foreign_pointer_first);
	tcase_add_test(t, interior_pointers);
	tcase_add_test(t, double_frees);
	tcase_add_test(t, double_frees_after_the_span_has_gone);
	tcase_add_test(t, freed_by_two_threads);
	tcase_add_test(t, many_frees_of_one);
	tcase_add_loop_test(t, objects_go_from_thread_to_thread, 0, 2);
	tcase_add_test(t, no_memory_from_any_call_on);
	tcase_add_test(t, exhausted_and_back);
	tcase_add_test(t, room_to_grow_is_no_need);
}

int
main(void)
{
	return unit_main("heap", add);
}
