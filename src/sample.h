/*
 * sample.h - what is kept of a sampled object, and of a call stack that
 * allocated some.  Structures only; samples.h has what is done with them.
 *
 * Layer 1.
 */
#ifndef HZ4_SAMPLE_H
#define HZ4_SAMPLE_H

#include "base.h"

/* A call stack and its sums.  Made once, never removed. */
struct hz4_site {
	struct hz4_site *next;	/* of the same bucket [const] */
	struct hz4_site *older; /* made before [const] */
	uint32_t hash, depth;	/* [const] */
	/* [lock: samples] writes; [atomic] relaxed: a dump reads them */
	_Atomic uint64_t live, live_bytes, all, all_bytes;
	size_t lost, lost_bytes; /* leaks.c's, at exit */
	uintptr_t frame[];	 /* the innermost first [const] */
};

/* A sampled object.  All fields [lock: samples]. */
struct hz4_sample {
	struct hz4_site *site; /* NULL: it is none */
	uint64_t size : 48;    /* asked for */
	/* Of the sums: what was counted before a reset is not counted off. */
	uint64_t epoch : 16;
};

/*
 * How far a thread is on its way to the next sample.  While nothing is sampled
 * both ways are as good as endless.  All [owner].
 */
struct hz4_sampler {
	int64_t left;	     /* bytes to it */
	uint64_t calls;	     /* to the next guard, without this one */
	int64_t drawn;	     /* of `left` at the start of the way */
	uint64_t random;     /* state of the generator; 0: not seeded */
	uint32_t generation; /* of hz4_sampling that both are for */
	bool inside;	     /* takes one: calls that come meanwhile do not */
	uintptr_t bounds[2]; /* of the stack, for frame pointers; 0 unknown */
	uintptr_t frame;     /* while they are looked for */
};

/*
 * Not 0 while allocations are counted, so that some are sampled or guarded:
 * the number of the start.  All mallocs take the slow path then (stacks.h).
 * [atomic] relaxed: a hint that threads see when they come by; release, and
 * acquire by who joins: what sampling needs comes before
 */
extern _Atomic uint32_t hz4_sampling;

/* Who called: where walking the stack begins. */
struct hz4_caller {
	const void *frame, *address;
};

/* Of the function that this stands in, which must not be inlined. */
#define HZ4_CALLER \
	(&(const struct hz4_caller){ __builtin_frame_address(0), \
				     __builtin_return_address(0) })

#endif
