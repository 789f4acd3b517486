/*
 * test_idle.c - caches of threads that stay away are asked, stopped, emptied.
 *
 * Sleepers do what the test tells them, one thing at a time, so each step with
 * their caches is taken while they are known to be away, or in the middle of
 * what the test does in their place.  The first word of an object is its mark:
 * its own address while it is somebody's, 0 while it is free.
 */
#include "unit.h"

#include "clock.h"
#include "heap.h"
#include "idle.h"
#include "info.h"
#include "option.h"
#include "thread.h"
#include "walker.h"

enum {
	SIZE = 100,
	MANY = 400,
	SLEEPERS_MOST = HZ4_IDLE_THREADS + 10,
	CLASSES = 8, /* of 16 to 128 bytes */
};

/* --- the clock, and a wrapper around it ------------------------------------ */

/* The clocks stand until the test sets them. [atomic] relaxed: a test's own */
static _Atomic unsigned clock_ms;
/* A preloaded wrapper allocates in this thread. */
static HZ4_TLS unsigned wraps;
/* It stops where a step looks at the clock, until a trim waits for it. */
static _Atomic unsigned stops;
static HZ4_TLS bool stopping;

static void *take(size_t size);
static void give(void *p);

int
hz4_clock(clockid_t clock, struct timespec *t)
{
	unsigned ms = 1000 + hz4_peek(&clock_ms);

	(void)clock;
	t->tv_sec = ms / 1000;
	t->tv_nsec = (long)(ms % 1000) * 1000000;
	if (stopping) {
		/* Only the debug build knows. */
		unit_need(!HZ4_DEBUG_BOX || (hz4_tls_held & 1u << HZ4_RANK_IDLE),
			  "no step");
		hz4_poke(&stops, 1);
		while (hz4_peek(&stops) == 1)
			sched_yield();
		stopping = false;
	}
	if (wraps > 0) {
		wraps--;
		/* Somebody may wait for that lock, and have the wrapper's. */
		unit_need((hz4_tls_held & 1u << HZ4_RANK_CACHE) == 0, "held");
		give(take(SIZE));
		wraps++;
	}
	return 0;
}

static void
pass(unsigned ms)
{
	hz4_poke(&clock_ms, hz4_peek(&clock_ms) + ms);
}

/* --- objects --------------------------------------------------------------- */

static void *
take(size_t size)
{
	void *p = hz4_heap_malloc(size);

	unit_need(p != NULL, "%zu", size);
	unit_need(*(uintptr_t *)p == 0, "%p is handed out twice", p);
	*(uintptr_t *)p = (uintptr_t)p;
	return p;
}

static void
give(void *p)
{
	unit_need(*(uintptr_t *)p == (uintptr_t)p, "%p is not ours", p);
	*(uintptr_t *)p = 0;
	hz4_heap_free(p);
}

static void
burst(size_t size, unsigned n)
{
	void *p[MANY];
	unsigned i;

	for (i = 0; i < n; i++)
		p[i] = take(size);
	while (i > 0)
		give(p[--i]);
}

static size_t
figure(bool live)
{
	struct hz4_info info;

	hz4_info_get(&info);
	return live ? info.live_objects : info.cached_objects;
}

/* --- sleepers -------------------------------------------------------------- */

struct sleeper {
	pthread_t id;
	pthread_barrier_t begin, end;
	void (*work)(void); /* NULL: end */
	struct hz4_cache *cache;
};

static struct sleeper sleeper[SLEEPERS_MOST];
static struct hz4_cache *theirs; /* the first one's */
static unsigned cls;

static void *
sleep_and_work(void *arg)
{
	struct sleeper *s = arg;

	for (;;) {
		pthread_barrier_wait(&s->begin);
		if (s->work == NULL)
			return NULL;
		s->work();
		s->cache = hz4_thread_cache();
		pthread_barrier_wait(&s->end);
	}
}

static void
tell(unsigned i, void (*work)(void))
{
	struct sleeper *s = &sleeper[i];

	s->work = work;
	pthread_barrier_wait(&s->begin);
	if (work == NULL)
		pthread_join(s->id, NULL);
	else
		pthread_barrier_wait(&s->end);
}

static void
start_one(unsigned i, void (*work)(void))
{
	struct sleeper *s = &sleeper[i];

	pthread_barrier_init(&s->begin, NULL, 2);
	pthread_barrier_init(&s->end, NULL, 2);
	ck_assert_int_eq(pthread_create(&s->id, NULL, sleep_and_work, s), 0);
	tell(i, work);
}

