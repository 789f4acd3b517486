/*
 * purge.h - when free memory goes back to the kernel.
 *
 * Free pages beyond an allowance are purged once they have been free for
 * `purge_delay` ms, on the time of ordinary slow paths.  The fast paths know
 * no clock: where pages wait one thread watches (stacks.h), so that they go
 * even if no thread has a slow path any more.
 *
 * Layer 3.  Decides; upkeep.c acts.  Takes HZ4_RANK_CLASS, HZ4_RANK_PAGES.
 */
#ifndef HZ4_PURGE_H
#define HZ4_PURGE_H

#include "base.h"

/* More free pages are resident than the allowance; no lock, no clock. */
bool hz4_purge_pending(void);

/*
 * Pending, the oldest pages are old enough at `now` (ms), and the last purge
 * is a while ago or did not come to its end.
 */
bool hz4_purge_due(uint64_t now);

/*
 * For whoever sees pages pending, before it asks whether they are due.  When
 * nobody did for most of the delay the threads have slept, and may use what
 * they have left: as much as they took and freed after the last sleep, and
 * after the one before, too.  The next purge leaves that; if there is no more,
 * its age starts again now.
 */
void hz4_purge_wake(uint64_t now);

/*
 * For a caller who sees pages pending: true for the one that has to watch for
 * a while.  It says so when it goes on, and when nothing waits any more.
 */
bool hz4_purge_watch(uint64_t now);
void hz4_purge_watch_on(uint64_t now);
void hz4_purge_watch_end(void);

/*
 * True for the one caller that sees to what lies idle between the threads:
 * the CPUs' caches.  Spans that were left to others (spans.h) are seen to
 * then, so that they count as idle and get old, and the system is asked
 * whether memory is pinned.
 */
bool hz4_purge_decay_arm(uint64_t now);

/*
 * From now on so many free bytes may stay resident whatever their age, a
 * MiB at least.
 */
void hz4_purge_allow(size_t bytes);

/*
 * Purge what is due at `now`, a bounded piece of it; whether the last one did
 * not come to its end.
 */
void hz4_purge_run(uint64_t now);
bool hz4_purge_goes_on(void);

/* Purge everything free; returns the bytes given back. */
size_t hz4_purge_all(void);

/* The system has refused memory: give back address space too. */
void hz4_purge_exhausted(void);

#endif
