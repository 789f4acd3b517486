/*
 * Threads that come and go, that only free, that sit idle, that allocate
 * while they are being torn down: nothing is lost and memory stays flat.
 */
#include "e2e_check.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

/* libc's, which C++ uses for the destructors of thread_local objects. */
extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
extern void *__dso_handle;

/* Memory for the tests' own lists, so that it is not in the figures. */
static void *
outside(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	ck_assert(p != MAP_FAILED);
	return p;
}

/* Seen where the program is linked to hz4. */
extern const char *hz4_flavour(void) __attribute__((weak));

/* Does what is promised of hz4 alone hold here as well? */
static bool
gives_back_by_itself(void)
{
	return e2e_is_hz4();
}

static bool
gives_back_when_trimmed(void)
{
	return e2e_is_hz4() || e2e_is_libc();
}

static void
rss_is_flat(size_t before, size_t limit, const char *what)
{
	size_t now = e2e_rss();

	ck_assert_msg(e2e_minus(now, before) <= limit,
	    "%s: %zu KiB before, %zu KiB now, %zu KiB allowed", what,
	    before >> 10, now >> 10, limit >> 10);
}

static pthread_t
start(void *(*body)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * E2E_KIB);
	ck_assert_int_eq(pthread_create(&t, &attr, body, arg), 0);
	pthread_attr_destroy(&attr);
	return t;
}

static size_t
usual_size(struct e2e_rng *r)
{
	return e2e_below(r, 20) == 0 ? e2e_log_size(r, 11, 17) :
	    16 + e2e_below(r, 2033);
}

/* `count` operations on up to 64 blocks, of which none is left. */
static void
work(uint64_t stream, unsigned count, bool only_small)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), stream);
	void *p[64] = { NULL };

	for (unsigned i = 0; i < count; i++) {
		size_t at = e2e_below(&r, 64);

		e2e_free(p[at]);
		p[at] = e2e_malloc(only_small ? 16 + e2e_below(&r, 2033) :
		    usual_size(&r));
		e2e_need(p[at] != NULL, "no memory");
		*(char *)p[at] = 1;
	}
	for (unsigned i = 0; i < 64; i++)
		e2e_free(p[i]);
}

/* --- many threads ------------------------------------------------------- */

static void *
short_life(void *arg)
{
	work((uintptr_t)arg, 60, false);
	return NULL;
}

START_TEST(short_threads_leave_nothing)
{
	unsigned count = 10000 * e2e_scale();
	size_t before = 0;
	pthread_t t[4];

	for (uintptr_t i = 0; i < count; i += 4) {
		for (unsigned j = 0; j < 4; j++)
			t[j] = start(short_life, (void *)(i + j));
		for (unsigned j = 0; j < 4; j++)
			pthread_join(t[j], NULL);
		if (i == 1000)
			before = e2e_rss();
	}
	rss_is_flat(before, 4 * E2E_MIB, "after short threads");
}
END_TEST

static atomic_uint idlers;
static atomic_bool idlers_end;

static void *
do_nothing(void *arg)
{
	atomic_fetch_add(&idlers, 1);
	while (!atomic_load(&idlers_end))
		e2e_sleep(1);
	atomic_fetch_sub(&idlers, 1);
	return arg;
}

/*
 * Threads that never allocate, on stacks of the program's: libc frees what
 * it had for them after their last destructor.
 */
START_TEST(threads_that_only_end_leave_nothing)
{
	enum { AT_ONCE = 40, STACK = 65536 };
	static char stack[AT_ONCE][STACK] __attribute__((aligned(STACK)));
	const unsigned rounds = 60;
	pthread_attr_t attr;
	size_t before = 0;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (unsigned round = 0; round < rounds; round++) {
		atomic_store(&idlers_end, false);
		for (unsigned i = 0; i < AT_ONCE; i++) {
			pthread_attr_setstack(&attr, stack[i], STACK);
			ck_assert_int_eq(pthread_create(&t, &attr, do_nothing,
			    NULL), 0);
		}
		while (atomic_load(&idlers) < AT_ONCE)
			e2e_sleep(1);
		atomic_store(&idlers_end, true);
		while (atomic_load(&idlers) > 0)
			e2e_sleep(1);
		/* Nobody can tell when such a stack is free again. */
		e2e_sleep(20);
		if (round == 5)
			before = e2e_rss();
	}
	pthread_attr_destroy(&attr);
	rss_is_flat(before, 2 * E2E_MIB, "after threads that only end");
}
END_TEST

