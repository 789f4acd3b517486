/*
 * live.h - statistics that outlive a process, or are read while it runs:
 * the file of HZ4_OPTIONS=stats_file=PATH and the page of stats_live=1.
 *
 * Both are files that are mapped while the library starts, and only when
 * asked for; never in a process that has gained privileges.  Whatever is in
 * the mapping when the process ends, by _exit or a signal too, stays in the
 * file.  In builds with --enable-stats they are brought up to date on the
 * time of calls that take a slow path, ten times a second at most; in other
 * builds, which have no instruction to spare, at start and exit.
 *
 * Layer 4.  Takes no lock.
 */
#ifndef HZ4_LIVE_H
#define HZ4_LIVE_H

#include "base.h"

/* Something is to be published. [atomic] relaxed: a hint */
extern _Atomic bool hz4_live_on;

/* Create what the options ask for.  Called once, when options are known. */
void hz4_live_start(void);

/* Publish for the last time.  The file stays, the page goes. */
void hz4_live_stop(void);

void hz4_live_tick_slow(void);

/* Publish when it is time to.  The caller holds no lock. */
HZ4_FAST void
hz4_live_tick(void)
{
	if (HZ4_MID_STATS_B1 && hz4_unlikely(hz4_peek(&hz4_live_on)))
		hz4_live_tick_slow();
}

#endif
