/*
 * purge.h: pending, due, watched, run; with times of the tests' own.
 */
#include "unit.h"

#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "purge.h"
#include "spans.h"
#include "transfer.h"
#include "tune.h"

#include <sys/mman.h>

enum { PAGE = HZ4_PAGE, ALLOWANCE = HZ4_PURGE_ALLOWANCE / PAGE, CALLERS = 8 };

static void
start(const char *delay)
{
	unit_os_init();
	hz4_sizeclass_init();
	ck_assert(hz4_option_assign(delay, strlen(delay)));
}

/* So many pages that were used and are free. */
static uintptr_t
leave_dirty(size_t pages)
{
	uintptr_t a = hz4_pageheap_alloc(pages, PAGE, false);

	ck_assert_uint_ne(a, 0);
	memset((void *)a, 0xa5, pages * PAGE);
	hz4_pageheap_free(a, pages, hz4_os_now());
	ck_assert_uint_eq(hz4_pageheap_dirty(), pages * PAGE);
	return a;
}

/* To its end. */
static void
purge(uint64_t now)
{
	do
		hz4_purge_run(now);
	while (hz4_purge_goes_on());
}

START_TEST(nothing_is_pending_at_first)
{
	start("purge_delay=500");
	ck_assert(!hz4_purge_pending());
	ck_assert(!hz4_purge_due(UINT64_MAX));
	hz4_purge_run(1000);
	ck_assert_uint_eq(hz4_purge_all(), 0);
}
END_TEST

START_TEST(the_allowance_never_pends)
{
	start("purge_delay=500");
	leave_dirty(ALLOWANCE);
	ck_assert(!hz4_purge_pending());
	ck_assert(!hz4_purge_due(UINT64_MAX));
	hz4_purge_run(UINT64_MAX / 2);
	ck_assert_uint_eq(hz4_pageheap_dirty(), ALLOWANCE * PAGE);
	/* But all of it goes when asked for. */
	ck_assert_uint_eq(hz4_purge_all(), ALLOWANCE * PAGE);
	ck_assert_uint_eq(hz4_pageheap_dirty(), 0);
}
END_TEST

/* A program may say how much stays, but no less than a MiB. */
START_TEST(the_allowance_is_the_programs)
{
	start("purge_delay=500");
	hz4_purge_allow(SIZE_MAX);
	leave_dirty(ALLOWANCE + 100);
	ck_assert(!hz4_purge_pending());
	hz4_purge_allow(0);
	ck_assert(hz4_purge_pending());
	purge(UINT64_MAX / 2);
	ck_assert_uint_le(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE_LEAST);
	ck_assert(!hz4_purge_pending());
}
END_TEST

START_TEST(due_after_the_delay)
{
	uint64_t since;

	start("purge_delay=500");
	leave_dirty(ALLOWANCE + 100);
	ck_assert(hz4_purge_pending());
	since = hz4_pageheap_oldest();
	ck_assert(!hz4_purge_due(since));
	ck_assert(!hz4_purge_due(since + 499));
	ck_assert(hz4_purge_due(since + 500));
	/* Too young for anybody. */
	hz4_purge_run(since);
	ck_assert_uint_eq(hz4_pageheap_dirty(), (ALLOWANCE + 100) * PAGE);
	/* That was a round; the next one is a while later. */
	ck_assert(!hz4_purge_due(since + HZ4_PURGE_ROUNDS - 1));
	ck_assert(hz4_purge_due(since + 500));
	purge(since + 500);
	ck_assert_uint_le(hz4_pageheap_dirty(), ALLOWANCE * PAGE);
	ck_assert(!hz4_purge_pending());
	ck_assert(!hz4_purge_due(since + 500));
}
END_TEST

/* So many pages are used for a moment. */
static void
burst(size_t pages)
{
	uintptr_t a = hz4_pageheap_alloc(pages, PAGE, false);

	ck_assert_uint_ne(a, 0);
	hz4_pageheap_free(a, pages, hz4_os_now());
}

