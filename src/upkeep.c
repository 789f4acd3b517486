/*
 * upkeep.c - purging and decay, on the time of slow paths.
 */
#include "upkeep.h"

#include "holes.h"
#include "idle.h"
#include "l1.h"
#include "live.h"
#include "option.h"
#include "os.h"
#include "purge.h"
#include "shard.h"

/*
 * Give back what has waited long enough, and before it what the caches hold:
 * objects there keep whole pages of spans that are mostly free.  That once
 * for all pieces of a purge.
 */
static void
purge(struct hz4_cache *c, uint64_t now)
{
	if (!hz4_purge_goes_on()) {
		hz4_cache_flush(c);
		if (HZ4_MID_DUAL_TIER_ALLOC_BOX)
			hz4_l1_decay(c->counts);
	}
	hz4_purge_run(now);
}

static void
decay(struct hz4_cache *c, uint64_t now)
{
	if (hz4_purge_decay_arm(now) && HZ4_MID_DUAL_TIER_ALLOC_BOX)
		hz4_l1_decay(c->counts);
	hz4_idle_step(now);
	hz4_holes_step(now);
	if (now - c->decayed < HZ4_CACHE_DECAY)
		return;
	if (c->decayed != 0)
		hz4_cache_decay(c);
	c->decayed = now;
}

static void
watch(struct hz4_cache *c)
{
	c->to_look = HZ4_WATCH_CALLS;
	if (!c->watching)
		hz4_stacks_watch(c, true);
}

/* Free pages wait that are due soon: then one thread has to look at times. */
static bool
wait_soon(uint64_t now)
{
	return hz4_holes_waiting(now) ||
	       (hz4_purge_pending() && hz4_purge_due(now + HZ4_PURGE_LOOK));
}

/*
 * What one in `every` slow paths sees to: pages that wait, classes that lie
 * idle.
 */
void
hz4_upkeep(struct hz4_cache *c, unsigned every)
{
	uint64_t now;

	hz4_live_tick();
	if (++c->visits % every != 0)
		return;
	if (c->visits % HZ4_CLOCK_VISITS != 0 && !hz4_purge_pending() &&
	    !hz4_holes_midway())
		return;
	if (c->returned != 0) {
		hz4_holes_returned(c->returned);
		c->returned = 0;
	}
	now = hz4_os_now();
	hz4_purge_wake(now);
	if (hz4_purge_due(now))
		purge(c, now);
	decay(c, now);
	if (!c->watching && wait_soon(now) && hz4_purge_watch(now))
		watch(c);
}

/*
 * For the classes: to look whether pages wait costs a cache line and one for
 * each shard, which other threads write.  Without a delay every free is
 * followed.
 */
unsigned
hz4_upkeep_visits(void)
{
	if (hz4_option(HZ4_OPT_purge_delay) == 0)
		return 1;
	return hz4_shards() > 1 ? HZ4_PURGE_VISITS_SHARDS : HZ4_PURGE_VISITS;
}

/*
 * The watching thread looks at the clock, for as long as pages wait: it may be
 * the last one that has a slow path.  Until then its mallocs cost a call more.
 */
HZ4_DEEP void
hz4_upkeep_look(struct hz4_cache *c)
{
	uint64_t now = hz4_os_now();

	hz4_live_tick();
	hz4_purge_wake(now);
	if (hz4_purge_due(now))
		purge(c, now);
	decay(c, now);
	if (wait_soon(now)) {
		hz4_purge_watch_on(now);
		watch(c);
		return;
	}
	hz4_purge_watch_end();
	hz4_stacks_watch(c, false);
}
