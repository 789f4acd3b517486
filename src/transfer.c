/*
 * transfer.c - taking objects out of spans and giving them back.
 *
 * Taking holds the class's lock: it clears bits of the first span in the
 * partial list.  Giving holds no lock: it sets bits, one atomic OR for all
 * neighbours of a batch that share a word.  Only two changes need more on
 * that way: a span that was full gets a free object and must enter the
 * partial list, and a span that has become empty must leave it.  Such spans
 * go into the class's inbox (spans.h).
 *
 * The first of them is a handshake.  The taker that drains a span clears
 * `linked` and then looks at the bits once more; the giver sets a bit and
 * then looks at `linked`.  All four are seq_cst, so one of the two sees the
 * other, and no span with a free object stays outside the list.
 */
#include "transfer.h"

#include "fresh.h"
#include "holemap.h"
#include "log.h"
#include "os.h"
#include "pagemap.h"
#include "shard.h"
#include "share.h"
#include "spans.h"

#include <string.h>

enum { LINE = 64 };

/* They are somebody's from now on (base.h). */
static void
open_objects(const struct hz4_class *k, void *const *objects, unsigned n)
{
	for (; HZ4_SHADOW && n > 0; n--)
		hz4_open((uintptr_t)objects[n - 1], k->size);
}

/*
 * Whether objects of the class share cache lines, and there is another thread
 * that may have the rest of a line.
 */
static bool
may_share_lines(const struct hz4_class *k)
{
	return k->size % LINE != 0 && hz4_share_users() > 1;
}

/*
 * Of the free objects of a word those in groups of four that are free as a
 * whole: four times a multiple of 16 bytes are whole cache lines.
 */
static uint64_t
whole_groups(uint64_t free)
{
	free &= free >> 1;
	free &= free >> 2;
	return (free & UINT64_C(0x1111111111111111)) * 0xf;
}

/*
 * List the objects of a word's lowest bits, up to `want`, and take these bits
 * off.  A whole word is common where much was freed at once.
 */
static unsigned
list_lowest(uint64_t *bits, uintptr_t base, uintptr_t size, void **end,
	    unsigned want)
{
	uint64_t rest = *bits;
	void **to = end, **last = end - want;
	uintptr_t slot;

	if (rest == UINT64_MAX && want >= 64) {
		for (; to > end - 64; base += size)
			*--to = (void *)base;
		rest = 0;
	}
	while (rest != 0 && to > last) {
		slot = (uintptr_t)__builtin_ctzll(rest);
		*--to = (void *)(base + slot * size);
		rest &= rest - 1;
	}
	*bits = rest;
	return (unsigned)(end - to);
}

/* Take the lowest free objects of a span, `whole`: those in whole groups. */
static unsigned
take_lowest(const struct hz4_class *k, struct hz4_span *s, void **end,
	    unsigned want, bool whole)
{
	uintptr_t size = k->size;
	unsigned got = 0;
	uint64_t free, rest;
	uint32_t w;

	for (w = 0; w < k->words && got < want; w++) {
		free = hz4_peek(&s->bits[w]);
		if (whole)
			free = whole_groups(free);
		if (free == 0)
			continue;
		rest = free;
		got += list_lowest(&rest, s->start + size * 64 * w, size,
				   end - got, want - got);
		HZ4_CHAOS();
		/*
		 * Others only set bits, so those taken are still set.
		 * Acquire: pairs with the giver's release; what the last
		 * user wrote comes before what the next one does.
		 */
		atomic_fetch_and_explicit(&s->bits[w], ~(free ^ rest),
					  memory_order_acq_rel);
	}
	return got;
}

/* Where the highest of `n` objects, listed downwards, ends; 0 without any. */
static uintptr_t
end_of(const struct hz4_class *k, void *const *objects, unsigned n)
{
	return n > 0 ? (uintptr_t)*objects + k->size : 0;
}

/*
 * Take free objects of one span; a part of hz4_transfer_take.  Whole groups
 * come first where other threads have their neighbours: two threads that
 * write to the same line wait for one another, and what shares one would be
 * freed and taken by the same two for ever.
 */
