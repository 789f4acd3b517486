/*
 * only.h - HZ4_TEST_ONLY has names of a program's tests with commas between
 * them: it then leaves all others out.
 */
#ifndef HZ4_ONLY_H
#define HZ4_ONLY_H

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline bool
only_wants(const char *name)
{
	const char *at = getenv("HZ4_TEST_ONLY");
	size_t n;

	if (at == NULL)
		return true;
	for (;; at += n + 1) {
		n = strcspn(at, ",");
		if (n == strlen(name) && strncmp(at, name, n) == 0)
			return true;
		if (at[n] == '\0')
			return false;
	}
}

#undef tcase_add_test
#define tcase_add_test(tcase, test) \
	do { \
		if (only_wants(#test)) \
			tcase_add_test_raise_signal(tcase, test, 0); \
	} while (0)

#undef tcase_add_loop_test
#define tcase_add_loop_test(tcase, test, first, end) \
	do { \
		if (only_wants(#test)) \
			tcase_add_loop_test_raise_signal(tcase, test, 0, \
							 first, end); \
	} while (0)

#endif
