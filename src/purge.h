/*
 * purge.h - when free memory goes back to the kernel.
 *
 * Free pages beyond an allowance are purged once they have been free for
 * `purge_delay` ms, on the time of ordinary calls.  So that such a call is
 * made (the fast paths know no clock), all threads are nudged when pages
 * begin to wait: cache.h.
 *
 * Layer 3.  Decides; heap.c acts.
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
 * For a caller who sees pages pending: true for the one that has to nudge
 * all threads, since that has not been done for HZ4_PURGE_NUDGES ms.  Who is
 * refused nudges itself, so that nothing is forgotten.
 */
bool hz4_purge_arm(uint64_t now);

/*
 * True for the one caller that has to nudge all threads because idle
 * classes are due to decay.  Spans that were left to others (spans.h) are
 * seen to then, so that they count as idle and get old.
 */
bool hz4_purge_decay_arm(uint64_t now);

/*
 * How often all threads were asked to flush their caches, and to let idle
 * classes decay.  A thread whose own number differs has yet to do so.
 */
uint32_t hz4_purge_flushes(void);
uint32_t hz4_purge_decays(void);

/* Ask for a flush; the caller nudges. */
void hz4_purge_ask_flush(void);

/* Purge what is due at `now`, a bounded piece of it. */
void hz4_purge_run(uint64_t now);

/* Purge everything free; returns the bytes given back. */
size_t hz4_purge_all(void);

/* The system has refused memory: give back address space too. */
void hz4_purge_exhausted(void);

#endif
