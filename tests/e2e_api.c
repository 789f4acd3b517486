/*
 * Every entry point of libc's malloc and every edge of it: what is returned,
 * what errno says, what the bytes are.  Where libc's own malloc is weaker
 * than what hz4 promises, the test asks for the promise only on hz4.
 */
#include "e2e_check.h"

#include <gnu/libc-version.h>
#include <limits.h>

static size_t os_page;

/* Sizes around every limit that a size class, a page or a size range has. */
static const size_t edge_sizes[] = {
	0, 1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 127,
	128, 129, 255, 256, 257, 511, 512, 513, 1000, 1023, 1024, 1025, 2047,
	2048, 2049, 3000, 4095, 4096, 4097, 8191, 8192, 8193, 10000, 16384,
	20000, 32767, 32768, 32769, 40000, 65535, 65536, 65537, 70000, 100000,
	131071, 131072, 131073, 200000, 262144, 500000, 524289, 1048575,
	1048576, 1048577, 2000000, 2097152, 2097153, 3000000, 4194304,
	4194305, 8388609,
};

/* Sizes that no allocator may grant: above PTRDIFF_MAX. */
static const size_t too_big[] = {
	(size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 2,
	(size_t)PTRDIFF_MAX + 4096, SIZE_MAX / 4 * 3, SIZE_MAX - 4194304,
	SIZE_MAX - 2097152, SIZE_MAX - 65536, SIZE_MAX - 65535,
	SIZE_MAX - 4096, SIZE_MAX - 4095, SIZE_MAX - 64, SIZE_MAX - 16,
	SIZE_MAX - 15, SIZE_MAX - 7, SIZE_MAX - 1, SIZE_MAX,
};

/* Below that limit, but more than the machine has addresses for. */
static const size_t no_room[] = {
	(size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX - 65536,
	(size_t)PTRDIFF_MAX / 2,
#if SIZE_MAX > UINT32_MAX
	(size_t)1 << 50,
#else
	(size_t)1 << 29,
#endif
};

/* The promise is hz4's alone, or everybody's whose malloc is not libc's. */
static bool
on_hz4(void)
{
	return e2e_is_hz4();
}

static bool
libc_at_least(int major, int minor)
{
	int a = 0;
	int b = 0;

	if (sscanf(gnu_get_libc_version(), "%d.%d", &a, &b) != 2)
		return false;
	return a > major || (a == major && b >= minor);
}

/* A block that must be there and aligned. */
static void *
must(void *p, size_t size)
{
	ck_assert_msg(p != NULL, "no block of %zu bytes", size);
	ck_assert_msg(e2e_aligned(p, E2E_ALIGN), "%p of %zu bytes", p, size);
	return p;
}

/* --- malloc and free ---------------------------------------------------- */

static void *
zero_by(unsigned how)
{
	void *p = NULL;

	switch (how) {
	case 0:
		return e2e_malloc(0);
	case 1:
		return e2e_calloc(0, 0);
	case 2:
		return e2e_calloc(0, 100);
	case 3:
		return e2e_calloc(SIZE_MAX, 0);
	case 4:
		return e2e_realloc(NULL, 0);
	case 5:
		return e2e_memalign(64, 0);
	case 6:
		return e2e_aligned_alloc(256, 0);
	case 7:
		return e2e_reallocarray(NULL, 0, 8);
	default:
		ck_assert_int_eq(e2e_posix_memalign(&p, 128, 0), 0);
		return p;
	}
}

START_TEST(zero_bytes_are_a_block_of_their_own)
{
	void *p[9 * 100];

	for (unsigned i = 0; i < COUNT(p); i++) {
		p[i] = must(zero_by(i % 9), 0);
		for (unsigned j = 0; j < i; j++)
			ck_assert_ptr_ne(p[i], p[j]);
	}
	for (unsigned i = 0; i < COUNT(p); i++)
		e2e_free(p[i]);
}
END_TEST

START_TEST(every_size_is_aligned)
{
	enum { HOLD = 509 };
	void *hold[HOLD] = { NULL };

	for (size_t n = 1; n <= 140000; n += n < 70000 ? 1 : 13) {
		size_t slot = n % HOLD;

		e2e_free(hold[slot]);
		hold[slot] = must(e2e_malloc(n), n);
		memset(hold[slot], 0xa5, n < 64 ? n : 64);
		((char *)hold[slot])[n - 1] = 1;
		ck_assert_uint_ge(e2e_usable(hold[slot]), n);
	}
	for (unsigned i = 0; i < HOLD; i++)
		e2e_free(hold[i]);
	for (size_t n = 1; n < 100; n++) {
		void *p = must(e2e_calloc(1, n), n);

		p = must(e2e_realloc(p, n * 7), n * 7);
		e2e_free(p);
	}
}
END_TEST

START_TEST(free_of_null_does_nothing)
{
	errno = 4711;
	for (unsigned i = 0; i < 1000; i++)
		e2e_free(NULL);
	ck_assert_int_eq(errno, 4711);
	ck_assert_uint_eq(e2e_usable(NULL), 0);
}
END_TEST

START_TEST(free_keeps_errno)
{
	void *p[COUNT(edge_sizes)];

	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < COUNT(p); i++)
			p[i] = must(e2e_malloc(edge_sizes[i]), edge_sizes[i]);
		errno = 4711;
		for (unsigned i = 0; i < COUNT(p); i++) {
			e2e_free(p[i]);
			ck_assert_int_eq(errno, 4711);
		}
	}
	for (size_t n = 16 * E2E_MIB; n <= 512 * (size_t)E2E_MIB; n *= 2) {
		void *big = must(e2e_malloc(n), n);

		errno = 4712;
		e2e_free(big);
		ck_assert_int_eq(errno, 4712);
	}
}
END_TEST

