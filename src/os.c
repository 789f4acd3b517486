/*
 * os.c - memory from and to the kernel.
 */
#include "os.h"

#include "tune.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/*
 * 32-bit kernels count mmap's offset in pages; it is always 0 here, and a
 * long: syscall() takes it from the stack, where of an int half a word is
 * whatever was there before.
 */
#ifdef SYS_mmap2
#define SYS_MAP SYS_mmap2
#else
#define SYS_MAP SYS_mmap
#endif

size_t hz4_os_page = 4096;

/* What mappings are aligned to, whatever hz4_os_page pretends. */
static size_t kernel_page = 4096;

/* Debug builds: calls left until they fail, 0 = never. [atomic] relaxed */
static _Atomic unsigned long fail_from;

void
hz4_os_fail_from(unsigned long n)
{
	hz4_poke(&fail_from, n);
}

static bool
injected_failure(void)
{
	unsigned long n;

	if (!HZ4_DEBUG_BOX)
		return false;
	n = hz4_peek(&fail_from);
	if (n > 1)
		hz4_poke(&fail_from, n - 1);
	return n == 1;
}

void
hz4_os_init(void)
{
	unsigned long page = getauxval(AT_PAGESZ);

	if (hz4_is_pow2(page))
		hz4_os_page = kernel_page = page;
}

void
hz4_os_pretend_page(size_t page)
{
	if (hz4_is_pow2(page) && page >= hz4_os_page && page <= HZ4_PAGE)
		hz4_os_page = page;
}

static void *
map(void *at, size_t size, int prot, int flags)
{
	int saved = errno;
	long r;

	if (injected_failure())
		return NULL;
	r = syscall(SYS_MAP, at, size, prot,
		    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0L);
	errno = saved;
	return r == -1 ? NULL : (void *)r;
}

static bool
unmap(void *p, size_t size)
{
	int saved = errno;
	long r;

	if (injected_failure())
		return false;
	r = syscall(SYS_munmap, p, size);
	errno = saved;
	return r == 0;
}

static bool
advise(void *p, size_t size, int advice)
{
	int saved = errno;
	long r;

	if (injected_failure())
		return false;
	r = syscall(SYS_madvise, p, size, advice);
	errno = saved;
	return r == 0;
}

/*
 * Map more than needed and cut what lies outside.  A cut that fails leaves
 * address space behind that nothing has touched.
 */
static void *
map_and_cut(size_t size, size_t align, int prot)
{
	size_t room = size + align - kernel_page;
	char *p, *start, *end;

	if (room < size)
		return NULL;
	p = map(NULL, room, prot, MAP_NORESERVE);
	if (p == NULL)
		return NULL;
	start = (char *)hz4_round_up((uintptr_t)p, align);
	end = start + size;
	if (start != p)
		unmap(p, (size_t)(start - p));
	if (end != p + room)
		unmap(end, (size_t)(p + room - end));
	return start;
}

static void *
map_aligned(size_t size, size_t align, int prot)
{
	char *p = map(NULL, size, prot, MAP_NORESERVE);

	if (p == NULL || ((uintptr_t)p & (align - 1)) == 0)
		return p;
	unmap(p, size);
	return map_and_cut(size, align, prot);
}

void *
hz4_os_map(size_t size, size_t align)
{
	return map_aligned(size, align, PROT_READ | PROT_WRITE);
}

void *
hz4_os_map_guarded(size_t size)
{
	size_t room;
	char *p;

	size = hz4_round_up(size, hz4_os_page);
	room = size + 2 * hz4_os_page;
	p = map(NULL, room, PROT_NONE, MAP_NORESERVE);
	if (p != NULL) {
		if (hz4_os_protect(p + hz4_os_page, size, true))
			return p + hz4_os_page;
		unmap(p, room);
	}
	return hz4_os_map(size, hz4_os_page);
}

void *
hz4_os_map_wiped(void)
{
	void *p = map(NULL, hz4_os_page, PROT_READ | PROT_WRITE, 0);

	if (p == NULL || advise(p, hz4_os_page, MADV_WIPEONFORK))
		return p;
	unmap(p, hz4_os_page);
	return NULL;
}

void *
hz4_os_map_file(int fd, size_t size)
{
	long r = syscall(SYS_MAP, NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED, fd, 0L);

	return r == -1 ? NULL : (void *)r;
}

bool
hz4_os_unmap(void *p, size_t size)
{
	return unmap(p, size);
}

static enum hz4_resized
remap(void *p, size_t size, size_t new_size, int flags, void *to)
{
	enum hz4_resized done = HZ4_RESIZED;
	int saved = errno;

	if (injected_failure())
		return HZ4_NO_ROOM;
	if (syscall(SYS_mremap, p, size, new_size, flags, to) == -1)
		done = errno == ENOMEM ? HZ4_NO_ROOM : HZ4_NOT_ONE;
	errno = saved;
	return done;
}

enum hz4_resized
hz4_os_resize(void *p, size_t size, size_t new_size)
{
	return remap(p, size, new_size, 0, NULL);
}

void *
hz4_os_reserve(size_t size, size_t align)
{
	return map_aligned(size, align, PROT_NONE);
}

