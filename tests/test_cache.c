/*
 * cache.h: L1, and L0 in front of it when it is built.
 *
 *     base <= top <= high,  high - base == limit,  gone + limit <= room
 *     budget.left + what the classes were given == budget.granted
 *
 * The tests drive caches of their own as heap.c drives a thread's.  The
 * first word of an object is a mark: 0 while it is free.
 */
#include "unit.h"

#include "cache.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "spans.h"


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
	hz4_cache_init(&cache, first);
	hz4_cache_init(&other, false);
}

static size_t
objects_cached(struct hz4_cache *c, unsigned cls)
{
	return (size_t)(hz4_peek(&c->stack[cls].top) - c->stack[cls].base);
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

		unit_need(s->base <= top && top <= s->high, "class %u", cls);
		unit_need(s->high == (t->calls < HZ4_CAREFUL_CALLS ?
					      top : hz4_stacks_limit(c, cls)) ||
				  hz4_l0_open(c->l0, cls),
			  "class %u: high", cls);
		unit_need(top <= hz4_stacks_limit(c, cls) &&
				  t->gone + t->limit <= t->room &&
				  t->limit <= HZ4_CACHE_MAX_OBJECTS,
			  "class %u: limit %u, room %u, gone %u", cls,
			  t->limit, t->room, t->gone);
		unit_need(s->base == NULL || s->base[-1] == NULL,
			  "class %u: the word below the base", cls);
		given += t->limit * (size_t)hz4_classes[cls].size;
		count = objects_cached(c, cls);
		if (hz4_l0_open(c->l0, cls)) {
			void **floor = hz4_l0_of(c->l0, cls)->floor;

			unit_need(s->base <= floor && floor <= top &&
					  s->high - floor <=
						  HZ4_MID_DUAL_TIER_L0_LIMIT &&
					  s->high <= s->base + t->limit,
				  "class %u: window", cls);
		}
		unit_need(hz4_cache_count(c, cls) == count, "class %u", cls);
	}
	/* A budget below 0 would show as one above what was granted. */
	unit_need(c->budget.left <= c->budget.granted &&
			  given + c->budget.left == c->budget.granted,
		  "%zu given, %zu left of %zu", given, c->budget.left,
		  c->budget.granted);
	unit_need(c->budget.granted <=
			  hz4_max(HZ4_BUDGET_FEW *
					  hz4_option(HZ4_OPT_thread_cache)
					  << 10,
				  HZ4_BUDGET_FIRST_THREAD),
		  "%zu granted", c->budget.granted);
}

static void *
take(struct hz4_cache *c, unsigned cls)
{
	void *p = NULL;

	if (!hz4_cache_pop(c, cls, &p))
		p = hz4_cache_l0_refill(c, cls);
	if (p == NULL && !hz4_cache_pop_nudged(c, cls, &p))
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
	if (!hz4_cache_push(c, cls, p))
		hz4_cache_overflow(c, cls, p);
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

static size_t
base_limit(unsigned cls)
{
	if (cls < HZ4_CLS_FIRST_MID)
		return hz4_min(HZ4_CACHE_BASE_BYTES / hz4_classes[cls].size,
			       HZ4_CACHE_BASE_OBJECTS);
	return cls < HZ4_CLS_FIRST_LARGE ? HZ4_MID_ALLOC_RUN_LIMIT : 1;
}

/* Past the careful calls of a class. */
static void
warm(struct hz4_cache *c, unsigned cls)
{
	while (c->tier[cls].calls < HZ4_CAREFUL_CALLS)
		burst(c, cls, 2);
}

static void
nothing_left(void)
{
	struct hz4_pageheap_figures pages;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		unit_need(hz4_cache_count(&cache, cls) == 0, "class %u", cls);
		unit_need(hz4_peek(&cache.tier[cls].net) +
					  hz4_peek(&other.tier[cls].net) == 0,
			  "class %u", cls);
	}
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
		ck_assert(!hz4_cache_pop(empty, cls, &p));
		ck_assert(!hz4_cache_push(empty, cls, &local));
		ck_assert_ptr_null(hz4_cache_l0_refill(empty, cls));
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
		ck_assert(hz4_cache_pop(&cache, 5, &q));
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

/* Without a turn a class grows to its base limit and not much above. */
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
					  base_limit(some[c]) * 3 / 2,
				  "class %u: %u", some[c],
				  cache.tier[some[c]].limit);
		}
		compare(&cache);
		/* Nor does another thread that frees only. */
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
					  base_limit(some[c]) * 3 / 2,
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

