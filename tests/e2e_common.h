/*
 * What the end-to-end tests share: seed and scale from the environment, a
 * random stream, patterns to fill objects with, memory figures of the
 * process, children with a time limit.
 *
 * These programs see libc's malloc interface and nothing else, so that they
 * run on any allocator: linked with -lhz4, preloaded, or on libc's own.
 * Nothing in this file allocates.
 *
 * Environment:
 *   HZ4_TEST_SEED       seed of every random stream (default is fixed)
 *   HZ4_TEST_SCALE      how many times the usual work (default 1)
 *   HZ4_TEST_EMULATED   name of the emulator that runs the program: what it
 *                       cannot do is left out, with the reason beside it
 *   HZ4_TEST_ALLOCATOR  "hz4" where the tests cannot see it for themselves
 *                       (a static link without hz4's own names)
 */
#ifndef HZ4_E2E_COMMON_H
#define HZ4_E2E_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define E2E_UNUSED __attribute__((unused))

#ifdef __cplusplus
#define E2E_EXTERN_C extern "C"
#else
#define E2E_EXTERN_C extern
#endif

enum {
	E2E_KIB = 1024,
	E2E_MIB = 1024 * 1024,
	E2E_ALIGN = 16,		/* what every block has at least */
	E2E_SKIP = 77,		/* exit status that automake reads as skip */
};

/* Every byte matched. */
#define E2E_SAME SIZE_MAX

/*
 * libc's functions behind volatile pointers.  A compiler knows malloc by its
 * name and drops a pair of malloc and free, folds a NULL test, or warns of a
 * size that is wrong on purpose; it can do none of that here.
 */
E2E_UNUSED static void *(*volatile e2e_malloc)(size_t) = malloc;
E2E_UNUSED static void (*volatile e2e_free)(void *) = free;
E2E_UNUSED static void *(*volatile e2e_calloc)(size_t, size_t) = calloc;
E2E_UNUSED static void *(*volatile e2e_realloc)(void *, size_t) = realloc;
E2E_UNUSED static void *(*volatile e2e_reallocarray)(void *, size_t, size_t) =
    reallocarray;
E2E_UNUSED static int (*volatile e2e_posix_memalign)(void **, size_t,
    size_t) = posix_memalign;
E2E_UNUSED static void *(*volatile e2e_aligned_alloc)(size_t, size_t) =
    aligned_alloc;
E2E_UNUSED static void *(*volatile e2e_memalign)(size_t, size_t) = memalign;
E2E_UNUSED static void *(*volatile e2e_valloc)(size_t) = valloc;
E2E_UNUSED static void *(*volatile e2e_pvalloc)(size_t) = pvalloc;
E2E_UNUSED static size_t (*volatile e2e_usable)(void *) = malloc_usable_size;
E2E_UNUSED static int (*volatile e2e_trim)(size_t) = malloc_trim;

/* Seen from the program itself when hz4 is linked, shared or static. */
E2E_EXTERN_C const char *hz4_version(void) __attribute__((weak));

/* Is malloc hz4's in this process? */
E2E_UNUSED static bool
e2e_is_hz4(void)
{
	const char *name = getenv("HZ4_TEST_ALLOCATOR");

	if (name != NULL)
		return strcmp(name, "hz4") == 0;
	return hz4_version != NULL || dlsym(RTLD_DEFAULT, "hz4_version");
}

/* Is it an allocator other than hz4 and libc's own? */
E2E_UNUSED static bool
e2e_is_libc(void)
{
	void *p = dlsym(RTLD_DEFAULT, "malloc");
	void *q = dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
	Dl_info a;
	Dl_info b;

	return p != NULL && q != NULL && dladdr(p, &a) != 0 &&
	    dladdr(q, &b) != 0 && a.dli_fbase == b.dli_fbase && !e2e_is_hz4();
}

/* A number of the environment, or `fallback`. */
E2E_UNUSED static uint64_t
e2e_env(const char *name, uint64_t fallback)
{
	const char *s = getenv(name);

	return s != NULL && *s != '\0' ? strtoull(s, NULL, 0) : fallback;
}

E2E_UNUSED static bool
e2e_emulated(void)
{
	return getenv("HZ4_TEST_EMULATED") != NULL;
}

E2E_UNUSED static uint64_t
e2e_seed(void)
{
	return e2e_env("HZ4_TEST_SEED", 20240229);
}

E2E_UNUSED static unsigned
e2e_scale(void)
{
	uint64_t n = e2e_env("HZ4_TEST_SCALE", 1);

	return n == 0 ? 1 : (unsigned)n;
}

