/*
 * l1.pml - the CPUs' L1s, and a fork at any point.
 *
 * Models src/l1.c: hz4_l1_lock (try), hz4_l1_take with refill, hz4_l1_give
 * with make_way and give_oldest, hz4_l1_decay, hz4_l1_flush, and
 * hz4_l1_fork_child with start_afresh; the callers in src/cache.c, take_below
 * and give_below, hz4_cache_refill, give_oldest, hz4_cache_adopt; and
 * hz4_fork_look (src/lock.h) as far as thread A does it.
 *
 * Two L1s of one class.  A thread may be moved or preempted anywhere, so each
 * tries any of the two first, then the other, then goes to the spans.  Users'
 * objects are common: any thread frees any of them.  The fork is made by a
 * handler of A's signal, which may come anywhere, too: A goes on where it
 * was, and all others are gone where they were.  There need not be one.
 *
 * Holds: who gets an object is the only one who has it, none is in two places
 * in the end, nobody waits for ever, and every object is the user's or in its
 * span when all is given back.  In the child the same of all objects but those
 * that a gone thread was just moving: what lay in a stack that was open, or in
 * a shelf that was not busy, is there.
 *
 * compile with -DNOREDUCE
 *
 * MUTANT 1: the child leaves the locks of gone threads
 * MUTANT 2: it drops them, and keeps a shelf that was busy
 * MUTANT 3: the oldest go to the spans and the shelf is not busy
 * MUTANT 4: who gives counts the objects before they are copied
 * MUTANT 5: who takes unlocks before the objects are counted
 * MUTANT 6: who is refused by both uses the last one as it is
 * MUTANT 7: a stack is adopted though it was closed
 * MUTANT 8: who takes does not note how few are left
 * MUTANT 9: the child empties all shelves of lost locks
 * MUTANT 10: the lock that A itself holds counts as lost
 * MUTANT 11: there is no look at the room before a give
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef USERS
#define USERS 2
#endif

#define OBJECTS 3
#define L1S 2
#define ROOM 2		/* of a shelf, and what it may hold */
#define LIMIT 2		/* of a stack; all of it is taken, half given */
#define NONE 255
#define A 0

bool lies[OBJECTS] = true;
bool out[OBJECTS];	/* some user's */
bool safe[OBJECTS];	/* of no thread that was gone in the middle */

byte lock[L1S];		/* 0, or who has it and 1 */
bool busy[L1S];
byte shelf[L1S * ROOM] = NONE;
byte count[L1S];
byte least[L1S];

byte stack[USERS * LIMIT] = NONE;
byte top[USERS];
bool closed[USERS];

bool forked;
bool seen;		/* A has started the child afresh */
bool settled;		/* there will be no fork, or there was one */
byte done;		/* threads that have ended, or are gone */

#define AT(l, i) shelf[(l) * ROOM + (i)]
#define ON(t, i) stack[(t) * LIMIT + (i)]

/* hz4_l1_fork_child, by A. */
inline afresh(l) {
#if MUTANT != 1
	if
#if MUTANT == 10
	:: lock[l] != 0 ->
#else
	:: lock[l] != 0 && lock[l] != A + 1 ->
#endif
#if MUTANT != 2
		if
#if MUTANT == 9
		:: true ->
#else
		:: busy[l] ->
#endif
			count[l] = 0;
			least[l] = 0;
			AT(l, 0) = NONE;
			AT(l, 1) = NONE
		:: else
		fi;
#endif
		busy[l] = false;
		lock[l] = 0
	:: else
	fi
#else
	skip
#endif
}

/* Before every lock, and what is shared without one. */
inline look() {
	if
	:: me == A && forked && !seen ->
		d_step { afresh(0); afresh(1); seen = true }
	:: else
	fi
}

/* One object out of its span, or NONE, into what others do not look at. */
inline out_of_span(to) {
	look();
	d_step {
		o = (lies[0] -> 0 : (lies[1] -> 1 : (lies[2] -> 2 : NONE)));
		if
		:: o != NONE -> lies[o] = false; to = o; n++
		:: else
		fi
	}
}

