/*
 * What a program must not do: free twice, free what malloc never gave, free
 * the middle of a block, resize what is gone.  hz4 ends the process with
 * SIGABRT and exactly one line on stderr,
 *
 *	hz4: KIND: ptr 0x...[, size ...]
 *
 * at the call itself or at the latest when the block leaves the caches; the
 * table below says which.  A third kind, writes beyond an object or into a
 * freed one, must not change what the allocator does at all.  On another
 * allocator the outcome of each is printed, and nothing is asked of it.
 *
 * SECURITY.md tells the same to users: what changes here changes there.
 */
#include "e2e_check.h"

#include <pthread.h>

/* When a case has to be caught. */
enum must {
	AT_CALL,		/* before the faulty call returns */
	AT_FLUSH,		/* or when the caches are emptied */
	TRAP,			/* the access itself is a fault */
	NO_EFFECT,		/* nothing is said, and the heap is whole */
};

struct misuse {
	char name[64];
	enum must must;
	void (*run)(size_t n);
	size_t n;
};

/* Where a child says how far it came: memory shared with the test. */
static volatile struct {
	int ready;		/* the legal calls are behind it */
	int returned;		/* the faulty call came back */
	int survived;		/* so did everything after it */
} *progress;

static char in_data[256] __attribute__((aligned(64)));
static const char in_rodata[256] __attribute__((aligned(64))) = { 1 };

/* The next call is the faulty one; the one after is legal. */
#define FAULT(call)							\
	do {								\
		progress->ready = 1;					\
		call;							\
		progress->returned = 1;					\
	} while (0)

static char *
block(size_t n)
{
	char *p = e2e_malloc(n);

	e2e_need(p != NULL, "no memory");
	memset(p, 0x5a, n);
	return p;
}

/* Use and free `count` other blocks of the same size. */
static void
others(size_t n, unsigned count)
{
	void *p[200];

	for (unsigned i = 0; i < count; i += 200) {
		unsigned m = count - i < 200 ? count - i : 200;

		for (unsigned j = 0; j < m; j++)
			p[j] = block(n);
		for (unsigned j = 0; j < m; j++)
			e2e_free(p[j]);
	}
}

/* --- the cases ---------------------------------------------------------- */

static void
free_twice(size_t n)
{
	char *p = block(n);

	e2e_free(p);
	FAULT(e2e_free(p));
}

static char *
no_bytes(size_t n)
{
	char *p = NULL;

	while (n-- > 0)
		p = e2e_malloc(0);
	e2e_need(p != NULL, "no memory");
	return p;
}

static void
read_no_bytes(size_t n)
{
	volatile char *p = no_bytes(n);

	FAULT((void)*p);
}

static void
write_no_bytes(size_t n)
{
	volatile char *p = no_bytes(n);

	FAULT(*p = 1);
}

static void
free_twice_first_block(size_t n)
{
	/* Nothing else of this size was ever allocated. */
	char *p = e2e_malloc(n);

	e2e_free(p);
	FAULT(e2e_free(p));
}

static void
free_twice_one_between(size_t n)
{
	char *p = block(n);
	char *q = block(n);

	e2e_free(p);
	e2e_free(q);
	FAULT(e2e_free(p));
}

static void
free_twice_some_between(size_t n)
{
	char *p[12];

	for (unsigned i = 0; i < 12; i++)
		p[i] = block(n);
	for (unsigned i = 0; i < 12; i++)
		e2e_free(p[i]);
	FAULT(e2e_free(p[0]));
}

/* So many between that the first free has left the thread's cache. */
static void
free_twice_many_between(size_t n)
{
	enum { MANY = 3000 };
	static char *p[MANY];

	for (unsigned i = 0; i < MANY; i++)
		p[i] = block(n);
	for (unsigned i = 0; i < MANY; i++)
		e2e_free(p[i]);
	e2e_trim(0);
	FAULT(e2e_free(p[7]));
}

static void *
free_it(void *p)
{
	e2e_free(p);
	return NULL;
}

static void *
free_it_faulty(void *p)
{
	FAULT(e2e_free(p));
	return NULL;
}

