/*
 * heap.c - what malloc and free do when the thread's cache cannot serve
 * them, and the calls built on them.
 */
#include "heap.h"

#include "large.h"
#include "live.h"
#include "log.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "purge.h"
#include "shard.h"
#include "spans.h"
#include "transfer.h"

#include <errno.h>
#include <string.h>

static void
flush(struct hz4_cache *c)
{
	c->flushed = hz4_purge_flushes();
	hz4_cache_flush(c);
}

/*
 * Purge, and empty the caches first: what they hold of mostly free spans
 * keeps whole pages.  The other threads are to do the same.
 */
static void
purge(struct hz4_cache *c, uint64_t now)
{
	hz4_purge_ask_flush();
	flush(c);
	hz4_purge_run(now);
	if (hz4_purge_arm(now))
		hz4_thread_nudge_all();
}

/* The thread starts to look at the clock; misses count from a bit later. */
static void
start_looking(struct hz4_cache *c, uint64_t now)
{
	c->looking = true;
	c->missed_since = now + HZ4_PURGE_SETTLING;
	c->misses = 0;
}

static void
note_misses(struct hz4_cache *c, unsigned n, uint64_t now)
{
	if (now < c->missed_since)
		return;
	if (now >= c->missed_since + HZ4_PURGE_SETTLING) {
		c->missed_since = now;
		c->misses = 0;
	}
	c->misses += n;
}

/*
 * What one in `every` slow paths sees to: pages that wait, caches that lie
 * idle.  `missed`: not one that was asked for, as careful calls and nudges
 * are.
 */
static void
upkeep(struct hz4_cache *c, unsigned every, bool missed)
{
	uint64_t now;

	hz4_live_tick();
	if (++c->visits % every != 0)
		return;
	if (c->visits % HZ4_CLOCK_VISITS != 0 && !hz4_purge_pending())
		return;
	now = hz4_os_now();
	if (hz4_purge_due(now))
		purge(c, now);
	if (hz4_purge_decay_arm(now))
		hz4_thread_nudge_all();
	if (missed)
		note_misses(c, every, now);
	if (!hz4_purge_pending() || hz4_stacks_nudged(c) || now < c->resting)
		return;
	if (hz4_purge_arm(now))
		hz4_thread_nudge_all();
	else
		hz4_stacks_nudge(c);
}

/*
 * For the classes: to look whether pages wait costs a cache line and one for
 * each shard, which other threads write.  Without a delay every free is
 * followed.
 */
static unsigned
class_visits(void)
{
	if (hz4_option(HZ4_OPT_purge_delay) == 0)
		return 1;
	return hz4_shards() > 1 ? HZ4_PURGE_VISITS_SHARDS : HZ4_PURGE_VISITS;
}

/*
 * Whether a nudged thread has to look at the clock again with its next
 * malloc: pages wait, and it has no misses that bring it by anyway, some
 * time after it began to look or emptied its caches.  It must be sure of
 * them: nobody else looks where they end, and the pages stay.  Not where
 * they are to stay for long: looking costs several times what malloc does.
 */
static bool
keep_looking(struct hz4_cache *c, uint64_t now)
{
	if (!hz4_purge_pending() || !hz4_purge_due(now + HZ4_PURGE_LOOK))
		return false;
	if (!c->looking)
		start_looking(c, now);
	if (c->misses < HZ4_PURGE_MISSES)
		return true;
	c->resting = now + HZ4_PURGE_NUDGES;
	return false;
}

/*
 * A nudged thread's malloc: do what was asked for, give back what lies idle
 * when the pages that wait are due.  Once in a tick of the clock is enough:
 * while a thread looks, all its mallocs come here.
 */
static void
answer_nudge(struct hz4_cache *c)
{
	uint64_t now = hz4_os_now();

	if (now == c->looked && c->flushed == hz4_purge_flushes())
		return;
	c->looked = now;
	hz4_live_tick();
	if (c->flushed != hz4_purge_flushes())
		flush(c);
	if (c->decayed != hz4_purge_decays()) {
		c->decayed = hz4_purge_decays();
		hz4_cache_decay(c);
	}
	if (hz4_purge_due(now)) {
		purge(c, now);
		start_looking(c, now);
	}
	if (keep_looking(c, now))
		return;
	hz4_stacks_settle(c);
	/* A request that came in between, whose nudge settling has undone. */
	if (c->flushed != hz4_purge_flushes() ||
	    c->decayed != hz4_purge_decays())
		hz4_stacks_nudge(c);
}

