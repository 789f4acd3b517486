/*
 * large.h: runs of pages and mappings of their own, resized in place or
 * moved, and the end of a program that frees the wrong address.
 */
#include "unit_huge.h"

#include "large.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "tune.h"

#include <sys/mman.h>
#include <sys/resource.h>

enum { MIB = 1024 * 1024, HUGE = HZ4_HUGE_MIN, PAGE = HZ4_PAGE };

static const size_t sizes[] = {
	1, 4096, HZ4_CLASS_MAX, HZ4_CLASS_MAX + 1, MIB - 1, MIB, 5 * MIB + 7,
	HUGE - PAGE, HUGE - 1, HUGE, HUGE + 1, HUGE + PAGE + 1, 3 * HUGE,
};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void
start(void)
{
	unit_os_init();
	hz4_sizeclass_init();
}

static struct hz4_large_figures
figures(void)
{
	struct hz4_large_figures f;

	hz4_large_figures(&f);
	return f;
}

/* A word every 4 KiB and at the end, so that huge ones stay cheap. */
static void
fill(void *p, size_t size, uint64_t key)
{
	size_t at;

	for (at = 0; at + 8 <= size; at += 4096)
		*(uint64_t *)((char *)p + at) = key + at;
}

static void
check(void *p, size_t size, uint64_t key)
{
	size_t at;

	for (at = 0; at + 8 <= size; at += 4096)
		unit_need(*(uint64_t *)((char *)p + at) == key + at,
			  "%zu of %zu", at, size);
}

static void *
take(size_t size, size_t align, bool zero)
{
	char *p = hz4_large_alloc(size, align, zero);
	size_t at, usable;

	unit_need(p != NULL, "%zu bytes", size);
	unit_need((uintptr_t)p % hz4_max(align, 16) == 0, "%p to %zu",
		  (void *)p, align);
	unit_need(hz4_pagemap_class(p) == HZ4_CLS_RUN, "%p", (void *)p);
	usable = hz4_large_usable(p, "test");
	unit_need(usable >= size && usable - size < PAGE, "%zu for %zu",
		  usable, size);
	for (at = 0; zero && at < usable; at += 512)
		unit_need(p[at] == 0, "%zu of %zu", at, usable);
	p[usable - 1] = 1;
	return p;
}

static void
give(void *p)
{
	hz4_large_free(p);
	unit_need(hz4_pagemap_class(p) == HZ4_CLS_NONE, "%p", p);
}

static void
nothing_left(void)
{
	struct hz4_large_figures f = figures();
	struct hz4_pageheap_figures pages;

	hz4_pageheap_figures(&pages);
	ck_assert_uint_eq(f.objects, 0);
	ck_assert_uint_eq(f.bytes, 0);
	ck_assert_uint_eq(f.mappings, 0);
	ck_assert_uint_eq(f.mapped, 0);
	ck_assert_uint_eq(pages.free, pages.mapped);
}

START_TEST(sizes_and_figures)
{
	void *p[SIZES];
	struct hz4_large_figures f;
	size_t bytes = 0, mapped = 0, mappings = 0;
	unsigned i;

	start();
	for (i = 0; i < SIZES; i++) {
		p[i] = take(sizes[i], 16, i % 2);
		fill(p[i], sizes[i], i);
		bytes += hz4_large_usable(p[i], "test");
		if (sizes[i] >= HUGE) {
			mappings++;
			mapped += hz4_large_usable(p[i], "test");
		}
		f = figures();
		ck_assert_uint_eq(f.objects, i + 1);
		ck_assert_uint_eq(f.bytes, bytes);
		ck_assert_uint_eq(f.mappings, mappings);
		ck_assert_uint_eq(f.mapped, mapped);
	}
	for (i = 0; i < SIZES; i++) {
		check(p[i], sizes[i], i);
		give(p[i]);
	}
	nothing_left();
}
END_TEST

/* Only the first page is known: the rest is no object. */
START_TEST(the_middle_is_not_ours)
{
	char *p;

	start();
	p = take(MIB, 16, false);
	ck_assert_uint_eq(hz4_pagemap_class(p + PAGE), HZ4_CLS_NONE);
	ck_assert_uint_eq(hz4_pagemap_class(p + MIB - 16), HZ4_CLS_NONE);
	give(p);
}
END_TEST

START_TEST(alignments)
{
	size_t align;
	unsigned i;

	start();
	for (align = 1; align <= (size_t)64 * MIB; align *= 4)
		for (i = 0; i < SIZES; i++) {
			void *p = take(sizes[i], align, false);

			fill(p, hz4_min(sizes[i], MIB), i);
			give(p);
		}
	nothing_left();
}
END_TEST

START_TEST(zeroed_after_use)
{
	unsigned i, round;

	start();
	for (round = 0; round < 3; round++)
		for (i = 0; i < SIZES; i++) {
			void *p = take(sizes[i], 16, true);

			memset(p, 0xa5, hz4_min(hz4_large_usable(p, ""),
						 4 * MIB));
			give(p);
		}
}
END_TEST

START_TEST(too_much)
{
	start();
	unit_narrow();
	errno = 4711;
	ck_assert_ptr_null(hz4_large_alloc(SIZE_MAX, 16, false));
	ck_assert_ptr_null(hz4_large_alloc(SIZE_MAX - PAGE, 16, true));
	ck_assert_ptr_null(hz4_large_alloc(PTRDIFF_MAX, 16, false));
	ck_assert_ptr_null(hz4_large_alloc(PTRDIFF_MAX / 2, 16, false));
	ck_assert_ptr_null(hz4_large_alloc(1, (size_t)PTRDIFF_MAX / 2 + 1,
					   false));
	ck_assert_ptr_null(hz4_large_alloc(1, (size_t)PTRDIFF_MAX + 1, false));
	nothing_left();
}
END_TEST

