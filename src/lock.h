/*
 * lock.h - a ranked mutex that fork can look into.
 *
 * The word holds who owns the lock, so that the child of a fork can tell a
 * lock held by the forking thread (which goes on there) from one whose
 * holder is gone.  It calls the futex directly: a preloaded
 * pthread_mutex_lock would come back into malloc.
 *
 * Rank: a thread takes locks only in ascending rank (checked in debug
 * builds); the order is listed in HACKING.md.
 *
 * Layer 0.
 */
#ifndef HZ4_LOCK_H
#define HZ4_LOCK_H

#include "base.h"

enum hz4_rank {
	HZ4_RANK_INIT,
	HZ4_RANK_THREADS,
	HZ4_RANK_CLASS,
	HZ4_RANK_PAGES,
	HZ4_RANK_META,
};

/*
 * Debug builds: a place between a look and the step that relies on it, at
 * which a test may have threads yield, one time in so many.  Nothing else
 * ever sets it. [atomic] relaxed: a test's setting
 */
extern _Atomic unsigned hz4_chaos_one_in;
void hz4_chaos_slow(void);

#define HZ4_CHAOS() \
	do { \
		if (HZ4_DEBUG_BOX && \
		    hz4_unlikely(hz4_peek(&hz4_chaos_one_in) != 0)) \
			hz4_chaos_slow(); \
	} while (0)

struct hz4_lock {
	/*
	 * 0 free, else the owner's mark with bit 0 set when somebody may
	 * sleep.  [atomic] acquire when taken, seq_cst when dropped: a
	 * release, and before what is looked at next (hz4_lock_try).
	 */
	_Atomic uint32_t word;
	uint32_t rank; /* enum hz4_rank [const] */
};

#define HZ4_LOCK_INIT(r) { 0, (r) }

/* This thread's mark in the locks it owns: even, 0 = none given yet. */
extern HZ4_TLS uint32_t hz4_tls_mark;

/* The ranks this thread holds, one bit each; kept in debug builds only. */
extern HZ4_TLS uint32_t hz4_tls_held;

uint32_t hz4_lock_mark_slow(void);

static inline uint32_t
hz4_lock_self(void)
{
	if (hz4_likely(hz4_tls_mark != 0))
		return hz4_tls_mark;
	return hz4_lock_mark_slow();
}

void hz4_lock_wait_slow(struct hz4_lock *l, uint32_t self);
void hz4_lock_wake_slow(struct hz4_lock *l);

/* True when the lock was somebody else's at first. */
static inline bool
hz4_lock_acquire(struct hz4_lock *l)
{
	uint32_t self = hz4_lock_self();
	uint32_t unowned = 0;

	if (HZ4_DEBUG_BOX) {
		HZ4_ASSERT((hz4_tls_held >> l->rank) == 0);
		hz4_tls_held |= 1u << l->rank;
	}
	if (hz4_unlikely(!atomic_compare_exchange_strong_explicit(
		    &l->word, &unowned, self, memory_order_acquire,
		    memory_order_relaxed))) {
		hz4_lock_wait_slow(l, self);
		return true;
	}
	return false;
}

/*
 * The lock, if nobody has it.  seq_cst: who is refused has done before what
 * the holder sees after it has dropped the lock.
 */
static inline bool
hz4_lock_try(struct hz4_lock *l)
{
	uint32_t unowned = 0;

	if (atomic_load(&l->word) != 0 ||
	    !atomic_compare_exchange_strong(&l->word, &unowned,
					    hz4_lock_self()))
		return false;
	if (HZ4_DEBUG_BOX) {
		HZ4_ASSERT((hz4_tls_held >> l->rank) == 0);
		hz4_tls_held |= 1u << l->rank;
	}
	return true;
}

static inline bool
hz4_lock_is_mine(struct hz4_lock *l)
{
	return (hz4_peek(&l->word) & ~1u) == hz4_lock_self();
}

static inline void
hz4_lock_release(struct hz4_lock *l)
{
	uint32_t was;

	if (HZ4_DEBUG_BOX)
		hz4_tls_held &= ~(1u << l->rank);
	was = atomic_exchange(&l->word, 0);
	if (hz4_unlikely(was & 1))
		hz4_lock_wake_slow(l);
}

/*
 * Once there are threads: `word` is 0 in the child of a fork, and `child` is
 * what has to be done there first.  Who would wait for a lock does it, while
 * the child has no other thread: handlers that run before ours may allocate,
 * and wait for threads that are gone.  To be called once.
 */
void hz4_lock_watch_forks(_Atomic uint32_t *word, void (*child)(void));

/*
 * In the child of a fork: true if that has not been done yet; the caller
 * does it now.
 */
bool hz4_lock_in_child(void);

/*
 * In the child of a fork: true when a thread that no longer exists held
 * the lock.  The lock is free then, and what it protected must be started
 * afresh.  A lock that the forking thread itself holds stays held.
 */
bool hz4_lock_fork_child(struct hz4_lock *l);

#endif
