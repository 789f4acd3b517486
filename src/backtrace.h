/*
 * backtrace.h - the return addresses on the calling thread's stack.
 *
 * By the tables that compilers write, with libgcc_s' unwinder: loaded when
 * asked for, since the library needs none and most programs never profile;
 * what the program has brought itself is taken first, which is the only one
 * in a static program.  Or by frame pointers (option frame_pointers), which
 * costs a tenth and needs code that keeps them.
 *
 * Layer 2.
 */
#ifndef HZ4_BACKTRACE_H
#define HZ4_BACKTRACE_H

#include "sample.h"

#include <unwind.h>

/* What tells a frame's address.  On 32-bit arm that is a macro over this. */
#ifdef __ARM_EABI_UNWINDER__
#define HZ4_UNWIND_GET _Unwind_VRS_Get
#else
#define HZ4_UNWIND_GET _Unwind_GetIP
#endif

/* Both NULL: a static program that has no unwinder. */
struct hz4_unwinder {
	__typeof__(_Unwind_Backtrace) *walk;
	__typeof__(HZ4_UNWIND_GET) *get;
};

enum {
	/* Most frames of a call stack that are kept. */
	HZ4_BACKTRACE_MOST = 64,
};

/*
 * Load the unwinder, and have it allocate what it needs once.  Not with a
 * lock held, nor in a signal's handler.  May be called again.
 */
void hz4_backtrace_start(void);

/* In the child of a fork.  Where a walk might wait for ever none is made. */
HZ4_SLOW void hz4_backtrace_fork_child(void);

/*
 * The addresses, the innermost first, from that of `from` on and without those
 * of the library itself.  0 when the call stack cannot be walked.  The caller
 * sees to it that what the unwinder allocates meanwhile does not come here.
 */
unsigned hz4_backtrace(uintptr_t *to, unsigned most,
		       const struct hz4_caller *from,
		       struct hz4_sampler *thread);

#endif
