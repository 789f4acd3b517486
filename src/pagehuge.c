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
 */
#include "pageheap.h"

#include "option.h"
#include "os.h"
#include "pageruns.h"
#include "tune.h"

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

bool
hz4_runs_want_huge_locked(size_t bytes)
{
	size_t mapped = hz4_pageheap_mapped();
	size_t beyond = hz4_option(HZ4_OPT_huge_threshold) << 10;
	long least = (long)(mapped / 8 * HZ4_DENSE_EIGHTHS / 1024 + beyond);

	/* A first region has nothing touched; no file is opened for it. */
	if (!hz4_option(HZ4_OPT_huge_pages) || (mapped == 0 && beyond != 0))
		return false;
	hz4_os_read_files();
	if (mapped + bytes > hz4_os_memory() / 2)
		return false;
	return beyond == 0 || hz4_peek(&dense.kib) >= least;
}