/* The class is past its careful calls, and its stack holds some. */
static void
fill(void)
{
	unsigned i;

	for (i = 0; i < 8; i++)
		burst(SIZE, MANY);
}

/* As a slow path does it. */
static void
step_at(uint64_t now)
{
	struct hz4_cache *c = hz4_cache_enter(hz4_thread_cache());

	unit_need(c != NULL, "no cache");
	hz4_idle_step(now);
	hz4_cache_leave(c);
}

static void
step(unsigned ms)
{
	pass(ms);
	step_at(hz4_os_now());
}

/* A round has just ended: while the clock stands nobody begins another. */
static void
start(unsigned n, void (*work)(void))
{
	unsigned i;

	hz4_thread_start();
	give(take(SIZE));
	step(HZ4_IDLE_ROUND);
	step(HZ4_IDLE_GRACE);
	cls = hz4_sizeclass(SIZE);
	for (i = 0; i < n; i++)
		start_one(i, work);
	theirs = sleeper[0].cache;
}

static void
end(unsigned n)
{
	while (n > 0)
		tell(--n, NULL);
}

static void
step_until(enum hz4_idle state)
{
	unsigned i;

	for (i = 0; hz4_peek(&theirs->idle) != state; i++) {
		unit_need(i < 8, "still %u", hz4_peek(&theirs->idle));
		step(HZ4_IDLE_ROUND);
	}
}

static size_t
count(void)
{
	return hz4_cache_count(theirs, cls);
}

/* None of the class is served by the fast paths. */
static bool
is_stopped(void)
{
	return hz4_peek(&theirs->stack[cls].low) == HZ4_STOP &&
	       hz4_peek(&theirs->stack[cls].high) == NULL;
}

/* Nothing is lost, and nothing there twice. */
static void
all_is_well(size_t live)
{
	ck_assert_uint_eq(figure(true), live);
	ck_assert_uint_eq(hz4_check(), 0);
}

static void *kept[HZ4_CACHE_MAX_OBJECTS];
static unsigned keeps;

static void
keep(void)
{
	kept[keeps++] = take(SIZE);
}

static void
give_kept(void)
{
	give(kept[--keeps]);
}

static void
use(void)
{
	burst(SIZE, MANY);
}

/* --- steps ----------------------------------------------------------------- */

/* Whether the thread's array has room for its limit, where its objects lie. */
static bool
has_room(void)
{
	const struct hz4_tier *t = &theirs->tier[cls];

	return hz4_peek(&t->gone) + t->limit <= t->room;
}

START_TEST(asked_stopped_emptied)
{
	size_t had, gone, live;

	start(1, fill);
	tell(0, keep);
	live = figure(true);
	had = count();
	gone = hz4_peek(&theirs->tier[cls].gone);
	ck_assert_uint_gt(had, 8);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_ASKED);
	ck_assert(!is_stopped());
	step(HZ4_IDLE_ROUND - 1);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_ASKED);
	step(1);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_STOPPED);
	ck_assert(is_stopped());
	ck_assert_uint_eq(count(), had);
	all_is_well(live);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_EMPTY);
	ck_assert_uint_eq(count(), 1);
	ck_assert_uint_eq(hz4_peek(&theirs->tier[cls].gone), gone + had - 1);
	ck_assert(is_stopped());
	all_is_well(live);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_EMPTY);
	tell(0, use);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_NO);
	tell(0, give_kept);
	all_is_well(live - 1);
	end(1);
	all_is_well(live - 1);
}
END_TEST

/* What brings a thread by, whatever was done to its cache. */
static void
allocate(void)
{
	kept[keeps++] = take(SIZE);
}

static void
allocate_large(void)
{
	give(take(2 * HZ4_CLASS_MAX));
}

static void
trim(void)
{
	hz4_heap_trim();
}

static void
reallocate(void)
{
	void *p = kept[keeps - 1], *to = hz4_heap_realloc(p, SIZE - 1);

	unit_need(to == p, "moved");
}

static void (*const comes_by[])(void) = {
	allocate, give_kept, allocate_large, trim, reallocate, NULL
};

enum { WAYS = sizeof comes_by / sizeof *comes_by };

