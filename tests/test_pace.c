/*
 * pace.h: who is ahead, when to yield, and what counts as a help.
 */
#include "unit.h"

#include "option.h"
#include "pace.h"
#include "share.h"

#include <sched.h>

static struct hz4_pace pace, other;

/* One CPU, and so many threads with caches. */
static void
start(int users)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((size_t)sched_getcpu(), &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
	unit_os_init();
	ck_assert_uint_eq(hz4_os_cpus(), 1);
	hz4_share_add_user(users);
}

/* As cache.c does at a miss. */
static void
miss(size_t bytes)
{
	hz4_pace_take(&pace, bytes);
	if (hz4_pace_due(&pace))
		hz4_pace_rest(&pace);
}

START_TEST(ahead_is_what_was_taken_and_not_given)
{
	start(1);
	hz4_pace_take(&pace, 1000);
	hz4_pace_give(&pace, 400);
	ck_assert_uint_eq(pace.ahead, 600);
	/* Objects of others: no credit for later. */
	hz4_pace_give(&pace, 5000);
	ck_assert_uint_eq(pace.ahead, 0);
	hz4_pace_take(&pace, HZ4_PACE_AHEAD - 1);
	ck_assert(!hz4_pace_due(&pace));
	hz4_pace_take(&pace, 1);
	ck_assert(hz4_pace_due(&pace));
	hz4_pace_rest(&pace);
	ck_assert(!hz4_pace_due(&pace));
}
END_TEST

static void
nothing_is_tried(void)
{
	unsigned i;

	for (i = 0; i < 100; i++)
		miss(HZ4_PACE_AHEAD);
	ck_assert_uint_eq(pace.patience, 0);
	ck_assert_uint_eq(pace.turns, 0);
}

START_TEST(one_thread_never_yields)
{
	start(1);
	nothing_is_tried();
}
END_TEST

/* Where the machine has more than two CPUs; else as above. */
START_TEST(fewer_threads_than_cpus_never_yield)
{
	unit_os_init();
	hz4_share_add_user((int)hz4_max(hz4_os_cpus(), 2) - 1);
	nothing_is_tried();
}
END_TEST

START_TEST(the_option_turns_it_off)
{
	ck_assert(hz4_option_assign("yield=0", 7));
	start(100);
	nothing_is_tried();
}
END_TEST

/* Nobody gives: twice as many turns to each next try, up to an end. */
START_TEST(what_does_not_help_is_tried_less)
{
	uint32_t patience, i;

	start(2);
	errno = ENOTTY;
	for (patience = 1; patience < HZ4_PACE_PATIENCE;
	     patience = 2 * patience + 1) {
		miss(HZ4_PACE_AHEAD);
		ck_assert_uint_eq(pace.patience, patience);
		for (i = patience; i > 0; i--) {
			ck_assert_uint_eq(pace.turns, i);
			miss(HZ4_PACE_AHEAD);
		}
	}
	for (i = 0; i < 3 * HZ4_PACE_PATIENCE; i++)
		miss(HZ4_PACE_AHEAD);
	ck_assert_uint_eq(pace.patience, HZ4_PACE_PATIENCE);
	ck_assert_int_eq(errno, ENOTTY);
}
END_TEST

static _Atomic bool done;

/* Gives all the time that it has a CPU. */
static void *
give_on_and_on(void *arg)
{
	while (!atomic_load(&done))
		hz4_pace_give(&other, HZ4_PACE_TELL);
	return arg;
}

/*
 * Another thread waits for the only CPU: yields let it run, sooner or
 * later, and are seen to help.
 */
START_TEST(what_helps_goes_on)
{
	pthread_t id;
	unsigned i;

	start(2);
	while (pace.patience == 0)
		miss(HZ4_PACE_AHEAD);
	ck_assert_int_eq(pthread_create(&id, NULL, give_on_and_on, NULL), 0);
	for (i = 0; pace.patience > 0; i++)
		miss(HZ4_PACE_AHEAD);
	atomic_store(&done, true);
	pthread_join(id, NULL);
	ck_assert_uint_gt(i, 0);
}
END_TEST

/* Small gifts add up: none is forgotten, few touch the shared sum. */
START_TEST(gifts_are_told_in_sums)
{
	unsigned i;

	start(2);
	for (i = 0; i < HZ4_PACE_TELL / 64 - 1; i++)
		hz4_pace_give(&pace, 64);
	ck_assert_uint_eq(pace.given, HZ4_PACE_TELL - 64);
	hz4_pace_give(&pace, 64);
	ck_assert_uint_eq(pace.given, 0);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, ahead_is_what_was_taken_and_not_given);
	tcase_add_test(t, one_thread_never_yields);
	tcase_add_test(t, fewer_threads_than_cpus_never_yield);
	tcase_add_test(t, the_option_turns_it_off);
	tcase_add_test(t, what_does_not_help_is_tried_less);
	tcase_add_test(t, what_helps_goes_on);
	tcase_add_test(t, gifts_are_told_in_sums);
}

int
main(void)
{
	return unit_main("pace", add);
}
