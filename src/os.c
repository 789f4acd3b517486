/*
 * os.c - memory from and to the kernel.
 */
#include "os.h"

#include "clock.h"
#include "probe.h"
#include "sys.h"
#include "tune.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* 32-bit kernels count mmap's offset in pages; it is always 0 here. */
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

/* What the machine has, asked for at the start.  [const] after that */
static size_t memory = SIZE_MAX;
static unsigned cpus = 1;

/* As many as any kernel is built for. */
enum { MOST_CPUS = 8192, WORDS = MOST_CPUS / (CHAR_BIT * sizeof(long)) };

static unsigned
count_cpus(void)
{
	/* Not on the stack: the first call may be made on a small one. */
	static unsigned long mask[WORDS];
	long bytes, i;
	unsigned n = 0;

	bytes = hz4_syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
	for (i = 0; i < bytes / (long)sizeof mask[0]; i++)
		n += (unsigned)__builtin_popcountl(mask[i]);
	return n > 0 ? n : MOST_CPUS;
}

static size_t
find_memory(void)
{
	struct sysinfo info;
	uint64_t bytes;

	if (hz4_syscall(SYS_sysinfo, &info) != 0)
		return SIZE_MAX;
	bytes = (uint64_t)info.totalram * info.mem_unit;
	return bytes > SIZE_MAX ? SIZE_MAX : (size_t)bytes;
}

void
hz4_os_init(void)
{
	unsigned long page = getauxval(AT_PAGESZ);
	int saved = errno;

	if (hz4_is_pow2(page))
		hz4_os_page = kernel_page = page;
	memory = find_memory();
	cpus = count_cpus();
	errno = saved;
}

size_t
hz4_os_memory(void)
{
	return memory;
}

unsigned
hz4_os_cpus(void)
{
	return cpus;
}

void
hz4_os_pretend_page(size_t page)
{
	if (hz4_is_pow2(page) && page >= hz4_os_page && page <= HZ4_PAGE)
		hz4_os_page = page;
}

#ifdef __s390__
/* There the call takes its arguments in memory. */
static long
call_map(void *at, size_t size, int prot, int flags)
{
	const long arguments[] = { (long)at, (long)size, prot, flags, -1, 0 };

	return hz4_syscall(SYS_MAP, arguments);
}
#else
static long
call_map(void *at, size_t size, int prot, int flags)
{
	return hz4_syscall(SYS_MAP, at, size, prot, flags, -1);
}
#endif

static void *
map(void *at, size_t size, int prot, int flags)
{
	int saved = errno;
	long r;

	if (injected_failure())
		return NULL;
	flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	r = call_map(at, size, prot, flags);
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
	r = hz4_syscall(SYS_munmap, p, size);
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
	r = hz4_syscall(SYS_madvise, p, size, advice);
	errno = saved;
	return r == 0;
}

/*
 * Map more than needed and cut what lies outside.  A cut that fails leaves
 * address space behind that nothing has touched.
 */
