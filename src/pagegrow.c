/*
 * pagegrow.c - regions: how much the page heap gets from the system at a
 * time, and whether that is locked in memory.
 *
 * Where a program has called mlockall(MCL_FUTURE), all of a new region is
 * resident at once and counts against RLIMIT_MEMLOCK, used or not.  So
 * regions are small there, their pages are dirty from the start, and few
 * dirty pages may stay (purge.c).  The program does not tell; the system does
 * where a page of a new region is refused to be purged.  For a heap that does
 * not grow a page is asked for once in a while.
 *
 * All of it under HZ4_RANK_PAGES.
 */
#include "pageheap.h"

#include "os.h"
#include "pageruns.h"
#include "probe.h"
#include "tune.h"

/* Pages are resident that nobody has used: count them as dirty. */
static void
soil_free_locked(uint64_t now)
{
	struct hz4_list *l, *next, *at;
	struct hz4_run *r;
	unsigned bin;

	for (bin = 0; bin < HZ4_RUNS_BINS; bin++)
		for (l = hz4_runs.bin[bin].next; l != &hz4_runs.bin[bin];
		     l = next) {
			next = l->next;
			r = hz4_container(l, struct hz4_run, link);
			if (r->dirty == r->pages)
				continue;
			at = hz4_runs_remove_locked(r);
			hz4_pagemap_mark(r->start, r->pages, HZ4_PAGE_DIRTY,
					 0);
			r->stamp = r->dirty > 0 ? r->stamp : now;
			r->dirty = r->pages;
			hz4_runs_insert_locked(r, at);
		}
}

/* What was mapped before may be locked since. */
static void
note_pinned_locked(bool pinned, uint64_t now)
{
	if (pinned == hz4_pageheap_pinned())
		return;
	hz4_poke(&hz4_runs_hints.pinned, pinned);
	if (pinned)
		soil_free_locked(now);
}

void
hz4_pageheap_look(uint64_t now)
{
	bool pinned = hz4_os_pins_new(hz4_pageheap_pinned());

	hz4_runs_lock();
	note_pinned_locked(pinned, now);
	hz4_runs_unlock();
}

/* What is to be mapped, and what it became. */
struct region {
	uintptr_t start;
	size_t bytes;
	size_t huge; /* bytes of it that get huge pages */
};

static void
advise_locked(struct region *new)
{
	if (new->huge > 0 &&
	    !hz4_os_advise_huge((void *)new->start, new->huge, true))
		new->huge = 0;
	if (new->bytes > new->huge)
		hz4_os_advise_huge((void *)(new->start + new->huge),
				   new->bytes - new->huge, false);
	hz4_pagemap_mark(new->start, new->bytes / HZ4_PAGE, 0,
			 HZ4_PAGE_DIRTY | HZ4_PAGE_TRIED | HZ4_PAGE_HUGE |
				 HZ4_PAGE_MOVED | HZ4_PAGE_MOVED_FIRST);
	hz4_pagemap_mark(new->start, new->huge / HZ4_PAGE, HZ4_PAGE_HUGE, 0);
	hz4_runs_allow_huge_locked(new->start, new->huge, new->start,
				   new->start + new->huge);
}

/* A mapping becomes free pages of the heap. */
static void
enter_region_locked(struct region *new, uint64_t now)
{
	size_t pages = new->bytes / HZ4_PAGE, dirty = 0;

	advise_locked(new);
	if (hz4_pageheap_pinned()) {
		hz4_pagemap_mark(new->start, pages, HZ4_PAGE_DIRTY, 0);
		dirty = pages;
	}
	hz4_poke(&hz4_runs_hints.mapped, hz4_pageheap_mapped() + new->bytes);
	hz4_close(new->start, new->bytes);
	HZ4_PROBE2(region_map, new->start, new->bytes);
	hz4_runs_add_locked(new->start, pages, dirty, dirty > 0 ? now : 0);
}

