/*
 * backtrace.c - the unwinder, and the chain of frame pointers.
 */
#include "backtrace.h"

#include "option.h"
#include "where.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

/* Frames of the library's own above those that are wanted. */
enum { OWN_MOST = 16 };

/* The static library's (malloc.c); no address in the shared one. */
extern const struct hz4_unwinder hz4_own_unwinder
	__attribute__((weak, visibility("hidden")));
/* Not to be brought into a static program that has none. */
#pragma weak dlsym
/* glibc's, from 2.32 on. */
extern char __libc_single_threaded __attribute__((weak));

static union {
	void *address;
	__typeof__(_Unwind_Backtrace) *code;
} walk_stack; /* [const] once walks are wanted */
static union {
	void *address;
	__typeof__(HZ4_UNWIND_GET) *code;
} get; /* the same */

/*
 * Whether a walk takes the loader's lock, and whether that may be held for
 * ever here: in the child of a fork by who was in the midst of it.
 */
static bool locks, locked_out; /* [const] as these; since the fork */

/* The text of the library; nothing where it is part of a program. */
static uintptr_t own_start, own_end;

/* The linker's: of the library, whose addresses begin at 0 in its file. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

struct walk {
	uintptr_t *to;
	unsigned n, most;
};

#ifdef __ARM_EABI_UNWINDER__
static uintptr_t
address_of(struct _Unwind_Context *context)
{
	uint32_t address = 0;

	get.code(context, _UVRSC_CORE, 15, _UVRSD_UINT32, &address);
	/* The lowest bit is that of Thumb code. */
	return address & ~(uint32_t)1;
}
#else
static uintptr_t
address_of(struct _Unwind_Context *context)
{
	return (uintptr_t)get.code(context);
}
#endif

static _Unwind_Reason_Code
see_frame(struct _Unwind_Context *context, void *arg)
{
	struct walk *w = arg;
	uintptr_t address = address_of(context);

	if (address == 0 || w->n == w->most)
		return _URC_END_OF_STACK;
	w->to[w->n++] = address;
	return _URC_NO_REASON;
}

/* By the name that the program has it by; no symbol of ours is to be found. */
static void *
load_unwinder(void)
{
	union {
		void *address;
		__typeof__(dlopen) *code;
	} load = { .address = dlsym(RTLD_DEFAULT, "dlopen") };

	return load.address != NULL ?
		       load.code("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL) :
		       NULL;
}

/*
 * With glibc 2.35 and gcc 12 tables are found without a lock.  On i386 a C
 * program's unwinder finds them by libc's old function instead of its own.
 */
static bool
takes_lock(void *library)
{
	static const char finder[] = "_Unwind_Find_FDE";
	void *first = dlsym(RTLD_DEFAULT, finder);

	return dlsym(RTLD_DEFAULT, "_dl_find_object") == NULL ||
	       (first != NULL && first != dlsym(library, finder));
}

static void
find_unwinder(void)
{
	void *library;

	if (&hz4_own_unwinder != NULL) {
		get.code = hz4_own_unwinder.get;
		walk_stack.code = get.code != NULL ?
					  hz4_own_unwinder.walk : NULL;
	}
	if (walk_stack.code != NULL || &dlsym == NULL)
		return;
	library = load_unwinder();
	if (library == NULL)
		return;
	locks = takes_lock(library);
	get.address = dlsym(library, TEXT(HZ4_UNWIND_GET));
	if (get.address != NULL)
		walk_stack.address = dlsym(library, "_Unwind_Backtrace");
}

/* In a static program, whose headers these are, all text is the program's. */
static void
find_own_text(void)
{
	uintptr_t start = (uintptr_t)&__ehdr_start;
	const ElfW(Phdr) *h = (const void *)(start + __ehdr_start.e_phoff);
	unsigned n = __ehdr_start.e_phnum;

	if ((uintptr_t)h == getauxval(AT_PHDR))
		return;
	for (; n > 0; n--, h++) {
		if (h->p_type != PT_LOAD || !(h->p_flags & PF_X))
			continue;
		own_start = start + h->p_vaddr;
		own_end = own_start + h->p_memsz;
	}
}

void
hz4_backtrace_start(void)
{
	uintptr_t frames[OWN_MOST] = { 0 };
	struct walk w = { frames, 0, OWN_MOST };

	if (walk_stack.code != NULL)
		return;
	find_own_text();
	find_unwinder();
	if (walk_stack.code != NULL)
		walk_stack.code(see_frame, &w);
}

void
hz4_backtrace_fork_child(void)
{
	if (locks)
		locked_out = !(&__libc_single_threaded != NULL &&
			       __libc_single_threaded);
}

static bool
is_mapping_of(const struct hz4_where *m, void *arg)
{
	struct hz4_sampler *thread = arg;

	if (thread->frame - m->start >= m->end - m->start)
		return true;
	thread->bounds[0] = m->start;
	thread->bounds[1] = m->end;
	return false;
}

/* The mapping that the thread's stack is in: its own, or one by coroutines. */
static bool
is_on_stack(struct hz4_sampler *thread, uintptr_t frame)
{
	if (frame - thread->bounds[0] < thread->bounds[1] - thread->bounds[0])
		return true;
	thread->bounds[0] = thread->bounds[1] = 0;
	thread->frame = frame;
	hz4_where_each(is_mapping_of, thread);
	return thread->bounds[1] != 0;
}

/*
 * A frame is two words: where the caller's is, and the return address.  Each
 * lies above the one before, and within the stack.
 */
static unsigned
follow_pointers(uintptr_t *to, unsigned most, const struct hz4_caller *from,
		struct hz4_sampler *thread)
{
	uintptr_t frame = (uintptr_t)from->frame, last = 0, words[2];
	unsigned n = 0;

	if (!is_on_stack(thread, frame))
		return 0;
	while (n < most && frame > last && frame % sizeof *words == 0 &&
	       frame <= thread->bounds[1] - sizeof words) {
		memcpy(words, (const void *)frame, sizeof words);
		if (words[1] == 0)
			break;
		to[n++] = words[1];
		last = frame;
		frame = words[0];
	}
	return n;
}

static unsigned
unwind(uintptr_t *to, unsigned most, const struct hz4_caller *from)
{
	uintptr_t all[HZ4_BACKTRACE_MOST + OWN_MOST];
	struct walk w = { all, 0, most + OWN_MOST };
	unsigned skip = 0;

	if (walk_stack.code == NULL)
		return 0;
	if (locked_out) {
		*to = (uintptr_t)from->address;
		return 1;
	}
	walk_stack.code(see_frame, &w);
	while (skip < w.n && from->address != NULL &&
	       all[skip] != (uintptr_t)from->address)
		skip++;
	if (skip == w.n)
		return 0;
	w.n = (unsigned)hz4_min(w.n - skip, most);
	memcpy(to, all + skip, w.n * sizeof *to);
	return w.n;
}

unsigned
hz4_backtrace(uintptr_t *to, unsigned most, const struct hz4_caller *from,
	      struct hz4_sampler *thread)
{
	unsigned n, own = 0;

	if (hz4_option(HZ4_OPT_frame_pointers))
		n = follow_pointers(to, most, from, thread);
	else
		n = unwind(to, most, from);
	/* A return address may lie just behind the last call. */
	while (own < n && own_end != 0 &&
	       to[own] - own_start <= own_end - own_start)
		own++;
	memmove(to, to + own, (n - own) * sizeof *to);
	return n - own;
}
