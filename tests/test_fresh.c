/*
 * fresh.h: where page faults are dear, what is taken from a new span is
 * resident at once, and little else is; where they are not, nothing is.
 */
#include "unit_huge.h"

#include "fresh.h"
#include "option.h"
#include "pageheap.h"
#include "pagemap.h"
#include "share.h"
#include "spans.h"
#include "transfer.h"

#include <sys/mman.h>

enum { MOST = 4096, BATCH = 16 };

static void *held[MOST];

/* Whether the OS page (hz4's idea of it) at an address is resident. */
static bool
is_resident(uintptr_t address)
{
	uintptr_t page = address / hz4_os_page * hz4_os_page;
	size_t n = hz4_os_page / (size_t)sysconf(_SC_PAGESIZE), i;
	unsigned char seen[HZ4_PAGE / HZ4_FRESH_UNIT];

	unit_need(mincore((void *)page, hz4_os_page, seen) == 0, "%d", errno);
	for (i = 0; i < n; i++)
		if (!(seen[i] & 1))
			return false;
	return true;
}

/* A page that is not the heap's, but known to the page map. */
static unsigned char *
map_page(void)
{
	unsigned char *p = hz4_os_map(HZ4_PAGE, HZ4_PAGE);

	unit_need(p != NULL && hz4_pagemap_reserve((uintptr_t)p, HZ4_PAGE),
		  "no memory");
	return p;
}

/* Pages that hz4_fresh_populate is asked for. */
static struct hz4_fresh
ask_for(size_t pages)
{
	struct hz4_fresh f;
	void *object;

	f.from = (uintptr_t)map_page();
	f.to = f.from + pages * hz4_os_page;
	object = (void *)f.from;
	hz4_fresh_populate(&hz4_classes[1], &object, 1, &f);
	return f;
}

/*
 * Faults that cost so many microseconds.  False where the kernel, or an
 * emulator, does not populate.
 */
static bool
start_with(uint64_t price)
{
	void *p;
	bool ok;
	unsigned i;

	unit_os_init();
	hz4_sizeclass_init();
	p = hz4_os_map(hz4_os_page, hz4_os_page);
	unit_need(p != NULL, "no memory");
	ok = hz4_os_populate(p, hz4_os_page);
	unit_need(!ok || is_resident((uintptr_t)p), "not resident");
	if (!ok)
		printf("skipped: no MADV_POPULATE_WRITE here\n");
	hz4_os_unmap(p, hz4_os_page);
	unit_clock.step = price;
	for (i = 0; ok && i < HZ4_FRESH_LOOKS; i++)
		ask_for(HZ4_PAGE / hz4_os_page);
	unit_clock.step = HZ4_HUGE_CLEARED_US;
	return ok;
}

static bool
start(void)
{
	return start_with(HZ4_HUGE_CLEARED_US);
}

static unsigned
take(unsigned cls, void **objects, unsigned want)
{
	unsigned path, n = hz4_transfer_take(cls, objects, want, &path);

	unit_need(n >= 1, "no object of class %u", cls);
	unit_turn(objects, n);
	return n;
}

static void
note_whole(void *p)
{
	hz4_spans_note_whole(hz4_pagemap_owner((uintptr_t)p));
}

static void
give(unsigned cls, void **objects, unsigned n)
{
	unsigned path;

	hz4_transfer_give(cls, objects, n, hz4_os_now(), &path);
}

START_TEST(where_faults_are_cheap_nothing_is)
{
	unsigned n, i;

	if (!start_with(0))
		return;
	ck_assert(!is_resident(ask_for(8).from));
	n = take(hz4_sizeclass(4096), held, BATCH);
	for (i = 0; i < n; i++)
		ck_assert(!is_resident((uintptr_t)held[i]));
	n = take(hz4_sizeclass(20000), held, BATCH);
	for (i = 0; i < n; i++)
		ck_assert(!is_resident((uintptr_t)held[i]));
}
END_TEST

/* Few pages say little; many are touched and asked for. */
START_TEST(looks_come_first)
{
	const size_t least = HZ4_FRESH_LEAST;
	uint64_t before;
	uintptr_t p, i;

	unit_os_init();
	hz4_sizeclass_init();
	before = unit_clock.now;
	p = ask_for(least - 1).from;
	for (i = 0; i < least; i++)
		ck_assert(!is_resident(p + i * hz4_os_page));
	ck_assert_uint_eq(unit_clock.now, before);
	p = ask_for(least).from;
	ck_assert(is_resident(p));
	ck_assert(!is_resident(p + least * hz4_os_page));
	ck_assert_uint_eq(unit_clock.now, before + 3 * unit_clock.step);
}
END_TEST