static void
free_twice_two_threads(size_t n)
{
	char *p = block(n);
	pthread_t t;

	pthread_create(&t, NULL, free_it, p);
	pthread_join(t, NULL);
	FAULT(e2e_free(p));
}

/* Both frees wait in caches of threads that are alive. */
static void
free_twice_in_another(size_t n)
{
	char *p = block(n);
	pthread_t t;

	e2e_free(p);
	pthread_create(&t, NULL, free_it_faulty, p);
	pthread_join(t, NULL);
}

static void
free_aligned_twice(size_t n)
{
	void *p = e2e_memalign(n < 4096 ? 256 : 65536, n);

	e2e_free(p);
	FAULT(e2e_free(p));
}

static void
free_off(size_t off)
{
	char *p = block(2000);

	FAULT(e2e_free(p + off));
}

static void
free_inside_small(size_t n)
{
	char *p = block(n);

	(void)block(n);
	FAULT(e2e_free(p + 16));
}

static void
free_inside_page(size_t n)
{
	char *p = block(n);

	FAULT(e2e_free(p + 4096));
}

static void
free_inside_64k(size_t n)
{
	char *p = block(n);

	FAULT(e2e_free(p + 65536));
}

static void
free_middle(size_t n)
{
	char *p = block(n);

	FAULT(e2e_free(p + n / 2 / 16 * 16));
}

/* A place where a block of this size might be, but none was given out. */
static void
free_never_allocated(size_t n)
{
	char *p = block(n);
	size_t usable = e2e_usable(p);

	FAULT(e2e_free(p + 100 * usable));
}

static void
free_stack(size_t off)
{
	char local[256] __attribute__((aligned(64)));

	FAULT(e2e_free(local + off));
}

static void
free_static(size_t off)
{
	FAULT(e2e_free(in_data + off));
}

static void
free_rodata(size_t off)
{
	const char *p = in_rodata + off;
	char *q;

	memcpy(&q, &p, sizeof(q));
	FAULT(e2e_free(q));
}

static void
free_code(size_t off)
{
	void (*f)(size_t) = free_code;
	uintptr_t p;

	memcpy(&p, &f, sizeof(p));
	FAULT(e2e_free((void *)((p & ~(uintptr_t)63) + off)));
}

static void
free_mapped(size_t off)
{
	char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	e2e_need(p != MAP_FAILED, "mmap");
	FAULT(e2e_free(p + off));
}

