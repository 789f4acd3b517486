/*
 * cpu.h - a number by which threads that run at once differ.
 *
 * The kernel's concurrency id where it has one: below the number of threads
 * that run at once, whatever CPUs they are on.  Else the CPU's number; else,
 * where libc has not registered the thread for rseq(2), a ticket of the
 * thread's.  No system call, nothing that another library can come between.
 *
 * A hint: the thread may be moved as soon as it is told.
 *
 * Layer 1.
 */
#ifndef HZ4_CPU_H
#define HZ4_CPU_H

#include "base.h"

/* After hz4_os_init.  Any value, usually a small one. */
unsigned hz4_cpu_number(void);

#endif
