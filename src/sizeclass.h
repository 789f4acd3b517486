/*
 * sizeclass.h - from a size to its class and from a class to its shape.
 *
 * Classes are 16 bytes apart up to 256, then eight to a doubling, so an
 * object wastes at most 15 bytes or an eighth of itself:
 *
 *     class      1 .. 16   17 .. 40     41 .. 80      81 .. 96
 *     size      16 .. 256  288 .. 2048  2304 .. 64Ki  72Ki .. 256Ki
 *     box           small  small        mid           large
 *
 * Class 0 means "not ours", HZ4_CLS_RUN a large object of whole pages.
 * Two byte tables lead from a size to its class: one of 16-byte steps for
 * the small box, one of 256-byte steps above.  Before hz4_sizeclass_init
 * they hold 0, the class whose caches are always empty, so the first malloc
 * of a process takes the slow path without a test of its own.
 *
 * Layer 2.  Constant after init.
 */
#ifndef HZ4_SIZECLASS_H
#define HZ4_SIZECLASS_H

#include "tune.h"

enum {
	HZ4_CLS_NONE = 0,
	HZ4_CLS_FIRST_MID = 41,
	HZ4_CLS_FIRST_LARGE = 81,
	HZ4_CLS_END = 97,
	HZ4_CLS_RUN = HZ4_CLS_END,
	/* Values a page's class byte can have. */
	HZ4_CLS_VALUES = HZ4_CLS_RUN + 1,

	HZ4_SMALL_STEP = 16,
	HZ4_MID_STEP = 256,
	HZ4_SLOT_SHIFT = 40,
};

struct hz4_class {
	uint32_t size;	/* bytes of an object [const] */
	uint32_t pages; /* pages of a span [const] */
	uint32_t slots; /* objects in a span [const] */
	uint32_t words; /* 64-bit words of a span's bitmap [const] */
	uint32_t batch; /* most objects that move at once [const] */
	/* offset * slot_magic >> HZ4_SLOT_SHIFT == offset / size [const] */
	uint64_t slot_magic;
};

extern struct hz4_class hz4_classes[HZ4_CLS_VALUES];
/*
 * [atomic] relaxed: another thread's first malloc may read while they are
 * made; whether it finds 0 or the class, it is right.
 */
extern _Atomic uint8_t hz4_small_class[HZ4_SMALL_MAX / HZ4_SMALL_STEP + 1];
extern _Atomic uint8_t hz4_mid_class[HZ4_CLASS_MAX / HZ4_MID_STEP + 1];

void hz4_sizeclass_init(void);

/* The class of a size of at most HZ4_SMALL_MAX. */
HZ4_FAST size_t
hz4_sizeclass_small(size_t size)
{
	return hz4_peek(&hz4_small_class[(size + HZ4_SMALL_STEP - 1) /
					 HZ4_SMALL_STEP]);
}

/* The class of a size above that, of at most HZ4_CLASS_MAX. */
HZ4_FAST size_t
hz4_sizeclass_mid(size_t size)
{
	return hz4_peek(&hz4_mid_class[(size + HZ4_MID_STEP - 1) /
				       HZ4_MID_STEP]);
}

/* The class of a size of at most HZ4_CLASS_MAX. */
static inline unsigned
hz4_sizeclass(size_t size)
{
	return (unsigned)(size <= HZ4_SMALL_MAX ? hz4_sizeclass_small(size) :
						  hz4_sizeclass_mid(size));
}

HZ4_FAST bool
hz4_sizeclass_is_mid(size_t cls)
{
	return cls >= HZ4_CLS_FIRST_MID && cls < HZ4_CLS_FIRST_LARGE;
}

/* Which object of its span an offset lies in. */
HZ4_FAST uint32_t
hz4_sizeclass_slot(const struct hz4_class *c, size_t offset)
{
	return (uint32_t)(offset * c->slot_magic >> HZ4_SLOT_SHIFT);
}

/*
 * The smallest class whose objects of `size` bytes are all aligned to
 * `align` (a power of two up to HZ4_PAGE); HZ4_CLS_NONE when there is none.
 */
unsigned hz4_sizeclass_aligned(size_t size, size_t align);

#endif
