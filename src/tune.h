/*
 * tune.h - every constant that was chosen by measuring, with its unit and
 * the reason.  The figures behind them stand in HACKING.md, "Figures".
 *
 * Layer 0.
 */
#ifndef HZ4_TUNE_H
#define HZ4_TUNE_H

#include "base.h"

/* What configure has checked; a config.h may be written by hand, too. */
#if HZ4_MID_DUAL_TIER_L0_LIMIT < 1 || HZ4_MID_DUAL_TIER_L0_LIMIT > 16
#error "HZ4_MID_DUAL_TIER_L0_LIMIT must be from 1 to 16"
#endif
#if HZ4_MID_DUAL_TIER_L0_REFILL_BATCH < 1 || \
	HZ4_MID_DUAL_TIER_L0_REFILL_BATCH > HZ4_MID_DUAL_TIER_L0_LIMIT
#error "HZ4_MID_DUAL_TIER_L0_REFILL_BATCH must be from 1 to the L0 limit"
#endif
#if HZ4_MID_ALLOC_RUN_LIMIT < 1 || HZ4_MID_ALLOC_RUN_LIMIT > 64
#error "HZ4_MID_ALLOC_RUN_LIMIT must be from 1 to 64"
#endif
#if HZ4_MID_DUAL_TIER_ALLOC_BOX && !HZ4_MID_ALLOC_RUN_CACHE_BOX
#error "HZ4_MID_DUAL_TIER_ALLOC_BOX needs HZ4_MID_ALLOC_RUN_CACHE_BOX"
#endif
#if (HZ4_MID_DUAL_TIER_ALLOC_BOX != 0 && HZ4_MID_DUAL_TIER_ALLOC_BOX != 1) || \
	(HZ4_MID_ALLOC_RUN_CACHE_BOX != 0 && \
	 HZ4_MID_ALLOC_RUN_CACHE_BOX != 1) || \
	(HZ4_MID_STATS_B1 != 0 && HZ4_MID_STATS_B1 != 1) || \
	(HZ4_DEBUG_BOX != 0 && HZ4_DEBUG_BOX != 1)
#error "a box is a macro that is 0 or 1"
#endif

enum {
	/* hz4's page: the unit of spans and of the page map (bytes, log2). */
	HZ4_PAGE_SHIFT = 16,
	HZ4_PAGE = 1 << HZ4_PAGE_SHIFT,

	/* Every object is aligned to this (glibc's malloc alignment). */
	HZ4_ALIGN = 16,

	/* Upper ends of the boxes, and of the sizes that have a class. */
	HZ4_SMALL_MAX = 2048,
	HZ4_MID_MAX = 65536,
	HZ4_CLASS_MAX = 262144,

	/*
	 * A span has at least so many objects, so that one lock path serves
	 * a run of them; those above 32 KiB may have a span each.  Parts of
	 * a span that may be left unused: 1/32, and 1/8 above 32 KiB.
	 * Pages a span may have at most.
	 */
	HZ4_SPAN_MIN_SLOTS = 8,
	HZ4_SPAN_UNUSED = 32,
	HZ4_SPAN_UNUSED_BIG = 8,
	HZ4_SPAN_MAX_PAGES = 16,

	/*
	 * Empty spans that may stay with their classes, all together: so
	 * many bytes or this part of the heap in use; and how many are worth
	 * a look through all classes before fresh memory is taken (bytes).
	 * They count as free pages below.
	 */
	HZ4_SPAN_IDLE = 16 * 1024 * 1024,
	HZ4_SPAN_IDLE_SHARE = 8,
	HZ4_SPAN_IDLE_WORTH = 1024 * 1024,

	/*
	 * Where threads wait for the classes' lists, a class's spans that have
	 * to enter or leave one are left to the next thread that takes from
	 * it, up to so many bytes of them in a shard; those of all classes
	 * up to what may be idle.  Bytes of which a class tells at once.
	 */
	HZ4_SPAN_WAITING = 4 * 1024 * 1024,
	HZ4_SPAN_TELL = 512 * 1024,

