/*
 * thread.h: a cache from a thread's first call to its end, use after the
 * end, the pool, and the child of a fork.
 */
#include "unit.h"

#include "heap.h"
#include "l1.h"
#include "list.h"
#include "lock.h"
#include "meta.h"
#include "os.h"
#include "spans.h"
#include "thread.h"

#include <sys/syscall.h>
#include <sys/wait.h>

enum { THREADS = 8, IN_A_ROW = 300, KEYS = 6, FORKS = 12, BLOCKS = 400 };

/*
 * Two classes, and objects of each that a cache holds: so few that what a
 * thread may have at first is enough for both.
 */
enum { KEPT = 4, MOVED = 9, SOME = 8 };

static void
count_one(struct hz4_cache *c, void *arg)
{
	(void)c;
	++*(unsigned *)arg;
}

/* Caches of threads, those of ended ones included. */
static unsigned
caches(void)
{
	unsigned n = 0;

	hz4_thread_each(count_one, &n);
	return n;
}

struct nets {
	int64_t net[HZ4_CLS_END];
};

static void
add_nets(struct hz4_cache *c, void *arg)
{
	struct nets *sum = arg;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		sum->net[cls] += hz4_peek(&c->tier[cls].net);
}

static void
add_l1_nets(const struct hz4_l1 *l, void *arg)
{
	struct nets *sum = arg;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		sum->net[cls] += hz4_peek(&l->shelf[cls].net);
}

/*
 * Objects that users and threads' caches have, over all threads, the bare
 * included: those of ended threads, and that the CPUs have, go first.
 */
static int64_t
objects_out(void)
{
	static struct hz4_counts counts[HZ4_CLS_VALUES];
	struct nets sum = { { 0 } };
	int64_t n = 0;
	unsigned cls;

	hz4_thread_flush_ended();
	hz4_l1_flush(counts);
	hz4_thread_each(add_nets, &sum);
	hz4_l1_each(add_l1_nets, &sum);
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		n += sum.net[cls] + hz4_thread_bare_net(cls);
	return n;
}

static void
use(uint64_t seed, unsigned rounds)
{
	unsigned char *p[32] = { NULL };
	unsigned i, k;

	for (i = 0; i < rounds; i++) {
		k = (unsigned)unit_below(&seed, 32);
		if (p[k] != NULL) {
			unit_need(p[k][0] == (uint8_t)(uintptr_t)p[k] / 16,
				  "%p", (void *)p[k]);
			hz4_heap_free(p[k]);
			p[k] = NULL;
			continue;
		}
		p[k] = hz4_heap_malloc(1 + unit_below(&seed, 9000));
		unit_need(p[k] != NULL, "no memory");
		p[k][0] = (uint8_t)(uintptr_t)p[k] / 16;
	}
	for (k = 0; k < 32; k++)
		hz4_heap_free(p[k]);
}

START_TEST(made_at_the_first_call)
{
	struct hz4_cache *c;

	ck_assert_ptr_eq(hz4_tls_cache, &hz4_empty_cache);
	ck_assert_uint_eq(caches(), 0);
	c = hz4_thread_cache();
	ck_assert_ptr_nonnull(c);
	ck_assert_ptr_ne(c, &hz4_empty_cache);
	ck_assert_ptr_eq(hz4_tls_cache, c);
	ck_assert_ptr_eq(hz4_thread_cache(), c);
	ck_assert_uint_eq(c->granted, HZ4_START_FIRST_THREAD);
	ck_assert_uint_eq(caches(), 1);
	ck_assert(unit_all(&hz4_empty_cache, sizeof hz4_empty_cache, 0));
}
END_TEST

START_TEST(tables_are_ready_after_start)
{
	hz4_thread_start();
	ck_assert_uint_eq(hz4_classes[HZ4_CLS_ZERO - 1].size, HZ4_CLASS_MAX);
	ck_assert_uint_eq(hz4_os_page, unit_os_page());
	ck_assert_uint_eq(caches(), 0);
	hz4_thread_start();
}
END_TEST

