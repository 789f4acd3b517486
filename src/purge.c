/*
 * purge.c - delay, allowance, and who watches.
 */
#include "purge.h"

#include "holes.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "spans.h"
#include "tune.h"

/*
 * Until when nobody else watches, and when the CPUs' caches decay next, ms.
 * [atomic] relaxed: rate limits
 */
static _Atomic uint64_t watched_until, decay_at;

/* Not to purge again before, ms. [atomic] relaxed: a rate limit */
static _Atomic uint64_t next_round;

/*
 * See hz4_purge_wake.  When somebody last saw pages pending; since when what
 * was left over a sleep ages, ms.  Bytes that the next purge leaves, and those
 * taken and freed after the last sleep but one.  [atomic] relaxed: hints
 */
static _Atomic uint64_t seen, woke;
static _Atomic size_t reserve, last_burst;

/* The last purge has not come to its end.  [atomic] relaxed: a hint */
static _Atomic bool goes_on;

/*
 * Of more idle spans than the allowance, since when the oldest was idle when
 * so many were first seen, ms; 0: there are not so many.  Some came later.
 * [atomic] relaxed: a hint
 */
static _Atomic uint64_t idle_since;

/* See allowance.  [atomic] relaxed: stands for itself */
static _Atomic size_t allowed = HZ4_PURGE_ALLOWANCE;

static uint64_t
delay(void)
{
	return hz4_option(HZ4_OPT_purge_delay);
}

void
hz4_purge_allow(size_t bytes)
{
	hz4_poke(&allowed, hz4_max(bytes, HZ4_PURGE_ALLOWANCE_LEAST));
}

/*
 * With no delay nothing is kept either: RSS follows every free.  Where memory
 * is pinned little is, unless the program has said how much.
 */
static size_t
allowance(void)
{
	size_t bytes = hz4_peek(&allowed);

	if (delay() == 0)
		return 0;
	if (bytes == HZ4_PURGE_ALLOWANCE && hz4_pageheap_pinned())
		return HZ4_PURGE_ALLOWANCE_LEAST;
	return bytes;
}

/* Without delay a class's last empty span stays: no more than that is. */
static size_t
idle(void)
{
	return delay() == 0 ? 0 : hz4_spans_idle();
}

bool
hz4_purge_pending(void)
{
	return hz4_unlikely(hz4_pageheap_dirty() + idle() > allowance());
}

/* To ask for it takes locks: once until they have been given back. */
static uint64_t
oldest_idle(void)
{
	uint64_t since = hz4_peek(&idle_since);
	bool many = idle() > allowance() / (since == 0 ? 1 : 2);

	if (many == (since != 0))
		return many ? since : UINT64_MAX;
	since = many ? hz4_spans_oldest() : UINT64_MAX;
	/* Others may just have taken them all: then ask again. */
	hz4_poke(&idle_since, since == UINT64_MAX ? 0 : since);
	return since;
}

bool
hz4_purge_due(uint64_t now)
{
	uint64_t oldest = hz4_min(hz4_pageheap_oldest(), oldest_idle());

	return hz4_purge_pending() && oldest != UINT64_MAX &&
	       hz4_max(oldest, hz4_peek(&woke)) + delay() <= now &&
	       now >= hz4_peek(&next_round);
}

void
hz4_purge_wake(uint64_t now)
{
	uint64_t before = hz4_peek(&seen);
	size_t burst, again;
	bool too_much;

	if (now <= before || delay() == 0 || !hz4_purge_pending())
		return;
	/* First, so that nobody else sees what is old meanwhile. */
	if (now - before > delay() / 2)
		hz4_poke(&woke, now);
	if (!atomic_compare_exchange_strong(&seen, &before, now) ||
	    now - before <= delay() / 2)
		return;
	burst = hz4_pageheap_burst();
	again = hz4_min(burst, hz4_peek(&last_burst));
	hz4_poke(&last_burst, burst);
	again = again > allowance() ? again + idle() : 0;
	too_much = hz4_pageheap_dirty() + idle() > again + allowance();
	hz4_poke(&reserve, too_much ? again : 0);
	if (too_much)
		hz4_poke(&woke, 0);
}

/* True for one caller when `at` has come, which is `next` from now on. */
static bool
claim(_Atomic uint64_t *at, uint64_t now, uint64_t next)
{
	uint64_t when = hz4_peek(at);

	return now >= when &&
	       atomic_compare_exchange_strong_explicit(at, &when, next,
						       memory_order_relaxed,
						       memory_order_relaxed);
}

bool
hz4_purge_watch(uint64_t now)
{
	return claim(&watched_until, now, now + HZ4_WATCH_TIME);
}

void
hz4_purge_watch_on(uint64_t now)
{
	hz4_poke(&watched_until, now + HZ4_WATCH_TIME);
}

void
hz4_purge_watch_end(void)
{
	hz4_poke(&watched_until, 0);
}

bool
hz4_purge_decay_arm(uint64_t now)
{
	if (!claim(&decay_at, now, now + HZ4_CACHE_DECAY))
		return false;
	hz4_spans_settle();
	hz4_pageheap_look(now);
	return true;
}

static void
trim_spans(void)
{
	hz4_spans_trim();
	hz4_poke(&idle_since, 0);
}

bool
hz4_purge_goes_on(void)
{
	return hz4_peek(&goes_on);
}

void
hz4_purge_run(uint64_t now)
{
	size_t keep = hz4_max(allowance(), hz4_peek(&reserve)), done;
	bool ended;

	if (!hz4_purge_goes_on())
		trim_spans();
	done = hz4_pageheap_purge(now, delay(), keep, HZ4_PURGE_MOST);
	ended = done < HZ4_PURGE_MOST || hz4_pageheap_dirty() <= keep;
	if (ended && hz4_peek(&reserve) != 0) {
		hz4_poke(&reserve, 0);
		hz4_poke(&woke, now);
	}
	hz4_poke(&goes_on, !ended);
	hz4_poke(&next_round, ended && delay() > 0 ? now + HZ4_PURGE_ROUNDS :
						     0);
}

size_t
hz4_purge_all(void)
{
	hz4_pageheap_look(hz4_os_now());
	trim_spans();
	return hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX) +
	       hz4_holes_purge_all();
}

void
hz4_purge_exhausted(void)
{
	trim_spans();
	hz4_pageheap_unmap(hz4_pageheap_pinned() ? HZ4_PAGE :
						   HZ4_REGION_MIN / 2);
}
