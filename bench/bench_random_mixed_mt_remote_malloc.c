/*
 * bench_random_mixed_mt_remote_malloc - the lane program.
 *
 * Every thread owns WORKING_SET slots.  A step picks one slot at random;
 * an empty one is filled (malloc of a uniform size in MIN..MAX, first and
 * last byte written), a full one is emptied: both bytes are checked, and the
 * object is freed here or, with REMOTE_PCT percent probability, handed
 * through a ring of RING_SLOTS entries to the next thread, which frees it.
 * A full ring makes the free local.  A receiver frees a few objects of its
 * ring in a step, or with RING_TAKE 0 all that wait, at once.
 *
 * The program is linked against no allocator: the one under test comes by
 * LD_PRELOAD, or is the C library's own.  Its own memory (slots, rings,
 * counters) comes from mmap, so that it neither warms nor fragments what is
 * measured, and what of it is resident is reported beside the peak RSS.
 * What remains on the allocator's account that is not a lane object is the
 * C library's thread start.
 *
 * What a step costs beyond malloc and free: one Weyl step and one wide
 * multiplication for all its random choices, range reduction by multiply
 * and shift (no division), one branch on "slot empty" that nobody can
 * predict, two bytes of the object touched, and one store to a cache line
 * of the thread's own for the live bytes.
 *
 * Exit status: 0; 1 when an allocation failed or an object was found
 * changed (the result is printed all the same); 2 for bad arguments or a
 * machine that does not give the threads or the program's own memory.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>

#define PROGRAM "bench_random_mixed_mt_remote_malloc"
#include "bench.h"

enum {
	CACHE_LINE = 64,
	/* Two lines: the adjacent-line prefetcher fetches them in pairs. */
	SEPARATE = 2 * CACHE_LINE,
	/*
	 * A thread whose incoming ring was empty asks again after this many
	 * steps.  Asking costs the transfer of a line that the sender writes
	 * all the time; asking in every step would measure that line.
	 */
	RING_POLL_STEPS = 16,
	/*
	 * Objects taken from a ring that is known to hold some, per step.
	 * A sender sends at most one object in two steps in the long run, so
	 * this is eight times its rate: a backlog is soon gone while both
	 * run, and a step stays a step, nobody frees 65,536 objects in a row.
	 */
	RING_TAKE_PER_STEP = 4,
	/* Steps between two looks at the sum of live bytes; see look(). */
	LOOK_STEPS = 1024,
	/* Growth that is not worth a look: 1/1024 of the peak, or this. */
	LOOK_SLACK_SHIFT = 10,
	LOOK_SLACK_MIN = 4096,

	MAX_THREADS = 4096,
};

#define MAX_ITERS	UINT64_C(1000000000000)
#define MAX_SIZE	UINT64_C(1073741824)
#define MAX_SLOTS	UINT64_C(16777216)

/* An object as its owner remembers it; object.p == NULL: none. */
struct object {
	unsigned char *p;
	uint32_t size;
	uint32_t tag;		/* the byte in its first and last place */
};

/*
 * Single producer (thread i), single consumer (thread i + 1).
 *
 * Always: head <= tail, tail - head <= ring_slots; entries head..tail-1,
 * taken modulo the array's size, hold objects in flight.  Producer's and
 * consumer's fields are in different cache lines, each side keeps a copy of
 * the other's counter, and reads the real one only when the copy says full
 * or empty.
 */
struct ring {
	/* producer */
	_Alignas(SEPARATE) _Atomic uint64_t tail; /* release: entry written */
	uint64_t head_seen;
	/* consumer */
	_Alignas(SEPARATE) _Atomic uint64_t head; /* release: entry read */
	uint64_t tail_seen;
	/* set once by the consumer when it is through with its steps */
	_Alignas(SEPARATE) _Atomic bool closed;
	struct object *entry;
};

struct worker {
	/*
	 * Bytes this thread allocated minus bytes it freed; negative where
	 * it frees more of others' than it allocates.  Written by the owner
	 * in every step, read by everybody in look(); relaxed, because the
	 * sum is a measurement and orders nothing.
	 */
	_Alignas(SEPARATE) _Atomic int64_t live;

