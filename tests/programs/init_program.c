/*
 * A program that allocates at every stage of its life, from .preinit_array
 * to its last destructor.  E2E_FIRST names the very first call it makes.
 *
 * init_program [LIBRARY...]: opens and closes these on the way.
 */
#include "e2e_common.h"

#include <pthread.h>

extern void *init_library_block(void);

static unsigned char *from_preinit;
static unsigned char *from_constructor;
static unsigned exits;

/* The value of a variable, from the list that the loader hands over. */
static const char *
value_of(char **env, const char *name)
{
	size_t n = strlen(name);

	for (; *env != NULL; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return "";
}

static void
first_call(const char *what)
{
	if (strcmp(what, "free") == 0)
		e2e_free(NULL);
	else if (strcmp(what, "usable") == 0)
		e2e_need(e2e_usable(NULL) == 0, "usable size of NULL");
	else if (strcmp(what, "trim") == 0)
		(void)e2e_trim(0);
	else if (strcmp(what, "mallinfo") == 0)
		(void)mallinfo2();
	else if (strcmp(what, "mallopt") == 0)
		(void)mallopt(M_MMAP_THRESHOLD, 200000);
	else if (strcmp(what, "calloc") == 0)
		e2e_free(e2e_calloc(10, 10));
	else if (strcmp(what, "realloc") == 0)
		e2e_free(e2e_realloc(NULL, 10));
	else if (strcmp(what, "memalign") == 0)
		e2e_free(e2e_memalign(4096, 10));
	else if (strcmp(what, "large") == 0)
		e2e_free(e2e_malloc(10 * E2E_MIB));
	else if (strcmp(what, "too_large") == 0)
		e2e_need(e2e_malloc(SIZE_MAX) == NULL, "SIZE_MAX bytes");
	else if (strcmp(what, "fork") == 0) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		e2e_need(e2e_reap(pid, 10000) == 0, "the child");
	}
}

static void
before_constructors(int argc, char **argv, char **env)
{
	(void)argc;
	(void)argv;
	errno = 4711;
	first_call(value_of(env, "E2E_FIRST"));
	from_preinit = e2e_malloc(3000);
	e2e_need(from_preinit != NULL, "no memory before constructors");
	e2e_fill(from_preinit, 3000, 1);
	e2e_ordinary_calls(2);
}

__attribute__((section(".preinit_array"), used))
static void (*const preinit)(int, char **, char **) = before_constructors;

__attribute__((constructor(101))) static void
begin(void)
{
	e2e_need(e2e_differs(from_preinit, 3000, 1) == E2E_SAME,
	    "the block of preinit");
	from_constructor = e2e_realloc(NULL, 100000);
	e2e_need(from_constructor != NULL, "no memory in a constructor");
	e2e_fill(from_constructor, 100000, 2);
	e2e_ordinary_calls(2);
}

__attribute__((destructor(101))) static void
end(void)
{
	e2e_need(exits == 60, "%u exit handlers ran", exits);
	e2e_need(e2e_differs(from_preinit, 3000, 1) == E2E_SAME,
	    "the block of preinit");
	e2e_free(from_preinit);
	e2e_need(e2e_differs(from_constructor, 100000, 2) == E2E_SAME,
	    "the constructor's block");
	e2e_free(from_constructor);
	e2e_ordinary_calls(20);
}

static void
at_exit(void)
{
	exits++;
	e2e_free(e2e_malloc(exits * 1000));
}

/* Goes on while the process ends around it. */
static void *
never_ends(void *arg)
{
	(void)arg;
	for (;;)
		e2e_ordinary_calls(1);
	return NULL;
}

static void *
uses_library(void *arg)
{
	void *(*make)(size_t);

	memcpy(&make, &arg, sizeof(make));
	for (unsigned i = 0; i < 100; i++)
		e2e_free(make(i * 10));
	return NULL;
}

/* Open a library of ours with TLS; let threads use it; close it. */
static void
use_library(const char *path)
{
	for (unsigned i = 0; i < 20; i++) {
		void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		void *make;
		pthread_t t;

		e2e_need(library != NULL, "%s", dlerror());
		make = dlsym(library, "tls_library_make");
		e2e_need(make != NULL, "%s", dlerror());
		uses_library(make);
		e2e_need(pthread_create(&t, NULL, uses_library, make) == 0,
		    "no thread");
		pthread_join(t, NULL);
		dlclose(library);
	}
	/* The error path of dlsym and dlopen allocates as well. */
	e2e_need(dlsym(RTLD_DEFAULT, "no_such_symbol") == NULL &&
	    dlerror() != NULL, "a symbol that is not there");
	e2e_need(dlopen("no_such_library.so", RTLD_NOW) == NULL &&
	    dlerror() != NULL, "a library that is not there");
}

int
main(int argc, char **argv)
{
	pthread_t t;

	e2e_need(init_library_block() != NULL, "the library's block");
	for (int i = 1; i < argc; i++)
		use_library(argv[i]);
	for (unsigned i = 0; i < 60; i++)
		e2e_need(atexit(at_exit) == 0, "atexit");
	for (unsigned i = 0; i < 2; i++)
		e2e_need(pthread_create(&t, NULL, never_ends, NULL) == 0,
		    "no thread");
	e2e_ordinary_calls(100);
	printf("%s\n", "from main");
	return 0;
}
