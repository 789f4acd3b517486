/*
 * os.h: mappings, their alignment, growth, moves and purges, and errno,
 * which none of the calls may change.
 */
#include "unit.h"

#include "os.h"
#include "tune.h"

#include <sched.h>
#include <sys/mman.h>

enum { KIB = 1024, MIB = 1024 * 1024, ERRNO = 4711 };

static size_t page;

static void
start(void)
{
	hz4_os_init();
	page = hz4_os_page;
	errno = ERRNO;
}

/* Whether all of a range is mapped. */
static bool
is_mapped(void *p, size_t size)
{
	int saved = errno;
	bool mapped = msync(p, size, MS_ASYNC) == 0;

	errno = saved;
	return mapped;
}

/* Bytes of address space of this process. */
static size_t
space(void)
{
	char line[256];
	size_t total = 0;
	unsigned long from, to;
	FILE *maps = fopen("/proc/self/maps", "r");

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof line, maps) != NULL)
		if (sscanf(line, "%lx-%lx", &from, &to) == 2)
			total += to - from;
	fclose(maps);
	return total;
}

static void
touch(void *p)
{
	*(volatile char *)p = 1;
}

/* A closed page before it and one behind it. */
START_TEST(map_guarded)
{
	unsigned i;
	char *p;

	start();
	for (i = 0; i < 3; i++) {
		p = hz4_os_map_guarded(2 * page - i);
		ck_assert_ptr_nonnull(p);
		ck_assert(unit_all(p, 2 * page, 0));
		memset(p, 1, 2 * page);
		unit_no_access(touch, p - 1);
		unit_no_access(touch, p + 2 * page);
	}
}
END_TEST

START_TEST(page_size_is_the_kernels)
{
	hz4_os_init();
	ck_assert_uint_eq(hz4_os_page, (size_t)sysconf(_SC_PAGESIZE));
}
END_TEST

START_TEST(pretended_page_size)
{
	static const size_t refused[] = { 0, 1, 3, 5000, 12288, SIZE_MAX };
	unsigned i;

	start();
	for (i = 0; i < sizeof refused / sizeof *refused; i++) {
		hz4_os_pretend_page(refused[i]);
		ck_assert_uint_eq(hz4_os_page, page);
	}
	hz4_os_pretend_page(page / 2);
	ck_assert_uint_eq(hz4_os_page, page);
	hz4_os_pretend_page(2 * (size_t)HZ4_PAGE);
	ck_assert_uint_eq(hz4_os_page, page);
	hz4_os_pretend_page(page);
	ck_assert_uint_eq(hz4_os_page, page);
	hz4_os_pretend_page(HZ4_PAGE);
	ck_assert_uint_eq(hz4_os_page, HZ4_PAGE);
}
END_TEST

