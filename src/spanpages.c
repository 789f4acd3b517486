/*
 * spanpages.c - getting pages for spans, keeping idle spans, letting their
 * pages go.
 */
#include "fresh.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "shard.h"
#include "spanlists.h"

/*
 * All classes' idle_told of each shard. [atomic] relaxed: sums that bound
 * themselves
 */
static struct {
	_Atomic size_t pages;
} HZ4_LINE_ALIGNED idle[HZ4_SHARDS];

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
hz4_idle_add_locked(struct hz4_spans *c, struct hz4_span *s)
{
	hz4_lists_add_locked(c, &c->idle, s);
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
	size_t now = hz4_peek(&c->idle_pages), change = now - c->idle_told;
	_Atomic size_t *sum = &idle[hz4_lists_shard(c)].pages;

	c->idle_told = (uint32_t)now;
	return change +
	       atomic_fetch_add_explicit(sum, change, memory_order_relaxed);
}

/*
 * They stay while all that do are few enough, or as the one that the shard
 * has of the class: the next object may be asked for at once.
 */
unsigned
hz4_idle_shed_locked(struct hz4_spans *c, struct hz4_gone *gone)
{
	uint32_t each = hz4_classes[hz4_lists_class(c)].pages;
	size_t most = limit(), pages = hz4_idle_tell_locked(c);
	unsigned n = 0;

	while (pages > most && n < HZ4_BATCH_MAX &&
	       (hz4_peek(&c->idle_pages) > each ||
		(hz4_peek(&c->idle_pages) > 0 &&
		 !hz4_list_empty(&c->partial)))) {
		gone[n++] = retire_locked(c);
		pages -= hz4_min(pages, each);
	}
	if (n > 0)
		hz4_idle_tell_locked(c);
	return n;
}

static void
trim_lists(struct hz4_spans *c)
{
	struct hz4_gone gone[HZ4_BATCH_MAX];
	unsigned n;

	if (hz4_peek(&c->idle_pages) == 0 && hz4_peek(&c->waiting) == 0)
		return;
	do {
		hz4_lists_lock(c);
		hz4_lists_drain_locked(c);
		for (n = 0; n < HZ4_BATCH_MAX && !hz4_list_empty(&c->idle);
		     n++)
			gone[n] = retire_locked(c);
		hz4_idle_tell_locked(c);
		hz4_lock_release(&c->lock);
		hz4_idle_release(hz4_lists_class(c), gone, n);
	} while (n == HZ4_BATCH_MAX);
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
		pages += hz4_peek(&idle[shard].pages);
	return pages * HZ4_PAGE;
}

/* Idle lists have the latest first. */
static uint64_t
oldest_of(struct hz4_spans *c)
{
	uint64_t since = UINT64_MAX;

	if (hz4_peek(&c->idle_pages) == 0)
		return since;
	hz4_lists_lock(c);
	if (!hz4_list_empty(&c->idle))
		since = hz4_peek(&hz4_lists_span(c->idle.prev)->since);
	hz4_lock_release(&c->lock);
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

	s = hz4_meta_alloc(sizeof *s + hz4_classes[cls].words *
					       sizeof s->bits[0]);
	if (s == NULL)
		return NULL;
	hz4_list_init(&s->link);
	s->cls = (uint8_t)cls;
	s->shard = (uint8_t)hz4_lists_shard(c);
	s->active = false;
	s->idle = false;
	atomic_init(&s->linked, false);
	atomic_init(&s->queued, 0);
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
	hz4_lists_unlock(c);
	return s != NULL ? s : new_structure(c, cls);
}

static void
keep_structure(struct hz4_span *s)
{
	struct hz4_spans *c = hz4_lists_of(s);

	hz4_lists_lock(c);
	hz4_list_push(&c->unused, &s->link);
	hz4_lists_unlock(c);
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
	s->start = hz4_pageheap_alloc(k->pages, HZ4_PAGE);
	if (s->start == 0) {
		keep_structure(s);
		return NULL;
	}
	for (w = 0; w < k->words; w++)
		atomic_store_explicit(&s->bits[w], hz4_spans_full_word(k, w),
				      memory_order_relaxed);
	hz4_fresh_start(s, k, spans);
	hz4_close(s->start, k->pages * (size_t)HZ4_PAGE);
	set_access(cls, s->start, false);
	hz4_pagemap_set(s->start, k->pages, cls, s);
	return s;
}

void
hz4_idle_recount(unsigned shard)
{
	struct hz4_spans *c;
	size_t pages = 0;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		c = &hz4_lists[shard][cls];
		c->idle_told = hz4_peek(&c->idle_pages);
		pages += c->idle_told;
	}
	hz4_poke(&idle[shard].pages, pages);
}
