/*
 * pageruns.h - the inside of the page heap: the free runs, as pageruns.c
 * keeps them and pagepurge.c takes some of them out for a while.  For the
 * page heap's own files; outside of them the heap walker (walker.c) and the
 * tools' view (note.c) look at it.
 *
 * A run that was taken out is in no list and no neighbour finds it in the
 * page map, so it may be worked on without the lock.
 *
 * Layer 2.  Has HZ4_RANK_PAGES.
 */
#ifndef HZ4_PAGERUNS_H
#define HZ4_PAGERUNS_H

#include "lock.h"
#include "pageheap.h"
#include "pagemap.h"

enum {
	/* Runs of fewer pages have a bin for each number of pages. */
	HZ4_RUNS_EXACT = 64,
	HZ4_RUNS_BINS = HZ4_RUNS_EXACT + 48,

	/* A purge would bring something: dirty, and not refused before. */
	HZ4_RUNS_PURGEABLE = HZ4_PAGE_DIRTY | HZ4_PAGE_TRIED,
};

/*
 * Freeing must not need memory.  So every run of pages that is handed out
 * has a structure put by for the day it comes back:
 *
 *     spares >= handed_out
 */
struct hz4_runs {
	struct hz4_lock lock;
	uint32_t epoch;		 /* runs of another one are lost [lock] */
	bool ready;		 /* lists are initialised [lock] */
	struct hz4_list bin[HZ4_RUNS_BINS]; /* [lock] */
	uint64_t filled[2];	 /* bit per bin that has runs [lock] */
	struct hz4_list aged;	 /* dirty runs, oldest first [lock] */
	struct hz4_list spare;	 /* unused structures [lock] */
	size_t spares;		 /* [lock] */
	size_t handed_out;	 /* runs [lock] */
	uintptr_t first_huge;	 /* of a new region, until it is used [lock] */
};

extern struct hz4_runs hz4_runs;

/* Take the lock and, the first time, make the lists. */
void hz4_runs_lock(void);

void hz4_runs_unlock(void);

/*
 * Take a run out of the heap.  Returns the place that it had in the list of
 * dirty runs.
 */
struct hz4_list *hz4_runs_remove_locked(struct hz4_run *r);

/*
 * Put a run that was taken out into the heap and coalesce it with its free
 * neighbours; before `at` in the list of dirty runs if it has dirty pages.
 */
void hz4_runs_insert_locked(struct hz4_run *r, struct hz4_list *at);

/* The bin of runs of so many pages. */
unsigned hz4_runs_bin(size_t pages);

/* The free run of this epoch that a page is an end of, or NULL. */
struct hz4_run *hz4_runs_at_locked(uintptr_t address);

/*
 * Enter a run into its bin, the page map and, before `at`, the list of
 * dirty runs; its neighbours stay what they are.
 */
void hz4_runs_enter_locked(struct hz4_run *r, struct hz4_list *at);

/* Make a free run. */
void hz4_runs_add_locked(uintptr_t start, size_t pages, size_t dirty,
			 uint64_t stamp);

/*
 * Map a region with room for `pages` pages that are aligned to `align`
 * (pagegrow.c).  False when the system refuses.
 */
bool hz4_runs_grow_locked(size_t pages, size_t align, uint64_t now);

/* Put structures by until `more` runs can be handed out or split off. */
bool hz4_runs_secure_locked(size_t more);

/*
 * Enter so many pages of a run that was taken out as one of their own, if
 * there are any; `dirty` of them are.  A structure for it was put by.
 */
void hz4_runs_split_locked(const struct hz4_run *r, uintptr_t start,
			   size_t pages, size_t dirty, struct hz4_list *at);

/*
 * How many of so many bytes more of the heap get huge pages (pagehuge.c):
 * all, none or, to learn their price, one huge page.
 */
size_t hz4_runs_want_huge_locked(size_t bytes);

/*
 * A run was handed out.  Where a huge page begins with it, touch that for its
 * user, to learn the price; `fresh`: nothing of it was touched before.
 * Without the lock.
 */
void hz4_runs_touch_huge(uintptr_t start, bool fresh);

/*
 * So many bytes are about to be used, or are new, in a free run of which all
 * from `from` to `to` lies in no list: huge pages again where all of one is
 * free.
 */
void hz4_runs_allow_huge_locked(uintptr_t start, size_t bytes, uintptr_t from,
				uintptr_t to);

/* Whether the page may lie on a huge one. */
bool hz4_runs_may_be_huge(uintptr_t page);

/* So many pages are no moved mapping's any more. */
void hz4_runs_forget_moved_locked(uintptr_t start, size_t pages);

/* Put by the structure of a run that is no more. */
void hz4_runs_put_by_locked(struct hz4_run *r);

HZ4_FAST bool
hz4_runs_purgeable(uintptr_t page)
{
	return (hz4_pagemap_flags(page) & HZ4_RUNS_PURGEABLE) == HZ4_PAGE_DIRTY;
}

/* How many of the pages a purge would bring back. */
static inline size_t
hz4_runs_count_dirty(uintptr_t start, size_t pages)
{
	size_t n = 0;

	for (; pages > 0; pages--, start += HZ4_PAGE)
		n += hz4_runs_purgeable(start);
	return n;
}

#endif
