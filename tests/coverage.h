/*
 * coverage.h - what `make coverage` puts in front of every source file, so
 * that children that end with _exit or abort write their counters first.
 */
#ifndef HZ4_TEST_COVERAGE_H
#define HZ4_TEST_COVERAGE_H

#include <stdlib.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* libgcov's, one for each program and library. */
void __gcov_dump(void);

static inline void __attribute__((noreturn, unused))
coverage_exit(int status)
{
	__gcov_dump();
	_exit(status);
}

static inline void __attribute__((noreturn, unused))
coverage_abort(void)
{
	__gcov_dump();
	abort();
}

#ifdef __cplusplus
}
#endif

#define _exit(status) coverage_exit(status)
#define abort() coverage_abort()

#endif
