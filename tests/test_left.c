/*
 * test_left.c - what calls leave behind: no metadata, no object, no page
 * that nobody sees to; and what can be done with the last memory there is.
 */
#include "unit.h"

#include "clock.h"
#include "heap.h"
#include "holes.h"
#include "info.h"
#include "large.h"
#include "meta.h"
#include "option.h"
#include "pageheap.h"
#include "pagemap.h"
#include "purge.h"
#include "spans.h"
#include "transfer.h"
#include "tune.h"
#include "walker.h"

#include <sys/mman.h>

enum {
	MANY = 3 * HZ4_META_CHUNK / 64, /* structures that would show */
	BIG = HZ4_CLASS_MAX,
	PAGES_MOST = 4096,
};

static uintptr_t page[PAGES_MOST];

/* A preloaded library's clock may spoil errno. */
static bool clock_spoils;

/*
 * Once `stopped` is set the clocks stand there, and so many ms ahead, however
 * busy the machine is.  [atomic] relaxed: a test's own
 */
static struct timespec stopped;
static _Atomic unsigned ahead;

int
hz4_clock(clockid_t clock, struct timespec *t)
{
	int result = 0;

	if (stopped.tv_sec != 0)
		*t = stopped;
	else
		result = (int)syscall(UNIT_CLOCK_GETTIME, clock, t);
	t->tv_sec += hz4_peek(&ahead) / 1000;
	t->tv_nsec += (long)(hz4_peek(&ahead) % 1000) * 1000000;
	if (t->tv_nsec >= 1000000000) {
		t->tv_sec++;
		t->tv_nsec -= 1000000000;
	}
	if (clock_spoils)
		errno = EBADF;
	return result;
}

static size_t
live_objects(void)
{
	struct hz4_info info;

	hz4_info_get(&info);
	return info.live_objects;
}

/* From now on there is no memory but what the heap has. */
static void
no_more(void)
{
	hz4_os_fail_from(1);
}

/* No free page is left either; returns how many were taken. */
static unsigned
fill_up(void)
{
	unsigned n = 0;

	no_more();
	while ((page[n] = hz4_pageheap_alloc(1, HZ4_PAGE, false)) != 0)
		unit_need(++n < PAGES_MOST, "%u pages", n);
	return n;
}