/* So many dirty pages, seen for the first time; the time then. */
static uint64_t
wake_with(size_t pages)
{
	uint64_t t;

	start("purge_delay=500");
	leave_dirty(pages);
	t = hz4_os_now();
	hz4_purge_wake(t);
	return t;
}

/* What bursts have used twice stays, however long all sleep in between. */
START_TEST(bursts_find_their_pages)
{
	uint64_t t = wake_with(4 * ALLOWANCE);
	unsigned i;

	ck_assert(hz4_purge_due(t + 500));
	for (i = 0; i < 4; i++) {
		burst(4 * ALLOWANCE);
		t += 60000;
		hz4_purge_wake(t);
		ck_assert(!hz4_purge_due(t));
		ck_assert(!hz4_purge_due(t + 499));
		ck_assert(hz4_purge_due(t + 500));
	}
	/* As long as this no burst takes. */
	purge(t + 500);
	ck_assert_uint_eq(hz4_pageheap_dirty(), ALLOWANCE * PAGE);
}
END_TEST

/* More than that goes at once: what is freed once, what was used once. */
START_TEST(what_bursts_do_not_use_goes)
{
	uint64_t t = wake_with(4 * ALLOWANCE);

	hz4_purge_wake(t + 1000);
	ck_assert(hz4_purge_due(t + 1000));
	burst(4 * ALLOWANCE);
	burst(2 * ALLOWANCE);
	/* No sleep, a clock that went back. */
	hz4_purge_wake(t + 1250);
	hz4_purge_wake(t + 1000);
	hz4_purge_wake(t + 3000);
	ck_assert(hz4_purge_due(t + 3000));
	burst(2 * ALLOWANCE);
	hz4_purge_wake(t + 5000);
	ck_assert(hz4_purge_due(t + 5000));
	hz4_purge_run(t + 5000);
	ck_assert_uint_eq(hz4_pageheap_dirty(), 2 * ALLOWANCE * PAGE);
	ck_assert(!hz4_purge_goes_on());
	/* The rest is looked at as what is left after any sleep. */
	ck_assert(!hz4_purge_due(t + 5499));
	ck_assert(hz4_purge_due(t + 5500));
	burst(ALLOWANCE);
	hz4_purge_wake(t + 7000);
	ck_assert(hz4_purge_due(t + 7000));
	hz4_purge_run(t + 7000);
	ck_assert_uint_eq(hz4_pageheap_dirty(), ALLOWANCE * PAGE);
}
END_TEST

/* One purge leaves what is used, the next one does not. */
START_TEST(what_stays_for_a_burst_is_for_one_purge)
{
	uint64_t t = wake_with(5 * ALLOWANCE);

	burst(2 * ALLOWANCE);
	hz4_purge_wake(t + 1000);
	burst(2 * ALLOWANCE);
	hz4_purge_wake(t + 2000);
	purge(t + 2000);
	ck_assert_uint_eq(hz4_pageheap_dirty(), 2 * ALLOWANCE * PAGE);
	purge(t + 2500);
	ck_assert_uint_eq(hz4_pageheap_dirty(), ALLOWANCE * PAGE);
}
END_TEST

/* Idle spans are used as well. */
START_TEST(bursts_find_their_spans)
{
	const unsigned cls = HZ4_CLS_ZERO - 1;
	enum { N = 4 * HZ4_PURGE_ALLOWANCE / HZ4_CLASS_MAX };
	static void *p[N];
	unsigned n = 0, path;
	size_t had;
	uint64_t t;

	start("purge_delay=500");
	while (n < N)
		n += hz4_transfer_take(cls, p + n, N - n, &path);
	t = hz4_os_now();
	while (n > 0) {
		n -= N / 4;
		hz4_transfer_give(cls, p + n, N / 4, t, &path);
	}
	had = hz4_spans_idle();
	ck_assert_uint_gt(had, HZ4_PURGE_ALLOWANCE);
	hz4_purge_wake(t);
	burst(2 * ALLOWANCE);
	hz4_purge_wake(t + 1000);
	burst(5 * ALLOWANCE);
	hz4_purge_wake(t + 2000);
	hz4_purge_run(t + 2000);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	/* A system call may take a little more than it has to. */
	ck_assert_uint_le(hz4_pageheap_dirty(), had + 2 * ALLOWANCE * PAGE);
	ck_assert_uint_gt(hz4_pageheap_dirty(), had + ALLOWANCE * PAGE);
}
END_TEST

