/*
 * pageheap.c - bins of free runs, boundary tags in the page map.
 *
 * A free run is known by its hz4_run, which the page map names as the
 * owner of the run's first and last page (HZ4_PAGE_FREE); so a freed run
 * finds its neighbours in two loads.  Runs of up to 63 pages have a bin of
 * their own, larger ones share one per power of two.
 *
 * Dirty pages go to the front of a bin and clean ones to its end, so that
 * resident memory is used again before fresh memory is touched.
 */
#include "pageheap.h"

#include "lock.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pagemap.h"

#include <string.h>

enum { EXACT_BINS = 64, BINS = EXACT_BINS + 48, LOOKS_PER_BIN = 16 };

static struct {
	struct hz4_lock lock;
	uint32_t epoch;		     /* runs of another one are lost [lock] */
	bool ready;		     /* lists are initialised [lock] */
	struct hz4_list bin[BINS];   /* [lock] */
	uint64_t filled[2];	     /* bit per bin that has runs [lock] */
	struct hz4_list aged;	     /* dirty runs, oldest first [lock] */
	size_t mapped;		     /* bytes [lock] */
	size_t free;		     /* pages [lock] */
	_Atomic size_t dirty;	     /* pages [lock] writes; relaxed hint */
	_Atomic uint64_t oldest;     /* stamp [lock] writes; relaxed hint */
} heap = { .lock = HZ4_LOCK_INIT(HZ4_RANK_PAGES), .epoch = 1 };

static unsigned
bin_of(size_t pages)
{
	if (pages < EXACT_BINS)
		return (unsigned)pages;
	return EXACT_BINS + hz4_log2(pages / EXACT_BINS);
}

static void
start_locked(void)
{
	unsigned i;

	if (heap.ready)
		return;
	for (i = 0; i < BINS; i++)
		hz4_list_init(&heap.bin[i]);
	hz4_list_init(&heap.aged);
	heap.filled[0] = heap.filled[1] = 0;
	hz4_poke(&heap.oldest, UINT64_MAX);
	heap.ready = true;
}

static void
note_oldest_locked(void)
{
	uint64_t oldest = UINT64_MAX;

	if (!hz4_list_empty(&heap.aged))
		oldest = hz4_container(heap.aged.next, struct hz4_run, age)
				 ->stamp;
	hz4_poke(&heap.oldest, oldest);
}

/* Enter a run into its bin, the page map and the list of dirty runs. */
static void
insert_locked(struct hz4_run *r)
{
	unsigned bin = bin_of(r->pages);
	uintptr_t last = r->start + (r->pages - 1) * HZ4_PAGE;

	r->epoch = heap.epoch;
	hz4_pagemap_set(r->start, 1, HZ4_CLS_NONE, r);
	hz4_pagemap_set(last, 1, HZ4_CLS_NONE, r);
	*hz4_pagemap_flags(r->start) |= HZ4_PAGE_FREE;
	*hz4_pagemap_flags(last) |= HZ4_PAGE_FREE;
	heap.filled[bin / 64] |= (uint64_t)1 << bin % 64;
	heap.free += r->pages;
	hz4_list_init(&r->age);
	if (r->dirty == 0) {
		hz4_list_append(&heap.bin[bin], &r->link);
		return;
	}
	hz4_list_push(&heap.bin[bin], &r->link);
	hz4_poke(&heap.dirty, hz4_peek(&heap.dirty) + r->dirty);
	/* Stamps hardly ever go back; a run that does is due soonest. */
	if (r->stamp < hz4_peek(&heap.oldest))
		hz4_list_push(&heap.aged, &r->age);
	else
		hz4_list_append(&heap.aged, &r->age);
	note_oldest_locked();
}

static void
remove_locked(struct hz4_run *r)
{
	unsigned bin = bin_of(r->pages);
	uintptr_t last = r->start + (r->pages - 1) * HZ4_PAGE;

	hz4_list_remove(&r->link);
	if (hz4_list_empty(&heap.bin[bin]))
		heap.filled[bin / 64] &= ~((uint64_t)1 << bin % 64);
	*hz4_pagemap_flags(r->start) &= (uint8_t)~HZ4_PAGE_FREE;
	*hz4_pagemap_flags(last) &= (uint8_t)~HZ4_PAGE_FREE;
	heap.free -= r->pages;
	if (r->dirty > 0) {
		hz4_list_remove(&r->age);
		hz4_poke(&heap.dirty, hz4_peek(&heap.dirty) - r->dirty);
		note_oldest_locked();
	}
}

