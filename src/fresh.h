/*
 * fresh.h - the part of a span that nobody has touched yet.
 *
 * The objects of a new span come out in ascending order, so `touched` tells
 * which of a batch lie in untouched memory.  The first touch of a page is a
 * fault, which on some virtual machines costs ten times the page itself.
 * Where it turns out to, the pages of a batch are asked for together.
 *
 * Who takes an object most likely touches its beginning and its end.  What
 * lies between these in an object of many pages is left to its user.
 *
 * Layer 3.  Takes no lock.
 */
#ifndef HZ4_FRESH_H
#define HZ4_FRESH_H

#include "span.h"

/* The smallest OS page that there is. */
enum { HZ4_FRESH_UNIT = 4096 };

/* Where the untouched part of a span begins. */
HZ4_FAST uintptr_t
hz4_fresh_from(const struct hz4_span *s)
{
	return s->start + s->touched * (uintptr_t)HZ4_FRESH_UNIT;
}

/* A stretch of untouched memory; empty when both are 0. */
struct hz4_fresh {
	uintptr_t from;
	uintptr_t to;
};

/* A span has got its pages; its class has so many others. */
void hz4_fresh_start(struct hz4_span *s, const struct hz4_class *k,
		     size_t spans);

/*
 * One of its objects is used to its end, so most likely all are.  With the
 * class locked.
 */
void hz4_fresh_note_whole(struct hz4_span *s);

/* Its pages are about to go back to the page heap. */
void hz4_fresh_end(struct hz4_span *s);

/*
 * Objects up to `end`, beyond hz4_fresh_from, are being taken: `f` is what
 * is to be populated for them, once no lock is held.  Called with the
 * class locked, or before the span is admitted.
 */
void hz4_fresh_take(struct hz4_span *s, const struct hz4_class *k,
		    uintptr_t end, struct hz4_fresh *f);

/*
 * Fill [p, p + bytes), of the one object that was taken, with zeros where it
 * may hold others: in front of `f`, and in dirty pages.
 */
void hz4_fresh_zero(uintptr_t p, size_t bytes, const struct hz4_fresh *f);

/*
 * Where page faults are dear, make the pages of the objects resident, of
 * large ones the first few, that lie in `f`, or end there; and see whether
 * they are.  Takes no lock, and none should be held.
 */
void hz4_fresh_populate(const struct hz4_class *k, void *const *objects,
			unsigned n, const struct hz4_fresh *f);

#endif
