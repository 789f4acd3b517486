/*
 * What a program must not do: free twice, free what malloc never gave, free
 * the middle of a block, resize what is gone.  hz4 ends the process with
 * SIGABRT and exactly one line on stderr,
 *
 *	hz4: KIND: ptr 0x...[, size ...]
 *
 * at the call itself or at the latest when the block leaves the caches; the
 * table below says which.  On another allocator the outcome of each is
 * printed, and nothing is asked of it.
 */
#include "e2e_check.h"

#include <pthread.h>

/* When a case has to be caught. */
enum must {
	AT_CALL,		/* before the faulty call returns */
	AT_FLUSH,		/* or when the caches are emptied */
	NO_HARM,		/* need not be, but nothing worse happens */
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

static const struct misuse cases[] = {
	{ "double free of 24", AT_FLUSH, free_twice, 24 },
	{ "double free of 200", AT_FLUSH, free_twice, 200 },
	{ "double free of 2000", AT_FLUSH, free_twice, 2000 },
	{ "double free of 10000", AT_FLUSH, free_twice, 10000 },
	{ "double free of 60000", AT_FLUSH, free_twice, 60000 },
	{ "double free of 100000", AT_CALL, free_twice, 100000 },
	{ "double free of 1 MiB", AT_CALL, free_twice, 1 << 20 },
	{ "double free of 5 MiB", AT_CALL, free_twice, 5 << 20 },
	{ "double free of 64 MiB", AT_CALL, free_twice, 64 << 20 },
	{ "double free, only 777", AT_FLUSH, free_twice_first_block, 777 },
	{ "double free, 1 between", AT_FLUSH, free_twice_one_between, 100 },
	{ "1 between, 5000", AT_FLUSH, free_twice_one_between, 5000 },
	{ "1 between, 200000", AT_CALL, free_twice_one_between, 200000 },
	{ "double free, 12 between", AT_FLUSH, free_twice_some_between, 64 },
	{ "12 between, 40000", AT_FLUSH, free_twice_some_between, 40000 },
	{ "12 between, 300000", AT_CALL, free_twice_some_between, 300000 },
	{ "after 3000 frees", AT_FLUSH, free_twice_many_between, 128 },
	{ "3000 frees of 3000", AT_FLUSH, free_twice_many_between, 3000 },
	{ "by two threads", AT_FLUSH, free_twice_two_threads, 80 },
	{ "two threads, 8000", AT_FLUSH, free_twice_two_threads, 8000 },
	{ "two threads, 800000", AT_CALL, free_twice_two_threads, 800000 },
	{ "in another thread", AT_FLUSH, free_twice_in_another, 80 },
	{ "in another, 8000", AT_FLUSH, free_twice_in_another, 8000 },
	{ "aligned, 100", AT_FLUSH, free_aligned_twice, 100 },
	{ "aligned, 100000", AT_CALL, free_aligned_twice, 100000 },
	{ "block + 1", AT_CALL, free_off, 1 },
	{ "block + 4", AT_CALL, free_off, 4 },
	{ "block + 8", AT_CALL, free_off, 8 },
	{ "block - 8", AT_CALL, free_off, (size_t)-8 },
	{ "block + 16", AT_FLUSH, free_off, 16 },
	{ "block - 16", AT_FLUSH, free_off, (size_t)-16 },
	{ "64 + 16", AT_FLUSH, free_inside_small, 64 },
	{ "48 + 16", AT_FLUSH, free_inside_small, 48 },
	{ "10000 + 4096", AT_FLUSH, free_inside_page, 10000 },
	{ "60000 + 4096", AT_FLUSH, free_inside_page, 60000 },
	{ "200000 + 4096", AT_CALL, free_inside_page, 200000 },
	{ "5 MiB + 4096", AT_CALL, free_inside_page, 5 << 20 },
	{ "200000 + 65536", AT_CALL, free_inside_64k, 200000 },
	{ "64 MiB + 65536", AT_CALL, free_inside_64k, 64 << 20 },
	{ "middle of 1000", AT_FLUSH, free_middle, 1000 },
	{ "middle of 20000", AT_FLUSH, free_middle, 20000 },
	{ "middle of 3 MiB", AT_CALL, free_middle, 3 << 20 },
	{ "never given, 96", AT_FLUSH, free_never_allocated, 96 },
	{ "never given, 400", AT_FLUSH, free_never_allocated, 400 },
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
	{ "realloc of block + 16", AT_FLUSH, realloc_off, 16 },
	{ "realloc of freed 100", AT_FLUSH, realloc_freed, 100 },
	{ "realloc of freed 10000", AT_FLUSH, realloc_freed, 10000 },
	{ "realloc of freed 200000", AT_CALL, realloc_freed, 200000 },
	{ "realloc of freed 40 MiB", AT_CALL, realloc_freed, 40 << 20 },
	{ "free after realloc, 50", AT_FLUSH, free_after_realloc, 50 },
	{ "free after realloc, 4000", AT_FLUSH, free_after_realloc, 4000 },
	{ "realloc to 0 twice", AT_FLUSH, realloc_zero_twice, 300 },
	{ "realloc to 0 twice, large", AT_CALL, realloc_zero_twice, 300000 },
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

/* Is this hz4's one line and nothing else? */
static bool
is_one_line(const char *text)
{
	const char *end = strchr(text, '\n');
	const char *ptr = strstr(text, ": ptr 0x");

	return strncmp(text, "hz4: ", 5) == 0 && end != NULL &&
	    end[1] == '\0' && ptr != NULL && ptr > text + 4 && ptr < end &&
	    end - text < 200;
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
	if (!aborted) {
		ck_assert_msg(status == 0 && m->must == NO_HARM,
		    "%s: wait status %d%s", m->name, status,
		    progress->survived ? ", not noticed" : "");
		return;
	}
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