static void
free_unmapped(size_t off)
{
	char *p = mmap(NULL, 1 << 20, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	e2e_need(p != MAP_FAILED, "mmap");
	munmap(p, 1 << 20);
	FAULT(e2e_free(p + off));
}

static void
free_wild(size_t address)
{
	FAULT(e2e_free((void *)(uintptr_t)address));
}

static void
realloc_stack(size_t n)
{
	char local[256] __attribute__((aligned(64)));

	FAULT((void)!e2e_realloc(local, n));
}

static void
realloc_static(size_t n)
{
	FAULT((void)!e2e_realloc(in_data, n));
}

static void
realloc_wild(size_t address)
{
	FAULT((void)!e2e_realloc((void *)(uintptr_t)address, 100));
}

static void
realloc_off(size_t off)
{
	char *p = block(2000);

	FAULT((void)!e2e_realloc(p + off, 3000));
}

static void
realloc_freed(size_t n)
{
	char *p = block(n);

	e2e_free(p);
	FAULT(e2e_free(e2e_realloc(p, n * 3)));
}

/* realloc moved it away; the old address is gone. */
static void
free_after_realloc(size_t n)
{
	char *p = block(n);
	char *fence = block(n);
	uintptr_t old = (uintptr_t)p;
	char *q = e2e_realloc(p, n * 40);

	if ((uintptr_t)q == old)
		_exit(E2E_SKIP);
	FAULT(e2e_free((void *)old));
	e2e_free(fence);
}

static void
realloc_zero_twice(size_t n)
{
	char *p = block(n);

	(void)!e2e_realloc(p, 0);
	FAULT((void)!e2e_realloc(p, 0));
}

/* `between` other blocks of the size are freed in between. */
static void
free_twice_between(size_t between)
{
	char *p[17];

	for (size_t i = 0; i <= between; i++)
		p[i] = block(100);
	for (size_t i = 0; i <= between; i++)
		e2e_free(p[i]);
	FAULT(e2e_free(p[0]));
}

/* a, b, a: the next three blocks would be a, b and a again. */
static void
free_in_turns(size_t n)
{
	char *a = block(n);
	char *b = block(n);

	e2e_free(a);
	e2e_free(b);
	FAULT(e2e_free(a); e2e_free(b); e2e_free(a));
}

/* The freed block is somebody else's by now; both free it. */
static void
free_twice_after_reuse(size_t n)
{
	char *p = block(n);
	char *q;

	e2e_free(p);
	q = block(n);
	if (q != p)
		_exit(E2E_SKIP);
	e2e_free(p);
	FAULT(e2e_free(q));
}

/* Handed out twice after a double free, and freed by both owners. */
static void
free_twice_use_twice(size_t n)
{
	char *p = block(n);
	char *q = block(n);
	char *again[3];

	e2e_free(p);
	e2e_free(q);
	progress->ready = 1;
	e2e_free(p);
	for (unsigned i = 0; i < 3; i++)
		again[i] = block(n);
	for (unsigned i = 0; i < 3; i++)
		e2e_free(again[i]);
	progress->returned = 1;
}

/* Other sizes in between do not hide it. */
static void
free_twice_other_sizes(size_t n)
{
	char *p = block(n);

	e2e_free(p);
	for (size_t i = 1; i < 40; i++)
		e2e_free(block(n + 200 * i));
	FAULT(e2e_free(p));
}

static void
free_twice_by_other_calls(size_t n)
{
	void *p = e2e_calloc(1, n);

	e2e_free(p);
	FAULT((void)!e2e_realloc(p, 0));
}

static pthread_barrier_t at_once;

static void *
free_it_at_once(void *p)
{
	pthread_barrier_wait(&at_once);
	e2e_free(p);
	return NULL;
}

/* Two threads free the same block at the same time. */
static void
free_twice_at_once(size_t n)
{
	char *p = block(n);
	pthread_t t[2];

	pthread_barrier_init(&at_once, NULL, 2);
	progress->ready = 1;
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, free_it_at_once, p);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	progress->returned = 1;
}

static void
free_huge_aligned_twice(size_t align)
{
	void *p = e2e_memalign(align, 100);

	e2e_free(p);
	FAULT(e2e_free(p));
}

/* In front of, and behind, the place that an alignment asked for. */
static void
free_beside_aligned(size_t off)
{
	char *p = e2e_memalign(4096, 5000);

	FAULT(e2e_free(p + off));
}

/* All blocks around it are free, and their pages have gone back. */
static void
free_in_a_returned_page(size_t n)
{
	enum { MANY = 1000 };
	static char *p[MANY];

	for (unsigned i = 0; i < MANY; i++)
		p[i] = block(n);
	for (unsigned i = 0; i < MANY; i++)
		e2e_free(p[i]);
	e2e_trim(0);
	e2e_trim(0);
	FAULT(e2e_free(p[MANY / 2]));
}

/* What another allocator would take for a chunk of its own. */
static void
free_fake_chunk(size_t size)
{
	static size_t fake[512] __attribute__((aligned(64)));

	fake[1] = size | 1;
	fake[1 + size / sizeof(fake[0])] = 0x1001;
	FAULT(e2e_free(&fake[2]));
}

static void
free_fake_chunk_in_block(size_t n)
{
	char *p = block(n);
	size_t size = 0x41;

	memcpy(p + 24, &size, sizeof(size));
	memcpy(p + 24 + 64, &size, sizeof(size));
	FAULT(e2e_free(p + 32));
}

static void
usable_of_stack(size_t off)
{
	char local[256] __attribute__((aligned(64)));

	FAULT((void)!e2e_usable(local + off));
}

static void
usable_inside(size_t n)
{
	char *p = block(n);

	FAULT((void)!e2e_usable(p + 16));
}

static void
usable_of_freed(size_t n)
{
	char *p = block(n);

	e2e_free(p);
	e2e_trim(0);
	FAULT((void)!e2e_usable(p));
}

static void
realloc_inside(size_t n)
{
	char *p = block(n);

	FAULT((void)!e2e_realloc(p + n / 2 / 16 * 16, n * 2));
}