START_TEST(without_a_delay_nothing_waits_for_a_burst)
{
	uint64_t t;
	unsigned i;

	start("purge_delay=0");
	leave_dirty(4 * ALLOWANCE);
	t = hz4_os_now();
	for (i = 0; i < 4; i++) {
		burst(4 * ALLOWANCE);
		t += 1000;
		hz4_purge_wake(t);
		ck_assert(hz4_purge_due(t));
	}
}
END_TEST

START_TEST(rounds_keep_their_distance)
{
	uint64_t since;

	start("purge_delay=10");
	leave_dirty(ALLOWANCE + 1);
	since = hz4_pageheap_oldest();
	ck_assert(!hz4_purge_due(since + 9));
	ck_assert(hz4_purge_due(since + 10));
	hz4_purge_run(since + 5);
	ck_assert(!hz4_purge_due(since + 5 + HZ4_PURGE_ROUNDS - 1));
	ck_assert(hz4_purge_due(since + 5 + HZ4_PURGE_ROUNDS));
}
END_TEST

START_TEST(no_delay_keeps_nothing)
{
	start("purge_delay=0");
	leave_dirty(1);
	ck_assert(hz4_purge_pending());
	ck_assert(hz4_purge_due(hz4_pageheap_oldest()));
	hz4_purge_run(hz4_pageheap_oldest());
	ck_assert_uint_eq(hz4_pageheap_dirty(), 0);
	ck_assert(!hz4_purge_pending());
}
END_TEST

START_TEST(a_bounded_piece_at_a_time)
{
	const size_t step = HZ4_PURGE_MOST / PAGE;
	uint64_t later;

	start("purge_delay=500");
	leave_dirty(ALLOWANCE + step + step / 2);
	later = hz4_os_now() + 1000;
	ck_assert(!hz4_purge_goes_on());
	hz4_purge_run(later);
	ck_assert_uint_eq(hz4_pageheap_dirty(), (ALLOWANCE + step / 2) * PAGE);
	ck_assert(hz4_purge_goes_on());
	ck_assert(hz4_purge_due(later));
	hz4_purge_run(later);
	ck_assert_uint_le(hz4_pageheap_dirty(), ALLOWANCE * PAGE);
	ck_assert(!hz4_purge_goes_on());
	hz4_purge_all();
	/* Everything has no bound. */
	hz4_purge_all();
	leave_dirty(step + step / 2);
	ck_assert_uint_eq(hz4_purge_all(), (step + step / 2) * PAGE);
}
END_TEST

static size_t
resident(uintptr_t a, size_t bytes)
{
	static unsigned char pages[1 << 16];
	size_t i, n = 0;

	ck_assert_int_eq(mincore((void *)a, bytes, pages), 0);
	for (i = 0; i < bytes / hz4_os_page; i++)
		n += pages[i] & 1;
	return n * hz4_os_page;
}

START_TEST(memory_really_goes)
{
	uintptr_t a;

	start("purge_delay=500");
	a = leave_dirty(ALLOWANCE);
	ck_assert_uint_eq(resident(a, ALLOWANCE * PAGE), ALLOWANCE * PAGE);
	hz4_purge_all();
	ck_assert_uint_eq(resident(a, ALLOWANCE * PAGE), 0);
}
END_TEST

