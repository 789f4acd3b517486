/*
 * answers.c - one line for each of many calls of the malloc family: what it
 * answers, and what errno is then.  answers.test compares those of hz4 with
 * those of libc's own malloc.
 *
 *     answers plain|machine
 *
 * plain: questions that every machine answers alike.  machine: for more
 * memory than this one has; exit status 77 where the system grants that.
 *
 * Links no allocator: the library under test is preloaded.
 */
#include "e2e_common.h"

#include <limits.h>

/* errno before each call: no call may leave another number by itself. */
enum { BEFORE = 4711 };

/* mallinfo is one of those that are asked. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* What a call returned: NULL or not, aligned to `align`, and errno. */
static void
say(const char *call, size_t arg, void *p, size_t align)
{
	int error = errno;

	printf("%s %zx: %s errno %d\n", call, arg,
	    p == NULL ? "NULL" :
	    (uintptr_t)p % align == 0 ? "memory" : "not aligned", error);
	e2e_free(p);
	errno = BEFORE;
}

static void
say_number(const char *call, long arg, long answer)
{
	int error = errno;

	printf("%s %ld: %ld errno %d\n", call, arg, answer, error);
	errno = BEFORE;
}

/* posix_memalign leaves the pointer alone where it refuses. */
static void
ask_posix(size_t align, size_t size)
{
	int mark;
	void *p = &mark;
	int got = e2e_posix_memalign(&p, align, size);
	int error = errno;

	printf("posix_memalign %zx %zx: %d errno %d%s\n", align, size, got,
	    error, p == &mark ? ", untouched" : "");
	if (p != &mark)
		e2e_free(p);
	errno = BEFORE;
}

/* All that may fail, for so many bytes. */
static void
ask_for(size_t n)
{
	void *p = e2e_malloc(40);
	void *q;

	errno = BEFORE;
	say("malloc", n, e2e_malloc(n), 16);
	say("calloc n 1", n, e2e_calloc(n, 1), 16);
	say("calloc 1 n", n, e2e_calloc(1, n), 16);
	say("realloc NULL", n, e2e_realloc(NULL, n), 16);
	q = e2e_realloc(p, n);
	/* To nothing is a free. */
	p = q != NULL || n == 0 ? NULL : p;
	say("realloc", n, q, 16);
	q = e2e_reallocarray(p, n, 1);
	p = q != NULL || n == 0 ? NULL : p;
	say("reallocarray", n, q, 16);
	e2e_free(p);
	errno = BEFORE;
	say("aligned_alloc 64", n, e2e_aligned_alloc(64, n), 64);
	say("memalign 4096", n, e2e_memalign(4096, n), 4096);
	say("memalign 4 MiB", n, e2e_memalign(4 * E2E_MIB, n), 4 * E2E_MIB);
	say("valloc", n, e2e_valloc(n), 4096);
	say("pvalloc", n, e2e_pvalloc(n), 4096);
	ask_posix(64, n);
	ask_posix(65536, n);
}

static void
ask_sizes(void)
{
	static const size_t sizes[] = { 0, 1, 15, 16, 17, 100, 4095, 4096,
		4097, 65536, 262144, 262145, 1048576, 5000000,
#if SIZE_MAX > UINT32_MAX /* see ask_alignments */
		(size_t)PTRDIFF_MAX - 4096, PTRDIFF_MAX,
#endif
		(size_t)PTRDIFF_MAX + 1, SIZE_MAX - 65536, SIZE_MAX - 4096,
		SIZE_MAX - 16, SIZE_MAX - 1, SIZE_MAX };
	const size_t half = (size_t)1 << (sizeof(size_t) * 4);

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		ask_for(sizes[i]);
	errno = BEFORE;
	say("calloc overflow", half, e2e_calloc(half, half), 16);
	say("calloc overflow", 3, e2e_calloc(SIZE_MAX / 2, 3), 16);
	say("calloc of none", 0, e2e_calloc(0, SIZE_MAX), 16);
	say("reallocarray overflow", half,
	    e2e_reallocarray(NULL, half, half), 16);
	say("reallocarray of none", 0,
	    e2e_reallocarray(NULL, SIZE_MAX, 0), 16);
	say("realloc to nothing", 0, e2e_realloc(e2e_malloc(10), 0), 16);
}

