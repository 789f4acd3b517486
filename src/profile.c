/*
 * profile.c - sampling by bytes.
 *
 * Which.  Each thread draws how many bytes it allocates until the next sample,
 * from an exponential distribution with the mean `rate`; the object in which
 * they run out is taken.  So an object of n bytes is taken with the
 * probability 1 - exp(-n / rate) whatever came before, and what is read from
 * the samples divided by it has the right mean.  With the rate 1 all objects
 * are taken.
 *
 * Where.  The fast paths count nothing.  While sampling is on the lower end of
 * each stack lies above every address, as it does for a thread that watches
 * (stacks.h): so every malloc comes to hz4_heap_malloc_slow, which counts its
 * bytes and, where none is due, pops from the same stack: some 20 instructions
 * more than a hit.  A window in the stack instead, that ends where the bytes
 * do, would not see a loop of malloc and free at its top: such a loop never
 * goes deeper.  free stays as it is.
 *
 * Known again.  A sampled object lies among its like, in pages of which the
 * fast path of free knows no stack (samples.h).
 *
 * A thread begins to sample when it comes by after the start: at once, since
 * that one raises the ends of all threads.  The one store that may be lost, to
 * an owner that sets the same end just then, costs no more than the delay to
 * its next slow path.  The stop raises them, too, and then each class is as
 * before from its next malloc on.
 *
 * A call that comes while its thread takes a sample, from the unwinder or from
 * a signal's handler, is none; nor is one that comes while a stack is closed.
 * Guards (guard.h) are counted in the same place, by calls.
 *
 * A dump is asked for by options, by hz4.h or by a signal, and takes no lock.
 */
#include "profile.h"

#include "backtrace.h"
#include "file.h"
#include "guard.h"
#include "large.h"
#include "leaks.h"
#include "lock.h"
#include "log.h"
#include "option.h"
#include "probe.h"
#include "samples.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>

enum { DEFAULT_RATE = 512 * 1024 };

static struct {
	/* All [atomic] relaxed: each value stands for itself */
	_Atomic uint64_t rate;	    /* 0: never started */
	_Atomic bool on;	    /* samples are taken */
	_Atomic uint32_t guards;    /* one in so many; 0 none */
	_Atomic uint32_t starts;
	_Atomic uint64_t allocated; /* bytes, by samples */
	_Atomic uint64_t peak;	    /* of live bytes, as last dumped */
	_Atomic uint64_t seeds;
} profile;

/* --- chance ---------------------------------------------------------- */

/* Another state, and a number that looks like none before. */
static uint64_t
next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* The natural logarithm; libm is not needed for it. */
static double
logarithm(uint64_t n)
{
	unsigned bit = 63 - (unsigned)__builtin_clzll(n), k;
	double m = (double)n / (double)(UINT64_C(1) << bit);
	double y = (m - 1) / (m + 1), power = y, sum = 0;

	for (k = 1; k < 20; k += 2) {
		sum += power / k;
		power *= y * y;
	}
	return 2 * sum + bit * 0.69314718055994530942;
}

/* Bytes to the next sample. */
static int64_t
draw(struct hz4_sampler *s, uint64_t rate)
{
	const unsigned bits = 53;
	uint64_t n = (next_random(&s->random) >> (64 - bits)) + 1;

	if (rate <= 1)
		return 0;
	return (int64_t)((bits * 0.69314718055994530942 - logarithm(n)) *
			 (double)rate);
}

/* 1 - exp(-size / rate). */
static double
chance_of(size_t size, uint64_t rate)
{
	double x = (double)size / (double)rate, y;
	unsigned halves = 0;

	if (rate <= 1 || x > 40)
		return 1;
	for (; x > 0.001; halves++)
		x /= 2;
	y = x - x * x / 2 + x * x * x / 6;
	while (halves-- > 0)
		y *= 2 - y;
	return y;
}

static void
seed(struct hz4_sampler *s)
{
	uint64_t base = hz4_option(HZ4_OPT_profile_seed);
	const void *random = (const void *)getauxval(AT_RANDOM);

	if (base == 0 && random != NULL)
		memcpy(&base, random, sizeof base);
	base += atomic_fetch_add_explicit(&profile.seeds, 1,
					  memory_order_relaxed) << 32;
	s->random = next_random(&base) | 1;
}

static void
start_way(struct hz4_sampler *s)
{
	s->drawn = s->left = hz4_peek(&profile.on) ?
				     draw(s, hz4_peek(&profile.rate)) :
				     INT64_MAX;
}

/* Calls to the next guard; as often each number up to twice the mean. */
static void
start_calls(struct hz4_sampler *s)
{
	uint32_t mean = hz4_peek(&profile.guards);

	s->calls = mean == 0 ? UINT64_MAX :
			       next_random(&s->random) %
				       (2 * (uint64_t)mean - 1);
}

/* The first way of the thread since the start, or the stop. */
static void
join(struct hz4_sampler *s, uint32_t generation)
{
	if (s->random == 0)
		seed(s);
	s->generation = generation;
	start_way(s);
	start_calls(s);
}