START_TEST(a_thread_that_comes_by_is_awake)
{
	enum hz4_idle state = (enum hz4_idle)(_i / WAYS + 1);
	void (*by)(void) = comes_by[_i % WAYS];
	void *latest;
	size_t live;

	start(1, fill);
	tell(0, keep);
	tell(0, keep);
	live = figure(true) - 2;
	step_until(state);
	/* That of a careful class is looked at. */
	theirs->tier[cls].calls = by == reallocate ? 0 : HZ4_CAREFUL_CALLS;
	latest = hz4_peek(&theirs->stack[cls].top)[-1];
	tell(0, by);
	if (by == NULL) {
		ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_NO);
		start_one(0, use);
		ck_assert_ptr_eq(sleeper[0].cache, theirs);
	} else if (state != HZ4_IDLE_ASKED || by == allocate_large ||
		   by == trim || by == reallocate) {
		ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_NO);
		ck_assert(by != allocate || kept[keeps - 1] == latest);
	}
	ck_assert(has_room());
	ck_assert_uint_eq(hz4_peek(&theirs->inside), 0);
	all_is_well(live + keeps);
	tell(0, use);
	burst(SIZE, MANY);
	while (keeps > 0)
		tell(0, give_kept);
	all_is_well(live);
	end(1);
	all_is_well(live);
}
END_TEST

static void
free_twice(void *arg)
{
	hz4_heap_free(arg);
	hz4_heap_free(arg);
}

static void *freed;

static void
free_again_in_child(void)
{
	unit_fatal_start(free_twice, freed, "hz4: free(): double free: ptr ");
}

/* Those that went were freed here: if they are once more, that is found. */
START_TEST(classes_are_careful_after_it)
{
	start(1, fill);
	freed = hz4_peek(&theirs->stack[cls].base)[1];
	step_until(HZ4_IDLE_EMPTY);
	tell(0, free_again_in_child);
	tell(0, keep);
	ck_assert_uint_lt(theirs->tier[cls].calls, HZ4_CAREFUL_CALLS);
	freed = hz4_peek(&theirs->stack[cls].base)[1];
	tell(0, free_again_in_child);
	tell(0, give_kept);
	end(1);
}
END_TEST

/* --- calls that are under way ---------------------------------------------- */

/* So many stay in the stack. */
static void
leave(size_t n)
{
	while (count() > n)
		tell(0, keep);
}

/*
 * A fast path was cut off when it had read all it wants, and ends later: begun
 * before the step to state `_i % 3` (1: it began before the thread was asked),
 * and done before that to another.
 */
START_TEST(a_call_is_under_way)
{
	static const size_t held[] = { 0, 1, 2, 3, 30 };
	const bool frees = _i % 2;
	const enum hz4_idle begins = (enum hz4_idle)(_i / 2 % 3);
	const size_t n = held[_i / 6 % 5];
	enum hz4_idle ends;
	struct hz4_stack *s;
	void **top, *p = NULL;
	size_t live;

	for (ends = begins + 1; ends <= HZ4_IDLE_EMPTY + 1; ends++) {
		keeps = 0;
		start(1, fill);
		tell(0, keep);
		leave(n);
		/* A full one takes no more. */
		if (frees && n >= theirs->tier[cls].limit)
			return;
		live = figure(true) - keeps;
		s = &theirs->stack[cls];
		if (begins != HZ4_IDLE_NO)
			step_until(begins);
		top = hz4_peek(&s->top);
		if (!frees && n > 0)
			p = top[-1];
		if (begins != ends - 1 || ends <= HZ4_IDLE_EMPTY)
			step_until(hz4_min(ends, HZ4_IDLE_EMPTY));
		if (frees) {
			p = kept[--keeps];
			*(uintptr_t *)p = 0;
			*top = p;
			atomic_store_explicit(&s->top, top + 1,
					      memory_order_release);
		} else if (n > 0) {
			unit_need(*(uintptr_t *)p == 0, "%p is used", p);
			*(uintptr_t *)p = (uintptr_t)p;
			hz4_poke(&s->top, top - 1);
			kept[keeps++] = p;
		}
		all_is_well(live + keeps);
		step_until(HZ4_IDLE_EMPTY);
		ck_assert_uint_le(count(), 2);
		all_is_well(live + keeps);
		tell(0, allocate_large);
		ck_assert_uint_le(count(), theirs->tier[cls].limit);
		tell(0, use);
		burst(SIZE, MANY);
		all_is_well(live + keeps);
		while (keeps > 0)
			tell(0, give_kept);
		tell(0, use);
		end(1);
		all_is_well(live);
	}
}
END_TEST

