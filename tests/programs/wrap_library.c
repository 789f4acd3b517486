/*
 * Preloaded beside the allocator: wraps calls that an allocator may make
 * itself, and allocates in every one of them, as tracers and sandboxes do.
 */
#include "e2e_common.h"

#include <pthread.h>
#include <stdarg.h>
#include <sys/syscall.h>

static __thread int depth __attribute__((tls_model("initial-exec")));

/* Allocate, unless this is a call that malloc itself made for that. */
static void
disturb(void)
{
	int saved = errno;

	if (depth++ == 0) {
		void *p = e2e_malloc(100);
		void *q = e2e_malloc(3000);

		e2e_free(p);
		e2e_free(e2e_realloc(q, 70000));
	}
	depth--;
	errno = saved;
}

static void *
next(const char *name)
{
	void *f;

	depth++;
	f = dlsym(RTLD_NEXT, name);
	depth--;
	return f;
}

void *
mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
	disturb();
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, off);
}

void *
mmap64(void *at, size_t n, int prot, int flags, int fd, off64_t off)
{
	disturb();
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, off);
}

int
munmap(void *at, size_t n)
{
	disturb();
	return (int)syscall(SYS_munmap, at, n);
}

int
madvise(void *at, size_t n, int advice)
{
	disturb();
	return (int)syscall(SYS_madvise, at, n, advice);
}

int
mprotect(void *at, size_t n, int prot)
{
	disturb();
	return (int)syscall(SYS_mprotect, at, n, prot);
}

int
open(const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(args, int) : 0;
	va_end(args);
	disturb();
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	disturb();
	return (int)syscall(SYS_clock_gettime, clock, t);
}

long
sysconf(int name)
{
	static long (*real)(int);
	void *f = real == NULL ? next("sysconf") : NULL;

	if (f != NULL)
		memcpy(&real, &f, sizeof(real));
	disturb();
	return real(name);
}

int
pthread_mutex_lock(pthread_mutex_t *m)
{
	static int (*real)(pthread_mutex_t *);
	void *f = real == NULL ? next("pthread_mutex_lock") : NULL;

	if (f != NULL)
		memcpy(&real, &f, sizeof(real));
	disturb();
	return real(m);
}

int
pthread_key_create(pthread_key_t *key, void (*destructor)(void *))
{
	static int (*real)(pthread_key_t *, void (*)(void *));
	void *f = real == NULL ? next("pthread_key_create") : NULL;

	if (f != NULL)
		memcpy(&real, &f, sizeof(real));
	disturb();
	return real(key, destructor);
}

int
pthread_setspecific(pthread_key_t key, const void *value)
{
	static int (*real)(pthread_key_t, const void *);
	void *f = real == NULL ? next("pthread_setspecific") : NULL;

	if (f != NULL)
		memcpy(&real, &f, sizeof(real));
	disturb();
	return real(key, value);
}
