/*
 * walker.c - the heap walker.
 *
 *     of each class    slots of all spans == free bits + net
 *                      net == the user's objects + cached ones
 *     of each cache    every object starts a slot of its class and is out,
 *                      and no object is there twice, in no two tiers;
 *                      granted == left + what the limits may hold;
 *                      the pool is what they have taken of it
 *     of each page     its owner exists and covers it; the ends of a free
 *                      run name the same run, which touches no other
 *     of each span     in a list, or in the inbox, if it has a free object;
 *                      in the idle list, or in the inbox, if it is empty
 *     of each list     what is in it belongs there, and the counts and sums
 *                      of the class and of the shard are those of its spans
 *     of the page heap bins, ages, structures put by, and the sums of pages
 *     of large objects their number and bytes
 *
 * It looks at the page map for what there is, and then into the lists.
 */
#include "walker.h"

#include "holes.h"
#include "l1.h"
#include "guard.h"
#include "large.h"
#include "log.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "pageruns.h"
#include "samples.h"
#include "spanlists.h"
#include "thread.h"
#include "transfer.h"

#include <string.h>

/* What the page map has of a class in a shard. */
struct lists {
	uint32_t spans, linked, idle_pages;
};

struct walk {
	size_t faults;
	struct lists lists[HZ4_SHARDS][HZ4_CLS_END];
	size_t runs, free_pages; /* free runs of this epoch */
	size_t taken, pages;	 /* runs that are in use */
	size_t large[2], bytes[2]; /* large objects: runs, mappings */
	size_t holes; /* OS pages of spans that were purged */
	size_t room_taken; /* by caches, from what threads share */
	void **seen; /* all cached objects */
	size_t count, room;
	int64_t net[HZ4_CLS_END];
	int64_t cached[HZ4_CLS_END];
	int64_t slots[HZ4_CLS_END];
	int64_t free[HZ4_CLS_END];
};

#define FAULT(w, ...) \
	do { \
		(w)->faults++; \
		hz4_log("check: " __VA_ARGS__); \
	} while (0)

static void
see_object(struct walk *w, unsigned cls, void *object)
{
	if (hz4_pagemap_class(object) != cls)
		FAULT(w, "%p is cached as class %u", object, cls);
	else if (!hz4_transfer_is_out(object, cls))
		FAULT(w, "%p is cached and free in its span", object);
	if (w->count < w->room)
		w->seen[w->count++] = object;
	w->cached[cls]++;
}

static void
see_class(struct walk *w, struct hz4_cache *c, unsigned cls)
{
	struct hz4_stack *s = &c->stack[cls];
	size_t stopped;
	void **p;

	w->net[cls] += hz4_peek(&c->tier[cls].net);
	p = hz4_peek(&s->base);
	/* A free may have been under way when it was stopped. */
	stopped = hz4_peek(&c->idle) >= HZ4_IDLE_STOPPED;
	if (hz4_cache_count(c, cls) > c->tier[cls].limit + stopped)
		FAULT(w, "a stack of class %u is above its limit", cls);
	if (p == NULL)
		return;
	for (p += hz4_peek(&c->tier[cls].gone); p < hz4_peek(&s->top); p++)
		see_object(w, cls, *p);
}

static void
see_cache(struct hz4_cache *c, void *arg)
{
	size_t given = 0;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		see_class(arg, c, cls);
		given += c->tier[cls].limit * (size_t)hz4_classes[cls].size;
	}
	if (c->granted != c->left + given || c->taken > c->granted)
		FAULT((struct walk *)arg,
		      "of %zu bytes for a cache %zu are left, %zu given",
		      c->granted, c->left, given);
	((struct walk *)arg)->room_taken += c->taken;
	if (hz4_peek(&c->busy) != HZ4_CLS_NONE)
		FAULT((struct walk *)arg, "a cache is busy");
}

