/*
 * cxx.c - C++'s operators new and delete, in C: their mangled names.
 *
 * A program or a library may define any of them itself, and those that it
 * does not define go by those that it does ([new.delete]): new[] and the
 * nothrow forms by new, sized and array deletes by delete, the aligned ones
 * likewise among themselves.  Where all are ours an operator's fast path is
 * that of malloc or free, instruction by instruction, but on a pointer of
 * its own, hz4_tls_operators.  That is the thread's cache only once it is
 * known that nothing is replaced; with a replacement it is the empty one for
 * ever, and each call comes to the slow path here.  There an operator calls
 *
 *   - the one that a library behind hz4 has under the same name, if any;
 *   - or the one that it goes by, through the dynamic linker, which finds
 *     the program's before ours;
 *   - or, being new, delete or an aligned one of these, the heap.
 *
 * All are weak, so that a program with the static library can define one of
 * them, and that no compiler takes what it sees here for what is called.
 *
 * The library must not need libstdc++.  Only when memory has run out, or
 * for a nothrow form of a replaced operator, is the program's own libstdc++
 * asked: its operators run the new_handler loop (through our malloc), throw
 * and catch.  Compiled with -fexceptions, so that the exception passes.
 */
#include "heap.h"
#include "log.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>

/* Else libc's own would be the second malloc of a program of new alone. */
HZ4_BRINGS(malloc);

/* How C++ mangles size_t. */
#if __SIZEOF_SIZE_T__ == 8
#define SIZE m
#else
#define SIZE j
#endif
#define JOIN3(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN3(a, b, c)
#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

/* The operators that others go by, under their own names. */
#define new JOIN(_Znw, SIZE, )
#define new_array JOIN(_Zna, SIZE, )
#define new_aligned JOIN(_Znw, SIZE, St11align_val_t)
#define new_aligned_array JOIN(_Zna, SIZE, St11align_val_t)
#define delete _ZdlPv
#define delete_array _ZdaPv
#define delete_aligned _ZdlPvSt11align_val_t
#define delete_aligned_array _ZdaPvSt11align_val_t

#define OPERATOR HZ4_EXPORT_HOT __attribute__((weak))

OPERATOR void *new(size_t size);
OPERATOR void *new_array(size_t size);
OPERATOR void *new_aligned(size_t size, size_t align);
OPERATOR void *new_aligned_array(size_t size, size_t align);
OPERATOR void delete(void *p);
OPERATOR void delete_array(void *p);
OPERATOR void delete_aligned(void *p, size_t align);
OPERATOR void delete_aligned_array(void *p, size_t align);

/* Ours, whoever has the name. */
#define OURS(own, name) \
	static __typeof__(name) own __attribute__((alias(TEXT(name))))

OURS(our_new, new);
OURS(our_new_array, new_array);
OURS(our_new_aligned, new_aligned);
OURS(our_new_aligned_array, new_aligned_array);
OURS(our_delete, delete);
OURS(our_delete_array, delete_array);
OURS(our_delete_aligned, delete_aligned);
OURS(our_delete_aligned_array, delete_aligned_array);

/* The address of a function comes out of dlsym as an object pointer. */
union code {
	void *address;
	void (*any)(void);
	void *(*plain)(size_t);
	void *(*aligned)(size_t, size_t);
	void *(*nothrow)(size_t, const void *);
	void *(*aligned_nothrow)(size_t, size_t, const void *);
	void (*drop)(void *);
	void (*drop_aligned)(void *, size_t);
};

/*
 * A program that has the static library of C++ in itself shows no operators
 * to dlsym, but perhaps these: hz4.pc sees to it.  The static library of hz4
 * (without PIC) asks the linker for them, since a weak reference takes
 * nothing out of an archive, and leaves the nothrow operators to libstdc++,
 * whose own catch what a new_handler throws, as no C can.
 */
#ifdef PIC
#define PERHAPS __attribute__((weak))
#define FOUND(f) ((f) != NULL)
#define IS_SHARED true
#else
#define PERHAPS
#define FOUND(f) true
#define IS_SHARED false
#endif
void (*_ZSt15get_new_handlerv(void))(void) PERHAPS;
void _ZSt17__throw_bad_allocv(void) PERHAPS __attribute__((noreturn));

