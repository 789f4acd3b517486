/*
 * pageheap.h - runs of 64 KiB pages: got from the kernel in regions, split,
 * coalesced, kept for reuse, and purged when they lie idle.
 *
 * Layer 2.  Takes HZ4_RANK_PAGES (and HZ4_RANK_META inside).
 */
#ifndef HZ4_PAGEHEAP_H
#define HZ4_PAGEHEAP_H

#include "span.h"

struct hz4_pageheap_figures {
	size_t mapped; /* bytes of all regions */
	size_t free;   /* bytes in free runs */
	size_t dirty;  /* of these, resident for all we know */
};

/*
 * Take a run of `pages` pages whose start is aligned to `align` bytes (a
 * power of two).  0 when the system refuses.  The caller enters it in the
 * page map; its flags tell which pages are dirty.  `used`: its first bytes
 * will be, so that a huge page there may be touched, to learn its price.
 */
uintptr_t hz4_pageheap_alloc(size_t pages, size_t align, bool used);

/*
 * Give a whole run back that nobody has used since then (ms); all of it
 * counts as dirty.  Cannot fail.
 */
void hz4_pageheap_free(uintptr_t start, size_t pages, uint64_t since);

/*
 * Give back a part of a run that goes on without it.  False without memory
 * for the book-keeping: then nothing has changed.
 */
bool hz4_pageheap_cut(uintptr_t start, size_t pages);

/*
 * The contents of a whole run have moved away, and with them what was mapped
 * there: map it anew and give it back, clean.  Where the system refuses, or
 * has given the addresses to others by now, the heap goes on without them.
 */
void hz4_pageheap_renew(uintptr_t start, size_t pages);

/*
 * Take over the pages of a mapping that the system would not take back, or,
 * `moved`, that has become one by a move: its pages serve others until they
 * are purged, and are unmapped then.  False without memory.
 */
bool hz4_pageheap_donate(uintptr_t start, size_t pages, bool moved);

/*
 * Take free pages that are resident for the most part out of the heap as a
 * mapping: `*pages` together or, where there are not so many, at least half of
 * them, which it then says.  0: there are none.  The flags tell which are
 * dirty.
 */
uintptr_t hz4_pageheap_withdraw(size_t *pages);

/*
 * So many KiB more (or less) of spans and large objects are resident to the
 * last, as far as they tell whether huge pages are worth it.
 */
void hz4_pageheap_note_dense(long change);

/*
 * These bytes, which nobody else has, are about to be purged, but not all that
 * shares a huge page with them: let the kernel not fill them again.
 */
void hz4_pageheap_keep_small(uintptr_t start, size_t bytes);

/*
 * Take the `more` pages right behind `end` if they are free.  For growing
 * a large object in place.
 */
bool hz4_pageheap_extend(uintptr_t end, size_t more);

/* Fill a taken run with zeros where it is not known to be zero. */
void hz4_pageheap_zero(uintptr_t start, size_t pages);

/*
 * Purge free runs older than `age` ms, oldest first, at most `limit`
 * bytes, down to `keep` dirty bytes.  What the system refuses to purge is
 * unmapped.  Returns the bytes given back.
 */
size_t hz4_pageheap_purge(uint64_t now, uint64_t age, size_t keep,
			  size_t limit);

/*
 * Unmap the free runs of at least `least` bytes: address space for others
 * (metadata, mappings) when the system has refused memory.
 */
void hz4_pageheap_unmap(size_t least);

/*
 * Make the page map ready for so much of a mapping that is none of the
 * heap's: for its first page, since all others are named by none.
 */
bool hz4_pageheap_admit(uintptr_t start, size_t bytes);

/* Ask the system whether new mappings are pinned. */
void hz4_pageheap_look(uint64_t now);

void hz4_pageheap_figures(struct hz4_pageheap_figures *out);

HZ4_SLOW void hz4_pageheap_fork_child(void);

/*
 * What slow paths look at without the lock: on a line of its own, so that
 * they do not wait for whoever holds that.
 */
struct hz4_runs_hints {
	_Atomic size_t dirty;	 /* pages [lock] writes; relaxed hint */
	_Atomic size_t most;	 /* used, bytes, see below; relaxed hint */
	_Atomic uint64_t oldest; /* stamp [lock] writes; relaxed hint */
	_Atomic size_t mapped;	 /* bytes [lock] writes; relaxed hint */
	_Atomic size_t free;	 /* pages [lock] writes; relaxed hint */
	_Atomic size_t moved;	 /* mappings [lock] writes; relaxed hint */
	_Atomic bool pinned;	 /* new mappings [lock] writes; relaxed hint */
} HZ4_LINE_ALIGNED;

extern struct hz4_runs_hints hz4_runs_hints;

/*
 * Whether new mappings are pinned, locked in memory, as far as is known: the
 * system does not purge them.
 */
static inline bool
hz4_pageheap_pinned(void)
{
	return hz4_peek(&hz4_runs_hints.pinned);
}

/* How many `moved` mappings are in the heap. */
static inline size_t
hz4_pageheap_moved(void)
{
	return hz4_peek(&hz4_runs_hints.moved);
}

/* Bytes of all regions. */
static inline size_t
hz4_pageheap_mapped(void)
{
	return hz4_peek(&hz4_runs_hints.mapped);
}

/* Bytes of these that are in no free run. */
static inline size_t
hz4_pageheap_used(void)
{
	size_t mapped = hz4_pageheap_mapped();
	size_t unused = hz4_peek(&hz4_runs_hints.free) * HZ4_PAGE;

	return mapped - hz4_min(unused, mapped);
}

/*
 * How many bytes more than now were in no free run at some time since this was
 * asked for.
 */
size_t hz4_pageheap_burst(void);

/* Dirty bytes in free runs. */
static inline size_t
hz4_pageheap_dirty(void)
{
	return hz4_peek(&hz4_runs_hints.dirty) * HZ4_PAGE;
}

/* The stamp of the oldest dirty run, UINT64_MAX when there is none. */
static inline uint64_t
hz4_pageheap_oldest(void)
{
	return hz4_peek(&hz4_runs_hints.oldest);
}

#endif