/* A page that the kernel knows nothing of: it aligns to its own alone. */
START_TEST(mappings_of_a_pretended_page)
{
	enum { N = 64 };
	size_t size[N];
	char *p[N];
	unsigned i;

	start();
	hz4_os_pretend_page(HZ4_PAGE);
	for (i = 0; i < N; i++) {
		/* The next one is not aligned to more than the kernel's. */
		ck_assert_ptr_nonnull(hz4_os_map(page, page));
		size[i] = (i % 5 + 1) * (size_t)HZ4_PAGE;
		p[i] = hz4_os_map(size[i], (size_t)HZ4_PAGE << i % 3);
		ck_assert_ptr_nonnull(p[i]);
		ck_assert_uint_eq((uintptr_t)p[i] % HZ4_PAGE, 0);
		ck_assert(is_mapped(p[i], size[i]));
		memset(p[i], (int)i, size[i]);
	}
	for (i = 0; i < N; i++)
		ck_assert(unit_all(p[i], size[i], (unsigned char)i));
	for (i = 0; i < N; i++)
		ck_assert(hz4_os_unmap(p[i], size[i]));
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

/* Every alignment, with sizes below, at and above it. */
START_TEST(alignments)
{
	size_t align, size, before;
	unsigned i;
	char *p;

	start();
	before = space();
	for (align = page; align <= (size_t)256 * MIB; align *= 2)
		for (i = 0; i < 3; i++) {
			size = i == 0 ? page : i == 1 ? align : align + page;
			p = hz4_os_map(size, align);
			unit_need(p != NULL, "%zu to %zu", size, align);
			unit_need((uintptr_t)p % align == 0, "%p to %zu",
				  (void *)p, align);
			unit_need(p[0] == 0 && p[size - 1] == 0, "%zu", size);
			p[0] = p[size - 1] = 1;
			ck_assert(hz4_os_unmap(p, size));
			ck_assert(!is_mapped(p, page));
		}
	/* What was mapped too much for the alignment is gone too. */
	ck_assert_uint_le(space(), before + 256 * KIB);
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(fresh_memory_is_zero)
{
	unsigned char *p;
	unsigned i;

	start();
	for (i = 0; i < 16; i++) {
		p = hz4_os_map(MIB, page);
		ck_assert(unit_all(p, MIB, 0));
		memset(p, 0xa5, MIB);
		ck_assert(hz4_os_unmap(p, MIB));
	}
}
END_TEST

START_TEST(too_much_is_null)
{
	start();
	unit_narrow();
	errno = ERRNO;
	ck_assert_ptr_null(hz4_os_map(SIZE_MAX / 2 / MIB * MIB, page));
	ck_assert_ptr_null(hz4_os_map(SIZE_MAX / 2 / MIB * MIB, MIB));
	ck_assert_ptr_null(hz4_os_map(SIZE_MAX - MIB + 1, MIB));
	ck_assert_ptr_null(hz4_os_map(MIB, SIZE_MAX / 2 + 1));
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

/* Only where nothing is; what was there stays. */
START_TEST(mapped_at_a_place)
{
	char *p;

	start();
	p = hz4_os_map(4 * page, page);
	ck_assert_ptr_nonnull(p);
	memset(p, 1, 4 * page);
	ck_assert(!hz4_os_map_at(p, page));
	ck_assert(hz4_os_unmap(p + page, 2 * page));
	ck_assert(!hz4_os_map_at(p, 3 * page));
	ck_assert(!hz4_os_map_at(p + 2 * page, 2 * page));
	ck_assert(unit_all(p, page, 1));
	ck_assert(unit_all(p + 3 * page, page, 1));
	ck_assert(hz4_os_map_at(p + page, 2 * page));
	ck_assert(unit_all(p + page, 2 * page, 0));
	memset(p + page, 1, 2 * page);
	ck_assert(hz4_os_unmap(p, 4 * page));
}
END_TEST

START_TEST(resize_in_place)
{
	unsigned char *p;

	start();
	p = hz4_os_map(8 * page, page);
	memset(p, 0xa5, 8 * page);
	ck_assert_int_eq(hz4_os_resize(p, 8 * page, 2 * page),
			 HZ4_RESIZED);
	ck_assert(unit_all(p, 2 * page, 0xa5));
	ck_assert(!is_mapped(p + 2 * page, page));
	/* The place behind is free now: what comes back is zeroed. */
	ck_assert_int_eq(hz4_os_resize(p, 2 * page, 8 * page),
			 HZ4_RESIZED);
	ck_assert(unit_all(p, 2 * page, 0xa5));
	ck_assert(unit_all(p + 2 * page, 6 * page, 0));
	/* Not over a neighbour, here the second half itself. */
	p[4 * page] = 1;
	ck_assert_int_eq(hz4_os_resize(p, 4 * page, 8 * page),
			 HZ4_NO_ROOM);
	ck_assert(unit_all(p, 2 * page, 0xa5));
	ck_assert_uint_eq(p[4 * page], 1);
	ck_assert_int_eq(errno, ERRNO);
	ck_assert(hz4_os_unmap(p, 8 * page));
}
END_TEST

START_TEST(move_keeps_contents)
{
	size_t align = 4 * MIB, size = 3 * MIB, i;
	size_t before;
	uint32_t *p, *q;

	start();
	before = space();
	p = hz4_os_map(size, align);
	for (i = 0; i < size / sizeof *p; i++)
		p[i] = (uint32_t)i;
	q = hz4_os_reserve(2 * size, align);
	ck_assert_ptr_nonnull(q);
	ck_assert(hz4_os_move(p, size, q, 2 * size));
	ck_assert_ptr_ne(q, p);
	ck_assert_uint_eq((uintptr_t)q % align, 0);
	ck_assert(!is_mapped(p, size));
	for (i = 0; i < size / sizeof *q; i++)
		unit_need(q[i] == i, "at %zu", i);
	ck_assert(unit_all((char *)q + size, size, 0));
	q[2 * size / sizeof *q - 1] = 1;
	ck_assert(hz4_os_unmap(q, 2 * size));
	ck_assert_uint_le(space(), before + 256 * KIB);
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(refused_move_changes_nothing)
{
	size_t before;
	char *p;

	start();
	p = hz4_os_map(MIB, MIB);
	memset(p, 0xa5, MIB);
	unit_narrow();
	errno = ERRNO;
	before = space();
	ck_assert_ptr_null(hz4_os_reserve(SIZE_MAX / 2 / MIB * MIB, MIB));
	ck_assert_uint_le(space(), before + 256 * KIB);
	/*
	 * A hole in the old range: the kernel refuses when the new one is
	 * made, and may leave that behind.
	 */
	ck_assert(hz4_os_unmap(p + 2 * page, page));
	ck_assert(!hz4_os_move(p, MIB, hz4_os_reserve(2 * MIB, MIB), 2 * MIB));
	ck_assert(unit_all(p, 2 * page, 0xa5));
	ck_assert(unit_all(p + 3 * page, MIB - 3 * page, 0xa5));
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(purge_makes_zeros)
{
	unsigned char *p;

	start();
	p = hz4_os_map(8 * page, page);
	memset(p, 0xa5, 8 * page);
	ck_assert(hz4_os_purge(p + page, 6 * page, false));
	ck_assert(unit_all(p, page, 0xa5));
	ck_assert(unit_all(p + page, 6 * page, 0));
	ck_assert(unit_all(p + 7 * page, page, 0xa5));
	/* Lazily the old bytes may stay, but the memory is usable. */
	memset(p, 0xa5, 8 * page);
	hz4_os_purge(p, 8 * page, true);
	memset(p, 0x5a, 8 * page);
	ck_assert(unit_all(p, 8 * page, 0x5a));
	ck_assert(hz4_os_unmap(p, 8 * page));
	/* qemu-user answers madvise() of nothing as if all were well. */
	if (!unit_emulated()) {
		ck_assert(!hz4_os_purge(p, 8 * page, false));
		ck_assert(!hz4_os_purge(p, 8 * page, true));
	}
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(pinned_pages_are_known)
{
	char *p;

	start();
	p = hz4_os_map(4 * page, page);
	ck_assert(!hz4_os_is_pinned(p));
	ck_assert(!hz4_os_pins_new(true));
	/* Not by name: sanitizers make nothing of mlock. */
	if (!unit_emulated() && syscall(SYS_mlock, p, page) == 0) {
		errno = ERRNO;
		ck_assert(hz4_os_is_pinned(p));
		ck_assert(!hz4_os_is_pinned(p + page));
		ck_assert(!hz4_os_purge(p, page, false));
		ck_assert_int_eq(errno, ERRNO);
	}
	if (!unit_emulated() && syscall(SYS_mlockall, MCL_FUTURE) == 0) {
		errno = ERRNO;
		ck_assert(hz4_os_pins_new(false));
	}
	errno = ERRNO;
	hz4_os_unmap(p, 4 * page);
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(refusals_keep_errno)
{
	char *p;

	start();
	p = hz4_os_map(page, page);
	ck_assert(!hz4_os_unmap(p + 1, page));
	ck_assert(!hz4_os_purge(p + 1, page, false));
	ck_assert_int_eq(hz4_os_resize(p + 1, page, 2 * page), HZ4_NOT_ONE);
	ck_assert(!hz4_os_advise_huge(p + 1, page, true));
	hz4_os_advise_huge(p, page, true);
	hz4_os_advise_huge(p, page, false);
	ck_assert(!hz4_os_protect(p + 1, page, false));
	ck_assert(!hz4_os_populate(p + 1, page));
	ck_assert_int_eq(errno, ERRNO);
	ck_assert(hz4_os_unmap(p, page));
}
END_TEST

/* Leave a stack behind whose words are not 0, as other calls may. */
static __attribute__((noinline)) void
use_stack(void)
{
	volatile unsigned char words[8 * KIB];
	size_t i;

	for (i = 0; i < sizeof words; i++)
		words[i] = 0x77;
}

START_TEST(file_from_its_start)
{
	const char text[] = "what the file says";
	char got[sizeof text];
	int fd = memfd_create("file", MFD_CLOEXEC);
	char *p;

	start();
	ck_assert_int_eq(write(fd, text, sizeof text), sizeof text);
	use_stack();
	p = hz4_os_map_file(fd, sizeof text);
	ck_assert_ptr_nonnull(p);
	ck_assert_mem_eq(p, text, sizeof text);
	/* Shared: what is written there is in the file. */
	p[0] = 'W';
	ck_assert_int_eq(pread(fd, got, sizeof got, 0), sizeof got);
	ck_assert_int_eq(got[0], 'W');
	ck_assert(hz4_os_unmap(p, sizeof text));
	close(fd);
	/* And the one function that tells why. */
	ck_assert_ptr_null(hz4_os_map_file(fd, sizeof text));
	ck_assert_int_eq(errno, EBADF);
}
END_TEST

START_TEST(clock_goes_on)
{
	struct timespec t;
	uint64_t a, b, exact;

	start();
	a = hz4_os_now();
	clock_gettime(CLOCK_MONOTONIC, &t);
	exact = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	ck_assert_uint_le(a, exact);
	ck_assert_uint_le(exact - a, 1000);
	unit_sleep(30);
	b = hz4_os_now();
	ck_assert_uint_ge(b, a + 10);
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(memory_of_the_machine)
{
	uint64_t memory;
	size_t least, most;

	start();
	memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * page;
	/* A program of 32 bits is told no more than it can address. */
	least = memory / 2 < SIZE_MAX ? (size_t)(memory / 2) : SIZE_MAX;
	most = memory * 2 < SIZE_MAX ? (size_t)(memory * 2) : SIZE_MAX;
	errno = ERRNO;
	ck_assert_uint_ge(hz4_os_memory(), least);
	ck_assert_uint_le(hz4_os_memory(), most);
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(injected_failures)
{
	char *p;

	start();
	hz4_os_fail_from(3);
	if (!HZ4_DEBUG_BOX) {
		for (int i = 0; i < 5; i++) {
			p = hz4_os_map(page, page);
			ck_assert_ptr_nonnull(p);
			ck_assert(hz4_os_unmap(p, page));
		}
		return;
	}
	p = hz4_os_map(page, page);
	ck_assert_ptr_nonnull(p);
	ck_assert_ptr_nonnull(hz4_os_map(page, page));
	ck_assert_ptr_null(hz4_os_map(page, page));
	ck_assert(!hz4_os_unmap(p, page));
	ck_assert(!hz4_os_purge(p, page, false));
	ck_assert_int_eq(hz4_os_resize(p, page, 2 * page), HZ4_NO_ROOM);
	ck_assert_ptr_null(hz4_os_reserve(page, page));
	ck_assert(!hz4_os_move(p, page, p, 2 * page));
	*p = 1;
	hz4_os_fail_from(0);
	ck_assert(hz4_os_unmap(p, page));
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

START_TEST(cpus_are_those_of_the_process)
{
	cpu_set_t set;
	unsigned before;

	ck_assert_uint_ge(hz4_os_cpus(), 1);
	ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
	start();
	ck_assert_int_eq((int)hz4_os_cpus(), CPU_COUNT(&set));
	/* Asked at the start: what comes later does not count. */
	CPU_ZERO(&set);
	CPU_SET((size_t)sched_getcpu(), &set);
	before = hz4_os_cpus();
	ck_assert_int_eq(sched_setaffinity(0, sizeof set, &set), 0);
	ck_assert_uint_eq(hz4_os_cpus(), before);
	errno = ERRNO;
	hz4_os_yield();
	ck_assert_int_eq(errno, ERRNO);
}
END_TEST

static void
add(TCase *t)
{
	tcase_add_test(t, map_guarded);
	tcase_add_test(t, page_size_is_the_kernels);
	tcase_add_test(t, pretended_page_size);
	tcase_add_test(t, mappings_of_a_pretended_page);
	tcase_add_test(t, alignments);
	tcase_add_test(t, fresh_memory_is_zero);
	tcase_add_test(t, too_much_is_null);
	tcase_add_test(t, mapped_at_a_place);
	tcase_add_test(t, resize_in_place);
	tcase_add_test(t, move_keeps_contents);
	tcase_add_test(t, refused_move_changes_nothing);
	tcase_add_test(t, purge_makes_zeros);
	tcase_add_test(t, pinned_pages_are_known);
	tcase_add_test(t, refusals_keep_errno);
	tcase_add_test(t, file_from_its_start);
	tcase_add_test(t, clock_goes_on);
	tcase_add_test(t, memory_of_the_machine);
	tcase_add_test(t, cpus_are_those_of_the_process);
	tcase_add_test(t, injected_failures);
}

int
main(void)
{
	return unit_main("os", add);
}