START_TEST(runs_resize_in_place)
{
	struct hz4_pageheap_figures before, after;
	void *p;

	start();
	p = take(16 * PAGE, 16, false);
	fill(p, 16 * PAGE, 1);
	hz4_pageheap_figures(&before);
	/* What is cut off is free for others. */
	ck_assert_ptr_eq(hz4_large_resize(p, 4 * PAGE - 100), p);
	ck_assert_uint_eq(hz4_large_usable(p, "test"), 4 * PAGE);
	ck_assert_uint_eq(figures().bytes, 4 * PAGE);
	hz4_pageheap_figures(&after);
	ck_assert_uint_eq(after.free, before.free + 12 * PAGE);
	check(p, 4 * PAGE, 1);
	/* And may be taken again while nobody has it. */
	ck_assert_ptr_eq(hz4_large_resize(p, 10 * PAGE), p);
	check(p, 4 * PAGE, 1);
	fill(p, 10 * PAGE, 2);
	ck_assert_uint_eq(figures().bytes, 10 * PAGE);
	ck_assert_ptr_eq(hz4_large_resize(p, 10 * PAGE), p);
	ck_assert_ptr_eq(hz4_large_resize(p, 10 * PAGE - 1), p);
	check(p, 10 * PAGE, 2);
	give(p);
	nothing_left();
}
END_TEST

START_TEST(room_stays_while_a_run_grows)
{
	size_t size;
	void *p;

	start();
	p = take(16 * PAGE, 16, false);
	hz4_large_ask(p, 4 * PAGE);
	for (size = 4 * PAGE; size <= 16 * PAGE; size += PAGE / 2) {
		ck_assert_ptr_eq(hz4_large_resize(p, size), p);
		ck_assert_ptr_eq(hz4_large_resize(p, size), p);
		ck_assert_uint_eq(hz4_large_usable(p, "test"), 16 * PAGE);
	}
	/* Whoever wants less has less. */
	ck_assert_ptr_eq(hz4_large_resize(p, 8 * PAGE), p);
	ck_assert_uint_eq(hz4_large_usable(p, "test"), 8 * PAGE);
	hz4_large_ask(p, 5 * PAGE);
	ck_assert_ptr_eq(hz4_large_resize(p, 5 * PAGE - 1), p);
	ck_assert_uint_eq(hz4_large_usable(p, "test"), 5 * PAGE);
	give(p);
	nothing_left();
}
END_TEST

START_TEST(runs_do_not_grow_over_others)
{
	char *p, *q;

	start();
	p = take(8 * PAGE, 16, false);
	ck_assert_ptr_eq(hz4_large_resize(p, 4 * PAGE), p);
	q = take(2 * PAGE, 16, false);
	/* Only when the second came right behind the first is it a test. */
	fill(p, 4 * PAGE, 1);
	fill(q, 2 * PAGE, 2);
	if (q == p + 4 * PAGE)
		ck_assert_ptr_null(hz4_large_resize(p, 5 * PAGE));
	ck_assert_uint_eq(hz4_large_usable(p, "test"), 4 * PAGE);
	check(p, 4 * PAGE, 1);
	check(q, 2 * PAGE, 2);
	ck_assert_uint_eq(figures().bytes, 6 * PAGE);
	/* Nor into what has a mapping of its own. */
	ck_assert_ptr_null(hz4_large_resize(q, 2 * (size_t)HUGE));
	ck_assert_ptr_null(hz4_large_resize(q, PTRDIFF_MAX));
	check(q, 2 * PAGE, 2);
	give(p);
	give(q);
	nothing_left();
}
END_TEST

START_TEST(mappings_grow_and_move)
{
	size_t size = HUGE, next;
	char *p, *q, *in_the_way[6];
	unsigned i;

	start();
	p = take(size, 16, false);
	fill(p, size, 1);
	for (i = 0; i < 6; i++) {
		/* So that some cannot grow where they are. */
		in_the_way[i] = take(HUGE, 16, false);
		next = size * 3 / 2 + 4096;
		q = hz4_large_resize(p, next);
		ck_assert_ptr_nonnull(q);
		ck_assert_uint_eq((uintptr_t)q % 4096, 0);
		ck_assert_uint_eq(hz4_pagemap_class(q), HZ4_CLS_RUN);
		if (q != p)
			ck_assert_uint_eq(hz4_pagemap_class(p), HZ4_CLS_NONE);
		ck_assert_uint_ge(hz4_large_usable(q, "test"), next);
		check(q, size, 1);
		/* What was added is zeroed: it came from the kernel. */
		ck_assert_int_eq(q[size], 0);
		ck_assert_int_eq(q[next - 1], 0);
		ck_assert_uint_eq(figures().mapped,
				  hz4_large_usable(q, "test") +
					  (i + 1) * (size_t)HUGE);
		p = q;
		size = next;
		fill(p, size, 1);
	}
	/* Shrinking stays where it is, whatever the size. */
	for (i = 0; i < 3; i++) {
		size = i == 0 ? HUGE + 4096 : HUGE / i - PAGE;
		q = hz4_large_resize(p, size);
		ck_assert_ptr_eq(q, p);
		ck_assert_uint_ge(hz4_large_usable(p, "test"), size);
		ck_assert_uint_lt(hz4_large_usable(p, "test"), size + PAGE);
		check(p, size, 1);
	}
	unit_narrow();
	ck_assert_ptr_null(hz4_large_resize(p, PTRDIFF_MAX / 2));
	ck_assert_ptr_null(hz4_large_resize(p, hz4_os_memory() + 1));
	check(p, size, 1);
	give(p);
	for (i = 0; i < 6; i++)
		give(in_the_way[i]);
	nothing_left();
}
END_TEST