static unsigned
take_from_span(const struct hz4_class *k, struct hz4_span *s, void **end,
	       unsigned want, struct hz4_fresh *f)
{
	unsigned got = 0, more = 0;
	uintptr_t used;

	if (may_share_lines(k))
		got = take_lowest(k, s, end, want, true);
	used = end_of(k, end - got, got);
	if (got < want)
		more = take_lowest(k, s, end - got, want - got, false);
	got += more;
	used = hz4_max(used, end_of(k, end - got, more));
	open_objects(k, end - got, got);
	if (hz4_unlikely(s->marked))
		hz4_holes_fill(s, k, end - got, got);
	if (hz4_unlikely(used > hz4_fresh_from(s)))
		hz4_fresh_take(s, k, used, f);
	return got;
}

static unsigned
take_locked(struct hz4_spans *c, const struct hz4_class *k, void **end,
	    unsigned want, struct hz4_fresh *f)
{
	unsigned got = 0;
	struct hz4_span *s;

	while (got < want && (s = hz4_spans_next_locked(c, k)) != NULL) {
		got += take_from_span(k, s, end - got, want - got, f);
		if (got == want)
			break;
		hz4_spans_drained_locked(c, k, s);
	}
	return got;
}

/* The same from the lists of other shards. */
static HZ4_DEEP unsigned
take_elsewhere(unsigned cls, void **end, unsigned want, struct hz4_fresh *f)
{
	unsigned shard = 1, got = 0;
	struct hz4_spans *c;

	while (got == 0 && (c = hz4_spans_lock_next(cls, &shard)) != NULL) {
		got = take_locked(c, &hz4_classes[cls], end, want, f);
		hz4_spans_unlock(c);
	}
	return got;
}

/* The first objects of a new span; unlocks the class. */
static unsigned
take_new(struct hz4_spans *c, unsigned cls, void **end, unsigned want,
	 struct hz4_fresh *f)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = hz4_spans_make(c, cls);
	unsigned got;

	if (s == NULL)
		return 0;
	got = take_from_span(k, s, end, want, f);
	hz4_spans_admit(s, got < k->slots);
	return got;
}

/*
 * From the lists `c`, locked, of other shards or of a new span; unlocks.
 * Inlined: below it a thread's stack is needed for pages.
 */
HZ4_FAST unsigned
take(struct hz4_spans *c, unsigned cls, void **end, unsigned want,
     struct hz4_fresh *fresh, unsigned *path)
{
	const struct hz4_class *k = &hz4_classes[cls];
	unsigned got;

	*path = HZ4_TRANSFER_LOCKED;
	got = take_locked(c, k, end, want, fresh);
	if (got == 0 && hz4_unlikely(hz4_shards() > 1)) {
		hz4_spans_unlock(c);
		c = NULL;
		got = take_elsewhere(cls, end, want, fresh);
		if (got == 0) {
			c = hz4_spans_lock(cls);
			got = take_locked(c, k, end, want, fresh);
		}
	}
	if (got == 0) {
		*path |= HZ4_TRANSFER_CREATED;
		got = take_new(c, cls, end, want, fresh);
	} else if (c != NULL) {
		hz4_spans_unlock(c);
	}
	return got;
}

unsigned
hz4_transfer_take(unsigned cls, void **objects, unsigned want, unsigned *path)
{
	struct hz4_fresh fresh = { 0, 0 };
	void **end = objects + want;
	unsigned got;

	got = take(hz4_spans_lock(cls), cls, end, want, &fresh, path);
	if (got < want)
		memmove(objects, end - got, got * sizeof *objects);
	if (fresh.to != 0)
		hz4_fresh_populate(&hz4_classes[cls], objects, got, &fresh);
	return got;
}

/*
 * Whether the next object was used before, by more than its first OS page.  An
 * empty span stays idle, since nothing need be taken from it in the end.
 */
static bool
next_is_used_locked(struct hz4_spans *c, const struct hz4_class *k)
{
	struct hz4_span *s;
	uint32_t slot;

	while ((s = hz4_spans_see_locked(c, k)) != NULL) {
		slot = hz4_spans_first_free(k, s);
		if (slot < k->slots)
			return s->start + (uintptr_t)slot * k->size +
				       hz4_os_page <=
			       hz4_fresh_from(s);
		hz4_spans_drained_locked(c, k, s);
	}
	return false;
}