static void
see_l1(const struct hz4_l1 *l, void *arg)
{
	struct walk *w = arg;
	size_t bytes = 0;
	uint32_t i, count;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		count = hz4_peek(&l->shelf[cls].count);
		w->net[cls] += hz4_peek(&l->shelf[cls].net);
		bytes += count * (size_t)hz4_classes[cls].size;
		if (count > l->shelf[cls].room)
			FAULT(w, "L1 of class %u is above its room", cls);
		for (i = 0; i < count; i++)
			see_object(w, cls, l->shelf[cls].array[i]);
	}
	if (bytes != hz4_peek(&l->bytes))
		FAULT(w, "an L1 has %zu bytes and counts %zu", bytes,
		      hz4_peek(&l->bytes));
	if (hz4_peek(&l->busy) != HZ4_CLS_NONE)
		FAULT(w, "an L1 is busy");
}

static void
sift(void **a, size_t root, size_t n)
{
	size_t child;
	void *t;

	while ((child = 2 * root + 1) < n) {
		if (child + 1 < n && a[child] < a[child + 1])
			child++;
		if (a[root] >= a[child])
			return;
		t = a[root];
		a[root] = a[child];
		a[child] = t;
		root = child;
	}
}

/* Heap sort: libc's qsort may allocate. */
static void
sort(void **a, size_t n)
{
	size_t i;
	void *t;

	for (i = n / 2; i-- > 0;)
		sift(a, i, n);
	for (i = n; i-- > 1;) {
		t = a[0];
		a[0] = a[i];
		a[i] = t;
		sift(a, 0, i);
	}
}

static void
see_twins(struct walk *w)
{
	size_t i;

	sort(w->seen, w->count);
	for (i = 1; i < w->count; i++)
		if (w->seen[i - 1] == w->seen[i])
			FAULT(w, "%p is cached twice", w->seen[i]);
}

static bool
is_queued(struct hz4_span *s)
{
	return (atomic_load(&s->slab->queued) & hz4_slab_bit(s->slab, s)) != 0;
}

/* Whether a span is where it belongs, with so many free objects. */
static void
see_place(struct walk *w, struct hz4_span *s, uint32_t unused)
{
	const struct hz4_class *k = &hz4_classes[s->cls];
	struct lists *l = &w->lists[s->slab->shard][s->cls];
	bool linked = atomic_load(&s->linked);

	l->spans++;
	l->linked += linked;
	l->idle_pages += s->idle ? k->pages : 0;
	if (s->idle && (!linked || unused != k->slots))
		FAULT(w, "the span at %p is idle, %u of %u objects free",
		      (void *)s->start, (unsigned)unused, (unsigned)k->slots);
	if (is_queued(s))
		return;
	if (unused > 0 && !linked)
		FAULT(w, "the span at %p has %u free objects and is in no list",
		      (void *)s->start, (unsigned)unused);
	if (unused == k->slots && !s->idle)
		FAULT(w, "the span at %p is empty and not idle",
		      (void *)s->start);
}

static void
see_span(struct walk *w, uintptr_t page, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = hz4_pagemap_owner(page);
	uint32_t unused;

	if (s == NULL || s->cls != cls || !s->active || page < s->start ||
	    page >= s->start + k->pages * (uintptr_t)HZ4_PAGE) {
		FAULT(w, "page %p of class %u has a wrong owner",
		      (void *)page, cls);
		return;
	}
	if (page != s->start)
		return;
	w->slots[cls] += k->slots;
	unused = hz4_spans_count_free(k, s);
	w->free[cls] += unused;
	w->holes += hz4_holes_count(s, k);
	w->taken++;
	w->pages += k->pages;
	see_place(w, s, unused);
}

static void
see_run(struct walk *w, uintptr_t page)
{
	struct hz4_run *r = hz4_pagemap_owner(page);
	uintptr_t last = r->start + (r->pages - (size_t)1) * HZ4_PAGE;

	if ((page != r->start && page != last) ||
	    hz4_pagemap_owner(r->start) != r || hz4_pagemap_owner(last) != r)
		FAULT(w, "page %p is no end of its free run", (void *)page);
	if (r->dirty > r->pages)
		FAULT(w, "the free run at %p has %u dirty pages of %u",
		      (void *)r->start, (unsigned)r->dirty,
		      (unsigned)r->pages);
	if (page != r->start || r->epoch != hz4_runs.epoch)
		return;
	w->runs++;
	w->free_pages += r->pages;
	for (page += HZ4_PAGE; page < last; page += HZ4_PAGE)
		if (hz4_pagemap_class((void *)page) != HZ4_CLS_NONE)
			FAULT(w, "page %p of a free run has a class",
			      (void *)page);
	last += HZ4_PAGE;
	if (hz4_pagemap_has_leaf(last) &&
	    (hz4_pagemap_flags(last) & HZ4_PAGE_FREE) &&
	    ((struct hz4_run *)hz4_pagemap_owner(last))->epoch == r->epoch)
		FAULT(w, "two free runs touch at %p", (void *)last);
}

