/*
 * walker.c - the heap walker.
 *
 *     of each class    slots of all spans == free bits + net
 *                      net == the user's objects + cached ones
 *     of each cache    every object starts a slot of its class and is out,
 *                      and no object is there twice, in no two tiers
 *     of each page     its owner exists and covers it; the ends of a free
 *                      run name the same run
 */
#include "walker.h"

#include "log.h"
#include "os.h"
#include "pagemap.h"
#include "span.h"
#include "thread.h"
#include "transfer.h"

#include <string.h>

struct walk {
	size_t faults;
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
	void **p, **floor;

	w->net[cls] += hz4_peek(&c->tier[cls].net);
	if (hz4_peek(&s->top) > s->high)
		FAULT(w, "a stack of class %u is above its limit", cls);
	if (hz4_peek(&s->base) != NULL && hz4_peek(&s->base)[-1] != NULL)
		FAULT(w, "below a stack of class %u lies no NULL", cls);
	for (p = hz4_peek(&s->base); p < hz4_peek(&s->top); p++)
		see_object(w, cls, *p);
	if (!hz4_l0_open(c->l0, cls))
		return;
	floor = hz4_l0_of(c->l0, cls)->floor;
	if (floor < hz4_peek(&s->base) || floor > hz4_peek(&s->top) ||
	    hz4_peek(&s->top) - floor > HZ4_MID_DUAL_TIER_L0_LIMIT)
		FAULT(w, "L0 of class %u is not within its limit", cls);
}

static void
see_cache(struct hz4_cache *c, void *arg)
{
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		see_class(arg, c, cls);
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

static void
see_span(struct walk *w, uintptr_t page, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = hz4_pagemap_owner(page);
	uint32_t i;

	if (s == NULL || s->cls != cls || !s->active || page < s->start ||
	    page >= s->start + k->pages * (uintptr_t)HZ4_PAGE) {
		FAULT(w, "page %p of class %u has a wrong owner",
		      (void *)page, cls);
		return;
	}
	if (page != s->start)
		return;
	w->slots[cls] += k->slots;
	for (i = 0; i < k->words; i++)
		w->free[cls] += __builtin_popcountll(hz4_peek(&s->bits[i]));
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
}

static void
see_page(struct walk *w, uintptr_t page)
{
	unsigned cls = hz4_pagemap_class((void *)page);
	struct hz4_large *l;

	if (cls == HZ4_CLS_RUN) {
		l = hz4_pagemap_owner(page);
		if (l == NULL || l->start != page)
			FAULT(w, "page %p is no large object's", (void *)page);
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
	see_twins(&w);
	see_pages(&w);
	see_sums(&w);
	if (w.seen != NULL)
		hz4_os_unmap(w.seen, w.room * sizeof *w.seen);
	return w.faults;
}
