/* A library to be preloaded that has a dlopen of its own, and calls on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

void *
dlopen(const char *file, int mode)
{
	void *(*next)(const char *, int);

	*(void **)(void *)&next = dlsym(RTLD_NEXT, "dlopen");
	fprintf(stderr, "%s%s\n", file != NULL ? file : "itself",
		mode & RTLD_DEEPBIND ? ", deep" : "");
	return next(file, mode);
}
