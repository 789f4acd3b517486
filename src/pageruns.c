/*
 * pageruns.c - bins of free runs, boundary tags in the page map.
 *
 * A free run is known by its hz4_run, which the page map names as the
 * owner of the run's first and last page (HZ4_PAGE_FREE); so a freed run
 * finds its neighbours in two loads.  Runs of up to 63 pages have a bin of
 * their own, larger ones share one per power of two.
 *
 * Dirty pages go to the front of a bin and clean ones to its end, so that
 * resident memory is used again before fresh memory is touched.
 */
#include "pageruns.h"

#include "meta.h"

enum { PLACE_LOOKS = 64 };

struct hz4_runs hz4_runs = {
	.lock = HZ4_LOCK_INIT(HZ4_RANK_PAGES),
	.epoch = 1,
};

struct hz4_runs_hints hz4_runs_hints;

unsigned
hz4_runs_bin(size_t pages)
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

void
hz4_runs_enter_locked(struct hz4_run *r, struct hz4_list *at)
{
	unsigned bin = hz4_runs_bin(r->pages);
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
	hz4_runs_enter_locked(rest, at);
}

struct hz4_list *
hz4_runs_remove_locked(struct hz4_run *r)
{
	unsigned bin = hz4_runs_bin(r->pages);
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

struct hz4_run *
hz4_runs_at_locked(uintptr_t address)
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
		merge_locked(r, hz4_runs_at_locked(r->start - HZ4_PAGE), &at);
	merge_locked(r,
		     hz4_runs_at_locked(r->start +
					r->pages * (size_t)HZ4_PAGE),
		     &at);
	hz4_runs_enter_locked(r, at);
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

void
hz4_runs_forget_moved_locked(uintptr_t start, size_t pages)
{
	for (; pages > 0; pages--, start += HZ4_PAGE) {
		if (hz4_pagemap_flags(start) & HZ4_PAGE_MOVED_FIRST)
			hz4_poke(&hz4_runs_hints.moved,
				 hz4_pageheap_moved() - 1);
		hz4_pagemap_mark(start, 1, 0,
				 HZ4_PAGE_MOVED | HZ4_PAGE_MOVED_FIRST);
	}
}
