/*
 * pageheap.h against a model of every page that was ever taken.
 *
 *     figures.free + taken == figures.mapped
 *     figures.dirty == free pages that are flagged so
 *
 * Both hold at any time unless the system refuses something.
 */
#include "unit_huge.h"

#include "meta.h"
#include "option.h"
#include "os.h"
#include "pageheap.h"
#include "pagemap.h"
#include "pageruns.h"
#include "sys.h"
#include "tune.h"
#include "walker.h"

enum {
	PAGE = HZ4_PAGE,
	SEEN_MAX = 1 << 14, /* pages of the model, a power of two */
	HELD_MAX = 64,
	OPERATIONS = 6000,
	THREADS = 4,
	FORKS = 12,
};

struct run {
	uintptr_t start;
	size_t pages;
};

/* The pages of the model, hashed by number. */
static struct seen {
	uintptr_t page;
	bool taken;
} seen[SEEN_MAX];
static size_t taken;

static struct seen *
model_of(uintptr_t page)
{
	size_t i = (page / PAGE * 2654435761u) % SEEN_MAX;

	while (seen[i].page != 0 && seen[i].page != page)
		i = (i + 1) % SEEN_MAX;
	seen[i].page = page;
	return &seen[i];
}

static void
model_take(uintptr_t start, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++) {
		struct seen *s = model_of(start + i * PAGE);

		unit_need(!s->taken, "%p twice", (void *)s->page);
		s->taken = true;
	}
	taken += pages;
}

static void
model_give(uintptr_t start, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		model_of(start + i * PAGE)->taken = false;
	taken -= pages;
}

/* Huge pages make their neighbours resident, which no model can know. */
static void
start(void)
{
	unit_os_init();
	ck_assert(hz4_option_assign("huge_pages=0", 12));
}

static struct hz4_pageheap_figures
figures(void)
{
	struct hz4_pageheap_figures f;

	hz4_pageheap_figures(&f);
	return f;
}

static void
compare_sums(void)
{
	struct hz4_pageheap_figures f = figures();

	unit_need(f.free + taken * PAGE == f.mapped,
		  "%zu free, %zu taken, %zu mapped", f.free / PAGE, taken,
		  f.mapped / PAGE);
	unit_need(f.dirty <= f.free, "%zu of %zu", f.dirty, f.free);
	unit_need(f.dirty == hz4_pageheap_dirty(), "%zu", f.dirty);
	unit_need((f.dirty == 0) == (hz4_pageheap_oldest() == UINT64_MAX),
		  "%zu dirty", f.dirty);
}

/* As the heap counts: a purge would bring something. */
static bool
is_dirty(uintptr_t page)
{
	return (hz4_pagemap_flags(page) &
		(HZ4_PAGE_DIRTY | HZ4_PAGE_TRIED)) == HZ4_PAGE_DIRTY;
}

static void
compare(void)
{
	size_t i, dirty = 0;

	for (i = 0; i < SEEN_MAX; i++)
		if (seen[i].page != 0 && !seen[i].taken)
			dirty += is_dirty(seen[i].page);
	unit_need(figures().dirty == dirty * PAGE, "%zu, not %zu",
		  figures().dirty / PAGE, dirty);
	compare_sums();
}

static uintptr_t
take(size_t pages, size_t align)
{
	uintptr_t start = hz4_pageheap_alloc(pages, align, false);

	unit_need(start != 0, "%zu pages to %zu", pages, align);
	unit_need(start % align == 0, "%p to %zu", (void *)start, align);
	model_take(start, pages);
	return start;
}

static void
give(uintptr_t start, size_t pages)
{
	model_give(start, pages);
	hz4_pageheap_free(start, pages, hz4_os_now());
}

/* A part of a run, which goes on without it. */
static void
cut(uintptr_t start, size_t pages)
{
	model_give(start, pages);
	unit_need(hz4_pageheap_cut(start, pages), "%zu pages", pages);
}

/* Any time after now. */
static uint64_t
later(void)
{
	return hz4_os_now() + 1000000;
}

static void
soil(uintptr_t start, size_t pages)
{
	memset((void *)start, 0xa5, pages * PAGE);
}

static bool
is_zero(uintptr_t start, size_t pages)
{
	return unit_all((void *)start, pages * PAGE, 0);
}

/* Pages with the dirty flag in a run. */
static size_t
dirty_in(uintptr_t start, size_t pages)
{
	size_t n = 0;

	for (; pages > 0; pages--, start += PAGE)
		n += is_dirty(start);
	return n;
}

