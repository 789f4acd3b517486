/*
 * test_lists.c - the lists of spans: what a shard leaves to others, what a
 * child of a fork makes of half a step, and the limits of caches
 * that decide how much comes back.
 */
#include "unit.h"

#include "heap.h"
#include "meta.h"
#include "option.h"
#include "shard.h"
#include "share.h"
#include "spanlists.h"
#include "transfer.h"
#include "walker.h"

enum { FEW = HZ4_CLS_FIRST_LARGE - 1, SMALL = 16, BIG = HZ4_CLS_ZERO - 1 };

static void *object[1024];

static unsigned
take(unsigned cls, void **objects, unsigned want)
{
	unsigned path;

	return hz4_transfer_take(cls, objects, want, &path);
}

static void
give(unsigned cls, void **objects, unsigned n)
{
	unsigned path;

	hz4_transfer_give(cls, objects, n, 1, &path);
}

static size_t
spans(unsigned cls)
{
	struct hz4_spans_figures f;

	hz4_spans_figures(cls, &f);
	return f.spans;
}

/* A span of which all but one are taken at once is in its list. */
START_TEST(a_new_span_with_one_left_is_listed)
{
	unsigned slots, n;

	hz4_thread_start();
	slots = hz4_classes[FEW].slots;
	ck_assert_uint_le(slots, HZ4_BATCH_MAX);
	n = take(FEW, object, slots - 1);
	ck_assert_uint_eq(n, slots - 1);
	ck_assert_uint_eq(take(FEW, object + n, 1), 1);
	ck_assert_uint_eq(spans(FEW), 1);
	give(FEW, object, slots);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

static void *
take_one_in_thread(void *arg)
{
	unit_need(take(SMALL, arg, 1) == 1, "none");
	return NULL;
}

/* All objects of a span, so that it is in no list. */
static unsigned
take_a_span(void)
{
	unsigned n = 0, all = hz4_classes[SMALL].slots;

	while (n < all)
		n += take(SMALL, object + n, HZ4_BATCH_MAX - 1);
	unit_need(n == all && spans(SMALL) == 1, "%u of %u", n, all);
	return all;
}

static void *
settle_in_thread(void *arg)
{
	hz4_shard_settle();
	return arg;
}

/* What lies in the inbox of one shard comes before new spans in another. */
START_TEST(what_waits_in_another_shard_is_found)
{
	void *other;
	unsigned all, i;

	ck_assert(hz4_option_assign("shards=8", 8));
	hz4_thread_start();
	/* In the midst of them. */
	for (i = 0; i < 3; i++)
		unit_thread(settle_in_thread, NULL);
	all = take_a_span();
	ck_assert_uint_eq(hz4_shard_own(), 4);
	give(SMALL, object, 1);
	for (i = 0; i < 10; i++) {
		unit_thread(take_one_in_thread, &other);
		ck_assert_ptr_eq(other, object[0]);
		ck_assert_uint_eq(spans(SMALL), 1);
		give(SMALL, &other, 1);
	}
	give(SMALL, object + 1, all - 1);
	hz4_spans_trim();
	ck_assert_uint_eq(spans(SMALL), 0);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Without a delay a class keeps one empty span, however many come at once. */
START_TEST(no_delay_keeps_one_span)
{
	unsigned i, n = 0;

	ck_assert(hz4_option_assign("purge_delay=0", 13));
	hz4_thread_start();
	ck_assert_uint_gt(HZ4_BATCH_MAX, HZ4_SPANS_GONE + 1);
	for (i = 0; i < 2; i++) {
		while (n < HZ4_BATCH_MAX)
			n += take(BIG, object + n, HZ4_BATCH_MAX - n);
		give(BIG, object, n);
		n = 0;
		ck_assert_uint_eq(spans(BIG), 1);
		ck_assert_uint_eq(hz4_spans_idle(),
				  hz4_classes[BIG].pages * HZ4_PAGE);
	}
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* A structure for which there were no pages serves the next span. */
START_TEST(structures_without_pages_serve_again)
{
	struct hz4_slab *slab;
	unsigned i;

	if (!HZ4_DEBUG_BOX)
		return;
	hz4_thread_start();
	hz4_os_fail_from(1);
	for (i = 0; i < 100; i++)
		ck_assert_uint_eq(take(BIG, object, 1), 0);
	hz4_os_fail_from(0);
	ck_assert_uint_eq(take(BIG, object, 1), 1);
	give(BIG, object, 1);
	slab = hz4_peek(&hz4_lists_at(0, BIG)->made);
	ck_assert_ptr_null(slab->older);
	ck_assert_uint_eq(hz4_peek(&slab->unused), hz4_slab_all(slab) - 1);
	/* And so does that of a span that has gone. */
	for (i = 0; i < 100; i++) {
		hz4_spans_trim();
		ck_assert_uint_eq(take(BIG, object, 1), 1);
		give(BIG, object, 1);
	}
	ck_assert_ptr_eq(hz4_peek(&hz4_lists_at(0, BIG)->made), slab);
	ck_assert_uint_eq(hz4_peek(&slab->unused), hz4_slab_all(slab) - 1);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

static void
give_and_trim(unsigned from, unsigned end)
{
	give(BIG, object + from, end - from);
	hz4_spans_trim();
}

/* What slabs have none in use go, of a class with many spans but for one. */
START_TEST(slabs_go_but_for_a_spare_one)
{
	unsigned few, all, each, n = 0;
	struct hz4_slab *one, *two, *three;

	hz4_thread_start();
	ck_assert_uint_eq(take(BIG, object, 1), 1);
	few = hz4_peek(&hz4_lists_at(0, BIG)->made)->count;
	/* No more than a word has bits. */
	each = (unsigned)hz4_min(
		64, HZ4_SLAB / hz4_peek(&hz4_lists_at(0, BIG)->made)->bytes);
	ck_assert_uint_ge(few + each, HZ4_SLAB_MANY);
	all = few + 3 * each;
	for (n = 1; n < all; n += take(BIG, object + n, all - n))
		;
	three = hz4_peek(&hz4_lists_at(0, BIG)->made);
	two = three->older;
	one = two->older;
	ck_assert_ptr_null(one->older->older);
	/* Not while one is in use. */
	give_and_trim(all - each, all - 1);
	give_and_trim(all - 2 * each, all - each - 1);
	ck_assert(!three->purged && !two->purged);
	give_and_trim(all - 1, all);
	ck_assert(!three->purged);
	give_and_trim(all - each - 1, all - each);
	ck_assert(three->purged && !two->purged);
	ck_assert(!hz4_slab_span(three, 0)->active);
	/* The one that is there comes first. */
	ck_assert_uint_eq(take(BIG, object + few + each, 1), 1);
	ck_assert(three->purged);
	ck_assert_ptr_eq(hz4_transfer_span(object[few + each], BIG)->slab, two);
	/* It is in use; and one that goes while it is leaves it alone. */
	give_and_trim(few, few + each);
	ck_assert(!two->purged);
	give_and_trim(few + each, few + each + 1);
	ck_assert(one->purged && two->purged);
	give_and_trim(0, few);
	ck_assert_uint_eq(hz4_check(), 0);
	/* And back. */
	for (n = 0; n < all; n += take(BIG, object + n, all - n))
		;
	ck_assert_ptr_eq(hz4_peek(&hz4_lists_at(0, BIG)->made), three);
	ck_assert(!one->purged && !three->purged);
	give_and_trim(0, all);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* So are those that a thread which is gone has left purged. */
START_TEST(purged_slabs_of_a_lost_lock_serve_again)
{
	struct hz4_spans *c = hz4_lists_at(0, BIG);
	struct hz4_slab *latest;
	unsigned n, all = 3 * HZ4_SLAB_MANY;

	hz4_thread_start();
	for (n = 0; n < all; n += take(BIG, object + n, all - n))
		;
	latest = hz4_peek(&c->made);
	give_and_trim(0, all);
	ck_assert(latest->purged);
	/* As if it had just been about to take one of them. */
	hz4_poke(&latest->unused, 0);
	hz4_poke(&c->lock.word, UINT32_MAX - 1);
	hz4_spans_fork_child();
	for (n = 0; n < all; n += take(BIG, object + n, all - n))
		;
	ck_assert_ptr_eq(hz4_peek(&c->made), latest);
	give_and_trim(0, all);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Waits that lie far apart are no reason to leave a shard. */
START_TEST(waits_are_forgotten)
{
	enum { WAITS = HZ4_SHARD_WAITS / HZ4_SHARD_WAIT };
	unsigned own, i, k;

	ck_assert(hz4_option_assign("shards=8", 8));
	hz4_thread_start();
	own = hz4_shard_settle();
	for (k = 0; k < 8; k++) {
		for (i = 0; i < WAITS - 1; i++)
			hz4_shard_note_wait(true);
		ck_assert_uint_eq(hz4_shard_settle(), own);
		for (i = 0; i < HZ4_SHARD_WAITS; i++)
			hz4_shard_note_wait(false);
	}
	for (i = 0; i < WAITS; i++)
		hz4_shard_note_wait(true);
	ck_assert_uint_ne(hz4_shard_settle(), own);
}
END_TEST

/*
 * A thread that is gone had marked a span as queued and counted it, and not
 * pushed it yet, when this one forked.
 */
START_TEST(marks_of_gone_threads_mean_nothing)
{
	struct hz4_span *s;
	struct hz4_spans *c;
	unsigned all, i;

	ck_assert(_i == 0 || hz4_option_assign("shards=8", 8));
	hz4_thread_start();
	for (i = 0; i < 3; i++) {
		all = take_a_span();
		s = hz4_transfer_span(object[0], SMALL);
		c = hz4_lists_of(s->slab);
		hz4_idle_add_waiting(c, HZ4_SPAN_TELL / HZ4_PAGE);
		atomic_store(&s->slab->queued, hz4_slab_bit(s->slab, s));
		hz4_spans_fork_child();
		ck_assert_uint_eq(hz4_peek(&c->waiting), 0);
		ck_assert_uint_eq(hz4_spans_idle(), 0);
		give(SMALL, object + 7, 1);
		ck_assert_uint_eq(take(SMALL, object + 7, 1), 1);
		ck_assert_uint_eq(spans(SMALL), 1);
		give(SMALL, object, all);
		hz4_spans_trim();
		ck_assert_uint_eq(spans(SMALL), 0);
	}
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* As if a thread that is gone had held the lock of a class. */
START_TEST(lists_of_a_lost_lock_are_made_anew)
{
	struct hz4_spans *c;
	unsigned i, all;

	hz4_thread_start();
	c = hz4_lists_at(0, SMALL);
	/* Some in use, one full, one idle. */
	all = take_a_span();
	give(SMALL, object, 3);
	for (i = 0; i < 3; i++)
		ck_assert_uint_eq(take(BIG, object + all + i, 1), 1);
	give(BIG, object + all, 2);
	ck_assert_uint_eq(hz4_spans_idle(),
			  2 * hz4_classes[BIG].pages * HZ4_PAGE);
	hz4_poke(&c->lock.word, UINT32_MAX - 1);
	hz4_poke(&hz4_lists_at(0, BIG)->lock.word, UINT32_MAX - 1);
	hz4_spans_fork_child();
	ck_assert_uint_eq(spans(SMALL), 1);
	ck_assert_uint_eq(spans(BIG), 3);
	ck_assert_uint_eq(hz4_spans_idle(),
			  2 * hz4_classes[BIG].pages * HZ4_PAGE);
	ck_assert_uint_eq(take(SMALL, object, 3), 3);
	ck_assert_uint_eq(take(BIG, object + all, 2), 2);
	ck_assert_uint_eq(spans(SMALL) + spans(BIG), 4);
	give(SMALL, object, all);
	give(BIG, object + all, 3);
	hz4_spans_trim();
	ck_assert_uint_eq(spans(SMALL) + spans(BIG), 0);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* --- what threads may keep ------------------------------------------------- */

/* What threads may have beyond their own, and what they may start with. */
START_TEST(the_pool_has_a_bound)
{
	size_t all, some, had = 0;
	unsigned n = 0;

	hz4_thread_start();
	ck_assert(hz4_option_assign("cpu_cache=4096", 14));
	all = hz4_os_cpus() * ((size_t)4096 << 10);
	ck_assert_uint_eq(hz4_share_taken(), 0);
	ck_assert_uint_eq(hz4_share_take(1000), 1000);
	hz4_share_give(1000);
	ck_assert_uint_eq(hz4_share_taken(), 0);
	/* Nobody gets all. */
	while ((some = hz4_share_take(SIZE_MAX)) > 0) {
		ck_assert_uint_eq(some, (all - had) / HZ4_POOL_TAKES);
		had += some;
		ck_assert_uint_eq(hz4_share_taken(), had);
		unit_need(++n < 1000, "%zu of %zu taken", had, all);
	}
	ck_assert_uint_lt(all - had, HZ4_POOL_TAKES);
	hz4_share_give(had);
	ck_assert_uint_eq(hz4_share_taken(), 0);
	ck_assert(hz4_option_assign("cpu_cache=0", 11));
	ck_assert_uint_eq(hz4_share_take(1000), 0);
}
END_TEST

/* The more threads there are, the less each starts with. */
START_TEST(threads_share_what_they_start_with)
{
	size_t few, many;

	hz4_thread_start();
	hz4_share_add_user(1);
	few = hz4_share_start(false);
	ck_assert_uint_eq(few, hz4_min(hz4_os_cpus() *
				       (size_t)HZ4_START_SHARED,
				       HZ4_START_MOST));
	hz4_share_add_user(1 << 20);
	many = hz4_share_start(false);
	ck_assert_uint_eq(many, HZ4_START_LEAST);
	ck_assert_uint_eq(hz4_share_start(true), HZ4_START_FIRST_THREAD);
	ck_assert(hz4_option_assign("thread_cache=1", 14));
	ck_assert_uint_eq(hz4_share_start(true), 1024);
	ck_assert_uint_eq(hz4_share_start(false), 1024);
	ck_assert_uint_eq(hz4_share_most(), 1024);
}
END_TEST

/* However much a thread turns, a class holds so many objects. */
START_TEST(a_class_has_a_most)
{
	enum { N = 3 * HZ4_CACHE_MAX_OBJECTS, ROUNDS = 150 };
	static void *p[N];
	/* With an L1 below it a thread's needs no more than the base. */
	const unsigned most = HZ4_MID_DUAL_TIER_ALLOC_BOX ?
				      HZ4_CACHE_BASE_OBJECTS :
				      HZ4_CACHE_MAX_OBJECTS;
	unsigned cls, i, k;

	if (!HZ4_MID_ALLOC_RUN_CACHE_BOX)
		return;
	hz4_thread_start();
	cls = hz4_sizeclass(16);
	for (k = 0; k < ROUNDS; k++) {
		for (i = 0; i < N; i++)
			p[i] = hz4_heap_malloc(16);
		for (i = 0; i < N; i++)
			hz4_heap_free(p[i]);
		ck_assert_uint_le(hz4_tls_cache->tier[cls].limit, most);
	}
	ck_assert_uint_eq(hz4_tls_cache->tier[cls].limit, most);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Of spans that have nothing to give the walker finds none in a list. */
START_TEST(drained_spans_are_in_no_list)
{
	enum { N = 5000 };
	static void *p[N];
	unsigned i;

	for (i = 0; i < N; i++)
		p[i] = hz4_heap_malloc(1000);
	ck_assert_uint_eq(hz4_check(), 0);
	for (i = 0; i < N; i++)
		hz4_heap_free(p[i]);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

static void
free_twice_in_a_row(void *arg)
{
	hz4_heap_free(arg);
	hz4_heap_free(arg);
}

/* Not only in the first calls of a class. */
START_TEST(twice_in_a_row_is_told_in_a_hot_class)
{
	void *p[8];
	unsigned i, k;

	for (k = 0; k < 100; k++) {
		for (i = 0; i < 8; i++)
			p[i] = hz4_heap_malloc(100);
		for (i = 0; i < 8; i++)
			hz4_heap_free(p[i]);
	}
	/* With room for both. */
	for (i = 0; i < 4; i++)
		p[i] = hz4_heap_malloc(100);
	unit_fatal_start(free_twice_in_a_row, p[0],
			 "hz4: free(): double free: ptr ");
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, a_new_span_with_one_left_is_listed);
	tcase_add_test(t, what_waits_in_another_shard_is_found);
	tcase_add_test(t, no_delay_keeps_one_span);
	tcase_add_test(t, structures_without_pages_serve_again);
	tcase_add_test(t, waits_are_forgotten);
	tcase_add_loop_test(t, marks_of_gone_threads_mean_nothing, 0, 2);
	tcase_add_test(t, slabs_go_but_for_a_spare_one);
	tcase_add_test(t, purged_slabs_of_a_lost_lock_serve_again);
	tcase_add_test(t, lists_of_a_lost_lock_are_made_anew);
	tcase_add_test(t, the_pool_has_a_bound);
	tcase_add_test(t, threads_share_what_they_start_with);
	tcase_add_test(t, a_class_has_a_most);
	tcase_add_test(t, drained_spans_are_in_no_list);
	tcase_add_test(t, twice_in_a_row_is_told_in_a_hot_class);
}

int
main(void)
{
	return unit_main("lists", add);
}
