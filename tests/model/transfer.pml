/*
 * transfer.pml - objects between users and the spans of one class.
 *
 * Models src/transfer.c: take_locked and take_from_span (taker), take_new,
 * give_bits (giver, without a lock), src/spans.c: hz4_spans_drained_locked,
 * hz4_spans_is_empty, hz4_spans_refresh with push, drain_locked,
 * settle_locked, hz4_lists_unlock, src/spanpages.c: hz4_spans_make,
 * src/spanidle.c: hz4_idle_shed_locked, hz4_idle_release, and
 * src/spanlists.c: hz4_slab_take_locked, hz4_slab_give_locked.
 * A step here is one atomic access there; all of them are seq_cst in the
 * source, but for loads under the lock of bits that others only set.
 *
 * A span has two objects, each in a word of its own, so that looking at all
 * words takes more than one step.  The partial list is a set, the idle list
 * a part of it, and the taker may find any of its spans first.  Both spans
 * lie in one slab, which is purged when neither has pages: a late giver finds
 * zeros there.  The inbox has the slab or is empty, and nothing may stay
 * there.  A user takes one or two objects, gives them back together or keeps
 * them for ever.
 *
 * Holds in all interleavings: an object that is taken was nobody's, one that
 * is given was its giver's, a page belongs to one span, a slab is pushed into
 * the inbox only while it is not there, nobody but a taker waits for the
 * lock, who pushes knows the slab, and in the end each span with a free object is in the list, the inbox
 * is empty and no page is lost.
 *
 * MUTANT 1: the taker that drains a span does not look again
 * MUTANT 2: it looks again, but before it clears `linked`
 * MUTANT 3: the giver looks at `linked` before it sets the bit
 * MUTANT 4: the holder does not look into the inbox after it has unlocked
 * MUTANT 5: a span is linked again though it may have no pages
 * MUTANT 6: a span counts as queued until its bits have been looked at
 * MUTANT 7: the giver tries the lock before it pushes
 * MUTANT 8: the giver looks the slab up when it has set the bit
 * MUTANT 9: a slab is purged of which a span has pages
 * MUTANT 10: what is queued is taken before the slab leaves the inbox
 * MUTANT 11: who queues a second span of a slab pushes that, too
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef USERS
#define USERS 3
#endif

#define SPANS 2
#define PAGES 2
#define NONE 255

#define W(s, w) bits[(s) * 2 + (w)]
#define H(p, w) held[(p) * 2 + (w)]

bool bits[SPANS * 2];
bool linked[SPANS];
bool has_pages[SPANS]; /* `active` */
byte start[SPANS] = NONE;
bool in_list[SPANS];	/* the partial or the idle list */
bool idle[SPANS];
bool queued[SPANS];	/* bits of a word of the slab */
bool in_inbox;		/* the slab */
bool unused[SPANS] = true;
bool has_slab[SPANS];	/* the structure knows its slab; zeros do not */
byte owner[PAGES] = NONE; /* the page map */
bool page_free[PAGES] = true;
byte held[PAGES * 2] = NONE; /* whose an object is */
bool lock;
bool trimmed;
byte done;

inline acquire() { atomic { !lock; lock = true } }

/* A span has none any more: its slab may go. */
inline purge(x) {
	if
#if MUTANT == 9
	:: unused[x] ->
#else
	:: unused[0] && unused[1] ->
#endif
		W(0, 0) = false;
		W(0, 1) = false;
		W(1, 0) = false;
		W(1, 1) = false;
		has_slab[0] = false;
		has_slab[1] = false
	:: else
	fi
}

/*
 * Unlock; an idle span goes if there is another one to take from, and once
 * also if the other has no pages, as all do when memory is trimmed.
 */
