/*
 * large.c - large objects.  The page map knows only their first page, so a
 * pointer into the middle is not taken for an object.
 */
#include "large.h"

#include "log.h"
#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "probe.h"
#include "spans.h"
#include "view.h"

#include <string.h>

/* Runs, and mappings: apart, so that no sum is short of a part of its own. */
static struct {
	_Atomic size_t objects, bytes; /* [atomic] relaxed: figures only */
} kinds[2];

/* The most mappings there ever were.  [atomic] relaxed: as these */
static _Atomic size_t most_mappings, most_mapped;

/* `n` more of a sum, or fewer: a negative size_t.  What it then is. */
static size_t
add(_Atomic size_t *sum, size_t n)
{
	return atomic_fetch_add_explicit(sum, n, memory_order_relaxed) + n;
}

static void
raise_to(_Atomic size_t *most, size_t n)
{
	size_t old = hz4_peek(most);

	while (n > old && !atomic_compare_exchange_weak_explicit(
				  most, &old, n, memory_order_relaxed,
				  memory_order_relaxed))
		;
}

static void
account(const struct hz4_large *l, size_t sign)
{
	size_t objects = add(&kinds[l->mapping].objects, sign);
	size_t bytes = add(&kinds[l->mapping].bytes, sign * l->bytes);

	if (l->mapping) {
		raise_to(&most_mappings, objects);
		raise_to(&most_mapped, bytes);
	}
}

void
hz4_large_figures(struct hz4_large_figures *out)
{
	out->mappings = hz4_peek(&kinds[true].objects);
	out->mapped = hz4_peek(&kinds[true].bytes);
	out->objects = hz4_peek(&kinds[false].objects) + out->mappings;
	out->bytes = hz4_peek(&kinds[false].bytes) + out->mapped;
	out->most_mappings = hz4_peek(&most_mappings);
	out->most_mapped = hz4_peek(&most_mapped);
}

const struct hz4_view_large hz4_view_large = {
	.objects = HZ4_VIEW_EACH(kinds[0].objects, sizeof kinds[0]),
	.bytes = HZ4_VIEW_EACH(kinds[0].bytes, sizeof kinds[0]),
};

/*
 * The mapping that was freed last, and bytes of those that came so soon after
 * one that they have found its pages, or would have.  [atomic] relaxed: hints
 */
static struct {
	_Atomic uint64_t at; /* ms */
	_Atomic size_t bytes;
	_Atomic size_t missed;
} freed;

static size_t
kept_most(void)
{
	return hz4_min(hz4_os_memory() / HZ4_KEPT_SHARE, HZ4_KEPT_MOST);
}

/* No more than may stay: what comes of those that cannot is no end. */
static void
add_missed(size_t n)
{
	if (hz4_peek(&freed.missed) + n <= kept_most())
		add(&freed.missed, n);
}

static void
note_missed(size_t n)
{
	size_t had = hz4_peek(&freed.bytes);

	if (n > had || n < had / 2 ||
	    hz4_os_now() - hz4_peek(&freed.at) >=
		    hz4_option(HZ4_OPT_purge_delay))
		return;
	hz4_poke(&freed.bytes, 0);
	add_missed(n);
}

/* Whether one is to stay for the next: programs that need one once are many. */
static bool
comes_again(size_t n)
{
	size_t missed = hz4_peek(&freed.missed);

	hz4_poke(&freed.at, hz4_os_now());
	hz4_poke(&freed.bytes, n);
	return missed >= n && hz4_pageheap_dirty() + n <= kept_most() &&
	       atomic_compare_exchange_strong_explicit(
		       &freed.missed, &missed, missed - n,
		       memory_order_relaxed, memory_order_relaxed);
}

static struct hz4_large *
find(const void *p, const char *call)
{
	struct hz4_large *l = hz4_pagemap_owner((uintptr_t)p);

	if (hz4_unlikely(l->start != (uintptr_t)p))
		hz4_fatal("%s: pointer into an object: ptr %p, size %zu", call,
			  p, l->bytes);
	return l;
}

/* Of an object in the page heap, that is. */
static void
set_whole(struct hz4_large *l, size_t n)
{
	if (l->mapping || n == l->whole)
		return;
	hz4_pageheap_note_dense(((long)n - (long)l->whole) / 1024);
	l->whole = n;
}

