/*
 * unit_marked.h - for tests of objects in pages of HZ4_CLS_MARKED: samples and
 * guarded ones.
 */
#ifndef HZ4_UNIT_MARKED_H
#define HZ4_UNIT_MARKED_H

#include "unit.h"

#include "heap.h"
#include "option.h"

/* An option as HZ4_OPTIONS has it. */
static void
unit_option(const char *text)
{
	ck_assert_msg(hz4_option_assign(text, strlen(text)), "%s", text);
}

static void
unit_free_twice(void *p)
{
	hz4_heap_free(p);
	hz4_heap_free(p);
}

static void
unit_free_inside(void *p)
{
	hz4_heap_free((char *)p + 16);
}

/* `n` objects, 16 at most, of up to so many bytes, that live at a time. */
static void
unit_use(uint64_t *seed, unsigned n, size_t most)
{
	void *p[16];
	unsigned i;

	for (i = 0; i < n; i++)
		p[i] = hz4_heap_malloc(unit_below(seed, most) + 1);
	for (i = 0; i < n; i++)
		hz4_heap_free(p[i]);
}

#endif