/* Empty spans that a class keeps are free memory too. */
START_TEST(reserves_are_given_up)
{
	struct hz4_spans_figures f;
	unsigned cls, path;
	void *p;

	start("purge_delay=500");
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		ck_assert_uint_eq(hz4_transfer_take(cls, &p, 1, &path), 1);
		memset(p, 1, hz4_sizeclass_usable(cls));
		hz4_transfer_give(cls, &p, 1, hz4_os_now(), &path);
	}
	ck_assert_uint_gt(hz4_purge_all(), 0);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		hz4_spans_figures(cls, &f);
		ck_assert_uint_eq(f.spans, 0);
	}
	ck_assert_uint_eq(hz4_pageheap_dirty(), 0);
}
END_TEST

/* Also where nothing else is free. */
START_TEST(idle_spans_pend)
{
	enum { CLS = HZ4_CLS_ZERO - 1, N = HZ4_SPAN_IDLE / HZ4_CLASS_MAX };
	enum { FIRST = 1000, DUE = FIRST + 500 };
	void *p[N];
	unsigned i, path;
	bool many;

	start("purge_delay=500");
	for (i = 0; i < N; i++)
		ck_assert_uint_eq(hz4_transfer_take(CLS, &p[i], 1, &path), 1);
	hz4_purge_all();
	for (i = 0; i < N; i++) {
		many = i * (size_t)HZ4_CLASS_MAX > HZ4_PURGE_ALLOWANCE;
		ck_assert_uint_eq(hz4_purge_pending(), many);
		ck_assert(!hz4_purge_due(DUE - 1));
		ck_assert_uint_eq(hz4_purge_due(DUE), many);
		/* All but the first are younger. */
		hz4_transfer_give(CLS, &p[i], 1, FIRST + i, &path);
	}
	hz4_purge_run(DUE);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	ck_assert_uint_eq(hz4_pageheap_dirty(), HZ4_SPAN_IDLE);
	ck_assert(!hz4_purge_due(DUE));
}
END_TEST

/* With shards, spans are left to others: they count from the decay on. */
START_TEST(waiting_spans_are_counted_by_the_decay)
{
	enum { CLS = HZ4_CLS_ZERO - 1 };
	uint64_t now = hz4_os_now() + HZ4_CACHE_DECAY;
	unsigned path;
	void *p;

	start("shards=8");
	ck_assert_uint_eq(hz4_transfer_take(CLS, &p, 1, &path), 1);
	hz4_transfer_give(CLS, &p, 1, now, &path);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	ck_assert(hz4_purge_decay_arm(now));
	ck_assert_uint_eq(hz4_spans_idle(), HZ4_CLASS_MAX);
}
END_TEST

/* The time that a span was idle counts: one purge does. */
START_TEST(idle_spans_age)
{
	enum { CLS = HZ4_CLS_ZERO - 1, N = HZ4_SPAN_IDLE / HZ4_CLASS_MAX };
	void *p[2 * N];
	unsigned i, path;

	start("purge_delay=500");
	for (i = 0; i < 2 * N; i++)
		ck_assert_uint_eq(hz4_transfer_take(CLS, &p[i], 1, &path), 1);
	/* Every other one: runs that do not merge. */
	for (i = 0; i < 2 * N; i += 2)
		hz4_transfer_give(CLS, &p[i], 1, hz4_os_now(), &path);
	purge(hz4_os_now() + 2000);
	ck_assert_uint_eq(hz4_spans_idle(), 0);
	ck_assert_uint_le(hz4_pageheap_dirty(), HZ4_PURGE_ALLOWANCE);
}
END_TEST

START_TEST(lazy_memory_is_not_known_zero)
{
	uintptr_t a;

	start("purge_lazy=1");
	leave_dirty(4);
	hz4_purge_all();
	a = hz4_pageheap_alloc(4, PAGE, false);
	hz4_pageheap_zero(a, 4);
	ck_assert(unit_all((void *)a, 4 * PAGE, 0));
}
END_TEST