	_Alignas(SEPARATE) pthread_t thread;
	unsigned index;
	struct object *slot;
	struct ring *out;
	struct ring *in;

	/* results, written once at the end of the thread */
	uint64_t start_ns;
	uint64_t end_ns;
	uint64_t failed;
	uint64_t corrupted;
	uint64_t remote;
	uint64_t ring_full;
	struct rusage before;
	struct rusage after;
};

static struct {
	unsigned threads;
	uint64_t iters;
	uint64_t slots;
	uint64_t min;
	uint64_t max;
	unsigned remote_pct;
	uint64_t ring_slots;
	uint64_t ring_mask;
	uint64_t ring_take; /* objects of a ring that are freed in a step */
} cfg;

static struct worker *workers;
static struct ring *rings;
static pthread_barrier_t barrier;
static _Alignas(SEPARATE) _Atomic int64_t peak_live;

/* stdio would allocate its buffer from the allocator under test. */
static void __attribute__((format(printf, 1, 2)))
say(const char *fmt, ...)
{
	char text[2048];
	size_t len;
	size_t done = 0;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	len = strlen(text);
	while (done < len) {
		ssize_t n = write(STDOUT_FILENO, text + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("cannot write the result: %s", strerror(errno));
		done += (size_t)n;
	}
}

/* The two halves of the 128 bits of a * b, one xor the other. */
#ifdef __SIZEOF_INT128__
static inline uint64_t
fold_product(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 wide;
	wide m = (wide)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}
#else	/* most processors of 32 bits */
static inline uint64_t
fold_product(uint64_t a, uint64_t b)
{
	uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX);
	uint64_t cross = (a >> 32) * (b & UINT32_MAX) + (low >> 32);
	uint64_t other = (a & UINT32_MAX) * (b >> 32) + (cross & UINT32_MAX);
	uint64_t high = (a >> 32) * (b >> 32) + (cross >> 32) + (other >> 32);

	return (other << 32 | (low & UINT32_MAX)) ^ high;
}
#endif

/*
 * 64 random bits: a Weyl sequence, whose only dependence from one step to
 * the next is an addition, scrambled by one multiplication to 128 bits.
 */
static inline uint64_t
next_random(uint64_t *state)
{
	uint64_t s = *state += UINT64_C(0x9e3779b97f4a7c15);

	return fold_product(s ^ (s >> 31), s | UINT64_C(0x8000000000000001));
}

/* Uniform in 0..n-1 but for a bias of n / 2^32. */
static inline uint64_t
below(uint32_t bits, uint64_t n)
{
	return (bits * n) >> 32;
}

static int64_t
sum_live(void)
{
	int64_t sum = 0;

	for (unsigned i = 0; i < cfg.threads; i++)
		sum += atomic_load_explicit(&workers[i].live,
					    memory_order_relaxed);
	return sum;
}

/*
 * Add up everybody's live bytes, note a new peak, and return the value of
 * this thread's own counter at which it has to look again.
 *
 * The live bytes of the program are the sum of all counters; an object that
 * lies in a ring has been added by its allocator and not yet subtracted, so
 * it counts.  A shared counter would be exact and would cost a locked
 * operation on a contended line in every step.  Instead a thread looks
 *   - when its own counter has grown so far that, with the others as they
 *     were at its last look, the known peak would be passed by the slack
 *     (1/1024 of the peak, at least 4 KiB), and
 *   - every LOOK_STEPS steps anyway.
 * So the peak found
 *   - is a sum that was observed, never an addition of maxima of different
 *     moments.  The counters are read one after the other, some tens of
 *     nanoseconds in all; a thread that loses its CPU in the middle would
 *     mix old and new values, hence two passes and the smaller sum;
 *   - falls short of the true peak by at most the slack plus what the other
 *     threads that were running gained since this one's last look, which is
 *     at most LOOK_STEPS steps of its own ago.  With one thread it is exact
 *     but for the slack.  In the remote lanes, where the sum is hundreds of
 *     MiB or more, that is below 0.5 %; in the local lanes with their small
 *     sums about 1 %.  It errs to the low side, which makes the ratio of
 *     RSS to live bytes look worse, not better.
 */