START_TEST(turns_make_a_cache_grow)
{
	unsigned c, round;
	size_t n;

	start(true);
	for (c = 0; c < SOME; c++) {
		if (!HZ4_MID_ALLOC_RUN_CACHE_BOX &&
		    hz4_sizeclass_is_mid(some[c]))
			continue;
		n = hz4_min(4 * base_limit(some[c]),
			    HZ4_BUDGET_FIRST_THREAD / 4 /
				    hz4_classes[some[c]].size);
		for (round = 0; round < 30; round++)
			burst(&cache, some[c], n);
		compare(&cache);
		ck_assert_msg(n <= base_limit(some[c]) * 3 / 2 ||
				      cache.tier[some[c]].limit >
					      base_limit(some[c]),
			      "class %u: %u", some[c],
			      cache.tier[some[c]].limit);
		hz4_cache_pass_on(&cache);
	}
	nothing_left();
}
END_TEST

/*
 * Those that go back are the oldest, and of the others few are moved for it:
 * each at most once for a place that the array has more than the limit.
 */
START_TEST(the_oldest_go_back_in_place)
{
	const unsigned cls = 5;
	struct hz4_stack *s = &cache.stack[cls];
	struct hz4_tier *t = &cache.tier[cls];
	size_t i, given = 0, moves = 0, kept, k;
	void **base;

	start(true);
	while (t->limit < 500)
		burst(&cache, cls, 800);
	hz4_cache_flush(&cache);
	for (i = 0; i < MOST; i++)
		held[i] = take(&cache, cls);
	while (hz4_cache_count(&cache, cls) > 0)
		take(&cache, cls);
	for (i = 0; i < MOST; i++) {
		base = s->base;
		give(&cache, cls, held[i]);
		moves += s->base < base;
		compare(&cache);
		kept = hz4_cache_count(&cache, cls);
		for (k = 0; k < kept; k++)
			unit_need(s->base[k] == held[i + 1 - kept + k],
				  "object %zu of %zu after %zu", k, kept, i);
		given = i + 1 - kept;
	}
	ck_assert_uint_gt(given, MOST - HZ4_CACHE_MAX_OBJECTS);
	ck_assert_uint_gt(moves, 0);
	ck_assert_uint_le(moves * (size_t)(t->room - t->limit), given);
}
END_TEST

/* A wrapper around the clock that gives objects of a class of its own back. */
static struct {
	unsigned cls;
	size_t n;
	void *object[100];
} wrapper;

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	while (wrapper.n > 0)
		give(&cache, wrapper.cls, wrapper.object[--wrapper.n]);
	return (int)syscall(UNIT_CLOCK_GETTIME, clock, t);
}

/*
 * A refill finds the stack as such a wrapper has left it: filled before, or
 * filled while a new span gets its pages.
 */