void
hz4_pageheap_renew(uintptr_t start, size_t pages)
{
	struct region hole = { start, pages * HZ4_PAGE, 0 };
	bool mapped = hz4_os_map_at((void *)start, hole.bytes);
	uint64_t now = hz4_os_now();

	hz4_runs_lock();
	if (hz4_runs.handed_out > 0)
		hz4_runs.handed_out--;
	hz4_poke(&hz4_runs_hints.mapped, hz4_pageheap_mapped() - hole.bytes);
	hz4_runs_forget_moved_locked(start, pages);
	if (mapped) {
		if (hz4_pagemap_flags(start) & HZ4_PAGE_HUGE)
			hole.huge = hole.bytes;
		enter_region_locked(&hole, now);
	}
	hz4_runs_unlock();
}

/* Give back what lies behind the first `bytes` of a region. */
static void
cut(struct region *new, size_t bytes)
{
	if (new->bytes <= bytes ||
	    !hz4_os_unmap((void *)(new->start + bytes), new->bytes - bytes))
		return;
	new->bytes = bytes;
	new->huge = 0;
}

/*
 * More than `exact` bytes: what the next ones need, and room to align them,
 * since what lies before and behind them serves others.  In a small heap
 * regions lie apart (tune.h), but for those with huge pages.
 */
static void
map_ahead_locked(size_t exact, size_t align, struct region *new)
{
	size_t mapped = hz4_pageheap_mapped(), n;
	bool apart;

	n = hz4_min(mapped / HZ4_REGION_SHARE, HZ4_REGION_MAX);
	n = hz4_max(n, HZ4_REGION_MIN);
	n = hz4_max(n, exact + (align > HZ4_PAGE ? align : 0));
	new->bytes = hz4_round_up(n, HZ4_REGION_ALIGN);
	new->huge = hz4_runs_want_huge_locked(new->bytes);
	apart = new->huge == 0 && exact <= HZ4_REGION_APART &&
		align <= HZ4_PAGE && mapped < HZ4_REGION_APART_UP_TO;
	if (apart)
		new->bytes = HZ4_REGION_ALIGN;
	new->start = (uintptr_t)hz4_os_map(new->bytes, HZ4_REGION_ALIGN);
	if (apart && new->start != 0)
		cut(new, HZ4_REGION_APART);
}

/* The same where new mappings are pinned: no more than the next ones need. */
static void
map_pinned_locked(size_t exact, struct region *new)
{
	size_t n = hz4_min(hz4_pageheap_mapped() / HZ4_REGION_PINNED_SHARE,
			   HZ4_REGION_PINNED_MAX);

	new->bytes = hz4_max(exact, n / HZ4_PAGE * HZ4_PAGE);
	new->start = (uintptr_t)hz4_os_map(new->bytes, HZ4_PAGE);
}

bool
hz4_runs_grow_locked(size_t pages, size_t align, uint64_t now)
{
	size_t exact = pages * HZ4_PAGE;
	struct region new = { 0, 0, 0 };
	bool pinned, ahead;

	if (!hz4_pageheap_pinned())
		map_ahead_locked(exact, align, &new);
	else if (align <= HZ4_PAGE)
		map_pinned_locked(exact, &new);
	ahead = new.start != 0 && align <= HZ4_PAGE;
	if (new.start == 0) {
		new.bytes = exact;
		new.huge = 0;
		new.start = (uintptr_t)hz4_os_map(exact, align);
	}
	if (new.start == 0)
		return false;
	if (!hz4_pagemap_reserve(new.start, new.bytes)) {
		hz4_os_unmap((void *)new.start, new.bytes);
		return false;
	}
	pinned = hz4_os_is_pinned((void *)new.start);
	if (pinned)
		new.huge = 0;
	if (pinned && !hz4_pageheap_pinned() && ahead)
		cut(&new, exact);
	note_pinned_locked(pinned, now);
	enter_region_locked(&new, now);
	if (new.huge > 0)
		hz4_runs.first_huge = new.start;
	return true;
}
