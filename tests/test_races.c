/*
 * test_races.c - races, played out.  One thread takes a step (a batch that
 * is given, a span that is drained, a nudge that is undone) and stops at one
 * of the places that HZ4_CHAOS marks; another thread does all of its own
 * there, and the first goes on.  Once for each place that the step has, so
 * that no interleaving of the two is left to chance.
 *
 * Afterwards nothing may be lost, and nothing be there twice.
 *
 * Two races are for ThreadSanitizer to see: no processor that these tests run
 * on need show them.
 */
#include "unit.h"

#include "heap.h"
#include "l1.h"
#include "meta.h"
#include "option.h"
#include "pageheap.h"
#include "shard.h"
#include "spanlists.h"
#include "transfer.h"
#include "walker.h"

enum {
	SMALL = 16,	     /* 256 bytes: a span of several words */
	BIG = HZ4_CLS_ZERO - 1, /* a span for each object */
	PLACES_MOST = 400,
};

static unsigned cls;

static struct {
	bool armed;	/* the first thread is in its step */
	bool locks;	/* the other one wants the class's lock */
	bool same_thread; /* the other is a handler of the first */
	bool met;	/* it has come in */
	unsigned place; /* that the first has come to */
	unsigned at;	/* where the other one comes in */
	void (*other)(void);
} race;

static void *
be_the_other(void *arg)
{
	race.other();
	return arg;
}

static void
let_other(void)
{
	if (race.same_thread)
		race.other();
	else
		unit_thread(be_the_other, NULL);
}

/* It would wait for the first thread, which waits for it. */
static bool
is_locked(void)
{
	unsigned shard;

	for (shard = 0; shard < HZ4_SHARDS; shard++)
		if (hz4_peek(&hz4_lists_at(shard, cls)->lock.word) != 0)
			return true;
	return false;
}

static void
hook(void)
{
	if (!race.armed || race.place++ != race.at ||
	    (race.locks && is_locked()))
		return;
	race.armed = false;
	race.met = true;
	let_other();
	race.armed = true;
}

/*
 * Play one round: the other comes in at the place `at` of the step, or after
 * it.  True if there is such a place.
 */
static bool
play(unsigned at, void (*step)(void), void (*other)(void))
{
	race.met = false;
	race.place = 0;
	race.at = at;
	race.other = other;
	hz4_poke(&hz4_chaos_hook, hook);
	race.armed = true;
	hz4_poke(&hz4_chaos_one_in, 1);
	step();
	hz4_poke(&hz4_chaos_one_in, 0);
	race.armed = false;
	if (!race.met)
		let_other();
	unit_need(at < PLACES_MOST, "the step has no end");
	return race.place > at;
}

static void *object[1024];
static void *got[HZ4_BATCH_MAX];
static unsigned got_count, first, second;

static unsigned
take(void **objects, unsigned want)
{
	unsigned path;

	return hz4_transfer_take(cls, objects, want, &path);
}

static void
give(void **objects, unsigned n)
{
	unsigned path;

	hz4_transfer_give(cls, objects, n, 1, &path);
}

static size_t
spans(void)
{
	struct hz4_spans_figures f;

	hz4_spans_figures(cls, &f);
	return f.spans;
}

static size_t
waiting(void)
{
	size_t n = 0;
	unsigned shard;

	for (shard = 0; shard < HZ4_SHARDS; shard++)
		n += hz4_peek(&hz4_lists_at(shard, cls)->waiting);
	return n;
}

/* All objects of one new span, which is in no list then. */
static unsigned
take_a_span(unsigned c)
{
	unsigned n = 0, all;

	cls = c;
	all = hz4_classes[cls].slots;
	ck_assert_uint_le(all, sizeof object / sizeof *object);
	while (n < all)
		n += take(object + n, HZ4_BATCH_MAX - 1);
	ck_assert_uint_eq(spans(), 1);
	ck_assert_uint_eq(n, all);
	return all;
}

/*
 * All that was taken goes back, but for objects from `free` on: `n` are in
 * the span already.  Nothing is left then.
 */
