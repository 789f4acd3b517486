/*
 * test_walker.c - the heap walker: it finds nothing in a heap in order, after
 * any mixture of calls by any number of threads, and it does find what is
 * put in wrong.  Only builds with --enable-debug have it.
 */
#include "walker.h"
#include "heap.h"
#include "l1.h"
#include "pageruns.h"
#include "spanlists.h"
#include "transfer.h"
#include "unit.h"

enum { SLOTS = 512, ROUNDS = 12, STEPS = 4000, THREADS = 4 };

static void *_Atomic table[SLOTS];
static pthread_barrier_t stopped, checked;

static size_t
some_size(uint32_t *seed)
{
	static const size_t most[] = { 64, 2048, 65536, 262144, 600000 };
	uint32_t dice;

	*seed = *seed * 1664525u + 1013904223u;
	dice = *seed >> 8;
	return 1 + dice / 8 % most[dice % 16 < 8 ? dice % 2 :
					dice % 16 < 15 ? 2 + dice % 2 : 4];
}

/* Objects change hands through the table: most frees are of others'. */
static void
mix(uint32_t *seed, unsigned steps)
{
	unsigned i;

	for (i = 0; i < steps; i++) {
		size_t n = some_size(seed);
		void *p = *seed % 8 == 0 ? NULL : hz4_heap_malloc(n);

		p = atomic_exchange(&table[(*seed >> 16) % SLOTS], p);
		if (*seed % 16 == 1 && p != NULL)
			p = hz4_heap_realloc(p, some_size(seed));
		hz4_heap_free(p);
	}
}

static void
clear_table(void)
{
	unsigned i;

	for (i = 0; i < SLOTS; i++)
		hz4_heap_free(atomic_exchange(&table[i], NULL));
}

static void *
worker(void *arg)
{
	uint32_t seed = (uint32_t)(uintptr_t)arg;
	unsigned i;

	for (i = 0; i < ROUNDS; i++) {
		mix(&seed, STEPS);
		pthread_barrier_wait(&stopped);
		pthread_barrier_wait(&checked);
	}
	return NULL;
}