static void
take_class_after(enum hz4_rank rank)
{
	struct hz4_lock other = HZ4_LOCK_INIT(rank);

	hz4_thread_start();
	hz4_lock_acquire(&other);
	hz4_spans_unlock(hz4_spans_lock(1));
	hz4_lock_release(&other);
}

static void
after_threads(void *arg)
{
	(void)arg;
	take_class_after(HZ4_RANK_THREADS);
}

static void
after_class(void *arg)
{
	(void)arg;
	take_class_after(HZ4_RANK_CLASS);
}

/* A class's lock comes after that of the threads; debug builds know. */
START_TEST(class_locks_have_their_rank)
{
	unit_survives(after_threads, NULL);
	unit_trapped(after_class, NULL);
}
END_TEST

static struct hz4_cache *cache_of[THREADS];
static pthread_barrier_t all_here;

static void *
note_cache(void *number)
{
	uintptr_t i = (uintptr_t)number;

	/* The first calls of the process, all at once. */
	pthread_barrier_wait(&all_here);
	use(1 + i, 100);
	cache_of[i] = hz4_tls_cache;
	unit_need(hz4_thread_cache() == cache_of[i], "%zu", (size_t)i);
	pthread_barrier_wait(&all_here);
	return NULL;
}

START_TEST(one_for_each)
{
	unsigned i, k, firsts = 0;

	pthread_barrier_init(&all_here, NULL, THREADS);
	unit_threads(THREADS, note_cache);
	for (i = 0; i < THREADS; i++) {
		ck_assert_ptr_ne(cache_of[i], &hz4_empty_cache);
		firsts += cache_of[i]->granted == HZ4_START_FIRST_THREAD;
		for (k = 0; k < i; k++)
			ck_assert_ptr_ne(cache_of[i], cache_of[k]);
	}
	ck_assert_uint_eq(firsts, 1);
	ck_assert_uint_eq(caches(), THREADS);
	ck_assert_int_eq(objects_out(), 0);
}
END_TEST

static void *
use_and_end(void *number)
{
	use(1 + (uintptr_t)number, 200);
	return NULL;
}

START_TEST(ended_threads_leave_theirs_to_others)
{
	size_t metadata = 0;
	unsigned i;

	hz4_thread_cache();
	/* Each a size of its own, and then the same sizes again. */
	for (i = 0; i < IN_A_ROW; i++) {
		unit_thread(use_and_end,
			    (void *)(uintptr_t)(i % (IN_A_ROW / 2)));
		ck_assert_uint_eq(caches(), 2);
		ck_assert_int_eq(objects_out(), 0);
		if (i == IN_A_ROW / 2)
			metadata = hz4_meta_mapped();
	}
	ck_assert_uint_eq(hz4_meta_mapped(), metadata);
	for (i = 0; i < 3; i++) {
		unit_threads(THREADS, use_and_end);
		ck_assert_uint_le(caches(), THREADS + 1);
	}
}
END_TEST

static pthread_key_t keys[KEYS];
static unsigned destroyed, without_cache;

/* Whatever the order of destructors is, all of them may allocate. */
static void
allocate_late(void *arg)
{
	unsigned char *p = hz4_heap_malloc(100), *q, *r;

	destroyed++;
	without_cache += hz4_tls_cache == &hz4_empty_cache;
	ck_assert_ptr_nonnull(p);
	memset(p, 0xa5, 100);
	q = hz4_heap_malloc(20000);
	r = hz4_heap_calloc(1, 500000);
	ck_assert_ptr_nonnull(q);
	ck_assert(unit_all(r, 500000, 0));
	p = hz4_heap_realloc(p, 5000);
	ck_assert(unit_all(p, 100, 0xa5));
	hz4_heap_free(p);
	hz4_heap_free(q);
	hz4_heap_free(r);
	/* Allocated before the end. */
	hz4_heap_free(arg);
}

