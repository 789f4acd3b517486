/*
 * l0.h - the dual tier: a few objects per mid class in front of L1.
 *
 * L0 is a window on the array that L1 lies in: the objects from its floor
 * to the top, at most HZ4_MID_DUAL_TIER_L0_LIMIT.  L1 is what lies below.
 *
 *          base        floor      top            base + limit
 *      NULL |    L1      |   L0    |     free room    |
 *
 * malloc takes from L0 and free gives to it, by the same instructions as
 * without the box, since `low` and `high` of the stack are the window's
 * ends.  At a miss the floor sinks by HZ4_MID_DUAL_TIER_L0_REFILL_BATCH,
 * when L0 is full it rises; no object is moved.
 *
 * A class whose window moves too often is none for L0: it is closed until
 * the next decay.  It is so, too, while the class's calls are careful.  In
 * a class whose window did not move between two decays L1 was not needed,
 * and all of it goes back (cache.c).
 *
 * Owner only: no lock, no atomics.  Folds to nothing, storage included,
 * without --enable-dual-tier.
 *
 * Layer 3.
 */
#ifndef HZ4_L0_H
#define HZ4_L0_H

#include "sizeclass.h"

enum {
	HZ4_L0_CLASSES = HZ4_MID_DUAL_TIER_ALLOC_BOX ?
				 HZ4_CLS_FIRST_LARGE - HZ4_CLS_FIRST_MID :
				 1,
	/* What stays in L0 when it was full and its floor rises. */
	HZ4_L0_KEEP = HZ4_MID_DUAL_TIER_L0_REFILL_BATCH <
				      HZ4_MID_DUAL_TIER_L0_LIMIT ?
			      HZ4_MID_DUAL_TIER_L0_REFILL_BATCH :
			      HZ4_MID_DUAL_TIER_L0_LIMIT - 1,
};

struct hz4_l0 {
	void **floor;	/* base <= floor <= top [owner] */
	uint16_t moves; /* of the floor, since the decay [owner] */
	bool open;	/* else all is L1 [owner] */
};

HZ4_FAST bool
hz4_l0_built(size_t cls)
{
	return HZ4_MID_DUAL_TIER_ALLOC_BOX && hz4_sizeclass_is_mid(cls);
}

/* A mid class's; others have none. */
HZ4_FAST struct hz4_l0 *
hz4_l0_of(struct hz4_l0 *l0, size_t cls)
{
	return &l0[hz4_l0_built(cls) ? cls - HZ4_CLS_FIRST_MID : 0];
}

HZ4_FAST bool
hz4_l0_open(struct hz4_l0 *l0, size_t cls)
{
	return hz4_l0_built(cls) && hz4_l0_of(l0, cls)->open;
}

#endif