static size_t
count_dirty(uintptr_t start, size_t pages)
{
	size_t n = 0;

	for (; pages > 0; pages--, start += HZ4_PAGE)
		n += *hz4_pagemap_flags(start) & HZ4_PAGE_DIRTY;
	return n;
}

/* The free run of this epoch that a page is an end of, or NULL. */
static struct hz4_run *
run_at_locked(uintptr_t address)
{
	struct hz4_run *r;

	if (!hz4_pagemap_has_leaf(address) ||
	    !(*hz4_pagemap_flags(address) & HZ4_PAGE_FREE))
		return NULL;
	r = hz4_pagemap_owner(address);
	return r->epoch == heap.epoch ? r : NULL;
}

/* Take a neighbour into `r`, which is in no list. */
static void
merge_locked(struct hz4_run *r, struct hz4_run *other)
{
	if (other == NULL)
		return;
	remove_locked(other);
	if (other->start < r->start)
		r->start = other->start;
	r->pages += other->pages;
	/* Most of its pages decide how old the whole is. */
	if (other->dirty > r->dirty)
		r->stamp = other->stamp;
	r->dirty += other->dirty;
	hz4_meta_free(other, sizeof *other);
}

static void
coalesce_and_insert_locked(struct hz4_run *r)
{
	if (r->start != 0)
		merge_locked(r, run_at_locked(r->start - HZ4_PAGE));
	merge_locked(r, run_at_locked(r->start + r->pages * HZ4_PAGE));
	insert_locked(r);
}

/*
 * Make a free run.  Without memory for its structure the pages are lost
 * until the process ends (they stay marked as used).
 */
static void
add_run_locked(uintptr_t start, size_t pages, size_t dirty, uint64_t stamp)
{
	struct hz4_run *r = hz4_meta_alloc(sizeof *r);

	if (r == NULL)
		return;
	r->start = start;
	r->pages = pages;
	r->dirty = dirty;
	r->stamp = stamp;
	coalesce_and_insert_locked(r);
}

static bool
fits(const struct hz4_run *r, size_t pages, size_t align)
{
	uintptr_t start = hz4_round_up(r->start, align);

	return start >= r->start &&
	       start + pages * HZ4_PAGE <= r->start + r->pages * HZ4_PAGE;
}

/* The first run that fits in one bin, after a bounded number of looks. */
static struct hz4_run *
find_in_bin_locked(unsigned bin, size_t pages, size_t align)
{
	struct hz4_list *l = heap.bin[bin].next;
	struct hz4_run *r, *best = NULL;
	int looks;

	for (looks = 0; l != &heap.bin[bin] && looks < LOOKS_PER_BIN;
	     l = l->next, looks++) {
		r = hz4_container(l, struct hz4_run, link);
		if (fits(r, pages, align) &&
		    (best == NULL || r->pages < best->pages))
			best = r;
		if (best != NULL && bin < EXACT_BINS)
			break;
	}
	return best;
}

static struct hz4_run *
find_locked(size_t pages, size_t align)
{
	unsigned bin = bin_of(pages), word = bin / 64;
	uint64_t mask = ~(uint64_t)0 << bin % 64;
	struct hz4_run *r;

	for (; word < 2; word++, mask = ~(uint64_t)0) {
		uint64_t filled = heap.filled[word] & mask;

		for (; filled != 0; filled &= filled - 1) {
			bin = word * 64 + (unsigned)__builtin_ctzll(filled);
			r = find_in_bin_locked(bin, pages, align);
			if (r != NULL)
				return r;
		}
	}
	return NULL;
}

/*
 * Huge pages are advised once the heap is large, and not any more when it
 * nears the machine's memory: untouched bytes would become resident.
 */
static void
advise_locked(uintptr_t start, size_t bytes)
{
	size_t threshold = hz4_option(HZ4_OPT_huge_threshold) << 20;

	if (hz4_option(HZ4_OPT_huge_pages) && heap.mapped >= threshold &&
	    heap.mapped + bytes <= hz4_os_memory() / 4)
		hz4_os_advise_huge((void *)start, bytes);
}

