/*
 * large.h - objects above the size classes: runs of whole pages, or, from
 * HZ4_HUGE_MIN on, mappings of their own.
 *
 * Layer 3.  Takes HZ4_RANK_PAGES, HZ4_RANK_META.
 */
#ifndef HZ4_LARGE_H
#define HZ4_LARGE_H

#include "sample.h"

/*
 * An object of `size` bytes (at least 1) aligned to `align`, a power of
 * two.  With `zero` its bytes are 0.  NULL: no memory.
 */
void *hz4_large_alloc(size_t size, size_t align, bool zero);

/*
 * False for what the system refuses whatever is given back to it: there are
 * not so many addresses, or the machine has not so much memory.
 */
bool hz4_large_may_exist(size_t size, size_t align);

/* Both abort unless p is the start of a large object (`call`: who asks). */
void hz4_large_free(void *p);
size_t hz4_large_usable(const void *p, const char *call);

/*
 * Make an object fit `size` bytes: in place, or by moving its page tables.
 * Returns where it is now; NULL when it must be copied.  What it has beyond
 * what was asked for last is room, and stays while it grows.
 */
void *hz4_large_resize(void *p, size_t size);

/* What is known of an object if it is sampled. */
struct hz4_sample *hz4_large_sample(void *p);

/* Only so many bytes of a new object were asked for. */
void hz4_large_ask(void *p, size_t size);

/* The first `n` bytes of an object are used (pagehuge.c). */
void hz4_large_note_whole(void *p, size_t n);

struct hz4_large_figures {
	size_t objects;	 /* live large objects */
	size_t bytes;	 /* that they hold */
	size_t mappings; /* of these, with a mapping of their own */
	size_t mapped;	 /* bytes of those mappings */
	size_t most_mappings, most_mapped; /* that there ever were at once */
};

void hz4_large_figures(struct hz4_large_figures *out);

#endif