static void
see_large(struct walk *w, uintptr_t page)
{
	struct hz4_large *l = hz4_pagemap_owner(page);

	if (l == NULL || l->start != page) {
		FAULT(w, "page %p is no large object's", (void *)page);
		return;
	}
	if (l->asked > l->bytes || l->bytes % HZ4_PAGE != 0)
		FAULT(w, "%zu bytes of %zu were asked for at %p", l->asked,
		      l->bytes, (void *)page);
	w->large[l->mapping]++;
	w->bytes[l->mapping] += l->bytes;
	if (l->mapping)
		return;
	w->taken++;
	w->pages += l->bytes / HZ4_PAGE;
}

static void
see_page(struct walk *w, uintptr_t page)
{
	unsigned cls = hz4_pagemap_class((void *)page);

	if (cls == HZ4_CLS_RUN) {
		see_large(w, page);
	} else if (cls == HZ4_CLS_MARKED && hz4_guard_owns((void *)page)) {
		return;
	} else if (cls == HZ4_CLS_MARKED) {
		w->taken += hz4_samples_pages(page) > 0;
		w->pages += hz4_samples_pages(page);
	} else if (cls != HZ4_CLS_NONE) {
		see_span(w, page, cls);
	}
	if (!(hz4_pagemap_flags(page) & HZ4_PAGE_FREE))
		return;
	if (cls != HZ4_CLS_NONE)
		FAULT(w, "page %p is free and has a class", (void *)page);
	else
		see_run(w, page);
}

static void
see_pages(struct walk *w)
{
	uintptr_t i, k, base;

	for (i = 0; i < HZ4_ROOT_ENTRIES; i++) {
		base = (uintptr_t)((uint64_t)i << HZ4_LEAF_SHIFT);
		if (!hz4_pagemap_has_leaf(base))
			continue;
		for (k = 0; k < HZ4_LEAF_PAGES; k++)
			see_page(w, base + k * HZ4_PAGE);
	}
}

static void
see_sums(struct walk *w)
{
	unsigned cls;
	int64_t net;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		net = w->net[cls] + hz4_thread_bare_net(cls);
		if (net < w->cached[cls])
			FAULT(w, "class %u: %lld out, %lld cached", cls,
			      (long long)net, (long long)w->cached[cls]);
		if (w->slots[cls] != w->free[cls] + net)
			FAULT(w, "class %u: %lld slots, %lld free, %lld out",
			      cls, (long long)w->slots[cls],
			      (long long)w->free[cls], (long long)net);
	}
}

/* Walk a list of spans, idle ones or others; returns how many there are. */
static uint32_t
see_list(struct walk *w, struct hz4_spans *c, struct hz4_list *list, bool idle)
{
	unsigned cls = hz4_lists_class(c), shard = hz4_lists_shard(c);
	struct hz4_list *l;
	struct hz4_span *s;
	uint32_t n = 0;

	for (l = list->next; l != list; l = l->next, n++) {
		s = hz4_lists_span(l);
		if (l->next->prev != l || s->cls != cls ||
		    s->slab->shard != shard ||
		    !s->active || s->idle != idle || !atomic_load(&s->linked)) {
			FAULT(w, "class %u: a span in a wrong list", cls);
			return n;
		}
	}
	return n;
}

static void
see_inbox(struct walk *w, struct hz4_spans *c)
{
	unsigned cls = hz4_lists_class(c);
	size_t pages = 0, waiting = atomic_load(&c->waiting);
	struct hz4_slab *slab;
	uint64_t queued;

	for (slab = atomic_load(&c->inbox); slab != NULL; slab = slab->next) {
		queued = atomic_load(&slab->queued);
		pages += (size_t)__builtin_popcountll(queued) *
			 hz4_classes[cls].pages;
		if (hz4_lists_of(slab) != c || queued == 0 || pages > waiting) {
			FAULT(w, "class %u: a span in the inbox that is not "
			      "counted or not queued", cls);
			return;
		}
	}
	if (pages != waiting)
		FAULT(w, "class %u: %zu pages in the inbox, not %zu", cls,
		      pages, waiting);
}

