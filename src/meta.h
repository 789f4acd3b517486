/*
 * meta.h - memory for the allocator's own structures.
 *
 * It lies in mappings of its own, away from user memory, and is recycled
 * by size but never unmapped: a pointer to a structure stays readable for
 * ever, which the lock-free part of transfer.c relies on.  Of the pages that
 * hold the structures of spans, those that nobody uses are purged.
 *
 * Layer 2.  Takes HZ4_RANK_META.
 */
#ifndef HZ4_META_H
#define HZ4_META_H

#include "base.h"

/*
 * Memory for `size` bytes, aligned to 64; its contents are undefined.
 * NULL when the system refuses.
 */
void *hz4_meta_alloc(size_t size);

/* `size` is what was asked for. */
void hz4_meta_free(void *p, size_t size);

/*
 * A multiple of HZ4_SLAB bytes, zeros, which nobody gives back; aligned to an
 * OS page, if that is not larger.
 */
void *hz4_meta_pages(size_t bytes);

/*
 * Purge one, to zeros again; false when the system refuses, or its pages
 * are larger.  And one that was purged is about to be used.
 */
bool hz4_meta_purge(void *pages, size_t bytes);
void hz4_meta_use_again(size_t bytes);

/*
 * Bytes mapped for metadata; of these what is purged, or was never used: to
 * be asked for first where both are, since a chunk counts in both.
 */
size_t hz4_meta_mapped(void);
size_t hz4_meta_unused(void);

/* Call `see` for each range of addresses where it lies. */
void hz4_meta_each(void (*see)(uintptr_t start, uintptr_t end, void *arg),
		   void *arg);

HZ4_SLOW void hz4_meta_fork_child(void);

#endif
