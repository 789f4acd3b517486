/*
 * holes.h - OS pages of spans in use that hold no object.
 *
 * A few survivors keep a span with all its pages.  Which OS pages of it hold
 * nothing its bits tell, without a look at any object.  What has stayed so from
 * one round to the next is purged: its objects are taken, as malloc takes
 * them, so that nobody else does, and given back when the pages are gone.
 *
 * Two maps of a span's OS pages lie behind its bits: which were purged and
 * not used since, and which held nothing in the last round.
 *
 * Layer 3.  Takes HZ4_RANK_CLASS.
 */
#ifndef HZ4_HOLES_H
#define HZ4_HOLES_H

#include "span.h"

/* Bytes behind the bits of a class's spans. */
size_t hz4_holes_bytes(const struct hz4_class *k);

/* A span has got its pages. */
void hz4_holes_start(struct hz4_span *s, const struct hz4_class *k);

/* Its pages are about to go, with the class locked. */
void hz4_holes_end(struct hz4_span *s, const struct hz4_class *k);

/* How many of its OS pages were purged. */
size_t hz4_holes_count(struct hz4_span *s, const struct hz4_class *k);

/* Objects of a span with marks were taken, with the class locked. */
void hz4_holes_fill(struct hz4_span *s, const struct hz4_class *k,
		    void *const *objects, unsigned n);

/* A round is not over; no lock, no clock. */
bool hz4_holes_midway(void);

/* There was so much in the last round that there has to be another. */
bool hz4_holes_waiting(void);

/* A bounded piece of a round, when it is time at `now` (ms). */
void hz4_holes_step(uint64_t now);

/* Purge all there are; returns the bytes. */
size_t hz4_holes_purge_all(void);

/* Bytes of free objects in spans that are not resident. */
size_t hz4_holes(void);

/* In the child of a fork: the round begins anew. */
void hz4_holes_fork_child(void);

#endif
