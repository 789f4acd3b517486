/*
 * stacks.h - a thread's cache as data: one stack of free objects per size
 * class, and where malloc and free stop.
 *
 *      base      oldest            top            high      base + room
 *        |  gone   |    objects     |    limit     |  not used  |
 *
 *     oldest <= top <= high,  high - oldest == limit,  high <= base + room
 *
 * When the oldest objects have gone the others stay where they are, until the
 * array has no room for the limit any more.  The oldest is where the last one
 * was, too, so that a call that a signal has interrupted finds no other end.
 * HZ4_STACK_BELOW words lie below it, so that the fast paths may look there
 * (cache.h).
 *
 * `high` and `low` follow from the array, the limit, the careful calls and the
 * watch.  Whoever changes one of those says so here, and both are set anew.
 *
 * The first HZ4_CAREFUL_CALLS calls of a class are careful: high is top and
 * low lies above, so that both malloc and free take the slow path.  There a
 * free is looked up in the span and in all of the stack.  A program that
 * uses a class now and then has its double frees found at the call, and one
 * that uses it much does not pay.  Careful again are the calls after the stack
 * was emptied, or ran over and holds less than HZ4_STACK_PLENTY: what was just
 * freed may have left it, and the fast paths would not find it.
 *
 * The fast paths know no clock.  While free pages wait for their time one
 * thread watches: its `low`s lie above every address, so that its mallocs take
 * the slow path, where it looks at the clock now and then (heap.c).  The same
 * of all threads while allocations are sampled (profile.c).  Such a stack is
 * open for all that: HZ4_STOP_OPEN says so, and malloc's slow path needs to
 * know no more before it takes the top.
 *
 * Layer 3.  Has HZ4_RANK_CACHE; its thread takes it only once it was stopped
 * (idle.h).
 */
#ifndef HZ4_STACKS_H
#define HZ4_STACKS_H

#include "lock.h"
#include "pace.h"
#include "sample.h"
#include "share.h"
#include "sizeclass.h"
#include "stats.h"

struct hz4_stack {
	/* [owner] writes; [atomic] relaxed: others read it for figures */
	void **_Atomic top;
	/*
	 * Where malloc stops, the oldest or one of the two below, and free.
	 * [owner] writes, and who empties the cache, and `low` who starts to
	 * sample; [atomic] relaxed
	 */
	void **_Atomic low;
	void **_Atomic high;
	/* [owner] writes; [atomic] relaxed: others read it for figures */
	void **_Atomic base;
	HZ4_HITS_MEMBER
};

/* Closed; and open for who has looked at what is watched or counted. */
#define HZ4_STOP ((void **)UINTPTR_MAX)
#define HZ4_STOP_OPEN ((void **)(UINTPTR_MAX - 1))

enum {
	/*
	 * As far as malloc looks below the object that it takes: so many of
	 * the latest that were freed are found when they are freed again.
	 */
	HZ4_STACK_BELOW = 4,
	/* Of a stack of so many, as many stay when half of it goes. */
	HZ4_STACK_PLENTY = 2 * HZ4_STACK_BELOW,
};

/* What happened last at the ends of a class's stack. */
enum hz4_turn { HZ4_TURN_NONE, HZ4_TURN_MISS, HZ4_TURN_OVERFLOW };

/* The colder half of a class's stack. */
struct hz4_tier {
	uint16_t limit;	   /* objects the stack may hold [owner] */
	uint16_t room;	   /* objects its array has room for [owner] */
	uint8_t turn : 2;  /* enum hz4_turn [owner] */
	bool used : 1;	   /* had an event since the decay [owner] */
	uint8_t calls;	   /* careful ones so far [owner] */
	/*
	 * Places of the array below the oldest object.  [owner] writes, and
	 * who empties the cache; [atomic] relaxed: others read it for figures
	 */
	_Atomic uint16_t gone;
	/*
	 * Objects taken from spans less those given back: what the user
	 * and the cache have.  [owner] writes; [atomic] relaxed
	 */
	_Atomic int64_t net;
};

/* How far others have come with a cache whose thread stays away (idle.h). */
enum hz4_idle { HZ4_IDLE_NO, HZ4_IDLE_ASKED, HZ4_IDLE_STOPPED, HZ4_IDLE_EMPTY };