inline unlock() {
	atomic {
		page = NONE;
		if
		:: idle[0] && in_list[1] -> x = 0
		:: idle[1] && in_list[0] -> x = 1
		:: idle[0] && unused[1] && !trimmed -> x = 0; trimmed = true
		:: idle[1] && unused[0] && !trimmed -> x = 1; trimmed = true
		:: x = NONE
		fi;
		if
		:: x != NONE ->
			assert(in_list[x] && has_pages[x]);
			page = start[x];
			in_list[x] = false;
			idle[x] = false;
			linked[x] = false;
			has_pages[x] = false;
			unused[x] = true;
			purge(x)
		:: else
		fi
	};
	lock = false;
	if
	:: page != NONE ->
		owner[page] = NONE;
		page_free[page] = true
	:: else
	fi
}

#define CROWDED in_inbox

/* And a look into the inbox, by whoever has just unlocked. */
inline release() {
	do
	:: true ->
		unlock();
#if MUTANT == 4
		break;
#endif
		if
		:: CROWDED
		:: else -> break
		fi;
		if
		:: atomic { !lock -> lock = true }
		:: else -> break
		fi;
		drain()
	od;
	skip /* a place to break to */
}

inline settle(x) {
	if
	:: has_pages[x] && !idle[x] ->
		found = !W(x, 0);
		if
		:: !found -> found = !W(x, 1)
		:: else
		fi;
		if
		:: !found ->
			atomic {
				in_list[x] = true;
				linked[x] = true;
				idle[x] = true
			}
		:: found && !linked[x] ->
			look_for_free(x);
			if
			:: found -> link(x)
			:: else
			fi
		:: else
		fi
#if MUTANT == 5
	:: !has_pages[x] && !linked[x] ->
		look_for_free(x);
		if
		:: found -> link(x)
		:: else
		fi
#endif
	:: else
	fi
}

inline drain_one(x) {
	if
	:: mine[x] -> settle(x)
	:: else
	fi
}

inline take_queued() {
	d_step {
		mine[0] = queued[0];
		mine[1] = queued[1];
#if MUTANT != 6
		queued[0] = false;
		queued[1] = false
#endif
	}
}

inline drain() {
	if
	:: in_inbox ->
#if MUTANT == 10
		take_queued();
		in_inbox = false;
#else
		in_inbox = false;
		take_queued();
#endif
		drain_one(0);
		drain_one(1);
#if MUTANT == 6
		d_step { queued[0] = false; queued[1] = false };
#endif
		d_step { mine[0] = false; mine[1] = false }
	:: else
	fi;
	d_step { found = false; x = 0 }
}

inline link(s) {
	d_step { assert(!in_list[s]); in_list[s] = true; linked[s] = true }
}

/* One word; under the lock others only set bits, so one step will do. */
inline take_word(s, w) {
	atomic {
		if
		:: W(s, w) && got < want ->
			W(s, w) = false;
			assert(H(start[s], w) == NONE);
			H(start[s], w) = me;
			got++
		:: else
		fi
	}
}

/* The set bits of span s, at most `want` in all. */
inline take_from(s) {
	take_word(s, 0);
	take_word(s, 1)
}

inline look_for_free(s) {
	found = W(s, 0);
	if
	:: !found -> found = W(s, 1)
	:: else
	fi
}

inline look_for_out(s) {
	found = !W(s, 0);
	if
	:: !found -> found = !W(s, 1)
	:: else
	fi
}

inline take_locked() {
	do
	:: got < want ->
		if
		:: in_list[0] -> s = 0
		:: in_list[1] -> s = 1
		:: !in_list[0] && !in_list[1] -> break
		fi;
		idle[s] = false;
		take_from(s);
		if
		:: got == want -> break
		:: else
		fi;
		in_list[s] = false;
#if MUTANT == 2
		look_for_free(s);
		linked[s] = false;
#else
		linked[s] = false;
#if MUTANT == 1
		found = false;
#else
		look_for_free(s);
#endif
#endif
		if
		:: found -> link(s)
		:: else
		fi
	:: else -> break
	od
}

