/*
 * l1.h and cpu.h: what the CPUs have for their threads, and the numbers that
 * lead to it.
 *
 *     bytes == those of all that lies in the shelves
 *     least <= count <= room
 *
 * All of it is there without the dual tier, too, where nothing calls it.  The
 * first word of an object is a mark: 0 while it is free.
 */
#include "unit.h"

#include "cpu.h"
#include "heap.h"
#include "l1.h"
#include "option.h"
#include "pageheap.h"
#include "spans.h"
#include "thread.h"
#include "transfer.h"

#include <sched.h>
#include <sys/auxv.h>

enum { CLS = 5, OTHER = 16, MOST = 20000 };

static struct hz4_counts counts[HZ4_MID_STATS_B1 ? HZ4_CLS_VALUES : 1];
static void *held[MOST];

static void
start(const char *cpu_cache)
{
	hz4_thread_start();
	if (cpu_cache != NULL)
		ck_assert(hz4_option_assign(cpu_cache, strlen(cpu_cache)));
}

static void
compare(const struct hz4_l1 *l, void *arg)
{
	size_t bytes = 0;
	unsigned cls;

	(void)arg;
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		const struct hz4_shelf *s = &l->shelf[cls];
		uint32_t count = hz4_peek(&s->count);

		bytes += count * (size_t)hz4_classes[cls].size;
		unit_need(s->least <= count && count <= s->room,
			  "class %u: %u, %u of %u", cls, s->least, count,
			  s->room);
	}
	unit_need(bytes == hz4_peek(&l->bytes), "%zu bytes of %zu", bytes,
		  hz4_peek(&l->bytes));
	unit_need(hz4_peek(&l->busy) == HZ4_CLS_NONE, "busy");
}

/* Of all L1s. */
struct sums {
	size_t l1s, bytes;
	int64_t objects, net;
};

static void
add_up(const struct hz4_l1 *l, void *arg)
{
	struct sums *s = arg;
	unsigned cls;

	compare(l, NULL);
	s->l1s++;
	s->bytes += hz4_peek(&l->bytes);
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		s->objects += hz4_peek(&l->shelf[cls].count);
		s->net += hz4_peek(&l->shelf[cls].net);
	}
}

static struct sums
sums(void)
{
	struct sums s = { 0, 0, 0, 0 };

	hz4_l1_each(add_up, &s);
	return s;
}

static struct hz4_l1 *
lock(void)
{
	struct hz4_l1 *l = hz4_l1_lock();

	unit_need(l != NULL, "no L1");
	unit_need(hz4_lock_is_mine(&l->lock), "not locked");
	return l;
}

static unsigned
take(struct hz4_l1 *l, unsigned cls, void **to, unsigned n)
{
	unsigned got = hz4_l1_take(l, cls, to, n, counts), i;

	for (i = 0; i < got; i++) {
		unit_need(*(uintptr_t *)to[i] == 0, "%p handed out twice",
			  to[i]);
		*(uintptr_t *)to[i] = (uintptr_t)to[i];
	}
	return got;
}

static void
give(struct hz4_l1 *l, unsigned cls, void **from, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		unit_need(*(uintptr_t *)from[i] == (uintptr_t)from[i],
			  "%p was not ours", from[i]);
		*(uintptr_t *)from[i] = 0;
	}
	hz4_l1_give(l, cls, from, n, counts);
}

/* So many objects, taken a few at a time. */
static void
take_many(struct hz4_l1 *l, unsigned cls, void **to, unsigned n)
{
	unsigned got = 0, more;

	while (got < n) {
		more = take(l, cls, to + got, hz4_min(n - got, 8));
		unit_need(more > 0, "no memory");
		got += more;
	}
}

static void
nothing_left(void)
{
	struct hz4_pageheap_figures pages;

	hz4_l1_flush(counts);
	ck_assert_int_eq(sums().objects, 0);
	ck_assert_uint_eq(sums().bytes, 0);
	ck_assert_int_eq(sums().net, 0);
	hz4_spans_trim();
	hz4_pageheap_figures(&pages);
	ck_assert_uint_eq(pages.free, pages.mapped);
}