	/*
	 * The most shards that the lists of the classes have, for two CPUs
	 * one, and what a thread counts against its own: so much for each
	 * lock it had to wait for, less one for each it had not.
	 */
	HZ4_SHARDS = 16,
	HZ4_SHARD_WAIT = 32,
	HZ4_SHARD_WAITS = 8 * HZ4_SHARD_WAIT,

	/*
	 * Most objects that move between a cache and the spans at once, and
	 * most bytes of them.  Empty spans whose pages go at once.
	 */
	HZ4_BATCH_MAX = 128,
	HZ4_BATCH_BYTES = 1024 * 1024,
	HZ4_SPANS_GONE = 64,

	/*
	 * A class's cache grows without proof up to a base limit: so many
	 * bytes and objects for small ones, so many objects for mid ones
	 * (--with-alloc-run-limit).  Above it only when a miss follows an
	 * overflow or the other way round, which a larger cache would have
	 * saved.
	 */
	HZ4_CACHE_BASE_BYTES = 16384,
	HZ4_CACHE_BASE_OBJECTS = 64,
	HZ4_CACHE_MAX_OBJECTS = 8192,
	/* It then grows by this part of what it has. */
	HZ4_CACHE_GROWTH = 8,
	/* And by no more than this part of what is left of the budget. */
	HZ4_CACHE_TAKES = 4,
	/* The array of a large one has so much more: stacks.h. */
	HZ4_CACHE_SLACK = 8,
	/* So many misses, or overflows, in a row tell a one-way traffic. */
	HZ4_CACHE_ONE_WAY = 16,

	/*
	 * What all caches of a thread may hold (bytes).  The first thread
	 * starts with more than others: most programs have one.  The others
	 * share so much for each CPU, from next to nothing where there are
	 * hundreds of them to what a thread of some 10,000 calls has use for.
	 */
	HZ4_BUDGET_FIRST_THREAD = 256 * 1024,
	HZ4_BUDGET_STARTS = 64 * 1024,
	HZ4_BUDGET_START_LEAST = 2 * 1024,
	HZ4_BUDGET_START_MOST = 32 * 1024,
	/*
	 * What a thread has earned its cache's next one starts with, up to
	 * its share of so much for each CPU.
	 */
	HZ4_BUDGET_PASSED_ON = 256 * 1024,
	/*
	 * So many missed bytes double it, fewer once it has grown and is so
	 * large, up to the maximum.  So one of a thousand threads with a
	 * thousand small operations each stays below 32 KiB of RSS, and a
	 * thread that works for a millisecond has all it can use.  A miss
	 * counts as so many bytes at least: that of a small object costs no
	 * less time.
	 */
	HZ4_BUDGET_DOUBLES = 768 * 1024,
	HZ4_BUDGET_PROVEN = 16 * 1024,
	HZ4_BUDGET_DOUBLES_PROVEN = 64 * 1024,
	HZ4_BUDGET_MISS = 512,
	/*
	 * Up to so many times the maximum where there are few threads or
	 * the heap is large: so many of them may have it once together, or
	 * this part of the heap in use.  Above the maximum the budget doubles
	 * with so many times its bytes.
	 */
	HZ4_BUDGET_FEW = 4,
	HZ4_BUDGET_SHARERS = 16,
	HZ4_BUDGET_HEAP_SHARE = 2,
	HZ4_BUDGET_PRICE = 4,

	/*
	 * Back-pressure (pace.h): a thread may take so many bytes more than
	 * it gives before it lets others run, where there are as many threads
	 * as CPUs.  More than a CPU caches for itself: a thread that keeps
	 * its objects has lost them there anyway.
	 * Bytes that must have been given for a yield to count as a help;
	 * bytes of which a thread tells at once; most turns between yields.
	 */
	HZ4_PACE_AHEAD = 4 * 1024 * 1024,
	HZ4_PACE_HELP = HZ4_PACE_AHEAD / 4,
	HZ4_PACE_TELL = 64 * 1024,
	HZ4_PACE_PATIENCE = 1023,

	/*
	 * A thread that has only freed gets no cache for so many objects: it
	 * may be at its very end, where nobody would empty one.
	 */
	HZ4_FIRST_FREES = 64,

