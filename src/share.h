/*
 * share.h - how many bytes threads may cache, and how many of them there are.
 *
 * Each thread has a little from its start, and earns more by working, up to
 * HZ4_EARN_OWN of its own.  What is above that comes from one pool of bounded
 * size, which all threads share.
 *
 * Layer 3.  Takes no lock.
 */
#ifndef HZ4_SHARE_H
#define HZ4_SHARE_H

#include "base.h"

/* One thread more (1) or less (-1) has a cache. */
void hz4_share_add_user(int change);

/* Threads that have caches, more or less. */
uint32_t hz4_share_users(void);

/* The child of a fork has fewer. */
void hz4_share_set_users(uint32_t n);

/* Bytes that the first thread, or another one, may cache from its start. */
size_t hz4_share_start(bool first);

/*
 * Misses and overflows after which a thread may cache twice as much: the more,
 * the more threads there are.
 */
uint32_t hz4_share_price(void);

/* What a thread may cache at most. */
size_t hz4_share_most(void);

/*
 * Up to so many bytes more for one thread, 0 when the others have them, or
 * most of them: some are left for who comes later.
 */
size_t hz4_share_take(size_t bytes);

/* What it took and needs no more. */
void hz4_share_give(size_t bytes);

/* Bytes that threads have taken. */
size_t hz4_share_taken(void);

/* In the child of a fork: so much, where one was just taking or giving. */
void hz4_share_set_taken(size_t bytes);

#endif