START_TEST(large_objects_leave_nothing)
{
	size_t mapped = 0;
	unsigned i;
	void *p;

	hz4_thread_start();
	for (i = 0; i < MANY; i++) {
		p = hz4_large_alloc(BIG + 1, HZ4_ALIGN, false);
		hz4_large_free(p);
		if (i == 0)
			mapped = hz4_meta_mapped();
	}
	ck_assert_uint_eq(hz4_meta_mapped(), mapped);
	if (!HZ4_DEBUG_BOX)
		return;
	no_more();
	for (i = 0; i < MANY; i++)
		ck_assert_ptr_null(hz4_large_alloc(HZ4_HUGE_MIN, HZ4_ALIGN,
						   false));
	hz4_os_fail_from(0);
	p = hz4_large_alloc(BIG + 1, HZ4_ALIGN, false);
	ck_assert_uint_eq(hz4_meta_mapped(), mapped);
	hz4_large_free(p);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

enum { PEAK = 32 * 1024 * 1024, PEAK_OBJECTS = 32768 };

/* So many bytes or objects of a class, freed in order or in any. */
static void
rise_and_fall(unsigned cls, uint64_t *seed)
{
	static void *object[PEAK_OBJECTS];
	size_t size = hz4_classes[cls].size, i, k;
	size_t n = hz4_min(PEAK / size, PEAK_OBJECTS);

	for (i = 0; i < n; i++) {
		object[i] = hz4_heap_malloc(cls == HZ4_CLS_ZERO ? 0 : size);
		unit_need(object[i] != NULL, "%zu of %zu bytes", i, size);
	}
	for (i = n; i > 0; i--) {
		k = *seed == 0 ? i - 1 : unit_below(seed, i);
		hz4_heap_free(object[k]);
		object[k] = object[i - 1];
	}
}

static void *
rise_in_each_class(void *arg)
{
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		rise_and_fall(cls, arg);
	return NULL;
}

static void
add_resident(uintptr_t start, uintptr_t end, void *sum)
{
	unsigned char in;

	for (start &= ~(hz4_os_page - 1); start < end; start += hz4_os_page)
		if (mincore((void *)start, 1, &in) == 0 && (in & 1))
			*(size_t *)sum += hz4_os_page;
}

/* hz4's own structures go after a peak in each class, and come back. */
START_TEST(peaks_leave_little_metadata)
{
	size_t bar = 1024 * 1024 + PEAK / 500, resident;
	size_t l1 = HZ4_L1_OBJECTS * sizeof(void *) * HZ4_CLS_END;
	uint64_t seed = (uint64_t)_i;
	struct hz4_info info;
	unsigned i;

	hz4_thread_start();
	if (HZ4_MID_DUAL_TIER_ALLOC_BOX)
		bar += hz4_os_cpus() * l1;
	for (i = 0; i < 2; i++) {
		unit_thread(rise_in_each_class, &seed);
		hz4_heap_trim();
		resident = 0;
		hz4_meta_each(add_resident, &resident);
		hz4_info_get(&info);
		unit_need(resident <= bar && info.metadata <= bar,
			  "resident %zu, told %zu, bar %zu", resident,
			  info.metadata, bar);
	}
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

enum { WAVE = 64, BURST = 1024, BURST_BYTES = 128 * 1024 };

static pthread_barrier_t wave;

/* Bytes of hz4's own structures. */
struct metadata {
	size_t resident, told;
};

static void
look(struct metadata *m)
{
	struct hz4_info info;

	m->resident = 0;
	hz4_meta_each(add_resident, &m->resident);
	hz4_info_get(&info);
	m->told = info.metadata;
}

static void
burst(unsigned cls)
{
	void *object[BURST];
	size_t size = hz4_classes[cls].size, i;
	size_t n = hz4_min(BURST, BURST_BYTES / size);

	for (i = 0; i < n; i++)
		object[i] = hz4_heap_malloc(size);
	while (i > 0)
		hz4_heap_free(object[--i]);
}

/* So many events first that its cache may be large. */
static void *
rise_together(void *arg)
{
	unsigned cls, i;

	pthread_barrier_wait(&wave);
	for (i = 0; i < 50; i++)
		burst(1);
	for (cls = 1; cls < HZ4_CLS_ZERO; cls++)
		burst(cls);
	pthread_barrier_wait(&wave);
	if (arg != NULL)
		look(arg);
	return NULL;
}

/*
 * The caches of many threads that have ended keep what describes them and
 * their arrays, for the next threads: more of these need no more.
 */
START_TEST(ended_threads_leave_little_metadata)
{
	size_t bar = 384 * 1024 + WAVE * (sizeof(struct hz4_cache) + 65536);
	struct metadata used, left;
	pthread_t id[WAVE];
	unsigned i, k;

	hz4_thread_start();
	if (HZ4_MID_DUAL_TIER_ALLOC_BOX)
		bar += hz4_os_cpus() * HZ4_L1_OBJECTS * sizeof(void *) *
		       HZ4_CLS_END;
	pthread_barrier_init(&wave, NULL, WAVE);
	for (i = 0; i < 3; i++) {
		for (k = 0; k < WAVE; k++)
			pthread_create(&id[k], NULL, rise_together,
				       k == 0 ? &used : NULL);
		for (k = 0; k < WAVE; k++)
			pthread_join(id[k], NULL);
		hz4_heap_trim();
		look(&left);
		unit_need(used.resident <= used.told + bar / 4,
			  "resident %zu, told %zu", used.resident, used.told);
		unit_need(left.resident <= bar && left.told <= bar,
			  "resident %zu, told %zu, bar %zu", left.resident,
			  left.told, bar);
	}
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* The pages of a mapping that the kernel keeps serve others. */
START_TEST(a_refused_unmap_loses_nothing)
{
	size_t before;
	void *p;

	if (!HZ4_DEBUG_BOX)
		return;
	hz4_thread_start();
	p = hz4_large_alloc(HZ4_HUGE_MIN, HZ4_ALIGN, false);
	hz4_large_free(hz4_large_alloc(BIG + 1, HZ4_ALIGN, false));
	before = hz4_pageheap_mapped();
	no_more();
	hz4_large_free(p);
	hz4_os_fail_from(0);
	ck_assert_uint_eq(hz4_pageheap_mapped(), before + HZ4_HUGE_MIN);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* From HZ4_HUGE_MIN on an object is a mapping, however it came to that. */
START_TEST(large_runs_stay_below_mappings)
{
	const size_t pages = 2 * HZ4_HUGE_MIN / HZ4_PAGE;
	uintptr_t a;
	char *p;

	hz4_thread_start();
	a = hz4_pageheap_alloc(pages, HZ4_PAGE, false);
	hz4_pageheap_free(a, pages, 0);
	p = hz4_large_alloc(HZ4_HUGE_MIN / 2, HZ4_ALIGN, false);
	ck_assert_uint_eq((uintptr_t)p, a);
	ck_assert_ptr_null(hz4_large_resize(p, HZ4_HUGE_MIN));
	ck_assert_ptr_eq(hz4_large_resize(p, HZ4_HUGE_MIN - HZ4_PAGE), p);
	ck_assert_uint_eq(hz4_check(), 0);
	hz4_large_free(p);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

static const size_t sizes[] = { 0, 16, 100, 3000, 40000, 200000, 700000 };

START_TEST(realloc_leaves_nothing)
{
	size_t n = sizeof sizes / sizeof *sizes, before, i, k;
	void *p;

	hz4_heap_free(hz4_heap_malloc(1));
	before = live_objects();
	for (i = 0; i < n * n; i++) {
		p = hz4_heap_malloc(sizes[i % n]);
		for (k = 0; k < 4; k++)
			p = hz4_heap_realloc(p, 1 + sizes[(i / n + k) % n]);
		ck_assert_uint_eq(live_objects(), before + 1);
		ck_assert_ptr_null(hz4_heap_realloc(p, 0));
		ck_assert_uint_eq(live_objects(), before);
	}
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* No size that is refused is called a good one. */
START_TEST(good_sizes_are_no_refused_ones)
{
	ck_assert_uint_eq(hz4_heap_good_size(SIZE_MAX), 0);
	ck_assert_uint_eq(hz4_heap_good_size(PTRDIFF_MAX), 0);
	ck_assert_uint_eq(hz4_heap_good_size(100), 112);
	ck_assert_uint_eq(hz4_heap_good_size(BIG + 1), BIG + HZ4_PAGE);
}
END_TEST

/* A span would take three pages, and there is one. */
START_TEST(the_last_resort_is_whole_pages)
{
	const size_t size = 20480;
	unsigned n;
	void *p;

	if (!HZ4_DEBUG_BOX)
		return;
	hz4_heap_free(hz4_heap_malloc(16));
	ck_assert_uint_gt(hz4_classes[hz4_sizeclass(size)].pages, 1);
	n = fill_up();
	ck_assert_uint_gt(n, 8);
	/* One page there was in a cache. */
	while (hz4_heap_malloc(size) != NULL)
		;
	hz4_pageheap_free(page[n / 2], 1, 0);
	p = hz4_heap_malloc(size);
	ck_assert_ptr_eq(p, (void *)page[n / 2]);
	ck_assert_uint_eq(hz4_pagemap_class(p), HZ4_CLS_RUN);
	errno = 0;
	ck_assert_ptr_null(hz4_heap_malloc(size));
	ck_assert_int_eq(errno, ENOMEM);
	hz4_heap_free(p);
	hz4_os_fail_from(0);
}
END_TEST

/* What idle spans and caches had is dirty when calloc gets it at last. */
START_TEST(calloc_clears_after_a_refusal)
{
	enum { N = 3, BYTES = N * BIG - HZ4_PAGE };
	void *p[N], *q;
	unsigned i;

	if (!HZ4_DEBUG_BOX)
		return;
	for (i = 0; i < N; i++) {
		p[i] = hz4_heap_malloc(BIG);
		memset(p[i], 0xa5, BIG);
	}
	fill_up();
	for (i = 0; i < N; i++)
		hz4_heap_free(p[i]);
	q = hz4_heap_calloc(1, BYTES);
	ck_assert_ptr_nonnull(q);
	ck_assert(unit_all(q, BYTES, 0));
	hz4_heap_free(q);
	hz4_os_fail_from(0);
}
END_TEST

/* It stays where it is, with what is in it. */
START_TEST(shrinking_needs_no_memory)
{
	char *p;

	if (!HZ4_DEBUG_BOX)
		return;
	p = hz4_heap_malloc(100000);
	memset(p, 0x5a, 1000);
	fill_up();
	ck_assert_ptr_eq(hz4_heap_realloc(p, 1000), p);
	ck_assert(unit_all(p, 1000, 0x5a));
	hz4_os_fail_from(0);
	hz4_heap_free(p);
}
END_TEST

static size_t
cached(void)
{
	struct hz4_info info;

	hz4_info_get(&info);
	return info.cached_objects;
}

/* Nothing is given back for what there can never be. */
START_TEST(what_cannot_be_is_refused_at_once)
{
	void *p[40];
	size_t had;
	unsigned i;

	for (i = 0; i < 40; i++)
		p[i] = hz4_heap_malloc(5000);
	for (i = 1; i < 40; i++)
		hz4_heap_free(p[i]);
	had = cached();
	ck_assert_uint_gt(had, 0);
	errno = 0;
	ck_assert_ptr_null(hz4_heap_malloc((size_t)PTRDIFF_MAX + 1));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_ptr_null(hz4_heap_malloc(SIZE_MAX));
	ck_assert_ptr_null(hz4_heap_calloc(SIZE_MAX / 2, 3));
	ck_assert_ptr_null(hz4_heap_calloc(1, (size_t)PTRDIFF_MAX + 1));
	ck_assert_ptr_null(hz4_heap_realloc(p[0], (size_t)PTRDIFF_MAX + 1));
	ck_assert_ptr_null(hz4_heap_aligned(64, (size_t)PTRDIFF_MAX + 1));
	ck_assert_ptr_null(hz4_heap_aligned((size_t)PTRDIFF_MAX + 1, 64));
	p[1] = hz4_heap_malloc(700000);
	ck_assert_ptr_null(hz4_heap_realloc(p[1], SIZE_MAX));
	ck_assert_uint_eq(cached(), had);
	hz4_heap_free(p[0]);
	hz4_heap_free(p[1]);
}
END_TEST

/* Whatever the clock, or who stands in its place, does. */
START_TEST(free_keeps_errno_whatever_the_clock_does)
{
	static void *p[2000];
	unsigned i;

	for (i = 0; i < 2000; i++)
		p[i] = hz4_heap_malloc(5000);
	clock_spoils = true;
	errno = EXDEV;
	for (i = 0; i < 2000; i++)
		hz4_heap_free(p[i]);
	hz4_heap_free(NULL);
	ck_assert_int_eq(errno, EXDEV);
	clock_spoils = false;
}
END_TEST

static void
realloc_it(void *arg)
{
	hz4_heap_realloc(arg, 3000);
}

/* A freed object that still lies in the cache, or in its span. */
START_TEST(realloc_of_what_was_freed_is_told)
{
	enum { N = 300 };
	void *p[N];
	unsigned i;

	p[0] = hz4_heap_malloc(100);
	hz4_heap_free(p[0]);
	unit_fatal_start(realloc_it, p[0],
			 "hz4: realloc(): invalid pointer: ptr ");
	for (i = 0; i < N; i++)
		p[i] = hz4_heap_malloc(100);
	/* All but the first, which the span stays for. */
	for (i = 1; i < N; i++)
		hz4_heap_free(p[i]);
	hz4_heap_trim();
	/* No careful calls any more, and the last is in no cache. */
	for (i = 0; i < 4 * HZ4_CAREFUL_CALLS; i++)
		hz4_heap_free(hz4_heap_malloc(100));
	unit_fatal_start(realloc_it, p[N - 1],
			 "hz4: realloc(): invalid pointer: ptr ");
	hz4_heap_free(p[0]);
}
END_TEST

/* malloc(0) has no row of its own, and is no large object. */
START_TEST(objects_of_no_bytes_are_in_the_first_row)
{
	static struct hz4_snapshot s;
	void *p = hz4_heap_malloc(0);

	hz4_info_snapshot(&s);
	ck_assert_uint_eq(s.row[0][HZ4_CLASS_live_objects], 1);
	ck_assert_uint_eq(s.row[HZ4_INFO_ROWS - 1][HZ4_CLASS_live_objects], 0);
	hz4_heap_free(p);
}
END_TEST

static pthread_barrier_t filled, forked;

static void *
fill_a_cache(void *arg)
{
	unsigned i;
	void *p[40];

	for (i = 0; i < 40; i++)
		p[i] = hz4_heap_malloc(5000);
	while (i > 0)
		hz4_heap_free(p[--i]);
	pthread_barrier_wait(&filled);
	pthread_barrier_wait(&forked);
	return arg;
}

static void
trim_in_child(void *arg)
{
	(void)arg;
	unit_child_need(cached() > 0);
	hz4_heap_trim();
	unit_child_need(cached() == 0);
}

/* What the gone threads of a fork's parent had in their caches. */
START_TEST(a_trim_empties_caches_of_the_gone)
{
	pthread_t id;

	hz4_heap_free(hz4_heap_malloc(5000));
	pthread_barrier_init(&filled, NULL, 2);
	pthread_barrier_init(&forked, NULL, 2);
	ck_assert_int_eq(pthread_create(&id, NULL, fill_a_cache, NULL), 0);
	pthread_barrier_wait(&filled);
	unit_survives(trim_in_child, NULL);
	pthread_barrier_wait(&forked);
	pthread_join(id, NULL);
}
END_TEST

/* --- what waits ------------------------------------------------------------ */

enum { HIT = 100, DELAY = 500, PURGED_LATER = 3 * HZ4_PURGE_ALLOWANCE };

static void
wait_ms(unsigned ms)
{
	hz4_poke(&ahead, hz4_peek(&ahead) + ms);
}

/* Calls that all hit: the class is past its careful ones. */
static void
hit(unsigned mallocs)
{
	for (; mallocs > 0; mallocs--)
		hz4_heap_free(hz4_heap_malloc(HIT));
}

/* As many as a thread that watches needs for all pieces of a purge. */
static void
hit_pieces(void)
{
	hit(HZ4_WATCH_CALLS * (PURGED_LATER / HZ4_PURGE_STEP + 1));
}

/* The class of hit() is hot, and nothing else has happened in a while. */
static struct hz4_cache *
begin_to_hit(void)
{
	struct timespec t;

	if (stopped.tv_sec == 0) {
		hz4_clock(CLOCK_MONOTONIC, &t);
		t.tv_sec++;
		stopped = t;
	}
	ck_assert(hz4_option_assign("purge_delay=500", 15));
	hit(4 * HZ4_CAREFUL_CALLS);
	return hz4_thread_cache();
}

/* Free pages that wait; who leaves them has a slow path and may watch. */
static void
leave_pages(void)
{
	void *p = hz4_heap_malloc(PURGED_LATER);

	memset(p, 0xa5, PURGED_LATER);
	hz4_heap_free(p);
	unit_need(hz4_pageheap_dirty() >= PURGED_LATER, "none wait");
}

static bool
is_watching(struct hz4_cache *c)
{
	unsigned cls = hz4_sizeclass(HIT);
	void **low = hz4_stacks_oldest(c, cls);

	if (c->watching)
		low = hz4_stacks_careful(c, cls) ? HZ4_STOP : HZ4_STOP_OPEN;
	unit_need(c->stack[cls].low == low, "low");
	return c->watching;
}

static uint64_t
now(void)
{
	return hz4_os_now();
}

/* No slow path but that of who left them is needed. */
START_TEST(pages_go_though_all_calls_hit)
{
	struct hz4_cache *c;
	uint32_t visits;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	leave_pages();
	ck_assert(is_watching(c));
	visits = c->visits;
	/* It is early, and stays watching. */
	hit(3 * HZ4_WATCH_CALLS);
	ck_assert(is_watching(c));
	ck_assert_uint_ge(hz4_pageheap_dirty(), PURGED_LATER);
	ck_assert_uint_eq(c->visits, visits);
	wait_ms(DELAY + 10);
	hit_pieces();
	ck_assert_uint_le(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE);
	/* What the cache kept of mostly free spans went first. */
	ck_assert_uint_le(hz4_cache_count(c, hz4_sizeclass(HIT)), 1);
	/* Nothing waits any more: nobody watches. */
	hit(2 * HZ4_WATCH_CALLS + HZ4_CAREFUL_CALLS);
	ck_assert(!is_watching(c));
	ck_assert(hz4_purge_watch(now()));
}
END_TEST

/* A watch's mallocs take what lies in the stack. */
START_TEST(who_watches_uses_its_cache)
{
	struct hz4_cache *c;
	size_t had;
	void *p;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	leave_pages();
	ck_assert(is_watching(c));
	had = hz4_cache_count(c, hz4_sizeclass(HIT));
	ck_assert_uint_gt(had, 0);
	p = hz4_heap_malloc(HIT);
	ck_assert_uint_eq(hz4_cache_count(c, hz4_sizeclass(HIT)), had - 1);
	hz4_heap_free(p);
	ck_assert_uint_eq(hz4_cache_count(c, hz4_sizeclass(HIT)), had);
	ck_assert(is_watching(c));
}
END_TEST

START_TEST(the_watch_ends_when_nothing_waits)
{
	struct hz4_cache *c;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	leave_pages();
	ck_assert(is_watching(c));
	hz4_purge_all();
	hit(HZ4_WATCH_CALLS);
	ck_assert(!is_watching(c));
	ck_assert(hz4_purge_watch(now()));
}
END_TEST

static pthread_barrier_t left, seen;

static void *
leave_and_stay(void *arg)
{
	begin_to_hit();
	leave_pages();
	unit_need(is_watching(hz4_tls_cache), "nobody watches");
	pthread_barrier_wait(&left);
	pthread_barrier_wait(&seen);
	return arg;
}

/* What others free costs a thread that only hits nothing, however old. */
START_TEST(who_only_hits_never_watches_for_others)
{
	struct hz4_cache *c;
	unsigned i;
	pthread_t id;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	pthread_barrier_init(&left, NULL, 2);
	pthread_barrier_init(&seen, NULL, 2);
	ck_assert_int_eq(pthread_create(&id, NULL, leave_and_stay, NULL), 0);
	pthread_barrier_wait(&left);
	for (i = 0; i < 8; i++) {
		ck_assert(!is_watching(c));
		hit(2 * HZ4_WATCH_CALLS);
		wait_ms(DELAY);
	}
	ck_assert(!is_watching(c));
	ck_assert_uint_ge(hz4_pageheap_dirty(), PURGED_LATER);
	pthread_barrier_wait(&seen);
	pthread_join(id, NULL);
}
END_TEST

/* Objects of no class: each call is a slow path, and looks at what waits. */
static void
come_by(unsigned times)
{
	for (; times > 0; times--)
		hz4_heap_free(hz4_heap_malloc(BIG + 1));
}

/* So do OS pages of spans, once the frees that made them free are over. */
START_TEST(holes_go_though_all_calls_hit)
{
	enum { SIZE = 256, N = 6 * HZ4_HOLES_LEAST / SIZE, EACH = 200 };
	static void *p[N];
	struct hz4_cache *c;
	unsigned i;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	ck_assert(hz4_option_assign("huge_pages=0", 12));
	c = begin_to_hit();
	for (i = 0; i < N; i++)
		p[i] = memset(hz4_heap_malloc(SIZE), 1, SIZE);
	/* A round that came with the growth is over, and found nothing. */
	while (hz4_holes_midway()) {
		wait_ms(HZ4_HOLES_ROUND);
		hz4_holes_step(hz4_os_now());
	}
	hit(HZ4_WATCH_CALLS);
	ck_assert(!is_watching(c));
	for (i = 0; i < N; i++)
		if (i % EACH != 0)
			hz4_heap_free(p[i]);
	ck_assert(is_watching(c));
	for (i = 0; i < 400 && is_watching(c); i++) {
		wait_ms(HZ4_HOLES_ROUND / 10);
		hit(HZ4_WATCH_CALLS);
	}
	ck_assert_uint_ge(hz4_holes(), N * (size_t)SIZE / 2);
	ck_assert(!is_watching(c));
	for (i = 0; i < N; i += EACH)
		hz4_heap_free(p[i]);
}
END_TEST

static void
hit_large(size_t size, unsigned mallocs)
{
	for (; mallocs > 0; mallocs--)
		hz4_heap_free(hz4_heap_malloc(size));
}

/* A few mallocs of large objects look as soon as many small ones. */
START_TEST(large_calls_look_sooner)
{
	enum { SIZE = 8192, FEW = HZ4_WATCH_CALLS * HZ4_WATCH_BYTES / SIZE };
	struct hz4_cache *c;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	hit_large(SIZE, 4 * HZ4_CAREFUL_CALLS);
	leave_pages();
	ck_assert(is_watching(c));
	wait_ms(DELAY);
	hit_large(SIZE, FEW);
	ck_assert_uint_le(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE);
}
END_TEST

/* What is taken again at once leaves no holes. */
START_TEST(who_only_turns_never_watches)
{
	enum { SIZE = 512, N = 6000, TURNS = 6 * HZ4_HOLES_LEAST / (N * SIZE) };
	static void *p[N];
	struct hz4_cache *c;
	unsigned i, k;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	for (k = 0; k < TURNS; k++) {
		for (i = 0; i < N; i++)
			p[i] = hz4_heap_malloc(SIZE);
		for (i = 0; i < N; i++)
			hz4_heap_free(p[i]);
		unit_need(!is_watching(c), "watches in turn %u", k);
	}
}
END_TEST

/* Its slow paths may end at any time, and the pages would stay. */
START_TEST(who_comes_by_anyway_goes_on_watching)
{
	struct hz4_cache *c;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	leave_pages();
	ck_assert(is_watching(c));
	come_by(HZ4_CLOCK_VISITS);
	hit(HZ4_WATCH_CALLS);
	ck_assert(is_watching(c));
	ck_assert_uint_ge(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE);
	wait_ms(DELAY);
	hit_pieces();
	ck_assert_uint_le(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE);
}
END_TEST

static void *
watch_and_leave(void *arg)
{
	begin_to_hit();
	leave_pages();
	/* It goes on, so that nobody else does for long from now on. */
	wait_ms(HZ4_WATCH_TIME / 2);
	hit(HZ4_WATCH_CALLS);
	unit_need(is_watching(hz4_tls_cache), "nobody watches");
	pthread_barrier_wait(&left);
	if (arg != NULL)
		pthread_barrier_wait(&seen);
	return arg;
}

/* It sleeps: others do not wait for it for long; it has ended: not at all. */
START_TEST(others_watch_when_the_watcher_is_away)
{
	struct hz4_cache *c;
	pthread_t id;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	pthread_barrier_init(&left, NULL, 2);
	pthread_barrier_init(&seen, NULL, 2);
	ck_assert_int_eq(pthread_create(&id, NULL, watch_and_leave,
					_i == 0 ? NULL : &seen),
			 0);
	pthread_barrier_wait(&left);
	if (_i == 0) {
		pthread_join(id, NULL);
	} else {
		wait_ms(HZ4_WATCH_TIME - 1);
		come_by(1);
		ck_assert(!is_watching(c));
		wait_ms(1);
	}
	come_by(1);
	ck_assert(is_watching(c));
	wait_ms(DELAY);
	hit_pieces();
	ck_assert_uint_le(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE);
	if (_i != 0) {
		pthread_barrier_wait(&seen);
		pthread_join(id, NULL);
	}
}
END_TEST

/* Nobody watches for what is to stay for long. */
START_TEST(pages_that_may_stay_are_not_watched)
{
	struct hz4_cache *c;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	ck_assert(hz4_option_assign("purge_delay=60000", 17));
	leave_pages();
	ck_assert(!is_watching(c));
	ck_assert(hz4_option_assign("purge_delay=500", 15));
	come_by(1);
	ck_assert(is_watching(c));
}
END_TEST

/* A purge is no use while caches keep objects of mostly free spans. */
START_TEST(a_purge_empties_the_cache)
{
	struct hz4_cache *c;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	ck_assert_uint_gt(hz4_cache_count(c, hz4_sizeclass(HIT)), 0);
	leave_pages();
	wait_ms(DELAY + 10);
	come_by(1);
	ck_assert_uint_eq(hz4_cache_count(c, hz4_sizeclass(HIT)), 0);
	/* And what the call itself has freed after it. */
	ck_assert_uint_le(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE + 2 * BIG);
}
END_TEST

/* By its own clock a thread sees to its idle classes, once in a while. */
START_TEST(idle_classes_decay)
{
	struct hz4_cache *c;
	struct hz4_tier *t;
	unsigned i;
	uint32_t had;
	void *p[64];

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	c = begin_to_hit();
	for (i = 0; i < 64; i++)
		p[i] = hz4_heap_malloc(HIT);
	while (i > 0)
		hz4_heap_free(p[--i]);
	t = &c->tier[hz4_sizeclass(HIT)];
	had = t->limit;
	ck_assert_uint_ge(had, 4);
	come_by(HZ4_CLOCK_VISITS);
	ck_assert_uint_eq(t->limit, had);
	/* It had events until now. */
	wait_ms(HZ4_CACHE_DECAY + 10);
	come_by(HZ4_CLOCK_VISITS);
	ck_assert_uint_eq(t->limit, had);
	wait_ms(HZ4_CACHE_DECAY - 100);
	come_by(HZ4_CLOCK_VISITS);
	ck_assert_uint_eq(t->limit, had);
	wait_ms(110);
	come_by(HZ4_CLOCK_VISITS);
	ck_assert_uint_eq(t->limit, had / 2);
	come_by(HZ4_CLOCK_VISITS);
	ck_assert_uint_eq(t->limit, had / 2);
	ck_assert_uint_le(hz4_cache_count(c, hz4_sizeclass(HIT)), had / 2);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Empty spans of more than the allowance, since `now`. */
static void
leave_idle(uint64_t now)
{
	enum { N = 2 * HZ4_PURGE_ALLOWANCE / HZ4_CLASS_MAX };
	const unsigned cls = HZ4_CLS_ZERO - 1;
	void *p[N];
	unsigned n = 0, path;

	while (n < N)
		n += hz4_transfer_take(cls, p + n, N - n, &path);
	while (n > 0) {
		n -= N / 2;
		hz4_transfer_give(cls, p + n, N / 2, now, &path);
	}
	unit_need(hz4_spans_idle() > HZ4_PURGE_ALLOWANCE, "none idle");
}

/* How long others lay idle says nothing of these. */
START_TEST(idle_spans_age_anew)
{
	hz4_thread_start();
	leave_idle(1000);
	ck_assert(!hz4_purge_due(1001));
	hz4_purge_all();
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	leave_idle(50000);
	ck_assert(!hz4_purge_due(20000));
	ck_assert(hz4_purge_due(70000));
	hz4_purge_exhausted();
	ck_assert_uint_eq(hz4_spans_idle(), 0);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, what_cannot_be_is_refused_at_once);
	tcase_add_test(t, free_keeps_errno_whatever_the_clock_does);
	tcase_add_test(t, realloc_of_what_was_freed_is_told);
	tcase_add_test(t, objects_of_no_bytes_are_in_the_first_row);
	tcase_add_test(t, a_trim_empties_caches_of_the_gone);
	tcase_add_test(t, idle_spans_age_anew);
	tcase_add_loop_test(t, peaks_leave_little_metadata, 0, 2);
	tcase_add_test(t, ended_threads_leave_little_metadata);
	tcase_add_test(t, large_objects_leave_nothing);
	tcase_add_test(t, a_refused_unmap_loses_nothing);
	tcase_add_test(t, large_runs_stay_below_mappings);
	tcase_add_test(t, realloc_leaves_nothing);
	tcase_add_test(t, good_sizes_are_no_refused_ones);
	tcase_add_test(t, the_last_resort_is_whole_pages);
	tcase_add_test(t, calloc_clears_after_a_refusal);
	tcase_add_test(t, shrinking_needs_no_memory);
	tcase_add_test(t, a_purge_empties_the_cache);
	tcase_add_test(t, idle_classes_decay);
	tcase_add_test(t, pages_go_though_all_calls_hit);
	tcase_add_test(t, who_watches_uses_its_cache);
	tcase_add_test(t, the_watch_ends_when_nothing_waits);
	tcase_add_test(t, who_only_hits_never_watches_for_others);
	tcase_add_test(t, holes_go_though_all_calls_hit);
	tcase_add_test(t, large_calls_look_sooner);
	tcase_add_test(t, who_only_turns_never_watches);
	tcase_add_test(t, who_comes_by_anyway_goes_on_watching);
	tcase_add_loop_test(t, others_watch_when_the_watcher_is_away, 0, 2);
	tcase_add_test(t, pages_that_may_stay_are_not_watched);
}

int
main(void)
{
	return unit_main("left", add);
}