/* Where the library lies that has an address. */
struct range {
	uintptr_t address, start, end;
};

static int
find_range(struct dl_phdr_info *library, size_t size, void *range)
{
	struct range *r = range;
	const ElfW(Phdr) *p = library->dlpi_phdr,
			 *end = p + library->dlpi_phnum;
	uintptr_t at;

	(void)size;
	r->start = UINTPTR_MAX;
	r->end = 0;
	for (; p < end; p++) {
		if (p->p_type != PT_LOAD)
			continue;
		at = library->dlpi_addr + p->p_vaddr;
		r->start = hz4_min(r->start, at);
		r->end = hz4_max(r->end, at + p->p_memsz);
	}
	return r->address >= r->start && r->address < r->end;
}

/* Do two addresses lie in one library?  dladdr would look for their names. */
static bool
same_library(const void *p, const void *q)
{
	struct range r = { (uintptr_t)p, 0, 0 };

	return p != NULL && dl_iterate_phdr(find_range, &r) != 0 &&
	       (uintptr_t)q >= r.start && (uintptr_t)q < r.end;
}

/*
 * Whether an operator is that of a C++ library, and no replacement: then
 * the new_handler is kept by the same one.
 */
static bool
is_runtime(const void *f)
{
	return same_library(f, dlsym(RTLD_NEXT, "_ZSt15get_new_handlerv"));
}

/* Perhaps a plugin's, which is not in the global scope. */
static void *
find_libstdcxx(void)
{
	return dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
}

static void *
find_operator(const char *name)
{
	void *library;
	void *f = dlsym(RTLD_NEXT, name);

	/* Behind ours there may be a library with operators of its own. */
	if (f != NULL && is_runtime(f))
		return f;
	library = find_libstdcxx();
	return library == NULL ? NULL : dlsym(library, name);
}

/* The new_handler loop of C++11, for want of libstdc++'s operator. */
static void *
loop(size_t align, size_t size, bool throws)
{
	void (*handler)(void);
	void *p;

	for (;;) {
		p = hz4_heap_aligned(align, size);
		if (p != NULL)
			return p;
		handler = NULL;
		if (FOUND(_ZSt15get_new_handlerv))
			handler = _ZSt15get_new_handlerv();
		if (handler != NULL)
			handler();
		else if (!throws)
			return NULL;
		else if (FOUND(_ZSt17__throw_bad_allocv))
			_ZSt17__throw_bad_allocv();
		else
			hz4_fatal("operator new: no memory for %zu bytes, and "
				  "no C++ library to throw bad_alloc",
				  size);
	}
}

/*
 * libstdc++ rounds the size up to the alignment; a size that wraps there
 * must fail as it did here, so the plain operator is asked for the most.
 */
static size_t
no_wrap(size_t size, size_t align)
{
	return size > SIZE_MAX - align ? SIZE_MAX / 2 + 1 : size;
}

static void *
heap_new(size_t size)
{
	void *p = hz4_heap_malloc(size);
	union code f;

	if (p != NULL)
		return p;
	f.address = find_operator(TEXT(new));
	return f.address ? f.plain(size) : loop(HZ4_ALIGN, size, true);
}

static void *
heap_new_aligned(size_t size, size_t align)
{
	void *p = hz4_heap_aligned(align, size);
	union code f;

	if (p != NULL)
		return p;
	size = no_wrap(size, align);
	f.address = find_operator(TEXT(new_aligned));
	return f.address ? f.aligned(size, align) : loop(align, size, true);
}

static void
heap_delete_aligned(void *p, size_t align)
{
	(void)align;
	hz4_heap_free(p);
}

enum parent {
	NEW,
	DELETE,
	NEW_ARRAY,
	DELETE_ARRAY,
	NEW_ALIGNED,
	DELETE_ALIGNED,
	NEW_ALIGNED_ARRAY,
	DELETE_ALIGNED_ARRAY,
	PARENTS
};

/*
 * The operators that others go by, what each is bound to, what it would be,
 * and what it goes by itself.  Volatile: a compiler knows that the two are
 * the same here.
 */
#define PARENT(name, own, by) \
	{ TEXT(name), (void (*)(void))(name), (void (*)(void))(own), \
	  (void (*)(void))(by) }