/* A block is nobody else's: all live ones keep their own pattern. */
START_TEST(live_blocks_do_not_overlap)
{
	enum { BLOCKS = 4000 };
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 1);
	static unsigned char *p[BLOCKS];
	static size_t n[BLOCKS];

	for (unsigned i = 0; i < BLOCKS; i++) {
		n[i] = e2e_log_size(&r, 0, 17);
		p[i] = must(e2e_malloc(n[i]), n[i]);
		e2e_fill(p[i], n[i], i);
	}
	for (unsigned i = 0; i < BLOCKS; i++) {
		ck_assert_uint_eq(e2e_differs(p[i], n[i], i), E2E_SAME);
		e2e_free(p[i]);
	}
}
END_TEST

/* --- calloc ------------------------------------------------------------- */

static void
dirty_then_calloc(size_t n)
{
	enum { BLOCKS = 4 };
	unsigned char *p[BLOCKS];

	for (unsigned i = 0; i < BLOCKS; i++) {
		p[i] = must(e2e_malloc(n), n);
		memset(p[i], 0xff, n);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		e2e_free(p[i]);
	for (unsigned i = 0; i < BLOCKS; i++) {
		p[i] = must(e2e_calloc(i % 2 ? n : 1, i % 2 ? 1 : n), n);
		ck_assert_msg(e2e_nonzero(p[i], n) == E2E_SAME,
		    "calloc of %zu: byte %zu", n, e2e_nonzero(p[i], n));
		memset(p[i], 0x77, n);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		e2e_free(p[i]);
}

START_TEST(calloc_clears_what_was_used)
{
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 2);

	for (size_t n = 1; n <= 2200; n++)
		dirty_then_calloc(n);
	for (unsigned i = 0; i < COUNT(edge_sizes); i++)
		dirty_then_calloc(edge_sizes[i]);
	for (unsigned i = 0; i < 400; i++)
		dirty_then_calloc(e2e_log_size(&r, 11, 18));
	for (unsigned i = 0; i < 30; i++)
		dirty_then_calloc(e2e_log_size(&r, 18, 23));
}
END_TEST

/* Large pages are split, joined and given back between the callocs. */
START_TEST(calloc_clears_after_a_mixture)
{
	enum { BLOCKS = 200 };
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 3);
	unsigned char *p[BLOCKS] = { NULL };

	for (unsigned i = 0; i < 6000; i++) {
		size_t slot = e2e_below(&r, BLOCKS);
		size_t n = e2e_log_size(&r, 4, i % 50 == 0 ? 22 : 17);

		e2e_free(p[slot]);
		if (e2e_below(&r, 2) == 0) {
			p[slot] = must(e2e_malloc(n), n);
		} else {
			p[slot] = must(e2e_calloc(1, n), n);
			ck_assert_uint_eq(e2e_nonzero(p[slot], n), E2E_SAME);
		}
		memset(p[slot], 0xee, n);
		if (i % 1000 == 999)
			e2e_trim(0);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		e2e_free(p[i]);
}
END_TEST

START_TEST(products_that_overflow_are_refused)
{
	enum { HALF_BITS = sizeof(size_t) * CHAR_BIT / 2 };
	static const size_t pair[][2] = {
		{ SIZE_MAX, 2 }, { 2, SIZE_MAX }, { SIZE_MAX, SIZE_MAX },
		{ SIZE_MAX / 2 + 1, 2 }, { 4, SIZE_MAX / 4 + 1 },
		{ (size_t)1 << HALF_BITS, (size_t)1 << HALF_BITS },
		{ ((size_t)1 << HALF_BITS) + 1, (size_t)1 << HALF_BITS },
		{ SIZE_MAX / 3, 4 }, { SIZE_MAX / 16 + 1, 16 },
		{ (size_t)PTRDIFF_MAX, 2 }, { 2, (size_t)PTRDIFF_MAX },
		{ (size_t)PTRDIFF_MAX / 2 + 1, 2 }, { 1, SIZE_MAX },
	};
	unsigned char *p = must(e2e_malloc(100), 100);

	e2e_fill(p, 100, 5);
	for (unsigned i = 0; i < COUNT(pair); i++) {
		errno = 0;
		ck_assert_ptr_null(e2e_calloc(pair[i][0], pair[i][1]));
		ck_assert_int_eq(errno, ENOMEM);
		errno = 0;
		ck_assert_ptr_null(e2e_reallocarray(NULL, pair[i][0],
		    pair[i][1]));
		ck_assert_int_eq(errno, ENOMEM);
		errno = 0;
		ck_assert_ptr_null(e2e_reallocarray(p, pair[i][0],
		    pair[i][1]));
		ck_assert_int_eq(errno, ENOMEM);
		ck_assert_uint_eq(e2e_differs(p, 100, 5), E2E_SAME);
	}
	p = must(e2e_reallocarray(p, 30, 40), 1200);
	ck_assert_uint_eq(e2e_differs(p, 100, 5), E2E_SAME);
	e2e_free(p);
}
END_TEST

/* --- sizes that cannot be ----------------------------------------------- */

/* Each way to ask for n bytes; NULL and ENOMEM every time. */
static void
refused_everywhere(size_t n)
{
	static const size_t alignment[] = { 16, 64, 4096, 65536, 2097152 };
	void *p = must(e2e_malloc(40), 40);

	e2e_fill(p, 40, n);
	errno = 0;
	ck_assert_ptr_null(e2e_malloc(n));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(e2e_calloc(1, n));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(e2e_calloc(n, 1));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(e2e_realloc(NULL, n));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(e2e_realloc(p, n));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(e2e_reallocarray(p, 1, n));
	ck_assert_int_eq(errno, ENOMEM);
	for (unsigned i = 0; i < COUNT(alignment); i++) {
		void *untouched = &errno;
		void *q = untouched;

		errno = 0;
		ck_assert_ptr_null(e2e_memalign(alignment[i], n));
		ck_assert_int_eq(errno, ENOMEM);
		errno = 0;
		ck_assert_ptr_null(e2e_aligned_alloc(alignment[i], n));
		ck_assert_int_eq(errno, ENOMEM);
		errno = 4711;
		ck_assert_int_eq(e2e_posix_memalign(&q, alignment[i], n),
		    ENOMEM);
		ck_assert_ptr_eq(q, untouched);
		ck_assert_int_eq(errno, ENOMEM);
	}
	errno = 0;
	ck_assert_ptr_null(e2e_valloc(n));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(e2e_pvalloc(n));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_uint_eq(e2e_differs(p, 40, n), E2E_SAME);
	e2e_free(p);
}

START_TEST(sizes_above_the_limit_are_refused)
{
	refused_everywhere(too_big[_i]);
}
END_TEST

START_TEST(sizes_beyond_the_machine_are_refused)
{
	e2e_narrow();
	refused_everywhere(no_room[_i]);
}
END_TEST

START_TEST(huge_alignments_are_refused)
{
	/* An address of 32 bits can be a multiple of 2 GiB. */
	const unsigned bits = sizeof(size_t) * CHAR_BIT;

	e2e_narrow();
	for (unsigned bit = bits == 64 ? 48 : 29; bit < bits; bit++) {
		void *q = &bit;

		errno = 0;
		ck_assert_ptr_null(e2e_memalign((size_t)1 << bit, 100));
		ck_assert_int_eq(errno, ENOMEM);
		errno = 0;
		ck_assert_ptr_null(e2e_aligned_alloc((size_t)1 << bit, 100));
		ck_assert_int_eq(errno, ENOMEM);
		ck_assert_int_eq(e2e_posix_memalign(&q, (size_t)1 << bit,
		    100), ENOMEM);
		ck_assert_ptr_eq(q, &bit);
	}
	errno = 0;
	ck_assert_ptr_null(e2e_memalign(SIZE_MAX / 2 + 2, 100));
	ck_assert_int_eq(errno, EINVAL);
}
END_TEST

/* --- alignment ---------------------------------------------------------- */

START_TEST(posix_memalign_rejects_what_posix_says)
{
	static const size_t bad[] = {
		0, 1, 2, 3, sizeof(void *) / 2, 5, 6, 7, 9, 12, 15, 17, 20, 24,
		40, 48, 56, 72, 96, 100, 1000, 4095, 4097, 6144, SIZE_MAX,
		SIZE_MAX - 7,
	};
	int mark;

	for (unsigned i = 0; i < COUNT(bad); i++) {
		void *q = &mark;

		errno = 4711;
		ck_assert_msg(e2e_posix_memalign(&q, bad[i], 64) == EINVAL,
		    "alignment %zu", bad[i]);
		ck_assert_ptr_eq(q, &mark);
		ck_assert_int_eq(errno, 4711);
	}
	for (size_t a = sizeof(void *); a <= 4 * E2E_MIB; a *= 2) {
		void *q = &mark;

		errno = 4711;
		ck_assert_int_eq(e2e_posix_memalign(&q, a, 100), 0);
		ck_assert_int_eq(errno, 4711);
		must(q, 100);
		ck_assert(e2e_aligned(q, a));
		e2e_free(q);
	}
}
END_TEST

START_TEST(memalign_rounds_up_to_a_power_of_two)
{
	static const size_t pair[][2] = {
		{ 0, 16 }, { 1, 16 }, { 3, 16 }, { 8, 16 }, { 17, 32 },
		{ 24, 32 }, { 31, 32 }, { 33, 64 }, { 48, 64 }, { 65, 128 },
		{ 100, 128 }, { 129, 256 }, { 1000, 1024 }, { 4097, 8192 },
		{ 5000, 8192 }, { 65537, 131072 }, { 1000000, 1048576 },
	};

	for (unsigned i = 0; i < COUNT(pair); i++) {
		for (size_t n = 1; n < 100000; n = n * 3 + 1) {
			void *p = must(e2e_memalign(pair[i][0], n), n);

			ck_assert_msg(e2e_aligned(p, pair[i][1]),
			    "memalign(%zu, %zu) is %p", pair[i][0], n, p);
			ck_assert_uint_ge(e2e_usable(p), n);
			memset(p, 1, n);
			e2e_free(p);
		}
	}
}
END_TEST

START_TEST(aligned_alloc_wants_a_power_of_two)
{
	static const size_t bad[] = { 0, 3, 5, 24, 48, 100, 4097 };

	if (on_hz4() || (e2e_is_libc() && libc_at_least(2, 38)))
		for (unsigned i = 0; i < COUNT(bad); i++) {
			errno = 0;
			ck_assert_ptr_null(e2e_aligned_alloc(bad[i], 64));
			ck_assert_int_eq(errno, EINVAL);
		}
	for (size_t a = 1; a <= 4 * E2E_MIB; a *= 2) {
		void *p = must(e2e_aligned_alloc(a, 3), 3);

		ck_assert(e2e_aligned(p, a));
		e2e_free(p);
	}
}
END_TEST

/* The n-th of the ways to get an aligned block. */
static void *
aligned_by(unsigned how, size_t a, size_t n)
{
	void *p = NULL;

	switch (how % 3) {
	case 0:
		return e2e_memalign(a, n);
	case 1:
		return e2e_aligned_alloc(a, n);
	default:
		ck_assert_int_eq(e2e_posix_memalign(&p, a, n), 0);
		return p;
	}
}

/* All sizes of one alignment are live at once, then resized and freed. */
START_TEST(every_alignment_with_every_size)
{
	size_t a = (size_t)16 << _i;
	size_t top = a >= E2E_MIB ? 300000 : 3000000;
	unsigned char *p[COUNT(edge_sizes)];
	unsigned count = 0;

	for (unsigned i = 0; i < COUNT(p) && edge_sizes[i] <= top; i++) {
		size_t n = edge_sizes[i];

		p[i] = must(aligned_by(i, a, n), n);
		ck_assert_msg(e2e_aligned(p[i], a), "%p of %zu at %zu",
		    (void *)p[i], n, a);
		ck_assert_uint_ge(e2e_usable(p[i]), n);
		e2e_fill(p[i], n, i);
		count = i + 1;
	}
	for (unsigned i = 0; i < count; i++) {
		size_t n = edge_sizes[i];
		size_t m = edge_sizes[count - 1 - i] + 1;

		ck_assert_uint_eq(e2e_differs(p[i], n, i), E2E_SAME);
		if (i % 2 == 0)
			continue;
		p[i] = must(e2e_realloc(p[i], m), m);
		ck_assert_uint_eq(e2e_differs(p[i], n < m ? n : m, i),
		    E2E_SAME);
		e2e_fill(p[i], m, i);
	}
	for (unsigned i = 0; i < count; i++) {
		size_t m = edge_sizes[count - 1 - i] + 1;
		size_t n = i % 2 == 0 ? edge_sizes[i] : m;

		ck_assert_uint_eq(e2e_differs(p[i], n, i), E2E_SAME);
		e2e_free(p[i]);
	}
}
END_TEST

/* Aligned blocks of sizes next to each other, reused often. */
START_TEST(aligned_blocks_are_reused_safely)
{
	enum { BLOCKS = 128 };
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 4);
	unsigned char *p[BLOCKS] = { NULL };
	size_t n[BLOCKS];

	for (unsigned i = 0; i < 40000; i++) {
		size_t slot = e2e_below(&r, BLOCKS);
		size_t a = (size_t)16 << e2e_below(&r, i % 100 ? 9 : 18);

		if (p[slot] != NULL)
			ck_assert_uint_eq(e2e_differs(p[slot], n[slot], slot),
			    E2E_SAME);
		e2e_free(p[slot]);
		n[slot] = e2e_log_size(&r, 0, i % 10 ? 10 : 16);
		p[slot] = must(aligned_by(i, a, n[slot]), n[slot]);
		ck_assert(e2e_aligned(p[slot], a));
		e2e_fill(p[slot], n[slot], slot);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		e2e_free(p[i]);
}
END_TEST

START_TEST(valloc_and_pvalloc_use_pages)
{
	static const size_t size[] = { 0, 1, 100, 4095, 4096, 4097, 10000,
		65536, 70000, 1000000 };

	for (unsigned i = 0; i < COUNT(size); i++) {
		size_t round = (size[i] + os_page - 1) & ~(os_page - 1);
		unsigned char *v = must(e2e_valloc(size[i]), size[i]);
		unsigned char *p = must(e2e_pvalloc(size[i]), size[i]);

		ck_assert(e2e_aligned(v, os_page));
		ck_assert(e2e_aligned(p, os_page));
		ck_assert_uint_ge(e2e_usable(v), size[i]);
		ck_assert_uint_ge(e2e_usable(p), round);
		memset(v, 1, size[i]);
		memset(p, 2, round);
		ck_assert_uint_eq(v[0], size[i] == 0 ? v[0] : 1);
		e2e_free(v);
		e2e_free(p);
	}
}
END_TEST

/* --- realloc ------------------------------------------------------------ */

START_TEST(realloc_from_any_size_to_any_other)
{
	for (unsigned i = 0; i < COUNT(edge_sizes); i++) {
		for (unsigned j = 0; j < COUNT(edge_sizes); j++) {
			size_t a = edge_sizes[i];
			size_t b = edge_sizes[j];
			unsigned char *p;

			if (b == 0 || a + b > 5000000)
				continue;
			p = must(e2e_malloc(a), a);
			e2e_fill(p, a, i);
			p = must(e2e_realloc(p, b), b);
			ck_assert_msg(e2e_differs(p, a < b ? a : b, i) ==
			    E2E_SAME, "realloc from %zu to %zu", a, b);
			ck_assert_uint_ge(e2e_usable(p), b);
			memset(p, 3, b);
			e2e_free(p);
		}
	}
}
END_TEST

/* One block from 1 byte to 200 MiB and back, checked at every step. */
START_TEST(realloc_grows_and_shrinks_in_steps)
{
	size_t top = 200 * (size_t)E2E_MIB;
	unsigned char *p = NULL;
	unsigned char *fence;
	size_t n = 0;

	for (size_t m = 1; m < top; m += m / 3 + 1) {
		p = must(e2e_realloc(p, m), m);
		ck_assert_uint_eq(e2e_differs(p, n < 100000 ? n : 100000, 9),
		    E2E_SAME);
		e2e_fill(p, m, 9);
		n = m;
		/* Something behind it, so that it cannot always stretch. */
		fence = e2e_malloc(m < E2E_MIB ? m : 100);
		if (m % 2 == 0)
			e2e_free(fence);
	}
	ck_assert_uint_eq(e2e_differs(p, n, 9), E2E_SAME);
	while (n > 1) {
		n -= n / 4 + 1;
		if (n == 0)
			n = 1;
		p = must(e2e_realloc(p, n), n);
		ck_assert_uint_eq(e2e_differs(p, n < 1000000 ? n : 1000000,
		    9), E2E_SAME);
	}
	e2e_free(p);
}
END_TEST

/* Append in small steps, as a string or a vector of unknown length does. */
START_TEST(realloc_by_small_steps)
{
	unsigned char *p = NULL;
	unsigned char *q = NULL;
	size_t step;

	for (size_t n = 0; n < 3000000; n += step) {
		step = n < 5000 ? 1 : 4099;
		p = must(e2e_realloc(p, n + step), n + step);
		q = must(e2e_realloc(q, n + step), n + step);
		memset(p + n, (int)(n % 251), step);
		memset(q + n, (int)(n % 241), step);
	}
	for (size_t n = 0; n < 3000000; n += step) {
		step = n < 5000 ? 1 : 4099;
		ck_assert_uint_eq(p[n], n % 251);
		ck_assert_uint_eq(q[n + step - 1], n % 241);
	}
	e2e_free(p);
	e2e_free(q);
}
END_TEST

START_TEST(realloc_to_zero_frees)
{
	size_t before;

	e2e_ordinary_calls(10);
	before = e2e_rss();
	for (unsigned i = 0; i < 3000; i++) {
		size_t n = i % 3 == 0 ? 100000 : i % 3 == 1 ? 9000 : 300;
		void *p = must(e2e_malloc(n), n);

		memset(p, 1, n);
		ck_assert_ptr_null(e2e_realloc(p, 0));
		p = must(e2e_malloc(n), n);
		memset(p, 1, n);
		ck_assert_ptr_null(e2e_reallocarray(p, 0, 10));
	}
	/* 200 MiB went by. */
	ck_assert_uint_lt(e2e_minus(e2e_rss(), before), 16 * E2E_MIB);
}
END_TEST

START_TEST(realloc_of_null_allocates)
{
	for (unsigned i = 0; i < COUNT(edge_sizes); i++) {
		void *p = must(e2e_realloc(NULL, edge_sizes[i]),
		    edge_sizes[i]);

		memset(p, 1, edge_sizes[i]);
		e2e_free(p);
	}
}
END_TEST

START_TEST(realloc_that_fails_leaves_the_block)
{
	e2e_narrow();
	for (unsigned i = 0; i < COUNT(edge_sizes); i++) {
		size_t n = edge_sizes[i];
		unsigned char *p = must(e2e_malloc(n), n);
		size_t usable = e2e_usable(p);

		e2e_fill(p, n, i);
		for (unsigned j = 0; j < COUNT(no_room); j++) {
			errno = 0;
			ck_assert_ptr_null(e2e_realloc(p, no_room[j]));
			ck_assert_int_eq(errno, ENOMEM);
		}
		for (unsigned j = 0; j < COUNT(too_big); j++) {
			errno = 0;
			ck_assert_ptr_null(e2e_realloc(p, too_big[j]));
			ck_assert_int_eq(errno, ENOMEM);
		}
		ck_assert_uint_eq(e2e_usable(p), usable);
		ck_assert_uint_eq(e2e_differs(p, n, i), E2E_SAME);
		e2e_free(p);
	}
}
END_TEST

START_TEST(realloc_to_the_usable_size_stays)
{
	for (unsigned i = 0; i < COUNT(edge_sizes); i++) {
		size_t n = edge_sizes[i];
		unsigned char *p = must(e2e_malloc(n), n);
		size_t usable = e2e_usable(p);
		uintptr_t at = (uintptr_t)p;

		/* To nothing frees. */
		if (usable == 0) {
			e2e_free(p);
			continue;
		}
		e2e_fill(p, usable, i);
		/* libc's mapped blocks count a word that realloc does not. */
		if (e2e_is_libc() && n >= 131071) {
			e2e_free(p);
			continue;
		}
		p = must(e2e_realloc(p, usable), usable);
		ck_assert_msg((uintptr_t)p == at, "%zu of %zu moved", usable,
		    n);
		ck_assert_uint_eq(e2e_differs(p, usable, i), E2E_SAME);
		e2e_free(p);
	}
}
END_TEST

/* A large block shrunk to a few bytes does not keep its pages. */
START_TEST(realloc_shrinks_for_real)
{
	enum { BLOCKS = 16 };
	void *p[BLOCKS];
	size_t before = e2e_rss();

	for (unsigned i = 0; i < BLOCKS; i++) {
		p[i] = must(e2e_malloc(4 * E2E_MIB), 4 * E2E_MIB);
		memset(p[i], 1, 4 * E2E_MIB);
		p[i] = must(e2e_realloc(p[i], 100), 100);
	}
	e2e_trim(0);
	ck_assert_uint_lt(e2e_minus(e2e_rss(), before), 8 * E2E_MIB);
	for (unsigned i = 0; i < BLOCKS; i++)
		e2e_free(p[i]);
}
END_TEST

/* --- usable size -------------------------------------------------------- */

/* It never changes, and every byte of it may be written by all at once. */
START_TEST(usable_bytes_are_the_blocks_own)
{
	enum { BLOCKS = 3000 };
	struct e2e_rng r = e2e_rng_start(e2e_seed(), 5);
	static unsigned char *p[BLOCKS];
	static size_t n[BLOCKS];

	for (unsigned i = 0; i < BLOCKS; i++) {
		size_t want = e2e_log_size(&r, 0, i % 50 ? 13 : 20);

		p[i] = must(i % 5 ? e2e_malloc(want) :
		    e2e_memalign((size_t)16 << i % 10, want), want);
		n[i] = e2e_usable(p[i]);
		ck_assert_uint_ge(n[i], want);
		e2e_fill(p[i], n[i], i);
	}
	for (unsigned i = 0; i < BLOCKS; i++) {
		ck_assert_uint_eq(e2e_usable(p[i]), n[i]);
		ck_assert_uint_eq(e2e_differs(p[i], n[i], i), E2E_SAME);
		e2e_free(p[i]);
	}
}
END_TEST

/* --- the names that only some have -------------------------------------- */

/* Symbol `name` if it belongs to the library whose malloc this is. */
static void *
own_symbol(const char *name)
{
	void *f = dlsym(RTLD_DEFAULT, name);
	void *m = dlsym(RTLD_DEFAULT, "malloc");
	Dl_info a;
	Dl_info b;

	if (f == NULL || m == NULL || dladdr(f, &a) == 0 ||
	    dladdr(m, &b) == 0 || a.dli_fbase != b.dli_fbase)
		f = NULL;
	/* A static link shows only the names that libc asks for. */
	if (on_hz4() && dlsym(RTLD_DEFAULT, "hz4_version") != NULL)
		ck_assert_msg(f != NULL, "hz4 has no %s of its own", name);
	return f;
}

/* Object pointer to function pointer, which ISO C has no cast for. */
#define OWN(type, var, name)						\
	type var;							\
	do {								\
		void *sym_ = own_symbol(name);				\
		memcpy(&var, &sym_, sizeof(var));			\
	} while (0)

typedef void *alloc_fn(size_t);
typedef void *alloc2_fn(size_t, size_t);
typedef void *realloc_fn(void *, size_t);
typedef void free_fn(void *);
typedef void free_sized_fn(void *, size_t);
typedef void free_aligned_sized_fn(void *, size_t, size_t);

START_TEST(other_names_of_free)
{
	OWN(free_fn *, cfree_, "cfree");
	OWN(free_fn *, libc_free, "__libc_free");
	OWN(free_sized_fn *, sized, "free_sized");
	OWN(free_aligned_sized_fn *, aligned_sized, "free_aligned_sized");

	for (unsigned i = 0; i < COUNT(edge_sizes); i++) {
		size_t n = edge_sizes[i];

		errno = 4711;
		if (cfree_ != NULL)
			cfree_(must(e2e_malloc(n), n));
		if (libc_free != NULL)
			libc_free(must(e2e_malloc(n), n));
		if (sized != NULL) {
			sized(must(e2e_malloc(n), n), n);
			sized(must(e2e_calloc(1, n), n), n);
			sized(must(e2e_realloc(NULL, n), n), n);
			sized(NULL, n);
		}
		if (aligned_sized != NULL) {
			aligned_sized(must(e2e_aligned_alloc(64, n), n), 64,
			    n);
			aligned_sized(must(e2e_aligned_alloc(8192, n), n),
			    8192, n);
			aligned_sized(NULL, 64, n);
		}
		ck_assert_int_eq(errno, 4711);
	}
}
END_TEST

START_TEST(twins_belong_to_the_same_heap)
{
	OWN(alloc_fn *, m, "__libc_malloc");
	OWN(alloc2_fn *, c, "__libc_calloc");
	OWN(realloc_fn *, re, "__libc_realloc");
	OWN(alloc2_fn *, ma, "__libc_memalign");
	OWN(alloc_fn *, v, "__libc_valloc");
	OWN(alloc_fn *, pv, "__libc_pvalloc");

	for (unsigned i = 0; i < COUNT(edge_sizes); i++) {
		size_t n = edge_sizes[i];

		if (m != NULL)
			e2e_free(must(m(n), n));
		if (c != NULL) {
			void *p = must(c(1, n), n);

			ck_assert_uint_eq(e2e_nonzero(p, n), E2E_SAME);
			e2e_free(p);
		}
		if (re != NULL) {
			void *p = must(e2e_malloc(50), 50);

			e2e_fill(p, 50, i);
			p = must(re(p, n + 50), n + 50);
			ck_assert_uint_eq(e2e_differs(p, 50, i), E2E_SAME);
			e2e_free(p);
		}
		if (ma != NULL)
			e2e_free(must(ma(256, n), n));
		if (v != NULL)
			e2e_free(must(v(n), n));
		if (pv != NULL)
			e2e_free(must(pv(n), n));
	}
}
END_TEST

/* What libc allocates for its callers is freed by the same free. */
START_TEST(libc_functions_hand_over_blocks)
{
	char *s = strdup("handed over by libc");
	char *t = NULL;
	char *line = NULL;
	size_t cap = 0;
	FILE *f;

	ck_assert_ptr_nonnull(s);
	ck_assert_uint_ge(e2e_usable(s), strlen(s) + 1);
	s = e2e_realloc(s, 100000);
	ck_assert_str_eq(s, "handed over by libc");
	e2e_free(s);
	ck_assert_int_eq(asprintf(&t, "%0500d", 7), 500);
	e2e_free(t);
	e2e_free(realpath("/proc/self/exe", NULL));
	f = fopen("/proc/self/maps", "r");
	ck_assert_ptr_nonnull(f);
	while (getline(&line, &cap, f) > 0)
		ck_assert_uint_ge(e2e_usable(line), cap);
	fclose(f);
	e2e_free(line);
}
END_TEST

/* --- what it says about itself ------------------------------------------ */

static bool
tells_the_truth(void)
{
	return on_hz4() || e2e_is_libc();
}

static size_t
in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/*
 * Bytes in use follow what the program does.  Blocks that wait in a cache
 * may count as used, so there is some room on both sides.
 */
START_TEST(mallinfo_follows_the_program)
{
	enum { BLOCKS = 4000, SLACK = E2E_MIB };
	static const size_t size[] = { 100, 1000, 5000, 100000, 2000000 };
	static void *p[BLOCKS];
	size_t n = size[_i];
	size_t count = 16 * E2E_MIB / n < BLOCKS ? 16 * E2E_MIB / n : BLOCKS;
	size_t before;
	size_t grown;

	if (!tells_the_truth())
		return;
	e2e_ordinary_calls(4);
	before = in_use();
	for (unsigned i = 0; i < count; i++) {
		p[i] = must(e2e_malloc(n), n);
		memset(p[i], 1, n);
	}
	grown = e2e_minus(in_use(), before);
	ck_assert_uint_ge(grown, e2e_minus(count * n, SLACK));
	ck_assert_uint_le(grown, count * n / 4 * 5 + SLACK);
	for (unsigned i = 0; i < count; i++)
		e2e_free(p[i]);
	e2e_trim(0);
	ck_assert_uint_le(e2e_minus(in_use(), before), SLACK);
}
END_TEST

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
START_TEST(mallinfo_is_mallinfo2_in_ints)
{
	void *p = must(e2e_malloc(3000000), 3000000);
	struct mallinfo2 a = mallinfo2();
	struct mallinfo b = mallinfo();

	if (tells_the_truth()) {
		ck_assert_int_eq(b.arena, (int)a.arena);
		ck_assert_int_eq(b.hblkhd, (int)a.hblkhd);
		ck_assert_int_eq(b.uordblks, (int)a.uordblks);
		ck_assert_int_eq(b.fordblks, (int)a.fordblks);
		ck_assert_uint_ge(a.arena + a.hblkhd, a.uordblks);
		ck_assert_uint_gt(a.uordblks + a.hblkhd, 3000000);
	}
	e2e_free(p);
}
END_TEST
#pragma GCC diagnostic pop

/* Step over one tag at s, which points behind '<'; NULL if it is broken. */
static const char *
xml_tag(const char *s, char stack[][64], int *depth)
{
	bool closing = *s == '/';
	const char *name = s + closing;
	size_t len = strcspn(name, " \t\r\n/>");
	char quote = 0;

	if (*s == '?' || *s == '!')
		return strchr(s, '>') != NULL ? strchr(s, '>') + 1 : NULL;
	if (len == 0 || len > 63)
		return NULL;
	for (s = name + len; *s != '\0' && (quote != 0 || *s != '>'); s++) {
		if (quote != 0 ? *s == quote : *s == '"' || *s == '\'')
			quote = quote != 0 ? 0 : *s;
		else if (*s == '<')
			return NULL;
	}
	if (*s != '>')
		return NULL;
	if (closing) {
		if (--*depth < 0 || strlen(stack[*depth]) != len ||
		    memcmp(stack[*depth], name, len) != 0)
			return NULL;
	} else if (s[-1] != '/') {
		if (*depth == 16)
			return NULL;
		memcpy(stack[*depth], name, len);
		stack[(*depth)++][len] = '\0';
	}
	return s + 1;
}

/* Are the tags of this text balanced, with one root element? */
static bool
xml_is_well_formed(const char *s)
{
	char stack[16][64];
	int depth = 0;
	int roots = 0;

	while (*s != '\0') {
		bool top = depth == 0;

		if (*s != '<') {
			if (*s == '>' || (top && strchr(" \r\n\t", *s) == NULL))
				return false;
			s++;
			continue;
		}
		if (top && s[1] != '?' && s[1] != '!')
			roots++;
		s = xml_tag(s + 1, stack, &depth);
		if (s == NULL)
			return false;
	}
	return depth == 0 && roots == 1;
}

START_TEST(malloc_info_writes_xml)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	void *p = must(e2e_malloc(100000), 100000);

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(malloc_info(0, f), 0);
	fclose(f);
	ck_assert_ptr_nonnull(text);
	ck_assert_msg(xml_is_well_formed(text), "not XML: %s", text);
	ck_assert_ptr_nonnull(strstr(text, "<malloc version="));
	e2e_free(text);
	ck_assert_int_eq(malloc_info(1, stdout), EINVAL);
	e2e_free(p);
}
END_TEST