static int64_t __attribute__((noinline, cold))
look(int64_t mine)
{
	int64_t first = sum_live();
	int64_t total = sum_live();
	int64_t peak = atomic_load_explicit(&peak_live, memory_order_relaxed);
	int64_t slack;

	if (first < total)
		total = first;
	while (total > peak) {
		if (atomic_compare_exchange_weak_explicit(&peak_live, &peak,
							  total,
							  memory_order_relaxed,
							  memory_order_relaxed))
			peak = total;
	}
	slack = peak >> LOOK_SLACK_SHIFT;
	if (slack < LOOK_SLACK_MIN)
		slack = LOOK_SLACK_MIN;
	return mine + (peak - total) + slack;
}

static inline void
put_live(struct worker *w, int64_t live)
{
	atomic_store_explicit(&w->live, live, memory_order_relaxed);
}

/* Check an object and give it back; its size goes off `live`. */
static inline void
drop(struct object o, int64_t *live, uint64_t *corrupted)
{
	if (__builtin_expect(o.p[0] != (unsigned char)o.tag ||
			     o.p[o.size - 1] != (unsigned char)o.tag, 0))
		++*corrupted;
	free(o.p);
	*live -= (int64_t)o.size;
}

/*
 * Hand an object to the next thread.  False when the ring is full, or when
 * the receiver has done its steps and takes nothing more: the sender frees
 * the object itself then.
 */
static inline bool
ring_put(struct ring *r, struct object o)
{
	/* Only this side writes tail. */
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	if (__builtin_expect(tail - r->head_seen >= cfg.ring_slots, 0)) {
		/* acquire: the receiver has read the entry before its head */
		r->head_seen = atomic_load_explicit(&r->head,
						    memory_order_acquire);
		if (tail - r->head_seen >= cfg.ring_slots)
			return false;
	}
	/* relaxed: an object sent too late is freed by ring_clear() */
	if (__builtin_expect(atomic_load_explicit(&r->closed,
						  memory_order_relaxed), 0))
		return false;
	r->entry[tail & cfg.ring_mask] = o;
	/* release: the entry is written before the receiver sees the tail */
	atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
	return true;
}

/* Take and free up to `most` of the objects that are known to be there. */
static inline void
ring_take(struct ring *r, uint64_t most, int64_t *live, uint64_t *corrupted)
{
	/* Only this side writes head. */
	uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint64_t n = r->tail_seen - head;

	if (n > most)
		n = most;
	for (; n; n--, head++)
		drop(r->entry[head & cfg.ring_mask], live, corrupted);
	/* release: the entries are read before the sender reuses them */
	atomic_store_explicit(&r->head, head, memory_order_release);
}

/* Everything that is in the ring now. */
static void
ring_clear(struct ring *r, int64_t *live, uint64_t *corrupted)
{
	/* acquire: pairs with the sender's release of the tail */
	r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
	ring_take(r, UINT64_MAX, live, corrupted);
}

static inline void
poll_ring(struct ring *r, uint64_t step, int64_t *live, uint64_t *corrupted)
{
	if (r->tail_seen != atomic_load_explicit(&r->head,
						 memory_order_relaxed))
		ring_take(r, cfg.ring_take, live, corrupted);
	else if (step % RING_POLL_STEPS == 0)
		/* acquire: pairs with the sender's release of the tail */
		r->tail_seen = atomic_load_explicit(&r->tail,
						    memory_order_acquire);
}

/*
 * The steps of one thread.  Inlined twice, with and without the rings, so
 * that the local lanes do not carry the remote ones' branches.
 */