/* --- random numbers and patterns ---------------------------------------- */

/* Spread every bit of x over the result; a bijection. */
E2E_UNUSED static uint64_t
e2e_mix(uint64_t x)
{
	x = (x ^ (x >> 31)) * UINT64_C(0x9fb21c651e98df25);
	x = (x ^ (x >> 29)) * UINT64_C(0xd6e8feb86659fd93);
	return x ^ (x >> 32);
}

/* A stream: a counter through the mixer, so any seed is a good one. */
struct e2e_rng {
	uint64_t at;
};

E2E_UNUSED static struct e2e_rng
e2e_rng_start(uint64_t seed, uint64_t stream)
{
	struct e2e_rng r = { e2e_mix(seed) ^ e2e_mix(~stream) };

	return r;
}

E2E_UNUSED static uint64_t
e2e_rand(struct e2e_rng *r)
{
	r->at += UINT64_C(0x9e3779b97f4a7c15);
	return e2e_mix(r->at);
}

/* A number below n; the bias does not matter here. */
E2E_UNUSED static size_t
e2e_below(struct e2e_rng *r, size_t n)
{
	return (size_t)(e2e_rand(r) % n);
}

/* Sizes from lo to hi with every power of two as likely as the next. */
E2E_UNUSED static size_t
e2e_log_size(struct e2e_rng *r, unsigned lo_bit, unsigned hi_bit)
{
	unsigned bit = lo_bit + (unsigned)e2e_below(r, hi_bit - lo_bit);
	size_t base = (size_t)1 << bit;

	return base + e2e_below(r, base);
}

/* The word at index i of the pattern `key`. */
E2E_UNUSED static uint64_t
e2e_word(uint64_t key, size_t i)
{
	return (key + i) * UINT64_C(0x9e3779b97f4a7c15) ^ key;
}

/*
 * Fill n bytes with the pattern of `key`.  Byte j depends on j and the key
 * alone, so what a realloc kept can be compared whatever the new size.
 */
E2E_UNUSED static void
e2e_fill(void *p, size_t n, uint64_t key)
{
	unsigned char *b = (unsigned char *)p;
	size_t i;
	uint64_t w;

	for (i = 0; i < n / sizeof(w); i++) {
		w = e2e_word(key, i);
		memcpy(b + i * sizeof(w), &w, sizeof(w));
	}
	w = e2e_word(key, i);
	if (n % sizeof(w) != 0)
		memcpy(b + i * sizeof(w), &w, n % sizeof(w));
}

/* Where the bytes first differ from the pattern; E2E_SAME if nowhere. */
E2E_UNUSED static size_t
e2e_differs(const void *p, size_t n, uint64_t key)
{
	const unsigned char *b = (const unsigned char *)p;
	size_t i;
	uint64_t w;
	uint64_t v;

	for (i = 0; i < n / sizeof(w); i++) {
		w = e2e_word(key, i);
		memcpy(&v, b + i * sizeof(w), sizeof(v));
		if (v != w)
			break;
	}
	w = e2e_word(key, i);
	for (i *= sizeof(w); i < n; i++) {
		if (i % sizeof(w) == 0)
			w = e2e_word(key, i / sizeof(w));
		memcpy(&v, &w, sizeof(v));
		if (b[i] != ((unsigned char *)&v)[i % sizeof(v)])
			return i;
	}
	return E2E_SAME;
}

/* Where a byte is first not zero; E2E_SAME if nowhere. */
E2E_UNUSED static size_t
e2e_nonzero(const void *p, size_t n)
{
	const unsigned char *b = (const unsigned char *)p;
	size_t i = 0;
	uint64_t v;

	for (; i + sizeof(v) <= n; i += sizeof(v)) {
		memcpy(&v, b + i, sizeof(v));
		if (v != 0)
			break;
	}
	for (; i < n; i++)
		if (b[i] != 0)
			return i;
	return E2E_SAME;
}

/* Write a byte to every OS page, so that all of it is resident. */
E2E_UNUSED static void
e2e_touch(void *p, size_t n)
{
	volatile unsigned char *b = (volatile unsigned char *)p;

	for (size_t i = 0; i < n; i += 4096)
		b[i] = 1;
	if (n != 0)
		b[n - 1] = 1;
}

E2E_UNUSED static bool
e2e_aligned(const void *p, size_t alignment)
{
	return ((uintptr_t)p & (alignment - 1)) == 0;
}

/* --- the process, its time and its memory ------------------------------- */

/* Milliseconds of the monotonic clock. */
E2E_UNUSED static uint64_t
e2e_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

