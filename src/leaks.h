/*
 * leaks.h - objects that are live at exit and that nothing points to (option
 * leaks).
 *
 * Layer 4.  At exit; takes no lock.
 */
#ifndef HZ4_LEAKS_H
#define HZ4_LEAKS_H

#include "base.h"

/* Look for them, tell on stderr, by call stack.  At exit: are there any? */
bool hz4_leaks_tell(void);

#endif
