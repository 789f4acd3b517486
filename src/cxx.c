/*
 * cxx.c - C++'s operators new and delete, in C: their mangled names.
 *
 * The library must not need libstdc++.  Only when memory has run out is the
 * program's own libstdc++ asked: its operator runs the new_handler loop
 * (through our malloc) and throws.  Compiled with -fexceptions, so that the
 * exception passes.
 */
#include "heap.h"
#include "log.h"

#include <dlfcn.h>
#include <errno.h>
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
#else
#define PERHAPS
#define FOUND(f) true
#endif
void (*_ZSt15get_new_handlerv(void))(void) PERHAPS;
void _ZSt17__throw_bad_allocv(void) PERHAPS __attribute__((noreturn));

static void *
find_operator(const char *name)
{
	void *library;
	void *f = dlsym(RTLD_NEXT, name);

	if (f != NULL)
		return f;
	/* A plugin's libstdc++ is not in the global scope. */
	library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
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

/* The address of a function comes out of dlsym as an object pointer. */
union code {
	void *address;
	void *(*plain)(size_t);
	void *(*aligned)(size_t, size_t);
};

static HZ4_SLOW void *
new_failed(const char *name, size_t size)
{
	union code f = { .address = find_operator(name) };

	return f.address ? f.plain(size) : loop(HZ4_ALIGN, size, true);
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

static HZ4_SLOW void *
new_aligned_failed(const char *name, size_t size, size_t align)
{
	union code f = { .address = find_operator(name) };

	size = no_wrap(size, align);
	return f.address ? f.aligned(size, align) : loop(align, size, true);
}

/* `op` is nw (new) or na (new[]). */
#define NEW(op) \
	HZ4_EXPORT_HOT void *JOIN(_Z, op, SIZE)(size_t size); \
	void *JOIN(_Z, op, SIZE)(size_t size) \
	{ \
		void *p = hz4_heap_malloc(size); \
\
		return hz4_likely(p != NULL) ? \
			       p : \
			       new_failed("_Z" #op TEXT(SIZE), size); \
	}

#define NEW_ALIGNED(op, name) \
	HZ4_EXPORT void *name(size_t size, size_t align); \
	void *name(size_t size, size_t align) \
	{ \
		void *p = hz4_heap_aligned(align, size); \
\
		return hz4_likely(p != NULL) ? \
			       p : \
			       new_aligned_failed(TEXT(name), size, align); \
	}

NEW(nw)
NEW(na)
NEW_ALIGNED(nw, JOIN(_Znw, SIZE, St11align_val_t))
NEW_ALIGNED(na, JOIN(_Zna, SIZE, St11align_val_t))

#ifdef PIC
union nothrow_code {
	void *address;
	void *(*nothrow)(size_t, const void *);
	void *(*aligned_nothrow)(size_t, size_t, const void *);
};

static HZ4_SLOW void *
new_nothrow_failed(const char *name, size_t size, const void *tag)
{
	union nothrow_code f = { .address = find_operator(name) };

	return f.address ? f.nothrow(size, tag) : loop(HZ4_ALIGN, size, false);
}

static HZ4_SLOW void *
new_aligned_nothrow_failed(const char *name, size_t size, size_t align,
			   const void *tag)
{
	union nothrow_code f = { .address = find_operator(name) };

	size = no_wrap(size, align);
	return f.address ? f.aligned_nothrow(size, align, tag) :
			   loop(align, size, false);
}

#define NEW_NOTHROW(op, name) \
	HZ4_EXPORT void *name(size_t size, const void *tag); \
	void *name(size_t size, const void *tag) \
	{ \
		void *p = hz4_heap_malloc(size); \
\
		return hz4_likely(p != NULL) ? \
			       p : \
			       new_nothrow_failed(TEXT(name), size, tag); \
	}

#define NEW_ALIGNED_NOTHROW(op, name) \
	HZ4_EXPORT void *name(size_t size, size_t align, const void *tag); \
	void *name(size_t size, size_t align, const void *tag) \
	{ \
		void *p = hz4_heap_aligned(align, size); \
\
		return hz4_likely(p != NULL) ? \
			       p : \
			       new_aligned_nothrow_failed(TEXT(name), size, \
							  align, tag); \
	}

NEW_NOTHROW(nw, JOIN(_Znw, SIZE, RKSt9nothrow_t))
NEW_NOTHROW(na, JOIN(_Zna, SIZE, RKSt9nothrow_t))
NEW_ALIGNED_NOTHROW(nw, JOIN(_Znw, SIZE, St11align_val_tRKSt9nothrow_t))
NEW_ALIGNED_NOTHROW(na, JOIN(_Zna, SIZE, St11align_val_tRKSt9nothrow_t))
#endif

/* Sizes and alignments are not needed to find the object. */
#define DELETE(name, parameters) \
	HZ4_EXPORT_HOT void name parameters; \
	void name parameters \
	{ \
		hz4_heap_free(p); \
	}

#define U __attribute__((unused))

DELETE(_ZdlPv, (void *p))
DELETE(_ZdaPv, (void *p))
DELETE(_ZdlPvRKSt9nothrow_t, (void *p, const void *tag U))
DELETE(_ZdaPvRKSt9nothrow_t, (void *p, const void *tag U))
DELETE(JOIN(_ZdlPv, SIZE, ), (void *p, size_t size U))
DELETE(JOIN(_ZdaPv, SIZE, ), (void *p, size_t size U))
DELETE(_ZdlPvSt11align_val_t, (void *p, size_t align U))
DELETE(_ZdaPvSt11align_val_t, (void *p, size_t align U))
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t,
    (void *p, size_t align U, const void *tag U))
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t,
    (void *p, size_t align U, const void *tag U))
DELETE(JOIN(_ZdlPv, SIZE, St11align_val_t),
    (void *p, size_t size U, size_t align U))
DELETE(JOIN(_ZdaPv, SIZE, St11align_val_t),
    (void *p, size_t size U, size_t align U))