/* --- when to dump ---------------------------------------------------- */

static bool
passes_interval(uint64_t bytes)
{
	uint64_t step = (uint64_t)hz4_option(HZ4_OPT_profile_interval) << 20;
	uint64_t before = atomic_fetch_add_explicit(
		&profile.allocated, bytes, memory_order_relaxed);

	return step != 0 && before / step != (before + bytes) / step;
}

static bool
passes_peak(void)
{
	uint64_t step = (uint64_t)hz4_option(HZ4_OPT_profile_peak) << 20;
	uint64_t live = hz4_samples_live(), peak = hz4_peek(&profile.peak);

	return step != 0 && live > peak && live - peak >= step &&
	       atomic_compare_exchange_strong_explicit(
		       &profile.peak, &peak, live, memory_order_relaxed,
		       memory_order_relaxed);
}

static void
look_at_marks(uint64_t bytes)
{
	bool peak = passes_peak();

	if (passes_interval(bytes) || peak)
		hz4_profile_write(NULL);
}

/* --- taking ---------------------------------------------------------- */

static void *
take_large(size_t size, size_t room, size_t align, bool zero,
	   struct hz4_site *site)
{
	void *p = hz4_large_alloc(room, align, zero);

	if (p == NULL)
		return NULL;
	if (room > size)
		hz4_large_ask(p, size);
	hz4_samples_note(hz4_large_sample(p), site, size);
	return p;
}

static struct hz4_site *
find_site(struct hz4_sampler *s, const struct hz4_caller *from)
{
	uintptr_t frames[HZ4_BACKTRACE_MOST];
	unsigned n = hz4_backtrace(frames, HZ4_BACKTRACE_MOST, from, s);

	return hz4_samples_site(frames, n);
}

static void *
take_object(size_t size, size_t room, size_t align, bool zero,
	    struct hz4_site *site)
{
	unsigned cls = hz4_sizeclass_aligned(room, align);

	if (cls == HZ4_CLS_NONE)
		return take_large(size, room, align, zero, site);
	return hz4_samples_take(cls, site, size);
}

static void *
take_sample(struct hz4_sampler *s, size_t size, size_t room, size_t align,
	    bool zero, const struct hz4_caller *from)
{
	uint64_t bytes = (uint64_t)s->drawn - (uint64_t)s->left;
	bool on = hz4_peek(&profile.on);
	void *p = NULL;

	if (on)
		p = take_object(size, room, align, zero, find_site(s, from));
	start_way(s);
	if (on)
		look_at_marks(bytes);
	return p;
}

/* NULL as well where it is not time for one. */
static void *
take_guarded(struct hz4_sampler *s, size_t size, size_t align,
	     const struct hz4_caller *from)
{
	if (s->calls > 0)
		return NULL;
	start_calls(s);
	return hz4_peek(&profile.guards) == 0 ?
		       NULL : hz4_guard_take(size, align, from, s);
}

/* Its cache, if the calling thread may take a sample now. */
static struct hz4_cache *
sampling_cache(void)
{
	struct hz4_cache *c;

	hz4_thread_start();
	c = hz4_thread_cache();
	if (c == NULL || hz4_peek(&c->busy) != HZ4_CLS_NONE ||
	    c->sampler.inside)
		return NULL;
	return c;
}

/*
 * Whether this call is the thread's first one, and it goes on.  `had`: it had
 * a cache before; else nothing is counted, also if it has taken over another
 * thread's, which had joined.
 */
static bool
joins(struct hz4_sampler *s, size_t size, bool had)
{
	/* Acquire: pairs with begin_anew. */
	uint32_t generation = atomic_load_explicit(&hz4_sampling,
						   memory_order_acquire);

	if (s->generation != generation)
		join(s, generation);
	else if (had)
		return false;
	return !hz4_profile_count(s, size);
}

static bool
has_cache(void)
{
	return hz4_tls_cache != &hz4_empty_cache;
}

HZ4_SLOW void *
hz4_profile_take(size_t size, size_t room, size_t align, bool zero,
		 const struct hz4_caller *from)
{
	bool had = has_cache();
	struct hz4_cache *c = sampling_cache();
	struct hz4_sampler *s;
	int saved = errno;
	void *p;

	if (c == NULL || size == 0 || size > PTRDIFF_MAX)
		return NULL;
	s = &c->sampler;
	if (joins(s, size, had))
		return NULL;
	s->inside = true;
	p = take_guarded(s, size, align, from);
	if (p == NULL && s->left < 0)
		p = take_sample(s, size, room, align, zero, from);
	s->inside = false;
	errno = saved;
	if (p != NULL) {
		HZ4_PROBE2(sample, p, size);
		hz4_thread_count(HZ4_CLS_RUN, HZ4_COUNT_malloc_sampled);
	}
	return p;
}

