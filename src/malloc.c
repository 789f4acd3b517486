/*
 * malloc.c - libc's names for the allocator.
 *
 * Behaviour and errno follow glibc (the manual, and its source where the
 * manual is silent) and POSIX.  reallocarray, strdup and the like are
 * glibc's own: they call these.
 */
#include "hz4/hz4.h"

#include "backtrace.h"
#include "heap.h"
#include "info.h"
#include "os.h"
#include "purge.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* C23; declared by newer glibc only. */
void free_sized(void *p, size_t size);
void free_aligned_sized(void *p, size_t align, size_t size);
/* Dropped from glibc's headers, still asked for by old programs. */
void cfree(void *p);

/* The constructor, and hz4_* for who asks whether they are there. */
HZ4_BRINGS(hz4_version);

/*
 * The unwinder of a static program, if it has one: nothing brings it in.  The
 * shared library asks for no such names, which ld.so would have to look for.
 */
#ifndef PIC
#pragma weak _Unwind_Backtrace
extern __typeof__(HZ4_UNWIND_GET) HZ4_UNWIND_GET __attribute__((weak));

extern const struct hz4_unwinder hz4_own_unwinder;
const struct hz4_unwinder hz4_own_unwinder = {
	_Unwind_Backtrace, HZ4_UNWIND_GET
};
#endif

HZ4_EXPORT_HOT void *
malloc(size_t size)
{
	return hz4_heap_malloc(size);
}

HZ4_EXPORT_HOT void
free(void *p)
{
	hz4_heap_free(p);
}

HZ4_EXPORT void *
calloc(size_t n, size_t size)
{
	return hz4_heap_calloc(n, size);
}

HZ4_EXPORT void *
realloc(void *p, size_t size)
{
	return hz4_heap_realloc(p, size);
}

HZ4_EXPORT void
cfree(void *p)
{
	hz4_heap_free(p);
}

/* C23: `size` is what was asked for; it is not checked. */
HZ4_EXPORT void
free_sized(void *p, size_t size)
{
	(void)size;
	hz4_heap_free(p);
}

HZ4_EXPORT void
free_aligned_sized(void *p, size_t align, size_t size)
{
	(void)align;
	(void)size;
	hz4_heap_free(p);
}

/*
 * POSIX: the error is returned, *result stays as it was.  As with glibc errno
 * is ENOMEM, too, where that is the error, and else what it was.
 */
HZ4_EXPORT int
posix_memalign(void **result, size_t align, size_t size)
{
	void *p;

	if (!hz4_is_pow2(align) || align % sizeof(void *) != 0)
		return EINVAL;
	p = hz4_heap_aligned(align, size);
	if (p == NULL)
		return ENOMEM;
	*result = p;
	return 0;
}

/* C11, and glibc from 2.38 on: any size, but a power of two. */
HZ4_EXPORT void *
aligned_alloc(size_t align, size_t size)
{
	if (!hz4_is_pow2(align)) {
		errno = EINVAL;
		return NULL;
	}
	return hz4_heap_aligned(align, size);
}

/* glibc: an alignment that is no power of two is rounded up to one. */
HZ4_EXPORT void *
memalign(size_t align, size_t size)
{
	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	if (!hz4_is_pow2(align))
		align = align < 2 ? 1 : (size_t)2 << hz4_log2(align);
	return hz4_heap_aligned(align, size);
}

HZ4_EXPORT void *
valloc(size_t size)
{
	hz4_thread_start();
	return hz4_heap_aligned(hz4_os_page, size);
}

/* As valloc, with the size rounded up to whole OS pages. */
HZ4_EXPORT void *
pvalloc(size_t size)
{
	hz4_thread_start();
	if (size > PTRDIFF_MAX - hz4_os_page) {
		errno = ENOMEM;
		return NULL;
	}
	size = hz4_round_up(hz4_max(size, 1), hz4_os_page);
	return hz4_heap_aligned(hz4_os_page, size);
}

HZ4_EXPORT size_t
malloc_usable_size(void *p)
{
	return hz4_heap_usable(p);
}

/* glibc: 1 when memory went back to the system.  `pad` is not needed. */
HZ4_EXPORT int
malloc_trim(size_t pad)
{
	(void)pad;
	return hz4_heap_trim() > 0;
}

