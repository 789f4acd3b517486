/*
 * shard.h - which shard of the classes' lists a thread takes from first.
 *
 * All threads begin with the first shard; one that often had to wait for a
 * lock there goes to another, so that without contention the others hold
 * nothing.  The option `shards` spreads the threads from their start.
 *
 * Layer 3.  Takes no lock.
 */
#ifndef HZ4_SHARD_H
#define HZ4_SHARD_H

#include "base.h"

/*
 * The last shard in use; it only grows.  [atomic] seq_cst when it does, so
 * that the child of a fork sees no lock of a shard that it has not heard of;
 * else relaxed: who has not heard of a shard does not look for spans there
 */
extern _Atomic unsigned hz4_last_shard;

/* Shards in use, 1 at first. */
HZ4_FAST unsigned
hz4_shards(void)
{
	return hz4_peek(&hz4_last_shard) + 1;
}

/* The shard of this thread, after it has waited too often another one. */
unsigned hz4_shard_settle(void);

/* The one that the last call told. */
unsigned hz4_shard_own(void);

/* Whether the thread had to wait for a lock of its shard. */
void hz4_shard_note_wait(bool waited);

#endif