static const volatile struct {
	const char *name;
	void (*bound)(void);
	void (*ours)(void);
	void (*by)(void);
} parents[PARENTS] = {
	[NEW] = PARENT(new, our_new, heap_new),
	[DELETE] = PARENT(delete, our_delete, hz4_heap_free),
	[NEW_ARRAY] = PARENT(new_array, our_new_array, new),
	[DELETE_ARRAY] = PARENT(delete_array, our_delete_array, delete),
	[NEW_ALIGNED] = PARENT(new_aligned, our_new_aligned, heap_new_aligned),
	[DELETE_ALIGNED] = PARENT(delete_aligned, our_delete_aligned,
				  heap_delete_aligned),
	[NEW_ALIGNED_ARRAY] = PARENT(new_aligned_array, our_new_aligned_array,
				     new_aligned),
	[DELETE_ALIGNED_ARRAY] =
		PARENT(delete_aligned_array, our_delete_aligned_array,
		       delete_aligned),
};

/*
 * The same operators of a library behind hz4, NULL where it has none.
 * [atomic] relaxed: all write the same, before `looked`
 */
static void *_Atomic behind[PARENTS];

/* `behind` is known.  [atomic] release, acquire where it is read */
static _Atomic bool looked;

/* One that the program has opened: behind hz4 is then another one's. */
static bool
is_libstdcxx(const void *f, const char *name)
{
	void *library = find_libstdcxx();
	bool is = library != NULL && f == dlsym(library, name);

	if (library != NULL)
		dlclose(library);
	return is;
}

/*
 * Does a library behind hz4 replace operators?  One that has a malloc, too,
 * does not: it is another allocator, and hz4 takes its place.  Without
 * a C++ library nobody else in the global scope has operators; with one
 * dlsym finds them all.  Nothing is opened for that: a tracer in front may be
 * in its own first malloc, and have its lock.
 */
static void
look_behind(void)
{
	bool failed = false;
	unsigned i;
	void *f;

	if (!IS_SHARED || !FOUND(_ZSt15get_new_handlerv))
		return;
	for (i = 0; i < PARENTS; i++) {
		f = dlsym(RTLD_NEXT, parents[i].name);
		failed = failed || f == NULL;
		if (f == NULL || is_runtime(f) ||
		    is_libstdcxx(f, parents[i].name))
			continue;
		if (!same_library(f, dlsym(RTLD_NEXT, "malloc")))
			hz4_poke(&behind[i], f);
	}
	if (failed) /* nobody shall be told of it */
		dlerror();
}

/*
 * At start, while there is one thread as a rule: a later one might wait for
 * who holds the loader's lock and waits for it.
 */
__attribute__((constructor)) static void
look(void)
{
	if (atomic_load_explicit(&looked, memory_order_acquire))
		return;
	look_behind();
	atomic_store_explicit(&looked, true, memory_order_release);
}

/*
 * Whether an operator that others go by is not ours.  Also, at worst for
 * speed, where a program that is not position-independent takes an
 * operator's address: it is bound to an entry of that program's own table.
 */
static bool
replaced(void)
{
	unsigned i;

	for (i = 0; i < PARENTS; i++)
		if (parents[i].bound != parents[i].ours ||
		    hz4_peek(&behind[i]) != NULL)
			return true;
	return false;
}

/* An operator has missed: let the thread's next one hit, if it may. */
static HZ4_SLOW void
note_miss(void)
{
	look();
	if (hz4_tls_operators != hz4_tls_cache && !replaced())
		hz4_tls_operators = hz4_tls_cache;
}

/* What it goes by: the library's operator of this name, if there is one. */
static HZ4_SLOW union code
missed(enum parent which)
{
	union code f;

	note_miss();
	f.address = hz4_peek(&behind[which]);
	if (f.address == NULL)
		f.any = parents[which].by;
	return f;
}

/*
 * An open stack is one of the thread's cache, to which the operators come where
 * nobody replaces them: while mallocs are counted all come here.
 */
HZ4_FAST void *
plain_slow(enum parent which, size_t size, struct hz4_stack *s)
{
	void *p = NULL;

	if (hz4_peek(&s->low) == HZ4_STOP_OPEN)
		p = hz4_heap_malloc_slow(size, s);
	return p != NULL ? p : missed(which).plain(size);
}

