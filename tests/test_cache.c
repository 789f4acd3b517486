/*
 * cache.h, stacks.h and share.h: a thread's stacks, and what threads may
 * cache.
 *
 *     base <= top <= base + limit <= base + room
 *     left + what the limits may hold == granted
 *
 * The tests drive caches of their own as heap.c drives a thread's.  The
 * first word of an object is a mark: 0 while it is free.
 */
#include "unit.h"

#include "growth.h"
#include "heap.h"
#include "l1.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "spans.h"
#include "transfer.h"
#include "walker.h"

#include <limits.h>

enum { MOST = 20000, STEPS = 60000 };

static const unsigned some[] = { 1, 5, 16, 31, 40, 41, 50, 55, 60, 61, 68 };
enum { SOME = sizeof some / sizeof *some };

static struct hz4_cache cache, other;
static void *held[MOST];

static void
start(bool first)
{
	unit_os_init();
	hz4_sizeclass_init();
	hz4_spans_init();
	hz4_cache_init(&cache, first);
	hz4_cache_init(&other, false);
}

static size_t
objects_cached(struct hz4_cache *c, unsigned cls)
{
	return (size_t)(hz4_peek(&c->stack[cls].top) -
			hz4_stacks_oldest(c, cls));
}

static size_t
base_limit(unsigned cls)
{
	size_t n;

	if (cls >= HZ4_CLS_FIRST_LARGE)
		return 1;
	if (cls >= HZ4_CLS_FIRST_MID)
		return HZ4_MID_DUAL_TIER_ALLOC_BOX ?
			       HZ4_MID_DUAL_TIER_L0_LIMIT :
		       HZ4_MID_ALLOC_RUN_CACHE_BOX ? HZ4_MID_ALLOC_RUN_LIMIT :
						     0;
	n = hz4_min(HZ4_CACHE_BASE_BYTES / hz4_classes[cls].size,
		    HZ4_CACHE_BASE_OBJECTS);
	return HZ4_MID_DUAL_TIER_ALLOC_BOX ? hz4_max(n, HZ4_L0_LEAST) : n;
}

static size_t
most_of(unsigned cls)
{
	size_t base = base_limit(cls);

	if (HZ4_MID_DUAL_TIER_ALLOC_BOX || base == 0)
		return base;
	return hz4_max(HZ4_CACHE_MOST_BYTES / hz4_classes[cls].size,
		       HZ4_CACHE_MOST_OBJECTS);
}

static void
compare(struct hz4_cache *c)
{
	size_t given = 0, count;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		struct hz4_stack *s = &c->stack[cls];
		struct hz4_tier *t = &c->tier[cls];
		void **top = hz4_peek(&s->top);
		void **oldest = hz4_stacks_oldest(c, cls);
		bool careful = hz4_stacks_careful(c, cls);

		unit_need(oldest <= top && top <= hz4_stacks_limit(c, cls),
			  "class %u", cls);
		unit_need(s->high == (careful ? top :
						hz4_stacks_limit(c, cls)),
			  "class %u: high", cls);
		unit_need(oldest == NULL ||
				  s->low == (careful ? HZ4_STOP :
					     c->watching ? HZ4_STOP_OPEN :
							   oldest),
			  "class %u: low", cls);
		unit_need(t->gone + t->limit <= t->room &&
				  t->limit <= most_of(cls),
			  "class %u: limit %u, gone %u, room %u", cls,
			  t->limit, t->gone, t->room);
		given += t->limit * (size_t)hz4_classes[cls].size;
		count = objects_cached(c, cls);
		unit_need(hz4_cache_count(c, cls) == count, "class %u", cls);
	}
	/* Less than nothing left would show as more than was granted. */
	unit_need(c->left <= c->granted && given + c->left == c->granted,
		  "%zu given, %zu left of %zu", given, c->left, c->granted);
	unit_need(c->taken <= c->granted && c->granted <= hz4_share_most(),
		  "%zu granted, %zu taken", c->granted, c->taken);
	unit_need(hz4_peek(&c->busy) == HZ4_CLS_NONE, "busy");
}
static void *
take(struct hz4_cache *c, unsigned cls)
{
	void *p;

	if (!hz4_cache_pop(&c->stack[cls], &p) &&
	    !hz4_cache_pop_slow(c, cls, &p))
		p = hz4_cache_refill(c, cls);
	unit_need(p != NULL, "class %u", cls);
	unit_need(*(uintptr_t *)p == 0, "%p handed out twice", p);
	*(uintptr_t *)p = (uintptr_t)p;
	return p;
}

static void
give(struct hz4_cache *c, unsigned cls, void *p)
{
	unit_need(*(uintptr_t *)p == (uintptr_t)p, "%p was not ours", p);
	*(uintptr_t *)p = 0;
	if (!hz4_cache_push(&c->stack[cls], p))
		hz4_cache_overflow(c, cls, p);
}

/* Its objects go back to the spans, and no class may hold any. */
static void
forget(struct hz4_cache *c)
{
	unsigned cls;

	hz4_cache_flush(c);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		hz4_growth_set(c, cls, 0);
		hz4_stacks_set_ends(c, cls);
	}
}

/* So many at once, and all back in the same order. */
static void
burst(struct hz4_cache *c, unsigned cls, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		held[i] = take(c, cls);
	for (i = 0; i < n; i++)
		give(c, cls, held[i]);
}

/* Past the careful calls of a class. */
static void
warm(struct hz4_cache *c, unsigned cls)
{
	while (hz4_stacks_careful(c, cls))
		give(c, cls, take(c, cls));
}

static int64_t net_in_l1[HZ4_CLS_END];

static void
add_l1(const struct hz4_l1 *l, void *arg)
{
	unsigned cls;

	(void)arg;
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		net_in_l1[cls] += hz4_peek(&l->shelf[cls].net);
}

/* Neither in the two caches nor, with the dual tier, below them. */
static void
nothing_left(void)
{
	struct hz4_pageheap_figures pages;
	unsigned cls;

	hz4_l1_flush(cache.counts);
	memset(net_in_l1, 0, sizeof net_in_l1);
	hz4_l1_each(add_l1, NULL);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		unit_need(hz4_cache_count(&cache, cls) == 0, "class %u", cls);
		unit_need(hz4_peek(&cache.tier[cls].net) +
					  hz4_peek(&other.tier[cls].net) +
					  net_in_l1[cls] == 0,
			  "class %u", cls);
	}
	unit_need(hz4_share_taken() == cache.taken + other.taken,
		  "%zu taken, %zu and %zu known", hz4_share_taken(),
		  cache.taken, other.taken);
	hz4_spans_trim();
	hz4_pageheap_figures(&pages);
	ck_assert_uint_eq(pages.free, pages.mapped);
}

