/*
 * cache.h - taking from a thread's caches and giving to them: L1, the
 * alloc-run cache, and L0 in front of it when built.
 *
 * malloc pops at the top of a class's stack, free pushes there; neither
 * touches the object.  A cache whose thread has not come by yet is the
 * static empty one: all its pointers are NULL, so it is empty and full at
 * once and both calls take the slow path without a test for it.
 *
 * Layer 3.
 */
#ifndef HZ4_CACHE_H
#define HZ4_CACHE_H

#include "stacks.h"

/* What every thread's pointer is preset to. */
extern const struct hz4_cache hz4_empty_cache;

/*
 * Take one object of class `cls` from L1.  Owner only.  False: the slow
 * path has to look (stack empty, cache not made yet, or nudged).
 */
HZ4_FAST bool
hz4_cache_pop(struct hz4_cache *c, size_t cls, void **object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **top = hz4_peek(&s->top);

	if (hz4_unlikely(top <= hz4_peek(&s->low)))
		return false;
	hz4_poke(&s->top, top - 1);
	hz4_count_hit(hz4_hits(s, HZ4_HIT_MALLOC));
	*object = top[-1];
	return true;
}

/*
 * Give one object to L1.  Owner only.  False: the slow path has to look
 * (stack full, cache not made yet), or the same object was freed just
 * before.  That the word below an empty stack is NULL spares a test.
 */
HZ4_FAST bool
hz4_cache_push(struct hz4_cache *c, size_t cls, void *object)
{
	struct hz4_stack *s = &c->stack[cls];
	void **top = hz4_peek(&s->top);

	if (hz4_unlikely(top == s->high) || hz4_unlikely(top[-1] == object))
		return false;
	*top = object;
	/* Release: a fork's child must not see it without the object. */
	atomic_store_explicit(&s->top, top + 1, memory_order_release);
	hz4_count_hit(hz4_hits(s, HZ4_HIT_FREE));
	return true;
}

/* Bytes for a new cache's structure are zeroed by the caller. */
void hz4_cache_init(struct hz4_cache *c, bool first);

/* Serve a malloc that missed: refill from spans.  NULL: out of memory. */
void *hz4_cache_refill(struct hz4_cache *c, unsigned cls);

/*
 * Serve a free that L1 could not take: give the oldest objects back when
 * the stack is full, abort when the object is on top of it.
 */
void hz4_cache_overflow(struct hz4_cache *c, unsigned cls, void *object);

/* Whether an object lies in the stack or is not out of its span. */
bool hz4_cache_holds(struct hz4_cache *c, unsigned cls, const void *object);

/*
 * Whether a careful look finds that an object is no live one.  False also
 * where the class is not careful any more.  Owner only.
 */
HZ4_FAST bool
hz4_cache_suspects(struct hz4_cache *c, unsigned cls, const void *object)
{
	return cls != HZ4_CLS_RUN && hz4_stacks_careful(c, cls) &&
	       hz4_cache_holds(c, cls, object);
}

/*
 * The dual tier: fill L0 from L1 and pop once.  NULL when L1 has nothing.
 */
void *hz4_cache_l0_refill(struct hz4_cache *c, unsigned cls);

/* Give everything back to the spans; limits stay. */
void hz4_cache_flush(struct hz4_cache *c);

/* Classes that had no miss since the last time keep half of what they had. */
void hz4_cache_decay(struct hz4_cache *c);

/*
 * The end of its thread: flush, and leave the cache's next thread of what
 * was learned as much as the budget allows.
 */
void hz4_cache_pass_on(struct hz4_cache *c);

/*
 * In the child of a fork: put right what the cache's thread, which is gone,
 * was just changing.  What its stacks hold stays, but for a stack that was
 * being moved.
 */
void hz4_cache_adopt(struct hz4_cache *c);

/* Take one object whether nudged or not.  Owner only. */
bool hz4_cache_pop_nudged(struct hz4_cache *c, unsigned cls, void **object);

/* What was counted for a class, the hits included (--enable-stats). */
void hz4_cache_counts(struct hz4_cache *c, unsigned cls,
		      struct hz4_counts *out);

/* Objects in L0 and L1; a hint when another thread asks. */
size_t hz4_cache_count(struct hz4_cache *c, unsigned cls);

#endif