static size_t
pages_mapped(void)
{
	size_t pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "%zu", &pages), 1);
	fclose(f);
	return pages;
}

/* A run whose neighbour behind is somebody's. */
static char *
take_blocked(size_t size)
{
	char *p = take(size + PAGE, 16, false);

	ck_assert_ptr_eq(hz4_large_resize(p, size), p);
	ck_assert(hz4_pageheap_extend((uintptr_t)p + size, 1));
	return p;
}

static void
unblock(char *p, size_t size)
{
	ck_assert(hz4_pageheap_cut((uintptr_t)p + size, 1));
}

START_TEST(runs_that_cannot_grow_move)
{
	struct hz4_pageheap_figures before, after;
	size_t size = 2 * MIB + PAGE, i;
	char *p, *q, *first;

	start();
	p = first = take_blocked(size);
	fill(p, size, 1);
	hz4_pageheap_figures(&before);
	q = hz4_large_resize(p, size + 1);
	ck_assert_ptr_nonnull(q);
	ck_assert_ptr_ne(q, p);
	ck_assert_uint_eq(hz4_pagemap_class(p), HZ4_CLS_NONE);
	ck_assert_uint_eq(hz4_pagemap_class(q), HZ4_CLS_RUN);
	check(q, size, 1);
	ck_assert_int_eq(q[size], 0);
	ck_assert_uint_eq(figures().mappings, 1);
	ck_assert_uint_eq(figures().mapped, hz4_large_usable(q, "test"));
	/* Whole page tables have moved. */
	ck_assert_uint_eq((uintptr_t)q % HZ4_REGION_ALIGN,
			  (uintptr_t)p % HZ4_REGION_ALIGN);
	/* Where it was is free, and clean. */
	hz4_pageheap_figures(&after);
	ck_assert_uint_eq(after.mapped, before.mapped);
	ck_assert_uint_eq(after.free, before.free + size);
	ck_assert_uint_eq(after.dirty, before.dirty);
	ck_assert_ptr_eq(take(size, 16, true), p);
	give(p);
	unblock(first, size);
	/* Room for the next steps, and more than the page heap has. */
	p = hz4_large_resize(q, size + size / HZ4_MOVED_ROOM - PAGE);
	ck_assert_ptr_eq(p, q);
	for (i = size; i <= 2 * (size_t)HUGE; i = i * 3 / 2) {
		q = hz4_large_resize(p, i);
		ck_assert_ptr_nonnull(q);
		check(q, size, 1);
		p = q;
	}
	ck_assert_ptr_eq(hz4_large_resize(p, size), p);
	check(p, size, 1);
	give(p);
	nothing_left();
}
END_TEST

/* Each costs the kernel a mapping, also in the heap, until it is purged. */
START_TEST(few_runs_move)
{
	struct hz4_pageheap_figures before, after;
	enum { MANY = HZ4_MOVED_MAX + 20 };
	void *p[MANY], *q;
	char *first[MANY];
	unsigned i, moved = 0, kept;

	start();
	for (i = 0; i < MANY; i++)
		p[i] = first[i] = take_blocked(HZ4_MOVED_MIN);
	for (i = 0; i < MANY; i++) {
		q = hz4_large_resize(p[i], HZ4_MOVED_MIN + 1);
		moved += q != NULL;
		p[i] = q != NULL ? q : p[i];
	}
	ck_assert_uint_eq(moved, HZ4_MOVED_MAX);
	ck_assert_uint_eq(figures().mappings, HZ4_MOVED_MAX);
	/* A few are kept for others, but count. */
	for (i = 0; i < HZ4_MOVED_MAX; i++)
		give(p[i]);
	kept = (unsigned)hz4_pageheap_moved();
	ck_assert_uint_gt(kept, HZ4_PURGE_ALLOWANCE / HZ4_MOVED_MIN / 2);
	ck_assert_uint_le(kept, HZ4_PURGE_ALLOWANCE / HZ4_MOVED_MIN + 1);
	for (i = 0; i < MANY; i++)
		unblock(first[i], HZ4_MOVED_MIN);
	for (i = HZ4_MOVED_MAX; i < MANY; i++)
		give(p[i]);
	nothing_left();
	/* A purge unmaps them. */
	hz4_pageheap_figures(&before);
	hz4_pageheap_purge(hz4_os_now(), 0, 0, SIZE_MAX);
	hz4_pageheap_figures(&after);
	ck_assert_uint_eq(hz4_pageheap_moved(), 0);
	ck_assert_uint_le(after.mapped, before.mapped - kept * HZ4_MOVED_MIN);
	ck_assert_uint_eq(after.dirty, 0);
	nothing_left();
}
END_TEST

/* What is resident anyway is used first, but not for a second copy. */
START_TEST(copied_where_pages_are_resident)
{
	char *p, *first;

	start();
	p = first = take_blocked(2 * MIB);
	fill(p, 2 * MIB, 1);
	give(take(4 * MIB, 16, false));
	ck_assert_ptr_null(hz4_large_resize(p, 2 * MIB + 1));
	hz4_large_note_whole(p, HZ4_CLASS_MAX);
	ck_assert_ptr_null(hz4_large_resize(p, 2 * MIB + 1));
	hz4_large_note_whole(p, 2 * MIB);
	p = hz4_large_resize(p, 2 * MIB + 1);
	ck_assert_ptr_nonnull(p);
	check(p, 2 * MIB, 1);
	give(p);
	unblock(first, 2 * MIB);
	nothing_left();
}
END_TEST