inline to_span(p) {
	look();
	d_step {
		assert(p != NONE && !lies[p] && !out[p]);
		lies[p] = true
	}
}

#define MINE (lock[l] == me + 1)

/* hz4_l1_lock: any, then the other; NONE: go to the spans. */
inline try_any() {
	if
	:: l = 0
	:: l = 1
	fi;
	look();
	if
	:: lock[l] == 0 -> lock[l] = me + 1
	:: else -> l = 1 - l
	fi
}

inline try_other() {
	if
	:: MINE
	:: else -> atomic {
		if
		:: lock[l] == 0 -> lock[l] = me + 1
#if MUTANT != 6
		:: else -> l = NONE
#else
		:: else
#endif
		fi }
	fi
}

inline unlock() { lock[l] = 0 }

/* give_oldest: `n` of them, the others lie first then. */
inline shelf_to_spans() {
	if
	:: n > 0 ->
#if MUTANT != 3
		busy[l] = true;
#endif
		to_span(AT(l, 0));
		if
		:: n == 2 -> to_span(AT(l, 1))
		:: else
		fi;
		d_step {
			assert(n <= count[l]);
			AT(l, 0) = (n == 1 -> AT(l, 1) : NONE);
			AT(l, 1) = NONE;
			count[l] = count[l] - n;
			least[l] = (least[l] < count[l] -> least[l] : count[l]);
			busy[l] = false
		}
	:: else
	fi
}

/* hz4_l1_take, into the closed and empty stack: `n` objects. */
inline take() {
	if
	:: count[l] == 0 ->
		n = 0;
		do
		:: n < ROOM ->
			out_of_span(AT(l, n));
			if
			:: o == NONE -> break
			:: else
			fi
		:: else -> break
		od;
		count[l] = n
	:: else
	fi;
	d_step {
		n = count[l];
		ON(me, 0) = (n > 0 -> AT(l, 0) : NONE);
		ON(me, 1) = (n > 1 -> AT(l, 1) : NONE)
	};
#if MUTANT == 5
	unlock();
#endif
	d_step {
#if MUTANT != 8
		least[l] = 0;
#endif
		count[l] = 0;
		AT(l, 0) = NONE;
		AT(l, 1) = NONE
	};
#if MUTANT != 5
	unlock()
#endif
}

/* The next one is the user's. */
inline hand_out(p) {
	assert(p != NONE && !out[p] && !lies[p]);
	out[p] = true;
	p = NONE
}

inline forget() { l = 0; n = 0; o = 0; x = 0 }

/* Of the stack, which is closed and empty. */
inline refill() {
	try_other();
	if
	:: l != NONE -> take()
	:: else -> n = 0; out_of_span(ON(me, 0))
	fi;
	d_step {
		closed[me] = false;
		if
		:: n > 0 -> top[me] = n - 1; hand_out(ON(me, n - 1))
		:: else
		fi;
		forget()
	}
}

/* hz4_l1_give, of the stack's oldest. */
inline give() {
#if MUTANT != 11
	if
	:: count[l] == ROOM -> n = 1; shelf_to_spans()
	:: else
	fi;
#endif
	assert(count[l] < ROOM);
#if MUTANT == 4
	count[l] = count[l] + 1;
	AT(l, count[l] - 1) = ON(me, 0);
#else
	AT(l, count[l]) = ON(me, 0);
	count[l] = count[l] + 1;
#endif
	unlock()
}

/* give_oldest of the stack, which is closed: one, in favour of `x`. */
inline stack_gives() {
	try_other();
	if
	:: l != NONE -> give()
	:: else -> to_span(ON(me, 0))
	fi;
	d_step {
		ON(me, 0) = ON(me, 1);
		ON(me, 1) = x;
		if
		:: x == NONE -> top[me]--
		:: else
		fi;
		closed[me] = false;
		forget()
	}
}