static inline __attribute__((always_inline)) void
steps(struct worker *w, bool with_rings)
{
	/* A common factor of these seeds would show as equal sequences. */
	uint64_t state = (w->index + 1) * UINT64_C(0xd1342543de82ef95);
	uint64_t range = cfg.max - cfg.min + 1;
	uint64_t remote_below = ((uint64_t)cfg.remote_pct << 32) / 100;
	uint64_t nslots = cfg.slots;
	uint64_t min = cfg.min;
	struct object *slots = w->slot;
	int64_t live = 0;
	int64_t look_at = LOOK_SLACK_MIN;
	uint64_t failed = 0;
	uint64_t corrupted = 0;
	uint64_t remote = 0;
	uint64_t ring_full = 0;

	for (uint64_t step = 0; step < cfg.iters; step++) {
		uint64_t r = next_random(&state);
		uint32_t aux = (uint32_t)(r >> 32);
		struct object *s = &slots[below((uint32_t)r, nslots)];

		if (!s->p) {
			uint32_t size = (uint32_t)(min + below(aux, range));
			unsigned char *p = malloc(size);

			if (__builtin_expect(!p, 0)) {
				failed++;
				continue;
			}
			p[0] = (unsigned char)r;
			p[size - 1] = (unsigned char)r;
			s->p = p;
			s->size = size;
			s->tag = (uint32_t)r;
			live += size;
			put_live(w, live);
			if (__builtin_expect(live > look_at, 0))
				look_at = look(live);
		} else {
			struct object o = *s;

			s->p = NULL;
			if (with_rings && aux < remote_below) {
				if (ring_put(w->out, o)) {
					remote++;
				} else {
					ring_full++;
					drop(o, &live, &corrupted);
				}
			} else {
				drop(o, &live, &corrupted);
			}
			put_live(w, live);
		}
		if (with_rings) {
			poll_ring(w->in, step, &live, &corrupted);
			put_live(w, live);
		}
		if (__builtin_expect(step % LOOK_STEPS == 0, 0))
			look_at = look(live);
	}
	w->failed = failed;
	w->corrupted = corrupted;
	w->remote = remote;
	w->ring_full = ring_full;
}

static void *
work(void *arg)
{
	struct worker *w = arg;
	int64_t live;

	pthread_barrier_wait(&barrier);
	getrusage(RUSAGE_THREAD, &w->before);
	w->start_ns = now_ns();
	if (cfg.remote_pct)
		steps(w, true);
	else
		steps(w, false);
	w->end_ns = now_ns();
	getrusage(RUSAGE_THREAD, &w->after);

	/*
	 * From here on nothing is timed.  The thread takes no more objects:
	 * waiting for the sender would add context switches that are not
	 * the allocator's, and a ring that nobody empties would pile up
	 * gigabytes.  What arrives between these two lines is freed by
	 * main() after everybody's end.
	 */
	atomic_store_explicit(&w->in->closed, true, memory_order_relaxed);
	live = atomic_load_explicit(&w->live, memory_order_relaxed);
	ring_clear(w->in, &live, &w->corrupted);
	for (uint64_t i = 0; i < cfg.slots; i++) {
		if (w->slot[i].p)
			drop(w->slot[i], &live, &w->corrupted);
	}
	put_live(w, live);
	return NULL;
}

static uint64_t
resident_kib(void *base, size_t bytes)
{
	unsigned char vec[4096];
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t pages = (bytes + page - 1) / page;
	size_t found = 0;

	for (size_t at = 0; at < pages; at += sizeof(vec)) {
		size_t n = pages - at;

		if (n > sizeof(vec))
			n = sizeof(vec);
		if (mincore((char *)base + at * page, n * page, vec) != 0)
			return bytes / 1024;
		for (size_t i = 0; i < n; i++)
			found += vec[i] & 1;
	}
	return found * page / 1024;
}

/*
 * A figure in KiB from /proc/self/status, or 0.  VmHWM is preferred to
 * ru_maxrss because the latter survives execve() and can be the figure of
 * whoever started the program.
 */