/* Map a region for `pages` pages; at least those, more as the heap grows. */
static bool
grow_locked(size_t pages, size_t align)
{
	size_t need = pages * HZ4_PAGE + (align > HZ4_PAGE ? align : 0);
	size_t bytes = heap.mapped / HZ4_REGION_SHARE;
	char *p;

	bytes = hz4_max(hz4_min(bytes, HZ4_REGION_MAX), HZ4_REGION_MIN);
	bytes = hz4_round_up(hz4_max(bytes, need), HZ4_REGION_ALIGN);
	p = hz4_os_map(bytes, HZ4_REGION_ALIGN);
	if (p == NULL) {
		bytes = hz4_round_up(need, HZ4_PAGE);
		p = hz4_os_map(bytes, HZ4_PAGE);
	}
	if (p == NULL)
		return false;
	if (!hz4_pagemap_reserve((uintptr_t)p, bytes)) {
		hz4_os_unmap(p, bytes);
		return false;
	}
	advise_locked((uintptr_t)p, bytes);
	heap.mapped += bytes;
	add_run_locked((uintptr_t)p, bytes / HZ4_PAGE, 0, 0);
	return true;
}

/*
 * Cut [start, start + pages) out of a run that is in no list.  Dirty pages
 * are counted in the cut and in the part before it (empty but for large
 * alignments): the part behind may be a whole region.
 */
static void
carve_locked(struct hz4_run *r, uintptr_t start, size_t pages)
{
	size_t before = (start - r->start) / HZ4_PAGE;
	size_t after = r->pages - before - pages;
	uintptr_t end = start + pages * HZ4_PAGE;
	size_t dirty_before = 0, dirty_after = 0;
	uint64_t stamp = r->stamp;

	if (r->dirty > 0) {
		dirty_before = count_dirty(r->start, before);
		dirty_after = dirty_before + count_dirty(start, pages);
		dirty_after = r->dirty - hz4_min(r->dirty, dirty_after);
	}
	if (before == 0 && after == 0) {
		hz4_meta_free(r, sizeof *r);
		return;
	}
	if (before == 0) {
		r->start = end;
		r->pages = after;
		r->dirty = dirty_after;
		insert_locked(r);
		return;
	}
	r->pages = before;
	r->dirty = hz4_min(r->dirty, dirty_before);
	insert_locked(r);
	if (after > 0)
		add_run_locked(end, after, dirty_after, stamp);
}

uintptr_t
hz4_pageheap_alloc(size_t pages, size_t align)
{
	struct hz4_run *r;
	uintptr_t start = 0;

	hz4_lock_acquire(&heap.lock);
	start_locked();
	r = find_locked(pages, align);
	if (r == NULL && grow_locked(pages, align))
		r = find_locked(pages, align);
	if (r != NULL) {
		start = hz4_round_up(r->start, align);
		remove_locked(r);
		carve_locked(r, start, pages);
	}
	hz4_lock_release(&heap.lock);
	return start;
}

void
hz4_pageheap_free(uintptr_t start, size_t pages)
{
	uint64_t now = hz4_os_now();

	hz4_lock_acquire(&heap.lock);
	hz4_pagemap_mark(start, pages, HZ4_PAGE_DIRTY, 0);
	start_locked();
	add_run_locked(start, pages, pages, now);
	hz4_lock_release(&heap.lock);
}

bool
hz4_pageheap_extend(uintptr_t end, size_t more)
{
	struct hz4_run *r;
	bool found;

	hz4_lock_acquire(&heap.lock);
	start_locked();
	r = run_at_locked(end);
	found = r != NULL && r->start == end && r->pages >= more;
	if (found) {
		remove_locked(r);
		carve_locked(r, end, more);
	}
	hz4_lock_release(&heap.lock);
	return found;
}

void
hz4_pageheap_zero(uintptr_t start, size_t pages)
{
	for (; pages > 0; pages--, start += HZ4_PAGE)
		if (*hz4_pagemap_flags(start) & HZ4_PAGE_DIRTY)
			memset((void *)start, 0, HZ4_PAGE);
}

/*
 * Purge the dirty stretches of a run that is in no list; up to `limit`
 * pages of it.  Returns the pages purged.  A refused page stays dirty.
 */
static size_t
purge_run(struct hz4_run *r, size_t limit)
{
	bool lazy = hz4_option(HZ4_OPT_purge_lazy) != 0;
	uintptr_t a = r->start, end = a + r->pages * HZ4_PAGE, from;
	size_t n, done = 0;

	while (a < end && done < limit) {
		if (!(*hz4_pagemap_flags(a) & HZ4_PAGE_DIRTY)) {
			a += HZ4_PAGE;
			continue;
		}
		from = a;
		for (n = 0; a < end && done + n < limit &&
			    (*hz4_pagemap_flags(a) & HZ4_PAGE_DIRTY);
		     n++)
			a += HZ4_PAGE;
		if (hz4_os_purge((void *)from, n * HZ4_PAGE, lazy))
			hz4_pagemap_mark(from, n, 0, HZ4_PAGE_DIRTY);
		done += n;
	}
	return done;
}

