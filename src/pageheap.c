/*
 * pageheap.c - runs of pages for others: taken from the bins, cut to size,
 * grown, zeroed, given back.
 *
 * What is got from the kernel is pagegrow.c's, what is given back to it
 * pagepurge.c's.  Their calls go one way: pageheap.c and pagepurge.c, then
 * pagegrow.c, pagehuge.c, and at the end pageruns.c.
 */
#include "pageheap.h"

#include "os.h"
#include "pageruns.h"

#include <string.h>

enum { LOOKS_PER_BIN = 16 };

static bool
fits(const struct hz4_run *r, size_t pages, size_t align)
{
	uintptr_t start = hz4_round_up(r->start, align);

	return start >= r->start &&
	       start + pages * HZ4_PAGE <=
		       r->start + r->pages * (size_t)HZ4_PAGE;
}

/* The smallest run of a bin that fits, after at most so many looks. */
static struct hz4_run *
find_in_bin_locked(unsigned bin, size_t pages, size_t align, size_t looks)
{
	struct hz4_list *l = hz4_runs.bin[bin].next;
	struct hz4_run *r, *best = NULL;

	for (; l != &hz4_runs.bin[bin] && looks > 0; l = l->next, looks--) {
		r = hz4_container(l, struct hz4_run, link);
		if (fits(r, pages, align) &&
		    (best == NULL || r->pages < best->pages))
			best = r;
		if (best != NULL && bin < HZ4_RUNS_EXACT)
			break;
	}
	return best;
}

static struct hz4_run *
find_locked(size_t pages, size_t align, size_t looks)
{
	unsigned bin = hz4_runs_bin(pages), word = bin / 64;
	uint64_t mask = ~(uint64_t)0 << bin % 64;
	struct hz4_run *r;

	for (; word < 2; word++, mask = ~(uint64_t)0) {
		uint64_t filled = hz4_runs.filled[word] & mask;

		for (; filled != 0; filled &= filled - 1) {
			bin = word * 64 + (unsigned)__builtin_ctzll(filled);
			r = find_in_bin_locked(bin, pages, align,
					       looks);
			if (r != NULL)
				return r;
		}
	}
	return NULL;
}

/*
 * Where one page of a huge page is used, all of it is resident: its free
 * neighbours in [from, to) count as dirty.  Returns how many became so.
 */
static size_t
soil(uintptr_t from, uintptr_t to)
{
	size_t n = 0;

	if (from < to && !hz4_runs_may_be_huge(from))
		return 0;
	for (; from < to; from += HZ4_PAGE) {
		if ((hz4_pagemap_flags(from) &
		     (HZ4_PAGE_HUGE | HZ4_PAGE_DIRTY)) != HZ4_PAGE_HUGE)
			continue;
		hz4_pagemap_mark(from, 1, HZ4_PAGE_DIRTY, 0);
		n++;
	}
	return n;
}

/*
 * Cut [start, start + pages) out of a run that is in no list; `at` is the
 * place it had.  Dirty pages are counted in the cut and in the part before
 * it (empty but for large alignments): the part behind may be a region.
 */
static void
carve_locked(struct hz4_run *r, struct hz4_list *at, uintptr_t start,
	     size_t pages, uint64_t now)
{
	uintptr_t end = start + pages * HZ4_PAGE;
	uintptr_t run_end = r->start + r->pages * (size_t)HZ4_PAGE;
	uintptr_t low = start / HZ4_REGION_ALIGN * HZ4_REGION_ALIGN;
	uintptr_t high = hz4_round_up(end, HZ4_REGION_ALIGN);
	size_t before = (start - r->start) / HZ4_PAGE;
	size_t after = (run_end - end) / HZ4_PAGE;
	size_t dirty_before, dirty_after = 0;

	hz4_runs_allow_huge_locked(start, pages * HZ4_PAGE, r->start, run_end);
	dirty_before = r->dirty ? hz4_runs_count_dirty(r->start, before) : 0;
	if (r->dirty > 0)
		dirty_after = dirty_before + hz4_runs_count_dirty(start, pages);
	dirty_after = r->dirty - hz4_min(r->dirty, dirty_after);
	dirty_before += soil(hz4_max(low, r->start), start);
	dirty_after += soil(end, hz4_min(high, run_end));
	if (r->dirty == 0)
		r->stamp = now;
	if (before == 0 && after == 0) {
		hz4_runs_put_by_locked(r);
		return;
	}
	if (before > 0) {
		hz4_runs_split_locked(r, end, after, dirty_after, at);
		r->pages = (uint32_t)before;
		r->dirty = (uint32_t)dirty_before;
	} else {
		r->start = end;
		r->pages = (uint32_t)after;
		r->dirty = (uint32_t)dirty_after;
	}
	hz4_runs_enter_locked(r, at);
}

