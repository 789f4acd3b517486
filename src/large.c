/*
 * large.c - large objects.  The page map knows only their first page, so a
 * pointer into the middle is not taken for an object.
 */
#include "large.h"

#include "log.h"
#include "meta.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "spans.h"

/* Runs, and mappings: apart, so that no sum is short of a part of its own. */
static struct {
	_Atomic size_t objects, bytes; /* [atomic] relaxed: figures only */
} kinds[2];

static void
account(const struct hz4_large *l, size_t sign)
{
	atomic_fetch_add_explicit(&kinds[l->mapping].objects, sign,
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&kinds[l->mapping].bytes, sign * l->bytes,
				  memory_order_relaxed);
}

void
hz4_large_figures(struct hz4_large_figures *out)
{
	out->mappings = hz4_peek(&kinds[true].objects);
	out->mapped = hz4_peek(&kinds[true].bytes);
	out->objects = hz4_peek(&kinds[false].objects) + out->mappings;
	out->bytes = hz4_peek(&kinds[false].bytes) + out->mapped;
}

static bool
take_mapping(struct hz4_large *l, size_t size, size_t align)
{
	void *p;

	l->mapping = true;
	/* Whole pages: the page heap takes them if munmap is refused. */
	l->bytes = hz4_round_up(size, HZ4_PAGE);
	p = hz4_os_map(l->bytes, hz4_max(align, HZ4_REGION_ALIGN));
	if (p == NULL)
		return false;
	l->start = (uintptr_t)p;
	if (hz4_pageheap_admit(l->start, HZ4_PAGE))
		return true;
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

void *
hz4_large_alloc(size_t size, size_t align, bool zero)
{
	struct hz4_large *l;
	bool ok;

	if (size > PTRDIFF_MAX - HZ4_REGION_ALIGN ||
	    align > PTRDIFF_MAX / 2)
		return NULL;
	l = hz4_meta_alloc(sizeof *l);
	if (l == NULL)
		return NULL;
	l->asked = size;
	l->whole = 0;
	if (size >= HZ4_HUGE_MIN || align > HZ4_REGION_ALIGN)
		ok = take_mapping(l, size, align);
	else
		ok = take_run(l, size, align, zero);
	if (!ok) {
		hz4_meta_free(l, sizeof *l);
		return NULL;
	}
	account(l, 1);
	hz4_pagemap_set(l->start, 1, HZ4_CLS_RUN, l);
	return (void *)l->start;
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
	struct hz4_large *l = find(p, "realloc()");

	set_whole(l, hz4_max(l->whole, n / HZ4_PAGE * HZ4_PAGE));
}

/*
 * The kernel may refuse to split a mapping when there are too many; the
 * pages then stay ours and serve others.
 */
static void
release(uintptr_t start, size_t n, bool mapping)
{
	if (!mapping)
		hz4_pageheap_free(start, n / HZ4_PAGE, hz4_os_now());
	else if (!hz4_os_unmap((void *)start, n) &&
		 !hz4_pageheap_donate(start, n / HZ4_PAGE))
		hz4_os_purge((void *)start, n, false);
}

void
hz4_large_free(void *p, const char *call)
{
	struct hz4_large *l = find(p, call);

	/* Of two threads that free the same object one is told. */
	if (!hz4_pagemap_claim(l->start, HZ4_CLS_RUN))
		hz4_fatal("%s: double free: ptr %p", call, p);
	account(l, (size_t)-1);
	set_whole(l, 0);
	release(l->start, l->bytes, l->mapping);
	hz4_meta_free(l, sizeof *l);
}

size_t
hz4_large_usable(const void *p, const char *call)
{
	return find(p, call)->bytes;
}

void
hz4_large_ask(void *p, size_t size)
{
	find(p, "realloc()")->asked = size;
}

static bool
resize_run(struct hz4_large *l, size_t n)
{
	if (n > l->bytes)
		return n < HZ4_HUGE_MIN &&
		       hz4_pageheap_extend(l->start + l->bytes,
					   (n - l->bytes) / HZ4_PAGE);
	return hz4_pageheap_cut(l->start + n, (l->bytes - n) / HZ4_PAGE);
}

/*
 * Where to move a mapping that is to have `n` bytes.  The system wants room
 * for all of it and for the growth as well, or else refuses the move and
 * keeps the reservation.
 */
static void *
reserve(size_t n, size_t growth)
{
	char *to = hz4_os_reserve(n + growth, HZ4_REGION_ALIGN);

	if (to == NULL)
		return NULL;
	if (!hz4_os_unmap(to + n, growth)) {
		hz4_os_unmap(to, n + growth);
		return NULL;
	}
	if (hz4_pageheap_admit((uintptr_t)to, HZ4_PAGE))
		return to;
	hz4_os_unmap(to, n);
	return NULL;
}

static void *
move_mapping(struct hz4_large *l, size_t n)
{
	void *old = (void *)l->start;
	void *to = reserve(n, n - l->bytes);

	if (to == NULL)
		return NULL;
	/*
	 * The entry goes first: once the pages have moved, their place may
	 * be another thread's.
	 */
	hz4_pagemap_set(l->start, 1, HZ4_CLS_NONE, NULL);
	if (hz4_os_move(old, l->bytes, to, n))
		l->start = (uintptr_t)to;
	hz4_pagemap_set(l->start, 1, HZ4_CLS_RUN, l);
	return l->start == (uintptr_t)to ? to : NULL;
}

static void *
resize_mapping(struct hz4_large *l, size_t n)
{
	void *p = (void *)l->start;

	if (n < HZ4_HUGE_MIN)
		return NULL;
	switch (hz4_os_resize(p, l->bytes, n)) {
	case HZ4_RESIZED:
		return p;
	case HZ4_NO_ROOM:
		return n > l->bytes ? move_mapping(l, n) : NULL;
	default:
		return NULL;
	}
}

/* To `n` bytes, whole pages; NULL when it must be copied. */
static void *
resize_to(struct hz4_large *l, size_t n)
{
	struct hz4_large was = *l;
	void *to;

	if (l->mapping)
		to = resize_mapping(l, n);
	else
		to = resize_run(l, n) ? (void *)l->start : NULL;
	if (to == NULL)
		return NULL;
	l->bytes = n;
	account(&was, (size_t)-1);
	account(l, 1);
	return to;
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
	if (n != l->bytes) {
		p = resize_to(l, n);
		if (p == NULL)
			return NULL;
	}
	l->asked = size;
	set_whole(l, hz4_max(hz4_min(l->whole, n), full));
	return p;
}
