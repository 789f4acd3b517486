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

/*
 * Purge the dirty stretches of a run that was taken out; up to `limit`
 * pages of it.  Returns the pages that were tried and adds those that went
 * back to `gone`.  A refused page stays dirty, and is not tried again until
 * it has been used.
 */
static size_t
purge_run(struct hz4_run *r, size_t limit, size_t *gone)
{
	bool lazy = hz4_option(HZ4_OPT_purge_lazy) != 0;
	uintptr_t a = r->start, end = a + r->pages * (size_t)HZ4_PAGE, from;
	size_t n, done = 0;
	bool ok;

	while (a < end && done < limit) {
		if (!hz4_runs_purgeable(a)) {
			a += HZ4_PAGE;
			continue;
		}
		from = a;
		n = 0;
		while (a < end && done + n < limit && hz4_runs_purgeable(a)) {
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

/* The oldest dirty run if it is due, taken out of the heap. */
static struct hz4_run *
take_due(uint64_t now, uint64_t age, size_t keep)
{
	struct hz4_run *r = NULL;

	hz4_runs_lock();
	if (!hz4_list_empty(&hz4_runs.aged) &&
	    hz4_peek(&hz4_runs_hints.dirty) * HZ4_PAGE > keep) {
		r = hz4_container(hz4_runs.aged.next, struct hz4_run, age);
		if (r->stamp + age > now)
			r = NULL;
		else
			hz4_runs_remove_locked(r);
	}
	hz4_runs_unlock();
	return r;
}

size_t
hz4_pageheap_purge(uint64_t now, uint64_t age, size_t keep, size_t limit)
{
	size_t done = 0, gone = 0, left, n;
	struct hz4_run *r;

	while (done < limit && (r = take_due(now, age, keep)) != NULL) {
		n = purge_run(r, (limit - done - 1) / HZ4_PAGE + 1, &gone);
		done += n * HZ4_PAGE;
		hz4_runs_lock();
		/* Flags know better than sums what is left. */
		left = n < r->dirty ? hz4_runs_count_dirty(r->start, r->pages) :
				      0;
		r->dirty = (uint32_t)left;
		hz4_runs_insert_locked(r, hz4_runs.aged.next);
		hz4_runs_unlock();
	}
	return gone * HZ4_PAGE;
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
