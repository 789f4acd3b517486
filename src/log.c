/*
 * log.c - one line, one write.
 */
#include "log.h"

#include "lock.h"
#include "sys.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024 };

static void __attribute__((format(printf, 1, 0)))
put_line(const char *format, va_list args)
{
	char line[LINE_MAX_BYTES] = "hz4: ";
	const int prefix = 5, room = LINE_MAX_BYTES - prefix - 1;
	int saved = errno;
	int n, i;
	long r;

	n = vsnprintf(line + prefix, (size_t)room, format, args);
	if (n < 0)
		n = 0;
	if (n >= room)
		n = room - 1;
	/* Also where somebody has put a line's end into a name. */
	for (i = prefix; i < prefix + n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[prefix + n] = '\n';
	do
		r = hz4_syscall(SYS_write, STDERR_FILENO, line,
			    (size_t)prefix + (size_t)n + 1);
	while (r == -1 && errno == EINTR);
	errno = saved;
}

void
hz4_log(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put_line(format, args);
	va_end(args);
}

void
hz4_fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put_line(format, args);
	va_end(args);
	abort();
}

void
hz4_lock_fatal(void)
{
	static _Atomic bool told;

	/* A handler of SIGABRT may come back here. */
	if (atomic_exchange(&told, true)) {
		(void)signal(SIGABRT, SIG_DFL);
		abort();
	}
	hz4_fatal("malloc() or free() in the midst of another one, which a "
		  "signal has interrupted");
}
