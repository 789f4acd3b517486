/*
 * lock.h: exclusion, sleeping and waking, and what the child of a fork
 * finds.
 */
#include "unit.h"

#include "lock.h"
#include "os.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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
	unit_child_need(!hz4_fork_lost(&lock));
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
	unit_child_need(!hz4_fork_lost(&lock));
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
	unit_child_need(hz4_fork_lost(&lock));
	/* Until somebody has it: a fork meanwhile finds it lost again. */
	unit_child_need(hz4_fork_lost(&lock));
	hz4_fork_seize(&lock);
	unit_child_need(hz4_lock_is_mine(&lock));
	unit_child_need(!hz4_fork_lost(&lock));
	hz4_fork_drop(&lock);
	unit_child_need(word_of(&lock) == 0);
	/* Told once: the lock is an ordinary free one from here on. */
	unit_child_need(!hz4_fork_lost(&lock));
	hz4_lock_acquire(&lock);
	unit_child_need(!hz4_fork_lost(&lock));
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
static _Atomic unsigned started_afresh;

static void
start_afresh(void)
{
	started_afresh++;
	if (hz4_fork_lost(&lock))
		hz4_fork_drop(&lock);
}

/* As if this were a child now, and a thread that is gone had the lock. */
static void
become_a_child(void)
{
	no_child = HZ4_FORK_UNSEEN;
	hz4_poke(&lock.word, 0x7ffffffe);
}

static void
take_and_drop(void)
{
	hz4_lock_acquire(&lock);
	hz4_lock_release(&lock);
}

static void *
take_in_a_thread(void *arg)
{
	take_and_drop();
	return arg;
}

/* A handler that runs before ours would wait for a thread that is gone. */
START_TEST(the_first_at_a_lock_starts_afresh)
{
	uint32_t generation;

	hz4_fork_watch(&no_child, start_afresh);
	ck_assert_uint_eq(no_child, HZ4_FORK_SEEN);
	take_and_drop();
	ck_assert_uint_eq(started_afresh, 0);
	generation = hz4_fork_generation();
	become_a_child();
	take_and_drop();
	ck_assert_uint_eq(started_afresh, 1);
	ck_assert_uint_eq(no_child, HZ4_FORK_SEEN);
	ck_assert_uint_ne(hz4_fork_generation(), generation);
	/* Once: the handler has nothing left to do. */
	hz4_fork_in_child();
	ck_assert_uint_eq(started_afresh, 1);
	become_a_child();
	ck_assert(hz4_lock_try(&lock));
	hz4_lock_release(&lock);
	ck_assert_uint_eq(started_afresh, 2);
	become_a_child();
	hz4_fork_in_child();
	take_and_drop();
	ck_assert_uint_eq(started_afresh, 3);
	ck_assert_uint_eq(word_of(&lock), 0);
}
END_TEST

/* Without a mark nothing tells it from the thread that forked. */
START_TEST(a_new_thread_starts_afresh_too)
{
	uint32_t self = hz4_lock_self();
	pthread_t id;

	hz4_fork_watch(&no_child, start_afresh);
	become_a_child();
	pthread_create(&id, NULL, take_in_a_thread, NULL);
	pthread_join(id, NULL);
	ck_assert_uint_eq(started_afresh, 1);
	take_and_drop();
	ck_assert_uint_eq(started_afresh, 1);
	/* But only the one that forked is from before. */
	ck_assert(hz4_fork_is_old(self));
	ck_assert(!hz4_fork_is_old(self + 2));
}
END_TEST

static _Atomic bool afresh, too_early;

static void
start_slowly(void)
{
	/* Its own locks and looks do not wait for it. */
	hz4_fork_look();
	hz4_poke(&lock.word, 0);
	started++;
	while (!stop)
		unit_sleep(1);
	afresh = true;
}

static void *
end_the_start(void *arg)
{
	unit_sleep(50);
	stop = true;
	return arg;
}

static void *
look_when_all_is_afresh(void *arg)
{
	hz4_fork_look();
	if (!afresh)
		too_early = true;
	return arg;
}

static void *
mark_when_all_is_afresh(void *arg)
{
	/* Or it would count as one from before. */
	if (hz4_fork_is_old(hz4_lock_self()) || !afresh)
		too_early = true;
	return arg;
}

/*
 * A lock that is free by then is no reason to go on, nor a mark from before,
 * which the thread that forked has.
 */
START_TEST(others_wait_for_who_starts_afresh)
{
	pthread_t id[4];
	unsigned i;

	hz4_lock_self();
	hz4_fork_watch(&no_child, start_slowly);
	become_a_child();
	pthread_create(&id[0], NULL, take_in_a_thread, NULL);
	while (started == 0)
		unit_sleep(1);
	pthread_create(&id[1], NULL, look_when_all_is_afresh, NULL);
	pthread_create(&id[2], NULL, mark_when_all_is_afresh, NULL);
	pthread_create(&id[3], NULL, end_the_start, NULL);
	hz4_lock_acquire(&lock);
	if (!afresh)
		too_early = true;
	hz4_lock_release(&lock);
	for (i = 0; i < 4; i++)
		pthread_join(id[i], NULL);
	ck_assert(afresh);
	ck_assert(!too_early);
	ck_assert_uint_eq(started, 1);
}
END_TEST

