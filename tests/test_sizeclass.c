/*
 * sizeclass.h, exhaustively: every size, every offset of every class.
 */
#include "unit.h"

#include "sizeclass.h"

START_TEST(borders_of_the_boxes)
{
	unsigned cls;

	hz4_sizeclass_init();
	ck_assert_uint_eq(hz4_classes[1].size, HZ4_ALIGN);
	ck_assert_uint_eq(hz4_classes[HZ4_CLS_FIRST_MID - 1].size,
			  HZ4_SMALL_MAX);
	ck_assert_uint_eq(hz4_classes[HZ4_CLS_FIRST_LARGE - 1].size,
			  HZ4_MID_MAX);
	ck_assert_uint_eq(hz4_classes[HZ4_CLS_ZERO - 1].size, HZ4_CLASS_MAX);
	for (cls = 0; cls < HZ4_CLS_VALUES; cls++)
		ck_assert_int_eq(hz4_sizeclass_is_mid(cls),
				 cls >= HZ4_CLS_FIRST_MID &&
					 cls < HZ4_CLS_FIRST_LARGE);
}
END_TEST

/*
 * The smallest class that fits, and an eighth wasted at most, a quarter of
 * the size above the small ones.  Below 128 bytes the step of 16 is more.
 */
START_TEST(every_size)
{
	size_t size, object;
	unsigned cls;

	hz4_sizeclass_init();
	ck_assert_uint_eq(hz4_sizeclass(0), HZ4_CLS_ZERO);
	ck_assert_uint_eq(hz4_sizeclass_usable(HZ4_CLS_ZERO), 0);
	for (size = 1; size <= HZ4_CLASS_MAX; size++) {
		cls = hz4_sizeclass(size);
		unit_need(cls > HZ4_CLS_NONE && cls < HZ4_CLS_ZERO,
			  "%zu has class %u", size, cls);
		object = hz4_classes[cls].size;
		unit_need(object >= size, "%zu in %zu", size, object);
		unit_need(cls == 1 || hz4_classes[cls - 1].size < size,
			  "%zu in %zu", size, object);
		unit_need(object - size < HZ4_ALIGN ||
				  object - size <= (size <= HZ4_SMALL_MAX ?
							    object / 8 :
							    size / 4),
			  "%zu in %zu", size, object);
		unit_need((cls < HZ4_CLS_FIRST_MID) == (size <= HZ4_SMALL_MAX),
			  "%zu in class %u", size, cls);
	}
}
END_TEST

START_TEST(init_twice)
{
	static struct hz4_class before[HZ4_CLS_VALUES];

	hz4_sizeclass_init();
	memcpy(before, hz4_classes, sizeof before);
	hz4_sizeclass_init();
	ck_assert_mem_eq(before, hz4_classes, sizeof before);
}
END_TEST

START_TEST(layout_of_every_class)
{
	const struct hz4_class *c;
	unsigned cls;
	size_t bytes;

	hz4_sizeclass_init();
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		c = &hz4_classes[cls];
		bytes = (size_t)c->pages * HZ4_PAGE;
		unit_need(c->size % HZ4_ALIGN == 0, "class %u", cls);
		unit_need(cls == HZ4_CLS_ZERO ||
				  c->size > hz4_classes[cls - 1].size,
			  "class %u", cls);
		unit_need(c->pages >= 1 && c->pages <= HZ4_SPAN_MAX_PAGES,
			  "class %u: %u pages", cls, (unsigned)c->pages);
		unit_need(c->slots == bytes / c->size, "class %u", cls);
		unit_need(c->slots >= (c->size <= HZ4_MID_MAX / 2 ?
					       HZ4_SPAN_MIN_SLOTS :
					       1),
			  "class %u: %u slots", cls, (unsigned)c->slots);
		unit_need(c->words == (c->slots + 63) / 64, "class %u", cls);
		unit_need(c->batch >= 1 && c->batch <= HZ4_BATCH_MAX,
			  "class %u: %u", cls, (unsigned)c->batch);
		/* No more of a span lies idle than an object may waste. */
		unit_need(bytes - (size_t)c->slots * c->size <= bytes / 8,
			  "class %u", cls);
	}
}
END_TEST

