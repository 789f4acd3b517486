/*
 * bench.h - what the benchmark programs share.
 *
 * A program defines PROGRAM, its name in messages, and includes this after
 * the system's headers.  Nothing here calls malloc: what is measured is the
 * allocator's work for the program, and these are the program's own needs.
 */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef PROGRAM
#error "PROGRAM has to be the program's name"
#endif

/* "PROGRAM: why" in one line, written at once, and exit status 2. */
static inline _Noreturn void __attribute__((format(printf, 1, 2)))
die(const char *fmt, ...)
{
	char line[512] = PROGRAM ": ";
	size_t len = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	va_end(ap);
	len = strlen(line);
	line[len] = '\n';
	if (write(STDERR_FILENO, line, len + 1) < 0)
		_exit(2);
	exit(2);
}

static inline uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static inline double
seconds_since(uint64_t start_ns)
{
	return (double)(now_ns() - start_ns) * 1e-9;
}

/* A time of getrusage() in seconds. */
static inline double
seconds(const struct timeval *tv)
{
	return (double)tv->tv_sec + (double)tv->tv_usec * 1e-6;
}

/* An argument; whatever is no number in low..high ends the program. */
static inline uint64_t
number(const char *text, const char *name, uint64_t low, uint64_t high)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || v < low ||
	    v > high)
		die("%s is \"%.40s\", but has to be a number in %llu..%llu",
		    name, text, (unsigned long long)low,
		    (unsigned long long)high);
	return v;
}

/* Zeroed memory of the program's own, in ordinary pages only. */
static inline void *
own_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("cannot map %zu bytes for its own use: %s", bytes,
		    strerror(errno));
	/* Fails where the kernel has no huge pages: nothing to turn off. */
	(void)madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

/* The beginning of a file as a string; 0 when it cannot be read. */
static inline int
read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return 0;
	len = read(fd, text, size - 1);
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	return len > 0;
}

#endif
