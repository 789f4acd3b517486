/*
 * bench_shapes - what an allocator keeps: shapes of use that lanes and
 * programs do not show.
 *
 *	bench_shapes SHAPE AMOUNT
 *
 * SHAPE is one of
 *
 *	own       a thread allocates AMOUNT MiB and frees them
 *	other     one thread allocates, another one frees
 *	onlyfree  four threads allocate all the time, one only frees what
 *	          they send, AMOUNT MiB in all, at most 64 MiB on the way
 *	idle      AMOUNT threads do 1,000 mixed operations each and free
 *	          everything, and then wait
 *	churn     AMOUNT threads, one after the other
 *	phases    AMOUNT MiB, nine tenths freed at random and a second of
 *	          rest, then as much again in other sizes
 *
 * One line of NAME=VALUE pairs on stdout.  rss is VmRSS, all sizes are in
 * KiB unless the name says otherwise.  The allocator is whatever the
 * process has: LD_PRELOAD chooses.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define PROGRAM "bench_shapes"
#include "bench.h"

#define MIB ((size_t)1 << 20)
#define MOST 1000000

enum {
	SMALLEST = 16,
	LARGEST = 32768,
	PRODUCERS = 4,
	RING = 4096,	/* objects: with 16 KiB on average 64 MiB */
	OPERATIONS = 1000,
	SLOTS = 64,
};

/* Multiplication and shift: seeds give different sequences. */
static uint32_t
next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(*state >> 33);
}

static size_t
size_between(uint64_t *state, size_t least, size_t most)
{
	return least + next(state) % (most - least + 1);
}

/* Without stdio, which would allocate. */
static long
rss(void)
{
	char text[256];
	char *second;

	if (!read_text("/proc/self/statm", text, sizeof(text)))
		die("cannot read /proc/self/statm: %s", strerror(errno));
	second = strchr(text, ' ');
	if (second == NULL)
		die("cannot read /proc/self/statm: no second field");
	return strtol(second, NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024);
}

/* volatile: a compiler may leave out a malloc that is freed at once. */
static void *
allocate(size_t n)
{
	void *volatile p = malloc(n);

	if (p == NULL)
		die("malloc failed");
	memset(p, 0x5a, n);
	return p;
}

static pthread_t
start(void *(*what)(void *), void *arg)
{
	pthread_t id;

	if (pthread_create(&id, NULL, what, arg) != 0)
		die("cannot start a thread");
	return id;
}

/* Ordinary calls for a second and a bit, as a program makes when it rests. */
static void
ordinary_calls(void)
{
	static const struct timespec pause = { 0, 10000000 };

	for (int i = 0; i < 130; i++) {
		free(allocate(100));
		free(allocate(5000));
		nanosleep(&pause, NULL);
	}
}

/* --- a peak that was freed -------------------------------------------- */

static struct {
	void **object;
	size_t objects;
	size_t room;	/* bytes of the array */
} heap;

static void
fill(size_t most)
{
	uint64_t state = 1;
	size_t bytes = 0;

	heap.room = most / SMALLEST * sizeof(void *);
	heap.object = own_memory(heap.room);
	while (bytes < most) {
		size_t n = size_between(&state, SMALLEST, LARGEST);

		heap.object[heap.objects++] = allocate(n);
		bytes += n;
	}
}

static void *
drop(void *arg)
{
	for (size_t i = 0; i < heap.objects; i++)
		free(heap.object[i]);
	munmap(heap.object, heap.room);
	return arg;
}

static void
peak(size_t amount, int other)
{
	long before = rss(), full, rested;

	fill(amount * MIB);
	full = rss();
	if (other)
		pthread_join(start(drop, NULL), NULL);
	else
		drop(NULL);
	ordinary_calls();
	rested = rss();
	malloc_trim(0);
	printf("before=%ld peak=%ld after_a_second=%ld trimmed=%ld\n", before,
	    full, rested, rss());
}

/* --- threads that allocate, one that only frees ------------------------ */

struct ring {
	_Alignas(128) _Atomic size_t head;
	_Alignas(128) _Atomic size_t tail;
	_Alignas(128) void *object[RING];
	size_t bytes;	/* still to send */
	unsigned index;
};

static struct ring rings[PRODUCERS];

static _Atomic int producers;

static void *
produce(void *arg)
{
	struct ring *r = arg;
	uint64_t state = r->index + 1;
	size_t tail = 0;

	while (r->bytes > 0) {
		size_t n = size_between(&state, SMALLEST, LARGEST / 4);

		/* Release and acquire: an object before it is told of. */
		while (tail - atomic_load_explicit(&r->head,
		    memory_order_acquire) == RING)
			sched_yield();
		r->object[tail++ % RING] = allocate(n);
		atomic_store_explicit(&r->tail, tail, memory_order_release);
		r->bytes -= n < r->bytes ? n : r->bytes;
	}
	atomic_fetch_sub(&producers, 1);
	return NULL;
}

/* Free what is there; how many objects that were. */
static size_t
consume(struct ring *r)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	size_t n = atomic_load_explicit(&r->tail, memory_order_acquire) - head;

	for (size_t i = 0; i < n; i++)
		free(r->object[(head + i) % RING]);
	atomic_store_explicit(&r->head, head + n, memory_order_release);
	return n;
}

