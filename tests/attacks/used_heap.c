/*
 * Preloaded behind an allocator: before main every size was used, as in a
 * program that has run for a while.  Objects live at random, and thousands of
 * pairs of malloc and free have been made.
 */
#include <stdlib.h>

enum { LIVE = 60, PAIRS = 3000, MOST = 262144 };

static void *(*volatile get)(size_t) = malloc;
static void (*volatile put)(void *) = free;

static void
use(size_t size)
{
	void *p[LIVE];
	unsigned state = (unsigned)size * 2654435761u;
	int i;

	for (i = 0; i < LIVE; i++)
		p[i] = get(size);
	for (i = 0; i < LIVE; i++) {
		state = state * 1664525u + 1013904223u;
		if (state >> 30 != 0)
			put(p[i]);
	}
	for (i = 0; i < PAIRS; i++)
		put(get(size));
}

__attribute__((constructor)) static void
use_all(void)
{
	size_t size;

	use(0);
	for (size = 16; size <= MOST; size += size < 256 ? 16 : size / 8)
		use(size);
}
