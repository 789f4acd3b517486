/*
 * guard.h - sampled guards: one allocation in so many (option guards) gets a
 * page of its own between two closed ones, at its left or its right end, and
 * is closed when it is freed.  Who steps beside it, or uses it after free, is
 * told with three call stacks: of the allocation, the free and the access.
 *
 * Layer 3.  Takes HZ4_RANK_SAMPLES.
 */
#ifndef HZ4_GUARD_H
#define HZ4_GUARD_H

#include "sample.h"

/* Make the pool and install the handler of SIGSEGV, once.  False: refused. */
bool hz4_guard_start(void);

/* Where the pool lies; nothing before the start. [const] then */
extern uintptr_t hz4_guard_pool;
extern size_t hz4_guard_bytes;

/* Whether an address, of a page of HZ4_CLS_MARKED, is the guards'. */
HZ4_FAST bool
hz4_guard_owns(const void *p)
{
	return (uintptr_t)p - hz4_guard_pool < hz4_guard_bytes;
}

/* An object; NULL when it is too large or all slots are in use. */
void *hz4_guard_take(size_t size, size_t align, const struct hz4_caller *from,
		     struct hz4_sampler *thread);

/* Give it back; when it is no live one that is told, and the end. */
void hz4_guard_give(void *p, const struct hz4_caller *from,
		    struct hz4_sampler *thread);

/* Bytes of a live object; the end when it is none. */
size_t hz4_guard_usable(const void *p, const char *call);

/* Live objects and their bytes, nearly. */
void hz4_guard_figures(size_t *objects, size_t *bytes);

HZ4_SLOW void hz4_guard_fork_child(void);

#endif