START_TEST(nothing_at_first)
{
	struct hz4_pageheap_figures f = figures();

	ck_assert_uint_eq(f.mapped, 0);
	ck_assert_uint_eq(f.free, 0);
	ck_assert_uint_eq(f.dirty, 0);
	ck_assert_uint_eq(hz4_pageheap_dirty(), 0);
	ck_assert_uint_eq(hz4_pageheap_purge(later(), 0, 0, SIZE_MAX), 0);
	ck_assert_uint_eq(figures().mapped, 0);
}
END_TEST

START_TEST(fresh_pages_are_known_zero)
{
	uintptr_t a;
	size_t pages;

	start();
	for (pages = 1; pages <= 64; pages *= 2) {
		a = take(pages, PAGE);
		ck_assert_uint_eq(dirty_in(a, pages), 0);
		ck_assert(is_zero(a, pages));
		hz4_pageheap_zero(a, pages);
		soil(a, pages);
	}
	compare();
}
END_TEST

START_TEST(used_pages_are_known_dirty)
{
	uintptr_t a, b;

	start();
	a = take(8, PAGE);
	soil(a, 8);
	give(a, 8);
	ck_assert_uint_eq(figures().dirty, 8 * PAGE);
	compare();
	/* What is resident is used again first. */
	b = take(4, PAGE);
	ck_assert_uint_eq(dirty_in(b, 4), 4);
	ck_assert_uint_eq(figures().dirty, 4 * PAGE);
	compare();
	hz4_pageheap_zero(b, 4);
	ck_assert(is_zero(b, 4));
	/* Part dirty, part fresh: the soiled ones alone are cleared. */
	give(b, 4);
	a = take(24, PAGE);
	hz4_pageheap_zero(a, 24);
	ck_assert(is_zero(a, 24));
	compare();
}
END_TEST

START_TEST(alignments)
{
	uintptr_t held[40];
	size_t align, pages, n = 0, i;

	start();
	for (align = PAGE; align <= (size_t)64 << 20; align *= 2)
		for (pages = 1; pages <= 33; pages += 16) {
			held[n] = take(pages, align);
			*(volatile char *)held[n] = 1;
			compare_sums();
			n++;
		}
	n = 0;
	for (align = PAGE; align <= (size_t)64 << 20; align *= 2)
		for (pages = 1; pages <= 33; pages += 16)
			give(held[n++], pages);
	ck_assert_uint_eq(taken, 0);
	compare();
	/* All of it is whole again: as much in one piece needs no more. */
	i = figures().mapped;
	give(take(512, PAGE), 512);
	ck_assert_uint_eq(figures().mapped, i);
}
END_TEST

/*
 * Whether a heap goes on with huge pages after 8 MiB, one page in so many of
 * which was touched for small objects.
 */
static bool
grows_huge(const char *pages, const char *threshold, size_t one_in)
{
	bool huge = false;
	uintptr_t p;
	size_t n;

	unit_os_init();
	ck_assert(hz4_option_assign(pages, strlen(pages)));
	ck_assert(hz4_option_assign(threshold, strlen(threshold)));
	for (n = 0; hz4_pageheap_mapped() <= 8 << 20; n++) {
		p = hz4_pageheap_alloc(1, PAGE, false);
		ck_assert_uint_ne(p, 0);
		hz4_pageheap_note_dense(n % one_in == 0 ? PAGE / 1024 : 0);
		huge = hz4_pagemap_flags(p) & HZ4_PAGE_HUGE;
	}
	return huge;
}

START_TEST(huge_pages_where_most_is_used)
{
	if (unit_have_huge(32))
		ck_assert(grows_huge("huge_pages=1", "huge_threshold=5", 1));
}
END_TEST

START_TEST(no_huge_pages_where_half_is_used)
{
	ck_assert(!grows_huge("huge_pages=1", "huge_threshold=2", 2));
}
END_TEST

START_TEST(no_huge_pages_where_it_was_used)
{
	uintptr_t p[200];
	unsigned i;

	unit_os_init();
	for (i = 0; i < 200; i++) {
		hz4_pageheap_note_dense((i < 110 ? 1 : -1) * PAGE / 1024);
		p[i] = hz4_pageheap_alloc(1, PAGE, false);
	}
	ck_assert(!(hz4_pagemap_flags(p[199]) & HZ4_PAGE_HUGE));
}
END_TEST

START_TEST(no_huge_pages_below_the_threshold)
{
	ck_assert(!grows_huge("huge_pages=1", "huge_threshold=6", 1));
}
END_TEST

START_TEST(huge_pages_from_the_start)
{
	if (unit_have_huge(32))
		ck_assert(grows_huge("huge_pages=1", "huge_threshold=0", 1000));
}
END_TEST