static void *
take_cached(struct hz4_cache *c, unsigned cls)
{
	void *p;

	if (hz4_unlikely(hz4_stacks_nudged(c)))
		answer_nudge(c);
	else if ((p = hz4_cache_l0_refill(c, cls)) != NULL)
		return p;
	/* There may be one: in a careful class, or hidden by the nudge. */
	if (hz4_cache_pop_nudged(c, cls, &p))
		return p;
	upkeep(c, class_visits(), true);
	return hz4_cache_refill(c, cls);
}

static void *
take_large(size_t size, size_t align, bool zero)
{
	void *p = hz4_large_alloc(size, align, zero);

	if (p != NULL)
		hz4_thread_count(HZ4_CLS_RUN, HZ4_COUNT_malloc_large);
	return p;
}

/* Without a cache: from the spans, one at a time. */
static void *
take_bare(unsigned cls)
{
	unsigned path;
	void *p;

	if (hz4_transfer_take(cls, &p, 1, &path) == 0)
		return NULL;
	hz4_thread_add_bare(cls, 1);
	hz4_thread_count(cls, HZ4_COUNT_malloc_lock_path);
	hz4_thread_count(cls, path & HZ4_TRANSFER_CREATED ?
				      HZ4_COUNT_malloc_span_create :
				      HZ4_COUNT_malloc_transfer_hit);
	return p;
}

static void *
take(size_t size, struct hz4_cache *c)
{
	if (size > HZ4_CLASS_MAX) {
		if (c != NULL)
			upkeep(c, 1, true);
		return take_large(size, HZ4_ALIGN, false);
	}
	if (c != NULL)
		return take_cached(c, hz4_sizeclass(size));
	return take_bare(hz4_sizeclass(size));
}

/* The system has no memory, or there can be none of that size. */
static void *
refuse(void)
{
	hz4_thread_count(HZ4_CLS_RUN, HZ4_COUNT_malloc_failed);
	errno = ENOMEM;
	return NULL;
}

/*
 * The system has refused memory: give back what this thread and the heap
 * hold, and try once more; at last with a run that fits the size exactly.
 */
static HZ4_SLOW void *
take_exhausted(size_t size, size_t align, struct hz4_cache *c)
{
	void *p = NULL;

	if (c != NULL)
		flush(c);
	hz4_purge_exhausted();
	if (align == HZ4_ALIGN && size <= HZ4_CLASS_MAX)
		p = take(size, c);
	if (p == NULL)
		p = take_large(size, align, false);
	return p != NULL ? p : refuse();
}

HZ4_SLOW void *
hz4_heap_malloc_slow(size_t size)
{
	struct hz4_cache *c;
	void *p;

	if (size > PTRDIFF_MAX)
		return refuse();
	hz4_thread_start();
	c = hz4_thread_cache();
	p = take(size, c);
	if (hz4_unlikely(p == NULL))
		p = take_exhausted(size, HZ4_ALIGN, c);
	return p;
}

static void
give_bare(void *p, unsigned cls)
{
	unsigned path;

	hz4_transfer_give(cls, &p, 1, hz4_os_now(), &path);
	hz4_thread_add_bare(cls, -1);
	hz4_thread_count(cls, HZ4_COUNT_free_uncached);
	hz4_thread_count(cls, path & HZ4_TRANSFER_LOCKED ?
				      HZ4_COUNT_free_lock_path :
				      HZ4_COUNT_free_transfer_hit);
	if (path & HZ4_TRANSFER_RELEASED)
		hz4_thread_count(cls, HZ4_COUNT_free_span_release);
}

