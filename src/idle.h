/*
 * idle.h - emptying the caches of threads that stay away, or have ended.
 *
 * The fast paths take no lock, so nobody but its thread may change a stack.  A
 * thread that sleeps, or only hits, is asked to come by, and what it answers
 * by is a slow path: each begins by looking whether it was asked
 * (hz4_cache_enter).  In three steps, with at least HZ4_IDLE_GRACE between
 * two:
 *
 *   asked     `idle` says so.  Who comes by sees it and says that it is awake.
 *   stopped   Still asked, and the thread is in no slow path: it has not come
 *             by since.  All its stacks are stopped, under the cache's lock,
 *             which it takes from now on before it uses them.
 *   emptied   Still stopped: no call has ended in the fast path since, and one
 *             at most is under way.  Under the lock all objects go but the
 *             latest of each class, which that call may be taking; the others
 *             are not moved, since it may be writing `top`.
 *
 * The grace is what a store needs to be seen by other processors and a load
 * that came before it to be done, with some thousand times to spare; so the
 * thread pays with two plain stores in a slow path instead of a barrier.  How
 * long it is off its processor meanwhile does not matter: what it has done it
 * has done, and the one call that it is in the middle of is allowed for.
 * tests/model/idle.pml.
 *
 * Layer 4.  Takes HZ4_RANK_IDLE, HZ4_RANK_CACHE.
 */
#ifndef HZ4_IDLE_H
#define HZ4_IDLE_H

#include "base.h"

/* A piece of that, when it is time at `now` (ms); never waits. */
void hz4_idle_step(uint64_t now);

/* All caches of threads that stay away; takes a few ms where there are any. */
void hz4_idle_empty_all(void);

/* In the child of a fork, by who starts afresh. */
HZ4_SLOW void hz4_idle_fork_child(void);

#endif
