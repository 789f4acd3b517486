/*
 * log.h - lines on stderr, written without malloc and without stdio.
 *
 * Layer 1.
 */
#ifndef HZ4_LOG_H
#define HZ4_LOG_H

#include "base.h"

/*
 * Write one line "hz4: ..." with a single write(2) to stderr.  Formats as
 * printf; what comes after 1,017 bytes is cut.  Keeps errno.
 */
void hz4_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * The same, then abort(): the user's program has broken the heap's rules,
 * and going on would spread the damage.
 */
_Noreturn void hz4_fatal(const char *format, ...)
	__attribute__((format(printf, 1, 2), cold));

#endif
