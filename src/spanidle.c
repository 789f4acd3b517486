/*
 * spanidle.c - idle spans: how many there are, how many may stay, letting
 * their pages go.
 */
#include "fresh.h"
#include "holemap.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "probe.h"
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

bool
hz4_lists_set_access(unsigned cls, uintptr_t start, bool on)
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
		if (hz4_lists_set_access(cls, gone->start, true))
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
	hz4_poke(&c->spans, hz4_peek(&c->spans) - 1);
	atomic_store(&s->linked, false);
	s->active = false;
	hz4_fresh_end(s);
	hz4_holes_end(s, &hz4_classes[s->cls]);
	HZ4_PROBE2(span_release, gone.start, hz4_sizeclass_usable(s->cls));
	hz4_slab_give_locked(c, s);
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

void
hz4_idle_recount(unsigned shard)
{
	long pages = 0, waiting = 0;
	struct hz4_spans *c;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		c = hz4_lists_at(shard, cls);
		c->idle_told = hz4_peek(&c->idle_pages);
		pages += (long)c->idle_told;
		waiting += rounded(hz4_peek(&c->waiting));
	}
	hz4_poke(&idle[shard].pages, pages);
	hz4_poke(&idle[shard].waiting, waiting);
}
