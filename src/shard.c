/*
 * shard.c - counting waits and taking turns.
 */
#include "shard.h"

#include "option.h"
#include "os.h"
#include "tune.h"

_Atomic unsigned hz4_last_shard;

/* Choices of a shard so far. [atomic] relaxed: a ticket */
static _Atomic unsigned tickets;

static HZ4_TLS uint8_t own_shard; /* and one, 0: none yet */
static HZ4_TLS uint16_t waits;	  /* see HZ4_SHARD_WAIT */

/* One of so many shards, in turn; the first is the last one's turn. */
static void
choose(unsigned all)
{
	unsigned ticket = atomic_fetch_add_explicit(&tickets, 1,
						    memory_order_relaxed);
	unsigned shard = (ticket + 1) % all;
	unsigned last = hz4_peek(&hz4_last_shard);

	while (last < shard && !atomic_compare_exchange_weak(&hz4_last_shard,
							     &last, shard))
		;
	own_shard = (uint8_t)(shard + 1);
}

unsigned
hz4_shard_settle(void)
{
	unsigned all = (unsigned)hz4_option(HZ4_OPT_shards);

	if (hz4_unlikely(own_shard == 0)) {
		own_shard = 1;
		if (all > 1)
			choose(all);
	} else if (hz4_unlikely(waits >= HZ4_SHARD_WAITS)) {
		waits = 0;
		if (all == 0)
			all = hz4_min(hz4_os_cpus() / 2, HZ4_SHARDS);
		if (all > 1)
			choose(all);
	}
	return own_shard - 1u;
}

unsigned
hz4_shard_own(void)
{
	return own_shard - 1u;
}

void
hz4_shard_note_wait(bool waited)
{
	if (hz4_unlikely(waited))
		waits += HZ4_SHARD_WAIT;
	else
		waits -= waits > 0;
}
