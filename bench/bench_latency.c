/*
 * bench_latency - how long single calls of malloc and free take.
 *
 *	bench_latency SHAPE THREADS CALLS
 *
 * Each of THREADS threads makes CALLS calls of malloc and as many of free,
 * or nearly so.  SHAPE is one of
 *
 *	plain     slots are filled and emptied at random
 *	phases    objects are piled up, nine tenths of them freed at random,
 *	          then as many of other sizes, over and over
 *	rests     objects are piled up and freed, then the thread rests for
 *	          a second, over and over
 *	other     each thread frees what the one before it allocates
 *
 * One line of NAME=VALUE pairs on stdout, for malloc, for malloc together with
 * the first write to each page of the object ("touched"), and for free:
 * nanoseconds of which so many of a hundred calls take less or as much, the
 * longest, how many took 200 microseconds or more, and how many of these lost
 * the CPU meanwhile, as far as the kernel tells.  An allocator that leaves page
 * faults to its user has a short malloc, one that does not a long one; touched
 * is what the program waits in either case.  A look at the clock is in each,
 * in touched two (clock=: the median of two looks); the rest of an object is
 * written outside of them.  The allocator is whatever the process has:
 * LD_PRELOAD chooses.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>

#define PROGRAM "bench_latency"
#include "bench.h"

enum {
	SMALLEST = 16,
	SCALES = 10,	/* sizes up to 64 bytes, up to 128, ... */
	SLOTS = 16384,
	PILE = 65536,
	RING = 1024,
	MOST_THREADS = 64,
	SLOW_NS = 200000,
	/* Times up to 32 ns have a bucket each, others 32 to a doubling. */
	FINE = 5,
	BUCKETS = (64 - FINE + 1) << FINE,
};

struct times {
	uint64_t count[BUCKETS];
	uint64_t calls, longest, slow, switched;
};

struct ring {
	_Alignas(128) _Atomic size_t head;
	_Alignas(128) _Atomic size_t tail;
	void *object[RING];
};

struct worker {
	struct times malloc, touched, free;
	struct ring ring; /* what this one is to free */
	struct worker *other;
	uint64_t state, calls;
	long switches;
};

static void (*shape)(struct worker *);
static pthread_barrier_t barrier;
static _Atomic unsigned sending;
static size_t page;

static unsigned
bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns >> FINE == 0)
		return (unsigned)ns;
	shift = 63 - FINE - (unsigned)__builtin_clzll(ns);
	return ((shift + 1) << FINE) + (unsigned)(ns >> shift) - (1 << FINE);
}

/* The longest time of a bucket. */
static uint64_t
end_of(unsigned bucket)
{
	unsigned shift = bucket >> FINE;
	uint64_t low = bucket & ((1 << FINE) - 1);

	if (shift == 0)
		return low;
	return ((low + (1 << FINE) + 1) << (shift - 1)) - 1;
}

/* Of this thread, voluntary ones too: a lock may be waited for. */
static long
switches(void)
{
	struct rusage used;

	getrusage(RUSAGE_THREAD, &used);
	return used.ru_nvcsw + used.ru_nivcsw;
}

/* Whether what took so long lost the CPU, or something before it did. */
static bool
lost_cpu(struct worker *w, uint64_t ns)
{
	long before = w->switches;

	if (ns < SLOW_NS)
		return false;
	w->switches = switches();
	return w->switches != before;
}

static void
note(struct times *t, uint64_t ns, bool lost)
{
	t->count[bucket_of(ns)]++;
	t->calls++;
	if (ns > t->longest)
		t->longest = ns;
	if (ns < SLOW_NS)
		return;
	t->slow++;
	t->switched += lost;
}

/* Multiplication and shift: seeds give different sequences. */
static uint32_t
next(struct worker *w)
{
	w->state = w->state * UINT64_C(6364136223846793005) +
	    1442695040888963407u;
	return (uint32_t)(w->state >> 33);
}