START_TEST(none_until_one_is_asked_for)
{
	start(NULL);
	ck_assert_uint_eq(sums().l1s, 0);
	hz4_l1_flush(counts);
	hz4_l1_decay(counts);
	ck_assert_uint_eq(sums().l1s, 0);
	hz4_l1_unlock(lock());
	ck_assert_uint_ge(sums().l1s, 1);
}
END_TEST

/* What was given last is taken first; of a refill the lowest address. */
START_TEST(last_in_first_out)
{
	struct hz4_l1 *l;
	void *p[4], *q[6];
	unsigned n, i;

	start(NULL);
	l = lock();
	n = take(l, CLS, p, 4);
	ck_assert_uint_eq(n, 4);
	for (i = 1; i < 4; i++)
		ck_assert((char *)p[i] < (char *)p[i - 1]);
	/* More came than was asked for: the next trips are short. */
	n = hz4_peek(&l->shelf[CLS].count);
	ck_assert_uint_eq(n, (HZ4_L1_RUN - 1) * 4);
	ck_assert_uint_eq(take(l, CLS, q, 1), 1);
	ck_assert((char *)q[0] > (char *)p[0]);
	give(l, CLS, q, 1);
	give(l, CLS, p, 4);
	ck_assert_uint_eq(hz4_peek(&l->shelf[CLS].count), n + 4);
	n = take(l, CLS, q, 5);
	ck_assert_uint_eq(n, 5);
	for (i = 0; i < 4; i++)
		ck_assert_ptr_eq(q[i + 1], p[i]);
	give(l, CLS, q, 5);
	compare(l, NULL);
	hz4_l1_unlock(l);
	nothing_left();
}
END_TEST

/* No more than lies there at once; the spans only when there is nothing. */
START_TEST(what_is_there_comes_first)
{
	struct hz4_l1 *l;
	int64_t net;
	unsigned n;

	start(NULL);
	l = lock();
	take_many(l, CLS, held, 8);
	n = hz4_peek(&l->shelf[CLS].count);
	ck_assert_uint_gt(n, 0);
	net = hz4_peek(&l->shelf[CLS].net);
	ck_assert_uint_eq(take(l, CLS, held + 8, n + 10), n);
	ck_assert_uint_eq(hz4_peek(&l->shelf[CLS].count), 0);
	ck_assert_int_eq(hz4_peek(&l->shelf[CLS].net), net);
	ck_assert_uint_eq(take(l, CLS, held + 8 + n, 1), 1);
	ck_assert_int_gt(hz4_peek(&l->shelf[CLS].net), net);
	give(l, CLS, held, 9 + n);
	compare(l, NULL);
	hz4_l1_unlock(l);
	nothing_left();
}
END_TEST

START_TEST(calls_are_counted)
{
	struct hz4_l1 *l;
	_Atomic uint64_t *value = counts[HZ4_MID_STATS_B1 ? CLS : 0].value;

	if (!HZ4_MID_STATS_B1)
		return;
	start(NULL);
	l = lock();
	take_many(l, CLS, held, 4);
	ck_assert_uint_eq(value[HZ4_COUNT_malloc_alloc_run_hit], 0);
	ck_assert_uint_eq(value[HZ4_COUNT_malloc_alloc_run_refill_calls], 1);
	take_many(l, CLS, held + 4, 4);
	ck_assert_uint_eq(value[HZ4_COUNT_malloc_alloc_run_hit], 1);
	ck_assert_uint_eq(value[HZ4_COUNT_malloc_alloc_run_refill_calls], 1);
	give(l, CLS, held, 8);
	ck_assert_uint_eq(value[HZ4_COUNT_free_alloc_run_flush_calls], 0);
	hz4_l1_unlock(l);
	hz4_l1_flush(counts);
	ck_assert_uint_eq(value[HZ4_COUNT_free_alloc_run_flush_calls], 1);
	ck_assert_uint_eq(value[HZ4_COUNT_free_alloc_run_flush_objs],
			  value[HZ4_COUNT_malloc_alloc_run_refill_objs]);
}
END_TEST

