/*
 * Opens plugins in all the ways that dlopen has, and reports what it sees.
 * The report is the same on every malloc, but for a line that starts with
 * "whose".  Run in the directory of the plugins:
 *
 *   ./libplugin.so           what is opened; its run path is $ORIGIN/inner
 *   ./inner/libinner.so      found by the plugin alone
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *whose(void);

static const char plugin[] = "./libplugin.so";

const char *
whose(void)
{
	return "the program's";
}

/* Functions come out of dlsym as object pointers. */
#define FIND(f, handle, name) \
	(*(void **)(void *)&(f) = dlsym((handle), (name)))

static const char *
error(void)
{
	const char *text = dlerror();

	return text == NULL ? "no error" : text;
}

/* The file's name in its last two folders, and its namespace. */
static void
show(const char *what, void *handle)
{
	struct link_map *map;
	Lmid_t space;
	const char *name;
	int n = 0;

	if (handle == NULL) {
		printf("%s: %s\n", what, error());
		return;
	}
	if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 ||
	    dlinfo(handle, RTLD_DI_LMID, &space) != 0) {
		printf("%s: dlinfo: %s\n", what, error());
		return;
	}
	name = map->l_name + strlen(map->l_name);
	while (name > map->l_name && (name[-1] != '/' || ++n < 3))
		name--;
	printf("%s: %s, namespace %ld\n", what, name, (long)space);
}

static void
exchange(void *handle)
{
	void *(*get)(size_t);
	void *(*grow)(void *, size_t);
	void (*drop)(void *);
	char *(*copy)(const char *);
	char *(*line)(FILE *);
	char *(*print)(int);
	char *(*at_start)(void);
	const char *(*sees)(void);
	FILE *stream = tmpfile();
	char *p;
	int i;

	FIND(get, handle, "plugin_malloc");
	FIND(grow, handle, "plugin_grow");
	FIND(drop, handle, "plugin_free");
	FIND(copy, handle, "plugin_copy");
	FIND(line, handle, "plugin_line");
	FIND(print, handle, "plugin_print");
	FIND(at_start, handle, "plugin_at_start");
	FIND(sees, handle, "plugin_whose");
	for (i = 0; i < 500; i++) {
		drop(malloc((size_t)i * 37));
		free(get((size_t)i * 37));
		p = grow(malloc(10), (size_t)i * 41 + 10);
		free(p);
		p = realloc(get(10), (size_t)i * 41 + 10);
		drop(p);
		drop(strdup("for the plugin"));
	}
	p = copy("by the plugin");
	printf("strdup: %s\n", p);
	free(p);
	p = print(4711);
	printf("asprintf: %s\n", p);
	free(p);
	if (stream != NULL) {
		fputs("one line\n", stream);
		rewind(stream);
		p = line(stream);
		printf("getline: %s", p);
		free(p);
		fclose(stream);
	}
	p = at_start();
	printf("constructor: %s\n", p);
	free(p);
	printf("whose: %s\n", sees());
}

/* Flags other than RTLD_DEEPBIND are as they were. */
static void
flags(void)
{
	void *a, *b;

	show("not loaded yet", dlopen(plugin, RTLD_NOW | RTLD_NOLOAD));
	show("no mode", dlopen(plugin, RTLD_DEEPBIND));
	show("missing", dlopen("./libnone.so", RTLD_NOW | RTLD_DEEPBIND));
	show("not by this caller", dlopen("libinner.so", RTLD_NOW));
	a = dlopen(plugin, RTLD_LAZY | RTLD_DEEPBIND);
	show("lazy", a);
	printf("local: %d\n", dlsym(RTLD_DEFAULT, "plugin_free") != NULL);
	b = dlopen(plugin,
		   RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL | RTLD_DEEPBIND);
	printf("the same: %d\n", a == b);
	printf("global: %d\n", dlsym(RTLD_DEFAULT, "plugin_free") != NULL);
	dlclose(b);
	dlclose(a);
	show("closed", dlopen(plugin, RTLD_NOW | RTLD_NOLOAD));
	a = dlopen(plugin, RTLD_NOW | RTLD_DEEPBIND | RTLD_NODELETE);
	dlclose(a);
	show("never closed", dlopen(plugin, RTLD_NOW | RTLD_NOLOAD));
	a = dlopen(NULL, RTLD_NOW | RTLD_DEEPBIND);
	printf("itself: %d %d\n", a == dlopen(NULL, RTLD_LAZY),
	       dlsym(a, "whose") != NULL);
}

/* A library opens others: by its own run path, in its own namespace. */
static void
opens(const char *what, void *handle)
{
	void *(*open)(const char *, int);
	int mode = RTLD_NOW | RTLD_DEEPBIND;

	show(what, handle);
	if (handle == NULL)
		return;
	FIND(open, handle, "plugin_open");
	show("by run path", open("libinner.so", mode));
	show("by $ORIGIN", open("$ORIGIN/inner/libinner.so", mode));
	show("not there", open("libnone.so", mode));
	show("this namespace", open(NULL, mode));
}

int
main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && strcmp(argv[1], "exchange") == 0) {
		exchange(dlopen(plugin, RTLD_NOW | RTLD_DEEPBIND));
	} else if (argc > 1 && strcmp(argv[1], "flags") == 0) {
		flags();
	} else {
		opens("plugin", dlopen(plugin, RTLD_NOW | RTLD_DEEPBIND));
		opens("new namespace",
		      dlmopen(LM_ID_NEWLM, plugin, RTLD_NOW));
	}
	return 0;
}
