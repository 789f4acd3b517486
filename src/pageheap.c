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
 *
 * What is got from the kernel is pagegrow.c's, what is given back to it
 * pagepurge.c's.
 */
#include "pageheap.h"

#include "meta.h"
#include "os.h"
#include "pageruns.h"

#include <string.h>

enum { LOOKS_PER_BIN = 16, PLACE_LOOKS = 64 };

struct hz4_runs hz4_runs = {
	.lock = HZ4_LOCK_INIT(HZ4_RANK_PAGES),
	.epoch = 1,
};

struct hz4_runs_hints hz4_runs_hints;

static unsigned
bin_of(size_t pages)
{
	if (pages < HZ4_RUNS_EXACT)
		return (unsigned)pages;
	return HZ4_RUNS_EXACT + hz4_log2(pages / HZ4_RUNS_EXACT);
}

static void
start_locked(void)
{
	unsigned i;

	if (hz4_runs.ready)
		return;
	for (i = 0; i < HZ4_RUNS_BINS; i++)
		hz4_list_init(&hz4_runs.bin[i]);
	hz4_list_init(&hz4_runs.aged);
	hz4_list_init(&hz4_runs.spare);
	hz4_runs.filled[0] = hz4_runs.filled[1] = 0;
	hz4_poke(&hz4_runs_hints.oldest, UINT64_MAX);
	hz4_runs.ready = true;
}

void
hz4_runs_lock(void)
{
	hz4_lock_acquire(&hz4_runs.lock);
	start_locked();
}

void
hz4_runs_unlock(void)
{
	hz4_lock_release(&hz4_runs.lock);
}

void
hz4_runs_put_by_locked(struct hz4_run *r)
{
	hz4_list_push(&hz4_runs.spare, &r->link);
	hz4_runs.spares++;
}

bool
hz4_runs_secure_locked(size_t more)
{
	struct hz4_run *r;

	while (hz4_runs.spares < hz4_runs.handed_out + more) {
		r = hz4_meta_alloc(sizeof *r);
		if (r == NULL)
			return false;
		hz4_runs_put_by_locked(r);
	}
	return true;
}

/* NULL only in the child of a fork that had to drop the spares. */
static struct hz4_run *
take_spare_locked(void)
{
	struct hz4_run *r;

	if (hz4_list_empty(&hz4_runs.spare))
		return hz4_meta_alloc(sizeof *r);
	r = hz4_container(hz4_runs.spare.next, struct hz4_run, link);
	hz4_list_remove(&r->link);
	hz4_runs.spares--;
	return r;
}

static void
note_oldest_locked(void)
{
	uint64_t oldest = UINT64_MAX;

	if (!hz4_list_empty(&hz4_runs.aged))
		oldest = hz4_container(hz4_runs.aged.next, struct hz4_run, age)
				 ->stamp;
	hz4_poke(&hz4_runs_hints.oldest, oldest);
}

/*
 * Enter a run into its bin, the page map and, before `at`, the list of
 * dirty runs.
 */
static void
enter_locked(struct hz4_run *r, struct hz4_list *at)
{
	unsigned bin = bin_of(r->pages);
	uintptr_t last = r->start + (r->pages - (size_t)1) * HZ4_PAGE;

	r->epoch = hz4_runs.epoch;
	hz4_pagemap_set(r->start, 1, HZ4_CLS_NONE, r);
	hz4_pagemap_set(last, 1, HZ4_CLS_NONE, r);
	hz4_pagemap_mark(r->start, 1, HZ4_PAGE_FREE, 0);
	hz4_pagemap_mark(last, 1, HZ4_PAGE_FREE, 0);
	hz4_runs.filled[bin / 64] |= (uint64_t)1 << bin % 64;
	hz4_poke(&hz4_runs_hints.free,
		 hz4_peek(&hz4_runs_hints.free) + r->pages);
	hz4_list_init(&r->age);
	if (r->dirty == 0) {
		hz4_list_append(&hz4_runs.bin[bin], &r->link);
		return;
	}
	hz4_list_push(&hz4_runs.bin[bin], &r->link);
	hz4_list_append(at, &r->age);
	hz4_poke(&hz4_runs_hints.dirty,
		 hz4_peek(&hz4_runs_hints.dirty) + r->dirty);
	note_oldest_locked();
}

void
hz4_runs_split_locked(const struct hz4_run *r, uintptr_t start, size_t pages,
		      size_t dirty, struct hz4_list *at)
{
	struct hz4_run *rest = pages > 0 ? take_spare_locked() : NULL;

	if (rest == NULL)
		return;
	rest->start = start;
	rest->pages = (uint32_t)pages;
	rest->dirty = (uint32_t)dirty;
	rest->stamp = r->stamp;
	enter_locked(rest, at);
}

struct hz4_list *
hz4_runs_remove_locked(struct hz4_run *r)
{
	unsigned bin = bin_of(r->pages);
	uintptr_t last = r->start + (r->pages - (size_t)1) * HZ4_PAGE;
	struct hz4_list *at = &hz4_runs.aged;

	hz4_list_remove(&r->link);
	if (hz4_list_empty(&hz4_runs.bin[bin]))
		hz4_runs.filled[bin / 64] &= ~((uint64_t)1 << bin % 64);
	hz4_pagemap_mark(r->start, 1, 0, HZ4_PAGE_FREE);
	hz4_pagemap_mark(last, 1, 0, HZ4_PAGE_FREE);
	hz4_poke(&hz4_runs_hints.free,
		 hz4_peek(&hz4_runs_hints.free) - r->pages);
	if (r->dirty > 0) {
		at = r->age.next;
		hz4_list_remove(&r->age);
		hz4_poke(&hz4_runs_hints.dirty,
			 hz4_peek(&hz4_runs_hints.dirty) - r->dirty);
		note_oldest_locked();
	}
	return at;
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
	return r->epoch == hz4_runs.epoch ? r : NULL;
}