void *
hz4_transfer_take_zeroed(unsigned cls, size_t bytes, unsigned *path)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_spans *c = hz4_spans_lock(cls);
	struct hz4_fresh fresh = { 0, 0 };
	void *p;

	if (next_is_used_locked(c, k)) {
		hz4_spans_unlock(c);
		return NULL;
	}
	if (take(c, cls, &p + 1, 1, &fresh, path) == 0)
		return NULL;
	hz4_fresh_zero((uintptr_t)p, bytes, &fresh);
	return p;
}

_Noreturn HZ4_SLOW void
hz4_transfer_twice(const char *call, const struct hz4_class *k,
		   const void *object)
{
	hz4_fatal("%s: double free: ptr %p, size %u", call, object,
		  (unsigned)k->size);
}

/*
 * Set bits of one word.  Returns the span's slab when the span may belong
 * into another list now, else NULL.  It is looked up first: without the last
 * object that is out, the span may go, and its structure be zeros.
 */
static struct hz4_slab *
give_bits(const struct hz4_class *k, struct hz4_span *s, uint32_t w,
	  uint64_t bits)
{
	struct hz4_slab *slab = s->slab;
	/* seq_cst: the handshake above; its release half publishes. */
	uint64_t before = atomic_fetch_or(&s->bits[w], bits);

	HZ4_CHAOS();
	if (hz4_unlikely(before & bits)) {
		w = w * 64 + (uint32_t)__builtin_ctzll(before & bits);
		hz4_transfer_twice("free()", k,
				   (void *)(s->start + (uintptr_t)w * k->size));
	}
	if (!atomic_load(&s->linked))
		return slab;
	HZ4_CHAOS();
	if ((before | bits) == hz4_spans_full_word(k, w) &&
	    hz4_spans_is_empty(k, s))
		return slab;
	return NULL;
}

/* The span of an object that is given back; aborts when there is none. */
static struct hz4_span *
find_span(unsigned cls, const struct hz4_class *k, void *object)
{
	struct hz4_span *s = NULL;

	if (hz4_likely(hz4_pagemap_class(object) == cls))
		s = hz4_transfer_span(object, cls);
	if (hz4_unlikely(s == NULL))
		hz4_transfer_twice("free()", k, object);
	return s;
}

_Noreturn static HZ4_SLOW void
fatal_inside(const struct hz4_class *k, void *object)
{
	hz4_fatal("free(): pointer into an object: ptr %p, size %u", object,
		  (unsigned)k->size);
}

/* Which slot of its span an object is; aborts when it is none. */
static uint32_t
find_slot(const struct hz4_class *k, const struct hz4_span *s, void *object)
{
	uint64_t slot = hz4_sizeclass_slot(k, (uintptr_t)object - s->start);

	if (hz4_unlikely(slot >= k->slots))
		fatal_inside(k, object);
	return (uint32_t)slot;
}

/*
 * Objects of few to a span come from many spans, which other threads wrote
 * last: they shall be on their way together.
 */
static void
fetch_spans(const struct hz4_class *k, void *const *objects, unsigned n)
{
	if (k->words > 1)
		return;
	for (; n > 0; n--)
		__builtin_prefetch(
			hz4_pagemap_owner((uintptr_t)objects[n - 1]));
}

static void
give_word(const struct hz4_class *k, struct hz4_span *s, uint32_t w,
	  uint64_t bits, uint64_t *now, struct hz4_changed *changed)
{
	struct hz4_slab *slab = give_bits(k, s, w, bits);

	if (slab == NULL)
		return;
	if (*now == 0)
		*now = hz4_os_now();
	hz4_spans_note_changed(slab, s, *now, changed);
}

/*
 * Set the bits of objects.  `bits` are those of word `w` of the span `s` that
 * are still to be set; the word is that of the `reach` objects from `from`.
 * While there are any, an object of that span is out, so it has its pages, and
 * others that lie in these need no look at the page map.
 *
 * Out of line: what it has on the thread's stack is gone when spans that have
 * changed are seen to.
 */
