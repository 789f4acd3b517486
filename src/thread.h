/*
 * thread.h - what every thread has, from its first call to after its end.
 *
 * Layer 4.  Takes HZ4_RANK_INIT, HZ4_RANK_THREADS.
 */
#ifndef HZ4_THREAD_H
#define HZ4_THREAD_H

#include "cache.h"

/*
 * The calling thread's cache.  Preset to the static empty one, and that
 * again after the thread's end.
 */
extern HZ4_TLS struct hz4_cache *hz4_tls_cache;

/*
 * The same for C++'s operators (cxx.c): the thread's cache only once it is
 * known that the program has none of its own, the empty one before, and for
 * ever if it has.
 */
extern HZ4_TLS struct hz4_cache *hz4_tls_operators;

/*
 * The calling thread's cache, made now when there is none.  NULL while it
 * is being made (libc may allocate then), after the thread's end, and
 * without memory: the caller works on the spans directly.
 */
struct hz4_cache *hz4_thread_cache(void);

/*
 * The same for who frees, NULL as well for a thread's first HZ4_FIRST_FREES
 * objects if it has asked for none: libc frees what was a thread's after its
 * last destructor has run.
 */
struct hz4_cache *hz4_thread_cache_to_free(void);

/* Make sure that size classes and options are ready. */
void hz4_thread_start(void);

/* Give back what the caches of ended threads hold. */
void hz4_thread_flush_ended(void);

/*
 * Call `visit` for the cache of every thread, and of every one that ended,
 * with the list locked: visit must not allocate or wait.
 */
void hz4_thread_each(void (*visit)(struct hz4_cache *c, void *arg),
		     void *arg);

/*
 * The caches there are, those of ended threads among them: NULL comes before
 * the latest one, and after the first.  No lock: none ever goes away.
 */
struct hz4_cache *hz4_thread_next(const struct hz4_cache *c);

/* Objects of a class taken without a cache less those given back so. */
int64_t hz4_thread_bare_net(unsigned cls);
void hz4_thread_add_bare(unsigned cls, int64_t n);

/* What was counted for want of a cache (--enable-stats). */
const struct hz4_counts *hz4_thread_bare_counts(unsigned cls);

/*
 * Count an event of a slow path, in the thread's cache when it has one.
 * Never makes a cache.
 */
void hz4_thread_count_slow(unsigned cls, enum hz4_counter which);

HZ4_FAST void
hz4_thread_count(unsigned cls, enum hz4_counter which)
{
	if (HZ4_MID_STATS_B1)
		hz4_thread_count_slow(cls, which);
}

#endif