static void *
end_with_destructors(void *from)
{
	unsigned i;

	/* Keys made before ours come first, those made later after it. */
	for (i = 0; i < KEYS; i++) {
		if (i == KEYS / 2 || from != NULL)
			use(1, 100);
		if (from == NULL)
			pthread_key_create(&keys[i], allocate_late);
		pthread_setspecific(keys[i], hz4_heap_malloc(100));
	}
	return NULL;
}

START_TEST(use_after_the_end)
{
	unsigned round;

	hz4_thread_start();
	unit_thread(end_with_destructors, NULL);
	ck_assert_uint_eq(destroyed, KEYS);
	ck_assert_int_eq(objects_out(), 0);
	for (round = 2; round <= 20; round++) {
		unit_thread(end_with_destructors, keys);
		ck_assert_uint_eq(destroyed, round * KEYS);
		ck_assert_int_eq(objects_out(), 0);
		ck_assert_uint_eq(caches(), 1);
	}
	/* The test is worth nothing when none came after the end. */
	ck_assert_uint_ge(without_cache, 1);
}
END_TEST

static void *
only_free(void *arg)
{
	void **list = arg, *next;

	for (; list != NULL; list = next) {
		next = *list;
		hz4_heap_free(list);
	}
	hz4_heap_free(NULL);
	return NULL;
}

/* A list of so many objects through themselves. */
static void *
listed(unsigned n, size_t size)
{
	void **list = NULL, **p;

	for (; n > 0; n--) {
		p = hz4_heap_malloc(size);
		*p = list;
		list = p;
	}
	return list;
}

/* Who frees a few objects may be at its end: it gets no cache. */
START_TEST(a_thread_that_only_frees)
{
	unsigned i;

	use(1, 100);
	for (i = 0; i < 100; i++)
		unit_thread(only_free, listed(1 + i % HZ4_FIRST_FREES,
					      16 + i * 200));
	ck_assert_uint_eq(caches(), 1);
	hz4_cache_flush(hz4_tls_cache);
	ck_assert_int_eq(objects_out(), 0);
	unit_thread(only_free, listed(2 * HZ4_FIRST_FREES, 100));
	ck_assert_uint_eq(caches(), 2);
	hz4_cache_flush(hz4_tls_cache);
	ck_assert_int_eq(objects_out(), 0);
}
END_TEST

START_TEST(bare_counts)
{
	hz4_thread_add_bare(7, 3);
	hz4_thread_add_bare(7, -1);
	ck_assert_int_eq(hz4_thread_bare_net(7), 2);
	ck_assert_int_eq(hz4_thread_bare_net(8), 0);
}
END_TEST

static _Atomic unsigned waiting;
static _Atomic bool go_on;

static void *
use_and_wait(void *number)
{
	void *p = hz4_heap_malloc(100);

	use(1 + (uintptr_t)number, 200);
	waiting++;
	while (!go_on)
		unit_sleep(1);
	hz4_heap_free(p);
	return NULL;
}

static pthread_t waiter[THREADS];

static void
start_waiters(void)
{
	uintptr_t i;

	for (i = 0; i < THREADS; i++)
		pthread_create(&waiter[i], NULL, use_and_wait, (void *)i);
	while (waiting < THREADS)
		unit_sleep(1);
}

static void
end_waiters(void)
{
	unsigned i;

	go_on = true;
	for (i = 0; i < THREADS; i++)
		pthread_join(waiter[i], NULL);
}

/* What caches may hold depends on how many there are in use. */
START_TEST(threads_with_a_cache_are_counted)
{
	ck_assert_uint_eq(hz4_share_users(), 0);
	use(1, 100);
	ck_assert_uint_eq(hz4_share_users(), 1);
	start_waiters();
	ck_assert_uint_eq(hz4_share_users(), THREADS + 1);
	end_waiters();
	ck_assert_uint_eq(hz4_share_users(), 1);
}
END_TEST

static void
thread_in_child(void)
{
	pthread_t id;

	unit_child_need(pthread_create(&id, NULL, use_and_end, NULL) == 0);
	unit_child_need(pthread_join(id, NULL) == 0);
}

