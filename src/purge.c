/*
 * purge.c - delay, allowance and the nudge's timing.
 */
#include "purge.h"

#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "transfer.h"
#include "tune.h"

/* When the threads were nudged last, ms. [atomic] relaxed: a rate limit */
static _Atomic uint64_t armed_at;

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

bool
hz4_purge_pending(void)
{
	return hz4_unlikely(hz4_pageheap_dirty() > allowance());
}

static bool
older_than(uint64_t now, uint64_t age)
{
	uint64_t oldest = hz4_pageheap_oldest();

	return oldest != UINT64_MAX && oldest + age <= now;
}

bool
hz4_purge_due(uint64_t now)
{
	return hz4_purge_pending() && older_than(now, delay());
}

bool
hz4_purge_due_polled(uint64_t now)
{
	return hz4_purge_pending() &&
	       older_than(now, hz4_min(delay(), HZ4_PURGE_POLLED_AGE));
}

bool
hz4_purge_arm(uint64_t now)
{
	uint64_t last = hz4_peek(&armed_at);

	if (last != 0 && now < last + delay())
		return false;
	return atomic_compare_exchange_strong_explicit(
		&armed_at, &last, now, memory_order_relaxed,
		memory_order_relaxed);
}

void
hz4_purge_run(uint64_t now)
{
	hz4_transfer_trim();
	hz4_pageheap_purge(now, hz4_min(delay(), HZ4_PURGE_POLLED_AGE),
			   allowance(), HZ4_PURGE_STEP);
}

size_t
hz4_purge_all(void)
{
	hz4_transfer_trim();
	return hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX - HZ4_PAGE);
}

void
hz4_purge_exhausted(void)
{
	hz4_transfer_trim();
	hz4_pageheap_unmap(HZ4_REGION_MIN / 2);
}
