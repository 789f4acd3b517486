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
purge_run(struct hz4_run *r, size_t *gone)
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
		ok = hz4_os_purge((void *)from, n * HZ4_PAGE, lazy);
		*gone += ok ? n : 0;
		if (ok && !lazy)
			hz4_pagemap_mark(from, n, 0, HZ4_PAGE_DIRTY);
		else
			hz4_pagemap_mark(from, n, HZ4_PAGE_TRIED, 0);
	}
	return done;
}

/*
 * Of a run that was taken out keep what is to be purged, at most so many
 * pages.  The rest stays in the heap: who needs pages meanwhile would map a
 * region, which would be a part of the same run soon, again and again.
 */
static void
narrow_locked(struct hz4_run *r, struct hz4_list *at, size_t most)
{
	uintptr_t a = r->start, end = a + r->pages * (size_t)HZ4_PAGE;
	size_t before, pages, dirty;

	while (a < end && !hz4_runs_purgeable(a))
		a += HZ4_PAGE;
	before = (a - r->start) / HZ4_PAGE;
	pages = hz4_min((end - a) / HZ4_PAGE, most);
	if (pages == 0 || pages == r->pages || !hz4_runs_secure_locked(2))
		return;
	dirty = hz4_min(hz4_runs_count_dirty(a, pages), r->dirty);
	hz4_runs_split_locked(r, r->start, before, 0, at);
	hz4_runs_split_locked(r, a + pages * HZ4_PAGE,
			      r->pages - before - pages, r->dirty - dirty, at);
	r->start = a;
	r->pages = (uint32_t)pages;
	r->dirty = (uint32_t)dirty;
}

/* Up to so many pages of the oldest dirty run, if it is due, taken out. */
static struct hz4_run *
take_due(uint64_t now, uint64_t age, size_t keep, size_t most)
{
	struct hz4_run *r = NULL;

	hz4_runs_lock();
	if (!hz4_list_empty(&hz4_runs.aged) &&
	    hz4_peek(&hz4_runs_hints.dirty) * HZ4_PAGE > keep) {
		r = hz4_container(hz4_runs.aged.next, struct hz4_run, age);
		if (r->stamp + age > now)
			r = NULL;
		else
			narrow_locked(r, hz4_runs_remove_locked(r), most);
	}
	hz4_runs_unlock();
	return r;
}

size_t
hz4_pageheap_purge(uint64_t now, uint64_t age, size_t keep, size_t limit)
{
	size_t done = 0, gone = 0, left, most, n;
	struct hz4_run *r;

	for (;;) {
		most = hz4_min(limit - done, HZ4_PURGE_STEP);
		most = most / HZ4_PAGE + (most % HZ4_PAGE != 0);
		r = most > 0 ? take_due(now, age, keep, most) : NULL;
		if (r == NULL)
			return gone * HZ4_PAGE;
		n = purge_run(r, &gone);
		done += hz4_min(n * HZ4_PAGE, limit - done);
		hz4_runs_lock();
		/* Flags know better than sums what is left. */
		left = n < r->dirty ? hz4_runs_count_dirty(r->start, r->pages) :
				      0;
		r->dirty = (uint32_t)left;
		hz4_runs_insert_locked(r, hz4_runs.aged.next);
		hz4_runs_unlock();
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
	size_t bytes;
	bool gone = true;

	while (gone && (r = take_large(least / HZ4_PAGE)) != NULL) {
		bytes = r->pages * (size_t)HZ4_PAGE;
		hz4_open(r->start, bytes);
		gone = hz4_os_unmap((void *)r->start, bytes);
		if (!gone)
			hz4_close(r->start, bytes);
		hz4_runs_lock();
		if (gone) {
			hz4_poke(&hz4_runs_hints.mapped,
				 hz4_pageheap_mapped() - bytes);
			hz4_runs_put_by_locked(r);
		} else {
			hz4_runs_insert_locked(r, hz4_runs.aged.next);
		}
		hz4_runs_unlock();
	}
}