/* The oldest dirty run if it is due, taken out of the heap. */
static struct hz4_run *
take_due(uint64_t now, uint64_t age, size_t keep)
{
	struct hz4_run *r = NULL;

	hz4_lock_acquire(&heap.lock);
	start_locked();
	if (!hz4_list_empty(&heap.aged) &&
	    hz4_peek(&heap.dirty) * HZ4_PAGE > keep) {
		r = hz4_container(heap.aged.next, struct hz4_run, age);
		if (r->stamp + age > now)
			r = NULL;
		else
			remove_locked(r);
	}
	hz4_lock_release(&heap.lock);
	return r;
}

size_t
hz4_pageheap_purge(uint64_t now, uint64_t age, size_t keep, size_t limit)
{
	size_t done = 0, n;
	struct hz4_run *r;

	while (done < limit && (r = take_due(now, age, keep)) != NULL) {
		/* Without the lock: other threads go on. */
		n = purge_run(r, (limit - done + HZ4_PAGE - 1) / HZ4_PAGE);
		done += n * HZ4_PAGE;
		hz4_lock_acquire(&heap.lock);
		/*
		 * What was tried counts as done, so that a refusal is not
		 * repeated for ever; its pages keep their dirty flag.
		 */
		r->dirty -= hz4_min(n, r->dirty);
		coalesce_and_insert_locked(r);
		hz4_lock_release(&heap.lock);
	}
	return done;
}

/* The largest free run of at least `pages` pages, taken out of the heap. */
static struct hz4_run *
take_largest(size_t pages)
{
	struct hz4_run *r = NULL;
	unsigned bin;

	hz4_lock_acquire(&heap.lock);
	start_locked();
	for (bin = BINS; bin-- > bin_of(pages) && r == NULL;)
		if (!hz4_list_empty(&heap.bin[bin]))
			r = hz4_container(heap.bin[bin].next, struct hz4_run,
					  link);
	if (r != NULL && r->pages < pages)
		r = NULL;
	if (r != NULL)
		remove_locked(r);
	hz4_lock_release(&heap.lock);
	return r;
}

void
hz4_pageheap_unmap(size_t least)
{
	struct hz4_run *r;

	while ((r = take_largest(least / HZ4_PAGE)) != NULL) {
		size_t bytes = r->pages * HZ4_PAGE;
		bool gone;

		hz4_pagemap_mark(r->start, r->pages, 0, HZ4_PAGE_DIRTY);
		gone = hz4_os_unmap((void *)r->start, bytes);
		hz4_lock_acquire(&heap.lock);
		if (gone) {
			heap.mapped -= bytes;
			hz4_meta_free(r, sizeof *r);
		} else {
			/* Their contents are as they were. */
			hz4_pagemap_mark(r->start, r->pages, HZ4_PAGE_DIRTY,
					 0);
			r->dirty = r->pages;
			insert_locked(r);
		}
		hz4_lock_release(&heap.lock);
		if (!gone)
			return;
	}
}

bool
hz4_pageheap_admit(uintptr_t start, size_t bytes)
{
	bool ok;

	hz4_lock_acquire(&heap.lock);
	ok = hz4_pagemap_reserve(start, bytes);
	hz4_lock_release(&heap.lock);
	return ok;
}

size_t
hz4_pageheap_dirty(void)
{
	return hz4_peek(&heap.dirty) * HZ4_PAGE;
}

uint64_t
hz4_pageheap_oldest(void)
{
	return hz4_peek(&heap.oldest);
}

void
hz4_pageheap_figures(struct hz4_pageheap_figures *out)
{
	hz4_lock_acquire(&heap.lock);
	out->mapped = heap.mapped;
	out->free = heap.free * HZ4_PAGE;
	out->dirty = hz4_peek(&heap.dirty) * HZ4_PAGE;
	hz4_lock_release(&heap.lock);
}

void
hz4_pageheap_fork_child(void)
{
	if (!hz4_lock_fork_child(&heap.lock))
		return;
	/* The lists may be half changed: their runs are lost to the child. */
	heap.epoch++;
	heap.ready = false;
	heap.free = 0;
	hz4_poke(&heap.dirty, 0);
}