static void *
breed(void *arg)
{
	for (uintptr_t i = 0; i < 400; i++)
		pthread_join(start(short_life, (char *)arg + i), NULL);
	return NULL;
}

/* Threads start and end at the same time as others do. */
START_TEST(threads_start_and_end_at_once)
{
	pthread_t t[6];

	for (uintptr_t i = 0; i < 6; i++)
		t[i] = start(breed, (void *)(i * 1000));
	for (unsigned i = 0; i < 6; i++)
		pthread_join(t[i], NULL);
}
END_TEST

static atomic_uint idle;
static pthread_barrier_t all_done;

static void *
sit_idle(void *arg)
{
	if (arg != NULL)
		work((uintptr_t)arg, 1000, true);
	atomic_fetch_add(&idle, 1);
	pthread_barrier_wait(&all_done);
	return NULL;
}

/*
 * Resident bytes while `count` threads are idle that did some work, or none,
 * without what they left in the heap: how many worked at once is the
 * scheduler's choice.
 */
static size_t
rss_with_idle_threads(unsigned count, bool worked)
{
	static pthread_t t[1000];
	size_t rss;

	atomic_store(&idle, 0);
	pthread_barrier_init(&all_done, NULL, count + 1);
	for (uintptr_t i = 0; i < count; i++)
		t[i] = start(sit_idle, worked ? (void *)(i + 1) : NULL);
	while (atomic_load(&idle) < count)
		e2e_sleep(1);
	e2e_trim(0);
	rss = e2e_rss();
	pthread_barrier_wait(&all_done);
	for (unsigned i = 0; i < count; i++)
		pthread_join(t[i], NULL);
	return rss;
}

/* What the counters of --enable-stats may add to a thread. */
static size_t
counters(void)
{
	return hz4_flavour != NULL && strstr(hz4_flavour(), "stats") != NULL ?
	    16 * E2E_KIB : 0;
}

START_TEST(idle_threads_cost_little)
{
	enum { COUNT = 1000, EACH = 32 * E2E_KIB };
	size_t none = rss_with_idle_threads(COUNT, false);
	size_t some = rss_with_idle_threads(COUNT, true);
	size_t each = e2e_minus(some, none) / COUNT;

	if (gives_back_by_itself())
		ck_assert_msg(each <= EACH + counters(),
		    "%zu bytes for each", each);
	else
		printf("idle threads: %zu bytes each\n", each);
}
END_TEST

/* --- the end of a thread ------------------------------------------------ */

enum { KEYS = 60 };

static pthread_key_t key[KEYS];
static atomic_uint destructor_runs;

struct late {
	unsigned round;
	unsigned key;
	void *kept[8];
};

/* Frees what earlier rounds kept, keeps something more, and comes again. */
static void
again(void *arg)
{
	struct late *l = arg;

	atomic_fetch_add(&destructor_runs, 1);
	for (unsigned i = 0; i < 8; i++) {
		if (l->round != 0)
			e2e_need(e2e_differs(l->kept[i], 30 * (i + 1), i) ==
			    E2E_SAME, "kept from round %u", l->round - 1);
		e2e_free(l->kept[i]);
		l->kept[i] = NULL;
	}
	work(l->round, 20, false);
	if (++l->round == PTHREAD_DESTRUCTOR_ITERATIONS) {
		e2e_free(l);
		return;
	}
	for (unsigned i = 0; i < 8; i++) {
		l->kept[i] = e2e_malloc(30 * (i + 1));
		e2e_need(l->kept[i] != NULL, "no memory");
		e2e_fill(l->kept[i], 30 * (i + 1), i);
	}
	pthread_setspecific(key[l->key], l);
}

static void *
with_keys(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < KEYS; i++) {
		struct late *l = e2e_calloc(1, sizeof(*l));

		e2e_need(l != NULL, "no memory");
		l->key = i;
		pthread_setspecific(key[i], l);
	}
	return NULL;
}

