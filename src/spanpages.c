/*
 * spanpages.c - making spans, and having idle ones go from all classes.
 */
#include "fresh.h"
#include "holemap.h"
#include "pageheap.h"
#include "pagemap.h"
#include "spanlists.h"

static void
trim_lists(struct hz4_spans *c)
{
	unsigned n = HZ4_SPANS_GONE;

	/* Once more where somebody else had the lock in between. */
	while (n >= HZ4_SPANS_GONE &&
	       (hz4_peek(&c->idle_pages) > 0 || hz4_peek(&c->waiting) > 0)) {
		hz4_lists_lock_drained(c);
		n = hz4_lists_unlock(c, true);
	}
}

void
hz4_spans_trim(void)
{
	struct hz4_spans *c;

	hz4_lists_each (c)
		trim_lists(c);
}

uint64_t
hz4_spans_oldest(void)
{
	uint64_t since, oldest = UINT64_MAX;
	struct hz4_spans *c;

	hz4_lists_each (c) {
		if (hz4_peek(&c->idle_pages) == 0 &&
		    hz4_peek(&c->waiting) == 0)
			continue;
		hz4_lists_lock_drained(c);
		/* Idle lists have the latest first. */
		if (!hz4_list_empty(&c->idle)) {
			since = hz4_peek(&hz4_lists_span(c->idle.prev)->since);
			oldest = since < oldest ? since : oldest;
		}
		hz4_lists_unlock(c, false);
	}
	return oldest;
}

/*
 * Idle spans come before memory that the process does not have yet.  Not for
 * a few of them: it takes the lock of every class.
 */
void
hz4_spans_make_room(size_t pages)
{
	if (hz4_spans_idle() >= HZ4_SPAN_IDLE_WORTH &&
	    hz4_pageheap_dirty() < pages * HZ4_PAGE)
		hz4_spans_trim();
}

struct hz4_span *
hz4_spans_make(struct hz4_spans *c, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	size_t spans = hz4_peek(&c->spans);
	struct hz4_span *s = hz4_slab_take_locked(c);
	uint32_t w;

	hz4_lists_unlock(c, false);
	if (s == NULL)
		return NULL;
	hz4_spans_make_room(k->pages);
	s->start = hz4_pageheap_alloc(k->pages, HZ4_PAGE, cls != HZ4_CLS_ZERO);
	if (s->start == 0) {
		hz4_lists_lock(c);
		hz4_slab_give_locked(c, s);
		hz4_lists_unlock(c, false);
		return NULL;
	}
	for (w = 0; w < k->words; w++)
		atomic_store_explicit(&s->bits[w], hz4_spans_full_word(k, w),
				      memory_order_relaxed);
	hz4_fresh_start(s, k, spans);
	hz4_holes_start(s, k);
	hz4_close(s->start, k->pages * (size_t)HZ4_PAGE);
	hz4_lists_set_access(cls, s->start, false);
	hz4_pagemap_set(s->start, k->pages, cls, s);
	return s;
}
