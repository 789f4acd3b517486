/*
 * cache.h - a thread's caches: L1, the alloc-run cache, one stack of free
 * objects per size class, and L0 in front of it when built.
 *
 *          base        top            high         base + room
 *      NULL |  objects  |    limit     |   not used yet  |
 *
 *     base <= top <= high,  high - base == limit <= room
 *
 * malloc pops at top, free pushes there; neither touches the object.  A
 * cache whose thread has not come by yet is the static empty one: all its
 * pointers are NULL, so it is empty and full at once and both calls take
 * the slow path without a test for it.
 *
 * `low` is what malloc compares top with.  It equals base, unless somebody
 * has nudged the thread: then it lies above every address, and the next
 * malloc of each class takes the slow path, where the thread looks at the
 * clock and gives back what lies idle (heap.c).  So memory returns without
 * a background thread and without a test on the fast path.
 *
 * The first HZ4_CAREFUL_CALLS calls of a class are careful: high is top and
 * low lies above, so that both malloc and free take the slow path.  There a
 * free is looked up in the span and in all of the stack.  A program that
 * uses a class now and then has its double frees found at the call, and one
 * that uses it much does not pay.
 *
 * Layer 3.
 */
#ifndef HZ4_CACHE_H
#define HZ4_CACHE_H

#include "budget.h"
#include "l0.h"
#include "pace.h"
#include "stats.h"

struct hz4_stack {
	/* [owner] writes; [atomic] relaxed: others read it for figures */
	void **_Atomic top;
	/* base, or HZ4_NUDGED. [atomic] relaxed: a hint */
	void **_Atomic low;
	void **high; /* [owner] */
	/* [owner] writes; [atomic] relaxed: others read it for figures */
	void **_Atomic base;
	HZ4_HITS_MEMBER
};

#define HZ4_NUDGED ((void **)UINTPTR_MAX)

/* What happened last at the ends of a class's stack. */
enum hz4_turn { HZ4_TURN_NONE, HZ4_TURN_MISS, HZ4_TURN_OVERFLOW };

/* The colder half of a class's cache. */
struct hz4_tier {
	uint16_t limit;	 /* objects the stack may hold [owner] */
	uint16_t room;	 /* objects its array has room for [owner] */
	uint16_t events; /* misses and overflows since the decay [owner] */
	uint8_t turn;	 /* enum hz4_turn [owner] */
	uint8_t calls;	 /* careful ones so far [owner] */
	/*
	 * Objects taken from spans less those given back: what the user
	 * and the cache have.  [owner] writes; [atomic] relaxed
	 */
	_Atomic int64_t net;
};

struct hz4_cache {
	struct hz4_stack stack[HZ4_CLS_VALUES];
	struct hz4_l0 l0[HZ4_L0_CLASSES];
	struct hz4_tier tier[HZ4_CLS_END];
	/*
	 * The thread is in a slow path: what the child of a fork finds here
	 * may be half changed.  [owner] writes; [atomic] relaxed
	 */
	_Atomic bool busy;
	/*
	 * Somebody has nudged.  Set before `low` of all classes; the owner
	 * clears it before it settles them.  [atomic] seq_cst
	 */
	_Atomic bool nudged;
	/*
	 * One bit for each class that had an event since the reset: the
	 * others have no limit and hold nothing. [owner]
	 */
	uint64_t used[HZ4_CLS_END / 64 + 1];
	uint32_t visits;  /* slow paths so far [owner] */
	uint32_t flushed; /* hz4_purge_flushes() at the last flush [owner] */
	uint32_t decayed; /* hz4_purge_decays() at the last decay [owner] */
	uint64_t looking; /* ms of the first look since the nudge [owner] */
	uint64_t looked;  /* ms of the last look while nudged [owner] */
	uint64_t came_by; /* ms of the last other slow path [owner] */
	uint64_t resting; /* ms until which it does not nudge [owner] */
	struct hz4_budget budget;
	struct hz4_pace pace;
	struct hz4_counts counts[HZ4_MID_STATS_B1 ? HZ4_CLS_VALUES : 1];
};

/* What every thread's pointer is preset to.  Never written to. */
extern struct hz4_cache hz4_empty_cache;

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

/*
 * Whether a careful look finds that an object is no live one: it lies in
 * the stack or in its span, or is no start of an object.  False also where
 * the class is not careful any more.  Owner only.
 */
bool hz4_cache_suspects(struct hz4_cache *c, unsigned cls, const void *object);

/*
 * The dual tier: fill L0 from L1 and pop once.  NULL when L1 has nothing.
 */
void *hz4_cache_l0_refill(struct hz4_cache *c, unsigned cls);

/* Give everything back to the spans; limits stay. */
void hz4_cache_flush(struct hz4_cache *c);

/* Classes that had no miss since the last time keep half of what they had. */
void hz4_cache_decay(struct hz4_cache *c);

/* Flush and forget what was learned, for the cache's next thread. */
void hz4_cache_reset(struct hz4_cache *c);

/* Nudge: see above.  May be called by any thread. */
void hz4_cache_nudge(struct hz4_cache *c);

/* Undo the nudge for all classes.  Owner only. */
void hz4_cache_settle(struct hz4_cache *c);

HZ4_FAST bool
hz4_cache_nudged(struct hz4_cache *c)
{
	return hz4_peek(&c->nudged);
}

/* Take one object whether nudged or not.  Owner only. */
bool hz4_cache_pop_nudged(struct hz4_cache *c, unsigned cls, void **object);

/* What was counted for a class, the hits included (--enable-stats). */
void hz4_cache_counts(struct hz4_cache *c, unsigned cls,
		      struct hz4_counts *out);

/* Objects in L0 and L1; a hint when another thread asks. */
size_t hz4_cache_count(struct hz4_cache *c, unsigned cls);

#endif
