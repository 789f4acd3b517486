/*
 * tool.c - complaints, numbers, and what /proc tells of a process.
 */
#include "config.h"

#include "tool.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum status
complain(enum status status, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "%s: ", tool_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return status;
}

void
tool_option(int c, void (*usage)(FILE *to), const char *help)
{
	if (c == 'V') {
		printf("%s %s\n", tool_name, PACKAGE_VERSION);
	} else if (c == 'H') {
		usage(stdout);
		fputs(help, stdout);
	} else {
		usage(stderr);
		exit(USAGE);
	}
	if (fflush(stdout) != 0 || ferror(stdout))
		exit(complain(FAILED, "standard output: %s", strerror(errno)));
	exit(OK);
}

void *
need(void *p)
{
	if (p != NULL)
		return p;
	exit(complain(FAILED, "no memory"));
}

bool
parse_count(const char *text, long most, long *n)
{
	char *end;

	errno = 0;
	*n = strtol(text, &end, 10);
	return isdigit((unsigned char)*text) && *end == '\0' && errno == 0 &&
	       *n > 0 && *n <= most;
}

static char *
slurp(const char *path, size_t *n)
{
	size_t room = 1 << 14, got;
	FILE *f = fopen(path, "re");
	char *text;

	if (f == NULL)
		return NULL;
	text = need(calloc(room, 1));
	*n = 0;
	while ((got = fread(text + *n, 1, room - *n - 1, f)) > 0) {
		*n += got;
		if (room - *n < 2)
			text = need(realloc(text, room *= 2));
	}
	text[*n] = '\0';
	fclose(f);
	return text;
}

char *
proc_text(long pid, const char *name, size_t *n)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%ld/%s", pid, name);
	return slurp(path, n);
}

/* The text, or NULL where there is none. */
static char *
unless_empty(char *text)
{
	if (text == NULL || *text != '\0')
		return text;
	free(text);
	return NULL;
}

char *
proc_maps(long pid, long *task)
{
	size_t n;
	char path[64], *text = unless_empty(proc_text(pid, "maps", &n));
	struct dirent *e;
	DIR *tasks;

	*task = pid;
	if (text != NULL)
		return text;
	snprintf(path, sizeof path, "/proc/%ld/task", pid);
	tasks = opendir(path);
	while (tasks != NULL && text == NULL && (e = readdir(tasks)) != NULL) {
		snprintf(path, sizeof path, "/proc/%ld/task/%.20s/maps", pid,
			 e->d_name);
		text = unless_empty(slurp(path, &n));
		*task = strtol(e->d_name, NULL, 10);
	}
	if (tasks != NULL)
		closedir(tasks);
	return text;
}

char *
proc_status(long pid, const char *name)
{
	size_t n, length = strlen(name);
	char *text = proc_text(pid, "status", &n), *at = text, *found = NULL;

	while (at != NULL && strncmp(at, name, length) != 0) {
		at = strchr(at, '\n');
		at += at != NULL;
	}
	if (at != NULL) {
		at += length + strspn(at + length, " \t");
		at[strcspn(at, "\n")] = '\0';
		found = need(strdup(at));
	}
	free(text);
	return found;
}

bool
process_exists(long pid)
{
	char *text, *field;
	size_t n;
	bool lives;

	if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
		return false;
	text = proc_text(pid, "stat", &n);
	/* "PID (NAME) STATE ...", and the name may hold anything. */
	field = text != NULL ? strrchr(text, ')') : NULL;
	if (field == NULL || field[1] != ' ' ||
	    (field[2] != 'Z' && field[2] != 'X')) {
		free(text);
		return true;
	}
	/* The threads are 17 fields on. */
	field += 2;
	for (n = 0; n < 17 && field != NULL; n++) {
		field = strchr(field, ' ');
		field += field != NULL;
	}
	lives = field != NULL && strtol(field, NULL, 10) > 1;
	free(text);
	return lives;
}

bool
process_is_of(long pid, uid_t uid)
{
	char *text = proc_status(pid, "Uid:");
	unsigned real, effective;
	char *end;
	bool is = false;

	if (text != NULL) {
		real = (unsigned)strtoul(text, &end, 10);
		effective = (unsigned)strtoul(end, NULL, 10);
		is = isdigit((unsigned char)*text) && real == uid &&
		     effective == uid;
	}
	free(text);
	return is;
}

void
nap(double seconds)
{
	struct timespec t;

	t.tv_sec = (time_t)seconds;
	t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
	nanosleep(&t, NULL);
}
