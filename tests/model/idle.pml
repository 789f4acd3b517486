/*
 * idle.pml - the cache of a thread that stays away is emptied by another.
 *
 * Models step and step_locked (src/idle.c), hz4_cache_enter, hz4_cache_leave,
 * hz4_cache_pop and hz4_cache_push (src/cache.h), hz4_cache_wake, give_oldest
 * and hz4_cache_empty (src/cache.c), hz4_stacks_set_ends, hz4_stacks_settle
 * and hz4_stacks_stop (src/stacks.c): one class, its owner and one that
 * empties, as idle.lock has it.
 *
 * The owner's stores come to memory late and in order, as on x86 (a lock
 * waits for them), its loads at once.  The grace is that the stores which were
 * made before it have come to memory: the owner may be in the middle of a
 * call before it, and still at the same place after it.
 *
 * Holds: what is handed out was neither out nor in its span, what is given
 * back neither, and whenever the owner is awake each object is in one place.
 *
 * MUTANT 1: no grace between asked and stopped
 * MUTANT 2: no grace between stopped and emptied
 * MUTANT 3: no look whether the owner is in a slow path
 * MUTANT 4: the latest object goes, too
 * MUTANT 5: the others are moved down when the oldest go
 * MUTANT 6: the owner takes its stacks back without the lock
 * MUTANT 7: who has the lock does not look again
 * MUTANT 8: malloc stops where it did before others took of the stack
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define OBJECTS 3
#define PLACES 3		/* of the array */

#define NO 0
#define ASKED 1
#define STOPPED 2
#define EMPTY 3

/* What a store is to: a slot below PLACES, or: */
#define TOP 10
#define INSIDE 11
#define OPEN 12

bool lies[OBJECTS];
bool out[OBJECTS];		/* the owner's users have it */

/* As memory has it, and as the owner sees it. */
byte slot[PLACES], own_slot[PLACES];
byte top = OBJECTS, own_top = OBJECTS;
bool inside;
bool open = true;		/* low and high are where they should be */
byte opening;			/* such stores that are on their way */

byte idle;
byte gone;			/* places below the oldest */
byte low;			/* where the owner's malloc stops */
bool lock;

chan stores = [3] of { byte, byte };
byte grace;			/* stores that have to come to memory */

proctype memory()
{
	byte what, value;

end:	do
	:: d_step {
		stores?what,value ->
		if
		:: what == TOP ->
			top = value;
			/* What lies above is nobody's: fewer states. */
			for (what : value .. PLACES - 1) {
				slot[what] = 0
			}
		:: what == INSIDE -> inside = value
		:: what == OPEN -> open = true; opening--
		:: else -> slot[what] = value
		fi;
		if
		:: grace > 0 -> grace--
		:: else
		fi;
		what = 0;
		value = 0
	}
	od
}

inline hand_out(o) { assert(!lies[o] && !out[o]); out[o] = true }
inline to_span(o) { assert(!lies[o] && !out[o]); lies[o] = true }

inline store_top(n) {
	atomic { nfull(stores) -> own_top = n; stores!TOP,own_top }
}

inline pop(o) {
	atomic {
		nfull(stores) ->
		own_top--;
		own_slot[own_top] = 0;
		stores!TOP,own_top;
		hand_out(o);
		o = 0
	}
}

inline push(o) {
	out[o] = false;
	atomic { nfull(stores) -> own_slot[own_top] = o; stores!own_top,o };
	store_top(own_top + 1)
}

/* Each object once; while the owner is awake and in no fast path. */
inline check() {
	d_step {
		for (i : 0 .. OBJECTS - 1) {
			n = lies[i] + out[i];
			for (k : gone .. PLACES - 1) {
				n = n + (k < own_top && own_slot[k] == i)
			}
			assert(n == 1)
		}
		n = 0; i = 0; k = 0
	}
}

