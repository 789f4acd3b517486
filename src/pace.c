/*
 * pace.c - when to yield, and whether it has helped.
 */
#include "pace.h"

#include "option.h"
#include "os.h"
#include "share.h"

/* Bytes that all threads gave. [atomic] relaxed: a hint */
static struct {
	_Atomic size_t bytes;
} HZ4_LINE_ALIGNED given;

void
hz4_pace_give(struct hz4_pace *p, size_t bytes)
{
	p->ahead -= hz4_min(bytes, p->ahead);
	p->given += bytes;
	if (p->given < HZ4_PACE_TELL)
		return;
	atomic_fetch_add_explicit(&given.bytes, p->given, memory_order_relaxed);
	p->given = 0;
}

/*
 * Some of the threads may be waiting for a CPU: there are as many as CPUs,
 * and other programs.  A program of one thread makes no system call for
 * this: it may have had all but a few forbidden.
 */
static bool
is_crowded(void)
{
	uint32_t users = hz4_share_users();

	return users >= 2 && hz4_option(HZ4_OPT_yield) &&
	       users >= hz4_os_cpus();
}

void
hz4_pace_rest(struct hz4_pace *p)
{
	size_t before;

	p->ahead = 0;
	if (!is_crowded())
		return;
	if (p->turns > 0) {
		p->turns--;
		return;
	}
	before = hz4_peek(&given.bytes);
	hz4_os_yield();
	if (hz4_peek(&given.bytes) - before >= HZ4_PACE_HELP)
		p->patience = 0;
	else
		p->patience = hz4_min(2 * p->patience + 1, HZ4_PACE_PATIENCE);
	p->turns = p->patience;
}