/* It was asked meanwhile: that a slow path is under way keeps all off. */
START_TEST(who_is_inside_is_left_alone)
{
	size_t had;

	start(1, fill);
	had = count();
	if (_i > 0)
		step_until((enum hz4_idle)_i);
	hz4_poke(&theirs->inside, 1);
	step(HZ4_IDLE_ROUND);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), (unsigned)_i);
	ck_assert_uint_eq(count(), had);
	hz4_heap_trim();
	ck_assert_uint_eq(hz4_peek(&theirs->idle), (unsigned)_i);
	ck_assert_uint_eq(count(), had);
	hz4_poke(&theirs->inside, 0);
	step_until(HZ4_IDLE_EMPTY);
	end(1);
}
END_TEST

/* The thread has come by between two looks of who empties it. */
START_TEST(who_has_the_lock_is_left_alone)
{
	size_t had;

	start(1, fill);
	had = count();
	step_until(HZ4_IDLE_STOPPED);
	hz4_lock_acquire(&theirs->lock);
	/* Another thread's step. */
	hz4_tls_held = 0;
	step(HZ4_IDLE_ROUND);
	hz4_tls_held = 1u << HZ4_RANK_CACHE;
	hz4_lock_release(&theirs->lock);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_STOPPED);
	ck_assert_uint_eq(count(), had);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(count(), 1);
	end(1);
}
END_TEST

/* A handler's call came before the outer one had looked. */
static void
call_within_a_call(void)
{
	struct hz4_cache *c = hz4_thread_cache();

	hz4_poke(&c->inside, 1);
	give(take(SIZE));
	use();
	hz4_poke(&c->inside, 0);
}

START_TEST(a_call_within_a_call_wakes)
{
	start(1, fill);
	step_until((enum hz4_idle)_i);
	tell(0, call_within_a_call);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), _i == HZ4_IDLE_ASKED ?
							   HZ4_IDLE_ASKED :
							   HZ4_IDLE_NO);
	ck_assert(has_room());
	ck_assert_uint_eq(hz4_check(), 0);
	end(1);
}
END_TEST

static void
call_while_it_wakes(void)
{
	struct hz4_cache *c = hz4_thread_cache();
	uint32_t state = hz4_peek(&c->idle);

	c->waking = true;
	hz4_poke(&c->inside, 1);
	use();
	unit_need(hz4_peek(&c->idle) == state, "awake");
	c->waking = false;
	hz4_poke(&c->inside, 0);
}

/* It does without. */
START_TEST(a_call_while_it_wakes_is_bare)
{
	start(1, fill);
	step_until(HZ4_IDLE_EMPTY);
	tell(0, call_while_it_wakes);
	ck_assert_uint_eq(count(), 1);
	ck_assert_uint_eq(hz4_check(), 0);
	end(1);
}
END_TEST

/* Spans change, and may become empty, when these are given back. */
static void
fill_more(void)
{
	fill();
	burst(3000, MANY);
	burst(3000, MANY);
	burst(20000, MANY);
	burst(20000, MANY);
}

/* libc's clock is wrapped by who allocates, wherever it is called. */
START_TEST(the_clock_may_allocate)
{
	start(2, fill_more);
	wraps = 1;
	step(HZ4_IDLE_ROUND);
	step(HZ4_IDLE_ROUND);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(count(), 1);
	tell(1, fill_more);
	hz4_heap_trim();
	wraps = 0;
	ck_assert_uint_eq(hz4_cache_count(sleeper[1].cache, cls), 1);
	ck_assert_uint_eq(hz4_check(), 0);
	end(2);
}
END_TEST

/* --- bounds ---------------------------------------------------------------- */

static void
grow(void)
{
	size_t size;
	unsigned i;

	for (i = 0; i < 40; i++)
		for (size = 16; size <= 16 * CLASSES; size += 16)
			burst(size, MANY);
}

static void
grow_by_turns(void)
{
	unsigned i;

	for (i = 0; i < 12; i++)
		grow();
	for (i = 0; i < 4000; i++)
		burst(2048, MANY / 4);
	for (i = 0; i < 4000; i++)
		burst(1024, MANY);
}

static size_t
granted_but_own(struct hz4_cache *c)
{
	return c->granted - c->taken;
}

