/*
 * tool.h - what the tools that look at processes share.
 */
#ifndef HZ4_TOOL_H
#define HZ4_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum status {
	OK = 0,
	FAILED = 1, /* the process has nothing to show, or no file can be */
	USAGE = 2,
	NO_PROCESS = 3,
	DENIED = 4,
	BAD_DATA = 5, /* damaged, or of another version */
};

/* Each tool's own. */
extern const char tool_name[];

/* One line on stderr; returns the status. */
enum status complain(enum status status, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The end of each tool's table of options; what they do, and exit. */
#define TOOL_OPTIONS \
	{ "help", no_argument, NULL, 'H' }, \
	{ "version", no_argument, NULL, 'V' }, \
	{ NULL, 0, NULL, 0 }
_Noreturn void tool_option(int c, void (*usage)(FILE *to), const char *help);

/* Exit when there is no memory. */
void *need(void *p);

/* A decimal number from 1 to `most`, and nothing else. */
bool parse_count(const char *text, long most, long *n);

/*
 * The text of /proc/PID/NAME with a NUL behind it, NULs as they are; NULL: not
 * to be had.
 */
char *proc_text(long pid, const char *name, size_t *n);

/*
 * The memory map, and the task that told it: where the first thread has ended
 * it is another one.
 */
char *proc_maps(long pid, long *task);

/*
 * What follows a name in /proc/PID/status, up to the line's end, to be freed;
 * NULL: not to be had.
 */
char *proc_status(long pid, const char *name);

/*
 * One that has ended and that nobody has waited for is none any more; where
 * the first thread alone has ended there are others.
 */
bool process_exists(long pid);

/*
 * Whether the process runs as that user, by the kernel's word: its real and
 * its effective user.  Who has only one of them runs another's program.
 */
bool process_is_of(long pid, uid_t uid);

void nap(double seconds);

#endif
