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

/* A purge would bring something: dirty, and not refused before. */
enum { PURGEABLE = HZ4_PAGE_DIRTY | HZ4_PAGE_TRIED };

/*
 * Freeing must not need memory.  So every run of pages that is handed out
 * has a structure put by for the day it comes back:
 *
 *     spares >= handed_out
 */
static struct {
	struct hz4_lock lock;
	uint32_t epoch;		   /* runs of another one are lost [lock] */
	bool ready;		   /* lists are initialised [lock] */
	struct hz4_list bin[BINS]; /* [lock] */
	uint64_t filled[2];	   /* bit per bin that has runs [lock] */
	struct hz4_list aged;	   /* dirty runs, oldest first [lock] */
	struct hz4_list spare;	   /* unused structures [lock] */
	size_t spares;		   /* [lock] */
	size_t handed_out;	   /* runs [lock] */
	size_t mapped;		   /* bytes [lock] */
	size_t free;		   /* pages [lock] */
	_Atomic size_t dirty;	   /* pages [lock] writes; relaxed hint */
	_Atomic uint64_t oldest;   /* stamp [lock] writes; relaxed hint */
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
	hz4_list_init(&heap.spare);
	heap.filled[0] = heap.filled[1] = 0;
	hz4_poke(&heap.oldest, UINT64_MAX);
	heap.ready = true;
}

static void
lock_heap(void)
{
	hz4_lock_acquire(&heap.lock);
	start_locked();
}

static void
unlock_heap(void)
{
	hz4_lock_release(&heap.lock);
}

static void
put_by_locked(struct hz4_run *r)
{
	hz4_list_push(&heap.spare, &r->link);
	heap.spares++;
}

/* Put structures by until `more` runs can be handed out or split off. */
static bool
secure_locked(size_t more)
{
	struct hz4_run *r;

	while (heap.spares < heap.handed_out + more) {
		r = hz4_meta_alloc(sizeof *r);
		if (r == NULL)
			return false;
		put_by_locked(r);
	}
	return true;
}

