/*
 * fresh.c - how far a span is touched, and which pages are asked for.
 */
#include "fresh.h"

#include "os.h"
#include "pageheap.h"
#include "pagemap.h"

/* Pages at the start of a span that may have been touched before. */
static uint32_t
dirty_pages(const struct hz4_span *s, const struct hz4_class *k)
{
	uint32_t n = 0;

	while (n < k->pages &&
	       (hz4_pagemap_flags(s->start + n * (uintptr_t)HZ4_PAGE) &
		HZ4_PAGE_DIRTY))
		n++;
	return n;
}

/*
 * The more a class has, the further ahead: what lies there untouched when
 * the class stops growing is a small part of it.
 */
void
hz4_fresh_start(struct hz4_span *s, const struct hz4_class *k, size_t spans)
{
	size_t ahead = spans * k->pages * HZ4_PAGE / HZ4_FRESH_SHARE;
	uint32_t touched = s->cls == HZ4_CLS_ZERO ? k->pages :
						    dirty_pages(s, k);

	s->touched = (uint16_t)(touched * (HZ4_PAGE / HZ4_FRESH_UNIT));
	s->ahead = (uint16_t)(hz4_min(ahead, HZ4_FRESH_AHEAD) /
			      HZ4_FRESH_UNIT);
}

void
hz4_fresh_take(struct hz4_span *s, const struct hz4_class *k, uintptr_t end,
	       struct hz4_fresh *f)
{
	size_t bytes = end - s->start;

	if (k->size <= HZ4_FRESH_WHOLE)
		bytes += s->ahead * (size_t)HZ4_FRESH_UNIT;
	bytes = hz4_min(hz4_round_up(bytes, hz4_os_page),
			k->pages * (size_t)HZ4_PAGE);
	f->from = hz4_fresh_from(s);
	f->to = s->start + bytes;
	s->touched = (uint16_t)(bytes / HZ4_FRESH_UNIT);
}

/* Add pages to those to be asked for, which lie before them. */
static void
ask(struct hz4_fresh *pages, uintptr_t from, uintptr_t to)
{
	if (from > pages->to) {
		if (pages->to > pages->from)
			hz4_os_populate((void *)pages->from,
					pages->to - pages->from);
		pages->from = from;
	}
	pages->to = hz4_max(pages->to, to);
}

void
hz4_fresh_populate(const struct hz4_class *k, void *const *objects, unsigned n,
		   const struct hz4_fresh *f)
{
	struct hz4_fresh pages = { f->from, f->from };
	uintptr_t first, last;
	unsigned i;

	if (k->size <= HZ4_FRESH_WHOLE) {
		hz4_os_populate((void *)f->from, f->to - f->from);
		return;
	}
	for (i = 0; i < n; i++) {
		first = (uintptr_t)objects[i] / hz4_os_page * hz4_os_page;
		last = ((uintptr_t)objects[i] + k->size - 1) / hz4_os_page *
		       hz4_os_page;
		if (last < f->from || first >= f->to)
			continue;
		if (first >= f->from)
			ask(&pages, first, first + hz4_os_page);
		ask(&pages, last, last + hz4_os_page);
	}
	ask(&pages, UINTPTR_MAX, UINTPTR_MAX);
}

/* Where a stretch of pages ends that are all dirty, or all not. */
static uintptr_t
stretch_end(uintptr_t page, uintptr_t end, bool dirty)
{
	while (page < end &&
	       dirty == !!(hz4_pagemap_flags(page) & HZ4_PAGE_DIRTY))
		page += HZ4_PAGE;
	return hz4_min(page, end);
}

/*
 * Above 0 while large objects are used to their ends.  Races lose a vote.
 * [atomic] relaxed: a hint
 */
static _Atomic int trust = HZ4_FRESH_DOUBT;

void
hz4_fresh_learn(const void *large, size_t bytes)
{
	uintptr_t last = (uintptr_t)large + bytes - HZ4_PAGE;
	int votes = hz4_peek(&trust);

	/* A small object that is here for its alignment is no example. */
	if (bytes <= HZ4_CLASS_MAX ||
	    (hz4_pagemap_flags(last) & HZ4_PAGE_DIRTY))
		return;
	/* Of this page no byte but the first is the user's for sure. */
	if (hz4_os_is_resident((void *)last))
		votes += votes < HZ4_FRESH_TRUST;
	else if (votes > -HZ4_FRESH_TRUST)
		votes -= HZ4_FRESH_DOUBT;
	hz4_poke(&trust, votes);
}

size_t
hz4_fresh_large(size_t from, size_t bytes)
{
	size_t part = hz4_pageheap_mapped() / HZ4_FRESH_LARGE_SHARE;

	if (hz4_peek(&trust) <= 0 || bytes >= HZ4_HUGE_MIN)
		return 0;
	return hz4_min(part / HZ4_PAGE * HZ4_PAGE, bytes - from - HZ4_PAGE);
}

void
hz4_fresh_write(const void *large, size_t from, size_t to)
{
	uintptr_t page = (uintptr_t)large + from / HZ4_PAGE * HZ4_PAGE;
	uintptr_t end = (uintptr_t)large + hz4_round_up(to, hz4_os_page);
	size_t n;

	while ((page = stretch_end(page, end, true)) < end) {
		n = hz4_min(stretch_end(page, end, false) - page,
			    HZ4_FRESH_STEP);
		hz4_os_populate((void *)page, n);
		page += n;
	}
}
