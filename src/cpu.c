/*
 * cpu.c - what rseq(2) tells, and tickets.
 */
#include "cpu.h"

#include "os.h"

#include <sys/auxv.h>

/* The size of what the kernel fills, and where in it. */
#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#endif
enum { CPU_ID = 4, MM_CID = 24, MM_CID_END = 28 };

/* glibc's from 2.35 on; size 0: no thread is registered. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

static HZ4_TLS unsigned own_ticket; /* and one, 0: none yet */

/* Tickets so far. [atomic] relaxed */
static _Atomic unsigned tickets;

#ifdef __powerpc__
/* gcc has no builtin for it there. */
static const char *
thread_pointer(void)
{
	const char *p;

	__asm__("mr %0, %1" : "=r"(p) : "i"(sizeof p == 8 ? 13 : 2));
	return p;
}
#else
static const char *
thread_pointer(void)
{
	return __builtin_thread_pointer();
}
#endif

/* A field that the kernel writes at any time. */
static uint32_t
field(unsigned offset)
{
	const char *area = thread_pointer() + __rseq_offset;

	return *(const volatile uint32_t *)(const void *)(area + offset);
}

/* Whether the kernel has concurrency ids; 0: not asked yet. */
static bool
has_cid(void)
{
	/* [atomic] relaxed: all find the same */
	static _Atomic int known;
	int has = hz4_peek(&known);

	if (hz4_unlikely(has == 0)) {
		has = getauxval(AT_RSEQ_FEATURE_SIZE) >= MM_CID_END ? 1 : -1;
		hz4_poke(&known, has);
	}
	return has > 0;
}

static unsigned
ticket(void)
{
	if (own_ticket == 0)
		own_ticket = atomic_fetch_add_explicit(&tickets, 1,
						       memory_order_relaxed) %
				     hz4_max(1, hz4_os_cpus()) + 1;
	return own_ticket - 1;
}

unsigned
hz4_cpu_number(void)
{
	uint32_t cpu;

	if (&__rseq_size == NULL || __rseq_size == 0)
		return ticket();
	cpu = field(CPU_ID);
	/* Negative: not this thread. */
	if (hz4_unlikely((int32_t)cpu < 0))
		return ticket();
	return has_cid() ? field(MM_CID) : cpu;
}
