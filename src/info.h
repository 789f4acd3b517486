/*
 * info.h - figures of the whole heap, for libc's reports and hz4_stats_*.
 *
 * Layer 4.
 */
#ifndef HZ4_INFO_H
#define HZ4_INFO_H

#include "base.h"

struct hz4_info {
	size_t mapped;	      /* bytes got from the kernel, all together */
	size_t metadata;      /* of these, for hz4's own structures */
	size_t live;	      /* bytes in objects of the user */
	size_t live_objects;
	size_t cached;	      /* bytes in threads' caches */
	size_t cached_objects;
	size_t in_spans;      /* bytes free in spans */
	size_t spans;	      /* spans with pages */
	size_t free_pages;    /* bytes in free runs of pages */
	size_t dirty_pages;   /* of these, resident for all we know */
	size_t large;	      /* live bytes above the size classes */
	size_t large_objects;
	size_t mappings;      /* objects with a mapping of their own */
	size_t mapping_bytes;
};

/* Sum up.  While other threads work the figures are a moment's guess. */
void hz4_info_get(struct hz4_info *out);

/*
 * All figures and counters as text ("name value" lines) or JSON.  As
 * snprintf: returns the length of the whole, which is cut to size - 1.
 */
size_t hz4_info_text(char *buffer, size_t size);
size_t hz4_info_json(char *buffer, size_t size);

/* Sum of a counter over threads and classes (0 without --enable-stats). */
uint64_t hz4_info_counter(unsigned which, unsigned first_cls,
			  unsigned end_cls);

const char *hz4_info_flavour(void);

#endif
