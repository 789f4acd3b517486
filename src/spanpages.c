/*
 * spanpages.c - getting pages for spans, keeping idle spans, letting their
 * pages go.
 */
#include "fresh.h"
#include "holes.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "shard.h"
#include "spanlists.h"

/*
 * Of each shard the sums of its classes' idle_told and of `waiting`, this one
 * rounded down to HZ4_SPAN_TELL.  Signed: after a fork in the midst of a
 * change they may lack it. [atomic] relaxed: sums that bound themselves
 */
static struct {
	_Atomic long pages;
	_Atomic long waiting;
} HZ4_LINE_ALIGNED idle[HZ4_SHARDS];

static size_t
positive(long n)
{
	return n > 0 ? (size_t)n : 0;
}

/*
 * Let nobody touch the objects of HZ4_CLS_ZERO, or make their pages usable
 * again.  Where the kernel refuses the first, they stay usable.
 */
static bool
set_access(unsigned cls, uintptr_t start, bool on)
{
	const struct hz4_class *k = &hz4_classes[cls];

	if (cls != HZ4_CLS_ZERO || !(on || hz4_option(HZ4_OPT_zero_trap)))
		return true;
	return hz4_os_protect((void *)start, k->pages * (size_t)HZ4_PAGE, on);
}

/* Pages that cannot be made usable are lost: addresses alone. */
void
hz4_idle_release(unsigned cls, const struct hz4_gone *gone, unsigned n)
{
	const struct hz4_class *k = &hz4_classes[cls];

	for (; n > 0; n--, gone++) {
		hz4_pagemap_set(gone->start, k->pages, HZ4_CLS_NONE, NULL);
		if (set_access(cls, gone->start, true))
			hz4_pageheap_free(gone->start, k->pages, gone->since);
	}
}

void
hz4_idle_add_locked(struct hz4_spans *c, struct hz4_list *at,
		    struct hz4_span *s)
{
	hz4_lists_add_locked(c, at, s);
	s->idle = true;
	hz4_poke(&c->idle_pages,
		 hz4_peek(&c->idle_pages) + hz4_classes[s->cls].pages);
}

/*
 * The oldest idle span goes: its structure is free again, its pages still
 * count as used.
 */
static struct hz4_gone
retire_locked(struct hz4_spans *c)
{
	struct hz4_span *s = hz4_lists_span(c->idle.prev);
	struct hz4_gone gone = { s->start, hz4_peek(&s->since) };

	hz4_lists_remove_locked(c, s);
	c->spans--;
	atomic_store(&s->linked, false);
	s->active = false;
	hz4_fresh_end(s);
	hz4_holes_end(s, &hz4_classes[s->cls]);
	hz4_list_push(&c->unused, &s->link);
	return gone;
}

/* Pages of idle spans that may stay in each shard. */
static size_t
limit(void)
{
	size_t bytes = hz4_max(HZ4_SPAN_IDLE,
			       hz4_pageheap_used() / HZ4_SPAN_IDLE_SHARE);

	if (hz4_option(HZ4_OPT_purge_delay) == 0)
		return 0;
	return bytes / HZ4_PAGE / hz4_shards();
}

size_t
hz4_idle_tell_locked(struct hz4_spans *c)
{
	long change = (long)hz4_peek(&c->idle_pages) - (long)c->idle_told;
	_Atomic long *sum = &idle[hz4_lists_shard(c)].pages;

	c->idle_told = hz4_peek(&c->idle_pages);
	return positive(change + atomic_fetch_add_explicit(
					 sum, change, memory_order_relaxed));
}

/* What the shard is told of so many waiting pages. */
static long
rounded(size_t pages)
{
	return (long)(pages - pages % (HZ4_SPAN_TELL / HZ4_PAGE));
}

/* Returns what the shard has now, 0 when it was not told. */
static long
tell_waiting(struct hz4_spans *c, size_t before, size_t after)
{
	long change = rounded(after) - rounded(before);
	_Atomic long *sum = &idle[hz4_lists_shard(c)].waiting;

	if (change == 0)
		return 0;
	return change +
	       atomic_fetch_add_explicit(sum, change, memory_order_relaxed);
}

bool
hz4_idle_add_waiting(struct hz4_spans *c, size_t pages)
{
	size_t before = atomic_fetch_add(&c->waiting, pages);
	long all = tell_waiting(c, before, before + pages);

	/* Only who tells looks: the limit is on a line that others write. */
	return all > 0 && (size_t)all > limit() * hz4_shards();
}

void
hz4_idle_sub_waiting(struct hz4_spans *c, size_t pages)
{
	size_t before = atomic_fetch_sub(&c->waiting, pages);

	tell_waiting(c, before, before - pages);
}

/*
 * They stay while all that do are few enough, or as the one that the shard
 * has of the class: the next object may be asked for at once.
 */
unsigned
hz4_idle_shed_locked(struct hz4_spans *c, bool all, struct hz4_gone *gone)
{
	uint32_t each = hz4_classes[hz4_lists_class(c)].pages;
	size_t most = limit(), pages = hz4_idle_tell_locked(c);
	unsigned n = 0;

	while (n < HZ4_SPANS_GONE && hz4_peek(&c->idle_pages) > 0 &&
	       (all || (pages > most && (hz4_peek(&c->idle_pages) > each ||
					 !hz4_list_empty(&c->partial) ||
					 !hz4_list_empty(&c->sparse))))) {
		gone[n++] = retire_locked(c);
		pages -= hz4_min(pages, each);
	}
	/* Those left over are shed where the rest of these is told. */
	if (n > 0 && n < HZ4_SPANS_GONE)
		hz4_idle_tell_locked(c);
	return n;
}

