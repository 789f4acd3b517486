/*
 * holemap.h - two maps of a span's OS pages, behind its bits: which were
 * purged and not used since, and which held nothing in the last round
 * (holes.h).
 *
 * Layer 3.  All but hz4_holes_add and hz4_holes with the class locked, or of
 * a span that is not admitted yet.
 */
#ifndef HZ4_HOLEMAP_H
#define HZ4_HOLEMAP_H

#include "span.h"

/* OS pages of all spans that were purged.  [atomic] relaxed: a sum */
extern _Atomic size_t hz4_holes_purged;

enum hz4_holes_map { HZ4_HOLES_CLEAN, HZ4_HOLES_SEEN };

/* Bytes behind the bits of a class's spans. */
size_t hz4_holes_bytes(const struct hz4_class *k);

/* A span has got its pages. */
void hz4_holes_start(struct hz4_span *s, const struct hz4_class *k);

/* Its pages are about to go, with the class locked. */
void hz4_holes_end(struct hz4_span *s, const struct hz4_class *k);

/* How many of its OS pages were purged. */
size_t hz4_holes_count(struct hz4_span *s, const struct hz4_class *k);

/* Objects of a span with marks were taken, with the class locked. */
void hz4_holes_fill(struct hz4_span *s, const struct hz4_class *k,
		    void *const *objects, unsigned n);

/* What a map says of an OS page. */
bool hz4_holes_get(struct hz4_span *s, const struct hz4_class *k,
		   enum hz4_holes_map map, uint32_t page);
void hz4_holes_set(struct hz4_span *s, const struct hz4_class *k,
		   enum hz4_holes_map map, uint32_t page, bool on);

/* So many OS pages were purged; the map says so already. */
void hz4_holes_add(size_t pages);

/* Bytes of free objects in spans that are not resident. */
size_t hz4_holes(void);

#endif