/* The bound holds after each call; classes give in turn, the oldest first. */
START_TEST(classes_give_in_turn)
{
	enum { KIB = 64, N = 2000 };
	struct hz4_l1 *l;
	unsigned i, kept = 0;
	uint32_t count;

	start("cpu_cache=512");
	l = lock();
	take_many(l, CLS, held, N);
	take_many(l, OTHER, held + N, N);
	for (i = 0; i < N; i += 8) {
		give(l, CLS, held + i, 8);
		give(l, OTHER, held + N + i, 8);
		unit_need(hz4_peek(&l->bytes) <= KIB << 10, "%zu",
			  hz4_peek(&l->bytes));
		compare(l, NULL);
		/* Half goes, not all. */
		kept += i < 200 || (hz4_peek(&l->shelf[CLS].count) > 0 &&
				    hz4_peek(&l->shelf[OTHER].count) > 8);
	}
	ck_assert_uint_eq(kept, N / 8);
	ck_assert_uint_gt(hz4_peek(&l->bytes), (KIB << 10) / 8);
	/* The latest are there, in order. */
	count = hz4_peek(&l->shelf[OTHER].count);
	for (i = 0; i < count; i++)
		ck_assert_ptr_eq(l->shelf[OTHER].array[i],
				 held[2 * N - count + i]);
	hz4_l1_unlock(l);
	nothing_left();
}
END_TEST

/* One class alone has half after it was full; too much at once passes by. */
START_TEST(no_more_than_the_option_says)
{
	struct hz4_l1 *l;
	unsigned n, i;

	start("cpu_cache=32");
	n = 4096 / hz4_classes[CLS].size;
	l = lock();
	take_many(l, CLS, held, 2 * n);
	/* Nor does more come from the spans than there is room for. */
	ck_assert_uint_le(hz4_peek(&l->bytes), 4096);
	hz4_l1_unlock(l);
	hz4_l1_flush(counts);
	l = lock();
	for (i = 0; i < n; i++)
		give(l, CLS, held + i, 1);
	ck_assert_uint_eq(hz4_peek(&l->shelf[CLS].count), n);
	give(l, CLS, held + n, 1);
	ck_assert_uint_eq(hz4_peek(&l->shelf[CLS].count), n - (n + 1) / 2 + 1);
	give(l, CLS, held + n + 1, n - 1);
	compare(l, NULL);
	ck_assert_uint_le(hz4_peek(&l->bytes), 4096);
	hz4_l1_unlock(l);
	hz4_l1_flush(counts);
	l = lock();
	take_many(l, HZ4_CLS_FIRST_LARGE, held, 1);
	ck_assert_uint_eq(hz4_peek(&l->bytes), 0);
	give(l, HZ4_CLS_FIRST_LARGE, held, 1);
	ck_assert_uint_eq(hz4_peek(&l->bytes), 0);
	hz4_l1_unlock(l);
	nothing_left();
}
END_TEST

START_TEST(without_room_all_passes_by)
{
	struct hz4_l1 *l;

	start("cpu_cache=0");
	l = lock();
	ck_assert_uint_eq(take(l, OTHER, held, 4), 4);
	ck_assert_uint_eq(hz4_peek(&l->bytes), 0);
	give(l, OTHER, held, 4);
	ck_assert_uint_eq(hz4_peek(&l->bytes), 0);
	compare(l, NULL);
	hz4_l1_unlock(l);
	nothing_left();
}
END_TEST

/* What nobody took since the last time, and no more. */
START_TEST(decay_gives_the_least)
{
	struct hz4_l1 *l;
	uint32_t before;

	start(NULL);
	l = lock();
	take_many(l, CLS, held, 100);
	give(l, CLS, held, 100);
	before = hz4_peek(&l->shelf[CLS].count);
	hz4_l1_unlock(l);
	/* It was empty since. */
	hz4_l1_decay(counts);
	ck_assert_uint_eq(hz4_peek(&l->shelf[CLS].count), before);
	l = lock();
	take_many(l, CLS, held, 30);
	give(l, CLS, held, 30);
	hz4_l1_unlock(l);
	hz4_l1_decay(counts);
	ck_assert_uint_eq(hz4_peek(&l->shelf[CLS].count), 30);
	compare(l, NULL);
	/* The latest stay. */
	ck_assert_ptr_eq(l->shelf[CLS].array[0], held[0]);
	hz4_l1_decay(counts);
	ck_assert_uint_eq(hz4_peek(&l->shelf[CLS].count), 0);
	nothing_left();
}
END_TEST