START_TEST(key_destructors_allocate_in_all_rounds)
{
	unsigned count = 1500 * e2e_scale();
	size_t before = 0;

	for (unsigned i = 0; i < KEYS; i++)
		ck_assert_int_eq(pthread_key_create(&key[i], again), 0);
	for (unsigned i = 0; i < count; i++) {
		pthread_join(start(with_keys, NULL), NULL);
		if (i == 100)
			before = e2e_rss();
	}
	ck_assert_uint_eq(atomic_load(&destructor_runs),
	    count * KEYS * PTHREAD_DESTRUCTOR_ITERATIONS);
	rss_is_flat(before, 4 * E2E_MIB, "after key destructors");
}
END_TEST

/*
 * The destructors of thread_local objects run first, those of keys later.
 * Both free what they are given, if anything, and allocate.
 */
static void
last_words(void *arg)
{
	atomic_fetch_add(&destructor_runs, 1);
	e2e_free(arg);
	work(5, 100, false);
}

/* Without an argument, a destructor's malloc is the thread's first. */
static void *
with_late_objects(void *arg)
{
	void *first = NULL;
	void *second = &key;

	if (arg != NULL) {
		first = e2e_malloc(500);
		second = e2e_malloc(700);
	}
	__cxa_thread_atexit_impl(last_words, first, &__dso_handle);
	pthread_setspecific(key[0], second);
	return NULL;
}

static void
last_words_unless_static(void *arg)
{
	last_words(arg == &key ? NULL : arg);
}

START_TEST(late_destructors_allocate)
{
	size_t before = 0;

	ck_assert_int_eq(pthread_key_create(&key[0],
	    last_words_unless_static), 0);
	for (unsigned i = 0; i < 3000; i++) {
		pthread_join(start(with_late_objects, i % 2 ? &i : NULL),
		    NULL);
		if (i == 300)
			before = e2e_rss();
	}
	ck_assert_uint_eq(atomic_load(&destructor_runs), 6000);
	rss_is_flat(before, 2 * E2E_MIB, "after late destructors");
}
END_TEST

static atomic_bool cancel_now;

static void *
until_cancelled(void *arg)
{
	uint64_t i = (uintptr_t)arg;

	atomic_store(&cancel_now, true);
	for (;; i++) {
		work(i, 10, false);
		e2e_trim(0);
		(void)mallinfo2();
		e2e_free(e2e_malloc(3 * E2E_MIB));
		pthread_testcancel();
	}
	return NULL;
}

/* A request to cancel is pending in every call; none may act on it. */
START_TEST(cancelled_threads_leave_no_lock)
{
	for (uintptr_t i = 0; i < 400; i++) {
		pthread_t t;
		void *result;

		atomic_store(&cancel_now, false);
		t = start(until_cancelled, (void *)i);
		while (!atomic_load(&cancel_now))
			sched_yield();
		pthread_cancel(t);
		work(i, 10, false);
		pthread_join(t, &result);
		ck_assert_ptr_eq(result, PTHREAD_CANCELED);
	}
	e2e_trim(0);
	work(1, 1000, false);
}
END_TEST

static void *mains_block[1000];
static pthread_t main_thread;

static void *
outlive_main(void *arg)
{
	(void)arg;
	pthread_join(main_thread, NULL);
	for (unsigned i = 0; i < 1000; i++) {
		e2e_need(e2e_differs(mains_block[i], 700, i) == E2E_SAME,
		    "block of the main thread");
		e2e_free(mains_block[i]);
	}
	work(3, 10000, false);
	exit(7);
}

START_TEST(main_thread_ends_first)
{
	pid_t pid = fork();

	if (pid == 0) {
		for (unsigned i = 0; i < 1000; i++) {
			mains_block[i] = e2e_malloc(700);
			e2e_need(mains_block[i] != NULL, "no memory");
			e2e_fill(mains_block[i], 700, i);
		}
		main_thread = pthread_self();
		start(outlive_main, NULL);
		pthread_exit(NULL);
	}
	ck_assert_int_eq(e2e_reap(pid, 20000), 7 << 8);
}
END_TEST

/* --- objects that outlive their thread ---------------------------------- */

struct batch {
	size_t count;
	size_t bytes;
	uint64_t stream;
	void **p;
};

static void *
fill_batch(void *arg)
{
	struct batch *b = arg;
	struct e2e_rng r = e2e_rng_start(e2e_seed(), b->stream);
	size_t bytes = 0;

	for (b->count = 0; bytes < b->bytes; b->count++) {
		size_t dice = e2e_below(&r, 1000);
		size_t n = dice < 950 ? e2e_log_size(&r, 4, 11) :
		    dice < 998 ? e2e_log_size(&r, 11, 16) :
		    e2e_log_size(&r, 16, 20);

		b->p[b->count] = e2e_malloc(n);
		e2e_need(b->p[b->count] != NULL, "no memory");
		memset(b->p[b->count], 1, n);
		bytes += n;
	}
	return NULL;
}

