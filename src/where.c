/*
 * where.c - the mappings of the process, a byte at a time.
 */
#include "where.h"

#include "log.h"
#include "os.h"

#include <errno.h>

struct reader {
	int fd;
	size_t n, at;
	char buffer[512];
};

static int
next_byte(struct reader *r)
{
	long n;

	if (r->at == r->n) {
		n = hz4_os_read_some(r->fd, r->buffer, sizeof r->buffer);
		if (n <= 0)
			return -1;
		r->n = (size_t)n;
		r->at = 0;
	}
	return (unsigned char)r->buffer[r->at++];
}

/* A hexadecimal number; returns what comes behind it. */
static int
read_hex(struct reader *r, uintptr_t *n)
{
	int c;

	*n = 0;
	while ((c = next_byte(r)) != -1) {
		if (c >= '0' && c <= '9')
			*n = *n * 16 + (uintptr_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*n = *n * 16 + (uintptr_t)(c - 'a') + 10;
		else
			break;
	}
	return c;
}

/* "START-END access OFFSET device inode   PATH". */
static bool
read_line(struct reader *r, struct hz4_where *m)
{
	size_t n = 0;
	int c;

	if (read_hex(r, &m->start) != '-')
		return false;
	read_hex(r, &m->end);
	while ((c = next_byte(r)) != ' ' && c != -1)
		if (n < sizeof m->access - 1)
			m->access[n++] = (char)c;
	m->access[n] = '\0';
	c = read_hex(r, &m->offset);
	/* No device and no inode has these in it. */
	while (c != '\n' && c != '/' && c != '[' && c != -1)
		c = next_byte(r);
	for (n = 0; c != '\n' && c != -1; c = next_byte(r))
		if (n < sizeof m->path - 1)
			m->path[n++] = (char)c;
	m->path[n] = '\0';
	return c == '\n';
}

bool
hz4_where_each(bool (*see)(const struct hz4_where *m, void *arg), void *arg)
{
	int saved = errno;
	struct reader r = { hz4_os_open("/proc/self/maps"), 0, 0, "" };
	struct hz4_where m;

	if (r.fd == -1) {
		errno = saved;
		return false;
	}
	while (read_line(&r, &m) && see(&m, arg))
		;
	hz4_os_close(r.fd);
	errno = saved;
	return true;
}

struct search {
	uintptr_t address;
	bool told;
};

static bool
tell_place(const struct hz4_where *m, void *arg)
{
	struct search *s = arg;
	/* A return address lies behind its call. */
	uintptr_t call = s->address - 1;

	if (call - m->start >= m->end - m->start)
		return true;
	hz4_log("    %#zx %s+%#zx", (size_t)s->address, m->path,
		(size_t)(call - m->start + m->offset));
	s->told = true;
	return false;
}

void
hz4_where_log(uintptr_t address)
{
	struct search s = { address, false };

	hz4_where_each(tell_place, &s);
	if (!s.told)
		hz4_log("    %#zx", (size_t)address);
}