/* What a batch leaves free may be another thread's by then. */
START_TEST(looks_write_to_their_own)
{
	struct hz4_fresh f;
	void *object[3];
	unsigned char *p;

	unit_os_init();
	hz4_sizeclass_init();
	p = map_page();
	memset(p, 0x5a, HZ4_PAGE);
	f.from = (uintptr_t)p + HZ4_PAGE / 2;
	f.to = (uintptr_t)p + HZ4_PAGE - hz4_os_page;
	object[0] = p + HZ4_PAGE / 2 - 16;
	object[1] = (void *)f.to;
	object[2] = p + HZ4_PAGE / 2 + 32;
	hz4_fresh_populate(&hz4_classes[1], object, 3, &f);
	ck_assert_uint_eq(p[HZ4_PAGE / 2 - 16], 0x5a);
	ck_assert_uint_eq(p[HZ4_PAGE / 2], 0x5a);
	ck_assert_uint_eq(p[HZ4_PAGE - hz4_os_page], 0x5a);
	ck_assert_uint_eq(p[HZ4_PAGE / 2 + 32], 0);
}
END_TEST

/* The exact clock may be a system call, which a sandbox forbids. */
START_TEST(no_look_without_huge_pages)
{
	uint64_t before;

	unit_os_init();
	hz4_sizeclass_init();
	ck_assert(hz4_option_assign("huge_pages=0", 12));
	before = unit_clock.now;
	ck_assert(!is_resident(ask_for(HZ4_FRESH_LEAST).from));
	ck_assert_uint_eq(unit_clock.now, before);
}
END_TEST

START_TEST(looks_come_to_an_end)
{
	uint64_t before;

	if (!start())
		return;
	before = unit_clock.now;
	ck_assert(is_resident(ask_for(1).from));
	ck_assert_uint_eq(unit_clock.now, before);
}
END_TEST

START_TEST(a_refusal_is_for_good)
{
	struct hz4_fresh f;

	if (!start())
		return;
	f = ask_for(1);
	ck_assert(hz4_os_unmap((void *)f.from, HZ4_PAGE));
	hz4_fresh_populate(&hz4_classes[1], held, 0, &f);
	ck_assert(!is_resident(ask_for(8).from));
}
END_TEST

START_TEST(small_objects_are_resident)
{
	unsigned cls, n, i;

	if (!start())
		return;
	for (cls = 1; hz4_classes[cls].size <= HZ4_FRESH_WHOLE; cls++) {
		uint32_t size = hz4_classes[cls].size;
		uintptr_t p, end = 0;

		n = take(cls, held, BATCH);
		for (i = 0; i < n; i++) {
			p = (uintptr_t)held[i];
			for (end = p; end < p + size; end += hz4_os_page)
				ck_assert(is_resident(end));
			end = p + size - 1;
			ck_assert(is_resident(end));
		}
		/* The first span of a class asks for no more than these. */
		if ((end + hz4_os_page) / HZ4_PAGE == end / HZ4_PAGE)
			ck_assert(!is_resident(end + hz4_os_page));
	}
}
END_TEST

START_TEST(of_large_objects_both_ends_are)
{
	static const unsigned some[] = { 49, 52, 56, 60, 64, 68 };
	unsigned j, n, i;

	if (!start())
		return;
	for (j = 0; j < sizeof some / sizeof *some; j++) {
		uint32_t size = hz4_classes[some[j]].size;

		n = take(some[j], held, 4);
		for (i = 0; i < n; i++) {
			uintptr_t p = (uintptr_t)held[i];

			ck_assert(is_resident(p));
			ck_assert(is_resident(p + size - 1));
			if (size >= 4 * hz4_os_page)
				ck_assert(!is_resident(p + size / 2));
		}
	}
}
END_TEST

START_TEST(ahead_is_a_part_of_the_class)
{
	const unsigned cls = 32;
	const struct hz4_class *k = &hz4_classes[cls];
	unsigned n = 0, spans = 16;
	size_t ahead = 0;
	uintptr_t end;

	if (!start())
		return;
	while (n < spans * k->slots)
		n += take(cls, held + n, 1);
	/* One object of one more span. */
	take(cls, held, 1);
	end = (uintptr_t)held[0] / HZ4_PAGE * HZ4_PAGE + HZ4_PAGE;
	for (; (uintptr_t)held[0] + ahead < end; ahead += hz4_os_page)
		if (!is_resident((uintptr_t)held[0] + ahead))
			break;
	ck_assert_uint_ge(ahead, hz4_min(HZ4_FRESH_AHEAD, HZ4_PAGE) / 2);
	ck_assert_uint_le(ahead, spans * k->pages * HZ4_PAGE /
				 HZ4_FRESH_SHARE + 2 * hz4_os_page);
}
END_TEST

