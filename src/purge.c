/*
 * purge.c - delay, allowance and the nudge's timing.
 */
#include "purge.h"

#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "spans.h"
#include "tune.h"

/* When the threads were nudged last, ms. [atomic] relaxed: rate limits */
static _Atomic uint64_t nudged_at, decayed_at;

/* Not to purge again before, ms. [atomic] relaxed: a rate limit */
static _Atomic uint64_t next_round;

/*
 * Of more idle spans than the allowance, since when the oldest was idle when
 * so many were first seen, ms; 0: there are not so many.  Some came later.
 * [atomic] relaxed: a hint
 */
static _Atomic uint64_t idle_since;

/* [atomic] relaxed: compared only for being another one. */
static _Atomic uint32_t flushes, decays;

static uint64_t
delay(void)
{
	return hz4_option(HZ4_OPT_purge_delay);
}

/* With no delay nothing is kept either: RSS follows every free. */
static size_t
allowance(void)
{
	return delay() == 0 ? 0 : HZ4_PURGE_ALLOWANCE;
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
	       oldest + delay() <= now && now >= hz4_peek(&next_round);
}

/* True for one caller when `at` lies `age` ms back. */
static bool
claim(_Atomic uint64_t *at, uint64_t now, uint64_t age)
{
	uint64_t last = hz4_peek(at);

	return now >= last + age &&
	       atomic_compare_exchange_strong_explicit(at, &last, now,
						       memory_order_relaxed,
						       memory_order_relaxed);
}

bool
hz4_purge_arm(uint64_t now)
{
	return claim(&nudged_at, now, HZ4_PURGE_NUDGES);
}

bool
hz4_purge_decay_arm(uint64_t now)
{
	if (!claim(&decayed_at, now, HZ4_CACHE_DECAY))
		return false;
	hz4_spans_settle();
	atomic_fetch_add_explicit(&decays, 1, memory_order_relaxed);
	return true;
}

uint32_t
hz4_purge_flushes(void)
{
	return hz4_peek(&flushes);
}

uint32_t
hz4_purge_decays(void)
{
	return hz4_peek(&decays);
}

void
hz4_purge_ask_flush(void)
{
	atomic_fetch_add_explicit(&flushes, 1, memory_order_relaxed);
}

static void
trim_spans(void)
{
	hz4_spans_trim();
	hz4_poke(&idle_since, 0);
}

void
hz4_purge_run(uint64_t now)
{
	size_t done;

	trim_spans();
	done = hz4_pageheap_purge(now, delay(), allowance(), HZ4_PURGE_STEP);
	hz4_poke(&next_round, done >= HZ4_PURGE_STEP || delay() == 0 ?
				      0 :
				      now + HZ4_PURGE_ROUNDS);
}

size_t
hz4_purge_all(void)
{
	trim_spans();
	return hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
}

void
hz4_purge_exhausted(void)
{
	trim_spans();
	hz4_pageheap_unmap(HZ4_REGION_MIN / 2);
}
