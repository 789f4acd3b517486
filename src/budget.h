/*
 * budget.h - how many bytes a thread's caches may hold together.
 *
 * A thread starts with little and earns more by its misses, up to what the
 * number of threads allows; a class's limit is paid for from it (cache.c).
 *
 *     left + what the classes were given == granted
 *
 * Layer 3.
 */
#ifndef HZ4_BUDGET_H
#define HZ4_BUDGET_H

#include "base.h"

struct hz4_budget {
	size_t granted;	 /* bytes earned so far [owner] */
	size_t left;	 /* of these, bytes not given to a class [owner] */
	uint32_t missed; /* bytes since it grew [owner] */
	bool earned;	 /* has grown [owner] */
	bool first;	 /* of the first thread: starts with more [const] */
};

void hz4_budget_init(struct hz4_budget *b, bool first);

/*
 * The thread ends: its next one starts with what it has earned, as far as
 * that is no more than its share, and with its misses.  Returns what stays;
 * the caller sees to what was given to classes.
 */
size_t hz4_budget_pass_on(struct hz4_budget *b);

/* The classes have so many bytes: what is left follows. */
void hz4_budget_recount(struct hz4_budget *b, size_t given);

/* An object of so many bytes was missed. */
void hz4_budget_earn(struct hz4_budget *b, size_t bytes);

/* One thread more (1) or less (-1) has caches. */
void hz4_budget_add_user(int change);

/* Threads that have caches, more or less. */
uint32_t hz4_budget_users(void);

/* The child of a fork has one thread; whether it has caches. */
void hz4_budget_fork_child(bool one);

#endif