/* Limits fall, and others may have what it took of the pool. */
START_TEST(its_share_goes_back)
{
	size_t own;

	start(1, grow_by_turns);
	ck_assert_uint_gt(theirs->taken, 0);
	ck_assert_uint_eq(hz4_share_taken(), theirs->taken);
	ck_assert_uint_gt(theirs->tier[cls].limit, 1);
	own = granted_but_own(theirs);
	step_until(HZ4_IDLE_STOPPED);
	ck_assert_uint_gt(theirs->taken, 0);
	/* It may have more than is seen to at once. */
	while (hz4_peek(&theirs->idle) != HZ4_IDLE_EMPTY)
		step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(theirs->taken, 0);
	ck_assert_uint_eq(hz4_share_taken(), 0);
	ck_assert_uint_eq(theirs->tier[cls].limit, 1);
	ck_assert_uint_eq(granted_but_own(theirs), own);
	ck_assert_uint_eq(hz4_check(), 0);
	tell(0, grow_by_turns);
	ck_assert_uint_gt(theirs->taken, 0);
	ck_assert_uint_eq(hz4_check(), 0);
	/* The next thread's part of it likewise, when it stays away. */
	end(1);
	ck_assert_uint_gt(theirs->taken, 0);
	ck_assert_uint_le(theirs->granted, HZ4_END_MOST);
	ck_assert_uint_eq(hz4_share_taken(), theirs->taken);
	while (hz4_peek(&theirs->idle) != HZ4_IDLE_EMPTY)
		step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(hz4_share_taken(), 0);
}
END_TEST

static unsigned
in_state(unsigned n, enum hz4_idle state)
{
	unsigned i, found = 0;

	for (i = 0; i < n; i++)
		found += hz4_peek(&sleeper[i].cache->idle) == state;
	return found;
}

/*
 * So many threads at once, the others a grace later, and nobody twice within
 * one, however long the round has taken.
 */
START_TEST(a_round_sees_to_some_threads_at_once)
{
	const unsigned n = SLEEPERS_MOST, at_once = HZ4_IDLE_THREADS;
	unsigned i;

	start(n, fill);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(in_state(n, HZ4_IDLE_ASKED), at_once);
	step(HZ4_IDLE_GRACE - 1);
	ck_assert_uint_eq(in_state(n, HZ4_IDLE_ASKED), at_once);
	step(1 + 2 * HZ4_IDLE_ROUND);
	ck_assert_uint_eq(in_state(n, HZ4_IDLE_ASKED), n);
	step(0);
	step(HZ4_IDLE_GRACE - 1);
	ck_assert_uint_eq(in_state(n, HZ4_IDLE_ASKED), n);
	for (i = 0; i < 8; i++)
		step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(in_state(n, HZ4_IDLE_EMPTY), n);
	ck_assert_uint_eq(hz4_check(), 0);
	end(n);
}
END_TEST

/* So many objects at once, of all threads together; then it goes on. */
START_TEST(a_round_sees_to_some_objects_at_once)
{
	const unsigned n = 2 + HZ4_IDLE_OBJECTS / 200;
	size_t had, has;
	unsigned steps;

	start(n, grow);
	step(HZ4_IDLE_ROUND);
	step(HZ4_IDLE_ROUND);
	ck_assert_uint_eq(in_state(n, HZ4_IDLE_STOPPED), n);
	had = figure(false);
	unit_need(had > 2 * HZ4_IDLE_OBJECTS, "%zu", had);
	pass(HZ4_IDLE_ROUND);
	for (steps = 0; in_state(n, HZ4_IDLE_EMPTY) < n; steps++) {
		unit_need(steps < 100, "no end");
		step(0);
		has = figure(false);
		ck_assert_uint_le(had - has, HZ4_IDLE_OBJECTS);
		had = has;
		step(HZ4_IDLE_GRACE - 1);
		ck_assert_uint_eq(figure(false), has);
		pass(1);
	}
	ck_assert_uint_gt(steps, 2);
	ck_assert_uint_eq(hz4_check(), 0);
	end(n);
}
END_TEST

/* Who was off its processor begins the grace when it is done. */
START_TEST(the_grace_begins_with_the_end_of_a_step)
{
	uint64_t now;

	start(1, fill);
	pass(5 * HZ4_IDLE_ROUND);
	now = hz4_os_now();
	step_at(now - 3 * HZ4_IDLE_ROUND);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_ASKED);
	step_at(now);
	step_at(now + HZ4_IDLE_GRACE - 1);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_ASKED);
	step_at(now + HZ4_IDLE_GRACE);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_STOPPED);
	end(1);
}
END_TEST