static void *
free_batch(void *arg)
{
	struct batch *b = arg;

	for (size_t i = 0; i < b->count; i++)
		e2e_free(b->p[i]);
	b->count = 0;
	return NULL;
}

static void
new_batch(struct batch *b, size_t bytes)
{
	b->bytes = bytes;
	b->p = outside(bytes / 64 * sizeof(*b->p));
	b->stream = 0;
}

/* Allocated by a thread that has ended; freed by main, or by the next. */
START_TEST(orphans_are_freed_by_others)
{
	struct batch b;
	size_t before = 0;

	new_batch(&b, 24 * E2E_MIB);
	for (unsigned i = 0; i < 30; i++) {
		pthread_join(start(fill_batch, &b), NULL);
		if (i % 2 == 0)
			free_batch(&b);
		else
			pthread_join(start(free_batch, &b), NULL);
		b.stream++;
		if (i == 5)
			before = e2e_rss();
	}
	rss_is_flat(before, 24 * E2E_MIB, "after orphans");
}
END_TEST

static struct batch passed;
static pthread_barrier_t turn;
enum { TURNS = 30 };

/* Never calls malloc. */
static void *
only_free(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < TURNS; i++) {
		pthread_barrier_wait(&turn);
		free_batch(&passed);
		pthread_barrier_wait(&turn);
	}
	return NULL;
}

START_TEST(a_thread_that_only_frees)
{
	size_t before = 0;
	pthread_t t;

	new_batch(&passed, 24 * E2E_MIB);
	pthread_barrier_init(&turn, NULL, 2);
	t = start(only_free, NULL);
	for (unsigned i = 0; i < TURNS; i++) {
		passed.stream++;
		fill_batch(&passed);
		if (i == 5)
			before = e2e_rss();
		pthread_barrier_wait(&turn);
		pthread_barrier_wait(&turn);
	}
	pthread_join(t, NULL);
	/* The allocator may keep some of what is free for the next turn. */
	rss_is_flat(before, 28 * E2E_MIB, "after only freeing");
}
END_TEST

/* --- sixteen producers, one that frees ---------------------------------- */

enum {
	PRODUCERS = 16,
	RING = 1 << 15,
	FLIGHT = 32 * E2E_MIB,	/* bytes on the way at most */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t space;
	pthread_cond_t data;
	size_t head;
	size_t tail;
	size_t bytes;
	unsigned open;
	void *p[RING];
	size_t n[RING];
} ring = { .lock = PTHREAD_MUTEX_INITIALIZER,
	.space = PTHREAD_COND_INITIALIZER,
	.data = PTHREAD_COND_INITIALIZER };

static void *
produce(void *arg)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), (uintptr_t)arg);
	size_t total = 96 * (size_t)E2E_MIB * e2e_scale();

	for (size_t sent = 0; sent < total;) {
		size_t n = e2e_below(&r, 4) == 0 ? e2e_log_size(&r, 11, 15) :
		    e2e_log_size(&r, 5, 11);
		void *p = e2e_malloc(n);

		e2e_need(p != NULL, "no memory");
		memset(p, 1, n);
		sent += n;
		pthread_mutex_lock(&ring.lock);
		while (ring.bytes + n > FLIGHT ||
		    ring.head - ring.tail == RING)
			pthread_cond_wait(&ring.space, &ring.lock);
		ring.p[ring.head % RING] = p;
		ring.n[ring.head++ % RING] = n;
		ring.bytes += n;
		pthread_cond_signal(&ring.data);
		pthread_mutex_unlock(&ring.lock);
	}
	pthread_mutex_lock(&ring.lock);
	ring.open--;
	pthread_cond_signal(&ring.data);
	pthread_mutex_unlock(&ring.lock);
	return NULL;
}

/* Take up to a few hundred blocks; how many, and 0 at the end. */
static size_t
take(void **p, size_t most)
{
	size_t count = 0;

	pthread_mutex_lock(&ring.lock);
	while (ring.head == ring.tail && ring.open != 0)
		pthread_cond_wait(&ring.data, &ring.lock);
	while (ring.head != ring.tail && count < most) {
		p[count++] = ring.p[ring.tail % RING];
		ring.bytes -= ring.n[ring.tail++ % RING];
	}
	pthread_cond_broadcast(&ring.space);
	pthread_mutex_unlock(&ring.lock);
	return count;
}

