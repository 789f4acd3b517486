/*
 * samples.h - sampled objects, and the call stacks that took them.
 *
 * A sampled object has to be known again when it is freed, by any thread and
 * at no cost to others.  So it lies in pages that have a class of their own
 * in the page map, HZ4_CLS_MARKED, for which no thread has a stack: as with
 * large objects the fast path of free fails, and nothing is added to it.  Such
 * a *slab* has the layout of a span of the object's own size class, so that
 * usable size and alignment are what they would be without, and the sample of
 * each of its slots.  Objects above the classes have one in struct hz4_large.
 *
 * All under one lock: a sample is rare.
 *
 * Layer 3.  Takes HZ4_RANK_SAMPLES, and those of pages and metadata inside.
 */
#ifndef HZ4_SAMPLES_H
#define HZ4_SAMPLES_H

#include "sample.h"
#include "sizeclass.h"

/* Make the table for so many call stacks, once.  False without memory. */
bool hz4_samples_start(size_t most);

/* Forget all that was counted; from now on the mean distance is `rate`. */
void hz4_samples_reset(uint64_t rate);

/*
 * The call stack's entry, made when there is none yet.  That for want of room
 * in the table, or of what could be walked, when there can be none.
 */
struct hz4_site *hz4_samples_site(const uintptr_t *frames, unsigned depth);

/* The latest site made, and from there by `older`; for who has no lock. */
struct hz4_site *hz4_samples_sites(void);

/* The two of them that stand for others. */
const struct hz4_site *hz4_samples_full(void);
const struct hz4_site *hz4_samples_unwalked(void);

/* An object of the class that is a sample, of `size` bytes.  NULL: refused. */
void *hz4_samples_take(unsigned cls, struct hz4_site *site, size_t size);

/* free() gives it back; aborts when it is no live one. */
void hz4_samples_give(void *p);

/*
 * The class of a live object in a slab; aborts when it is none (`call` names
 * who asks).
 */
unsigned hz4_samples_class(const void *p, const char *call);

/* A large object is a sample from now on; and is none any more. */
void hz4_samples_note(struct hz4_sample *s, struct hz4_site *site,
		      size_t size);
void hz4_samples_drop(struct hz4_sample *s);

/*
 * The size asked for of an object in a slab, 0 if it is no sample; and another
 * one, with which it stays a sample or not.
 */
size_t hz4_samples_asked(const void *p);
void hz4_samples_resize(void *p, size_t size, bool keep);

/* Bytes that live samples stand for, nearly. */
uint64_t hz4_samples_live(void);

/* Live objects of a class in slabs. */
size_t hz4_samples_objects(unsigned cls);

typedef void hz4_samples_see(uintptr_t start, size_t size,
			     struct hz4_site *site, void *arg);

/*
 * Call `see` for each object of the slab that begins at `page`; its pages, or 0
 * if there is none, or none any more.
 */
size_t hz4_samples_each(uintptr_t page, hz4_samples_see *see, void *arg);

/* For the heap walker: pages of the slab that begins at `page`, else 0. */
size_t hz4_samples_pages(uintptr_t page);

HZ4_SLOW void hz4_samples_fork_child(void);

#endif
