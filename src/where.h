/*
 * where.h - where an address of code lies, for reports.
 *
 * Layer 2.
 */
#ifndef HZ4_WHERE_H
#define HZ4_WHERE_H

#include "base.h"

/* A mapping of the process. */
struct hz4_where {
	uintptr_t start, end, offset;
	char access[5]; /* "rw-p" */
	char path[256]; /* cut to size, "" where there is none */
};

/*
 * Call `see` for each, until it says false.  Reads /proc/self/maps by the
 * kernel's calls: allocates nothing, locks nothing, is no point of
 * cancellation.  False when it cannot be read.
 */
bool hz4_where_each(bool (*see)(const struct hz4_where *m, void *arg),
		    void *arg);

/* A line with a return address, its object and the place of its call there. */
void hz4_where_log(uintptr_t address);

#endif