/* A run that fits, from the bins or, when they have none, from the system. */
static struct hz4_run *
find_or_grow_locked(size_t pages, size_t align, uint64_t now)
{
	struct hz4_run *r = find_locked(pages, align, LOOKS_PER_BIN);

	if (r == NULL && hz4_runs_grow_locked(pages, align, now))
		r = find_locked(pages, align, LOOKS_PER_BIN);
	/* The system refuses: look at every run there is. */
	if (r == NULL)
		r = find_locked(pages, align, SIZE_MAX);
	return r;
}

/* So many pages of a run become somebody's. */
static void
cut_out_locked(struct hz4_run *r, uintptr_t start, size_t pages, uint64_t now)
{
	carve_locked(r, hz4_runs_remove_locked(r), start, pages, now);
	hz4_open(start, pages * HZ4_PAGE);
	if (hz4_pageheap_used() > hz4_peek(&hz4_runs_hints.most))
		hz4_poke(&hz4_runs_hints.most, hz4_pageheap_used());
}

size_t
hz4_pageheap_burst(void)
{
	size_t used = hz4_pageheap_used();
	size_t most = hz4_peek(&hz4_runs_hints.most);

	hz4_poke(&hz4_runs_hints.most, used);
	return hz4_max(most, used) - used;
}

uintptr_t
hz4_pageheap_alloc(size_t pages, size_t align, bool used)
{
	/* Never under the lock: a preloaded clock may allocate. */
	uint64_t now = hz4_os_now();
	struct hz4_run *r = NULL;
	uintptr_t start = 0;
	bool fresh = false;

	hz4_runs_lock();
	/* One for the run itself, two for what may be split off. */
	if (hz4_runs_secure_locked(3))
		r = find_or_grow_locked(pages, align, now);
	if (r != NULL) {
		start = hz4_round_up(r->start, align);
		cut_out_locked(r, start, pages, now);
		hz4_runs.handed_out++;
		fresh = start == hz4_runs.first_huge;
		if (fresh)
			hz4_runs.first_huge = 0;
	}
	hz4_runs_unlock();
	/* Most are used, and there is but one first page of each region. */
	if ((used || fresh) && start != 0)
		hz4_runs_touch_huge(start, fresh);
	return start;
}

static void
free_locked(uintptr_t start, size_t pages, uint64_t now)
{
	hz4_close(start, pages * HZ4_PAGE);
	hz4_pagemap_mark(start, pages, HZ4_PAGE_DIRTY, HZ4_PAGE_TRIED);
	hz4_runs_add_locked(start, pages, pages, now);
}

void
hz4_pageheap_free(uintptr_t start, size_t pages, uint64_t since)
{
	hz4_runs_lock();
	if (hz4_runs.handed_out > 0)
		hz4_runs.handed_out--;
	free_locked(start, pages, since);
	hz4_runs_unlock();
}

/* The first page knows whether there may be huge pages (large.c). */
static void
note_moved_locked(uintptr_t start, size_t pages)
{
	unsigned huge = hz4_pagemap_flags(start) & HZ4_PAGE_HUGE;

	hz4_pagemap_mark(start, pages, HZ4_PAGE_MOVED | huge,
			 HZ4_PAGE_MOVED_FIRST | (HZ4_PAGE_HUGE ^ huge));
	hz4_pagemap_mark(start, 1, HZ4_PAGE_MOVED_FIRST, 0);
	hz4_poke(&hz4_runs_hints.moved, hz4_pageheap_moved() + 1);
}

/* Pages that no run stands for; `mapped` bytes of them are new to the heap. */
static bool
take_over(uintptr_t start, size_t pages, size_t mapped, bool moved)
{
	uint64_t now = hz4_os_now();
	bool ok;

	hz4_runs_lock();
	ok = hz4_pagemap_reserve(start, pages * HZ4_PAGE) &&
	     hz4_runs_secure_locked(1);
	if (ok) {
		hz4_poke(&hz4_runs_hints.mapped,
			 hz4_pageheap_mapped() + mapped);
		if (moved)
			note_moved_locked(start, pages);
		free_locked(start, pages, now);
	}
	hz4_runs_unlock();
	return ok;
}

bool
hz4_pageheap_cut(uintptr_t start, size_t pages)
{
	return take_over(start, pages, 0, false);
}

bool
hz4_pageheap_donate(uintptr_t start, size_t pages, bool moved)
{
	return take_over(start, pages, pages * HZ4_PAGE, moved);
}

/*
 * A run with so many dirty pages that has room for `pages`, or else the
 * largest: those that are clean, and come first elsewhere, are no use here.
 */