static void
trim_lists(struct hz4_spans *c)
{
	unsigned n = HZ4_SPANS_GONE;

	/* Once more where somebody else had the lock in between. */
	while (n >= HZ4_SPANS_GONE &&
	       (hz4_peek(&c->idle_pages) > 0 || hz4_peek(&c->waiting) > 0)) {
		hz4_lists_lock(c);
		hz4_lists_drain_locked(c);
		n = hz4_lists_unlock(c, true);
	}
}

void
hz4_spans_trim(void)
{
	unsigned shard, cls;

	for (shard = 0; shard < hz4_shards(); shard++)
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			trim_lists(&hz4_lists[shard][cls]);
}

size_t
hz4_spans_idle(void)
{
	size_t pages = 0;
	unsigned shard;

	for (shard = 0; shard < hz4_shards(); shard++)
		pages += positive(hz4_peek(&idle[shard].pages)) +
			 positive(hz4_peek(&idle[shard].waiting));
	return pages * HZ4_PAGE;
}

/* Idle lists have the latest first. */
static uint64_t
oldest_of(struct hz4_spans *c)
{
	uint64_t since = UINT64_MAX;

	if (hz4_peek(&c->idle_pages) == 0 && hz4_peek(&c->waiting) == 0)
		return since;
	hz4_lists_lock(c);
	hz4_lists_drain_locked(c);
	if (!hz4_list_empty(&c->idle))
		since = hz4_peek(&hz4_lists_span(c->idle.prev)->since);
	hz4_lists_unlock(c, false);
	return since;
}

uint64_t
hz4_spans_oldest(void)
{
	uint64_t since = UINT64_MAX;
	unsigned shard, cls;

	for (shard = 0; shard < hz4_shards(); shard++)
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			since = hz4_min(since,
					oldest_of(&hz4_lists[shard][cls]));
	return since;
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

static struct hz4_span *
new_structure(struct hz4_spans *c, unsigned cls)
{
	struct hz4_span *s;

	s = hz4_meta_alloc(sizeof *s +
			   hz4_classes[cls].words * sizeof s->bits[0] +
			   hz4_holes_bytes(&hz4_classes[cls]));
	if (s == NULL)
		return NULL;
	hz4_list_init(&s->link);
	s->cls = (uint8_t)cls;
	s->shard = (uint8_t)hz4_lists_shard(c);
	s->active = false;
	s->idle = false;
	s->looked = false;
	atomic_init(&s->linked, false);
	atomic_init(&s->queued, 0);
	atomic_init(&s->ahead, 0);
	atomic_init(&s->since, 0);
	s->older = hz4_peek(&c->made);
	while (!atomic_compare_exchange_weak_explicit(&c->made, &s->older, s,
						      memory_order_release,
						      memory_order_relaxed))
		;
	return s;
}

/* An unused one, or a new one; unlocks the lists. */
static struct hz4_span *
take_structure(struct hz4_spans *c, unsigned cls)
{
	struct hz4_span *s = NULL;

	if (!hz4_list_empty(&c->unused)) {
		s = hz4_lists_span(c->unused.next);
		hz4_list_remove(&s->link);
	}
	hz4_lists_unlock(c, false);
	return s != NULL ? s : new_structure(c, cls);
}

static void
keep_structure(struct hz4_span *s)
{
	struct hz4_spans *c = hz4_lists_of(s);

	hz4_lists_lock(c);
	hz4_list_push(&c->unused, &s->link);
	hz4_lists_unlock(c, false);
}

struct hz4_span *
hz4_spans_make(struct hz4_spans *c, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	size_t spans = c->spans;
	struct hz4_span *s = take_structure(c, cls);
	uint32_t w;

	if (s == NULL)
		return NULL;
	hz4_spans_make_room(k->pages);
	s->start = hz4_pageheap_alloc(k->pages, HZ4_PAGE, cls != HZ4_CLS_ZERO);
	if (s->start == 0) {
		keep_structure(s);
		return NULL;
	}
	for (w = 0; w < k->words; w++)
		atomic_store_explicit(&s->bits[w], hz4_spans_full_word(k, w),
				      memory_order_relaxed);
	hz4_fresh_start(s, k, spans);
	hz4_holes_start(s, k);
	hz4_close(s->start, k->pages * (size_t)HZ4_PAGE);
	set_access(cls, s->start, false);
	hz4_pagemap_set(s->start, k->pages, cls, s);
	return s;
}

void
hz4_idle_recount(unsigned shard)
{
	long pages = 0, waiting = 0;
	struct hz4_spans *c;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		c = &hz4_lists[shard][cls];
		c->idle_told = hz4_peek(&c->idle_pages);
		pages += (long)c->idle_told;
		waiting += rounded(hz4_peek(&c->waiting));
	}
	hz4_poke(&idle[shard].pages, pages);
	hz4_poke(&idle[shard].waiting, waiting);
}