START_TEST(flush_gives_everything)
{
	struct hz4_l1 *l;
	unsigned cls;

	start(NULL);
	l = lock();
	for (cls = 1; cls < HZ4_CLS_ZERO; cls++) {
		take_many(l, cls, held, 3);
		give(l, cls, held, 3);
	}
	compare(l, NULL);
	ck_assert_uint_gt(hz4_peek(&l->bytes), 0);
	hz4_l1_unlock(l);
	nothing_left();
}
END_TEST

/* One for each number, made here whatever numbers this thread is told. */
static struct hz4_l1 *found[HZ4_L1_MOST];
static unsigned founds;

static void
find(const struct hz4_l1 *l, void *arg)
{
	(void)arg;
	if (founds < HZ4_L1_MOST)
		found[founds++] = (struct hz4_l1 *)(uintptr_t)l;
}

static _Atomic bool stop;
static _Atomic unsigned ready;

static void *
hold_one(void *arg)
{
	struct hz4_l1 *l = hz4_l1_lock();

	*(struct hz4_l1 **)arg = l;
	ready++;
	while (!stop)
		unit_sleep(1);
	if (l != NULL)
		hz4_l1_unlock(l);
	return NULL;
}

/* Who finds one locked takes another, or none. */
START_TEST(a_locked_one_leads_to_the_next)
{
	enum { N = 6 };
	struct hz4_l1 *mine[N + 1] = { NULL };
	pthread_t id[N];
	unsigned i, k, had = 0;

	start(NULL);
	for (i = 0; i < N; i++) {
		pthread_create(&id[i], NULL, hold_one, &mine[i]);
		while (ready <= i)
			unit_sleep(1);
	}
	mine[N] = hz4_l1_lock();
	for (i = 0; i <= N; i++) {
		had += mine[i] != NULL;
		for (k = 0; k < i; k++)
			unit_need(mine[i] == NULL || mine[i] != mine[k],
				  "two have the same");
	}
	hz4_l1_each(find, NULL);
	/* Each had its own; the numbers go round, so there are few. */
	ck_assert_uint_eq(had, hz4_min(founds, N + 1));
	if (mine[N] != NULL)
		hz4_l1_unlock(mine[N]);
	stop = true;
	for (i = 0; i < N; i++)
		pthread_join(id[i], NULL);
	for (i = 0; i < founds; i++)
		ck_assert_uint_eq(hz4_peek(&found[i]->lock.word), 0);
}
END_TEST

/* Of one thread: a call within a call gets none and waits for none. */
START_TEST(who_is_inside_gets_none)
{
	struct hz4_l1 *l;

	start(NULL);
	l = lock();
	take_many(l, CLS, held, 4);
	ck_assert_ptr_null(hz4_l1_lock());
	hz4_l1_decay(counts);
	hz4_l1_flush(counts);
	ck_assert_uint_gt(hz4_peek(&l->shelf[CLS].count), 0);
	give(l, CLS, held, 4);
	hz4_l1_unlock(l);
	hz4_l1_unlock(lock());
	nothing_left();
}
END_TEST

/* Nothing that lies here is free in its span, too. */
static bool
all_are_out(const struct hz4_l1 *l)
{
	unsigned cls;
	uint32_t i;

	for (cls = 1; cls < HZ4_CLS_END; cls++)
		for (i = 0; i < hz4_peek(&l->shelf[cls].count); i++)
			if (!hz4_transfer_is_out(l->shelf[cls].array[i], cls))
				return false;
	return true;
}

static unsigned places, cut_off, at;

