/*
 * unit_huge.h - for tests of what gets huge pages: whether there are any, and
 * CPU time as a test says, since what they cost where it runs must not matter.
 *
 * In place of libc's function, so it is included once in a program.
 */
#ifndef HZ4_UNIT_HUGE_H
#define HZ4_UNIT_HUGE_H

#include "unit.h"

#include "tune.h"

#include <sys/syscall.h>

static struct {
	uint64_t now;		/* microseconds */
	uint64_t step;		/* that pass from one look to the next */
	unsigned looks;
} unit_cpu;

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	if (clock != CLOCK_THREAD_CPUTIME_ID)
		return (int)syscall(SYS_clock_gettime, clock, t);
	unit_cpu.looks++;
	unit_cpu.now += unit_cpu.step;
	t->tv_sec = (time_t)(unit_cpu.now / 1000000);
	t->tv_nsec = (long)(unit_cpu.now % 1000000) * 1000;
	return 0;
}

/* Says so where the kernel has none. */
static bool
unit_have_huge(void)
{
	void *p = hz4_os_map(HZ4_REGION_MIN, HZ4_REGION_ALIGN);
	bool have;

	unit_need(p != NULL, "no memory");
	hz4_os_read_files();
	have = hz4_os_advise_huge(p, HZ4_REGION_MIN, true);
	if (!have)
		printf("skipped: no huge pages here\n");
	hz4_os_unmap(p, HZ4_REGION_MIN);
	return have;
}

#endif
