/*
 * l1.h - the dual tier's L1: free objects that a CPU has for its threads.
 *
 * There is one for each number that hz4_cpu_number tells, made when it is
 * first needed.  A thread's L0 (cache.h) is refilled from it and overflows to
 * it, half of what it may hold at a time, so what threads of one CPU hand to
 * each other, and what a short thread leaves, meets here and never reaches a
 * span.  What all of one L1's classes hold together is bounded; when it is
 * full the classes give their oldest objects back to the spans, in turn.
 *
 * The number is a hint: who finds an L1 locked, since it was moved or another
 * thread was preempted there, takes the next one, or goes to the spans.  So
 * nobody ever waits for one but who empties them all.
 *
 * Without the dual tier there is none, and nothing of this is called.
 *
 * Layer 3.  Takes HZ4_RANK_CPU, and inside it HZ4_RANK_CLASS.
 */
#ifndef HZ4_L1_H
#define HZ4_L1_H

#include "lock.h"
#include "sizeclass.h"
#include "stats.h"

struct hz4_shelf {
	void **array; /* the latest objects last [lock] */
	uint32_t room; /* of the array [lock] */
	uint32_t least; /* the fewest there were since the decay [lock] */
	/* [lock] writes; [atomic] release: for figures, and a fork's child */
	_Atomic uint32_t count;
	/* As hz4_tier.net.  [lock] writes; [atomic] relaxed: for figures */
	_Atomic int64_t net;
};

struct hz4_l1 {
	struct hz4_lock lock;
	/* As hz4_cache.busy. [lock] writes; [atomic] release */
	_Atomic uint32_t busy;
	unsigned hand; /* the class that gives next [lock] */
	/* [lock] writes; [atomic] relaxed: for figures */
	_Atomic size_t bytes;
	struct hz4_shelf shelf[HZ4_CLS_END];
};

/* This CPU's, or the next that nobody has, locked; NULL when there is none. */
struct hz4_l1 *hz4_l1_lock(void);
void hz4_l1_unlock(struct hz4_l1 *l);

/*
 * With it locked: take up to `n` objects, from the spans when it has none,
 * the next one to use last.  Returns how many; 0 without memory.
 */
unsigned hz4_l1_take(struct hz4_l1 *l, unsigned cls, void **to, unsigned n,
		     struct hz4_counts *counts);

/* With it locked: give `n` objects. */
void hz4_l1_give(struct hz4_l1 *l, unsigned cls, void *const *from,
		 unsigned n, struct hz4_counts *counts);

/* With it locked: whether one of the latest objects is this one. */
bool hz4_l1_holds(const struct hz4_l1 *l, unsigned cls, const void *object);

/* Give back what no thread took since the last time, or everything. */
void hz4_l1_decay(struct hz4_counts *counts);
void hz4_l1_flush(struct hz4_counts *counts);

/* Call `visit` for each of them; what it sees may be changing. */
void hz4_l1_each(void (*visit)(const struct hz4_l1 *l, void *arg), void *arg);

/* In the child of a fork, by who starts afresh. */
HZ4_SLOW void hz4_l1_fork_child(void);

#endif