START_TEST(empty_cache_takes_the_slow_path)
{
	struct hz4_cache *empty = (struct hz4_cache *)&hz4_empty_cache;
	unsigned cls;
	int local;
	void *p = &local;

	for (cls = 0; cls < HZ4_CLS_VALUES; cls++) {
		ck_assert(!hz4_cache_pop(&empty->stack[cls], &p));
		ck_assert(!hz4_cache_push(&empty->stack[cls], &local));
	}
	ck_assert_ptr_eq(p, &local);
	ck_assert(unit_all(&hz4_empty_cache, sizeof hz4_empty_cache, 0));
}
END_TEST

START_TEST(last_in_first_out)
{
	void *p[4], *q;
	unsigned i;

	start(true);
	burst(&cache, 5, 100);
	for (i = 0; i < 4; i++)
		p[i] = take(&cache, 5);
	for (i = 0; i < 4; i++)
		give(&cache, 5, p[i]);
	for (i = 4; i-- > 0;) {
		ck_assert(hz4_cache_pop(&cache.stack[5], &q));
		ck_assert_ptr_eq(q, p[i]);
		*(uintptr_t *)q = (uintptr_t)q;
	}
	for (i = 0; i < 4; i++)
		give(&cache, 5, p[i]);
	compare(&cache);
}
END_TEST

START_TEST(a_run_from_the_lowest_address_on)
{
	unsigned i;

	start(true);
	for (i = 0; i < 200; i++) {
		held[i] = take(&cache, 3);
		ck_assert(i == 0 || (char *)held[i] > (char *)held[i - 1]);
	}
	compare(&cache);
}
END_TEST

/* Without a turn a class grows to its base limit, and to no more. */
START_TEST(allocating_alone_keeps_caches_small)
{
	unsigned c;
	size_t i, n;

	start(true);
	for (c = 0; c < SOME; c++) {
		n = hz4_min(MOST, ((size_t)4 << 20) /
					  hz4_classes[some[c]].size);
		for (i = 0; i < n; i++) {
			take(&cache, some[c]);
			unit_need(cache.tier[some[c]].limit <=
					  base_limit(some[c]),
				  "class %u: %u", some[c],
				  cache.tier[some[c]].limit);
		}
		compare(&cache);
		ck_assert_uint_eq(cache.tier[some[c]].limit,
				  base_limit(some[c]));
	}
}
END_TEST