void
hz4_large_note_whole(void *p, size_t n)
{
	struct hz4_large *l = hz4_pagemap_owner((uintptr_t)p);

	set_whole(l, hz4_max(l->whole, n / HZ4_PAGE * HZ4_PAGE));
	l->copied |= n > HZ4_CLASS_MAX;
}

/* Whether the heap has use for a mapping's pages: others are few. */
static bool
may_keep(size_t n)
{
	return n < HZ4_HUGE_MIN ?
		       hz4_pageheap_dirty() < HZ4_PURGE_ALLOWANCE :
		       comes_again(n);
}

/*
 * A mapping that was moved, or that others follow, serves them as a run does.
 * The kernel may refuse to split a mapping when there are too many; the pages
 * then stay ours as well.
 */
static void
release(uintptr_t start, size_t n, bool mapping)
{
	size_t pages = n / HZ4_PAGE;

	if (!mapping)
		hz4_pageheap_free(start, pages, hz4_os_now());
	else if (may_keep(n) && hz4_pageheap_donate(start, pages, true))
		return;
	else if (!hz4_os_unmap((void *)start, n) &&
		 !hz4_pageheap_donate(start, pages, false))
		hz4_os_purge((void *)start, n, false);
}

void
hz4_large_free(void *p)
{
	struct hz4_large *l = find(p, "free()");

	/* Of two threads that free the same object one is told. */
	if (!hz4_pagemap_claim(l->start, HZ4_CLS_RUN))
		hz4_fatal("free(): double free: ptr %p", p);
	account(l, (size_t)-1);
	set_whole(l, 0);
	HZ4_PROBE2(large_free, l->start, l->bytes);
	release(l->start, l->bytes, l->mapping);
	hz4_meta_free(l, sizeof *l);
}

size_t
hz4_large_usable(const void *p, const char *call)
{
	return find(p, call)->bytes;
}

struct hz4_sample *
hz4_large_sample(void *p)
{
	return &find(p, "free()")->sample;
}

void
hz4_large_ask(void *p, size_t size)
{
	struct hz4_large *l = hz4_pagemap_owner((uintptr_t)p);

	l->asked = size;
}

/*
 * Where to move an object that is to have `n` bytes: as far behind a huge
 * page's start as it lies now, so that whole page tables and huge pages move.
 * The system wants room for all of it and for the growth as well, or else
 * refuses the move and keeps the reservation.
 */
static char *
reserve(const struct hz4_large *l, size_t n)
{
	size_t before = l->start % HZ4_REGION_ALIGN, growth = n - l->bytes;
	char *to;

	/* The sum has an end where addresses have 32 bits. */
	if (n > PTRDIFF_MAX / 2)
		return NULL;
	to = hz4_os_reserve(before + n + growth, HZ4_REGION_ALIGN);
	if (to == NULL)
		return NULL;
	if (before > 0 && !hz4_os_unmap(to, before)) {
		hz4_os_unmap(to, before + n + growth);
		return NULL;
	}
	to += before;
	if (!hz4_os_unmap(to + n, growth)) {
		hz4_os_unmap(to, n + growth);
		return NULL;
	}
	if (hz4_pageheap_admit((uintptr_t)to, HZ4_PAGE))
		return to;
	hz4_os_unmap(to, n);
	return NULL;
}

/*
 * Move the page tables of an object to a mapping of `n` bytes; a run becomes
 * one by that.
 */
static bool
move(struct hz4_large *l, size_t n)
{
	uintptr_t old = l->start;
	char *to = reserve(l, n);
	unsigned huge = hz4_pagemap_flags(old) & HZ4_PAGE_HUGE;
	bool moved;

	if (to == NULL)
		return false;
	/*
	 * The entry goes first: once the pages have moved, their place may
	 * be another thread's.
	 */
	hz4_pagemap_set(old, 1, HZ4_CLS_NONE, NULL);
	moved = hz4_os_move((void *)old, l->bytes, to, n);
	if (moved)
		l->start = (uintptr_t)to;
	hz4_pagemap_set(l->start, 1, HZ4_CLS_RUN, l);
	if (moved)
		hz4_pagemap_mark(l->start, 1, huge, HZ4_PAGE_HUGE ^ huge);
	if (moved && !l->mapping) {
		set_whole(l, 0);
		l->mapping = true;
		hz4_pageheap_renew(old, l->bytes / HZ4_PAGE);
	}
	return moved;
}

