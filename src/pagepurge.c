/*
 * pagepurge.c - the page heap's giving back: purge of dirty runs by age,
 * unmapping of free ones.
 *
 * Takes a run out of the heap under HZ4_RANK_PAGES, does the system call
 * without the lock, so that other threads go on, and puts the run back.
 * purge.c decides when.
 */
#include "pageheap.h"

#include "option.h"
#include "os.h"
#include "pageruns.h"
#include "tune.h"

/*
 * Purge the dirty stretches of a run that was taken out.  Returns the pages
 * that were tried and adds those that went back to `gone`.  A refused page
 * stays dirty, and is not tried again until it has been used.
 */
static size_t
purge_run(struct hz4_run *r, size_t *gone, bool *refused)
{
	bool lazy = hz4_option(HZ4_OPT_purge_lazy) != 0;
	uintptr_t a = r->start, end = a + r->pages * (size_t)HZ4_PAGE, from;
	size_t n, done = 0;
	bool ok;

	while (a < end) {
		if (!hz4_runs_purgeable(a)) {
			a += HZ4_PAGE;
			continue;
		}
		from = a;
		n = 0;
		while (a < end && hz4_runs_purgeable(a)) {
			a += HZ4_PAGE;
			n++;
		}
		done += n;
		hz4_pageheap_keep_small(from, n * HZ4_PAGE);
		ok = hz4_os_purge((void *)from, n * HZ4_PAGE, lazy);
		*gone += ok ? n : 0;
		*refused |= !ok;
		if (ok && !lazy)
			hz4_pagemap_mark(from, n, 0, HZ4_PAGE_DIRTY);
		else
			hz4_pagemap_mark(from, n, HZ4_PAGE_TRIED, 0);
	}
	return done;
}

/* A run that was taken out goes back into the heap, as its flags say. */
static void
put_back(struct hz4_run *r)
{
	hz4_runs_lock();
	r->dirty = (uint32_t)hz4_min(hz4_runs_count_dirty(r->start, r->pages),
				     r->dirty);
	hz4_runs_insert_locked(r, hz4_runs.aged.next);
	hz4_runs_unlock();
}

/* Give up the addresses of a run that was taken out; refused: put it back. */
static bool
unmap_run(struct hz4_run *r)
{
	size_t bytes = r->pages * (size_t)HZ4_PAGE;

	hz4_runs_lock();
	hz4_runs_forget_moved_locked(r->start, r->pages);
	hz4_runs_unlock();
	hz4_open(r->start, bytes);
	if (!hz4_os_unmap((void *)r->start, bytes)) {
		hz4_close(r->start, bytes);
		put_back(r);
		return false;
	}
	hz4_runs_lock();
	hz4_poke(&hz4_runs_hints.mapped, hz4_pageheap_mapped() - bytes);
	hz4_runs_put_by_locked(r);
	hz4_runs_unlock();
	return true;
}

/*
 * Of a run that was taken out keep so many pages from `a` on.  The rest stays
 * in the heap: who needs pages meanwhile would map a region, which would be a
 * part of the same run soon, again and again.  False without memory.
 */
static bool
narrow_locked(struct hz4_run *r, struct hz4_list *at, uintptr_t a, size_t pages)
{
	size_t before = (a - r->start) / HZ4_PAGE, dirty, others;

	if (pages == 0 || pages == r->pages)
		return true;
	if (!hz4_runs_secure_locked(2))
		return false;
	dirty = hz4_min(hz4_runs_count_dirty(a, pages), r->dirty);
	others = hz4_min(hz4_runs_count_dirty(r->start, before),
			 r->dirty - dirty);
	hz4_runs_split_locked(r, r->start, before, others, at);
	hz4_runs_split_locked(r, a + pages * HZ4_PAGE,
			      r->pages - before - pages,
			      r->dirty - dirty - others, at);
	r->start = a;
	r->pages = (uint32_t)pages;
	r->dirty = (uint32_t)dirty;
	return true;
}

/* To what is to be purged, at most so many pages, and whole huge ones. */
static void
narrow_to_dirty_locked(struct hz4_run *r, struct hz4_list *at, size_t most)
{
	uintptr_t a = r->start, end = a + r->pages * (size_t)HZ4_PAGE, to;

	while (a < end && !hz4_runs_purgeable(a))
		a += HZ4_PAGE;
	to = (a + most * HZ4_PAGE) / HZ4_REGION_ALIGN * HZ4_REGION_ALIGN;
	if (to > a && to < end && hz4_runs_may_be_huge(to))
		end = to;
	narrow_locked(r, at, a, hz4_min((end - a) / HZ4_PAGE, most));
}

