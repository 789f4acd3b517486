/*
 * fresh.h: what is taken from a new span is resident at once, and little
 * else is.
 */
#include "unit.h"

#include "fresh.h"
#include "large.h"
#include "pageheap.h"
#include "pagemap.h"
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

/* False where the kernel, or an emulator, does not populate. */
static bool
start(void)
{
	void *p;
	bool ok;

	unit_os_init();
	hz4_sizeclass_init();
	p = hz4_os_map(hz4_os_page, hz4_os_page);
	unit_need(p != NULL, "no memory");
	hz4_os_populate(p, hz4_os_page);
	ok = is_resident((uintptr_t)p);
	if (!ok)
		printf("skipped: no MADV_POPULATE_WRITE here\n");
	hz4_os_unmap(p, hz4_os_page);
	return ok;
}

static unsigned
take(unsigned cls, void **objects, unsigned want)
{
	unsigned path, n = hz4_transfer_take(cls, objects, want, &path);

	unit_need(n >= 1, "no object of class %u", cls);
	return n;
}

static void
give(unsigned cls, void **objects, unsigned n)
{
	unsigned path;

	hz4_transfer_give(cls, objects, n, hz4_os_now(), &path);
}

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
	static const unsigned some[] = { 57, 64, 72, 80, 88, 96 };
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

/* Clean pages of what is written are asked for, dirty ones are not. */
START_TEST(what_is_written_is_resident)
{
	const size_t pages = 4;
	uintptr_t a;

	if (!start())
		return;
	a = hz4_pageheap_alloc(pages, HZ4_PAGE);
	ck_assert(a != 0);
	hz4_pagemap_mark(a + HZ4_PAGE, 1, HZ4_PAGE_DIRTY, 0);
	hz4_fresh_write((void *)a, 0, 3 * HZ4_PAGE - 1);
	ck_assert(is_resident(a));
	ck_assert(is_resident(a + HZ4_PAGE - 1));
	ck_assert(!is_resident(a + HZ4_PAGE));
	ck_assert(!is_resident(a + 2 * HZ4_PAGE - 1));
	ck_assert(is_resident(a + 2 * HZ4_PAGE));
	ck_assert(is_resident(a + 3 * HZ4_PAGE - 1));
	ck_assert(!is_resident(a + 3 * HZ4_PAGE));
}
END_TEST

/* Pages at the start of a large object that are resident to their ends. */
static size_t
resident_pages(const void *p)
{
	uintptr_t a = (uintptr_t)p;

	while (is_resident(a) && is_resident(a + HZ4_PAGE - 1))
		a += HZ4_PAGE;
	return (a - (uintptr_t)p) / HZ4_PAGE;
}

static char *
large(size_t pages)
{
	/* Of the last page one byte is the user's. */
	char *p = hz4_large_alloc((pages - 1) * HZ4_PAGE + 1, HZ4_PAGE, false);

	unit_need(p != NULL, "no memory");
	return p;
}

/* New large objects are asked for while they are used to their ends. */
START_TEST(large_objects_are_trusted)
{
	const size_t part = HZ4_REGION_MIN / HZ4_PAGE / HZ4_FRESH_LARGE_SHARE;
	char *p, *q, *r;

	if (!start())
		return;
	p = large(6);
	ck_assert_uint_eq(resident_pages(p), 5);
	q = large(6);
	ck_assert_uint_eq(resident_pages(q), 5);
	/* One that nobody used to its end is enough to stop it. */
	hz4_large_free(p, "free()");
	p = large(7);
	ck_assert_uint_eq(resident_pages(p), 0);
	/* The other one was used: trust returns, for a part of the heap. */
	q[5 * HZ4_PAGE] = 1;
	hz4_large_free(q, "free()");
	q = large(13);
	ck_assert_uint_eq(resident_pages(q), part);
	/* A second region. */
	r = large(24);
	ck_assert_uint_eq(resident_pages(r), 2 * part);
	hz4_large_free(p, "free()");
	hz4_large_free(q, "free()");
	hz4_large_free(r, "free()");
}
END_TEST

/* Dirty pages tell nothing: they are resident in any case. */
START_TEST(recycled_pages_tell_nothing)
{
	unsigned i;
	char *p;

	if (!start())
		return;
	p = large(6);
	p[5 * HZ4_PAGE] = 1;
	hz4_large_free(p, "free()");
	for (i = 0; i < 2 * HZ4_FRESH_DOUBT; i++)
		hz4_large_free(large(6), "free()");
	/* Six recycled pages, two that are asked for, the last one. */
	p = large(9);
	ck_assert_uint_eq(resident_pages(p + 6 * HZ4_PAGE), 2);
	hz4_large_free(p, "free()");
}
END_TEST

/* What an object grows by in place is asked for like a new one. */
START_TEST(growth_is_trusted)
{
	char *p;

	if (!start())
		return;
	p = large(6);
	p[5 * HZ4_PAGE] = 1;
	ck_assert_ptr_eq(hz4_large_resize(p, 9 * HZ4_PAGE), p);
	ck_assert(!is_resident((uintptr_t)p + 5 * HZ4_PAGE + HZ4_PAGE - 1));
	ck_assert_uint_eq(resident_pages(p + 6 * HZ4_PAGE), 2);
	/* Nobody wrote to its end: growth is not trusted any more. */
	ck_assert_ptr_eq(hz4_large_resize(p, 10 * HZ4_PAGE), p);
	ck_assert_ptr_eq(hz4_large_resize(p, 12 * HZ4_PAGE), p);
	ck_assert_uint_eq(resident_pages(p + 10 * HZ4_PAGE), 0);
	hz4_large_free(p, "free()");
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, small_objects_are_resident);
	tcase_add_test(t, of_large_objects_both_ends_are);
	tcase_add_test(t, ahead_is_a_part_of_the_class);
	tcase_add_test(t, touched_pages_are_left_alone);
	tcase_add_test(t, no_bytes_are_not_touched);
	tcase_add_test(t, what_is_written_is_resident);
	tcase_add_test(t, large_objects_are_trusted);
	tcase_add_test(t, recycled_pages_tell_nothing);
	tcase_add_test(t, growth_is_trusted);
}

int
main(void)
{
	return unit_main("fresh", add);
}
