/*
 * transfer.h - batches of objects between the threads' caches and the
 * spans of a size class.
 *
 * Layer 3.  Takes HZ4_RANK_CLASS; the page heap's lock only when that is
 * dropped.
 */
#ifndef HZ4_TRANSFER_H
#define HZ4_TRANSFER_H

#include "span.h"

/* What a call had to do; bits. */
enum hz4_transfer_path {
	HZ4_TRANSFER_LOCKED = 1,  /* took the class's lock */
	HZ4_TRANSFER_CREATED = 2, /* made a span */
	HZ4_TRANSFER_RELEASED = 4 /* gave a span back */
};

/* Once, before the first other call: gives the classes' locks their rank. */
void hz4_transfer_init(void);

/*
 * Take up to `want` objects of a class, lowest address first within a
 * span.  Returns how many; 0 when the system refuses memory.
 */
unsigned hz4_transfer_take(unsigned cls, void **objects, unsigned want,
			   unsigned *path);

/*
 * Give objects of a class back, whichever threads they came from; `now` (ms)
 * is the caller's, since asking for the time may call a preloaded wrapper,
 * which allocates, when `objects` are neither here nor there.  Aborts when
 * one of them is not the start of an object or lies in its span already (a
 * double free).
 */
void hz4_transfer_give(unsigned cls, void *const *objects, unsigned n,
		       uint64_t now, unsigned *path);

/* Bytes of empty spans that classes keep for their next objects. */
size_t hz4_transfer_idle(void);

/* Give those back to the page heap. */
void hz4_transfer_trim(void);

/* The same where so many pages are needed and it would spare fresh ones. */
void hz4_transfer_make_room(size_t pages);

struct hz4_transfer_figures {
	size_t spans;	/* spans with pages */
	size_t objects; /* that they have room for */
};

void hz4_transfer_figures(unsigned cls, struct hz4_transfer_figures *out);

/*
 * Where an object lies in its span: true when p is the start of an object
 * and the object is out (the user's or in a cache).
 */
bool hz4_transfer_is_out(const void *p);

/* Abort over the free of what is no live object of the class. */
HZ4_SLOW void hz4_transfer_reject(unsigned cls, void *object);

void hz4_transfer_fork_child(void);

#endif