static void
look_in_a_child(void)
{
	struct hz4_l1 *l = found[0];
	int status = -1;
	uint32_t before;
	unsigned busy;
	pid_t pid;

	if (hz4_lock_is_mine(&l->lock) == false || places++ % at != 0 ||
	    cut_off > 60)
		return;
	cut_off++;
	busy = hz4_peek(&l->busy);
	before = hz4_peek(&l->shelf[OTHER].count);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		hz4_poke(&hz4_chaos_one_in, 0);
		/* As where the thread that has it is gone. */
		hz4_poke(&l->lock.word, 0x7ffffffe);
		hz4_l1_fork_child();
		compare(l, NULL);
		_exit(hz4_peek(&l->lock.word) == 0 && all_are_out(l) &&
		      hz4_peek(&l->shelf[OTHER].count) == before &&
		      (busy == HZ4_CLS_NONE ||
		       (hz4_peek(&l->shelf[busy].count) == 0 &&
			l->shelf[busy].array == NULL)) ? 0 : 1);
	}
	unit_need(waitpid(pid, &status, 0) == pid && status == 0,
		  "the child ended with status %x, class %u", status, busy);
}

/* Whatever was being changed is lost then, and nothing else. */
START_TEST(a_child_drops_what_was_changed)
{
	struct hz4_l1 *l;
	unsigned round;

	if (!HZ4_DEBUG_BOX)
		return;
	start("cpu_cache=512");
	l = lock();
	take_many(l, OTHER, held, 20);
	give(l, OTHER, held, 20);
	hz4_l1_unlock(l);
	found[0] = l;
	at = 1 + (unsigned)_i * 6;
	l = lock();
	found[0] = l;
	hz4_poke(&hz4_chaos_hook, look_in_a_child);
	hz4_poke(&hz4_chaos_one_in, 1);
	for (round = 0; round < 3; round++) {
		take_many(l, CLS, held, 900);
		/* Its turn would come. */
		l->hand = CLS;
		for (unsigned i = 0; i < 900; i += 20) {
			give(l, CLS, held + i, 20);
			l->hand = CLS;
		}
	}
	hz4_poke(&hz4_chaos_one_in, 0);
	hz4_l1_unlock(l);
	ck_assert_uint_gt(cut_off, 20);
	nothing_left();
}
END_TEST

/* Four threads at once. */
static struct hz4_counts of_thread[4]
				  [HZ4_MID_STATS_B1 ? HZ4_CLS_VALUES : 1];

static void *
work_on(void *number)
{
	uint64_t seed = (uintptr_t)number + 1;
	struct hz4_counts *c = of_thread[(uintptr_t)number];
	struct hz4_l1 *l;
	void *p[16];
	unsigned round, cls, n, i;

	for (round = 0; round < 4000; round++) {
		cls = 1 + (unsigned)unit_below(&seed, HZ4_CLS_ZERO - 1);
		l = hz4_l1_lock();
		if (l == NULL)
			continue;
		n = hz4_l1_take(l, cls, p, 1 + (unsigned)unit_below(&seed, 16),
				c);
		hz4_l1_unlock(l);
		for (i = 0; i < n; i++) {
			unit_need(*(uintptr_t *)p[i] == 0, "%p twice", p[i]);
			*(uintptr_t *)p[i] = 1;
		}
		for (i = 0; i < n; i++)
			*(uintptr_t *)p[i] = 0;
		while ((l = hz4_l1_lock()) == NULL)
			sched_yield();
		hz4_l1_give(l, cls, p, n, c);
		hz4_l1_unlock(l);
		if (unit_below(&seed, 500) == 0)
			hz4_l1_flush(c);
		if (unit_below(&seed, 100) == 0)
			hz4_l1_decay(c);
	}
	return NULL;
}

START_TEST(threads_at_work)
{
	start("cpu_cache=1024");
	unit_threads(4, work_on);
	ck_assert_uint_le(sums().bytes, sums().l1s * 128 << 10);
	ck_assert_int_eq(sums().objects, sums().net);
	nothing_left();
}
END_TEST

