/*
 * pace.h - back-pressure: a thread that runs ahead lets others run.
 *
 * Where as many threads allocate as there are CPUs, one that hands its
 * objects to others can take memory for a whole time slice before any of
 * them comes to free it: what is in flight grows to gigabytes, all of it
 * cold.  So a thread that took HZ4_PACE_AHEAD bytes more from the spans
 * than it gave back yields its CPU once.  Whether that helped is seen by
 * what the others gave meanwhile; after a yield that brought nothing it
 * takes twice as many turns to the next.
 *
 * With fewer threads than CPUs nothing is ever yielded.
 *
 * Layer 3.  Yields without a lock held, in slow paths of malloc only.
 */
#ifndef HZ4_PACE_H
#define HZ4_PACE_H

#include "tune.h"

struct hz4_pace {
	size_t ahead;	   /* bytes taken less those given, >= 0 [owner] */
	size_t given;	   /* bytes not yet told to the others [owner] */
	uint32_t patience; /* turns between two yields [owner] */
	uint32_t turns;	   /* of these, still to go [owner] */
};

/* The thread took so many bytes from the spans. */
HZ4_FAST void
hz4_pace_take(struct hz4_pace *p, size_t bytes)
{
	p->ahead += bytes;
}

/* The thread gave so many bytes back to the spans. */
void hz4_pace_give(struct hz4_pace *p, size_t bytes);

HZ4_FAST bool
hz4_pace_due(const struct hz4_pace *p)
{
	return hz4_unlikely(p->ahead >= HZ4_PACE_AHEAD);
}

/* Let the others run if it has helped before.  Owner only; keeps errno. */
void hz4_pace_rest(struct hz4_pace *p);

#endif