/*
 * Fill a heap with small objects up to so many MiB.  Returns how many huge
 * pages it got for that, to touch each of which took so many microseconds.
 */
static unsigned
count_huge(size_t mib, uint64_t price)
{
	unsigned n = 0;
	uintptr_t p;

	unit_clock.step = price;
	while (hz4_pageheap_mapped() < mib << 20) {
		p = hz4_pageheap_alloc(1, PAGE, true);
		unit_need(p != 0, "no memory");
		hz4_pageheap_note_dense(PAGE / 1024);
		n += p % HZ4_REGION_ALIGN == 0 &&
		     (hz4_pagemap_flags(p) & HZ4_PAGE_HUGE);
	}
	return n;
}

/*
 * The regions of a small heap fill the first half of what they are aligned to:
 * as far before and behind a page as they are long lies none of the heap's.
 */
START_TEST(small_regions_lie_apart)
{
	static uintptr_t p[200];
	size_t n, i;

	unit_os_init();
	for (n = 0; n < 200; n++)
		p[n] = hz4_pageheap_alloc(1 + n % 3, PAGE, false);
	for (i = 0; i < n; i++)
		unit_need(p[i] % HZ4_REGION_ALIGN + (1 + i % 3) * PAGE <=
				  HZ4_REGION_APART,
			  "%#zx", (size_t)p[i]);
	/* Runs that are longer than such a region come from others. */
	ck_assert_uint_ne(hz4_pageheap_alloc(17, PAGE, false), 0);
}
END_TEST

/* After two in a row one is tried each time that the heap has doubled. */
START_TEST(dear_huge_pages_are_few)
{
	unit_os_init();
	if (!unit_have_huge(192))
		return;
	/* At 4, 6 and 12 MiB, then at 26 and 52. */
	ck_assert_uint_eq(count_huge(16, HZ4_HUGE_DEAR_US), 3);
	ck_assert_uint_eq(count_huge(60, HZ4_HUGE_DEAR_US), 2);
	/* At 114. */
	ck_assert_uint_eq(count_huge(140, HZ4_HUGE_DEAR_US), 1);
}
END_TEST

/* The first touch of a new one would take longer. */
START_TEST(huge_pages_that_do_not_come_are_few)
{
	unit_os_init();
	if (!unit_have_huge(192))
		return;
	ck_assert_uint_eq(count_huge(16, HZ4_HUGE_CLEARED_US - 1), 3);
	ck_assert_uint_eq(count_huge(60, HZ4_HUGE_CLEARED_US - 1), 2);
	/* The one at 114 MiB, and the next region. */
	ck_assert_uint_ge(count_huge(160, HZ4_HUGE_CLEARED_US),
			  1 + 114 / HZ4_REGION_SHARE / 2);
}
END_TEST

/* Where a region begins again, its huge page may be there. */
START_TEST(a_huge_page_that_was_there_says_nothing)
{
	uintptr_t p;
	unsigned i;

	unit_os_init();
	if (!unit_have_huge(32))
		return;
	ck_assert_uint_ge(count_huge(8, HZ4_HUGE_CLEARED_US), 1);
	unit_clock.step = HZ4_HUGE_CLEARED_US - 1;
	do
		p = hz4_pageheap_alloc(1, PAGE, true);
	while (p % HZ4_REGION_ALIGN != 0);
	for (i = 0; i < 4; i++) {
		hz4_pageheap_free(p, 1, 0);
		hz4_pageheap_purge(UINT64_MAX, 0, 0, SIZE_MAX);
		ck_assert_uint_eq(hz4_pageheap_alloc(1, PAGE, true), p);
	}
	ck_assert_uint_eq(count_huge((hz4_pageheap_mapped() >> 20) + 1,
				     HZ4_HUGE_CLEARED_US), 1);
}
END_TEST

START_TEST(cheap_huge_pages_make_up_for_dear_ones)
{
	unit_os_init();
	if (!unit_have_huge(192))
		return;
	count_huge(60, HZ4_HUGE_DEAR_US);
	/* The one at 114 MiB, and the next region. */
	ck_assert_uint_ge(count_huge(160, HZ4_HUGE_DEAR_US - 1),
			  1 + 114 / HZ4_REGION_SHARE / 2);
}
END_TEST

/* One that is dear now and then says little. */
START_TEST(cheap_huge_pages_are_many)
{
	unsigned i;

	unit_os_init();
	if (!unit_have_huge(32))
		return;
	ck_assert_uint_ge(count_huge(8, HZ4_HUGE_DEAR_US - 1), 1);
	/* Regions of 2 MiB: one to fill, and the next one is mapped. */
	for (i = 0; i < 4; i++)
		ck_assert_uint_eq(count_huge((hz4_pageheap_mapped() >> 20) + 1,
					     HZ4_HUGE_DEAR_US - i % 2), 1);
}
END_TEST