static void *
map_and_cut(size_t size, size_t align, int prot, int flags)
{
	size_t room = size + align - kernel_page;
	char *p, *start, *end;

	if (room < size)
		return NULL;
	p = map(NULL, room, prot, flags);
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
map_aligned(size_t size, size_t align, int prot, int flags)
{
	char *p = map(NULL, size, prot, flags);

	if (p == NULL || ((uintptr_t)p & (align - 1)) == 0)
		return p;
	unmap(p, size);
	return map_and_cut(size, align, prot, flags);
}

void *
hz4_os_map(size_t size, size_t align)
{
	return map_aligned(size, align, PROT_READ | PROT_WRITE, MAP_NORESERVE);
}

void *
hz4_os_map_counted(size_t size, size_t align)
{
	return map_aligned(size, align, PROT_READ | PROT_WRITE, 0);
}

/* Kernels that do not know the flag take the address for a hint. */
bool
hz4_os_map_at(void *at, size_t size)
{
	void *p = map(at, size, PROT_READ | PROT_WRITE,
		      MAP_NORESERVE | MAP_FIXED_NOREPLACE);

	if (p == at)
		return true;
	if (p != NULL)
		unmap(p, size);
	return false;
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

/* Before hz4_os_init, maybe beside it; the kernel rounds the length up. */
void *
hz4_os_map_wiped(void)
{
	const size_t size = 1;
	void *p = map(NULL, size, PROT_READ | PROT_WRITE, 0);

	if (p == NULL || advise(p, size, MADV_WIPEONFORK))
		return p;
	unmap(p, size);
	return NULL;
}

/* Neither a link nor something that one would wait for. */
int
hz4_os_open(const char *path)
{
	return (int)hz4_syscall(SYS_openat, AT_FDCWD, path,
				O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY |
					O_CLOEXEC);
}

int
hz4_os_create(const char *path)
{
	return (int)hz4_syscall(SYS_openat, AT_FDCWD, path,
				O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW |
					O_CLOEXEC,
				0600);
}

void
hz4_os_close(int fd)
{
	int saved = errno;

	hz4_syscall(SYS_close, fd);
	errno = saved;
}

bool
hz4_os_extend(int fd, const char *text, size_t n)
{
	struct rlimit limit;
	off_t end = lseek(fd, 0, SEEK_CUR);

	if (end != -1 && getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
	    limit.rlim_cur != RLIM_INFINITY &&
	    (uint64_t)end + n > limit.rlim_cur) {
		errno = EFBIG;
		return false;
	}
	return hz4_os_write(fd, text, n);
}

bool
hz4_os_write(int fd, const char *text, size_t n)
{
	long r;

	while (n > 0) {
		r = hz4_syscall(SYS_write, fd, text, n);
		if (r == -1 && errno == EINTR)
			continue;
		if (r <= 0)
			return false;
		text += r;
		n -= (size_t)r;
	}
	return true;
}

long
hz4_os_read_some(int fd, void *to, size_t n)
{
	long r;

	do
		r = hz4_syscall(SYS_read, fd, to, n);
	while (r == -1 && errno == EINTR);
	return r;
}

bool
hz4_os_read(int fd, void *to, size_t n)
{
	return hz4_os_read_some(fd, to, n) == (long)n;
}

void *
hz4_os_map_file(int fd, size_t size)
{
	long r = hz4_syscall(SYS_MAP, NULL, size, PROT_READ | PROT_WRITE,
			     MAP_SHARED, fd);

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
	if (hz4_syscall(SYS_mremap, p, size, new_size, flags, to) == -1)
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
	return map_aligned(size, align, PROT_NONE, MAP_NORESERVE);
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
	HZ4_PROBE2(purge, p, size);
	return advise(p, size, lazy ? MADV_FREE : MADV_DONTNEED);
}

/* No injected failure: this is a question. */
bool
hz4_os_is_pinned(void *p)
{
	int saved = errno;
	bool pinned;

	pinned = hz4_syscall(SYS_madvise, p, kernel_page, MADV_DONTNEED) != 0 &&
		 errno == EINVAL;
	errno = saved;
	return pinned;
}

bool
hz4_os_pins_new(bool otherwise)
{
	int saved = errno;
	long r = hz4_syscall(SYS_MAP, NULL, kernel_page, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (r != -1) {
		otherwise = hz4_os_is_pinned((void *)r);
		hz4_syscall(SYS_munmap, r, kernel_page);
	}
	errno = saved;
	return otherwise;
}

bool
hz4_os_populate(void *p, size_t size)
{
	return advise(p, size, MADV_POPULATE_WRITE);
}

bool
hz4_os_protect(void *p, size_t size, bool access)
{
	int saved = errno;
	long r;

	if (injected_failure())
		return false;
	r = hz4_syscall(SYS_mprotect, p, size,
			access ? PROT_READ | PROT_WRITE : PROT_NONE);
	errno = saved;
	return r == 0;
}

bool
hz4_os_advise_huge(void *p, size_t size, bool huge)
{
	return advise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

static uint64_t
microseconds(clockid_t clock)
{
	struct timespec t;

	if (hz4_clock(clock, &t) != 0)
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

void
hz4_os_yield(void)
{
	int saved = errno;

	hz4_syscall(SYS_sched_yield, 0);
	errno = saved;
}