/* A move that is refused at any of its calls loses nothing. */
START_TEST(refused_moves)
{
	struct hz4_pageheap_figures pages;
	unsigned long fail;
	char *p, *q;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	for (fail = 1; fail <= 16; fail++) {
		p = take_blocked(2 * MIB);
		fill(p, 2 * MIB, fail);
		hz4_os_fail_from(fail);
		q = hz4_large_resize(p, 3 * MIB);
		hz4_os_fail_from(0);
		q = q != NULL ? q : p;
		check(q, 2 * MIB, fail);
		ck_assert_uint_eq(hz4_pagemap_class(q), HZ4_CLS_RUN);
		give(q);
		unblock(p, 2 * MIB);
		hz4_pageheap_purge(hz4_os_now(), 0, 0, SIZE_MAX);
		hz4_pageheap_figures(&pages);
		ck_assert_uint_eq(pages.free, pages.mapped);
		nothing_left();
	}
	/* At last nothing was refused. */
	ck_assert_ptr_ne(q, p);
}
END_TEST

/* One that the program has split cannot be moved, and nothing is lost. */
START_TEST(split_mappings_stay)
{
	size_t before;
	unsigned i;
	char *p;

	start();
	p = take(HUGE, 16, false);
	fill(p, HUGE, 1);
	ck_assert_int_eq(mprotect(p + PAGE, PAGE, PROT_READ), 0);
	before = pages_mapped();
	for (i = 0; i < 20; i++)
		ck_assert_ptr_null(hz4_large_resize(p, 2 * (size_t)HUGE));
	ck_assert_uint_le(pages_mapped(), before + HUGE / 4096 / 4);
	check(p, HUGE, 1);
	give(p);
	nothing_left();
}
END_TEST

/*
 * A mapping costs the page map nothing beyond its first page: one leaf, and
 * the kernel grants no more than half of the memory for sure.
 */
START_TEST(mappings_of_gigabytes)
{
	size_t size, before;
	void *p;

	start();
	size = sizeof(size_t) == 8 ? hz4_os_memory() / 2 : (size_t)1 << 28;
	size = hz4_max(size / PAGE * PAGE, HUGE);
	give(take(HUGE, 16, false));
	before = pages_mapped();
	p = hz4_large_alloc(size, 16, false);
	if (p == NULL) {
		printf("skipped: the system has no room for one\n");
		return;
	}
	ck_assert_uint_le(pages_mapped() - size / 4096, before + 256);
	give(p);
	ck_assert_uint_le(pages_mapped(), before + 256);
}
END_TEST

struct misuse {
	void *p;
	size_t (*usable)(const void *p, const char *call);
	void (*free)(void *p);
	unsigned times;
};

static void
misuse(void *arg)
{
	struct misuse *m = arg;

	for (; m->times > 0; m->times--) {
		if (m->free != NULL)
			m->free(m->p);
		else if (m->usable != NULL)
			m->usable(m->p, "ask()");
		else
			hz4_large_resize(m->p, MIB);
	}
}

/* Whether the page heap grows by huge pages. */
static bool
grows_huge(void)
{
	return hz4_pagemap_flags((uintptr_t)take(8 * MIB, 1, false)) &
	       HZ4_PAGE_HUGE;
}

START_TEST(runs_that_are_used_count_for_huge_pages)
{
	void *p;

	start();
	if (!unit_have_huge(32))
		return;
	p = take(8 * MIB, 1, false);
	ck_assert(!grows_huge());
	hz4_large_note_whole(p, 8 * MIB);
	hz4_large_note_whole(p, 4 * MIB);
	/* Half of what is mapped, then two thirds. */
	ck_assert(grows_huge());
	hz4_large_free(p);
	/* Its pages serve one of which nothing is known. */
	take(8 * MIB, 1, false);
	ck_assert(!grows_huge());
}
END_TEST

START_TEST(runs_that_grow_are_used)
{
	void *p;

	start();
	if (!unit_have_huge(32))
		return;
	p = take(8 * MIB, 1, false);
	ck_assert_ptr_eq(hz4_large_resize(p, 7 * MIB), p);
	ck_assert_ptr_eq(hz4_large_resize(p, 8 * MIB), p);
	ck_assert(grows_huge());
}
END_TEST

START_TEST(runs_that_shrink_count_for_less)
{
	void *p;

	start();
	if (!unit_have_huge(32))
		return;
	p = take(8 * MIB, 1, false);
	hz4_large_note_whole(p, 8 * MIB);
	if (_i == 0)
		ck_assert_ptr_eq(hz4_large_resize(p, 1 * MIB), p);
	else
		give(p);
	take((_i == 0 ? 7 : 8) * MIB, 1, false);
	ck_assert(!grows_huge());
}
END_TEST

START_TEST(interior_pointers_abort)
{
	char line[200];
	unsigned i;

	start();
	for (i = 0; i < SIZES; i++) {
		char *p = take(sizes[i], 16, false);
		size_t bytes = hz4_large_usable(p, "test");
		struct misuse m = { p + 16, NULL, hz4_large_free, 1 };

		snprintf(line, sizeof line, "hz4: free(): pointer into an "
			 "object: ptr %p, size %zu\n",
			 (void *)(p + 16), bytes);
		unit_fatal(misuse, &m, line);
		m.p = p + 4096 - 16;
		unit_fatal_start(misuse, &m,
				 "hz4: free(): pointer into an object: ");
		m.free = NULL;
		unit_fatal_start(misuse, &m,
				 "hz4: realloc(): pointer into an object: ");
		m.usable = hz4_large_usable;
		unit_fatal_start(misuse, &m,
				 "hz4: ask(): pointer into an object: ");
		give(p);
	}
}
END_TEST

/* Threads that move mappings into places that others have just left. */
enum { MOVERS = 8, MOVES = 1500 };

