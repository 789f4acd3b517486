/*
 * holemap.c - the two maps of a span's OS pages, and how many are purged.
 */
#include "holemap.h"

#include "os.h"

_Atomic size_t hz4_holes_purged;

static uint32_t
map_words(const struct hz4_class *k)
{
	return (k->pages * (HZ4_PAGE / 4096u) + 63) / 64;
}

size_t
hz4_holes_bytes(const struct hz4_class *k)
{
	return 2 * sizeof(uint64_t) * map_words(k);
}

static _Atomic uint64_t *
word_of(struct hz4_span *s, const struct hz4_class *k, enum hz4_holes_map map,
	uint32_t page)
{
	return &s->bits[k->words + map * map_words(k) + page / 64];
}

bool
hz4_holes_get(struct hz4_span *s, const struct hz4_class *k,
	      enum hz4_holes_map map, uint32_t page)
{
	return hz4_peek(word_of(s, k, map, page)) >> page % 64 & 1;
}

void
hz4_holes_set(struct hz4_span *s, const struct hz4_class *k,
	      enum hz4_holes_map map, uint32_t page, bool on)
{
	_Atomic uint64_t *word = word_of(s, k, map, page);
	uint64_t bit = (uint64_t)1 << page % 64;

	hz4_poke(word, on ? hz4_peek(word) | bit : hz4_peek(word) & ~bit);
}

void
hz4_holes_start(struct hz4_span *s, const struct hz4_class *k)
{
	uint32_t i;

	/* Not `marked`: others read what is beside it, and it is no longer. */
	for (i = 0; i < 2 * map_words(k); i++)
		hz4_poke(&s->bits[k->words + i], 0);
}

size_t
hz4_holes_count(struct hz4_span *s, const struct hz4_class *k)
{
	size_t n = 0;
	uint32_t i;

	for (i = 0; s->marked && i < map_words(k); i++)
		n += (size_t)__builtin_popcountll(
			hz4_peek(&s->bits[k->words + i]));
	return n;
}

void
hz4_holes_end(struct hz4_span *s, const struct hz4_class *k)
{
	size_t n = hz4_holes_count(s, k);

	if (n > 0)
		atomic_fetch_sub_explicit(&hz4_holes_purged, n,
					  memory_order_relaxed);
	s->marked = false;
}

void
hz4_holes_fill(struct hz4_span *s, const struct hz4_class *k,
	       void *const *objects, unsigned n)
{
	uint32_t page, end, done = UINT32_MAX;
	size_t offset, filled = 0;

	for (; n > 0; n--) {
		offset = (uintptr_t)objects[n - 1] - s->start;
		page = (uint32_t)(offset / hz4_os_page);
		end = (uint32_t)((offset + k->size - 1) / hz4_os_page) + 1;
		/* Neighbours are in a row. */
		if (end - page == 1 && page == done)
			continue;
		for (done = end - 1; page < end; page++) {
			filled += hz4_holes_get(s, k, HZ4_HOLES_CLEAN, page);
			hz4_holes_set(s, k, HZ4_HOLES_CLEAN, page, false);
			hz4_holes_set(s, k, HZ4_HOLES_SEEN, page, false);
		}
	}
	if (filled > 0)
		atomic_fetch_sub_explicit(&hz4_holes_purged, filled,
					  memory_order_relaxed);
}

void
hz4_holes_add(size_t pages)
{
	atomic_fetch_add_explicit(&hz4_holes_purged, pages,
				  memory_order_relaxed);
}

size_t
hz4_holes(void)
{
	return hz4_peek(&hz4_holes_purged) * hz4_os_page;
}
