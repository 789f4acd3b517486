/*
 * pagemap.h - from an address to the page's class and owner.
 *
 *     root[address >> 32] --> leaf.entry[address >> 16 & 0xffff]
 *
 * An entry is the class, counted in HZ4_STACK_BYTES: free comes to the stack
 * of the class without a multiplication.
 *
 * The root holds distances from the leaf of zeros, so that an absent leaf
 * (distance 0) needs no test: every address can be asked about and answers
 * 0, "not ours", unless it was registered.  Leaves are 4 GiB of address
 * space each and are never removed.
 *
 * Layer 2.  Readers take no lock: a page's entries are written before the
 * first pointer into it is handed out and after the last one is gone, so
 * the user's own passing of the pointer orders them.
 */
#ifndef HZ4_PAGEMAP_H
#define HZ4_PAGEMAP_H

#include "sizeclass.h"

enum {
	HZ4_LEAF_SHIFT = 32,
	HZ4_LEAF_PAGES = 1 << (HZ4_LEAF_SHIFT - HZ4_PAGE_SHIFT),
	/* 47 bits of user addresses on x86-64; 48 elsewhere. */
#if defined(__x86_64__) && defined(__LP64__)
	HZ4_ROOT_ENTRIES = 1 << 15,
#elif defined(__LP64__)
	HZ4_ROOT_ENTRIES = 1 << 16,
#else
	HZ4_ROOT_ENTRIES = 1,
#endif
};

enum hz4_page_flag {
	/* The page may hold bytes other than 0. */
	HZ4_PAGE_DIRTY = 1,
	/* First or last page of a free run: the owner is its hz4_run. */
	HZ4_PAGE_FREE = 2,
	/* A purge was refused since the page was used. */
	HZ4_PAGE_TRIED = 4,
	/* In a region for which huge pages are advised. */
	HZ4_PAGE_HUGE = 8,
	/* Once moved here (large.c): another mapping than its neighbours'. */
	HZ4_PAGE_MOVED = 16,
	/* The first page of such a mapping. */
	HZ4_PAGE_MOVED_FIRST = 32,
};

struct hz4_leaf {
	/* [atomic] relaxed, see above */
	_Atomic uint16_t entry[HZ4_LEAF_PAGES];
	/*
	 * enum hz4_page_flag.  Written under the page heap's lock, or by
	 * who has the page; a neighbour may look. [atomic] relaxed
	 */
	_Atomic uint8_t flags[HZ4_LEAF_PAGES];
	/* struct hz4_span, hz4_large or hz4_run. [atomic] relaxed */
	void *_Atomic owner[HZ4_LEAF_PAGES];
	/*
	 * Of each 2 MiB of a region with huge pages: it has small ones until
	 * all of it is free (pagehuge.c).  Set by who has a page there,
	 * cleared under the page heap's lock while nobody has.
	 * [atomic] relaxed
	 */
	_Atomic bool small[HZ4_LEAF_PAGES / (HZ4_REGION_ALIGN / HZ4_PAGE)];
};

struct hz4_pagemap {
	/*
	 * Distance of a leaf from `zeros`, less than nothing or more; 0
	 * where there is none.  First, so that it is indexed without an
	 * addition. [atomic] relaxed
	 */
	_Atomic uintptr_t root[HZ4_ROOT_ENTRIES];
	_Atomic uint16_t zeros[HZ4_LEAF_PAGES]; /* never written */
};

extern struct hz4_pagemap hz4_pagemap;

/* The part of an address above all user addresses. */
HZ4_FAST uintptr_t
hz4_pagemap_root_index(uintptr_t address)
{
	return (uintptr_t)((uint64_t)address >> HZ4_LEAF_SHIFT);
}

HZ4_FAST uintptr_t
hz4_pagemap_leaf_index(uintptr_t address)
{
	/* A leaf covers what fits into 32 bits: a shift does the masking. */
	return (uint32_t)address >> HZ4_PAGE_SHIFT;
}

/*
 * True for an address that no object of ours can have: above all user
 * addresses or not aligned to 16.
 */
HZ4_FAST bool
hz4_pagemap_foreign(const void *p)
{
	const uintptr_t user = (uintptr_t)(
		((uint64_t)HZ4_ROOT_ENTRIES << HZ4_LEAF_SHIFT) - 1);

	return ((uintptr_t)p & ~(user - (HZ4_ALIGN - 1))) != 0;
}

/*
 * Where the stack of the page's class lies, counted from that of class 0, for
 * an address that is not foreign.
 */
HZ4_FAST size_t
hz4_pagemap_stack_offset(const void *p)
{
	uintptr_t a = (uintptr_t)p;
	uintptr_t distance = hz4_peek(
		&hz4_pagemap.root[hz4_pagemap_root_index(a)]);
	const _Atomic uint16_t *leaf = (const _Atomic uint16_t *)(
		(uintptr_t)hz4_pagemap.zeros + distance);

	return hz4_peek_fast(uint16_t, &leaf[hz4_pagemap_leaf_index(a)]);
}

/* The class of the page at any address, HZ4_CLS_NONE when not ours. */
static inline unsigned
hz4_pagemap_class(const void *p)
{
	if (hz4_pagemap_foreign(p))
		return HZ4_CLS_NONE;
	return (unsigned)(hz4_pagemap_stack_offset(p) / HZ4_STACK_BYTES);
}

/* The leaf of a registered address. */
HZ4_FAST struct hz4_leaf *
hz4_pagemap_leaf(uintptr_t address)
{
	uintptr_t distance = hz4_peek(
		&hz4_pagemap.root[hz4_pagemap_root_index(address)]);

	/* Of what is absent there are entries alone. */
	HZ4_ASSERT(distance != 0);
	return (struct hz4_leaf *)(void *)((uintptr_t)hz4_pagemap.zeros +
					   distance);
}

/* Owner and flags of the page at a registered address. */
HZ4_FAST void *
hz4_pagemap_owner(uintptr_t address)
{
	return hz4_peek(&hz4_pagemap_leaf(address)
			->owner[hz4_pagemap_leaf_index(address)]);
}

HZ4_FAST uint8_t
hz4_pagemap_flags(uintptr_t address)
{
	return hz4_peek(&hz4_pagemap_leaf(address)
			->flags[hz4_pagemap_leaf_index(address)]);
}

/* True when the leaf of an address exists (its pages may still be foreign). */
bool hz4_pagemap_has_leaf(uintptr_t address);

/*
 * Make the leaves for a range.  False when there is no memory for them or
 * the range is outside the map.  Caller holds the page heap's lock.
 */
bool hz4_pagemap_reserve(uintptr_t start, size_t bytes);

/* Set class and owner of `pages` pages. */
void hz4_pagemap_set(uintptr_t start, size_t pages, unsigned cls, void *owner);

/* Set or clear flags of `pages` pages. */
void hz4_pagemap_mark(uintptr_t start, size_t pages, uint8_t set,
		      uint8_t clear);

/* Take a page's class away; true for the one caller that had it. */
bool hz4_pagemap_claim(uintptr_t address, unsigned cls);

#endif
