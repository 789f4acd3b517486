/*
 * span.h - the three things a page can belong to, and where the structures
 * of spans lie.  Structures only.
 *
 * None of them lies in or next to the pages it describes (meta.h).
 *
 * Layer 2.
 */
#ifndef HZ4_SPAN_H
#define HZ4_SPAN_H

#include "list.h"
#include "sample.h"
#include "sizeclass.h"

/*
 * A span: pages cut into objects of one class.
 *
 *     bit set    the object lies in the span: free, nobody's
 *     bit clear  it is out: the user's, or in a thread's cache
 *
 * Frees set bits without a lock; only a holder of the class's lock clears
 * them.  A span with all bits set and `active` is empty: it is in its class's
 * idle list, or in the inbox and will be; one with no bit set is in no list.
 *
 * The structure is type-stable: its memory is only ever used for spans of one
 * class, or all zeros (struct hz4_slab), which is a span without pages, so
 * that a free which has just set the last bit may still look at `linked` and
 * the bits, and write `since`.  It reads `slab` before.
 */
struct hz4_span {
	struct hz4_list link;	/* in a list of the class [lock: class] */
	struct hz4_slab *slab;	/* it lies in [const] while active */
	uintptr_t start;	/* [const] while active */
	/* When objects came back last, ms. [atomic] relaxed: a hint */
	_Atomic uint64_t since;
	uint8_t cls;	 /* [const] while active */
	bool active : 1; /* has pages [lock: class] */
	bool idle : 1;	 /* in the idle list [lock: class] */
	bool looked : 1; /* whether it is sparse, since linked [lock: class] */
	bool marked : 1; /* its maps say something (holes.h) [lock: class] */
	/*
	 * In the partial, the sparse or the idle list.
	 * [lock: class] writes; [atomic] seq_cst against the bits.
	 */
	_Atomic bool linked;
	/*
	 * Fresh units (fresh.h): how many more than needed are asked for, or
	 * HZ4_SPAN_WHOLE: an object was seen to be used to its end.
	 * [lock: class] or not admitted yet, writes; [atomic] relaxed: a hint
	 */
	_Atomic uint8_t ahead;
	/*
	 * Those from the start that somebody may have touched, the rest nobody
	 * since the pages were clean. [lock: class] or not admitted yet
	 */
	uint16_t touched;
	/*
	 * Words of the class; behind them two maps of OS pages (holes.h).
	 * Those: [lock: class], or not admitted yet
	 */
	_Atomic uint64_t bits[];
};

enum { HZ4_SPAN_WHOLE = 0x80 };

/* One with a single word is one line of the metadata, which givers write. */
_Static_assert(offsetof(struct hz4_span, bits) + sizeof(uint64_t) <= 64,
	       "a span has grown");

/*
 * A slab: structures for the spans of one class in one shard.  They lie in
 * HZ4_SLAB bytes of the metadata, which are purged when none of them has
 * pages; but for the first few, which lie right behind this.  What a late
 * free writes for good is here, and this stays.
 */
struct hz4_slab {
	struct hz4_list link; /* in `unused`, if it has any [lock: class] */
	struct hz4_slab *older; /* of the lists, made before [const] */
	char *spans;		/* [const] */
	/* Behind it in the inbox [who has set the first bit, the drainer] */
	struct hz4_slab *next;
	/*
	 * A bit for each span that may belong into another list: the slab is
	 * in the inbox, or about to be.  [atomic] seq_cst against the bits
	 */
	_Atomic uint64_t queued;
	/* Of those without pages. [lock: class]; [atomic] relaxed: a hint */
	_Atomic uint64_t unused;
	uint16_t bytes;	 /* of a structure [const] */
	uint8_t count;	 /* of structures [const] */
	uint8_t cls;	 /* [const] */
	uint8_t shard;	 /* whose lists they are in [const] */
	bool purged;	 /* [lock: class] */
};

_Static_assert(sizeof(struct hz4_slab) <= 64, "a slab has grown");

/* A large object: whole pages of the page heap, or a mapping of its own. */
struct hz4_large {
	uintptr_t start; /* [owner] */
	size_t bytes;	 /* usable, whole pages [owner] */
	size_t asked;	 /* of these, by the user: the rest is room [owner] */
	size_t whole;	 /* of these, known to be used [owner] */
	bool mapping;	 /* of its own [owner] */
	bool copied;	 /* from another large object, to grow [owner] */
	struct hz4_sample sample;
};

/* A run of free pages in the page heap.  All fields [lock: pages]. */
struct hz4_run {
	struct hz4_list link; /* in a bin, or among the spares */
	struct hz4_list age;  /* in the list of dirty runs, oldest first */
	uintptr_t start;
	uint64_t stamp; /* when most of the dirty pages came, ms */
	uint32_t pages;
	uint32_t dirty; /* pages that a purge would bring back */
	uint32_t epoch; /* of the page heap: older runs are lost */
};

#endif
