/*
 * upkeep.h - what slow paths see to besides what they were called for: pages
 * that wait, classes that lie idle, statistics to be published.
 *
 * Layer 4.  Takes the locks of what it gives back; none is held before.
 */
#ifndef HZ4_UPKEEP_H
#define HZ4_UPKEEP_H

#include "cache.h"

/* One in `every` calls does something. */
void hz4_upkeep(struct hz4_cache *c, unsigned every);

/* How many that is for the classes. */
unsigned hz4_upkeep_visits(void);

/* The watching thread's. */
void hz4_upkeep_look(struct hz4_cache *c);

#endif
