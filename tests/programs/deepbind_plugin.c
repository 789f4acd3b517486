/*
 * A plugin that passes memory to the program that opens it and takes memory
 * from it; whose() is a name that both have.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *whose(void);
const char *plugin_whose(void);
void *plugin_malloc(size_t n);
void *plugin_grow(void *p, size_t n);
void plugin_free(void *p);
char *plugin_copy(const char *text);
char *plugin_line(FILE *stream);
char *plugin_print(int n);
char *plugin_at_start(void);
void *plugin_open(const char *name, int mode);

static char *at_start;

__attribute__((constructor)) static void
start(void)
{
	at_start = strdup("made by a constructor");
}

const char *
whose(void)
{
	return "the plugin's";
}

const char *
plugin_whose(void)
{
	return whose();
}

void *
plugin_malloc(size_t n)
{
	return malloc(n);
}

void *
plugin_grow(void *p, size_t n)
{
	return realloc(p, n);
}

void
plugin_free(void *p)
{
	free(p);
}

/* These are libc's, which allocates for its caller. */
char *
plugin_copy(const char *text)
{
	return strdup(text);
}

char *
plugin_line(FILE *stream)
{
	char *line = NULL;
	size_t size = 0;

	return getline(&line, &size, stream) < 0 ? NULL : line;
}

char *
plugin_print(int n)
{
	char *text = NULL;

	return asprintf(&text, "%d", n) < 0 ? NULL : text;
}

char *
plugin_at_start(void)
{
	return at_start;
}

/* With this library as dlopen's caller, which a jump would take away. */
void *
plugin_open(const char *name, int mode)
{
	void *volatile handle = dlopen(name, mode);

	return handle;
}
