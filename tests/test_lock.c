/*
 * lock.h: exclusion, sleeping and waking, and what the child of a fork
 * finds.
 */
#include "unit.h"

#include "lock.h"

enum { THREADS = 4, ROUNDS = 20000 };

static struct hz4_lock lock = HZ4_LOCK_INIT(HZ4_RANK_CLASS);
static struct hz4_lock gate = HZ4_LOCK_INIT(HZ4_RANK_INIT);
static uint64_t first, second; /* equal whenever nobody holds the lock */
static _Atomic unsigned started;
static _Atomic bool stop;

static uint32_t
word_of(struct hz4_lock *l)
{
	return atomic_load(&l->word);
}

START_TEST(word_tells_the_owner)
{
	uint32_t self = hz4_lock_self();

	ck_assert_uint_ne(self, 0);
	ck_assert_uint_eq(self & 1, 0);
	ck_assert_uint_eq(word_of(&lock), 0);
	hz4_lock_acquire(&lock);
	ck_assert_uint_eq(word_of(&lock), self);
	hz4_lock_release(&lock);
	ck_assert_uint_eq(word_of(&lock), 0);
}
END_TEST

static uint32_t marks[THREADS];
static pthread_barrier_t all_here;

static void *
note_mark(void *number)
{
	marks[(uintptr_t)number] = hz4_lock_self();
	/* Alive together, or one could inherit another's place. */
	pthread_barrier_wait(&all_here);
	return NULL;
}

START_TEST(marks_differ)
{
	unsigned i, k;

	pthread_barrier_init(&all_here, NULL, THREADS);
	unit_threads(THREADS, note_mark);
	for (i = 0; i < THREADS; i++) {
		ck_assert_uint_ne(marks[i], hz4_lock_self());
		for (k = 0; k < i; k++)
			ck_assert_uint_ne(marks[i], marks[k]);
	}
}
END_TEST

static void *
count_up(void *number)
{
	unsigned i;

	for (i = 0; i < ROUNDS; i++) {
		hz4_lock_acquire(&lock);
		unit_need(first == second, "in thread %u",
			  (unsigned)(uintptr_t)number);
		first++;
		/* Now and then long enough that the others go to sleep. */
		if (i % 1024 == 0)
			unit_sleep(1);
		second++;
		hz4_lock_release(&lock);
	}
	return NULL;
}

START_TEST(one_at_a_time)
{
	unit_threads(THREADS, count_up);
	ck_assert_uint_eq(first, (uint64_t)THREADS * ROUNDS);
	ck_assert_uint_eq(second, first);
	ck_assert_uint_eq(word_of(&lock), 0);
}
END_TEST

static void *
sleep_for_it(void *number)
{
	(void)number;
	started++;
	errno = 4711;
	hz4_lock_acquire(&lock);
	second++;
	hz4_lock_release(&lock);
	ck_assert_int_eq(errno, 4711);
	return NULL;
}

/* One release has to reach every sleeper in the end. */
START_TEST(all_sleepers_wake)
{
	pthread_t id[UNIT_THREADS_MAX];
	unsigned i;

	hz4_lock_acquire(&lock);
	for (i = 0; i < UNIT_THREADS_MAX; i++)
		pthread_create(&id[i], NULL, sleep_for_it, NULL);
	while (started < UNIT_THREADS_MAX || !(word_of(&lock) & 1))
		unit_sleep(1);
	unit_sleep(20);
	ck_assert_uint_eq(second, 0);
	ck_assert_uint_eq(word_of(&lock) & ~1u, hz4_lock_self());
	hz4_lock_release(&lock);
	for (i = 0; i < UNIT_THREADS_MAX; i++)
		pthread_join(id[i], NULL);
	ck_assert_uint_eq(second, UNIT_THREADS_MAX);
	ck_assert_uint_eq(word_of(&lock), 0);
}
END_TEST

static void
child_of_free(void *arg)
{
	(void)arg;
	unit_child_need(!hz4_lock_fork_child(&lock));
	unit_child_need(word_of(&lock) == 0);
	hz4_lock_acquire(&lock);
	hz4_lock_release(&lock);
}

START_TEST(fork_with_a_free_lock)
{
	unit_survives(child_of_free, NULL);
}
END_TEST

static void
child_of_own(void *arg)
{
	(void)arg;
	unit_child_need(!hz4_lock_fork_child(&lock));
	/* Still held, and the sleepers have stayed behind. */
	unit_child_need(word_of(&lock) == hz4_lock_self());
	hz4_lock_release(&lock);
	unit_child_need(word_of(&lock) == 0);
	hz4_lock_acquire(&lock);
	hz4_lock_release(&lock);
}

START_TEST(fork_with_an_own_lock)
{
	hz4_lock_acquire(&lock);
	unit_survives(child_of_own, NULL);
	ck_assert_uint_eq(word_of(&lock), hz4_lock_self());
	hz4_lock_release(&lock);
}
END_TEST

