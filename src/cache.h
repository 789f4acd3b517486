/*
 * cache.h - taking from a thread's cache and giving to it.  It is L0 with
 * the dual tier, with L1 below it (l1.h); else it is L1, and stands straight
 * in front of the spans.
 *
 * malloc pops at the top of a class's stack, free pushes there; neither
 * touches the object.  A cache whose thread has not come by yet is the
 * static empty one: all its pointers are NULL, so it is empty and full at
 * once and both calls take the slow path without a test for it.
 *
 * Layer 3.  Takes HZ4_RANK_CACHE, HZ4_RANK_CPU, HZ4_RANK_CLASS.
 */
#ifndef HZ4_CACHE_H
#define HZ4_CACHE_H

#include "stacks.h"

/* What every thread's pointer is preset to. */
extern const struct hz4_cache hz4_empty_cache;

/*
 * The object at the top of a stack, if that is above `low`: the stack's own, or
 * its end where malloc looks before it takes.  False: the slow path has to
 * look (stack empty or closed, cache not made yet), or the same object lies in
 * the stack once more, three or four places deeper.
 */
HZ4_FAST bool
hz4_cache_see(void **top, void **low, void **object)
{
	if (hz4_unlikely(top <= low))
		return false;
	*object = top[-1];
	return !hz4_unlikely(*object == top[-4]) &&
	       !hz4_unlikely(*object == top[-5]);
}

/* Take what was seen.  Owner only. */
HZ4_FAST void
hz4_cache_take(struct hz4_stack *s, void **top)
{
	hz4_poke(&s->top, top - 1);
	hz4_count_hit(hz4_hits(s, HZ4_HIT_MALLOC));
}

/* Take one object from the stack of its class.  Owner only. */
HZ4_FAST bool
hz4_cache_pop(struct hz4_stack *s, void **object)
{
	void **top;

	hz4_stacks_look();
	top = hz4_peek(&s->top);
	if (!hz4_cache_see(top, hz4_peek_fast(void **, &s->low), object))
		return false;
	hz4_cache_take(s, top);
	return true;
}

/*
 * Give one object to the stack of its class.  Owner only.  False: the slow
 * path has to look (stack full or closed, cache not made yet), or the same
 * object lies in one of the last two places.  What was freed twice with up to
 * three other objects between is found, here or in hz4_cache_pop, before it is
 * handed out once; the calls share the looks, so that neither becomes a long
 * one.
 *
 * The HZ4_STACK_BELOW words below a stack may be looked at, so that an empty
 * one needs no test; what is found there the slow path takes for nothing.
 */
HZ4_FAST bool
hz4_cache_push(struct hz4_stack *s, void *object)
{
	void **top;

	hz4_stacks_look();
	top = hz4_peek(&s->top);

	if (hz4_unlikely(top >= hz4_peek_fast(void **, &s->high)) ||
	    hz4_unlikely(top[-1] == object) || hz4_unlikely(top[-2] == object))
		return false;
	*top = object;
	/* Release: a fork's child must not see it without the object. */
	atomic_store_explicit(&s->top, top + 1, memory_order_release);
	hz4_count_hit(hz4_hits(s, HZ4_HIT_FREE));
	return true;
}

/* Bytes for a new cache's structure are zeroed by the caller. */
void hz4_cache_init(struct hz4_cache *c, bool first);

/*
 * Say that the thread is awake, and take the stacks back from who stops or
 * empties them: the slow path of hz4_cache_enter.
 */
void hz4_cache_wake(struct hz4_cache *c);

/* Its thread leaves what it has entered. */
HZ4_FAST void
hz4_cache_leave(struct hz4_cache *c)
{
	/* Release: who finds nobody inside sees all that was done there. */
	atomic_store_explicit(&c->inside, hz4_peek(&c->inside) - 1,
			      memory_order_release);
}

/*
 * Every slow path of the cache's thread begins with this, and ends with
 * hz4_cache_leave: others that want to empty the cache keep off meanwhile.
 * NULL when there is no cache, or it is being changed: libc's call in between
 * came back, or a signal's handler did; the caller does without.
 */
HZ4_FAST struct hz4_cache *
hz4_cache_enter(struct hz4_cache *c)
{
	uint32_t inside;

	if (c == NULL)
		return NULL;
	inside = hz4_peek(&c->inside);
	hz4_poke(&c->inside, inside + 1);
	/* The processor may swap the two; see idle.h. */
	atomic_signal_fence(memory_order_seq_cst);
	if (hz4_unlikely(hz4_peek(&c->idle) != HZ4_IDLE_NO))
		hz4_cache_wake(c);
	if (hz4_likely(hz4_peek(&c->busy) == HZ4_CLS_NONE && !c->waking))
		return c;
	hz4_cache_leave(c);
	return NULL;
}

/*
 * Take one object whatever the ends say; abort when it lies in the stack once
 * more, near the top.  Owner only.
 */
bool hz4_cache_pop_slow(struct hz4_cache *c, unsigned cls, void **object);

/* Serve a malloc that missed: refill from below.  NULL: out of memory. */
void *hz4_cache_refill(struct hz4_cache *c, unsigned cls);

/*
 * Serve a calloc that would miss: hz4_transfer_take_zeroed.
 */
void *hz4_cache_take_zeroed(struct hz4_cache *c, unsigned cls, size_t bytes);

/*
 * Serve a free that the stack could not take: give the oldest objects back
 * when it is full, abort when the object lies near its top or in its span.
 */
void hz4_cache_overflow(struct hz4_cache *c, unsigned cls, void *object);

/* Whether an object lies in the stack or is not out of its span. */
bool hz4_cache_holds(struct hz4_cache *c, unsigned cls, const void *object);

/* Give everything back to the spans; limits stay. */
void hz4_cache_flush(struct hz4_cache *c);

/*
 * Classes that had no event since the last time keep half of what they had,
 * and what no class has use for others may take.
 */
void hz4_cache_decay(struct hz4_cache *c);

/*
 * For another thread, which holds the lock and has stopped the stacks: give up
 * to `most` objects back, all but the latest of each class, and what the cache
 * took of what threads share.  Takes what it gave off `most`; false: there are
 * more.  `now` is the time, since nothing may call libc under that lock.
 */
bool hz4_cache_empty(struct hz4_cache *c, size_t *most, uint64_t now);

/*
 * The end of its thread: what the cache holds above HZ4_END_MOST goes back,
 * the rest is for its next thread.
 */
void hz4_cache_end(struct hz4_cache *c);

/*
 * In the child of a fork: who held the lock is gone, stopping or emptying the
 * cache.  Its own thread may be the one that forked.
 */
void hz4_cache_cut_off(struct hz4_cache *c);

/*
 * Its own thread is gone: what the stacks hold stays, but for the one that was
 * being changed.  With the lock: threads of the child may empty it.
 */
void hz4_cache_adopt(struct hz4_cache *c);

/* What was counted for a class, the hits included (--enable-stats). */
void hz4_cache_counts(struct hz4_cache *c, unsigned cls,
		      struct hz4_counts *out);

/* Objects in the stack; a hint when another thread asks. */
size_t hz4_cache_count(struct hz4_cache *c, unsigned cls);

#endif