static void
see_unused(struct walk *w, const struct hz4_slab *slab)
{
	uint64_t rest = hz4_peek(&slab->unused);

	if (rest == 0)
		FAULT(w, "class %u: a slab without unused spans is listed",
		      (unsigned)slab->cls);
	for (; rest != 0; rest &= rest - 1)
		if (hz4_slab_span(slab, (unsigned)__builtin_ctzll(rest))
			    ->active)
			FAULT(w, "class %u: an unused span is active",
			      (unsigned)slab->cls);
}

/* Returns the pages of idle and waiting spans that the shard knows of. */
static size_t
see_class_lists(struct walk *w, unsigned shard, unsigned cls)
{
	const struct lists *l = &w->lists[shard][cls];
	struct hz4_spans *c = hz4_lists_at(shard, cls);
	size_t waiting = atomic_load(&c->waiting);
	struct hz4_list *u;
	uint32_t n = 0;

	if (c->partial.next != NULL) {
		n = see_list(w, c, &c->partial, false) +
		    see_list(w, c, &c->sparse, false) +
		    see_list(w, c, &c->idle, true);
		for (u = c->unused.next; u != &c->unused; u = u->next)
			see_unused(w, hz4_container(u, struct hz4_slab, link));
	}
	if (c->spans != l->spans || n != l->linked ||
	    hz4_peek(&c->listed) != n ||
	    hz4_peek(&c->idle_pages) != l->idle_pages ||
	    c->idle_told != l->idle_pages)
		FAULT(w, "class %u, shard %u: %u spans, not %u, %u listed, "
		      "%u linked, %u counted so, %u idle pages, %u counted, "
		      "%u told", cls, shard, c->spans, (unsigned)l->spans,
		      (unsigned)n, (unsigned)l->linked,
		      (unsigned)hz4_peek(&c->listed), (unsigned)l->idle_pages,
		      (unsigned)hz4_peek(&c->idle_pages),
		      (unsigned)c->idle_told);
	see_inbox(w, c);
	return c->idle_told + waiting - waiting % (HZ4_SPAN_TELL / HZ4_PAGE);
}

static void
see_lists(struct walk *w)
{
	unsigned shard, cls;
	size_t pages = 0;

	for (shard = 0; shard < HZ4_SHARDS; shard++)
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			pages += see_class_lists(w, shard, cls);
	if (hz4_spans_idle() != pages * HZ4_PAGE)
		FAULT(w, "%zu bytes of idle spans, not %zu", hz4_spans_idle(),
		      pages * HZ4_PAGE);
}

/* The bin of a run, by the rule of pageruns.c once more. */
static bool
is_in_bin(const struct hz4_run *r, unsigned bin)
{
	size_t least;

	if (bin < HZ4_RUNS_EXACT)
		return r->pages == bin;
	least = (size_t)HZ4_RUNS_EXACT << (bin - HZ4_RUNS_EXACT);
	return r->pages >= least && r->pages / 2 < least;
}

/* The free runs: how many are dirty, and the sums of pages. */
static size_t
see_bins(struct walk *w)
{
	size_t runs = 0, pages = 0, dirty = 0, dirty_runs = 0;
	struct hz4_list *l;
	struct hz4_run *r;
	unsigned bin;

	for (bin = 0; bin < HZ4_RUNS_BINS; bin++) {
		struct hz4_list *list = &hz4_runs.bin[bin];

		if (!(hz4_runs.filled[bin / 64] >> bin % 64 & 1) !=
		    hz4_list_empty(list))
			FAULT(w, "bin %u is marked wrong", bin);
		for (l = list->next; l != list; l = l->next) {
			r = hz4_container(l, struct hz4_run, link);
			if (l->next->prev != l || !is_in_bin(r, bin) ||
			    r->epoch != hz4_runs.epoch ||
			    hz4_pagemap_owner(r->start) != r) {
				FAULT(w, "a wrong run in bin %u", bin);
				break;
			}
			runs++;
			pages += r->pages;
			dirty += r->dirty;
			dirty_runs += r->dirty > 0;
		}
	}
	if (runs != w->runs || pages != w->free_pages ||
	    pages != hz4_peek(&hz4_runs_hints.free) ||
	    dirty != hz4_peek(&hz4_runs_hints.dirty))
		FAULT(w, "%zu free runs of %zu pages in bins, %zu of %zu in "
		      "the page map, %zu pages counted; %zu dirty, %zu counted",
		      runs, pages, w->runs, w->free_pages,
		      hz4_peek(&hz4_runs_hints.free), dirty,
		      hz4_peek(&hz4_runs_hints.dirty));
	return dirty_runs;
}

