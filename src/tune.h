/*
 * tune.h - every constant that was chosen by measuring, with its unit and
 * the reason.  The figures behind them stand in
 * bench/records/tried.tsv.
 *
 * Layer 0.
 */
#ifndef HZ4_TUNE_H
#define HZ4_TUNE_H

#include "base.h"

/* What configure has checked; a config.h may be written by hand, too. */
#if HZ4_MID_DUAL_TIER_L0_LIMIT < 1 || HZ4_MID_DUAL_TIER_L0_LIMIT > 64
#error "HZ4_MID_DUAL_TIER_L0_LIMIT must be from 1 to 64"
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

	/* Upper ends of the size ranges, and of the sizes with a class. */
	HZ4_SMALL_MAX = 2048,
	HZ4_MID_MAX = 65536,
	HZ4_CLASS_MAX = 262144,

	/*
	 * A span has at least so many objects, so that one lock path serves
	 * a run of them; those above 32 KiB may have a span each.  The part
	 * of a span that may be left unused; pages it may have at most.
	 */
	HZ4_SPAN_MIN_SLOTS = 8,
	HZ4_SPAN_UNUSED = 32,
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
	 * A span of which all but this part is free is taken from last; how
	 * many are looked at in one call.
	 */
	HZ4_SPAN_SPARSE = 4,
	HZ4_SPAN_LOOKS = 4,

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
	 * Most objects that move between a cache and the spans at once: so
	 * many, or of small ones as many as come to so many bytes, up to the
	 * most; of all classes most bytes.  Empty spans whose pages go at
	 * once: as many as may lie on a thread's stack meanwhile, which may
	 * be a small one.
	 */
	HZ4_BATCH_OBJECTS = 128,
	HZ4_BATCH_MAX = 512,
	HZ4_BATCH_SMALL = 32 * 1024,
	HZ4_BATCH_BYTES = 1024 * 1024,
	HZ4_SPANS_GONE = 2,

	/*
	 * A class's stack grows without proof up to a base limit: so many
	 * bytes and objects for small ones, so many objects for mid ones
	 * (--with-l0-limit with the dual tier, else --with-alloc-run-limit).
	 * Above it, without the dual tier, only when a miss follows an
	 * overflow or the other way round, which a larger one would have
	 * saved.
	 */
	HZ4_CACHE_BASE_BYTES = 16384,
	HZ4_CACHE_BASE_OBJECTS = 64,
	/* The dual tier's L0 has so many of each small class at least. */
	HZ4_L0_LEAST = 16,
	/*
	 * The most objects of a class, and of small ones as many as come to so
	 * many bytes.  More of them are soon in an order that caches do not
	 * like, while spans hand out what lies together.
	 */
	HZ4_CACHE_MOST_OBJECTS = 1020,
	HZ4_CACHE_MOST_BYTES = 48 * 1024,
	HZ4_CACHE_MAX_OBJECTS = HZ4_CACHE_MOST_BYTES / HZ4_ALIGN,
	/* It then grows by this part of what it has. */
	HZ4_CACHE_GROWTH = 8,
	/* And by no more than this part of what is left for its thread. */
	HZ4_CACHE_TAKES = 4,

	/*
	 * What a thread's cache may hold from its start (bytes).  The first
	 * thread has more than others: most programs have one.  The others
	 * share so much for each CPU, from next to nothing where there are
	 * hundreds of them to what a thread of some 10,000 calls has use for.
	 */
	HZ4_START_FIRST_THREAD = 256 * 1024,
	HZ4_START_SHARED = 64 * 1024,
	HZ4_START_LEAST = 2 * 1024,
	HZ4_START_MOST = 32 * 1024,
	/*
	 * So many misses and overflows for each thread double it, from the
	 * least to the most.  One of a thousand threads with a thousand
	 * operations each stays small, and one of a few that works for a
	 * millisecond has all it can use.
	 */
	HZ4_EARN_THREAD = 8,
	HZ4_EARN_LEAST = 128,
	HZ4_EARN_MOST = 1024,
	/*
	 * So much of it each thread may have of its own; more comes from the
	 * pool: so many bytes for each CPU and quarters of the heap, which
	 * caches are part of, but no more than cpu_cache for each CPU or else
	 * this part of the heap.  One taker gets no more than this part of
	 * what is left.
	 */
	HZ4_EARN_OWN = 256 * 1024,
	HZ4_POOL_LEAST = 8 * 1024 * 1024,
	HZ4_POOL_QUARTERS = 3,
	HZ4_POOL_HEAP_SHARE = 8,
	HZ4_POOL_TAKES = 4,
	/*
	 * What an ended thread's cache keeps for the next one at most (bytes):
	 * some thousand strings, so that a short thread misses nothing.
	 */
	HZ4_END_MOST = 1024 * 1024,

	/*
	 * The dual tier: the part of cpu_cache that one L1 may hold, and so
	 * many bytes where memory is pinned; numbers that have an L1 of their
	 * own; how many a thread tries to lock before it goes to the spans;
	 * and how many times what is asked for comes from the spans at once.
	 */
	HZ4_L1_SHARE = 8,
	HZ4_L1_PINNED = 1024 * 1024,
	HZ4_L1_MOST = 1024,
	HZ4_L1_TRIES = 4,
	HZ4_L1_RUN = 4,
	/* Most objects of a class in an L1, whose array is metadata. */
	HZ4_L1_OBJECTS = 512,
	/* How many of the latest objects a careful free is looked up in. */
	HZ4_L1_LOOK = 64,

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
	 * A class of a thread that had no event for so long (ms) gives half
	 * of what it holds back, and an L1 what nobody took.  A thread looks
	 * at the clock in every n-th of its slow paths.
	 */
	HZ4_CACHE_DECAY = 1000,
	HZ4_CLOCK_VISITS = 64,
	/*
	 * Whether pages wait is looked at in every n-th of the classes',
	 * where there are shards in fewer; divisors of HZ4_CLOCK_VISITS.
	 */
	HZ4_PURGE_VISITS = 8,
	HZ4_PURGE_VISITS_SHARDS = 32,

	/*
	 * The caches of threads that stay away (idle.h): time between two steps
	 * with one, by the clock, which may tick 100 times a second, or slept
	 * (ms); between two rounds through all (ms); threads, and objects of
	 * theirs, that are seen to at once.
	 */
	HZ4_IDLE_GRACE = 20,
	HZ4_IDLE_NAPS = 2,
	HZ4_IDLE_ROUND = 1000,
	HZ4_IDLE_THREADS = 64,
	HZ4_IDLE_OBJECTS = 2048,

	/*
	 * The first calls of malloc and free in a class of a cache, and the
	 * first after a decay that found it idle, are careful ones: they
	 * look for the object in all of the stack.
	 */
	HZ4_CAREFUL_CALLS = 64,

	/*
	 * Pages nobody has touched yet are asked for together where that costs
	 * less than this part of a fault for each, as so many looks at so many
	 * pages or more have shown.  Of an object above HZ4_FRESH_WHOLE bytes
	 * only the first and the last page, a system call each; and of so many
	 * of a batch alone, since one malloc pays for them.  Of smaller ones up
	 * to so many bytes more than the objects at hand have, and at most this
	 * part of what the class has.
	 */
	HZ4_FRESH_DEAR = 2,
	HZ4_FRESH_LOOKS = 8,
	HZ4_FRESH_LEAST = 4,
	HZ4_FRESH_OBJECTS = 4,
	HZ4_FRESH_AHEAD = HZ4_PAGE,
	HZ4_FRESH_SHARE = 8,
	HZ4_FRESH_WHOLE = 8192,
	/*
	 * Of one above so many bytes calloc leaves alone what is zero.  The
	 * smaller ones are filled by most programs, and a fault for each of
	 * their pages costs twice what clearing them with huge pages does.
	 */
	HZ4_FRESH_SPARSE = 32768,

	/*
	 * OS pages of spans in use that hold nothing (holes.h): time between
	 * two rounds (ms); spans that are looked at, and bytes that are purged,
	 * at once, about; bytes of fresh memory after which the next ones are
	 * without a look at the clock; and how many bytes, and which part of
	 * the heap in use, there must be more of.
	 */
	HZ4_HOLES_ROUND = 300,
	HZ4_HOLES_SPANS = 128,
	HZ4_HOLES_STEP = 512 * 1024,
	HZ4_HOLES_GROWTH = 512 * 1024,
	HZ4_HOLES_LEAST = 8 * 1024 * 1024,
	HZ4_HOLES_SHARE = 8,

	/* Regions of the page heap: alignment, least and most (bytes). */
	HZ4_REGION_ALIGN = 2 * 1024 * 1024,
	HZ4_REGION_MIN = 2 * 1024 * 1024,
	HZ4_REGION_MAX = 64 * 1024 * 1024,
	/* A new region is this part of what is mapped already. */
	HZ4_REGION_SHARE = 8,
	/*
	 * While a heap is smaller than so much, regions are half of what they
	 * are aligned to, and nothing of hz4's lies between: an access so far
	 * beside an object that it leaves the region is a fault, but for what
	 * the program maps there.  A mapping each is the price.
	 */
	HZ4_REGION_APART = 1024 * 1024,
	HZ4_REGION_APART_UP_TO = 128 * 1024 * 1024,
	/*
	 * Where new mappings are pinned, all of a region is resident at once:
	 * a smaller part then, and so many bytes at most.
	 */
	HZ4_REGION_PINNED_SHARE = 32,
	HZ4_REGION_PINNED_MAX = 1024 * 1024,

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
	 * Where one is freed and the next comes soon, its pages stay for that,
	 * while all dirty ones come to no more than this part of the memory
	 * there is, and so many bytes.  For calloc they are fetched anew if
	 * half of so many stretches of so many bytes in them are zeros.
	 */
	HZ4_KEPT_SHARE = 16,
	HZ4_KEPT_MOST = 1024 * 1024 * 1024,
	HZ4_KEPT_LOOKS = 16,
	HZ4_KEPT_LOOK = 4096,

	/*
	 * A smaller one becomes a mapping by a move of its page tables where
	 * it has so many bytes and cannot grow in place, and there are fewer
	 * than so many mappings.  A mapping that grows gets this part of
	 * itself more, at most so many bytes.
	 */
	HZ4_MOVED_MIN = 1024 * 1024,
	HZ4_MOVED_MAX = 512,
	HZ4_MOVED_ROOM = 8,
	HZ4_MOVED_ROOM_MAX = 4 * 1024 * 1024,

	/*
	 * Free pages that may stay resident whatever their age (bytes): the
	 * working reserve of the page heap.
	 */
	HZ4_PURGE_ALLOWANCE = 8 * 1024 * 1024,
	/* The same where new mappings are pinned, and the least there is. */
	HZ4_PURGE_ALLOWANCE_LEAST = 1024 * 1024,
	/*
	 * Bytes given back in one system call at most, and in one malloc or
	 * free: bounds their latency.  A process may have few calls to come.
	 */
	HZ4_PURGE_STEP = 4 * 1024 * 1024,
	HZ4_PURGE_MOST = 256 * 1024 * 1024,
	/* Time between two purges, unless the first left something (ms). */
	HZ4_PURGE_ROUNDS = 100,
	/* Nobody watches for pages that are due later (ms). */
	HZ4_PURGE_LOOK = 1000,
	/*
	 * A watching thread looks at the clock in every n-th of its mallocs,
	 * where so many bytes count as one more; nobody else watches for so
	 * long after it did (ms).
	 */
	HZ4_WATCH_CALLS = 256,
	HZ4_WATCH_BYTES = 512,
	HZ4_WATCH_TIME = 200,

	/*
	 * Tries before a thread sleeps for a lock, and then with others let
	 * run in between: who wakes a sleeper may lose its CPU to it, so of
	 * many threads each would be stopped in the middle of its work.
	 */
	HZ4_LOCK_SPINS = 100,
	HZ4_LOCK_YIELDS = 20,
	/* It looks again whether it is a fork's child after so long (s). */
	HZ4_LOCK_PATIENCE = 1,

	/* Metadata is mapped in chunks of so many bytes, pinned of a page. */
	HZ4_META_CHUNK = 256 * 1024,
	/*
	 * Bytes of structures for a class's first spans, and for the next
	 * ones at once; spans of a class that are worth a slab unused.
	 */
	HZ4_SLAB_FIRST = 512,
	HZ4_SLAB = 8192,
	HZ4_SLAB_MANY = 64,
};

#endif