static void
put_all_back(unsigned n)
{
	unsigned i, all = hz4_classes[cls].slots;

	for (i = n; i < all; i++)
		give(&object[i], 1);
	give(got, got_count);
	got_count = 0;
	hz4_spans_settle();
	ck_assert_uint_eq(waiting(), 0);
	hz4_spans_trim();
	ck_assert_uint_eq(spans(), 0);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
}

/* Nothing but `n` objects of the one span is free, and that is found. */
static void
find_free(unsigned n)
{
	unsigned i, k;

	while (got_count < n) {
		k = take(got + got_count, n - got_count);
		unit_need(k > 0 && spans() == 1, "at %u: %u of %u are lost",
			  race.at, n - got_count, n);
		got_count += k;
	}
	for (i = 0; i < n; i++)
		for (k = 0; k < i; k++)
			unit_need(got[i] != got[k], "at %u: %p twice", race.at,
				  got[i]);
}

static void
give_first(void)
{
	give(&object[first], 1);
}

static void
give_second(void)
{
	give(&object[second], 1);
}

static void
begin(int spread)
{
	ck_assert(!spread || hz4_option_assign("shards=8", 8));
	hz4_thread_start();
}

/* More is wanted than the span has: it is drained, and left by its list. */
static void
drain_it(void)
{
	got_count = take(got, HZ4_BATCH_MAX);
}

START_TEST(a_giver_comes_while_a_span_is_drained)
{
	bool met = true;
	unsigned at;

	begin(_i);
	for (at = 0; met; at++) {
		take_a_span(SMALL);
		first = 1;
		second = 2; /* in the same word */
		give_first();
		met = play(at, drain_it, give_second);
		unit_need(got_count >= 1, "at %u: nothing", at);
		find_free(2);
		/* Both lie in `got` now. */
		object[1] = object[0];
		object[2] = got[--got_count];
		object[1] = got[--got_count];
		put_all_back(0);
	}
	ck_assert_uint_gt(at, 3);
}
END_TEST

START_TEST(two_give_at_once)
{
	static const unsigned others[] = { 2, 100 };
	bool met = true;
	unsigned at;

	begin(_i & 1);
	for (at = 0; met; at++) {
		take_a_span(SMALL);
		first = 1;
		second = others[_i >> 1]; /* in this word, or in another */
		met = play(at, give_first, give_second);
		find_free(2);
		object[first] = got[--got_count];
		object[second] = got[--got_count];
		put_all_back(0);
	}
	ck_assert_uint_gt(at, 3);
}
END_TEST

/* The last two objects of a span: one of the two givers sees it empty. */
START_TEST(two_givers_empty_a_span)
{
	bool met = true;
	unsigned at, all;

	begin(_i);
	for (at = 0; met; at++) {
		all = take_a_span(SMALL);
		first = 0;
		second = all - 1;
		give(object + 1, all - 2);
		met = play(at, give_first, give_second);
		hz4_spans_settle();
		ck_assert_uint_eq(hz4_spans_idle(),
				  hz4_classes[cls].pages * HZ4_PAGE);
		put_all_back(all);
	}
}
END_TEST

/* The only free object of a span goes, and the next one comes. */
START_TEST(a_span_is_drained_while_one_gives)
{
	bool met = true;
	unsigned at;

	begin(_i);
	race.locks = true;
	for (at = 0; met; at++) {
		take_a_span(SMALL);
		first = 1;
		second = 2;
		give_second();
		hz4_spans_settle();
		met = play(at, give_first, drain_it);
		find_free(2);
		object[1] = object[0];
		object[2] = got[--got_count];
		object[1] = got[--got_count];
		put_all_back(0);
	}
	ck_assert_uint_gt(at, 1);
}
END_TEST

static void
give_rest_and_trim(void)
{
	unsigned i;

	for (i = 0; i < hz4_classes[cls].slots; i++)
		if (i != first)
			give(&object[i], 1);
	hz4_spans_trim();
}

/* Its pages are gone by the time that a giver tells of the span. */
START_TEST(a_span_goes_while_a_giver_tells_of_it)
{
	bool met = true;
	unsigned at;

	begin(_i & 1);
	race.locks = true;
	for (at = 0; met; at++) {
		unsigned all = take_a_span(_i < 2 ? BIG : SMALL);

		first = all / 2;
		met = play(at, give_first, give_rest_and_trim);
		put_all_back(all);
		hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
	}
	ck_assert_uint_gt(at, 3);
}
END_TEST

