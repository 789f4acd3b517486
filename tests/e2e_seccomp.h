/*
 * Filters of system calls, by seccomp: one call that fails, or a few that are
 * allowed and any other ends the process.
 */
#ifndef HZ4_E2E_SECCOMP_H
#define HZ4_E2E_SECCOMP_H

#include "e2e_common.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { E2E_CALLS = 40 };	/* most in a list */

/* What hz4 needs after the first malloc, where threads allocate. */
#ifdef SYS_mmap2
#define E2E_SYS_MMAP SYS_mmap2
#else
#define E2E_SYS_MMAP SYS_mmap
#endif
#define E2E_MEMORY_CALLS						\
	E2E_SYS_MMAP, SYS_munmap, SYS_mremap, SYS_madvise,		\
	SYS_mprotect, SYS_futex
#define E2E_THREAD_CALLS E2E_MEMORY_CALLS, SYS_sched_yield

/* For all threads that there are, too. */
E2E_UNUSED static bool
e2e_filter(struct sock_filter *code, size_t n)
{
	struct sock_fprog program = { (unsigned short)n, code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
	    SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

/* From now on `call` fails.  False where there are no filters. */
E2E_UNUSED static bool
e2e_deny(int call, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
		    offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K,
		    SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	return e2e_filter(code, sizeof(code) / sizeof(code[0]));
}

/* From now on any call but these ends the process with SIGSYS. */
E2E_UNUSED static bool
e2e_allow(const uint32_t *calls, size_t count)
{
	struct sock_filter code[2 * E2E_CALLS + 2] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
		    offsetof(struct seccomp_data, nr)),
	};
	size_t n = 1;

	e2e_need(count <= E2E_CALLS, "too many calls");
	for (; count > 0; count--, calls++) {
		code[n++] = (struct sock_filter)BPF_JUMP(
		    BPF_JMP | BPF_JEQ | BPF_K, *calls, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
		    SECCOMP_RET_ALLOW);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
	    SECCOMP_RET_KILL_PROCESS);
	return e2e_filter(code, n);
}

/*
 * Whether reading the exact clock is a system call here: the vdso cannot read
 * the machine's clock.
 */
E2E_UNUSED static bool
e2e_clock_is_a_call(void)
{
	static const uint32_t none[] = { SYS_exit_group };
	struct timespec t;
	pid_t pid = fork();

	if (pid == 0) {
		if (e2e_allow(none, 1))
			clock_gettime(CLOCK_MONOTONIC, &t);
		_exit(0);
	}
	return e2e_reap(pid, 10000) != 0;
}

/* Where it is one. */
static const uint32_t e2e_clock_calls[] = {
	SYS_clock_gettime,
#ifdef SYS_clock_gettime64
	SYS_clock_gettime64,
#endif
};

#endif
