/*
 * holes.h - OS pages of spans in use that hold no object.
 *
 * A few survivors keep a span with all its pages.  Which OS pages of it hold
 * nothing its bits tell, without a look at any object.  What has stayed so from
 * one round to the next is purged: its objects are taken, as malloc takes
 * them, so that nobody else does, and given back when the pages are gone.
 *
 * Layer 3.  Takes HZ4_RANK_CLASS.
 */
#ifndef HZ4_HOLES_H
#define HZ4_HOLES_H

#include "holemap.h"

/* A round is not over; no lock, no clock. */
bool hz4_holes_midway(void);

/*
 * There was so much in the last round, or so much has come back to the spans
 * since, that there has to be another, and at `now` (ms) it is due soon.
 */
bool hz4_holes_waiting(uint64_t now);

/* So many bytes more came back to the spans than were taken from there. */
void hz4_holes_returned(ptrdiff_t bytes);

/* A bounded piece of a round, when it is time at `now` (ms). */
void hz4_holes_step(uint64_t now);

/* Purge all there are; returns the bytes. */
size_t hz4_holes_purge_all(void);

/* In the child of a fork: the round begins anew. */
HZ4_SLOW void hz4_holes_fork_child(void);

#endif
