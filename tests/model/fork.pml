/*
 * fork.pml - a fork while another thread allocates and frees.
 *
 * Models start_afresh and regroup_locked (src/thread.c), hz4_fork_look with
 * hz4_fork_look_slow and hz4_fork_lost (src/lock.h, src/lock.c),
 * hz4_spans_fork_child with empty_inbox, link_locked and hz4_spans_refresh
 * (src/spans.c), hz4_cache_push (src/cache.h), hz4_stacks_close and
 * hz4_stacks_open (src/stacks.c), and give_oldest, hz4_cache_refill,
 * hz4_cache_adopt (src/cache.c), as one thread sees them whose work is cut off
 * anywhere.
 *
 * Thread b works on its cache and on the spans until the fork, then it is no
 * more.  Thread a forks and goes on in the child, without any handler: frees
 * an object of before, allocates from all there is, and its cache's successor
 * takes over what b's cache held.  Thread c is new in the child, and may come
 * to a lock before a does: it takes an object and gives it back.
 *
 * Two spans of two objects, in one slab.  Changing the list is two steps,
 * between which it is `torn`.  Holds in the child: no lock is waited for in vain, no torn
 * list is walked, no object is in two places, what b's cache gives was
 * written, and a span that gets an object back is in the list.
 *
 * That a goes on is asserted where it takes the lock.
 *
 * compile with -DNOREDUCE
 * run with -E
 *
 * MUTANT 1: a lock that a thread which is gone held stays held
 * MUTANT 2: the lock is dropped, the lists stay
 * MUTANT 3: the lists start afresh, `linked` stays
 * MUTANT 4: a stack is adopted though it was closed
 * MUTANT 5: a push raises `top` before the object is written
 * MUTANT 6: objects go back before their stack is closed
 * MUTANT 7: a span whose slab b was about to push is queued for ever
 * MUTANT 8: who comes by while another starts afresh does not wait
 * MUTANT 9: who does not take a lock at once does not look
 * MUTANT 10: a new thread in the child does not start afresh
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define SPANS 2
#define OBJECTS 4	/* span of o: o / 2 */
#define NONE 255
#define ROOM 2

bool forked;		/* thread b does nothing more */
bool gone;		/* and has ended, at once */

bool lies[OBJECTS];	/* in its span */
bool users_a[OBJECTS];	/* a's, from before or since */
bool users_b[OBJECTS];
bool users_c[OBJECTS];
bool ended;		/* thread c */

byte stack[ROOM] = NONE; /* b's cache */
byte top;
bool busy;

#define UNSEEN 0
#define STARTING 1
#define SEEN 2

byte word = UNSEEN;	/* in the child */
bool starts[4];		/* it is this thread that starts afresh */
bool adopted;		/* a has b's cache */

byte lock;		/* 0, or 1 for a, 2 for b, 3 for c */
bool torn;
bool in_list[SPANS];
bool linked[SPANS];
bool queued[SPANS];	/* bits of a word of the slab */
bool first[4];		/* who has set the first of these */
bool in_inbox;		/* the slab */
bool mine[SPANS];	/* what the lock's holder has taken out */

inline link(s) {
	assert(!torn);
	torn = true;
	in_list[s] = true;
	torn = false;
	linked[s] = true
}

inline unlink(s) {
	assert(!torn);
	torn = true;
	in_list[s] = false;
	torn = false;
	linked[s] = false
}

#define HAS_FREE(s) (lies[(s) * 2] || lies[(s) * 2 + 1])

/* One object of span s by a or b, with the lock held. */
inline take_from(s, o) {
	o = NONE;
	if
	:: atomic { lies[s * 2] -> lies[s * 2] = false; o = s * 2 }
	:: atomic { lies[s * 2 + 1] -> lies[s * 2 + 1] = false; o = s * 2 + 1 }
	:: else
	fi
}

/* With the lock held; what is queued for a list enters it. */
inline drain_one(s) {
	if
	:: mine[s] && !linked[s] && HAS_FREE(s) -> link(s)
	:: else
	fi;
	mine[s] = false
}

inline drain_slab() {
	d_step {
		mine[0] = queued[0];
		mine[1] = queued[1];
		queued[0] = false;
		queued[1] = false
	};
	drain_one(0);
	drain_one(1)
}

inline drain() {
	if
	:: in_inbox -> in_inbox = false; drain_slab()
	:: else
	fi
}

inline start_afresh() {
#if MUTANT != 1
	if
	:: lock == 2 ->
#if MUTANT != 2
		torn = false;
		in_list[0] = false;
		in_list[1] = false;
#if MUTANT != 3
		linked[0] = false;
		linked[1] = false;
#endif
		if
		:: HAS_FREE(0) -> link(0)
		:: else
		fi;
		if
		:: HAS_FREE(1) -> link(1)
		:: else
		fi;
#endif
		lock = 0
	:: else
	fi;
#endif
#if MUTANT == 7
	drain()
#else
	in_inbox = false;
	drain_slab()
#endif
}

/* Whoever comes first starts the child afresh, the others wait. */
inline look(who) {
	if
	:: forked && who != 2 ->
		atomic {
			if
#if MUTANT == 10
			:: who != 3 && word == UNSEEN ->
#else
			:: word == UNSEEN ->
#endif
				word = STARTING;
				starts[who] = true
			:: else
			fi
		};
		if
		:: starts[who] ->
			start_afresh();
			word = SEEN;
			starts[who] = false
		:: else
		fi;
#if MUTANT != 8 && MUTANT != 10
		word == SEEN
#endif
	:: else
	fi
}

