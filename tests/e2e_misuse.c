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
	NO_EFFECT,		/* nothing is said, and the heap is whole */
};

struct misuse {
	const char *name;
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
free_wrong_size(size_t n)
{
	if (free_sized == NULL)
		_exit(E2E_SKIP);
	FAULT(free_sized(block(n), n * 40); free_sized(block(n), 1));
	take_and_look(n);
}

static void
delete_wrong_size(size_t n)
{
	if (_ZdlPvm == NULL)
		_exit(E2E_SKIP);
	FAULT(_ZdlPvm(block(n), n * 40); _ZdlPvm(block(n), 1));
	take_and_look(n);
}

static void
delete_what_malloc_gave(size_t n)
{
	if (_ZdlPv == NULL)
		_exit(E2E_SKIP);
	FAULT(_ZdlPv(block(n)));
	take_and_look(n);
}

static const struct misuse cases[] = {
	{ "double free of 24", AT_CALL, free_twice, 24 },
	{ "double free of 200", AT_CALL, free_twice, 200 },
	{ "double free of 2000", AT_CALL, free_twice, 2000 },
	{ "double free of 10000", AT_CALL, free_twice, 10000 },
	{ "double free of 60000", AT_CALL, free_twice, 60000 },
	{ "double free of 100000", AT_CALL, free_twice, 100000 },
	{ "double free of 1 MiB", AT_CALL, free_twice, 1 << 20 },
	{ "double free of 5 MiB", AT_CALL, free_twice, 5 << 20 },
	{ "double free of 64 MiB", AT_CALL, free_twice, 64 << 20 },
	{ "double free, only 777", AT_CALL, free_twice_first_block, 777 },
	{ "double free, 1 between", AT_CALL, free_twice_one_between, 100 },
	{ "1 between, 5000", AT_CALL, free_twice_one_between, 5000 },
	{ "1 between, 200000", AT_CALL, free_twice_one_between, 200000 },
	{ "double free, 12 between", AT_CALL, free_twice_some_between, 64 },
	{ "12 between, 40000", AT_CALL, free_twice_some_between, 40000 },
	{ "12 between, 300000", AT_CALL, free_twice_some_between, 300000 },
	{ "after 3000 frees", AT_FLUSH, free_twice_many_between, 128 },
	{ "3000 frees of 3000", AT_FLUSH, free_twice_many_between, 3000 },
	{ "by two threads", AT_FLUSH, free_twice_two_threads, 80 },
	{ "two threads, 8000", AT_FLUSH, free_twice_two_threads, 8000 },
	{ "two threads, 800000", AT_CALL, free_twice_two_threads, 800000 },
	{ "in another thread", AT_FLUSH, free_twice_in_another, 80 },
	{ "in another, 8000", AT_FLUSH, free_twice_in_another, 8000 },
	{ "aligned, 100", AT_CALL, free_aligned_twice, 100 },
	{ "aligned, 100000", AT_CALL, free_aligned_twice, 100000 },
	{ "block + 1", AT_CALL, free_off, 1 },
	{ "block + 4", AT_CALL, free_off, 4 },
	{ "block + 8", AT_CALL, free_off, 8 },
	{ "block - 8", AT_CALL, free_off, (size_t)-8 },
	{ "block + 16", AT_CALL, free_off, 16 },
	{ "block - 16", AT_CALL, free_off, (size_t)-16 },
	{ "64 + 16", AT_CALL, free_inside_small, 64 },
	{ "48 + 16", AT_CALL, free_inside_small, 48 },
	{ "10000 + 4096", AT_CALL, free_inside_page, 10000 },
	{ "60000 + 4096", AT_CALL, free_inside_page, 60000 },
	{ "200000 + 4096", AT_CALL, free_inside_page, 200000 },
	{ "5 MiB + 4096", AT_CALL, free_inside_page, 5 << 20 },
	{ "200000 + 65536", AT_CALL, free_inside_64k, 200000 },
	{ "64 MiB + 65536", AT_CALL, free_inside_64k, 64 << 20 },
	{ "middle of 1000", AT_CALL, free_middle, 1000 },
	{ "middle of 20000", AT_CALL, free_middle, 20000 },
	{ "middle of 3 MiB", AT_CALL, free_middle, 3 << 20 },
	{ "never given, 96", AT_CALL, free_never_allocated, 96 },
	{ "never given, 400", AT_CALL, free_never_allocated, 400 },
	{ "stack", AT_CALL, free_stack, 0 },
	{ "stack + 16", AT_CALL, free_stack, 16 },
	{ "stack + 8", AT_CALL, free_stack, 8 },
	{ "static", AT_CALL, free_static, 0 },
	{ "static + 16", AT_CALL, free_static, 16 },
	{ "constant", AT_CALL, free_rodata, 0 },
	{ "code", AT_CALL, free_code, 0 },
	{ "mapped", AT_CALL, free_mapped, 0 },
	{ "mapped + 16", AT_CALL, free_mapped, 16 },
	{ "mapped + 65536", AT_CALL, free_mapped, 65536 },
	{ "unmapped", AT_CALL, free_unmapped, 0 },
	{ "unmapped + 4096", AT_CALL, free_unmapped, 4096 },
	{ "address 1", AT_CALL, free_wild, 1 },
	{ "address 16", AT_CALL, free_wild, 16 },
	{ "address 4096", AT_CALL, free_wild, 4096 },
#if SIZE_MAX > UINT32_MAX
	{ "address 0xdeadbeef0", AT_CALL, free_wild, 0xdeadbeef0 },
	{ "realloc of 0xdeadbeef0", AT_CALL, realloc_wild, 0xdeadbeef0 },
	{ "not canonical", AT_CALL, free_wild, (size_t)0x8000 << 48 },
	{ "not canonical, low", AT_CALL, free_wild, (size_t)1 << 48 },
	{ "kernel", AT_CALL, free_wild, (size_t)0xffff8000 << 32 },
#endif
	{ "all ones", AT_CALL, free_wild, SIZE_MAX },
	{ "minus 16", AT_CALL, free_wild, SIZE_MAX - 15 },
	{ "realloc of stack", AT_CALL, realloc_stack, 100 },
	{ "realloc of stack, large", AT_CALL, realloc_stack, 1 << 20 },
	{ "realloc of static", AT_CALL, realloc_static, 100 },
	{ "realloc of 16", AT_CALL, realloc_wild, 16 },
	{ "realloc of kernel", AT_CALL, realloc_wild, SIZE_MAX - 4095 },
	{ "realloc of block + 1", AT_CALL, realloc_off, 1 },
	{ "realloc of block + 8", AT_CALL, realloc_off, 8 },
	{ "realloc of block + 16", AT_CALL, realloc_off, 16 },
	{ "realloc of freed 100", AT_CALL, realloc_freed, 100 },
	{ "realloc of freed 10000", AT_CALL, realloc_freed, 10000 },
	{ "realloc of freed 200000", AT_CALL, realloc_freed, 200000 },
	{ "realloc of freed 40 MiB", AT_CALL, realloc_freed, 40 << 20 },
	{ "free after realloc, 50", AT_CALL, free_after_realloc, 50 },
	{ "free after realloc, 4000", AT_CALL, free_after_realloc, 4000 },
	{ "realloc to 0 twice", AT_CALL, realloc_zero_twice, 300 },
	{ "realloc to 0 twice, large", AT_CALL, realloc_zero_twice, 300000 },
	{ "0 between", AT_CALL, free_twice_between, 0 },
	{ "2 between", AT_CALL, free_twice_between, 2 },
	{ "3 between", AT_CALL, free_twice_between, 3 },
	{ "7 between", AT_CALL, free_twice_between, 7 },
	{ "8 between", AT_CALL, free_twice_between, 8 },
	{ "16 between", AT_CALL, free_twice_between, 16 },
	{ "a b a b a, 24", AT_CALL, free_in_turns, 24 },
	{ "a b a b a, 3000", AT_CALL, free_in_turns, 3000 },
	{ "a b a b a, 300000", AT_CALL, free_in_turns, 300000 },
	{ "after reuse, 40", AT_CALL, free_twice_after_reuse, 40 },
	{ "after reuse, 400000", AT_CALL, free_twice_after_reuse, 400000 },
	{ "used twice, 56", AT_CALL, free_twice_use_twice, 56 },
	{ "other sizes between", AT_CALL, free_twice_other_sizes, 48 },
	{ "calloc, free, realloc to 0", AT_CALL, free_twice_by_other_calls,
	    120 },
	{ "at once, 64", AT_FLUSH, free_twice_at_once, 64 },
	{ "at once, 6000", AT_FLUSH, free_twice_at_once, 6000 },
	{ "at once, 600000", AT_CALL, free_twice_at_once, 600000 },
	{ "aligned to 1 MiB twice", AT_CALL, free_huge_aligned_twice,
	    1 << 20 },
	{ "aligned to 64 MiB twice", AT_CALL, free_huge_aligned_twice,
	    64 << 20 },
	{ "aligned + 16", AT_CALL, free_beside_aligned, 16 },
	{ "aligned - 16", AT_CALL, free_beside_aligned, (size_t)-16 },
	{ "aligned + 4096", AT_CALL, free_beside_aligned, 4096 },
	{ "in a returned page", AT_CALL, free_in_a_returned_page, 1000 },
	{ "in a returned page, 9000", AT_CALL, free_in_a_returned_page, 9000 },
	{ "fake chunk of 64", AT_CALL, free_fake_chunk, 64 },
	{ "fake chunk of 2048", AT_CALL, free_fake_chunk, 2048 },
	{ "fake chunk in a block", AT_CALL, free_fake_chunk_in_block, 200 },
	{ "usable size of stack", AT_CALL, usable_of_stack, 0 },
	{ "usable size of stack + 8", AT_CALL, usable_of_stack, 8 },
	{ "usable size of 100 + 16", AT_CALL, usable_inside, 100 },
	{ "usable size of 3 MiB + 16", AT_CALL, usable_inside, 3 << 20 },
	{ "usable size of freed", AT_CALL, usable_of_freed, 100 },
	{ "usable size of freed, large", AT_CALL, usable_of_freed, 300000 },
	{ "realloc of middle of 1000", AT_CALL, realloc_inside, 1000 },
	{ "realloc of middle of 3 MiB", AT_CALL, realloc_inside, 3 << 20 },
	{ "write behind 24", NO_EFFECT, write_behind, 24 },
	{ "write behind 1000", NO_EFFECT, write_behind, 1000 },
	{ "write behind 9000", NO_EFFECT, write_behind, 9000 },
	{ "write one behind 24", NO_EFFECT, write_one_behind, 24 },
	{ "write one behind 4096", NO_EFFECT, write_one_behind, 4096 },
	{ "write before 24", NO_EFFECT, write_before, 24 },
	{ "write before 9000", NO_EFFECT, write_before, 9000 },
	{ "poison free list, 24", NO_EFFECT, poison_free_list, 24 },
	{ "poison free list, 1000", NO_EFFECT, poison_free_list, 1000 },
	{ "poison free list, 9000", NO_EFFECT, poison_free_list, 9000 },
	{ "poison free list, 300000", NO_EFFECT, poison_free_list, 300000 },
	{ "fake headers, 64", NO_EFFECT, fake_header, 64 },
	{ "fake headers, 20000", NO_EFFECT, fake_header, 20000 },
	{ "top, 100", NO_EFFECT, smash_the_top, 100 },
	{ "top, 100000", NO_EFFECT, smash_the_top, 100000 },
	{ "calloc after use, 100", NO_EFFECT, calloc_after_use, 100 },
	{ "calloc after use, 50000", NO_EFFECT, calloc_after_use, 50000 },
	{ "calloc after use, 500000", NO_EFFECT, calloc_after_use, 500000 },
	{ "realloc after overflow", NO_EFFECT, realloc_after_overflow, 100 },
	{ "free_sized, wrong size", NO_EFFECT, free_wrong_size, 100 },
	{ "delete, wrong size", NO_EFFECT, delete_wrong_size, 100 },
	{ "delete of malloc's", NO_EFFECT, delete_what_malloc_gave, 100 },
};

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
	ck_assert_msg(aborted, "%s: wait status %d%s", m->name, status,
	    progress->survived ? ", not noticed" : "");
	ck_assert_msg(is_one_line(o->err), "%s: says \"%s\"", m->name, o->err);
	ck_assert_msg(m->must != AT_CALL || !progress->returned,
	    "%s: noticed only later: %s", m->name, o->err);
}

START_TEST(misuse)
{
	const struct misuse *m = &cases[_i];
	struct e2e_outcome o;

	memset((void *)(uintptr_t)progress, 0, sizeof(*progress));
	o = e2e_capture(be_the_child, (void *)(uintptr_t)m);
	if (WIFEXITED(o.status) && WEXITSTATUS(o.status) == E2E_SKIP)
		return;
	if (e2e_is_hz4())
		verdict(m, &o);
	else
		printf("%s: wait status %d, %s\n", m->name, o.status,
		    !progress->returned ? "at the call" :
		    !progress->survived ? "later" : "not noticed");
}
END_TEST

/* ------------------------------------------------------------------------ */

static void
add(TCase *t)
{
	tcase_add_loop_test(t, misuse, 0, COUNT(cases));
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
