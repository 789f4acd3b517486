/*
 * sys.h - system calls, without libc.
 *
 * Libraries that are preloaded stand in front of libc's syscall(), and hold
 * locks of their own while they call malloc or dlopen: to come back into one
 * would wait for ever.
 *
 * Layer 0.
 */
#ifndef HZ4_SYS_H
#define HZ4_SYS_H

#include "base.h"

#include <sys/syscall.h>

/* As syscall(2) of libc: -1 with errno set when it fails. */
long hz4_syscall6(long number, long a, long b, long c, long d, long e, long f);

/* The same with one argument or more, numbers or pointers, the rest 0. */
#define hz4_syscall(...) HZ4_SYSCALL_FILLED(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define HZ4_SYSCALL_FILLED(n, a, b, c, d, e, f, ...)                  \
	hz4_syscall6((n), (long)(a), (long)(b), (long)(c), (long)(d), \
	    (long)(e), (long)(f))

#endif