static uint64_t
status_kib(const char *key)
{
	char text[4096];
	const char *at;

	if (!read_text("/proc/self/status", text, sizeof(text)))
		return 0;
	at = strstr(text, key);
	return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void
parse(int argc, char **argv)
{
	if (argc != 8 && argc != 9)
		die("%d arguments, but 7 or 8 are needed: THREADS ITERS "
		    "WORKING_SET MIN MAX REMOTE_PCT RING_SLOTS [RING_TAKE]",
		    argc - 1);
	cfg.threads = (unsigned)number(argv[1], "THREADS", 1, MAX_THREADS);
	cfg.iters = number(argv[2], "ITERS", 1, MAX_ITERS);
	cfg.slots = number(argv[3], "WORKING_SET", 1, MAX_SLOTS);
	cfg.min = number(argv[4], "MIN", 1, MAX_SIZE);
	cfg.max = number(argv[5], "MAX", 1, MAX_SIZE);
	if (cfg.max < cfg.min)
		die("MAX is %" PRIu64 ", but has to be at least MIN, which "
		    "is %" PRIu64, cfg.max, cfg.min);
	cfg.remote_pct = (unsigned)number(argv[6], "REMOTE_PCT", 0, 100);
	cfg.ring_slots = number(argv[7], "RING_SLOTS", 1, MAX_SLOTS);
	cfg.ring_take = RING_TAKE_PER_STEP;
	if (argc == 9)
		cfg.ring_take = number(argv[8], "RING_TAKE", 0, MAX_SLOTS);
	if (cfg.ring_take == 0)
		cfg.ring_take = UINT64_MAX;
	cfg.ring_mask = 1;
	while (cfg.ring_mask < cfg.ring_slots)
		cfg.ring_mask *= 2;
	cfg.ring_mask--;
}

static size_t
round_up(size_t n)
{
	return (n + SEPARATE - 1) / SEPARATE * SEPARATE;
}

/* One mapping: workers, rings, every thread's slots, every ring's entries. */
static void *
lay_out(size_t *bytes)
{
	size_t n = cfg.threads;
	size_t slots = round_up(cfg.slots * sizeof(struct object));
	size_t entries = 0;
	char *base;
	char *at;

	if (cfg.remote_pct)
		entries = round_up((cfg.ring_mask + 1) *
				   sizeof(struct object));
	/* 4096 threads times 2^24 entries of 16 bytes: no overflow. */
	*bytes = n * (sizeof(*workers) + sizeof(*rings) + slots + entries);
	base = own_memory(*bytes);
	workers = (struct worker *)(void *)base;
	rings = (struct ring *)(void *)(workers + n);
	at = (char *)(rings + n);
	for (size_t i = 0; i < n; i++) {
		workers[i].index = (unsigned)i;
		workers[i].slot = (struct object *)(void *)at;
		at += slots;
		rings[i].entry = (struct object *)(void *)at;
		at += entries;
		workers[i].out = &rings[i];
		workers[i].in = &rings[(i + n - 1) % n];
	}
	return base;
}

struct totals {
	double wall_s;
	double user_s;
	double sys_s;
	uint64_t vcsw;
	uint64_t ivcsw;
	uint64_t minflt;
	uint64_t majflt;
	uint64_t failed;
	uint64_t corrupted;
	uint64_t remote;
	uint64_t ring_full;
};

static void
add_up(struct totals *t)
{
	uint64_t start = UINT64_MAX;
	uint64_t end = 0;

	for (unsigned i = 0; i < cfg.threads; i++) {
		const struct worker *w = &workers[i];
		const struct rusage *a = &w->before;
		const struct rusage *b = &w->after;

		if (w->start_ns < start)
			start = w->start_ns;
		if (w->end_ns > end)
			end = w->end_ns;
		t->user_s += seconds(&b->ru_utime) - seconds(&a->ru_utime);
		t->sys_s += seconds(&b->ru_stime) - seconds(&a->ru_stime);
		t->vcsw += (uint64_t)(b->ru_nvcsw - a->ru_nvcsw);
		t->ivcsw += (uint64_t)(b->ru_nivcsw - a->ru_nivcsw);
		t->minflt += (uint64_t)(b->ru_minflt - a->ru_minflt);
		t->majflt += (uint64_t)(b->ru_majflt - a->ru_majflt);
		t->failed += w->failed;
		t->corrupted += w->corrupted;
		t->remote += w->remote;
		t->ring_full += w->ring_full;
	}
	t->wall_s = (double)(end - start) * 1e-9;
	if (t->wall_s <= 0)
		t->wall_s = 1e-9;
}

static void
report(const struct totals *t, uint64_t own_kib)
{
	double ops = (double)cfg.iters * cfg.threads / t->wall_s;
	double live = (double)atomic_load_explicit(&peak_live,
						   memory_order_relaxed);
	uint64_t rss = status_kib("VmHWM:");
	uint64_t rss_end = status_kib("VmRSS:");
	struct rusage all;

	if (!rss) {
		getrusage(RUSAGE_SELF, &all);
		rss = (uint64_t)all.ru_maxrss;
	}
	say("%u threads of %" PRIu64 " steps, %" PRIu64 " slots, sizes %"
	    PRIu64 "..%" PRIu64 ", %u %% remote, ring of %" PRIu64 "\n"
	    "%.3f million operations a second, %.3f s (CPU %.3f s user, "
	    "%.3f s system)\n"
	    "%" PRIu64 " voluntary and %" PRIu64 " involuntary context "
	    "switches, %" PRIu64 " page faults\n"
	    "peak RSS %.1f MiB (%.1f MiB of it this program's own), "
	    "peak live bytes %.1f MiB\n"
	    "%" PRIu64 " frees handed to another thread, %" PRIu64
	    " made local by a full or closed ring\n"
	    "%" PRIu64 " failed allocations, %" PRIu64
	    " corrupted objects\n",
	    cfg.threads, cfg.iters, cfg.slots, cfg.min, cfg.max,
	    cfg.remote_pct, cfg.ring_slots, ops * 1e-6, t->wall_s, t->user_s,
	    t->sys_s, t->vcsw, t->ivcsw, t->minflt + t->majflt,
	    (double)rss / 1024, (double)own_kib / 1024, live / 1048576,
	    t->remote, t->ring_full, t->failed, t->corrupted);
	say("RESULT ops_per_sec=%.0f wall_s=%.6f cpu_s=%.6f user_s=%.6f "
	    "sys_s=%.6f vcsw=%" PRIu64 " ivcsw=%" PRIu64 " minflt=%" PRIu64
	    " majflt=%" PRIu64 " peak_rss_kib=%" PRIu64 " end_rss_kib=%"
	    PRIu64 " own_kib=%" PRIu64 " peak_live_bytes=%.0f remote=%"
	    PRIu64 " ring_full=%" PRIu64 " failed=%" PRIu64 " corrupted=%"
	    PRIu64 "\n",
	    ops, t->wall_s, t->user_s + t->sys_s, t->user_s, t->sys_s,
	    t->vcsw, t->ivcsw, t->minflt, t->majflt, rss, rss_end, own_kib,
	    live, t->remote, t->ring_full, t->failed, t->corrupted);
}

int
main(int argc, char **argv)
{
	struct totals t = { 0 };
	size_t bytes;
	void *base;
	int64_t live = 0;

	parse(argc, argv);
	base = lay_out(&bytes);
	if (pthread_barrier_init(&barrier, NULL, cfg.threads) != 0)
		die("cannot make a barrier for %u threads", cfg.threads);
	for (unsigned i = 0; i < cfg.threads; i++) {
		int err = pthread_create(&workers[i].thread, NULL, work,
					 &workers[i]);

		/* Those that exist wait at the barrier; exit() ends them. */
		if (err)
			die("cannot start thread %u of %u: %s", i + 1,
			    cfg.threads, strerror(err));
	}
	for (unsigned i = 0; i < cfg.threads; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < cfg.threads; i++)
		ring_clear(&rings[i], &live, &t.corrupted);
	add_up(&t);
	report(&t, resident_kib(base, bytes));
	return t.failed || t.corrupted ? 1 : 0;
}
