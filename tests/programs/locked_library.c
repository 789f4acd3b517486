/*
 * Preloaded beside the allocator: stands in front of libc's calls, as tracers
 * do, under a lock of its own, and allocates with that lock held.  Who comes
 * back into one of its calls then would wait for ever.
 */
#include "e2e_common.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>

static bool locked;

static void *
next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static void
enter(const char *call)
{
	if (locked) {
		fprintf(stderr, "%s: the lock is held\n", call);
		_exit(1);
	}
}

long
syscall(long number, ...)
{
	long (*real)(long, ...);
	void *f = next("syscall");
	va_list args;
	long a[6];

	enter("syscall");
	memcpy(&real, &f, sizeof(real));
	va_start(args, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	int (*real)(clockid_t, struct timespec *);
	void *f = next("clock_gettime");

	enter("clock_gettime");
	memcpy(&real, &f, sizeof(real));
	return real(clock, t);
}

void *
dlopen(const char *file, int mode)
{
	void *(*real)(const char *, int);
	void *f = next("dlopen"), *library;

	enter("dlopen");
	memcpy(&real, &f, sizeof(real));
	locked = true;
	library = real(file, mode);
	locked = false;
	return library;
}

int
dlclose(void *library)
{
	int (*real)(void *);
	void *f = next("dlclose");

	enter("dlclose");
	memcpy(&real, &f, sizeof(real));
	return real(library);
}

__attribute__((constructor)) static void
begin(void)
{
	void *(*operator_new)(size_t), *f = dlsym(RTLD_DEFAULT, "_Znwm");
	void *library = dlopen(NULL, RTLD_LAZY), *p;

	if (library != NULL)
		dlclose(library);
	locked = true;
	p = e2e_malloc(100);
	e2e_free(e2e_realloc(p, 3000000));
	if (f != NULL) {
		memcpy(&operator_new, &f, sizeof(operator_new));
		e2e_free(operator_new(100));
	}
	locked = false;
}