/* Nothing is asked for ahead of the end of a span. */
START_TEST(a_span_ends_at_its_last_page)
{
	struct hz4_span *s;
	unsigned cls, n, i;

	unit_os_init();
	hz4_sizeclass_init();
	for (cls = 1; cls < HZ4_CLS_FIRST_MID; cls += 5)
		for (i = 0; i < 4; i++) {
			unsigned slots = hz4_classes[cls].slots;

			for (n = 0; n < slots && n < MOST - HZ4_BATCH_MAX;)
				n += take(cls, held + n, HZ4_BATCH_MAX);
			s = hz4_pagemap_owner((uintptr_t)held[n - 1]);
			ck_assert_uint_le(s->touched * HZ4_FRESH_UNIT,
					  hz4_classes[cls].pages * HZ4_PAGE);
			s = hz4_pagemap_owner((uintptr_t)held[0]);
			ck_assert_uint_le(s->touched * HZ4_FRESH_UNIT,
					  hz4_classes[cls].pages * HZ4_PAGE);
		}
}
END_TEST

START_TEST(touched_pages_are_left_alone)
{
	const unsigned cls = 64;
	struct hz4_span s = { .cls = cls };
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_fresh f = { 0, 0 };

	if (!start())
		return;
	/* All of a span, empty again and then gone: its pages are dirty. */
	give(cls, held, take(cls, held, k->slots));
	s.start = (uintptr_t)held[0];
	ck_assert(s.start % HZ4_PAGE == 0);
	hz4_pagemap_mark(s.start, k->pages, HZ4_PAGE_DIRTY, 0);
	hz4_fresh_start(&s, k, 0);
	ck_assert(hz4_fresh_from(&s) == s.start + k->pages * HZ4_PAGE);
	/* Of pages of both kinds, the first dirty ones are left out. */
	hz4_pagemap_mark(s.start + HZ4_PAGE, 1, 0, HZ4_PAGE_DIRTY);
	hz4_fresh_start(&s, k, 0);
	ck_assert(hz4_fresh_from(&s) == s.start + HZ4_PAGE);
	hz4_fresh_take(&s, k, s.start + HZ4_PAGE + 1, &f);
	ck_assert(f.from == s.start + HZ4_PAGE);
	ck_assert(f.to == f.from + hz4_os_page);
	ck_assert(hz4_fresh_from(&s) == f.to);
}
END_TEST

START_TEST(no_bytes_are_not_touched)
{
	struct hz4_span *s;

	if (!start())
		return;
	take(HZ4_CLS_ZERO, held, BATCH);
	s = hz4_pagemap_owner((uintptr_t)held[0]);
	ck_assert(hz4_fresh_from(s) == s->start + HZ4_PAGE);
	ck_assert(!is_resident((uintptr_t)held[0]));
}
END_TEST

/* Whether a heap goes on with huge pages after so many MiB, of one class. */
static bool
grows_huge(unsigned cls, size_t mib)
{
	void *p = NULL;

	while (hz4_pageheap_mapped() <= mib << 20)
		take(cls, &p, 1);
	return hz4_pagemap_flags((uintptr_t)p) & HZ4_PAGE_HUGE;
}

/* False where the kernel has none. */
static bool
start_huge(void)
{
	start();
	return unit_have_huge(32);
}

START_TEST(small_objects_have_huge_pages)
{
	if (start_huge())
		ck_assert(grows_huge(hz4_sizeclass(4096), 8));
}
END_TEST

START_TEST(others_have_none)
{
	start();
	ck_assert(!grows_huge(hz4_sizeclass(HZ4_FRESH_WHOLE + 1), 8));
}
END_TEST

/* The same, and one in so many objects is used to its end. */
static bool
grows_huge_whole(unsigned cls, size_t mib, unsigned one_in)
{
	void *p = NULL;
	unsigned n;

	for (n = 0; hz4_pageheap_mapped() <= mib << 20; n++) {
		take(cls, &p, 1);
		if (n % one_in == 0)
			note_whole(p);
	}
	return hz4_pagemap_flags((uintptr_t)p) & HZ4_PAGE_HUGE;
}

START_TEST(others_have_some_where_they_are_used)
{
	const unsigned cls = hz4_sizeclass(HZ4_FRESH_WHOLE + 1);

	if (!start_huge())
		return;
	ck_assert(grows_huge_whole(cls, 8, hz4_classes[cls].slots));
}
END_TEST

