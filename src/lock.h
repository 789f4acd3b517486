/*
 * lock.h - a ranked mutex that fork can look into.
 *
 * The word holds who owns the lock, so that the child of a fork can tell a
 * lock held by the forking thread (which goes on there) from one whose
 * holder is gone.  It calls the futex directly: a preloaded
 * pthread_mutex_lock would come back into malloc.
 *
 * Forks: a word in memory that the kernel clears in a child tells that this
 * is one which has not been seen to yet.  Whoever comes first to a lock
 * there, or to what is shared without one, starts afresh what gone threads
 * have left, and all others wait for that.  So each lock that is held then
 * is a gone thread's, or that of the thread which forked; whether that one
 * had ever come by before does not matter, nor whether any handler runs.
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
	HZ4_RANK_IDLE,
	HZ4_RANK_CACHE,
	HZ4_RANK_CPU,
	HZ4_RANK_CLASS,
	HZ4_RANK_SAMPLES,
	HZ4_RANK_PAGES,
	HZ4_RANK_META,
};

/*
 * Debug builds: a place between a look and the step that relies on it, at
 * which a test may have threads yield, one time in so many.  Nothing else
 * ever sets it.  Or what a test does there instead: a signal's handler could.
 * [atomic] relaxed: a test's setting
 */
extern _Atomic unsigned hz4_chaos_one_in;
extern void (*_Atomic hz4_chaos_hook)(void);
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

/* What the word that the kernel clears tells. */
enum hz4_forked {
	HZ4_FORK_UNSEEN,   /* a child's, and nobody has come by */
	HZ4_FORK_STARTING, /* somebody starts it afresh: others wait */
	HZ4_FORK_SEEN	   /* no child's, or of one that was started afresh */
};

/*
 * That word; one that nobody clears until there is such memory.  [atomic]
 * release: what the word says comes before
 */
extern _Atomic(_Atomic uint32_t *) hz4_fork_word;

void hz4_fork_look_slow(void);

/*
 * To be called before anything is done to what threads share.  Acquire: who
 * sees that all was started afresh sees what that is.
 */
static inline void
hz4_fork_look(void)
{
	_Atomic uint32_t *word = atomic_load_explicit(&hz4_fork_word,
						      memory_order_acquire);

	if (hz4_unlikely(atomic_load_explicit(word, memory_order_acquire) !=
			 HZ4_FORK_SEEN))
		hz4_fork_look_slow();
}

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

/* A thread waits for itself: ends the process (log.c). */
_Noreturn void hz4_lock_fatal(void);

void hz4_lock_wait_slow(struct hz4_lock *l, uint32_t self);
void hz4_lock_wake_slow(struct hz4_lock *l);

/* True when the lock was somebody else's at first. */
static inline bool
hz4_lock_acquire(struct hz4_lock *l)
{
	uint32_t self, unowned = 0;

	hz4_fork_look();
	self = hz4_lock_self();
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

	hz4_fork_look();
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

/* Sleep for a millisecond; false: it was less, since a signal came. */
bool hz4_lock_nap(void);

/*
 * Once, before there are other threads: `word` is cleared by the kernel in
 * the child of a fork (NULL: there is no such memory), and `child` starts
 * afresh there.  That takes no locks, and may be cut off anywhere by another
 * fork, after which it is called again.
 */
void hz4_fork_watch(_Atomic uint32_t *word, void (*child)(void));

/* In the child of a fork, from the handler that libc calls. */
HZ4_SLOW void hz4_fork_in_child(void);

/*
 * A number that no ancestor of this process has: other than a process id it
 * differs in a child that is process 1 of a namespace, as its parent is.
 */
uint32_t hz4_fork_generation(void);

/*
 * For what one thread at a time does while others go on.  The word holds the
 * generation in which it is being done and 1, or 0: so the child of a fork
 * does not wait for a thread that it does not have.  False: somebody does it,
 * perhaps this very thread, which a signal has interrupted.  seq_cst: who is
 * refused, stores something and is refused once more knows that it is seen
 * by whoever looks for it behind hz4_unclaim.
 */
bool hz4_claim(_Atomic uint32_t *word);
void hz4_unclaim(_Atomic uint32_t *word);

/*
 * Whether the mark is from before the last fork: that of a gone thread, or
 * of the one that forked.
 */
HZ4_SLOW bool hz4_fork_is_old(uint32_t mark);

/* For who starts afresh: whether a thread that is gone held the lock. */
HZ4_SLOW bool hz4_fork_lost(struct hz4_lock *l);

/*
 * Have such a lock, or a free one, while what it protects is changed: the
 * child of yet another fork finds out by it that this was cut off.
 */
HZ4_SLOW void hz4_fork_seize(struct hz4_lock *l);
HZ4_SLOW void hz4_fork_drop(struct hz4_lock *l);

#endif
