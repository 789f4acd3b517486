/*
 * lock.c - the slow half of the mutex: spinning, sleeping, waking, fork.
 */
#include "lock.h"

#include "tune.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
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

/* Marks given so far. [atomic] relaxed: only uniqueness counts. */
static _Atomic uint32_t marks;

/* What the word of hz4_lock_watch_forks tells. */
enum {
	CHILD,	  /* of a fork, with its one thread, and not started afresh */
	STARTED,  /* no child, or one that has been started afresh */
	STARTING, /* afresh: a thread that is new waits */
	TOO_LATE  /* a child with new threads: no work for who waits */
};

static struct {
	void (*child)(void); /* [const] once there is a word */
	/* [atomic] release: `child` comes before */
	_Atomic(_Atomic uint32_t *) word;
	/* Children before there was one. [atomic] relaxed: one thread's */
	_Atomic unsigned early;
} forks;

void
hz4_lock_watch_forks(_Atomic uint32_t *word, void (*child)(void))
{
	unsigned early = hz4_peek(&forks.early);

	hz4_poke(word, STARTED);
	forks.child = child;
	atomic_store_explicit(&forks.word, word, memory_order_release);
	/* A signal handler has forked just now, and this is the child. */
	if (hz4_peek(&forks.early) != early)
		hz4_poke(word, STARTED);
}

bool
hz4_lock_in_child(void)
{
	_Atomic uint32_t *word = atomic_load_explicit(&forks.word,
						      memory_order_acquire);
	uint32_t seen;

	if (word == NULL) {
		hz4_poke(&forks.early, hz4_peek(&forks.early) + 1);
		return true;
	}
	seen = hz4_peek(word);
	hz4_poke(word, STARTED);
	return seen != STARTED;
}

/* A lock is held: by a thread that is gone, if this is a child's only one. */
static void
start_child(void)
{
	_Atomic uint32_t *word = atomic_load_explicit(&forks.word,
						      memory_order_acquire);
	uint32_t seen = CHILD;

	if (word == NULL || hz4_peek(word) != CHILD ||
	    !atomic_compare_exchange_strong(word, &seen, STARTING))
		return;
	forks.child();
	atomic_store(word, STARTED);
}

/* A thread that is new, so that a child has more than its first. */
static void
note_thread(void)
{
	_Atomic uint32_t *word = atomic_load_explicit(&forks.word,
						      memory_order_acquire);
	uint32_t seen = CHILD;

	if (word == NULL ||
	    atomic_compare_exchange_strong(word, &seen, TOO_LATE))
		return;
	while (atomic_load(word) == STARTING)
		syscall(SYS_sched_yield);
}

HZ4_SLOW uint32_t
hz4_lock_mark_slow(void)
{
	note_thread();
	while (hz4_tls_mark == 0)
		hz4_tls_mark = atomic_fetch_add_explicit(
				       &marks, 2, memory_order_relaxed) + 2;
	return hz4_tls_mark;
}

HZ4_SLOW void
hz4_chaos_slow(void)
{
	static _Atomic uint32_t calls;
	uint32_t n = atomic_fetch_add_explicit(&calls, 1,
					       memory_order_relaxed);

	/* Spread, so that no place is always the one that yields. */
	if ((n * 2654435769u >> 16) % hz4_peek(&hz4_chaos_one_in) == 0)
		syscall(SYS_sched_yield);
}

static void
futex(_Atomic uint32_t *word, int op, uint32_t value)
{
	int saved = errno;

	syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
	errno = saved;
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
	uint32_t seen;
	int i;

	for (i = 0; i < HZ4_LOCK_SPINS; i++) {
		if (take(l, self))
			return;
		relax();
	}
	start_child();
	/*
	 * Whoever has slept takes the lock with the sleeper's bit set, since
	 * others may still sleep; one needless wake-up is the price.
	 */
	while (!take(l, self | 1)) {
		seen = hz4_peek(&l->word);
		if (seen == 0)
			continue;
		HZ4_CHAOS();
		if (!(seen & 1) &&
		    !atomic_compare_exchange_strong_explicit(
			    &l->word, &seen, seen | 1, memory_order_relaxed,
			    memory_order_relaxed))
			continue;
		futex(&l->word, FUTEX_WAIT, seen | 1);
	}
}

HZ4_SLOW void
hz4_lock_wake_slow(struct hz4_lock *l)
{
	futex(&l->word, FUTEX_WAKE, 1);
}

bool
hz4_lock_fork_child(struct hz4_lock *l)
{
	uint32_t was = hz4_peek(&l->word);

	if (was == 0)
		return false;
	if ((was & ~1u) == hz4_lock_self()) {
		/* No sleeper came along. */
		hz4_poke(&l->word, hz4_lock_self());
		return false;
	}
	hz4_poke(&l->word, 0);
	return true;
}