static void
give(void *p, unsigned cls, struct hz4_cache *c)
{
	if (cls == HZ4_CLS_RUN) {
		hz4_large_free(p, "free()");
		hz4_thread_count(cls, HZ4_COUNT_free_large);
	} else if (c == NULL) {
		give_bare(p, cls);
	} else {
		/* The count of the call itself is the push's. */
		hz4_cache_overflow(c, cls, p);
	}
}

HZ4_SLOW void
hz4_heap_free_slow(void *p)
{
	struct hz4_cache *c;
	bool missed;
	unsigned cls;
	int saved;

	/* glibc frees some thirty of them at the end of each thread. */
	if (p == NULL) {
		hz4_thread_count(HZ4_CLS_RUN, HZ4_COUNT_free_null);
		return;
	}
	cls = hz4_pagemap_class(p);
	if (cls == HZ4_CLS_NONE)
		hz4_fatal("free(): invalid pointer or double free: ptr %p", p);
	saved = errno;
	c = hz4_thread_cache_to_free();
	missed = cls == HZ4_CLS_RUN || c == NULL || !hz4_stacks_careful(c, cls);
	give(p, cls, c);
	if (c != NULL)
		upkeep(c, cls == HZ4_CLS_RUN ? 1 : class_visits(), missed);
	errno = saved;
}

/*
 * So many bytes of an object are being written.  Whether objects above
 * HZ4_FRESH_WHOLE are used to their ends cannot be known of others.
 */
static void
note_whole(void *p, size_t bytes)
{
	struct hz4_span *s;
	unsigned cls;

	if (bytes <= HZ4_FRESH_WHOLE)
		return;
	cls = hz4_pagemap_class(p);
	if (cls == HZ4_CLS_RUN)
		hz4_large_note_whole(p, bytes);
	else if ((s = hz4_transfer_span(p, cls)) != NULL)
		hz4_spans_note_whole(s);
}

/* Above the classes fresh pages are known to be zero. */
static void *
calloc_large(size_t bytes)
{
	struct hz4_cache *c = hz4_thread_cache();
	void *p;

	if (c != NULL)
		upkeep(c, 1, true);
	p = take_large(bytes, HZ4_ALIGN, true);
	if (p == NULL) {
		p = take_exhausted(bytes, HZ4_ALIGN, c);
		if (p != NULL)
			memset(p, 0, bytes);
	}
	return p;
}

void *
hz4_heap_calloc(size_t n, size_t size)
{
	size_t bytes;
	void *p;

	if (hz4_unlikely(__builtin_mul_overflow(n, size, &bytes) ||
			 bytes > PTRDIFF_MAX))
		return refuse();
	if (bytes > HZ4_CLASS_MAX) {
		hz4_thread_start();
		return calloc_large(bytes);
	}
	p = hz4_heap_malloc(bytes);
	if (p == NULL)
		return NULL;
	note_whole(p, bytes);
	return memset(p, 0, bytes);
}

/* The class of a live object; aborts when p is none. */
HZ4_FAST unsigned
class_of(const void *p, const char *call)
{
	unsigned cls = hz4_pagemap_class(p);

	if (hz4_unlikely(cls == HZ4_CLS_NONE ||
			 (cls != HZ4_CLS_RUN && !hz4_transfer_is_out(p, cls)) ||
			 hz4_cache_suspects(hz4_tls_cache, cls, p)))
		hz4_fatal("%s: invalid pointer: ptr %p", call, p);
	return cls;
}

static size_t
usable(const void *p, unsigned cls, const char *call)
{
	if (cls == HZ4_CLS_RUN)
		return hz4_large_usable(p, call);
	return hz4_sizeclass_usable(cls);
}

/*
 * An object of `size` bytes, with room for `want` where there is memory: for
 * that alone nobody gives anything back.
 */
static void *
take_with_room(size_t size, size_t want)
{
	void *p = want > size ? take(want, hz4_thread_cache()) : NULL;

	if (p == NULL)
		return hz4_heap_malloc(size);
	if (want > HZ4_CLASS_MAX)
		hz4_large_ask(p, size);
	return p;
}

/* The first `n` bytes of an object go to where it shall be from now on. */
static void *
copy_to(void *to, void *p, size_t n)
{
	if (to == NULL)
		return NULL;
	note_whole(to, n);
	memcpy(to, p, n);
	hz4_heap_free(p);
	return to;
}