/* NULL only in the child of a fork that had to drop the spares. */
static struct hz4_run *
take_spare_locked(void)
{
	struct hz4_run *r;

	if (hz4_list_empty(&heap.spare))
		return hz4_meta_alloc(sizeof *r);
	r = hz4_container(heap.spare.next, struct hz4_run, link);
	hz4_list_remove(&r->link);
	heap.spares--;
	return r;
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

/*
 * Enter a run into its bin, the page map and, before `at`, the list of
 * dirty runs.
 */
static void
insert_locked(struct hz4_run *r, struct hz4_list *at)
{
	unsigned bin = bin_of(r->pages);
	uintptr_t last = r->start + (r->pages - (size_t)1) * HZ4_PAGE;

	r->epoch = heap.epoch;
	hz4_pagemap_set(r->start, 1, HZ4_CLS_NONE, r);
	hz4_pagemap_set(last, 1, HZ4_CLS_NONE, r);
	hz4_pagemap_mark(r->start, 1, HZ4_PAGE_FREE, 0);
	hz4_pagemap_mark(last, 1, HZ4_PAGE_FREE, 0);
	heap.filled[bin / 64] |= (uint64_t)1 << bin % 64;
	heap.free += r->pages;
	hz4_list_init(&r->age);
	if (r->dirty == 0) {
		hz4_list_append(&heap.bin[bin], &r->link);
		return;
	}
	hz4_list_push(&heap.bin[bin], &r->link);
	hz4_list_append(at, &r->age);
	hz4_poke(&heap.dirty, hz4_peek(&heap.dirty) + r->dirty);
	note_oldest_locked();
}

/* Returns the place the run had in the list of dirty runs. */
static struct hz4_list *
remove_locked(struct hz4_run *r)
{
	unsigned bin = bin_of(r->pages);
	uintptr_t last = r->start + (r->pages - (size_t)1) * HZ4_PAGE;
	struct hz4_list *at = &heap.aged;

	hz4_list_remove(&r->link);
	if (hz4_list_empty(&heap.bin[bin]))
		heap.filled[bin / 64] &= ~((uint64_t)1 << bin % 64);
	hz4_pagemap_mark(r->start, 1, 0, HZ4_PAGE_FREE);
	hz4_pagemap_mark(last, 1, 0, HZ4_PAGE_FREE);
	heap.free -= r->pages;
	if (r->dirty > 0) {
		at = r->age.next;
		hz4_list_remove(&r->age);
		hz4_poke(&heap.dirty, hz4_peek(&heap.dirty) - r->dirty);
		note_oldest_locked();
	}
	return at;
}

static size_t
count_dirty(uintptr_t start, size_t pages)
{
	size_t n = 0;

	for (; pages > 0; pages--, start += HZ4_PAGE)
		n += (hz4_pagemap_flags(start) & PURGEABLE) == HZ4_PAGE_DIRTY;
	return n;
}

/* The free run of this epoch that a page is an end of, or NULL. */
static struct hz4_run *
run_at_locked(uintptr_t address)
{
	struct hz4_run *r;

	if (!hz4_pagemap_has_leaf(address) ||
	    !(hz4_pagemap_flags(address) & HZ4_PAGE_FREE))
		return NULL;
	r = hz4_pagemap_owner(address);
	return r->epoch == heap.epoch ? r : NULL;
}

/*
 * Take a neighbour into `r`, which is in no list.  The one with most of the
 * dirty pages decides how old the whole is: its stamp, its place.
 */
static void
merge_locked(struct hz4_run *r, struct hz4_run *other, struct hz4_list **at)
{
	struct hz4_list *others;

	if (other == NULL)
		return;
	/* The place must not be the neighbour itself. */
	if (*at == &other->age)
		*at = other->age.next;
	others = remove_locked(other);
	if (other->start < r->start)
		r->start = other->start;
	r->pages += other->pages;
	if (other->dirty > r->dirty) {
		r->stamp = other->stamp;
		*at = others;
	}
	r->dirty += other->dirty;
	put_by_locked(other);
}

static void
coalesce_and_insert_locked(struct hz4_run *r, struct hz4_list *at)
{
	if (r->start != 0)
		merge_locked(r, run_at_locked(r->start - HZ4_PAGE), &at);
	merge_locked(r, run_at_locked(r->start + r->pages * (size_t)HZ4_PAGE),
		     &at);
	insert_locked(r, at);
}

/* Make a free run, the youngest of the dirty ones. */
static void
add_run_locked(uintptr_t start, size_t pages, size_t dirty, uint64_t stamp)
{
	struct hz4_run *r = take_spare_locked();

	if (r == NULL)
		return;
	r->start = start;
	r->pages = (uint32_t)pages;
	r->dirty = (uint32_t)dirty;
	r->stamp = stamp;
	coalesce_and_insert_locked(r, &heap.aged);
}

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
	struct hz4_list *l = heap.bin[bin].next;
	struct hz4_run *r, *best = NULL;

	for (; l != &heap.bin[bin] && looks > 0; l = l->next, looks--) {
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
find_locked(size_t pages, size_t align, size_t looks)
{
	unsigned bin = bin_of(pages), word = bin / 64;
	uint64_t mask = ~(uint64_t)0 << bin % 64;
	struct hz4_run *r;

	for (; word < 2; word++, mask = ~(uint64_t)0) {
		uint64_t filled = heap.filled[word] & mask;

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
 * Small heaps keep the kernel's small pages, also where huge ones are the
 * system's default: the first touch would make 2 MiB resident.  Huge pages
 * are advised once the heap is large, and not any more when it nears the
 * memory there is, since untouched bytes become resident.
 */
static bool
wants_huge_locked(size_t bytes)
{
	return hz4_option(HZ4_OPT_huge_pages) &&
	       heap.mapped >> 20 >= hz4_option(HZ4_OPT_huge_threshold) &&
	       heap.mapped + bytes <= hz4_os_memory() / 2;
}

static void
advise_locked(uintptr_t start, size_t bytes)
{
	bool huge = wants_huge_locked(bytes);

	hz4_os_advise_huge((void *)start, bytes, huge);
	hz4_pagemap_mark(start, bytes / HZ4_PAGE, huge ? HZ4_PAGE_HUGE : 0,
			 HZ4_PAGE_DIRTY | HZ4_PAGE_TRIED |
				 (huge ? 0 : HZ4_PAGE_HUGE));
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
 * Where one page of a huge page is used, all of it is resident: its free
 * neighbours in [from, to) count as dirty.  Returns how many became so.
 */
static size_t
soil(uintptr_t from, uintptr_t to)
{
	size_t n = 0;

	if (from < to && !(hz4_pagemap_flags(from) & HZ4_PAGE_HUGE))
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

	dirty_before = r->dirty ? count_dirty(r->start, before) : 0;
	if (r->dirty > 0)
		dirty_after = dirty_before + count_dirty(start, pages);
	dirty_after = r->dirty - hz4_min(r->dirty, dirty_after);
	dirty_before += soil(hz4_max(low, r->start), start);
	dirty_after += soil(end, hz4_min(high, run_end));
	if (r->dirty == 0)
		r->stamp = now;
	if (before == 0 && after == 0) {
		put_by_locked(r);
		return;
	}
	if (before > 0 && after > 0) {
		struct hz4_run *rest = take_spare_locked();

		if (rest != NULL) {
			rest->start = end;
			rest->pages = (uint32_t)after;
			rest->dirty = (uint32_t)dirty_after;
			rest->stamp = r->stamp;
			insert_locked(rest, at);
		}
	}
	if (before > 0) {
		r->pages = (uint32_t)before;
		r->dirty = (uint32_t)dirty_before;
	} else {
		r->start = end;
		r->pages = (uint32_t)after;
		r->dirty = (uint32_t)dirty_after;
	}
	insert_locked(r, at);
}

/* A run that fits, from the bins or, when they have none, from the system. */
static struct hz4_run *
find_or_grow_locked(size_t pages, size_t align)
{
	struct hz4_run *r = find_locked(pages, align, LOOKS_PER_BIN);

	if (r == NULL && grow_locked(pages, align))
		r = find_locked(pages, align, LOOKS_PER_BIN);
	/* The system refuses: look at every run there is. */
	if (r == NULL)
		r = find_locked(pages, align, SIZE_MAX);
	return r;
}

uintptr_t
hz4_pageheap_alloc(size_t pages, size_t align)
{
	/* Never under the lock: a preloaded clock may allocate. */
	uint64_t now = hz4_os_now();
	struct hz4_run *r = NULL;
	struct hz4_list *at;
	uintptr_t start = 0;

	lock_heap();
	/* One for the run itself, two for what may be split off. */
	if (secure_locked(3))
		r = find_or_grow_locked(pages, align);
	if (r != NULL) {
		start = hz4_round_up(r->start, align);
		at = remove_locked(r);
		carve_locked(r, at, start, pages, now);
		heap.handed_out++;
	}
	unlock_heap();
	return start;
}

static void
free_locked(uintptr_t start, size_t pages, uint64_t now)
{
	hz4_pagemap_mark(start, pages, HZ4_PAGE_DIRTY, HZ4_PAGE_TRIED);
	add_run_locked(start, pages, pages, now);
}

void
hz4_pageheap_free(uintptr_t start, size_t pages)
{
	uint64_t now = hz4_os_now();

	lock_heap();
	if (heap.handed_out > 0)
		heap.handed_out--;
	free_locked(start, pages, now);
	unlock_heap();
}

bool
hz4_pageheap_cut(uintptr_t start, size_t pages)
{
	uint64_t now = hz4_os_now();
	bool ok;

	lock_heap();
	ok = secure_locked(1);
	if (ok)
		free_locked(start, pages, now);
	unlock_heap();
	return ok;
}

bool
hz4_pageheap_extend(uintptr_t end, size_t more)
{
	uint64_t now = hz4_os_now();
	struct hz4_run *r;
	bool found;

	lock_heap();
	r = run_at_locked(end);
	found = r != NULL && r->start == end && r->pages >= more;
	if (found)
		carve_locked(r, remove_locked(r), end, more, now);
	unlock_heap();
	return found;
}

bool
hz4_pageheap_donate(uintptr_t start, size_t pages)
{
	uint64_t now = hz4_os_now();
	bool ok;

	lock_heap();
	ok = secure_locked(1);
	if (ok) {
		heap.mapped += pages * HZ4_PAGE;
		free_locked(start, pages, now);
	}
	unlock_heap();
	return ok;
}

void
hz4_pageheap_zero(uintptr_t start, size_t pages)
{
	for (; pages > 0; pages--, start += HZ4_PAGE)
		if (hz4_pagemap_flags(start) & HZ4_PAGE_DIRTY)
			memset((void *)start, 0, HZ4_PAGE);
}

static bool
purgeable(uintptr_t page)
{
	return (hz4_pagemap_flags(page) & PURGEABLE) == HZ4_PAGE_DIRTY;
}

/*
 * Purge the dirty stretches of a run that is in no list; up to `limit`
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
		if (!purgeable(a)) {
			a += HZ4_PAGE;
			continue;
		}
		from = a;
		for (n = 0; a < end && done + n < limit && purgeable(a); n++)
			a += HZ4_PAGE;
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

	lock_heap();
	if (!hz4_list_empty(&heap.aged) &&
	    hz4_peek(&heap.dirty) * HZ4_PAGE > keep) {
		r = hz4_container(heap.aged.next, struct hz4_run, age);
		if (r->stamp + age > now)
			r = NULL;
		else
			remove_locked(r);
	}
	unlock_heap();
	return r;
}

size_t
hz4_pageheap_purge(uint64_t now, uint64_t age, size_t keep, size_t limit)
{
	size_t done = 0, gone = 0, n;
	struct hz4_run *r;

	while (done < limit && (r = take_due(now, age, keep)) != NULL) {
		/* Without the lock: other threads go on. */
		n = purge_run(r, (limit - done + HZ4_PAGE - 1) / HZ4_PAGE,
			      &gone);
		done += n * HZ4_PAGE;
		lock_heap();
		/* Flags know better than sums what is left. */
		r->dirty = n < r->dirty ? (uint32_t)count_dirty(r->start,
								 r->pages) :
					  0;
		coalesce_and_insert_locked(r, heap.aged.next);
		unlock_heap();
	}
	return gone * HZ4_PAGE;
}

/* A free run of the fullest bin, taken out, if it has so many pages. */
static struct hz4_run *
take_large(size_t pages)
{
	struct hz4_run *r = NULL;
	unsigned bin;

	lock_heap();
	for (bin = BINS; bin-- > bin_of(pages) && r == NULL;)
		if (!hz4_list_empty(&heap.bin[bin]))
			r = hz4_container(heap.bin[bin].next, struct hz4_run,
					  link);
	if (r != NULL && r->pages < pages)
		r = NULL;
	if (r != NULL)
		remove_locked(r);
	unlock_heap();
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
		gone = hz4_os_unmap((void *)r->start, bytes);
		lock_heap();
		if (gone) {
			heap.mapped -= bytes;
			put_by_locked(r);
		} else {
			coalesce_and_insert_locked(r, heap.aged.next);
		}
		unlock_heap();
	}
}

bool
hz4_pageheap_admit(uintptr_t start, size_t bytes)
{
	bool ok;

	lock_heap();
	ok = hz4_pagemap_reserve(start, bytes);
	unlock_heap();
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
	lock_heap();
	out->mapped = heap.mapped;
	out->free = heap.free * HZ4_PAGE;
	out->dirty = hz4_peek(&heap.dirty) * HZ4_PAGE;
	unlock_heap();
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
	heap.spares = 0;
	heap.handed_out = 0;
	hz4_poke(&heap.dirty, 0);
}