START_TEST(huge_pages_can_be_turned_off)
{
	ck_assert(!grows_huge("huge_pages=0", "huge_threshold=0", 1));
}
END_TEST

/* Cut a run into pages, give them back in some order, take it whole. */
static void
split_and_coalesce(unsigned order)
{
	enum { N = 96 };
	uint64_t seed = 1 + order;
	void *part[N];
	uintptr_t a;
	size_t i, mapped;

	a = take(N, PAGE);
	give(a, N);
	mapped = figures().mapped;
	for (i = 0; i < N; i++)
		part[i] = (void *)take(1, PAGE);
	if (order > 1)
		unit_shuffle(&seed, part, N);
	for (i = 0; i < N; i++) {
		give((uintptr_t)part[order == 1 ? N - 1 - i : i], 1);
		compare_sums();
	}
	compare();
	ck_assert_uint_eq(figures().mapped, mapped);
	give(take(N, PAGE), N);
	ck_assert_uint_eq(figures().mapped, mapped);
}

START_TEST(pieces_become_whole)
{
	unsigned order;

	start();
	for (order = 0; order < 20; order++)
		split_and_coalesce(order);
}
END_TEST

START_TEST(extend_in_place)
{
	uintptr_t a;

	start();
	a = take(16, PAGE);
	cut(a + 4 * PAGE, 12);
	model_take(a + 4 * PAGE, 12);
	ck_assert(hz4_pageheap_extend(a + 4 * PAGE, 12));
	compare();
	ck_assert(!hz4_pageheap_extend(a + 4 * PAGE, 1));
	cut(a + 8 * PAGE, 4);
	/* More than is free there: taken pages stand behind. */
	ck_assert(!hz4_pageheap_extend(a + 8 * PAGE, 5));
	/* Not in the middle of a free run either. */
	ck_assert(!hz4_pageheap_extend(a + 9 * PAGE, 1));
	compare();
	ck_assert(hz4_pageheap_extend(a + 8 * PAGE, 1));
	model_take(a + 8 * PAGE, 1);
	compare();
	ck_assert(!hz4_pageheap_extend(a + 8 * PAGE, 1));
	ck_assert(hz4_pageheap_extend(a + 9 * PAGE, 3));
	model_take(a + 9 * PAGE, 3);
	compare();
	/* An address that the heap knows nothing of. */
	ck_assert(!hz4_pageheap_extend((uintptr_t)&seen / PAGE * PAGE, 1));
	give(a, 16);
	compare();
}
END_TEST

START_TEST(purge_makes_clean_pages)
{
	uintptr_t a;
	size_t n;

	start();
	a = take(20, PAGE);
	soil(a, 20);
	give(a, 20);
	/* Not before its age. */
	ck_assert_uint_eq(hz4_pageheap_purge(hz4_pageheap_oldest() + 99, 100,
					     0, SIZE_MAX / 2), 0);
	/* Not when that much may stay. */
	ck_assert_uint_eq(hz4_pageheap_purge(later(), 0, 20 * PAGE,
					     SIZE_MAX / 2), 0);
	compare();
	/* A piece of it. */
	n = hz4_pageheap_purge(later(), 0, 0, 5 * PAGE);
	ck_assert_uint_eq(n, 5 * PAGE);
	ck_assert_uint_eq(figures().dirty, 15 * PAGE);
	compare();
	n = hz4_pageheap_purge(hz4_pageheap_oldest() + 100, 100, 0,
			       SIZE_MAX / 2);
	ck_assert_uint_eq(n, 15 * PAGE);
	ck_assert_uint_eq(figures().dirty, 0);
	ck_assert_uint_eq(hz4_pageheap_oldest(), UINT64_MAX);
	compare();
	a = take(20, PAGE);
	ck_assert_uint_eq(dirty_in(a, 20), 0);
	ck_assert(is_zero(a, 20));
}
END_TEST

START_TEST(purge_down_to_what_may_stay)
{
	uintptr_t run[16];
	unsigned i;
	size_t n, mapped;

	start();
	for (i = 0; i < 16; i++)
		run[i] = take(4, PAGE);
	for (i = 0; i < 16; i += 2)
		give(run[i], 4);
	n = hz4_pageheap_purge(later(), 0, 12 * PAGE, SIZE_MAX / 2);
	ck_assert_uint_ge(n, 20 * PAGE);
	ck_assert_uint_le(figures().dirty, 12 * PAGE);
	ck_assert_uint_eq(n + figures().dirty, 32 * PAGE);
	compare();
	for (i = 1; i < 16; i += 2)
		give(run[i], 4);
	compare();
	mapped = figures().mapped;
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2);
	compare();
	ck_assert_uint_eq(figures().mapped, mapped);
	ck_assert_uint_eq(figures().free, mapped);
}
END_TEST

