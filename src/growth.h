/*
 * growth.h - how many objects each stack of a cache may hold.
 *
 * Layer 3.  Takes no lock.
 */
#ifndef HZ4_GROWTH_H
#define HZ4_GROWTH_H

#include "stacks.h"

/* Bytes that the objects of a class may come to. */
size_t hz4_growth_bytes(const struct hz4_cache *c, unsigned cls);

/* The class may hold so many objects: no more than its array has room for. */
void hz4_growth_set(struct hz4_cache *c, unsigned cls, uint32_t limit);

/*
 * The class missed, or ran over: it may hold more from now on, and so may the
 * thread.
 */
void hz4_growth_note(struct hz4_cache *c, unsigned cls, enum hz4_turn turn);

/* Others may have so many bytes of those that were taken. */
void hz4_growth_give(struct hz4_cache *c, size_t bytes);

#endif