START_TEST(an_empty_heap_is_in_order)
{
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

START_TEST(one_thread_leaves_order)
{
	uint32_t seed = 7;
	unsigned i;

	for (i = 0; i < ROUNDS; i++) {
		mix(&seed, STEPS);
		ck_assert_uint_eq(hz4_check(), 0);
	}
	clear_table();
	ck_assert_uint_eq(hz4_check(), 0);
	hz4_heap_trim();
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

START_TEST(many_threads_leave_order)
{
	pthread_t t[THREADS];
	unsigned i;

	pthread_barrier_init(&stopped, NULL, THREADS + 1);
	pthread_barrier_init(&checked, NULL, THREADS + 1);
	for (i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, worker,
						(void *)(uintptr_t)(i + 1)),
				 0);
	for (i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(&stopped);
		ck_assert_uint_eq(hz4_check(), 0);
		pthread_barrier_wait(&checked);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_eq(hz4_check(), 0);
	clear_table();
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

static size_t
faults_in_silence(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	int saved = dup(STDERR_FILENO);
	size_t faults;

	dup2(null, STDERR_FILENO);
	faults = hz4_check();
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(null);
	return faults;
}

START_TEST(an_object_cached_twice_is_found)
{
	struct hz4_cache *c;
	struct hz4_stack *s;
	void *p[8];
	unsigned i, cls;

	for (i = 0; i < 8; i++)
		p[i] = hz4_heap_malloc(100);
	for (i = 0; i < 8; i++)
		hz4_heap_free(p[i]);
	ck_assert_uint_eq(hz4_check(), 0);
	c = hz4_thread_cache();
	cls = hz4_sizeclass(100);
	s = &c->stack[cls];
	ck_assert_uint_ge(hz4_cache_count(c, cls), 2);
	hz4_peek(&s->top)[-1] = hz4_peek(&s->top)[-2];
	ck_assert_uint_ge(faults_in_silence(), 1);
}
END_TEST

START_TEST(an_object_of_another_class_is_found)
{
	struct hz4_cache *c;
	void *p = hz4_heap_malloc(100), *other = hz4_heap_malloc(300);
	unsigned cls = hz4_sizeclass(100);

	hz4_heap_free(p);
	c = hz4_thread_cache();
	ck_assert_uint_ge(hz4_cache_count(c, cls), 1);
	hz4_peek(&c->stack[cls].top)[-1] = other;
	ck_assert_uint_ge(faults_in_silence(), 1);
}
END_TEST

/* In the L1 that this thread gives to, and in its L0 as well. */
START_TEST(an_object_in_both_tiers_is_found)
{
	void *p = hz4_heap_malloc(100);
	unsigned cls = hz4_sizeclass(100);
	struct hz4_l1 *l;

	if (!HZ4_MID_DUAL_TIER_ALLOC_BOX)
		return;
	hz4_heap_free(p);
	ck_assert_uint_ge(hz4_cache_count(hz4_tls_cache, cls), 1);
	ck_assert_uint_eq(hz4_check(), 0);
	l = hz4_l1_lock();
	ck_assert_ptr_nonnull(l);
	hz4_l1_give(l, cls, &p, 1, hz4_tls_cache->counts);
	hz4_l1_unlock(l);
	/* That there is one more does not hide it. */
	hz4_poke(&l->shelf[cls].net, hz4_peek(&l->shelf[cls].net) + 1);
	ck_assert_uint_ge(faults_in_silence(), 1);
}
END_TEST

START_TEST(a_lost_object_is_found)
{
	struct hz4_cache *c;
	void *p = hz4_heap_malloc(100);

	hz4_heap_free(p);
	c = hz4_thread_cache();
	/* The sum of what is out no longer agrees with the bits. */
	hz4_poke(&c->tier[hz4_sizeclass(100)].net,
		 hz4_peek(&c->tier[hz4_sizeclass(100)].net) - 1);
	ck_assert_uint_ge(faults_in_silence(), 1);
}
END_TEST

/* The lists of the class of an object. */
static struct hz4_spans *
lists_of(void *p)
{
	return hz4_lists_of(hz4_transfer_span(p, hz4_pagemap_class(p))->slab);
}

START_TEST(a_span_in_no_list_is_found)
{
	void *p = hz4_heap_malloc(100);
	struct hz4_span *s = hz4_transfer_span(p, hz4_pagemap_class(p));

	ck_assert_uint_eq(hz4_check(), 0);
	hz4_lists_remove_locked(lists_of(p), s);
	ck_assert_uint_ge(faults_in_silence(), 1);
	atomic_store(&s->linked, false);
	ck_assert_uint_ge(faults_in_silence(), 1);
	hz4_lists_add_locked(lists_of(p), &lists_of(p)->partial, s);
	ck_assert_uint_eq(hz4_check(), 0);
}
END_TEST

/* Each count and sum for itself: one more, or one less, is a fault. */
START_TEST(wrong_sums_are_found)
{
	void *p = hz4_heap_malloc(100);
	struct hz4_spans *c = lists_of(p);
	struct hz4_l1 *l;

	hz4_heap_free(hz4_heap_malloc(3000000));
	ck_assert_uint_eq(hz4_check(), 0);
#define WRONG(change, undo) \
	do { \
		change; \
		ck_assert_msg(faults_in_silence() > 0, "%s", #change); \
		undo; \
		ck_assert_uint_eq(hz4_check(), 0); \
	} while (0)
	WRONG(c->spans++, c->spans--);
	WRONG(c->listed++, c->listed--);
	WRONG(c->idle_pages++, c->idle_pages--);
	WRONG(c->idle_told++, c->idle_told--);
	WRONG(c->waiting++, c->waiting--);
	WRONG(hz4_idle_add_waiting(c, HZ4_SPAN_TELL / HZ4_PAGE),
	      hz4_idle_sub_waiting(c, HZ4_SPAN_TELL / HZ4_PAGE));
	WRONG(hz4_runs.spares++, hz4_runs.spares--);
	WRONG(hz4_runs.handed_out -= 2, hz4_runs.handed_out += 2);
	WRONG(hz4_runs.filled[0] ^= 2, hz4_runs.filled[0] ^= 2);
	WRONG(hz4_runs_hints.free++, hz4_runs_hints.free--);
	WRONG(hz4_runs_hints.dirty++, hz4_runs_hints.dirty--);
	WRONG(hz4_runs_hints.oldest++, hz4_runs_hints.oldest--);
	WRONG(hz4_tls_cache->left++, hz4_tls_cache->left--);
	WRONG(hz4_tls_cache->taken++, hz4_tls_cache->taken--);
	WRONG(hz4_share_give((size_t)-1), hz4_share_give(1));
	WRONG(hz4_poke(&hz4_tls_cache->busy, 1),
	      hz4_poke(&hz4_tls_cache->busy, HZ4_CLS_NONE));
	if (HZ4_MID_DUAL_TIER_ALLOC_BOX) {
		l = hz4_l1_lock();
		ck_assert_ptr_nonnull(l);
		hz4_l1_unlock(l);
		WRONG(l->bytes++, l->bytes--);
		WRONG(l->busy = 1, l->busy = HZ4_CLS_NONE);
		WRONG(l->shelf[1].net++, l->shelf[1].net--);
	}
#undef WRONG
}
END_TEST

/* The largest free run. */
static struct hz4_run *
some_run(void)
{
	unsigned bin = HZ4_RUNS_BINS;

	while (hz4_list_empty(&hz4_runs.bin[bin - 1]))
		bin--;
	return hz4_container(hz4_runs.bin[bin - 1].next, struct hz4_run, link);
}

START_TEST(a_wrong_run_is_found)
{
	struct hz4_run *r;

	hz4_heap_free(hz4_heap_malloc(3000000));
	r = some_run();
	ck_assert_uint_eq(hz4_check(), 0);
	r->dirty = r->pages + 1;
	ck_assert_uint_ge(faults_in_silence(), 1);
	r->dirty = 0;
	ck_assert_uint_ge(faults_in_silence(), 1);
}
END_TEST

START_TEST(free_neighbours_are_found)
{
	struct hz4_run *r;
	struct hz4_list *at;
	uintptr_t start;
	size_t pages, dirty;

	hz4_heap_free(hz4_heap_malloc(3000000));
	r = some_run();
	start = r->start;
	pages = r->pages;
	dirty = r->dirty;
	ck_assert_uint_eq(hz4_check(), 0);
	at = hz4_runs_remove_locked(r);
	hz4_runs_split_locked(r, start, pages / 2, 0, at);
	hz4_runs_split_locked(r, start + pages / 2 * HZ4_PAGE,
			      pages - pages / 2, dirty, at);
	hz4_runs_put_by_locked(r);
	ck_assert_uint_ge(faults_in_silence(), 1);
}
END_TEST

START_TEST(a_wrong_large_object_is_found)
{
	void *p = hz4_heap_malloc(3000000);
	struct hz4_large *l = hz4_pagemap_owner((uintptr_t)p);

	ck_assert_uint_eq(hz4_check(), 0);
	l->bytes += HZ4_PAGE;
	ck_assert_uint_ge(faults_in_silence(), 1);
	l->bytes -= HZ4_PAGE;
	l->asked = l->bytes + 1;
	ck_assert_uint_ge(faults_in_silence(), 1);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, an_empty_heap_is_in_order);
	tcase_add_test(t, one_thread_leaves_order);
	tcase_add_test(t, many_threads_leave_order);
	if (!HZ4_DEBUG_BOX)
		return;
	tcase_add_test(t, an_object_cached_twice_is_found);
	tcase_add_test(t, an_object_of_another_class_is_found);
	tcase_add_test(t, an_object_in_both_tiers_is_found);
	tcase_add_test(t, a_lost_object_is_found);
	tcase_add_test(t, a_span_in_no_list_is_found);
	tcase_add_test(t, wrong_sums_are_found);
	tcase_add_test(t, a_wrong_run_is_found);
	tcase_add_test(t, free_neighbours_are_found);
	tcase_add_test(t, a_wrong_large_object_is_found);
}

int
main(void)
{
	return unit_main("walker", add);
}
