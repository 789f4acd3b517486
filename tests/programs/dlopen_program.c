/*
 * dlopen_program LIBHZ4: opens the allocator as a plain library in a program
 * that runs on libc's malloc, uses it beside that, and closes it while a
 * thread that used it is alive.
 */
#include "e2e_common.h"

#include <pthread.h>

static void *(*make)(size_t);
static void (*drop)(void *);
static pthread_barrier_t turn;

static void
use(void)
{
	for (unsigned i = 0; i < 200; i++) {
		unsigned char *p = make(1 + i * 137);
		unsigned char *q = e2e_malloc(1 + i * 137);

		e2e_need(p != NULL && q != NULL, "no memory");
		e2e_fill(p, 1 + i * 137, i);
		e2e_fill(q, 1 + i * 137, i + 1);
		e2e_need(e2e_differs(p, 1 + i * 137, i) == E2E_SAME,
		    "a block is broken");
		drop(p);
		e2e_free(q);
	}
}

static void *
outlives_the_library(void *arg)
{
	(void)arg;
	use();
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	return NULL;
}

static void
once(const char *path, int flags)
{
	void *library = dlopen(path, flags);
	void *m;
	void *f;
	pthread_t t;

	e2e_need(library != NULL, "%s", dlerror());
	e2e_need(dlsym(library, "hz4_version") != NULL, "not hz4");
	m = dlsym(library, "malloc");
	f = dlsym(library, "free");
	e2e_need(m != NULL && f != NULL, "%s", dlerror());
	memcpy(&make, &m, sizeof(make));
	memcpy(&drop, &f, sizeof(drop));
	e2e_need(make != malloc, "malloc is the program's own");
	use();
	e2e_need(pthread_create(&t, NULL, outlives_the_library, NULL) == 0,
	    "no thread");
	pthread_barrier_wait(&turn);
	e2e_need(dlclose(library) == 0, "%s", dlerror());
	pthread_barrier_wait(&turn);
	pthread_join(t, NULL);
	e2e_ordinary_calls(5);
}

int
main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	pthread_barrier_init(&turn, NULL, 2);
	for (unsigned i = 0; i < 30; i++)
		once(argv[1], RTLD_NOW | RTLD_LOCAL);
	once(argv[1], RTLD_NOW | RTLD_GLOBAL);
	puts("done");
	return 0;
}
