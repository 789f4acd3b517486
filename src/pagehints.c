/*
 * pagehints.c - what the page heap tells without its lock.
 */
#include "pageheap.h"

#include "pageruns.h"

struct hz4_runs_hints hz4_runs_hints;

bool
hz4_pageheap_pinned(void)
{
	return hz4_peek(&hz4_runs_hints.pinned);
}

size_t
hz4_pageheap_mapped(void)
{
	return hz4_peek(&hz4_runs_hints.mapped);
}

size_t
hz4_pageheap_moved(void)
{
	return hz4_peek(&hz4_runs_hints.moved);
}

size_t
hz4_pageheap_used(void)
{
	size_t mapped = hz4_pageheap_mapped();
	size_t unused = hz4_peek(&hz4_runs_hints.free) * HZ4_PAGE;

	return mapped - hz4_min(unused, mapped);
}

size_t
hz4_pageheap_dirty(void)
{
	return hz4_peek(&hz4_runs_hints.dirty) * HZ4_PAGE;
}

uint64_t
hz4_pageheap_oldest(void)
{
	return hz4_peek(&hz4_runs_hints.oldest);
}