void
hz4_profile_resized(void *p, size_t size, const struct hz4_caller *from)
{
	struct hz4_sample *sample = hz4_large_sample(p);
	bool had = has_cache();
	struct hz4_cache *c;
	int saved = errno;

	if (!hz4_peek(&profile.on))
		return;
	if (sample->site != NULL)
		hz4_samples_drop(sample);
	if (!hz4_profile_due(size) || (c = sampling_cache()) == NULL ||
	    joins(&c->sampler, size, had) || c->sampler.left >= 0)
		return;
	c->sampler.inside = true;
	hz4_samples_note(sample, find_site(&c->sampler, from), size);
	start_way(&c->sampler);
	c->sampler.inside = false;
	errno = saved;
}

/*
 * One that shrinks stays a sample as often as if it had been asked for so at
 * once.  One that grows is one, and those that are none cannot be found.
 */
void
hz4_profile_kept(void *p, size_t size)
{
	size_t asked = hz4_guard_owns(p) ? 0 : hz4_samples_asked(p);
	uint64_t rate = hz4_peek(&profile.rate);
	struct hz4_cache *c = hz4_thread_cache();
	double keep;

	if (asked == 0 || c == NULL)
		return;
	keep = chance_of(size, rate) / chance_of(asked, rate);
	hz4_samples_resize(p, size,
			   (double)(next_random(&c->sampler.random) >> 11) <
				   keep * (double)(UINT64_C(1) << 53));
}

/* --- on and off ------------------------------------------------------ */

static void
close_stacks(struct hz4_cache *c, void *arg)
{
	unsigned cls;

	(void)arg;
	for (cls = 1; cls < HZ4_CLS_END; cls++)
		hz4_poke(&c->stack[cls].low, HZ4_STOP);
}

/* All threads are to draw anew, if there is anything to be drawn. */
static void
begin_anew(void)
{
	uint32_t generation = 0;

	while (generation == 0)
		generation = 1 + atomic_fetch_add_explicit(
					 &profile.starts, 1,
					 memory_order_relaxed);
	if (!hz4_peek(&profile.on) && hz4_peek(&profile.guards) == 0)
		generation = 0;
	/* Release: the unwinder and the tables are there. */
	atomic_store_explicit(&hz4_sampling, generation,
			      memory_order_release);
	hz4_thread_each(close_stacks, NULL);
}

bool
hz4_profile_on(uint64_t rate)
{
	if (rate == 0)
		rate = DEFAULT_RATE;
	if (!hz4_option(HZ4_OPT_frame_pointers))
		hz4_backtrace_start();
	if (!hz4_samples_start(hz4_option(HZ4_OPT_profile_stacks)))
		return false;
	if (hz4_peek(&profile.rate) != rate)
		hz4_samples_reset(rate);
	hz4_poke(&profile.rate, rate);
	hz4_poke(&profile.on, true);
	begin_anew();
	return true;
}

static bool
start_guards(size_t mean)
{
	if (!hz4_guard_start())
		return false;
	hz4_poke(&profile.guards, (uint32_t)mean);
	begin_anew();
	return true;
}

uint64_t
hz4_profile_rate(void)
{
	return hz4_peek(&profile.rate);
}

void
hz4_profile_off(void)
{
	hz4_poke(&profile.on, false);
	begin_anew();
}

void
hz4_profile_forget(void)
{
	if (hz4_peek(&profile.rate) == 0)
		return;
	hz4_samples_reset(hz4_peek(&profile.rate));
	hz4_poke(&profile.peak, 0);
}

static void
on_signal(int signal)
{
	(void)signal;
	hz4_profile_write(NULL);
}

static void
install_handler(int signal)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART | SA_ONSTACK;
	memset(&action.sa_mask, 0xff, sizeof action.sa_mask);
	if (sigaction(signal, &action, NULL) != 0)
		hz4_log("profile_signal: no handler for signal %d", signal);
}

/* hz4_default_options may ask where the environment must not. */
void
hz4_profile_begin(void)
{
	int saved = errno;
	uint64_t rate = hz4_option(HZ4_OPT_profile);
	bool leaks = hz4_option(HZ4_OPT_leaks) != 0;
	size_t guards = hz4_option(HZ4_OPT_guards);
	int signal = (int)hz4_option(HZ4_OPT_profile_signal);

	if (rate == 0 && leaks)
		rate = 1;
	if ((rate == 0 && signal == 0 && guards == 0) ||
	    getauxval(AT_SECURE))
		return;
	hz4_file_note_directory();
	hz4_profile_note_start();
	if (signal != 0)
		install_handler(signal);
	if (rate != 0 && !hz4_profile_on(rate))
		hz4_log("profile: no memory");
	if (guards != 0 && !start_guards(guards))
		hz4_log("guards: no memory");
	errno = saved;
}

bool
hz4_profile_end(void)
{
	bool leaks = hz4_option(HZ4_OPT_leaks) != 0;
	int saved = errno;

	if (!hz4_peek(&profile.on))
		return false;
	/* For the leaks alone nobody has asked for a file. */
	if (hz4_option(HZ4_OPT_profile_exit) &&
	    (!leaks || hz4_option(HZ4_OPT_profile) != 0))
		hz4_profile_write(NULL);
	leaks = leaks && hz4_leaks_tell();
	errno = saved;
	return leaks;
}