/*
 * Not under ThreadSanitizer: it does not see system calls that are made
 * without libc, and so takes a place that the kernel gives to one thread
 * after another for one that both share.
 */
static __attribute__((no_sanitize_thread)) void *
move_about(void *number)
{
	size_t size;
	unsigned i;
	char *p, *q;

	for (i = 0; i < MOVES; i++) {
		size = HUGE + (i % 7) * (size_t)PAGE;
		p = hz4_large_alloc(size, 16, false);
		unit_need(p != NULL, "%zu", size);
		*(uintptr_t *)p = (uintptr_t)number;
		q = hz4_large_resize(p, 2 * size);
		unit_need(q != NULL && *(uintptr_t *)q == (uintptr_t)number,
			  "%p", (void *)q);
		unit_need(hz4_pagemap_class(q) == HZ4_CLS_RUN,
			  "%p is not known any more", (void *)q);
		hz4_large_free(q);
	}
	return NULL;
}

/* The same with runs, whose places the page heap wants back. */
static __attribute__((no_sanitize_thread)) void *
move_runs_about(void *number)
{
	size_t size;
	unsigned i;
	char *p, *q;

	for (i = 0; i < MOVES; i++) {
		size = HZ4_MOVED_MIN + (i % 7) * (size_t)PAGE;
		p = hz4_large_alloc(size, 16, false);
		unit_need(p != NULL, "%zu", size);
		*(uintptr_t *)p = (uintptr_t)number;
		*(uintptr_t *)(p + size - 16) = (uintptr_t)number;
		q = hz4_large_resize(p, 4 * size);
		p = q != NULL ? q : p;
		unit_need(*(uintptr_t *)p == (uintptr_t)number &&
			  *(uintptr_t *)(p + size - 16) == (uintptr_t)number &&
			  hz4_pagemap_class(p) == HZ4_CLS_RUN,
			  "%p has changed", (void *)p);
		hz4_large_free(p);
	}
	return NULL;
}

START_TEST(moves_of_many_threads)
{
	start();
	unit_threads(MOVERS, _i == 0 ? move_about : move_runs_about);
	nothing_left();
}
END_TEST

START_TEST(no_memory)
{
	unsigned long fail;
	unsigned i;
	void *p, *q;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	for (fail = 1; fail <= 6; fail++)
		for (i = 0; i < SIZES; i++) {
			p = take(sizes[i], 16, false);
			fill(p, sizes[i], i);
			hz4_os_fail_from(fail);
			q = hz4_large_alloc(4 * sizes[i], 16, true);
			if (q != NULL)
				hz4_large_free(q);
			q = hz4_large_resize(p, 2 * sizes[i]);
			hz4_os_fail_from(0);
			q = q != NULL ? q : p;
			check(q, sizes[i], i);
			ck_assert_uint_eq(hz4_pagemap_class(q), HZ4_CLS_RUN);
			give(q);
			ck_assert_uint_eq(figures().objects, 0);
			ck_assert_uint_eq(figures().bytes, 0);
		}
}
END_TEST

/* The kernel keeps the mapping: its pages serve others, as they are. */
START_TEST(refused_unmap)
{
	struct hz4_pageheap_figures pages;
	char *p, *q;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	p = take(HUGE, 16, false);
	memset(p, 0xa5, HUGE);
	hz4_os_fail_from(1);
	errno = 4711;
	hz4_large_free(p);
	ck_assert_int_eq(errno, 4711);
	hz4_os_fail_from(0);
	ck_assert_uint_eq(figures().objects, 0);
	q = take(HUGE / 2, 16, true);
	ck_assert(unit_all(q, HUGE / 2 - 1, 0));
	give(q);
	hz4_pageheap_figures(&pages);
	ck_assert_uint_le(pages.free, pages.mapped);
}
END_TEST

/* A mapping for its alignment's sake may be less than one page of ours. */
START_TEST(refused_unmap_of_a_small_mapping)
{
	struct hz4_pageheap_figures before, after;
	void *run;
	char *p;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	run = take(MIB, 16, false);
	p = take(100, (size_t)2 * HZ4_REGION_MAX, false);
	ck_assert(hz4_pageheap_admit((uintptr_t)p - PAGE, 2 * PAGE));
	hz4_pageheap_figures(&before);
	hz4_os_fail_from(1);
	hz4_large_free(p);
	hz4_os_fail_from(0);
	/* The page in front is none of it. */
	ck_assert_uint_eq(hz4_pagemap_flags((uintptr_t)p - PAGE), 0);
	ck_assert_ptr_null(hz4_pagemap_owner((uintptr_t)p - PAGE));
	hz4_pageheap_figures(&after);
	ck_assert_uint_eq(after.free - before.free,
			  after.mapped - before.mapped);
	give(run);
}
END_TEST

static size_t
dirty(void)
{
	return hz4_pageheap_dirty();
}

static void
start_patient(void)
{
	start();
	ck_assert(hz4_option_assign("purge_delay=100000", 18));
}

/* A loop that takes and frees a large object has the same pages each time. */
START_TEST(mappings_in_turn_keep_their_pages)
{
	void *p[4];
	unsigned i;

	start_patient();
	for (i = 0; i < 4; i++) {
		p[i] = take(HUGE + MIB - i * PAGE, 16, i == 3);
		ck_assert_uint_eq(figures().mappings, 1);
		fill(p[i], HUGE, i);
		give(p[i]);
		ck_assert_uint_eq(figures().mapped, 0);
		ck_assert_uint_eq(dirty(), i < 1 ? 0 : HUGE + MIB - PAGE);
	}
	ck_assert_ptr_eq(p[2], p[1]);
	ck_assert_ptr_eq(p[3], p[2]);
	nothing_left();
	/* Purged, it goes with its addresses. */
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	ck_assert_uint_eq(dirty(), 0);
	ck_assert_uint_eq(hz4_pageheap_moved(), 0);
}
END_TEST

