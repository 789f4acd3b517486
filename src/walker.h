/*
 * walker.h - the heap walker of debug builds (--enable-debug): every page,
 * span, run and cached object against what the others say of it.
 *
 * Layer 4.  The caller sees to it that no other thread is inside the
 * allocator meanwhile.
 */
#ifndef HZ4_WALKER_H
#define HZ4_WALKER_H

#include "base.h"

/*
 * Walk the heap.  Each contradiction is a line on stderr; returns how many
 * there are.  0 without --enable-debug.
 */
size_t hz4_check(void);

#endif