static void *
consume(void *arg)
{
	static void *p[512];
	size_t *peak = arg;
	size_t count;
	unsigned turns = 0;

	while ((count = take(p, 512)) != 0) {
		if (turns++ % 64 == 0 && e2e_rss() > *peak)
			*peak = e2e_rss();
		for (size_t i = 0; i < count; i++)
			e2e_free(p[i]);
	}
	return NULL;
}

START_TEST(sixteen_producers_one_consumer)
{
	size_t before = e2e_rss();
	size_t peak = before;
	size_t allowed = 2 * FLIGHT + 48 * E2E_MIB;
	pthread_t t[PRODUCERS];
	pthread_t c;

	ring.open = PRODUCERS;
	c = start(consume, &peak);
	for (uintptr_t i = 0; i < PRODUCERS; i++)
		t[i] = start(produce, (void *)i);
	for (unsigned i = 0; i < PRODUCERS; i++)
		pthread_join(t[i], NULL);
	pthread_join(c, NULL);
	if (gives_back_by_itself())
		ck_assert_msg(peak - before <= allowed, "%zu MiB at the peak",
		    (peak - before) >> 20);
	else
		printf("producers: %zu MiB at the peak\n",
		    (peak - before) >> 20);
}
END_TEST

/* --- memory goes back --------------------------------------------------- */

enum who { OWN, ANOTHER, ONLY_FREES };

static const char *const who_name[] = { "freed by its own thread",
	"freed by another thread", "freed by a thread that only frees" };

static void *
free_and_stay(void *arg)
{
	enum who who = *(enum who *)arg;

	if (who == ANOTHER)
		work(1, 1000, false);
	pthread_barrier_wait(&turn);
	free_batch(&passed);
	pthread_barrier_wait(&turn);
	/* Idle until the figures are taken. */
	pthread_barrier_wait(&turn);
	return NULL;
}

/* Fill 160 MiB and free them in the way of `who`, then look at the RSS. */
static void
free_a_lot(enum who who, bool trim)
{
	enum { BYTES = 160 * E2E_MIB, ALLOWED = 32 * E2E_MIB };
	size_t before;
	size_t now;
	pthread_t t;

	new_batch(&passed, BYTES);
	pthread_barrier_init(&turn, NULL, 2);
	work(2, 1000, false);
	t = start(free_and_stay, &who);
	before = e2e_rss();
	fill_batch(&passed);
	ck_assert_uint_ge(e2e_rss(), before + BYTES / 8 * 7);
	if (who == OWN)
		free_batch(&passed);
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	if (trim) {
		e2e_trim(0);
	} else {
		e2e_sleep(1000);
		e2e_ordinary_calls(50);
		e2e_sleep(200);
		e2e_ordinary_calls(50);
	}
	now = e2e_rss();
	pthread_barrier_wait(&turn);
	pthread_join(t, NULL);
	if (trim ? gives_back_when_trimmed() : gives_back_by_itself())
		ck_assert_msg(e2e_minus(now, before) <= ALLOWED,
		    "%s: %zu MiB are left", who_name[who],
		    e2e_minus(now, before) >> 20);
	else
		printf("%s%s: %zu MiB are left\n", who_name[who],
		    trim ? ", trimmed" : "", e2e_minus(now, before) >> 20);
}

START_TEST(memory_goes_back_after_a_while)
{
	free_a_lot((enum who)_i, false);
}
END_TEST

START_TEST(memory_goes_back_at_a_trim)
{
	free_a_lot((enum who)_i, true);
}
END_TEST

/* --- a long run, in short ------------------------------------------------ */

enum { PHASE_BLOCKS = 1 << 20, PHASE_BYTES = 200 * E2E_MIB };

static void *phase_block[2][PHASE_BLOCKS];
static unsigned phase_count[2];

/* Fill `bytes` with blocks of 2^lo to 2^hi bytes. */
static void
phase_fill(unsigned which, size_t bytes, unsigned lo, unsigned hi)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), which);
	size_t n;

	for (size_t sum = 0; sum < bytes; sum += n) {
		void *p;

		n = e2e_log_size(&r, lo, hi);
		p = e2e_malloc(n);
		ck_assert_uint_lt(phase_count[which], PHASE_BLOCKS);
		ck_assert_ptr_nonnull(p);
		memset(p, 1, n);
		phase_block[which][phase_count[which]++] = p;
	}
}