static void
only_free(size_t amount)
{
	pthread_t id[PRODUCERS];
	long highest = 0, sample;
	unsigned rounds = 0;
	uint64_t began = now_ns();
	double took;

	atomic_store(&producers, PRODUCERS);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		rings[i].bytes = amount * MIB / PRODUCERS;
		rings[i].index = i;
		id[i] = start(produce, &rings[i]);
	}
	while (atomic_load(&producers) > 0) {
		size_t n = 0;

		for (unsigned i = 0; i < PRODUCERS; i++)
			n += consume(&rings[i]);
		if (n == 0)
			sched_yield();
		if (++rounds % 64 == 0 && (sample = rss()) > highest)
			highest = sample;
	}
	took = seconds_since(began);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		pthread_join(id[i], NULL);
		consume(&rings[i]);
	}
	sample = rss();
	if (sample > highest)
		highest = sample;
	ordinary_calls();
	printf("seconds=%.3f highest=%ld after_a_second=%ld", took, highest,
	    rss());
	malloc_trim(0);
	printf(" trimmed=%ld\n", rss());
}

/* --- threads ------------------------------------------------------------ */

static pthread_barrier_t barrier;

static void
mixed_operations(uint64_t seed)
{
	void *slot[SLOTS] = { NULL };

	for (int i = 0; i < OPERATIONS; i++) {
		unsigned k = next(&seed) % SLOTS;

		if (slot[k] != NULL) {
			free(slot[k]);
			slot[k] = NULL;
		} else {
			slot[k] = allocate(size_between(&seed, 16, 2048));
		}
	}
	for (unsigned k = 0; k < SLOTS; k++)
		free(slot[k]);
}

static void *
work_and_wait(void *arg)
{
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	mixed_operations((uintptr_t)arg + 1);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return NULL;
}

/* The threads' own stacks are there before they work. */
static void
idle(size_t amount)
{
	pthread_t *id = own_memory(amount * sizeof(*id));
	long before, after;

	pthread_barrier_init(&barrier, NULL, (unsigned)amount + 1);
	for (size_t i = 0; i < amount; i++)
		id[i] = start(work_and_wait, (void *)i);
	pthread_barrier_wait(&barrier);
	before = rss();
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	after = rss();
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < amount; i++)
		pthread_join(id[i], NULL);
	printf("before=%ld after=%ld a_thread=%.1f\n", before, after,
	    (double)(after - before) / (double)amount);
}

static void *
work_once(void *arg)
{
	free(allocate(100));
	free(allocate(1000));
	return arg;
}

static void
churn(size_t amount)
{
	long early = 0;
	uint64_t began = now_ns();

	for (size_t i = 0; i < amount; i++) {
		pthread_join(start(work_once, NULL), NULL);
		if (i == amount / 10)
			early = rss();
	}
	printf("rss_at_a_tenth=%ld rss=%ld microseconds_a_thread=%.2f\n",
	    early, rss(), seconds_since(began) * 1e6 / (double)amount);
}

/* --- phases of other sizes ---------------------------------------------- */

static void
phases(size_t amount)
{
	size_t most = amount * MIB, live, n = 0, kept = 0, left;
	long books, thinned;
	size_t room = 2 * most / SMALLEST;
	void **object = own_memory(room * sizeof(*object));
	size_t *bytes = own_memory(room * sizeof(*bytes));
	uint64_t state = 1;

	for (live = 0; live < most; live += bytes[n], n++) {
		bytes[n] = size_between(&state, SMALLEST, 1024);
		object[n] = allocate(bytes[n]);
	}
	for (size_t i = 0; i < n; i++) {
		if (next(&state) % 10 != 0) {
			free(object[i]);
			live -= bytes[i];
			continue;
		}
		object[kept] = object[i];
		bytes[kept++] = bytes[i];
	}
	/* The books: two words an object, and there are never more. */
	books = (long)(n * sizeof(*object) * 2 / 1024);
	ordinary_calls();
	left = live;
	thinned = rss() - books;
	for (n = kept; live < most; live += bytes[n], n++) {
		bytes[n] = size_between(&state, 1025, LARGEST / 2);
		object[n] = allocate(bytes[n]);
	}
	printf("live_at_a_tenth=%zu rss_at_a_tenth=%ld live=%zu rss=%ld\n",
	    left / 1024, thinned, live / 1024, rss() - books);
}

int
main(int argc, char **argv)
{
	size_t amount;

	if (argc != 3)
		die("%d arguments, but 2 are needed: SHAPE AMOUNT", argc - 1);
	amount = (size_t)number(argv[2], "AMOUNT", 1, MOST);
	if (strcmp(argv[1], "own") == 0)
		peak(amount, 0);
	else if (strcmp(argv[1], "other") == 0)
		peak(amount, 1);
	else if (strcmp(argv[1], "onlyfree") == 0)
		only_free(amount);
	else if (strcmp(argv[1], "idle") == 0)
		idle(amount);
	else if (strcmp(argv[1], "churn") == 0)
		churn(amount);
	else if (strcmp(argv[1], "phases") == 0)
		phases(amount);
	else
		die("SHAPE is \"%.40s\", but has to be own, other, onlyfree, "
		    "idle, churn or phases", argv[1]);
	return 0;
}