/* OS pages of a mapping that are resident. */
static size_t
resident(void *p, size_t size)
{
	static unsigned char in[HUGE / 4096];
	size_t i, n = 0;

	ck_assert_uint_le(size / hz4_os_page, sizeof in);
	ck_assert_int_eq(mincore(p, size, in), 0);
	for (i = 0; i < size / hz4_os_page; i++)
		n += in[i] & 1;
	return n;
}

/* The program's use of the last one tells what calloc has to touch. */
START_TEST(calloc_fetches_pages_that_few_used)
{
	const size_t part = HUGE / HZ4_KEPT_LOOKS;
	unsigned parts, i;
	char *p;

	start_patient();
	give(take(HUGE, 16, false));
	for (parts = 0; parts <= HZ4_KEPT_LOOKS; parts++) {
		p = hz4_large_alloc(HUGE, 16, false);
		for (i = 0; i < HZ4_KEPT_LOOKS; i++)
			memset(p + i * part, 0, part);
		/* Pages that hold anything, whatever lies where. */
		for (i = 0; i < parts; i++)
			p[i * part + 1 + i * (HZ4_KEPT_LOOK - 2) / parts] = 1;
		give(p);
		ck_assert_uint_eq(dirty(), HUGE);
		p = hz4_large_alloc(HUGE, 16, true);
		ck_assert_uint_eq(dirty(), 0);
		/* Half of them, since the pages of a look may be huge. */
		i = resident(p, HUGE) >= HUGE / hz4_os_page / 2;
		ck_assert_uint_eq(i, parts > HZ4_KEPT_LOOKS / 2);
		for (i = 0; i < parts; i++)
			ck_assert_int_eq(p[i * part + 1 +
					   i * (HZ4_KEPT_LOOK - 2) / parts],
					 0);
		give(p);
		ck_assert_uint_eq(dirty(), HUGE);
	}
	nothing_left();
}
END_TEST

/* Where the system does not fetch them calloc clears them. */
START_TEST(calloc_clears_pages_that_stay)
{
	char *p;

	start_patient();
	give(take(HUGE, 16, false));
	p = take(HUGE, 16, false);
	p[HUGE / 2 + 5] = 1;
	give(p);
	ck_assert_uint_eq(dirty(), HUGE);
	hz4_os_fail_from(1);
	p = hz4_large_alloc(HUGE, 16, true);
	hz4_os_fail_from(0);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(p[HUGE / 2 + 5], 0);
	give(p);
	nothing_left();
}
END_TEST

/* One that is not followed by another as large goes at once. */
START_TEST(mappings_that_nothing_follows_go)
{
	void *p[3];
	unsigned i;

	start_patient();
	for (i = 0; i < 3; i++)
		p[i] = take(HUGE, 16, false);
	for (i = 0; i < 3; i++)
		give(p[i]);
	/* Larger ones, smaller ones, one that comes too late. */
	give(take(3 * (size_t)HUGE, 16, false));
	give(take(HUGE, 16, false));
	give(take(5 * (size_t)HUGE, 16, false));
	give(take(2 * HUGE, 16, false));
	ck_assert(hz4_option_assign("purge_delay=0", 13));
	give(take(2 * HUGE, 16, false));
	ck_assert_uint_eq(figures().mappings, 0);
	ck_assert_uint_eq(dirty(), 0);
	nothing_left();
}
END_TEST

/* The next larger one has the pages as well. */
START_TEST(kept_pages_grow)
{
	struct rusage before, after;
	unsigned i;
	char *p;

	start_patient();
	for (i = 0; i < 2; i++) {
		p = take(HUGE, 16, false);
		fill(p, HUGE, i);
		give(p);
	}
	ck_assert_uint_eq(dirty(), HUGE);
	getrusage(RUSAGE_SELF, &before);
	p = take(HUGE + 4 * MIB, 16, false);
	fill(p, HUGE, 3);
	getrusage(RUSAGE_SELF, &after);
	/* Sanitizers have pages of their own for these. */
	ck_assert(UNIT_THREAD_SANITIZER ||
		  after.ru_minflt - before.ru_minflt < HUGE / 4096 / 2);
	ck_assert_uint_eq(dirty(), 0);
	ck_assert_uint_eq(figures().mapped, HUGE + 4 * MIB);
	give(p);
	ck_assert_uint_eq(dirty(), HUGE + 4 * MIB);
	p = take(HUGE + 9 * MIB, 16, true);
	fill(p, HUGE + 9 * MIB, 4);
	give(p);
	/* Whether it grows in place or moves. */
	p = take(HUGE + 30 * MIB, 16, true);
	give(p);
	nothing_left();
}
END_TEST

START_TEST(few_mappings_stay)
{
	enum { MANY = 24 };
	const size_t most = hz4_min(hz4_os_memory() / HZ4_KEPT_SHARE,
				    HZ4_KEPT_MOST);
	const size_t others = most / 4 / PAGE;
	void *p[MANY];
	unsigned i, k;
	uintptr_t a;

	start_patient();
	for (k = 0; k < 3; k++) {
		a = hz4_pageheap_alloc(others, PAGE, false);
		ck_assert_uint_ne(a, 0);
		for (i = 0; i < MANY; i++) {
			give(take(2 * HUGE, 16, false));
			p[i] = take(2 * HUGE, 16, false);
		}
		hz4_pageheap_free(a, others, hz4_os_now());
		for (i = 0; i < MANY; i++)
			give(p[i]);
		unit_need(dirty() <= most, "%zu", dirty());
		unit_need(dirty() > most - 2 * HUGE, "%zu", dirty());
	}
	nothing_left();
}
END_TEST

