/*
 * clock.h - the kernel's clocks, without libc: a preloaded library may show
 * the program another time, and call malloc while it finds out which.
 *
 * Layer 1.
 */
#ifndef HZ4_CLOCK_H
#define HZ4_CLOCK_H

#include "base.h"

#include <time.h>

/* As clock_gettime(2); not 0 when it fails, and errno may be set or not. */
int hz4_clock(clockid_t clock, struct timespec *t);

#endif