bool
hz4_os_move(void *p, size_t size, void *to, size_t new_size)
{
	return remap(p, size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
	       HZ4_RESIZED;
}

bool
hz4_os_purge(void *p, size_t size, bool lazy)
{
	return advise(p, size, lazy ? MADV_FREE : MADV_DONTNEED);
}

/* The kernel may know the call. [atomic] relaxed: a hint */
static _Atomic bool populates = true;

void
hz4_os_populate(void *p, size_t size)
{
	int saved = errno;

	if (!hz4_peek(&populates) || injected_failure())
		return;
	if (syscall(SYS_madvise, p, size, MADV_POPULATE_WRITE) != 0 &&
	    (errno == EINVAL || errno == ENOSYS || errno == EPERM))
		hz4_poke(&populates, false);
	errno = saved;
}

bool
hz4_os_protect(void *p, size_t size, bool access)
{
	int saved = errno;
	long r;

	if (injected_failure())
		return false;
	r = syscall(SYS_mprotect, p, size,
		    access ? PROT_READ | PROT_WRITE : PROT_NONE);
	errno = saved;
	return r == 0;
}

/* The kernel gives no huge pages.  [atomic] relaxed: written once */
static _Atomic bool no_huge_pages;

bool
hz4_os_advise_huge(void *p, size_t size, bool huge)
{
	if (huge && hz4_peek(&no_huge_pages))
		return false;
	return advise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

static uint64_t
microseconds(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t) != 0)
		return 0;
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t
hz4_os_now(void)
{
	return microseconds(CLOCK_MONOTONIC_COARSE) / 1000;
}

uint64_t
hz4_os_now_us(void)
{
	return microseconds(CLOCK_MONOTONIC);
}

uint64_t
hz4_os_cpu_us(void)
{
	return microseconds(CLOCK_THREAD_CPUTIME_ID);
}

/* [atomic] relaxed: once the machine's, once the group's */
static _Atomic uint64_t memory_limit;

size_t
hz4_os_memory(void)
{
	uint64_t memory = hz4_peek(&memory_limit);
	struct sysinfo info;
	int saved = errno;

	if (memory == 0) {
		if (syscall(SYS_sysinfo, &info) != 0)
			memory = SIZE_MAX;
		else
			memory = (uint64_t)info.totalram * info.mem_unit;
		errno = saved;
		hz4_poke(&memory_limit, memory);
	}
	return memory > SIZE_MAX ? SIZE_MAX : (size_t)memory;
}

/* The start of a file, as a string.  False when it cannot be read. */
static bool
read_file(const char *path, char *text, size_t size)
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	long n;

	if (fd < 0)
		return false;
	n = syscall(SYS_read, (int)fd, text, size - 1);
	syscall(SYS_close, (int)fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* The limit of control group `group` (version 2), 0 when there is none. */
static uint64_t
group_limit(const char *group)
{
	char path[512], text[32];
	uint64_t limit = 0;
	int n, i;

	n = snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
	if (n < 0 || (size_t)n >= sizeof path ||
	    !read_file(path, text, sizeof text))
		return 0;
	for (i = 0; text[i] >= '0' && text[i] <= '9'; i++)
		limit = limit * 10 + (uint64_t)(text[i] - '0');
	return limit;
}

static void
read_limit(void)
{
	char text[512], *group, *end;
	uint64_t memory = hz4_os_memory(), limit;

	/* In a container the group is the root of what can be seen. */
	limit = group_limit("");
	if (limit == 0 && read_file("/proc/self/cgroup", text, sizeof text)) {
		group = strstr(text, "0::/");
		end = group ? strchr(group, '\n') : NULL;
		/* That of the root is the one above. */
		if (end != NULL && end > group + 4) {
			*end = '\0';
			limit = group_limit(group + 3);
		}
	}
	if (limit != 0 && limit < memory)
		hz4_poke(&memory_limit, limit);
}

void
hz4_os_read_files(void)
{
	static _Atomic bool seen; /* [atomic] relaxed: twice does no harm */
	char text[64];
	int saved = errno;

	if (hz4_peek(&seen))
		return;
	hz4_poke(&seen, true);
	read_limit();
	if (read_file("/sys/kernel/mm/transparent_hugepage/enabled", text,
		      sizeof text))
		hz4_poke(&no_huge_pages, strstr(text, "[never]") != NULL);
	errno = saved;
}

/* As many as any kernel is built for. */
enum { MOST_CPUS = 8192, WORDS = MOST_CPUS / (CHAR_BIT * sizeof(long)) };

/* CPUs that the process may run on, 0 until asked. [atomic] relaxed */
static _Atomic unsigned cpus;

/* The first thread's: the one that asks may be bound to a CPU. */
static unsigned
count_cpus(void)
{
	long process = syscall(SYS_getpid);
	unsigned long mask[WORDS];
	long bytes, i;
	unsigned n = 0;

	bytes = syscall(SYS_sched_getaffinity, process, sizeof mask, mask);
	for (i = 0; i < bytes / (long)sizeof mask[0]; i++)
		n += (unsigned)__builtin_popcountl(mask[i]);
	return n > 0 ? n : MOST_CPUS;
}

unsigned
hz4_os_cpus(void)
{
	int saved = errno;

	if (hz4_peek(&cpus) == 0)
		hz4_poke(&cpus, count_cpus());
	errno = saved;
	return hz4_peek(&cpus);
}

void
hz4_os_yield(void)
{
	int saved = errno;

	syscall(SYS_sched_yield);
	errno = saved;
}