/* Of any page, also of one behind a run. */
static bool
is_moved(uintptr_t page, unsigned flags)
{
	return hz4_pagemap_has_leaf(page) &&
	       (hz4_pagemap_flags(page) &
		(HZ4_PAGE_MOVED | HZ4_PAGE_MOVED_FIRST)) == flags;
}

/*
 * To a moved mapping that lies in the run as a whole, if there is one with
 * so many dirty pages at most: it goes with its addresses.
 */
static bool
narrow_to_moved_locked(struct hz4_run *r, struct hz4_list *at, size_t most)
{
	uintptr_t a = r->start, end = a + r->pages * (size_t)HZ4_PAGE, to;
	size_t dirty;

	for (; a < end && hz4_pageheap_moved() > 0; a = to) {
		to = a + HZ4_PAGE;
		if (!is_moved(a, HZ4_PAGE_MOVED | HZ4_PAGE_MOVED_FIRST))
			continue;
		while (is_moved(to, HZ4_PAGE_MOVED))
			to += HZ4_PAGE;
		if (to > end)
			break;
		dirty = hz4_runs_count_dirty(a, (to - a) / HZ4_PAGE);
		if (dirty <= most)
			return narrow_locked(r, at, a, (to - a) / HZ4_PAGE);
	}
	return false;
}

/*
 * Up to so many dirty pages of the oldest dirty run, if it is due, taken out;
 * `*moved`: to be unmapped.
 */
static struct hz4_run *
take_due(uint64_t now, uint64_t age, size_t keep, size_t most, bool *moved)
{
	struct hz4_list *at;
	struct hz4_run *r = NULL;

	hz4_runs_lock();
	if (!hz4_list_empty(&hz4_runs.aged) &&
	    hz4_peek(&hz4_runs_hints.dirty) * HZ4_PAGE > keep) {
		r = hz4_container(hz4_runs.aged.next, struct hz4_run, age);
		if (r->stamp + age > now)
			r = NULL;
	}
	if (r != NULL) {
		at = hz4_runs_remove_locked(r);
		*moved = narrow_to_moved_locked(r, at, most);
		if (!*moved)
			narrow_to_dirty_locked(r, at, most);
	}
	hz4_runs_unlock();
	return r;
}

/*
 * Pages that are pinned are refused, by mlockall or since the program has
 * locked an object and not unlocked it: they go with their addresses.
 */
size_t
hz4_pageheap_purge(uint64_t now, uint64_t age, size_t keep, size_t limit)
{
	size_t done = 0, gone = 0, most, n, purged;
	struct hz4_run *r;
	bool refused, moved = false;

	for (;;) {
		most = hz4_min(limit - done, HZ4_PURGE_STEP);
		most = most / HZ4_PAGE + (most % HZ4_PAGE != 0);
		r = most > 0 ? take_due(now, age, keep, most, &moved) : NULL;
		if (r == NULL)
			return gone * HZ4_PAGE;
		refused = moved;
		purged = 0;
		n = moved ? r->dirty : purge_run(r, &purged, &refused);
		done += hz4_min(n * HZ4_PAGE, limit - done);
		if (!refused)
			put_back(r);
		else if (unmap_run(r))
			purged = n;
		gone += purged;
	}
}

/* A free run of the fullest bin, taken out, if it has so many pages. */
static struct hz4_run *
take_large(size_t pages)
{
	struct hz4_run *r = NULL;
	unsigned bin;

	hz4_runs_lock();
	for (bin = HZ4_RUNS_BINS; bin-- > 0 && r == NULL;)
		if (!hz4_list_empty(&hz4_runs.bin[bin]))
			r = hz4_container(hz4_runs.bin[bin].next,
					  struct hz4_run, link);
	if (r != NULL && r->pages < pages)
		r = NULL;
	if (r != NULL)
		hz4_runs_remove_locked(r);
	hz4_runs_unlock();
	return r;
}

void
hz4_pageheap_unmap(size_t least)
{
	struct hz4_run *r;

	do
		r = take_large(least / HZ4_PAGE);
	while (r != NULL && unmap_run(r));
}