static void
see_ages(struct walk *w, size_t dirty_runs)
{
	uint64_t oldest = UINT64_MAX;
	struct hz4_list *l;
	struct hz4_run *r;
	size_t n = 0;

	for (l = hz4_runs.aged.next; l != &hz4_runs.aged; l = l->next) {
		r = hz4_container(l, struct hz4_run, age);
		if (n++ == 0)
			oldest = r->stamp;
		if (l->next->prev != l || r->dirty == 0 ||
		    r->epoch != hz4_runs.epoch) {
			FAULT(w, "the run at %p has no age", (void *)r->start);
			break;
		}
	}
	if (n != dirty_runs || oldest != hz4_peek(&hz4_runs_hints.oldest))
		FAULT(w, "%zu runs of %zu have an age, the oldest %llu, not "
		      "%llu", n, dirty_runs, (unsigned long long)oldest,
		      (unsigned long long)hz4_peek(&hz4_runs_hints.oldest));
}

static void
see_heap(struct walk *w)
{
	struct hz4_list *l;
	size_t spares = 0;

	if (!hz4_runs.ready)
		return;
	see_ages(w, see_bins(w));
	for (l = hz4_runs.spare.next; l != &hz4_runs.spare; l = l->next)
		spares++;
	/* What a thread that is gone had is not counted in a child. */
	if (spares != hz4_runs.spares || spares < hz4_runs.handed_out ||
	    (hz4_runs.epoch == 1 && w->taken > hz4_runs.handed_out))
		FAULT(w, "%zu structures put by, not %zu, for %zu runs, not "
		      "%zu", spares, hz4_runs.spares, w->taken,
		      hz4_runs.handed_out);
	if ((w->pages + w->free_pages) * HZ4_PAGE > hz4_pageheap_mapped())
		FAULT(w, "%zu pages are used, %zu free of %zu", w->pages,
		      w->free_pages, hz4_pageheap_mapped() / HZ4_PAGE);
}

static void
see_figures(struct walk *w)
{
	struct hz4_large_figures f;

	hz4_large_figures(&f);
	if (f.objects != w->large[0] + w->large[1] ||
	    f.mappings != w->large[1] || f.mapped != w->bytes[1] ||
	    f.bytes != w->bytes[0] + w->bytes[1])
		FAULT(w, "%zu large objects of %zu bytes and %zu of %zu, not "
		      "%zu of %zu in all", w->large[0], w->bytes[0],
		      w->large[1], w->bytes[1], f.objects, f.bytes);
}

size_t
hz4_check(void)
{
	enum { MOST_CACHED = 4 * 1024 * 1024 };
	struct walk w;

	if (!HZ4_DEBUG_BOX)
		return 0;
	hz4_thread_start();
	memset(&w, 0, sizeof w);
	w.room = MOST_CACHED;
	w.seen = hz4_os_map(w.room * sizeof *w.seen, hz4_os_page);
	if (w.seen == NULL)
		w.room = 0;
	hz4_thread_each(see_cache, &w);
	hz4_l1_each(see_l1, &w);
	if (w.room_taken != hz4_share_taken())
		FAULT(&w, "caches took %zu bytes, the pool gave %zu",
		      w.room_taken, hz4_share_taken());
	see_twins(&w);
	see_pages(&w);
	if (w.holes * hz4_os_page != hz4_holes())
		FAULT(&w, "spans have %zu OS pages purged, %zu are counted",
		      w.holes, hz4_holes() / hz4_os_page);
	see_sums(&w);
	see_lists(&w);
	see_heap(&w);
	see_figures(&w);
	if (w.seen != NULL)
		hz4_os_unmap(w.seen, w.room * sizeof *w.seen);
	return w.faults;
}
