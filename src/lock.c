/*
 * lock.c - the slow half of the mutex: spinning, sleeping, waking, fork.
 */
#include "lock.h"

#include "probe.h"
#include "sys.h"
#include "tune.h"

#include <errno.h>
#include <linux/futex.h>
#include <unistd.h>

/* Tell the processor that this is a spin loop. */
#if defined(__x86_64__) || defined(__i386__)
#define relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield" ::: "memory")
#else
#define relax() atomic_signal_fence(memory_order_seq_cst)
#endif

HZ4_TLS uint32_t hz4_tls_mark;
HZ4_TLS uint32_t hz4_tls_held;

_Atomic unsigned hz4_chaos_one_in;
void (*_Atomic hz4_chaos_hook)(void);

/* Marks given so far. [atomic] relaxed: only uniqueness counts. */
static _Atomic uint32_t marks;

/* For want of memory that the kernel clears. [const] */
static _Atomic uint32_t never_cleared = HZ4_FORK_SEEN;

_Atomic(_Atomic uint32_t *) hz4_fork_word = &never_cleared;

/* [atomic] relaxed: whoever starts afresh, before it releases the word */
static struct {
	void (*child)(void);		/* [const] */
	_Atomic uint32_t starter;	/* its mark, meanwhile */
	_Atomic uint32_t last_old;	/* the last mark from before */
	_Atomic uint32_t generation;
} forks;

/* Even, and never 0. */
static void
give_mark(void)
{
	while (hz4_tls_mark == 0)
		hz4_tls_mark = atomic_fetch_add_explicit(
				       &marks, 2, memory_order_relaxed) + 2;
}

/*
 * A thread that has no mark yet may be the one that forked, or new in the
 * child: it counts as new.
 */
HZ4_SLOW static void
start_afresh(void)
{
	hz4_poke(&forks.last_old, hz4_peek(&marks));
	give_mark();
	hz4_poke(&forks.starter, hz4_tls_mark);
	hz4_poke(&forks.generation, hz4_peek(&forks.generation) + 1);
	forks.child();
	hz4_poke(&forks.starter, 0);
}

/*
 * A signal's handler may have interrupted start_afresh and forked: what that
 * does is right for the new child, too, since all others have waited, and it
 * goes on when the handler returns.
 */
HZ4_SLOW void
hz4_fork_look_slow(void)
{
	_Atomic uint32_t *word = atomic_load_explicit(&hz4_fork_word,
						      memory_order_acquire);
	int saved = errno;
	uint32_t seen;

	for (;;) {
		/*
		 * As a write: a child has no page there yet, and would have a
		 * fault for the load, too.  Pairs with the release below.
		 */
		seen = HZ4_FORK_SEEN;
		atomic_compare_exchange_strong(word, &seen, seen);
		if (seen == HZ4_FORK_SEEN ||
		    (hz4_tls_mark != 0 &&
		     hz4_peek(&forks.starter) == hz4_tls_mark))
			break;
		if (seen == HZ4_FORK_STARTING) {
			hz4_syscall(SYS_sched_yield, 0);
			continue;
		}
		if (!atomic_compare_exchange_strong(word, &seen,
						    HZ4_FORK_STARTING))
			continue;
		start_afresh();
		atomic_store_explicit(word, HZ4_FORK_SEEN,
				      memory_order_release);
	}
	errno = saved;
}

void
hz4_fork_watch(_Atomic uint32_t *word, void (*child)(void))
{
	forks.child = child;
	if (word == NULL)
		return;
	hz4_poke(word, HZ4_FORK_SEEN);
	atomic_store_explicit(&hz4_fork_word, word, memory_order_release);
}

void
hz4_fork_in_child(void)
{
	if (hz4_peek(&hz4_fork_word) == &never_cleared)
		start_afresh();
	else
		hz4_fork_look_slow();
}

uint32_t
hz4_fork_generation(void)
{
	hz4_fork_look();
	return hz4_peek(&forks.generation);
}

bool
hz4_claim(_Atomic uint32_t *word)
{
	uint32_t self = hz4_fork_generation() + 1;
	uint32_t other = atomic_load(word);

	return other != self &&
	       atomic_compare_exchange_strong(word, &other, self);
}