/* Without memory for an L1, or for its arrays, nothing is lost. */
START_TEST(no_memory)
{
	unsigned long fail;
	struct hz4_l1 *l;
	unsigned n, cls;

	if (!HZ4_DEBUG_BOX)
		return;
	start(NULL);
	for (fail = 1; fail < 6; fail++)
		for (cls = 1; cls < HZ4_CLS_ZERO; cls += 7) {
			hz4_os_fail_from(fail);
			l = hz4_l1_lock();
			for (n = 0; l != NULL && n + 8 <= MOST; ) {
				unsigned got = take(l, cls, held + n, 8);

				n += got;
				if (got == 0)
					break;
			}
			hz4_os_fail_from(0);
			if (l == NULL)
				continue;
			while (n > 0)
				give(l, cls, held + --n, 1);
			compare(l, NULL);
			hz4_l1_unlock(l);
			hz4_l1_flush(counts);
		}
	nothing_left();
}
END_TEST

/* A trim and a refusal of memory reach what the CPUs have. */
START_TEST(no_thread_needs_to_come_by)
{
	unsigned i, turn;

	if (!HZ4_MID_DUAL_TIER_ALLOC_BOX || !HZ4_DEBUG_BOX)
		return;
	start(NULL);
	for (turn = 0; turn < 2; turn++) {
		for (i = 0; i < 400; i++)
			held[i] = hz4_heap_malloc(hz4_classes[CLS].size);
		for (i = 0; i < 400; i++)
			hz4_heap_free(held[i]);
		ck_assert_uint_gt(sums().bytes, 0);
		if (turn == 0) {
			hz4_heap_trim();
		} else {
			hz4_os_fail_from(1);
			ck_assert_ptr_null(hz4_heap_malloc((size_t)1 << 28));
			hz4_os_fail_from(0);
		}
		ck_assert_uint_eq(sums().bytes, 0);
	}
}
END_TEST

/*
 * Numbers.  libc's own word says whether the thread is registered for
 * rseq(2): there are small ones then, else tickets.
 */
extern const unsigned __rseq_size __attribute__((weak));

static bool
has_tickets(void)
{
	return &__rseq_size == NULL || __rseq_size == 0;
}

/* Whether the kernel has concurrency ids. */
static bool
has_cids(void)
{
#ifdef AT_RSEQ_FEATURE_SIZE
	return !has_tickets() && getauxval(AT_RSEQ_FEATURE_SIZE) >= 28;
#else
	return !has_tickets() && getauxval(27) >= 28;
#endif
}

static unsigned number_of[UNIT_THREADS_MAX];

static void *
tell_number(void *number)
{
	number_of[(uintptr_t)number] = hz4_cpu_number();
	ready++;
	while (!stop)
		unit_sleep(1);
	/* A ticket stays. */
	if (has_tickets())
		unit_need(number_of[(uintptr_t)number] == hz4_cpu_number(),
			  "not the same number");
	return NULL;
}

static void
ask_in_threads(unsigned n)
{
	pthread_t id[UNIT_THREADS_MAX];
	uintptr_t i;

	stop = false;
	ready = 0;
	for (i = 0; i < n; i++) {
		unit_need(pthread_create(&id[i], NULL, tell_number,
					 (void *)i) == 0,
			  "no thread");
		while (ready <= i)
			unit_sleep(1);
	}
	stop = true;
	for (i = 0; i < n; i++)
		unit_need(pthread_join(id[i], NULL) == 0, "not joined");
}

static void *
make_one(void *arg)
{
	struct hz4_l1 *l = hz4_l1_lock();

	if (l != NULL)
		hz4_l1_unlock(l);
	return arg;
}

static void *
lock_another(void *mine)
{
	struct hz4_l1 *l = hz4_l1_lock();

	/* Of the same number as who has `mine`. */
	unit_child_need((l != NULL) == (hz4_os_cpus() > 1));
	unit_child_need(l != mine);
	if (l != NULL)
		hz4_l1_unlock(l);
	return NULL;
}

static void
run_thread(void *(*go)(void *arg), void *arg)
{
	pthread_t id;

	unit_child_need(pthread_create(&id, NULL, go, arg) == 0);
	unit_child_need(pthread_join(id, NULL) == 0);
}

