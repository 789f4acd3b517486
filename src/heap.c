/*
 * heap.c - what malloc and free do when the thread's cache cannot serve
 * them, and the calls built on them.
 */
#include "heappaths.h"

#include "idle.h"
#include "l1.h"
#include "guard.h"
#include "large.h"
#include "log.h"
#include "os.h"
#include "probe.h"
#include "profile.h"
#include "purge.h"
#include "samples.h"
#include "spans.h"
#include "transfer.h"
#include "upkeep.h"

#include <errno.h>
#include <string.h>

/*
 * The thread watches, and it is time to look at the clock.  A large object
 * counts as many small ones: a server that slept may have a few mallocs to go
 * before it sleeps again.
 */
HZ4_FAST bool
turn_to_look(struct hz4_cache *c, size_t size)
{
	size_t calls = 1 + size / HZ4_WATCH_BYTES;

	if (hz4_likely(!c->watching))
		return false;
	if (c->to_look <= calls)
		return true;
	c->to_look = (uint16_t)(c->to_look - calls);
	return false;
}

static void *
take_cached(struct hz4_cache *c, unsigned cls)
{
	void *p;

	if (hz4_unlikely(turn_to_look(c, hz4_classes[cls].size)))
		hz4_upkeep_look(c);
	/* There may be one: in a careful class, or where the thread watches. */
	if (hz4_cache_pop_slow(c, cls, &p))
		return p;
	hz4_upkeep(c, hz4_upkeep_visits());
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

/* What is due before a call above the classes. */
static void
upkeep_large(struct hz4_cache *c)
{
	c = hz4_cache_enter(c);
	if (c == NULL)
		return;
	hz4_upkeep(c, 1);
	hz4_cache_leave(c);
}

void *
hz4_heap_take(size_t size, struct hz4_cache *c)
{
	void *p;

	if (size > HZ4_CLASS_MAX) {
		upkeep_large(c);
		return take_large(size, HZ4_ALIGN, false);
	}
	c = hz4_cache_enter(c);
	if (c == NULL)
		return take_bare(hz4_sizeclass(size));
	p = take_cached(c, hz4_sizeclass(size));
	hz4_cache_leave(c);
	return p;
}

void *
hz4_heap_refuse(void)
{
	hz4_thread_count(HZ4_CLS_RUN, HZ4_COUNT_malloc_failed);
	HZ4_PROBE(malloc_failed);
	errno = ENOMEM;
	return NULL;
}

/* Give back what the CPUs have, whether the thread has a cache or not. */
static void
empty_l1s(struct hz4_cache *c)
{
	/* What is counted without a cache is nobody's. */
	static struct hz4_counts nobody[HZ4_MID_STATS_B1 ? HZ4_CLS_VALUES : 1];

	if (HZ4_MID_DUAL_TIER_ALLOC_BOX)
		hz4_l1_flush(c != NULL ? c->counts : nobody);
}

/* What this thread and the CPUs hold; of other threads' too, if `others`. */
static void
empty(struct hz4_cache *c, bool others)
{
	c = hz4_cache_enter(c);
	if (c != NULL)
		hz4_cache_flush(c);
	if (others) {
		hz4_thread_flush_ended();
		hz4_idle_empty_all();
	}
	empty_l1s(c);
	if (c != NULL)
		hz4_cache_leave(c);
}

/*
 * The system has refused memory: give back what this thread and the heap
 * hold, and try once more; at last with a run that fits the size exactly.
 */
static HZ4_SLOW void *
take_exhausted(size_t size, size_t align, struct hz4_cache *c)
{
	void *p = NULL;

	if (!hz4_large_may_exist(size, align))
		return hz4_heap_refuse();
	empty(c, false);
	hz4_purge_exhausted();
	if (align == HZ4_ALIGN && size <= HZ4_CLASS_MAX)
		p = hz4_heap_take(size, c);
	if (p == NULL)
		p = take_large(size, align, false);
	return p != NULL ? p : hz4_heap_refuse();
}

/*
 * The fast path of a thread that watches, but for every n-th time, or samples:
 * its stacks are open, and all their mallocs come here.  `counts`: the call is
 * one to be counted.  False: nothing is done.
 */
HZ4_FAST bool
pop_open(struct hz4_stack *s, size_t size, bool counts, void **p)
{
	struct hz4_cache *c;
	unsigned cls;
	void **top;

	hz4_stacks_look();
	if (hz4_peek(&s->low) != HZ4_STOP_OPEN)
		return false;
	/* One that is open is of the calling thread's. */
	c = hz4_tls_cache;
	cls = (unsigned)(s - c->stack);
	top = hz4_peek(&s->top);
	if (!hz4_cache_see(top, hz4_stacks_oldest(c, cls), p) ||
	    turn_to_look(c, size) ||
	    (counts && !hz4_profile_passes(&c->sampler, size)))
		return false;
	hz4_cache_take(s, top);
	return true;
}

/* Of its own, so that what comes before needs no frame. */
static HZ4_DEEP void *
malloc_missed(size_t size)
{
	struct hz4_cache *c;
	void *p;

	hz4_thread_start();
	c = hz4_thread_cache();
	p = hz4_heap_take(size, c);
	/* Last: its frame takes the place of this one. */
	return hz4_likely(p != NULL) ? p : take_exhausted(size, HZ4_ALIGN, c);
}

void *
hz4_heap_malloc_told(size_t size)
{
	struct hz4_stack *s;
	void *p;

	if (hz4_likely(hz4_heap_pop(&hz4_tls_cache, size, &s, &p)) ||
	    pop_open(s, size, false, &p))
		return p;
	return malloc_missed(size);
}

static HZ4_DEEP void *
malloc_due(size_t size)
{
	void *p = hz4_profile_take(size, size, HZ4_ALIGN, false, HZ4_CALLER);

	return p != NULL ? p : malloc_missed(size);
}

/* Not cold: all mallocs come here while they are watched or counted. */
HZ4_DEEP void *
hz4_heap_malloc_slow(size_t size, struct hz4_stack *s)
{
	void *p;

	if (hz4_likely(pop_open(s, size, true, &p)))
		return p;
	if (hz4_unlikely(hz4_profile_due(size)))
		return malloc_due(size);
	return malloc_missed(size);
}

static HZ4_DEEP void
give_bare(void *p, unsigned cls)
{
	unsigned path;

	hz4_transfer_give(cls, &p, 1, 0, &path);
	hz4_thread_add_bare(cls, -1);
	hz4_thread_count(cls, HZ4_COUNT_free_uncached);
	hz4_thread_count(cls, path & HZ4_TRANSFER_LOCKED ?
				      HZ4_COUNT_free_lock_path :
				      HZ4_COUNT_free_transfer_hit);
	if (path & HZ4_TRANSFER_RELEASED)
		hz4_thread_count(cls, HZ4_COUNT_free_span_release);
}

/* A sample or a guarded object. */
static HZ4_DEEP void
give_marked(void *p, struct hz4_cache *c)
{
	struct hz4_sampler none = { .inside = true };
	struct hz4_sampler *s = c != NULL ? &c->sampler : &none;
	bool inside = s->inside;

	if (!hz4_guard_owns(p)) {
		hz4_samples_give(p);
		return;
	}
	/* What the unwinder allocates is no sample. */
	s->inside = true;
	hz4_guard_give(p, HZ4_CALLER, s);
	s->inside = inside;
}

static void
give(void *p, unsigned cls, struct hz4_cache *c)
{
	if (cls == HZ4_CLS_MARKED) {
		give_marked(p, c);
		hz4_thread_count(HZ4_CLS_RUN, HZ4_COUNT_free_sampled);
	} else if (cls == HZ4_CLS_RUN) {
		if (hz4_unlikely(hz4_large_sample(p)->site != NULL))
			hz4_samples_drop(hz4_large_sample(p));
		hz4_large_free(p);
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
	c = hz4_cache_enter(hz4_thread_cache_to_free());
	give(p, cls, c);
	if (c != NULL) {
		hz4_upkeep(c, cls >= HZ4_CLS_RUN ? 1 : hz4_upkeep_visits());
		hz4_cache_leave(c);
	}
	errno = saved;
}

/*
 * So many bytes of an object are being written.  Whether objects above
 * HZ4_FRESH_WHOLE are used to their ends cannot be known of others.
 */
HZ4_DEEP void
hz4_heap_note_whole(void *p, size_t bytes)
{
	struct hz4_span *s;
	unsigned cls;

	if (bytes <= HZ4_FRESH_WHOLE)
		return;
	cls = hz4_pagemap_class(p);
	if (cls == HZ4_CLS_RUN)
		hz4_large_note_whole(p, bytes);
	else if (cls != HZ4_CLS_MARKED &&
		 (s = hz4_transfer_span(p, cls)) != NULL)
		hz4_spans_note_whole(s);
}

/* Above the classes fresh pages are known to be zero. */
static HZ4_DEEP void *
calloc_large(size_t bytes)
{
	struct hz4_cache *c = hz4_thread_cache();
	void *p = HZ4_TAKE_DUE(bytes, bytes, HZ4_ALIGN, true);

	if (p != NULL)
		return p;
	upkeep_large(c);
	p = take_large(bytes, HZ4_ALIGN, true);
	if (p == NULL) {
		p = take_exhausted(bytes, HZ4_ALIGN, c);
		if (p != NULL)
			memset(p, 0, bytes);
	}
	return p;
}

/*
 * An object of many OS pages that the cache does not have and nobody has used
 * yet: its pages are left alone.  NULL when there is none.
 */
static HZ4_DEEP void *
calloc_fresh(size_t bytes)
{
	struct hz4_cache *c = hz4_cache_enter(hz4_thread_cache());
	unsigned cls = hz4_sizeclass_big(bytes);
	void *p = NULL;

	if (c == NULL)
		return NULL;
	if (hz4_unlikely(turn_to_look(c, bytes)))
		hz4_upkeep_look(c);
	if (hz4_cache_count(c, cls) == 0) {
		hz4_upkeep(c, hz4_upkeep_visits());
		p = hz4_cache_take_zeroed(c, cls, bytes);
	}
	hz4_cache_leave(c);
	return p;
}

/* What the thread's cache does not have at hand. */
static HZ4_DEEP void *
calloc_slow(size_t bytes)
{
	void *p = HZ4_TAKE_DUE(bytes, bytes, HZ4_ALIGN, false);

	if (p == NULL && bytes > HZ4_FRESH_SPARSE &&
	    (p = calloc_fresh(bytes)) != NULL)
		return p;
	if (p == NULL)
		p = malloc_missed(bytes);
	if (p == NULL)
		return NULL;
	hz4_heap_note_whole(p, bytes);
	return memset(p, 0, bytes);
}

void *
hz4_heap_calloc(size_t n, size_t size)
{
	struct hz4_stack *s;
	size_t bytes;
	void *p;

	if (hz4_unlikely(__builtin_mul_overflow(n, size, &bytes) ||
			 bytes > PTRDIFF_MAX))
		return hz4_heap_refuse();
	if (bytes > HZ4_CLASS_MAX) {
		hz4_thread_start();
		return calloc_large(bytes);
	}
	if (hz4_unlikely(!hz4_heap_pop(&hz4_tls_cache, bytes, &s, &p)) &&
	    !pop_open(s, bytes, true, &p))
		return calloc_slow(bytes);
	hz4_heap_note_whole(p, bytes);
	return memset(p, 0, bytes);
}

/* The calls of its class are looked at, and it is no live object. */
static bool
suspects(struct hz4_cache *c, unsigned cls, const void *p)
{
	bool suspect;

	if (cls == HZ4_CLS_RUN || c == &hz4_empty_cache ||
	    !hz4_stacks_careful(c, cls) || hz4_cache_enter(c) == NULL)
		return false;
	suspect = hz4_cache_holds(c, cls, p);
	hz4_cache_leave(c);
	return suspect;
}

unsigned
hz4_heap_class(const void *p, const char *call)
{
	unsigned cls = hz4_pagemap_class(p);

	if (hz4_unlikely(cls == HZ4_CLS_MARKED))
		return cls;
	if (hz4_unlikely(cls == HZ4_CLS_NONE ||
			 (cls != HZ4_CLS_RUN && !hz4_transfer_is_out(p, cls)) ||
			 suspects(hz4_tls_cache, cls, p)))
		hz4_fatal("%s: invalid pointer: ptr %p", call, p);
	return cls;
}

size_t
hz4_heap_room(const void *p, unsigned cls, const char *call)
{
	if (cls == HZ4_CLS_RUN)
		return hz4_large_usable(p, call);
	if (cls == HZ4_CLS_MARKED)
		return hz4_guard_owns(p) ?
			       hz4_guard_usable(p, call) :
			       hz4_sizeclass_usable(
				       hz4_samples_class(p, call));
	return hz4_sizeclass_usable(cls);
}

void *
hz4_heap_aligned(size_t align, size_t size)
{
	unsigned cls;
	void *p;

	if (align <= HZ4_ALIGN)
		return hz4_heap_malloc(size);
	if (hz4_unlikely(size > PTRDIFF_MAX))
		return hz4_heap_refuse();
	hz4_thread_start();
	size = hz4_max(size, 1);
	p = HZ4_TAKE_DUE(size, size, align, false);
	if (p != NULL)
		return p;
	if (size <= HZ4_CLASS_MAX && align <= HZ4_PAGE) {
		cls = hz4_sizeclass_aligned(size, align);
		if (cls != HZ4_CLS_NONE)
			return hz4_heap_malloc_told(hz4_classes[cls].size);
	}
	p = take_large(size, align, false);
	return p != NULL ? p : take_exhausted(size, align, hz4_thread_cache());
}

/*
 * As much is seen to as free does.  Some programs ask after each malloc and
 * before each free, and a span and its bits are cold.
 */
size_t
hz4_heap_usable(const void *p)
{
	unsigned cls = hz4_pagemap_class(p);

	if (hz4_likely(cls - 1 < HZ4_CLS_END - 1))
		return hz4_sizeclass_usable(cls);
	if (p == NULL)
		return 0;
	return hz4_heap_room(p, hz4_heap_class(p, "malloc_usable_size()"),
			     "malloc_usable_size()");
}

size_t
hz4_heap_trim(void)
{
	empty(hz4_thread_cache(), true);
	return hz4_purge_all();
}

size_t
hz4_heap_good_size(size_t size)
{
	hz4_thread_start();
	if (size <= HZ4_CLASS_MAX)
		return hz4_sizeclass_usable(hz4_sizeclass(size));
	if (!hz4_large_may_exist(size, HZ4_ALIGN))
		return 0;
	return hz4_round_up(size, HZ4_PAGE);
}