static void
adopt_in_child(void *arg)
{
	unsigned expected = *(unsigned *)arg, i;

	unit_child_need(caches() == expected);
	unit_child_need(hz4_tls_cache != &hz4_empty_cache);
	use(1, 1000);
	/* The gone threads' caches serve those of the child. */
	for (i = 0; i < 3; i++)
		thread_in_child();
	unit_child_need(caches() == expected);
}

START_TEST(a_child_adopts_the_caches)
{
	unsigned n;

	unit_skip_threads_in_child();
	use(1, 100);
	start_waiters();
	n = caches();
	ck_assert_uint_eq(n, THREADS + 1);
	unit_survives(adopt_in_child, &n);
	/* The forking thread goes on in the child, wherever it was. */
	hz4_poke(&hz4_tls_cache->busy, KEPT);
	unit_survives(adopt_in_child, &n);
	hz4_poke(&hz4_tls_cache->busy, HZ4_CLS_NONE);
	end_waiters();
}
END_TEST

/* Before anyone has had a reason to look at the list of threads. */
static void
count_in_child(void *arg)
{
	(void)arg;
	unit_child_need(hz4_share_users() == 1);
	use(1, 100);
	unit_child_need(caches() == THREADS + 1);
	unit_child_need(hz4_share_users() == 1);
}

START_TEST(a_child_counts_its_only_thread)
{
	unit_skip_threads_in_child();
	use(1, 100);
	start_waiters();
	unit_survives(count_in_child, NULL);
	end_waiters();
}
END_TEST

static void
adopt_without_a_cache(void *arg)
{
	(void)arg;
	unit_child_need(caches() == THREADS + 1);
	unit_child_need(hz4_share_users() == 0);
}

static void *
fork_without_a_cache(void *arg)
{
	unit_survives(adopt_without_a_cache, NULL);
	return arg;
}

/* It has not come by before, but fork's handler sees to it. */
START_TEST(a_thread_without_a_cache_forks)
{
	pthread_t id;

	unit_skip_threads_in_child();
	use(1, 100);
	start_waiters();
	pthread_create(&id, NULL, fork_without_a_cache, NULL);
	pthread_join(id, NULL);
	end_waiters();
}
END_TEST

/* A cache of the child's own is in use when those of the gone are adopted. */
static void
adopt_around_a_new_one(void *arg)
{
	pthread_t id;

	(void)arg;
	waiting = 0;
	unit_child_need(pthread_create(&id, NULL, use_and_wait, NULL) == 0);
	while (waiting == 0)
		unit_sleep(1);
	unit_child_need(caches() == THREADS + 2);
	unit_child_need(hz4_share_users() == 2);
	go_on = true;
	unit_child_need(pthread_join(id, NULL) == 0);
	unit_child_need(hz4_share_users() == 1);
}

START_TEST(new_threads_are_not_among_the_gone)
{
	unit_skip_threads_in_child();
	use(1, 100);
	start_waiters();
	unit_survives(adopt_around_a_new_one, NULL);
	end_waiters();
}
END_TEST

static bool at_fork;

/* A child handler that runs before ours. */
static void
allocate_in_the_child(void)
{
	if (at_fork) {
		alarm(20);
		only_free(listed(BLOCKS, KEPT * 16));
	}
}

static void *
hold_the_class(void *arg)
{
	unsigned cls = hz4_sizeclass(KEPT * 16);
	struct hz4_spans *c;

	use(1, 100);
	c = hz4_spans_lock(cls);
	waiting++;
	while (!go_on)
		unit_sleep(1);
	hz4_spans_unlock(c);
	return arg;
}

static void (*in_child)(void);

/* A thread that has never come by forks; no handler runs in the child. */
static void *
fork_unknown(void *arg)
{
	int status = -1;
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0) {
		alarm(20);
		in_child();
		_exit(0);
	}
	unit_need(waitpid(pid, &status, 0) == pid && status == 0,
		  "the child ended with status %x", status);
	return arg;
}

static void
only_free_some(void)
{
	only_free(listed(BLOCKS, KEPT * 16));
	use(1, 300);
}