/* One at a time, and nobody for longer than it says. */
START_TEST(one_watches)
{
	uint64_t now = 5000;

	ck_assert(hz4_purge_watch(now));
	ck_assert(!hz4_purge_watch(now));
	ck_assert(!hz4_purge_watch(now + HZ4_WATCH_TIME - 1));
	ck_assert(hz4_purge_watch(now + HZ4_WATCH_TIME));
	/* It goes on. */
	hz4_purge_watch_on(now + HZ4_WATCH_TIME);
	now += HZ4_WATCH_TIME + HZ4_WATCH_TIME;
	ck_assert(!hz4_purge_watch(now - 1));
	ck_assert(hz4_purge_watch(now));
	/* It is done. */
	hz4_purge_watch_on(now);
	hz4_purge_watch_end();
	ck_assert(hz4_purge_watch(now));
}
END_TEST

START_TEST(decay_is_due_once_in_a_while)
{
	uint64_t now;

	start("purge_delay=500");
	now = hz4_os_now();
	ck_assert(hz4_purge_decay_arm(now));
	ck_assert(!hz4_purge_decay_arm(now));
	ck_assert(!hz4_purge_decay_arm(now + HZ4_CACHE_DECAY - 1));
	ck_assert(hz4_purge_decay_arm(now + HZ4_CACHE_DECAY));
	ck_assert(!hz4_purge_decay_arm(now + HZ4_CACHE_DECAY));
}
END_TEST

static _Atomic unsigned claimed;
static uint64_t claim_now;
static bool (*claims)(uint64_t now);
static pthread_barrier_t all_here;

static void *
claim_one(void *number)
{
	(void)number;
	pthread_barrier_wait(&all_here);
	claimed += claims(claim_now);
	return NULL;
}

START_TEST(one_of_many_does_it)
{
	unsigned round;

	start("purge_delay=500");
	leave_dirty(ALLOWANCE + 1);
	pthread_barrier_init(&all_here, NULL, CALLERS);
	for (round = 1; round <= 50; round++) {
		claimed = 0;
		claims = round % 2 ? hz4_purge_watch : hz4_purge_decay_arm;
		claim_now = hz4_os_now() + round * 10000;
		unit_threads(CALLERS, claim_one);
		ck_assert_uint_eq(claimed, 1);
	}
}
END_TEST

/* Address space goes back too, and the heap works on. */
START_TEST(exhausted)
{
	struct hz4_pageheap_figures before, after;
	uintptr_t a;

	start("purge_delay=500");
	leave_dirty(400);
	hz4_pageheap_figures(&before);
	hz4_purge_exhausted();
	hz4_pageheap_figures(&after);
	ck_assert_uint_lt(after.mapped, before.mapped);
	ck_assert_uint_eq(after.free, after.mapped);
	a = hz4_pageheap_alloc(400, PAGE, false);
	ck_assert_uint_ne(a, 0);
	hz4_pageheap_zero(a, 400);
	ck_assert(unit_all((void *)a, 400 * PAGE, 0));
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, nothing_is_pending_at_first);
	tcase_add_test(t, the_allowance_never_pends);
	tcase_add_test(t, the_allowance_is_the_programs);
	tcase_add_test(t, due_after_the_delay);
	tcase_add_test(t, bursts_find_their_pages);
	tcase_add_test(t, what_bursts_do_not_use_goes);
	tcase_add_test(t, what_stays_for_a_burst_is_for_one_purge);
	tcase_add_test(t, bursts_find_their_spans);
	tcase_add_test(t, without_a_delay_nothing_waits_for_a_burst);
	tcase_add_test(t, rounds_keep_their_distance);
	tcase_add_test(t, no_delay_keeps_nothing);
	tcase_add_test(t, a_bounded_piece_at_a_time);
	tcase_add_test(t, memory_really_goes);
	tcase_add_test(t, reserves_are_given_up);
	tcase_add_test(t, idle_spans_pend);
	tcase_add_test(t, idle_spans_age);
	tcase_add_test(t, waiting_spans_are_counted_by_the_decay);
	tcase_add_test(t, lazy_memory_is_not_known_zero);
	tcase_add_test(t, one_watches);
	tcase_add_test(t, decay_is_due_once_in_a_while);
	tcase_add_test(t, one_of_many_does_it);
	tcase_add_test(t, exhausted);
}

int
main(void)
{
	return unit_main("purge", add);
}