static size_t
any_size(struct worker *w)
{
	size_t most = (size_t)64 << next(w) % SCALES;

	return SMALLEST + next(w) % (most - SMALLEST + 1);
}

/* Write to each page of an object that starts anywhere. */
static void
touch(char *p, size_t n)
{
	char *end = p + n;

	do {
		*(volatile char *)p = 0x5a;
		p += page - (uintptr_t)p % page;
	} while (p < end);
}

static void *
timed_malloc(struct worker *w, size_t n)
{
	uint64_t start = now_ns(), middle, end;
	void *volatile p = malloc(n);
	bool lost;

	middle = now_ns();
	if (p == NULL)
		die("malloc failed");
	touch(p, n);
	end = now_ns();
	lost = lost_cpu(w, end - start);
	note(&w->malloc, middle - start, lost);
	note(&w->touched, end - start, lost);
	return memset(p, 0x5a, n);
}

static void
timed_free(struct worker *w, void *p)
{
	uint64_t start = now_ns(), ns;

	free(p);
	ns = now_ns() - start;
	note(&w->free, ns, lost_cpu(w, ns));
}

static void
plain(struct worker *w)
{
	void **slot = own_memory(SLOTS * sizeof(*slot));

	while (w->malloc.calls < w->calls) {
		unsigned k = next(w) % SLOTS;

		if (slot[k] != NULL) {
			timed_free(w, slot[k]);
			slot[k] = NULL;
		} else {
			slot[k] = timed_malloc(w, any_size(w));
		}
	}
	for (unsigned k = 0; k < SLOTS; k++)
		if (slot[k] != NULL)
			timed_free(w, slot[k]);
}

static void
phases(struct worker *w)
{
	void **pile = own_memory(PILE * sizeof(*pile));
	size_t n = 0;

	while (w->malloc.calls < w->calls) {
		size_t most = (size_t)64 << next(w) % SCALES, kept = 0;

		while (n < PILE)
			pile[n++] = timed_malloc(w,
			    SMALLEST + next(w) % (most - SMALLEST + 1));
		for (size_t i = 0; i < n; i++) {
			if (next(w) % 10 != 0)
				timed_free(w, pile[i]);
			else
				pile[kept++] = pile[i];
		}
		n = kept;
	}
	while (n > 0)
		timed_free(w, pile[--n]);
}

static void
rests(struct worker *w)
{
	static const struct timespec second = { 1, 0 };
	void **pile = own_memory(PILE * sizeof(*pile));

	while (w->malloc.calls < w->calls) {
		for (size_t i = 0; i < PILE; i++)
			pile[i] = timed_malloc(w, any_size(w));
		for (size_t i = 0; i < PILE; i++)
			timed_free(w, pile[i]);
		nanosleep(&second, NULL);
	}
}

/* Release and acquire: an object before it is told of. */
static bool
send(struct ring *r, void *p)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	if (tail - atomic_load_explicit(&r->head, memory_order_acquire) ==
	    RING)
		return false;
	r->object[tail % RING] = p;
	atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
	return true;
}

static void
receive(struct worker *w)
{
	struct ring *r = &w->ring;
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	size_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);

	for (; head != tail; head++)
		timed_free(w, r->object[head % RING]);
	atomic_store_explicit(&r->head, head, memory_order_release);
}

static void
other(struct worker *w)
{
	while (w->malloc.calls < w->calls) {
		void *p = timed_malloc(w, any_size(w));

		while (!send(&w->other->ring, p)) {
			receive(w);
			sched_yield();
		}
		if (w->malloc.calls % (RING / 8) == 0)
			receive(w);
	}
	atomic_fetch_sub(&sending, 1);
	while (atomic_load(&sending) > 0) {
		receive(w);
		sched_yield();
	}
	receive(w);
}

static void *
work(void *arg)
{
	struct worker *w = arg;

	pthread_barrier_wait(&barrier);
	w->switches = switches();
	shape(w);
	return NULL;
}