/* It has waited for the stores before: the lock does. */
inline wake() {
#if MUTANT == 6
	empty(stores);
#else
	atomic { !lock && empty(stores) -> lock = true };
#endif
	d_step {
#if MUTANT != 8
		low = gone;
#endif
		open = true
	};
	idle = NO;
#if MUTANT != 6
	lock = false
#endif
}

inline enter() {
	stores!INSIDE,1;
	seen = idle;
	if
	:: seen != NO -> seen = 0; wake()
	:: else
	fi;
	check()
}

/* hz4_stacks_set_ends, and hz4_cache_leave. */
inline leave() {
	atomic { nfull(stores) -> opening++; stores!OPEN,1 };
	stores!INSIDE,0
}

proctype owner()
{
	byte o, seen, i, k, n;

	do
	/* malloc, the fast path. */
	:: open || opening > 0 ->
		if
		:: own_top > low ->
			o = own_slot[own_top - 1];
			pop(o)
		:: else
		fi
	/* free, the same. */
	:: (open || opening > 0) && own_top < PLACES ->
		if
		:: out[0] -> push(0)
		:: out[1] -> push(1)
		:: out[2] -> push(2)
		:: else
		fi
	/* malloc, a miss or a careful one. */
	:: enter();
		if
		:: own_top > gone ->
			o = own_slot[own_top - 1];
			pop(o)
		:: lies[0] -> lies[0] = false; out[0] = true
		:: lies[1] -> lies[1] = false; out[1] = true
		:: lies[2] -> lies[2] = false; out[2] = true
		:: else
		fi;
		leave()
	/* free, the oldest go; its push is as the fast path's. */
	:: enter();
		if
		:: own_top > gone ->
			d_step {
				to_span(own_slot[gone]);
				own_slot[gone] = 0;
				gone++;
				low = gone
			}
		:: else
		fi;
		/* The array ends: the others move down. */
		do
		:: own_top == PLACES && gone > 0 ->
			k = gone;
			do
			:: k < PLACES ->
				atomic {
					nfull(stores) ->
					own_slot[k - gone] = own_slot[k];
					stores!(k - gone),own_slot[k]
				};
				k++
			:: else -> break
			od;
			atomic {
				nfull(stores) ->
				own_top = own_top - gone;
				stores!TOP,own_top;
				for (k : own_top .. PLACES - 1) {
					own_slot[k] = 0
				}
				gone = 0;
				low = 0;
				k = 0
			}
		:: else -> break
		od;
		leave()
	od
}

inline give_oldest() {
	d_step {
		to_span(slot[gone]);
#if MUTANT == 5
		slot[0] = slot[1];
		slot[1] = slot[2];
		own_slot[0] = slot[0];
		own_slot[1] = slot[1];
		top--;
		own_top = top
#else
		gone++
#endif
	}
}

proctype other()
{
	byte state;

	do
	:: state = idle;
		if
		:: state == EMPTY -> goto next
#if MUTANT != 3
		:: state != EMPTY && inside -> goto next
#endif
		:: else
		fi;
		if
		:: state == NO -> idle = ASKED; goto next
		:: else
		fi;
		if
		:: atomic { !lock -> lock = true }
		:: atomic { lock -> goto next }
		fi;
		if
#if MUTANT != 7
		:: idle != state -> skip
		:: else ->
#else
		:: true ->
#endif
			if
			:: state == ASKED ->
				idle = STOPPED;
				open = false
			:: else ->
				do
#if MUTANT == 4
				:: top > gone -> give_oldest()
#else
				:: top > gone + 1 -> give_oldest()
#endif
				:: else -> break
				od;
				idle = EMPTY
			fi
		fi;
		lock = false;
next:
		if
#if MUTANT == 1
		:: state == NO
#endif
#if MUTANT == 2
		:: state == ASKED
#endif
		:: else -> grace = len(stores); grace == 0
		fi;
		state = 0
	od
}

init {
	atomic {
		slot[1] = 1; slot[2] = 2;
		own_slot[1] = 1; own_slot[2] = 2;
		run memory();
		run owner();
		run other()
	}
}