/*
 * Take a neighbour into `r`, which is in no list.  The one with most of the
 * dirty pages decides how old the whole is: its stamp, its place.
 */
HZ4_FAST void
merge_locked(struct hz4_run *r, struct hz4_run *other, struct hz4_list **at)
{
	struct hz4_list *others;

	if (other == NULL)
		return;
	/* The place must not be the neighbour itself. */
	if (*at == &other->age)
		*at = other->age.next;
	others = hz4_runs_remove_locked(other);
	if (other->start < r->start)
		r->start = other->start;
	r->pages += other->pages;
	if (other->dirty > r->dirty) {
		r->stamp = other->stamp;
		*at = others;
	}
	r->dirty += other->dirty;
	hz4_runs_put_by_locked(other);
}

void
hz4_runs_insert_locked(struct hz4_run *r, struct hz4_list *at)
{
	if (r->start != 0)
		merge_locked(r, run_at_locked(r->start - HZ4_PAGE), &at);
	merge_locked(r, run_at_locked(r->start + r->pages * (size_t)HZ4_PAGE),
		     &at);
	enter_locked(r, at);
}

/*
 * Before which of the dirty runs one of this age belongs: behind all of them,
 * but for one that lay in an idle span.
 */
static struct hz4_list *
place_locked(uint64_t stamp)
{
	struct hz4_list *l = hz4_runs.aged.prev;
	unsigned looks;

	for (looks = PLACE_LOOKS; l != &hz4_runs.aged && looks > 0; looks--) {
		if (hz4_container(l, struct hz4_run, age)->stamp <= stamp)
			break;
		l = l->prev;
	}
	return l->next;
}

void
hz4_runs_add_locked(uintptr_t start, size_t pages, size_t dirty,
		    uint64_t stamp)
{
	struct hz4_run *r = take_spare_locked();

	if (r == NULL)
		return;
	r->start = start;
	r->pages = (uint32_t)pages;
	r->dirty = (uint32_t)dirty;
	r->stamp = stamp;
	hz4_runs_insert_locked(r, place_locked(stamp));
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
	unsigned bin = bin_of(pages), word = bin / 64;
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
	enter_locked(r, at);
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

uintptr_t
hz4_pageheap_alloc(size_t pages, size_t align, bool used)
{
	/* Never under the lock: a preloaded clock may allocate. */
	uint64_t now = hz4_os_now();
	struct hz4_run *r = NULL;
	struct hz4_list *at;
	uintptr_t start = 0;
	bool fresh = false;

	hz4_runs_lock();
	/* One for the run itself, two for what may be split off. */
	if (hz4_runs_secure_locked(3))
		r = find_or_grow_locked(pages, align, now);
	if (r != NULL) {
		start = hz4_round_up(r->start, align);
		at = hz4_runs_remove_locked(r);
		carve_locked(r, at, start, pages, now);
		hz4_runs.handed_out++;
		hz4_open(start, pages * HZ4_PAGE);
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

bool
hz4_pageheap_extend(uintptr_t end, size_t more)
{
	uint64_t now = hz4_os_now();
	struct hz4_run *r;
	bool found;

	hz4_runs_lock();
	r = run_at_locked(end);
	found = r != NULL && r->start == end && r->pages >= more;
	if (found) {
		carve_locked(r, hz4_runs_remove_locked(r), end, more, now);
		hz4_open(end, more * HZ4_PAGE);
	}
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

size_t
hz4_pageheap_mapped(void)
{
	return hz4_peek(&hz4_runs_hints.mapped);
}

size_t
hz4_pageheap_moved(void)
{
	return hz4_peek(&hz4_runs_hints.moved);
}

size_t
hz4_pageheap_used(void)
{
	size_t mapped = hz4_pageheap_mapped();
	size_t unused = hz4_peek(&hz4_runs_hints.free) * HZ4_PAGE;

	return mapped - hz4_min(unused, mapped);
}

size_t
hz4_pageheap_dirty(void)
{
	return hz4_peek(&hz4_runs_hints.dirty) * HZ4_PAGE;
}

uint64_t
hz4_pageheap_oldest(void)
{
	return hz4_peek(&hz4_runs_hints.oldest);
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

void
hz4_pageheap_fork_child(void)
{
	if (!hz4_fork_lost(&hz4_runs.lock))
		return;
	hz4_fork_seize(&hz4_runs.lock);
	/* The lists may be half changed: their runs are lost to the child. */
	hz4_runs.epoch++;
	hz4_runs.ready = false;
	hz4_poke(&hz4_runs_hints.free, 0);
	hz4_runs.spares = 0;
	hz4_runs.handed_out = 0;
	hz4_poke(&hz4_runs_hints.dirty, 0);
	hz4_fork_drop(&hz4_runs.lock);
}