START_TEST(fork_with_an_own_lock_and_sleepers)
{
	pthread_t id;

	hz4_lock_acquire(&lock);
	pthread_create(&id, NULL, sleep_for_it, NULL);
	while (!(word_of(&lock) & 1))
		unit_sleep(1);
	unit_survives(child_of_own, NULL);
	hz4_lock_release(&lock);
	pthread_join(id, NULL);
}
END_TEST

static void *
hold(void *arg)
{
	(void)arg;
	hz4_lock_acquire(&lock);
	started++;
	while (!stop)
		unit_sleep(1);
	hz4_lock_release(&lock);
	return NULL;
}

static void
child_of_other(void *arg)
{
	(void)arg;
	unit_child_need(hz4_lock_fork_child(&lock));
	unit_child_need(word_of(&lock) == 0);
	/* Told once: the lock is an ordinary free one from here on. */
	unit_child_need(!hz4_lock_fork_child(&lock));
	hz4_lock_acquire(&lock);
	unit_child_need(!hz4_lock_fork_child(&lock));
	hz4_lock_release(&lock);
}

START_TEST(fork_with_a_lock_of_another_thread)
{
	pthread_t id;

	pthread_create(&id, NULL, hold, NULL);
	while (started == 0)
		unit_sleep(1);
	unit_survives(child_of_other, NULL);
	stop = true;
	pthread_join(id, NULL);
}
END_TEST

/* What the kernel clears in a child. */
static _Atomic uint32_t no_child;
static unsigned started_afresh;

static void
start_afresh(void)
{
	started_afresh++;
	hz4_lock_fork_child(&lock);
}

/* A handler that runs before ours waits for a thread that is gone. */
START_TEST(who_would_wait_for_the_gone_starts_afresh)
{
	hz4_lock_watch_forks(&no_child, start_afresh);
	ck_assert_uint_ne(no_child, 0);
	hz4_lock_acquire(&lock);
	hz4_lock_release(&lock);
	ck_assert_uint_eq(started_afresh, 0);
	no_child = 0;
	hz4_poke(&lock.word, hz4_lock_self() + 2);
	hz4_lock_acquire(&lock);
	hz4_lock_release(&lock);
	ck_assert_uint_eq(started_afresh, 1);
	/* Once: the handler has nothing left to do. */
	ck_assert(!hz4_lock_in_child());
	no_child = 0;
	ck_assert(hz4_lock_in_child());
	ck_assert(!hz4_lock_in_child());
}
END_TEST

static void *
let_go(void *arg)
{
	unit_sleep(50);
	stop = true;
	return arg;
}

/* In a child whose threads are there: the holder is one of them. */
START_TEST(nobody_starts_afresh_beside_other_threads)
{
	pthread_t id, other;

	hz4_lock_self();
	hz4_lock_watch_forks(&no_child, start_afresh);
	no_child = 0;
	pthread_create(&id, NULL, hold, NULL);
	while (started == 0)
		unit_sleep(1);
	pthread_create(&other, NULL, let_go, NULL);
	hz4_lock_acquire(&lock);
	ck_assert(stop);
	hz4_lock_release(&lock);
	ck_assert_uint_eq(started_afresh, 0);
	pthread_join(id, NULL);
	pthread_join(other, NULL);
	/* The handler, should it come, does what it always did. */
	ck_assert(hz4_lock_in_child());
}
END_TEST

static void
take_in_order(void *arg)
{
	(void)arg;
	hz4_lock_acquire(&gate);
	hz4_lock_acquire(&lock);
	hz4_lock_release(&lock);
	hz4_lock_release(&gate);
	hz4_lock_acquire(&lock);
	hz4_lock_release(&lock);
	hz4_lock_acquire(&gate);
	hz4_lock_release(&gate);
}

static void
take_against_order(void *arg)
{
	(void)arg;
	hz4_lock_acquire(&lock);
	hz4_lock_acquire(&gate);
}

static void
take_equal_rank(void *arg)
{
	struct hz4_lock other = HZ4_LOCK_INIT(HZ4_RANK_CLASS);

	(void)arg;
	hz4_lock_acquire(&lock);
	hz4_lock_acquire(&other);
}

/* Debug builds trap where two threads could come to wait for each other. */
START_TEST(ranks_ascend)
{
	unit_survives(take_in_order, NULL);
	unit_trapped(take_against_order, NULL);
	unit_trapped(take_equal_rank, NULL);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, word_tells_the_owner);
	tcase_add_test(t, marks_differ);
	tcase_add_test(t, one_at_a_time);
	tcase_add_test(t, all_sleepers_wake);
	tcase_add_test(t, fork_with_a_free_lock);
	tcase_add_test(t, fork_with_an_own_lock);
	tcase_add_test(t, fork_with_an_own_lock_and_sleepers);
	tcase_add_test(t, fork_with_a_lock_of_another_thread);
	tcase_add_test(t, who_would_wait_for_the_gone_starts_afresh);
	tcase_add_test(t, nobody_starts_afresh_beside_other_threads);
	tcase_add_test(t, ranks_ascend);
}

int
main(void)
{
	return unit_main("lock", add);
}