/* --- trim ------------------------------------------------------------------ */

START_TEST(a_trim_reaches_all_sleepers)
{
	const unsigned n = 64;
	size_t had;

	start(n, fill);
	had = figure(false);
	ck_assert_uint_gt(had, 4 * n);
	hz4_heap_trim();
	ck_assert_uint_eq(in_state(n, HZ4_IDLE_EMPTY), n);
	/* One of its class each. */
	ck_assert_uint_eq(figure(false), n);
	all_is_well(0);
	hz4_heap_trim();
	ck_assert_uint_eq(figure(false), n);
	/* No step follows at once. */
	tell(0, keep);
	tell(0, give_kept);
	step(0);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_NO);
	step(HZ4_IDLE_GRACE);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_ASKED);
	end(n);
	all_is_well(0);
}
END_TEST

static void
step_and_stop(void)
{
	uint64_t now;

	pass(HZ4_IDLE_ROUND);
	now = hz4_os_now();
	stopping = true;
	step_at(now);
}

static void *
go_on_soon(void *arg)
{
	unit_sleep(20);
	hz4_poke(&stops, 2);
	return arg;
}

START_TEST(a_trim_waits_for_a_step)
{
	const unsigned n = 8;
	pthread_t id;

	start(n, fill);
	sleeper[1].work = step_and_stop;
	pthread_barrier_wait(&sleeper[1].begin);
	while (hz4_peek(&stops) == 0)
		sched_yield();
	ck_assert_int_eq(pthread_create(&id, NULL, go_on_soon, NULL), 0);
	hz4_heap_trim();
	ck_assert_uint_eq(hz4_peek(&stops), 2);
	pthread_join(id, NULL);
	pthread_barrier_wait(&sleeper[1].end);
	ck_assert_uint_ge(in_state(n, HZ4_IDLE_EMPTY), n - 1);
	end(n);
	all_is_well(0);
}
END_TEST

/* Nobody empties its cache meanwhile, not even it. */
START_TEST(who_trims_is_awake)
{
	start(1, fill);
	fill();
	hz4_heap_trim();
	ck_assert_uint_eq(hz4_peek(&hz4_tls_cache->idle), HZ4_IDLE_NO);
	ck_assert_uint_eq(hz4_peek(&hz4_tls_cache->inside), 0);
	ck_assert_uint_eq(count(), 1);
	end(1);
}
END_TEST

/* --- threads that work ----------------------------------------------------- */

static _Atomic bool stop;

/* Fast paths only, but for where it was stopped. */
static void
hit_until_stopped(void)
{
	void *p = take(SIZE);

	while (!hz4_peek(&stop)) {
		give(p);
		p = take(SIZE);
	}
	give(p);
}

static void *
work_until_stopped(void *arg)
{
	uint64_t seed = (uintptr_t)arg + 1;
	void *p[64] = { NULL };
	size_t i;

	while (!hz4_peek(&stop)) {
		i = unit_below(&seed, 64);
		if (p[i] != NULL)
			give(p[i]);
		p[i] = p[i] == NULL ? take(16 + unit_below(&seed, 600)) : NULL;
		if (unit_below(&seed, 2000) == 0)
			unit_sleep((unsigned)unit_below(&seed, 12));
	}
	for (i = 0; i < 64; i++)
		if (p[i] != NULL)
			give(p[i]);
	return NULL;
}

static void *
step_until_stopped(void *arg)
{
	unsigned i;

	for (i = 0; i < 100; i++) {
		/* That takes a grace by any clock. */
		unit_sleep(2);
		if (i % 20 == 19)
			hz4_heap_trim();
		else
			step(HZ4_IDLE_ROUND);
	}
	hz4_poke(&stop, true);
	return arg;
}

static void *
hit_in_thread(void *arg)
{
	hit_until_stopped();
	return arg;
}