START_TEST(freeing_alone_keeps_caches_small)
{
	unsigned c;
	size_t i, n;

	start(true);
	hz4_cache_init(&other, true);
	for (c = 0; c < SOME; c++) {
		n = hz4_min(MOST, ((size_t)4 << 20) /
					  hz4_classes[some[c]].size);
		for (i = 0; i < n; i++)
			held[i] = take(&cache, some[c]);
		for (i = 0; i < n; i++) {
			give(&other, some[c], held[i]);
			unit_need(other.tier[some[c]].limit <=
					  base_limit(some[c]),
				  "class %u: %u", some[c],
				  other.tier[some[c]].limit);
		}
		compare(&other);
	}
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

/* Where L1 lies below no class's stack grows beyond its base limit. */
START_TEST(turns_make_a_cache_grow)
{
	unsigned c, round;
	size_t n, base;

	start(true);
	for (c = 0; c < SOME; c++) {
		base = base_limit(some[c]);
		if (base == 0)
			continue;
		n = hz4_min(4 * base, HZ4_START_FIRST_THREAD / 4 /
					      hz4_classes[some[c]].size);
		for (round = 0; round < 100; round++)
			burst(&cache, some[c], n);
		compare(&cache);
		if (HZ4_MID_DUAL_TIER_ALLOC_BOX)
			ck_assert_uint_le(cache.tier[some[c]].limit, base);
		else if (n > base * 3 / 2)
			ck_assert_uint_gt(cache.tier[some[c]].limit, base);
		forget(&cache);
	}
	nothing_left();
}
END_TEST

START_TEST(a_class_has_a_most)
{
	unsigned round;

	start(true);
	for (round = 0; round < 200; round++)
		burst(&cache, 1, 4 * HZ4_CACHE_MAX_OBJECTS);
	compare(&cache);
	ck_assert_uint_eq(cache.tier[1].limit,
			  HZ4_MID_DUAL_TIER_ALLOC_BOX ?
				  base_limit(1) : HZ4_CACHE_MAX_OBJECTS);
	hz4_cache_flush(&cache);
	nothing_left();
}
END_TEST

/* What comes at once leaves room, and objects, for the next both ways. */
START_TEST(half_of_the_limit_moves)
{
	unsigned c, cls, half, before, i;

	start(true);
	for (c = 0; c < SOME; c++) {
		cls = some[c];
		for (i = 0; i < 20; i++)
			burst(&cache, cls, 2 * base_limit(cls) + 1);
		hz4_cache_flush(&cache);
		held[0] = take(&cache, cls);
		half = (cache.tier[cls].limit + 1u) / 2;
		if (HZ4_MID_DUAL_TIER_ALLOC_BOX && hz4_sizeclass_is_mid(cls))
			half = hz4_min(half, HZ4_MID_DUAL_TIER_L0_REFILL_BATCH);
		half = hz4_min(half, hz4_classes[cls].batch);
		ck_assert_uint_lt(hz4_cache_count(&cache, cls),
				  hz4_max(half, 1u));
		for (i = 1; cache.tier[cls].limit > 0; i++) {
			before = (unsigned)hz4_cache_count(&cache, cls);
			if (before == cache.tier[cls].limit)
				break;
			held[i] = take(&other, cls);
			give(&cache, cls, held[i]);
		}
		if (cache.tier[cls].limit > 0) {
			before = cache.tier[cls].limit;
			give(&cache, cls, take(&other, cls));
			/* It may have grown instead. */
			if (cache.tier[cls].limit == before)
				ck_assert_uint_eq(
					hz4_cache_count(&cache, cls),
					before - hz4_max(half, 1u) + 1);
		}
		give(&cache, cls, held[0]);
		compare(&cache);
	}
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

/*
 * Those that go back are the oldest.  The stack stays where it is, and of the
 * latest some stay, where malloc and free look for them.
 */
START_TEST(the_oldest_go_back)
{
	const unsigned cls = 5;
	struct hz4_stack *s = &cache.stack[cls];
	struct hz4_tier *t = &cache.tier[cls];
	size_t i, before, kept, k, over = 0, stayed = 0;
	uint16_t room;
	void **base;

	start(true);
	while (t->limit < (HZ4_MID_DUAL_TIER_ALLOC_BOX ? base_limit(cls) : 500))
		burst(&cache, cls, 800);
	hz4_cache_flush(&cache);
	for (i = 0; i < MOST; i++)
		held[i] = take(&cache, cls);
	while (hz4_cache_count(&cache, cls) > 0)
		take(&cache, cls);
	for (i = 0; i < MOST; i++) {
		base = hz4_peek(&s->base);
		room = t->room;
		before = hz4_cache_count(&cache, cls);
		give(&cache, cls, held[i]);
		unit_need(t->room != room || hz4_peek(&s->base) == base,
			  "the base moved");
		compare(&cache);
		kept = hz4_cache_count(&cache, cls);
		over += kept <= before;
		unit_need(kept > before || (kept > HZ4_STACK_BELOW &&
					    kept >= before / 2),
			  "%zu of %zu", kept, before);
		for (k = 0; k < kept; k++)
			unit_need(hz4_stacks_oldest(&cache, cls)[k] ==
					  held[i + 1 - kept + k],
				  "object %zu of %zu after %zu", k, kept, i);
		stayed += t->gone > 0 && kept <= before;
	}
	ck_assert_uint_gt(over, MOST / most_of(cls));
	/* The others move down where there is no room for more. */
	ck_assert_uint_lt(stayed, over);
}
END_TEST

/*
 * The oldest lies where the last one was, also in an empty stack: a call that
 * a signal has interrupted may have looked at the top already.
 */
START_TEST(a_refill_moves_no_end)
{
	const unsigned cls = 5;
	void **oldest;
	size_t i;

	start(true);
	for (i = 0; i < 20; i++)
		burst(&cache, cls, 800);
	do {
		held[0] = take(&cache, cls);
		hz4_cache_flush(&cache);
		give(&cache, cls, held[0]);
		hz4_cache_flush(&cache);
	} while (hz4_peek(&cache.tier[cls].gone) == 0);
	oldest = hz4_stacks_oldest(&cache, cls);
	take(&cache, cls);
	ck_assert_uint_gt(hz4_cache_count(&cache, cls), 0);
	ck_assert_ptr_eq(hz4_stacks_oldest(&cache, cls), oldest);
	ck_assert_uint_gt(hz4_peek(&cache.tier[cls].gone), 0);
	compare(&cache);
}
END_TEST

/* Who empties it, and has come half the way, leaves ends that fit. */
START_TEST(half_emptied_has_room)
{
	const unsigned cls = 5;
	struct hz4_tier *t = &cache.tier[cls];
	size_t i, n, most;

	start(true);
	burst(&cache, cls, 800);
	hz4_growth_set(&cache, cls, t->room);
	hz4_cache_flush(&cache);
	n = t->limit;
	for (i = 0; i < n; i++)
		held[i] = take(&cache, cls);
	while (hz4_cache_count(&cache, cls) > 0)
		take(&cache, cls);
	for (i = 0; i < n; i++)
		give(&cache, cls, held[i]);
	most = hz4_cache_count(&cache, cls) / 2;
	ck_assert_uint_ge(most, 4);
	ck_assert(!hz4_cache_empty(&cache, &most, 1));
	ck_assert_uint_eq(most, 0);
	ck_assert_uint_gt(t->gone, 0);
	hz4_stacks_set_ends(&cache, cls);
	compare(&cache);
}
END_TEST

/* A small one that runs over is looked at with care again, a large one not. */
START_TEST(small_stacks_that_run_over_are_careful)
{
	const unsigned cls = 5;
	struct hz4_tier *t = &cache.tier[cls];
	unsigned limit, n;

	start(true);
	for (limit = 1; limit <= 2 * HZ4_STACK_PLENTY; limit++) {
		warm(&cache, cls);
		burst(&cache, cls, HZ4_CACHE_BASE_OBJECTS);
		hz4_cache_flush(&cache);
		/* So it cannot grow. */
		t->limit = (uint16_t)limit;
		cache.granted = (size_t)limit * hz4_classes[cls].size;
		cache.left = 0;
		cache.events = 0;
		t->calls = HZ4_CAREFUL_CALLS;
		hz4_stacks_set_ends(&cache, cls);
		for (n = 0; n < limit; n++)
			give(&cache, cls, take(&other, cls));
		compare(&cache);
		ck_assert_uint_eq(hz4_cache_count(&cache, cls), limit);
		ck_assert(!hz4_stacks_careful(&cache, cls));
		give(&cache, cls, take(&other, cls));
		compare(&cache);
		ck_assert_uint_eq(t->limit, limit);
		ck_assert_int_eq(hz4_stacks_careful(&cache, cls),
				 limit < HZ4_STACK_PLENTY);
		ck_assert_uint_ge(hz4_cache_count(&cache, cls),
				  limit < HZ4_STACK_PLENTY ?
					  limit / 2 + 1 : HZ4_STACK_BELOW + 1);
		cache.granted += 1 << 16;
		cache.left += 1 << 16;
	}
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

/*
 * A wrapper around one of libc's calls, or a handler, that comes in wherever a
 * stack is closed, an L1 locked, and has objects of its own.
 */
static struct {
	bool in;
	unsigned comes, busy;
	size_t n;
	char *object[64];
} wrapper;

static const size_t wrapped[] = { 16, 100, 2000, 3000, 20000, 70000 };
enum { WRAPPED = sizeof wrapped / sizeof *wrapped };

static char *
fill(size_t size)
{
	char *p = hz4_heap_malloc(size);

	unit_need(p != NULL, "%zu", size);
	memcpy(p, &size, sizeof size);
	memcpy(p + size - sizeof p, &p, sizeof p);
	return p;
}

static void
empty(char *p)
{
	size_t size;

	memcpy(&size, p, sizeof size);
	unit_need(memcmp(p + size - sizeof p, &p, sizeof p) == 0,
		  "%p was handed out twice", (void *)p);
	memset(p + size - sizeof(uintptr_t), 0, sizeof(uintptr_t));
	hz4_heap_free(p);
}

static void
come_between(void)
{
	const size_t most = sizeof wrapper.object / sizeof *wrapper.object;
	struct hz4_cache *c = hz4_tls_cache;

	/* Where a list is locked no call of libc's is made. */
	if (wrapper.in || (hz4_tls_held & ~(1u << HZ4_RANK_CPU)) != 0)
		return;
	wrapper.in = true;
	wrapper.comes++;
	wrapper.busy += hz4_peek(&c->busy) != HZ4_CLS_NONE;
	if (wrapper.n == most || (wrapper.n > 0 && wrapper.comes % 8 < 4))
		empty(wrapper.object[--wrapper.n]);
	else
		wrapper.object[wrapper.n++] =
			fill(wrapped[wrapper.comes / 8 % WRAPPED]);
	wrapper.in = false;
}

START_TEST(calls_come_between)
{
	uint64_t seed = (uint64_t)_i + 1;
	unsigned round;
	size_t n = 0, k;

	if (!HZ4_DEBUG_BOX)
		return;
	hz4_heap_free(fill(100));
	hz4_poke(&hz4_chaos_hook, come_between);
	hz4_poke(&hz4_chaos_one_in, 1);
	for (round = 0; round < STEPS; round++) {
		if (n < 1 + round % 700 && unit_below(&seed, 2)) {
			held[n++] = fill(wrapped[unit_below(&seed, WRAPPED)]);
		} else if (n > 0) {
			k = unit_below(&seed, n);
			empty(held[k]);
			held[k] = held[--n];
		}
		if (round % (STEPS / 8) == 0)
			hz4_heap_trim();
		if (round % (STEPS / 16) == 0)
			hz4_cache_decay(hz4_tls_cache);
	}
	hz4_poke(&hz4_chaos_one_in, 0);
	ck_assert_uint_gt(wrapper.busy, 100);
	ck_assert_uint_eq(hz4_check(), 0);
	while (n > 0)
		empty(held[--n]);
	while (wrapper.n > 0)
		empty(wrapper.object[--wrapper.n]);
	ck_assert_uint_eq(hz4_check(), 0);
	hz4_heap_trim();
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Neither end of a closed stack serves; both do when it is open again. */
START_TEST(closed_stacks_do_not_serve)
{
	void *p, *q;

	start(true);
	warm(&cache, 5);
	burst(&cache, 5, 8);
	p = take(&cache, 5);
	hz4_stacks_close(&cache, 5);
	ck_assert_uint_eq(hz4_peek(&cache.busy), 5);
	ck_assert(!hz4_cache_pop(&cache.stack[5], &q));
	ck_assert(!hz4_cache_push(&cache.stack[5], p));
	/* Nor by what others set anew meanwhile. */
	hz4_stacks_watch(&cache, true);
	hz4_stacks_watch(&cache, false);
	ck_assert(!hz4_cache_pop(&cache.stack[5], &q));
	ck_assert(!hz4_cache_push(&cache.stack[5], p));
	hz4_stacks_open(&cache, 5);
	compare(&cache);
	ck_assert(hz4_cache_push(&cache.stack[5], p));
	ck_assert(hz4_cache_pop(&cache.stack[5], &q));
	ck_assert_ptr_eq(p, q);
}
END_TEST

START_TEST(mid_classes_without_a_cache)
{
	if (HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	start(true);
	burst(&cache, HZ4_CLS_FIRST_MID, 100);
	ck_assert_uint_eq(hz4_cache_count(&cache, HZ4_CLS_FIRST_MID), 0);
	ck_assert_uint_eq(cache.tier[HZ4_CLS_FIRST_MID].limit, 0);
	nothing_left();
}
END_TEST

/* What a thread was granted, and no byte of it twice, in any mixture. */
static void
mixture(uint64_t seed, unsigned steps)
{
	static unsigned cls_of[MOST];
	unsigned i, n = 0, cls, k, most = 1 + (unsigned)unit_below(&seed, 600);

	for (i = 0; i < steps; i++) {
		if (i % 512 == 0)
			most = 1 + (unsigned)unit_below(&seed, 600);
		if (n < most && unit_below(&seed, 2)) {
			cls = 1 + (unsigned)unit_below(&seed, HZ4_CLS_ZERO - 1);
			cls_of[n] = cls;
			held[n++] = take(&cache, cls);
		} else if (n > 0) {
			k = (unsigned)unit_below(&seed, n);
			give(unit_below(&seed, 8) ? &cache : &other, cls_of[k],
			     held[k]);
			held[k] = held[--n];
			cls_of[k] = cls_of[n];
		}
		if (i % 256 == 0) {
			compare(&cache);
			compare(&other);
		}
	}
	while (n-- > 0)
		give(&cache, cls_of[n], held[n]);
	compare(&cache);
}

START_TEST(limits_hold_in_any_mixture)
{
	start(_i == 1);
	mixture((uint64_t)_i + 1, STEPS);
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	compare(&cache);
	nothing_left();
}
END_TEST

START_TEST(nothing_granted_no_cache)
{
	unsigned cls;

	ck_assert(hz4_option_assign("thread_cache=0", 14));
	start(true);
	ck_assert_uint_eq(cache.granted, 0);
	mixture(1, 5000);
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		ck_assert_uint_eq(cache.tier[cls].limit, 0);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

START_TEST(granted_stays_below_the_option)
{
	ck_assert(hz4_option_assign("thread_cache=64", 15));
	start(false);
	mixture(1, STEPS);
	ck_assert_uint_eq(cache.granted, 64 << 10);
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

START_TEST(many_threads_start_with_little)
{
	start(true);
	ck_assert_uint_eq(cache.granted, HZ4_START_FIRST_THREAD);
	ck_assert_uint_eq(other.granted, HZ4_START_MOST);
	hz4_share_add_user(2);
	ck_assert_uint_eq(hz4_share_users(), 2);
	ck_assert_uint_eq(hz4_share_start(false), HZ4_START_MOST);
	hz4_share_add_user(1 << 20);
	ck_assert_uint_eq(hz4_share_start(false), HZ4_START_LEAST);
	ck_assert_uint_eq(hz4_share_start(true), HZ4_START_FIRST_THREAD);
	hz4_share_add_user(-(1 << 20) - 2);
	ck_assert_uint_eq(hz4_share_users(), 0);
}
END_TEST

/* So many misses of a small object. */
static void
miss(struct hz4_cache *c, size_t n)
{
	for (; n > 0; n--)
		unit_need(hz4_cache_refill(c, 1) != NULL, "no memory");
}

START_TEST(misses_earn)
{
	const size_t price = hz4_share_price();
	size_t own = HZ4_START_MOST;

	start(false);
	/* At first it is its own. */
	while (own < HZ4_EARN_OWN) {
		miss(&cache, price - 1);
		ck_assert_uint_eq(cache.granted, own);
		miss(&cache, 1);
		own *= 2;
		ck_assert_uint_eq(cache.granted, own);
	}
	ck_assert_uint_eq(cache.taken, 0);
	ck_assert_uint_eq(hz4_share_taken(), 0);
	miss(&cache, price);
	ck_assert_uint_eq(cache.granted, 2 * own);
	ck_assert_uint_eq(cache.taken, own);
	ck_assert_uint_eq(hz4_share_taken(), own);
	miss(&cache, 64 * price);
	ck_assert_uint_le(cache.granted, hz4_share_most());
	ck_assert_uint_eq(cache.granted - cache.taken, own);
	ck_assert_uint_eq(hz4_share_taken(), cache.taken);
	compare(&cache);
}
END_TEST

/* The more threads there are, the later each has more. */
START_TEST(many_threads_earn_slowly)
{
	start(false);
	ck_assert_uint_eq(hz4_share_price(), HZ4_EARN_LEAST);
	hz4_share_add_user(100);
	ck_assert_uint_eq(hz4_share_price(), 100 * HZ4_EARN_THREAD);
	miss(&cache, hz4_share_price() - 1);
	ck_assert_uint_eq(cache.granted, HZ4_START_MOST);
	miss(&cache, 1);
	ck_assert_uint_eq(cache.granted, 2 * HZ4_START_MOST);
	hz4_share_add_user(INT_MAX - 100);
	ck_assert_uint_eq(hz4_share_price(), HZ4_EARN_MOST);
	hz4_share_add_user(-INT_MAX);
	hz4_cache_flush(&cache);
}
END_TEST

/* Take all that there is for others. */
static size_t
exhaust(void)
{
	size_t all = 0, got;

	while ((got = hz4_share_take(SIZE_MAX)) > 0)
		all += got;
	return all;
}

START_TEST(the_pool_leaves_some)
{
	size_t all, first, second, sum;

	ck_assert(hz4_option_assign("cpu_cache=64", 12));
	start(false);
	all = hz4_os_cpus() * (size_t)64 << 10;
	ck_assert_uint_eq(hz4_share_take(1000), 1000);
	ck_assert_uint_eq(hz4_share_taken(), 1000);
	hz4_share_give(1000);
	first = hz4_share_take(all);
	ck_assert_uint_eq(first, all / HZ4_POOL_TAKES);
	second = hz4_share_take(all);
	ck_assert_uint_eq(second, (all - first) / HZ4_POOL_TAKES);
	sum = first + second + exhaust();
	ck_assert_uint_eq(hz4_share_taken(), sum);
	ck_assert_uint_le(sum, all);
	ck_assert_uint_gt(sum + HZ4_POOL_TAKES, all);
	hz4_share_give(sum);
	ck_assert_uint_eq(hz4_share_taken(), 0);
	ck_assert_uint_eq(hz4_share_take(all), first);
}
END_TEST

/* What threads may take in all, to the last few bytes. */
static size_t
pool(void)
{
	size_t all = exhaust();

	hz4_share_give(all);
	return all + HZ4_POOL_TAKES - 1;
}

static size_t
share_of(size_t cpus, size_t heap)
{
	return cpus * HZ4_POOL_LEAST + heap / 4 * HZ4_POOL_QUARTERS;
}

START_TEST(a_large_heap_has_a_larger_pool)
{
	enum { LARGE = 24 * 1024 * 1024 };
	size_t cpus;
	void *p;

	hz4_heap_free(hz4_heap_malloc(100));
	cpus = hz4_os_cpus();
	ck_assert_uint_eq(pool(), share_of(cpus, hz4_pageheap_used()));
	p = hz4_heap_malloc(LARGE);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_ge(hz4_pageheap_used(), LARGE);
	ck_assert_uint_eq(pool(), share_of(cpus, hz4_pageheap_used()));
	/* As much as the option says, or a part of what there is. */
	ck_assert(hz4_option_assign("cpu_cache=8192", 14));
	ck_assert_uint_eq(pool(), cpus * 8192 << 10);
	ck_assert(hz4_option_assign("cpu_cache=0", 11));
	ck_assert_uint_eq(pool(), hz4_pageheap_used() / HZ4_POOL_HEAP_SHARE);
	exhaust();
	hz4_heap_free(p);
	ck_assert_uint_eq(hz4_share_take(LARGE), 0);
}
END_TEST

/* Others have it all: a thread keeps what is its own, and earns that. */
START_TEST(without_a_pool_each_has_its_own)
{
	size_t all;

	ck_assert(hz4_option_assign("cpu_cache=4096", 14));
	start(false);
	all = exhaust();
	miss(&cache, 64 * HZ4_EARN_MOST);
	compare(&cache);
	ck_assert_uint_eq(cache.granted, HZ4_EARN_OWN);
	ck_assert_uint_eq(cache.taken, 0);
	/* Nothing of it is for others. */
	hz4_cache_decay(&cache);
	ck_assert_uint_eq(cache.granted, HZ4_EARN_OWN);
	hz4_share_give(all);
	miss(&cache, HZ4_EARN_MOST);
	ck_assert_uint_gt(cache.taken, 0);
	ck_assert_uint_eq(hz4_share_taken(), cache.taken);
	compare(&cache);
}
END_TEST

START_TEST(others_get_what_is_given_back)
{
	size_t taken, left;
	unsigned cls;

	start(false);
	mixture(1, STEPS);
	miss(&cache, 64 * HZ4_EARN_MOST);
	taken = cache.taken;
	left = cache.left;
	ck_assert_uint_gt(taken, 0);
	ck_assert_uint_gt(left, 0);
	/* Of what no class has use for, half. */
	miss(&cache, 1);
	cache.events = 0;
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		cache.tier[cls].used = true;
	hz4_cache_decay(&cache);
	ck_assert_uint_eq(cache.taken, taken - hz4_min(left / 2, taken));
	ck_assert_uint_eq(hz4_share_taken(), cache.taken + other.taken);
	compare(&cache);
}
END_TEST

static void
lose_from_pool(void *arg)
{
	(void)arg;
	unit_child_need(hz4_share_take(4096) > 0);
	_exit(hz4_check() == 1 ? 0 : 1);
}

START_TEST(the_walker_knows_the_pool)
{
	struct unit_end end;

	if (!HZ4_DEBUG_BOX)
		return;
	hz4_heap_free(hz4_heap_malloc(100));
	miss(hz4_tls_cache, 4 * HZ4_EARN_MOST);
	ck_assert_uint_gt(hz4_tls_cache->taken, 0);
	ck_assert_uint_eq(hz4_check(), 0);
	unit_child(&end, lose_from_pool, NULL);
	ck_assert_msg(end.status == 0, "status %x, stderr \"%s\"",
		      (unsigned)end.status, end.text);
	ck_assert_ptr_nonnull(strstr(end.text, "the pool gave"));
}
END_TEST

/* Of a thread that is gone, cut off while it took. */
START_TEST(a_childs_pool_is_what_was_noted)
{
	pid_t pid;
	int status = -1;

	hz4_heap_free(hz4_heap_malloc(100));
	miss(hz4_tls_cache, 4 * HZ4_EARN_MOST);
	hz4_share_take(4096);
	pid = fork();
	if (pid == 0)
		_exit(hz4_share_taken() == hz4_tls_cache->taken ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	/* The same where what it took was not granted yet. */
	start(false);
	cache.taken = 2 * cache.granted;
	hz4_cache_adopt(&cache);
	ck_assert_uint_ge(cache.granted, cache.taken);
	ck_assert_uint_eq(cache.left, cache.granted);
}
END_TEST

START_TEST(flush_keeps_limits)
{
	unsigned c, limit[SOME];

	start(true);
	for (c = 0; c < SOME; c++)
		burst(&cache, some[c], 40);
	for (c = 0; c < SOME; c++)
		limit[c] = cache.tier[some[c]].limit;
	hz4_cache_flush(&cache);
	compare(&cache);
	for (c = 0; c < SOME; c++)
		ck_assert_uint_eq(cache.tier[some[c]].limit, limit[c]);
	nothing_left();
	/* And again, with nothing to flush. */
	hz4_cache_flush(&cache);
	compare(&cache);
	burst(&cache, 5, 40);
	hz4_cache_flush(&cache);
	nothing_left();
}
END_TEST

/* The next thread finds the last one's objects, and may hold as many. */
START_TEST(the_next_thread_inherits)
{
	unsigned cls, limit[HZ4_CLS_END];
	size_t count[HZ4_CLS_END];

	start(false);
	for (cls = 1; cls < 6; cls++)
		burst(&cache, cls, 40);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		limit[cls] = cache.tier[cls].limit;
		count[cls] = hz4_cache_count(&cache, cls);
	}
	ck_assert_uint_gt(count[5], 0);
	hz4_stacks_watch(&cache, true);
	hz4_cache_end(&cache);
	ck_assert(!cache.watching);
	compare(&cache);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		ck_assert_uint_eq(cache.tier[cls].limit, limit[cls]);
		ck_assert_uint_eq(hz4_cache_count(&cache, cls), count[cls]);
	}
	burst(&cache, 5, count[5]);
	hz4_cache_flush(&cache);
	nothing_left();
}
END_TEST

static size_t
bytes_in(struct hz4_cache *c)
{
	size_t sum = 0;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		sum += hz4_cache_count(c, cls) * hz4_classes[cls].size;
	return sum;
}

/* Of one that had much, others get the rest. */
START_TEST(an_ended_cache_keeps_so_much)
{
	unsigned cls;
	size_t had;

	start(false);
	miss(&cache, 64 * HZ4_EARN_MOST);
	ck_assert_uint_gt(cache.granted, 2 * HZ4_END_MOST);
	forget(&cache);
	for (cls = 1; cls < HZ4_CLS_FIRST_LARGE; cls++)
		for (unsigned n = 0; n < 10; n++)
			burst(&cache, cls, 200);
	had = bytes_in(&cache);
	if (!HZ4_MID_DUAL_TIER_ALLOC_BOX)
		ck_assert_uint_gt(had, HZ4_END_MOST);
	hz4_cache_end(&cache);
	compare(&cache);
	ck_assert_uint_eq(cache.granted, HZ4_END_MOST);
	ck_assert_uint_lt(bytes_in(&cache), hz4_min(had, HZ4_END_MOST));
	ck_assert_uint_gt(bytes_in(&cache), 0);
	ck_assert_uint_eq(hz4_share_taken(), HZ4_END_MOST - HZ4_EARN_OWN);
	/* What is left of it need not be cut once more. */
	hz4_cache_end(&cache);
	ck_assert_uint_eq(cache.granted, HZ4_END_MOST);
	hz4_cache_flush(&cache);
}
END_TEST

/* A few large objects do not leave the small ones nothing. */
START_TEST(large_objects_leave_some)
{
	size_t size;

	start(false);
	for (size = HZ4_CLASS_MAX; size >= 512; size /= 2)
		burst(&cache, hz4_sizeclass(size), 1);
	compare(&cache);
	ck_assert_uint_gt(cache.tier[hz4_sizeclass(4096)].limit, 0);
	ck_assert_uint_ge(cache.left, cache.granted / 2);
	burst(&cache, 4, 100);
	ck_assert_uint_ge(cache.tier[4].limit, 50);
}
END_TEST

/* The watching thread's mallocs take the slow path, and only those. */
START_TEST(watch_and_watch_no_more)
{
	void *p;
	unsigned cls, c;

	start(true);
	for (c = 0; c < SOME; c++)
		burst(&cache, some[c], 8);
	warm(&cache, 5);
	hz4_stacks_watch(&cache, true);
	compare(&cache);
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		ck_assert(!hz4_cache_pop(&cache.stack[cls], &p));
	held[0] = take(&cache, 5);
	ck_assert(hz4_cache_push(&cache.stack[5], held[0]));
	ck_assert(!hz4_cache_pop(&cache.stack[5], &p));
	ck_assert(hz4_cache_pop_slow(&cache, 5, &p));
	ck_assert_ptr_eq(p, held[0]);
	*(uintptr_t *)p = (uintptr_t)p;
	give(&cache, 5, p);
	/* Whatever happens to the stacks meanwhile. */
	burst(&cache, 5, 500);
	burst(&cache, 16, 100);
	compare(&cache);
	ck_assert(cache.watching);
	ck_assert(!hz4_cache_pop(&cache.stack[5], &p));
	hz4_stacks_watch(&cache, false);
	compare(&cache);
	warm(&cache, 5);
	held[0] = take(&cache, 5);
	give(&cache, 5, held[0]);
	ck_assert(hz4_cache_pop(&cache.stack[5], &p));
	ck_assert_ptr_eq(p, held[0]);
	*(uintptr_t *)p = (uintptr_t)p;
	give(&cache, 5, p);
	hz4_stacks_watch(&cache, true);
	hz4_cache_flush(&cache);
	compare(&cache);
	ck_assert(!hz4_cache_pop_slow(&cache, 5, &p));
	hz4_cache_adopt(&cache);
	ck_assert(!cache.watching);
	compare(&cache);
	nothing_left();
}
END_TEST

/* A class without a miss keeps half of what it had, then half of that. */
START_TEST(idle_classes_shrink)
{
	unsigned round, before, busy;

	start(true);
	for (round = 0; round < 10; round++)
		burst(&cache, 16, 60);
	burst(&cache, 5, 40);
	hz4_cache_decay(&cache);
	before = cache.tier[16].limit;
	ck_assert_uint_gt(before, 1);
	ck_assert_uint_gt(hz4_cache_count(&cache, 16), 0);
	for (; before > 0; before /= 2) {
		burst(&cache, 5, HZ4_CACHE_MAX_OBJECTS);
		busy = cache.tier[5].limit;
		hz4_cache_decay(&cache);
		compare(&cache);
		ck_assert_uint_eq(cache.tier[5].limit, busy);
		ck_assert_uint_eq(cache.tier[16].limit, before / 2);
		ck_assert_uint_le(hz4_cache_count(&cache, 16), before / 2);
	}
	ck_assert_uint_gt(hz4_cache_count(&cache, 5), 0);
	hz4_cache_flush(&cache);
	nothing_left();
}
END_TEST

static void
give_twice(void *arg)
{
	unsigned cls = *(unsigned *)arg;
	void *p = take(&cache, cls);

	give(&cache, cls, p);
	if (!hz4_cache_push(&cache.stack[cls], p))
		hz4_cache_overflow(&cache, cls, p);
	hz4_cache_flush(&cache);
	hz4_l1_flush(cache.counts);
}

/* At once, or when what the class has no room for is given to its span. */
START_TEST(double_free_is_told)
{
	unsigned c;

	start(true);
	for (c = 0; c < SOME; c++) {
		burst(&cache, some[c], 8);
		unit_fatal_start(give_twice, (void *)(uintptr_t)&some[c],
				 "hz4: free(): double free: ptr 0x");
	}
}
END_TEST

static void
give_with_others_between(void *arg)
{
	unsigned cls = *(unsigned *)arg, i;

	cache.tier[cls].calls = 0;
	hz4_stacks_set_ends(&cache, cls);
	for (i = 0; i < 5; i++)
		held[i] = take(&cache, cls);
	for (i = 0; i < 5; i++)
		give(&cache, cls, held[i]);
	hz4_cache_overflow(&cache, cls, held[i - 3]);
}

static void
give_what_is_none(void *arg)
{
	unsigned cls = *(unsigned *)arg;
	char *p = take(&cache, cls);

	hz4_cache_overflow(&cache, cls, p + HZ4_ALIGN);
}

START_TEST(first_calls_are_careful)
{
	const unsigned many[] = { 5, 30, HZ4_CLS_FIRST_MID };
	unsigned c, cls;
	void *p;

	start(true);
	for (c = 0; c < sizeof many / sizeof *many; c++) {
		cls = many[c];
		unit_fatal_start(give_what_is_none, (void *)(uintptr_t)&cls,
				 "hz4: free(): pointer into an object: ptr 0x");
		p = take(&cache, cls);
		ck_assert(!hz4_cache_holds(&cache, cls, p));
		give(&cache, cls, p);
		ck_assert(hz4_cache_holds(&cache, cls, p));
		ck_assert(!hz4_cache_pop(&cache.stack[cls], &p));
		if (HZ4_MID_ALLOC_RUN_CACHE_BOX || !hz4_sizeclass_is_mid(cls))
			warm(&cache, cls);
		unit_fatal_start(give_with_others_between,
				 (void *)(uintptr_t)&cls,
				 "hz4: free(): double free: ptr 0x");
		/* Idle for the time of a decay: careful again. */
		cache.tier[cls].used = false;
		hz4_cache_decay(&cache);
		ck_assert_uint_eq(cache.tier[cls].calls, 0);
		compare(&cache);
		hz4_cache_flush(&cache);
		nothing_left();
	}
}
END_TEST

/* Of a class that is used much, with so many others freed between. */
static void
give_again(void *arg)
{
	const unsigned cls = 5, between = *(unsigned *)arg;
	unsigned i;
	void *p;

	for (i = 0; i < 6; i++)
		held[i] = take(&cache, cls);
	for (i = 0; i <= between; i++)
		give(&cache, cls, held[i]);
	if (!hz4_cache_push(&cache.stack[cls], held[0]))
		hz4_cache_overflow(&cache, cls, held[0]);
	if (!hz4_cache_pop(&cache.stack[cls], &p))
		hz4_cache_pop_slow(&cache, cls, &p);
}

START_TEST(double_frees_near_the_top_are_told)
{
	unsigned between;

	start(true);
	warm(&cache, 5);
	burst(&cache, 5, 40);
	warm(&cache, 5);
	ck_assert(!hz4_stacks_careful(&cache, 5));
	for (between = 0; between < HZ4_STACK_BELOW; between++)
		unit_fatal_start(give_again, &between,
				 between < 2 ?
				 "hz4: free(): double free: ptr 0x" :
				 "hz4: malloc(): double free: ptr 0x");
}
END_TEST

/* It went back to its span; a hot class's slow path looks there, too. */
static void
give_what_lies_in_its_span(void *arg)
{
	const unsigned cls = 5;

	(void)arg;
	cache.tier[cls].calls = HZ4_CAREFUL_CALLS;
	hz4_stacks_set_ends(&cache, cls);
	hz4_cache_overflow(&cache, cls, held[0]);
	_exit(0);
}

START_TEST(what_lies_in_its_span_is_told)
{
	start(true);
	warm(&cache, 5);
	held[0] = take(&cache, 5);
	/* Of a span with other objects, or it would have no class. */
	held[1] = take(&cache, 5);
	give(&cache, 5, held[0]);
	hz4_cache_flush(&cache);
	hz4_l1_flush(cache.counts);
	unit_fatal_start(give_what_lies_in_its_span, NULL,
			 "hz4: free(): double free: ptr 0x");
	give(&cache, 5, held[1]);
	hz4_cache_flush(&cache);
	nothing_left();
}
END_TEST

enum { MOVING = 16, CHILDREN = 60 };

static unsigned moves; /* of a stack that holds something */

static void
adopt_in_a_child(void)
{
	int status = -1;
	pid_t pid;
	void *p;

	/* Lists, too, have such places. */
	if (hz4_peek(&cache.busy) != MOVING ||
	    objects_cached(&cache, MOVING) == 0 || moves++ % 17 != 0 ||
	    moves > 17 * CHILDREN)
		return;
	pid = fork();
	if (pid == 0) {
		alarm(20);
		hz4_poke(&hz4_chaos_one_in, 0);
		hz4_cache_adopt(&cache);
		compare(&cache);
		_exit(objects_cached(&cache, MOVING) == 0 &&
		      !hz4_cache_pop(&cache.stack[MOVING], &p) ? 0 : 1);
	}
	unit_need(waitpid(pid, &status, 0) == pid && status == 0,
		  "the child ended with status %x", status);
}

/* Another thread forks meanwhile, and its child leaves that stack alone. */
START_TEST(a_moving_stack_is_not_adopted)
{
	unsigned i;

	if (!HZ4_DEBUG_BOX)
		return;
	start(true);
	hz4_poke(&hz4_chaos_hook, adopt_in_a_child);
	hz4_poke(&hz4_chaos_one_in, 1);
	for (i = 0; i < 30; i++)
		burst(&cache, MOVING, 400);
	hz4_poke(&hz4_chaos_one_in, 0);
	ck_assert_uint_gt(moves, 17 * 2);
	hz4_cache_flush(&cache);
	nothing_left();
}
END_TEST

START_TEST(no_memory)
{
	unsigned c;
	unsigned long fail;

	if (!HZ4_DEBUG_BOX)
		return;
	start(true);
	for (fail = 1; fail < 5; fail++)
		for (c = 0; c < SOME; c++) {
			size_t n = 0;

			hz4_os_fail_from(fail);
			while (n < MOST) {
				void *p;

				if (!hz4_cache_pop_slow(&cache, some[c], &p))
					p = hz4_cache_refill(&cache, some[c]);
				if (p == NULL)
					break;
				*(uintptr_t *)p = (uintptr_t)p;
				held[n++] = p;
			}
			compare(&cache);
			hz4_os_fail_from(1);
			while (n > 0)
				give(&cache, some[c], held[--n]);
			compare(&cache);
			hz4_cache_flush(&cache);
			hz4_l1_flush(cache.counts);
			hz4_os_fail_from(0);
			burst(&cache, some[c], 10);
			hz4_cache_flush(&cache);
		}
	nothing_left();
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, empty_cache_takes_the_slow_path);
	tcase_add_test(t, last_in_first_out);
	tcase_add_test(t, a_run_from_the_lowest_address_on);
	tcase_add_test(t, allocating_alone_keeps_caches_small);
	tcase_add_test(t, freeing_alone_keeps_caches_small);
	tcase_add_test(t, turns_make_a_cache_grow);
	tcase_add_test(t, a_class_has_a_most);
	tcase_add_test(t, half_of_the_limit_moves);
	tcase_add_test(t, the_oldest_go_back);
	tcase_add_test(t, a_refill_moves_no_end);
	tcase_add_test(t, half_emptied_has_room);
	tcase_add_test(t, small_stacks_that_run_over_are_careful);
	tcase_add_loop_test(t, calls_come_between, 0, 3);
	tcase_add_test(t, closed_stacks_do_not_serve);
	tcase_add_test(t, mid_classes_without_a_cache);
	tcase_add_loop_test(t, limits_hold_in_any_mixture, 0, 4);
	tcase_add_test(t, nothing_granted_no_cache);
	tcase_add_test(t, granted_stays_below_the_option);
	tcase_add_test(t, many_threads_start_with_little);
	tcase_add_test(t, misses_earn);
	tcase_add_test(t, many_threads_earn_slowly);
	tcase_add_test(t, the_pool_leaves_some);
	tcase_add_test(t, a_large_heap_has_a_larger_pool);
	tcase_add_test(t, without_a_pool_each_has_its_own);
	tcase_add_test(t, others_get_what_is_given_back);
	tcase_add_test(t, the_walker_knows_the_pool);
	tcase_add_test(t, a_childs_pool_is_what_was_noted);
	tcase_add_test(t, flush_keeps_limits);
	tcase_add_test(t, the_next_thread_inherits);
	tcase_add_test(t, an_ended_cache_keeps_so_much);
	tcase_add_test(t, large_objects_leave_some);
	tcase_add_test(t, watch_and_watch_no_more);
	tcase_add_test(t, idle_classes_shrink);
	tcase_add_test(t, double_free_is_told);
	tcase_add_test(t, first_calls_are_careful);
	tcase_add_test(t, double_frees_near_the_top_are_told);
	tcase_add_test(t, what_lies_in_its_span_is_told);
	tcase_add_test(t, a_moving_stack_is_not_adopted);
	tcase_add_test(t, no_memory);
}

int
main(void)
{
	return unit_main("cache", add);
}