START_TEST(a_refill_may_find_objects)
{
	const unsigned cls = 5;
	struct hz4_tier *t = &cache.tier[cls];
	void *mine[100];
	size_t n = 0, i, lent, full = 0;

	start(true);
	burst(&cache, cls, 800);
	for (i = 0; i < sizeof mine / sizeof *mine; i++)
		mine[i] = take(&other, cls);
	for (i = 0; n < MOST / 2; i++) {
		if (i % 2 == 0)
			while (hz4_cache_count(&cache, cls) > 0)
				held[n++] = take(&cache, cls);
		wrapper.cls = cls;
		lent = hz4_min(sizeof mine / sizeof *mine, t->limit);
		wrapper.n = lent;
		memcpy(wrapper.object, mine, sizeof mine);
		held[n] = hz4_cache_refill(&cache, cls);
		ck_assert_ptr_nonnull(held[n]);
		*(uintptr_t *)held[n] = (uintptr_t)held[n];
		n++;
		full += hz4_cache_count(&cache, cls) == t->limit;
		while (wrapper.n < lent)
			mine[wrapper.n++] = take(&other, cls);
		wrapper.n = 0;
		compare(&cache);
	}
	ck_assert_uint_gt(full, 0);
	while (n > 0)
		give(&cache, cls, held[--n]);
	for (i = 0; i < sizeof mine / sizeof *mine; i++)
		give(&other, cls, mine[i]);
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	nothing_left();
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

/* A thread's budget, and no byte of it twice, in any mixture. */
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

START_TEST(budget_holds_in_any_mixture)
{
	start(_i == 1);
	mixture((uint64_t)_i + 1, STEPS);
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	compare(&cache);
	nothing_left();
}
END_TEST

START_TEST(no_budget_no_cache)
{
	unsigned cls;

	ck_assert(hz4_option_assign("thread_cache=0", 14));
	start(true);
	ck_assert_uint_eq(cache.budget.granted, 0);
	mixture(1, 5000);
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		ck_assert_uint_eq(cache.tier[cls].limit, 0);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

START_TEST(budget_stays_below_the_option)
{
	ck_assert(hz4_option_assign("thread_cache=64", 15));
	start(false);
	hz4_budget_add_user(HZ4_BUDGET_SHARERS);
	mixture(1, STEPS);
	ck_assert_uint_le(cache.budget.granted,
			  hz4_max(64 << 10,
				  hz4_pageheap_used() / HZ4_BUDGET_HEAP_SHARE /
					  HZ4_BUDGET_SHARERS));
	/* More where there are few threads, with more misses. */
	hz4_budget_add_user(1 - HZ4_BUDGET_SHARERS);
	mixture(2, STEPS);
	ck_assert_uint_le(cache.budget.granted, HZ4_BUDGET_FEW * 64 << 10);
	hz4_cache_flush(&cache);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

START_TEST(many_threads_start_with_little)
{
	struct hz4_budget few, many;

	start(true);
	hz4_budget_add_user(2);
	hz4_budget_init(&few, false);
	ck_assert_uint_eq(few.granted, HZ4_BUDGET_START_MOST);
	hz4_budget_add_user(1 << 20);
	hz4_budget_init(&many, false);
	ck_assert_uint_eq(many.granted, HZ4_BUDGET_START_LEAST);
	hz4_budget_add_user(-(1 << 20) - 2);
}
END_TEST

START_TEST(small_misses_earn_a_budget)
{
	struct hz4_budget b;
	unsigned n;

	start(true);
	hz4_budget_init(&b, false);
	for (n = 1; n < HZ4_BUDGET_DOUBLES / HZ4_BUDGET_MISS; n++)
		hz4_budget_earn(&b, HZ4_ALIGN);
	ck_assert_uint_eq(b.granted, HZ4_BUDGET_START_MOST);
	hz4_budget_earn(&b, HZ4_ALIGN);
	ck_assert_uint_eq(b.granted, 2 * HZ4_BUDGET_START_MOST);
	/* From now on by far fewer. */
	for (n = 0; n < HZ4_BUDGET_DOUBLES_PROVEN / HZ4_BUDGET_MISS; n++)
		hz4_budget_earn(&b, HZ4_ALIGN);
	ck_assert_uint_eq(b.granted, 4 * HZ4_BUDGET_START_MOST);
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

static size_t
share_of(unsigned users)
{
	return hz4_os_cpus() * (size_t)HZ4_BUDGET_PASSED_ON / users;
}

/* The next thread starts with what the last one learned, up to a share. */
START_TEST(the_next_thread_inherits)
{
	unsigned cls, limits = 0, before[HZ4_CLS_END];
	size_t granted;

	start(false);
	hz4_cache_init(&other, false);
	hz4_budget_add_user(1);
	for (cls = 1; cls < 20; cls++)
		burst(&cache, cls, 40);
	granted = cache.budget.granted;
	ck_assert_uint_le(granted, share_of(1));
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		before[cls] = cache.tier[cls].limit;
	hz4_cache_pass_on(&cache);
	compare(&cache);
	nothing_left();
	ck_assert_uint_eq(cache.budget.granted, granted);
	/* Nor does what no class has cost the others anything. */
	cache.budget.granted += 64 * share_of(1);
	cache.budget.left += 64 * share_of(1);
	hz4_cache_pass_on(&cache);
	compare(&cache);
	ck_assert_uint_eq(cache.budget.granted, share_of(1));
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		ck_assert_uint_eq(cache.tier[cls].limit, before[cls]);
	mixture(1, STEPS);
	ck_assert_uint_gt(cache.budget.granted, share_of(1));
	hz4_cache_pass_on(&cache);
	compare(&cache);
	ck_assert_uint_eq(cache.budget.granted, share_of(1));
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		limits += cache.tier[cls].limit > 0;
	ck_assert_uint_gt(limits, 5);
	/* One of many has next to nothing again. */
	hz4_budget_add_user(1 << 20);
	hz4_cache_pass_on(&cache);
	compare(&cache);
	ck_assert_uint_eq(cache.budget.granted, HZ4_BUDGET_START_LEAST);
	hz4_budget_add_user(-(1 << 20));
	hz4_cache_flush(&other);
	nothing_left();
	mixture(2, STEPS / 4);
	hz4_cache_pass_on(&cache);
	hz4_cache_flush(&other);
	nothing_left();
}
END_TEST

/* A few large objects do not leave the small ones nothing. */
START_TEST(large_objects_leave_some_of_the_budget)
{
	size_t size;

	start(false);
	for (size = HZ4_CLASS_MAX; size >= 512; size /= 2)
		burst(&cache, hz4_sizeclass(size), 1);
	compare(&cache);
	ck_assert_uint_gt(cache.tier[hz4_sizeclass(4096)].limit, 0);
	ck_assert_uint_ge(cache.budget.left, cache.budget.granted / 2);
	burst(&cache, 4, 100);
	ck_assert_uint_ge(cache.tier[4].limit, 50);
}
END_TEST

START_TEST(nudge_and_settle)
{
	void *p;
	unsigned cls, c;

	start(true);
	for (c = 0; c < SOME; c++)
		burst(&cache, some[c], 8);
	warm(&cache, 5);
	ck_assert(!hz4_stacks_nudged(&cache));
	hz4_stacks_nudge(&cache);
	ck_assert(hz4_stacks_nudged(&cache));
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		ck_assert(!hz4_cache_pop(&cache, cls, &p));
		ck_assert_ptr_null(hz4_cache_l0_refill(&cache, cls));
	}
	hz4_stacks_settle(&cache);
	ck_assert(!hz4_stacks_nudged(&cache));
	held[0] = take(&cache, 5);
	/* Frees go on as before. */
	hz4_stacks_nudge(&cache);
	give(&cache, 5, held[0]);
	compare(&cache);
	ck_assert(hz4_cache_pop_nudged(&cache, 5, &p));
	ck_assert_ptr_eq(p, held[0]);
	*(uintptr_t *)p = (uintptr_t)p;
	give(&cache, 5, p);
	hz4_stacks_settle(&cache);
	ck_assert(hz4_cache_pop(&cache, 5, &p));
	ck_assert_ptr_eq(p, held[0]);
	*(uintptr_t *)p = (uintptr_t)p;
	give(&cache, 5, p);
	hz4_stacks_nudge(&cache);
	hz4_cache_flush(&cache);
	compare(&cache);
	ck_assert(!hz4_cache_pop_nudged(&cache, 5, &p));
	nothing_left();
}
END_TEST

/* The nudge's thread wrote this `low` after the owner had settled. */
START_TEST(a_late_low_does_not_stay)
{
	void *p;

	start(true);
	warm(&cache, 5);
	hz4_stacks_nudge(&cache);
	hz4_stacks_settle(&cache);
	hz4_poke(&cache.stack[5].low, HZ4_NUDGED);
	ck_assert(!hz4_cache_pop(&cache, 5, &p));
	held[0] = take(&cache, 5);
	give(&cache, 5, held[0]);
	ck_assert(hz4_cache_pop(&cache, 5, &p));
	ck_assert_ptr_eq(p, held[0]);
	*(uintptr_t *)p = (uintptr_t)p;
	give(&cache, 5, p);
	hz4_cache_flush(&cache);
	nothing_left();
}
END_TEST

static void *
nudge_on_and_on(void *arg)
{
	unsigned i;

	for (i = 0; i < 3000; i++)
		hz4_stacks_nudge(arg);
	return NULL;
}

/* A nudge may come at any time and costs nothing but slow paths. */
START_TEST(nudged_while_at_work)
{
	pthread_t id;
	unsigned i;

	start(true);
	pthread_create(&id, NULL, nudge_on_and_on, &cache);
	for (i = 0; i < 200; i++) {
		burst(&cache, some[i % SOME], 20);
		if (hz4_stacks_nudged(&cache))
			hz4_stacks_settle(&cache);
	}
	pthread_join(id, NULL);
	hz4_stacks_settle(&cache);
	ck_assert(!hz4_stacks_nudged(&cache));
	burst(&cache, 5, 20);
	compare(&cache);
	hz4_cache_flush(&cache);
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
	void *p = take(&cache, *(unsigned *)arg);

	give(&cache, *(unsigned *)arg, p);
	*(uintptr_t *)p = (uintptr_t)p;
	give(&cache, *(unsigned *)arg, p);
	hz4_cache_flush(&cache);
}

/* At once or when the cache is emptied. */
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
	hz4_stacks_settle(&cache);
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
		ck_assert(!hz4_cache_suspects(&cache, cls, p));
		give(&cache, cls, p);
		ck_assert(hz4_cache_suspects(&cache, cls, p));
		ck_assert(!hz4_cache_pop(&cache, cls, &p));
		if (HZ4_MID_ALLOC_RUN_CACHE_BOX || !hz4_sizeclass_is_mid(cls))
			warm(&cache, cls);
		unit_fatal_start(give_with_others_between,
				 (void *)(uintptr_t)&cls,
				 "hz4: free(): double free: ptr 0x");
		/* Idle for the time of a decay: careful again. */
		cache.tier[cls].events = 0;
		hz4_cache_decay(&cache);
		ck_assert_uint_eq(cache.tier[cls].calls, 0);
		compare(&cache);
		hz4_cache_flush(&cache);
		nothing_left();
	}
}
END_TEST

/* Objects in L0; 0 for a class that has none open. */
static size_t
objects_in_l0(struct hz4_cache *c, unsigned cls)
{
	if (!hz4_l0_open(c->l0, cls))
		return 0;
	return (size_t)(hz4_peek(&c->stack[cls].top) -
			hz4_l0_of(c->l0, cls)->floor);
}

/* Takes until nothing is cached; every one must come from the tiers. */
static unsigned
drain(unsigned cls)
{
	unsigned n;

	for (n = 0; hz4_cache_count(&cache, cls) > 0; n++)
		held[n] = take(&cache, cls);
	return n;
}

START_TEST(l0_is_a_window_on_l1)
{
	struct hz4_l0 *l;
	unsigned cls, n, i;
	size_t before;

	start(true);
	if (!HZ4_MID_DUAL_TIER_ALLOC_BOX) {
		ck_assert(!hz4_l0_open(cache.l0, HZ4_CLS_FIRST_MID));
		ck_assert_uint_le(sizeof cache.l0, 2 * sizeof(void *));
		return;
	}
	for (cls = HZ4_CLS_FIRST_MID; cls < HZ4_CLS_FIRST_LARGE; cls += 13) {
		l = hz4_l0_of(cache.l0, cls);
		ck_assert(!hz4_l0_open(cache.l0, cls));
		warm(&cache, cls);
		hz4_cache_flush(&cache);
		l->open = true;
		ck_assert_ptr_null(hz4_cache_l0_refill(&cache, cls));
		burst(&cache, cls, 8);
		ck_assert_uint_le(objects_in_l0(&cache, cls),
				  HZ4_MID_DUAL_TIER_L0_LIMIT);
		/* Down to the last object, in steps of the batch. */
		l->moves = 0;
		before = hz4_cache_count(&cache, cls);
		n = (unsigned)(before - objects_in_l0(&cache, cls));
		ck_assert_uint_eq(drain(cls), before);
		ck_assert_uint_eq(objects_in_l0(&cache, cls), 0);
		if (hz4_l0_open(cache.l0, cls))
			ck_assert_uint_eq(l->moves,
				(n + HZ4_MID_DUAL_TIER_L0_REFILL_BATCH - 1) /
					HZ4_MID_DUAL_TIER_L0_REFILL_BATCH);
		/* And up again: L0 feeds L1 when it is full. */
		for (i = 0; i < before; i++)
			give(&cache, cls, held[i]);
		compare(&cache);
		ck_assert_uint_eq(hz4_cache_count(&cache, cls), before);
		hz4_cache_pass_on(&cache);
		ck_assert(hz4_l0_open(cache.l0, cls));
	}
}
END_TEST

/* A window that moves again and again is closed, a quiet one opens again. */
START_TEST(l0_closes_where_it_does_not_pay)
{
	const unsigned cls = HZ4_CLS_FIRST_MID;
	unsigned n, i, rounds;

	start(true);
	if (!HZ4_MID_DUAL_TIER_ALLOC_BOX)
		return;
	warm(&cache, cls);
	for (rounds = 0; hz4_l0_open(cache.l0, cls); rounds++) {
		ck_assert_uint_lt(rounds, 10 * HZ4_L0_MOVES);
		burst(&cache, cls, 8);
	}
	ck_assert_ptr_null(hz4_cache_l0_refill(&cache, cls));
	compare(&cache);
	n = drain(cls);
	for (i = 0; i < n; i++)
		give(&cache, cls, held[i]);
	hz4_cache_decay(&cache);
	ck_assert(hz4_l0_open(cache.l0, cls));
	compare(&cache);
	/* No move until the next decay: L1 goes back, L0 stays. */
	cache.tier[cls].events = 0;
	hz4_l0_of(cache.l0, cls)->moves = 0;
	hz4_cache_decay(&cache);
	ck_assert_uint_le(hz4_cache_count(&cache, cls),
			  HZ4_MID_DUAL_TIER_L0_LIMIT);
	compare(&cache);
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

				if (!hz4_cache_pop_nudged(&cache, some[c], &p))
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
	tcase_add_test(t, the_oldest_go_back_in_place);
	tcase_add_test(t, a_refill_may_find_objects);
	tcase_add_test(t, mid_classes_without_a_cache);
	tcase_add_loop_test(t, budget_holds_in_any_mixture, 0, 4);
	tcase_add_test(t, no_budget_no_cache);
	tcase_add_test(t, budget_stays_below_the_option);
	tcase_add_test(t, many_threads_start_with_little);
	tcase_add_test(t, small_misses_earn_a_budget);
	tcase_add_test(t, flush_keeps_limits);
	tcase_add_test(t, the_next_thread_inherits);
	tcase_add_test(t, large_objects_leave_some_of_the_budget);
	tcase_add_test(t, nudge_and_settle);
	tcase_add_test(t, a_late_low_does_not_stay);
	tcase_add_test(t, nudged_while_at_work);
	tcase_add_test(t, idle_classes_shrink);
	tcase_add_test(t, double_free_is_told);
	tcase_add_test(t, first_calls_are_careful);
	tcase_add_test(t, l0_is_a_window_on_l1);
	tcase_add_test(t, l0_closes_where_it_does_not_pay);
	tcase_add_test(t, no_memory);
}

int
main(void)
{
	return unit_main("cache", add);
}
