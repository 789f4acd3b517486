/*
 * heappaths.h - the slow halves of heap.c that realloc.c is made of.  Nobody
 * else includes this.
 *
 * Layer 4.  No lock is held before any of these.
 */
#ifndef HZ4_HEAPPATHS_H
#define HZ4_HEAPPATHS_H

#include "heap.h"

/* An object; NULL at once where the system refuses memory. */
void *hz4_heap_take(size_t size, struct hz4_cache *c);

/* malloc that the profile does not count: it has been told. */
void *hz4_heap_malloc_told(size_t size);

/* So many bytes of an object are being written. */
void hz4_heap_note_whole(void *p, size_t bytes);

/* NULL with ENOMEM: no memory, or there can be none of that size. */
void *hz4_heap_refuse(void);

/* The class of a live object; aborts when p is none. */
unsigned hz4_heap_class(const void *p, const char *call);

/* The bytes that it may have, by its class. */
size_t hz4_heap_room(const void *p, unsigned cls, const char *call);

#endif