/* Enters with the lock, leaves without. */
inline create_span() {
	if
	:: unused[0] -> s = 0; unused[0] = false; has_slab[0] = true
	:: unused[1] -> s = 1; unused[1] = false; has_slab[1] = true
	:: !unused[0] && !unused[1] -> s = NONE
	fi;
	release();
	page = NONE;
	if
	:: s != NONE -> atomic {
		if
		:: page_free[0] -> page = 0; page_free[0] = false
		:: page_free[1] -> page = 1; page_free[1] = false
		:: !page_free[0] && !page_free[1]
		fi
		}
	:: else
	fi;
	if
	:: page != NONE ->
		start[s] = page;
		W(s, 0) = true;
		W(s, 1) = true;
		take_from(s);
		assert(owner[page] == NONE);
		owner[page] = s;
		acquire();
		has_pages[s] = true;
		if
		:: got < 2 -> link(s)
		:: else
		fi;
		release()
	:: page == NONE && s != NONE ->
		acquire();
		d_step { unused[s] = true; purge(s) };
		release()
	:: else
	fi
}

inline push(y) {
#if MUTANT == 8
	assert(has_slab[y]);
#endif
#if MUTANT == 11
	atomic { found = !queued[y]; queued[y] = true };
#else
	atomic { found = !queued[0] && !queued[1]; queued[y] = true };
#endif
	if
	:: found -> atomic { assert(!in_inbox); in_inbox = true }
	:: else
	fi
}

inline try() {
	if
	:: CROWDED ->
		if
		:: atomic { !lock -> lock = true };
			drain();
			release()
		:: else
		fi
	:: else
	fi
}

inline refresh(y) {
	if
	:: y != NONE ->
#if MUTANT == 7
		if
		:: atomic { !lock -> lock = true };
			drain();
			release()
		:: else
		fi;
		push(y)
#else
		push(y);
		try()
#endif
	:: else
	fi;
	d_step { found = false; page = 0; x = 0 }
}

/* Give the object at slot v of page p, if it is this user's. */
inline give(p, v, todo) {
	todo = NONE;
#if MUTANT == 3
	atomic {
		if
		:: H(p, v) == me -> found = linked[owner[p]]
		:: else
		fi
	};
#endif
	atomic {
		if
		:: H(p, v) == me ->
			s = owner[p];
			assert(s != NONE && start[s] == p && has_slab[s]);
			assert(!W(s, v));
			H(p, v) = NONE;
			W(s, v) = true;
			todo = s
		:: else
		fi
	};
	if
	:: todo != NONE ->
#if MUTANT != 3
		found = linked[s];
#endif
		if
		:: !found
		:: else ->
			look_for_out(s);
			if
			:: found -> todo = NONE
			:: else
			fi
		fi
	:: else
	fi;
	d_step { found = false; s = 0 }
}

proctype user(byte me)
{
	byte want, got, s, page, todo, p, x;
	bool found;
	bool mine[SPANS];

	if
	:: want = 1
	:: want = 2
	fi;
	acquire();
	drain();
	take_locked();
	if
	:: got > 0 -> release()
	:: else -> create_span()
	fi;
	d_step { found = false; s = 0; page = 0; got = 0; want = 0; x = 0 };
	if
	:: p = 0;
		do
		:: p < PAGES ->
			give(p, 0, todo);
			refresh(todo);
			give(p, 1, todo);
			refresh(todo);
			p++
		:: else -> break
		od
	:: skip /* keeps what it has */
	fi;
	done++
}

inline check_span(s) {
	assert(in_list[s] == linked[s]);
	assert(!in_inbox && !queued[s]);
	assert(!in_list[s] || has_pages[s]);
	assert(!(has_pages[s] && (W(s, 0) || W(s, 1))) || in_list[s]);
	assert(has_pages[s] != unused[s]);
	assert(!has_pages[s] || owner[start[s]] == s)
}

inline check_page(p) {
	assert(page_free[p] == (owner[p] == NONE));
	assert(owner[p] == NONE || start[owner[p]] == p)
}

init {
	byte i;

	atomic {
		do
		:: i < USERS -> run user(i); i++
		:: else -> break
		od
	};
	atomic {
		done == USERS;
		assert(!lock);
		check_span(0);
		check_span(1);
		check_page(0);
		check_page(1)
	}
}
