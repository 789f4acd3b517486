/*
 * transfer.h - batches of objects between the threads' caches and the
 * spans of a size class.
 *
 * Layer 3.  Takes HZ4_RANK_CLASS.
 */
#ifndef HZ4_TRANSFER_H
#define HZ4_TRANSFER_H

#include "pagemap.h"
#include "span.h"
#include "stats.h"

/* What a call had to do; bits. */
enum hz4_transfer_path {
	HZ4_TRANSFER_LOCKED = 1,  /* took the class's lock */
	HZ4_TRANSFER_CREATED = 2, /* made a span */
	HZ4_TRANSFER_RELEASED = 4 /* gave a span back */
};

/*
 * Take up to `want` objects of a class: those of a span with the lowest
 * addresses, whole cache lines before parts of them where there are several
 * threads.  What is to be used first comes last.  Returns how many; 0 when
 * the system refuses memory.
 */
unsigned hz4_transfer_take(unsigned cls, void **objects, unsigned want,
			   unsigned *path);

/*
 * Take one object of a class above HZ4_FRESH_WHOLE that nobody has used yet;
 * its first `bytes` are zero, and what is known to be so is not touched.
 * NULL when the next one was used, or there is none.
 */
void *hz4_transfer_take_zeroed(unsigned cls, size_t bytes, unsigned *path);

/*
 * Give objects of a class back, whichever threads they came from; `now` (ms)
 * 0: the time is asked for if it is needed.  Aborts when
 * one of them is not the start of an object or lies in its span already (a
 * double free).  `n` may be any number.
 */
void hz4_transfer_give(unsigned cls, void *const *objects, unsigned n,
		       uint64_t now, unsigned *path);

/* The same for caches: what happened is counted. */
unsigned hz4_transfer_take_run(unsigned cls, void **objects, unsigned want,
			       struct hz4_counts *counts);
void hz4_transfer_give_run(unsigned cls, void *const *objects, unsigned n,
			   uint64_t now, struct hz4_counts *counts);

/*
 * The span of an address whose page had this class just now; NULL when that
 * is no span's any more.
 */
HZ4_FAST struct hz4_span *
hz4_transfer_span(const void *p, unsigned cls)
{
	struct hz4_span *s = hz4_pagemap_owner((uintptr_t)p);

	return hz4_likely(s != NULL && s->cls == cls) ? s : NULL;
}

/*
 * Whether p, in a page that had this class just now, is the start of an
 * object, and the object is out: the user's or in a cache.
 */
HZ4_FAST bool
hz4_transfer_is_out(const void *p, unsigned cls)
{
	const struct hz4_class *k = &hz4_classes[cls];
	struct hz4_span *s = hz4_transfer_span(p, cls);
	uint64_t slot;

	if (s == NULL)
		return false;
	slot = hz4_sizeclass_slot(k, (uintptr_t)p - s->start);
	return slot < k->slots &&
	       !(hz4_peek(&s->bits[slot / 64]) >> slot % 64 & 1);
}

/* The objects of these bits of a span's word are free again. */
void hz4_transfer_give_bits(struct hz4_span *s, uint32_t w, uint64_t bits);

/* Abort over the free of what is no live object of the class. */
HZ4_SLOW void hz4_transfer_reject(unsigned cls, void *object);

/* The same of an object that is known to be free, found by such a call. */
_Noreturn void hz4_transfer_twice(const char *call, const struct hz4_class *k,
				  const void *object);

#endif
