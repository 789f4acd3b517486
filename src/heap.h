/*
 * heap.h - allocating and freeing: the fast paths, inlined into libc's
 * names (malloc.c), and the calls behind them.
 *
 *     malloc --> class of the size --> L0 (mid sizes, when built)
 *                                  --> L1: pop --------------------> object
 *                    hz4_heap_malloc_slow (heap.c)
 *                      --> nudged? look at the clock, purge
 *                      --> refill L1 (cache.c) --> spans (transfer.c)
 *                                              --> pages (pageheap.c)
 *                      --> above the classes: large.c
 *
 *     free --> class of the page --> L1: push
 *                    hz4_heap_free_slow (heap.c)
 *                      --> not ours: abort
 *                      --> stack full: the oldest go to the spans
 *                      --> large.c
 *
 * On x86-64 malloc is a load of the class and one of the thread's
 * pointer, a test of top against low, a store and a load; free is two
 * loads for the class, a test and two stores.
 *
 * Layer 4.
 */
#ifndef HZ4_HEAP_H
#define HZ4_HEAP_H

#include "pagemap.h"
#include "thread.h"

/*
 * The rest of malloc and free.  The arguments are those of the fast path,
 * so that it can jump here without moving registers.
 */
void *hz4_heap_malloc_slow(size_t size);
void hz4_heap_free_slow(void *p);

/* C11 malloc; NULL with ENOMEM. */
HZ4_FAST void *
hz4_heap_malloc(size_t size)
{
	uint32_t cls;
	void *p;

	/* 0 has no class here. */
	if (hz4_likely(size - 1 < HZ4_SMALL_MAX))
		cls = hz4_sizeclass_small(size);
	else if (size - 1 < HZ4_CLASS_MAX)
		cls = hz4_sizeclass_big(size);
	else
		return hz4_heap_malloc_slow(size);
	if (hz4_likely(hz4_cache_pop(hz4_tls_cache, cls, &p)))
		return p;
	return hz4_heap_malloc_slow(size);
}

/* C11 free; keeps errno (POSIX 2024). */
HZ4_FAST void
hz4_heap_free(void *p)
{
	if (hz4_unlikely(hz4_pagemap_foreign(p)) ||
	    hz4_unlikely(!hz4_cache_push(hz4_tls_cache,
					 hz4_pagemap_look_up(p), p)))
		hz4_heap_free_slow(p);
}

/* C11 calloc; NULL with ENOMEM, also when n * size overflows. */
void *hz4_heap_calloc(size_t n, size_t size);

/* glibc's realloc: realloc(p, 0) frees p and returns NULL. */
void *hz4_heap_realloc(void *p, size_t size);

/*
 * `size` bytes aligned to `align`, which must be a power of two.  NULL with
 * ENOMEM.
 */
void *hz4_heap_aligned(size_t align, size_t size);

/* glibc's malloc_usable_size: all these bytes may be written. */
size_t hz4_heap_usable(const void *p);

/* Give back what can be; the bytes that went to the kernel. */
size_t hz4_heap_trim(void);

/* The usable size that malloc(size) would have; 0 when it must fail. */
size_t hz4_heap_good_size(size_t size);

#endif