START_TEST(oldest_is_when_pages_came)
{
	uint64_t before, after;
	uintptr_t a, b, between;

	start();
	a = take(4, PAGE);
	between = take(1, PAGE);
	b = take(4, PAGE);
	(void)between;
	ck_assert_uint_eq(hz4_pageheap_oldest(), UINT64_MAX);
	before = hz4_os_now();
	give(a, 4);
	after = hz4_os_now();
	ck_assert_uint_ge(hz4_pageheap_oldest(), before);
	ck_assert_uint_le(hz4_pageheap_oldest(), after);
	unit_sleep(40);
	give(b, 4);
	ck_assert_uint_le(hz4_pageheap_oldest(), after);
	compare();
}
END_TEST

/* Address space for others: what is left must fit the figures. */
/* Given back late: what nobody has used for longest goes first. */
START_TEST(ages_are_in_order)
{
	static const uint64_t since[] = { 500, 700, 300, 600, 500, 900, 400 };
	enum { N = sizeof since / sizeof *since };
	uintptr_t run[N], between[N];
	unsigned i;

	unit_os_init();
	for (i = 0; i < N; i++) {
		run[i] = take(1, PAGE);
		between[i] = take(1, PAGE);
	}
	for (i = 0; i < N; i++) {
		model_give(run[i], 1);
		hz4_pageheap_free(run[i], 1, since[i]);
	}
	for (i = 300; i <= 900; i += 100) {
		ck_assert_uint_eq(hz4_pageheap_oldest(), i == 800 ? 900 : i);
		ck_assert_uint_eq(hz4_pageheap_purge(i, 0, 0, SIZE_MAX / 2),
				  i == 500 ? 2 * PAGE : i == 800 ? 0 : PAGE);
	}
	for (i = 0; i < N; i++)
		give(between[i], 1);
}
END_TEST

START_TEST(unmap_free_runs)
{
	uintptr_t a, b;
	size_t mapped;

	start();
	a = take(40, PAGE);
	take(1, PAGE);
	b = take(10, PAGE);
	take(1, PAGE);
	soil(a, 40);
	soil(b, 10);
	give(a, 40);
	give(b, 10);
	mapped = figures().mapped;
	hz4_pageheap_unmap(mapped);
	ck_assert_uint_eq(figures().mapped, mapped);
	hz4_pageheap_unmap(40 * PAGE);
	ck_assert_uint_le(figures().mapped, mapped - 40 * PAGE);
	ck_assert_uint_ge(figures().free, 10 * PAGE);
	ck_assert_uint_eq(figures().dirty, 10 * PAGE);
	compare_sums();
	ck_assert(!hz4_pageheap_extend(a, 1));
	hz4_pageheap_unmap(PAGE);
	ck_assert_uint_eq(figures().free, 0);
	ck_assert_uint_eq(figures().dirty, 0);
	compare_sums();
	/* And the heap can grow again, into the same addresses or not. */
	a = take(50, PAGE);
	hz4_pageheap_zero(a, 50);
	ck_assert(is_zero(a, 50));
	give(a, 50);
	compare_sums();
}
END_TEST

START_TEST(donated_pages)
{
	size_t mapped;
	char *p;

	start();
	take(3, PAGE);
	mapped = figures().mapped;
	p = hz4_os_map(5 * PAGE, PAGE);
	ck_assert_ptr_nonnull(p);
	ck_assert(hz4_pageheap_admit((uintptr_t)p, 5 * PAGE));
	memset(p, 0xa5, 5 * PAGE);
	model_take((uintptr_t)p, 5);
	ck_assert(hz4_pageheap_donate((uintptr_t)p, 5, false));
	model_give((uintptr_t)p, 5);
	ck_assert_uint_eq(figures().mapped, mapped + 5 * PAGE);
	ck_assert_uint_eq(figures().dirty, 5 * PAGE);
	compare();
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2);
	/* They are nobody's: AddressSanitizer has to be told. */
	hz4_open((uintptr_t)p, 5 * PAGE);
	ck_assert(unit_all(p, 5 * PAGE, 0));
	hz4_close((uintptr_t)p, 5 * PAGE);
	compare();
}
END_TEST

/* --- what others find while the system purges ---------------------------- */

static struct {
	size_t pages;
	uintptr_t got;
	bool armed;
} meanwhile;

