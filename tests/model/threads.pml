/*
 * threads.pml - the life of a thread's cache, and the pool.
 *
 * Models make_thread, end_thread, hz4_thread_cache, hz4_thread_flush_ended
 * (src/thread.c), hz4_cache_end (src/cache.c) as far as objects move, and
 * take_bare and give_bare (src/heap.c) for calls after the thread's end.
 *
 * Structures 0 and 1 exist; 0 was adopted by a fork before, and its cache
 * holds an object.  Threads start, allocate, free, end with some objects in
 * their caches, which the next thread finds there, and free once more in a
 * late destructor; one of them trims before it has a cache.
 *
 * Holds: a structure has one user at most and is in one list at most; who
 * works on a cache is its user; in the end no thread has one, both are in the
 * pool, and every object is in its span or in a cache that a trim flushes.
 *
 * MUTANT 1: the structure goes to the pool before its cache is cut
 * MUTANT 2: a cache is flushed while it stays in the pool
 * MUTANT 3: the thread's end leaves its pointer to the cache
 * MUTANT 4: the pool's list is looked at without the lock
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define THREADS 3
#define CACHES 2
#define OBJECTS 3
#define NONE 255

/* Where an object is: NONE in its span, a cache, or USER + thread. */
#define USER 100

mtype = { FREE, LIVE, ENDED, BETWEEN };

byte place[OBJECTS] = NONE;
mtype list[CACHES] = FREE;
bool holds[CACHES];		/* may hold objects */
byte user_of[CACHES] = NONE;	/* the thread that may touch a cache */
bool lock;
byte done;

inline acquire() { atomic { !lock; lock = true } }
inline release() { lock = false }

inline own(t) { atomic { assert(user_of[t] == NONE); user_of[t] = me } }
inline disown(t) { atomic { assert(user_of[t] == me); user_of[t] = NONE } }

/* hz4_thread_cache of a thread that has none yet. */
inline make_thread() {
	cache = NONE;
#if MUTANT == 4
	if
	:: list[0] == ENDED -> cache = 0
	:: list[1] == ENDED -> cache = 1
	:: else
	fi;
	acquire();
#else
	acquire();
	if
	:: list[0] == ENDED -> cache = 0
	:: list[1] == ENDED -> cache = 1
	:: else
	fi;
#endif
	if
	:: cache != NONE ->
		list[cache] = LIVE;
		holds[cache] = false;
		release()
	:: else ->
		release();
		/* New memory; when there is none the thread has no cache. */
		atomic {
			if
			:: list[0] == FREE -> cache = 0; list[0] = BETWEEN
			:: list[1] == FREE -> cache = 1; list[1] = BETWEEN
			:: else
			fi
		};
		if
		:: cache != NONE ->
			acquire();
			list[cache] = LIVE;
			release()
		:: else
		fi
	fi;
	if
	:: cache != NONE -> own(cache)
	:: else
	fi
}

inline malloc(o) {
	if
	:: atomic { cache != NONE && place[o] == cache ->
		assert(user_of[cache] == me);
		place[o] = USER + me }
	:: atomic { place[o] == NONE -> place[o] = USER + me }
	:: else
	fi
}

inline free(o) {
	atomic {
		if
		:: place[o] == USER + me && cache != NONE ->
			assert(user_of[cache] == me);
			place[o] = cache
		:: place[o] == USER + me && cache == NONE ->
			place[o] = NONE
		:: else
		fi
	}
}

/*
 * hz4_cache_end, where some stay, and hz4_cache_flush: one object after the
 * other.
 */
inline give(t, all) {
	o = 0;
	do
	:: o < OBJECTS ->
		atomic {
			assert(user_of[t] == me);
			if
			:: place[o] == t -> place[o] = NONE
			:: place[o] == t && !all
			:: else
			fi;
			o++
		}
	:: else -> break
	od
}

inline to_pool(t) {
	acquire();
	assert(list[t] != ENDED);
	list[t] = ENDED;
	release()
}

inline end_thread() {
	if
	:: cache != NONE ->
		t = cache;
#if MUTANT != 3
		cache = NONE;
#endif
#if MUTANT == 1
		holds[t] = true;
		to_pool(t);
		give(t, false);
		disown(t)
#else
		give(t, false);
		holds[t] = true;
		disown(t);
		to_pool(t)
#endif
	:: else
	fi
}

inline flush_ended() {
	do
	:: true ->
		acquire();
		if
		:: list[0] == ENDED && holds[0] -> t = 0
		:: list[1] == ENDED && holds[1] -> t = 1
		:: else -> t = NONE
		fi;
#if MUTANT != 2
		if
		:: t != NONE -> list[t] = BETWEEN
		:: else
		fi;
#endif
		release();
		if
		:: t == NONE -> break
		:: else
		fi;
		own(t);
		give(t, true);
		holds[t] = false;
		disown(t);
#if MUTANT != 2
		to_pool(t)
#endif
	od
}

proctype thread(byte me)
{
	byte cache = NONE, t, o, mine;

	mine = me % OBJECTS;
	if
	:: me == 0 -> flush_ended()
	:: else
	fi;
	make_thread();
	malloc(mine);
	free(mine);
	malloc(0);
	end_thread();
	free(0);
	malloc(mine);
	free(mine);
	done++
}

inline check(t) {
	assert(list[t] == ENDED || list[t] == FREE);
	assert(user_of[t] == NONE)
}

init {
	byte i;

	atomic {
		list[0] = ENDED;
		holds[0] = true;
		place[2] = 0;
		do
		:: i < THREADS -> run thread(i); i++
		:: else -> break
		od
	};
	atomic {
		done == THREADS;
		assert(!lock);
		check(0);
		check(1);
		for (i : 0 .. OBJECTS - 1) {
			assert(place[i] == NONE ||
				(place[i] < CACHES && holds[place[i]]))
		}
	}
}
