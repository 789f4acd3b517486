/*
 * sizeclass.h - from a size to its class and from a class to its layout.
 *
 * Classes are 16 bytes apart up to 256, then eight to a doubling, and four
 * above 2 KiB, so an object wastes at most 15 bytes, or an eighth or a fifth
 * of itself:
 *
 *     class      1 .. 16   17 .. 40     41 .. 60      61 .. 68
 *     size      16 .. 256  288 .. 2048  2560 .. 64Ki  80Ki .. 256Ki
 *     range         small  small        mid           large
 *
 * There are few objects of the larger sizes, and each class that has any has
 * a span, part of which lies idle.
 *
 * Class 0 means "not ours", HZ4_CLS_RUN a large object of whole pages,
 * HZ4_CLS_MARKED a sampled one (samples.h),
 * HZ4_CLS_ZERO an object of no bytes, which nobody may touch: addresses 16
 * bytes apart in pages without access.
 *
 * A small size leads to its class by a table of four cache lines, all others
 * by arithmetic, since one for them would take more lines from the program
 * than it is worth.
 *
 * Layer 2.  Constant after init.
 */
#ifndef HZ4_SIZECLASS_H
#define HZ4_SIZECLASS_H

#include "tune.h"

enum {
	HZ4_CLS_NONE = 0,
	HZ4_CLS_FIRST_MID = 41,
	HZ4_CLS_FIRST_LARGE = 61,
	HZ4_CLS_ZERO = 69,
	HZ4_CLS_END = 70,
	HZ4_CLS_RUN = HZ4_CLS_END,
	HZ4_CLS_MARKED,
	/* Values a page's class can have. */
	HZ4_CLS_VALUES,

	/*
	 * Bytes from the stack of a class to that of the next one in a
	 * thread's cache (stacks.h), which the page map counts in.
	 */
	HZ4_STACK_BYTES = 4 * sizeof(void *) +
			  (HZ4_MID_STATS_B1 ? 2 * sizeof(uint64_t) : 0),

	/* log2 of HZ4_SMALL_MAX. */
	HZ4_SMALL_BITS = 11,
};

struct hz4_class {
	uint32_t size;	/* bytes from one object to the next [const] */
	uint32_t pages; /* pages of a span [const] */
	uint32_t slots; /* objects in a span [const] */
	uint32_t words; /* 64-bit words of a span's bitmap [const] */
	uint32_t batch; /* most objects that move at once [const] */
	/* size == odd << twos; odd * inverse == 1, modulo 2^64 [const] */
	uint32_t twos;
	uint64_t inverse;
};

extern struct hz4_class hz4_classes[HZ4_CLS_VALUES];

void hz4_sizeclass_init(void);

/* The class of each 16 bytes up to HZ4_SMALL_MAX, in HZ4_STACK_BYTES. */
extern const uint16_t hz4_sizeclass_table[HZ4_SMALL_MAX / HZ4_ALIGN];

/*
 * Where the stack of the class of a size from 1 to HZ4_SMALL_MAX lies, counted
 * from that of class 0.
 */
HZ4_FAST size_t
hz4_sizeclass_small_offset(size_t size)
{
	return hz4_sizeclass_table[(size - 1) / HZ4_ALIGN];
}

/*
 * The class of a size from there to HZ4_CLASS_MAX: four for each doubling,
 * by the highest bit and the two that follow.
 */
HZ4_FAST uint32_t
hz4_sizeclass_big(size_t size)
{
	unsigned long last = size - 1;
	unsigned bit = (unsigned)(sizeof last * 8 - 1) ^
		       (unsigned)__builtin_clzl(last);

	return (uint32_t)(last * 4 >> bit) + bit * 4 -
	       (HZ4_SMALL_BITS * 4 + 4 - HZ4_CLS_FIRST_MID);
}

/* The class of a size of at most HZ4_CLASS_MAX. */
static inline unsigned
hz4_sizeclass(size_t size)
{
	if (size == 0)
		return HZ4_CLS_ZERO;
	if (size > HZ4_SMALL_MAX)
		return hz4_sizeclass_big(size);
	return (unsigned)(hz4_sizeclass_small_offset(size) / HZ4_STACK_BYTES);
}

/* Bytes of an object that the user may touch; `cls` is no HZ4_CLS_RUN. */
static inline size_t
hz4_sizeclass_usable(unsigned cls)
{
	return cls == HZ4_CLS_ZERO ? 0 : hz4_classes[cls].size;
}

HZ4_FAST bool
hz4_sizeclass_is_mid(size_t cls)
{
	return cls >= HZ4_CLS_FIRST_MID && cls < HZ4_CLS_FIRST_LARGE;
}

/*
 * Which object of its span begins at an offset.  Where none does it is more
 * than any span has: modulo 2^64 the quotient of what the odd part does not
 * divide is large, and what two does not divide is turned to the top.
 */
HZ4_FAST uint64_t
hz4_sizeclass_slot(const struct hz4_class *c, uint64_t offset)
{
	offset *= c->inverse;
	return offset >> c->twos | offset << (64 - c->twos);
}

/*
 * The smallest class whose objects of `size` bytes are all aligned to
 * `align` (a power of two up to HZ4_PAGE); HZ4_CLS_NONE when there is none.
 */
unsigned hz4_sizeclass_aligned(size_t size, size_t align);

#endif
