/*
 * sys.c - the instruction that calls the kernel, where it is known here; else
 * libc's syscall().
 */
#include "sys.h"

#include <errno.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__LP64__)

static long
call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long r;

	__asm__ volatile(
	    "syscall"
	    : "=a"(r)
	    : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	    : "rcx", "r11", "memory", "cc");
	return r;
}

#elif defined(__aarch64__) && defined(__LP64__)

static long
call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory", "cc");
	return x0;
}

#else

static long
call(long number, long a, long b, long c, long d, long e, long f)
{
	long r = syscall(number, a, b, c, d, e, f);

	return r == -1 ? -errno : r;
}

#endif

long
hz4_syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	enum { LAST_ERRNO = 4095 };
	long r = call(number, a, b, c, d, e, f);

	if (r >= 0 || r < -LAST_ERRNO)
		return r;
	errno = (int)-r;
	return -1;
}
