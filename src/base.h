/*
 * base.h - attributes, assertions and small helpers that every file uses.
 *
 * Layer 0: includes nothing of hz4 but the configured macros.
 */
#ifndef HZ4_BASE_H
#define HZ4_BASE_H

#include "config.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* On the way of every malloc or free: inlined, no calls, no atomics. */
#define HZ4_FAST static inline __attribute__((always_inline))

/* Cold: out of line, kept away from the hot text. */
#define HZ4_SLOW __attribute__((noinline, cold))

/*
 * Has much on the stack, and is kept out of functions from which the way goes
 * deeper still: all together has to fit on a small one (tests/e2e_stack).
 */
#define HZ4_DEEP __attribute__((noinline))

#define HZ4_TLS _Thread_local __attribute__((tls_model("initial-exec")))
#define HZ4_EXPORT __attribute__((visibility("default")))
/*
 * What programs call all the time begins at a line of the instruction
 * cache: so it has two of them, where it might have three.
 */
#define HZ4_EXPORT_HOT HZ4_EXPORT __attribute__((aligned(64)))
#define HZ4_LINE_ALIGNED __attribute__((aligned(128)))

#define hz4_likely(x) __builtin_expect(!!(x), 1)
#define hz4_unlikely(x) __builtin_expect(!!(x), 0)

/*
 * A linker takes of libhz4.a the files that have a name the program wants.
 * Each of those with names for programs brings another one by this, so that
 * whoever gets one has libc's names, C++'s and the start of the library.
 */
#define HZ4_BRINGS(function) \
	static __typeof__(function) *const hz4_brings_##function \
		__attribute__((used)) = function

/*
 * An invariant of the allocator itself.  Costs nothing without
 * --enable-debug; a user's mistake is never an assertion but a fatal line
 * (log.h).
 */
#define HZ4_ASSERT(x) \
	do { \
		if (HZ4_DEBUG_BOX && hz4_unlikely(!(x))) \
			__builtin_trap(); \
	} while (0)

/*
 * A load or store that needs no order: the value is a hint, is read again
 * under a lock, or is published by something else.  Where it is used, the
 * field's comment says which.
 */
#define hz4_peek(a) atomic_load_explicit((a), memory_order_relaxed)
#define hz4_poke(a, v) atomic_store_explicit((a), (v), memory_order_relaxed)

/*
 * Memory that is nobody's: free slots of spans and free pages.  In a build
 * with AddressSanitizer who touches it is told, hz4 itself included; in all
 * others these two are nothing.  Objects in caches are not marked, which
 * would lengthen the fast paths.
 */
#if defined(__has_feature)
#define HZ4_HAS_FEATURE(x) __has_feature(x)
#else
#define HZ4_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || HZ4_HAS_FEATURE(address_sanitizer)
#define HZ4_SHADOW 1
#else
#define HZ4_SHADOW 0
#endif
void __asan_poison_memory_region(const volatile void *p, size_t n);
void __asan_unpoison_memory_region(const volatile void *p, size_t n);

HZ4_FAST void
hz4_close(uintptr_t start, size_t n)
{
	if (HZ4_SHADOW)
		__asan_poison_memory_region((void *)start, n);
}

HZ4_FAST void
hz4_open(uintptr_t start, size_t n)
{
	if (HZ4_SHADOW)
		__asan_unpoison_memory_region((void *)start, n);
}

/*
 * As hz4_peek, for the fast paths.  gcc folds no atomic load into the
 * instruction that uses it or into its address, which lengthens malloc and
 * free by one each.  A load of a word cannot tear, and ThreadSanitizer, which
 * alone would see a difference, sees the atomic one.
 */
#if defined(__SANITIZE_THREAD__) || HZ4_HAS_FEATURE(thread_sanitizer)
#define hz4_peek_fast(type, a) hz4_peek(a)
#else
#define hz4_peek_fast(type, a) (*(type const *)(const void *)(a))
#endif

#define hz4_container(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

HZ4_FAST size_t
hz4_round_up(size_t n, size_t unit)
{
	return (n + unit - 1) / unit * unit;
}

HZ4_FAST bool
hz4_is_pow2(size_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

HZ4_FAST size_t
hz4_min(size_t a, size_t b)
{
	return a < b ? a : b;
}

HZ4_FAST size_t
hz4_max(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Index of the highest set bit; n must not be 0. */
HZ4_FAST unsigned
hz4_log2(size_t n)
{
	return (unsigned)(sizeof(unsigned long) * 8 - 1) -
	       (unsigned)__builtin_clzl((unsigned long)n);
}

#endif