/* What has moved on is no moved mapping's any more, whoever had it. */
START_TEST(kept_pages_that_move_on)
{
	unsigned i;
	char *p, *wall;

	start_patient();
	for (i = 0; i < 3; i++)
		give(take(HUGE, 16, false));
	ck_assert_uint_eq(hz4_pageheap_moved(), 1);
	p = take(HUGE, 16, false);
	fill(p, HUGE, 1);
	wall = take(PAGE, 16, false);
	hz4_large_note_whole(p, HUGE);
	p = hz4_large_resize(p, 3 * (size_t)HUGE);
	ck_assert_ptr_nonnull(p);
	check(p, HUGE, 1);
	ck_assert_uint_eq(figures().mappings, 1);
	ck_assert_uint_eq(hz4_pageheap_moved(), 0);
	give(p);
	give(wall);
	nothing_left();
}
END_TEST

/* What no kept pages can serve is no reason to keep any. */
START_TEST(aligned_ones_in_turn_go)
{
	unsigned i;

	start_patient();
	for (i = 0; i < 6; i++)
		give(take(HUGE, 2 * MIB, false));
	ck_assert_uint_eq(dirty(), 0);
	nothing_left();
}
END_TEST

/* Free pages that nobody has touched lie in front, or around. */
START_TEST(kept_pages_are_found_among_clean_ones)
{
	enum { PAGES = HUGE / PAGE };
	uintptr_t a;
	unsigned i;
	char *p;

	start_patient();
	a = hz4_pageheap_alloc(8 * PAGES, PAGE, false);
	ck_assert_uint_ne(a, 0);
	hz4_pageheap_free(a, 8 * PAGES, hz4_os_now());
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	ck_assert_uint_eq(dirty(), 0);
	for (i = 0; i < 6; i++) {
		give(take(HUGE, 16, false));
		unit_need(dirty() <= HUGE, "%zu", dirty());
	}
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	a = hz4_pageheap_alloc(PAGES, 4 * (size_t)HUGE, false);
	ck_assert_uint_ne(a, 0);
	hz4_pageheap_free(a, PAGES, hz4_os_now());
	p = take(HUGE, 16, true);
	ck_assert_uint_eq((uintptr_t)p, a);
	ck_assert_uint_eq(dirty(), 0);
	give(p);
	nothing_left();
}
END_TEST

/* Nor is a clean run that would do sooner than the kept one. */
START_TEST(kept_pages_are_found_behind_clean_ones)
{
	enum { PAGES = (2 * HUGE - 2 * MIB) / PAGE };
	uintptr_t a;
	char *p;

	start_patient();
	/* Its first page stays, so that it joins with no other. */
	a = hz4_pageheap_alloc(PAGES, PAGE, false);
	ck_assert_uint_ne(a, 0);
	ck_assert(hz4_pageheap_cut(a + PAGE, PAGES - 1));
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	give(take(2 * HUGE, 16, false));
	give(take(2 * HUGE, 16, false));
	ck_assert_uint_eq(dirty(), 2 * HUGE);
	p = take(HUGE / 2 * 3, 16, false);
	ck_assert_uint_eq(dirty(), HUGE / 2);
	give(p);
	hz4_pageheap_free(a, 1, hz4_os_now());
	nothing_left();
}
END_TEST

/* What a smaller one leaves of kept pages goes as they do. */
START_TEST(what_is_left_of_kept_pages_goes)
{
	struct hz4_pageheap_figures pages;
	unsigned i;
	char *p, *wall;

	start_patient();
	wall = take(PAGE, 16, false);
	hz4_pageheap_figures(&pages);
	for (i = 0; i < 2; i++)
		give(take(2 * HUGE, 16, false));
	p = take(2 * HUGE - 2 * MIB, 16, false);
	fill(p, 2 * HUGE - 2 * MIB, 1);
	ck_assert_uint_eq(dirty(), 2 * MIB);
	give(p);
	ck_assert_uint_eq(dirty(), 2 * HUGE);
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	ck_assert_uint_eq(dirty(), 0);
	ck_assert_uint_eq(hz4_pageheap_mapped(), pages.mapped);
	ck_assert_uint_eq(hz4_pageheap_moved(), 0);
	/* As most of it is purged when the rest is taken. */
	for (i = 0; i < 2; i++)
		give(take(2 * HUGE, 16, false));
	hz4_pageheap_purge(UINT64_MAX, 0, HUGE, SIZE_MAX);
	ck_assert_uint_eq(dirty(), HUGE);
	p = take(HUGE, 16, false);
	give(take(2 * HUGE, 16, false));
	give(p);
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	ck_assert_uint_eq(hz4_pageheap_mapped(), pages.mapped);
	give(wall);
	nothing_left();
}
END_TEST

/* They have huge pages where a region had them, and new mappings do not. */
START_TEST(kept_pages_know_of_huge_ones)
{
	enum { PAGES = HUGE / PAGE };
	uintptr_t a;
	unsigned i;
	char *p, *q;

	if (!unit_have_huge(256))
		return;
	start_patient();
	ck_assert(hz4_option_assign("huge_threshold=0", 16));
	q = take(HUGE, 16, false);
	a = hz4_pageheap_alloc(PAGES, PAGE, false);
	ck_assert(hz4_pagemap_flags(a) & HZ4_PAGE_HUGE);
	hz4_pageheap_free(a, PAGES, hz4_os_now());
	/* It cannot grow where it is. */
	p = take(HUGE + 4 * MIB, 16, false);
	ck_assert_uint_ne((uintptr_t)p, a);
	ck_assert(hz4_pagemap_flags((uintptr_t)p) & HZ4_PAGE_HUGE);
	give(p);
	give(q);
	hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	nothing_left();
	ck_assert_uint_eq(hz4_pageheap_moved(), 0);
	/* At the same addresses, maybe. */
	for (i = 0; i < 3; i++) {
		p = take(HUGE + 4 * MIB, 16, false);
		ck_assert(!(hz4_pagemap_flags((uintptr_t)p) & HZ4_PAGE_HUGE));
		give(p);
	}
	ck_assert_uint_eq(dirty(), HUGE + 4 * MIB);
	ck_assert(!(hz4_pagemap_flags((uintptr_t)p + PAGE) & HZ4_PAGE_HUGE));
}
END_TEST