/* The kernel's, but for what somebody else takes from the heap in a purge. */
long
hz4_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	if (number == SYS_madvise && meanwhile.armed) {
		meanwhile.armed = false;
		meanwhile.got = hz4_pageheap_alloc(meanwhile.pages, PAGE,
						   false);
	}
	return syscall(number, a, b, c, d, e, f);
}

/* Else the heap would grow by a region for each time that it is purged. */
START_TEST(a_purge_leaves_the_rest_to_others)
{
	const size_t pages = 3 * (size_t)HZ4_PURGE_STEP / PAGE;
	size_t mapped, i;
	uintptr_t p;

	start();
	p = hz4_pageheap_alloc(pages, PAGE, false);
	ck_assert_uint_ne(p, 0);
	hz4_pageheap_free(p, pages, 0);
	mapped = figures().mapped;
	for (i = 0; i < 3; i++) {
		meanwhile.pages = pages / 4;
		meanwhile.armed = true;
		hz4_pageheap_purge(later(), 0, 0, HZ4_PURGE_STEP);
		ck_assert(!meanwhile.armed);
		ck_assert_uint_ne(meanwhile.got, 0);
		hz4_pageheap_free(meanwhile.got, meanwhile.pages, 0);
		ck_assert_uint_eq(figures().mapped, mapped);
	}
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX);
	ck_assert_uint_eq(figures().dirty, 0);
	ck_assert_uint_eq(figures().free, figures().mapped);
}
END_TEST

/* The last memory for structures is used up: what is freed is not lost. */
START_TEST(freeing_needs_no_memory)
{
	static uintptr_t run[300];
	unsigned i;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	for (i = 0; i < 300; i++)
		run[i] = take(1 + i % 3, PAGE);
	hz4_os_fail_from(1);
	for (i = 0; i < 24; i++)
		while (hz4_meta_alloc((size_t)64 << i % 12) != NULL)
			;
	/* No two neighbours, so that each needs a structure of its own. */
	for (i = 0; i < 300; i += 2)
		give(run[i], 1 + i % 3);
	compare();
	for (i = 1; i < 300; i += 2)
		give(run[i], 1 + i % 3);
	compare();
	ck_assert_uint_eq(figures().free, figures().mapped);
	hz4_os_fail_from(0);
	give(take(300, PAGE), 300);
	compare();
}
END_TEST

START_TEST(refused_unmap)
{
	uintptr_t a;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	a = take(10, PAGE);
	take(1, PAGE);
	soil(a, 10);
	give(a, 10);
	hz4_os_fail_from(1);
	hz4_pageheap_unmap(PAGE);
	hz4_os_fail_from(0);
	compare_sums();
	/* What was not unmapped is not known to be zero. */
	a = take(10, PAGE);
	hz4_pageheap_zero(a, 10);
	ck_assert(is_zero(a, 10));
	give(a, 10);
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2);
	ck_assert_uint_eq(figures().dirty, 0);
	compare_sums();
}
END_TEST

START_TEST(too_much_is_refused)
{
	struct hz4_pageheap_figures before;
	bool wide = sizeof(void *) >= 8;

	unit_narrow();
	start();
	take(3, PAGE);
	before = figures();
	ck_assert_uint_eq(hz4_pageheap_alloc((size_t)1 << (wide ? 34 : 14),
					     PAGE, false), 0);
	ck_assert_uint_eq(hz4_pageheap_alloc(1, (size_t)1 << (wide ? 50 : 30),
					     false), 0);
	ck_assert_uint_eq(figures().mapped, before.mapped);
	compare();
	take(3, PAGE);
	compare();
}
END_TEST

/* A step of the random walk. */
static void
step(uint64_t *seed, struct run *r)
{
	size_t part;

	if (r->pages == 0) {
		r->pages = 1 + unit_below(seed, unit_below(seed, 8) ? 12 : 90);
		r->start = take(r->pages, (size_t)PAGE
						  << unit_below(seed, 5));
		return;
	}
	switch (unit_below(seed, 4)) {
	case 0:
		part = 1 + unit_below(seed, 6);
		if (hz4_pageheap_extend(r->start + r->pages * PAGE, part)) {
			model_take(r->start + r->pages * PAGE, part);
			r->pages += part;
		}
		break;
	case 1:
		part = unit_below(seed, r->pages);
		if (part > 0)
			cut(r->start + (r->pages - part) * PAGE, part);
		r->pages -= part;
		break;
	default:
		give(r->start, r->pages);
		r->pages = 0;
	}
}