struct hz4_cache {
	struct hz4_stack stack[HZ4_CLS_VALUES];
	struct hz4_tier tier[HZ4_CLS_END];
	/*
	 * The class whose stack is being changed, 0: none.  Calls that come
	 * meanwhile, from a wrapper around one of libc's or a signal's
	 * handler, do without the cache; the child of a fork can use all
	 * other stacks of a thread that is gone.
	 * [owner] writes; [atomic] release: the change lies in between
	 */
	_Atomic uint32_t busy;
	/*
	 * Slow paths that the thread is in: none, mostly.  [owner] writes;
	 * [atomic] release when it leaves
	 */
	_Atomic uint32_t inside;
	_Atomic uint32_t idle; /* enum hz4_idle [atomic] acquire, release */
	struct hz4_lock lock;  /* while another thread has the stacks */
	bool waking;	       /* its thread comes back [owner] */
	/* Bytes that the limits may come to: left + limits == granted. */
	size_t granted;	  /* [owner] */
	size_t left;	  /* [owner] */
	size_t taken;	  /* of them, from what threads share [owner] */
	uint32_t events;  /* of all classes, since they grew [owner] */
	bool watching;	  /* see above [owner] */
	uint16_t to_look; /* mallocs until it looks at the clock [owner] */
	uint32_t visits;  /* slow paths so far [owner] */
	uint64_t decayed; /* ms of the last decay [owner] */
	/* Bytes to spans less those from there, since it told. [owner] */
	ptrdiff_t returned;
	/* Addresses of what realloc moved last, and which comes next: */
	uintptr_t grown[HZ4_GROWN_LATEST]; /* [owner] */
	uint32_t grown_next;		   /* [owner] */
	struct hz4_pace pace;
	struct hz4_sampler sampler;
	struct hz4_counts counts[HZ4_MID_STATS_B1 ? HZ4_CLS_VALUES : 1];
};

_Static_assert(4 * HZ4_CACHE_MAX_OBJECTS <= UINT16_MAX,
	       "places of an array are counted in 16 bits");
_Static_assert(sizeof(struct hz4_stack) == HZ4_STACK_BYTES &&
		       offsetof(struct hz4_cache, stack) == 0,
	       "the page map leads to the stacks");

/*
 * Every call reads where it stops anew, also one that is inlined into a loop of
 * the program: another thread may have stopped the stack.
 */
HZ4_FAST void
hz4_stacks_look(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* The stack at so many bytes from that of class 0. */
HZ4_FAST struct hz4_stack *
hz4_stacks_at(struct hz4_cache *c, size_t offset)
{
	return (struct hz4_stack *)(void *)((char *)c + offset);
}

/* The class's calls are still looked at. */
HZ4_FAST bool
hz4_stacks_careful(struct hz4_cache *c, unsigned cls)
{
	return c->tier[cls].calls < HZ4_CAREFUL_CALLS;
}

/* Where the oldest object of a stack lies, if it has any. */
HZ4_FAST void **
hz4_stacks_oldest(struct hz4_cache *c, unsigned cls)
{
	void **base = hz4_peek(&c->stack[cls].base);

	return base == NULL ? NULL : base + hz4_peek(&c->tier[cls].gone);
}

/* The end of what a stack may hold; it may have no array yet. */
HZ4_FAST void **
hz4_stacks_limit(struct hz4_cache *c, unsigned cls)
{
	void **oldest = hz4_stacks_oldest(c, cls);

	return oldest == NULL ? NULL : oldest + c->tier[cls].limit;
}

/* Set high and low. */
void hz4_stacks_set_ends(struct hz4_cache *c, unsigned cls);

/* Have both malloc and free of the class take the slow path, whoever calls. */
void hz4_stacks_stop(struct hz4_cache *c, unsigned cls);

/* As hz4_stacks_set_ends, after one call of malloc or free in a slow path. */
void hz4_stacks_called(struct hz4_cache *c, unsigned cls);

/*
 * The class lay idle, or the latest objects have left its stack: its next
 * calls are careful ones.
 */
void hz4_stacks_idle(struct hz4_cache *c, unsigned cls);

/* A stack is being changed, HZ4_CLS_NONE: none, on this side of the call. */
void hz4_stacks_set_busy(struct hz4_cache *c, unsigned cls);

/*
 * Between the two neither malloc nor free of the class is served by its
 * stack, and a fork's child must not use it: what follows the first call, and
 * what comes before the second, stays on its side.
 */
void hz4_stacks_close(struct hz4_cache *c, unsigned cls);
void hz4_stacks_open(struct hz4_cache *c, unsigned cls);

/* With it closed, which it stays: another top, maybe in another array. */
void hz4_stacks_move_top(struct hz4_cache *c, unsigned cls, void **top);

/*
 * Likewise: what it holds moves to the beginning of its array, if that has no
 * room for its limit otherwise.
 */
void hz4_stacks_settle(struct hz4_cache *c, unsigned cls);

/* Watch, or watch no more. */
void hz4_stacks_watch(struct hz4_cache *c, bool watch);

/* Add the hits that the stack counted to those of the tier that it is. */
void hz4_stacks_add_hits(struct hz4_cache *c, unsigned cls,
			 struct hz4_counts *out);

#endif