/* One only hits, others sleep now and then; two see to them. */
START_TEST(threads_work_on)
{
	pthread_t id[6];
	uintptr_t i;

	hz4_thread_start();
	for (i = 0; i < 6; i++)
		ck_assert_int_eq(pthread_create(&id[i], NULL,
						i == 0 ? hit_in_thread :
						i < 4 ? work_until_stopped :
							step_until_stopped,
						(void *)i),
				 0);
	for (i = 0; i < 6; i++)
		pthread_join(id[i], NULL);
	hz4_heap_trim();
	ck_assert_uint_eq(figure(true), 0);
	ck_assert_uint_eq(figure(false), 0);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Whatever was done to its cache before, and is while it is nobody's. */
START_TEST(the_next_thread_finds_it_whole)
{
	const enum hz4_idle before = (enum hz4_idle)(_i / 4);
	const enum hz4_idle after = (enum hz4_idle)(_i % 4);
	size_t had;

	start(1, fill);
	if (before != HZ4_IDLE_NO)
		step_until(before);
	had = count();
	tell(0, NULL);
	ck_assert_uint_eq(count(), had);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_NO);
	if (after != HZ4_IDLE_NO)
		step_until(after);
	/* Ended, it is one that stays away. */
	ck_assert_uint_eq(count(), after == HZ4_IDLE_EMPTY ? 1 : had);
	start_one(0, keep);
	ck_assert_ptr_eq(sleeper[0].cache, theirs);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_NO);
	tell(0, fill);
	ck_assert_uint_gt(count(), 8);
	tell(0, give_kept);
	all_is_well(0);
	end(1);
}
END_TEST

/* In the middle of a change of its cache, by a wrapper. */
START_TEST(a_thread_that_ends_inside_leaves_all)
{
	size_t had;

	start(1, fill);
	had = count();
	hz4_poke(&theirs->busy, cls);
	hz4_cache_end(theirs);
	ck_assert_uint_eq(count(), had);
	ck_assert_uint_eq(hz4_peek(&theirs->inside), 0);
	hz4_poke(&theirs->busy, HZ4_CLS_NONE);
	end(1);
}
END_TEST

/* Also one that others have emptied but for one of each class. */
START_TEST(a_trim_empties_that_of_an_ended_thread)
{
	const enum hz4_idle state = (enum hz4_idle)_i;

	start(1, fill);
	tell(0, NULL);
	if (state != HZ4_IDLE_NO)
		step_until(state);
	ck_assert_uint_gt(count(), 0);
	hz4_thread_flush_ended();
	ck_assert_uint_eq(count(), 0);
	ck_assert_uint_eq(hz4_peek(&theirs->idle), HZ4_IDLE_NO);
	all_is_well(0);
}
END_TEST

/* --- forks ----------------------------------------------------------------- */

/* To stop has a place for each class. */
#define FORKS_EACH(state) ((state) == HZ4_IDLE_ASKED ? 9u : 1u)

/* Which place of a step, and who forks there. */
static struct {
	unsigned place, at;
	int who;
	bool forked;
	bool locked; /* the first one's cache, by who is gone then */
} fork_at;

/* Of what lay in the caches none is handed out twice. */
static void
live_on(void *arg)
{
	unsigned i;

	(void)arg;
	/* Not all of its stacks need be stopped. */
	hz4_fork_look();
	if (fork_at.locked)
		unit_child_need(hz4_peek(&theirs->idle) <= HZ4_IDLE_ASKED);
	for (i = 0; i < 4; i++) {
		use();
		burst(SIZE, 20);
	}
	while (keeps > 0)
		give_kept();
	hz4_heap_trim();
	unit_child_need((hz4_tls_held & 1u << HZ4_RANK_CACHE) != 0 ||
			hz4_tls_cache == &hz4_empty_cache ||
			hz4_peek(&hz4_tls_cache->idle) == HZ4_IDLE_NO);
	use();
}

static void
fork_and_live_on(void)
{
	unit_survives(live_on, NULL);
}

static void *
fork_anew(void *arg)
{
	fork_and_live_on();
	return arg;
}

/* Who empties comes to a place. */
static void
fork_hook(void)
{
	if (fork_at.forked || fork_at.place++ != fork_at.at)
		return;
	fork_at.forked = true;
	fork_at.locked = hz4_peek(&theirs->lock.word) != 0;
	if (fork_at.who < 2)
		tell((unsigned)fork_at.who, fork_and_live_on);
	else
		unit_thread(fork_anew, NULL);
}

/*
 * The thread whose cache is stopped or emptied forks, or another sleeper, or
 * one that is new: the child finds the lock of a thread that is gone.
 */
