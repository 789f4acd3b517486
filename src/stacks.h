/*
 * stacks.h - a thread's caches as data: one stack of free objects per size
 * class, and where malloc and free stop.
 *
 *      start       base        top            high        start + room
 *        |   gone  NULL |  objects  |    limit     |   not used yet  |
 *
 *     base <= top <= high,  high - base == limit,  high <= start + room
 *
 * The oldest objects lie at the base, which rises when they go back to the
 * spans; the others need not move for it until there is no room above.  The
 * word below the base is NULL.
 *
 * `high` and `low` follow from the array, the limit, the careful calls, the
 * window of L0 and the nudges.  Whoever changes one of those says so here,
 * and both are set anew.
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
#ifndef HZ4_STACKS_H
#define HZ4_STACKS_H

#include "budget.h"
#include "l0.h"
#include "pace.h"
#include "stats.h"

struct hz4_stack {
	/* [owner] writes; [atomic] relaxed: others read it for figures */
	void **_Atomic top;
	/* base, the floor of L0, or HZ4_NUDGED. [atomic] relaxed: a hint */
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
	uint16_t gone;	 /* places of its array below the base [owner] */
	uint16_t events; /* misses and overflows since the decay [owner] */
	uint8_t turn;	 /* enum hz4_turn [owner] */
	uint8_t calls;	 /* careful ones so far [owner] */
	uint8_t streak;	 /* events without a turn in a row [owner] */
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
	 * The class whose array is being changed, 0: none.  The child of a
	 * fork can use all other stacks of a thread that is gone.
	 * [owner] writes; [atomic] release: the change lies in between
	 */
	_Atomic uint32_t busy;
	/*
	 * Somebody has nudged.  Set before `low` of all classes; the owner
	 * clears it before it settles them.  [atomic] seq_cst
	 */
	_Atomic bool nudged;
	/*
	 * One bit for each class that had an event, or a limit from the
	 * thread before: the others have no limit and hold nothing. [owner]
	 */
	uint64_t used[HZ4_CLS_END / 64 + 1];
	uint32_t visits;  /* slow paths so far [owner] */
	uint32_t flushed; /* hz4_purge_flushes() at the last flush [owner] */
	uint32_t decayed; /* hz4_purge_decays() at the last decay [owner] */
	uint64_t looked;  /* ms of the last look while nudged [owner] */
	bool looking;	  /* at the clock, since a nudge [owner] */
	uint32_t misses;  /* slow paths not asked for, since: [owner] */
	uint64_t missed_since; /* ms [owner] */
	uint64_t resting; /* ms until which it does not nudge [owner] */
	/* Addresses of what realloc moved last, and which comes next: */
	uintptr_t grown[HZ4_GROWN_LATEST]; /* [owner] */
	uint32_t grown_next;		   /* [owner] */
	struct hz4_budget budget;
	struct hz4_pace pace;
	struct hz4_counts counts[HZ4_MID_STATS_B1 ? HZ4_CLS_VALUES : 1];
};

/* The class's calls are still looked at. */
HZ4_FAST bool
hz4_stacks_careful(struct hz4_cache *c, unsigned cls)
{
	return c->tier[cls].calls < HZ4_CAREFUL_CALLS;
}

/* The end of what a stack may hold; it may have no array yet. */
HZ4_FAST void **
hz4_stacks_limit(struct hz4_cache *c, unsigned cls)
{
	void **base = hz4_peek(&c->stack[cls].base);

	return base == NULL ? NULL : base + c->tier[cls].limit;
}

/* Set high and low; L0 keeps its floor if it may. */
void hz4_stacks_set_ends(struct hz4_cache *c, unsigned cls);

/* As hz4_stacks_set_ends, after one call of malloc or free in a slow path. */
void hz4_stacks_called(struct hz4_cache *c, unsigned cls);

/*
 * A decay: the class lay idle, and its next calls are careful ones; or it
 * did not, and its L0 gets another chance.
 */
void hz4_stacks_idle(struct hz4_cache *c, unsigned cls);
void hz4_stacks_busy(struct hz4_cache *c, unsigned cls);

/* The floor of an open L0 moves; too often, and L0 is closed. */
void hz4_stacks_move_floor(struct hz4_cache *c, unsigned cls, void **floor);

/* Add the hits that the stack counted to those of the tier that it is. */
void hz4_stacks_add_hits(struct hz4_cache *c, unsigned cls,
			 struct hz4_counts *out);

/* Nudge: see above.  May be called by any thread. */
void hz4_stacks_nudge(struct hz4_cache *c);

/* Undo the nudge for all classes.  Owner only. */
void hz4_stacks_settle(struct hz4_cache *c);

HZ4_FAST bool
hz4_stacks_nudged(struct hz4_cache *c)
{
	return hz4_peek(&c->nudged);
}

#endif
