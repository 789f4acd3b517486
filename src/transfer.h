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

/* What a call had to do; bits. */
enum hz4_transfer_path {
	HZ4_TRANSFER_LOCKED = 1,  /* took the class's lock */
	HZ4_TRANSFER_CREATED = 2, /* made a span */
	HZ4_TRANSFER_RELEASED = 4 /* gave a span back */
};

/*
 * Take up to `want` objects of a class, lowest address first within a
 * span, whole cache lines before parts of them where there are several
 * threads.  Returns how many; 0 when the system refuses memory.
 */
unsigned hz4_transfer_take(unsigned cls, void **objects, unsigned want,
			   unsigned *path);

/*
 * Give objects of a class back, whichever threads they came from; `now` (ms)
 * is the caller's, since asking for the time may call a preloaded wrapper,
 * which allocates, when `objects` are neither here nor there.  Aborts when
 * one of them is not the start of an object or lies in its span already (a
 * double free).  `n` may be any number.
 */
void hz4_transfer_give(unsigned cls, void *const *objects, unsigned n,
		       uint64_t now, unsigned *path);

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
	size_t offset;
	uint32_t slot;

	if (s == NULL)
		return false;
	offset = (uintptr_t)p - s->start;
	slot = hz4_sizeclass_slot(k, offset);
	return slot * (size_t)k->size == offset && slot < k->slots &&
	       !(hz4_peek(&s->bits[slot / 64]) >> slot % 64 & 1);
}

/* Abort over the free of what is no live object of the class. */
HZ4_SLOW void hz4_transfer_reject(unsigned cls, void *object);

#endif
