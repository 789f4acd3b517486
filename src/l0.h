/*
 * l0.h - the dual tier: a few objects per mid class in front of L1.
 *
 * Owner only: no lock, no atomics.  L0 holds only objects of its class, and
 * an object in L0 is in no other tier.  Folds to nothing, storage
 * included, without --enable-dual-tier.
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
	HZ4_L0_SLOTS = HZ4_MID_DUAL_TIER_ALLOC_BOX ?
			       HZ4_MID_DUAL_TIER_L0_LIMIT :
			       1,
};

struct hz4_l0 {
	/* Objects held, 0..HZ4_L0_SLOTS. [owner]; [atomic] relaxed */
	_Atomic uint32_t count;
	void *slot[HZ4_L0_SLOTS]; /* [owner] */
};

HZ4_FAST struct hz4_l0 *
hz4_l0_of(struct hz4_l0 *l0, size_t cls)
{
	return &l0[cls - HZ4_CLS_FIRST_MID];
}

/* Take one object of a mid class; NULL when L0 is empty or not built. */
HZ4_FAST void *
hz4_l0_pop(struct hz4_l0 *l0, size_t cls)
{
	struct hz4_l0 *l;
	uint32_t n;

	if (!HZ4_MID_DUAL_TIER_ALLOC_BOX)
		return NULL;
	l = hz4_l0_of(l0, cls);
	n = hz4_peek(&l->count);
	if (n == 0)
		return NULL;
	hz4_poke(&l->count, n - 1);
	return l->slot[n - 1];
}

#endif
