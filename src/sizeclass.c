/*
 * sizeclass.c - the tables, made once.
 */
#include "sizeclass.h"

struct hz4_class hz4_classes[HZ4_CLS_VALUES];
_Atomic uint8_t hz4_small_class[HZ4_SMALL_MAX / HZ4_SMALL_STEP + 1];
_Atomic uint8_t hz4_mid_class[HZ4_CLASS_MAX / HZ4_MID_STEP + 1];

/* Classes of 16-byte steps before the eight to a doubling begin. */
enum { LINEAR_CLASSES = 16, LINEAR_END = LINEAR_CLASSES * HZ4_SMALL_STEP };

static uint32_t
size_of_class(unsigned cls)
{
	unsigned above, doubling, eighth;

	if (cls <= LINEAR_CLASSES)
		return cls * HZ4_SMALL_STEP;
	above = cls - LINEAR_CLASSES - 1;
	doubling = above / 8;
	eighth = above % 8 + 1;
	return (LINEAR_END << doubling) + eighth * (LINEAR_END / 8 << doubling);
}

/*
 * The fewest pages that hold enough objects and leave at most 1/32 of the
 * span unused; failing that, those that leave the least.
 */
static uint32_t
pages_for(uint32_t size)
{
	uint32_t least = size <= HZ4_MID_MAX / 2 ? HZ4_SPAN_MIN_SLOTS :
						   HZ4_SPAN_MIN_SLOTS_BIG;
	uint32_t best = HZ4_SPAN_MAX_PAGES, best_rest = UINT32_MAX;
	uint32_t pages, bytes, rest;

	for (pages = 1; pages <= HZ4_SPAN_MAX_PAGES; pages++) {
		bytes = pages * HZ4_PAGE;
		rest = bytes % size;
		if (bytes / size < least)
			continue;
		if (rest <= bytes / 32)
			return pages;
		if (rest * (best * 1.0) < best_rest * (pages * 1.0)) {
			best = pages;
			best_rest = rest;
		}
	}
	return best;
}

static void
shape(struct hz4_class *c, uint32_t size)
{
	c->size = size;
	c->pages = pages_for(size);
	c->slots = c->pages * HZ4_PAGE / size;
	c->words = (c->slots + 63) / 64;
	c->slot_magic = (((uint64_t)1 << HZ4_SLOT_SHIFT) + size - 1) / size;
	c->batch = (uint32_t)hz4_max(
		1, hz4_min(HZ4_BATCH_MAX, HZ4_CLASS_MAX / size));
}

void
hz4_sizeclass_init(void)
{
	uint32_t size, low = 0, i;
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		size = size_of_class(cls);
		shape(&hz4_classes[cls], size);
		for (i = low; i <= size && i <= HZ4_SMALL_MAX;
		     i += HZ4_SMALL_STEP)
			hz4_poke(&hz4_small_class[i / HZ4_SMALL_STEP],
				 (uint8_t)cls);
		low = hz4_round_up(size + 1, HZ4_SMALL_STEP);
	}
	low = 0;
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		size = hz4_classes[cls].size;
		if (size % HZ4_MID_STEP != 0)
			continue;
		for (i = low; i <= size; i += HZ4_MID_STEP)
			hz4_poke(&hz4_mid_class[i / HZ4_MID_STEP],
				 (uint8_t)cls);
		low = size + HZ4_MID_STEP;
	}
}

unsigned
hz4_sizeclass_aligned(size_t size, size_t align)
{
	unsigned cls;

	if (align > HZ4_PAGE || size > HZ4_CLASS_MAX)
		return HZ4_CLS_NONE;
	size = hz4_round_up(size, align);
	for (cls = hz4_sizeclass(size); cls < HZ4_CLS_END; cls++)
		if (hz4_classes[cls].size % align == 0)
			return cls;
	return HZ4_CLS_NONE;
}