/* All objects of a span whose slab has no other. */
static unsigned
take_a_span_alone(void)
{
	const unsigned all = hz4_classes[SMALL].slots;
	struct hz4_span *s;
	unsigned n;

	cls = SMALL;
	do
		for (n = 0; n < all; n += take(object + n, all - n))
			;
	while (s = hz4_transfer_span(object[0], cls), s->slab->older == NULL);
	unit_need(s == hz4_transfer_span(object[all - 1], cls) &&
			  (hz4_peek(&s->slab->unused) |
			   hz4_slab_bit(s->slab, s)) ==
				  hz4_slab_all(s->slab),
		  "not alone");
	return all;
}

/* And so is its structure, to zeros. */
START_TEST(a_slab_goes_while_a_giver_tells_of_it)
{
	struct hz4_slab *slab;
	bool met = true;
	unsigned at, all;

	begin(_i);
	race.locks = true;
	for (at = 0; met; at++) {
		all = take_a_span_alone();
		slab = hz4_transfer_span(object[0], cls)->slab;
		first = all / 2;
		met = play(at, give_first, give_rest_and_trim);
		hz4_spans_settle();
		ck_assert_uint_eq(waiting(), 0);
		hz4_spans_trim();
		ck_assert(slab->purged);
	}
	ck_assert_uint_gt(at, 3);
}
END_TEST

static void
take_two(void)
{
	got_count = take(got, 1);
	got_count += take(got + got_count, 1);
}

/* The other may find what is given, or have a new span for itself. */
START_TEST(a_taker_comes_while_one_gives)
{
	bool met = true;
	unsigned at;

	begin(_i);
	race.locks = true;
	for (at = 0; met; at++) {
		take_a_span(SMALL);
		first = 1;
		met = play(at, give_first, take_two);
		unit_need(got_count == 2 && got[0] != got[1] &&
				  got[1] != object[2],
			  "at %u: %u objects", at, got_count);
		object[1] = object[0];
		put_all_back(1);
	}
}
END_TEST

static void
unlock_it(void)
{
	hz4_spans_unlock(hz4_lists_at(0, cls));
}

/* Who holds the lock sees to what others have left, however late. */
START_TEST(a_giver_comes_while_the_lock_is_dropped)
{
	bool met = true;
	unsigned at;

	begin(0);
	for (at = 0; met; at++) {
		take_a_span(SMALL);
		first = 1;
		hz4_spans_lock(cls);
		met = play(at, unlock_it, give_first);
		ck_assert_uint_eq(waiting(), 0);
		find_free(1);
		object[1] = got[--got_count];
		put_all_back(0);
	}
}
END_TEST

static void
settle_it(void)
{
	hz4_spans_settle();
}

static void
give_all_but_first(void)
{
	unsigned i;

	for (i = 0; i < hz4_classes[cls].slots; i++)
		if (i != first)
			give(&object[i], 1);
}

/* A span that is being seen to becomes empty: somebody has to see that. */
START_TEST(a_span_becomes_empty_while_it_is_settled)
{
	bool met = true;
	unsigned at, all;

	begin(1);
	for (at = 0; met; at++) {
		all = take_a_span(SMALL);
		first = 1;
		give_first();
		met = play(at, settle_it, give_all_but_first);
		put_all_back(all);
	}
	ck_assert_uint_gt(at, 1);
}
END_TEST

/*
 * A signal's handler forks in the midst of a step: its child starts afresh,
 * and goes on with the step.
 */
static void
fork_here(void)
{
	hz4_spans_fork_child();
}

START_TEST(a_handler_forks_at_any_place_of_a_give)
{
	bool met = true;
	unsigned at;

	begin(_i);
	race.same_thread = true;
	for (at = 0; met; at++) {
		take_a_span(SMALL);
		first = 1;
		met = play(at, give_first, fork_here);
		find_free(1);
		object[1] = got[--got_count];
		put_all_back(0);
	}
	ck_assert_uint_gt(at, 3);
}
END_TEST

/* --- caches ---------------------------------------------------------------- */

enum { SIZE = 256, FULL = 200 };

