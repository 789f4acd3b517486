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

/*
 * One of these, and as our_NAME the one that is here, whoever has the name.
 * The name is the alias: with -flto gcc drops a definition that the linker
 * does not take, and all aliases of it.
 */
#define OURS(name) JOIN(our_, name, )
#define DECLARE(result, name, parameters) \
	OPERATOR result name parameters; \
	static __typeof__(name) OURS(name); \
	extern __typeof__(name) name __attribute__((alias(TEXT(OURS(name)))))
#define OUR static __attribute__((aligned(64)))

DECLARE(void *, new, (size_t size));
DECLARE(void *, new_array, (size_t size));
DECLARE(void *, new_aligned, (size_t size, size_t align));
DECLARE(void *, new_aligned_array, (size_t size, size_t align));
DECLARE(void, delete, (void *p));
DECLARE(void, delete_array, (void *p));
DECLARE(void, delete_aligned, (void *p, size_t align));
DECLARE(void, delete_aligned_array, (void *p, size_t align));

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
	NEW_ALIGNED, /* this one and the next ones are told the alignment */
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
#define PARENT(name, by) \
	{ TEXT(name), (void (*)(void))(name), \
	  (void (*)(void))OURS(name), (void (*)(void))(by) }
static const volatile struct {
	const char *name;
	void (*bound)(void);
	void (*ours)(void);
	void (*by)(void);
} parents[PARENTS] = {
	[NEW] = PARENT(new, heap_new),
	[DELETE] = PARENT(delete, hz4_heap_free),
	[NEW_ARRAY] = PARENT(new_array, new),
	[DELETE_ARRAY] = PARENT(delete_array, delete),
	[NEW_ALIGNED] = PARENT(new_aligned, heap_new_aligned),
	[DELETE_ALIGNED] = PARENT(delete_aligned, heap_delete_aligned),
	[NEW_ALIGNED_ARRAY] = PARENT(new_aligned_array, new_aligned),
	[DELETE_ALIGNED_ARRAY] = PARENT(delete_aligned_array, delete_aligned),
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
static HZ4_DEEP void *
new_slow(size_t size, struct hz4_stack *s, enum parent which)
{
	void *p = NULL;

	if (hz4_peek(&s->low) == HZ4_STOP_OPEN)
		p = hz4_heap_malloc_slow(size, s);
	return p != NULL ? p : missed(which).plain(size);
}

static HZ4_SLOW void *
new_aligned_slow(size_t size, size_t align, enum parent which)
{
	return missed(which).aligned(size, align);
}

#define DEFINE_NEW(kind, name, parameters, slow) \
	kind void *name parameters \
	{ \
		struct hz4_stack *s; \
		void *p; \
\
		if (hz4_likely(hz4_heap_pop(&hz4_tls_operators, size, &s, \
					    &p))) \
			return p; \
		return slow; \
	}

#define DEFINE_NEW_ALIGNED(kind, name, parameters, slow) \
	kind void *name parameters \
	{ \
		void *p; \
\
		if (hz4_likely(hz4_heap_pop_aligned(&hz4_tls_operators, \
						    align, size, &p))) \
			return p; \
		return slow; \
	}

DEFINE_NEW(OUR, OURS(new), (size_t size), new_slow(size, s, NEW))
DEFINE_NEW(OUR, OURS(new_array), (size_t size), new_slow(size, s, NEW_ARRAY))
DEFINE_NEW_ALIGNED(OUR, OURS(new_aligned), (size_t size, size_t align),
		   new_aligned_slow(size, align, NEW_ALIGNED))
DEFINE_NEW_ALIGNED(OUR, OURS(new_aligned_array), (size_t size, size_t align),
		   new_aligned_slow(size, align, NEW_ALIGNED_ARRAY))

#ifdef PIC
/*
 * libstdc++'s own nothrow forms, NULL until they are asked for.  They call
 * the operators that they go by through the dynamic linker, too, and catch.
 * [atomic] relaxed: all write the same
 */
static void *_Atomic nothrows[PARENTS];

static union code
find_nothrow(enum parent which)
{
	static const char *const names[PARENTS] = {
		[NEW] = TEXT(JOIN(_Znw, SIZE, RKSt9nothrow_t)),
		[NEW_ARRAY] = TEXT(JOIN(_Zna, SIZE, RKSt9nothrow_t)),
		[NEW_ALIGNED] =
			TEXT(JOIN(_Znw, SIZE, St11align_val_tRKSt9nothrow_t)),
		[NEW_ALIGNED_ARRAY] =
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
 * The nothrow form of an operator.  Where there is no libstdc++, nobody can
 * catch what is thrown.
 */
static HZ4_SLOW void *
nothrow_slow(size_t size, size_t align, const void *tag, enum parent which)
{
	bool theirs, plain = which < NEW_ALIGNED;
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
		return plain ? f.nothrow(size, tag) :
			       f.aligned_nothrow(size, align, tag);
	if (!theirs)
		return loop(align, size, false);
	f.any = parents[which].bound;
	return plain ? f.plain(size) : f.aligned(size, align);
}

#define OPERATOR_NEW(name, parameters, slow) \
	OPERATOR void *name parameters; \
	DEFINE_NEW(, name, parameters, slow)
#define OPERATOR_NEW_ALIGNED(name, parameters, slow) \
	OPERATOR void *name parameters; \
	DEFINE_NEW_ALIGNED(, name, parameters, slow)

OPERATOR_NEW(JOIN(_Znw, SIZE, RKSt9nothrow_t), (size_t size, const void *tag),
	     nothrow_slow(size, HZ4_ALIGN, tag, NEW))
OPERATOR_NEW(JOIN(_Zna, SIZE, RKSt9nothrow_t), (size_t size, const void *tag),
	     nothrow_slow(size, HZ4_ALIGN, tag, NEW_ARRAY))
OPERATOR_NEW_ALIGNED(JOIN(_Znw, SIZE, St11align_val_tRKSt9nothrow_t),
		     (size_t size, size_t align, const void *tag),
		     nothrow_slow(size, align, tag, NEW_ALIGNED))
OPERATOR_NEW_ALIGNED(JOIN(_Zna, SIZE, St11align_val_tRKSt9nothrow_t),
		     (size_t size, size_t align, const void *tag),
		     nothrow_slow(size, align, tag, NEW_ALIGNED_ARRAY))
#endif

static void
drop(union code f, void *p, enum parent which, size_t align)
{
	if (which < NEW_ALIGNED)
		f.drop(p);
	else
		f.drop_aligned(p, align);
}

/*
 * In this order no fast path, gcc's at least, has to keep an alignment; that
 * of a plain one is of no use.
 */
static HZ4_SLOW void
delete_slow(void *p, enum parent which, size_t align)
{
	drop(missed(which), p, which, align);
}

/* A sized or a nothrow form, by the operator that it goes by. */
static HZ4_SLOW void
by(void *p, enum parent which, size_t align)
{
	note_miss();
	drop((union code){ .any = parents[which].bound }, p, which, align);
}

/* Sizes and alignments are not needed to find the object. */
#define DEFINE_DELETE(kind, name, parameters, slow) \
	kind void name parameters \
	{ \
		if (hz4_unlikely(!hz4_heap_push(&hz4_tls_operators, p))) \
			slow; \
	}

#define U __attribute__((unused))

#define OPERATOR_DELETE(name, parameters, slow) \
	OPERATOR void name parameters; \
	DEFINE_DELETE(, name, parameters, slow)

DEFINE_DELETE(OUR, OURS(delete), (void *p), delete_slow(p, DELETE, 0))
DEFINE_DELETE(OUR, OURS(delete_array), (void *p),
	      delete_slow(p, DELETE_ARRAY, 0))
DEFINE_DELETE(OUR, OURS(delete_aligned), (void *p, size_t align),
	      delete_slow(p, DELETE_ALIGNED, align))
DEFINE_DELETE(OUR, OURS(delete_aligned_array), (void *p, size_t align),
	      delete_slow(p, DELETE_ALIGNED_ARRAY, align))
OPERATOR_DELETE(_ZdlPvRKSt9nothrow_t, (void *p, const void *tag U),
		by(p, DELETE, 0))
OPERATOR_DELETE(_ZdaPvRKSt9nothrow_t, (void *p, const void *tag U),
		by(p, DELETE_ARRAY, 0))
OPERATOR_DELETE(JOIN(_ZdlPv, SIZE, ), (void *p, size_t size U),
		by(p, DELETE, 0))
OPERATOR_DELETE(JOIN(_ZdaPv, SIZE, ), (void *p, size_t size U),
		by(p, DELETE_ARRAY, 0))
OPERATOR_DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t,
		(void *p, size_t align, const void *tag U),
		by(p, DELETE_ALIGNED, align))
OPERATOR_DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t,
		(void *p, size_t align, const void *tag U),
		by(p, DELETE_ALIGNED_ARRAY, align))
OPERATOR_DELETE(JOIN(_ZdlPv, SIZE, St11align_val_t),
		(void *p, size_t size U, size_t align),
		by(p, DELETE_ALIGNED, align))
OPERATOR_DELETE(JOIN(_ZdaPv, SIZE, St11align_val_t),
		(void *p, size_t size U, size_t align),
		by(p, DELETE_ALIGNED_ARRAY, align))