START_TEST(not_where_few_are_used)
{
	const unsigned cls = hz4_sizeclass(HZ4_FRESH_WHOLE + 1);

	start();
	ck_assert(!grows_huge_whole(cls, 8, 4 * hz4_classes[cls].slots));
}
END_TEST

START_TEST(objects_of_no_bytes_have_none)
{
	start();
	ck_assert(!grows_huge(HZ4_CLS_ZERO, 8));
}
END_TEST

/* Their caches may hold as much. */
START_TEST(not_where_there_are_many_threads)
{
	start();
	hz4_share_add_user(5);
	ck_assert(!grows_huge(hz4_sizeclass(4096), 8));
}
END_TEST

START_TEST(the_child_of_a_fork_has_one_thread)
{
	if (!start_huge())
		return;
	hz4_share_add_user(5);
	hz4_share_set_users(1);
	ck_assert(grows_huge(hz4_sizeclass(4096), 8));
}
END_TEST

/* What is touched counts, not what spans have room for. */
START_TEST(not_where_little_is_touched)
{
	size_t room = 0;
	unsigned cls;
	void *p;

	start();
	ck_assert(hz4_option_assign("huge_threshold=1", 16));
	for (cls = 1; hz4_classes[cls].size <= HZ4_FRESH_WHOLE; cls++) {
		take(cls, &p, 1);
		room += hz4_classes[cls].pages * (size_t)HZ4_PAGE;
	}
	/* As much room as would do at 4 MiB. */
	ck_assert_uint_ge(room, (4 << 20) / 8 * HZ4_DENSE_EIGHTHS + (1 << 20));
	ck_assert_uint_le(hz4_pageheap_mapped(), 4 << 20);
	ck_assert(!grows_huge(hz4_sizeclass(HZ4_FRESH_WHOLE + 1), 4));
}
END_TEST

/*
 * Objects of 8 MiB, `whole`: seen to be used, twice, that go again, all but
 * the last, whose slab has the structures of most of their spans.
 */
static void
come_and_go(unsigned cls, bool whole)
{
	unsigned n = 0, i;

	while (hz4_pageheap_mapped() < 8 << 20) {
		unit_need(n < MOST, "too many objects");
		take(cls, held + n, 1);
		for (i = 0; whole && i < 2; i++)
			note_whole(held[n]);
		n++;
	}
	for (i = 0; i + 1 < n; i++)
		give(cls, held + i, 1);
	hz4_spans_trim();
}

/* The bytes of spans that are gone do not count any more. */
START_TEST(small_objects_that_are_gone_count_no_more)
{
	start();
	come_and_go(hz4_sizeclass(4096), false);
	ck_assert(!grows_huge(hz4_sizeclass(HZ4_FRESH_WHOLE + 1), 8));
}
END_TEST

/* Their structures serve spans of which nothing is known. */
START_TEST(others_that_are_gone_count_no_more)
{
	start();
	come_and_go(hz4_sizeclass(20000), true);
	ck_assert(!grows_huge(hz4_sizeclass(20000), 8));
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, where_faults_are_cheap_nothing_is);
	tcase_add_test(t, looks_come_first);
	tcase_add_test(t, looks_write_to_their_own);
	tcase_add_test(t, no_look_without_huge_pages);
	tcase_add_test(t, looks_come_to_an_end);
	tcase_add_test(t, a_refusal_is_for_good);
	tcase_add_test(t, small_objects_are_resident);
	tcase_add_test(t, of_large_objects_both_ends_are);
	tcase_add_test(t, ahead_is_a_part_of_the_class);
	tcase_add_test(t, a_span_ends_at_its_last_page);
	tcase_add_test(t, touched_pages_are_left_alone);
	tcase_add_test(t, no_bytes_are_not_touched);
	tcase_add_test(t, small_objects_have_huge_pages);
	tcase_add_test(t, not_where_there_are_many_threads);
	tcase_add_test(t, others_have_none);
	tcase_add_test(t, others_have_some_where_they_are_used);
	tcase_add_test(t, not_where_few_are_used);
	tcase_add_test(t, others_that_are_gone_count_no_more);
	tcase_add_test(t, objects_of_no_bytes_have_none);
	tcase_add_test(t, the_child_of_a_fork_has_one_thread);
	tcase_add_test(t, not_where_little_is_touched);
	tcase_add_test(t, small_objects_that_are_gone_count_no_more);
}

int
main(void)
{
	return unit_main("fresh", add);
}