/* Replace descriptor `fd` with an empty file; the copy of what it was. */
static int
capture(int fd)
{
	int file = memfd_create("stats", 0);
	int saved = dup(fd);

	ck_assert_int_ge(file, 0);
	ck_assert_int_ge(saved, 0);
	ck_assert_int_eq(dup2(file, fd), fd);
	close(file);
	return saved;
}

/* End the capture; how many bytes came. */
static off_t
captured(int fd, int saved)
{
	off_t size = lseek(fd, 0, SEEK_END);

	dup2(saved, fd);
	close(saved);
	return size;
}

START_TEST(malloc_stats_goes_to_stderr)
{
	int out;
	int err;

	if (!tells_the_truth())
		return;
	fflush(NULL);
	out = capture(1);
	err = capture(2);
	malloc_stats();
	fflush(NULL);
	ck_assert_int_gt(captured(2, err), 0);
	ck_assert_int_eq(captured(1, out), 0);
}
END_TEST

START_TEST(malloc_trim_gives_memory_back)
{
	static const size_t size[] = { 64, 1000, 10000, 100000, 4194304 };
	size_t n = size[_i];
	size_t count = 64 * (size_t)E2E_MIB / n;
	void **p = must(e2e_malloc(count * sizeof(*p)), count * sizeof(*p));
	size_t before;
	int got;

	e2e_touch(p, count * sizeof(*p));
	before = e2e_rss();
	for (size_t i = 0; i < count; i++) {
		p[i] = must(e2e_malloc(n), n);
		memset(p[i], 1, n);
	}
	ck_assert_uint_gt(e2e_rss(), before + 56 * E2E_MIB);
	for (size_t i = 0; i < count; i++)
		e2e_free(p[i]);
	got = e2e_trim(0);
	ck_assert(got == 0 || got == 1);
	if (tells_the_truth())
		ck_assert_msg(e2e_rss() < before + 8 * E2E_MIB,
		    "%zu KiB before, %zu after", before >> 10,
		    e2e_rss() >> 10);
	e2e_free(p);
	got = e2e_trim(SIZE_MAX);
	ck_assert(got == 0 || got == 1);
	got = e2e_trim(1 << 20);
	ck_assert(got == 0 || got == 1);
}
END_TEST