static void
add(struct times *to, const struct times *from)
{
	for (unsigned b = 0; b < BUCKETS; b++)
		to->count[b] += from->count[b];
	to->calls += from->calls;
	to->slow += from->slow;
	to->switched += from->switched;
	if (from->longest > to->longest)
		to->longest = from->longest;
}

/* What all but `beyond` of a million calls take at most. */
static uint64_t
at_most(const struct times *t, uint64_t beyond)
{
	uint64_t left = t->calls * beyond / 1000000;
	unsigned b = BUCKETS - 1;

	while (t->count[b] <= left) {
		left -= t->count[b];
		if (b-- == 0)
			return 0;
	}
	return end_of(b) < t->longest ? end_of(b) : t->longest;
}

static void
print(const char *name, const struct times *t)
{
	static const struct {
		const char *name;
		uint64_t beyond;
	} parts[] = {
		{ "p50", 500000 }, { "p99", 10000 }, { "p99.9", 1000 },
		{ "p99.99", 100 }, { "p99.999", 10 },
	};

	printf(" %s_calls=%ju", name, (uintmax_t)t->calls);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		printf(" %s_%s=%ju", name, parts[i].name,
		    (uintmax_t)at_most(t, parts[i].beyond));
	printf(" %s_longest=%ju %s_over200us=%ju %s_switched=%ju", name,
	    (uintmax_t)t->longest, name, (uintmax_t)t->slow, name,
	    (uintmax_t)t->switched);
}

static uint64_t
clock_cost(void)
{
	static struct times t;

	for (int i = 0; i < 10000; i++) {
		uint64_t start = now_ns();

		t.count[bucket_of(now_ns() - start)]++;
		t.calls++;
	}
	t.longest = UINT64_MAX;
	return at_most(&t, 500000);
}

static void
run(unsigned threads, uint64_t calls)
{
	struct worker *all = own_memory(threads * sizeof(*all));
	pthread_t id[MOST_THREADS];

	pthread_barrier_init(&barrier, NULL, threads);
	atomic_store(&sending, threads);
	for (unsigned i = 0; i < threads; i++) {
		all[i].state = i + 1;
		all[i].calls = calls;
		all[i].other = &all[(i + 1) % threads];
	}
	for (unsigned i = 0; i < threads; i++)
		if (pthread_create(&id[i], NULL, work, &all[i]) != 0)
			die("cannot start a thread");
	for (unsigned i = 0; i < threads; i++)
		pthread_join(id[i], NULL);
	for (unsigned i = 1; i < threads; i++) {
		add(&all[0].malloc, &all[i].malloc);
		add(&all[0].touched, &all[i].touched);
		add(&all[0].free, &all[i].free);
	}
	printf("clock=%ju", (uintmax_t)clock_cost());
	print("malloc", &all[0].malloc);
	print("touched", &all[0].touched);
	print("free", &all[0].free);
	printf("\n");
}

int
main(int argc, char **argv)
{
	unsigned threads;
	uint64_t calls;

	if (argc != 4)
		die("%d arguments, but 3 are needed: SHAPE THREADS CALLS",
		    argc - 1);
	if (strcmp(argv[1], "plain") == 0)
		shape = plain;
	else if (strcmp(argv[1], "phases") == 0)
		shape = phases;
	else if (strcmp(argv[1], "rests") == 0)
		shape = rests;
	else if (strcmp(argv[1], "other") == 0)
		shape = other;
	else
		die("SHAPE is \"%.40s\", but has to be plain, phases, "
		    "rests or other", argv[1]);
	threads = (unsigned)number(argv[2], "THREADS", shape == other ? 2 : 1,
	    MOST_THREADS);
	calls = number(argv[3], "CALLS", 1, 1000000000);
	page = (size_t)sysconf(_SC_PAGESIZE);
	run(threads, calls);
	return 0;
}