/* However many came in turns that could not stay. */
START_TEST(too_large_ones_earn_nothing)
{
	enum { MANY = 8 };
	const size_t most = hz4_min(hz4_os_memory() / HZ4_KEPT_SHARE,
				    HZ4_KEPT_MOST);
	void *p[MANY];
	unsigned i;

	start_patient();
	for (i = 0; i < 6; i++)
		give(take(most + PAGE, 16, false));
	for (i = 0; i < MANY; i++)
		p[i] = take(HUGE, 16, false);
	for (i = 0; i < MANY; i++)
		give(p[i]);
	ck_assert_uint_eq(dirty(), 0);
	nothing_left();
}
END_TEST

/* Where the system grows no mapping they go, and are no object any more. */
START_TEST(kept_pages_that_cannot_grow)
{
	struct rlimit limit;
	unsigned i;
	char *p;

	start_patient();
	for (i = 0; i < 3; i++) {
		p = take(HUGE, 16, false);
		give(p);
	}
	ck_assert_uint_eq(dirty(), HUGE);
	ck_assert_int_eq(getrlimit(RLIMIT_DATA, &limit), 0);
	limit.rlim_cur = HUGE;
	ck_assert_int_eq(setrlimit(RLIMIT_DATA, &limit), 0);
	ck_assert_ptr_null(hz4_large_alloc(HUGE + 4 * MIB, 16, true));
	limit.rlim_cur = limit.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_DATA, &limit), 0);
	ck_assert_uint_eq(hz4_pagemap_class(p), HZ4_CLS_NONE);
	ck_assert_uint_eq(dirty(), 0);
	nothing_left();
}
END_TEST

/* Not by growing either, where the system would refuse it as a whole. */
START_TEST(more_than_the_memory_is_refused)
{
	size_t memory;
	void *p, *q;

	if (!HZ4_DEBUG_BOX)
		return;
	start_patient();
	hz4_os_init();
	memory = hz4_os_memory() / PAGE * PAGE;
	q = hz4_os_map_counted(memory + HUGE, PAGE);
	p = hz4_large_alloc(memory / 4 * 3, 16, false);
	if (q != NULL || p == NULL) {
		printf("skipped: the system refuses all or nothing\n");
		return;
	}
	/* Its pages count as used, for all we know. */
	ck_assert(hz4_pageheap_admit((uintptr_t)p, memory / 4 * 3));
	hz4_os_fail_from(1);
	give(p);
	hz4_os_fail_from(0);
	ck_assert_uint_ge(dirty(), memory / 2 + HUGE);
	ck_assert_ptr_null(hz4_large_alloc(memory + HUGE, 16, false));
	nothing_left();
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, sizes_and_figures);
	tcase_add_test(t, the_middle_is_not_ours);
	tcase_add_test(t, alignments);
	tcase_add_test(t, zeroed_after_use);
	tcase_add_test(t, too_much);
	tcase_add_test(t, runs_resize_in_place);
	tcase_add_test(t, room_stays_while_a_run_grows);
	tcase_add_test(t, runs_do_not_grow_over_others);
	tcase_add_test(t, mappings_grow_and_move);
	tcase_add_test(t, runs_that_cannot_grow_move);
	tcase_add_test(t, few_runs_move);
	tcase_add_test(t, copied_where_pages_are_resident);
	tcase_add_test(t, refused_moves);
	tcase_add_test(t, split_mappings_stay);
	tcase_add_test(t, mappings_of_gigabytes);
	tcase_add_test(t, runs_that_are_used_count_for_huge_pages);
	tcase_add_test(t, runs_that_grow_are_used);
	tcase_add_loop_test(t, runs_that_shrink_count_for_less, 0, 2);
	tcase_add_test(t, interior_pointers_abort);
	tcase_add_loop_test(t, moves_of_many_threads, 0, 2);
	tcase_add_test(t, mappings_in_turn_keep_their_pages);
	tcase_add_test(t, calloc_fetches_pages_that_few_used);
	if (HZ4_DEBUG_BOX)
		tcase_add_test(t, calloc_clears_pages_that_stay);
	tcase_add_test(t, mappings_that_nothing_follows_go);
	tcase_add_test(t, kept_pages_grow);
	tcase_add_test(t, few_mappings_stay);
	tcase_add_test(t, kept_pages_that_move_on);
	tcase_add_test(t, aligned_ones_in_turn_go);
	tcase_add_test(t, kept_pages_are_found_among_clean_ones);
	tcase_add_test(t, kept_pages_are_found_behind_clean_ones);
	tcase_add_test(t, what_is_left_of_kept_pages_goes);
	tcase_add_test(t, kept_pages_know_of_huge_ones);
	tcase_add_test(t, too_large_ones_earn_nothing);
	tcase_add_test(t, kept_pages_that_cannot_grow);
	tcase_add_test(t, more_than_the_memory_is_refused);
	tcase_add_test(t, no_memory);
	tcase_add_test(t, refused_unmap);
	tcase_add_test(t, refused_unmap_of_a_small_mapping);
}

int
main(void)
{
	return unit_main("large", add);
}