/* Free `percent` of the blocks, here and there. */
static void
phase_free(unsigned which, unsigned percent)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 7);

	for (unsigned i = 0; i < phase_count[which]; i++) {
		if (e2e_below(&r, 100) >= percent)
			continue;
		e2e_free(phase_block[which][i]);
		phase_block[which][i] = NULL;
	}
}

/*
 * What survives a phase pins pages that the next one, of other sizes, has
 * no use for.
 */
START_TEST(phases_do_not_add_up)
{
	size_t before;
	size_t between;
	size_t left;

	/* Touched now, so that they are in neither figure. */
	e2e_touch(phase_block, sizeof(phase_block));
	memset(phase_block, 0, sizeof(phase_block));
	before = e2e_rss();
	phase_fill(0, PHASE_BYTES, 5, 11);
	ck_assert_uint_ge(e2e_rss(), before + PHASE_BYTES / 8 * 7);
	phase_free(0, 95);
	phase_fill(1, PHASE_BYTES / 20 * 19, 8, 15);
	between = e2e_minus(e2e_rss(), before);
	phase_free(0, 100);
	phase_free(1, 100);
	e2e_sleep(1000);
	e2e_ordinary_calls(50);
	e2e_sleep(200);
	e2e_ordinary_calls(50);
	left = e2e_minus(e2e_rss(), before);
	if (gives_back_by_itself()) {
		ck_assert_msg(between <= (size_t)PHASE_BYTES / 10 * 22,
		    "%zu MiB between the phases", between >> 20);
		ck_assert_msg(left < PHASE_BYTES / 2, "%zu MiB are left",
		    left >> 20);
	} else {
		printf("phases: %zu MiB between, %zu MiB are left\n",
		    between >> 20, left >> 20);
	}
}
END_TEST

/*
 * After a peak the program rests: two calls every 10 ms, in size classes
 * that were not in use before.
 */
START_TEST(a_peak_goes_back_on_few_calls)
{
	size_t before = e2e_rss(), left = SIZE_MAX;

	phase_fill(0, PHASE_BYTES, 5, 11);
	phase_free(0, 100);
	for (unsigned i = 0; i < 1000 && left >= PHASE_BYTES / 4; i++) {
		e2e_free(e2e_malloc(24));
		e2e_free(e2e_malloc(60000));
		e2e_sleep(10);
		left = e2e_minus(e2e_rss(), before);
	}
	if (gives_back_by_itself())
		ck_assert_msg(left < PHASE_BYTES / 4, "%zu MiB are left",
		    left >> 20);
	else
		printf("peak: %zu MiB are left\n", left >> 20);
}
END_TEST

/* ------------------------------------------------------------------------ */

static void
add(TCase *t)
{
	/*
	 * qemu-user keeps 280 KiB of every thread that there ever was, with
	 * whatever malloc: there is no telling what is hz4's.
	 */
	if (!e2e_emulated()) {
		tcase_add_test(t, short_threads_leave_nothing);
		tcase_add_test(t, idle_threads_cost_little);
		tcase_add_test(t, key_destructors_allocate_in_all_rounds);
		tcase_add_test(t, late_destructors_allocate);
	}
	tcase_add_test(t, threads_that_only_end_leave_nothing);
	tcase_add_test(t, threads_start_and_end_at_once);
	tcase_add_test(t, cancelled_threads_leave_no_lock);
	tcase_add_test(t, main_thread_ends_first);
	tcase_add_test(t, orphans_are_freed_by_others);
	tcase_add_test(t, a_thread_that_only_frees);
	tcase_add_test(t, sixteen_producers_one_consumer);
	tcase_add_loop_test(t, memory_goes_back_after_a_while, OWN,
	    ONLY_FREES + 1);
	tcase_add_loop_test(t, memory_goes_back_at_a_trim, OWN,
	    ONLY_FREES + 1);
	tcase_add_test(t, phases_do_not_add_up);
	tcase_add_test(t, a_peak_goes_back_on_few_calls);
}

int
main(void)
{
	return e2e_main("thread", 60 * e2e_scale(), add);
}