/* --- writes that must not matter ------------------------------------------ */

enum { PEERS = 64 };

/* Does b follow a at once, so that what lies between is mapped? */
static bool
side_by_side(const char *a, const char *b, size_t n)
{
	return a < b && (size_t)(b - a) < 2 * n + 64;
}

/*
 * From `from` to `to` lies outside of the block, and may be a neighbour's:
 * its owner's loss, not the heap's.
 */
static void
write_around(size_t n, ptrdiff_t from, ptrdiff_t to)
{
	char *p[PEERS];

	for (unsigned i = 0; i < PEERS; i++)
		p[i] = block(n);
	for (unsigned i = 1; i < PEERS - 1; i++) {
		if (!side_by_side(p[i - 1], p[i], n) ||
		    !side_by_side(p[i], p[i + 1], n))
			continue;
		progress->ready = 1;
		for (ptrdiff_t k = from; k < to; k++)
			((volatile char *)p[i])[k] = (char)-1;
	}
	for (unsigned i = 0; i < PEERS; i++)
		e2e_free(p[i]);
	progress->returned = 1;
}

/* Behind the block: its neighbour, or the size field of another design. */
static void
write_behind(size_t n)
{
	ptrdiff_t end = (ptrdiff_t)n;

	write_around(n, end, end + (end < 4096 ? end : 512));
}

static void
write_before(size_t n)
{
	write_around(n, -32, 0);
}

/* One byte too many, the classic. */
static void
write_one_behind(size_t n)
{
	write_around(n, (ptrdiff_t)n, (ptrdiff_t)n + 1);
}

static char target[512] __attribute__((aligned(64)));

/* Is a block anything but memory of its own? */
static void
take_and_look(size_t n)
{
	static char *p[3000];
	unsigned many = n < 100000 ? 3000 : 64;

	for (unsigned i = 0; i < many; i++) {
		p[i] = e2e_malloc(n);
		e2e_need(p[i] != NULL, "no memory");
		e2e_need(p[i] + n <= target ||
		    p[i] >= target + sizeof(target), "the target is given");
		e2e_fill(p[i], n, i);
	}
	for (unsigned i = 0; i < many; i++) {
		e2e_need(e2e_differs(p[i], n, i) == E2E_SAME, "overlap");
		e2e_free(p[i]);
	}
}

/* Freed blocks get pointers to a target where others keep their lists. */
static void
poison_free_list(size_t n)
{
	char *p[PEERS];
	char *at = target;

	for (unsigned i = 0; i < PEERS; i++)
		p[i] = block(n);
	for (unsigned i = 0; i < PEERS; i += 2)
		e2e_free(p[i]);
	progress->ready = 1;
	for (unsigned i = 0; i < PEERS; i += 2)
		for (size_t k = 0; k + sizeof(at) <= n && k < 4096;
		    k += sizeof(at))
			memcpy(p[i] + k, &at, sizeof(at));
	take_and_look(n);
	for (unsigned i = 1; i < PEERS; i += 2)
		e2e_free(p[i]);
	take_and_look(n);
	progress->returned = 1;
}

/* The same from before the free: as if the block were a chunk's middle. */
static void
fake_header(size_t n)
{
	char *p[PEERS];
	size_t fake[2] = { 0, 0x20000 | 1 };

	for (unsigned i = 0; i < PEERS; i++)
		p[i] = block(n);
	for (unsigned i = 1; i < PEERS; i++) {
		if (!side_by_side(p[i - 1], p[i], n))
			continue;
		progress->ready = 1;
		memcpy(p[i] - sizeof(fake), fake, sizeof(fake));
	}
	for (unsigned i = 0; i < PEERS; i++)
		e2e_free(p[i]);
	take_and_look(n);
	progress->returned = 1;
}

/* The bytes behind the youngest block say that all memory is left. */
static void
smash_the_top(size_t n)
{
	char *p = block(n);
	void *huge;

	progress->ready = 1;
	memset(p + e2e_usable(p) - 64, 0xff, 64);
	huge = e2e_malloc(SIZE_MAX / 2 - 4096);
	e2e_need(huge == NULL, "%p for half of all addresses", huge);
	take_and_look(n);
	progress->returned = 1;
}