static void *
free_in_a_thread(void *arg)
{
	only_free_some();
	return arg;
}

static void
threads_come_first(void)
{
	pthread_t id;

	unit_child_need(pthread_create(&id, NULL, free_in_a_thread, NULL) == 0);
	unit_child_need(pthread_join(id, NULL) == 0);
	only_free_some();
}

/* Nothing tells it from a new thread of the child, which is no matter. */
START_TEST(an_unknown_thread_forks)
{
	pthread_t holder, id;

	unit_skip_threads_in_child();
	use(1, 100);
	pthread_create(&holder, NULL, hold_the_class, NULL);
	while (waiting < 1)
		unit_sleep(1);
	in_child = _i == 0 ? only_free_some : threads_come_first;
	pthread_create(&id, NULL, fork_unknown, NULL);
	pthread_join(id, NULL);
	go_on = true;
	pthread_join(holder, NULL);
}
END_TEST

static struct hz4_cache *forkers;

static void *
need_an_own_cache(void *arg)
{
	/* Which locks the list of threads, and looks for caches to adopt. */
	use(1, 300);
	unit_need(hz4_tls_cache != forkers, "the forking thread's cache");
	caches();
	hz4_thread_flush_ended();
	unit_need(hz4_tls_cache != forkers, "the forking thread's cache");
	return arg;
}

static void
another_comes_first(void)
{
	unsigned n;
	pthread_t id;

	unit_child_need(pthread_create(&id, NULL, need_an_own_cache, NULL) ==
			0);
	unit_child_need(pthread_join(id, NULL) == 0);
	unit_child_need(hz4_tls_cache == forkers);
	use(2, 300);
	/* Now those of gone threads serve others: there are no more. */
	hz4_thread_flush_ended();
	n = caches();
	unit_child_need(pthread_create(&id, NULL, need_an_own_cache, NULL) ==
			0);
	unit_child_need(pthread_join(id, NULL) == 0);
	unit_child_need(caches() == n && hz4_share_users() == 1);
}

/* The cache of the thread that forked stays its own. */
START_TEST(a_new_thread_comes_by_first)
{
	unit_skip_threads_in_child();
	use(1, 100);
	forkers = hz4_tls_cache;
	start_waiters();
	in_child = another_comes_first;
	fork_unknown(NULL);
	end_waiters();
}
END_TEST

static void *
be_new(void *arg)
{
	unit_child_need(!hz4_fork_is_old(hz4_lock_self()));
	return arg;
}

static void
a_mark_comes_first(void)
{
	pthread_t id;

	unit_child_need(pthread_create(&id, NULL, be_new, NULL) == 0);
	unit_child_need(pthread_join(id, NULL) == 0);
	unit_child_need(hz4_fork_is_old(hz4_lock_self()));
}

/* The child's first look at the locks is for the mark of a new thread. */
START_TEST(a_new_thread_is_marked_first)
{
	unit_skip_threads_in_child();
	use(1, 100);
	in_child = a_mark_comes_first;
	fork_unknown(NULL);
}
END_TEST

static void
go_on_after_handlers(void *arg)
{
	(void)arg;
	only_free(listed(BLOCKS, KEPT * 16));
}

/* Whom a handler would wait for is gone. */
START_TEST(an_earlier_handler_meets_a_held_lock)
{
	pthread_t id;

	unit_skip_threads_in_child();
	ck_assert_int_eq(pthread_atfork(NULL, NULL, allocate_in_the_child), 0);
	use(1, 100);
	pthread_create(&id, NULL, hold_the_class, NULL);
	while (waiting < 1)
		unit_sleep(1);
	at_fork = true;
	unit_survives(go_on_after_handlers, NULL);
	at_fork = false;
	go_on = true;
	pthread_join(id, NULL);
}
END_TEST

static struct hz4_cache *half_changed;
static void *others;