/* Whether one more object below HZ4_HUGE_MIN may have a mapping. */
static bool
may_map(void)
{
	return hz4_peek(&kinds[true].objects) + hz4_pageheap_moved() <
	       HZ4_MOVED_MAX;
}

/* Within the page heap, in place. */
static bool
resize_run(struct hz4_large *l, size_t n)
{
	if (n < l->bytes)
		return hz4_pageheap_cut(l->start + n,
					(l->bytes - n) / HZ4_PAGE);
	return n < HZ4_HUGE_MIN &&
	       hz4_pageheap_extend(l->start + l->bytes,
				   (n - l->bytes) / HZ4_PAGE);
}

/*
 * A mapping that has grown out of a run is not counted by the system.  A run
 * that may have pages that are resident anyway is copied to them.
 */
static bool
may_grow(const struct hz4_large *l, size_t n)
{
	return n <= hz4_os_memory() &&
	       (l->mapping ||
		(l->bytes >= HZ4_MOVED_MIN && may_map() &&
		 (l->copied || hz4_pageheap_dirty() < n)));
}

/* As a mapping: in place, or moved. */
static bool
resize_mapping(struct hz4_large *l, size_t n)
{
	enum hz4_resized done = HZ4_NO_ROOM;

	if (l->mapping)
		done = hz4_os_resize((void *)l->start, l->bytes, n);
	return done == HZ4_RESIZED ||
	       (done == HZ4_NO_ROOM && n > l->bytes && move(l, n));
}

/*
 * Whether most of some pages hold something: those that nobody has touched are
 * zeros.  The kernel would know, but a sandbox may forbid to ask it.
 */
static bool
is_full(const char *p, size_t n)
{
	const size_t part = n / HZ4_KEPT_LOOKS;
	unsigned full = 0, i;

	for (i = 0; i < HZ4_KEPT_LOOKS; i++, p += part)
		full += *p != 0 || memcmp(p, p + 1, HZ4_KEPT_LOOK - 1) != 0;
	return full > HZ4_KEPT_LOOKS / 2;
}

/*
 * Kept pages for calloc.  Where few of them were used it would be the first to
 * touch the others, for a program that does not.
 */
static HZ4_DEEP void
clear(uintptr_t start, size_t pages)
{
	void *p = (void *)start;

	if (is_full(p, pages * HZ4_PAGE) ||
	    !hz4_os_purge(p, pages * HZ4_PAGE, false))
		hz4_pageheap_zero(start, pages);
}

/*
 * The pages of one that was freed a moment ago, if most are there yet.  A
 * smaller one grows: only what it lacks is touched for the first time.
 */
static bool
take_kept(struct hz4_large *l, bool zero)
{
	size_t n = l->bytes, pages = n / HZ4_PAGE;

	/* So many the system would refuse, but may let it grow to them. */
	if (n > hz4_os_memory())
		return false;
	l->start = hz4_pageheap_withdraw(&pages);
	if (l->start == 0)
		return false;
	l->bytes = pages * HZ4_PAGE;
	/* Here, since what moves has other flags. */
	if (zero)
		clear(l->start, pages);
	if (l->bytes < n && !resize_mapping(l, n)) {
		/* It may be entered, as one that has not moved. */
		hz4_pagemap_set(l->start, 1, HZ4_CLS_NONE, NULL);
		release(l->start, l->bytes, true);
		l->bytes = n;
		return false;
	}
	l->bytes = n;
	add_missed(n);
	return true;
}

static bool
take_mapping(struct hz4_large *l, size_t size, size_t align, bool zero)
{
	void *p;

	l->mapping = true;
	/* Whole pages: the page heap takes them if munmap is refused. */
	l->bytes = hz4_round_up(size, HZ4_PAGE);
	if (size >= HZ4_HUGE_MIN && align <= HZ4_PAGE && take_kept(l, zero))
		return true;
	p = hz4_os_map_counted(l->bytes, hz4_max(align, HZ4_REGION_ALIGN));
	if (p == NULL)
		return false;
	l->start = (uintptr_t)p;
	if (hz4_pageheap_admit(l->start, HZ4_PAGE)) {
		/* What was here before may have had some. */
		hz4_pagemap_mark(l->start, 1, 0, HZ4_PAGE_HUGE);
		/* No pages that stayed would have done for others. */
		if (align <= HZ4_PAGE)
			note_missed(l->bytes);
		return true;
	}
	hz4_os_unmap(p, l->bytes);
	return false;
}