/* What the user has; the rest lies in caches or spans. */
static void *held[FULL];
static unsigned held_count;

static void
hold(unsigned n)
{
	for (; n > 0; n--) {
		held[held_count] = hz4_heap_malloc(SIZE);
		unit_need(held[held_count] != NULL, "no memory");
		held_count++;
	}
}

static void
free_one(void)
{
	hz4_heap_free(held[--held_count]);
}

static void
hold_one(void)
{
	hold(1);
}

static void
drop_shelf(const struct hz4_l1 *l, void *arg)
{
	struct hz4_shelf *s = &((struct hz4_l1 *)(uintptr_t)l)->shelf[cls];

	(void)arg;
	s->array = NULL;
	s->room = 0;
}

/*
 * Nothing is cached, the user has so many, and the class's arrays are as at a
 * thread's start, so that they grow again in each round.
 */
static void
begin_round(unsigned keep)
{
	struct hz4_cache *c = hz4_thread_cache();
	struct hz4_tier *t;

	cls = hz4_sizeclass(SIZE);
	while (held_count < keep)
		hold(1);
	while (held_count > keep)
		free_one();
	hz4_heap_trim();
	unit_need(hz4_cache_count(c, cls) == 0, "a trim leaves objects");
	hz4_l1_each(drop_shelf, NULL);
	t = &c->tier[cls];
	c->left += t->limit * (size_t)hz4_classes[cls].size;
	t->limit = t->room = t->calls = 0;
	hz4_poke(&t->gone, 0);
	hz4_poke(&c->stack[cls].base, NULL);
	hz4_poke(&c->stack[cls].top, NULL);
	hz4_stacks_set_ends(c, cls);
}

/* The stack of the class is as full as it may be. */
static void
fill_stack(void)
{
	struct hz4_cache *c = hz4_thread_cache();

	while (hz4_cache_count(c, cls) < c->tier[cls].limit)
		free_one();
}

static void
before_a_miss(void)
{
	begin_round(0);
}

/* The next free finds four of four, and the array grows. */
static void
before_growth(void)
{
	begin_round(8);
	while (hz4_thread_cache()->tier[cls].limit < 4)
		hold(1);
	fill_stack();
	unit_need(hz4_thread_cache()->tier[cls].room ==
			  hz4_thread_cache()->tier[cls].limit,
		  "%u of %u", hz4_thread_cache()->tier[cls].limit,
		  hz4_thread_cache()->tier[cls].room);
}

/* The next free finds a stack that does not grow, and gives. */
static void
before_giving(void)
{
	begin_round(0);
	hold(FULL);
	fill_stack();
	/* It grows where a free follows a malloc. */
	free_one();
	fill_stack();
	unit_need(held_count > 0, "all fit");
}

/* Both tiers, or the one, have something to give. */
static void
before_a_trim(void)
{
	before_giving();
	free_one();
}

static void
trim(void)
{
	hz4_heap_trim();
}

static const struct step {
	void (*before)(void);
	void (*go)(void);
} steps[] = {
	{ before_a_miss, hold_one },
	{ before_growth, free_one },
	{ before_giving, free_one },
	{ before_a_trim, trim },
};
enum { STEPS = sizeof steps / sizeof *steps };

struct places {
	void *object[2 * FULL + 2 * HZ4_BATCH_MAX];
	unsigned n;
};

static void
add_stack(struct hz4_cache *c, void *arg)
{
	struct places *all = arg;
	size_t i, n = hz4_cache_count(c, cls);
	void **oldest = hz4_stacks_oldest(c, cls);

	for (i = 0; i < n; i++)
		all->object[all->n++] = oldest[i];
}

static void
add_shelf(const struct hz4_l1 *l, void *arg)
{
	struct places *all = arg;
	uint32_t i;

	for (i = 0; i < hz4_peek(&l->shelf[cls].count); i++)
		all->object[all->n++] = l->shelf[cls].array[i];
}

static size_t figures;

static void
count_stack(struct hz4_cache *c, void *arg)
{
	*(size_t *)arg += hz4_cache_count(c, cls);
}

static void
count_shelf(const struct hz4_l1 *l, void *arg)
{
	*(size_t *)arg += hz4_peek(&l->shelf[cls].count);
}

