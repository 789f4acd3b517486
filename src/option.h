/*
 * option.h - HZ4_OPTIONS="key=value,key=value".
 *
 * Read once with secure_getenv, after the program's own defaults
 * (hz4_default_options).  A mistake is named in one line and ignored.
 *
 * Layer 1.
 */
#ifndef HZ4_OPTION_H
#define HZ4_OPTION_H

#include "base.h"

enum hz4_option {
#define HZ4_OPTION(name, kind, value, least, most, text) HZ4_OPT_##name,
#include "option.def"
#undef HZ4_OPTION
	HZ4_OPT_COUNT
};

enum { HZ4_OPTION_PATH_MAX = 256 };

/*
 * Read the environment.  May be called again: does nothing once the
 * environment has been seen (before libc's own start there is none).
 */
void hz4_option_init(void);

/* A number's value in force. */
size_t hz4_option(enum hz4_option which);

/* A path's value in force, "" when not set. */
const char *hz4_option_path(enum hz4_option which);

/* One assignment "key=value"; false when key or value is not valid. */
bool hz4_option_assign(const char *text, size_t length);

/* The text of a value by name, for hz4_option_get(). */
bool hz4_option_text(const char *name, char *buffer, size_t size);

/* Every option in force as "key=value,...", cut to size. */
void hz4_option_list(char *buffer, size_t size);

#endif