/* What was written after the free does not come out of calloc. */
static void
calloc_after_use(size_t n)
{
	char *p = block(n);
	char *q;

	e2e_free(p);
	progress->ready = 1;
	memset(p, 0xa5, n);
	q = e2e_calloc(1, n);
	e2e_need(q != NULL && e2e_nonzero(q, n) == E2E_SAME, "not zeros");
	e2e_free(q);
	progress->returned = 1;
}

/* realloc of a block whose neighbour wrote over its border. */
static void
realloc_after_overflow(size_t n)
{
	char *p = block(n);
	char *q;

	progress->ready = 1;
	memset(p, 0xff, e2e_usable(p));
	q = e2e_realloc(p, n * 3);
	e2e_need(q != NULL && q[0] == (char)-1 && q[n - 1] == (char)-1,
	    "realloc lost bytes");
	e2e_free(q);
	take_and_look(n);
	progress->returned = 1;
}

/* hz4's, and C++'s where it is linked; the size is a lie. */
void free_sized(void *p, size_t size) __attribute__((weak));
void _ZdlPvm(void *p, size_t size) __attribute__((weak));
void _ZdlPv(void *p) __attribute__((weak));

static void
lie_to(void (*give)(void *p, size_t size), size_t n)
{
	if (give == NULL)
		_exit(E2E_SKIP);
	FAULT(give(block(n), n * 40); give(block(n), 1));
	take_and_look(n);
}

static void
free_wrong_size(size_t n)
{
	lie_to(free_sized, n);
}

static void
delete_wrong_size(size_t n)
{
	lie_to(_ZdlPvm, n);
}

static void
delete_what_malloc_gave(size_t n)
{
	if (_ZdlPv == NULL)
		_exit(E2E_SKIP);
	FAULT(_ZdlPv(block(n)));
	take_and_look(n);
}

/* Each function with what it is called with, one case after the other. */
#define CASES(must, run, ...)						\
	{ #run, must, run, COUNT(((size_t[]){ __VA_ARGS__ })),		\
	    (const size_t[]){ __VA_ARGS__ } }