static void
look_at_figures(void)
{
	figures = 0;
	hz4_thread_each(count_stack, &figures);
	hz4_l1_each(count_shelf, &figures);
}

/* Another thread's look finds no more than there ever was, and goes on. */
START_TEST(figures_are_asked_for_while_a_cache_changes)
{
	const struct step *s = &steps[_i];
	bool met = true;
	unsigned at;
	size_t most;

	begin(0);
	for (at = 0; met; at++) {
		s->before();
		look_at_figures();
		most = figures + held_count + HZ4_BATCH_MAX;
		figures = SIZE_MAX;
		met = play(at, s->go, look_at_figures);
		unit_need(figures <= most, "at %u: %zu objects of %zu", at,
			  figures, most);
		ck_assert_uint_eq(hz4_check(), 0);
	}
	ck_assert_uint_gt(at, 1);
}
END_TEST

static void
use_as_another(void)
{
	void *p[8];
	unsigned i;

	for (i = 0; i < 8; i++) {
		p[i] = hz4_heap_malloc(SIZE);
		unit_need(p[i] != NULL, "no memory");
		memset(p[i], 0xa5, SIZE);
	}
	for (i = 0; i < 8; i++)
		hz4_heap_free(p[i]);
}

/* A thread's whole life, whatever lies between the threads meanwhile. */
START_TEST(another_thread_works_while_a_cache_changes)
{
	const struct step *s = &steps[_i];
	bool met = true;
	unsigned at;

	begin(0);
	race.locks = true;
	for (at = 0; met; at++) {
		s->before();
		met = play(at, s->go, use_as_another);
		ck_assert_uint_eq(hz4_check(), 0);
	}
	ck_assert_uint_gt(at, 1);
}
END_TEST

/* A wrapper around one of libc's calls comes back while a stack is closed. */
static void
use_if_closed(void)
{
	if (hz4_peek(&hz4_thread_cache()->busy) != HZ4_CLS_NONE) {
		use_as_another();
		first++;
	}
}

START_TEST(a_call_comes_back_while_a_stack_is_closed)
{
	const struct step *s = &steps[_i];
	struct hz4_cache *c;
	bool met = true;
	unsigned at;

	begin(0);
	c = hz4_thread_cache();
	race.locks = true;
	race.same_thread = true;
	first = 0;
	for (at = 0; met; at++) {
		s->before();
		met = play(at, s->go, use_if_closed);
		ck_assert_uint_eq(hz4_peek(&c->busy), HZ4_CLS_NONE);
		ck_assert_uint_eq(hz4_check(), 0);
	}
	ck_assert_uint_ge(first, 2);
}
END_TEST

/*
 * The child of a fork by another thread: what was just being changed is lost,
 * and no object is in two places.
 */
static void
see_to_what_is_left(void *arg)
{
	static struct places all;
	unsigned i, k, had;

	hz4_thread_each(add_stack, &all);
	hz4_l1_each(add_shelf, &all);
	had = all.n;
	for (i = 0; i < held_count; i++)
		all.object[all.n++] = held[i];
	for (i = 0; i < all.n; i++) {
		unit_child_need(hz4_transfer_is_out(all.object[i], cls));
		for (k = 0; k < i; k++)
			unit_child_need(all.object[i] != all.object[k]);
	}
	/* All can be given back, and comes but once. */
	hz4_heap_trim();
	for (i = 0; i < had; i++)
		unit_child_need(!hz4_transfer_is_out(all.object[i], cls));
	use_as_another();
	(void)arg;
}

static void
fork_as_another(void)
{
	unit_survives(see_to_what_is_left, NULL);
}

START_TEST(another_thread_forks_while_a_cache_changes)
{
	const struct step *s = &steps[_i];
	bool met = true;
	unsigned at;

	begin(0);
	for (at = 0; met; at++) {
		s->before();
		met = play(at, s->go, fork_as_another);
		ck_assert_uint_eq(hz4_check(), 0);
	}
	ck_assert_uint_gt(at, 1);
}
END_TEST

/* --- orders, for ThreadSanitizer ------------------------------------------- */

