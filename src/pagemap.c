/*
 * pagemap.c - making leaves and writing entries.
 */
#include "pagemap.h"

#include "os.h"

struct hz4_pagemap hz4_pagemap;

/*
 * The first leaf, part of the library's own image: most programs need no
 * other.  Given out once. [lock: pages]  What tells so is true at first, and
 * lies in .data by that: beside the leaf it would cost a page of its own.
 */
static struct hz4_leaf first_leaf;
static bool first_left = true;

bool
hz4_pagemap_has_leaf(uintptr_t address)
{
	uintptr_t i = hz4_pagemap_root_index(address);

	return i < HZ4_ROOT_ENTRIES && hz4_peek(&hz4_pagemap.root[i]) != 0;
}

static struct hz4_leaf *
make_leaf(void)
{
	if (!first_left)
		return hz4_os_map_guarded(sizeof(struct hz4_leaf));
	first_left = false;
	return &first_leaf;
}

bool
hz4_pagemap_reserve(uintptr_t start, size_t bytes)
{
	uintptr_t first = hz4_pagemap_root_index(start);
	uintptr_t last = hz4_pagemap_root_index(start + bytes - 1);
	uintptr_t i;
	struct hz4_leaf *leaf;

	if (start + bytes < start || last >= HZ4_ROOT_ENTRIES)
		return false;
	for (i = first; i <= last; i++) {
		if (hz4_peek(&hz4_pagemap.root[i]) != 0)
			continue;
		leaf = make_leaf();
		if (leaf == NULL)
			return false;
		hz4_poke(&hz4_pagemap.root[i],
			 (uintptr_t)leaf - (uintptr_t)hz4_pagemap.zeros);
	}
	return true;
}

void
hz4_pagemap_set(uintptr_t start, size_t pages, unsigned cls, void *owner)
{
	struct hz4_leaf *leaf;
	uintptr_t i;

	for (; pages > 0; pages--, start += HZ4_PAGE) {
		leaf = hz4_pagemap_leaf(start);
		i = hz4_pagemap_leaf_index(start);
		hz4_poke(&leaf->owner[i], owner);
		hz4_poke(&leaf->entry[i], (uint16_t)(cls * HZ4_STACK_BYTES));
	}
}

void
hz4_pagemap_mark(uintptr_t start, size_t pages, uint8_t set, uint8_t clear)
{
	_Atomic uint8_t *flags;

	for (; pages > 0; pages--, start += HZ4_PAGE) {
		flags = &hz4_pagemap_leaf(start)
				 ->flags[hz4_pagemap_leaf_index(start)];
		hz4_poke(flags, (uint8_t)((hz4_peek(flags) | set) & ~clear));
	}
}

bool
hz4_pagemap_claim(uintptr_t address, unsigned cls)
{
	struct hz4_leaf *leaf = hz4_pagemap_leaf(address);
	uintptr_t i = hz4_pagemap_leaf_index(address);
	uint16_t expected = (uint16_t)(cls * HZ4_STACK_BYTES);

	/*
	 * Acquire: whoever loses (a double free in another thread) must not
	 * see the object's memory as still its own.
	 */
	return atomic_compare_exchange_strong_explicit(
		&leaf->entry[i], &expected, HZ4_CLS_NONE, memory_order_acq_rel,
		memory_order_relaxed);
}