E2E_UNUSED static void
e2e_sleep(unsigned ms)
{
	struct timespec t;

	t.tv_sec = (time_t)(ms / 1000);
	t.tv_nsec = (long)(ms % 1000) * 1000000;
	while (nanosleep(&t, &t) == -1 && errno == EINTR)
		;
}

/* Read a file into buf with plain system calls; its length, or -1. */
E2E_UNUSED static ssize_t
e2e_slurp(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = 0;
	ssize_t n;

	if (fd == -1)
		return -1;
	while ((size_t)got < size - 1 &&
	    (n = read(fd, buf + got, size - 1 - (size_t)got)) > 0)
		got += n;
	close(fd);
	buf[got] = '\0';
	return got;
}

/*
 * The number after `name` in a file of lines "name: N kB", in bytes.  The
 * rollup of smaps is exact where statm lags behind by some pages a CPU.
 */
E2E_UNUSED static size_t
e2e_proc_kib(const char *path, const char *name)
{
	char buf[4096];
	const char *at;

	if (e2e_slurp(path, buf, sizeof(buf)) <= 0)
		return 0;
	at = strstr(buf, name);
	if (at == NULL)
		return 0;
	return (size_t)strtoull(at + strlen(name), NULL, 10) * E2E_KIB;
}

/* Resident bytes of this process. */
E2E_UNUSED static size_t
e2e_rss(void)
{
	size_t n = e2e_proc_kib("/proc/self/smaps_rollup", "\nRss:");

	if (n == 0)
		n = e2e_proc_kib("/proc/self/status", "\nVmRSS:");
	return n;
}

/* Address space of this process. */
E2E_UNUSED static size_t
e2e_vsize(void)
{
	return e2e_proc_kib("/proc/self/status", "\nVmSize:");
}

/*
 * In a process of 32 bits there may be room for sizes just below PTRDIFF_MAX,
 * where one of 64 bits can have none: leave it 256 MiB more than it has.
 */
E2E_UNUSED static void
e2e_narrow(void)
{
	struct rlimit r;

	if (SIZE_MAX > UINT32_MAX)
		return;
	r.rlim_cur = r.rlim_max = e2e_vsize() + 256 * E2E_MIB;
	if (setrlimit(RLIMIT_AS, &r) != 0)
		abort();
}

/* a - b, and 0 where b is larger. */
E2E_UNUSED static size_t
e2e_minus(size_t a, size_t b)
{
	return a > b ? a - b : 0;
}

/*
 * Calls as any program makes them, so that an allocator that purges on the
 * time of ordinary calls gets its chance: small ones, mid ones, a large one.
 */
E2E_UNUSED static void
e2e_ordinary_calls(unsigned rounds)
{
	void *hold[64];

	for (unsigned r = 0; r < rounds; r++) {
		for (unsigned i = 0; i < 64; i++)
			hold[i] = e2e_malloc(16 + (size_t)(r + i) % 97 * 331);
		for (unsigned i = 0; i < 64; i++)
			e2e_free(hold[i]);
		if (r % 16 == 0)
			e2e_free(e2e_malloc(200000));
	}
}

/*
 * Wait for a child until `ms` have passed, then kill it.  Gives its wait
 * status, or -1 where it hung.
 */
E2E_UNUSED static int
e2e_reap(pid_t pid, unsigned ms)
{
	uint64_t end = e2e_now() + ms;
	unsigned nap = 1;
	int status;

	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);

		if (got == pid)
			return status;
		if (got == -1 && errno != EINTR)
			return -1;
		if (e2e_now() >= end)
			break;
		e2e_sleep(nap);
		nap = nap < 4 ? nap * 2 : nap;
	}
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	return -1;
}

/* A line on stderr in one write, without stdio and so without malloc. */
E2E_UNUSED static void __attribute__((format(printf, 1, 2)))
e2e_say(const char *format, ...)
{
	char line[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (n > 0)
		(void)!write(2, line, (size_t)n < sizeof(line) ? (size_t)n :
		    sizeof(line) - 1);
}

/* Say what went wrong and end the process at once, from any thread. */
#define e2e_die(...)							\
	do {								\
		e2e_say("%s:%d: ", __FILE__, __LINE__);			\
		e2e_say(__VA_ARGS__);					\
		e2e_say(" (HZ4_TEST_SEED=%llu)\n",			\
		    (unsigned long long)e2e_seed());			\
		abort();						\
	} while (0)

#define e2e_need(cond, ...)						\
	do {								\
		if (!(cond))						\
			e2e_die(__VA_ARGS__);				\
	} while (0)

#endif
