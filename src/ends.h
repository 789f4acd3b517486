/*
 * ends.h - the inside of the caches: where malloc and free stop.  cache.c
 * and ends.c alone include this.
 *
 * `high` and `low` of a stack follow from its array, its limit, its careful
 * calls, the window of L0 and the nudges.  Whoever changes one of those
 * says so here, and both are set anew.
 *
 * Layer 3.
 */
#ifndef HZ4_ENDS_H
#define HZ4_ENDS_H

#include "cache.h"

/* The class's calls are still looked at. */
HZ4_FAST bool
hz4_ends_careful(struct hz4_cache *c, unsigned cls)
{
	return c->tier[cls].calls < HZ4_CAREFUL_CALLS;
}

/* The end of what a stack may hold; it may have no array yet. */
HZ4_FAST void **
hz4_ends_limit(struct hz4_cache *c, unsigned cls)
{
	void **base = hz4_peek(&c->stack[cls].base);

	return base == NULL ? NULL : base + c->tier[cls].limit;
}

/* Set high and low; L0 keeps its floor if it may. */
void hz4_ends_set(struct hz4_cache *c, unsigned cls);

/* As hz4_ends_set, after one call of malloc or free in a slow path. */
void hz4_ends_call(struct hz4_cache *c, unsigned cls);

/*
 * A decay: the class lay idle, and its next calls are careful ones; or it
 * did not, and its L0 gets another chance.
 */
void hz4_ends_idle(struct hz4_cache *c, unsigned cls);
void hz4_ends_busy(struct hz4_cache *c, unsigned cls);

/* The floor of an open L0 moves; too often, and L0 is closed. */
void hz4_ends_move_floor(struct hz4_cache *c, unsigned cls, void **floor);

/* Add the hits that the stack counted to those of the tier that it is. */
void hz4_ends_add_hits(struct hz4_cache *c, unsigned cls,
		       struct hz4_counts *out);

#endif