START_TEST(random_walk)
{
	static struct run held[HELD_MAX];
	uint64_t seed = 1;
	size_t dirty, n, limit;
	unsigned i;

	start();
	for (i = 0; i < OPERATIONS; i++) {
		step(&seed, &held[unit_below(&seed, HELD_MAX)]);
		compare_sums();
		if (i % 64 != 0)
			continue;
		compare();
		dirty = figures().dirty;
		limit = unit_below(&seed, 40) * PAGE;
		n = hz4_pageheap_purge(later(), 0, dirty / 2, limit);
		unit_need(n <= limit, "%zu of %zu", n, limit);
		unit_need(figures().dirty == dirty - n, "%zu of %zu", n,
			  dirty);
		compare();
		unit_need(hz4_check() == 0, "the heap is not in order");
	}
	for (i = 0; i < HELD_MAX; i++)
		if (held[i].pages > 0)
			give(held[i].start, held[i].pages);
	compare();
	ck_assert_uint_eq(figures().free, figures().mapped);
}
END_TEST

/* Take, mark and check runs; each thread knows its own only. */
static void
churn(uint64_t seed, unsigned rounds)
{
	struct run held[8] = { { 0, 0 } };
	unsigned i;

	for (i = 0; i < rounds; i++) {
		struct run *r = &held[unit_below(&seed, 8)];
		uint64_t *first = (uint64_t *)r->start;

		if (r->pages > 0) {
			unit_need(first[0] == r->start &&
					  first[r->pages * PAGE / 8 - 1] ==
						  r->pages,
				  "%p", (void *)first);
			hz4_pageheap_free(r->start, r->pages, hz4_os_now());
			r->pages = 0;
			continue;
		}
		r->pages = 1 + unit_below(&seed, 20);
		r->start = hz4_pageheap_alloc(r->pages, PAGE, false);
		unit_need(r->start != 0, "%zu pages", r->pages);
		hz4_pageheap_zero(r->start, 1);
		first = (uint64_t *)r->start;
		unit_need(first[0] == 0 && first[PAGE / 8 - 1] == 0, "%p",
			  (void *)first);
		first[0] = r->start;
		first[r->pages * PAGE / 8 - 1] = r->pages;
		if (i % 64 == 0)
			hz4_pageheap_purge(later(), 0, 64 * PAGE, 64 * PAGE);
	}
	for (i = 0; i < 8; i++)
		if (held[i].pages > 0)
			hz4_pageheap_free(held[i].start, held[i].pages, hz4_os_now());
}

static void *
churn_in_thread(void *number)
{
	churn(1 + (uintptr_t)number, OPERATIONS / 2);
	return NULL;
}

START_TEST(from_many_threads)
{
	start();
	unit_threads(THREADS, churn_in_thread);
	ck_assert_uint_eq(figures().free, figures().mapped);
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2);
	ck_assert_uint_eq(figures().dirty, 0);
}
END_TEST

static void
churn_some(uint64_t *seed)
{
	churn(unit_random(seed), 64);
}

static void
use_in_child(void *arg)
{
	struct run *held = arg;
	unsigned i;

	hz4_pageheap_fork_child();
	hz4_meta_fork_child();
	churn(1, 200);
	for (i = 0; i < HELD_MAX; i++) {
		unit_child_need(unit_all((void *)held[i].start,
					 held[i].pages * PAGE, (uint8_t)i));
		hz4_pageheap_free(held[i].start, held[i].pages, hz4_os_now());
	}
	churn(2, 200);
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2);
}

START_TEST(fork_while_threads_work)
{
	static struct run held[HELD_MAX];
	unsigned i;

	start();
	for (i = 0; i < HELD_MAX; i++) {
		held[i].pages = 1 + i % 3;
		held[i].start = take(held[i].pages, PAGE);
		memset((void *)held[i].start, (int)i, held[i].pages * PAGE);
	}
	unit_fork_under(churn_some, FORKS, use_in_child, held);
}
END_TEST

/* The word of a lock that a thread has which is gone. */
enum { GONE = 0x7ffffffe };

/*
 * What was free when the lock was lost belongs to nobody: a run that comes
 * back beside it stays what it is.
 */