static bool
take_run(struct hz4_large *l, size_t size, size_t align, bool zero)
{
	size_t pages = (size + HZ4_PAGE - 1) / HZ4_PAGE;

	l->mapping = false;
	l->bytes = pages * HZ4_PAGE;
	hz4_spans_make_room(pages);
	l->start = hz4_pageheap_alloc(pages, hz4_max(align, HZ4_PAGE), false);
	if (l->start == 0)
		return false;
	if (zero)
		hz4_pageheap_zero(l->start, pages);
	return true;
}

/* So that no sum of the two wraps. */
static bool
is_countable(size_t size, size_t align)
{
	return size <= PTRDIFF_MAX - HZ4_REGION_ALIGN &&
	       align <= PTRDIFF_MAX / 2 + 1;
}

bool
hz4_large_may_exist(size_t size, size_t align)
{
	const uint64_t addresses = (uint64_t)HZ4_ROOT_ENTRIES
				   << HZ4_LEAF_SHIFT;

	return is_countable(size, align) && align < addresses / 2 &&
	       size < addresses - align &&
	       (size < HZ4_HUGE_MIN || size <= hz4_os_memory());
}

void *
hz4_large_alloc(size_t size, size_t align, bool zero)
{
	struct hz4_large *l;
	bool ok;

	if (!is_countable(size, align))
		return NULL;
	l = hz4_meta_alloc(sizeof *l);
	if (l == NULL)
		return NULL;
	l->asked = size;
	l->whole = 0;
	l->copied = false;
	l->sample.site = NULL;
	if (size >= HZ4_HUGE_MIN || align > HZ4_REGION_MAX)
		ok = take_mapping(l, size, align, zero);
	else
		ok = take_run(l, size, align, zero);
	if (!ok) {
		hz4_meta_free(l, sizeof *l);
		return NULL;
	}
	account(l, 1);
	hz4_pagemap_set(l->start, 1, HZ4_CLS_RUN, l);
	HZ4_PROBE2(large_alloc, l->start, l->bytes);
	return (void *)l->start;
}

/* The same to at least `*n` bytes: addresses are room until touched. */
static bool
grow_mapping(struct hz4_large *l, size_t *n)
{
	size_t room = hz4_min(*n / HZ4_MOVED_ROOM, HZ4_MOVED_ROOM_MAX);

	room = room / HZ4_PAGE * HZ4_PAGE;
	if (!may_grow(l, *n))
		return false;
	if (resize_mapping(l, *n + room)) {
		*n += room;
		return true;
	}
	return room > 0 && resize_mapping(l, *n);
}

/*
 * A mapping that shrinks stays one, unless there are too many: what is left
 * of it is copied.
 */
static bool
shrink_mapping(struct hz4_large *l, size_t n)
{
	return l->mapping && (n >= HZ4_HUGE_MIN || may_map()) &&
	       resize_mapping(l, n);
}

/* To `n` bytes or more, whole pages; false when it must be copied. */
static bool
resize_to(struct hz4_large *l, size_t n)
{
	struct hz4_large was = *l;
	bool ok = !l->mapping && resize_run(l, n);

	if (!ok)
		ok = n > l->bytes ? grow_mapping(l, &n) : shrink_mapping(l, n);
	if (!ok)
		return false;
	l->bytes = n;
	account(&was, (size_t)-1);
	account(l, 1);
	return true;
}

void *
hz4_large_resize(void *p, size_t size)
{
	struct hz4_large *l = find(p, "realloc()");
	size_t n = hz4_round_up(size, HZ4_PAGE), full = 0;

	if (size >= l->asked) {
		/* What grows keeps its room, and is full. */
		n = hz4_max(n, l->bytes);
		full = l->asked / HZ4_PAGE * HZ4_PAGE;
	}
	if (n != l->bytes && !resize_to(l, n))
		return NULL;
	l->asked = size;
	set_whole(l, hz4_max(hz4_min(l->whole, n), full));
	return (void *)l->start;
}
