/*
 * unit_huge.h - for tests of what gets huge pages: whether there are any, and
 * an exact clock that goes as a test says, since what they cost where it runs
 * must not matter.
 *
 * In place of libc's function, so it is included once in a program.
 */
#ifndef HZ4_UNIT_HUGE_H
#define HZ4_UNIT_HUGE_H

#include "unit.h"

#include "clock.h"
#include "tune.h"

static struct {
	_Atomic uint64_t now;	/* microseconds */
	_Atomic uint64_t step;	/* that pass from one look to the next */
} unit_clock = { .step = HZ4_HUGE_CLEARED_US };

int
hz4_clock(clockid_t clock, struct timespec *t)
{
	uint64_t now;

	if (clock != CLOCK_MONOTONIC)
		return (int)syscall(UNIT_CLOCK_GETTIME, clock, t);
	now = atomic_fetch_add(&unit_clock.now, unit_clock.step);
	t->tv_sec = (time_t)(now / 1000000);
	t->tv_nsec = (long)(now % 1000000) * 1000;
	return 0;
}

/* The kernel takes advice for huge pages, too, where it is to give none. */
static bool
unit_gives_huge(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
	char text[64] = "";

	if (f == NULL)
		return true;
	if (fgets(text, sizeof text, f) == NULL)
		text[0] = '\0';
	fclose(f);
	return strstr(text, "[never]") == NULL;
}

/* Says so where the kernel has none, or where a heap of `mib` has none. */
static bool
unit_have_huge(size_t mib)
{
	void *p = hz4_os_map(HZ4_REGION_MIN, HZ4_REGION_ALIGN);
	bool have;

	unit_need(p != NULL, "no memory");
	have = unit_gives_huge() && hz4_os_advise_huge(p, HZ4_REGION_MIN, true) &&
	       hz4_os_memory() / 2 >= mib << 20;
	if (!have)
		printf("skipped: no huge pages here\n");
	hz4_os_unmap(p, HZ4_REGION_MIN);
	return have;
}

#endif