static void *
write_and_give(void *arg)
{
	unsigned path;
	void *p;

	unit_need(hz4_transfer_take(SMALL, &p, 1, &path) == 1, "no object");
	*(uint64_t *)p = 1;
	hz4_transfer_give(SMALL, &p, 1, 1, &path);
	return arg;
}

static void *
take_and_write(void *arg)
{
	unsigned path;
	void *p;

	unit_sleep(50);
	unit_need(hz4_transfer_take(SMALL, &p, 1, &path) == 1, "no object");
	*(uint64_t *)p = 2;
	return arg;
}

/* What the last user wrote comes before what the next one writes. */
START_TEST(what_was_written_comes_before)
{
	pthread_t id[2];

	begin(0);
	cls = SMALL;
	take(object, 1);
	ck_assert_int_eq(pthread_create(&id[0], NULL, take_and_write, NULL), 0);
	ck_assert_int_eq(pthread_create(&id[1], NULL, write_and_give, NULL), 0);
	pthread_join(id[0], NULL);
	pthread_join(id[1], NULL);
}
END_TEST

static struct hz4_cache *had[2];
static pthread_barrier_t both;

static void *
have_a_cache(void *number)
{
	had[(uintptr_t)number] = hz4_thread_cache();
	pthread_barrier_wait(&both);
	return NULL;
}

/* Of two threads one gets the cache of a third that has ended. */
START_TEST(new_threads_share_no_cache)
{
	unsigned i;

	pthread_barrier_init(&both, NULL, 1);
	unit_threads(1, have_a_cache);
	pthread_barrier_init(&both, NULL, 2);
	for (i = 0; i < 10; i++) {
		unit_threads(2, have_a_cache);
		ck_assert_ptr_nonnull(had[0]);
		ck_assert_ptr_ne(had[0], had[1]);
	}
}
END_TEST

static void *
start_the_process(void *arg)
{
	hz4_thread_start();
	return arg;
}

static void *
find_it_started(void *arg)
{
	unit_sleep(50);
	hz4_thread_start();
	unit_need(hz4_classes[1].size == HZ4_ALIGN, "no table");
	return arg;
}

/* One thread has made the tables, another only sees that they are there. */
START_TEST(a_thread_finds_all_started)
{
	pthread_t id[2];

	ck_assert_int_eq(pthread_create(&id[0], NULL, find_it_started, NULL), 0);
	ck_assert_int_eq(pthread_create(&id[1], NULL, start_the_process, NULL),
			 0);
	pthread_join(id[0], NULL);
	pthread_join(id[1], NULL);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, what_was_written_comes_before);
	tcase_add_test(t, a_thread_finds_all_started);
	tcase_add_test(t, new_threads_share_no_cache);
	if (!HZ4_DEBUG_BOX)
		return;
	tcase_add_loop_test(t, a_giver_comes_while_a_span_is_drained, 0, 2);
	tcase_add_loop_test(t, a_span_is_drained_while_one_gives, 0, 2);
	tcase_add_loop_test(t, two_give_at_once, 0, 4);
	tcase_add_loop_test(t, two_givers_empty_a_span, 0, 2);
	tcase_add_loop_test(t, a_span_goes_while_a_giver_tells_of_it, 0, 4);
	tcase_add_loop_test(t, a_slab_goes_while_a_giver_tells_of_it, 0, 2);
	tcase_add_loop_test(t, a_taker_comes_while_one_gives, 0, 2);
	tcase_add_test(t, a_giver_comes_while_the_lock_is_dropped);
	tcase_add_test(t, a_span_becomes_empty_while_it_is_settled);
	tcase_add_loop_test(t, a_handler_forks_at_any_place_of_a_give, 0, 2);
	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	tcase_add_loop_test(t, figures_are_asked_for_while_a_cache_changes, 0,
			    STEPS);
	tcase_add_loop_test(t, another_thread_works_while_a_cache_changes, 0,
			    STEPS);
	tcase_add_loop_test(t, a_call_comes_back_while_a_stack_is_closed, 0,
			    STEPS);
	/* qemu-user 7.2 fails in children of processes with threads. */
	if (!unit_emulated())
		tcase_add_loop_test(
			t, another_thread_forks_while_a_cache_changes, 0,
			STEPS);
}

int
main(void)
{
	return unit_main("races", add);
}
