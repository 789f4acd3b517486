/*
 * dlopen.c - dlopen without RTLD_DEEPBIND, in front of libc's.
 *
 * With the flag a library finds the names of its own dependencies, libc's
 * malloc among them, before those of the program and of what is preloaded:
 * what it allocates the program then frees on another heap, and the reverse.
 * So the flag is dropped (option deepbind) and the next dlopen called, by a
 * jump: libc tells by the return address who the caller is, and by that
 * which search path and which namespace are meant.
 *
 * Not in the static library, where there may be no next one; nor is dlmopen
 * here: a new namespace has a libc of its own, and so a heap.
 */
#include "option.h"
#include "thread.h"

#include <dlfcn.h>

#ifdef PIC

/*
 * A call in the last place is a jump, also in builds that are not
 * optimised.
 */
#if __has_attribute(musttail)
#define TAIL_CALLS
#define TAIL_RETURN __attribute__((musttail)) return
#else
#define TAIL_CALLS __attribute__((optimize("O2")))
#define TAIL_RETURN return
#endif

typedef void *dlopen_function(const char *file, int mode);

/* [atomic] relaxed: all write the same */
static dlopen_function *_Atomic next;

/*
 * Another preloaded library's, or libc's.  Not before the first call: dlsym
 * may allocate.  NULL, with the reason in dlerror(), where there is none.
 */
static HZ4_SLOW dlopen_function *
find_next(void)
{
	union {
		void *address;
		dlopen_function *code;
	} f = { .address = dlsym(RTLD_NEXT, "dlopen") };

	hz4_poke(&next, f.code);
	return f.code;
}

static int
without_deepbind(int mode)
{
	hz4_thread_start();
	return hz4_option(HZ4_OPT_deepbind) ? mode : mode & ~RTLD_DEEPBIND;
}

HZ4_EXPORT TAIL_CALLS void *
dlopen(const char *file, int mode)
{
	dlopen_function *f = hz4_peek(&next);

	if (f == NULL)
		f = find_next();
	if (f == NULL)
		return NULL;
	mode = without_deepbind(mode);
	TAIL_RETURN f(file, mode);
}

#endif