static const struct row {
	const char *name;
	enum must must;
	void (*run)(size_t n);
	size_t count;
	const size_t *n;
} rows[] = {
	/* Sizes. */
	CASES(AT_CALL, free_twice, 24, 200, 2000, 10000, 60000, 100000,
	    E2E_MIB, 5 * E2E_MIB, 64 * E2E_MIB),
	CASES(AT_CALL, free_twice_first_block, 777),
	CASES(AT_CALL, free_twice_one_between, 100, 5000, 200000),
	CASES(AT_CALL, free_twice_some_between, 64, 40000, 300000),
	CASES(AT_FLUSH, free_twice_many_between, 128, 3000),
	CASES(AT_FLUSH, free_twice_two_threads, 80, 8000),
	CASES(AT_CALL, free_twice_two_threads, 800000),
	CASES(AT_FLUSH, free_twice_in_another, 80, 8000),
	CASES(AT_CALL, free_aligned_twice, 100, 100000),
	CASES(AT_CALL, free_in_turns, 24, 3000, 300000),
	CASES(AT_CALL, free_twice_after_reuse, 40, 400000),
	CASES(AT_CALL, free_twice_use_twice, 56),
	CASES(AT_CALL, free_twice_other_sizes, 48),
	CASES(AT_CALL, free_twice_by_other_calls, 120),
	CASES(AT_FLUSH, free_twice_at_once, 64, 6000),
	CASES(AT_CALL, free_twice_at_once, 600000),
	CASES(AT_CALL, free_huge_aligned_twice, E2E_MIB, 64 * E2E_MIB),
	CASES(AT_CALL, free_inside_small, 64, 48),
	CASES(AT_CALL, free_inside_page, 10000, 60000, 200000, 5 * E2E_MIB),
	CASES(AT_CALL, free_inside_64k, 200000, 64 * E2E_MIB),
	CASES(AT_CALL, free_middle, 1000, 20000, 3 * E2E_MIB),
	CASES(AT_CALL, free_never_allocated, 96, 400),
	CASES(AT_CALL, free_in_a_returned_page, 1000, 9000),
	CASES(AT_CALL, free_fake_chunk, 64, 2048),
	CASES(AT_CALL, free_fake_chunk_in_block, 200),
	CASES(AT_CALL, realloc_stack, 100, E2E_MIB),
	CASES(AT_CALL, realloc_static, 100),
	CASES(AT_CALL, realloc_freed, 100, 10000, 200000, 40 * E2E_MIB),
	CASES(AT_CALL, realloc_inside, 1000, 3 * E2E_MIB),
	CASES(AT_CALL, realloc_zero_twice, 300, 300000),
	CASES(AT_CALL, free_after_realloc, 50, 4000),
	CASES(AT_CALL, usable_inside, 3 * E2E_MIB),
	CASES(AT_CALL, usable_of_freed, 300000),

	/* Blocks between the two frees. */
	CASES(AT_CALL, free_twice_between, 0, 2, 3, 7, 8, 16),

	/* Distances. */
	CASES(AT_CALL, free_off, 1, 4, 8, (size_t)-8, 16, (size_t)-16),
	CASES(AT_CALL, free_beside_aligned, 16, (size_t)-16, 4096),
	CASES(AT_CALL, free_stack, 0, 16, 8),
	CASES(AT_CALL, free_static, 0, 16),
	CASES(AT_CALL, free_rodata, 0),
	CASES(AT_CALL, free_code, 0),
	CASES(AT_CALL, free_mapped, 0, 16, 65536),
	CASES(AT_CALL, free_unmapped, 0, 4096),
	CASES(AT_CALL, realloc_off, 1, 8, 16),
	CASES(AT_CALL, usable_of_stack, 0, 8),

	/* Addresses. */
	CASES(AT_CALL, free_wild, 1, 16, 4096, SIZE_MAX - 15, SIZE_MAX),
	CASES(AT_CALL, realloc_wild, 16, SIZE_MAX - 4095),
#if SIZE_MAX > UINT32_MAX
	/* An unused one, two that are not canonical, the kernel's first. */
	CASES(AT_CALL, free_wild, 0xdeadbeef0, (size_t)1 << 48,
	    (size_t)0x8000 << 48, (size_t)0xffff8000 << 32),
	CASES(AT_CALL, realloc_wild, 0xdeadbeef0),
#endif

	/* No bytes, of so many blocks. */
	CASES(TRAP, read_no_bytes, 1, 1000),
	CASES(TRAP, write_no_bytes, 1, 1000),

	/* Writes, and lies about sizes: of blocks of these sizes. */
	CASES(NO_EFFECT, write_behind, 24, 1000, 9000),
	CASES(NO_EFFECT, write_one_behind, 24, 4096),
	CASES(NO_EFFECT, write_before, 24, 9000),
	CASES(NO_EFFECT, poison_free_list, 24, 1000, 9000, 300000),
	CASES(NO_EFFECT, fake_header, 64, 20000),
	CASES(NO_EFFECT, smash_the_top, 100, 100000),
	CASES(NO_EFFECT, calloc_after_use, 100, 50000, 500000),
	CASES(NO_EFFECT, realloc_after_overflow, 100),
	CASES(NO_EFFECT, free_wrong_size, 100),
	CASES(NO_EFFECT, delete_wrong_size, 100),
	CASES(NO_EFFECT, delete_what_malloc_gave, 100),
};

static int
count_cases(void)
{
	size_t n = 0;

	for (size_t i = 0; i < COUNT(rows); i++)
		n += rows[i].count;
	return (int)n;
}

/* One case, by its number. */
static struct misuse
find_case(size_t number)
{
	const struct row *row = rows;
	struct misuse m;

	for (; number >= row->count; row++)
		number -= row->count;
	m = (struct misuse){ .must = row->must, .run = row->run,
		.n = row->n[number] };
	snprintf(m.name, sizeof(m.name), "%s(%zd)", row->name, (ssize_t)m.n);
	return m;
}

/* --- running one -------------------------------------------------------- */

static void *
run_case(void *arg)
{
	const struct misuse *m = arg;

	m->run(m->n);
	return NULL;
}

/*
 * What empties caches in any program: many more frees, a trim, the end of
 * the thread.  Then no block may be given out twice.
 */
