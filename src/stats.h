/*
 * stats.h - the counters of --enable-stats; folds to nothing without.
 *
 * Layer 1: the types and the counting.  Summing over threads is info.c's.
 */
#ifndef HZ4_STATS_H
#define HZ4_STATS_H

#include "base.h"

enum hz4_counter {
#define HZ4_COUNTER(name, serves, text) HZ4_COUNT_##name,
#include "stats.def"
#undef HZ4_COUNTER
	HZ4_COUNTERS
};

/* What is reported: two sums, then the rows.  Nothing without the box. */
enum {
	HZ4_STAT_MALLOC_CALLS,
	HZ4_STAT_FREE_CALLS,
	HZ4_STAT_FIRST_ROW,
	HZ4_STAT_END = HZ4_STAT_FIRST_ROW + HZ4_COUNTERS,
	HZ4_STATS = HZ4_MID_STATS_B1 ? HZ4_STAT_END : 0
};

/*
 * What the fast paths count, next to what they touch anyway.  The members
 * of a structure that has none of them cannot be left out by an array's
 * length: hence the one condition here.
 */
enum hz4_hit { HZ4_HIT_MALLOC, HZ4_HIT_FREE, HZ4_HITS };

#if HZ4_MID_STATS_B1
/* [owner] writes; [atomic] relaxed, so that others may read. */
#define HZ4_HITS_MEMBER _Atomic uint64_t hit[HZ4_HITS];
#define hz4_hits(s, which) (&(s)->hit[which])
#else
#define HZ4_HITS_MEMBER
#define hz4_hits(s, which) ((void)(s), (_Atomic uint64_t *)NULL)
#endif

/* One thread's counts for one size class. */
struct hz4_counts {
	/* [owner] writes; [atomic] relaxed, so that others may read. */
	_Atomic uint64_t value[HZ4_MID_STATS_B1 ? HZ4_COUNTERS : 1];
};

HZ4_FAST void
hz4_count(struct hz4_counts *counts, size_t cls, enum hz4_counter which,
	  uint64_t n)
{
	_Atomic uint64_t *v;

	if (HZ4_MID_STATS_B1) {
		v = &counts[cls].value[which];
		hz4_poke(v, hz4_peek(v) + n);
	}
}

HZ4_FAST void
hz4_count_hit(_Atomic uint64_t *hits)
{
	if (HZ4_MID_STATS_B1)
		hz4_poke(hits, hz4_peek(hits) + 1);
}

/* Add counts to what is reported, an array of HZ4_STATS values. */
void hz4_stat_add(uint64_t *stats, const struct hz4_counts *counts);

/* Name of a reported value; NULL past the last one. */
const char *hz4_stat_name(unsigned which);

#endif