static HZ4_DEEP void *
new_slow(size_t size, struct hz4_stack *s)
{
	return plain_slow(NEW, size, s);
}

static HZ4_DEEP void *
new_array_slow(size_t size, struct hz4_stack *s)
{
	return plain_slow(NEW_ARRAY, size, s);
}

static HZ4_SLOW void *
new_aligned_slow(size_t size, size_t align)
{
	return missed(NEW_ALIGNED).aligned(size, align);
}

static HZ4_SLOW void *
new_aligned_array_slow(size_t size, size_t align)
{
	return missed(NEW_ALIGNED_ARRAY).aligned(size, align);
}

#define OPERATOR_NEW(name, parameters, slow) \
	OPERATOR void *name parameters; \
	void *name parameters \
	{ \
		struct hz4_stack *s; \
		void *p; \
\
		if (hz4_likely(hz4_heap_pop(&hz4_tls_operators, size, &s, \
					    &p))) \
			return p; \
		return slow; \
	}

#define OPERATOR_NEW_ALIGNED(name, parameters, slow) \
	OPERATOR void *name parameters; \
	void *name parameters \
	{ \
		void *p; \
\
		if (hz4_likely(hz4_heap_pop_aligned(&hz4_tls_operators, \
						    align, size, &p))) \
			return p; \
		return slow; \
	}

OPERATOR_NEW(new, (size_t size), new_slow(size, s))
OPERATOR_NEW(new_array, (size_t size), new_array_slow(size, s))
OPERATOR_NEW_ALIGNED(new_aligned, (size_t size, size_t align),
		     new_aligned_slow(size, align))
OPERATOR_NEW_ALIGNED(new_aligned_array, (size_t size, size_t align),
		     new_aligned_array_slow(size, align))

#ifdef PIC
enum nothrow { THROWS_NOT, ARRAY, ALIGNED, ALIGNED_ARRAY, NOTHROWS };

/*
 * libstdc++'s own nothrow forms, NULL until they are asked for.  They call
 * the operators that they go by through the dynamic linker, too, and catch.
 * [atomic] relaxed: all write the same
 */
static void *_Atomic nothrows[NOTHROWS];

static union code
find_nothrow(enum nothrow which)
{
	static const char *const names[NOTHROWS] = {
		TEXT(JOIN(_Znw, SIZE, RKSt9nothrow_t)),
		TEXT(JOIN(_Zna, SIZE, RKSt9nothrow_t)),
		TEXT(JOIN(_Znw, SIZE, St11align_val_tRKSt9nothrow_t)),
		TEXT(JOIN(_Zna, SIZE, St11align_val_tRKSt9nothrow_t)),
	};
	union code f = { .address = hz4_peek(&nothrows[which]) };

	if (f.address == NULL) {
		f.address = find_operator(names[which]);
		hz4_poke(&nothrows[which], f.address);
	}
	return f;
}

/*
 * Where there is no libstdc++, nobody can catch what is thrown.  Here and
 * below the arguments are in the fast path's order, so that it jumps without
 * moving registers.
 */
static HZ4_SLOW void *
nothrow_slow(size_t size, const void *tag, enum nothrow which)
{
	bool theirs;
	union code f;
	void *p;

	note_miss();
	theirs = replaced();
	p = theirs ? NULL : hz4_heap_malloc(size);
	if (p != NULL)
		return p;
	f = find_nothrow(which);
	if (f.address != NULL)
		return f.nothrow(size, tag);
	if (!theirs)
		return loop(HZ4_ALIGN, size, false);
	return which == ARRAY ? new_array(size) : new(size);
}

static HZ4_SLOW void *
nothrow_aligned_slow(size_t size, size_t align, const void *tag,
		     enum nothrow which)
{
	bool theirs;
	union code f;
	void *p;

	note_miss();
	theirs = replaced();
	p = theirs ? NULL : hz4_heap_aligned(align, size);
	if (p != NULL)
		return p;
	if (!theirs)
		size = no_wrap(size, align);
	f = find_nothrow(which);
	if (f.address != NULL)
		return f.aligned_nothrow(size, align, tag);
	if (!theirs)
		return loop(align, size, false);
	return which == ALIGNED_ARRAY ? new_aligned_array(size, align) :
					new_aligned(size, align);
}