START_TEST(mallopt_answers_and_nothing_breaks)
{
	static const int param[][2] = {
		{ M_TRIM_THRESHOLD, 131072 }, { M_MMAP_THRESHOLD, 262144 },
		{ M_MMAP_MAX, 65536 }, { M_TOP_PAD, 65536 },
		{ M_ARENA_MAX, 2 }, { M_ARENA_TEST, 2 }, { M_MXFAST, 64 },
		{ M_TRIM_THRESHOLD, -1 }, { 12345, 1 }, { -12345, 1 },
	};

	for (unsigned i = 0; i < COUNT(param); i++) {
		int got = mallopt(param[i][0], param[i][1]);

		ck_assert_msg(got == 0 || got == 1, "mallopt(%d) is %d",
		    param[i][0], got);
		e2e_ordinary_calls(4);
	}
}
END_TEST

/* ------------------------------------------------------------------------ */

static void
add(TCase *t)
{
	tcase_add_test(t, zero_bytes_are_a_block_of_their_own);
	tcase_add_test(t, every_size_is_aligned);
	tcase_add_test(t, free_of_null_does_nothing);
	tcase_add_test(t, free_keeps_errno);
	tcase_add_test(t, live_blocks_do_not_overlap);
	tcase_add_test(t, calloc_clears_what_was_used);
	tcase_add_test(t, calloc_clears_after_a_mixture);
	tcase_add_test(t, usable_bytes_are_the_blocks_own);
	tcase_add_test(t, products_that_overflow_are_refused);
	tcase_add_loop_test(t, sizes_above_the_limit_are_refused, 0,
	    COUNT(too_big));
	tcase_add_loop_test(t, sizes_beyond_the_machine_are_refused, 0,
	    COUNT(no_room));
	tcase_add_test(t, huge_alignments_are_refused);
	tcase_add_test(t, posix_memalign_rejects_what_posix_says);
	tcase_add_test(t, memalign_rounds_up_to_a_power_of_two);
	tcase_add_test(t, aligned_alloc_wants_a_power_of_two);
	tcase_add_loop_test(t, every_alignment_with_every_size, 0, 19);
	tcase_add_test(t, aligned_blocks_are_reused_safely);
	tcase_add_test(t, valloc_and_pvalloc_use_pages);
	tcase_add_test(t, realloc_from_any_size_to_any_other);
	tcase_add_test(t, realloc_grows_and_shrinks_in_steps);
	tcase_add_test(t, realloc_by_small_steps);
	tcase_add_test(t, realloc_to_zero_frees);
	tcase_add_test(t, realloc_of_null_allocates);
	tcase_add_test(t, realloc_that_fails_leaves_the_block);
	tcase_add_test(t, realloc_to_the_usable_size_stays);
	tcase_add_test(t, realloc_shrinks_for_real);
	tcase_add_test(t, other_names_of_free);
	tcase_add_test(t, twins_belong_to_the_same_heap);
	tcase_add_test(t, libc_functions_hand_over_blocks);
	tcase_add_loop_test(t, mallinfo_follows_the_program, 0, 5);
	tcase_add_test(t, mallinfo_is_mallinfo2_in_ints);
	tcase_add_test(t, malloc_info_writes_xml);
	tcase_add_test(t, malloc_stats_goes_to_stderr);
	tcase_add_loop_test(t, malloc_trim_gives_memory_back, 0, 5);
	tcase_add_test(t, mallopt_answers_and_nothing_breaks);
}

int
main(void)
{
	os_page = (size_t)sysconf(_SC_PAGESIZE);
	return e2e_main("api", 60, add);
}
