/*
 * Counts the instructions of one malloc and of one free, and of C++'s
 * operators, by running them in a child one instruction at a time.  A disassembly shows every path; this
 * shows the one that is taken when the thread's cache can serve the call.
 *
 * Prints a line for each call: NAME SIZE INSTRUCTIONS CALLS LOCKS.  Exits
 * with 77 where this cannot be done.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void
skip(const char *reason)
{
	printf("%s\n", reason);
	exit(77);
}

#ifndef __x86_64__

int
main(void)
{
	skip("x86-64 only");
}

#else

enum {
	WARM_ROUNDS = 100,
	STEP_LIMIT = 1000000,
	INSN_MAX = 15,
};

struct count {
	unsigned instructions;
	unsigned calls;
	unsigned locks;
};

static const size_t sizes[] = { 16, 100, 1024, 2048, 2049, 10000, 65536 };

/*
 * All are called as malloc(size, align) and free(p, size, align), in any
 * order of the latter: it does not matter here what the numbers are.
 */
typedef void *make_function(size_t size, size_t align);
typedef void drop_function(void *p, size_t size, size_t align);

enum { ALIGN = 64 };

static const struct pair {
	const char *make, *drop;
} pairs[] = {
	{ "malloc", "free" },
	{ "_Znwm", "_ZdlPv" },
	{ "_Znwm", "_ZdlPvm" },
	{ "_Znam", "_ZdaPv" },
	{ "_Znam", "_ZdaPvm" },
	{ "_ZnwmRKSt9nothrow_t", "_ZdlPvRKSt9nothrow_t" },
	{ "_ZnamRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t" },
	{ "_ZnwmSt11align_val_t", "_ZdlPvSt11align_val_t" },
	{ "_ZnwmSt11align_val_t", "_ZdlPvmSt11align_val_t" },
	{ "_ZnamSt11align_val_t", "_ZdaPvSt11align_val_t" },
	{ "_ZnamSt11align_val_t", "_ZdaPvmSt11align_val_t" },
	{ "_ZnwmSt11align_val_tRKSt9nothrow_t",
	    "_ZdlPvSt11align_val_tRKSt9nothrow_t" },
	{ "_ZnamSt11align_val_tRKSt9nothrow_t",
	    "_ZdaPvSt11align_val_tRKSt9nothrow_t" },
};

enum {
	PAIRS = sizeof(pairs) / sizeof(pairs[0]),
	SIZES = sizeof(sizes) / sizeof(sizes[0]),
};

static union {
	void *address;
	make_function *make;
	drop_function *drop;
} makes[PAIRS], drops[PAIRS];

/* The operators for the first sizes only. */
static unsigned
sizes_of(unsigned pair)
{
	return pair == 0 ? SIZES : 2;
}

/* Stops before each pair of calls that is to be counted. */
static void
child(void)
{
	for (unsigned i = 0; i < PAIRS; i++)
		for (unsigned j = 0; j < sizes_of(i); j++) {
			void *p;

			for (int k = 0; k < WARM_ROUNDS; k++) {
				p = makes[i].make(sizes[j], ALIGN);
				drops[i].drop(p, sizes[j], ALIGN);
			}
			raise(SIGSTOP);
			p = makes[i].make(sizes[j], ALIGN);
			drops[i].drop(p, sizes[j], ALIGN);
		}
	_exit(0);
}

static _Noreturn void
broken(const char *what)
{
	fprintf(stderr, "stepcount: %s\n", what);
	exit(99);
}

static void
step(pid_t pid, struct user_regs_struct *regs)
{
	int status;

	if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 ||
	    waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
	    WSTOPSIG(status) != SIGTRAP ||
	    ptrace(PTRACE_GETREGS, pid, NULL, regs) != 0)
		broken("the child does not step");
}