/* Objects of two classes; the child finds one of them being moved. */
static void *
busy_and_wait(void *arg)
{
	void *p[2 * SOME];
	unsigned i;

	for (i = 0; i < 2 * SOME; i++)
		p[i] = hz4_heap_malloc(i < SOME ? KEPT * 16 : MOVED * 16);
	for (i = 0; i < 2 * SOME; i++)
		hz4_heap_free(p[i]);
	half_changed = hz4_tls_cache;
	hz4_poke(&half_changed->busy, MOVED);
	waiting++;
	while (!go_on)
		unit_sleep(1);
	hz4_poke(&half_changed->busy, HZ4_CLS_NONE);
	return arg;
}

/* The first that the class's next thread does with it is a free. */
static void *
free_others(void *arg)
{
	unit_child_need(hz4_thread_cache() == half_changed);
	hz4_heap_free(others);
	unit_child_need(hz4_cache_count(half_changed, MOVED) == 1);
	return arg;
}

static void
adopt_half_changed(void *arg)
{
	struct hz4_cache *c = half_changed;
	size_t given = 0;
	pthread_t id;
	unsigned cls;

	(void)arg;
	unit_child_need(hz4_cache_count(c, KEPT) > 0);
	unit_child_need(hz4_cache_count(c, MOVED) > 0);
	unit_child_need(caches() == 2);
	unit_child_need(hz4_cache_count(c, KEPT) > 0);
	unit_child_need(hz4_cache_count(c, MOVED) == 0);
	unit_child_need(hz4_peek(&c->busy) == HZ4_CLS_NONE);
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		given += c->tier[cls].limit * (size_t)hz4_classes[cls].size;
	unit_child_need(c->granted == c->left + given);
	/* Its next threads can use both, and leave nothing behind. */
	unit_child_need(pthread_create(&id, NULL, free_others, NULL) == 0);
	unit_child_need(pthread_join(id, NULL) == 0);
	thread_in_child();
	unit_child_need(caches() == 2);
	hz4_thread_flush_ended();
	unit_child_need(hz4_cache_count(c, KEPT) == 0);
}

START_TEST(a_child_adopts_a_half_changed_cache_but_for_its_class)
{
	pthread_t id;

	unit_skip_threads_in_child();
	use(1, 100);
	others = hz4_heap_malloc(MOVED * 16);
	pthread_create(&id, NULL, busy_and_wait, NULL);
	while (waiting == 0)
		unit_sleep(1);
	unit_survives(adopt_half_changed, NULL);
	go_on = true;
	pthread_join(id, NULL);
	hz4_heap_free(others);
}
END_TEST

/*
 * Holds the lock of all threads until it is told to go on, with their list
 * half changed: a thread's links follow its cache.
 */
static void
hold(struct hz4_cache *c, void *arg)
{
	struct hz4_list *l = (struct hz4_list *)(c + 1), *next = l->next;

	(void)arg;
	unit_need(next->prev == l && l->prev->next == l, "%p", (void *)l);
	l->next = NULL;
	waiting++;
	while (!go_on)
		unit_sleep(1);
	l->next = next;
}

static void *
hold_the_lock(void *arg)
{
	hz4_thread_each(hold, NULL);
	return arg;
}

static void *
need_another_cache(void *arg)
{
	use(1, 100);
	unit_need(hz4_tls_cache != &hz4_empty_cache && hz4_tls_cache != arg,
		  "%p", (void *)hz4_tls_cache);
	return NULL;
}

static void
lists_in_child(void *arg)
{
	struct hz4_cache *own = hz4_tls_cache;
	unsigned expected = *(unsigned *)arg, i;
	pthread_t id[2];

	unit_child_need(caches() == expected);
	for (i = 0; i < 2; i++)
		unit_child_need(pthread_create(&id[i], NULL,
					       need_another_cache, own) == 0);
	for (i = 0; i < 2; i++)
		pthread_join(id[i], NULL);
	unit_child_need(hz4_tls_cache == own);
	unit_child_need(caches() == expected);
	/* To the end of the list. */
	hz4_thread_flush_ended();
	use(2, 100);
}