	/*
	 * A class of a thread that had no miss for so long (ms) gives half
	 * of what it holds back.  A thread looks at the clock in every n-th
	 * of its slow paths.
	 */
	HZ4_CACHE_DECAY = 1000,
	HZ4_CLOCK_VISITS = 64,
	/*
	 * Whether pages wait is looked at in every n-th of the classes',
	 * where there are shards in fewer; divisors of HZ4_CLOCK_VISITS, and
	 * below HZ4_PURGE_MISSES.
	 */
	HZ4_PURGE_VISITS = 8,
	HZ4_PURGE_VISITS_SHARDS = 32,

	/*
	 * The first calls of malloc and free in a class of a cache, and the
	 * first after a decay that found it idle, are careful ones: they
	 * look for the object in all of the stack.
	 */
	HZ4_CAREFUL_CALLS = 64,

	/*
	 * The dual tier: so many moves of L0's floor between two decays close
	 * it for a class.
	 */
	HZ4_L0_MOVES = 16,

	/*
	 * Pages nobody has touched yet are asked for together: up to so many
	 * bytes more than the objects at hand have, and at most this part of
	 * what the class has.  Of an object that is larger than so many
	 * bytes only the first and the last page.
	 */
	HZ4_FRESH_AHEAD = HZ4_PAGE,
	HZ4_FRESH_SHARE = 8,
	HZ4_FRESH_WHOLE = 8192,

	/* Regions of the page heap: alignment, least and most (bytes). */
	HZ4_REGION_ALIGN = 2 * 1024 * 1024,
	HZ4_REGION_MIN = 2 * 1024 * 1024,
	HZ4_REGION_MAX = 64 * 1024 * 1024,
	/* A new region is this part of what is mapped already. */
	HZ4_REGION_SHARE = 8,

	/*
	 * Huge pages are advised while objects up to HZ4_FRESH_WHOLE, and
	 * larger ones that are known to be used, have touched so many eighths
	 * of the heap, and huge_threshold more.
	 */
	HZ4_DENSE_EIGHTHS = 3,
	/* KiB that do not count, for each thread but one with caches. */
	HZ4_DENSE_THREAD = 1024,
	/*
	 * A huge page is dear whose first touch takes so many microseconds;
	 * after so many in a row the heap goes on with small ones.  What takes
	 * less than any machine needs to clear one says nothing.
	 */
	HZ4_HUGE_CLEARED_US = 20,
	HZ4_HUGE_DEAR_US = 2000,
	HZ4_HUGE_DEAR_MANY = 2,

	/*
	 * realloc: an object of so many usable bytes that has to be copied to
	 * grow by at most this part of them, and is one of the latest that
	 * were copied to grow, gets room for this part of itself more.
	 */
	HZ4_GROWN_LEAST = 512,
	HZ4_GROWN_STEP = 4,
	HZ4_GROWN_LATEST = 4,
	HZ4_GROWN_ROOM = 2,

	/* From this size on a large object is a mapping of its own. */
	HZ4_HUGE_MIN = 32 * 1024 * 1024,

	/*
	 * Free pages that may stay resident whatever their age (bytes): the
	 * working reserve of the page heap.
	 */
	HZ4_PURGE_ALLOWANCE = 8 * 1024 * 1024,
	/* Bytes given back in one call at most: bounds its latency. */
	HZ4_PURGE_STEP = 64 * 1024 * 1024,
	/* Time between two purges, unless the first left something (ms). */
	HZ4_PURGE_ROUNDS = 100,
	/*
	 * All threads are nudged at most once in this time, and a thread
	 * whose misses bring it by anyway is left alone for so long (ms).
	 */
	HZ4_PURGE_NUDGES = 200,
	/* Nobody looks at the clock for pages that are due later (ms). */
	HZ4_PURGE_LOOK = 1000,
	/*
	 * Misses within so many ms of a nudge or a flush prove nothing; so
	 * many in as long a time prove that more are to come.
	 */
	HZ4_PURGE_SETTLING = 10,
	HZ4_PURGE_MISSES = 64,

	/* Tries before a thread sleeps for a lock. */
	HZ4_LOCK_SPINS = 100,

	/* Metadata is mapped in chunks of this size (bytes). */
	HZ4_META_CHUNK = 256 * 1024,
};

#endif
