/*
 * fresh.c - how far a span is touched, and which pages are asked for.
 */
#include "fresh.h"

#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"

#include <string.h>

/*
 * What was seen of this machine's page faults, the least of several looks:
 * microseconds of one, and 1/256 microseconds of a page that was asked for
 * with others.  [atomic] relaxed: a hint
 */
static struct {
	_Atomic unsigned looks;
	_Atomic uint64_t fault, page;
} price = { .fault = UINT64_MAX, .page = UINT64_MAX };

/*
 * On one machine a fault costs what one of the pages asked for does, and
 * malloc would only take longer; on another it costs ten times as much.
 */
static bool
pays(void)
{
	return hz4_peek(&price.looks) >= HZ4_FRESH_LOOKS &&
	       hz4_peek(&price.fault) * 256 / HZ4_FRESH_DEAR >
		       hz4_peek(&price.page);
}

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
 * Whose pages a span's objects make resident, all of them: small ones, but
 * for those of no bytes, and others that were seen to be used.
 */
static bool
is_dense(const struct hz4_span *s, const struct hz4_class *k)
{
	if (k->size > HZ4_FRESH_WHOLE)
		return (hz4_peek(&s->ahead) & HZ4_SPAN_WHOLE) != 0;
	return s->cls != HZ4_CLS_ZERO;
}

/* The first so many bytes of a span may have been touched by now. */
static void
set_touched(struct hz4_span *s, const struct hz4_class *k, size_t bytes)
{
	long before = s->touched;

	s->touched = (uint16_t)(bytes / HZ4_FRESH_UNIT);
	if (is_dense(s, k))
		hz4_pageheap_note_dense((s->touched - before) *
					(HZ4_FRESH_UNIT / 1024));
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

	s->touched = 0;
	set_touched(s, k, touched * (size_t)HZ4_PAGE);
	hz4_poke(&s->ahead, (uint8_t)(hz4_min(ahead, HZ4_FRESH_AHEAD) /
				      HZ4_FRESH_UNIT));
}

void
hz4_fresh_take(struct hz4_span *s, const struct hz4_class *k, uintptr_t end,
	       struct hz4_fresh *f)
{
	size_t bytes = end - s->start;

	if (k->size <= HZ4_FRESH_WHOLE && pays())
		bytes += hz4_peek(&s->ahead) * (size_t)HZ4_FRESH_UNIT;
	bytes = hz4_min(hz4_round_up(bytes, hz4_os_page),
			k->pages * (size_t)HZ4_PAGE);
	f->from = hz4_fresh_from(s);
	f->to = s->start + bytes;
	set_touched(s, k, bytes);
}

void
hz4_fresh_note_whole(struct hz4_span *s)
{
	const struct hz4_class *k = &hz4_classes[s->cls];

	if (k->size <= HZ4_FRESH_WHOLE || is_dense(s, k))
		return;
	hz4_poke(&s->ahead, HZ4_SPAN_WHOLE);
	hz4_pageheap_note_dense((long)s->touched * (HZ4_FRESH_UNIT / 1024));
}

void
hz4_fresh_end(struct hz4_span *s)
{
	set_touched(s, &hz4_classes[s->cls], 0);
	hz4_poke(&s->ahead, 0);
}

void
hz4_fresh_zero(uintptr_t p, size_t bytes, const struct hz4_fresh *f)
{
	uintptr_t end = p + bytes, to;

	for (; p < end; p = to) {
		to = hz4_min(hz4_round_up(p + 1, HZ4_PAGE), end);
		if (p < f->from)
			to = hz4_min(to, f->from);
		else if (f->to != 0 &&
			 !(hz4_pagemap_flags(p) & HZ4_PAGE_DIRTY))
			continue;
		memset((void *)p, 0, to - p);
	}
}

/* A refusal is for good: the kernel does not know it, or forbids it. */
static void
populate(uintptr_t from, uintptr_t to)
{
	if (!hz4_os_populate((void *)from, to - from))
		hz4_poke(&price.fault, 0);
}

static void
keep_least(_Atomic uint64_t *least, uint64_t seen)
{
	hz4_poke(least, hz4_min(hz4_peek(least), seen));
}

/* Where the first of some objects, of several spans, can be touched in `f`. */
static uintptr_t
touchable(const struct hz4_class *k, void *const *objects,
	  const struct hz4_fresh *f)
{
	while ((uintptr_t)*objects + k->size <= f->from ||
	       (uintptr_t)*objects >= f->to)
		objects++;
	return hz4_max((uintptr_t)*objects, f->from);
}

/*
 * Touch one page, ask for the others, and see what that takes.  With the
 * option `huge_pages` alone: it is what allows the exact clock.  What the
 * objects at hand leave free there may be another thread's by now.
 */
static HZ4_SLOW void
look(const struct hz4_class *k, void *const *objects, const struct hz4_fresh *f)
{
	volatile char *own = (char *)touchable(k, objects, f);
	uint64_t begin = hz4_os_now_us(), touched, end;

	*own = 0;
	touched = hz4_os_now_us();
	populate(f->from, f->to);
	end = hz4_os_now_us();
	keep_least(&price.fault, touched - begin);
	keep_least(&price.page, (end - touched) * 256 /
					((f->to - f->from) / hz4_os_page - 1));
	atomic_fetch_add_explicit(&price.looks, 1, memory_order_relaxed);
}

/* Add pages to those to be asked for, which lie before them. */
static void
ask(struct hz4_fresh *pages, uintptr_t from, uintptr_t to)
{
	if (from > pages->to) {
		if (pages->to > pages->from)
			populate(pages->from, pages->to);
		pages->from = from;
	}
	pages->to = hz4_max(pages->to, to);
}

/* Of objects above HZ4_FRESH_WHOLE the ends, and of the first few alone. */
static void
populate_ends(const struct hz4_class *k, void *const *objects, unsigned n,
	      const struct hz4_fresh *f)
{
	struct hz4_fresh pages = { f->from, f->from };
	uintptr_t first, last;
	unsigned i;

	for (i = 1; i <= hz4_min(n, HZ4_FRESH_OBJECTS); i++) {
		first = (uintptr_t)objects[n - i];
		last = (first + k->size - 1) / hz4_os_page * hz4_os_page;
		first = first / hz4_os_page * hz4_os_page;
		if (last < f->from || first >= f->to)
			continue;
		if (first >= f->from)
			ask(&pages, first, first + hz4_os_page);
		ask(&pages, last, last + hz4_os_page);
	}
	ask(&pages, UINTPTR_MAX, UINTPTR_MAX);
}

void
hz4_fresh_populate(const struct hz4_class *k, void *const *objects, unsigned n,
		   const struct hz4_fresh *f)
{
	const unsigned no_look = HZ4_PAGE_DIRTY | HZ4_PAGE_HUGE;

	if (pays()) {
		if (k->size <= HZ4_FRESH_WHOLE)
			populate(f->from, f->to);
		else
			populate_ends(k, objects, n, f);
	} else if (hz4_peek(&price.looks) < HZ4_FRESH_LOOKS &&
		   k->size <= HZ4_FRESH_WHOLE &&
		   hz4_option(HZ4_OPT_huge_pages) &&
		   f->to - f->from >= HZ4_FRESH_LEAST * hz4_os_page &&
		   !(hz4_pagemap_flags(f->from) & no_look)) {
		look(k, objects, f);
	}
}