/* To a smaller one; where the system has no memory it stays where it is. */
static void *
shrink_to(void *p, size_t size)
{
	void *to = copy_to(take(size, hz4_thread_cache()), p, size);

	return to != NULL ? to : p;
}

/*
 * Copy an object to where it has room to grow.  One that grows by small
 * steps is copied as often as its size class changes, so from its second
 * copy on it gets more than it asks for.  Which were copied before is known
 * of the thread's latest alone: a wrong guess costs no more than that room.
 */
static void *
grow_to(void *p, size_t old, size_t size)
{
	struct hz4_cache *c = hz4_thread_cache();
	size_t want = size;
	unsigned i = 0;
	void *to;

	if (c == NULL || old < HZ4_GROWN_LEAST || size >= HZ4_HUGE_MIN / 2)
		return copy_to(hz4_heap_malloc(size), p, old);
	while (i < HZ4_GROWN_LATEST && c->grown[i] != (uintptr_t)p)
		i++;
	if (i == HZ4_GROWN_LATEST)
		i = c->grown_next++ % HZ4_GROWN_LATEST;
	else if (size - old <= old / HZ4_GROWN_STEP)
		want = size + size / HZ4_GROWN_ROOM;
	to = copy_to(take_with_room(size, want), p, old);
	if (to != NULL)
		c->grown[i] = (uintptr_t)to;
	return to;
}

void *
hz4_heap_realloc(void *p, size_t size)
{
	size_t old;
	unsigned cls;
	void *to;

	if (p == NULL)
		return hz4_heap_malloc(size);
	cls = class_of(p, "realloc()");
	if (size == 0) {
		hz4_heap_free(p);
		return NULL;
	}
	if (hz4_unlikely(size > PTRDIFF_MAX))
		return refuse();
	old = usable(p, cls, "realloc()");
	if (cls == HZ4_CLS_RUN && size > HZ4_CLASS_MAX) {
		to = hz4_large_resize(p, size);
		if (to != NULL) {
			hz4_thread_count(cls, HZ4_COUNT_realloc_in_place);
			return to;
		}
	}
	/* Shrinking by less than half is not worth a copy. */
	if (size <= old && size >= old / 2) {
		hz4_thread_count(cls, HZ4_COUNT_realloc_in_place);
		return p;
	}
	return size > old ? grow_to(p, old, size) : shrink_to(p, size);
}

void *
hz4_heap_aligned(size_t align, size_t size)
{
	unsigned cls;
	void *p;

	if (align <= HZ4_ALIGN)
		return hz4_heap_malloc(size);
	if (hz4_unlikely(size > PTRDIFF_MAX || align > PTRDIFF_MAX))
		return refuse();
	hz4_thread_start();
	size = hz4_max(size, 1);
	if (size <= HZ4_CLASS_MAX && align <= HZ4_PAGE) {
		cls = hz4_sizeclass_aligned(size, align);
		if (cls != HZ4_CLS_NONE)
			return hz4_heap_malloc(hz4_classes[cls].size);
	}
	p = take_large(size, align, false);
	return p != NULL ? p : take_exhausted(size, align, hz4_thread_cache());
}

size_t
hz4_heap_usable(const void *p)
{
	if (p == NULL)
		return 0;
	return usable(p, class_of(p, "malloc_usable_size()"),
		      "malloc_usable_size()");
}

size_t
hz4_heap_trim(void)
{
	struct hz4_cache *c = hz4_thread_cache();
	size_t bytes;

	hz4_purge_ask_flush();
	if (c != NULL)
		flush(c);
	hz4_thread_flush_ended();
	bytes = hz4_purge_all();
	hz4_thread_nudge_all();
	return bytes;
}

size_t
hz4_heap_good_size(size_t size)
{
	hz4_thread_start();
	if (size <= HZ4_CLASS_MAX)
		return hz4_sizeclass_usable(hz4_sizeclass(size));
	if (size > PTRDIFF_MAX - HZ4_REGION_ALIGN)
		return 0;
	return hz4_round_up(size, HZ4_PAGE);
}
