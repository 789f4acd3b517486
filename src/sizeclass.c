/*
 * sizeclass.c - the layouts of the classes, made once.
 */
#include "sizeclass.h"

struct hz4_class hz4_classes[HZ4_CLS_VALUES];

/* The class of the sizes from 16 * n + 1 on, by the rule of sizeclass.h. */
#define CLASS(n) \
	(HZ4_STACK_BYTES * \
	 ((n) < 16 ? (n) + 1 : \
	  (n) < 32 ? 17 + ((n) - 16) / 2 : \
	  (n) < 64 ? 25 + ((n) - 32) / 4 : 33 + ((n) - 64) / 8))
#define FOUR(n) CLASS(n), CLASS((n) + 1), CLASS((n) + 2), CLASS((n) + 3)
#define SIXTEEN(n) FOUR(n), FOUR((n) + 4), FOUR((n) + 8), FOUR((n) + 12)

const uint16_t hz4_sizeclass_table[] HZ4_LINE_ALIGNED = {
	SIXTEEN(0),  SIXTEEN(16), SIXTEEN(32), SIXTEEN(48),
	SIXTEEN(64), SIXTEEN(80), SIXTEEN(96), SIXTEEN(112),
};

/* Classes of 16-byte steps before the eight to a doubling begin. */
enum { LINEAR_CLASSES = 16, LINEAR_END = LINEAR_CLASSES * HZ4_ALIGN };

/* The size `n` classes after that of `start` bytes. */
static uint32_t
size_after(uint32_t start, unsigned to_a_doubling, unsigned n)
{
	start <<= n / to_a_doubling;
	return start + start / to_a_doubling * (n % to_a_doubling);
}

static uint32_t
size_of_class(unsigned cls)
{
	if (cls <= LINEAR_CLASSES)
		return cls * HZ4_ALIGN;
	if (cls < HZ4_CLS_FIRST_MID)
		return size_after(LINEAR_END, 8, cls - LINEAR_CLASSES);
	return size_after(HZ4_SMALL_MAX, 4, cls - HZ4_CLS_FIRST_MID + 1);
}

/*
 * The fewest pages that hold enough objects and leave at most a given part
 * of the span unused; failing that, those that leave the least.
 *
 * Big objects have spans of few objects: such a span is soon empty, and its
 * pages then serve every class.  What it leaves unused is resident where they
 * did that before.
 */
static uint32_t
pages_for(uint32_t size)
{
	uint32_t least = size > HZ4_MID_MAX / 2 ? 1 : HZ4_SPAN_MIN_SLOTS;
	uint32_t best = HZ4_SPAN_MAX_PAGES, best_rest = UINT32_MAX;
	uint32_t pages, bytes, rest;

	for (pages = 1; pages <= HZ4_SPAN_MAX_PAGES; pages++) {
		bytes = pages * HZ4_PAGE;
		rest = bytes % size;
		if (bytes / size < least)
			continue;
		if (rest <= bytes / HZ4_SPAN_UNUSED)
			return pages;
		if (rest * (best * 1.0) < best_rest * (pages * 1.0)) {
			best = pages;
			best_rest = rest;
		}
	}
	return best;
}

/* Each step makes twice as many of the lowest bits right: 3, 6, 12, 24, ... */
static uint64_t
inverse_of(uint64_t odd)
{
	uint64_t x = odd;

	while (x * odd != 1)
		x *= 2 - x * odd;
	return x;
}

static void
lay_out(struct hz4_class *c, uint32_t size)
{
	c->size = size;
	c->pages = pages_for(size);
	c->slots = c->pages * HZ4_PAGE / size;
	c->words = (c->slots + 63) / 64;
	c->twos = (uint32_t)__builtin_ctz(size);
	c->inverse = inverse_of(size >> c->twos);
	c->batch = (uint32_t)hz4_max(HZ4_BATCH_OBJECTS, HZ4_BATCH_SMALL / size);
	c->batch = (uint32_t)hz4_min(c->batch, HZ4_BATCH_MAX);
	c->batch = (uint32_t)hz4_max(
		1, hz4_min(c->batch, HZ4_BATCH_BYTES / size));
}

void
hz4_sizeclass_init(void)
{
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_ZERO; cls++)
		lay_out(&hz4_classes[cls], size_of_class(cls));
	lay_out(&hz4_classes[HZ4_CLS_ZERO], HZ4_ALIGN);
}

unsigned
hz4_sizeclass_aligned(size_t size, size_t align)
{
	unsigned cls;

	if (align > HZ4_PAGE || size > HZ4_CLASS_MAX)
		return HZ4_CLS_NONE;
	size = (size + align - 1) & ~(align - 1);
	for (cls = hz4_sizeclass(size); cls < HZ4_CLS_ZERO; cls++)
		if ((hz4_classes[cls].size & (align - 1)) == 0)
			return cls;
	return HZ4_CLS_NONE;
}
