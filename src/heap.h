/*
 * heap.h - allocating and freeing: the fast paths, inlined into libc's
 * names (malloc.c), and the calls behind them.
 *
 *     malloc --> class of the size --> the thread's cache: pop -----> object
 *                    hz4_heap_malloc_slow (heap.c)
 *                      --> watching? look at the clock, purge
 *                      --> refill (cache.c) --> L1 (l1.c, dual tier)
 *                                           --> spans (transfer.c)
 *                                           --> pages (pageheap.c)
 *                      --> above the classes: large.c
 *
 *     free --> class of the page --> the thread's cache: push
 *                    hz4_heap_free_slow (heap.c)
 *                      --> not ours: abort
 *                      --> stack full: the oldest go to L1 or the spans
 *                      --> large.c
 *
 * On x86-64 malloc is a load of the class and one of the thread's
 * pointer, a test of top against low, a store and a load; free is two
 * loads for the class, a test and two stores.
 *
 * Layer 4.  The fast paths take no lock; none is held before the slow ones.
 */
#ifndef HZ4_HEAP_H
#define HZ4_HEAP_H

#include "pagemap.h"
#include "thread.h"

/*
 * The rest of malloc and free.  The arguments are those of the fast path, and
 * the stack where it has looked, so that it can jump here without moving
 * registers.
 */
void *hz4_heap_malloc_slow(size_t size, struct hz4_stack *s);
void hz4_heap_free_slow(void *p);

/*
 * The fast paths, on one of a thread's pointers to its cache, which is read
 * as late as can be.  False: the slow path has to look, first at that stack.
 */
HZ4_FAST bool
hz4_heap_pop(struct hz4_cache **c, size_t size, struct hz4_stack **s, void **p)
{
	size_t offset;

	/* 0 has no class here. */
	if (hz4_likely(size - 1 < HZ4_SMALL_MAX)) {
		offset = hz4_sizeclass_small_offset(size);
	} else if (size - 1 < HZ4_CLASS_MAX) {
		offset = hz4_sizeclass_big(size) * (size_t)HZ4_STACK_BYTES;
	} else {
		*s = (struct hz4_stack *)&hz4_empty_cache.stack[0];
		return false;
	}
	*s = hz4_stacks_at(*c, offset);
	return hz4_cache_pop(*s, p);
}

/* The same for objects aligned to a power of two. */
HZ4_FAST bool
hz4_heap_pop_aligned(struct hz4_cache **c, size_t align, size_t size, void **p)
{
	unsigned cls;

	if (size - 1 >= HZ4_CLASS_MAX || align > HZ4_PAGE)
		return false;
	cls = hz4_sizeclass_aligned(size, align);
	return cls != HZ4_CLS_NONE && hz4_cache_pop(&(*c)->stack[cls], p);
}

HZ4_FAST bool
hz4_heap_push(struct hz4_cache **c, void *p)
{
	return !hz4_unlikely(hz4_pagemap_foreign(p)) &&
	       hz4_likely(hz4_cache_push(
		       hz4_stacks_at(*c, hz4_pagemap_stack_offset(p)), p));
}

/* C11 malloc; NULL with ENOMEM. */
HZ4_FAST void *
hz4_heap_malloc(size_t size)
{
	struct hz4_stack *s;
	void *p;

	if (hz4_likely(hz4_heap_pop(&hz4_tls_cache, size, &s, &p)))
		return p;
	return hz4_heap_malloc_slow(size, s);
}

/* C11 free; keeps errno (POSIX 2024). */
HZ4_FAST void
hz4_heap_free(void *p)
{
	if (hz4_unlikely(!hz4_heap_push(&hz4_tls_cache, p)))
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