OPERATOR_NEW(JOIN(_Znw, SIZE, RKSt9nothrow_t), (size_t size, const void *tag),
	     nothrow_slow(size, tag, THROWS_NOT))
OPERATOR_NEW(JOIN(_Zna, SIZE, RKSt9nothrow_t), (size_t size, const void *tag),
	     nothrow_slow(size, tag, ARRAY))
OPERATOR_NEW_ALIGNED(JOIN(_Znw, SIZE, St11align_val_tRKSt9nothrow_t),
		     (size_t size, size_t align, const void *tag),
		     nothrow_aligned_slow(size, align, tag, ALIGNED))
OPERATOR_NEW_ALIGNED(JOIN(_Zna, SIZE, St11align_val_tRKSt9nothrow_t),
		     (size_t size, size_t align, const void *tag),
		     nothrow_aligned_slow(size, align, tag, ALIGNED_ARRAY))
#endif

static HZ4_SLOW void
delete_slow(void *p)
{
	missed(DELETE).drop(p);
}

static HZ4_SLOW void
delete_array_slow(void *p)
{
	missed(DELETE_ARRAY).drop(p);
}

static HZ4_SLOW void
delete_aligned_slow(void *p, size_t align)
{
	missed(DELETE_ALIGNED).drop_aligned(p, align);
}

static HZ4_SLOW void
delete_aligned_array_slow(void *p, size_t align)
{
	missed(DELETE_ALIGNED_ARRAY).drop_aligned(p, align);
}

/* What the sized and the nothrow forms go by. */
static HZ4_SLOW void
by_delete(void *p)
{
	note_miss();
	delete(p);
}

static HZ4_SLOW void
by_delete_array(void *p)
{
	note_miss();
	delete_array(p);
}

static HZ4_SLOW void
by_delete_aligned(void *p, size_t align)
{
	note_miss();
	delete_aligned(p, align);
}

static HZ4_SLOW void
by_delete_aligned_array(void *p, size_t align)
{
	note_miss();
	delete_aligned_array(p, align);
}

static HZ4_SLOW void
by_delete_aligned_sized(void *p, size_t size, size_t align)
{
	(void)size;
	by_delete_aligned(p, align);
}

static HZ4_SLOW void
by_delete_aligned_array_sized(void *p, size_t size, size_t align)
{
	(void)size;
	by_delete_aligned_array(p, align);
}

/* Sizes and alignments are not needed to find the object. */
#define OPERATOR_DELETE(name, parameters, slow) \
	OPERATOR void name parameters; \
	void name parameters \
	{ \
		if (hz4_unlikely(!hz4_heap_push(&hz4_tls_operators, p))) \
			slow; \
	}

#define U __attribute__((unused))

OPERATOR_DELETE(delete, (void *p), delete_slow(p))
OPERATOR_DELETE(delete_array, (void *p), delete_array_slow(p))
OPERATOR_DELETE(_ZdlPvRKSt9nothrow_t, (void *p, const void *tag U),
		by_delete(p))
OPERATOR_DELETE(_ZdaPvRKSt9nothrow_t, (void *p, const void *tag U),
		by_delete_array(p))
OPERATOR_DELETE(JOIN(_ZdlPv, SIZE, ), (void *p, size_t size U), by_delete(p))
OPERATOR_DELETE(JOIN(_ZdaPv, SIZE, ), (void *p, size_t size U),
		by_delete_array(p))
OPERATOR_DELETE(delete_aligned, (void *p, size_t align),
		delete_aligned_slow(p, align))
OPERATOR_DELETE(delete_aligned_array, (void *p, size_t align),
		delete_aligned_array_slow(p, align))
OPERATOR_DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t,
		(void *p, size_t align, const void *tag U),
		by_delete_aligned(p, align))
OPERATOR_DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t,
		(void *p, size_t align, const void *tag U),
		by_delete_aligned_array(p, align))
OPERATOR_DELETE(JOIN(_ZdlPv, SIZE, St11align_val_t),
		(void *p, size_t size, size_t align),
		by_delete_aligned_sized(p, size, align))
OPERATOR_DELETE(JOIN(_ZdaPv, SIZE, St11align_val_t),
		(void *p, size_t size, size_t align),
		by_delete_aligned_array_sized(p, size, align))