/*
 * glibc's parameters, its answers, and what of them has a meaning here:
 * hz4(7) has the table.  As there a negative value is a very large one, and a
 * parameter that nobody knows is no mistake.
 */
HZ4_EXPORT int
mallopt(int parameter, int value)
{
	size_t n = (size_t)value;

	switch (parameter) {
	case M_TRIM_THRESHOLD:
		hz4_purge_allow(n);
		return 1;
	case M_MXFAST:
		/* The most that glibc takes. */
		return n <= 20 * sizeof(size_t);
	default:
		return 1;
	}
}

HZ4_EXPORT struct mallinfo2
mallinfo2(void)
{
	struct mallinfo2 m;
	struct hz4_info info;

	hz4_info_get(&info);
	memset(&m, 0, sizeof m);
	m.arena = info.mapped - info.mapping_bytes;
	m.ordblks = info.cached_objects + info.spans;
	m.hblks = info.mappings;
	m.hblkhd = info.mapping_bytes;
	m.uordblks = info.live - info.mapping_bytes;
	m.fordblks = m.arena - hz4_min(m.arena, m.uordblks);
	m.fsmblks = info.cached;
	m.keepcost = info.dirty_pages;
	return m;
}

static int
as_int(size_t n)
{
	return n > INT_MAX ? INT_MAX : (int)n;
}

HZ4_EXPORT struct mallinfo
mallinfo(void)
{
	struct mallinfo2 m = mallinfo2();
	struct mallinfo old = {
		.arena = as_int(m.arena),
		.ordblks = as_int(m.ordblks),
		.hblks = as_int(m.hblks),
		.hblkhd = as_int(m.hblkhd),
		.fsmblks = as_int(m.fsmblks),
		.uordblks = as_int(m.uordblks),
		.fordblks = as_int(m.fordblks),
		.keepcost = as_int(m.keepcost),
	};

	return old;
}

/* glibc: XML with the totals; EINVAL for any option but 0. */
HZ4_EXPORT int
malloc_info(int options, FILE *stream)
{
	struct hz4_info i;
	int n, state;

	if (options != 0)
		return EINVAL;
	hz4_info_get(&i);
	/* None of these calls is a point of cancellation. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	n = fprintf(stream,
		    "<malloc version=\"1\">\n"
		    "<allocator name=\"hz4\" version=\"%s\" flavour=\"%s\"/>\n"
		    "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n"
		    "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n"
		    "<total type=\"live\" count=\"%zu\" size=\"%zu\"/>\n"
		    "<total type=\"cached\" count=\"%zu\" size=\"%zu\"/>\n"
		    "<system type=\"current\" size=\"%zu\"/>\n"
		    "<system type=\"metadata\" size=\"%zu\"/>\n"
		    "<free type=\"pages\" size=\"%zu\"/>\n"
		    "<free type=\"resident\" size=\"%zu\"/>\n"
		    "</malloc>\n",
		    PACKAGE_VERSION, hz4_info_flavour(), i.spans,
		    i.in_spans + i.free_pages, i.mappings, i.mapping_bytes,
		    i.live_objects, i.live, i.cached_objects, i.cached,
		    i.mapped, i.metadata, i.free_pages, i.dirty_pages);
	pthread_setcancelstate(state, NULL);
	return n < 0 ? -1 : 0;
}

/* On stderr glibc's lines, then all figures: "name value". */
HZ4_EXPORT void
malloc_stats(void)
{
	hz4_info_print(STDERR_FILENO);
}

/*
 * glibc's names for the same functions.  Programs that wrap malloc call
 * them; were they glibc's own, two heaps would mix.
 */
#if __has_attribute(copy)
#define TWIN(name) HZ4_EXPORT __attribute__((alias(#name), copy(name)))
#else
#define TWIN(name) HZ4_EXPORT __attribute__((alias(#name)))
#endif

void *__libc_malloc(size_t size) TWIN(malloc);
void __libc_free(void *p) TWIN(free);
void *__libc_calloc(size_t n, size_t size) TWIN(calloc);
void *__libc_realloc(void *p, size_t size) TWIN(realloc);
void *__libc_memalign(size_t align, size_t size) TWIN(memalign);
void *__libc_valloc(size_t size) TWIN(valloc);
void *__libc_pvalloc(size_t size) TWIN(pvalloc);
int __posix_memalign(void **result, size_t align, size_t size)
	TWIN(posix_memalign);
