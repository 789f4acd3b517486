/*
 * nudge.pml - a request to another thread: nudge and settle.
 *
 * Models hz4_stacks_nudge, hz4_stacks_settle, hz4_stacks_set_ends and hz4_cache_pop_nudged
 * (src/cache.c, src/stacks.c), answer_nudge and take_cached (src/heap.c), and the caller of
 * hz4_thread_nudge_all, who has raised a number (hz4_purge_ask_flush or the
 * decay's) before.
 *
 * Memory is weaker here than in other models: each thread's stores to `low`
 * and `nudged` wait in a buffer of their own and reach memory in any order,
 * save that a seq_cst store comes after those before it; a fence waits for
 * all of them, and so does a seq_cst exchange.
 *
 * The owner has two classes, of which it allocates at any time.  Two nudges
 * are made.  Holds in the end, when both threads have come to rest and the
 * owner has allocated from each class once more: the last request has been
 * answered.  And after yet another malloc of each class: no `low` is left
 * nudged, so that malloc is fast again.
 *
 * MUTANT 1: no fence between `nudged` and the `low`s in a nudge
 * MUTANT 2: settling does not look at `nudged` again
 * MUTANT 3: the request is not looked at again after settling
 * MUTANT 4: a `low` that is nudged for no reason stays
 * MUTANT 5: a nudge raises the `low`s before it sets `nudged`
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define CLASSES 2
#define NUDGES 2

/* Memory. */
bool nudged;
bool low[CLASSES];	/* nudged, else base */
byte request;		/* what the nudges ask for, a number */
byte answered;		/* [owner] */
bool nudger_done;

/* The buffers: what is on the way to memory. */
#define NOTHING 2
byte own_low[CLASSES] = NOTHING;
byte own_nudged = NOTHING;
byte her_low[CLASSES] = NOTHING;
byte her_nudged = NOTHING;

#define OWN_EMPTY (own_low[0] == NOTHING && own_low[1] == NOTHING && \
	own_nudged == NOTHING)
#define HER_EMPTY (her_low[0] == NOTHING && her_low[1] == NOTHING && \
	her_nudged == NOTHING)

/* What a thread reads: its own store if that is still on the way. */
#define OWN_LOW(c) (own_low[c] == NOTHING -> low[c] : own_low[c])
#define OWN_NUDGED (own_nudged == NOTHING -> nudged : own_nudged)

inline own_store(c, v) { atomic { own_low[c] == NOTHING; own_low[c] = v } }
inline own_fence() { OWN_EMPTY }

/* Stores reach memory one by one, at any time. */
active proctype memory()
{
end:	do
	:: atomic { own_low[0] != NOTHING ->
		low[0] = own_low[0]; own_low[0] = NOTHING }
	:: atomic { own_low[1] != NOTHING ->
		low[1] = own_low[1]; own_low[1] = NOTHING }
	:: atomic { own_nudged != NOTHING ->
		nudged = own_nudged; own_nudged = NOTHING }
	:: atomic { her_low[0] != NOTHING ->
		low[0] = her_low[0]; her_low[0] = NOTHING }
	:: atomic { her_low[1] != NOTHING ->
		low[1] = her_low[1]; her_low[1] = NOTHING }
	:: atomic { her_nudged != NOTHING ->
		nudged = her_nudged; her_nudged = NOTHING }
	od
}

/* hz4_stacks_nudge by the other thread. */
inline nudge_her() {
#if MUTANT == 5
	her_low[0] = true;
	her_low[1] = true;
	HER_EMPTY;
	her_nudged = true;
	HER_EMPTY
#else
	HER_EMPTY; /* a release store comes after those before */
	her_nudged = true;
#if MUTANT != 1
	HER_EMPTY;
#endif
	her_low[0] = true;
	her_low[1] = true
#endif
}

active proctype nudger()
{
	byte i;

	do
	:: i < NUDGES ->
		request++;
		nudge_her();
		HER_EMPTY; /* its lock is dropped before it comes again */
		i++
	:: else -> break
	od;
	nudger_done = true
}

/* hz4_stacks_nudge by the owner itself. */
inline nudge_own() {
	OWN_EMPTY;
	own_nudged = true;
	OWN_EMPTY;
	own_store(0, true);
	own_store(1, true)
}

inline settle() {
	/* The exchange: it reads what it overwrites, with all before that. */
	atomic { OWN_EMPTY; nudged = false };
	own_store(0, false);
	own_store(1, false);
	own_fence();
#if MUTANT != 2
	if
	:: OWN_NUDGED -> nudge_own()
	:: else
	fi
#endif
}

inline answer() {
	seen = request;
	if
	:: seen != answered -> answered = seen
	:: else
	fi;
	settle();
#if MUTANT != 3
	if
	:: request != answered -> nudge_own()
	:: else
	fi
#endif
}

/* hz4_stacks_set_ends, in each slow path: a `low` may come after its answer. */
inline repair(c) {
#if MUTANT == 4
	skip
#else
	if
	:: OWN_LOW(c) && !OWN_NUDGED ->
		own_store(c, false);
		own_fence();
		if
		:: OWN_NUDGED -> own_store(c, true)
		:: else
		fi
	:: else
	fi
#endif
}

inline malloc(c) {
	if
	:: OWN_LOW(c) ->
		if
		:: OWN_NUDGED -> answer()
		:: else
		fi;
		repair(c)
	:: else
	fi
}

active proctype owner()
{
	byte seen;

	do
	:: true -> malloc(0)
	:: true -> malloc(1)
	:: nudger_done && HER_EMPTY -> break
	od;
	malloc(0);
	malloc(1);
	OWN_EMPTY;
	assert(answered == request);
	malloc(0);
	malloc(1);
	OWN_EMPTY;
	assert(answered == request);
	assert(!low[0] && !low[1] && !nudged)
}