/* The multiplication divides, and finds what begins no object, all over. */
START_TEST(slot_of_every_offset)
{
	const struct hz4_class *c;
	size_t offset, bytes;
	uint64_t slot;
	unsigned cls;

	hz4_sizeclass_init();
	for (cls = 1; cls < HZ4_CLS_END; cls++) {
		c = &hz4_classes[cls];
		bytes = (size_t)c->pages * HZ4_PAGE;
		for (offset = 0; offset < bytes; offset++) {
			slot = hz4_sizeclass_slot(c, offset);
			unit_need(offset % c->size == 0 ?
					  slot == offset / c->size :
					  slot >= bytes,
				  "offset %zu of class %u", offset, cls);
			/* Before a span, or far behind it. */
			slot = hz4_sizeclass_slot(c, offset - bytes);
			unit_need(slot >= c->slots || offset == bytes,
				  "%zu before class %u", bytes - offset, cls);
		}
	}
}
END_TEST

/* By trying all classes. */
static unsigned
aligned_class(size_t size, size_t align)
{
	unsigned cls;

	for (cls = 1; cls < HZ4_CLS_ZERO; cls++)
		if (hz4_classes[cls].size >= size &&
		    hz4_classes[cls].size % align == 0)
			return cls;
	return HZ4_CLS_NONE;
}

static void
check_aligned(size_t size, size_t align)
{
	unsigned cls = hz4_sizeclass_aligned(size, align);

	unit_need(cls == aligned_class(size, align),
		  "%zu bytes to %zu: class %u", size, align, cls);
}

START_TEST(alignments)
{
	size_t align, size;
	unsigned cls;

	hz4_sizeclass_init();
	for (align = 1; align <= HZ4_PAGE; align *= 2) {
		for (size = 1; size <= 4 * HZ4_SMALL_MAX; size++)
			check_aligned(size, align);
		for (; size <= HZ4_CLASS_MAX + HZ4_PAGE; size += 509)
			check_aligned(size, align);
		for (cls = 1; cls < HZ4_CLS_END; cls++)
			for (size = hz4_classes[cls].size - 1;
			     size <= hz4_classes[cls].size + 1; size++)
				check_aligned(size, align);
	}
}
END_TEST

START_TEST(alignments_that_no_class_has)
{
	size_t align;

	hz4_sizeclass_init();
	for (align = 2 * (size_t)HZ4_PAGE; align != 0; align *= 2)
		ck_assert_uint_eq(hz4_sizeclass_aligned(1, align),
				  HZ4_CLS_NONE);
	for (align = 1; align <= HZ4_PAGE; align *= 2) {
		ck_assert_uint_eq(hz4_sizeclass_aligned(HZ4_CLASS_MAX + 1,
							align), HZ4_CLS_NONE);
		ck_assert_uint_eq(hz4_sizeclass_aligned(PTRDIFF_MAX, align),
				  HZ4_CLS_NONE);
	}
}
END_TEST

/* The rounding up to the alignment must not come out at 0. */
START_TEST(alignments_of_the_largest_size)
{
	size_t align;

	hz4_sizeclass_init();
	for (align = 1; align <= HZ4_PAGE; align *= 2)
		ck_assert_uint_eq(hz4_sizeclass_aligned(SIZE_MAX, align),
				  HZ4_CLS_NONE);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, borders_of_the_boxes);
	tcase_add_test(t, every_size);
	tcase_add_test(t, init_twice);
	tcase_add_test(t, layout_of_every_class);
	tcase_add_test(t, slot_of_every_offset);
	tcase_add_test(t, alignments);
	tcase_add_test(t, alignments_that_no_class_has);
	tcase_add_test(t, alignments_of_the_largest_size);
}

int
main(void)
{
	return unit_main("sizeclass", add);
}