static void
ask_alignments(void)
{
	static const size_t odd[] = { 0, 1, 2, 3, 4, 5, 7, 12, 24, 33, 48, 100,
		1000, 4097, 6000, 65537 };
	/* With few addresses there may just be room for half of them. */
	const bool wide = SIZE_MAX > UINT32_MAX;
	const size_t never = wide ? PTRDIFF_MAX : (size_t)PTRDIFF_MAX + 1;
	const unsigned many = wide ? 12 : 1;
	size_t a;

	for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		ask_posix(odd[i], 100);
		/* What memalign rounds up is aligned to more. */
		for (a = 1; a < odd[i]; a *= 2)
			;
		say("memalign odd", odd[i], e2e_memalign(odd[i], 100), a);
	}
	for (a = 1; a <= 16 * E2E_MIB; a *= 2) {
		ask_posix(a, 100);
		ask_posix(a, 0);
		ask_posix(a, never);
		say("memalign", a, e2e_memalign(a, 100), a);
		say("aligned_alloc", a, e2e_aligned_alloc(a, 3 * a), a);
	}
	for (a = SIZE_MAX / 2 + 1; a > SIZE_MAX >> many; a /= 2) {
		ask_posix(a, 1);
		say("memalign", a, e2e_memalign(a, 1), a);
		say("aligned_alloc", a, e2e_aligned_alloc(a, a), a);
	}
	say("memalign", SIZE_MAX, e2e_memalign(SIZE_MAX, 1), 1);
	ask_posix(SIZE_MAX, 1);
}

static void
ask_mallopt(void)
{
	static const int parameter[] = { M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD,
		M_MMAP_THRESHOLD, M_MMAP_MAX, M_CHECK_ACTION, M_PERTURB,
		M_ARENA_TEST, M_ARENA_MAX, 2, 3, 4, 100, 12345, -9, -99, INT_MIN,
		INT_MAX };
	static const int value[] = { 0, 1, 2, 64, 160, 161, 4096, 131072,
		32 * E2E_MIB, 32 * E2E_MIB + 1, INT_MAX, -1, INT_MIN };
	char call[32];

	for (unsigned i = 0; i < sizeof(parameter) / sizeof(int); i++)
		for (unsigned k = 0; k < sizeof(value) / sizeof(int); k++) {
			snprintf(call, sizeof(call), "mallopt %d",
			    parameter[i]);
			errno = BEFORE;
			say_number(call, value[k],
			    mallopt(parameter[i], value[k]));
		}
}

static bool
all_positive(const struct mallinfo *m)
{
	return m->arena >= 0 && m->ordblks >= 0 && m->smblks >= 0 &&
	    m->hblks >= 0 && m->hblkhd >= 0 && m->usmblks >= 0 &&
	    m->fsmblks >= 0 && m->uordblks >= 0 && m->fordblks >= 0 &&
	    m->keepcost >= 0;
}

static void
ask_figures(void)
{
	void *p = e2e_malloc(1000);
	struct mallinfo2 m;
	struct mallinfo old;

	errno = BEFORE;
	say_number("usable of NULL", 0, (long)e2e_usable(NULL));
	say_number("usable is enough", 1000, e2e_usable(p) >= 1000);
	m = mallinfo2();
	say_number("mallinfo2 adds up", 0, m.uordblks >= 1000 &&
	    m.uordblks + m.fordblks == m.arena);
	old = mallinfo();
	say_number("mallinfo is positive", 0, all_positive(&old));
	say_number("malloc_info of an option", 1, malloc_info(1, stdout));
	/* Whether anything goes back is each allocator's own. */
	say_number("malloc_trim is 0 or 1", 0, (e2e_trim(0) & ~1) == 0);
	say_number("malloc_trim again", 0, (e2e_trim(SIZE_MAX) & ~1) == 0);
	e2e_free(p);
	errno = BEFORE;
	e2e_free(NULL);
	say_number("free of NULL", 0, 0);
}

/* More than the machine has, memory and swap; true: the system grants it. */
static bool
ask_for_more(void)
{
	size_t kib = e2e_proc_kib("/proc/meminfo", "MemTotal:") +
	    e2e_proc_kib("/proc/meminfo", "\nSwapTotal:");
	static const unsigned quarters[] = { 5, 8, 16, 64, 256, 4096 };
	void *p;

	for (unsigned i = 0; i < sizeof(quarters) / sizeof(*quarters); i++) {
		size_t n = kib / 4;

		if (kib == 0 || n > PTRDIFF_MAX / quarters[i])
			continue;
		n *= quarters[i];
		p = mmap(NULL, n, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED)
			return true;
		ask_for(n);
		/* A mapping of its own that is to grow. */
		p = e2e_malloc(100 * (size_t)E2E_MIB);
		errno = BEFORE;
		say("realloc of much", n, e2e_realloc(p, n), 16);
		e2e_free(p);
	}
	return false;
}

int
main(int argc, char **argv)
{
	static char buffer[1 << 20];

	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	if (argc == 2 && strcmp(argv[1], "machine") == 0)
		return ask_for_more() ? E2E_SKIP : 0;
	ask_sizes();
	ask_alignments();
	ask_figures();
	ask_mallopt();
	return 0;
}
