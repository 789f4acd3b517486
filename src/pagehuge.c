/*
 * pagehuge.c - which regions of the page heap get huge pages.
 *
 * Where all bytes of a heap are used, huge pages save nearly all page faults
 * and most misses of the TLB, and cost nothing.  Where objects are touched
 * at their ends alone, or reserved for later, they make resident what nobody
 * uses.  Small objects are used as a whole; so are others that calloc clears,
 * and most likely those that are filled before they grow.  What becomes of
 * the rest cannot be known without asking the system for more than memory.
 *
 * The last huge page of a heap may be resident for a few bytes, so small
 * heaps keep small pages, also where huge ones are the system's default, and
 * the smaller a heap is the more of it must be used.  A heap that nears the
 * memory there is goes on with small ones.
 *
 * What is purged of a huge page while others use the rest, the kernel would
 * fill again in time, behind all figures.  So such 2 MiB have small pages from
 * then on, until all of them is free and used anew.
 *
 * What a huge page costs is another matter: a machine clears one in less
 * than the page faults of as many small ones take.  But a kernel that must
 * move pages to have one free, or a virtual machine whose host must find its
 * memory first, needs many times as long.  So the first touch is timed, of
 * each region's first one and of those that spans begin with.  Where several
 * in a row were dear, new regions have small ones; each time that the heap
 * has doubled it tries one.  The same where none comes: the kernel is set to
 * give none, or the process's control group is at its limit.  Neither can be
 * asked for without opening files, which a sandbox may forbid.
 */
#include "pageheap.h"

#include "option.h"
#include "os.h"
#include "pageruns.h"
#include "tune.h"

/* What is known of the 2 MiB that an address lies in. */
static _Atomic bool *
small_at(uintptr_t address)
{
	return &hz4_pagemap_leaf(address)
			->small[hz4_pagemap_leaf_index(address) /
				(HZ4_REGION_ALIGN / HZ4_PAGE)];
}

bool
hz4_runs_may_be_huge(uintptr_t page)
{
	return (hz4_pagemap_flags(page) & HZ4_PAGE_HUGE) &&
	       !hz4_peek(small_at(page));
}

static void
keep_small(uintptr_t start)
{
	if (!hz4_runs_may_be_huge(start))
		return;
	hz4_poke(small_at(start), true);
	start = start / HZ4_REGION_ALIGN * HZ4_REGION_ALIGN;
	hz4_os_advise_huge((void *)start, HZ4_REGION_ALIGN, false);
}

/* What goes as a whole, the kernel does not fill again. */
void
hz4_pageheap_keep_small(uintptr_t start, size_t bytes)
{
	uintptr_t end = start + bytes;

	if (start % HZ4_REGION_ALIGN != 0)
		keep_small(start);
	if (end % HZ4_REGION_ALIGN != 0 &&
	    (start % HZ4_REGION_ALIGN == 0 ||
	     start / HZ4_REGION_ALIGN != end / HZ4_REGION_ALIGN))
		keep_small(end - 1);
}

void
hz4_runs_allow_huge_locked(uintptr_t start, size_t bytes, uintptr_t from,
			   uintptr_t to)
{
	uintptr_t a = start / HZ4_REGION_ALIGN * HZ4_REGION_ALIGN;

	for (; a < start + bytes; a += HZ4_REGION_ALIGN) {
		if (a < from || to - a < HZ4_REGION_ALIGN ||
		    !(hz4_pagemap_flags(a) & HZ4_PAGE_HUGE) ||
		    !hz4_peek(small_at(a)))
			continue;
		if (hz4_os_advise_huge((void *)a, HZ4_REGION_ALIGN, true))
			hz4_poke(small_at(a), false);
	}
}

/*
 * KiB touched for objects used as a whole, less some for each thread but one.
 * [atomic] relaxed: a hint
 */
static struct {
	_Atomic long kib;
} HZ4_LINE_ALIGNED dense;

void
hz4_pageheap_note_dense(long change)
{
	atomic_fetch_add_explicit(&dense.kib, change, memory_order_relaxed);
}

/*
 * How many huge pages in a row were dear, or did not come.  [atomic] relaxed:
 * a hint
 */
static _Atomic unsigned dear;

static void
note_price(uint64_t us, bool fresh)
{
	unsigned n = hz4_peek(&dear);
	bool came = us >= HZ4_HUGE_CLEARED_US;

	/* Else parts of it may have been there. */
	if (!came && !fresh)
		return;
	if (came && us < HZ4_HUGE_DEAR_US)
		hz4_poke(&dear, 0);
	else if (n < HZ4_HUGE_DEAR_MANY)
		hz4_poke(&dear, n + 1);
}

void
hz4_runs_touch_huge(uintptr_t start, bool fresh)
{
	uint64_t before;

	if (start % HZ4_REGION_ALIGN != 0 || !hz4_runs_may_be_huge(start) ||
	    (hz4_pagemap_flags(start) & HZ4_PAGE_DIRTY))
		return;
	before = hz4_os_now_us();
	*(volatile char *)start = 0;
	note_price(hz4_os_now_us() - before, fresh);
}

/* Whether the program uses enough of the heap for huge pages. */
static bool
is_dense_locked(size_t mapped, size_t beyond)
{
	size_t least = mapped / 8 * HZ4_DENSE_EIGHTHS / 1024 + beyond;

	return hz4_peek(&dense.kib) >= (long)least;
}

/* Bytes of the heap when it was last given huge pages. [lock] */
static size_t tried;

size_t
hz4_runs_want_huge_locked(size_t bytes)
{
	size_t mapped = hz4_pageheap_mapped();
	size_t beyond = hz4_option(HZ4_OPT_huge_threshold) << 10;
	unsigned many = hz4_peek(&dear);

	if (!hz4_option(HZ4_OPT_huge_pages) ||
	    mapped + bytes > hz4_os_memory() / 2)
		return 0;
	if (beyond == 0)
		return bytes;
	if (!is_dense_locked(mapped, beyond))
		return 0;
	if (many == HZ4_HUGE_DEAR_MANY && mapped / 2 < tried)
		return 0;
	tried = mapped;
	return many == 0 ? bytes : hz4_min(bytes, HZ4_REGION_ALIGN);
}