static void
fork_while_starting(void)
{
	if (started++ > 0)
		return;
	/* A signal's handler forks, and this is the child. */
	no_child = HZ4_FORK_UNSEEN;
	hz4_fork_look();
}

/* What was interrupted starts afresh for the new child as well. */
START_TEST(a_fork_from_within_starts_nothing)
{
	hz4_fork_watch(&no_child, fork_while_starting);
	no_child = HZ4_FORK_UNSEEN;
	hz4_poke(&lock.word, 0);
	hz4_fork_look();
	ck_assert_uint_eq(started, 1);
	ck_assert_uint_eq(no_child, HZ4_FORK_SEEN);
}
END_TEST

/* Where the kernel clears nothing there is libc's handler alone. */
START_TEST(no_memory_that_is_cleared)
{
	uint32_t generation = hz4_fork_generation();

	hz4_fork_watch(NULL, start_afresh);
	take_and_drop();
	ck_assert_uint_eq(started_afresh, 0);
	hz4_poke(&lock.word, 0x7ffffffe);
	hz4_fork_in_child();
	ck_assert_uint_eq(started_afresh, 1);
	ck_assert_uint_ne(hz4_fork_generation(), generation);
	take_and_drop();
}
END_TEST

static void *
hold_for_ever(void *arg)
{
	hz4_lock_acquire(&lock);
	started++;
	while (true)
		unit_sleep(1000);
	return arg;
}

static _Atomic pid_t from_handler;

/* Not by fork: no handler of libc's helps. */
static void
fork_in_handler(int sig)
{
	(void)sig;
	from_handler = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void *
signal_the_sleeper(void *arg)
{
	int status = -1;

	while (!(word_of(&lock) & 1))
		unit_sleep(1);
	unit_sleep(20);
	pthread_kill(*(pthread_t *)arg, SIGUSR1);
	while (from_handler == 0)
		unit_sleep(1);
	_exit(waitpid(from_handler, &status, 0) == from_handler &&
	      status == 0 ? 0 : 1);
}

/* In the child of a thread that slept for a lock nobody wakes it. */
START_TEST(a_sleeper_is_forked)
{
	_Atomic uint32_t *word = hz4_os_map_wiped();
	struct sigaction action = { .sa_handler = fork_in_handler,
				    .sa_flags = SA_RESTART };
	pthread_t self = pthread_self(), id;
	int status;
	pid_t pid;

	ck_assert_ptr_nonnull(word);
	hz4_fork_watch(word, start_afresh);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		hz4_fork_look();
		sigaction(SIGUSR1, &action, NULL);
		pthread_create(&id, NULL, hold_for_ever, NULL);
		while (started == 0)
			unit_sleep(1);
		pthread_create(&id, NULL, signal_the_sleeper, &self);
		hz4_lock_acquire(&lock);
		/* Only the handler's child comes here. */
		_exit(from_handler == 0 ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
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
wait_for_itself(void *arg)
{
	(void)arg;
	hz4_lock_acquire(&lock);
	/* As hz4_lock_acquire, but for the ranks, which come first. */
	hz4_lock_wait_slow(&lock, hz4_lock_self());
}

static void
wait_once_more(int sig)
{
	(void)sig;
	hz4_lock_wait_slow(&lock, hz4_lock_self());
}

static void
wait_in_the_handler_too(void *arg)
{
	signal(SIGABRT, wait_once_more);
	wait_for_itself(arg);
}

/* No silence for ever, and a crash reporter that allocates adds nothing. */
START_TEST(who_waits_for_itself_is_told)
{
	static const char line[] = "hz4: malloc() or free() in the midst of "
				   "another one, which a signal has "
				   "interrupted\n";

	unit_fatal(wait_for_itself, NULL, line);
	unit_fatal(wait_in_the_handler_too, NULL, line);
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
	tcase_add_test(t, the_first_at_a_lock_starts_afresh);
	tcase_add_test(t, a_new_thread_starts_afresh_too);
	tcase_add_test(t, others_wait_for_who_starts_afresh);
	tcase_add_test(t, a_fork_from_within_starts_nothing);
	tcase_add_test(t, no_memory_that_is_cleared);
	tcase_add_test(t, a_sleeper_is_forked);
	tcase_add_test(t, ranks_ascend);
	tcase_add_test(t, who_waits_for_itself_is_told);
}

int
main(void)
{
	return unit_main("lock", add);
}