static void
flush(size_t n)
{
	enum { LIVE = 2000 };
	static void *p[LIVE];

	n = n >= 16 && n < 100000 ? n : 1000;
	others(n, 10000);
	others(2000, 1000);
	e2e_trim(0);
	for (unsigned i = 0; i < LIVE; i++) {
		p[i] = block(n);
		e2e_fill(p[i], n, i);
	}
	for (unsigned i = 0; i < LIVE; i++)
		if (e2e_differs(p[i], n, i) != E2E_SAME)
			_exit(99);
	for (unsigned i = 0; i < LIVE; i++)
		e2e_free(p[i]);
	e2e_trim(0);
}

static void
be_the_child(void *arg)
{
	const struct misuse *m = arg;
	/* Less than any core; at 0 qemu-user adds a line of its own. */
	struct rlimit none = { 2, 2 };
	pthread_t t;

	setrlimit(RLIMIT_CORE, &none);
	signal(SIGABRT, SIG_DFL);
	/* In a thread of its own, whose end empties its caches. */
	if (pthread_create(&t, NULL, run_case, (void *)(uintptr_t)m) != 0)
		_exit(98);
	pthread_join(t, NULL);
	flush(m->n);
	progress->survived = 1;
}

/* Past the characters of `set`, at least one; NULL where there is none. */
static const char *
past(const char *text, const char *set)
{
	size_t n = strspn(text, set);

	return n > 0 ? text + n : NULL;
}

/* Is this "hz4: KIND: ptr 0x...[, size ...]" and nothing else? */
static bool
is_one_line(const char *text)
{
	const char *at = strstr(text, ": ptr 0x");

	if (strncmp(text, "hz4: ", 5) != 0 || at == NULL || at < text + 6 ||
	    memchr(text, '\n', (size_t)(at - text)) != NULL)
		return false;
	at = past(at + strlen(": ptr 0x"), "0123456789abcdef");
	if (at != NULL && strncmp(at, ", size ", 7) == 0)
		at = past(at + 7, "0123456789");
	return at != NULL && strcmp(at, "\n") == 0;
}

static void
verdict(const struct misuse *m, const struct e2e_outcome *o)
{
	int status = o->status;
	bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;

	ck_assert_msg(status != -1, "%s: hangs", m->name);
	ck_assert_msg(progress->ready, "%s: never came to it (status %d)",
	    m->name, status);
	ck_assert_msg(o->out[0] == '\0', "%s: prints on stdout", m->name);
	if (m->must == NO_EFFECT) {
		ck_assert_msg(status == 0 && o->err[0] == '\0',
		    "%s: wait status %d, says \"%s\"", m->name, status,
		    o->err);
		return;
	}
	if (m->must == TRAP) {
		ck_assert_msg(WIFSIGNALED(status) &&
		    WTERMSIG(status) == SIGSEGV && !progress->returned,
		    "%s: wait status %d", m->name, status);
		return;
	}
	ck_assert_msg(aborted, "%s: wait status %d%s", m->name, status,
	    progress->survived ? ", not noticed" : "");
	ck_assert_msg(is_one_line(o->err), "%s: says \"%s\"", m->name, o->err);
	ck_assert_msg(m->must != AT_CALL || !progress->returned,
	    "%s: noticed only later: %s", m->name, o->err);
}

START_TEST(misuse)
{
	struct misuse m = find_case((size_t)_i);
	struct e2e_outcome o;

	memset((void *)(uintptr_t)progress, 0, sizeof(*progress));
	o = e2e_capture(be_the_child, &m);
	if (WIFEXITED(o.status) && WEXITSTATUS(o.status) == E2E_SKIP)
		return;
	if (e2e_is_hz4())
		verdict(&m, &o);
	else
		printf("%s: wait status %d, %s\n", m.name, o.status,
		    !progress->returned ? "at the call" :
		    !progress->survived ? "later" : "not noticed");
}
END_TEST

/* ------------------------------------------------------------------------ */

static void
add(TCase *t)
{
	tcase_add_loop_test(t, misuse, 0, count_cases());
}

int
main(void)
{
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if ((void *)(uintptr_t)progress == MAP_FAILED)
		return 99;
	return e2e_main("misuse", 60, add);
}