START_TEST(others_fork_at_any_place_of_a_step)
{
	const enum hz4_idle state = _i % 2 ? HZ4_IDLE_ASKED : HZ4_IDLE_STOPPED;

	fork_at.who = _i / 2;
	start(2, fill);
	for (fork_at.at = 0;; fork_at.at += FORKS_EACH(state)) {
		tell(0, fill);
		tell(0, keep);
		step_until(state);
		fork_at.place = 0;
		fork_at.forked = false;
		hz4_poke(&hz4_chaos_hook, fork_hook);
		hz4_poke(&hz4_chaos_one_in, 1);
		step(HZ4_IDLE_ROUND);
		hz4_poke(&hz4_chaos_one_in, 0);
		ck_assert_uint_eq(hz4_peek(&theirs->idle), state + 1);
		if (!fork_at.forked)
			break;
		tell(0, give_kept);
		ck_assert_uint_eq(hz4_check(), 0);
	}
	ck_assert_uint_gt(fork_at.at, 2);
	end(2);
}
END_TEST

static bool in_child;

/* A handler of who empties.  In its child threads are looked for, too. */
static void
fork_here(void)
{
	uint32_t held = hz4_tls_held;
	int status;
	pid_t pid;

	if (fork_at.forked || fork_at.place++ != fork_at.at)
		return;
	fork_at.forked = true;
	pid = fork();
	if (pid != 0) {
		unit_need(waitpid(pid, &status, 0) == pid && status == 0,
			  "at %u: %x", fork_at.at, (unsigned)status);
		return;
	}
	in_child = true;
	alarm(UNIT_LIMIT / 8);
	/* Builds that check ranks would not like it. */
	hz4_tls_held = 0;
	unit_child_need(figure(false) > 0);
	hz4_tls_held = held;
}

/* The child goes on with the step; then that cache is one of the pool. */
START_TEST(a_handler_forks_at_any_place_of_a_step)
{
	const enum hz4_idle state = _i ? HZ4_IDLE_ASKED : HZ4_IDLE_STOPPED;

	start(1, fill);
	for (fork_at.at = 0;; fork_at.at += FORKS_EACH(state)) {
		tell(0, fill);
		step_until(state);
		fork_at.place = 0;
		fork_at.forked = false;
		hz4_poke(&hz4_chaos_hook, fork_here);
		hz4_poke(&hz4_chaos_one_in, 1);
		step(HZ4_IDLE_ROUND);
		hz4_poke(&hz4_chaos_one_in, 0);
		if (in_child) {
			live_on(NULL);
			hz4_heap_trim();
			/* It was adopted, when its lock was free. */
			unit_child_need(figure(false) == 0);
			_exit(0);
		}
		if (!fork_at.forked)
			break;
	}
	ck_assert_uint_gt(fork_at.at, 2);
	end(1);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, asked_stopped_emptied);
	tcase_add_loop_test(t, a_thread_that_comes_by_is_awake, 0, 3 * WAYS);
	tcase_add_test(t, classes_are_careful_after_it);
	tcase_add_loop_test(t, a_call_is_under_way, 0, 30);
	tcase_add_loop_test(t, who_is_inside_is_left_alone, 0, 3);
	tcase_add_test(t, who_has_the_lock_is_left_alone);
	tcase_add_loop_test(t, a_call_within_a_call_wakes, 1, 4);
	tcase_add_test(t, a_call_while_it_wakes_is_bare);
	tcase_add_test(t, the_clock_may_allocate);
	tcase_add_test(t, its_share_goes_back);
	tcase_add_test(t, a_round_sees_to_some_threads_at_once);
	tcase_add_test(t, a_round_sees_to_some_objects_at_once);
	tcase_add_test(t, the_grace_begins_with_the_end_of_a_step);
	tcase_add_test(t, a_trim_reaches_all_sleepers);
	tcase_add_test(t, a_trim_waits_for_a_step);
	tcase_add_test(t, who_trims_is_awake);
	tcase_add_test(t, threads_work_on);
	tcase_add_loop_test(t, the_next_thread_finds_it_whole, 0, 16);
	tcase_add_test(t, a_thread_that_ends_inside_leaves_all);
	tcase_add_loop_test(t, a_trim_empties_that_of_an_ended_thread, 0,
			    HZ4_IDLE_EMPTY + 1);
	if (!HZ4_DEBUG_BOX)
		return;
	tcase_add_loop_test(t, others_fork_at_any_place_of_a_step, 0, 6);
	tcase_add_loop_test(t, a_handler_forks_at_any_place_of_a_step, 0, 2);
}

int
main(void)
{
	return unit_main("idle", add);
}