inline acquire(who) {
	look(who);
	assert(!forked || lock != 2);
	atomic { lock == 0; lock = who }
}
inline release() { lock = 0 }

/* Give one object: the bit, then the inbox if its span is not linked. */
inline give(who, o) {
	atomic { assert(!lies[o]); lies[o] = true };
	if
	:: !linked[o / 2] ->
#if MUTANT != 9
		look(who);
#endif
		atomic {
			first[who] = !queued[0] && !queued[1];
			queued[o / 2] = true
		};
		if
		:: first[who] ->
			first[who] = false;
			assert(!in_inbox);
			in_inbox = true;
			acquire(who);
			drain();
			release()
		:: else
		fi
	:: else
	fi
}

inline take(who, s, o) {
	acquire(who);
	assert(!torn);
	drain();
	o = NONE;
	if
	:: in_list[0] -> s = 0
	:: in_list[1] -> s = 1
	:: !in_list[0] && !in_list[1] -> s = NONE
	fi;
	if
	:: s != NONE ->
		take_from(s, o);
		if
		:: !HAS_FREE(s) ->
			unlink(s);
			if
			:: HAS_FREE(s) -> link(s)
			:: else
			fi
		:: else
		fi
	:: else
	fi;
	release()
}

proctype b()
{
	byte s, o;

	{
	do
	:: top == 0 -> /* a miss: one for the user, one for the cache */
		busy = true;
		take(2, s, o);
		if
		:: o != NONE -> users_b[o] = true
		:: else
		fi;
		take(2, s, o);
		if
		:: o != NONE ->
			stack[top] = o;
			top++
		:: else
		fi;
		busy = false
	:: top > 0 -> /* a pop */
		atomic { top--; o = stack[top]; users_b[o] = true }
	:: top < ROOM -> /* a push of whatever b has */
		if
		:: users_b[0] -> o = 0
		:: users_b[1] -> o = 1
		:: users_b[2] -> o = 2
		:: users_b[3] -> o = 3
		:: else -> o = NONE
		fi;
		if
		:: o != NONE ->
			users_b[o] = false;
#if MUTANT == 5
			top++;
			stack[top - 1] = o
#else
			stack[top] = o;
			top++
#endif
		:: else
		fi
	:: top > 0 -> /* the oldest goes back */
		o = stack[0];
#if MUTANT == 6
		give(2, o);
#endif
		busy = true;
#if MUTANT != 6
		give(2, o);
#endif
		stack[0] = stack[1];
		top--;
		busy = false
	od
	} unless {
		/* Where it was makes no difference to anyone any more. */
		atomic { forked -> s = 0; o = 0; gone = true }
	}
}

/* The places where an object is; b's own user is gone with b. */
#define CACHED(o) (adopted && ((top > 0 && stack[0] == o) || \
	(top > 1 && stack[1] == o)))
#define PLACES(o) (lies[o] + users_a[o] + users_c[o] + CACHED(o))

inline once() {
	atomic {
		assert(PLACES(0) <= 1 && PLACES(1) <= 1);
		assert(PLACES(2) <= 1 && PLACES(3) <= 1);
		assert(!adopted || top < 1 || stack[0] != NONE);
		assert(!adopted || top < 2 || stack[1] != NONE);
		assert(top < 2 || !adopted || stack[0] != stack[1])
	}
}

/* By a alone, which knows that all others of before are gone. */
inline adopt() {
	atomic {
#if MUTANT != 4
		if
		:: busy -> top = 0
		:: else
		fi;
#endif
		adopted = true
	}
}

/* New in the child: an object from the spans, and back. */
proctype c()
{
	byte s, o;

	take(3, s, o);
	if
	:: o != NONE ->
		atomic { assert(!users_a[o] && !users_c[o]); users_c[o] = true };
		atomic { users_c[o] = false };
		give(3, o)
	:: else
	fi;
	ended = true
}

active proctype a()
{
	byte s, o, n;

	/* Before: span 0 is full but for a's object, span 1 is free. */
	atomic {
		users_a[0] = true;
		lies[1] = true;
		lies[2] = true;
		lies[3] = true;
		in_list[0] = true;
		in_list[1] = true;
		linked[0] = true;
		linked[1] = true;
		run b()
	};
	atomic { forked = true };
	atomic { gone -> run c() };
	users_a[0] = false;
	give(1, 0);
	once();
	look(1);
	adopt();
	once();
	/* What c still has is not missed. */
	ended;
	assert(in_list[0] && linked[0]);
	do
	:: n < OBJECTS ->
		take(1, s, o);
		if
		:: o == NONE -> break
		:: else
		fi;
		atomic { assert(!users_a[o]); users_a[o] = true };
		once();
		n++
	:: else -> break
	od;
	do
	:: adopted && top > 0 ->
		atomic {
			top--;
			o = stack[top];
			assert(o != NONE && !users_a[o] && !lies[o]);
			users_a[o] = true
		};
		once()
	:: else -> break
	od;
	n = 0;
	do
	:: n < OBJECTS ->
		if
		:: users_a[n] ->
			users_a[n] = false;
			give(1, n);
			assert(in_list[n / 2] && linked[n / 2])
		:: else
		fi;
		n++
	:: else -> break
	od
}