static uint64_t
peek(pid_t pid, uint64_t addr)
{
	/* A null result with errno set cannot happen: it is mapped. */
	return (uint64_t)ptrace(PTRACE_PEEKDATA, pid, (void *)addr, NULL);
}

static int
is_prefix(unsigned char byte)
{
	return byte == 0x66 || byte == 0x67 || byte == 0x2e || byte == 0x36 ||
	    byte == 0x3e || byte == 0x26 || byte == 0x64 || byte == 0x65 ||
	    byte == 0xf0 || byte == 0xf2 || byte == 0xf3 ||
	    (byte & 0xf0) == 0x40;
}

/* Classify the instruction at addr, which is about to be executed. */
static void
classify(pid_t pid, uint64_t addr, struct count *count)
{
	union {
		uint64_t word[2];
		unsigned char byte[16];
	} code = { { peek(pid, addr), peek(pid, addr + 8) } };
	unsigned char *b = code.byte;
	int lock = 0;

	/* A landing pad of -fcf-protection is the user's wish. */
	if (b[0] == 0xf3 && b[1] == 0x0f && b[2] == 0x1e && b[3] == 0xfa)
		return;
	while (b < code.byte + INSN_MAX - 2 && is_prefix(*b))
		lock |= *b++ == 0xf0;
	count->instructions++;
	/* call rel32; call r/m64; xchg with memory locks by itself. */
	count->calls += b[0] == 0xe8 || (b[0] == 0xff && (b[1] & 0x38) == 0x10);
	count->locks += lock || ((b[0] == 0x86 || b[0] == 0x87) && b[1] < 0xc0);
}

/* Run the child to the function at entry, and count to its return. */
static struct count
count_call(pid_t pid, uint64_t entry)
{
	struct user_regs_struct regs = { 0 };
	struct count count = { 0, 0, 0 };
	uint64_t back, stack;
	long left = STEP_LIMIT;

	do
		step(pid, &regs);
	while (regs.rip != entry && --left > 0);
	back = peek(pid, regs.rsp);
	stack = regs.rsp;
	while ((regs.rip != back || regs.rsp <= stack) && --left > 0) {
		classify(pid, regs.rip, &count);
		step(pid, &regs);
	}
	if (left <= 0)
		broken("the call is not found, or does not end");
	return count;
}

/* Count the next pair of calls of the child. */
static void
count_pair(pid_t pid, unsigned i, size_t size)
{
	struct count c;
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid ||
	    (WIFEXITED(status) && WEXITSTATUS(status) == 77))
		skip("ptrace is not allowed");
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		broken("the child does not stop");
	c = count_call(pid, (uintptr_t)makes[i].address);
	printf("%s %zu %u %u %u\n", pairs[i].make, size, c.instructions,
	    c.calls, c.locks);
	c = count_call(pid, (uintptr_t)drops[i].address);
	printf("%s %zu %u %u %u\n", pairs[i].drop, size, c.instructions,
	    c.calls, c.locks);
	if (ptrace(PTRACE_CONT, pid, NULL, NULL) != 0)
		broken("the child does not go on");
}

int
main(void)
{
	/* Not &malloc, which may be an entry of this program's own table. */
	void *lib = dlopen("libhz4.so.0", RTLD_LAZY | RTLD_NOLOAD);
	pid_t pid;
	int status;

	if (!lib)
		skip("not linked to the shared library");
	for (unsigned i = 0; i < PAIRS; i++) {
		makes[i].address = dlsym(lib, pairs[i].make);
		drops[i].address = dlsym(lib, pairs[i].drop);
		if (makes[i].address == NULL || drops[i].address == NULL)
			broken(pairs[i].make);
	}

	pid = fork();
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			_exit(77);
		child();
	}
	for (unsigned i = 0; i < PAIRS; i++)
		for (unsigned j = 0; j < sizes_of(i); j++)
			count_pair(pid, i, sizes[j]);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		broken("the child does not end");
	return 0;
}

#endif