/* More threads than CPUs: tickets go round, from 0 on. */
static void
numbers_of_tickets(void *arg)
{
	enum { N = UNIT_THREADS_MAX };
	unsigned i, cpus;
	struct hz4_l1 *mine;

	(void)arg;
	start(NULL);
	cpus = hz4_os_cpus();
	unit_child_need(has_tickets());
	ask_in_threads(N);
	for (i = 0; i < N; i++)
		unit_child_need(number_of[i] == i % cpus);
	unit_child_need(hz4_cpu_number() == N % cpus);
	unit_child_need(hz4_cpu_number() == N % cpus);
	mine = hz4_l1_lock();
	unit_child_need(mine != NULL);
	for (i = 1; i < cpus; i++)
		run_thread(make_one, NULL);
	run_thread(lock_another, mine);
	hz4_l1_unlock(mine);
}

extern const ptrdiff_t __rseq_offset __attribute__((weak));

/* What the kernel says: its concurrency id, or the CPU. */
static unsigned
number_of_kernel(void)
{
	const char *area = (const char *)__builtin_thread_pointer() +
			   __rseq_offset;

	return *(const volatile uint32_t *)(const void *)(area +
				(has_cids() ? 24 : 4));
}

/* To the last CPU, whose number is no id of so few threads. */
static void
go_to_last_cpu(void)
{
	cpu_set_t set, one;
	int cpu = CPU_SETSIZE - 1;

	if (sched_getaffinity(0, sizeof set, &set) != 0)
		return;
	while (cpu > 0 && !CPU_ISSET(cpu, &set))
		cpu--;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof one, &one);
}

START_TEST(numbers_are_the_kernels)
{
	enum { N = 6 };
	unsigned i, most = (unsigned)sysconf(_SC_NPROCESSORS_CONF);

	start(NULL);
	if (has_tickets()) {
		unit_survives(numbers_of_tickets, NULL);
		return;
	}
	go_to_last_cpu();
	/* It may change just between. */
	for (i = 0; i < 1000; i++)
		if (hz4_cpu_number() == number_of_kernel())
			break;
	ck_assert_uint_lt(i, 1000);
	ask_in_threads(N);
	for (i = 0; i < N; i++)
		ck_assert_uint_lt(number_of[i], most);
}
END_TEST

static char *self;

/* This program once more, as libc is told not to register threads. */
static void
run_without_rseq(void *arg)
{
	(void)arg;
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	setenv("HZ4_TEST_L1_TICKETS", "1", 1);
	execl(self, self, (char *)NULL);
	_exit(2);
}

START_TEST(tickets_where_rseq_is_off)
{
	unit_survives(run_without_rseq, NULL);
}
END_TEST

/* More numbers than CPUs: every one of them leads to an L1. */
START_TEST(more_threads_than_cpus)
{
	struct hz4_l1 *l;

	start(NULL);
	ask_in_threads(UNIT_THREADS_MAX);
	unit_threads(4, work_on);
	ck_assert_uint_le(sums().l1s, HZ4_L1_MOST);
	hz4_l1_each(find, NULL);
	ck_assert_uint_eq(founds, sums().l1s);
	l = lock();
	hz4_l1_unlock(l);
	nothing_left();
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, none_until_one_is_asked_for);
	tcase_add_test(t, last_in_first_out);
	tcase_add_test(t, what_is_there_comes_first);
	tcase_add_test(t, calls_are_counted);
	tcase_add_test(t, classes_give_in_turn);
	tcase_add_test(t, no_more_than_the_option_says);
	tcase_add_test(t, without_room_all_passes_by);
	tcase_add_test(t, decay_gives_the_least);
	tcase_add_test(t, flush_gives_everything);
	tcase_add_test(t, a_locked_one_leads_to_the_next);
	tcase_add_test(t, who_is_inside_gets_none);
	tcase_add_loop_test(t, a_child_drops_what_was_changed, 0, 4);
	tcase_add_test(t, threads_at_work);
	tcase_add_test(t, no_memory);
	tcase_add_test(t, no_thread_needs_to_come_by);
	tcase_add_test(t, numbers_are_the_kernels);
	tcase_add_test(t, tickets_where_rseq_is_off);
	tcase_add_test(t, more_threads_than_cpus);
}

int
main(int argc, char **argv)
{
	(void)argc;
	self = argv[0];
	if (getenv("HZ4_TEST_L1_TICKETS") != NULL) {
		numbers_of_tickets(NULL);
		return EXIT_SUCCESS;
	}
	return unit_main("l1", add);
}