#define SOME_OUT (out[0] || out[1] || out[2])

/* An object of some user is no more. */
inline freed(p) {
	p = (out[0] -> 0 : (out[1] -> 1 : 2));
	out[p] = false
}

/* What any thread does, one call after the other. */
#define CALLS \
	:: d_step { top[me] > 0 -> top[me]--; hand_out(ON(me, top[me])) } \
	:: atomic { top[me] == 0 -> closed[me] = true; try_any() }; \
		refill() \
	:: d_step { SOME_OUT && top[me] < LIMIT -> \
			freed(ON(me, top[me])); \
			top[me]++ } \
	:: atomic { SOME_OUT && top[me] == LIMIT -> \
			freed(x); \
			closed[me] = true; \
			try_any() }; \
		stack_gives() \
	:: break

/* The thread's end, or a flush. */
inline end() {
	do
	:: top[me] > 0 ->
		atomic { x = NONE; closed[me] = true; try_any() };
		stack_gives()
	:: else -> break
	od
}

inline decay() {
	atomic {
		if
		:: lock[0] == 0 -> l = 0
		:: lock[1] == 0 -> l = 1
		fi;
		lock[l] = me + 1;
		n = least[l]
	};
	shelf_to_spans();
	d_step { least[l] = count[l]; unlock(); forget() }
}

/* Waits: it has no other. */
inline flush(i) {
	look();
	assert(!seen || lock[i] == 0);
	atomic { lock[i] == 0; lock[i] = me + 1; l = i; n = count[l] };
	shelf_to_spans();
	d_step { unlock(); forget() }
}

proctype other(byte me)
{
	byte l, n, o, x;

	{
		do
		CALLS
		:: decay()
		od;
		flush(0);
		end();
		done++;
		settled
	} unless {
		/* Where it was makes no difference to anyone any more. */
		d_step { forked -> forget() }
	}
}

/* hz4_cache_adopt; it becomes A's own stack, which is empty. */
inline adopt(t) {
	d_step {
#if MUTANT != 7
		if
		:: closed[t] -> top[t] = 0
		:: else
		fi;
#endif
		ON(me, 0) = (top[t] > 0 -> ON(t, 0) : NONE);
		ON(me, 1) = (top[t] > 1 -> ON(t, 1) : NONE);
		top[me] = top[t];
		top[t] = 0
	};
	end()
}

proctype a()
{
	byte me = A, l, n, o, x;

	do
	CALLS
	od;
	end();
	settled;
	if
	:: forked ->
		look();
		adopt(1);
#if USERS == 3
		adopt(2);
#endif
	:: else -> done == USERS - 1
	fi;
	flush(0);
	flush(1);
	for (o : 0 .. OBJECTS - 1) {
		assert(!lies[o] || !out[o]);
		assert(lies[o] || out[o] || (forked && !safe[o]))
	}
}

#define IN_SHELF(o, l) (((count[l] > 0 && AT(l, 0) == o) || \
	(count[l] > 1 && AT(l, 1) == o)) && !busy[l])
#define IN_STACK(o, t) (((top[t] > 0 && ON(t, 0) == o) || \
	(top[t] > 1 && ON(t, 1) == o)) && !closed[t])
#if USERS == 3
#define IN_STACKS(o) (IN_STACK(o, 0) || IN_STACK(o, 1) || IN_STACK(o, 2))
#else
#define IN_STACKS(o) (IN_STACK(o, 0) || IN_STACK(o, 1))
#endif
#define SAFE(o) (lies[o] || out[o] || IN_SHELF(o, 0) || IN_SHELF(o, 1) || \
	IN_STACKS(o))

init {
	atomic {
		run a();
		run other(1);
#if USERS == 3
		run other(2);
#endif
	};
	if
	:: atomic {
		safe[0] = SAFE(0);
		safe[1] = SAFE(1);
		safe[2] = SAFE(2);
		forked = true;
		settled = true }
	:: settled = true
	fi
}