START_TEST(lost_runs_are_left_alone)
{
	struct hz4_pageheap_figures f;
	uintptr_t p, next;

	start();
	p = hz4_pageheap_alloc(12, PAGE, false);
	next = hz4_pageheap_alloc(4, PAGE, false);
	ck_assert_uint_ne(p, 0);
	ck_assert_uint_eq(next, p + 12 * (uintptr_t)PAGE);
	hz4_pageheap_free(p, 12, hz4_os_now());
	/* In front of it free pages of before, and behind it, too. */
	p = hz4_pageheap_alloc(8, PAGE, false);
	ck_assert_uint_eq(p, next - 12 * (uintptr_t)PAGE);
	hz4_poke(&hz4_runs.lock.word, GONE);
	hz4_pageheap_fork_child();
	ck_assert_uint_eq(hz4_runs.lock.word, 0);
	ck_assert_uint_eq(figures().free, 0);
	hz4_pageheap_free(next, 4, hz4_os_now());
	hz4_pageheap_free(p, 8, hz4_os_now());
	f = figures();
	ck_assert_uint_eq(f.free, 12 * (size_t)PAGE);
	ck_assert_uint_eq(hz4_pageheap_alloc(8, PAGE, false), p);
	ck_assert_uint_eq(hz4_pageheap_alloc(4, PAGE, false), next);
}
END_TEST

START_TEST(no_memory)
{
	struct hz4_pageheap_figures before;
	size_t n;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	for (n = 1; n <= 8; n++) {
		before = figures();
		hz4_os_fail_from(n);
		while (hz4_pageheap_alloc(40, PAGE, false) != 0)
			taken += 40;
		/* A part of what was asked for is not taken. */
		compare_sums();
		hz4_os_fail_from(0);
		taken += 40;
		ck_assert_uint_ne(hz4_pageheap_alloc(40, PAGE, false), 0);
		compare_sums();
		ck_assert_uint_ge(figures().mapped, before.mapped);
	}
}
END_TEST

/* The kernel refuses to purge: such pages must not pass as zero. */
START_TEST(refused_purge)
{
	uintptr_t a;

	if (!HZ4_DEBUG_BOX)
		return;
	start();
	a = take(10, PAGE);
	soil(a, 10);
	give(a, 10);
	hz4_os_fail_from(1);
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2);
	hz4_os_fail_from(0);
	a = take(10, PAGE);
	hz4_pageheap_zero(a, 10);
	ck_assert(is_zero(a, 10));
	give(a, 10);
	/* And the heap goes on purging. */
	hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2);
	compare();
	a = take(10, PAGE);
	ck_assert(is_zero(a, 10));
}
END_TEST

/* Nor may they count as given back: malloc_trim() tells the user. */
START_TEST(refused_purge_gives_nothing_back)
{
	if (!HZ4_DEBUG_BOX)
		return;
	start();
	give(take(10, PAGE), 10);
	hz4_os_fail_from(1);
	ck_assert_uint_eq(hz4_pageheap_purge(later(), 0, 0, SIZE_MAX / 2), 0);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, nothing_at_first);
	tcase_add_test(t, fresh_pages_are_known_zero);
	tcase_add_test(t, used_pages_are_known_dirty);
	tcase_add_test(t, alignments);
	tcase_add_test(t, huge_pages_where_most_is_used);
	tcase_add_test(t, no_huge_pages_where_half_is_used);
	tcase_add_test(t, no_huge_pages_where_it_was_used);
	tcase_add_test(t, no_huge_pages_below_the_threshold);
	tcase_add_test(t, huge_pages_from_the_start);
	tcase_add_test(t, small_regions_lie_apart);
	tcase_add_test(t, dear_huge_pages_are_few);
	tcase_add_test(t, huge_pages_that_do_not_come_are_few);
	tcase_add_test(t, a_huge_page_that_was_there_says_nothing);
	tcase_add_test(t, cheap_huge_pages_make_up_for_dear_ones);
	tcase_add_test(t, cheap_huge_pages_are_many);
	tcase_add_test(t, huge_pages_can_be_turned_off);
	tcase_add_test(t, pieces_become_whole);
	tcase_add_test(t, extend_in_place);
	tcase_add_test(t, purge_makes_clean_pages);
	tcase_add_test(t, purge_down_to_what_may_stay);
	tcase_add_test(t, oldest_is_when_pages_came);
	tcase_add_test(t, ages_are_in_order);
	tcase_add_test(t, unmap_free_runs);
	tcase_add_test(t, donated_pages);
	tcase_add_test(t, a_purge_leaves_the_rest_to_others);
	tcase_add_test(t, freeing_needs_no_memory);
	tcase_add_test(t, refused_unmap);
	tcase_add_test(t, too_much_is_refused);
	tcase_add_test(t, random_walk);
	tcase_add_test(t, from_many_threads);
	tcase_add_test(t, fork_while_threads_work);
	tcase_add_test(t, lost_runs_are_left_alone);
	tcase_add_test(t, no_memory);
	tcase_add_test(t, refused_purge);
	tcase_add_test(t, refused_purge_gives_nothing_back);
}

int
main(void)
{
	return unit_main("pageheap", add);
}