START_TEST(a_child_makes_torn_lists_anew)
{
	unsigned n;
	pthread_t id;

	unit_skip_threads_in_child();
	use(1, 100);
	start_waiters();
	/* The latest cache is one that has ended. */
	unit_threads(THREADS, use_and_end);
	n = caches();
	waiting = 0;
	pthread_create(&id, NULL, hold_the_lock, NULL);
	while (waiting == 0)
		unit_sleep(1);
	unit_survives(lists_in_child, &n);
	end_waiters();
	pthread_join(id, NULL);
}
END_TEST

static void
use_some(uint64_t *seed)
{
	use(unit_random(seed), 200);
}

static void
live_on_in_child(void *arg)
{
	unsigned char **block = arg;
	unsigned i;

	use(1, 2000);
	thread_in_child();
	for (i = 0; i < BLOCKS; i++) {
		unit_child_need(unit_all(block[i], 20 + i * 10, (uint8_t)i));
		hz4_heap_free(block[i]);
	}
	use(2, 2000);
	hz4_heap_trim();
	use(3, 2000);
}

START_TEST(fork_while_threads_work)
{
	static unsigned char *block[BLOCKS];
	uintptr_t i;

	unit_skip_threads_in_child();
	for (i = 0; i < BLOCKS; i++) {
		block[i] = hz4_heap_malloc(20 + i * 10);
		memset(block[i], (int)i, 20 + i * 10);
	}
	unit_fork_under(use_some, FORKS, live_on_in_child, block);
	for (i = 0; i < BLOCKS; i++)
		hz4_heap_free(block[i]);
	hz4_heap_trim();
}
END_TEST

static void *
start_without_memory(void *arg)
{
	void *p;

	unit_need(hz4_thread_cache() == NULL, "%p", arg);
	unit_need(hz4_tls_cache == &hz4_empty_cache, "%p", arg);
	/* Spans that are there serve it without a cache. */
	p = hz4_heap_malloc(100);
	unit_need(p != NULL, "%p", arg);
	hz4_heap_free(p);
	hz4_os_fail_from(0);
	unit_need(hz4_thread_cache() != NULL, "%p", arg);
	use(1, 100);
	return NULL;
}

START_TEST(no_memory_for_a_cache)
{
	void *p;

	if (!HZ4_DEBUG_BOX)
		return;
	p = hz4_heap_malloc(100);
	hz4_os_fail_from(1);
	while (hz4_meta_alloc(sizeof(struct hz4_cache)) != NULL)
		;
	unit_thread(start_without_memory, NULL);
	hz4_heap_free(p);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, made_at_the_first_call);
	tcase_add_test(t, tables_are_ready_after_start);
	tcase_add_test(t, class_locks_have_their_rank);
	tcase_add_test(t, one_for_each);
	tcase_add_test(t, ended_threads_leave_theirs_to_others);
	tcase_add_test(t, use_after_the_end);
	tcase_add_test(t, a_thread_that_only_frees);
	tcase_add_test(t, bare_counts);
	tcase_add_test(t, threads_with_a_cache_are_counted);
	/*
	 * Forks of a process with threads: qemu-user 7.2 fails assertions
	 * of its own in the child.
	 */
	if (!unit_emulated()) {
		tcase_add_test(t, a_child_adopts_the_caches);
		tcase_add_test(t, a_child_counts_its_only_thread);
		tcase_add_test(t, a_thread_without_a_cache_forks);
		tcase_add_test(t, new_threads_are_not_among_the_gone);
		tcase_add_test(t, a_new_thread_is_marked_first);
		tcase_add_loop_test(t, an_unknown_thread_forks, 0, 2);
		tcase_add_test(t, a_new_thread_comes_by_first);
		tcase_add_test(t, an_earlier_handler_meets_a_held_lock);
		tcase_add_test(t, a_child_makes_torn_lists_anew);
		tcase_add_test(t, a_child_adopts_a_half_changed_cache_but_for_its_class);
		tcase_add_test(t, fork_while_threads_work);
	}
	tcase_add_test(t, no_memory_for_a_cache);
}

int
main(void)
{
	return unit_main("thread", add);
}