static struct hz4_run *
find_dirty_locked(size_t pages, size_t least)
{
	struct hz4_run *r, *best = NULL;
	struct hz4_list *l;
	unsigned bin, looks;

	for (bin = hz4_runs_bin(least); bin < HZ4_RUNS_BINS; bin++) {
		l = hz4_runs.bin[bin].next;
		looks = LOOKS_PER_BIN;
		for (; l != &hz4_runs.bin[bin] && looks > 0; looks--) {
			r = hz4_container(l, struct hz4_run, link);
			if (r->dirty >= least &&
			    (best == NULL || r->pages > best->pages))
				best = r;
			if (best != NULL && best->pages >= pages)
				return best;
			l = l->next;
		}
	}
	return best;
}

/* Where in a run most of so many pages are dirty; how many are. */
static uintptr_t
dirtiest(const struct hz4_run *r, size_t pages, size_t *most)
{
	uintptr_t a = r->start, best = a;
	size_t after = r->pages - pages;
	size_t dirty = hz4_runs_count_dirty(a, pages);

	*most = dirty;
	for (; after > 0 && *most < pages; after--, a += HZ4_PAGE) {
		dirty += hz4_runs_purgeable(a + pages * HZ4_PAGE);
		dirty -= hz4_runs_purgeable(a);
		if (dirty > *most) {
			*most = dirty;
			best = a + HZ4_PAGE;
		}
	}
	return best;
}

/* Take a part of a free run out of the heap, with its addresses. */
static void
withdraw_locked(struct hz4_run *r, uintptr_t start, size_t pages, uint64_t now)
{
	uintptr_t end = start + pages * HZ4_PAGE;
	bool last = end == r->start + r->pages * (size_t)HZ4_PAGE;

	cut_out_locked(r, start, pages, now);
	hz4_runs_forget_moved_locked(start, pages);
	/* What is left of a moved mapping is one, too: it goes as a whole. */
	if (!last && (hz4_pagemap_flags(end) & HZ4_PAGE_MOVED) &&
	    !(hz4_pagemap_flags(end) & HZ4_PAGE_MOVED_FIRST)) {
		hz4_pagemap_mark(end, 1, HZ4_PAGE_MOVED_FIRST, 0);
		hz4_poke(&hz4_runs_hints.moved, hz4_pageheap_moved() + 1);
	}
	hz4_poke(&hz4_runs_hints.mapped,
		 hz4_pageheap_mapped() - pages * HZ4_PAGE);
}

uintptr_t
hz4_pageheap_withdraw(size_t *pages)
{
	uint64_t now = hz4_os_now();
	size_t least = *pages / 2, n, dirty = 0;
	struct hz4_run *r = NULL;
	uintptr_t start = 0;

	if (hz4_pageheap_dirty() < least * HZ4_PAGE)
		return 0;
	hz4_runs_lock();
	if (hz4_runs_secure_locked(2))
		r = find_dirty_locked(*pages, least);
	if (r != NULL) {
		n = hz4_min(*pages, r->pages);
		start = dirtiest(r, n, &dirty);
	}
	if (r != NULL && dirty >= least) {
		withdraw_locked(r, start, n, now);
		*pages = n;
	}
	hz4_runs_unlock();
	return dirty >= least ? start : 0;
}

bool
hz4_pageheap_extend(uintptr_t end, size_t more)
{
	uint64_t now = hz4_os_now();
	struct hz4_run *r;
	bool found;

	hz4_runs_lock();
	r = hz4_runs_at_locked(end);
	found = r != NULL && r->start == end && r->pages >= more;
	if (found)
		cut_out_locked(r, end, more, now);
	hz4_runs_unlock();
	return found;
}

void
hz4_pageheap_zero(uintptr_t start, size_t pages)
{
	for (; pages > 0; pages--, start += HZ4_PAGE)
		if (hz4_pagemap_flags(start) & HZ4_PAGE_DIRTY)
			memset((void *)start, 0, HZ4_PAGE);
}

bool
hz4_pageheap_admit(uintptr_t start, size_t bytes)
{
	bool ok;

	hz4_runs_lock();
	ok = hz4_pagemap_reserve(start, bytes);
	hz4_runs_unlock();
	return ok;
}

void
hz4_pageheap_figures(struct hz4_pageheap_figures *out)
{
	hz4_runs_lock();
	out->mapped = hz4_pageheap_mapped();
	out->free = hz4_peek(&hz4_runs_hints.free) * HZ4_PAGE;
	out->dirty = hz4_peek(&hz4_runs_hints.dirty) * HZ4_PAGE;
	hz4_runs_unlock();
}