static HZ4_DEEP void
set_bits(unsigned cls, void *const *objects, unsigned n, uint64_t now,
	 struct hz4_changed *changed)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = NULL, *next;
	size_t size = k->size;
	uintptr_t from = 0;
	uint64_t bits = 0, bit, slot;
	uint32_t w = 0, reach = 0;

	fetch_spans(k, objects, n);
	for (; n > 0; n--, objects++) {
		slot = hz4_sizeclass_slot(k, (uintptr_t)*objects - from);
		if (slot >= reach) {
			next = s;
			if (s == NULL ||
			    (uintptr_t)*objects - s->start >= size * k->slots)
				next = find_span(cls, k, *objects);
			slot = find_slot(k, next, *objects);
			if (s != NULL)
				give_word(k, s, w, bits, &now, changed);
			bits = 0;
			s = next;
			w = (uint32_t)slot / 64;
			from = s->start + size * 64 * w;
			reach = hz4_min(64u, k->slots - 64 * w);
			slot %= 64;
		}
		hz4_close((uintptr_t)*objects, k->size);
		bit = (uint64_t)1 << slot;
		if (hz4_unlikely(bits & bit))
			hz4_transfer_twice("free()", k, *objects);
		bits |= bit;
	}
	if (s != NULL)
		give_word(k, s, w, bits, &now, changed);
}

/* Inlined: below it a thread's stack is needed for pages. */
HZ4_FAST void
give(unsigned cls, void *const *objects, unsigned n, uint64_t now,
     unsigned *path)
{
	struct hz4_changed changed = { 0, 0 };
	unsigned gone = 0;

	*path = 0;
	if (n == 0)
		return;
	set_bits(cls, objects, n, now, &changed);
	if (changed.shards == 0)
		return;
	/* Some spans have to enter a list, or to leave one. */
	if (hz4_spans_refresh(cls, &changed, &gone))
		*path |= HZ4_TRANSFER_LOCKED;
	if (gone > 0)
		*path |= HZ4_TRANSFER_RELEASED;
}

void
hz4_transfer_give(unsigned cls, void *const *objects, unsigned n,
		  uint64_t now, unsigned *path)
{
	give(cls, objects, n, now, path);
}

void
hz4_transfer_give_bits(struct hz4_span *s, uint32_t w, uint64_t bits)
{
	struct hz4_changed changed = { 0, 0 };
	unsigned gone, cls = s->cls;
	uint64_t now = 0;

	give_word(&hz4_classes[cls], s, w, bits, &now, &changed);
	hz4_spans_refresh(cls, &changed, &gone);
}

unsigned
hz4_transfer_take_run(unsigned cls, void **objects, unsigned want,
		      struct hz4_counts *counts)
{
	unsigned path, n = hz4_transfer_take(cls, objects, want, &path);

	if (n == 0)
		return 0;
	hz4_count(counts, cls, HZ4_COUNT_malloc_lock_path, 1);
	hz4_count(counts, cls, path & HZ4_TRANSFER_CREATED ?
				       HZ4_COUNT_malloc_span_create :
				       HZ4_COUNT_malloc_transfer_hit, 1);
	hz4_count(counts, cls, HZ4_COUNT_malloc_alloc_run_refill_calls, 1);
	hz4_count(counts, cls, HZ4_COUNT_malloc_alloc_run_refill_objs, n);
	return n;
}

void
hz4_transfer_give_run(unsigned cls, void *const *objects, unsigned n,
		      uint64_t now, struct hz4_counts *counts)
{
	unsigned path;

	give(cls, objects, n, now, &path);
	hz4_count(counts, cls, HZ4_COUNT_free_alloc_run_flush_calls, 1);
	hz4_count(counts, cls, HZ4_COUNT_free_alloc_run_flush_objs, n);
	hz4_count(counts, cls, path & HZ4_TRANSFER_LOCKED ?
				       HZ4_COUNT_free_lock_path :
				       HZ4_COUNT_free_transfer_hit, 1);
	hz4_count(counts, cls, HZ4_COUNT_free_span_release,
		  (path & HZ4_TRANSFER_RELEASED) != 0);
}

void
hz4_transfer_reject(unsigned cls, void *object)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = find_span(cls, k, object);

	find_slot(k, s, object);
	hz4_transfer_twice("free()", k, object);
}