void
hz4_unclaim(_Atomic uint32_t *word)
{
	atomic_store(word, 0);
}

/* By difference, since marks begin again one day. */
bool
hz4_fork_is_old(uint32_t mark)
{
	return (int32_t)(hz4_peek(&forks.last_old) - mark) >= 0;
}

/* The first look comes before the mark: only then it counts as new. */
HZ4_SLOW uint32_t
hz4_lock_mark_slow(void)
{
	hz4_fork_look();
	give_mark();
	return hz4_tls_mark;
}

HZ4_SLOW void
hz4_chaos_slow(void)
{
	static _Atomic uint32_t calls;
	uint32_t n = atomic_fetch_add_explicit(&calls, 1,
					       memory_order_relaxed);
	void (*hook)(void) = hz4_peek(&hz4_chaos_hook);

	if (hook != NULL) {
		hook();
		return;
	}
	/* Spread, so that no place is always the one that yields. */
	if ((n * 2654435769u >> 16) % hz4_peek(&hz4_chaos_one_in) == 0)
		hz4_syscall(SYS_sched_yield, 0);
}

/*
 * Sleeps for a time only: a signal's handler may fork just before, and in
 * the child nobody would wake it.  The kernel's timespec, in longs.  Returns
 * the error, 0 without one.
 */
static int
futex(_Atomic uint32_t *word, int op, uint32_t value, const long *patience)
{
	int saved = errno, error = 0;

	if (hz4_syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value,
			patience) < 0)
		error = errno;
	errno = saved;
	return error;
}

bool
hz4_lock_nap(void)
{
	static const long time[2] = { 0, 1000000 };
	_Atomic uint32_t word = 0;

	return futex(&word, FUTEX_WAIT, 0, time) == ETIMEDOUT;
}

static bool
take(struct hz4_lock *l, uint32_t mark)
{
	uint32_t unowned = 0;

	/* Acquire: pairs with hz4_lock_release. */
	return hz4_peek(&l->word) == 0 &&
	       atomic_compare_exchange_strong_explicit(
		       &l->word, &unowned, mark, memory_order_acquire,
		       memory_order_relaxed);
}

HZ4_SLOW void
hz4_lock_wait_slow(struct hz4_lock *l, uint32_t self)
{
	static const long patience[2] = { HZ4_LOCK_PATIENCE, 0 };
	uint32_t seen;
	int i;

	if (hz4_lock_is_mine(l))
		hz4_lock_fatal();
	for (i = 0; i < HZ4_LOCK_SPINS; i++) {
		if (take(l, self))
			return;
		relax();
	}
	for (i = 0; i < HZ4_LOCK_YIELDS; i++) {
		hz4_syscall(SYS_sched_yield, 0);
		if (take(l, self))
			return;
	}
	/*
	 * Whoever has slept takes the lock with the sleeper's bit set, since
	 * others may still sleep; one needless wake-up is the price.
	 */
	while (!take(l, self | 1)) {
		hz4_fork_look();
		seen = hz4_peek(&l->word);
		if (seen == 0)
			continue;
		HZ4_CHAOS();
		if (!(seen & 1) &&
		    !atomic_compare_exchange_strong_explicit(
			    &l->word, &seen, seen | 1, memory_order_relaxed,
			    memory_order_relaxed))
			continue;
		HZ4_PROBE1(lock_wait, l);
		futex(&l->word, FUTEX_WAIT, seen | 1, patience);
	}
}

HZ4_SLOW void
hz4_lock_wake_slow(struct hz4_lock *l)
{
	futex(&l->word, FUTEX_WAKE, 1, NULL);
}

bool
hz4_fork_lost(struct hz4_lock *l)
{
	uint32_t was = hz4_peek(&l->word);

	if (was == 0)
		return false;
	if ((was & ~1u) != hz4_lock_self())
		return true;
	/* No sleeper came along. */
	hz4_poke(&l->word, hz4_lock_self());
	return false;
}

void
hz4_fork_seize(struct hz4_lock *l)
{
	hz4_poke(&l->word, hz4_lock_self());
}

void
hz4_fork_drop(struct hz4_lock *l)
{
	atomic_store_explicit(&l->word, 0, memory_order_release);
}
